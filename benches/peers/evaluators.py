"""Compare the speed of `metatl-eval scores` with numpy, ranx, ir_measures, RecBole and RecTools."""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import cpuinfo
import ir_measures
import numpy as np
import ranx

from metatl.evaluation.external.evaluate_scores import evaluate_scores

# The reference implementations of the benchmarks.
sys.path.insert(0, str(Path(__file__).parents[1]))

import reference

if TYPE_CHECKING:
    from collections.abc import Callable

METRICS = ("MRR", "HR@1", "HR@10", "NDCG@10")
NUM_ITEMS = 20_000
NEGATIVES = 100
RESAMPLES = 1_000
TOLERANCE = 1e-6
LIBRARIES = {"recbole": "RecBole, its collector and evaluator", "rectools": "RecTools, `calc_metrics`"}

PAGE = """# Evaluators side by side

Time to compute MRR, HR@1, HR@10 and NDCG@10 of {users:,} users with 101 scored candidates each, from a
catalogue of {items:,} items. All evaluators get the same arrays in one run, on one thread; the time is the
least of {rounds} rounds. Their results agree to {tolerance:g}. Regenerate with `make evaluators`.

| evaluator | s | users/s | metatl is | intervals |
|---|---:|---:|---:|---|
{rows}

ranx, ir_measures and the two libraries compute means only; metatl and numpy also resample the users
{resamples:,} times. metatl also reports AUC, mean and median rank, and the metrics under each tie rule. The
conversion of arrays to the objects of ranx and ir_measures is not timed. RecBole and RecTools get the same
input as from their own models (`benches/peers/library_evaluators.py`).

Machine: {machine}.
"""


def by_numpy(scores: np.ndarray) -> Callable[[], dict[str, float]]:
    def evaluate() -> dict[str, float]:
        means, _ = reference.numpy_metrics(scores, RESAMPLES)
        return dict(zip(METRICS, means.tolist(), strict=True))

    return evaluate


def by_metatl(scores: np.ndarray) -> Callable[[], dict[str, float]]:
    def evaluate() -> dict[str, float]:
        found = evaluate_scores(scores, metrics=METRICS, num_threads=1).results.metrics.sampled
        return {name: found[name].value for name in METRICS}

    return evaluate


def by_ranx(scores: np.ndarray) -> Callable[[], dict[str, float]]:
    relevant = ranx.Qrels({str(user): {"0": 1} for user in range(len(scores))})
    run = ranx.Run(
        {
            str(user): {str(item): float(score) for item, score in enumerate(row)}
            for user, row in enumerate(scores)
        }
    )
    names = ["mrr", "hit_rate@1", "hit_rate@10", "ndcg@10"]

    def evaluate() -> dict[str, float]:
        found = ranx.evaluate(relevant, run, names, make_comparable=False, threads=1)
        return {ours: float(found[theirs]) for ours, theirs in zip(METRICS, names, strict=True)}

    return evaluate


def by_ir_measures(scores: np.ndarray) -> Callable[[], dict[str, float]]:
    relevant = [ir_measures.Qrel(str(user), "0", 1) for user in range(len(scores))]
    run = [
        ir_measures.ScoredDoc(str(user), str(item), float(score))
        for user, row in enumerate(scores)
        for item, score in enumerate(row)
    ]
    measures = [ir_measures.RR, ir_measures.Success @ 1, ir_measures.Success @ 10, ir_measures.nDCG @ 10]

    def evaluate() -> dict[str, float]:
        found = ir_measures.calc_aggregate(measures, relevant, run)
        return {ours: float(found[theirs]) for ours, theirs in zip(METRICS, measures, strict=True)}

    return evaluate


def time_calls(evaluate: Callable[[], dict[str, float]], rounds: int) -> tuple[float, dict[str, float]]:
    """Return the least seconds of several calls after a warm-up call, and the result."""
    found = evaluate()
    seconds = []
    for _ in range(rounds):
        begin = time.perf_counter()
        evaluate()
        seconds.append(time.perf_counter() - begin)
    return min(seconds), found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("peers_python", help="the interpreter of the peers' environment")
    parser.add_argument("page", type=Path, help="Markdown file to write")
    parser.add_argument("--users", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    generator = np.random.default_rng(0)
    # Scores are distinct, because the evaluators treat ties differently.
    column = np.arange(1 + NEGATIVES, dtype=np.float32)
    scores = generator.permuted(np.tile(column, (arguments.users, 1)), axis=1)
    first = generator.integers(0, NUM_ITEMS, (arguments.users, 1))
    items = (first + NUM_ITEMS // (1 + NEGATIVES) * np.arange(1 + NEGATIVES)) % NUM_ITEMS

    version = metadata.version
    timed = {
        f"metatl {version('metatl')}": time_calls(by_metatl(scores), arguments.rounds),
        f"numpy {version('numpy')}": time_calls(by_numpy(scores), arguments.rounds),
        f"ranx {version('ranx')}": time_calls(by_ranx(scores), arguments.rounds),
        f"ir_measures {version('ir-measures')}": time_calls(by_ir_measures(scores), arguments.rounds),
    }
    with tempfile.TemporaryDirectory() as folder:
        np.save(f"{folder}/scores.npy", scores)
        np.save(f"{folder}/items.npy", items)
        script = Path(__file__).with_name("library_evaluators.py")
        command = [arguments.peers_python, script, f"{folder}/scores.npy", f"{folder}/items.npy"]
        command += ["--num-items", str(NUM_ITEMS), "--rounds", str(arguments.rounds)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    for name, result in json.loads(done.stdout.splitlines()[-1]).items():
        timed[f"{LIBRARIES[name]} {result['version']}"] = (result["seconds"], result["metrics"])

    ours, expected = timed[f"metatl {version('metatl')}"]
    rows = []
    for name, (seconds, found) in timed.items():
        for metric in METRICS:
            if abs(found[metric] - expected[metric]) > TOLERANCE:
                raise SystemExit(f"{name}: found {metric} {found[metric]}, metatl {expected[metric]}")
        intervals = "yes" if name.startswith(("metatl", "numpy")) else "no"
        ratio = "" if found is expected else f"{seconds / ours:.1f} × as fast"
        rows.append(f"| {name} | {seconds:.3f} | {arguments.users / seconds:,.0f} | {ratio} | {intervals} |")
    machine = (
        f"{cpuinfo.get_cpu_info()['brand_raw']}, {platform.system()}, Python {platform.python_version()}"
    )
    page = PAGE.format(
        users=arguments.users,
        items=NUM_ITEMS,
        rounds=arguments.rounds,
        tolerance=TOLERANCE,
        rows="\n".join(rows),
        resamples=RESAMPLES,
        machine=machine,
    )
    arguments.page.write_text(page, encoding="utf-8")
    print(page)


if __name__ == "__main__":
    main()
