"""Measure memory and latency of a recommender by the size of its catalogue; write docs/serving_sizes.md.

    python serving_sizes.py docs/serving_sizes.md

Each row is a process of its own. It loads a run of MetaTL whose settings and learner are those of a run on
the wines, with as many made-up items as asked for: their vectors are those of the wines, with noise.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl

import metatl
from metatl.runs.checkpoints import load_checkpoint, save_checkpoint
from metatl.runs.metrics_file import write_metrics
from metatl.runs.training_directory import training_directory

CASES = (
    (800, "float32", False),
    (20_000, "float32", False),
    (100_000, "bf16", False),
    (100_000, "int8", False),
    (300_000, "bf16", False),
    (1_000_000, "bf16", False),
    (1_000_000, "int8", False),
    (1_000_000, "int8", True),
)
ITEMS_OF_A_HISTORY, TOP, REQUESTS, BATCH = 3, 10, 200, 1000

PAGE = """# Memory and latency of a recommender

`metatl.Recommender` with MetaTL (`tuned`, vectors of 128 numbers) by the size of the catalogue. Each row is a
process of its own that loads a run and answers histories of {history} items with lists of {top}, on one
thread. The items are made up: their vectors are those of the wines, with noise, and histories are drawn in
proportion to the items' counts. Resident memory is that of the whole process after the requests; the
interpreter and the libraries are about 75 MB of it. Recall compares approximate lists with the exact ones of
the same table. Regenerate with `make serving-sizes`.

Machine: {machine}.

| items | table | lists | resident | load | one user, p50 | p99 | {batch:,} users in one call | recall@10 |
|---:|---|---|---:|---:|---:|---:|---:|---:|
"""


def write_run(folder: Path, wines: Path, num_items: int) -> Path:
    """Write a run with made-up items."""
    run = metatl.load_run(wines)
    tensors, record = load_checkpoint(wines / "best.safetensors")
    generator = np.random.default_rng(0)
    origin = generator.integers(run.record.num_items, size=num_items)
    vectors = tensors["embedding.weight"]
    noise = 0.5 * vectors.std(axis=0).mean() * generator.standard_normal((num_items, vectors.shape[1]))
    tensors["embedding.weight"] = (vectors[origin] + noise).astype(np.float32)
    tensors["bias"] = tensors["bias"][origin]
    ids = pl.Series("item_id", np.arange(num_items))
    counts = (1e6 / np.arange(1, num_items + 1) ** 0.8).astype(np.int64) + 1
    generator.shuffle(counts)
    made = run.record.model_copy(update={"num_items": num_items, "data": None})
    with training_directory(folder, made, ids, counts, resume=False, overwrite=False) as there:
        save_checkpoint(there.directory / "best.safetensors", tensors, record)
        write_metrics(there.directory, {})
    return folder


def measure(run: str, item_format: str, approximate: str) -> dict[str, float]:
    """Load a run in this process, and time requests."""
    generator = np.random.default_rng(1)
    begin = time.perf_counter()
    recommender = metatl.Recommender.load(
        run, item_table=item_format, threads=1, approximate=approximate == "True"
    )
    load = time.perf_counter() - begin
    counts = recommender.run.item_counts
    histories = generator.choice(
        len(counts), size=(BATCH, ITEMS_OF_A_HISTORY), p=counts / counts.sum()
    ).tolist()
    seconds = []
    for history in [*histories[:20], *histories[:REQUESTS]]:
        begin = time.perf_counter()
        recommender.recommend([history], TOP)
        seconds.append(time.perf_counter() - begin)
    begin = time.perf_counter()
    lists = recommender.recommend(histories, TOP)
    batch = time.perf_counter() - begin
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    recall = 1.0
    if approximate == "True":
        exact = metatl.Recommender.load(run, item_table=item_format, threads=1).recommend(histories, TOP)
        pairs = zip(lists.items, exact.items, strict=True)
        recall = float(np.mean([len(set(one) & set(other)) / TOP for one, other in pairs]))
    return {
        "resident": resident,
        "load": load,
        "p50": float(np.median(seconds[20:])),
        "p99": float(np.quantile(seconds[20:], 0.99)),
        "batch": batch,
        "recall": recall,
    }


def machine() -> str:
    from cpuinfo import get_cpu_info

    return f"{os.cpu_count()} cores, {get_cpu_info()['brand_raw']}"


def main(page: Path) -> None:
    """Measure all cases, and write the page."""
    text = PAGE.format(history=ITEMS_OF_A_HISTORY, top=TOP, batch=BATCH, machine=machine())
    with tempfile.TemporaryDirectory() as folder:
        wines = Path(folder) / "wines"
        metatl.fit("wines", out=wines, device="cpu")
        for items, item_format, approximate in CASES:
            run = Path(folder) / str(items)
            if not run.exists():
                write_run(run, wines, items)
            command = [sys.executable, __file__, "measure", str(run), item_format, str(approximate)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            figures = json.loads(done.stdout)
            cells = (
                f"{items:,}",
                item_format,
                "approximate" if approximate else "exact",
                f"{figures['resident'] / 1e6:,.0f} MB",
                f"{figures['load']:.1f} s",
                f"{1e3 * figures['p50']:.3f} ms",
                f"{1e3 * figures['p99']:.3f} ms",
                f"{1e3 * figures['batch']:,.0f} ms",
                f"{figures['recall']:.3f}",
            )
            text += f"| {' | '.join(cells)} |\n"
            print(cells, file=sys.stderr)
    page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1] == "measure":
        print(json.dumps(measure(*sys.argv[2:])))
    else:
        main(Path(sys.argv[1]))
