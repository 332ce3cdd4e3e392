"""Count the instructions of every kernel under callgrind, and fail if one needs more than its baseline.

Seconds depend on the machine and on who else is on it; instructions do not. The example program
`rust/metatl-core/examples/kernels.rs` runs a kernel on one thread; what a process has beyond one that runs
none is the kernel's. The baseline is `benches/instructions.json`; `--write` replaces it, which a change that
makes a kernel slower has to justify.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parent.parent
BASELINE = ROOT / "benches" / "instructions.json"
PROGRAM = ROOT / "target" / "release" / "examples" / "kernels"
# Levels of instructions that not every processor has.
SIMD = ("/avx512", "/avx2", "/neon")
TOLERANCE = 0.02
"""Tolerance for other standard libraries and allocators."""


def output_of(*command: str | Path) -> str:
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
    return done.stdout + done.stderr


def count(kernel: str, times: int) -> int:
    """Instructions of the whole process."""
    valgrind = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"]
    output = output_of(*valgrind, PROGRAM, kernel, str(times))
    found = re.search(r"Collected : (\d+)", output)
    if found is None:
        raise SystemExit(f"valgrind printed no count:\n{output}")
    return int(found[1])


def measure() -> dict[str, dict[str, int]]:
    """Return the units of work and the instructions of a run for each kernel."""
    # Under valgrind, which does not have every instruction of the processor.
    listed = output_of("valgrind", "--tool=none", "-q", PROGRAM, "list").split("\n")
    units = {name: int(number) for name, number in (line.split() for line in listed if line)}
    empty = count(next(iter(units)), 0)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        totals = list(pool.map(lambda name: count(name, 1), units))
    return {
        name: {"units": units[name], "instructions": total - empty}
        for name, total in zip(units, totals, strict=True)
    }


def compare(found: dict[str, dict[str, int]], expected: dict[str, dict[str, int]]) -> int:
    """Print a table and the errors; return 1 if a kernel needs more than its baseline."""
    wrong = []
    print(f"{'kernel':32} {'instructions a unit':>20} {'baseline':>12} {'ratio':>7}")
    for name, row in found.items():
        now = row["instructions"] / row["units"]
        before = expected.get(name)
        if before is None or before["units"] != row["units"]:
            print(f"{name:32} {now:20,.1f} {'none':>12}")
            wrong.append(f"{name}: the baseline has no such kernel; write it anew")
            continue
        ratio = row["instructions"] / before["instructions"]
        print(f"{name:32} {now:20,.1f} {before['instructions'] / row['units']:12,.1f} {ratio:7.3f}")
        if ratio > 1 + TOLERANCE:
            wrong.append(f"{name}: {ratio:.3f} times the instructions of the baseline")
        elif ratio < 1 - TOLERANCE:
            print(f"{name} needs less than before: keep it by writing the baseline anew")
    for name in sorted(expected.keys() - found.keys()):
        if name.endswith(SIMD):
            print(f"{name}: not counted, for this processor has no such instructions")
        else:
            wrong.append(f"{name}: the program has no such kernel any more; write the baseline anew")
    for line in wrong:
        print(line, file=sys.stderr)
    return 1 if wrong else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="make what is found the baseline")
    arguments = parser.parse_args()
    output_of("cargo", "build", "--release", "--locked", "-p", "metatl-core", "--example", "kernels")
    found = measure()
    if arguments.write:
        content = {"rustc": output_of("rustc", "--version").strip(), "kernels": found}
        BASELINE.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    baseline = json.loads(BASELINE.read_text(encoding="utf-8"))
    rustc = output_of("rustc", "--version").strip()
    if rustc != baseline["rustc"]:
        print(f"the baseline was compiled by {baseline['rustc']}, this by {rustc}")
    return compare(found, baseline["kernels"])


if __name__ == "__main__":
    sys.exit(main())
