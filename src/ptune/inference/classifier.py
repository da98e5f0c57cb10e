"""Classify texts with a trained model. `load` makes a classifier from an adapter."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ptune.adapter.build import build_classifier
from ptune.adapter.card import CARD_FILE
from ptune.adapter.export import copy_adapter
from ptune.adapter.folder import AdapterFile, read_adapter, save_adapter
from ptune.adapter.layout import WEIGHTS_FILE, Record, TaskInfo
from ptune.adapter.peft_task import with_task
from ptune.adapter.push import push
from ptune.adapter.reading import sha256
from ptune.adapter.target import check_target
from ptune.backends.openvino.backbone import compiled, named_backbone
from ptune.data.columns import Columns, as_trained, check_pairs, choose_columns, kept_names
from ptune.data.encode import Encoded, TextEncoder, pair_separator_for, warn_of_cuts
from ptune.data.files import DataFile, as_file
from ptune.data.objects import as_texts
from ptune.data.readers import Row, read_columns
from ptune.data.splits import Split
from ptune.data.targets import MULTI, REGRESSION, ProblemType
from ptune.data.texts import unzip
from ptune.errors import AdapterError, ConfigError
from ptune.hub import MESSAGE
from ptune.inference.answers import PREDICTION_KEYS, Prediction, answers, probabilities
from ptune.inference.engine import OnRows, run_logits, run_model
from ptune.inference.file_rows import FileRows, OnEmpty
from ptune.model.backbone import Backbone
from ptune.model.config import Precision
from ptune.model.ensemble import Model
from ptune.model.quantize import CHOICES
from ptune.model.room import text_room
from ptune.model.tokenizer import tokenizer_of
from ptune.places import Place, as_place

if TYPE_CHECKING:
    from transformers import TextClassificationPipeline

    from ptune.inference.pipeline import PipelineModel, PipelineTokenizer

logger = logging.getLogger(__name__)

# Rows that `stream` reads ahead: enough to be worth sorting by length, few enough for any memory.
WINDOW = 1024


@dataclass(frozen=True, eq=False)
class TextClassifier:
    """A trained model together with the tokenization that its texts need.

    It is immutable, so threads may share it.

    Attributes:
        model: one prompt with its head, or an ensemble of several.
        encoder: turns texts into token ids.
        pad_id: id of the padding token; padding is masked.
        task: what is known about the task besides the weights, such as columns of the training data and temperature.
        folder: the adapter's folder; None if the model was not loaded from files.
        weights_sha256: hash of the folder's weights when they were loaded or saved. The files may change later.
    """

    model: Model
    encoder: TextEncoder
    pad_id: int
    task: TaskInfo = field(default_factory=TaskInfo)
    folder: Path | None = None
    weights_sha256: str | None = None

    @classmethod
    def around(
        cls,
        model: Model,
        max_length: int | None = None,
        separator: str | None = None,
        task: TaskInfo | None = None,
        folder: Path | None = None,
    ) -> TextClassifier:
        """Make a classifier from a model, with the tokenizer of the model's backbone.

        Args:
            model: one prompt with its head, or an ensemble.
            max_length: length in tokens that texts are cut to. Default and maximum: what the backbone holds in
                addition to the prompt.
            separator: text in front of the second text of a pair. Default: what suits the tokenizer.
            task, folder: see the class.

        Raises:
            ConfigError: `max_length` is more than the backbone holds, or too small for the template.
        """
        tokenizer = tokenizer_of(model.backbone)
        room = text_room(model.config, model.backbone, tokenizer.model_max_length)
        if max_length is not None and not 3 <= max_length <= room:
            taken = model.config.positions_taken
            virtual = f" in addition to {taken} virtual tokens" if taken else ""
            raise ConfigError(
                f"`max_length={max_length}` does not fit: backbone '{model.backbone.name}' takes from 3 to {room} "
                f"tokens{virtual}",
                field="max_length",
                value=max_length,
                expected=f"from 3 to {room}",
            )
        if separator is None:
            separator = pair_separator_for(tokenizer)
        encoder = TextEncoder(tokenizer, max_length or room, separator, model.config.template)
        return cls(model, encoder, int(tokenizer.pad_token_id), task or TaskInfo(), folder)

    def saved(self, folder: Path, task: TaskInfo) -> TextClassifier:
        """Return a copy of this classifier that knows its folder, and what was fitted after training."""
        return replace(self, task=task, folder=folder, weights_sha256=sha256(folder / WEIGHTS_FILE))

    def with_threshold(self, threshold: float | Mapping[str, float]) -> TextClassifier:
        """Return a copy of this classifier in which labels apply above another probability.

        Args:
            threshold: between 0 and 1, for all labels, or a threshold for some labels by name. The other labels keep
                theirs. With a threshold for all labels, a text may get no label.

        Raises:
            ConfigError: the task is not multi-label, a label is unknown, or a threshold is not between 0 and 1.
        """
        if self.model.problem_type != MULTI:
            raise ConfigError(
                "`threshold` is for several labels per row, but this adapter gives one answer; leave it out"
            )
        decision = self.task.decision.with_threshold(threshold, self.labels)
        return replace(self, task=replace(self.task, decision=decision))

    @property
    def labels(self) -> list[str]:
        """Label names in index order."""
        return self.model.labels

    @property
    def temperature(self) -> float:
        """Divisor of the logits before the softmax."""
        return self.task.temperature

    def encode(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> list[Encoded]:
        """Return the token ids of texts, or of pairs if `pairs` has the second text of each row.

        Raises:
            DataError: single texts are given but the adapter was trained on pairs, or the other way round.
        """
        check_pairs(pairs is not None, self.task.columns)
        return self.encoder.encode(texts, pairs)

    def logits(
        self,
        texts: Sequence[str],
        pairs: Sequence[str] | None = None,
        batch_size: int | None = None,
        on_rows: OnRows | None = None,
    ) -> Tensor:
        """Return the logits [N, C] of texts, in their order. Logs how many texts were cut.

        Arguments and errors are those of `encode`. Default `batch_size`: as many rows as suit the device. `on_rows` is
        called with the number of rows that are done.
        """
        encoded = self.encode(texts, pairs)
        logits = run_logits(self.model, encoded, self.pad_id, batch_size, on_rows)
        warn_of_cuts(sum(row.cut for row in encoded), len(encoded), self.encoder.max_length)
        return logits

    def split_logits(self, split: Split, batch_size: int | None = None, on_rows: OnRows | None = None) -> Tensor:
        """Return the logits [N, C] of a split's rows, see `logits`."""
        return self.logits(split.texts, split.pairs, batch_size, on_rows)

    def predict(self, texts: Any, batch_size: int | None = None) -> list[Prediction]:
        """Return one prediction per text or (text, pair); see `ptune.inference.answers.Prediction` for the keys.

        Args:
            texts: a text, a pair, a list, array or Series of them, or a table such as a DataFrame, a Dataset or a list
                of dicts, of which the columns are read that the adapter was trained on.
            batch_size: rows per forward pass. Default: as many as suit the device.

        Raises:
            DataError: a text is not a string, single texts and pairs are mixed, or the adapter was trained on the
                other kind.
            DataError: `texts` is something that holds no texts, or a table without a column of texts.
        """
        return list(self.stream(texts, batch_size))

    def predict_proba(self, texts: Any, batch_size: int | None = None) -> Tensor:
        """Return the probabilities [N, C] of texts, float64, columns in the order of `labels`.

        `texts` is what `predict` takes. In a multi-label task each probability is independent of the others; otherwise
        each row sums to 1.

        Raises:
            ConfigError: the task is a regression, which has no probabilities.
            DataError: see `predict`.
        """
        if self.model.problem_type == REGRESSION:
            raise ConfigError("a regression gives a number and no probabilities; call predict instead")
        first, second = unzip(list(as_texts(texts, self.choose_columns)))
        logits = self.logits(first, second, batch_size)
        return probabilities(logits.double(), self.model.problem_type, self.temperature)

    def as_transformers(self) -> tuple[PipelineModel, PipelineTokenizer]:
        """Return model and tokenizer for `transformers.pipeline("text-classification", model=..., tokenizer=...)`."""
        from ptune.inference.pipeline import PipelineModel, PipelineTokenizer

        model = PipelineModel(self.model, self.temperature, save=self.save)
        return model, PipelineTokenizer(self.encoder, self.pad_id, self.task.columns)

    def pipeline(self, **options: Any) -> TextClassificationPipeline:
        """Return a transformers pipeline with this classifier, on its present device.

        Args:
            options: passed to `transformers.pipeline`, e.g. batch_size or top_k.
        """
        from transformers import pipeline

        from ptune.inference.pipeline import ClassifierPipeline

        model, tokenizer = self.as_transformers()
        options = {"device": model.device, "pipeline_class": ClassifierPipeline, **options}
        return pipeline("text-classification", model=model, tokenizer=tokenizer, **options)

    def stream(self, texts: Any, batch_size: int | None = None) -> Iterator[Prediction]:
        """Yield predictions for any number of texts, in their order. At most WINDOW texts are read ahead.

        `texts` is what `predict` takes, or any other iterable of texts, such as a generator.
        """
        iterator, seen, cut = iter(as_texts(texts, self.choose_columns)), 0, 0
        most_tokens: int | None = None
        while window := list(islice(iterator, WINDOW)):
            encoded = self.encode(*unzip(window, seen))
            seen, cut = seen + len(window), cut + sum(row.cut for row in encoded)
            logits, most_tokens = run_model(self.model, encoded, self.pad_id, batch_size, most_tokens)
            yield from self.answers(logits)
        warn_of_cuts(cut, seen, self.encoder.max_length)

    def answers(self, logits: Tensor) -> Iterator[Prediction]:
        """Yield one prediction for each row of logits [N, C]."""
        return answers(logits, self.labels, self.model.problem_type, self.temperature, self.task.decision)

    def stream_file(
        self,
        path: str | Path | DataFile,
        text: str | None = None,
        text_pair: str | None = None,
        batch_size: int | None = None,
        on_empty: OnEmpty = "null",
        rows: Iterable[Row] | None = None,
        before: int = 0,
    ) -> Iterator[dict[str, Any]]:
        """Yield the rows of a data file with their predictions, in the file's order.

        The file's columns are kept. A column with the name of a prediction's key becomes `input_<name>`.

        Args:
            path: a file, a URL that fsspec knows, or "-" for standard input.
            text, text_pair: columns of the texts. Default: as in training, or guessed.
            on_empty: what becomes of rows without text: `null` gives None for everything that is predicted, `skip`
                leaves them out, and `error` stops at the first. Their number is logged as a warning.
            rows: some of the file's rows, which are predicted in place of all.
            before: number of rows in front of these.

        Raises:
            DataError: there is no such column, or a value is not text; the message names the row.
            ConfigError: `on_empty` is unknown.
        """

        def choose(names: list[str], where: str) -> Columns:
            return self.choose_columns(names, where, text, text_pair)

        keys = PREDICTION_KEYS[self.model.problem_type]
        file_rows = FileRows(as_file(path), choose, keys, on_empty, rows, before)
        return file_rows.answered(self.stream(file_rows.texts(), batch_size))

    def blank_row(self, path: str | Path | DataFile) -> Row:
        """Return a placeholder row with the columns that `stream_file` gives, for files without rows."""
        (prediction,) = answers(torch.zeros(1, len(self.labels)), self.labels, self.model.problem_type)
        return {**dict.fromkeys(kept_names(read_columns(path), prediction).values()), **prediction}

    def save(self, folder: str | Place) -> None:
        """Write this classifier as an adapter, which `ptune.load` and the commands read.

        The folder may be a URL, such as s3://bucket/reviews.

        The files of a classifier that was loaded from an adapter are copied. What the Trainer of transformers saved
        becomes an adapter.

        Raises:
            ConfigError: the folder holds a model, or is inside the backbone's.
            OutputError: the folder cannot be written. An older adapter in it is left intact.
        """
        target = as_place(folder)
        check_target(target, backbone=self.model.backbone.location)
        file = self._file()
        if file is not None:
            copy_adapter(file, target)
            return
        lengths = {"max_length": self.encoder.max_length, "pair_separator": self.encoder.pair_separator}
        save_adapter(target, self.model, Record.of(self.model, self.task, **lengths))  # type: ignore[arg-type]

    def _file(self) -> AdapterFile | None:
        """Return the adapter in the folder if it would be loaded as this classifier, otherwise None."""
        if self.folder is None:
            return None
        try:
            file = read_adapter(self.folder)
        except AdapterError:  # it is gone, or no longer what was loaded
            return None
        if file.facts is not None or self.weights_sha256 != file.weights_sha256:
            return None
        record = with_task(file, self.model.backbone).record
        same_outputs = (record.labels or self.labels, record.problem_type) == (self.labels, self.model.problem_type)
        return file if same_outputs and record.task == self.task else None

    def push_to_hub(
        self,
        repository: str,
        *,
        private: bool = False,
        token: str | None = None,
        revision: str | None = None,
        message: str = MESSAGE,
    ) -> str:
        """Publish this classifier's adapter on the Hub; see `ptune.adapter.push.push`.

        The folder that it was loaded from is published if it still holds this classifier. Otherwise, as with another
        threshold, what `save` would write is published, with the folder's model card if there is one.

        Raises:
            ConfigError: token or message are not valid.
            HubError: the Hub refuses the push or cannot be reached.
        """
        options: dict[str, Any] = {"private": private, "token": token, "revision": revision, "message": message}
        if self._file() is not None:
            return push(str(self.folder), repository, **options)
        with TemporaryDirectory(prefix="ptune-") as scratch:
            folder = Path(scratch) / "adapter"
            self.save(str(folder))
            if self.folder is not None and (self.folder / CARD_FILE).is_file():
                shutil.copyfile(self.folder / CARD_FILE, folder / CARD_FILE)
            return push(folder, repository, **options)

    def choose_columns(
        self, names: list[str], where: str, text: str | None = None, text_pair: str | None = None
    ) -> Columns:
        """Return the columns of texts: those asked for, or those of the training data if they are there, or a guess.

        Args:
            names: all columns.
            where: what the data are called, for error messages.
            text, text_pair: the columns that the caller names.

        Raises:
            DataError: there is no such column, or they hold pairs for an adapter of single texts, or the reverse.
        """
        text, text_pair = as_trained(names, text, text_pair, self.task.columns)
        columns = choose_columns(names, text, text_pair, None, where=where, need_label=False)
        check_pairs(columns.text_pair is not None, self.task.columns, f"{where}, {columns}: ")
        chosen = {"text": columns.text, "text_pair": columns.text_pair}
        if any(self.task.columns.get(field) not in (None, name) for field, name in chosen.items()):
            logger.info("columns: %s; training used others", columns)
        return columns


def load(
    adapter: str | Path | AdapterFile,
    backbone: str | Backbone | None = None,
    *,
    device: str = "auto",
    dtype: str = "auto",
    precision: Precision | None = None,
    quantize: str | None = None,
    device_map: str | None = None,
    labels: Sequence[str] | None = None,
    problem_type: ProblemType | None = None,
) -> TextClassifier:
    """Load an adapter of ptune or PEFT, together with its backbone.

    Adapters that are loaded from the same backbone's files share one backbone, one tokenizer and, with `precision`, one
    compiled graph. Each is freed when the last classifier that uses it goes.

    Args:
        adapter: the adapter's folder, or a Hub id: `owner/name` or `owner/name@revision`.
        backbone: a name (see `load_backbone`) or a loaded backbone. None: the one that the adapter names.
        device, dtype, quantize, device_map: see `load_backbone`.
        precision: run the backbone on the CPU with OpenVINO, see `ptune.backends.openvino.backbone`. None: use PyTorch.
        labels, problem_type: names of the labels in index order, and what the outputs mean, for adapters of PEFT, which
            do not record them. None: as the backbone's configuration says. Adapters whose labels are LABEL_0, LABEL_1,
            ... take names too.

    Raises:
        AdapterError: the adapter is damaged, is for another backbone, or names no backbone and none was given.
        BackboneError: the backbone cannot be loaded.
        ConfigError: `precision` was given without OpenVINO being installed, or with an unsuitable `device` or `dtype`.
        ConfigError: `labels` or `problem_type` does not suit the adapter, or the adapter records its own.
    """
    file = adapter if isinstance(adapter, AdapterFile) else read_adapter(adapter)
    file = with_task(file, backbone, labels, problem_type)
    note = file.record.backbone
    if backbone is None:
        if not note.name:
            raise AdapterError(
                f"adapter '{file.folder}' does not say which backbone it was trained on; give it with `backbone`"
            )
        backbone = note.name
    if isinstance(backbone, str):
        revision = note.revision if backbone == note.name else None
        backbone = named_backbone(backbone, revision, dtype, device, precision, quantize, device_map)
        _say_quantized(file, backbone)
    elif precision is not None:
        backbone = compiled(backbone, precision)
    model = build_classifier(file, backbone)
    # PEFT's adapters have an empty separator, as PEFT itself puts none between the texts of a pair.
    classifier = TextClassifier.around(
        model, file.record.max_length, file.record.pair_separator, file.record.task, file.folder
    )
    return classifier if file.facts else replace(classifier, weights_sha256=file.weights_sha256)


def _say_quantized(file: AdapterFile, backbone: Backbone) -> None:
    """Log if an adapter was trained on rounded weights, and they are not rounded so now."""
    trained = file.record.training.get("quantize")
    if trained in CHOICES and trained != backbone.quantize:
        logger.warning(
            "adapter '%s' was trained on weights in %s, and the backbone is loaded in %s, so answers differ a little; "
            "`quantize='%s'` loads it as in training",
            file.folder,
            trained,
            backbone.dtype_name,
            trained,
        )
