"""Train a recommender of another library on the output of `metatl-eval candidates`, and write its scores.

The model is SASRec of RecTools: `pip install "rectools[torch]" pyarrow`. The script does not import metatl.
docs/evaluation.md shows the commands before and after this one.
"""

from __future__ import annotations

import argparse

import numpy as np
import pandas as pd
from pytorch_lightning import seed_everything
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import SASRecModel


def main() -> None:
    """Train, score, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("train", help="training rows: user_id, item_id, timestamp")
    parser.add_argument("candidates", help="new users: user_id, history, target, negatives")
    parser.add_argument("scores", help="Parquet file to write: user_id, item_id, score")
    parser.add_argument("--epochs", type=int, default=20)
    arguments = parser.parse_args()

    train = pd.read_parquet(arguments.train).rename(columns={"timestamp": Columns.Datetime})
    train[Columns.Datetime] = train[Columns.Datetime].dt.tz_localize(None)
    train[Columns.Weight] = 1.0
    seed_everything(0)
    model = SASRecModel(
        n_factors=64,
        n_blocks=1,
        n_heads=1,
        dropout_rate=0.5,
        lr=0.003,
        loss="softmax",
        session_max_len=32,
        epochs=arguments.epochs,
    )
    model.fit(Dataset.construct(train))

    # The model was not trained on these users: it gets their histories and scores every item. The data set
    # also contains the training rows, because the model ranks only the items of its data set.
    users = pd.read_parquet(arguments.candidates, columns=["user_id", "history"])
    histories = users.explode("history").rename(columns={"history": Columns.Item})
    histories[Columns.Item] = histories[Columns.Item].astype(train[Columns.Item].dtype)
    histories[Columns.Datetime] = pd.Timestamp("2000-01-01") + pd.to_timedelta(
        np.arange(len(histories)), unit="s"
    )
    histories[Columns.Weight] = 1.0
    recommended = model.recommend(
        users["user_id"].to_numpy(),
        Dataset.construct(pd.concat([train, histories])),
        k=train[Columns.Item].nunique(),
        filter_viewed=False,
    )
    pairs = recommended[[Columns.User, Columns.Item, Columns.Score]]
    pairs.astype({Columns.Score: np.float32}).to_parquet(arguments.scores, index=False)


if __name__ == "__main__":
    main()
