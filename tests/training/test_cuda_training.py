"""Training on a CUDA device: whole steps as graphs."""

import contextlib
import signal
import warnings

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric

import metatl
from metatl.models import SYSTEMS
from metatl.models.metatl.model import MetaTL, MetaTLConfig
from metatl.runs.checkpoints import TrainingState
from metatl.training.batches import Batch, episode_sampler
from metatl.training.outer_loop import OuterLoop
from metatl.training.stop_signals import TrainingStopped
from planted_data import write_ring

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

NEVER = {"eval_every": 10**9, "max_steps": 10**9}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "ring.csv"
    return metatl.read_interactions(write_ring(path, 1500, items=300, rows=(5, 9), first=0, gap=1_000_000))


@contextlib.contextmanager
def waits_are_errors():
    """Have an operation that waits for the device raise an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the mode is a prototype, torch says
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def losses(data, config, steps, *, captured, monkeypatch):
    """Losses of the first steps of a training, and the weights after them; no step waits for the device."""
    monkeypatch.setattr(MetaTL, "can_be_captured", captured)
    torch.manual_seed(0)
    model = MetaTL(config, data.num_items)
    loop = OuterLoop(
        model.cuda(), None, None, config, Fabric(accelerator="cuda", devices=1), None, TrainingState()
    )
    model.train()
    with episode_sampler(data, config.episodes, k=config.k, seed=0).prefetch(0, config.batch_size) as batches:
        found = [loop.step(Batch(*next(batches))) for _ in range(steps // 2)]
        with waits_are_errors():
            found += [loop.step(Batch(*next(batches))) for _ in range(steps // 2)]
    return torch.stack(found).cpu().numpy(), model.tensors()


@pytest.mark.parametrize("preset", ["paper", "official", "tuned"])
def test_graphs_take_the_steps_that_single_kernels_take_and_never_wait(data, monkeypatch, preset):
    config = MetaTLConfig.preset(preset, **NEVER, batch_size=256)
    graphs, kernels = (
        losses(data, config, 20, captured=captured, monkeypatch=monkeypatch) for captured in (True, False)
    )
    # Sums that are formed by atomic additions have no fixed order.
    np.testing.assert_allclose(graphs[0], kernels[0], rtol=1e-5)
    assert len(np.unique(graphs[0])) == 20
    for name, tensor in graphs[1].items():
        np.testing.assert_allclose(tensor, kernels[1][name], rtol=1e-3, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("preset", ["paper", "official", "tuned"])
def test_a_fit_on_cuda_is_as_good_as_on_the_processor(interactions_file, preset):
    settings = {"dim": 16, "batch_size": 256, "max_steps": 200, "eval_every": 50}
    found = {
        device: metatl.evaluate(metatl.fit(interactions_file, preset=preset, config=settings, device=device))
        .metrics.sampled["MRR"]
        .value
        for device in ("cpu", "cuda")
    }
    assert found["cuda"] == pytest.approx(found["cpu"], abs=0.1)  # by chance it is .05


@pytest.mark.parametrize("model", [name for name, system in SYSTEMS.items() if system.batches is not None])
def test_every_system_trains_and_ranks_on_cuda(interactions_file, tmp_path, model):
    config = {"max_steps": 12, "eval_every": 6}
    run = metatl.fit(interactions_file, model=model, config=config, device="cuda", out=tmp_path / "run")
    on_cuda = metatl.evaluate(run).metrics.sampled["MRR"].value
    loaded = metatl.load_run(tmp_path / "run", device="cpu")
    assert metatl.evaluate(loaded).metrics.sampled["MRR"].value == pytest.approx(on_cuda, abs=2e-3)


@pytest.mark.parametrize("preset", ["paper", "official", "tuned"])
def test_a_resumed_training_goes_on_where_it_was(interactions_file, tmp_path, preset):
    settings = {"dim": 16, "batch_size": 256, "max_steps": 40, "eval_every": 10}
    whole = metatl.fit(
        interactions_file, preset=preset, config=settings, device="cuda", out=tmp_path / "whole"
    )

    def stop(progress):
        if progress.step == 25:
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(TrainingStopped):
        metatl.fit(
            interactions_file,
            preset=preset,
            config=settings,
            device="cuda",
            out=tmp_path / "parts",
            on_progress=stop,
        )
    resumed = metatl.fit(
        interactions_file, preset=preset, config=settings, device="cuda", out=tmp_path / "parts", resume=True
    )
    for name, tensor in whole.model.tensors().items():
        np.testing.assert_allclose(resumed.model.tensors()[name], tensor, rtol=1e-2, atol=1e-3, err_msg=name)
