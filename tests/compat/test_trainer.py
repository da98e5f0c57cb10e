"""PromptClassifier under transformers' Trainer: gradient accumulation does not change losses or gradients."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import ptune
from ptune.data.targets import MULTI, REGRESSION, SINGLE
from tests.conftest import review_rows


def classifier(backbone: Any, problem_type: Any = SINGLE) -> ptune.PromptClassifier:
    labels = ["stars"] if problem_type == REGRESSION else ["a", "b", "c"]
    config = ptune.PromptConfig(virtual_tokens=3, token_dropout=0.0)
    model = ptune.PromptClassifier(backbone, config, labels, seed=2, problem_type=problem_type)
    with torch.no_grad():
        model.head.linear.weight.mul_(30)  # losses of some size
    return model


def dataset(problem_type: Any, count: int) -> list[dict[str, Any]]:
    torch.manual_seed(4)
    targets: dict[Any, torch.Tensor] = {
        SINGLE: torch.randint(0, 3, (count,)),
        MULTI: torch.randint(0, 2, (count, 3)).float(),
        REGRESSION: torch.randn(count),
    }
    rows = torch.randint(4, 47, (count, 7))
    return [{"input_ids": row, "labels": label} for row, label in zip(rows, targets[problem_type], strict=True)]


def trained(model: Any, rows: list[dict[str, Any]], output: Path, **settings: Any) -> Any:
    from transformers import Trainer, TrainingArguments

    defaults = {"learning_rate": 1e-2, "logging_steps": 1, "use_cpu": True, "report_to": "none", "disable_tqdm": True}
    trainer = Trainer(
        model=model,
        args=TrainingArguments(output_dir=str(output), **{**defaults, **settings}),
        train_dataset=rows,
        eval_dataset=rows[:8],
    )
    trainer.train()
    return trainer


def log(trainer: Any, *names: str) -> list[float]:
    return [line[name] for line in trainer.state.log_history if "loss" in line for name in names]


@pytest.mark.parametrize(
    ("problem_type", "count"), [(SINGLE, 32), (MULTI, 32), (REGRESSION, 32), (SINGLE, 29), (MULTI, 29)]
)
def test_accumulated_batches_are_one_large_batch(problem_type, count, backbone, tmp_path) -> None:
    rows = dataset(problem_type, count)
    runs = [
        trained(
            classifier(backbone("roberta"), problem_type),
            rows,
            tmp_path,
            max_steps=3,
            per_device_train_batch_size=16 // steps,
            gradient_accumulation_steps=steps,
            save_strategy="no",
        )
        for steps in (1, 4)
    ]
    whole, parts = (log(run, "loss", "grad_norm") for run in runs)
    assert parts == pytest.approx(whole, rel=1e-4)


def test_the_trainer_ends_with_the_best_state_and_stores_no_backbone(backbone, tmp_path) -> None:
    model = classifier(backbone("bert"))
    trainer = trained(
        model,
        dataset(SINGLE, 24),
        tmp_path,
        num_train_epochs=4,
        eval_strategy="epoch",
        save_strategy="epoch",
        load_best_model_at_end=True,
    )
    assert trainer.evaluate()["eval_loss"] == trainer.state.best_metric
    from safetensors import safe_open

    with safe_open(tmp_path / "checkpoint-3" / "model.safetensors", framework="pt") as file:
        assert set(file.keys()) == set(model.trainable_state())


def test_a_state_of_the_trained_parts_is_loaded_without_complaint(backbone) -> None:
    model, other = (classifier(backbone("gpt2")) for _ in range(2))
    with torch.no_grad():
        model.head.linear.bias.fill_(3.0)
    assert not any("backbone" in name for name in model.state_dict())
    keys = other.load_state_dict(model.state_dict())
    assert keys.missing_keys == keys.unexpected_keys == []
    assert torch.equal(other.head.linear.bias, model.head.linear.bias)
    with pytest.raises(RuntimeError, match=r"Missing key.*head.linear.bias"):
        other.load_state_dict({k: v for k, v in model.state_dict().items() if not k.endswith("linear.bias")})


def test_texts_of_a_tokenizer_go_through_the_trainer(backbone, backbone_folder, tmp_path) -> None:
    from transformers import AutoTokenizer, DataCollatorWithPadding, Trainer, TrainingArguments

    tokenizer = AutoTokenizer.from_pretrained(backbone_folder("bert"))
    rows = [{**tokenizer(row["text"]), "labels": int(row["label"] == "positive")} for row in review_rows(16)]
    trainer = Trainer(
        model=classifier(backbone("bert")),
        args=TrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to="none", disable_tqdm=True),
        eval_dataset=rows,
        processing_class=tokenizer,
        data_collator=DataCollatorWithPadding(tokenizer),
    )
    assert trainer.predict(rows).predictions.shape == (16, 3)
