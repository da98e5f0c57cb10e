"""API keys: who may use which adapters."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, SecretStr, TypeAdapter, ValidationError

from ptune.errors import ConfigError, RequestError, describe_problems
from ptune.serving.catalogue import no_adapter
from ptune.serving.settings import ServeSettings
from ptune.settings_file import parse_file

SHORTEST = 16  # characters of a key


class KeyEntry(BaseModel):
    """A key in a file of keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1, max_length=64, description="What logs call the owner.")
    key: SecretStr | None = Field(None, description="The key.")
    sha256: str | None = Field(None, pattern="^[0-9a-fA-F]{64}$", description="The key's SHA-256 in place of the key.")
    adapters: list[str] = Field(["*"], description="Adapters that the key may use; * stands for any characters.")
    admin: bool = Field(False, description="Whether the key may add, replace and remove adapters.")
    metrics: bool = Field(False, description="Whether the key may read /metrics, which names adapters.")


@dataclass(frozen=True)
class Caller:
    """Who sends a request.

    Attributes:
        name: for logs.
        adapters: patterns of the adapters that may be used.
        admin: whether adapters may be added, replaced and removed.
        metrics: whether metrics may be read that name adapters.
    """

    name: str
    adapters: tuple[str, ...] = ("*",)
    admin: bool = False
    metrics: bool = False

    def may_use(self, adapter: str) -> bool:
        """Return whether an adapter may be used."""
        return any(fnmatchcase(adapter, pattern) for pattern in self.adapters)

    def check(self, adapter: str) -> None:
        """Check that an adapter may be used. The answer is that of an adapter that does not exist.

        Raises:
            RequestError: it may not (404).
        """
        if not self.may_use(adapter):
            raise no_adapter(adapter)

    def check_metrics(self) -> None:
        """Check that the metrics of all adapters may be read.

        Raises:
            RequestError: they may not (403).
        """
        if not (self.metrics or "*" in self.adapters):
            raise RequestError(
                "metrics are about all adapters; use a key for all of them, or one with `metrics: true` in the file of "
                "keys",
                403,
            )

    def check_admin(self) -> None:
        """Check that the catalogue may be changed.

        Raises:
            RequestError: it may not (403).
        """
        if not self.admin:
            raise RequestError("adapters are changed with the key of an administrator; set `admin_keys`", 403)


ANYONE = Caller("anyone")


class Keys:
    """The keys of a server. Without any, every caller may use all adapters, and none may change them.

    Args:
        settings: of the server.

    Raises:
        ConfigError: the file cannot be read, or a key is too short.
    """

    def __init__(self, settings: ServeSettings) -> None:
        self._callers: list[tuple[bytes, Caller]] = []
        for admin, secrets in ((False, settings.api_keys), (True, settings.admin_keys)):
            for number, secret in enumerate(secrets or (), 1):
                field = "admin_keys" if admin else "api_keys"
                self._add(secret, Caller(f"{field}[{number}]", admin=admin), f"`{field}`")
        if settings.api_keys_file is not None:
            for entry in _read_keys(settings.api_keys_file):
                caller = Caller(entry.name, tuple(entry.adapters), entry.admin, entry.metrics)
                where = f"file of keys '{settings.api_keys_file}', key '{entry.name}'"
                if entry.sha256 is not None:
                    self._keep(bytes.fromhex(entry.sha256), caller)
                else:
                    assert entry.key is not None  # checked in `_read_keys`
                    self._add(entry.key, caller, where)

    def _add(self, secret: SecretStr, caller: Caller, where: str) -> None:
        key = secret.get_secret_value()
        if len(key) < SHORTEST or not key.isascii() or any(character.isspace() for character in key):
            raise ConfigError(
                f"{where}: a key has {SHORTEST} or more ASCII characters without spaces; make one by: openssl rand "
                "-hex 32"
            )
        self._keep(_digest(key), caller)

    def _keep(self, digest: bytes, caller: Caller) -> None:
        for known, other in self._callers:
            if known == digest:
                raise ConfigError(f"keys '{other.name}' and '{caller.name}' are the same; give each its own")
        self._callers.append((digest, caller))

    @property
    def change_adapters(self) -> bool:
        """True if there is a key with which adapters are added, replaced and removed."""
        return any(caller.admin for _, caller in self._callers)

    def __bool__(self) -> bool:
        """Return whether requests need a key."""
        return bool(self._callers)

    def caller(self, authorization: str | None) -> Caller | None:
        """Return who sends a request, by the header Authorization; None if its key is missing or unknown.

        Every key is compared, and each comparison takes the same time, so that the time tells nothing of the keys.
        """
        scheme, _, key = (authorization or "").partition(" ")
        digest = _digest(key.strip() if scheme.lower() == "bearer" else "")
        found = None
        for known, caller in self._callers:
            if hmac.compare_digest(known, digest):
                found = caller
        return found


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()


def _read_keys(path: Path) -> Sequence[KeyEntry]:
    """Return the keys of a file.

    Raises:
        ConfigError: the file cannot be read, or its content is not a list of keys.
    """
    content = parse_file(path, "file of keys")
    listed: Any = content.get("keys") if isinstance(content, dict) else content
    try:
        entries = TypeAdapter(list[KeyEntry]).validate_python(listed)
    except ValidationError as err:
        problems = describe_problems(err, secret=True) if isinstance(listed, list) else "expected a list `keys`"
        raise ConfigError(f"file of keys '{path}': {problems}") from err
    for entry in entries:
        if (entry.key is None) == (entry.sha256 is None):
            raise ConfigError(f"file of keys '{path}', key '{entry.name}': give either key or sha256")
    if not entries:
        raise ConfigError(f"file of keys '{path}' has no keys")
    return entries
