"""Pooling and heads: from hidden states to logits.

`TextHead` is the head of ptune: one linear layer over the first, the last or the
mean of the text's positions, or over the mask token after the transform of the
language-model head. For a pair of texts it also reads how close the means of the
two texts are: no linear layer can compare them. It never reads a virtual token.

`PeftHead` is the head of PEFT's layout: transformers' head of the family. For
encoders it reads position 0 of the whole sequence, which is virtual token 0 if
the prompt is shallow. For decoders it reads the last token of the text.

Heads are float32, whatever the type of the backbone, and have no dropout.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ptune.data.batch import Inputs
from ptune.errors import BackboneError
from ptune.model.backbone import Backbone
from ptune.model.config import Pooling
from ptune.model.hidden import Hidden

# Which hidden states of each row a head reads: the mean over the text, this mean and those of a pair's two texts, those
# at one position, or all.
Reads = Literal["mean", "pair", "position", "all"]
# What the stretched cosine of a pair's two texts is multiplied by, unless it was measured (`TextHead.standardise`): in
# one pass over both texts it has a standard deviation of about 0.25.
COSINE_SCALE = 4.0
# Cosines are cut at this, because 1 would become infinite.
LARGEST_COSINE = 0.9999


def pool(hidden: Hidden, pooling: Pooling) -> Tensor:
    """Pool hidden states over the positions of the text: [B, offset + T, H] -> [B, H], or [B, H + 1] for a pair."""
    if pooling == "pair":
        row, first, second = (hidden if hidden.picked else hidden.averaged("pair")).states.unbind(dim=1)
        return torch.cat([row, _stretched_cosine(first, second)[:, None]], dim=1)
    if hidden.picked:
        return hidden.states[:, 0]
    if pooling == "mean":
        return hidden.averaged().states[:, 0]
    text = hidden.states[:, hidden.offset :]
    rows, length = text.shape[:2]
    position = text_position(pooling, rows, length, hidden.mask, hidden.mask_position, text.device)
    return text[torch.arange(rows, device=text.device), position]


def _stretched_cosine(first: Tensor, second: Tensor) -> Tensor:
    """Return the inverse hyperbolic tangent of the cosines of vectors [B, H] and [B, H], which is Fisher's z, [B].

    In one pass over both texts all cosines are close to 1, so a head has to multiply them by a large number. When a
    prompt then moves texts apart, plain cosines fall by many of their first deviations, and answers become extreme
    (docs/log.md). Here a small difference near 1 counts as much as a larger one far from it.
    """
    return torch.cosine_similarity(first, second).clamp(-LARGEST_COSINE, LARGEST_COSINE).atanh()


def text_position(
    pooling: Pooling, rows: int, length: int, mask: Tensor | None, mask_position: Tensor | None, device: torch.device
) -> Tensor:
    """Return the position in the text that the pooling `first`, `last` or `mask` reads, [B].

    Args:
        pooling: which position to read.
        rows: number of rows B.
        length: number of text positions T.
        mask: [B, T], 1 for text; None: no row is padded.
        mask_position: [B], the position of each row's mask token; needed by the pooling `mask`.
        device: where the result is made.

    Raises:
        ValueError: the pooling is `mask`, but the positions of the mask tokens are not given.
    """
    if pooling == "mask":
        if mask_position is None:
            raise ValueError(
                "`pooling='mask'` needs mask_position; a TextEncoder whose template contains {mask} returns it"
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
    """One linear layer over a pooled vector, [B, H] -> [B, C].

    Args:
        width: width of the vector that the linear layer reads.
        classes: number of classes C.
        pooling: which hidden states are read.
        std: standard deviation of the initial weights.
        transform: applied to the pooled vector first. It is frozen and not part of the head.
    """

    cosine_scale: Tensor
    cosine_shift: Tensor

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
        if pooling == "pair":  # not trained and not saved: `folded` makes them part of the linear layer
            self.register_buffer("cosine_scale", torch.tensor(COSINE_SCALE), persistent=False)
            self.register_buffer("cosine_shift", torch.zeros(()), persistent=False)

    @property
    def reads(self) -> Reads:
        """Which hidden states of each row the head reads."""
        return self.pooling if self.pooling in ("mean", "pair") else "position"  # type: ignore[return-value]

    @property
    def place(self) -> str:
        """What decides the positions that are read."""
        return self.pooling

    def positions(self, inputs: Inputs, offset: int) -> Tensor:
        """Return the position that is read in each row, [B], counted with `offset` virtual tokens in front."""
        return offset + _text_positions(self.pooling, inputs)

    def vectors(self, hidden: Hidden) -> Tensor:
        """Return the vectors that the linear layer reads, before a transform, [B, H] or [B, H + 1] for a pair."""
        pooled = pool(hidden, self.pooling).float()
        if self.pooling != "pair":
            return pooled
        return torch.cat([pooled[:, :-1], (pooled[:, -1:] - self.cosine_shift) * self.cosine_scale], dim=1)

    @property
    def only_layer(self) -> nn.Linear | None:
        """The linear layer that has all numbers of the head; None for a pair, whose cosine may have its own scale."""
        return None if self.pooling == "pair" else self.linear

    @property
    def has_usual_cosine(self) -> bool:
        """Whether the linear layer has all numbers of the head, also for a pair. A GPU is waited for."""
        return self.pooling != "pair" or (float(self.cosine_scale) == COSINE_SCALE and float(self.cosine_shift) == 0)

    def layer_inputs(self, hidden: Hidden) -> Tensor:
        """Return what the linear layer reads, float32 [B, H]."""
        vectors = self.vectors(hidden)
        return vectors if self.transform is None else self.transform(vectors)

    def forward(self, hidden: Hidden) -> Tensor:
        return self.linear(self.layer_inputs(hidden))

    @torch.no_grad()
    def standardise(self, cosines: Tensor) -> Tensor | None:
        """Let the linear layer read cosines with mean 0 and deviation 1, instead of those that it reads now.

        Args:
            cosines: [N], of training rows, as `vectors` returns them now.

        Returns:
            [N], the cosines as `vectors` returns them from now on; None if all are the same, and nothing has changed.
        """
        mean, deviation = cosines.mean(), cosines.std()
        if len(cosines) < 2 or not deviation > 0:
            return None
        self.cosine_shift += mean.to(self.cosine_shift) / self.cosine_scale
        self.cosine_scale /= deviation.to(self.cosine_scale)
        return (cosines - mean) / deviation

    def folded(self) -> dict[str, Tensor]:
        """Return the tensors of a head with the usual scale of cosines that gives the same logits."""
        state = dict(self.state_dict())
        if self.pooling == "pair":
            last = self.linear.weight[:, -1] * self.cosine_scale
            state["linear.weight"] = torch.cat([self.linear.weight[:, :-1], last[:, None] / COSINE_SCALE], dim=1)
            state["linear.bias"] = self.linear.bias - last * self.cosine_shift
        return state


class PeftHead(nn.Module):
    """transformers' classification head of a family. Its modules have the same names as in transformers.

    Args:
        kind: how the modules compute logits, a key of `_FORWARD`.
        modules: the modules of the head by name.
        mean_pooling: True if the head reads the mean over all positions (ModernBERT).
    """

    def __init__(self, kind: str, modules: dict[str, nn.Module], mean_pooling: bool) -> None:
        super().__init__()
        self.kind = kind
        self.mean_pooling = mean_pooling
        for name, module in modules.items():
            self.add_module(name, module)

    @property
    def reads(self) -> Reads:
        """Which hidden states of each row the head reads: all for a mean, which includes the virtual tokens."""
        return "all" if self.mean_pooling else "position"

    @property
    def place(self) -> str:
        """What decides the positions that are read."""
        return "last" if self.kind == "score" else "zero"

    @property
    def only_layer(self) -> nn.Linear | None:
        """The linear layer that has all weights of the head; None if there are several layers."""
        layer = self._modules.get(_ONLY.get(self.kind, ""))
        return layer if isinstance(layer, nn.Linear) else None

    def layer_inputs(self, hidden: Hidden) -> Tensor:
        """Return what `only_layer` reads, float32 [B, H]."""
        if self.kind == "score":
            return pool(hidden, "last").float()
        assert hidden.pooler_output is not None
        return hidden.pooler_output.float()

    def positions(self, inputs: Inputs, offset: int) -> Tensor:
        """Return the position that is read in each row, [B]. `offset` virtual tokens in front are counted."""
        if self.kind == "score":
            return offset + _text_positions("last", inputs)
        return torch.zeros_like(inputs.input_ids[:, 0])  # without reading the number of rows, so it can be traced

    def forward(self, hidden: Hidden) -> Tensor:
        return _FORWARD[self.kind](self, hidden)


def make_head(backbone: Backbone, pooling: Pooling, classes: int) -> TextHead | PeftHead:
    """Return a new head. Its initial weights are sampled from torch's global generator.

    Args:
        backbone: the frozen model.
        pooling: which hidden states the head reads.
        classes: number of classes C.

    Raises:
        BackboneError: the family's head is not supported with the pooling `peft`.
        BackboneError: the pooling `peft` needs a pretrained pooler, but the checkpoint has none.
        BackboneError: the pooling `mask` needs a language-model head, but the checkpoint has none.
    """
    std = float(getattr(backbone.config, "initializer_range", 0.02))
    if pooling != "peft":
        # A bound method is not a submodule, so the transform is not trained and not saved in an adapter.
        transform = backbone.language_transform if pooling == "mask" else None
        return TextHead(_width(backbone, pooling), classes, pooling, std, transform).to(backbone.device)
    kind = backbone.family.head
    if kind is None:
        raise BackboneError(
            f"`pooling='peft'` does not support the classification head that transformers has for backbone "
            f"'{backbone.name}'; use `pooling='{backbone.family.default_pooling}'`",
            field="pooling",
            value=pooling,
            expected=backbone.family.default_pooling,
        )
    if kind == "pooler" and backbone.pooler_missing:
        raise BackboneError(
            f"backbone '{backbone.name}' has no pooler weights, but `pooling='peft'` needs them; use `pooling='mean'`",
            field="pooling",
            value=pooling,
            expected="mean",
        )
    modules = _transformers_head(backbone, classes)
    for module in modules.values():
        module.to_empty(device=backbone.device)
        module.apply(lambda submodule: _initialize(submodule, std))
    head = PeftHead(kind, modules, _reads_mean(backbone.config)).float().eval()
    _copy_pretrained(head, backbone.head_weights)
    return head


def head_shapes(backbone: Backbone, pooling: Pooling, classes: int) -> dict[str, tuple[int, ...]]:
    """Return the names and shapes of the weights of the head that `make_head` returns, without allocating them."""
    if pooling != "peft":
        return {"linear.weight": (classes, _width(backbone, pooling)), "linear.bias": (classes,)}
    return {
        f"{module_name}.{name}": tuple(tensor.shape)
        for module_name, module in _transformers_head(backbone, classes).items()
        for name, tensor in module.state_dict().items()
    }


def output_layer(head: nn.Module) -> nn.Linear:
    """Return the last linear layer of a head, whose output is the logits."""
    return [module for module in head.modules() if isinstance(module, nn.Linear)][-1]


@torch.no_grad()
def start_at_words(head: TextHead | PeftHead, backbone: Backbone, tokens: Sequence[Sequence[int]]) -> None:
    """Set the weights of a head so that the logit of a class is the mean score of its tokens in the language model.

    Args:
        head: a new head, which is changed in place.
        backbone: the frozen model.
        tokens: the token ids of each class.

    Raises:
        BackboneError: the backbone has no pretrained language-model head.
    """
    weight, bias = backbone.language_head().rows(tokens)
    linear: nn.Linear = head.linear if isinstance(head, TextHead) else head.score  # type: ignore[assignment]
    linear.weight.copy_(weight)
    if linear.bias is not None:
        linear.bias.copy_(bias)


def recognise_head(model: Any, input_ids: Tensor) -> str | None:
    """Return the kind of head that gives the same logits as a classifier of transformers.

    Args:
        model: transformers' model with its head.
        input_ids: one row of tokens, [1, T], for which the logits are compared.

    Returns:
        The name of the kind, or None if no kind gives these logits.
    """
    output = model.base_model(input_ids=input_ids)
    logits = model(input_ids=input_ids).logits.float()
    tolerance = 1e-4 if output.last_hidden_state.dtype == torch.float32 else 5e-2
    hidden = Hidden(output.last_hidden_state, None, 0, output.get("pooler_output"))
    for kind, names in _MODULES.items():
        modules = {name: copy.deepcopy(getattr(model, name)).float() for name in names if hasattr(model, name)}
        try:
            candidate = PeftHead(kind, modules, _reads_mean(model.config)).float()(hidden)
        except (AttributeError, AssertionError, RuntimeError, TypeError):
            continue  # the model has no such modules, or they take other inputs
        if candidate.shape == logits.shape and (candidate - logits).norm() <= tolerance * logits.norm():
            return kind
    return None


def _reads_mean(config: Any) -> bool:
    return getattr(config, "classifier_pooling", "cls") == "mean"


def _width(backbone: Backbone, pooling: Pooling) -> int:
    """Return the width of the vectors that the linear layer of a TextHead reads."""
    if pooling == "mask":
        return int(backbone.language_head().weight.shape[1])
    return backbone.output_width + (pooling == "pair")


def head_parts(kind: str | None) -> tuple[str, ...]:
    """Return the names of the modules of transformers' head of this kind. There are none for None."""
    return () if kind is None else _MODULES[kind]


def _transformers_head(backbone: Backbone, classes: int) -> dict[str, nn.Module]:
    """Return the modules of transformers' head for a family by name, on the meta device."""
    from transformers import AutoModelForSequenceClassification

    config = copy.deepcopy(backbone.config)
    config.num_labels = classes
    with torch.device("meta"):
        model = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32)
    return {name: model.get_submodule(name) for name in head_parts(backbone.family.head)}


def _initialize(module: nn.Module, std: float) -> None:
    """Set the initial weights of a module, without those of its submodules."""
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=std)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.LayerNorm):
        module.reset_parameters()
    else:
        for name, parameter in module.named_parameters(recurse=False):  # of a norm that the family defines itself
            nn.init.constant_(parameter, 1.0 if name == "weight" else 0.0)


def _copy_pretrained(head: PeftHead, weights: dict[str, Tensor]) -> None:
    """Start from the head in the checkpoint. Weights of another shape are ignored, as the classes then differ."""
    state = head.state_dict()
    fitting = {k: v for k, v in weights.items() if k in state and state[k].shape == v.shape}
    head.load_state_dict(fitting, strict=False)


def _position_zero(hidden: Hidden) -> Tensor:
    return hidden.states[:, :1].float()  # [B, 1, H], because transformers' heads select [:, 0] themselves


def _first_token(head: PeftHead, hidden: Hidden) -> Tensor:
    return head.classifier(_position_zero(hidden))  # type: ignore[operator]


def _pooler(head: PeftHead, hidden: Hidden) -> Tensor:
    return head.classifier(head.layer_inputs(hidden))  # type: ignore[operator]


def _pre_classifier(head: PeftHead, hidden: Hidden) -> Tensor:
    first = head.pre_classifier(_position_zero(hidden)[:, 0])  # type: ignore[operator]
    return head.classifier(torch.relu(first))  # type: ignore[operator]


def _context_pooler(head: PeftHead, hidden: Hidden) -> Tensor:
    return head.classifier(head.pooler(_position_zero(hidden)))  # type: ignore[operator]


def _prediction_head(head: PeftHead, hidden: Hidden) -> Tensor:
    pooled = _position_zero(hidden)[:, 0]
    if head.mean_pooling:  # in ModernBERT; the mask in PEFT then includes the virtual tokens
        mask = None if hidden.mask is None else nn.functional.pad(hidden.mask, (hidden.offset, 0), value=1)
        pooled = pool(Hidden(hidden.states, mask, 0), "mean")
    return head.classifier(head.head(pooled))  # type: ignore[operator]


def _score(head: PeftHead, hidden: Hidden) -> Tensor:
    return head.score(head.layer_inputs(hidden))  # type: ignore[operator]


_MODULES: dict[str, tuple[str, ...]] = {
    "first_token": ("classifier",),
    "pooler": ("classifier",),
    "pre_classifier": ("pre_classifier", "classifier"),
    "context_pooler": ("pooler", "classifier"),
    "prediction_head": ("head", "classifier"),
    "score": ("score",),
}
# The layer of kinds that have only one.
_ONLY = {"pooler": "classifier", "score": "score"}
_FORWARD: dict[str, Callable[[PeftHead, Hidden], Tensor]] = {
    "first_token": _first_token,
    "pooler": _pooler,
    "pre_classifier": _pre_classifier,
    "context_pooler": _context_pooler,
    "prediction_head": _prediction_head,
    "score": _score,
}
