"""What the routes of all protocols share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson
from fastapi import Request, Response

from ptune.data.template import Side
from ptune.data.texts import Text
from ptune.errors import RequestError
from ptune.serving.gate import Facts
from ptune.serving.keys import Caller
from ptune.serving.metrics import Metrics
from ptune.serving.parsing import optional
from ptune.serving.service import Answer, Service

Scored = list[dict[str, Any]]
# Scores in an answer from which it is written in a thread, which takes more than a few milliseconds.
_MANY_SCORES = 5_000


def service_of(request: Request) -> Service:
    """Return the service behind the application."""
    service: Service = request.app.state.service
    return service


def facts_of(request: Request) -> Facts:
    """Return what is known of the request."""
    facts: Facts = request.scope["state"]["facts"]
    return facts


def caller_of(request: Request) -> Caller:
    """Return who sends the request."""
    return facts_of(request).caller


def named(request: Request, body: dict[str, Any] | None = None, path: str | None = None, field: str = "model") -> str:
    """Return the name of the adapter that a request asks, and check that the caller may use it.

    The path counts more than the body, that more than the header X-Adapter, and that more than the default.

    Args:
        request: the request.
        body: its body, in which `field` may name the adapter.
        path: the name in the path.
        field: the key in the body.

    Raises:
        RequestError: none is named and there is no default (400), or the caller may not use it (404).
    """
    name = path or optional(body or {}, field, str, "the name of an adapter") or _in_header(request)
    if not name:
        name = service_of(request).default_adapter
        if name is not None and not caller_of(request).may_use(name):
            name = None  # it would tell its name
    if name is None:
        raise RequestError(
            f"name an adapter: in the path, as /adapters/NAME, in the body as `{field}`, or in the header X-Adapter; "
            "GET /adapters lists them",
            400,
            kind="Validation",
            field=field,
        )
    caller_of(request).check(name)
    if name in service_of(request).catalogue.entries:
        facts_of(request).adapter = name
    return name


def _in_header(request: Request) -> str | None:
    """Return the adapter that the header X-Adapter names. Clients write it in UTF-8, and servers read Latin-1."""
    name = request.headers.get("x-adapter")
    try:
        return name and name.encode("latin-1").decode()
    except UnicodeError:
        return name


async def ask(
    request: Request,
    names: Sequence[str],
    texts: Sequence[Text],
    truncate: bool | None = None,
    side: Side = "right",
    most: int | None = None,
) -> list[Answer]:
    """Return the answers of adapters, and note what was asked for logs and metrics. Errors are the service's."""
    facts = facts_of(request)
    facts.method = "single" if len(names) == len(texts) == 1 else "batch"
    service = service_of(request)
    if len(names) == 1 and names[0] in service.catalogue.entries:
        facts.adapter = names[0]  # another one than `named` says, for /predict-many
    elif len(names) > 1:
        facts.extra["adapters"] = len(names)
    answers = await service.classify(names, texts, truncate, side, most)
    metrics: Metrics = request.app.state.metrics
    for answer in answers:
        metrics.answered(answer)
        facts.rows += len(answer.tokens)
        facts.tokens += sum(answer.tokens)
    if answers:
        metrics.te_queue.observe(answers[0].queue_seconds)
        metrics.te_inference.observe(answers[0].inference_seconds)
    return answers


def scored(answer: Answer, function: str | None = None, top: int | None = None) -> list[Scored]:
    """Return the labels of each row with their scores, the highest first.

    Args:
        answer: of one adapter.
        function: see `Answer.scores`.
        top: how many labels; None: all.
    """
    labels = answer.adapter.labels
    rows = []
    for scores in answer.scores(function).tolist():
        order = sorted(range(len(labels)), key=lambda index: -scores[index])[:top]
        rows.append([{"label": labels[index], "score": scores[index]} for index in order])
    return rows


async def scores_reply(
    answers: Sequence[Answer], content: Callable[[], Any], headers: Mapping[str, str] | None = None
) -> Response:
    """Return the response with the scores of answers. A large one is written in a thread, while others are answered.

    Args:
        answers: the scores come from them.
        content: makes what the body holds, in types of JSON.
        headers: of the response.
    """

    def write() -> bytes:
        return orjson.dumps(content())

    many = sum(answer.logits.numel() for answer in answers) > _MANY_SCORES
    body = await asyncio.to_thread(write) if many else write()
    return Response(body, media_type="application/json", headers=headers)
