"""Command groups that import a subcommand when it is used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from metatl.cli.errors import Group

if TYPE_CHECKING:
    import click


class LazyGroup(Group):
    """A group that imports a subcommand when it is used.

    Parameters
    ----------
    commands_at : dict of str to str
        The name of each subcommand to its module and function, as in `metatl.cli.metatl.stats:stats`.
    default : str, optional
        The subcommand that runs if the first argument is not a subcommand.
    """

    def __init__(
        self, *args: Any, commands_at: dict[str, str], default: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.commands_at = commands_at
        self.default = default

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Insert the default subcommand if none is named."""
        known = {
            *self.commands_at,
            *(option for parameter in self.get_params(ctx) for option in parameter.opts),
        }
        if self.default is not None and args and args[0] not in known:
            args = [self.default, *args]
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name the subcommands."""
        del ctx
        return list(self.commands_at)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a subcommand; None if there is no such subcommand."""
        del ctx
        if cmd_name not in self.commands_at:
            return None
        module, _, function = self.commands_at[cmd_name].partition(":")
        command: click.Command = getattr(importlib.import_module(module), function)
        return command
