"""The recommended system, and the difference that a test over so many users can detect."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from scipy import stats

from metatl.experiments.comparison import standings
from metatl.experiments.outcome import Outcome
from metatl.experiments.recommended_system import advice, choose, everywhere, simple_leaders, why_not_ahead
from metatl.experiments.table_rows import UNTRAINED
from metatl.metrics.significance import compare, detectable_difference
from planted_outcome import planted

USERS = 200
GOOD = [1, 2] * (USERS // 2)
AS_GOOD = [2, 1] * (USERS // 2)
BAD = [9] * USERS


def outcome_of(ranks, seconds, **options):
    """A planted outcome of one seed whose fits took the stated processor seconds."""
    found = planted({row: {0: of_rankings} for row, of_rankings in ranks.items()}, **options)
    took = pl.col("row").replace_strict(seconds, return_dtype=pl.Float64)
    return Outcome(found.results.with_columns(processor_seconds=took), found.ranks, [])


def test_the_cheapest_of_the_equals_is_taken():
    ranks = {"Slow": (GOOD, GOOD), "Quick": (AS_GOOD, AS_GOOD), "Poor": (BAD, BAD)}
    outcome = outcome_of(ranks, {"Slow": 120.0, "Quick": 2.25, "Poor": 0.1})
    standing = standings(outcome, "ring", 3)
    choice = choose(outcome, standing)
    assert choice.rows == ("Quick", "Slow")
    assert advice(standing, choice) == (
        "ring, K = 3: Slow has the best MRR among 100 negatives and in the full catalogue. Quick does not "
        "differ significantly from the best. **Recommended: Quick.** Processor time of a fit: 2.2 s "
        "(Slow: 120 s)."
    )


def test_a_fit_that_was_interrupted_costs_nobody_knows_what():
    ranks = {"Slow": (GOOD, GOOD), "Quick": (AS_GOOD, AS_GOOD)}
    outcome = outcome_of(ranks, {"Slow": 120.0, "Quick": None})
    standing = standings(outcome, "ring", 3)
    choice = choose(outcome, standing)
    assert choice.rows == ("Slow", "Quick")
    assert advice(standing, choice).endswith("**Recommended: Slow.** Processor time of a fit: 120 s.")
    unknown = outcome_of(ranks, {"Slow": None, "Quick": None})
    assert "Processor time of a fit: unknown" in advice(standing, choose(unknown, standing))


def test_a_row_must_be_as_good_by_both_rankings():
    ranks = {"Slow": (GOOD, GOOD), "Half": (AS_GOOD, BAD)}
    outcome = outcome_of(ranks, {"Slow": 9.0, "Half": 1.0})
    assert choose(outcome, standings(outcome, "ring", 3)).rows == ("Slow",)


def test_a_leader_that_is_not_taken_is_told_why():
    better = [1, *GOOD[2:], 1]
    outcome = outcome_of({"A": (better, BAD), "B": (GOOD, GOOD)}, {"A": 1.0, "B": 3.0})
    standing = standings(outcome, "ring", 3)
    assert advice(standing, choose(outcome, standing)) == (
        "ring, K = 3: A has the best MRR among 100 negatives and B in the full catalogue. "
        "**Recommended: B.** Processor time of a fit: 3.0 s; A differs significantly from B in the full "
        "catalogue."
    )


def test_two_winners_that_differ_leave_no_choice():
    ranks = {"A": (GOOD, BAD), "B": (BAD, GOOD)}
    outcome = outcome_of(ranks, {"A": 1.0, "B": 1.0})
    standing = standings(outcome, "ring", 3)
    choice = choose(outcome, standing)
    assert choice.rows == ()
    assert advice(standing, choice).endswith(
        "No system is as good as the best in both rankings: choose by the ranking that matters to you."
    )
    assert everywhere([choice]) == []


def test_everywhere_keeps_what_is_good_on_all():
    two = [
        outcome_of(ranks, dict.fromkeys(ranks, 1.0))
        for ranks in (
            {"A": (GOOD, GOOD), "B": (AS_GOOD, AS_GOOD), "C": (AS_GOOD, AS_GOOD)},
            {"A": (BAD, BAD), "B": (GOOD, GOOD), "C": (AS_GOOD, AS_GOOD)},
        )
    ]
    assert everywhere([choose(outcome, standings(outcome, "ring", 3)) for outcome in two]) == ["B", "C"]
    assert everywhere([]) == []


def test_simple_leaders_are_named():
    outcome = planted({"Item-kNN": {0: (GOOD, BAD)}, UNTRAINED: {0: (BAD, GOOD)}})
    found = [standings(outcome, "ring", 3)]
    assert simple_leaders(found) == (
        "A system that needs no training has the best MRR in these cases: "
        f"Item-kNN on ring at K = 3; {UNTRAINED} on ring at K = 3."
    )
    trained = planted({"SASRec": {0: (GOOD, GOOD)}, "Item-kNN": {0: (BAD, BAD)}})
    assert simple_leaders([standings(trained, "ring", 3)]) == "No simple system has the best MRR."


def test_what_the_users_can_show():
    generator = np.random.default_rng(0)
    mine, other = generator.integers(1, 9, USERS).tolist(), generator.integers(1, 9, USERS).tolist()
    outcome = planted({"Mine": {0: (mine, mine)}, "Other": {0: (other, other)}})
    differences = 1 / np.array(mine) - 1 / np.array(other)
    spread = stats.t.ppf([0.975, 0.8], USERS - 1).sum()
    detectable = float(spread * stats.sem(differences))
    text = why_not_ahead(outcome, standings(outcome, "ring", 3), "Mine")
    assert f"a difference of {detectable:.4f} between Mine and Other with probability 80 %" in text
    assert f"The measured difference is {differences.mean():+.4f}." in text
    users = float(f"{USERS * (detectable / differences.mean()) ** 2:.1e}")
    assert f"about {users:,.0f} users" in text


def test_a_row_that_is_ahead_needs_no_excuse():
    outcome = planted({"Mine": {0: (GOOD, GOOD)}, "Other": {0: (BAD, BAD)}})
    standing = standings(outcome, "ring", 3)
    assert why_not_ahead(outcome, standing, "Mine") is None
    assert why_not_ahead(outcome, standing, "Other") is not None
    assert why_not_ahead(outcome, standing, "Absent") is None
    alone = planted({"Mine": {0: (GOOD, GOOD)}})
    assert why_not_ahead(alone, standings(alone, "ring", 3), "Mine") is None


@pytest.mark.parametrize("users", [5, 40])
def test_the_detectable_difference_is_seen_with_its_power(users):
    """Simulated: a true difference of that size is rejected at 5 % about four times in five."""
    generator, draws = np.random.default_rng(1), 4000
    delta = detectable_difference(float(stats.t.ppf(0.975, users - 1)) / users**0.5, users)
    samples = generator.normal(delta, 1, (draws, users))
    seen = np.mean(stats.ttest_1samp(samples, 0, axis=1).pvalue < 0.05)
    # With few users the sum of two central quantiles is not exact; 5 users measure .77.
    assert seen == pytest.approx(0.8, abs=0.05)
    half = compare(samples[0], np.zeros(users))
    assert detectable_difference((half.high - half.low) / 2, users) > 0
