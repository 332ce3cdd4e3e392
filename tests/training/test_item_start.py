"""Initialisation of the trained systems from the co-occurrence graph, and cross-fitting."""

from __future__ import annotations

import itertools
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch

import metatl
from metatl.exceptions import ConfigError
from metatl.models import SYSTEMS
from metatl.models.item_start.spectral import spectral_vectors
from metatl.models.item_start.trends import popularity_trend
from metatl.runs.checkpoints import load_checkpoint
from metatl.runs.run_directory import SplitSettings
from metatl.training import outer_loop
from metatl.training.batches import part_seeds
from metatl.training.item_start import start_items
from metatl.training.stop_signals import TrainingStopped
from planted_data import ring

BASELINES = [name for name, system in SYSTEMS.items() if system.batches is not None and name != "metatl"]
START = {"item_start": "spectral", "start_length": 2.5, "cross_fit_folds": 3, "dim": 8}


@pytest.fixture(scope="module")
def split():
    return SplitSettings().split(ring(users=300))


def fresh(name, split, **changes):
    system = SYSTEMS[name]
    config = system.config_class()(**{**START, **changes})
    return system.model_class().for_training(config, split.train)


@pytest.mark.parametrize("name", BASELINES)
def test_items_start_with_the_spectral_vectors_and_the_trend(name, split):
    has_bias = hasattr(fresh(name, split), "bias")
    model = fresh(name, split, trend_weight=0.3 if has_bias else 0.0)
    parts = start_items(model, SYSTEMS[name].batches, split)
    expected = spectral_vectors(split.train, 8)
    expected *= 2.5 / np.linalg.norm(expected, axis=1).mean()
    np.testing.assert_allclose(model.embedding.weight.detach(), expected, rtol=1e-5, atol=1e-6)
    if has_bias:
        trend = popularity_trend(split.train, split.cutoff_timestamp)
        np.testing.assert_allclose(model.bias.detach(), 0.3 * trend, rtol=1e-6)
    # With the offsets of a part, item vectors equal those of the other users, at the model's scale.
    for part in parts:
        others = spectral_vectors(split.train.select_rows(~np.isin(split.train.users, part.users)), 8)
        shifted = (model.embedding.weight + part.item_offsets).detach().numpy()
        scale = 2.5 / np.linalg.norm(spectral_vectors(split.train, 8), axis=1).mean()
        # Up to a rotation.
        np.testing.assert_allclose(shifted @ shifted.T, scale**2 * others @ others.T, atol=1e-3)


def test_parts_hold_the_interactions_of_their_users(split):
    parts = start_items(fresh("bpr", split), "sequences", split)
    assert sorted(np.concatenate([part.users for part in parts]).tolist()) == list(
        range(split.train.num_users)
    )
    for part in parts:
        for user, train_user in enumerate(part.users):
            in_part = part.train.items[part.train.indptr[user] : part.train.indptr[user + 1]]
            in_split = split.train.items[split.train.indptr[train_user] : split.train.indptr[train_user + 1]]
            assert in_part.tolist() == in_split.tolist()


@pytest.mark.parametrize("name", ["metatl", "gru4rec", "melu"])
def test_consecutive_steps_draw_different_users_and_negatives(name, monkeypatch):
    batches = []
    take_step = outer_loop.OuterLoop.step

    def record(loop, batch, item_offsets):
        batches.append(batch)
        return take_step(loop, batch, item_offsets)

    monkeypatch.setattr(outer_loop.OuterLoop, "step", record)
    metatl.fit(ring(users=300), model=name, config={"max_steps": 10, "dim": 8}, device="cpu")
    assert len(batches) == 10
    for earlier, later in itertools.combinations(batches, 2):
        assert not np.array_equal(earlier.shared_negatives, later.shared_negatives)
        # Parts are about equally large, so equal indices within them would be close indices here.
        assert np.mean(np.abs(earlier.users - later.users) <= 5) < 0.5


def test_parts_have_different_seeds():
    assert part_seeds(7, 1) == [7]
    seeds = [word for seed in range(100) for word in part_seeds(seed, 5)]
    assert len(set(seeds)) == 500
    assert part_seeds(7, 5) == part_seeds(7, 5)


def test_sequences_use_users_who_are_too_short_for_episodes(split):
    long = replace(split, k=20)
    model = fresh("bpr", split)
    assert sum(len(part.users) for part in start_items(model, "sequences", long)) == split.train.num_users
    assert [len(part.users) for part in start_items(model, "episodes", long)] == [split.train.num_users]


@pytest.mark.parametrize("name", BASELINES)
def test_offsets_have_the_effect_of_shifted_vectors(name, split):
    from metatl.models.trainable import TensorBatch
    from metatl.training.batches import Batch, make_sampler

    model = fresh(name, split).double().eval()
    config = model.config
    sampler = make_sampler(SYSTEMS[name].batches, split.train, config, k=3, seed=0)
    batch = TensorBatch(*map(torch.from_numpy, Batch(*sampler.sample(0, 8))))
    generator = torch.Generator().manual_seed(0)
    offsets = torch.randn(model.embedding.weight.shape, generator=generator, dtype=torch.float64)

    def loss(item_offsets=None):
        with torch.random.fork_rng():
            torch.manual_seed(1)
            return model.training_loss(batch, item_offsets).item()

    before, shifted = loss(), loss(offsets)
    assert before != pytest.approx(shifted)
    with torch.no_grad():
        model.embedding.weight += offsets
        if getattr(model, "output", model.embedding) is not model.embedding:
            model.output.weight += offsets
    assert loss() == pytest.approx(shifted, rel=1e-12)


@pytest.mark.parametrize("name", ["bpr", "sasrec", "metacf"])
def test_a_resumed_training_with_folds_ends_with_the_same_bytes(name, tmp_path):
    def stop(progress):
        if progress.step == 5:
            signal.raise_signal(signal.SIGTERM)

    config = {**START, "batch_size": 16, "max_steps": 9, "eval_every": 3}
    arguments = {"model": name, "config": config, "device": "cpu"}
    data = ring(users=300)
    metatl.fit(data, out=tmp_path / "whole", **arguments)
    with pytest.raises(TrainingStopped):
        metatl.fit(data, out=tmp_path / "stopped", on_progress=stop, **arguments)
    metatl.fit(data, out=tmp_path / "stopped", resume=True, **arguments)
    whole, stopped = (load_checkpoint(tmp_path / run / "last.safetensors")[0] for run in ("whole", "stopped"))
    assert whole.keys() == stopped.keys()
    assert all(whole[key].tobytes() == stopped[key].tobytes() for key in whole)


@pytest.mark.parametrize("name", BASELINES)
def test_paper_starts_at_random_and_wrong_settings_are_errors(name):
    assert SYSTEMS[name].config_class().preset("paper").item_start == "random"
    for config, message in (
        ({"item_start": "random", "trend_weight": 0.1, "cross_fit_folds": 0}, "need 'spectral'"),
        ({"item_start": "random", "trend_weight": 0.0, "cross_fit_folds": 2}, "need 'spectral'"),
        ({"item_start": "spectral", "cross_fit_folds": 1}, "without its only fold no user is left"),
    ):
        with pytest.raises(ConfigError, match=message):
            metatl.fit(ring(users=300), model=name, config=config)
