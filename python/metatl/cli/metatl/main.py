"""The command `metatl`."""

from __future__ import annotations

import click

from metatl.cli.lazy_groups import LazyGroup

COMMANDS = (
    "data",
    "export",
    "recommend",
    "reproduce",
    "serve",
    "settings",
    "stats",
    "train",
    "tune",
    "update",
)


@click.group(cls=LazyGroup, commands_at={name: f"metatl.cli.metatl.{name}:{name}" for name in COMMANDS})
@click.version_option(package_name="metatl")
def main() -> None:
    """MetaTL: sequential recommendation for users with a few interactions.

    See also `metatl-eval`, which evaluates the runs of `metatl train` and the scores of any other system.
    """


if __name__ == "__main__":
    main(prog_name="metatl")
