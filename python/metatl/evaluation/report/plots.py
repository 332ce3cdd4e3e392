"""The plots of the reports, drawn without a display and without pyplot's global state."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

_DPI = 120
# Without a date and random ids, the same figures give the same file.
_SVG_METADATA: dict[str, Any] = {"Date": None}
_SVG_SALT = "metatl"


@dataclass(frozen=True)
class Point:
    """A value with the ends of its interval; `x` is K on a line, and the index of a name among dots."""

    x: float
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Series:
    """Points under one name."""

    name: str
    points: tuple[Point, ...]


@dataclass(frozen=True)
class DotPanel:
    """Names from top to bottom, with a dot and an interval for each series.

    Attributes
    ----------
    title : str
        Title of the panel.
    names : tuple of str
        Names of the rows; the `x` of a point is an index of them.
    series : tuple of Series
        The dots.
    label : str
        Label of the axis of values.
    """

    title: str
    names: tuple[str, ...]
    series: tuple[Series, ...]
    label: str


@dataclass(frozen=True)
class LinePanel:
    """Lines over K."""

    title: str
    series: tuple[Series, ...]
    label: str


def draw_dots(panels: Sequence[DotPanel]) -> Figure:
    """Draw panels of dots with intervals, one below the other."""
    heights = [1.0 + 0.3 * len(panel.names) for panel in panels]
    figure = Figure(figsize=(9, sum(heights)), layout="constrained")
    grid = figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights)
    for axes, panel in zip(grid[:, 0], panels, strict=True):
        draw_dot_panel(axes, panel, legend=len(panel.series) > 1)
    return figure


def draw_dot_panel(axes: Axes, panel: DotPanel, *, legend: bool) -> None:
    """Draw a panel of dots with intervals on axes."""
    for number, series in enumerate(panel.series):
        heights = [point.x + aside(number, len(panel.series)) for point in series.points]
        values = [point.value for point in series.points]
        errors = _errors(series.points)
        axes.errorbar(values, heights, xerr=errors, fmt="os^"[number % 3], ms=4, label=_plain(series.name))
    set_names(axes, panel.names)
    _finish(axes, panel.title, legend=legend)
    axes.set_xlabel(panel.label)


def aside(number: int, count: int) -> float:
    """Give the offset of one of `count` series below the middle of its row; a row has height 1."""
    return min(0.2, 0.8 / count) * (number - (count - 1) / 2)


def set_names(axes: Axes, names: Sequence[str]) -> None:
    """Write names beside the rows of axes, from top to bottom."""
    axes.set_yticks(range(len(names)), [_plain(name) for name in names])
    axes.set_ylim(len(names) - 0.5, -0.5)


def draw_lines(panels: Sequence[LinePanel]) -> Figure:
    """Draw panels of lines over K, side by side."""
    figure = Figure(figsize=(5 * len(panels), 4), layout="constrained")
    grid = figure.subplots(1, len(panels), squeeze=False)
    for axes, panel in zip(grid[0], panels, strict=True):
        for number, series in enumerate(panel.series):
            # The lines are shifted a little, so that no interval hides another.
            shift = 0.04 * (number - (len(panel.series) - 1) / 2)
            ks = [point.x + shift for point in series.points]
            values = [point.value for point in series.points]
            errors = _errors(series.points)
            axes.errorbar(
                ks, values, yerr=errors, marker="os^D"[number % 4], ms=5, capsize=3, label=_plain(series.name)
            )
        axes.set_xticks(sorted({point.x for series in panel.series for point in series.points}))
        _finish(axes, panel.title, legend=bool(panel.series))
        axes.set_xlabel("K")
        axes.set_ylabel(panel.label)
    return figure


def png(figure: Figure) -> bytes:
    """Write a figure as PNG."""
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=_DPI)
    return content.getvalue()


def svg(figure: Figure) -> bytes:
    """Write a figure as SVG."""
    content = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": _SVG_SALT}):
        figure.savefig(content, format="svg", metadata=_SVG_METADATA)
    return content.getvalue()


def _errors(points: Sequence[Point]) -> list[list[float]]:
    # A bootstrap interval may not contain the mean.
    below = [max(0.0, point.value - point.low) for point in points]
    above = [max(0.0, point.high - point.value) for point in points]
    return [below, above]


def _plain(name: str) -> str:
    return name.replace("`", "")


def _finish(axes: Any, title: str, *, legend: bool) -> None:
    axes.set_title(title)
    axes.grid(visible=True, alpha=0.3)
    if legend:
        axes.legend()
