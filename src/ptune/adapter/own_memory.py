"""Memory for an adapter's weights that the system gets back when the adapter goes.

The C library keeps the memory of freed tensors for later. With 200 adapters of
0.7 MB, none of it came back to the system (glibc 2.36). A mapping does come back.
"""

from __future__ import annotations

import math
import mmap
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

# Smaller tensors stay with torch's allocator: a mapping takes whole pages.
SMALLEST = 16 * mmap.PAGESIZE
_FILLING = (nn.init.normal_, nn.init.uniform_, nn.init.constant_, nn.init.kaiming_uniform_)


class OwnMemory(TorchFunctionMode):
    """Inside the `with` block, each new uninitialized tensor on the CPU gets a mapping of its own.

    Modules create their weights by `torch.empty` and `torch.empty_like`. Copying the weights afterwards would not be
    enough, because the first copies would leave holes in the C library's memory. The functions of `torch.nn.init` do
    nothing: the weights are about to be read from a file, and drawing random ones takes a third of the time.
    """

    def __torch_function__(self, function: Any, _: Any, args: Any = (), options: Any = None) -> Any:
        options = options or {}
        if function in _FILLING:
            return options["tensor"] if "tensor" in options else args[0]
        if function in (torch.empty, torch.empty_like):
            shape = function(*args, **{**options, "device": "meta"})
            like = args[0] if function is torch.empty_like and args else None
            device = options.get("device") or (like.device if isinstance(like, Tensor) else "cpu")
            if torch.device(device).type == "cpu" and shape.nbytes >= SMALLEST:
                return _mapped(shape)
        return function(*args, **options)


def _mapped(shape: Tensor) -> Tensor:
    """Return a tensor of zeros in an anonymous mapping, which lives as long as a tensor uses it.

    Args:
        shape: a tensor of the wanted shape and number type, on the meta device.
    """
    buffer = mmap.mmap(-1, math.prod(shape.shape) * shape.element_size())
    return torch.frombuffer(buffer, dtype=shape.dtype).view(shape.shape)
