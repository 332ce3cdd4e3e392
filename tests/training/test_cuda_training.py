"""Training on a CUDA device, with steps as CUDA graphs."""

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

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

NEVER = {"eval_every": 10**9, "max_steps": 10**9}


@pytest.fixture(scope="module")
def data(interactions_file):
    return metatl.read_interactions(interactions_file)


@contextlib.contextmanager
def synchronising_is_an_error():
    """Make operations that synchronise with the device raise an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns that the mode is a prototype
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def losses(data, config, steps, *, captured, monkeypatch):
    """Losses of the first steps and the weights after them; the later half may not synchronise."""
    monkeypatch.setattr(MetaTL, "can_be_captured", captured)
    torch.manual_seed(0)
    model = MetaTL(config, data.num_items)
    loop = OuterLoop(
        model.cuda(), None, None, config, Fabric(accelerator="cuda", devices=1), None, TrainingState()
    )
    model.train()
    with episode_sampler(data, config.episodes, k=config.k, seed=0).prefetch(0, config.batch_size) as batches:
        step_losses = [loop.step(Batch(*next(batches))) for _ in range(steps // 2)]
        with synchronising_is_an_error():
            step_losses += [loop.step(Batch(*next(batches))) for _ in range(steps // 2)]
    return torch.stack(step_losses).cpu().numpy(), model.tensors()


@pytest.mark.parametrize("preset", ["paper", "official", "tuned"])
def test_graphs_take_the_same_steps_as_single_kernels_without_synchronising(data, monkeypatch, preset):
    config = MetaTLConfig.preset(preset, **NEVER, batch_size=256)
    graphs, kernels = (
        losses(data, config, 20, captured=captured, monkeypatch=monkeypatch) for captured in (True, False)
    )
    # Atomic additions have no fixed order.
    np.testing.assert_allclose(graphs[0], kernels[0], rtol=1e-5)
    assert len(np.unique(graphs[0])) == 20
    for name, tensor in graphs[1].items():
        np.testing.assert_allclose(tensor, kernels[1][name], rtol=1e-3, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("preset", ["paper", "official", "tuned"])
def test_a_fit_on_cuda_is_as_accurate_as_on_the_cpu(interactions_file, preset):
    settings = {"dim": 16, "batch_size": 256, "max_steps": 200, "eval_every": 50}
    mrr = {
        device: metatl.evaluate(metatl.fit(interactions_file, preset=preset, config=settings, device=device))
        .metrics.sampled["MRR"]
        .value
        for device in ("cpu", "cuda")
    }
    assert mrr["cuda"] == pytest.approx(mrr["cpu"], abs=0.1)  # a random order has an MRR of .05


@pytest.mark.parametrize("model", [name for name, system in SYSTEMS.items() if system.batches is not None])
def test_every_system_trains_and_ranks_on_cuda(interactions_file, tmp_path, model):
    config = {"max_steps": 12, "eval_every": 6}
    run = metatl.fit(interactions_file, model=model, config=config, device="cuda", out=tmp_path / "run")
    on_cuda = metatl.evaluate(run).metrics.sampled["MRR"].value
    loaded = metatl.load_run(tmp_path / "run", device="cpu")
    assert metatl.evaluate(loaded).metrics.sampled["MRR"].value == pytest.approx(on_cuda, abs=2e-3)


@pytest.mark.parametrize("preset", ["paper", "official", "tuned"])
def test_a_resumed_training_ends_with_the_same_weights(interactions_file, tmp_path, preset):
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
