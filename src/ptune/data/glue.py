"""The tasks of GLUE (arXiv 1804.07461) and SuperGLUE (arXiv 1905.00537): columns, labels, files and metrics.

Rows come from the Hub or from the benchmarks' own files. GLUE's files are tab-separated, and quotation marks are
ordinary characters in them. SuperGLUE's files are JSON Lines. `Task.prepare` gives rows from both places the Hub's
columns. It also writes rows that are neither a text nor a pair as a text or a pair.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

from ptune.data.columns import Columns
from ptune.data.files import DataFile
from ptune.data.readers import Reader, Row, read_plain_tsv
from ptune.data.targets import REGRESSION, SINGLE, ProblemType, label_of, number_of
from ptune.errors import DataError

Benchmark = Literal["glue", "super_glue"]
TITLES: dict[Benchmark, str] = {"glue": "GLUE", "super_glue": "SuperGLUE"}
REPOSITORIES: dict[Benchmark, str] = {"glue": "nyu-mll/glue", "super_glue": "aps/super_glue"}


@dataclass(frozen=True)
class Task:
    """A task of a benchmark.

    name: the task's configuration on the Hub.
    title: the task's name in the benchmark, which is also the name of the folder with its files.
    columns: column names on the Hub or, for tasks with a `form`, the columns that `form` writes.
    labels: label names in index order, as on the Hub; empty for a regression.
    metrics: the benchmark's metrics, by their names in `metric_table`. The first one picks the best epoch.
    renamed: column names in the benchmark's own files, and their names on the Hub.
    splits: names of files and Hub splits that only this task has, and the split that each stands for.
    header: column names of the benchmark's own files, if the files have no header.
    gaps: whether rows of the benchmark's own files may lack a text or a label. Such rows are skipped.
    form: turns a row that is neither a text nor a pair into one or more rows with `columns`.
    configuration: the configuration on the Hub, if it differs from `name`.
    refusal: why the task cannot be learned as classification; "" if it can.
    """

    name: str
    benchmark: Benchmark
    title: str
    columns: Columns
    labels: tuple[str, ...]
    metrics: tuple[str, ...] = ("accuracy",)
    renamed: Mapping[str, str] = field(default_factory=dict)
    splits: Mapping[str, str] = field(default_factory=dict)
    header: tuple[str, ...] = ()
    gaps: bool = False
    form: Callable[[Row], Iterator[Row]] | None = None
    configuration: str = ""
    refusal: str = ""

    @property
    def source(self) -> str:
        """Return the name by which `load_data` knows the task, such as glue/mrpc."""
        return f"{self.benchmark}/{self.name}"

    @property
    def problem_type(self) -> ProblemType:
        return SINGLE if self.labels else REGRESSION

    @property
    def hub(self) -> tuple[str, str]:
        """Return the repository and the configuration on the Hub."""
        return REPOSITORIES[self.benchmark], self.configuration or self.name

    def reader(self, file: DataFile) -> Reader | None:
        """Return the reader for one of the task's own files; None if the file's ending decides."""
        if file.ending not in (".tsv", ".txt"):
            return None
        return partial(read_plain_tsv, names=self.header, gaps=self.gaps)

    def prepare(self, row: Row) -> Iterator[Row]:
        """Yield a row with the task's columns added to it, or several rows if it holds several questions.

        Raises:
            DataError: the row does not belong to this task.
        """
        row = row | {new: row[old] for old, new in self.renamed.items() if old in row}
        try:
            for prepared in [row] if self.form is None else self.form(row):
                cell = prepared.get(self.label)
                yield prepared | {self.label: int(cell)} if isinstance(cell, bool) else prepared
        except (KeyError, TypeError, AttributeError) as err:
            raise DataError(f"not a row of {TITLES[self.benchmark]}'s {self.title}: {_reason(err)}") from err

    def lacks_a_part(self, row: Row) -> bool:
        """Return whether a prepared row has an empty text, pair or label. Columns that are not there are ignored."""
        needed = (self.columns.text, self.columns.text_pair, self.label)
        return any(row[name] is None or str(row[name]).strip() == "" for name in needed if name in row)

    def fits(self, row: Row) -> bool:
        """Return whether a file's first row belongs to this task. The folder may have the task's name by chance."""
        try:
            first = next(self.prepare(row))
            label = first.get(self.label, -1)
            value = label_of(label, "", "") if self.labels else number_of(label, "", "")
        except (DataError, StopIteration):
            return False
        known = not self.labels or value in self.labels or value in range(-1, len(self.labels))
        return known and {self.columns.text, self.columns.text_pair or self.columns.text} <= first.keys()

    @property
    def label(self) -> str:
        return self.columns.label or "label"


def _reason(err: Exception) -> str:
    return f"it has no '{err.args[0]}'" if isinstance(err, KeyError) else "a value in it has the wrong type"


_COPA_QUESTIONS = {"cause": "What was the cause?", "effect": "What happened as a result?"}


def _copa(row: Row) -> Iterator[Row]:
    """Yield a COPA row with the premise and the question as text, and both choices as its pair."""
    text = f"{row['premise']} {_COPA_QUESTIONS[row['question']]}"
    yield row | {"text": text, "text_pair": f"(1) {row['choice1']} (2) {row['choice2']}"}


def _multirc(row: Row) -> Iterator[Row]:
    """Yield a row for each answer of MultiRC: question and answer as text, and the paragraph as its pair.

    On the Hub, a row is already one answer. In the benchmark's own files, a row is a paragraph with all its questions.
    """
    if "passage" not in row:
        yield row | {"text": f"{row['question']} {row['answer']}", "text_pair": row["paragraph"]}
        return
    for question in row["passage"]["questions"]:
        for answer in question["answers"]:
            label = {"label": answer["label"]} if "label" in answer else {}
            yield {"text": f"{question['question']} {answer['text']}", "text_pair": row["passage"]["text"], **label}


def _wic(row: Row) -> Iterator[Row]:
    """Yield a WiC row with the word and the first sentence as text, and the second sentence as its pair."""
    yield row | {"text": f"{row['word']}: {row['sentence1']}", "text_pair": row["sentence2"]}


def _wsc(row: Row) -> Iterator[Row]:
    """Yield a WSC row: the text with asterisks around the pronoun, and the noun that it may refer to as its pair."""
    spans = row.get("target", row)
    words, index, pronoun = row["text"].split(), spans["span2_index"], spans["span2_text"]
    marked = " ".join(words[index:]).replace(pronoun, f"*{pronoun}*", 1)
    yield row | {"marked_text": " ".join([*words[:index], marked]), "text_pair": spans["span1_text"]}


def _record(row: Row) -> Iterator[Row]:
    """Yield a ReCoRD row that serves only to recognise the task, which is then refused."""
    yield row | {"text": row["passage"], "label": 0, "asked": row["qas"] if "qas" in row else row["query"]}


_PAIR = Columns("sentence1", "sentence2", "label")
_PREMISE = Columns("premise", "hypothesis", "label")
_WRITTEN = Columns("text", "text_pair", "label")
_ENTAILED = ("entailment", "not_entailment")
_NLI = ("entailment", "neutral", "contradiction")
_TRUTH = ("False", "True")
_MNLI_SPLITS = {
    "dev_matched": "validation",
    "dev_mismatched": "validation_mismatched",
    "validation_matched": "validation",
    "validation_mismatched": "validation_mismatched",
    "test_matched": "test",
    "test_mismatched": "test_mismatched",
}
_MNLI_COLUMNS = {"sentence1": "premise", "sentence2": "hypothesis", "gold_label": "label"}

TASKS: tuple[Task, ...] = (
    Task(
        "cola",
        "glue",
        "CoLA",
        Columns("sentence", None, "label"),
        ("unacceptable", "acceptable"),
        ("matthews",),
        header=("source", "label", "mark", "sentence"),
    ),
    Task("sst2", "glue", "SST-2", Columns("sentence", None, "label"), ("negative", "positive")),
    Task(
        "mrpc",
        "glue",
        "MRPC",
        _PAIR,
        ("not_equivalent", "equivalent"),
        ("accuracy", "f1"),
        renamed={"Quality": "label", "#1 String": "sentence1", "#2 String": "sentence2"},
        splits={"msr_paraphrase_train": "train", "msr_paraphrase_test": "test"},
    ),
    Task("stsb", "glue", "STS-B", _PAIR, (), ("pearson", "spearman"), renamed={"score": "label"}),
    Task(
        "qqp",
        "glue",
        "QQP",
        Columns("question1", "question2", "label"),
        ("not_duplicate", "duplicate"),
        ("accuracy", "f1"),
        renamed={"is_duplicate": "label"},
        gaps=True,
    ),
    Task("mnli", "glue", "MNLI", _PREMISE, _NLI, renamed=_MNLI_COLUMNS, splits=_MNLI_SPLITS),
    Task("mnli_matched", "glue", "MNLI matched", _PREMISE, _NLI),
    Task("mnli_mismatched", "glue", "MNLI mismatched", _PREMISE, _NLI),
    Task("qnli", "glue", "QNLI", Columns("question", "sentence", "label"), _ENTAILED),
    Task("rte", "glue", "RTE", _PAIR, _ENTAILED),
    Task("wnli", "glue", "WNLI", _PAIR, ("not_entailment", "entailment")),
    Task(
        "ax",
        "glue",
        "AX",
        _PREMISE,
        _NLI,
        ("matthews",),
        renamed={"Premise": "premise", "Hypothesis": "hypothesis", "Label": "label"},
        splits={"diagnostic-full": "test"},
    ),
    Task("boolq", "super_glue", "BoolQ", Columns("question", "passage", "label"), _TRUTH),
    Task("cb", "super_glue", "CB", _PREMISE, ("entailment", "contradiction", "neutral"), ("accuracy", "f1_macro")),
    Task("copa", "super_glue", "COPA", _WRITTEN, ("choice1", "choice2"), form=_copa),
    Task("multirc", "super_glue", "MultiRC", _WRITTEN, _TRUTH, ("f1",), form=_multirc),
    Task(
        "record",
        "super_glue",
        "ReCoRD",
        Columns("text", "asked", "label"),
        ("",),
        form=_record,
        refusal="asks which of a passage's names fills a gap. Every row has different answers to choose from, so there "
        "are no classes to learn",
    ),
    Task("rte", "super_glue", "RTE", _PREMISE, _ENTAILED),
    Task("wic", "super_glue", "WiC", _WRITTEN, _TRUTH, form=_wic),
    Task(
        "wsc",
        "super_glue",
        "WSC",
        Columns("marked_text", "text_pair", "label"),
        _TRUTH,
        form=_wsc,
        configuration="wsc.fixed",
    ),
    Task("axb", "super_glue", "AX-b", _PAIR, _ENTAILED, ("matthews",), splits={"ax-b": "test"}),
    Task("axg", "super_glue", "AX-g", _PREMISE, _ENTAILED, splits={"ax-g": "test"}),
)


def named_task(source: str) -> Task | None:
    """Return the task with a name such as `glue/mrpc`, `GLUE/STS-B` or `aps/super_glue/boolq`; None for other names.

    Raises:
        DataError: the benchmark has no such task. The message suggests the nearest one.
        DataError: the task cannot be learned as classification.
    """
    for benchmark, repository in REPOSITORIES.items():
        match = re.fullmatch(rf"(?:{benchmark}|{benchmark.replace('_', '')}|{repository})(?:/(.*))?", source.lower())
        if match:
            return _find_task(benchmark, match[1] or "", source)
    return None


def _find_task(benchmark: Benchmark, name: str, source: str) -> Task:
    tasks = {_plain(key): task for task in TASKS if task.benchmark == benchmark for key in _names(task)}
    task = tasks.get(_plain(name))
    if task is not None:
        check(task, source)
        return task
    title, known = TITLES[benchmark], ", ".join(dict.fromkeys(task.name for task in tasks.values() if not task.refusal))
    if not name:
        raise DataError(f"data '{source}': {title} has many tasks; name one, such as {source}/rte: {known}")
    similar = [tasks[key].source for key in difflib.get_close_matches(_plain(name), tasks, n=1)]
    same_name = [task.source for task in TASKS if _plain(name) in map(_plain, _names(task))]
    hint = "".join(f"; did you mean '{suggestion}'?" for suggestion in (same_name + similar)[:1])
    raise DataError(f"data '{source}': {title} has no task '{name}'; it has {known}{hint}")


def check(task: Task, source: str) -> None:
    """Check that a task can be learned.

    Raises:
        DataError: the task cannot be learned as classification. The message gives the reason.
    """
    if task.refusal:
        title = TITLES[task.benchmark]
        raise DataError(f"data '{source}': {task.title} {task.refusal}. Choose another task of {title}")


def local_tasks(folder: str, files: Sequence[DataFile]) -> list[Task]:
    """Return the tasks that files may belong to, judging by their names and their folder's; see also `Task.fits`."""
    stems = {file.stem.lower() for file in files}
    return [task for task in TASKS if _plain(folder) in map(_plain, _names(task)) or stems & {*task.splits}]


def _names(task: Task) -> tuple[str, ...]:
    """Return every name that a task is known by."""
    return task.name, task.title, task.configuration or task.name


def _plain(name: str) -> str:
    """Return a name as lower-case letters and digits alone, so that STS-B and stsb are the same."""
    return re.sub("[^a-z0-9]", "", name.lower())
