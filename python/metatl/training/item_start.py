"""Where training starts: item vectors, and the parts of the users who meet the same ones."""

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
    """Training users who meet the same item vectors.

    Attributes
    ----------
    train
        Their rows.
    users
        int64 (U,): the number of each of them among all training users.
    item_offsets
        (I, d) on the model's device, what item vectors lack without them; None for nothing.
    """

    train: Interactions
    users: NDArray[np.int64]
    item_offsets: torch.Tensor | None


def start_items(model: TrainableModel, batches: Batches, split: ColdStartSplit) -> list[TrainingPart]:
    """Start the item vectors and biases as the settings say.

    Returns
    -------
    list of TrainingPart
        Whom batches come from, in turn.
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
