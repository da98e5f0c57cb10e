"""Files are written completely or not at all: a full disk or an interrupted block leaves existing files intact."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from ptune import atomic
from ptune.atomic import make_folder, try_folder, write_files, written_file, written_folder
from ptune.errors import OutputError

OLD = {"a.bin": b"old a", "b.json": b"old b", "c.txt": b"old c"}
NEW = {"a.bin": b"new a" * 100, "b.json": b"new b" * 200, "c.txt": b"new c" * 300}


@pytest.fixture
def tmp_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder without words of the test's name, which pytest's own has and messages are searched for."""
    return tmp_path_factory.mktemp("d")


def contents(folder: Path) -> dict[str, bytes]:
    """Return the content of every file of a folder, hidden ones included."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """Return a folder with files to keep or to replace."""
    for name, content in OLD.items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


def no_space(*_: Any, **__: Any) -> Any:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def nth(number: int, real: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that works as before, except that its n-th call finds the disk full."""
    calls = []

    def called(*arguments: Any, **options: Any) -> Any:
        calls.append(arguments)
        return no_space() if len(calls) == number else real(*arguments, **options)

    return called


def test_files_are_written_together_and_leave_no_parts(old: Path) -> None:
    write_files(old, NEW)
    assert contents(old) == NEW


def test_named_files_are_removed_at_the_end(old: Path) -> None:
    write_files(old, {"a.bin": b"new"}, remove=["b.json", "none.txt"])
    assert contents(old) == {"a.bin": b"new", "c.txt": b"old c"}


def test_a_missing_folder_is_made(tmp_path: Path) -> None:
    write_files(tmp_path / "x" / "y", {"a.bin": b"1"})
    assert contents(tmp_path / "x" / "y") == {"a.bin": b"1"}


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_disk_that_is_full_at_any_file_leaves_all_old_ones(
    old: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(os, "fsync", nth(number, os.fsync))
    with pytest.raises(OutputError, match=r"No space left on device.*existing files are intact") as caught:
        write_files(old, NEW, remove=["c.txt"])
    assert str(old) in str(caught.value)
    assert contents(old) == OLD


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_rename_that_fails_leaves_every_file_whole(old: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.setattr(Path, "replace", nth(number, Path.replace))
    with pytest.raises(OutputError):
        write_files(old, NEW)
    found = contents(old)
    assert found.keys() == OLD.keys()
    assert all(content in (OLD[name], NEW[name]) for name, content in found.items())


def test_a_disk_that_is_full_at_once_leaves_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(OutputError):
        write_files(tmp_path, NEW)
    assert contents(tmp_path) == {}


def test_the_system_error_stays_the_cause(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(OutputError) as caught:
        write_files(tmp_path, NEW)
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.errno == errno.ENOSPC


def test_an_interrupt_leaves_the_old_files(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_files(old, NEW)
    assert contents(old) == OLD


def test_a_streamed_file_takes_its_name_when_the_block_ends(old: Path) -> None:
    with written_file(old / "a.bin", "wb") as file:
        file.write(b"new")
        file.flush()
        assert (old / "a.bin").read_bytes() == b"old a"
    assert contents(old) == {**OLD, "a.bin": b"new"}


def test_a_streamed_text_is_utf8_with_its_own_line_breaks(tmp_path: Path) -> None:
    with written_file(tmp_path / "a.txt") as file:
        file.write("ü\r\n☃\n")
    assert contents(tmp_path) == {"a.txt": "ü\r\n☃\n".encode()}


def write_and_raise(path: Path, error: Exception) -> None:
    with written_file(path) as file:
        file.write("new")
        raise error


def test_a_block_that_raises_leaves_the_old_file_and_its_own_error(old: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        write_and_raise(old / "a.bin", ZeroDivisionError())
    assert contents(old) == OLD


def test_a_disk_that_fills_up_under_a_streamed_file_leaves_the_old_one(old: Path) -> None:
    with pytest.raises(OutputError, match=r"c\.txt.*No space left"):
        write_and_raise(old / "c.txt", OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    assert contents(old) == OLD


def test_an_output_error_from_within_is_passed_on_as_it_is(old: Path) -> None:
    with pytest.raises(OutputError, match=r"^inner$"):
        write_and_raise(old / "a.bin", OutputError("inner"))
    assert contents(old) == OLD


def test_a_folder_that_exists_is_left_as_it_is(old: Path) -> None:
    make_folder(old)
    assert contents(old) == OLD


def test_trying_a_folder_leaves_nothing_behind(old: Path) -> None:
    try_folder(old / "x" / "y")
    try_folder(old)
    assert contents(old) == OLD
    assert not (old / "x").exists()


def test_what_is_not_written_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="no more"):
        write_and_raise(tmp_path / "x" / "y" / "a.csv", ValueError("no more"))
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left")))
    with pytest.raises(OutputError, match="No space"):
        write_files(tmp_path / "x" / "y", {"a.bin": b"1"})
    assert list(tmp_path.iterdir()) == []


def test_a_streamed_file_makes_its_folder(tmp_path: Path) -> None:
    with written_file(tmp_path / "x" / "a.csv") as file:
        file.write("a")
    assert (tmp_path / "x" / "a.csv").read_text() == "a"


def test_one_folder_is_checked_by_several_threads_at_once(old: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(make_folder, [old] * 500))
    assert contents(old) == OLD


@pytest.mark.parametrize("below", ["", "x", "x/y"])
def test_a_folder_in_the_place_of_a_file_cannot_be_made(tmp_path: Path, below: str) -> None:
    (tmp_path / "notes").write_bytes(b"mine")
    with pytest.raises(OutputError) as caught:
        make_folder(tmp_path / "notes" / below)
    assert "notes" in str(caught.value)
    assert "not a directory" in str(caught.value).lower()
    assert contents(tmp_path) == {"notes": b"mine"}


def test_a_streamed_file_below_a_file_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "notes").write_bytes(b"mine")
    with pytest.raises(OutputError, match="Not a directory"), written_file(tmp_path / "notes" / "a.csv"):
        pytest.fail("the block was entered")  # pragma: no cover
    assert contents(tmp_path) == {"notes": b"mine"}


def test_a_folder_that_may_not_be_written_into_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: Any, **__: Any) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(atomic, "TemporaryFile", denied)
    with pytest.raises(OutputError, match="Permission denied") as caught:
        make_folder(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_a_folder_is_replaced_as_a_whole_and_left_as_it_was_by_an_interruption(tmp_path: Path, monkeypatch) -> None:
    folder = tmp_path / "a"
    for name in ("c", "d"):
        with written_folder(folder) as new:
            (new / name).write_bytes(b"x")
    assert contents(folder) == {"d": b"x"}
    real, calls = Path.rename, []

    def interrupted(path: Path, target: Path) -> Path:
        calls.append(path)
        if len(calls) == 2:  # between the two renames
            raise KeyboardInterrupt
        return real(path, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt), written_folder(folder) as new:
        (new / "e").write_bytes(b"x")
    assert contents(folder) == {"d": b"x"}
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_several_may_write_the_same_folder(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    with written_folder(folder) as first, written_folder(folder) as second:
        assert first != second
        (first / "x").write_bytes(b"1")
        (second / "x").write_bytes(b"2")
    assert contents(folder) == {"x": b"1"}
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
