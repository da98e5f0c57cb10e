"""ptune's own routes: the catalogue, and one text through many adapters."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from ptune.data.targets import MULTI
from ptune.errors import RequestError
from ptune.serving.catalogue import Entry, check_name
from ptune.serving.parsing import cut_side, optional, read_object, texts_of, top_k, wrong
from ptune.serving.routes import schemas
from ptune.serving.routes.common import ask, caller_of, facts_of, named, scored, scores_reply, service_of
from ptune.serving.service import Service

router = APIRouter(tags=["Adapters"])


@router.get("/adapters", **schemas.ADAPTERS)
async def adapters(request: Request) -> Response:
    """List the adapters that the caller may use."""
    service, caller = service_of(request), caller_of(request)
    catalogue, default = service.catalogue, service.default_adapter
    return JSONResponse(
        {
            "adapters": [describe(service, entry) for name, entry in catalogue.entries.items() if caller.may_use(name)],
            "default": default if default is not None and caller.may_use(default) else None,
            "broken": {
                name: catalogue.for_clients(reason)
                for name, reason in dict(catalogue.broken).items()
                if caller.may_use(name)
            },
        }
    )


@router.get("/adapters/{name}", **schemas.ADAPTER)
async def adapter(request: Request, name: str) -> Response:
    """Return one adapter."""
    service = service_of(request)
    return JSONResponse(describe(service, service.catalogue[named(request, None, check_name(name))]))


def describe(service: Service, entry: Entry) -> dict[str, Any]:
    """Return what the server says about an adapter."""
    record, labels = entry.file.record, service.labels(entry)
    columns, decision = record.columns, record.task.decision
    pair = None if columns.get("text") is None else columns.get("text_pair") is not None
    return {
        "name": entry.name,
        "labels": labels,
        "problem_type": record.problem_type,
        "pairs": pair,
        "backbone": record.backbone.name,
        "method": record.prompt.method,
        "virtual_tokens": record.prompt.virtual_tokens,
        "thresholds": decision.by_label(labels) if record.problem_type == MULTI else None,
        "at_least_one": decision.at_least_one,
        "members": record.members,
        "max_length": record.max_length,
        "metrics": dict(record.metrics),
        "bytes": entry.file.bytes,
        "loaded": entry.name in service.bank,
    }


@router.post("/predict-many", **schemas.PREDICT_MANY)
async def predict_many(request: Request) -> Response:
    """Ask many adapters about the same text. It is tokenized once."""
    body = await read_object(request)
    texts, batch = texts_of(body.get("inputs"))
    names = _names(request, body, isinstance(texts[0], tuple))
    raw = optional(body, "raw_scores", bool, "true or false", False)
    truncate = optional(body, "truncate", bool, "true or false")
    top = top_k(body)
    answers = await ask(request, names, texts, truncate, cut_side(body))

    def content() -> dict[str, Any]:
        found = [scored(answer, "none" if raw else None, top) for answer in answers]
        return {name: rows if batch else rows[0] for name, rows in zip(names, found, strict=True)}

    return await scores_reply(answers, content)


def _names(request: Request, body: dict[str, Any], paired: bool) -> list[str]:
    """Return the names of the adapters that are asked. "*" stands for all that take such texts and can be asked.

    Raises:
        RequestError: the value has another form (422), or a name is unknown (404).
    """
    service, caller = service_of(request), caller_of(request)
    value = body.get("adapters")
    if value == "*":
        entries = service.catalogue.entries
        usable = (name for name in entries if caller.may_use(name) and service.is_usable(name))
        return [name for name in usable if _takes(entries[name], paired)]
    if not isinstance(value, list):
        raise wrong("adapters", value, 'a list of names, or "*" for all')
    for number, name in enumerate(value):
        if not isinstance(name, str):
            raise wrong(f"adapters[{number}]", name, "the name of an adapter")
    if not value:
        raise RequestError("`adapters` cannot be empty", 400, kind="Empty", field="adapters")
    names = list(dict.fromkeys(value))
    for name in names:
        caller.check(name)
        service.catalogue[check_name(name)]
    return names


def _takes(entry: Entry, paired: bool) -> bool:
    columns = entry.file.record.columns
    return columns.get("text") is None or (columns.get("text_pair") is not None) == paired


@router.put("/adapters/{name}", **schemas.PUT_ADAPTER)
async def put_adapter(request: Request, name: str) -> Response:
    """Add an adapter, or replace the one of this name. Requests that are being answered keep the old one."""
    caller_of(request).check_admin()
    caller_of(request).check(check_name(name))
    service = service_of(request)
    facts_of(request).extra["changed"] = name
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    entry, is_new = await service.uploads.put(name, await request.body(), kind)
    return JSONResponse(describe(service, entry), 201 if is_new else 200)


@router.delete("/adapters/{name}", **schemas.DELETE_ADAPTER)
async def delete_adapter(request: Request, name: str) -> Response:
    """Remove an adapter and its files. Requests that are being answered keep it."""
    caller_of(request).check_admin()
    caller_of(request).check(check_name(name))
    facts_of(request).extra["changed"] = name
    await service_of(request).uploads.delete(name)
    return Response(status_code=204)
