"""Which columns of a file hold users, items and timestamps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from metatl.common.column_errors import quoted
from metatl.exceptions import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

# Compared without case and punctuation; the first that a file has is taken.
USUAL_NAMES = {
    "user": ["user_id", "user", "uid", "user_name", "reviewer_id", "customer_id", "customer", "visitor_id"],
    "item": [
        *("item_id", "item", "iid", "movie_id", "movie", "parent_asin", "asin", "product_id", "product"),
        *("book_id", "book", "isbn", "wine_id", "wine", "track_id", "song_id", "artist_id", "article_id"),
        *("business_id", "game_id", "recipe_id", "sku"),
    ],
    "timestamp": [
        *("timestamp", "time", "ts", "unix_review_time", "unix_time", "datetime", "date", "event_time"),
        # Of Goodreads' five times a row, the one that is always there and that no later edit moves.
        *("created_at", "t_dat", "date_added"),
    ],
}


def find_columns(names: Sequence[str], given: Sequence[str | None]) -> list[int]:
    """Find the columns of users, items and timestamps.

    Parameters
    ----------
    names
        The names that a file has.
    given
        The names of the three columns, in this order; None where it is to be found by its usual names.

    Returns
    -------
    list of int
        Positions in `names`, in the order of `given`.

    Raises
    ------
    DataError
        If a column is missing, or if several could be meant.
    """
    columns = [_find(names, name, role) for name, role in zip(given, USUAL_NAMES, strict=True)]
    if len(set(columns)) < len(columns):
        chosen = ", ".join(repr(names[column]) for column in columns)
        raise DataError(f"found the columns {chosen}, expected three different ones")
    return columns


def has_usual_name(names: Sequence[str]) -> bool:
    """Whether one of the names is usual for any of the three columns."""
    usual = {_plain(name) for names_of_role in USUAL_NAMES.values() for name in names_of_role}
    return any(_plain(name) in usual for name in names)


def _find(names: Sequence[str], given: str | None, role: str) -> int:
    if given is not None:
        found = [column for column, name in enumerate(names) if name == given]
        if not found:
            raise DataError(f"found no column {given!r} among {quoted(names)}")
    else:
        found = _find_usual(names, role)
        if not found:
            raise DataError(
                f"found no {role} column among {quoted(names)}; expected one of "
                f"{', '.join(USUAL_NAMES[role])}, or name it with {role}_column or --columns"
            )
    if len(found) > 1:
        chosen = ", ".join(repr(names[column]) for column in found)
        raise DataError(f"found {len(found)} {role} columns, {chosen}; expected one")
    return found[0]


def _find_usual(names: Sequence[str], role: str) -> list[int]:
    plain = [_plain(name) for name in names]
    for usual in USUAL_NAMES[role]:
        found = [column for column, name in enumerate(plain) if name == _plain(usual)]
        if found:
            return found
    return []


def _plain(name: str) -> str:
    return "".join(filter(str.isalnum, name.lower()))
