"""Interactions of users with items as arrays, sorted by user and time."""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import dataclass, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import polars as pl

from metatl import _metatl
from metatl.common.arguments import check_choice
from metatl.common.forks import refuse_forked_child
from metatl.common.row_faults import RowFaults
from metatl.data.column_names import find_columns
from metatl.data.fingerprints import add_array, add_ids, add_json
from metatl.data.frames import as_frame
from metatl.data.ids import find_ids, number_ids
from metatl.data.timestamps import TimestampUnit, to_microseconds
from metatl.exceptions import DataError, InvalidArgumentError, MetatlWarning

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from metatl.data.frames import FrameLike

Repeats = Literal["first", "all"]
BadRows = Literal["error", "skip"]

_ADVICE = "mend them, or leave them out with bad_rows='skip' (--bad-rows skip)"


@dataclass(frozen=True)
class SourceRows:
    """The rows of a file or a table that interactions were made of.

    Attributes
    ----------
    num_rows : int
        Number of rows that were read.
    dropped : dict of str to int
        Number of rows that are not among the interactions, by reason: ``repeats``, ``bad rows`` and ``rows
        with a null value``; reasons without a row are left out.
    largest_user : int or str
        Raw id of the user with the most rows; the smallest id if there are several.
    largest_user_rows : int
        Rows of this user, repeats included.
    """

    num_rows: int
    dropped: dict[str, int]
    largest_user: int | str
    largest_user_rows: int


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
    source : SourceRows or None
        The rows that they were made of; None for a selection of other interactions.
    """

    user_ids: pl.Series
    item_ids: pl.Series
    indptr: NDArray[np.int64]
    items: NDArray[np.int64]
    timestamps: NDArray[np.int64]
    source: SourceRows | None = None

    def __post_init__(self) -> None:
        for name in ("indptr", "items", "timestamps"):
            view = np.ascontiguousarray(getattr(self, name)).view()
            view.flags.writeable = False
            object.__setattr__(self, name, view)

    @classmethod
    def from_frame(
        cls,
        frame: FrameLike,
        *,
        user_column: str | None = None,
        item_column: str | None = None,
        timestamp_column: str | None = None,
        timestamp_unit: TimestampUnit | None = None,
        repeats: Repeats = "first",
        null_values: Sequence[str] | None = None,
        bad_rows: BadRows = "error",
    ) -> Interactions:
        """Build interactions from a table with one row per interaction.

        Parameters
        ----------
        frame : table
            A frame of polars or pandas, an Arrow table, a structured array of NumPy, or a mapping of names to
            columns. Its order matters only between rows of a user with equal times.
        user_column, item_column : str, optional
            Columns of raw ids, of any scalar type. By default the usual names are looked for.
            :mod:`metatl.data.ids` has the rule by which ids are read: integers become Int64, however they are
            written; a leading zero ("007") or a letter keeps the column text.
        timestamp_column : str, optional
            Column of timestamps; see :func:`metatl.data.timestamps.to_microseconds`.
        timestamp_unit : {"s", "ms", "us", "ns", "YYYYMMDD"}, optional
            Unit or format of timestamps that are numbers; seconds by default.
        repeats : {"first", "all"}
            Which interactions of a user with the same item are kept: the first, or all.
        null_values : sequence of str, optional
            Texts that stand for a missing value; rows that have one are left out. By default a name of a
            missing value, such as "NA", is refused among numbers.
        bad_rows : {"error", "skip"}
            What to do with rows that cannot be used: raise one error that names the first ten, or leave them
            out with a warning.

        Returns
        -------
        Interactions
            The interactions.

        Raises
        ------
        DataError
            If a column or an id is missing, the table is empty, or a timestamp cannot be read; with the row
            and the column.
        ArgumentTypeError
            If `frame` is not a table.
        InvalidArgumentError
            If `repeats`, `bad_rows` or `timestamp_unit` is not one of the above.

        Warns
        -----
        MetatlWarning
            If rows are skipped, or times may have been meant otherwise.

        Examples
        --------
        >>> frame = pl.DataFrame({"user_id": ["b", "a", "b"], "item_id": [7, 7, 5], "timestamp": [3, 2, 1]})
        >>> interactions = Interactions.from_frame(frame, timestamp_unit="s")
        >>> interactions.item_ids.gather(interactions.items).to_list()
        [7, 5, 7]
        """
        table = as_frame("frame", frame)
        chosen = find_columns(table.columns, (user_column, item_column, timestamp_column))
        columns = [table.to_series(column) for column in chosen]
        del table
        return cls.from_columns(
            columns,
            timestamp_unit=timestamp_unit,
            repeats=repeats,
            null_values=null_values,
            bad_rows=bad_rows,
        )

    @classmethod
    def from_columns(
        cls,
        columns: list[pl.Series],
        *,
        timestamp_unit: TimestampUnit | None = None,
        repeats: Repeats = "first",
        null_values: Sequence[str] | None = None,
        bad_rows: BadRows = "error",
        faults: RowFaults | None = None,
    ) -> Interactions:
        """Build interactions from three columns, and release each column once it is converted.

        Without another reference to the columns, this frees 2.4 GB of a hundred million rows early.

        Parameters
        ----------
        columns : list of polars.Series
            Users, items and timestamps, of equal length. The list is emptied.
        timestamp_unit, repeats, null_values, bad_rows : str
            See :meth:`from_frame`, which also describes how the columns are converted.
        faults : RowFaults, optional
            Lines of a file that could not be made rows, and the lines of the rows.

        Returns
        -------
        Interactions
            The interactions.

        Raises
        ------
        DataError
            If a column is empty, or rows cannot be used; with rows and column.
        InvalidArgumentError
            If `repeats`, `bad_rows` or `timestamp_unit` is not one of the values of :meth:`from_frame`.
        """
        check_choice("repeats", repeats, ("first", "all"))
        check_choice("bad_rows", bad_rows, ("error", "skip"))
        if isinstance(null_values, str):
            raise InvalidArgumentError(
                f"null_values: found the text {null_values!r}, expected a list of texts"
            )
        num_rows = len(columns[0])
        faults = RowFaults() if faults is None else faults
        if num_rows == 0:
            raise faults.error(_ADVICE) if len(faults) else DataError("found no rows, expected interactions")
        user_ids, users = number_ids(columns.pop(0), faults, null_values=null_values)
        item_ids, items = number_ids(columns.pop(0), faults, null_values=null_values)
        times = to_microseconds(columns.pop(0), timestamp_unit, faults, null_values=null_values or ())
        if len(faults) and bad_rows == "error":
            raise faults.error(_ADVICE)
        kept = (users >= 0) & (items >= 0) & times.is_not_null().to_numpy()
        dropped = {"bad rows": len(faults)}
        timestamps = times.fill_null(0).to_numpy()
        if not kept.all():
            dropped["rows with a null value"] = int(np.count_nonzero(~kept)) + faults.num_lines - len(faults)
            if not kept.any():
                raise (
                    faults.error(_ADVICE)
                    if len(faults)
                    else DataError("found a null value in every row, expected interactions")
                )
            user_ids, users = _without_unused(user_ids, users[kept])
            item_ids, items = _without_unused(item_ids, items[kept])
            timestamps = timestamps[kept]
        for remark in [*faults.remarks, *([faults.skipped()] if len(faults) else [])]:
            warnings.warn(remark, MetatlWarning, stacklevel=2)
        indptr, positions, timestamps = _metatl.group_by_user(
            users, items, timestamps, len(user_ids), keep_repeats=repeats == "all"
        )
        dropped["repeats"] = len(users) - len(positions)
        rows_of_users = np.bincount(users)
        largest = int(rows_of_users.argmax())
        source = SourceRows(
            num_rows=num_rows + faults.num_lines,
            dropped={reason: count for reason, count in dropped.items() if count},
            largest_user=user_ids[largest],
            largest_user_rows=int(rows_of_users[largest]),
        )
        return cls(user_ids, item_ids, indptr, positions, timestamps, source)

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
        refuse_forked_child()
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
        return find_ids(self.user_ids, raw_ids)

    def find_items(self, raw_ids: pl.Series | Sequence[Any]) -> NDArray[np.int64]:
        """Look up raw item ids: int64 indices, -1 for an unknown item.

        `"42"` from a command line finds the item 42; :func:`metatl.data.ids.find_ids` has the rule.
        """
        return find_ids(self.item_ids, raw_ids)

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


def _without_unused(ids: pl.Series, numbers: NDArray[np.int64]) -> tuple[pl.Series, NDArray[np.int64]]:
    """Leave out ids that no row has, and number the others again."""
    used = np.bincount(numbers, minlength=len(ids)) > 0
    return ids.filter(pl.Series(used)), (np.cumsum(used, dtype=np.int64) - 1)[numbers]
