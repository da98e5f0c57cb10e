"""Templates: the words around a text when a model reads it.

"Review: {text}\\nSentiment:", for example, asks a language model for a word.
`{text}` and `{text_pair}` stand for the texts of a row, `{mask}` stands for the
tokenizer's mask token, and `{{` and `}}` are literal braces. Braces in the texts
themselves have no meaning.
"""

from __future__ import annotations

from collections import Counter
from string import Formatter
from typing import Literal

from ptune.errors import cut, short

# The end at which a text that is too long is cut.
Side = Literal["left", "right"]
FIELDS = ("text", "text_pair", "mask")

# A template as a list of (text in front of a field, name of the field). The name is None for text at the end.
Parts = list[tuple[str, str | None]]


def fields_of(template: str) -> set[str]:
    """Return the names of a template's fields.

    Raises:
        ValueError: the template has a single brace, or an unknown or repeated field.
        ValueError: the template does not have {text}.
    """
    fields = [field for _, field in parse(template) if field is not None]
    if "text" not in fields:
        raise ValueError(f"template {short(template)} has no {{text}}, so the model would not read the text")
    repeated = sorted(field for field, count in Counter(fields).items() if count > 1)
    if repeated:
        raise ValueError(f"template {short(template)} has {{{repeated[0]}}} more than once")
    return set(fields)


def parse(template: str) -> Parts:
    """Split a template at its fields.

    Raises:
        ValueError: the template has a single brace, or a field that is not in FIELDS.
    """
    known = ", ".join(f"{{{field}}}" for field in FIELDS)
    try:
        parts = list(Formatter().parse(template))
    except ValueError as err:
        raise ValueError(
            f"template {short(template)}: {err}; it may contain {known}, and {{{{ or }}}} for a brace"
        ) from err
    for _, field, format_spec, conversion in parts:
        if field is not None and (field not in FIELDS or format_spec or conversion):
            written = field + (f"!{conversion}" if conversion else "") + (f":{format_spec}" if format_spec else "")
            raise ValueError(f"template {short(template)} has {{{cut(written, 200)}}}; it may contain {known}")
    return [(literal, field) for literal, field, _, _ in parts]


def with_pair(template: str) -> str:
    """Return a template without {text_pair} as one that has it on a new line after {text}, where `write` puts it."""
    return "".join(
        literal.replace("{", "{{").replace("}", "}}")
        + ("" if field is None else "{text}\n{text_pair}" if field == "text" else f"{{{field}}}")
        for literal, field in parse(template)
    )


def around_answer(template: str) -> tuple[str, bool]:
    """Return the text in front of a template's answer, and whether the answer is at {mask}.

    Without {mask}, the answer is at the end. The texts of the row are replaced by "a".
    """
    before = ""
    for literal, field in parse(template):
        before += literal
        if field == "mask":
            return before, True
        before += "a" if field is not None else ""
    return before, False


class Template:
    """A template for the texts of a row.

    Args:
        template: text with {text} and, optionally, {text_pair} and {mask}.
        mask_token: the tokenizer's mask token, which replaces {mask}.

    Raises:
        ValueError: the template is not valid; see `fields_of`.
    """

    def __init__(self, template: str, mask_token: str | None = None) -> None:
        self.text = template
        self.fields = fields_of(template)
        self._parts = parse(template)
        self._mask_token = mask_token or ""

    def write(
        self, text: str, pair: str | None = None, limit: int | None = None, side: Side = "right"
    ) -> tuple[str, int]:
        """Return a row as the model reads it, and the number of mask tokens in front of {mask}.

        The number is above 0 if a text in front of {mask} contains the mask token. Whitespace around the texts is
        removed. If the template has no {text_pair}, the second text follows the first one on a new line.

        Args:
            text: the text.
            pair: the second text; None for single texts.
            limit: the largest number of characters of each text.
            side: the end at which longer texts are cut.
        """
        text, pair = _cut(text.strip(), limit, side), None if pair is None else _cut(pair.strip(), limit, side)
        if pair is not None and "text_pair" not in self.fields:
            text, pair = f"{text}\n{pair}", None
        values = {"text": text, "text_pair": pair or "", "mask": self._mask_token}
        written, masks_before = "", 0
        for literal, field in self._parts:
            written += literal
            if field == "mask":
                masks_before = written.count(self._mask_token)
            written += values[field] if field else ""
        return written, masks_before

    def places(self, text: str, pair: str | None = None, limit: int | None = None) -> list[tuple[int, int, int]]:
        """Return where the texts are in what `write` returns.

        Returns:
            For each text its first character in the row, the number of blanks that were removed in front of it, and
            the number of characters that are left of it.
        """
        texts = [text] if pair is None else [text, pair]
        removed = [len(one) - len(one.lstrip()) for one in texts]
        lengths = [len(one.strip()[:limit]) for one in texts]
        starts: dict[str, int] = {}
        position = 0
        for literal, field in self._parts:
            position += len(literal)
            if field == "mask":
                position += len(self._mask_token)
            elif field is not None:
                starts[field] = position
                position += lengths[1] if field == "text_pair" and pair is not None else 0
                if field == "text":
                    both = pair is not None and "text_pair" not in self.fields
                    position += lengths[0] + (1 + lengths[1] if both else 0)
        if pair is not None and "text_pair" not in starts:
            starts["text_pair"] = starts["text"] + lengths[0] + 1
        names = ("text", "text_pair")[: len(texts)]
        return [(starts[name], removed[part], lengths[part]) for part, name in enumerate(names)]


def _cut(text: str, limit: int | None, side: Side) -> str:
    """Return a text of at most `limit` characters."""
    if limit is None or len(text) <= limit:
        return text
    return text[:limit] if side == "right" else text[len(text) - limit :]
