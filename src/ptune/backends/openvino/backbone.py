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
from threading import Lock
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor, nn

from ptune.backends.export import Variant, export_graph, require, variant_of
from ptune.backends.openvino.quantize import quantize_graph
from ptune.backends.openvino.store import GraphStore
from ptune.data.batch import Inputs
from ptune.errors import ConfigError
from ptune.model.backbone import Backbone, Hidden, Read, text_weights
from ptune.model.config import Precision
from ptune.model.entry import Entry
from ptune.model.loading import has_amx
from ptune.model.pending import Pending

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
                f"as {kind} on {backbone.device}; leave `dtype` and `device` out"
            )
        if precision == "bf16" and not has_amx():
            raise ConfigError("precision bf16 needs a CPU with AMX, which this one lacks; use `precision='int8'`")
        self.precision: Precision = precision
        self._core = require("openvino").Core()
        if precision == "int8":
            require("nncf")  # before a graph is exported for it
        self._store = GraphStore(backbone, "int8" if precision == "int8" else "float32")
        self.under_way = _streams() + 1  # so that none is idle while the end of another is waited for
        self._compiled: dict[Variant, Any] = {}
        self._compiling = Lock()

    @property
    def original(self) -> Backbone:
        """The backbone in PyTorch."""
        return self._store.backbone

    def forward(
        self, inputs: Inputs, prompt: Tensor | None = None, entry: Entry | None = None, read: Read = None
    ) -> Hidden:
        """Run the model as `Backbone.forward` does, without gradients.

        Raises:
            BackboneError: the graph cannot be made.
        """
        if prompt is None or entry is None:
            return super().forward(inputs, read=read)
        return self.start(inputs, prompt, entry, read).result()

    def start(
        self, inputs: Inputs, prompt: Tensor | None = None, entry: Entry | None = None, read: Read = None
    ) -> Pending[Hidden]:
        """Begin `forward` on a stream of its own and return a handle of its result.

        Raises:
            BackboneError: the graph cannot be made.
        """
        if prompt is None or entry is None:
            return super().start(inputs, read=read)
        if torch.is_grad_enabled() and prompt.requires_grad:
            raise ConfigError(
                f"a backbone in precision {self.precision} has no gradients: predict under torch.no_grad(), and train "
                "without `precision`"
            )
        position = read if isinstance(read, Tensor) and self.trunk is not None else None
        request = self._graph(variant_of(prompt, entry, picked=position is not None)).create_infer_request()
        request.start_async(self._arrays(inputs, prompt, entry, position), share_inputs=True)
        offset, length = entry.offset(prompt.shape[-2]), inputs.length

        def wait() -> Hidden:
            request.wait()
            states, *pooled = [output.data for output in request.output_tensors]
            if read == "mean":
                # By one thread, not by torch's beside OpenVINO's: those wait for each other ten times as long.
                mask, device = inputs.attention_mask, inputs.input_ids.device
                weights = text_weights(len(inputs), length, mask, device).numpy()
                picked = np.einsum("bt,bth->bh", weights, states[:, offset : offset + length])[:, None]
            else:
                picked = (states if position is not None else states[:, : offset + length]).copy()
            output = torch.from_numpy(pooled[0].copy()) if pooled else None
            whole = position is None and read != "mean"
            return Hidden(torch.from_numpy(picked), inputs.attention_mask, offset, output, picked=not whole)

        return Pending(wait)

    def _arrays(self, inputs: Inputs, prompt: Tensor, entry: Entry, position: Tensor | None) -> list[Any]:
        """Return the graph's inputs in their order, the text padded to the next step of lengths."""
        ids, mask, segments = inputs.input_ids, inputs.attention_mask, inputs.token_type_ids
        texts = [ids, torch.ones_like(ids) if mask is None else mask]
        if self.family.token_types:
            texts.append(torch.zeros_like(ids) if segments is None else segments)
        padding = self._padding(inputs.length, entry.positions_taken(prompt.shape[-2]))
        tensors = [nn.functional.pad(tensor, (0, padding)) for tensor in texts]
        tensors.insert(2, prompt.detach().float())
        if position is not None:
            tensors.append(position)
        return [tensor.contiguous().numpy() for tensor in tensors]

    def _padding(self, length: int, taken: int) -> int:
        """Positions of padding that bring a text to the next step, if the backbone has them beside those taken."""
        wanted = -length % LENGTH_STEP
        room = wanted if self.max_positions is None else self.max_positions - taken - length
        return max(0, min(wanted, room))

    def _graph(self, variant: Variant) -> Any:
        """Return the compiled graph of a variant; the first thread that needs it makes it, others wait."""
        with self._compiling:
            if variant not in self._compiled:
                self._compiled[variant] = self._compile(variant)
            return self._compiled[variant]

    def _compile(self, variant: Variant) -> Any:
        graph = self._store.read(variant)
        if graph is None:
            logger.info("compiling backbone '%s' for %s prompts in %s, once", self.name, variant.name, self._store.kind)
            graph = export_graph(self, variant)
            if self.precision == "int8":
                graph = quantize_graph(graph, self, variant)
            self._store.write(graph, variant)
        streams = _streams()
        if self.precision == "bf16" and _has_gates(graph):  # OpenVINO 2026.4 divides by half of a stream's threads
            streams = min(streams, _threads() // 2)
        if not streams:
            raise ConfigError(
                f"precision bf16 needs two threads for a {self.family.name} backbone; set OMP_NUM_THREADS=2 on two "
                "cores or more, or use `precision='int8'`"
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
