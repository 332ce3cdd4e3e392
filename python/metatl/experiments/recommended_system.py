"""Recommend a system: the cheapest to fit of those that do not differ significantly from the best."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

from metatl.experiments.comparison import compare_rows
from metatl.experiments.report_files import SIGNIFICANT, listed
from metatl.experiments.table_rows import SIMPLE, UNTRAINED
from metatl.metrics.names import RANKINGS
from metatl.metrics.significance import POWER, detectable_difference
from metatl.models import SYSTEMS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from metatl.experiments.comparison import Standings
    from metatl.experiments.outcome import Outcome

UNTRAINED_TITLES = frozenset({UNTRAINED, *(SYSTEMS[name].title for name in SIMPLE)})
"""The rows that are not trained by gradients."""


@dataclass(frozen=True)
class Choice:
    """The systems of one data set and K that are equally accurate.

    Attributes
    ----------
    rows : tuple of str
        Rows that do not differ significantly from the best in either ranking, the cheapest to fit first.
        Empty if the rankings have different winners and a test finds a difference for every row.
    seconds : dict of str to float
        Mean processor seconds of a fit for each row, over the seeds; infinite if no fit ran without
        interruption. Wall-clock time would also depend on the other load of the machine.
    """

    rows: tuple[str, ...]
    seconds: dict[str, float]


def choose(outcome: Outcome, standing: Standings) -> Choice:
    """Find the rows that are as good as the best.

    A row differs significantly from the best if the paired t test or Wilcoxon's test, each with Holm's
    correction, has p < .05 among 100 negatives or in the full catalogue.
    """
    fits = outcome.results.filter(dataset=standing.dataset, k=standing.k, ranking="sampled", metric="MRR")
    seconds = {
        row: fits.filter(row=row)["processor_seconds"].drop_nulls().to_list() for row in standing.scores
    }
    means = {row: fmean(of_seeds) if of_seeds else math.inf for row, of_seeds in seconds.items()}
    rows = [row for row in standing.scores if _as_good_as_best(standing, row)]
    return Choice(tuple(sorted(rows, key=means.__getitem__)), means)


def _as_good_as_best(standing: Standings, row: str) -> bool:
    for ranking in RANKINGS:
        test = standing.against_best[ranking].get(row)
        if test is None and row != standing.best[ranking]:
            return False
        if test is not None and min(test.t_p, test.wilcoxon_p) < SIGNIFICANT:
            return False
    return True


def advice(standing: Standings, choice: Choice) -> str:
    """State which system has the best MRR, which are as good, and which one is recommended."""
    sampled, full = (standing.best[ranking] for ranking in RANKINGS)
    leaders = {sampled, full}
    where = (
        f"{sampled} has the best MRR among 100 negatives and in the full catalogue"
        if sampled == full
        else f"{sampled} has the best MRR among 100 negatives and {full} in the full catalogue"
    )
    text = f"{standing.dataset}, K = {standing.k}: {where}."
    if not choice.rows:
        return (
            f"{text} No system is as good as the best in both rankings: "
            "choose by the ranking that matters to you."
        )
    take, others = choice.rows[0], [row for row in choice.rows if row not in leaders]
    if others:
        verb = "does" if len(others) == 1 else "do"
        text += f" {listed(others, 'and')} {verb} not differ significantly from the best."
    if take == sampled:
        best = ""
    elif sampled in choice.rows:
        best = f" ({sampled}: {_seconds(choice, sampled)})"
    else:
        best = f"; {sampled} differs significantly from {full} in the full catalogue"
    return f"{text} **Recommended: {take}.** Processor time of a fit: {_seconds(choice, take)}{best}."


def simple_leaders(standings: Sequence[Standings]) -> str:
    """State where a system that needs no training has the best MRR."""
    winners = [
        f"{winner} on {standing.dataset} at K = {standing.k}"
        for standing in standings
        for winner in dict.fromkeys(standing.best[ranking] for ranking in RANKINGS)
        if winner in UNTRAINED_TITLES
    ]
    if not winners:
        return "No simple system has the best MRR."
    return f"A system that needs no training has the best MRR in these cases: {'; '.join(winners)}."


def everywhere(choices: Sequence[Choice]) -> list[str]:
    """List the rows that are as good as the best on every data set, in the order of the first choice."""
    if not choices:
        return []
    shared = set[str].intersection(*(set(choice.rows) for choice in choices))
    return [row for row in choices[0].rows if row in shared]


def why_not_ahead(outcome: Outcome, standing: Standings, row: str) -> str | None:
    """State which difference a test with this many users can detect, if a row is not significantly ahead.

    Returns
    -------
    str or None
        None if the row is ahead by both tests, or if there is no other row to compare it with.
    """
    best = standing.best["sampled"]
    rival = standing.next_best("sampled") if row == best else best
    if row not in standing.scores or rival is None:
        return None
    test = standing.against_best["sampled"].get(rival if row == best else row)
    comparison = compare_rows(outcome, standing.dataset, standing.k, row, rival, "sampled")
    if test is None or comparison is None:
        return None
    if row == best and max(test.t_p, test.wilcoxon_p) < SIGNIFICANT:
        return None
    # The interval belongs to the same test, so its half-width gives the standard error.
    detectable = detectable_difference((comparison.high - comparison.low) / 2, standing.test_users)
    text = (
        f"Power: with {standing.test_users:,} users, the t test detects a difference of {detectable:.4f} "
        f"between {row} and {rival} with probability {100 * POWER:.0f} % "
        f"(p < {SIGNIFICANT}, before correction). The measured difference is {comparison.difference:+.4f}."
    )
    if 0 < abs(comparison.difference) < detectable:
        needed = standing.test_users * (detectable / comparison.difference) ** 2
        text += f" Detecting it would take about {_two_digits(needed)} users."
    return text


def _two_digits(value: float) -> str:
    return f"{float(f'{value:.1e}'):,.0f}"


def _seconds(choice: Choice, row: str) -> str:
    seconds = choice.seconds[row]
    if math.isinf(seconds):
        return "unknown"
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"  # noqa: PLR2004 (two digits)
