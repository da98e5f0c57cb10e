"""The page at `/` in a real browser: what a person sees, and what a keyboard reaches."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from ptune.inference.classifier import load
from ptune.inference.mixed import predict_mixed
from tests.serving.running import RunningServer, copies, save_kinds

CHROMIUM = os.environ.get("PTUNE_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
playwright = pytest.importorskip("playwright.sync_api", reason="needs Playwright: pip install playwright")
pytest.importorskip("fastapi", reason="needs the extra 'serve'")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="needs Chromium: apt-get install chromium, or its path in PTUNE_CHROMIUM"
)
KEY = "a-key-of-the-page-tests"
TEXT = "a good film and a fine plot"
Open = Callable[..., Any]


@pytest.fixture(scope="module")
def adapters(backbone, tmp_path_factory) -> Path:
    folder = save_kinds(tmp_path_factory.mktemp("served"), backbone("bert"))
    copies(folder, "moods", 30)
    (folder / "damaged").mkdir()
    (folder / "damaged" / "ptune.json").write_text("{")
    return folder


@pytest.fixture(scope="module")
def server(adapters, backbone_folder) -> Iterator[RunningServer]:
    with RunningServer(adapters=[str(adapters)], backbone=[str(backbone_folder("bert"))]) as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        # A container has no user namespaces for Chromium's sandbox, and the page is ours.
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def open_page(browser, server) -> Iterator[Open]:
    """Open the page. Whatever it complains about in the console fails the test, but for answers that are errors."""
    opened, problems = [], []

    def start(url: str | None = None, width: int = 1400, height: int = 900, ready: bool = True, **options: Any) -> Any:
        page = browser.new_page(viewport={"width": width, "height": height}, **options)
        page.set_default_timeout(10_000)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda line: problems.append(line.text) if line.type == "error" else None)
        opened.append(page)
        page.goto(url or server.url)
        if ready:
            page.wait_for_selector(".adapter")
        return page

    yield start
    for page in opened:
        page.close()
    assert [line for line in problems if "Failed to load resource" not in line] == []


def choose(page: Any, *names: str) -> None:
    """Choose these adapters and no others."""
    page.click("#clear")
    for name in names:
        page.fill("#search", name)
        page.locator(".adapter", has=page.get_by_text(name, exact=True)).click()
    page.fill("#search", "")


def classify(page: Any, text: str = TEXT) -> None:
    page.fill("#text", text)
    page.click("#go")
    page.wait_for_selector(".card")


def bars_of(page: Any, name: str) -> dict[str, str]:
    """The labels and numbers beside the bars of a card."""
    card = page.locator(".card", has=page.get_by_role("heading", name=name, exact=True))
    return dict(line.split("\n") for line in card.locator(".bars li > div").all_inner_texts())


def shown(score: float) -> str:
    return f"{100 * score:.{1 if 0.0995 < score < 0.9995 else 2}f} %"


def test_a_browser_gets_the_page_and_it_loads_nothing_from_elsewhere(open_page, server) -> None:
    page = open_page(ready=False)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.reload()
    page.wait_for_selector(".adapter")
    assert asked
    assert all(url.startswith((server.url, "data:")) for url in asked)
    content = files("ptune.serving").joinpath("page/index.html").read_text(encoding="utf-8")
    assert not re.findall(r"""(?:src|href)=["']?(?:https?:)?//""", content)


def test_the_description_of_the_protocols_loads_nothing_from_elsewhere(open_page, server) -> None:
    page = open_page(ready=False)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{server.url}/docs")
    page.wait_for_selector("text=/predict-many")
    assert any(url.endswith(".js") for url in asked)
    assert all(url.startswith((server.url, "data:")) for url in asked)


def test_answers_are_those_of_the_library_side_by_side(open_page, adapters, backbone) -> None:
    page = open_page()
    choose(page, "reviews", "topics")
    classify(page)
    loaded = {name: load(adapters / name, backbone("bert")) for name in ("reviews", "topics")}
    expected = predict_mixed([(classifier, TEXT) for classifier in loaded.values()])
    for name, prediction in zip(loaded, expected, strict=True):
        if name == "topics":
            page.get_by_role("button", name="Show all 7 labels").click()
        assert bars_of(page, name) == {label: shown(score) for label, score in prediction["scores"].items()}
        best = page.locator(".card", has=page.get_by_role("heading", name=name, exact=True)).locator(".best")
        assert best.inner_text().split("\n") == [prediction["label"], shown(prediction["score"])]
    left, right = (box.bounding_box() for box in page.locator(".card").all())
    assert left["y"] == right["y"]
    assert left["x"] + left["width"] <= right["x"]


def test_adapters_with_the_same_labels_show_them_in_the_same_order(open_page) -> None:
    page = open_page()
    choose(page, "reviews", "moods")
    classify(page)
    assert list(bars_of(page, "reviews")) == list(bars_of(page, "moods"))


def test_bars_are_as_long_as_their_probability(open_page) -> None:
    page = open_page(reduced_motion="reduce")
    choose(page, "reviews")
    classify(page)
    for line in page.locator(".bars li").all():
        share = float(line.locator(".number").inner_text().removesuffix(" %")) / 100
        track, bar = (line.locator(part).bounding_box()["width"] for part in (".track", ".track b"))
        assert abs(bar / track - share) < 0.02


def test_several_labels_and_numbers_have_cards_of_their_own_kind(open_page) -> None:
    page = open_page()
    choose(page, "flags", "stars")
    classify(page)
    flags = page.locator(".card", has=page.get_by_role("heading", name="flags"))
    above = [name for name, share in bars_of(page, "flags").items() if float(share.removesuffix(" %")) > 50]
    heading = flags.locator(".best").inner_text().strip()
    assert set(heading.split(", ")) == (set(above) or {"No label"})
    stars = page.locator(".card", has=page.get_by_role("heading", name="stars"))
    assert stars.locator(".bars").count() == 0
    assert re.fullmatch(r"stars\n-?\d+\.?\d*", stars.locator(".best").inner_text())


def test_several_labels_are_those_that_the_library_says(open_page, adapters, backbone) -> None:
    page = open_page()
    choose(page, "hints", "one-hint")
    classify(page)
    for name in ("hints", "one-hint"):
        expected = load(adapters / name, backbone("bert")).predict(TEXT)[0]["labels"]
        card = page.locator(".card", has=page.get_by_role("heading", name=name, exact=True))
        heading = card.locator(".best").inner_text().strip()
        assert set(heading.split(", ")) == (set(expected) or {"No label"})
        assert card.locator(".bars li.top").count() == len(expected)
    assert len(expected) == 1


def test_pairs_are_asked_of_adapters_for_pairs(open_page) -> None:
    page = open_page()
    choose(page, "mrpc")
    page.fill("#text", TEXT)
    page.click("#go")
    notice = page.locator("#notice")
    assert "mrpc: trained on pairs of texts. Add a second text, or do not choose it." in notice.inner_text()
    page.get_by_role("button", name="Add a second text").click()
    assert page.evaluate("document.activeElement.id") == "pair"
    page.fill("#pair", "a bad film")
    page.click("#go")
    page.wait_for_selector(".card")
    assert notice.is_hidden()
    assert set(bars_of(page, "mrpc")) == {"different", "same"}
    assert page.locator("#asked q").all_inner_texts() == [TEXT, "a bad film"]


def test_search_finds_names_and_labels_and_chooses_what_it_found(open_page) -> None:
    page = open_page()
    total = page.locator(".adapter").count()
    assert total == 36
    page.click("#clear")
    page.fill("#search", "MOODS 000")
    assert page.locator(".adapter").count() == 10
    page.click("#choose-shown")
    page.fill("#search", "weather")
    assert page.locator(".adapter b").all_inner_texts() == ["topics"]
    page.fill("#search", "no such thing")
    assert page.locator(".adapters").inner_text() == "No adapter has this in its name or labels."
    assert page.locator("#chosen").inner_text() == f"10 of {total} chosen"


@pytest.mark.long
def test_many_answers_come_in_portions(open_page) -> None:
    page = open_page()
    page.fill("#search", "moods-")
    page.click("#clear")
    page.fill("#search", "moods-")
    page.click("#choose-shown")
    classify(page)
    assert page.locator(".card").count() == 24
    page.get_by_role("button", name="Show 6 more of 6").click()
    assert page.locator(".card").count() == 30
    assert page.locator("#more").is_hidden()


def test_everything_can_be_done_by_keyboard_alone(open_page) -> None:
    page = open_page()
    keys = page.keyboard

    def tab_to(identifier: str) -> None:
        for _ in range(30):
            keys.press("Tab")
            if page.evaluate("document.activeElement.id") == identifier:
                return
        pytest.fail(f"Tab does not reach {identifier}")

    tab_to("text")
    keys.type(TEXT)
    tab_to("search")
    keys.type("reviews")
    keys.press("Tab")
    assert page.evaluate("document.activeElement.id") == "adapters"
    if page.locator(".adapter").get_attribute("aria-selected") == "false":
        keys.press("Space")
    assert page.locator(".adapter").get_attribute("aria-selected") == "true"
    keys.press("Control+Enter")
    page.wait_for_selector(".card")
    assert "reviews" in page.locator(".card h3").all_inner_texts()
    tab_to("copy")


def test_arrow_keys_move_through_the_adapters_and_space_chooses(open_page) -> None:
    page = open_page()
    page.click("#clear")
    page.focus("#search")
    page.keyboard.press("ArrowDown")
    for key in ("Home", "ArrowDown", "ArrowDown", "ArrowUp", "Space", "End", "Space"):
        page.keyboard.press(key)
    names = page.locator(".adapter b").all_inner_texts()
    chosen = page.locator(".adapter[aria-selected=true] b").all_inner_texts()
    assert chosen == [names[1], names[-1]]
    at = page.get_attribute("#adapters", "aria-activedescendant")
    assert page.locator(f"#{at} b").inner_text() == names[-1]


@pytest.mark.long
@pytest.mark.long
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_focus_can_be_seen_on_everything_that_takes_it(scheme, open_page) -> None:
    page = open_page(color_scheme=scheme)
    choose(page, "topics")
    classify(page)
    seen = set()
    for _ in range(25):  # more than there are, so that it comes to all
        page.keyboard.press("Tab")
        name, width, style = page.evaluate(
            """() => { const one = document.activeElement, look = getComputedStyle(one);
            return [one.id || one.textContent, parseFloat(look.outlineWidth), look.outlineStyle] }"""
        )
        if page.evaluate("document.activeElement === document.body"):
            continue
        seen.add(name)
        assert (width >= 2, style) == (True, "solid"), name
    assert {"text", "search", "adapters", "go", "copy", "curl", "pair-switch", "Show all 7 labels"} <= seen


def test_every_field_has_a_name_and_every_name_is_unique(open_page) -> None:
    page = open_page(ready=True)
    page.click("#pair-switch")
    for label in ("Text", "Second text"):
        assert page.get_by_role("textbox", name=label, exact=True).count() == 1
    assert page.get_by_role("searchbox", name="Adapters").count() == 1
    assert page.get_by_role("listbox", name="Adapters").count() == 1
    for button in ("Classify", "Copy", "Choose all", "Clear", "Remove the second text"):
        assert page.get_by_role("button", name=button, exact=True).count() == 1
    identifiers = page.evaluate("[...document.querySelectorAll('[id]')].map((one) => one.id)")
    assert len(identifiers) == len(set(identifiers))


CONTRAST = """() => {
  const parse = (color) => color.match(/[\\d.]+/g).map(Number);
  const linear = (v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = (rgb) => rgb.slice(0, 3).map((v) => linear(v / 255))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (one) => { for (; one; one = one.parentElement) {
    const color = parse(getComputedStyle(one).backgroundColor); if (color.length < 4 || color[3] === 1) return color; }
    return [255, 255, 255]; };
  const low = [];
  for (const one of document.body.querySelectorAll('*')) {
    const own = [...one.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!own || !one.getClientRects().length || one.closest('.unseen')) continue;
    const [a, b] = [light(parse(getComputedStyle(one).color)), light(ground(one))].sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < 4.5) low.push(`${one.textContent}: ${((a + 0.05) / (b + 0.05)).toFixed(2)}`);
  }
  return low;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_has_enough_contrast(scheme, open_page) -> None:
    page = open_page(color_scheme=scheme)
    choose(page, "topics", "flags")
    classify(page)
    assert page.evaluate(CONTRAST) == []
    page.fill("#text", "")
    page.click("#go")
    assert page.locator("#notice").inner_text() == "Type a text first."
    assert page.evaluate(CONTRAST) == []


@pytest.mark.parametrize("width", [320, 400, 1400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_wider_than_the_screen(width, scheme, open_page, tmp_path) -> None:
    page = open_page(width=width, color_scheme=scheme)
    page.set_default_timeout(20_000)
    choose(page, "reviews", "topics", "flags", "stars")
    classify(page, "word" * 60 + " " + TEXT)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    columns = {box.bounding_box()["x"] for box in page.locator(".card").all()}
    assert len(columns) == (1 if width < 500 else 2)
    if width < 500:  # the answer is below the form, so it is brought into sight
        playwright.expect(page.locator("#asked")).to_be_in_viewport(ratio=1)
    page.screenshot(path=tmp_path / "page.png")
    assert (tmp_path / "page.png").stat().st_size > 10_000


def test_the_curl_line_is_the_request_of_the_page_and_runs_in_a_shell(open_page, server) -> None:
    page = open_page()
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    choose(page, "reviews", "flags")
    with page.expect_request("**/predict-many") as sent:
        classify(page, 'it\'s a "good" film $HOME `x`')
    page.click("#copy")
    playwright.expect(page.locator("#copy")).to_have_text("Copied")
    line = page.evaluate("navigator.clipboard.readText()")
    assert line == page.locator("#curl").inner_text()
    if shutil.which("curl") is None:
        return
    done = subprocess.run(["sh", "-c", f"{line} --silent"], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == sent.value.response().json()
    assert json.loads(done.stdout).keys() == {"reviews", "flags"}


def test_adapters_that_cannot_be_served_are_listed_with_the_reason(open_page) -> None:
    page = open_page()
    page.click("#broken-title")
    assert page.locator("#broken-title").inner_text() == "1 adapter cannot be served"
    assert "damaged" in page.locator("#broken-list").inner_text()


def test_names_and_labels_of_strangers_are_text_and_not_markup(open_page) -> None:
    bad = '<img src=x onerror="window.hacked = 1"><script>window.hacked = 1</script>'
    listed = {
        "adapters": [{"name": bad, "labels": [bad], "problem_type": "single_label_classification"}],
        "broken": {bad: bad},
    }
    page = open_page(ready=False)
    page.route("**/adapters", lambda route: route.fulfill(json=listed))
    page.route("**/predict-many", lambda route: route.fulfill(json={bad: [{"label": bad, "score": 0.5}]}))
    page.reload()
    page.wait_for_selector(".adapter")
    classify(page, bad)
    assert page.evaluate("window.hacked") is None
    assert page.locator(".card h3").inner_text() == bad


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        ({"status": 429, "headers": {"Retry-After": "3"}, "json": {}}, "The server is busy. Try again in 3 seconds."),
        ({"status": 429, "json": {}}, "The server is busy. Try again in a moment."),
        ({"status": 413, "json": {"error": "the body has too many bytes"}}, "The body has too many bytes."),
        ({"status": 503, "json": {"error": ""}}, "The server is starting or stopping. Try again in a moment."),
        ({"status": 404, "json": {"error": "no 'a'"}}, "No 'a'. Reload this page to see which adapters there are now."),
        ({"status": 500, "body": "<html>"}, "The server answered with status 500."),
        ({"status": 422, "json": {"error": {"message": "too long"}}}, "Too long."),
        (None, "The server does not answer. See whether it is still running, then try again."),
    ],
)
def test_errors_are_sentences(answer, sentence, open_page) -> None:
    page = open_page()
    page.route("**/predict-many", lambda route: route.fulfill(**answer) if answer else route.abort())
    page.fill("#text", TEXT)
    page.click("#go")
    page.wait_for_selector("#notice:not([hidden])")
    assert page.locator("#notice").inner_text() == sentence
    assert page.locator("#go").inner_text() == "Classify"
    assert page.locator("#go").get_attribute("aria-disabled") is None


def test_what_is_missing_is_said_and_focused(open_page) -> None:
    page = open_page()
    page.click("#go")
    assert page.locator("#notice").inner_text() == "Type a text first."
    assert page.evaluate("document.activeElement.id") == "text"
    page.fill("#text", TEXT)
    page.click("#clear")
    page.click("#go")
    assert page.locator("#notice").inner_text() == "Choose at least one adapter."


def test_a_server_with_keys_is_asked_with_a_key_that_the_curl_line_does_not_show(
    open_page, adapters, backbone_folder
) -> None:
    settings = {"adapters": [str(adapters)], "backbone": [str(backbone_folder("bert"))], "api_keys": [KEY]}
    with RunningServer(**settings) as locked:
        page = open_page(locked.url, ready=False)
        playwright.expect(page.locator("#key")).to_be_focused()
        assert page.locator("#notice").is_hidden()
        assert page.locator("#adapters").inner_text() == "They are listed when the key is known."
        page.fill("#text", TEXT)
        page.fill("#key", "wrong")
        page.click("#go")
        playwright.expect(page.locator("#notice")).to_have_text("The server does not accept this API key.")
        page.fill("#key", KEY)
        page.click("#go")
        page.wait_for_selector(".card")
        assert page.locator("#notice").is_hidden()
        assert KEY not in page.content()
        assert '-H "Authorization: Bearer $PTUNE_KEY"' in page.locator("#curl").inner_text()
        page.reload()
        page.wait_for_selector(".adapter")  # the tab remembers the key
