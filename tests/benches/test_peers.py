"""The comparison with public implementations, on planted data and with scores that no peer computed."""

import dataclasses
import itertools
import json
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import compare
import exchange as exchanges
import export
import metatl
import rankers
import ranking_data
import timing
from metatl import datasets
from metatl.exceptions import NotANumberError
from metatl.runs.run_directory import SplitSettings

ROOT = Path(__file__).parents[2]

ITEMS = 130
USERS = 240
ROWS = 8


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A file of users who walk from an item to the next."""
    starts = np.random.default_rng(0).permutation(np.arange(USERS) % ITEMS)
    items = (starts[:, None] + np.arange(ROWS)) % ITEMS
    times = np.arange(USERS)[:, None] * 100_000 + np.arange(ROWS)
    frame = pl.DataFrame(
        {
            "user_id": np.repeat(np.arange(USERS), ROWS),
            "item_id": items.ravel(),
            "timestamp": times.ravel(),
        }
    )
    path = tmp_path_factory.mktemp("planted") / "walks.csv"
    frame.write_csv(path)
    return path


@pytest.fixture(scope="module")
def split(source):
    return SplitSettings(k=3).split(datasets.load(source, None))


@pytest.fixture
def folder(split, source, tmp_path):
    export.export(split, tmp_path / "planted", data=str(source), seed=7)
    return tmp_path / "planted"


def ranked_scores(ranks, candidates=101):
    """Scores by which the target of each user has a rank."""
    scores = np.tile(-np.arange(candidates, dtype=np.float32), (len(ranks), 1))
    scores[:, 1:] = -np.arange(1, candidates)
    scores[:, 0] = 0.5 - np.asarray(ranks)
    return scores


def write_peer(folder, system, trials, *, seconds=1.0):
    """Leave what a peer's script leaves: per trial the rank of every validation and of every test target."""
    exchange = exchanges.Exchange.read(folder)
    written = []
    for number, (validation_rank, test_rank) in enumerate(trials):
        trial = folder / system / f"trial-{number}"
        trial.mkdir(parents=True)
        for part, rank in (("validation", validation_rank), ("test", test_rank)):
            users = len(getattr(exchange, part).histories)
            np.save(trial / f"{part}_scores.npy", ranked_scores([rank] * users))
        written.append(
            dataclasses.asdict(
                exchanges.Trial({"factors": number, "epochs": 9}, 4 + number, 9, 10.0 + number, seconds)
            )
        )
    result = {"system": system, "package": "peer", "version": "1.2.3", "python": "3", "trials": written}
    (folder / system / "result.json").write_text(json.dumps(result))
    return exchange


def test_the_exchange_holds_what_the_protocol_says(folder, split):
    exchange = exchanges.Exchange.read(folder)
    rows = pl.read_parquet(folder / "train.parquet")
    assert rows["user"].to_list() == split.train.users.tolist()
    assert rows["item"].to_list() == split.train.items.tolist()
    assert rows["timestamp"].is_sorted()
    for part in exchanges.PARTS:
        users, found = getattr(split, part), getattr(exchange, part)
        sets = metatl.sample_candidate_sets(split, users, n=100, seed=7)
        np.testing.assert_array_equal(found.candidates, sets.candidates)
        np.testing.assert_array_equal(found.candidates[:, 0], split.targets(users))
        np.testing.assert_array_equal(found.histories, split.histories(users))
    assert (exchange.k, exchange.num_items) == (3, split.num_items)


def test_a_second_export_keeps_the_folder_and_refuses_another_split(folder, split, source):
    (folder / "train.parquet").write_bytes(b"kept")
    export.export(split, folder, data=str(source), seed=7)
    assert (folder / "train.parquet").read_bytes() == b"kept"
    with pytest.raises(SystemExit, match="validation_candidates_sha256"):
        export.export(split, folder, data=str(source), seed=8)


@pytest.mark.parametrize("rank", [1, 2, 50, 101])
def test_ranks_of_planted_scores(rank):
    scores = ranked_scores([rank] * 4)
    assert compare.candidate_mrr(scores) == pytest.approx(1 / rank)
    assert exchanges.mean_reciprocal_rank(scores) == pytest.approx(1 / rank)


def test_ties_count_against_the_target():
    scores = np.zeros((3, 101), np.float32)
    assert compare.candidate_mrr(scores) == pytest.approx(1 / 101)
    assert exchanges.mean_reciprocal_rank(scores) == pytest.approx(1 / 101)


def test_the_peers_figure_is_that_of_the_kernel():
    # Few values, so that there are ties.
    scores = np.random.default_rng(3).integers(0, 9, (200, 101)).astype(np.float32)
    assert exchanges.mean_reciprocal_rank(scores) == pytest.approx(compare.candidate_mrr(scores), abs=1e-12)


def test_a_score_that_is_not_a_number_is_refused():
    with pytest.raises(NotANumberError):
        compare.candidate_mrr(np.full((2, 101), np.nan, np.float32))


def test_the_best_trial_is_chosen_by_validation(folder):
    exchange = write_peer(folder, "bpr", [(4, 5), (2, 10), (3, 1)])
    result, outcome = compare.read_peer(exchange, "bpr")
    assert result["version"] == "1.2.3"
    assert (outcome.trial, outcome.trials) == (1, 3)
    assert outcome.validation_mrr == pytest.approx(1 / 2)
    assert outcome.test_mrr == pytest.approx(1 / 10)
    assert outcome.training_seconds == 11.0
    assert outcome.settings == {"factors": 1, "epochs": "5 of 9 allowed"}


def test_scores_of_other_users_are_refused(folder):
    exchange = write_peer(folder, "bpr", [(4, 5)])
    np.save(folder / "bpr" / "trial-0" / "test_scores.npy", ranked_scores([1]))
    with pytest.raises(SystemExit, match="test scores"):
        compare.read_peer(exchange, "bpr")


def make_row(*, ours=0.3, theirs=0.3, our_seconds=1.0, their_seconds=10.0, together=True):
    sides = [
        compare.Outcome(0, 2, settings, 0.25, mrr, 60.0, seconds)
        for settings, mrr, seconds in (({}, ours, our_seconds), ({"d": 8}, theirs, their_seconds))
    ]
    return compare.Row("SASRec", "RecTools", "0.19.0", *sides, own_way=None, timed_together=together)


def make_page(*rows):
    record = {"num_train_users": 1000, "num_train_rows": 9000, "num_items": 500, "seed": 0}
    section = compare.Section("sports", record, 70, 30, list(rows))
    return compare.make_page([section], "one core")


def test_bars_that_hold():
    row = make_row(ours=0.2941, theirs=0.3, our_seconds=2.0, their_seconds=10.0)
    assert row.missed == []
    assert row.markdown().count("| yes |") == 2
    page = make_page(row)
    assert "All of them hold." in page
    assert "**no**" not in page


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"ours": 0.2939}, "SASRec: MRR is 0.980 × that of RecTools on sports"),
        ({"ours": 0.2}, "SASRec: MRR is 0.667 × that of RecTools on sports"),
        ({"their_seconds": 4.9}, "SASRec: evaluation is 4.9 × as fast as with RecTools on sports"),
    ],
)
def test_the_page_says_which_bars_are_missed(changes, words):
    row = make_row(**changes)
    page = make_page(make_row(), row)
    assert len(row.missed) == 1
    assert row.markdown().count("**no**") == 1
    assert f"**Missed: {words}.**" in page
    assert "All of them hold." not in page


def test_the_page_says_when_the_peer_was_not_timed_beside_ours():
    assert "¹" not in make_page(make_row())
    page = make_page(make_row(together=False))
    assert "10.0000 ¹" in page
    assert "its environment no longer exists" in page


def test_from_scores_to_page(folder, tmp_path, monkeypatch, capsys):
    """Ours are fitted once per trial, as many as the peer has, and read back the next time."""
    write_peer(folder, "bpr", [(60, 60), (50, 50)], seconds=1e6)
    short = {"max_steps": 2, "eval_every": 1, "batch_size": 16, "dim": 4}
    trials = ({**short, "dim": 8}, short, {**short, "dim": 16})
    bpr = compare.Comparison("bpr", "implicit", "implicit_bpr.py", "absent", None, trials)
    monkeypatch.setattr(compare, "COMPARISONS", (bpr, dataclasses.replace(bpr, system="sasrec")))
    page = tmp_path / "baselines.md"
    arguments = [str(folder), "--page", str(page)]
    status = compare.main(arguments)
    text = page.read_text()
    assert "| BPR-MF | implicit 1.2.3 | 2 / 2 |" in text
    assert "0.0200" in text  # the peer's second trial: rank 50
    assert sorted(path.name for path in (folder / "bpr" / "ours").iterdir()) == [
        "trial-0",
        "trial-0.json",
        "trial-1",
        "trial-1.json",
    ]
    assert status == ("Missed" in text)
    assert "no scores of implicit for sasrec" in capsys.readouterr().err

    def refuse(*_, **__):
        raise AssertionError("fitted again")

    monkeypatch.setattr(compare, "fit", refuse)
    assert compare.main(arguments) == status
    assert text.split("\nMachine")[0].count("\n") == page.read_text(encoding="utf-8").split("\nMachine")[
        0
    ].count("\n")
    with pytest.raises(AssertionError, match="fitted again"):
        compare.main([*arguments, "--refit"])
    other = dataclasses.replace(bpr, trials=({**short, "dim": 2}, short))
    monkeypatch.setattr(compare, "COMPARISONS", (other,))
    with pytest.raises(AssertionError, match="fitted again"):
        compare.main(arguments)


class CountingPeer(exchanges.Peer):
    """A model is a number; the third validation is the best."""

    system = "bpr"
    package = "numpy"
    settings = ({"epochs": 50}, {"epochs": 2})
    patience = 3

    def train(self, _, settings):
        for epoch in range(1, settings["epochs"] + 1):
            yield epoch, epoch

    def score(self, model, histories, candidates):
        return ranked_scores([1 + abs(model - 3)] * len(histories), candidates.shape[1])


def test_a_trial_keeps_the_best_moment_and_stops(folder, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["peer", str(folder)])
    exchanges.main(CountingPeer)
    exchange = exchanges.Exchange.read(folder)
    first, second = exchanges.read_trials(exchange, CountingPeer())
    assert (first.epochs, first.epochs_trained) == (3, 6)
    assert (second.epochs, second.epochs_trained) == (2, 2)
    assert compare.candidate_mrr(compare.read_scores(exchange, "bpr", 0, "test")) == 1
    assert compare.read_peer(exchange, "bpr")[1].settings == {"epochs": "3 of 50 allowed"}


def test_finished_trials_are_kept_and_others_are_run(folder, monkeypatch, capsys):
    for options in (["--trials", "1"], [], ["--epochs", "4"]):
        monkeypatch.setattr(sys, "argv", ["peer", str(folder), *options])
        exchanges.main(CountingPeer)
        trials = exchanges.read_trials(exchanges.Exchange.read(folder), CountingPeer())
        lines = capsys.readouterr().out.splitlines()
        if options == ["--trials", "1"]:
            assert (len(trials), len(lines)) == (1, 6)
        elif not options:
            assert (len(trials), len(lines)) == (2, 2)
        else:
            assert [trial.settings for trial in trials] == [{"epochs": 4}, {"epochs": 2}]
            assert len(lines) == 6


def test_scoring_can_be_timed_again(folder, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["peer", str(folder), "--trials", "1"])
    exchanges.main(CountingPeer)
    monkeypatch.setattr(sys, "argv", ["peer", str(folder), "--time", "0"])
    capsys.readouterr()
    exchanges.main(CountingPeer)
    assert json.loads(capsys.readouterr().out)["scoring_seconds"] > 0


def test_the_own_way_of_a_peer_is_shown_beside_the_bar():
    row = make_row(our_seconds=1.0, their_seconds=4.0)
    slow = dataclasses.replace(
        row,
        own_way="catalogue",
        ours=dataclasses.replace(row.ours, own_way_seconds=1.5),
        theirs=dataclasses.replace(row.theirs, own_way_seconds=60.0),
    )
    assert slow.markdown().endswith("| catalogue: 1.5000 / 60.00, 40 × |")
    assert row.markdown().endswith("| none |")
    # The bar is held against the fast way.
    assert slow.missed == row.missed != []


@pytest.fixture(scope="module")
def world():
    """Vectors, what users have seen, and the lists that a sort of all scores in numpy gives."""
    data = ranking_data.RankingData.draw(num_users=60, num_items=rankers.NUM_ITEMS, dim=4)
    scores = data.user_vectors @ data.item_vectors.T
    scores[data.owners, data.seen] = -np.inf
    return data, np.argsort(-scores, axis=1)[:, : rankers.TOP]


def test_ranking_data_come_back_from_the_folder(world, tmp_path):
    data, _ = world
    data.save(tmp_path)
    found = ranking_data.RankingData.load(tmp_path)
    for field in dataclasses.fields(data):
        np.testing.assert_array_equal(getattr(found, field.name), getattr(data, field.name))


def test_the_seen_items_are_known(world):
    data, _ = world
    seen = [set(data.seen[begin:end]) for begin, end in itertools.pairwise(data.indptr)]
    assert sum(map(len, seen)) == len(data.seen)
    assert min(map(len, seen)) > 0
    items = np.random.default_rng(0).integers(0, 100, (data.num_users, 40))
    expected = [[item in row for item in items] for row, items in zip(seen, items, strict=True)]
    assert np.any(expected)
    assert data.has_seen(items).tolist() == expected


def test_lists_of_the_same_items_are_accepted(world):
    data, lists = world
    _, ours = rankers.top_of_ours(data)
    rankers.check_lists("numpy", lists, ours, data)
    # Another item of the same score, as where sums are rounded in another way.
    level = lists.copy()
    level[0, -1] = np.setdiff1d(np.arange(100), [*lists[0], *data.seen[: data.indptr[1]]])[0]
    vectors = data.item_vectors.copy()
    vectors[level[0, -1]] = vectors[lists[0, -1]]
    rankers.check_lists("numpy", level, ours, dataclasses.replace(data, item_vectors=vectors))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda lists, _: lists[:, :-1], "not .60, 10. items"),
        (lambda lists, _: np.where(lists == lists[0, 0], -1, lists), "not .60, 10. items"),
        (lambda lists, data: np.c_[data.seen[data.indptr[:-1]], lists[:, 1:]], "has seen"),
        (lambda lists, _: np.c_[lists[:, 1], lists[:, 1:]], "twice"),
        (lambda lists, _: lists[:, ::-1], "scores"),
        (lambda lists, _: np.r_[lists[1:], lists[:1]], "scores|has seen"),
    ],
    ids=["short", "missing", "seen", "twice", "reversed", "another user's"],
)
def test_other_lists_are_refused(world, change, words):
    data, lists = world
    with pytest.raises(SystemExit, match=words):
        rankers.check_lists("peer", change(lists, data), lists, data)


def libraries_that_find(metrics, negatives=None):
    """What stands in for the libraries: ten seconds for each work, and metatl's lists."""

    def run(_, folder):
        data = ranking_data.RankingData.load(folder)
        lists, targets = np.load(folder / "lists.npy"), np.load(folder / "targets.npy")
        hits = lists == targets[:, None]
        np.save(folder / "top-implicit.npy", lists.astype(np.int32))
        np.save(folder / "top-lenskit.npy", lists)
        drawn = np.full((data.num_users, rankers.NEGATIVES), data.seen[0]) if negatives is None else negatives
        np.save(folder / "negatives-lenskit.npy", drawn)
        found = metrics(np.argmax(hits, axis=1), hits.any(axis=1))
        figure = {"version": "1.2.3", "seconds": 10.0}
        return [
            {"work": "top", "library": "implicit", **figure},
            {"work": "top", "library": "lenskit", **figure},
            {"work": "negatives", "library": "lenskit", **figure},
            {"work": "metrics", "library": "lenskit", **figure, "metrics": found},
        ]

    return run


def metrics_by_formula(places, found):
    formulas = (1 / (1 + places), np.ones(len(places)), 1 / np.log2(2 + places))
    values = [float(np.where(found, value, 0).mean()) for value in formulas]
    return dict(zip(rankers.METRICS, values, strict=True))


@pytest.fixture
def quick(monkeypatch):
    """One round of each call is enough where no time is reported."""
    monkeypatch.setattr(timing, "ROUNDS", 1)
    monkeypatch.setattr(timing, "SECONDS", 0.0)


@pytest.mark.usefixtures("quick")
def test_the_page_of_rankers(monkeypatch, tmp_path):
    monkeypatch.setattr(rankers, "run_libraries", libraries_that_find(metrics_by_formula))
    page = tmp_path / "library_rankers.md"
    rankers.main(["python", str(page), "--users", "50"])
    text = page.read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith(("| top", "| 100", "| MRR"))]
    assert [row.split(" | ")[1].split()[0] for row in rows] == [
        "metatl",
        "implicit",
        "LensKit",
        "metatl",
        "LensKit",
        "metatl",
        "LensKit",
    ]
    assert sum("× as fast" in row for row in rows) == 4
    assert "| implicit 1.2.3 | 10.0 | 5 users |" in text
    assert "| LensKit 1.2.3 | 10.0 | 500 negatives |" in text
    # The stand-in's negatives are items of the first user.
    assert "Of 5,000 negatives each, 0 of metatl's and " in " ".join(text.split())
    assert int(text.split("0 of metatl's and ")[1].split(" of LensKit's")[0]) >= 100


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("run", "words"),
    [
        (libraries_that_find(lambda *_: dict.fromkeys(rankers.METRICS, 0.5)), "lenskit: found MRR@10 0.5"),
        (libraries_that_find(metrics_by_formula, np.zeros((1, 1), int)), "lenskit: negatives are not"),
    ],
)
def test_no_page_where_a_library_finds_something_else(run, words, monkeypatch, tmp_path):
    monkeypatch.setattr(rankers, "run_libraries", run)
    with pytest.raises(SystemExit, match=words):
        rankers.main(["python", str(tmp_path / "page.md"), "--users", "50"])
    assert list(tmp_path.iterdir()) == []


def test_a_call_is_timed_several_times(monkeypatch):
    calls = iter(range(100))
    monkeypatch.setattr(timing, "SECONDS", 0.0)
    seconds, last = timing.least_seconds(lambda: next(calls))
    assert last == timing.ROUNDS - 1
    assert 0 < seconds < 1
