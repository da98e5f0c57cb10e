"""Reading rows: every file format, in order and streamed, and errors for files that cannot be read."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pyarrow.parquet as parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ptune.data.readers import SUFFIXES, Row, read_class_names, read_columns, read_rows
from ptune.errors import DataError

Write = Callable[[str, "str | bytes"], Path]
TEXTS = st.text(max_size=12)


@pytest.fixture
def tmp_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder without words of the test's name, which pytest's own has and messages are searched for."""
    return tmp_path_factory.mktemp("d")


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Return a function that writes a file of a given name and content."""

    def put(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return put


def message(path: Path) -> str:
    """Return the error message when a file is read. Check that it names the file and has one line."""
    with pytest.raises(DataError) as caught:
        list(read_rows(path))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_csv_rows_are_dictionaries_by_column(write: Write) -> None:
    path = write("a.csv", "text,label\na good film,pos\na bad one,neg\nfine,pos\n")
    assert list(read_rows(path)) == [
        {"text": "a good film", "label": "pos"},
        {"text": "a bad one", "label": "neg"},
        {"text": "fine", "label": "pos"},
    ]


def test_a_byte_order_mark_is_no_part_of_the_first_column(write: Write) -> None:
    path = write("a.csv", b"\xef\xbb\xbftext,label\ngood,1\n")
    assert list(read_rows(path)) == [{"text": "good", "label": "1"}]


@pytest.mark.parametrize("name", ["a.tsv", "a.jsonl", "a.json", "a.txt"])
def test_a_byte_order_mark_is_skipped_in_every_text_form(write: Write, name: str) -> None:
    content = {
        "a.tsv": "text\ngood\n",
        "a.txt": "good\n",
        "a.jsonl": '{"text": "good"}\n',
        "a.json": '[{"text":"good"}]',
    }
    assert list(read_rows(write(name, "\ufeff" + content[name]))) == [{"text": "good"}]


def test_a_header_of_semicolons_makes_a_semicolon_csv(write: Write) -> None:
    path = write("a.csv", "text;label\ngood, very good;pos\n")
    assert list(read_rows(path)) == [{"text": "good, very good", "label": "pos"}]


def test_quoted_csv_fields_keep_line_breaks_commas_and_marks(write: Write) -> None:
    path = write("a.csv", 'text,label\n"one\r\ntwo, ""three""",pos\nfour,neg\n')
    assert [row["text"] for row in read_rows(path)] == ['one\r\ntwo, "three"', "four"]


def test_blank_lines_of_a_csv_are_no_rows(write: Write) -> None:
    assert list(read_rows(write("a.csv", "text\n\ngood\n\n"))) == [{"text": "good"}]


def test_blanks_around_column_names_are_dropped(write: Write) -> None:
    assert list(next(read_rows(write("a.csv", "text, label \ngood,1\n")))) == ["text", "label"]


def test_the_ending_is_read_without_regard_to_case(write: Write) -> None:
    assert list(read_rows(write("A.CSV", "text\ngood\n"))) == [{"text": "good"}]


def test_glue_tsv_keeps_unbalanced_quotation_marks(write: Write) -> None:
    path = write("a.tsv", 'text\tlabel\n"a good film\t1\nhe said "no\t0\nbad"\t0\n"" fine\t1\n')
    assert [row["text"] for row in read_rows(path)] == ['"a good film', 'he said "no', 'bad"', '"" fine']


def test_glue_tsv_keeps_the_marks_of_a_quoted_word(write: Write) -> None:
    path = write("a.tsv", 'text\tlabel\n"No" he said\t1\nfine\t0\n')
    assert [row["text"] for row in read_rows(path)] == ['"No" he said', "fine"]


def test_an_unbalanced_quotation_mark_far_down_a_tsv_swallows_no_rows(write: Write) -> None:
    rows = [f"good {number}\t1\n" for number in range(1100)] + [
        '"bad\t0\n',
        "fine\t1\n",
        'a "poor" one\t0\n',
        '"b"\t1\n',
    ]
    read = [row["text"] for row in read_rows(write("a.tsv", "text\tlabel\n" + "".join(rows)))]
    assert len(read) == 1104
    assert read[1100] == '"bad'


def test_tsv_fields_in_quotation_marks_lose_them(write: Write) -> None:
    path = write("a.tsv", 'text\tlabel\n"a ""good"" film"\tpos\n"bad"\tneg\n')
    assert [row["text"] for row in read_rows(path)] == ['a "good" film', "bad"]


def test_quoted_tsv_fields_may_hold_tabs_and_line_breaks(write: Write) -> None:
    path = write("a.tsv", 'text\tlabel\n"one\ttwo"\tpos\n"three\nfour"\tneg\nfive\tpos\n')
    assert [row["text"] for row in read_rows(path)] == ["one\ttwo", "three\nfour", "five"]


@pytest.mark.parametrize("name", ["a.jsonl", "a.ndjson", "a.json"])
def test_json_lines_are_read_under_three_endings(write: Write, name: str) -> None:
    path = write(name, '{"text": "good", "label": 1}\n\n{"text": "b\\u00e4d", "label": 0}\n')
    assert list(read_rows(path)) == [{"text": "good", "label": 1}, {"text": "bäd", "label": 0}]


def test_a_json_list_gives_its_objects(write: Write) -> None:
    path = write("a.json", '\n [{"text": "good",\n "label": 1},\n {"text": "bad", "label": 0}, {"text": "x"}]')
    assert list(read_rows(path)) == [{"text": "good", "label": 1}, {"text": "bad", "label": 0}, {"text": "x"}]


def test_a_text_file_has_a_text_in_each_line(write: Write) -> None:
    assert list(read_rows(write("a.txt", "one, two\r\nthree\n"))) == [{"text": "one, two"}, {"text": "three"}]


def test_parquet_rows_come_in_order_across_batches(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.table({"text": [f"t{n}" for n in range(1500)], "label": list(range(1500))}), path)
    rows = list(read_rows(path))
    assert rows == [{"text": f"t{n}", "label": n} for n in range(1500)]


def class_label_table() -> pyarrow.Table:
    """Return two rows as Hugging Face's `datasets` writes them."""
    label = {"names": ["negative", "neutral", "positive"], "_type": "ClassLabel"}
    features = {"text": {"dtype": "string", "_type": "Value"}, "label": label}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    return pyarrow.table({"text": ["good", "bad"], "label": [2, 0]}).replace_schema_metadata(metadata)


def test_class_names_are_read_from_hugging_face_metadata(tmp_path: Path) -> None:
    parquet.write_table(class_label_table(), tmp_path / "a.parquet")
    assert read_class_names(tmp_path / "a.parquet") == {"label": ["negative", "neutral", "positive"]}


def test_a_parquet_file_without_such_metadata_has_no_class_names(tmp_path: Path) -> None:
    parquet.write_table(pyarrow.table({"label": [1]}), tmp_path / "a.parquet")
    assert read_class_names(tmp_path / "a.parquet") == {}


def test_only_parquet_files_have_class_names(write: Write) -> None:
    assert read_class_names(write("a.csv", "text,label\n")) == {}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "text,label\ngood,1\nbad,0,more\n"),
        ("a.tsv", "text\tlabel\ngood\t1\nbad\n"),
        ("a.jsonl", '{"text": "good", "label": "1"}\n{"text": \n'),
    ],
)
def test_the_first_row_comes_before_a_later_broken_one_raises(write: Write, name: str, content: str) -> None:
    rows = read_rows(write(name, content))
    assert next(rows) == {"text": "good", "label": "1"}
    with pytest.raises(DataError, match="row 2"):
        next(rows)


def test_an_unknown_ending_is_named_with_the_known_ones(write: Write) -> None:
    said = message(write("a.docx", "x"))
    assert "'.docx'" in said
    assert all(suffix in said for suffix in SUFFIXES)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert "no such file" in message(tmp_path / "none.csv")


@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
@pytest.mark.parametrize("content", ["", "\n", " , \n"])
def test_an_empty_file_is_said_to_be_empty(write: Write, name: str, content: str) -> None:
    assert "empty" in message(write(name, content.replace(",", "\t") if name == "a.tsv" else content))


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl", "a.json", "a.txt"])
def test_no_text_form_has_rows_in_a_file_that_ends_after_its_header(write: Write, name: str) -> None:
    assert list(read_rows(write(name, "text\n" if name in ("a.csv", "a.tsv") else ""))) == []


@pytest.mark.parametrize(
    ("name", "content", "columns"),
    [
        ("a.csv", "text,note\n", ["text", "note"]),
        ("a.csv", "\ufefftext;note\n", ["text", "note"]),
        ("a.tsv", "text\tnote\nfilm\tgood\n", ["text", "note"]),
        ("a.txt", "", ["text"]),
        ("a.jsonl", "", []),
    ],
)
def test_columns_have_names_without_rows(write: Write, name: str, content: str, columns: list[str]) -> None:
    assert read_columns(write(name, content)) == columns


def test_a_parquet_file_names_its_columns_without_rows(tmp_path: Path) -> None:
    schema = pyarrow.schema([("text", pyarrow.string()), ("note", pyarrow.int64())])
    parquet.write_table(schema.empty_table(), tmp_path / "a.parquet")
    assert read_columns(tmp_path / "a.parquet") == ["text", "note"]


def test_a_ragged_row_is_named_by_its_number(write: Write) -> None:
    said = message(write("a.csv", 'text,label\n"one\ntwo",1\nbad, very bad,0\n'))
    assert "row 2 (line 4)" in said
    assert "3 fields" in said
    assert "text, label" in said


def test_an_open_quotation_mark_is_found(write: Write) -> None:
    assert "row 2" in message(write("a.csv", 'text,label\ngood,1\n"bad,0\nfine,1\n'))


def test_a_column_name_that_occurs_twice_is_refused(write: Write) -> None:
    assert "twice" in message(write("a.csv", "text,label,text\na,b,c\n"))


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl", "a.json", "a.txt"])
def test_bytes_that_are_not_utf8_are_named_by_line(write: Write, name: str) -> None:
    said = message(write(name, b"text\nfine\nd\xe9j\xe0 vu\ncaf\xc3\xa9\n"))
    assert "not UTF-8" in said
    assert "0xe9" in said
    assert "line 3, byte 12 " in said
    assert "iconv -c -f UTF-8 -t UTF-8 " in said


def test_a_bad_byte_behind_many_good_lines_is_named_by_its_own_line(write: Write) -> None:
    said = message(write("a.csv", b"text\nna\xc3\xafve\n" + b"good\n" * 20_000 + b"caf\xe9\n"))
    assert "line 20003, byte 100016 " in said


def test_a_file_that_ends_within_a_character_is_not_utf8(write: Write) -> None:
    assert "not UTF-8" in message(write("a.txt", "é".encode()[:1]))


def test_a_broken_json_line_is_named_by_its_row(write: Write) -> None:
    said = message(write("a.jsonl", '{"text": "good"}\n\n{"text": "bad"\n'))
    assert "row 2" in said
    assert "not JSON" in said


@pytest.mark.parametrize("line", ["[1, 2]", '"good"', "7"])
def test_a_json_line_that_is_no_object_is_named_by_its_row(write: Write, line: str) -> None:
    said = message(write("a.jsonl", f'{{"text": "good"}}\n{line}\n{{"text": "x"}}\n'))
    assert "row 2" in said
    assert line in said


def test_a_json_list_member_that_is_no_object_is_named_by_its_row(write: Write) -> None:
    assert "row 2" in message(write("a.json", '[{"text": "good"}, "bad"]'))


def test_a_broken_json_list_is_refused(write: Write) -> None:
    assert "not JSON" in message(write("a.json", '[{"text": "good"},'))


def test_json_nested_beyond_all_bounds_is_refused(write: Write) -> None:
    assert "row 1" in message(write("a.jsonl", '{"text": ' + "[" * 100_000 + "\n"))


@pytest.mark.parametrize("kept", [0, 3, 200])
def test_a_truncated_parquet_file_is_refused(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.table({"text": [f"text {n}" for n in range(99)]}), path)
    path.write_bytes(path.read_bytes()[:kept])
    assert "Parquet" in message(path)
    assert read_class_names(path) == {}


def test_a_parquet_file_damaged_in_the_middle_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.table({"text": [f"text {n}" for n in range(999)]}), path)
    content = bytearray(path.read_bytes())
    content[4:400] = b"\xff" * 396
    path.write_bytes(bytes(content))
    message(path)


@given(st.lists(st.tuples(TEXTS, TEXTS), max_size=7))
@settings(deadline=None, max_examples=60)
def test_what_a_csv_writer_wrote_is_read_back(tmp_path_factory: pytest.TempPathFactory, rows: list) -> None:
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("text", "label"), *rows])
    assert list(read_rows(path)) == [{"text": text, "label": label} for text, label in rows]


@given(st.lists(st.dictionaries(TEXTS, TEXTS | st.integers() | st.none() | st.lists(TEXTS, max_size=2)), max_size=5))
@settings(deadline=None, max_examples=60)
def test_json_lines_and_a_json_list_of_the_same_rows_read_alike(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Row]
) -> None:
    folder = tmp_path_factory.mktemp("json")
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (folder / "a.jsonl").write_bytes(lines.encode())
    (folder / "b.json").write_bytes(json.dumps(rows).encode())
    assert list(read_rows(folder / "a.jsonl")) == rows
    assert list(read_rows(folder / "b.json")) == rows


@pytest.mark.parametrize(
    "content",
    [
        "text;label\na;1\nb;2\n",
        "text,label\na,1\nb,2\n",
        "sep=;\ntext;label\na;1\nb;2\n",
        "sep=\t\r\ntext\tlabel\na\t1\nb\t2",
    ],
    ids=["semicolons", "commas", "named", "named tab"],
)
@pytest.mark.parametrize("name", ["a.tsv", "a.csv"])
def test_a_table_may_have_the_separator_of_another_format(write: Write, name: str, content: str) -> None:
    path = write(name, content)
    assert list(read_rows(path)) == [{"text": "a", "label": "1"}, {"text": "b", "label": "2"}]
    assert read_columns(path) == ["text", "label"]


def test_the_line_of_an_error_counts_the_line_that_names_the_separator(write: Write) -> None:
    with pytest.raises(DataError, match=r"row 2 \(line 4\): 1 field, but the header has 2"):
        list(read_rows(write("a.csv", "sep=;\ntext;label\na;1\nb\n")))


def test_quotation_marks_with_backslashes_are_explained(write: Write) -> None:
    with pytest.raises(DataError, match=r"row 1 .*written twice"):
        list(read_rows(write("a.csv", 'text,label\n"a \\"good\\" film",1\n')))


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf_16_is_told_without_a_byte_order_mark(write: Write, encoding: str) -> None:
    path = write("a.csv", "text,label\né good,1\n".encode(encoding))
    assert list(read_rows(path)) == [{"text": "é good", "label": "1"}]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (gzip.compress(b"text,label\na,1\n", mtime=0), r"is a gzip file, and not text; .*a\.csv\.gz"),
        (b"PK\x03\x04" + bytes(50), r"is a zip archive or a spreadsheet.*a\.xlsx"),
        (b"PAR1\x15" + bytes(50), r"is a Parquet file"),
    ],
    ids=["gzip", "zip", "parquet"],
)
def test_a_file_that_is_no_text_is_named_as_what_it_is(write: Write, content: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        list(read_rows(write("a.csv", content)))


@pytest.mark.parametrize("name", ["PAR1", "BZh", "%PDF"])
def test_a_header_may_begin_like_such_a_file(write: Write, name: str) -> None:
    assert list(read_rows(write("a.csv", f"{name},text\n1,a\n"))) == [{name: "1", "text": "a"}]
