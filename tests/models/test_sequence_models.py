"""The sequential baselines: nothing sees the future, padding changes nothing, order is learned."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

import metatl
from metatl.exceptions import ConfigError
from metatl.models import SYSTEMS
from metatl.models.contract import NO_ITEM
from metatl.models.next_item_losses import next_item_loss
from metatl.models.sequence_model import look_up
from metatl.models.trainable import TensorBatch
from planted_data import ring
from property_settings import COSTLY_CASES

NAMES = ["gru4rec", "tcn", "sasrec", "bert4rec"]
CAUSAL = ["gru4rec", "tcn", "sasrec"]
NUM_ITEMS = 40


def build(name, preset="tuned", **changes):
    """A model with weights large enough for differences to show."""
    system = SYSTEMS[name]
    config = system.config_class()(**{**system.config_class().preset(preset).model_dump(), **changes})
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = system.model_class()(config, NUM_ITEMS)
        for parameter in model.parameters():
            if parameter.dim() > 1:
                torch.nn.init.normal_(parameter, std=0.4)
    return model.double().eval()


def give_random_biases(module):
    with torch.random.fork_rng():
        torch.manual_seed(2)
        for name, parameter in module.named_parameters():
            if name.endswith("bias"):
                torch.nn.init.normal_(parameter, std=0.4)


def states_of(model, items):
    return model.states(look_up(model.embedding.weight, items))


histories = st.lists(st.integers(0, NUM_ITEMS - 1), min_size=1, max_size=9)


@pytest.mark.parametrize("name", CAUSAL)
@COSTLY_CASES
@given(items=histories, others=histories)
def test_a_state_does_not_see_what_comes_later(name, items, others, request):
    model = request.getfixturevalue("models")[name]
    both = torch.tensor([items + others])
    alone = states_of(model, torch.tensor([items]))
    assert torch.allclose(states_of(model, both)[:, : len(items)], alone, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
@COSTLY_CASES
@given(items=histories, padding=st.integers(1, 8))
def test_padding_changes_no_state(name, items, padding, request):
    model = request.getfixturevalue("models")[name]
    sequence = torch.tensor([items])
    padded = torch.nn.functional.pad(sequence, (0, padding), value=NO_ITEM)
    if name == "bert4rec":
        masked = torch.zeros(1, len(items) + padding, dtype=torch.bool)
        masked[0, len(items) // 2] = True
        alone = model.read(sequence, masked[:, : len(items)])
        beside = model.read(padded, masked)
    else:
        alone, beside = states_of(model, sequence), states_of(model, padded)
    assert torch.allclose(beside[:, : len(items)], alone, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_every_item_of_a_history_counts(name):
    model = build(name, max_length=9, dim=16)
    items = torch.arange(5)
    query = model.encode(items[None]).queries
    for place in range(5):
        changed = items.clone()
        changed[place] = 30
        assert not torch.allclose(model.encode(changed[None]).queries, query, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_only_the_most_recent_items_are_read(name):
    model = build(name, max_length=4)
    long = torch.arange(9)[None]
    assert torch.equal(model.encode(long).queries, model.encode(long[:, -4:]).queries)


@pytest.mark.parametrize("preset", ["paper", "tuned"])
@pytest.mark.parametrize("blocks", [1, 2, 3])
@pytest.mark.parametrize("length", [1, 2, 7])
def test_the_last_state_equals_that_of_the_whole_encoder(preset, blocks, length):
    histories = torch.arange(3 * length).view(3, length)
    masked = torch.zeros(3, length + 1, dtype=torch.bool)
    masked[:, -1] = True
    sizes = {"blocks": blocks, "dim": 16, "heads": 2, "max_length": 9}
    causal, cloze = build("sasrec", preset, **sizes), build("bert4rec", preset, **sizes)
    for model in (causal, cloze):
        # torch starts the biases of attention at zero, where a wrong one would not show.
        give_random_biases(model.encoder)
    whole = cloze.read(torch.nn.functional.pad(histories, (0, 1)), masked)
    for model, states in ((causal, states_of(causal, histories)), (cloze, whole)):
        queries = model.encode(histories).queries
        assert queries.is_contiguous()
        assert torch.allclose(queries, states[:, -1], atol=1e-12)


@pytest.fixture(scope="module")
def models():
    return {name: build(name, max_length=20) for name in NAMES}


def test_a_hidden_item_is_hidden():
    model = build("bert4rec")
    items = torch.arange(5)[None]
    masked = torch.tensor([[False, False, True, False, False]])
    other = items.clone()
    other[0, 2] = 17
    assert torch.equal(model.read(items, masked), model.read(other, masked))
    assert not torch.equal(model.read(items, ~masked), model.read(other, ~masked))


@COSTLY_CASES
@given(
    st.lists(st.integers(2, 9), min_size=1, max_size=6), st.floats(0.01, 0.99), st.floats(0, 1), st.booleans()
)
def test_at_least_one_item_is_hidden_and_never_all(lengths, mask_share, last_share, random_prefixes):
    config = SYSTEMS["bert4rec"].config_class()(
        mask_share=mask_share, last_share=last_share, random_prefixes=random_prefixes, dim=8
    )
    model = SYSTEMS["bert4rec"].model_class()(config, NUM_ITEMS)
    whole = torch.full((len(lengths), 9), NO_ITEM)
    for row, length in enumerate(lengths):
        whole[row, :length] = torch.arange(length)
    items, masked = model.draw_mask(whole)
    assert not masked[items == NO_ITEM].any()
    for row, length in enumerate(lengths):
        kept = int((items[row] != NO_ITEM).sum())
        assert torch.equal(items[row, :kept], whole[row, :kept])
        assert (items[row, kept:] == NO_ITEM).all()
        hidden = masked[row].sum().item()
        assert 1 <= hidden < kept
        only_last = hidden == 1 and masked[row, kept - 1]
        expected = min(max(1, round(length * mask_share)), length - 1)
        assert only_last or (kept == length and abs(hidden - expected) <= 1)
        assert kept == length or random_prefixes


@pytest.mark.parametrize("random_prefixes", [False, True])
def test_the_last_item_is_hidden_after_prefixes_of_every_length(random_prefixes):
    config = SYSTEMS["bert4rec"].config_class()(last_share=1.0, random_prefixes=random_prefixes, dim=8)
    model = SYSTEMS["bert4rec"].model_class()(config, NUM_ITEMS)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        items, masked = model.draw_mask(torch.arange(6).repeat(60_000, 1))
    kept = (items != NO_ITEM).sum(dim=1)
    assert torch.equal(masked.float().argmax(dim=1), kept - 1)
    counts = torch.bincount(kept, minlength=7).tolist()
    assert counts[6] == 60_000 if not random_prefixes else counts[:2] == [0, 0]
    assert not random_prefixes or stats.chisquare(counts[2:]).pvalue > 1e-6


def plain_loss(model, batch):
    """Mean loss over the places with a next item, place by place, of a causal model."""
    config = model.config
    losses = []
    items = batch.items.tolist()
    for row, sequence in enumerate(items):
        for place in range(len(sequence) - 1):
            target = sequence[place + 1]
            if target == NO_ITEM:
                continue
            state = states_of(model, torch.tensor([sequence[: place + 1]]))[0, -1]
            negatives = batch.negatives[row, place].tolist()
            negatives += [item for item in batch.shared_negatives.tolist() if item != target]
            if config.batch_negatives:
                same_place = [other[place + 1] for other in items]
                negatives += [item for item in same_place if item not in (target, NO_ITEM)]
            if config.ranks_catalogue:
                negatives = [item for item in range(NUM_ITEMS) if item != target]
            if not negatives:
                continue
            scores = model.output.weight @ state
            if model.bias is not None:
                scores = scores + model.bias
            losses.append(
                next_item_loss(
                    config.loss, scores[target][None], scores[negatives][None], penalty=config.score_penalty
                )
            )
    return torch.cat(losses).mean()


# Only the softmax can do without sampled negatives: it ranks the catalogue.
LOSSES_AND_NEGATIVES = [
    (loss, batch_negatives, counts)
    for loss in ("softmax", "binary", "bpr", "bpr_max", "top1_max")
    for batch_negatives in (False, True)
    for counts in ((0, 0), (2, 0), (0, 3), (2, 3))
    if loss == "softmax" or batch_negatives or counts != (0, 0)
]


@pytest.mark.parametrize("name", CAUSAL)
@pytest.mark.parametrize(("loss", "batch_negatives", "counts"), LOSSES_AND_NEGATIVES)
@pytest.mark.parametrize("tied", [False, True])
def test_the_training_loss_is_the_mean_over_places(name, loss, batch_negatives, counts, tied):
    negatives, shared = counts
    model = build(
        name,
        loss=loss,
        batch_negatives=batch_negatives,
        negatives=negatives,
        shared_negatives=shared,
        tied=tied,
        score_penalty=0.3,
        max_length=6,
    )
    generator = torch.Generator().manual_seed(3)
    items = torch.randint(NUM_ITEMS, (4, 7), generator=generator)
    items[1, 3:] = NO_ITEM
    items[2, 2:] = NO_ITEM
    batch = TensorBatch(
        torch.arange(4),
        items,
        torch.randint(NUM_ITEMS, (4, 6, negatives), generator=generator),
        torch.cat((items[0, 1:2], torch.randint(NUM_ITEMS, (max(shared - 1, 0),), generator=generator)))[
            :shared
        ],
    )
    assert model.training_loss(batch).item() == pytest.approx(plain_loss(model, batch).item(), rel=1e-9)


PLANTED = {
    "gru4rec": {"item_dropout": 0.0, "state_dropout": 0.0},
    "tcn": {"item_dropout": 0.0, "dropout": 0.0},
    "sasrec": {"item_dropout": 0.0, "dropout": 0.0},
    "bert4rec": {"item_dropout": 0.0, "dropout": 0.0},
}


@pytest.mark.parametrize("name", NAMES)
def test_the_direction_of_a_ring_is_learned(name):
    config = {
        "dim": 32,
        "max_length": 8,
        "lr": 1e-2,
        "warmup_steps": 20,
        "batch_size": 128,
        "max_steps": 300,
        "eval_every": 60,
        **PLANTED[name],
    }
    run = metatl.fit(ring(), model=name, config=config, device="cpu")
    evaluation = metatl.evaluate(run, data=ring())
    assert evaluation.metrics.sampled["MRR"].value > 0.95


@pytest.mark.parametrize("name", ["sasrec", "bert4rec"])
def test_heads_must_divide_the_dimension(name):
    with pytest.raises(ConfigError, match="heads: 3 do not divide dim=128"):
        metatl.fit(ring(), model=name, config={"heads": 3})
