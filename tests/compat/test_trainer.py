"""PromptClassifier under transformers' Trainer: gradient accumulation does not change losses or gradients."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch

import ptune
from ptune.cli import main
from ptune.data.targets import MULTI, REGRESSION, SINGLE
from ptune.errors import AdapterError, DataError
from ptune.inference.classifier import TextClassifier
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
        assert set(file.keys()) == {*model.trainable_state(), "_extra_state"}


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


@pytest.fixture
def trained_on_texts(backbone, backbone_folder, tmp_path) -> Any:
    """Train a classifier under the Trainer with a tokenizer, as scripts do, and return the Trainer."""
    from transformers import AutoTokenizer, DataCollatorWithPadding, Trainer, TrainingArguments

    def train(family: str = "bert", problem_type: Any = SINGLE, **prompt: Any) -> Any:
        tokenizer = AutoTokenizer.from_pretrained(backbone_folder(family))
        tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
        label = {SINGLE: int, MULTI: lambda positive: [1.0, float(positive)], REGRESSION: lambda x: 90.0 + 20 * x}
        rows = [
            {**tokenizer(row["text"]), "labels": label[problem_type](row["label"] == "positive")}
            for row in review_rows(24)
        ]
        names = ["stars"] if problem_type == REGRESSION else ["neg", "pos"]
        config = ptune.PromptConfig(**{"virtual_tokens": 3, **prompt})
        model = ptune.PromptClassifier.from_backbone(
            backbone(family), config, labels=names, problem_type=problem_type, seed=2
        )
        if problem_type == REGRESSION:
            model.standardise(torch.tensor([90.0, 110.0]))
        arguments = TrainingArguments(
            output_dir=str(tmp_path / "out"),
            learning_rate=1e-2,
            num_train_epochs=2,
            save_strategy="epoch",
            eval_strategy="epoch",
            load_best_model_at_end=True,
            use_cpu=True,
            report_to="none",
            disable_tqdm=True,
        )
        trainer = Trainer(
            model=model,
            args=arguments,
            train_dataset=rows,
            eval_dataset=rows,
            processing_class=tokenizer,
            data_collator=DataCollatorWithPadding(tokenizer),
        )
        trainer.train()
        return trainer

    return train


TEXTS = [row["text"] for row in review_rows(6, seed=5)]


@pytest.mark.parametrize(
    ("family", "problem_type", "prompt"),
    [
        ("bert", SINGLE, {}),
        ("bert", MULTI, {}),
        ("bert", REGRESSION, {}),
        ("bert", SINGLE, {"method": "p-tuning", "pooling": "peft", "encoder": "mlp", "encoder_hidden_size": 8}),
        ("bert", SINGLE, {"method": "p-tuning", "encoder": "lstm", "encoder_hidden_size": 8, "init": "vocabulary"}),
        ("bert", SINGLE, {"method": "prompt-tuning", "pooling": "first", "tie_first": True, "init": "vocabulary"}),
        ("gpt2", SINGLE, {"method": "deep", "init": "text", "init_text": "a good film"}),
    ],
)
def test_a_folder_that_the_trainer_saved_is_loaded(family, problem_type, prompt, trained_on_texts, tmp_path) -> None:
    trainer = trained_on_texts(family, problem_type, **prompt)
    trainer.save_model(str(tmp_path / "saved"))
    expected = TextClassifier.around(trainer.model.eval()).logits(TEXTS)
    loaded = ptune.load(tmp_path / "saved", device="cpu")
    assert loaded.model.problem_type == problem_type
    assert loaded.labels == trainer.model.labels
    torch.testing.assert_close(loaded.logits(TEXTS), expected, rtol=1e-5, atol=1e-5)
    loaded.save(tmp_path / "adapter")
    again = ptune.load(tmp_path / "adapter", device="cpu")
    torch.testing.assert_close(again.logits(TEXTS), expected, rtol=1e-5, atol=1e-5)
    checkpoints = sorted((tmp_path / "out").glob("checkpoint-*"))
    assert len(checkpoints) == 2
    assert all(ptune.read_adapter(folder).record.labels == trainer.model.labels for folder in checkpoints)


def test_the_trainer_says_nothing_about_special_tokens(trained_on_texts, caplog) -> None:
    with caplog.at_level(logging.WARNING):
        trained_on_texts()
    assert not [record for record in caplog.records if "new PAD/BOS/EOS tokens" in record.getMessage()]


def test_the_commands_take_the_trainers_folder(trained_on_texts, tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    trained_on_texts().save_model("saved")
    main(["inspect", "saved"])
    assert "neg, pos" in capsys.readouterr().out
    main(["predict", "saved", "--text", "a good film"])
    assert "pos" in capsys.readouterr().out
    with pytest.raises(SystemExit) as caught:
        main(["push", "saved", "my-name/saved"])
    assert caught.value.code == 2
    message = capsys.readouterr().err
    assert "`ptune export saved OUTPUT`" in message
    main(["export", "saved", "OUTPUT"])
    assert sorted(path.name for path in (tmp_path / "OUTPUT").iterdir()) == ["adapter_model.safetensors", "ptune.json"]
    assert ptune.read_adapter("OUTPUT").facts is None
    with pytest.raises(SystemExit) as caught:
        main(["export", "saved", "for-peft", "--to", "peft"])
    assert caught.value.code == 2
    assert "ptune export saved OUTPUT" in capsys.readouterr().err
    assert not (tmp_path / "for-peft").exists()


def test_a_damaged_state_of_the_trainer_is_named(trained_on_texts, tmp_path) -> None:
    from safetensors.torch import load_file, save_file

    trained_on_texts().save_model(str(tmp_path))
    path = tmp_path / "model.safetensors"
    state = load_file(path)
    facts = json.loads(bytes(state["_extra_state"].tolist()))

    def with_facts(content: object) -> None:
        packed = torch.frombuffer(bytearray(json.dumps(content).encode()), dtype=torch.uint8)
        save_file({**state, "_extra_state": packed}, path)

    with_facts({**facts, "record": {**facts["record"], "classes": 7}})
    with pytest.raises(AdapterError, match=r"no valid record of a classifier: .*2 labels are named"):
        ptune.load(tmp_path)
    for damaged in ([], {}, {**facts, "record": 3}):
        with_facts(damaged)
        with pytest.raises(AdapterError, match=r"not a complete state|no valid record"):
            ptune.load(tmp_path)
    with_facts({**facts, "target_scale": None})
    with pytest.raises(AdapterError, match="not the state of the classifier that it describes"):
        ptune.load(tmp_path)
    save_file({**state, "head.linear.bias": torch.full((2,), torch.nan)}, path)
    with pytest.raises(AdapterError, match=r"tensor 'head.linear.bias' holds numbers that are not finite"):
        ptune.load(tmp_path)
    save_file({name: tensor for name, tensor in state.items() if name != "head.linear.bias"}, path)
    with pytest.raises(AdapterError, match="not the state of the classifier that it describes"):
        ptune.load(tmp_path)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(AdapterError, match="not a complete state"):
        ptune.load(tmp_path)
    save_file({"weight": torch.ones(2)}, path)  # of another model
    with pytest.raises(AdapterError, match=r"holds neither ptune.json nor adapter_config.json"):
        ptune.load(tmp_path)


@pytest.mark.parametrize(
    ("problem_type", "labels", "said"),
    [
        (SINGLE, [0, 3], r"a label is 3, but the model has 3 classes, 0 to 2"),
        (SINGLE, [-1, 1], r"a label is -1, but"),
        (SINGLE, [0.0, 1.0], r"float32 of shape \[2\]; whole numbers of shape \[2\] are expected"),
        (SINGLE, [[1, 0, 0], [0, 1, 0]], r"int64 of shape \[2, 3\]"),
        (MULTI, [0, 1], r"of shape \[2\]; 0 or 1 for each of the 3 labels, as numbers of shape \[2, 3\]"),
        (REGRESSION, [[1.0, 2.0], [3.0, 4.0]], r"numbers of shape \[2\] are expected"),
    ],
)
def test_labels_that_do_not_suit_the_model_are_named(problem_type, labels, said, backbone) -> None:
    model = classifier(backbone("bert"), problem_type)
    ids = torch.full((2, 5), 7)
    with pytest.raises(DataError, match=said):
        model(ids, labels=torch.tensor(labels))


def test_labels_may_be_left_out_of_the_loss_and_have_any_type_of_numbers(backbone) -> None:
    ids = torch.full((2, 5), 7)
    assert classifier(backbone("bert"))(ids, labels=torch.tensor([1, -100], dtype=torch.int32)).loss.isfinite()
    assert classifier(backbone("bert"), MULTI)(ids, labels=torch.ones(2, 3, dtype=torch.long)).loss.isfinite()
    stars = classifier(backbone("bert"), REGRESSION)
    losses = [stars(ids, labels=labels).loss for labels in (torch.tensor([1, 3]), torch.tensor([[1.0], [3.0]]))]
    assert losses[0] == losses[1]


def test_gradient_checkpointing_changes_nothing_but_memory(backbone, tmp_path) -> None:
    models = [classifier(backbone("bert")) for _ in range(2)]
    for model, checkpointing in zip(models, (False, True), strict=True):
        folder = tmp_path / str(checkpointing)
        trained(model, dataset(SINGLE, 8), folder, activation_checkpointing=checkpointing)
    plain, recomputed = (model.trainable_state() for model in models)
    for name, tensor in plain.items():
        assert torch.equal(recomputed[name], tensor), name


def test_a_state_of_a_regression_brings_its_unit(backbone) -> None:
    model, other = (classifier(backbone("bert"), REGRESSION) for _ in range(2))
    model.standardise(torch.tensor([90.0, 110.0, 100.0]))
    other.load_state_dict(model.state_dict())
    ids = torch.full((2, 5), 7)
    assert torch.equal(other.eval()(ids).logits, model.eval()(ids).logits)
    plain = {name: tensor for name, tensor in model.state_dict().items() if name != "_extra_state"}
    assert other.load_state_dict(plain).missing_keys == []  # of an earlier version


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
