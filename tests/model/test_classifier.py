"""Parameter counts, heads, poolings and valid settings of `PromptClassifier`."""

from __future__ import annotations

import pytest
import torch

from ptune.data.targets import MULTI, REGRESSION, SINGLE
from ptune.errors import ConfigError
from ptune.inference.classifier import TextClassifier
from ptune.model import classifier
from ptune.model.classifier import PromptClassifier
from ptune.model.config import FEWEST_TOKENS, PromptConfig
from ptune.model.head import make_head, pool
from ptune.model.hidden import Hidden
from ptune.model.loading import build_backbone
from ptune.model.locate import Location
from ptune.model.prompt import split_layers
from ptune.model.tokenizer import load_tokenizer

LABELS = ["a", "b", "c", "d"]


def test_the_guides_recipe_counts_the_guides_parameters() -> None:
    """The recipe of PEFT's guide: roberta-large, 20 virtual tokens, and an encoder of width 128."""
    from transformers import RobertaConfig

    config = RobertaConfig(
        vocab_size=50265,
        hidden_size=1024,
        num_hidden_layers=24,
        num_attention_heads=16,
        intermediate_size=4096,
        max_position_embeddings=514,
        type_vocab_size=1,
    )
    with torch.device("meta"):
        backbone = build_backbone(config, Location("roberta-large", "roberta-large"))
        prompt = PromptConfig(method="p-tuning", virtual_tokens=20, encoder_hidden_size=128)
        model = PromptClassifier(backbone, prompt, ["no", "yes"])
    counts = "trainable params: 1351938 || all params: 355662082 || trainable%: "
    assert model.describe_parameters(exact=True) == counts + "0.38011867680626127"
    assert model.describe_parameters() == counts + "0.3801"


def test_input_prompts_start_from_tokens_and_with_pefts_head_from_the_first_special_token(backbone) -> None:
    loaded = backbone("bert")
    tokenizer = load_tokenizer(loaded.location)
    rows = loaded.word_embeddings.weight
    for method in ("p-tuning", "prompt-tuning"):
        model = PromptClassifier(loaded, PromptConfig(method=method, virtual_tokens=6), LABELS, tokenizer)
        assert model.config.encoder == "none"
        starts = [(rows == vector).all(dim=1).nonzero().flatten().tolist() for vector in model.prompt()]
        assert all(starts)
        assert (tokenizer.cls_token_id in starts[0]) == (method == "p-tuning")
    decoder = backbone("gpt2")
    model = PromptClassifier(decoder, PromptConfig(method="p-tuning"), LABELS, load_tokenizer(decoder.location))
    assert model.config.init == "vocabulary"


@pytest.mark.parametrize("given", [{"encoder_hidden_size": 8}, {"encoder_dropout": 0.1}, {"encoder": "mlp"}])
def test_a_setting_of_p_tunings_network_turns_the_network_on(given, backbone) -> None:
    model = PromptClassifier(backbone("bert"), PromptConfig(method="p-tuning", **given), LABELS)
    assert (model.config.encoder, model.config.init) == ("mlp", "normal")


@pytest.mark.parametrize("encoder", ["none", "mlp", "lstm", "residual"])
@pytest.mark.parametrize("method", ["deep", "p-tuning", "prompt-tuning"])
def test_every_encoder_makes_prompts_of_the_right_shape(method, encoder, backbone) -> None:
    loaded = backbone("llama")  # two key-value heads of width 8 under four heads
    config = PromptConfig(method=method, encoder=encoder, virtual_tokens=5, encoder_hidden_size=6)
    model = PromptClassifier(loaded, config, LABELS).eval()
    assert model.prompt_encoder().shape == ((5, 2 * 2 * 16) if method == "deep" else (5, 32))
    assert model.prompt().shape == (2, 2, 5, 16)  # a causal backbone reads a shallow prompt once


def test_folding_layers_is_pefts_order_of_key_and_value() -> None:
    P, L, width = 3, 2, 4
    folded = torch.arange(P * L * 2 * width).view(P, L * 2 * width)
    split = split_layers(folded, L)
    assert split.shape == (L, 2, P, width)
    for layer in range(L):
        for kind in range(2):  # keys, then values
            start = (2 * layer + kind) * width
            assert torch.equal(split[layer, kind], folded[:, start : start + width])


def test_pooling_reads_text_positions_never_a_virtual_token() -> None:
    states = torch.arange(2 * 5 * 1, dtype=torch.float).view(2, 5, 1)  # two virtual tokens, then three of text
    hidden = Hidden(states, torch.tensor([[1, 1, 1], [1, 1, 0]]), offset=2)
    assert pool(hidden, "first").flatten().tolist() == [2, 7]
    assert pool(hidden, "last").flatten().tolist() == [4, 8]
    assert pool(hidden, "mean").flatten().tolist() == [3, 7.5]
    unpadded = Hidden(states, None, offset=2)
    assert pool(unpadded, "last").flatten().tolist() == [4, 9]
    assert pool(unpadded, "mean").flatten().tolist() == [3, 8]


def test_dropout_of_the_backbone_is_off_in_training(backbone) -> None:
    loaded = backbone("bert")
    assert any(isinstance(m, torch.nn.Dropout) and m.p > 0 for m in loaded.modules())
    model = PromptClassifier(loaded, PromptConfig(method="p-tuning", virtual_tokens=2), LABELS).train()
    ids = torch.tensor([[2, 5, 6, 3]])
    assert torch.equal(model(ids).logits, model(ids).logits)
    assert model.training
    assert not any(module.training for module in loaded.modules())


def test_encoder_dropout_is_on_in_training_and_off_in_evaluation(backbone) -> None:
    config = PromptConfig(method="p-tuning", virtual_tokens=2, encoder_dropout=0.5, encoder_hidden_size=16)
    model = PromptClassifier(backbone("bert"), config, LABELS).train()
    assert not torch.equal(model.prompt(), model.prompt())
    model.eval()
    assert torch.equal(model.prompt(), model.prompt())


def test_the_seed_decides_prompt_and_head_and_leaves_the_global_generator_alone(backbone) -> None:
    torch.manual_seed(99)
    before = torch.get_rng_state()
    one, same, other = (PromptClassifier(backbone("bert"), PromptConfig(), LABELS, seed=s) for s in (4, 4, 5))
    assert torch.equal(before, torch.get_rng_state())
    for name, tensor in one.trainable_state().items():
        assert torch.equal(tensor, same.trainable_state()[name])
    assert not torch.equal(one.prompt(), other.prompt())


def test_a_prompt_starts_from_the_embeddings_of_a_text(backbone) -> None:
    loaded = backbone("gpt2")
    tokenizer = load_tokenizer(loaded.location)
    config = PromptConfig(method="prompt-tuning", virtual_tokens=5, init="text", init_text="good film")
    prompt = PromptClassifier(loaded, config, LABELS, tokenizer).prompt_encoder()
    words = tokenizer("good film good film good")["input_ids"]
    assert torch.equal(prompt, loaded.word_embeddings.weight[words])


def test_the_head_stays_float32_on_a_bfloat16_backbone(backbone_folder) -> None:
    from ptune.model.loading import load_backbone

    loaded = load_backbone(str(backbone_folder("llama")), dtype="bfloat16", device="cpu")
    for pooling in ("last", "peft"):
        model = PromptClassifier(loaded, PromptConfig(virtual_tokens=3, pooling=pooling), LABELS)
        assert {parameter.dtype for parameter in model.head.parameters()} == {torch.float32}
        assert model(torch.tensor([[5, 6, 7]])).logits.dtype == torch.float32


def test_the_head_starts_from_the_classifier_in_the_checkpoint(backbone_folder, tmp_path) -> None:
    import shutil

    from transformers import AutoModelForSequenceClassification

    from ptune.model.loading import load_backbone

    folder = shutil.copytree(backbone_folder("roberta"), tmp_path / "fine-tuned")
    model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=4)
    model.save_pretrained(folder)
    head = make_head(load_backbone(str(folder), device="cpu"), "peft", 4)
    torch.testing.assert_close(head.classifier.out_proj.weight, model.classifier.out_proj.weight)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"method": "deep", "tie_first": True}, "`tie_first` is for prompts at the input"),
        ({"method": "deep", "init": "vocabulary", "encoder": "mlp"}, "needs `encoder='none'` or `encoder='residual'`"),
        ({"head": "linear", "verbalizer": {"a": "b"}}, "`head='linear'` uses no words, but `verbalizer` is given"),
        ({"pooling": "mask", "template": "{text}"}, "`template` '{text}' has no {mask}"),
        ({"template": "Label:"}, "has no {text}"),
        ({"template": "{text} {label}"}, "has {label}; it may contain {text}, {text_pair}, {mask}"),
        ({"init": "text"}, "`init='text'` and `init_text` go together"),
        ({"init_text": "words"}, "`init='text'` and `init_text` go together"),
        ({"softmax": "separate", "pooling": "peft"}, "`softmax='separate'` needs a deep prompt"),
        ({"softmax": "separate", "init": "vocabulary"}, "`softmax='separate'` starts from a prompt without an effect"),
        ({"method": "deep", "encoder": "mlp", "encoder_dropout": 0.1}, "`encoder_dropout` does not work with"),
        ({"virtual_tokens": 0}, "expected 1 or more"),
        ({"no_such": 1}, "there is no such key"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings, reason) -> None:
    with pytest.raises(ConfigError, match=reason):
        PromptConfig(**settings)


def test_tying_the_first_token_needs_an_encoder(backbone) -> None:
    loaded = backbone("gpt2")
    with pytest.raises(ConfigError, match="`tie_first` needs an encoder"):
        PromptClassifier(
            loaded, PromptConfig(method="p-tuning", tie_first=True), LABELS, load_tokenizer(loaded.location)
        )


def test_more_virtual_tokens_than_positions_are_refused(backbone) -> None:
    with pytest.raises(ConfigError, match="60 virtual tokens leave no room for text in the 64 positions"):
        PromptClassifier(backbone("bert"), PromptConfig(method="p-tuning", virtual_tokens=60), LABELS)


@pytest.mark.parametrize("softmax", ["separate", "shared"])
def test_deep_prompts_take_no_positions_from_the_text(softmax, backbone) -> None:
    config = PromptConfig(method="deep", softmax=softmax, virtual_tokens=60)
    model = PromptClassifier(backbone("bert"), config, LABELS)
    assert TextClassifier.around(model).encoder.max_length == 64
    assert model(torch.full((1, 64), 5)).logits.isfinite().all()


@pytest.mark.parametrize("settings", [{"method": "p-tuning"}, {"method": "deep", "shift_text": True}])
def test_virtual_tokens_that_count_as_text_take_positions_from_it(settings, backbone) -> None:
    model = PromptClassifier(backbone("bert"), PromptConfig(virtual_tokens=10, **settings), LABELS)
    assert TextClassifier.around(model).encoder.max_length == 54
    assert model(torch.full((1, 54), 5)).logits.isfinite().all()


def test_rows_padded_on_the_left_are_refused(backbone) -> None:
    model = PromptClassifier(backbone("gpt2"), PromptConfig(), LABELS)
    with pytest.raises(ValueError, match="pad on the right"):
        model(torch.tensor([[0, 5, 6]]), torch.tensor([[0, 1, 1]]))


def batch_of(rows: int = 3) -> dict[str, torch.Tensor]:
    return {"input_ids": torch.tensor([[2, 5 + row, 7, 9 + row, 3] for row in range(rows)])}


def test_the_loss_of_a_forward_pass_is_the_plain_one_of_the_problem_type(backbone) -> None:
    targets = {
        SINGLE: torch.tensor([0, 3, 1]),
        MULTI: torch.tensor([[1.0, 0, 0, 1], [0, 0, 0, 0], [1, 1, 1, 1]]),
        REGRESSION: torch.tensor([1.0, 2.5, -1.0]),
    }
    losses = {
        SINGLE: torch.nn.functional.cross_entropy,
        MULTI: torch.nn.functional.binary_cross_entropy_with_logits,
        REGRESSION: lambda logits, labels: torch.nn.functional.mse_loss(logits[:, 0], labels),
    }
    for problem_type, labels in targets.items():
        names = LABELS[:1] if problem_type == REGRESSION else LABELS
        model = PromptClassifier(backbone("bert"), PromptConfig(), names, problem_type=problem_type).eval()
        output = model(**batch_of(), labels=labels)
        torch.testing.assert_close(output.loss, losses[problem_type](output.logits, labels))


def test_a_regression_has_one_output(backbone) -> None:
    with pytest.raises(ConfigError, match="a regression gives one number, but 4 labels are named"):
        PromptClassifier(backbone("bert"), PromptConfig(), LABELS, problem_type=REGRESSION)


@pytest.mark.parametrize(
    ("family", "pooling"),
    [("bert", "mean"), ("roberta", "peft"), ("distilbert", "peft"), ("modernbert", "peft"), ("gpt2", "peft")],
)
def test_targets_are_standardised_and_folded_into_the_last_layer(family, pooling, backbone) -> None:
    targets = torch.tensor([1000.0, 1004.0, 990.0, 1010.0])
    config = PromptConfig(method="prompt-tuning", virtual_tokens=3, pooling=pooling)
    model = PromptClassifier(backbone(family), config, ["x"], seed=1, problem_type=REGRESSION).eval()
    before = model(**batch_of()).logits
    model.standardise(targets)
    logits = model(**batch_of()).logits
    if family == "gpt2":  # the head has no bias
        scale, shift = float(targets.square().mean().sqrt()), 0.0
    else:
        scale, shift = float(targets.std(correction=0)), float(targets.mean())
    torch.testing.assert_close(logits, before * scale + shift)
    assert "target_scale" not in model.trainable_state()

    plain = PromptClassifier(backbone(family), config, ["x"], seed=1, problem_type=REGRESSION).eval()
    plain.head.load_state_dict(model.folded_head())
    torch.testing.assert_close(plain(**batch_of()).logits, logits)

    model.standardise(targets / 10)  # the head counts as trained now, so its predictions stay the same
    assert float(model.target_scale) == pytest.approx(scale / 10)
    torch.testing.assert_close(model(**batch_of()).logits, logits)


def test_targets_that_are_all_the_same_have_a_scale_of_one(backbone) -> None:
    model = PromptClassifier(backbone("bert"), PromptConfig(), ["x"], problem_type=REGRESSION)
    model.standardise(torch.full((4,), 7.0))
    assert (float(model.target_scale), float(model.target_shift)) == (1, 7)


def test_other_heads_are_folded_as_they_are(backbone) -> None:
    model = PromptClassifier(backbone("bert"), PromptConfig(), LABELS)
    assert all(torch.equal(tensor, model.head.state_dict()[name]) for name, tensor in model.folded_head().items())


def test_the_number_of_virtual_tokens_follows_from_how_they_enter(backbone) -> None:
    loaded = backbone("bert")
    deep = PromptClassifier(loaded, PromptConfig(), LABELS).config
    assert (deep.softmax, deep.virtual_tokens) == ("separate", FEWEST_TOKENS)  # the tiny model allows no more
    for settings in ({"method": "p-tuning"}, {"softmax": "shared"}, {"pooling": "peft", "method": "deep"}):
        assert PromptClassifier(loaded, PromptConfig(**settings), LABELS).config.virtual_tokens == 20
    given = PromptClassifier(loaded, PromptConfig(virtual_tokens=21), LABELS).config
    assert given.virtual_tokens == 21
    assert PromptClassifier(loaded, given, LABELS).config == given


@pytest.mark.parametrize(("classes", "tokens"), [(2, 40), (150, 36), (400, 20)])
def test_the_default_trains_at_most_one_percent_of_the_parameters(classes, tokens, backbone, monkeypatch) -> None:
    loaded = backbone("bert")
    monkeypatch.setattr(loaded, "parameter_count", lambda: 22_713_216)  # all-MiniLM-L6-v2's shape
    for name, size in {"layers": 6, "kv_width": 384, "output_width": 384}.items():
        monkeypatch.setattr(type(loaded), name, size)
    room = classifier._token_room(loaded, classes)
    assert PromptConfig().settle(loaded.family, room).virtual_tokens == tokens


@pytest.mark.parametrize(
    ("labels", "problem_type", "expected"),
    [
        ([], "single_label_classification", "no labels"),
        (["a", "b", "a"], "single_label_classification", "'a' is named twice"),
        (["a", "b"], "regression", "2 labels are named"),
        (["a", "b"], "ranking", "`problem_type='ranking'` is not known; use single_label_classification"),
    ],
)
def test_impossible_labels_are_refused(labels, problem_type, expected, backbone) -> None:
    with pytest.raises(ConfigError, match=expected):
        PromptClassifier.from_backbone(backbone("bert"), labels=labels, problem_type=problem_type)


def test_rows_that_are_left_out_of_the_loss_do_not_count(backbone) -> None:
    model = PromptClassifier(backbone("bert"), PromptConfig(virtual_tokens=3), ["a", "b"]).eval()
    labels = torch.tensor([-100, 1])
    output = model(**batch_of(2), labels=labels)
    torch.testing.assert_close(output.loss, torch.nn.functional.cross_entropy(output.logits, labels))
