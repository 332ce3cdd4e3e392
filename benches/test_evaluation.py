"""Evaluation of a MetaTL model, adaptation included: encode, rank among candidates, metrics."""

import numpy as np
import pytest
import torch

import metatl
import reference
from metatl import _metatl
from metatl.metrics.rank_metrics import mean_metrics
from metatl.models import find_system
from metatl.models.metatl.model import MetaTL
from metatl.ranking.rank import rank_candidates
from metatl.training.fit import configure
from sizes import K

WORK = "evaluation of a MetaTL `tuned`, adaptation included"
USERS = 200


@pytest.fixture(scope="module")
def task(large_split):
    model = MetaTL(configure(find_system("metatl"), "tuned", {}, k=K), large_split.num_items).eval()
    users = np.arange(large_split.cold.num_users)
    sets = metatl.sample_candidate_sets(large_split, users)
    return model, large_split.histories(users), sets.candidates


def test_evaluation_metatl(measure, task):
    model, histories, candidates = task
    measure(
        lambda: mean_metrics(*rank_candidates(model, histories, candidates)),
        work=WORK,
        system="metatl",
        units=len(histories),
        unit="users",
    )


def test_evaluation_user_by_user(measure, task):
    model, histories, candidates = task
    histories, candidates = histories[:USERS], candidates[:USERS]
    negatives = _metatl.sample_support_negatives(histories, model.support_negatives, model.num_items, seed=0)
    arrays = tuple(torch.from_numpy(array) for array in (histories, negatives, candidates))
    measure(
        lambda: reference.rank_one_user_at_a_time(model, *arrays),
        work=WORK,
        system="torch, a user at a time",
        units=USERS,
        unit="users",
    )
