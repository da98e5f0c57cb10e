"""The backbone's forward and backward pass, compiled by torch.compile.

They are traced once, with the number of rows and tokens left open, and the operations between the matrix products are
fused. On a GPU the kernel launches for each shape are also recorded as a CUDA graph, so that the GPU does not wait for
the host. Batches are therefore padded to a few lengths (`LENGTHS`). Only training uses the compiled pass. Evaluation
uses the ordinary one, as inference does.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ptune.data.batch import Inputs
from ptune.errors import TrainingError
from ptune.model.backbone import Backbone
from ptune.model.entry import Entry
from ptune.model.hidden import Hidden, Read
from ptune.model.pending import Pending

# The length of a batch is padded to a multiple of this many tokens, by device type. On a GPU this keeps the number of
# graphs low. WHOLE_VECTORS is for other devices, whose vector instructions are then filled.
LENGTHS = {"cuda": 16}
WHOLE_VECTORS = 8


def length_step(device: torch.device) -> int:
    """Return the number of tokens that a batch is padded to a multiple of."""
    return LENGTHS.get(device.type, WHOLE_VECTORS)


class CompiledForward:
    """`Backbone.forward`, compiled when it is first called.

    Args:
        backbone: the backbone whose forward pass is compiled.
        compiler: backend of torch.compile; None: inductor, which needs a C++ compiler on a CPU and Triton on a GPU.
    """

    def __init__(self, backbone: Backbone, compiler: str | None = None) -> None:
        # Before torch 2.13, once one thread has recorded graphs, compiling with graphs fails in every other thread.
        main = threading.current_thread() is threading.main_thread()
        self._graphs = backbone.device.type == "cuda" and compiler is None and main
        mode = {"mode": "reduce-overhead"} if self._graphs else {}
        compile_: Callable[..., Any] = torch.compile
        self._forward = compile_(_flat(backbone), backend=compiler or "inductor", dynamic=True, **mode)

    def __call__(self, inputs: Inputs, prompt: Tensor, entry: Entry, read: Read = None) -> Pending[Hidden]:
        """Run the pass and return a handle to its result, as `Backbone.start` does.

        Raises:
            TrainingError: the machine has no compiler that torch.compile can use.
        """
        if self._graphs:
            torch.compiler.cudagraph_mark_step_begin()
            # The gradient is in the graph's own memory, which the next batch overwrites.
            prompt = prompt.clone()
            prompt.register_hook(torch.clone)
        try:
            # `dynamic` would turn scales and epsilons into inputs of the graph. They would then be scalars on the CPU,
            # which break a CUDA graph into pieces, and the backbone would be traced twice. So they stay constants.
            with torch._dynamo.config.patch(specialize_float=True), warnings.catch_warnings():
                # Tracing reads `.grad` of the prompt. It is the output of an encoder, not a leaf, so torch warns.
                warnings.filterwarnings("ignore", message="The .grad attribute")
                hidden: Hidden = self._forward(
                    inputs.input_ids,
                    inputs.attention_mask,
                    inputs.token_type_ids,
                    inputs.pair_position if read == "pair" else None,
                    prompt,
                    entry,
                    read,
                )
        except torch._dynamo.exc.BackendCompilerFailed as err:
            reason = str(err).strip().splitlines()[0]
            raise TrainingError(
                f"the backbone cannot be compiled on this machine ({reason}); torch.compile needs a C++ compiler on a "
                "CPU and Triton on a GPU; install it, or train with `compile=False`"
            ) from err
        return Pending.done(hidden)


def _flat(backbone: Backbone) -> Callable[..., Hidden]:
    """Return the backbone's forward pass as a function of tensors."""

    def forward(
        input_ids: Tensor,
        attention_mask: Tensor | None,
        token_type_ids: Tensor | None,
        pair_position: Tensor | None,
        prompt: Tensor,
        entry: Entry,
        read: Read,
    ) -> Hidden:
        inputs = Inputs(input_ids, attention_mask, token_type_ids, pair_position=pair_position)
        return backbone.forward(inputs, prompt, entry, read)

    return forward
