"""`metatl stats`: the statistics of a data set under the protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from metatl.cli.data_lines import largest_user, rows_read
from metatl.cli.errors import Command
from metatl.cli.options import load_data, reading_options

if TYPE_CHECKING:
    from datetime import datetime

    from metatl.cli.options import Reading


@click.command(cls=Command)
@click.argument("data")
@reading_options
@click.option(
    "--cutoff",
    type=click.DateTime(["%Y-%m-%d"]),
    help="T: users who arrive at or after it are new.  [default: the --cutoff-quantile]",
)
@click.option(
    "--cutoff-quantile", default=0.75, show_default=True, help="T as a quantile of first interactions."
)
@click.option("--min-item-count", default=10, show_default=True, help="Drop items with fewer interactions.")
@click.option(
    "--min-train-rows",
    default=5,
    show_default=True,
    help="Drop training users with fewer interactions before T.",
)
def stats(
    data: str,
    reading: Reading,
    cutoff: datetime | None,
    cutoff_quantile: float,
    min_item_count: int,
    min_train_rows: int,
) -> None:
    """Describe DATA: an interactions file, or `wines` for the bundled data.

    Prints the rows that were read and left out, the user with the most rows, the row of the paper's Table 1
    (users, items, interactions, mean length, T) and, under the same protocol, the training users, the new
    users for K = 2, 3 and 4, the share of successive interactions with equal times, and the time span.
    """
    from metatl.data.dataset_statistics import statistics

    interactions = load_data(data, reading)
    figures = statistics(
        interactions,
        cutoff=cutoff,
        cutoff_quantile=cutoff_quantile,
        min_item_count=min_item_count,
        min_train_rows=min_train_rows,
    )
    lines = {
        "data": data,
        "rows": rows_read(interactions),
        "largest user": largest_user(interactions),
        "users": f"{figures.num_users:,}",
        "items": f"{figures.num_items:,}",
        "interactions": f"{figures.num_interactions:,} of {interactions.num_interactions:,}",
        "mean length": f"{figures.mean_length:.2f}",
        "T": f"{figures.cutoff:%Y-%m-%d}",
        "training users": f"{figures.num_train_users:,}",
        **{f"cold users, K = {k}": f"{number:,}" for k, number in figures.num_cold_users.items()},
        "time ties": f"{figures.tie_share:.1%}",
        "span": f"{figures.first:%Y-%m-%d} to {figures.last:%Y-%m-%d}",
        "fingerprint": interactions.fingerprint,
    }
    width = max(map(len, lines))
    for label, value in lines.items():
        click.echo(f"{label:<{width}}  {value}")
