"""The page of results: intervals over seeds, and what it says of them."""

from __future__ import annotations

import pytest
from scipy import stats

from metatl.experiments.results import ENTRIES, METRICS, interval, write_markdown


def report(mrr):
    metrics = {name: {"value": mrr} for name in METRICS}
    return {"metrics": {"sampled": metrics, "full": metrics}, "dataset": {"test_users": 1234}}


def page(tmp_path, seeds):
    rows = {
        entry.title: [report(0.1 * place + 0.01 * seed) for seed in range(seeds)]
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
    # Row p has the values p/10, p/10 + .01, p/10 + .02; two rows differ by the same in each seed.
    assert "| MetaTL `tuned` | **0.6100 ± 0.0248** |" in text
    assert "1,234 test users" in text
    assert f"{0.61 / 0.41:.2f} times" in text
    assert "item-kNN, paired MRR difference: +0.4000 ± 0.0000 sampled" in text


def test_one_seed_has_no_interval(tmp_path):
    text = page(tmp_path, seeds=1)
    assert "nan" not in text
    assert "±" not in text.split("## ring")[1]
