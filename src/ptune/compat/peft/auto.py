"""`AutoPeftModelForSequenceClassification`: load an adapter together with the model that it names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ptune.adapter.folder import read_adapter
from ptune.compat.peft.config import PeftConfig
from ptune.compat.peft.model import PeftModel
from ptune.compat.peft.saving import DEFAULT, adapter_place
from ptune.errors import AdapterError, ConfigError
from ptune.model.locate import locate


class AutoPeftModelForSequenceClassification:
    """Load adapters with `from_pretrained`. The result is a `PeftModel`."""

    def __init__(self, *_: Any, **__: Any) -> None:
        raise ConfigError(
            "AutoPeftModelForSequenceClassification cannot be instantiated directly; use "
            "AutoPeftModelForSequenceClassification.from_pretrained(folder)"
        )

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        adapter_name: str = DEFAULT,
        is_trainable: bool = False,
        config: PeftConfig | None = None,  # noqa: ARG003
        revision: str | None = None,
        **options: Any,
    ) -> PeftModel:
        """Load the model that an adapter names, and the adapter onto it.

        Unlike in PEFT, `num_labels` and the label names need not be given: they come from the adapter.

        Args:
            pretrained_model_name_or_path: a folder that ptune or PEFT saved, or a Hub id.
            adapter_name: the adapter's name.
            is_trainable: see `PeftModel.load_adapter`.
            config: has no effect; the adapter's own configuration is read.
            revision: the adapter's revision on the Hub.
            options: `subfolder` of the adapter; all others go to transformers' `from_pretrained` of the model.

        Raises:
            AdapterError: the adapter is missing, damaged, for another model, or does not name its model.
            BackboneError: the model cannot be loaded.
        """
        from transformers import AutoModelForSequenceClassification

        subfolder = options.pop("subfolder", None)
        file = read_adapter(adapter_place(pretrained_model_name_or_path, subfolder, revision))
        note, labels = file.record.backbone, file.record.labels
        if not note.name:
            raise AdapterError(
                f"adapter '{pretrained_model_name_or_path}' does not say which model it was trained on; load the model "
                "yourself, and use PeftModel.from_pretrained(model, folder)"
            )
        location = locate(note.name, note.revision).pinned()
        settings: dict[str, Any] = {"num_labels": file.record.classes, "problem_type": file.record.problem_type}
        if labels is not None:
            settings |= {"id2label": dict(enumerate(labels)), "label2id": {name: i for i, name in enumerate(labels)}}
        if file.record.weights_sha256 is None:
            del settings["problem_type"]  # PEFT does not record it: the model's own counts
        try:
            model = AutoModelForSequenceClassification.from_pretrained(
                location.path, **{"ignore_mismatched_sizes": True, **settings, **location.load_options(), **options}
            )
        except (OSError, ValueError) as err:
            raise location.failure(err) from err
        return PeftModel.from_pretrained(model, file.folder, adapter_name, is_trainable)
