"""Read the files of adapters, which may come from strangers.

Nothing in a file is trusted: a file has to be a plain file of limited size, JSON
may hold nothing but ordinary numbers and text, and weights have to be finite.
Sizes are checked before memory is taken.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from torch import Tensor

from ptune.data.columns import whole_characters
from ptune.errors import AdapterError, cut, short

# Largest size of an adapter's JSON file in bytes: hundreds of times what a thousand long label names need.
MAX_JSON_BYTES = 16 * 2**20
# Largest size of the weights in bytes: an ensemble of a hundred deep prompts for the largest models is smaller.
MAX_WEIGHTS_BYTES = 64 * 2**30
# Most tensors in a file. The largest head has six, and a prompt encoder a dozen.
_MOST_TENSORS = 1000
_FLOATS = ("F32", "F16", "BF16", "F64")
# Limits of what a record holds beyond its own fields, such as the settings of the run.
_DEEPEST, _MOST_VALUES, _LONGEST_TEXT = 8, 100_000, 1_000_000


def check_file_size(path: Path | str, size: int) -> None:
    """Check that a file of an adapter is not too large, from its name.

    Raises:
        AdapterError: it is.
    """
    most = MAX_JSON_BYTES if str(path).endswith(".json") else MAX_WEIGHTS_BYTES
    if size > most:
        raise AdapterError(f"{path} has {size} bytes; at most {most} are expected")


def exists(path: Path) -> bool:
    """Return whether there is a file by this name.

    Raises:
        AdapterError: it is a folder, a named pipe, a device or a socket, which reading could block for ever.
    """
    try:
        if path.is_file():
            return True
        if not path.exists():
            return False
    except OSError as err:
        raise AdapterError(f"{path} cannot be read: {err.strerror or err}") from err
    raise AdapterError(f"{path} is not a plain file; copy the adapter again")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        AdapterError: the file is too large or not a JSON object, or holds a number that is not finite.
    """
    content = _read_bytes(path, MAX_JSON_BYTES)
    try:
        parsed = json.loads(content.decode("utf-8"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as err:
        raise AdapterError(f"{path} is not JSON: {err}") from err
    if not isinstance(parsed, dict):
        raise AdapterError(f"{path} holds a {type(parsed).__name__}; a JSON object is expected")
    return parsed


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"it holds {name}, which is not a JSON number")


def check_plain(value: Any) -> Any:
    """Return a value of a record if it is of moderate size and its numbers are finite.

    Raises:
        ValueError: it is nested too deeply, too large, or holds a number that is not finite or half a character.
    """
    values, level = 0, [value]
    for _ in range(_DEEPEST):
        values += len(level)
        if values > _MOST_VALUES:
            raise ValueError(f"more than {_MOST_VALUES} values")
        deeper: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                deeper += [*item, *item.values()]
            elif isinstance(item, (list, tuple)):
                deeper += item
            else:
                _check_scalar(item)
        if not deeper:
            return value
        level = deeper
    raise ValueError(f"nested more than {_DEEPEST} levels deep")


def _check_scalar(value: Any) -> None:
    if isinstance(value, str) and len(value) > _LONGEST_TEXT:
        raise ValueError(f"text of {len(value)} characters; at most {_LONGEST_TEXT} are expected")
    if isinstance(value, str) and not whole_characters(value):  # JSON can hold them, but no answer of a server
        raise ValueError(f"text with half a character: {value!a}")
    # Whole numbers may be too large for a float. A comparison with NaN is false.
    if isinstance(value, (int, float)) and not abs(value) <= sys.float_info.max:
        raise ValueError("a number that is not finite")


def tensor_names(path: Path, file: Any) -> list[str]:
    """Return the names of the tensors in a safetensors file that is open.

    Raises:
        AdapterError: there are too many.
    """
    names = list(file.keys())
    if len(names) > _MOST_TENSORS:
        raise AdapterError(f"{path} holds {len(names)} tensors; at most {_MOST_TENSORS} are expected")
    return names


def read_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Read the names and shapes of the tensors from the header of a safetensors file.

    safetensors itself checks that the header agrees with the file's length.

    Raises:
        AdapterError: the file is damaged, or holds too much or other numbers than floating-point ones.
    """
    from safetensors import SafetensorError, safe_open

    try:
        check_file_size(path, path.stat().st_size)
        with safe_open(path, framework="pt") as file:
            names = tensor_names(path, file)
            slices = {name: file.get_slice(name) for name in names}
            dtypes = {name: tensor.get_dtype() for name, tensor in slices.items()}
            shapes = {name: tuple(tensor.get_shape()) for name, tensor in slices.items()}
    except (OSError, RuntimeError) as err:  # safetensors raises a RuntimeError if it cannot open the file
        raise AdapterError(f"{path} cannot be read: {cut(str(err), 500)}") from err
    except SafetensorError as err:
        raise AdapterError(f"{path} is not a complete safetensors file: {cut(str(err), 500)}; copy it again") from err
    for name, dtype in dtypes.items():
        if dtype not in _FLOATS:
            raise AdapterError(f"{path}: tensor {short(name)} is of type {dtype}; expected one of {', '.join(_FLOATS)}")
    return shapes


def read_tensors(path: Path, shapes: Mapping[str, tuple[int, ...]], digest: str | None = None) -> dict[str, Tensor]:
    """Read tensors as float32 on the CPU, by their names in the file.

    The file is read once, and what was read is checked. A mapping would be faster, but a file that becomes shorter
    while it is mapped ends the process.

    Args:
        path: a safetensors file.
        shapes: of the tensors to read, by their names, from `read_shapes`.
        digest: SHA-256 of the file; None: not known.

    Raises:
        AdapterError: the file cannot be read or has changed since the shapes were read, or a number is not finite, or
            too large for float32.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    content = _read_bytes(path, MAX_WEIGHTS_BYTES)
    changed = AdapterError(f"{path} has changed since its header was read; try again when it is complete")
    if digest is not None and hashlib.sha256(content).hexdigest() != digest:
        raise changed
    try:
        found = load(content)
    except SafetensorError as err:
        raise changed from err
    if any(name not in found or tuple(found[name].shape) != shape for name, shape in shapes.items()):
        raise changed
    tensors = {name: found[name].float() for name in shapes}
    for name, tensor in tensors.items():
        # `isfinite` would take memory of the tensor's size, and the C library would keep it.
        if tensor.numel() and not all(bound.isfinite() for bound in tensor.aminmax()):
            raise AdapterError(
                f"{path}: tensor {short(name)} holds numbers that are not finite, so no answer would mean anything; "
                "copy the adapter again, or train it again"
            )
    return tensors


def _read_bytes(path: Path, most: int) -> bytes:
    """Return the content of a file.

    Raises:
        AdapterError: it cannot be read, or has more bytes than expected.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            content = file.read(size + 1) if size <= most else b""  # one more byte shows that it grows
    except OSError as err:
        raise AdapterError(f"{path} cannot be read: {err.strerror or err}") from err
    check_file_size(path, max(len(content), size))
    return content


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
