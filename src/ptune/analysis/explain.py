"""Explain an answer: which words moved the decision."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from ptune.analysis.gradients import Output, integrated_gradients
from ptune.data.targets import MULTI, REGRESSION
from ptune.data.texts import Text, unzip
from ptune.data.words import token_words, words_of
from ptune.errors import ConfigError, unknown_choice
from ptune.inference.answers import Prediction
from ptune.inference.classifier import TextClassifier

Method = Literal["gradients", "leave-out"]


@dataclass(frozen=True)
class ExplainedWord:
    """A word and what it does.

    Attributes:
        text: the word.
        part: 0 for the text, 1 for the second text of a pair.
        start, end: where it is in its text.
        score: how much it speaks for the explained label (above 0) or against it; see `Explanation`.
    """

    text: str
    part: int
    start: int
    end: int
    score: float


@dataclass(frozen=True)
class Explanation:
    """Which words moved a decision.

    Attributes:
        texts: the text, or both texts of a pair.
        prediction: the answer, as `TextClassifier.predict` gives it.
        label: the explained label; in a regression the name of the number.
        method: gradients or leave-out.
        value: the explained output: the log-odds of the label, or the number of a regression.
        baseline: the same for a row whose words are all replaced by padding; None for leave-out.
        words: all words in their order. With gradients, their scores add up to value - baseline; with leave-out, a
            score is how much smaller the output is without the word.
        gap: how much the sum of the scores misses value - baseline; None for leave-out.
        cut: whether the end of the text was not read.
    """

    texts: tuple[str, ...]
    prediction: Prediction
    label: str
    method: Method
    value: float
    baseline: float | None
    words: list[ExplainedWord]
    gap: float | None
    cut: bool

    def ranked(self) -> list[ExplainedWord]:
        """Return the words, those that speak most for the label first."""
        return sorted(self.words, key=lambda word: -word.score)

    def to_dict(self) -> dict[str, Any]:
        """Return everything in types of JSON."""
        return asdict(self)


def explain(
    classifier: TextClassifier, text: Text, *, label: str | None = None, method: Method = "gradients"
) -> Explanation:
    """Say which words of a text moved the decision of a classifier.

    Args:
        classifier: from `ptune.load`.
        text: a text, or a pair (text, text_pair).
        label: the label to explain. Default: the predicted one; of several labels per row the most probable one.
        method: `gradients` are integrated gradients at the word embeddings. `leave-out` classifies the text again
            without each of its words; it needs no gradients, and one forward pass for each word.

    Raises:
        ConfigError: label or method is unknown, or the backbone has no gradients.
        DataError: the text is none, or the classifier was trained on pairs and this is a single text, or the reverse.
    """
    if method not in get_args(Method):
        raise unknown_choice("method", method, get_args(Method))
    first, second = unzip([text])
    texts = (first[0],) if second is None else (first[0], second[0])
    (prediction,) = classifier.predict([text])
    label = _label(classifier, prediction, label)
    output = _output(classifier, label)
    words = words_of(texts)
    (row,) = classifier.encode(first, second)
    baseline = gap = None
    if method == "gradients":
        owners = token_words(classifier.encoder, texts, row, words)
        neutral = classifier.pad_id
        found = integrated_gradients(classifier.model, row, [owner is not None for owner in owners], neutral, output)
        scores = [0.0] * len(words)
        for owner, value in zip(owners, found.tokens.tolist(), strict=True):
            if owner is not None:
                scores[owner] += value
        value, baseline, gap = found.value, found.baseline, found.gap
    else:
        shorter = [_without(texts, word.part, word.start, word.end) for word in words]
        rows = [texts, *shorter]
        pairs = [row[1] for row in rows] if len(texts) > 1 else None
        outputs = output(classifier.logits([row[0] for row in rows], pairs)).tolist()
        value, scores = outputs[0], [outputs[0] - other for other in outputs[1:]]
    return Explanation(
        texts,
        prediction,
        label,
        method,
        value,
        baseline,
        [
            ExplainedWord(texts[word.part][word.start : word.end], word.part, word.start, word.end, score)
            for word, score in zip(words, scores, strict=True)
        ],
        gap,
        row.cut,
    )


def _label(classifier: TextClassifier, prediction: Prediction, label: str | None) -> str:
    if classifier.model.problem_type == REGRESSION:
        if label not in (None, classifier.labels[0]):
            raise ConfigError("`label` is for classes, but this adapter gives a number; leave it out", field="label")
        return classifier.labels[0]
    if label is None:
        return max(prediction["scores"], key=prediction["scores"].get)
    if label not in classifier.labels:
        raise unknown_choice("label", label, classifier.labels)
    return label


def _output(classifier: TextClassifier, label: str) -> Output:
    """Return the function from logits [B, C] to what is explained [B]: log-odds of the label, or a number."""
    place, temperature = classifier.labels.index(label), classifier.temperature
    problem_type = classifier.model.problem_type

    def output(logits: Tensor) -> Tensor:
        if problem_type in (REGRESSION, MULTI):
            return logits[:, place]
        others = [other for other in range(logits.shape[1]) if other != place]
        scaled = logits / temperature
        return scaled[:, place] - torch.logsumexp(scaled[:, others], dim=1)

    return output


def _without(texts: tuple[str, ...], part: int, start: int, end: int) -> tuple[str, ...]:
    """Return the texts without a word, and without the blank in front of it."""
    before, after = texts[part][:start], texts[part][end:]
    shorter = before.rstrip() + after if after[:1].isspace() or not after else before + after
    return tuple(shorter if number == part else text for number, text in enumerate(texts))
