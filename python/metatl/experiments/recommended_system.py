"""Which system to take: those that no test tells apart from the best, and the cheapest of them to fit."""

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
    """The systems of one data set and K among which accuracy leaves a free choice.

    Attributes
    ----------
    rows : tuple of str
        Rows that no test tells apart from the best, by either ranking, the cheapest to fit first; none where
        the two rankings have other winners and a test sees the difference.
    seconds : dict of str to float
        Row to the mean processor seconds of a fit, over seeds; infinite where no fit was seen whole.
        Wall-clock seconds would also say what else the machine did.
    """

    rows: tuple[str, ...]
    seconds: dict[str, float]


def choose(outcome: Outcome, standing: Standings) -> Choice:
    """Find the rows that are as good as the best.

    A row is told apart from the best where the paired t test or Wilcoxon's, either of them corrected by
    Holm's method, has p < .05, among 100 negatives or in the full catalogue.
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
    """Say who has the best MRR, who is as good, and which of them to take."""
    sampled, full = (standing.best[ranking] for ranking in RANKINGS)
    leaders = {sampled, full}
    where = (
        f"{sampled} has the best MRR among 100 negatives and in the full catalogue"
        if sampled == full
        else f"{sampled} has the best MRR among 100 negatives, {full} in the full catalogue"
    )
    text = f"{standing.dataset}, K = {standing.k}: {where}."
    if not choice.rows:
        return (
            f"{text} No system is as good as the best by both rankings: "
            "take the one that leads the ranking that you use."
        )
    take, others = choice.rows[0], [row for row in choice.rows if row not in leaders]
    if others:
        text += f" No test tells {listed(others, 'or')} apart from the best."
    if take == sampled:
        best = ""
    elif sampled in choice.rows:
        best = f", against {_seconds(choice, sampled)} of {sampled}"
    else:
        best = f"; a test tells {sampled} apart from {full} in the full catalogue"
    return f"{text} **Take {take}**: fitted in {_seconds(choice, take)} of processor time{best}."


def simple_leaders(standings: Sequence[Standings]) -> str:
    """Say where a system that needs no training is ahead, and which."""
    found = [
        f"{winner} on {standing.dataset} at K = {standing.k}"
        for standing in standings
        for winner in dict.fromkeys(standing.best[ranking] for ranking in RANKINGS)
        if winner in UNTRAINED_TITLES
    ]
    if not found:
        return "No simple system has the best MRR."
    return f"A system without training has the best MRR: {'; '.join(found)}."


def everywhere(choices: Sequence[Choice]) -> list[str]:
    """Name the rows that are as good as the best on every data set, in the order of the first."""
    if not choices:
        return []
    shared = set[str].intersection(*(set(choice.rows) for choice in choices))
    return [row for row in choices[0].rows if row in shared]


def why_not_ahead(outcome: Outcome, standing: Standings, row: str) -> str | None:
    """Show what this many test users can tell, where a row is not ahead of all others by a test.

    Returns
    -------
    str or None
        None where the row is ahead and both tests say so, or where there is nothing to compare it with.
    """
    best = standing.best["sampled"]
    rival = standing.next_best("sampled") if row == best else best
    if row not in standing.scores or rival is None:
        return None
    test = standing.against_best["sampled"].get(rival if row == best else row)
    found = compare_rows(outcome, standing.dataset, standing.k, row, rival, "sampled")
    if test is None or found is None:
        return None
    if row == best and max(test.t_p, test.wilcoxon_p) < SIGNIFICANT:
        return None
    # The interval is of the same test, so that its half-width stands for the spread.
    detectable = detectable_difference((found.high - found.low) / 2, standing.test_users)
    text = (
        f"What the test can show: {standing.test_users:,} users reveal a difference of {detectable:.4f} "
        f"between {row} and {rival} in {100 * POWER:.0f} % of draws of such users "
        f"(p < {SIGNIFICANT}, before correction); found is {found.difference:+.4f}."
    )
    if 0 < abs(found.difference) < detectable:
        needed = standing.test_users * (detectable / found.difference) ** 2
        text += f" To reveal that would take about {_two_digits(needed)} users."
    return text


def _two_digits(value: float) -> str:
    return f"{float(f'{value:.1e}'):,.0f}"


def _seconds(choice: Choice, row: str) -> str:
    seconds = choice.seconds[row]
    if math.isinf(seconds):
        return "unknown seconds"
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"  # noqa: PLR2004 (two digits)
