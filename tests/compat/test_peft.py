"""A script for PEFT's P-tuning runs under transformers' Trainer after changing one import."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ptune.compat import peft as ours
from ptune.errors import AdapterError, BackboneError, ConfigError, DataError
from tests.conftest import review_rows

GUIDE = ("roberta", "bert", "gpt2", "opt")
DECODERS = ("gpt2", "opt")
P = 4


def classifier_of(folder: Path, **settings: Any) -> Any:
    from transformers import AutoModelForSequenceClassification

    torch.manual_seed(3)
    return AutoModelForSequenceClassification.from_pretrained(
        folder, **{"num_labels": 2, "pad_token_id": 0, **settings}
    )


def p_tuning(**settings: Any) -> Any:
    return ours.PromptEncoderConfig(
        **{"task_type": "SEQ_CLS", "num_virtual_tokens": P, "encoder_hidden_size": 8, **settings}
    )


def prompted(folder: Path, config: Any = None, **settings: Any) -> Any:
    model = classifier_of(folder, **settings)
    torch.manual_seed(5)
    return ours.get_peft_model(model, config or p_tuning())


def tokenizer_of(folder: Path, side: str = "right") -> Any:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side=side)
    tokenizer.pad_token_id = 0  # the guide's line for tokenizers without one
    return tokenizer


def rows_of(tokenizer: Any, count: int, seed: int) -> list[dict[str, Any]]:
    rows = review_rows(count, seed)
    return [{**tokenizer(row["text"]), "labels": int(row["label"] == "positive")} for row in rows]


def trainer_of(model: Any, folder: Path, output: Path, side: str = "right", **settings: Any) -> Any:
    """Return the Trainer of PEFT's guide."""
    from transformers import DataCollatorWithPadding, Trainer, TrainingArguments

    tokenizer = tokenizer_of(folder, side)
    defaults: dict[str, Any] = {
        "learning_rate": 3e-2,
        "per_device_train_batch_size": 8,
        "per_device_eval_batch_size": 8,
        "num_train_epochs": 4,
        "weight_decay": 0.01,
        "eval_strategy": "epoch",
        "save_strategy": "epoch",
        "logging_steps": 1,
        "load_best_model_at_end": True,
        "use_cpu": True,
        "report_to": "none",
        "disable_tqdm": True,
    }
    return Trainer(
        model=model,
        args=TrainingArguments(output_dir=str(output), **{**defaults, **settings}),
        train_dataset=rows_of(tokenizer, 24, seed=1),
        eval_dataset=rows_of(tokenizer, 12, seed=2),
        processing_class=tokenizer,
        data_collator=DataCollatorWithPadding(tokenizer),
    )


def losses(trainer: Any) -> list[tuple[int, float]]:
    return [(line["step"], line["loss"]) for line in trainer.state.log_history if "loss" in line]


def inputs_of(folder: Path, side: str = "right") -> dict[str, Tensor]:
    texts = ["a good film", "the plot was bad and it ends slow", "fine"]
    return dict(tokenizer_of(folder, side)(texts, padding=True, return_tensors="pt"))


def logits_of(model: Any, inputs: dict[str, Tensor]) -> Tensor:
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return model.eval()(**inputs).logits


def one_by_one(model: Any, inputs: dict[str, Tensor]) -> Tensor:
    """Row after row without padding, under which PEFT's answers depend on the batch."""
    lengths = inputs["attention_mask"].sum(dim=1).tolist()
    rows = [{name: x[n : n + 1, :length] for name, x in inputs.items()} for n, length in enumerate(lengths)]
    return torch.cat([logits_of(model, row) for row in rows])


def in_peft(adapter: Path, folder: Path, **settings: Any) -> Any:
    from peft import PeftModel

    return PeftModel.from_pretrained(classifier_of(folder, **settings), adapter)


@pytest.mark.parametrize("kind", ["MLP", "LSTM"])
@pytest.mark.parametrize("family", GUIDE)
def test_the_guides_script_trains_and_ends_with_its_best_model(family, kind, backbone_folder, tmp_path) -> None:
    folder = backbone_folder(family)
    model = prompted(folder, p_tuning(encoder_reparameterization_type=kind))
    trainer = trainer_of(model, folder, tmp_path, side="left" if family in DECODERS else "right")
    trainer.train()
    assert min(loss for _, loss in losses(trainer)) < losses(trainer)[0][1]
    assert trainer.evaluate()["eval_loss"] == trainer.state.best_metric

    model.save_pretrained(tmp_path / "out")
    inputs = inputs_of(folder)
    answers = logits_of(model, inputs)
    torch.testing.assert_close(one_by_one(in_peft(tmp_path / "out", folder), inputs), answers, atol=1e-5, rtol=0)
    again = ours.PeftModel.from_pretrained(classifier_of(folder), tmp_path / "out")
    torch.testing.assert_close(logits_of(again, inputs), answers, atol=1e-6, rtol=0)


@pytest.mark.parametrize("family", ["roberta", "gpt2"])
def test_a_resumed_run_continues_as_if_it_had_never_stopped(family, backbone_folder, tmp_path) -> None:
    from transformers import TrainerCallback

    class StopAt(TrainerCallback):
        def on_save(self, args, state, control, **_):
            control.should_training_stop = True

    folder = backbone_folder(family)
    settings = {"save_strategy": "steps", "save_steps": 5, "eval_strategy": "no", "load_best_model_at_end": False}
    whole = trainer_of(prompted(folder), folder, tmp_path / "whole", **settings)
    whole.train()
    broken = trainer_of(prompted(folder), folder, tmp_path / "broken", **settings)
    broken.add_callback(StopAt)
    broken.train()
    assert broken.state.global_step == 5
    resumed = trainer_of(prompted(folder), folder, tmp_path / "broken", **settings)
    resumed.train(resume_from_checkpoint=True)
    assert losses(resumed) == losses(whole)
    own, other = (dict(trainer.model.named_parameters()) for trainer in (resumed, whole))
    assert all(torch.equal(parameter, other[name]) for name, parameter in own.items())


def test_a_checkpoint_of_the_trainer_is_an_adapter_that_keeps_its_encoder(backbone_folder, tmp_path) -> None:
    folder = backbone_folder("roberta")
    model = prompted(folder)
    trainer_of(model, folder, tmp_path, num_train_epochs=1, load_best_model_at_end=False).train()
    checkpoint = tmp_path / "checkpoint-3"
    size = (checkpoint / "model.safetensors").stat().st_size
    assert size < 4 * model.get_nb_trainable_parameters()[0] + 5000  # the backbone is not in it
    again = ours.PeftModel.from_pretrained(classifier_of(folder), checkpoint, is_trainable=True)
    state, expected = again.state_dict(), model.state_dict()
    assert state.keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in state.items())
    assert again.get_nb_trainable_parameters() == model.get_nb_trainable_parameters()
    inputs = inputs_of(folder)
    torch.testing.assert_close(
        logits_of(in_peft(checkpoint, folder), inputs), logits_of(model, inputs), atol=1e-5, rtol=0
    )


def test_a_folded_adapter_is_trained_further_without_an_encoder(backbone_folder, tmp_path) -> None:
    folder = backbone_folder("bert")
    model = prompted(folder)
    model.save_pretrained(tmp_path / "out")
    assert not (tmp_path / "out" / "model.safetensors").exists()
    again = ours.PeftModel.from_pretrained(classifier_of(folder), tmp_path / "out", is_trainable=True)
    trainer = trainer_of(again, folder, tmp_path / "run")
    first = trainer.evaluate()["eval_loss"]
    assert first == pytest.approx(trainer_of(model, folder, tmp_path / "other").evaluate()["eval_loss"], abs=1e-6)
    trainer.train()
    assert trainer.evaluate()["eval_loss"] == trainer.state.best_metric != first
    frozen = ours.PeftModel.from_pretrained(classifier_of(folder), tmp_path / "out")
    assert not any(parameter.requires_grad for parameter in frozen.parameters())
    assert not frozen.training


@pytest.mark.parametrize("family", ["roberta", "gpt2"])
def test_pefts_own_folders_are_read(family, backbone_folder, tmp_path) -> None:
    import peft

    folder = backbone_folder(family)
    torch.manual_seed(9)
    config = peft.PromptEncoderConfig(
        task_type="SEQ_CLS", num_virtual_tokens=P, encoder_hidden_size=8, encoder_reparameterization_type="LSTM"
    )
    theirs = peft.get_peft_model(classifier_of(folder), config)
    theirs.save_pretrained(tmp_path)
    inputs = inputs_of(folder)
    for is_trainable in (False, True):
        model = ours.PeftModel.from_pretrained(classifier_of(folder), tmp_path, is_trainable=is_trainable)
        torch.testing.assert_close(logits_of(model, inputs), one_by_one(theirs, inputs), atol=1e-5, rtol=0)
    read = ours.PeftConfig.from_pretrained(tmp_path)
    assert isinstance(read, ours.PromptEncoderConfig)
    assert (read.encoder_reparameterization_type, read.num_virtual_tokens, read.token_dim) == ("LSTM", P, 32)
    read.save_pretrained(tmp_path / "config")
    assert peft.PeftConfig.from_pretrained(tmp_path / "config").encoder_hidden_size == 8


@pytest.mark.parametrize(
    "config",
    [
        ours.PrefixTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=P),
        ours.PrefixTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=P, prefix_projection=True),
        ours.PromptTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=P, prompt_tuning_init="SAMPLE_VOCAB"),
        ours.PromptTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=P),
    ],
    ids=["prefix", "prefix projected", "vocabulary", "random"],
)
@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_prefix_and_prompt_tuning_train_and_are_read_by_peft(family, config, backbone_folder, tmp_path) -> None:
    folder = backbone_folder(family)
    model = prompted(folder, config)
    trainer = trainer_of(model, folder, tmp_path)
    trainer.train()
    assert trainer.evaluate()["eval_loss"] == trainer.state.best_metric
    model.save_pretrained(tmp_path / "out")
    inputs = inputs_of(folder)
    theirs = one_by_one(in_peft(tmp_path / "out", folder), inputs)
    torch.testing.assert_close(theirs, logits_of(model, inputs), atol=1e-5, rtol=0)


def test_prompt_tuning_starts_at_the_text_it_is_given(backbone_folder) -> None:
    folder = backbone_folder("gpt2")
    config = ours.PromptTuningConfig(
        task_type="SEQ_CLS",
        num_virtual_tokens=P,
        prompt_tuning_init="TEXT",
        prompt_tuning_init_text="a good film ends",
        tokenizer_name_or_path=str(folder),
    )
    model = prompted(folder, config)
    ids = tokenizer_of(folder)("a good film ends")["input_ids"]
    prompt = ours.get_peft_model_state_dict(model)["prompt_embeddings"]
    assert torch.equal(prompt, model.get_input_embeddings().weight[ids])


@pytest.mark.parametrize("family", GUIDE)
def test_answers_do_not_depend_on_the_side_or_the_amount_of_padding(family, backbone_folder) -> None:
    folder = backbone_folder(family)
    model = prompted(folder)
    right, left = (logits_of(model, inputs_of(folder, side)) for side in ("right", "left"))
    torch.testing.assert_close(left, right, atol=1e-6, rtol=0)
    texts = ["a good film"]
    full = tokenizer_of(folder, "left")(texts, padding="max_length", max_length=64, return_tensors="pt")
    torch.testing.assert_close(logits_of(model, dict(full)), right[:1], atol=1e-6, rtol=0)


def test_a_text_that_leaves_no_room_for_the_prompt_is_named(backbone_folder) -> None:
    model = prompted(backbone_folder("roberta"))  # 64 positions
    model(torch.full((2, 60), 7))
    with pytest.raises(DataError, match=r"has 61 tokens.*room for 60 in addition to 4 virtual tokens.*max_length=60"):
        model(torch.full((2, 61), 7))


def test_a_damaged_checkpoint_is_named(backbone_folder, tmp_path) -> None:
    folder = backbone_folder("bert")
    prompted(folder).save_pretrained(tmp_path, state_dict=None)
    content = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(content[:-9])
    with pytest.raises(AdapterError, match=r"cannot resume from .*model.safetensors .*remove that file"):
        ours.PeftModel.from_pretrained(classifier_of(folder), tmp_path, is_trainable=True)
    assert ours.PeftModel.from_pretrained(classifier_of(folder), tmp_path)


def test_an_adapter_notes_the_backbones_commit(backbone_folder, tmp_path) -> None:
    model = classifier_of(backbone_folder("bert"))
    model.config._commit_hash = "c0ffee"
    ours.get_peft_model(model, p_tuning()).save_pretrained(tmp_path)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["revision"] == "c0ffee"


def test_layers_of_an_mlp_are_ignored_with_a_warning(backbone_folder, caplog) -> None:
    prompted(backbone_folder("bert"), p_tuning(encoder_num_layers=7))
    assert "`encoder_num_layers` has no effect on an MLP" in caplog.text


def test_several_adapters_share_a_model(backbone_folder, tmp_path) -> None:
    folder = backbone_folder("roberta")
    model = prompted(folder)
    inputs = inputs_of(folder)
    first = logits_of(model, inputs)
    torch.manual_seed(6)
    model.add_adapter("other", ours.PrefixTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=3))
    assert model.active_adapters == ["default"]
    model.set_adapter("other")
    assert (model.active_adapter, model.peft_type) == ("other", ours.PeftType.PREFIX_TUNING)
    assert {n.split(".")[1] for n, p in model.named_parameters() if p.requires_grad} == {"other"}
    second = logits_of(model, inputs)
    assert not torch.allclose(first, second)
    with model.disable_adapter():
        with model.disable_adapter():
            pass
        torch.testing.assert_close(
            logits_of(model, inputs), logits_of(classifier_of(folder), inputs), atol=1e-6, rtol=0
        )
    model.save_pretrained(tmp_path)
    assert sorted(path.name for path in (tmp_path / "other").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
        "ptune.json",
    ]
    again = ours.PeftModel.from_pretrained(classifier_of(folder), tmp_path)
    again.load_adapter(tmp_path, "other", subfolder="other")
    assert list(again.peft_config) == ["default", "other"]
    torch.testing.assert_close(logits_of(again, inputs), first, atol=1e-6, rtol=0)
    again.set_adapter("other")
    torch.testing.assert_close(logits_of(again, inputs), second, atol=1e-6, rtol=0)
    again.delete_adapter("other")
    assert again.active_adapter == "default"
    torch.testing.assert_close(logits_of(again, inputs), first, atol=1e-6, rtol=0)


def test_a_state_goes_from_one_model_to_another(backbone_folder) -> None:
    folder = backbone_folder("bert")
    model, other = prompted(folder), prompted(folder, p_tuning(encoder_hidden_size=6))
    state = ours.get_peft_model_state_dict(model)
    assert list(state) == ["prompt_embeddings", "base_model.classifier.weight", "base_model.classifier.bias"]
    ours.set_peft_model_state_dict(other, state)
    inputs = inputs_of(folder)
    torch.testing.assert_close(logits_of(other, inputs), logits_of(model, inputs), atol=1e-6, rtol=0)
    assert other.get_nb_trainable_parameters()[0] == P * 32 + 2 * 32 + 2
    with pytest.raises(AdapterError, match="prompt_embeddings"):
        ours.set_peft_model_state_dict(prompted(folder, p_tuning(num_virtual_tokens=5)), state)


@pytest.mark.parametrize("change", ["half", "bfloat16", "double"])
@pytest.mark.parametrize("kind", ["p-tuning", "prefix"])
def test_another_number_type_is_for_the_backbone_alone(kind, change, backbone_folder) -> None:
    folder = backbone_folder("bert")
    config = None if kind == "p-tuning" else ours.PrefixTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=P)
    model = prompted(folder, config).eval()
    ids = torch.randint(5, 40, (3, 7))
    with torch.no_grad():
        before = model(ids).logits
        with model.disable_adapter():
            plain = model(ids).logits
        learned = {name: value.clone() for name, value in model.named_parameters() if value.requires_grad}
        assert getattr(model, change)() is model
        after = model(ids).logits
        with model.disable_adapter():
            plain_after = model(ids).logits
    assert model.backbone.dtype != torch.float32
    assert learned
    assert all(torch.equal(model.get_parameter(name), value) for name, value in learned.items())
    torch.testing.assert_close(after, before, atol=0.02, rtol=0.02)
    torch.testing.assert_close(plain_after.float(), plain, atol=0.02, rtol=0.02)


def test_a_checkpoint_without_its_pooler_is_refused(backbone_folder, tmp_path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(backbone_folder("bert") / "model.safetensors")
    shutil.copytree(backbone_folder("bert"), tmp_path / "bert")
    kept = {name: value for name, value in weights.items() if "pooler" not in name}
    assert len(kept) < len(weights)
    save_file(kept, tmp_path / "bert" / "model.safetensors", {"format": "pt"})
    with pytest.raises(BackboneError, match=r"no weights for its pooler.*save_pretrained"):
        prompted(tmp_path / "bert")
    model = classifier_of(tmp_path / "bert")
    model.save_pretrained(tmp_path / "whole")
    prompted(tmp_path / "whole")


def test_the_parameters_are_counted_as_in_the_guide(backbone_folder, capsys) -> None:
    folder = backbone_folder("roberta")
    model = prompted(folder)
    import peft

    config = peft.PromptEncoderConfig(task_type="SEQ_CLS", num_virtual_tokens=P, encoder_hidden_size=8)
    theirs = peft.get_peft_model(classifier_of(folder), config)
    assert model.get_nb_trainable_parameters()[0] == theirs.get_nb_trainable_parameters()[0]
    model.print_trainable_parameters()
    assert capsys.readouterr().out.startswith("trainable params: 1,")


def test_labels_of_other_problem_types_have_transformers_losses(backbone_folder) -> None:
    from torch.nn import functional

    folder = backbone_folder("bert")
    inputs = inputs_of(folder)
    several = torch.tensor([[0.0, 1, 1], [1, 0, 0], [0, 0, 0]])
    output = prompted(folder, num_labels=3)(**inputs, labels=several)
    expected = functional.binary_cross_entropy_with_logits(output.logits, several)
    torch.testing.assert_close(output.loss, expected)
    numbers = torch.tensor([0.5, -1.0, 2.0])
    output = prompted(folder, num_labels=1)(**inputs, labels=numbers)
    torch.testing.assert_close(output.loss, functional.mse_loss(output.logits[:, 0], numbers))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: p_tuning(task_type="CAUSAL_LM"), "`task_type` is 'CAUSAL_LM'.*SEQ_CLS"),
        (lambda: p_tuning(task_type=None), "`task_type` is None"),
        (lambda: p_tuning(task_type="SEQ_CLASS"), "`task_type` is 'SEQ_CLASS'; expected one of SEQ_CLS"),
        (lambda: p_tuning(encoder_dropout=0.1), "which PEFT ignores for an MLP"),
        (lambda: p_tuning(encoder_reparameterization_type="GRU"), "expected one of MLP, LSTM"),
        (lambda: p_tuning(num_virtual_tokens=None), "`num_virtual_tokens` is missing"),
        (lambda: p_tuning(num_virtual_tokens=60), "60 virtual tokens leave no room"),
        (lambda: p_tuning(num_virtual_tokens=0), "num_virtual_tokens: expected 1 or more"),
        (lambda: p_tuning(encoder_hidden_size="wide"), "encoder_hidden_size: expected a whole number"),
        (lambda: ours.PrefixTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=2, init_weights="zero"), "deep"),
        (lambda: ours.PromptTuningConfig(prompt_tuning_init="TEXT"), "needs `prompt_tuning_init_text` and `tokenizer"),
        (lambda: ours.PeftConfig(task_type="SEQ_CLS", num_virtual_tokens=3), "names no method"),
        (lambda: {"peft_type": "P_TUNING"}, "builtins.dict; give a PromptEncoderConfig"),
    ],
)
def test_an_unsupported_configuration_is_explained(make, said, backbone_folder) -> None:
    with pytest.raises(ConfigError, match=said):
        prompted(backbone_folder("bert"), make())


def test_wrong_calls_say_what_to_use(backbone_folder, tmp_path) -> None:
    import peft
    from transformers import AutoModel, AutoModelForSequenceClassification, T5Config

    folder = backbone_folder("bert")
    model = prompted(folder)
    with pytest.raises(ConfigError, match="has no LoraConfig"):
        from ptune.compat.peft import LoraConfig  # noqa: F401
    with pytest.raises(ConfigError, match=r"lora.config.LoraConfig; give a PromptEncoderConfig"):
        ours.get_peft_model(classifier_of(folder), peft.LoraConfig())
    with pytest.raises(ConfigError, match="already"):
        ours.get_peft_model(model, p_tuning())
    with pytest.raises(ConfigError, match="the model is a BertModel"):
        ours.get_peft_model(AutoModel.from_pretrained(folder), p_tuning())
    small = T5Config(vocab_size=9, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
    with pytest.raises(BackboneError, match="type 't5', which cannot be used: it is an encoder-decoder"):
        ours.get_peft_model(AutoModelForSequenceClassification.from_config(small), p_tuning())
    with pytest.raises(ConfigError, match="output_attentions given"):
        model(**inputs_of(folder), output_attentions=True)
    with pytest.raises(ConfigError, match="position_ids given"):
        model(**inputs_of(folder), position_ids=torch.arange(8))
    with pytest.raises(ConfigError, match="no input_ids"):
        model(labels=torch.tensor([1]))
    with pytest.raises(ConfigError, match="no adapter 'x'; there are: default"):
        model.set_adapter("x")
    with pytest.raises(ConfigError, match="'default' is taken"):
        model.add_adapter("default", p_tuning())
    with pytest.raises(ConfigError, match="'a/b' cannot be used"):
        model.add_adapter("a/b", p_tuning())
    with pytest.raises(ConfigError, match="the only one"):
        model.delete_adapter("default")
    with pytest.raises(ConfigError, match="no pickles"):
        model.save_pretrained(tmp_path, safe_serialization=False)
    with pytest.raises(ConfigError, match="use push_to_hub"):
        model.save_pretrained(tmp_path, push_to_hub=True)
    with pytest.raises(ConfigError, match="save_pretrained does not know selected_adapter; besides the parameters"):
        model.save_pretrained(tmp_path, selected_adapter=["default"])
    with pytest.raises(ConfigError, match="load_adapter does not know is_trainble"):
        ours.PeftModel.from_pretrained(classifier_of(folder), tmp_path, is_trainble=True)
    with pytest.raises(AdapterError, match="no such folder"):
        ours.PeftModel.from_pretrained(classifier_of(folder), tmp_path / "nothing")
    model.save_pretrained(tmp_path)
    with pytest.raises(AdapterError, match="2 classes, but the model was loaded with num_labels=3"):
        ours.PeftModel.from_pretrained(classifier_of(folder, num_labels=3), tmp_path)
    content = json.loads((tmp_path / "adapter_config.json").read_text())
    (tmp_path / "ptune.json").unlink()
    (tmp_path / "adapter_config.json").write_text(json.dumps({**content, "peft_type": "LORA"}))
    with pytest.raises(AdapterError, match="peft_type is 'LORA'"):
        ours.PeftConfig.from_pretrained(tmp_path)


@pytest.mark.parametrize("of_peft", [False, True])
def test_an_adapter_is_loaded_with_the_model_that_it_names(of_peft, backbone_folder, tmp_path) -> None:
    folder = backbone_folder("roberta")
    model = prompted(folder, num_labels=3, id2label={0: "low", 1: "middle", 2: "high"})
    model.save_pretrained(tmp_path / "adapter")
    if of_peft:
        (tmp_path / "adapter" / "ptune.json").unlink()
    auto = ours.AutoPeftModelForSequenceClassification
    loaded = auto.from_pretrained(tmp_path / "adapter", pad_token_id=0)
    assert isinstance(loaded, ours.PeftModel)
    inputs = inputs_of(folder)
    torch.testing.assert_close(logits_of(loaded, inputs), logits_of(model, inputs))
    assert loaded.config.num_labels == 3
    if not of_peft:
        assert loaded.config.id2label[2] == "high"
    assert loaded.get_nb_trainable_parameters()[0] == 0
    further = auto.from_pretrained(tmp_path, "mine", is_trainable=True, subfolder="adapter")
    assert further.active_adapter == "mine"
    assert further.get_nb_trainable_parameters()[0] > 0
    with pytest.raises(ConfigError, match="from_pretrained"):
        auto()
    content = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text(encoding="utf-8"))
    (tmp_path / "adapter" / "ptune.json").unlink(missing_ok=True)
    content["base_model_name_or_path"] = None
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(AdapterError, match="does not say which model it was trained on; load the model yourself"):
        auto.from_pretrained(tmp_path / "adapter")


def test_pefts_auto_class_gives_the_same_logits(backbone_folder, tmp_path) -> None:
    import peft

    folder = backbone_folder("roberta")
    prompted(folder).save_pretrained(tmp_path)
    one, two = (
        module.AutoPeftModelForSequenceClassification.from_pretrained(str(tmp_path), num_labels=2)
        for module in (ours, peft)
    )
    inputs = inputs_of(folder)
    torch.testing.assert_close(one_by_one(one, inputs), one_by_one(two, inputs), rtol=1e-5, atol=1e-5)


def test_a_configuration_comes_from_a_dictionary() -> None:
    given = {"peft_type": "P_TUNING", "task_type": "SEQ_CLS", "num_virtual_tokens": 7, "encoder_hidden_size": 9}
    config = ours.get_peft_config(given)
    assert isinstance(config, ours.PromptEncoderConfig)
    assert (config.num_virtual_tokens, config.encoder_hidden_size, config.peft_type) == (7, 9, ours.PeftType.P_TUNING)
    assert ours.get_peft_config(config.to_dict()) == config
    with pytest.raises(ConfigError, match=r"no `peft_type`; give one of P_TUNING, PREFIX_TUNING, PROMPT_TUNING"):
        ours.get_peft_config({"task_type": "SEQ_CLS"})
    with pytest.raises(ConfigError, match=r"`peft_type` is 'LORA'; expected one of P_TUNING"):
        ours.get_peft_config({"peft_type": "LORA"})
    with pytest.raises(ConfigError, match=r"does not know `num_virtual_token`; it has .*num_virtual_tokens"):
        ours.get_peft_config({**given, "num_virtual_token": 3})


def test_a_configuration_may_name_its_method() -> None:
    assert p_tuning(peft_type="P_TUNING") == p_tuning(peft_type=ours.PeftType.P_TUNING) == p_tuning()
    with pytest.raises(ConfigError, match=r"'PREFIX_TUNING', but a PromptEncoderConfig is for 'P_TUNING'; leave it"):
        p_tuning(peft_type="PREFIX_TUNING")
    with pytest.raises(ConfigError, match="`peft_type` is 'LORA'"):
        ours.PeftConfig(peft_type="LORA")


@pytest.mark.parametrize("name", ["LoraConfig", "AutoPeftModelForCausalLM", "prepare_model_for_kbit_training"])
def test_an_import_of_what_is_not_there_ends_in_a_sentence(name) -> None:
    with pytest.raises(ConfigError, match=f"ptune.compat.peft has no {name}; ptune learns prompts"):
        exec(f"from ptune.compat.peft import {name}")
    assert not hasattr(ours, "__wrapped__")


def test_methods_that_prompts_do_not_have_say_what_to_use(backbone_folder) -> None:
    model = prompted(backbone_folder("roberta"))
    with pytest.raises(ConfigError, match=r"no gradient checkpointing; use ptune.train with"):
        model.gradient_checkpointing_enable()
    assert not hasattr(model, "merge_and_unload")
    with pytest.raises(AttributeError, match="no merge_and_unload: a prompt cannot be merged into the weights"):
        model.merge_and_unload()
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        _ = model.nonsense


def test_options_of_get_peft_model_are_those_of_peft(backbone_folder) -> None:
    model = classifier_of(backbone_folder("roberta"))
    with pytest.raises(ConfigError, match="`mixed` is True, but ptune has no adapters of different kinds"):
        ours.get_peft_model(model, p_tuning(), mixed=True)
    with pytest.raises(ConfigError, match="get_peft_model does not know autocast"):
        ours.get_peft_model(model, p_tuning(), autocast=False)
    made = ours.get_peft_model(model, p_tuning(), autocast_adapter_dtype=False, revision="v2")
    assert made.active_peft_config.revision == "v2"


def test_a_label_beyond_the_classes_is_named(backbone_folder) -> None:
    model = prompted(backbone_folder("roberta"))
    with pytest.raises(DataError, match="a label is 2, but the model has 2 classes, 0 to 1"):
        model(**inputs_of(backbone_folder("roberta")), labels=torch.tensor([0, 1, 2]))
