"""The recommender: a fitted system that answers for new users, again and again."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from metatl.common.arguments import check_type, whole_number
from metatl.common.forks import refuse_forked_child
from metatl.data.histories import Histories, join_rows
from metatl.data.interactions import count_distinct
from metatl.data.readers.small_tables import read_small_table
from metatl.exceptions import InvalidArgumentError, MetatlError
from metatl.ranking.blocks import FactorisedBlock
from metatl.runs.run_directory import Run
from metatl.serving.approximate_index import PROPOSED
from metatl.serving.explanations import Explanation, explain, scores_of
from metatl.serving.filters import Filters, align_items, make_filters, select_items
from metatl.serving.raw_histories import look_up_histories
from metatl.serving.recommendations import Recommendation, Recommendations
from metatl.serving.served_run import ServedRun, serve_run, serve_stored_run
from metatl.serving.similar_items import similar_items

if TYPE_CHECKING:
    from collections.abc import Sequence

    import polars as pl
    from typing_extensions import Self

    from metatl.data.frames import FrameLike
    from metatl.data.interactions import Interactions
    from metatl.ranking.blocks import Block, TopItems
    from metatl.ranking.encoders import Rows
    from metatl.ranking.item_tables import ItemFormat, ItemTable
    from metatl.serving.filters import ItemFilter, Where

MAX_HISTORY = 50
"""Number of latest known items that the model sees; older ones are only excluded from the list."""

_SHORT_LIST = 10


class _Settings(NamedTuple):
    """How runs are loaded; see :meth:`Recommender.load`."""

    item_table: ItemFormat | None = None
    threads: int | None = None
    device: str = "cpu"
    approximate: bool = False

    def load(self, path: str | Path) -> ServedRun:
        return serve_stored_run(
            path, self.item_table, self.threads, self.device, approximate=self.approximate
        )


class Recommender:
    """A fitted system that answers for new users.

    All that does not depend on the user is made once, by `load`. A recommender may be used by many threads at
    once; a process that was forked from one with a recommender is refused with a `ForkError`.

    Examples
    --------
    >>> recommender = metatl.Recommender.load("runs/wines")  # doctest: +SKIP
    >>> recommender.recommend([[100001, 100010, 102345]], top=3)[0]  # doctest: +SKIP
    """

    def __init__(self, served: ServedRun, items: pl.DataFrame | None = None) -> None:
        self._lock = threading.Lock()
        self._state = (served, None if items is None else align_items(served.item_ids, items))
        self._items = items
        self._settings = _Settings()
        self._refresh = False
        self._seen = None if served.path is None else _identity(served.path)

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        item_table: ItemFormat | None = None,
        items: FrameLike | str | os.PathLike[str] | None = None,
        threads: int | None = None,
        refresh: bool = False,
        device: str = "cpu",
        approximate: bool = False,
    ) -> Self:
        """Load a run.

        torch is imported only for systems that need it: not for MetaTL with the one-layer learner and the
        inner step on tr, nor for popularity, kNN and the Markov chain.

        Parameters
        ----------
        path : str or Path
            The directory of the run.
        item_table : {"float32", "bf16", "int8"}, optional
            Number format of the item vectors; fewer bits take less memory and time. By default float32, and
            bf16 from 65,536 items on.
        items : path or table, optional
            A row for each item, for `where` and for names: raw ids in ``item_id``, or else in the first
            column.
        threads : int, optional
            Threads of the kernels; by default `METATL_NUM_THREADS`, or one per available core.
        refresh : bool
            Look at the directory at each call, and load the run that has replaced the one before.
        device : {"cpu", "cuda", "auto"}
            Where a system in torch computes.
        approximate : bool
            Find the lists of catalogues of 300,000 items and more by an index of faiss: at least 96 % of the
            best 10 items, in a fraction of the time. Lists with `allow`, `candidates` or `where` stay
            exact. Building the index takes seconds at each load.

        Returns
        -------
        Recommender
            Ready to answer.

        Raises
        ------
        RunError
            See :func:`metatl.load_run`.
        DataError
            If `items` cannot be read, or has an item twice.
        InvalidArgumentError
            If an argument is out of its range, the system has no item vectors to round, or the catalogue
            has no approximate lists.
        ConfigError
            If an extra is not installed.
        """
        table = None if items is None else read_small_table("items", items).rows
        # Taken before the files are read: a run that comes in between is loaded again, not missed.
        seen = _identity(Path(path)) if isinstance(path, (str, os.PathLike)) else None
        settings = _Settings(item_table, threads, device, approximate)
        recommender = cls(settings.load(path), table)
        recommender._settings = settings
        recommender._refresh = refresh
        recommender._seen = seen
        return recommender

    @classmethod
    def of(
        cls,
        run: Run,
        *,
        item_table: ItemFormat | ItemTable | None = None,
        items: FrameLike | None = None,
        threads: int | None = None,
    ) -> Self:
        """Build a recommender from a run in memory; see :meth:`load` for the arguments."""
        check_type("run", run, Run, "metatl.Run; metatl.load_run loads one from a directory")
        table = None if items is None else read_small_table("items", items).rows
        return cls(serve_run(run, item_table, threads), table)

    # --- What it serves

    @property
    def run(self) -> ServedRun:
        """The run that answers now."""
        return self._state[0]

    @property
    def item_ids(self) -> pl.Series:
        """(I,) raw item ids."""
        return self.run.item_ids

    @property
    def items(self) -> pl.DataFrame | None:
        """The item table, I rows in the order of `item_ids`; None if there is none."""
        return self._state[1]

    def __repr__(self) -> str:
        served = self.run
        return f"Recommender({served.record.model}, {served.num_items} items, {served.item_format})"

    def reload(self, path: str | Path | None = None) -> None:
        """Load a run, and answer from it as soon as it is ready; until then the present one answers.

        Parameters
        ----------
        path : str or Path, optional
            The directory of the run; by default that of the present one.

        Raises
        ------
        RunError
            If it cannot be loaded; the present run goes on.
        InvalidArgumentError
            If there is no path: the present run is not stored.
        """
        with self._lock:
            self._reload(path)

    def reload_if_replaced(self) -> bool:
        """Load the run that has replaced the present one in its directory, if there is one.

        Returns
        -------
        bool
            Whether another run answers now.

        Raises
        ------
        RunError
            If it cannot be loaded; the present run goes on.
        """
        path = self.run.path
        if path is None or _identity(path) in (self._seen, None):
            return False
        with self._lock:
            self._reload(None)
        return True

    def _reload(self, path: str | Path | None) -> None:
        directory = self.run.path if path is None else Path(path)
        if directory is None:
            raise InvalidArgumentError("path: found none, expected a directory: this run is not stored")
        seen = _identity(directory)
        served = self._settings.load(directory)
        # One assignment: a call takes both or none.
        self._state = (served, None if self._items is None else align_items(served.item_ids, self._items))
        self._seen = seen

    def _current(self) -> tuple[ServedRun, pl.DataFrame | None]:
        """Return what answers a call, after a look at the directory if that was asked for."""
        refuse_forked_child()
        path = self._state[0].path
        is_stale = self._refresh and path is not None and _identity(path) not in (self._seen, None)
        # One thread loads; the others answer from the present run.
        if is_stale and self._lock.acquire(blocking=False):
            try:
                # A run that cannot be read is looked at again by the next call.
                with suppress(MetatlError, OSError):
                    self._reload(None)
            finally:
                self._lock.release()
        return self._state

    # --- Answers

    def recommend(
        self,
        histories: Sequence[Sequence[Any]] | Interactions,
        top: int = 10,
        *,
        exclude: ItemFilter | None = None,
        allow: ItemFilter | None = None,
        candidates: ItemFilter | None = None,
        where: Where | None = None,
        include_history: bool = False,
        inner_step: bool = True,
    ) -> Recommendations:
        """Recommend items to new users.

        The model is not trained further: it adapts to each history as in the evaluation. A user's items do
        not depend on the other users in the call. A user without known items gets the most popular ones. A
        list is shorter where fewer items are left.

        Parameters
        ----------
        histories : sequence of sequences, or Interactions
            Raw item ids of each user, oldest first; of interactions, each user's rows. The model sees the
            last 50 known items. Unknown ids are ignored and reported.
        top : int
            Items per user.
        exclude : ItemFilter, optional
            Items that are not recommended: raw ids or a boolean mask (I,), or one of these for each user.
            Unknown ids have no effect.
        allow : ItemFilter, optional
            The only items that may be recommended, in the same forms.
        candidates : ItemFilter, optional
            The same as `allow`, under the name that it has in evaluation.
        where : polars.Expr or mapping, optional
            A condition on the columns of the item table: an expression, or values by column.
        include_history : bool
            Whether items of the history may be recommended again.
        inner_step : bool
            Whether MetaTL's inner step adapts to the history; without it, the list shows what the step
            changes.

        Returns
        -------
        Recommendations
            One row per history.

        Raises
        ------
        InvalidArgumentError
            If an argument is out of its range, or a filter does not fit.
        ArgumentTypeError
            If the histories are not lists of ids.
        NotANumberError
            If a score is NaN.
        """
        served, items = self._current()
        top = min(whole_number("top", top, 1), served.num_items)
        known, unknown = look_up_histories(served.lookup, served.item_ids, histories)
        filters = Filters()
        if not (exclude is None and allow is None and candidates is None and where is None):
            filters = make_filters(
                served.lookup,
                served.num_items,
                len(known),
                exclude=exclude,
                allow=allow,
                candidates=candidates,
                where=None if where is None else select_items(items, where),
            )
        answering = served if inner_step else served.without_inner_step
        return _recommend(answering, known, unknown, top, filters, include_history=include_history)

    def scores(self, histories: Sequence[Sequence[Any]] | Interactions, items: Sequence[Any]) -> np.ndarray:
        """Score items for users.

        Parameters
        ----------
        histories : sequence of sequences, or Interactions
            Raw item ids of each user, oldest first.
        items : sequence
            (N,) raw ids.

        Returns
        -------
        ndarray
            (B, N) float32; higher is better, and scores compare within a user only. NaN for an unknown item,
            and for a user without known items.

        Raises
        ------
        ArgumentTypeError
            If the histories or the items are not lists of ids.
        """
        served, _ = self._current()
        known, _ = look_up_histories(served.lookup, served.item_ids, histories)
        wanted = served.lookup.find(list(items), lambda position: f"items[{position}]")
        scores = np.full((len(known), len(wanted)), np.nan, dtype=np.float32)
        users = np.arange(len(known))[_can_adapt(served, known)]
        columns = np.flatnonzero(wanted >= 0)
        if len(users) and len(columns):
            latest = known.select(users).latest(MAX_HISTORY)
            scores[np.ix_(users, columns)] = scores_of(served, latest, wanted[columns].tolist())
        return scores

    def similar_items(self, ids: Sequence[Any], top: int = 10) -> list[list[Recommendation]]:
        """Find the items that are most similar to some items.

        Parameters
        ----------
        ids : sequence
            Raw ids.
        top : int
            Items per id.

        Returns
        -------
        list of list of Recommendation
            For each id, the most similar other items, best first; empty for an unknown id. The similarity is
            the cosine of the item vectors, or what a system without vectors scores after this one item.

        Raises
        ------
        InvalidArgumentError
            If `top` is not a whole number of at least 1.
        """
        served, _ = self._current()
        top = min(whole_number("top", top, 1), served.num_items)
        found = served.lookup.find(list(ids), lambda position: f"ids[{position}]")
        known = np.flatnonzero(found >= 0)
        answers: list[list[Recommendation]] = [[] for _ in found]
        if len(known):
            best = similar_items(served, found[known], top)
            for row, items, scores in zip(known, best.items, best.scores, strict=True):
                answers[row] = [
                    Recommendation(served.item_ids[int(item)], float(score))
                    for item, score in zip(items, scores, strict=True)
                    if item >= 0
                ]
        return answers

    def explain(self, history: Sequence[Any], item: Any) -> Explanation:
        """Explain the score of an item: which items and transitions of the history speak for it.

        Parameters
        ----------
        history : sequence
            Raw item ids of the user, oldest first.
        item : object
            Raw id of the item.

        Returns
        -------
        Explanation
            Shares that add up to the score.

        Raises
        ------
        InvalidArgumentError
            If the item is unknown, or the history has no known item.
        """
        served, _ = self._current()
        known, _ = look_up_histories(served.lookup, served.item_ids, [history])
        index = int(served.lookup.find([item], lambda _: "item")[0])
        if index < 0:
            raise InvalidArgumentError(f"item: found {item!r}, expected an item of the run")
        if len(known.select(_can_adapt(served, known))) == 0:
            raise InvalidArgumentError(
                "history: found no known item, or every item; the list of such a user is that of popularity"
            )
        return explain(served, known.latest(MAX_HISTORY).items, index)


def recommend(
    run: Run,
    histories: Sequence[Sequence[Any]] | Interactions,
    *,
    top: int = 10,
    item_table: ItemFormat | ItemTable = "float32",
    num_threads: int | None = None,
) -> Recommendations:
    """Recommend items to new users, once. For repeated calls and filters, use :class:`Recommender`.

    Parameters
    ----------
    run : Run
        A fitted system.
    histories : sequence of sequences, or Interactions
        Raw item ids of each user, oldest first; of interactions, each user's rows. Ids of any type may be
        given as text. The model sees the last 50 known items. Unknown ids are ignored and reported.
    top : int
        Items per user. Items of the history are never recommended.
    item_table : {"float32", "bf16", "int8"} or ItemTable
        Format that the model's item vectors are rounded to.
    num_threads : int, optional
        Threads of the kernels; by default `METATL_NUM_THREADS`, or one per available core.

    Returns
    -------
    Recommendations
        One row per history.

    Raises
    ------
    InvalidArgumentError
        If `run` is not a `Run`, `top` is not a whole number of at least 1, the histories are not lists of
        ids, or the model has no item vectors to round.
    NotANumberError
        If a score is NaN.
    """
    refuse_forked_child()
    return Recommender.of(run, item_table=item_table, threads=num_threads).recommend(histories, top)


def _recommend(
    served: ServedRun,
    known: Histories,
    unknown: tuple[tuple[str, ...], ...],
    top: int,
    filters: Filters,
    *,
    include_history: bool,
) -> Recommendations:
    users = _can_adapt(served, known)
    rows, of_rows = known.select(users), filters.select(users)
    latest = rows if len(rows.items) <= MAX_HISTORY else rows.latest(MAX_HISTORY)
    answers = [
        (
            block_rows,
            _best(served, block, top, rows.select(block_rows), of_rows.select(block_rows), include_history),
        )
        for block_rows, block in served.encoder.blocks(latest)
    ]
    if len(answers) == 1 and len(rows) == len(known):
        return Recommendations(served.item_ids, *answers[0][1], known.lengths, unknown)
    items = np.full((len(known), top), -1, dtype=np.int64)
    scores = np.full((len(known), top), -np.inf, dtype=np.float32)
    indices = np.arange(len(known))[users]
    for block_rows, best in answers:
        items[indices[block_rows]], scores[indices[block_rows]] = best
    for user in np.setdiff1d(np.arange(len(known)), indices).tolist():
        of_user = filters.of_user(user, served.num_items)
        if not include_history:
            of_user[known.items[known.indptr[user] : known.indptr[user + 1]]] = False
        popular = served.by_popularity[of_user[served.by_popularity]][:top]
        items[user, : len(popular)], scores[user, : len(popular)] = popular, served.item_counts[popular]
    return Recommendations(served.item_ids, items, scores, known.lengths, unknown)


def _best(
    served: ServedRun, block: Block, top: int, histories: Histories, filters: Filters, include_history: bool
) -> TopItems:
    excluded = _excluded(histories, filters.excluded, include_history=include_history)
    if filters.candidates is not None:
        return block.top_n_of(top, _allowed_of(filters.candidates, filters.allowed), excluded)
    if served.index is not None and filters.allowed is None and isinstance(block, FactorisedBlock):
        proposed = served.index.propose(
            block.queries, PROPOSED + max(0, top - _SHORT_LIST) + excluded.lengths
        )
        best = block.top_n_of(top, proposed, excluded)
        # A list may be short only where no more items pass: not where the visited cells hold too few.
        short = np.flatnonzero((best.items < 0).any(axis=1))
        if len(short):
            of_short = block._replace(queries=block.queries[short]).top_n(top, excluded.select(short))
            best.items[short], best.scores[short] = of_short
        return best
    return block.top_n(top, excluded, filters.allowed)


def _can_adapt(served: ServedRun, known: Histories) -> Rows:
    """Return the users with a known item; those who have had every item leave no negative."""
    lengths = known.lengths
    if lengths.min(initial=1) > 0 and lengths.max(initial=0) < served.num_items:
        return slice(None)
    can = lengths > 0
    full = np.flatnonzero(lengths >= served.num_items)
    rows = known.select(full)
    row_of = np.repeat(np.arange(len(rows)), rows.lengths)
    can[full] = count_distinct(row_of, rows.items, len(rows), served.num_items) < served.num_items
    return np.flatnonzero(can)


def _excluded(histories: Histories, others: Histories | None, *, include_history: bool) -> Histories:
    """Join the items of the histories, unless they may come again, and each user's other excluded items."""
    if others is None:
        return _nothing(len(histories)) if include_history else histories
    if include_history:
        return others
    return join_rows(histories, others)


def _nothing(users: int) -> Histories:
    return Histories(np.zeros(users + 1, dtype=np.int64), np.zeros(0, dtype=np.int64))


def _allowed_of(candidates: Histories, allowed: np.ndarray | None) -> Histories:
    if allowed is None:
        return candidates
    is_kept = allowed[candidates.items]
    return Histories(np.concatenate([[0], np.cumsum(is_kept)])[candidates.indptr], candidates.items[is_kept])


def _identity(path: Path) -> tuple[int, int, int] | None:
    """Identify the run in a directory: another one has another record."""
    try:
        status = (path / "run.json").stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_mtime_ns
