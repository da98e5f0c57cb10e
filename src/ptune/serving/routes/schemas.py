"""What OpenAPI says of each route: bodies, answers, errors and examples.

Bodies are checked by `ptune.serving.parsing`, because pydantic would take seconds for ten thousand texts.
"""

from __future__ import annotations

from typing import Any

from fastapi import Response

Schema = dict[str, Any]

_TEXT: Schema = {"type": "string"}
_PAIR: Schema = {
    "type": "object",
    "properties": {"text": _TEXT, "text_pair": {"type": ["string", "null"]}},
    "required": ["text"],
    "additionalProperties": False,
}
_INPUTS: Schema = {
    "anyOf": [_TEXT, _PAIR, {"type": "array", "items": {"anyOf": [_TEXT, _PAIR]}, "minItems": 1}],
    "description": 'A text, a pair {"text": ..., "text_pair": ...}, or a list of them.',
}
_SCORED: Schema = {
    "type": "array",
    "items": {
        "type": "object",
        "properties": {"label": _TEXT, "score": {"type": "number"}},
        "required": ["label", "score"],
    },
}
_NESTED: Schema = {"type": "array", "items": _SCORED}
_BOOL: Schema = {"type": ["boolean", "null"]}
_ERROR: Schema = {
    "type": "object",
    "properties": {"error": _TEXT, "error_type": _TEXT},
    "required": ["error", "error_type"],
}
_OPENAI_ERROR: Schema = {
    "type": "object",
    "properties": {
        "error": {
            "type": "object",
            "properties": {
                "message": _TEXT,
                "type": _TEXT,
                "param": {"type": ["string", "null"]},
                "code": {"type": "integer"},
            },
            "required": ["message", "type", "code"],
        }
    },
    "required": ["error"],
}
_V2_ERROR: Schema = {"type": "object", "properties": {"error": _TEXT}, "required": ["error"]}
_REASONS = {
    400: "The body is not JSON, a list is empty, or no adapter is named.",
    401: "A valid API key is needed.",
    403: "The key is not an administrator's.",
    404: "There is no such adapter.",
    408: "The body did not arrive in time.",
    409: "The adapter cannot be changed through HTTP.",
    413: "The request is too large.",
    415: "The body is of a type that is not taken.",
    422: "A value has another form than expected, or a text is too long.",
    424: "The adapter cannot be loaded or computed.",
    429: "Too many rows are waiting; the header Retry-After says when to try again.",
    503: "The server is not ready, or is about to stop.",
    504: "The request was not answered in time.",
}
_ASKING = (400, 401, 404, 408, 413, 422, 424, 429, 504)
_NAME: Schema = {
    "name": "X-Adapter",
    "in": "header",
    "required": False,
    "description": "The adapter, where neither the path nor the body names one.",
    "schema": _TEXT,
}


def _answer(schema: Schema | None, example: Any = None, kind: str = "application/json") -> Schema:
    """Return the description of an answer."""
    if schema is None:
        return {"description": "Done."}
    content: Schema = {"schema": schema}
    if example is not None:
        content["example"] = example
    return {"description": "The answer.", "content": {kind: content}}


def _route(
    answer: Schema,
    body: Schema | None = None,
    examples: dict[str, Any] | None = None,
    errors: tuple[int, ...] = (401, 404),
    error: Schema = _ERROR,
    status: int = 200,
    header: bool = False,
) -> dict[str, Any]:
    """Return the arguments of a route's decorator."""
    described = {"content": {"application/json": {"schema": error}}}
    responses: dict[int, Schema] = {status: answer} | {
        code: {"description": _REASONS[code], **described} for code in errors
    }
    extra: Schema = {}
    if body is not None:
        shown = {name: {"value": value} for name, value in (examples or {}).items()}
        extra["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": body, **({"examples": shown} if shown else {})}},
        }
    if header:
        extra["parameters"] = [_NAME]
    described_answer = {"responses": responses, "openapi_extra": extra, "status_code": status, "response_model": None}
    # Without a class of its own, FastAPI describes an answer without content as JSON.
    return described_answer if "content" in answer else {**described_answer, "response_class": Response}


def _body(required: list[str], **properties: Schema) -> Schema:
    return {"type": "object", "properties": properties, "required": required}


_SIDE: Schema = {"type": ["string", "null"], "enum": ["Left", "Right", "left", "right", None]}
_MODEL: Schema = {"type": ["string", "null"], "description": "The adapter, where the path names none."}
_SEQUENCE: Schema = {"type": "array", "items": _TEXT, "minItems": 1, "maxItems": 2}
_TEI_INPUTS: Schema = {
    "anyOf": [{"type": "string", "minLength": 1}, _SEQUENCE, {"type": "array", "items": _SEQUENCE, "minItems": 1}],
    "description": "A text, a pair as a list of two texts, or a batch: a list of lists of one or two texts.",
}
_PREDICT_BODY = _body(
    ["inputs"], inputs=_TEI_INPUTS, truncate=_BOOL, truncation_direction=_SIDE, raw_scores=_BOOL, model=_MODEL
)
_FILM = [{"label": "positive", "score": 0.93}, {"label": "negative", "score": 0.07}]

PREDICT = _route(
    _answer({"anyOf": [_SCORED, _NESTED]}, _FILM),
    _PREDICT_BODY,
    {
        "a text": {"inputs": "What a film."},
        "a pair": {"inputs": ["He left.", "He went away."]},
        "a batch": {"inputs": [["What a film."], ["What a bore."]], "truncate": True},
    },
    _ASKING,
    header=True,
)
VERTEX = _route(
    _answer(_body(["predictions"], predictions={"type": "array"}), {"predictions": [_FILM]}),
    _body(["instances"], instances={"type": "array", "items": _PREDICT_BODY}, model=_MODEL),
    {"a text": {"instances": [{"inputs": "What a film."}]}},
    _ASKING,
    header=True,
)
HUGGING_FACE = _route(
    _answer(_NESTED, [_FILM]),
    _body(
        ["inputs"],
        inputs=_INPUTS,
        parameters={
            "type": ["object", "null"],
            "properties": {
                "function_to_apply": {"type": ["string", "null"], "enum": ["softmax", "sigmoid", "none", None]},
                "top_k": {"type": ["integer", "null"], "minimum": 1},
                "truncation": _BOOL,
            },
        },
        model=_MODEL,
    ),
    {
        "a text": {"inputs": "What a film."},
        "several": {"inputs": ["What a film.", "What a bore."], "parameters": {"top_k": 1}},
        "a pair": {"inputs": {"text": "He left.", "text_pair": "He went away."}},
    },
    _ASKING,
    header=True,
)
HEALTH = _route(_answer(None), errors=(503,))
INFO = _route(_answer(_body(["model_id", "model_type", "max_input_length"])), errors=(400, 401, 404, 424), header=True)
METRICS = _route(_answer(_TEXT, kind="text/plain"), errors=(401,))

CLASSIFY = _route(
    _answer(
        _body(["id", "object", "created", "model", "data", "usage"]),
        {
            "id": "classify-5a3c",
            "object": "list",
            "created": 1700000000,
            "model": "reviews",
            "data": [{"index": 0, "label": "positive", "probs": [0.07, 0.93], "num_classes": 2}],
            "usage": {"prompt_tokens": 6, "total_tokens": 6, "completion_tokens": 0, "prompt_tokens_details": None},
        },
    ),
    _body(
        ["input"],
        model=_MODEL,
        input={"anyOf": [_TEXT, {"type": "array", "items": _TEXT, "minItems": 1}]},
        truncate_prompt_tokens={"type": ["integer", "null"], "minimum": -1},
        use_activation=_BOOL,
        activation=_BOOL,
    ),
    {"a text": {"model": "reviews", "input": "What a film."}},
    _ASKING,
    _OPENAI_ERROR,
    header=True,
)
_LISTED = {"id": "reviews", "object": "model", "created": 1700000000, "owned_by": "ptune"}
MODELS = _route(
    _answer(_body(["object", "data"]), {"object": "list", "data": [_LISTED]}), errors=(401,), error=_OPENAI_ERROR
)
MODEL = _route(_answer(_body(["id", "object"]), _LISTED), errors=(401, 404, 424), error=_OPENAI_ERROR)

_TENSOR = _body(
    ["name", "shape", "datatype"],  # and data, unless it follows the JSON as bytes
    name=_TEXT,
    shape={"type": "array", "items": {"type": "integer"}},
    datatype={"const": "BYTES"},
    data={"type": "array", "items": {"anyOf": [_TEXT, {"type": "array", "items": _TEXT}]}},
)
V2_SERVER = _route(_answer(_body(["name", "version", "extensions"])), errors=(401,), error=_V2_ERROR)
V2_LIVE = _route(_answer(_body(["live"])), errors=(), error=_V2_ERROR)
V2_READY = _route(_answer(_body(["ready"])), errors=(503,), error={"type": "object"})
V2_MODEL_READY = _route(_answer(_body(["name", "ready"])), errors=(401, 404, 424, 503), error={"type": "object"})
V2_MODEL = _route(
    _answer(_body(["name", "versions", "platform", "inputs", "outputs"])), errors=(401, 404, 424), error=_V2_ERROR
)
V2_INFER = _route(
    _answer(_body(["model_name", "outputs"])),
    _body(
        ["inputs"],
        id={"type": ["string", "null"]},
        parameters={"type": ["object", "null"], "properties": {"raw_scores": _BOOL}},
        inputs={"type": "array", "items": _TENSOR, "minItems": 1},
        outputs={"type": ["array", "null"], "items": _body(["name"], name=_TEXT)},
    ),
    {"two texts": {"inputs": [{"name": "text", "shape": [2], "datatype": "BYTES", "data": ["Good.", "Bad."]}]}},
    _ASKING,
    _V2_ERROR,
)

_DESCRIBED = _body(["name", "labels", "problem_type", "pairs", "backbone", "bytes", "loaded"])
ADAPTERS = _route(_answer(_body(["adapters", "default", "broken"])), errors=(401,))
ADAPTER = _route(_answer(_DESCRIBED), errors=(401, 404, 424))
PREDICT_MANY = _route(
    _answer({"type": "object", "additionalProperties": {"anyOf": [_SCORED, _NESTED]}}, {"reviews": _FILM}),
    _body(
        ["inputs", "adapters"],
        inputs=_INPUTS,
        adapters={
            "anyOf": [{"type": "array", "items": _TEXT, "minItems": 1}, {"const": "*"}],
            "description": 'Names, or "*" for all that take single texts, or pairs, as `inputs` has them.',
        },
        truncate=_BOOL,
        truncation_direction=_SIDE,
        raw_scores=_BOOL,
        top_k={"type": ["integer", "null"], "minimum": 1},
    ),
    {
        "two adapters": {"inputs": "What a film.", "adapters": ["reviews", "spam"]},
        "all": {"inputs": ["What a film.", "Win a prize."], "adapters": "*", "top_k": 1},
    },
    _ASKING,
)
_ARCHIVE: Schema = {"schema": {"type": "string", "format": "binary"}}
PUT_ADAPTER = _route(_answer(_DESCRIBED), errors=(400, 401, 403, 404, 408, 409, 413, 415, 422, 424))
PUT_ADAPTER["responses"][201] = _answer(_DESCRIBED)
PUT_ADAPTER["openapi_extra"] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/zip": _ARCHIVE,
            "application/x-tar": _ARCHIVE,
            "application/json": {
                "schema": _body(["source"], source=_TEXT),
                "example": {"source": "owner/name@revision"},
            },
        },
    }
}
DELETE_ADAPTER = _route(_answer(None), errors=(401, 403, 404, 409), status=204)
