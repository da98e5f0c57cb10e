"""The defaults for few training rows, and the cases in which they do not apply."""

from __future__ import annotations

import pytest

import ptune
from ptune.adapter.peft_format import peft_reads
from ptune.data.columns import Columns
from ptune.data.splits import Split, TextData
from ptune.model.config import FEW_ROWS
from ptune.training.config import TrainConfig
from ptune.training.settle import settle

LABELS = ["bad", "good"]


def model_for(backbone, rows: int | None = FEW_ROWS, labels=LABELS, **settings) -> ptune.PromptClassifier:
    config = ptune.PromptConfig(**settings)
    return ptune.PromptClassifier.from_backbone(backbone, config, labels=labels, rows=rows, device="cpu")


def settled(backbone, rows: int | None = FEW_ROWS, labels=LABELS, **settings) -> ptune.PromptConfig:
    return model_for(backbone, rows, labels, **settings).config


def test_with_few_rows_the_head_is_a_verbalizer_and_the_prompt_describes_the_task(language_model) -> None:
    config = settled(language_model("llama"))
    assert (config.head, config.method, config.init) == ("verbalizer", "deep", "text")
    assert config.init_text == "Classify the text as bad or good.\n"
    assert config.virtual_tokens == 8
    assert config.token_dropout == 0
    assert config.template is not None
    masked = settled(language_model("bert"))
    assert (masked.head, masked.pooling, masked.init) == ("verbalizer", "mask", "text")


def test_with_more_rows_or_an_unknown_number_the_head_is_linear(language_model) -> None:
    for rows in (FEW_ROWS + 1, None):
        config = settled(language_model("llama"), rows=rows)
        assert (config.head, config.init, config.template) == ("linear", "normal", None)


def test_a_family_without_a_shared_softmax_starts_virtual_tokens_from_the_description(language_model) -> None:
    config = settled(language_model("deberta"))
    assert (config.head, config.method, config.init) == ("verbalizer", "prompt-tuning", "text")


@pytest.mark.parametrize(
    ("settings", "labels"),
    [
        ({"head": "linear"}, LABELS),
        ({"pooling": "mean"}, LABELS),
        ({}, ["0", "1"]),
        ({}, ["very_bad", "very_good"]),  # the same first token
        ({}, ["bad", "xyzzy"]),
    ],
)
def test_the_head_is_linear_if_words_are_not_wanted_or_not_possible(settings, labels, language_model) -> None:
    assert settled(language_model("llama"), labels=labels, **settings).head == "linear"


def test_a_backbone_without_a_language_model_head_keeps_the_linear_head(backbone) -> None:
    assert settled(backbone("bert")).head == "linear"


def test_settings_of_the_user_are_kept(language_model) -> None:
    words = {"bad": "poor", "good": "fine"}
    config = settled(language_model("llama"), verbalizer=words, virtual_tokens=3, token_dropout=0.1)
    assert config.init_text == "Classify the text as poor or fine.\n"
    assert (config.virtual_tokens, config.token_dropout) == (3, 0.1)
    config = settled(language_model("llama"), method="p-tuning", head="verbalizer")
    assert (config.head, config.init, config.pooling) == ("verbalizer", "text", "peft")
    assert settled(language_model("llama"), init="normal").init == "normal"


@pytest.mark.parametrize(
    "settings", [{"method": "p-tuning"}, {"pooling": "peft"}, {"method": "deep", "pooling": "peft"}]
)
def test_what_peft_is_to_read_gets_no_template_unasked(settings, language_model) -> None:
    for family in ("llama", "gpt2"):
        config = settled(language_model(family), **settings)
        assert (config.head, config.template, config.pooling) == ("linear", None, "peft")


def test_an_adapter_with_a_template_is_not_offered_to_peft(language_model) -> None:
    backbone = language_model("llama")
    with_words = settled(backbone, method="p-tuning", head="verbalizer")
    assert with_words.template is not None
    assert not peft_reads(with_words, backbone, 32)
    assert peft_reads(settled(backbone, method="p-tuning"), backbone, 32)


def test_a_long_list_of_labels_is_not_written_into_the_prompt(language_model) -> None:
    words = "a good bad fine poor film book plot cast the was is not very and it ends starts slow quick warm".split()
    assert settled(language_model("llama"), labels=words).init_text == "Classify the text.\n"


def data(train: int, validation: int) -> TextData:
    splits = {
        name: Split(["a"] * size, None, [0] * size) for name, size in (("train", train), ("validation", validation))
    }
    return TextData(splits, LABELS, Columns("text", None, "label"), "here")


def test_training_on_few_rows_has_different_defaults(language_model) -> None:
    few, plain = (model_for(language_model("llama"), **settings) for settings in ({}, {"head": "linear"}))
    assert settle(TrainConfig(), few, data(32, 3)).best == "last"
    assert settle(TrainConfig(patience=2), few, data(32, 3)).best == "accuracy"  # it waits for a better epoch
    assert settle(TrainConfig(), few, data(32, 800)).best == "accuracy"
    assert settle(TrainConfig(best="loss", epochs=2), few, data(32, 3)).best == "loss"
    assert settle(TrainConfig(best="loss", epochs=2), few, data(32, 3)).epochs == 2
    assert settle(TrainConfig(), plain, data(32, 3)).best == "accuracy"
    small, usual = (settle(TrainConfig(), model, data(500, 500)) for model in (few, plain))
    assert small.head_lr < usual.head_lr
    assert small.lr == 3e-3  # shared with real keys and values, which larger steps undo
