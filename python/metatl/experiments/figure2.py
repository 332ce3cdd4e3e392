"""Figure 2: MRR over K of four systems."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from metatl.evaluation.report.pages import Heading, Image, Points, Table, Text
from metatl.evaluation.report.plots import LinePanel, Point, Series, draw_lines, png, svg
from metatl.experiments.comparison import standings
from metatl.experiments.paper import FIGURE_2, SOURCE
from metatl.experiments.report_files import Report, interval_note, marked, with_interval
from metatl.experiments.table_rows import table_rows

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.figure import Figure

    from metatl.evaluation.report.pages import PagePart
    from metatl.experiments.comparison import Standings
    from metatl.experiments.data_sources import DataSource
    from metatl.experiments.outcome import Outcome
    from metatl.experiments.table_rows import Budget, Row


def figure2_rows(budget: Budget) -> list[Row]:
    """List the rows of the figure's systems, in its order."""
    rows = {row.published: row for row in table_rows(budget)}
    return [rows[system] for system in FIGURE_2.systems if system in rows]


def figure2(
    outcome: Outcome,
    sources: Sequence[DataSource],
    rows: Sequence[Row],
    *,
    ks: Sequence[int],
    seeds: int,
    budget: Budget,
) -> Report:
    """Write the report of Figure 2 from a grid's figures; the arguments are those of `table2`."""
    found = {
        source.name: [standing for k in ks if (standing := standings(outcome, source.name, k)) is not None]
        for source in sources
    }
    found = {name: of_ks for name, of_ks in found.items() if of_ks}
    missing = [system for system in FIGURE_2.systems if system not in {row.published for row in rows}]
    shown = (
        f"The paper's figure shows {', '.join(FIGURE_2.systems)} on {' and '.join(FIGURE_2.columns)} for "
        f"K = {', '.join(map(str, FIGURE_2.ks))}. It is a plot without printed numbers, so that none stand "
        f"beside ours ({SOURCE})."
    )
    notes = [shown]
    if missing:
        notes.append(f"Not here, because this version has no such system: {', '.join(missing)}.")
    if budget == "smoke":
        notes.append("**Trained for a few steps only: this proves that everything runs, no more.**")
    notes += [f"Failed: {failure}" for failure in outcome.failures]
    parts: list[PagePart] = [
        Heading("Figure 2: MRR over K", 1),
        Text(f"MRR among 100 negatives, preset budget `{budget}`. {interval_note(seeds)}"),
        Points(tuple(notes)),
    ]
    pictures = {}
    if found:
        figure = mrr_over_k(found, rows)
        pictures = {"figure2.png": png(figure), "figure2.svg": svg(figure)}
        parts.append(
            Image("figure2.png", pictures["figure2.png"], "Lines of MRR over K, one for each system")
        )
    for name, of_ks in found.items():
        parts += [Heading(name), _table(of_ks, rows)]
    data = {
        "budget": budget,
        "seeds": seeds,
        "absent": missing,
        "standings": [asdict(standing) for of_ks in found.values() for standing in of_ks],
        "failures": outcome.failures,
    }
    return Report("figure2", parts, data, pictures)


def mrr_over_k(found: Mapping[str, Sequence[Standings]], rows: Sequence[Row]) -> Figure:
    """Draw MRR among 100 negatives over K.

    Parameters
    ----------
    found : mapping of str to sequence of Standings
        Name of a data set, which has a panel, to its standings for each K.
    rows : sequence of Row
        The rows to draw.
    """
    return draw_lines([_panel(name, of_ks, rows) for name, of_ks in found.items()])


def _panel(name: str, of_ks: Sequence[Standings], rows: Sequence[Row]) -> LinePanel:
    series = []
    for row in rows:
        scores = [
            (of_k.k, of_k.scores[row.title]["sampled"]["MRR"]) for of_k in of_ks if row.title in of_k.scores
        ]
        points = tuple(Point(k, score.mean, score.low, score.high) for k, score in scores)
        series.append(Series(row.title, points))
    return LinePanel(name, tuple(series), "MRR among 100 negatives")


def _table(of_ks: Sequence[Standings], rows: Sequence[Row]) -> Table:
    columns = []
    for of_k in of_ks:
        scores = [
            of_k.scores[row.title]["sampled"]["MRR"] if row.title in of_k.scores else None for row in rows
        ]
        texts = ["" if score is None else with_interval(score) for score in scores]
        columns.append(marked(texts, [float("-inf") if score is None else score.mean for score in scores]))
    header = ("system", *(f"K = {of_k.k}" for of_k in of_ks))
    return Table(header, tuple(zip([row.title for row in rows], *columns, strict=True)))
