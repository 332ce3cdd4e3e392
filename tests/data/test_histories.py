"""Ragged rows against lists of lists."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from metatl.data.histories import Histories
from ragged_rows import ragged

rows_of_items = st.lists(st.lists(st.integers(0, 9), max_size=6), max_size=12)


def as_lists(histories):
    return [histories.items[begin:end].tolist() for begin, end in itertools.pairwise(histories.indptr)]


@given(rows_of_items, st.data())
def test_selecting_and_shortening_rows(rows, data):
    histories = ragged(rows)
    assert as_lists(histories) == rows
    chosen = data.draw(st.lists(st.integers(0, max(len(rows) - 1, 0)), max_size=5)) if rows else []
    assert as_lists(histories.select(np.array(chosen, dtype=np.int64))) == [rows[row] for row in chosen]
    count = data.draw(st.integers(1, 7))
    assert as_lists(histories.latest(count)) == [row[-count:] for row in rows]


@given(rows_of_items, st.integers(1, 5), st.integers(1, 12))
def test_blocks_cover_every_row_once(rows, max_rows, max_items):
    seen = {}
    for numbers, matrix in ragged(rows).blocks(max_rows, max_items):
        assert len(numbers) <= max_rows
        assert len(numbers) == 1 or matrix.size <= max_items
        assert matrix.dtype == np.int64
        assert matrix.flags.c_contiguous
        seen.update(zip(numbers.tolist(), matrix.tolist(), strict=True))
    assert seen == dict(enumerate(rows))


def test_a_matrix_is_rows_of_equal_length():
    matrix = np.arange(12).reshape(4, 3)
    histories = Histories.from_matrix(matrix)
    assert as_lists(histories) == matrix.tolist()
    assert len(histories) == 4
