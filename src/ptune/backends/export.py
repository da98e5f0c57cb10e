"""Export `Backbone.forward` as an OpenVINO graph.

The graph is traced from `Backbone.forward` itself, so no model is implemented
twice. Its inputs, in which B, T and P are dynamic:

    input_ids, attention_mask   [B, T]
    prompt                      shallow [P, E] or [B, P, E]; deep [L, 2, P, Hkv] or [L, 2, B, P, Hkv]
    token_type_ids              [B, T], only for families with segments
    read                        [B], only if one position of each row is wanted

Outputs: hidden states [B, offset + T, H], or [B, 1, H] if one position is wanted. For families with a pretrained
pooler, also its output [B, H].
"""

from __future__ import annotations

import copy
import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ptune.data.batch import Inputs
from ptune.errors import BackboneError
from ptune.extras import import_extra
from ptune.model.backbone import Backbone
from ptune.model.entry import Entry


@dataclass(frozen=True)
class Variant:
    """The properties in which the graphs of one backbone differ.

    Attributes:
        entry: how the prompt enters the model.
        by_row: whether every row has its own prompt.
        picked: whether the last layer is computed at only one position of each row.
    """

    entry: Entry
    by_row: bool = False
    picked: bool = False

    @property
    def name(self) -> str:
        """Name of the variant for file names and messages, such as "separate-by-row"."""
        return self.entry.place + "-shifted" * self.entry.shift_text + "-by-row" * self.by_row + "-picked" * self.picked


def variant_of(prompt: Tensor, entry: Entry, picked: bool) -> Variant:
    """Return the variant that computes a forward pass with this prompt."""
    return Variant(entry, by_row=prompt.dim() in (3, 5), picked=picked)


def export_graph(backbone: Backbone, variant: Variant) -> Any:
    """Return the forward pass of a variant as an `openvino.Model` in float32. Other threads may use the backbone.

    Raises:
        ConfigError: OpenVINO is not installed.
        BackboneError: the model's code cannot be traced or converted.
    """
    openvino = require("openvino")
    examples, shapes = _examples(backbone, variant)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's own code calls functions that torch deprecates
            program = torch.export.export(_Traced(_twin(backbone), variant).eval(), examples, dynamic_shapes=shapes)
            graph = openvino.convert_model(program)
    except Exception as err:  # a model's code can fail to trace with any type of error
        raise BackboneError(
            f"{backbone.family.name} with {variant.name} prompts (backbone '{backbone.name}') cannot be compiled by "
            "OpenVINO; leave `precision` out",
            field="precision",
        ) from err
    for port, name in zip(graph.inputs, input_names(backbone, variant), strict=True):
        port.get_tensor().set_names({name})
    return graph


def _twin(backbone: Backbone) -> Backbone:
    """Return a copy of a backbone whose weights are in the same memory.

    A trace puts other tensors in the place of a module's weights until it ends. Threads that use the backbone meanwhile
    would find them there.
    """
    copies: dict[int, Any] = {}
    held = [value for module in backbone.modules() for value in vars(module).values()]
    held += [item for value in held if isinstance(value, dict) for item in value.values()]
    for tensor in held:
        if isinstance(tensor, nn.Parameter):
            copies[id(tensor)] = nn.Parameter(tensor.detach(), requires_grad=False)
        elif isinstance(tensor, Tensor):
            copies[id(tensor)] = tensor.detach()
    return copy.deepcopy(backbone, copies)


def input_names(backbone: Backbone, variant: Variant) -> list[str]:
    """Return the names of the graph's inputs, in order."""
    segments = ["token_type_ids"] if backbone.family.token_types else []
    return ["input_ids", "attention_mask", "prompt", *segments, *["read"] * variant.picked]


def require(package: str) -> Any:
    """Import and return a package of the extra `openvino`.

    Raises:
        ConfigError: the package is not installed.
    """
    return import_extra(package, "`precision`", "'ptune[openvino]'", field="precision")


class _Traced(nn.Module):
    """The forward pass of one variant as a module with only tensors as inputs and outputs."""

    def __init__(self, backbone: Backbone, variant: Variant) -> None:
        super().__init__()
        self.backbone = backbone
        self.variant = variant

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        by_name = dict(zip(input_names(self.backbone, self.variant), inputs, strict=True))
        batch = Inputs(by_name["input_ids"], by_name["attention_mask"], by_name.get("token_type_ids"))
        with PlainAttention():
            hidden = Backbone.forward(self.backbone, batch, by_name["prompt"], self.variant.entry, by_name.get("read"))
        return (hidden.states,) if hidden.pooler_output is None else (hidden.states, hidden.pooler_output)


# Attention score of masked positions. It is low enough in float32 and bfloat16. Unlike minus infinity it does not lead
# to 0/0 in rows of padding that see nothing.
_MASKED = torch.finfo(torch.bfloat16).min


class PlainAttention(TorchFunctionMode):
    """Attention with separate keys and values for every head, and a mask of numbers instead of booleans.

    OpenVINO 2026.4 ignores that heads may share keys, and gives NaN for a row that is masked completely.
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
    """Return example inputs for tracing, and their dynamic dimensions."""
    rows, length, tokens = 2, 6, 3
    ids = torch.ones(rows, length, dtype=torch.long)
    row_shape = [rows] if variant.by_row else []
    shallow = variant.entry.place == "input"
    layer_shape = [] if shallow else [backbone.layers, 2]
    prompt = torch.zeros(*layer_shape, *row_shape, tokens, backbone.embedding_width if shallow else backbone.kv_width)
    text = _dynamic(0, 1)
    examples = [ids, torch.ones_like(ids), prompt]
    shapes = [text, text, _dynamic(*range(len(layer_shape), prompt.dim() - 1))]
    if backbone.family.token_types:
        examples.append(torch.zeros_like(ids))
        shapes.append(text)
    if variant.picked:
        examples.append(torch.zeros_like(ids[:, 0]))
        shapes.append(_dynamic(0))
    return tuple(examples), (tuple(shapes),)


def _dynamic(*dimensions: int) -> dict[int, Any]:
    """Mark dimensions of an input as dynamic, in the form that `torch.export` takes."""
    return dict.fromkeys(dimensions, torch.export.Dim.DYNAMIC)
