"""Change `official` into `paper` and `paper` into `tuned`, one change at a time.

Every difference between the released program and the paper is a field of `MetaTLConfig`, and so is every
difference between the paper and `tuned`. A step changes one idea. If the config ties fields together (batch
norm exists in the three-layer learner only), a step sets all of them. Later rows keep the changes of earlier
steps, so a row differs from the row above it by its own step only.

Two differences lie in the evaluation of the released program: its negatives may be the target itself, and its
ranks depend on the order of equal scores. These are not steps: metatl's protocol evaluates all rows.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from metatl.evaluation.report.pages import Heading, Image, Points, Table, Text
from metatl.evaluation.report.plots import DotPanel, Point, Series, draw_dots, png
from metatl.experiments.comparison import compare_rows, standings
from metatl.experiments.report_files import (
    SIGNIFICANT,
    Report,
    interval_note,
    marked,
    p_value,
    with_interval,
)
from metatl.experiments.table_rows import SMOKE_STEPS, Row
from metatl.metrics.names import RANKINGS
from metatl.metrics.significance import holm

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from metatl.evaluation.report.pages import PagePart
    from metatl.experiments.comparison import Standings
    from metatl.experiments.data_sources import DataSource
    from metatl.experiments.outcome import Outcome
    from metatl.experiments.table_rows import Budget
    from metatl.metrics.names import RankingName
    from metatl.metrics.significance import Comparison


@dataclass(frozen=True, eq=False)
class Step:
    """One change.

    Attributes
    ----------
    title : str
        Description of the change.
    changes : mapping of str to Any
        Fields of `MetaTLConfig` and their new values.
    """

    title: str
    changes: Mapping[str, Any]


TO_PAPER = (
    Step("dropout and batch norm stay on after validation", {"freeze_after_first_evaluation": False}),
    Step("windows cut rightly", {"released_windows": False}),
    Step("random tasks, no windows", {"window_share": 0.0}),
    Step("outer loss L_Q alone (Eq. 5)", {"outer_adds_support_loss": False}),
    Step("support loss a sum over each user's pairs (Eq. 3)", {"support_reduction": "sum"}),
    Step("inner rate 0.01", {"inner_lr": 0.01}),
    Step(
        "one layer and a sigmoid (Eq. 1)",
        {"learner": "one_layer", "batch_norm": False, "learner_dropout": 0.0},
    ),
    Step("squared distance", {"distance": "squared_l2"}),
    Step("the inner step moves learner and embeddings (Eq. 4)", {"adapt": "learner_and_embeddings"}),
    Step("second order", {"first_order": False}),
    Step("larger initial items", {"init_scale": 0.03}),
    Step(
        "SGD on the sum over tasks (Eq. 6), at its rate",
        {"optimizer": "sgd", "outer_reduction": "sum", "meta_lr": 0.03, "final_lr_share": 0.05},
    ),
    Step("length of training", {"max_steps": 3000, "eval_every": 500, "patience": 10}),
)

TO_TUNED = (
    Step(
        "Adam on the mean over tasks, at its rate",
        {
            "optimizer": "adam",
            "outer_reduction": "mean",
            "meta_lr": 2e-3,
            "warmup_steps": 30,
            "final_lr_share": 0.02,
        },
    ),
    # This comes before the step to many negatives. If tasks moved embeddings there, each task would need a
    # vector of its own for every negative.
    Step("the inner step moves the transition", {"adapt": "transition"}),
    Step(
        "512 shared negatives in place of one",
        {"negatives": 0, "shared_negatives": 512, "shared_support_negatives": 32},
    ),
    Step("softmax in place of the margin", {"loss": "softmax"}),
    Step("support loss a mean over pairs", {"support_reduction": "mean"}),
    Step("linear skip beside the layer", {"transition_skip": (1.3, 0.0), "learner_bias": -3.0}),
    Step("bias of items", {"item_bias": True}),
    Step("128 dimensions", {"dim": 128}),
    Step(
        "items start from co-occurrences", {"item_start": "spectral", "temperature": 60.0, "init_scale": 0.1}
    ),
    Step("item vectors without the task's own user", {"cross_fit_folds": 5}),
    Step("recent trend of items", {"trend_weight": 0.4}),
    Step("half of the tasks windows", {"window_share": 0.5}),
    Step("tasks in random order", {"shuffle_share": 1.0}),
    Step("inner rate 5", {"inner_lr": 5.0}),
    Step("length of training: `tuned`", {"max_steps": 300, "eval_every": 50}),
)


def ablation_rows(budget: Budget) -> list[Row]:
    """List the rows from `official` to `paper` to `tuned`.

    With the budget `smoke` every training is a few steps long. The other budgets make no difference, because
    the steps set the presets.
    """
    rows = [Row("`official`", "metatl", "official")]
    for preset, steps in (("official", TO_PAPER), ("paper", TO_TUNED)):
        config: dict[str, Any] = {}
        for step in steps:
            config.update(step.changes)
            rows.append(Row(step.title, "metatl", preset, dict(config)))
    if budget == "smoke":
        short = {"max_steps": SMOKE_STEPS}
        return [Row(row.title, row.model, row.preset, {**row.config, **short}) for row in rows]
    return rows


def ablation(
    outcome: Outcome,
    sources: Sequence[DataSource],
    rows: Sequence[Row],
    *,
    ks: Sequence[int],
    seeds: int,
    budget: Budget,
) -> Report:
    """Write the report of the ablation from the results of a grid; the arguments are those of `table2`."""
    of_sources = [
        standing
        for source in sources
        for k in ks
        if (standing := standings(outcome, source.name, k)) is not None
    ]
    step = (
        "Each row adds one change to the row above it. The difference is relative to the row above, paired "
        "over the test users. p-values are from the t test, with Holm's correction for the number of changes."
    )
    presets = f"The row “{TO_PAPER[-1].title}” is the preset `paper`, and the last row is the preset `tuned`."
    protocol = (
        "All rows are evaluated under one protocol. The released program's evaluation is not one of the "
        "changes: its negatives may be the target itself, and it has no rule for equal scores."
    )
    notes = [step, presets, protocol]
    if budget == "smoke":
        notes.append("**Trained for a few steps only: this shows that everything runs, nothing more.**")
    notes += [f"Failed: {failure}" for failure in outcome.failures]
    parts: list[PagePart] = [
        Heading("Ablation: from `official` to `paper` to `tuned`", 1),
        Text(f"MetaTL. {interval_note(seeds)}"),
        Points(tuple(notes)),
    ]
    pictures = (
        {"ablation.png": png(draw_dots([_panel(standing) for standing in of_sources]))} if of_sources else {}
    )
    steps: list[dict[str, Any]] = []
    for standing in of_sources:
        of_rows = _differences(outcome, standing, rows)
        parts += [
            Heading(f"{standing.dataset}, K = {standing.k}"),
            Text(f"{standing.test_users:,} test users."),
            _table(standing, rows, of_rows),
            *([Text(_what_shows(rows, of_rows))] if of_rows else []),
        ]
        steps += [
            {
                "dataset": standing.dataset,
                "k": standing.k,
                "row": row,
                "ranking": ranking,
                **asdict(comparison),
            }
            for (row, ranking), comparison in of_rows.items()
        ]
    parts += [
        Image(name, content, "MRR of each row with its 95 % interval") for name, content in pictures.items()
    ]
    data = {
        "budget": budget,
        "seeds": seeds,
        "rows": [{"title": row.title, "preset": row.preset, "config": dict(row.config)} for row in rows],
        "standings": [asdict(standing) for standing in of_sources],
        "steps": steps,
        "failures": outcome.failures,
    }
    return Report("ablation", parts, data, pictures)


def _differences(
    outcome: Outcome, standing: Standings, rows: Sequence[Row]
) -> dict[tuple[str, RankingName], Comparison]:
    """Compare each row with the row above it, if both have results."""
    differences = {}
    for above, row in pairwise(rows):
        for ranking in RANKINGS:
            comparison = compare_rows(outcome, standing.dataset, standing.k, row.title, above.title, ranking)
            if comparison is not None:
                differences[row.title, ranking] = comparison
    return differences


def _table(
    standing: Standings, rows: Sequence[Row], differences: Mapping[tuple[str, RankingName], Comparison]
) -> Table:
    shown = [row for row in rows if row.title in standing.scores]
    header, columns = ["change"], []
    for ranking in RANKINGS:
        end = "" if ranking == "sampled" else ", full"
        header += [f"MRR{end}", f"difference{end}", f"p{end}"]
        scores = [standing.scores[row.title][ranking]["MRR"] for row in shown]
        columns.append(marked([with_interval(score) for score in scores], [score.mean for score in scores]))
        corrected = _corrected(differences, rows, ranking)
        columns.append([_difference(differences.get((row.title, ranking))) for row in shown])
        columns.append([p_value(corrected[row.title]) if row.title in corrected else "" for row in shown])
    header.append("set")
    columns.append([_settings(row.title) for row in shown])
    return Table(tuple(header), tuple(zip([row.title for row in shown], *columns, strict=True)))


def _corrected(
    differences: Mapping[tuple[str, RankingName], Comparison], rows: Sequence[Row], ranking: RankingName
) -> dict[str, float]:
    """Return the p-values of the compared changes, corrected for their number."""
    titles = [row.title for row in rows if (row.title, ranking) in differences]
    return dict(zip(titles, holm([differences[title, ranking].t_p for title in titles]), strict=True))


def _what_shows(rows: Sequence[Row], differences: Mapping[tuple[str, RankingName], Comparison]) -> str:
    """State which changes are significant."""
    where_of: dict[RankingName, str] = {"sampled": "among 100 negatives", "full": "in the full catalogue"}
    sentences = []
    for ranking, where in where_of.items():
        corrected = _corrected(differences, rows, ranking)
        shown = [
            f"“{title}” ({differences[title, ranking].difference:+.4f})"
            for title, p in corrected.items()
            if p < SIGNIFICANT
        ]
        if shown:
            sentences.append(f"Significant {where}: {', '.join(shown)}.")
        else:
            sentences.append(f"No single change is significant {where}.")
    return " ".join(sentences)


def _difference(comparison: Comparison | None) -> str:
    return (
        ""
        if comparison is None
        else f"{comparison.difference:+.4f} [{comparison.low:+.4f}, {comparison.high:+.4f}]"
    )


def _settings(title: str) -> str:
    changes = next((step.changes for step in (*TO_PAPER, *TO_TUNED) if step.title == title), {})
    return ", ".join(f"`{name}={value}`" for name, value in changes.items())


def _panel(standing: Standings) -> DotPanel:
    scores = [of["sampled"]["MRR"] for of in standing.scores.values()]
    points = tuple(Point(index, score.mean, score.low, score.high) for index, score in enumerate(scores))
    return DotPanel(
        title=f"{standing.dataset}, K = {standing.k}",
        names=tuple(standing.scores),
        series=(Series("ours", points),),
        label="MRR among 100 negatives",
    )
