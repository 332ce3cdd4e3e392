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
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from lightning_fabric import Fabric
from lightning_fabric.loggers.tensorboard import TensorBoardLogger
from torch import nn

from metatl.common.memory import keep_freed_memory
from metatl.episodes import episode_sampler
from metatl.exceptions import RunError
from metatl.models.item_start.spectral import cross_fitting, spectral_vectors
from metatl.models.item_start.trends import popularity_trend
from metatl.models.trainable import TensorBatch
from metatl.ranking.rank import candidate_metrics
from metatl.runs.checkpoints import load_checkpoint, save_checkpoint
from metatl.runs.run_directory import write_json
from metatl.sequences import sequence_sampler
from metatl.training.batches import Batch, alternate
from metatl.training.cuda_graphs import GraphedStep
from metatl.training.device_batches import DeviceBatches
from metatl.training.stop_signals import StopSignals, TrainingStopped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from lightning_fabric.loggers.logger import Logger
    from numpy.typing import NDArray

    from metatl.data.candidates import CandidateSets
    from metatl.data.interactions import Interactions
    from metatl.data.split import ColdStartSplit
    from metatl.models import Batches
    from metatl.models.contract import Model
    from metatl.models.trainable import TrainableModel
    from metatl.models.training_config import TrainingConfig
    from metatl.training.batches import Sampler


@dataclass
class TrainingState:
    """What the loop knows beside tensors; it travels in the checkpoint's record."""

    step: int = 0
    loss_sum: float = 0.0
    """Sum of the losses since the last evaluation."""
    best_step: int = 0
    best_mrr: float = -math.inf
    history: list[dict[str, float]] = field(default_factory=list)
    """At each evaluation: step, mean loss since the last one, and the validation metrics."""


@dataclass(frozen=True)
class Progress:
    """What a training tells whoever watches it, after every step."""

    step: int
    max_steps: int
    loss: torch.Tensor
    """The step's loss, still on the device: reading it waits for the step to end."""
    validation_mrr: float | None


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


def make_sampler(
    batches: Batches,
    train: Interactions,
    config: Any,
    *,
    k: int,
    seed: int,
    item_counts: NDArray[np.int64] | None = None,
) -> Sampler:
    """Build the sampler of what a system is trained on; see `sequence_sampler` for `item_counts`."""
    if batches == "episodes":
        return episode_sampler(train, config.episodes, k=k, seed=seed)
    return sequence_sampler(train, config.sequences, seed=seed, item_counts=item_counts)


def part_seeds(seed: int, count: int) -> list[int]:
    """Give each of the parts that take turns a seed of its own.

    A sampler numbers its batches from 0. With one seed for all, `count` steps in a row would meet the same
    negatives, and users at the same places of their parts.
    """
    if count == 1:
        return [seed]
    return [int(word) for word in np.random.SeedSequence(seed).generate_state(count, np.uint64)]


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
    loggers: list[Logger] = [] if files is None else [files.logger(state.step)]
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


@contextmanager
def finalising(loggers: Sequence[Logger]) -> Iterator[None]:
    """Write out what is logged, and end the threads that write it, however the block ends."""
    try:
        yield
    finally:
        for logger in loggers:
            logger.finalize("")


@dataclass(frozen=True, eq=False)
class Part:
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


def start_items(model: TrainableModel, batches: Batches, split: ColdStartSplit) -> list[Part]:
    """Start the item vectors and biases as the settings say.

    Returns
    -------
    list of Part
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
        return [Part(train, np.arange(train.num_users), None)]
    return [
        Part(fold.train, fold.users, torch.from_numpy(fold.offsets).to(model.device) * scale)
        for fold in folds
    ]


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
            places = tensors.items.data_ptr(), None if item_offsets is None else item_offsets.data_ptr()
            loss = self.graphed_move((self.model.training, *places), tensors, item_offsets)
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
        """Move the weights against the loss of a batch, and return the loss."""
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


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint as read from a file."""

    tensors: dict[str, NDArray[Any]]
    record: dict[str, Any]


@dataclass(frozen=True)
class CheckpointFiles:
    """The files that the outer loop keeps in a run directory."""

    directory: Path

    def save_last(self, tensors: dict[str, NDArray[Any]], state: TrainingState) -> None:
        """Write the state that `--resume` continues from."""
        save_checkpoint(self.directory / "last.safetensors", tensors, asdict(state))
        write_json(self.directory / "history.json", state.history)

    def load_last(self) -> Checkpoint | None:
        """Read the last state; None where the run was stopped before it wrote one."""
        path = self.directory / "last.safetensors"
        return Checkpoint(*load_checkpoint(path)) if path.exists() else None

    def save_best(self, weights: dict[str, NDArray[Any]], state: TrainingState) -> None:
        """Write the weights with the best validation MRR."""
        save_checkpoint(self.directory / "best.safetensors", weights, state.history[-1])

    def load_best(self) -> dict[str, NDArray[Any]]:
        """Read the weights with the best validation MRR."""
        weights, _ = load_checkpoint(self.directory / "best.safetensors")
        return weights

    def logger(self, step: int) -> TensorBoardLogger:
        """Open the TensorBoard scalars, hiding what an interrupted run logged after `step`."""
        return TensorBoardLogger(self.directory, name="tensorboard", version="", purge_step=step + 1)


def training_tensors(model: TrainableModel, optimizer: torch.optim.Optimizer) -> dict[str, NDArray[Any]]:
    """Collect every tensor that the next step depends on: weights, optimiser state, generators."""
    tensors = {f"model.{name}": array for name, array in model.tensors().items()}
    for index, values in optimizer.state_dict()["state"].items():
        for name, value in values.items():
            if value is not None:
                tensors[f"optimizer.{index}.{name}"] = value.detach().cpu().numpy()
    tensors["generator.cpu"] = torch.get_rng_state().numpy()
    if model.device.type == "cuda":
        tensors["generator.cuda"] = torch.cuda.get_rng_state(model.device).numpy()
    return tensors


def restore(
    tensors: dict[str, NDArray[Any]], model: TrainableModel, optimizer: torch.optim.Optimizer
) -> None:
    """Put back what :func:`training_tensors` collected."""
    weights: dict[str, NDArray[Any]] = {}
    optimizer_state: dict[int, dict[str, torch.Tensor]] = {}
    for name, array in tensors.items():
        kind, _, rest = name.partition(".")
        if kind == "model":
            weights[rest] = array
        elif kind == "optimizer":
            index, _, key = rest.partition(".")
            optimizer_state.setdefault(int(index), {})[key] = torch.from_numpy(array)
    model.load_tensors(weights)
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": optimizer_state, "param_groups": groups})
    torch.set_rng_state(torch.from_numpy(tensors["generator.cpu"]))
    if "generator.cuda" in tensors and model.device.type == "cuda":
        torch.cuda.set_rng_state(torch.from_numpy(tensors["generator.cuda"]), model.device)
