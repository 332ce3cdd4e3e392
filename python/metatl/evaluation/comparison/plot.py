"""The plot of a comparison: differences from the baseline, and the shares of users who win and lose."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from metatl.common.files import replace_file
from metatl.evaluation.report.plots import DotPanel, Point, Series, aside, draw_dot_panel, png, set_names, svg
from metatl.exceptions import ConfigError

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from matplotlib.axes import Axes

    from metatl.evaluation.comparison.paired_comparison import ComparisonReport, DifferenceReport

_WRITERS = {".png": png, ".svg": svg}
# They differ from the colours of the dots, and the colour-blind can tell them apart.
_COLOURS = {"wins": "#35978f", "ties": "#dddddd", "losses": "#a6611a"}


def check_plot_file(path: str | os.PathLike[str]) -> None:
    """Check that the file of a plot has a supported ending.

    Raises
    ------
    ConfigError
        If the name ends in neither ``.png`` nor ``.svg``.
    """
    if Path(path).suffix.lower() not in _WRITERS:
        raise ConfigError(f"plot: found {path}, expected a name that ends in {' or '.join(_WRITERS)}")


def write_plot(path: str | os.PathLike[str], report: ComparisonReport) -> None:
    """Draw a comparison and write it as PNG or SVG, by the ending of the name.

    Parameters
    ----------
    path : str or path-like
        File to write; replaced if it exists.
    report : ComparisonReport
        The comparison.

    Raises
    ------
    ConfigError
        If the name has another ending.
    OSError
        If the file cannot be written; the old file is kept then.
    """
    check_plot_file(path)
    content = _WRITERS[Path(path).suffix.lower()](draw_comparison(report))
    with replace_file(path) as temporary:
        temporary.write_bytes(content)


def draw_comparison(report: ComparisonReport) -> Figure:
    """Draw each ranking's mean differences with their intervals, beside the shares of users.

    Parameters
    ----------
    report : ComparisonReport
        The comparison.

    Returns
    -------
    matplotlib.figure.Figure
        One row of two panels per ranking; in each panel the rows are metrics and the series are systems.
    """
    height = 1.2 + len(report.metrics) * max(0.35, 0.22 * len(report.systems))
    figure = Figure(figsize=(11, height * len(report.rankings)), layout="constrained")
    grid = figure.subplots(len(report.rankings), 2, squeeze=False, width_ratios=(3, 2))
    for (left, right), ranking in zip(grid, report.rankings, strict=True):
        mine = [
            [row for row in report.differences if (row.ranking, row.system) == (ranking, system)]
            for system in report.systems
        ]
        series = tuple(
            Series(
                system,
                tuple(Point(index, row.difference, row.low, row.high) for index, row in enumerate(rows)),
            )
            for system, rows in zip(report.systems, mine, strict=True)
        )
        title = f"{ranking} ranking, {mine[0][0].users:,} users"
        panel = DotPanel(title, report.metrics, series, f"difference from {report.baseline}")
        draw_dot_panel(left, panel, legend=False)
        left.axvline(0, color="black", linewidth=0.8)
        _draw_shares(right, report, mine)
    # Below the panels, where the legends cover nothing.
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside lower left", ncols=4)
    figure.legend(*grid[0, 1].get_legend_handles_labels(), loc="outside lower right", ncols=len(_COLOURS))
    return figure


def _draw_shares(axes: Axes, report: ComparisonReport, systems: Sequence[Sequence[DifferenceReport]]) -> None:
    """Draw a bar for each metric and system, at the height of its dot in the panel beside it."""
    thickness = 0.4 if len(systems) == 1 else 0.9 * (aside(1, len(systems)) - aside(0, len(systems)))
    for number, rows in enumerate(systems):
        heights = [index + aside(number, len(systems)) for index in range(len(rows))]
        start = [0.0] * len(rows)
        for kind, colour in _COLOURS.items():
            shares = [100 * getattr(row, kind) for row in rows]
            label = kind if number == 0 else None
            axes.barh(heights, shares, thickness, left=start, color=colour, label=label)
            start = [at + share for at, share in zip(start, shares, strict=True)]
    set_names(axes, report.metrics)
    axes.set_xlim(0, 100)
    axes.set_xlabel("% of users")
    axes.set_title(f"users who win or lose beside {report.baseline}")
