"""The command `metatl`: a group whose subcommands are imported when they are used."""

from __future__ import annotations

import importlib

import click

from metatl.cli.errors import Group

COMMANDS = ("data", "recommend", "reproduce", "stats", "train", "tune")


class LazyGroup(Group):
    """A group that imports a subcommand when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name the subcommands."""
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a subcommand; None where there is none of that name."""
        del ctx
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(importlib.import_module(f"metatl.cli.{cmd_name}"), cmd_name)
        return command


@click.group(cls=LazyGroup)
@click.version_option(package_name="metatl")
def main() -> None:
    """MetaTL: recommend to users whom you met three clicks ago.

    See also `metatl-eval`, which evaluates what `metatl train` wrote.
    """


if __name__ == "__main__":
    main(prog_name="metatl")
