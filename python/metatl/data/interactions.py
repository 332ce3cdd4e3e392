"""Interactions of users with items as arrays, sorted by user and time."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import polars as pl

from metatl import _metatl
from metatl.common.column_errors import quoted, refuse, refuse_missing
from metatl.data.fingerprints import add_array, add_ids, add_json
from metatl.data.timestamps import TimestampUnit, to_microseconds
from metatl.exceptions import DataError, InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

Repeats = Literal["first", "all"]

_EXPECTED_ID = "expected an id"


@dataclass(frozen=True, eq=False, repr=False)
class Interactions:
    """N interactions of U users with I items, sorted by user and time.

    A user or an item is the index of its raw id among the sorted raw ids, which does not depend on the order
    of the rows in the data. The arrays are read-only.

    Attributes
    ----------
    user_ids : polars.Series
        Raw user ids (U,), sorted, distinct: Int64 or String.
    item_ids : polars.Series
        Raw item ids (I,), sorted, distinct: Int64 or String. There may be items without a row.
    indptr : ndarray
        int64 (U+1,): the rows of user u are `indptr[u]:indptr[u + 1]`. Every user has a row.
    items : ndarray
        int64 (N,): item of each row. The rows of a user are in time order; rows with equal times are
        in the order of the data.
    timestamps : ndarray
        int64 (N,): microseconds since 1970-01-01 UTC.
    """

    user_ids: pl.Series
    item_ids: pl.Series
    indptr: NDArray[np.int64]
    items: NDArray[np.int64]
    timestamps: NDArray[np.int64]

    def __post_init__(self) -> None:
        for name in ("indptr", "items", "timestamps"):
            view = np.ascontiguousarray(getattr(self, name)).view()
            view.flags.writeable = False
            object.__setattr__(self, name, view)

    @classmethod
    def from_frame(
        cls,
        frame: pl.DataFrame,
        *,
        user_column: str = "user_id",
        item_column: str = "item_id",
        timestamp_column: str = "timestamp",
        timestamp_unit: TimestampUnit = "s",
        repeats: Repeats = "first",
    ) -> Interactions:
        """Build interactions from a table with one row per interaction.

        Parameters
        ----------
        frame : polars.DataFrame
            The table. Its order matters only between rows of a user with equal times.
        user_column, item_column : str
            Columns of raw ids, of any scalar type. Integers become Int64, and so does a column of text that
            holds plain integers only, because a text file does not distinguish the two; a leading zero
            ("007") keeps the column text. All other values become text.
        timestamp_column : str
            Column of timestamps; see :func:`metatl.data.timestamps.to_microseconds`.
        timestamp_unit : {"s", "ms", "us", "ns"}
            Unit of timestamps that are numbers.
        repeats : {"first", "all"}
            Which interactions of a user with the same item are kept: the first, or all.

        Returns
        -------
        Interactions
            The interactions.

        Raises
        ------
        DataError
            If a column or an id is missing, the table is empty, or a timestamp cannot be read; with the row
            and the column.
        InvalidArgumentError
            If `repeats` or `timestamp_unit` is not one of the above.

        Examples
        --------
        >>> frame = pl.DataFrame({"user_id": ["b", "a", "b"], "item_id": [7, 7, 5], "timestamp": [3, 2, 1]})
        >>> interactions = Interactions.from_frame(frame)
        >>> interactions.item_ids.gather(interactions.items).to_list()
        [7, 5, 7]
        """
        for column in (user_column, item_column, timestamp_column):
            if column not in frame.columns:
                raise DataError(f"found no column {column!r} among {quoted(frame.columns)}")
        columns = [frame[user_column], frame[item_column], frame[timestamp_column]]
        return cls.from_columns(columns, timestamp_unit=timestamp_unit, repeats=repeats)

    @classmethod
    def from_columns(
        cls, columns: list[pl.Series], *, timestamp_unit: TimestampUnit = "s", repeats: Repeats = "first"
    ) -> Interactions:
        """Build interactions from three columns, and release each column once it is converted.

        Without another reference to the columns, this frees 2.4 GB of a hundred million rows early.

        Parameters
        ----------
        columns : list of polars.Series
            Users, items and timestamps, of equal length. The list is emptied.
        timestamp_unit, repeats : str
            See :meth:`from_frame`, which also describes how the columns are converted.

        Returns
        -------
        Interactions
            The interactions.

        Raises
        ------
        DataError
            If a column is empty, an id is missing, or a timestamp cannot be read; with row and column.
        InvalidArgumentError
            If `repeats` or `timestamp_unit` is not one of the values of :meth:`from_frame`.
        """
        if repeats not in ("first", "all"):
            raise InvalidArgumentError(f"repeats: found {repeats!r}, expected 'first' or 'all'")
        if columns[0].is_empty():
            raise DataError("found no rows, expected interactions")
        user_ids, users = _number(columns.pop(0))
        item_ids, items = _number(columns.pop(0))
        timestamps = to_microseconds(columns.pop(0), timestamp_unit).to_numpy()
        indptr, positions, times = _metatl.group_by_user(
            users, items, timestamps, len(user_ids), keep_repeats=repeats == "all"
        )
        return cls(user_ids, item_ids, indptr, positions, times)

    @property
    def num_users(self) -> int:
        """Number of users, U."""
        return len(self.user_ids)

    @property
    def num_items(self) -> int:
        """Number of items, I, those without a row included."""
        return len(self.item_ids)

    @property
    def num_interactions(self) -> int:
        """Number of rows, N."""
        return len(self.items)

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """int64 (U,): rows of each user."""
        return np.diff(self.indptr)

    @property
    def users(self) -> NDArray[np.int64]:
        """int64 (N,): user of each row, computed on each access."""
        return np.repeat(np.arange(self.num_users), self.lengths)

    @cached_property
    def distinct_items(self) -> NDArray[np.int64]:
        """int64 (U,): number of distinct items of each user; less than its rows if an item repeats."""
        return count_distinct(self.users, self.items, self.num_users, self.num_items)

    @cached_property
    def item_counts(self) -> NDArray[np.int64]:
        """int64 (I,): rows of each item."""
        return np.bincount(self.items, minlength=self.num_items)

    @cached_property
    def first_timestamps(self) -> NDArray[np.int64]:
        """int64 (U,): time of each user's first interaction."""
        return self.timestamps[self.indptr[:-1]]

    @cached_property
    def tie_share(self) -> float:
        """Share of adjacent rows of a user that have equal times; 0 if no user has two rows."""
        neighbours = np.ones(max(self.num_interactions - 1, 0), dtype=bool)
        starts = self.indptr[1:-1]
        neighbours[starts[(starts > 0) & (starts < self.num_interactions)] - 1] = False
        ties = neighbours & (self.timestamps[1:] == self.timestamps[:-1])
        return float(ties.sum() / max(neighbours.sum(), 1))

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the content in hexadecimal: raw ids, rows and times, in their order."""
        digest = hashlib.sha256()
        add_json(digest, "metatl interactions 1")
        add_ids(digest, self.user_ids)
        add_ids(digest, self.item_ids)
        for array in (self.indptr, self.items, self.timestamps):
            add_array(digest, array)
        return digest.hexdigest()

    @cached_property
    def index(self) -> _metatl.Interactions:
        """The same rows for the kernels, built on the first access."""
        return _metatl.Interactions(self.indptr, self.items, self.num_items)

    def to_frame(self) -> pl.DataFrame:
        """Return the rows with raw ids, by user and time: `user_id`, `item_id`, `timestamp` (μs, UTC)."""
        times = pl.Series(self.timestamps).cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
        return pl.DataFrame(
            {
                "user_id": self.user_ids.gather(self.users),
                "item_id": self.item_ids.gather(self.items),
                "timestamp": times,
            }
        )

    def find_users(self, raw_ids: pl.Series | Sequence[Any]) -> NDArray[np.int64]:
        """Look up raw user ids: int64 indices, -1 for an unknown user."""
        return _find(self.user_ids, raw_ids)

    def find_items(self, raw_ids: pl.Series | Sequence[Any]) -> NDArray[np.int64]:
        """Look up raw item ids: int64 indices, -1 for an unknown item.

        Ids are compared as text, so that `"42"` from a command line finds the item 42.
        """
        return _find(self.item_ids, raw_ids)

    def select_rows(self, rows: NDArray[np.bool_]) -> Interactions:
        """Keep some rows, and the users who have a row left.

        Parameters
        ----------
        rows : ndarray
            bool (N,): whether a row is kept.

        Returns
        -------
        Interactions
            The rows, with all items, those without a row included.
        """
        # Number of kept rows before those of each user.
        bounds = np.searchsorted(np.flatnonzero(rows), self.indptr)
        lengths = np.diff(bounds)
        kept = np.flatnonzero(lengths)
        indptr = np.zeros(len(kept) + 1, dtype=np.int64)
        np.cumsum(lengths[kept], out=indptr[1:])
        return Interactions(
            self.user_ids.gather(kept), self.item_ids, indptr, self.items[rows], self.timestamps[rows]
        )

    def select_items(self, items: NDArray[np.bool_]) -> Interactions:
        """Keep some items, their rows, and the users who have a row left.

        Parameters
        ----------
        items : ndarray
            bool (I,): whether an item is kept. The kept items get new indices.

        Returns
        -------
        Interactions
            The rows of the kept items.
        """
        numbers = np.cumsum(items, dtype=np.int64) - 1
        rows = self.select_rows(items[self.items])
        return Interactions(
            rows.user_ids,
            self.item_ids.gather(np.flatnonzero(items)),
            rows.indptr,
            numbers[rows.items],
            rows.timestamps,
        )

    def __getstate__(self) -> dict[str, Any]:
        # Without cached properties: the index of the kernels cannot be pickled, and is built again.
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def __repr__(self) -> str:
        return f"Interactions({self.num_interactions} of {self.num_users} users with {self.num_items} items)"


def _raw_ids(column: pl.Series) -> pl.Series:
    """Convert raw ids to Int64 or String; see :meth:`Interactions.from_frame`."""
    refuse_missing(column, _EXPECTED_ID)
    dtype = column.dtype
    if dtype.is_nested() or dtype == pl.Object:
        raise DataError(f"found values of type {dtype}, expected integers or text", column=column.name)
    integers: pl.Series = column.cast(pl.Int64, strict=False) if dtype.is_numeric() else column
    if dtype.is_float():
        refuse(column.is_nan(), column, f"found NaN, {_EXPECTED_ID}")
        # A table with gaps elsewhere often turns whole numbers into floats. Up to 2^53 they are exact.
        exact = 2**53
        if ((column.floor() == column) & (column.abs() <= exact)).all():
            return integers
    if dtype.is_integer() and integers.null_count() == 0:
        return integers
    text: pl.Series = _decode(column) if dtype == pl.Binary else column.cast(pl.String)
    refuse(text == "", column, f"found nothing, {_EXPECTED_ID}")
    integers = text.cast(pl.Int64, strict=False)
    is_plain = integers.null_count() == 0 and (integers.cast(pl.String) == text).all()
    return integers if is_plain else text


def _decode(column: pl.Series) -> pl.Series:
    """Decode bytes, as in Parquet files whose writer does not mark its text as text."""
    texts = []
    for row, value in enumerate(column.to_list(), start=1):
        try:
            texts.append(value.decode())
        except UnicodeDecodeError:  # noqa: PERF203 (the error must know its row)
            raise DataError(f"found {value!r}, expected UTF-8", row=row, column=column.name) from None
    return pl.Series(column.name, texts, dtype=pl.String)


def count_distinct(
    rows: NDArray[np.int64], items: NDArray[np.int64], num_rows: int, num_items: int
) -> NDArray[np.int64]:
    """Count the distinct items of each row.

    Parameters
    ----------
    rows, items : ndarray
        int64 (N,): pairs of the index of a row and an item, in any order.
    num_rows, num_items : int
        Number of rows, and of items.

    Returns
    -------
    ndarray
        int64 (num_rows,).
    """
    pairs = np.sort(rows * num_items + items)
    distinct = pairs[np.diff(pairs, prepend=-1) > 0]
    return np.bincount(distinct // max(num_items, 1), minlength=num_rows)


def _number(column: pl.Series) -> tuple[pl.Series, NDArray[np.int64]]:
    """Return the sorted distinct ids, and the index of the id of each row among them."""
    if column.dtype == pl.Categorical:
        return _number_categories(column)
    raw_ids = _raw_ids(column)
    distinct = raw_ids.unique().sort()
    numbers = pl.Series(np.arange(len(distinct)))
    return distinct, raw_ids.replace_strict(distinct, numbers, return_dtype=pl.Int64).to_numpy()


def _number_categories(column: pl.Series) -> tuple[pl.Series, NDArray[np.int64]]:
    """Do so for ids that are categories, without expanding the text of every row."""
    refuse_missing(column, _EXPECTED_ID)
    refuse(column == "", column, f"found nothing, {_EXPECTED_ID}")
    categories = column.unique()
    raw_ids = _raw_ids(categories.cast(pl.String))
    distinct = raw_ids.sort()
    numbers = pl.Series(np.arange(len(distinct)))
    numbers = raw_ids.replace_strict(distinct, numbers, return_dtype=pl.Int64)
    return distinct, column.replace_strict(categories, numbers, return_dtype=pl.Int64).to_numpy()


def _find(ids: pl.Series, raw_ids: pl.Series | Sequence[Any]) -> NDArray[np.int64]:
    wanted = raw_ids if isinstance(raw_ids, pl.Series) else pl.Series([str(raw_id) for raw_id in raw_ids])
    numbers = pl.Series(np.arange(len(ids)))
    indices = wanted.cast(pl.String).replace_strict(
        ids.cast(pl.String), numbers, default=-1, return_dtype=pl.Int64
    )
    array: NDArray[np.int64] = indices.to_numpy()
    return array
