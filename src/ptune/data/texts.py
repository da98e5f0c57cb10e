"""Check texts and pairs of texts that callers pass in."""

from __future__ import annotations

from collections.abc import Sequence

from ptune.data.columns import whole_characters
from ptune.errors import DataError

Text = str | tuple[str, str]


def unzip(texts: Sequence[Text], seen: int = 0) -> tuple[list[str], list[str] | None]:
    """Return the first texts, and the second texts or None for single texts. A text may be empty.

    Args:
        texts: single texts or (text, text_pair), not both.
        seen: how many texts came before these. Error messages count texts from 1, including them.

    Raises:
        DataError: a text is not a string, or cannot be encoded.
        DataError: single texts and pairs are mixed, or a pair has not two texts.
    """
    paired = bool(texts) and isinstance(texts[0], tuple)
    for number, row in enumerate(texts, seen + 1):
        if isinstance(row, tuple) != paired:
            raise DataError(f"text {number}: single texts and pairs do not mix in one call")
        members: Sequence[str] = row if isinstance(row, tuple) else [row]
        if paired and len(members) != 2:
            raise DataError(
                f"text {number}: a pair has two texts, but this tuple has {len(members)}; give several texts as a list"
            )
        if not all(isinstance(member, str) for member in members):
            raise DataError(f"text {number} is not text: {row!r:.200}")
        if not all(map(whole_characters, members)):
            raise DataError(f"text {number} contains half a character; is its encoding not UTF-8?")
    if not paired:
        return [str(text) for text in texts], None
    return [row[0] for row in texts], [row[1] for row in texts]
