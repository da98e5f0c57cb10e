"""Check that a configuration, labels, a backbone and data fit together, before a model is built or trained."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from torch import Tensor

from ptune.data.splits import TextData
from ptune.data.targets import LONGEST_LABEL, MULTI, REGRESSION, SINGLE, ProblemType, named_labels
from ptune.errors import ConfigError, DataError, short
from ptune.model.backbone import Backbone
from ptune.model.config import PromptConfig

logger = logging.getLogger(__name__)

IGNORED = -100  # torch leaves rows with this class out of the loss
_LEAST_TEXT = 8  # positions that the virtual tokens must leave for text


def check_labels(labels: Sequence[str], problem_type: ProblemType) -> list[str]:
    """Check the labels of a model and return them as a list.

    Raises:
        ConfigError: the problem type is unknown.
        ConfigError: there are no labels, two labels have the same name, or a regression has more than one label.
        ConfigError: a label is longer than adapters can store.
    """
    if problem_type not in (SINGLE, MULTI, REGRESSION):
        raise ConfigError(
            f"`problem_type='{problem_type}'` is not known; use {SINGLE}, {MULTI} or {REGRESSION}",
            field="problem_type",
            value=problem_type,
            expected=f"{SINGLE}, {MULTI} or {REGRESSION}",
        )
    labels = named_labels(labels)
    if problem_type == REGRESSION and len(labels) != 1:
        raise ConfigError(
            f"a regression gives one number, but {len(labels)} labels are named; give one label",
            field="labels",
            value=labels,
            expected="one label",
        )
    if not labels:
        raise ConfigError(
            "there are no labels; give their names in index order, such as `labels=data.labels`",
            field="labels",
            value=labels,
            expected="the names of the labels in index order",
        )
    longest = max(labels, key=len)
    if len(longest) > LONGEST_LABEL:
        raise ConfigError(
            f"label {short(longest)} has {len(longest)} characters; at most {LONGEST_LABEL} are expected",
            field="labels",
            value=labels,
            expected=f"names of at most {LONGEST_LABEL} characters",
        )
    return labels


def check_targets(targets: Tensor, logits: Tensor, problem_type: ProblemType) -> Tensor:
    """Check that targets suit logits and problem type, and return them in the type of the loss.

    On a GPU the values are not looked at, because the host would have to wait for the device.

    Args:
        targets: the labels of a batch, in the shape that `ptune.model.objective` gives for the problem type.
        logits: output of the model, [B, C].

    Raises:
        DataError: the shape or the number type is not that of the problem type, or a class is beyond the classes.
    """
    rows, classes = logits.shape
    if problem_type != SINGLE:
        if targets.shape not in ([(rows, classes)] if problem_type == MULTI else [(rows,), (rows, 1)]):
            raise _unsuited(f"of shape {list(targets.shape)}", _expected_targets(problem_type, rows, classes))
        return (targets if problem_type == MULTI else targets.flatten()).to(logits.dtype)
    if targets.is_floating_point() or targets.shape != (rows,):
        dtype = str(targets.dtype).removeprefix("torch.")
        raise _unsuited(f"{dtype} of shape {list(targets.shape)}", _expected_targets(SINGLE, rows, classes))
    if targets.device.type == "cpu":
        beyond = targets[((targets < 0) | (targets >= classes)) & (targets != IGNORED)]
        if len(beyond):
            raise DataError(
                f"a label is {int(beyond[0])}, but the model has {classes} classes, 0 to {classes - 1}; make the model "
                "with a name in `labels` for each class of the data, or correct the label",
                field="labels",
                value=int(beyond[0]),
                expected=f"0 to {classes - 1}",
            )
    return targets.long()


def check_ids(input_ids: Tensor, rows: int) -> None:
    """Check that there is a word embedding for every token id. On a GPU the ids are not looked at.

    Args:
        input_ids: [B, T].
        rows: the number of word embeddings.

    Raises:
        DataError: an id is beyond the embeddings.
    """
    if input_ids.device.type != "cpu" or not input_ids.numel():
        return
    least, most = (int(value) for value in input_ids.aminmax())
    if least < 0 or most >= rows:
        wrong = least if least < 0 else most
        raise DataError(
            f"a token id is {wrong}, but the backbone has word embeddings for ids 0 to {rows - 1}; use the backbone's "
            "own tokenizer, and a padding token that it knows, such as tokenizer.pad_token = tokenizer.eos_token",
            field="input_ids",
            value=wrong,
            expected=f"0 to {rows - 1}",
        )


def _expected_targets(problem_type: ProblemType, rows: int, classes: int) -> str:
    if problem_type == MULTI:
        return f"0 or 1 for each of the {classes} labels, as numbers of shape [{rows}, {classes}]"
    return f"numbers of shape [{rows}]" if problem_type == REGRESSION else f"whole numbers of shape [{rows}]"


def _unsuited(given: str, expected: str) -> DataError:
    return DataError(
        f"the labels of a batch are {given}; {expected} are expected. If the task is another one, make the model with "
        "its `problem_type`",
        field="labels",
        expected=expected,
    )


def check_fit(config: PromptConfig, backbone: Backbone) -> None:
    """Check that a backbone supports a configuration.

    Raises:
        ConfigError: the family does not support the method, the softmax, the template or the pooling.
        ConfigError: the virtual tokens leave no positions for text.
    """
    family = f"{backbone.family.name} (backbone '{backbone.name}')"
    if config.method == "deep" and backbone.family.deep is None:
        raise ConfigError(
            f"`method='deep'` does not work with {family}, whose attention takes no further keys and values; use "
            "`method='p-tuning'` or `method='prompt-tuning'`",
            field="method",
            value=config.method,
            expected="p-tuning or prompt-tuning",
        )
    if config.softmax == "separate" and not backbone.family.separates:
        raise ConfigError(
            f"`softmax='separate'` does not work with {family}, whose layers take a prompt only as past keys and "
            "values; use `softmax='shared'`",
            field="softmax",
            value=config.softmax,
            expected="shared",
        )
    if config.method == "deep" and config.softmax == "shared" and not backbone.family.shares:
        raise ConfigError(
            f"a deep prompt in {backbone.family.name} (backbone '{backbone.name}') has a softmax of its own, so it "
            "does not go with `softmax='shared'`, `pooling='peft'`, `init='text'`, `init='vocabulary'`, "
            "`encoder='mlp'` or `encoder='lstm'`; leave them out, or use `method='p-tuning'` or "
            "`method='prompt-tuning'`"
        )
    if backbone.family.decoder and "{mask}" in (config.template or ""):
        raise ConfigError(
            f"a mask token is for masked language models, but {family} answers at the end of the text; leave out "
            "{mask} and `pooling='mask'`, and end the template where the answer begins"
        )
    _check_verbalizer_pooling(config, backbone)
    if config.pooling == "first" and backbone.family.decoder:
        logger.warning("with `pooling='first'` a decoder sees only the first token of the text; use `pooling='last'`")
    limit = backbone.max_positions
    if limit is not None and config.positions_taken > limit - _LEAST_TEXT:
        raise ConfigError(
            f"{config.virtual_tokens} virtual tokens leave no room for text in the {limit} positions of "
            f"backbone '{backbone.name}'; use at most {limit - _LEAST_TEXT} `virtual_tokens`",
            field="virtual_tokens",
            value=config.virtual_tokens,
            expected=f"at most {limit - _LEAST_TEXT}",
        )


def _check_verbalizer_pooling(config: PromptConfig, backbone: Backbone) -> None:
    """Check that a verbalizer reads the hidden state from which the language model predicts words."""
    allowed = ("last", "peft") if backbone.family.decoder else ("mask",)
    if config.head == "verbalizer" and config.pooling not in allowed:
        choices = " or ".join(f"`pooling='{name}'`" for name in allowed)
        raise ConfigError(
            f"`head='verbalizer'` needs {choices} with {backbone.family.name} (backbone '{backbone.name}'), because "
            f"the language model predicts words there, but `pooling` is '{config.pooling}'; leave `pooling` out",
            field="pooling",
            value=config.pooling,
            expected=" or ".join(allowed),
        )


def check_pooling(config: PromptConfig, data: TextData) -> None:
    """Check that a head does not compare texts that are not there.

    Raises:
        ConfigError: the pooling is `pair`, but the rows are single texts.
    """
    if config.pooling == "pair" and data.train.pairs is None:
        raise ConfigError(
            f"`pooling='pair'` compares the two texts of a pair, but data '{data.source}' have single texts; leave "
            "`pooling` out",
            field="pooling",
            value=config.pooling,
            expected="mean",
        )


def check_task(problem_type: ProblemType, labels: Sequence[str], data: TextData) -> None:
    """Check that a model has the problem type and the labels of the data.

    Raises:
        ConfigError: model and data have different problem types or different labels.
    """
    if problem_type != data.problem_type:
        raise ConfigError(
            f"data '{data.source}' are {data.problem_type}, but the model was made for {problem_type}; make the model "
            "with `problem_type=data.problem_type`, or read the data with another `problem_type`",
            field="problem_type",
            value=problem_type,
            expected=data.problem_type,
        )
    if problem_type != REGRESSION and labels != data.labels:
        raise ConfigError(
            f"data '{data.source}' have the labels {_shown(data.labels)} in this order, but the model was made for "
            f"{_shown(labels)}; make the model with `labels=data.labels`",
            field="labels",
            value=labels,
            expected=", ".join(data.labels),
        )


def _shown(labels: Sequence[str]) -> str:
    """Return the number of labels and the names of the first five."""
    return f"({len(labels)}) {', '.join(labels[:5])}{', …' if len(labels) > 5 else ''}"
