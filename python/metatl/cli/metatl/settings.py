"""`metatl settings`: what `--set` can change, with the value of each preset."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from metatl.cli.errors import Command
from metatl.models import SYSTEMS, find_system

if TYPE_CHECKING:
    from metatl.models import System

INTRODUCTION = """\
# Settings

What `metatl train --set NAME=VALUE` and `metatl.fit(config={...})` can change, with the value of each preset.
[systems.md](systems.md) describes the systems. `make settings` writes this page.
"""


@click.command(cls=Command)
@click.option("--model", default="metatl", show_default=True, help=f"One of {', '.join(SYSTEMS)}.")
@click.option("--markdown", is_flag=True, help="Write the settings of all systems as a Markdown page.")
def settings(model: str, *, markdown: bool) -> None:
    """List the settings of a system: name, value of each preset, and meaning.

    \b
    Examples:
      metatl settings
      metatl settings --model sasrec
    """  # noqa: D301 (click reads the character)
    if markdown:
        click.echo("\n".join([INTRODUCTION, *(_section(system) for system in SYSTEMS.values())]), nl=False)
        return
    for name, values, description in _rows(find_system(model)):
        click.echo(f"{name} = {', '.join(f'{value} ({preset})' for preset, value in values.items())}")
        click.echo(f"    {description}")


def _rows(system: System) -> list[tuple[str, dict[str, str], str]]:
    """Give each setting's name, its value in each preset, tuned first, and its description."""
    from metatl.models.preset_config import settings_of

    config_class = system.config_class()
    presets = {name: config_class.preset(name).model_dump(mode="json") for name in reversed(system.presets)}  # type: ignore[attr-defined]
    return [
        (
            setting.name,
            {preset: json.dumps(values[setting.name]) for preset, values in presets.items()},
            setting.description,
        )
        for setting in settings_of(config_class)
    ]


def _section(system: System) -> str:
    presets = list(reversed(system.presets))
    lines = [
        f"## {system.title} (`--model {system.name}`)",
        "",
        f"| setting | {' | '.join(f'`{preset}`' for preset in presets)} | meaning |",
        f"|---|{'---|' * len(presets)}---|",
    ]
    lines += [
        f"| `{name}` | {' | '.join(values.values())} | {description} |"
        for name, values, description in _rows(system)
    ]
    return "\n".join([*lines, ""])
