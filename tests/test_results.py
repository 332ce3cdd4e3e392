"""The page of results: intervals over seeds, and what it says of them."""

from __future__ import annotations

import pytest
from scipy import stats

from metatl.experiments.results import ENTRIES, METRICS, OFFICIAL, TUNED, interval, write_markdown


def report(mrr, seed):
    metrics = {name: {"value": mrr, "low": mrr - 0.05, "high": mrr + 0.05} for name in METRICS}
    return {
        "metrics": {"sampled": metrics, "full": metrics},
        "dataset": {"test_users": 1234},
        "model": {"seed": seed},
    }


def page(tmp_path, seeds, *, finished=None):
    """Row p has the values p/10, p/10 + .01, …; two rows differ by the same in each seed."""
    rows = {
        entry.title: [
            report(0.1 * place + 0.01 * seed, seed)
            for seed in range(seeds if entry.title != OFFICIAL else finished or seeds)
        ]
        for place, entry in enumerate(ENTRIES, start=1)
    }
    write_markdown(tmp_path / "results.md", {"ring": rows}, k=3, seeds=seeds)
    return (tmp_path / "results.md").read_text(encoding="utf-8")


def test_the_interval_is_that_of_scipy():
    values = [0.31, 0.29, 0.33, 0.30, 0.32]
    low, high = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    mean, half = interval(values)
    assert mean == pytest.approx((low + high) / 2)
    assert half == pytest.approx((high - low) / 2)


def test_the_page_says_how_tuned_stands(tmp_path):
    text = page(tmp_path, seeds=3)
    assert "| MetaTL `tuned` | **0.9100 ± 0.0248** |" in text
    assert "1,234 test users" in text
    assert f"{0.91 / 0.61:.2f} times" in text
    assert "item-kNN, paired MRR difference: +0.5000 ± 0.0000 sampled" in text
    assert "what the inner step adds: +0.1000 ± 0.0000 sampled" in text
    assert "what the outer loop adds: +0.1000 ± 0.0000 sampled" in text
    assert "bootstrap interval of `tuned` is 0.8500 to 0.9500" in text
    assert "- ring: MetaTL `tuned` has the best MRR among 100 negatives" in text


def test_a_row_of_fewer_seeds_says_so(tmp_path):
    text = page(tmp_path, seeds=3, finished=2)
    assert "| MetaTL `official` (2 of 3 seeds) | 0.6050" in text
    assert "| MetaTL `tuned` | " in text


def test_systems_that_are_missing_are_left_out(tmp_path):
    write_markdown(tmp_path / "results.md", {"ring": {TUNED: [report(0.5, 0)]}}, k=3, seeds=1)
    text = (tmp_path / "results.md").read_text(encoding="utf-8")
    assert "| MetaTL `tuned` | **0.5000** |" in text
    assert "item-kNN, paired" not in text


def test_one_seed_has_no_interval(tmp_path):
    text = page(tmp_path, seeds=1)
    assert "nan" not in text
    assert "±" not in text.split("## ring")[1]
