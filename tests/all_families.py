"""What ptune makes of every family that transformers has a text classifier for, by tiny random models of them.

python -m tests.all_families    print the list and write docs/families.json
"""

from __future__ import annotations

import json
import re
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from ptune.errors import BackboneError
from ptune.model.backbone import Backbone
from ptune.model.families import FAMILIES
from ptune.model.loading import _attention, as_backbone
from ptune.model.locate import Location
from ptune.model.observed import check_config
from ptune.model.selfcheck import failure
from tests.conftest import spread_weights
from tests.tiny_families import tiny_settings

LIST = Path(__file__).parent.parent / "docs" / "families.json"


@dataclass(frozen=True)
class Verdict:
    """What is on the list for one family.

    works: deep (prompts in the layers and at the input), shallow (at the input alone) or refused.
    reason: why not deep.
    """

    model_type: str
    works: str
    decoder: bool | None = None
    deep: str | None = None
    softmax: tuple[str, ...] = ()
    head: str | None = None
    positions: str | None = None
    segments: bool | None = None
    norm_first: bool | None = None
    peft_deep: bool = False
    reason: str = ""


def model_types() -> list[str]:
    """Every `model_type` with a sequence classifier of text, alphabetically."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES

    # ptune's own pipelines add a name to transformers' list.
    return sorted({*MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES} - {"ptune"})


def tiny_config(model_type: str) -> Any:
    from transformers import AutoConfig

    return AutoConfig.for_model(model_type, **tiny_settings(model_type))


def tiny_classifier(model_type: str) -> Any:
    """A classifier of transformers with random weights of a pretrained model's scale, loaded as ptune loads it.

    Raises:
        BackboneError: the configuration alone shows that it is no backbone.
    """
    from transformers import AutoModelForSequenceClassification

    config = tiny_config(model_type)
    check_config(config, model_type)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        model = AutoModelForSequenceClassification.from_config(config, **_attention(config)).eval()
        spread_weights(model, std=0.2)  # Zamba's states blow up at more
    return model


def tiny_backbone(model_type: str) -> Backbone:
    """The backbone in it.

    Raises:
        BackboneError: ptune refuses it.
    """
    return as_backbone(tiny_classifier(model_type), Location(model_type, model_type))


def judge(model_type: str) -> Verdict:
    """Look at one family. Those of the table are checked as well."""
    try:
        backbone = tiny_backbone(model_type)
        if model_type in FAMILIES:
            check(backbone)
    except BackboneError as err:
        reason = str(err).split("which cannot be used: ")[-1].split("; docs/families.md")[0]
        return Verdict(model_type, "refused", reason=without_numbers(reason))
    except ImportError as err:
        missing = re.search(r"requires the (\w+) library", str(err))
        package = missing[1] if missing else "another package"
        return Verdict(model_type, "refused", reason=f"transformers needs {package} for it")
    family = backbone.family
    return Verdict(
        model_type,
        "deep" if family.deep else "shallow",
        family.decoder,
        "layers run by ptune" if backbone.trunk is not None else family.deep,
        tuple(name for name, can in (("separate", family.separates), ("shared", family.shares)) if can),
        family.head,
        family.positions,
        family.token_types,
        family.norm_first,
        family.peft_prefix,
        without_numbers(backbone.observed.no_deep) if backbone.observed else "",
    )


def check(backbone: Backbone) -> None:
    """Check every way in which prompts enter a family of the table.

    Raises:
        BackboneError: one of them does not work.
    """
    family = backbone.family
    entries = ["none", "input", *["separate"] * family.separates, *["shared"] * family.shares]
    reasons = [failure(backbone, entry) for entry in entries]  # type: ignore[arg-type]
    if any(reasons):
        raise BackboneError("; ".join(filter(None, reasons)))


def without_numbers(reason: str) -> str:
    """A reason as it reads on every machine."""
    return re.sub(r" \(by \S+ of its size\)", "", reason)


def listed() -> dict[str, Verdict]:
    """The verdicts on file."""
    content = json.loads(LIST.read_text(encoding="utf-8"))
    return {entry["model_type"]: Verdict(**{**entry, "softmax": tuple(entry["softmax"])}) for entry in content}


def lines(verdicts: list[Verdict]) -> list[str]:
    """The list, for people."""
    text = [f"{verdict.model_type:24}{verdict.works:9}{verdict.deep or verdict.reason}" for verdict in verdicts]
    counts = {works: sum(verdict.works == works for verdict in verdicts) for works in ("deep", "shallow", "refused")}
    return [*text, ", ".join(f"{works}: {count}" for works, count in counts.items())]


def main() -> None:
    verdicts = [judge(model_type) for model_type in model_types()]
    sys.stdout.write("\n".join([*lines(verdicts), ""]))
    LIST.write_text(json.dumps([asdict(verdict) for verdict in verdicts], indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
