"""What OpenAPI says of each route."""

from __future__ import annotations

from typing import Any

PREDICT: dict[str, Any] = {}
VERTEX: dict[str, Any] = {}
HUGGING_FACE: dict[str, Any] = {}
HEALTH: dict[str, Any] = {}
INFO: dict[str, Any] = {}
METRICS: dict[str, Any] = {}
CLASSIFY: dict[str, Any] = {}
MODELS: dict[str, Any] = {}
MODEL: dict[str, Any] = {}
V2_SERVER: dict[str, Any] = {}
V2_LIVE: dict[str, Any] = {}
V2_READY: dict[str, Any] = {}
V2_MODEL_READY: dict[str, Any] = {}
V2_MODEL: dict[str, Any] = {}
V2_INFER: dict[str, Any] = {}
ADAPTERS: dict[str, Any] = {}
ADAPTER: dict[str, Any] = {}
PREDICT_MANY: dict[str, Any] = {}
PUT_ADAPTER: dict[str, Any] = {}
DELETE_ADAPTER: dict[str, Any] = {}
