"""The rows of a table that cannot be used, so that one error names all of them, or they are left out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from metatl.common.column_errors import shown
from metatl.exceptions import DataError

if TYPE_CHECKING:
    import polars as pl
    from numpy.typing import NDArray

SHOWN_FAULTS = 10
"""Number of rows that an error or a warning describes."""


class RowFaults:
    """Collects the rows that cannot be used.

    Parameters
    ----------
    lines : polars.Series, optional
        Int64 (N,): the line of each row in its text file, from 1. By default errors name rows.

    Attributes
    ----------
    errors : list of DataError
        Descriptions of the first rows, in no order.
    num_lines : int
        Number of lines that could not be made a row at all.
    remarks : list of str
        What a user should know of the rows that can be used.
    """

    def __init__(self, lines: pl.Series | None = None) -> None:
        self.lines = lines
        self.errors: list[DataError] = []
        self.num_lines = 0
        self.remarks: list[str] = []
        self._rows: NDArray[np.bool_] | None = None

    def add(self, bad: pl.Series, column: pl.Series, message: str) -> None:
        """Add the rows where `bad` is true or null.

        Parameters
        ----------
        bad : polars.Series
            Boolean (N,).
        column : polars.Series
            (N,): the values; its name is that of the column.
        message : str
            What was found and what was expected; ``{}`` stands for the value.
        """
        rows = bad.fill_null(value=True).to_numpy()
        if not rows.any():
            return
        # One description a row: the first column that is at fault.
        new = rows if self._rows is None else rows & ~self._rows
        for row in map(int, np.flatnonzero(new)[:SHOWN_FAULTS]):
            line = None if self.lines is None else int(self.lines[row])
            self.errors.append(
                DataError(
                    message.replace("{}", shown(column, row)),
                    line=line,
                    row=row + 1 if line is None else None,
                    column=column.name,
                )
            )
        self._rows = rows if self._rows is None else self._rows | rows

    def add_lines(self, errors: list[DataError], count: int) -> None:
        """Add lines that could not be made a row; `errors` describe the first of them."""
        self.errors.extend(errors[:SHOWN_FAULTS])
        self.num_lines += count

    def __len__(self) -> int:
        rows = 0 if self._rows is None else int(np.count_nonzero(self._rows))
        return rows + self.num_lines

    def usable(self) -> NDArray[np.bool_] | None:
        """Return bool (N,), true where a row can be used; None if all can."""
        return None if self._rows is None else ~self._rows

    def first(self) -> list[DataError]:
        """Return the descriptions of the first rows, in the order of the table."""
        return sorted(self.errors, key=_position)[:SHOWN_FAULTS]

    def error(self, advice: str = "mend them") -> DataError:
        """Return one error that names the first rows at fault, says how many there are, and what to do."""
        first, *others = self.first()
        message = first.message
        if others:
            also = "; ".join(str(error) for error in others)
            rest = len(self) - len(others) - 1
            more = f"; and {rest:,} more" if rest else ""
            message += f"; {len(self):,} rows cannot be used: also {also}{more}; {advice}"
        return DataError(message, line=first.line, row=first.row, column=first.column)

    def skipped(self) -> str:
        """Return one line that says how many rows are left out, and describes the first."""
        first = self.first()
        shown_rows = "; ".join(str(error) for error in first)
        rest = len(self) - len(first)
        return f"skipped {len(self):,} bad rows: {shown_rows}" + (f"; and {rest:,} more" if rest else "")


def _position(error: DataError) -> int:
    return error.line or error.row or 0
