"""A run that is ready to answer: all that does not depend on the user, made once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from metatl.common.timings import Timings
from metatl.exceptions import InvalidArgumentError
from metatl.models import find_system
from metatl.ranking.encoders import ArrayEncoder, make_encoder
from metatl.ranking.item_tables import ItemTable, as_item_table
from metatl.runs.run_directory import Run, load_run, read_stored_run, tensors_fit
from metatl.serving.approximate_index import build_index
from metatl.serving.item_lookup import ItemLookup
from metatl.serving.onnx_encoder import OnnxEncoder

if TYPE_CHECKING:
    from pathlib import Path

    import polars as pl
    from numpy.typing import NDArray

    from metatl.models.contract import QueryEncoder
    from metatl.ranking.encoders import Encoder
    from metatl.ranking.item_tables import ItemFormat
    from metatl.runs.run_directory import RunRecord, StoredRun
    from metatl.serving.approximate_index import ApproximateIndex

SEED = 0
"""Seed of the support negatives: those of the validation and of the default evaluation."""

LARGE_CATALOGUE = 65_536
"""From so many items on, the default item table is bf16: reading it takes half the time."""


@dataclass(frozen=True, eq=False)
class ServedRun:
    """A run that answers.

    Attributes
    ----------
    path : Path or None
        Its directory; None for a run that is not stored.
    record : RunRecord
        The content of `run.json`.
    item_ids : polars.Series
        (I,) raw item ids.
    item_counts : ndarray
        (I,) int64, training interactions per item.
    encoder : Encoder
        Encodes or scores histories.
    item_format : {"float32", "bf16", "int8"}
        Number format of the item table.
    index : ApproximateIndex or None
        Proposes the items of lists without `allow`, for approximate retrieval.
    """

    path: Path | None
    record: RunRecord
    item_ids: pl.Series
    item_counts: NDArray[np.int64]
    encoder: Encoder
    item_format: ItemFormat
    index: ApproximateIndex | None = None

    @cached_property
    def lookup(self) -> ItemLookup:
        """The raw ids."""
        return ItemLookup(self.item_ids)

    @cached_property
    def by_popularity(self) -> NDArray[np.int64]:
        """(I,) int64, the items from the most popular to the least; ties by lower index."""
        return np.argsort(-self.item_counts, kind="stable")

    @cached_property
    def directions(self) -> NDArray[np.float32]:
        """(I, d) float32, the item vectors scaled to length 1, for similar items; zeros stay zeros."""
        vectors: NDArray[np.float32] = self.encoder.arrays.item_table  # type: ignore[attr-defined]
        lengths = np.sqrt(np.einsum("id,id->i", vectors, vectors))
        scaled: NDArray[np.float32] = vectors / np.where(lengths > 0, lengths, np.float32(1))[:, None]
        return scaled

    @property
    def has_inner_step(self) -> bool:
        """Whether an inner step adapts the model to a history, and can be left out."""
        return isinstance(self.encoder, ArrayEncoder) and self.encoder.arrays.inner_steps > 0

    @cached_property
    def without_inner_step(self) -> ServedRun:
        """The run that answers without the inner step: MetaTL−−.

        Raises
        ------
        InvalidArgumentError
            If there is none to leave out.
        """
        if not isinstance(self.encoder, ArrayEncoder) or not self.has_inner_step:
            raise InvalidArgumentError(
                f"inner_step: found false, expected true: {self.record.model} has no inner step to leave out"
            )
        encoder = replace(self.encoder, arrays=self.encoder.arrays.without_inner_steps())
        return replace(self, encoder=encoder)

    @property
    def num_items(self) -> int:
        """I, size of the catalogue."""
        return len(self.item_ids)


def serve_stored_run(
    path: str | Path,
    item_table: ItemFormat | None,
    num_threads: int | None,
    device: str,
    *,
    approximate: bool = False,
) -> ServedRun:
    """Make a stored run ready, without torch if its system can do without.

    Parameters
    ----------
    path : str or Path
        The directory of the run.
    item_table : {"float32", "bf16", "int8"} or None
        Number format of the item vectors. By default float32, and bf16 from 65,536 items on.
    num_threads : int or None
        Threads of the kernels.
    device : str
        Where a model in torch computes.
    approximate : bool
        Build the index of :mod:`metatl.serving.approximate_index`.

    Returns
    -------
    ServedRun
        The run.

    Raises
    ------
    RunError
        See :func:`metatl.load_run`.
    InvalidArgumentError
        If the format is unknown, the system has no item vectors to round, or the catalogue has no such index.
    ConfigError
        If an extra is not installed.
    """
    stored = read_stored_run(path)
    arrays = _query_encoder(stored, num_threads)
    if arrays is None:
        if approximate:
            raise InvalidArgumentError(
                f"approximate: {stored.record.model} is not served from item vectors without torch; "
                "`metatl export` makes that of systems with item vectors"
            )
        return serve_run(load_run(path, device=device), item_table, num_threads)
    item_format = _format(item_table, stored.record.num_items)
    table = as_item_table(arrays.item_table, item_format, num_threads=num_threads)
    table = table.arranged(num_threads=num_threads)
    encoder = ArrayEncoder.of(arrays, table, SEED, num_threads, Timings())
    index = build_index(encoder, stored.item_counts) if approximate else None
    return ServedRun(
        stored.path, stored.record, stored.item_ids, stored.item_counts, encoder, item_format, index
    )


def _query_encoder(stored: StoredRun, num_threads: int | None) -> QueryEncoder | None:
    """Return the encoder without torch; None if the system needs torch, or scores without item vectors."""
    if stored.graph is not None:
        return OnnxEncoder.of(stored, num_threads)
    encoder_class = find_system(stored.record.model, stored.record.preset).query_encoder_class()
    if encoder_class is None:
        return None
    with tensors_fit(stored.path):
        encoder: QueryEncoder | None = encoder_class.of(
            stored.config, stored.tensors, num_threads=num_threads
        )
    return encoder


def serve_run(run: Run, item_table: ItemFormat | ItemTable | None, num_threads: int | None) -> ServedRun:
    """Make a run in memory ready; see :func:`serve_stored_run`."""
    if item_table is None:
        has_vectors = hasattr(run.model, "item_table")
        item_table = _format(None, len(run.item_ids)) if has_vectors else "float32"
    encoder = make_encoder(
        run.model, seed=SEED, item_table=item_table, num_threads=num_threads, timings=Timings()
    )
    item_format = item_table.format if isinstance(item_table, ItemTable) else item_table
    return ServedRun(run.path, run.record, run.item_ids, run.item_counts, encoder, item_format)


def _format(item_table: ItemFormat | None, num_items: int) -> ItemFormat:
    if item_table is not None:
        return item_table
    return "bf16" if num_items >= LARGE_CATALOGUE else "float32"
