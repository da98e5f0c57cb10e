"""A frozen backbone whose layers are spread over the processes of a training (PyTorch's FSDP2).

Each process holds a part of every layer. Before a layer is computed, the processes bring its parts together, and let
them go afterwards; the same in the backward pass. So the memory of a process must hold its part of all layers, one or
two whole layers, and the embeddings. As nothing in the layers is trained, no gradients of theirs are exchanged.

Parts of a layer come together only if all processes compute the layer. But they may have different numbers of batches.
So each says before a pass that it has one, and a process without one computes a row whose result it does not use, until
none has any (`Shards.wait_for_others`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ptune.errors import ConfigError
from ptune.model.recompute import layers_of
from ptune.processes import Processes


class Shards:
    """The layers of a model, spread over all processes.

    Args:
        base: transformers' model without its head, on the CPU. Its layers go to `device`, a part to each process.
        name: name of the backbone, for messages.
        device: where this process computes.
        processes: all that take part.

    Raises:
        ConfigError: the layers are not modules of their own, or share weights.
    """

    def __init__(self, base: Any, name: str, device: torch.device, processes: Processes) -> None:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        layers = layers_of(base)
        if not layers:
            raise ConfigError(
                f"`shard` spreads layer after layer over the processes, but the layers of '{name}' are not modules of "
                "their own; leave it out",
                field="shard",
                value=True,
                expected="False",
            )
        self.processes = processes
        if device.type == "cuda":
            torch.cuda.set_device(device)  # FSDP takes the current one
        mesh = init_device_mesh(device.type, (processes.count,))
        shared = set(base.parameters())
        for layer in layers:
            own = set(layer.parameters())
            if not own <= shared:
                raise ConfigError(
                    f"`shard` gives each process a part of every layer, but layers of '{name}' share weights; leave it "
                    "out",
                    field="shard",
                    value=True,
                    expected="False",
                )
            shared -= own
            fully_shard(layer, mesh=mesh)
        fully_shard(base, mesh=mesh, ignored_params=shared)  # embeddings and the like are whole in every process
        base.register_forward_pre_hook(self._announce, prepend=True)
        self._filling = False

    def wait_for_others(self, one_pass: Callable[[], object]) -> None:
        """Take part in the passes of other processes until all have called this.

        Args:
            one_pass: makes one pass like those of the others, with or without its gradients.
        """
        self._filling = True
        try:
            while self.processes.any(False):
                one_pass()
        finally:
            self._filling = False

    def _announce(self, *_: Any) -> None:
        """Tell the others that there is a pass."""
        if not self._filling:
            self.processes.any(True)
