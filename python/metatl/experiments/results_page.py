"""The page `docs/results.md`: every system on every data set, for several K and over several seeds.

`make results` writes it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from metatl.evaluation.report.pages import Heading, Image, Points, Table, Text
from metatl.evaluation.report.plots import png
from metatl.experiments.comparison import standings
from metatl.experiments.figure2 import figure2_rows, mrr_over_k
from metatl.experiments.recommended_system import advice, choose, everywhere, simple_leaders, why_not_ahead
from metatl.experiments.report_files import interval_note, listed, with_interval
from metatl.experiments.table2 import lead
from metatl.experiments.table_rows import KNN, OFFICIAL, TUNED, UNTRAINED, WITHOUT_STEP
from metatl.metrics.names import RANKINGS
from metatl.metrics.significance import mean_interval

if TYPE_CHECKING:
    from collections.abc import Sequence

    from metatl.evaluation.report.pages import PagePart
    from metatl.experiments.comparison import Standings
    from metatl.experiments.outcome import Outcome
    from metatl.experiments.recommended_system import Choice
    from metatl.metrics.names import RankingName

METRICS = ("HR@1", "HR@10", "NDCG@10", "MRR")

PICTURE = "results-over-k.png"

HEADER = """Cold-start users who have shown K interactions; one held-out item each. Sampled: ranked among
100 uniform negatives. Full: ranked among every item that the user has not interacted with. {intervals} A
seed sets the weights, the tasks and the candidates, the split is the same for all, and all systems of a
seed rank the same candidates. Ties count against the system. Weights are chosen by MRR on validation users.
p-values are of paired tests over the test users, corrected by Holm's method for the number of systems.
Every rank of every user is in `docs/results`: `make results RESULTS_OPTIONS=--only-finished` writes this page
from there, without data; `make results` first fits what is missing."""

NOTES = (
    """`tuned` starts from the co-occurrence graph (`metatl.models.item_start.spectral`) and the recent trend
    of
  items (`metatl.models.item_start.trends`). The row "untrained" is that start alone, a strong system of its
  own: `metatl train --set inner_steps=0 --set max_steps=1 --set meta_lr=1e-9`.""",
    """The settings of item-kNN were chosen on validation users of these three data sets; those of the Markov
  chain, of session kNN and of `tuned` on training users held out in turn and on validation users, the last
  when test figures of earlier settings had already been seen. Item-kNN knows no trend; on validation users
  the same trend, added to the logarithm of its scores, raised its MRR by .001 to .007.""",
    "`official` stops after three evaluations without a better validation MRR, at 8,000 steps at the latest.",
)


def results_page(outcome: Outcome, names: Sequence[str], *, ks: Sequence[int], seeds: int) -> list[PagePart]:
    """Write the page from a grid's figures.

    Parameters
    ----------
    outcome : Outcome
        What the grid left.
    names : sequence of str
        Names of the data sets.
    ks, seeds
        What was asked of it.
    """
    found = {
        name: [standing for k in ks if (standing := standings(outcome, name, k)) is not None]
        for name in names
    }
    chosen = [(standing, choose(outcome, standing)) for of_ks in found.values() for standing in of_ks]
    parts: list[PagePart] = [
        Heading("Results", 1),
        Text(
            f"{simple_leaders([standing for standing, _ in chosen])} "
            "Which to take: of those that no paired test tells apart from the best, by either ranking, the "
            "one whose fit takes the least processor time (user and system, of all threads)."
        ),
        Points(
            (
                *(advice(standing, choice) for standing, choice in chosen),
                *_everywhere(chosen),
            )
        ),
        Heading("How it was measured"),
        Text(HEADER.format(intervals=interval_note(seeds))),
        Points(NOTES),
    ]
    over_k = {name: of_ks for name, of_ks in found.items() if len(of_ks) > 1}
    if over_k:
        picture = png(mrr_over_k(over_k, figure2_rows("tuned")))
        parts += [
            Heading("Over K"),
            Text("MRR among 100 negatives of the systems that the paper's Figure 2 shows."),
            Image(PICTURE, picture, "Lines of MRR over K, one for each system"),
        ]
    for name, of_ks in found.items():
        parts.append(Heading(name))
        for standing in of_ks:
            parts += [
                Heading(f"{name}, K = {standing.k}", 3),
                Text(f"{standing.test_users:,} test users."),
                scores_table(standing, seeds),
                Points(tuple(findings(outcome, standing))),
            ]
    return parts


def scores_table(standing: Standings, seeds: int) -> Table:
    """Lay out a row a system, means with intervals; a row that has fewer seeds says how many."""
    header = ("system", *METRICS, *(f"{metric}, full" for metric in METRICS))
    columns: list[tuple[RankingName, str]] = [(ranking, metric) for ranking in RANKINGS for metric in METRICS]
    best = {column: max(standing.mean(row, *column) for row in standing.scores) for column in columns}
    rows = []
    for row, scores in standing.scores.items():
        texts = []
        for ranking, metric in columns:
            score = scores[ranking][metric]
            text = with_interval(score)
            texts.append(f"**{text}**" if score.mean == best[ranking, metric] else text)
        finished = scores["sampled"]["MRR"].seeds
        missing = f" ({finished} of {seeds} seeds)" if finished < seeds else ""
        rows.append((row + missing, *texts))
    return Table(header, tuple(rows))


def _everywhere(chosen: Sequence[tuple[Standings, Choice]]) -> list[str]:
    """Say for each K which systems are as good as the best on all of its data sets, where it has several."""
    texts = []
    for k in dict.fromkeys(standing.k for standing, _ in chosen):
        names = [standing.dataset for standing, _ in chosen if standing.k == k]
        choices = [choice for standing, choice in chosen if standing.k == k]
        if len(choices) > 1:
            rows = everywhere(choices)
            good = ", ".join(rows) if rows else "no system"
            texts.append(f"K = {k}, as good as the best on {listed(names, 'and')}: {good}.")
    return texts


def findings(outcome: Outcome, standing: Standings) -> list[str]:
    """State how the best and `tuned` stand: against the next, `official`, item-kNN, and their own parts."""
    texts = [f"Sampled: {lead(standing, 'sampled')}.", f"Full: {lead(standing, 'full')}."]
    rows = standing.scores.keys()
    limit = why_not_ahead(outcome, standing, TUNED)
    if limit is not None:
        texts.append(limit)
    if {TUNED, OFFICIAL} <= rows:
        ratio = standing.mean(TUNED) / standing.mean(OFFICIAL)
        texts.append(f"`tuned` has {ratio:.2f} times the sampled MRR of `official`.")
    for one, other, meaning in (
        (TUNED, KNN, "`tuned` minus item-kNN, paired MRR difference"),
        (TUNED, WITHOUT_STEP, "`tuned` minus MetaTL−−, what the inner step adds"),
        (WITHOUT_STEP, UNTRAINED, "MetaTL−− minus the untrained start, what the outer loop adds"),
    ):
        if {one, other} <= rows:
            pair = [_difference(outcome, standing, one, other, ranking) for ranking in RANKINGS]
            texts.append(f"{meaning}: {pair[0]} sampled, {pair[1]} full.")
    if TUNED in rows:
        first = outcome.results.filter(
            dataset=standing.dataset, k=standing.k, row=TUNED, ranking="sampled", metric="MRR"
        ).row(0, named=True)
        texts.append(
            "Over users, not seeds, the 95 % bootstrap interval of `tuned` is "
            f"{first['low']:.4f} to {first['high']:.4f} (first seed)."
        )
    if standing.orders is not None:
        orders = f"Kendall τ = {standing.orders.kendall:.2f}, Spearman ρ = {standing.orders.spearman:.2f}"
        texts.append(f"The order of the systems by sampled MRR against that by full MRR: {orders}.")
    return texts


def _difference(outcome: Outcome, standing: Standings, one: str, other: str, ranking: RankingName) -> str:
    """Describe the MRR difference of two rows, paired over the seeds that both have."""
    of_one, of_other = (
        dict(
            outcome.results.filter(
                dataset=standing.dataset, k=standing.k, row=row, ranking=ranking, metric="MRR"
            )
            .select("seed", "value")
            .iter_rows()
        )
        for row in (one, other)
    )
    paired = [of_one[seed] - of_other[seed] for seed in of_one if seed in of_other]
    if not paired:
        return "no shared seed"
    mean, ends = mean_interval(paired)
    return f"{mean:+.4f}" if ends is None else f"{mean:+.4f} ± {(ends[1] - ends[0]) / 2:.4f}"
