"""Encoding with onnxruntime: what `metatl export --format onnx` wrote answers without torch."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from metatl import _metatl
from metatl.exceptions import ConfigError, RunError
from metatl.ranking.encoders import ENCODE_BLOCK_ITEMS

if TYPE_CHECKING:
    from typing_extensions import Self

    from metatl.data.histories import Histories
    from metatl.models.contract import ShareOfScore, Similarity
    from metatl.runs.run_directory import StoredRun


@dataclass(frozen=True, eq=False)
class OnnxEncoder:
    """The encoder of an export to ONNX; see :class:`metatl.models.contract.QueryEncoder`.

    Attributes
    ----------
    session : onnxruntime.InferenceSession
        The graph (:mod:`metatl.models.onnx_graph`).
    item_table : ndarray
        (I, d) float32, C-contiguous, one vector per item.
    item_bias : ndarray or None
        (I,) float32, added to the score of each item.
    similarity : {"dot", "l2", "squared_l2"}
        Similarity of a query and an item vector.
    support_negatives : int
        Negatives per user that the graph needs.
    """

    session: Any
    item_table: np.ndarray
    item_bias: np.ndarray | None
    similarity: Similarity
    support_negatives: int

    @classmethod
    def of(cls, stored: StoredRun, num_threads: int | None) -> Self:
        """Build the encoder of an export.

        Parameters
        ----------
        stored : StoredRun
            An export with a graph.
        num_threads : int or None
            Threads of onnxruntime.

        Raises
        ------
        ConfigError
            If onnxruntime is not installed.
        RunError
            If onnxruntime cannot read the graph.
        """
        try:
            import onnxruntime
        except ImportError:
            raise ConfigError(
                f"{stored.path}: found an export to ONNX, which needs a package that is not installed; "
                'install it with `pip install "metatl[onnx]"`'
            ) from None
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = num_threads or _default_threads()
        # A thread that waits for the next request leaves the processor to others.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        try:
            session = onnxruntime.InferenceSession(stored.graph, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # noqa: BLE001 (onnxruntime raises its own, of many classes)
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise RunError(
                f"{stored.path}: onnxruntime cannot read encoder.onnx ({reason}); export again"
            ) from None
        return cls(
            session,
            stored.tensors["item_table"],
            stored.tensors.get("item_bias"),
            stored.weights_record["similarity"],
            int(stored.weights_record["support_negatives"]),
        )

    @property
    def inner_steps(self) -> int:
        """0: the steps are part of the graph and cannot be left out."""
        return 0

    def without_inner_steps(self) -> Self:
        """Return the encoder itself, which has no steps to leave out."""
        return self

    def encode(self, histories: Histories, *, seed: int, num_threads: int | None) -> np.ndarray:
        """See :meth:`metatl.models.contract.QueryEncoder.encode`."""
        queries = np.empty((len(histories), self.item_table.shape[1]), dtype=np.float32)
        max_rows = max(1, ENCODE_BLOCK_ITEMS // (1 + self.support_negatives))
        for rows, matrix in histories.blocks(max_rows, ENCODE_BLOCK_ITEMS):
            inputs = {"histories": matrix}
            if self.support_negatives:
                inputs["negatives"] = _metatl.sample_support_negatives(
                    matrix, self.support_negatives, len(self.item_table), seed=seed, num_threads=num_threads
                )
            queries[rows] = self.session.run(["queries"], inputs)[0]
        return queries

    def explain(self, history: np.ndarray, item: int, *, seed: int) -> ShareOfScore | None:  # noqa: ARG002
        """Return None: the graph is not divided into parts."""
        return None


def _default_threads() -> int:
    given = os.environ.get("METATL_NUM_THREADS", "")
    return int(given) if given.isdigit() and int(given) > 0 else len(os.sched_getaffinity(0))
