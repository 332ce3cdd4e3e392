"""Initialisation of the item vectors, and the cross-fitting parts of the training users."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from metatl.models.item_start.spectral import cross_fitting, spectral_vectors
from metatl.models.item_start.trends import popularity_trend

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from metatl.data.interactions import Interactions
    from metatl.data.split import ColdStartSplit
    from metatl.models import Batches
    from metatl.models.trainable import TrainableModel


@dataclass(frozen=True, eq=False)
class TrainingPart:
    """Training users who are trained with the same item vectors.

    Attributes
    ----------
    train : Interactions
        The interactions of these U users.
    users : ndarray
        (U,) int64, their indices among all training users.
    item_offsets : Tensor or None
        (I, d) float32 on the model's device, added to the item vectors: the initial vectors computed without
        these users, minus those computed with all users. None where nothing is added.
    """

    train: Interactions
    users: NDArray[np.int64]
    item_offsets: torch.Tensor | None


def start_items(model: TrainableModel, batches: Batches, split: ColdStartSplit) -> list[TrainingPart]:
    """Initialise the item vectors and biases as the config's `item_start` says.

    Parameters
    ----------
    model : TrainableModel
        The model, changed in place.
    batches : {"episodes", "sequences"}
        What it trains on; decides which users have enough interactions to be trained on.
    split : ColdStartSplit
        Its training users are used.

    Returns
    -------
    list of TrainingPart
        The parts that training alternates between; one part without cross-fitting.
    """
    config, train = model.config, split.train
    folds = []
    if config.item_start == "spectral":
        vectors = spectral_vectors(train, config.dim)
        trend = popularity_trend(train, split.cutoff_timestamp)
        scale = model.start_items(torch.from_numpy(vectors), torch.from_numpy(trend))
        fewest_rows = split.k + 1 if batches == "episodes" else config.sequences.shortest
        folds = cross_fitting(train, vectors, config.cross_fit_folds, fewest_rows=fewest_rows)
    if not folds:
        return [TrainingPart(train, np.arange(train.num_users), None)]
    return [
        TrainingPart(fold.train, fold.users, torch.from_numpy(fold.offsets).to(model.device) * scale)
        for fold in folds
    ]
