"""Options that several commands have."""

from __future__ import annotations

import functools
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from metatl.data.interactions import BadRows, Interactions, Repeats
    from metatl.data.timestamps import TimestampUnit

_ROLES = 3


@dataclass(frozen=True)
class Reading:
    """How a command reads data; None where its options do not say.

    Attributes
    ----------
    columns : tuple of str or None
        Names of the user, item and timestamp columns.
    timestamp_unit : {"s", "ms", "us", "ns", "YYYYMMDD"} or None
        Unit of numeric timestamps.
    null_values : tuple of str or None
        Texts that stand for a missing value.
    bad_rows : {"error", "skip"} or None
        What to do with rows that cannot be used.
    repeats : {"first", "all"} or None
        Which interactions of a user with the same item are kept.
    """

    columns: tuple[str, str, str] | None = None
    timestamp_unit: TimestampUnit | None = None
    null_values: tuple[str, ...] | None = None
    bad_rows: BadRows | None = None
    repeats: Repeats | None = None

    def given(self) -> dict[str, Any]:
        """Return what the options say, as arguments of :func:`metatl.datasets.load`."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def _parse_columns(
    _: click.Context, __: click.Parameter, value: str | None
) -> tuple[tuple[str, str, str], TimestampUnit | None] | None:
    if value is None:
        return None
    names = tuple(name.strip() for name in value.split(","))
    if len(names) != _ROLES or not all(names):
        raise click.BadParameter(f"found {value!r}, expected three names as in user,item,time")
    from metatl.data.timestamps import split_unit

    user, item, timestamp = names
    timestamp, unit = split_unit(timestamp)
    return (user, item, timestamp), unit


def _parse_null_values(_: click.Context, __: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    return None if value is None else tuple(value.split(","))


_READING_OPTIONS = (
    click.option(
        "--columns",
        callback=_parse_columns,
        metavar="USER,ITEM,TIME",
        show_default=False,
        help="The user, item and timestamp columns; TIME may end in the unit of numbers, as in day:ms: s, "
        "ms, us, ns or YYYYMMDD.  [default: found by their usual names]",
    ),
    click.option(
        "--null-values",
        callback=_parse_null_values,
        metavar="TEXT,TEXT",
        show_default=False,
        help="Texts that stand for a missing value; rows with one are left out. '' for none.",
    ),
    click.option(
        "--bad-rows",
        type=click.Choice(["error", "skip"]),
        show_default=False,
        help="Rows that cannot be used: name the first ten and stop, or leave them out and count them.  "
        "[default: error]",
    ),
    click.option(
        "--repeats",
        type=click.Choice(["first", "all"]),
        show_default=False,
        help="Rows of a user with the same item: keep the first, or all.  [default: first]",
    ),
)


def reading_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that say how data is read; the command gets them as one argument, `reading`."""

    @functools.wraps(command)
    def with_reading(
        *args: Any,
        columns: tuple[tuple[str, str, str], TimestampUnit | None] | None,
        null_values: tuple[str, ...] | None,
        bad_rows: BadRows | None,
        repeats: Repeats | None,
        **options: Any,
    ) -> None:
        names, unit = (None, None) if columns is None else columns
        command(*args, reading=Reading(names, unit, null_values, bad_rows, repeats), **options)

    decorated: Callable[..., None] = with_reading
    for option in reversed(_READING_OPTIONS):
        decorated = option(decorated)
    return decorated


def load_data(data: str | Path, reading: Reading) -> Interactions:
    """Load the data that a command names, as its options say."""
    from metatl import datasets

    return datasets.load(data, **reading.given())


device_option = click.option(
    "--device",
    default="auto",
    show_default=True,
    type=click.Choice(["auto", "cpu", "cuda"]),
    help="Where the model runs; auto takes CUDA where there is one.",
)

item_table_option = click.option(
    "--item-table",
    default="float32",
    show_default=True,
    type=click.Choice(["float32", "bf16", "int8"]),
    help="What the item vectors are rounded to.",
)

served_item_table_option = click.option(
    "--item-table",
    type=click.Choice(["float32", "bf16", "int8"]),
    help="Number format of the item vectors; bf16 by default from 65,536 items on.",
)


def _parse_ks(_: click.Context, __: click.Parameter, value: str) -> tuple[int, ...]:
    texts = [text.strip() for text in value.split(",")]
    if not all(text.isdecimal() and int(text) >= 1 for text in texts):
        raise click.BadParameter(f"found {value!r}, expected numbers as in 2,3,4")
    return tuple(dict.fromkeys(map(int, texts)))


def ks_option(default: str) -> Callable[[Any], Any]:
    """Make the option `--k` of commands that take several values of K."""
    return click.option(
        "--k", "ks", default=default, show_default=True, callback=_parse_ks, help="Values of K, as in 2,3,4."
    )
