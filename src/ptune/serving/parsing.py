"""Bodies of requests: JSON, and the texts in it.

They are checked by hand, because pydantic would take seconds for ten thousand texts.
"""

from __future__ import annotations

import json
from typing import Any

from fastapi import Request

from ptune.data.columns import whole_characters
from ptune.data.template import Side
from ptune.data.texts import Text
from ptune.errors import RequestError, short

# Length of the JSON in a body that has binary tensors behind it.
JSON_LENGTH = "Inference-Header-Content-Length"


async def read_object(request: Request) -> dict[str, Any]:
    """Return the JSON object in the body of a request.

    Raises:
        RequestError: the body is compressed (415), not JSON (400) or not an object (422).
        RequestError: the body has binary tensors behind its JSON (400).
    """
    content, binary = await read_parts(request)
    if binary is not None:
        raise RequestError("only /v2/models/NAME/infer takes binary tensors; send plain JSON", 400, kind="Validation")
    return content


async def read_parts(request: Request) -> tuple[dict[str, Any], memoryview | None]:
    """Return the JSON object in the body of a request and the bytes behind it; None if there can be none.

    The bytes are those of the Open Inference Protocol's extension for binary tensors, in which a header has the length
    of the JSON.

    Raises:
        RequestError: the body is compressed (415), not JSON (400) or not an object (422).
        RequestError: the header is not a length that fits (400).
    """
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise RequestError("compressed bodies are not taken; send plain JSON", 415, kind="Validation")
    body = await request.body()
    length = request.headers.get(JSON_LENGTH)
    if length is None:
        return _parsed(body), None
    if not (length.isascii() and length.isdecimal() and len(length) < 20 and int(length) <= len(body)):
        raise RequestError(
            f"the header {JSON_LENGTH} is {short(length, 50)}; expected the length of the JSON in bytes, at most "
            f"{len(body)}",
            400,
            kind="Validation",
        )
    return _parsed(body[: int(length)]), memoryview(body)[int(length) :]


def _parsed(body: bytes) -> dict[str, Any]:
    if not body:
        raise RequestError("the body is empty; a JSON object is expected", 400, kind="Validation")
    try:
        content = json.loads(body.decode("utf-8-sig"), parse_constant=_refuse)
    except UnicodeDecodeError as err:
        raise RequestError(f"the body is not UTF-8: {err.reason} at byte {err.start}", 400, kind="Validation") from None
    except RecursionError:
        raise RequestError("the body is nested too deeply", 400, kind="Validation") from None
    except ValueError as err:
        raise RequestError(f"the body is not JSON: {err}", 400, kind="Validation") from None
    if not isinstance(content, dict):
        raise RequestError(f"the body is {_kind(content)}; a JSON object is expected", 422)
    return content


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def wrong(field: str, value: Any, expected: str) -> RequestError:
    """Return the error for a value of a request."""
    return RequestError(f"`{field}` is {_kind(value)}; expected {expected}", 422, field=field)


def _kind(value: Any) -> str:
    """Return what a value is, in the words of JSON and without its text."""
    if value is None:
        return "missing or null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return short(value, 50)
    if isinstance(value, str):
        return "a text"
    return "a list" if isinstance(value, list) else "an object"


def optional(body: dict[str, Any], field: str, kind: type, expected: str, default: Any = None) -> Any:
    """Return a value of a request, or the default if it is missing or null.

    Raises:
        RequestError: it is of another kind (422).
    """
    value = body.get(field)
    if value is None:
        return default
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise wrong(field, value, expected)
    if isinstance(value, str) and not whole_characters(value):
        raise RequestError(f"`{field}` contains half a character", 422, field=field)
    return value


def one_of(body: dict[str, Any], field: str, choices: tuple[str, ...]) -> str | None:
    """Return a value that is one of several texts, or None if it is missing or null.

    Raises:
        RequestError: it is none of them (422).
    """
    value = body.get(field)
    if value is not None and (not isinstance(value, str) or value not in choices):
        shown = short(value, 50) if isinstance(value, str) else _kind(value)
        raise RequestError(f"`{field}` is {shown}; expected one of {', '.join(choices)}", 422, field=field)
    return value


def cut_side(body: dict[str, Any]) -> Side:
    """Return the end at which long texts are cut.

    Raises:
        RequestError: it is neither left nor right (422).
    """
    side = one_of(body, "truncation_direction", ("Left", "Right", "left", "right"))
    return "left" if side is not None and side.lower() == "left" else "right"


def top_k(body: dict[str, Any]) -> int | None:
    """Return how many labels are wanted; None: all.

    Raises:
        RequestError: it is not a number from 1 on (422).
    """
    value: int | None = optional(body, "top_k", int, "a number of labels")
    if value is not None and value < 1:
        raise RequestError(f"`top_k` is {value}; expected 1 or more", 422, field="top_k")
    return value


def text_or_pair(value: Any, field: str = "inputs") -> Text:
    """Return a text, or a pair that is written as {"text": ..., "text_pair": ...}.

    Raises:
        RequestError: it is neither (422).
    """
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        text, pair = value.get("text"), value.get("text_pair")
        if (
            isinstance(text, str)
            and (pair is None or isinstance(pair, str))
            and not value.keys() - {"text", "text_pair"}
        ):
            return text if pair is None else (text, pair)
        raise RequestError(f'`{field}` has an object that is not {{"text": ..., "text_pair": ...}}', 422, field=field)
    raise wrong(field, value, 'a text, or {"text": ..., "text_pair": ...}, or a list of them')


def texts_of(value: Any, field: str = "inputs") -> tuple[list[Text], bool]:
    """Return the texts or pairs of a request, and whether they came as a list.

    Raises:
        RequestError: the list is empty (400), or holds something else (422).
    """
    if not isinstance(value, list):
        return [text_or_pair(value, field)], False
    if not value:
        raise RequestError(f"`{field}` cannot be empty", 400, kind="Empty", field=field)
    return [text_or_pair(item, field) for item in value], True
