"""Compare an exported model with the classifier that it was made from.

The texts are made of words of the tokenizer's vocabulary, drawn at random. They go through the exported tokenizer and
the exported model, as README.md does it, in batches of several sizes whose rows differ in length.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ptune.data.targets import MULTI, REGRESSION
from ptune.errors import BackboneError
from ptune.export.task import Task
from ptune.export.tokenizer import encode, plain_tokenizer
from ptune.inference.classifier import TextClassifier
from ptune.inference.engine import run_logits

Run = Callable[[Mapping[str, np.ndarray]], np.ndarray]
# Largest difference of a logit; where logits are above 1, in relation to the largest of them.
TOLERANCE = 1e-4
BATCHES = (1, 2, 5, 16, 24)  # rows of each batch
LENGTHS = (1, 40, 3, 90, 8, 0, 200, 20)  # words of each text, over and over
_LONGEST = 600  # tokens of the text that is too long for the classifier, at most


@dataclass(frozen=True)
class Check:
    """How an exported model compares with the original.

    Attributes:
        texts: number of texts, or pairs.
        difference: the largest difference of a logit; of a regression, of a value.
        agreeing: number of texts with the same answer; None for a regression.
    """

    texts: int
    difference: float
    agreeing: int | None

    def sentence(self, int8: bool) -> str:
        """Return what the check says, in words.

        Args:
            int8: whether the model has weights of 8 bits, so that its answers may differ.
        """
        what = "values" if self.agreeing is None else "logits"
        largest = f"the largest difference of {what} is {self.difference:.2g}"
        texts = f"{self.texts} texts of random words"
        if int8 and self.agreeing is not None:
            return f"for {self.agreeing} of {texts} the answer is that of the original; {largest}"
        return f"on {texts}, {largest}"


def check_model(classifier: TextClassifier, task: Task, folder: Path, run: Run) -> Check:
    """Compare the files of a folder with a classifier.

    Args:
        classifier: the original, in float32.
        task: what was exported.
        folder: holds the tokenizer.
        run: the exported model as a function of its inputs.

    Raises:
        BackboneError: the logits of a model in float32 differ by more than TOLERANCE.
    """
    rows = made_up_rows(classifier, task)
    first, second = [row[0] for row in rows], [row[1] for row in rows] if task.paired else None
    encoded = classifier.encoder.encode(first, second)
    expected = run_logits(classifier.model, encoded, classifier.pad_id) / task.temperature
    tokenizer = plain_tokenizer(folder)
    written = prepared(classifier, task, first, second)
    borders = [0]
    while borders[-1] < len(rows):
        borders.append(borders[-1] + BATCHES[min(len(borders), len(BATCHES)) - 1])
    batches = [encode(tokenizer, written[start:end], task.input_names) for start, end in pairwise(borders)]
    given = torch.cat([torch.from_numpy(np.array(run(batch))) for batch in batches]).float()
    difference = (given - expected).abs()
    if not task.int8 and not difference.max() <= TOLERANCE * max(1.0, float(expected.abs().max())):
        raise BackboneError(
            f"the model exported to {task.to} disagrees with the adapter: logits differ by up to "
            f"{float(difference.max()):.2g} (allowed: {TOLERANCE:g}), so nothing was written; export to another "
            "format, or use `ptune serve`",
            field="to",
            value=task.to,
        )
    return Check(len(rows), float(difference.max()), _agreeing(classifier, given, expected))


def prepared(classifier: TextClassifier, task: Task, texts: Sequence[str], pairs: Sequence[str] | None) -> list[Any]:
    """Return rows as the exported tokenizer is given them: texts or (text, text_pair)."""
    if task.template is not None:
        seconds: Sequence[str | None] = pairs if pairs is not None else [None] * len(texts)
        return [classifier.encoder.written(text, pair)[0] for text, pair in zip(texts, seconds, strict=True)]
    if pairs is not None:
        return [(text, task.pair_separator + pair) for text, pair in zip(texts, pairs, strict=True)]
    return [text or task.blank for text in texts]


def made_up_rows(classifier: TextClassifier, task: Task) -> list[tuple[str, str]]:
    """Return two texts for each row, made of random words. One row is too long for the classifier."""
    tokenizer = classifier.encoder.tokenizer
    draw = random.Random(0)
    ids = sorted(set(range(len(tokenizer))) - set(tokenizer.all_special_ids))

    def text(words: int) -> str:
        return str(tokenizer.decode(draw.choices(ids, k=words)))

    lengths = [min(LENGTHS[number % len(LENGTHS)], task.max_length) for number in range(sum(BATCHES))]
    lengths[1] = min(task.max_length + 10, _LONGEST)
    return [(text(words), text(lengths[-number])) for number, words in enumerate(lengths)]


def _agreeing(classifier: TextClassifier, given: Tensor, expected: Tensor) -> int | None:
    """Return for how many rows two sets of logits [N, C] give the same answer; None for a regression."""
    if classifier.model.problem_type == REGRESSION:
        return None
    if classifier.model.problem_type == MULTI:
        decision = classifier.task.decision
        return int((decision.applies(given) == decision.applies(expected)).all(dim=1).sum())
    return int((given.argmax(dim=1) == expected.argmax(dim=1)).sum())
