"""Published files without a header, and published files with times in milliseconds.

A file without a header is recognised by its separator and by the fields of its first line: each field must
match the pattern of a published format. No line matches two formats. A line that matches none is read as a
header. So another file ends in an error, and columns are never read in the wrong order.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

import polars as pl

from metatl.exceptions import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from metatl.common.row_faults import RowFaults
    from metatl.data.timestamps import TimestampUnit


class HeaderlessForm(NamedTuple):
    """A published format without a header.

    Attributes
    ----------
    title : str
        The data sets that have this format.
    separator : str
        The separator of fields.
    fields : dict of str to str
        Names of the fields to the regular expressions that the first line matches.
    """

    title: str
    separator: str
    fields: dict[str, str]


# Ids of Amazon's customers start with A. Ids of products have ten characters and start with B, or are ISBNs.
# The order of the two changed between the releases.
_AMAZON_USER = r"A[0-9A-Z]{9,}"
_AMAZON_ITEM = r"[0-9B][0-9A-Z]{9}"
_STARS = r"[1-5](\.0)?"
# Times from 1973 on, so that ratings and counts do not match.
_SECONDS = r"\d{9,10}(\.0)?"

HEADERLESS_FORMS = (
    HeaderlessForm(
        "Amazon 2014, ratings only",
        ",",
        {"user_id": _AMAZON_USER, "item_id": _AMAZON_ITEM, "rating": _STARS, "timestamp": _SECONDS},
    ),
    HeaderlessForm(
        "Amazon 2018, ratings only",
        ",",
        {"item_id": _AMAZON_ITEM, "user_id": _AMAZON_USER, "rating": _STARS, "timestamp": _SECONDS},
    ),
    HeaderlessForm(
        "MovieLens and MovieTweetings",
        "::",
        {"user_id": r".*", "item_id": r".*", "rating": r"(\d(\.\d)?|10(\.0)?)", "timestamp": r".*"},
    ),
    # Two ids and a rating, without a time, must not match.
    HeaderlessForm(
        "MovieLens without ratings",
        "::",
        {"user_id": r".*", "item_id": r".*", "timestamp": r"(?!(\d(\.\d)?|10(\.0)?)$).*"},
    ),
)
"""Every format without a header."""

# Only Amazon Reviews 2023 has these names; its times are milliseconds.
_MILLISECOND_NAMES = {"user_id", "parent_asin", "timestamp"}
# The year 1973 in milliseconds, and the year 5138 in seconds.
_SMALLEST_MILLISECONDS = 100_000_000_000


def name_fields(fields: Sequence[str], separator: str) -> list[str] | None:
    """Name the fields of a first line that is not a header.

    Parameters
    ----------
    fields : sequence of str
        The fields of the line.
    separator : str
        Their separator.

    Returns
    -------
    list of str or None
        Names of the fields; None if the line is a header, because it has none of the formats.

    Raises
    ------
    DataError
        If the separator is `::`, which only files without a header have, and no format matches.

    Examples
    --------
    >>> name_fields(["A2CX7LUOHB2NDG", "0321732944", "5.0", "1341100800"], ",")
    ['user_id', 'item_id', 'rating', 'timestamp']
    >>> name_fields(["0321732944", "A2CX7LUOHB2NDG", "5.0", "1341100800"], ",")
    ['item_id', 'user_id', 'rating', 'timestamp']
    """
    for form in HEADERLESS_FORMS:
        patterns = form.fields.values()
        if separator == form.separator and len(fields) == len(patterns):
            pairs = zip(patterns, fields, strict=True)
            if all(re.fullmatch(pattern, field) for pattern, field in pairs):
                return list(form.fields)
    if separator != "::":
        return None
    if len(fields) == 3:  # noqa: PLR2004 (user, item, timestamp)
        raise DataError(f"found {fields[2]!r} and no header, expected a timestamp as the third field")
    if len(fields) == 4:  # noqa: PLR2004 (user, item, rating, timestamp)
        raise DataError(
            f"found {fields[2]!r} and no header, expected a rating from 0 to 10 as the third field"
        )
    expected = "user::item::timestamp or user::item::rating::timestamp"
    raise DataError(f"found {len(fields)} fields and no header, expected {expected}")


def usual_unit(names: Sequence[str], timestamps: pl.Series, faults: RowFaults) -> TimestampUnit | None:
    """Choose the unit of timestamps that are numbers, where the caller gives none.

    Parameters
    ----------
    names : sequence of str
        The names of all columns of the file.
    timestamps : polars.Series
        The column of timestamps.
    faults : RowFaults
        Gains the rows of such a file whose number is too small to be milliseconds.

    Returns
    -------
    str or None
        `ms` if the names are those of Amazon Reviews 2023.
    """
    if timestamps.name != "timestamp" or not _MILLISECOND_NAMES.issubset(names):
        return None
    if timestamps.dtype == pl.String or timestamps.dtype.is_numeric():
        numbers = timestamps.cast(pl.Float64, strict=False)
        too_small = (numbers < _SMALLEST_MILLISECONDS).fill_null(value=False)
        expected = "expected milliseconds, as the column parent_asin says Amazon Reviews 2023"
        faults.add(too_small, timestamps, f"found {{}}, {expected}; or set timestamp_unit")
    return "ms"
