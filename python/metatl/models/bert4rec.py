"""BERT4Rec: sequential recommendation with bidirectional encoder representations from transformer.

Sun, Liu, Wu, Pei, Lin, Ou, Jiang, *BERT4Rec: sequential recommendation with bidirectional encoder
representations from transformer*, CIKM 2019. A bidirectional transformer learns to predict masked items (the
cloze task). To predict the next item, a mask is appended to the history. Cold users need no special case.

`paper`: two post-norm blocks with two heads and GELU; a share of the items is masked, and in a share of the
sequences only the last item is masked, which short sequences need; a projection of the states, then a softmax
over the catalogue with a bias per item.

`tuned`: one pre-norm block; item vectors scaled by √d as in SASRec; no projection of the states (each of the
three raised the validation MRR on X-Wines: from .246 to .255 without the projection, and to .266 with all
three); items that start from the co-occurrence graph (.246 on X-Wines from random vectors); a softmax against
negatives for the whole batch; a cosine schedule. If only the last item is masked, the sequence is first cut
at a random position, because training users have more items than cold users.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch
from pydantic import Field, model_validator
from torch import nn
from torch.nn import functional

from metatl.models.contract import NO_ITEM
from metatl.models.dropout import dropout
from metatl.models.last_state import last_state
from metatl.models.sequence_model import SequenceModel, SequenceModelConfig, look_up

if TYPE_CHECKING:
    from torch import Tensor
    from typing_extensions import Self

    from metatl.models.trainable import TensorBatch


class BERT4RecConfig(SequenceModelConfig):
    """Settings of BERT4Rec. The defaults are those of ``tuned``."""

    system: ClassVar[str] = "bert4rec"
    paper: ClassVar[dict[str, Any]] = {
        "dim": 64,
        "max_length": 50,
        "blocks": 2,
        "heads": 2,
        "norm_first": False,
        "projection": True,
        "item_dropout": 0.2,
        "dropout": 0.2,
        "mask_share": 0.6,
        "last_share": 0.1,
        "random_prefixes": False,
        "lr": 1e-3,
        "warmup_steps": 100,
        "final_lr_share": 0.02,
        "batch_size": 256,
        "max_steps": 10_000,
        "eval_every": 500,
        "shared_negatives": 0,
        "shuffle_share": 0.0,
        "init_scale": 0.02,
    }

    lr: float = Field(default=1e-3, gt=0)
    item_dropout: float = Field(default=0.2, ge=0, lt=1)
    blocks: int = Field(default=1, ge=1, description="Number of transformer blocks.")
    heads: int = Field(default=2, ge=1, description="Attention heads per block.")
    norm_first: bool = Field(
        default=True,
        description=(
            "Pre-norm: normalise the input of each block and the final output, and multiply item vectors by "
            "√d. Otherwise post-norm: normalise the item vectors and the output of each block."
        ),
    )
    projection: bool = Field(default=False, description="Project the states before the scores are computed.")
    dropout: float = Field(default=0.1, ge=0, lt=1, description="Dropout inside the blocks.")
    mask_share: float = Field(default=0.2, gt=0, lt=1, description="Share of the items that are masked.")
    last_share: float = Field(
        default=0.7, ge=0, le=1, description="Share of the sequences in which only the last item is masked."
    )
    random_prefixes: bool = Field(
        default=True,
        description=(
            "Cut these sequences at a random position first, so that the model sees histories of every "
            "length."
        ),
    )
    max_steps: int = Field(default=600, ge=1)
    warmup_steps: int = Field(default=100, ge=0)
    final_lr_share: float = Field(default=0.02, ge=0, le=1)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.dim % self.heads:
            raise ValueError(f"heads: {self.heads} do not divide dim={self.dim}")
        return self


class BERT4Rec(SequenceModel):
    """The model.

    Parameters
    ----------
    config : BERT4RecConfig
        The settings.
    num_items : int
        I, number of items in the catalogue.
    """

    config: BERT4RecConfig

    def __init__(self, config: BERT4RecConfig, num_items: int) -> None:
        super().__init__(config, num_items)
        # One position more than `max_length`, for the mask after the history.
        self.positions = nn.Parameter(torch.randn(config.max_length + 1, config.dim) * config.init_scale)
        self.mask = nn.Parameter(torch.randn(config.dim) * config.init_scale)
        self.norm = nn.Identity() if config.norm_first else nn.LayerNorm(config.dim)
        layer = nn.TransformerEncoderLayer(
            config.dim,
            config.heads,
            dim_feedforward=4 * config.dim,
            dropout=config.dropout,
            activation="gelu",
            batch_first=True,
            norm_first=config.norm_first,
        )
        self.encoder = nn.TransformerEncoder(
            layer,
            config.blocks,
            norm=nn.LayerNorm(config.dim) if config.norm_first else None,
            enable_nested_tensor=False,
        )
        self.head: nn.Module = nn.Identity()
        if config.projection:
            self.head = nn.Sequential(nn.Linear(config.dim, config.dim), nn.GELU(), nn.LayerNorm(config.dim))

    def read(self, items: Tensor, masked: Tensor, item_offsets: Tensor | None = None) -> Tensor:
        """Read sequences with masked items.

        Parameters
        ----------
        items : Tensor
            (B, L) int64, padded at the end with ``NO_ITEM``.
        masked : Tensor
            (B, L) bool, true at masked positions.
        item_offsets : Tensor, optional
            (I, d) float, added to the item vectors.

        Returns
        -------
        Tensor
            (B, L, d) float, the state at each position.
        """
        rows = self._enter(items, masked, self.item_vectors(item_offsets))
        absent = (items == NO_ITEM) & ~masked
        states: Tensor = self.head(self.encoder(rows, src_key_padding_mask=absent))
        return states

    def _enter(self, items: Tensor, masked: Tensor, vectors: Tensor) -> Tensor:
        """Return the input (B, L, d) of the first block."""
        rows = look_up(vectors, items)
        if self.config.norm_first:
            rows = rows * self.config.dim**0.5
        rows = torch.where(masked.unsqueeze(2), self.mask, rows) + self.positions[: items.shape[1]]
        return dropout(self.norm(rows), self.config.item_dropout, training=self.training)

    def training_loss(self, batch: TensorBatch, item_offsets: Tensor | None = None) -> Tensor:
        """Compute the mean loss over the masked positions; see `TrainableModel.training_loss`."""
        items, masked = self.draw_mask(batch.items)
        states = self.read(items, masked, item_offsets)
        targets = items.masked_fill(~masked, NO_ITEM)
        # The sampler draws negatives for all positions but the first, which uses those of the second.
        negatives = torch.cat((batch.negatives[:, :1], batch.negatives), dim=1)
        output = self.output_vectors(item_offsets)
        return self.loss_at(states, targets, negatives, batch.shared_negatives, output)

    def draw_mask(self, items: Tensor) -> tuple[Tensor, Tensor]:
        """Draw the items to mask: at least one of each sequence, and never all.

        Parameters
        ----------
        items : Tensor
            (B, L) int64, padded at the end with ``NO_ITEM``.

        Returns
        -------
        items : Tensor
            (B, L) int64, the sequences after random cuts.
        masked : Tensor
            (B, L) bool.
        """
        device, positions = items.device, torch.arange(items.shape[1], device=items.device)
        lengths = (items != NO_ITEM).sum(dim=1, keepdim=True)
        only_last = torch.rand(len(items), 1, device=device) < self.config.last_share
        if self.config.random_prefixes:
            cut = 2 + (torch.rand(len(items), 1, device=device) * (lengths - 1)).long()
            lengths = torch.where(only_last, cut.minimum(lengths), lengths)
            items = items.masked_fill(positions >= lengths, NO_ITEM)
        noise = torch.rand(items.shape, device=device).masked_fill(positions >= lengths, 2.0)
        count = (lengths * self.config.mask_share).round().clamp(min=1).minimum(lengths - 1)
        # The items with the smallest noise are masked.
        random_mask = noise.argsort(dim=1).argsort(dim=1) < count
        return items, torch.where(only_last, positions == lengths - 1, random_mask)

    def last_state(self, histories: Tensor) -> Tensor:
        """Return the state (B, d) at a mask after histories (B, L) int64."""
        items = functional.pad(histories, (0, 1), value=NO_ITEM)
        masked = torch.zeros_like(items, dtype=torch.bool)
        masked[:, -1] = True
        rows = self._enter(items, masked, self.embedding.weight)
        state: Tensor = self.head(last_state(self.encoder, rows))
        return state
