"""Write an adapter's files to another folder: all of them, or those that PEFT reads."""

from __future__ import annotations

from ptune.adapter.card import CARD_FILE, write_peft_notes
from ptune.adapter.folder import AdapterFile
from ptune.adapter.layout import ADAPTER_FILES, PEFT_FILE, RECORD_FILE, WEIGHTS_FILE
from ptune.adapter.peft_reasons import describe_reasons, not_carried, why_not_peft
from ptune.atomic import write_files
from ptune.errors import AdapterError
from ptune.places import Place


def copy_adapter(file: AdapterFile, folder: Place) -> None:
    """Write an adapter's files to a folder, without checkpoints and logs. Files of an older adapter there go.

    Raises:
        OutputError: the folder cannot be written.
    """
    paths = {name: file.folder / name for name in ADAPTER_FILES}
    contents = {name: path.read_bytes() for name, path in paths.items() if path.is_file()}
    write_files(folder, contents, remove=[name for name in ADAPTER_FILES if name not in contents])


def export_to_peft(file: AdapterFile, folder: Place) -> list[str]:
    """Write the two files that PEFT reads, and a README with the labels and lines that load them, if there is none.

    Returns:
        A sentence for each thing that they cannot carry.

    Raises:
        AdapterError: PEFT cannot load the adapter. The message says why, and which settings would do.
        OutputError: the folder cannot be written.
    """
    if not file.peft:
        raise AdapterError(f"PEFT cannot load adapter '{file.folder}': {describe_reasons(why_not_peft(file))}")
    contents = {name: (file.folder / name).read_bytes() for name in (WEIGHTS_FILE, PEFT_FILE)}
    if not (folder / CARD_FILE).exists():
        contents[CARD_FILE] = write_peft_notes(file, folder.name).encode()
    write_files(folder, contents, remove=[RECORD_FILE])
    return not_carried(file)
