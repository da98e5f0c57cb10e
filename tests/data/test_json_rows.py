"""JSON files in the forms in which programs write tables."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from ptune.data.readers import read_rows
from ptune.errors import DataError

ROWS = [{"text": "a good film", "label": "pos"}, {"text": "a bad one", "label": "neg"}]


def read(path: Path, content: str) -> list[dict[str, Any]]:
    path.write_text(content, encoding="utf-8")
    return list(read_rows(path))


@pytest.mark.parametrize("orient", ["columns", "index", "split", "table", "records"])
def test_every_form_of_pandas_is_read(orient: Any, tmp_path: Path) -> None:
    written = pd.DataFrame(ROWS).to_json(orient=orient)
    assert written is not None
    rows = read(tmp_path / "a.json", written)
    assert [{name: row[name] for name in ROWS[0]} for row in rows] == ROWS
    assert pd.read_json(io.StringIO(written), orient=orient).to_dict("records") == ROWS


@pytest.mark.parametrize(
    "content",
    [
        {"version": "1.0", "data": ROWS},
        {"rows": ROWS, "columns_used": ["text"]},
        {"text": [row["text"] for row in ROWS], "label": [row["label"] for row in ROWS]},
    ],
)
@pytest.mark.parametrize("indent", [None, 1])
def test_an_object_with_the_rows_in_it_is_read(content: Any, indent: int | None, tmp_path: Path) -> None:
    assert read(tmp_path / "a.json", json.dumps(content, indent=indent)) == ROWS


def test_an_object_of_cells_is_a_row(tmp_path: Path) -> None:
    assert read(tmp_path / "a.json", json.dumps(ROWS[0], indent=1)) == ROWS[:1]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"a": {"b": 1}, "c": [2]}', "holds an object with 'a', 'c'; expected a list of objects"),
        ("{}", "holds an object with nothing in it"),
        ('"a good film"', 'holds a single value, "a good film"'),
        ('{"text": {"0": "a"}, "label": {"1": "b"}}', "holds an object with 'text', 'label'"),
    ],
)
def test_json_that_holds_no_table_is_named_for_what_it_is(content: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        read(tmp_path / "a.json", content)
    assert said in str(caught.value)
    assert "not JSON" not in str(caught.value)


def test_a_list_under_the_ending_of_json_lines_is_told_its_own(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"row 1: expected an object .*; a file that is one list has the ending \.json"):
        read(tmp_path / "a.jsonl", json.dumps(ROWS))
