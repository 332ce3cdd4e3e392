"""Run the rankers, sampler and metrics of implicit and LensKit on given data, and time them.

    python library_rankers.py FOLDER

It runs in the environment of `requirements-lenskit.txt`, on one thread; `rankers.py` calls it and checks its
results in FOLDER. Both libraries get given vectors in place of learned ones, so that only ranking is timed:

- implicit, top n: `recommend` of a model for all users at once, with `filter_already_liked_items`, in its own
  batches of 100.
- LensKit, top n: `lenskit.batch.recommend`, in this process, over its `topn_pipeline` of an ALS scorer. For
  each user it looks up the seen items, removes them from the candidates, scores and ranks. The scorer uses
  the given user vectors (`user_embeddings="prefer"`); by default it would compute them again from the items
  that the user has seen.
- LensKit, negatives: `sample_negatives` of the matrix of interactions, uniform and verified.
- LensKit, metrics: a `RunAnalysis` of metatl's lists, in the collections of item lists that
  `lenskit.batch.recommend` returns. NDCG discounts by log2(rank + 1); LensKit's default does not distinguish
  the first two ranks.
"""

from __future__ import annotations

import argparse
import json
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from implicit.cpu.als import AlternatingLeastSquares
from lenskit.als import ImplicitMFScorer
from lenskit.batch import recommend
from lenskit.data import ItemList, ItemListCollection, UserIDKey, from_interactions_df
from lenskit.metrics import NDCG, Hit, LogRankWeight, RecipRank, RunAnalysis
from lenskit.parallel import initialize
from lenskit.pipeline import topn_pipeline
from scipy import sparse

from ranking_data import RankingData
from timing import least_seconds

if TYPE_CHECKING:
    from lenskit.data import Dataset
    from lenskit.pipeline import Pipeline


def implicit_top(data: RankingData, n: int) -> tuple[float, np.ndarray]:
    model = AlternatingLeastSquares(factors=data.user_vectors.shape[1], num_threads=1)
    model.user_factors, model.item_factors = data.user_vectors, data.item_vectors
    shape = (data.num_users, data.num_items)
    seen = sparse.csr_matrix((np.ones(len(data.seen), np.float32), data.seen, data.indptr), shape)
    users = np.arange(data.num_users)
    seconds, (items, _) = least_seconds(
        lambda: model.recommend(users, seen, N=n, filter_already_liked_items=True)
    )
    return seconds, items


def lenskit_dataset(data: RankingData) -> Dataset:
    frame = pd.DataFrame({"user_id": data.owners, "item_id": data.seen})
    return from_interactions_df(frame, users=np.arange(data.num_users), items=np.arange(data.num_items))


def lenskit_pipeline(data: RankingData, dataset: Dataset, n: int) -> Pipeline:
    scorer = ImplicitMFScorer(embedding_size=data.user_vectors.shape[1], epochs=1, user_embeddings="prefer")
    pipeline = topn_pipeline(scorer, n=n)
    pipeline.train(dataset)
    trained = pipeline.component("scorer")
    trained.user_embeddings, trained.item_embeddings = data.user_vectors, data.item_vectors
    return pipeline


def lenskit_top(data: RankingData, dataset: Dataset, n: int) -> tuple[float, np.ndarray]:
    pipeline, users = lenskit_pipeline(data, dataset, n), list(range(data.num_users))
    seconds, found = least_seconds(lambda: recommend(pipeline, users, n_jobs=1))
    return seconds, np.stack([found.lookup(user_id=user).ids() for user in users])


def lenskit_negatives(data: RankingData, dataset: Dataset, count: int) -> tuple[float, np.ndarray]:
    matrix, users = dataset.interactions().matrix(), np.arange(data.num_users, dtype=np.int32)
    generator = np.random.default_rng(0)
    return least_seconds(lambda: matrix.sample_negatives(users, n=count, verify=True, rng=generator))


def lenskit_metrics(lists: np.ndarray, targets: np.ndarray) -> tuple[float, dict[str, float]]:
    n = lists.shape[1]
    outputs, truth = ItemListCollection.empty(UserIDKey), ItemListCollection.empty(UserIDKey)
    for user, (items, target) in enumerate(zip(lists, targets, strict=True)):
        outputs.add(ItemList(item_ids=items, ordered=True), user_id=user)
        truth.add(ItemList(item_ids=[target]), user_id=user)
    names = {f"MRR@{n}": f"RecipRank@{n}", f"HR@{n}": f"Hit@{n}", f"NDCG@{n}": f"NDCG@{n}"}

    metrics = (RecipRank(n), Hit(n), NDCG(n, weight=LogRankWeight(offset=1)))

    def measure() -> dict[str, float]:
        means = RunAnalysis(*metrics).measure(outputs, truth).list_summary()["mean"]
        return {ours: float(means[theirs]) for ours, theirs in names.items()}

    return least_seconds(measure)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--negatives", type=int, required=True, help="negatives a user")
    arguments = parser.parse_args()
    initialize(processes=1, threads=1, backend_threads=1)
    folder, data = arguments.folder, RankingData.load(arguments.folder)
    lists, targets = np.load(folder / "lists.npy"), np.load(folder / "targets.npy")
    dataset = lenskit_dataset(data)
    results: list[dict[str, Any]] = []

    def report(work: str, library: str, seconds: float, **found: Any) -> None:
        version = metadata.version(library)
        results.append({"work": work, "library": library, "version": version, "seconds": seconds, **found})

    seconds, items = implicit_top(data, lists.shape[1])
    np.save(folder / "top-implicit.npy", items)
    report("top", "implicit", seconds)
    seconds, items = lenskit_top(data, dataset, lists.shape[1])
    np.save(folder / "top-lenskit.npy", items)
    report("top", "lenskit", seconds)
    seconds, items = lenskit_negatives(data, dataset, arguments.negatives)
    np.save(folder / "negatives-lenskit.npy", items)
    report("negatives", "lenskit", seconds)
    seconds, metrics = lenskit_metrics(lists, targets)
    report("metrics", "lenskit", seconds, metrics=metrics)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
