"""Adapters that are added, replaced and removed through HTTP. Their files go into the catalogue's folder."""

from __future__ import annotations

import asyncio
import io
import json
import shutil
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from ptune.adapter.fetch import locate_adapter
from ptune.adapter.layout import ADAPTER_FILES
from ptune.atomic import write_files
from ptune.errors import AdapterError, RequestError
from ptune.hub import parse_hub_id
from ptune.serving.bank import Bank, Loaded
from ptune.serving.catalogue import Catalogue, Entry, check_name, read_entry

# What the standard library raises for archives that are damaged, encrypted or compressed in an unknown way.
_BAD_ARCHIVE = (OSError, EOFError, ValueError, RuntimeError, zipfile.BadZipFile, tarfile.TarError, zlib.error)
KINDS = 'application/zip, application/x-tar, or application/json with {"source": "owner/name@revision"}'


class Uploads:
    """Changes of the catalogue that callers ask for, one at a time.

    Args:
        catalogue: is changed.
        bank: loads new adapters.
        changing: is held while the catalogue changes.
        most: bytes of an adapter's files.
    """

    def __init__(self, catalogue: Catalogue, bank: Bank, changing: asyncio.Lock, most: int) -> None:
        self.catalogue = catalogue
        self.bank = bank
        self.changing = changing
        self.most = most

    async def put(self, name: str, body: bytes, kind: str) -> tuple[Entry, bool]:
        """Add an adapter, or replace the one of its name.

        It is unpacked beside the others, loaded and checked. Only then its files get their names. Requests see the old
        one or the new one.

        Args:
            name: of the adapter.
            body: a zip or tar archive of its files, or JSON with the source on the Hub.
            kind: the body's media type.

        Returns:
            The new entry, and whether there was none of this name.

        Raises:
            RequestError: the archive cannot be used, or the server has no folder for adapters.
            AdapterError: the adapter is damaged or does not go with the backbone.
        """
        folder = self._folder(name)
        async with self.changing:
            is_new = name not in self.catalogue.entries
            loaded = await asyncio.to_thread(self._store, name, folder, body, kind)
            self.bank.keep(loaded)
            self.catalogue.put(loaded.entry)
        return loaded.entry, is_new

    async def delete(self, name: str) -> None:
        """Remove an adapter and its files.

        Raises:
            RequestError: there is none (404), or it is not in the folder for adapters (409).
        """
        async with self.changing:
            if name not in self.catalogue.broken:
                self.catalogue[name]
            folder = self._folder(name)
            if not (folder / name).is_dir():
                raise RequestError(
                    f"adapter '{name}' was named at the start of the server; its files are not removed", 409
                )
            self.catalogue.drop(name)
            self.bank.drop(name)
            await asyncio.to_thread(_remove, folder, name)

    def _folder(self, name: str) -> Path:
        catalogue = self.catalogue
        if catalogue.upload_folder is None:
            raise RequestError(
                "the server has no folder of adapters to write to; start it as ptune serve DIR", 409, field="adapter"
            )
        if catalogue.is_fixed(name):
            raise RequestError(f"adapter '{name}' was named at the start of the server; give another name", 409)
        return catalogue.upload_folder

    def _store(self, name: str, folder: Path, body: bytes, kind: str) -> Loaded:
        """Write the files of an adapter, after they have been loaded from a folder of their own."""
        with tempfile.TemporaryDirectory(prefix=".upload-", dir=folder) as temporary:
            trial = Path(temporary) / name
            trial.mkdir()
            files = self._files(body, kind)
            for file_name, content in files.items():
                (trial / file_name).write_bytes(content)
            try:
                self.bank.read(read_entry(name, trial))
            except AdapterError as err:
                raise RequestError(str(err).replace(f"{trial}/", "").replace(str(trial), name), 422) from err
        write_files(folder / name, files, remove=[other for other in ADAPTER_FILES if other not in files])
        return self.bank.read(read_entry(name, folder / name))

    def _files(self, body: bytes, kind: str) -> dict[str, bytes]:
        """Return the files of an adapter by name.

        Raises:
            RequestError: the body is of another kind (415), damaged, too large or holds no adapter (422).
        """
        if kind == "application/json":
            return self._fetched(body)
        if kind in ("application/zip", "application/x-zip-compressed"):
            members = _zipped(body)
        elif kind in ("application/x-tar", "application/gzip", "application/x-gtar", "application/x-gzip"):
            members = _tarred(body)
        else:
            raise RequestError(f"expected a body of type {KINDS}", 415)
        most, files = self.most, dict[str, bytes]()
        try:
            for path, size, read in members:
                file_name = PurePosixPath(path).name
                if file_name not in ADAPTER_FILES or len(PurePosixPath(path).parts) > 2:
                    continue
                most -= size
                if most < 0 or file_name in files:
                    raise RequestError(f"the archive has two files '{file_name}', or holds more than `max_upload`", 422)
                files[file_name] = read()
        except RequestError:
            raise
        except _BAD_ARCHIVE as err:
            raise RequestError(f"the archive cannot be read: {err}", 422) from err
        if not files:
            raise RequestError(f"the archive has none of {', '.join(ADAPTER_FILES)} at its top", 422)
        return files

    def _fetched(self, body: bytes) -> dict[str, bytes]:
        """Return the files of an adapter on the Hub. A folder of this machine is no source."""
        try:
            source = json.loads(body).get("source")
        except (ValueError, AttributeError, RecursionError) as err:
            raise RequestError('expected JSON such as {"source": "owner/name@revision"}', 400) from err
        if not isinstance(source, str) or parse_hub_id(source) is None or Path(source).exists():
            raise RequestError("`source` is not a Hub id; expected owner/name or owner/name@revision", 422)
        folder = locate_adapter(source)
        return {name: (folder / name).read_bytes() for name in ADAPTER_FILES if (folder / name).is_file()}


def _zipped(body: bytes) -> Iterator[tuple[str, int, Any]]:
    with zipfile.ZipFile(io.BytesIO(body)) as archive:
        for member in archive.infolist():
            if not member.is_dir():
                yield member.filename, member.file_size, lambda m=member: archive.read(m)


def _tarred(body: bytes) -> Iterator[tuple[str, int, Any]]:
    with tarfile.open(fileobj=io.BytesIO(body), mode="r:*") as archive:
        for member in archive:
            if member.isfile():
                yield member.name, member.size, lambda m=member: archive.extractfile(m).read()  # type: ignore[union-attr]


def _remove(folder: Path, name: str) -> None:
    """Remove the folder of an adapter. It loses its name first, so that nobody sees half of it."""
    with tempfile.TemporaryDirectory(prefix=".removed-", dir=folder) as temporary:
        (folder / check_name(name)).rename(Path(temporary) / name)
        shutil.rmtree(Path(temporary) / name, ignore_errors=True)
