"""The backbones of a server, and which of them an adapter belongs to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from ptune.adapter.folder import AdapterFile
from ptune.backends.openvino.backbone import named_backbone
from ptune.errors import AdapterError, ConfigError
from ptune.model.backbone import Backbone
from ptune.model.config import Precision
from ptune.model.tokenizer import tokenizer_of


class Backbones:
    """The backbones that adapters are served with.

    Args:
        backbones: one or several, the first of which takes adapters that name none.
    """

    def __init__(self, backbones: Sequence[Backbone]) -> None:
        self.all = list(backbones)
        # An adapter that is loaded finds its tokenizer here, also where no other adapter is in memory.
        self._tokenizers = [tokenizer_of(backbone) for backbone in self.all]

    def of(self, file: AdapterFile) -> Backbone:
        """Return the backbone of an adapter.

        An adapter knows its backbone by the name and by some of its weights. Weights count more, because a folder may
        have been moved. If several backbones have these weights, the name decides.

        Raises:
            AdapterError: none of them is the adapter's, or it may be one or another.
        """
        note = file.record.backbone
        alike = [backbone for backbone in self.all if note.fingerprint and note.has_weights_of(backbone)]
        named = [backbone for backbone in self.all if note.name in (backbone.location.reference, backbone.name)]
        both = [backbone for backbone in alike if backbone in named]
        if both or len(alike) == 1:
            return (both or alike)[0]
        if alike:
            names = ", ".join(f"'{backbone.name}'" for backbone in alike)
            raise AdapterError(
                f"adapter '{file.folder}' was trained on backbone '{note.name}', which may be any of {names}; name "
                "that backbone as in training"
            )
        if named:
            return named[0]
        if note.fingerprint is None and (note.name is None or len(self.all) == 1):
            return self.all[0]
        names = ", ".join(f"'{backbone.name}'" for backbone in self.all)
        raise AdapterError(
            f"adapter '{file.folder}' was trained on backbone '{note.name}', but the server has {names}; name its "
            f"backbone too, with another `backbone`"
        )


def load_backbones(
    names: Sequence[str],
    files: Sequence[AdapterFile],
    dtype: str = "auto",
    device: str = "auto",
    precision: Precision | None = None,
    quantize: str | None = None,
) -> Backbones:
    """Load the backbones of a server.

    Args:
        names: of the backbones. Empty: the one that most of the adapters name.
        files: the adapters.
        dtype, device, quantize: see `load_backbone`.
        precision: run them with OpenVINO; see `ptune.inference.classifier.load`.

    Raises:
        ConfigError: no adapter names a backbone, and none is given.
        BackboneError: one cannot be loaded.
    """
    wanted: list[tuple[str, str | None]] = [(name, None) for name in names]
    if not wanted:
        noted = Counter((file.record.backbone.name, file.record.backbone.revision) for file in files)
        known = [(name, revision) for (name, revision), _ in noted.most_common() if name]
        if not known:
            raise ConfigError("no adapter says which backbone it was trained on; give it with `backbone`")
        wanted = known[:1]
    return Backbones([named_backbone(name, revision, dtype, device, precision, quantize) for name, revision in wanted])
