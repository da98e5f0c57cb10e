"""Build a model from an adapter's files and a backbone.

Files and backbone are checked against each other before any weights are loaded.
"""

from __future__ import annotations

import logging

import torch
from torch import Tensor

from ptune.adapter.folder import AdapterFile, expect_shape
from ptune.adapter.layout import PROMPT_KEY, WEIGHTS_FILE, Record
from ptune.adapter.own_memory import OwnMemory
from ptune.adapter.peft_format import HEAD_PREFIXES
from ptune.adapter.peft_task import labels_from
from ptune.adapter.trained import build_trained
from ptune.errors import AdapterError, cut
from ptune.model.backbone import Backbone
from ptune.model.classifier import PromptClassifier
from ptune.model.config import PromptConfig
from ptune.model.ensemble import Model, PromptEnsemble
from ptune.model.head import head_shapes

logger = logging.getLogger(__name__)


def build_classifier(file: AdapterFile, backbone: Backbone) -> Model:
    """Put an adapter on a backbone, after checking that it fits.

    Returns:
        The classifier, or an ensemble if the adapter holds several prompts.

    Raises:
        AdapterError: the adapter is for another width, another number of layers or another type of model, or its
            tensors are not those that the backbone's family needs.
    """
    record, folder = file.record, file.folder
    _check_backbone(file, backbone)
    if file.facts is not None:
        return build_trained(record, file.facts, file.tensors(), backbone, str(folder))
    labels = record.labels or labels_from(backbone.config, record.classes)
    # The files hold the trained prompt and head. How these were made and where they started no longer matters.
    stored = {
        "encoder": "none",
        "init": "normal",
        "init_text": None,
        "tie_first": False,
        "head": "linear",
        "verbalizer": None,
        "softmax": record.prompt.softmax or "shared",  # early records lack it; only "shared" existed then
    }
    config = record.prompt.model_copy(update=stored)
    expected = _expected_shapes(record, config, backbone)
    names = {plain_name(name): name for name in file.shapes}
    if record.weights_sha256 is None:
        # PEFT leaves out the head's tensors that it did not train. The backbone's checkpoint may have them.
        pretrained = backbone.head_weights
        expected = {
            name: shape
            for name, shape in expected.items()
            if name in names or name not in pretrained or tuple(pretrained[name].shape) != shape
        }
    for name, shape in expected.items():
        if name not in names:
            raise AdapterError(
                f"adapter '{folder}': tensor '{name}' is not in {WEIGHTS_FILE}, but the head of "
                f"{backbone.family.name} needs it; a new one would answer at random. PEFT saves it only if "
                "modules_to_save names its module: add the module there and save the adapter again"
            )
        expect_shape(file.shapes, names[name], shape, folder)
    surplus = sorted(set(names) - set(expected))
    if surplus:
        raise AdapterError(
            f"adapter '{folder}': {WEIGHTS_FILE} holds unexpected tensors: {cut(', '.join(surplus), 500)}"
        )
    tensors = file.tensors()
    state = {name: tensors[names[name]] for name in expected}
    states = [state] if record.members == 1 else [_member_state(state, number) for number in range(record.members)]
    with OwnMemory():
        models = [PromptClassifier(backbone, config, labels, problem_type=record.problem_type) for _ in states]
    for model, state in zip(models, states, strict=True):
        _load_state(model, state)
    return models[0] if record.members == 1 else PromptEnsemble(models).eval()


def _member_state(tensors: dict[str, Tensor], number: int) -> dict[str, Tensor]:
    """Return one member's part of an ensemble's tensors, [M, ...]."""
    return {name: tensor[number] for name, tensor in tensors.items()}


def _load_state(model: PromptClassifier, tensors: dict[str, Tensor]) -> None:
    """Load the prompt and the head from a file into a model."""
    state = {
        ("prompt_encoder.embedding.weight" if name == PROMPT_KEY else f"head.{name}"): tensor
        for name, tensor in tensors.items()
    }
    model.fresh_head = False
    model.load_trainable_state(model.trainable_state() | state)
    model.eval()


def _expected_shapes(record: Record, config: PromptConfig, backbone: Backbone) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the tensors that the adapter must have on this backbone. Allocates no tensor."""
    deep = config.method == "deep"
    width = backbone.layers * 2 * backbone.kv_width if deep else backbone.embedding_width
    shapes = {
        PROMPT_KEY: (config.virtual_tokens, width),
        **head_shapes(backbone, config.pooling or "peft", record.classes),
    }
    return shapes if record.members == 1 else {name: (record.members, *shape) for name, shape in shapes.items()}


def _check_backbone(file: AdapterFile, backbone: Backbone) -> None:
    """Check that a backbone is the one that the adapter was trained on. Only warns if just the weights differ.

    Raises:
        AdapterError: width, number of layers or type of model differ.
    """
    note, folder = file.record.backbone, file.folder
    properties = (
        ("width {}", note.width, backbone.width),
        ("{} layers", note.layers, backbone.layers),
        ("model type {}", note.model_type, backbone.config.model_type),
    )
    for phrase, noted, actual in properties:
        if noted is not None and noted != actual:
            trained_on = f" ({note.name})" if note.name else ""
            raise AdapterError(
                f"adapter '{folder}' needs a backbone with {phrase.format(noted)}, but backbone '{backbone.name}' has "
                f"{phrase.format(actual)}; use the backbone that it was trained on{trained_on}, or train it again"
            )
    if not note.has_weights_of(backbone) and backbone.dtype != torch.float16:
        logger.warning(
            "adapter '%s' was trained on other weights than those of backbone '%s'; its answers may be wrong",
            folder,
            backbone.name,
        )


def plain_name(name: str) -> str:
    """Return a tensor's name inside the head: 'base_model.classifier.weight' becomes 'classifier.weight'."""
    for prefix in (*HEAD_PREFIXES, "head."):
        if name.startswith(prefix):
            return name.removeprefix(prefix)
    return name
