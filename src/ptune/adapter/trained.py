"""Read the state of a classifier that transformers' Trainer saved.

Of a `PromptClassifier`, the Trainer saves model.safetensors: the prompt encoder,
the head, and the facts that the classifier puts into its state
(`ptune.model.extra_state`). This makes any output folder or checkpoint of the
Trainer as good as an adapter.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from ptune.adapter.layout import STATE_FILE, Record
from ptune.adapter.reading import MAX_JSON_BYTES, check_file_size, check_plain, exists, tensor_names
from ptune.errors import AdapterError, cut, describe_problems, short
from ptune.model.backbone import Backbone
from ptune.model.classifier import PromptClassifier
from ptune.model.config import PromptConfig
from ptune.model.extra_state import KEY, unpack_facts
from ptune.model.head import head_shapes
from ptune.model.start import make_encoder
from ptune.model.tokenizer import tokenizer_of

Trained = tuple[Record, dict[str, tuple[int, ...]], bool, dict[str, Any]]


def read_trained(folder: Path) -> Trained | None:
    """Read what is known about a saved state, without its weights.

    Returns:
        The fields of `AdapterFile` from `record` on; None if the folder holds no state of a `PromptClassifier`.

    Raises:
        AdapterError: the state is damaged.
    """
    from safetensors import SafetensorError, safe_open

    path = folder / STATE_FILE
    if not exists(path):
        return None
    try:
        check_file_size(path, path.stat().st_size)
        with safe_open(path, framework="pt") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in tensor_names(path, file)}
            if KEY not in shapes:
                return None
            if len(shapes[KEY]) != 1 or shapes[KEY][0] > MAX_JSON_BYTES:
                raise AdapterError(f"{path}: tensor '{KEY}' has shape {list(shapes[KEY])}; bytes of JSON are expected")
            facts = unpack_facts(file.get_tensor(KEY))
        del shapes[KEY]
        check_plain({name: facts[name] for name in ("target_scale", "target_shift")})
        return Record.model_validate(facts["record"]), shapes, False, facts
    except ValidationError as err:
        raise AdapterError(f"{path} holds no valid record of a classifier: {describe_problems(err)}") from err
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, RecursionError) as err:
        raise AdapterError(
            f"{path} is not a complete state of a classifier: {cut(str(err), 500)}; copy it again"
        ) from err


def build_trained(
    record: Record, facts: dict[str, Any], tensors: dict[str, Tensor], backbone: Backbone, where: str
) -> PromptClassifier:
    """Return a classifier in a saved state, with its prompt encoder.

    Args:
        record, facts: from `read_trained`.
        tensors: the state's weights.
        backbone: what the classifier was trained on.
        where: the folder, for messages.

    Raises:
        AdapterError: the tensors are not those of such a classifier.
    """
    # Where prompt and head started no longer matters.
    started = {"init": "normal", "init_text": None, "head": "linear", "verbalizer": None}
    config = record.prompt.model_copy(update=started)
    expected = _expected_shapes(record, config, backbone)
    wrong = sorted(
        name for name in {*expected, *tensors} if name not in tensors or expected.get(name) != tensors[name].shape
    )
    if wrong:
        raise AdapterError(
            f"'{where}': {STATE_FILE} is not the state of the classifier that it describes: tensor {short(wrong[0])} "
            "is missing, unknown or of another shape; copy the folder again"
        )
    tokenizer = tokenizer_of(backbone) if config.tie_first else None
    model = PromptClassifier(backbone, config, record.labels or [], tokenizer, problem_type=record.problem_type)
    try:
        model.load_trainable_state(tensors)
        model.target_scale.fill_(float(facts["target_scale"]))
        model.target_shift.fill_(float(facts["target_shift"]))
        model.set_cosine_unit(facts.get("cosine"))
    except (ValueError, RuntimeError, KeyError, TypeError) as err:
        raise AdapterError(
            f"'{where}': {STATE_FILE} is not the state of the classifier that it describes: {err}; copy the folder "
            "again"
        ) from err
    model.fresh_head = False
    return model.eval()


def _expected_shapes(record: Record, config: PromptConfig, backbone: Backbone) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the tensors of such a classifier. Allocates none of them, because sizes are not trusted."""
    with torch.device("meta"):
        encoder = make_encoder(config.model_copy(update={"tie_first": False}), backbone, None).state_dict()
    head = head_shapes(backbone, config.pooling or "mean", record.classes)
    shapes = {f"prompt_encoder.{name}": tuple(tensor.shape) for name, tensor in encoder.items()}
    return shapes | {f"head.{name}": shape for name, shape in head.items()}
