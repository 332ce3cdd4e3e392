"""The page of speeds: ratios, bars and limits from a planted benchmark file."""

from __future__ import annotations

import json

import pytest

import summary

RANKING = "full ranking, 20,000 items, d = 100"
EPISODES = "episode sampling, K = 3"
LIMITS = {
    "threads": 2,
    "level": "avx2",
    "cycles_per_second": 3e9,
    "operations_per_second": 1.92e11,
    "bytes_per_second": 8e10,
    "bytes_per_second_on_one_thread": 4e10,
    "row_bytes_per_second": 6e10,
    "row_bytes_per_second_on_one_thread": 3e10,
}


def entry(work, system, rate, unit="users"):
    info = {"system": system, "units": 100.0, "unit": unit}
    return {"group": work, "extra_info": info, "stats": {"min": 100.0 / rate}}


@pytest.fixture
def files(tmp_path):
    benchmarks, limits = tmp_path / "benchmarks.json", tmp_path / "limits.json"
    limits.write_text(json.dumps(LIMITS))

    def run(*entries):
        cpu = {"count": 2, "brand_raw": "chip"}
        machine = {"cpu": cpu, "system": "Linux", "python_version": "3"}
        benchmarks.write_text(json.dumps({"benchmarks": list(entries), "machine_info": machine}))
        summary.main(benchmarks, limits, tmp_path / "page.md")
        data = json.loads((tmp_path / "performance.json").read_text())
        return (tmp_path / "page.md").read_text(), data

    return run


def test_a_bar_beyond_the_limit_is_listed_first(files):
    page, data = files(entry(RANKING, "metatl", 24_000.0), entry(RANKING, "torch", 4_000.0))
    # The operations a second, over 2 · 20,000 · 100 of them a user.
    assert (
        f"- {RANKING}: 24,000 users a second, bar 60,000. The limit is 48,000, which is below the bar "
        "(2 · 20,000 · 100 operations a user in `float32`); reached: 50%."
        in page.partition("## All figures")[0]
    )
    ours, peer = data["results"]
    assert (ours["value"], ours["bar"], ours["holds"], ours["peer"]) == (24_000.0, 60_000.0, False, None)
    assert ours["limit"] == pytest.approx(48_000)
    assert ours["share"] == pytest.approx(0.5)
    assert (peer["peer"], peer["ratio"], peer["bar"], peer["holds"]) == ("torch", 6.0, None, None)


def test_bars_of_ratios(files):
    entries = [entry(EPISODES, "metatl", 20e6, "episodes"), entry(EPISODES, "plain Python", 1e5, "episodes")]
    page, data = files(*entries)
    assert f"- {EPISODES}: 200 × plain Python, bar 250 ×." in page
    assert data["results"][0]["holds"] is True
    assert data["results"][1]["holds"] is False
    assert data["results"][0]["limit"] is None


def test_what_is_slower_than_a_peer_is_listed(files):
    page, _ = files(entry("work", "metatl", 10.0), entry("work", "numpy", 20.0))
    before = page.partition("## All figures")[0]
    assert "## Missed bars\n\nNone.\n" in before
    assert "## Slower than a peer\n\n- work: 0.5 × numpy.\n" in before


def test_a_missed_bar_says_where_the_time_goes(files):
    parts = {"": 20e6, ", without negatives": 40e6, ", windows without negatives": 50e6}
    ours = [entry(f"{EPISODES}{part}", "metatl", rate, "episodes") for part, rate in parts.items()]
    page, _ = files(*ours, entry(EPISODES, "plain Python", 1e5, "episodes"))
    before = page.partition("## All figures")[0]
    assert "An episode takes 100 ns of a thread: 50 ns for its negatives and 10 ns for the choice" in before
    assert "takes 40 ns." in before
    assert "250 × plain Python would be 80 ns." in before
