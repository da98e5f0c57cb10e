"""GLUE (arXiv 1804.07461) and SuperGLUE (arXiv 1905.00537) by name: each task's columns, labels, files and metrics.

Rows come as the Hub has them or as the benchmarks' own files do: GLUE's tab-separated files, in which quotation marks
are letters, and SuperGLUE's JSON Lines. `Task.prepare` gives both the Hub's columns, and writes what is neither a text
nor a pair as one.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

from ptune.data.columns import Columns
from ptune.data.readers import Reader, Row, read_plain_tsv
from ptune.data.targets import REGRESSION, SINGLE, ProblemType, label_of, number_of
from ptune.errors import DataError

Benchmark = Literal["glue", "super_glue"]
TITLES: dict[Benchmark, str] = {"glue": "GLUE", "super_glue": "SuperGLUE"}
REPOSITORIES: dict[Benchmark, str] = {"glue": "nyu-mll/glue", "super_glue": "aps/super_glue"}


@dataclass(frozen=True)
class Task:
    """One task.

    name: the Hub's configuration. title: as the benchmark writes it, and calls the folder of its files.
    columns: names on the Hub, or, where `form` writes the texts, its own.
    labels: names in index order, as on the Hub; none of a regression.
    metrics: those that the benchmark judges by, as `metrics` names them; the first picks the best epoch.
    renamed: columns of the benchmark's own files, and what the Hub calls them.
    splits: beside the usual names, stems of files and splits of the Hub, and which split they are.
    header: columns of its own files, where they have no header.
    gaps: whether its own files have rows that lack a part, which are left out.
    form: a row as one row or several with the columns above, where it is neither a text nor a pair.
    configuration: of the Hub, where it is not the name.
    refusal: why it is no classification of a text or a pair.
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
        """How the task is asked for, such as glue/mrpc."""
        return f"{self.benchmark}/{self.name}"

    @property
    def problem_type(self) -> ProblemType:
        return SINGLE if self.labels else REGRESSION

    @property
    def hub(self) -> tuple[str, str]:
        """Repository and configuration."""
        return REPOSITORIES[self.benchmark], self.configuration or self.name

    def reader(self, path: Path) -> Reader | None:
        """How to read one of its files, where the ending alone does not say it."""
        if path.suffix.lower() not in (".tsv", ".txt"):
            return None
        return partial(read_plain_tsv, names=self.header, gaps=self.gaps)

    def prepare(self, row: Row) -> Iterator[Row]:
        """A row with the columns above, beside its own; several where it holds several questions.

        Raises:
            DataError: it is no row of this task.
        """
        row = row | {new: row[old] for old, new in self.renamed.items() if old in row}
        try:
            for part in [row] if self.form is None else self.form(row):
                cell = part.get(self.label)
                yield part | {self.label: int(cell)} if isinstance(cell, bool) else part
        except (KeyError, TypeError, AttributeError) as err:
            raise DataError(f"no row of {TITLES[self.benchmark]}'s {self.title}: {_reason(err)}") from err

    def lacks_a_part(self, row: Row) -> bool:
        """Whether a prepared row has no text, no pair, or no label where its file has labels."""
        needed = (self.columns.text, self.columns.text_pair, self.label)
        return any(row[name] is None or str(row[name]).strip() == "" for name in needed if name in row)

    def fits(self, row: Row) -> bool:
        """Whether a file's first row is this task's, and not one of a folder that has its name by chance."""
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
    return f"it has no '{err.args[0]}'" if isinstance(err, KeyError) else "its parts are not what they should be"


_ASKED = {"cause": "What was the cause?", "effect": "What happened as a result?"}


def _copa(row: Row) -> Iterator[Row]:
    """Premise and question; both choices."""
    text = f"{row['premise']} {_ASKED[row['question']]}"
    yield row | {"text": text, "text_pair": f"(1) {row['choice1']} (2) {row['choice2']}"}


def _multirc(row: Row) -> Iterator[Row]:
    """A row for each answer: the question with it; the paragraph. Files have a paragraph with its questions a row."""
    if "passage" not in row:
        yield row | {"text": f"{row['question']} {row['answer']}", "text_pair": row["paragraph"]}
        return
    for question in row["passage"]["questions"]:
        for answer in question["answers"]:
            label = {"label": answer["label"]} if "label" in answer else {}
            yield {"text": f"{question['question']} {answer['text']}", "text_pair": row["passage"]["text"], **label}


def _wic(row: Row) -> Iterator[Row]:
    """The word and the first sentence; the second sentence."""
    yield row | {"text": f"{row['word']}: {row['sentence1']}", "text_pair": row["sentence2"]}


def _wsc(row: Row) -> Iterator[Row]:
    """The text with its pronoun between asterisks; the name that it may stand for."""
    spans = row.get("target", row)
    words, place, pronoun = row["text"].split(), spans["span2_index"], spans["span2_text"]
    marked = " ".join(words[place:]).replace(pronoun, f"*{pronoun}*", 1)
    yield row | {"marked_text": " ".join([*words[:place], marked]), "text_pair": spans["span1_text"]}


def _record(row: Row) -> Iterator[Row]:
    """Only looked at, to be told from other data."""
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
        refusal="asks which of a passage's names fills a gap: every row has other answers to choose from, so there are "
        "no classes to learn",
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
    """The task of `glue/mrpc`, `GLUE/STS-B` or `aps/super_glue/boolq`; None where no benchmark is named.

    Raises:
        DataError: the benchmark has no such task: says the nearest; or it is no classification.
    """
    for benchmark, repository in REPOSITORIES.items():
        match = re.fullmatch(rf"(?:{benchmark}|{benchmark.replace('_', '')}|{repository})(?:/(.*))?", source.lower())
        if match:
            return _task(benchmark, match[1] or "", source)
    return None


def _task(benchmark: Benchmark, name: str, source: str) -> Task:
    own = {_plain(key): task for task in TASKS if task.benchmark == benchmark for key in _names(task)}
    found = own.get(_plain(name))
    if found is not None:
        check(found, source)
        return found
    title, known = TITLES[benchmark], ", ".join(dict.fromkeys(task.name for task in own.values() if not task.refusal))
    if not name:
        raise DataError(f"data '{source}': {title} has many tasks; name one, such as {source}/rte: {known}")
    near = [own[key].source for key in difflib.get_close_matches(_plain(name), own, n=1)]
    elsewhere = [task.source for task in TASKS if _plain(name) in map(_plain, _names(task))]
    hint = "".join(f"; did you mean '{other}'?" for other in (elsewhere + near)[:1])
    raise DataError(f"data '{source}': {title} has no task '{name}'; it has {known}{hint}")


def check(task: Task, source: str) -> None:
    """Whether the task can be learned at all.

    Raises:
        DataError: it is no classification of a text or a pair.
    """
    if task.refusal:
        title = TITLES[task.benchmark]
        raise DataError(f"data '{source}': {task.title} {task.refusal}; choose another task of {title}")


def local_tasks(folder: str, files: Sequence[Path]) -> list[Task]:
    """Tasks that files may be of, going by their names and their folder's; `Task.fits` decides on a row."""
    stems = {path.stem.lower() for path in files}
    return [task for task in TASKS if _plain(folder) in map(_plain, _names(task)) or stems & {*task.splits}]


def _names(task: Task) -> tuple[str, ...]:
    return task.name, task.title, task.configuration or task.name


def _plain(name: str) -> str:
    return re.sub("[^a-z0-9]", "", name.lower())
