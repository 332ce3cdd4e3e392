"""Export of the encoder of a factorised model as an ONNX graph, for histories of any number and length.

The inputs of the graph are ``histories`` (B, L) int64, oldest item first, and ``negatives``
(B, `support_negatives`) int64 if the model needs negatives; its output is ``queries`` (B, d) float32.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.func import functional_call
from torch.fx.experimental.proxy_tensor import make_fx

from metatl.exceptions import ConfigError
from metatl.models.contract import EncodesAnyLength

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from metatl.models.contract import FactorisedModel

LARGEST_BYTES = 2**31 - 2**20
"""Bytes of weights that fit in one ONNX file, which protobuf limits to 2 GiB."""

_USERS, _LENGTH = 5, 7
"""Sizes of the traced histories: distinct, so that no tracer takes one for the other."""


def onnx_graph(model: FactorisedModel) -> bytes:
    """Export the encoder of a model.

    Parameters
    ----------
    model : FactorisedModel
        A fitted model, an `nn.Module` on the CPU.

    Returns
    -------
    bytes
        The ONNX file, with the weights.

    Raises
    ------
    ConfigError
        If the extra `onnx` is not installed, the settings of the model cannot be exported, or the weights do
        not fit in one file.
    """
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError:
        raise ConfigError(
            "format: onnx needs packages that are not installed; install them with "
            '`pip install "metatl[onnx]"`'
        ) from None
    assert isinstance(model, nn.Module)  # noqa: S101 (mypy reads it)
    size = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
    if size > LARGEST_BYTES:
        raise ConfigError(
            f"format: found {size:,} bytes of weights, and an ONNX file holds at most {LARGEST_BYTES:,}; "
            "use safetensors"
        )
    items = len(model.item_table)
    inputs = [torch.randint(items, (_USERS, _LENGTH))]
    if model.support_negatives:
        inputs.append(torch.randint(items, (_USERS, model.support_negatives)))
    shapes: list[dict[int, Any]] = [{0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}]
    shapes += [{0: torch.export.Dim.DYNAMIC}] * (len(inputs) - 1)
    graph = _traced(model, inputs) if isinstance(model, EncodesAnyLength) else _Encode(model)
    with _silence(), torch.no_grad():
        program = torch.onnx.export(
            graph.eval(),
            tuple(inputs),
            dynamo=True,
            dynamic_shapes=tuple(shapes),
            input_names=["histories", "negatives"][: len(inputs)],
            output_names=["queries"],
            verbose=False,
        )
    assert program is not None  # noqa: S101 (mypy reads it)
    content = program.model_proto
    # Where in the source each operation comes from: paths of this machine.
    for part in (content.graph, *content.graph.node, *content.graph.value_info, *content.functions):
        part.ClearField("metadata_props")
    return bytes(content.SerializeToString(deterministic=True))


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Keep to itself what the exporter says to people who write exporters."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


class _Encode(nn.Module):
    """The encoder of a model as a module."""

    def __init__(self, model: FactorisedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, histories: Tensor, negatives: Tensor | None = None) -> Tensor:
        return self.model.encode(histories, negatives).queries


class _EncodeAnyLength(nn.Module):
    def __init__(self, model: EncodesAnyLength) -> None:
        super().__init__()
        self.model = model

    def forward(self, histories: Tensor, negatives: Tensor | None = None) -> Tensor:
        return self.model.encode_any_length(histories, negatives)


class _Traced(nn.Module):
    """A traced function of weights and inputs, with its weights."""

    def __init__(self, graph: nn.Module, weights: list[Tensor]) -> None:
        super().__init__()
        self.graph = graph
        self.names = [f"weight_{index}" for index in range(len(weights))]
        for name, weight in zip(self.names, weights, strict=True):
            self.register_buffer(name, weight)

    def forward(self, histories: Tensor, negatives: Tensor | None = None) -> Tensor:
        inputs = (histories,) if negatives is None else (histories, negatives)
        queries: Tensor = self.graph([getattr(self, name) for name in self.names], *inputs)
        return queries


def _traced(model: EncodesAnyLength, inputs: list[Tensor]) -> _Traced:
    """Trace the operations, those of inner gradients included, which torch.export cannot follow."""
    module = _EncodeAnyLength(model)
    state = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    weights = [tensor.detach() for tensor in state.values()]

    def encode(weights: list[Tensor], *inputs: Tensor) -> Tensor:
        queries: Tensor = functional_call(module, dict(zip(state, weights, strict=True)), inputs)
        return queries

    graph = make_fx(encode, tracing_mode="symbolic")(weights, *inputs)
    return _Traced(graph, weights)
