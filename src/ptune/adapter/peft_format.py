"""Read and write PEFT's adapter_config.json.

The format is that of peft 0.21.2. PEFT always stores a folded prompt, whatever
network computed it: [P, E] for P_TUNING and PROMPT_TUNING, [P, L * 2 * Hkv] for
PREFIX_TUNING.
"""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from ptune.adapter.layout import BackboneNote, Record
from ptune.data.targets import REGRESSION, SINGLE
from ptune.errors import AdapterError, describe_problems, short
from ptune.model.backbone import Backbone
from ptune.model.config import MAX_VIRTUAL_TOKENS, PromptConfig
from ptune.model.head import head_parts

PEFT_VERSION = "0.21.2"  # the version whose files these are
HEAD_PREFIXES = ("base_model.model.", "base_model.")

_TYPES = {"p-tuning": "P_TUNING", "prompt-tuning": "PROMPT_TUNING", "deep": "PREFIX_TUNING"}
_METHODS = {peft_type: method for method, peft_type in _TYPES.items()}


def peft_reads(config: PromptConfig, backbone: Backbone, max_length: int | None) -> bool:
    """Return whether PEFT would load such an adapter and give the same logits as ptune.

    Args:
        config: the prompt's settings.
        backbone: what the adapter was trained on.
        max_length: length in tokens that texts are cut to; None if it is unknown.
    """
    if config.pooling != "peft" or changes_text(config) or _names_clash(backbone):
        return False
    if config.method == "deep":
        # In a sliding window shorter than prompt and text, PEFT hides the prompt from part of the text; ptune does not.
        window = getattr(backbone.config.get_text_config(), "sliding_window", None)
        prompt_in_window = window is None or (max_length is not None and max_length + config.virtual_tokens <= window)
        same_positions = bool(config.shift_text) or backbone.family.positions == "none"
        return backbone.family.peft_prefix and prompt_in_window and same_positions
    return backbone.embedding_width == backbone.width  # PEFT's virtual tokens have the hidden width


def changes_text(config: PromptConfig) -> bool:
    """Return whether texts are written into a template, which PEFT does not know: it would read another text."""
    return config.template not in (None, "{text}")


def _names_clash(backbone: Backbone) -> bool:
    """Whether the base has modules called as those of the head, which PEFT would look for in the file as well."""
    parts = head_parts(backbone.family.head)
    names = [name for name, _ in backbone.base.named_modules()] if backbone.observed else []
    return any(name.endswith(parts) for name in names)


def to_peft(config: PromptConfig, backbone: Backbone) -> dict[str, Any]:
    """Return the content of adapter_config.json."""
    deep = config.method == "deep"
    heads = backbone.kv_heads if deep else int(backbone.config.get_text_config().num_attention_heads)
    modules = [*head_parts(backbone.family.head), "classifier", "score"]
    content: dict[str, Any] = {
        "auto_mapping": None,
        "base_model_name_or_path": backbone.location.reference,
        "inference_mode": True,
        "modules_to_save": list(dict.fromkeys(modules)),
        "num_attention_heads": heads,
        "num_layers": backbone.layers,
        "num_transformer_submodules": 1,
        "num_virtual_tokens": config.virtual_tokens,
        "peft_type": _TYPES[config.method or "deep"],
        "peft_version": PEFT_VERSION,
        "revision": backbone.location.revision,
        "task_type": "SEQ_CLS",
        "token_dim": backbone.kv_width if deep else backbone.embedding_width,
    }
    if config.method == "p-tuning":
        content |= {
            "encoder_dropout": config.encoder_dropout,
            "encoder_hidden_size": config.encoder_hidden_size,
            "encoder_num_layers": config.encoder_layers,
            "encoder_reparameterization_type": "LSTM" if config.encoder == "lstm" else "MLP",
        }
    elif config.method == "deep":
        content |= {"encoder_hidden_size": config.encoder_hidden_size, "prefix_projection": False}
    else:
        content |= {"prompt_tuning_init": "RANDOM", "prompt_tuning_init_text": None, "tokenizer_name_or_path": None}
    return dict(sorted(content.items()))


def from_peft(content: dict[str, Any], classes: int, where: str) -> Record:
    """Return a record for an adapter that PEFT wrote. Fields that PEFT does not store stay None.

    Args:
        content: of adapter_config.json.
        classes: C, number of classes.
        where: the file, for messages.

    Raises:
        AdapterError: the file is not about prompt learning for classification, or has impossible sizes.
    """
    peft_type = content.get("peft_type")
    if not isinstance(peft_type, str) or peft_type not in _METHODS:
        raise AdapterError(f"{where}: peft_type is {short(peft_type)}; ptune reads {', '.join(_METHODS)}")
    if content.get("task_type") not in ("SEQ_CLS", None):
        raise AdapterError(
            f"{where}: task_type is {short(content['task_type'])}; ptune reads only SEQ_CLS, classification"
        )
    tokens = _positive(content, "num_virtual_tokens", where)
    for key in ("base_model_name_or_path", "revision"):
        if not isinstance(content.get(key), str | None):
            raise AdapterError(f"{where}: {key} is {short(content[key])}; text is expected")
    if tokens > MAX_VIRTUAL_TOKENS:
        raise AdapterError(f"{where}: num_virtual_tokens is {tokens}; at most {MAX_VIRTUAL_TOKENS} are expected")
    fixed = {"encoder": "none", "pooling": "peft", "softmax": "shared", "init": "normal"}
    prompt = PromptConfig(method=_METHODS[peft_type], virtual_tokens=tokens, **fixed)  # type: ignore[arg-type]
    layers = _positive(content, "num_layers", where)
    versions = {"peft": str(content["peft_version"])} if content.get("peft_version") else {}
    problem_type = REGRESSION if classes == 1 else SINGLE  # transformers' default for one output
    try:
        note = BackboneNote(
            name=content.get("base_model_name_or_path"), revision=content.get("revision"), layers=layers
        )
        return Record(
            prompt=prompt, backbone=note, labels=None, classes=classes, problem_type=problem_type, versions=versions
        )
    except ValidationError as err:
        raise AdapterError(f"{where} cannot be used: {describe_problems(err, _peft_name)}") from err


def _peft_name(field: str) -> str:
    """Return the name that a field of a record has in PEFT's configuration."""
    return {"name": "base_model_name_or_path", "layers": "num_layers"}.get(field, field)


def prompt_shape(content: dict[str, Any], where: str) -> tuple[int, int]:
    """Return the shape of prompt_embeddings according to an adapter_config.json.

    Raises:
        AdapterError: a size is missing or impossible.
    """
    tokens, width = _positive(content, "num_virtual_tokens", where), _positive(content, "token_dim", where)
    if content.get("peft_type") == "PREFIX_TUNING":
        width *= 2 * _positive(content, "num_layers", where)
    return tokens, width


def _positive(content: dict[str, Any], key: str, where: str) -> int:
    value = content.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= 2**24:
        raise AdapterError(f"{where}: {key} is {short(value)}; a positive whole number is expected")
    return value
