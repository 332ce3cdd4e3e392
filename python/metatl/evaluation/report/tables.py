"""An evaluation as tables: for a terminal, as Markdown and as LaTeX."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from metatl.evaluation.report import pages
from metatl.evaluation.report.latex import NEEDS, escape, number
from metatl.evaluation.report.latex import table as latex_table
from metatl.evaluation.report.pages import Heading, Points, Table
from metatl.evaluation.report.results import EstimateReport, Figures, MetricsReport, Results, SourceResults

if TYPE_CHECKING:
    from rich.console import RenderableType

    from metatl.evaluation.report.pages import PagePart

_ESTIMATORS = {"unbiased_rank": "corrected, unbiased rank", "bias_variance": "corrected, bias-variance"}


class TitledTable(NamedTuple):
    """A table with its title."""

    title: str
    table: Table


def tables(figures: Figures) -> list[TitledTable]:
    """Make the tables of an evaluation: the metrics, then the slices.

    Parameters
    ----------
    figures : Figures
        An evaluation.
    """
    tables = [_metrics_table(figures)]
    for by in dict.fromkeys(part.by for part in figures.slices):
        parts = [part for part in figures.slices if part.by == by]
        for name in ("sampled", "full"):
            metrics = [getattr(part.metrics, name) for part in parts]
            if all(metrics):
                # These three columns do not fit into a terminal; the JSON has them.
                names = [metric for metric in metrics[0] if metric not in ("AUC", "mean rank", "median rank")]
                header = (by, "users", *names)
                rows = tuple(
                    (part.value, f"{part.users:,}", *(f"{values[metric].value:.4f}" for metric in names))
                    for part, values in zip(parts, metrics, strict=True)
                )
                tables.append(TitledTable(f"By {by}: {_ranking(figures, name)}", Table(header, rows)))
    return tables


def remarks(figures: Figures) -> list[str]:
    """List what the tables do not hold, as sentences: ties, lists, users, settings, notes, times."""
    notes = []
    for name, ties in figures.ties.items():
        first = next(iter(ties.metrics["worst"]))
        three = ", ".join(f"{rule} {values[first]:.4f}" for rule, values in ties.metrics.items())
        notes.append(
            f"Ties, {_ranking(figures, name)}: {ties.share:.2%} of targets; {first} by each rule: {three}."
        )
    if figures.lists is not None:
        lists = figures.lists
        bias = (
            ""
            if lists.popularity_bias is None
            else (f"; items are {lists.popularity_bias:.2f} times as popular as those that the users chose")
        )
        notes.append(f"Top {lists.n}: {lists.coverage:.1%} of the catalogue{bias}.")
    if figures.users is not None:
        left_out = ", ".join(
            f"{count:,} {reason}" for reason, count in figures.users.left_out.items() if count
        )
        notes.append(
            f"Users: {figures.users.evaluated:,} evaluated"
            + (f"; left out: {left_out}." if left_out else ".")
        )
    if isinstance(figures, Results):
        protocol = figures.protocol
        notes.append(f"K = {protocol.k}, T = {protocol.cutoff:%Y-%m-%d}, ties {protocol.ties}.")
    if figures.candidates is not None:
        notes.append(f"Candidates: seed {figures.candidates.seed}, SHA-256 {figures.candidates.sha256}.")
    notes += figures.notes
    notes.append(" · ".join(f"{stage} {seconds:.2f} s" for stage, seconds in figures.timings.items()))
    return notes


def terminal(figures: Figures) -> RenderableType:
    """Format an evaluation for a terminal of 80 columns; an interval may wrap below its value."""
    from rich import box
    from rich.console import Group
    from rich.table import Table as RichTable
    from rich.text import Text

    parts: list[RenderableType] = []
    for title, table in tables(figures):
        rich = RichTable(title=Text(title), box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
        for column, name in enumerate(table.header):
            rich.add_column(Text(name), justify="right" if column else "left")
        for row in table.rows:
            rich.add_row(*(Text(narrow(cell).replace(" [", "\n[")) for cell in row))
        parts.append(rich)
    return Group(*parts, *(Text(remark) for remark in remarks(figures)))


def narrow(cell: str) -> str:
    """Drop the zero before the point of numbers between 0 and 1, to save columns of the terminal."""
    return re.sub(r"(?<![\d.])0\.", ".", cell)


def markdown(figures: Figures) -> str:
    """Write an evaluation as Markdown."""
    parts: list[PagePart] = []
    for title, table in tables(figures):
        parts += [Heading(title), table]
    return pages.markdown([*parts, Points(tuple(remarks(figures)))])


def latex(figures: Figures) -> str:
    """Write the tables of an evaluation as LaTeX, for the package booktabs."""
    parts = [NEEDS]
    for title, table in tables(figures):
        columns = "l" + "r" * (len(table.header) - 1)
        rows = [(escape(name), *map(_latex_cell, cells)) for name, *cells in table.rows]
        parts.append(latex_table(escape(title), columns, [*map(escape, table.header)], [rows]))
    return "\n".join(parts)


def with_interval(name: str, report: EstimateReport) -> str:
    """Format the value of a metric with its interval; ranks have one decimal."""
    digits = 1 if name.endswith("rank") else 4
    return f"{report.value:.{digits}f} [{report.low:.{digits}f}, {report.high:.{digits}f}]"


def system_name(figures: Figures) -> str:
    """Give the name of the system that was evaluated."""
    if isinstance(figures, Results):
        model = figures.model
        rounded = "" if model.item_table == "float32" else f", {model.item_table} item table"
        return f"{model.name} ({model.preset}{rounded})"
    return figures.source.name if isinstance(figures, SourceResults) else "evaluation"


def _metrics_table(figures: Figures) -> TitledTable:
    columns = _columns(figures, figures.metrics)
    names = dict.fromkeys(name for column in columns.values() for name in column)
    rows = tuple(
        (name, *(with_interval(name, column[name]) if name in column else "" for column in columns.values()))
        for name in names
    )
    users = "" if figures.users is None else f", {figures.users.evaluated:,} users"
    title = f"{system_name(figures)}{users} [95 % intervals]"
    return TitledTable(title, Table(("metric", *columns), rows))


def _columns(figures: Figures, metrics: MetricsReport) -> dict[str, dict[str, EstimateReport]]:
    columns = {}
    if metrics.sampled is not None:
        columns[_ranking(figures, "sampled")] = metrics.sampled
    for estimator, values in (metrics.corrected or {}).items():
        columns[_ESTIMATORS.get(estimator, estimator)] = values
    if metrics.full is not None:
        columns["all items"] = metrics.full
    return columns


def _ranking(figures: Figures, name: str) -> str:
    if name == "full":
        return "all items"
    if figures.candidates is None:
        return "candidates"
    return f"{figures.candidates.n} {figures.candidates.kind} negatives"


def _latex_cell(cell: str) -> str:
    """Format a value and its interval in math mode, which prints a minus sign."""
    value, bracket, interval = cell.partition(" [")
    return number(value) + (f" ${bracket[1:]}{interval}$" if bracket else "")
