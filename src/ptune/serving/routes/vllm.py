"""The protocol of vLLM and SGLang: `POST /classify`, in which `model` is the adapter, and OpenAI's list of models."""

from __future__ import annotations

import time
import uuid
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from ptune.data.texts import Text
from ptune.errors import RequestError
from ptune.serving.parsing import optional, read_object, wrong
from ptune.serving.routes import schemas
from ptune.serving.routes.common import ask, caller_of, named, scores_reply, service_of
from ptune.serving.service import Answer

router = APIRouter(tags=["vLLM"])


@router.post("/classify", **schemas.CLASSIFY)
@router.post("/v1/classify", **schemas.CLASSIFY)
async def classify(request: Request) -> Response:
    """Classify a text or a list of texts with the adapter that `model` names."""
    body = await read_object(request)
    adapter = named(request, body)
    texts = _texts(body.get("input"))
    raw = optional(
        body, "use_activation", bool, "true or false", optional(body, "activation", bool, "true or false", True)
    )
    most = optional(body, "truncate_prompt_tokens", int, "a number of tokens")
    if most is not None and most < 3 and most != -1:
        raise RequestError(
            f"`truncate_prompt_tokens` is {most}; expected 3 or more, or -1 for as many as fit",
            field="truncate_prompt_tokens",
        )
    (answer,) = await ask(
        request,
        [adapter],
        texts,
        truncate=None if most is None else True,
        most=None if most == -1 else most,
    )
    function = None if raw else "none"
    tokens = sum(answer.tokens)
    return await scores_reply(
        [answer],
        lambda: {
            "id": f"classify-{uuid.uuid4().hex}",
            "object": "list",
            "created": int(time.time()),
            "model": adapter,
            "data": _rows(answer, function),
            "usage": {
                "prompt_tokens": tokens,
                "total_tokens": tokens,
                "completion_tokens": 0,
                "prompt_tokens_details": None,
            },
        },
    )


def _texts(value: Any) -> list[Text]:
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise wrong("input", value, "a text or a list of texts")
    if not value:
        raise RequestError("`input` cannot be empty", 400, field="input")
    return list(value)


def _rows(answer: Answer, function: str | None) -> list[dict[str, Any]]:
    labels = answer.adapter.labels
    return [
        {
            "index": index,
            "label": labels[max(range(len(scores)), key=scores.__getitem__)],
            "probs": scores,
            "num_classes": len(labels),
        }
        for index, scores in enumerate(answer.scores(function).tolist())
    ]


@router.get("/v1/models", **schemas.MODELS)
async def models(request: Request) -> Response:
    """List the adapters as OpenAI lists models."""
    service, caller = service_of(request), caller_of(request)
    entries = [entry for name, entry in service.catalogue.entries.items() if caller.may_use(name)]
    return JSONResponse({"object": "list", "data": [_model(entry.name, entry.file, service) for entry in entries]})


@router.get("/v1/models/{name}", **schemas.MODEL)
async def model(request: Request, name: str) -> Response:
    """Return one adapter as OpenAI returns a model."""
    service = service_of(request)
    entry = service.catalogue[named(request, None, name)]
    return JSONResponse(_model(entry.name, entry.file, service))


def _model(name: str, file: Any, service: Any) -> dict[str, Any]:
    return {
        "id": name,
        "object": "model",
        "created": service.started,
        "owned_by": "ptune",
        "root": file.record.backbone.name,
        "parent": file.record.backbone.name,
        "max_model_len": file.record.max_length,
    }
