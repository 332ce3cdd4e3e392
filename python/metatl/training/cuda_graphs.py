"""Steps of training that a CUDA device replays as graphs.

A training step is a hundred or more kernels of a few microseconds each, and launching them one by one takes
longer than running them. A graph of them is launched at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

WARM_UP = 3
"""Steps that run one kernel at a time first: libraries and the optimiser allocate what they keep."""


class GraphedStep:
    """A step that is captured when it has warmed up, and replayed from then on.

    Its tensors must have the same shapes, and those that it reads and writes the same addresses, at each
    call with the same key; nothing in it may wait for the device. Replaying draws the random numbers that
    running would have drawn.

    Parameters
    ----------
    step : callable
        Moves the weights and returns the loss, a scalar on the device.
    """

    def __init__(self, step: Callable[..., torch.Tensor]) -> None:
        self._step = step
        self._runs = 0
        self._graphs: dict[Hashable, tuple[torch.cuda.CUDAGraph, torch.Tensor]] = {}

    def __call__(self, key: Hashable, *arguments: object) -> torch.Tensor:
        """Take the step.

        Parameters
        ----------
        key
            What decides which kernels run, and on which tensors, beside the values in them.
        *arguments
            Passed to the step where it runs; a replayed graph has those of its capture.
        """
        if self._runs < WARM_UP:
            self._runs += 1
            return self._warm_up(*arguments)
        if key not in self._graphs:
            self._graphs[key] = self._capture(*arguments)
        graph, loss = self._graphs[key]
        graph.replay()
        return loss.clone()

    def _warm_up(self, *arguments: object) -> torch.Tensor:
        # On a stream beside the default one, as the capture: what the first backward pass keeps must not
        # belong to the default stream, which cannot be captured.
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            loss = self._step(*arguments)
        torch.cuda.current_stream().wait_stream(stream)
        return loss

    def _capture(self, *arguments: object) -> tuple[torch.cuda.CUDAGraph, torch.Tensor]:
        graph = torch.cuda.CUDAGraph()
        # Graphs run one after the other, so that they can share their memory.
        pool = next((graph.pool() for graph, _ in self._graphs.values()), None)
        # Of this thread alone: others may go on using the device.
        with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
            loss = self._step(*arguments)
        return graph, loss
