"""SASRec: self-attentive sequential recommendation.

Kang and McAuley, *Self-attentive sequential recommendation*, ICDM 2018. A causal transformer reads the
sequence, and the score of an item is the inner product of its vector and the last state. Cold users need no
special case.

`paper`: two blocks with one head; binary cross-entropy with one negative per position; dropout .5 for sparse
data; no item bias; sequences of up to 50 items.

`tuned`: softmax against negatives for the whole batch instead of the binary loss (Klenitskiy and Vasilev,
*Turning dross into gold loss*, RecSys 2023, found it decisive); one wider block; an item bias; half of the
sequences in random order; a cosine schedule. Items start at random, unlike in the other systems: starting
from the co-occurrence graph changes nothing on Amazon Sports (validation MRR .285 for both) and lowers the
validation MRR on X-Wines (.253 instead of .278).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import nn

from metatl.models.last_state import last_state
from metatl.models.sequence_model import SequenceModel, SequenceModelConfig, look_up

if TYPE_CHECKING:
    from torch import Tensor
    from typing_extensions import Self


class SASRecConfig(SequenceModelConfig):
    """Settings of SASRec. The defaults are those of ``tuned``."""

    system: ClassVar[str] = "sasrec"
    paper: ClassVar[dict[str, Any]] = {
        "dim": 50,
        "max_length": 50,
        "blocks": 2,
        "item_bias": False,
        "loss": "binary",
        "negatives": 1,
        "lr": 1e-3,
        "warmup_steps": 0,
        "final_lr_share": 1.0,
        "batch_size": 128,
        "max_steps": 20_000,
        "eval_every": 500,
        "shared_negatives": 0,
        "shuffle_share": 0.0,
        "init_scale": 0.02,
    }

    item_start: Literal["random", "spectral"] = "random"
    trend_weight: float = Field(default=0.0, ge=0)
    cross_fit_folds: int = Field(default=0, ge=0)
    blocks: int = Field(default=1, ge=1, description="Number of transformer blocks.")
    heads: int = Field(default=1, ge=1, description="Attention heads per block.")
    dropout: float = Field(default=0.5, ge=0, lt=1, description="Dropout inside the blocks.")
    warmup_steps: int = Field(default=100, ge=0)
    final_lr_share: float = Field(default=0.02, ge=0, le=1)
    max_steps: int = Field(default=1000, ge=1)
    eval_every: int = Field(default=100, ge=1)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.dim % self.heads:
            raise ValueError(f"heads: {self.heads} do not divide dim={self.dim}")
        return self


class SASRec(SequenceModel):
    """The model.

    Parameters
    ----------
    config : SASRecConfig
        The settings.
    num_items : int
        I, number of items in the catalogue.
    """

    config: SASRecConfig

    def __init__(self, config: SASRecConfig, num_items: int) -> None:
        super().__init__(config, num_items)
        self.positions = nn.Parameter(torch.randn(config.max_length, config.dim) * config.init_scale)
        layer = nn.TransformerEncoderLayer(
            config.dim,
            config.heads,
            dim_feedforward=config.dim,
            dropout=config.dropout,
            batch_first=True,
            norm_first=True,
        )
        self.encoder = nn.TransformerEncoder(
            layer, config.blocks, norm=nn.LayerNorm(config.dim), enable_nested_tensor=False
        )

    def states(self, rows: Tensor) -> Tensor:
        """Read sequences (B, L, d); see `SequenceModel.states`."""
        rows = self._enter(rows)
        states: Tensor = self.encoder(rows, mask=_causal_mask(rows), is_causal=True)
        return states

    def last_state(self, histories: Tensor) -> Tensor:
        """Return the state (B, d) after the last item of histories (B, L) int64."""
        rows = self._enter(look_up(self.embedding.weight, histories))
        return last_state(self.encoder, rows, mask=_causal_mask(rows))

    def _enter(self, rows: Tensor) -> Tensor:
        """Return the input (B, L, d) of the first block: scaled item vectors plus position vectors."""
        rows = rows * self.config.dim**0.5 + self.positions[: rows.shape[1]]
        return nn.functional.dropout(rows, self.config.item_dropout, self.training)


def _causal_mask(rows: Tensor) -> Tensor:
    """Return the mask (L, L) for rows (B, L, d): a position attends to itself and to earlier ones."""
    return nn.Transformer.generate_square_subsequent_mask(rows.shape[1], device=rows.device, dtype=rows.dtype)
