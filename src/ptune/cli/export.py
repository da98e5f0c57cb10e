"""ptune export"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from ptune.cli.options import Adapter, Json, Labels, Place, ProblemOfPeft, Target
from ptune.cli.peft_task import read_with_task
from ptune.cli.spelling import option
from ptune.cli.terminal import Terminal
from ptune.errors import ConfigError
from ptune.places import as_place

if TYPE_CHECKING:
    from ptune.adapter.folder import AdapterFile

Format = Literal["ptune", "peft", "onnx", "openvino", "torch"]


def export(
    adapter: Adapter,
    /,
    output: Annotated[Target, Parameter(help="Folder to write, or a URL such as s3://...")],
    *,
    to: Format = "ptune",
    int8: Annotated[bool, Parameter(negative=())] = False,
    backbone: Place | None = None,
    labels: Labels = None,
    problem_type: ProblemOfPeft = None,
    overwrite: Annotated[bool, Parameter(negative=())] = False,
    json: Json = False,
) -> None:
    """Write an adapter for ptune, for PEFT, or as one model for another runtime.

    --to onnx, openvino and torch write a whole classifier: the backbone, the prompt, the head and the temperature in
    one graph, with its tokenizer and a README.md that has the lines to run it. It needs neither ptune nor transformers,
    and only for --to torch PyTorch. Before anything is written, its logits are compared with the adapter's: in float32
    they agree to 1e-4. Needs pip install 'ptune[onnx]' or 'ptune[openvino]'.

    --to peft writes the two files that PEFT reads, and lists what they cannot carry. An adapter that PEFT cannot load
    is refused: the reason and the options to train with are named.

    --to ptune copies the adapter. The output folder of transformers' Trainer, or one of its checkpoints, becomes an
    adapter of ptune. With --labels, an adapter that has no names for its labels gets them.

    Examples:
      ptune export reviews reviews-onnx --to onnx
      ptune export reviews --to openvino --int8 --output reviews-int8
      ptune export reviews for-peft --to peft
      ptune export trainer-output reviews
      ptune export from-peft reviews --labels negative,positive
      ptune export reviews s3://bucket/adapters/reviews

    Parameters
    ----------
    to
        Format to write.
    int8
        Store the weights of linear layers in 8 bits (onnx and openvino). Some answers may differ from the adapter's;
        their number is printed.
    backbone
        The backbone. Default: the one that the adapter names.
    overwrite
        Replace an adapter or an exported model that is in the output folder already.
    """
    terminal = Terminal(json)
    output = as_place(output)
    if to == "ptune" or to == "peft":
        if int8:
            raise ConfigError(
                f"{option('int8')} is for an export to another runtime; leave it out, or give `to='onnx'`",
                field="int8",
                value=int8,
            )
        if to == "peft" and (labels or problem_type):
            name = "labels" if labels else "problem_type"
            raise ConfigError(
                f"PEFT's files hold neither labels nor problem type; leave {option(name)} out", field=name
            )
        file = read_with_task(adapter, backbone, labels, problem_type)
        _export_adapter(terminal, adapter, file, output, to, backbone, overwrite, named=bool(labels or problem_type))
        return
    if not isinstance(output, Path):
        raise ConfigError(
            f"`to='{to}'` writes to a folder on disk, because the model is tried there before it gets its name; export "
            f"to a folder, and copy that to '{output}'",
            field="output",
            value=str(output),
        )
    from ptune.export.write import check_export, export_model
    from ptune.inference.classifier import load

    check_export(output, to, int8, overwrite)
    file = read_with_task(adapter, backbone, labels, problem_type)
    classifier = load(file, backbone, device="cpu", dtype="float32")
    done = export_model(classifier, output, to, int8=int8, overwrite=overwrite)
    terminal.say(f"exported to {output}: {', '.join(done.files)}")
    terminal.say(f"check: {done.check.sentence(int8)}")
    terminal.say(f"to run it: {output / 'README.md'}")
    terminal.answer(
        {
            "output": str(output),
            "to": to,
            "int8": int8,
            "files": list(done.files),
            "inputs": list(done.input_names),
            "check": {**vars(done.check)},
        }
    )


def _export_adapter(
    terminal: Terminal,
    adapter: str,
    file: AdapterFile,
    output: Target,
    to: str,
    backbone: str | None,
    overwrite: bool,
    named: bool,
) -> None:
    """Write an adapter as an adapter, for ptune or for PEFT. `named`: with labels or a problem type from options."""
    from ptune.adapter.export import copy_adapter, export_to_peft
    from ptune.adapter.folder import save_adapter
    from ptune.adapter.target import check_target
    from ptune.inference.classifier import load

    lost: list[str] = []
    if output.resolve() == file.folder.resolve():
        raise ConfigError(
            f"'{output}' is the folder of the adapter itself; give another folder", field="output", value=str(output)
        )
    check_target(output, overwrite, backbone or file.record.backbone.name)
    if file.facts is not None and to == "peft":
        raise ConfigError(
            f"'{adapter}' holds the state of a model that transformers' Trainer saved; make it an adapter first: "
            f"ptune export {adapter} OUTPUT",
            field="to",
            value=to,
            expected="ptune",
        )
    if to == "peft":
        lost = export_to_peft(file, output)
    elif file.facts is not None or named:
        classifier = load(file, backbone, device="cpu")
        if file.record.training:  # a run of ptune, whose metrics and settings stay true under other names of labels
            save_adapter(output, classifier.model, file.record)
        else:
            classifier.save(output)
    else:
        copy_adapter(file, output)
    terminal.say(f"exported to {output}")
    for sentence in lost:
        terminal.say(f"not carried: {sentence}")
    terminal.answer({"output": str(output), "to": to, "not_carried": lost})
