"""Rounded item tables: rounding as torch and NumPy do it, ranking as with the table converted to float32."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from full_ranking import rank_catalogue
from metatl import ItemTable, _metatl
from metatl.data.histories import Histories
from metatl.exceptions import InvalidArgumentError, NotANumberError
from metatl.models.contract import Encoded
from metatl.ranking.rank import encode_blocks, rank_candidates, top_n
from ranking_worlds import LEVELS, SIMILARITIES, SPECIAL, arguments, level, rough_world

seeds = st.integers(0, 2**32 - 1)
sizes = st.sampled_from([1e-45, 1e-39, 1e-20, 1.0, 1e20, 3e38])
FEWER_BITS = ("bf16", "int8")


def as_float32(table):
    """The table converted to float32, by definition of the format."""
    if table.format == "bf16":
        return (table.numbers.astype(np.uint32) << 16).view(np.float32)
    with np.errstate(over="ignore"):
        return table.numbers.astype(np.float32) * table.scales[:, None]


def any_table(generator, shape, item_format):
    """A table of random bits: bf16 includes NaN and infinities, scales have any size and sign."""
    if item_format == "bf16":
        return ItemTable("bf16", generator.integers(0, 2**16, shape).astype(np.uint16))
    scales = generator.integers(0, 2**32, shape[0], dtype=np.uint32).view(np.float32)
    scales[~np.isfinite(scales)] = 0
    return ItemTable("int8", generator.integers(-128, 128, shape).astype(np.int8), scales)


@given(seeds, st.integers(0, 9), st.integers(0, 40), sizes)
def test_rounding_agrees_with_torch_and_numpy(seed, rows, columns, size):
    table = (np.random.default_rng(seed).uniform(-1, 1, (rows, columns)) * size).astype(np.float32)
    tensor = torch.from_numpy(table)
    bf16 = as_float32(ItemTable.bf16(table))
    np.testing.assert_array_equal(bf16, tensor.to(torch.bfloat16).float().numpy())
    int8 = ItemTable.int8(table)
    tiny = np.finfo(np.float32).tiny
    scales = np.maximum(np.abs(table).max(axis=1, initial=0) / np.float32(127), tiny)
    np.testing.assert_array_equal(int8.scales, scales)
    np.testing.assert_array_equal(int8.numbers, np.rint(table / scales[:, None]))
    np.testing.assert_allclose(as_float32(int8), table, rtol=0, atol=0.51 * scales.max(initial=0))


def outcome(kernel):
    """The bytes that a kernel returns, or the message of its NotANumberError."""
    try:
        return [array.tobytes() for array in kernel()]
    except NotANumberError as error:
        return str(error)


@given(
    seeds,
    st.integers(1, 40),
    st.integers(3, 90),
    st.sampled_from([0, 1, 3, 4, 17, 64, 130]),
    st.sampled_from(SIMILARITIES),
    st.sampled_from(FEWER_BITS),
    st.booleans(),
    st.sampled_from(LEVELS),
    st.sampled_from([1, 2, 3, 8]),
)
def test_ranks_equal_those_of_the_table_in_float32(
    seed, users, num_items, dim, similarity, item_format, is_rounded, name, threads
):
    world = rough_world(seed, users, num_items, dim, similarity)
    if is_rounded:
        rounding = {"bf16": ItemTable.bf16, "int8": ItemTable.int8}[item_format]
        table = rounding(world.table, num_threads=threads)
    else:
        table = any_table(np.random.default_rng(seed), world.table.shape, item_format)
    exact, rounded = replace(world, table=as_float32(table)), replace(world, table=table.arrays)
    with level(name):
        for kernel in ("rank_candidates", "rank_catalogue"):
            expected = outcome(getattr(exact, kernel))
            assert outcome(lambda k=kernel: getattr(rounded, k)(num_threads=threads)) == expected
        assert outcome(lambda: rounded.top_n(7, num_threads=threads)) == outcome(lambda: exact.top_n(7))


@pytest.mark.parametrize("item_format", FEWER_BITS)
def test_results_do_not_depend_on_the_number_of_threads(item_format):
    for users, num_items, dim in [(3000, 500, 20), (5, 30_000, 24)]:
        world = rough_world(0, users, num_items, dim, "l2")
        rounding = {"bf16": ItemTable.bf16, "int8": ItemTable.int8}[item_format]
        exact = replace(world, table=as_float32(rounding(world.table, num_threads=1)))
        expected = [exact.rank_candidates(), exact.rank_catalogue(), exact.top_n(10)]
        for threads in (1, 2, 3, 8):
            table = rounding(world.table, num_threads=threads)
            assert as_float32(table).tobytes() == exact.table.tobytes()
            rounded = replace(world, table=table.arrays)
            actual = [
                rounded.rank_candidates(num_threads=threads),
                rounded.rank_catalogue(num_threads=threads),
                rounded.top_n(10, num_threads=threads),
            ]
            for ours, theirs in zip(actual, expected, strict=True):
                assert [array.tobytes() for array in ours] == [array.tobytes() for array in theirs]


CODES, SCALES = np.zeros((5, 3), np.int8), np.ones(5, np.float32)
WRONG = [
    ("item_table", np.zeros((5, 3), np.int8), "an array of int8, expected .* of float32"),
    ("item_table", np.zeros((5, 3), np.int16), "an array of int16, expected"),
    ("item_table", np.zeros(5, np.uint16), r"shape \[5\], expected a C-contiguous 2-d array of uint16"),
    ("item_table", np.zeros((10, 3), np.uint16)[::2], "shape .* with strides"),
    ("item_table", np.zeros((5, 2), np.uint16), "rows of 2 numbers, expected 3"),
    ("item_table", (CODES,), "a tuple of 1, expected a tuple of two arrays"),
    ("item_table", (CODES, SCALES, SCALES), "a tuple of 3, expected a tuple of two arrays"),
    ("item_table", (CODES[:, :2].copy(), SCALES), "rows of 2 numbers, expected 3"),
    ("item_table[0]", (CODES.astype(np.uint8), SCALES), "an array of uint8, expected .* of int8"),
    ("item_table[0]", (CODES.T, SCALES), "shape"),
    ("item_table[0]", (None, SCALES), "NoneType"),
    ("item_table[1]", (CODES, SCALES.astype(np.float64)), "an array of float64, expected"),
    ("item_table[1]", (CODES, SCALES[:, None]), "shape"),
    ("item_table[1]", (CODES, SCALES[:4]), "4 scales, expected 5, one for each item"),
    *(
        (
            "item_table[1]",
            (CODES, np.array([1, 1, special, 1, 1], np.float32)),
            "1 scales that are not finite, expected none",
        )
        for special in SPECIAL
    ),
]


@pytest.mark.parametrize("kernel", ["rank_candidates", "rank_catalogue", "top_n"])
@pytest.mark.parametrize(("argument", "value", "message"), WRONG)
def test_a_wrong_table_is_an_error_that_names_it(kernel, argument, value, message):
    right = arguments()[kernel]
    getattr(_metatl, kernel)(**{**right, "item_table": (CODES, SCALES)})
    getattr(_metatl, kernel)(**{**right, "item_table": np.zeros((5, 3), np.uint16)})
    named = argument.replace("[", r"\[").replace("]", r"\]")
    with pytest.raises(InvalidArgumentError, match=f"^{named}: found .*{message}"):
        getattr(_metatl, kernel)(**{**right, "item_table": value})


@pytest.mark.parametrize("rounding", [ItemTable.bf16, ItemTable.int8])
def test_a_table_that_cannot_be_rounded_is_an_error(rounding):
    for wrong in (np.zeros((2, 3)), np.zeros(3, np.float32), np.zeros((3, 2), np.float32).T, [[0.0]], None):
        with pytest.raises(InvalidArgumentError, match=r"^item_table: found .*, expected a C-contiguous 2-d"):
            rounding(wrong)
    with pytest.raises(NotANumberError, match=r"^item_table: found 2 NaN, expected none"):
        rounding(np.array([[math.nan, 1], [math.inf, math.nan]], np.float32))
    for large in (math.inf, -math.inf, np.finfo(np.float32).max):
        message = r"^item_table: found 1 numbers that are infinite, or would be once rounded, expected finite"
        with pytest.raises(InvalidArgumentError, match=message):
            rounding(np.array([[1, large]], np.float32))
    with pytest.raises(InvalidArgumentError, match="num_threads"):
        rounding(np.zeros((2, 3), np.float32), num_threads=0)


class Vectors(NamedTuple):
    """A model whose queries are item vectors."""

    item_table: torch.Tensor
    item_bias: None = None
    similarity: str = "dot"
    support_negatives: int = 0

    def encode(self, histories, negatives):
        del negatives
        return Encoded(self.item_table[histories[:, -1]], None)


class Scorer:
    """A model without item vectors."""

    num_items = 30

    def score(self, histories, *, num_threads=None):  # noqa: ARG002
        return np.zeros((len(histories), self.num_items), np.float32)


def test_tables_take_less_memory_and_cannot_be_written_to():
    vectors = np.random.default_rng(0).normal(size=(50, 128)).astype(np.float32)
    float32, bf16, int8 = ItemTable.float32(vectors), ItemTable.bf16(vectors), ItemTable.int8(vectors)
    assert float32.numbers is vectors
    assert [table.nbytes for table in (float32, bf16, int8)] == [50 * 512, 50 * 256, 50 * (128 + 4)]
    assert [len(table) for table in (float32, bf16, int8)] == [50] * 3
    for array in (bf16.numbers, int8.numbers, int8.scales):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1
    with pytest.raises(AttributeError):
        int8.numbers = bf16.numbers


@pytest.mark.parametrize("item_format", FEWER_BITS)
def test_a_model_is_ranked_with_its_rounded_table(item_format):
    generator = np.random.default_rng(0)
    model = Vectors(torch.from_numpy(generator.normal(size=(30, 20)).astype(np.float32)))
    histories, candidates = generator.integers(0, 30, (9, 2)), generator.integers(0, 30, (9, 5))
    excluded = Histories.from_matrix(histories)
    table = ItemTable.of(model, item_format)
    # The queries are not rounded, only the item table.
    queries = model.item_table[histories[:, -1]]
    scores = queries @ torch.from_numpy(as_float32(table)).T
    best = top_n(model, histories, 3, excluded, item_table=item_format)
    for user, (history, items) in enumerate(zip(histories, best.items, strict=True)):
        others = [item for item in scores[user].argsort(descending=True).tolist() if item not in history]
        assert items.tolist() == others[:3]
    for rank in (
        lambda item_table: rank_candidates(model, histories, candidates, item_table=item_table),
        lambda item_table: rank_catalogue(
            model, histories, candidates[:, 0], excluded, item_table=item_table
        ),
        lambda item_table: top_n(model, histories, 3, excluded, item_table=item_table),
    ):
        for from_format, from_table in zip(rank(item_format), rank(table), strict=True):
            np.testing.assert_array_equal(from_format, from_table)


def test_a_table_that_does_not_fit_the_model_is_an_error():
    model, histories = Vectors(torch.zeros(30, 4)), np.zeros((2, 1), np.int64)
    with pytest.raises(
        InvalidArgumentError, match=r"^item_table: found 'int4', expected one of float32, bf16, int8"
    ):
        list(encode_blocks(model, histories, item_table="int4"))
    other = ItemTable.int8(np.zeros((29, 4), np.float32))
    with pytest.raises(
        InvalidArgumentError, match=r"^item_table: found the shape \(29, 4\), expected \(30, 4\)"
    ):
        list(encode_blocks(model, histories, item_table=other))
    for item_table in ("bf16", "int8", "int4", ItemTable.bf16(np.zeros((30, 4), np.float32))):
        message = "^item_table: expected float32, Scorer has no item vectors to round$"
        with pytest.raises(InvalidArgumentError, match=message):
            list(encode_blocks(Scorer(), histories, item_table=item_table))
    with pytest.raises(InvalidArgumentError, match="Scorer has no item vectors"):
        ItemTable.of(Scorer(), "float32")
    assert len(list(encode_blocks(Scorer(), histories, item_table="float32"))) == 1
