"""Where files may be and how they may be written: compression, archives, pipes, URLs and encodings."""

from __future__ import annotations

import bz2
import gzip
import io
import logging
import lzma
import os
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import pyarrow
import pytest

from ptune.data.files import DataFile, as_file, split_name
from ptune.data.formats import guess_format
from ptune.data.load import load_data
from ptune.data.readers import read_columns, read_rows
from ptune.errors import DataError

TABLE = "text,label\na good film,pos\na bad one,neg\n"
ROWS = [{"text": "a good film", "label": "pos"}, {"text": "a bad one", "label": "neg"}]
FRENCH = "text,label\nun très bon film,pos\nun mauvais film déjà vu,neg\n"


@pytest.fixture
def tmp_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder without words of the test's name, which pytest's own has and messages are searched for."""
    return tmp_path_factory.mktemp("d")


def zipped(*members: str) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        for name in members:
            archive.writestr(name, TABLE)
    return sink.getvalue()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv.gz", gzip.compress(TABLE.encode(), mtime=0)),
        ("a.csv.bz2", bz2.compress(TABLE.encode())),
        ("a.CSV.XZ", lzma.compress(TABLE.encode())),
        ("a.csv.zip", zipped("a.csv")),
        ("a.zip", zipped("notes/", "inner.csv", "__MACOSX/inner.csv")),
    ],
)
def test_compressed_files_are_read_like_others(name: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    assert list(read_rows(path)) == ROWS
    assert read_columns(path) == ["text", "label"]


def test_zstandard_is_read_too(tmp_path: Path) -> None:
    path = tmp_path / "a.csv.zst"
    with pyarrow.output_stream(str(path), compression="zstd") as stream:
        stream.write(TABLE.encode())
    assert list(read_rows(path)) == ROWS


def test_a_folder_may_hold_compressed_splits(tmp_path: Path) -> None:
    rows = "text,label\n" + "".join(f"text {n},{'ab'[n % 2]}\n" for n in range(6))
    for name in ("train.csv.gz", "test.csv.gz"):
        (tmp_path / name).write_bytes(gzip.compress(rows.encode()))
    data = load_data(tmp_path)
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 4, "validation": 2, "test": 6}


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.csv.gz", gzip.compress(TABLE.encode(), mtime=0)[:-12], "not a complete .gz file"),
        ("a.csv.gz", b"text,label\n", "cannot be read: Not a gzipped file"),
        ("a.csv.xz", lzma.compress(TABLE.encode())[:20], "not a complete .xz file"),
        ("a.zip", zipped("a.csv", "b.csv"), "holds a.csv, b.csv; unpack it"),
        ("a.csv.zip", zipped("a.txt.bak"), "holds none; unpack it"),
        ("a.gz", gzip.compress(TABLE.encode(), mtime=0), "the ending '.gz' is unknown"),
    ],
)
def test_damaged_and_unclear_archives_are_named(name: str, content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as caught:
        list(read_rows(tmp_path / name))
    assert said in str(caught.value)
    assert str(tmp_path / name) in str(caught.value)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig", "utf-32"])
@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
def test_a_byte_order_mark_tells_the_encoding(encoding: str, name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(FRENCH.replace(",", "\t" if name == "a.tsv" else ",").encode(encoding))
    assert [row["text"] for row in read_rows(path)] == ["un très bon film", "un mauvais film déjà vu"]


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252"])
def test_windows_1252_is_read_with_a_warning_that_says_so_once(
    encoding: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(FRENCH.encode(encoding))
    file = as_file(path)
    assert [row["text"] for row in read_rows(file)] == [row["text"] for row in read_rows(file)]
    assert next(read_rows(file))["text"] == "un très bon film"
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "byte 0xe8 does not decode (line 2, byte 17 of the file). It is read as Windows-1252" in record.message


def test_the_command_that_converts_works_as_typed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "a b.csv"
    path.write_bytes(FRENCH.encode("cp1252"))
    expected = list(read_rows(path))
    command = caplog.records[0].message.split("as in ")[1]
    subprocess.run(["bash", "-ec", command], check=True)
    assert list(read_rows(tmp_path / "a b-utf8.csv")) == expected
    assert len(caplog.records) == 1


@pytest.mark.parametrize(("text", "encoding"), [("хороший фильм", "cp1251"), ("好电影很好看", "gb18030")])
def test_an_encoding_that_is_not_western_is_not_guessed(text: str, encoding: str, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(f"text,label\n{text},pos\n".encode(encoding))
    with pytest.raises(DataError, match=r"is not UTF-8: byte 0x.* \(line 2, byte 12 of the file\)\. Convert it from"):
        list(read_rows(path))


def test_a_file_behind_a_url_is_read_like_others() -> None:
    import fsspec

    system = fsspec.filesystem("memory")
    rows = "text,label\n" + "".join(f"text {n},{'ab'[n % 2]}\n" for n in range(6))
    with system.open("/reviews/train.csv", "wb") as file:
        file.write(rows.encode())
    with system.open("/reviews/test.csv.gz", "wb") as file:
        file.write(gzip.compress(rows.encode()))
    assert len(list(read_rows("memory://reviews/train.csv"))) == 6
    assert len(load_data("memory://reviews/test.csv.gz", only="test").test) == 6
    data = load_data("memory://reviews")
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 4, "validation": 2, "test": 6}
    assert data.origin is not None
    assert data.origin.name == "reviews"
    with pytest.raises(DataError, match=r"data file 'memory://reviews/none\.csv': there is no such file"):
        load_data("memory://reviews/none.csv")


@pytest.mark.parametrize(
    ("url", "said"), [("nosuch://a/b.csv", "Protocol not known: nosuch"), ("nosuch://a", "Protocol not known")]
)
def test_a_url_that_nothing_reads_is_named(url: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        load_data(url)


def test_a_named_pipe_is_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_text, args=(TABLE,))
    writer.start()
    file = as_file(path)
    writer.join()
    assert list(read_rows(file)) == list(read_rows(file)) == ROWS
    assert [record.message for record in caplog.records] == [
        f"{path} is read as csv, judged by its first line; if that is wrong, save it to a file whose name says what it "
        "is, or give ptune predict its --input-format"
    ]


def test_standard_input_is_read_and_its_copy_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b'{"text": "a good film"}\n')))
    file = as_file("-")
    assert list(read_rows(file)) == [{"text": "a good film"}]
    copy = file.place
    assert copy.exists()
    del file
    assert not copy.exists()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"text\nbad\n{\n")))
    with pytest.raises(DataError, match=r"^standard input, row 1: not JSON"):
        list(read_rows(as_file("-", ".jsonl")))


@pytest.mark.parametrize(
    ("line", "ending"),
    [
        (b'{"text": "good"}', ".jsonl"),
        (b'[{"text": "good"},', ".json"),
        (b"PAR1\x15\x04", ".parquet"),
        (b"id,Text,label", ".csv"),
        (b'"text";"label"', ".csv"),
        (b"text", ".csv"),
        (b"\xef\xbb\xbftext\tlabel", ".tsv"),
        (b"A good film, and a label.", ".txt"),
        (b"[sic] a good film [sic]", ".txt"),
        (b"", ".txt"),
    ],
)
def test_the_first_line_tells_the_format(line: bytes, ending: str) -> None:
    assert guess_format(line + b"\n") == ending


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("train.csv", ("train", ".csv", "")),
        ("Train.CSV.GZ", ("Train", ".csv", ".gz")),
        ("a.b.jsonl.zst", ("a.b", ".jsonl", ".zst")),
        ("a.zip", ("a", "", ".zip")),
        ("a", ("a", "", "")),
    ],
)
def test_a_name_has_a_stem_an_ending_and_a_compression(name: str, parts: tuple[str, str, str]) -> None:
    assert split_name(name) == parts
    file = DataFile(Path("/none") / name)
    assert (file.stem, file.ending, file.compression) == parts
