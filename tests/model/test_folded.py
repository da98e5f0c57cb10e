"""Prompts that are folded once, gathered by row, with heads applied together: the same logits as one by one."""

from __future__ import annotations

import pytest
import torch

from ptune.data.encode import Encoded
from ptune.data.targets import REGRESSION
from ptune.inference.engine import compute_logits
from ptune.model import many_heads
from ptune.model.classifier import PromptClassifier
from ptune.model.config import PromptConfig
from ptune.model.folded import Folded
from ptune.model.loading import load_backbone
from ptune.model.row_prompts import RowPrompts

P, L, HKV, B = 3, 2, 32, 5
ROWS = [
    Encoded([2, *range(4, 4 + length), 3], [0] * (length + 2), mask_position=length % 3, pair_position=2)
    for length in (3, 9, 4, 6, 2, 7)
]


def make(backbone, seed: int, labels: str = "ab", **settings) -> PromptClassifier:
    problem_type = settings.pop("problem_type", "single_label_classification")
    config = PromptConfig(**{"virtual_tokens": P, **settings})
    model = PromptClassifier(backbone, config, list(labels), None, seed, problem_type).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in [*model.prompt_encoder.parameters(), *model.head.parameters()]:
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model


def alone(model, row: Encoded) -> torch.Tensor:
    return compute_logits([model], [row], [(0, 0)], 0).logits[0]


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "gpt2", "llama", "deberta-v2"])
def test_rows_of_many_folded_classifiers_are_those_of_each_alone(family, backbone) -> None:
    model = backbone(family)
    kinds: list[dict[str, object]] = [{}, {}, {"labels": "abc"}, {"pooling": "last"}, {"softmax": "shared"}]
    kinds += [{"pooling": "pair"}, {"pooling": "pair"}] * (family == "bert")
    kinds += [{"method": "p-tuning"}, {"method": "prompt-tuning"}, {"problem_type": REGRESSION, "labels": "n"}]
    models = [make(model, seed, **kind) for seed, kind in enumerate(kinds)]  # type: ignore[arg-type]
    models[-1].standardise(torch.tensor([100.0, 140.0]))
    wanted = [(row, number) for row in range(len(ROWS)) for number in range(len(models))]
    found = compute_logits([Folded(each) for each in models], ROWS, wanted, 0).logits
    for number, each in enumerate(models):
        expected = torch.cat([alone(each, row) for row in ROWS])
        torch.testing.assert_close(found[number], expected, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("method", ["deep", "p-tuning"])
def test_the_copy_of_a_prompt_has_the_number_type_of_its_backbone(method, backbone_folder) -> None:
    half = load_backbone(str(backbone_folder("bert")), dtype="bfloat16", device="cpu")
    model = make(half, seed=1, method=method)
    folded = Folded(model)
    assert folded.prompt().nbytes == 2 * model.prompt().numel()
    torch.testing.assert_close(alone(folded, ROWS[0]), alone(model, ROWS[0]), atol=0, rtol=0)


def test_heads_of_one_shape_are_one_product(backbone, monkeypatch) -> None:
    products = []
    together = many_heads._read_together
    monkeypatch.setattr(many_heads, "_read_together", lambda *args: products.append(args[3]) or together(*args))
    models = [Folded(make(backbone("bert"), seed, "abc" if seed % 2 else "ab")) for seed in range(8)]
    compute_logits(models, ROWS[:1], [(0, number) for number in range(8)], 0)
    assert [len(numbers) for numbers in products] == [4, 4]


def test_a_folded_prompt_is_a_copy(backbone) -> None:
    model = make(backbone("bert"), 1)
    folded = Folded(model)
    before = alone(folded, ROWS[0])
    with torch.no_grad():
        model.prompt_encoder.embedding.weight.zero_()
    assert torch.equal(alone(folded, ROWS[0]), before)
    assert folded.prompt().is_contiguous()
    assert folded.bytes == 4 * (2 * L * P * HKV + 2 * HKV + 2)


def test_row_prompts_are_stacked_as_a_whole_or_by_layer() -> None:
    prompts = [torch.randn(L, 2, P, HKV) for _ in range(B)]
    rows = RowPrompts(prompts)
    assert rows.shape == rows.stacked().shape == (L, 2, B, P, HKV)
    split = rows.split_heads(4, 8)
    assert split.shape == (L, 2, B, 4, P, 8)
    expected = rows.stacked().unflatten(-1, (4, 8)).transpose(3, 4)
    for layer in range(L):
        assert torch.equal(split[layer], expected[layer])


def test_rows_with_and_without_a_mask_token_share_a_batch(language_model) -> None:
    backbone = language_model("bert")
    models = [make(backbone, 1, template="{text} {mask}", pooling="mask"), make(backbone, 2)]
    bare = Encoded([2, 5, 6, 3], [0] * 4)
    for encoded in ([ROWS[0], bare], [bare, ROWS[0]]):
        wanted = [(encoded.index(ROWS[0]), 0), (encoded.index(bare), 1)]
        found = compute_logits(models, encoded, wanted, 0).logits
        torch.testing.assert_close(found[0], alone(models[0], ROWS[0]), atol=2e-5, rtol=1e-4)
        torch.testing.assert_close(found[1], alone(models[1], bare), atol=2e-5, rtol=1e-4)
