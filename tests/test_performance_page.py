"""The page of speeds: ratios, bars and limits from a planted benchmark file."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benches"))

import summary

RANKING = "full ranking, 20,000 items, d = 100"
EPISODES = "episode sampling, K = 3"
LIMITS = {
    "threads": 2,
    "level": "avx2",
    "cycles_per_second": 3e9,
    "bytes_per_second": 8e10,
    "bytes_per_second_on_one_thread": 4e10,
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
        code = summary.main(benchmarks, limits, tmp_path / "page.md")
        data = json.loads((tmp_path / "performance.json").read_text())
        return code, (tmp_path / "page.md").read_text(), data

    return run


def test_a_bar_beyond_the_limit_is_listed_first(files):
    code, page, data = files(entry(RANKING, "metatl", 24_000.0), entry(RANKING, "torch", 4_000.0))
    assert code == 0
    # 2 threads · 3 GHz · 32 operations over 2 · 20,000 · 100 of them a user.
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
    _, page, data = files(*entries)
    assert f"- {EPISODES}: 200 × plain Python, bar 250 ×." in page
    assert data["results"][0]["holds"] is True
    assert data["results"][1]["holds"] is False
    assert data["results"][0]["limit"] is None


def test_slower_than_a_peer_fails(files, capsys):
    code, page, _ = files(entry("work", "metatl", 10.0), entry("work", "numpy", 20.0))
    assert code == 1
    assert "slower than its peer: work: numpy" in capsys.readouterr().err
    assert "## Bars that do not hold\n\nNone.\n" in page
