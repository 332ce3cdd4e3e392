"""Measure the time and memory of each command as the number of interactions grows.

    python benches/large_interactions.py FOLDER [--rows 1000000,10000000,100000000] [--form parquet|csv]

writes random interactions to FOLDER, one file for each number of rows, and deletes them afterwards. Users
have 20 interactions on average, ids are 64-bit integers, and the number of items is ten times the square root
of the number of rows.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl

BLOCK = 1_000_000
PER_USER = 20

SAMPLE = """
import sys
import metatl
from metatl.training.batches import episode_sampler
from metatl.models.metatl.config import MetaTLConfig

split = metatl.cold_start_split(metatl.read_interactions(sys.argv[1]), k=3)
sampler = episode_sampler(split.train, MetaTLConfig.preset("tuned").episodes, k=3, seed=0)
with sampler.prefetch(0, 1024) as batches:
    for _ in range(1000):
        next(batches)
print(f"{split.train.num_interactions:,} training rows; a million episodes")
"""


def write(path: Path, rows: int) -> None:
    generator = np.random.default_rng(0)
    items = int(10 * rows**0.5)

    def blocks() -> list[pl.LazyFrame]:
        return [
            pl.DataFrame(
                {
                    "user_id": generator.integers(0, rows // PER_USER, min(BLOCK, rows - start)) * 1_000_003,
                    # Popularity decreases with the item number.
                    "item_id": (items * generator.random(min(BLOCK, rows - start)) ** 2).astype(np.int64),
                    "timestamp": generator.integers(1_500_000_000, 1_700_000_000, min(BLOCK, rows - start)),
                }
            ).lazy()
            for start in range(0, rows, BLOCK)
        ]

    table = pl.concat(blocks())
    if path.suffix == ".csv":
        table.sink_csv(path)
    else:
        table.sink_parquet(path)


def run(command: list[str]) -> tuple[float, int, str]:
    """Return a command's seconds with its start, its peak memory in bytes and its last line of output."""
    begin = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        said = process.stdout.read()
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{said}")
    return time.perf_counter() - begin, used.ru_maxrss * 1024, said.strip().splitlines()[-1]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", default="1000000,10000000,100000000")
    parser.add_argument("--form", choices=("parquet", "csv"), default="parquet")
    arguments = parser.parse_args()
    print("| rows | file | command | seconds | most memory |\n|---:|---:|---|---:|---:|")
    for rows in map(int, arguments.rows.split(",")):
        path = arguments.folder / f"interactions.{arguments.form}"
        candidates = arguments.folder / "candidates.parquet"
        try:
            writer = multiprocessing.Process(target=write, args=(path, rows))
            writer.start()
            writer.join()
            for name, command in {
                "`metatl stats`": ["-m", "metatl.cli.metatl.main", "stats", str(path)],
                "`metatl-eval candidates`": [
                    "-m",
                    "metatl.cli.metatl_eval.main",
                    "candidates",
                    str(path),
                    "-o",
                    str(candidates),
                ],
                "read, split, sample a million episodes": ["-c", SAMPLE, str(path)],
            }.items():
                seconds, memory, _ = run([sys.executable, *command])
                size = path.stat().st_size
                print(
                    f"| {rows:,} | {size / 1e9:.2f} GB | {name} | {seconds:.1f} | {memory / 1e9:.2f} GB |",
                    flush=True,
                )
        finally:
            path.unlink(missing_ok=True)
            candidates.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
