"""Filters: which items may be recommended, to all users of a call or to each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import polars as pl

from metatl.data.histories import Histories
from metatl.data.ids import find_ids
from metatl.exceptions import ArgumentTypeError, DataError, InvalidArgumentError
from metatl.serving.raw_histories import as_list, flatten

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from metatl.ranking.encoders import Rows
    from metatl.serving.item_lookup import ItemLookup

ItemFilter: TypeAlias = Any
"""Raw ids, or a boolean mask (I,); or for each user a list of ids, or a mask (B, I)."""

Where: TypeAlias = "pl.Expr | Mapping[str, Any]"
"""A polars expression over the columns of the item table, or by column a value or a list of values."""


@dataclass(frozen=True, eq=False)
class Filters:
    """The filters of one call.

    Attributes
    ----------
    allowed : ndarray or None
        Bool (I,), the items that may be recommended to anyone; None for all.
    excluded : Histories or None
        B rows of items that a user does not get, beside those of the history.
    candidates : Histories or None
        B rows of the only items that a user gets.
    """

    allowed: NDArray[np.bool_] | None = None
    excluded: Histories | None = None
    candidates: Histories | None = None

    def select(self, rows: Rows) -> Filters:
        """Select the filters of some users."""
        if self.excluded is None and self.candidates is None:
            return self
        return Filters(
            self.allowed,
            None if self.excluded is None else self.excluded.select(rows),
            None if self.candidates is None else self.candidates.select(rows),
        )

    def of_user(self, user: int, num_items: int) -> NDArray[np.bool_]:
        """Return the items that one user may get as a mask (I,)."""
        mask = np.ones(num_items, dtype=bool) if self.allowed is None else self.allowed.copy()
        if self.candidates is not None:
            listed = np.zeros(num_items, dtype=bool)
            listed[_row(self.candidates, user)] = True
            mask &= listed
        if self.excluded is not None:
            mask[_row(self.excluded, user)] = False
        return mask


def make_filters(
    lookup: ItemLookup,
    num_items: int,
    num_users: int,
    *,
    exclude: ItemFilter | None,
    allow: ItemFilter | None,
    candidates: ItemFilter | None,
    where: NDArray[np.bool_] | None,
) -> Filters:
    """Combine the filters of a call; an item must pass all of them.

    Parameters
    ----------
    lookup : ItemLookup
        The catalogue.
    num_items, num_users : int
        I and B.
    exclude, allow, candidates : ItemFilter or None
        The arguments of :meth:`metatl.Recommender.recommend`.
    where : ndarray or None
        Bool (I,), the items that `where` selects.

    Returns
    -------
    Filters
        The combination.

    Raises
    ------
    InvalidArgumentError
        If a mask or a list of lists has another length than there are items or users.
    ArgumentTypeError
        If a filter is no list of ids and no mask.
    """
    if allow is not None and candidates is not None:
        raise InvalidArgumentError("candidates: found candidates and allow, expected one of them")
    name = "allow" if candidates is None else "candidates"
    only = _items(name, allow if candidates is None else candidates, lookup, num_items, num_users)
    without = _items("exclude", exclude, lookup, num_items, num_users)
    allowed = where
    if isinstance(only, np.ndarray):
        allowed = only if allowed is None else only & allowed
    if isinstance(without, np.ndarray):
        allowed = ~without if allowed is None else allowed & ~without
    return Filters(
        allowed,
        without if isinstance(without, Histories) else None,
        only if isinstance(only, Histories) else None,
    )


def select_items(items: pl.DataFrame | None, where: Where) -> NDArray[np.bool_]:
    """Find the items that a condition selects.

    Parameters
    ----------
    items : polars.DataFrame or None
        (I rows) the item table; None if there is none.
    where : polars.Expr or mapping
        The condition. With a mapping, an item must have the value, or one of the values, in each column.

    Returns
    -------
    ndarray
        Bool (I,); false where the condition is null.

    Raises
    ------
    InvalidArgumentError
        If there is no item table, it lacks a column, or the condition is no truth value.
    """
    if items is None:
        raise InvalidArgumentError("where: found a condition but no item table; load one with items=")
    if isinstance(where, pl.Expr):
        condition = where
    elif isinstance(where, Mapping):
        conditions = [_has_value(items, column, value) for column, value in where.items()]
        condition = pl.all_horizontal(conditions) if conditions else pl.lit(value=True)
    else:
        raise ArgumentTypeError(
            f"where: found {type(where).__name__}, expected a polars expression, or values by column"
        )
    try:
        selected = items.select(condition.alias("selected"))["selected"]
    except pl.exceptions.PolarsError as error:
        raise InvalidArgumentError(f"where: found {str(error).partition(chr(10))[0]}") from None
    if selected.dtype != pl.Boolean:
        raise InvalidArgumentError(f"where: found values of type {selected.dtype}, expected true or false")
    if len(selected) == 1 != len(items):
        selected = selected.new_from_index(0, len(items))
    mask: NDArray[np.bool_] = selected.fill_null(value=False).to_numpy()
    return mask


def align_items(item_ids: pl.Series, table: pl.DataFrame) -> pl.DataFrame:
    """Arrange a table of items in the order of the catalogue.

    Parameters
    ----------
    item_ids : polars.Series
        (I,) raw ids.
    table : polars.DataFrame
        A column ``item_id``, or else its first column, holds raw ids; the others are kept.

    Returns
    -------
    polars.DataFrame
        I rows: ``item_id`` of the catalogue, and the other columns, null for an item that the table lacks.

    Raises
    ------
    DataError
        If the table has no column, or an id twice.
    """
    if table.width == 0:
        raise DataError("found no column, expected one of item ids")
    column = "item_id" if "item_id" in table.columns else table.columns[0]
    found = find_ids(item_ids, table[column])
    rows = np.flatnonzero(found >= 0)
    of_item = np.full(len(item_ids), -1, dtype=np.int64)
    of_item[found[rows]] = rows
    if len(np.unique(found[rows])) < len(rows):
        kept = np.zeros(table.height, dtype=bool)
        kept[of_item[of_item >= 0]] = True
        again = int(rows[~kept[rows]][0])
        raise DataError(f"found {table[column][again]!r} again, expected each item once", column=column)
    numbers = pl.Series(of_item).set(pl.Series(of_item < 0), None)
    return table.drop(column)[numbers].insert_column(0, item_ids.alias("item_id"))


def _has_value(items: pl.DataFrame, column: str, value: Any) -> pl.Expr:
    if column not in items.columns:
        raise InvalidArgumentError(
            f"where: found no column {column!r} among {', '.join(map(repr, items.columns))}"
        )
    values = list(value) if isinstance(value, (list, tuple, set, frozenset)) else [value]
    return pl.col(column).is_in(values)


def _items(
    argument: str, value: ItemFilter | None, lookup: ItemLookup, num_items: int, num_users: int
) -> NDArray[np.bool_] | Histories | None:
    """Return a filter of all users as a mask (I,), and one of each user as B lists of items."""
    if value is None:
        return None
    if isinstance(value, (pl.Series, np.ndarray)):
        value = np.asarray(value)
        if value.dtype == bool:
            return _mask(argument, value, num_items, num_users)
        value = value.tolist()
    values = list(value) if isinstance(value, (set, frozenset)) else as_list(argument, value)
    if values and all(isinstance(one, (bool, np.bool_)) for one in values):
        return _mask(argument, np.array(values, dtype=bool), num_items, num_users)
    if not any(isinstance(one, (list, tuple, set, frozenset, np.ndarray, pl.Series)) for one in values):
        found = lookup.find(values, lambda position: f"{argument}[{position}]")
        mask = np.zeros(num_items, dtype=bool)
        mask[found[found >= 0]] = True
        return mask
    if len(values) != num_users:
        raise InvalidArgumentError(
            f"{argument}: found {len(values)} lists, expected one list of ids, or {num_users}, one per user"
        )
    lists = [list(one) if isinstance(one, (set, frozenset)) else one for one in values]
    indptr, ids = flatten(argument, lists)
    items = lookup.find(ids, lambda position: f"{argument}, id {position}")
    is_known = items >= 0
    num_known_before = np.concatenate([[0], np.cumsum(is_known)])
    return Histories(num_known_before[indptr], items[is_known])


def _mask(
    argument: str, mask: NDArray[np.bool_], num_items: int, num_users: int
) -> NDArray[np.bool_] | Histories:
    if mask.shape == (num_items,):
        return mask
    if mask.shape != (num_users, num_items):
        raise InvalidArgumentError(
            f"{argument}: found a mask of shape {mask.shape}, expected ({num_items},), one value per item of "
            f"the catalogue, or ({num_users}, {num_items})"
        )
    indptr = np.zeros(num_users + 1, dtype=np.int64)
    np.cumsum(mask.sum(axis=1), out=indptr[1:])
    return Histories(indptr, np.nonzero(mask)[1])


def _row(lists: Histories, row: int) -> NDArray[np.int64]:
    items: NDArray[np.int64] = lists.items[lists.indptr[row] : lists.indptr[row + 1]]
    return items
