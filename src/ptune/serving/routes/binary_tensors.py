"""The Open Inference Protocol's extension for binary tensors, which Triton's clients use unless told otherwise.

The bytes of the tensors follow the JSON of a body, one tensor after the other. In the JSON, a tensor has
`parameters.binary_data_size` in place of `data`. Numbers are little-endian. Each element of a BYTES tensor follows its
length, which has four bytes.

Source: https://kserve.github.io/website/docs/concepts/architecture/data-plane/v2-protocol/binary-tensor-data-extension
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection, Sequence
from typing import Any

import orjson

from ptune.errors import RequestError

SIZE = "binary_data_size"
_LENGTH = struct.Struct("<I")


def take_data(
    inputs: Sequence[dict[str, Any]], binary: memoryview | None, check_rows: Callable[[int], None]
) -> list[dict[str, Any]]:
    """Return the input tensors with their texts in `data`, whether they came as JSON or as bytes.

    Args:
        inputs: tensors of datatype BYTES.
        binary: what follows the JSON; None: nothing can follow it.
        check_rows: raises if a request has too many rows.

    Raises:
        RequestError: the sizes do not go with the bytes, or these are not texts in UTF-8 (422).
        RequestError: there are too many rows (413).
    """
    taken, rest = [], binary
    for tensor in inputs:
        parameters = tensor.get("parameters")
        size = parameters.get(SIZE) if isinstance(parameters, dict) else None
        if size is None:
            taken.append(tensor)
            continue
        name = tensor["name"]
        if "data" in tensor:
            raise _wrong(name, f"has both `data` and `{SIZE}`; give one of them")
        if type(size) is not int or size < 0 or rest is None or size > len(rest):
            there = "no bytes follow the JSON" if rest is None else f"{len(rest)} bytes are there for it"
            raise _wrong(name, f"has a wrong `{SIZE}`; {there}")
        taken.append({**tensor, "data": _texts(rest[:size], name, check_rows)})
        rest = rest[size:]
    if rest:
        raise RequestError(f"{len(rest)} bytes behind the JSON belong to no input", 422, field="inputs")
    return taken


def _texts(content: memoryview, name: str, check_rows: Callable[[int], None]) -> list[str]:
    texts: list[str] = []
    place = 0
    while place < len(content):
        start = place + _LENGTH.size
        length = _LENGTH.unpack_from(content, place)[0] if start <= len(content) else 0
        place = start + length
        if place > len(content):
            raise _wrong(name, f"ends within text {len(texts) + 1}; each text follows its length in four bytes")
        try:
            texts.append(str(content[start:place], "utf-8"))
        except UnicodeDecodeError:
            raise _wrong(name, f"has a text that is not UTF-8: number {len(texts) + 1}") from None
        check_rows(len(texts))
    return texts


def _wrong(name: str, reason: str) -> RequestError:
    return RequestError(f"input {name!r:.100} {reason}", 422, field="inputs")


def with_binary(content: dict[str, Any], names: Collection[str]) -> tuple[bytes, int]:
    """Return the body of an answer and the length of its JSON.

    Args:
        content: the answer, with `outputs` of datatype BYTES or FP32.
        names: outputs whose data follow the JSON.
    """
    outputs, parts = [], []
    for output in content["outputs"]:
        if output["name"] not in names:
            outputs.append(output)
            continue
        part = _packed(output)
        parameters = {**output.get("parameters", {}), SIZE: len(part)}
        outputs.append({key: value for key, value in output.items() if key != "data"} | {"parameters": parameters})
        parts.append(part)
    written = orjson.dumps({**content, "outputs": outputs})
    return b"".join([written, *parts]), len(written)


def _packed(output: dict[str, Any]) -> bytes:
    data = output["data"]
    if output["datatype"] == "FP32":
        return struct.pack(f"<{len(data)}f", *data)
    encoded = [text.encode() for text in data]
    return b"".join(part for text in encoded for part in (_LENGTH.pack(len(text)), text))
