"""`metatl recommend`: recommend items to new users from their histories."""

from __future__ import annotations

import csv
import json
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from metatl.cli.errors import Command
from metatl.cli.options import Reading, device_option, load_data, reading_options, served_item_table_option
from metatl.cli.outputs import check_outputs, check_table_names

if TYPE_CHECKING:
    from metatl.ranking.item_tables import ItemFormat
    from metatl.serving.recommendations import Recommendations
    from metatl.serving.recommender import Recommender


@click.command(cls=Command, context_settings={"show_default": True})
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--history",
    help="One user's items, oldest first: separated by commas, or a JSON list as in '[\"a,b\", 3]'.",
)
@click.option(
    "--item", "items", multiple=True, help="An item of one user, taken as it is; repeatable, oldest first."
)
@click.option(
    "--input",
    "source",
    type=click.Path(path_type=Path),
    help="Interactions of many users; each gets a list.",
)
@reading_options
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="File for the lists of --input: .parquet, .csv, .tsv or .jsonl.",
)
@click.option("--top", default=10, type=click.IntRange(min=1), help="Items per user.")
@click.option("--threads", type=click.IntRange(min=1), help="Threads.  [default: METATL_NUM_THREADS, or all]")
@device_option
@served_item_table_option
def recommend(
    run: Path,
    history: str | None,
    items: tuple[str, ...],
    source: Path | None,
    reading: Reading,
    out: Path | None,
    top: int,
    threads: int | None,
    device: str,
    item_table: ItemFormat | None,
) -> None:
    """Recommend items to new users with the run directory, or export, RUN; nothing is trained.

    --input has the column names of the run's data, unless --columns names others.

    The last 50 items of a history count. Items that the run does not know are left out and reported. A user
    without known items gets the most popular items.

    \b
    Examples:
      metatl recommend runs/wines --history 100001,100010,102345 --top 5
      metatl recommend runs/shop --item "cup, blue" --item plate
      metatl recommend runs/wines --input visitors.csv --out recommended.parquet
    """  # noqa: D301 (click reads the character)
    if (history is not None) + bool(items) + (source is not None) != 1:
        raise click.UsageError("give one of --history, --item and --input")
    if (source is None) != (out is None):
        raise click.UsageError("--input needs --out, and --out needs --input")
    if reading.given() and source is None:
        raise click.UsageError("--columns, --null-values and --bad-rows need --input")

    check_outputs([run, source], {"--out": out})
    check_table_names({"--out": out})

    from metatl.serving.recommender import Recommender

    recommender = Recommender.load(run, item_table=item_table, threads=threads, device=device)
    if source is not None and out is not None:
        _answer_file(recommender, source, reading, out, top)
    else:
        _answer_one(recommender, list(items) if history is None else _split_history(history), top)


def _answer_one(recommender: Recommender, history: list[Any], top: int) -> None:
    """Print the items for one user."""
    from rich.console import Console
    from rich.table import Table

    from metatl.serving.recommendations import find_names

    answer = recommender.recommend([history], top)
    if answer.unknown_items[0]:
        click.echo(f"unknown items, left out: {', '.join(answer.unknown_items[0])}", err=True)
    _explain(int(answer.known_items[0]))
    frame = answer.frame()
    names = find_names(recommender.run.record, frame["item_id"])
    table = Table()
    table.add_column("item")
    if names is not None:
        table.add_column("name")
    table.add_column("score", justify="right")
    for index, (item, score) in enumerate(frame.select("item_id", "score").rows()):
        name = [] if names is None else [names[index] or ""]
        table.add_row(str(item), *name, f"{score:.4f}")
    Console().print(table)


def _split_history(history: str) -> list[Any]:
    """Read a JSON list, or split one line of CSV."""
    if history.lstrip().startswith("["):
        with suppress(ValueError, RecursionError):
            ids = json.loads(history)
            if isinstance(ids, list) and all(type(item) in (str, int) for item in ids):
                return ids
        raise click.UsageError(
            f"--history: found {history!r:.60}, expected a JSON list of texts and integers, as in "
            "'[\"a,b\", 3]'; give one id that starts with [ with --item"
        )
    try:
        fields = next(csv.reader([history]), [])
    except csv.Error as error:
        found = "a line break" if {"\r", "\n"} & set(history) else str(error)
        raise click.UsageError(
            f"--history: found {found}, expected one line of ids with commas between them; "
            "give other ids with --item, or in a file with --input"
        ) from None
    return [field.strip() for field in fields if field.strip()]


def _explain(known_items: int) -> None:
    """Explain a list that rests on little or no history."""
    if known_items == 0:
        click.echo("no known item in the history: these are the most popular items", err=True)
    elif known_items == 1:
        click.echo("one known item in the history: the list rests on it alone", err=True)


def _answer_file(recommender: Recommender, source: Path, reading: Reading, out: Path, top: int) -> None:
    """Write the items for every user of a file."""
    from metatl.common.files import write_table
    from metatl.serving.recommendations import find_names

    recorded = recommender.run.record
    if reading.columns is None:
        reading = replace(reading, columns=recorded.columns, timestamp_unit=recorded.timestamp_unit)
    reading = replace(
        reading,
        null_values=recorded.null_values if reading.null_values is None else reading.null_values,
        bad_rows=reading.bad_rows or recorded.bad_rows,
    )
    interactions = load_data(source, reading)
    answer = recommender.recommend(interactions, top)
    frame = answer.frame(interactions.user_ids)
    names = find_names(recorded, frame["item_id"])
    if names is not None:
        frame = frame.insert_column(frame.columns.index("item_id") + 1, names)
    write_table(out, frame)
    click.echo(_summary(answer, out))


def _summary(answer: Recommendations, out: Path) -> str:
    unknown = sorted({item for items in answer.unknown_items for item in items})
    parts = [f"{len(answer):,} users, written to {out}"]
    if unknown:
        shown = ", ".join(unknown[:5]) + (", …" if len(unknown) > 5 else "")  # noqa: PLR2004 (a handful)
        parts.append(f"{len(unknown):,} unknown items left out ({shown})")
    without = int((answer.known_items == 0).sum())
    if without:
        parts.append(f"{without:,} users without a known item got the most popular ones")
    return "; ".join(parts)
