"""What must hold for every family of backbones: a row's answer is its own, and prompts do their work."""

from __future__ import annotations

import pytest
import torch

from ptune.errors import BackboneError, ConfigError
from ptune.model.classifier import PromptClassifier, shared_logits
from ptune.model.config import PromptConfig
from ptune.model.ensemble import stack_prompts
from ptune.model.families import FAMILIES, family_of

B, T, P, C = 2, 6, 3, 4
LABELS = ["a", "b", "c", "d"]
IDS = torch.tensor([[2, 5, 6, 7, 8, 3], [2, 9, 10, 3, 0, 0]])
MASK = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0]])
SEGMENTS = torch.tensor([[0, 0, 0, 1, 1, 1], [0, 0, 1, 1, 0, 0]])


def classifier(backbone, method: str, pooling: str) -> PromptClassifier:
    """With weights far from zero, so that every part has a say."""
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
        pytest.skip("PEFT's layout has one softmax over prompt and text")
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
def test_text_prompt_and_order_all_change_the_answer(family, method, backbone) -> None:
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
def test_gradients_reach_prompt_and_head_alone(family, method, backbone) -> None:
    model = classifier(backbone(family), method, FAMILIES[family].default_pooling).train()
    model(IDS, MASK, SEGMENTS, labels=torch.tensor([1, 3])).loss.backward()
    for name, parameter in model.named_parameters():
        if name.startswith("backbone."):
            assert parameter.grad is None, name
        else:
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize(("family", "method"), cases())
def test_prompts_of_their_own_in_one_batch_give_each_rows_own_answer(family, method, backbone) -> None:
    """[B, ...] prompts: what serving many adapters in one batch stands on."""
    one, two = (classifier(backbone(family), method, "mean") for _ in range(2))
    with torch.no_grad():
        two.prompt_encoder.embedding.weight.mul_(-0.5)
        prompts = [one.prompt(), two.prompt()]
        mixed = stack_prompts(prompts)
        (together,) = shared_logits([one], mixed, IDS, MASK, SEGMENTS)
        apart = [shared_logits([one], prompt, IDS, MASK, SEGMENTS)[0][row] for row, prompt in enumerate(prompts)]
    torch.testing.assert_close(together, torch.stack(apart), atol=2e-5, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_text_that_fills_every_position_is_no_index_error(family, backbone) -> None:
    loaded = backbone(family)
    method = "deep" if loaded.family.deep else "p-tuning"
    room = (loaded.max_positions or 64) - P
    with torch.no_grad():
        for pooling in ("mean", "peft") if loaded.family.shares else ("mean",):
            logits = classifier(loaded, method, pooling)(torch.full((1, room), 5)).logits
            assert logits.isfinite().all()


@pytest.mark.parametrize("family", ["roberta", "mpnet", "bert", "gpt2"])
def test_positions_are_those_that_the_family_counts_itself(family, backbone) -> None:
    """Without a prompt, explicit positions give what the model alone gives from token ids."""
    loaded = backbone(family)
    ids = torch.tensor([[2, 5, 6, 7, 3]])
    with torch.no_grad():
        ours = loaded(ids).states
        own = loaded.base(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
    torch.testing.assert_close(ours, own, atol=1e-5, rtol=0)


def test_the_deep_prompt_of_albert_differs_in_each_run_of_its_shared_layer(backbone) -> None:
    loaded = backbone("albert")
    model = classifier(loaded, "deep", "mean")
    with torch.no_grad():
        prompt = model.prompt()
        (plain,) = shared_logits([model], prompt, IDS[:1])
        (swapped,) = shared_logits([model], prompt.flip(0), IDS[:1])
    assert prompt.shape == (loaded.layers, 2, P, loaded.kv_width)
    assert (plain - swapped).abs().max() > 1e-3


@pytest.mark.parametrize("family", ["deberta", "rembert"])
@pytest.mark.parametrize(
    "settings",
    [{"pooling": "peft"}, {"init": "vocabulary"}, {"encoder": "mlp"}, {"softmax": "shared"}],
)
def test_a_family_without_a_shared_softmax_says_so_at_once(family, settings, backbone) -> None:
    with pytest.raises(ConfigError, match=r"has a softmax of its own, so it does not go with .* use --method p-tuning"):
        PromptClassifier(backbone(family), PromptConfig(method="deep", **settings), LABELS)


@pytest.mark.parametrize("settings", [{"pooling": "peft"}, {"init": "vocabulary"}, {"encoder": "mlp"}])
def test_settings_that_need_a_shared_softmax_mean_p_tuning_where_there_is_none(settings, backbone) -> None:
    model = PromptClassifier(backbone("deberta"), PromptConfig(**settings), LABELS)
    assert model.config.method == "p-tuning"


@pytest.mark.parametrize("family", ["deberta", "deberta-v2", "mpnet", "bloom"])
def test_deep_prompts_with_a_softmax_of_their_own_are_the_default(family, backbone) -> None:
    settled = PromptClassifier(backbone(family), PromptConfig(), LABELS).config
    assert (settled.method, settled.softmax) == ("deep", "separate")


def test_an_unknown_type_is_refused_with_the_known_ones() -> None:
    with pytest.raises(BackboneError, match=r"'t5', which ptune does not know; choose one of: albert, bert"):
        family_of("t5", "some-model")
