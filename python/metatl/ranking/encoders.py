"""Encoders: turn histories into blocks, for each kind of model."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from typing import TYPE_CHECKING, Protocol, TypeAlias

import numpy as np

from metatl import _metatl
from metatl.models.contract import EncodesWithoutTorch, PairwiseModel, ScoringModel
from metatl.ranking.blocks import Block, FactorisedBlock, PairwiseBlock, ScoredBlock, to_array
from metatl.ranking.item_tables import ItemFormat, ItemTable, as_item_table, check_has_item_vectors

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch
    from torch import Tensor

    from metatl.common.timings import Timings
    from metatl.data.histories import Histories
    from metatl.models.contract import Encoded, FactorisedModel, Model, QueryEncoder
    from metatl.ranking.cuda_blocks import Catalogue, CudaBlock

ENCODE_BLOCK_ITEMS = 2**15
"""Items, support negatives included, in one block on a CPU.

Large enough that the overhead of torch's calls is small; small enough that the allocator reuses freed memory
(`metatl.common.memory.keep_freed_memory`).
"""

ACCELERATOR_BLOCK_ITEMS = 2**18
"""The same on an accelerator, which needs large blocks to be busy."""

SCORE_BLOCK_BYTES = 64 * 2**20
"""Bytes of the scores of one block, for models that score the whole catalogue."""

PAIR_BLOCK = 2**18
"""Pairs of a user and an item in one block, for models that score pairs."""


Rows: TypeAlias = np.ndarray | slice
"""Some of the rows of the histories of a call."""

ARRAY_BLOCK_USERS = 2**14
"""Users in one block of an encoder without torch, which takes histories of any lengths at once."""


class Encoder(Protocol):
    """Turns histories into blocks."""

    @property
    def num_items(self) -> int:
        """I, size of the catalogue."""
        ...

    def blocks(self, histories: Histories) -> Iterator[tuple[Rows, Block]]:
        """Encode or score histories, block by block.

        Parameters
        ----------
        histories : Histories
            B rows of at least one item, oldest first.

        Yields
        ------
        rows : ndarray or slice
            (b,) int64, ascending indices of rows, or consecutive rows.
        block : Block
            Ranks items for these users.
        """
        ...


def make_encoder(
    model: Model, *, seed: int, item_table: ItemFormat | ItemTable, num_threads: int | None, timings: Timings
) -> Encoder:
    """Build the encoder for a model.

    Parameters
    ----------
    model : FactorisedModel, PairwiseModel or ScoringModel
        A fitted model.
    seed : int
        Seed of the support negatives, for models that use them.
    item_table : {"float32", "bf16", "int8"} or ItemTable
        Format that the model's item vectors are rounded to, or a table that was made from them before.
    num_threads : int or None
        Threads of the kernels.
    timings : Timings
        Collects the seconds of the stage ``rank`` when blocks are ranked.

    Returns
    -------
    Encoder
        The encoder.

    Raises
    ------
    InvalidArgumentError
        If `item_table` does not fit the model.
    NotANumberError
        If a table that is rounded contains NaN.
    """
    if item_table != "float32":
        check_has_item_vectors(model)
    if isinstance(model, PairwiseModel):
        return PairwiseEncoder(model, seed, num_threads, timings)
    if isinstance(model, ScoringModel):
        return ScoringEncoder(model, num_threads, timings)
    arrays = model.query_encoder(num_threads=num_threads) if isinstance(model, EncodesWithoutTorch) else None
    if arrays is not None:
        return ArrayEncoder.of(arrays, item_table, seed, num_threads, timings)
    if item_table == "float32" and ranks_on_cuda(model.item_table.device):
        from metatl.ranking.cuda_blocks import Catalogue

        catalogue = Catalogue.of(model.item_table, model.item_bias, model.similarity)
        return CudaEncoder(model, catalogue, seed, num_threads, timings)
    return FactorisedEncoder.of(model, item_table, seed, num_threads, timings)


class _MatrixEncoder(Protocol):
    """An encoder that takes histories of one length at a time."""

    @property
    def timings(self) -> Timings: ...

    @property
    def max_rows(self) -> int: ...

    def encode(self, histories: np.ndarray) -> Block: ...


def _equal_lengths(encoder: _MatrixEncoder, histories: Histories) -> Iterator[tuple[Rows, Block]]:
    for rows, matrix in histories.blocks(encoder.max_rows, ENCODE_BLOCK_ITEMS):
        with encoder.timings.stage("encode"):
            block = encoder.encode(matrix)
        yield rows, block


@dataclass(frozen=True, eq=False)
class ArrayEncoder:
    """Encoder of a factorised model without torch.

    Attributes
    ----------
    arrays : QueryEncoder
        The model.
    item_table : ItemTable
        (I, d), the vectors that the kernels rank with.
    seed : int
        Seed of the support negatives.
    num_threads : int or None
        Threads of the kernels.
    timings : Timings
        Collects the seconds of the stages ``encode`` and ``rank``.
    """

    arrays: QueryEncoder
    item_table: ItemTable
    seed: int
    num_threads: int | None
    timings: Timings

    @classmethod
    def of(
        cls,
        arrays: QueryEncoder,
        item_table: ItemFormat | ItemTable,
        seed: int,
        num_threads: int | None,
        timings: Timings,
    ) -> ArrayEncoder:
        """Build the encoder; see :func:`make_encoder` for the parameters and errors."""
        table = as_item_table(arrays.item_table, item_table, num_threads=num_threads)
        return cls(arrays, table, seed, num_threads, timings)

    @property
    def num_items(self) -> int:
        """I, size of the catalogue."""
        return len(self.item_table)

    def blocks(self, histories: Histories) -> Iterator[tuple[Rows, FactorisedBlock]]:
        """See :meth:`Encoder.blocks`."""
        for start in range(0, len(histories), ARRAY_BLOCK_USERS):
            rows = slice(start, min(start + ARRAY_BLOCK_USERS, len(histories)))
            with self.timings.stage("encode"):
                block = self.encode(histories.select(rows))
            yield rows, block

    def encode(self, histories: Histories) -> FactorisedBlock:
        """Encode b histories of any lengths as one block."""
        arrays = self.arrays
        return FactorisedBlock(
            arrays.encode(histories, seed=self.seed, num_threads=self.num_threads),
            self.item_table,
            arrays.item_bias,
            arrays.similarity,
            None,
            self.num_threads,
            self.timings,
        )


@dataclass(frozen=True, eq=False)
class ScoringEncoder:
    """Encoder of a model that scores the whole catalogue; see :func:`make_encoder` for the fields."""

    model: ScoringModel
    num_threads: int | None
    timings: Timings

    @property
    def num_items(self) -> int:
        """I, size of the catalogue."""
        return self.model.num_items

    def blocks(self, histories: Histories) -> Iterator[tuple[Rows, ScoredBlock]]:
        """See :meth:`Encoder.blocks`; the scores of a block take `SCORE_BLOCK_BYTES`, but for one user."""
        size = max(1, SCORE_BLOCK_BYTES // (4 * self.num_items))
        for start in range(0, len(histories), size):
            rows = slice(start, min(start + size, len(histories)))
            with self.timings.stage("encode"):
                scores = self.model.score(histories.select(rows), num_threads=self.num_threads)
                block = ScoredBlock(np.ascontiguousarray(scores), self.num_threads, self.timings)
            yield rows, block


@dataclass(frozen=True, eq=False)
class PairwiseEncoder:
    """Encoder of a model that scores pairs of a user and an item; see :func:`make_encoder` for the fields."""

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
        """Users whose pairs with the whole catalogue are at most `PAIR_BLOCK`, at least 1."""
        return max(1, PAIR_BLOCK // self.num_items)

    def blocks(self, histories: Histories) -> Iterator[tuple[Rows, Block]]:
        """See :meth:`Encoder.blocks`."""
        return _equal_lengths(self, histories)

    def encode(self, histories: np.ndarray) -> PairwiseBlock:
        """Adapt to (b, L) int64 histories of one length; b is at most `max_rows`."""
        model = self.model
        adapted = model.adapt(
            *_model_inputs(model, model.device, histories, model.num_items, self.seed, self.num_threads)
        )
        return PairwiseBlock(model, adapted, len(histories), self.num_threads, self.timings)


@dataclass(frozen=True, eq=False)
class FactorisedEncoder:
    """Encoder of a factorised model, for the kernels on the CPU.

    Attributes
    ----------
    model : FactorisedModel
        The model.
    item_table : ItemTable
        (I, d), the vectors that the kernels rank with.
    item_bias : ndarray or None
        (I,) float32.
    seed : int
        Seed of the support negatives.
    num_threads : int or None
        Threads of the kernels.
    timings : Timings
        Collects the seconds of the stage ``rank``.
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
        """Build the encoder; see :func:`make_encoder` for the parameters and errors."""
        item_table = as_item_table(to_array(model.item_table), item_table, num_threads=num_threads)
        item_bias = None if model.item_bias is None else to_array(model.item_bias)
        return cls(model, item_table, item_bias, seed, num_threads, timings)

    @property
    def num_items(self) -> int:
        """I, size of the catalogue."""
        return len(self.item_table)

    @property
    def max_rows(self) -> int:
        """Histories in a block of `ENCODE_BLOCK_ITEMS` or `ACCELERATOR_BLOCK_ITEMS` if each has one item."""
        return _max_rows(self.model)

    def blocks(self, histories: Histories) -> Iterator[tuple[Rows, Block]]:
        """See :meth:`Encoder.blocks`."""
        return _equal_lengths(self, histories)

    def encode(self, histories: np.ndarray) -> FactorisedBlock:
        """Encode (b, L) int64 histories of one length; b is at most `max_rows`."""
        return self.block(_encode(self.model, histories, self.seed, self.num_threads))

    def block(self, encoded: Encoded) -> FactorisedBlock:
        """Copy b encoded histories to the CPU, for its kernels."""
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
    """Encoder of a factorised model whose CUDA device also ranks.

    Attributes
    ----------
    model : FactorisedModel
        The model.
    catalogue : Catalogue
        The model's item vectors on the device.
    seed : int
        Seed of the support negatives.
    num_threads : int or None
        Threads of the kernels on the CPU.
    timings : Timings
        Collects the seconds of the stage ``rank``.
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
        """Histories in a block of `ACCELERATOR_BLOCK_ITEMS` if each has one item."""
        return _max_rows(self.model)

    def blocks(self, histories: Histories) -> Iterator[tuple[Rows, Block]]:
        """See :meth:`Encoder.blocks`."""
        return _equal_lengths(self, histories)

    def encode(self, histories: np.ndarray) -> CudaBlock:
        """Encode (b, L) int64 histories of one length on the device, where they stay."""
        from metatl.ranking.cuda_blocks import CudaBlock

        encoded = _encode(self.model, histories, self.seed, self.num_threads)
        return CudaBlock(
            encoded.queries,
            self.catalogue,
            encoded.overrides,
            lambda: self._cpu_encoder.block(encoded),
            self.timings,
        )

    @cached_property
    def _cpu_encoder(self) -> FactorisedEncoder:
        return FactorisedEncoder.of(self.model, "float32", self.seed, self.num_threads, self.timings)


def ranks_on_cuda(device: torch.device) -> bool:
    """Whether a device can rank: it is a CUDA device and Triton can build kernels for it."""
    if device.type != "cuda" or find_spec("triton") is None:
        return False
    from metatl.ranking.cuda_blocks import can_build_kernels

    return can_build_kernels(device)


def _max_rows(model: FactorisedModel) -> int:
    on_cpu = model.item_table.device.type == "cpu"
    block_items = ENCODE_BLOCK_ITEMS if on_cpu else ACCELERATOR_BLOCK_ITEMS
    return max(1, block_items // (1 + model.support_negatives))


def _encode(model: FactorisedModel, histories: np.ndarray, seed: int, num_threads: int | None) -> Encoded:
    table = model.item_table
    return model.encode(*_model_inputs(model, table.device, histories, len(table), seed, num_threads))


def _model_inputs(
    model: FactorisedModel | PairwiseModel,
    device: torch.device,
    histories: np.ndarray,
    num_items: int,
    seed: int,
    num_threads: int | None,
) -> tuple[Tensor, Tensor | None]:
    """Histories (b, L) and support negatives (b, N), or None, as int64 tensors on the model's device."""
    import torch

    negatives = None
    if model.support_negatives > 0:
        negatives = torch.from_numpy(
            _metatl.sample_support_negatives(
                histories, model.support_negatives, num_items, seed=seed, num_threads=num_threads
            )
        ).to(device)
    return torch.from_numpy(histories).to(device), negatives
