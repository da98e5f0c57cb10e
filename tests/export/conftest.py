"""Classifiers over tiny backbones whose answers differ from text to text, as if they were trained."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import ptune
from ptune.adapter.layout import TaskInfo
from ptune.data.targets import SINGLE
from ptune.inference.classifier import TextClassifier
from ptune.model.backbone import Backbone
from ptune.model.ensemble import PromptEnsemble
from ptune.model.loading import load_backbone
from ptune.model.tokenizer import tokenizer_of

PAIR = {"text": "sentence1", "text_pair": "sentence2", "label": "label"}
SINGLE_TEXT = {"text": "text", "text_pair": None, "label": "label"}


def make_classifier(
    backbone: Any,
    *,
    members: int = 1,
    problem_type: str = SINGLE,
    pairs: bool = False,
    max_length: int | None = None,
    task: dict[str, Any] | None = None,
    **prompt: Any,
) -> TextClassifier:
    """A classifier of three labels, or one number, with random prompts and heads."""
    config = ptune.PromptConfig(**{"virtual_tokens": 3, **prompt})
    labels = ["stars"] if problem_type == "regression" else ["a", "b", "c"]
    models = []
    for seed in range(members):
        model = ptune.PromptClassifier(
            backbone, config, labels, tokenizer_of(backbone), seed=seed, problem_type=problem_type, pairs=pairs
        )
        with torch.no_grad(), torch.random.fork_rng():
            torch.manual_seed(seed)
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.normal_(std=0.5)
        models.append(model.eval())
    info = TaskInfo(columns=PAIR if pairs else SINGLE_TEXT, **(task or {}))
    model = models[0] if members == 1 else PromptEnsemble(models)
    return TextClassifier.around(model, max_length, task=info)


@pytest.fixture(scope="session")
def with_segments(backbone_folder: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    """A tiny BERT whose tokenizer gives segments, as the tokenizers of real ones do."""
    folder = tmp_path_factory.mktemp("segments") / "bert"
    shutil.copytree(backbone_folder("bert", num_hidden_layers=1), folder)
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["model_input_names"] = ["input_ids", "token_type_ids", "attention_mask"]
    path.write_text(json.dumps(config), encoding="utf-8")
    return load_backbone(str(folder), device="cpu")


@pytest.fixture(scope="session")
def make(
    backbone: Callable[..., Any], language_model: Callable[..., Any], with_segments: Backbone
) -> Callable[..., TextClassifier]:
    """Make a classifier over a family's tiny backbone; with `language=True` over a language model."""

    def make(family: str, language: bool = False, **settings: Any) -> TextClassifier:
        if family == "bert with segments":
            return make_classifier(with_segments, **settings)
        return make_classifier((language_model if language else backbone)(family), **settings)

    return make
