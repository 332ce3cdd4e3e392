"""Users who have had every item: no negative is left for them, and nobody else is stopped."""

import warnings

import numpy as np
import polars as pl
import pytest

import metatl
from metatl.data.candidates import sample_candidate_sets
from metatl.data.full_users import leave_out_full_users
from metatl.exceptions import MetatlWarning, NoNegativeError
from metatl.models import SYSTEMS
from metatl.training.batches import make_sampler
from planted_data import ring

ITEMS = 40
OTHERS = ring(users=300, items=ITEMS)
SMALL = {
    "dim": 8,
    "hidden": 8,
    "layers": 1,
    "batch_size": 16,
    "max_steps": 2,
    "eval_every": 1,
    "max_length": 8,
}
NAMED = [(system.name, preset) for system in SYSTEMS.values() for preset in system.presets]


def with_full_users(early=("everything",), late=()):
    """The ring, and users who have every item from the start, or from the end."""
    frame = OTHERS.to_frame().with_columns(pl.col("user_id").cast(pl.String))
    first, last = frame["timestamp"].min(), frame["timestamp"].max()
    items = OTHERS.item_ids.to_list()
    full = [
        pl.DataFrame({"user_id": user, "item_id": items, "timestamp": time}, schema=frame.schema)
        for users, time in ((early, first), (late, last))
        for user in users
    ]
    rows = pl.concat([frame, *full])
    unit = rows.with_columns(pl.col("timestamp").dt.timestamp("us"))
    return metatl.Interactions.from_frame(unit, timestamp_unit="us")


def small(system, preset):
    defaults = SYSTEMS[system].config_class().preset(preset).model_dump()
    sizes = {name: value for name, value in SMALL.items() if name in defaults}
    return {
        name: (value,) * len(defaults[name]) if isinstance(defaults[name], tuple) else value
        for name, value in sizes.items()
    }


def draws_negatives(system, config):
    batches = SYSTEMS[system].batches
    return batches is not None and getattr(config, batches).negatives > 0


@pytest.fixture(scope="module")
def world():
    return with_full_users()


@pytest.mark.parametrize(("system", "preset"), NAMED)
def test_a_full_user_stops_neither_training_nor_serving(world, system, preset):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", MetatlWarning)
        run = metatl.fit(world, model=system, preset=preset, config=small(system, preset), device="cpu")
    expected = []
    if draws_negatives(system, run.config):
        users = metatl.SplitSettings().split(world).train.num_users
        found = f"user everything: found all {ITEMS} items, which leaves no negative"
        expected = [f"{found}; left out of training: 1 of {users} users"]
    assert [str(warning.message) for warning in caught] == expected

    items = run.item_ids.to_list()
    some, all_but_one, everything = items[3:6], items[1:], items[::-1]
    lists = metatl.recommend(run, [some, everything, all_but_one, everything * 2], top=5)
    assert [len(lists[user]) for user in range(4)] == [5, 0, 1, 0]
    assert lists[2][0].item_id == items[0]
    assert (lists.items[0] == metatl.recommend(run, [some], top=5).items[0]).all()
    assert lists.frame()["user_id"].unique().sort().to_list() == [0, 2]


def test_a_full_user_changes_no_draw_of_the_others(world):
    """The user is the last one, so that the others keep their numbers."""
    split, without = metatl.SplitSettings().split(world), metatl.SplitSettings().split(OTHERS)
    train = split.train
    last = train.user_ids.to_list().index("everything")
    assert last == train.num_users - 1
    others = train.select_rows(train.users != last)
    assert others.num_users == without.train.num_users
    for system, preset in (
        ("metatl", "official"),
        ("bpr", "tuned"),
        ("sasrec", "paper"),
        ("metacf", "paper"),
    ):
        config = SYSTEMS[system].config_class().preset(preset)
        samplers = [
            make_sampler(SYSTEMS[system].batches, part, config, k=3, seed=1, item_counts=train.item_counts)
            for part in (train, others)
        ]
        for found, expected in zip(*(sampler.sample(4, 64) for sampler in samplers), strict=True):
            np.testing.assert_array_equal(found, expected)


def test_only_full_users_are_one_error():
    rows = {"user_id": np.repeat(np.arange(60), 6), "item_id": np.tile(np.arange(6), 60)}
    frame = pl.DataFrame({**rows, "timestamp": np.arange(360)})
    message = r"^user \d+: found all 6 items, as for each of the \d+ users for validation, which leaves no"
    with pytest.raises(NoNegativeError, match=message):
        metatl.fit(metatl.Interactions.from_frame(frame), preset="official", device="cpu")


def test_full_validation_users_are_left_out():
    late = [f"everything {number}" for number in range(8)]
    data = with_full_users(early=(), late=late)
    split = metatl.SplitSettings().split(data)
    full = [user for user in split.cold.user_ids.gather(split.validation).to_list() if user in late]
    assert len(full) > 1
    message = (
        rf"^user {full[0]}: found all {ITEMS} items, which leaves no negative; left out of validation: "
        rf"{len(full)} of {len(split.validation)} users$"
    )
    with pytest.warns(MetatlWarning, match=message):
        run = metatl.fit(data, model="popularity", device="cpu")
    kept = split.validation[split.cold.distinct_items[split.validation] < ITEMS]
    sets = sample_candidate_sets(split, kept, n=ITEMS - 8, seed=0)
    assert run.record.validation_candidates_sha256 == sets.sha256
    # Candidates of an evaluation must be comparable: there such a user stays an error that names the raw id.
    with pytest.raises(NoNegativeError, match=r"^user everything \d: found 0 items"):
        sample_candidate_sets(split, split.validation, n=5, seed=0)


def test_without_full_users_there_is_no_warning():
    users = np.arange(OTHERS.num_users)
    assert (leave_out_full_users(OTHERS, users, "training") == users).all()
    assert len(leave_out_full_users(OTHERS, users[:0], "training")) == 0


def test_one_user_with_almost_everything_does_not_decide_for_all():
    rows = with_full_users(early=(), late=["almost"]).to_frame()
    first = OTHERS.item_ids.to_list()[0]
    rows = rows.filter((pl.col("user_id") != "almost") | (pl.col("item_id") != first))
    data = metatl.Interactions.from_frame(rows)
    settings = metatl.SplitSettings(validation_share=0.9)
    split = settings.split(data)
    validation = split.validation
    almost = split.cold.distinct_items[validation] == ITEMS - 1
    assert almost.sum() == 1
    message = (
        rf"^user almost: found {ITEMS - 1} of {ITEMS} items, which leaves 1 negatives of \d+; left out of"
    )
    with pytest.warns(MetatlWarning, match=message):
        run = metatl.fit(data, model="popularity", device="cpu", split=settings)
    fewest = int((ITEMS - split.cold.distinct_items[validation[~almost]]).min())
    sets = sample_candidate_sets(split, validation[~almost], n=fewest, seed=0)
    assert run.record.validation_candidates_sha256 == sets.sha256
