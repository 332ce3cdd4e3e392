"""The option that says what item vectors are rounded to."""

from __future__ import annotations

import click

item_table_option = click.option(
    "--item-table",
    default="float32",
    show_default=True,
    type=click.Choice(["float32", "bf16", "int8"]),
    help="What the item vectors are rounded to.",
)
