"""GRU4Rec: recurrent neural networks for session-based recommendation.

Hidasi, Karatzoglou, Baltrunas, Tikk, *Session-based recommendations with recurrent neural networks*, ICLR
2016; Hidasi and Karatzoglou, *Recurrent neural networks with top-k gains for session-based
recommendations*, CIKM 2018. A GRU reads the sequence, and the score of an item is the inner product of its
vector and the state. Cold users need no special case.

`paper`: BPR-max (or TOP1-max: ``loss="top1_max"``) against the targets of the other sequences of the batch
and 2,048 additional negatives, sampled by popularity^.5; separate input and output vectors; dropout .2. All
sessions of a batch start at their first item. The published program starts a new session where another one
ends, which changes only how sessions combine in a batch.

`tuned`: softmax; one table for input and output vectors that starts from the co-occurrence graph (validation
MRR .278 on Amazon Sports, .247 from random vectors); input vectors scaled by 4 (.287 on Amazon Sports; .299
on MovieTweetings, .277 unscaled); heavy dropout on the input and on the state; half of the sequences in
random order; a cosine schedule.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field
from torch import nn

from metatl.models.dropout import dropout
from metatl.models.sequence_model import SequenceModel, SequenceModelConfig

if TYPE_CHECKING:
    from torch import Tensor


class GRU4RecConfig(SequenceModelConfig):
    """Settings of GRU4Rec. The defaults are those of ``tuned``."""

    system: ClassVar[str] = "gru4rec"
    paper: ClassVar[dict[str, Any]] = {
        "dim": 100,
        "input_scale": 1.0,
        "hidden": 100,
        "item_dropout": 0.0,
        "state_dropout": 0.2,
        "tied": False,
        "loss": "bpr_max",
        "score_penalty": 1.0,
        "shared_negatives": 2048,
        "popularity_exponent": 0.5,
        "batch_negatives": True,
        "shuffle_share": 0.0,
        "lr": 1e-3,
        "warmup_steps": 0,
        "final_lr_share": 1.0,
        "batch_size": 64,
        "max_steps": 10_000,
        "eval_every": 500,
        "init_scale": 0.02,
        "max_length": 50,
    }

    lr: float = Field(default=5e-3, gt=0)
    max_steps: int = Field(default=500, ge=1)
    input_scale: float = Field(
        default=4.0, gt=0, description="Input item vectors are multiplied by this factor."
    )
    hidden: int = Field(default=128, ge=1, description="Size of the recurrent state.")
    layers: int = Field(default=1, ge=1, description="Number of recurrent layers.")
    state_dropout: float = Field(default=0.5, ge=0, lt=1, description="Dropout on the state.")
    warmup_steps: int = Field(default=100, ge=0)
    final_lr_share: float = Field(default=0.02, ge=0, le=1)


class GRU4Rec(SequenceModel):
    """The model.

    Parameters
    ----------
    config : GRU4RecConfig
        The settings.
    num_items : int
        I, number of items in the catalogue.
    """

    config: GRU4RecConfig

    def __init__(self, config: GRU4RecConfig, num_items: int) -> None:
        super().__init__(config, num_items)
        self.recurrent = nn.GRU(config.dim, config.hidden, config.layers, batch_first=True)
        self.project = nn.Identity() if config.hidden == config.dim else nn.Linear(config.hidden, config.dim)

    def states(self, rows: Tensor) -> Tensor:
        """Read sequences (B, L, d); see `SequenceModel.states`."""
        rows = dropout(rows * self.config.input_scale, self.config.item_dropout, training=self.training)
        states, _ = self.recurrent(rows)
        states = dropout(states, self.config.state_dropout, training=self.training)
        projected: Tensor = self.project(states)
        return projected
