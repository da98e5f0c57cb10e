"""Load a backbone by its name: a local folder, a GGUF file, a model in an installed Python package, or a Hub id."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, get_args

import torch
from torch import Tensor

from ptune.errors import BackboneError, ConfigError, cut, unknown_choice
from ptune.extras import import_extra
from ptune.model import attention
from ptune.model.backbone import Backbone
from ptune.model.config import DeviceMap, DType
from ptune.model.discovery import attention_options, observe
from ptune.model.families import FAMILIES, Family
from ptune.model.language import LanguageHead, head_of, no_head
from ptune.model.locate import Location, locate
from ptune.model.memory import memory_errors, ways_out
from ptune.model.observed import check_config
from ptune.model.quantize import check_quantize, quantization
from ptune.model.reading import reading
from ptune.model.selfcheck import accept
from ptune.processes import Processes

logger = logging.getLogger(__name__)

# Lowest compute capability of GPUs with matrix units for bfloat16 (Ampere).
BFLOAT16_CAPABILITY = (8, 0)
DEVICE_MAPS = get_args(DeviceMap)

if TYPE_CHECKING:
    from transformers import PretrainedConfig


def load_backbone(
    name: str,
    revision: str | None = None,
    dtype: str = "auto",
    device: str = "auto",
    random_weights: bool = False,
    quantize: str | None = None,
    device_map: str | None = None,
    shard: bool = False,
) -> Backbone:
    """Load a frozen backbone.

    Args:
        name: a folder, a .gguf file, `python:PACKAGE[/PATH]`, or a Hub id.
        revision: branch, tag or commit of a Hub id. Default: the current commit of its main branch.
        dtype: float32, bfloat16, float16 or `auto`; see `pick_dtype`. Prompts and heads are always float32.
        device: a torch device, or `auto` for a GPU if there is one.
        random_weights: read config.json only, and use random weights with seed 0. For tests and benchmarks.
        quantize: `8bit` or `4bit` rounds the weights of linear layers when they are read; see `ptune.model.quantize`.
        device_map: `auto` spreads the layers over all GPUs and the CPU; see `load_at`. None: all go to `device`.
        shard: spread the layers over the processes of a training; see `ptune.model.sharded`. From then on all processes
            have to make the same calls, such as `evaluate` after training, because none can compute alone. With one
            process it has no effect.

    Raises:
        ConfigError: the number type is unknown.
        ConfigError: `quantize` or `device_map` is unknown, or needs a package.
        ConfigError: `shard` is used with one of these, or the backbone's layers are not modules of their own.
        TrainingError: `shard` is used, and the processes do not find each other.
        BackboneError: the backbone is not found, or its weights are incomplete or not in safetensors.
        BackboneError: prompts do not work with the backbone.
        BackboneError: the device cannot be used or has too little memory.
    """
    target = pick_device(device)
    location, dtype = locate(name, revision).pinned(), pick_dtype(dtype, target)
    return load_at(location, dtype, target, random_weights, quantize, device_map, shard)


def read_config(name: str, revision: str | None = None) -> PretrainedConfig:
    """Return the configuration of a backbone, whose weights are not read.

    Args and errors are those of `load_backbone`.
    """
    return _read_config(locate(name, revision).pinned())


def load_at(
    location: Location,
    dtype: str,
    target: torch.device,
    random_weights: bool = False,
    quantize: str | None = None,
    device_map: str | None = None,
    shard: bool = False,
) -> Backbone:
    """Load a frozen backbone from a place that has been found; see `load_backbone`.

    Args:
        location: from `locate`, pinned.
        dtype: float32, bfloat16 or float16.
        target: where the backbone is put.
        random_weights, quantize, shard: see `load_backbone`.
        device_map: accelerate reads the weights straight to where they belong, layer by layer, and moves hidden states
            between devices. The embeddings come first and go to the first GPU if there is one.
    """
    processes = Processes()
    if shard:
        check_shard(quantize, device_map)
        processes = Processes.launched()
    check_quantize(quantize, location, random_weights)
    check_device_map(device_map, random_weights)
    config = _read_config(location)
    check_config(config, location.name)
    alone = processes.count == 1
    if shard and alone:
        logger.warning("`shard` has no effect: there is one process; start several with torchrun")
    if random_weights:
        return _put(build_backbone(config, location, dtype, own_loop=alone), target, processes)
    placed: dict[str, Any] = {}
    if quantize is not None or device_map is not None:
        placed = {"device_map": device_map or {"": target}}
    model, missing = _read_weights(location, config, dtype, quantize=quantize, **placed)
    prefix = model.base_model_prefix + "."
    head = {
        key: value.detach().float()
        for key, value in model.state_dict().items()
        if not key.startswith(prefix) and key not in missing
    }
    pooler_missing = any(key.startswith(prefix) for key in missing)
    read_language_head = partial(_read_language_head, location, config, dtype)
    if placed:  # every weight is where it belongs
        return as_backbone(model, location, head, pooler_missing, read_language_head)
    try:
        with memory_errors():
            model = model.to(target) if alone else model  # shards go to their devices part by part
            backbone = as_backbone(model, location, head, pooler_missing, read_language_head, own_loop=alone)
            return _put(backbone, target, processes)
    except torch.OutOfMemoryError as err:
        size = sum(parameter.nbytes for parameter in model.base_model.parameters()) / 1e9
        raise BackboneError(
            f"{target} has no memory for backbone '{location.name}', which is {size:.1f} GB in {dtype}; "
            + ways_out(target, "`dtype='bfloat16'`", "a smaller backbone")
        ) from err


def _put(backbone: Backbone, target: torch.device, processes: Processes) -> Backbone:
    """Move a backbone to a device, or spread it over several processes."""
    return backbone.to(target) if processes.count == 1 else backbone.shard(target, processes)


def as_backbone(
    model: Any,
    location: Location,
    head_weights: dict[str, Tensor] | None = None,
    pooler_missing: bool = False,
    read_language_head: Callable[[Family], LanguageHead] | None = None,
    own_loop: bool = True,
) -> Backbone:
    """Return the backbone of a transformers classifier. If its family is not in the table, it is inspected first.

    Args:
        model: transformers' model with a classification head.
        location: where the model was loaded from.
        head_weights: weights of the classification head that the checkpoint contains, by name.
        pooler_missing: True if the checkpoint lacks the weights of the pooler.
        read_language_head: a function that reads the language-model head of a family.
        own_loop: see `Backbone`.

    Raises:
        BackboneError: prompts do not work with the model. The message names what failed.
    """
    model.requires_grad_(False).eval()
    _unify_dtype(model)
    listed = model.config.model_type in FAMILIES
    with _quiet():
        observed = None if listed else observe(model, location.name)
        family = observed.family if observed else FAMILIES[model.config.model_type]
        read_head = None if read_language_head is None else partial(read_language_head, family)
        backbone = Backbone(model.base_model, location, head_weights, pooler_missing, read_head, observed, own_loop)
        return backbone if listed else accept(backbone)


def _unify_dtype(model: Any) -> None:
    """Cast parameters that do not have the model's number type, except those that transformers keeps in float32.

    DeBERTa creates two biases in float32, whatever type is asked for. Its forward pass then fails in bfloat16.
    """
    dtype = model.dtype
    kept = {*(model._keep_in_fp32_modules or ()), *(model._keep_in_fp32_modules_strict or ())}
    for name, parameter in model.named_parameters():
        differs = parameter.is_floating_point() and parameter.dtype != dtype
        if differs and not kept & set(name.split(".")):
            parameter.data = parameter.data.to(dtype)


def build_backbone(
    config: PretrainedConfig, location: Location, dtype: str = "float32", own_loop: bool = True
) -> Backbone:
    """Return a backbone with random weights for a configuration. The seed is 0. For tests and benchmarks."""
    from transformers import AutoModelForSequenceClassification

    with torch.random.fork_rng(devices=[]), reading(location):
        torch.manual_seed(0)
        model = AutoModelForSequenceClassification.from_config(
            config, dtype=getattr(torch, dtype), **_attention(config)
        )
    read_language_head = partial(_random_language_head, location, config)
    return as_backbone(model, location, read_language_head=read_language_head, own_loop=own_loop)


def _language_model(family: Family, name: str) -> str:
    """Return the name of transformers' class that loads a model of a family with its language-model head.

    Raises:
        BackboneError: there is none for the family.
    """
    from transformers.models.auto import modeling_auto as auto

    causal, masked = auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
    if family.model_type not in (causal if family.decoder else masked):
        raise no_head(name, f"transformers has none for the type '{family.model_type}'")
    return "AutoModelForCausalLM" if family.decoder else "AutoModelForMaskedLM"


def _read_language_head(location: Location, config: PretrainedConfig, dtype: str, family: Family) -> LanguageHead:
    """Read the language-model head of a checkpoint. The rest of the model is read too, but not kept."""
    with torch.random.fork_rng(devices=[]):
        model, missing = _read_weights(location, config, dtype, _language_model(family, location.name))
    return head_of(model, missing, family, location.name)


def _random_language_head(location: Location, config: PretrainedConfig, family: Family) -> LanguageHead:
    """Return a language-model head with random weights, for a backbone with random weights. The seed is 0."""
    import transformers

    with torch.random.fork_rng(devices=[]), reading(location):
        torch.manual_seed(0)
        model = getattr(transformers, _language_model(family, location.name)).from_config(config)
    return head_of(model, set(), family, location.name)


def check_device_map(device_map: str | None, random_weights: bool) -> None:
    """Check that layers can be spread over devices.

    Raises:
        ConfigError: the value is unknown, accelerate is not installed, or the weights are random.
    """
    if device_map is None:
        return
    if device_map not in DEVICE_MAPS:
        raise unknown_choice("device_map", device_map, DEVICE_MAPS)
    if random_weights:
        raise ConfigError("`device_map` places weights that are read, and these are random; leave `device_map` out")
    import_extra("accelerate", "`device_map`", "accelerate", field="device_map")


def check_shard(quantize: str | None, device_map: str | None) -> None:
    """Check that layers can be spread over processes.

    Raises:
        ConfigError: they are rounded to a few bits, or spread over devices already.
    """
    for field, value in (("quantize", quantize), ("device_map", device_map)):
        if value is not None:
            raise ConfigError(
                f"`shard` spreads layers over processes; it cannot be used with `{field}`. Leave one of them out",
                field=field,
                value=value,
                expected="None",
            )


def pick_device(device: str) -> torch.device:
    """Return a torch device. For `auto` this is the GPU if torch finds one, otherwise the CPU.

    Under torchrun, `auto` and `cuda` are the GPU of the process's local rank.

    Raises:
        BackboneError: the device is unknown or cannot be used.
    """
    if device == "auto" and not torch.cuda.is_available():
        return torch.device("cpu")
    if device == "auto" or (device == "cuda" and torch.cuda.is_available()):
        local = os.environ.get("LOCAL_RANK")  # set by torchrun: each process of a machine takes a GPU of its own
        return torch.device("cuda") if local is None else torch.device("cuda", int(local) % torch.cuda.device_count())
    try:
        chosen = torch.device(device)
        torch.zeros(1, device=chosen).item()  # fails here if the device cannot compute
    except (RuntimeError, AssertionError) as err:
        known = device.partition(":")[0] in ("cuda", "mps", "cpu", "xpu", "meta")
        reason = cut(str(err).splitlines()[0].split(". ")[0], 150) if known else "it is not a device that torch knows"
        if isinstance(err, NotImplementedError):
            reason = "this machine has no such device"
        raise BackboneError(
            f"`device='{device}'` cannot be used here: {reason}; use `device='cpu'` or `device='auto'`",
            field="device",
            value=device,
            expected="auto, cpu or another device that torch can use here",
        ) from err
    return chosen


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence transformers' progress bars and load report. This module checks for missing weights itself."""
    from transformers import modeling_gguf_pytorch_utils as gguf
    from transformers.utils import logging as hf_logging

    verbosity, bars = hf_logging.get_verbosity(), hf_logging.is_progress_bar_enabled()
    hf_logging.set_verbosity_error()
    hf_logging.disable_progress_bar()
    gguf_bar = gguf.tqdm  # the setting does not cover the progress bar of GGUF files
    gguf.tqdm = partial(gguf_bar, disable=True)  # type: ignore[assignment]
    try:
        yield
    finally:
        gguf.tqdm = gguf_bar
        hf_logging.set_verbosity(verbosity)
        if bars:
            hf_logging.enable_progress_bar()


def _attention(config: PretrainedConfig) -> dict[str, str]:
    """Return the keyword arguments that make transformers use ptune's attention function.

    There are none for families that do not call a registered attention function.
    """
    if config.model_type not in FAMILIES:
        return attention_options(config)
    calls_function = FAMILIES[config.model_type].calls_function
    return {"attn_implementation": attention.register()} if calls_function else {}


def use_attention_function(model: Any, name: str) -> None:
    """Make a transformers classifier that is already loaded use the attention function through which prompts enter.

    Args:
        model: transformers' model with a classification head.
        name: name of the backbone, for error messages.

    Raises:
        BackboneError: the configuration shows that the model cannot be used as a backbone.
    """
    check_config(model.config, name)
    for implementation in _attention(model.config).values():
        model.set_attn_implementation(implementation)


def pick_dtype(dtype: str, device: torch.device) -> str:
    """Return the name of a number type. For `auto` this is bfloat16 on GPUs and CPUs that support it, else float32.

    Raises:
        ConfigError: the number type is unknown.
    """
    if dtype not in get_args(DType):
        choices = ", ".join(get_args(DType))
        raise ConfigError(
            f"`dtype='{dtype}'` is not known; use one of {choices}", field="dtype", value=dtype, expected=choices
        )
    if dtype != "auto":
        return dtype
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.get_device_capability(device) >= BFLOAT16_CAPABILITY else "float32"
    return "bfloat16" if device.type == "cpu" and multiplies_bfloat16() else "float32"


def has_amx() -> bool:
    """Return whether the CPU has matrix units for bfloat16. False if this version of torch cannot tell."""
    return _capable("amx_bf16")


def multiplies_bfloat16() -> bool:
    """Return whether the CPU has instructions that multiply bfloat16, with or without matrix units.

    Without them bfloat16 is slower than float32. False if this version of torch cannot tell.
    """
    return has_amx() or _capable("avx512_bf16")


def adds_int8_exactly() -> bool:
    """Return whether the CPU has instructions (VNNI) that add products of int8 in 32 bits.

    Without them products of two pairs are added in 16 bits, which are too few for large ones.
    """
    return any(map(_capable, ("avx512_vnni", "avx_vnni", "amx_int8", "dotprod", "arm_i8mm")))


def _capable(feature: str) -> bool:
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get(feature))


def _read_config(location: Location) -> PretrainedConfig:
    from transformers import AutoConfig

    with reading(location):
        return AutoConfig.from_pretrained(location.path, **location.load_options())


def _read_weights(
    location: Location,
    config: PretrainedConfig,
    dtype: str,
    with_head: str = "AutoModelForSequenceClassification",
    quantize: str | None = None,
    **placed: Any,
) -> tuple[Any, set[str]]:
    """Read a model with a head, and return it with the names of the weights that the checkpoint lacks.

    Args:
        location: where to read from.
        config: the model's configuration.
        dtype: name of the number type.
        with_head: transformers' class that loads the model.
        quantize: see `load_backbone`.
        placed: `device_map`, if accelerate is to read the weights.

    Raises:
        BackboneError: the checkpoint cannot be read, or it lacks weights of the backbone.
    """
    import transformers

    options = location.load_options()
    if location.gguf_file is None:
        options["use_safetensors"] = True
    if quantize is not None:
        options["quantization_config"] = quantization(quantize, config, with_head, dtype)
    with _quiet(), reading(location):
        model, report = getattr(transformers, with_head).from_pretrained(
            location.path,
            config=config,
            dtype=getattr(torch, dtype),
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # the checkpoint's head may have another number of labels
            **_attention(config),
            **options,
            **placed,
        )
    missing = set(report["missing_keys"]) | {key for key, *_ in report["mismatched_keys"]}
    prefix = model.base_model_prefix + "."
    required = sorted(key for key in missing if key.startswith(prefix) and ".pooler." not in key)
    if required:
        raise BackboneError(
            f"the checkpoint of backbone '{location.name}' lacks {len(required)} weights, first {required[0]}: it is "
            "incomplete or does not match its config.json; download it again, or use another backbone"
        )
    return model, missing
