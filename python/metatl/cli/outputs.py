"""What a command writes must be neither what it reads nor what another of its options writes."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


def check_outputs(inputs: Iterable[Path | str | None], outputs: Mapping[str, Path | None]) -> None:
    """Refuse files to write that would replace an input, a file of any run, or one another.

    Parameters
    ----------
    inputs
        Files that the command reads, and run directories, whose files are all meant, and the data that they
        were fitted on. The name of the bundled data is no file.
    outputs
        Options, as they are spelt, and the files that they name.

    Raises
    ------
    ConfigError
        If an output is an input, another output or a file of a run; nothing has been written then.
    """
    from metatl.datasets import BUNDLED
    from metatl.exceptions import ConfigError

    taken: dict[str, str] = {}
    for given in inputs:
        if given is None or given == BUNDLED:
            continue
        for file in _files(Path(given)):
            taken[os.path.realpath(file)] = f"{file}, which the command reads"
    for option, output in outputs.items():
        # A device or a pipe can be written to any number of times.
        if output is None or (output.exists() and not output.is_file()):
            continue
        place = os.path.realpath(output)
        if place in taken:
            raise ConfigError(f"{option}: found {taken[place]}; choose another file")
        if _is_of_a_run(output):
            raise ConfigError(f"{option}: found {output}, a file of a run; choose another file")
        taken[place] = f"{output}, which {option} names too"


def _is_of_a_run(path: Path) -> bool:
    from metatl.runs.run_directory import RUN_FILES

    return path.name in RUN_FILES and path.exists() and (path.parent / "run.json").exists()


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    files = sorted(path.iterdir())
    if path / "run.json" in files:
        from metatl.exceptions import RunError
        from metatl.runs.run_directory import read_record

        # A damaged run is for the command to refuse.
        with suppress(RunError):
            data = read_record(path).data
            files += [] if data is None else [Path(data)]
    return files
