"""Training that goes on from the weights of a run, on more rows, users and items."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from metatl.models.item_start.spectral import spectral_vectors
from metatl.models.item_start.trends import popularity_trend
from metatl.training.item_start import TrainingPart

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    import polars as pl
    from numpy.typing import NDArray

    from metatl.data.split import ColdStartSplit
    from metatl.models import Batches
    from metatl.models.trainable import TrainableModel


@dataclass(frozen=True, eq=False)
class WarmStart:
    """The weights of a run, and the steps to take from there.

    The steps are the last ones of the run: with their learning rates, and Adam's moments from zero. Item
    vectors are not cross-fitted: this made no difference on three data sets, and takes most of the time.

    Attributes
    ----------
    tensors : mapping of str to ndarray
        The tensors of the run.
    item_ids : polars.Series
        (I',) raw ids of its items; the model that is trained has these and perhaps more.
    fitted_until : int or None
        T of its rows in microseconds since 1970-01-01 UTC, None if unknown.
    first_step, last_step : int
        The steps.
    """

    tensors: Mapping[str, NDArray[Any]]
    item_ids: pl.Series
    fitted_until: int | None
    first_step: int
    last_step: int

    @torch.no_grad()
    def start(self, model: TrainableModel, batches: Batches, split: ColdStartSplit) -> list[TrainingPart]:
        """Initialise a model with the weights of the run.

        Items that the run does not know get the vectors of the co-occurrence graph
        (:mod:`metatl.models.item_start.spectral`), turned and scaled onto those of the run. Where the config
        starts biases from the trend, new biases do as well, and the biases of known items follow its change.

        Parameters
        ----------
        model : TrainableModel
            A newly initialised model, changed in place.
        batches : {"episodes", "sequences"}
            What it trains on.
        split : ColdStartSplit
            Its training users are used.

        Returns
        -------
        list of TrainingPart
            One part.
        """
        del batches
        train = split.train
        known = train.find_items(self.item_ids)
        spectrum = None
        if len(known) < train.num_items:
            spectrum = spectral_vectors(train, self.tensors["embedding.weight"].shape[1])
        tables = {
            name: extend(self.tensors[name], known, spectrum)
            for name in model.item_tensors
            if name in self.tensors and name != "bias"
        }
        follows_trend = model.config.item_start == "spectral" and "bias" in self.tensors
        if follows_trend:
            trend = popularity_trend(train, split.cutoff_timestamp)
            model.start_items(torch.from_numpy(tables["embedding.weight"]), torch.from_numpy(trend))
        for name, target in model.state_dict().items():
            if name in tables:
                target.copy_(torch.from_numpy(tables[name]))
            elif name == "bias" and name in self.tensors:
                bias = self.tensors[name].copy()
                if follows_trend and self.fitted_until is not None:
                    before = popularity_trend(
                        train.select_rows(train.timestamps < self.fitted_until), self.fitted_until
                    )
                    change = model.config.trend_weight * (trend - before)[known]
                    bias += change.reshape(bias.shape)
                target[torch.tensor(known)] = torch.from_numpy(bias).to(target.device)
            elif name not in model.tensors_of_rows:
                target.copy_(torch.from_numpy(self.tensors[name]))
        model.start_users(train)
        return [TrainingPart(train, np.arange(train.num_users), None)]


def extend(
    table: NDArray[np.float32], known: NDArray[np.int64], spectrum: NDArray[np.float32] | None
) -> NDArray[np.float32]:
    """Put the vectors of known items at their new places, and turn and scale further ones onto them.

    Parameters
    ----------
    table : ndarray
        (I', d) float32, the vectors of the known items.
    known : ndarray
        (I',) int64, the index of each among all items.
    spectrum : ndarray or None
        (I, d) float32, other vectors of all items, whose rotation onto the known ones is the best in least
        squares; None if all items are known.

    Returns
    -------
    ndarray
        (I, d) float32.
    """
    if spectrum is None:
        extended = np.empty_like(table)
    else:
        left, _, right = np.linalg.svd(spectrum[known].T @ table)
        length = float(np.linalg.norm(spectrum[known], axis=1).mean())
        scale = float(np.linalg.norm(table, axis=1).mean()) / length if length > 0 else 1.0
        extended = (scale * spectrum @ (left @ right)).astype(table.dtype)
    extended[known] = table
    return extended
