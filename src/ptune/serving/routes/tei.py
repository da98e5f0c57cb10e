"""The protocols of Text Embeddings Inference (`POST /predict`) and of Hugging Face's inference (`POST /`).

Both are there for the default adapter at the root, and for each adapter under /adapters/NAME. They differ in what a
flat list of two texts is: a pair for the first, two texts for the second.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from ptune.data.template import Side
from ptune.data.texts import Text
from ptune.errors import RequestError
from ptune.serving.page import page, wants_page
from ptune.serving.parsing import cut_side, one_of, optional, read_object, texts_of, top_k, wrong
from ptune.serving.routes import schemas
from ptune.serving.routes.common import ask, caller_of, named, scored, scores_reply, service_of
from ptune.serving.service import Answer
from ptune.version import __version__

router = APIRouter()


@router.post("/predict", tags=["Text Embeddings Inference"], **schemas.PREDICT)
@router.post("/invocations", include_in_schema=False)  # as SageMaker asks
async def predict(request: Request) -> Response:
    """Classify one text or pair, or a batch of texts or of pairs."""
    return await _predict(request)


@router.post("/adapters/{name}/predict", tags=["Text Embeddings Inference"], **schemas.PREDICT)
async def adapter_predict(request: Request, name: str) -> Response:
    """Classify one text or pair, or a batch of texts or of pairs."""
    return await _predict(request, name)


async def _predict(request: Request, name: str | None = None) -> Response:
    started = time.perf_counter()
    body = await read_object(request)
    adapter = named(request, body, name)
    asked = _Sequences.of(body)
    (answer,) = await ask(request, [adapter], asked.texts, asked.truncate, asked.side)
    timings = _timings(request, asked.texts, answer, started)
    return await scores_reply([answer], lambda: _batch(answer, asked.function, asked.batch), timings)


@router.post("/vertex", tags=["Text Embeddings Inference"], **schemas.VERTEX)
async def vertex(request: Request) -> Response:
    """Classify in the form that Google's Vertex AI sends."""
    body = await read_object(request)
    adapter = named(request, body)
    instances = body.get("instances")
    if not isinstance(instances, list):
        raise wrong("instances", instances, "a list of objects with inputs")
    for number, instance in enumerate(instances):
        if not isinstance(instance, dict):
            raise wrong(f"instances[{number}]", instance, "an object with inputs")
    service_of(request).entry(adapter)  # with no instance, nothing else looks for it
    asked = [_Sequences.of(instance) for instance in instances]
    service_of(request).check_rows(sum(len(each.texts) for each in asked))
    answers: list[Answer] = []
    places: dict[int, tuple[Answer, slice]] = {}
    for way, numbers in _alike(asked).items():  # those that are read in the same way are computed together
        texts = [text for number in numbers for text in asked[number].texts]
        (answer,) = await ask(request, [adapter], texts, *way)
        answers.append(answer)
        start = 0
        for number in numbers:
            stop = start + len(asked[number].texts)
            places[number] = (answer, slice(start, stop))
            start = stop

    def content() -> dict[str, Any]:
        predictions = []
        for number, each in enumerate(asked):
            answer, rows = places[number]
            own = replace(answer, logits=answer.logits[rows], tokens=answer.tokens[rows])
            predictions.append(_batch(own, each.function, each.batch))
        return {"predictions": predictions}

    return await scores_reply(answers, content)


@dataclass(frozen=True)
class _Sequences:
    """What a body of TEI's protocol asks: texts or pairs, how they are read, and the function that gives the scores."""

    texts: list[Text]
    batch: bool
    truncate: bool | None
    side: Side
    function: str | None

    @classmethod
    def of(cls, body: dict[str, Any]) -> _Sequences:
        """Return what a body asks.

        Raises:
            RequestError: a value has another form (400, 422).
        """
        texts, batch = sequences(body.get("inputs"))
        truncate = optional(body, "truncate", bool, "true or false")
        raw = optional(body, "raw_scores", bool, "true or false", False)
        if any("" in (text if isinstance(text, tuple) else (text,)) for text in texts):
            raise RequestError("`inputs` cannot be empty", 422, field="inputs")
        return cls(texts, batch, truncate, cut_side(body), "none" if raw else None)


def _alike(asked: Sequence[_Sequences]) -> dict[tuple[bool | None, Side], list[int]]:
    """Return the numbers of those that are read in the same way."""
    groups: dict[tuple[bool | None, Side], list[int]] = defaultdict(list)
    for number, each in enumerate(asked):
        groups[each.truncate, each.side].append(number)
    return groups


def _batch(answer: Answer, function: str | None, batch: bool) -> Any:
    """Return the scores of a batch, or of the only row."""
    rows = scored(answer, function)
    return rows if batch else rows[0]


def sequences(value: Any) -> tuple[list[Text], bool]:
    """Return the texts and pairs of TEI's `inputs`, and whether they are a batch.

    A text or a flat list of one or two texts is a single input. A list of such lists is a batch.

    Raises:
        RequestError: the batch is empty (400), or the value has another form (422).
    """
    if isinstance(value, str):
        return [value], False
    if not isinstance(value, list):
        raise wrong("inputs", value, "a text, a pair of texts, or a list of lists of one or two texts")
    if not value:
        raise RequestError("`inputs` cannot be empty", 400, kind="Empty", field="inputs")
    if isinstance(value[0], str):
        return [_sequence(value)], False
    texts = [_sequence(item) for item in value]
    if len({isinstance(text, tuple) for text in texts}) > 1:
        raise RequestError("`inputs` mixes single texts and pairs; an adapter takes one kind", 422, field="inputs")
    return texts, True


def _sequence(value: Any) -> Text:
    if not isinstance(value, list) or len(value) not in (1, 2) or not all(isinstance(text, str) for text in value):
        raise RequestError("`inputs` must contain lists of 1 or 2 strings", 422, field="inputs")
    return value[0] if len(value) == 1 else (value[0], value[1])


def _timings(request: Request, texts: list[Text], answer: Answer, started: float) -> dict[str, str]:
    total = time.perf_counter() - started
    device = service_of(request).backbones.all[0].device.type
    characters = sum(len(text) if isinstance(text, str) else len(text[0]) + len(text[1]) for text in texts)
    milliseconds = {
        "x-total-time": total,
        "x-compute-time": total,
        "x-queue-time": answer.queue_seconds,
        "x-inference-time": answer.inference_seconds,
        "x-tokenization-time": max(0.0, total - answer.queue_seconds - answer.inference_seconds),
    }
    return {
        "x-compute-type": "cpu" if device == "cpu" else "gpu",
        "x-compute-characters": str(characters),
        "x-compute-tokens": str(sum(answer.tokens)),
        **{name: str(round(1000 * seconds)) for name, seconds in milliseconds.items()},
    }


@router.post("/", tags=["Hugging Face"], **schemas.HUGGING_FACE)
async def hugging_face(request: Request) -> Response:
    """Classify one text or pair, or a list of them. The answer has a list of labels for each."""
    return await _text_classification(request)


@router.post("/adapters/{name}", tags=["Hugging Face"], **schemas.HUGGING_FACE)
async def adapter_hugging_face(request: Request, name: str) -> Response:
    """Classify one text or pair, or a list of them. The answer has a list of labels for each."""
    return await _text_classification(request, name)


async def _text_classification(request: Request, name: str | None = None) -> Response:
    body = await read_object(request)
    adapter = named(request, body, name)
    texts, _ = texts_of(body.get("inputs"))
    options = optional(body, "parameters", dict, "an object", {})
    function = one_of(options, "function_to_apply", ("softmax", "sigmoid", "none"))
    truncate = optional(options, "truncation", bool, "true or false")
    top = top_k(options)
    (answer,) = await ask(request, [adapter], texts, truncate)
    return await scores_reply([answer], lambda: scored(answer, function, top))


@router.get("/", tags=["Server"], include_in_schema=False)
async def root(request: Request) -> Response:
    """Return the page to a browser, and what the server is to everybody else."""
    found = page() if wants_page(request) else None
    return found or JSONResponse({"name": "ptune", "version": __version__, "adapters": "/adapters", "docs": "/docs"})


@router.get("/health", tags=["Server"], **schemas.HEALTH)
@router.get("/ping", include_in_schema=False)
async def health(request: Request) -> Response:
    """Answer 200 if the server is ready, and 503 while it warms up or is about to stop."""
    service = service_of(request)
    if not service.takes_requests:
        raise RequestError("the server is about to stop" if service.draining else "the server is not ready yet", 503)
    return Response(status_code=200)


@router.get("/ready", tags=["Server"], **schemas.HEALTH)
async def ready(request: Request) -> Response:
    """Answer as `/health` does."""
    return await health(request)


@router.get("/info", tags=["Text Embeddings Inference"], **schemas.INFO)
async def info(request: Request) -> Response:
    """Return what an adapter is and how much a request may hold."""
    return await _info(request)


@router.get("/adapters/{name}/info", tags=["Text Embeddings Inference"], **schemas.INFO)
async def adapter_info(request: Request, name: str) -> Response:
    """Return what an adapter is and how much a request may hold."""
    return await _info(request, name)


async def _info(request: Request, name: str | None = None) -> Response:
    service = service_of(request)
    adapter = await service.adapter(named(request, None, name))
    backbone, settings = adapter.backbone, service.settings
    return JSONResponse(
        {
            "model_id": adapter.name,
            "served_model_name": adapter.name,
            "model_sha": adapter.entry.file.record.weights_sha256,
            "model_dtype": backbone.dtype_name,
            "model_type": {
                "classifier": {
                    "id2label": {str(index): label for index, label in enumerate(adapter.labels)},
                    "label2id": {label: index for index, label in enumerate(adapter.labels)},
                }
            },
            "max_concurrent_requests": settings.max_queue_rows,
            "max_input_length": adapter.encoder.max_length,
            "max_batch_tokens": service.batch_tokens,
            "max_batch_requests": settings.max_batch_rows,
            "max_client_batch_size": settings.max_rows,
            "auto_truncate": settings.truncate,
            "tokenization_workers": 2,
            "version": __version__,
            "sha": None,
            "docker_label": None,
        }
    )


@router.get("/metrics", tags=["Server"], **schemas.METRICS)
async def metrics(request: Request) -> Response:
    """Return metrics in Prometheus' text format. They name adapters, so a key for some adapters is not enough."""
    caller_of(request).check_metrics()
    text = request.app.state.metrics.text(service_of(request))
    return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")
