"""PEFT with many adapters, which switches to the adapter of each request; a part of benchmarks/serving.py."""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch
from common import Cell, peft_model
from servers import name_of

from ptune.data.texts import Text
from ptune.model.backbone import Backbone
from ptune.model.tokenizer import load_tokenizer
from ptune.serving.load import LoadConfig, questions


class PeftSwitching:
    """PEFT's model with many prefixes, which switches to the adapter of each request.

    Args:
        backbone: ptune's, of the same weights.
        count: adapters.
        texts: single texts.
    """

    def __init__(self, backbone: Backbone, count: int, texts: Sequence[Text]) -> None:
        self.model = peft_model(backbone, 2, "prefix").eval()
        config = self.model.peft_config["default"]
        for number in range(count):
            self.model.add_adapter(name_of(number), config)
        self.tokenizer = load_tokenizer(backbone.location)
        self.texts = texts
        self.count = count

    @torch.no_grad()
    def run(self, count: int, seconds: float) -> Cell:
        """Return requests per second over so many adapters."""
        draw = questions(LoadConfig(), [name_of(number) for number in range(count)], self.texts)
        times = []
        end = time.perf_counter() + seconds
        while (begun := time.perf_counter()) < end:
            question = next(draw)
            self.model.set_adapter(question.adapters[0])
            inputs = self.tokenizer(self.texts[question.texts[0]], return_tensors="pt")
            self.model(**inputs).logits.softmax(dim=1).tolist()
            times.append(time.perf_counter() - begun)
        ordered = sorted(1000 * value for value in times)
        return {
            "requests_per_second": round(len(times) / sum(times), 2),
            "p50_ms": round(ordered[len(ordered) // 2], 3),
            "p99_ms": round(ordered[len(ordered) * 99 // 100], 3),
        }
