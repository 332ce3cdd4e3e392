"""Recommend with RecTools' item-kNN to users it was not fitted on, once for each line on the standard input.

    python rectools_serving.py FILE

It runs in the environment of `requirements-rectools.txt`; `benches/test_serving.py` starts it. RecTools finds
users in its data set, so the histories of the new users are a data set of their own, made before the clock
starts.
"""

from __future__ import annotations

import sys

import numpy as np
import pandas as pd
from implicit.nearest_neighbours import CosineRecommender
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import ImplicitItemKNNWrapperModel


def data_set(users: np.ndarray, items: np.ndarray, catalogue: np.ndarray) -> Dataset:
    # One more user has every item, so that both data sets number the items alike.
    users = np.concatenate([np.full(len(catalogue), -1), users])
    items = np.concatenate([catalogue, items])
    frame = pd.DataFrame(
        {Columns.User: users, Columns.Item: items, Columns.Weight: 1.0, Columns.Datetime: "2020-01-01"}
    )
    return Dataset.construct(frame)


def main(file: str) -> None:
    """Fit, and answer each line with the number of users who got a list."""
    arrays = np.load(file)
    items, indptr, histories, top = (arrays[name] for name in ("items", "indptr", "histories", "top"))
    catalogue = np.arange(items.max() + 1)
    fitted = data_set(np.repeat(np.arange(len(indptr) - 1), np.diff(indptr)), items, catalogue)
    model = ImplicitItemKNNWrapperModel(CosineRecommender(K=100)).fit(fitted)
    users = np.arange(len(histories))
    new = data_set(np.repeat(users, histories.shape[1]), histories.ravel(), catalogue)
    print("ready", flush=True)
    for _ in sys.stdin:
        lists = model.recommend(users, new, k=int(top), filter_viewed=True)
        print(lists[Columns.User].nunique(), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
