"""Compare each figure with its peers and its bar, from the JSON of pytest-benchmark."""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path

# The bars of the project: units per second, or ratios to a peer.
EPISODES = "episode sampling, K = 3"
RATES = {
    EPISODES: 10e6,
    "gather, score and rank 101 of 20,000 items, d = 100, on one thread": 1 / 0.7e-6,
    "full ranking, 20,000 items, d = 100": 60e3,
    "evaluation of a MetaTL `tuned`, adaptation included": 300e3,
    "lists of 10 of 800 wines for one new user of 3 items at a time, on one thread": 1 / 0.05e-3,
    "lists of 10 of 800 wines for 10,000 new users of 3 items": 400e3,
    "lists of 10 of 800 wines for 10,000 new users of 3 items, item-kNN": 100e3,
    "lists of 10 of 100,000 items in bf16 for one user at a time, on one thread": 1 / 1.5e-3,
    "lists of 10 of 1,000,000 items in int8 for one user at a time, on one thread": 1 / 20e-3,
    "start: `metatl-eval scores --help`": 1 / 0.3,
    **{
        f"training, `{preset}`{way}": bar
        for preset, bar in {"paper": 100e3, "official": 30e3, "tuned": 60e3}.items()
        for way in ("", ", compiled")
    },
}
RATIOS = {
    (EPISODES, "plain Python"): 250,
    ("candidate sets of 100", "numpy, with replacement"): 10,
    ("gather, score and rank 101 of 20,000 items, d = 100", "torch"): 20,
    ("candidates, gather, score, rank, metrics, bootstrap: 100 of 20,000 items, d = 100", "numpy"): 10,
}

HEADER = """# Performance

Units of work per second: the best of several rounds, with every peer in the same run on the same data. The
limit is what the arithmetic or the memory of this machine allows, measured right after: multiplications and
additions in registers, or reads of random rows. The share is the part of it that metatl reaches.
`benches/results/performance.json` has the same data. Regenerate with `make bench`.

Related pages: [how the cost grows](scaling.md), [where a training step's time goes](training_step.md),
[a training step beside RecBole's](training_peers.md), [evaluators side by side](evaluators.md),
[ranker, sampler and metrics beside implicit's and LensKit's](library_rankers.md),
[the memory that large data need](large_data.md), [training and ranking on a GPU](cuda.md),
[item tables in fewer bits](item_precision.md).

Machine: {machine}. Measured: {limits}.
"""

DIM, NUM_ITEMS, CANDIDATES, FLOAT = 100, 20_000, 101, 4
"""Sizes of the benchmarks of ranking; bytes of a number."""


@dataclass(frozen=True)
class Limits:
    """The limits of the machine, as measured by `kernels limits`.

    Attributes
    ----------
    threads, level
        Number of usable processors, and the instruction set of the kernels.
    cycles_per_second
        Clock rate of a core.
    operations_per_second
        Multiplications and additions in vector registers, without loads, by all threads together.
    bytes_per_second, bytes_per_second_on_one_thread
        Bandwidth of repeated reads of a table of 8 MB in order: by all threads together, and by one.
    row_bytes_per_second, row_bytes_per_second_on_one_thread
        Bandwidth of reads of random rows of that table, those to come prefetched.
    """

    threads: int
    level: str
    cycles_per_second: float
    operations_per_second: float
    bytes_per_second: float
    bytes_per_second_on_one_thread: float
    row_bytes_per_second: float
    row_bytes_per_second_on_one_thread: float

    def of(self, work: str) -> tuple[float, str] | None:
        """Return the possible units per second and what limits them; None if there is no simple limit."""
        row = DIM * FLOAT
        gather = "gather, score and rank 101 of 20,000 items, d = 100"
        rows = f"{CANDIDATES} random rows of {row} bytes a list"
        whole = self.operations_per_second / (2 * NUM_ITEMS * DIM)
        products = f"2 · {NUM_ITEMS:,} · {DIM} operations a user in `float32`"
        known = {
            gather: (self.row_bytes_per_second / (CANDIDATES * row), rows),
            f"{gather}, on one thread": (self.row_bytes_per_second_on_one_thread / (CANDIDATES * row), rows),
            "full ranking, 20,000 items, d = 100": (whole, products),
            "top 10 of 20,000 items, d = 100": (whole, products),
            "metrics of given scores, 101 a user": (
                self.bytes_per_second / (CANDIDATES * FLOAT),
                f"{CANDIDATES * FLOAT} bytes a user",
            ),
        }
        return known.get(work)

    def describe(self) -> str:
        return (
            f"{self.cycles_per_second / 1e9:.2f} GHz, {self.level}, "
            f"{self.operations_per_second / 1e9:.0f} GFLOP/s on {self.threads} threads; from a table of 8 MB "
            f"{self.bytes_per_second / 1e9:.0f} GB/s in order and {self.row_bytes_per_second / 1e9:.0f} GB/s "
            f"in random rows, on one thread {self.bytes_per_second_on_one_thread / 1e9:.0f} and "
            f"{self.row_bytes_per_second_on_one_thread / 1e9:.0f}"
        )


@dataclass(frozen=True)
class Row:
    """A figure of metatl, compared with one peer or none.

    Attributes
    ----------
    name, value, unit
        The work, and metatl's units of it per second.
    peer, peer_value, ratio
        The peer, its units per second, and how many times as fast metatl is.
    bar, holds
        The bar, and whether it is met: by `value` if there is no peer, else by `ratio`.
    limit, share
        The limit in units per second, and `value` as a share of it.
    limit_is
        Description of the limit.
    """

    name: str
    value: float
    unit: str
    peer: str | None = None
    peer_value: float | None = None
    ratio: float | None = None
    bar: float | None = None
    holds: bool | None = None
    limit: float | None = None
    share: float | None = None
    limit_is: str | None = None

    def markdown(self) -> str:
        bar = ""
        if self.bar is not None:
            bar = f"{self.bar:,.0f}" if self.peer is None else f"{self.bar} ×"
        cells = (
            self.name,
            f"{self.value:,.0f} {self.unit}" if self.peer is None else "",
            "" if self.peer is None else f"{self.peer}: {self.peer_value:,.0f}",
            "" if self.ratio is None else f"{self.ratio:.1f} ×",
            bar,
            "" if self.holds is None else ("yes" if self.holds else "**no**"),
            "" if self.share is None or self.peer is not None else f"{self.limit:,.0f}: {self.share:.0%}",
        )
        return f"| {' | '.join(cells)} |"

    def miss(self) -> str:
        """Describe a missed bar and the limit."""
        if self.peer is not None:
            return f"{self.name}: {self.ratio:.0f} × {self.peer}, bar {self.bar} ×."
        text = f"{self.name}: {self.value:,.0f} {self.unit} a second, bar {self.bar:,.0f}."
        if self.limit is None or self.share is None:
            return text
        beyond = ", which is below the bar" if self.limit < self.bar else ""
        return f"{text} The limit is {self.limit:,.0f}{beyond} ({self.limit_is}); reached: {self.share:.0%}."


def read_rows(results: dict, limits: Limits) -> list[Row]:
    """Compare metatl with every peer: first metatl with its bar and limit, then each peer."""
    found: dict[str, dict[str, tuple[float, str]]] = defaultdict(dict)
    for entry in results["benchmarks"]:
        info = entry["extra_info"]
        found[entry["group"]][info["system"]] = (info["units"] / entry["stats"]["min"], info["unit"])
    rows = []
    for work, systems in found.items():
        ours, unit = systems.pop("metatl")
        limit = limits.of(work)
        bound = {} if limit is None else {"limit": limit[0], "share": ours / limit[0], "limit_is": limit[1]}
        bar = RATES.get(work)
        rows.append(Row(work, ours, unit, bar=bar, holds=None if bar is None else ours >= bar, **bound))
        for system, (rate, _) in systems.items():
            bar, ratio = RATIOS.get((work, system)), ours / rate
            holds = None if bar is None else ratio >= bar
            rows.append(Row(work, ours, unit, system, rate, ratio, bar, holds, **bound))
    return rows


def why(missed: list[Row], rows: list[Row], limits: Limits) -> list[str]:
    """Say where the time goes in work that misses its bar."""
    texts = []
    names = {row.name for row in missed}
    of_thread = {row.name: 1e9 * limits.threads / row.value for row in rows}
    parts = [f"{EPISODES}{part}" for part in ("", ", without negatives", ", windows without negatives")]
    if EPISODES in names and all(part in of_thread for part in parts):
        whole, positives, windows = (of_thread[part] for part in parts)
        texts.append(
            f"An episode takes {whole:.0f} ns of a thread: {whole - positives:.0f} ns for its negatives and "
            f"{positives - windows:.0f} ns for the choice of K + 1 rows of a user. A window without "
            f"negatives, a copy of four neighbouring items, takes {windows:.0f} ns."
        )
        texts += [
            f"{row.bar} × {row.peer} would be {1e9 * limits.threads / (row.bar * row.peer_value):.0f} ns."
            for row in missed
            if row.name == EPISODES and row.bar is not None and row.peer_value is not None
        ]
    if any(name.startswith("training") for name in names):
        texts.append("[training_step.md](training_step.md) shows where the time of a training step goes.")
    return texts


def page(rows: list[Row], machine: str, limits: Limits) -> str:
    """Write the page: first the missed bars, then what is slower than a peer."""
    slower = [row for row in rows if row.ratio is not None and row.ratio < 1]
    missed = [row for row in rows if row.holds is False]
    lines = [
        HEADER.format(machine=machine, limits=limits.describe()),
        "## Missed bars\n",
        *([f"- {row.miss()}" for row in missed] or ["None."]),
        *(f"\n{text}" for text in why(missed, rows, limits)),
        "\n## Slower than a peer\n",
        *([f"- {row.name}: {row.ratio:.1f} × {row.peer}." for row in slower] or ["Nothing."]),
        "\n## All figures\n",
        "| work | metatl, a second | peer, a second | metatl is | bar | holds | limit: share |",
        "|---|---:|---|---:|---:|---|---:|",
        *(row.markdown() for row in rows),
    ]
    return "\n".join(lines) + "\n"


def describe_machine(results: dict) -> str:
    machine = results["machine_info"]
    cpu = machine["cpu"]
    return (
        f"{cpu['count']} cores, {cpu['brand_raw']}, {machine['system']}, Python {machine['python_version']}"
    )


def main(benchmarks: Path, limits_file: Path, markdown: Path) -> None:
    """Write the page, and its data in the folder of the benchmarks."""
    results = json.loads(benchmarks.read_text(encoding="utf-8"))
    limits = Limits(**json.loads(limits_file.read_text(encoding="utf-8")))
    rows, machine = read_rows(results, limits), describe_machine(results)
    markdown.write_text(page(rows, machine, limits), encoding="utf-8")
    data = {"machine": machine, "limits": asdict(limits), "results": [asdict(row) for row in rows]}
    path = benchmarks.with_name("performance.json")
    path.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
