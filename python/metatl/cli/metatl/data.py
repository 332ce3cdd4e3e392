"""`metatl data`: list and download public data sets."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import click

from metatl.cli.errors import Group
from metatl.datasets.catalogue import CATALOGUE

if TYPE_CHECKING:
    from metatl.datasets.catalogue import PublicDataSet

_WIDTH = 100


@click.group(cls=Group)
def data() -> None:
    """List and download public data sets."""


@data.command("list")
def list_data_sets() -> None:
    """List the data sets that `download` knows."""
    width = max(map(len, CATALOGUE))
    for data_set in CATALOGUE.values():
        size = f"at most {_size(data_set.max_bytes)}"
        click.echo(f"{data_set.name:<{width}}  {size:<14}  {data_set.title}")


@data.command()
@click.argument("name", type=click.Choice(list(CATALOGUE)), metavar="NAME")
@click.option(
    "--to",
    "folder",
    default="data",
    show_default=True,
    type=click.Path(path_type=Path),
    metavar="DIRECTORY",
    help="Where the folder NAME is made.",
)
@click.option("--yes", is_flag=True, help="Do not ask; needed where there is no terminal to ask on.")
def download(name: str, folder: Path, *, yes: bool) -> None:
    """Download the data set NAME from its publisher; `metatl data list` names them.

    Shows the licence and the citation, then asks. A file that is already there is not downloaded again. The
    SHA-256 is checked, or recorded if none is published.

    \b
    Examples:
      metatl data download ml-1m
      metatl data download electronics --to datasets --yes
    """  # noqa: D301 (click reads the character)
    from rich.console import Console

    from metatl.cli.metatl.download_progress import download_progress
    from metatl.datasets.fetching import fetch
    from metatl.exceptions import ConfigError

    data_set = CATALOGUE[name]
    click.echo(_notice(data_set, folder))
    if not yes and not (folder / name / data_set.file_name).exists():
        if not can_ask():
            raise ConfigError("found no terminal to ask on; give --yes to agree to the terms above")
        click.confirm("Download it?", abort=True)
    with download_progress(Console(stderr=True)) as on_progress:
        fetched = fetch(data_set, folder, on_progress=on_progress)
    click.echo(f"SHA-256   {fetched.sha256} ({_provenance(data_set, was_there=fetched.was_there)})")
    click.echo(f"file      {fetched.path}")
    click.echo(f"next      metatl stats {fetched.path}")


def can_ask() -> bool:
    """Whether the command can ask the user a question."""
    return sys.stdin.isatty()


def _notice(data_set: PublicDataSet, folder: Path) -> str:
    parts = {
        "data set": data_set.title,
        "page": data_set.homepage,
        "source": " or ".join(data_set.urls),
        "size": f"at most {_size(data_set.max_bytes)}",
        "to": str(folder / data_set.name),
        "licence": data_set.licence,
        "cite": data_set.citation,
    }
    return "\n".join(
        textwrap.fill(
            text,
            _WIDTH,
            initial_indent=f"{label:<10}",
            subsequent_indent=" " * 10,
            break_long_words=False,
            break_on_hyphens=False,
        )
        for label, text in parts.items()
    )


def _provenance(data_set: PublicDataSet, *, was_there: bool) -> str:
    checked = (
        "as published" if data_set.sha256 is not None else "none is published; recorded in download.json"
    )
    return f"was there already; {checked}" if was_there else checked


def _size(num_bytes: int) -> str:
    mega = 1_000_000
    return f"{num_bytes // (1_000 * mega)} GB" if num_bytes >= 1_000 * mega else f"{num_bytes // mega} MB"
