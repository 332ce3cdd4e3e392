"""Base class of the models that the outer loop trains by gradients."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from torch import Tensor
    from typing_extensions import Self

    from metatl.data.interactions import Interactions


class TensorBatch(NamedTuple):
    """A batch (:class:`metatl.training.batches.Batch`) on the model's device.

    Attributes
    ----------
    users : Tensor
        (B,) int64, indices of the training users.
    items : Tensor
        (B, P + 1) int64, padded with -1.
    negatives : Tensor
        (B, P, N) int64, negatives of each position.
    shared_negatives : Tensor
        (M,) int64, negatives of the whole batch.
    """

    users: Tensor
    items: Tensor
    negatives: Tensor
    shared_negatives: Tensor


class TrainableModel(nn.Module):
    """Base of the trained models. Each has a table of item vectors, `embedding`.

    Parameters
    ----------
    config : TrainingConfig
        The settings of the system.
    num_items : int
        I, number of items in the catalogue.
    """

    item_tensors: ClassVar[tuple[str, ...]] = ("embedding.weight", "bias")
    """Names of the tensors of a checkpoint that have a row for each item."""
    tensors_of_rows: ClassVar[tuple[str, ...]] = ()
    """Names of those that belong to the training rows: a training on other rows makes them anew."""

    embedding: nn.Embedding

    def __init__(self, config: Any, num_items: int) -> None:
        super().__init__()
        self.config = config
        self.num_items = num_items

    @classmethod
    def for_training(cls, config: Any, train: Interactions) -> Self:
        """Initialise a model for the users and items of the training rows.

        Parameters
        ----------
        config : TrainingConfig
            The settings of the system.
        train : Interactions
            The training rows.
        """
        return cls(config, train.num_items)

    @property
    def row_tables(self) -> tuple[nn.Embedding, ...]:
        """Embedding tables that `training_loss` accesses only by calling the module with row indices."""
        return ()

    @property
    def can_be_captured(self) -> bool:
        """Whether `training_loss` always runs the same kernels and never synchronises with the device.

        If so, training on a CUDA device captures and replays whole steps as graphs
        (`metatl.training.cuda_graphs`).
        """
        return False

    def compile_loss(self) -> None:
        """Compile `training_loss` with torch.compile, at its first call.

        Raises
        ------
        ConfigError
            If a model with these settings cannot be compiled.
        """
        raise NotImplementedError

    def training_loss(self, batch: TensorBatch, item_offsets: Tensor | None = None) -> Tensor:
        """Compute the loss of a batch.

        Parameters
        ----------
        batch : TensorBatch
            The batch.
        item_offsets : Tensor, optional
            (I, d) float32, added to the item vectors for this batch. The offsets remove the influence of the
            batch's users from the initial vectors (`metatl.models.item_start.spectral.cross_fitting`).

        Returns
        -------
        Tensor
            Scalar float32.
        """
        raise NotImplementedError

    def item_vectors(self, item_offsets: Tensor | None) -> Tensor:
        """Return the item vectors (I, d) of a batch, with its offsets."""
        weight: Tensor = self.embedding.weight
        return weight if item_offsets is None else weight + item_offsets

    @torch.no_grad()
    def start_items(self, vectors: Tensor, trend: Tensor) -> float:
        """Initialise the item vectors, and the item biases if the model has them.

        Parameters
        ----------
        vectors : Tensor
            (I, d) float32, the item vectors before scaling.
        trend : Tensor
            (I,) float32, the recent trend of each item, from which the biases start.

        Returns
        -------
        float
            The factor by which the vectors were multiplied.
        """
        scale: float = self.config.start_length / float(vectors.norm(dim=1).mean())
        self.embedding.weight.copy_(vectors * scale)
        bias = getattr(self, "bias", None)
        if bias is not None:
            bias.copy_(self.config.trend_weight * trend)
        return scale

    def start_users(self, train: Interactions) -> None:
        """Initialise what the model has for each training user from trained item vectors.

        Parameters
        ----------
        train : Interactions
            The training rows.
        """

    def before_evaluation(self, histories: Tensor) -> None:
        """Prepare for an evaluation.

        Parameters
        ----------
        histories : Tensor
            (U, L) int64, the first L interactions of the training users.
        """

    def after_evaluation(self) -> None:
        """Update the model after an evaluation during training."""

    @property
    def device(self) -> torch.device:
        """Device of the parameters."""
        return next(self.parameters()).device

    # --- Saving

    def tensors(self) -> dict[str, np.ndarray]:
        """Return copies of the arrays that a checkpoint stores in addition to the settings."""
        return {name: value.detach().cpu().numpy().copy() for name, value in self.state_dict().items()}

    def load_tensors(self, tensors: Mapping[str, np.ndarray]) -> None:
        """Load the arrays that `tensors` returned.

        Parameters
        ----------
        tensors : mapping of str to ndarray
            Arrays by name.

        Raises
        ------
        RuntimeError
            If a name or shape does not match this model.
        """
        self.load_state_dict({name: torch.from_numpy(array) for name, array in tensors.items()})

    @classmethod
    def from_tensors(cls, config: Any, num_items: int, tensors: Mapping[str, np.ndarray]) -> Self:
        """Rebuild a model from its settings and `tensors`.

        Parameters
        ----------
        config : TrainingConfig
            The settings of the system.
        num_items : int
            I, number of items in the catalogue.
        tensors : mapping of str to ndarray
            The return value of `tensors`.

        Raises
        ------
        RuntimeError
            If a name or shape does not match the model.
        """
        model = cls(config, num_items)
        model.load_tensors(tensors)
        return model.eval()
