"""Tell the format of data that have no file name, such as those of a pipe, by their first line."""

from __future__ import annotations

from ptune.data.columns import LABELS, PAIRS, TEXTS

_KNOWN = {*TEXTS, *LABELS, *(name for pair in PAIRS for name in pair)}


def guess_format(first_line: bytes) -> str:
    """Return the ending that stands for the format.

    JSON begins with a bracket, Parquet with its name, and a table with a header in which a column has a common name,
    such as text. Everything else is plain text, one text per line.

    Args:
        first_line: the first line, or the beginning of it.
    """
    if first_line.startswith(b"PAR1"):
        return ".parquet"
    line = first_line.decode("utf-8-sig", errors="replace").strip()
    if line.startswith("{"):
        return ".jsonl"
    if line.startswith("[") and not line.endswith("]"):
        return ".json"
    for separator in "\t,;|":
        if {name.strip().strip('"').lower() for name in line.split(separator)} & _KNOWN:
            return ".tsv" if separator == "\t" and separator in line else ".csv"
    return ".txt"
