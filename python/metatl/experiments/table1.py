"""Table 1: the statistics of data sets, beside those of the paper."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from metatl import datasets
from metatl.data.dataset_statistics import statistics
from metatl.evaluation.report.pages import Heading, Image, Points, Table, Text
from metatl.evaluation.report.plots import DotPanel, Point, Series, draw_dots, png
from metatl.experiments.paper import SOURCE, TABLE_1
from metatl.experiments.report_files import Report

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from metatl.data.dataset_statistics import Statistics
    from metatl.evaluation.report.pages import PagePart
    from metatl.experiments.data_sources import DataSource
    from metatl.experiments.paper import PublishedStatistics

_EQUAL = 0.005
"""Lengths are printed with two decimals."""


def table1(sources: Sequence[DataSource]) -> Report:
    """Describe data sets, each of the paper's at its own T.

    Raises
    ------
    DataError
        If data cannot be read.
    """
    statistics_of = {
        source: statistics(datasets.load(source.data), cutoff=source.cutoff) for source in sources
    }
    parts: list[PagePart] = [
        Heading("Table 1: data sets", 1),
        Text(
            "After items with fewer than 10 interactions are dropped. The paper's data are split at the "
            f"paper's T, others at the 0.75 quantile of the users' first interactions. Paper: {SOURCE}."
        ),
        _table(statistics_of),
        Heading("What differs"),
        Points(tuple(text for source, ours in statistics_of.items() for text in differences(source, ours))),
    ]
    picture = png(draw_dots(_panels(statistics_of)))
    parts.append(Image("table1.png", picture, "Users, items and mean length, ours and the paper's"))
    data = {
        "ours": {source.name: _plain(ours) for source, ours in statistics_of.items()},
        "paper": {column: {**asdict(row), "cutoff": str(row.cutoff)} for column, row in TABLE_1.items()},
        "differences": {source.name: differences(source, ours) for source, ours in statistics_of.items()},
    }
    return Report("table1", parts, data, {"table1.png": picture})


def differences(source: DataSource, ours: Statistics) -> list[str]:
    """List where a data set differs from the description in the paper."""
    if source.column is None:
        return [f"{source.name}: the paper does not have it."]
    paper = TABLE_1[source.column]
    name = f"{source.name} ({paper.column})"
    texts = [
        f"{name}: {ours:,} {what}, the paper has {expected:,} ({ours / expected - 1:+.1%})."
        for what, ours, expected in (
            ("users", ours.num_users, paper.users),
            ("items", ours.num_items, paper.items),
        )
        if ours != expected
    ]
    if abs(ours.mean_length - paper.mean_length) > _EQUAL:
        texts.append(
            f"{name}: users have {ours.mean_length:.2f} interactions, in the paper {paper.mean_length:.2f}."
        )
    if not ours.first.date() < paper.cutoff <= ours.last.date():
        texts.append(
            f"{name}: the interactions span {ours.first:%Y-%m-%d} to {ours.last:%Y-%m-%d}; at the paper's "
            f"T, {paper.cutoff}, there are not both old and new users."
        )
    return texts or [f"{name}: users, items and mean length are those of the paper."]


def _table(statistics_of: Mapping[DataSource, Statistics]) -> Table:
    header = (
        "data set", "users", "items", "interactions", "mean length", "T",
        "train users", "new users, K = 2", "K = 3", "K = 4", "time ties",
    )  # fmt: skip
    rows: list[tuple[str, ...]] = []
    for source, ours in statistics_of.items():
        rows.append(
            (
                source.name,
                f"{ours.num_users:,}",
                f"{ours.num_items:,}",
                f"{ours.num_interactions:,}",
                f"{ours.mean_length:.2f}",
                f"{ours.cutoff:%Y-%m-%d}",
                f"{ours.num_train_users:,}",
                *(f"{number:,}" for number in ours.num_cold_users.values()),
                f"{ours.tie_share:.1%}",
            )
        )
        if source.column is not None:
            rows.append(_paper_row(TABLE_1[source.column], len(header)))
    # All data sets of the paper, including those that were not given.
    shown = {source.column for source in statistics_of}
    rows += [_paper_row(row, len(header)) for column, row in TABLE_1.items() if column not in shown]
    return Table(header, tuple(rows))


def _paper_row(row: PublishedStatistics, width: int) -> tuple[str, ...]:
    cells = (
        f"{row.column}, paper",
        f"{row.users:,}",
        f"{row.items:,}",
        "",
        f"{row.mean_length:.2f}",
        str(row.cutoff),
    )
    return (*cells, *[""] * (width - len(cells)))


def _panels(statistics_of: Mapping[DataSource, Statistics]) -> list[DotPanel]:
    names = tuple(source.name for source in statistics_of)
    pairs = [
        (ours, None if source.column is None else TABLE_1[source.column])
        for source, ours in statistics_of.items()
    ]
    figures = (
        ("users", [(ours.num_users, None if paper is None else paper.users) for ours, paper in pairs]),
        ("items", [(ours.num_items, None if paper is None else paper.items) for ours, paper in pairs]),
        (
            "mean length",
            [(ours.mean_length, None if paper is None else paper.mean_length) for ours, paper in pairs],
        ),
    )
    return [
        DotPanel(
            title=title,
            names=names,
            series=(
                Series("ours", tuple(_dot(index, value) for index, (value, _) in enumerate(values))),
                Series(
                    "paper",
                    tuple(_dot(index, value) for index, (_, value) in enumerate(values) if value is not None),
                ),
            ),
            label=title,
        )
        for title, values in figures
    ]


def _dot(index: int, value: float) -> Point:
    return Point(index, value, value, value)


def _plain(ours: Statistics) -> dict[str, object]:
    return {
        **asdict(ours),
        "cutoff": ours.cutoff.isoformat(),
        "first": ours.first.isoformat(),
        "last": ours.last.isoformat(),
    }
