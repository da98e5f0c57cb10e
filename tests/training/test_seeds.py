"""Several prompts trained in parallel: each becomes what it would have become alone; the best or all are kept."""

from __future__ import annotations

import json

import pytest
import torch

import ptune
from ptune.errors import ConfigError
from ptune.evaluation.metrics import evaluate_logits
from ptune.model.ensemble import PromptEnsemble
from ptune.training.member import copy_state
from ptune.training.run import Run
from ptune.training.train import train

METHODS = [
    {"method": "deep", "token_dropout": 0.3},
    {"method": "deep", "softmax": "shared"},
    {"method": "p-tuning", "encoder": "lstm", "encoder_dropout": 0.3},
    {"method": "prompt-tuning", "token_dropout": 0.3},
]


def run(backbone, data, output, settings=None, **training):
    config = ptune.TrainConfig(**{"epochs": 3, "batch_size": 7, "seed": 3, "lr": 0.05, **training})
    prompt = ptune.PromptConfig(**{"virtual_tokens": 6, "encoder_hidden_size": 8, **(settings or {})})
    model = ptune.PromptClassifier.from_backbone(backbone, prompt, labels=data.labels, seed=config.seed)
    return train(model, data, config, output=output)


@pytest.mark.parametrize("family", ["bert", "bloom", "llama"])
@pytest.mark.parametrize("settings", METHODS, ids=lambda settings: "-".join(map(str, settings.values())))
def test_each_seed_becomes_what_it_would_have_become_alone(family, settings, backbone, reviews, tmp_path) -> None:
    data = ptune.load_data(reviews)
    training = {"epochs": 2, "average": 0.0}
    states: dict[object, dict[str, torch.Tensor]] = {}
    original = Run._end_epoch

    def note(self, log):
        for member in self.members:
            states[(len(self.members), member.seed)] = copy_state(member.model)
        original(self, log)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "_end_epoch", note)
        run(backbone(family), data, tmp_path / "two", settings, seeds=2, ensemble=True, **training)
        run(backbone(family), data, tmp_path / "one", settings, seed=4, **training)
    for name, tensor in states[(2, 4)].items():
        torch.testing.assert_close(tensor, states[(1, 4)][name], rtol=1e-4, atol=1e-4)  # Adam enlarges rounding


@pytest.mark.parametrize("family", ["bert", "bloom", "llama"])
def test_an_ensemble_is_one_adapter_and_answers_with_the_mean_probability(family, backbone, reviews, tmp_path) -> None:
    data = ptune.load_data(reviews)
    result = run(backbone(family), data, tmp_path, seeds=3, ensemble=True)
    loaded = ptune.load(tmp_path, device="cpu")
    assert isinstance(loaded.model, PromptEnsemble)
    assert len(loaded.model.members) == 3
    assert ptune.read_adapter(tmp_path).record.members == 3
    assert not (tmp_path / "adapter_config.json").exists()
    logits = loaded.split_logits(data.validation, 5)
    metrics = evaluate_logits(logits, torch.tensor(data.validation.labels))
    assert {name: metrics[name] for name in ("accuracy", "f1", "loss")} == {
        name: pytest.approx(result.metrics[name], abs=1e-6) for name in ("accuracy", "f1", "loss")
    }
    text = data.validation.texts[0]
    single = [ptune.TextClassifier.around(member).logits([text]).softmax(dim=1) for member in loaded.model.members]
    torch.testing.assert_close(loaded.logits([text]).softmax(dim=1), torch.stack(single).mean(dim=0))


def test_the_best_seed_is_kept(backbone, reviews, tmp_path) -> None:
    data = ptune.load_data(reviews)
    result = run(backbone("bert"), data, tmp_path, {"softmax": "shared"}, seeds=3)
    record = json.loads((tmp_path / "ptune.json").read_text())
    assert record["members"] == 1
    assert record["training"]["seeds"] == 3
    best = max((line for line in result.history), key=lambda line: (line["accuracy"], -line["loss"]))
    assert result.metrics["loss"] == best["loss"]
    assert best["by_seed"][str(record["training"]["best_seed"])] == best["accuracy"]
    loaded = ptune.load(tmp_path, device="cpu")
    logits = loaded.split_logits(data.validation, 7)
    assert evaluate_logits(logits, torch.tensor(data.validation.labels))["accuracy"] == result.metrics["accuracy"]


def test_several_seeds_are_resumed_exactly(backbone, reviews, tmp_path) -> None:
    data = ptune.load_data(reviews)
    whole = run(backbone("bert"), data, tmp_path / "whole", seeds=2, ensemble=True)
    config = ptune.TrainConfig(epochs=3, batch_size=7, seed=3, lr=0.05, seeds=2, ensemble=True)

    def stop(done, rows, epoch, loss) -> None:
        if epoch == 2 and done > 10:
            raise KeyboardInterrupt

    for resume in (False, True):
        prompt = ptune.PromptConfig(virtual_tokens=6)
        model = ptune.PromptClassifier.from_backbone(backbone("bert"), prompt, labels=data.labels, seed=3)
        options = {"output": tmp_path / "cut", "resume": resume}
        if not resume:
            with pytest.raises(KeyboardInterrupt):
                train(model, data, config, on_step=stop, **options)
        else:
            cut = train(model, data, config, **options)
    assert cut.metrics == whole.metrics
    names = ("adapter_model.safetensors",)
    assert [(tmp_path / "cut" / n).read_bytes() for n in names] == [
        (tmp_path / "whole" / n).read_bytes() for n in names
    ]


def test_an_ensemble_of_one_is_refused() -> None:
    with pytest.raises(ConfigError, match="set `seeds` to 2 or more"):
        ptune.TrainConfig(ensemble=True)
