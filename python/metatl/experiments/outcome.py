"""The results of a grid: a tidy table of figures, the ranks of the test users, and the failures."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from metatl.exceptions import RunError

TIDY_SCHEMA = {
    "dataset": pl.String,
    "row": pl.String,
    "system": pl.String,
    "preset": pl.String,
    "config": pl.String,
    "k": pl.Int64,
    "seed": pl.Int64,
    "ranking": pl.String,
    "metric": pl.String,
    "value": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "test_users": pl.Int64,
    "fit_seconds": pl.Float64,
    "processor_seconds": pl.Float64,
    "evaluation_seconds": pl.Float64,
    "candidates_sha256": pl.String,
    "dataset_fingerprint": pl.String,
    "metatl_version": pl.String,
}
"""Columns of the tidy results: one row per cell, ranking and metric.

`config` holds the fields that differ from the preset, as JSON. `low` and `high` are the ends of the bootstrap
interval over users. `fit_seconds` and `processor_seconds` are of the fit; `evaluation_seconds` is the time to
encode the histories and to rank.
"""


@dataclass(frozen=True, eq=False)
class Outcome:
    """The results of a grid.

    Attributes
    ----------
    results : polars.DataFrame
        The figures of every finished cell, in the order of the cells; see `TIDY_SCHEMA`.
    ranks : dict of (str, str, int, int) to polars.DataFrame
        (data set, title of the row, K, seed) to the ranks of the test users.
    failures : list of str
        A line for each cell that failed.
    """

    results: pl.DataFrame
    ranks: dict[tuple[str, str, int, int], pl.DataFrame]
    failures: list[str]

    def check(self) -> None:
        """Raise an error if a cell failed.

        Raises
        ------
        RunError
            If a cell failed; it names the cells and the reasons.
        """
        if self.failures:
            raise RunError(
                f"{len(self.failures)} cells failed; the same command tries them again: "
                + "; ".join(self.failures)
            )
