"""The Open Inference Protocol, version 2, as KServe and Triton speak it. The model's name is the adapter's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import chain
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from ptune.data.targets import MULTI, REGRESSION
from ptune.data.texts import Text
from ptune.errors import RequestError
from ptune.serving.bank import Loaded
from ptune.serving.parsing import JSON_LENGTH, optional, read_parts, wrong
from ptune.serving.routes import schemas
from ptune.serving.routes.binary_tensors import take_data, with_binary
from ptune.serving.routes.common import ask, named, scores_reply, service_of
from ptune.serving.service import Answer
from ptune.version import __version__

router = APIRouter(prefix="/v2", tags=["Open Inference Protocol"])
TEXT, PAIR = "text", "text_pair"
OUTPUTS = (LABEL, SCORES) = ("label", "scores")
VERSION = "1"


@router.get("", **schemas.V2_SERVER)
async def server() -> Response:
    """Return what the server is."""
    return JSONResponse({"name": "ptune", "version": __version__, "extensions": ["binary_tensor_data"]})


@router.get("/health/live", **schemas.V2_LIVE)
async def live() -> Response:
    """Answer that the process runs."""
    return JSONResponse({"live": True})


@router.get("/health/ready", **schemas.V2_READY)
async def ready(request: Request) -> Response:
    """Answer 200 if the server is ready, otherwise 503."""
    service = service_of(request)
    return JSONResponse({"ready": service.takes_requests}, 200 if service.takes_requests else 503)


@router.get("/models/{name}/versions/{version}/ready", **schemas.V2_MODEL_READY)
async def version_ready(request: Request, name: str, version: str) -> Response:
    """Answer 200 if an adapter can be asked, otherwise 503."""
    _check_version(version)
    return await model_ready(request, name)


@router.get("/models/{name}/ready", **schemas.V2_MODEL_READY)
async def model_ready(request: Request, name: str) -> Response:
    """Answer 200 if an adapter can be asked, otherwise 503."""
    service = service_of(request)
    name = named(request, None, name)
    try:
        service.catalogue[name]
        usable = service.ready and service.is_usable(name)
    except RequestError as err:
        if err.status != 424:
            raise
        usable = False  # its files cannot be used
    return JSONResponse({"name": name, "ready": usable}, 200 if usable else 503)


@router.get("/models/{name}/versions/{version}", **schemas.V2_MODEL)
async def version(request: Request, name: str, version: str) -> Response:
    """Return the inputs and outputs of an adapter."""
    _check_version(version)
    return await model(request, name)


@router.get("/models/{name}", **schemas.V2_MODEL)
async def model(request: Request, name: str) -> Response:
    """Return the inputs and outputs of an adapter."""
    adapter = await service_of(request).adapter(named(request, None, name))
    names = [TEXT, PAIR] if adapter.task.columns.get("text_pair") else [TEXT]
    classes = len(adapter.labels)
    parameters: dict[str, Any] = {"labels": adapter.labels}
    if adapter.problem_type == MULTI:
        decision = adapter.task.decision
        thresholds = list(decision.by_label(adapter.labels).values())
        parameters |= {"thresholds": thresholds, "at_least_one": decision.at_least_one}
    outputs = [{"name": SCORES, "datatype": "FP32", "shape": [-1, classes], "parameters": parameters}]
    if _has_label(adapter):
        outputs.insert(0, {"name": LABEL, "datatype": "BYTES", "shape": [-1]})
    return JSONResponse(
        {
            "name": name,
            "versions": [VERSION],
            "platform": "ptune",
            "inputs": [{"name": field, "datatype": "BYTES", "shape": [-1]} for field in names],
            "outputs": outputs,
        }
    )


@router.post("/models/{name}/versions/{version}/infer", **schemas.V2_INFER)
async def version_infer(request: Request, name: str, version: str) -> Response:
    """Classify the texts in the tensor `text`, with those in `text_pair` if the adapter takes pairs."""
    _check_version(version)
    return await infer(request, name)


@router.post("/models/{name}/infer", **schemas.V2_INFER)
async def infer(request: Request, name: str) -> Response:
    """Classify the texts in the tensor `text`, with those in `text_pair` if the adapter takes pairs."""
    adapter = named(request, None, name)
    service_of(request).entry(adapter)  # a name that there is not comes before what is wrong with the body
    body, binary = await read_parts(request)
    identifier = optional(body, "id", str, "a text")
    options = optional(body, "parameters", dict, "an object", {})
    raw = optional(options, "raw_scores", bool, "true or false", False)
    texts = _texts(_tensors(body, binary, service_of(request).check_rows))
    all_binary = optional(options, "binary_data_output", bool, "true or false", False)
    wanted = _wanted(body, all_binary)
    (answer,) = await ask(request, [adapter], texts)
    missing = wanted.keys() - {SCORES, *([LABEL] if _has_label(answer.adapter) else [])}
    if missing:
        raise RequestError(f"there is no output {sorted(missing)[0]!r:.100}; GET /v2/models/{adapter} lists them", 422)

    def content() -> dict[str, Any]:
        tensors = _outputs(answer, "none" if raw else None)
        outputs = [tensor for tensor in tensors if not wanted or tensor["name"] in wanted]
        found = {"model_name": adapter, "model_version": VERSION, "outputs": outputs}
        return found if identifier is None else found | {"id": identifier}

    as_bytes = [name for name in wanted or OUTPUTS if wanted.get(name, all_binary)]
    if not as_bytes:
        return await scores_reply([answer], content)
    written, length = await asyncio.to_thread(lambda: with_binary(content(), as_bytes))
    return Response(written, media_type="application/octet-stream", headers={JSON_LENGTH: str(length)})


def _check_version(version: str) -> None:
    if version != VERSION:
        raise RequestError(f"there is no version {version!r:.100}; leave it out, or give {VERSION}", 404)


def _tensors(
    body: dict[str, Any], binary: memoryview | None, check_rows: Callable[[int], None]
) -> dict[str, list[str]]:
    """Return the texts of each input tensor, by its name.

    Args:
        body: the request's JSON.
        binary: the bytes behind it.
        check_rows: raises if a request has too many rows.

    Raises:
        RequestError: a tensor has another form, type or shape (422).
    """
    inputs = body.get("inputs")
    if not inputs:
        raise RequestError("`inputs` has no tensors", 422, field="inputs")
    if not isinstance(inputs, list):
        raise wrong("inputs", inputs, "a list of tensors")
    names: set[str] = set()
    for tensor in inputs:
        if not isinstance(tensor, dict) or not isinstance(tensor.get("name"), str):
            raise wrong("inputs", tensor, "tensors with name, shape, datatype and data")
        name = tensor["name"]
        if name in names:
            raise RequestError(f"there are two inputs named {name!r:.100}", 422, field="inputs")
        if tensor.get("datatype") != "BYTES":
            raise RequestError(f"input {name!r:.100} has another datatype than BYTES", 422, field="inputs")
        names.add(name)
    tensors: dict[str, list[str]] = {}
    for tensor in take_data(inputs, binary, check_rows):
        name, shape, data = tensor["name"], tensor.get("shape"), tensor.get("data")
        if not isinstance(data, list):
            raise wrong("data", data, "a list of texts")
        if any(isinstance(item, list) for item in data):
            data = list(chain.from_iterable(item if isinstance(item, list) else [item] for item in data))
        if not all(isinstance(item, str) for item in data):
            raise RequestError(f"the data of input {name!r:.100} are not all texts", 422, field="inputs")
        whole = isinstance(shape, list) and all(type(size) is int for size in shape)  # True == 1 == 1.0
        if not whole or shape not in ([len(data)], [len(data), 1], [1, len(data)]):
            raise RequestError(
                f"the shape of input {name!r:.100} does not go with its {len(data)} texts; expected [{len(data)}]",
                422,
                field="inputs",
            )
        tensors[name] = data
    return tensors


def _texts(tensors: dict[str, list[str]]) -> list[Text]:
    """Return texts, or pairs if there are second texts."""
    unknown = sorted(tensors.keys() - {TEXT, PAIR})
    if len(tensors) == 1 and unknown:  # a single tensor may have any name
        return list(next(iter(tensors.values())))
    if unknown or TEXT not in tensors:
        raise RequestError(f"expected inputs named {TEXT}, or {TEXT} and {PAIR}", 422, field="inputs")
    first, second = tensors[TEXT], tensors.get(PAIR)
    if second is None:
        return list(first)
    if len(first) != len(second):
        raise RequestError(
            f"{TEXT} has {len(first)} texts, but {PAIR} has {len(second)}; give as many of both", 422, field="inputs"
        )
    return list(zip(first, second, strict=True))


def _wanted(body: dict[str, Any], all_binary: bool) -> dict[str, bool]:
    """Return the names of the outputs that are asked for, and whether their data are wanted as bytes. Empty: all.

    Args:
        body: the request's JSON.
        all_binary: what counts for outputs that do not say it themselves.
    """
    outputs = optional(body, "outputs", list, "a list of tensors", [])
    if not all(isinstance(output, dict) and isinstance(output.get("name"), str) for output in outputs):
        raise wrong("outputs", outputs, "a list of objects with a name")
    parameters = {output["name"]: optional(output, "parameters", dict, "an object", {}) for output in outputs}
    return {name: optional(own, "binary_data", bool, "true or false", all_binary) for name, own in parameters.items()}


def _has_label(adapter: Loaded) -> bool:
    """Return whether an adapter gives each row one label."""
    return adapter.problem_type not in (MULTI, REGRESSION)


def _outputs(answer: Answer, function: str | None) -> list[dict[str, Any]]:
    scores, labels = answer.scores(function), answer.adapter.labels
    flat = list(chain.from_iterable(scores.tolist()))
    outputs: list[dict[str, Any]] = []
    if _has_label(answer.adapter):
        best = [labels[index] for index in (scores.argmax(dim=1).tolist() if len(scores) else [])]
        outputs.append({"name": LABEL, "datatype": "BYTES", "shape": [len(best)], "data": best})
    outputs.append(
        {
            "name": SCORES,
            "datatype": "FP32",
            "shape": list(scores.shape),
            "data": flat,
            "parameters": {"labels": labels},
        }
    )
    return outputs
