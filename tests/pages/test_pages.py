"""The pages of comparisons and explanations, from results that are made up."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from ptune.analysis.compare import Comparison, Difference, Disagreement, McNemar
from ptune.analysis.explain import ExplainedWord, Explanation
from ptune.data.targets import REGRESSION, SINGLE
from ptune.pages.compare import compare_page
from ptune.pages.explain import explain_page

HOSTILE = "<script>alert(1)</script> \" onload='x' &amp; \u202e\x1b[31m"


def comparison(name: str = "first", text: str = "some text") -> Comparison:
    names = [name, "second", "third"]
    differences = [{"accuracy": Difference(-0.04, -0.07, -0.01)}, {"accuracy": Difference(0.02, -0.01, 0.05)}]
    row = Disagreement(7, (text, "and another"), name, [name, "other", name], [True, False, True])
    metrics = [{"accuracy": 0.80 + number / 100, "count": 9.0} for number in range(3)]
    tests = [McNemar(9, 1, 0.02), McNemar(3, 4, 1.0)]
    return Comparison(names, "rows.csv, validation", 99, SINGLE, [name, "other"], metrics, differences, tests, [row])


def explanation(label: str = "spam", texts: tuple[str, ...] = ("win a prize now", "dear friend")) -> Explanation:
    words = [
        ExplainedWord(match[0], part, match.start(), match.end(), score)
        for part, text in enumerate(texts)
        for match, score in zip(re.finditer(r"\S+", text), (0.5, -1.0, 2.0, 0.0), strict=False)
    ]
    prediction = {"label": label, "score": 0.9, "scores": {label: 0.9, "ham": 0.1}}
    return Explanation(texts, prediction, label, "gradients", 2.0, 0.1, words, 0.0, False)


@pytest.mark.parametrize("page", [compare_page(comparison()), explain_page(explanation())], ids=["compare", "explain"])
def test_a_page_is_one_file_that_may_load_nothing(page) -> None:
    assert "default-src 'none'" in page
    assert not re.search(r"@import|url\(|<(?:script|img|iframe|object|form)", page)
    assert all(place.startswith(("#", "data:")) for place in re.findall(r'(?:src|href)="([^"]*)', page))
    assert '<meta name="viewport"' in page
    assert "prefers-color-scheme: dark" in page


@pytest.mark.parametrize(
    "page",
    [compare_page(comparison(HOSTILE, HOSTILE * 20)), explain_page(explanation(HOSTILE, (HOSTILE, HOSTILE)))],
    ids=["compare", "explain"],
)
def test_hostile_texts_and_labels_stay_texts(page) -> None:
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "\u202e" not in page
    assert "\x1b" not in page


def test_a_comparison_has_each_run_once_and_differences_under_its_values() -> None:
    page = compare_page(comparison())
    assert "first, second and third" in page
    (line,) = re.findall(r"<tr><td>accuracy</td>.*?</tr>", page)
    assert re.findall(r"<td>([\d.]+)<small>(.*?)</small>", line) == [
        ("0.8000", ""),
        ("0.8100", "−0.0400 (−0.0700 to −0.0100) *"),
        ("0.8200", "+0.0200 (−0.0100 to +0.0500)"),
    ]
    assert "A star marks intervals without 0" in page
    assert page.count("(McNemar)") == 2


def test_rows_that_runs_disagree_on_say_who_is_right_without_colours() -> None:
    page = compare_page(comparison())
    assert '<span class="right">first <b>✓ first</b></span><span class="wrong">second <b>✗ other</b></span>' in page
    assert "row 7" in page
    assert "1 row<" in page
    assert "<h3>None</h3>" in compare_page(replace(comparison(), disagreements=[]))


def test_a_comparison_of_regressions_has_no_test_and_says_which_number_is_closest() -> None:
    row = Disagreement(2, ("a text",), 3.0, [2.5, 1.0, 3.25], [False, False, True])
    page = compare_page(replace(comparison(), problem_type=REGRESSION, mcnemar=[], disagreements=[row]))
    assert "McNemar" not in page
    assert "closest to the true one" in page
    assert "3.25" in page


def test_an_explanation_marks_words_and_lists_the_strongest_first() -> None:
    page = explain_page(explanation())
    assert [title in page for title in ("First text", "Second text")] == [True, True]
    assert 'rgb(var(--speaks-for) / 0.70)" title="+2.0000">prize</mark>' in page
    assert 'rgb(var(--speaks-against) / 0.35)" title="-1.0000">a</mark>' in page
    words = re.findall(r"<tr><td>(\w+)</td><td><span", page)
    assert words[:3] == ["prize", "a", "friend"]
    assert "First text" not in explain_page(explanation(texts=("win a prize now",)))
