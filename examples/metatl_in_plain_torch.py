"""MetaTL (Wang, Ding and Caverlee, SIGIR 2021) in plain torch, to read beside the paper.

    python examples/metatl_in_plain_torch.py

trains on the bundled wine ratings and ranks the next wine of new users, in about a minute on two free cores.
The settings are those of the preset `paper`, with smaller batches and fewer of them. The package provides the
data and the split. Its own MetaTL computes the same loss and gradients faster; docs/method.md explains how.

The functions of Eq. 1 to 5 take one task: the K items of a user in time order, the next item, and a negative
for each pair of neighbours. `torch.vmap` runs them for a batch of tasks.
"""

from __future__ import annotations

import time
from typing import NamedTuple

import torch
from rich.console import Console
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

import metatl

K = 3  # interactions of a new user
DIM, INIT_SCALE = 100, 0.03  # d; standard deviation of the initial item vectors
GAMMA, ALPHA, BETA = 1.0, 0.01, 0.03  # margin, inner rate, outer rate
BATCH, STEPS = 256, 400  # tasks of an outer step; outer steps (the preset: 1,024 and 3,000)

console = Console(highlight=False)


class Theta(NamedTuple):
    """The parameters θ. The inner and the outer step move all of them."""

    W: Tensor  # (d, 2d)
    b: Tensor  # (d,)
    items: Tensor  # (I, d), one vector for each item


def user_transition(theta: Theta, history: Tensor) -> Tensor:
    """Compute the transition tr (d,) of a user from the user's K items."""
    pairs = torch.cat((theta.items[history[:-1]], theta.items[history[1:]]), dim=1)  # [i_h; i_t], (K - 1, 2d)
    t = torch.sigmoid(pairs @ theta.W.T + theta.b)  # Eq. 1: t = σ(W [i_h; i_t] + b)
    return t.mean(dim=0)  # Eq. 2: tr = mean of t over the support pairs


def score(theta: Theta, tr: Tensor, heads: Tensor, tails: Tensor) -> Tensor:
    """Compute the score of pairs, a distance: small is good."""
    return (theta.items[heads] + tr - theta.items[tails]).square().sum(dim=-1)  # s = ‖i_h + tr - i_t‖²


def margin_loss(theta: Theta, tr: Tensor, heads: Tensor, tails: Tensor, negatives: Tensor) -> Tensor:
    """Sum the margin loss [γ + s(i_h → i_t) - s(i_h → i_t')]₊ over pairs with a negative i_t' each."""
    difference = score(theta, tr, heads, tails) - score(theta, tr, heads, negatives)
    return torch.relu(GAMMA + difference).sum()


def support_loss(theta: Theta, history: Tensor, negatives: Tensor) -> Tensor:
    """Compute L_S on the K - 1 pairs of neighbours in a history."""
    tr = user_transition(theta, history)
    return margin_loss(theta, tr, history[:-1], history[1:], negatives)  # Eq. 3


def adapt(theta: Theta, history: Tensor, negatives: Tensor, steps: int = 1) -> Theta:
    """Take the inner steps. Their gradient stays differentiable, so the outer one is of second order."""
    for _ in range(steps):
        slopes = torch.func.grad(support_loss)(theta, history, negatives)
        theta = Theta(*(value - ALPHA * slope for value, slope in zip(theta, slopes, strict=True)))
    return theta  # Eq. 4: θ' = θ - α ∇L_S(θ)


def query_loss(theta: Theta, items: Tensor, negatives: Tensor, steps: int = 1) -> Tensor:
    """Compute L_Q of a task: K + 1 items and K negatives, the last of which belongs to the query pair."""
    theta, (items, negatives) = task_rows(theta, items, negatives)
    history = items[:-1]
    adapted = adapt(theta, history, negatives[:-1], steps)
    tr = user_transition(adapted, history)
    return margin_loss(adapted, tr, history[-1], items[-1], negatives[-1])  # Eq. 5: L_Q(θ')


def outer_loss(theta: Theta, items: Tensor, negatives: Tensor, steps: int = 1) -> Tensor:
    """Sum L_Q over tasks: items (B, K + 1), negatives (B, K)."""
    return torch.vmap(lambda *task: query_loss(theta, *task, steps))(items, negatives).sum()


def candidate_scores(
    theta: Theta, history: Tensor, negatives: Tensor, candidates: Tensor, steps: int = 1
) -> Tensor:
    """Adapt to a new user and compute the scores of candidates (C,) as the next item."""
    theta, (history, negatives, candidates) = task_rows(theta, history, negatives, candidates)
    adapted = adapt(theta, history, negatives, steps)
    return score(adapted, user_transition(adapted, history), history[-1], candidates)


def task_rows(theta: Theta, *ids: Tensor) -> tuple[Theta, list[Tensor]]:
    """Keep only the item vectors that a task reads: a copy of the whole table per task would be large.

    The ids become indices into the small table. Equal items share an index, so that they move together.
    """
    joined = torch.cat(ids)
    indices = (joined[:, None] == joined).int().argmax(dim=1)  # the first slot with the same item
    return theta._replace(items=theta.items[joined]), list(indices.split([len(part) for part in ids]))


def unseen_items(users: Tensor, items: Tensor, num_users: int, num_items: int) -> Tensor:
    """Mark the items (U, I) without an interaction of the user by 1, the others by 0."""
    return torch.ones(num_users, num_items).index_put((users, items), torch.tensor(0.0))


def draw_tasks(histories: Tensor, lengths: Tensor, unseen: Tensor) -> tuple[Tensor, Tensor]:
    """Draw users, K + 1 interactions of each in time order, and K items that the user never had."""
    users = torch.randint(len(histories), (BATCH,))
    is_padding = torch.arange(histories.shape[1]) >= lengths[users, None]
    rows = torch.rand(is_padding.shape).masked_fill(is_padding, -1.0).topk(K + 1).indices.sort().values
    return histories[users].gather(1, rows), torch.multinomial(unseen[users], K, replacement=True)


def train(theta: Theta, rows: metatl.Interactions) -> None:
    """Minimise the outer loss by stochastic gradient descent; the rate falls from β to β / 20 as a cosine."""
    users, items, lengths = map(torch.tensor, (rows.users, rows.items, rows.lengths))
    histories = pad_sequence(items.split(lengths.tolist()), batch_first=True)
    unseen = unseen_items(users, items, rows.num_users, rows.num_items)
    optimizer = torch.optim.SGD(theta, lr=BETA)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS, eta_min=BETA / 20)
    for step in range(1, STEPS + 1):
        loss = outer_loss(theta, *draw_tasks(histories, lengths, unseen))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()  # Eq. 6: θ ← θ - β ∇ Σ L_Q(θ')
        schedule.step()
        if step % 80 == 0:
            console.print(f"step {step:3}: mean query loss {loss.item() / BATCH:.3f}")


def mean_reciprocal_rank(scores: Tensor) -> float:
    """Compute the MRR of the targets in column 0 of scores (U, C); a tie counts against the target."""
    return (1 / (scores <= scores[:, :1]).sum(dim=1)).mean().item()


def evaluate(theta: Theta, split: metatl.ColdStartSplit) -> None:
    """Rank the next item of each test user among 100 items that the user never had."""
    cold, users = split.cold, torch.tensor(split.test)
    histories, targets = map(torch.tensor, (split.histories(split.test), split.targets(split.test)))
    unseen = unseen_items(torch.tensor(cold.users), torch.tensor(cold.items), cold.num_users, cold.num_items)
    candidates = torch.cat((targets[:, None], torch.multinomial(unseen[users], 100)), dim=1)
    # A recommender knows the K items only: its negatives may be among the later ones.
    unknown = unseen_items(torch.arange(len(users))[:, None], histories, len(users), cold.num_items)
    negatives = torch.multinomial(unknown, K - 1)
    console.print(f"MRR of {len(users)} test users, 1 target among 100 negatives:")
    for name, steps in (("with the inner step", 1), ("same weights, no inner step", 0)):
        of_user = torch.vmap(lambda *user, steps=steps: candidate_scores(theta, *user, steps), chunk_size=256)
        console.print(f"{name:>28} {mean_reciprocal_rank(of_user(histories, negatives, candidates)):.4f}")
    popularity = torch.tensor(split.train.item_counts)[candidates]
    console.print(f"{'popularity':>28} {mean_reciprocal_rank(-popularity):.4f}")


def main() -> None:
    """Train on the wines, then evaluate."""
    torch.manual_seed(0)
    split = metatl.cold_start_split(metatl.datasets.xwines(), k=K)
    W = torch.nn.init.xavier_uniform_(torch.empty(DIM, 2 * DIM))
    theta = Theta(W, torch.zeros(DIM), torch.randn(split.num_items, DIM) * INIT_SCALE)
    for parameter in theta:
        parameter.requires_grad_()
    start = time.perf_counter()
    train(theta, split.train)
    seconds = time.perf_counter() - start
    console.print(f"{STEPS * BATCH:,} tasks in {seconds:.0f} s, {STEPS * BATCH / seconds:,.0f} a second")
    with torch.no_grad():
        evaluate(theta, split)


if __name__ == "__main__":
    main()
