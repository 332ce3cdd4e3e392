"""Table 2: every system under one protocol, beside what the paper reports."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from metatl.evaluation.report.pages import Heading, Image, Points, Table, Text
from metatl.evaluation.report.plots import DotPanel, Point, Series, draw_dots, png
from metatl.experiments.comparison import standings
from metatl.experiments.paper import SOURCE, TABLE_1, TABLE_2, TABLE_2_K
from metatl.experiments.report_files import (
    SIGNIFICANT,
    Report,
    interval_note,
    marked,
    p_value,
    with_interval,
)
from metatl.metrics.names import RANKINGS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from metatl.evaluation.report.pages import PagePart
    from metatl.experiments.comparison import Standings
    from metatl.experiments.data_sources import DataSource
    from metatl.experiments.outcome import Outcome
    from metatl.experiments.paper import PublishedScore
    from metatl.experiments.table_rows import Budget, Row
    from metatl.metrics.names import RankingName

METRICS = ("HR@1", "MRR")
_DESCRIPTION = "MRR of every system with its interval, among 100 negatives and in the full catalogue"


def table2(
    outcome: Outcome,
    sources: Sequence[DataSource],
    rows: Sequence[Row],
    *,
    ks: Sequence[int],
    seeds: int,
    budget: Budget,
) -> Report:
    """Write the report of Table 2 from a grid's figures.

    Parameters
    ----------
    outcome : Outcome
        The results of the grid.
    sources, rows, ks, seeds, budget
        The arguments of the grid.
    """
    of_sources = [
        (source, standing)
        for source in sources
        for k in ks
        if (standing := standings(outcome, source.name, k)) is not None
    ]
    published = {row.title: row.published for row in rows}
    panels = [panel for source, standing in of_sources for panel in _panels(source, standing, published)]
    # Without a finished cell there is nothing to draw.
    pictures = {"table2.png": png(draw_dots(panels))} if of_sources else {}
    parts: list[PagePart] = [
        Heading("Table 2: all systems under one protocol", 1),
        Text(
            f"Preset budget `{budget}`. {interval_note(seeds)} Among 100 negatives, and ranked in the full "
            "catalogue (full). Best **bold**, second best †. Differences are paired over test users, against "
            "the system with the best MRR; p-values are corrected by Holm's method for the number of systems."
        ),
        Points((*(text for _, standing in of_sources for text in leaders(standing)), *_absent(rows))),
    ]
    if budget == "smoke":
        parts.append(Text("**Trained for a few steps only: this proves that everything runs, no more.**"))
    if outcome.failures:
        parts.append(Text("Cells that failed and are missing here:"))
        parts.append(Points(tuple(outcome.failures)))
    for source, standing in of_sources:
        parts += _section(source, standing, published, seeds)
    parts += [Image(name, content, _DESCRIPTION) for name, content in pictures.items()]
    parts += [Heading("What the paper reports"), Text(f"{SOURCE}, Table 2, K = {TABLE_2_K}."), paper_table()]
    data = {
        "budget": budget,
        "seeds": seeds,
        "standings": [{"paper_column": source.column, **asdict(standing)} for source, standing in of_sources],
        "paper": {
            system: {column: asdict(score) for column, score in scores.items()}
            for system, scores in TABLE_2.items()
        },
        "failures": outcome.failures,
    }
    return Report("table2", parts, data, pictures)


def leaders(standing: Standings) -> list[str]:
    """Name the best system of each ranking, and say whether the second differs from it."""
    where = {"sampled": "among 100 negatives", "full": "in the full catalogue"}
    return [
        f"{standing.dataset}, K = {standing.k}, {where[ranking]}: {lead(standing, ranking)}."
        for ranking in RANKINGS
    ]


def lead(standing: Standings, ranking: RankingName) -> str:
    """Name the system with the best MRR, and its lead over the second."""
    best, after = standing.best[ranking], standing.next_best(ranking)
    text = f"{best} has the best MRR"
    if after is None or after not in standing.against_best[ranking]:
        return text
    test = standing.against_best[ranking][after]
    ahead = f"{-test.comparison.difference:+.4f} to {after}, the next"
    ps = f"p = {p_value(test.t_p)} (t), {p_value(test.wilcoxon_p)} (Wilcoxon)".replace("= <", "<")
    if max(test.t_p, test.wilcoxon_p) < SIGNIFICANT:
        return f"{text}, {ahead}, {ps}"
    return f"{text}, but not significantly ({ahead}, {ps})"


def paper_table() -> Table:
    """Lay out the paper's Table 2."""
    header = ("system", *(f"{column} {metric}" for column in TABLE_1 for metric in METRICS))
    columns = [
        marked([f"{value:.3f}" for value in values], values)
        for column in TABLE_1
        for values in (
            [scores[column].hit_rate for scores in TABLE_2.values()],
            [scores[column].mrr for scores in TABLE_2.values()],
        )
    ]
    return Table(header, tuple(zip(TABLE_2, *columns, strict=True)))


def _section(
    source: DataSource, standing: Standings, published: dict[str, str | None], seeds: int
) -> list[PagePart]:
    parts: list[PagePart] = [
        Heading(f"{source.name}, K = {standing.k}"),
        Text(f"{standing.test_users:,} test users."),
    ]
    titles = tuple(_title(standing, row, seeds) for row in standing.scores)
    header, columns = ["system"], []
    for ranking in RANKINGS:
        for metric in METRICS:
            header.append(metric if ranking == "sampled" else f"{metric}, full")
            scores = [of[ranking][metric] for of in standing.scores.values()]
            columns.append(
                marked([with_interval(score) for score in scores], [score.mean for score in scores])
            )
    if source.column is not None and standing.k == TABLE_2_K:
        header += ["HR@1, paper", "MRR, paper", "MRR − paper"]
        columns += _beside_paper(source.column, standing, published)
    parts.append(Table(tuple(header), tuple(zip(titles, *columns, strict=True))))
    parts.append(Text("MRR minus the best's, over the same test users:"))
    parts.append(_tests(standing))
    if standing.orders is not None:
        orders = f"Kendall τ = {standing.orders.kendall:.2f}, Spearman ρ = {standing.orders.spearman:.2f}"
        parts.append(Text(f"The order of the systems by sampled MRR against that by full MRR: {orders}."))
    return parts


def _title(standing: Standings, row: str, seeds: int) -> str:
    finished = standing.scores[row]["sampled"]["MRR"].seeds
    return row if finished == seeds else f"{row} ({finished} of {seeds} seeds)"


def _beside_paper(column: str, standing: Standings, published: dict[str, str | None]) -> list[list[str]]:
    columns: list[list[str]] = [[], [], []]
    for row in standing.scores:
        score = _published(published.get(row), column)
        if score is None:
            cells = ["", "", ""]
        else:
            cells = [f"{score.hit_rate:.3f}", f"{score.mrr:.3f}", f"{standing.mean(row) - score.mrr:+.3f}"]
        for cell, into in zip(cells, columns, strict=True):
            into.append(cell)
    return columns


def _published(system: str | None, column: str) -> PublishedScore | None:
    return None if system is None else TABLE_2.get(system, {}).get(column)


def _tests(standing: Standings) -> Table:
    header = ["system"]
    for ranking in RANKINGS:
        end = "" if ranking == "sampled" else ", full"
        header += [f"difference{end}", f"95 % interval{end}", f"p (t){end}", f"p (Wilcoxon){end}"]
    rows = []
    for row in standing.scores:
        cells = [row]
        for ranking in RANKINGS:
            test = standing.against_best[ranking].get(row)
            if test is None:
                cells += ["best" if row == standing.best[ranking] else "", "", "", ""]
                continue
            comparison = test.comparison
            cells += [
                f"{comparison.difference:+.4f}",
                f"[{comparison.low:+.4f}, {comparison.high:+.4f}]",
                p_value(test.t_p),
                p_value(test.wilcoxon_p),
            ]
        rows.append(tuple(cells))
    return Table(tuple(header), tuple(rows))


def _absent(rows: Sequence[Row]) -> list[str]:
    missing = [system for system in TABLE_2 if system not in {row.published for row in rows}]
    return [f"Not here, because this version has no such system: {', '.join(missing)}."] if missing else []


def _panels(source: DataSource, standing: Standings, published: dict[str, str | None]) -> list[DotPanel]:
    titles = tuple(standing.scores)
    labels = {"sampled": "MRR among 100 negatives", "full": "MRR in the full catalogue"}
    panels = []
    for ranking in RANKINGS:
        scores = [of[ranking]["MRR"] for of in standing.scores.values()]
        dots = tuple(Point(index, score.mean, score.low, score.high) for index, score in enumerate(scores))
        series = [Series("ours", dots)]
        if source.column is not None and standing.k == TABLE_2_K and ranking == "sampled":
            reported = [_published(published.get(row), source.column) for row in titles]
            series.append(
                Series(
                    "paper",
                    tuple(
                        Point(index, score.mrr, score.mrr, score.mrr)
                        for index, score in enumerate(reported)
                        if score is not None
                    ),
                )
            )
        panels.append(
            DotPanel(f"{standing.dataset}, K = {standing.k}", titles, tuple(series), labels[ranking])
        )
    return panels
