"""transformers' callbacks along a run: early stopping, and reports to TensorBoard, W&B, MLflow and Trackio.

A callback is told what transformers' Trainer would tell it, with a TrainerState
and TrainingArguments that describe the run: on_train_begin, on_epoch_begin,
on_step_begin, on_step_end, on_log (every 10 steps the mean training loss, every
epoch the metrics as eval_*), on_epoch_end, on_evaluate, on_save, on_train_end.
On a GPU several steps are told at once, when their losses are read.

Of what it may ask for, `should_training_stop` is obeyed: the epoch ends there,
is evaluated, and was the last. Evaluating and saving follow the run's own plan.

Several seeds are one run: the training loss is their mean, the metrics are of
what would be kept, with those of each seed beside them as eval_METRIC_seed_N.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

from ptune.data.metric_table import less_is_better
from ptune.errors import ConfigError
from ptune.training.events import Events, RunInfo

if TYPE_CHECKING:
    from transformers import TrainingArguments

    from ptune.training.checkpoint import Progress

LOG_STEPS = 10
Report = Literal["tensorboard", "wandb", "mlflow", "trackio", "none"]
# What a line of the metrics file has beside metrics.
_NO_METRICS = ("epoch", "step", "train_loss", "best", "seconds", "by_seed")


def reporting_callbacks(report: Report) -> list[Any]:
    """transformers' callback for one of these, ready to be given to `train`.

    Raises:
        ConfigError: no such report, or its package is not installed; gives the command.
    """
    if report not in get_args(Report):
        raise ConfigError(f"report '{report}' is unknown; use one of {', '.join(get_args(Report))}")
    if report == "none":
        return []
    if importlib.util.find_spec(report) is None:
        package = "'ptune[tensorboard]'" if report == "tensorboard" else f"{report} accelerate"
        raise ConfigError(f"reports to {report} need a package that is not installed; pip install {package}")
    _need_accelerate()
    from transformers.integrations import get_reporting_integration_callbacks

    return [callback() for callback in get_reporting_integration_callbacks([report])]


def _need_accelerate() -> None:
    if importlib.util.find_spec("accelerate") is None:
        raise ConfigError("transformers' callbacks need a package that is not installed; pip install accelerate")


class TrainerCallbacks(Events):
    """What a run tells, to callbacks of transformers.

    Raises:
        ConfigError: they are no list, or something else than a TrainerCallback is among them.
    """

    def __init__(self, callbacks: Sequence[Any]) -> None:
        from transformers import DefaultFlowCallback, TrainerCallback, TrainerControl
        from transformers.trainer_callback import CallbackHandler

        if not isinstance(callbacks, list | tuple):
            raise ConfigError(f"callbacks is {callbacks!r}; give a list, such as [EarlyStoppingCallback(2)]")
        made = [callback() if isinstance(callback, type) else callback for callback in callbacks]
        for callback in made:
            if not isinstance(callback, TrainerCallback):
                raise ConfigError(f"{callback!r} is no callback; give objects of classes from TrainerCallback")
        _need_accelerate()
        self._handler = CallbackHandler([DefaultFlowCallback(), *made], None, None, None, None)
        self._control = TrainerControl()
        self._losses: list[float] = []

    @property
    def stop(self) -> bool:  # type: ignore[override]
        return bool(self._control.should_training_stop)

    def begin(self, info: RunInfo, progress: Progress) -> None:
        from transformers import TrainerState

        self._info = info
        self._args = _arguments(info)
        self._state = TrainerState(
            global_step=progress.step,
            max_steps=info.steps,
            num_train_epochs=info.config.epochs,
            logging_steps=LOG_STEPS,
            train_batch_size=info.config.batch_size,
        )
        if progress.best_metrics:
            self._note_best(progress.best_metrics)
        self._handler.model, self._handler.processing_class = info.model, info.encoder.tokenizer
        self._handler.optimizer = info.optimizer
        self._tell("on_train_begin")

    def begin_epoch(self) -> None:
        self._tell("on_epoch_begin")

    def end_step(self, progress: Progress, loss: float) -> None:
        self._losses.append(loss)
        self._tell("on_step_begin")
        self._state.global_step = progress.step
        self._state.epoch = progress.epoch - 1 + progress.rows / self._info.rows
        self._tell("on_step_end")
        if self._control.should_log:
            self._log_losses()

    def end_epoch(self, line: dict[str, Any]) -> None:
        self._tell("on_epoch_end")
        self._log_losses()
        values = {name: value for name, value in line.items() if name not in _NO_METRICS}
        metrics = {f"eval_{name}": value for name, value in values.items()}
        for seed, value in line.get("by_seed", {}).items():
            metrics[f"{self._args.metric_for_best_model}_seed_{seed}"] = value
        self._log(metrics)
        self._tell("on_evaluate", metrics=metrics)
        if line["best"]:  # afterwards, as callbacks compare with the best before
            self._note_best(values)

    def saved(self) -> None:
        self._tell("on_save")

    def end(self, progress: Progress) -> None:
        self._log({"train_runtime": round(progress.seconds, 3)})
        self._tell("on_train_end")

    def _note_best(self, metrics: dict[str, float]) -> None:
        self._state.best_metric = metrics[str(self._args.metric_for_best_model).removeprefix("eval_")]
        self._state.best_global_step = self._state.global_step
        self._state.best_model_checkpoint = str(self._info.folder)

    def _log_losses(self) -> None:
        if self._losses:
            rate = self._info.optimizer.param_groups[0]["lr"]
            self._log({"loss": sum(self._losses) / len(self._losses), "learning_rate": float(rate)})
            self._losses = []

    def _log(self, values: dict[str, float]) -> None:
        values = {**values, "epoch": self._state.epoch}
        self._state.log_history.append({**values, "step": self._state.global_step})
        self._tell("on_log", logs=values)

    def _tell(self, event: str, **values: Any) -> None:
        self._control = getattr(self._handler, event)(self._args, self._state, self._control, **values)


def _arguments(info: RunInfo) -> TrainingArguments:
    """The run's settings under transformers' names."""
    from transformers import TrainingArguments

    config = info.config
    return TrainingArguments(
        output_dir=str(info.folder),
        num_train_epochs=config.epochs,
        per_device_train_batch_size=config.batch_size,
        gradient_accumulation_steps=config.accumulate,
        learning_rate=config.lr,
        weight_decay=config.weight_decay,
        max_grad_norm=config.clip,
        seed=config.seed,
        logging_steps=LOG_STEPS,
        eval_strategy="epoch",
        save_strategy="epoch",
        load_best_model_at_end=True,
        metric_for_best_model=f"eval_{info.metric}",
        greater_is_better=not less_is_better(info.metric),
        report_to="none",
        disable_tqdm=True,
        use_cpu=info.model.backbone.device.type == "cpu",
    )
