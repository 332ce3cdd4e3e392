"""Evaluate any model that scores a pair by a vector of the user and a vector of the item."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, TypeAlias, Union, get_args

import numpy as np

from metatl.common.arguments import check_choice
from metatl.common.forks import refuse_forked_child
from metatl.common.timings import Timings
from metatl.data.histories import Histories
from metatl.data.ids import find_ids
from metatl.data.readers.opened_files import errors_in
from metatl.evaluation.external.arrays import as_array, load_npy
from metatl.evaluation.external.evaluate_scores import known_columns, population, read_candidates
from metatl.evaluation.external.item_ids import read_items
from metatl.evaluation.external.source import ExternalSource, evaluate_source
from metatl.evaluation.measures import Measures, RankedUsers, Ranking, quantile_groups
from metatl.evaluation.report.results import ListsReport
from metatl.evaluation.user_ranks import rank_blocks
from metatl.exceptions import ConfigError, DataError, InvalidArgumentError, NotANumberError
from metatl.metrics.list_metrics import list_metrics
from metatl.metrics.names import DEFAULT_METRICS, DEFAULT_TOP
from metatl.metrics.rank_metrics import parse_metrics
from metatl.models.contract import Similarity
from metatl.ranking.blocks import FactorisedBlock
from metatl.ranking.item_tables import ItemTable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import polars as pl
    import torch

    from metatl.data.candidates import CandidateSets
    from metatl.data.frames import FrameLike
    from metatl.evaluation.measures import Evaluation
    from metatl.evaluation.report.results import SourceResults
    from metatl.metrics.names import TieRule

ArrayLike: TypeAlias = Union[str, "os.PathLike[str]", np.ndarray, "torch.Tensor"]
"""An `.npy` file, an array or a tensor."""

BLOCK_USERS = 2**16


@dataclass(frozen=True, eq=False)
class _Catalogue:
    """The items, in the order of their vectors, and the training interactions of each."""

    vectors: np.ndarray
    bias: np.ndarray | None
    counts: np.ndarray | None


@dataclass(frozen=True, eq=False)
class _Users:
    """The users of candidates; items are indices of the catalogue."""

    candidates: np.ndarray
    history: Histories
    own_items: Histories


def evaluate_embeddings(
    candidates: CandidateSets | str | os.PathLike[str],
    queries: ArrayLike,
    items: ArrayLike,
    item_ids: pl.Series | FrameLike | str | os.PathLike[str],
    *,
    bias: ArrayLike | None = None,
    similarity: Similarity = "dot",
    name: str | None = None,
    ties: TieRule = "worst",
    metrics: Sequence[str] | str = DEFAULT_METRICS,
    top: int = DEFAULT_TOP,
    seed: int = 0,
    by: Sequence[str] = (),
    attributes: FrameLike | None = None,
    num_threads: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Evaluation[SourceResults]:
    """Rank each user's target among its candidates and among all items, without writing scores.

    The score of a pair is q·x (``dot``), -‖q - x‖ (``l2``) or -‖q - x‖² (``squared_l2``), plus the bias of
    the item. Among all items the target is compared with every item that its user does not interact with,
    before or after.

    Parameters
    ----------
    candidates : CandidateSets, str or path
        The candidates, or their file.
    queries : ndarray, torch.Tensor, str or path
        (B, d) float32: the vector of each user, in the order of the candidates' rows.
    items : ndarray, torch.Tensor, str or path
        (I, d) float32.
    item_ids : polars.Series, table, str or path
        (I,) raw ids of the items, in the order of their vectors: a series, or a table (in memory, or a file
        of text or Parquet) with the column ``item_id`` and optionally ``count``, the training interactions of
        the item.
    bias : ndarray, torch.Tensor, str or path, optional
        (I,) float32.
    similarity : {"dot", "l2", "squared_l2"}
        How a query is compared with an item.
    name : str, optional
        Name of the system; the name of the file of queries by default.
    ties : {"worst", "mean", "best"}
        The rank of a target among items with the same score.
    metrics : str or sequence of str
        Names of metrics.
    top : int
        Length of the lists whose coverage and popularity are reported; 0 for no lists.
    seed : int
        Seed of the bootstrap.
    by : sequence of str
        Columns to slice the users by: ``history_length``, ``item_popularity`` (the ``count`` of the target,
        in quarters) or columns of `attributes`.
    attributes : table, optional
        ``user_id`` (raw) and columns to slice by.
    num_threads : int, optional
        Threads of the kernels.
    on_progress : callable, optional
        Called with the number of users that are ranked, and the number of all users.

    Returns
    -------
    Evaluation
        The summary and the ranks of every user.

    Raises
    ------
    DataError
        If a file cannot be read, a shape or a type is not as above, or a candidate is not one of the items.
    NotANumberError
        If a vector, a bias or a score is NaN.
    ConfigError
        If a metric, the similarity or a column to slice by is unknown.
    """
    refuse_forked_child()
    check_choice("similarity", similarity, get_args(Similarity), ConfigError)
    measures = Measures(parse_metrics(metrics), ties, seed, num_threads)
    timings = Timings()
    with timings.stage("read"):
        sets, files = read_candidates(candidates)
        if sets is None:
            raise InvalidArgumentError("candidates: found None, expected candidate sets or their file")
        table = read_items(item_ids)
        catalogue = _Catalogue(
            vectors=_array("items", items, (len(table), None)),
            bias=None if bias is None else _array("bias", bias, (len(table),)),
            counts=table["count"].to_numpy() if "count" in table.columns else None,
        )
        vectors = _array("queries", queries, (len(sets.users), catalogue.vectors.shape[1]))
        users = _in_catalogue(sets, table["item_id"])
    given = {"queries": queries, "items": items, "item_ids": item_ids, "bias": bias}
    files |= {role: str(file) for role, file in given.items() if isinstance(file, (str, os.PathLike))}
    item_table = ItemTable.float32(catalogue.vectors)
    all_users = FactorisedBlock(vectors, item_table, catalogue.bias, similarity, None, num_threads, timings)
    ranks = rank_blocks(
        _blocks(all_users, on_progress),
        targets=np.ascontiguousarray(users.candidates[:, 0]),
        candidates=users.candidates,
        own_items=users.own_items,
        histories=users.history,
        top=min(top, len(table)),
        timings=timings,
    )
    compared = len(table) - users.own_items.lengths - 1
    ranked = RankedUsers(
        user_ids=sets.user_ids,
        sampled=None if ranks.sampled is None else Ranking(ranks.sampled, np.full(len(compared), sets.n)),
        full=Ranking(ranks.full, compared),
        catalogue_negatives=population(sets),
    )
    source = ExternalSource(
        kind="embeddings",
        name=name,
        files=files,
        named_by="queries",
        left_out=sets.dropped,
        columns=_known_columns(sets, users, catalogue),
        candidates=sets,
        lists=_report_lists(ranks.lists, users, catalogue),
        notes=_notes(sets, len(table)),
    )
    return evaluate_source(source, ranked, measures, by=by, attributes=attributes, timings=timings)


def _array(argument: str, given: ArrayLike, shape: tuple[int | None, ...]) -> np.ndarray:
    """Read or take a float32 array of a shape; None in it is any size of at least 1."""
    where = None
    if isinstance(given, (str, os.PathLike)):
        where = str(given)
        with errors_in(where):
            given = load_npy(given)
    else:
        given = as_array(argument, given)
    if given.dtype == np.float16:
        given = given.astype(np.float32)
    if given.dtype != np.float32:
        raise DataError(
            f"{argument}: found {given.dtype}, expected float32; convert with .astype(np.float32)", file=where
        )
    fits = len(given.shape) == len(shape) and all(
        size == wanted or (wanted is None and size > 0)
        for size, wanted in zip(given.shape, shape, strict=True)
    )
    if not fits:
        expected = ", ".join("any" if size is None else str(size) for size in shape)
        raise DataError(f"{argument}: found the shape {given.shape}, expected ({expected})", file=where)
    array = np.require(given, requirements=["C", "A"])
    _check_numbers(argument if where is None else f"{where}: {argument}", array)
    return array


def _check_numbers(name: str, array: np.ndarray) -> None:
    """Raise where an array of one or two dimensions holds NaN, without copying it as a whole."""
    by_row = np.zeros(len(array), np.int64)
    for start in range(0, len(array), BLOCK_USERS):
        block = array[start : start + BLOCK_USERS]
        by_row[start : start + BLOCK_USERS] = np.isnan(block.reshape(len(block), -1)).sum(axis=1)
    if by_row.any():
        raise NotANumberError(
            f"{name}: found {by_row.sum():,} NaN in {array.size:,} numbers, the first in row "
            f"{(by_row > 0).argmax():,} (counted from 0), expected none"
        )


def _in_catalogue(sets: CandidateSets, item_ids: pl.Series) -> _Users:
    indices = find_ids(item_ids, sets.item_ids)
    candidates = indices[sets.candidates]
    unknown = np.flatnonzero((candidates < 0).any(axis=1))
    if len(unknown):
        missing = sets.candidates[candidates < 0]
        raise DataError(
            f"item_ids: found none for {len(np.unique(missing)):,} items of the candidates, such as "
            f"{sets.item_ids[int(missing[0])]!r}"
        )
    history = _known(sets.histories, indices)
    later = _known(sets.later, indices)
    return _Users(candidates, history, _distinct(_joined(history, later), candidates[:, 0]))


def _known(rows: Histories, indices: np.ndarray) -> Histories:
    """Replace items by their indices in the catalogue; leave out items that it does not have."""
    items = indices[rows.items]
    known = items >= 0
    sums = np.concatenate([[0], np.cumsum(known)])
    return Histories(sums[rows.indptr], np.ascontiguousarray(items[known]))


def _joined(first: Histories, second: Histories) -> Histories:
    rows = np.repeat(np.arange(len(first)), first.lengths), np.repeat(np.arange(len(second)), second.lengths)
    order = np.argsort(np.concatenate(rows), kind="stable")
    return Histories(first.indptr + second.indptr, np.concatenate([first.items, second.items])[order])


def _distinct(rows: Histories, targets: np.ndarray) -> Histories:
    """Keep each item of a row once, and remove the row's target."""
    users = np.repeat(np.arange(len(rows)), rows.lengths)
    pairs = np.unique(np.column_stack([users, rows.items])[rows.items != targets[users]], axis=0)
    indptr = np.searchsorted(pairs[:, 0], np.arange(len(rows) + 1))
    return Histories(indptr, np.ascontiguousarray(pairs[:, 1]))


def _blocks(
    all_users: FactorisedBlock, on_progress: Callable[[int, int], None] | None
) -> Iterator[tuple[np.ndarray, FactorisedBlock]]:
    """Cut the users into blocks; report a block as done when the next one is asked for."""
    count = len(all_users.queries)
    for start in range(0, count, BLOCK_USERS):
        stop = min(start + BLOCK_USERS, count)
        yield np.arange(start, stop), all_users._replace(queries=all_users.queries[start:stop])
        if on_progress is not None:
            on_progress(stop, count)


def _report_lists(lists: np.ndarray | None, users: _Users, catalogue: _Catalogue) -> ListsReport | None:
    if lists is None:
        return None
    if catalogue.counts is not None:
        return ListsReport(**asdict(list_metrics(lists, users.candidates[:, 0], catalogue.counts)))
    metrics = list_metrics(lists, users.candidates[:, 0], np.zeros(len(catalogue.vectors), np.int64))
    return ListsReport(n=metrics.n, coverage=metrics.coverage, popularity=None, popularity_bias=None)


def _known_columns(sets: CandidateSets, users: _Users, catalogue: _Catalogue) -> dict[str, pl.Series]:
    columns = known_columns(sets)
    if catalogue.counts is not None:
        columns["item_popularity"] = quantile_groups(
            catalogue.counts[users.candidates[:, 0]], "item_popularity"
        )
    return columns


def _notes(sets: CandidateSets, num_items: int) -> list[str]:
    if num_items == sets.num_items:
        return []
    note = (
        f"The candidates were drawn from a catalogue of {sets.num_items:,} items, the vectors are of "
        f"{num_items:,}: full and corrected metrics are of different catalogues."
    )
    return [note]
