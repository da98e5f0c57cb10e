"""`Backbone.forward` as an OpenVINO graph.

It is traced from `Backbone.forward` itself, so nothing of a model is written
down twice. Inputs of the graph, with B, T and P left open:

    input_ids, attention_mask   [B, T]
    prompt                      shallow [P, E] or [B, P, E]; deep [L, 2, P, Hkv] or [L, 2, B, P, Hkv]
    token_type_ids              [B, T], where the family has segments
    read                        [B], where one position of each row is wanted

Outputs: hidden states [B, offset + T, H], of one position [B, 1, H], and, where the family has a pretrained
pooler, its output [B, H].
"""

from __future__ import annotations

import importlib
import sys
import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ptune.data.batch import Inputs
from ptune.errors import BackboneError, ConfigError
from ptune.model.backbone import Backbone
from ptune.model.entry import Entry


@dataclass(frozen=True)
class Variant:
    """What tells the graphs of one backbone apart.

    entry: how the prompt enters. by_row: every row has a prompt of its own. picked: the last layer is computed at one
    position of each row.
    """

    entry: Entry
    by_row: bool = False
    picked: bool = False

    @property
    def name(self) -> str:
        """The variant in words, for file names and messages."""
        return self.entry.place + "-shifted" * self.entry.shift_text + "-by-row" * self.by_row + "-picked" * self.picked


def variant_of(prompt: Tensor, entry: Entry, picked: bool) -> Variant:
    """Return the variant that computes a pass with this prompt."""
    return Variant(entry, by_row=prompt.dim() in (3, 5), picked=picked)


def export_graph(backbone: Backbone, variant: Variant) -> Any:
    """The forward pass under one entry, as an `openvino.Model` of float32.

    Raises:
        ConfigError: OpenVINO is not installed.
        BackboneError: the model's code cannot be traced.
    """
    openvino = require("openvino")
    examples, shapes = _examples(backbone, variant)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what torch itself uses and is about to drop
            program = torch.export.export(_Traced(backbone, variant).eval(), examples, dynamic_shapes=shapes)
            graph = openvino.convert_model(program)
    except Exception as err:  # whatever it is in a model's code that cannot be followed
        raise BackboneError(
            f"{backbone.family.name} with {variant.name} prompts (backbone '{backbone.name}') cannot be compiled by "
            f"OpenVINO; leave `precision` out"
        ) from err
    for port, name in zip(graph.inputs, input_names(backbone, variant), strict=True):
        port.get_tensor().set_names({name})
    return graph


def input_names(backbone: Backbone, variant: Variant) -> list[str]:
    """The graph's inputs, in their order."""
    segments = ["token_type_ids"] if backbone.family.token_types else []
    return ["input_ids", "attention_mask", "prompt", *segments, *["read"] * variant.picked]


def require(package: str) -> Any:
    """Import a package of the extra `openvino`.

    Raises:
        ConfigError: it is not installed.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # sends usage data over the network
    try:
        return importlib.import_module(package)
    except ImportError as err:
        raise ConfigError(
            f"`precision` needs the package {package}, which is not installed; pip install 'ptune[openvino]'"
        ) from err


class _Traced(nn.Module):
    """The forward pass with the entry fixed: tensors in, tensors out."""

    def __init__(self, backbone: Backbone, variant: Variant) -> None:
        super().__init__()
        self.backbone = backbone
        self.variant = variant

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        named = dict(zip(input_names(self.backbone, self.variant), inputs, strict=True))
        batch = Inputs(named["input_ids"], named["attention_mask"], named.get("token_type_ids"))
        with _PlainAttention():
            hidden = Backbone.forward(self.backbone, batch, named["prompt"], self.variant.entry, named.get("read"))
        return (hidden.states,) if hidden.pooler_output is None else (hidden.states, hidden.pooler_output)


# Of a position that is masked: small enough in float32 and bfloat16, and unlike infinity no cause of 0/0 in a row of
# padding that sees nothing.
_MASKED = torch.finfo(torch.bfloat16).min


class _PlainAttention(TorchFunctionMode):
    """Attention with keys and values for every head and a mask of numbers.

    OpenVINO 2026.4 overlooks that heads may share keys, and gives NaN where a mask hides a whole row.
    """

    def __torch_function__(self, function: Any, _: Any, args: Any = (), options: Any = None) -> Any:
        options = options or {}
        if function is nn.functional.scaled_dot_product_attention:
            query, key, value = args
            mask = options.get("attn_mask")
            if options.get("enable_gqa"):
                groups = query.shape[1] // key.shape[1]
                key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
            if mask is not None and mask.dtype == torch.bool:
                mask = torch.where(mask, 0.0, _MASKED)
            args, options = (query, key, value), {**options, "attn_mask": mask, "enable_gqa": False}
        return function(*args, **options)


def _examples(backbone: Backbone, variant: Variant) -> tuple[tuple[Tensor, ...], tuple[tuple[dict[int, Any], ...]]]:
    """Inputs to trace with, and which of their dimensions stay open."""
    rows, length, tokens = 2, 6, 3
    ids = torch.ones(rows, length, dtype=torch.long)
    each = [rows] if variant.by_row else []
    shallow = variant.entry.place == "input"
    shape = [] if shallow else [backbone.layers, 2]
    prompt = torch.zeros(*shape, *each, tokens, backbone.embedding_width if shallow else backbone.kv_width)
    text = _open(0, 1)
    examples, shapes = [ids, torch.ones_like(ids), prompt], [text, text, _open(*range(len(shape), prompt.dim() - 1))]
    if backbone.family.token_types:
        examples.append(torch.zeros_like(ids))
        shapes.append(text)
    if variant.picked:
        examples.append(torch.zeros_like(ids[:, 0]))
        shapes.append(_open(0))
    return tuple(examples), (tuple(shapes),)


def _open(*dimensions: int) -> dict[int, Any]:
    return dict.fromkeys(dimensions, torch.export.Dim.DYNAMIC)
