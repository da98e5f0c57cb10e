"""Prompts on disk and as dictionaries of tensors.

An adapter's folder is ptune's: PEFT's two files, and the record. Beside them
transformers' Trainer finds `model.safetensors`, the whole state of all
adapters: prompt encoders, which PEFT's files do not have, and heads.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ptune.adapter.files import AdapterFile, adapter_tensors, build_classifier, note_backbone, save_adapter
from ptune.adapter.layout import PROMPT_KEY, Record
from ptune.adapter.peft_files import HEAD_PREFIXES
from ptune.atomic import write_files
from ptune.compat.peft.base import let_learn
from ptune.data.targets import ProblemType
from ptune.errors import AdapterError
from ptune.model.backbone import Backbone
from ptune.model.classifier import PromptClassifier
from ptune.training.report import versions

if TYPE_CHECKING:
    from ptune.compat.peft.model import PeftModel

STATE_FILE = "model.safetensors"  # the name by which transformers' Trainer looks for weights to go on with
DEFAULT = "default"


def save_adapters(model: PeftModel, folder: Path, names: list[str], whole: bool) -> None:
    """Write adapters, `default` into the folder itself, others into folders of their names inside.

    whole: also write the state that training goes on from.

    Raises:
        OutputError: a file cannot be written.
    """
    from safetensors.torch import save

    for name in names:
        classifier = model.adapter(name)
        record = Record(
            prompt=classifier.config,
            backbone=note_backbone(classifier.backbone),
            labels=classifier.labels,
            classes=len(classifier.labels),
            problem_type=classifier.problem_type,
            versions=versions(),
        )
        save_adapter(folder if name == DEFAULT else folder / name, classifier, record)
    if whole:
        state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
        write_files(folder, {STATE_FILE: save(state, metadata={"format": "pt"})})


def load_classifier(
    file: AdapterFile, backbone: Backbone, classes: int, problem_type: ProblemType, is_trainable: bool
) -> PromptClassifier:
    """An adapter as a classifier.

    To be trained it has its prompt encoder again, where a Trainer's checkpoint kept it; else the prompt itself is
    trained, without an encoder.

    Raises:
        AdapterError: it does not fit the model, or is damaged.
    """
    if file.record.classes != classes:
        raise AdapterError(
            f"adapter '{file.folder}' has {file.record.classes} classes, but the model was loaded with "
            f"num_labels={classes}; load it with num_labels={file.record.classes}"
        )
    classifier = build_classifier(file, backbone)
    if not isinstance(classifier, PromptClassifier):
        raise AdapterError(f"adapter '{file.folder}' is an ensemble of {file.record.members}; use ptune.load")
    if file.record.weights_sha256 is None:  # PEFT does not note the problem type
        classifier.problem_type = problem_type
    if is_trainable and (file.folder / STATE_FILE).is_file():
        return _with_encoder(file, classifier)
    return classifier


def _with_encoder(file: AdapterFile, folded: PromptClassifier) -> PromptClassifier:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = file.folder / STATE_FILE
    config = file.record.prompt.model_copy(update={"init": "normal", "init_text": None})
    whole = PromptClassifier(folded.backbone, config, folded.labels, problem_type=folded.problem_type)
    try:
        prefix = f"adapters.{DEFAULT}."
        state = {name.removeprefix(prefix): x for name, x in load_file(path).items() if name.startswith(prefix)}
        whole.load_trainable_state(state)
    except (SafetensorError, OSError, ValueError, RuntimeError) as err:
        raise AdapterError(f"{path} cannot be gone on from ({err}); remove it to train the prompt itself") from err
    return whole


def get_peft_model_state_dict(model: PeftModel, adapter_name: str = DEFAULT) -> dict[str, Tensor]:
    """The folded prompt and the head, under the names that adapter_model.safetensors has."""
    return adapter_tensors(model.adapter(adapter_name))


def set_peft_model_state_dict(
    model: PeftModel, peft_model_state_dict: dict[str, Any], adapter_name: str = DEFAULT
) -> None:
    """Put in what `get_peft_model_state_dict` gave, here or in PEFT.

    What is put in is the prompt itself. An adapter with a prompt encoder therefore has none afterwards: make
    optimizers after this call.

    Raises:
        AdapterError: other names or shapes than the adapter has.
    """
    given = {_plain(name): tensor for name, tensor in peft_model_state_dict.items()}
    classifier = model.adapter(adapter_name)
    expected = {_plain(name): tuple(tensor.shape) for name, tensor in adapter_tensors(classifier).items()}
    shapes = {name: tuple(tensor.shape) for name, tensor in given.items()}
    if shapes != expected:
        raise AdapterError(f"the state has {shapes}, but adapter '{adapter_name}' needs {expected}")
    if classifier.config.encoder != "none":
        trained = any(parameter.requires_grad for parameter in classifier.head.parameters())
        free = classifier.config.model_copy(update={"encoder": "none", "init": "normal", "init_text": None})
        classifier = PromptClassifier(
            classifier.backbone, free, classifier.labels, problem_type=classifier.problem_type
        ).train(classifier.training)
        let_learn(classifier, trained)
        model.adapters[adapter_name] = classifier
    prompt = given.pop(PROMPT_KEY)
    head = {f"head.{name}": tensor for name, tensor in given.items()}
    classifier.load_trainable_state({"prompt_encoder.embedding.weight": prompt, **head})


def _plain(name: str) -> str:
    """The name without PEFT's prefixes, or ptune's."""
    for prefix in (*HEAD_PREFIXES, "head."):
        if name.startswith(prefix):
            return name.removeprefix(prefix)
    return name
