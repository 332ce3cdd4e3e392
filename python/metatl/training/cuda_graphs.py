"""Training steps replayed as CUDA graphs.

A training step launches a hundred or more kernels of a few microseconds each. Launching them one by one takes
longer than running them. A CUDA graph launches all of them at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

WARM_UP_STEPS = 3
"""Steps that run without a graph first, while libraries and the optimiser allocate their buffers."""


class GraphedStep:
    """A step that runs a few times as usual, is then captured as a CUDA graph, and replayed from then on.

    Two calls with the same key must use tensors of the same shapes, and must read and write them at the same
    addresses. The step must not synchronise with the device. A replay draws the same random numbers as a run
    would have drawn.

    Parameters
    ----------
    step : callable
        Updates the weights and returns the loss, a scalar on the device.
    """

    def __init__(self, step: Callable[..., torch.Tensor]) -> None:
        self._step = step
        self._runs = 0
        self._graphs: dict[Hashable, tuple[torch.cuda.CUDAGraph, torch.Tensor]] = {}

    def __call__(self, key: Hashable, *arguments: object) -> torch.Tensor:
        """Run, capture or replay the step.

        Parameters
        ----------
        key : hashable
            Identifies the kernels of the step and the addresses of its tensors.
        *arguments : object
            Arguments of the step. A replay ignores them and uses those of the capture.

        Returns
        -------
        Tensor
            The loss, a scalar on the device.
        """
        if self._runs < WARM_UP_STEPS:
            self._runs += 1
            return self._warm_up(*arguments)
        if key not in self._graphs:
            self._graphs[key] = self._capture(*arguments)
        graph, loss = self._graphs[key]
        graph.replay()
        return loss.clone()

    def _warm_up(self, *arguments: object) -> torch.Tensor:
        # Runs on a side stream, as the capture does. The buffers that the first backward pass allocates must
        # not belong to the default stream, which cannot be captured.
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            loss = self._step(*arguments)
        torch.cuda.current_stream().wait_stream(stream)
        return loss

    def _capture(self, *arguments: object) -> tuple[torch.cuda.CUDAGraph, torch.Tensor]:
        graph = torch.cuda.CUDAGraph()
        # Graphs never run at the same time, so they can share one memory pool.
        pool = next((graph.pool() for graph, _ in self._graphs.values()), None)
        # "thread_local": other threads may keep using the device during the capture.
        with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
            loss = self._step(*arguments)
        return graph, loss
