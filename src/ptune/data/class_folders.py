"""Read folders of texts: one folder for each label, with one text in each file, as in `sklearn.datasets.load_files`.

    reviews/train/pos/1.txt
    reviews/train/neg/1.txt

The folders of labels lie in the data's folder, or in folders with the names of splits.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

from ptune.data.encoding import decode
from ptune.data.files import split_name
from ptune.data.folders import SPLIT_NAMES, visible
from ptune.data.readers import Row
from ptune.errors import DataError
from ptune.places import Place

logger = logging.getLogger(__name__)

_UNLABELLED = ("unsup", "unlabeled", "unlabelled")  # as in the Large Movie Review Dataset

Classes = dict[str, list[Place]]


def find_classes(folder: Place) -> dict[str, Classes]:
    """Return the texts of each label by split: {"train": {"pos": [files]}}.

    The split is "" if the folders of labels lie in the data's folder itself. The result is empty if there are none.
    """
    splits: dict[str, Classes] = {}
    inner = [path for path in visible(folder) if path.is_dir()]
    for path in inner:
        split = SPLIT_NAMES.get(path.name.lower())
        if split and (classes := _classes([label for label in visible(path) if label.is_dir()])):
            splits[split] = classes
    if not splits and not any(path.name.lower() in SPLIT_NAMES for path in inner):
        classes = _classes(inner)
        return {"": classes} if classes else {}
    return splits


def read_classes(where: str, classes: Classes) -> Iterator[tuple[str, Row]]:
    """Yield each text with its label, and the file in front of it."""
    others = 0
    for label, files in classes.items():
        for path in files:
            try:
                with path.open("rb") as file:
                    text, is_utf8 = decode(file.read(), str(path))
            except OSError as err:
                raise DataError(f"data '{where}': file '{path}' cannot be read: {err.strerror or err}") from err
            others += not is_utf8
            yield str(path), {"text": text, "label": label}
    if others:
        logger.warning("data '%s': %d files are not UTF-8; they are read as Windows-1252", where, others)


def _classes(folders: list[Place]) -> Classes:
    """Return the texts in folders by label, or nothing if they are not folders of texts, or just one."""
    classes: Classes = {}
    for folder in folders:
        if folder.name.lower() in _UNLABELLED:
            continue
        files = [path for path in visible(folder) if split_name(path.name)[1:] in ((".txt", ""), ("", ""))]
        files = [path for path in files if path.is_file()]
        if files:
            classes[folder.name] = files
    return classes if len(classes) > 1 else {}
