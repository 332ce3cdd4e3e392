"""The outer loop: trains a model on batches; for MetaTL, Eq. 5 and 6 of Wang et al. 2021.

Each step draws a batch of episodes or sequences and updates the weights by the gradient of the model's loss.
MetaTL adapts its weights to the supports of a meta-batch; its loss is that of the adapted weights on the
queries. Every `eval_every` steps the model ranks fixed candidates of the validation users, and the weights
with the best MRR are kept. A training without validation users keeps the weights of its last step.

A checkpoint holds everything that a step changes. The batch of a step depends on (seed, step) only, and the
item vectors of cross-fitting are computed again from the training rows. A resumed training therefore ends
with the weights of an uninterrupted one; on a CPU they are equal byte for byte.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias, cast

import torch
from lightning_fabric import Fabric

from metatl.common.memory import keep_freed_memory
from metatl.exceptions import RunError
from metatl.models.trainable import TensorBatch
from metatl.ranking.rank import candidate_metrics
from metatl.runs.checkpoints import TrainingState, training_tensors
from metatl.training.batches import alternate, check_negatives, make_sampler, part_seeds
from metatl.training.cuda_graphs import GraphedStep
from metatl.training.device_batches import DeviceBatches
from metatl.training.item_start import start_items
from metatl.training.optimizer import make_optimizer, prepare_row_gradients, set_learning_rate
from metatl.training.stop_signals import TrainingStopped
from metatl.training.tensorboard_log import TensorBoardLog

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from metatl.data.candidates import CandidateSets
    from metatl.data.split import ColdStartSplit
    from metatl.models import Batches
    from metatl.models.contract import Model
    from metatl.models.trainable import TrainableModel
    from metatl.models.training_config import TrainingConfig
    from metatl.runs.checkpoints import CheckpointFiles
    from metatl.training.batches import Batch
    from metatl.training.item_start import TrainingPart
    from metatl.training.stop_signals import StopSignals

    Start: TypeAlias = Callable[[TrainableModel, Batches, ColdStartSplit], list[TrainingPart]]


@dataclass(frozen=True)
class Progress:
    """Progress of a training after a step.

    Attributes
    ----------
    step : int
        Steps that are done.
    max_steps : int
        Steps after which training ends at the latest.
    loss : Tensor
        The step's loss, a float32 scalar on the device; reading it waits for the step to end.
    validation_mrr : float or None
        MRR of the latest evaluation; None before the first one, and without validation.
    """

    step: int
    max_steps: int
    loss: torch.Tensor
    validation_mrr: float | None


def train(
    model: TrainableModel,
    batches: Batches,
    split: ColdStartSplit,
    candidates: CandidateSets | None,
    *,
    config: TrainingConfig,
    seed: int,
    device: str,
    stop: StopSignals,
    first_step: int = 0,
    last_step: int | None = None,
    start: Start = start_items,
    compiled: bool = False,
    files: CheckpointFiles | None = None,
    log_folder: Path | None = None,
    resume: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
) -> TrainingState:
    """Train a model in place and load its best weights.

    Parameters
    ----------
    model : TrainableModel
        A newly initialised model.
    batches : {"episodes", "sequences"}
        What the model trains on.
    split : ColdStartSplit
        Its training users are trained on.
    candidates : CandidateSets or None
        Candidate sets of the validation users. The MRR on them selects the weights and decides early
        stopping. With None, all steps are taken and the last weights are kept.
    config : TrainingConfig
        The model's config.
    seed : int
        Seed of batches and dropout.
    device : {"cpu", "cuda"}
        Where to train.
    stop : StopSignals
        An entered context, which tells of signals.
    first_step : int
        The step to begin with, for weights that were trained before: the batches and the learning rate are
        those of the steps from there.
    last_step : int, optional
        Steps after which training ends at the latest; the config's `max_steps` by default. The schedule of
        the learning rate is that of the config.
    start : callable
        Initialises the model for the training users and returns the parts that training alternates between;
        :func:`metatl.training.item_start.start_items` by default.
    compiled : bool
        Whether torch.compile fuses the kernels of a step.
    files : CheckpointFiles, optional
        Where checkpoints are written. By default nothing is written.
    log_folder : Path, optional
        Where TensorBoard scalars are written. By default none are.
    resume : bool
        Continue from the last checkpoint in `files`, if there is one.
    on_progress : callable, optional
        Called with a `Progress` after every step.

    Returns
    -------
    TrainingState
        Steps, best step and history of the training.

    Raises
    ------
    TrainingStopped
        After Ctrl-C, SIGTERM or SIGHUP, once a checkpoint is saved.
    RunError
        If a checkpoint is damaged, the loss is not finite, or torch.compile fails.
    NoNegativeError
        If every training user has had every item and the settings ask for negatives.

    Warns
    -----
    MetatlWarning
        If some training users have had every item: they are left out where negatives are drawn.
    """
    check_negatives(batches, split.train, config)
    checkpoint = files.load_last() if files is not None and resume else None
    state = TrainingState(first_step, first_step) if checkpoint is None else checkpoint.state
    fabric = Fabric(accelerator=device, devices=1)
    if compiled:
        model.compile_loss()
    # The caller's random generators keep their state.
    cuda_devices = [fabric.device] if device == "cuda" else []
    with (
        torch.random.fork_rng(devices=cuda_devices),
        TensorBoardLog(log_folder, first_step=state.step + 1) as log,
    ):
        loop = OuterLoop(
            model.to(fabric.device), split, candidates, config, fabric, files, state, log, last_step=last_step
        )
        torch.manual_seed(seed)
        parts = start(model, batches, split)
        if checkpoint is not None:
            checkpoint.restore(model, loop.optimizer)
        model.train()
        samplers = [
            make_sampler(
                batches, part.train, config, k=split.k, seed=part_seed, item_counts=split.train.item_counts
            )
            for part, part_seed in zip(parts, part_seeds(seed, len(parts)), strict=True)
        ]
        with alternate(samplers, state.step, config.batch_size) as batch_iterator:
            stop.wait_for_step()
            while not loop.is_finished():
                part = parts[state.step % len(parts)]
                batch = next(batch_iterator)
                loss = loop.step(batch._replace(users=part.users[batch.users]), part.item_offsets)
                # A signal of a closed terminal is looked for before anything is printed to that terminal.
                if on_progress is not None and stop.received is None:
                    mrr = state.history[-1].get("MRR") if state.history else None
                    on_progress(Progress(state.step, loop.last_step, loss, mrr))
                if stop.received is not None:
                    loop.save()
                    raise TrainingStopped(stop.received, state.step)
    model.load_tensors(loop.best)
    model.eval()
    return state


class OuterLoop:
    """The objects that a training step uses, and the steps themselves.

    Parameters
    ----------
    model : TrainableModel
        The model, on the device that it trains on.
    split : ColdStartSplit
        The split; evaluations read it.
    candidates : CandidateSets or None
        Candidate sets of the validation users; None for a training without validation.
    config : TrainingConfig
        The model's config.
    fabric : Fabric
        The device.
    files : CheckpointFiles or None
        Where checkpoints are written; None writes none.
    state : TrainingState
        Where to continue; updated in place.
    log : TensorBoardLog, optional
        Where the metrics of evaluations are logged.
    last_step : int, optional
        Steps after which training ends at the latest; the config's `max_steps` by default.

    Attributes
    ----------
    best : dict of str to ndarray
        The weights with the best validation MRR so far, or without validation the latest ones; the initial
        ones before the first evaluation.
    loss_sum : Tensor
        float64 scalar on the device, the sum of the losses since the last evaluation.
    """

    def __init__(
        self,
        model: TrainableModel,
        split: ColdStartSplit,
        candidates: CandidateSets | None,
        config: TrainingConfig,
        fabric: Fabric,
        files: CheckpointFiles | None,
        state: TrainingState,
        log: TensorBoardLog | None = None,
        *,
        last_step: int | None = None,
    ) -> None:
        self.model = model
        self.split = split
        self.candidates = candidates
        self.config = config
        self.fabric = fabric
        self.files = files
        self.state = state
        self.log = log
        self.last_step = config.max_steps if last_step is None else last_step
        self.optimizer = make_optimizer(model, config)
        self.best = files.load_best() if files is not None and state.best_step > 0 else model.tensors()
        self.module, self.fabric_optimizer = fabric.setup(model, self.optimizer)
        self.module.mark_forward_method("training_loss")
        on_cuda = fabric.device.type == "cuda"
        # On CUDA, adding row gradients into a dense gradient is faster than sorting the rows.
        self.row_gradients = [] if on_cuda else prepare_row_gradients(model.row_tables, config)
        self.device_batches: dict[tuple[tuple[int, ...], ...], DeviceBatches] = {}
        self.graphed_update = GraphedStep(self.update_weights) if on_cuda and model.can_be_captured else None
        keep_freed_memory()
        self.loss_sum = torch.tensor(state.loss_sum, dtype=torch.float64, device=fabric.device)

    def is_finished(self) -> bool:
        """Whether all steps are done, or `patience` evaluations in a row did not improve the best MRR."""
        state = self.state
        evaluations_since_best = sum(entry["step"] > state.best_step for entry in state.history)
        return state.step >= self.last_step or evaluations_since_best >= self.config.patience

    def step(self, batch: Batch, item_offsets: torch.Tensor | None = None) -> torch.Tensor:
        """Update the weights once; every `eval_every` steps and after the last one, evaluate and save.

        Parameters
        ----------
        batch : Batch
            The batch.
        item_offsets : Tensor, optional
            (I, d), the item offsets of the part that the batch's users belong to.

        Returns
        -------
        Tensor
            The loss, a scalar on the device.

        Raises
        ------
        RunError
            If an evaluation finds that the loss is not finite.
        """
        config, state = self.config, self.state
        set_learning_rate(self.optimizer, config.learning_rate(state.step))
        tensors = self.to_device(batch)
        if self.graphed_update is None:
            loss = self.update_weights(tensors, item_offsets)
        else:
            addresses = tensors.items.data_ptr(), None if item_offsets is None else item_offsets.data_ptr()
            loss = self.graphed_update((self.model.training, *addresses), tensors, item_offsets)
        state.step += 1
        if state.step % config.eval_every == 0 or state.step == self.last_step:
            self.evaluate()
            self.save()
        return loss

    def to_device(self, batch: Batch) -> TensorBatch:
        """Copy a batch to the model's device.

        On CUDA, the next batch of the same shapes overwrites it. On a CPU, the tensors share the arrays'
        memory.
        """
        if self.fabric.device.type == "cpu":
            return TensorBatch(*map(torch.from_numpy, batch))
        shapes = tuple(array.shape for array in batch)
        if shapes not in self.device_batches:
            self.device_batches[shapes] = DeviceBatches(batch, self.fabric.device)
        return self.device_batches[shapes].copy(batch)

    def update_weights(self, batch: TensorBatch, item_offsets: torch.Tensor | None) -> torch.Tensor:
        """Take one step of the outer optimiser (for MetaTL, Eq. 6) and return the loss, a scalar."""
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
        """Append the validation metrics to the history, and keep the weights if their MRR is the best.

        Without validation, the history has the losses only, and the weights are kept.

        Raises
        ------
        RunError
            If the mean loss since the last evaluation is not finite.
        """
        state, model = self.state, self.model
        steps = state.step - (int(state.history[-1]["step"]) if state.history else state.first_step)
        loss = self.loss_sum.item() / steps
        self.loss_sum.zero_()
        if not math.isfinite(loss):
            raise RunError(f"the training loss is {loss} before step {state.step}; lower the learning rate")
        model.before_evaluation(torch.from_numpy(self.split.train_histories()).to(self.fabric.device))
        metrics: dict[str, float] = {}
        if self.candidates is not None:
            metrics = candidate_metrics(cast("Model", model), self.split, self.candidates)
        model.after_evaluation()
        model.train()
        rate = self.config.learning_rate(state.step - 1)
        state.history.append({"step": state.step, "learning_rate": rate, "loss": loss, **metrics})
        if self.log is not None:
            self.log.write(state.history[-1], state.step)
        if self.candidates is None or metrics["MRR"] > state.best_mrr:
            state.best_mrr, state.best_step = metrics.get("MRR", state.best_mrr), state.step
            self.best = model.tensors()
            if self.files is not None:
                self.files.save_best(self.best, state)

    def save(self) -> None:
        """Write the checkpoint that a resumed training continues from."""
        self.state.loss_sum = self.loss_sum.item()
        if self.files is not None:
            self.files.save_last(training_tensors(self.model, self.optimizer), self.state)
