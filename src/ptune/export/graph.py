"""A classifier as one traced program, from token ids to logits.

The program is traced from the forward pass that ptune itself uses, so nothing is implemented twice. The folded prompts
of all members, their heads, the rule that combines them and the temperature are inside. Its inputs, in which B and T
are dynamic:

    input_ids, attention_mask   [B, T], padded on the right
    token_type_ids              [B, T], where the tokenizer gives segments and they are needed
    pair_position               [B], only for pairs whose second text cannot be found from the ids (`places`)

Its output: logits [B, C]. Their softmax gives the probabilities of a single-label task, calibrated, and their sigmoid
those of a multi-label task. For a regression they are the values, [B, 1].
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn

from ptune.backends.export import PlainAttention
from ptune.data.batch import Inputs
from ptune.data.targets import SINGLE
from ptune.errors import BackboneError
from ptune.export.places import mask_place, pair_place
from ptune.inference.classifier import TextClassifier
from ptune.model.ensemble import combine, members_of
from ptune.model.mixed import batch_logits

OUTPUT = "logits"


class ClassifierGraph(nn.Module):
    """A classifier as a module with only tensors as inputs and outputs.

    Args:
        classifier: on the CPU, in float32, with a fast tokenizer.
    """

    def __init__(self, classifier: TextClassifier) -> None:
        super().__init__()
        tokenizer, config = classifier.encoder.tokenizer, classifier.model.config
        self._members = tuple(members_of(classifier.model))
        self.backbone = classifier.model.backbone
        self.heads = nn.ModuleList([member.head for member in self._members])
        for number, member in enumerate(self._members):
            self.register_buffer(f"prompt{number}", member.eval().prompt().detach().contiguous())
        self.problem_type = classifier.model.problem_type
        self.temperature = classifier.temperature if self.problem_type == SINGLE else 1.0
        segments = "token_type_ids" in tokenizer.model_input_names
        paired, template = config.pooling == "pair", classifier.encoder.template
        self._pair = pair_place(tokenizer, segments) if paired else None
        self._mask = mask_place(tokenizer, template) if template is not None and config.pooling == "mask" else None
        by_segments = self._pair is not None and self._pair.by_segments
        self.has_segments = segments and (self.backbone.family.token_types or by_segments)
        self.needs_pair_position = self._pair is not None and not self._pair.known
        # Some tokenizers give no token at all for a text without words. ptune puts one special token there.
        empty = not tokenizer("", verbose=False)["input_ids"]
        self._blank = classifier.encoder.without_text().ids[0] if empty else None
        self.eval()

    @property
    def input_names(self) -> list[str]:
        """The names of the inputs, in order."""
        further = ["token_type_ids"] * self.has_segments + ["pair_position"] * self.needs_pair_position
        return ["input_ids", "attention_mask", *further]

    def forward(self, *inputs: Tensor) -> Tensor:
        given = dict(zip(self.input_names, inputs, strict=True))
        ids, mask, segments = given["input_ids"], given["attention_mask"], given.get("token_type_ids")
        if self._blank is not None:
            blank = torch.full_like(ids[:, :1], self._blank)
            ids = torch.cat([torch.where(mask[:, :1] > 0, ids[:, :1], blank), ids[:, 1:]], dim=1)
            mask = torch.cat([torch.ones_like(mask[:, :1]), mask[:, 1:]], dim=1)
        pair_position = given.get("pair_position")
        if self._pair is not None and self._pair.known:
            pair_position = self._pair.find(ids, mask, segments)
        mask_position = None if self._mask is None else self._mask.find(ids)
        batch = Inputs(ids, mask, segments, mask_position, pair_position)
        with PlainAttention():
            logits = [
                batch_logits(member, self.get_buffer(f"prompt{number}"), batch)
                for number, member in enumerate(self._members)
            ]
        return combine(torch.stack(logits), self.problem_type) / self.temperature


def trace(graph: ClassifierGraph, to: str) -> Any:
    """Return a classifier as a `torch.export.ExportedProgram`.

    Args:
        graph: the classifier.
        to: what the program is for, for the error.

    Raises:
        BackboneError: the model's code cannot be traced.
    """
    ids = torch.ones(2, 6, dtype=torch.long)
    examples = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "token_type_ids": torch.zeros_like(ids)}
    examples["pair_position"] = torch.tensor([2, 3])
    inputs = tuple(examples[name] for name in graph.input_names)
    shapes = (tuple(dict.fromkeys(range(tensor.dim()), torch.export.Dim.DYNAMIC) for tensor in inputs),)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's own code calls functions that torch deprecates
            return torch.export.export(graph, inputs, dynamic_shapes=shapes)
    except Exception as err:  # a model's code can fail to trace with any type of error
        raise not_possible(graph, to) from err


def not_possible(graph: ClassifierGraph, to: str) -> BackboneError:
    """Return the error for a backbone whose code cannot be traced, or has an operation that a format does not have."""
    backbone = graph.backbone
    return BackboneError(
        f"{backbone.family.name} (backbone '{backbone.name}') cannot be exported to {to}: its code has steps that the "
        "format cannot hold. Serve the adapter with `ptune serve` instead, or train it on another backbone",
        field="to",
        value=to,
    )
