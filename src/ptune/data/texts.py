"""Texts and pairs of texts as callers hand them over."""

from __future__ import annotations

from collections.abc import Sequence

from ptune.data.columns import whole_characters
from ptune.errors import DataError

Text = str | tuple[str, str]


def listed(texts: Text | Sequence[Text]) -> list[Text]:
    """Return a list of texts, also where a single text or pair is given."""
    return [texts] if isinstance(texts, (str, tuple)) else list(texts)  # type: ignore[list-item]


def unzip(texts: Sequence[Text], seen: int = 0) -> tuple[list[str], list[str] | None]:
    """Return first texts and second texts, the latter None for single texts.

    Args:
        seen: added to the number by which an error names a text.

    Raises:
        DataError: an empty text; single texts and pairs mixed.
    """
    paired = bool(texts) and isinstance(texts[0], tuple)
    for number, row in enumerate(texts, seen + 1):
        if isinstance(row, tuple) != paired:
            raise DataError(f"text {number}: single texts and pairs do not mix in one call")
        parts: Sequence[str] = row if isinstance(row, tuple) else [row]
        if any(not isinstance(part, str) or not part.strip() for part in parts):
            raise DataError(f"text {number} is empty or no text: {row!r}")
        if not all(map(whole_characters, parts)):
            raise DataError(f"text {number} holds half a character; is it in another encoding than UTF-8? {row!a}")
    if not paired:
        return [str(text) for text in texts], None
    return [row[0] for row in texts], [row[1] for row in texts]
