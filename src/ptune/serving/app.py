"""The application: `create_app(settings)` gives an ASGI application that any server can run."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.middleware.cors import CORSMiddleware
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException
from starlette.routing import Match
from uvicorn.config import STARTUP_FAILURE

from ptune.errors import ConfigError, PtuneError, RequestError
from ptune.serving.backbones import Backbones, load_backbones
from ptune.serving.bank import settle
from ptune.serving.catalogue import Catalogue, Entry
from ptune.serving.gate import DOCS_FILES, Gate
from ptune.serving.keys import Keys
from ptune.serving.logs import log_to_stderr
from ptune.serving.metrics import Metrics, has_workers
from ptune.serving.replies import as_request_error, error_reply
from ptune.serving.routes import adapters, open_inference, tei, vllm
from ptune.serving.service import Service
from ptune.serving.settings import ServeSettings
from ptune.serving.shutdown import drain_on_sigterm
from ptune.version import __version__

logger = logging.getLogger(__name__)
# Where the settings of a worker process are, as JSON.
SETTINGS_VARIABLE = "PTUNE_SERVE_WORKER_SETTINGS"


def create_app(settings: ServeSettings) -> FastAPI:
    """Load backbones and adapters, and return the application that answers for them.

    Raises:
        PtuneError: something cannot be loaded, or the settings contradict each other.
    """
    keys = Keys(settings)
    check_reach(settings, keys)
    return build_app(make_service(settings), keys)


def make_service(settings: ServeSettings) -> Service:
    """Return the service behind the application: catalogue, backbones, and threads that wait for work.

    Raises:
        PtuneError: something cannot be loaded, or there is no adapter to serve.
    """
    catalogue = Catalogue(settings.adapters)
    found = catalogue.look().new
    if not found and catalogue.broken:
        raise ConfigError(f"there is no adapter to serve: {next(iter(catalogue.broken.values()))}")
    backbones = load_backbones(
        settings.backbone,
        [entry.file for entry in found],
        settings.dtype,
        settings.device,
        settings.precision,
        settings.quantize,
    )
    _fill(catalogue, found, backbones)
    check_default(settings, list(catalogue.entries))
    return Service(settings, catalogue, backbones)


def check_default(settings: ServeSettings, names: Sequence[str]) -> None:
    """Check that the default adapter is one of the adapters with these names.

    Raises:
        ConfigError: it is not.
    """
    if settings.default_adapter is not None and settings.default_adapter not in names:
        raise ConfigError(
            f"`default_adapter='{settings.default_adapter}'` is not one of the adapters; there are "
            f"{', '.join(names[:20])}",
            field="default_adapter",
        )


def _fill(catalogue: Catalogue, found: Sequence[Entry], backbones: Backbones) -> None:
    """Put the adapters into the catalogue that go with a backbone.

    Raises:
        ConfigError: there are some, and none of them can be served.
    """
    for entry in found:
        try:
            catalogue.put(settle(entry, backbones))
        except PtuneError as err:
            catalogue.refuse(entry.name, entry.stamp, err)
    if catalogue.entries:
        return
    reason = next(iter(catalogue.broken.values()), None)
    if reason is not None:
        raise ConfigError(f"there is no adapter to serve: {reason}")


def check_reach(settings: ServeSettings, keys: Keys) -> None:
    """Check that nobody but this machine reaches a server without keys.

    Raises:
        ConfigError: the address is not that of this machine alone, and there are no keys.
    """
    if keys or settings.host in ("localhost", "::1") or settings.host.startswith("127."):
        return
    raise ConfigError(
        f"`host='{settings.host}'` lets other machines in, and there are no keys, so anybody could use the adapters; "
        "set PTUNE_SERVE_API_KEYS or `api_keys_file`, or leave `host` out",
        field="host",
        value=settings.host,
    )


def build_app(service: Service, keys: Keys) -> FastAPI:
    """Return the application in front of a service."""
    settings = service.settings
    metrics = Metrics(settings.metrics_adapters)
    service.batcher.on_batch = metrics.batch
    app = FastAPIOffline(  # Swagger's files come from this server, not from a public one
        title="ptune",
        version=__version__,
        summary="Text classifiers over one frozen backbone: many adapters, one process.",
        lifespan=_lifespan,
        docs_url="/docs",
        redoc_url=None,
        redirect_slashes=False,  # the address of a redirection would be what the request says the host is
        static_url=DOCS_FILES,
    )
    app.state.service, app.state.metrics = service, metrics
    for routes in (adapters, tei, vllm, open_inference):
        app.include_router(routes.router)
    if keys:
        _document_keys(app)
    app.add_api_route("/api-doc/openapi.json", lambda: app.openapi(), include_in_schema=False)
    app.add_exception_handler(PtuneError, _refuse)
    app.add_exception_handler(HTTPException, _refuse)
    app.add_middleware(
        Gate,
        settings=settings,
        keys=keys,
        metrics=metrics,
        is_draining=lambda: service.draining,
        let_in=service.let_in,
    )
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["authorization", "content-type", "x-adapter", "x-request-id"],
            expose_headers=["x-request-id", "retry-after"],
        )
    if settings.telemetry:
        from ptune.serving.telemetry import instrument

        instrument(app)
    return app


def _document_keys(app: FastAPI) -> None:
    """Say in the OpenAPI document that requests need a key, so that its page asks for one and clients can send it."""
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        document = plain()
        document.setdefault("components", {})["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"key": []}]
        return document

    app.openapi = openapi  # type: ignore[method-assign]


def exempt_from_collection() -> None:
    """Leave what is in memory now out of all later garbage collections. Only for a process that does nothing but serve.

    Libraries and models are half a million objects. Python looks through all of them from time to time, and no request
    goes on meanwhile: that takes 0.3 to 0.6 s.
    """
    gc.collect()
    gc.freeze()


def from_environment() -> FastAPI:
    """Return the application of a worker process, whose settings the first process left in the environment."""
    settings = ServeSettings.model_validate_json(os.environ[SETTINGS_VARIABLE])
    log_to_stderr(settings.log_format)
    try:
        app = create_app(settings)
    except PtuneError as err:
        logger.error("%s", err)
        sys.exit(STARTUP_FAILURE)  # the first process ends too, because another worker would fail in the same way
    exempt_from_collection()
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    service: Service = app.state.service
    drain_on_sigterm(service)
    tasks = [asyncio.create_task(_warm_up(service)), asyncio.create_task(service.watch())]
    if has_workers():
        tasks.append(asyncio.create_task(app.state.metrics.keep_noting(service)))
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await service.close()


async def _warm_up(service: Service) -> None:
    try:
        await service.warm_up()
    except Exception:
        logger.exception("the warm-up failed; the server does not become ready")


async def _refuse(request: Request, error: Exception) -> Response:
    """Answer a request that failed, in the form of its protocol."""
    if isinstance(error, PtuneError):
        answer = as_request_error(error, request.app.state.service.catalogue.for_clients)
        return error_reply(request.url.path, request.method, answer)
    assert isinstance(error, HTTPException)
    message = {404: "there is no such path; GET /docs lists all", 405: "this path does not take this method"}
    found = RequestError(message.get(error.status_code, str(error.detail)), error.status_code)
    reply = error_reply(request.url.path, request.method, found)
    reply.headers.update(error.headers or {})
    if error.status_code == 405:  # the error names the methods of one route alone
        reply.headers["Allow"] = ", ".join(sorted(_methods(request)))
    return reply


def _methods(request: Request) -> set[str]:
    """Return the methods that the path of a request takes."""

    def takes(method: str) -> bool:
        scope = {**request.scope, "method": method}
        return any(route.matches(scope)[0] == Match.FULL for route in request.app.routes)

    methods = {method for method in ("DELETE", "GET", "POST", "PUT") if takes(method)}
    return methods | {"HEAD"} if "GET" in methods else methods
