"""The outer optimiser, its learning rate, and sparse gradients of the embedding tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from metatl.models.trainable import TrainableModel
    from metatl.models.training_config import TrainingConfig


def make_optimizer(model: TrainableModel, config: TrainingConfig) -> torch.optim.Optimizer:
    """Build the outer optimiser that a config names, for the device of the model.

    Parameters
    ----------
    model : TrainableModel
        The model, on the device that it trains on.
    config : TrainingConfig
        Its fields `optimizer` and `peak_learning_rate` are read.

    Returns
    -------
    torch.optim.Optimizer
        Adam or SGD.
    """
    parameters, rate = model.parameters(), config.peak_learning_rate
    if model.device.type == "cuda":
        # A CUDA graph reads the learning rate from device memory.
        rate_tensor = torch.tensor(rate, device=model.device)
        if config.optimizer == "sgd":
            return torch.optim.SGD(parameters, lr=rate_tensor, fused=True)
        return torch.optim.Adam(parameters, lr=rate_tensor, fused=True, capturable=True)
    if config.optimizer == "sgd":
        return torch.optim.SGD(parameters, lr=rate)
    return torch.optim.Adam(parameters, lr=rate, fused=True)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of the next step.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
        The optimiser, changed in place.
    rate : float
        The learning rate.
    """
    for group in optimizer.param_groups:
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


def prepare_row_gradients(
    tables: Sequence[nn.Embedding], config: TrainingConfig
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Make the gradients of tables sparse: a step reads only a few thousand rows.

    SGD takes sparse gradients and leaves the other rows unchanged. Adam updates every row, so its sparse
    gradients are added to a dense gradient that is kept from step to step. Autograd would allocate a new
    dense gradient at each step, which costs more than the rows do.

    Parameters
    ----------
    tables : sequence of nn.Embedding
        Tables that are read row by row; their flag `sparse` is set.
    config : TrainingConfig
        Its field `optimizer` is read.

    Returns
    -------
    list of (Tensor, Tensor)
        For Adam, each table's weight and its dense gradient, both (I, d), to be zeroed before every step;
        empty for SGD.
    """
    for table in tables:
        table.sparse = True
    if config.optimizer == "sgd":
        return []
    return [(table.weight, torch.zeros_like(table.weight)) for table in tables]
