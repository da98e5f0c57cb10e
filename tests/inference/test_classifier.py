"""From texts to labelled probabilities."""

from __future__ import annotations

import json
import logging
import shutil
from functools import partial

import pytest
import torch

import ptune
from ptune.adapter.layout import TaskInfo
from ptune.data.targets import MULTI, REGRESSION
from ptune.errors import ConfigError, DataError
from ptune.inference import classifier as classifier_module
from ptune.inference.classifier import TextClassifier
from ptune.model.classifier import PromptClassifier
from ptune.model.config import PromptConfig

LABELS = ["low", "middle", "high"]


def classifier(backbone, max_length=None, task=None, **settings) -> TextClassifier:
    model = PromptClassifier(backbone, PromptConfig(virtual_tokens=4, **settings), LABELS, seed=1)
    return TextClassifier.around(model, max_length, task=task)


def test_one_text_gives_one_answer_with_all_classes(backbone) -> None:
    answers = classifier(backbone("bert")).predict("a good film")
    assert len(answers) == 1
    (answer,) = answers
    assert set(answer) == {"label", "score", "scores"}
    assert list(answer["scores"]) == LABELS
    assert sum(answer["scores"].values()) == pytest.approx(1)
    assert answer["score"] == answer["scores"][answer["label"]] == max(answer["scores"].values())


def test_both_texts_of_a_pair_matter(backbone) -> None:
    model = classifier(backbone("bert"))
    one, other, first_changed = (
        model.predict(pair)[0]["score"] for pair in (("a film", "good"), ("a film", "bad"), ("a book", "good"))
    )
    assert len({one, other, first_changed}) == 3


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_answers_keep_the_order_of_texts_over_batches_and_windows(family, backbone, monkeypatch) -> None:
    monkeypatch.setattr(classifier_module, "WINDOW", 5)
    model = classifier(backbone(family))
    texts = ["good " * (1 + 7 * n % 11) + "film" for n in range(13)]
    together = model.predict(texts, batch_size=2)
    apart = [model.predict(text)[0] for text in texts]
    assert [a["scores"] for a in together] == [pytest.approx(a["scores"], abs=1e-5) for a in apart]


@pytest.mark.parametrize("batch_size", [0, -1, 1.5, "8"])
def test_a_batch_size_that_is_no_number_of_rows_is_refused(batch_size, backbone) -> None:
    with pytest.raises(ConfigError, match=r"`batch_size` is .*; a whole number of 1 or more is expected"):
        classifier(backbone("bert")).predict(["a good film"], batch_size=batch_size)


def test_a_stream_is_read_only_one_window_ahead(backbone, monkeypatch) -> None:
    monkeypatch.setattr(classifier_module, "WINDOW", 4)
    taken = 0

    def texts():
        nonlocal taken
        while True:
            taken += 1
            yield "a good film"

    next(classifier(backbone("bert")).stream(texts()))
    assert taken == 4


def test_long_texts_are_cut_with_one_warning_that_counts_them(backbone, caplog) -> None:
    model = classifier(backbone("bert"))  # 64 positions, 4 virtual tokens
    with caplog.at_level(logging.WARNING, "ptune"):
        answers = model.predict(["good " * 500, "bad", "film " * 65])
    assert len(answers) == 3
    assert [record.getMessage() for record in caplog.records] == ["2 of 3 rows were cut to 64 tokens"]


def test_a_files_columns_are_kept_and_renamed_if_they_clash(backbone, tmp_path) -> None:
    rows = [{"id": n, "text": "good film", "label": "gold", "score": 7} for n in range(3)]
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    answers = list(classifier(backbone("bert")).stream_file(path))
    assert [answer["id"] for answer in answers] == [0, 1, 2]
    assert answers[0]["input_label"] == "gold"
    assert answers[0]["input_score"] == 7
    assert answers[0]["label"] in LABELS


def test_a_column_has_one_name_in_all_rows_of_a_file(backbone, tmp_path) -> None:
    rows = [
        {"text": "good film", "label": "x", "input_label": "human"},
        {"text": "bad film", "label": "y"},
        {"text": "bad film", "score": 1, "input_score": 2},
    ]
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    first, second, third = classifier(backbone("bert")).stream_file(path)
    assert (first["input_input_label"], first["input_label"]) == ("x", "human")
    assert second["input_input_label"] == "y"
    assert "input_label" not in second
    assert sorted(third[name] for name in third if name.startswith("input_")) == [1, 2]


def test_another_file_is_read_with_the_columns_of_the_training_data(backbone, tmp_path) -> None:
    path = tmp_path / "in.csv"
    path.write_text("text,v2\nignored,good film\n")
    model = classifier(backbone("bert"), task=TaskInfo({"text": "v2", "text_pair": None}))
    (answer,) = model.stream_file(path)
    assert answer["scores"] == pytest.approx(model.predict("good film")[0]["scores"])
    (other,) = model.stream_file(path, text="text")
    assert other["scores"] != pytest.approx(answer["scores"], abs=1e-6)


def test_pairs_and_single_texts_are_refused_if_training_had_the_other_kind(backbone, tmp_path) -> None:
    one, two = tmp_path / "one.csv", tmp_path / "two.csv"
    one.write_text("text\ngood film\n")
    two.write_text("sentence1,sentence2\ngood film,bad film\n")
    model = classifier(
        backbone("bert"), task=TaskInfo({"text": "sentence1", "text_pair": "sentence2", "label": "label"})
    )
    assert model.predict(("good", "bad"))
    assert list(model.stream_file(two))
    for call in (partial(model.predict, "good"), partial(model.predict_proba, ["good"])):
        with pytest.raises(DataError, match="trained on pairs"):
            call()
    with pytest.raises(DataError, match=r"one\.csv.*text 'text'.*`text` and `text_pair`"):
        list(model.stream_file(one))
    model = classifier(backbone("bert"), task=TaskInfo({"text": "text", "text_pair": None}))
    assert list(model.stream_file(one))
    assert list(model.stream_file(two, text="sentence2"))
    with pytest.raises(DataError, match="trained on single texts"):
        model.predict([("good", "bad")])
    with pytest.raises(DataError, match=r"two\.csv.*`text`"):
        list(model.stream_file(two))


@pytest.mark.parametrize("texts", [[("good", "film"), "film"], ["good", ("good", "film")], [None], ["good", 7]])
def test_mixed_texts_and_other_things_are_refused_by_number(texts, backbone) -> None:
    with pytest.raises(DataError, match=r"text [12]"):
        classifier(backbone("bert")).predict(texts)


def test_a_length_beyond_the_backbones_positions_is_refused(backbone) -> None:
    with pytest.raises(ConfigError, match="takes from 3 to 64 tokens"):
        classifier(backbone("bert"), max_length=65)


def test_pairs_are_separated_by_a_line_break_if_the_tokenizer_has_no_separator(backbone) -> None:
    assert classifier(backbone("gpt2")).encoder.pair_separator == "\n"
    assert classifier(backbone("bert")).encoder.pair_separator == ""


def test_load_accepts_a_loaded_backbone(backbone, reviews, tmp_path) -> None:
    loaded = backbone("bert")
    model = PromptClassifier(loaded, PromptConfig(virtual_tokens=4), ["negative", "positive"])
    result = ptune.train(model, ptune.load_data(reviews), ptune.TrainConfig(epochs=1), output=tmp_path / "a")
    again = ptune.load(tmp_path / "a", loaded)
    assert again.model.backbone is loaded
    assert again.predict("good film") == result.classifier.predict("good film")


def of_type(backbone, problem_type, labels) -> TextClassifier:
    config = PromptConfig(virtual_tokens=4, pooling="mean")
    return TextClassifier.around(PromptClassifier(backbone, config, labels, seed=1, problem_type=problem_type))


def test_a_multi_label_prediction_has_the_labels_with_a_probability_above_one_half(backbone) -> None:
    model = of_type(backbone("bert"), MULTI, LABELS)
    with torch.no_grad():
        model.model.head.linear.bias.copy_(torch.tensor([9.0, -9.0, 9.0]))
    (answer,) = model.predict("a good film")
    assert list(answer) == ["labels", "scores"]
    assert answer["labels"] == ["low", "high"]
    assert list(answer["scores"]) == LABELS
    assert answer["scores"]["low"] > 0.99 > 0.01 > answer["scores"]["middle"]
    with torch.no_grad():
        model.model.head.linear.bias.fill_(-9)
    assert model.predict("a good film")[0]["labels"] == []


def test_a_regression_predicts_a_number_in_the_targets_unit(backbone) -> None:
    model = of_type(backbone("bert"), REGRESSION, ["stars"])
    model.model.standardise(torch.tensor([90.0, 110.0, 100.0]))
    (answer,) = model.predict("a good film")
    assert answer == {"value": pytest.approx(100, abs=20)}


@pytest.mark.parametrize(
    ("problem_type", "names", "kept"),
    [
        (MULTI, LABELS, {"label": "gold", "input_labels": ["x"], "value": 7}),
        (REGRESSION, ["stars"], {"label": "gold", "labels": ["x"], "input_value": 7}),
    ],
)
def test_a_files_columns_are_renamed_if_a_prediction_has_their_name(
    problem_type, names, kept, backbone, tmp_path
) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text(json.dumps({"text": "good film", "label": "gold", "labels": ["x"], "value": 7}) + "\n")
    model = of_type(backbone("bert"), problem_type, names)
    (answer,) = model.stream_file(path)
    assert answer == {"text": "good film", **kept, **model.predict("good film")[0]}


def test_a_classifier_is_saved_although_its_folder_is_gone(backbone, tmp_path) -> None:
    classifier(backbone("bert")).save(tmp_path / "a")
    loaded = ptune.load(tmp_path / "a", backbone("bert"))
    shutil.rmtree(tmp_path / "a")
    loaded.save(tmp_path / "b")
    assert ptune.load(tmp_path / "b", backbone("bert")).predict("good") == loaded.predict("good")
