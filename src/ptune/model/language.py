"""The pretrained language-model head of a backbone: what turns a hidden state into a score for every word.

A decoder's is one linear layer over the last hidden state, most often the word
embeddings themselves. A masked language model's has a transform (dense,
activation, norm) in front of it, which stays frozen.
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
    """V words, vectors of width E."""

    weight: Tensor  # [V, E]
    bias: Tensor | None  # [V]
    transform: nn.Module | None  # [..., H] -> [..., E]; None: the hidden state is read as it is

    @torch.no_grad()
    def rows(self, tokens: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Weights [C, E] and biases [C] whose answer for a class is the mean of its tokens' scores, as float32."""
        weight = torch.stack([self.weight[list(own)].float().mean(dim=0) for own in tokens])
        if self.bias is None:
            return weight, torch.zeros(len(tokens), device=weight.device)
        return weight, torch.stack([self.bias[list(own)].float().mean() for own in tokens])


def tied_head(embeddings: nn.Embedding) -> LanguageHead:
    """The head of a decoder whose word embeddings serve at both ends: nothing has to be loaded."""
    return LanguageHead(embeddings.weight.detach(), None, None)


def head_of(model: Any, missing: set[str], family: Family, backbone: str) -> LanguageHead:
    """Take the head off transformers' model with a language-model head.

    Args:
        model: of AutoModelForCausalLM or AutoModelForMaskedLM.
        missing: names of weights that the checkpoint lacks.

    Raises:
        BackboneError: the checkpoint lacks some of the head's.
    """
    own = sorted(key for key in missing if not key.startswith(model.base_model_prefix + "."))
    if own:
        raise no_head(backbone, f"its checkpoint lacks {', '.join(own[:3])}")
    output = model.get_output_embeddings()
    if output is None:
        raise no_head(backbone, f"{type(model).__name__} has no layer of words' weights")
    if family.language_transform is None:
        return _observed_head(model, output, backbone)
    weight, bias = output.weight.detach(), None if output.bias is None else output.bias.detach()
    if not family.language_transform:
        return LanguageHead(weight, bias, None)
    _take_out(output, model)  # what is left of its parent is the transform
    parts = [_part(model, name, backbone) for name in family.language_transform]
    transform = nn.Sequential(*parts).float().requires_grad_(False).eval()
    return LanguageHead(weight, bias, transform)


class _GivenStates(nn.Module):
    """In place of a base model: what it is given as embeddings are its hidden states."""

    def forward(self, *_: Any, inputs_embeds: Tensor, **__: Any) -> Any:
        from transformers.modeling_outputs import BaseModelOutput

        return BaseModelOutput(last_hidden_state=inputs_embeds)


class _ObservedTransform(nn.Module):
    """All that a masked language model does behind its base and in front of its words' weights, by its own code."""

    def __init__(self, model: Any, output: nn.Module) -> None:
        super().__init__()
        setattr(model, model.base_model_prefix, _GivenStates())
        _take_out(output, model)
        self.model = model

    def forward(self, vectors: Tensor) -> Tensor:
        """[B, H] -> [B, E]."""
        return self.model(inputs_embeds=vectors[:, None]).logits[:, 0]


@torch.no_grad()
def _observed_head(model: Any, output: Any, backbone: str) -> LanguageHead:
    """Take the head off a masked language model of an unlisted family, and check that it gives the model's scores.

    Raises:
        BackboneError: the model scores words in another way.
    """
    model.float().requires_grad_(False).eval()
    ids = torch.arange(4, 8, device=output.weight.device)[None]
    states, scores = model.base_model(input_ids=ids).last_hidden_state[0], model(input_ids=ids).logits[0]
    weight, bias = output.weight.detach(), None if output.bias is None else output.bias.detach()
    transform = _ObservedTransform(model, output)
    try:
        found = nn.functional.linear(transform(states), weight, bias)
    except (TypeError, RuntimeError, AttributeError, IndexError) as err:
        raise no_head(backbone, f"that of {type(model).__name__} does not run on hidden states") from err
    if found.shape != scores.shape or not torch.allclose(found, scores, rtol=1e-3, atol=1e-3):
        raise no_head(backbone, f"{type(model).__name__} scores words in a way of its own")
    return LanguageHead(weight, bias, transform)


def _take_out(output: nn.Module, model: nn.Module) -> None:
    """Let the layer of words' weights pass on what it is given."""
    for name, module in model.named_modules():
        if module is output:
            model.set_submodule(name, nn.Identity())
            return


def no_head(backbone: str, reason: str) -> BackboneError:
    """What to say where a backbone cannot read words."""
    return BackboneError(
        f"backbone '{backbone}' has no pretrained language-model head ({reason}), so there are no words for "
        "a verbalizer to read and no mask token to fill; use `head='linear'` without `pooling='mask'`, or the "
        "language model that the backbone was made from"
    )


def _part(model: Any, name: str, backbone: str) -> nn.Module:
    try:
        return model.get_submodule(name)
    except AttributeError as err:
        raise no_head(backbone, f"{type(model).__name__} has no module '{name}'") from err
