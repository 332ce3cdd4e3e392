"""Read pytest-benchmark's JSON: print each figure beside its peers and bars; fail where a peer is faster."""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

# Units a second, or a ratio to a peer: the bars of the project.
RATES = {
    "episode sampling, K = 3": 10e6,
    "full ranking, 20,000 items, d = 100": 60e3,
    "evaluation of a MetaTL `tuned`, adaptation included": 50e3,
    "training, `paper`": 100e3,
    "training, `official`": 30e3,
    "training, `tuned`": 60e3,
}
RATIOS = {
    ("episode sampling, K = 3", "plain Python"): 250,
    ("candidate sets of 100", "numpy, with replacement"): 10,
    ("gather, score and rank 101 of 20,000 items, d = 100", "torch"): 20,
}


def rates(path: Path) -> dict[str, dict[str, tuple[float, str]]]:
    """Units a second of each system by work; the best round counts, for others share the machine."""
    found: dict[str, dict[str, tuple[float, str]]] = defaultdict(dict)
    for entry in json.loads(path.read_text(encoding="utf-8"))["benchmarks"]:
        info = entry["extra_info"]
        found[entry["group"]][info["system"]] = (info["units"] / entry["stats"]["min"], info["unit"])
    return found


def main(path: Path) -> int:
    """Print the table; 1 where something is slower than its peer, else 0."""
    table = Table(title="Units a second, best of the rounds")
    for column in ("work", "system", "rate", "metatl is", "bar", "holds"):
        table.add_column(column, justify="left" if column in ("work", "system") else "right")
    slower = []
    for work, systems in rates(path).items():
        ours, unit = systems["metatl"]
        for system, (rate, _) in systems.items():
            ratio = ours / rate
            bar, holds = "", ""
            if system == "metatl" and work in RATES:
                bar, holds = f"{RATES[work]:,.0f}", "yes" if ours >= RATES[work] else "no"
            elif (work, system) in RATIOS:
                bar, holds = f"{RATIOS[work, system]} ×", "yes" if ratio >= RATIOS[work, system] else "no"
            comparison = "" if system.startswith("metatl") else f"{ratio:.1f} × as fast"
            table.add_row(
                work if system == "metatl" else "", system, f"{rate:,.0f} {unit}", comparison, bar, holds
            )
            if ratio < 1 and not system.startswith("metatl"):
                slower.append(f"{work}: {system}")
    Console(width=140).print(table)
    for what in slower:
        print(f"slower than its peer: {what}", file=sys.stderr)
    return 1 if slower else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
