"""Ranking on a CUDA device, compared with the kernels on the CPU.

Without a CUDA device Triton interprets the kernels on the CPU. Inputs are small integers: their sums are
exact in any order, so the counts must be equal.
"""

import numpy as np
import pytest
import torch

from full_ranking import rank_catalogue
from metatl.common.timings import Timings
from metatl.data.histories import Histories
from metatl.exceptions import InvalidArgumentError, NotANumberError
from metatl.models.contract import NO_ITEM, Encoded, Overrides
from metatl.ranking.cuda_blocks import Catalogue, CudaBlock
from metatl.ranking.encoders import FactorisedEncoder, ranks_on_cuda
from metatl.ranking.rank import rank_candidates
from ragged_rows import ragged

pytest.importorskip("triton")

from metatl.ranking import cuda_blocks as cuda_ranking

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SIMILARITIES = ("dot", "l2", "squared_l2")


class Table:
    """The attributes of a model that ranking reads; the tests supply its queries."""

    encode = None

    def __init__(self, rows, bias, similarity):
        self.item_table, self.item_bias, self.similarity = rows, bias, similarity


def integers(generator, *shape, limit=3):
    return torch.from_numpy(generator.integers(-limit, limit + 1, shape).astype(np.float32)).to(DEVICE)


def cuda_block(model, encoded):
    """The block on the device; it makes its block on the CPU from the same encoded users."""
    timings = Timings()
    cpu_encoder = FactorisedEncoder.of(model, "float32", 0, None, timings)
    catalogue = Catalogue.of(model.item_table, model.item_bias, model.similarity)
    return CudaBlock(
        encoded.queries, catalogue, encoded.overrides, lambda: cpu_encoder.block(encoded), timings
    )


def world(generator, similarity, *, users, items, dim, bias=True, overridden=0):
    """Random users and items as a block on the device and one on the CPU."""
    overrides = None
    if overridden:
        ids = np.stack([generator.permutation(items)[:overridden] for _ in range(users)])
        ids[generator.random(ids.shape) < 0.2] = NO_ITEM
        overrides = Overrides(torch.from_numpy(ids).to(DEVICE), integers(generator, users, overridden, dim))
    model = Table(integers(generator, items, dim), integers(generator, items) if bias else None, similarity)
    encoded = Encoded(integers(generator, users, dim), overrides)
    on_device = cuda_block(model, encoded)
    return [on_device, on_device.make_cpu_block()]


def lists(generator, users, items):
    """A list of items, with repetitions, for each user."""
    return ragged([generator.integers(items, size=generator.integers(0, 9)) for _ in range(users)])


def assert_same(actual, expected):
    np.testing.assert_array_equal(actual.greater, expected.greater)
    np.testing.assert_array_equal(actual.equal, expected.equal)


@pytest.fixture(autouse=True)
def small_programs(monkeypatch):
    """Small programs, so that small catalogues need several programs of several rounds."""
    monkeypatch.setattr(cuda_ranking, "ITEMS_AT_ONCE", 128)
    monkeypatch.setattr(cuda_ranking, "ITEMS_OF_PROGRAM", 256)


@pytest.mark.parametrize("overridden", [0, 4])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize(("users", "items", "dim"), [(1, 1, 1), (3, 40, 5), (65, 300, 8), (70, 600, 3)])
def test_counts_equal_those_on_the_cpu(similarity, users, items, dim, bias, overridden):
    generator = np.random.default_rng(users)
    blocks = world(
        generator, similarity, users=users, items=items, dim=dim, bias=bias, overridden=min(overridden, items)
    )
    targets = generator.integers(items, size=users)
    excluded = lists(generator, users, items)
    assert_same(*(block.rank_catalogue(targets, excluded) for block in blocks))
    candidates = generator.integers(items, size=(users, 7))
    assert_same(*(block.rank_candidates(candidates) for block in blocks))
    best, expected = (block.top_n(5, excluded) for block in blocks)
    np.testing.assert_array_equal(best.items, expected.items)


def test_a_target_with_an_override_is_ranked_by_its_override():
    rows = torch.zeros(4, 1, device=DEVICE)
    overrides = Overrides(torch.tensor([[2]], device=DEVICE), torch.tensor([[[5.0]]], device=DEVICE))
    encoded = Encoded(torch.ones(1, 1, device=DEVICE), overrides)
    block = cuda_block(Table(rows, None, "dot"), encoded)
    nothing = ragged([[]])
    assert block.rank_catalogue(np.array([2]), nothing) == ([0], [0])
    assert block.rank_catalogue(np.array([1]), nothing) == ([1], [2])
    assert block.rank_catalogue(np.array([1]), ragged([[2, 1]])) == ([0], [2])


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_a_nan_score_of_a_target_or_negative_is_an_error(similarity):
    generator = np.random.default_rng(0)
    for item in (3, 7):  # a negative, the target
        blocks = world(generator, similarity, users=2, items=20, dim=3)
        for block in blocks:
            biases = block.catalogue.biases if hasattr(block, "catalogue") else block.item_bias
            biases[item] = torch.nan
        errors = []
        for block in blocks:
            with pytest.raises(NotANumberError) as error:
                block.rank_catalogue(np.array([7, 7]), ragged([[1], []]))
            errors.append(str(error.value))
        assert errors == ["scores: found 2 NaN, expected none"] * 2
        # An excluded item may have any score.
        if item != 7:
            without = ragged([[item], [item]])
            assert_same(*(block.rank_catalogue(np.array([7, 7]), without) for block in blocks))


def test_infinite_scores_are_ranked():
    generator = np.random.default_rng(1)
    for value in (torch.inf, -torch.inf):
        blocks = world(generator, "dot", users=5, items=30, dim=2)
        for block in blocks:
            biases = block.catalogue.biases if hasattr(block, "catalogue") else block.item_bias
            biases[:10] = value
        excluded = lists(generator, 5, 30)
        assert_same(*(block.rank_catalogue(np.arange(8, 13), excluded) for block in blocks))


def test_items_outside_the_catalogue_are_refused():
    block, _ = world(np.random.default_rng(2), "dot", users=1, items=4, dim=2)
    nothing = ragged([[]])
    with pytest.raises(InvalidArgumentError, match="targets: found item 4, expected 0 to 3"):
        block.rank_catalogue(np.array([4]), nothing)
    with pytest.raises(InvalidArgumentError, match="excluded: found item -1, expected 0 to 3"):
        block.rank_catalogue(np.array([0]), ragged([[-1]]))
    with pytest.raises(InvalidArgumentError, match="candidates: found item 9, expected 0 to 3"):
        block.rank_candidates(np.array([[0, 9]]))


def test_all_kernels_give_a_pair_the_same_score():
    """Every item has a copy, which must score exactly the same."""
    generator = np.random.default_rng(3)
    rows = torch.from_numpy(generator.normal(size=(150, 40)).astype(np.float32)).to(DEVICE)
    queries = torch.from_numpy(generator.normal(size=(70, 40)).astype(np.float32)).to(DEVICE)
    for similarity in SIMILARITIES:
        model = Table(torch.cat((rows, rows)), None, similarity)
        block = cuda_block(model, Encoded(queries, None))
        targets = generator.integers(300, size=70)
        counts = block.rank_catalogue(targets, ragged([[]] * 70))
        np.testing.assert_array_equal(counts.equal, 1)
        copies = ragged([[target] for target in (targets + 150) % 300])
        np.testing.assert_array_equal(block.rank_catalogue(targets, copies).equal, 0)


def test_without_a_compiler_models_are_ranked_on_the_cpu(monkeypatch):
    assert cuda_ranking.can_build_kernels(torch.device(DEVICE))
    cuda_ranking.can_build_kernels.cache_clear()

    class Kernel:
        def __getitem__(self, _):
            raise RuntimeError("Failed to find C compiler")

    monkeypatch.setattr(cuda_ranking, "score_pairs", Kernel())
    with pytest.warns(RuntimeWarning, match="ranked on the CPU because .*Failed to find C compiler"):
        assert not cuda_ranking.can_build_kernels(torch.device(DEVICE))
    cuda_ranking.can_build_kernels.cache_clear()


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("preset", ["paper", "official", "tuned"])
def test_a_model_on_cuda_ranks_as_on_the_cpu(preset):
    from metatl.models.metatl.model import MetaTL, MetaTLConfig

    generator = np.random.default_rng(4)
    torch.manual_seed(0)
    model = MetaTL(MetaTLConfig.preset(preset), 3000).eval()
    histories = generator.integers(3000, size=(500, 3))
    targets = generator.integers(3000, size=500)
    candidates = generator.integers(3000, size=(500, 101))
    excluded = Histories.from_matrix(histories)
    counts = []
    for device in ("cpu", "cuda"):
        model.to(device)
        assert ranks_on_cuda(model.item_table.device) == (device == "cuda")
        counts.append(
            [
                rank_catalogue(model, histories, targets, excluded),
                rank_candidates(model, histories, candidates),
            ]
        )
    for on_cpu, on_device in zip(*counts, strict=True):
        # Rounding in encoding and scoring may swap items with nearly equal scores.
        changed = np.abs(on_cpu.greater - on_device.greater)
        assert changed.max() <= 3
        assert (changed > 0).mean() < 0.05
