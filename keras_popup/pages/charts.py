"""Charts as SVG. Their colours are classes of the page's style, so that a chart is right on light and dark pages."""

import dataclasses
import html
from collections.abc import Callable, Iterable, Sequence

from keras_popup.pages.scales import Scale, number_format

_WIDTH, _HEIGHT = 600, 340
_LEFT, _RIGHT, _TOP, _BOTTOM = 74, 16, 14, 58


@dataclasses.dataclass(frozen=True)
class Axis:
    """An axis of a chart.

    Args:
        title: str, what it shows.
        scale: `Scale`.
        ticks: numbers that have a label. None takes round numbers.
        text: function from a number to its label.
    """

    title: str
    scale: Scale
    ticks: Sequence[float] | None = None
    text: Callable[[float], str] = number_format

    def labels(self) -> list[tuple[float, str]]:
        """Returns (number, label) for each tick."""
        ticks = self.scale.ticks() if self.ticks is None else self.ticks
        return [(tick, self.text(tick)) for tick in ticks]


@dataclasses.dataclass(frozen=True)
class Figure:
    """A figure of a page.

    Attributes:
        name: str, its id in the page.
        title: str, what it shows.
        svg: str, the drawing.
        text: str, a sentence below the title.
        legend: pairs of a class of the page's style and a label.
        wide: whether it takes the page's whole width.
    """

    name: str
    title: str
    svg: str
    text: str = ""
    legend: tuple[tuple[str, str], ...] = ()
    wide: bool = False


class Chart:
    """A chart with an axis below and one at the left.

    Args:
        x: `Axis` below.
        y: `Axis` at the left.
        height: int, in the units of the drawing, whose width is 600.
    """

    def __init__(self, x: Axis, y: Axis, height: int = _HEIGHT) -> None:
        self._x, self._y, self._height = x, y, height
        self._parts: list[str] = []

    def _at(self, x: float, y: float) -> tuple[str, str]:
        return self._across(x), self._up(y)

    def _across(self, x: float) -> str:
        return f"{_LEFT + self._x.scale.place(x) * (_WIDTH - _LEFT - _RIGHT):.1f}"

    def _up(self, y: float) -> str:
        return f"{self._height - _BOTTOM - self._y.scale.place(y) * (self._height - _BOTTOM - _TOP):.1f}"

    def dots(self, points: Iterable[tuple[float, float]], kind: str, trials: Iterable[int] = ()) -> None:
        """Draws points.

        Args:
            points: pairs of numbers on the axes.
            kind: str, the class of the page's style.
            trials: the numbers of the trials that they stand for. The page shows the trial that is pointed at.
        """
        numbers = list(trials)
        for place, point in enumerate(points):
            x, y = self._at(*point)
            link = f' data-t="{numbers[place]}"' if numbers else ""
            self._parts.append(f'<circle class="{kind}" cx="{x}" cy="{y}"{link}/>')

    def line(self, points: Sequence[tuple[float, float]], kind: str, trial: int | None = None) -> None:
        """Draws a line through points, as `dots`."""
        path = "L".join(",".join(self._at(*point)) for point in points)
        link = f' data-t="{trial}"' if trial is not None else ""
        self._parts.append(f'<path class="line {kind}" d="M{path}"{link}/>')

    def steps(self, points: Sequence[tuple[float, float]], kind: str) -> None:
        """Draws a line that goes to the right before it goes up or down."""
        corners = [points[0]]
        for point in points[1:]:
            corners += [(point[0], corners[-1][1]), point]
        self.line(corners, kind)

    def rule(self, y: float, kind: str) -> None:
        """Draws a line at a height, through the whole chart."""
        self._parts.append(
            f'<line class="line {kind}" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{self._up(y)}" y2="{self._up(y)}"/>'
        )

    def border(self, x: float, label: str, kind: str) -> None:
        """Draws an upright line with a label."""
        place = self._across(x)
        left = float(place) > _WIDTH / 2
        side, shift = ("end", -6) if left else ("start", 6)
        self._parts.append(
            f'<line class="line {kind}" x1="{place}" x2="{place}" y1="{_TOP}" y2="{self._height - _BOTTOM}"/>'
            f'<text class="{side}" x="{float(place) + shift:.1f}" y="{_TOP + 12}">{html.escape(label)}</text>'
        )

    def band(self, low: float, high: float, kind: str) -> None:
        """Draws a band between two heights."""
        top, bottom = float(self._up(high)), float(self._up(low))
        self._parts.append(
            f'<rect class="{kind}" x="{_LEFT}" width="{_WIDTH - _LEFT - _RIGHT}" y="{top:.1f}" '
            f'height="{bottom - top:.1f}"/>'
        )

    def spread(self, x: float, low: float, high: float, kind: str) -> None:
        """Draws an upright line between two heights."""
        place = self._across(x)
        self._parts.append(
            f'<line class="line {kind}" x1="{place}" x2="{place}" y1="{self._up(low)}" y2="{self._up(high)}"/>'
        )

    def columns(self, columns: Iterable[tuple[float, float, float, float]], kind: str) -> None:
        """Draws columns: left and right end, lower and upper end."""
        for left, right, low, high in columns:
            x, y = self._at(left, high)
            width, height = float(self._across(right)) - float(x), float(self._up(low)) - float(y)
            if height > 0.05:
                self._parts.append(
                    f'<rect class="{kind}" x="{x}" y="{y}" width="{max(0.5, width - 0.5):.1f}" height="{height:.1f}"/>'
                )

    def svg(self, name: str) -> str:
        """Returns the chart as SVG. `name` says what it is to those who do not see it."""
        bottom, right = self._height - _BOTTOM, _WIDTH - _RIGHT
        axes = []
        for value, label in self._y.labels():
            y = self._up(value)
            axes.append(
                f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{y}" y2="{y}"/>'
                f'<text class="tick end" x="{_LEFT - 8}" y="{y}" dy=".35em">{html.escape(label)}</text>'
            )
        for value, label in self._x.labels():
            x = self._across(value)
            axes.append(
                f'<line class="stub" x1="{x}" x2="{x}" y1="{bottom}" y2="{bottom + 5}"/>'
                f'<text class="tick middle" x="{x}" y="{bottom + 22}">{html.escape(label)}</text>'
            )
        axes.append(f'<line class="axis" x1="{_LEFT}" x2="{right}" y1="{bottom}" y2="{bottom}"/>')
        middle = (_LEFT + right) / 2
        axes.append(f'<text class="middle" x="{middle}" y="{self._height - 8}">{html.escape(self._x.title)}</text>')
        return _wrap(self._height, name, "".join(axes) + "".join(self._parts), "chart")


def bars(rows: Sequence[tuple[str, float, str]], name: str, kind: str = "s0", marks: Sequence[float] = ()) -> str:
    """Draws a bar for each row, as SVG.

    Args:
        rows: label, length from 0 to 1, and the text behind the bar.
        name: str, what it is.
        kind: str, the class of the bars.
        marks: a number for each row, where the bar has a mark.
    """
    height, left, right = 34, 190, 110
    parts = []
    for number, (label, length, text) in enumerate(rows):
        y, width = number * height + 6, max(0.0, min(1.0, length)) * (_WIDTH - left - right)
        short = label if len(label) <= 24 else f"...{label[-21:]}"
        parts.append(
            f'<text class="end" x="{left - 10}" y="{y + 11}" dy=".35em">{html.escape(short)}</text>'
            f'<rect class="track" x="{left}" y="{y}" width="{_WIDTH - left - right}" height="22"/>'
            f'<rect class="{kind}" x="{left}" y="{y}" width="{width:.1f}" height="22"/>'
            f'<text class="tick" x="{_WIDTH - right + 10}" y="{y + 11}" dy=".35em">{html.escape(text)}</text>'
        )
        if marks:
            x = left + max(0.0, min(1.0, marks[number])) * (_WIDTH - left - right)
            parts.append(f'<line class="line mark" x1="{x:.1f}" x2="{x:.1f}" y1="{y - 3}" y2="{y + 25}"/>')
    return _wrap(len(rows) * height + 10, name, "".join(parts), "bars")


def _wrap(height: int, name: str, parts: str, kind: str) -> str:
    label = html.escape(name, quote=True)
    return f'<svg class="{kind}" viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{label}">{parts}</svg>'
