"""The languages of texts: by script, and for texts in Latin script by their most frequent words.

A row counts as another language only if it has at least three such words of it and hardly any of the main one. Short
texts are left alone: their language cannot be told reliably.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator

from ptune.data.check.findings import Finding, count_rows, many
from ptune.data.check.function_words import FUNCTION_WORDS
from ptune.data.check.rows import Row, Rows

FEWEST_WORDS = 3  # different frequent words that a text needs to be counted as another language
FEWEST_LETTERS = 4  # letters of a text whose script is looked at
OWN_SCRIPT = 0.25  # share of letters in the script of most rows from which a row is not counted as another language
KANA = 0.2  # share of kana among a text's characters from which it is Japanese and not Chinese
_SCRIPTS = {
    "Latin": "A-Za-zªºÀ-ÖØ-öø-ɏ\u1e00-\u1eff",
    "Greek": "\u0370-\u03ff\u1f00-\u1fff",
    "Cyrillic": "\u0400-\u052f",
    "Armenian": "\u0531-\u058f",
    "Hebrew": "\u0590-\u05ff",
    "Arabic": "\u0600-\u06ff\u0750-\u077f\ufb50-\ufdff\ufe70-\ufefc",
    "Devanagari": "\u0900-\u097f",
    "Bengali": "\u0980-\u09ff",
    "Tamil": "\u0b80-\u0bff",
    "Telugu": "\u0c00-\u0c7f",
    "Thai": "\u0e00-\u0e7f",
    "Georgian": "\u10a0-\u10ff",
    "Korean": "\u1100-\u11ff\u3130-\u318f\uac00-\ud7af",
    "Japanese": "\u3040-\u30ff",
    "Chinese": "\u3400-\u9fff",
}
_PATTERNS = {script: re.compile(f"[{characters}]") for script, characters in _SCRIPTS.items()}
_WIDE = ("Chinese", "Japanese", "Korean")
_WORD = re.compile(r"\b[^\W\d_]+\b")
_LANGUAGES = {language: frozenset(words.split()) for language, words in FUNCTION_WORDS.items()}


def languages(rows: Rows) -> Iterator[Finding]:
    """Find rows in another script or language than most rows."""
    known: dict[int, str] = {}
    scripts = {id(row): script_of(" ".join(row.texts)) for row in rows.usable}
    main_script = _most_common(scripts.values())
    words = {id(row): _words(row) for row in rows.usable if scripts[id(row)] == "Latin"}
    main = _most_common(map(_language, words.values()))
    for row in rows.usable:
        script = scripts[id(row)]
        if script and script != main_script:
            if script_shares(" ".join(row.texts)).get(main_script, 0) < OWN_SCRIPT:
                known[id(row)] = script
        elif script == "Latin" and main and (language := _other_language(words[id(row)], main)):
            known[id(row)] = language
    found = [row for row in rows.usable if id(row) in known]
    most = main if main and main_script == "Latin" else main_script
    if found:
        counts = Counter(known[id(row)] for row in found)
        shown = ", ".join(f"{name} {count:,}" for name, count in counts.most_common(8))
        yield Finding(
            "language",
            f"{count_rows(found)} {many(len(found), 'is', 'are')} in another language than most rows ({most}): {shown}",
            "check that the backbone knows these languages, or leave the rows out",
            found,
            details={"main": most, "rows": dict(counts)},
        )


def script_of(text: str) -> str:
    """Return the script of most letters of a text; "" if it has few letters."""
    if text.isascii():
        return "Latin" if sum(map(str.isalpha, text)) >= FEWEST_LETTERS else ""
    shares = script_shares(text)
    return max(shares, key=shares.__getitem__) if shares else ""


def script_shares(text: str) -> dict[str, float]:
    """Return the share of each script among the letters of a text; nothing if it has few letters.

    A Chinese, Japanese or Korean character counts as two letters. Chinese characters beside kana are Japanese.
    """
    counts = {script: len(pattern.findall(text)) for script, pattern in _PATTERNS.items()}
    kana, both = counts["Japanese"], counts["Japanese"] + counts["Chinese"]
    counts |= {"Japanese": both, "Chinese": 0} if kana > KANA * both else {"Japanese": 0, "Chinese": both}
    weighted = {script: count * (2 if script in _WIDE else 1) for script, count in counts.items() if count}
    total = sum(weighted.values())
    return {script: weight / total for script, weight in weighted.items()} if total >= FEWEST_LETTERS else {}


def _words(row: Row) -> set[str]:
    return {word for text in row.texts for word in _WORD.findall(text.lower())}


def _language(words: set[str]) -> str:
    """Return the language of which words are most frequent; "" if there is none."""
    hits = {language: len(words & known) for language, known in _LANGUAGES.items()}
    best = max(hits, key=hits.__getitem__)
    return best if hits[best] else ""


def _other_language(words: set[str], main: str) -> str | None:
    """Return the language of a text if it is clearly not the main one. Words that both have are not evidence."""
    own = _LANGUAGES[main]
    hits = {language: len(words & known - own) for language, known in _LANGUAGES.items() if language != main}
    best = max(hits, key=hits.__getitem__)
    return best if hits[best] >= max(FEWEST_WORDS, 3 * len(words & own)) else None


def _most_common(values: Iterable[str]) -> str:
    counts = Counter(value for value in values if value)
    return counts.most_common(1)[0][0] if counts else ""
