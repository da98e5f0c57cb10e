"""Speed of families with positions in their scores, beside BERT at the same shape: training and prediction.

    python benchmarks/backbone_speed.py [--layers 12] [--steps 3] [--repeats 3] [--openvino]

    bert        layers run by ptune, no positions in the scores
    mpnet       layers run by ptune, a bias for each distance as the fused kernel's mask
    deberta-v3  layers run by ptune, products with embeddings of the distances added to the scores

    deep        keys and values in every layer with a softmax of their own, as many tokens as by default
    by hooks    the same through transformers' layers, as in families outside of the table
    p-tuning    20 virtual tokens at the input

The shapes are those of base models with random weights, or with fewer layers. Rows are as long as those of
lengths.json, 32 a batch; all runners take turns, and the best of the rounds counts. `ratio` is to BERT's deep prompts.
With --openvino, prediction as well: rows a second of PyTorch and of OpenVINO in float32.
"""

from __future__ import annotations

import argparse
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from common import (
    CLASSES,
    SHAPES,
    Cell,
    clock,
    interleave,
    like_blocks,
    load_model,
    parse,
    report,
    speed_options,
    speeds,
    training_rows,
)
from train_speed import BATCH, ptune_runner

import ptune
from ptune.backends.openvino.backbone import CompiledBackbone
from ptune.data.encode import Encoded
from ptune.inference.engine import run_logits
from ptune.model.backbone import Backbone
from ptune.model.discovery import observe
from ptune.model.tokenizer import load_tokenizer
from ptune.training.steps import Rows

BASE = "bert, deep"
POSITIONS = 512
SHAPE = {"hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072}
MODELS: dict[str, dict[str, Any]] = {
    "bert": {"model_type": "bert", **SHAPE, "max_position_embeddings": POSITIONS},
    "mpnet": {"model_type": "mpnet", **SHAPE, "max_position_embeddings": POSITIONS + 2},
    "deberta-v3": {
        "model_type": "deberta-v2",
        **SHAPE,
        "vocab_size": 30522,  # of 128,100: the embeddings are looked up, and no larger part of the work
        "max_position_embeddings": POSITIONS,
        "type_vocab_size": 0,
        "relative_attention": True,
        "position_buckets": 256,
        "max_relative_positions": -1,
        "pos_att_type": ["p2c", "c2p"],
        "share_att_key": True,
        "norm_rel_ebd": "layer_norm",
        "position_biased_input": False,
    },
}


def main() -> None:
    options = read_options()
    report("backbone_speed", options, measure(options))


def read_options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = speed_options(__doc__)
    parser.add_argument("--layers", type=int, default=12, help="of each shape")
    parser.add_argument("--steps", type=int, default=3, help="steps of one round")
    parser.add_argument("--openvino", action="store_true", help="prediction as well")
    parser.set_defaults(models=list(MODELS))
    return parse(parser, arguments, {"layers": 2, "steps": 1, "repeats": 2})


def measure(options: argparse.Namespace) -> Cell:
    """A table of training, and one of prediction."""
    warnings.simplefilter("ignore")
    for name in options.models:
        SHAPES[name] = MODELS[name] | {"num_hidden_layers": options.layers}
    with tempfile.TemporaryDirectory() as folder:
        backbones = {name: load_model(name, Path(folder), options) for name in options.models}
        hooked = {name: _by_hooks(name, backbone) for name, backbone in backbones.items() if name != "bert"}
        tables = {"training": _training(backbones, hooked, options)}
        if options.openvino:
            tables["prediction"] = _prediction(backbones, hooked, options)
        return tables


def _training(backbones: dict[str, Backbone], hooked: dict[str, Backbone], options: argparse.Namespace) -> Cell:
    runners: dict[str, Callable[[], float]] = {}
    shallow = ptune.PromptConfig(method="p-tuning", virtual_tokens=20, encoder_hidden_size=128)
    deep = ptune.PromptConfig(method="deep")
    for name, backbone in backbones.items():
        rows = _rows(backbone, options)
        runners[f"{name}, deep"] = ptune_runner(backbone, rows, deep.settle(backbone.family))
        if name in hooked:
            runners[f"{name}, deep, by hooks"] = ptune_runner(hooked[name], rows, deep.settle(hooked[name].family))
        runners[f"{name}, p-tuning"] = ptune_runner(backbone, rows, shallow.settle(backbone.family))
    return speeds(interleave(runners, options.repeats), BASE)


def _rows(backbone: Backbone, options: argparse.Namespace) -> Rows:
    rows, labels = training_rows(options.data, backbone)
    chosen = [row for block in like_blocks(rows, options.steps, BATCH) for row in block]
    return Rows([rows[row] for row in chosen], torch.tensor([labels[row] for row in chosen]))


def _by_hooks(name: str, backbone: Backbone) -> Backbone:
    """The same weights without what ptune knows of the family."""
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_config(backbone.config, dtype=backbone.dtype).eval()
    model.base_model.load_state_dict(backbone.base.state_dict())
    model.to(backbone.device).requires_grad_(False)
    return Backbone(model.base_model, backbone.location, observed=observe(model, name))


def _prediction(backbones: dict[str, Backbone], hooked: dict[str, Backbone], options: argparse.Namespace) -> Cell:
    runners: dict[str, Callable[[], float]] = {}
    for name, backbone in backbones.items():
        model = ptune.PromptClassifier.from_backbone(
            backbone, ptune.PromptConfig(method="deep"), labels=[str(number) for number in range(CLASSES)]
        ).eval()
        rows = _rows(backbone, options).encoded
        compiled = CompiledBackbone(backbone, "fp32")
        runners[f"{name}, deep"] = _predictor(model, backbone, rows)
        if name in hooked:
            runners[f"{name}, deep, by hooks"] = _predictor(model, hooked[name], rows)
        runners[f"{name}, deep, OpenVINO"] = _predictor(model, compiled, rows)
    return speeds(interleave(runners, options.repeats), BASE)


def _predictor(model: ptune.PromptClassifier, backbone: Backbone, rows: Sequence[Encoded]) -> Callable[[], float]:
    padding = int(load_tokenizer(backbone.location).pad_token_id)

    def run() -> float:
        model.backbone = backbone
        started = clock(backbone.device)
        run_logits(model, rows, pad_id=padding)
        return (clock(backbone.device) - started) / len(rows)

    return run


if __name__ == "__main__":
    main()
