"""Thresholds of a multi-label task: fitted on validation, stored in the adapter, used wherever labels are answered."""

from __future__ import annotations

import json

import pytest

import ptune
from ptune.adapter.card import write_card
from ptune.errors import AdapterError, ConfigError
from tests.conftest import WORDS, review_rows

# Like GoEmotions: many labels, one or two for each row, few rows.
NAMES = [f"mood {word}" for word in WORDS[:20]]
FEW = [
    {
        "text": f"{WORDS[number % 20]} {WORDS[number * 7 % 43]}",
        "labels": [NAMES[number % 20], NAMES[7]][: 1 + number % 5 // 4],
    }
    for number in range(100)
]


def train(backbone, rows, folder, **settings):
    data = ptune.load_data(rows)
    model = ptune.PromptClassifier.for_data(backbone("bert"), data, ptune.PromptConfig(virtual_tokens=3))
    return ptune.train(model, data, ptune.TrainConfig(**{"epochs": 2, **settings}), output=folder)


@pytest.fixture(scope="module")
def few(backbone, tmp_path_factory):
    """Trained on so few rows that no probability reaches one half."""
    return train(backbone, FEW, tmp_path_factory.mktemp("few"))


def test_few_rows_with_many_labels_do_not_answer_nothing(few) -> None:
    texts = [row["text"] for row in FEW]
    assert float(few.classifier.predict_proba(texts).max()) < 0.5
    assert all(answer["labels"] for answer in few.classifier.predict(texts))
    assert few.metrics["f1"] > 0
    assert not any(answer["labels"] for answer in few.classifier.with_threshold(0.5).predict(texts))


def test_thresholds_are_stored_in_the_adapter_and_read_back(few, backbone) -> None:
    record = json.loads((few.classifier.folder / "ptune.json").read_text())
    assert len(record["thresholds"]) == 20
    assert record["at_least_one"] is True
    loaded = ptune.load(few.classifier.folder, backbone("bert"))
    assert loaded.task.decision == few.classifier.task.decision
    texts = [row["text"] for row in FEW]
    assert loaded.predict(texts) == few.classifier.predict(texts)
    data = ptune.load_data(FEW)
    assert ptune.evaluate(loaded, data).metrics == few.metrics
    by_label = ptune.evaluate(loaded, data).by_label
    assert max(scores["recall"] for scores in by_label.values()) > 0


def test_rows_without_labels_in_training_may_be_answered_without_labels(backbone, tmp_path) -> None:
    rows = [*FEW, *({"text": "nothing", "labels": []} for _ in range(10))]
    assert train(backbone, rows, tmp_path).classifier.task.decision.at_least_one is False


def test_a_threshold_may_be_named_instead(backbone, tmp_path) -> None:
    result = train(backbone, FEW, tmp_path, threshold=0.125)
    assert result.classifier.task.decision.thresholds == (0.125,) * 20
    assert result.classifier.task.decision.at_least_one is False
    with pytest.raises(ConfigError, match="`threshold` is for several labels per row, but the data are single_label"):
        train(backbone, review_rows(24), tmp_path, threshold=0.125)


def test_a_resumed_run_keeps_the_thresholds_of_its_best_epoch(backbone, few, tmp_path) -> None:
    data = ptune.load_data(FEW)

    def stop(line):
        if line["epoch"] == 1:
            raise KeyboardInterrupt

    for callback in (stop, None):
        model = ptune.PromptClassifier.for_data(backbone("bert"), data, ptune.PromptConfig(virtual_tokens=3))
        try:
            result = ptune.train(
                model, data, ptune.TrainConfig(epochs=2), output=tmp_path, on_epoch=callback, resume=callback is None
            )
        except KeyboardInterrupt:
            continue
    assert result.classifier.task.decision == few.classifier.task.decision
    assert result.metrics == few.metrics


def test_a_threshold_is_chosen_for_one_call(few) -> None:
    text = FEW[0]["text"]
    scores = few.classifier.predict(text)[0]["scores"]
    ranked = sorted(scores, key=scores.get, reverse=True)
    between = (scores[ranked[1]] + scores[ranked[2]]) / 2
    (answer,) = few.classifier.with_threshold(between).predict(text)
    assert set(answer["labels"]) == set(ranked[:2])
    (answer,) = few.classifier.with_threshold({ranked[-1]: scores[ranked[-1]] / 2}).predict(text)
    assert ranked[-1] in answer["labels"]


def test_a_single_label_adapter_has_no_threshold(backbone, tmp_path) -> None:
    classifier = train(backbone, review_rows(24), tmp_path).classifier
    assert classifier.task.decision.thresholds == ()
    with pytest.raises(ConfigError, match="`threshold` is for several labels per row"):
        classifier.with_threshold(0.3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"thresholds": [0.5]}, "there are 1 thresholds for 20 outputs"),
        ({"thresholds": [2.0] * 20}, "less than 1"),
        ({"thresholds": ["nan"] * 20}, "thresholds"),
        ({"problem_type": "single_label_classification"}, "20 thresholds for 20 outputs of a single_label"),
    ],
)
def test_a_record_with_other_thresholds_is_refused(change, message, few, tmp_path) -> None:
    for name in ("ptune.json", "adapter_model.safetensors"):
        (tmp_path / name).write_bytes((few.classifier.folder / name).read_bytes())
    record = json.loads((tmp_path / "ptune.json").read_text())
    (tmp_path / "ptune.json").write_text(json.dumps({**record, **change}))
    with pytest.raises(AdapterError, match=message):
        ptune.read_adapter(tmp_path)


def test_the_model_card_shows_the_thresholds(few) -> None:
    card = write_card(ptune.read_adapter(few.classifier.folder), "me/moods")
    threshold = few.classifier.task.decision.thresholds[0]
    assert "If none is, the most probable label applies." in card
    assert f"| 0 | {few.classifier.labels[0]} | {threshold} |" in card
