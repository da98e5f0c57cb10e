"""Templates: what is written around a text before a model reads it.

"Review: {text}\\nSentiment:" asks a language model for a word. `{text}` and
`{text_pair}` stand for a row's texts, `{mask}` for the tokenizer's mask token;
`{{` and `}}` are braces. Braces in the texts themselves mean nothing.
"""

from __future__ import annotations

from string import Formatter

FIELDS = ("text", "text_pair", "mask")

# Literals and fields in their order: (text in front of the field, the field's name or None at the end).
Parts = list[tuple[str, str | None]]


def fields_of(template: str) -> set[str]:
    """Names of a template's fields.

    Raises:
        ValueError: a lone brace, an unknown or repeated field, no {text}.
    """
    fields = [field for _, field in parse(template) if field is not None]
    if "text" not in fields:
        raise ValueError(f"template {template!r} has no {{text}}, so the text would not be read")
    twice = sorted({field for field in fields if fields.count(field) > 1})
    if twice:
        raise ValueError(f"template {template!r} has {{{twice[0]}}} more than once")
    return set(fields)


def parse(template: str) -> Parts:
    """Split a template at its fields.

    Raises:
        ValueError: a lone brace, or a field that is none of FIELDS.
    """
    known = ", ".join(f"{{{field}}}" for field in FIELDS)
    try:
        parts = list(Formatter().parse(template))
    except ValueError as err:
        raise ValueError(f"template {template!r}: {err}; it may hold {known}, and {{{{ or }}}} for a brace") from err
    for _, field, form, conversion in parts:
        if field is not None and (field not in FIELDS or form or conversion):
            written = field + (f"!{conversion}" if conversion else "") + (f":{form}" if form else "")
            raise ValueError(f"template {template!r} has {{{written}}}; it may hold {known}")
    return [(literal, field) for literal, field, _, _ in parts]


def around_answer(template: str) -> tuple[str, bool]:
    """What stands in front of the answer, texts being "a", and whether the answer is at {mask} or at the end."""
    before = ""
    for literal, field in parse(template):
        before += literal
        if field == "mask":
            return before, True
        before += "a" if field is not None else ""
    return before, False


class Template:
    """Writes texts into a template.

    Args:
        template: with {text}.
        mask_token: of the tokenizer, for {mask}.
    """

    def __init__(self, template: str, mask_token: str | None = None) -> None:
        self.text = template
        self.fields = fields_of(template)
        self._parts = parse(template)
        self._mask_token = mask_token or ""

    def write(self, text: str, pair: str | None = None, limit: int | None = None) -> tuple[str, int]:
        """A row as the model reads it, and how often the mask token stands in front of {mask} (in texts that hold it).

        Blanks around the texts go. A second text that the template does not place stands on a line of its own behind
        the first.

        Args:
            limit: characters that each text may have; longer ones lose their end.
        """
        text, pair = text.strip()[:limit], None if pair is None else pair.strip()[:limit]
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
