"""The sign flips of a randomisation test: against all flips, a replay of its coins, and scipy."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from metatl import _metatl
from metatl.exceptions import InvalidArgumentError, NotANumberError
from reference_generator import Generator

SIGN_FLIPS = 9
RESAMPLES = 20_000
THREADS = (1, 2, 3, 8)


def replay(rows, resamples, seed):
    """Count flips by the definition; the rows are integers, so that sums are exact."""
    observed = [abs(sum(column)) for column in zip(*rows, strict=True)]
    counts = [0] * len(observed)
    for resample in range(resamples):
        generator = Generator(seed, SIGN_FLIPS, 0, resample)
        words = [generator.word() for _ in range(0, len(rows), 64)]
        signs = [-1 if words[user // 64] >> user % 64 & 1 else 1 for user in range(len(rows))]
        for place, column in enumerate(zip(*rows, strict=True)):
            flipped = sum(sign * value for sign, value in zip(signs, column, strict=True))
            counts[place] += abs(flipped) >= observed[place]
    return counts


@given(
    st.lists(st.tuples(st.integers(-9, 9), st.integers(-9, 9)), min_size=1, max_size=9),
    st.integers(0, 20),
    st.integers(0, 2**64 - 1),
)
def test_counts_are_those_of_the_coins(rows, resamples, seed):
    differences = np.array(rows, np.float64)
    found = _metatl.sign_flip_counts(differences, resamples=resamples, seed=seed)
    assert found.dtype == np.int64
    assert found.tolist() == replay(rows, resamples, seed)
    # In tenths, sums that are equal can differ by a rounding.
    tenths = _metatl.sign_flip_counts(differences / 10, resamples=resamples, seed=seed)
    assert tenths.tolist() == found.tolist()


@pytest.mark.parametrize("users", [63, 64, 65, 128, 200])
def test_counts_are_those_of_the_coins_across_words(users):
    rows = np.random.default_rng(users).integers(-9, 10, (users, 2))
    found = _metatl.sign_flip_counts(rows.astype(np.float64), resamples=19, seed=5)
    assert found.tolist() == replay(rows.tolist(), 19, 5)


def test_golden():
    rows = [[(place * place) % 23 - 9 for place in range(3 * user, 3 * user + 3)] for user in range(100)]
    found = _metatl.sign_flip_counts(np.array(rows, np.float64), resamples=1_000, seed=2021)
    assert found.tolist() == replay(rows, 1_000, 2021) == [90, 56, 68]


@pytest.mark.parametrize("users", [2, 3, 5, 11])
def test_all_flips_are_equally_likely(users):
    # Tenths: some of the 2^B sums are equal but for rounding.
    rows = np.random.default_rng(users).integers(-4, 6, (users, 4)) / 10
    signs = np.array(list(product([-1, 1], repeat=users)))
    shares = np.mean(abs(signs @ rows) >= abs(rows.sum(axis=0)) - 1e-9, axis=0)
    counts = _metatl.sign_flip_counts(rows, resamples=RESAMPLES, seed=1)
    error = np.sqrt(shares * (1 - shares) / RESAMPLES)
    assert (abs(counts / RESAMPLES - shares) <= 4.5 * error).all()
    for column, count in zip(rows.T, counts, strict=True):
        exact = stats.permutation_test(
            (column,), np.sum, permutation_type="samples", n_resamples=np.inf, alternative="two-sided"
        )
        assert count / RESAMPLES == pytest.approx(exact.pvalue, abs=0.02)


def test_scipy_agrees_on_many_users():
    rng = np.random.default_rng(0)
    rows = rng.normal(0.05, 1, (700, 2)) * (rng.random((700, 2)) < 0.5)
    counts = _metatl.sign_flip_counts(rows, resamples=RESAMPLES, seed=3)
    for column, count in zip(rows.T, counts, strict=True):
        theirs = stats.permutation_test(
            (column,), np.sum, permutation_type="samples", n_resamples=2_000, rng=1
        ).pvalue
        # Theirs is of 2,000 resamples: five of its standard errors.
        error = np.sqrt(theirs * (1 - theirs) / 2_000)
        assert abs(count / RESAMPLES - theirs) < 5 * error + 0.002
        # The sum of so many flips is nearly normal.
        normal = 2 * stats.norm.sf(abs(column.sum()) / np.sqrt((column**2).sum()))
        assert count / RESAMPLES == pytest.approx(normal, abs=0.015)


def test_the_columns_share_their_coins():
    column = np.random.default_rng(0).normal(size=(100, 1))
    pair = _metatl.sign_flip_counts(np.hstack([column, 2 * column]), resamples=500, seed=1)
    alone = _metatl.sign_flip_counts(column, resamples=500, seed=1)
    assert pair.tolist() == [alone[0]] * 2
    assert 0 < alone[0] < 500


def test_what_does_not_differ_always_counts():
    rows = np.zeros((70, 2))
    rows[3, 1] = -0.1
    assert _metatl.sign_flip_counts(rows, resamples=21, seed=0).tolist() == [21, 21]
    assert _metatl.sign_flip_counts(rows[:, :0], resamples=21, seed=0).tolist() == []
    assert _metatl.sign_flip_counts(rows, resamples=0, seed=0).tolist() == [0, 0]


def test_the_counts_depend_on_the_seed_alone():
    rows = np.random.default_rng(0).normal(0.02, 1, (2_000, 5))
    found = {
        _metatl.sign_flip_counts(rows, resamples=1_001, seed=5, num_threads=threads).tobytes()
        for threads in (*THREADS, None)
    }
    assert len(found) == 1
    assert _metatl.sign_flip_counts(rows, resamples=1_001, seed=6).tobytes() not in found
    # More resamples add to the same ones.
    fewer = _metatl.sign_flip_counts(rows, resamples=1_000, seed=5)
    more = np.frombuffer(found.pop(), np.int64)
    assert ((more - fewer >= 0) & (more - fewer <= 1)).all()


def test_wrong_arguments_are_named():
    good = {"differences": np.ones((2, 2)), "resamples": 3, "seed": 0}
    wrong = {
        "differences": [
            np.ones(2), np.ones((2, 2), np.float32), np.ones((2, 2), order="F")[:1].T, [[1.0]], None,
            np.ones((2, 4))[:, ::2], np.zeros((0, 2)), np.array([[np.inf]]), np.full((2, 1), 1e308),
        ],
        "resamples": [-1, 1.5, "3", None, 2**63],
        "seed": [-1, 2**64, 0.5, None],
        "num_threads": [0, -1, "2", 1025],
    }  # fmt: skip
    for argument, values in wrong.items():
        for value in values:
            with pytest.raises(InvalidArgumentError, match=f"^{argument}: found .*, expected"):
                _metatl.sign_flip_counts(**{**good, argument: value})
    with pytest.raises(NotANumberError, match=r"^differences: found 2 NaN, expected none"):
        _metatl.sign_flip_counts(np.array([[1.0, np.nan], [np.nan, 2]]), resamples=1, seed=0)
