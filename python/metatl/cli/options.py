"""Options that several commands have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import click

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from metatl.data.interactions import Interactions
    from metatl.data.timestamps import TimestampUnit

_ROLES = 3


class NamedColumns(NamedTuple):
    """What `--columns` says.

    Attributes
    ----------
    names : tuple of str
        Of the user, item and timestamp columns.
    timestamp_unit : {"s", "ms", "us", "ns"} or None
        Unit of numeric timestamps; None where the option does not say.
    """

    names: tuple[str, str, str]
    timestamp_unit: TimestampUnit | None


def _parse_columns(_: click.Context, __: click.Parameter, value: str | None) -> NamedColumns | None:
    if value is None:
        return None
    names = tuple(name.strip() for name in value.split(","))
    if len(names) != _ROLES or not all(names):
        raise click.BadParameter(f"found {value!r}, expected three names as in user,item,time")
    from metatl.data.timestamps import split_unit

    user, item, timestamp = names
    timestamp, unit = split_unit(timestamp)
    return NamedColumns((user, item, timestamp), unit)


def load_data(data: str | Path, columns: NamedColumns | None) -> Interactions:
    """Load the data that a command names, with what `--columns` says of it."""
    from metatl import datasets

    if columns is None:
        return datasets.load(data)
    return datasets.load(data, columns.names, columns.timestamp_unit)


columns_option = click.option(
    "--columns",
    callback=_parse_columns,
    metavar="USER,ITEM,TIME",
    show_default=False,
    help="The file's user, item and timestamp columns; TIME may end in the unit of numbers, as in day:ms: s, "
    "ms, us or ns.  [default: found by their usual names]",
)

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
