"""Texts in, predictions out: a trained model with the encoder of its texts. A loaded adapter is one."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ptune.adapter.build import build_classifier
from ptune.adapter.folder import AdapterFile, read_adapter
from ptune.adapter.layout import TaskInfo
from ptune.adapter.push import push
from ptune.backends.openvino.backbone import CompiledBackbone
from ptune.data.columns import Columns, as_trained, check_pairs, choose_columns, kept_names, text_of
from ptune.data.encode import Encoded, TextEncoder, pair_separator_for, warn_of_cuts
from ptune.data.readers import Row, read_columns, read_rows
from ptune.data.splits import Split
from ptune.data.targets import REGRESSION
from ptune.data.texts import Text, listed, unzip
from ptune.errors import AdapterError, ConfigError
from ptune.hub import MESSAGE
from ptune.inference.answers import PREDICTION_KEYS, Prediction, answers, probabilities
from ptune.inference.engine import run_logits, run_model
from ptune.model.backbone import Backbone
from ptune.model.config import Precision
from ptune.model.ensemble import Model
from ptune.model.loading import load_backbone
from ptune.model.room import text_room
from ptune.model.tokenizer import load_tokenizer

if TYPE_CHECKING:
    from transformers import TextClassificationPipeline

    from ptune.inference.pipeline import PipelineModel, PipelineTokenizer

logger = logging.getLogger(__name__)

# Rows that a stream is read ahead by: enough to sort by length within, few enough for any memory.
WINDOW = 1024


@dataclass(frozen=True, eq=False)
class TextClassifier:
    """Classifies texts, or pairs of texts.

    Nothing in it changes after it is made, so threads may share it.

    Attributes:
        model: one prompt with its head, or an ensemble of several.
        encoder: turns texts into token ids.
        pad_id: token that pads rows; padding is masked.
        task: what is known of the task beside the weights: columns of the training data, temperature.
        folder: of the adapter's files; None where it was not loaded from any.
    """

    model: Model
    encoder: TextEncoder
    pad_id: int
    task: TaskInfo = field(default_factory=TaskInfo)
    folder: Path | None = None

    @classmethod
    def around(
        cls,
        model: Model,
        max_length: int | None = None,
        separator: str | None = None,
        task: TaskInfo | None = None,
        folder: Path | None = None,
    ) -> TextClassifier:
        """Give a model the tokenizer of its backbone.

        Args:
            max_length: tokens to cut texts to. Default, and most: what the backbone holds beside the prompt.
            separator: in front of the second text of a pair. Default: what suits the tokenizer.
            task, folder: see the class.

        Raises:
            ConfigError: max_length is more than the backbone holds, or the template does not fit in it.
        """
        tokenizer = load_tokenizer(model.backbone.location)
        room = text_room(model.config, model.backbone, tokenizer.model_max_length)
        if max_length is not None and not 3 <= max_length <= room:
            taken = model.config.positions_taken
            beside = f" beside {taken} virtual ones" if taken else ""
            raise ConfigError(
                f"`max_length` {max_length} does not fit: backbone '{model.backbone.name}' takes from 3 to {room} "
                f"tokens{beside}",
                field="max_length",
                value=max_length,
                expected=f"from 3 to {room}",
            )
        if separator is None:
            separator = pair_separator_for(tokenizer)
        encoder = TextEncoder(tokenizer, max_length or room, separator, model.config.template)
        return cls(model, encoder, int(tokenizer.pad_token_id), task or TaskInfo(), folder)

    def saved(self, folder: Path, temperature: float) -> TextClassifier:
        """Return this classifier as it was written to a folder, with the temperature fitted for it."""
        return replace(self, task=replace(self.task, temperature=temperature), folder=folder)

    @property
    def labels(self) -> list[str]:
        """Label names in index order."""
        return self.model.labels

    @property
    def temperature(self) -> float:
        """What logits are divided by before probabilities are taken."""
        return self.task.temperature

    def encode(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> list[Encoded]:
        """Return the token ids of texts.

        Raises:
            DataError: single texts, but the adapter was trained on pairs; or the other way round.
        """
        check_pairs(pairs is not None, self.task.columns)
        return self.encoder.encode(texts, pairs)

    def logits(self, texts: Sequence[str], pairs: Sequence[str] | None = None, batch_size: int | None = None) -> Tensor:
        """Return logits [N, C], in the texts' order. Logs how many texts were cut.

        Raises:
            DataError: as `encode`.
        """
        encoded = self.encode(texts, pairs)
        logits = run_logits(self.model, encoded, self.pad_id, batch_size)
        warn_of_cuts(sum(row.cut for row in encoded), len(encoded), self.encoder.max_length)
        return logits

    def split_logits(self, split: Split, batch_size: int | None = None) -> Tensor:
        """Return the logits [N, C] of a split's rows, as `logits` does."""
        return self.logits(split.texts, split.pairs, batch_size)

    def predict(self, texts: Text | Sequence[Text], batch_size: int | None = None) -> list[Prediction]:
        """Return one prediction for each text or (text, pair); `ptune.inference.answers.Prediction` lists its keys.

        Raises:
            DataError: an empty text; single texts and pairs mixed, or not as in training.
        """
        return list(self.stream(listed(texts), batch_size))

    def predict_proba(self, texts: Text | Sequence[Text], batch_size: int | None = None) -> Tensor:
        """Return probabilities [N, C] in the labels' order, float64. Where several labels may apply, each has its own.

        Raises:
            ConfigError: a regression has none. DataError: as `predict`.
        """
        if self.model.problem_type == REGRESSION:
            raise ConfigError("a regression gives a number and no probabilities; use predict")
        first, second = unzip(listed(texts))
        logits = self.logits(first, second, batch_size)
        return probabilities(logits.double(), self.model.problem_type, self.temperature)

    def as_transformers(self) -> tuple[PipelineModel, PipelineTokenizer]:
        """Model and tokenizer for `transformers.pipeline("text-classification", model=..., tokenizer=...)`."""
        from ptune.inference.pipeline import PipelineModel, PipelineTokenizer

        return PipelineModel(self.model, self.temperature), PipelineTokenizer(self.encoder, self.pad_id)

    def pipeline(self, **options: Any) -> TextClassificationPipeline:
        """transformers' pipeline with this classifier in it, on the device where it is.

        Args:
            options: of `transformers.pipeline`, such as batch_size or top_k.
        """
        from transformers import pipeline

        model, tokenizer = self.as_transformers()
        options = {"device": model.device, **options}
        return pipeline("text-classification", model=model, tokenizer=tokenizer, **options)

    def stream(self, texts: Iterable[Text], batch_size: int | None = None) -> Iterator[Prediction]:
        """Yield predictions for any number of texts, in their order; at most WINDOW texts are read ahead."""
        iterator, seen, cut = iter(texts), 0, 0
        most_tokens: int | None = None
        while window := list(islice(iterator, WINDOW)):
            encoded = self.encode(*unzip(window, seen))
            seen, cut = seen + len(window), cut + sum(row.cut for row in encoded)
            logits, most_tokens = run_model(self.model, encoded, self.pad_id, batch_size, most_tokens)
            yield from answers(logits, self.labels, self.model.problem_type, self.temperature)
        warn_of_cuts(cut, seen, self.encoder.max_length)

    def stream_file(
        self, path: Path, text: str | None = None, text_pair: str | None = None, batch_size: int | None = None
    ) -> Iterator[dict[str, Any]]:
        """Rows of a data file with their predictions, streamed in the file's order.

        The row's own columns are kept; those named as a prediction's are kept as `input_<name>`.

        Raises:
            DataError: no such column, or an empty text: names the row.
        """
        kept: deque[Row] = deque()

        def texts() -> Iterator[Text]:
            columns: Columns | None = None
            keys = PREDICTION_KEYS[self.model.problem_type]
            for number, row in enumerate(read_rows(path), 1):
                columns = columns or self._columns(list(row), text, text_pair, str(path))
                where = f"data file '{path}', row {number}"
                first = text_of(row, columns.text, where)
                kept.append({new: row[name] for name, new in kept_names(row, keys).items()})
                pair = columns.text_pair
                yield first if pair is None else (first, text_of(row, pair, where))

        for prediction in self.stream(texts(), batch_size):
            yield {**kept.popleft(), **prediction}

    def blank_row(self, path: Path) -> Row:
        """A row as `stream_file` gives, with nothing in it: what columns there are, where the file has no rows."""
        (answer,) = answers(torch.zeros(1, len(self.labels)), self.labels, self.model.problem_type)
        return {**dict.fromkeys(kept_names(read_columns(path), answer).values()), **answer}

    def push_to_hub(
        self,
        repository: str,
        *,
        private: bool = False,
        token: str | None = None,
        revision: str | None = None,
        message: str = MESSAGE,
    ) -> str:
        """Publish the adapter that this was loaded from on the Hub; see `ptune.adapter.push.push`.

        Raises:
            ConfigError: it was not loaded from an adapter. HubError: no permission, no network, not a name.
        """
        if self.folder is None:
            raise ConfigError("this classifier has no files to push; load the adapter's folder with ptune.load")
        return push(self.folder, repository, private=private, token=token, revision=revision, message=message)

    def _columns(self, names: list[str], text: str | None, text_pair: str | None, where: str) -> Columns:
        """Those asked for, else those of the training data if they are there, else a guess."""
        text, text_pair = as_trained(names, text, text_pair, self.task.columns)
        where = f"data file '{where}'"
        columns = choose_columns(names, text, text_pair, None, where=where, need_label=False)
        check_pairs(columns.text_pair is not None, self.task.columns, f"{where}, {columns}: ")
        trained = {"text": columns.text, "text_pair": columns.text_pair}
        if any(self.task.columns.get(kind) not in (None, name) for kind, name in trained.items()):
            logger.info("columns: %s; in training they were others", columns)
        return columns


def load(
    adapter: str | Path | AdapterFile,
    backbone: str | Backbone | None = None,
    *,
    device: str = "auto",
    dtype: str = "auto",
    precision: Precision | None = None,
) -> TextClassifier:
    """Load an adapter, ptune's or PEFT's, and put it on its backbone.

    Args:
        adapter: its folder, or a Hub id: `owner/name` or `owner/name@revision`.
        backbone: a name (see `load_backbone`) or a loaded one; None: what the adapter notes.
        precision: lets OpenVINO compute the backbone on the CPU, see `ptune.backends.openvino.backbone`.

    Raises:
        AdapterError: damaged, for another backbone, or it does not say for which.
        ConfigError: a precision without OpenVINO, or together with another device or number type.
    """
    file = adapter if isinstance(adapter, AdapterFile) else read_adapter(adapter)
    note = file.record.backbone
    if backbone is None:
        if not note.name:
            raise AdapterError(
                f"adapter '{file.folder}' does not say for which backbone it is; name it with `backbone`"
            )
        backbone = note.name
    if isinstance(backbone, str):
        revision = note.revision if backbone == note.name else None
        backbone = load_backbone(backbone, revision, dtype, "cpu" if precision and device == "auto" else device)
    if precision is not None:
        backbone = CompiledBackbone(backbone, precision)
    model = build_classifier(file, backbone)
    # PEFT knows no separator: its files get none, so that they answer as in PEFT.
    return TextClassifier.around(
        model, file.record.max_length, file.record.pair_separator, file.record.task, file.folder
    )
