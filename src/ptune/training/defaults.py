"""The defaults of a training run: what they depend on, and the numbers behind them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from ptune.data.targets import SINGLE, ProblemType
from ptune.model.config import PromptConfig

# On a GPU, runs of at least so many steps are compiled by default: shorter ones do not win back the minute it takes.
COMPILE_STEPS = 1000
BATCH = 16
SMALL_ROWS, SMALL_BATCH = 400, 8
FEWEST_EPOCHS, MOST_EPOCHS = 3, 40
LEAST_PATIENCE = 3
# Tasks with so few rows learn from pairs of rows, and are measured by cross-validation with so many folds.
FEW_PER_CLASS, FEW_CONTRASTIVE, FOLDS = 64, 2000, 3
# Fewest rows of a batch in which rows of a class and of different classes can be compared.
LEAST_TO_COMPARE = 4


@dataclass(frozen=True)
class Task:
    """The facts about data and backbone that the defaults depend on.

    rows: number of training rows.
    validation_rows: number of validation rows.
    classes: number of classes or labels.
    width: width of the vector that the head reads.
    problem_type: what is learned.
    pairs: True if rows are pairs of texts.
    metrics: the metrics of a benchmark's task, the main one first; empty for other data.
    norm_first: True if the backbone's layers normalise their input; see `ptune.model.families`.
    gain: how strongly the backbone answers to a deep prompt; see `ptune.model.gain`. None: not measured.
    encoder: True for an encoder, False for a decoder.
    held_back: True if the validation rows were taken from the training rows, all of which are used.
    gpu: True if the backbone is on a GPU.
    processes: number of processes that train together.
    global_batch: rows of a batch over all processes, in a run that is resumed with another number of them; None: not in
        this case.
    """

    rows: int
    validation_rows: int
    classes: int
    width: int
    problem_type: ProblemType = SINGLE
    pairs: bool = False
    metrics: tuple[str, ...] = ()
    norm_first: bool = False
    gpu: bool = False
    gain: float | None = None
    encoder: bool = True
    held_back: bool = False
    processes: int = 1
    global_batch: int | None = None


RATES_WIDTH = 384  # width of the backbone on which the head rates below were measured

# Muon's rate on a backbone with a gain of MUON_GAIN, which is that of all-MiniLM-L6-v2, and its lower limit.
MUON_RATE, MUON_GAIN, LOWEST_RATE = 5e-3, 0.82, 1e-4
# The share of Muon's rate for the contrastive objective, where every batch has all rows and otherwise, and the batch.
WHOLE_RATE, CONTRASTIVE_RATE, CONTRASTIVE_BATCH = 0.8, 0.4, 64
# Rows that training sees over all epochs. See docs/log.md for the measurements.
ROWS_SEEN, ROWS_SEEN_OF_PAIRS, ROWS_SEEN_AT_THE_INPUT = 45_000, 30_000, 75_000
# For few rows, a verbalizer, and a prompt that starts as a description of the task: such a model already works before
# it is trained. See docs/log.md.
FEW_ROWS_EPOCHS, FEW_ROWS_AVERAGE = 12, 0.9


def default_epochs(prompt: PromptConfig, task: Task) -> int:
    """Return as many epochs as it takes to see about ROWS_SEEN rows.

    Tasks with many classes need more rows, and so do prompts at the input, which learn more slowly. Pairs of texts do
    not improve after ROWS_SEEN_OF_PAIRS rows, under the stronger weight decay that they get. See docs/log.md.
    """
    rows = ROWS_SEEN_OF_PAIRS if task.pairs else ROWS_SEEN
    if prompt.shallow:
        rows = ROWS_SEEN_AT_THE_INPUT
    seen = rows * max(1.0, math.sqrt(task.classes / 25))
    return min(MOST_EPOCHS, max(FEWEST_EPOCHS, round(seen / task.rows)))


def default_objective(prompt: PromptConfig, task: Task) -> Literal["labels", "contrastive"]:
    """Return what the prompt learns, if nothing that the user set speaks against comparing rows; see docs/log.md."""
    rows = task.rows + (task.validation_rows if task.held_back else 0)
    few = rows <= min(FEW_CONTRASTIVE, FEW_PER_CLASS * task.classes)
    return "contrastive" if few and task.encoder and prompt.softmax == "separate" else "labels"


def batches_per_epoch(objective: Literal["labels", "contrastive"], rows: int, batch_size: int) -> int:
    """Return the number of batches of an epoch. With the contrastive objective rows are repeated; see docs/log.md."""
    if objective == "contrastive":
        return round(80 * max(1.0, rows / CONTRASTIVE_BATCH) ** 0.4)
    return math.ceil(rows / batch_size)


def default_patience(epochs: int) -> int:
    """Return after how many epochs without improvement a run stops."""
    return max(LEAST_PATIENCE, round(epochs / 4))


def default_optimizer(prompt: PromptConfig) -> Literal["muon", "adamw"]:
    """Return the optimizer of the prompt; see docs/log.md."""
    return "muon" if prompt.softmax == "separate" and prompt.encoder == "none" else "adamw"


def default_rate(prompt: PromptConfig, task: Task, optimizer: Literal["muon", "adamw"]) -> float:
    """Return the peak learning rate of the prompt.

    A step of a deep prompt should move the vectors that the head reads equally far in every backbone. Muon's steps move
    them in proportion to the gain, so its rate is divided by it. The rate is rounded, so that it does not depend on the
    machine. The rates of AdamW are fixed for each method.
    """
    if optimizer == "muon":
        rate = MUON_RATE * MUON_GAIN / (task.gain or MUON_GAIN)
        return float(f"{min(max(rate, LOWEST_RATE), MUON_RATE):.1e}")
    rate = RATES[(prompt.method, prompt.encoder == "none")][0]
    if prompt.method == "deep" and prompt.init == "text":
        return TEXT_PROMPT_RATE
    if prompt.method == "deep" and task.norm_first:
        return min(rate, NORM_FIRST_RATE)
    return rate


def default_decay(prompt: PromptConfig, task: Task, optimizer: Literal["muon", "adamw"]) -> float:
    """Return the weight decay: a strong one helps on pairs of texts and hurts on single texts; see docs/log.md.

    It acts in proportion to the rate, so Muon, whose rates are a quarter of AdamW's, needs four times as much.
    """
    decay = 0.1 if task.pairs and prompt.method == "deep" else 0.01
    return 4 * decay if optimizer == "muon" else decay


def default_warmup(
    prompt: PromptConfig,
    task: Task,
    optimizer: Literal["muon", "adamw"],
    objective: Literal["labels", "contrastive"],
) -> float:
    """Return the share of warm-up steps.

    Prompts at the input that take full steps in the first epoch never catch up with those that do not. Muon takes steps
    of full length also where texts tell little about their labels, so at first many of them lead nowhere. A long
    warm-up makes these short. It helps on single texts and not on pairs, where the head starts with what it needs.
    Decoders have not been measured with it. See docs/log.md.
    """
    if prompt.shallow:
        return 0.12
    long = optimizer == "muon" and objective == "labels" and task.encoder and not task.pairs
    return 0.3 if long else 0.06


def default_average(steps: int) -> float:
    """Return the decay that averages over the last hundred steps, or the last tenth of a shorter run."""
    return round(1 - min(1.0, 1 / min(100.0, max(1.0, steps / 10))), 4)


# For heads that start from words, and keys and values that start from a text: larger steps would undo what they know.
VERBALIZER_RATE = 1e-4
TEXT_PROMPT_RATE = 3e-3
# For keys and values in layers that do not normalise what these add: at the usual rate nothing is learned.
NORM_FIRST_RATE = 5e-4
# Peak rates of (prompt, head), by method and by whether the prompt has no encoder. See docs/log.md.
RATES: dict[tuple[str | None, bool], tuple[float, float]] = {
    ("deep", True): (2e-2, 2e-3),
    ("deep", False): (1e-3, 3e-3),
    ("p-tuning", True): (1e-2, 3e-3),
    ("p-tuning", False): (1e-3, 3e-3),
    ("prompt-tuning", True): (1e-2, 3e-3),
    ("prompt-tuning", False): (1e-3, 3e-3),
}
