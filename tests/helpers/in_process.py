"""The workers of a grid without subprocesses, for tests of the code around them."""

from __future__ import annotations

from metatl.experiments.cells import run_cell
from metatl.experiments.workers import Failed, Finished, Started, Stepped


def work(cells, out, *, jobs, threads, device):
    """Replacement for `metatl.experiments.workers.work`."""
    del jobs, threads
    for cell in cells:
        yield Started(cell)
        steps = []
        try:
            # Keeps the number of threads of the test process.
            run_cell(cell, out, threads=1, device=device, on_progress=steps.append)
        except Exception as error:  # noqa: BLE001
            yield Failed(cell, f"{type(error).__name__}: {error}")
        else:
            yield from (Stepped(cell, step.step, step.max_steps) for step in steps)
            yield Finished(cell)
