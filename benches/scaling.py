"""Measure the cost of a unit of work against the number of users, items, dimensions, K and threads.

    python benches/scaling.py docs/scaling.md

writes the table and its plots (`docs/scaling.svg`). It takes a few minutes and 8 GB.
"""

from __future__ import annotations

import itertools
import math
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import cpuinfo
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, NullLocator

from metatl import _metatl
from metatl.common.files import write_text
from metatl.evaluation.report.plots import svg

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

USERS = (10**3, 10**4, 10**5, 10**6, 10**7)
ITEMS = (10**4, 10**5, 10**6, 10**7)
DIMENSIONS = (16, 32, 64, 128, 256, 512)
KS = (2, 3, 5, 10, 20, 50)
BATCH = 2**16
"""Episodes, or users whose candidates are drawn, in a call."""
CATALOGUE = 20_000
DIM = 32
"""Dimensions in the curves over the number of items; ten million items of 128 would not fit in memory."""
ROW_LENGTH = 8
COUNT = 100
SECONDS, CALLS = 1.0, 3
"""A point is the best of at least so many calls and so many seconds."""

HEADER = """# How the cost grows

The cost of a unit of work as the size grows: the best of several calls of a kernel, on {threads} threads of
an {machine}. The slope is that of a straight line fitted to the logarithms: 0 for a constant cost, 1 for a
cost proportional to the size. Regenerate with `python benches/scaling.py docs/scaling.md`.

![Plots of the tables below](scaling.svg)
"""

NOTES = """
An episode reads its user's row: with ten thousand times as many users, the rows are no longer in the caches
and an episode costs two to four times as much. A list of candidates reads {lines} cache lines of the item
table. The cost of drawing candidates depends on their number, not on the size of the catalogue. A full
ranking reads every item once for a block of users, and its cost is that of the products. Ten million items
are ranked for {queries} users in a call.
"""


@dataclass(frozen=True)
class Curve:
    """The cost of one unit of work along one axis.

    Attributes
    ----------
    work
        The work and its other sizes.
    axis
        The size that grows.
    unit
        The unit of work.
    points
        (size, seconds a unit).
    """

    work: str
    axis: str
    unit: str
    points: tuple[tuple[int, float], ...]

    @property
    def slope(self) -> float:
        """Slope of the line through the logarithms."""
        sizes, costs = np.log(np.array(self.points)).T
        return float(np.polyfit(sizes, costs, 1)[0])


def seconds(call: Callable[[], object], units: int) -> float:
    """Seconds for a unit of work: the best of several calls."""
    call()
    best, begin, calls = math.inf, time.perf_counter(), 0
    while calls < CALLS or time.perf_counter() - begin < SECONDS:
        start = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - start)
        calls += 1
    return best / units


def interactions(users: int, num_items: int, row_length: int = ROW_LENGTH) -> _metatl.Interactions:
    """Rows of one length, of items drawn uniformly."""
    items = np.random.default_rng(0).integers(0, num_items, users * row_length)
    return _metatl.Interactions(np.arange(users + 1) * row_length, items, num_items)


def vectors(count: int, dim: int, seed: int) -> np.ndarray:
    """Random vectors (count, dim)."""
    return np.random.default_rng(seed).standard_normal((count, dim), dtype=np.float32)


FACTORISED = {"item_bias": None, "similarity": "dot", "overrides": None}


def episodes(data: _metatl.Interactions, k: int, threads: int | None = None) -> float:
    """Seconds for an episode."""
    sampler = _metatl.EpisodeSampler(data, k=k, negatives=1, seed=0, num_threads=threads)
    steps = itertools.count()
    return seconds(lambda: sampler.sample(next(steps), BATCH), BATCH)


def grouping(users: int) -> float:
    """Seconds for an interaction of unsorted input."""
    generator, rows = np.random.default_rng(0), users * ROW_LENGTH
    columns = (generator.integers(0, end, rows) for end in (users, CATALOGUE, 2**31))
    arrays = tuple(columns)
    return seconds(lambda: _metatl.group_by_user(*arrays, users, keep_repeats=False), rows)


def candidates(num_items: int) -> float:
    """Seconds for a set of 100 candidates."""
    users = np.arange(BATCH)
    data = interactions(BATCH, num_items)
    targets = np.zeros(BATCH, dtype=np.int64)
    return seconds(lambda: _metatl.sample_candidates(data, users, targets, COUNT, seed=0), BATCH)


def lists(num_items: int, dim: int, threads: int | None = None) -> float:
    """Seconds to score and rank a list of 101 candidates."""
    count = 4096
    ids = np.random.default_rng(2).integers(0, num_items, (count, COUNT + 1))
    queries, table = vectors(count, dim, 0), vectors(num_items, dim, 1)
    return seconds(
        lambda: _metatl.rank_candidates(queries, table, ids, num_threads=threads, **FACTORISED), count
    )


def catalogue(num_items: int, dim: int, threads: int | None = None, *, top: int = 0) -> float:
    """Seconds for a user: rank the target in the catalogue, or find the best `top` items."""
    count = catalogue_queries(num_items)
    queries, table = vectors(count, dim, 0), vectors(num_items, dim, 1)
    targets, seen = (
        np.zeros(count, dtype=np.int64),
        (np.zeros(count + 1, dtype=np.int64), np.zeros(0, np.int64)),
    )
    if top:
        return seconds(
            lambda: _metatl.top_n(queries, table, top, *seen, num_threads=threads, **FACTORISED), count
        )
    return seconds(
        lambda: _metatl.rank_catalogue(queries, table, targets, *seen, num_threads=threads, **FACTORISED),
        count,
    )


def catalogue_queries(num_items: int) -> int:
    """Queries in a call: fewer where there are more items."""
    return max(256, min(4096, 10**8 // num_items))


def metrics(users: int) -> float:
    """Seconds for a user, from counts to metrics."""
    greater = np.random.default_rng(0).integers(0, COUNT, users)
    equal, cutoffs = np.zeros_like(greater), np.array([1, 10])
    return seconds(lambda: _metatl.user_metrics(greater, equal, ties="worst", cutoffs=cutoffs), users)


def curves(threads: int) -> Iterator[Curve]:
    """Measure everything."""

    def curve(work: str, axis: str, unit: str, sizes: tuple[int, ...], cost: Callable[[int], float]) -> Curve:
        measured = Curve(work, axis, unit, tuple((size, cost(size)) for size in sizes))
        print(f"{measured.work}, {measured.axis}: slope {measured.slope:.2f}", file=sys.stderr)
        return measured

    yield curve(
        f"episodes, K = 3, rows of {ROW_LENGTH}",
        "users",
        "episode",
        USERS,
        lambda users: episodes(interactions(users, CATALOGUE), 3),
    )
    yield curve(
        f"interactions put by user and time, {ROW_LENGTH} a user", "users", "interaction", USERS, grouping
    )
    yield curve("metrics of ranks", "users", "user", USERS, metrics)
    data = interactions(CATALOGUE, CATALOGUE, row_length=60)
    yield curve("episodes, rows of 60", "K", "episode", KS, lambda k: episodes(data, k))
    yield curve("candidate sets of 100", "items", "set", ITEMS, candidates)
    yield curve(f"101 candidates ranked, d = {DIM}", "items", "list", ITEMS, lambda items: lists(items, DIM))
    yield curve(f"full ranking, d = {DIM}", "items", "user", ITEMS, lambda items: catalogue(items, DIM))
    yield curve(f"top 10, d = {DIM}", "items", "user", ITEMS, lambda items: catalogue(items, DIM, top=10))
    yield curve(
        f"101 of {CATALOGUE:,} ranked", "dimensions", "list", DIMENSIONS, lambda dim: lists(CATALOGUE, dim)
    )
    yield curve(
        f"full ranking, {CATALOGUE:,} items",
        "dimensions",
        "user",
        DIMENSIONS,
        lambda dim: catalogue(CATALOGUE, dim),
    )
    some = tuple(range(1, threads + 1))
    if len(some) > 1:
        yield curve(
            "episodes, K = 3, rows of 60", "threads", "episode", some, lambda count: episodes(data, 3, count)
        )
        yield curve(
            f"101 of {CATALOGUE:,} ranked, d = 128",
            "threads",
            "list",
            some,
            lambda count: lists(CATALOGUE, 128, count),
        )
        yield curve(
            f"full ranking, {CATALOGUE:,} items, d = 128",
            "threads",
            "user",
            some,
            lambda count: catalogue(CATALOGUE, 128, count),
        )


def in_words(cost: float) -> str:
    """Format seconds with a suitable unit."""
    for factor, name in ((1e9, "ns"), (1e6, "µs"), (1e3, "ms")):
        if cost * factor < 1000:
            return f"{cost * factor:.3g} {name}"
    return f"{cost:.3g} s"


def table(measured: list[Curve]) -> str:
    """One table for each axis: a row for each curve, a column for each size."""
    parts = []
    for axis in dict.fromkeys(curve.axis for curve in measured):
        rows = [curve for curve in measured if curve.axis == axis]
        sizes = [size for size, _ in rows[0].points]
        parts += [
            f"## {axis if axis == 'K' else axis.capitalize()}",
            "",
            f"| cost | {' | '.join(f'{size:,}' for size in sizes)} | slope |",
            f"|---|{'---:|' * (len(sizes) + 1)}",
            *(
                f"| {curve.work}: {curve.unit} | {' | '.join(in_words(cost) for _, cost in curve.points)} "
                f"| {curve.slope:.2f} |"
                for curve in rows
            ),
            "",
        ]
    return "\n".join(parts)


def plot(measured: list[Curve]) -> Figure:
    """Draw a panel for each axis."""
    axes_names = list(dict.fromkeys(curve.axis for curve in measured))
    figure = Figure(figsize=(9, 4 * math.ceil(len(axes_names) / 2)), layout="constrained")
    panels = list(figure.subplots(math.ceil(len(axes_names) / 2), 2, squeeze=False).flat)
    for panel in panels:
        panel.set_visible(False)
    for panel, axis in zip(panels, axes_names, strict=False):
        panel.set_visible(True)
        sizes: set[int] = set()
        for curve in (curve for curve in measured if curve.axis == axis):
            places, costs = zip(*curve.points, strict=True)
            sizes |= set(places)
            panel.loglog(places, costs, marker="o", ms=4, label=f"{curve.work}: {curve.slope:.2f}")
        panel.set_xlabel(axis)
        panel.set_ylabel("seconds a unit")
        panel.set_xticks(
            sorted(sizes), [f"{size:.0e}" if size > 10**4 else str(size) for size in sorted(sizes)]
        )
        panel.xaxis.set_minor_locator(NullLocator())
        panel.yaxis.set_minor_formatter(NullFormatter())
        panel.grid(visible=True, alpha=0.3)
        panel.legend(fontsize="small")
    return figure


def main() -> None:
    page = Path(sys.argv[1])
    threads = len(os.sched_getaffinity(0))
    measured = list(curves(threads))
    header = HEADER.format(threads=threads, machine=cpuinfo.get_cpu_info()["brand_raw"])
    notes = NOTES.format(queries=catalogue_queries(ITEMS[-1]), lines=(COUNT + 1) * DIM * 4 // 64)
    write_text(page, f"{header}\n{table(measured)}{notes}")
    write_text(page.with_suffix(".svg"), svg(plot(measured)).decode())


if __name__ == "__main__":
    main()
