"""Every family that transformers has a text classifier for: what docs/families.json says of it is what is seen."""

from __future__ import annotations

import sys

import pytest
import torch

from ptune.model.classifier import PromptClassifier
from ptune.model.config import PromptConfig
from ptune.model.families import FAMILIES
from ptune.model.selfcheck import failure
from tests.all_families import check, judge, lines, listed, model_types, tiny_backbone

# Models warn of kernels that are not installed and of token ids outside of the tiny vocabulary.
pytestmark = pytest.mark.filterwarnings("ignore")

LISTED = listed()
WORKING = [name for name, verdict in LISTED.items() if verdict.works != "refused"]
# Tried through `ptune train --method deep` by a user; all are to work.
TRIED = (
    "mpnet deberta deberta-v2 gptj gpt_neo falcon gpt_bigcode eurobert nomic_bert olmo2 phi3 gemma2 ernie mobilebert "
    "roberta-prelayernorm stablelm starcoder2 bloom"
).split()
OUTSIDE_THE_INTERFACE = "mpnet deberta deberta-v2 gpt_neo gptj falcon bloom mpt rembert megatron-bert roformer".split()
LABELS = ["a", "b", "c"]
IDS = torch.tensor([[2, 5, 6, 7, 8, 9, 3], [2, 11, 12, 3, 0, 0, 0]])
MASK = torch.tensor([[1] * 7, [1] * 4 + [0] * 3])


def test_the_list_has_every_family() -> None:
    assert list(LISTED) == model_types()


def test_at_least_eighty_families_work_and_those_that_are_asked_for_take_deep_prompts() -> None:
    assert len(WORKING) >= 80
    assert [name for name in [*TRIED, *OUTSIDE_THE_INTERFACE] if LISTED[name].works != "deep"] == []
    assert all("encoder-decoder" in LISTED[name].reason for name in ("t5", "bart"))
    assert all(verdict.reason for verdict in LISTED.values() if verdict.works != "deep")


@pytest.mark.parametrize("model_type", model_types())
def test_a_family_works_as_the_list_says(model_type) -> None:
    assert judge(model_type) == LISTED[model_type], "run `make families` if this is as it should be"


@pytest.mark.parametrize("model_type", sorted(FAMILIES))
def test_what_is_seen_of_a_family_in_the_table_is_what_the_table_says(model_type, monkeypatch) -> None:
    known = FAMILIES[model_type]
    monkeypatch.delitem(FAMILIES, model_type)
    seen = tiny_backbone(model_type).family
    assert (seen.decoder, seen.head, seen.norm_first) == (known.decoder, known.head, known.norm_first)
    assert (seen.deep, seen.cached) == ("attention" if known.calls_function else "hooks", known.cached)
    assert seen.positions == known.positions


def random_classifier(backbone, method: str) -> PromptClassifier:
    """With weights far from zero, so that every part has a say."""
    pooling = backbone.family.default_pooling
    config = PromptConfig(method=method, virtual_tokens=4, token_dropout=0, pooling=pooling)
    model = PromptClassifier(backbone, config, LABELS)
    torch.manual_seed(2)
    with torch.no_grad():
        for tensor in model.trainable_state().values():
            tensor.copy_(torch.randn_like(tensor) * 0.3)
    return model


@pytest.mark.parametrize("model_type", WORKING)
@pytest.mark.long
def test_a_rows_logits_do_not_depend_on_its_batch_mates_and_a_step_lowers_the_loss(model_type) -> None:
    backbone = tiny_backbone(model_type)
    for method in ("deep", "prompt-tuning") if backbone.family.deep else ("prompt-tuning",):
        model = random_classifier(backbone, method)
        with torch.no_grad():
            both = model.eval()(IDS, MASK).logits
            alone = torch.cat([model(IDS[:1]).logits, model(IDS[1:, :4]).logits])
        torch.testing.assert_close(both, alone, atol=1e-5 * float(both.abs().max()), rtol=0)
        labels = torch.tensor([1, 2])
        before = model(IDS, MASK, labels=labels).loss
        before.backward()
        trained = [parameter for parameter in model.parameters() if parameter.grad is not None]
        assert len(trained) == len(model.trainable_state())
        slope = torch.cat([parameter.grad.flatten() for parameter in trained]).norm()
        with torch.no_grad():
            for parameter in trained:
                parameter -= 1e-5 * parameter.grad / slope
        assert model(IDS, MASK, labels=labels).loss < before


@pytest.mark.parametrize("model_type", [name for name in WORKING if name not in ("axk1", "axk2")])
@pytest.mark.long
def test_a_family_works_in_bfloat16(model_type) -> None:
    backbone = tiny_backbone(model_type)
    backbone.to(torch.bfloat16)
    assert not failure(backbone, "separate" if backbone.family.separates else "input")


@pytest.mark.long
def test_the_list(capsys) -> None:
    verdicts = [judge(model_type) for model_type in model_types()]
    with capsys.disabled():
        sys.stdout.write("\n".join(["", *lines(verdicts), ""]))
    assert {verdict.model_type: verdict for verdict in verdicts} == LISTED


def test_the_checks_can_be_made_on_any_backbone(backbone) -> None:
    check(backbone("bert"))
