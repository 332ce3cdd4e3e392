"""What every model that is trained by gradients offers to the outer loop and to checkpoints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

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
        (B,) int64.
    items : Tensor
        (B, P + 1) int64; -1 where a row has no item.
    negatives : Tensor
        (B, P, N) int64.
    shared_negatives : Tensor
        (M,) int64.
    """

    users: Tensor
    items: Tensor
    negatives: Tensor
    shared_negatives: Tensor


class TrainableModel(nn.Module):
    """Base of the trained models, each of which has a vector per item.

    Parameters
    ----------
    config
        The system's settings.
    num_items : int
        I, size of the catalogue.
    """

    embedding: nn.Embedding

    def __init__(self, config: Any, num_items: int) -> None:
        super().__init__()
        self.config = config
        self.num_items = num_items

    @classmethod
    def for_training(cls, config: Any, train: Interactions) -> Self:
        """Initialise a model for training rows."""
        return cls(config, train.num_items)

    @property
    def row_tables(self) -> tuple[nn.Embedding, ...]:
        """Tables that `training_loss` reads row by row, calling the module, and in no other way."""
        return ()

    @property
    def can_be_captured(self) -> bool:
        """Whether `training_loss` always runs the same kernels and never waits for the device.

        Then a CUDA device replays whole steps as graphs (`metatl.training.cuda_graphs`).
        """
        return False

    def compile_loss(self) -> None:
        """Have torch.compile fuse the kernels of `training_loss`, at its first call.

        Raises
        ------
        ConfigError
            If these settings cannot be compiled.
        """
        raise NotImplementedError

    def training_loss(self, batch: TensorBatch, item_offsets: Tensor | None = None) -> Tensor:
        """Loss of a batch, a scalar.

        Parameters
        ----------
        batch : TensorBatch
        item_offsets : Tensor, optional
            (I, d), added to the item vectors for this batch: what the vectors would be without its users
            (`metatl.models.item_start.spectral.cross_fitting`).
        """
        raise NotImplementedError

    def item_vectors(self, item_offsets: Tensor | None) -> Tensor:
        """Item vectors (I, d) of a batch."""
        weight: Tensor = self.embedding.weight
        return weight if item_offsets is None else weight + item_offsets

    @torch.no_grad()
    def start_items(self, vectors: Tensor, trend: Tensor) -> float:
        """Start the item vectors from given ones, and item biases, where there are any, from the trend.

        Parameters
        ----------
        vectors : Tensor
            (I, d).
        trend : Tensor
            (I,).

        Returns
        -------
        float
            What the vectors were multiplied by.
        """
        scale: float = self.config.start_length / float(vectors.norm(dim=1).mean())
        self.embedding.weight.copy_(vectors * scale)
        bias = getattr(self, "bias", None)
        if bias is not None:
            bias.copy_(self.config.trend_weight * trend)
        return scale

    def before_evaluation(self, histories: Tensor) -> None:
        """Get ready to be evaluated, given (U, L) first interactions of the training users."""

    def after_evaluation(self) -> None:
        """Take note that training has been interrupted by an evaluation."""

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.parameters()).device

    # --- Saving

    def tensors(self) -> dict[str, np.ndarray]:
        """Give a copy of what a checkpoint must hold besides the settings."""
        return {name: value.detach().cpu().numpy().copy() for name, value in self.state_dict().items()}

    def load_tensors(self, tensors: Mapping[str, np.ndarray]) -> None:
        """Put back what `tensors` gave.

        Raises
        ------
        RuntimeError
            If names or shapes are not those of this model.
        """
        self.load_state_dict({name: torch.from_numpy(array) for name, array in tensors.items()})

    @classmethod
    def from_tensors(cls, config: Any, num_items: int, tensors: Mapping[str, np.ndarray]) -> Self:
        """Rebuild a model from its settings and `tensors`.

        Raises
        ------
        RuntimeError
            If names or shapes are not those of such a model.
        """
        model = cls(config, num_items)
        model.load_tensors(tensors)
        return model.eval()
