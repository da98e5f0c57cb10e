"""Texts in, labelled probabilities out; of a regression, numbers.

`TextClassifier` is a trained model with its tokenizer: what an adapter becomes
when it is loaded. `run_member_logits` is the one loop that evaluation, prediction
and training's validation share.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ptune.adapter.files import AdapterFile, build_classifier, read_adapter
from ptune.adapter.hub import push
from ptune.data.batch import Packed, collate, filled_batches, ordered_batches, pack
from ptune.data.columns import Columns, as_trained, check_pairs, choose_columns, kept_names, text_of, whole_characters
from ptune.data.encode import Encoded, TextEncoder, pair_separator_for
from ptune.data.files import Row, read_columns, read_rows
from ptune.data.splits import Origin, Split
from ptune.data.targets import MULTI, REGRESSION, SINGLE, ProblemType
from ptune.errors import AdapterError, ConfigError, DataError
from ptune.hub import MESSAGE
from ptune.metrics import applies
from ptune.model.backbone import UNLIMITED, Backbone
from ptune.model.config import Precision
from ptune.model.ensemble import Model, PromptEnsemble, combine
from ptune.model.loading import load_backbone
from ptune.model.memory import memory_errors, ways_out
from ptune.model.openvino import CompiledBackbone
from ptune.model.tokenizer import load_tokenizer

if TYPE_CHECKING:
    from transformers import TextClassificationPipeline

    from ptune.pipeline import PipelineModel, PipelineTokenizer

logger = logging.getLogger(__name__)

# Tokens of a forward pass, padding included: what fits in a processor's cache, or keeps a GPU busy.
CPU_TOKENS, GPU_TOKENS = 1536, 16_384
# Rows that a stream is read ahead by: enough to sort by length within, few enough for any memory.
WINDOW = 1024

_OPTIONS = ("--text-column", "--text-pair-column", "--label")  # of `ptune predict`, for messages

Text = str | tuple[str, str]
# {"label": str, "score": float, "scores": {label: probability}}; where several labels may apply,
# {"labels": [str], "scores": {label: probability}}; of a regression {"value": float}
Prediction = dict[str, Any]
PREDICTION_KEYS: dict[ProblemType, tuple[str, ...]] = {
    SINGLE: ("label", "score", "scores"),
    MULTI: ("labels", "scores"),
    REGRESSION: ("value",),
}


def run_logits(model: Model, encoded: Sequence[Encoded], pad_id: int, batch_size: int | None = None) -> Tensor:
    """Logits [N, C] of encoded rows, on the CPU, in the rows' order; an ensemble's members are combined."""
    ensemble = model if isinstance(model, PromptEnsemble) else PromptEnsemble([model])
    return combine(run_member_logits(ensemble, encoded, pad_id, batch_size), ensemble.problem_type)


@torch.no_grad()
def run_member_logits(
    ensemble: PromptEnsemble, encoded: Sequence[Encoded], pad_id: int, batch_size: int | None = None
) -> Tensor:
    """Logits [M, N, C] of every member, on the CPU, in the rows' order.

    batch_size: rows of a forward pass; None: as many as suit the device, and fewer where it has no memory for those.

    Raises:
        ConfigError: the GPU has no memory for so many rows, or for a single one.
    """
    members, backbone = len(ensemble.members), ensemble.backbone
    if not encoded:
        return torch.empty(members, 0, len(ensemble.labels))
    ensemble.eval()
    packed, lengths = pack(encoded), [len(row) for row in encoded]
    before = backbone.most_tokens
    while True:
        tokens = backbone.most_tokens or (CPU_TOKENS if backbone.device.type == "cpu" else GPU_TOKENS)
        batches = (
            ordered_batches(lengths, batch_size) if batch_size else filled_batches(lengths, max(1, tokens // members))
        )
        try:
            return _batch_logits(ensemble, packed, batches, pad_id)
        except _NoMemoryError as error:
            rows, longest = len(error.rows), max(lengths[row] for row in error.rows)
        if batch_size or rows == 1:
            backbone.most_tokens = before  # of rows that fit
            what, less = f"a batch of {rows} rows", "a smaller --batch-size"
            if rows == 1:
                what, less = f"a row of {longest} tokens", "a smaller --max-length in training"
                what += f" under {members} prompts at once" if members > 1 else ""
            raise ConfigError(
                f"{backbone.device} has no memory for {what}; {ways_out(backbone.device, less, '--dtype bfloat16')}"
            )
        backbone.most_tokens = members * rows * longest // 2  # less than before: a batch of several rows kept to that
        if backbone.device.type == "cuda":
            torch.cuda.empty_cache()


class _NoMemoryError(Exception):
    """The device has no memory for these rows at once."""

    def __init__(self, rows: Sequence[int]) -> None:
        super().__init__()
        self.rows = rows


def _batch_logits(ensemble: PromptEnsemble, packed: Packed, batches: Sequence[Sequence[int]], pad_id: int) -> Tensor:
    """Logits [M, N, C] of rows in batches, in the rows' order, on the CPU.

    Raises:
        _NoMemoryError: with the rows of the batch that was under way.
    """
    backbone = ensemble.backbone
    answered: list[Tensor] = []
    under_way: deque[Callable[[], Tensor]] = deque()
    rows = batches[0]
    try:
        with memory_errors():
            prompt = ensemble.prompt().contiguous()
            for rows in batches:
                if len(under_way) == backbone.under_way:
                    answered.append(under_way.popleft()().float())
                batch = collate(packed, None, rows, pad_id, backbone.length_step).to(backbone.device)
                under_way.append(ensemble.start_logits(prompt, **batch.inputs))  # type: ignore[arg-type]
            answered += [wait().float() for wait in under_way]
            found = torch.cat(answered, dim=1).cpu()  # one wait for a GPU
    except torch.OutOfMemoryError:
        raise _NoMemoryError(rows) from None
    logits = torch.empty_like(found)
    logits[:, [row for rows in batches for row in rows]] = found
    return logits


class TextClassifier:
    """A model with the encoder of its texts."""

    def __init__(self, model: Model, encoder: TextEncoder, pad_id: int) -> None:
        self.model = model
        self.encoder = encoder
        self.pad_id = pad_id
        self.folder: Path | None = None  # of the adapter's files, where there are any
        self.origin: Origin | None = None  # of the training data, where it is known
        self.columns: dict[str, str | None] = {}  # of the training data, where they are known
        self.label_separator: str | None = None  # of the training data, where it had one
        self.temperature = 1.0  # what logits are divided by before probabilities are taken

    @classmethod
    def around(cls, model: Model, max_length: int | None = None, separator: str | None = None) -> TextClassifier:
        """Give a model its tokenizer.

        Args:
            max_length: tokens to cut texts to; at most, and by default, the backbone's positions, less the virtual
                tokens where they are counted (`PromptConfig.positions_taken`).
            separator: in front of the second text of a pair; None: what suits the tokenizer.

        Raises:
            ConfigError: max_length is more than the backbone holds, or the template does not fit in it.
        """
        tokenizer = load_tokenizer(model.backbone.location)
        room = _room(model, tokenizer.model_max_length)
        if max_length is not None and not 3 <= max_length <= room:
            taken = model.config.positions_taken
            beside = f" beside {taken} virtual ones" if taken else ""
            raise ConfigError(
                f"max_length {max_length} does not fit: backbone '{model.backbone.name}' takes from 3 to {room} tokens"
                f"{beside}"
            )
        if separator is None:
            separator = pair_separator_for(tokenizer)
        encoder = TextEncoder(tokenizer, max_length or room, separator, model.config.template)
        return cls(model, encoder, int(tokenizer.pad_token_id))

    @property
    def labels(self) -> list[str]:
        return self.model.labels

    def logits(self, texts: Sequence[str], pairs: Sequence[str] | None = None, batch_size: int | None = None) -> Tensor:
        """Logits [N, C], in the texts' order.

        Raises:
            DataError: single texts, but the adapter was trained on pairs; or the other way round.
        """
        check_pairs(pairs is not None, self.columns)
        encoded = self.encoder.encode(texts, pairs)
        return run_logits(self.model, encoded, self.pad_id, batch_size)

    def split_logits(self, split: Split, batch_size: int | None = None) -> Tensor:
        """Logits [N, C] of a split's rows."""
        logits = self.logits(split.texts, split.pairs, batch_size)
        self.encoder.warn_of_cuts(len(split))
        return logits

    def predict(self, texts: Text | Sequence[Text], batch_size: int | None = None) -> list[Prediction]:
        """An answer for each text or (text, pair): what of them, says `Prediction`.

        Raises:
            DataError: an empty text; single texts and pairs mixed, or not as in training.
        """
        return list(self.stream(_listed(texts), batch_size))

    def predict_proba(self, texts: Text | Sequence[Text], batch_size: int | None = None) -> Tensor:
        """Probabilities [N, C] in the labels' order, float64; where several labels may apply, each label's own.

        Raises:
            ConfigError: a regression has none. DataError: as of `predict`.
        """
        if self.model.problem_type == REGRESSION:
            raise ConfigError("a regression gives a number and no probabilities; use predict")
        first, second = unzip(_listed(texts), 0)
        logits = self.logits(first, second, batch_size)
        self.encoder.warn_of_cuts(len(first))
        return probabilities(logits.double(), self.model.problem_type, self.temperature)

    def as_transformers(self) -> tuple[PipelineModel, PipelineTokenizer]:
        """Model and tokenizer for `transformers.pipeline("text-classification", model=..., tokenizer=...)`."""
        from ptune.pipeline import PipelineModel, PipelineTokenizer

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
        """Predictions for any number of texts, in their order; reads at most WINDOW ahead."""
        iterator, seen = iter(texts), 0
        while window := list(islice(iterator, WINDOW)):
            first, second = unzip(window, seen)
            seen += len(window)
            yield from answers(
                self.logits(first, second, batch_size), self.labels, self.model.problem_type, self.temperature
            )
        self.encoder.warn_of_cuts(seen)

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
        """Publish the adapter that this was loaded from on the Hub; see `ptune.adapter.hub.push`.

        Raises:
            ConfigError: it was not loaded from an adapter. HubError: no permission, no network, not a name.
        """
        if self.folder is None:
            raise ConfigError("this classifier has no files to push; load the adapter's folder with ptune.load")
        return push(self.folder, repository, private=private, token=token, revision=revision, message=message)

    def _columns(self, names: list[str], text: str | None, text_pair: str | None, where: str) -> Columns:
        """Those asked for, else those of the training data if they are there, else a guess."""
        text, text_pair = as_trained(names, text, text_pair, self.columns)
        where = f"data file '{where}'"
        columns = choose_columns(names, text, text_pair, None, where=where, need_label=False, options=_OPTIONS)
        check_pairs(columns.text_pair is not None, self.columns, f"{where}, {columns}: ", _OPTIONS)
        trained = {"text": columns.text, "text_pair": columns.text_pair}
        if any(self.columns.get(kind) not in (None, name) for kind, name in trained.items()):
            logger.info("columns: %s; in training they were others", columns)
        return columns


def answers(
    logits: Tensor, labels: Sequence[str], problem_type: ProblemType, temperature: float = 1.0
) -> Iterator[Prediction]:
    """Logits [N, C] in words. Those of a single label are divided by the temperature, see `ptune.calibration`."""
    if problem_type == REGRESSION:
        yield from ({"value": value} for value in logits[:, 0].tolist())
    elif problem_type == MULTI:
        for row, given in zip(probabilities(logits, MULTI).tolist(), applies(logits).tolist(), strict=True):
            named = [label for label, applied in zip(labels, given, strict=True) if applied]
            yield {"labels": named, "scores": dict(zip(labels, row, strict=True))}
    else:
        for row in probabilities(logits, SINGLE, temperature).tolist():
            best = max(range(len(row)), key=row.__getitem__)
            yield {"label": labels[best], "score": row[best], "scores": dict(zip(labels, row, strict=True))}


def probabilities(logits: Tensor, problem_type: ProblemType, temperature: float = 1.0) -> Tensor:
    """Logits [N, C] as probabilities; those of a single label are divided by the temperature."""
    return logits.sigmoid() if problem_type == MULTI else (logits / temperature).softmax(dim=1)


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
        precision: compute the backbone by OpenVINO on the CPU, see `ptune.model.openvino`; None: by PyTorch.

    Raises:
        AdapterError: damaged, for another backbone, or it does not say for which.
        ConfigError: a precision without OpenVINO, or together with another device or number type.
    """
    file = adapter if isinstance(adapter, AdapterFile) else read_adapter(adapter)
    note = file.record.backbone
    if backbone is None:
        if not note.name:
            raise AdapterError(
                f"adapter '{file.folder}' does not say for which backbone it is; name it with --backbone"
            )
        backbone = note.name
    if isinstance(backbone, str):
        revision = note.revision if backbone == note.name else None
        backbone = load_backbone(backbone, revision, dtype, "cpu" if precision and device == "auto" else device)
    if precision is not None:
        backbone = CompiledBackbone(backbone, precision)
    model = build_classifier(file, backbone)
    # PEFT knows no separator: its files get none, so that they answer as in PEFT.
    classifier = TextClassifier.around(model, file.record.max_length, file.record.pair_separator)
    classifier.columns, classifier.label_separator = file.record.columns, file.record.label_separator
    classifier.temperature, classifier.origin = file.record.temperature, file.record.data
    classifier.folder = file.folder
    return classifier


def _room(model: Model, tokenizer_limit: int) -> int:
    positions = model.backbone.max_positions
    if positions is None:
        positions = min(tokenizer_limit, UNLIMITED)  # a tokenizer that knows no limit says 1e30
    return positions - model.config.positions_taken


def _listed(texts: Text | Sequence[Text]) -> list[Text]:
    return [texts] if isinstance(texts, (str, tuple)) else list(texts)  # type: ignore[list-item]


def unzip(window: list[Text], seen: int) -> tuple[list[str], list[str] | None]:
    """Texts and pairs apart; `seen` is added to the number that an error names.

    Raises:
        DataError: an empty text; single texts and pairs mixed.
    """
    paired = bool(window) and isinstance(window[0], tuple)
    for number, row in enumerate(window, seen + 1):
        if isinstance(row, tuple) != paired:
            raise DataError(f"text {number}: single texts and pairs do not mix in one call")
        if any(not isinstance(part, str) or not part.strip() for part in (row if paired else [row])):
            raise DataError(f"text {number} is empty or no text: {row!r}")
        if not all(map(whole_characters, row if paired else [row])):  # type: ignore[arg-type]
            raise DataError(f"text {number} holds half a character; is it in another encoding than UTF-8? {row!a}")
    if not paired:
        return list(window), None  # type: ignore[arg-type]
    return [row[0] for row in window], [row[1] for row in window]
