"""Ranking among candidates and in the full catalogue, top-N, bootstrap, sign flips."""

import numpy as np
import pytest
import torch

import metatl
import reference
from metatl import _metatl

FACTORISED = {"item_bias": None, "similarity": "squared_l2", "overrides": None}
CANDIDATES = "gather, score and rank 101 of 20,000 items, d = 100"
CATALOGUE = "full ranking, 20,000 items, d = 100"
TOP = "top 10 of 20,000 items, d = 100"
TOP_OF_ONE = "top 10 for one user at a time, 20,000 items, d = 100"
ONE_BY_ONE = 20
BOOTSTRAP = "bootstrap, 1,000 resamples of 5,000 users, 4 metrics"
SIGN_FLIPS = "randomisation test, 1,000 resamples of 5,000 users, 4 metrics"


def tensors(vectors):
    return (torch.from_numpy(array) for array in (vectors.queries, vectors.table, vectors.candidates))


def test_candidates_metatl(measure, vectors):
    measure(
        lambda: _metatl.rank_candidates(vectors.queries, vectors.table, vectors.candidates, **FACTORISED),
        work=CANDIDATES,
        system="metatl",
        units=len(vectors.queries),
        unit="lists",
    )


def test_candidates_metatl_on_one_thread(measure, vectors):
    measure(
        lambda: _metatl.rank_candidates(
            vectors.queries, vectors.table, vectors.candidates, num_threads=1, **FACTORISED
        ),
        work=f"{CANDIDATES}, on one thread",
        system="metatl",
        units=len(vectors.queries),
        unit="lists",
    )


def test_candidates_torch(measure, vectors):
    arrays = tuple(tensors(vectors))
    measure(
        lambda: reference.rank_torch(*arrays),
        work=CANDIDATES,
        system="torch",
        units=len(vectors.queries),
        unit="lists",
    )


def test_candidates_numpy(measure, vectors):
    measure(
        lambda: reference.rank_numpy(vectors.queries[:1024], vectors.table, vectors.candidates[:1024]),
        work=CANDIDATES,
        system="numpy",
        units=1024,
        unit="lists",
    )


def test_candidates_python(measure, vectors):
    measure(
        lambda: reference.rank_python(vectors.queries[:64], vectors.table, vectors.candidates[:64]),
        work=CANDIDATES,
        system="plain Python",
        units=64,
        unit="lists",
    )


def test_catalogue_metatl(measure, vectors):
    measure(
        lambda: _metatl.rank_catalogue(
            vectors.queries,
            vectors.table,
            vectors.targets,
            vectors.excluded_indptr,
            vectors.excluded_items,
            **FACTORISED,
        ),
        work=CATALOGUE,
        system="metatl",
        units=len(vectors.queries),
        unit="users",
    )


def test_catalogue_torch(measure, vectors):
    queries, table, _ = tensors(vectors)
    targets = torch.from_numpy(vectors.targets)
    measure(
        lambda: reference.rank_catalogue_torch(queries, table, targets),
        work=CATALOGUE,
        system="torch",
        units=len(vectors.queries),
        unit="users",
    )


def test_top_metatl(measure, vectors):
    measure(
        lambda: _metatl.top_n(
            vectors.queries, vectors.table, 10, vectors.excluded_indptr, vectors.excluded_items, **FACTORISED
        ),
        work=TOP,
        system="metatl",
        units=len(vectors.queries),
        unit="users",
    )


def test_top_torch(measure, vectors):
    queries, table, _ = tensors(vectors)
    measure(
        lambda: reference.top_n_torch(queries, table, 10),
        work=TOP,
        system="torch",
        units=len(vectors.queries),
        unit="users",
    )


@pytest.mark.parametrize("item_format", ["float32", "bf16", "int8"])
def test_top_of_one_metatl(measure, vectors, item_format):
    table = getattr(metatl.ItemTable, item_format)(vectors.table).arrays

    def one_by_one():
        for user in range(ONE_BY_ONE):
            query = vectors.queries[user : user + 1]
            start, end = vectors.excluded_indptr[user : user + 2]
            seen = vectors.excluded_items[start:end]
            _metatl.top_n(query, table, 10, np.array([0, len(seen)]), seen, **FACTORISED)

    work = TOP_OF_ONE if item_format == "float32" else f"{TOP_OF_ONE}, items in {item_format}"
    measure(one_by_one, work=work, system="metatl", units=ONE_BY_ONE, unit="users", rounds=50)


def test_top_of_one_torch(measure, vectors):
    queries, table, _ = tensors(vectors)
    norms = table.square().sum(dim=1)  # what a server keeps

    def one_by_one():
        for query in queries[:ONE_BY_ONE]:
            torch.topk(torch.addmv(norms, table, query, beta=-1, alpha=2), 10)

    measure(one_by_one, work=TOP_OF_ONE, system="torch", units=ONE_BY_ONE, unit="users", rounds=50)


def test_bootstrap_metatl(measure):
    values = np.random.default_rng(0).random((5000, 4))
    measure(
        lambda: _metatl.bootstrap_means(values, resamples=1000, seed=0),
        work=BOOTSTRAP,
        system="metatl",
        units=1000,
        unit="resamples",
    )


def test_bootstrap_numpy(measure):
    values = np.random.default_rng(0).random((5000, 4))
    measure(
        lambda: reference.bootstrap_numpy(values, 200, 0),
        work=BOOTSTRAP,
        system="numpy",
        units=200,
        unit="resamples",
    )


def test_sign_flips_metatl(measure):
    differences = np.random.default_rng(0).normal(0.02, 1, (5000, 4))
    measure(
        lambda: _metatl.sign_flip_counts(differences, resamples=1000, seed=0),
        work=SIGN_FLIPS,
        system="metatl",
        units=1000,
        unit="resamples",
    )


def test_sign_flips_numpy(measure):
    differences = np.random.default_rng(0).normal(0.02, 1, (5000, 4))
    measure(
        lambda: reference.sign_flips_numpy(differences, 1000, 0),
        work=SIGN_FLIPS,
        system="numpy",
        units=1000,
        unit="resamples",
    )
