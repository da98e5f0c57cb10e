"""`ptune serve` on a Ray cluster: the same application in several replicas behind one address.

Ray Serve runs the two ends of `ptune.scale.relay`: a front, which reads requests, and engines, which hold a backbone
and a bank of adapters. An engine tells Ray which adapters it holds (Serve's model multiplexing), and a request prefers
the engines that hold its adapter.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from ptune.errors import ConfigError
from ptune.scale.cluster import Workers
from ptune.scale.relay import Call, Engine, Front, Reply
from ptune.serving.app import exempt_from_collection
from ptune.serving.settings import ServeSettings

APPLICATION = "ptune"
# Requests that an engine takes at a time. Its batcher forms batches of them, and refuses those that wait for too long.
UNDER_WAY = 256
# Requests of an engine above which another one is started.
TARGET = 32


@dataclass(frozen=True)
class Replicas:
    """How many engines there are.

    least, most: bounds of the autoscaling; without it both are the same.
    """

    least: int
    most: int

    def __post_init__(self) -> None:
        if self.most < self.least:
            raise ConfigError(
                f"`max_replicas` is {self.most}, but `min_replicas` is {self.least}; give at least as many",
                field="max_replicas",
                value=self.most,
                expected=f"at least {self.least}",
            )

    @property
    def options(self) -> dict[str, Any]:
        """What Ray Serve calls them."""
        if self.least == self.most:
            return {"num_replicas": self.least}
        bounds = {"min_replicas": self.least, "max_replicas": self.most, "target_ongoing_requests": TARGET}
        return {"autoscaling_config": bounds}


@contextmanager
def served(settings: ServeSettings, replicas: Replicas, workers: Workers, held: int) -> Iterator[ModuleType]:
    """Serve on the connected cluster while the block runs.

    Args:
        settings: of the server. Paths in it are absolute, because engines may run elsewhere.
        replicas: how many engines.
        workers: what each of them takes.
        held: adapters that fit into the memory of an engine.

    Yields:
        The package `ray.serve`.

    Raises:
        ConfigError: the address cannot be used, or the application does not start. The message has the reason.
    """
    from ray import serve
    from ray.serve.config import HTTPOptions

    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    quiet = {"log_level": "ERROR", "enable_access_log": False}
    try:
        serve.start(http_options=HTTPOptions(host=settings.host, port=settings.port), logging_config=quiet)
        serve.run(_application(settings, replicas, workers, held), name=APPLICATION, logging_config=quiet)
    except Exception as err:  # Ray raises errors of many kinds
        raise ConfigError(f"the server does not start on the cluster: {_reason(err)}", field="scale") from err
    try:
        yield serve
    finally:
        serve.delete(APPLICATION)


def _application(settings: ServeSettings, replicas: Replicas, workers: Workers, held: int) -> Any:
    from ray import serve
    from ray.exceptions import RayActorError
    from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError

    text = settings.worker_json()

    class EngineReplica:
        async def __init__(self) -> None:  # type: ignore[misc]  # Serve waits for it
            self.engine = Engine(text)
            exempt_from_collection()
            await self.engine.start()

        @serve.multiplexed(max_num_models_per_replica=held)  # type: ignore[untyped-decorator]
        async def hold(self, name: str) -> str:
            return await self.engine.hold(name)

        async def answer(self, call: Call) -> Reply:
            name = serve.get_multiplexed_model_id()
            if name and self.engine.knows(name):  # others would push adapters out of what Ray knows
                await self.hold(name)
            return await self.engine.answer(call)

    class FrontReplica(Front):
        def __init__(self, engines: Any) -> None:
            async def send(call: Call, name: str | None) -> Reply:
                handle = engines.options(multiplexed_model_id=name) if name else engines
                return await handle.answer.remote(call)

            lost = (RayActorError, BackPressureError, DeploymentUnavailableError)
            super().__init__(ServeSettings.model_validate_json(text), send, lost)

    engine = serve.deployment(
        EngineReplica,
        name="engine",
        max_ongoing_requests=UNDER_WAY,
        ray_actor_options=workers.options,
        graceful_shutdown_timeout_s=settings.stop_seconds,
        health_check_period_s=1,
        health_check_timeout_s=60,
        **replicas.options,
    )
    front = serve.deployment(
        FrontReplica, name="front", num_replicas=1, max_ongoing_requests=10_000, ray_actor_options={"num_cpus": 0}
    )
    return front.bind(engine.bind())


def _reason(err: Exception) -> str:
    """Return what is worth reading of an error of Ray Serve: the line with ptune's own error, or the last one."""
    lines = [line.strip() for line in str(err).splitlines() if line.strip()]
    own = [line for line in lines if line.startswith("ptune.errors.")]
    return (own or lines or [type(err).__name__])[-1].removeprefix("ptune.errors.")
