"""Copies of batches from host memory to a CUDA device."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np
import torch

from metatl.models.trainable import TensorBatch

if TYPE_CHECKING:
    from metatl.training.batches import Batch

SLOTS = 2
"""Number of pinned buffers: one is filled while the other is still being copied."""


class DeviceBatches:
    """Copies batches of one shape to a CUDA device, each one over the previous one.

    A batch is packed into pinned memory and copied in one asynchronous transfer. Its tensors keep their
    addresses from batch to batch, as CUDA graphs require.

    Parameters
    ----------
    like : Batch
        A batch of the same shapes.
    device : torch.device
        A CUDA device.

    Attributes
    ----------
    tensors : TensorBatch
        int64 tensors on the device that hold the latest batch.
    """

    def __init__(self, like: Batch, device: torch.device) -> None:
        bounds = np.cumsum([0, *(array.size for array in like)])
        slices = [slice(start, end) for start, end in itertools.pairwise(bounds.tolist())]
        shapes = [array.shape for array in like]
        pinned = [torch.empty(bounds[-1], dtype=torch.int64, pin_memory=True) for _ in range(SLOTS)]
        on_device = torch.empty_like(pinned[0], device=device, pin_memory=False)
        self._pinned = pinned
        self._pinned_arrays = [
            [buffer.numpy()[part].reshape(shape) for part, shape in zip(slices, shapes, strict=True)]
            for buffer in pinned
        ]
        self._copied = [torch.cuda.Event() for _ in pinned]  # type: ignore[no-untyped-call]
        self._on_device = on_device
        self._copies = 0
        self.tensors = TensorBatch(
            *(on_device[part].view(shape) for part, shape in zip(slices, shapes, strict=True))
        )

    def copy(self, batch: Batch) -> TensorBatch:
        """Start the copy of a batch to `tensors`.

        Parameters
        ----------
        batch : Batch
            A batch of the shapes of `like`.

        Returns
        -------
        TensorBatch
            `tensors`. Kernels that are launched from now on see the new batch.

        Raises
        ------
        ValueError
            If the shapes differ from those of `like`.
        """
        slot = self._copies % SLOTS
        self._copies += 1
        self._copied[slot].synchronize()
        for pinned_array, array in zip(self._pinned_arrays[slot], batch, strict=True):
            np.copyto(pinned_array, array)
        self._on_device.copy_(self._pinned[slot], non_blocking=True)
        self._copied[slot].record()
        return self.tensors
