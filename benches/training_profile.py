"""Measure where the time of a training step goes, and what gradients by rows and kept memory save.

    python benches/training_profile.py docs/training_step.md

Every measurement runs in a process of its own, because the allocator keeps memory of earlier ones.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import cpuinfo
import numpy as np
import torch
from lightning_fabric import Fabric
from torch.profiler import ProfilerActivity, profile

from metatl import _metatl
from metatl.common.files import write_text
from metatl.models import find_system
from metatl.models.metatl.model import MetaTL
from metatl.training import outer_loop
from metatl.training.batches import Batch
from metatl.training.fit import configure, fit

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

PRESETS = ("paper", "official", "tuned")
SMALL, LARGE = 20_000, 1_000_000
USERS, ROW_LENGTH, K = 20_000, 15, 3
WARM_UP, STEPS, PROFILED = 5, 40, 20
NEVER = {"eval_every": 10**9, "max_steps": 10**9}

# An operator belongs to the first group with a substring of its name.
GROUPS = {
    "matrix products": ("mm",),
    "rows of tables: gather, scatter": ("embedding", "index", "sparse", "coalesce"),
    "optimiser": ("_fused_adam_", "Optimizer"),
    "batch norm": ("batch_norm",),
    "random numbers of dropout": ("random_", "aten::ge"),
    "copies, joins, fills": ("copy", "cat", "stack", "fill", "zero", "empty", "clone", "contiguous"),
    "arithmetic on vectors": ("aten::",),
}
REST = "autograd"

HEADER = """# A training step

MetaTL, K = {k}, batches of 1,024 tasks, on {threads} threads of an {machine}. Regenerate with `python
benches/training_profile.py docs/training_step.md`.
"""


def build(
    preset: str, num_items: int, *, batch_size: int = 1024, fabric: Fabric | None = None
) -> tuple[Any, outer_loop.OuterLoop, _metatl.EpisodeSampler]:
    """Build the config, outer loop and sampler of a step on random interactions."""
    config = configure(find_system("metatl"), preset, {**NEVER, "batch_size": batch_size}, k=K)
    generator = np.random.default_rng(0)
    # Popularity decreases with the item number.
    items = (num_items * generator.random(USERS * ROW_LENGTH) ** 2).astype(np.int64)
    data = _metatl.Interactions(np.arange(USERS + 1) * ROW_LENGTH, items, num_items)
    sampler = _metatl.EpisodeSampler(data, k=K, seed=0, **config.episodes._asdict())
    torch.manual_seed(0)
    fabric = Fabric(accelerator="cpu", devices=1) if fabric is None else fabric
    state = outer_loop.TrainingState()
    model = MetaTL(config, num_items).to(fabric.device)
    # It needs neither a split nor candidates, because it is never evaluated.
    return (
        config,
        outer_loop.OuterLoop(model, None, None, config, fabric, None, state),
        sampler,
    )  # type: ignore[arg-type]


def profile_operators(loop: outer_loop.OuterLoop, batches: Iterator[Any]) -> dict[str, float]:
    """Sum the time of each group of operators over some steps."""
    groups: dict[str, float] = defaultdict(float)
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        for _ in range(PROFILED):
            loop.step(Batch(*next(batches)))
    for event in profiler.key_averages():
        group = next(
            (name for name, pieces in GROUPS.items() if any(piece in event.key for piece in pieces)), REST
        )
        groups[group] += event.self_cpu_time_total
    return groups


def measure_step(
    preset: str, num_items: int, *, rows: bool, keep: bool, operators: bool, compiled: bool
) -> dict[str, Any]:
    """Measure milliseconds of a step, of waiting for and drawing a batch, and shares of operator groups."""
    if not keep:
        outer_loop.keep_freed_memory = lambda: None
    if not rows:
        MetaTL.row_tables = property(lambda _: ())  # type: ignore[assignment]
    config, loop, sampler = build(preset, num_items)
    if compiled:
        loop.model.compile_loss()
    steps, waits, draws = [], [], []
    with sampler.prefetch(0, config.batch_size) as batches:
        for number in range(WARM_UP + STEPS):
            begin = time.perf_counter()
            batch = Batch(*next(batches))
            drawn = time.perf_counter()
            loop.step(batch)
            end = time.perf_counter()
            if number == 0:
                first = end - begin
            if number >= WARM_UP:
                waits.append(drawn - begin)
                steps.append(end - begin)
        groups = profile_operators(loop, batches) if operators else {}
    for step in range(STEPS):
        begin = time.perf_counter()
        sampler.sample(step, config.batch_size)
        draws.append(time.perf_counter() - begin)
    total = sum(groups.values())
    return {
        "first": 1e3 * first,
        "step": 1e3 * statistics.median(steps),
        "wait": 1e3 * statistics.median(waits),
        "draw": 1e3 * statistics.median(draws),
        "groups": {name: value / total for name, value in groups.items()},
    }


def measure_validation(preset: str) -> dict[str, float]:
    """Measure the seconds of a training on the bundled wines, and those of its validations."""
    spent = 0.0
    evaluate = outer_loop.OuterLoop.evaluate

    def timed(loop: outer_loop.OuterLoop) -> None:
        nonlocal spent
        begin = time.perf_counter()
        evaluate(loop)
        spent += time.perf_counter() - begin

    outer_loop.OuterLoop.evaluate = timed  # type: ignore[method-assign]
    fit("wines", preset="tuned", config={"max_steps": 1}, device="cpu")  # one-time costs of the first fit
    spent = 0.0
    begin = time.perf_counter()
    fit("wines", preset=preset, config={"max_steps": 1000} if preset != "tuned" else {}, device="cpu")
    return {"seconds": time.perf_counter() - begin, "validation": spent}


def apart(*arguments: str) -> dict[str, Any]:
    """Measure in a process of its own."""
    command = [sys.executable, __file__, *arguments]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(output.splitlines()[-1])  # type: ignore[no-any-return]


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """Write a Markdown table; the first row is the header."""
    head, *body = ("| " + " | ".join(row) + " |" for row in rows)
    return "\n".join([head, "|---" + "|---:" * (len(rows[0]) - 1) + "|", *body, ""])


def report() -> str:
    """Measure everything and write the page."""
    now = {preset: apart("step", preset, str(SMALL), "--operators") for preset in PRESETS}
    compiled = {}
    for preset in PRESETS:
        with TemporaryDirectory() as nothing_compiled_yet:
            os.environ["TORCHINDUCTOR_CACHE_DIR"] = nothing_compiled_yet
            compiled[preset] = apart("step", preset, str(SMALL), "--compiled")
    parts = [
        HEADER.format(k=K, threads=torch.get_num_threads(), machine=cpuinfo.get_cpu_info()["brand_raw"]),
        f"## Where the time goes, {SMALL:,} items\n",
        markdown(
            [
                ("milliseconds", *(f"`{preset}`" for preset in PRESETS)),
                *(
                    (name, *(f"{now[p]['step'] * now[p]['groups'].get(name, 0):.1f}" for p in PRESETS))
                    for name in [*GROUPS, REST]
                ),
                ("a step", *(f"**{now[p]['step']:.1f}**" for p in PRESETS)),
                ("tasks a second", *(f"{1e3 * 1024 / now[p]['step']:,.0f}" for p in PRESETS)),
                ("drawing a batch, while the step before runs", *(f"{now[p]['draw']:.2f}" for p in PRESETS)),
                ("waiting for a batch", *(f"{now[p]['wait']:.3f}" for p in PRESETS)),
                (
                    "sampling's share of a step (bar: 2 %)",
                    *(f"{now[p]['wait'] / now[p]['step']:.1%}" for p in PRESETS),
                ),
                ("a step, compiled", *(f"**{compiled[p]['step']:.1f}**" for p in PRESETS)),
                ("tasks a second, compiled", *(f"{1e3 * 1024 / compiled[p]['step']:,.0f}" for p in PRESETS)),
                (
                    "sampling's share of it",
                    *(f"{compiled[p]['wait'] / compiled[p]['step']:.1%}" for p in PRESETS),
                ),
                ("compiling, once, s", *(f"{1e-3 * compiled[p]['first']:.0f}" for p in PRESETS)),
            ]
        ),
        "The shares come from the profiler, which slows a step down. The step is timed without it.\n",
        "## Gradients by rows, and freed memory kept\n",
    ]
    rows = [("milliseconds a step", *(f"`{p}`, {n:,} items" for n in (SMALL, LARGE) for p in PRESETS))]
    for name, options in {
        "dense gradients, memory given back": ["--dense", "--give-back"],
        "dense gradients, memory kept": ["--dense"],
        "gradients by rows, memory given back": ["--give-back"],
        "gradients by rows, memory kept": [],
    }.items():
        figures = (apart("step", p, str(n), *options)["step"] for n in (SMALL, LARGE) for p in PRESETS)
        rows.append((name, *(f"{figure:.1f}" for figure in figures)))
    parts += [
        markdown(rows),
        "## Validation\n",
        "Fits on the bundled wines: 1,000 steps of `paper` and `official`, and all steps of `tuned`.\n",
    ]
    fits = {preset: apart("validation", preset) for preset in PRESETS}
    parts.append(
        markdown(
            [
                ("", *(f"`{preset}`" for preset in PRESETS)),
                ("seconds of the fit", *(f"{fits[p]['seconds']:.1f}" for p in PRESETS)),
                ("of them validation", *(f"{fits[p]['validation']:.2f}" for p in PRESETS)),
                (
                    "share (bar: 5 %)",
                    *(f"{fits[p]['validation'] / fits[p]['seconds']:.1%}" for p in PRESETS),
                ),
            ]
        )
    )
    return "\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", help="the page to write; or `step` or `validation`")
    parser.add_argument("preset", nargs="?")
    parser.add_argument("items", nargs="?", type=int)
    parser.add_argument("--dense", action="store_true")
    parser.add_argument("--give-back", action="store_true")
    parser.add_argument("--operators", action="store_true")
    parser.add_argument("--compiled", action="store_true")
    options = parser.parse_args()
    if options.what == "step":
        rows, keep = not options.dense, not options.give_back
        print(
            json.dumps(
                measure_step(
                    options.preset,
                    options.items,
                    rows=rows,
                    keep=keep,
                    operators=options.operators,
                    compiled=options.compiled,
                )
            )
        )
    elif options.what == "validation":
        print(json.dumps(measure_validation(options.preset)))
    else:
        write_text(Path(options.what), report())


if __name__ == "__main__":
    main()
