"""Facts about every family of backbones: rows do not depend on each other, and prompts have an effect."""

from __future__ import annotations

import pytest
import torch

from ptune.data.batch import Inputs
from ptune.errors import BackboneError, ConfigError
from ptune.model.classifier import PromptClassifier
from ptune.model.config import PromptConfig
from ptune.model.families import FAMILIES, family_of
from ptune.model.mixed import start_logits

B, T, P, C = 2, 6, 3, 4
LABELS = ["a", "b", "c", "d"]
IDS = torch.tensor([[2, 5, 6, 7, 8, 3], [2, 9, 10, 3, 0, 0]])
MASK = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0]])
SEGMENTS = torch.tensor([[0, 0, 0, 1, 1, 1], [0, 0, 1, 1, 0, 0]])


def classifier(backbone, method: str, pooling: str) -> PromptClassifier:
    """Return a classifier with weights far from zero, so that every part of it affects the logits."""
    config = PromptConfig(method=method, virtual_tokens=P, pooling=pooling, encoder_hidden_size=8)
    model = PromptClassifier(backbone, config, LABELS, seed=1).eval()
    torch.manual_seed(2)
    with torch.no_grad():
        for tensor in model.trainable_state().values():
            tensor.copy_(torch.randn_like(tensor) * 0.3)
    return model


def cases() -> list[tuple[str, str]]:
    return [
        (name, method)
        for name, family in FAMILIES.items()
        for method in ("deep", "p-tuning", "prompt-tuning")
        if method != "deep" or family.deep is not None
    ]


@pytest.mark.parametrize("pooling", ["first", "mean", "last", "peft"])
@pytest.mark.parametrize(("family", "method"), cases())
def test_a_rows_logits_do_not_depend_on_its_batch_mates(family, method, pooling, backbone) -> None:
    if method == "deep" and pooling == "peft" and not FAMILIES[family].shares:
        pytest.skip("PEFT's layout needs a shared softmax")
    model = classifier(backbone(family), method, pooling)
    with torch.no_grad():
        both = model(IDS, MASK, SEGMENTS).logits
        long = model(IDS[:1], None, SEGMENTS[:1]).logits
        short = model(IDS[1:, :4], None, SEGMENTS[1:, :4]).logits
        masked = model(IDS[1:, :4], MASK[1:, :4], SEGMENTS[1:, :4]).logits
    assert both.shape == (B, C)
    torch.testing.assert_close(both, torch.cat([long, short]), atol=2e-5, rtol=0)
    torch.testing.assert_close(masked, short, atol=2e-5, rtol=0)


@pytest.mark.parametrize(("family", "method"), cases())
def test_text_word_order_and_prompt_all_change_the_logits(family, method, backbone) -> None:
    pooling = FAMILIES[family].default_pooling
    model = classifier(backbone(family), method, pooling)
    with torch.no_grad():
        plain = model(IDS[:1]).logits
        other_text = model(torch.tensor([[2, 5, 12, 7, 8, 3]])).logits
        other_order = model(torch.tensor([[2, 6, 5, 7, 8, 3]])).logits
        model.prompt_encoder.embedding.weight.neg_()
        other_prompt = model(IDS[:1]).logits
    for changed in (other_text, other_order, other_prompt):
        assert (changed - plain).abs().max() > 1e-3


@pytest.mark.parametrize(("family", "method"), cases())
def test_gradients_reach_only_prompt_and_head(family, method, backbone) -> None:
    model = classifier(backbone(family), method, FAMILIES[family].default_pooling).train()
    model(IDS, MASK, SEGMENTS, labels=torch.tensor([1, 3])).loss.backward()
    for name, parameter in model.named_parameters():
        if name.startswith("backbone."):
            assert parameter.grad is None, name
        else:
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize(("family", "method"), cases())
def test_rows_with_different_prompts_have_the_same_logits_in_one_batch_as_apart(family, method, backbone) -> None:
    """Predicting with many adapters in one batch relies on this."""
    one, two = (classifier(backbone(family), method, "mean") for _ in range(2))
    with torch.no_grad():
        two.prompt_encoder.embedding.weight.mul_(-0.5)
        models, prompts, inputs = [one, two], [one.prompt(), two.prompt()], Inputs(IDS, MASK, SEGMENTS)
        together = start_logits(models, prompts, [0, 1], inputs).result()
        apart = [
            start_logits([model], [prompt], [0, 0], inputs).result()[0][row : row + 1]
            for row, (model, prompt) in enumerate(zip(models, prompts, strict=True))
        ]
    torch.testing.assert_close(list(together.values()), apart, atol=2e-5, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_text_may_fill_every_position(family, backbone) -> None:
    loaded = backbone(family)
    method = "deep" if loaded.family.deep else "p-tuning"
    room = (loaded.max_positions or 64) - P
    with torch.no_grad():
        for pooling in ("mean", "peft") if loaded.family.shares else ("mean",):
            logits = classifier(loaded, method, pooling)(torch.full((1, room), 5)).logits
            assert logits.isfinite().all()


@pytest.mark.parametrize("family", ["roberta", "mpnet", "bert", "gpt2"])
def test_explicit_positions_are_those_of_the_model(family, backbone) -> None:
    """Without a prompt, the hidden states are those that the model computes from token ids alone."""
    loaded = backbone(family)
    ids = torch.tensor([[2, 5, 6, 7, 3]])
    with torch.no_grad():
        ours = loaded(Inputs(ids)).states
        expected = loaded.base(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=0)


def test_the_deep_prompt_of_albert_differs_in_each_run_of_its_shared_layer(backbone) -> None:
    loaded = backbone("albert")
    model = classifier(loaded, "deep", "mean")
    with torch.no_grad():
        prompt = model.prompt()
        plain, swapped = (
            start_logits([model], [values], [0], Inputs(IDS[:1])).result()[0] for values in (prompt, prompt.flip(0))
        )
    assert prompt.shape == (loaded.layers, 2, P, loaded.kv_width)
    assert (plain - swapped).abs().max() > 1e-3


@pytest.mark.parametrize("family", ["deberta", "rembert"])
@pytest.mark.parametrize(
    "settings",
    [{"pooling": "peft"}, {"init": "vocabulary"}, {"encoder": "mlp"}, {"softmax": "shared"}],
)
def test_settings_that_need_a_shared_softmax_are_refused_for_a_family_without_one(family, settings, backbone) -> None:
    with pytest.raises(ConfigError, match=r"has a softmax of its own, so it does not go with .*`method='p-tuning'`"):
        PromptClassifier(backbone(family), PromptConfig(method="deep", **settings), LABELS)


@pytest.mark.parametrize("settings", [{"pooling": "peft"}, {"init": "vocabulary"}, {"encoder": "mlp"}])
def test_the_default_method_is_p_tuning_if_settings_need_a_shared_softmax_and_there_is_none(settings, backbone) -> None:
    model = PromptClassifier(backbone("deberta"), PromptConfig(**settings), LABELS)
    assert model.config.method == "p-tuning"


@pytest.mark.parametrize("family", ["deberta", "deberta-v2", "mpnet", "bloom"])
def test_deep_prompts_with_a_separate_softmax_are_the_default(family, backbone) -> None:
    settled = PromptClassifier(backbone(family), PromptConfig(), LABELS).config
    assert (settled.method, settled.softmax) == ("deep", "separate")


def test_an_unknown_type_is_refused_with_the_known_ones() -> None:
    with pytest.raises(BackboneError, match=r"'t5', which ptune does not know; choose one of: albert, bert"):
        family_of("t5", "some-model")
