"""NextItNet, the temporal convolutional network (TCN) of the paper's comparison.

Yuan, Karatzoglou, Arapakis, Jose, He, *A simple convolutional generative network for next item
recommendation*, WSDM 2019. Residual blocks of dilated causal convolutions read the sequence; a softmax over
the catalogue ranks what comes next. Cold users need nothing special: what lies before the first item is
zero, in training as well.

`paper`: two residual blocks (the paper's type b) of two convolutions each, dilated 1, 2 and 4, 8, kernel 3,
separate input and output vectors, no dropout. `tuned`: one table for input and output that starts from the
co-occurrence graph (validation MRR .277 on Amazon Sports, .239 from random vectors) and is read four times as
long as it is ranked (.280; on MovieTweetings .307, .292 as it is), dropout, a softmax against negatives that
a batch shares, one block, half of the sequences in random order, a cosine schedule.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field
from torch import nn
from torch.nn import functional

from metatl.models.dropout import dropout
from metatl.models.sequence_model import SequenceModel, SequenceModelConfig

if TYPE_CHECKING:
    from torch import Tensor


class NextItNetConfig(SequenceModelConfig):
    """Settings of NextItNet. The defaults are those of ``tuned``."""

    system: ClassVar[str] = "tcn"
    paper: ClassVar[dict[str, Any]] = {
        "max_length": 20,
        "input_scale": 1.0,
        "dilations": (1, 4),
        "item_dropout": 0.0,
        "dropout": 0.0,
        "tied": False,
        "lr": 1e-3,
        "warmup_steps": 0,
        "final_lr_share": 1.0,
        "batch_size": 128,
        "max_steps": 5_000,
        "eval_every": 250,
        "shared_negatives": 0,
        "shuffle_share": 0.0,
        "init_scale": 0.02,
    }

    lr: float = Field(default=3e-3, gt=0)
    max_steps: int = Field(default=500, ge=1)
    input_scale: float = Field(
        default=4.0, gt=0, description="Item vectors are read this many times as long as they are ranked."
    )
    dilations: tuple[int, ...] = Field(
        default=(1,),
        description="Of the first convolution of each residual block; the second one's is twice as large.",
    )
    kernel_size: int = Field(default=3, ge=1, description="Width of the convolutions, in items.")
    dropout: float = Field(default=0.5, ge=0, lt=1, description="On what a residual block adds.")
    warmup_steps: int = Field(default=100, ge=0)
    final_lr_share: float = Field(default=0.02, ge=0, le=1)


class CausalConvolution(nn.Module):
    """A dilated convolution along the sequence that sees no later place.

    Parameters
    ----------
    dim : int
        Channels, in and out.
    kernel_size : int
    dilation : int
        Places between two taps of the kernel.
    """

    def __init__(self, dim: int, kernel_size: int, dilation: int) -> None:
        super().__init__()
        self.padding = (kernel_size - 1) * dilation
        self.convolution = nn.Conv1d(dim, dim, kernel_size, dilation=dilation)

    def forward(self, features: Tensor) -> Tensor:
        """Convolve (B, L, d)."""
        padded = functional.pad(features.transpose(1, 2), (self.padding, 0))
        convolved: Tensor = self.convolution(padded).transpose(1, 2)
        return convolved


class ResidualBlock(nn.Module):
    """Two dilated convolutions, each with layer norm and ReLU, beside an identity (the paper's Fig. 3 b).

    Parameters
    ----------
    dim : int
    kernel_size : int
    dilation : int
        Of the first convolution; the second one's is twice as large.
    probability : float
        Dropout on what the block adds.
    """

    def __init__(self, dim: int, kernel_size: int, dilation: int, probability: float) -> None:
        super().__init__()
        self.first = CausalConvolution(dim, kernel_size, dilation)
        self.second = CausalConvolution(dim, kernel_size, 2 * dilation)
        self.first_norm = nn.LayerNorm(dim)
        self.second_norm = nn.LayerNorm(dim)
        self.probability = probability

    def forward(self, features: Tensor) -> Tensor:
        """Map (B, L, d) to (B, L, d)."""
        added = functional.relu(self.first_norm(self.first(features)))
        added = functional.relu(self.second_norm(self.second(added)))
        return features + dropout(added, self.probability, training=self.training)


class NextItNet(SequenceModel):
    """The model.

    Parameters
    ----------
    config : NextItNetConfig
    num_items : int
        I, size of the catalogue.
    """

    config: NextItNetConfig

    def __init__(self, config: NextItNetConfig, num_items: int) -> None:
        super().__init__(config, num_items)
        self.blocks = nn.Sequential(
            *(
                ResidualBlock(config.dim, config.kernel_size, dilation, config.dropout)
                for dilation in config.dilations
            )
        )

    def states(self, rows: Tensor) -> Tensor:
        """Read sequences (B, L, d); see `SequenceModel.states`."""
        rows = dropout(rows * self.config.input_scale, self.config.item_dropout, training=self.training)
        states: Tensor = self.blocks(rows)
        return states
