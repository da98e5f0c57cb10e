"""Several threads use one device at a time."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

import ptune
from tests.conftest import review_rows
from tests.gpu.conftest import classifier
from tests.training.test_train import run

pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("default")]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_threads_that_share_a_backbone_get_their_own_answers(dtype, load) -> None:
    models = [
        ptune.TextClassifier.around(classifier(load("bert", dtype=dtype), softmax=softmax))
        for softmax in ("shared", "separate")
    ]
    work = [(models[number % 2], [row["text"] for row in review_rows(20, seed=number)]) for number in range(8)]
    expected = [model.predict_proba(texts) for model, texts in work]
    with ThreadPoolExecutor(4) as pool:
        for answers, alone in zip(pool.map(lambda task: task[0].predict_proba(task[1]), work), expected, strict=True):
            torch.testing.assert_close(answers, alone, atol=1e-6, rtol=0)


def test_a_run_in_a_thread_is_the_run_of_the_main_thread(load, device, reviews, tmp_path) -> None:
    compiled = device.type == "cuda"  # CUDA graphs are for the main thread alone
    options = {"epochs": 2, "compile": compiled}
    torch._dynamo.reset()
    here, _ = run(load("roberta"), reviews, tmp_path / "here", **options)
    with ThreadPoolExecutor(1) as pool:
        there, _ = pool.submit(run, load("roberta"), reviews, tmp_path / "there", **options).result()
    assert [line["train_loss"] for line in there.history] == pytest.approx(
        [line["train_loss"] for line in here.history], rel=1e-3
    )
