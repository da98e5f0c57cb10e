"""Verbalizers: the logits of an untrained classifier are exactly the scores of the words in the language model."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from ptune.data.batch import Inputs
from ptune.errors import BackboneError, ConfigError
from ptune.inference.classifier import TextClassifier
from ptune.model.backbone import Backbone
from ptune.model.classifier import PromptClassifier
from ptune.model.config import PromptConfig
from ptune.model.families import FAMILIES
from ptune.model.loading import load_backbone
from ptune.model.tokenizer import load_tokenizer
from tests.conftest import VOCABULARY

LABELS = ["negative", "positive"]
WORDS = {"negative": ["bad", "poor"], "positive": "good"}
MASK = VOCABULARY  # the id of <mask>
ENCODERS = [name for name, family in FAMILIES.items() if not family.decoder]
DECODERS = [name for name, family in FAMILIES.items() if family.decoder]
# Families that are not in the table. rembert has output embeddings of another width, and eurobert has no bias.
OBSERVED_ENCODERS = ["ernie", "rembert", "eurobert"]
OBSERVED_DECODERS = ["falcon", "gpt_neo", "olmo2"]


def tokenizer_of(backbone: Backbone):
    """Return the tokenizer as it was saved. For Qwen2, AutoTokenizer would return a different one."""
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast.from_pretrained(backbone.location.path)


def untrained(backbone: Backbone, **settings: object) -> PromptClassifier:
    config = PromptConfig(**{"head": "verbalizer", "verbalizer": WORDS, "virtual_tokens": 2, **settings})
    return PromptClassifier(backbone, config, LABELS, tokenizer_of(backbone)).eval()


def word_scores(backbone: Backbone, ids: Tensor, place: int) -> Tensor:
    """Return the mean scores [1, C] of the classes' words in transformers' model.

    Args:
        ids: a row of token ids, [1, T].
        place: the position whose scores are used.
    """
    import transformers

    loader = transformers.AutoModelForCausalLM if backbone.family.decoder else transformers.AutoModelForMaskedLM
    model = loader.from_pretrained(backbone.location.path).eval()
    tokenizer = tokenizer_of(backbone)
    with torch.no_grad():
        logits = model(input_ids=ids).logits[0, place]
    bad, poor, good = (
        logits[tokenizer(word, add_special_tokens=False)["input_ids"][0]] for word in ("bad", "poor", "good")
    )
    return torch.stack([(bad + poor) / 2, good])[None]


@torch.no_grad()
def logits_without_prompt(model: PromptClassifier, ids: Tensor, mask_position: Tensor | None) -> Tensor:
    hidden = model.backbone(Inputs(ids))
    return model.head(replace(hidden, mask_position=mask_position))


@pytest.mark.parametrize("family", [*ENCODERS, *OBSERVED_ENCODERS])
def test_untrained_logits_are_those_of_the_masked_language_model(family, language_model) -> None:
    backbone = language_model(family)
    ids = torch.tensor([[2, 5, 6, 7, MASK, 3]])
    model = untrained(backbone)
    assert (model.config.pooling, model.config.template) == ("mask", "{text} {mask}")
    expected = word_scores(backbone, ids, place=4)
    assert (expected[0, 0] - expected[0, 1]).abs() > 1e-2
    torch.testing.assert_close(logits_without_prompt(model, ids, torch.tensor([4])), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("pooling", ["last", "peft"])
@pytest.mark.parametrize("family", [*DECODERS, *OBSERVED_DECODERS])
def test_untrained_logits_are_those_of_the_decoder(family, pooling, tied, language_model) -> None:
    backbone = language_model(family, tie_word_embeddings=tied)
    ids = torch.tensor([[5, 6, 7, 8]])
    expected = word_scores(backbone, ids, place=-1)
    ours = logits_without_prompt(untrained(backbone, pooling=pooling), ids, None)
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)


# Without Qwen2, for whose tiny tokenizer AutoTokenizer returns a different one, and Gemma 3, whose sliding windows do
# not apply to a prompt.
@pytest.mark.parametrize(
    "family", [*(name for name in DECODERS if name not in ("qwen2", "gemma3_text")), *OBSERVED_DECODERS, "gptj"]
)
@pytest.mark.parametrize("adds_start", [False, True])
def test_an_untrained_prompt_from_a_text_is_that_text_in_front(family, adds_start, language_model, tmp_path) -> None:
    """With a verbalizer, the logits are the language model's scores for the initial text followed by the row."""
    backbone = language_model(family)
    if adds_start:
        backbone = with_start_token(backbone, tmp_path)
    model = untrained_from_text(backbone, "the plot was")
    assert model.config.virtual_tokens == 3 + adds_start
    assert model.config.shift_text
    classifier = TextClassifier.around(model)
    encode = classifier.encoder.tokenizer
    rows = ["a good film", "it ends very cold and slow"]
    apart = [encode("the plot was")["input_ids"] + encode(f"{row} one:")["input_ids"] for row in rows]
    expected = torch.cat([word_scores(backbone, torch.tensor([ids]), place=-1) for ids in apart])
    torch.testing.assert_close(classifier.logits(rows), expected, atol=1e-5, rtol=1e-5)


def untrained_from_text(backbone: Backbone, text: str) -> PromptClassifier:
    config = PromptConfig(head="verbalizer", verbalizer=WORDS, init="text", init_text=text, template="{text} one:")
    return PromptClassifier(backbone, config, LABELS, load_tokenizer(backbone.location)).eval()


def with_start_token(backbone: Backbone, folder) -> Backbone:
    """Return the same model with a tokenizer that puts <s> in front of every text."""
    from tokenizers import processors

    copy = shutil.copytree(backbone.location.path, folder / "starts")
    tokenizer = load_tokenizer(backbone.location)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 2)]
    )
    tokenizer.save_pretrained(copy)
    return load_backbone(str(copy), device="cpu")


@pytest.mark.parametrize("family", [name for name in ENCODERS if FAMILIES[name].shares])
def test_an_encoders_prompt_from_a_text_is_its_keys_and_values_between_special_tokens(family, language_model) -> None:
    backbone = language_model(family)
    config = PromptConfig(method="deep", init="text", init_text="good plot")
    model = PromptClassifier(backbone, config, LABELS, load_tokenizer(backbone.location))
    ids = load_tokenizer(backbone.location)("good plot")["input_ids"]
    assert len(ids) == 4
    torch.testing.assert_close(model.prompt(), backbone.text_prompt(torch.tensor(ids))[:, :, 1:3])
    assert not model.config.shift_text


def test_a_deep_prompt_starts_from_random_tokens(language_model) -> None:
    backbone = language_model("llama")
    one, two = (
        PromptClassifier(backbone, PromptConfig(init="vocabulary", virtual_tokens=4), LABELS, seed=seed).eval().prompt()
        for seed in (1, 2)
    )
    assert one.shape == (2, 2, 4, 16)
    assert not torch.equal(one, two)
    assert one.std() > 0.1


def test_a_backbone_without_a_language_model_head_says_what_to_use(backbone, tmp_path) -> None:
    with pytest.raises(
        BackboneError, match=r"no pretrained language-model head \(its checkpoint lacks .*use `head='linear'`"
    ):
        untrained(backbone("bert"))
    with pytest.raises(BackboneError, match=r"lacks lm_head\.weight"):
        untrained(backbone("gpt_neox", tie_word_embeddings=False))


def test_a_family_without_a_language_model_in_transformers_says_so(backbone) -> None:
    with pytest.raises(BackboneError, match=r"transformers has none for the type 'xlnet'.*`head='linear'`"):
        untrained(backbone("xlnet"))


def test_a_random_backbone_has_a_random_language_model_head(language_model_folder, tmp_path) -> None:
    folder = shutil.copytree(language_model_folder("bert"), tmp_path / "bare")
    (folder / "model.safetensors").unlink()
    one, two = (load_backbone(str(folder), random_weights=True, device="cpu") for _ in range(2))
    assert torch.equal(one.language_head().weight, two.language_head().weight)
    assert untrained(one).config.head == "verbalizer"


def test_reading_the_language_model_head_does_not_change_the_random_state(language_model_folder) -> None:
    backbone = load_backbone(str(language_model_folder("bert")), device="cpu")
    first, second = (untrained(backbone).prompt() for _ in range(2))
    assert torch.equal(first, second)


def test_the_transform_is_neither_trained_nor_saved(language_model) -> None:
    model = untrained(language_model("bert")).train()
    assert set(model.trainable_state()) == {"prompt_encoder.embedding.weight", "head.linear.weight", "head.linear.bias"}
    model(torch.tensor([[2, 5, MASK, 3]]), labels=torch.tensor([1]), mask_position=torch.tensor([2])).loss.backward()
    trained = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert trained == set(model.trainable_state())


def test_the_mask_pooling_needs_to_know_where_the_mask_is(language_model) -> None:
    with pytest.raises(ValueError, match="`pooling='mask'` needs mask_position"):
        untrained(language_model("bert"))(torch.tensor([[2, 5, MASK, 3]]))


@pytest.mark.parametrize(
    ("family", "settings", "reason"),
    [
        ("llama", {"template": "{text} {mask}"}, "a mask token is for masked language models"),
        ("llama", {"pooling": "mask"}, "a mask token is for masked language models"),
        ("llama", {"pooling": "mean"}, "needs `pooling='last'` or `pooling='peft'`"),
        ("bert", {"pooling": "mean"}, "needs `pooling='mask'`"),
    ],
)
def test_a_verbalizer_refuses_other_poolings_than_the_language_models(family, settings, reason, language_model) -> None:
    with pytest.raises(ConfigError, match=reason):
        untrained(language_model(family), **settings)


def test_a_verbalizer_needs_the_tokenizer(language_model) -> None:
    with pytest.raises(ConfigError, match="`head='verbalizer'` needs the backbone's tokenizer"):
        PromptClassifier(language_model("llama"), PromptConfig(head="verbalizer"), LABELS)
