"""Reference implementations in plain Python, vectorised numpy and plain torch."""

from __future__ import annotations

import itertools
import random

import numpy as np
import torch
from torch.func import functional_call, grad, vmap


def sample_episodes(rows, sets, num_items, k, batch_size, seed):
    """Draw tasks one by one in plain Python, a negative for each pair, as a per-task sampler does."""
    generator = random.Random(seed)
    users = [user for user, row in enumerate(rows) if len(row) > k]
    tasks = []
    for _ in range(batch_size):
        user = generator.choice(users)
        row = rows[user]
        items = [row[place] for place in sorted(generator.sample(range(len(row)), k + 1))]
        negatives = []
        for _ in range(k):
            negative = generator.randrange(num_items)
            while negative in sets[user]:
                negative = generator.randrange(num_items)
            negatives.append(negative)
        tasks.append((items, negatives))
    return tasks


def sample_sequences(rows, sets, num_items, length, batch_size, seed):
    """Draw windows one by one in plain Python, a negative for each pair, padded to one length."""
    generator = random.Random(seed)
    users = [user for user, row in enumerate(rows) if len(row) > 1]
    sequences = []
    for _ in range(batch_size):
        user = generator.choice(users)
        row = rows[user]
        start = generator.randrange(max(1, len(row) - length))
        items = row[start : start + length + 1]
        negatives = []
        for _ in range(len(items) - 1):
            negative = generator.randrange(num_items)
            while negative in sets[user]:
                negative = generator.randrange(num_items)
            negatives.append(negative)
        padding = length + 1 - len(items)
        sequences.append((items + [-1] * padding, negatives + [-1] * padding))
    return sequences


def sample_candidates_python(sets, num_items, targets, count, seed):
    """Draw distinct negatives user by user in plain Python."""
    generator = random.Random(seed)
    candidates = []
    for user, target in enumerate(targets):
        chosen: set[int] = set()
        while len(chosen) < count:
            item = generator.randrange(num_items)
            if item != target and item not in sets[user]:
                chosen.add(item)
        candidates.append([target, *chosen])
    return candidates


def sample_candidates_numpy(indptr, items, num_items, targets, count, seed):
    """Draw negatives for all users at once, with replacement: draw, look up, draw the hits again."""
    generator = np.random.default_rng(seed)
    users = np.arange(len(targets))
    members = np.unique(np.repeat(np.arange(len(indptr) - 1), np.diff(indptr)) * num_items + items)
    drawn = generator.integers(0, num_items, (len(targets), count))
    while True:
        keys = users[:, None] * num_items + drawn
        places = np.minimum(np.searchsorted(members, keys), len(members) - 1)
        hits = members[places] == keys
        if not hits.any():
            return np.concatenate([targets[:, None], drawn], axis=1)
        drawn[hits] = generator.integers(0, num_items, int(hits.sum()))


def rank_python(queries, table, candidates):
    """Rank a user at a time in plain Python over numpy rows: squared distance, sort, look for the target."""
    ranks = []
    for query, row in zip(queries, candidates, strict=True):
        scores = [-float(((query - table[item]) ** 2).sum()) for item in row]
        ranks.append(sum(score >= scores[0] for score in scores))
    return ranks


def rank_numpy(queries, table, candidates):
    """Gather and rank all users at once in numpy."""
    scores = -np.square(table[candidates] - queries[:, None]).sum(axis=2)
    return (scores[:, 1:] >= scores[:, :1]).sum(axis=1)


def rank_torch(queries, table, candidates):
    """Gather and rank all users at once in torch."""
    rows = table[candidates]
    scores = 2 * torch.einsum("bcd,bd->bc", rows, queries) - rows.square().sum(dim=2)
    return (scores[:, 1:] >= scores[:, :1]).sum(dim=1)


def rank_catalogue_torch(queries, table, targets, block=1024):
    """Rank against the whole catalogue with a matrix product, a block of users at a time."""
    norms = table.square().sum(dim=1)
    ranks = []
    for part, aims in zip(queries.split(block), targets.split(block), strict=True):
        scores = 2 * part @ table.T - norms
        ranks.append((scores >= scores.gather(1, aims[:, None])).sum(dim=1))
    return torch.cat(ranks)


def top_n_torch(queries, table, n, block=1024):
    """Find the best items with a matrix product and topk, a block of users at a time."""
    norms = table.square().sum(dim=1)
    return torch.cat([torch.topk(2 * part @ table.T - norms, n).indices for part in queries.split(block)])


def bootstrap_numpy(values, resamples, seed):
    """Resample users and average, a resample at a time."""
    generator = np.random.default_rng(seed)
    return np.stack(
        [values[generator.integers(0, len(values), len(values))].mean(axis=0) for _ in range(resamples)]
    )


def sign_flips_numpy(differences, resamples, seed, block=100):
    """Flip signs with a matrix product, a block of resamples at a time."""
    generator = np.random.default_rng(seed)
    observed = abs(differences.sum(axis=0)) * (1 - 1e-12)
    counts = 0
    for _ in range(0, resamples, block):
        signs = 1.0 - 2 * generator.integers(0, 2, (block, len(differences)), dtype=np.int8)
        counts = counts + (abs(signs @ differences) >= observed).sum(axis=0)
    return counts


class PaperMAML(torch.nn.Module):
    """Eq. 1 to 6 with per-task weights through torch.func, as a MAML implementation is usually written."""

    def __init__(self, num_items, dim, inner_lr):
        super().__init__()
        self.embedding = torch.nn.Embedding(num_items, dim)
        self.learner = torch.nn.Linear(2 * dim, dim)
        self.inner_lr = inner_lr

    def forward(self, rows, heads, tails, negatives):
        transition = torch.sigmoid(self.learner(torch.cat([rows[:-2], rows[1:-1]], dim=1))).mean(dim=0)
        positive = (heads + transition - tails).square().sum(dim=-1)
        negative = (heads + transition - negatives).square().sum(dim=-1)
        return torch.relu(1 + positive - negative).sum()

    def loss(self, items, negatives):
        """Mean query loss after one inner step on the learner, rows of the table adapted per task."""
        weights = {name: value for name, value in self.named_parameters() if name.startswith("learner")}

        def task(rows, wrong):
            def support(parameters, rows, wrong):
                arguments = (rows, rows[:-2], rows[1:-1], wrong[:-1])
                return functional_call(self, parameters, arguments)

            by_weights, by_rows, by_wrong = grad(support, argnums=(0, 1, 2))(weights, rows, wrong)
            adapted = {name: value - self.inner_lr * by_weights[name] for name, value in weights.items()}
            rows, wrong = rows - self.inner_lr * by_rows, wrong - self.inner_lr * by_wrong
            return functional_call(self, adapted, (rows, rows[-2:-1], rows[-1:], wrong[-1:]))

        return vmap(task)(self.embedding(items), self.embedding(negatives)).mean()


class PlainMetaTL(torch.nn.Module):
    """MetaTL as first written: gather, score, `autograd.grad` on the transition, no closed form."""

    def __init__(self, num_items, dim, *, deep, pairs):
        super().__init__()
        self.embedding = torch.nn.Embedding(num_items, dim)
        self.bias = torch.nn.Embedding(num_items, 1)
        self.deep = deep
        widths = (2 * dim, 500, 200, dim) if deep else (2 * dim, dim)
        layers: list[torch.nn.Module] = []
        for width, following in itertools.pairwise(widths):
            layers.append(torch.nn.Linear(width, following))
            if deep and following != dim:
                layers += [torch.nn.BatchNorm1d(pairs), torch.nn.LeakyReLU(), torch.nn.Dropout(0.5)]
        self.layers = torch.nn.Sequential(*layers)

    def transition(self, heads, tails):
        output = self.layers(torch.cat([heads, tails], dim=-1))
        if not self.deep:
            output = torch.sigmoid(output) + 1.3 * heads
        return output.mean(dim=1)

    def margin_loss(self, points, tails, negatives):
        positive = (points - tails).norm(dim=-1)
        negative = (points - negatives).norm(dim=-1)
        return torch.relu(1 + positive - negative).mean()

    def official_loss(self, items, negatives):
        """Margin loss, one negative a pair; an inner step of rate 5 on the transition; L_Q + L_S."""
        rows, wrong = self.embedding(items), self.embedding(negatives)
        transition = self.transition(rows[:, :-2], rows[:, 1:-1])
        support = self.margin_loss(rows[:, :-2] + transition[:, None], rows[:, 1:-1], wrong[:, :-1])
        (gradient,) = torch.autograd.grad(support, transition, retain_graph=True)
        transition = transition - 5 * gradient
        return self.margin_loss(rows[:, -2] + transition, rows[:, -1], wrong[:, -1]) + support

    def softmax_loss(self, points, tails, tail_bias, negatives, negative_bias):
        """Scores of (…, 1 + N) items, the positive first."""
        positive = tail_bias - (points - tails).square().sum(dim=-1, keepdim=True)
        negative = negative_bias - (points[..., None, :] - negatives).square().sum(dim=-1)
        return -torch.log_softmax(torch.cat([positive, negative], dim=-1), dim=-1)[..., 0]

    def tuned_loss(self, items, shared):
        """Softmax over 512 shared negatives; an inner step on the transition over 32 of them."""
        rows, wrong = self.embedding(items), self.embedding(shared)
        bias, wrong_bias = self.bias(items), self.bias(shared)[:, 0]
        transition = self.transition(rows[:, :-2], rows[:, 1:-1])
        support = self.softmax_loss(
            rows[:, :-2] + transition[:, None], rows[:, 1:-1], bias[:, 1:-1], wrong[:32], wrong_bias[:32]
        )
        (gradient,) = torch.autograd.grad(support.mean(dim=1).sum(), transition, create_graph=True)
        points = rows[:, -2] + transition - 0.1 * gradient
        return self.softmax_loss(points, rows[:, -1], bias[:, -1], wrong, wrong_bias).mean()


def rank_one_user_at_a_time(model, histories, negatives, candidates):
    """Adapt and rank user by user in torch, as a research program usually evaluates."""
    ranks = []
    table, bias = model.item_table, model.item_bias
    for user in range(len(histories)):
        encoded = model.encode(histories[user : user + 1], negatives[user : user + 1])
        rows = table[candidates[user]]
        scores = bias[candidates[user]] - (rows - encoded.queries).square().sum(dim=1)
        ranks.append(int((scores >= scores[0]).sum()))
    return ranks


def numpy_metrics(scores, resamples=1000):
    """Means of MRR, HR@1, HR@10 and NDCG@10, and their intervals, by numpy alone."""
    ranks = 1 + (scores[:, 1:] >= scores[:, :1]).sum(axis=1)
    gains = 1 / np.log2(1 + ranks)
    values = np.stack([1 / ranks, ranks <= 1, ranks <= 10, np.where(ranks <= 10, gains, 0)], axis=1)
    generator = np.random.default_rng(0)
    means = [values[generator.integers(0, len(values), len(values))].mean(axis=0) for _ in range(resamples)]
    return values.mean(axis=0), np.percentile(means, [2.5, 97.5], axis=0)
