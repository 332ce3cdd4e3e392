"""What a command writes must be neither what it reads nor what another of its options writes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


def check_outputs(inputs: Iterable[Path | str | None], outputs: Mapping[str, Path | None]) -> None:
    """Refuse files to write that would replace an input, or one another.

    Parameters
    ----------
    inputs
        Files that the command reads, and run directories, whose files are all meant. The name of the bundled
        data is no file.
    outputs
        Options, as they are spelt, and the files that they name.

    Raises
    ------
    ConfigError
        If an output is an input or another output; nothing has been written then.
    """
    from metatl.datasets import BUNDLED
    from metatl.exceptions import ConfigError

    taken: dict[str, str] = {}
    for given in inputs:
        if given is None or given == BUNDLED:
            continue
        path = Path(given)
        for file in sorted(path.iterdir()) if path.is_dir() else [path]:
            taken[os.path.realpath(file)] = f"{file}, which the command reads"
    for option, output in outputs.items():
        # A device or a pipe can be written to any number of times.
        if output is None or (output.exists() and not output.is_file()):
            continue
        place = os.path.realpath(output)
        if place in taken:
            raise ConfigError(f"{option}: found {taken[place]}; choose another file")
        taken[place] = f"{output}, which {option} names too"
