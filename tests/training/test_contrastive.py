"""Learning from few rows: pairs of rows, a fitted head, and cross-validation instead of a validation split."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

import ptune
from ptune.data.batch import class_batches
from ptune.data.columns import Columns
from ptune.data.splits import Split, TextData, fold, give_back, hold_back
from ptune.errors import AdapterError, ConfigError
from ptune.model.config import PromptConfig
from ptune.model.contrast import PairLoss, fit_head
from ptune.processes import Processes
from ptune.training import steps
from ptune.training.checkpoint import (
    CHECKPOINT_FILE,
    FOLDS_FILE,
    FoldResult,
    has_run,
    load_folds,
    recorded_settings,
    save_folds,
)
from ptune.training.config import TrainConfig
from ptune.training.defaults import CONTRASTIVE_RATE, FOLDS, MUON_RATE, WHOLE_RATE, Task
from ptune.training.run import Run
from ptune.training.settle import settle
from ptune.training.steps import Steps
from ptune.training.validation import Measured

DEEP = PromptConfig(method="deep", softmax="separate", encoder="none", head="linear", pooling="mean")
FEW = Task(rows=44, validation_rows=4, classes=6, width=384, held_back=True)


def test_few_rows_are_compared_and_measured_by_folds() -> None:
    settled = TrainConfig().settle(DEEP, FEW)
    assert (settled.objective, settled.folds, settled.best, settled.epochs) == ("contrastive", FOLDS, "last", 1)
    assert TrainConfig().settle(DEEP, FEW) == settled.settle(DEEP, FEW)  # settled settings stay as they are
    own_validation = replace(FEW, held_back=False)
    assert TrainConfig().settle(DEEP, own_validation).folds is None
    for other in (
        replace(FEW, rows=4000),
        replace(FEW, classes=2, rows=200),
        replace(FEW, encoder=False),
        replace(FEW, problem_type="regression", classes=1),
    ):
        assert TrainConfig().settle(DEEP, other).objective == "labels"
    for given in ({"epochs": 3}, {"best": "accuracy"}, {"patience": 2}, {"focal": 1.0}, {"label_smoothing": 0.1}):
        assert TrainConfig(**given).settle(DEEP, FEW).objective == "labels"
    shared = PromptConfig(method="deep", softmax="shared", encoder="none", pooling="mean", head="linear")
    assert TrainConfig().settle(shared, FEW).objective == "labels"


def test_batches_with_all_rows_take_larger_steps_whatever_the_number_of_processes() -> None:
    def rate(rows: int, processes: int) -> float:
        task = Task(rows=rows, validation_rows=0, classes=2, width=384, processes=processes)
        return TrainConfig(objective="contrastive").settle(DEEP, task).lr

    assert rate(64, 1) == rate(100, 2) == pytest.approx(MUON_RATE * WHOLE_RATE)
    assert rate(100, 1) == pytest.approx(MUON_RATE * CONTRASTIVE_RATE)


@pytest.mark.parametrize(
    ("settings", "task", "message"),
    [
        ({"objective": "contrastive", "focal": 1.0}, FEW, "compares texts by their class"),
        ({"objective": "contrastive"}, replace(FEW, problem_type="regression"), "compares texts by their class"),
        ({"folds": 3}, replace(FEW, held_back=False), "the data have a validation split, or only a sample"),
        ({"batch_size": 3}, FEW, "`batch_size=3` is too small; use 4 or more"),
    ],
)
def test_what_does_not_go_together_is_refused(settings, task, message) -> None:
    with pytest.raises(ConfigError, match=message):
        TrainConfig(**settings).settle(DEEP, task)


def test_the_loss_is_zero_for_vectors_that_show_their_class_and_counts_both_kinds_of_pairs_half() -> None:
    targets = torch.tensor([0, 0, 0, 1])
    loss = PairLoss(length=2.0)
    assert loss(2.0 * torch.eye(2)[targets], targets) == pytest.approx(0.0)
    same = torch.tensor([[2.0, 0.0]]).expand(4, 2)  # pairs of one class are right, all others wrong by 1
    assert loss(same, targets) == pytest.approx(0.5)
    zeros = torch.zeros(4, 2)  # the other way round
    assert loss(zeros, targets) == pytest.approx(0.5)
    weights = torch.tensor([1.0, 1.0, 1.0, 0.0])  # without the last row there is only one class
    assert loss(zeros, targets, weights) == pytest.approx(0.5)


def test_a_fitted_head_separates_the_rows_it_was_fitted_to() -> None:
    torch.manual_seed(0)
    targets = torch.tensor([0, 2, 0, 2, 3, 3])
    vectors = 5 * torch.randn(4, 8)[targets] + 0.1 * torch.randn(6, 8)
    linear = torch.nn.Linear(8, 4)
    fit_head(linear, vectors, targets)
    assert linear(vectors).argmax(dim=1).tolist() == targets.tolist()
    assert (linear(vectors).softmax(dim=1)[:, 1] < 1e-3).all()  # a class without rows is never the answer
    two = torch.nn.Linear(8, 2)
    fit_head(two, vectors[:4], targets[:4] // 2)
    assert two(vectors[:4]).argmax(dim=1).tolist() == [0, 1, 0, 1]
    doubled = torch.nn.Linear(8, 4)
    fit_head(doubled, vectors, targets, torch.tensor([2.0, 1, 2, 1, 1, 1]))
    assert not torch.allclose(doubled.weight, linear.weight)


def test_batches_have_several_rows_of_each_class() -> None:
    labels = [0] * 30 + [1] * 3 + [2] * 40
    batches = class_batches(labels, 12, seed=1, epoch=1, count=5)
    assert len(batches) == 5
    for batch in batches:
        counts = Counter(labels[row] for row in batch)
        assert counts == {0: 4, 1: 3, 2: 4}
        assert len(set(batch)) == len(batch)
    assert batches == class_batches(labels, 12, seed=1, epoch=1, count=5) != class_batches(labels, 12, 2, 1, 5)
    many = class_batches(list(range(50)) * 4, 12, seed=0, epoch=1, count=3)
    assert all(sorted(Counter(row % 50 for row in batch).values()) == [2] * 6 for batch in many)
    assert class_batches([0, 1, 0], 12, seed=0, epoch=1, count=2) == [[0, 1, 2]] * 2


@pytest.fixture
def few(reviews) -> TextData:
    data = ptune.load_data(reviews)
    train = data.train.select([*range(0, 12)])
    only = TextData({"train": train, "test": data.validation}, data.labels, data.columns, data.source)
    return hold_back(only, seed=0)


def test_rows_held_back_come_back_and_folds_hold_each_row_once(few) -> None:
    everything = give_back(few)
    assert len(everything.train) == len(few.train) + len(few.validation) == 12
    assert Counter(everything.train.texts) == Counter([*few.train.texts, *few.validation.texts])
    parts = [fold(everything, number, 3, seed=0) for number in range(3)]
    held = [text for part in parts for text in part.validation.texts]
    assert Counter(held) == Counter(everything.train.texts)
    for part in parts:
        assert len(part.train) + len(part.validation) == 12
        assert set(part.train.labels or []) == {0, 1}


@pytest.mark.parametrize(("classes", "each", "folds"), [(30, 2, 3), (2, 2, 3), (12, 1, 5), (3, 5, 4), (1, 7, 7)])
def test_no_fold_is_empty_and_all_are_equally_large(classes, each, folds) -> None:
    labels = [number % classes for number in range(classes * each)]
    split = Split([f"text {number}" for number in range(len(labels))], None, labels)
    data = TextData({"train": split}, [str(number) for number in range(classes)], Columns("text", None, "label"), "x")
    parts = [fold(data, number, folds, seed=0).validation for number in range(folds)]
    assert sorted(text for part in parts for text in part.texts) == sorted(split.texts)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    for label in range(classes):
        counts = [(part.labels or []).count(label) for part in parts]
        assert max(counts) - min(counts) <= 1


@pytest.mark.parametrize("settings", [{"best": "accuracy"}, {"patience": 2}])
def test_with_folds_there_are_no_epochs_to_choose_from(settings) -> None:
    with pytest.raises(ConfigError, match="no epochs to choose from; leave out `folds`, or `best` and `patience`"):
        TrainConfig(folds=2, **settings)
    settled = TrainConfig(objective="contrastive", epochs=3, **settings).settle(DEEP, FEW)
    assert settled.folds is None
    assert settled.best == "accuracy"


def test_a_stopped_cross_validation_says_how_to_go_on(backbone, few, tmp_path, monkeypatch, caplog) -> None:
    calls = []

    def stop(self: Steps, *args) -> None:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        take(self, *args)

    take = Steps.take
    monkeypatch.setattr(Steps, "take", stop)
    model = ptune.PromptClassifier(backbone("bert"), PromptConfig(method="deep", virtual_tokens=4), few.labels)
    with pytest.raises(KeyboardInterrupt):
        ptune.train(model, few, output=tmp_path / "run")
    assert "stopped during the cross-validation; continue with `resume=True`" in caplog.text


def test_a_run_goes_on_after_the_folds_that_are_finished(backbone, few, tmp_path, monkeypatch, caplog) -> None:
    folder, measure = tmp_path / "run", Run.measure
    measured: list[Run] = []

    def train(data: TextData = few, **settings) -> ptune.TrainResult:
        model = ptune.PromptClassifier(backbone("bert"), PromptConfig(method="deep", virtual_tokens=4), few.labels)
        return ptune.train(model, data, TrainConfig(**settings), output=folder, resume=bool(measured))

    def count(self: Run, limit: float | None) -> Measured:
        measured.append(self)
        if len(measured) == stop:
            raise KeyboardInterrupt
        return measure(self, limit)

    caplog.set_level("INFO")
    stop = 0
    whole = train()
    assert (folder / CHECKPOINT_FILE).exists()
    monkeypatch.setattr(Run, "measure", count)
    for stop in (2, 4):  # noqa: B007 (`count` reads it)
        with pytest.raises(KeyboardInterrupt):
            train()
        assert not (folder / CHECKPOINT_FILE).exists()  # that of the earlier run
    assert f"1 of {FOLDS} folds were measured" in caplog.text
    with pytest.raises(ConfigError, match=r"folds.safetensors' belongs to another run: `lr` was"):
        train(lr=0.001)
    with pytest.raises(ConfigError, match="the training or validation rows are not the same"):
        train(replace(few, splits={**few.splits, "train": few.train.select(range(8))}))
    stop = 0
    result = train()
    assert len(measured) == 1 + 2 + 1 + (FOLDS - 2)
    assert torch.equal(result.logits, whole.logits)
    assert result.metrics == whole.metrics
    assert result.seconds > sum(result.seconds for result in load_folds(folder, measured[0].identity)) > 0
    assert torch.equal(train().logits, whole.logits)  # of a run that is finished
    before = len(measured)
    (folder / FOLDS_FILE).unlink()  # as in a run of an earlier version
    caplog.clear()
    assert train().metrics == whole.metrics
    assert "already finished" in caplog.text
    del measured[before:]
    assert len(measured) == 1 + 2 + 1 + (FOLDS - 2)
    assert "nothing to resume" not in caplog.text


def test_a_run_without_folds_leaves_no_results_of_an_earlier_one(backbone, few, tmp_path) -> None:
    def train(**settings) -> None:
        model = ptune.PromptClassifier(backbone("bert"), PromptConfig(method="deep", virtual_tokens=4), few.labels)
        ptune.train(model, few, TrainConfig(**settings), output=tmp_path)

    train(folds=2)
    assert (tmp_path / FOLDS_FILE).exists()
    train(objective="labels", epochs=1)
    assert has_run(tmp_path)
    assert not (tmp_path / FOLDS_FILE).exists()


@pytest.mark.parametrize("damage", ["junk", "cut", "metadata"])
def test_damaged_results_of_folds_are_refused(damage, tmp_path) -> None:
    results = [FoldResult(torch.zeros(1, 4, 2), 0.5)]
    save_folds(tmp_path, results, {"training": {"folds": 3}}, Processes())
    path = tmp_path / FOLDS_FILE
    if damage == "metadata":
        save_file({"0": torch.zeros(1)}, path, metadata={"ptune": "[]"})
    else:
        path.write_bytes(b"junk" if damage == "junk" else path.read_bytes()[:-3])
    with pytest.raises(AdapterError, match=r"folds.safetensors' is damaged.*train without `resume`"):
        load_folds(tmp_path, {"training": {"folds": 3}})
    assert recorded_settings(tmp_path) is None or damage == "cut"


def test_the_time_limit_is_that_of_all_folds_and_the_training(backbone, few, tmp_path, caplog) -> None:
    model = ptune.PromptClassifier(backbone("bert"), PromptConfig(method="deep", virtual_tokens=4), few.labels)
    started = time.perf_counter()
    result = ptune.train(model, few, TrainConfig(objective="contrastive", time_limit=0.4), output=tmp_path / "run")
    assert result.seconds <= time.perf_counter() - started
    (message,) = [record.message for record in caplog.records if "time limit" in record.message]
    assert message.startswith("the time limit of 0.4 s was reached after")


def test_more_folds_than_rows_are_refused() -> None:
    with pytest.raises(ConfigError, match="`folds=100` needs at least 100 training rows, but there are 48"):
        TrainConfig(folds=100).settle(DEEP, FEW)


def test_few_rows_train_on_all_rows_and_are_measured_by_folds(backbone, few, tmp_path) -> None:
    model = ptune.PromptClassifier(backbone("bert"), PromptConfig(method="deep", virtual_tokens=4), few.labels)
    result = ptune.train(model, few, output=tmp_path / "one")
    assert result.metrics["count"] == 12
    record = ptune.read_adapter(tmp_path / "one").record
    assert (record.training["objective"], record.training["folds"]) == ("contrastive", FOLDS)
    again = ptune.PromptClassifier(backbone("bert"), PromptConfig(method="deep", virtual_tokens=4), few.labels)
    ptune.train(again, few, output=tmp_path / "two")
    name = "adapter_model.safetensors"
    assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    loaded = ptune.load(tmp_path / "one", backbone=backbone("bert"))
    texts = few.train.texts
    torch.testing.assert_close(loaded.logits(texts), result.classifier.logits(texts))


def test_prompts_learn_to_bring_texts_of_a_class_together(backbone, few, tmp_path) -> None:
    model = ptune.PromptClassifier(backbone("bert"), PromptConfig(method="deep", virtual_tokens=4), few.labels)
    losses: list[float] = []
    config = TrainConfig(objective="contrastive", lr=0.02, epochs=1)
    everything = replace(give_back(few), splits={**give_back(few).splits, "validation": few.validation})
    result = ptune.train(model, everything, config, output=tmp_path, on_step=lambda *step: losses.append(step[3]))
    assert losses[-1] < losses[0]
    logits = result.classifier.logits(everything.train.texts)
    assert (logits.argmax(dim=1) == torch.tensor(everything.train.labels)).float().mean() > 0.8


def test_all_rows_of_a_batch_are_compared_however_many_are_computed_at_a_time(backbone, few, tmp_path) -> None:
    """The rows are in the order of their classes, so parts of a batch would have one class each."""
    everything = give_back(few)
    order = sorted(range(len(everything.train)), key=lambda row: everything.train.labels[row])
    rows = replace(everything, splits={"train": everything.train.select(order), "validation": few.validation})

    def trained(name: str, most_rows: int, tokens: int) -> tuple[dict[str, torch.Tensor], list[float], int]:
        model = ptune.PromptClassifier(backbone("bert"), PromptConfig(method="deep", virtual_tokens=4), few.labels)
        config = TrainConfig(objective="contrastive", lr=0.02, average=0.0, seeds=2, ensemble=True)
        losses, passes = [], []
        outputs = Steps._outputs

        def note(self, batch, prompts):
            passes.append(len(batch[0]))
            return outputs(self, batch, prompts)

        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(steps.COMPARED_ROWS, "cpu", most_rows)
            patch.setitem(steps.PART_TOKENS, "cpu", tokens)
            patch.setattr(Steps, "_outputs", note)
            patch.setattr(Run, "_batch_count", 8)
            on_step = lambda *step: losses.append(step[3])  # noqa: E731
            result = ptune.train(model, rows, config, output=tmp_path / name, on_step=on_step)
        return result.classifier.model.trainable_state(), losses, len(passes)

    whole, losses, passes = trained("whole", 100, 10_000)
    for name, most_rows, tokens in (("parts", 5, 10_000), ("twice", 5, 40), ("single", 100, 1)):
        state, own_losses, own_passes = trained(name, most_rows, tokens)
        assert own_passes > passes
        assert own_losses == pytest.approx(losses, rel=1e-4)
        for key, tensor in whole.items():
            torch.testing.assert_close(state[key], tensor, rtol=1e-3, atol=1e-4)


def test_folds_work_for_labels_too(backbone, few, tmp_path) -> None:
    model = ptune.PromptClassifier(backbone("bert"), PromptConfig(method="deep", virtual_tokens=4), few.labels)
    config = TrainConfig(objective="labels", folds=2, epochs=2)
    settled = settle(config, model, few)
    assert (settled.best, settled.objective) == ("last", "labels")
    result = ptune.train(model, few, config, output=tmp_path)
    assert result.metrics["count"] == 12
    assert result.epochs == 2
