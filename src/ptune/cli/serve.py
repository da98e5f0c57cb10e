"""`ptune serve`: answer for many adapters over one backbone, through HTTP."""

from __future__ import annotations

import math
import os
import socket
import tempfile
from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any

from cyclopts import Parameter, validators
from pydantic import SecretStr

from ptune.cli.options import Cluster, ClusterOptions, Place, Target
from ptune.cli.serve_settings import merge
from ptune.cli.terminal import one_line
from ptune.errors import ConfigError
from ptune.serving.settings import ServeOptions, ServeSettings, Size


def _in_words(size: int) -> str:
    """Return a size as it is typed, such as 256MB."""
    unit, name = (2**30, "GB") if size % 2**30 == 0 else (2**20, "MB")
    return f"{size // unit}{name}"


_Size = Annotated[Size, Parameter(show_default=_in_words)]
_Keys = Annotated[list[SecretStr] | None, Parameter(negative=())]


class _Options(ServeOptions):
    """The settings in the form in which they are shown on the command line."""

    adapter_memory: _Size = ServeOptions.model_fields["adapter_memory"]  # type: ignore[assignment]
    max_body: _Size = ServeOptions.model_fields["max_body"]  # type: ignore[assignment]
    max_upload: _Size = ServeOptions.model_fields["max_upload"]  # type: ignore[assignment]
    api_keys: _Keys = ServeOptions.model_fields["api_keys"]  # type: ignore[assignment]
    admin_keys: _Keys = ServeOptions.model_fields["admin_keys"]  # type: ignore[assignment]
    cors_origins: Annotated[list[str] | None, Parameter(negative=())] = ServeOptions.model_fields[  # type: ignore[assignment]
        "cors_origins"
    ]


Serving = Annotated[_Options | None, Parameter(name="*", group="Server")]


def serve(
    *adapters: Place,
    backbone: Annotated[list[str] | None, Parameter(negative=())] = None,
    config: Target | None = None,
    min_replicas: Annotated[int, Parameter(group="Cluster", validator=validators.Number(gte=1))] = 1,
    max_replicas: Annotated[int | None, Parameter(group="Cluster", validator=validators.Number(gte=1))] = None,
    cluster: Cluster = None,
    options: Serving = None,
) -> None:
    """Answer requests for many adapters over one backbone, through HTTP.

    Each sub-folder of a folder is an adapter and is served under its name. The server notices adapters that are added,
    replaced or removed while it runs. Requests for different adapters share forward passes.

    The server speaks the protocols of Text Embeddings Inference, Hugging Face, vLLM and KServe. GET /docs lists them.

    Every option can also be set by an environment variable, such as PTUNE_SERVE_PORT, or in a YAML, TOML or JSON file.
    The command line overrides the environment, which overrides the file.

    Examples:
      ptune serve adapters/
      ptune serve reviews=./a spam=./b news=my-name/news@main
      ptune serve adapters/ --port 80 --host 0.0.0.0 --api-keys-file keys.yaml
      ptune serve adapters/ --precision int8 --adapter-memory 4GB
      ptune serve adapters/ --config serve.yaml
      ptune serve adapters/ --scale ray --min-replicas 2 --max-replicas 8

    Parameters
    ----------
    adapters
        A folder of adapters, or adapters by name: NAME=FOLDER or NAME=OWNER/NAME@REVISION.
    backbone
        The backbone; give the option several times for several. Default: the one that most adapters record.
    config
        A YAML, TOML or JSON file of settings by name.
    min_replicas
        Replicas of the server, with --scale ray. Requests prefer replicas that hold their adapter.
    max_replicas
        Most replicas; more are started under load. Default: as many as --min-replicas.
    """
    _need_libraries()
    settings = merge({"adapters": [str(place) for place in adapters], "backbone": backbone or []}, options, config)
    cluster = cluster or ClusterOptions()
    if cluster.scale == "ray":
        from ptune.cli.serve_on_cluster import serve_on_cluster

        announce = partial(_announce, settings, settings.port)
        serve_on_cluster(settings, cluster, min_replicas, max_replicas, announce)
    elif cluster.ray_address is not None or max_replicas is not None or min_replicas != 1:
        given = "--ray-address, --min-replicas and --max-replicas"
        raise ConfigError(f"{given} are for --scale ray; add it, or leave them out")
    elif settings.workers > 1:
        _run_workers(settings)
    else:
        _run(settings)


def _need_libraries() -> None:
    try:
        import fastapi  # noqa: F401
        import orjson  # noqa: F401
        import prometheus_client  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as err:
        raise ConfigError(
            f"ptune serve needs FastAPI, uvicorn, orjson and prometheus_client ({err.name} is missing); install them: "
            "pip install 'ptune[serve]'"
        ) from err


def _run(settings: ServeSettings) -> None:
    """Load everything and serve it in this process."""
    import uvicorn

    from ptune.serving.app import create_app, exempt_from_collection
    from ptune.serving.logs import log_to_stderr
    from ptune.serving.protocol import LimitedConfig

    with _bound(settings) as listening:  # first, because loading takes longer
        app = create_app(settings)
        service = app.state.service
        _listen(listening, settings)
        names = [backbone.name for backbone in service.backbones.all]
        _announce(settings, listening.getsockname()[1], [*service.catalogue.entries], names)
        log_to_stderr(settings.log_format)
        exempt_from_collection()
        uvicorn.Server(LimitedConfig(app, settings.body_timeout, **_server_options(settings))).run(sockets=[listening])


def _run_workers(settings: ServeSettings) -> None:
    """Serve in several processes, each of which loads everything itself."""
    from ptune.cli.serve_workers import Workers
    from ptune.model.locate import locate
    from ptune.serving.app import SETTINGS_VARIABLE, check_default, check_reach
    from ptune.serving.catalogue import Catalogue
    from ptune.serving.keys import Keys
    from ptune.serving.logs import log_to_stderr
    from ptune.serving.protocol import LimitedConfig

    keys = Keys(settings)
    check_reach(settings, keys)
    if keys.change_adapters and not settings.watch_seconds:
        raise ConfigError(
            f"with `workers={settings.workers}`, what one worker is told to add or remove reaches the others when they "
            "scan the folder; give `watch_seconds`",
            field="watch_seconds",
            value=0,
            expected="more than 0",
        )
    found = Catalogue(settings.adapters).look().new
    check_default(settings, [entry.name for entry in found])
    for backbone in settings.backbone:
        locate(backbone)
    # Backbones are not loaded here, so their names have to do.
    fitting = [entry for entry in found if entry.file.record.backbone.name in settings.backbone]
    names = [entry.name for entry in fitting or found]
    options = {"factory": True, "workers": settings.workers, **_server_options(settings)}
    config = LimitedConfig("ptune.serving.app:from_environment", settings.body_timeout, **options)
    listening = _bound(settings)
    _listen(listening, settings)
    _announce(settings, listening.getsockname()[1], names)
    log_to_stderr(settings.log_format)
    with tempfile.TemporaryDirectory(prefix="ptune-metrics-") as folder:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
        os.environ[SETTINGS_VARIABLE] = settings.worker_json()
        workers = Workers(config, sockets=[listening])
        workers.run()
    if workers.failed:
        raise ConfigError("no worker could start; its message is above")


def _server_options(settings: ServeSettings) -> dict[str, Any]:
    """Return uvicorn's options."""
    return {
        "log_config": None,
        "access_log": False,
        "server_header": False,
        "timeout_graceful_shutdown": math.ceil(settings.stop_seconds),
        "timeout_keep_alive": 30,
        # A worker that does not answer its supervisor is replaced, with all requests that it has.
        "timeout_worker_healthcheck": 60,
    }


def _bound(settings: ServeSettings) -> socket.socket:
    """Return a socket with the address and the port. It does not listen yet, so connections are refused.

    Raises:
        ConfigError: the address or the port cannot be used.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    bound = socket.socket(family)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((settings.host, settings.port))
    except OSError as err:
        bound.close()
        raise _cannot_listen(settings, err) from err
    return bound


def _listen(bound: socket.socket, settings: ServeSettings) -> None:
    """Let connections wait at a socket until they are accepted.

    Raises:
        ConfigError: another server was quicker to listen on the port.
    """
    try:
        bound.listen(2048)
    except OSError as err:
        bound.close()
        raise _cannot_listen(settings, err) from err
    bound.set_inheritable(True)


def _cannot_listen(settings: ServeSettings, err: OSError) -> ConfigError:
    return ConfigError(
        f"cannot listen on `host='{settings.host}'`, `port={settings.port}`: {err.strerror or err}; give another "
        "port, or 0 for any free one",
        field="port",
        value=settings.port,
    )


def _announce(settings: ServeSettings, port: int, names: Sequence[str], backbones: Sequence[str] = ()) -> None:
    """Print what is served, where, and how to ask."""
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    url = f"http://{host}:{port}"
    over = f" over {', '.join(backbones)}" if backbones else ""
    shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    count = f"{len(names)} adapter{'' if len(names) == 1 else 's'}"
    key = " -H 'Authorization: Bearer KEY'" if settings.has_keys else ""
    name = names[0] if names else "NAME"
    print(one_line(f"ptune: serving {count}{over} at {url}: {shown or 'none yet'}"))
    print(one_line(f"""  curl {url}/adapters/{name}/predict{key} -d '{{"inputs": "What a film."}}'"""), flush=True)
