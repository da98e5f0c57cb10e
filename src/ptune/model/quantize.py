"""Load the linear layers of a backbone in 8 or 4 bits, through bitsandbytes.

The weights are rounded once, when they are read. Computations are in the backbone's number type, and gradients go
through the layers to the prompt, which is not rounded. The classification head and the embeddings keep their type.
"""

from __future__ import annotations

from typing import Any, get_args

import torch
from torch import nn

from ptune.errors import BackboneError, ConfigError, unknown_choice
from ptune.extras import import_extra
from ptune.model.config import Quantize
from ptune.model.locate import Location

CHOICES = get_args(Quantize)


def check_quantize(quantize: str | None, location: Location, random_weights: bool) -> None:
    """Check that a backbone can be read in so many bits.

    Raises:
        ConfigError: the value is unknown, or bitsandbytes is not installed.
        ConfigError: there are no weights to round, or they are in a GGUF file.
    """
    if quantize is None:
        return
    if quantize not in CHOICES:
        raise unknown_choice("quantize", quantize, CHOICES)
    if random_weights or location.gguf_file is not None:
        what = "random weights" if random_weights else f"the GGUF file {location.gguf_file}"
        raise ConfigError(
            f"`quantize` rounds the weights of *.safetensors files, and the backbone has {what}; leave `quantize` out",
            field="quantize",
            value=quantize,
            expected="none",
        )
    for package in ("accelerate", "bitsandbytes"):
        import_extra(package, "`quantize`", "'ptune[quantize]'", field="quantize")


def quantization(quantize: str, config: Any, with_head: str, dtype: str) -> Any:
    """Return transformers' configuration for reading a model.

    Args:
        quantize: 8bit or 4bit.
        config: the model's configuration.
        with_head: transformers' class that reads the model.
        dtype: the number type of everything else, and of computations.

    Raises:
        BackboneError: the checkpoint is quantised already.
    """
    import transformers

    if getattr(config, "quantization_config", None) is not None:
        raise BackboneError("the weights of the backbone are quantised already; leave `quantize` out")
    with torch.device("meta"):
        model = getattr(transformers, with_head).from_config(config)
    heads = [name for name, _ in model.named_children() if name != model.base_model_prefix]
    if quantize == "8bit":
        return transformers.BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=heads)
    return transformers.BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=getattr(torch, dtype),
        llm_int8_skip_modules=heads,
    )


def quantized(model: nn.Module) -> str | None:
    """Return in how many bits the linear layers of a model are, 8bit or 4bit; None if they are not quantised."""
    config = getattr(getattr(model, "config", None), "quantization_config", None)
    if getattr(config, "load_in_8bit", False):
        return "8bit"
    return "4bit" if getattr(config, "load_in_4bit", False) else None


def number_of_weights(parameter: nn.Parameter) -> int:
    """Return how many weights a parameter stands for. In 4 bits, two of them share a byte."""
    state = getattr(parameter, "quant_state", None)
    return int(torch.Size(state.shape).numel()) if state is not None else parameter.numel()
