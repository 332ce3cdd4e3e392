"""Finding the columns of users, items and timestamps by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from metatl.common.column_errors import quoted
from metatl.exceptions import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

# Compared without case and punctuation. The first name that a file has is taken.
USUAL_NAMES = {
    "user": ["user_id", "user", "uid", "user_name", "reviewer_id", "customer_id", "customer", "visitor_id"],
    "item": [
        *("item_id", "item", "iid", "movie_id", "movie", "parent_asin", "asin", "product_id", "product"),
        *("book_id", "book", "isbn", "wine_id", "wine", "track_id", "song_id", "artist_id", "article_id"),
        *("business_id", "game_id", "recipe_id", "sku"),
    ],
    "timestamp": [
        *("timestamp", "time", "ts", "unix_review_time", "unix_time", "datetime", "date", "event_time"),
        # Goodreads has five times a row: this one is always given, and later edits do not change it.
        *("created_at", "t_dat", "date_added"),
    ],
}


def find_columns(names: Sequence[str], given: Sequence[str | None]) -> list[int]:
    """Find the columns of users, items and timestamps.

    Parameters
    ----------
    names : sequence of str
        The names of the columns of a file.
    given : sequence of (str or None)
        The names of the user, item and timestamp columns. None looks for the usual names.

    Returns
    -------
    list of int
        Indices in `names`, in the order of `given`.

    Raises
    ------
    DataError
        If a column is missing, or if several match.
    """
    columns = [_find(names, name, role) for name, role in zip(given, USUAL_NAMES, strict=True)]
    if len(set(columns)) < len(columns):
        chosen = ", ".join(repr(names[column]) for column in columns)
        raise DataError(f"found the columns {chosen}, expected three different ones")
    return columns


def has_usual_name(names: Sequence[str]) -> bool:
    """Tell whether one of the names is a usual name of any of the three columns."""
    usual = {_plain(name) for names_of_role in USUAL_NAMES.values() for name in names_of_role}
    return any(_plain(name) in usual for name in names)


def _find(names: Sequence[str], given: str | None, role: str) -> int:
    if given is not None:
        columns = [column for column, name in enumerate(names) if name == given]
        if not columns:
            raise DataError(f"found no column {given!r} among {quoted(names)}")
    else:
        columns = _find_usual(names, role)
        if not columns:
            raise DataError(
                f"found no {role} column among {quoted(names)}; expected one of "
                f"{', '.join(USUAL_NAMES[role])}, or name it with {role}_column or --columns"
            )
    if len(columns) > 1:
        chosen = ", ".join(repr(names[column]) for column in columns)
        raise DataError(f"found {len(columns)} {role} columns, {chosen}; expected one")
    return columns[0]


def _find_usual(names: Sequence[str], role: str) -> list[int]:
    plain = [_plain(name) for name in names]
    for usual in USUAL_NAMES[role]:
        columns = [column for column, name in enumerate(plain) if name == _plain(usual)]
        if columns:
            return columns
    return []


def _plain(name: str) -> str:
    return "".join(filter(str.isalnum, name.lower()))
