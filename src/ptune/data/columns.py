"""Which columns hold the text, its pair and the label, and the text of a row."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ptune.errors import DataError

FIELDS = ("text", "text_pair", "label")

# Common names, the most telling first. Matched without regard to case.
PAIRS = (
    ("sentence1", "sentence2"),
    ("question1", "question2"),
    ("premise", "hypothesis"),
    ("question", "sentence"),
    ("question", "passage"),
    ("question", "answer"),
    ("query", "passage"),
    ("text", "text_pair"),
    ("text_a", "text_b"),
    ("text1", "text2"),
    ("#1 string", "#2 string"),
)
TEXTS = (
    "text",
    "sentence",
    "content",
    "review",
    "comment",
    "message",
    "utterance",
    "question",
    "query",
    "tweet",
    "title",
    "headline",
    "document",
    "body",
    "description",
    "input",
)
LABELS = (
    "label",
    "labels",
    "target",
    "intent",
    "class",
    "category",
    "topic",
    "sentiment",
    "label_text",
    "coarse_label",
)


@dataclass(frozen=True)
class Columns:
    """Names of the columns; `label` is None where rows are only to be predicted."""

    text: str
    text_pair: str | None = None
    label: str | None = None

    def __str__(self) -> str:
        pair = f", text pair '{self.text_pair}'" if self.text_pair else ""
        label = f", label '{self.label}'" if self.label else ""
        return f"text '{self.text}'{pair}{label}"


def choose_columns(
    names: Sequence[str],
    text: str | None = None,
    text_pair: str | None = None,
    label: str | None = None,
    *,
    where: str,
    need_label: bool = True,
) -> Columns:
    """Settle the columns: those named by the user, the rest guessed from common names.

    Raises:
        DataError: a named column is not there or named twice, or nothing can be guessed.
    """
    named = [name for name in (text, text_pair, label) if name is not None]
    for name in named:
        if named.count(name) > 1:
            raise DataError(
                f"{where}: column '{name}' is named twice; `text`, `text_pair` and `label` need a column each"
            )
    for field, asked in zip(FIELDS, (text, text_pair, label), strict=True):
        if asked is not None and asked not in names:
            near = difflib.get_close_matches(asked, names, n=1)
            hint = f"; did you mean '{near[0]}'?" if near else ""
            raise DataError(
                f"{where}: `{field}` names column '{asked}', but the columns are {_list(names)}{hint}",
                field=field,
                value=asked,
                expected=_list(names),
            )
    if need_label and label is None:
        label = _first(LABELS, names)
        if label is None:
            raise DataError(f"{where}: no label column found among {_list(names)}; name it with `label`")
    if text is None:
        text, guessed_pair = _guess_text(names, {label, text_pair}, where)
        text_pair = text_pair or guessed_pair
    return Columns(text, text_pair, label)


def as_trained(
    names: Sequence[str], text: str | None, text_pair: str | None, trained: Mapping[str, str | None]
) -> tuple[str | None, str | None]:
    """Text and pair as asked for; where nothing is asked, the columns of the training data, if all are there."""
    own = trained.get("text"), trained.get("text_pair")
    asked = text is not None or text_pair is not None
    if asked or own[0] is None or not {name for name in own if name is not None} <= set(names):
        return text, text_pair
    return own


def check_pairs(paired: bool, trained: Mapping[str, str | None], where: str = "") -> None:
    """Check that there are as many texts in a row as in training, where that is known.

    Raises:
        DataError: single texts for an adapter of pairs, or pairs for one of single texts.
    """
    text, pair = trained.get("text"), trained.get("text_pair")
    if text is None or paired == (pair is not None):
        return
    if paired:
        raise DataError(
            f"{where}pairs of texts, but the adapter was trained on single ones ('{text}'); give only `text`"
        )
    raise DataError(
        f"{where}single texts, but the adapter was trained on pairs ('{text}', '{pair}'); give `text` and `text_pair`"
    )


def _guess_text(names: Sequence[str], taken: set[str | None], where: str) -> tuple[str, str | None]:
    free = [name for name in names if name not in taken]
    for first, second in PAIRS:
        found = _first((first,), free), _first((second,), free)
        if found[0] and found[1]:
            return found[0], found[1]
    single = _first(TEXTS, free)
    if single is None and len(free) == 1:
        single = free[0]
    if single is None:
        raise DataError(f"{where}: no text column found among {_list(names)}; name it with `text`")
    return single, None


def kept_names(names: Iterable[str], reserved: Collection[str]) -> dict[str, str]:
    """Under which name each column is kept beside new ones: `input_` goes in front until the name is free."""
    own = list(names)
    kept: dict[str, str] = {}
    for name in own:
        new = name
        while new in reserved or (new != name and new in own):
            new = f"input_{new}"
        kept[name] = new
    return kept


def text_of(row: dict[str, Any], column: str, where: str) -> str:
    """The text in a row's column.

    Raises:
        DataError: missing, empty, only blanks, or not text.
    """
    value = row.get(column)
    if value is None or (isinstance(value, float) and value != value):
        raise DataError(f"{where}: column '{column}' has no text")
    if not isinstance(value, str):
        if isinstance(value, (list, dict, bytes)):
            raise DataError(f"{where}: column '{column}' holds a {type(value).__name__}, not text")
        value = str(value)
    if not value.strip():
        raise DataError(f"{where}: column '{column}' is empty; fill it in or remove the row")
    if not whole_characters(value):
        raise DataError(f"{where}: column '{column}' holds half a character, such as \\\\ud800; repair the text")
    return value


def whole_characters(text: str) -> bool:
    """Whether text can be encoded at all. JSON, and a command line in another encoding, may hold half a pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _first(wanted: Sequence[str], names: Sequence[str]) -> str | None:
    lower = {name.lower(): name for name in reversed(names)}
    return next((lower[name] for name in wanted if name in lower), None)


def _list(names: Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)
