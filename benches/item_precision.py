"""What item tables in fewer bits do to ranks, and what they save; write docs/item_precision.md.

    python benches/item_precision.py docs/item_precision.md wines NAME=PATH ...

Each data set gets a MetaTL `tuned`, fitted at K = 3. The test users of the split are then ranked with its
item table as it is, and with that table rounded to what a smaller format can hold. The speeds are those of
random tables, and are measured first.
"""

from __future__ import annotations

import argparse
import math
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import cpuinfo
import numpy as np
from scipy.stats import kendalltau

import metatl
from metatl import ItemTable, _metatl
from metatl.common.files import write_text
from metatl.evaluation.evaluate_runs import rank_users
from metatl.metrics.rank_metrics import mean_metrics

if TYPE_CHECKING:
    from collections.abc import Callable

    from metatl.models.contract import FactorisedModel

K, TOP = 3, 10
CATALOGUE, LARGE_CATALOGUE, DIM = 20_000, 1_000_000, 100
USERS, LISTS, WIDTH = 1_000, 4_096, 101
SECONDS, ROUNDS = 4.0, 3
"""Times are the least of so many rounds at least, and of so many seconds of them."""
KERNEL: dict[str, Any] = {
    "item_bias": None,
    "similarity": "squared_l2",
    "overrides": None,
    "num_threads": 1,
}

PAGE = """# Item tables in fewer bits

Ranking reads the table of item vectors. It can be kept in `float32`, as models compute it, or rounded: to
`bf16`, the upper halves of `float32`, or to `int8`, whole numbers with a scale for each item.

```
metatl-eval runs/wines --item-table int8
metatl recommend runs/wines --input visitors.csv --out recommended.parquet --item-table bf16
```

```python
metatl.evaluate(run, item_table="int8")
table = metatl.ItemTable.of(run.model, "int8")  # once, for many calls
metatl.recommend(run, histories, item_table=table)
```

`float32` is the default. Scores are those of the rounded numbers in `float32`, to the last bit. Users'
vectors, biases and what adaptation moved for one user are not rounded. Models without item vectors
(popularity, item-kNN, session kNN, a Markov chain, MeLU) have nothing to round: an error says so.

## What it saves

The table takes half of the memory in `bf16` and about a quarter in `int8`. Times are those of the
kernels on one thread of an {machine}, d = {dim}, the least of several calls; in brackets, how
many times as fast as `float32`.

{speeds}
Where the table is read for one user, or rows of a large one for each candidate, reading it takes much of the
time, and `int8` gains most. Each number has to become `float32` first, so nothing gains as much as it saves
bytes. Many users at once share what is read and written out: their time goes into products, and only memory
is saved. Making a user's vector costs the same whatever the table, and is not in these times. The model keeps
its own vectors: what is saved is what ranking reads.

## What it changes

MetaTL `tuned`, K = {k}, fitted once on each data set; its item table is rounded to what a format can hold,
and the test users of the split are ranked again. Agreement is with the ranks of the table in `float32`.
`int16`, whole numbers with a scale too, is here for comparison and not offered.

{tables}
Means hardly move, single ranks do: in eight bits a third to two thirds of the users get another rank in the
full catalogue. A comparison of systems should rank all of them with the same format.

Regenerate with `python benches/item_precision.py docs/item_precision.md wines NAME=PATH …`.
"""

HEAD = """### {name}

{users:,} users, {items:,} items, d = {dim}.

{head}
|---|{rule}
"""


COLUMNS = (
    "bytes an item",
    "same rank of 101",
    "same rank, full",
    "largest change, full",
    "Kendall τ, full",
    f"same top {TOP}, as a set",
    "MRR of 101",
    "MRR, full",
)


def to_int16(table: np.ndarray) -> ItemTable:
    """Round each row to whole numbers up to 32,767, times a scale of its own; written out in float32."""
    scales = np.maximum(np.abs(table).max(axis=1, keepdims=True) / 32_767, np.finfo(np.float32).tiny)
    return ItemTable.float32((np.rint(table / scales) * scales).astype(np.float32))


class Format(NamedTuple):
    """A way to keep the numbers of a row."""

    name: str
    rounded: Callable[[np.ndarray], ItemTable]
    bytes_a_number: int
    bytes_a_row: int


FORMATS = (
    Format("`float32`", ItemTable.float32, 4, 0),
    Format("`int16`", to_int16, 2, 4),
    Format("`bf16`", ItemTable.bf16, 2, 0),
    Format("`int8`", ItemTable.int8, 1, 4),
)
OFFERED = tuple(form for form in FORMATS if form.rounded is not to_int16)


def least_seconds(calls: list[Callable[[], object]]) -> list[float]:
    """The least times of several calls each, in turn: what disturbs one disturbs them all.

    By the clock on the wall: that of the processor has been seen to skip on virtual machines.
    """
    least, end, rounds = [math.inf] * len(calls), time.perf_counter() + SECONDS, 0
    while rounds < ROUNDS or time.perf_counter() < end:
        for place, call in enumerate(calls):
            start = time.perf_counter()
            call()
            least[place] = min(least[place], time.perf_counter() - start)
        rounds += 1
    return least


def shown(seconds: float) -> str:
    return f"{1e6 * seconds:,.0f} µs" if seconds < 1e-3 else f"{1e3 * seconds:,.1f} ms"


class Users(NamedTuple):
    """Users to be ranked on one thread: vectors, and candidates with the target first."""

    queries: np.ndarray
    candidates: np.ndarray

    def first(self, count: int) -> Users:
        return Users(self.queries[:count], self.candidates[:count])

    def best(self, table: ItemTable) -> object:
        return _metatl.top_n(self.queries, table.arrays, TOP, *self._seen, **KERNEL)

    def full(self, table: ItemTable) -> object:
        targets = np.ascontiguousarray(self.candidates[:, 0])
        return _metatl.rank_catalogue(self.queries, table.arrays, targets, *self._seen, **KERNEL)

    def sampled(self, table: ItemTable) -> object:
        return _metatl.rank_candidates(self.queries, table.arrays, self.candidates, **KERNEL)

    @property
    def _seen(self) -> tuple[np.ndarray, np.ndarray]:
        """Nothing was seen."""
        return np.zeros(len(self.queries) + 1, np.int64), np.zeros(0, np.int64)


def speeds() -> str:
    """Time every way of ranking with each format."""
    head = " | ".join(form.name for form in OFFERED)
    return f"| work | {head} |\n|---|{'---:|' * len(OFFERED)}\n" + "".join(
        speeds_of(items) for items in (CATALOGUE, LARGE_CATALOGUE)
    )


def speeds_of(items: int) -> str:
    """Time them in a catalogue of a size."""
    generator = np.random.default_rng(0)
    numbers = generator.normal(size=(items, DIM)).astype(np.float32)
    tables = [form.rounded(numbers) for form in OFFERED]
    queries = generator.normal(size=(LISTS, DIM)).astype(np.float32)
    users = Users(queries, generator.integers(0, items, (LISTS, WIDTH)))
    one, many = users.first(1), users.first(USERS)
    works = {
        f"top {TOP} of {items:,}, one user": one.best,
        f"top {TOP} of {items:,}, {USERS:,} users": many.best,
        f"full ranking of {items:,}, one user": one.full,
        f"full ranking of {items:,}, {USERS:,} users": many.full,
        f"ranks among {WIDTH} of {items:,}, {LISTS:,} users": users.sampled,
    }
    lines = []
    for name, work in works.items():
        exact, *others = least_seconds([partial(work, table) for table in tables])
        cells = [shown(exact), *(f"{shown(other)} ({exact / other:.2f} ×)" for other in others)]
        lines.append(f"| {name} | {' | '.join(cells)} |\n")
    rounding = map(
        shown, least_seconds([partial(form.rounded, numbers, num_threads=1) for form in OFFERED[1:]])
    )
    lines.append(f"| rounding the table of {items:,} | | {' | '.join(rounding)} |\n")
    return "".join(lines)


class Ranked(NamedTuple):
    """Of each test user: rank among 101, rank in the catalogue, the best items; mean reciprocal ranks."""

    sampled: np.ndarray
    full: np.ndarray
    lists: np.ndarray
    sampled_mrr: float
    full_mrr: float


def rank(
    model: FactorisedModel, split: metatl.ColdStartSplit, candidates: np.ndarray, table: ItemTable
) -> Ranked:
    """Rank the test users."""
    ranks = rank_users(model, split, split.test, candidates, top=TOP, item_table=table)
    assert ranks.sampled is not None
    assert ranks.lists is not None
    return Ranked(
        ranks.sampled.greater + ranks.sampled.equal,
        ranks.full.greater + ranks.full.equal,
        np.sort(ranks.lists, axis=1),
        mean_metrics(*ranks.sampled)["MRR"],
        mean_metrics(*ranks.full)["MRR"],
    )


def table_of(name: str, data: str) -> str:
    """Fit on a data set, and compare the formats."""
    interactions = metatl.datasets.xwines() if data == "wines" else metatl.read_interactions(Path(data))
    run = metatl.fit(interactions, preset="tuned", k=K, seed=0, device="cpu")
    split = metatl.cold_start_split(interactions, k=K)
    candidates = metatl.sample_candidate_sets(split, split.test).candidates
    model = cast("FactorisedModel", run.model)
    table = ItemTable.of(model, "float32").numbers
    exact = None
    head = {"head": f"| item table | {' | '.join(COLUMNS)} |", "rule": "---:|" * len(COLUMNS)}
    lines = [HEAD.format(name=name, users=len(split.test), items=len(table), dim=table.shape[1], **head)]
    for form in FORMATS:
        found = rank(model, split, candidates, form.rounded(table))
        exact = exact or found
        figures = (
            f"{form.bytes_a_number * table.shape[1] + form.bytes_a_row:,}",
            f"{(found.sampled == exact.sampled).mean():.2%}",
            f"{(found.full == exact.full).mean():.2%}",
            f"{np.abs(found.full - exact.full).max():,}",
            f"{kendalltau(found.full, exact.full).statistic:.5f}",
            f"{(found.lists == exact.lists).all(axis=1).mean():.2%}",
            f"{found.sampled_mrr:.5f}",
            f"{found.full_mrr:.5f}",
        )
        lines.append(f"| {form.name} | " + " | ".join(figures) + " |\n")
    return "".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("page", type=Path)
    parser.add_argument("data", nargs="+", help="wines, or NAME=PATH")
    arguments = parser.parse_args()
    times, tables = speeds(), []
    for source in arguments.data:
        name, _, path = source.partition("=")
        tables.append(table_of(name, path or name))
    machine = cpuinfo.get_cpu_info()["brand_raw"]
    page = PAGE.format(machine=machine, dim=DIM, speeds=times, k=K, tables="\n".join(tables))
    write_text(arguments.page, page)


if __name__ == "__main__":
    main()
