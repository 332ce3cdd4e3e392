"""The data sets of an experiment: their names in tables, their files, and T of their splits."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from metatl import datasets
from metatl.exceptions import ConfigError
from metatl.experiments.paper import COLUMNS, TABLE_1

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import date


@dataclass(frozen=True)
class DataSource:
    """A data set under a name.

    Attributes
    ----------
    name : str
        Its name in tables and directories.
    data : str
        `wines`, or the path of a file; empty where only published cells are read.
    """

    name: str
    data: str

    @property
    def column(self) -> str | None:
        """Its name in the paper; None for other data sets."""
        return COLUMNS.get(self.name)

    @property
    def cutoff(self) -> date | None:
        """T of the paper; None for the quantile of the protocol."""
        return None if self.column is None else TABLE_1[self.column].cutoff


def parse_sources(texts: Sequence[str]) -> list[DataSource]:
    """Parse the values of `--data`.

    Parameters
    ----------
    texts : sequence of str
        `wines` for the bundled data, or `NAME=PATH`.

    Raises
    ------
    ConfigError
        If a value has another form, a name cannot name a directory, or a name is given twice.
    """
    sources: dict[str, DataSource] = {}
    for text in texts:
        name, equals, path = text.partition("=")
        if not equals and name != datasets.BUNDLED:
            raise ConfigError(f"data: found {text!r}, expected {datasets.BUNDLED} or NAME=PATH")
        if not re.fullmatch(r"\w[\w.-]*", name):
            raise ConfigError(f"data: found the name {name!r}, expected letters, digits, '-', '_' and '.'")
        if equals and not path:
            raise ConfigError(f"data: found {text!r} without a path, expected NAME=PATH")
        if name in sources:
            raise ConfigError(f"data: found the name {name!r} twice; names tell data sets apart")
        sources[name] = DataSource(name, datasets.source(path or name))
    return list(sources.values())
