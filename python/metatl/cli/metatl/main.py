"""The command `metatl`."""

from __future__ import annotations

import click

from metatl.cli.lazy_groups import LazyGroup

COMMANDS = ("data", "recommend", "reproduce", "settings", "stats", "train", "tune")


@click.group(cls=LazyGroup, commands_at={name: f"metatl.cli.metatl.{name}:{name}" for name in COMMANDS})
@click.version_option(package_name="metatl")
def main() -> None:
    """MetaTL: recommend to users whom you met three clicks ago.

    See also `metatl-eval`, which evaluates what `metatl train` wrote, and anybody's scores.
    """


if __name__ == "__main__":
    main(prog_name="metatl")
