"""MetaTL's encoder of new users without torch, for the one-layer learner whose inner step updates tr.

It computes Eq. 1 to 4 for evaluation and serving. `MetaTL.encode` computes the same in torch, for every
setting of the model. The kernel is `metatl_core::transitions`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from metatl import _metatl
from metatl.data.histories import Histories
from metatl.models.contract import ShareOfScore

if TYPE_CHECKING:
    from collections.abc import Mapping

    from typing_extensions import Self

    from metatl.models.contract import Similarity
    from metatl.models.metatl.config import MetaTLConfig

TABULATED_ITEMS = 2**14
"""Largest catalogue whose terms are tabulated: two tables as large as that of the item vectors."""


class LearnerArrays(NamedTuple):
    """The learner of Eq. 1, σ(W [h; t] + b) + c₁ ⊙ h + c₂ ⊙ t, as the kernel takes it.

    Attributes
    ----------
    head_weight, tail_weight : ndarray
        (d, d) float32, the two halves of W.
    bias : ndarray
        (d,) float32, b.
    skip : tuple of ndarray or None
        (d,) float32, c₁ and c₂.
    """

    head_weight: np.ndarray
    tail_weight: np.ndarray
    bias: np.ndarray
    skip: tuple[np.ndarray, np.ndarray] | None


class InnerLoopArrays(NamedTuple):
    """The inner loop of Eq. 4, as the kernel takes it.

    Attributes
    ----------
    steps : int
        Gradient steps.
    rates : ndarray
        (d,) float32, α for each dimension.
    inverse_temperature : float
        Costs are distance · this - bias.
    mean : bool
        Whether the support loss is the mean over the pairs; otherwise the sum.
    margin : float or None
        γ of the margin loss; None for the softmax loss.
    common, own, own_drawn : int
        Negatives of all pairs, further ones of each pair, and how many of these are drawn for a user.
    """

    steps: int
    rates: np.ndarray
    inverse_temperature: float
    mean: bool
    margin: float | None
    common: int
    own: int
    own_drawn: int


@dataclass(frozen=True, eq=False)
class TransitionEncoder:
    """The arrays of a fitted model.

    Attributes
    ----------
    item_table : ndarray
        (I, d) float32, C-contiguous, one vector for each item.
    item_bias : ndarray or None
        (I,) float32, added to the score of each item.
    similarity : {"l2", "squared_l2"}
        Score of a query and an item vector.
    cost_bias : ndarray or None
        (I,) float32, `item_bias` / temperature, subtracted from the cost of each item in the inner loop.
    learner : LearnerArrays
        The learner.
    inner : InnerLoopArrays
        The inner loop.
    mean_transition : ndarray
        (d,) float32, the transition of a user with one interaction.
    terms : tuple of ndarray or None
        Two (I, d) float32 tables: W_h h + b and W_t t of each item. None in large catalogues.
    """

    item_table: np.ndarray
    item_bias: np.ndarray | None
    similarity: Similarity
    cost_bias: np.ndarray | None
    learner: LearnerArrays
    inner: InnerLoopArrays
    mean_transition: np.ndarray
    terms: tuple[np.ndarray, np.ndarray] | None

    @classmethod
    def of(
        cls, config: MetaTLConfig, tensors: Mapping[str, np.ndarray], *, num_threads: int | None = None
    ) -> Self | None:
        """Build the encoder.

        Parameters
        ----------
        config : MetaTLConfig
            The settings of the model.
        tensors : mapping of str to ndarray
            Its parameters and buffers by name, float32.
        num_threads : int, optional
            Threads of the kernel that tabulates.

        Returns
        -------
        TransitionEncoder or None
            None for settings that need `MetaTL.encode`: the learner of three layers, and inner steps that
            update more than tr.

        Raises
        ------
        KeyError
            If a tensor is missing.
        InvalidArgumentError
            If a tensor has another shape than the settings ask for.
        """
        if config.learner != "one_layer" or (config.inner_steps > 0 and config.adapt != "transition"):
            return None
        item_table = np.ascontiguousarray(tensors["embedding.weight"])
        weight, skip = tensors["learner.weight"], tensors.get("learner.skip")
        learner = LearnerArrays(
            np.ascontiguousarray(weight[:, : config.dim]),
            np.ascontiguousarray(weight[:, config.dim :]),
            np.ascontiguousarray(tensors["learner.bias"]),
            None if skip is None else (np.ascontiguousarray(skip[0]), np.ascontiguousarray(skip[1])),
        )
        temperature = np.float32(config.temperature)
        if config.learned_temperature:
            temperature = np.exp(tensors["log_temperature"])
        cost_bias = np.ascontiguousarray(tensors["bias"][:, 0]) if config.item_bias else None
        return cls(
            item_table,
            None if cost_bias is None else cost_bias * temperature,
            config.distance,
            cost_bias,
            learner,
            _inner_loop(config, tensors, float(1 / temperature)),
            np.ascontiguousarray(tensors["mean_transition"]),
            _metatl.tabulate_transitions(item_table, learner, num_threads=num_threads)
            if len(item_table) <= TABULATED_ITEMS
            else None,
        )

    @property
    def inner_steps(self) -> int:
        """Gradient steps that adapt to a history."""
        return self.inner.steps

    def without_inner_steps(self) -> Self:
        """Return the encoder that takes no gradient step: MetaTL−−."""
        return replace(self, inner=self.inner._replace(steps=0))

    def encode(self, histories: Histories, *, seed: int, num_threads: int | None) -> np.ndarray:
        """Adapt to users, and return their queries.

        Parameters
        ----------
        histories : Histories
            B rows of at least one item, oldest first.
        seed : int
            Seed of the support negatives.
        num_threads : int or None
            Threads of the kernel.

        Returns
        -------
        ndarray
            (B, d) float32: the last item + the user transition after the inner steps. A user's query does
            not depend on the other users.

        Raises
        ------
        InvalidArgumentError
            If a row is empty, or an item is outside the catalogue.
        NoNegativeError
            If a row holds every item, and the inner loop needs negatives.
        """
        return _metatl.encode_transitions(
            histories.indptr,
            histories.items,
            self.item_table,
            self.learner,
            self.inner,
            self.mean_transition,
            terms=self.terms,
            item_bias=self.cost_bias,
            similarity=self.similarity,
            seed=seed,
            num_threads=num_threads,
        )

    def explain(self, history: np.ndarray, item: int, *, seed: int) -> ShareOfScore | None:
        """See :meth:`metatl.models.contract.QueryEncoder.explain`.

        The score -‖q - e‖² = 2 q·e - ‖q‖² - ‖e‖² depends on the history through q·e, which is linear in the
        parts of q = i_L + tr. Each part x adds 2 x·(e - ē), where ē is the mean item vector: what it adds
        beyond an average item. With the distance ‖q - e‖ the score is no such sum.
        """
        if self.similarity != "squared_l2":
            return None
        rows = self.item_table[history].astype(np.float64)
        direction = 2 * (self.item_table[item].astype(np.float64) - self.item_table.mean(axis=0))
        if len(history) == 1:
            share = direction @ (rows[0] + self.mean_transition)
            return ShareOfScore(np.array([share]), np.zeros(0), 0.0)
        one = Histories.from_matrix(np.ascontiguousarray(history[None]))
        before = self.without_inner_steps().encode(one, seed=seed, num_threads=1)
        after = self.encode(one, seed=seed, num_threads=1)
        pairs = len(history) - 1
        of_items = np.zeros_like(rows)
        of_items[-1] = rows[-1]
        if self.learner.skip is not None:
            # Eq. 1 with the skip: c₁ ⊙ h + c₂ ⊙ t of each pair belongs to its items.
            of_items[:-1] += self.learner.skip[0] * rows[:-1] / pairs
            of_items[1:] += self.learner.skip[1] * rows[1:] / pairs
        z = (
            rows[:-1] @ self.learner.head_weight.T.astype(np.float64)
            + rows[1:] @ self.learner.tail_weight.T.astype(np.float64)
            + self.learner.bias
        )
        of_transitions = 1 / (1 + np.exp(-z)) / pairs
        adaptation = float(direction @ (after[0].astype(np.float64) - before[0]))
        return ShareOfScore(of_items @ direction, of_transitions @ direction, adaptation)


def _inner_loop(
    config: MetaTLConfig, tensors: Mapping[str, np.ndarray], inverse_temperature: float
) -> InnerLoopArrays:
    rates = np.full(config.dim, config.inner_lr, dtype=np.float32)
    if config.learned_inner_lr:
        rates = np.ascontiguousarray(tensors["inner_rates"])
    return InnerLoopArrays(
        config.inner_steps,
        rates,
        inverse_temperature,
        # A user is encoded alone, so that the mean over the batch is that over the user's pairs.
        config.support_reduction != "sum",
        config.margin if config.loss == "margin" else None,
        config.shared_support_negatives,
        config.negatives,
        config.negatives * (config.k - 1),
    )
