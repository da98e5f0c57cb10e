"""The engine: rows of different classifiers in one call get the same logits as alone."""

from __future__ import annotations

import random

import pytest
import torch

from ptune.data.batch import Inputs
from ptune.data.encode import Encoded
from ptune.data.targets import MULTI, REGRESSION, SINGLE
from ptune.inference.engine import compute_logits, run_logits
from ptune.model.classifier import PromptClassifier
from ptune.model.config import PromptConfig
from ptune.model.mixed import group_of, start_logits

# (settings, classes, problem type). Prompt lengths, methods, poolings, heads and classes differ.
ADAPTERS = [
    ({"method": "deep", "virtual_tokens": 5}, 2, SINGLE),
    ({"method": "deep", "virtual_tokens": 5, "pooling": "last"}, 7, SINGLE),
    ({"method": "deep", "virtual_tokens": 3, "softmax": "shared", "pooling": "first"}, 3, MULTI),
    ({"method": "deep", "virtual_tokens": 3, "pooling": "peft"}, 4, SINGLE),
    ({"method": "p-tuning", "virtual_tokens": 4}, 5, SINGLE),
    ({"method": "prompt-tuning", "virtual_tokens": 6, "pooling": "mean"}, 1, REGRESSION),
]


def classifiers(backbone) -> list[PromptClassifier]:
    models = []
    for seed, (settings, classes, problem_type) in enumerate(ADAPTERS):
        labels = [f"label {number}" for number in range(classes)]
        model = PromptClassifier(backbone, PromptConfig(**settings), labels, seed=seed, problem_type=problem_type)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for tensor in model.trainable_state().values():
                tensor.copy_(0.3 * torch.randn(tensor.shape, generator=generator))
        models.append(model.eval())
    return models


def rows(count: int) -> list[Encoded]:
    draw = random.Random(0)
    return [Encoded([2, *draw.choices(range(4, 40), k=draw.randint(1, 20)), 3], None) for _ in range(count)]


@pytest.mark.parametrize("family", ["bert", "roberta", "modernbert", "gpt2", "llama"])
def test_a_mixed_batch_gives_each_row_the_logits_that_its_classifier_gives_alone(family, backbone) -> None:
    models, encoded = classifiers(backbone(family)), rows(29)
    owners = [row % len(models) for row in range(len(encoded))]  # interleaved
    longest = max(map(len, encoded))
    ids = torch.zeros(len(encoded), longest, dtype=torch.long)
    for row, one in enumerate(encoded):
        ids[row, : len(one)] = torch.tensor(one.ids)
    inputs = Inputs(ids, (ids > 0).long())
    with torch.no_grad():
        prompts = [model.prompt() for model in models]
        together = start_logits(models, prompts, owners, inputs).result()
    for number, model in enumerate(models):
        member_rows = [row for row, owner in enumerate(owners) if owner == number]
        alone = torch.cat([run_logits(model, [encoded[row]], pad_id=0) for row in member_rows])
        assert together[number].shape == (len(member_rows), len(model.labels))
        torch.testing.assert_close(together[number], alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("batch_size", [None, 3])
def test_rows_with_several_classifiers_come_back_in_the_order_requested(batch_size, backbone) -> None:
    models, encoded = classifiers(backbone("bert")), rows(17)
    wanted = [(row, number) for number in range(len(models)) for row in range(17) if (row + number) % 3]
    random.Random(1).shuffle(wanted)
    outcome = compute_logits(models, encoded, wanted, pad_id=0, batch_size=batch_size)
    for number, model in enumerate(models):
        expected = run_logits(model, [encoded[row] for row, owner in wanted if owner == number], pad_id=0)
        torch.testing.assert_close(outcome.logits[number], expected, atol=1e-5, rtol=1e-5)


def test_classifiers_that_can_share_a_forward_pass_do_so(backbone, monkeypatch) -> None:
    loaded = backbone("bert")
    config = PromptConfig(method="deep", virtual_tokens=5)
    models = [PromptClassifier(loaded, config, ["a", "b"][:n] or ["a"], seed=n) for n in (1, 2)]
    models.append(PromptClassifier(loaded, PromptConfig(method="deep", virtual_tokens=6), ["a", "b"]))
    assert len({group_of(model, model.prompt()) for model in models}) == 2
    passes = []
    forward = type(loaded).forward

    def counted(self, inputs, *arguments, **options):
        passes.append(len(inputs))
        return forward(self, inputs, *arguments, **options)

    monkeypatch.setattr(type(loaded), "forward", counted)
    wanted = [(row, number) for row in range(4) for number in range(3)]
    compute_logits(models, rows(4), wanted, pad_id=0, batch_size=99)
    assert [count for count in passes if count in (4, 8)] == [8, 8, 4, 4]  # a mean is one pass inside another call


def test_a_classifier_without_rows_gets_empty_logits(backbone) -> None:
    models = classifiers(backbone("bert"))[:2]
    outcome = compute_logits(models, rows(2), [(0, 1), (1, 1)], pad_id=0)
    assert [tuple(logits.shape) for logits in outcome.logits] == [(0, 2), (2, 7)]
    assert [tuple(x.shape) for x in compute_logits(models, [], [], pad_id=0).logits] == [(0, 2), (0, 7)]


def test_a_pending_result_is_computed_only_once(backbone) -> None:
    (model, *_), encoded = classifiers(backbone("bert")), rows(1)
    pending = start_logits([model], [model.prompt()], [0], Inputs(torch.tensor([encoded[0].ids])))
    assert pending.result() is pending.result()
