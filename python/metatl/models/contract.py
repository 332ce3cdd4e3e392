"""The model interfaces that ranking, evaluation and recommendation use.

A *factorised* model encodes each history as one query vector and has one vector per item; the Rust core
ranks from these vectors. A *pairwise* model, such as MeLU, scores pairs of a user and an item. A *scoring*
model, such as item-kNN, returns a score for every item.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, TypeAlias, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor

    from metatl.data.histories import Histories

Similarity: TypeAlias = Literal["dot", "l2", "squared_l2"]
"""score(q, e) = q·e, -‖q - e‖ or -‖q - e‖², in each case plus the item's bias."""

NO_ITEM = -1
"""Padding in arrays of item ids."""


class EpisodeSettings(NamedTuple):
    """How training tasks are sampled; see `metatl.training.batches`.

    Attributes
    ----------
    negatives : int
        Negatives for each pair of neighbouring items.
    shared_negatives : int
        Negatives for the whole batch.
    window_share : float
        Share of tasks that are consecutive rows of their user; the others are random rows in time order.
    shuffle_share : float
        Share of tasks in random order.
    released_windows : bool
        Cut windows as the MetaTL authors' released program does.
    """

    negatives: int
    shared_negatives: int
    window_share: float
    shuffle_share: float
    released_windows: bool = False


class SequenceSettings(NamedTuple):
    """How training sequences are sampled; see `metatl.training.batches`.

    Attributes
    ----------
    length : int
        Longest sequence, minus one: a sequence has up to length + 1 items, padded at the end with -1.
    shortest : int
        Users with fewer rows are not sampled.
    draw : {"user", "row"}
        ``user`` draws users uniformly; a sequence holds all rows of the user, or a random window if there
        are too many. ``row`` draws rows uniformly; a sequence ends at the row.
    negatives : int
        Negatives for each position.
    shared_negatives : int
        Negatives for the whole batch.
    popularity_exponent : float
        Shared negatives are drawn in proportion to their training interactions, raised to this power.
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
    """Item vectors that apply to one user only.

    When adaptation includes the item embeddings (Eq. 4 with θ = learner and embeddings), it changes the
    vectors of the items in the user's support set, for that user only. Ranking for that user uses these
    vectors instead of the rows of the item table.

    Attributes
    ----------
    items : Tensor
        (B, m) int64, distinct item ids per user, padded with ``NO_ITEM``.
    rows : Tensor
        (B, m, d) float, the vectors that replace the table's rows of these items; undefined for padding.
    """

    items: Tensor
    rows: Tensor

    def ragged(self) -> tuple[Tensor, Tensor, Tensor]:
        """Remove the padding: one row per (user, item), in compressed row format.

        Returns
        -------
        indptr : Tensor
            (B + 1,) int64; the rows of user b are ``indptr[b]:indptr[b + 1]``.
        items : Tensor
            (N,) int64.
        rows : Tensor
            (N, d) float, C-contiguous.
        """
        present = self.items != NO_ITEM
        indptr = self.items.new_zeros(self.items.shape[0] + 1)
        indptr[1:] = present.sum(dim=1).cumsum(dim=0)
        return indptr, self.items[present], self.rows[present]


class Encoded(NamedTuple):
    """An encoded batch of histories, the input of ranking.

    Attributes
    ----------
    queries : Tensor
        (B, d) float.
    overrides : Overrides or None
        Item vectors that differ from the item table for single users.
    """

    queries: Tensor
    overrides: Overrides | None


class ShareOfScore(NamedTuple):
    """What the parts of a history add to the score of an item.

    Attributes
    ----------
    items : ndarray
        (L,) float64, of each item of the history.
    transitions : ndarray
        (L - 1,) float64, of each transition; empty for a system without transitions.
    adaptation : float
        Of the inner step.
    """

    items: np.ndarray
    transitions: np.ndarray
    adaptation: float


class QueryEncoder(Protocol):
    """A fitted factorised model as arrays: it encodes without torch."""

    @property
    def item_table(self) -> np.ndarray:
        """(I, d) float32, C-contiguous, one vector per item."""
        ...

    @property
    def item_bias(self) -> np.ndarray | None:
        """(I,) float32, added to the score of each item; None for no bias."""
        ...

    @property
    def similarity(self) -> Similarity:
        """Similarity of a query and an item vector."""
        ...

    @property
    def inner_steps(self) -> int:
        """Gradient steps that adapt to a history."""
        ...

    def without_inner_steps(self) -> QueryEncoder:
        """Return the encoder that takes no gradient step."""
        ...

    def encode(self, histories: Histories, *, seed: int, num_threads: int | None) -> np.ndarray:
        """Encode histories of any lengths.

        Parameters
        ----------
        histories : Histories
            B rows of at least one item, oldest first.
        seed : int
            Seed of the support negatives, for models that use them.
        num_threads : int or None
            Threads of the kernels.

        Returns
        -------
        ndarray
            (B, d) float32, the queries.
        """
        ...

    def explain(self, history: np.ndarray, item: int, *, seed: int) -> ShareOfScore | None:
        """Divide what a history adds to the score of an item, beside an average item.

        Parameters
        ----------
        history : ndarray
            (L,) int64 with L ≥ 1, oldest item first.
        item : int
            The item.
        seed : int
            As for `encode`.

        Returns
        -------
        ShareOfScore or None
            None if the score is no sum of such parts.
        """
        ...


@runtime_checkable
class EncodesWithoutTorch(Protocol):
    """A model in torch that may have the same encoder as arrays."""

    def query_encoder(self, *, num_threads: int | None = None) -> QueryEncoder | None:
        """Return the encoder with the model's present weights; None if these settings need torch."""
        ...


@runtime_checkable
class EncodesAnyLength(Protocol):
    """A factorised model whose `encode` reads the length of the histories in Python, and what does not."""

    def encode_any_length(self, histories: Tensor, negatives: Tensor | None) -> Tensor:
        """Return the queries (B, d) of `encode` by the same operations at every length, for an export.

        Raises
        ------
        ConfigError
            If these settings change item vectors for single users.
        """
        ...


@runtime_checkable
class FactorisedModel(Protocol):
    """A model whose score is a similarity of a query and an item vector, plus an item bias."""

    @property
    def similarity(self) -> Similarity:
        """Similarity of a query and an item vector."""
        ...

    @property
    def support_negatives(self) -> int:
        """Number of sampled negatives per user that ``encode`` needs; 0 for none."""
        ...

    @property
    def item_table(self) -> Tensor:
        """(I, d) float32, one vector per item."""
        ...

    @property
    def item_bias(self) -> Tensor | None:
        """(I,) float32, added to the score of each item; None for no bias."""
        ...

    def encode(self, histories: Tensor, negatives: Tensor | None) -> Encoded:
        """Encode histories of equal length.

        Parameters
        ----------
        histories : Tensor
            (B, L) int64 with L ≥ 1, oldest item first.
        negatives : Tensor or None
            (B, support_negatives) int64, items outside each history; None if the model needs none.

        Returns
        -------
        Encoded
            The queries, and item vectors that differ for single users.
        """
        ...


@runtime_checkable
class PairwiseModel(Protocol):
    """A model that scores pairs of a user and an item."""

    @property
    def num_items(self) -> int:
        """I, number of items in the catalogue."""
        ...

    @property
    def support_negatives(self) -> int:
        """Number of sampled negatives per user that ``adapt`` needs; 0 for none."""
        ...

    @property
    def device(self) -> torch.device:
        """Device of the parameters."""
        ...

    def adapt(self, histories: Tensor, negatives: Tensor | None) -> Any:
        """Adapt to users, given histories of equal length.

        Parameters
        ----------
        histories : Tensor
            (B, L) int64 with L ≥ 1, oldest item first.
        negatives : Tensor or None
            (B, support_negatives) int64, items outside each history; None if the model needs none.

        Returns
        -------
        object
            The adapted users, as ``score_pairs`` takes them.
        """
        ...

    def score_pairs(self, adapted: Any, candidates: Tensor) -> Tensor:
        """Score candidate items for each adapted user.

        Parameters
        ----------
        adapted : object
            The return value of ``adapt``.
        candidates : Tensor
            (B, C) int64.

        Returns
        -------
        Tensor
            (B, C) float32; higher is better.
        """
        ...


@runtime_checkable
class ScoringModel(Protocol):
    """A model that scores the whole catalogue."""

    @property
    def num_items(self) -> int:
        """I, number of items in the catalogue."""
        ...

    def score(self, histories: Histories, *, num_threads: int | None = None) -> np.ndarray:
        """Score every item for histories of any lengths.

        Parameters
        ----------
        histories : Histories
            B rows of at least one item, oldest first.
        num_threads : int, optional
            Threads of the kernels.

        Returns
        -------
        ndarray
            (B, I) float32; higher is better.
        """
        ...


Model: TypeAlias = FactorisedModel | PairwiseModel | ScoringModel
