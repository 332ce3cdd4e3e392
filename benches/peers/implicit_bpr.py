"""BPR of implicit, for users outside its training data.

implicit cannot add a new user to a BPR model (`recalculate_user` is not supported). A new user is therefore
folded in: gradient steps from zero find the vector that optimises the training criterion for the user's few
items, with implicit's item vectors and biases fixed. Our BPR-MF uses the mean item as the negative.
implicit's vectors rank better against sampled negatives, so the fold-in uses these.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from implicit.cpu.bpr import BayesianPersonalizedRanking
from scipy import sparse

from exchange import Peer, main

if TYPE_CHECKING:
    from collections.abc import Iterator

    from exchange import Exchange

FOLD_IN_STEPS = 30
FOLD_IN_RATE = 1.0
FOLD_IN_NEGATIVES = 100
FOLD_IN_REGULARISATION = 0.01
BLOCK = 256


class ImplicitBPR(Peer):
    system = "bpr"
    package = "implicit"
    settings = (
        # The package's own settings first.
        {"factors": 100, "learning_rate": 0.01, "regularization": 0.01, "epochs": 300},
        {"factors": 64, "learning_rate": 0.05, "regularization": 0.01, "epochs": 300},
        {"factors": 128, "learning_rate": 0.05, "regularization": 0.001, "epochs": 300},
        {"factors": 64, "learning_rate": 0.1, "regularization": 0.03, "epochs": 300},
        {"factors": 32, "learning_rate": 0.05, "regularization": 0.01, "epochs": 300},
        {"factors": 64, "learning_rate": 0.02, "regularization": 0.1, "epochs": 300},
    )
    epochs_between_validations = 10
    patience = 8

    def train(self, exchange: Exchange, settings: dict[str, Any]) -> Iterator[tuple[int, Any]]:
        users, items, _ = exchange.train_rows()
        shape = (exchange.num_train_users, exchange.num_items)
        matrix = sparse.csr_matrix((np.ones(len(users), np.float32), (users, items)), shape)
        step = self.epochs_between_validations
        # A second `fit` goes on from the vectors of the first.
        arguments = {name: value for name, value in settings.items() if name != "epochs"}
        model = BayesianPersonalizedRanking(
            **arguments, iterations=step, num_threads=1, random_state=exchange.seed
        )
        for epochs in range(step, settings["epochs"] + 1, step):
            model.fit(matrix, show_progress=False)
            yield epochs, model

    def score(self, model: Any, histories: np.ndarray, candidates: np.ndarray) -> np.ndarray:
        # The last column of the item factors is the bias; users have 1 there.
        items, bias = np.ascontiguousarray(model.item_factors[:, :-1]), model.item_factors[:, -1]
        generator = np.random.default_rng(0)
        negatives = generator.integers(0, len(items), (len(histories), FOLD_IN_NEGATIVES))
        scores = np.empty(candidates.shape, np.float32)
        for begin in range(0, len(histories), BLOCK):
            rows = slice(begin, begin + BLOCK)
            users = fold_in(items, bias, histories[rows], negatives[rows])
            scores[rows] = np.matmul(items[candidates[rows]], users[:, :, None])[:, :, 0]
        scores += bias[candidates]
        return scores


def fold_in(items: np.ndarray, bias: np.ndarray, histories: np.ndarray, negatives: np.ndarray) -> np.ndarray:
    """Vectors (B, d) of users who showed histories (B, K), against negatives (B, n)."""
    # A negative that the user has is none.
    counts = (~(negatives[:, :, None] == histories[:, None, :]).any(axis=2)).astype(np.float32)
    weights = (counts / (histories.shape[1] * counts.sum(axis=1, keepdims=True)))[:, None, :]
    positive_rows, negative_rows = items[histories], items[negatives]
    positive_bias, negative_bias = bias[histories], bias[negatives]
    users = np.zeros((len(histories), items.shape[1]), np.float32)
    for _ in range(FOLD_IN_STEPS):
        of_positives = np.matmul(positive_rows, users[:, :, None])[:, :, 0] + positive_bias
        of_negatives = np.matmul(negative_rows, users[:, :, None])[:, :, 0] + negative_bias
        margins = of_positives[:, :, None] - of_negatives[:, None, :]
        missed = weights / (1 + np.exp(np.minimum(margins, 30)))
        uphill = np.matmul(missed.sum(axis=2)[:, None, :], positive_rows)[:, 0]
        uphill -= np.matmul(missed.sum(axis=1)[:, None, :], negative_rows)[:, 0]
        users += FOLD_IN_RATE * (uphill - FOLD_IN_REGULARISATION * users)
    return users


if __name__ == "__main__":
    main(ImplicitBPR)
