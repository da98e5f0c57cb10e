"""Training on several labels per row and on numbers; weights for rare labels; settings that do not fit together."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest
import torch

import ptune
from ptune.data.metric_table import choices, metrics_of
from ptune.data.splits import TextData
from ptune.data.targets import MULTI, REGRESSION, SINGLE
from ptune.errors import ConfigError
from ptune.evaluation.metrics import confusion, evaluate_logits
from ptune.model.objective import Objective
from ptune.training.defaults import Task
from ptune.training.train import TrainResult
from tests.conftest import review_rows, star_rows, topic_rows, write_jsonl


@pytest.fixture(scope="module")
def topics(tmp_path_factory: pytest.TempPathFactory) -> TextData:
    """Training and validation data of 240 and 64 rows, each with none to three of three labels."""
    folder = tmp_path_factory.mktemp("topics")
    write_jsonl(folder / "train.jsonl", topic_rows(240, seed=1))
    write_jsonl(folder / "validation.jsonl", topic_rows(64, seed=2))
    return ptune.load_data(folder)


@pytest.fixture(scope="module")
def stars(tmp_path_factory: pytest.TempPathFactory) -> TextData:
    """Training and validation data of 160 and 40 rows, each with a number from 100 to 110."""
    folder = tmp_path_factory.mktemp("stars")
    write_jsonl(folder / "train.jsonl", star_rows(160, seed=1))
    write_jsonl(folder / "validation.jsonl", star_rows(40, seed=2))
    return ptune.load_data(folder, label="stars")


def run(backbone, data: TextData, output, *, settings: dict[str, Any] | None = None, **training) -> TrainResult:
    config = ptune.PromptConfig(
        **{"virtual_tokens": 4, "pooling": "mean", "token_dropout": 0, "encoder_hidden_size": 8, **(settings or {})}
    )
    model = ptune.PromptClassifier(backbone, config, data.labels, seed=1, problem_type=data.problem_type)
    rates = {"lr": 0.03, "head_lr": 0.03, "average": 0.9, "batch_size": 10, "epochs": 2}
    return ptune.train(model, data, ptune.TrainConfig(**{**rates, **training}), output=output)


def measure(classifier: ptune.TextClassifier, data: TextData) -> dict[str, float]:
    logits = classifier.split_logits(data.validation)
    return evaluate_logits(logits, data.targets("validation"), data.problem_type, decision=classifier.task.decision)


def test_several_labels_are_learned(backbone, topics, tmp_path) -> None:
    result = run(backbone("bert"), topics, tmp_path, epochs=16, warmup=0.06)
    assert topics.problem_type == MULTI
    assert topics.majority_share() == 1 / 8
    assert result.metrics["accuracy"] > 0.3  # all of a row's labels right
    assert result.metrics["f1"] > 0.7 > 2 / 3  # of naming all labels always
    assert measure(result.classifier, topics) == result.metrics
    assert measure(ptune.load(tmp_path, device="cpu"), topics) == result.metrics
    best = max(result.history, key=lambda line: (line["f1"], -line["loss"]))
    assert result.best_epoch == best["epoch"]
    record = json.loads((tmp_path / "ptune.json").read_text())
    assert record["problem_type"] == MULTI
    assert record["training"]["best"] == "f1"


@pytest.mark.parametrize(
    ("family", "settings"),
    [
        ("bert", {"method": "deep"}),
        ("roberta", {"method": "p-tuning", "pooling": "peft"}),
        ("gpt2", {"method": "deep", "pooling": "peft"}),  # PEFT's head of decoders has no bias
        ("gpt2", {"method": "prompt-tuning", "pooling": "last"}),
    ],
    ids=lambda value: value if isinstance(value, str) else value["method"],
)
def test_numbers_are_learned_in_their_own_unit(family, settings, backbone, stars, tmp_path) -> None:
    result = run(backbone(family), stars, tmp_path, settings=settings, epochs=6)
    assert stars.problem_type == REGRESSION
    assert result.metrics["pearson"] > 0.8
    assert result.metrics["mae"] < 2  # targets deviate from 105 by 2.5, and from 0 by 105
    if settings.get("pooling") != "peft" or family != "gpt2":
        assert result.history[0]["train_loss"] < 200  # in the targets' unit, and begun near them
    assert result.majority is None
    assert measure(result.classifier, stars) == result.metrics
    loaded = ptune.load(tmp_path, device="cpu")
    assert float(loaded.model.target_scale) == 1
    assert measure(loaded, stars) == pytest.approx(result.metrics, rel=1e-3)
    (answer,) = loaded.predict("good good good good")
    assert answer == {"value": pytest.approx(110, abs=4)}
    record = json.loads((tmp_path / "ptune.json").read_text())
    assert (record["problem_type"], record["labels"], record["classes"]) == (REGRESSION, ["stars"], 1)
    assert record["training"]["best"] == "pearson"


def test_training_a_regression_on_goes_on_from_its_answers(backbone, stars, tmp_path) -> None:
    run(backbone("bert"), stars, tmp_path / "first", epochs=4)
    loaded = ptune.load(tmp_path / "first", backbone("bert"))
    before = measure(loaded, stars)
    config = ptune.TrainConfig(epochs=1, lr=1e-9, head_lr=1e-9)
    again = ptune.train(loaded.model, stars, config, output=tmp_path / "again")
    assert float(loaded.model.target_scale) > 2
    assert again.metrics == pytest.approx(before, rel=1e-3)


def test_a_stopped_regression_is_resumed_exactly(backbone, stars, tmp_path) -> None:
    whole = run(backbone("bert"), stars, tmp_path / "whole", epochs=2)

    def stop(done: int, total: int, epoch: int, loss: float) -> None:
        if epoch == 2 and done > 50:
            raise KeyboardInterrupt

    def train(**options: Any) -> TrainResult:
        config = ptune.PromptConfig(virtual_tokens=4, pooling="mean", token_dropout=0, encoder_hidden_size=8)
        model = ptune.PromptClassifier(backbone("bert"), config, stars.labels, seed=1, problem_type=REGRESSION)
        settings = ptune.TrainConfig(epochs=2, lr=0.03, head_lr=0.03, average=0.9, batch_size=10, checkpoint_steps=3)
        return ptune.train(model, stars, settings, output=tmp_path / "cut", **options)

    with pytest.raises(KeyboardInterrupt):
        train(on_step=stop)
    assert train(resume=True).metrics == whole.metrics
    weights = [(tmp_path / name / "adapter_model.safetensors").read_bytes() for name in ("whole", "cut")]
    assert weights[0] == weights[1]


def minority_recall(backbone, data: TextData, output, **training) -> float:
    result = run(backbone, data, output, epochs=4, **training)
    logits = result.classifier.split_logits(data.validation)
    matrix = confusion(logits, data.targets("validation"))
    return matrix[0][0] / sum(matrix[0])


def test_balanced_weights_find_more_of_the_rare_class(backbone, tmp_path) -> None:
    def imbalanced(count: int, seed: int) -> list[dict[str, str]]:
        rows = review_rows(count, seed)
        negative = [row for row in rows if row["label"] == "negative"]
        return [row for row in rows if row["label"] == "positive"] + negative[: len(negative) // 6]

    write_jsonl(tmp_path / "train.jsonl", imbalanced(480, 3))
    write_jsonl(tmp_path / "validation.jsonl", imbalanced(300, 4))
    data = ptune.load_data(tmp_path)
    plain = minority_recall(backbone("bert"), data, tmp_path / "plain", best="loss")
    balanced = minority_recall(backbone("bert"), data, tmp_path / "balanced", best="f1_macro", class_weights="balanced")
    assert balanced >= plain + 0.2


def test_balanced_weights_find_more_of_the_rare_labels(backbone, tmp_path) -> None:
    rows = [row for number, row in enumerate(topic_rows(400, seed=5)) if number % 8 in (0, 1, 4, 5) or number % 64 < 8]
    path = write_jsonl(tmp_path / "train.jsonl", rows)
    data = ptune.load_data(path)

    def named(**training: Any) -> int:
        result = run(backbone("bert"), data, tmp_path / "a", epochs=2, best="loss", **training)
        logits = result.classifier.split_logits(data.train)
        return int((logits[:, data.labels.index("praise")] > 0).sum())

    assert named(class_weights="balanced") > named() + 5


@pytest.mark.parametrize("kind", ["single", "topics", "stars"])
def test_accumulated_batches_are_one_large_batch_under_every_objective(
    kind, backbone, topics, stars, reviews, tmp_path
) -> None:
    options: dict[str, Any] = {"class_weights": "balanced", "focal": 1.0}
    data = {"single": ptune.load_data(reviews), "topics": topics, "stars": stars}[kind]
    if kind == "single":
        data = ptune.load_data(write_jsonl(tmp_path / "a.jsonl", review_rows(60)[::2] + review_rows(60)[1:20:2]))
        options["label_smoothing"] = 0.1
    if kind == "stars":
        options = {}
    large = run(backbone("bert"), data, tmp_path / "large", epochs=1, batch_size=300, **options)
    small = run(backbone("bert"), data, tmp_path / "small", epochs=1, batch_size=7, accumulate=40, **options)
    assert small.history[0]["train_loss"] == pytest.approx(large.history[0]["train_loss"], rel=1e-5)
    one, two = (ptune.load(tmp_path / name, device="cpu").model.prompt() for name in ("large", "small"))
    torch.testing.assert_close(one, two, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", choices(REGRESSION))
def test_every_metric_can_pick_the_best_epoch(name, backbone, stars, tmp_path) -> None:
    result = run(backbone("bert"), stars, tmp_path, epochs=3, best=name, lr=0.1)
    values = [line[name] for line in result.history]
    assert result.metrics[name] == (min(values) if name in ("loss", "mse", "mae") else max(values))


def test_the_metrics_of_a_problem_type_are_computed() -> None:
    logits = torch.tensor([[0.5, 1.0], [2.0, -1.0]])
    measured = {
        SINGLE: evaluate_logits(logits, torch.tensor([0, 1])),
        MULTI: evaluate_logits(logits, torch.ones(2, 2), MULTI),
        REGRESSION: evaluate_logits(logits[:, :1], torch.tensor([0.0, 1.0]), REGRESSION),
    }
    for problem_type, metrics in measured.items():
        assert set(metrics_of(problem_type)) <= metrics.keys()


@pytest.mark.parametrize(
    ("problem_type", "settings", "message"),
    [
        (REGRESSION, {"best": "accuracy"}, "use one of pearson, spearman, r2, mse, mae, loss"),
        (SINGLE, {"best": "r2"}, "use one of accuracy, f1, f1_macro, matthews, loss"),
        (MULTI, {"best": "matthews"}, "use one of f1, f1_macro, accuracy, loss"),
        (MULTI, {"label_smoothing": 0.1}, "`label_smoothing` is for single_label_classification"),
        (REGRESSION, {"class_weights": "balanced"}, "`class_weights` and `focal`"),
        (REGRESSION, {"focal": 2.0}, "`class_weights` and `focal`"),
    ],
)
def test_a_setting_that_a_problem_type_has_no_use_for_is_refused(problem_type, settings, message) -> None:
    task = Task(100, 16, 3, 384, problem_type)
    with pytest.raises(ConfigError, match=message):
        ptune.TrainConfig(**settings).settle(ptune.PromptConfig(method="deep", encoder="none"), task)


def test_a_model_for_other_targets_than_the_datas_is_refused(backbone, stars, topics, tmp_path) -> None:
    model = ptune.PromptClassifier(backbone("bert"), ptune.PromptConfig(), ["a", "b"])
    with pytest.raises(ConfigError, match="are regression, but the model was made for single_label"):
        ptune.train(model, stars, output=tmp_path)
    model = ptune.PromptClassifier(backbone("bert"), ptune.PromptConfig(), ["a"], problem_type=MULTI)
    with pytest.raises(
        ConfigError, match=r"labels \(3\) .*, but the model was made for \(1\) a; .*labels=data\.labels"
    ):
        ptune.train(model, topics, output=tmp_path)


@pytest.mark.parametrize(("kind", "answer"), [("topics", "that no label applies"), ("stars", "10")])
def test_answers_that_are_all_the_same_are_warned_of(kind, answer, backbone, topics, stars, tmp_path, caplog) -> None:
    data = {"topics": topics, "stars": stars}[kind]
    config = ptune.PromptConfig(virtual_tokens=4, pooling="mean")
    model = ptune.PromptClassifier(backbone("bert"), config, data.labels, problem_type=data.problem_type)
    torch.nn.init.zeros_(model.head.linear.weight)
    torch.nn.init.constant_(model.head.linear.bias, -0.1)
    threshold = 0.5 if data.problem_type == MULTI else None
    with caplog.at_level(logging.WARNING, "ptune"):
        ptune.train(
            model, data, ptune.TrainConfig(epochs=1, lr=1e-9, head_lr=1e-9, threshold=threshold), output=tmp_path
        )
    assert f"epoch 1: every prediction is {answer}" in caplog.text


def test_the_objective_of_a_run_takes_its_weights_from_the_training_rows(backbone, topics, tmp_path) -> None:
    from ptune.training import run as run_module

    seen: list[Objective] = []
    original = run_module.Run._objective

    def noted(self: run_module.Run, models: list[ptune.PromptClassifier]) -> Objective:
        seen.append(original(self, models))
        return seen[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_module.Run, "_objective", noted)
        run(backbone("bert"), topics, tmp_path, epochs=1, class_weights="balanced", focal=2.0)
    assert seen[0].weights is not None
    assert seen[0].weights.tolist() == pytest.approx([1, 1, 1], abs=0.1)
    assert seen[0].focal == 2.0
    record = json.loads((tmp_path / "ptune.json").read_text())
    assert (record["training"]["class_weights"], record["training"]["focal"]) == ("balanced", 2.0)
