"""Callbacks of transformers: early stopping, and reports to TensorBoard, W&B, MLflow and Trackio.

A callback receives the events that it would receive from transformers' Trainer,
with a TrainerState and TrainingArguments that describe the run: on_train_begin,
on_epoch_begin, on_step_begin, on_step_end, on_log, on_epoch_end, on_evaluate,
on_save and on_train_end. on_log reports the mean training loss every 10 steps,
and the metrics as eval_* after every epoch. On a GPU the events of several steps
are sent together, when their losses are read.

A callback may stop the run with `should_training_stop`: the epoch ends there, is
evaluated, and is the last one. All other requests in TrainerControl are ignored,
because the run has its own schedule for evaluating and saving.

A run over several seeds is reported as one run. The training loss is the mean
over the seeds. The metrics are those of the model that would be kept; the metric
of each seed is reported as eval_METRIC_seed_N.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

from ptune.data.metric_table import NOT_METRICS, less_is_better
from ptune.errors import ConfigError
from ptune.training.events import Events, RunInfo

if TYPE_CHECKING:
    from transformers import TrainingArguments

    from ptune.training.checkpoint import Progress

LOG_STEPS = 10
Report = Literal["tensorboard", "wandb", "mlflow", "trackio", "none"]


def reporting_callbacks(report: Report) -> list[Any]:
    """Return transformers' callbacks that send metrics to a service, ready to pass to `train`.

    Args:
        report: the service; 'none' gives an empty list.

    Raises:
        ConfigError: the report is unknown.
        ConfigError: its package is not installed; the message gives the command that installs it.
    """
    if report not in get_args(Report):
        expected = ", ".join(get_args(Report))
        raise ConfigError(
            f"report '{report}' is unknown; use one of {expected}", field="report", value=report, expected=expected
        )
    if report == "none":
        return []
    if importlib.util.find_spec(report) is None:
        package = "'ptune[tensorboard]'" if report == "tensorboard" else f"{report} accelerate"
        raise ConfigError(f"reports to {report} need a package that is not installed; run: pip install {package}")
    _check_accelerate()
    from transformers.integrations import get_reporting_integration_callbacks

    return [callback() for callback in get_reporting_integration_callbacks([report])]


def _check_accelerate() -> None:
    """Check that accelerate is installed, which transformers needs to create TrainingArguments."""
    if importlib.util.find_spec("accelerate") is None:
        raise ConfigError("transformers' callbacks need a package that is not installed; run: pip install accelerate")


class TrainerCallbacks(Events):
    """A listener that passes the events of a run on to transformers' callbacks.

    Args:
        callbacks: instances or subclasses of transformers.TrainerCallback.

    Raises:
        ConfigError: `callbacks` is not a list or tuple.
        ConfigError: one of them is not a TrainerCallback.
        ConfigError: accelerate is not installed.
    """

    def __init__(self, callbacks: Sequence[Any]) -> None:
        from transformers import DefaultFlowCallback, TrainerCallback, TrainerControl
        from transformers.trainer_callback import CallbackHandler

        if not isinstance(callbacks, list | tuple):
            raise ConfigError(
                f"`callbacks` is {callbacks!r}; give a list, such as [EarlyStoppingCallback(2)]",
                field="callbacks",
                value=callbacks,
                expected="a list of TrainerCallbacks",
            )
        instances = [callback() if isinstance(callback, type) else callback for callback in callbacks]
        for callback in instances:
            if not isinstance(callback, TrainerCallback):
                raise ConfigError(
                    f"{callback!r} in `callbacks` is not a callback; give instances or subclasses of "
                    "transformers.TrainerCallback",
                    field="callbacks",
                    value=callback,
                    expected="a TrainerCallback",
                )
        _check_accelerate()
        self._handler = CallbackHandler([DefaultFlowCallback(), *instances], None, None, None, None)
        self._control = TrainerControl()
        self._losses: list[float] = []

    @property
    def stop(self) -> bool:  # type: ignore[override]
        """True if a callback asked for the end of the run."""
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
            self._record_best(progress.best_metrics)
        self._handler.model, self._handler.processing_class = info.model, info.encoder.tokenizer
        self._handler.optimizer = info.optimizer
        self._send("on_train_begin")

    def begin_epoch(self) -> None:
        self._send("on_epoch_begin")

    def end_step(self, progress: Progress, loss: float) -> None:
        self._losses.append(loss)
        self._send("on_step_begin")
        self._state.global_step = progress.step
        self._state.epoch = progress.epoch - 1 + progress.rows / self._info.rows
        self._send("on_step_end")
        if self._control.should_log:
            self._log_losses()

    def end_epoch(self, line: dict[str, Any]) -> None:
        self._send("on_epoch_end")
        self._log_losses()
        values = {name: value for name, value in line.items() if name not in NOT_METRICS}
        metrics = {f"eval_{name}": value for name, value in values.items()}
        for seed, value in line.get("by_seed", {}).items():
            metrics[f"{self._args.metric_for_best_model}_seed_{seed}"] = value
        self._log(metrics)
        self._send("on_evaluate", metrics=metrics)
        if line["best"]:  # after on_evaluate, in which callbacks compare with the previous best
            self._record_best(values)

    def saved(self) -> None:
        self._send("on_save")

    def end(self, progress: Progress) -> None:
        self._log({"train_runtime": round(progress.seconds, 3)})
        self._send("on_train_end")

    def _record_best(self, metrics: dict[str, float]) -> None:
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
        self._send("on_log", logs=values)

    def _send(self, event: str, **values: Any) -> None:
        self._control = getattr(self._handler, event)(self._args, self._state, self._control, **values)


def _arguments(info: RunInfo) -> TrainingArguments:
    """Return the run's settings as transformers' TrainingArguments."""
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
