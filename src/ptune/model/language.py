"""The pretrained language-model head of a backbone, which computes a score for every token of the vocabulary.

In a decoder it is one linear layer over the last hidden state. Its weights, the
output embeddings, are often the word embeddings. A masked language model has a
transform (dense layer, activation, norm) before the linear layer. The transform
stays frozen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ptune.errors import BackboneError

if TYPE_CHECKING:
    from ptune.model.families import Family


@dataclass(frozen=True)
class LanguageHead:
    """A language-model head for V tokens.

    weight: [V, E], the output embeddings.
    bias: [V]; None: there is none.
    transform: applied to hidden states first, [..., H] -> [..., E]; None: hidden states are used unchanged.
    """

    weight: Tensor
    bias: Tensor | None
    transform: nn.Module | None

    @torch.no_grad()
    def rows(self, tokens: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Return weights [C, E] and biases [C] that give each class the mean score of its tokens, in float32.

        Args:
            tokens: the token ids of each class.
        """
        weight = torch.stack([self.weight[list(ids)].float().mean(dim=0) for ids in tokens])
        if self.bias is None:
            return weight, torch.zeros(len(tokens), device=weight.device)
        return weight, torch.stack([self.bias[list(ids)].float().mean() for ids in tokens])


def tied_head(embeddings: nn.Embedding) -> LanguageHead:
    """Return the head of a decoder whose output embeddings are its word embeddings, so nothing has to be loaded."""
    return LanguageHead(embeddings.weight.detach(), None, None)


def head_of(model: Any, missing: set[str], family: Family, backbone: str) -> LanguageHead:
    """Return the language-model head of a model. The model is taken apart and cannot be used afterwards.

    Args:
        model: a model of AutoModelForCausalLM or AutoModelForMaskedLM.
        missing: names of weights that the checkpoint lacks.
        family: the family of the model.
        backbone: name of the backbone, for error messages.

    Raises:
        BackboneError: the checkpoint lacks weights of the head.
        BackboneError: the model computes its scores in a way that is not supported.
    """
    missing_in_head = sorted(key for key in missing if not key.startswith(model.base_model_prefix + "."))
    if missing_in_head:
        raise no_head(backbone, f"its checkpoint lacks {', '.join(missing_in_head[:3])}")
    output = model.get_output_embeddings()
    if output is None:
        raise no_head(backbone, f"{type(model).__name__} has no output embeddings")
    if family.language_transform is None:
        return _observed_head(model, output, backbone)
    weight, bias = output.weight.detach(), None if output.bias is None else output.bias.detach()
    if not family.language_transform:
        return LanguageHead(weight, bias, None)
    _bypass(output, model)  # the rest of its parent is the transform
    modules = [_submodule(model, name, backbone) for name in family.language_transform]
    transform = nn.Sequential(*modules).float().requires_grad_(False).eval()
    return LanguageHead(weight, bias, transform)


class _GivenStates(nn.Module):
    """A stand-in for a base model that returns the embeddings it is given as hidden states."""

    def forward(self, *_: Any, inputs_embeds: Tensor, **__: Any) -> Any:
        from transformers.modeling_outputs import BaseModelOutput

        return BaseModelOutput(last_hidden_state=inputs_embeds)


class _ObservedTransform(nn.Module):
    """The code of a masked language model between its base model and its output embeddings.

    Args:
        model: transformers' model, which is changed in place.
        output: its output embeddings.
    """

    def __init__(self, model: Any, output: nn.Module) -> None:
        super().__init__()
        setattr(model, model.base_model_prefix, _GivenStates())
        _bypass(output, model)
        self.model = model

    def forward(self, vectors: Tensor) -> Tensor:
        """Apply the transform to hidden states: [B, H] -> [B, E]."""
        return self.model(inputs_embeds=vectors[:, None]).logits[:, 0]


@torch.no_grad()
def _observed_head(model: Any, output: Any, backbone: str) -> LanguageHead:
    """Return the head of a masked language model whose family is not in the table.

    Raises:
        BackboneError: the head does not give the scores that the model gives.
    """
    model.float().requires_grad_(False).eval()
    ids = torch.arange(4, 8, device=output.weight.device)[None]
    states, scores = model.base_model(input_ids=ids).last_hidden_state[0], model(input_ids=ids).logits[0]
    weight, bias = output.weight.detach(), None if output.bias is None else output.bias.detach()
    transform = _ObservedTransform(model, output)
    try:
        head_scores = nn.functional.linear(transform(states), weight, bias)
    except (TypeError, RuntimeError, AttributeError, IndexError) as err:
        raise no_head(backbone, f"that of {type(model).__name__} does not run on hidden states alone") from err
    if head_scores.shape != scores.shape or not torch.allclose(head_scores, scores, rtol=1e-3, atol=1e-3):
        raise no_head(backbone, f"{type(model).__name__} computes its scores in a way that ptune does not support")
    return LanguageHead(weight, bias, transform)


def _bypass(layer: nn.Module, model: nn.Module) -> None:
    """Replace a layer of a model by one that returns its input."""
    for name, module in model.named_modules():
        if module is layer:
            model.set_submodule(name, nn.Identity())
            return


def no_head(backbone: str, reason: str) -> BackboneError:
    """Return the error for a backbone without a usable language-model head.

    Args:
        backbone: name of the backbone.
        reason: why it has none.
    """
    return BackboneError(
        f"backbone '{backbone}' has no pretrained language-model head ({reason}), but `head='verbalizer'` and "
        "`pooling='mask'` need one; use `head='linear'` without `pooling='mask'`, or the language model that the "
        "backbone was made from"
    )


def _submodule(model: Any, name: str, backbone: str) -> nn.Module:
    try:
        return model.get_submodule(name)
    except AttributeError as err:
        raise no_head(backbone, f"{type(model).__name__} has no module '{name}'") from err
