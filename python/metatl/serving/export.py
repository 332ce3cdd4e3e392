"""`export`: write what serving needs of a run, for onnxruntime or for other programs.

An export is a directory like that of a run (:mod:`metatl.runs.run_directory`), with

    item_table.safetensors  `item_table` (I, d) and `item_bias` (I,), float32; its record has the similarity
    encoder.onnx            the encoder (:mod:`metatl.models.onnx_graph`), in an export to ONNX
    best.safetensors        the weights of the run, in an export to safetensors

and without the state of the training.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

from metatl.common.arguments import check_choice, check_type
from metatl.common.files import replace_file
from metatl.exceptions import ConfigError, RunError
from metatl.models.contract import FactorisedModel
from metatl.ranking.blocks import to_array
from metatl.runs.checkpoints import save_checkpoint
from metatl.runs.run_directory import load_run, read_record
from metatl.runs.run_files import has_run, is_finished
from metatl.runs.training_directory import check_directory, training_directory

if TYPE_CHECKING:
    from metatl.runs.run_directory import Run

ExportFormat: TypeAlias = Literal["onnx", "safetensors"]
"""Format of the encoder in an export."""


def export(
    run: str | Path,
    out: str | Path,
    *,
    format: ExportFormat = "onnx",  # noqa: A002 (the name of the option)
    overwrite: bool = False,
) -> Path:
    """Export the encoder and the item table of a run.

    :class:`metatl.Recommender` and `metatl serve` answer from the directory. An export to ONNX needs no
    torch, for any system with item vectors.

    Parameters
    ----------
    run : str or Path
        The directory of a finished run.
    out : str or Path
        The directory to write.
    format : {"onnx", "safetensors"}
        ``onnx``: a graph of the encoder, from histories (B, L) of any number and length to queries (B, d).
        ``safetensors``: the weights of the run by the names of the modules.
    overwrite : bool
        Replace the export or run in `out`, in one step.

    Returns
    -------
    Path
        `out`.

    Raises
    ------
    RunError
        If `run` holds no finished run, or `out` cannot be written to.
    ConfigError
        If the system has no item vectors, its settings cannot be exported, or the extra `onnx` is missing.
    InvalidArgumentError
        If an argument has the wrong type or the format is unknown.
    """
    check_choice("format", format, get_args(ExportFormat))
    check_type("run", run, (str, os.PathLike), "the directory of a run")
    check_type("out", out, (str, os.PathLike), "a directory to write")
    source, target = Path(run), Path(out)
    if os.path.realpath(source) == os.path.realpath(target):
        raise RunError(f"out: found {target}, the run itself; choose another directory")
    if has_run(target) and not overwrite:
        raise RunError(f"{target}: already holds a run or an export; replace it with --overwrite")
    check_directory(target, resume=False, overwrite=overwrite)
    loaded = load_run(source)
    if not is_finished(source):
        raise RunError(f"{source}: found an unfinished run; finish it with `metatl train --resume`")
    metrics = (source / "metrics.json").read_bytes()
    weights = (source / "best.safetensors").read_bytes()
    model = loaded.model
    if not isinstance(model, FactorisedModel):
        raise ConfigError(
            f"model: {loaded.record.model} has no item vectors to export"
            + ("" if loaded.record.model == "melu" else "; it is served without torch as it is")
        )
    graph = None
    if format == "onnx":
        from metatl.models.onnx_graph import onnx_graph

        graph = onnx_graph(model)
    if read_record(source) != loaded.record:
        raise RunError(f"{source}: another run took this place meanwhile; repeat the export")
    # The first round may put a finished export in place that a killed call left, of this or another format.
    for _ in range(2):
        with training_directory(
            target, loaded.record, loaded.item_ids, loaded.item_counts, resume=False, overwrite=overwrite
        ) as there:
            if not there.is_finished:
                _write(there.directory, loaded, model, graph, weights)
                # Written last: its presence means that the directory is complete.
                with replace_file(there.directory / "metrics.json") as temporary:
                    temporary.write_bytes(metrics)
                break
    return target


def _write(directory: Path, run: Run, model: FactorisedModel, graph: bytes | None, weights: bytes) -> None:
    tensors = {"item_table": to_array(model.item_table)}
    if model.item_bias is not None:
        tensors["item_bias"] = to_array(model.item_bias)
    record = {
        "system": run.record.model,
        "similarity": model.similarity,
        "support_negatives": model.support_negatives,
    }
    if graph is None:
        with replace_file(directory / "best.safetensors") as temporary:
            temporary.write_bytes(weights)
    else:
        record["graph_sha256"] = hashlib.sha256(graph).hexdigest()
        with replace_file(directory / "encoder.onnx") as temporary:
            temporary.write_bytes(graph)
    save_checkpoint(directory / "item_table.safetensors", tensors, record)
