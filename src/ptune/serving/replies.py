"""Errors of the server, in the form that each protocol has for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi.responses import JSONResponse

from ptune.errors import AdapterError, BackboneError, ConfigError, DataError, PtuneError, RequestError

# Text Embeddings Inference's names of errors, by status.
_TEI_TYPES = {
    400: "Empty",
    404: "NotFound",
    413: "Validation",
    422: "Validation",
    424: "Backend",
    429: "Overloaded",
    500: "Backend",
    503: "Unhealthy",
}
# OpenAI's names of errors, which vLLM uses too.
_OPENAI_TYPES = {
    400: "BadRequestError",
    401: "AuthenticationError",
    403: "PermissionDeniedError",
    404: "NotFoundError",
    413: "RequestTooLargeError",
    429: "RateLimitError",
    500: "InternalServerError",
    503: "ServiceUnavailableError",
    504: "TimeoutError",
}


def as_request_error(error: PtuneError, for_clients: Callable[[str], str]) -> RequestError:
    """Return the error of a request that an error of the library leads to.

    Args:
        for_clients: takes out of a message what does not concern clients.
    """
    if isinstance(error, RequestError):
        return error
    status = 500
    if isinstance(error, DataError | ConfigError):
        status = 422
    elif isinstance(error, AdapterError | BackboneError):
        status = 424
    return RequestError(for_clients(str(error)), status)


def _protocol(path: str, method: str) -> str:
    """Return which protocol a request belongs to: v2, openai, hugging_face or tei."""
    if path == "/v2" or path.startswith("/v2/"):
        return "v2"
    if path.startswith("/v1/") or path == "/classify":
        return "openai"
    parts = path.split("/")
    asked = method == "POST" and parts[1] == "adapters" and len(parts) == 3  # other methods change the catalogue
    return "hugging_face" if path == "/" or asked else "tei"


def error_reply(path: str, method: str, error: RequestError) -> JSONResponse:
    """Return the answer to a request that failed, in the form that its protocol has."""
    protocol = _protocol(path, method)
    headers: dict[str, str] = {}
    if error.retry_after is not None:
        headers["Retry-After"] = str(error.retry_after)
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    # Text Embeddings Inference alone tells a wrong value (422) from a wrong body (400).
    status = 400 if error.status == 422 and protocol != "tei" else error.status
    return JSONResponse(_body(protocol, status, error), status, headers)


def _body(protocol: str, status: int, error: RequestError) -> dict[str, Any]:
    message = str(error)
    if protocol == "v2":
        return {"error": message}
    if protocol == "openai":
        kind = _OPENAI_TYPES.get(status, "BadRequestError")
        param = "model" if error.field == "adapter" else error.field
        return {"error": {"message": message, "type": kind, "param": param, "code": status}}
    kind = error.kind or _TEI_TYPES.get(error.status, "Validation")
    return {"error": message, "error_type": kind}
