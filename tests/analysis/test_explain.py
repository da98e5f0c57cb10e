"""Which words moved the decision."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch

import ptune
from ptune.analysis.explain import ExplainedWord
from ptune.analysis.gradients import integrated_gradients
from ptune.backends.openvino.backbone import CompiledBackbone
from ptune.cli import main
from ptune.cli.explain import _coloured
from ptune.data.encode import TextEncoder
from ptune.data.words import token_words, words_of
from ptune.errors import ConfigError, DataError
from ptune.model.config import PromptConfig
from ptune.model.tokenizer import tokenizer_of
from tests.analysis.conftest import LOOKED_FOR, word_rows

METHODS = ("gradients", "leave-out")


@pytest.fixture(scope="module")
def looks_for_a_word(trained):
    """A classifier that says yes if a text has one word."""
    return ptune.load(trained("word", 6, "--method", "p-tuning"))


@pytest.mark.parametrize("method", METHODS)
def test_the_word_that_decides_comes_first(method, looks_for_a_word) -> None:
    texts = [row["text"] for row in word_rows(200, seed=9) if row["label"] == "yes"]
    first = [ptune.explain(looks_for_a_word, text, label="yes", method=method).ranked()[0].text for text in texts]
    assert len(texts) == 100
    assert first.count(LOOKED_FOR) >= 95


def test_scores_add_up_to_the_difference_that_the_words_make(looks_for_a_word) -> None:
    text = f"a good plot and the {LOOKED_FOR} was poor"
    found = ptune.explain(looks_for_a_word, text)
    assert found.baseline is not None
    assert sum(word.score for word in found.words) == pytest.approx(found.value - found.baseline, abs=0.05)
    assert found.gap == pytest.approx(abs(sum(w.score for w in found.words) - found.value + found.baseline), abs=1e-4)
    score = found.prediction["score"]
    assert found.value == pytest.approx(torch.tensor(score, dtype=torch.double).logit().item(), abs=1e-4)


def test_leaving_a_word_out_is_classifying_the_rest(looks_for_a_word) -> None:
    found = ptune.explain(looks_for_a_word, f"the {LOOKED_FOR}, was poor", label="yes", method="leave-out")
    rests = [f"{LOOKED_FOR}, was poor", "the, was poor", f"the {LOOKED_FOR} was poor"]
    values = looks_for_a_word.predict_proba(rests)[:, looks_for_a_word.labels.index("yes")].logit()
    assert [word.text for word in found.words] == ["the", LOOKED_FOR, ",", "was", "poor"]
    assert [found.value - word.score for word in found.words[:3]] == pytest.approx(values.tolist(), abs=1e-4)


def test_the_other_label_has_the_opposite_scores(looks_for_a_word) -> None:
    text = f"a good {LOOKED_FOR}"
    yes, no = (ptune.explain(looks_for_a_word, text, label=label) for label in ("yes", "no"))
    assert [word.score for word in yes.words] == pytest.approx([-word.score for word in no.words], abs=1e-3)


@pytest.mark.parametrize("config", [{"method": "p-tuning"}, {"method": "deep", "softmax": "separate"}])
@pytest.mark.parametrize("family", ["bert", "deberta-v2", "albert", "gpt2", "llama", "bloom"])
def test_gradients_are_complete_for_every_way_of_entry(family, config, backbone) -> None:
    model = ptune.PromptClassifier.from_backbone(
        backbone(family), PromptConfig(**config, virtual_tokens=3), labels=["a", "b"]
    )
    torch.nn.init.normal_(model.prompt_encoder.get_parameter(next(iter(dict(model.prompt_encoder.named_parameters())))))
    classifier = ptune.TextClassifier.around(model)
    found = ptune.explain(classifier, "a good film and a bad plot")
    assert found.gap is not None
    assert found.gap <= max(0.02 * abs(found.value - (found.baseline or 0)), 0.002)
    assert any(word.score for word in found.words)
    plain = classifier.predict(["a good film and a bad plot"])[0]
    assert plain == found.prediction


def test_the_word_comes_first_in_bfloat16_too(trained) -> None:
    classifier = ptune.load(trained("word", 6, "--method", "p-tuning"), dtype="bfloat16")
    found = ptune.explain(classifier, f"a bad plot and the {LOOKED_FOR} was slow", label="yes")
    assert found.ranked()[0].text == LOOKED_FOR
    assert found.gap <= 0.1 * abs(found.value - found.baseline)


def test_the_gradients_agree_with_captum(looks_for_a_word) -> None:
    attr = pytest.importorskip("captum.attr")
    model, backbone = looks_for_a_word.model, looks_for_a_word.model.backbone
    (row,) = looks_for_a_word.encode([f"a bad {LOOKED_FOR} was good"])
    is_text = [False, *[True] * (len(row) - 2), False]
    pad = looks_for_a_word.pad_id
    ids = torch.tensor([row.ids])
    blank = torch.where(torch.tensor([is_text]), pad, ids)
    layer = attr.LayerIntegratedGradients(lambda tokens: model(tokens).logits[:, 1:], backbone.word_embeddings)
    theirs = layer.attribute(ids, blank, n_steps=32, method="riemann_middle", target=0).sum(dim=-1)[0]
    ours = integrated_gradients(model, row, is_text, pad, lambda logits: logits[:, 1], steps=32).tokens
    torch.testing.assert_close(ours, theirs.float(), rtol=1e-3, atol=1e-4)


def test_both_texts_of_a_pair_have_words(backbone) -> None:
    classifier = ptune.TextClassifier.around(
        ptune.PromptClassifier.from_backbone(backbone("bert"), PromptConfig(virtual_tokens=3), labels=["a", "b"])
    )
    for method in METHODS:
        found = ptune.explain(classifier, ("a good film", "bad plot"), method=method)
        assert [(word.part, word.text) for word in found.words] == [
            (0, "a"), (0, "good"), (0, "film"), (1, "bad"), (1, "plot"),
        ]  # fmt: skip
        assert all(word.score for word in found.words)


@pytest.mark.parametrize(("task", "options"), [("topics", ()), ("stars", ()), ("word", ("--seeds", "2", "--ensemble"))])
def test_several_labels_numbers_and_ensembles(task, options, trained) -> None:
    classifier = ptune.load(trained(task, 1, *options))
    for method in METHODS:
        found = ptune.explain(classifier, "a good red film", method=method)
        assert found.label in classifier.labels
        assert len(found.words) == 4
        assert json.loads(json.dumps(found.to_dict()))["method"] == method


@pytest.mark.parametrize(
    ("template", "texts", "room"),
    [
        (None, ("a good film, was it?",), 64),
        (None, ("a good film", "bad plot"), 64),
        (None, ("a good film " * 9, "bad plot"), 16),
        ("was {text} good", ("  red film  ",), 64),
        ("was {text} and {text_pair} good", ("red film", " blue plot"), 64),
        ("was {text} good", ("red film", "blue plot"), 64),
        ("was {text_pair} and {text} good", ("red film " * 9, "blue plot " * 9), 20),
    ],
)
def test_tokens_know_their_words(template, texts, room, backbone) -> None:
    encoder = TextEncoder(tokenizer_of(backbone("bert")), room, "", template)
    (row,) = encoder.encode([texts[0]], [texts[1]] if len(texts) > 1 else None)
    words = words_of(texts)
    owners = token_words(encoder, texts, row, words)
    assert len(owners) == len(row)
    tokens = encoder.tokenizer.convert_ids_to_tokens(row.ids)
    for token, owner in zip(tokens, owners, strict=True):
        if owner is not None and token != "<unk>":
            word = words[owner]
            assert texts[word.part][word.start : word.end].lower() == token
    read = {owner for owner in owners if owner is not None}
    assert row.cut or read == set(range(len(words)))
    fixed = [token for token, owner in zip(tokens, owners, strict=True) if owner is None]
    assert fixed.count("was") == (template is not None)


def test_words_of_scripts_without_blanks() -> None:
    text = "iPhone很好用, don't café"
    assert [text[word.start : word.end] for word in words_of([text])] == [
        "iPhone",
        "很",
        "好",
        "用",
        ",",
        "don't",
        "café",
    ]


@pytest.mark.parametrize("text", ["", " ", "unknownword", "word " * 200])
@pytest.mark.parametrize("method", METHODS)
def test_any_text_can_be_explained(text, method, looks_for_a_word) -> None:
    found = ptune.explain(looks_for_a_word, text, method=method)
    assert len(found.words) == len(text.split())
    assert found.cut == (len(text.split()) > 62)


def test_wrong_arguments(looks_for_a_word, trained) -> None:
    with pytest.raises(ConfigError, match="`label='maybe'` is unknown; use one of no, yes"):
        ptune.explain(looks_for_a_word, "a film", label="maybe")
    with pytest.raises(ConfigError, match="use one of gradients, leave-out"):
        ptune.explain(looks_for_a_word, "a film", method="lime")
    with pytest.raises(DataError, match="single texts"):
        ptune.explain(looks_for_a_word, ("a", "b"))
    with pytest.raises(ConfigError, match="gives a number"):
        ptune.explain(ptune.load(trained("stars", 1)), "a film", label="x")


def test_a_backbone_in_openvino_has_no_gradients(looks_for_a_word) -> None:
    (row,) = looks_for_a_word.encode(["a film"])
    model = SimpleNamespace(backbone=CompiledBackbone.__new__(CompiledBackbone))
    with pytest.raises(ConfigError, match="leave-out"):
        integrated_gradients(model, row, [True] * len(row), 0, lambda logits: logits[:, 0])


def test_the_command_prints_words_json_and_a_page(trained, tmp_path, capsys) -> None:
    adapter = str(trained("word", 6, "--method", "p-tuning"))
    text = f"the cast was good and the {LOOKED_FOR} <b>"
    page = tmp_path / "why.html"
    capsys.readouterr()
    main(["explain", adapter, "--text", text, "--html", str(page)])
    out = capsys.readouterr().out
    assert out.splitlines()[0].startswith("yes  ")
    assert LOOKED_FOR in out
    html = page.read_text(encoding="utf-8")
    assert "<mark" in html
    assert "&lt;" in html
    assert "default-src 'none'" in html
    main(["explain", adapter, "--text", text, "--method", "leave-out", "--label", "no", "--json"])
    answer = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert answer["label"] == "no"
    assert min(answer["words"], key=lambda word: word["score"])["text"] == LOOKED_FOR


def test_wrong_input_of_the_command(trained, tmp_path, capsys) -> None:
    adapter = str(trained("word", 6, "--method", "p-tuning"))
    for arguments, message in (
        (["--text", " "], "--text is empty"),
        (["--text", "a", "--label", "x"], "--label x is unknown; use one of no, yes"),
        (["--text", "a", "--text-pair", "b"], "give only --text"),
        (["--text", "a", "--html", str(tmp_path)], "--html"),
        (["--text", "a", "--method", "lime"], "lime"),
    ):
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            main(["explain", adapter, *arguments])
        assert caught.value.code == 2
        assert message in capsys.readouterr().err


def test_a_terminal_shows_words_on_coloured_ground() -> None:
    words = [
        ExplainedWord("good", 0, 2, 6, 2.0),
        ExplainedWord("plot", 0, 7, 11, -1.0),
        ExplainedWord("x", 0, 12, 13, 0.0),
    ]
    shown = _coloured("a good plot x\x1b[2J", words, 2.0)
    assert shown == "a \x1b[48;5;40;38;5;231mgood\x1b[0m \x1b[48;5;88;38;5;231mplot\x1b[0m x\\u001b[2J"
