"""A backbone whose forward pass runs in OpenVINO, for prediction on the CPU.

    fp32   the same results as PyTorch
    bf16   matrix products in bfloat16; needs a CPU with AMX
    int8   the linear layers' matrix products in 8 bits; the others in bfloat16 with AMX, otherwise in float32

One graph serves all adapters whose prompts enter in the same way, because the
prompt is an input of the graph and the head is not part of it. A graph is built
when it is first needed, and is stored for later processes.
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
from ptune.model.backbone import Backbone, Prompt
from ptune.model.config import Precision
from ptune.model.entry import Entry
from ptune.model.hidden import Hidden, Read, pair_weights, text_weights
from ptune.model.loading import has_amx
from ptune.model.pending import Pending
from ptune.model.row_prompts import RowPrompts
from ptune.model.shared import Shared
from ptune.model.shared_backbone import shared_backbone

logger = logging.getLogger(__name__)

# Texts are padded to a multiple of this length, because OpenVINO takes time to build kernels for each new length.
LENGTH_STEP = 8


class CompiledBackbone(Backbone):
    """A backbone that runs `forward` in OpenVINO and everything else in PyTorch.

    Args:
        backbone: a float32 backbone on the CPU. Its weights are shared, not copied.
        precision: fp32, bf16 or int8.

    Raises:
        ConfigError: the precision is unknown, OpenVINO or NNCF is not installed, the backbone is not float32 on the
            CPU, or the CPU does not support bf16.
    """

    def __init__(self, backbone: Backbone, precision: Precision) -> None:
        nn.Module.__init__(self)
        if precision not in get_args(Precision):
            choices = ", ".join(get_args(Precision))
            raise ConfigError(
                f"precision '{precision}' is not known; use one of {choices}",
                field="precision",
                value=precision,
                expected=choices,
            )
        vars(self).update(vars(backbone))
        if backbone.device.type != "cpu" or backbone.dtype != torch.float32:
            raise ConfigError(
                f"precision {precision} needs float32 weights on the CPU, but backbone '{backbone.name}' was loaded as "
                f"{backbone.dtype_name} on {backbone.device}; load it with `dtype='float32'` and `device='cpu'`"
            )
        if precision == "bf16" and not has_amx():
            raise ConfigError(
                "precision bf16 needs a CPU with AMX, and this CPU has none; use `precision='int8'`",
                field="precision",
                value=precision,
                expected="fp32, int8",
            )
        self.precision: Precision = precision
        self._core = require("openvino").Core()
        if precision == "int8":
            require("nncf")  # fail now, not after a graph has been exported
        self._store = GraphStore(backbone, "int8" if precision == "int8" else "float32")
        self.under_way = _streams() + 1  # one more, so that no stream is idle while a result is collected
        self._compiled: dict[Variant, Any] = {}
        self._compiling = Lock()

    @property
    def original(self) -> Backbone:
        """The backbone that this one was made from, in PyTorch."""
        return self._store.backbone

    def forward(
        self, inputs: Inputs, prompt: Prompt | None = None, entry: Entry | None = None, read: Read = None
    ) -> Hidden:
        """Run the model like `Backbone.forward`, but without gradients.

        Raises:
            ConfigError: gradients are needed, or bf16 has too few threads.
            BackboneError: the graph cannot be built.
        """
        if prompt is None or entry is None:
            return super().forward(inputs, read=read)
        return self.start(inputs, prompt, entry, read).result()

    def start(
        self, inputs: Inputs, prompt: Prompt | None = None, entry: Entry | None = None, read: Read = None
    ) -> Pending[Hidden]:
        """Start `forward` on a free stream and return a handle to its result.

        Raises:
            ConfigError: gradients are needed, or bf16 has too few threads.
            BackboneError: the graph cannot be built.
        """
        if prompt is None or entry is None:
            return super().start(inputs, read=read)
        if isinstance(prompt, RowPrompts):
            prompt = prompt.stacked()
        if torch.is_grad_enabled() and prompt.requires_grad:
            raise ConfigError(
                f"a backbone with precision {self.precision} has no gradients; predict under torch.no_grad(), or train "
                "without `precision`",
                field="precision",
                value=self.precision,
            )
        position = read if isinstance(read, Tensor) and self.picks else None
        request = self._graph(variant_of(prompt, entry, picked=position is not None)).create_infer_request()
        request.start_async(self._arrays(inputs, prompt, entry, position), share_inputs=True)
        offset, length = entry.offset(prompt.shape[-2]), inputs.length

        def wait() -> Hidden:
            request.wait()
            states, *pooler_outputs = [output.data for output in request.output_tensors]
            if isinstance(read, str):
                # NumPy uses one thread. torch's threads and OpenVINO's would wait for each other ten times as long.
                mask, device = inputs.attention_mask, inputs.input_ids.device
                weights = text_weights(len(inputs), length, mask, device)
                weights = pair_weights(weights, inputs.pair_position) if read == "pair" else weights[:, None]
                selected = np.einsum("bkt,bth->bkh", weights.numpy(), states[:, offset : offset + length])
            else:
                selected = (states if position is not None else states[:, : offset + length]).copy()
            pooler_output = torch.from_numpy(pooler_outputs[0].copy()) if pooler_outputs else None
            picked = position is not None or isinstance(read, str)
            return Hidden(torch.from_numpy(selected), inputs.attention_mask, offset, pooler_output, picked=picked)

        return Pending(wait)

    def _arrays(self, inputs: Inputs, prompt: Tensor, entry: Entry, position: Tensor | None) -> list[Any]:
        """Return the graph's inputs in order, with the text padded to a multiple of LENGTH_STEP."""
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
        """Return how many positions of padding to append to a text, limited by the backbone's positions.

        Args:
            length: positions of the text.
            taken: positions of the prompt.
        """
        wanted = -length % LENGTH_STEP
        room = wanted if self.max_positions is None else self.max_positions - taken - length
        return max(0, min(wanted, room))

    def _graph(self, variant: Variant) -> Any:
        """Return the compiled graph of a variant. The first thread that needs it compiles it while others wait."""
        with self._compiling:
            if variant not in self._compiled:
                self._compiled[variant] = self._compile(variant)
            return self._compiled[variant]

    def _compile(self, variant: Variant) -> Any:
        """Read the graph of a variant from the store, or export and store it, and compile it.

        Raises:
            ConfigError: bf16 has too few threads for the backbone.
            BackboneError: the graph cannot be built.
        """
        graph = self._store.read(variant)
        if graph is None:
            logger.info("compiling backbone '%s' for %s prompts in %s, once", self.name, variant.name, self._store.kind)
            graph = export_graph(self.original, variant)
            if self.precision == "int8":
                graph = quantize_graph(graph, self, variant)
            self._store.write(graph, variant)
        streams = _streams()
        if self.precision == "bf16" and _has_gates(graph):  # OpenVINO 2026.4 divides by half of a stream's threads
            streams = min(streams, _threads() // 2)
        if not streams:
            raise ConfigError(
                f"precision bf16 needs two threads for a {self.family.name} backbone; set OMP_NUM_THREADS=2 on a "
                "machine with two or more cores, or use `precision='int8'`",
                field="precision",
                value=self.precision,
                expected="fp32, int8",
            )
        return self._core.compile_model(graph, "CPU", _options(self.precision, streams))


_compiled: Shared[CompiledBackbone] = Shared()


def compiled(backbone: Backbone, precision: Precision) -> CompiledBackbone:
    """Return a backbone that runs in OpenVINO. All that compile the same backbone alike share it and its graphs.

    Args and errors are those of `CompiledBackbone`. A compiled backbone is compiled again from what it was made from.
    """
    original = backbone.original if isinstance(backbone, CompiledBackbone) else backbone
    # The compiled backbone keeps the original alive, so no other object can have its id. Graphs are compiled for the
    # number of threads that there was.
    key = (id(original), precision, _threads())
    return _compiled.get(key, lambda: CompiledBackbone(original, precision))


def named_backbone(
    name: str,
    revision: str | None,
    dtype: str,
    device: str,
    precision: Precision | None,
    quantize: str | None = None,
    device_map: str | None = None,
) -> Backbone:
    """Return the shared backbone of a name, compiled if a precision is given.

    OpenVINO reads the weights in float32 on the CPU, so with a precision `auto` stands for these.

    Args and errors are those of `load_backbone` and `CompiledBackbone`.

    Raises:
        ConfigError: a precision is given together with `quantize` or `device_map`.
    """
    if precision is None:
        return shared_backbone(name, revision, dtype, device, quantize, device_map)
    for field, value in (("quantize", quantize), ("device_map", device_map)):
        if value is not None:
            raise ConfigError(
                f"`{field}` is for PyTorch, and `precision='{precision}'` runs the backbone with OpenVINO; give one of "
                "the two",
                field=field,
                value=value,
                expected="none",
            )
    dtype, device = "float32" if dtype == "auto" else dtype, "cpu" if device == "auto" else device
    return compiled(shared_backbone(name, revision, dtype, device), precision)


# Most batches computed in parallel. More batches are faster than more threads per batch, because threads that share a
# batch wait for each other at every product.
MOST_STREAMS = 4


def _threads() -> int:
    """Return the number of PyTorch's threads (OMP_NUM_THREADS), but at most the number of cores."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(torch.get_num_threads(), cores)


def _streams() -> int:
    """Return the number of batches to compute in parallel."""
    return min(_threads(), MOST_STREAMS)


def _options(precision: Precision, streams: int) -> dict[str, Any]:
    """Return OpenVINO's options for compiling a graph. All streams together use all threads."""
    # The type is set here because with bfloat16 but without AMX OpenVINO's results can be wrong (openvino#38256).
    in_bfloat16 = precision == "bf16" or (precision == "int8" and has_amx())
    return {
        "INFERENCE_PRECISION_HINT": "bf16" if in_bfloat16 else "f32",
        "INFERENCE_NUM_THREADS": _threads(),
        "NUM_STREAMS": streams,
        "ENABLE_CPU_PINNING": False,  # pinning would put single-threaded processes on the same core
        "SNIPPETS_MODE": "DISABLE",  # OpenVINO's fused attention takes twice as long (docs/log.md)
    }


def _has_gates(graph: Any) -> bool:
    """Return whether feed-forward layers are gated, i.e. multiply by an activation, as in Llama and ModernBERT."""
    activations = ("Swish", "Gelu")
    return any(
        node.get_type_name() == "Multiply"
        and any(value.get_node().get_type_name() in activations for value in node.input_values())
        for node in graph.get_ops()
    )
