"""Triton kernels that score users and items.

A score is a sum over dimensions. All kernels add it up in the order of the dimensions, each term by one
fused multiply-add, so that a pair has the same score, to the bit, whichever kernel scores it.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _add_term(score, left, right, of_product: tl.constexpr):
    """Add a dimension's term, left · right or -(left - right)²."""
    if of_product:
        return tl.fma(left, right, score)
    difference = left - right
    return tl.fma(-difference, difference, score)


@triton.jit
def _finish(score, bias, takes_root: tl.constexpr):
    if takes_root:
        score = -tl.sqrt_rn(-score)
    return score + bias


@triton.jit
def compare_catalogue(
    queries,
    items,
    biases,
    targets,
    target_scores,
    above,
    level,
    undefined,
    num_users,
    num_items,
    dim,
    of_product: tl.constexpr,
    takes_root: tl.constexpr,
    users_at_once: tl.constexpr,
    items_at_once: tl.constexpr,
    items_of_program: tl.constexpr,
):
    """Count the items above the targets of some users, level with them, and with a score that is NaN.

    Program (i, j) takes a block of users and a stretch of the catalogue.

    Parameters
    ----------
    queries, items
        (d, U) and (d, I) float32: values of one dimension lie side by side.
    biases
        (I,) float32.
    targets, target_scores
        (U,) int64, not counted; (U,) float32.
    above, level, undefined
        (U,) int32, added to.
    """
    user = tl.program_id(0) * users_at_once + tl.arange(0, users_at_once)
    is_user = user < num_users
    target = tl.load(targets + user, mask=is_user, other=0)
    target_score = tl.load(target_scores + user, mask=is_user, other=0.0)
    number_above = tl.zeros((users_at_once,), tl.int32)
    number_level = tl.zeros((users_at_once,), tl.int32)
    number_undefined = tl.zeros((users_at_once,), tl.int32)
    first = tl.program_id(1) * items_of_program
    for start in range(first, tl.minimum(first + items_of_program, num_items), items_at_once):
        item = start + tl.arange(0, items_at_once)
        is_item = item < num_items
        query_at = queries + user
        item_at = items + item
        score = tl.zeros((users_at_once, items_at_once), tl.float32)
        for _ in tl.range(dim, loop_unroll_factor=4):
            left = tl.load(query_at, mask=is_user, other=0.0)
            right = tl.load(item_at, mask=is_item, other=0.0)
            score = _add_term(score, left[:, None], right[None, :], of_product)
            query_at += num_users
            item_at += num_items
        bias = tl.load(biases + item, mask=is_item, other=0.0)
        score = _finish(score, bias[None, :], takes_root)
        counts = is_item[None, :] & (item[None, :] != target[:, None])
        number_above += tl.sum((counts & (score > target_score[:, None])).to(tl.int32), axis=1)
        number_level += tl.sum((counts & (score == target_score[:, None])).to(tl.int32), axis=1)
        is_nan = score != score  # noqa: PLR0124 (Triton has no isnan)
        number_undefined += tl.sum((counts & is_nan).to(tl.int32), axis=1)
    tl.atomic_add(above + user, number_above, mask=is_user)
    tl.atomic_add(level + user, number_level, mask=is_user)
    tl.atomic_add(undefined + user, number_undefined, mask=is_user)


@triton.jit
def score_pairs(
    queries,
    rows,
    biases,
    pair_users,
    pair_rows,
    scores,
    num_pairs,
    num_users,
    dim,
    of_product: tl.constexpr,
    takes_root: tl.constexpr,
    pairs_at_once: tl.constexpr,
):
    """Score single pairs of a user and a row.

    Parameters
    ----------
    queries, rows
        (d, U) and (N, d) float32.
    biases
        (P,) float32, of each pair.
    pair_users, pair_rows
        (P,) int64: a number of a user and of a row.
    scores
        (P,) float32, written.
    """
    pair = tl.program_id(0).to(tl.int64) * pairs_at_once + tl.arange(0, pairs_at_once)
    is_pair = pair < num_pairs
    query_at = queries + tl.load(pair_users + pair, mask=is_pair, other=0)
    row_at = rows + tl.load(pair_rows + pair, mask=is_pair, other=0) * dim
    score = tl.zeros((pairs_at_once,), tl.float32)
    for _ in range(dim):
        left = tl.load(query_at, mask=is_pair, other=0.0)
        right = tl.load(row_at, mask=is_pair, other=0.0)
        score = _add_term(score, left, right, of_product)
        query_at += num_users
        row_at += 1
    bias = tl.load(biases + pair, mask=is_pair, other=0.0)
    tl.store(scores + pair, _finish(score, bias, takes_root), mask=is_pair)
