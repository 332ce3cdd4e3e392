"""Parts of error messages about columns."""

from __future__ import annotations

from typing import TYPE_CHECKING

from metatl.exceptions import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import polars as pl

_VALUE_LIMIT = 60
_NAMES_LIMIT = 200


def refuse(bad: pl.Series, column: pl.Series, message: str) -> None:
    """Raise DataError for the first row where `bad` is true or null; `{}` stands for its value."""
    if bad.null_count() > 0 or bad.any():
        row = int(bad.fill_null(value=True).arg_true()[0])
        raise DataError(message.replace("{}", shown(column, row)), row=row + 1, column=column.name)


def refuse_missing(column: pl.Series, expected: str) -> None:
    """Raise DataError for the first row without a value."""
    if column.null_count() > 0:
        refuse(column.is_null(), column, f"found nothing, {expected}")


def quoted(names: Sequence[str]) -> str:
    """Return the names in quotes, separated by commas; a long list is cut."""
    return _cut(", ".join(map(repr, names)), _NAMES_LIMIT)


def shown(column: pl.Series, row: int) -> str:
    """Return a value as messages show it: text in quotes, cut if it is long."""
    # Times by their integers: neither polars nor Python can show one that no calendar has.
    value = column.to_physical()[row] if column.dtype.is_temporal() else column[row]
    return _cut(repr(value) if isinstance(value, str) else str(value), _VALUE_LIMIT)


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[:limit] + "..."
