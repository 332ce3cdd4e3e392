"""Train the same SASRec in metatl and in RecBole for some epochs; write docs/training_peers.md.

    python benches/peers/training_steps.py PEERS_PYTHON FOLDER docs/training_peers.md

FOLDER is the output of `export.py` for the data set `wines`.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

import cpuinfo
import torch
from lightning_fabric import Fabric

import metatl
from metatl.common.files import write_text
from metatl.models import find_system
from metatl.models.sasrec import SASRec
from metatl.runs.checkpoints import TrainingState
from metatl.training.batches import Batch, sequence_sampler
from metatl.training.fit import configure
from metatl.training.outer_loop import OuterLoop

LENGTH, PLACES, EPOCHS = 20, 2048, 5
DIM, BLOCKS, HEADS, DROPOUT = 64, 2, 2, 0.5

PAGE = """# A training step beside RecBole's

SASRec with {blocks} blocks, {heads} heads, d = {dim}, sequences of up to {length} items and a softmax over
all {items:,} items, on the training users of X-Wines, with about {places:,} positions a step on {threads}
threads. The time is that of the best of {epochs} epochs, loading included. A position is an item that the
model learns to predict from the items before it.

| system | positions | s per epoch | positions/s | metatl is |
|---|---:|---:|---:|---:|
| metatl {ours_version} | {ours_places:,} | {ours_seconds:.2f} | {ours_rate:,.0f} | |
| RecBole {version} | {their_places:,} | {their_seconds:.2f} | {their_rate:,.0f} | {ratio:.1f} × as fast |

RecBole reads every prefix of a sequence as a separate example and learns its last position; metatl reads a
sequence once and learns all its positions. Regenerate with `make training-peers`.

Machine: {machine}.
"""


def epoch_of_ours(split: metatl.ColdStartSplit) -> tuple[int, float]:
    """Return the positions and seconds of the best of several epochs."""
    train = split.train
    places_a_sequence = min(LENGTH, train.num_interactions / train.num_users - 1)
    settings = {
        "dim": DIM,
        "blocks": BLOCKS,
        "heads": HEADS,
        "dropout": DROPOUT,
        "max_length": LENGTH,
        "shared_negatives": 0,
        "batch_size": round(PLACES / places_a_sequence),
        "max_steps": 10**9,
        "eval_every": 10**9,
    }
    config = configure(find_system("sasrec"), "tuned", settings, k=split.k)
    torch.manual_seed(0)
    model = SASRec.for_training(config, train)
    candidates = metatl.sample_candidate_sets(split, split.validation)
    fabric = Fabric(accelerator="cpu", devices=1)
    loop = OuterLoop(model, split, candidates, config, fabric, None, TrainingState())
    steps = -(-train.num_users // config.batch_size)
    best = (0, float("inf"))
    with sequence_sampler(train, config.sequences, seed=0).prefetch(0, config.batch_size) as batches:
        for _ in range(EPOCHS):
            places, begin = 0, time.perf_counter()
            for _ in range(steps):
                batch = Batch(*next(batches))
                places += int((batch.items[:, 1:] >= 0).sum())
                loop.step(batch)
            seconds = time.perf_counter() - begin
            best = max(best, (places, seconds), key=lambda figure: figure[0] / figure[1])
    return best


def epoch_of_recbole(python: str, folder: Path) -> dict[str, object]:
    settings = {
        "hidden_size": DIM,
        "inner_size": DIM,
        "n_layers": BLOCKS,
        "n_heads": HEADS,
        "hidden_dropout_prob": DROPOUT,
        "attn_dropout_prob": DROPOUT,
        "MAX_ITEM_LIST_LENGTH": LENGTH,
        "train_batch_size": PLACES,
        "epochs": EPOCHS,
    }
    script = Path(__file__).with_name("recbole_sasrec_step.py")
    command = [python, str(script), str(folder), json.dumps(settings)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("peers_python", help="the interpreter of the peers' environment")
    parser.add_argument("folder", type=Path)
    parser.add_argument("page", type=Path, help="Markdown file to write")
    arguments = parser.parse_args()
    machine = (
        f"{cpuinfo.get_cpu_info()['brand_raw']}, {platform.system()}, Python {platform.python_version()}"
    )
    split = metatl.cold_start_split(metatl.datasets.load("wines"), k=3)
    theirs = epoch_of_recbole(arguments.peers_python, arguments.folder)
    places, seconds = epoch_of_ours(split)
    their_rate = theirs["places"] / theirs["seconds"]
    write_text(
        arguments.page,
        PAGE.format(
            blocks=BLOCKS,
            heads=HEADS,
            dim=DIM,
            length=LENGTH,
            items=split.num_items,
            epochs=EPOCHS,
            places=PLACES,
            threads=torch.get_num_threads(),
            ours_version=metadata.version("metatl"),
            ours_places=places,
            ours_seconds=seconds,
            ours_rate=places / seconds,
            version=theirs["version"],
            their_places=theirs["places"],
            their_seconds=theirs["seconds"],
            their_rate=their_rate,
            ratio=places / seconds / their_rate,
            machine=machine,
        ),
    )
    print(arguments.page.read_text(encoding="utf-8"), file=sys.stderr)


if __name__ == "__main__":
    main()
