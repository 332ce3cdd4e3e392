"""Spectral item vectors against dense algebra, and folds against leaving users out by hand."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

import metatl
from metatl.models.item_start.spectral import (
    DISTANCE_DECAY,
    LENGTH_DISCOUNT,
    ROOT_MEAN_SQUARE_NORM,
    THRESHOLD,
    WINDOW,
    cross_fitting,
    leading_eigenpairs,
    spectral_vectors,
)
from property_settings import COSTLY_CASES


def interactions(sequences):
    rows = [
        (user, f"{item:03}", time) for user, items in enumerate(sequences) for time, item in enumerate(items)
    ]
    frame = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    return metatl.Interactions.from_frame(frame)


def slow_gram(train, dim):
    """Inner products of all vectors, from the definition; they do not depend on the basis."""
    weights = np.zeros((train.num_items, train.num_items))
    for user in range(train.num_users):
        row = train.items[train.indptr[user] : train.indptr[user + 1]]
        for p, first in enumerate(row):
            for q, second in enumerate(row):
                if first != second and abs(p - q) <= WINDOW:
                    weights[first, second] += len(row) ** -LENGTH_DISCOUNT * abs(p - q) ** -DISTANCE_DECAY
    sums = weights.sum(axis=1)
    shrunk = np.sqrt(sums + np.median(sums[sums > 0]))
    values, basis = np.linalg.eigh(weights / np.outer(shrunk, shrunk))
    values, basis = values[::-1][:dim], basis[:, ::-1][:, :dim]
    kept = np.maximum(values - THRESHOLD * max(values[-1], 0), 0) / values[0]
    gram = (basis * kept) @ basis.T
    norms = np.sqrt(np.diag(gram))
    scale = np.where(norms > 0, norms, 1) ** 0.5
    gram = gram / np.outer(scale, scale)
    return gram * ROOT_MEAN_SQUARE_NORM**2 / np.diag(gram).mean()


sequences = st.lists(st.lists(st.integers(0, 8), min_size=1, max_size=14), min_size=2, max_size=8).filter(
    lambda rows: any(len(set(row)) > 1 for row in rows)
)


@COSTLY_CASES
@given(sequences=sequences)
def test_vectors_are_those_of_the_definition(sequences):
    train = interactions(sequences)
    dim = train.num_items  # all of them: equal eigenvalues at the cut would leave a choice
    vectors = spectral_vectors(train, dim)
    assert vectors.dtype == np.float32
    gram = vectors.astype(np.float64) @ vectors.T
    assert np.allclose(gram, slow_gram(train, dim), atol=1e-3)


def test_many_items_take_the_iterative_way_to_the_same_vectors():
    generator = np.random.default_rng(0)
    centres = generator.integers(0, 300, 400)
    train = interactions([(c + generator.integers(-4, 5, 12)) % 300 for c in centres])
    assert train.num_items == 300
    vectors = spectral_vectors(train, 8)
    gram = vectors.astype(np.float64) @ vectors.T
    expected = slow_gram(train, 8)
    assert np.corrcoef(gram.ravel(), expected.ravel())[0, 1] > 0.99
    assert np.array_equal(vectors, spectral_vectors(train, 8))


def test_leading_eigenpairs_are_those_of_a_dense_solver():
    generator = np.random.default_rng(1)
    basis, _ = np.linalg.qr(generator.standard_normal((200, 200)))
    spectrum = np.concatenate([[1.0, 0.9, 0.8, 0.7, 0.6], generator.uniform(-0.3, 0.2, 195)])
    matrix = (basis * spectrum) @ basis.T
    values, vectors = leading_eigenpairs(sp.csr_array((matrix + matrix.T) / 2), 5)
    assert np.allclose(values, spectrum[:5], atol=1e-6)
    assert np.allclose(np.abs((vectors * basis[:, :5]).sum(axis=0)), 1.0, atol=1e-6)
    assert np.allclose(vectors.T @ vectors, np.eye(5), atol=1e-10)


def test_items_of_one_community_point_the_same_way():
    train = interactions([[0, 1, 2], [2, 1, 0, 3], [3, 0, 2]] * 3 + [[4, 5, 6], [6, 4, 5, 7], [7, 4, 6]] * 3)
    vectors = spectral_vectors(train, 2)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = unit @ unit.T
    assert (cosines[:4, :4] > 0.9).all()
    assert (cosines[4:, 4:] > 0.9).all()
    assert (np.abs(cosines[:4, 4:]) < 0.1).all()


def test_an_item_that_co_occurs_with_none_and_dimensions_beyond_the_catalogue_are_zero():
    train = interactions([[0, 1], [1, 0], [2]])
    vectors = spectral_vectors(train, 5)
    assert not vectors[2].any()
    assert not vectors[:, 3:].any()
    assert np.isfinite(vectors).all()
    assert not spectral_vectors(interactions([[0], [1]]), 4).any()


@pytest.fixture(scope="module")
def train():
    generator = np.random.default_rng(2)
    lengths = generator.integers(2, 9, 60)
    return interactions([generator.permutation(20)[:length] for length in lengths])


def test_folds_part_the_users_that_have_tasks(train):
    folds = cross_fitting(train, spectral_vectors(train, 6), 4, fewest_rows=4)
    users = [user for fold in folds for user in fold.train.user_ids]
    expected = train.user_ids.filter(pl.Series(train.lengths > 3)).to_list()
    assert len(folds) == 4
    assert sorted(users) == sorted(expected)
    for fold in folds:
        assert fold.train.num_items == train.num_items


def test_a_folds_vectors_are_made_without_its_users(train):
    dim = train.num_items
    vectors = spectral_vectors(train, dim)
    for fold in cross_fitting(train, vectors, 3, fewest_rows=4):
        inside = set(fold.train.user_ids)
        others = train.select_rows(np.array([train.user_ids[int(u)] not in inside for u in train.users]))
        rows = vectors + fold.offsets
        assert np.allclose(rows @ rows.T, slow_gram(others, dim), atol=1e-2)
        # Rotated as close to the vectors of all users as a rotation can get.
        unrotated = spectral_vectors(others, dim)
        assert np.linalg.norm(fold.offsets) <= np.linalg.norm(unrotated - vectors) + 1e-3


def test_one_user_with_a_task_is_no_reason_to_leave_it_out():
    train = interactions([[0, 1, 2, 3], [0, 1], [2, 3]])
    assert cross_fitting(train, spectral_vectors(train, 2), 5, fewest_rows=4) == []
    assert len(cross_fitting(train, spectral_vectors(train, 2), 5, fewest_rows=2)) == 3
