"""The model that is trained: frozen backbone, prompt encoder, head."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ptune.data.batch import Inputs, moved
from ptune.data.splits import TextData
from ptune.data.targets import REGRESSION, SINGLE, ProblemType
from ptune.errors import ConfigError
from ptune.model.backbone import Backbone, Hidden
from ptune.model.checks import check_fit, check_labels
from ptune.model.config import FEW_ROWS, TRAINED_SHARE, PromptConfig
from ptune.model.entry import Entry
from ptune.model.few_shot import few_shot_config
from ptune.model.head import PeftHead, TextHead, make_head, output_layer, start_at_words
from ptune.model.loading import load_backbone
from ptune.model.mixed import start_logits
from ptune.model.objective import Objective
from ptune.model.prompt import split_layers
from ptune.model.start import make_encoder, with_counted_tokens
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
        self.labels = check_labels(labels, problem_type)
        self.problem_type = problem_type
        self.backbone = backbone
        check_fit(self.config, backbone)
        if problem_type != SINGLE and self.config.head == "verbalizer":
            raise ConfigError(f"a verbalizer picks one word of several; use head 'linear' for {problem_type}")
        gpus = [backbone.device] if backbone.device.type == "cuda" else []  # whose generators a seed sets as well
        with torch.random.fork_rng(gpus, enabled=seed is not None):
            if seed is not None:
                torch.manual_seed(seed)
            self.prompt_encoder = make_encoder(self.config, backbone, tokenizer).to(backbone.device)
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

    @classmethod
    def for_data(
        cls,
        backbone: str | Backbone,
        data: TextData,
        prompt: PromptConfig | None = None,
        *,
        seed: int = 0,
        device: str = "auto",
        dtype: str = "auto",
        revision: str | None = None,
    ) -> PromptClassifier:
        """Put a fresh prompt and head for some data on a backbone, with every default that follows from the data.

        These are the labels, the problem type, and, where training rows are few, a start from words
        (`ptune.model.few_shot`). The command line begins in the same way.

        Args:
            backbone: a name (see `load_backbone`) or a loaded backbone.
            data: what is going to be trained on.
            prompt: what is learned. Fields left None are settled.
            seed: of prompt and head.
            device, dtype, revision: of a backbone that is given by name.

        Raises:
            ConfigError: the configuration does not suit the backbone or the data.
            BackboneError: the backbone is not found, not supported or incomplete.
        """
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
        )

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
        inputs = Inputs(input_ids, attention_mask, token_type_ids, mask_position)
        logits = start_logits([self], [self.prompt()], [0] * len(inputs), inputs).result()[0]
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

    @property
    def entry(self) -> Entry:
        """How the folded prompt enters the backbone.

        A causal backbone is given the keys and values of a prompt at the input; behind them the text stands as behind
        the prompt itself.
        """
        if self.config.shallow:
            return Entry("shared", shift_text=True) if self.backbone.reads_prompt_alone else Entry("input")
        return Entry("separate" if self.config.softmax == "separate" else "shared", bool(self.config.shift_text))

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


def drop_tokens(prompt: Tensor, share: float) -> Tensor:
    """Leave out that share of the virtual tokens [P, width], never token 0; drawn from torch's global generator.

    Their number is always the same, so that prompts trained side by side stay of one length.
    """
    tokens = len(prompt)
    order = torch.randperm(tokens - 1) + 1
    kept = torch.cat([torch.zeros(1, dtype=torch.long), order[round(share * tokens) :]]).sort().values
    return prompt[moved(kept, prompt.device)]


def _token_room(backbone: Backbone, classes: int) -> int:
    """Virtual tokens of a deep prompt that together with a linear head come to no more than TRAINED_SHARE."""
    share = TRAINED_SHARE * backbone.parameter_count() - (backbone.output_width + 1) * classes
    width = backbone.layers * 2 * backbone.kv_width  # of a virtual token; 0 where the layers take none
    return int(share // width) if width else 0


def _label_tokens(
    config: PromptConfig, labels: Sequence[str], tokenizer: PreTrainedTokenizerBase | None
) -> list[list[int]]:
    if tokenizer is None:
        raise ConfigError("a verbalizer needs the backbone's tokenizer")
    return label_tokens(tokenizer, labels, config.verbalizer, config.template or "{text}")
