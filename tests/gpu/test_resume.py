"""A run that was cut off ends, on the same card, with the very bytes of one that was not."""

from __future__ import annotations

import pytest
import torch

from tests.conftest import write_jsonl
from tests.training.test_train import ADAPTER_FILES, StopError, run

pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("default")]


def write_rows(folder, words: int):
    """Write 96 rows of 1 to so many words."""
    rows = [{"text": " ".join(["good", "bad"][i % 2] for _ in range(1 + i * words // 96))} for i in range(96)]
    for row in rows:
        row["label"] = "positive" if row["text"].startswith("good") else "negative"
    for split in ("train", "validation"):
        write_jsonl(folder / f"{split}.jsonl", rows)
    return folder


@pytest.mark.parametrize("words", [50, 200], ids=["short rows", "rows of several blocks"])
@pytest.mark.parametrize("settings", [{"method": "deep"}, {"method": "p-tuning", "encoder_dropout": 0.4}], ids=str)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_resumed_run_ends_with_the_same_bytes(dtype, settings, words, load, tmp_path) -> None:
    backbone = load("bert", dtype=dtype, max_position_embeddings=512)
    options = {"settings": settings, "epochs": 2, "checkpoint_steps": 4}
    data = write_rows(tmp_path, words)
    run(backbone, data, tmp_path / "whole", **options)
    reads = 0

    def stop(*_: object) -> None:
        nonlocal reads
        reads += 1
        if reads == 3:
            raise StopError

    with pytest.raises(StopError):
        run(backbone, data, tmp_path / "cut", on_step=stop, **options)
    torch.manual_seed(12345)  # what happened in between must not matter
    run(backbone, data, tmp_path / "cut", resume=True, **options)
    for file in ADAPTER_FILES:
        assert (tmp_path / "cut" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes(), file
