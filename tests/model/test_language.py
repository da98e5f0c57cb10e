"""The verbalizer: an untrained classifier answers exactly what the language model itself says of the words."""

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
# Outside of the table: a head that is observed, with embeddings of another width, and without a bias.
OBSERVED_ENCODERS = ["ernie", "rembert", "eurobert"]
OBSERVED_DECODERS = ["falcon", "gpt_neo", "olmo2"]


def tokenizer_of(backbone: Backbone):
    """The folder's own; AutoTokenizer would make another of it for Qwen2."""
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast.from_pretrained(backbone.location.path)


def untrained(backbone: Backbone, **settings: object) -> PromptClassifier:
    config = PromptConfig(**{"head": "verbalizer", "verbalizer": WORDS, "virtual_tokens": 2, **settings})
    return PromptClassifier(backbone, config, LABELS, tokenizer_of(backbone)).eval()


def word_scores(backbone: Backbone, ids: Tensor, place: int) -> Tensor:
    """[1, C]: transformers' own model on token ids [1, T], its scores of the words at one place, meant over a class."""
    import transformers

    kind = transformers.AutoModelForCausalLM if backbone.family.decoder else transformers.AutoModelForMaskedLM
    model = kind.from_pretrained(backbone.location.path).eval()
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
def test_a_masked_language_models_own_logits_come_out(family, language_model) -> None:
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
def test_a_decoders_own_logits_come_out(family, pooling, tied, language_model) -> None:
    backbone = language_model(family, tie_word_embeddings=tied)
    ids = torch.tensor([[5, 6, 7, 8]])
    expected = word_scores(backbone, ids, place=-1)
    ours = logits_without_prompt(untrained(backbone, pooling=pooling), ids, None)
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)


# Without Qwen2, of whose tiny tokenizer AutoTokenizer makes another, and Gemma 3, whose windows do not bound a prompt.
@pytest.mark.parametrize(
    "family", [*(name for name in DECODERS if name not in ("qwen2", "gemma3_text")), *OBSERVED_DECODERS, "gptj"]
)
@pytest.mark.parametrize("adds_start", [False, True])
def test_an_untrained_prompt_of_text_is_that_text_in_front(family, adds_start, language_model, tmp_path) -> None:
    """A deep prompt from a text, under the words' head: the language model's answer to the text and the row."""
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
    """The same model with a tokenizer that begins every text with <s>."""
    from tokenizers import processors

    copy = shutil.copytree(backbone.location.path, folder / "starts")
    tokenizer = load_tokenizer(backbone.location)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 2)]
    )
    tokenizer.save_pretrained(copy)
    return load_backbone(str(copy), device="cpu")


@pytest.mark.parametrize("family", [name for name in ENCODERS if FAMILIES[name].shares])
def test_an_encoders_prompt_of_text_is_its_keys_and_values_between_special_tokens(family, language_model) -> None:
    backbone = language_model(family)
    config = PromptConfig(method="deep", init="text", init_text="good plot")
    model = PromptClassifier(backbone, config, LABELS, load_tokenizer(backbone.location))
    ids = load_tokenizer(backbone.location)("good plot")["input_ids"]
    assert len(ids) == 4
    torch.testing.assert_close(model.prompt(), backbone.text_prompt(torch.tensor(ids))[:, :, 1:3])
    assert not model.config.shift_text


def test_a_deep_prompt_starts_from_tokens_drawn_at_random(language_model) -> None:
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


def test_reading_the_language_model_head_draws_nothing(language_model_folder) -> None:
    backbone = load_backbone(str(language_model_folder("bert")), device="cpu")
    first, second = (untrained(backbone).prompt() for _ in range(2))
    assert torch.equal(first, second)


def test_the_transform_is_not_trained_and_not_part_of_the_state(language_model) -> None:
    model = untrained(language_model("bert")).train()
    assert set(model.trainable_state()) == {"prompt_encoder.embedding.weight", "head.linear.weight", "head.linear.bias"}
    model(torch.tensor([[2, 5, MASK, 3]]), labels=torch.tensor([1]), mask_position=torch.tensor([2])).loss.backward()
    trained = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert trained == set(model.trainable_state())


def test_the_mask_pooling_needs_to_know_where_the_mask_is(language_model) -> None:
    with pytest.raises(ValueError, match="needs mask_position"):
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
def test_a_verbalizer_reads_only_where_the_model_answers(family, settings, reason, language_model) -> None:
    with pytest.raises(ConfigError, match=reason):
        untrained(language_model(family), **settings)


def test_a_verbalizer_needs_the_tokenizer(language_model) -> None:
    with pytest.raises(ConfigError, match="needs the backbone's tokenizer"):
        PromptClassifier(language_model("llama"), PromptConfig(head="verbalizer"), LABELS)
