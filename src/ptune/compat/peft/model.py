"""`get_peft_model` and the model that it returns."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

from ptune.adapter.folder import read_adapter
from ptune.adapter.peft_format import to_peft
from ptune.adapter.peft_task import labels_from
from ptune.adapter.push import push
from ptune.compat.peft.base import check_options, let_learn, make_backbone, problem_type_of, text_first
from ptune.compat.peft.config import PeftConfig, PeftType, PromptTuningConfig, from_content, peft_content
from ptune.compat.peft.saving import DEFAULT, adapter_place, load_classifier, save_adapters
from ptune.data.targets import MULTI, SINGLE
from ptune.errors import BackboneError, ConfigError
from ptune.hub import MESSAGE
from ptune.model.backbone import Backbone
from ptune.model.classifier import PromptClassifier
from ptune.model.locate import Location
from ptune.model.room import text_room
from ptune.model.tokenizer import load_tokenizer
from ptune.places import as_place

# Methods of PEFT's models that have no meaning for prompts, or another name, with what to do instead.
_INSTEAD = {
    "merge_and_unload": "a prompt cannot be merged into the weights of a model; keep the adapter beside it",
    "merge_adapter": "a prompt cannot be merged into the weights of a model; keep the adapter beside it",
    "unload": "use get_base_model(), which is the model without its adapters",
    "add_weighted_adapter": "prompts cannot be added up; an ensemble of ptune averages their answers",
    "get_prompt": "use get_peft_model_state_dict(model)['prompt_embeddings'], which is the folded prompt",
    "create_or_update_model_card": "push_to_hub writes a model card",
    "prompt_encoder": "use adapter(name).prompt_encoder",
}

# Options that the methods of the same names have in PEFT and transformers. Most of them have no effect here.
_LOAD_OPTIONS = ("subfolder", "revision", "config", "torch_device", "autocast_adapter_dtype", "low_cpu_mem_usage")
_MAKE_OPTIONS = ("mixed", "revision", "autocast_adapter_dtype", "low_cpu_mem_usage")
_PUSH_OPTIONS = ("private", "token", "revision")
_SAVE_OPTIONS = ("state_dict", "push_to_hub", "save_embedding_layers", "max_shard_size", "save_function", "variant")


class PeftModel(PreTrainedModel):  # type: ignore[misc]
    """A frozen transformers classifier with named adapters, one of which is active.

    It is a PreTrainedModel because transformers' Trainer calls `save_pretrained` only on such models. A checkpoint then
    holds both the files that PEFT reads and the state from which training resumes.

    Args:
        model: from AutoModelForSequenceClassification. It gets frozen.
        peft_config: configuration of the first adapter. None: adapters are added later.
        adapter_name: name of the first adapter.

    Raises:
        ConfigError: ptune does not support a setting. The message says what to use instead.
        BackboneError: ptune does not support the model's family.
    """

    backbone: Backbone

    def __init__(self, model: Any, peft_config: PeftConfig | None = None, adapter_name: str = DEFAULT) -> None:
        if isinstance(model, PeftModel):
            raise ConfigError("the model is already a PeftModel; give it another adapter with add_adapter")
        backbone = make_backbone(model)
        super().__init__(model.config)
        # Not registered as submodules: the adapters hold the backbone, and the old head belongs to no state.
        object.__setattr__(self, "_wrapped", model)
        object.__setattr__(self, "backbone", backbone)
        self.adapters = nn.ModuleDict()
        self.peft_config: dict[str, PeftConfig] = {}
        self.active_adapter = adapter_name
        self._disabled = False
        if peft_config is not None:
            self.add_adapter(adapter_name, peft_config)
            self.set_adapter(adapter_name, inference_mode=peft_config.inference_mode)

    def __getattr__(self, name: str) -> Any:
        if name in _INSTEAD:
            raise AttributeError(f"a PeftModel of ptune.compat.peft has no {name}: {_INSTEAD[name]}")
        return super().__getattr__(name)

    @classmethod
    def from_pretrained(
        cls, model: Any, model_id: str | Path, adapter_name: str = DEFAULT, is_trainable: bool = False, **options: Any
    ) -> PeftModel:
        """Load an adapter that ptune or PEFT saved onto a transformers classifier; see `load_adapter`."""
        peft_model = cls(model, adapter_name=adapter_name)
        peft_model.load_adapter(model_id, adapter_name, is_trainable, **options)
        peft_model.set_adapter(adapter_name, inference_mode=not is_trainable)
        return peft_model.train(is_trainable)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,
        return_dict: bool | None = None,
        num_items_in_batch: Tensor | int | None = None,
        **options: Any,
    ) -> SequenceClassifierOutput | tuple[Tensor, ...]:
        """Compute the logits of the active adapter, and the loss if there are labels; see `PromptClassifier.forward`.

        Padding may be on either side.

        Raises:
            ConfigError: an input is not supported, or input_ids is missing.
            DataError: a text has more tokens than there is room for.
        """
        unsupported = sorted(name for name, value in options.items() if value is not None and value is not False)
        if unsupported or input_ids is None:
            raise ConfigError(
                f"{', '.join(unsupported) or 'no input_ids'} given; a prompted model takes input_ids, attention_mask, "
                "token_type_ids and labels"
            )
        if self._disabled:
            inputs = {"token_type_ids": token_type_ids} if self.backbone.family.token_types else {}
            return self.get_base_model()(
                input_ids, attention_mask=attention_mask, labels=labels, return_dict=return_dict, **inputs
            )
        active = self.adapter(self.active_adapter)
        if labels is not None and labels.is_floating_point() and self.config.problem_type is None:
            active.problem_type = MULTI if active.problem_type == SINGLE else active.problem_type
        limited = active.backbone.max_positions is not None
        room = text_room(active.config, active.backbone) if limited else None
        texts = text_first(input_ids, attention_mask, token_type_ids, active.config, room)
        output = active(*texts, labels=labels, num_items_in_batch=num_items_in_batch)
        return output.to_tuple() if return_dict is False else output

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> PeftModel:
        """Move the adapters and, for `disable_adapter`, the original head, which is no submodule."""
        for module in self._wrapped.children():
            if module is not self._wrapped.base_model:
                module._apply(fn)
        return super()._apply(fn, recurse)  # type: ignore[no-any-return]

    @property
    def accepts_loss_kwargs(self) -> bool:
        """True if transformers' Trainer should pass `num_items_in_batch`; see `PromptClassifier`."""
        return self.adapter(self.active_adapter).accepts_loss_kwargs

    def adapter(self, name: str) -> PromptClassifier:
        """Return the classifier of an adapter.

        Raises:
            ConfigError: there is no adapter of that name.
        """
        if name not in self.adapters:
            known = ", ".join(self.adapters) or "none"
            raise ConfigError(f"there is no adapter '{name}'; there are: {known}")
        return self.adapters[name]  # type: ignore[return-value]

    def add_adapter(self, adapter_name: str, peft_config: PeftConfig) -> None:
        """Add a new adapter that starts with a copy of the classifier's head. `set_adapter` makes it active.

        Raises:
            ConfigError: the name is taken, or ptune does not support a setting.
            BackboneError: the model has a pooler, and its checkpoint has no weights for it.
        """
        if not isinstance(peft_config, PeftConfig):
            raise ConfigError(
                f"the configuration is a {type(peft_config).__module__}.{type(peft_config).__name__}; give a "
                "PromptEncoderConfig, PrefixTuningConfig or PromptTuningConfig of ptune.compat.peft"
            )
        self._check_name(adapter_name)
        if self.backbone.pooler_missing:
            raise BackboneError(
                f"the checkpoint of model '{self.backbone.name}' has no weights for its pooler. transformers drew them "
                "at random, and they are others when the model is read again; write it with model.save_pretrained and "
                "load it from there, or use ptune.train, which can do without a pooler"
            )
        tokenizer = None
        if isinstance(peft_config, PromptTuningConfig) and peft_config.tokenizer_name_or_path is not None:
            tokenizer = load_tokenizer(Location(*[str(peft_config.tokenizer_name_or_path)] * 2))
        labels = labels_from(self.backbone.config, self.config.num_labels)
        classifier = PromptClassifier(
            self.backbone,
            peft_config.to_prompt(self.backbone),
            labels,
            tokenizer,
            seed=None,  # uses torch's global generator, so that a seed gives the same start as in PEFT
            problem_type=problem_type_of(self.config),
        )
        for name, value in to_peft(classifier.config, self.backbone).items():
            if getattr(peft_config, name, value) is None:
                setattr(peft_config, name, value)
        self._add(adapter_name, classifier, peft_config)

    def load_adapter(
        self, model_id: str | Path, adapter_name: str = DEFAULT, is_trainable: bool = False, **options: Any
    ) -> None:
        """Load an adapter. An adapter of the same name is replaced.

        With `is_trainable`, the adapter can be trained further. A Trainer's checkpoint brings its prompt encoder back;
        from any other folder the prompt itself is trained, without an encoder.

        Args:
            model_id: folder that ptune or PEFT saved.
            options: `subfolder` names a folder inside `model_id`, `revision` the revision of a Hub id. Other options
                of PEFT have no effect.

        Raises:
            AdapterError: the adapter is missing, damaged, or for another model.
            ConfigError: an option is unknown.
        """
        check_options("load_adapter", options, _LOAD_OPTIONS)
        if adapter_name not in self.adapters:
            self._check_name(adapter_name)
        file = read_adapter(adapter_place(model_id, options.get("subfolder"), options.get("revision")))
        problem_type = problem_type_of(self.config)
        classifier = load_classifier(file, self.backbone, self.config.num_labels, problem_type, is_trainable)
        content = peft_content(file) if file.peft else to_peft(file.record.prompt, self.backbone)
        self._add(adapter_name, classifier, from_content({**content, "inference_mode": not is_trainable}))
        if is_trainable or adapter_name == self.active_adapter:
            let_learn(classifier, is_trainable)

    def _check_name(self, name: str) -> None:
        if name in self.adapters or not name or "." in name or "/" in name:
            reason = "is taken" if name in self.adapters else "cannot be used, because it becomes a folder's name"
            raise ConfigError(f"the adapter name {name!r} {reason}; choose another")

    def _add(self, name: str, classifier: PromptClassifier, peft_config: PeftConfig) -> None:
        let_learn(classifier, False)
        self.adapters[name] = classifier.train(self.training)
        self.peft_config[name] = peft_config

    def set_adapter(self, adapter_name: str, inference_mode: bool = False) -> None:
        """Make an adapter the active and only trainable one. With `inference_mode`, no adapter is trainable.

        Raises:
            ConfigError: there is no adapter of that name.
        """
        self.adapter(adapter_name)
        self.active_adapter = adapter_name
        for name in self.adapters:
            let_learn(self.adapter(name), name == adapter_name and not inference_mode)

    def delete_adapter(self, adapter_name: str) -> None:
        """Remove an adapter. If it was active, the first remaining adapter becomes active.

        Raises:
            ConfigError: there is no adapter of that name, or it is the only one.
        """
        self.adapter(adapter_name)
        if len(self.adapters) == 1:
            raise ConfigError(f"adapter '{adapter_name}' is the only one; use get_base_model() for the plain model")
        del self.adapters[adapter_name], self.peft_config[adapter_name]
        if self.active_adapter == adapter_name:
            self.set_adapter(next(iter(self.adapters)))

    @property
    def active_adapters(self) -> list[str]:
        """Return the name of the active adapter in a list. There is never more than one."""
        return [self.active_adapter]

    @property
    def active_peft_config(self) -> PeftConfig:
        return self.peft_config[self.active_adapter]

    @property
    def peft_type(self) -> PeftType | None:
        peft_type = self.active_peft_config.peft_type
        return None if peft_type is None else PeftType(peft_type)

    def gradient_checkpointing_enable(self, *_: Any, **__: Any) -> None:
        """Refuse, because only ptune's own training loop recomputes layers.

        Raises:
            ConfigError: always; the message says what to use instead.
        """
        raise ConfigError(
            "this model has no gradient checkpointing; use ptune.train with ptune.TrainConfig("
            "gradient_checkpointing=True), or smaller batches"
        )

    @contextmanager
    def disable_adapter(self) -> Iterator[None]:
        """Use the original classifier, with its own head and without any prompt, inside the `with` block."""
        before, self._disabled = self._disabled, True
        try:
            yield
        finally:
            self._disabled = before

    def get_base_model(self) -> Any:
        """Return the original classifier with its own head."""
        return self._wrapped.to(self.device)

    @property
    def base_model(self) -> Any:
        return self.get_base_model()

    def get_input_embeddings(self) -> nn.Embedding:
        return self.backbone.word_embeddings

    def save_pretrained(
        self,
        save_directory: str | Path,
        safe_serialization: bool = True,
        selected_adapters: list[str] | None = None,
        is_main_process: bool = True,
        **options: Any,
    ) -> None:
        """Write adapters with folded prompts, in files that PEFT reads.

        The adapter `default` goes into the folder itself, all others go into subfolders of their names. If a
        `state_dict` is passed, as transformers' Trainer does, `model.safetensors` is written as well. It holds the
        prompt encoders, and the Trainer uses it to resume and to restore the best model.

        Raises:
            ConfigError: a pickle is asked for, or an adapter or option is unknown.
            OutputError: the folder cannot be written.
        """
        check_options("save_pretrained", options, _SAVE_OPTIONS)
        if not safe_serialization:
            raise ConfigError(
                "`safe_serialization` is False, but ptune writes no pickles; leave it out",
                field="safe_serialization",
                value=safe_serialization,
                expected="True",
            )
        if options.get("push_to_hub"):
            raise ConfigError("save_pretrained does not push; use push_to_hub(repo_id)")
        if is_main_process:
            names = list(self.adapters) if selected_adapters is None else selected_adapters
            state = self.state_dict() if "state_dict" in options else None
            save_adapters({name: self.adapter(name) for name in names}, as_place(save_directory), state)

    def push_to_hub(self, repo_id: str, *, commit_message: str = MESSAGE, **options: Any) -> str:
        """Publish the active adapter on the Hub, with a model card, in one commit.

        Args:
            options: `private`, `token` and `revision`; see `ptune.adapter.push.push`.

        Raises:
            ConfigError: an option is unknown.
            HubError: the name is invalid, or permission or a network connection is missing.
        """
        check_options("push_to_hub", options, _PUSH_OPTIONS)
        with TemporaryDirectory() as folder:
            save_adapters({self.active_adapter: self.adapter(self.active_adapter)}, Path(folder))
            adapter_folder = Path(folder) if self.active_adapter == DEFAULT else Path(folder) / self.active_adapter
            return push(adapter_folder, repo_id, message=commit_message, **options)

    def get_nb_trainable_parameters(self) -> tuple[int, int]:
        """Return the numbers of trainable and of all parameters: those of the backbone and of all adapters."""
        trained = sum(p.numel() for p in self.parameters() if p.requires_grad)
        return trained, sum(p.numel() for p in self.parameters())

    def print_trainable_parameters(self) -> None:
        """Print both numbers and their ratio, in PEFT's format."""
        trained, total = self.get_nb_trainable_parameters()
        share = 100 * trained / total
        print(f"trainable params: {trained:,d} || all params: {total:,d} || trainable%: {share:.4f}")  # noqa: T201


PeftModelForSequenceClassification = PeftModel


def get_peft_model(model: Any, peft_config: PeftConfig, adapter_name: str = DEFAULT, **options: Any) -> PeftModel:
    """Freeze a transformers classifier and add a new prompt to it.

    Args:
        model: from AutoModelForSequenceClassification.
        peft_config: a PromptEncoderConfig, PrefixTuningConfig or PromptTuningConfig.
        adapter_name: name of the new adapter.
        options: `revision` is recorded as that of the model. Other options of PEFT have no effect.

    Raises:
        ConfigError: ptune does not support a setting. The message says what to use instead.
        BackboneError: ptune does not support the model's family.
    """
    check_options("get_peft_model", options, _MAKE_OPTIONS)
    if options.get("mixed"):
        raise ConfigError(
            "`mixed` is True, but ptune has no adapters of different kinds in one pass; leave it out, and choose one "
            "with set_adapter",
            field="mixed",
            value=True,
            expected="False",
        )
    if options.get("revision") is not None and isinstance(peft_config, PeftConfig):
        peft_config.revision = options["revision"]
    return PeftModel(model, peft_config, adapter_name)
