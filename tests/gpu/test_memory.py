"""A GPU that runs out of memory: batches are read in parts, and the run comes out the same."""

from __future__ import annotations

import gc
import logging
from collections.abc import Iterator

import pytest
import torch

import ptune
from ptune.inference.engine import run_model
from tests.conftest import write_jsonl
from tests.training.test_train import new_model

pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("default")]

# Large enough for the parts of a batch to count beside what a GPU takes anyway.
LARGE = {"hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 4, "max_position_embeddings": 128}
ROWS, WORDS = 256, 100


@pytest.fixture
def data(tmp_path):
    """256 rows of 102 tokens to train on, and as many to evaluate."""
    texts = [{"text": " ".join([word] * WORDS), "label": label} for word, label in (("good", "up"), ("bad", "down"))]
    for split in ("train", "validation"):
        write_jsonl(tmp_path / f"{split}.jsonl", texts * (ROWS // 2))
    return ptune.load_data(tmp_path)


@pytest.fixture
def most_memory(gpu) -> Iterator[None]:
    """Take away every limit afterwards."""
    yield
    torch.cuda.set_per_process_memory_fraction(1.0, gpu)


def limit_memory(gpu: torch.device, peak: int, share: float) -> None:
    """Leave what is allocated now, and this share of what the peak was above it."""
    gc.collect()
    torch.cuda.empty_cache()
    allowed = torch.cuda.memory_reserved(gpu) + share * (peak - torch.cuda.memory_allocated(gpu))
    torch.cuda.set_per_process_memory_fraction(allowed / torch.cuda.get_device_properties(gpu).total_memory, gpu)


def train(backbone, data, folder):
    config = ptune.TrainConfig(epochs=1, batch_size=ROWS, average=0.0, compile=False)
    model = ptune.PromptClassifier(backbone, ptune.PromptConfig(virtual_tokens=4, token_dropout=0), data.labels)
    return ptune.train(model, data, config, output=folder)


def test_training_goes_on_in_parts_when_memory_ends(gpu, load, data, tmp_path, most_memory, caplog) -> None:
    caplog.set_level(logging.INFO)
    backbone = load("bert", **LARGE)
    torch.cuda.reset_peak_memory_stats(gpu)
    whole = train(backbone, data, tmp_path / "whole")
    limit_memory(gpu, torch.cuda.max_memory_allocated(gpu), 0.7)
    parts = train(backbone, data, tmp_path / "parts")
    assert "no memory left; batches are read in parts" in caplog.text
    assert parts.history[0]["train_loss"] == pytest.approx(whole.history[0]["train_loss"], rel=1e-4)
    assert parts.metrics["loss"] == pytest.approx(whole.metrics["loss"], rel=1e-3)


def test_prediction_goes_on_in_smaller_batches_when_memory_ends(gpu, load, data, most_memory) -> None:
    backbone = load("bert", **LARGE)
    classifier = ptune.TextClassifier.around(new_model(backbone))
    texts = data.train.texts
    torch.cuda.reset_peak_memory_stats(gpu)
    expected = classifier.predict_proba(texts)
    limit_memory(gpu, torch.cuda.max_memory_allocated(gpu), 0.6)
    torch.testing.assert_close(classifier.predict_proba(texts), expected, atol=1e-4, rtol=0)
    _, most_tokens = run_model(classifier.model, classifier.encode(texts), classifier.pad_id)
    assert most_tokens is not None
