"""`metatl-eval candidates`: write the split and the candidates for another recommender."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from metatl.cli.errors import Command
from metatl.cli.options import load_data, reading_options
from metatl.cli.outputs import check_outputs, check_table_names
from metatl.metrics.names import CANDIDATE_KINDS

if TYPE_CHECKING:
    from datetime import datetime

    from metatl.cli.options import Reading
    from metatl.data.candidates import CandidateSets, Excluded, Part

_OWN = {"all": "items", "history": "history"}


@click.command(cls=Command, context_settings={"show_default": True})
@click.argument("data")
@reading_options
@click.option(
    "-o",
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    help="File to write (.parquet); a folder for rechorus, a prefix of file names for ncf.",
)
@click.option("--k", default=3, type=click.IntRange(min=1), help="Interactions in a new user's history.")
@click.option(
    "--kind",
    default="uni",
    type=click.Choice(list(CANDIDATE_KINDS)),
    help="Negatives: uniform or by popularity.",
)
@click.option("--n", default=100, type=click.IntRange(min=1), help="Negatives of each user.")
@click.option("--seed", default=0, type=click.IntRange(min=0), help="Seed of the negatives.")
@click.option("--users", default="test", type=click.Choice(["test", "validation"]), help="Part of the split.")
@click.option(
    "--exclude",
    default="all",
    type=click.Choice(["all", "history"]),
    help="Items that are not drawn as negatives: all items of the user, or its history only.",
)
@click.option(
    "--cutoff", type=click.DateTime(["%Y-%m-%d"]), help="T: users who start at or after it are new."
)
@click.option("--cutoff-quantile", default=0.75, help="T as a quantile of the users' first interactions.")
@click.option("--min-item-count", default=10, help="Drop items with fewer interactions.")
@click.option("--min-train-rows", default=5, help="Drop training users with fewer interactions before T.")
@click.option("--validation-share", default=0.3, help="Share of the new users that are validation users.")
@click.option(
    "--format",
    "form",
    default="parquet",
    type=click.Choice(["parquet", "rechorus", "ncf", "qrels"]),
    help="Format of the file; only parquet holds everything.",
)
@click.option(
    "--train",
    type=click.Path(path_type=Path),
    help="Also write the rows of the training users: .parquet, .csv, .tsv or .jsonl.",
)
@click.option("--threads", type=click.IntRange(min=1), help="Threads.  [default: METATL_NUM_THREADS, or all]")
def candidates(
    data: str,
    reading: Reading,
    out: Path,
    k: int,
    kind: str,
    n: int,
    seed: int,
    users: Part,
    exclude: Excluded,
    cutoff: datetime | None,
    cutoff_quantile: float,
    min_item_count: int,
    min_train_rows: int,
    validation_share: float,
    form: str,
    train: Path | None,
    threads: int | None,
) -> None:
    """Split DATA and write the histories, targets and negatives of the new users.

    DATA is an interactions file, or `wines` for the bundled data. With the file, which has one row per user
    (user_id, history, target, negatives, later), another recommender can be evaluated on the same users.
    --train writes the rows to train it on: user_id, item_id, timestamp.

    \b
    Examples:
      metatl-eval candidates wines -o wines.parquet --train train.parquet
      metatl-eval candidates ratings.csv -o ratings.parquet --k 2 --kind pop --n 50 --seed 1
      metatl-eval candidates sales.csv --columns buyer,article,day --users validation -o validation.parquet
      metatl-eval candidates wines -o wines-rechorus --format rechorus
      metatl-eval candidates wines -o wines --format ncf
    """  # noqa: D301 (click reads the character)
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from metatl.common.files import check_ending, write_table
    from metatl.data.candidates import sample_candidate_sets
    from metatl.data.split import cold_start_split
    from metatl.exceptions import ConfigError, DataError, NoNegativeError

    check_outputs([data], {"--out": out, "--train": train})
    check_table_names({"--train": train})
    if form == "parquet":
        check_ending("--out", out, (".parquet",))
    for path in (out, train):
        if path is not None and not path.absolute().parent.is_dir():
            raise ConfigError(f"{path}: found no folder {path.parent} to write it to")
    split = cold_start_split(
        load_data(data, reading),
        k=k,
        cutoff=None if cutoff is None else cutoff.date(),
        cutoff_quantile=cutoff_quantile,
        min_item_count=min_item_count,
        min_train_rows=min_train_rows,
        validation_share=validation_share,
    )
    chosen = getattr(split, users)
    if len(chosen) == 0:
        raise DataError(f"found no {users} users among {split.cold.num_users} new ones; choose a smaller k")
    try:
        sets = sample_candidate_sets(
            split,
            chosen,
            n=n,
            kind=CANDIDATE_KINDS[kind],
            seed=seed,
            exclude=exclude,
            num_threads=threads,
        )
    except NoNegativeError as error:
        raise NoNegativeError(f"{error}; choose fewer negatives than --n {n}") from None
    written = _write(out, form, sets)
    if train is not None:
        write_table(train, split.train.to_frame())
        written.append(train)
    table = Table.grid(padding=(0, 2))
    for label, value in _summary(sets).items():
        table.add_row(label, Text(value, overflow="fold"))
    Console().print(table)
    # Outside the table, which would wrap a long path.
    for path in written:
        click.echo(f"written    {path}")


def _write(out: Path, form: str, sets: CandidateSets) -> list[Path]:
    from metatl.data.candidate_exports import write_ncf, write_qrels, write_rechorus

    if form == "parquet":
        sets.save(out)
        return [out]
    return {"rechorus": write_rechorus, "ncf": write_ncf, "qrels": write_qrels}[form](out, sets)


def _summary(sets: CandidateSets) -> dict[str, str]:
    dropped = [f"{count:,} {reason}" for reason, count in sets.dropped.items() if count > 0]
    return {
        "users": f"{len(sets.users):,} ({sets.part})",
        "items": f"{sets.num_items:,}",
        "negatives": f"{sets.n} {sets.kind}, seed {sets.seed}, none of the user's {_OWN[sets.exclude]}",
        "K": str(sets.k),
        "T": sets.split_protocol["cutoff"][:10],
        "dropped": "\n".join(dropped) or "nothing",
        "SHA-256": sets.sha256,
    }
