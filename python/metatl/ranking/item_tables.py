"""Item tables for ranking: as models have them, or rounded to fewer bits.

Scores are those of the rounded numbers written out in float32, to the last bit. What rounding does to ranks,
and what it saves, is in docs/item_precision.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from metatl import _metatl
from metatl.exceptions import InvalidArgumentError
from metatl.models.contract import PairwiseModel, ScoringModel

if TYPE_CHECKING:
    import numpy as np

    from metatl.models.contract import FactorisedModel, Model

ItemFormat: TypeAlias = Literal["float32", "bf16", "int8"]
"""How the numbers of an item table are kept."""


@dataclass(frozen=True, eq=False)
class ItemTable:
    """One vector for each of I items.

    Made from a model by `of`, from an array by `float32`, `bf16` or `int8`; rounded arrays are read-only.

    Attributes
    ----------
    format : {"float32", "bf16", "int8"}
        How the numbers are kept.
    numbers : ndarray
        (I, d) float32; uint16, the upper halves of float32, for bf16; int8, whole numbers from -127 to 127.
    scales : ndarray or None
        (I,) float32, what the whole numbers of each row are multiplied with; None for the other formats.
    """

    format: ItemFormat
    numbers: np.ndarray
    scales: np.ndarray | None = None

    @classmethod
    def float32(cls, item_table: np.ndarray) -> ItemTable:
        """Take a table as it is.

        Parameters
        ----------
        item_table : ndarray
            (I, d) float32, C-contiguous; not copied.
        """
        return cls("float32", item_table)

    @classmethod
    def bf16(cls, item_table: np.ndarray, *, num_threads: int | None = None) -> ItemTable:
        """Round a table to bfloat16, to nearest and halves to even: half the memory.

        Parameters
        ----------
        item_table : ndarray
            (I, d) float32, C-contiguous.
        num_threads : int, optional
            Threads of the kernel.

        Raises
        ------
        NotANumberError
            If there are NaN in the table.
        InvalidArgumentError
            If it is no such array, or has numbers that are infinite, or would be once rounded.
        """
        bits = _metatl.round_to_bf16(item_table, num_threads=num_threads)
        bits.flags.writeable = False
        return cls("bf16", bits)

    @classmethod
    def int8(cls, item_table: np.ndarray, *, num_threads: int | None = None) -> ItemTable:
        """Round each row to multiples of its largest number over 127: about a quarter of the memory.

        Parameters
        ----------
        item_table : ndarray
            (I, d) float32, C-contiguous.
        num_threads : int, optional
            Threads of the kernel.

        Raises
        ------
        NotANumberError
            If there are NaN in the table.
        InvalidArgumentError
            If it is no such array, or has numbers that are infinite, or would be once rounded.
        """
        codes, scales = _metatl.round_to_int8(item_table, num_threads=num_threads)
        codes.flags.writeable = False
        scales.flags.writeable = False
        return cls("int8", codes, scales)

    @classmethod
    def of(cls, model: Model, item_format: ItemFormat, *, num_threads: int | None = None) -> ItemTable:
        """Round the item vectors of a model.

        Parameters
        ----------
        model : FactorisedModel
            A model with I items.
        item_format : {"float32", "bf16", "int8"}
            The format.
        num_threads : int, optional
            Threads of the kernel.

        Raises
        ------
        InvalidArgumentError
            If there is no such format, the model has no item vectors, or they cannot be rounded.
        NotANumberError
            If there are NaN in a table that is to be rounded.
        """
        item_table = check_has_item_vectors(model).item_table.detach().cpu().contiguous().numpy()
        if item_format == "float32":
            return cls.float32(item_table)
        if item_format == "bf16":
            return cls.bf16(item_table, num_threads=num_threads)
        if item_format == "int8":
            return cls.int8(item_table, num_threads=num_threads)
        raise InvalidArgumentError(f"item_table: found {item_format!r}, expected float32, bf16 or int8")

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def nbytes(self) -> int:
        """Bytes of its arrays."""
        return self.numbers.nbytes + (0 if self.scales is None else self.scales.nbytes)

    @property
    def arrays(self) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        """The arrays as the ranking kernels take them."""
        return self.numbers if self.scales is None else (self.numbers, self.scales)


def check_has_item_vectors(model: Model) -> FactorisedModel:
    """Check that a model scores by item vectors, which can be rounded.

    Raises
    ------
    InvalidArgumentError
        If it has none.
    """
    if isinstance(model, (PairwiseModel, ScoringModel)):
        raise InvalidArgumentError(
            f"item_table: expected float32, {type(model).__name__} has no item vectors to round"
        )
    return model
