"""The border between Python and Rust: exact arrays and numbers, and an error that names the argument for
everything else. Nothing is cast, nothing is copied silently, and nothing panics."""

import contextlib
import itertools
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps

from metatl import _metatl
from metatl.exceptions import (
    ArgumentTypeError,
    ForkError,
    InvalidArgumentError,
    MetatlError,
    NoNegativeError,
    NotANumberError,
)

EDGES = [2**31 - 1, 2**31, 2**31 + 1, 2**32 - 1, 2**32 + 1, 2**53 + 1, 2**63 - 1]


@pytest.fixture
def interactions():
    return _metatl.Interactions(np.array([0, 2, 3]), np.array([0, 1, 4]), 6)


FOUR = np.zeros(4, np.int64)
WRONG_VECTORS = [
    ([0, 1], r"found list, expected a C-contiguous 1-d array of int64"),
    (None, r"found NoneType, expected a C-contiguous 1-d array of int64"),
    (np.int64(3), r"found numpy.int64, expected"),
    (FOUR.astype(np.int32), r"found an array of int32, expected"),
    (FOUR.astype(np.uint64), r"found an array of uint64, expected"),
    (FOUR.astype(np.float64), r"found an array of float64, expected"),
    (FOUR.astype(object), r"found an array of object, expected"),
    (FOUR.astype(bool), r"found an array of bool, expected"),
    (FOUR.astype(">i8"), r"found an array of >i8, expected"),
    (FOUR.astype("datetime64[s]"), r"found an array of datetime64\[s\], expected"),
    (FOUR.reshape(2, 2), r"found shape \[2, 2\], expected a C-contiguous 1-d array"),
    (np.array(0), r"found shape \[\], expected"),
    (FOUR[::2], r"found shape \[2\] with strides \[16\], expected a C-contiguous"),
    (FOUR[::-1], r"found shape \[4\] with strides \[-8\], expected a C-contiguous"),
    (np.frombuffer(bytes(33), np.uint8)[1:].view(np.int64), r"found a misaligned array, expected"),
]


@pytest.mark.parametrize(("value", "message"), WRONG_VECTORS)
def test_a_wrong_vector_is_named(interactions, value, message):
    good = np.zeros(2, np.int64)
    calls = {
        "indptr": lambda: _metatl.Interactions(value, good, 6),
        "items": lambda: _metatl.Interactions(good, value, 6),
        "users": lambda: _metatl.sample_candidates(interactions, value, good, 1, seed=0),
        "targets": lambda: _metatl.sample_candidates(interactions, good, value, 1, seed=0),
        "timestamps": lambda: _metatl.group_by_user(good, good, value, 1, keep_repeats=True),
    }
    for argument, call in calls.items():
        with pytest.raises(InvalidArgumentError, match=f"^{argument}: {message}") as caught:
            call()
        is_shape = "shape" in message or "misaligned" in message
        assert type(caught.value) is (InvalidArgumentError if is_shape else ArgumentTypeError)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.zeros((2, 2), np.int32), r"found an array of int32, expected a C-contiguous 2-d array of int64"),
        (np.zeros(2, np.int64), r"found shape \[2\], expected a C-contiguous 2-d array of int64"),
        (np.zeros((2, 3), np.int64).T, r"found shape \[3, 2\] with strides \[8, 24\], expected"),
        (np.zeros((2, 3), np.int64, order="F"), r"found shape \[2, 3\] with strides \[8, 16\], expected"),
        (np.zeros((2, 4), np.int64)[:, :2], r"found shape \[2, 2\] with strides \[32, 8\], expected"),
    ],
)
def test_a_wrong_matrix_is_named(value, message):
    with pytest.raises(InvalidArgumentError, match=f"^histories: {message}"):
        _metatl.sample_support_negatives(value, 1, 6, seed=0)


def test_wrong_weights_are_named(interactions):
    users = np.zeros(1, np.int64)
    for weights in (np.ones(6, np.float32), np.ones(12)[::2], [1.0] * 6):
        with pytest.raises(InvalidArgumentError, match=r"^weights: found .* 1-d array of float64"):
            _metatl.sample_candidates(interactions, users, users, 1, seed=0, weights=weights)


@pytest.mark.parametrize("value", [-1, 2**64, -(2**70), 1.0, np.float64(2), "3", None, [1], 2j, object()])
def test_a_wrong_integer_is_named(interactions, value):
    users = np.zeros(1, np.int64)
    history = np.zeros((1, 1), np.int64)
    sampler = _metatl.EpisodeSampler(interactions, k=1, negatives=1, seed=0)
    calls = {
        "num_items": lambda: _metatl.Interactions(users, users[:0], value),
        "num_users": lambda: _metatl.group_by_user(users, users, users, value, keep_repeats=True),
        "count": lambda: _metatl.sample_candidates(interactions, users, users, value, seed=0),
        "seed": lambda: _metatl.sample_candidates(interactions, users, users, 1, seed=value),
        "k": lambda: _metatl.EpisodeSampler(interactions, k=value, negatives=1, seed=0),
        "negatives": lambda: _metatl.EpisodeSampler(interactions, k=1, negatives=value, seed=0),
        "length": lambda: _metatl.SequenceSampler(interactions, length=value, negatives=1, seed=0),
        "step": lambda: sampler.sample(value, 1),
        "batch_size": lambda: sampler.sample(0, value),
        "start_step": lambda: sampler.prefetch(value, 1),
        "resamples": lambda: _metatl.sign_flip_counts(np.ones((2, 1)), resamples=value, seed=0),
        "histories|count": lambda: _metatl.sample_support_negatives(history, value, 6, seed=0),
    }
    for argument, call in calls.items():
        with pytest.raises(
            InvalidArgumentError, match=f"^({argument}): found .*, expected an integer from 0"
        ) as caught:
            call()
        assert isinstance(caught.value, TypeError) == (not isinstance(value, int))


@pytest.mark.parametrize("value", [0, -1, 1025, 2**64, 1.5, "two"])
def test_a_wrong_number_of_threads_is_named(interactions, value):
    with pytest.raises(InvalidArgumentError, match=r"^num_threads: found"):
        _metatl.sample_candidates(interactions, FOUR[:1], FOUR[:1], 1, seed=0, num_threads=value)


@pytest.mark.parametrize("value", ["0", "-1", "many", "1e3", "1025", "3.0"])
def test_a_wrong_number_of_threads_in_the_environment_is_named(interactions, monkeypatch, value):
    monkeypatch.setenv("METATL_NUM_THREADS", value)
    with pytest.raises(InvalidArgumentError, match=f'^METATL_NUM_THREADS: found "{value}", expected'):
        _metatl.sample_candidates(interactions, FOUR[:1], FOUR[:1], 1, seed=0)
    # The argument wins.
    _metatl.sample_candidates(interactions, FOUR[:1], FOUR[:1], 1, seed=0, num_threads=1)


def test_numpy_integers_are_integers(interactions):
    users = np.zeros(1, np.int64)
    for kind in (np.int8, np.uint8, np.int32, np.int64, np.uint64, bool):
        one = _metatl.sample_candidates(interactions, users, users, kind(1), seed=kind(1), epoch=kind(1))
        assert (one == _metatl.sample_candidates(interactions, users, users, 1, seed=1, epoch=1)).all()


def test_arrays_that_are_read_only_empty_or_of_a_subclass_are_fine(interactions):
    users = np.zeros(2, np.int64)
    users.flags.writeable = False
    assert _metatl.sample_candidates(interactions, users, users, 1, seed=0).shape == (2, 2)
    assert _metatl.sample_candidates(interactions, users, users, 0, seed=0).tolist() == [[0], [0]]
    assert _metatl.sample_candidates(interactions, users[:0], users[:0], 2, seed=0).shape == (0, 3)
    assert _metatl.sample_support_negatives(np.empty((0, 2), np.int64), 3, 5, seed=0).shape == (0, 3)
    assert _metatl.random_order(0, seed=0).tolist() == []
    subclass = users.view(np.recarray)
    assert _metatl.sample_candidates(interactions, subclass, subclass, 1, seed=0).shape == (2, 2)
    sampler = _metatl.EpisodeSampler(interactions, k=1, negatives=0, seed=0)
    assert [array.shape for array in sampler.sample(0, 0)] == [(0,), (0, 2), (0, 1, 0), (0,)]


def test_arguments_are_left_alone_and_results_are_their_own():
    indptr, items = np.array([0, 2, 3]), np.array([4, 1, 0])
    index = _metatl.Interactions(indptr, items, 6)
    before = _metatl.sample_candidates(index, np.arange(2), np.zeros(2, np.int64), 3, seed=0)
    assert items.tolist() == [4, 1, 0]
    items[:] = 5
    indptr[:] = 0
    after = _metatl.sample_candidates(index, np.arange(2), np.zeros(2, np.int64), 3, seed=0)
    assert (before == after).all()
    after[:] = 0
    assert (before[:, 1:] != 0).any()


@pytest.mark.parametrize("edge", EDGES)
def test_ids_beyond_32_bits(edge):
    """Around 2³¹ and 2³² an id that is cut to 32 bits, or taken for a negative one, would show."""
    row = [edge - 1, 0, edge // 2, edge - 2]
    interactions = _metatl.Interactions(np.array([0, 4]), np.array(row), edge)
    assert (interactions.num_users, interactions.num_items, interactions.num_interactions) == (1, edge, 4)
    with pytest.raises(InvalidArgumentError, match=f"items: found {edge} at position 1"):
        _metatl.Interactions(np.array([0, 2]), np.array([0, edge], np.int64), edge)

    users = np.zeros(1, np.int64)
    candidates = _metatl.sample_candidates(interactions, users, np.array([edge - 1]), 10_000, seed=1)
    support = _metatl.sample_support_negatives(np.array([row] * 2), 10_000, edge, seed=1)
    sampler = _metatl.EpisodeSampler(interactions, k=3, negatives=2, shared_negatives=10_000, seed=1)
    _, items, episode_negatives, shared = sampler.sample(1, 1000)
    assert candidates[0, 0] == edge - 1
    assert (items == row).all()
    drawn = {"candidates": candidates[:, 1:], "support": support}
    drawn |= {"episodes": episode_negatives, "shared": shared}
    for name, ids in drawn.items():
        if name != "shared":
            assert not np.isin(ids, row).any(), name
        # Uniform over 0 to edge - 1: each quarter gets its share, give or take.
        quarters = np.bincount((ids.ravel() // (edge // 4 + 1)), minlength=4)
        assert (quarters.min(), quarters.max()) > (0.2 * ids.size, 0.2 * ids.size), name
        assert 0 <= ids.min() <= ids.max() < edge, name


def test_the_last_ids_of_a_row_that_has_all_others():
    # The free ids are the ones around the edge: rows are long here, so the edge is that of 16 bits.
    edge = 2**16
    for left in ([edge - 1], [edge], [edge + 1], [0], [edge - 1, edge, edge + 1]):
        row = np.setdiff1d(np.arange(edge + 2), left)
        interactions = _metatl.Interactions(np.array([0, len(row)]), row, edge + 2)
        _, _, drawn, _ = _metatl.EpisodeSampler(interactions, k=1, negatives=100, seed=1).sample(0, 1)
        assert set(drawn.ravel().tolist()) == set(left)
        candidates = _metatl.sample_candidates(
            interactions, np.zeros(1, np.int64), np.zeros(1, np.int64), len(left) - (left == [0]), seed=1
        )
        assert set(candidates[0, 1:].tolist()) == set(left) - {0}


def test_what_does_not_fit_into_memory_is_an_error(interactions):
    users = np.zeros(2, np.int64)
    sampler = _metatl.EpisodeSampler(interactions, k=1, negatives=2**62, seed=0)
    calls = [
        lambda: _metatl.sample_support_negatives(users[:, None], 2**63 - 1, 6, seed=0),
        lambda: _metatl.random_order(2**60, seed=0),
        lambda: sampler.sample(0, 2),
        lambda: sampler.sample(0, 2**63 - 1),
        lambda: _metatl.SequenceSampler(interactions, length=2**62, negatives=1, seed=0).sample(0, 2),
    ]
    for call in calls:
        with pytest.raises(MemoryError, match="cannot allocate"):
            call()
    with pytest.raises(MemoryError, match="cannot allocate"):
        _metatl.sample_candidates(interactions, users, users, 2**62, seed=0)
    # No element, and yet a shape that numpy refuses.
    with pytest.raises(
        InvalidArgumentError, match=r"^result: found shape \[0, 1, 4611686018427387904\], exp"
    ):
        sampler.sample(0, 0)
    # No query, and yet lists of a length for which nothing can be allocated.
    no_queries, no_candidates = np.zeros((0, 2), np.float32), np.zeros((0, 2**50), np.int64)
    scoring = {"item_bias": None, "similarity": "dot", "overrides": None}
    greater, equal = _metatl.rank_candidates(no_queries, no_queries[:0], no_candidates, **scoring)
    assert (greater.shape, equal.shape) == ((0,), (0,))
    # A catalogue without a byte, and yet with more items than there are bits for.
    no_numbers = np.zeros((2**50, 0), np.float32)
    scoring["overrides"] = FOUR[:2], FOUR[:0], no_numbers[:0]
    with pytest.raises(MemoryError, match="cannot allocate"):
        _metatl.rank_candidates(no_numbers[:1], no_numbers, np.zeros((1, 1), np.int64), **scoring)


anything = st.one_of(
    st.integers(-(2**65), 2**65),
    st.sampled_from([0, 1, 2, 3, 2**31, 2**63 - 1, 2**63, 2**64 - 1]),
    st.floats(),
    st.none(),
    st.text(max_size=3),
    st.booleans(),
    nps.arrays(
        st.sampled_from([np.int64, np.int32, np.float64, np.float32, np.bool_]),
        nps.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
    ),
    nps.arrays(np.int64, st.integers(0, 5), elements=st.integers(-1, 7)),
    nps.arrays(np.float64, 6, elements=st.floats(0, 10)),
)


@given(st.integers(0, 7), st.lists(anything, min_size=6, max_size=6))
def test_nothing_panics(which, values):
    interactions = _metatl.Interactions(np.array([0, 2, 3]), np.array([0, 1, 4]), 6)
    users = np.array([0, 1])
    first, second, third, fourth, fifth, sixth = values
    # The sizes of results stay small, because a large result is no panic but takes its time.
    calls = [
        lambda: _metatl.Interactions(first, second, third, num_threads=fourth),
        lambda: _metatl.sample_candidates(
            interactions, users, users, 2, seed=second, epoch=third, weights=fourth, num_threads=fifth
        ),
        lambda: _metatl.sample_support_negatives(first, 3, second, seed=third, num_threads=fourth),
        lambda: _metatl.sample_candidates(
            interactions, first, second, 2, seed=third, epoch=fourth, weights=fifth, exclude_target=sixth
        ),
        lambda: _metatl.EpisodeSampler(
            interactions, k=first, negatives=second, window_share=third, shuffle_share=fourth, seed=fifth
        ),
        lambda: _metatl.sample_candidates(
            interactions, users, users, 1, seed=1, weights=first, exclude_target=False, num_threads=second
        ),
        lambda: _metatl.sign_flip_counts(first, resamples=9, seed=second, num_threads=third),
        lambda: _metatl.group_by_user(first, second, third, 3, keep_repeats=fourth, num_threads=fifth),
    ]
    with contextlib.suppress(MetatlError, TypeError, MemoryError):
        calls[which]()


def test_exceptions_survive_pickling():
    for kind in (
        *(MetatlError, InvalidArgumentError, ArgumentTypeError),
        *(NoNegativeError, NotANumberError, ForkError),
    ):
        error = pickle.loads(pickle.dumps(kind("why")))  # noqa: S301  # our own bytes
        assert type(error) is kind
        assert error.args == ("why",)
        assert issubclass(kind, MetatlError)
        assert kind.__module__ == "metatl.exceptions"


@pytest.mark.parametrize(
    ("indptr", "items", "message"),
    [
        ([], [], "indptr: found no entry"),
        ([1], [], "indptr: found 1 at position 0, expected 0"),
        ([0, -1], [], "indptr: found -1 after 0 at position 1, expected ascending entries"),
        ([0, 2, 1, 2], [0, 0], "indptr: found 1 after 2 at position 2, expected ascending entries"),
        ([0, 1], [], "indptr: found 1 as the last entry, expected 0"),
        ([0, 2**62], [0], f"indptr: found {2**62} as the last entry, expected 1"),
        ([0, 1], [0, 0], "indptr: found 1 as the last entry, expected 2"),
        ([0, 1], [6], "items: found 6 at position 0, expected ids from 0 to 5"),
        ([0, 1], [-1], "items: found -1 at position 0, expected ids from 0 to 5"),
        ([0, 1], [-(2**63)], f"items: found {-(2**63)} at position 0, expected ids from 0 to 5"),
    ],
)
def test_rows_that_do_not_fit_together_are_errors(indptr, items, message):
    with pytest.raises(InvalidArgumentError, match=message):
        _metatl.Interactions(np.array(indptr, np.int64), np.array(items, np.int64), 6)


def test_the_largest_catalogue_is_2_to_the_63_less_1():
    empty = np.zeros(1, np.int64)
    assert _metatl.Interactions(empty, empty[:0], 2**63 - 1).num_items == 2**63 - 1
    with pytest.raises(InvalidArgumentError, match="num_items: found 9223372036854775808"):
        _metatl.Interactions(empty, empty[:0], 2**63)


def test_every_combination_of_small_shapes_has_its_shape():
    interactions = _metatl.Interactions(np.array([0, 1, 2]), np.array([0, 1]), 9)
    for users, count, shared in itertools.product((0, 1, 3), (0, 1, 4), (0, 2)):
        rows = np.zeros(users, np.int64)
        assert _metatl.sample_candidates(interactions, rows, rows, count, seed=1).shape == (users, 1 + count)
        sampler = _metatl.EpisodeSampler(
            _metatl.Interactions(np.array([0, 3]), np.arange(3), 9),
            k=2,
            negatives=count,
            shared_negatives=shared,
            seed=1,
        )
        shapes = [array.shape for array in sampler.sample(0, users)]
        assert shapes == [(users,), (users, 3), (users, 2, count), (shared,)]
