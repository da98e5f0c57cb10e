"""What a classifier's weights do not say about it, as a tensor that is saved with them.

transformers' Trainer saves nothing of a model but its state, in model.safetensors.
With these facts in the state, that file alone is enough to load the classifier.
torch calls such a part of a state its extra state.
"""

from __future__ import annotations

import json
from typing import Any, NoReturn

import torch
from torch import Tensor

from ptune.data.targets import ProblemType
from ptune.model.backbone import Backbone
from ptune.model.config import PromptConfig

KEY = "_extra_state"  # torch's name for it in a state


def pack_facts(
    config: PromptConfig,
    backbone: Backbone,
    labels: list[str],
    problem_type: ProblemType,
    unit: tuple[float, float],
    cosine: tuple[float, float] | None = None,
) -> Tensor:
    """Return the facts about a classifier as the bytes [N] of a JSON text.

    `record` has the fields of an adapter's record that are known without training data; see docs/adapter-format.md.

    Args:
        config, backbone, labels, problem_type: what the classifier was made with.
        unit: scale and shift of a regression's targets.
        cosine: scale and shift of the cosines that the head reads; None: it reads none.
    """
    record = {
        "format_version": 1,
        "prompt": config.to_dict(),
        "backbone": backbone.facts(),
        "labels": labels,
        "classes": len(labels),
        "problem_type": problem_type,
    }
    facts = {"record": record, "target_scale": unit[0], "target_shift": unit[1], "cosine": cosine}
    return torch.frombuffer(bytearray(json.dumps(facts).encode()), dtype=torch.uint8)


def unpack_facts(packed: Tensor) -> dict[str, Any]:
    """Return the facts that `pack_facts` packed.

    Raises:
        ValueError: it is not a JSON object.
    """
    facts = json.loads(bytes(packed.cpu().to(torch.uint8).flatten().tolist()), parse_constant=_refuse_constant)
    if not isinstance(facts, dict):
        raise ValueError(f"the facts are a {type(facts).__name__}, not a JSON object")
    return facts


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"the facts hold {name}, which is not a JSON number")
