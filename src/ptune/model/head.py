"""From hidden states to logits: pooling, then a head.

`TextHead` is ours: one linear layer over the first, the mean or the last of the
text's positions, or over the mask token's through the language model's own
transform, never over a virtual token. `PeftHead` is PEFT's layout:
transformers' own head of the family, over position 0 of the whole sequence
(which is virtual token 0 under a shallow prompt), or over the last text token
of a decoder.

Heads are float32 whatever the backbone's type, and without dropout.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ptune.data.batch import Inputs
from ptune.errors import BackboneError
from ptune.model.backbone import Backbone, Hidden
from ptune.model.config import Pooling

# What a head reads of a row's hidden states: the mean of the text's, those of one position, or all of them.
Reads = Literal["mean", "position", "all"]


def pool(hidden: Hidden, pooling: Pooling) -> Tensor:
    """[B, offset + T, H] -> [B, H], over text positions only."""
    if hidden.picked:
        return hidden.states[:, 0]
    if pooling == "mean":
        return hidden.averaged().states[:, 0]
    text = hidden.states[:, hidden.offset :]
    rows, length = text.shape[:2]
    position = text_position(pooling, rows, length, hidden.mask, hidden.mask_position, text.device)
    return text[torch.arange(rows, device=text.device), position]


def text_position(
    pooling: Pooling, rows: int, length: int, mask: Tensor | None, mask_position: Tensor | None, device: torch.device
) -> Tensor:
    """[B], the text's position that the poolings `first`, `mask` and `last` read."""
    if pooling == "mask":
        if mask_position is None:
            raise ValueError(
                "pooling 'mask' needs mask_position; a TextEncoder with a template that has {mask} gives it"
            )
        return mask_position
    if pooling == "last" and mask is not None:
        return mask.sum(dim=1) - 1
    return torch.full((rows,), 0 if pooling == "first" else length - 1, device=device)


def _text_positions(pooling: Pooling, inputs: Inputs) -> Tensor:
    rows, length = inputs.input_ids.shape
    device = inputs.input_ids.device
    return text_position(pooling, rows, length, inputs.attention_mask, inputs.mask_position, device)


class TextHead(nn.Module):
    """One linear layer over a pooled text position, [B, H] -> [B, C].

    transform: what the pooled vector goes through before, frozen and not the head's own.
    """

    def __init__(
        self,
        width: int,
        classes: int,
        pooling: Pooling,
        std: float,
        transform: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.pooling: Pooling = pooling
        self.transform = transform
        self.linear = nn.Linear(width, classes)
        nn.init.normal_(self.linear.weight, std=std)
        nn.init.zeros_(self.linear.bias)

    @property
    def reads(self) -> Reads:
        """What the head reads of a row's hidden states."""
        return "mean" if self.pooling == "mean" else "position"

    def positions(self, inputs: Inputs, offset: int) -> Tensor:
        """Return the position [B] that is read of each row, behind `offset` virtual tokens."""
        return offset + _text_positions(self.pooling, inputs)

    def forward(self, hidden: Hidden) -> Tensor:
        pooled = pool(hidden, self.pooling).float()
        return self.linear(pooled if self.transform is None else self.transform(pooled))


class PeftHead(nn.Module):
    """transformers' classification head of a family, held under transformers' own names."""

    def __init__(self, kind: str, modules: dict[str, nn.Module], mean_pooling: bool) -> None:
        super().__init__()
        self.kind = kind
        self.mean_pooling = mean_pooling
        for name, module in modules.items():
            self.add_module(name, module)

    @property
    def reads(self) -> Reads:
        """What the head reads of a row's hidden states. For a mean that is all: virtual tokens count there."""
        return "all" if self.mean_pooling else "position"

    def positions(self, inputs: Inputs, offset: int) -> Tensor:
        """Return the position [B] that is read of each row's whole sequence, virtual tokens included."""
        if self.kind == "score":
            return offset + _text_positions("last", inputs)
        return torch.zeros(len(inputs), dtype=torch.long, device=inputs.input_ids.device)

    def forward(self, hidden: Hidden) -> Tensor:
        return _FORWARD[self.kind](self, hidden)


def make_head(backbone: Backbone, pooling: Pooling, classes: int) -> TextHead | PeftHead:
    """A fresh head, drawn from torch's global generator.

    Raises:
        BackboneError: PEFT's layout needs a pretrained pooler that the checkpoint lacks, or the pooling `mask` a
            language-model head.
    """
    std = float(getattr(backbone.config, "initializer_range", 0.02))
    if pooling != "peft":
        # A bound method is no module: the transform stays the backbone's, untrained and not in an adapter.
        transform = backbone.language_transform if pooling == "mask" else None
        return TextHead(_width(backbone, pooling), classes, pooling, std, transform).to(backbone.device)
    kind = backbone.family.head
    if kind is None:
        raise BackboneError(
            f"backbone '{backbone.name}' has a classification head of its own kind in transformers, which the peft "
            f"layout does not know; use `pooling='{backbone.family.default_pooling}'`"
        )
    if kind == "pooler" and backbone.pooler_missing:
        raise BackboneError(
            f"backbone '{backbone.name}' has no pooler weights, which the head of the peft layout reads; "
            "use `pooling='mean'`"
        )
    modules = _transformers_head(backbone, classes)
    for module in modules.values():
        module.to_empty(device=backbone.device)
        module.apply(lambda part: _draw(part, std))
    head = PeftHead(kind, modules, _averages(backbone.config)).float().eval()
    _copy_pretrained(head, backbone.head_weights)
    return head


def head_shapes(backbone: Backbone, pooling: Pooling, classes: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of such a head's weights, without memory for any."""
    if pooling != "peft":
        return {"linear.weight": (classes, _width(backbone, pooling)), "linear.bias": (classes,)}
    parts = _transformers_head(backbone, classes)
    return {
        f"{part}.{name}": tuple(tensor.shape)
        for part, module in parts.items()
        for name, tensor in module.state_dict().items()
    }


def output_layer(head: nn.Module) -> nn.Linear:
    """The last linear layer of a head, the one that gives logits."""
    return [module for module in head.modules() if isinstance(module, nn.Linear)][-1]


@torch.no_grad()
def start_at_words(head: TextHead | PeftHead, backbone: Backbone, tokens: Sequence[Sequence[int]]) -> None:
    """Let an untrained head answer what the language model thinks of each class's tokens, averaged over them.

    Raises:
        BackboneError: the backbone has no pretrained language-model head.
    """
    weight, bias = backbone.language_head().rows(tokens)
    linear: nn.Linear = head.linear if isinstance(head, TextHead) else head.score  # type: ignore[assignment]
    linear.weight.copy_(weight)
    if linear.bias is not None:
        linear.bias.copy_(bias)


def recognise_head(model: Any, input_ids: Tensor) -> str | None:
    """Return the kind of a classifier's head: the one that gives its logits for one row [1, T]; None where none does.

    model: of transformers, with its head.
    """
    output = model.base_model(input_ids=input_ids)
    logits = model(input_ids=input_ids).logits.float()
    tolerance = 1e-4 if output.last_hidden_state.dtype == torch.float32 else 5e-2
    hidden = Hidden(output.last_hidden_state, None, 0, output.get("pooler_output"))
    for kind, parts in _PARTS.items():
        modules = {name: copy.deepcopy(getattr(model, name)).float() for name in parts if hasattr(model, name)}
        try:
            found = PeftHead(kind, modules, _averages(model.config)).float()(hidden)
        except (AttributeError, AssertionError, RuntimeError, TypeError):
            continue  # the modules are not there, or take other inputs
        if found.shape == logits.shape and (found - logits).norm() <= tolerance * logits.norm():
            return kind
    return None


def _averages(config: Any) -> bool:
    return getattr(config, "classifier_pooling", "cls") == "mean"


def _width(backbone: Backbone, pooling: Pooling) -> int:
    """Width of what a TextHead's linear layer reads."""
    return int(backbone.language_head().weight.shape[1]) if pooling == "mask" else backbone.output_width


def head_parts(kind: str | None) -> tuple[str, ...]:
    """Names of the modules that make up transformers' head of this kind."""
    return () if kind is None else _PARTS[kind]


def _transformers_head(backbone: Backbone, classes: int) -> dict[str, nn.Module]:
    """The head's modules as transformers builds them, without memory behind them."""
    from transformers import AutoModelForSequenceClassification

    config = copy.deepcopy(backbone.config)
    config.num_labels = classes
    with torch.device("meta"):
        model = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32)
    return {name: model.get_submodule(name) for name in head_parts(backbone.family.head)}


def _draw(module: nn.Module, std: float) -> None:
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=std)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.LayerNorm):
        module.reset_parameters()
    else:
        for name, parameter in module.named_parameters(recurse=False):  # of a norm that is a family's own
            nn.init.constant_(parameter, 1.0 if name == "weight" else 0.0)


def _copy_pretrained(head: PeftHead, weights: dict[str, Tensor]) -> None:
    """Start from what the checkpoint brought, where the number of classes agrees."""
    own = head.state_dict()
    fitting = {k: v for k, v in weights.items() if k in own and own[k].shape == v.shape}
    head.load_state_dict(fitting, strict=False)


def _position_zero(hidden: Hidden) -> Tensor:
    return hidden.states[:, :1].float()  # [B, 1, H]: transformers' heads take [:, 0] themselves


def _first_token(head: PeftHead, hidden: Hidden) -> Tensor:
    return head.classifier(_position_zero(hidden))  # type: ignore[operator]


def _pooler(head: PeftHead, hidden: Hidden) -> Tensor:
    assert hidden.pooler_output is not None
    return head.classifier(hidden.pooler_output.float())  # type: ignore[operator]


def _pre_classifier(head: PeftHead, hidden: Hidden) -> Tensor:
    first = head.pre_classifier(_position_zero(hidden)[:, 0])  # type: ignore[operator]
    return head.classifier(torch.relu(first))  # type: ignore[operator]


def _context_pooler(head: PeftHead, hidden: Hidden) -> Tensor:
    return head.classifier(head.pooler(_position_zero(hidden)))  # type: ignore[operator]


def _prediction_head(head: PeftHead, hidden: Hidden) -> Tensor:
    pooled = _position_zero(hidden)[:, 0]
    if head.mean_pooling:  # ModernBERT may average, and PEFT's mask then counts the virtual tokens too
        mask = None if hidden.mask is None else nn.functional.pad(hidden.mask, (hidden.offset, 0), value=1)
        pooled = pool(Hidden(hidden.states, mask, 0), "mean")
    return head.classifier(head.head(pooled))  # type: ignore[operator]


def _score(head: PeftHead, hidden: Hidden) -> Tensor:
    return head.score(pool(hidden, "last").float())  # type: ignore[operator]


_PARTS: dict[str, tuple[str, ...]] = {
    "first_token": ("classifier",),
    "pooler": ("classifier",),
    "pre_classifier": ("pre_classifier", "classifier"),
    "context_pooler": ("pooler", "classifier"),
    "prediction_head": ("head", "classifier"),
    "score": ("score",),
}
_FORWARD: dict[str, Callable[[PeftHead, Hidden], Tensor]] = {
    "first_token": _first_token,
    "pooler": _pooler,
    "pre_classifier": _pre_classifier,
    "context_pooler": _context_pooler,
    "prediction_head": _prediction_head,
    "score": _score,
}
