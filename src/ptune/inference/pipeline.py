"""A trained classifier as `transformers.pipeline("text-classification")` takes it: a model and a tokenizer.

A pipeline tokenizes, pads, runs the model and puts a softmax or a sigmoid over its logits. So template, pair separator
and cutting belong to this tokenizer, and temperature and ensemble to this model, and the answers are ptune's own.
"""

from __future__ import annotations

import logging
from copy import deepcopy
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from transformers import BatchEncoding
from transformers.modeling_outputs import SequenceClassifierOutput
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES

from ptune.data.batch import Inputs
from ptune.data.encode import TextEncoder
from ptune.model.ensemble import Model, PromptEnsemble, combine

if TYPE_CHECKING:
    from transformers import PretrainedConfig

logger = logging.getLogger(__name__)


class PipelineModel(nn.Module):
    """A model, or an ensemble, with what a pipeline reads of one: `config`, `device`, `dtype`, logits.

    Args:
        model: in the state that it is to answer in; its prompt is folded here, once.
        temperature: what logits are divided by; 1 unless one label a row is predicted.
    """

    input_modalities = "text"

    def __init__(self, model: Model, temperature: float = 1.0) -> None:
        super().__init__()
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

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        mask_position: Tensor | None = None,
    ) -> SequenceClassifierOutput:
        """Logits [B, C] of a batch; arguments as of `PromptClassifier.forward`."""
        prompts = [self.get_buffer(f"prompt{number}") for number in range(len(self.ensemble.members))]
        inputs = Inputs(input_ids, attention_mask, token_type_ids, mask_position)
        members = self.ensemble.member_logits(prompts, inputs)
        return SequenceClassifierOutput(logits=combine(members, self.ensemble.problem_type) / self.temperature)


# Pipelines know models by the names of their classes, and log an error about any other.
MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES["ptune"] = PipelineModel.__name__


class PipelineTokenizer:
    """A row's token ids as tensors, written into the template and cut as in training.

    Args:
        encoder: of the classifier.
        pad_id: what a pipeline pads `input_ids` with.
    """

    padding_side = "right"

    def __init__(self, encoder: TextEncoder, pad_id: int) -> None:
        self.encoder = encoder
        self.pad_token_id = pad_id
        self._told = False  # that a text was cut

    def __call__(
        self,
        text: str,
        text_pair: str | None = None,
        return_tensors: str = "pt",  # noqa: ARG002
        padding: object = None,  # noqa: ARG002
        truncation: object = None,  # noqa: ARG002
    ) -> BatchEncoding:
        """One row, [1, T]. What else is commonly asked for is what happens anyway.

        Raises:
            DataError: the text has no tokens at all.
        """
        (row,) = self.encoder.encode([text], None if text_pair is None else [text_pair])
        if row.cut and not self._told:
            self._told = True
            logger.warning("a text was cut to %d tokens; this is said only once", self.encoder.max_length)
        tensors = {"input_ids": torch.tensor([row.ids]), "attention_mask": torch.ones(1, len(row), dtype=torch.long)}
        if row.segments is not None:
            tensors["token_type_ids"] = torch.tensor([row.segments])
        if row.mask_position is not None:
            tensors["mask_position"] = torch.tensor([row.mask_position])
        return BatchEncoding(tensors)


def _config(ensemble: PromptEnsemble) -> PretrainedConfig:
    """The backbone's configuration with the task's labels in it."""
    config = deepcopy(ensemble.backbone.config)
    config.id2label = dict(enumerate(ensemble.labels))
    config.label2id = {label: number for number, label in enumerate(ensemble.labels)}
    config.problem_type = ensemble.problem_type
    return config
