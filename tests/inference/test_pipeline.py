"""Pipelines of transformers give the same answers as ptune."""

from __future__ import annotations

import logging

import pytest
import torch
from transformers import pipeline

import ptune
from ptune.adapter.layout import TaskInfo
from ptune.data.targets import MULTI, REGRESSION, SINGLE
from ptune.errors import ConfigError, DataError
from ptune.inference.classifier import TextClassifier
from ptune.model.classifier import PromptClassifier
from ptune.model.config import PromptConfig
from ptune.model.ensemble import PromptEnsemble

LABELS = ["low", "middle", "high"]
TEXTS = ["a good film", "bad", "the plot was slow and it ends", "a cast"]
PAIRS = [("a good film", "bad"), ("the plot", "was slow and it ends"), ("very good", "fine")]


def classifier(backbone, members=1, problem_type=SINGLE, labels=LABELS, max_length=None, **settings) -> TextClassifier:
    config = PromptConfig(virtual_tokens=4, **settings)
    models = [PromptClassifier(backbone, config, labels, None, seed, problem_type) for seed in range(members)]
    task = TaskInfo(temperature=1.7 if problem_type == SINGLE else 1.0)
    return TextClassifier.around(models[0] if members == 1 else PromptEnsemble(models), max_length, task=task)


def scores(answer) -> dict[str, float]:
    return {line["label"]: line["score"] for line in answer}


@pytest.mark.parametrize(
    ("family", "members", "settings"),
    [
        ("bert", 1, {}),
        ("bert", 3, {}),
        ("roberta", 1, {"method": "p-tuning"}),
        ("gpt2", 1, {}),
        ("llama", 1, {"method": "p-tuning"}),
        ("bert", 1, {"template": "film: {text} was"}),
        ("bert", 1, {"max_length": 5}),
    ],
)
@pytest.mark.parametrize("rows", [TEXTS, PAIRS], ids=["texts", "pairs"])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_a_pipeline_gives_the_probabilities_of_predict(rows, batch_size, family, members, settings, backbone) -> None:
    ours = classifier(backbone(family), members, **settings)
    pipe = ours.pipeline(batch_size=batch_size)
    inputs = [row if isinstance(row, str) else {"text": row[0], "text_pair": row[1]} for row in rows]
    answers = pipe(inputs, top_k=None)
    assert [scores(answer) for answer in answers] == [
        pytest.approx(own["scores"], abs=1e-5) for own in ours.predict(rows)
    ]
    assert [answer[0]["label"] for answer in answers] == [own["label"] for own in ours.predict(rows)]


def test_the_mask_of_a_template_is_found_in_every_row_of_a_batch(language_model) -> None:
    loaded = language_model("bert")
    config = PromptConfig(virtual_tokens=4, head="verbalizer", verbalizer={"a": ["good"], "b": ["bad"]})
    ours = TextClassifier.around(PromptClassifier.from_backbone(loaded, config, labels=["a", "b"]))
    assert ours.encoder.template is not None
    answers = ours.pipeline(batch_size=4)(TEXTS, top_k=None)
    assert [scores(answer) for answer in answers] == [
        pytest.approx(own["scores"], abs=1e-5) for own in ours.predict(TEXTS)
    ]


def test_transformers_pipeline_function_accepts_model_and_tokenizer_without_warnings(backbone, caplog) -> None:
    ours = classifier(backbone("bert"))
    model, tokenizer = ours.as_transformers()
    with caplog.at_level(logging.WARNING), pytest.MonkeyPatch.context() as patch:
        patch.setattr(logging.getLogger("transformers"), "propagate", True)
        pipe = pipeline("text-classification", model=model, tokenizer=tokenizer, device="cpu")
    assert caplog.records == []
    (own,) = ours.predict("a good film")
    (answer,) = pipe("a good film")
    assert answer == {"label": own["label"], "score": pytest.approx(own["score"], abs=1e-5)}
    assert pipe({"text": "a film", "text_pair": "good"}, truncation=True, padding=True)["label"] in LABELS
    assert len(pipe("a good film", top_k=2)) == 2
    assert [line["label"] for line in pipe(text for text in TEXTS)] == [own["label"] for own in ours.predict(TEXTS)]
    assert "PipelineModel" in repr(pipe)
    assert pipe.dtype == torch.float32


@pytest.mark.parametrize("batch_size", [1, 2])
def test_pipelines_support_multi_label_and_regression(batch_size, backbone) -> None:
    several = classifier(backbone("bert"), problem_type=MULTI, pooling="mean")
    answers = several.pipeline(batch_size=batch_size)(TEXTS, top_k=None)
    assert [scores(answer) for answer in answers] == [
        pytest.approx(own["scores"], abs=1e-5) for own in several.predict(TEXTS)
    ]
    number = classifier(backbone("bert"), problem_type=REGRESSION, labels=["stars"], pooling="mean")
    number.model.standardise(torch.tensor([90.0, 110.0, 100.0]))
    answers = number.pipeline(batch_size=batch_size)(TEXTS)
    assert answers == [
        {"label": "stars", "score": pytest.approx(own["value"], rel=1e-5)} for own in number.predict(TEXTS)
    ]


def test_a_pipeline_warns_once_about_cut_texts_and_does_not_affect_the_count_of_predict(backbone, caplog) -> None:
    ours = classifier(backbone("bert"), max_length=5)
    pipe = ours.pipeline()
    with caplog.at_level(logging.WARNING, "ptune"):
        pipe(["good " * 9, "bad " * 9])
        ours.predict("good")
    assert [record.getMessage() for record in caplog.records] == [
        "a text was cut to 5 tokens; this warning appears only once"
    ]


def test_a_pipeline_takes_a_shorter_length(backbone) -> None:
    long, short = "good " * 9, "good " * 3
    pipe = classifier(backbone("bert")).pipeline()
    assert pipe(long, max_length=5)[0]["score"] == pytest.approx(pipe(short)[0]["score"], abs=1e-6)
    assert pipe(long)[0]["score"] != pytest.approx(pipe(short)[0]["score"], abs=1e-6)
    assert pipe(long, truncation=True, max_length=512) == pipe(long)  # more than the backbone holds
    with pytest.raises(ConfigError, match="`max_length=2` leaves no room for text; use at least 3 tokens"):
        pipe(long, max_length=2)
    with pytest.raises(ConfigError, match="does not know `stride`; it takes `top_k`"):
        pipe(long, stride=3)


def test_the_older_name_for_all_scores_works(backbone) -> None:
    ours = classifier(backbone("bert"))
    expected = ours.pipeline()(TEXTS, top_k=None)
    assert ours.pipeline()(TEXTS, return_all_scores=True) == expected
    assert ours.pipeline(return_all_scores=True)(TEXTS) == expected
    assert ours.pipeline(return_all_scores=False)(TEXTS) == ours.pipeline()(TEXTS)
    model, tokenizer = ours.as_transformers()
    plain = pipeline("text-classification", model=model, tokenizer=tokenizer, device="cpu")
    with pytest.raises(ConfigError, match="`return_all_scores` is an older name; use `top_k=None`"):
        plain(TEXTS, return_all_scores=True)


@pytest.mark.parametrize("members", [1, 2])
def test_a_pipeline_is_saved_as_an_adapter(members, backbone, tmp_path) -> None:
    ours = classifier(backbone("bert"), members, template="film: {text} was", max_length=9)
    pipe = ours.pipeline()
    pipe.save_pretrained(tmp_path / "saved")
    loaded = ptune.load(tmp_path / "saved", device="cpu")
    assert loaded.pipeline()(TEXTS, top_k=None) == pipe(TEXTS, top_k=None)
    loaded.pipeline().save_pretrained(tmp_path / "copy")
    names = ["adapter_model.safetensors", "ptune.json"]
    assert sorted(path.name for path in (tmp_path / "copy").iterdir()) == names
    assert all((tmp_path / "copy" / name).read_bytes() == (tmp_path / "saved" / name).read_bytes() for name in names)
    with pytest.raises(ConfigError, match="takes a folder only, not push_to_hub"):
        pipe.save_pretrained(tmp_path / "saved", push_to_hub=True)


def test_probabilities_have_one_column_per_label_in_order(backbone) -> None:
    ours = classifier(backbone("bert"))
    table = ours.predict_proba(TEXTS)
    assert table.shape == (4, 3)
    assert table.dtype == torch.float64
    assert [dict(zip(LABELS, row, strict=True)) for row in table.tolist()] == [
        pytest.approx(own["scores"], abs=1e-6) for own in ours.predict(TEXTS)
    ]
    assert ours.predict_proba("a good film").shape == (1, 3)
    assert ours.predict_proba([]).shape == (0, 3)
    number = classifier(backbone("bert"), problem_type=REGRESSION, labels=["stars"], pooling="mean")
    with pytest.raises(ConfigError, match="no probabilities"):
        number.predict_proba("a good film")


def test_a_classifier_is_saved_as_it_is_whatever_became_of_its_files(backbone, tmp_path) -> None:
    for seed, name in ((0, "first"), (1, "second")):
        model = PromptClassifier(backbone("bert"), PromptConfig(virtual_tokens=4), ["stars"], None, seed, REGRESSION)
        TextClassifier.around(model).save(tmp_path / name)
    loaded = ptune.load(tmp_path / "first", backbone("bert"))
    before = loaded.predict(TEXTS)
    for path in (tmp_path / "second").iterdir():
        path.replace(tmp_path / "first" / path.name)
    assert ptune.load(tmp_path / "first", backbone("bert")).predict(TEXTS) != before
    loaded.save(tmp_path / "copy")
    assert ptune.load(tmp_path / "copy", backbone("bert")).predict(TEXTS) == before


def test_a_pipeline_refuses_pairs_where_predict_does(backbone) -> None:
    model = PromptClassifier(backbone("bert"), PromptConfig(virtual_tokens=4), ["no", "yes"])
    single, paired = (
        TextClassifier.around(model, 20, task=TaskInfo(columns=columns)).pipeline()
        for columns in ({"text": "a", "text_pair": None}, {"text": "a", "text_pair": "b"})
    )
    for pair in ({"text": "a good film", "text_pair": "bad"}, [("a good film", "bad")]):
        with pytest.raises(DataError, match="trained on single texts"):
            single(pair)
        assert paired(pair)
    with pytest.raises(DataError, match="trained on pairs"):
        paired("a good film")
