"""Files of predictions: the content of each format, and that a file is written completely or not at all."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ptune.data.readers import Row, read_columns, read_rows
from ptune.data.targets import labels_of
from ptune.data.writers import check_output, open_writer, print_json_lines
from ptune.errors import ConfigError, DataError, OutputError, PtuneError

ENDINGS = ["jsonl", "ndjson", "csv", "tsv", "parquet"]
TABLES = ["csv", "tsv", "parquet"]
LABELS = ["down", "up", "so-so"]


def answer(**columns: Any) -> Row:
    """Return a predicted row: the input's columns, then the prediction."""
    return {**columns, "label": "up", "score": 0.5, "scores": {"down": 0.25, "up": 0.5, "so-so": 0.25}}


def write(path: Path, rows: Sequence[Row] | Iterator[Row]) -> None:
    open_writer(path)(rows, path, LABELS, answer)


def names(folder: Path) -> list[str]:
    """Return the names of all files of a folder, hidden ones included."""
    return sorted(os.listdir(folder))  # noqa: PTH208


TWO = [answer(text="good, very\tgood", id=7), answer(text='a "bad"\nfilm', id=8)]


@pytest.fixture
def tmp_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder without words of the test's name, which pytest's own has and messages are searched for."""
    return tmp_path_factory.mktemp("d")


@pytest.mark.parametrize("ending", ["jsonl", "ndjson"])
def test_json_lines_hold_the_rows_as_they_are(tmp_path: Path, ending: str) -> None:
    write(tmp_path / f"a.{ending}", TWO)
    assert [json.loads(line) for line in (tmp_path / f"a.{ending}").read_text().splitlines()] == TWO


def test_json_lines_keep_letters_beyond_ascii(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", [answer(text="für ☃")])
    assert '"für ☃"' in (tmp_path / "a.jsonl").read_text(encoding="utf-8")


@pytest.mark.parametrize("ending", TABLES)
def test_scores_become_a_column_a_label(tmp_path: Path, ending: str) -> None:
    write(tmp_path / f"a.{ending}", TWO)
    row = next(read_rows(tmp_path / f"a.{ending}"))
    assert list(row) == ["text", "id", "label", "score", "score_down", "score_up", "score_so-so"]
    assert [float(value) for value in list(row.values())[3:]] == [0.5, 0.25, 0.5, 0.25]


@pytest.mark.parametrize("ending", TABLES)
def test_commas_tabs_marks_and_line_breaks_are_read_back(tmp_path: Path, ending: str) -> None:
    write(tmp_path / f"a.{ending}", TWO)
    read = list(read_rows(tmp_path / f"a.{ending}"))
    assert [row["text"] for row in read] == [row["text"] for row in TWO]
    assert [int(row["id"]) for row in read] == [7, 8]


@given(st.lists(st.text(max_size=9), min_size=1, max_size=5))
@settings(deadline=None, max_examples=40)
@pytest.mark.parametrize("ending", ["jsonl", *TABLES])
def test_any_text_is_read_back(tmp_path_factory: pytest.TempPathFactory, ending: str, texts: list[str]) -> None:
    path = tmp_path_factory.mktemp("any") / f"a.{ending}"
    write(path, [answer(text=text) for text in texts])
    assert [row["text"] for row in read_rows(path)] == texts


def test_parquet_keeps_numbers_as_numbers(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", TWO)
    schema = parquet.read_schema(tmp_path / "a.parquet")
    assert {name: str(schema.field(name).type) for name in ("id", "score_up", "label")} == {
        "id": "int64",
        "score_up": "double",
        "label": "string",
    }


@pytest.mark.parametrize(
    ("whole", "fraction"),
    [(3, 3.7), ([1, 2], [1, 2.5]), ({"stars": 3}, {"stars": 3.5})],
    ids=["cell", "list", "object"],
)
def test_fractions_after_whole_numbers_are_not_cut_off(whole, fraction, tmp_path: Path) -> None:
    rows = [answer(id=whole)] * 1050
    write(tmp_path / "a.parquet", rows)
    with pytest.raises(DataError, match=r"column 'id' began with whole numbers and now holds"):
        write(tmp_path / "b.parquet", [*rows, answer(id=fraction)])
    assert not (tmp_path / "b.parquet").exists()


def test_parquet_is_written_in_parts(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", (answer(id=number) for number in range(2500)))
    assert [row["id"] for row in read_rows(tmp_path / "a.parquet")] == list(range(2500))
    assert parquet.ParquetFile(tmp_path / "a.parquet").metadata.num_row_groups == 3


@pytest.mark.parametrize("ending", TABLES)
def test_a_column_that_only_later_rows_have_is_refused_in_words(tmp_path: Path, ending: str) -> None:
    """Rows of JSON Lines may have different keys. A streamed table cannot grow, and must not drop columns."""
    path = tmp_path / f"a.{ending}"
    path.write_bytes(b"old")
    with pytest.raises(PtuneError) as caught:
        write(path, [answer(text="a"), answer(text="b", note="late"), answer(text="c")])
    assert "'note'" in str(caught.value)
    assert ".jsonl" in str(caught.value)
    assert path.read_bytes() == b"old"


@pytest.mark.parametrize("ending", TABLES)
def test_a_column_that_later_rows_lack_is_empty_there(tmp_path: Path, ending: str) -> None:
    write(tmp_path / f"a.{ending}", [answer(text="a", note="early"), answer(text="b")])
    assert [row["note"] or None for row in read_rows(tmp_path / f"a.{ending}")] == ["early", None]


def test_a_parquet_column_that_starts_with_nothing_is_written(tmp_path: Path) -> None:
    """The first group of rows does not show the type of the column."""
    rows = (answer(note=None if number < 1024 else "late") for number in range(1100))
    write(tmp_path / "a.parquet", rows)
    assert [row["note"] for row in read_rows(tmp_path / "a.parquet")] == [None] * 1024 + ["late"] * 76


@pytest.mark.parametrize("ending", ["csv", "tsv"])
def test_a_lone_carriage_return_is_read_back(tmp_path: Path, ending: str) -> None:
    write(tmp_path / f"a.{ending}", [answer(text="one\rtwo"), answer(text="three")])
    assert [row["text"] for row in read_rows(tmp_path / f"a.{ending}")] == ["one\rtwo", "three"]


@pytest.mark.parametrize("ending", TABLES)
def test_a_column_of_mixed_kinds_is_written_or_refused_in_words(tmp_path: Path, ending: str) -> None:
    rows = [answer(id=1), answer(id="two")]
    if ending == "parquet":
        with pytest.raises(PtuneError, match=r"\.jsonl"):
            write(tmp_path / "a.parquet", rows)
        assert names(tmp_path) == []
    else:
        write(tmp_path / f"a.{ending}", rows)
        assert [row["id"] for row in read_rows(tmp_path / f"a.{ending}")] == ["1", "two"]


@pytest.mark.parametrize("ending", ENDINGS)
def test_no_rows_still_make_a_file(tmp_path: Path, ending: str) -> None:
    write(tmp_path / f"a.{ending}", [])
    assert names(tmp_path) == [f"a.{ending}"]


@pytest.mark.parametrize("ending", TABLES)
def test_no_rows_still_have_columns(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a.{ending}"
    open_writer(path)([], path, LABELS, lambda: answer(text=None))
    assert list(read_rows(path)) == []
    assert read_columns(path) == ["text", "label", "score", "score_down", "score_up", "score_so-so"]


def failing(rows: int) -> Iterator[Row]:
    """Yield some rows, then raise an error of the caller's."""
    for number in range(rows):
        yield answer(id=number)
    raise RuntimeError("the model broke")


@pytest.mark.parametrize("rows", [0, 1500])
@pytest.mark.parametrize("ending", ENDINGS)
def test_rows_that_break_off_leave_the_old_file(tmp_path: Path, ending: str, rows: int) -> None:
    (tmp_path / f"a.{ending}").write_bytes(b"old")
    with pytest.raises(RuntimeError, match="the model broke"):
        write(tmp_path / f"a.{ending}", failing(rows))
    assert (tmp_path / f"a.{ending}").read_bytes() == b"old"
    assert names(tmp_path) == [f"a.{ending}"]


@pytest.mark.parametrize("ending", ENDINGS)
def test_rows_that_break_off_leave_no_new_file(tmp_path: Path, ending: str) -> None:
    with pytest.raises(RuntimeError):
        write(tmp_path / f"a.{ending}", failing(1500))
    assert names(tmp_path) == []


class FullDisk(io.FileIO):
    """A file on a disk with room for `room` bytes."""

    room = 20_000

    def write(self, content: Any) -> int:
        if self.tell() + len(content) > self.room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().write(content)


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put all files that pathlib opens for writing on a nearly full disk."""
    opened: Callable[..., Any] = Path.open

    def open_on_full_disk(path: Path, mode: str = "r", **options: Any) -> Any:
        if "w" not in mode:
            return opened(path, mode, **options)
        file = io.BufferedWriter(FullDisk(path, "w"), 4096)
        return file if "b" in mode else io.TextIOWrapper(file, **options)

    monkeypatch.setattr(Path, "open", open_on_full_disk)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # the unflushed rest of a lost file
@pytest.mark.parametrize("ending", ENDINGS)
def test_a_disk_that_fills_up_leaves_the_old_file(tmp_path: Path, ending: str, full_disk: None) -> None:
    path = tmp_path / f"a.{ending}"
    path.write_bytes(b"old")
    with pytest.raises(OutputError) as caught:
        write(path, (answer(text=os.urandom(20).hex()) for _ in range(3000)))
    assert str(path) in str(caught.value)
    assert "No space left on device" in str(caught.value)
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == [path.name]


def test_an_unknown_output_ending_is_named_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        check_output(tmp_path / "a.xlsx")
    assert "'.xlsx'" in str(caught.value)
    assert all(f".{ending}" in str(caught.value) for ending in ENDINGS)


def test_an_output_that_is_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").mkdir()
    with pytest.raises(ConfigError, match=r"a\.csv' is a folder"):
        check_output(tmp_path / "a.csv")


def test_checking_an_output_leaves_nothing_behind(tmp_path: Path) -> None:
    check_output(tmp_path / "new" / "deep" / "a.csv")
    assert names(tmp_path) == []


def test_an_output_below_a_file_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("mine", encoding="utf-8")
    with pytest.raises(OutputError, match="cannot write"):
        check_output(tmp_path / "notes" / "out" / "a.csv")
    assert (tmp_path / "notes").read_text(encoding="utf-8") == "mine"


def test_printed_json_lines_are_an_object_each() -> None:
    file = io.StringIO()
    print_json_lines(iter(TWO), file)
    assert [json.loads(line) for line in file.getvalue().splitlines()] == TWO


@pytest.mark.parametrize("ending", TABLES)
def test_several_labels_are_read_back_by_their_separator(tmp_path: Path, ending: str) -> None:
    scores = {"down": 0.75, "up": 0.5, "so-so": 0.625}
    rows = [{"text": str(n), "labels": own, "scores": scores} for n, own in enumerate(([], ["down", "so-so"], ["up"]))]
    write(tmp_path / f"a.{ending}", rows)
    read = list(read_rows(tmp_path / f"a.{ending}"))
    assert list(read[0]) == ["text", "labels", "score_down", "score_up", "score_so-so"]
    parted = [labels_of(row["labels"], "labels", "", "|") for row in read]
    assert parted == [[], ["down", "so-so"], ["up"]]


def test_a_parquet_column_that_starts_with_empty_lists_is_written(tmp_path: Path) -> None:
    scores = dict.fromkeys(LABELS, 0.5)
    rows = ({"labels": ["up"] if number > 1050 else [], "scores": scores} for number in range(1100))
    write(tmp_path / "a.parquet", rows)
    assert [row["labels"] for row in read_rows(tmp_path / "a.parquet")] == [[]] * 1051 + [["up"]] * 49


@pytest.mark.parametrize("ending", ["csv", "tsv"])
def test_lists_and_objects_of_the_input_are_json_in_a_delimited_file(tmp_path: Path, ending: str) -> None:
    write(tmp_path / f"a.{ending}", [answer(tags=["a", None], source={"page": 1, "name": "Übersicht"})])
    (row,) = read_rows(tmp_path / f"a.{ending}")
    assert json.loads(row["tags"]) == ["a", None]
    assert row["source"] == '{"page": 1, "name": "Übersicht"}'


@pytest.mark.parametrize("ending", TABLES)
def test_a_column_named_like_a_score_keeps_its_new_name_in_every_row(tmp_path: Path, ending: str) -> None:
    clash = f"score_{LABELS[0]}"
    write(tmp_path / f"a.{ending}", [answer(**{clash: "x", f"input_{clash}": "y"}), answer(**{clash: "z"})])
    first, second = read_rows(tmp_path / f"a.{ending}")
    assert (first[f"input_input_{clash}"], first[f"input_{clash}"]) == ("x", "y")
    assert (second[f"input_input_{clash}"], second[f"input_{clash}"] or None) == ("z", None)


@pytest.mark.parametrize("ending", TABLES)
def test_numbers_have_a_column_of_their_own_and_no_scores(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a.{ending}"
    rows = [{"text": "a", "scores": "mine", "value": 2.5}, {"text": "b", "scores": "", "value": -1.0}]
    open_writer(path)(rows, path, [], dict)
    read = list(read_rows(path))
    assert [float(row["value"]) for row in read] == [2.5, -1]
    assert read[0]["scores"] == "mine"


@pytest.mark.parametrize("ending", ["csv", "tsv", "parquet"])
@pytest.mark.parametrize("row", [{"x": "\ud800"}, {"\ud800": "x"}], ids=["value", "name"])
def test_half_a_character_is_refused_where_it_cannot_be_written(tmp_path: Path, ending: str, row: Row) -> None:
    with pytest.raises(DataError, match="half a character"):
        write(tmp_path / f"a.{ending}", [answer(**row)])
    assert names(tmp_path) == []


def test_json_lines_hold_half_a_character_and_null_for_what_is_no_number(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", [answer(x="\ud800é", y=float("nan"), z=[float("inf"), 1.5])])
    row = json.loads((tmp_path / "a.jsonl").read_text(encoding="utf-8"), parse_constant=pytest.fail)
    assert (row["x"], row["y"], row["z"]) == ("\ud800é", None, [None, 1.5])


def test_a_number_too_large_for_parquet_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"write \.jsonl"):
        write(tmp_path / "a.parquet", [answer(x=2**70)])
    assert names(tmp_path) == []


@pytest.mark.parametrize("ending", ["csv", "tsv"])
def test_a_label_with_what_parts_labels_is_refused_in_a_table(tmp_path: Path, ending: str) -> None:
    with pytest.raises(DataError, match=r"label 'a\|b'"):
        open_writer(tmp_path / f"a.{ending}")(
            [{"labels": ["a|b", "c"], "scores": {}}], tmp_path / f"a.{ending}", [], dict
        )
    assert names(tmp_path) == []


def test_a_column_of_the_input_called_labels_is_a_list_like_others(tmp_path: Path) -> None:
    row = {"text": "a", "labels": ["a|b", "c"], "label": "x", "score": 0.9, "scores": {"x": 0.9, "y": 0.1}}
    path = tmp_path / "a.csv"
    open_writer(path)([row], path, ["x", "y"], dict)
    (row,) = csv.DictReader(path.read_text(encoding="utf-8").splitlines())
    assert json.loads(row["labels"]) == ["a|b", "c"]
    assert row["label"] == "x"
