"""Model and tokenizer of a classifier, in the form that `transformers.pipeline("text-classification")` takes.

A pipeline tokenizes, pads, runs the model and applies a softmax or a sigmoid to its logits. The tokenizer here
therefore applies template, pair separator and cutting, and the model applies ensemble and temperature. A pipeline then
gives the same answers as ptune.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import BatchEncoding, TextClassificationPipeline
from transformers.modeling_outputs import SequenceClassifierOutput
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES

from ptune.data.batch import Inputs
from ptune.data.columns import check_pairs
from ptune.data.encode import TextEncoder
from ptune.errors import ConfigError
from ptune.model.ensemble import Model, PromptEnsemble, combine

if TYPE_CHECKING:
    from transformers import PretrainedConfig

logger = logging.getLogger(__name__)


class PipelineModel(nn.Module):
    """A model or an ensemble with the interface that a pipeline expects: `config`, `device`, `dtype` and logits.

    Args:
        model: a trained model. Its prompt is computed once, here.
        temperature: divisor of the logits; 1 unless the task is single-label.
        save: writes the classifier's adapter to a folder.
    """

    input_modalities = "text"

    def __init__(
        self, model: Model, temperature: float = 1.0, save: Callable[[str | Path], None] | None = None
    ) -> None:
        super().__init__()
        self._save = save
        self.ensemble = model if isinstance(model, PromptEnsemble) else PromptEnsemble([model])
        self.temperature = temperature
        self.config = _config(self.ensemble)
        self.eval()
        with torch.no_grad():
            for number, prompt in enumerate(self.ensemble.prompts()):
                self.register_buffer(f"prompt{number}", prompt)

    @property
    def device(self) -> torch.device:
        return self.ensemble.backbone.device

    @property
    def dtype(self) -> torch.dtype:
        return self.ensemble.backbone.dtype

    @staticmethod
    def can_generate() -> bool:
        return False

    def save_pretrained(self, save_directory: str | Path, **options: Any) -> None:
        """Write the classifier's adapter. `ptune.load(folder).pipeline()` makes the same pipeline again.

        Raises:
            ConfigError: an option is given, or the model does not belong to a `TextClassifier`.
            OutputError: the folder cannot be written.
        """
        if options:
            raise ConfigError(
                f"save_pretrained of a pipeline of ptune takes a folder only, not {', '.join(options)}; publish "
                "adapters with TextClassifier.push_to_hub"
            )
        if self._save is None:
            raise ConfigError("this model belongs to no classifier; make it with TextClassifier.as_transformers()")
        self._save(save_directory)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        mask_position: Tensor | None = None,
        pair_position: Tensor | None = None,
    ) -> SequenceClassifierOutput:
        """Return the logits [B, C] of a batch; see `PromptClassifier.forward` for the arguments."""
        prompts = [self.get_buffer(f"prompt{number}") for number in range(len(self.ensemble.members))]
        inputs = Inputs(input_ids, attention_mask, token_type_ids, mask_position, pair_position)
        logits = self.ensemble.member_logits(prompts, inputs)
        return SequenceClassifierOutput(logits=combine(logits, self.ensemble.problem_type) / self.temperature)


# Pipelines recognise models by the names of their classes, and log an error for unknown ones.
MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES["ptune"] = PipelineModel.__name__


class PipelineTokenizer:
    """A tokenizer for pipelines that uses the template and cuts texts as in training.

    Args:
        encoder: the classifier's encoder.
        pad_id: id of the padding token for `input_ids`.
        columns: columns of the training data, which say whether rows are pairs.
    """

    padding_side = "right"

    def __init__(self, encoder: TextEncoder, pad_id: int, columns: Mapping[str, str | None]) -> None:
        self.encoder = encoder
        self.columns = columns
        self.pad_token_id = pad_id
        self._warned = False  # about texts that were cut

    def __call__(
        self,
        text: str,
        text_pair: str | None = None,
        return_tensors: str = "pt",  # noqa: ARG002
        padding: object = None,  # noqa: ARG002
        truncation: object = None,  # noqa: ARG002
        max_length: int | None = None,
        **options: Any,
    ) -> BatchEncoding:
        """Return the token ids of one row, [1, T].

        Args:
            text: the text.
            text_pair: the second text of a pair.
            return_tensors: ignored; the result always holds PyTorch tensors.
            padding: ignored; a single row needs no padding.
            truncation: ignored; texts are always cut to the classifier's length.
            max_length: length to cut texts to, in tokens. Where it is more than the classifier's, that counts.
            options: nothing else is known; the error says what to use.

        Raises:
            ConfigError: an option is unknown, or `max_length` is below 3.
            DataError: a single text is given but the adapter was trained on pairs, or the other way round.
        """
        if options:
            raise ConfigError(_unknown(options))
        # A pipeline passes pairs like this.
        if isinstance(text, (tuple, list)) and len(text) == 2 and text_pair is None:
            text, text_pair = text
        check_pairs(text_pair is not None, self.columns)
        encoder = self.encoder if max_length is None else self._shorter(max_length)
        (row,) = encoder.encode([text], None if text_pair is None else [text_pair])
        if row.cut and not self._warned:
            self._warned = True
            logger.warning("a text was cut to %d tokens; this warning appears only once", encoder.max_length)
        tensors = {"input_ids": torch.tensor([row.ids]), "attention_mask": torch.ones(1, len(row), dtype=torch.long)}
        if row.segments is not None:
            tensors["token_type_ids"] = torch.tensor([row.segments])
        if row.mask_position is not None:
            tensors["mask_position"] = torch.tensor([row.mask_position])
        if row.pair_position is not None:
            tensors["pair_position"] = torch.tensor([row.pair_position])
        return BatchEncoding(tensors)

    def _shorter(self, max_length: int) -> TextEncoder:
        """Return an encoder that cuts texts to a shorter length."""
        if max_length < 3:
            raise ConfigError(
                f"`max_length={max_length}` leaves no room for text; use at least 3 tokens",
                field="max_length",
                value=max_length,
                expected="at least 3",
            )
        return self.encoder.shorter(max_length)

    def save_pretrained(self, *_: Any, **__: Any) -> tuple[str, ...]:
        """Write nothing, as the adapter names the backbone that the tokenizer comes from."""
        return ()


class ClassifierPipeline(TextClassificationPipeline):  # type: ignore[misc]
    """A pipeline that also knows `return_all_scores`, an older name of `top_k=None`."""

    def _sanitize_parameters(self, return_all_scores: bool | None = None, **parameters: Any) -> Any:
        if return_all_scores:
            parameters.setdefault("top_k", None)
        return super()._sanitize_parameters(**parameters)


def _unknown(options: dict[str, Any]) -> str:
    """Return the message for options that neither a pipeline nor its tokenizer knows."""
    if "return_all_scores" in options:
        return "`return_all_scores` is an older name; use `top_k=None` for the scores of all labels"
    return (
        f"a pipeline of ptune does not know {', '.join(f'`{name}`' for name in options)}; it takes `top_k`, "
        "`function_to_apply`, `batch_size` and `max_length`, and cuts texts as in training"
    )


def _config(ensemble: PromptEnsemble) -> PretrainedConfig:
    """Return the backbone's configuration with the task's labels and problem type."""
    config = deepcopy(ensemble.backbone.config)
    config.id2label = dict(enumerate(ensemble.labels))
    config.label2id = {label: number for number, label in enumerate(ensemble.labels)}
    config.problem_type = ensemble.problem_type
    return config
