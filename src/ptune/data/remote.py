"""Files and folders behind a URL that fsspec knows, such as s3://, gs://, https:// or memory://."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import PurePosixPath
from typing import IO, Any

from ptune.errors import DataError
from ptune.hub import why


def is_url(source: str) -> bool:
    """Return whether a source is a URL, and not a path or a Hub id."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", source) is not None


class RemotePath:
    """The part of `pathlib.Path` that reading data needs, for a URL.

    Raises:
        DataError: the URL's protocol is unknown or needs a package, or the place cannot be reached.
    """

    def __init__(self, url: str) -> None:
        self.url = url

    def __str__(self) -> str:
        return self.url

    @property
    def name(self) -> str:
        return PurePosixPath(self.url.split("::")[0].split("?")[0]).name

    def is_dir(self) -> bool:
        return self._ask("isdir")

    def is_file(self) -> bool:
        return self._ask("isfile")

    def exists(self) -> bool:
        return self._ask("exists")

    def iterdir(self) -> Iterator[RemotePath]:
        for name in self._ask("ls", detail=False):
            yield self / PurePosixPath(name).name

    def __truediv__(self, name: str) -> RemotePath:
        return RemotePath(f"{self.url.rstrip('/')}/{name}")

    def __lt__(self, other: RemotePath) -> bool:
        return self.url < other.url

    def open(self, mode: str = "rb") -> IO[bytes]:
        return self._ask("open", mode=mode)

    @cached_property
    def _place(self) -> tuple[Any, str]:
        from fsspec.core import url_to_fs

        try:
            return url_to_fs(self.url)
        except Exception as err:  # a missing package, an unknown protocol, or whatever a file system raises
            raise DataError(f"data '{self.url}' cannot be read: {' '.join(str(err).split())}") from err

    def _ask(self, method: str, **options: Any) -> Any:
        system, path = self._place
        try:
            return getattr(system, method)(path, **options)
        except Exception as err:  # every file system has errors of its own
            raise DataError(f"data '{self.url}' cannot be reached ({why(err)}); check the URL and the network") from err
