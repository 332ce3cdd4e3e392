"""Batches on their way to the device of a model."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np
import torch

from metatl.models.trainable import TensorBatch

if TYPE_CHECKING:
    from metatl.training.batches import Batch

SLOTS = 2
"""Pinned buffers: the next batch is packed into one while the other is still being copied."""


class DeviceBatches:
    """Copies batches of one shape to a CUDA device, each over the one before.

    A batch is packed into pinned memory and travels in one copy that nobody waits for. Its tensors have the
    same addresses every time, as a CUDA graph needs them.

    Parameters
    ----------
    like : Batch
        Gives the shapes.
    device : torch.device
        A CUDA device.
    """

    def __init__(self, like: Batch, device: torch.device) -> None:
        bounds = np.cumsum([0, *(array.size for array in like)])
        places = [slice(start, end) for start, end in itertools.pairwise(bounds.tolist())]
        shapes = [array.shape for array in like]
        pinned = [torch.empty(bounds[-1], dtype=torch.int64, pin_memory=True) for _ in range(SLOTS)]
        on_device = torch.empty_like(pinned[0], device=device, pin_memory=False)
        self._pinned = pinned
        self._parts = [
            [buffer.numpy()[place].reshape(shape) for place, shape in zip(places, shapes, strict=True)]
            for buffer in pinned
        ]
        self._copied = [torch.cuda.Event() for _ in pinned]  # type: ignore[no-untyped-call]
        self._on_device = on_device
        self._copies = 0
        self.tensors = TensorBatch(
            *(on_device[place].view(shape) for place, shape in zip(places, shapes, strict=True))
        )
        """Where the batch is on the device."""

    def copy(self, batch: Batch) -> TensorBatch:
        """Start the copy of a batch; the device's work that is launched from now on sees it in `tensors`."""
        slot = self._copies % SLOTS
        self._copies += 1
        self._copied[slot].synchronize()
        for part, array in zip(self._parts[slot], batch, strict=True):
            np.copyto(part, array)
        self._on_device.copy_(self._pinned[slot], non_blocking=True)
        self._copied[slot].record()
        return self.tensors
