"""Choose the columns that hold the text, its pair and the label, and read the text of a row."""

from __future__ import annotations

import csv
import difflib
import io
import shlex
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from pathlib import PurePath
from typing import Any

from ptune.data.targets import is_missing, is_number
from ptune.errors import ConfigError, DataError, short

FIELDS = ("text", "text_pair", "label")
# A column name that is longer, or has more words, looks like data.
_LONGEST_NAME = 60
_MOST_WORDS = 6

# Common names, the most specific first. Upper and lower case are the same.
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
    "comment_text",
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
    """Names of the columns. `text_pair` is None for single texts, `label` for rows without labels.

    `label` may also be several columns of zeros and ones, joined by commas; see `label_columns`.
    """

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
    """Return the columns that the caller names, with the others guessed from common names.

    Args:
        names: all columns of the data.
        text, text_pair, label: column names; None: guess.
        where: the data's source, for error messages.
        need_label: False for rows without labels. No label column is guessed then.

    Raises:
        DataError: a named column does not exist.
        DataError: one column is named twice.
        DataError: a column is not named and cannot be guessed.
    """
    names = [name for name in names if name]  # pandas writes its index into a column without a name
    labels = [] if label is None else label_columns(label, names) or [label]
    named = [name for name in (text, text_pair, *labels) if name is not None]
    for name in named:
        if named.count(name) > 1:
            raise DataError(
                f"{where}: column '{name}' is named twice; `text`, `text_pair` and `label` must be different columns"
            )
    fields = [*zip(FIELDS, (text, text_pair), strict=False), *(("label", column) for column in labels)]
    for field, column in fields:
        if column is not None and column not in names:
            matches = difflib.get_close_matches(column, names, n=1)
            hint = f"; did you mean '{matches[0]}'?" if matches else ""
            raise DataError(
                f"{where}: `{field}` names column '{column}', but the columns are {_quoted(names)}{hint}"
                f"{missing_header(names, where)}",
                field=field,
                value=column,
                expected=_quoted(names),
            )
    if need_label and label is None:
        label = _first(LABELS, [name for name in names if name not in (text, text_pair)])
        if label is None:
            raise DataError(
                f"{where}: no label column found among {_quoted(names)}; name it with `label`"
                f"{missing_header(names, where) or _perhaps_no_header(where)}",
                field="label",
                expected=_quoted(names),
            )
    if text is None:
        try:
            text, guessed_pair = _guess_text(names, {label, *labels, text_pair}, where)
        except DataError as err:
            if text_pair is None:
                raise
            raise DataError(
                f"{where}: `text_pair` names column '{text_pair}', the second text of a pair, and no column is found "
                f"for the first among {_quoted(names)}; name it with `text`, or, for single texts, give only `text`",
                field="text",
                expected=_quoted(names),
            ) from err
        text_pair = text_pair or guessed_pair
    return Columns(text, text_pair, label)


def column_name(setting: str, name: Any) -> str | None:
    """Return the name of a column as the caller gave it: a text, or the number of one without a name.

    Raises:
        ConfigError: it is neither.
    """
    if name is None or isinstance(name, str):
        return name
    if isinstance(name, bool) or not isinstance(name, Integral):
        raise ConfigError(
            f"`{setting}={short(name)}` is not the name of a column; give its name, such as `{setting}='text'`",
            field=setting,
            value=short(name),
            expected="the name of a column",
        )
    return str(name)


def joined_columns(names: Any) -> str | None:
    """Return the columns that hold the label as one text, which `label_columns` reads: a name, or several of a list.

    Raises:
        ConfigError: one of them is not the name of a column.
    """
    if isinstance(names, str) or not isinstance(names, Iterable):
        return column_name("label", names)
    each = [column_name("label", name) for name in names]
    written = io.StringIO()
    csv.writer(written, lineterminator="").writerow(each)
    return each[0] if len(each) == 1 else written.getvalue()


def split_columns(label: str) -> list[str]:
    """Return the names in a text that joins them by commas. A name with a comma is in quotation marks, as in CSV."""
    try:
        return [part.strip() for part in next(csv.reader([label], skipinitialspace=True))]
    except (csv.Error, StopIteration):
        return [part.strip() for part in label.split(",")]


def label_columns(label: str, names: Collection[str]) -> list[str]:
    """Return the columns that hold the label: one, or several columns of zeros and ones that are joined by commas.

    The result is empty if one of them is not among `names`.
    """
    if label in names:
        return [label]
    parts = split_columns(label)
    return parts if all(part in names for part in parts) else []


def _perhaps_no_header(where: str) -> str:
    """Return a hint for a table whose names of columns may be its first row, though they do not look like one."""
    if PurePath(where).suffix not in (".csv", ".tsv"):
        return ""
    return ". If these are the first row, put a line with the names of the columns in front of it"


def missing_header(names: Sequence[str], where: str) -> str:
    """Return a hint for an error message if the names of columns look like the first row of a file without a header."""
    if not any(is_number(name) or len(name) > _LONGEST_NAME or len(name.split()) > _MOST_WORDS for name in names):
        return ""
    by_length = sorted(range(len(names)), key=lambda place: len(names[place]))
    header = [f"column{place + 1}" for place in range(len(names))]
    header[by_length[0]], header[by_length[-1]] = "label", "text"
    path = PurePath(where)
    if len(names) < 2 or path.suffix not in (".csv", ".tsv"):
        return ". The first line looks like data; put a line with the names of the columns in front of it"
    line = ("\\t" if path.suffix == ".tsv" else ",").join(header)
    target = shlex.quote(str(path.with_name(f"{path.stem}-named{path.suffix}")))
    return (
        ". The first line looks like data; put a line with the names of the columns in front of it, as in "
        f"(printf '{line}\\n'; cat {shlex.quote(where)}) > {target}"
    )


def as_trained(
    names: Sequence[str], text: str | None, text_pair: str | None, trained: Mapping[str, str | None]
) -> tuple[str | None, str | None]:
    """Return the columns of text and pair: those of the training data, unless the caller names one or one is missing.

    Args:
        names: all columns of the data.
        text, text_pair: columns that the caller names, if any.
        trained: columns of the training data by `text` and `text_pair`, if they are known.
    """
    if text is not None or text_pair is not None:
        return text, text_pair
    trained_text, trained_pair = trained.get("text"), trained.get("text_pair")
    if trained_text in names and (trained_pair is None or trained_pair in names):
        return trained_text, trained_pair
    return None, None


def check_pairs(paired: bool, trained: Mapping[str, str | None], where: str = "") -> None:
    """Check that rows have as many texts as in training, if that is known.

    Args:
        paired: whether the rows are pairs.
        trained: columns of the training data by `text` and `text_pair`.
        where: what an error message begins with.

    Raises:
        DataError: pairs for an adapter trained on single texts.
        DataError: single texts for an adapter trained on pairs.
    """
    text, pair = trained.get("text"), trained.get("text_pair")
    if text is None or paired == (pair is not None):
        return
    if paired:
        raise DataError(
            f"{where}these are pairs of texts, but the adapter was trained on single texts ('{text}'); give only `text`"
        )
    raise DataError(
        f"{where}these are single texts, but the adapter was trained on pairs ('{text}', '{pair}'); give `text` and "
        "`text_pair`"
    )


def _guess_text(names: Sequence[str], taken: set[str | None], where: str) -> tuple[str, str | None]:
    """Return the columns of the text and, if two of them look like a pair, of its pair."""
    free = [name for name in names if name not in taken]
    for pair in PAIRS:
        first, second = (_first((name,), free) for name in pair)
        if first and second:
            return first, second
    single = _first(TEXTS, free)
    if single is None and len(free) == 1:
        single = free[0]
    if single is None:
        raise DataError(
            f"{where}: no text column found among {_quoted(names)}; name it with `text`"
            f"{missing_header(names, where) or _perhaps_no_header(where)}",
            field="text",
            expected=_quoted(names),
        )
    return single, None


def kept_names(names: Iterable[str], reserved: Collection[str], known: dict[str, str] | None = None) -> dict[str, str]:
    """Return the name under which each column is kept in the output.

    A column that is called like one of the output's new columns gets `input_` in front of its name, as often as needed.

    Args:
        names: columns of the input.
        reserved: names of the new columns.
        known: what was returned for earlier rows, whose columns keep their names. It is returned if no column is new.
    """
    columns, known = list(names), known or {}
    added = [name for name in columns if name not in known]
    if not added:
        return known
    kept = dict(known)
    for name in added:
        new = name
        while new in reserved or new in kept.values() or (new != name and new in columns):
            new = f"input_{new}"
        kept[name] = new
    return kept


def text_of(row: dict[str, Any], column: str, where: str) -> str:
    """Return the text in a column of a row. A number is returned as text.

    Args:
        row: values by column.
        column: name of the column.
        where: file and row, for error messages.

    Raises:
        DataError: the value is missing, empty or blank.
        DataError: the value is not text, or text that UTF-8 cannot encode.
    """
    value = row.get(column)
    if problem := text_problem(value, column):
        raise DataError(f"{where}: {problem}")
    return str(value)


def text_problem(value: Any, column: str) -> str:
    """Return why the value of a column cannot be used as a text, and what to do; "" if it can."""
    if value is None or value != value:
        return f"column '{column}' has no text; fill it in or remove the row"
    if isinstance(value, (list, dict, bytes)):
        return f"column '{column}' holds a {type(value).__name__}, not text"
    if is_missing(value):
        return f"column '{column}' is empty; fill it in or remove the row"
    if not whole_characters(str(value)):
        return f"column '{column}' contains half a character, such as \\\\ud800; repair the text"
    return ""


def whole_characters(text: str) -> bool:
    """Return whether UTF-8 can encode a text.

    It cannot encode half of a surrogate pair, which JSON, or a command line in another encoding, may contain.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _first(wanted: Sequence[str], names: Sequence[str]) -> str | None:
    """Return the column with the first of the wanted names that exists, in upper or lower case."""
    lower = {name.lower(): name for name in reversed(names)}
    return next((lower[name] for name in wanted if name in lower), None)


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)
