"""The state of a transformer at the last position of its sequences.

A model that ranks the next item needs one state per history. All blocks except the last one compute every
position. The last block has a single query, so it applies the key projection to that query instead of all
keys, and the value projection to the weighted sum of the rows instead of all values. With one block, a
position costs two inner products per head and no matrix product.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from torch import Tensor


def last_state(encoder: nn.TransformerEncoder, rows: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """Compute the state at the last position of sequences, for an encoder in evaluation mode.

    Parameters
    ----------
    encoder : nn.TransformerEncoder
        With batch_first=True.
    rows : Tensor
        (B, L, d) float, without padding.
    mask : Tensor, optional
        (L, L) float, the causal mask, if the model uses one. The last position attends to all positions in
        either case.

    Returns
    -------
    Tensor
        (B, d) float, equal to ``encoder(rows, mask=mask)[:, -1]`` up to rounding.
    """
    *blocks, block = encoder.layers
    assert isinstance(block, nn.TransformerEncoderLayer)  # noqa: S101 (mypy reads it)
    for other in blocks:
        rows = other(rows, src_mask=mask, is_causal=mask is not None)
    if block.norm_first:
        last = rows[:, -1] + _attend(block.self_attn, block.norm1(rows))
        last = last + _feed_forward(block, block.norm2(last))
    else:
        last = block.norm1(rows[:, -1] + _attend(block.self_attn, rows))
        last = block.norm2(last + _feed_forward(block, last))
    if encoder.norm is not None:
        last = encoder.norm(last)
    return last


def _attend(attention: nn.MultiheadAttention, rows: Tensor) -> Tensor:
    """Compute the attention output (B, d) at the last position of rows (B, L, d).

    This is scaled dot-product attention (Eq. 1 of Vaswani et al., *Attention is all you need*, 2017) for one
    query, with the matrix products in a different order.
    """
    heads, width, dim = attention.num_heads, attention.head_dim, attention.embed_dim
    # (heads, width, d) each
    of_queries, of_keys, of_values = attention.in_proj_weight.view(3, heads, width, dim)
    query_bias, _, value_bias = attention.in_proj_bias.view(3, heads, 1, width)
    last = rows[:, -1]
    # q·(W_k x) = (W_k' q)·x. The key bias adds the same to all positions, so it cancels in the softmax.
    queries = torch.baddbmm(query_bias, last.expand(heads, *last.shape), of_queries.mT)
    projected_queries = (queries @ of_keys).transpose(0, 1)  # (B, heads, d)
    weights = (projected_queries @ rows.mT / width**0.5).softmax(dim=-1)
    # Σ a (W_v x + b) = W_v (Σ a x) + b, since the weights sum to one.
    weighted_rows = (weights @ rows).transpose(0, 1)  # (heads, B, d)
    values = torch.baddbmm(value_bias, weighted_rows, of_values.mT)
    projected: Tensor = attention.out_proj(values.transpose(0, 1).flatten(1))
    return projected


def _feed_forward(block: nn.TransformerEncoderLayer, last: Tensor) -> Tensor:
    output: Tensor = block.linear2(block.activation(block.linear1(last)))
    return output
