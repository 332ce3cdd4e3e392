"""Measure the time and memory of `metatl-eval scores` for a large file, cold and warm.

    python benches/large_scores.py FOLDER [--users 10000000] [--form npy|parquet|csv]

writes users × 101 float32 scores to FOLDER (4 GB for ten million users; text takes 2.5 times that) and
deletes them afterwards. Cold means that the file is dropped from the page cache first. The time of reading
the file alone is printed for comparison.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

if TYPE_CHECKING:
    from collections.abc import Iterator

WIDTH = 101
BLOCK = 100_000
READ_BYTES = 32 * 2**20


def scores(users: int) -> Iterator[np.ndarray]:
    generator = np.random.default_rng(0)
    for start in range(0, users, BLOCK):
        yield generator.random((min(BLOCK, users - start), WIDTH), dtype=np.float32)


def write_npy(path: Path, users: int) -> None:
    # Not through a mapping: a child's memory is counted from that of the process that started it.
    header = {"descr": "<f4", "fortran_order": False, "shape": (users, WIDTH)}
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for block in scores(users):
            file.write(block.tobytes())


def write_csv(path: Path, users: int) -> None:
    with path.open("wb") as file:
        for place, block in enumerate(scores(users)):
            pl.DataFrame(block).write_csv(file, include_header=place == 0)


def write_parquet(path: Path, users: int) -> None:
    # All of it is in memory until it is written.
    frames = (pl.DataFrame(block).lazy() for block in scores(users))
    pl.concat(frames).sink_parquet(path, row_group_size=BLOCK, compression="uncompressed")


def forget(path: Path) -> None:
    """Write the file to the disk and drop it from the page cache."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read(path: Path) -> float:
    buffer = bytearray(READ_BYTES)
    begin = time.perf_counter()
    with path.open("rb", buffering=0) as file:
        while file.readinto(buffer):
            pass
    return time.perf_counter() - begin


def evaluate(path: Path) -> tuple[float, str, int]:
    """Return the seconds of the command with its start, its own timings, and its peak memory in bytes."""
    begin = time.perf_counter()
    command = [sys.executable, "-m", "metatl.cli.metatl_eval.main", "scores", "--no-candidates", path]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        said = process.stdout.read()
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(said)
    return time.perf_counter() - begin, said.strip().splitlines()[-1], used.ru_maxrss * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--users", type=int, default=10_000_000)
    writers = {"npy": write_npy, "parquet": write_parquet, "csv": write_csv}
    parser.add_argument("--form", choices=writers, default="npy")
    arguments = parser.parse_args()
    path = arguments.folder / f"large-scores.{arguments.form}"
    try:
        writer = multiprocessing.Process(target=writers[arguments.form], args=(path, arguments.users))
        writer.start()
        writer.join()
        print(f"{arguments.users:,} users x {WIDTH} scores, {path.stat().st_size / 1e9:.2f} GB")
        for name in ("cold", "warm"):
            if name == "cold":
                forget(path)
            reading = read(path)
            if name == "cold":
                forget(path)
            seconds, stages, memory = evaluate(path)
            print(f"{name}: reading alone {reading:.2f} s; metatl-eval scores {seconds:.2f} s ({stages})")
            print(f"most memory: {memory / 1e9:.2f} GB")
    finally:
        path.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
