"""Time training and ranking on a CUDA device and on the processor; write a page and the same as JSON.

    python benches/cuda_device.py docs/cuda.md benches/results/cuda.json

The time of a step, sampling included, is the best mean of three rounds of 500 steps.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cpuinfo
import numpy as np
import torch
from lightning_fabric import Fabric
from torch.profiler import ProfilerActivity, profile

from metatl.common.files import write_text
from metatl.data.histories import Histories
from metatl.metrics.rank_metrics import mean_metrics
from metatl.models import find_system
from metatl.models.metatl.model import MetaTL
from metatl.ranking.rank import encode_blocks, rank_candidates
from metatl.training.batches import Batch
from metatl.training.fit import configure
from summary import Row
from training_profile import build, markdown

if TYPE_CHECKING:
    from collections.abc import Callable

PRESETS = ("paper", "official", "tuned")
BATCHES = (1024, 8192)
WAYS = ("kernel by kernel", "graph", "graph, compiled")
ITEMS, USERS, DIM, K = 20_000, 65_536, 100, 3
WARM_UP, STEPS, PROFILED = 30, 500, 5
BAR = 2e6
"""Tasks per second in training on one H200."""

PAGE = """# On a CUDA device

One {gpu}, {cpus} processors of an {machine}, torch {torch}. Regenerate with
`python benches/cuda_device.py docs/cuda.md benches/results/cuda.json`.

## Training, sampling included

Tasks per second of MetaTL, K = {k}, {items:,} items. The presets use 1,024 tasks a step. A graph launches
all kernels of a step at once (`metatl.training.cuda_graphs`); `--compiled` fuses most of them first. Bar:
{bar:,.0f} tasks per second.

{training}
A separate thread draws the batches, and the loop fetches one while the device works on the previous step.
With steps this short, fetching takes more than the 2 % of a step that is the bar for sampling. The device
waits for it only at 8,192 tasks, where a compiled step takes little longer than drawing its batch. The loss
after {warm_up} steps is the same in all modes, to a relative difference of {difference:.0e}.

## Where the time of a step goes

Microseconds on the device for a step of 1,024 tasks, from the profiler.

{groups}
With products in TF32, a graph of `paper`, `official` and `tuned` runs {tf32} times as many steps per
second: the number of kernels limits a step. metatl trains in `float32`.

## Ranking

Users per second, for {users:,} users, {items:,} items and d = {dim}. torch multiplies blocks of {block:,}
users by the table and compares the scores: it holds {held:,.0f} MB of scores, metatl holds none. The
columns "processor" are metatl on all {cpus} processors.

{ranking}
A user takes 2 · {items:,} · {dim} operations, and the device reaches {flops:.0f} TFLOP/s in `float32` in a
large product. The limit is therefore {limit:,.0f} users per second by inner product. A distance takes three
operations for each coordinate, a product two.

Evaluation of MetaTL `tuned`, adaptation included: {evaluation:,.0f} users per second on the device and
{evaluation_there:,.0f} on the processors.
"""

GROUPS = {
    "matrix products": ("gemm", "splitKreduce", "Kernel2"),
    "sums of the gradients of equal rows": (
        "Radix",
        "radix",
        "segment",
        "unique",
        "scan",
        "compute_grad_weight",
        "sum_and_scatter",
    ),
    "optimiser": ("multi_tensor_apply", "fused_adam", "fused_sgd"),
    "fused by torch.compile": ("triton_",),
    "copies, joins, fills": ("Memcpy", "Memset", "Cat", "Fill", "copy"),
    "random numbers of dropout": ("dropout",),
    "arithmetic on vectors": ("",),
}


def train_steps(preset: str, batch_size: int, way: str, *, tf32: bool = False) -> dict[str, Any]:
    """Measure the seconds of a training step, its kernels, and the loss after the warm-up."""
    torch.backends.cuda.matmul.allow_tf32 = tf32
    fabric = Fabric(accelerator="cuda", devices=1)
    _, loop, sampler = build(preset, ITEMS, batch_size=batch_size, fabric=fabric)
    if way == "kernel by kernel":
        loop.graphed_update = None
    if way == "graph, compiled":
        torch.compiler.reset()
        loop.model.compile_loss()
    steps = 100 if way == "kernel by kernel" else STEPS
    waits = []
    with sampler.prefetch(0, batch_size) as batches:
        begin = time.perf_counter()
        losses = [float(loop.step(Batch(*next(batches)))) for _ in range(WARM_UP)]
        start = time.perf_counter() - begin
        rounds = []
        for _ in range(3):
            torch.cuda.synchronize()
            begin = time.perf_counter()
            for _ in range(steps):
                asked = time.perf_counter()
                batch = Batch(*next(batches))
                waits.append(time.perf_counter() - asked)
                loop.step(batch)
            torch.cuda.synchronize()
            rounds.append((time.perf_counter() - begin) / steps)
        with profile(activities=[ProfilerActivity.CUDA]) as profiler:
            for _ in range(PROFILED):
                loop.step(Batch(*next(batches)))
            torch.cuda.synchronize()
    kernels = [event for event in profiler.events() if event.device_type == torch.autograd.DeviceType.CUDA]
    groups: Counter[str] = Counter()
    for kernel in kernels:
        if not kernel.name.startswith("Optimizer."):
            group = next(name for name, pieces in GROUPS.items() if any(p in kernel.name for p in pieces))
            groups[group] += kernel.device_time / PROFILED
    return {
        "seconds": min(rounds),
        "wait": statistics.mean(waits) / min(rounds),
        "kernels": len(kernels) / PROFILED,
        "groups": groups,
        "start": start,
        "loss": losses[-1],
    }


def train(preset: str) -> dict[str, Any]:
    """Train a preset in all modes."""
    found = {f"{batch} {way}": train_steps(preset, batch, way) for batch in BATCHES for way in WAYS}
    found["TF32"] = train_steps(preset, BATCHES[0], WAYS[1], tf32=True)
    return found


def best_seconds(call: Callable[[], object], rounds: int = 5) -> float:
    """Seconds of the fastest of several calls, the work of the device included."""
    times = []
    for _ in range(rounds + 1):
        begin = time.perf_counter()
        call()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - begin)
    return min(times[1:])


class Vectors:
    """A model whose queries are given, so that only the ranking is measured."""

    support_negatives = 0

    def __init__(self, device: str, similarity: str) -> None:
        generator = torch.Generator().manual_seed(0)
        self.item_table = torch.randn(ITEMS, DIM, generator=generator).to(device)
        self.item_bias = torch.randn(ITEMS, generator=generator).to(device)
        self.queries = torch.randn(ITEMS, DIM, generator=generator).to(device)
        self.similarity = similarity

    def encode(self, histories: torch.Tensor, _: torch.Tensor | None) -> Any:
        from metatl.models.contract import Encoded

        return Encoded(self.queries[histories[:, 0]], None)


BLOCK = 4096
"""Number of users whose scores the peer holds at once."""


def rank_blocks(model: Vectors, users: torch.Tensor, targets: torch.Tensor, excluded: torch.Tensor) -> None:
    """Rank in plain torch: one block of scores at a time."""
    for start in range(0, len(users), BLOCK):
        rows = slice(start, start + BLOCK)
        scores = torch.addmm(model.item_bias, model.queries[users[rows]], model.item_table.T)
        of_target = scores.gather(1, targets[rows, None])
        scores.scatter_(1, excluded[rows], -torch.inf)
        (scores > of_target).sum(dim=1)
        (scores == of_target).sum(dim=1)


def rank_catalogue(model: Any, histories: np.ndarray, targets: np.ndarray, excluded: Histories) -> None:
    """Compare each user's target with the whole catalogue."""
    for rows, block in encode_blocks(model, histories):
        block.rank_catalogue(targets[rows], excluded.select(rows))


def rank() -> dict[str, Any]:
    """Measure users per second for all kinds of ranking."""
    generator = np.random.default_rng(0)
    users = generator.integers(ITEMS, size=(USERS, 1))
    targets = generator.integers(ITEMS, size=USERS)
    seen = generator.integers(ITEMS, size=(USERS, 15))
    candidates = generator.integers(ITEMS, size=(USERS, 101))
    excluded = Histories.from_matrix(seen)
    found: dict[str, Any] = {}
    for similarity in ("dot", "l2", "squared_l2"):
        for device in ("cuda", "cpu"):
            model = Vectors(device, similarity)
            catalogue = best_seconds(lambda m=model: rank_catalogue(m, users, targets, excluded))
            lists = best_seconds(lambda m=model: rank_candidates(m, users, candidates))
            found[f"{similarity} {device}"] = {"catalogue": USERS / catalogue, "lists": USERS / lists}
    model = Vectors("cuda", "dot")
    there = [torch.from_numpy(array).cuda() for array in (users[:, 0], targets, seen)]
    found["torch"] = USERS / best_seconds(lambda: rank_blocks(model, *there))
    size = 8192
    left, right = torch.randn(2, size, size, device="cuda").unbind()
    found["flops"] = 2 * size**3 / best_seconds(lambda: left @ right)
    tuned = MetaTL(configure(find_system("metatl"), "tuned", {}, k=K), ITEMS).eval()
    histories = generator.integers(ITEMS, size=(USERS, K))
    for device in ("cuda", "cpu"):
        tuned.to(device)
        found[f"evaluation {device}"] = USERS / best_seconds(
            lambda: mean_metrics(*rank_candidates(tuned, histories, candidates))
        )
    return found


def apart(*arguments: str) -> Any:
    """Measure in a process of its own."""
    command = [sys.executable, __file__, *arguments]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(output.splitlines()[-1])


def report() -> tuple[str, dict[str, Any]]:
    """Measure everything; return the page and its data."""
    ranked = apart("rank")
    return write_page({preset: apart("train", preset) for preset in PRESETS}, ranked)


def tasks(batch: int, figures: dict[str, Any]) -> float:
    """Tasks per second."""
    return batch / float(figures["seconds"])


def write_page(trained: dict[str, Any], ranked: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Write the measurements as a page and as data."""
    machine = cpuinfo.get_cpu_info()["brand_raw"]
    rows = [
        Row(
            f"training, `{preset}`, {batch:,} tasks a step, {way}",
            tasks(batch, figures),
            "tasks",
            bar=BAR,
            holds=tasks(batch, figures) >= BAR,
        )
        for preset in PRESETS
        for batch in BATCHES
        for way in WAYS
        for figures in [trained[preset][f"{batch} {way}"]]
    ]
    training = markdown(
        [
            (
                "preset",
                "tasks a step",
                *(f"{way}" for way in WAYS),
                "kernels a step",
                "fetching the batch",
                "first 30 steps, s",
            ),
            *(
                (
                    f"`{preset}`",
                    f"{batch:,}",
                    *(
                        f"**{rate:,.0f}**" if rate >= BAR else f"{rate:,.0f}"
                        for way in WAYS
                        for rate in [tasks(batch, trained[preset][f"{batch} {way}"])]
                    ),
                    " / ".join(f"{trained[preset][f'{batch} {way}']['kernels']:.0f}" for way in WAYS),
                    " / ".join(f"{trained[preset][f'{batch} {way}']['wait']:.1%}" for way in WAYS),
                    " / ".join(f"{trained[preset][f'{batch} {way}']['start']:.1f}" for way in WAYS),
                )
                for preset in PRESETS
                for batch in BATCHES
            ),
        ]
    )
    difference = max(
        abs(
            trained[preset][f"{BATCHES[0]} {way}"]["loss"]
            / trained[preset][f"{BATCHES[0]} {WAYS[0]}"]["loss"]
            - 1
        )
        for preset in PRESETS
        for way in WAYS
    )
    groups = markdown(
        [
            ("", *(f"`{preset}`, {way}" for preset in PRESETS for way in WAYS[1:])),
            *(
                (
                    group,
                    *(
                        f"{trained[preset][f'{BATCHES[0]} {way}']['groups'].get(group, 0):.0f}"
                        for preset in PRESETS
                        for way in WAYS[1:]
                    ),
                )
                for group in GROUPS
            ),
            (
                "a step, by the clock",
                *(
                    f"**{1e6 * trained[preset][f'{BATCHES[0]} {way}']['seconds']:.0f}**"
                    for preset in PRESETS
                    for way in WAYS[1:]
                ),
            ),
        ]
    )
    tf32 = ", ".join(
        f"{trained[preset][f'{BATCHES[0]} {WAYS[1]}']['seconds'] / trained[preset]['TF32']['seconds']:.2f}"
        for preset in PRESETS
    )
    ranking = markdown(
        [
            (
                "",
                "full ranking, device",
                "full ranking, processor",
                "101 candidates, device",
                "101 candidates, processor",
            ),
            *(
                (
                    f"`{similarity}`",
                    *(
                        f"{ranked[f'{similarity} {device}'][work]:,.0f}"
                        for work in ("catalogue", "lists")
                        for device in ("cuda", "cpu")
                    ),
                )
                for similarity in ("dot", "l2", "squared_l2")
            ),
            ("`dot`, torch", f"{ranked['torch']:,.0f}", "", "", ""),
        ]
    )
    full = ranked["dot cuda"]["catalogue"]
    limit = ranked["flops"] / (2 * ITEMS * DIM)
    rows += [
        Row(f"full ranking, {ITEMS:,} items, d = {DIM}", full, "users", limit=limit, share=full / limit),
        Row(
            f"full ranking, {ITEMS:,} items, d = {DIM}",
            full,
            "users",
            peer="torch, blocks of scores",
            peer_value=ranked["torch"],
            ratio=full / ranked["torch"],
        ),
        Row("evaluation of a MetaTL `tuned`, adaptation included", ranked["evaluation cuda"], "users"),
    ]
    page = PAGE.format(
        gpu=torch.cuda.get_device_name(),
        cpus=os.cpu_count(),
        machine=machine,
        torch=torch.__version__,
        k=K,
        items=ITEMS,
        bar=BAR,
        training=training,
        warm_up=WARM_UP,
        difference=difference,
        groups=groups,
        tf32=tf32,
        users=USERS,
        dim=DIM,
        block=BLOCK,
        held=4e-6 * BLOCK * ITEMS,
        ranking=ranking,
        flops=ranked["flops"] / 1e12,
        limit=limit,
        evaluation=ranked["evaluation cuda"],
        evaluation_there=ranked["evaluation cpu"],
    )
    content = {
        "machine": (
            f"{torch.cuda.get_device_name()}, {os.cpu_count()} cores, {machine}, torch {torch.__version__}"
        ),
        "results": [asdict(row) for row in rows],
    }
    return page, content


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("arguments", nargs="+")
    arguments = parser.parse_args().arguments
    if arguments[0] == "train":
        print(json.dumps(train(arguments[1])))
    elif arguments[0] == "rank":
        print(json.dumps(rank()))
    else:
        page, content = report()
        write_text(Path(arguments[0]), page)
        write_text(Path(arguments[1]), json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
