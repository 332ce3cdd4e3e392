"""Encoders: from histories of equal length to a block that can be ranked, for each kind of model."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from typing import TYPE_CHECKING, Protocol

import numpy as np

from metatl import _metatl
from metatl.exceptions import InvalidArgumentError
from metatl.models.contract import PairwiseModel, ScoringModel
from metatl.ranking.blocks import Block, FactorisedBlock, PairwiseBlock, ScoredBlock, to_array
from metatl.ranking.item_tables import ItemFormat, ItemTable, check_has_item_vectors

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from metatl.common.timings import Timings
    from metatl.models.contract import Encoded, FactorisedModel, Model
    from metatl.ranking.cuda_blocks import Catalogue, CudaBlock

ENCODE_BLOCK_ITEMS = 2**15
"""Items, support negatives included, that are encoded at once on a processor.

So many that the calls of torch cost little; so few that the allocator keeps the memory that they free
(`metatl.common.memory.keep_freed_memory`).
"""

ACCELERATOR_BLOCK_ITEMS = 2**18
"""The same on an accelerator, which takes as long for a few as for many."""

SCORE_BLOCK_BYTES = 64 * 2**20
"""Memory for the scores of one block of users where a model scores the whole catalogue."""

PAIR_BLOCK = 2**18
"""Pairs of a user and an item that are scored at once where a model scores pairs."""


class Encoder(Protocol):
    """What turns histories of one length into a block."""

    @property
    def num_items(self) -> int:
        """I, size of the catalogue."""
        ...

    @property
    def max_rows(self) -> int:
        """The most histories that `encode` takes at once."""
        ...

    def encode(self, histories: np.ndarray) -> Block:
        """Encode, or score, histories (b, L) int64, oldest item first."""
        ...


def make_encoder(
    model: Model, *, seed: int, item_table: ItemFormat | ItemTable, num_threads: int | None, timings: Timings
) -> Encoder:
    """Choose the encoder of a model.

    Parameters
    ----------
    model : FactorisedModel, PairwiseModel or ScoringModel
        A fitted model.
    seed : int
        Seed of the support negatives, for models that use them.
    item_table : {"float32", "bf16", "int8"} or ItemTable
        What the model's item vectors are rounded to, or the table that was made of them once.
    num_threads : int or None
        Threads of the kernels.
    timings : Timings
        Gains the stage ``rank`` as blocks are ranked.

    Raises
    ------
    InvalidArgumentError
        If `item_table` does not fit the model.
    """
    if item_table != "float32":
        check_has_item_vectors(model)
    if isinstance(model, PairwiseModel):
        return PairwiseEncoder(model, seed, num_threads, timings)
    if isinstance(model, ScoringModel):
        return ScoringEncoder(model, num_threads, timings)
    if item_table == "float32" and ranks_on_cuda(model.item_table.device):
        from metatl.ranking.cuda_blocks import Catalogue

        catalogue = Catalogue.of(model.item_table, model.item_bias, model.similarity)
        return CudaEncoder(model, catalogue, seed, num_threads, timings)
    return FactorisedEncoder.of(model, item_table, seed, num_threads, timings)


@dataclass(frozen=True, eq=False)
class ScoringEncoder:
    """Encoder of a model that scores the whole catalogue.

    Attributes
    ----------
    model : ScoringModel
    num_threads : int or None
    timings : Timings
    """

    model: ScoringModel
    num_threads: int | None
    timings: Timings

    @property
    def num_items(self) -> int:
        """I, size of the catalogue."""
        return self.model.num_items

    @property
    def max_rows(self) -> int:
        """As many rows of scores as `SCORE_BLOCK_BYTES` hold."""
        return max(1, SCORE_BLOCK_BYTES // (4 * self.num_items))

    def encode(self, histories: np.ndarray) -> ScoredBlock:
        """Score histories (b, L)."""
        return ScoredBlock(np.ascontiguousarray(self.model.score(histories)), self.num_threads, self.timings)


@dataclass(frozen=True, eq=False)
class PairwiseEncoder:
    """Encoder of a model that scores pairs of a user and an item.

    Attributes
    ----------
    model : PairwiseModel
    seed : int
    num_threads : int or None
    timings : Timings
    """

    model: PairwiseModel
    seed: int
    num_threads: int | None
    timings: Timings

    @property
    def num_items(self) -> int:
        """I, size of the catalogue."""
        return self.model.num_items

    @property
    def max_rows(self) -> int:
        """So many that all pairs of a block are about `PAIR_BLOCK`."""
        return max(1, PAIR_BLOCK // self.num_items)

    def encode(self, histories: np.ndarray) -> PairwiseBlock:
        """Adapt the model to histories (b, L)."""
        model = self.model
        adapted = model.adapt(
            *_to_device(model, model.device, histories, model.num_items, self.seed, self.num_threads)
        )
        return PairwiseBlock(model, adapted, len(histories), self.num_threads, self.timings)


@dataclass(frozen=True, eq=False)
class FactorisedEncoder:
    """Encoder of a factorised model, for the kernels of the processor.

    Attributes
    ----------
    model : FactorisedModel
    item_table : ItemTable
        (I, d), what the kernels rank with.
    item_bias : ndarray or None
        (I,) float32.
    seed : int
    num_threads : int or None
    timings : Timings
    """

    model: FactorisedModel
    item_table: ItemTable
    item_bias: np.ndarray | None
    seed: int
    num_threads: int | None
    timings: Timings

    @classmethod
    def of(
        cls,
        model: FactorisedModel,
        item_table: ItemFormat | ItemTable,
        seed: int,
        num_threads: int | None,
        timings: Timings,
    ) -> FactorisedEncoder:
        """Round the model's item vectors, or check that a table can be theirs."""
        if not isinstance(item_table, ItemTable):
            item_table = ItemTable.of(model, item_table, num_threads=num_threads)
        shape = tuple(model.item_table.shape)
        if item_table.numbers.shape != shape:
            raise InvalidArgumentError(
                f"item_table: found the shape {item_table.numbers.shape}, expected {shape}, that of "
                "the model's item vectors"
            )
        item_bias = None if model.item_bias is None else to_array(model.item_bias)
        return cls(model, item_table, item_bias, seed, num_threads, timings)

    @property
    def num_items(self) -> int:
        """I, size of the catalogue."""
        return len(self.item_table)

    @property
    def max_rows(self) -> int:
        """So many that a block has `ENCODE_BLOCK_ITEMS` items, or `ACCELERATOR_BLOCK_ITEMS`."""
        return _max_rows(self.model)

    def encode(self, histories: np.ndarray) -> FactorisedBlock:
        """Encode histories (b, L)."""
        return self.block(_encode(self.model, histories, self.seed, self.num_threads))

    def block(self, encoded: Encoded) -> FactorisedBlock:
        """Give encoded histories to the kernels of the processor."""
        overrides = None
        if encoded.overrides is not None:
            indptr, items, rows = encoded.overrides.ragged()
            overrides = (to_array(indptr), to_array(items), to_array(rows))
        return FactorisedBlock(
            to_array(encoded.queries),
            self.item_table,
            self.item_bias,
            self.model.similarity,
            overrides,
            self.num_threads,
            self.timings,
        )


@dataclass(frozen=True, eq=False)
class CudaEncoder:
    """Encoder of a factorised model on a CUDA device that ranks by itself.

    Attributes
    ----------
    model : FactorisedModel
    catalogue : Catalogue
        The model's item vectors on the device.
    seed : int
    num_threads : int or None
    timings : Timings
    """

    model: FactorisedModel
    catalogue: Catalogue
    seed: int
    num_threads: int | None
    timings: Timings

    @property
    def num_items(self) -> int:
        """I, size of the catalogue."""
        return self.catalogue.num_items

    @property
    def max_rows(self) -> int:
        """So many that a block has `ACCELERATOR_BLOCK_ITEMS` items."""
        return _max_rows(self.model)

    def encode(self, histories: np.ndarray) -> CudaBlock:
        """Encode histories (b, L); they stay on the device."""
        from metatl.ranking.cuda_blocks import CudaBlock

        encoded = _encode(self.model, histories, self.seed, self.num_threads)
        return CudaBlock(
            encoded.queries,
            self.catalogue,
            encoded.overrides,
            lambda: self._on_processor.block(encoded),
            self.timings,
        )

    @cached_property
    def _on_processor(self) -> FactorisedEncoder:
        return FactorisedEncoder.of(self.model, "float32", self.seed, self.num_threads, self.timings)


def ranks_on_cuda(device: torch.device) -> bool:
    """Whether a model's device ranks by itself: a CUDA device for which Triton can build kernels."""
    if device.type != "cuda" or find_spec("triton") is None:
        return False
    from metatl.ranking.cuda_blocks import can_build_kernels

    return can_build_kernels(device)


def _max_rows(model: FactorisedModel) -> int:
    on_processor = model.item_table.device.type == "cpu"
    block_items = ENCODE_BLOCK_ITEMS if on_processor else ACCELERATOR_BLOCK_ITEMS
    return max(1, block_items // (1 + model.support_negatives))


def _encode(model: FactorisedModel, histories: np.ndarray, seed: int, num_threads: int | None) -> Encoded:
    table = model.item_table
    return model.encode(*_to_device(model, table.device, histories, len(table), seed, num_threads))


def _to_device(
    model: FactorisedModel | PairwiseModel,
    device: torch.device,
    histories: np.ndarray,
    num_items: int,
    seed: int,
    num_threads: int | None,
) -> tuple[Tensor, Tensor | None]:
    """Give histories (b, L) and their support negatives (b, N), or None, as tensors on the model's device."""
    import torch

    negatives = None
    if model.support_negatives > 0:
        negatives = torch.from_numpy(
            _metatl.sample_support_negatives(
                histories, model.support_negatives, num_items, seed=seed, num_threads=num_threads
            )
        ).to(device)
    return torch.from_numpy(histories).to(device), negatives
