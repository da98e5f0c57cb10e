"""The training loop: the best state is kept, resuming is exact, and problems are reported."""

from __future__ import annotations

import json
import logging
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import ptune
from ptune.data.targets import SINGLE
from ptune.errors import ConfigError, OutputError, TrainingError
from ptune.evaluation.metrics import evaluate_logits
from ptune.model.objective import balanced_weights
from ptune.training import checkpoint
from ptune.training import steps as training_steps
from ptune.training.checkpoint import CHECKPOINT_FILE
from ptune.training.train import train
from tests.conftest import review_rows, write_jsonl

ADAPTER_FILES = ("adapter_model.safetensors", "ptune.json")


def new_model(backbone, seed: int = 0, **settings) -> ptune.PromptClassifier:
    config = ptune.PromptConfig(**{"virtual_tokens": 4, "encoder_hidden_size": 8, **settings})
    return ptune.PromptClassifier(backbone, config, ["negative", "positive"], seed=seed)


def run(
    backbone, data_folder, output, *, resume=False, on_step=None, callbacks=(), settings=None, model=None, **training
):
    data = ptune.load_data(data_folder)
    config = ptune.TrainConfig(**{"epochs": 4, "batch_size": 5, "seed": 3, **training})
    model = model or new_model(backbone, config.seed, **(settings or {}))
    return train(model, data, config, output=output, resume=resume, on_step=on_step, callbacks=callbacks), data


def best_epoch(history: list[dict]) -> dict:
    """The epoch with the best accuracy, averaged with that of the epoch before; the lower loss decides a tie."""
    before = [history[0], *history]
    averaged = [(now["accuracy"] + then["accuracy"], -now["loss"]) for now, then in zip(history, before, strict=False)]
    return history[averaged.index(max(averaged))]


def measured(classifier: ptune.TextClassifier, data) -> dict[str, float]:
    logits = classifier.split_logits(data.validation)
    return evaluate_logits(logits, torch.tensor(data.validation.labels), temperature=classifier.temperature)


@pytest.mark.parametrize(
    "settings",
    [
        {"method": "deep"},
        {"method": "p-tuning", "encoder": "mlp"},
        {"method": "p-tuning", "encoder": "lstm", "encoder_dropout": 0.2},
        {"method": "prompt-tuning", "pooling": "mean"},
    ],
    ids=lambda settings: settings["method"] + "-" + settings.get("encoder", "none"),
)
def test_the_model_after_training_is_the_best_one_to_the_last_digit(settings, backbone, reviews, tmp_path) -> None:
    result, data = run(backbone("bert"), reviews, tmp_path, settings=settings, lr=0.05)
    best = best_epoch(result.history)
    assert result.best_epoch == best["epoch"]
    assert result.metrics["loss"] == best["loss"]
    assert measured(result.classifier, data) == result.metrics
    loaded = ptune.load(tmp_path, device="cpu")
    assert measured(loaded, data) == result.metrics


@pytest.mark.parametrize("method", ["deep", "p-tuning", "prompt-tuning"])
def test_training_learns_what_one_word_says(method, backbone, tmp_path) -> None:
    write_jsonl(tmp_path / "train.jsonl", review_rows(240, seed=5))
    write_jsonl(tmp_path / "validation.jsonl", review_rows(60, seed=6))
    settings = {"method": method, "pooling": "mean", "token_dropout": 0}
    result, data = run(
        backbone("bert"), tmp_path, tmp_path / "a", settings=settings, epochs=16, lr=0.03, head_lr=0.03, average=0.9
    )
    assert data.majority_share() == 0.5
    assert result.metrics["accuracy"] >= 0.7  # three and more standard deviations above chance


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(backbone, reviews, tmp_path) -> None:
    settings = {"method": "p-tuning", "encoder": "lstm", "encoder_dropout": 0.3}
    for name, seed in (("one", 3), ("two", 3), ("other", 4)):
        run(backbone("gpt2"), reviews, tmp_path / name, epochs=2, seed=seed, settings=settings)
    for file in (*ADAPTER_FILES, "adapter_config.json"):
        one, two = ((tmp_path / name / file).read_bytes() for name in ("one", "two"))
        assert one == two, file
    weights = [(tmp_path / name / ADAPTER_FILES[0]).read_bytes() for name in ("one", "other")]
    assert weights[0] != weights[1]


class StopError(Exception):
    """A stand-in for a power cut."""


def read_every(steps: int, patch: pytest.MonkeyPatch) -> None:
    """Read the losses as late as on a GPU."""
    patch.setitem(training_steps.READ_EVERY, "cpu", steps)


@pytest.mark.parametrize("late", [4, 7])
def test_reading_losses_late_changes_nothing(late, backbone, reviews, tmp_path, monkeypatch) -> None:
    settings = {"method": "p-tuning", "encoder_dropout": 0.4}
    at_once, _ = run(backbone("bert"), reviews, tmp_path / "at once", settings=settings, checkpoint_steps=6)
    read_every(late, monkeypatch)
    seen = []
    other, _ = run(
        backbone("bert"),
        reviews,
        tmp_path / "late",
        settings=settings,
        checkpoint_steps=6,
        on_step=lambda done, total, epoch, loss: seen.append((epoch, done)),
    )
    strip = [{k: v for k, v in line.items() if k != "seconds"} for line in other.history]
    assert strip == [{k: v for k, v in line.items() if k != "seconds"} for line in at_once.history]
    for file in ADAPTER_FILES:
        assert (tmp_path / "late" / file).read_bytes() == (tmp_path / "at once" / file).read_bytes()
    assert [done for epoch, done in seen if epoch == 1][-1] == 48  # all are read by the end of the epoch
    assert len(seen) < 40


@pytest.mark.parametrize("late", [1, 4])
@pytest.mark.parametrize("stop_after", [1, 13, 20])
@pytest.mark.parametrize("settings", [{"method": "deep"}, {"method": "p-tuning", "encoder_dropout": 0.4}])
def test_a_run_resumed_after_a_stop_ends_as_if_never_stopped(
    settings, stop_after, late, backbone, reviews, tmp_path, monkeypatch
) -> None:
    read_every(late, monkeypatch)
    stop_after = -(-stop_after // late)
    whole, _ = run(backbone("bert"), reviews, tmp_path / "whole", settings=settings)
    steps = 0

    def stop(*_: object) -> None:
        nonlocal steps
        steps += 1
        if steps == stop_after:
            raise StopError

    with pytest.raises(StopError):
        run(backbone("bert"), reviews, tmp_path / "cut", settings=settings, on_step=stop, checkpoint_steps=3)
    torch.manual_seed(12345)  # what happened in between must not matter
    torch.rand(7)
    resumed, _ = run(backbone("bert"), reviews, tmp_path / "cut", settings=settings, resume=True, checkpoint_steps=3)
    assert resumed.metrics == whole.metrics
    strip = [{k: v for k, v in line.items() if k != "seconds"} for line in resumed.history]
    assert strip == [{k: v for k, v in line.items() if k != "seconds"} for line in whole.history]
    for file in ADAPTER_FILES:
        assert (tmp_path / "cut" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()
    assert len((tmp_path / "cut" / "metrics.jsonl").read_text().splitlines()) == 4


@pytest.mark.parametrize(("number", "late"), [(signal.SIGINT, 1), (signal.SIGTERM, 1), (signal.SIGINT, 4)])
def test_a_stop_from_outside_leaves_a_checkpoint_at_the_very_step(
    number, late, backbone, reviews, tmp_path, monkeypatch
) -> None:
    read_every(late, monkeypatch)

    def stop(done: int, total: int, epoch: int, loss: float) -> None:
        if epoch == 2:
            # Its handler is called as Python would. A real signal can end this process on some kernels once a test
            # before has used the CPU's matrix unit; the command is sent one in a process of its own.
            signal.getsignal(number)(number, None)

    with pytest.raises(KeyboardInterrupt):
        run(backbone("bert"), reviews, tmp_path / "cut", on_step=stop)
    whole, _ = run(backbone("bert"), reviews, tmp_path / "whole")
    resumed, _ = run(backbone("bert"), reviews, tmp_path / "cut", resume=True)
    assert resumed.metrics == whole.metrics


@pytest.mark.parametrize("objective", ["labels", "contrastive"])
def test_a_run_goes_on_with_the_same_model_object_as_with_a_new_one(objective, backbone, reviews, tmp_path) -> None:
    """As in a notebook, where a run is interrupted and the cell is run again."""
    data = ptune.load_data(reviews)
    config = ptune.TrainConfig(objective=objective, epochs=3, batch_size=5)

    def interrupt(done: int, total: int, epoch: int, loss: float) -> None:
        if epoch == 2:
            raise KeyboardInterrupt

    def trained(folder: Path, same: bool) -> bytes:
        model = new_model(backbone("bert"), softmax="separate")
        with pytest.raises(KeyboardInterrupt):
            train(model, data, config, output=folder, on_step=interrupt)
        model = model if same else new_model(backbone("bert"), softmax="separate")
        train(model, data, config, output=folder, resume=True)
        return (folder / "adapter_model.safetensors").read_bytes()

    assert trained(tmp_path / "same", same=True) == trained(tmp_path / "new", same=False)


def test_a_finished_run_is_not_run_again(backbone, reviews, tmp_path) -> None:
    first, data = run(backbone("bert"), reviews, tmp_path)
    again, _ = run(backbone("bert"), reviews, tmp_path, resume=True, on_step=lambda *_: pytest.fail("trained again"))
    assert again.metrics == first.metrics
    assert measured(again.classifier, data) == first.metrics


def test_a_checkpoint_of_another_run_is_refused_with_what_differs(backbone, reviews, tmp_path) -> None:
    run(backbone("bert"), reviews, tmp_path, epochs=1)
    with pytest.raises(ConfigError, match=r"belongs to another run: .*`epochs` was 1 and is now 4"):
        run(backbone("bert"), reviews, tmp_path, resume=True)


def test_settings_as_a_dict_are_refused_with_what_to_write(backbone, reviews, tmp_path) -> None:
    data = ptune.load_data(reviews)
    model = ptune.PromptClassifier.from_backbone(backbone("bert"), labels=data.labels)
    with pytest.raises(ConfigError, match=r"`config` is a dict; give the settings as `ptune.TrainConfig"):
        train(model, data, {"epochs": 1}, output=tmp_path)


def test_resuming_nothing_starts_anew_and_says_so(backbone, reviews, tmp_path, caplog) -> None:
    with caplog.at_level(logging.WARNING, "ptune"):
        run(backbone("bert"), reviews, tmp_path, epochs=1, resume=True)
    assert "nothing to resume" in caplog.text


def test_metrics_are_json_lines_with_one_best_marked_last(backbone, reviews, tmp_path) -> None:
    result, _ = run(backbone("bert"), reviews, tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4]
    assert {"train_loss", "loss", "accuracy", "f1", "step", "seconds"} <= lines[0].keys()
    assert [line["epoch"] for line in lines if line["best"]][-1] == result.best_epoch


def test_accumulated_batches_are_one_large_batch(backbone, reviews, tmp_path) -> None:
    """transformers' Trainer multiplies the loss by the number of batches in this case; ptune must not."""
    whole = {"token_dropout": 0}  # drawn once a batch, so it would differ
    large, _ = run(backbone("bert"), reviews, tmp_path / "large", epochs=1, batch_size=48, settings=whole)
    small, _ = run(backbone("bert"), reviews, tmp_path / "small", epochs=1, batch_size=5, accumulate=10, settings=whole)
    assert small.history[0]["train_loss"] == pytest.approx(large.history[0]["train_loss"], abs=1e-5)
    one, two = (ptune.load(tmp_path / name, device="cpu").model.prompt() for name in ("large", "small"))
    torch.testing.assert_close(one, two, atol=1e-4, rtol=0)


@pytest.mark.parametrize("seeds", [1, 2])
def test_rows_count_by_their_weights_as_classes_do_by_theirs(seeds, backbone, reviews, tmp_path) -> None:
    data = ptune.load_data(reviews)
    rows = data.train.select([row for row in range(48) if row % 6 in (0, 1, 2, 4)])  # three of four are positive
    weights = balanced_weights(SINGLE, torch.tensor(rows.labels), 2)[torch.tensor(rows.labels)].tolist()
    tensors = []
    for name, split, settings in (
        ("rows", replace(rows, weights=weights), {}),
        ("classes", rows, {"class_weights": "balanced"}),
        ("plain", rows, {}),
    ):
        model = new_model(backbone("bert"), pooling="mean")
        config = ptune.TrainConfig(epochs=2, batch_size=5, seeds=seeds, **settings)
        train(model, replace(data, splits={**data.splits, "train": split}), config, output=tmp_path / name)
        tensors.append(torch.cat([tensor.flatten() for tensor in model.trainable_state().values()]))
    torch.testing.assert_close(tensors[0], tensors[1])
    assert not torch.equal(tensors[0], tensors[2])


def test_patience_stops_early(backbone, reviews, tmp_path) -> None:
    result, _ = run(backbone("bert"), reviews, tmp_path, epochs=30, lr=1e-9, head_lr=1e-9, patience=2)
    assert result.epochs == result.best_epoch + 2 < 30


@pytest.mark.parametrize("skipping", [("cpu",), ()])
@pytest.mark.parametrize("late", [1, 4, 100])
def test_a_loss_that_is_not_finite_stops_at_the_step_and_keeps_the_last_good_state(
    late, skipping, backbone, reviews, tmp_path, monkeypatch
) -> None:
    read_every(late, monkeypatch)
    monkeypatch.setattr(training_steps, "SKIPPING", skipping)
    calls = 0
    original = training_steps.start_logits

    def poisoned(*args, **kwargs):
        nonlocal calls
        calls += 1
        pending = original(*args, **kwargs)
        if calls != 13:  # the third step of the second epoch
            return pending
        return pending.then(lambda logits: {owner: x * float("nan") for owner, x in logits.items()})

    monkeypatch.setattr(training_steps, "start_logits", poisoned)
    with pytest.raises(TrainingError, match=r"not a finite number at step 13 .*adapter of epoch 1 is saved"):
        run(backbone("bert"), reviews, tmp_path, settings={"token_dropout": 0.5})
    monkeypatch.undo()
    data = ptune.load_data(reviews)
    first = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[0])
    assert measured(ptune.load(tmp_path, device="cpu"), data)["loss"] == first["loss"]
    # The checkpoint is of the state before the bad step, so the run can be taken up.
    resumed, _ = run(backbone("bert"), reviews, tmp_path, settings={"token_dropout": 0.5}, resume=True)
    whole, _ = run(backbone("bert"), reviews, tmp_path / "whole", settings={"token_dropout": 0.5})
    assert resumed.metrics == whole.metrics
    assert [line["train_loss"] for line in resumed.history] == [line["train_loss"] for line in whole.history]


def test_one_answer_for_everything_is_warned_about(backbone, reviews, tmp_path, caplog) -> None:
    with caplog.at_level(logging.WARNING, "ptune"):
        run(backbone("bert"), reviews, tmp_path, epochs=1, lr=1e-9, head_lr=1e-9, settings={"softmax": "shared"})
    assert "every prediction is" in caplog.text


def test_no_padding_to_speak_of_is_trained_on(backbone, reviews, tmp_path, monkeypatch) -> None:
    shapes = []
    original = training_steps.start_logits

    def spy(models, prompts, owners, inputs, start=None):
        ids, mask = inputs.input_ids, inputs.attention_mask
        shapes.append((ids.numel() if mask is None else int(mask.sum()), ids.numel()))
        return original(models, prompts, owners, inputs, start)

    monkeypatch.setattr(training_steps, "start_logits", spy)
    run(backbone("bert"), reviews, tmp_path, epochs=1)
    real, padded = map(sum, zip(*shapes, strict=True))
    assert real / padded > 0.9


def test_a_damaged_checkpoint_is_explained(backbone, reviews, tmp_path) -> None:
    run(backbone("bert"), reviews, tmp_path, epochs=1)
    path = tmp_path / CHECKPOINT_FILE
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ptune.PtuneError, match=r"checkpoint .* is damaged .* train without `resume`"):
        run(backbone("bert"), reviews, tmp_path, epochs=1, resume=True)


def test_a_full_disk_in_mid_training_leaves_the_older_adapter_whole(backbone, reviews, tmp_path, monkeypatch) -> None:
    run(backbone("bert"), reviews, tmp_path / "a", epochs=1)
    shutil.copytree(tmp_path / "a", tmp_path / "before")
    original = Path.open

    def full(self, mode="r", *args, **kwargs):
        file = original(self, mode, *args, **kwargs)
        if "w" in mode and "adapter_model" in self.name:
            file.write(b"half of it")
            file.close()
            raise OSError(28, "No space left on device")
        return file

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(ptune.PtuneError, match="No space left on device"):
        run(backbone("bert"), reviews, tmp_path / "a", epochs=1, seed=9)
    monkeypatch.undo()
    for file in ADAPTER_FILES:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "before" / file).read_bytes()
    assert not list((tmp_path / "a").glob("*.part")) + list((tmp_path / "a").glob(".*part"))


@pytest.mark.parametrize("full_after", [2, 6])  # the second of the first epoch, and the very last
def test_a_checkpoint_that_cannot_be_written_ends_the_run(full_after, backbone, reviews, tmp_path, monkeypatch) -> None:
    """It is written in the background, but the error still ends the run, and the previous checkpoint stays whole."""
    written, original = [], checkpoint.write_files

    def full(folder, files, remove=()):
        written.append(files)
        if len(written) == full_after:
            raise OutputError("cannot write: No space left on device")
        original(folder, files, remove)

    monkeypatch.setattr(checkpoint, "write_files", full)
    with pytest.raises(OutputError, match="No space left"):
        run(backbone("bert"), reviews, tmp_path, epochs=2, checkpoint_steps=4)
    assert len(written) == full_after
    monkeypatch.undo()
    resumed, _ = run(backbone("bert"), reviews, tmp_path, epochs=2, checkpoint_steps=4, resume=True)
    whole, _ = run(backbone("bert"), reviews, tmp_path / "whole", epochs=2)
    assert resumed.metrics == whole.metrics


def test_the_state_that_is_kept_is_the_moving_average(backbone, reviews, tmp_path) -> None:
    """By hand: with decay 0.5 the average after each step is half the old one and half the new state."""
    states = []
    data = ptune.load_data(reviews)
    config = ptune.TrainConfig(epochs=1, batch_size=12, average=0.5)
    model = new_model(backbone("bert"))

    def note(*_: object) -> None:
        states.append({name: tensor.clone() for name, tensor in model.trainable_state().items()})

    train(model, data, config, output=tmp_path, on_step=note)
    expected = {name: tensor.clone() for name, tensor in states[0].items()}  # one step: a mean of one
    for state in states[1:]:
        expected = {name: 0.5 * tensor + 0.5 * state[name] for name, tensor in expected.items()}
    assert len(states) == 4
    for name, tensor in model.trainable_state().items():
        torch.testing.assert_close(tensor, expected[name])


def test_token_dropout_leaves_out_virtual_tokens_in_training_alone(backbone) -> None:
    model = new_model(backbone("bert"), method="deep", softmax="shared", token_dropout=0.5).train()
    ids = torch.tensor([[2, 5, 6, 3]])
    drawn = {tuple(model(ids).logits.flatten().tolist()) for _ in range(8)}
    assert len(drawn) > 1
    model.eval()
    assert torch.equal(model(ids).logits, model(ids).logits)


@pytest.mark.parametrize(
    "settings", [{"method": "deep"}, {"method": "p-tuning"}], ids=lambda settings: settings["method"]
)
def test_batches_read_in_parts_train_the_same(settings, backbone, reviews, tmp_path, monkeypatch) -> None:
    def train(name: str, tokens: int) -> tuple[dict[str, torch.Tensor], list[int]]:
        monkeypatch.setitem(training_steps.PART_TOKENS, "cpu", tokens)
        read = []
        outputs = training_steps.Steps._outputs

        def note(self, batch, prompts):
            read.append(len(batch[0]))
            return outputs(self, batch, prompts)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(training_steps.Steps, "_outputs", note)
            result, _ = run(backbone("bert"), reviews, tmp_path / name, settings=settings, epochs=1, average=0.0)
        return result.classifier.model.trainable_state(), read

    whole, batches = train("whole", 1000)
    parts, read = train("parts", 15)
    assert max(read) < max(batches) == 5
    assert sum(read) == sum(batches)
    for name, tensor in whole.items():
        torch.testing.assert_close(parts[name], tensor, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"encoder_hidden_size": 512}, ["encoder_hidden_size"]),
        ({"encoder_dropout": 0.5, "encoder_layers": 3}, ["encoder_layers", "encoder_dropout"]),
        ({"method": "p-tuning", "encoder": "mlp", "encoder_layers": 3}, ["encoder_layers"]),
        ({"method": "prompt-tuning", "shift_text": False}, ["shift_text"]),
        ({"method": "prompt-tuning"}, []),
        ({"method": "p-tuning", "encoder": "lstm", "encoder_layers": 1, "encoder_hidden_size": 8}, []),
    ],
)
def test_a_setting_without_effect_is_reported(settings, expected, backbone, reviews, tmp_path, caplog) -> None:
    data = ptune.load_data(reviews)
    model = ptune.PromptClassifier.from_backbone(
        backbone("bert"), ptune.PromptConfig(virtual_tokens=2, **settings), labels=data.labels
    )
    with caplog.at_level(logging.WARNING, "ptune"):
        ptune.train(model, data, ptune.TrainConfig(epochs=1), output=tmp_path)
    messages = [record.getMessage() for record in caplog.records if "has no effect" in record.getMessage()]
    assert [message.split()[0] for message in messages] == [f"`{name}`" for name in expected]


@pytest.mark.parametrize("labels", [["positive", "negative"], ["a", "b"], ["negative", "neutral", "positive"]])
def test_a_model_with_other_labels_than_the_data_is_refused(labels, backbone, reviews, tmp_path) -> None:
    data = ptune.load_data(reviews)
    model = ptune.PromptClassifier.from_backbone(backbone("bert"), labels=labels)
    with pytest.raises(ConfigError, match=r"negative, positive.*make the model with `labels=data\.labels"):
        ptune.train(model, data, ptune.TrainConfig(epochs=1), output=tmp_path / "a")
    assert not (tmp_path / "a").exists()
