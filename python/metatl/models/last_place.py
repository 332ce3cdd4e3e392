"""What a transformer says at the last place of its sequences, without the rest.

A model that ranks what comes next is asked for one state of each history. All blocks but the last need every
place; the last block needs every place as key and value only. That saves more than half of the work where
there is one block.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

if TYPE_CHECKING:
    from torch import Tensor


def last_place(encoder: nn.TransformerEncoder, rows: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """Read sequences in evaluation mode, and give the state at their last place.

    Parameters
    ----------
    encoder : nn.TransformerEncoder
        Of blocks that take the batch first.
    rows : Tensor
        (B, L, d), without padding.
    mask : Tensor, optional
        (L, L), the causal mask, if there is one. The last place sees all places with it and without.

    Returns
    -------
    Tensor
        (B, d), to rounding ``encoder(rows, mask=mask)[:, -1]``.
    """
    *blocks, block = encoder.layers
    assert isinstance(block, nn.TransformerEncoderLayer)  # noqa: S101 (mypy reads it)
    for other in blocks:
        rows = other(rows, src_mask=mask, is_causal=mask is not None)
    last = rows[:, -1:]
    if block.norm_first:
        last = last + _attend(block, block.norm1(last), block.norm1(rows))
        last = last + _feed_forward(block, block.norm2(last))
    else:
        last = block.norm1(last + _attend(block, last, rows))
        last = block.norm2(last + _feed_forward(block, last))
    if encoder.norm is not None:
        last = encoder.norm(last)
    return last[:, 0]


def _attend(block: nn.TransformerEncoderLayer, last: Tensor, rows: Tensor) -> Tensor:
    attended: Tensor = block.self_attn(last, rows, rows, need_weights=False)[0]
    return attended


def _feed_forward(block: nn.TransformerEncoderLayer, last: Tensor) -> Tensor:
    changed: Tensor = block.linear2(block.activation(block.linear1(last)))
    return changed
