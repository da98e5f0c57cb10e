"""An adapter's files on a backbone: both are checked against each other, then the weights are loaded."""

from __future__ import annotations

import logging

from torch import Tensor

from ptune.adapter.folder import AdapterFile, expect_shape
from ptune.adapter.layout import PROMPT_KEY, WEIGHTS_FILE, Record
from ptune.adapter.peft_format import HEAD_PREFIXES
from ptune.data.targets import default_labels
from ptune.errors import AdapterError
from ptune.model.backbone import Backbone
from ptune.model.classifier import PromptClassifier
from ptune.model.config import PromptConfig
from ptune.model.ensemble import Model, PromptEnsemble
from ptune.model.head import head_shapes

logger = logging.getLogger(__name__)


def build_classifier(file: AdapterFile, backbone: Backbone) -> Model:
    """Put an adapter on a backbone, after checking that it fits.

    Raises:
        AdapterError: another width, another number of layers, other tensors than the backbone's family needs.
    """
    record, folder = file.record, file.folder
    _check_backbone(file, backbone)
    labels = record.labels or labels_from(backbone, record.classes)
    stored = {  # what prompt and head became: how they were made and where they started does not matter any more
        "encoder": "none",
        "init": "normal",
        "init_text": None,
        "tie_first": False,
        "head": "linear",
        "verbalizer": None,
        "softmax": record.prompt.softmax or "shared",  # what there was before records said it
    }
    config = record.prompt.model_copy(update=stored)
    expected = _expected_shapes(record, config, backbone)
    names = {plain_name(name): name for name in file.shapes}
    if record.weights_sha256 is None:  # PEFT leaves out what it did not train: the checkpoint's own part of the head
        own = backbone.head_weights
        expected = {k: v for k, v in expected.items() if k in names or k not in own or tuple(own[k].shape) != v}
    for name, shape in expected.items():
        if name not in names:
            raise AdapterError(
                f"adapter '{folder}': tensor '{name}' is not in {WEIGHTS_FILE}, but the head of "
                f"{backbone.family.name} needs it; a fresh one would answer at random. PEFT leaves it out unless "
                "modules_to_save names its module: save the adapter again with it"
            )
        expect_shape(file.shapes, names[name], shape, folder)
    surplus = sorted(set(names) - set(expected))
    if surplus:
        raise AdapterError(f"adapter '{folder}': {WEIGHTS_FILE} holds unexpected tensors: {', '.join(surplus)}")
    tensors = file.tensors()
    own = {name: tensors[names[name]] for name in expected}
    parts = [own] if record.members == 1 else [{k: v[m] for k, v in own.items()} for m in range(record.members)]
    models = [
        _filled(PromptClassifier(backbone, config, labels, problem_type=record.problem_type), part) for part in parts
    ]
    return models[0] if record.members == 1 else PromptEnsemble(models).eval()


def _filled(model: PromptClassifier, tensors: dict[str, Tensor]) -> PromptClassifier:
    """The model with a file's prompt and head in it."""
    state = {
        ("prompt_encoder.embedding.weight" if name == PROMPT_KEY else f"head.{name}"): tensor
        for name, tensor in tensors.items()
    }
    model.fresh_head = False
    model.load_trainable_state(model.trainable_state() | state)
    return model.eval()


def labels_from(backbone: Backbone, classes: int) -> list[str]:
    """Label names that the backbone's configuration gives, or LABEL_0 ... where it knows none."""
    names = dict(getattr(backbone.config, "id2label", None) or {})
    if len(names) == classes and all(index in names for index in range(classes)):
        return [str(names[index]) for index in range(classes)]
    return default_labels(classes)


def _expected_shapes(record: Record, config: PromptConfig, backbone: Backbone) -> dict[str, tuple[int, ...]]:
    """Tensors that such an adapter must have on this backbone, computed without memory for any."""
    deep = config.method == "deep"
    width = backbone.layers * 2 * backbone.kv_width if deep else backbone.embedding_width
    shapes = {
        PROMPT_KEY: (config.virtual_tokens, width),
        **head_shapes(backbone, config.pooling or "peft", record.classes),
    }
    return shapes if record.members == 1 else {name: (record.members, *shape) for name, shape in shapes.items()}


def _check_backbone(file: AdapterFile, backbone: Backbone) -> None:
    note, folder = file.record.backbone, file.folder
    pairs = (("width", note.width, backbone.width), ("layers", note.layers, backbone.layers))
    for what, noted, actual in (*pairs, ("type", note.model_type, backbone.config.model_type)):
        if noted is not None and noted != actual:
            raise AdapterError(
                f"adapter '{folder}' is for {what} {noted}, but backbone '{backbone.name}' has {what} {actual}; "
                f"use the backbone it was trained with ({note.name}), or train it again"
            )
    if note.fingerprint is not None and note.fingerprint != backbone.fingerprint():
        logger.warning(
            "adapter '%s' was trained on other weights than backbone '%s' has; its answers may be wrong",
            folder,
            backbone.name,
        )


def plain_name(name: str) -> str:
    """The head's own name for a tensor: 'base_model.classifier.weight' -> 'classifier.weight'."""
    for prefix in (*HEAD_PREFIXES, "head."):
        if name.startswith(prefix):
            return name.removeprefix(prefix)
    return name
