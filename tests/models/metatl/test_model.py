"""The model's configuration, modes, padding, masks and fallbacks."""

import itertools
import math

import pytest
import torch
from pydantic import ValidationError

from metatl.exceptions import ConfigError, InvalidArgumentError
from metatl.models.contract import NO_ITEM, FactorisedModel, Overrides
from metatl.models.dropout import dropout, dropout_factors
from metatl.models.metatl.model import PRESETS, MetaTL, MetaTLConfig
from metatl.models.metatl.transition import Mlp, PairNorm

ITEMS = 50


def tasks(config, count=8, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randint(ITEMS, shape, generator=generator)

    return draw(count, config.k + 1), draw(count, config.k, config.negatives), draw(config.shared_negatives)


# --- Configuration


def test_tuned_is_the_default_and_every_preset_is_valid():
    assert MetaTLConfig.preset("tuned") == MetaTLConfig()
    for name in PRESETS:
        config = MetaTLConfig.preset(name)
        assert MetaTLConfig.model_validate_json(config.model_dump_json()) == config


def test_the_paper_is_equations_1_to_6():
    config = MetaTLConfig.preset("paper")
    assert (config.learner, config.transition_skip, config.distance) == ("one_layer", None, "squared_l2")
    assert (config.loss, config.negatives, config.shared_negatives) == ("margin", 1, 0)
    assert (config.support_reduction, config.outer_reduction) == ("sum", "sum")
    assert (config.adapt, config.inner_steps, config.first_order) == ("learner_and_embeddings", 1, False)
    assert (config.optimizer, config.item_bias, config.learned_temperature) == ("sgd", False, False)
    assert not config.outer_adds_support_loss


def test_metatl_without_adaptation_is_one_field_away():
    for name in PRESETS:
        config = MetaTLConfig.preset(name, inner_steps=0)
        assert MetaTL(config, ITEMS).support_negatives == 0


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"batch_norm": True}, "batch_norm"),
        ({"learner_dropout": 0.5}, "learner_dropout"),
        ({"learner": "mlp"}, "transition_skip"),
        ({"learner": "mlp", "transition_skip": None, "hidden": ()}, "hidden"),
        (
            {"learner": "mlp", "transition_skip": None, "learner_bias": 0, "adapt": "learner"},
            "takes adapt='transition' only",
        ),
        ({"learned_inner_lr": True, "adapt": "learner"}, "learned_inner_lr"),
        ({"learned_inner_lr": True, "inner_steps": 0}, "learned_inner_lr"),
        ({"loss": "margin"}, "temperature"),
        ({"negatives": 0, "shared_negatives": 0, "shared_support_negatives": 0}, "negatives"),
        ({"shared_negatives": 8, "shared_support_negatives": 9}, "shared_support_negatives"),
        ({"shared_support_negatives": 0}, "support loss needs"),
        ({"released_windows": True, "window_share": 0.0}, "released_windows"),
        ({"k": 1}, "k"),
        ({"dim": 0}, "dim"),
        ({"inner_steps": -1}, "inner_steps"),
        ({"item_dropout": 1.0}, "item_dropout"),
        ({"meta_lr": math.nan}, "meta_lr"),
        ({"window_share": 1.5}, "window_share"),
        ({"cross_fit_folds": 1}, "without its only fold"),
        ({"item_start": "random"}, "cross_fit_folds"),
        ({"item_bias": False}, "trend_weight"),
        ({"learner": "mlp", "transition_skip": None}, "learner_bias"),
        ({"dimension": 8}, "dimension"),
    ],
)
def test_a_senseless_field_is_refused_by_name(fields, word):
    with pytest.raises(ValidationError, match=word):
        MetaTLConfig.preset("tuned", **fields)


def test_a_config_is_immutable():
    with pytest.raises(ValidationError):
        MetaTLConfig().dim = 3


def test_an_unknown_preset_lists_the_known_ones():
    with pytest.raises(ConfigError, match="paper, official, tuned"):
        MetaTLConfig.preset("best")


def test_learning_rate_warms_up_and_falls_to_its_share():
    config = MetaTLConfig.preset("tuned", meta_lr=0.01, warmup_steps=10, max_steps=110, final_lr_share=0.02)
    rates = [config.learning_rate(step) for step in range(111)]
    assert rates[0] == pytest.approx(0.001)
    assert rates[9] == rates[10] == pytest.approx(0.01)
    assert rates[60] == pytest.approx(0.01 * 0.51)
    assert rates[110] == pytest.approx(0.0002)
    assert all(a >= b for a, b in itertools.pairwise(rates[10:]))
    constant = MetaTLConfig.preset("official")
    assert constant.learning_rate(0) == constant.learning_rate(7999) == constant.meta_lr


# --- Training


@pytest.mark.parametrize("name", list(PRESETS))
def test_every_parameter_is_trained(name):
    torch.manual_seed(0)
    config = MetaTLConfig.preset(name)
    model = MetaTL(config, ITEMS)
    assert isinstance(model, FactorisedModel)
    loss = model.episode_loss(*tasks(config))
    assert loss.shape == ()
    loss.backward()
    for parameter, value in model.named_parameters():
        assert value.grad is not None, parameter
        assert torch.isfinite(value.grad).all(), parameter


def test_float32_follows_float64():
    for name in PRESETS:
        config = MetaTLConfig.preset(name)
        torch.manual_seed(0)
        model = MetaTL(config, ITEMS).eval()
        single = model.episode_loss(*tasks(config)).item()
        double = model.double().episode_loss(*tasks(config)).item()
        assert single == pytest.approx(double, rel=1e-5)


def test_padding_is_a_zero_vector_that_nothing_trains():
    config = MetaTLConfig.preset("official", dim=6, hidden=(5, 4))
    torch.manual_seed(0)
    model = MetaTL(config, ITEMS).eval()
    items, negatives, shared = tasks(config, count=4)
    items[:, :3] = NO_ITEM
    negatives[:, :2] = NO_ITEM
    model.episode_loss(items, negatives, shared).backward()
    used = torch.cat((items[:, 3], negatives[:, 2, 0])).unique()
    trained = model.embedding.weight.grad.abs().sum(1).nonzero()[:, 0]
    assert torch.equal(trained, used)
    # An all-zero item stands in for the padding: the loss is the same.
    zero = next(i for i in range(ITEMS) if i not in used)
    with torch.no_grad():
        expected = model.episode_loss(items, negatives, shared)
        model.embedding.weight[zero] = 0
        stood_in = model.episode_loss(
            items.masked_fill(items == NO_ITEM, zero),
            negatives.masked_fill(negatives == NO_ITEM, zero),
            shared,
        )
    assert torch.allclose(stood_in, expected)


@pytest.mark.parametrize("adapt", ["transition", "learner_and_embeddings"])
def test_a_shared_negative_that_is_the_positive_does_not_count(adapt):
    config = MetaTLConfig.preset(
        "tuned", k=2, shared_negatives=3, shared_support_negatives=2, item_dropout=0.0, adapt=adapt
    )
    model = MetaTL(config, ITEMS).double()
    items, negatives = torch.tensor([[1, 2, 3]]), torch.empty(1, 2, 0, dtype=torch.int64)
    with_positives = model.episode_loss(
        items, negatives, torch.tensor([2, 7, 3])
    )  # 2: support tail, 3: target
    config = config.model_copy(update={"shared_negatives": 2, "shared_support_negatives": 1})
    fewer = MetaTL(config, ITEMS).double()
    fewer.load_state_dict(model.state_dict())
    # Without the support tail among the support's negatives; the query keeps item 2 as a negative.
    without = fewer.episode_loss(items, negatives, torch.tensor([7, 2]))
    assert torch.allclose(with_positives, without)


def test_batch_mean_makes_the_inner_step_of_training_smaller_by_the_batch():
    config = MetaTLConfig.preset(
        "official", dim=6, hidden=(5, 4), outer_adds_support_loss=False, inner_lr=0.3
    )
    torch.manual_seed(0)
    model = MetaTL(config, ITEMS).double().eval()
    batch = tasks(config, count=4)
    released = model.episode_loss(*batch)
    model.config = config.model_copy(update={"support_reduction": "mean", "inner_lr": 0.3 / 4})
    assert torch.allclose(model.episode_loss(*batch), released)


def test_the_released_freeze_outlives_a_checkpoint():
    config = MetaTLConfig.preset("official", dim=6, hidden=(5, 4))
    model = MetaTL(config, ITEMS)
    assert model.train().training
    model.after_evaluation()
    assert not model.training
    assert not model.train().learner.training
    resumed = MetaTL(config, ITEMS)
    resumed.load_state_dict(model.state_dict())
    assert not resumed.train().training
    tuned = MetaTL(MetaTLConfig(dim=4), ITEMS)
    tuned.after_evaluation()
    assert tuned.train().training


def test_item_offsets_are_added_to_the_item_vectors():
    torch.manual_seed(0)
    config = MetaTLConfig.preset("tuned", dim=6)
    model = MetaTL(config, ITEMS).double()
    offsets = torch.randn(ITEMS, 6, dtype=torch.float64)
    batch = tasks(config)
    with_offsets = model.episode_loss(*batch, item_offsets=offsets)
    with torch.no_grad():
        model.embedding.weight += offsets
    assert torch.allclose(model.episode_loss(*batch), with_offsets)


def test_started_items_rank_by_their_inner_product_and_trend():
    torch.manual_seed(0)
    model = MetaTL(MetaTLConfig.preset("tuned", dim=6), ITEMS)
    vectors, query, trend = torch.randn(ITEMS, 6), torch.randn(6), torch.randn(ITEMS)
    model.start_items(vectors, trend)
    assert torch.equal(model.item_table, vectors)
    scores = model.item_bias - (query - vectors).square().sum(dim=1)
    product = 2 * vectors @ query + model.config.temperature * model.config.trend_weight * trend
    assert torch.allclose(scores - scores[0], product - product[0], atol=1e-4)


# --- Serving


@pytest.mark.parametrize("name", list(PRESETS))
def test_encode_is_the_same_in_every_mode_and_restores_it(name):
    torch.manual_seed(0)
    model = MetaTL(MetaTLConfig.preset(name), ITEMS)
    histories = torch.randint(ITEMS, (5, 3))
    negatives = torch.randint(ITEMS, (5, model.support_negatives))
    in_training = model.train().encode(histories, negatives)
    assert model.training
    in_evaluation = model.eval().encode(histories, negatives)
    assert torch.equal(in_training.queries, in_evaluation.queries)
    assert (in_training.overrides is None) == (name != "paper")
    assert not in_training.queries.requires_grad


def test_one_interaction_falls_back_to_the_mean_transition_of_training_users():
    torch.manual_seed(0)
    model = MetaTL(MetaTLConfig.preset("tuned"), ITEMS)
    histories = torch.randint(ITEMS, (40, 3))
    assert torch.equal(model.encode(histories[:, :1]).queries, model.embedding.weight[histories[:, 0]])
    model.set_mean_transition(histories)
    rows = model.embedding.weight[histories]
    pairs = torch.stack((rows[:, :-1], rows[:, 1:]), dim=2)
    expected = model.learner(pairs).mean(dim=(0, 1))
    encoded = model.encode(histories[:, :1])
    assert torch.allclose(encoded.queries, rows[:, 0] + expected, atol=1e-6)
    assert encoded.overrides is None
    assert torch.allclose(model.state_dict()["mean_transition"], expected, atol=1e-6)


def test_without_adaptation_the_query_is_the_last_item_plus_the_mean_transition_of_its_pairs():
    torch.manual_seed(0)
    model = MetaTL(MetaTLConfig.preset("tuned", inner_steps=0), ITEMS)
    history = torch.tensor([[4, 9, 2, 2]])
    rows = model.embedding.weight[history[0]]
    heads, tails = rows[:-1], rows[1:]
    z = torch.cat((heads, tails), dim=1) @ model.learner.weight.T + model.learner.bias
    transitions = torch.sigmoid(z) + 1.3 * heads
    assert torch.allclose(model.encode(history).queries[0], rows[-1] + transitions.mean(0), atol=1e-6)


@pytest.mark.parametrize("negatives", [None, torch.zeros(2, 31, dtype=torch.int64)])
def test_missing_or_misshapen_negatives_are_refused(negatives):
    model = MetaTL(MetaTLConfig.preset("tuned"), ITEMS)
    with pytest.raises(InvalidArgumentError, match=r"negatives: .* \(2, 32\)"):
        model.encode(torch.zeros(2, 3, dtype=torch.int64), negatives)


def test_misshapen_histories_are_refused():
    model = MetaTL(MetaTLConfig.preset("tuned"), ITEMS)
    with pytest.raises(InvalidArgumentError, match="histories"):
        model.encode(torch.zeros(3, dtype=torch.int64))


def test_overrides_drop_their_filling():
    items = torch.tensor([[3, NO_ITEM, 5], [NO_ITEM, NO_ITEM, NO_ITEM], [1, 2, NO_ITEM]])
    rows = torch.arange(18.0).view(3, 3, 2)
    indptr, flat_items, flat_rows = Overrides(items, rows).ragged()
    assert indptr.tolist() == [0, 2, 2, 4]
    assert flat_items.tolist() == [3, 5, 1, 2]
    assert flat_rows.tolist() == [[0, 1], [4, 5], [12, 13], [14, 15]]
    assert flat_rows.is_contiguous()


# --- Parts


@pytest.mark.parametrize("probability", [0.1, 0.5, 0.9])
def test_dropout_keeps_the_mean(probability):
    torch.manual_seed(0)
    factors = dropout_factors(torch.empty(1_000_003), probability)
    level = round(probability * 256) / 256
    assert factors.unique().tolist() == pytest.approx([0.0, 1 / (1 - level)])
    assert (factors == 0).double().mean().item() == pytest.approx(level, abs=4 * math.sqrt(0.25 / 1e6))
    # Neighbours come from the same draw of eight bytes and must not depend on each other.
    zero = (factors[:1_000_000] == 0).view(-1, 8).double()
    correlations = torch.corrcoef(zero.T) - torch.eye(8)
    assert correlations.abs().max() < 5 / math.sqrt(len(zero))


def test_dropout_is_repeatable_and_off_outside_training():
    features = torch.ones(100)
    assert dropout(features, 0.5, training=False) is features
    assert dropout(features, 0.0, training=True) is features
    torch.manual_seed(3)
    first = dropout(features, 0.5, training=True)
    torch.manual_seed(3)
    assert torch.equal(dropout(features, 0.5, training=True), first)


def test_pair_norm_on_cuda_is_batch_norm():
    torch.manual_seed(0)
    ours, theirs = PairNorm(3), torch.nn.BatchNorm1d(3)
    for norm in (ours, theirs):
        with torch.no_grad():
            norm.weight.copy_(torch.tensor([0.5, 1.0, 2.0]))
            norm.bias.copy_(torch.tensor([1.0, 0.0, -1.0]))
    for _ in range(3):
        features = [(torch.randn(8, 3, 5) * 3 + 1).requires_grad_()]
        features.append(features[0].detach().clone().requires_grad_())
        outputs = ours._normalise_on_cuda(features[0]), theirs(features[1])
        torch.testing.assert_close(*outputs)
        weights = torch.randn_like(outputs[0])
        for output in outputs:
            (output * weights).sum().backward()
        torch.testing.assert_close(features[0].grad, features[1].grad)
    for name, tensor in ours.state_dict().items():
        torch.testing.assert_close(tensor, theirs.state_dict()[name])
    torch.testing.assert_close(ours.weight.grad, theirs.weight.grad)
    torch.testing.assert_close(ours.bias.grad, theirs.bias.grad)


def test_pair_norm_is_batch_norm_over_pairs_aligned_at_the_most_recent():
    torch.manual_seed(0)
    ours, theirs = PairNorm(3), torch.nn.BatchNorm1d(3)
    with torch.no_grad():
        for norm in (ours, theirs):
            norm.weight.copy_(torch.tensor([0.5, 1.0, 2.0]))
            norm.bias.copy_(torch.tensor([0.1, 0.2, 0.3]))
    features = torch.randn(20, 3, 7) * 2 + 1
    assert torch.allclose(ours(features), theirs(features), atol=1e-6)
    ours.eval()
    theirs.eval()
    normed = theirs(features)
    assert torch.allclose(ours(features), normed, atol=1e-6)
    assert torch.allclose(ours(features[:, 1:]), normed[:, 1:], atol=1e-6)
    longer = torch.cat((features[:, :1], features), dim=1)
    assert torch.allclose(ours(longer), torch.cat((normed[:, :1], normed), dim=1), atol=1e-6)


def test_the_mlp_has_the_released_shape():
    learner = Mlp(100, (500, 200), 0.5, 2)
    assert [tuple(layer.weight.shape) for layer in learner.layers] == [(500, 200), (200, 500), (100, 200)]
    assert learner(torch.randn(4, 2, 2, 100)).shape == (4, 2, 100)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", list(PRESETS))
def test_cuda_gives_the_loss_of_the_cpu(name):
    config = MetaTLConfig.preset(name)
    torch.manual_seed(0)
    model = MetaTL(config, ITEMS).eval()
    batch = tasks(config)
    expected = model.episode_loss(*batch).item()
    model.cuda()
    batch = [tensor.cuda() for tensor in batch]
    loss = model.episode_loss(*batch)
    loss.backward()
    assert loss.item() == pytest.approx(expected, rel=1e-3)
