"""Drawing SVG: a canvas with a scale for each axis, ticks at round numbers, and texts that fit.

Colours are classes, so that the page's style can choose them for light and dark.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from ptune.pages.document import plain

CHARACTER = 6.1  # mean width of a character at the size of the labels, in units of the canvas


@dataclass(frozen=True)
class Scale:
    """Where numbers are on an axis.

    Attributes:
        low, high: the numbers at its ends.
        start, end: their places.
    """

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Return the place of a number."""
        share = (value - self.low) / (self.high - self.low) if self.high > self.low else 0.5
        return self.start + share * (self.end - self.start)


class Canvas:
    """An SVG picture that grows with its column.

    Args:
        width, height: in units that are pixels in a column of this width.
        title: what the picture shows, for readers that do not see it.
    """

    def __init__(self, width: float, height: float, title: str) -> None:
        self.width, self.height, self.title = width, height, title
        self._parts: list[str] = []

    def line(self, x1: float, y1: float, x2: float, y2: float, kind: str) -> None:
        """Draw a line."""
        self._parts.append(f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{kind}"/>')

    def path(self, points: Sequence[tuple[float, float]], kind: str) -> None:
        """Draw a line through points."""
        listed = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        self._parts.append(f'<polyline points="{listed}" class="{kind}"/>')

    def box(
        self, x: float, y: float, width: float, height: float, kind: str, title: str = "", strength: float | None = None
    ) -> None:
        """Draw a filled rectangle.

        Args:
            x, y: its corner at the upper left.
            width, height: its size.
            kind: its class.
            title: what a pointer on it shows.
            strength: opacity, from 0 to 1.
        """
        opacity = "" if strength is None else f' fill-opacity="{strength:.2f}"'
        place = f'x="{x:.1f}" y="{y:.1f}" width="{max(width, 0):.1f}" height="{max(height, 0):.1f}"'
        self._parts.append(f'<rect {place} class="{kind}"{opacity}{_closed("rect", title)}')

    def squares(self, corners: Sequence[tuple[float, float]], side: float, kind: str, strength: float) -> None:
        """Draw many squares of the same size and opacity as one element, which takes a tenth of the room.

        Args:
            corners: their corners at the upper left.
            side: their width.
            kind, strength: see `box`.
        """
        shape = f"h{side:.1f}v{side:.1f}h-{side:.1f}z"
        places = "".join(f"M{x:.1f} {y:.1f}{shape}" for x, y in corners)
        self._parts.append(f'<path d="{places}" class="{kind}" fill-opacity="{strength:.2f}"/>')

    def dot(self, x: float, y: float, radius: float, kind: str, title: str = "") -> None:
        """Draw a filled circle. title: what a pointer on it shows."""
        self._parts.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}" class="{kind}"{_closed("circle", title)}'
        )

    def text(self, x: float, y: float, text: str, kind: str = "", anchor: str = "start", turned: bool = False) -> None:
        """Write a text. anchor: start, middle or end. turned: write it upwards."""
        turn = f' transform="rotate(-90 {x:.1f} {y:.1f})"' if turned else ""
        self._parts.append(
            f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{kind}"{turn}>{plain(text)}</text>'
        )

    def legend(self, x: float, y: float, entries: Sequence[tuple[str, str]]) -> None:
        """Write names of lines in a row, each behind a short line. entries: class and name."""
        for kind, name in entries:
            self.line(x, y - 4, x + 16, y - 4, kind)
            self.text(x + 21, y, name, "soft")
            x += 21 + text_width(name) + 14

    def svg(self) -> str:
        """Return the picture as SVG."""
        return (
            f'<svg viewBox="0 0 {self.width:.0f} {self.height:.0f}" role="img" aria-label="{plain(self.title)}">'
            + "".join(self._parts)
            + "</svg>"
        )


class Plot(Canvas):
    """A canvas with two axes and a grid.

    Args:
        title: what it shows.
        x, y: low and high numbers of the axes.
        x_name, y_name: what the axes show.
        x_label, y_label: how numbers are written at the ticks.
        whole: True if only whole numbers belong to the horizontal axis.
        height: of the picture.
        top: room above the axes, for a legend or a note.
    """

    def __init__(
        self,
        title: str,
        x: tuple[float, float],
        y: tuple[float, float],
        x_name: str,
        y_name: str,
        x_label: Callable[[float], str] | None = None,
        y_label: Callable[[float], str] | None = None,
        whole: bool = False,
        height: float = 260,
        top: float = 14,
    ) -> None:
        super().__init__(420, height, title)
        x_ticks, y_ticks = ticks(*x, 6, whole), ticks(*y, 5)
        write_x, write_y = x_label or tick_labels(x_ticks), y_label or tick_labels(y_ticks)
        # Texts are a seventh larger on narrow screens.
        left = 32 + 8 / 7 * max((text_width(write_y(value)) for value in y_ticks), default=0)
        self.left, self.right, self.top, self.bottom = left, 408.0, top, height - 40
        self.x, self.y = Scale(*x, self.left, self.right), Scale(*y, self.bottom, self.top)
        for value in y_ticks:
            self.line(self.left, self.y(value), self.right, self.y(value), "grid")
            self.text(self.left - 6, self.y(value) + 4, write_y(value), "soft", "end")
        for value in x_ticks:
            self.text(self.x(value), self.bottom + 15, write_x(value), "soft", "middle")
        self.line(self.left, self.bottom, self.right, self.bottom, "axis")
        self.text((self.left + self.right) / 2, self.bottom + 33, x_name, "name", "middle")
        self.text(12, (self.top + self.bottom) / 2, y_name, "name", "middle", turned=True)

    def curve(self, points: Sequence[tuple[float, float]], kind: str) -> None:
        """Draw a line through points in the units of the axes."""
        self.path([(self.x(x), self.y(y)) for x, y in points], kind)


def percent(share: float) -> str:
    """Return a share as whole percents."""
    return f"{100 * share:.0f}%"


def ticks(low: float, high: float, count: int, whole: bool = False) -> list[float]:
    """Return about `count` round numbers between two numbers."""
    if not math.isfinite(low) or not math.isfinite(high) or high <= low:
        return [low]
    rough = (high - low) / count
    power = 10 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * 0.999)
    if whole:
        step = max(1, round(step))
    first = math.ceil(low / step - 1e-9)
    return [number * step for number in range(first, math.floor(high / step + 1e-9) + 1)]


def tick_labels(values: Sequence[float]) -> Callable[[float], str]:
    """Return the function that writes numbers with as many digits as tell these apart."""
    step = min((b - a for a, b in pairwise(values)), default=1.0)
    digits = next((digits for digits in range(6) if abs(round(step, digits) - step) < 1e-9 * max(1, abs(step))), 6)
    return lambda value: f"{value:,.{digits}f}"


def text_width(text: str) -> float:
    """Return about how wide a text is at the size of the labels."""
    return CHARACTER * sum(2 if unicodedata.east_asian_width(one) in "WF" else 1 for one in text)


def fitted(text: str, width: float) -> str:
    """Return a text, or as much of its beginning as fits, and an ellipsis."""
    if text_width(text) <= width:
        return text
    while text and text_width(text) + CHARACTER > width:
        text = text[:-1]
    return text.rstrip() + "…"


def _closed(tag: str, title: str) -> str:
    return f"><title>{plain(title)}</title></{tag}>" if title else "/>"
