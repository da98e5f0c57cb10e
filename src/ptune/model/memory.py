"""One exception for every way in which torch reports that memory ran out, and advice for the message."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

# Messages of allocators for which torch raises a plain RuntimeError, not a torch.OutOfMemoryError: those of the CPU and
# of Apple's GPUs, and those of the driver and its libraries on a GPU whose memory torch has filled.
_MESSAGES = (
    "DefaultCPUAllocator",
    "MPS backend out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUDA error: out of memory",
    "Triton Error [CUDA]: out of memory",
)


@contextmanager
def memory_errors() -> Iterator[None]:
    """Raise every out-of-memory error of the block as a torch.OutOfMemoryError."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as err:
        if any(message in str(err) for message in _MESSAGES):
            raise torch.OutOfMemoryError(str(err)) from err
        raise


def ways_out(device: torch.device, *ways: str) -> str:
    """Return the advice that ends an out-of-memory message: "use A, B or `device='cpu'`".

    Args:
        device: the device whose memory ran out. `device='cpu'` is added unless it is the CPU.
        ways: settings that need less memory; at least one if the device is the CPU.
    """
    *others, last = (*ways, *(["`device='cpu'`"] if device.type != "cpu" else []))
    return f"use {', '.join(others)} or {last}" if others else f"use {last}"
