"""The page of results: what it says of who is ahead, and its intervals."""

from __future__ import annotations

import polars as pl
import pytest
from click.testing import CliRunner

from metatl.cli.metatl.results import results
from metatl.evaluation.report.pages import Image, markdown
from metatl.experiments.outcome import Outcome
from metatl.experiments.results_page import results_page
from metatl.experiments.table_rows import KNN, OFFICIAL, TUNED, UNTRAINED, WITHOUT_STEP, table_rows
from planted_outcome import planted

USERS = 60


def ranks(place, seed=0):
    """More users at rank 1 the higher the place: MRR = 1/2 + (place + seed) / (2 · 60)."""
    first = place + seed
    return [1] * first + [2] * (USERS - first)


def page(seeds, *, finished=None, k=3, titles=None):
    rows = [row.title for row in table_rows("tuned")]
    found = {
        title: {
            seed: (ranks(2 * place, seed), ranks(2 * place, seed))
            for seed in range(seeds if title != OFFICIAL else finished or seeds)
        }
        for place, title in enumerate(rows, start=1)
        if titles is None or title in titles
    }
    return markdown(results_page(planted(found, k=k), ["ring"], ks=[k], seeds=seeds)), {
        title: 0.5 + 2 * place / (2 * USERS) for place, title in enumerate(rows, start=1)
    }


def test_the_page_says_how_tuned_stands():
    text, means = page(seeds=3)
    # Over seeds 0, 1 and 2 the mean moves by 1/120: t(.975, 2) · (1/120) / √3.
    mean, half = means[TUNED] + 1 / 120, 4.302652729749464 / 120 / 3**0.5
    assert f"| **{mean:.4f} ± {half:.4f}** |" in text
    assert "60 test users" in text
    assert f"{mean / (means[OFFICIAL] + 1 / 120):.2f} times" in text
    for one, other, what in (
        (TUNED, KNN, "item-kNN, paired MRR difference"),
        (TUNED, WITHOUT_STEP, "the effect of the inner step"),
        (WITHOUT_STEP, UNTRAINED, "the effect of the outer loop"),
    ):
        assert f"{what}: {means[one] - means[other]:+.4f} ± 0.0000 sampled" in text
    assert "bootstrap interval of `tuned` over the test users is" in text
    assert f"- Sampled: {TUNED} has the best MRR, but not significantly (+0.0167 to {WITHOUT_STEP}" in text


def test_advice_comes_first():
    text, _ = page(seeds=2)
    before, _, _ = text.partition("## How it was measured")
    assert "No simple system has the best MRR." in before
    assert "- ring, K = 3: MetaTL `tuned` has the best MRR among 100 negatives and in the full cat" in before
    both = planted({"A": {0: (ranks(9), ranks(1))}, "B": {0: (ranks(1), ranks(9))}})
    text = markdown(results_page(both, ["ring"], ks=[3], seeds=1))
    assert "- ring, K = 3: A has the best MRR among 100 negatives and B in the full catalogue." in text


def test_every_k_has_its_table():
    parts = [planted({"A": {0: (ranks(9), ranks(9))}}, k=k) for k in (2, 4)]
    outcome = Outcome(
        parts[0].results.vstack(parts[1].results), {**parts[0].ranks, **parts[1].ranks}, failures=[]
    )
    text = markdown(results_page(outcome, ["ring", "absent"], ks=[2, 3, 4], seeds=1))
    assert text.index("### ring, K = 2") < text.index("### ring, K = 4")
    assert "### ring, K = 3" not in text


def test_several_k_have_a_picture():
    parts = [planted({TUNED: {0: (ranks(9), ranks(9))}}, k=k) for k in (2, 4)]
    outcome = Outcome(
        parts[0].results.vstack(parts[1].results), {**parts[0].ranks, **parts[1].ranks}, failures=[]
    )
    both = results_page(outcome, ["ring"], ks=[2, 4], seeds=1)
    (image,) = (part for part in both if isinstance(part, Image))
    assert image.content.startswith(b"\x89PNG")
    assert f"]({image.file})" in markdown(both)
    assert not any(isinstance(part, Image) for part in results_page(outcome, ["ring"], ks=[2], seeds=1))


def test_what_is_good_on_all_data_sets_is_said_for_each_k():
    both, worse = {0: (ranks(9), ranks(9))}, {0: ([40] * USERS, [40] * USERS)}
    parts = [
        planted({"A": both, "B": worse}, dataset="ring"),
        planted({"A": both, "B": both}, dataset="star"),
        planted({"A": both, "B": both}, dataset="ring", k=2),
    ]
    outcome = Outcome(
        pl.concat([part.results for part in parts]),
        {key: rank for part in parts for key, rank in part.ranks.items()},
        [],
    )
    text = markdown(results_page(outcome, ["ring", "star"], ks=[2, 3], seeds=1))
    assert "- K = 3: A is as good as the best on all of ring and star.\n" in text
    assert "- K = 2: " not in text


def test_a_row_of_fewer_seeds_says_so():
    text, _ = page(seeds=3, finished=2)
    assert "| MetaTL `official` (2 of 3 seeds) |" in text
    assert "| MetaTL `tuned` |" in text


def test_systems_that_are_missing_are_left_out():
    text, _ = page(seeds=2, titles={TUNED})
    assert "| MetaTL `tuned` | **" in text
    assert "item-kNN, paired" not in text
    assert "- Sampled: MetaTL `tuned` has the best MRR." in text


def test_one_seed_has_the_interval_over_users():
    text, means = page(seeds=1)
    assert "nan" not in text
    assert "±" not in text.split("## ring")[1]
    assert f"**{means[TUNED]:.4f} [{means[TUNED] - 0.05:.4f}, {means[TUNED] + 0.05:.4f}]**" in text


@pytest.mark.parametrize("only", [["--only-finished"], []])
def test_the_command(tmp_path, monkeypatch, only):
    """The page from the cells that are there: none, and without fitting any."""
    monkeypatch.setattr("metatl.experiments.grid.work", lambda *_, **__: (yield from ()))
    path = tmp_path / "results.md"
    options = ["--data", "wines", "--seeds", "1", "--out", str(tmp_path / "out"), "--markdown", str(path)]
    result = CliRunner().invoke(results, [*options, *only])
    assert result.exit_code == 0, result.output
    assert path.read_text(encoding="utf-8").startswith("# Results\n")
