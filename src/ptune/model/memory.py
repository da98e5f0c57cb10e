"""What torch says where a device has no memory, in one form, and what a user can do about it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

# Of allocations that do not go through the allocator whose failure is a torch.OutOfMemoryError: the CPU's, those of
# Apple's GPUs, and those of the driver and the libraries themselves on a GPU that torch has filled.
_SAID = (
    "DefaultCPUAllocator",
    "MPS backend out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUDA error: out of memory",
    "Triton Error [CUDA]: out of memory",
)


@contextmanager
def memory_errors() -> Iterator[None]:
    """Within it, all that torch raises for want of memory is a torch.OutOfMemoryError."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as err:
        if any(words in str(err) for words in _SAID):
            raise torch.OutOfMemoryError(str(err)) from err
        raise


def ways_out(device: torch.device, *ways: str) -> str:
    """Return "use A, B or `device='cpu'`": what needs less of a device's memory, and for a GPU how to do without it."""
    *others, last = (*ways, *(["`device='cpu'`"] if device.type != "cpu" else []))
    return f"use {', '.join(others)} or {last}" if others else f"use {last}"
