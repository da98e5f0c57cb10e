"""A backbone whose forward pass OpenVINO computes, for prediction on the CPU.

    fp32   as PyTorch computes it
    bf16   products in bfloat16, on CPUs with AMX
    int8   products of the linear layers in 8 bits, the others in bfloat16 with AMX, else in float32

One graph serves every adapter whose prompt enters in the same way: prompts are
inputs of it, heads stand behind it. It is made when it is first needed and kept
for the next time.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor, nn

from ptune.errors import ConfigError
from ptune.model.backbone import Backbone, Hidden, Read, started, text_weights
from ptune.model.config import Precision
from ptune.model.export import Entry, export_graph, require
from ptune.model.graph_store import GraphStore
from ptune.model.loading import has_amx
from ptune.model.quantize import quantize_graph

logger = logging.getLogger(__name__)

# Texts are padded to a multiple of it: for each length that it has not seen OpenVINO takes time to make kernels.
LENGTH_STEP = 8


class CompiledBackbone(Backbone):
    """A backbone that computes `forward` by OpenVINO, and all else as the one that it is made of.

    Args:
        backbone: a float32 one on the CPU. Its weights are shared, not copied.

    Raises:
        ConfigError: no such precision, OpenVINO or NNCF is not installed, the backbone is on a GPU or of another
            number type, or bf16 is not for this CPU.
    """

    def __init__(self, backbone: Backbone, precision: Precision) -> None:
        nn.Module.__init__(self)
        if precision not in get_args(Precision):
            raise ConfigError(f"precision '{precision}' is not known; use one of {', '.join(get_args(Precision))}")
        vars(self).update(vars(backbone))
        if backbone.device.type != "cpu" or backbone.dtype != torch.float32:
            kind = str(backbone.dtype).removeprefix("torch.")
            raise ConfigError(
                f"precision {precision} needs weights of float32 on the CPU, but backbone '{backbone.name}' was loaded "
                f"as {kind} on {backbone.device}; leave --dtype and --device out"
            )
        if precision == "bf16" and not has_amx():
            raise ConfigError("precision bf16 needs a CPU with AMX, which this one lacks; use --precision int8")
        self.precision: Precision = precision
        self._core = require("openvino").Core()
        if precision == "int8":
            require("nncf")  # before a graph is exported for it
        self._store = GraphStore(backbone, "int8" if precision == "int8" else "float32")
        self.under_way = _streams() + 1  # so that none is idle while the end of another is waited for
        self._compiled: dict[Entry, Any] = {}
        self._idle: dict[Entry, list[Any]] = {}  # requests: each computes one batch at a time

    @property
    def original(self) -> Backbone:
        """The backbone in PyTorch."""
        return self._store.backbone

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        prompt: Tensor | None = None,
        shift_text: bool = False,
        separate: bool = False,
        read: Read = None,
    ) -> Hidden:
        """As `Backbone.forward`, but without gradients.

        Raises:
            BackboneError: the graph cannot be made.
        """
        if prompt is None:
            return super().forward(input_ids, attention_mask, token_type_ids, read=read)
        return self.start(input_ids, attention_mask, token_type_ids, prompt, shift_text, separate, read)()

    def start(  # type: ignore[override]
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        prompt: Tensor | None = None,
        shift_text: bool = False,
        separate: bool = False,
        read: Read = None,
    ) -> Callable[[], Hidden]:
        """Begin `forward` on a stream of its own; returns what waits for its end.

        Raises:
            BackboneError: the graph cannot be made.
        """
        if prompt is None:
            return started(self, input_ids, attention_mask, token_type_ids, read=read)
        if torch.is_grad_enabled() and prompt.requires_grad:
            raise ConfigError(
                f"a backbone in precision {self.precision} has no gradients: predict under torch.no_grad(), and train "
                "without a precision"
            )
        position = read if isinstance(read, Tensor) and self.picks else None
        entry = Entry.of(prompt, shift_text, separate, picked=position is not None)
        if entry not in self._compiled:
            self._compiled[entry], self._idle[entry] = self._compile(entry), []
        inputs = [input_ids, torch.ones_like(input_ids) if attention_mask is None else attention_mask]
        if self.family.token_types:
            inputs.append(torch.zeros_like(input_ids) if token_type_ids is None else token_type_ids)
        length = input_ids.shape[1]
        taken = prompt.shape[-2] if entry.shallow or entry.shift_text else 0
        padded = [nn.functional.pad(tensor, (0, self._padding(length, taken))) for tensor in inputs]
        padded.insert(2, prompt.detach().float())
        if position is not None:
            padded.append(position)
        arrays = [tensor.contiguous().numpy() for tensor in padded]
        idle = self._idle[entry]
        request = idle.pop() if idle else self._compiled[entry].create_infer_request()
        request.start_async(arrays, share_inputs=True)
        offset = prompt.shape[-2] if entry.shallow else 0

        def wait() -> Hidden:
            request.wait()
            states, *pooled = [output.data for output in request.output_tensors]
            if read == "mean":
                # By one thread, not by torch's beside OpenVINO's: those wait for each other ten times as long.
                weights = text_weights(len(input_ids), length, attention_mask, input_ids.device).numpy()
                own = np.einsum("bt,bth->bh", weights, states[:, offset : offset + length])[:, None]
            else:
                own = (states if entry.picked else states[:, : offset + length]).copy()
            output = torch.from_numpy(pooled[0].copy()) if pooled else None
            idle.append(request)
            return Hidden(torch.from_numpy(own), attention_mask, offset, output, picked=entry.picked or read == "mean")

        return wait

    def _padding(self, length: int, taken: int) -> int:
        """Positions of padding that bring a text to the next step, if the backbone has them beside those taken."""
        wanted = -length % LENGTH_STEP
        room = wanted if self.max_positions is None else self.max_positions - taken - length
        return max(0, min(wanted, room))

    def _compile(self, entry: Entry) -> Any:
        graph = self._store.read(entry)
        if graph is None:
            logger.info("compiling backbone '%s' for %s prompts in %s, once", self.name, entry.name, self._store.kind)
            graph = export_graph(self, entry)
            if self.precision == "int8":
                graph = quantize_graph(graph, self, entry)
            self._store.write(graph, entry)
        streams = _streams()
        if self.precision == "bf16" and _has_gates(graph):  # OpenVINO 2026.4 divides by half of a stream's threads
            streams = min(streams, _threads() // 2)
        if not streams:
            raise ConfigError(
                f"precision bf16 needs two threads for a {self.family.name} backbone; set OMP_NUM_THREADS=2 on two "
                "cores or more, or use --precision int8"
            )
        return self._core.compile_model(graph, "CPU", _options(self.precision, streams))


# Batches computed side by side: two threads that share a batch wait for each other at every product.
MOST_STREAMS = 4


def _threads() -> int:
    """Those that PyTorch has (OMP_NUM_THREADS), and no more than there are cores for."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(torch.get_num_threads(), cores)


def _streams() -> int:
    return min(_threads(), MOST_STREAMS)


def _options(precision: Precision, streams: int) -> dict[str, Any]:
    """Of a compiled graph: the threads are shared out among the streams."""
    # Not left to OpenVINO: with bfloat16 but without AMX its results can be wrong (openvino#38256).
    in_bfloat16 = precision == "bf16" or (precision == "int8" and has_amx())
    return {
        "INFERENCE_PRECISION_HINT": "bf16" if in_bfloat16 else "f32",
        "INFERENCE_NUM_THREADS": _threads(),
        "NUM_STREAMS": streams,
        "ENABLE_CPU_PINNING": False,  # would bind several processes of one thread to the same core
        "SNIPPETS_MODE": "DISABLE",  # its fused attention takes twice the time of the parts (docs/log.md)
    }


def _has_gates(graph: Any) -> bool:
    """Whether feed-forward layers multiply by an activation, as Llama's and ModernBERT's."""
    activations = ("Swish", "Gelu")
    return any(
        node.get_type_name() == "Multiply"
        and any(value.get_node().get_type_name() in activations for value in node.input_values())
        for node in graph.get_ops()
    )
