"""Save and load the adapters of a `PeftModel`.

An adapter's folder is an ordinary adapter of ptune: PEFT's two files and the
record. A checkpoint of transformers' Trainer also has `model.safetensors` with
the state of all adapters: heads, and the prompt encoders that PEFT's files lack.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from ptune.adapter.build import build_classifier
from ptune.adapter.folder import AdapterFile, save_adapter
from ptune.adapter.layout import STATE_FILE, Record
from ptune.adapter.reading import check_file_size
from ptune.atomic import write_files
from ptune.data.targets import ProblemType
from ptune.errors import AdapterError
from ptune.model import extra_state
from ptune.model.backbone import Backbone
from ptune.model.classifier import PromptClassifier
from ptune.places import Place, as_place, is_url

DEFAULT = "default"


def save_adapters(
    adapters: Mapping[str, PromptClassifier], folder: Place, state: Mapping[str, Tensor] | None = None
) -> None:
    """Write adapters: `default` into the folder itself, all others into subfolders of their names.

    Args:
        adapters: by name.
        state: state dict from which training resumes. None: no such file is written.

    Raises:
        ConfigError: the folder is that of the backbone.
        OutputError: a file cannot be written.
    """
    from safetensors.torch import save

    for name, classifier in adapters.items():
        save_adapter(folder if name == DEFAULT else folder / name, classifier, Record.of(classifier))
    if state is not None:
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
        write_files(folder, {STATE_FILE: save(tensors, metadata={"format": "pt"})})


def adapter_place(model_id: str | Path, subfolder: str | None, revision: str | None) -> str | Place:
    """Return what `read_adapter` takes, for PEFT's way to say where an adapter is.

    Args:
        model_id: a folder or a Hub id.
        subfolder: a folder inside it.
        revision: of a Hub id. A folder has none, and it is ignored, as in PEFT.
    """
    if subfolder:
        return as_place(model_id) / subfolder
    return f"{model_id}@{revision}" if revision and not (is_url(model_id) or Path(model_id).is_dir()) else model_id


def load_classifier(
    file: AdapterFile, backbone: Backbone, classes: int, problem_type: ProblemType, is_trainable: bool
) -> PromptClassifier:
    """Build a classifier from an adapter.

    If it is going to be trained and the folder is a Trainer's checkpoint, the classifier has its prompt encoder again.
    Otherwise it has the prompt itself, without an encoder.

    Args:
        classes: number of classes of the model that the adapter is loaded onto.
        problem_type: used for PEFT's adapters, which do not record it.

    Raises:
        AdapterError: the adapter does not fit the model, or is damaged.
    """
    if file.record.classes != classes:
        raise AdapterError(
            f"adapter '{file.folder}' has {file.record.classes} classes, but the model was loaded with "
            f"num_labels={classes}; load the model with num_labels={file.record.classes}"
        )
    classifier = build_classifier(file, backbone)
    if not isinstance(classifier, PromptClassifier):
        raise AdapterError(f"adapter '{file.folder}' is an ensemble of {file.record.members}; use ptune.load")
    if file.record.weights_sha256 is None:  # PEFT wrote it, and PEFT does not record the problem type
        classifier.problem_type = problem_type
    if is_trainable and (file.folder / STATE_FILE).is_file():
        return _with_encoder(file, classifier)
    return classifier


def _with_encoder(file: AdapterFile, folded: PromptClassifier) -> PromptClassifier:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = file.folder / STATE_FILE
    config = file.record.prompt.model_copy(update={"init": "normal", "init_text": None})
    classifier = PromptClassifier(folded.backbone, config, folded.labels, problem_type=folded.problem_type)
    try:
        prefix = f"adapters.{DEFAULT}."
        check_file_size(path, path.stat().st_size)
        state = {name.removeprefix(prefix): x for name, x in load_file(path).items() if name.startswith(prefix)}
        state.pop(extra_state.KEY, None)
        classifier.load_trainable_state(state)
    except (SafetensorError, OSError, ValueError, RuntimeError) as err:
        raise AdapterError(
            f"training cannot resume from {path} ({err}); remove that file to train the prompt itself"
        ) from err
    return classifier
