"""Checks that a configuration, its labels and a backbone go together, before anything is made of them."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence

from ptune.data.splits import TextData
from ptune.data.targets import MULTI, REGRESSION, SINGLE, ProblemType
from ptune.errors import ConfigError
from ptune.model.backbone import Backbone
from ptune.model.config import PromptConfig

logger = logging.getLogger(__name__)


def check_labels(labels: Sequence[str], problem_type: ProblemType) -> list[str]:
    if problem_type not in (SINGLE, MULTI, REGRESSION):
        raise ConfigError(f"problem_type '{problem_type}' is not known; use {SINGLE}, {MULTI} or {REGRESSION}")
    if problem_type == REGRESSION and len(labels) != 1:
        raise ConfigError(f"a regression gives one number, but {len(labels)} labels are named; name one")
    if not labels:
        raise ConfigError("there are no labels; name them in index order, such as labels=data.labels")
    label, count = Counter(labels).most_common(1)[0]
    if count > 1:
        raise ConfigError(f"label '{label}' is named twice; every class needs a name of its own")
    return list(labels)


def check_fit(config: PromptConfig, backbone: Backbone) -> None:
    if config.method == "deep" and backbone.family.deep is None:
        raise ConfigError(
            f"method 'deep' does not work with {backbone.family.name} (backbone '{backbone.name}'): its attention "
            "takes no further keys and values; use `method='p-tuning'` or `method='prompt-tuning'`"
        )
    if config.softmax == "separate" and not backbone.family.separates:
        raise ConfigError(
            f"softmax 'separate' does not work with {backbone.family.name} (backbone '{backbone.name}'), whose layers "
            "take a prompt as past keys and values only; use `softmax='shared'`"
        )
    if config.method == "deep" and config.softmax == "shared" and not backbone.family.shares:
        raise ConfigError(
            f"a deep prompt in {backbone.family.name} (backbone '{backbone.name}') has a softmax of its own, so it "
            "does not go with `softmax='shared'`, `pooling='peft'`, `init='text'`, `init='vocabulary'`, `encoder='mlp'` "
            "or `encoder='lstm'`; leave them out, or use `method='p-tuning'` or `method='prompt-tuning'`"
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
            f"{backbone.family.name} backbone, not '{config.pooling}'; leave `pooling` out"
        )
    if config.pooling == "first" and backbone.family.decoder:
        logger.warning(
            "pooling 'first' of a decoder sees nothing of the text but its first token; use `pooling='last'`"
        )
    limit = backbone.max_positions
    if limit is not None and config.positions_taken > limit - 8:
        raise ConfigError(
            f"{config.virtual_tokens} virtual tokens leave no room for text in the {limit} positions of "
            f"backbone '{backbone.name}'; use at most {limit - 8}"
        )


def check_task(problem_type: ProblemType, labels: Sequence[str], data: TextData) -> None:
    """Check that a model answers what the data ask.

    Raises:
        ConfigError: model and data are of different problem types, or name their labels differently.
    """
    if problem_type != data.problem_type:
        raise ConfigError(
            f"data '{data.source}' are {data.problem_type}, but the model was made for {problem_type}; make it "
            "with `problem_type=data.problem_type`, or read the data with another problem_type",
            field="problem_type",
            value=problem_type,
            expected=data.problem_type,
        )
    if problem_type != REGRESSION and labels != data.labels:
        raise ConfigError(
            f"data '{data.source}' have the labels {_shown(data.labels)} in this order, but the model was made for "
            f"{_shown(labels)}; make it with `labels=data.labels`",
            field="labels",
            value=labels,
            expected=", ".join(data.labels),
        )


def _shown(labels: Sequence[str]) -> str:
    """Return the number of labels and the first of them."""
    return f"({len(labels)}) {', '.join(labels[:5])}{', …' if len(labels) > 5 else ''}"
