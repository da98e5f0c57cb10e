"""The confusion matrix as SVG, readable at two labels and at 150."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ptune.report.canvas import Canvas, fitted, percent, text_width

NUMBERED = 12  # most classes whose cells in the confusion matrix have numbers
NAMED = 40  # most classes whose rows and columns in the matrix have names
LARGEST_MATRIX = 200
TITLED = 1500  # cells of a matrix that say what they are, those with the most rows
SMALLEST_MISTAKE = 6.0  # side of its cell, whatever the number of labels


def confusion_matrix(labels: Sequence[str], matrix: Sequence[Sequence[int]]) -> str:
    """Return a confusion matrix. Cells are as dark as their share of the row; mistakes are red.

    Up to NUMBERED classes, cells have numbers; up to NAMED, rows and columns have names.
    """
    count = len(labels)
    names = count <= NAMED
    room = min(130.0, max((text_width(label) for label in labels), default=0) + 10) if names else 20.0
    side = min(560.0, max(240.0, 46.0 * count)) if names else 520.0
    cell = side / count
    left, top = 18 + room, 22 + room
    canvas = Canvas(left + side + 6, top + side + 6, f"confusion matrix of {count} classes")
    canvas.text(left + side / 2, 12, "predicted", "name", "middle")
    canvas.text(12, top + side / 2, "true", "name", "middle", turned=True)
    canvas.box(left, top, side, side, "track")
    small = "soft" if cell >= 13 else "soft small"
    for number, label in enumerate(labels if names else []):
        middle = (number + 0.5) * cell
        canvas.text(left - 6, top + middle + 4, fitted(label, room - 8), small, "end")
        canvas.text(left + middle + 4, top - 6, fitted(label, room - 8), small, turned=True)
    cells = [
        (rows, true, predicted, rows / sum(row))
        for true, row in enumerate(matrix)
        for predicted, rows in enumerate(row)
        if rows
    ]
    cells.sort(key=lambda each: -each[0])
    for rows, true, predicted, share in cells[:TITLED]:
        _cell(canvas, left, top, cell, labels, true, predicted, rows, share)
    levels: dict[tuple[str, float], list[tuple[float, float]]] = {}
    for _, true, predicted, share in cells[TITLED:]:
        key = ("accent" if true == predicted else "bad", math.ceil(8 * share) / 8)
        grown = _grown(cell, true == predicted)
        levels.setdefault(key, []).append((left + predicted * cell - grown, top + true * cell - grown))
    for (kind, share), corners in levels.items():
        right = kind == "accent"
        canvas.squares(corners, cell + 2 * _grown(cell, right), f"fill {kind}", _strength(share, cell, right))
    if not names:
        canvas.text(left - 6, top + 10, "1", "soft", "end")
        canvas.text(left - 6, top + side, str(count), "soft", "end")
        canvas.text(left, top - 6, "1", "soft")
        canvas.text(left + side, top - 6, str(count), "soft", "end")
    return canvas.svg()


def _cell(
    canvas: Canvas,
    left: float,
    top: float,
    cell: float,
    labels: Sequence[str],
    true: int,
    predicted: int,
    rows: int,
    share: float,
) -> None:
    right = true == predicted
    title = f"{fitted(labels[true], 240)} → {fitted(labels[predicted], 240)}: {rows:,} ({percent(share)})"
    gap, grown = 1 if cell > 8 else 0, _grown(cell, right)
    x, y = left + predicted * cell - grown, top + true * cell - grown
    strength, side = _strength(share, cell, right), cell + 2 * grown - gap
    canvas.box(x, y, side, side, f"fill {'accent' if right else 'bad'}", title, strength)
    if len(labels) <= NUMBERED:
        kind = "on" if strength > 0.55 else "number"
        canvas.text(x + (cell - gap) / 2, y + (cell - gap) / 2 + 4, f"{rows:,}", kind, "middle")


def _grown(cell: float, right: bool) -> float:
    """Return by how much a cell is larger on each side than its place: mistakes among many labels have to be seen."""
    return 0.0 if right else max(0.0, SMALLEST_MISTAKE - cell) / 2


def _strength(share: float, cell: float, right: bool) -> float:
    least = 0.12 if right or cell >= SMALLEST_MISTAKE else 0.4
    return least + (1 - least) * share
