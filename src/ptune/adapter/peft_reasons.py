"""Say why PEFT cannot load an adapter, and what of an adapter PEFT's files cannot carry."""

from __future__ import annotations

from dataclasses import dataclass

from ptune.adapter.folder import AdapterFile
from ptune.adapter.layout import PROMPT_KEY
from ptune.adapter.peft_format import changes_text
from ptune.data.targets import SINGLE
from ptune.model.families import FAMILIES


@dataclass(frozen=True)
class Reason:
    """Why PEFT cannot load an adapter.

    Attributes:
        text: what the adapter has that PEFT has no place for.
        way_out: the setting to train with instead.
    """

    text: str
    way_out: str


def why_not_peft(file: AdapterFile) -> list[Reason]:
    """Return the reasons why PEFT cannot load an adapter; none if it can. The backbone is not needed."""
    if file.peft:
        return []
    prompt, note = file.record.prompt, file.record.backbone
    family = FAMILIES.get(note.model_type or "")
    reasons = []
    if file.record.members > 1:
        reasons.append(Reason(f"it is an ensemble of {file.record.members} prompts", "`ensemble=False`"))
    if prompt.pooling != "peft":
        reads = {
            "mean": "the mean of the text",
            "pair": "the mean of the text and the cosine of its two texts",
            "first": "the first token",
            "last": "the last token",
            "mask": "the mask token",
        }
        what = reads.get(prompt.pooling or "", "the text")
        reasons.append(Reason(f"its head is one linear layer that reads {what}", "`pooling='peft'`"))
    if prompt.method == "deep" and prompt.softmax == "separate":
        # The pooling of PEFT's layout brings the shared softmax with it.
        reasons.append(Reason("its prompt uses a separate softmax", "`pooling='peft'`"))
    if changes_text(prompt):
        reasons.append(Reason("it writes texts into a template, which PEFT does not know", "no `template`"))
    if reasons:
        return reasons
    width = file.shapes.get(PROMPT_KEY, (0, 0))[-1]
    if prompt.method != "deep" and note.width is not None and width != note.width:
        text = f"its backbone's embeddings have width {width}, and its hidden states {note.width}"
        reasons.append(Reason(text, "`method='deep'`"))
    elif prompt.method == "deep" and family is not None and not family.peft_prefix:
        reasons.append(Reason(f"PEFT's prefix tuning does not work with {family.name}", "`method='p-tuning'`"))
    elif prompt.method == "deep" and not prompt.shift_text:
        reasons.append(Reason("the text's positions begin at 0 and not after the prompt", "`shift_text=True`"))
    elif prompt.method == "deep":
        text = "the prompt and the longest text do not fit into the backbone's sliding window together"
        reasons.append(Reason(text, "a smaller `max_length`"))
    else:
        reasons.append(Reason("PEFT does not find the head of its backbone's family", "another backbone"))
    return reasons


def describe_reasons(reasons: list[Reason]) -> str:
    """Return the reasons and the ways out as one sentence."""
    ways = list(dict.fromkeys(reason.way_out for reason in reasons))
    return f"{', and '.join(reason.text for reason in reasons)}; train with {' and '.join(ways)}"


def not_carried(file: AdapterFile) -> list[str]:
    """Return a sentence for each thing that an adapter has and PEFT's files cannot carry, with what to do about it."""
    record = file.record
    lost = []
    if record.labels is not None:
        lost.append(f"the names of the {len(record.labels)} labels: load the model with id2label")
    if record.problem_type != SINGLE:
        lost.append(f"the problem type: load the model with problem_type='{record.problem_type}'")
    if record.temperature != 1:
        lost.append(f"the temperature {record.temperature:.4g}: divide the logits by it before the softmax")
    if record.thresholds is not None:
        lost.append(f"the thresholds of {len(record.thresholds)} labels: apply them to the probabilities")
    if record.at_least_one:
        lost.append("the rule of at least one label: take the most probable one where no other applies")
    if changes_text(record.prompt):  # earlier versions wrote PEFT's file for such adapters
        shown = record.prompt.template or ""
        shown = shown if len(shown) <= 60 else f"{shown[:60]}…"
        lost.append(f"the template {shown!r}: write each text into it")
    if record.pair_separator:
        lost.append(f"the separator {record.pair_separator!r}: put it in front of the second text of a pair")
    if record.max_length is not None:
        lost.append(f"the length: cut texts with truncation=True, max_length={record.max_length}")
    if record.weights_sha256 is not None:
        lost.append("the backbone's fingerprint: PEFT does not notice other weights")
    return lost
