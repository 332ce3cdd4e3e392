"""Properties that every system has, with every preset.

The tests run over `metatl.models.SYSTEMS`: a new system gets them by being in the table. No test names a
system; what a test expects follows from the data, the table and the fields of the config.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

import metatl
from metatl.data.histories import Histories
from metatl.exceptions import ConfigError, InvalidArgumentError
from metatl.models import SYSTEMS
from metatl.ranking.rank import rank_candidates, top_n
from planted_data import groups

# Users take the six items of a group in any order, and the sixth is the target. The five before it tell which
# item that is; no fixed order of the items does.
K, GROUP_SIZE, NUM_GROUPS = 5, 6, 12
NUM_ITEMS = GROUP_SIZE * NUM_GROUPS
WORLD = groups(users=400, group_size=GROUP_SIZE, num_groups=NUM_GROUPS)
SPLIT = metatl.SplitSettings(k=K)

SMALL = {
    "dim": 16,
    "hidden": 16,
    "layers": 1,
    "max_length": 8,
    "batch_size": 64,
    "max_steps": 150,
    "eval_every": 75,
    "warmup_steps": 0,
    "lr": 0.01,
    "meta_lr": 0.05,
    "negatives": 4,
    "shared_negatives": 32,
    "regularisation": 0.0,
}
"""Settings that fit a small world in a second, for systems that have a field of that name."""


def small_settings(system, preset):
    """Give the fields that differ from the preset's: small sizes and no dropout."""
    defaults = SYSTEMS[system].config_class().preset(preset).model_dump()
    small = {name: value for name, value in SMALL.items() if name in defaults}
    small |= {name: 0.0 for name in defaults if name.endswith("dropout")}
    # Some systems have one hidden layer, others a tuple of them.
    return {
        name: (value,) * len(defaults[name]) if isinstance(defaults[name], tuple) else value
        for name, value in small.items()
    }


def fit(system, preset, *, config=None, **arguments):
    config = {**small_settings(system, preset), **(config or {})}
    return metatl.fit(
        WORLD, model=system, preset=preset, split=SPLIT, config=config, device="cpu", **arguments
    )


@pytest.fixture(
    scope="module",
    params=[(system.name, preset) for system in SYSTEMS.values() for preset in system.presets],
    ids="-".join,
)
def named(request):
    """Name a system and a preset."""
    return request.param


@pytest.fixture(scope="module")
def directory(named, tmp_path_factory):
    return tmp_path_factory.mktemp("-".join(named)) / "run"


@pytest.fixture(scope="module")
def run(named, directory):
    return fit(*named, out=directory)


@pytest.fixture(scope="module")
def split():
    return SPLIT.split(WORLD)


@pytest.fixture(scope="module")
def candidates(split):
    return metatl.sample_candidate_sets(split, split.test, n=20, seed=0).candidates


def as_histories(rows):
    indptr = np.cumsum([0, *map(len, rows)], dtype=np.int64)
    return Histories(indptr, np.array([item for row in rows for item in row], dtype=np.int64))


def catalogue_scores(run, rows):
    """Score every item of the catalogue for each history, (B, I)."""
    best = top_n(run.model, as_histories(rows), NUM_ITEMS, as_histories([[]] * len(rows)))
    scores = np.full(best.scores.shape, np.nan, dtype=np.float32)
    np.put_along_axis(scores, best.items, best.scores, axis=1)
    return scores


def recount(scores, candidates):
    """Count the candidates above the target, which is in column 0, and those with its score."""
    of_candidates = np.take_along_axis(scores, candidates, axis=1)
    target, others = of_candidates[:, :1], of_candidates[:, 1:]
    return (others > target).sum(axis=1), (others == target).sum(axis=1)


def assert_same_scores(found, expected):
    """Allow for the rounding of matrix products, whose sums depend on the number of rows."""
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


def random_rows(lengths):
    """Draw histories of distinct items."""
    generator = np.random.default_rng(1)
    return [generator.permutation(NUM_ITEMS)[:length].tolist() for length in lengths]


def raw_ids(run, rows):
    return [[run.item_ids[item] for item in row] for row in rows]


def answers(recommendations):
    return [recommendations[user] for user in range(len(recommendations))]


def tensor_bytes(run):
    return {name: (array.dtype, array.shape, array.tobytes()) for name, array in run.model.tensors().items()}


def test_what_the_history_tells_is_learned(run, split, candidates):
    scores = catalogue_scores(run, split.histories(split.test))
    by_count = recount(np.tile(run.item_counts, (len(scores), 1)), candidates)
    # No fixed order of the items solves this world.
    assert (1 / (1 + np.add(*by_count))).mean() < 0.3
    if (scores == scores[0]).all():
        # The system ignores the history. Then the best order is by the number of training interactions.
        np.testing.assert_array_equal(recount(scores, candidates), by_count)
    else:
        assert metatl.evaluate(run, "full", data=WORLD).metrics.full["MRR"].value > 0.9


def test_ranks_are_those_of_the_scores(run):
    # Random targets have all ranks; those of the world, once it is learned, are at the top.
    rows = random_rows([1, 2, 5, 5, 9, 20])
    candidates = np.array(random_rows([NUM_ITEMS] * len(rows)))
    counts = rank_candidates(run.model, as_histories(rows), candidates)
    np.testing.assert_array_equal(counts, recount(catalogue_scores(run, rows), candidates))


def test_an_evaluation_is_that_of_the_scores(run, split):
    scores = catalogue_scores(run, split.histories(split.test))
    # In the full ranking the target is compared with every item that its user does not have.
    greater, equal = [], []
    for user, target, row in zip(split.test, split.targets(split.test), scores, strict=True):
        own = split.cold.items[split.cold.indptr[user] : split.cold.indptr[user + 1]]
        others = np.delete(row, own)
        greater.append((others > row[target]).sum())
        equal.append((others == row[target]).sum())
    mean = (1 / (1 + np.add(greater, equal))).mean()
    assert metatl.evaluate(run, "full", data=WORLD).metrics.full["MRR"].value == pytest.approx(mean)


def test_a_score_does_not_depend_on_the_other_histories(run):
    rows = random_rows([5, 1, 12, 2, 5, 60, 3, 1, 7, 5])
    candidates = np.array(random_rows([20] * len(rows)))
    together = catalogue_scores(run, rows)
    counts = rank_candidates(run.model, as_histories(rows), candidates)
    for user, row in enumerate(rows):
        assert_same_scores(catalogue_scores(run, [row])[0], together[user])
        alone = rank_candidates(run.model, as_histories([row]), candidates[[user]])
        assert (alone.greater[0], alone.equal[0]) == (counts.greater[user], counts.equal[user])


def test_the_order_of_the_users_changes_no_answer(run):
    rows = random_rows([5, 1, 12, 2, 5, 60, 3, 1, 7, 5])
    order = np.random.default_rng(2).permutation(len(rows))
    answered = metatl.recommend(run, raw_ids(run, rows))
    reordered = metatl.recommend(run, raw_ids(run, [rows[user] for user in order]))
    np.testing.assert_array_equal(reordered.items, answered.items[order])
    assert_same_scores(reordered.scores, answered.scores[order])
    np.testing.assert_array_equal(reordered.known_items, answered.known_items[order])


def test_a_saved_run_ranks_the_same(run, directory, split, candidates):
    loaded = metatl.load_run(directory)
    assert tensor_bytes(loaded) == tensor_bytes(run)
    assert loaded.config == run.config
    assert loaded.record == run.record
    assert loaded.item_ids.equals(run.item_ids)
    np.testing.assert_array_equal(loaded.item_counts, run.item_counts)
    histories = split.histories(split.test)
    np.testing.assert_array_equal(
        rank_candidates(loaded.model, histories, candidates),
        rank_candidates(run.model, histories, candidates),
    )
    np.testing.assert_array_equal(catalogue_scores(loaded, histories), catalogue_scores(run, histories))
    evaluation = metatl.evaluate(run, "uni20", data=WORLD)
    assert metatl.evaluate(loaded, "uni20", data=WORLD).metrics == evaluation.metrics


def test_a_seed_decides_every_byte(named):
    config = {"max_steps": 4, "eval_every": 2}
    config = {name: value for name, value in config.items() if name in small_settings(*named)}
    first, again, other = (tensor_bytes(fit(*named, config=config, seed=seed)) for seed in (7, 7, 8))
    assert first
    assert again == first
    # A system that is not trained by gradients draws nothing.
    assert (other == first) == (SYSTEMS[named[0]].batches is None)


def test_a_new_user_with_one_item_gets_an_answer(run):
    found = metatl.recommend(run, raw_ids(run, [[item] for item in range(NUM_ITEMS)]), top=NUM_ITEMS - 1)
    assert np.isfinite(found.scores).all()
    for item, row in enumerate(found.items):
        assert sorted(row) == [other for other in range(NUM_ITEMS) if other != item]
        assert found.basis(item) == "history"


def test_a_user_who_has_everything_gets_an_empty_answer(run):
    everything = run.item_ids.to_list()
    assert answers(metatl.recommend(run, [everything])) == [[]]
    assert metatl.recommend(run, [everything]).frame().is_empty()
    beside = metatl.recommend(run, [everything[:3], everything, everything[1:]])
    assert [len(beside[user]) for user in range(3)] == [10, 0, 1]
    assert beside[2][0].item_id == everything[0]


def test_unknown_items_are_reported_and_ignored(run):
    first, second = raw_ids(run, [[0, 1], [2]])
    known = metatl.recommend(run, [first, second, []])
    mixed = metatl.recommend(run, [[-7, first[0], "no such item", first[1]], second, [math.nan]])
    assert mixed.unknown_items == (("-7", "no such item"), (), ("nan",))
    assert mixed.known_items.tolist() == [2, 1, 0]
    np.testing.assert_array_equal(mixed.items, known.items)
    np.testing.assert_array_equal(mixed.scores, known.scores)
    # A user without a known item gets the most frequent items.
    frequent = sorted(range(NUM_ITEMS), key=lambda item: -run.item_counts[item])[:10]
    assert mixed.items[2].tolist() == frequent
    assert [mixed.basis(user) for user in range(3)] == ["history", "history", "popularity"]


def test_nobody_is_recommended_what_they_have(run):
    rows = random_rows([1, 2, 5, 55, NUM_ITEMS - 1])
    found = metatl.recommend(run, raw_ids(run, rows), top=NUM_ITEMS)
    for answer, row in zip(found.items, rows, strict=True):
        others = sorted(set(range(NUM_ITEMS)) - set(row))
        assert sorted(answer[answer >= 0]) == others


HISTORIES = np.array([[1, 2], [3, 4]])
CANDIDATES = np.arange(12).reshape(2, 6)


@pytest.mark.parametrize("argument", ["histories", "candidates"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda items: np.where(items == items[0, 1], -1, items), "found (item )?-1"),
        (lambda items: np.where(items == items[0, 1], NUM_ITEMS, items), f"found (item )?{NUM_ITEMS}"),
        (lambda items: np.where(items == items[0, 1], math.nan, items), "found a 2-d array of float64"),
        (lambda items: items.astype(np.float32), "found a 2-d array of float32"),
        (lambda items: items.astype(np.int32), "found a 2-d array of int32"),
        (lambda items: items.astype(bool), "found a 2-d array of bool"),
        (lambda items: items[0], "found a 1-d array of int64"),
        (lambda items: items[None], "found a 3-d array of int64"),
        (lambda items: items.tolist(), "found list"),
    ],
    ids=["negative", "too-large", "nan", "float", "int32", "bool", "1-d", "3-d", "list"],
)
def test_items_that_cannot_be_are_named(run, argument, change, message):
    items = {"histories": HISTORIES, "candidates": CANDIDATES}
    items[argument] = change(items[argument])
    with pytest.raises(InvalidArgumentError, match=f"^{argument}: {message}"):
        rank_candidates(run.model, **items)


def test_missing_items_are_named(run):
    for histories in (HISTORIES[:, :0], as_histories([[1], []])):
        with pytest.raises(InvalidArgumentError, match=r"^histories: row \d is empty, expected at least one"):
            rank_candidates(run.model, histories, CANDIDATES)
    with pytest.raises(InvalidArgumentError, match=r"^candidates: found 1 rows, expected 2"):
        rank_candidates(run.model, HISTORIES, CANDIDATES[:1])
    with pytest.raises(InvalidArgumentError, match=r"^excluded: found 1 rows, expected 2"):
        top_n(run.model, HISTORIES, 3, as_histories([[1]]))


def test_settings_that_cannot_be_are_named(named):
    system, preset = named
    presets, fields = SYSTEMS[system].presets, SYSTEMS[system].config_class().model_fields
    message = f"^preset: {system} has no preset 'nameless'; it has {', '.join(presets)}$"
    with pytest.raises(ConfigError, match=message):
        metatl.fit(WORLD, model=system, preset="nameless")
    message = f"^config: {system} has no field 'nameless'; it has {', '.join(fields) or 'no fields'}$"
    with pytest.raises(ConfigError, match=message):
        fit(system, preset, config={"nameless": 1})
    with pytest.raises(ConfigError, match=f"^config: .*{'found k=4, expected 5' if 'k' in fields else 'k'}"):
        fit(system, preset, config={"k": 4})
    for name, field in fields.items():
        if field.annotation is float:
            with pytest.raises(ConfigError, match=f"^{name}: found nan, expected "):
                fit(system, preset, config={name: math.nan})
    for k in (0, 2.5, math.nan):
        with pytest.raises(InvalidArgumentError, match=f"^k: found {k}, expected a whole number of at least"):
            fit(system, preset, k=k)
