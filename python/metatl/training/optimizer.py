"""The outer optimiser, and gradients that come as the rows that a step reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from metatl.models.trainable import TrainableModel
    from metatl.models.training_config import TrainingConfig


def make_optimizer(model: TrainableModel, config: TrainingConfig) -> torch.optim.Optimizer:
    """Build the outer optimiser that a config names, for the device that the model is on."""
    parameters, rate = model.parameters(), config.peak_learning_rate
    if model.device.type == "cuda":
        # A CUDA graph reads the rate from the device.
        rate_there = torch.tensor(rate, device=model.device)
        if config.optimizer == "sgd":
            return torch.optim.SGD(parameters, lr=rate_there, fused=True)
        return torch.optim.Adam(parameters, lr=rate_there, fused=True, capturable=True)
    if config.optimizer == "sgd":
        return torch.optim.SGD(parameters, lr=rate)
    return torch.optim.Adam(parameters, lr=rate, fused=True)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the rate of the next step."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


def prepare_row_gradients(
    tables: Sequence[nn.Embedding], config: TrainingConfig
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Have the gradients of tables come as the few thousand rows that a step reads.

    SGD takes them as they are: a row without a gradient stays. Adam moves every row, so theirs are added to
    a dense gradient that stays from step to step: one that autograd makes anew, page by page, costs more
    than the rows do.

    Returns
    -------
    list of (Tensor, Tensor)
        Tables and their dense gradients, to be cleared before every step.
    """
    for table in tables:
        table.sparse = True
    if config.optimizer == "sgd":
        return []
    return [(table.weight, torch.zeros_like(table.weight)) for table in tables]
