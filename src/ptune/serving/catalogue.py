"""The adapters that a server knows, by name: where their files are, and what their records say. Weights are not read.

A catalogue consists of adapters that were named one by one, and of folders in which every sub-folder is an adapter.
Names are checked, so that no name of a request leads out of a folder.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ptune.adapter.fetch import locate_adapter
from ptune.adapter.folder import AdapterFile, read_adapter
from ptune.adapter.layout import ADAPTER_FILES, PEFT_FILE, RECORD_FILE, STATE_FILE
from ptune.errors import AdapterError, ConfigError, RequestError, short
from ptune.hub import expanded, is_there
from ptune.model.shared import Stamp, stamps

logger = logging.getLogger(__name__)

_NAME = re.compile(r"\w[\w.-]{0,127}")
# The adapter in a path, by the protocols of Text Embeddings Inference and KServe.
_IN_PATH = re.compile(r"(?:/adapters|/v2/models)/([^/]+)")


def check_name(name: str) -> str:
    """Return the name of an adapter if it may be one.

    Raises:
        RequestError: it holds a slash, begins with a dot, is empty or longer than 128 characters (404).
    """
    if not _NAME.fullmatch(name):
        raise RequestError(
            f"{short(name)} cannot be the name of an adapter; names consist of letters, digits, '_', '-' and '.'",
            404,
            field="adapter",
        )
    return name


def name_in_path(path: str) -> str | None:
    """Return the name of the adapter that the path of a request names, as it stands there; None if it names none."""
    found = _IN_PATH.match(path)
    return found and found[1]


def no_adapter(name: str) -> RequestError:
    """Return the error for an adapter that does not exist, or that the caller may not know of."""
    return RequestError(
        f"there is no adapter {short(name)}; GET /adapters lists them", 404, kind="NotFound", field="adapter"
    )


@dataclass(frozen=True)
class Entry:
    """An adapter of the catalogue, as its files were when they were last looked at.

    Attributes:
        name: under which it is served.
        file: what was read of it.
        stamp: names, sizes and times of its files. Another stamp is another version.
    """

    name: str
    file: AdapterFile
    stamp: tuple[Stamp, ...]


@dataclass
class Changes:
    """What has changed in a catalogue since it was last looked at."""

    new: list[Entry] = field(default_factory=list)  # added or replaced
    gone: list[str] = field(default_factory=list)


class Catalogue:
    """Adapters by name.

    Args:
        places: adapters and folders of adapters as typed: `DIR`, `NAME=FOLDER`, `NAME=OWNER/NAME@REVISION` or a Hub id.

    Raises:
        ConfigError: a name is used twice or is not valid, or there is nothing to serve.
        AdapterError: a place does not exist.
    """

    def __init__(self, places: Sequence[str]) -> None:
        self.folders: list[Path] = []
        self._single: dict[str, Path] = {}
        self.entries: dict[str, Entry] = {}
        self.broken: dict[str, str] = {}  # why an adapter, or its newest files, cannot be served
        self._refused: dict[str, tuple[Stamp, ...]] = {}
        self._said: set[Path] = set()  # folders of which a warning was logged
        for place in places:
            self._add_place(place)

    def _add_place(self, place: str) -> None:
        name, path = split_place(place)
        folder = locate_adapter(path)
        if name is None and not _holds_adapter(folder):
            self.folders.append(folder)
            return
        name = name or Path(path).name.split("@")[0] or folder.resolve().name
        if not _NAME.fullmatch(name):
            raise ConfigError(
                f"{short(name)} cannot be the name of an adapter; use letters, digits, '_', '-' and '.', as in "
                f"NAME={path}"
            )
        if name in self._single:
            raise ConfigError(f"two adapters are named '{name}'; give one another name, as in NAME={path}")
        self._single[name] = folder

    @property
    def upload_folder(self) -> Path | None:
        """The folder that new adapters are written to; None if the catalogue has no folder."""
        return self.folders[0] if self.folders else None

    def is_fixed(self, name: str) -> bool:
        """Return whether an adapter was named by itself, so that it is not in a folder of adapters."""
        return name in self._single

    def __getitem__(self, name: str) -> Entry:
        """Return the entry of a name.

        Raises:
            RequestError: there is none (404).
        """
        entry = self.entries.get(name)
        if entry is None:
            reason = self.broken.get(name)
            if reason is not None:
                raise RequestError(
                    f"adapter {short(name)} cannot be served: {self.for_clients(reason)}", 424, field="adapter"
                )
            raise no_adapter(name)
        return entry

    def for_clients(self, message: str) -> str:
        """Return a message without the folders of this machine, in which the adapters are."""
        places = {str(folder) for folder in (*self.folders, *(folder.parent for folder in self._single.values()))}
        for place in sorted(places, key=len, reverse=True):
            message = message.replace(f"{place}/", "")
        return message

    def look(self) -> Changes:
        """Look at the files and return what is new and gone. `put` and `drop` make the catalogue follow.

        An adapter whose files cannot be used stays what it was before, and `broken` says why.
        """
        changes, present = Changes(), set()
        for name, folder in self._places():
            present.add(name)
            known = self.entries.get(name)
            try:
                stamp = stamp_of(folder)
                if self._refused.get(name) == stamp:
                    continue
                if known is not None and known.stamp == stamp:
                    self._forgive(name)  # newer files that could not be used are gone
                    continue
                changes.new.append(read_entry(name, folder))
            except AdapterError as err:
                self.refuse(name, stamp, err)
            except OSError as err:
                self.refuse(name, (), err)
        changes.gone = [name for name in [*self.entries, *self.broken] if name not in present]
        return changes

    def put(self, entry: Entry) -> None:
        """Add an adapter, or replace the one of its name."""
        self.entries[entry.name] = entry
        self._forgive(entry.name)

    def refuse(self, name: str, stamp: tuple[Stamp, ...], error: Exception) -> None:
        """Keep why the newest files of an adapter cannot be served, and do not read them again until they change.

        If it was the machine that could not read them, such as with too many open files, they are tried again.
        """
        reason = str(error)
        passing = isinstance(error, OSError) or isinstance(error.__cause__, OSError)
        if self.broken.get(name) != reason:  # and not again with each request
            logger.warning("adapter '%s' is not served: %s", name, reason)
        self.broken[name] = reason
        self._refused[name] = () if passing else stamp

    def _forgive(self, name: str) -> None:
        self.broken.pop(name, None)
        self._refused.pop(name, None)

    def drop(self, name: str) -> None:
        """Remove an adapter."""
        self.entries.pop(name, None)
        self._forgive(name)

    def _places(self) -> Iterator[tuple[str, Path]]:
        """Yield the names and folders of all adapters that there are at present."""
        yield from ((name, folder) for name, folder in self._single.items() if folder.is_dir())
        seen = dict(self._single)
        for folder in self.folders:
            for path in sorted(folder.iterdir()) if folder.is_dir() else ():
                if path.name.startswith(".") or not _holds_adapter(path):
                    continue  # such as checkpoints, uploads under way, and README.md
                if not _NAME.fullmatch(path.name):
                    self._warn_of_name(path)
                    continue
                if path.name in seen:
                    if seen[path.name] != path and path not in self._said:
                        self._said.add(path)
                        logger.warning("'%s' is not served: '%s' has the same name", path, seen[path.name])
                    continue
                seen[path.name] = path
                yield path.name, path

    def _warn_of_name(self, path: Path) -> None:
        """Warn once of an adapter in a folder whose name no adapter may have."""
        if path not in self._said:
            self._said.add(path)
            logger.warning("'%s' is not served: rename the folder; a name has letters, digits, '_', '-' and '.'", path)


def split_place(place: str) -> tuple[str | None, str]:
    """Return the name, or None, and the place of an adapter as typed: NAME=PLACE or PLACE."""
    name, sign, path = place.partition("=")
    if not sign or "/" in name or is_there(expanded(place)):
        return None, place
    return name, path


def read_entry(name: str, folder: Path) -> Entry:
    """Read what is known of an adapter without its weights. Files that change meanwhile are read again.

    Raises:
        AdapterError: the files cannot be used.
    """
    for _ in range(5):
        stamp = stamp_of(folder)
        try:
            file = read_adapter(folder)
        except AdapterError:
            if stamp == stamp_of(folder):
                raise
            continue
        if stamp == stamp_of(folder):
            return Entry(name, file, stamp)
    raise AdapterError(f"adapter '{folder}': its files keep changing; it is read when they have stopped")


def stamp_of(folder: Path) -> tuple[Stamp, ...]:
    """Return names, sizes and times of an adapter's files."""
    return stamps(str(folder), (*ADAPTER_FILES, STATE_FILE))


def _holds_adapter(folder: Path) -> bool:
    place = str(folder)
    if not os.access(place, os.X_OK):
        return folder.is_dir()  # reading it says that it cannot be read
    return any(os.path.exists(f"{place}/{name}") for name in (RECORD_FILE, PEFT_FILE, *ADAPTER_FILES))  # noqa: PTH110
