"""Put each figure beside its peers and its bar, from pytest-benchmark's JSON; fail where a peer is faster."""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

# Units a second, or a ratio to a peer: the bars of the project.
RATES = {
    "episode sampling, K = 3": 10e6,
    "gather, score and rank 101 of 20,000 items, d = 100, on one thread": 1 / 0.7e-6,
    "full ranking, 20,000 items, d = 100": 60e3,
    "evaluation of a MetaTL `tuned`, adaptation included": 50e3,
    "start: `metatl-eval scores --help`": 1 / 0.3,
    "training, `paper`": 100e3,
    "training, `official`": 30e3,
    "training, `tuned`": 60e3,
}
RATIOS = {
    ("episode sampling, K = 3", "plain Python"): 250,
    ("candidate sets of 100", "numpy, with replacement"): 10,
    ("gather, score and rank 101 of 20,000 items, d = 100", "torch"): 20,
    ("candidates, gather, score, rank, metrics, bootstrap: 100 of 20,000 items, d = 100", "numpy"): 10,
}

HEADER = """# Performance

Units of work a second, the best of several rounds, every peer in the same run on the same data. Regenerate
with `make bench`.

Machine: {machine}.

| work | system | rate | metatl is | bar | holds |
|---|---|---|---|---|---|
"""


@dataclass(frozen=True)
class Row:
    """A line of the table."""

    work: str
    system: str
    rate: float
    unit: str
    ratio: float | None
    bar: str
    holds: bool | None

    def markdown(self) -> str:
        ratio = "" if self.ratio is None else f"{self.ratio:.1f} × as fast"
        holds = "" if self.holds is None else ("yes" if self.holds else "**no**")
        return (
            f"| {self.work} | {self.system} | {self.rate:,.0f} {self.unit} | {ratio} | {self.bar} | {holds} |"
        )


def read_rows(results: dict) -> list[Row]:
    """Compare every system of a work with metatl."""
    found: dict[str, dict[str, tuple[float, str]]] = defaultdict(dict)
    for entry in results["benchmarks"]:
        info = entry["extra_info"]
        found[entry["group"]][info["system"]] = (info["units"] / entry["stats"]["min"], info["unit"])
    rows = []
    for work, systems in found.items():
        ours, _ = systems["metatl"]
        for system, (rate, unit) in systems.items():
            if system == "metatl":
                bar = RATES.get(work)
                text = "" if bar is None else f"{bar:,.0f}"
                rows.append(Row(work, system, rate, unit, None, text, None if bar is None else ours >= bar))
            else:
                bar = RATIOS.get((work, system))
                text = "" if bar is None else f"{bar} ×"
                holds = None if bar is None else ours / rate >= bar
                rows.append(Row(work, system, rate, unit, ours / rate, text, holds))
    return rows


def describe_machine(results: dict) -> str:
    machine = results["machine_info"]
    cpu = machine["cpu"]
    return (
        f"{cpu['count']} cores, {cpu['brand_raw']}, {machine['system']}, Python {machine['python_version']}"
    )


def main(benchmarks: Path, page: Path) -> int:
    """Write the page and print its table; 1 where something is slower than its peer, else 0."""
    results = json.loads(benchmarks.read_text(encoding="utf-8"))
    rows = read_rows(results)
    table = "\n".join(row.markdown() for row in rows) + "\n"
    page.write_text(HEADER.format(machine=describe_machine(results)) + table, encoding="utf-8")
    print(table)
    slower = [row for row in rows if row.ratio is not None and row.ratio < 1]
    for row in slower:
        print(f"slower than its peer: {row.work}: {row.system}", file=sys.stderr)
    return 1 if slower else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
