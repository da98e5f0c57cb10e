"""Quantize the linear layers of a graph to int8. Attention, norms and residuals stay in floating point.

With AMX, the layers that bring the feed-forward networks back to the model's
width stay in floating point as well: their inputs have few large values and many
small ones, and they are as fast in bfloat16 there.

Without VNNI, sums of two products have 16 bits, so weights use half of the range of int8.

Weights have one scale per output, and activations have one range per layer. The
ranges are measured on random tokens with prompts of random tokens, so a graph
depends neither on data nor on an adapter (docs/log.md says what that costs).
"""

from __future__ import annotations

import contextlib
import io
import logging
from typing import Any

import torch
from torch import Tensor

from ptune.backends.export import Variant, input_names, require
from ptune.model.backbone import Backbone
from ptune.model.loading import adds_int8_exactly, has_amx
from ptune.model.tokenizer import tokenizer_of

# Calibration inputs: number of rows, shortest and longest text in tokens; number of prompts and their length.
ROWS, SHORTEST, LONGEST = 128, 4, 128
PROMPTS, VIRTUAL_TOKENS = 8, 32


def quantize_graph(graph: Any, backbone: Backbone, variant: Variant) -> Any:
    """Return the graph of a variant in int8.

    Args:
        graph: from `export_graph`.
        backbone: the backbone that the graph was exported from.
        variant: the variant that the graph computes.

    Raises:
        ConfigError: NNCF is not installed.
    """
    nncf = require("nncf")
    nncf.set_log_level(logging.ERROR)
    with torch.no_grad():
        rows = _calibration_rows(backbone, variant)
    with contextlib.redirect_stdout(io.StringIO()):  # keep NNCF's progress bars out of a command's output
        return nncf.quantize(
            graph,
            nncf.Dataset(rows),
            subset_size=ROWS,
            model_type=nncf.ModelType.TRANSFORMER,
            ignored_scope=nncf.IgnoredScope(names=_unquantized(graph)),
            advanced_parameters=nncf.AdvancedQuantizationParameters(
                overflow_fix=None if adds_int8_exactly() else nncf.OverflowFix.ENABLE,
                disable_bias_correction=True,
                smooth_quant_alphas=nncf.AdvancedSmoothQuantParameters(matmul=-1),  # off
            ),
        )


def _unquantized(graph: Any) -> list[str]:
    """Return the names of the products to leave in floating point: those of attention and, with AMX, narrowing layers.

    Attention reads the prompt, whose range differs from adapter to adapter.
    """
    amx = has_amx()
    return [
        node.get_friendly_name()
        for node in graph.get_ops()
        if node.get_type_name() == "ScaledDotProductAttention"
        or (node.get_type_name() == "MatMul" and (not _has_weights(node) or (amx and _narrows(node))))
    ]


def _has_weights(product: Any) -> bool:
    """Return whether a product is that of a linear layer."""
    return bool(product.input_value(1).get_node().get_type_name() == "Constant")


def _narrows(product: Any) -> bool:
    """Return whether the output of a product is narrower than its input."""
    input_shape, output_shape = product.input_value(0).get_partial_shape(), product.output(0).get_partial_shape()
    return bool(output_shape[-1].get_length() < input_shape[-1].get_length())


def _calibration_rows(backbone: Backbone, variant: Variant) -> list[dict[str, Any]]:
    """Return inputs of the graph, one row each. Their lengths are spread evenly on a logarithmic scale."""
    generator = torch.Generator().manual_seed(0)
    prompts = [_prompt(backbone, variant, generator) for _ in range(PROMPTS)]
    special: list[int] = tokenizer_of(backbone)("")["input_ids"]
    longest = min(LONGEST, (backbone.max_positions or LONGEST) - VIRTUAL_TOKENS - len(special))
    rows = []
    for number in range(ROWS):
        length = round(SHORTEST * (longest / SHORTEST) ** (number / (ROWS - 1)))
        words = _random_tokens(backbone, length, generator).tolist()
        ids = torch.tensor([[*special[:1], *words, *special[1:]]])
        segments = [torch.zeros_like(ids)] if backbone.family.token_types else []
        read = [torch.tensor([ids.shape[1] - 1])] if variant.picked else []
        inputs = [ids, torch.ones_like(ids), prompts[number % PROMPTS], *segments, *read]
        arrays = [tensor.contiguous().numpy() for tensor in inputs]
        rows.append(dict(zip(input_names(backbone, variant), arrays, strict=True)))
    return rows


def _prompt(backbone: Backbone, variant: Variant, generator: torch.Generator) -> Tensor:
    """Return a prompt of random tokens: their embeddings, or their keys and values in the backbone."""
    tokens = _random_tokens(backbone, VIRTUAL_TOKENS, generator)
    prompt = backbone.word_embeddings(tokens) if variant.entry.place == "input" else backbone.text_prompt(tokens)
    return prompt.unsqueeze(-3) if variant.by_row else prompt


def _random_tokens(backbone: Backbone, count: int, generator: torch.Generator) -> Tensor:
    """Return random token ids, [count]."""
    return torch.randint(backbone.word_embeddings.weight.shape[0], (count,), generator=generator)
