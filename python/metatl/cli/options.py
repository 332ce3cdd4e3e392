"""The option that names the columns of a file."""

from __future__ import annotations

import click

_ROLES = 3


def _parse(_: click.Context, __: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    if value is None:
        return None
    names = tuple(name.strip() for name in value.split(","))
    if len(names) != _ROLES or not all(names):
        raise click.BadParameter(f"found {value!r}, expected three names as in user,item,time")
    return names


columns_option = click.option(
    "--columns",
    callback=_parse,
    metavar="USER,ITEM,TIME",
    show_default=False,
    help="The file's user, item and timestamp columns; TIME may end in the unit of numbers, as in day:ms: s, "
    "ms, us or ns.  [default: found by their usual names]",
)
