"""The command `metatl-eval`."""

from __future__ import annotations

import click

from metatl.cli.lazy_groups import LazyGroup

COMMANDS = {
    "run": "metatl.cli.metatl_eval.run:run",
    "candidates": "metatl.cli.metatl_eval.candidates:candidates",
    "scores": "metatl.cli.metatl_eval.scores:scores",
    "embeddings": "metatl.cli.metatl_eval.embeddings:embeddings",
    "trec": "metatl.cli.metatl_eval.trec:trec",
    "compare": "metatl.cli.metatl_eval.compare:compare",
}


@click.group(cls=LazyGroup, commands_at=COMMANDS, default="run")
@click.version_option(package_name="metatl")
def main() -> None:
    """Evaluate recommenders on the next item of new users: runs of metatl, and any other system.

    `metatl-eval RUN` is short for `metatl-eval run RUN`.

    \b
    Examples:
      metatl-eval runs/wines
      metatl-eval candidates interactions.csv -o candidates.parquet
      metatl-eval scores candidates.parquet scores.npy --per-user mine.parquet
      metatl-eval compare theirs.parquet mine.parquet
    """  # noqa: D301 (click reads the character)


if __name__ == "__main__":
    main(prog_name="metatl-eval")
