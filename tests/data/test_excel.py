"""Spreadsheets, read by the extra `excel`."""

from __future__ import annotations

import importlib.util
import sys
import zipfile
from pathlib import Path
from xml.sax.saxutils import escape

import pytest

from ptune.data.load import load_data
from ptune.data.readers import read_columns, read_rows
from ptune.errors import DataError

needs_excel = pytest.mark.skipif(importlib.util.find_spec("python_calamine") is None, reason="needs the extra 'excel'")
MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
LINKS = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
PACKAGE = "http://schemas.openxmlformats.org/package/2006"


def write_workbook(path: Path, **sheets: list[list[object]]) -> Path:
    """Write a workbook with the least that Excel's format asks for."""
    kind = "application/vnd.openxmlformats-officedocument.spreadsheetml"
    names = "".join(f'<sheet name="{name}" sheetId="{n}" r:id="r{n}"/>' for n, name in enumerate(sheets, 1))
    links = "".join(
        f'<Relationship Id="r{n}" Type="{LINKS}/worksheet" Target="worksheets/sheet{n}.xml"/>'
        for n in range(1, len(sheets) + 1)
    )
    types = (
        f'<Default Extension="xml" ContentType="application/xml"/><Default Extension="rels" ContentType="{PACKAGE}"/>'
    )
    parts = {
        "[Content_Types].xml": f'<Types xmlns="{PACKAGE}/content-types">{types}<Override PartName="/xl/workbook.xml" '
        f'ContentType="{kind}.sheet.main+xml"/></Types>',
        "_rels/.rels": f'<Relationships xmlns="{PACKAGE}/relationships"><Relationship Id="r" '
        f'Type="{LINKS}/officeDocument" Target="xl/workbook.xml"/></Relationships>',
        "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{PACKAGE}/relationships">{links}</Relationships>',
        "xl/workbook.xml": f'<workbook xmlns="{MAIN}" xmlns:r="{LINKS}"><sheets>{names}</sheets></workbook>',
    }
    for number, rows in enumerate(sheets.values(), 1):
        lines = "".join(f"<row>{''.join(map(cell, row))}</row>" for row in rows)
        parts[f"xl/worksheets/sheet{number}.xml"] = (
            f'<worksheet xmlns="{MAIN}"><sheetData>{lines}</sheetData></worksheet>'
        )
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return path


def cell(value: object) -> str:
    if value is None:
        return "<c/>"
    if isinstance(value, (int, float)):
        return f"<c><v>{value}</v></c>"
    return f'<c t="inlineStr"><is><t>{escape(str(value))}</t></is></c>'


ROWS: list[list[object]] = [
    ["text", "label", None],
    ["good, very good", 1, None],
    ["b\u00e4d", 0, None],
    ["so", None, None],
]


@needs_excel
def test_the_first_sheet_is_read_with_whole_numbers_and_empty_cells(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    path = write_workbook(tmp_path / "a.xlsx", Reviews=ROWS, Notes=[["x"]])
    assert list(read_rows(path)) == [
        {"text": "good, very good", "label": 1},
        {"text": "b\u00e4d", "label": 0},
        {"text": "so", "label": None},
    ]
    assert read_columns(path) == ["text", "label"]
    assert "read sheet 'Reviews', not 'Notes'" in caplog.text


@needs_excel
def test_a_sheet_is_trained_on_like_a_table(tmp_path: Path) -> None:
    rows: list[list[object]] = [[f"text {n}", "ab"[n % 2]] for n in range(8)]
    data = load_data(write_workbook(tmp_path / "a.xlsx", Sheet=[["text", "label"], *rows]))
    assert (len(data.train), len(data.validation), data.labels) == (6, 2, ["a", "b"])


@needs_excel
def test_a_file_that_is_no_workbook_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.xlsx").write_text("text,label\n")
    with pytest.raises(DataError, match=r"a\.xlsx' is not a complete spreadsheet"):
        list(read_rows(tmp_path / "a.xlsx"))


def test_without_the_extra_the_command_that_installs_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "python_calamine", None)
    (tmp_path / "a.xlsx").write_bytes(b"PK")
    with pytest.raises(DataError, match=r"pip install 'ptune\[excel\]', or save it as \.csv"):
        list(read_rows(tmp_path / "a.xlsx"))
