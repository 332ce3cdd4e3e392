"""SASRec and BERT4Rec of RecTools.

RecTools recommends to users outside its training data: it takes a data set with their interactions. Its
`recommend` ranks the whole catalogue, or the same items for all users, but each of our users has candidates
of their own. We therefore call the parts of `recommend`: pad the histories on the left to the model's length
(BERT4Rec: with a mask at the end), `encode_sessions`, and inner products of the last state with the
candidates only. This is also less work.

Its own evaluation of new users is `recommend` for all items, then `calc_metrics`; it is timed as well.

RecTools trains on the last `session_max_len` items of a user. A longer user is split into several users with
sequences of that length, so that all systems train on the same rows.
"""

from __future__ import annotations

import logging
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from pytorch_lightning import seed_everything
from rectools import Columns
from rectools.dataset import Dataset
from rectools.metrics import MRR, NDCG, HitRate, calc_metrics
from rectools.models import BERT4RecModel, SASRecModel

from exchange import Peer, main

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from exchange import Exchange, Users

EPOCHS_BETWEEN_VALIDATIONS = 2
SCORING_BATCH = 256  # RecTools' own when it recommends
LENGTH = 10  # of the lists that are measured
MASK = "MASK"


@dataclass
class Scorer:
    """The trained model, its network, and how RecTools numbers the items."""

    model: Any
    network: torch.nn.Module
    numbers: np.ndarray
    session_length: int
    mask: int | None


def stretches(sequence: np.ndarray, length: int) -> list[np.ndarray]:
    """Cut a sequence into stretches of `length` that hold every item; the first two may overlap."""
    starts = list(range(len(sequence) - length, 0, -length))
    return [sequence[:length], *(sequence[start : start + length] for start in reversed(starts))]


def make_dataset(exchange: Exchange, length: int) -> Dataset:
    pieces = [piece for row in exchange.train_sequences() for piece in stretches(row, length)]
    return construct(pieces)


def construct(sequences: Sequence[np.ndarray]) -> Dataset:
    """A data set of users 0, 1, … with these items, the oldest first."""
    lengths = [len(sequence) for sequence in sequences]
    # The place in the sequence is the time: in review data most true times are tied.
    places = np.concatenate([np.arange(count) for count in lengths])
    columns = {
        Columns.User: np.repeat(np.arange(len(sequences)), lengths),
        Columns.Item: np.concatenate(sequences),
        Columns.Weight: 1.0,
        Columns.Datetime: pd.Timestamp("2000-01-01") + pd.to_timedelta(places, unit="s"),
    }
    return Dataset.construct(pd.DataFrame(columns))


class RecToolsPeer(Peer):
    package = "rectools"
    model_class: Any
    #: Items that a training stretch has beyond `session_max_len`.
    extra_items: int

    def train(self, exchange: Exchange, settings: dict[str, Any]) -> Iterator[tuple[int, Any]]:
        seed_everything(exchange.seed, verbose=False)
        length = settings["session_max_len"]
        dataset = make_dataset(exchange, length + self.extra_items)
        # Its `epochs` matter when the model is unpickled: one with more epochs behind it is refused.
        model = self.model_class(**settings, recommend_torch_device="cpu")
        for epochs in range(EPOCHS_BETWEEN_VALIDATIONS, settings["epochs"] + 1, EPOCHS_BETWEEN_VALIDATIONS):
            count = EPOCHS_BETWEEN_VALIDATIONS
            model.fit_partial(dataset, min_epochs=count, max_epochs=count)
            preparator = model.data_preparator
            numbers = preparator.item_id_map.convert_to_internal(np.arange(exchange.num_items))
            yield (
                epochs,
                Scorer(model, model.torch_model, numbers, length, preparator.extra_token_ids.get(MASK)),
            )

    @torch.no_grad()
    def score(self, model: Scorer, histories: np.ndarray, candidates: np.ndarray) -> np.ndarray:
        network = model.network.eval()
        sessions = torch.zeros(len(histories), model.session_length, dtype=torch.long)
        end = model.session_length - (model.mask is not None)
        sessions[:, end - histories.shape[1] : end] = torch.from_numpy(model.numbers[histories])
        if model.mask is not None:
            sessions[:, -1] = model.mask
        items = network.item_model.get_all_embeddings()
        ranked = torch.from_numpy(model.numbers[candidates])
        scores = torch.empty(candidates.shape)
        for begin in range(0, len(sessions), SCORING_BATCH):
            rows = slice(begin, begin + SCORING_BATCH)
            states = network.encode_sessions({"x": sessions[rows]}, items)[:, -1]
            scores[rows] = torch.einsum("bd,bcd->bc", states, items[ranked[rows]])
        return scores.numpy()

    def evaluate_its_own_way(self, model: Scorer, users: Users) -> bool:
        everybody = np.arange(len(users.histories))
        lists = model.model.recommend(everybody, construct(users.histories), k=LENGTH, filter_viewed=True)
        chosen = pd.DataFrame({Columns.User: everybody, Columns.Item: users.candidates[:, 0]})
        metrics = {"HR": HitRate(LENGTH), "NDCG": NDCG(LENGTH), "MRR": MRR(LENGTH)}
        calc_metrics(metrics, lists, interactions=chosen)
        return True


class RecToolsSASRec(RecToolsPeer):
    system = "sasrec"
    model_class = SASRecModel
    extra_items = 1
    settings = tuple(
        {"n_factors": d, "n_blocks": b, "n_heads": h, "dropout_rate": p, "lr": lr, "loss": "softmax"}
        | {"session_max_len": 10, "batch_size": 128, "epochs": 40}
        for d, b, h, p, lr in (
            (64, 1, 1, 0.5, 0.003),
            (128, 2, 4, 0.2, 0.001),
            (128, 2, 4, 0.5, 0.001),
            (64, 2, 2, 0.5, 0.003),
            (128, 1, 2, 0.5, 0.003),
            (256, 2, 4, 0.5, 0.001),
        )
    )


class RecToolsBERT4Rec(RecToolsPeer):
    system = "bert4rec"
    model_class = BERT4RecModel
    extra_items = 0
    settings = tuple(
        {"n_factors": d, "n_blocks": b, "n_heads": h, "dropout_rate": p, "lr": lr, "loss": "softmax"}
        | {"mask_prob": mask, "session_max_len": 10, "batch_size": 128, "epochs": 40}
        for d, b, h, p, lr, mask in (
            (64, 1, 2, 0.3, 0.003, 0.4),
            (128, 2, 4, 0.2, 0.001, 0.15),
            (64, 2, 2, 0.2, 0.003, 0.2),
            (128, 2, 4, 0.5, 0.001, 0.4),
            (64, 1, 2, 0.5, 0.003, 0.6),
            (256, 2, 4, 0.2, 0.001, 0.4),
        )
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    main(RecToolsSASRec, RecToolsBERT4Rec)
