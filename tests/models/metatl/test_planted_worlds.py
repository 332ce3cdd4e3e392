"""Worlds whose truth is known: what training must reach, and where adapting must help."""

import pytest
import torch

from metatl.models.metatl.model import MetaTL, MetaTLConfig

CANDIDATES = 101


class World:
    """Items are points; each user walks through them in steps of one translation, out of a few.

    From item h a user with translation r goes to an item t that is not yet in the walk with probability
    proportional to exp(-‖e_h + r - e_t‖² / (2 noise²)). The first item is uniform.
    """

    def __init__(self, *, items, translations, noise, length, seed):
        self.generator = torch.Generator().manual_seed(seed)
        self.items = items
        self.length = length
        distances = torch.cdist(items.unsqueeze(0) + translations.unsqueeze(1), items.unsqueeze(0))
        self.log_weights = -distances.square() / (2 * noise**2)  # (translations, from, to)

    def walks(self, users):
        """Item sequences (users, length) of fresh users."""
        walks = torch.randint(len(self.items), (users, 1), generator=self.generator)
        kind = torch.randint(len(self.log_weights), (users,), generator=self.generator)
        for _ in range(self.length - 1):
            weights = self.log_weights[kind, walks[:, -1]].scatter(1, walks, -torch.inf)
            step = torch.multinomial(weights.softmax(1), 1, generator=self.generator)
            walks = torch.cat((walks, step), dim=1)
        return walks

    def others(self, walks, count):
        """Items (users, count), uniform among those outside each walk."""
        allowed = torch.ones(len(walks), len(self.items)).scatter(1, walks, 0.0)
        return torch.multinomial(allowed, count, generator=self.generator)

    def oracle(self, histories):
        """log p(next item | history) (users, items): from the posterior over translations."""
        posterior = torch.zeros(len(histories), len(self.log_weights))
        for j in range(1, histories.shape[1] + 1):
            weights = self.log_weights[:, histories[:, j - 1]].transpose(0, 1)
            visited = histories[:, None, :j].expand(-1, len(self.log_weights), -1)
            steps = weights.scatter(2, visited, -torch.inf).log_softmax(2)
            if j < histories.shape[1]:
                posterior += steps[torch.arange(len(histories)), :, histories[:, j]]
        return (posterior.log_softmax(1)[:, :, None] + steps).logsumexp(1)

    def tasks(self, config, walks):
        """One batch of windows: items, negatives, shared negatives."""
        users = torch.randint(len(walks), (config.batch_size,), generator=self.generator)
        starts = torch.randint(self.length - config.k, (config.batch_size, 1), generator=self.generator)
        items = walks[users].gather(1, starts + torch.arange(config.k + 1))
        negatives = (
            self.others(walks[users], config.k * config.negatives) if config.negatives else items[:, :0]
        )
        shared = torch.randint(len(self.items), (config.shared_negatives,), generator=self.generator)
        return items, negatives.view(config.batch_size, config.k, config.negatives), shared


def train(world, config, seed, *, item_vectors=None):
    """A model trained on walks of this world."""
    torch.manual_seed(seed)
    model = MetaTL(config, len(world.items))
    if item_vectors is not None:
        model.embedding.weight.data.copy_(item_vectors)
    walks = world.walks(2000)
    optimizer = torch.optim.Adam(model.parameters(), lr=config.meta_lr)
    for step in range(config.max_steps):
        optimizer.param_groups[0]["lr"] = config.learning_rate(step)
        optimizer.zero_grad()
        model.episode_loss(*world.tasks(config, walks)).backward()
        optimizer.step()
    return model.eval()


def model_scores(model, histories, negatives):
    """Scores of the whole catalogue (users, items), as ranking computes them."""
    queries, overrides = model.encode(histories, negatives)
    assert overrides is None
    scores = -torch.cdist(queries, model.item_table)
    if model.similarity == "squared_l2":
        scores = -scores.square()
    return scores if model.item_bias is None else scores + model.item_bias


def mean_reciprocal_rank(world, scores, walks, k):
    """MRR of item k of the walks among 100 items outside them; ties count against the model."""
    targets = walks[:, k : k + 1]
    candidates = torch.cat((targets, world.others(walks, CANDIDATES - 1)), dim=1)
    of = scores.gather(1, candidates)
    rank = 1 + (of[:, 1:] >= of[:, :1]).sum(1)
    return rank.double().reciprocal().mean().item()


def evaluate(world, model, walks):
    """MRR of the model and of the Bayes-optimal ranking on the same candidates."""
    k = model.config.k
    histories = walks[:, :k]
    negatives = world.others(walks, model.support_negatives) if model.support_negatives else None
    state = world.generator.get_state()
    found = mean_reciprocal_rank(world, model_scores(model, histories, negatives), walks, k)
    world.generator.set_state(state)
    return found, mean_reciprocal_rank(world, world.oracle(histories), walks, k)


def plane_of_directions(count, length):
    angles = torch.arange(count) * (2 * torch.pi / count)
    return length * torch.stack((angles.cos(), angles.sin()), dim=1)


def planted(seed, *, step):
    generator = torch.Generator().manual_seed(seed)
    items = torch.rand(200, 2, generator=generator) * 10
    world = World(items=items, translations=plane_of_directions(6, step), noise=0.8, length=9, seed=seed + 1)
    return world, items - items.mean(dim=0)


WALKS = {"window_share": 1.0, "shuffle_share": 0.0}
FROM_NOTHING = {
    "item_start": "random",
    "cross_fit_folds": 0,
    "trend_weight": 0.0,
    "transition_skip": (0.5, -0.5),
    "learner_bias": 0.0,
    "temperature": 5.0,
    "learned_temperature": True,
    "meta_lr": 0.02,
}
SMALL = {"batch_size": 256, "shared_negatives": 256, "warmup_steps": 50}


def test_training_reaches_the_bayes_optimal_ranking():
    """On fresh users of a world known from other users' walks alone: 90 % of the optimum's MRR."""
    world, _ = planted(0, step=1.5)
    config = MetaTLConfig.preset(
        "tuned", dim=32, max_steps=600, inner_lr=0.1, **FROM_NOTHING, **WALKS, **SMALL
    )
    model = train(world, config, seed=2)
    found, optimum = evaluate(world, model, world.walks(1000))
    assert found >= 0.9 * optimum
    assert optimum > 0.5  # chance is 0.05


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_adapting_helps_where_a_learned_transition_cannot_point(seed):
    """MetaTL against MetaTL−− in a plane whose users walk in six directions, opposite ones among them.

    Eq. 1 confines every transition, and so their mean tr, to (0, 1)². No weights make it point left or
    down, so a user who walks there is out of reach of any learner without adaptation. (In more dimensions
    than the world's two the items could hide in a subspace where the confinement does no harm.) The inner
    step moves tr itself, towards where the user's own support pairs lead, and may leave (0, 1)².
    """
    world, item_vectors = planted(seed, step=2.0)
    walks = world.walks(1000)
    reached = {}
    for steps in (1, 0):
        config = MetaTLConfig.preset(
            "tuned",
            **{**FROM_NOTHING, "transition_skip": None},
            dim=2,
            item_bias=False,
            inner_steps=steps,
            inner_lr=1.0,
            max_steps=300,
            **WALKS,
            **SMALL,
        )
        # Both start from the true item vectors: what differs is the adaptation alone.
        model = train(world, config, seed, item_vectors=item_vectors)
        reached[steps], optimum = evaluate(world, model, walks)
    assert reached[1] >= 1.2 * reached[0]
    assert reached[1] >= 0.85 * optimum
