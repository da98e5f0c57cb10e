"""The page and its pictures, from reports that are made up."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest

from ptune.data.targets import MULTI, REGRESSION, SINGLE
from ptune.report import charts, confusion
from ptune.report.canvas import fitted, text_width, tick_labels, ticks
from ptune.report.contents import (
    Bin,
    Calibration,
    ConfusedPair,
    Covered,
    LabelScores,
    Lengths,
    Numbers,
    PromptContent,
    Report,
    ShownRow,
    VirtualToken,
)
from ptune.report.page import report_page
from ptune.report.pictures import PICTURES, draw_pictures
from ptune.report.writing import remove_report, write_report

HOSTILE = "<script>alert(1)</script> \" onload='x' &amp; $\\frac{ ]]> \u202e\x1b[31m"


def made_up(count: int = 3, label: str = "label") -> Report:
    labels = [f"{label} {number}" for number in range(count)]
    matrix = [[8 if true == given else int((true + given) % 5 == 0) for given in range(count)] for true in range(count)]
    history = [
        {"epoch": epoch, "train_loss": 2 / epoch, "loss": 2.2 / epoch, "accuracy": 1 - 1 / (epoch + 1), "seconds": 9.0}
        for epoch in range(1, 5)
    ]
    bins = [Bin(0.5, 0.6, 3, 0.55, 0.4), Bin(0.9, 1.0, 7, 0.95, 0.9)]
    row = ShownRow(7, ("some text", "and another"), labels[0], labels[-1], 0.99)
    return Report(
        name="run",
        data="rows.csv, validation",
        rows=300,
        problem_type=SINGLE,
        labels=labels,
        metrics={"accuracy": 0.8, "f1": 0.7, "ece": 0.1, "ece_raw": 0.2, "loss": 0.6, "count": 300},
        majority=0.4,
        history=history,
        best_epoch=3,
        best_metric="accuracy",
        matrix=matrix,
        pairs=[ConfusedPair(labels[0], labels[-1], 12, 0.3)],
        by_label=[LabelScores(label, 0.5, 0.6, 0.55, 20) for label in labels],
        calibration=Calibration(1.7, bins, bins[1:], 0.2, 0.1),
        coverage=[Covered(0.1, 1.0, 0.99), Covered(0.5, 0.9, 0.8), Covered(1.0, 0.8, 0.3)],
        mistakes=[row],
        uncertain=[row, replace(row, answer=labels[0])],
        lengths=Lengths([5, 6, 7, 20, 31], 16, 2, False),
        prompt=PromptContent([VirtualToken(1, [("word", 0.8)], 0.2, 0.1), VirtualToken(2, [], -0.1, 0.0)], 64),
        facts={"Settings": [("lr", "0.01")], "Time": [("training", "9 s")]},
        notices=["There are few rows."],
    )


def of_regression() -> Report:
    metrics = {"pearson": 0.8, "spearman": 0.7, "mae": 0.3, "mse": 0.2, "r2": 0.6, "loss": 0.2, "count": 300}
    empty = {"matrix": None, "pairs": [], "by_label": [], "calibration": None, "coverage": [], "uncertain": []}
    history = [{"epoch": 1, "train_loss": 0.4, "loss": 0.3, "pearson": 0.8}]
    numbers = Numbers([1.0, 2.0, 3.0], [1.1, 2.2, 2.6])
    changes = {"metrics": metrics, "history": history, "best_metric": "pearson", "best_epoch": 1, "numbers": numbers}
    return replace(made_up(1), problem_type=REGRESSION, majority=None, **changes, **empty)


def of_several() -> Report:
    report = made_up(4)
    scores = [replace(one, threshold=0.3) for one in report.by_label]
    metrics = {"accuracy": 0.3, "f1": 0.5, "f1_macro": 0.4, "loss": 0.6, "count": 300}
    history = [{**line, "f1": line["accuracy"]} for line in report.history]
    return replace(
        report, problem_type=MULTI, matrix=None, by_label=scores, metrics=metrics, best_metric="f1", history=history
    )


REPORTS = {"single": made_up(), "many": made_up(150), "regression": of_regression(), "several": of_several()}


class Elements(HTMLParser):
    """Collects what a page consists of."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.texts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.texts.append(data)


@pytest.mark.parametrize("name", REPORTS)
def test_a_page_asks_for_nothing_from_elsewhere(name) -> None:
    page = report_page(REPORTS[name])
    elements = Elements(page)
    sources = [value for key, value in elements.attributes if key in ("src", "href", "action", "data")]
    assert all(value.startswith(("#", "data:image/svg+xml,")) for value in sources)
    assert not {"img", "iframe", "object", "embed", "form", "base"} & {*elements.tags}
    assert "default-src 'none'" in page
    assert not re.search(r"@import|url\(", page)
    assert len(page.encode()) < 700_000


def test_the_largest_matrix_fits_into_a_small_page() -> None:
    most = confusion.LARGEST_MATRIX
    report = replace(made_up(most), matrix=[[2] * most] * most)
    page = report_page(report)
    assert len(page.encode()) < 1_500_000
    squares = sum(element.count("M") for element in re.findall(r'<path d="([^"]*)" class="fill', page))
    assert squares + confusion.TITLED == most**2


@pytest.mark.parametrize("name", REPORTS)
def test_pictures_in_a_page_are_well_formed(name) -> None:
    drawn = re.findall(r"<svg.*?</svg>", report_page(REPORTS[name]), re.S)
    assert len(drawn) == {"single": 7, "many": 7, "regression": 6, "several": 6}[name]
    for picture in drawn:
        tree = ElementTree.fromstring(picture)
        assert tree.get("aria-label")
        for element in tree.iter():
            assert "nan" not in " ".join(element.attrib.values()).lower()


@pytest.mark.parametrize("name", REPORTS)
def test_links_of_a_page_lead_to_its_sections(name) -> None:
    attributes = Elements(report_page(REPORTS[name])).attributes
    links = {value[1:] for key, value in attributes if key == "href" and value.startswith("#")}
    assert links
    assert links <= {value for key, value in attributes if key == "id"}


def test_hostile_texts_and_labels_stay_texts() -> None:
    report = made_up(3, HOSTILE)
    row = ShownRow(1, (HOSTILE, HOSTILE * 30), HOSTILE, "other", 0.5)
    token = VirtualToken(1, [(HOSTILE, 0.1)], 0.1, 0.1)
    prompt, facts = PromptContent([token, token], 8), {HOSTILE: [(HOSTILE, HOSTILE)]}
    report = replace(report, name=HOSTILE, data=HOSTILE, mistakes=[row], prompt=prompt, facts=facts, notices=[HOSTILE])
    page = report_page(report)
    elements, plain = Elements(page), Elements(report_page(made_up(3)))
    assert elements.tags.count("script") == plain.tags.count("script") == 1
    assert not any(key.startswith("on") for key, _ in elements.attributes)
    assert any("<script>alert(1)</script>" in text for text in elements.texts)
    assert "\u202e" not in page
    assert "\x1b" not in page


def test_a_page_says_what_the_numbers_are() -> None:
    page = report_page(made_up())
    for said in ("0.8000", "majority class 0.400", "3 of 4", "There are few rows.", "temperature of 1.700", "row 7"):
        assert said in page
    assert "threshold" in report_page(of_several())
    assert "Largest errors" in report_page(of_regression())


def test_many_labels_begin_with_those_that_are_recognised_worst() -> None:
    few, many = made_up(12), made_up(13)
    for report in (few, many):
        report.by_label[-1] = replace(report.by_label[-1], f1=0.1)
    table = re.compile(r'<table class="sorted">.*?</table>', re.S)
    (kept,), (sorted_table,) = (table.findall(report_page(report)) for report in (few, many))
    assert kept.index(">label 0<") < kept.index(">label 11<")
    assert "aria-sort" not in kept
    assert sorted_table.index(">label 12<") < sorted_table.index(">label 0<")
    assert '<th scope="col" aria-sort="ascending">F1</th>' in sorted_table


def test_names_of_labels_break_at_their_signs() -> None:
    page = report_page(made_up(3, "change_user_name"))
    assert "change_<wbr>user_<wbr>name 1" in page
    assert "change_user_name 1" in page  # in pictures, where nothing breaks


def test_mistakes_among_many_labels_can_be_seen() -> None:
    drawn = confusion.confusion_matrix([f"label {number}" for number in range(150)], made_up(150).matrix)
    right, wrong = (
        {float(side) for side in re.findall(rf'width="([\d.]+)"[^>]*class="fill {kind}"', drawn)}
        for kind in ("accent", "bad")
    )
    assert max(right) < 4
    assert min(wrong) == confusion.SMALLEST_MISTAKE


def test_the_line_of_reliability_leaves_out_dots_of_few_answers() -> None:
    few, many = Bin(0.5, 0.6, 4, 0.55, 0.0), Bin(0.7, 0.8, 5, 0.75, 0.8)
    assert charts.joined([few, many, few]) == [many]
    drawn = charts.reliability(Calibration(1.0, [], [few, many], 0.1, 0.1), several=False)
    assert drawn.count("4 answers") == drawn.count("5 answers") == 1


def test_options_in_a_hint_are_code_and_a_panel_without_content_is_short() -> None:
    prompt = PromptContent([], 0, "ptune report with more --prompt-seconds can.")
    page = report_page(replace(made_up(), prompt=prompt))
    assert '<div class="panel short"><h3>What each virtual token is worth</h3>' in page
    assert "<code>--prompt-seconds</code>" in page


def test_a_report_without_a_training_has_no_curves() -> None:
    page = report_page(replace(made_up(), history=[], best_epoch=None, prompt=None))
    assert "Loss" not in Elements(page).texts
    assert "epoch kept" not in page


def test_small_matrices_have_numbers_and_large_ones_only_colours() -> None:
    small, large = made_up(2), made_up(150)
    for report, texts in ((small, True), (large, False)):
        tree = ElementTree.fromstring(confusion.confusion_matrix(report.labels, report.matrix))
        written = [element.text for element in tree.iter("text")]
        assert ("8" in written) == texts
        assert (report.labels[0] in written) == texts
    titles = [element.text for element in tree.iter("title")]  # of the large one
    assert "label 149 → label 149: 8 (" in " ".join(titles)


def test_too_many_classes_for_a_matrix_leave_the_pairs() -> None:
    report = made_up(4)
    many = replace(report, labels=[f"label {number}" for number in range(500)], matrix=[[0]])
    page = report_page(many)
    assert "Confusion matrix" not in page
    assert "Most confused" in page


def test_only_the_worst_of_very_many_labels_are_listed() -> None:
    scores = [LabelScores(f"label {number}", 0.5, 0.5, number / 1000, 5) for number in range(1000)]
    page = report_page(replace(made_up(), by_label=scores))
    assert "300 of 1,000 labels" in page
    assert "<td>label 299</td>" in page
    assert "<td>label 300</td>" not in page


@pytest.mark.parametrize(
    ("low", "high", "whole"), [(0, 1, False), (0.71, 0.74, False), (1, 20, True), (1, 2, True), (3, 3, True)]
)
def test_ticks_are_few_round_and_inside(low, high, whole) -> None:
    found = ticks(low, high, 6, whole)
    assert 1 <= len(found) <= 8
    assert all(low - 1e-9 <= value <= high + 1e-9 for value in found)
    assert not whole or all(value == int(value) for value in found)
    written = [tick_labels(found)(value) for value in found]
    assert len({*written}) == len(written)


def test_wide_characters_take_more_room() -> None:
    assert text_width("中文") == 2 * text_width("ab")
    assert fitted("中文中文中文", 40).endswith("…")
    assert text_width(fitted("a long label of a class", 60)) <= 60


@pytest.mark.parametrize(("values", "high", "bins"), [([0, 1, 2, 3], 4, 4), ([5] * 9, 6, 6), ([0, 99, 100], 101, 21)])
def test_histograms_count_every_value_once(values, high, bins) -> None:
    counts, width = charts.histogram(values, 0, high, 24, whole=True)
    assert sum(counts) == len(values)
    assert (len(counts), width) == (bins, -(-high // 24))


def test_files_of_a_report(tmp_path, pictures) -> None:
    pytest.importorskip("matplotlib")
    page = tmp_path / "new" / "report.html"
    written = write_report(made_up(3, HOSTILE), page)
    names = {path.stem for path in written[1:]}
    assert names == {"loss", "metric", "confusion", "labels", "reliability", "coverage", "lengths", "prompt"}
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in written[1:])
    assert written[0] == page
    write_report(of_regression(), page)  # another kind of task: pictures of the first one go
    left = {path.stem for path in (tmp_path / "new" / "report").iterdir()}
    assert left == {"loss", "metric", "numbers", "errors", "lengths", "prompt"}
    (tmp_path / "new" / "mine.txt").touch()
    remove_report(tmp_path / "new")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["mine.txt"]


def test_all_pictures_have_their_names_in_the_list(pictures) -> None:
    pytest.importorskip("matplotlib")
    for report in (made_up(60), of_several()):
        assert {name.removesuffix(".png") for name in draw_pictures(report)} <= {*PICTURES}


def test_without_matplotlib_the_page_is_written_alone(tmp_path) -> None:
    assert write_report(made_up(), tmp_path / "report.html") == [tmp_path / "report.html"]
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
