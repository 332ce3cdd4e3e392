"""NextItNet, the temporal convolutional network (TCN) of the paper's comparison.

Yuan, Karatzoglou, Arapakis, Jose, He, *A simple convolutional generative network for next item
recommendation*, WSDM 2019. Residual blocks of dilated causal convolutions read the sequence; a softmax over
the catalogue predicts the next item. Cold users need no special case: the sequence is padded with zeros
before the first item, in training as well.

`paper`: two residual blocks (the paper's type b) of two convolutions each, with dilations 1, 2 and 4, 8 and
kernel size 3; separate input and output vectors; no dropout.

`tuned`: one table for input and output vectors that starts from the co-occurrence graph (validation MRR .277
on Amazon Sports, .239 from random vectors); input vectors scaled by 4 (.280 on Amazon Sports; .307 on
MovieTweetings, .292 unscaled); dropout; a softmax against negatives for the whole batch; one block; half of
the sequences in random order; a cosine schedule.
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
        default=4.0, gt=0, description="Input item vectors are multiplied by this factor."
    )
    dilations: tuple[int, ...] = Field(
        default=(1,),
        description="Dilation of the first convolution of each residual block; the second one doubles it.",
    )
    kernel_size: int = Field(default=3, ge=1, description="Kernel size of the convolutions, in items.")
    dropout: float = Field(
        default=0.5, ge=0, lt=1, description="Dropout on the output of each residual branch."
    )
    warmup_steps: int = Field(default=100, ge=0)
    final_lr_share: float = Field(default=0.02, ge=0, le=1)


class CausalConvolution(nn.Module):
    """A dilated causal convolution along the sequence: the output depends on no later position.

    Parameters
    ----------
    dim : int
        Number of input and output channels.
    kernel_size : int
        Kernel size, in items.
    dilation : int
        Distance of two taps of the kernel, in positions.
    """

    def __init__(self, dim: int, kernel_size: int, dilation: int) -> None:
        super().__init__()
        self.padding = (kernel_size - 1) * dilation
        self.convolution = nn.Conv1d(dim, dim, kernel_size, dilation=dilation)

    def forward(self, features: Tensor) -> Tensor:
        """Convolve features (B, L, d); the shape stays."""
        padded = functional.pad(features.transpose(1, 2), (self.padding, 0))
        convolved: Tensor = self.convolution(padded).transpose(1, 2)
        return convolved


class ResidualBlock(nn.Module):
    """Two dilated convolutions, each with layer norm and ReLU, and a skip connection (the paper's Fig. 3 b).

    Parameters
    ----------
    dim : int
        Number of channels.
    kernel_size : int
        Kernel size, in items.
    dilation : int
        Dilation of the first convolution; the second convolution doubles it.
    probability : float
        Dropout on the output of the residual branch.
    """

    def __init__(self, dim: int, kernel_size: int, dilation: int, probability: float) -> None:
        super().__init__()
        self.first = CausalConvolution(dim, kernel_size, dilation)
        self.second = CausalConvolution(dim, kernel_size, 2 * dilation)
        self.first_norm = nn.LayerNorm(dim)
        self.second_norm = nn.LayerNorm(dim)
        self.probability = probability

    def forward(self, features: Tensor) -> Tensor:
        """Map features (B, L, d) to features (B, L, d)."""
        residual = functional.relu(self.first_norm(self.first(features)))
        residual = functional.relu(self.second_norm(self.second(residual)))
        return features + dropout(residual, self.probability, training=self.training)


class NextItNet(SequenceModel):
    """The model.

    Parameters
    ----------
    config : NextItNetConfig
        The settings.
    num_items : int
        I, number of items in the catalogue.
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
