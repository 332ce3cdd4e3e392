"""The state of a transformer at the last position of its sequences, without the other positions.

A model that ranks the next item needs one state per history. All blocks but the last need every position. In
the last block only one position is queried: its query goes through the projection of the keys, instead of all
keys, and the weighted sum of the rows goes through the projection of the values, instead of all values. With
one block, a position then costs two inner products per head and no matrix product.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from torch import Tensor


def last_state(encoder: nn.TransformerEncoder, rows: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """Compute the state at the last position of sequences, as in evaluation mode.

    Parameters
    ----------
    encoder : nn.TransformerEncoder
        Its blocks take the batch first.
    rows : Tensor
        (B, L, d), without padding.
    mask : Tensor, optional
        (L, L), the causal mask, if there is one. The last position sees all positions with and without it.

    Returns
    -------
    Tensor
        (B, d), equal to ``encoder(rows, mask=mask)[:, -1]`` up to rounding.
    """
    *blocks, block = encoder.layers
    assert isinstance(block, nn.TransformerEncoderLayer)  # noqa: S101 (mypy reads it)
    for other in blocks:
        rows = other(rows, src_mask=mask, is_causal=mask is not None)
    if block.norm_first:
        read = block.norm1(rows)
        last = rows[:, -1] + _attend(block.self_attn, read)
        last = last + _feed_forward(block, block.norm2(last))
    else:
        last = block.norm1(rows[:, -1] + _attend(block.self_attn, rows))
        last = block.norm2(last + _feed_forward(block, last))
    if encoder.norm is not None:
        last = encoder.norm(last)
    return last


def _attend(attention: nn.MultiheadAttention, rows: Tensor) -> Tensor:
    """Compute the attention output (B, d) of the last of the rows (B, L, d).

    Scaled dot-product attention (Eq. 1 of Vaswani et al., *Attention is all you need*, 2017) of one query,
    with its products in another order.
    """
    heads, width, dim = attention.num_heads, attention.head_dim, attention.embed_dim
    # (heads, width, d) each
    of_queries, of_keys, of_values = attention.in_proj_weight.view(3, heads, width, dim)
    query_bias, _, value_bias = attention.in_proj_bias.view(3, heads, 1, width)
    last = rows[:, -1]
    # q·(W_k x) = (W_k' q)·x, and the bias of keys, the same for all positions, cancels in the softmax.
    queries = torch.baddbmm(query_bias, last.expand(heads, *last.shape), of_queries.mT)
    asked = (queries @ of_keys).transpose(0, 1)  # (B, heads, d)
    weights = (asked @ rows.mT / width**0.5).softmax(dim=-1)
    # Σ a (W_v x + b) = W_v (Σ a x) + b, since the weights sum to one.
    taken = (weights @ rows).transpose(0, 1)  # (heads, B, d)
    values = torch.baddbmm(value_bias, taken, of_values.mT)
    projected: Tensor = attention.out_proj(values.transpose(0, 1).flatten(1))
    return projected


def _feed_forward(block: nn.TransformerEncoderLayer, last: Tensor) -> Tensor:
    changed: Tensor = block.linear2(block.activation(block.linear1(last)))
    return changed
