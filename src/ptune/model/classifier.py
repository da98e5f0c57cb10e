"""The model that is trained: frozen backbone, prompt encoder, head."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ptune.errors import ConfigError
from ptune.model.backbone import Backbone
from ptune.model.config import PromptConfig
from ptune.model.few_shot import FEW_ROWS, few_shot_config
from ptune.model.head import PeftHead, TextHead, make_head, start_at_words
from ptune.model.loading import load_backbone
from ptune.model.prompt import PromptEncoder
from ptune.model.start import start_vectors, with_counted_tokens
from ptune.model.words import label_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase
    from transformers.modeling_outputs import SequenceClassifierOutput

logger = logging.getLogger(__name__)


class PromptClassifier(nn.Module):
    """A frozen backbone that classifies text by a learned prompt and a small head.

    Only `prompt_encoder` and `head` are trained.

    Args:
        backbone: the frozen model; many classifiers may share one.
        config: what is learned. None fields are settled for the backbone's family.
        labels: label names in index order, C of them.
        tokenizer: of the backbone; needed to start from a text, to tie virtual token 0, and for a verbalizer.
        seed: the generator's, for prompt and head.

    Raises:
        ConfigError: the configuration does not suit the backbone.
        BackboneError: a verbalizer is asked for, and the backbone has no pretrained language-model head.
    """

    def __init__(
        self,
        backbone: Backbone,
        config: PromptConfig,
        labels: Sequence[str],
        tokenizer: PreTrainedTokenizerBase | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        family = backbone.family
        self.config = with_counted_tokens(config, backbone, tokenizer).settle(
            "p-tuning" if family.deep is None else "deep", family.default_pooling, family.decoder
        )
        self.labels = list(labels)
        self.backbone = backbone
        _check_fit(self.config, backbone)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.prompt_encoder = _make_encoder(self.config, backbone, tokenizer).to(backbone.device)
            self.head: TextHead | PeftHead = make_head(backbone, self.config.pooling or "mean", len(labels))
        if self.config.head == "verbalizer":
            start_at_words(self.head, backbone, _label_tokens(self.config, labels, tokenizer))

    @classmethod
    def from_backbone(
        cls,
        backbone: str | Backbone,
        config: PromptConfig | None = None,
        *,
        labels: Sequence[str],
        seed: int = 0,
        device: str = "auto",
        dtype: str = "float32",
        revision: str | None = None,
        rows: int | None = None,
    ) -> PromptClassifier:
        """Load a backbone by its name (see `load_backbone`) and put a fresh prompt and head on it.

        Args:
            rows: that there are to train on, where that is known: few of them change the defaults, see
                `ptune.model.few_shot`.
        """
        from ptune.model.tokenizer import load_tokenizer

        if isinstance(backbone, str):
            backbone = load_backbone(backbone, revision, dtype, device)
        config, tokenizer = config or PromptConfig(), load_tokenizer(backbone.location)
        if rows is not None and rows <= FEW_ROWS:
            config = few_shot_config(config, backbone, labels, tokenizer)
        return cls(backbone, config, labels, tokenizer, seed)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,
        mask_position: Tensor | None = None,
    ) -> SequenceClassifierOutput:
        """Logits of a batch, and its mean cross-entropy where labels are given.

        Args:
            input_ids: [B, T], padded on the right.
            attention_mask: [B, T], 1 for text; None where nothing is padded.
            token_type_ids: [B, T], segments of a pair.
            labels: [B], class indices.
            mask_position: [B], of each row's mask token; needed by the pooling `mask` alone.

        Raises:
            ValueError: a row is padded on the left.
        """
        from transformers.modeling_outputs import SequenceClassifierOutput

        # Elsewhere than on the CPU the look would make the device wait.
        if attention_mask is not None and attention_mask.device.type == "cpu" and not attention_mask[:, 0].all():
            raise ValueError("a row begins with padding; pad on the right: tokenizer.padding_side = 'right'")
        prompt = self.prompt()
        if self.training and self.config.token_dropout:
            prompt = drop_tokens(prompt, self.config.token_dropout)
        logits = self.logits(prompt, input_ids, attention_mask, token_type_ids, mask_position)
        loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
        return SequenceClassifierOutput(loss=loss, logits=logits)  # type: ignore[arg-type]

    def prompt(self) -> Tensor:
        """The folded prompt: shallow [P, E] or deep [L, 2, P, Hkv]."""
        folded: Tensor = self.prompt_encoder()
        return folded if self.config.shallow else split_layers(folded, self.backbone.layers)

    def logits(
        self,
        prompt: Tensor,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        mask_position: Tensor | None = None,
    ) -> Tensor:
        """Logits [B, C] under a prompt that was folded before, so that evaluation folds it once."""
        shift = bool(self.config.shift_text)
        hidden = self.backbone(input_ids, attention_mask, token_type_ids, prompt, shift_text=shift)
        return self.head(replace(hidden, mask_position=mask_position))

    def train(self, mode: bool = True) -> PromptClassifier:
        """Training mode reaches the prompt encoder alone: backbone and head have no dropout."""
        super().train(mode)
        self.head.eval()
        return self

    def trainable_state(self) -> dict[str, Tensor]:
        """What training changes, by name: the prompt encoder whole, not folded, and the head."""
        return {k: v for k, v in self.state_dict().items() if not k.startswith("backbone.")}

    def load_trainable_state(self, state: dict[str, Tensor]) -> None:
        """Put back what `trainable_state` gave, exactly."""
        with torch.no_grad():
            own = self.trainable_state()
            if own.keys() != state.keys():
                raise ValueError(f"the state has {sorted(state)}, but this model trains {sorted(own)}")
            for name, tensor in state.items():
                own[name].copy_(tensor)

    def trainable_parameters(self) -> tuple[int, int]:
        """(trained, all), counted as PEFT's print_trainable_parameters does."""
        trained = sum(p.numel() for p in self.parameters() if p.requires_grad)
        return trained, trained + self.backbone.parameter_count()

    def describe_parameters(self) -> str:
        """The line of PEFT's guide: how many parameters are trained, of how many."""
        trained, total = self.trainable_parameters()
        return f"trainable params: {trained} || all params: {total} || trainable%: {100 * trained / total}"


def drop_tokens(prompt: Tensor, share: float) -> Tensor:
    """Leave out a share of the virtual tokens [..., P, width], never token 0; drawn from torch's global generator."""
    keep = torch.rand(prompt.shape[-2]) >= share
    keep[0] = True
    return prompt[..., keep.to(prompt.device), :]


def split_layers(folded: Tensor, layers: int) -> Tensor:
    """[P, L * 2 * Hkv], as adapters store it, -> [L, 2, P, Hkv]."""
    return folded.unflatten(1, (layers, 2, -1)).permute(1, 2, 0, 3)


def _check_fit(config: PromptConfig, backbone: Backbone) -> None:
    if config.method == "deep" and backbone.family.deep is None:
        raise ConfigError(
            f"method 'deep' does not work with {backbone.family.name} (backbone '{backbone.name}'): its attention "
            "takes no further keys and values; use --method p-tuning or prompt-tuning"
        )
    if backbone.family.decoder and "{mask}" in (config.template or ""):
        raise ConfigError(
            f"a mask token is for masked language models; backbone '{backbone.name}' ({backbone.family.name}) goes on "
            "where the text ends: leave {mask} and pooling 'mask' out, and let the template end where the answer begins"
        )
    if config.head == "verbalizer" and config.pooling not in (
        ("last", "peft") if backbone.family.decoder else ("mask",)
    ):
        wanted = "'last' or 'peft'" if backbone.family.decoder else "'mask'"
        raise ConfigError(
            f"a verbalizer reads words where the language model answers, with pooling {wanted} in a "
            f"{backbone.family.name} backbone, not '{config.pooling}'; leave --pooling out"
        )
    if config.pooling == "first" and backbone.family.decoder:
        logger.warning("pooling 'first' of a decoder sees nothing of the text but its first token; use --pooling last")
    limit = backbone.max_positions
    if limit is not None and config.virtual_tokens > limit - 8:
        raise ConfigError(
            f"{config.virtual_tokens} virtual tokens leave no room for text in the {limit} positions of "
            f"backbone '{backbone.name}'; use at most {limit - 8}"
        )


def _make_encoder(config: PromptConfig, backbone: Backbone, tokenizer: PreTrainedTokenizerBase | None) -> PromptEncoder:
    slice_width = backbone.embedding_width if config.shallow else backbone.kv_width
    width = slice_width if config.shallow else backbone.layers * 2 * slice_width
    encoder = PromptEncoder(config, width, slice_width)
    start = start_vectors(config, backbone, tokenizer)
    if start is not None:
        encoder.start_from(start)
    if config.tie_first:
        first = _first_special_token(backbone, tokenizer)
        encoder.fixed_first = backbone.word_embeddings.weight.detach()[first].float()
    return encoder


def _label_tokens(
    config: PromptConfig, labels: Sequence[str], tokenizer: PreTrainedTokenizerBase | None
) -> list[list[int]]:
    if tokenizer is None:
        raise ConfigError("a verbalizer needs the backbone's tokenizer")
    return label_tokens(tokenizer, labels, config.verbalizer, config.template or "{text}")


def _first_special_token(backbone: Backbone, tokenizer: PreTrainedTokenizerBase | None) -> int:
    token = None
    if tokenizer is not None:
        token = tokenizer.cls_token_id if tokenizer.cls_token_id is not None else tokenizer.bos_token_id
    if token is None or backbone.family.decoder:
        raise ConfigError(
            f"tie_first is for encoders whose text begins with a special token; backbone '{backbone.name}' "
            f"({backbone.family.name}) has a head over the last token"
        )
    return int(token)
