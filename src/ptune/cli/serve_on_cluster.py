"""ptune serve --scale ray"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable

from ptune.cli.options import ClusterOptions
from ptune.cli.recorded import absolute
from ptune.errors import ConfigError
from ptune.hub import expanded
from ptune.serving.settings import ServeSettings


def serve_on_cluster(
    settings: ServeSettings,
    options: ClusterOptions,
    min_replicas: int,
    max_replicas: int | None,
    announce: Callable[[list[str]], None],
) -> None:
    """Serve on a Ray cluster until the process is told to stop.

    Args:
        settings: of the server.
        options: which cluster.
        min_replicas, max_replicas: bounds of the number of replicas; None: the same as the least.
        announce: called with the names of the adapters when requests are answered.

    Raises:
        ConfigError: there is no cluster, it is too small, or the settings do not go with it.
    """
    from ptune.scale.cluster import cluster, import_ray, plan_workers
    from ptune.scale.serve import Replicas, served
    from ptune.serving.app import check_reach
    from ptune.serving.catalogue import Catalogue
    from ptune.serving.keys import Keys

    replicas = Replicas(min_replicas, max_replicas or min_replicas)
    import_ray()
    _check(settings)
    settings = settings.model_copy(
        update={
            "adapters": [_absolute(place) for place in settings.adapters],
            "backbone": [absolute(place) for place in settings.backbone],
            "api_keys_file": settings.api_keys_file and expanded(settings.api_keys_file).resolve(),
        }
    )
    check_reach(settings, Keys(settings))
    entries = Catalogue(settings.adapters).look().new
    held = max(1, settings.adapter_memory // max([entry.file.bytes for entry in entries], default=1))
    stop = threading.Event()
    with (
        cluster(options.ray_address, None) as ray,
        served(settings, replicas, plan_workers(ray, replicas.most), min(held, 10_000)),
    ):
        for number in (signal.SIGINT, signal.SIGTERM):  # now, because Ray has set handlers of its own
            signal.signal(number, lambda *_: stop.set())
        announce([entry.name for entry in entries])
        while not stop.wait(1):
            pass


def _check(settings: ServeSettings) -> None:
    """Check that the settings go with a cluster.

    Raises:
        ConfigError: they do not.
    """
    if settings.workers > 1:
        raise ConfigError("`workers` are processes of one server; with --scale ray give --min-replicas instead")
    if settings.port == 0:
        raise ConfigError("`port=0` is any free port, and a cluster needs a fixed one; give its number", field="port")


def _absolute(place: str) -> str:
    """Return the place of an adapter as engines with other working folders find it."""
    from ptune.serving.catalogue import split_place

    name, path = split_place(place)
    return f"{name}={absolute(path)}" if name else absolute(path)
