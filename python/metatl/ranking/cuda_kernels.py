"""Triton kernels that score users and items.

A score is a sum over dimensions. All kernels add the terms in the order of the dimensions, each by one fused
multiply-add, so every kernel gives a pair the same score, bit for bit.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _add_term(score, left, right, of_product: tl.constexpr):
    """Add the term of one dimension, left · right or -(left - right)²."""
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
    greater,
    equal,
    nan,
    num_users,
    num_items,
    dim,
    of_product: tl.constexpr,
    takes_root: tl.constexpr,
    users_at_once: tl.constexpr,
    items_at_once: tl.constexpr,
    items_of_program: tl.constexpr,
):
    """Count, for each user, the items above the target, those level with it, and those with a NaN score.

    Program (i, j) compares the i-th block of users with the j-th slice of the catalogue. The target itself is
    not counted.

    Parameters
    ----------
    queries, items : pointer
        (d, U) and (d, I) float32; the values of one dimension are contiguous.
    biases : pointer
        (I,) float32.
    targets, target_scores : pointer
        (U,) int64 and (U,) float32.
    greater, equal, nan : pointer
        (U,) int32; the counts are added to them.
    num_users, num_items, dim : int
        U, I and d.
    of_product, takes_root : constexpr
        Whether a score is a dot product, and whether its root is taken.
    users_at_once, items_at_once : constexpr
        Users of a program, and items that it scores at once.
    items_of_program : constexpr
        Items of a program.
    """
    user = tl.program_id(0) * users_at_once + tl.arange(0, users_at_once)
    is_user = user < num_users
    target = tl.load(targets + user, mask=is_user, other=0)
    target_score = tl.load(target_scores + user, mask=is_user, other=0.0)
    greater_counts = tl.zeros((users_at_once,), tl.int32)
    equal_counts = tl.zeros((users_at_once,), tl.int32)
    nan_counts = tl.zeros((users_at_once,), tl.int32)
    first = tl.program_id(1) * items_of_program
    for start in range(first, tl.minimum(first + items_of_program, num_items), items_at_once):
        item = start + tl.arange(0, items_at_once)
        is_item = item < num_items
        query_pointer = queries + user
        item_pointer = items + item
        score = tl.zeros((users_at_once, items_at_once), tl.float32)
        for _ in tl.range(dim, loop_unroll_factor=4):
            left = tl.load(query_pointer, mask=is_user, other=0.0)
            right = tl.load(item_pointer, mask=is_item, other=0.0)
            score = _add_term(score, left[:, None], right[None, :], of_product)
            query_pointer += num_users
            item_pointer += num_items
        bias = tl.load(biases + item, mask=is_item, other=0.0)
        score = _finish(score, bias[None, :], takes_root)
        counted = is_item[None, :] & (item[None, :] != target[:, None])
        greater_counts += tl.sum((counted & (score > target_score[:, None])).to(tl.int32), axis=1)
        equal_counts += tl.sum((counted & (score == target_score[:, None])).to(tl.int32), axis=1)
        is_nan = score != score  # noqa: PLR0124 (Triton has no isnan)
        nan_counts += tl.sum((counted & is_nan).to(tl.int32), axis=1)
    tl.atomic_add(greater + user, greater_counts, mask=is_user)
    tl.atomic_add(equal + user, equal_counts, mask=is_user)
    tl.atomic_add(nan + user, nan_counts, mask=is_user)


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
    """Score P pairs of a user and a row of a table.

    Parameters
    ----------
    queries, rows : pointer
        (d, U) and (N, d) float32.
    biases : pointer
        (P,) float32, the item bias of each pair.
    pair_users, pair_rows : pointer
        (P,) int64, the indices of each pair's user and row.
    scores : pointer
        (P,) float32, written.
    num_pairs, num_users, dim : int
        P, U and d.
    of_product, takes_root : constexpr
        Whether a score is a dot product, and whether its root is taken.
    pairs_at_once : constexpr
        Pairs of a program.
    """
    pair = tl.program_id(0).to(tl.int64) * pairs_at_once + tl.arange(0, pairs_at_once)
    is_pair = pair < num_pairs
    query_pointer = queries + tl.load(pair_users + pair, mask=is_pair, other=0)
    row_pointer = rows + tl.load(pair_rows + pair, mask=is_pair, other=0) * dim
    score = tl.zeros((pairs_at_once,), tl.float32)
    for _ in range(dim):
        left = tl.load(query_pointer, mask=is_pair, other=0.0)
        right = tl.load(row_pointer, mask=is_pair, other=0.0)
        score = _add_term(score, left, right, of_product)
        query_pointer += num_users
        row_pointer += 1
    bias = tl.load(biases + pair, mask=is_pair, other=0.0)
    tl.store(scores + pair, _finish(score, bias, takes_root), mask=is_pair)
