"""ptune train"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter, validators

from ptune.cli.check import say_findings
from ptune.cli.options import (
    BackboneOptions,
    BackboneSettings,
    Cluster,
    ClusterOptions,
    Data,
    DataOptions,
    Json,
    Place,
    PromptOptions,
    PromptSettings,
    Source,
    Target,
    TrainOptions,
    TrainSettings,
)
from ptune.cli.progress import folds_progress, training_progress
from ptune.cli.recorded import check_unchanged, options_of, write_options
from ptune.cli.report import report_training
from ptune.cli.staging import check_remote, check_resume, local_folder
from ptune.cli.terminal import Terminal, type_and_device
from ptune.data.metric_table import metrics_of, shown
from ptune.data.targets import MULTI, REGRESSION, SINGLE
from ptune.errors import ConfigError
from ptune.evaluation.chance import describe_interval
from ptune.launched import is_first, is_launched
from ptune.model.config import PromptConfig
from ptune.training.callbacks import Report, reporting_callbacks
from ptune.training.config import TrainConfig

if TYPE_CHECKING:
    from ptune.data.splits import TextData
    from ptune.model.classifier import PromptClassifier
    from ptune.training.config import SettledConfig
    from ptune.training.train import TrainResult

# With fewer validation rows the interval of an accuracy is wide enough to be printed.
FEW_VALIDATION_ROWS = 1000


def train(
    *,
    backbone: Place,
    data: Source,
    output: Target,
    resume: Annotated[bool, Parameter(negative=())] = False,
    overwrite: Annotated[bool, Parameter(negative=())] = False,
    report_to: Report = "none",
    report: bool = True,
    config: Target | None = None,
    workers: Annotated[int | None, Parameter(group="Cluster", validator=validators.Number(gte=1))] = None,
    json: Json = False,
    cluster: Cluster = None,
    data_options: Data = None,
    backbone_options: BackboneSettings = None,
    prompt: PromptSettings = None,
    training: TrainSettings = None,
) -> None:
    """Train a prompt and a classification head for a task, and save them as an adapter.

    The backbone stays frozen. The model is evaluated on the validation split after every epoch; the adapter holds the
    best epoch. At the end, report.html in the output folder shows what was learned and what goes wrong.

    Examples:
      ptune train --backbone roberta-large --data glue/mrpc --output mrpc
      ptune train --backbone ./my-bert --data reviews.csv --output reviews --epochs 5
      ptune train --backbone gpt2 --data folder/ --output out --method p-tuning --json
      ptune train --backbone ./my-bert --data topics.csv --output topics --label-separator "|"
      ptune train --backbone ./my-bert --data stars.csv --output stars --problem-type regression
      ptune train --config run.yaml --seed 1
      ptune train --resume --output reviews
      ptune train --backbone ./my-bert --data reviews.csv --output reviews --report-to tensorboard
      ptune train --backbone ./my-bert --data reviews.csv --output reviews --scale ray --workers 4

    Parameters
    ----------
    backbone
        The pretrained model: a folder, a .gguf file, python:PACKAGE, or a Hub id.
    data
        Labelled data: a folder with train, validation and test files, a single file, or a Hub id such as glue/mrpc.
        Files may be CSV, TSV, JSON Lines, JSON, Parquet or Excel, and compressed. A URL, such as s3://..., works too.
    output
        Folder for the adapter, its metrics and its checkpoint. For a URL, such as s3://..., the run works in a
        temporary folder, and its files are copied at the end, without the checkpoint.
    resume
        Continue an interrupted run from the checkpoint in the output folder.
        The result is the same as without the interruption. The run's own options are used.
    overwrite
        Replace an adapter that is in the output folder already.
    report_to
        Service that receives losses and metrics during training. TensorBoard's files are written to the output folder.
    report
        Write report.html at the end; its pictures as PNG too, with pip install 'ptune[report]'.
    config
        YAML, TOML or JSON file with any of these options; also a URL. Options on the command line take precedence.
    workers
        Processes that train together, with --scale ray; each trains on --batch-size rows per step. Default: one per
        GPU, or one per CPU without GPUs.
    """
    given = locals().copy()
    cluster = cluster or ClusterOptions()
    if cluster.scale == "ray":
        from ptune.cli.train_on_cluster import train_on_cluster

        local = {name: value for name, value in given.items() if name not in ("cluster", "workers", "config")}
        train_on_cluster(train, local, cluster, workers)
        return
    if workers is not None or cluster.ray_address is not None:
        raise ConfigError("--workers and --ray-address are for --scale ray; add it, or leave them out")
    from ptune.processes import errors_of_first
    from ptune.training.train import check_output

    terminal = Terminal(json)
    training = training or TrainOptions()
    data_options = data_options or DataOptions()
    backbone_options = backbone_options or BackboneOptions()
    prompt = prompt or PromptOptions()
    options = options_of(backbone, data, report_to, report, (data_options, backbone_options, prompt, training))
    if resume:
        check_resume(output)
    if data == "-" and is_launched():
        raise ConfigError("--data - is standard input, which only one of several processes can read; name a file")
    first = is_first()
    with errors_of_first():
        if first:
            check_remote(output, overwrite)
    with local_folder(terminal, output) as folder:
        if resume:
            check_unchanged(folder, options)
        with errors_of_first():
            if first:
                check_output(folder, backbone, overwrite, resume)  # early, because reading data may take long
        callbacks = reporting_callbacks(report_to)
        rows = load(terminal, data, data_options, training.seed)
        result = run(
            terminal,
            backbone,
            rows,
            folder,
            backbone_options,
            prompt,
            training,
            resume,
            callbacks,
            partial(_begin, folder, options) if first else None,
        )
        sharded = result.classifier.model.backbone.shards is not None  # one process alone cannot compute anything
        page = report_training(terminal, result, rows) if report and first and not sharded else None
    reported = {} if page is None else {"report": str(output / page.name)}
    terminal.answer({**summary(result), "adapter": str(output), **reported})


def _begin(output: Path, options: Mapping[str, Any]) -> None:
    """Note the options of a run in its folder, and remove the report of an earlier run."""
    from ptune.report.writing import remove_report

    write_options(output, options)
    remove_report(output)


def load(terminal: Terminal, source: str, options: DataOptions, seed: int) -> TextData:
    """Read the data and print a summary of them."""
    from ptune.data.load import load_data

    data = load_data(
        source,
        text=options.text,
        text_pair=options.text_pair,
        label=options.label,
        problem_type=options.problem_type,
        label_separator=options.label_separator,
        seed=seed,
        max_train_rows=options.max_train_rows,
        max_validation_rows=options.max_validation_rows,
        revision=options.data_revision,
        on_empty=options.on_empty,
        drop_rare=options.drop_rare,
    )
    say_data(terminal, data)
    say_findings(terminal, data, options)
    return data


def say_data(terminal: Terminal, data: TextData) -> None:
    """Print the sizes and labels of the data, the rows of each label, and what was guessed or sampled."""
    sizes = ", ".join(f"{name} {len(split)}" for name, split in data.splits.items())
    if data.problem_type == REGRESSION:
        targets = data.targets("train")
        low, high, mean = (f"{float(value):g}" for value in (targets.min(), targets.max(), targets.mean()))
        labels = f"targets '{data.labels[0]}' from {low} to {high}, mean {mean}"
    else:
        labels = f"{len(data.labels)} labels: {_counts(data)}"
    terminal.say(f"data: {sizes} rows; {labels}")
    for note in data.notes:
        terminal.say(note)


def _counts(data: TextData) -> str:
    """Return the labels with their numbers of training rows, the first eight of them."""
    counts = data.targets("train").long()
    by_label = (counts.sum(dim=0) if counts.dim() == 2 else counts.bincount(minlength=len(data.labels))).tolist()
    named = [f"{label} {count}" for label, count in zip(data.labels, by_label, strict=True)]
    return ", ".join(named[:8]) + (", …" if len(named) > 8 else "")


def run(
    terminal: Terminal,
    backbone: str,
    data: TextData,
    output: Path,
    options: BackboneOptions,
    prompt: PromptConfig,
    training: TrainConfig,
    resume: bool = False,
    callbacks: Sequence[Any] = (),
    begun: Callable[[], None] | None = None,
) -> TrainResult:
    """Train with a progress bar, and print settings, metrics and results.

    Args:
        output: folder that has been checked, see `check_output`.
        begun: called once training has begun, and not if something is wrong before.
    """
    from ptune.evaluation.calibration import FEWEST_ROWS
    from ptune.model.classifier import PromptClassifier
    from ptune.model.loading import load_backbone
    from ptune.training.settle import settle
    from ptune.training.train import train as train_model

    training.check_use(data.problem_type)
    names = ("revision", "dtype", "device", "random_weights", "quantize", "device_map", "shard")
    loaded = load_backbone(backbone, **{name: getattr(options, name) for name in names})
    model = PromptClassifier.for_data(loaded, data, prompt, seed=training.seed)
    training = settle(training, model, data, output if resume else None)
    terminal.say(_describe(model, training))
    if training.folds:
        rows = len(data.train) + len(data.validation)
        terminal.say(
            f"{'no rows are held back after all: ' if data.held_back else ''}{training.folds}-fold cross-validation, "
            f"then training on all {rows} rows"
            f"{' by comparing them' if training.objective == 'contrastive' else ''}"
        )
    terminal.say(model.describe_parameters(training.seeds if training.ensemble else 1))
    waiting = [begun] if begun is not None else []
    with folds_progress(training.folds) as show_fold, training_progress(training.epochs) as show:

        def tell_begun() -> None:
            while waiting:
                waiting.pop()()

        def on_fold(number: int, share: float) -> None:
            tell_begun()
            show_fold(number, share)

        def on_step(done: int, total: int, epoch: int, loss: float) -> None:
            tell_begun()
            show(done, total, epoch, loss)

        result = train_model(
            model,
            data,
            training,
            output=output,
            max_length=options.max_length,
            resume=resume,
            on_step=on_step,
            on_fold=on_fold,
            on_epoch=lambda line: terminal.say(_epoch_line(line, training.epochs, data)),
            callbacks=callbacks,
        )
    terminal.say(_best_line(result, data))
    if data.problem_type == MULTI:
        terminal.say(_threshold_line(result, training))
    if data.problem_type == SINGLE and result.metrics["count"] >= FEWEST_ROWS:
        terminal.say(
            f"calibrated with temperature {result.classifier.temperature:.3f}: expected calibration error "
            f"{result.metrics['ece_raw']:.4f} -> {result.metrics['ece']:.4f} (fitted on these rows)"
        )
    terminal.say(f"{result.seconds:.0f} s, {result.examples_per_second:.0f} examples/s; adapter: {result.adapter}")
    return result


def summary(result: TrainResult) -> dict[str, Any]:
    """Return the JSON answer."""
    return {
        "metrics": result.metrics,
        "best_epoch": result.best_epoch,
        "epochs": result.epochs,
        "trainable_params": result.trainable_params,
        "all_params": result.all_params,
        "seconds": round(result.seconds, 3),
        "examples_per_second": round(result.examples_per_second, 1),
        "majority": result.majority,
        "adapter": result.adapter,
    }


def _describe(model: PromptClassifier, training: SettledConfig) -> str:
    """Return a line with the settings of a run."""
    prompt = model.config
    template = f" with template {prompt.template!r}" if prompt.template else ""
    return (
        f"method {prompt.method}, {prompt.virtual_tokens} virtual tokens, encoder {prompt.encoder}, softmax "
        f"{prompt.softmax}, pooling {prompt.pooling}, head {prompt.head}{template}; "
        f"epochs {training.epochs}, batch {training.batch_size}, lr {training.lr:g}, head lr {training.head_lr:.3g}, "
        f"weight decay {training.weight_decay:g}, warm-up {training.warmup:.0%}, averaged over about "
        f"{1 / (1 - training.average):.0f} steps, {_kept(training)}, {_seeds(training)}"
        f"{', compiled' if training.compile else ''}; {type_and_device(model.backbone)}"
    )


def _by_seed(line: dict[str, Any]) -> str:
    metrics = line.get("by_seed", {})
    return f" (by seed: {', '.join(f'{value:.4f}' for value in metrics.values())})" if metrics else ""


def _kept(training: SettledConfig) -> str:
    return "last epoch is kept" if training.best == "last" else f"best epoch by {training.best}"


def _seeds(training: TrainConfig) -> str:
    if training.seeds == 1:
        return f"seed {training.seed}"
    kept = "all kept as an ensemble" if training.ensemble else "the best is kept"
    return f"seeds {training.seed} to {training.seed + training.seeds - 1}, {kept}"


def _metrics(metrics: dict[str, Any], data: TextData) -> dict[str, str]:
    """Return the metrics to print for an epoch, formatted, by name."""
    table = metrics_of(data.problem_type)
    return {name: f"{table[name].title} {metrics[name]:.4f}" for name in data.metrics or shown(data.problem_type)}


def _epoch_line(line: dict[str, Any], epochs: int, data: TextData) -> str:
    metrics = ", ".join(_metrics(line, data).values())
    return (
        f"epoch {line['epoch']}/{epochs}: train loss {line['train_loss']:.4f}, validation loss {line['loss']:.4f}, "
        f"{metrics}{_by_seed(line)}{'  best' if line['best'] else ''}"
    )


def _threshold_line(result: TrainResult, training: TrainConfig) -> str:
    thresholds = sorted(result.classifier.task.decision.thresholds)
    if training.threshold is not None:
        return f"a label applies if its probability is above {training.threshold:g}"
    between = f"{thresholds[0]:.3f} to {thresholds[-1]:.3f}"
    default = ", or the most probable one" if result.classifier.task.decision.at_least_one else ""
    return f"labels apply above probabilities of {between}, by label (fitted on these rows){default}"


def _best_line(result: TrainResult, data: TextData) -> str:
    metrics = _metrics(result.metrics, data)
    if data.problem_type == SINGLE and "accuracy" in metrics:
        rows = int(result.metrics["count"])
        around = describe_interval(result.metrics["accuracy"], rows)
        few = f", {around} on {rows} rows" if rows < FEW_VALIDATION_ROWS else ""
        metrics["accuracy"] += f" (majority class {result.majority:.4f}{few})"
    values = ", ".join(metrics.values())
    return f"best epoch {result.best_epoch}: validation {values}, loss {result.metrics['loss']:.4f}"
