"""Finding items by their words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import polars.selectors as cs

if TYPE_CHECKING:
    from metatl.serving.served_run import ServedRun

_TITLES = ("title", "name", "item_name")
_OFFERED_VALUES = 60


class ItemSearch:
    """The items of a run and their table.

    Parameters
    ----------
    served : ServedRun
        The run.
    items : polars.DataFrame or None
        The item table in the order of the run's items; None for ids alone.
    """

    def __init__(self, served: ServedRun, items: pl.DataFrame | None) -> None:
        table = served.item_ids.alias("item_id").to_frame() if items is None else items
        self.table = table
        texts = [name for name, dtype in table.schema.items() if dtype == pl.String and name != "item_id"]
        named = [name for name in table.columns if name.lower() in _TITLES]
        self.title = next(iter([*named, *texts]), "item_id")
        joined = table.select(
            pl.concat_str([pl.col("item_id").cast(pl.String), *texts], separator=" ", ignore_nulls=True)
        )
        self._words = joined.to_series().str.to_lowercase()
        self._order = served.by_popularity

    def row(self, item: int) -> dict[str, Any]:
        """Return the row of an item, and its title under ``title``."""
        row = self.table.row(item, named=True)
        title = row.get(self.title)
        return {**row, "title": str(row["item_id"] if title is None else title)}

    def columns(self) -> dict[str, list[str]]:
        """Return the columns of few different texts, which filters can offer: name to sorted values."""
        table = self.table.select(cs.string())
        few = [
            name
            for name in table.columns
            if name not in {"item_id", self.title} and 1 < table[name].n_unique() <= _OFFERED_VALUES
        ]
        return {name: table[name].drop_nulls().unique().sort().to_list() for name in few}

    def find(self, query: str, limit: int) -> tuple[list[dict[str, Any]], int]:
        """Find the items that have all words of a query, anywhere in their texts.

        Parameters
        ----------
        query : str
            Words; case does not matter. Without a word, all items match.
        limit : int
            Most rows to return.

        Returns
        -------
        rows : list of dict
            The rows of the most popular matching items.
        total : int
            How many match.
        """
        matches = np.ones(len(self._words), dtype=bool)
        for word in query.lower().split():
            matches &= self._words.str.contains(word, literal=True).to_numpy()
        found = self._order[matches[self._order]]
        return [self.row(int(item)) for item in found[:limit]], len(found)
