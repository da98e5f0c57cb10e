"""The rows of a file on their way through a classifier.

Rows without text do not go through the model. They wait for their turn, so that
the answers keep the file's order.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal

from ptune.data.columns import Columns, kept_names, text_of
from ptune.data.files import DataFile
from ptune.data.readers import Row, read_rows
from ptune.data.targets import is_missing
from ptune.data.texts import Text
from ptune.errors import unknown_choice
from ptune.inference.answers import Prediction

logger = logging.getLogger(__name__)

OnEmpty = Literal["null", "skip", "error"]
_ON_EMPTY: tuple[OnEmpty, ...] = ("null", "skip", "error")
_LISTED = 20  # row numbers in the warning about rows without text


class FileRows:
    """A file whose texts are predicted.

    Args:
        file: the data file.
        choose: returns the columns of text and pair, given the names of the columns and what the file is called.
        keys: the keys of a prediction. Columns with these names become `input_<name>`.
        on_empty: what becomes of rows without text: `null` gives them an answer of nulls, `skip` leaves them out, and
            `error` stops at the first.
        rows: some of the file's rows, if not all are to be predicted.
        before: number of rows in front of these.

    Raises:
        ConfigError: `on_empty` is unknown.
    """

    def __init__(
        self,
        file: DataFile,
        choose: Callable[[list[str], str], Columns],
        keys: Sequence[str],
        on_empty: OnEmpty,
        rows: Iterable[Row] | None = None,
        before: int = 0,
    ) -> None:
        if on_empty not in _ON_EMPTY:
            raise unknown_choice("on_empty", on_empty, _ON_EMPTY)
        self.file = file
        self.choose = choose
        self.keys = keys
        self.on_empty = on_empty
        self.rows = read_rows(file) if rows is None else rows
        self.read = before
        self.empty: list[int] = []  # the numbers of the first rows without text
        self.empties = 0
        self._names: dict[str, str] = {}  # of the columns seen so far, the name in the output
        self._waiting: deque[tuple[Row, bool]] = deque()  # rows that were read, and whether they have a text

    def texts(self) -> Iterator[Text]:
        """Yield the text or the pair of each row that has one.

        Raises:
            DataError: there is no such column, or a value is not text; the message names the row.
        """
        columns: Columns | None = None
        for row in self.rows:
            self.read += 1
            columns = columns or self.choose(list(row), self.file.where)
            fields = [name for name in (columns.text, columns.text_pair) if name is not None]
            kept = self._renamed(row)
            if self.on_empty != "error" and any(is_missing(row.get(name)) for name in fields):
                self._note_empty()
                if self.on_empty == "null":
                    self._waiting.append((kept, False))
                continue
            texts = [text_of(row, name, f"{self.file.where}, row {self.read}") for name in fields]
            self._waiting.append((kept, True))
            yield texts[0] if len(texts) == 1 else (texts[0], texts[1])

    def _renamed(self, row: Row) -> Row:
        """Return a row with its columns under the names in the output, which are the same in all rows."""
        names = kept_names(row, self.keys, self._names)
        if names is not self._names:
            for name, kept in names.items():
                if name != kept and name not in self._names:
                    logger.info("column '%s' of the input is column '%s' of the output", name, kept)
            self._names = names
        return {self._names[name]: value for name, value in row.items()}

    def answered(self, predictions: Iterable[Prediction]) -> Iterator[dict[str, Any]]:
        """Yield each row with its prediction, or with nulls if it has no text.

        Args:
            predictions: one for each of `texts`, in their order.
        """
        for prediction in predictions:
            yield from self._empty_rows()
            row, _ = self._waiting.popleft()
            yield {**row, **prediction}
        yield from self._empty_rows()
        if self.empties:
            fate = "their answers are null" if self.on_empty == "null" else "they are left out"
            listed = ", ".join(map(str, self.empty)) + (", …" if self.empties > len(self.empty) else "")
            logger.warning(
                "%s: %d of %d rows have no text; %s (row%s %s)",
                self.file.where,
                self.empties,
                self.read,
                fate,
                "" if self.empties == 1 else "s",
                listed,
            )

    def _empty_rows(self) -> Iterator[dict[str, Any]]:
        """Yield the rows without text that wait in front of the next one with text."""
        while self._waiting and not self._waiting[0][1]:
            row, _ = self._waiting.popleft()
            yield {**row, **dict.fromkeys(self.keys)}

    def _note_empty(self) -> None:
        self.empties += 1
        if len(self.empty) < _LISTED:
            self.empty.append(self.read)
