"""The work of `metatl-eval scores` and `embeddings`, compared with numpy and a metrics library."""

import ir_measures
import numpy as np
import pytest

import reference
from metatl import _metatl
from metatl.evaluation.external.evaluate_scores import evaluate_scores
from metatl.evaluation.measures import Measures, RankedUsers, Ranking, measure
from metatl.metrics.rank_metrics import parse_metrics
from metatl.ranking.blocks import RankCounts
from sizes import NUM_ITEMS

METRICS = "MRR,HR@1,HR@10,NDCG@10"
PIPELINE = "candidates, gather, score, rank, metrics, bootstrap: 100 of 20,000 items, d = 100"
SCORES = "metrics of given scores, 101 a user"
N = 100


@pytest.fixture(scope="module")
def scores():
    generator = np.random.default_rng(4)
    return generator.permuted(np.tile(np.arange(1 + N, dtype=np.float32), (20_000, 1)), axis=1)


def test_pipeline_metatl(measure, world, vectors):
    users = np.arange(len(vectors.queries))
    measures = Measures(parse_metrics(METRICS))

    def pipeline():
        candidates = _metatl.sample_candidates(world.interactions, users, vectors.targets, N, seed=0)
        counts = _metatl.rank_candidates(
            vectors.queries, vectors.table, candidates, item_bias=None, similarity="dot", overrides=None
        )
        return summarise(counts, measures)

    measure(pipeline, work=PIPELINE, system="metatl", units=len(users), unit="users")


def summarise(counts, measures):
    users = len(counts[0])
    ranking = Ranking(RankCounts(*counts), np.full(users, N))
    return measure(RankedUsers(None, ranking), measures)


def test_pipeline_numpy(measure, world, vectors):
    generator = np.random.default_rng(0)
    users = len(vectors.queries)
    owned = np.zeros((users, NUM_ITEMS), bool)
    for user in range(users):
        owned[user, world.rows[user]] = True

    def pipeline():
        # Distinct negatives that the user does not own: the smallest of random keys.
        keys = generator.random((users, NUM_ITEMS), dtype=np.float32)
        keys[owned] = 2
        negatives = np.argpartition(keys, N, axis=1)[:, :N]
        candidates = np.concatenate([vectors.targets[:, None], negatives], axis=1)
        return reference.numpy_metrics(np.einsum("ud,ucd->uc", vectors.queries, vectors.table[candidates]))

    measure(pipeline, work=PIPELINE, system="numpy", units=users, unit="users", rounds=1)


def test_scores_metatl(measure, scores):
    measure(
        lambda: evaluate_scores(scores, metrics=METRICS),
        work=SCORES,
        system="metatl",
        units=len(scores),
        unit="users",
    )


def test_scores_numpy(measure, scores):
    measure(
        lambda: reference.numpy_metrics(scores),
        work=SCORES,
        system="numpy",
        units=len(scores),
        unit="users",
        rounds=2,
    )


def test_scores_ir_measures(measure, scores):
    users = 1000
    relevant = [ir_measures.Qrel(str(user), "0", 1) for user in range(users)]
    run = [
        ir_measures.ScoredDoc(str(user), str(item), float(score))
        for user, row in enumerate(scores[:users])
        for item, score in enumerate(row)
    ]
    chosen = [ir_measures.RR, ir_measures.Success @ 1, ir_measures.Success @ 10, ir_measures.nDCG @ 10]
    measure(
        lambda: ir_measures.calc_aggregate(chosen, relevant, run),
        work=SCORES,
        system="ir_measures, without intervals",
        units=users,
        unit="users",
        rounds=2,
    )


# ranx compiles itself when it is first used on a machine, and warns about it.
@pytest.mark.filterwarnings("ignore:unsafe cast from uint64 to int64")
def test_scores_ranx(measure, scores):
    import ranx

    users = 1000
    relevant = ranx.Qrels({str(user): {"0": 1} for user in range(users)})
    run = ranx.Run(
        {
            str(user): {str(item): float(score) for item, score in enumerate(row)}
            for user, row in enumerate(scores[:users])
        }
    )
    chosen = ["mrr", "hit_rate@1", "hit_rate@10", "ndcg@10"]
    measure(
        lambda: ranx.evaluate(relevant, run, chosen, make_comparable=False),
        work=SCORES,
        system="ranx, without intervals",
        units=users,
        unit="users",
        rounds=2,
    )
