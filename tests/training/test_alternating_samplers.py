"""Drawing batches from several samplers in turn."""

from itertools import islice

import numpy as np

from metatl._metatl import EpisodeSampler, Interactions
from metatl.training.batches import alternate


def sampler(first_item):
    """Episodes of one user with four consecutive items."""
    items = np.arange(first_item, first_item + 4, dtype=np.int64)
    return EpisodeSampler(
        Interactions(np.array([0, 4]), items, 20),
        k=2,
        negatives=1,
        shared_negatives=3,
        window_share=0.0,
        released_windows=False,
        shuffle_share=0.5,
        seed=7,
    )


def draw(first_step, count):
    with alternate([sampler(0), sampler(5), sampler(10)], first_step, 16) as batches:
        return list(islice(batches, count))


def test_step_s_comes_from_sampler_s_modulo_their_number():
    for step, batch in enumerate(draw(0, 9)):
        assert (batch.items // 5 == step % 3).all()
        expected = sampler(5 * (step % 3)).sample(step // 3, 16)
        assert all(np.array_equal(a, b) for a, b in zip(batch, expected, strict=True))


def test_a_resumed_training_draws_the_same_batches():
    whole = draw(0, 10)
    for first_step in range(1, 10):
        rest = draw(first_step, 10 - first_step)
        for batch, expected in zip(rest, whole[first_step:], strict=True):
            assert all(np.array_equal(a, b) for a, b in zip(batch, expected, strict=True))
