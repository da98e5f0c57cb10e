"""Deep prompts that enter through hooks: the same as through the attention function, and seen by one call alone."""

from __future__ import annotations

import copy
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
import torch

from ptune.data.batch import Inputs
from ptune.model import hooks
from ptune.model.attention import LayerPrompts, attend
from ptune.model.backbone import Backbone
from ptune.model.classifier import PromptClassifier
from ptune.model.config import PromptConfig
from ptune.model.entry import Entry
from ptune.model.families import FAMILIES
from ptune.model.hooks import Layout
from ptune.model.loading import as_backbone, load_backbone
from ptune.model.locate import Location
from ptune.model.scores import score_function
from ptune.model.selfcheck import failure
from tests.all_families import tiny_backbone, tiny_classifier

pytestmark = pytest.mark.filterwarnings("ignore:.*mamba.*")

B, T, P = 2, 6, 3
IDS = torch.tensor([[2, 5, 6, 7, 8, 3], [2, 9, 10, 3, 0, 0]])
MASK = torch.tensor([[1] * 6, [1, 1, 1, 1, 0, 0]])
LABELS = ["a", "b", "c"]


def drawn_prompt(backbone: Backbone, *rows: int, seed: int = 4) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(backbone.layers, 2, *rows, P, backbone.kv_width, generator=generator)


def by_hooks(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> Backbone:
    """The same weights under transformers' own layers, with hooks."""
    from transformers import AutoModelForSequenceClassification

    with monkeypatch.context() as patch:
        patch.delitem(FAMILIES, backbone.family.model_type)
        config = copy.deepcopy(backbone.config)
        model = AutoModelForSequenceClassification.from_config(config, attn_implementation="eager").eval()
        model.base_model.load_state_dict(backbone.base.state_dict())
        return as_backbone(model, Location("x", "x"))


DEBERTA_V3 = {"share_att_key": True, "norm_rel_ebd": "layer_norm", "position_biased_input": False, "type_vocab_size": 0}


@pytest.mark.parametrize("rows", [(), (B,)], ids=["one prompt", "a prompt a row"])
@pytest.mark.parametrize(
    ("family", "settings"),
    [
        ("bert", {}),
        ("electra", {}),
        ("gpt2", {}),
        ("mpnet", {}),
        ("deberta-v2", {}),
        ("deberta-v2", {"pos_att_type": ["c2p"]}),
        ("deberta-v2", {**DEBERTA_V3, "position_buckets": 16}),  # a row for each distance in a short text
        ("deberta-v2", {**DEBERTA_V3, "position_buckets": 4}),  # far distances share rows
    ],
)
def test_hooks_let_in_what_the_attention_function_does(family, settings, rows, backbone, monkeypatch) -> None:
    loaded = backbone(family, **settings)
    hooked = by_hooks(loaded, monkeypatch)
    assert (loaded.family.deep, hooked.family.deep) == ("attention", "hooks")
    prompt = drawn_prompt(loaded, *rows).requires_grad_()
    found, slopes = [], []
    for one in (loaded, hooked):
        states = one(Inputs(IDS, MASK), prompt, Entry("separate")).states[MASK.bool()]
        (slope,) = torch.autograd.grad((states * torch.linspace(-1, 1, states.numel()).view_as(states)).sum(), prompt)
        found.append(states)
        slopes.append(slope)
    torch.testing.assert_close(found[1], found[0], atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(slopes[1], slopes[0], atol=2e-5, rtol=1e-3)


@pytest.mark.parametrize(
    "settings",
    [{}, {"multi_query": False}, {"new_decoder_architecture": True, "num_kv_heads": 2}],
    ids=["one key for all heads", "a key a head", "a key for two heads"],
)
def test_fused_projections_are_split_as_falcon_splits_them(settings) -> None:
    from transformers import FalconConfig, FalconModel

    sizes = {"vocab_size": 9, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4}
    model = FalconModel(FalconConfig(**sizes, **settings))
    attention = model.h[0].self_attention
    fused = attention.query_key_value(torch.randn(B, T, 32))
    layout = hooks.layout_of(model)
    expected = attention._split_heads(fused)[0].transpose(1, 2)
    torch.testing.assert_close(layout.query_of(fused, 4, 8), expected)


def test_fused_projections_are_split_as_deberta_and_mpt_split_them() -> None:
    fused = torch.arange(2 * 3 * 4.0).view(1, 1, -1)  # two heads of width 4
    query = Layout("q", "o", "grouped").query_of(fused, 2, 4)
    assert query[0, :, 0].tolist() == [[0, 1, 2, 3], [12, 13, 14, 15]]
    query = Layout("q", "o", "first_third").query_of(fused, 2, 4)
    assert query[0, :, 0].tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]


@pytest.mark.parametrize("family", ["deberta", "bloom", "gptj", "stablelm"])
def test_threads_that_share_a_backbone_see_their_own_prompts_alone(family) -> None:
    """The last hands its options to no layer, so that its attention function reads the context as well."""
    backbone = tiny_backbone(family)
    prompts = [None, *(drawn_prompt(backbone, seed=seed) for seed in range(5))]
    together = Barrier(len(prompts))

    def states(prompt: torch.Tensor | None, wait: bool = True) -> torch.Tensor:
        if wait:
            together.wait()
        with torch.no_grad():
            return backbone(Inputs(IDS, MASK), prompt, Entry("separate")).states

    expected = [states(prompt, wait=False) for prompt in prompts]
    with ThreadPoolExecutor(len(prompts)) as pool:
        for _ in range(8):
            for found, wanted in zip(pool.map(states, prompts), expected, strict=True):
                torch.testing.assert_close(found, wanted, atol=1e-6, rtol=1e-5)


def test_a_call_that_fails_leaves_no_prompt_behind(backbone) -> None:
    loaded = backbone("deberta")
    plain = loaded(Inputs(IDS, MASK)).states
    with pytest.raises(RuntimeError):
        loaded(Inputs(IDS, MASK), drawn_prompt(loaded)[..., :-1], Entry("separate"))
    torch.testing.assert_close(loaded(Inputs(IDS, MASK)).states, plain)


def test_hooks_are_put_on_a_model_once(backbone) -> None:
    loaded = backbone("deberta")
    again = Backbone(loaded.base, loaded.location)
    prompt = drawn_prompt(loaded)
    once, twice = (one(Inputs(IDS, MASK), prompt, Entry("separate")).states for one in (loaded, again))
    torch.testing.assert_close(once, twice)
    assert len(loaded.base.encoder.layer[0].attention.output.dense._forward_pre_hooks) == 1


def test_a_second_look_at_a_model_sees_the_same() -> None:
    model = tiny_classifier("gptj")
    once, twice = (as_backbone(model, Location("x", "x")) for _ in range(2))
    assert once.observed == twice.observed
    prompt = drawn_prompt(once)
    states = [one(Inputs(IDS, MASK), prompt, Entry("separate")).states for one in (once, twice)]
    torch.testing.assert_close(*states)


@pytest.mark.parametrize("pooling", ["first", "last"])
@pytest.mark.parametrize("method", ["deep", "prompt-tuning"])
@pytest.mark.parametrize("family", ["deberta", "deberta-v2", "mpnet"])
def test_the_last_layer_is_computed_where_the_head_reads_alone(family, method, pooling, backbone, monkeypatch) -> None:
    config = PromptConfig(method=method, pooling=pooling, virtual_tokens=P, token_dropout=0)
    model = PromptClassifier(backbone(family), config, LABELS)
    torch.manual_seed(2)
    with torch.no_grad():
        for tensor in model.trainable_state().values():
            tensor.copy_(torch.randn_like(tensor) * 0.3)
    lengths = []
    handle = model.backbone.base.encoder.layer[-1].output.dense.register_forward_hook(
        lambda _, inputs, __: lengths.append(inputs[0].shape[1])
    )
    results = []
    for _ in range(2):
        model.zero_grad()
        output = model(IDS, MASK, labels=torch.tensor([0, 2]))
        output.loss.backward()
        slopes = [parameter.grad.clone() for parameter in model.parameters() if parameter.requires_grad]
        results.append((output.logits, slopes))
        monkeypatch.setattr(type(model.head), "reads", "all")
    handle.remove()
    assert lengths == [1, T + (P if method == "prompt-tuning" else 0)]
    torch.testing.assert_close(results[0][0], results[1][0], atol=1e-5, rtol=1e-5)
    for picked, whole in zip(results[0][1], results[1][1], strict=True):
        torch.testing.assert_close(picked, whole, atol=1e-5, rtol=1e-4)


def test_a_deberta_with_a_convolution_goes_through_transformers(backbone) -> None:
    loaded = backbone("deberta-v2", conv_kernel_size=3)
    assert loaded.trunk is None
    assert (loaded.family.deep, loaded.family.shares) == ("hooks", False)
    assert not failure(loaded, "separate")


@pytest.mark.parametrize("layer_prompts", [None, "shared", "separate"])
def test_numbers_that_hide_are_a_mask_like_any_other(layer_prompts) -> None:
    query, key, value = torch.randn(3, B, 2, T, 4)
    numbers = torch.where(MASK[:, None, None].bool(), 0.0, -1e9)
    found = []
    for mask in (MASK[:, None, None].bool(), numbers):
        prompts = None
        if layer_prompts is not None:
            values = torch.randn(1, 2, 1, 2, P, 4, generator=torch.Generator().manual_seed(0))
            prompts = LayerPrompts(values, separate=layer_prompts == "separate")
        found.append(attend(query, key, value, mask.expand(-1, -1, T, -1), prompts, None))
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("family", ["deberta", "deberta-v2", "mpnet"])
def test_without_a_prompt_the_model_answers_as_transformers_has_it(family, backbone) -> None:
    loaded = backbone(family)
    expected = loaded.base(input_ids=IDS, attention_mask=MASK).last_hidden_state
    torch.testing.assert_close(
        loaded(Inputs(IDS, MASK)).states[MASK.bool()], expected[MASK.bool()], atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize("family", ["deberta-v2", "mpnet", "gptj"])
def test_training_in_bfloat16_gives_finite_gradients(family, backbone_folder) -> None:
    loaded = load_backbone(str(backbone_folder(family)), dtype="bfloat16", device="cpu")
    model = PromptClassifier(loaded, PromptConfig(method="deep", virtual_tokens=P), LABELS)
    model(IDS, MASK, labels=torch.tensor([1, 2])).loss.backward()
    for parameter in model.parameters():
        assert not parameter.requires_grad or parameter.grad.isfinite().all()


def test_padding_is_blank_where_embeddings_look_at_their_neighbours() -> None:
    """MobileBERT's: a row's last token would see the embedding of its padding."""
    model = tiny_classifier("mobilebert")
    backbone = as_backbone(model, Location("x", "x"))
    assert backbone.observed is not None
    assert backbone.observed.blanks_padding
    own = model.base_model(input_ids=IDS[1:, :4]).last_hidden_state
    torch.testing.assert_close(backbone(Inputs(IDS, MASK)).states[1:, :4], own, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("options", [{"softcap": 2.0}, {"sinks": torch.tensor([0.5, -1.0])}])
@pytest.mark.parametrize("causal", [True, False])
def test_scores_are_capped_and_sinks_take_weight(options, causal) -> None:
    query, key, value = torch.randn(3, B, 2, T, 4)
    scores = query @ key.transpose(2, 3) * 0.5
    if "softcap" in options:
        scores = 2.0 * torch.tanh(scores / 2.0)
    if causal:
        scores = scores.masked_fill(~torch.ones(T, T, dtype=torch.bool).tril(), -torch.inf)
    weights = scores.exp()
    total = weights.sum(dim=-1, keepdim=True)
    if "sinks" in options:
        total = total + options["sinks"].exp()[None, :, None, None]
    expected = (weights / total @ value).transpose(1, 2)
    found = score_function(**options)(query, key, value, None, 0.5, causal)
    torch.testing.assert_close(found, expected)
    assert score_function() is None
