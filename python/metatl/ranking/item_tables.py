"""Item tables for ranking: a model's item vectors, in float32 or rounded to fewer bits.

Scores of a rounded table are equal, bit for bit, to those of the rounded numbers converted back to float32.
docs/item_precision.md shows how rounding changes ranks and how much memory it saves.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

from metatl import _metatl
from metatl.common.arguments import check_choice
from metatl.exceptions import InvalidArgumentError
from metatl.models.contract import PairwiseModel, ScoringModel

if TYPE_CHECKING:
    import numpy as np

    from metatl.models.contract import FactorisedModel, Model

ItemFormat: TypeAlias = Literal["float32", "bf16", "int8"]
"""Number format of an item table."""


@dataclass(frozen=True, eq=False)
class ItemTable:
    """One vector for each of I items.

    `of` makes a table from a model; `float32`, `bf16` and `int8` make one from an array. Rounded arrays are
    read-only.

    Attributes
    ----------
    format : {"float32", "bf16", "int8"}
        The number format.
    numbers : ndarray
        (I, d); float32, or for bf16 uint16 with the upper halves of float32 numbers, or for int8 whole
        numbers from -127 to 127.
    scales : ndarray or None
        (I,) float32, the factor of each row's whole numbers, for int8; None for the other formats.
    panels : PanelTable or None
        A copy of the numbers in the order in which full ranking and lists read them, made by `arranged`.
    """

    format: ItemFormat
    numbers: np.ndarray
    scales: np.ndarray | None = None
    panels: _metatl.PanelTable | None = None

    @classmethod
    def float32(cls, item_table: np.ndarray) -> ItemTable:
        """Make a table without rounding.

        Parameters
        ----------
        item_table : ndarray
            (I, d) float32, C-contiguous; not copied, and checked only when it is ranked with.

        Returns
        -------
        ItemTable
            The table.
        """
        return cls("float32", item_table)

    @classmethod
    def bf16(cls, item_table: np.ndarray, *, num_threads: int | None = None) -> ItemTable:
        """Round a table to bfloat16, to nearest with ties to even: half the memory.

        Parameters
        ----------
        item_table : ndarray
            (I, d) float32, C-contiguous.
        num_threads : int, optional
            Threads of the kernel; by default `METATL_NUM_THREADS`, or one per available core.

        Returns
        -------
        ItemTable
            The rounded table.

        Raises
        ------
        NotANumberError
            If the table contains NaN.
        InvalidArgumentError
            If `item_table` is not such an array, or a number is infinite or would be after rounding.
        """
        bits = _metatl.round_to_bf16(item_table, num_threads=num_threads)
        bits.flags.writeable = False
        return cls("bf16", bits)

    @classmethod
    def int8(cls, item_table: np.ndarray, *, num_threads: int | None = None) -> ItemTable:
        """Round each row to multiples of its largest absolute value / 127: about a quarter of the memory.

        Parameters
        ----------
        item_table : ndarray
            (I, d) float32, C-contiguous.
        num_threads : int, optional
            Threads of the kernel; by default `METATL_NUM_THREADS`, or one per available core.

        Returns
        -------
        ItemTable
            The rounded table.

        Raises
        ------
        NotANumberError
            If the table contains NaN.
        InvalidArgumentError
            If `item_table` is not such an array, or a number is infinite or would be after rounding.
        """
        codes, scales = _metatl.round_to_int8(item_table, num_threads=num_threads)
        codes.flags.writeable = False
        scales.flags.writeable = False
        return cls("int8", codes, scales)

    @classmethod
    def of(cls, model: Model, item_format: ItemFormat, *, num_threads: int | None = None) -> ItemTable:
        """Make a table from the item vectors of a model.

        Parameters
        ----------
        model : FactorisedModel
            A model with I items.
        item_format : {"float32", "bf16", "int8"}
            The number format.
        num_threads : int, optional
            Threads of the kernel; by default `METATL_NUM_THREADS`, or one per available core.

        Returns
        -------
        ItemTable
            (I, d).

        Raises
        ------
        InvalidArgumentError
            If the format is unknown, the model has no item vectors, or they cannot be rounded.
        NotANumberError
            If a table that is rounded contains NaN.
        """
        item_table = check_has_item_vectors(model).item_table.detach().cpu().contiguous().numpy()
        return as_item_table(item_table, item_format, num_threads=num_threads)

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def nbytes(self) -> int:
        """Size of the arrays in bytes."""
        return self.numbers.nbytes + (0 if self.scales is None else self.scales.nbytes)

    def arranged(self, *, num_threads: int | None = None) -> ItemTable:
        """Arrange the table for lists of the whole catalogue: worth a copy if it ranks again and again.

        Parameters
        ----------
        num_threads : int, optional
            Threads of the kernel; by default `METATL_NUM_THREADS`, or one per available core.

        Returns
        -------
        ItemTable
            The same table; scores have the same bits.

        Raises
        ------
        InvalidArgumentError
            If a scale is not finite.
        """
        return replace(self, panels=_metatl.PanelTable(self.arrays, num_threads=num_threads))

    @property
    def catalogue(self) -> np.ndarray | tuple[np.ndarray, np.ndarray] | _metatl.PanelTable:
        """The table in the form that is best for kernels that read all of it."""
        return self.arrays if self.panels is None else self.panels

    @property
    def arrays(self) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        """The arrays in the form that the ranking kernels accept: `numbers`, or `numbers` and `scales`."""
        return self.numbers if self.scales is None else (self.numbers, self.scales)


def as_item_table(
    vectors: np.ndarray, item_table: ItemFormat | ItemTable, *, num_threads: int | None = None
) -> ItemTable:
    """Return the item vectors of a model in a number format.

    Parameters
    ----------
    vectors : ndarray
        (I, d) float32, C-contiguous.
    item_table : {"float32", "bf16", "int8"} or ItemTable
        The number format, or a table that was made from the vectors before.
    num_threads : int, optional
        Threads of the kernel.

    Returns
    -------
    ItemTable
        (I, d).

    Raises
    ------
    InvalidArgumentError
        If the format is unknown, the table has another shape, or the vectors cannot be rounded.
    NotANumberError
        If vectors that are rounded contain NaN.
    """
    if isinstance(item_table, ItemTable):
        if item_table.numbers.shape != vectors.shape:
            raise InvalidArgumentError(
                f"item_table: found the shape {item_table.numbers.shape}, expected {vectors.shape}, that of "
                "the model's item vectors"
            )
        return item_table
    check_choice("item_table", item_table, get_args(ItemFormat))
    if item_table == "float32":
        return ItemTable.float32(vectors)
    round_to = ItemTable.bf16 if item_table == "bf16" else ItemTable.int8
    return round_to(vectors, num_threads=num_threads)


def check_has_item_vectors(model: Model) -> FactorisedModel:
    """Check that a model has item vectors, which can be rounded.

    Parameters
    ----------
    model : FactorisedModel, PairwiseModel or ScoringModel
        A model.

    Returns
    -------
    FactorisedModel
        The same model.

    Raises
    ------
    InvalidArgumentError
        If the model has no item vectors.
    """
    if isinstance(model, (PairwiseModel, ScoringModel)):
        raise InvalidArgumentError(
            f"item_table: expected float32, {type(model).__name__} has no item vectors to round"
        )
    return model
