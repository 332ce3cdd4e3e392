"""GRU4Rec of RecBole.

RecBole's own loader and trainer train the model: every position of every training sequence is an example,
with the prefix as input and the item as output. RecBole evaluates users of its data set only. The histories
of new users therefore go through the network once each, and the scores are the inner products of the state
with the candidates. RecBole's own evaluation with 100 negatives a user, one pair at a time, is timed as
well.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from recbole.config import Config
from recbole.data import create_dataset
from recbole.data.utils import get_dataloader
from recbole.model.sequential_recommender import GRU4Rec
from recbole.trainer import Trainer
from recbole.utils import init_seed

from exchange import Peer, main

if TYPE_CHECKING:
    from collections.abc import Iterator

    from exchange import Exchange, Users

NAME = "exchange"
SCORING_BATCH = 4096  # RecBole's own `eval_batch_size`


@dataclass
class Scorer:
    """The trained network and how RecBole numbers the items."""

    network: torch.nn.Module
    numbers: np.ndarray


def write_atomic_file(exchange: Exchange, folder: Path) -> None:
    """Write the training rows in RecBole's format, with the position in the sequence as the time."""
    users, items, _ = exchange.train_rows()
    begins = np.r_[True, users[1:] != users[:-1]]
    places = np.arange(len(users)) - np.flatnonzero(begins)[np.cumsum(begins) - 1]
    lines = (f"{user}\t{item}\t{place}\n" for user, item, place in zip(users, items, places, strict=True))
    folder.mkdir(parents=True)
    with (folder / f"{NAME}.inter").open("w", encoding="utf-8") as file:
        file.write("user_id:token\titem_id:token\ttimestamp:float\n")
        file.writelines(lines)


def make_config(exchange: Exchange, settings: dict[str, Any], folder: Path, model: str = "GRU4Rec") -> Config:
    arguments = {
        **settings,
        "data_path": str(folder),
        "checkpoint_dir": str(folder / "saved"),
        "USER_ID_FIELD": "user_id",
        "ITEM_ID_FIELD": "item_id",
        "TIME_FIELD": "timestamp",
        "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
        "train_neg_sample_args": None,
        "loss_type": "CE",
        # Nothing is held out: the validation users are others.
        "eval_args": {"split": {"RS": [1, 0, 0]}, "order": "TO", "group_by": "user", "mode": "full"},
        "seed": exchange.seed,
        "use_gpu": False,
        "show_progress": False,
        "state": "ERROR",
    }
    # RecBole reads the command line too.
    given, sys.argv = sys.argv, sys.argv[:1]
    try:
        return Config(model=model, dataset=NAME, config_dict=arguments)
    finally:
        sys.argv = given


class RecBoleGRU4Rec(Peer):
    system = "gru4rec"
    package = "recbole"
    settings = tuple(
        {"embedding_size": d, "hidden_size": h, "dropout_prob": p, "learning_rate": lr}
        | {"num_layers": 1, "MAX_ITEM_LIST_LENGTH": 10, "train_batch_size": batch, "epochs": 50}
        for d, h, p, lr, batch in (
            # The package's own network and rate first.
            (64, 128, 0.3, 0.001, 512),
            (64, 128, 0.5, 0.003, 1024),
            (128, 128, 0.5, 0.001, 512),
            (64, 64, 0.5, 0.003, 512),
            (128, 256, 0.5, 0.001, 1024),
            (64, 128, 0.7, 0.003, 1024),
        )
    )

    def train(self, exchange: Exchange, settings: dict[str, Any]) -> Iterator[tuple[int, Any]]:
        # RecBole leaves logs in the folder where it runs.
        here, folder = Path.cwd(), Path(tempfile.mkdtemp())
        os.chdir(folder)
        try:
            write_atomic_file(exchange, folder / NAME)
            config = make_config(exchange, settings, folder)
            init_seed(exchange.seed, reproducibility=True)
            dataset = create_dataset(config)
            rows, _, _ = dataset.build()
            loader = get_dataloader(config, "train")(config, rows, None, shuffle=True)
            model = GRU4Rec(config, loader.dataset)
            trainer = Trainer(config, model)
        finally:
            os.chdir(here)
            shutil.rmtree(folder)
        numbers = dataset.token2id(dataset.iid_field, np.arange(exchange.num_items).astype(str))
        for epoch in range(settings["epochs"]):
            trainer._train_epoch(loader, epoch)  # noqa: SLF001 (its `fit` does this and what nobody needs here)
            yield epoch + 1, Scorer(model, numbers)

    @torch.no_grad()
    def score(self, model: Scorer, histories: np.ndarray, candidates: np.ndarray) -> np.ndarray:
        network = model.network.eval()
        sequences = torch.from_numpy(model.numbers[histories])
        lengths = torch.full((len(sequences),), sequences.shape[1])
        ranked = torch.from_numpy(model.numbers[candidates])
        scores = torch.empty(candidates.shape)
        for begin in range(0, len(sequences), SCORING_BATCH):
            rows = slice(begin, begin + SCORING_BATCH)
            states = network(sequences[rows], lengths[rows])
            scores[rows] = torch.einsum("bd,bcd->bc", states, network.item_embedding(ranked[rows]))
        return scores.numpy()

    @torch.no_grad()
    def evaluate_its_own_way(self, model: Scorer, users: Users) -> bool:
        # In its mode `uni100` RecBole predicts pairs: a history, filled up, is read once for each candidate.
        network = model.network.eval()
        histories, candidates = users.histories, users.candidates
        count, width = candidates.shape
        sequences = torch.zeros(count, network.max_seq_length, dtype=torch.long)
        sequences[:, : histories.shape[1]] = torch.from_numpy(model.numbers[histories])
        ranked = torch.from_numpy(model.numbers[candidates]).ravel()
        of_user = torch.arange(count).repeat_interleave(width)
        for begin in range(0, len(ranked), SCORING_BATCH):
            rows = slice(begin, begin + SCORING_BATCH)
            read = sequences[of_user[rows]]
            lengths = torch.full((len(read),), histories.shape[1])
            batch = {network.ITEM_SEQ: read, network.ITEM_SEQ_LEN: lengths, network.POS_ITEM_ID: ranked[rows]}
            network.predict(batch)
        return True


if __name__ == "__main__":
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.getLogger().setLevel(logging.ERROR)
    main(RecBoleGRU4Rec)
