"""Lists for new users from a loaded run: one user at a time, and many at once."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from scipy import sparse

import metatl
from metatl.common.timings import Timings
from metatl.ranking.encoders import ArrayEncoder
from metatl.ranking.item_tables import as_item_table
from metatl.serving.recommender import Recommender
from metatl.serving.served_run import ServedRun
from sizes import K

MANY, ONE_BY_ONE, TOP = 10_000, 200, 10
OF_MANY = f"lists of {TOP} of 800 wines for {MANY:,} new users of {K} items"
OF_ONE = f"lists of {TOP} of 800 wines for one new user of {K} items at a time, on one thread"
RECTOOLS = Path(__file__).parents[1] / ".venv-peers-rectools" / "bin" / "python"


@pytest.fixture(scope="module")
def wines(tmp_path_factory):
    """Runs of MetaTL and item-kNN, the training rows as a matrix, and histories of new users."""
    folder = tmp_path_factory.mktemp("serving")
    for model in ("metatl", "knn"):
        metatl.fit("wines", model=model, out=folder / model, device="cpu")
    split = metatl.SplitSettings(k=K).split(metatl.datasets.load("wines"))
    train = split.train
    matrix = sparse.csr_matrix(
        (np.ones(len(train.items), dtype=np.float32), train.items, train.indptr),
        (train.num_users, train.num_items),
    )
    users = np.arange(MANY) % split.cold.num_users
    return folder, matrix, split.histories(users), split.item_ids


def raw(histories, item_ids):
    ids = item_ids.to_list()
    return [[ids[item] for item in row] for row in histories.tolist()]


@pytest.mark.parametrize("model", ["metatl", "knn"])
def test_many_metatl(measure, wines, model):
    folder, _, histories, item_ids = wines
    recommender, users = metatl.Recommender.load(folder / model), raw(histories, item_ids)
    of_model = "" if model == "metatl" else ", item-kNN"
    measure(
        lambda: recommender.recommend(users, TOP),
        work=OF_MANY + of_model,
        system="metatl",
        units=MANY,
        unit="users",
        rounds=15,
    )


@pytest.mark.parametrize("model", ["metatl", "knn"])
def test_one_by_one_metatl(measure, wines, model):
    folder, _, histories, item_ids = wines
    recommender = metatl.Recommender.load(folder / model, threads=1)
    users = raw(histories[:ONE_BY_ONE], item_ids)
    measure(
        lambda: [recommender.recommend([user], TOP) for user in users],
        work=OF_ONE + ("" if model == "metatl" else ", item-kNN"),
        system="metatl",
        units=ONE_BY_ONE,
        unit="users",
        rounds=15,
    )


def rows_of(histories, num_items):
    indptr = np.arange(len(histories) + 1) * histories.shape[1]
    values = np.ones(histories.size, dtype=np.float32)
    return sparse.csr_matrix((values, histories.ravel(), indptr), (len(histories), num_items))


@pytest.fixture(scope="module", params=["als", "knn"])
def implicit_model(request, wines):
    """A model of implicit: ALS with the dimension of MetaTL's item vectors, or its item-kNN."""
    if request.param == "als":
        als = pytest.importorskip("implicit.als", reason="`make bench` installs implicit")
        model = als.AlternatingLeastSquares(factors=128, iterations=5, random_state=0)
        name, of_model = "implicit, ALS with fold-in", ""
    else:
        nearest = pytest.importorskip("implicit.nearest_neighbours")
        model, name, of_model = nearest.CosineRecommender(K=100), "implicit, cosine", ", item-kNN"
    model.fit(wines[1], show_progress=False)
    options = {"recalculate_user": True} if request.param == "als" else {}
    return model, name, of_model, options


@pytest.mark.filterwarnings("ignore")  # implicit advises on threads and types of numbers
def test_many_implicit(measure, wines, implicit_model):
    model, name, of_model, options = implicit_model
    matrix, users = rows_of(wines[2], wines[1].shape[1]), np.arange(MANY)
    # As ids come in, so that both look them up.
    measure(
        lambda: model.recommend(users, matrix, N=TOP, filter_already_liked_items=True, **options),
        work=OF_MANY + of_model,
        system=name,
        units=MANY,
        unit="users",
    )


@pytest.mark.filterwarnings("ignore")
def test_one_by_one_implicit(measure, wines, implicit_model):
    model, name, of_model, options = implicit_model
    matrix = rows_of(wines[2][:ONE_BY_ONE], wines[1].shape[1])
    rows = [matrix[user] for user in range(ONE_BY_ONE)]
    measure(
        lambda: [model.recommend(0, row, N=TOP, filter_already_liked_items=True, **options) for row in rows],
        work=OF_ONE + of_model,
        system=name,
        units=ONE_BY_ONE,
        unit="users",
    )


@pytest.mark.skipif(not RECTOOLS.exists(), reason="`make bench` makes the environment of RecTools")
def test_many_rectools(measure, wines, tmp_path):
    """Its item-kNN, in an environment of its own: each call is a line to the process, and one back."""
    _, matrix, histories, _ = wines
    np.savez(tmp_path / "rows.npz", items=matrix.indices, indptr=matrix.indptr, histories=histories, top=TOP)
    script = Path(__file__).parent / "peers" / "rectools_serving.py"
    command = [RECTOOLS, "-W", "ignore", script, tmp_path / "rows.npz"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:

        def recommend():
            process.stdin.write("recommend\n")
            process.stdin.flush()
            assert process.stdout.readline() == f"{MANY}\n"

        assert process.stdout.readline() == "ready\n"
        measure(recommend, work=OF_MANY + ", item-kNN", system="RecTools, cosine", units=MANY, unit="users")
        process.stdin.close()
        assert process.wait(timeout=60) == 0


# --- Large catalogues


class LastItem:
    """An encoder whose query is the vector of the last item: what is timed is the list."""

    inner_steps, item_bias, similarity = 0, None, "squared_l2"

    def __init__(self, item_table):
        self.item_table = item_table

    def encode(self, histories, *, seed, num_threads):  # noqa: ARG002
        return self.item_table[histories.items[histories.indptr[1:] - 1]]


@pytest.mark.parametrize(("items", "item_format"), [(100_000, "bf16"), (1_000_000, "int8")])
def test_large_catalogue_metatl(measure, items, item_format):
    generator = np.random.default_rng(0)
    table = generator.standard_normal((items, 128), dtype=np.float32)
    arranged = as_item_table(table, item_format, num_threads=None).arranged(num_threads=None)
    encoder = ArrayEncoder.of(LastItem(table), arranged, 0, 1, Timings())
    ids, counts = pl.Series("item_id", np.arange(items)), np.ones(items, dtype=np.int64)
    recommender = Recommender(ServedRun(None, None, ids, counts, encoder, item_format))
    users = generator.integers(items, size=(20, K)).tolist()
    measure(
        lambda: [recommender.recommend([user], TOP) for user in users],
        work=f"lists of {TOP} of {items:,} items in {item_format} for one user at a time, on one thread",
        system="metatl",
        units=len(users),
        unit="users",
    )
