"""With the same seed and rows, training in PEFT's layout gives the same losses as PEFT, step by step."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import peft
import pytest
import torch

from ptune.compat import peft as ours

STEPS = 20
P = 4


def batches(width: int = 9) -> list[dict[str, torch.Tensor]]:
    """Return rows of one length, because PEFT's decoders attend to padding."""
    torch.manual_seed(1)
    return [
        {
            "input_ids": torch.randint(4, 47, (8, width)),
            "attention_mask": torch.ones(8, width, dtype=torch.long),
            "labels": torch.randint(0, 3, (8,)),
        }
        for _ in range(STEPS)
    ]


def padded_batches() -> list[dict[str, torch.Tensor]]:
    rows = batches()
    for batch in rows:
        lengths = torch.randint(3, 10, (8, 1))
        batch["attention_mask"] = (torch.arange(9)[None] < lengths).long()
        batch["input_ids"] = batch["input_ids"] * batch["attention_mask"]
    return rows


def prompted(package: Any, folder: Path, config: str, settings: dict[str, Any]) -> Any:
    from transformers import AutoModelForSequenceClassification

    torch.manual_seed(3)
    model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=3, pad_token_id=0)
    torch.manual_seed(5)
    options = {"task_type": "SEQ_CLS", "num_virtual_tokens": P, **settings}
    return package.get_peft_model(model, getattr(package, config)(**options))


def curve(model: Any, rows: list[dict[str, torch.Tensor]]) -> list[float]:
    model.eval()  # turns off the dropout of PEFT's backbone
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2, weight_decay=0.01)
    losses = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for batch in rows:
            optimizer.zero_grad()
            loss = model(**batch).loss
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return losses


@pytest.mark.parametrize("kind", ["MLP", "LSTM"])
@pytest.mark.parametrize("family", ["roberta", "bert", "gpt2", "opt"])
def test_p_tuning_with_the_same_seed_has_the_losses_of_peft(family, kind, backbone_folder) -> None:
    settings = {"encoder_hidden_size": 8, "encoder_reparameterization_type": kind}
    rows = batches() if family in ("gpt2", "opt") else padded_batches()
    folder = backbone_folder(family)
    expected, losses = (
        curve(prompted(package, folder, "PromptEncoderConfig", settings), rows) for package in (peft, ours)
    )
    assert losses == pytest.approx(expected, abs=2e-4)
    assert max(losses) - min(losses) > 0.1


@pytest.mark.parametrize("config", ["PromptTuningConfig", "PrefixTuningConfig"])
@pytest.mark.parametrize("family", ["roberta", "gpt2"])
def test_prompts_with_the_same_initial_vectors_have_the_losses_of_peft(family, config, backbone_folder) -> None:
    peft_model, ptune_model = (prompted(package, backbone_folder(family), config, {}) for package in (peft, ours))
    start = ours.get_peft_model_state_dict(ptune_model)["prompt_embeddings"]
    with torch.no_grad():
        peft_model.prompt_encoder["default"].embedding.weight.copy_(start)
    rows = batches()
    assert curve(ptune_model, rows) == pytest.approx(curve(peft_model, rows), abs=2e-4)
