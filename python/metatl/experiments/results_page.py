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

HEADER = """Each test user is a cold-start user with K interactions and one held-out item. Sampled: the item
is ranked among 100 uniform negatives. Full: it is ranked among every item that the user has not interacted
with. {intervals} A seed sets the weights, the tasks and the candidates. The split is the same for all seeds,
and all systems of a seed rank the same candidates. Ties count against the system. Weights are selected by MRR
on the validation users. p-values are from paired tests over the test users, with Holm's correction for the
number of systems. `docs/results` holds every rank of every user.
`make results RESULTS_OPTIONS=--only-finished` writes this page from it, without data; `make results` first
fits what is missing."""

NOTES = (
    """`tuned` initialises the items from the co-occurrence graph (`metatl.models.item_start.spectral`) and
  their recent trend (`metatl.models.item_start.trends`). The row "untrained" is this initialisation alone, a
  strong system by itself: `metatl train --set inner_steps=0 --set max_steps=1 --set meta_lr=1e-9`.""",
    """The settings of item-kNN were selected on the validation users of these three data sets. Those of the
  Markov chain, of session kNN and of `tuned` were selected by cross-validation on the training users and on
  the validation users; those of `tuned` after test figures of earlier settings had been seen. Item-kNN uses
  no trend. On the validation users, adding the same trend to the logarithm of its scores raised its MRR by
  .001 to .007.""",
    "`official` stops after three evaluations without a better validation MRR, and at 8,000 steps at most.",
)


def results_page(outcome: Outcome, names: Sequence[str], *, ks: Sequence[int], seeds: int) -> list[PagePart]:
    """Write the page from a grid's figures.

    Parameters
    ----------
    outcome : Outcome
        Results of the grid.
    names : sequence of str
        Names of the data sets.
    ks, seeds
        Values of K and number of seeds of the grid.
    """
    standings_of = {
        name: [standing for k in ks if (standing := standings(outcome, name, k)) is not None]
        for name in names
    }
    chosen = [(standing, choose(outcome, standing)) for of_ks in standings_of.values() for standing in of_ks]
    parts: list[PagePart] = [
        Heading("Results", 1),
        Text(
            f"{simple_leaders([standing for standing, _ in chosen])} "
            "For each data set and K, the systems that do not differ significantly from the best in either "
            "ranking count as equally good. The recommended one is the cheapest of them to fit, in processor "
            "time (user and system, all threads)."
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
    over_k = {name: of_ks for name, of_ks in standings_of.items() if len(of_ks) > 1}
    if over_k:
        picture = png(mrr_over_k(over_k, figure2_rows("tuned")))
        parts += [
            Heading("Over K"),
            Text("MRR among 100 negatives, for the systems of the paper's Figure 2."),
            Image(PICTURE, picture, "MRR against K, one line for each system"),
        ]
    for name, of_ks in standings_of.items():
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
    """Build the table of means with intervals; a row with fewer seeds states their number."""
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
    """State for each K with several data sets which systems are as good as the best on all of them."""
    texts = []
    for k in dict.fromkeys(standing.k for standing, _ in chosen):
        names = [standing.dataset for standing, _ in chosen if standing.k == k]
        choices = [choice for standing, choice in chosen if standing.k == k]
        if len(choices) > 1:
            rows = everywhere(choices)
            good = f"{listed(rows, 'and')} {'is' if len(rows) == 1 else 'are'}" if rows else "no system is"
            texts.append(f"K = {k}: {good} as good as the best on all of {listed(names, 'and')}.")
    return texts


def findings(outcome: Outcome, standing: Standings) -> list[str]:
    """Compare the best system with the next, and `tuned` with `official`, item-kNN and its own parts."""
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
        (TUNED, WITHOUT_STEP, "`tuned` minus MetaTL−−, the effect of the inner step"),
        (
            WITHOUT_STEP,
            UNTRAINED,
            "MetaTL−− minus its untrained initialisation, the effect of the outer loop",
        ),
    ):
        if {one, other} <= rows:
            pair = [_difference(outcome, standing, one, other, ranking) for ranking in RANKINGS]
            texts.append(f"{meaning}: {pair[0]} sampled, {pair[1]} full.")
    if TUNED in rows:
        first = outcome.results.filter(
            dataset=standing.dataset, k=standing.k, row=TUNED, ranking="sampled", metric="MRR"
        ).row(0, named=True)
        texts.append(
            "For the first seed, the 95 % bootstrap interval of `tuned` over the test users is "
            f"{first['low']:.4f} to {first['high']:.4f} (sampled MRR)."
        )
    if standing.orders is not None:
        orders = f"Kendall τ = {standing.orders.kendall:.2f}, Spearman ρ = {standing.orders.spearman:.2f}"
        texts.append(f"Rank correlation of the systems by sampled and by full MRR: {orders}.")
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
