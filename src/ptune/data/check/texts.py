"""The texts: missing, without words, very long, with damaged characters or markup."""

from __future__ import annotations

import re
import statistics
from collections import Counter
from collections.abc import Iterator

from ptune.data.check.findings import Finding, count_rows, many
from ptune.data.check.mojibake import repaired
from ptune.data.check.rows import Row, Rows

LONG = 10  # a text is very long if it has more than so many times the characters of the median text,
LONG_CHARACTERS = 2000  # and more than these
_WORD = re.compile(r"\w")
# What decoding with the wrong encoding, or damage, leaves behind: the replacement character and control characters.
_LOST = re.compile("[\ufffd\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f]")
_MARKUP = re.compile(r"&(?:[a-zA-Z]{2,8}|#\d{1,6}|#x[0-9a-fA-F]{1,5});|</?(?:br|p|div|span|b|i|a|li|ul|td|tr)\b[^<>]*>")


def unusable(rows: Rows) -> Iterator[Finding]:
    """Find rows that lack text or label, and rows that cannot be read."""
    for kind, lacking, advice in (
        ("missing", True, "fill them in or leave them out"),
        ("unreadable", False, "correct them by hand"),
    ):
        found = [row for row in rows.all if row.problem is not None and row.lacking == lacking]
        if found:
            reasons = Counter(_kind(row.problem or "") for row in found)
            shown = ", ".join(f"{reason} ({count:,})" for reason, count in reasons.most_common(5))
            yield Finding(kind, f"{count_rows(found)} cannot be used: {shown}", advice, found)


def without_words(rows: Rows) -> Iterator[Finding]:
    """Find texts that hold neither a letter nor a digit."""
    found = [row for row in rows.usable if not any(_WORD.search(text) for text in row.texts)]
    if found:
        verb = many(len(found), "has", "have")
        yield Finding(
            "no_words",
            f"{count_rows(found)} {verb} neither letters nor digits",
            "look at them or leave them out",
            found,
        )


def long_texts(rows: Rows) -> Iterator[Finding]:
    """Find texts that are much longer than the others, often several texts in one because of a quotation mark."""
    lengths = {id(row): sum(map(len, row.texts)) for row in rows.usable}
    if not lengths:
        return
    median = statistics.median(lengths.values())
    found = [row for row in rows.usable if lengths[id(row)] > max(LONG * median, LONG_CHARACTERS)]
    if found:
        verb, longest = many(len(found), "is", "are"), max(lengths[id(row)] for row in found)
        yield Finding(
            "long_texts",
            f"{count_rows(found)} {verb} over {LONG} times as long as the median text of {median:,.0f} characters; the "
            f"longest has {longest:,}",
            "look whether a missing quotation mark has joined rows",
            found,
            details={"median": median, "longest": longest},
        )


def damaged(rows: Rows) -> Iterator[Finding]:
    """Find texts that were decoded with the wrong encoding, or that have lost characters."""
    read_again = [(row, [repaired(text) for text in row.texts]) for row in rows.usable]
    repairable = [row for row, texts in read_again if texts != list(row.texts)]
    lost = [row for row, texts in read_again if any(map(_LOST.search, texts))]
    marked = {id(row) for row in (*repairable, *lost)}
    if marked:
        found = [row for row in rows.usable if id(row) in marked]
        example = f", such as {_sample(repairable[0])}" if repairable else ""
        parts = [f"decoded with the wrong encoding {len(repairable):,}{example}"] if repairable else []
        parts += [f"characters lost {len(lost):,}"] if lost else []
        yield Finding(
            "encoding",
            f"{count_rows(found)} {many(len(found), 'has', 'have')} damaged characters: {'; '.join(parts)}",
            "read the original again in its encoding",
            found,
            details={"repairable": len(repairable), "lost": len(lost)},
        )


def with_markup(rows: Rows) -> Iterator[Finding]:
    """Find texts with HTML in them."""
    found = [row for row in rows.usable if any(_MARKUP.search(text) for text in row.texts)]
    if found:
        examples = Counter(match[0] for row in found for text in row.texts for match in _MARKUP.finditer(text))
        shown = ", ".join(example[:30] for example, _ in examples.most_common(3))
        yield Finding(
            "markup",
            f"{count_rows(found)} {many(len(found), 'contains', 'contain')} HTML: {shown}",
            "remove it here and in the texts to predict, or in neither",
            found,
        )


def _kind(problem: str) -> str:
    return problem.split(";")[0]


def _sample(row: Row) -> str:
    """Return the first words of a row that are repaired, as they are and as they should be."""
    for text in row.texts:
        for word in text.split():
            if (right := repaired(word)) != word:
                return f"'{word[:30]}' for '{right[:30]}'"
    return f"'{row.text[:30]}'"
