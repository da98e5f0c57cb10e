"""The settings of `ptune serve`. Each is an option, an environment variable and a key of a configuration file.

This module does not import torch, so that help and checks are fast.
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SecretStr, field_validator

from ptune.model.config import DType, Precision, Quantize
from ptune.settings_model import SettingsModel

_UNITS = {"": 1, "b": 1, "kb": 2**10, "mb": 2**20, "gb": 2**30, "k": 2**10, "m": 2**20, "g": 2**30}
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]{0,2})\s*")


def parse_size(value: Any) -> Any:
    """Return a size in bytes: '500MB' and '2 GB' become numbers, numbers stay as they are.

    Raises:
        ValueError: the text is not a size.
    """
    if not isinstance(value, str):
        return value
    match = _SIZE.fullmatch(value)
    if match is None or match[2].lower() not in _UNITS:
        raise ValueError("expected a number of bytes, or a size such as 500MB or 2GB")
    size = float(match[1]) * _UNITS[match[2].lower()]
    if not math.isfinite(size):
        raise ValueError("expected a size that a machine can have")
    return int(size)


def _split(value: Any) -> Any:
    """Take several values as a list, or as one text with commas between them."""
    listed = [value] if isinstance(value, str) else value
    if not isinstance(listed, list | tuple):
        return listed
    parts = [part for item in listed for part in (item.split(",") if isinstance(item, str) else [item])]
    return [part.strip() if isinstance(part, str) else part for part in parts if part != ""]


Size = Annotated[int, BeforeValidator(parse_size)]


class ServeOptions(SettingsModel):
    """Settings of the server, without what it serves."""

    host: str = Field(
        "127.0.0.1", min_length=1, description="Address to listen on. One that other machines can reach needs API keys."
    )
    port: int = Field(8080, ge=0, le=65535, description="Port to listen on; 0: any free one.")
    workers: int = Field(
        1, ge=1, le=64, description="Processes that serve the port. Each holds a backbone and a store of its own."
    )

    device: str = Field("auto", description="Device: auto (a GPU if there is one), cpu, cuda, cuda:1 or mps.")
    dtype: DType = Field(
        "auto",
        description="Data type of the backbone. auto: bfloat16 on a GPU or CPU with bfloat16 arithmetic, otherwise "
        "float32.",
    )
    precision: Precision | None = Field(
        None,
        description="Run the backbone with OpenVINO on the CPU, in this precision: bf16 needs a CPU with AMX, int8 "
        "runs on any. Needs pip install 'ptune[openvino]'. Default: run it with PyTorch.",
    )
    quantize: Quantize | None = Field(
        None,
        description="Round the weights of the backbone's linear layers to 8 or 4 bits. Needs pip install "
        "'ptune[quantize]'. Default: not rounded.",
    )
    default_adapter: str | None = Field(
        None, description="Adapter that answers where a request names none. Default: the only one, if there is one."
    )
    adapter_memory: Size = Field(
        2**30,
        ge=1,
        description="Memory for the weights of adapters, such as 500MB or 2GB. Beyond it, the adapter that was not "
        "used for the longest time is dropped, and read again when it is needed.",
    )
    watch_seconds: float = Field(
        2.0,
        ge=0,
        le=3600,
        description="Seconds between two scans of the folder for new adapters; 0: only at the start.",
    )

    max_batch_tokens: int | None = Field(
        None, ge=16, description="Most tokens in a forward pass, padding included. Default: what suits the device."
    )
    max_batch_rows: int = Field(128, ge=1, le=65536, description="Most rows that are computed together.")
    max_queue_rows: int = Field(
        20_000, ge=1, description="Maximum number of waiting rows. Beyond it, requests get 429."
    )
    max_wait: float = Field(
        0.3,
        gt=0,
        le=600,
        description="Longest time in seconds that a new request may wait for its turn. If the rows in front of it take "
        "longer, it gets status 429 at once. While refusals continue, the limit drops to as little as a quarter, until "
        "a second passes without one; now and then the whole time is tried again.",
    )
    timeout: float = Field(30.0, gt=0, le=3600, description="Seconds after which a request is answered 504.")
    body_timeout: float = Field(
        10.0,
        gt=0,
        le=3600,
        description="Seconds that a client may take to send the head of a request, and again to send its body.",
    )

    max_body: Size = Field(8 * 2**20, ge=64, description="Largest body of a request, such as 8MB.")
    max_upload: Size = Field(256 * 2**20, ge=64, description="Largest adapter that may be uploaded, such as 256MB.")
    max_rows: int = Field(
        10_000, ge=1, description="Most rows of a request: texts or pairs, times the number of adapters."
    )
    max_tokens: int = Field(1_000_000, ge=1, description="Most tokens of a request, over all of its rows.")
    truncate: bool = Field(
        True, description="Cut texts that are too long, unless the request says otherwise. If off, they are refused."
    )

    api_keys_file: Path | None = Field(
        None, description="YAML, TOML or JSON file of API keys, with the adapters that each may use."
    )
    api_keys: list[SecretStr] | None = Field(
        None,
        description="API keys that may use all adapters, separated by commas. Other users can see a "
        "command line, so prefer PTUNE_SERVE_API_KEYS.",
    )
    admin_keys: list[SecretStr] | None = Field(
        None, description="API keys that may also add, replace and remove adapters. Prefer PTUNE_SERVE_ADMIN_KEYS."
    )
    cors_origins: list[str] | None = Field(
        None, description="Origins of web pages that may call the server, such as https://example.org. Default: none."
    )

    log_format: Literal["json", "text"] = Field("json", description="Form of the log on stderr.")
    log_requests: bool = Field(True, description="Log each request, without its texts.")
    metrics_adapters: int = Field(
        50,
        ge=0,
        le=10_000,
        description="Number of adapters that metrics count separately. All others are counted together.",
    )
    telemetry: bool = Field(
        False, description="Send traces by OpenTelemetry. Needs pip install 'ptune[telemetry]' and OTEL_ variables."
    )
    drain_seconds: float = Field(
        1.0,
        ge=0,
        le=600,
        description="Time after SIGTERM in which the server still takes requests but says that it is not ready, so "
        "that load balancers send no more.",
    )
    stop_seconds: float = Field(
        30.0, gt=0, le=3600, description="Time that requests have to finish when the server stops."
    )

    @field_validator("api_keys", "admin_keys", "cors_origins", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        return _split(value)


class ServeSettings(ServeOptions):
    """Settings of the server.

    Attributes:
        adapters: folders of adapters and adapters, as `DIR`, `NAME=FOLDER` or `NAME=OWNER/NAME@REVISION`.
        backbone: names of backbones; empty: the one that the adapters name.
    """

    adapters: list[str] = Field(min_length=1)
    backbone: list[str] = Field(default_factory=list)

    @field_validator("adapters", "backbone", mode="before")
    @classmethod
    def _listed_names(cls, value: Any) -> Any:
        return _split(value) if isinstance(value, str) else value  # a path in a list may have a comma

    @property
    def has_keys(self) -> bool:
        """Whether there are keys."""
        return bool(self.api_keys or self.admin_keys or self.api_keys_file)

    def worker_json(self) -> str:
        """Return the settings as JSON, with the keys, for the environment of worker processes."""
        content = self.model_dump(mode="json")
        for field in ("api_keys", "admin_keys"):
            secrets: list[SecretStr] | None = getattr(self, field)
            content[field] = None if secrets is None else [secret.get_secret_value() for secret in secrets]
        return json.dumps(content)
