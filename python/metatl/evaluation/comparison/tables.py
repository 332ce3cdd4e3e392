"""A comparison as tables: for a terminal, in Markdown and in LaTeX."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from metatl.evaluation.comparison.paired_users import extreme_users
from metatl.evaluation.report.latex import NEEDS, escape, number
from metatl.evaluation.report.latex import table as latex_table
from metatl.evaluation.report.pages import Heading, Table, Text, markdown

if TYPE_CHECKING:
    import polars as pl
    from rich.console import RenderableType

    from metatl.evaluation.comparison.paired_comparison import (
        ComparisonReport,
        DifferenceReport,
        PValuesReport,
    )
    from metatl.evaluation.report.pages import PagePart

_SMALLEST_P = 0.0001
_TITLES = {
    "sampled": "among sampled candidates",
    "full": "among all items",
    "corrected": "among sampled candidates, corrected",
}
_TESTS = ("t", "Wilcoxon", "flips")


def comparison_table(report: ComparisonReport) -> RenderableType:
    """Format a comparison for a terminal: a table for each system and ranking.

    Parameters
    ----------
    report : ComparisonReport
        The comparison.
    """
    from rich import box
    from rich.console import Group
    from rich.table import Table as RichTable
    from rich.text import Text as RichText

    tables: list[RenderableType] = []
    for system in report.systems:
        for ranking in report.rankings:
            mine = _select(report, system, ranking)
            title = RichText(_title(report, system, ranking, mine[0].users))
            table = RichTable(title=title, box=box.SIMPLE_HEAD, pad_edge=False, padding=0)
            for header in ("", "base", "mean", "gain", "95 % interval", "t", "ranks", "flips", "d", "+/=/−"):
                table.add_column(header, justify="right" if header else "left", no_wrap=True)
            for difference in mine:
                table.add_row(*(RichText(_narrow(cell)) for cell in _cells(difference)))
            tables.append(table)
    return Group(*tables, RichText(_legend(report)))


def extremes_table(differences: pl.DataFrame, metric: str, *, count: int) -> RenderableType:
    """Format the users who gain and lose most, for a terminal.

    Parameters
    ----------
    differences : polars.DataFrame
        The result of :func:`metatl.evaluation.comparison.paired_users.user_differences`.
    metric : str
        The metric to sort by.
    count : int
        Users of each kind, for each system and ranking.
    """
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text as RichText

    table = RichTable(
        title=RichText(f"users who gain and lose most by {metric}"), box=box.SIMPLE_HEAD, pad_edge=False
    )
    for header in ("system", "ranking", "user", metric):
        table.add_column(RichText(header), justify="right" if header == metric else "left")
    for part in extreme_users(differences, metric, count=count):
        for system, ranking, user, change in part.select("system", "ranking", "user_id", metric).iter_rows():
            table.add_row(*map(RichText, (system, ranking, str(user), f"{change:+.4f}")))
        table.add_section()
    return table


def comparison_markdown(report: ComparisonReport) -> str:
    """Write a comparison as Markdown: a table for each ranking.

    Parameters
    ----------
    report : ComparisonReport
        The comparison.
    """
    parts: list[PagePart] = [Heading(f"Compared with {report.baseline}", level=1)]
    headers = (
        "system",
        "metric",
        "baseline",
        "mean",
        "difference",
        "95 % interval",
        *_TESTS,
        "d",
        "+ / = / −",
    )
    for ranking in report.rankings:
        mine = [difference for difference in report.differences if difference.ranking == ranking]
        rows = tuple((difference.system, *_cells(difference)) for difference in mine)
        parts += [Heading(f"{_TITLES[ranking].capitalize()}, {mine[0].users:,} users"), Table(headers, rows)]
    return markdown([*parts, Text(_legend(report))])


def comparison_latex(report: ComparisonReport) -> str:
    """Write a comparison as LaTeX tables for the package booktabs, one for each ranking.

    Parameters
    ----------
    report : ComparisonReport
        The comparison.
    """
    return "\n".join([NEEDS, *(_latex_table(report, ranking) for ranking in report.rankings)])


def _latex_table(report: ComparisonReport, ranking: str) -> str:
    header = ("", "baseline", "mean", "difference", r"95\,\% interval", *_TESTS, "$d$", "$+/=/-$")
    blocks = []
    for system in report.systems:
        name = (rf"\multicolumn{{{len(header)}}}{{@{{}}l@{{}}}}{{{escape(system)}}}",)
        mine = _select(report, system, ranking)
        blocks.append(
            [name, *([number(_narrow(cell)) for cell in _cells(difference)] for difference in mine)]
        )
    users = next(difference.users for difference in report.differences if difference.ranking == ranking)
    caption = f"Compared with {report.baseline} {_TITLES[ranking]}, {users:,} users. {_legend(report)}"
    return latex_table(escape(caption), "l" + "r" * (len(header) - 1), header, blocks)


def _select(report: ComparisonReport, system: str, ranking: str) -> list[DifferenceReport]:
    return [
        difference
        for difference in report.differences
        if (difference.system, difference.ranking) == (system, ranking)
    ]


def _title(report: ComparisonReport, system: str, ranking: str, users: int) -> str:
    return f"{system} against {report.baseline} {_TITLES[ranking]}, {users:,} users"


def _legend(report: ComparisonReport) -> str:
    tests = f"{report.tests} tests" if report.tests > 1 else "1 test"
    return (
        f"p-values of the paired t test, Wilcoxon's signed ranks and {report.resamples:,} random sign flips, "
        f"with Holm's correction for {tests} of each kind. d: mean over standard deviation of the "
        "differences. + / = / −: percentages of users who win, tie and lose."
    )


def _cells(difference: DifferenceReport) -> tuple[str, ...]:
    return (
        difference.metric,
        f"{difference.baseline_mean:.4f}",
        f"{difference.mean:.4f}",
        f"{difference.difference:+.4f}",
        f"[{difference.low:+.4f}, {difference.high:+.4f}]",
        _p(difference.t),
        _p(difference.wilcoxon),
        _p(difference.randomisation),
        "–" if difference.effect_size is None else f"{difference.effect_size:+.2f}",
        f"{100 * difference.wins:.0f} / {100 * difference.ties:.0f} / {100 * difference.losses:.0f}",
    )


def _narrow(cell: str) -> str:
    """Shorten a cell, so that a row fits into 80 columns."""
    return re.sub(r"(?<!\d)0\.", ".", cell).replace(" / ", "/")


def _p(test: PValuesReport) -> str:
    return f"<{_SMALLEST_P}" if test.holm < _SMALLEST_P else f"{test.holm:.4f}"
