"""ptune export"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from ptune.cli.options import Adapter, Json, Place
from ptune.cli.terminal import Terminal


def export(
    adapter: Adapter,
    output: Annotated[Path, Parameter(help="Folder to write.")],
    /,
    *,
    to: Literal["ptune", "peft"] = "ptune",
    backbone: Place | None = None,
    overwrite: Annotated[bool, Parameter(negative=())] = False,
    json: Json = False,
) -> None:
    """Write an adapter to another folder, for ptune or for PEFT.

    For PEFT, the two files that PEFT reads are written, and what they cannot carry is listed. An adapter that PEFT
    cannot load is refused: the reason and the options to train with are named.

    The output folder of transformers' Trainer, or one of its checkpoints, becomes an adapter of ptune.

    Examples:
      ptune export reviews for-peft --to peft
      ptune export trainer-output reviews

    Parameters
    ----------
    to
        Who is to read the files.
    backbone
        The backbone, for an output folder of the Trainer. Default: the one that it names.
    overwrite
        Replace an adapter that is in the output folder already.
    """
    from ptune.adapter.export import copy_adapter, export_to_peft
    from ptune.adapter.folder import read_adapter
    from ptune.adapter.target import check_target
    from ptune.errors import ConfigError
    from ptune.inference.classifier import load

    terminal = Terminal(json)
    file, lost = read_adapter(adapter), []
    if output.expanduser().resolve() == file.folder.resolve():
        raise ConfigError(
            f"'{output}' is the folder of the adapter itself; give another folder", field="output", value=str(output)
        )
    check_target(output.expanduser(), overwrite, backbone or file.record.backbone.name)
    if file.facts is not None and to == "peft":
        raise ConfigError(
            f"'{adapter}' holds the state of a model that transformers' Trainer saved; make it an adapter first: "
            f"ptune export {adapter} OUTPUT",
            field="to",
            value=to,
            expected="ptune",
        )
    if to == "peft":
        lost = export_to_peft(file, output.expanduser())
    elif file.facts is not None:
        load(file, backbone, device="cpu").save(output)
    else:
        copy_adapter(file, output.expanduser())
    terminal.say(f"exported to {output}")
    for sentence in lost:
        terminal.say(f"not carried: {sentence}")
    terminal.answer({"output": str(output), "to": to, "not_carried": lost})
