"""A training step with sampling, compared with the same step in plain torch."""

import pytest
import torch
from lightning_fabric import Fabric

import metatl
import reference
from metatl.models import find_system
from metatl.models.metatl.model import MetaTL
from metatl.runs.checkpoints import TrainingState
from metatl.training.batches import Batch, episode_sampler
from metatl.training.fit import configure
from metatl.training.outer_loop import OuterLoop
from sizes import K

STEPS = {"paper": 20, "official": 5, "tuned": 5}


@pytest.mark.filterwarnings("ignore")  # of torch.compile's
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("preset", list(STEPS))
def test_training_metatl(measure, large_split, preset, compiled):
    settings = {"eval_every": 10**9, "max_steps": 10**9}
    config = configure(find_system("metatl"), preset, settings, k=K)
    torch.manual_seed(0)
    model = MetaTL(config, large_split.num_items)
    if compiled:
        torch.compiler.reset()
        model.compile_loss()
    candidates = metatl.sample_candidate_sets(large_split, large_split.validation)
    fabric = Fabric(accelerator="cpu", devices=1)
    loop = OuterLoop(model, large_split, candidates, config, fabric, None, TrainingState())
    with episode_sampler(large_split.train, config.episodes, k=K, seed=0).prefetch(
        0, config.batch_size
    ) as batches:

        def steps():
            for _ in range(STEPS[preset]):
                loop.step(Batch(*next(batches)))

        measure(
            steps,
            work=f"training, `{preset}`" + (", compiled" if compiled else ""),
            system="metatl",
            units=STEPS[preset] * config.batch_size,
            unit="tasks",
        )


def plain_rows(split):
    train = split.train
    rows = [
        train.items[start:end].tolist()
        for start, end in zip(train.indptr[:-1], train.indptr[1:], strict=True)
    ]
    return rows, [set(row) for row in rows]


@pytest.mark.parametrize("preset", list(STEPS))
def test_training_plain_torch(measure, large_split, preset):
    rows, sets = plain_rows(large_split)
    num_items, batch_size = large_split.num_items, 1024
    torch.manual_seed(0)
    if preset == "paper":
        batch_size = 64
        model = reference.PaperMAML(num_items, 100, 0.01)
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    else:
        dim = 100 if preset == "official" else 128
        model = reference.PlainMetaTL(num_items, dim, deep=preset == "official", pairs=K - 1)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def step():
        tasks = reference.sample_episodes(rows, sets, num_items, K, batch_size, 0)
        items = torch.tensor([items for items, _ in tasks])
        negatives = torch.tensor([negatives for _, negatives in tasks])
        if preset == "paper":
            loss = model.loss(items, negatives)
        elif preset == "official":
            loss = model.official_loss(items, negatives)
        else:
            loss = model.tuned_loss(items, torch.randint(num_items, (512,)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    measure(step, work=f"training, `{preset}`", system="plain torch", units=batch_size, unit="tasks")
