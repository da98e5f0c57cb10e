"""A batch that does not fit into a GPU's memory is split into parts; a single row that does not fit is an error."""

from __future__ import annotations

import itertools

import pytest
import torch

import ptune
from ptune.errors import BackboneError, ConfigError, TrainingError
from ptune.inference.classifier import WINDOW, TextClassifier
from ptune.inference.engine import run_logits, run_model
from ptune.model import loading
from ptune.model.backbone import Backbone
from ptune.model.memory import memory_errors, ways_out
from ptune.training.member import Member
from tests.conftest import write_jsonl
from tests.training.test_train import new_model, run


@pytest.fixture
def limited(monkeypatch):
    """Limit a backbone's memory to a number of tokens; return the sizes of the batches that it receives."""

    def limit(backbone: Backbone, tokens: int) -> list[int]:
        asked = []
        forward = type(backbone).forward
        errors = itertools.cycle(
            (
                torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
                RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
            )
        )

        def short_of_memory(self, inputs, *args, **options):
            asked.append(inputs.input_ids.numel())
            if inputs.input_ids.numel() > tokens:
                raise next(errors)
            return forward(self, inputs, *args, **options)

        monkeypatch.setattr(type(backbone), "forward", short_of_memory)
        return asked

    return limit


@pytest.mark.parametrize(
    ("settings", "training"),
    [
        ({"method": "deep", "token_dropout": 0.5}, {"accumulate": 2}),
        ({"method": "p-tuning", "encoder": "lstm", "encoder_dropout": 0.2}, {}),
        ({"method": "deep"}, {"seeds": 2, "ensemble": True}),
    ],
    ids=["accumulated", "lstm", "ensemble"],
)
def test_training_goes_on_in_smaller_parts_to_the_same_end(
    settings, training, backbone, reviews, tmp_path, limited
) -> None:
    # Muon would enlarge the rounding differences between a batch and its parts.
    options = {"settings": settings, "epochs": 2, "average": 0.0, "optimizer": "adamw", **training}
    whole, _ = run(backbone("bert"), reviews, tmp_path / "whole", **options)
    asked = limited(backbone("bert"), 30)
    parts, _ = run(backbone("bert"), reviews, tmp_path / "parts", **options)
    assert sum(tokens > 30 for tokens in asked) >= 2  # in training, and in evaluation
    assert [line["train_loss"] for line in parts.history] == pytest.approx(
        [line["train_loss"] for line in whole.history], abs=1e-5
    )
    state = parts.classifier.model.state_dict()
    for name, tensor in whole.classifier.model.state_dict().items():
        torch.testing.assert_close(state[name], tensor, rtol=1e-4, atol=1e-5)


def test_a_row_that_does_not_fit_ends_training_with_advice(backbone, reviews, tmp_path, limited) -> None:
    limited(backbone("bert"), 3)
    with pytest.raises(
        TrainingError, match=r"cpu has no memory for a row of \d+ tokens; cut texts with `max_length`, use"
    ):
        run(backbone("bert"), reviews, tmp_path)


def test_prediction_tries_less_and_says_what_fitted(backbone, reviews, tmp_path, limited) -> None:
    result, data = run(backbone("bert"), reviews, tmp_path, epochs=1)
    classifier = result.classifier
    rows = classifier.encoder.encode(data.train.texts, None)
    expected = run_logits(classifier.model, rows, classifier.pad_id)
    asked = limited(classifier.model.backbone, 40)
    logits, most_tokens = run_model(classifier.model, rows, classifier.pad_id)
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)
    assert max(asked) > 40
    asked.clear()
    again, same = run_model(classifier.model, rows, classifier.pad_id, most_tokens=most_tokens)
    torch.testing.assert_close(again, expected, atol=1e-5, rtol=1e-5)
    assert (max(asked) <= 40, same) == (True, most_tokens)
    asked.clear()
    texts = data.train.texts[:8]
    many = [texts[number % 8] for number in range(WINDOW + 100)]
    assert len(list(classifier.stream(many))) == WINDOW + 100
    assert sum(tokens > 40 for tokens in asked) <= 6  # tried once, in the first of two windows
    with pytest.raises(ConfigError, match="no memory for a batch of 48 rows; use a smaller `batch_size`"):
        run_logits(classifier.model, rows, classifier.pad_id, batch_size=64)
    limited(classifier.model.backbone, 3)
    with pytest.raises(ConfigError, match=r"no memory for a row of \d+ tokens"):
        run_logits(classifier.model, rows, classifier.pad_id)


def test_one_long_row_that_does_not_fit_is_named_whatever_else_is_read(backbone, tmp_path, limited) -> None:
    """Shorter rows in the same batch do not make it split without end."""
    names = ("positive", "negative")
    rows = [{"text": " ".join(["good"] * (60 if i < 16 else 3)), "label": names[i % 2]} for i in range(48)]
    for split in ("train", "validation"):
        write_jsonl(tmp_path / f"{split}.jsonl", rows)
    limited(backbone("bert"), 40)
    with pytest.raises(TrainingError, match="no memory for a row of 62 tokens; cut texts"):
        run(backbone("bert"), tmp_path, tmp_path / "adapter", accumulate=4)
    with pytest.raises(TrainingError, match="fewer `virtual_tokens` or fewer `seeds`"):
        run(backbone("bert"), tmp_path, tmp_path / "adapters", seeds=2, ensemble=True)

    classifier = TextClassifier.around(new_model(backbone("bert"), 0))
    with pytest.raises(ConfigError, match="no memory for a row of 62 tokens; use a smaller `max_length`"):
        classifier.predict_proba([row["text"] for row in rows])
    classifier.predict_proba([row["text"] for row in rows[16:]])


def test_an_optimizer_without_memory_has_its_own_error(backbone, reviews, tmp_path, monkeypatch) -> None:
    def no_memory(*_):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(Member, "step", no_memory)
    with pytest.raises(
        TrainingError, match="cpu has no memory for the optimizer in addition to the backbone; use fewer"
    ):
        run(backbone("bert"), reviews, tmp_path)


def test_a_backbone_that_does_not_fit_is_named_with_its_size(backbone_folder, monkeypatch) -> None:
    def no_memory(self, *_):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(loading.Backbone, "to", no_memory)
    with pytest.raises(BackboneError, match=r"no memory for backbone .*, which is 0\.0 GB in float32; use `dtype="):
        ptune.load_backbone(str(backbone_folder("bert")), dtype="float32", device="cpu")


def test_all_that_torch_raises_for_want_of_memory_is_one_error() -> None:
    with pytest.raises(torch.OutOfMemoryError, match="allocate"), memory_errors():
        torch.empty(2**60, dtype=torch.uint8)
    with pytest.raises(RuntimeError, match="size") as error, memory_errors():
        torch.ones(2) + torch.ones(3)
    assert not isinstance(error.value, torch.OutOfMemoryError)


def test_another_device_is_a_way_out_for_a_gpu_alone() -> None:
    assert ways_out(torch.device("cpu"), "fewer rows") == "use fewer rows"
    assert ways_out(torch.device("cpu"), "fewer rows", "shorter texts") == "use fewer rows or shorter texts"
    assert ways_out(torch.device("cuda"), "fewer rows") == "use fewer rows or `device='cpu'`"
