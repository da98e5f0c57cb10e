"""The words that stand for labels, and the tokens that stand for the words."""

from __future__ import annotations

import pytest

from ptune.errors import ConfigError
from ptune.model.config import PromptConfig
from ptune.model.tokenizer import load_tokenizer
from ptune.model.words import are_words, label_tokens, word_of

PAIR = {"negative": ["bad", "poor"], "positive": ["good"]}


@pytest.mark.parametrize(
    "given",
    [
        "negative=bad,poor;positive=good",
        " negative = bad , poor ; positive = good ; ",
        '{"negative": ["bad", "poor"], "positive": "good"}',
        {"negative": ["bad", "poor"], "positive": "good"},
    ],
)
def test_words_are_given_as_text_or_as_a_mapping(given) -> None:
    assert PromptConfig(verbalizer=given).verbalizer == PAIR


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("good", "'good' is not of the form label=word,word"),
        ("a=;b=c", "label 'a' has no word"),
        ({"a": []}, "label 'a' has no word"),
        ("{", "not a JSON object of labels and words"),
        (["a"], "expected a dictionary"),
    ],
)
def test_words_in_another_form_are_rejected(given, reason) -> None:
    with pytest.raises(ConfigError, match=reason):
        PromptConfig(verbalizer=given)


@pytest.mark.parametrize(
    ("label", "word"),
    [("negative", "negative"), ("not_entailed", "not entailed"), ("NotEntailed", "not entailed"), ("Sports", "Sports")],
)
def test_the_name_of_a_label_becomes_words(label, word) -> None:
    assert word_of(label) == word


def test_numbered_labels_are_not_words() -> None:
    assert are_words(["negative", "positive"])
    for labels in (["0", "1"], ["LABEL_0", "LABEL_1"], ["class 1", "class 2"]):
        assert not are_words(labels)


def byte_tokenizer():
    """Return a tokenizer like GPT-2's, in which a leading space is part of the word's token."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["a", ":", "good", "Ġgood", "bad", "Ġbad", "Ċ", "Ġ", "<unk>"]
    vocabulary = {word: index for index, word in enumerate(words)}
    letters = [x for x in dict.fromkeys("".join(words)) if x not in vocabulary and len(x) == 1]
    vocabulary |= {letter: len(words) + index for index, letter in enumerate(letters)}
    merges = []
    for word in ("go", "goo", "good", "ba", "bad", "Ġgood", "Ġbad"):
        left = {"Ġgood": ("Ġ", "good"), "Ġbad": ("Ġ", "bad")}.get(word, (word[:-1], word[-1]))
        vocabulary.setdefault(word, len(vocabulary))
        merges.append(left)
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")


@pytest.mark.parametrize(("template", "token"), [("{text}:", "Ġgood"), ("{text}:\n", "good"), ("{text}", "Ġgood")])
def test_a_word_begins_with_a_space_unless_the_template_ends_with_whitespace(template, token) -> None:
    tokenizer = byte_tokenizer()
    (good,), (bad,) = label_tokens(tokenizer, ["good", "bad"], None, template)
    assert tokenizer.convert_ids_to_tokens([good, bad]) == [token, token.replace("good", "bad")]


def tokens(backbone_folder, labels, words):
    from ptune.model.locate import locate

    tokenizer = load_tokenizer(locate(str(backbone_folder("gpt2"))))
    return [tokenizer.convert_ids_to_tokens(ids) for ids in label_tokens(tokenizer, labels, words, "{text} is")]


def test_a_word_of_several_tokens_is_represented_by_the_first(backbone_folder) -> None:
    assert tokens(backbone_folder, ["a_film", "book_plot"], None) == [["a"], ["book"]]
    assert tokens(backbone_folder, ["x", "y"], {"y": ["bad", "poor"], "x": ["good"]}) == [["good"], ["bad", "poor"]]


def test_labels_with_the_same_first_tokens_are_rejected_with_their_words_and_tokens(backbone_folder) -> None:
    with pytest.raises(
        ConfigError,
        match=r"labels 'very_good' \('very good'\) and 'very_bad' \('very bad'\) begin with the same tokens, 'very'",
    ):
        tokens(backbone_folder, ["very_good", "very_bad"], None)


def test_words_for_other_labels_and_unknown_words_are_rejected(backbone_folder) -> None:
    with pytest.raises(ConfigError, match=r"words for 'good', but the labels are 'good', 'bad'"):
        tokens(backbone_folder, ["good", "bad"], {"good": ["fine"]})
    with pytest.raises(ConfigError, match=r"the word 'xyzzy' of the verbalizer is not in the backbone's vocabulary"):
        tokens(backbone_folder, ["good", "bad"], {"good": ["xyzzy"], "bad": ["poor"]})
