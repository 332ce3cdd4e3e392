"""What every model offers to ranking, evaluation and recommendation.

A *factorised* model turns each history into one query vector and owns one vector per item; the Rust core
ranks from these alone. A *pairwise* model, such as MeLU, scores a user and an item together. A *scoring*
model, such as item-kNN, answers with a row of scores.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, TypeAlias, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor

Similarity: TypeAlias = Literal["dot", "l2", "squared_l2"]
"""score(q, e) = q·e, -‖q - e‖ or -‖q - e‖², plus the item's bias."""

NO_ITEM = -1
"""Fills unused slots in arrays of item ids."""


class EpisodeSettings(NamedTuple):
    """Which tasks a model asks for; see `metatl.training.batches`.

    Attributes
    ----------
    negatives : int
        Negatives for each pair of neighbouring items.
    shared_negatives : int
        Negatives for the whole batch.
    window_share : float
        Share of tasks that are consecutive rows of their user; the others are any rows in time order.
    shuffle_share : float
        Share of tasks in random order.
    released_windows : bool
        Cut windows as the released program does.
    """

    negatives: int
    shared_negatives: int
    window_share: float
    shuffle_share: float
    released_windows: bool = False


class SequenceSettings(NamedTuple):
    """Which training sequences a model asks for; see `metatl.training.batches`.

    Attributes
    ----------
    length : int
        A sequence has up to length + 1 items; -1 fills the slots after its end.
    shortest : int
        Users with fewer rows are left out.
    draw : {"user", "row"}
        Each user is as likely and gives all rows, or a window where there are too many; or each row is as
        likely and ends a sequence.
    negatives : int
        Negatives for each position.
    shared_negatives : int
        Negatives for the whole batch.
    popularity_exponent : float
        Shared negatives are drawn in proportion to this power of their training interactions.
    shuffle_share : float
        Share of sequences in random order.
    """

    length: int
    shortest: int = 2
    draw: Literal["user", "row"] = "user"
    negatives: int = 0
    shared_negatives: int = 0
    popularity_exponent: float = 0.0
    shuffle_share: float = 0.0


class Overrides(NamedTuple):
    """Item vectors that hold for one user alone.

    Where adaptation moves item embeddings (Eq. 4 with θ = learner and embeddings), it moves the few rows of
    the user's support set for that user only. Ranking that user means using these rows instead of the
    table's.

    Attributes
    ----------
    items : Tensor
        (B, m) int64; the ids of a user are distinct, ``NO_ITEM`` fills the rest.
    rows : Tensor
        (B, m, d), the vectors that replace those items' rows of the table; unspecified where there is no
        item.
    """

    items: Tensor
    rows: Tensor

    def ragged(self) -> tuple[Tensor, Tensor, Tensor]:
        """Drop the filling: one row per (user, item) with the boundaries of the users.

        Returns
        -------
        indptr : Tensor
            (B + 1,) int64; user b owns rows ``indptr[b]:indptr[b + 1]``.
        items : Tensor
            (N,) int64.
        rows : Tensor
            (N, d), C-contiguous.
        """
        present = self.items != NO_ITEM
        indptr = self.items.new_zeros(self.items.shape[0] + 1)
        indptr[1:] = present.sum(dim=1).cumsum(dim=0)
        return indptr, self.items[present], self.rows[present]


class Encoded(NamedTuple):
    """A batch of histories, ready to be ranked.

    Attributes
    ----------
    queries : Tensor
        (B, d).
    overrides : Overrides or None
        Item vectors that differ from the table for single users.
    """

    queries: Tensor
    overrides: Overrides | None


@runtime_checkable
class FactorisedModel(Protocol):
    """A model whose score is a similarity of a query and an item vector, plus an item bias."""

    @property
    def similarity(self) -> Similarity:
        """How a query meets an item vector."""
        ...

    @property
    def support_negatives(self) -> int:
        """How many sampled items per user ``encode`` needs as its ``negatives``; 0 for none."""
        ...

    @property
    def item_table(self) -> Tensor:
        """(I, d), one vector per item."""
        ...

    @property
    def item_bias(self) -> Tensor | None:
        """(I,), added to every score; None for no bias."""
        ...

    def encode(self, histories: Tensor, negatives: Tensor | None) -> Encoded:
        """Encode histories of equal length.

        Parameters
        ----------
        histories : Tensor
            (B, L) int64 with L ≥ 1, oldest item first.
        negatives : Tensor or None
            (B, support_negatives) int64, items outside each history; None where the model needs none.
        """
        ...


@runtime_checkable
class PairwiseModel(Protocol):
    """A model that scores pairs of a user and an item."""

    @property
    def num_items(self) -> int:
        """I, size of the catalogue."""
        ...

    @property
    def support_negatives(self) -> int:
        """How many sampled items per user ``adapt`` needs as its ``negatives``; 0 for none."""
        ...

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        ...

    def adapt(self, histories: Tensor, negatives: Tensor | None) -> Any:
        """Get ready for histories of equal length: what ``score_pairs`` needs to know of these users.

        Parameters
        ----------
        histories : Tensor
            (B, L) int64 with L ≥ 1, oldest item first.
        negatives : Tensor or None
            (B, support_negatives) int64, items outside each history; None where the model needs none.
        """
        ...

    def score_pairs(self, adapted: Any, candidates: Tensor) -> Tensor:
        """Score items for each of the users of ``adapted``.

        Parameters
        ----------
        adapted
            What ``adapt`` gave.
        candidates : Tensor
            (B, C) int64.

        Returns
        -------
        Tensor
            (B, C) float32; large is good.
        """
        ...


@runtime_checkable
class ScoringModel(Protocol):
    """A model that scores the whole catalogue itself."""

    @property
    def num_items(self) -> int:
        """I, size of the catalogue."""
        ...

    def score(self, histories: np.ndarray) -> np.ndarray:
        """Score every item for histories of equal length.

        Parameters
        ----------
        histories : ndarray
            (B, L) int64 with L ≥ 1, oldest item first.

        Returns
        -------
        ndarray
            (B, I) float32; large is good.
        """
        ...


Model: TypeAlias = FactorisedModel | PairwiseModel | ScoringModel
