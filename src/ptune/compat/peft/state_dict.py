"""Get and set an adapter's tensors under PEFT's names."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ptune.adapter.build import plain_name
from ptune.adapter.folder import adapter_tensors
from ptune.adapter.layout import PROMPT_KEY
from ptune.compat.peft.base import let_learn
from ptune.compat.peft.model import PeftModel
from ptune.compat.peft.saving import DEFAULT
from ptune.errors import AdapterError
from ptune.model.classifier import PromptClassifier


def get_peft_model_state_dict(model: PeftModel, adapter_name: str = DEFAULT) -> dict[str, Tensor]:
    """Return the folded prompt and the head, under the names that adapter_model.safetensors uses."""
    return adapter_tensors(model.adapter(adapter_name))


def set_peft_model_state_dict(
    model: PeftModel, peft_model_state_dict: dict[str, Any], adapter_name: str = DEFAULT
) -> None:
    """Load the tensors that `get_peft_model_state_dict` returned, here or in PEFT.

    They hold the prompt itself, so an adapter with a prompt encoder loses its encoder. Create optimizers after this
    call.

    Raises:
        AdapterError: names or shapes differ from those of the adapter.
    """
    tensors = {plain_name(name): tensor for name, tensor in peft_model_state_dict.items()}
    classifier = model.adapter(adapter_name)
    expected = {plain_name(name): tuple(tensor.shape) for name, tensor in adapter_tensors(classifier).items()}
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if shapes != expected:
        raise AdapterError(f"the state has {shapes}, but adapter '{adapter_name}' needs {expected}")
    if classifier.config.encoder != "none":
        trained = any(parameter.requires_grad for parameter in classifier.head.parameters())
        config = classifier.config.model_copy(update={"encoder": "none", "init": "normal", "init_text": None})
        classifier = PromptClassifier(
            classifier.backbone, config, classifier.labels, problem_type=classifier.problem_type
        ).train(classifier.training)
        let_learn(classifier, trained)
        model.adapters[adapter_name] = classifier
    prompt = tensors.pop(PROMPT_KEY)
    head = {f"head.{name}": tensor for name, tensor in tensors.items()}
    classifier.load_trainable_state({"prompt_encoder.embedding.weight": prompt, **head})
