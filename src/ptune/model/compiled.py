"""The backbone's forward pass and the way back through it as one compiled graph.

torch.compile traces them once, with the number of rows and tokens left open, and joins what lies between the matrix
products. On a GPU the launches of a shape are recorded as a CUDA graph besides, so that the host does not hold the
device up; batches are therefore padded to few lengths (`LENGTHS`). Only training goes this way: what is evaluated
and kept is computed as everywhere else.
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
from ptune.model.backbone import Backbone, Hidden, Read
from ptune.model.entry import Entry
from ptune.model.pending import Pending

# A batch's tokens are padded to a multiple of so many, by the kind of device: to few graphs, or to whole vectors.
LENGTHS = {"cuda": 16}
WHOLE_VECTORS = 8


def length_step(device: torch.device) -> int:
    """What a batch's tokens are padded to a multiple of."""
    return LENGTHS.get(device.type, WHOLE_VECTORS)


class CompiledForward:
    """`Backbone.forward`, compiled when it is first called.

    Args:
        compiler: torch.compile's backend; None: inductor, which needs a C++ compiler on a CPU and Triton on a GPU.
    """

    def __init__(self, backbone: Backbone, compiler: str | None = None) -> None:
        # Before torch 2.13, graphs recorded in one thread make every other thread fail that compiles with them.
        main = threading.current_thread() is threading.main_thread()
        self._graphs = backbone.device.type == "cuda" and compiler is None and main
        mode = {"mode": "reduce-overhead"} if self._graphs else {}
        compile_: Callable[..., Any] = torch.compile
        self._forward = compile_(_flat(backbone), backend=compiler or "inductor", dynamic=True, **mode)

    def __call__(self, inputs: Inputs, prompt: Tensor, entry: Entry, read: Read = None) -> Pending[Hidden]:
        """Run the pass and return a handle of its result, as `Backbone.start` does.

        Raises:
            TrainingError: the machine lacks what compiling needs.
        """
        if self._graphs:
            torch.compiler.cudagraph_mark_step_begin()
            # The gradient lies in the graph's own memory, which the next batch writes over.
            prompt = prompt.clone()
            prompt.register_hook(torch.clone)
        try:
            # Scales and epsilons are constants. As inputs, which `dynamic` would make of them, they stay on the CPU and
            # break a CUDA graph into pieces, and a backbone is traced twice.
            with torch._dynamo.config.patch(specialize_float=True), warnings.catch_warnings():
                # Tracing looks at the gradient of a prompt that is made, not stored.
                warnings.filterwarnings("ignore", message="The .grad attribute")
                hidden: Hidden = self._forward(
                    inputs.input_ids, inputs.attention_mask, inputs.token_type_ids, prompt, entry, read
                )
        except torch._dynamo.exc.BackendCompilerFailed as err:
            reason = str(err).strip().splitlines()[0]
            raise TrainingError(
                f"the backbone cannot be compiled here ({reason}); torch.compile needs a C++ compiler on a CPU and "
                "Triton on a GPU: install it, or train with `compile=False`"
            ) from err
        return Pending.done(hidden)


def _flat(backbone: Backbone) -> Callable[..., Hidden]:
    """Return the backbone's forward pass as a function of tensors."""

    def forward(
        input_ids: Tensor,
        attention_mask: Tensor | None,
        token_type_ids: Tensor | None,
        prompt: Tensor,
        entry: Entry,
        read: Read,
    ) -> Hidden:
        return backbone.forward(Inputs(input_ids, attention_mask, token_type_ids), prompt, entry, read)

    return forward
