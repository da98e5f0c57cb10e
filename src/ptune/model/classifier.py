"""The model that is trained: frozen backbone, prompt encoder, head."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ptune.data.targets import MULTI, REGRESSION, SINGLE, ProblemType
from ptune.errors import ConfigError
from ptune.model.backbone import Backbone, Hidden, started
from ptune.model.config import FEW_ROWS, TRAINED_SHARE, PromptConfig
from ptune.model.few_shot import few_shot_config
from ptune.model.head import PeftHead, TextHead, make_head, output_layer, start_at_words
from ptune.model.loading import load_backbone
from ptune.model.objective import Objective
from ptune.model.prompt import PromptEncoder, split_layers
from ptune.model.start import first_special_token, start_vectors, with_counted_tokens
from ptune.model.words import label_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase
    from transformers.modeling_outputs import SequenceClassifierOutput

logger = logging.getLogger(__name__)


class PromptClassifier(nn.Module):
    """A frozen backbone that classifies text by a learned prompt and a small head.

    Only `prompt_encoder` and `head` are trained. A regression's head learns targets of mean 0 and deviation 1, see
    `standardise`; `read` gives them in their own unit.

    Args:
        backbone: the frozen model; many classifiers may share one.
        config: what is learned. None fields are settled for the backbone's family.
        labels: label names in index order, C of them; of a regression one, the name of what is measured.
        tokenizer: of the backbone; needed to start from a text, to tie virtual token 0, and for a verbalizer.
        seed: the generator's, for prompt and head; None draws on torch's global generator as it stands.
        problem_type: what logits mean; see `ptune.data.targets`.

    Raises:
        ConfigError: the configuration does not suit the backbone.
        BackboneError: a verbalizer is asked for, and the backbone has no pretrained language-model head.
    """

    target_scale: Tensor
    target_shift: Tensor

    def __init__(
        self,
        backbone: Backbone,
        config: PromptConfig,
        labels: Sequence[str],
        tokenizer: PreTrainedTokenizerBase | None = None,
        seed: int | None = 0,
        problem_type: ProblemType = SINGLE,
    ) -> None:
        super().__init__()
        counted = with_counted_tokens(config, backbone, tokenizer)
        self.config = counted.settle(backbone.family, _token_room(backbone, len(labels)))
        self.labels = _checked_labels(labels, problem_type)
        self.problem_type = problem_type
        self.backbone = backbone
        _check_fit(self.config, backbone)
        if problem_type != SINGLE and self.config.head == "verbalizer":
            raise ConfigError(f"a verbalizer picks one word of several; use head 'linear' for {problem_type}")
        with torch.random.fork_rng(devices=[], enabled=seed is not None):
            if seed is not None:
                torch.manual_seed(seed)
            self.prompt_encoder = _make_encoder(self.config, backbone, tokenizer).to(backbone.device)
            self.head: TextHead | PeftHead = make_head(backbone, self.config.pooling or "mean", len(labels))
        if self.config.head == "verbalizer":
            start_at_words(self.head, backbone, _label_tokens(self.config, labels, tokenizer))
        # Of a regression. Not trained and not saved: an adapter holds them in the head, see `folded_head`.
        self.register_buffer("target_scale", torch.ones((), device=backbone.device), persistent=False)
        self.register_buffer("target_shift", torch.zeros((), device=backbone.device), persistent=False)
        self.fresh_head = True  # whether the head was drawn, and has learned nothing in any unit
        # What others save of a model, such as transformers' Trainer, is its state: here what is learned.
        self.register_state_dict_post_hook(_leave_out_backbone)
        self.register_load_state_dict_post_hook(_expect_no_backbone)

    @classmethod
    def from_backbone(
        cls,
        backbone: str | Backbone,
        config: PromptConfig | None = None,
        *,
        labels: Sequence[str],
        seed: int = 0,
        device: str = "auto",
        dtype: str = "auto",
        revision: str | None = None,
        problem_type: ProblemType = SINGLE,
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
        if rows is not None and rows <= FEW_ROWS and problem_type == SINGLE:
            config = few_shot_config(config, backbone, labels, tokenizer)
        return cls(backbone, config, labels, tokenizer, seed, problem_type)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,
        mask_position: Tensor | None = None,
        num_items_in_batch: Tensor | int | None = None,
    ) -> SequenceClassifierOutput:
        """Logits of a batch, and its loss where labels are given: the plain one of the problem type, as transformers'.

        Args:
            input_ids: [B, T], padded on the right.
            attention_mask: [B, T], 1 for text; None where nothing is padded.
            token_type_ids: [B, T], segments of a pair.
            labels: [B], class indices; multi-label [B, C], 0 or 1; regression [B], numbers.
            mask_position: [B], of each row's mask token; needed by the pooling `mask` alone.
            num_items_in_batch: labels of all batches that make up a step, on all devices, as transformers' Trainer
                counts them. The loss is then this batch's share of the mean over them.

        Raises:
            ValueError: a row is padded on the left.
        """
        from transformers.modeling_outputs import SequenceClassifierOutput

        # Elsewhere than on the CPU the look would make the device wait.
        if attention_mask is not None and attention_mask.device.type == "cpu" and not attention_mask[:, 0].all():
            raise ValueError("a row begins with padding; pad on the right: tokenizer.padding_side = 'right'")
        (logits,) = shared_logits([self], self.prompt(), input_ids, attention_mask, token_type_ids, mask_position)
        loss = None if labels is None else Objective(self.problem_type)(logits, labels)
        if loss is not None and labels is not None and num_items_in_batch is not None:
            loss = loss * (labels.numel() / num_items_in_batch)
        return SequenceClassifierOutput(loss=loss, logits=logits)  # type: ignore[arg-type]

    @property
    def accepts_loss_kwargs(self) -> bool:
        """Whether transformers' Trainer is to give `num_items_in_batch`, so that uneven batches weigh as their rows do.

        Not for a regression: the Trainer counts no target of -100. It then takes the mean over batches.
        """
        return self.problem_type != REGRESSION

    def prompt(self) -> Tensor:
        """The folded prompt, as the backbone takes it: shallow [P, E] or deep [L, 2, P, Hkv].

        In training some virtual tokens are left out. A causal backbone reads a shallow prompt here, once for a step or
        for a whole prediction, and is given its keys and values.
        """
        folded: Tensor = self.prompt_encoder()
        if self.training and self.config.token_dropout:
            folded = drop_tokens(folded, self.config.token_dropout)
        if not self.config.shallow:
            return split_layers(folded, self.backbone.layers)
        return self.backbone.read_prompt(folded) if self.backbone.reads_prompt_alone else folded

    def read(self, hidden: Hidden) -> Tensor:
        """Logits [B, C] of hidden states; of a regression [B, 1], in the targets' unit."""
        logits = self.head(hidden)
        return logits * self.target_scale + self.target_shift if self.problem_type == REGRESSION else logits

    @torch.no_grad()
    def standardise(self, targets: Tensor) -> None:
        """Let a regression's head learn in units in which these targets [N] have mean 0 and deviation 1.

        A head without a bias gets no shift, and the targets' root mean square as unit. One that has learned already,
        in memory or out of a file, goes on giving the answers that it gave.
        """
        values = targets.double()
        layer = output_layer(self.head)
        shift = values.mean() if layer.bias is not None else torch.zeros(())
        scale = (values - shift).square().mean().sqrt()
        scale = torch.where(scale > 0, scale, 1.0)  # of targets that are all the same
        scale, shift = scale.to(self.target_scale), shift.to(self.target_shift)
        if not self.fresh_head:
            layer.weight.mul_(self.target_scale / scale)
            if layer.bias is not None:
                layer.bias.mul_(self.target_scale / scale).add_((self.target_shift - shift) / scale)
        self.target_scale, self.target_shift, self.fresh_head = scale, shift, False

    def folded_head(self) -> dict[str, Tensor]:
        """The head's tensors, a regression's scale and shift folded into its last layer: it gives logits by itself."""
        state = dict(self.head.state_dict())
        if self.problem_type == REGRESSION:
            layer = output_layer(self.head)
            name = next(name for name, module in self.head.named_modules() if module is layer)
            state[f"{name}.weight"] = layer.weight * self.target_scale
            if layer.bias is not None:
                state[f"{name}.bias"] = layer.bias * self.target_scale + self.target_shift
        return state

    def train(self, mode: bool = True) -> PromptClassifier:
        """Training mode reaches the prompt encoder alone: backbone and head have no dropout."""
        super().train(mode)
        self.head.eval()
        return self

    def trainable_state(self) -> dict[str, Tensor]:
        """What training changes, by name: the prompt encoder whole, not folded, and the head."""
        return dict(self.state_dict())

    def load_trainable_state(self, state: dict[str, Tensor]) -> None:
        """Put back what `trainable_state` gave, exactly."""
        with torch.no_grad():
            own = self.trainable_state()
            if own.keys() != state.keys():
                raise ValueError(f"the state has {sorted(state)}, but this model trains {sorted(own)}")
            for name, tensor in state.items():
                own[name].copy_(tensor)

    def trainable_parameters(self, members: int = 1) -> tuple[int, int]:
        """(trained, all), counted as PEFT's print_trainable_parameters does; of an ensemble of so many such members."""
        trained = members * sum(p.numel() for p in self.parameters() if p.requires_grad)
        return trained, trained + self.backbone.parameter_count()

    def describe_parameters(self, members: int = 1) -> str:
        """The line of PEFT's guide: how many parameters are trained, of how many."""
        trained, total = self.trainable_parameters(members)
        return f"trainable params: {trained} || all params: {total} || trainable%: {100 * trained / total}"


def _leave_out_backbone(_module: nn.Module, state: dict[str, Any], prefix: str, _metadata: Any) -> None:
    for name in [name for name in state if name.startswith(f"{prefix}backbone.")]:
        del state[name]


def _expect_no_backbone(_module: nn.Module, keys: Any) -> None:
    keys.missing_keys[:] = [name for name in keys.missing_keys if ".backbone." not in f".{name}"]


def shared_logits(
    members: Sequence[PromptClassifier],
    prompt: Tensor,
    input_ids: Tensor,
    attention_mask: Tensor | None = None,
    token_type_ids: Tensor | None = None,
    mask_position: Tensor | None = None,
    forward: Callable[..., Hidden] | None = None,
) -> list[Tensor]:
    """Logits of M members over a batch of theirs, M times [B, C].

    Args:
        members, and others: as of `start_logits`.
        forward: in place of the backbone's own, such as its compiled one.
    """
    start = None if forward is None else partial(started, forward)
    return start_logits(members, prompt, input_ids, attention_mask, token_type_ids, mask_position, start)()


def start_logits(
    members: Sequence[PromptClassifier],
    prompt: Tensor,
    input_ids: Tensor,
    attention_mask: Tensor | None = None,
    token_type_ids: Tensor | None = None,
    mask_position: Tensor | None = None,
    start: Callable[..., Callable[[], Hidden]] | None = None,
) -> Callable[[], list[Tensor]]:
    """Begin to compute the logits of M members over a batch of theirs; returns what waits for them, M times [B, C].

    Args:
        members: classifiers over one backbone.
        prompt: their prompts, from `ensemble.stack_prompts`; of a single member its own, folded, one for all rows or
            one a row.
        input_ids: [M * B, T], the first B rows for the first member, and so on; all else likewise.
        start: in place of `Backbone.start`.
    """
    first = members[0]
    rows = input_ids.shape[0] // len(members)
    if len(members) > 1:
        prompt = prompt.repeat_interleave(rows, dim=-3)
    offset = prompt.shape[-2] if prompt.dim() <= 3 else 0
    read = first.head.reads(input_ids, attention_mask, mask_position, offset)
    start = start or first.backbone.start
    wait = start(input_ids, attention_mask, token_type_ids, prompt, read=read, **first.config.entry)

    def logits() -> list[Tensor]:
        hidden = replace(wait(), mask_position=mask_position)
        return [
            member.read(_rows_of(hidden, slice(number * rows, (number + 1) * rows)))
            for number, member in enumerate(members)
        ]

    return logits


def _rows_of(hidden: Hidden, rows: slice) -> Hidden:
    tensors: dict[str, Any] = {name: part[rows] for name, part in vars(hidden).items() if isinstance(part, Tensor)}
    return replace(hidden, **tensors)


def drop_tokens(prompt: Tensor, share: float) -> Tensor:
    """Leave out that share of the virtual tokens [P, width], never token 0; drawn from torch's global generator.

    Their number is always the same, so that prompts trained side by side stay of one length.
    """
    tokens = len(prompt)
    order = torch.randperm(tokens - 1) + 1
    kept = torch.cat([torch.zeros(1, dtype=torch.long), order[round(share * tokens) :]]).sort().values
    return prompt[kept.to(prompt.device)]


def _token_room(backbone: Backbone, classes: int) -> int:
    """Virtual tokens of a deep prompt that together with a linear head come to no more than TRAINED_SHARE."""
    share = TRAINED_SHARE * backbone.parameter_count() - (backbone.output_width + 1) * classes
    width = backbone.layers * 2 * backbone.kv_width  # of a virtual token; 0 where the layers take none
    return int(share // width) if width else 0


def _checked_labels(labels: Sequence[str], problem_type: ProblemType) -> list[str]:
    if problem_type not in (SINGLE, MULTI, REGRESSION):
        raise ConfigError(f"problem_type '{problem_type}' is not known; use {SINGLE}, {MULTI} or {REGRESSION}")
    if problem_type == REGRESSION and len(labels) != 1:
        raise ConfigError(f"a regression gives one number, but {len(labels)} labels are named; name one")
    if not labels:
        raise ConfigError("there are no labels; name them in index order, such as labels=data.labels")
    for label in labels:
        if list(labels).count(label) > 1:
            raise ConfigError(f"label '{label}' is named twice; every class needs a name of its own")
    return list(labels)


def _check_fit(config: PromptConfig, backbone: Backbone) -> None:
    if config.method == "deep" and backbone.family.deep is None:
        raise ConfigError(
            f"method 'deep' does not work with {backbone.family.name} (backbone '{backbone.name}'): its attention "
            "takes no further keys and values; use --method p-tuning or prompt-tuning"
        )
    if config.softmax == "separate" and not backbone.family.separates:
        raise ConfigError(
            f"softmax 'separate' does not work with {backbone.family.name} (backbone '{backbone.name}'), whose layers "
            "take a prompt as past keys and values only; use --softmax shared"
        )
    if config.method == "deep" and config.softmax == "shared" and not backbone.family.shares:
        raise ConfigError(
            f"a deep prompt in {backbone.family.name} (backbone '{backbone.name}') has a softmax of its own, so it "
            "does not go with --softmax shared, --pooling peft, --init text or vocabulary, nor with --encoder mlp or "
            "lstm; leave them out, or use --method p-tuning or prompt-tuning"
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
    if limit is not None and config.positions_taken > limit - 8:
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
        first = first_special_token(backbone, tokenizer)
        if first is None:
            raise ConfigError(
                f"tie_first is for encoders whose text begins with a special token; backbone '{backbone.name}' "
                f"({backbone.family.name}) has a head over the last token"
            )
        encoder.fixed_first = backbone.word_embeddings.weight.detach()[first].float()
    return encoder


def _label_tokens(
    config: PromptConfig, labels: Sequence[str], tokenizer: PreTrainedTokenizerBase | None
) -> list[list[int]]:
    if tokenizer is None:
        raise ConfigError("a verbalizer needs the backbone's tokenizer")
    return label_tokens(tokenizer, labels, config.verbalizer, config.template or "{text}")
