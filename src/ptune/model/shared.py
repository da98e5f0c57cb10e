"""Objects that are shared by everything that is made from the same files.

A process may hold hundreds of adapters. Each needs the tokenizer and the backbone
that it was trained with, and these take far more memory than the adapter. They
are therefore loaded once, and they are kept only as long as somebody uses them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Iterable
from contextlib import suppress
from glob import glob, has_magic
from stat import S_ISREG
from threading import RLock
from typing import Generic, TypeVar
from weakref import WeakValueDictionary

T = TypeVar("T")
Stamp = tuple[str, int, int, int]


class Shared(Generic[T]):
    """Objects by what they were made from. An object leaves when nobody uses it any more.

    Threads may use it. If several threads ask for the same object, one of them makes it and the others wait.
    """

    def __init__(self) -> None:
        self._objects: WeakValueDictionary[Hashable, T] = WeakValueDictionary()
        self._lock = RLock()

    def get(self, key: Hashable, make: Callable[[], T], usable: Callable[[T], bool] = lambda _: True) -> T:
        """Return the object that was made for a key, or make it.

        Args:
            key: everything that the object depends on.
            make: makes the object.
            usable: returns False for an object that has been changed since it was made. It is then made anew.
        """
        with self._lock:
            found = self._objects.get(key)
            if found is None or not usable(found):
                found = self._objects[key] = make()
            return found


def stamps(folder: str, patterns: Iterable[str]) -> tuple[Stamp, ...]:
    """Return name, size and times of change of the files in a folder that match any of the patterns.

    Besides the time that programs may set, as `tar` and `cp -p` do, there is the one that the file system keeps.

    Files that were replaced since an object was made from them have other stamps, so the object is not used for them.
    """
    found: dict[str, Stamp] = {}
    for pattern in patterns:
        # A name is looked up without a search: a server looks at the files of a thousand adapters every few seconds.
        paths = glob(pattern, root_dir=folder) if has_magic(pattern) else [pattern]  # noqa: PTH207
        for path in paths:
            with suppress(FileNotFoundError, NotADirectoryError):
                status = os.stat(f"{folder}/{path}")  # noqa: PTH116 (three times as fast as a Path)
                if S_ISREG(status.st_mode):
                    found[path] = (path.rpartition("/")[2], status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    return tuple(found[path] for path in sorted(found))
