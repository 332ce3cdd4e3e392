"""The command `metatl`: a group whose subcommands are imported when they are used."""

from __future__ import annotations

import importlib

import click

COMMANDS = ("recommend", "stats", "train")


class _LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(importlib.import_module(f"metatl.cli.{cmd_name}"), cmd_name)
        return command
