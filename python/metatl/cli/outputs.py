"""Check that the outputs of a command are neither its inputs nor each other."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


_OF_OTHER_FORMATS = (".parquet", ".csv", ".tsv", ".jsonl", ".npy", ".npz", ".pkl", ".xlsx")


def check_table_names(outputs: Mapping[str, Path | None]) -> None:
    """Refuse names of tables that end in none of the formats that tables are written in.

    Parameters
    ----------
    outputs : mapping of str to Path or None
        Options, as typed, and their files.

    Raises
    ------
    ConfigError
        For the first such name.
    """
    from metatl.common.files import TABLE_ENDINGS, check_ending

    for option, path in outputs.items():
        if path is not None:
            check_ending(option, path, TABLE_ENDINGS)


def check_text_names(outputs: Mapping[str, Path | None]) -> None:
    """Refuse names of JSON, Markdown or LaTeX files that end as those of another format do.

    Parameters
    ----------
    outputs : mapping of str to Path or None
        Options, as typed, and their files.

    Raises
    ------
    ConfigError
        For the first such name.
    """
    from metatl.exceptions import ConfigError

    for option, path in outputs.items():
        if path is not None and path.suffix.lower() in _OF_OTHER_FORMATS:
            raise ConfigError(
                f"{option}: found {path}, whose ending says another format; choose another name"
            )


def check_outputs(inputs: Iterable[Path | str | None], outputs: Mapping[str, Path | None]) -> None:
    """Refuse output files that would replace an input, a file of a run, or another output.

    Parameters
    ----------
    inputs : iterable of Path or str or None
        Files that the command reads, and run directories: all their files, and the data that the runs were
        fitted on. The name of the bundled data is ignored.
    outputs : mapping of str to Path or None
        Options, as typed, and their files.

    Raises
    ------
    ConfigError
        If an output is an input, another output or a file of a run.
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
        # A device or a pipe can be the output of several options.
        if output is None or (output.exists() and not output.is_file()):
            continue
        path = os.path.realpath(output)
        if path in taken:
            raise ConfigError(f"{option}: found {taken[path]}; choose another file")
        if _is_of_a_run(output):
            raise ConfigError(f"{option}: found {output}, a file of a run; choose another file")
        taken[path] = f"{output}, which {option} names too"


def _is_of_a_run(path: Path) -> bool:
    from metatl.runs.run_files import RUN_FILES

    return path.name in RUN_FILES and path.exists() and (path.parent / "run.json").exists()


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    files = sorted(path.iterdir())
    if path / "run.json" in files:
        from metatl.exceptions import RunError
        from metatl.runs.run_directory import read_record

        # The command itself refuses a damaged run.
        with suppress(RunError):
            data = read_record(path).data
            files += [] if data is None else [Path(data)]
    return files
