"""An error that nobody expects is one line, and its traceback is to be had."""

from __future__ import annotations

import pytest
import torch

from ptune.cli import main


@pytest.fixture
def raising(monkeypatch):
    """Make `ptune inspect` raise an error."""

    def put(error: Exception) -> None:
        def fail(*_: object) -> None:
            raise error

        monkeypatch.setattr("ptune.adapter.folder.read_adapter", fail)

    return put


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (KeyError("x"), "KeyError: 'x'. This should not happen; to see where it does, set PTUNE_TRACEBACK=1"),
        (RuntimeError("one.\ntwo"), "RuntimeError: one. This should not happen"),
        (AssertionError(), "AssertionError. This should not happen"),
        (
            ImportError("No module named 'optimum'"),
            "a library is missing or does not go with the others: ImportError: No",
        ),
        (MemoryError(), "there is not enough memory (MemoryError); use smaller batches"),
        (torch.OutOfMemoryError("CUDA out of memory"), "there is not enough memory (OutOfMemoryError: CUDA out of"),
        (ValueError("x" * 50_000), "ValueError: " + "x" * 300 + "…"),
    ],
)
def test_an_unknown_error_is_one_line(error, said, raising, monkeypatch, capsys) -> None:
    raising(error)
    monkeypatch.delenv("PTUNE_TRACEBACK")
    with pytest.raises(SystemExit) as caught:
        main(["inspect", "a"])
    assert caught.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"ptune: error: {said}")


def test_its_traceback_is_to_be_had(raising, monkeypatch) -> None:
    raising(KeyError("x"))
    monkeypatch.setenv("PTUNE_TRACEBACK", "1")
    with pytest.raises(KeyError):
        main(["inspect", "a"])
