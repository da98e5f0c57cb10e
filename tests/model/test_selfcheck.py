"""Backbones that are broken on purpose are refused with what failed; one that is not works."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput, SequenceClassifierOutput

from ptune.data.batch import Inputs
from ptune.errors import BackboneError
from ptune.model import hooks
from ptune.model.backbone import Backbone
from ptune.model.entry import Entry
from ptune.model.loading import as_backbone
from ptune.model.locate import Location
from ptune.model.selfcheck import failure

B, T, H, HEADS, V, POSITIONS = 2, 5, 8, 2, 23, 19


class ToyConfig(PretrainedConfig):
    """fault: what is broken."""

    model_type = "toy"

    def __init__(self, fault: str = "", **settings: Any) -> None:
        self.fault = fault
        self.hidden_size, self.num_attention_heads, self.vocab_size = H, HEADS, V
        super().__init__(**{"pad_token_id": 0, **settings})


class ToyAttention(nn.Module):
    """One layer's attention, under the names that BERT gives its parts."""

    def __init__(self) -> None:
        super().__init__()
        self.self = nn.ModuleDict({name: nn.Linear(H, H) for name in ("query", "key", "value")})
        self.output = nn.ModuleDict({"dense": nn.Linear(H, H)})

    def forward(self, states: Tensor, mask: Tensor | None) -> Tensor:
        query, key, value = (part(states).unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in self.self.values())
        visible = None if mask is None else mask[:, None, None].bool()
        context = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=visible)
        return self.output["dense"](context.transpose(1, 2).flatten(2))


class ToyLayer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = ToyAttention()
        self.norm = nn.LayerNorm(H)


class ToyModel(PreTrainedModel):
    """An encoder with learned positions and two layers."""

    config_class = ToyConfig
    base_model_prefix = "toy"

    def __init__(self, config: ToyConfig) -> None:
        super().__init__(config)
        self.words, self.other, self.places = nn.Embedding(V, H), nn.Embedding(V, H), nn.Embedding(POSITIONS, H)
        self.layers = nn.ModuleList([ToyLayer(), ToyLayer()])
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding:
        return self.other if self.config.fault == "embeddings" else self.words

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        **_: Any,
    ) -> BaseModelOutput:
        fault = self.config.fault
        states = self.words(input_ids) if inputs_embeds is None else inputs_embeds
        if fault == "gradient":
            states = states.detach()
        length = states.shape[1]
        places = torch.arange(length)
        if fault == "positions":  # counted from the end of the longest row
            places = length - 1 - places
        states = states + self.places(places)
        if fault == "random":
            states = states + torch.rand_like(states)
        for layer in self.layers:
            states = layer.norm(states + layer.attention(states, None if fault == "mask" else attention_mask))
        return BaseModelOutput(last_hidden_state=states[:, :-1] if fault == "length" else states)


class ToyForSequenceClassification(PreTrainedModel):
    config_class = ToyConfig
    base_model_prefix = "toy"

    def __init__(self, config: ToyConfig) -> None:
        super().__init__(config)
        self.toy, self.classifier = ToyModel(config), nn.Linear(H, 3)
        self.post_init()

    def forward(self, **inputs: Any) -> SequenceClassifierOutput:
        return SequenceClassifierOutput(logits=self.classifier(self.toy(**inputs).last_hidden_state[:, 0]))


def toy(fault: str = "") -> ToyForSequenceClassification:
    torch.manual_seed(3)
    model = ToyForSequenceClassification(ToyConfig(fault))
    for parameter in model.parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=0.5)
    return model.eval()


def accepted(fault: str = "") -> Backbone:
    return as_backbone(toy(fault), Location("my-toy", "my-toy"))


def test_a_sound_backbone_of_an_unknown_type_works_and_one_line_says_so(caplog) -> None:
    caplog.set_level(logging.INFO, logger="ptune")
    backbone = accepted()
    (line,) = [record.getMessage() for record in caplog.records if record.name.startswith("ptune")]
    assert line == (
        "backbone 'my-toy' is of type 'toy', which is not in ptune's table of families; it was checked and works: an "
        "encoder, with prompts at the input and in 2 layers"
    )
    assert (backbone.family.deep, backbone.family.decoder, backbone.family.norm_first) == ("hooks", False, False)
    assert (backbone.layers, backbone.width, backbone.kv_heads, backbone.head_width) == (2, H, HEADS, H // HEADS)
    assert (backbone.max_positions, backbone.family.positions) == (POSITIONS, "none")
    prompt = torch.randn(2, 2, B, 3, H)
    assert backbone(Inputs(torch.full((B, T), 4)), prompt, Entry("separate")).states.shape == (B, T, H)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("mask", "without a prompt, a row's answer depends on the other rows"),
        ("positions", "without a prompt, a row's answer depends on the other rows in its batch"),
        ("embeddings", "a text gives one answer as token ids and another as their embeddings"),
        ("gradient", "under a prompt at the input, no gradient reaches the prompt"),
        ("random", "it gives another answer to the same text each time"),
        ("length", "it returns 4 hidden states for 5 tokens"),
    ],
)
def test_a_broken_backbone_is_refused_with_what_failed(fault, reason) -> None:
    with pytest.raises(BackboneError, match=rf"'my-toy' is of type 'toy', which cannot be used: {reason}"):
        accepted(fault)


def test_deep_prompts_that_do_not_work_leave_those_at_the_input(monkeypatch, caplog) -> None:
    caplog.set_level(logging.INFO, logger="ptune")
    monkeypatch.setattr(hooks, "attend_prompt", lambda query, *_: torch.ones_like(query).transpose(1, 2))
    backbone = accepted()
    assert backbone.family.deep is None
    assert "at the input alone (under a deep prompt with a softmax of its own, the prompt does not" in caplog.text


def test_values_of_zero_that_change_the_answer_are_noticed(backbone, monkeypatch) -> None:
    plain = hooks.attend_prompt
    monkeypatch.setattr(hooks, "attend_prompt", lambda *inputs: plain(*inputs) + 1)
    found = failure(backbone("deberta"), "separate")
    assert found == "under a deep prompt with a softmax of its own, a prompt with values of zero changes the answer"


def test_an_attention_function_that_changes_the_answer_is_noticed(backbone_folder, monkeypatch, caplog) -> None:
    from ptune.model.loading import load_backbone

    caplog.set_level(logging.INFO, logger="ptune")
    monkeypatch.setattr(hooks, "score_function", lambda *_: None)  # the sinks are forgotten
    loaded = load_backbone(str(backbone_folder("gpt_oss")), device="cpu")
    assert loaded.family.deep is None
    assert "ptune's attention function changes its answer" in caplog.text


def test_what_is_no_backbone_by_its_configuration_is_refused_before_its_weights_are_read(tmp_path) -> None:
    from transformers import T5Config, ViTConfig

    from ptune.model.loading import load_backbone

    for config, reason in (
        (T5Config(), "type 't5', which cannot be used: it is an encoder-decoder"),
        (ViTConfig(), "type 'vit', which cannot be used: transformers has no sequence classifier for it"),
    ):
        folder = tmp_path / config.model_type
        config.save_pretrained(folder)
        with pytest.raises(BackboneError, match=reason):
            load_backbone(str(folder))


def test_a_model_that_transformers_cannot_build_here_is_explained(monkeypatch) -> None:
    from transformers import BertConfig

    from ptune.model import loading

    def missing(*_: Any, **__: Any) -> None:
        raise ImportError("LayoutLMv2Model requires the detectron2 library")

    kind = SimpleNamespace(from_pretrained=missing)
    monkeypatch.setattr("transformers.AutoModelForSequenceClassification", kind)
    with pytest.raises(BackboneError, match="requires the detectron2 library"):
        loading._read_weights(Location("x", "x"), BertConfig(), "float32")
