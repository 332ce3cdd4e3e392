"""The outer loop: batches in, weights out; for MetaTL, Eq. 5 and 6 of Wang et al. 2021.

Each step draws a batch of tasks or sequences and moves the weights against the model's loss. MetaTL lets
its weights adapt to the supports of a meta-batch and takes the loss of the adapted weights on the queries.
Every `eval_every` steps the model ranks fixed candidates of the validation users; the best weights by MRR
are kept.

A checkpoint holds what a step changes; the batch of a step is a function of (seed, step) alone, and the
item vectors of cross-fitting are computed again from the training rows. So a resumed training ends in the
weights of an uninterrupted one, to the byte on a CPU.
"""

from __future__ import annotations

import math
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
from lightning_fabric import Fabric
from lightning_fabric.loggers.tensorboard import TensorBoardLogger

from metatl.common.memory import keep_freed_memory
from metatl.exceptions import RunError
from metatl.models.trainable import TensorBatch
from metatl.ranking.rank import candidate_metrics
from metatl.runs.checkpoints import CheckpointFiles, TrainingState, restore, training_tensors
from metatl.training.batches import alternate, make_sampler, part_seeds
from metatl.training.cuda_graphs import GraphedStep
from metatl.training.device_batches import DeviceBatches
from metatl.training.item_start import start_items
from metatl.training.optimizer import make_optimizer, prepare_row_gradients, set_learning_rate
from metatl.training.stop_signals import StopSignals, TrainingStopped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from lightning_fabric.loggers.logger import Logger

    from metatl.data.candidates import CandidateSets
    from metatl.data.split import ColdStartSplit
    from metatl.models import Batches
    from metatl.models.contract import Model
    from metatl.models.trainable import TrainableModel
    from metatl.models.training_config import TrainingConfig
    from metatl.training.batches import Batch


@dataclass(frozen=True)
class Progress:
    """What a training tells whoever watches it, after every step."""

    step: int
    max_steps: int
    loss: torch.Tensor
    """The step's loss, still on the device: reading it waits for the step to end."""
    validation_mrr: float | None


def train(
    model: TrainableModel,
    batches: Batches,
    split: ColdStartSplit,
    candidates: CandidateSets,
    *,
    config: TrainingConfig,
    seed: int,
    device: str,
    compiled: bool = False,
    directory: Path | None = None,
    resume: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
) -> TrainingState:
    """Train a model in place and leave it with its best weights.

    Parameters
    ----------
    model
        A freshly initialised model.
    batches
        What it is trained on: `episodes` or `sequences`.
    split
        Its training users are trained on.
    candidates
        Candidate sets of the validation users; MRR on them chooses the weights and stops early.
    config
        The model's config.
    seed
        Seed of tasks or sequences, and of dropout.
    device
        `cpu` or `cuda`.
    compiled
        Whether torch.compile fuses the kernels of a step.
    directory
        Run directory for checkpoints and TensorBoard scalars; None keeps everything in memory.
    resume
        Continue from the directory's last checkpoint, if it has one.
    on_progress
        Called after every step.

    Raises
    ------
    TrainingStopped
        After Ctrl-C or SIGTERM, once a checkpoint is saved.
    RunError
        If the last checkpoint is damaged, or the loss is no longer finite.
    """
    files = None if directory is None else CheckpointFiles(directory)
    checkpoint = files.load_last() if files is not None and resume else None
    state = TrainingState() if checkpoint is None else TrainingState(**checkpoint.record)
    loggers: list[Logger] = [] if directory is None else [_tensorboard(directory, state.step)]
    fabric = Fabric(accelerator=device, devices=1, loggers=loggers)
    if compiled:
        model.compile_loss()
    loop = OuterLoop(model.to(fabric.device), split, candidates, config, fabric, files, state)
    # The caller's random generators are left as they were.
    cuda = [fabric.device] if device == "cuda" else []
    with torch.random.fork_rng(devices=cuda), StopSignals() as stop, finalising(loggers):
        torch.manual_seed(seed)
        parts = start_items(model, batches, split)
        if checkpoint is not None:
            restore(checkpoint.tensors, model, loop.optimizer)
        model.train()
        samplers = [
            make_sampler(
                batches, part.train, config, k=split.k, seed=part_seed, item_counts=split.train.item_counts
            )
            for part, part_seed in zip(parts, part_seeds(seed, len(parts)), strict=True)
        ]
        with alternate(samplers, state.step, config.batch_size) as drawn:
            while not loop.is_finished():
                part = parts[state.step % len(parts)]
                batch = next(drawn)
                loss = loop.step(batch._replace(users=part.users[batch.users]), part.item_offsets)
                if on_progress is not None:
                    mrr = state.history[-1]["MRR"] if state.history else None
                    on_progress(Progress(state.step, config.max_steps, loss, mrr))
                if stop.received is not None:
                    loop.save()
                    raise TrainingStopped(stop.received, state.step)
    model.load_tensors(loop.best)
    model.eval()
    return state


def _tensorboard(directory: Path, step: int) -> TensorBoardLogger:
    """Open the TensorBoard scalars, hiding what an interrupted run logged after `step`."""
    return TensorBoardLogger(directory, name="tensorboard", version="", purge_step=step + 1)


@contextmanager
def finalising(loggers: Sequence[Logger]) -> Iterator[None]:
    """Write out what is logged, and end the threads that write it, however the block ends."""
    try:
        yield
    finally:
        for logger in loggers:
            logger.finalize("")


class OuterLoop:
    """The parts of a training that every step needs."""

    def __init__(
        self,
        model: TrainableModel,
        split: ColdStartSplit,
        candidates: CandidateSets,
        config: TrainingConfig,
        fabric: Fabric,
        files: CheckpointFiles | None,
        state: TrainingState,
    ) -> None:
        self.model = model
        self.split = split
        self.candidates = candidates
        self.config = config
        self.fabric = fabric
        self.files = files
        self.state = state
        self.optimizer = make_optimizer(model, config)
        self.best = files.load_best() if files is not None and state.best_step > 0 else model.tensors()
        self.module, self.fabric_optimizer = fabric.setup(model, self.optimizer)
        self.module.mark_forward_method("training_loss")
        on_cuda = fabric.device.type == "cuda"
        # CUDA sums the gradients of rows into dense ones faster than it could sort them out.
        self.row_gradients = [] if on_cuda else prepare_row_gradients(model.row_tables, config)
        self.device_batches: dict[tuple[tuple[int, ...], ...], DeviceBatches] = {}
        self.graphed_move = GraphedStep(self.move) if on_cuda and model.can_be_captured else None
        keep_freed_memory()
        self.loss_sum = torch.tensor(state.loss_sum, dtype=torch.float64, device=fabric.device)

    def is_finished(self) -> bool:
        """Whether all steps are done, or the validation MRR has stopped rising."""
        state = self.state
        evaluations_since_best = sum(entry["step"] > state.best_step for entry in state.history)
        return state.step >= self.config.max_steps or evaluations_since_best >= self.config.patience

    def step(self, batch: Batch, item_offsets: torch.Tensor | None = None) -> torch.Tensor:
        """Move the weights once; evaluate and save where it is time. Returns the loss, on the device.

        The offsets (I, d) belong to the part that the batch's users are in.
        """
        config, state = self.config, self.state
        set_learning_rate(self.optimizer, config.learning_rate(state.step))
        tensors = self.to_device(batch)
        if self.graphed_move is None:
            loss = self.move(tensors, item_offsets)
        else:
            addresses = tensors.items.data_ptr(), None if item_offsets is None else item_offsets.data_ptr()
            loss = self.graphed_move((self.model.training, *addresses), tensors, item_offsets)
        state.step += 1
        if state.step % config.eval_every == 0 or state.step == config.max_steps:
            self.evaluate()
            self.save()
        return loss

    def to_device(self, batch: Batch) -> TensorBatch:
        """Give the batch where the model is; on CUDA the next one of its shape takes its place."""
        if self.fabric.device.type == "cpu":
            return TensorBatch(*map(torch.from_numpy, batch))
        shapes = tuple(array.shape for array in batch)
        if shapes not in self.device_batches:
            self.device_batches[shapes] = DeviceBatches(batch, self.fabric.device)
        return self.device_batches[shapes].copy(batch)

    def move(self, batch: TensorBatch, item_offsets: torch.Tensor | None) -> torch.Tensor:
        """Take one step of the outer optimiser on a batch (for MetaTL, Eq. 6), and return the loss."""
        loss: torch.Tensor = self.module.training_loss(batch, item_offsets)
        self.optimizer.zero_grad(set_to_none=True)
        for table, gradient in self.row_gradients:
            table.grad = gradient.zero_()
        self.fabric.backward(loss)
        self.fabric_optimizer.step()
        loss = loss.detach()
        self.loss_sum += loss
        return loss

    def evaluate(self) -> None:
        """Append the validation metrics to the history, and keep the weights if their MRR is the best."""
        state, model = self.state, self.model
        steps = state.step - (int(state.history[-1]["step"]) if state.history else 0)
        loss = self.loss_sum.item() / steps
        self.loss_sum.zero_()
        if not math.isfinite(loss):
            raise RunError(f"the training loss is {loss} before step {state.step}; lower the learning rate")
        model.before_evaluation(torch.from_numpy(self.split.train_histories()).to(self.fabric.device))
        metrics = candidate_metrics(cast("Model", model), self.split, self.candidates)
        model.after_evaluation()
        model.train()
        rate = self.config.learning_rate(state.step - 1)
        state.history.append({"step": state.step, "learning_rate": rate, "loss": loss, **metrics})
        self.fabric.log_dict(state.history[-1], step=state.step)
        if metrics["MRR"] > state.best_mrr:
            state.best_mrr, state.best_step = metrics["MRR"], state.step
            self.best = model.tensors()
            if self.files is not None:
                self.files.save_best(self.best, state)

    def save(self) -> None:
        """Write the state that a resumed training continues from."""
        self.state.loss_sum = self.loss_sum.item()
        if self.files is not None:
            self.files.save_last(training_tensors(self.model, self.optimizer), self.state)
