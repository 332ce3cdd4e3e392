"""`metatl export`: write the encoder and the item table of a run for serving elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from metatl.cli.errors import Command

if TYPE_CHECKING:
    from metatl.serving.export import ExportFormat


@click.command(cls=Command, context_settings={"show_default": True})
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--format",
    "export_format",
    type=click.Choice(["onnx", "safetensors"]),
    required=True,
    help="onnx: a graph of the encoder. safetensors: its weights.",
)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Directory to write.")
@click.option("--overwrite", is_flag=True, help="Replace the export in --out, in one step.")
def export(run: Path, export_format: ExportFormat, out: Path, *, overwrite: bool) -> None:
    """Export the encoder and the item table of the run directory RUN.

    `metatl serve`, `metatl recommend` and metatl.Recommender answer from the export. An export to ONNX needs
    onnxruntime and no torch, for every system with item vectors. The graph takes histories of any number and
    length, so that any other program can use it too.

    \b
    Examples:
      metatl export runs/sasrec --format onnx --out exports/sasrec
      metatl serve exports/sasrec
    """  # noqa: D301 (click reads the character)
    from metatl.serving.export import export as export_run

    export_run(run, out, format=export_format, overwrite=overwrite)
    files = sorted(file for file in out.iterdir() if file.suffix in (".onnx", ".safetensors"))
    for file in files:
        click.echo(f"{file}  {file.stat().st_size:,} bytes")
