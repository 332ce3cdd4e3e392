"""Measure how item tables in fewer bits change ranks and speed; write docs/item_precision.md.

    python benches/item_precision.py docs/item_precision.md wines NAME=PATH ...

MetaTL `tuned` is fitted on each data set at K = 3. The test users of the split are then ranked with its item
table, and with that table rounded to each smaller format. The speeds are measured first, on random tables.
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
"""A time is the least of at least so many rounds and so many seconds."""
KERNEL: dict[str, Any] = {
    "item_bias": None,
    "similarity": "squared_l2",
    "overrides": None,
    "num_threads": 1,
}

PAGE = """# Item tables in fewer bits

Ranking reads the table of item vectors. The table can be kept in `float32`, as models compute it, or
rounded to `bf16` (the upper half of a `float32`) or `int8` (integers with a scale for each item).

```
metatl-eval runs/wines --item-table int8
metatl recommend runs/wines --input visitors.csv --out recommended.parquet --item-table bf16
```

```python
metatl.evaluate(run, item_table="int8")
table = metatl.ItemTable.of(run.model, "int8")  # once, for many calls
metatl.recommend(run, histories, item_table=table)
```

`float32` is the default. Scores are those of the rounded numbers in `float32`, to the last bit. User
vectors, biases and the item vectors that adaptation changed for one user are not rounded. Models without
item vectors (popularity, item-kNN, session kNN, the Markov chain, MeLU) have nothing to round and raise an
error.

## What it saves

The table takes half the memory in `bf16` and about a quarter in `int8`. The times are those of the kernels
on one thread of an {machine}, d = {dim}, the least of several calls. The factor in brackets is the speed
relative to `float32`.

{speeds}
Ranking for one user reads the whole table, and ranking candidates reads rows of it. With a large table,
reading takes much of the time, and `int8` gains most. Each number is first converted to `float32`, so the
gain in time is smaller than the gain in memory. Many users at once share the reads and the conversions:
products take their time, and only memory is saved. The times exclude the computation of the users' vectors,
which does not depend on the table. The model keeps its own vectors; only the table that ranking reads is
smaller.

## What it changes

MetaTL `tuned`, K = {k}, is fitted once on each data set. Its item table is rounded to each format, and the
test users of the split are ranked again. Agreement is with the ranks of the `float32` table. `int16`, also
integers with a scale, is shown for comparison and is not available.

{tables}
Means hardly change, but single ranks do: in `int8` a third to two thirds of the users get another rank in
the full catalogue. A comparison of systems should rank all of them with the same format.

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
    """Round each row to integers up to 32,767 times a scale of its own, in float32."""
    scales = np.maximum(np.abs(table).max(axis=1, keepdims=True) / 32_767, np.finfo(np.float32).tiny)
    return ItemTable.float32((np.rint(table / scales) * scales).astype(np.float32))


class Format(NamedTuple):
    """A format for the numbers of a row."""

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
    """Return the least time of each call over several rounds; the calls alternate, so noise affects all.

    It uses the wall clock, because the processor clock skips on some virtual machines.
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
    """Users to rank on one thread: their vectors, and candidates with the target first."""

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
        """No excluded items."""
        return np.zeros(len(self.queries) + 1, np.int64), np.zeros(0, np.int64)


def speeds() -> str:
    """Time every kind of ranking with each format."""
    head = " | ".join(form.name for form in OFFERED)
    return f"| work | {head} |\n|---|{'---:|' * len(OFFERED)}\n" + "".join(
        speeds_of(items) for items in (CATALOGUE, LARGE_CATALOGUE)
    )


def speeds_of(items: int) -> str:
    """Time every kind of ranking in a catalogue of `items` items."""
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
    """Ranks among 101 and in the catalogue and the best items of each test user; mean reciprocal ranks."""

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
    """Fit on a data set and compare the formats."""
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
