"""What other libraries raise while they read a backbone, as one error that says what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ptune.errors import BackboneError, PtuneError
from ptune.model.locate import Location
from ptune.model.memory import memory_errors


@contextmanager
def reading(location: Location) -> Iterator[None]:
    """Raise whatever the block raises while it reads from a location as a BackboneError.

    A damaged configuration leads to errors of any class: an unknown activation is a KeyError, no attention heads are a
    ZeroDivisionError.
    """
    try:
        with memory_errors():
            yield
    except PtuneError:
        raise
    except (MemoryError, torch.OutOfMemoryError) as err:
        raise BackboneError(
            f"there is not enough memory to read backbone '{location.name}'; use `dtype='bfloat16'` or a smaller "
            "backbone"
        ) from err
    except Exception as err:
        raise location.failure(err) from err
