"""Compare metatl's ranker, sampler and metrics with implicit and LensKit; write docs/library_rankers.md.

    python benches/peers/rankers.py PEERS_PYTHON docs/library_rankers.md

PEERS_PYTHON is the interpreter of the environment of `requirements-lenskit.txt`, in which
`library_rankers.py` runs on the same arrays. The page is written only if the libraries agree with metatl.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import cpuinfo
import numpy as np
import polars as pl

from metatl import _metatl, evaluate_lists
from metatl.common.files import write_text
from ranking_data import RankingData
from timing import ROUNDS, SECONDS, least_seconds

NUM_ITEMS, DIM, TOP, NEGATIVES = 20_000, 100, 10, 100
METRICS = (f"MRR@{TOP}", f"HR@{TOP}", f"NDCG@{TOP}")
SCORE_TOLERANCE = 1e-4
"""Rounding error of sums of 100 products in float32, for scores of about 35."""
METRIC_TOLERANCE = 1e-9
LIBRARIES = {"metatl": "metatl", "implicit": "implicit", "lenskit": "LensKit"}

WORKS = {
    "top": (f"top {TOP} of {NUM_ITEMS:,} items", "users", 1),
    "negatives": (f"{NEGATIVES} negatives a user", "negatives", NEGATIVES),
    "metrics": (f"{', '.join(METRICS)} of lists of {TOP}", "users", 1),
}
"""Description of each work, its unit, and the units of one user."""

PAGE = """# Ranker, sampler and metrics beside implicit's and LensKit's

{users:,} users who have seen {seen:.0f} items each on average, {items:,} items, d = {dim}. All libraries
get the same arrays in one run, on one thread; a time is the least of {rounds} rounds, or of the rounds of
{limit:.0f} s.

| work | library | s | a second | metatl is |
|---|---|---:|---:|---:|
{rows}

- **Top {top}** is by inner product, without the items that the user has seen. All libraries list the same
  items, except for items whose scores differ by less than {score_tolerance:g}. No list has a seen item or
  an item twice. LensKit runs its pipeline for one user at a time.
- **Negatives** are uniform and verified; LensKit draws with replacement, metatl draws distinct ones. If a
  user has seen the item, LensKit draws again, up to ten times, and then takes it; metatl never takes it. Of
  {drawn:,} negatives each, {ours_seen:,} of metatl's and {theirs_seen:,} of LensKit's are items that the user
  has seen.
- **Metrics** are of the same lists, and agree to {metric_tolerance:g}. metatl also resamples the users
  1,000 times for its intervals; LensKit also computes medians and standard deviations.

implicit offers no negative sampling: its BPR draws each negative inside its training step (`bpr_update`).
It draws from the interactions, so popular items are more frequent, and skips the step if the user has seen
the item. It has no metrics for given lists either.

`benches/peers/library_rankers.py` has the calls of each library. Regenerate with `make library-rankers`.

Machine: {machine}.
"""


@dataclass(frozen=True)
class Figure:
    """The seconds that a library takes for one kind of work."""

    work: str
    library: str
    version: str
    seconds: float


def top_of_ours(data: RankingData) -> tuple[float, np.ndarray]:
    seconds, (items, _) = least_seconds(
        lambda: _metatl.top_n(
            data.user_vectors,
            data.item_vectors,
            TOP,
            data.indptr,
            data.seen,
            item_bias=None,
            similarity="dot",
            overrides=None,
            num_threads=1,
        )
    )
    return seconds, items


def negatives_of_ours(data: RankingData) -> tuple[float, np.ndarray]:
    interactions = _metatl.Interactions(data.indptr, data.seen, data.num_items)
    users = np.arange(data.num_users)
    settings = {"seed": 0, "exclude_target": False, "num_threads": 1}
    seconds, drawn = least_seconds(
        lambda: _metatl.sample_candidates(interactions, users, np.zeros_like(users), NEGATIVES, **settings)
    )
    return seconds, drawn[:, 1:]


def metrics_of_ours(lists: np.ndarray, targets: np.ndarray) -> tuple[float, dict[str, float]]:
    users = np.arange(len(lists))
    rows = {"user_id": np.repeat(users, TOP), "item_id": lists.ravel()}
    listed = pl.DataFrame({**rows, "rank": np.tile(np.arange(1, TOP + 1), len(lists))})
    chosen = pl.DataFrame({"user_id": users, "target": targets})
    seconds, evaluation = least_seconds(
        lambda: evaluate_lists(listed, chosen, metrics=METRICS, num_threads=1)
    )
    return seconds, {name: found.value for name, found in evaluation.results.metrics.full.items()}


def draw_targets(lists: np.ndarray, num_items: int) -> np.ndarray:
    """Draw an item for each user: from the list for every other user, from the catalogue for the rest."""
    generator = np.random.default_rng(1)
    users = np.arange(len(lists))
    listed = lists[users, generator.integers(0, lists.shape[1], len(lists))]
    return np.where(users % 2 == 0, listed, generator.integers(0, num_items, len(lists)))


def check_lists(library: str, lists: np.ndarray, ours: np.ndarray, data: RankingData) -> None:
    """Raise an error if lists have seen or repeated items, or other scores than ours at any rank."""
    if lists.shape != ours.shape or lists.min() < 0 or lists.max() >= data.num_items:
        raise SystemExit(f"{library}: lists are not {ours.shape} items of {data.num_items}")
    if data.has_seen(lists).any():
        raise SystemExit(f"{library}: a list has an item that its user has seen")
    if (np.diff(np.sort(lists, axis=1), axis=1) == 0).any():
        raise SystemExit(f"{library}: a list has an item twice")
    theirs, expected = (
        np.einsum("bnd,bd->bn", data.item_vectors[items].astype(np.float64), data.user_vectors)
        for items in (lists, ours)
    )
    difference = np.abs(theirs - expected).max()
    if difference > SCORE_TOLERANCE:
        raise SystemExit(f"{library}: an item of a list scores {difference:g} other than metatl's there")


def check_metrics(library: str, found: dict[str, float], ours: dict[str, float]) -> None:
    for name, expected in ours.items():
        if abs(found[name] - expected) > METRIC_TOLERANCE:
            raise SystemExit(f"{library}: found {name} {found[name]}, metatl {expected}")


def run_libraries(python: str, folder: Path) -> list[dict]:
    """Run the libraries in their environment; they write their results to the folder."""
    script = Path(__file__).with_name("library_rankers.py")
    command = [python, script, folder, "--negatives", str(NEGATIVES)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def make_rows(figures: list[Figure], users: int) -> str:
    """Return the lines of the table, grouped by work, metatl first in each group."""
    lines = []
    for work, (name, unit, units) in WORKS.items():
        group = [figure for figure in figures if figure.work == work]
        for figure in group:
            rate = users * units / figure.seconds
            ratio = "" if figure is group[0] else f"{figure.seconds / group[0].seconds:.1f} × as fast"
            library = f"{LIBRARIES[figure.library]} {figure.version}"
            lines.append(f"| {name} | {library} | {figure.seconds:#.3g} | {rate:,.0f} {unit} | {ratio} |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("peers_python", help="the interpreter of the peers' environment")
    parser.add_argument("page", type=Path, help="Markdown file to write")
    parser.add_argument("--users", type=int, default=10_000)
    options = parser.parse_args(arguments)
    data = RankingData.draw(options.users, NUM_ITEMS, DIM)
    top_seconds, lists = top_of_ours(data)
    targets = draw_targets(lists, data.num_items)
    negatives_seconds, negatives = negatives_of_ours(data)
    metrics_seconds, metrics = metrics_of_ours(lists, targets)
    machine = (
        f"{cpuinfo.get_cpu_info()['brand_raw']}, {platform.system()}, Python {platform.python_version()}"
    )
    version = metadata.version("metatl")
    figures = [
        Figure("top", "metatl", version, top_seconds),
        Figure("negatives", "metatl", version, negatives_seconds),
        Figure("metrics", "metatl", version, metrics_seconds),
    ]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data.save(folder)
        np.save(folder / "lists.npy", lists)
        np.save(folder / "targets.npy", targets)
        for found in run_libraries(options.peers_python, folder):
            if found["work"] == "metrics":
                check_metrics(found["library"], found.pop("metrics"), metrics)
            figures.append(Figure(**found))
        for library in ("implicit", "lenskit"):
            check_lists(library, np.load(folder / f"top-{library}.npy"), lists, data)
        theirs = np.load(folder / "negatives-lenskit.npy")
    if theirs.shape != negatives.shape or theirs.min() < 0 or theirs.max() >= data.num_items:
        raise SystemExit(f"lenskit: negatives are not {negatives.shape} items of {data.num_items}")
    page = PAGE.format(
        users=data.num_users,
        seen=len(data.seen) / data.num_users,
        items=data.num_items,
        dim=DIM,
        rounds=ROUNDS,
        limit=SECONDS,
        rows=make_rows(figures, data.num_users),
        top=TOP,
        score_tolerance=SCORE_TOLERANCE,
        drawn=negatives.size,
        ours_seen=int(data.has_seen(negatives).sum()),
        theirs_seen=int(data.has_seen(theirs).sum()),
        metric_tolerance=METRIC_TOLERANCE,
        machine=machine,
    )
    write_text(options.page, page)
    print(page, file=sys.stderr)


if __name__ == "__main__":
    main()
