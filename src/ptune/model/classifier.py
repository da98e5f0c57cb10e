"""The model that is trained: a frozen backbone, a prompt encoder and a head."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ptune.data.batch import Inputs, moved
from ptune.data.load import load_data
from ptune.data.splits import TextData
from ptune.data.targets import REGRESSION, SINGLE, ProblemType
from ptune.errors import ConfigError
from ptune.model import extra_state
from ptune.model.backbone import Backbone
from ptune.model.checks import IGNORED, check_fit, check_ids, check_labels, check_targets
from ptune.model.config import FEW_ROWS, TRAINED_SHARE, PromptConfig
from ptune.model.entry import Entry
from ptune.model.few_shot import few_shot_config
from ptune.model.head import PeftHead, TextHead, make_head, output_layer, start_at_words
from ptune.model.hidden import Hidden
from ptune.model.loading import load_backbone
from ptune.model.mixed import start_logits
from ptune.model.objective import Objective
from ptune.model.prompt import split_layers
from ptune.model.recompute import prepare, recomputing
from ptune.model.start import make_encoder, with_counted_tokens
from ptune.model.words import label_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase
    from transformers.modeling_outputs import SequenceClassifierOutput


class PromptClassifier(nn.Module):
    """A frozen backbone that classifies text with a learned prompt and a small head.

    Only `prompt_encoder` and `head` are trained. In a regression the head learns targets with mean 0 and standard
    deviation 1 (see `standardise`), and `read` converts its output to the unit of the targets.

    Args:
        backbone: the frozen model. Several classifiers may share it.
        config: what is learned. Fields that are None get a default for the backbone's family.
        labels: the C names of the labels in index order; for a regression one name, that of the measured quantity.
        tokenizer: the backbone's tokenizer. It is needed to start from a text, to tie virtual token 0, and for a
            verbalizer.
        seed: random seed for prompt and head; None: use torch's global generator in its current state.
        problem_type: what the logits mean; see `ptune.data.targets`.
        pairs: True if the rows are pairs of texts; it changes the default of `pooling`.

    Raises:
        ConfigError: the configuration does not work with the backbone, the labels or the problem type.
        BackboneError: a verbalizer is set, but the backbone has no pretrained language-model head.
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
        pairs: bool = False,
    ) -> None:
        super().__init__()
        counted = with_counted_tokens(config, backbone, tokenizer)
        self.config = counted.settle(backbone.family, _token_room(backbone, len(labels)), pairs)
        self.labels = check_labels(labels, problem_type)
        self.problem_type = problem_type
        self.backbone = backbone
        check_fit(self.config, backbone)
        if problem_type != SINGLE and self.config.head == "verbalizer":
            raise ConfigError(
                f"`head='verbalizer'` is for {SINGLE}, but the problem type is {problem_type}; use `head='linear'`",
                field="head",
                value=self.config.head,
                expected="linear",
            )
        gpus = [backbone.device] if backbone.device.type == "cuda" else []  # their generators are set too
        with torch.random.fork_rng(gpus, enabled=seed is not None):
            if seed is not None:
                # On a CPU another thread may be tracing a graph, and torch.manual_seed would disturb it.
                on_cpu = backbone.device.type == "cpu"
                (torch.default_generator.manual_seed if on_cpu else torch.manual_seed)(seed)
            self.prompt_encoder = make_encoder(self.config, backbone, tokenizer).to(backbone.device)
            self.head: TextHead | PeftHead = make_head(backbone, self.config.pooling or "mean", len(labels))
        if self.config.head == "verbalizer":
            start_at_words(self.head, backbone, _label_tokens(self.config, labels, tokenizer))
        # For a regression. They are not trained and not saved: in an adapter they are part of the head (`folded_head`).
        self.register_buffer("target_scale", torch.ones((), device=backbone.device), persistent=False)
        self.register_buffer("target_shift", torch.zeros((), device=backbone.device), persistent=False)
        self._recomputes = False
        self.fresh_head = True  # the head has its initial weights and has not learned in any unit
        # transformers' Trainer and others save the state of a model. It contains only what is learned.
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
        pairs: bool = False,
    ) -> PromptClassifier:
        """Return a classifier with a new prompt and head for a backbone.

        Args:
            backbone: a name (see `load_backbone`) or a loaded backbone.
            config: what is learned. Fields that are None get a default.
            labels: the names of the labels in index order.
            seed: random seed for prompt and head.
            device: a torch device or `auto`, if the backbone is given by name.
            dtype: the number type of a backbone that is given by name; see `load_backbone`.
            revision: the revision on the Hub of a backbone that is given by name.
            problem_type: what the logits mean; see `ptune.data.targets`.
            rows: the number of training rows, if known. Few rows change the defaults; see `ptune.model.few_shot`.
            pairs: True if the rows are pairs of texts. The default head then compares them; see `PromptConfig.settle`.

        Raises:
            ConfigError: the configuration does not work with the backbone, the labels or the problem type.
            BackboneError: the backbone is not found, not supported or incomplete.
        """
        from ptune.model.tokenizer import tokenizer_of

        if isinstance(backbone, str):
            backbone = load_backbone(backbone, revision, dtype, device)
        config, tokenizer = config or PromptConfig(), tokenizer_of(backbone)
        if rows is not None and rows <= FEW_ROWS and problem_type == SINGLE:
            config = few_shot_config(config, backbone, labels, tokenizer)
        return cls(backbone, config, labels, tokenizer, seed, problem_type, pairs)

    @classmethod
    def for_data(
        cls,
        backbone: str | Backbone,
        data: Any,
        prompt: PromptConfig | None = None,
        *,
        seed: int = 0,
        device: str = "auto",
        dtype: str = "auto",
        revision: str | None = None,
    ) -> PromptClassifier:
        """Return a classifier with a new prompt and head for a backbone and the data that it will be trained on.

        The data determine the labels and the problem type. With few training rows, training starts from words (see
        `ptune.model.few_shot`). The command line uses this method too.

        Args:
            backbone: a name (see `load_backbone`) or a loaded backbone.
            data: the data to train on, from `ptune.load_data`, or anything that `load_data` takes, such as a DataFrame.
            prompt: what is learned. Fields that are None get a default.
            seed: random seed for prompt and head.
            device: a torch device or `auto`, if the backbone is given by name.
            dtype: the number type of a backbone that is given by name; see `load_backbone`.
            revision: the revision on the Hub of a backbone that is given by name.

        Raises:
            ConfigError: the configuration does not work with the backbone or the data.
            BackboneError: the backbone is not found, not supported or incomplete.
            DataError: the data cannot be used.
        """
        if not isinstance(data, TextData):
            data = load_data(data, seed=seed)
        return cls.from_backbone(
            backbone,
            prompt,
            labels=data.labels,
            seed=seed,
            device=device,
            dtype=dtype,
            revision=revision,
            problem_type=data.problem_type,
            rows=len(data.train),
            pairs=data.train.pairs is not None,
        )

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,
        mask_position: Tensor | None = None,
        num_items_in_batch: Tensor | int | None = None,
        pair_position: Tensor | None = None,
    ) -> SequenceClassifierOutput:
        """Return the logits of a batch, and its loss if labels are given.

        The loss has no weights. It is the loss that transformers' classifiers have for the problem type.

        Args:
            input_ids: [B, T], padded on the right.
            attention_mask: [B, T], 1 for text; None: no row is padded.
            token_type_ids: [B, T], segments of a pair.
            labels: [B], class indices; for multi-label [B, C], 0 or 1; for a regression [B], numbers.
            mask_position: [B], the position of each row's mask token. Only the pooling `mask` needs it.
            num_items_in_batch: number of labels in all batches of a step, on all devices, as transformers' Trainer
                counts them. The loss is then this batch's share of the mean over all of them.
            pair_position: [B], the position of the first token of each row's second text. Only the pooling `pair` needs
                it. None: taken from the segments.

        Raises:
            ValueError: a row is padded on the left.
            ValueError: the pooling is `pair`, and there are neither positions nor segments.
            DataError: on the CPU, the labels do not suit the problem type, or one is beyond the classes.
            DataError: on the CPU, a token id is beyond the word embeddings.
        """
        from transformers.modeling_outputs import SequenceClassifierOutput

        # On a GPU this check would make the host wait for the device.
        if attention_mask is not None and attention_mask.device.type == "cpu" and not attention_mask[:, 0].all():
            raise ValueError("a row begins with padding; pad on the right: tokenizer.padding_side = 'right'")
        check_ids(input_ids, len(self.backbone.word_embeddings.weight))
        if pair_position is None and self.config.pooling == "pair" and token_type_ids is not None:
            pair_position = (token_type_ids > 0).int().argmax(dim=1)
        inputs = Inputs(input_ids, attention_mask, token_type_ids, mask_position, pair_position)
        prompt = self.prompt()
        with recomputing(self._recomputes):
            logits = start_logits([self], [prompt], [0] * len(inputs), inputs).result()[0]
        if labels is not None:
            labels = check_targets(labels, logits, self.problem_type)
        loss = None if labels is None else Objective(self.problem_type)(logits, labels)
        if loss is not None and labels is not None and num_items_in_batch is not None:
            loss = loss * (labels.numel() / num_items_in_batch)
        elif loss is not None and labels is not None and self.problem_type == SINGLE:
            loss = loss * (labels.numel() / (labels != IGNORED).sum().clamp_min(1))
        return SequenceClassifierOutput(loss=loss, logits=logits)  # type: ignore[arg-type]

    @property
    def accepts_loss_kwargs(self) -> bool:
        """True if transformers' Trainer should pass `num_items_in_batch`, so that all rows have the same weight.

        For a regression it is False, because the Trainer would not count targets of -100. The Trainer then takes the
        mean over batches.
        """
        return self.problem_type != REGRESSION

    def prompt(self) -> Tensor:
        """Return the folded prompt in the form that the backbone takes: shallow [P, E] or deep [L, 2, P, Hkv].

        In training, some virtual tokens are left out. A causal backbone reads a shallow prompt here, once per step or
        prediction, and the result is the prompt's keys and values.
        """
        folded: Tensor = self.prompt_encoder()
        if self.training and self.config.token_dropout:
            folded = drop_tokens(folded, self.config.token_dropout)
        return self.entering(folded)

    def entering(self, folded: Tensor) -> Tensor:
        """Return a prompt [P, width], as the prompt encoder gives it, in the form that the backbone takes."""
        if not self.config.shallow:
            return split_layers(folded, self.backbone.layers)
        return self.backbone.read_prompt(folded) if self.backbone.reads_prompt_alone else folded

    @property
    def entry(self) -> Entry:
        """How the folded prompt enters the backbone.

        A causal backbone takes a prompt at the input as keys and values. The text's positions follow those of the
        prompt, as they do without this shortcut.
        """
        if self.config.shallow:
            return Entry("shared", shift_text=True) if self.backbone.reads_prompt_alone else Entry("input")
        return Entry("separate" if self.config.softmax == "separate" else "shared", bool(self.config.shift_text))

    def read(self, hidden: Hidden) -> Tensor:
        """Return the logits [B, C] for hidden states. For a regression they are [B, 1], in the unit of the targets."""
        return self.in_unit(self.head(hidden))

    @property
    def only_layer(self) -> nn.Linear | None:
        """The linear layer that has all weights of the head; None if there are several layers."""
        return self.head.only_layer

    def in_unit(self, logits: Tensor) -> Tensor:
        """Return logits [B, C] of the head as they are; for a regression, in the unit of the targets."""
        return logits * self.target_scale + self.target_shift if self.problem_type == REGRESSION else logits

    @torch.no_grad()
    def standardise(self, targets: Tensor) -> None:
        """Set the scale and shift of a regression, so that the head learns targets with mean 0 and deviation 1.

        For a head without a bias there is no shift, and the scale is the root mean square of the targets. The weights
        of a head that is already trained or loaded are adapted, so that its predictions do not change.

        Args:
            targets: [N], the targets of the training rows.
        """
        values = targets.double()
        layer = output_layer(self.head)
        shift = values.mean() if layer.bias is not None else torch.zeros(())
        scale = (values - shift).square().mean().sqrt()
        scale = torch.where(scale > 0, scale, 1.0)  # 0 if all targets are the same
        scale, shift = scale.to(self.target_scale), shift.to(self.target_shift)
        if not self.fresh_head:
            layer.weight.mul_(self.target_scale / scale)
            if layer.bias is not None:
                layer.bias.mul_(self.target_scale / scale).add_((self.target_shift - shift) / scale)
        self.target_scale, self.target_shift, self.fresh_head = scale, shift, False

    def folded_head(self) -> dict[str, Tensor]:
        """Return the tensors of the head. For a regression, scale and shift are folded into its last layer."""
        state = self.head.folded() if isinstance(self.head, TextHead) else dict(self.head.state_dict())
        if self.problem_type == REGRESSION:
            layer = output_layer(self.head)
            name = next(name for name, module in self.head.named_modules() if module is layer)
            state[f"{name}.weight"] = state[f"{name}.weight"] * self.target_scale
            if layer.bias is not None:
                state[f"{name}.bias"] = state[f"{name}.bias"] * self.target_scale + self.target_shift
        return state

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> PromptClassifier:
        """Move the module as torch does. The number type changes for the backbone alone, also by `half` or `double`.

        What is learned stays in float32, as after `load_backbone(dtype=...)`.
        """

        def move(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            return moved if moved.dtype == tensor.dtype else tensor.to(moved.device)

        for module in self.children() if recurse else ():
            module._apply(fn if module is self.backbone else move)
        return super()._apply(move, recurse=False)  # type: ignore[no-any-return]

    def train(self, mode: bool = True) -> PromptClassifier:
        """Set training mode for the prompt encoder only. Backbone and head are always used without dropout."""
        super().train(mode)
        self.head.eval()
        return self

    def get_extra_state(self) -> Tensor:
        """Return what the tensors do not say, for torch to put into the state; see `ptune.model.extra_state`."""
        unit = (1.0, 0.0)
        if self.problem_type == REGRESSION:
            unit = (float(self.target_scale), float(self.target_shift))
        cosine = None
        if self.config.pooling == "pair":
            cosine = (float(self.head.cosine_scale), float(self.head.cosine_shift))  # type: ignore[arg-type]
        return extra_state.pack_facts(self.config, self.backbone, self.labels, self.problem_type, unit, cosine)

    def set_extra_state(self, state: Tensor) -> None:
        """Take the units of targets and cosines from a state that is loaded. Everything else is known already."""
        facts = extra_state.unpack_facts(state)
        self.set_cosine_unit(facts.get("cosine"))
        self.target_scale.fill_(facts["target_scale"])
        self.target_shift.fill_(facts["target_shift"])

    def set_cosine_unit(self, unit: tuple[float, float] | None) -> None:
        """Set the scale and the shift of the cosines that the head reads. None: leave them."""
        if unit is not None and isinstance(self.head, TextHead) and self.head.pooling == "pair":
            self.head.cosine_scale.fill_(float(unit[0]))
            self.head.cosine_shift.fill_(float(unit[1]))

    def trainable_state(self) -> dict[str, Tensor]:
        """Return the tensors that training changes, by name: those of the prompt encoder, not folded, and the head."""
        state: dict[str, Tensor] = {}
        for name in ("prompt_encoder", "head"):  # that of the whole would go through the backbone first
            getattr(self, name).state_dict(destination=state, prefix=f"{name}.")
        return state

    def load_trainable_state(self, state: dict[str, Tensor]) -> None:
        """Restore a state that `trainable_state` returned.

        Raises:
            ValueError: the state has other tensors than this model.
        """
        with torch.no_grad():
            current = self.trainable_state()
            if current.keys() != state.keys():
                raise ValueError(f"the state has {sorted(state)}, but this model trains {sorted(current)}")
            for name, tensor in state.items():
                current[name].copy_(tensor)

    def trainable_parameters(self, members: int = 1) -> tuple[int, int]:
        """Return the numbers of trained and of all parameters, counted like PEFT's `print_trainable_parameters`.

        Args:
            members: number of classifiers of this size in an ensemble.
        """
        trained = members * sum(p.numel() for p in self.parameters() if p.requires_grad)
        return trained, trained + self.backbone.parameter_count()

    def activation_checkpointing_enable(self, *_: Any, **__: Any) -> None:
        """Compute layers a second time in the backward pass, to save memory. transformers' Trainer calls this method.

        Arguments are ignored: there is one way to do it.

        Raises:
            ConfigError: the backbone's layers are not modules of their own.
        """
        prepare(self.backbone.base, self.backbone.name)
        self._recomputes = True

    def activation_checkpointing_disable(self) -> None:
        """Keep what layers compute for the backward pass. This is how it is by default."""
        self._recomputes = False

    def describe_parameters(self, members: int = 1, exact: bool = False) -> str:
        """Return the numbers of trained and of all parameters as a line of text, in PEFT's form.

        Args:
            members: number of classifiers of this size in an ensemble.
            exact: give the share with all its digits, as early versions of PEFT did, and not with four.
        """
        trained, total = self.trainable_parameters(members)
        share = 100 * trained / total
        return f"trainable params: {trained} || all params: {total} || trainable%: {share if exact else f'{share:.4f}'}"


def _leave_out_backbone(_module: nn.Module, state: dict[str, Any], prefix: str, _metadata: Any) -> None:
    for name in [name for name in state if name.startswith(f"{prefix}backbone.")]:
        del state[name]


def _expect_no_backbone(_module: nn.Module, keys: Any) -> None:
    unneeded = (".backbone.", f".{extra_state.KEY}")  # states of earlier versions have no extra state
    keys.missing_keys[:] = [name for name in keys.missing_keys if not any(part in f".{name}" for part in unneeded)]


def drop_tokens(prompt: Tensor, share: float) -> Tensor:
    """Leave out some virtual tokens at random, using torch's global generator. Token 0 is always kept.

    The number of tokens that are left out is always the same, so prompts that are trained in parallel stay equally
    long.

    Args:
        prompt: [P, width].
        share: share of the tokens to leave out.
    """
    tokens = len(prompt)
    shuffled = torch.randperm(tokens - 1) + 1
    kept = torch.cat([torch.zeros(1, dtype=torch.long), shuffled[round(share * tokens) :]]).sort().values
    return prompt[moved(kept, prompt.device)]


def _token_room(backbone: Backbone, classes: int) -> int:
    """Return the largest number of virtual tokens of a deep prompt with which at most TRAINED_SHARE is trained.

    The parameters of a linear head count too. The result may be negative.
    """
    parameters = TRAINED_SHARE * backbone.parameter_count() - (backbone.output_width + 1) * classes
    token_width = backbone.layers * 2 * backbone.kv_width  # 0 if the layers take no deep prompt
    return int(parameters // token_width) if token_width else 0


def _label_tokens(
    config: PromptConfig, labels: Sequence[str], tokenizer: PreTrainedTokenizerBase | None
) -> list[list[int]]:
    if tokenizer is None:
        raise ConfigError(
            "`head='verbalizer'` needs the backbone's tokenizer; pass `tokenizer`",
            field="head",
            value=config.head,
            expected="linear, or a tokenizer",
        )
    return label_tokens(tokenizer, labels, config.verbalizer, config.template or "{text}")
