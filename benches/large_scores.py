"""How long `metatl-eval scores` takes for a large file of scores, and how much memory: cold and warm.

    python benches/large_scores.py FOLDER [--users 10000000]

writes users × 101 float32 scores there (4 GB for ten million users) and deletes them afterwards. Cold means
that the system was told to forget the file's pages first; beside it stands how long merely reading the file
takes.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

WIDTH = 101
BLOCK = 100_000
READ_BYTES = 32 * 2**20


def write_scores(path: Path, users: int) -> None:
    # Not through a mapping: a child's memory is counted from that of the process that started it.
    generator = np.random.default_rng(0)
    header = {"descr": "<f4", "fortran_order": False, "shape": (users, WIDTH)}
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for start in range(0, users, BLOCK):
            shape = (min(BLOCK, users - start), WIDTH)
            file.write(generator.random(shape, dtype=np.float32).tobytes())


def forget(path: Path) -> None:
    """Ask the system to drop the file's pages from memory, once they are on the disk."""
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


def evaluate(path: Path) -> tuple[float, str]:
    """Seconds of the command, its start included; and its own account of them."""
    begin = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "metatl.cli.evaluate", "scores", "--no-candidates", path],
        check=True,
        capture_output=True,
        text=True,
    )
    return time.perf_counter() - begin, done.stdout.strip().splitlines()[-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--users", type=int, default=10_000_000)
    arguments = parser.parse_args()
    path = arguments.folder / "large-scores.npy"
    try:
        write_scores(path, arguments.users)
        print(f"{arguments.users:,} users x {WIDTH} scores, {path.stat().st_size / 1e9:.2f} GB")
        for name in ("cold", "warm"):
            if name == "cold":
                forget(path)
            reading = read(path)
            if name == "cold":
                forget(path)
            seconds, stages = evaluate(path)
            print(f"{name}: reading alone {reading:.2f} s; metatl-eval scores {seconds:.2f} s ({stages})")
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
        print(f"most memory: {peak / 1e9:.2f} GB")
    finally:
        path.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
