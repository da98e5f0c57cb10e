"""GLUE and SuperGLUE: every task is read from the Hub's columns and from all forms of the benchmark's own files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet as parquet
import pytest

from ptune.data import sources
from ptune.data.glue import TASKS, Task, named_task
from ptune.data.load import load_data
from ptune.data.metric_table import choices
from ptune.data.targets import REGRESSION
from ptune.errors import DataError

Row = dict[str, Any]

ONE, TWO = 'The "old" mill burnt down .', 'Fire took the mill , she said "so .'
# For each task: a row of the Hub without its label, and the text and pair made from it.
HUB_ROWS: dict[str, tuple[Row, str, str | None]] = {
    "glue/cola": ({"sentence": ONE}, ONE, None),
    "glue/sst2": ({"sentence": ONE}, ONE, None),
    "glue/qqp": ({"question1": ONE, "question2": TWO}, ONE, TWO),
    "glue/qnli": ({"question": ONE, "sentence": TWO}, ONE, TWO),
    "super_glue/boolq": ({"passage": TWO, "question": ONE}, ONE, TWO),
    "super_glue/copa": (
        {"premise": "The pond froze.", "choice1": "It was cold.", "choice2": "It was noon.", "question": "cause"},
        "The pond froze. What was the cause?",
        "(1) It was cold. (2) It was noon.",
    ),
    "super_glue/multirc": (
        {"paragraph": "Ada bought a boat.", "question": "Who bought it?", "answer": "Ada"},
        "Who bought it? Ada",
        "Ada bought a boat.",
    ),
    "super_glue/wic": (
        {"word": "bank", "sentence1": "Sit on the bank.", "sentence2": "The bank is shut.", "start1": 11, "end1": 15},
        "bank: Sit on the bank.",
        "The bank is shut.",
    ),
    "super_glue/wsc": (
        {
            "text": "Ben told Tom that he , and not she, was late.",
            "span1_index": 2,
            "span1_text": "Tom",
            "span2_index": 4,
            "span2_text": "he",
        },
        "Ben told Tom that *he* , and not she, was late.",
        "Tom",
    ),
}
LEARNABLE = [task for task in TASKS if not task.refusal]


def hub_row(task: Task) -> tuple[Row, str, str | None]:
    """Return a row of a task, its text and its pair. Tasks that are not in HUB_ROWS have a pair in two columns."""
    plain = {task.columns.text: ONE, task.columns.text_pair or "": TWO}, ONE, TWO
    return HUB_ROWS.get(task.source, plain)


def labelled(task: Task, row: Row, count: int = 6) -> list[Row]:
    labels: Sequence[Any] = range(len(task.labels)) if task.labels else (0.0, 2.5, 4.2)
    return [{**row, "label": labels[number % len(labels)], "idx": number} for number in range(count)]


def write_plain(path: Path, rows: Sequence[Mapping[str, Any]] | Sequence[Sequence[Any]]) -> Path:
    """Write tab-separated rows without any quoting, like GLUE's files. Mappings get a header."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [[*rows[0]]] if isinstance(rows[0], Mapping) else []
    lines += [[*row.values()] if isinstance(row, Mapping) else [*row] for row in rows]
    path.write_text("".join("\t".join(map(str, line)) + "\n" for line in lines), encoding="utf-8")
    return path


def write_json(path: Path, rows: Sequence[Row]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def message(source: Path | str, **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        load_data(source, **options)
    return str(caught.value)


class HubRows(list):  # type: ignore[type-arg]
    features: Mapping[str, object] = {}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Return the Hub's content: set `splits` to a data set's splits; `asked` records the calls."""
    content: dict[str, Any] = {"asked": []}

    def load(repository: str, configuration: str | None, revision: str | None = None) -> dict[str, Any]:
        content["asked"].append((repository, configuration))
        return content["splits"]

    import datasets

    monkeypatch.setattr(datasets, "load_dataset", load)
    return content


@pytest.mark.parametrize("task", LEARNABLE, ids=lambda task: task.source)
def test_a_task_of_the_hub_is_read_by_its_name(task: Task, hub: dict[str, Any]) -> None:
    row, text, pair = hub_row(task)
    hub["splits"] = {"train": HubRows(labelled(task, row)), "test": HubRows([{**row, "label": -1}])}
    data = load_data(task.source, revision="v1")
    assert hub["asked"] == [(task.hub[0], task.hub[1])]
    assert set(data.train.texts) == {text}
    assert data.train.pairs is None if pair is None else set(data.train.pairs or ()) == {pair}
    assert data.problem_type == task.problem_type
    assert data.labels == (["label"] if task.problem_type == REGRESSION else [*task.labels])
    assert data.metrics == task.metrics
    assert "test" not in data.splits
    assert "split: the rows of test have no labels and are left out" in data.notes


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.source)
def test_what_a_task_is_judged_by_is_measured(task: Task) -> None:
    assert set(task.metrics) <= set(choices(task.problem_type))


@pytest.mark.parametrize("task", LEARNABLE, ids=lambda task: task.source)
def test_a_folder_of_the_hubs_parquet_files_is_recognised(task: Task, tmp_path: Path) -> None:
    row, text, _ = hub_row(task)
    folder = tmp_path / task.hub[1]
    folder.mkdir()
    table = pyarrow.Table.from_pylist(labelled(task, row))
    parquet.write_table(table, folder / "train-00000-of-00001.parquet")
    data = load_data(folder)
    assert (data.metrics, set(data.train.texts)) == (task.metrics, {text})


MRPC = {"Quality": 1, "#1 ID": 11, "#2 ID": 12, "#1 String": ONE, "#2 String": TWO}
MNLI = {"index": 0, "promptID": 3, "sentence1": ONE, "sentence2": TWO, "label1": "neutral", "gold_label": "neutral"}
NLI = {"index": 0, "sentence1": ONE, "sentence2": TWO}


@pytest.mark.parametrize(
    ("folder", "rows", "source"),
    [
        ("MRPC", [MRPC, {**MRPC, "Quality": 0}], "glue/mrpc"),
        ("SST-2", [{"sentence": ONE, "label": 1}, {"sentence": ONE, "label": 0}], "glue/sst2"),
        (
            "STS-B",
            [{"genre": "news", "sentence1": ONE, "sentence2": TWO, "score": score} for score in ("5.000", "3", "2.6")],
            "glue/stsb",
        ),
        (
            "QQP",
            [{"id": 1, "qid1": 2, "qid2": 3, "question1": ONE, "question2": TWO, "is_duplicate": n} for n in (0, 1)],
            "glue/qqp",
        ),
        ("MNLI", [{**MNLI, "gold_label": name} for name in ("neutral", "entailment", "contradiction")], "glue/mnli"),
        (
            "QNLI",
            [
                {"index": 0, "question": ONE, "sentence": TWO, "label": name}
                for name in ("entailment", "not_entailment")
            ],
            "glue/qnli",
        ),
        ("RTE", [{**NLI, "label": name} for name in ("entailment", "not_entailment")], "glue/rte"),
        ("WNLI", [{**NLI, "label": number} for number in (1, 0)], "glue/wnli"),
    ],
)
def test_glues_own_files_are_recognised(folder: str, rows: list[Row], source: str, tmp_path: Path) -> None:
    write_plain(tmp_path / folder / "train.tsv", rows * 2)
    data, task = load_data(tmp_path / folder), named_task(source)
    assert task is not None
    assert data.metrics == task.metrics
    assert data.columns == task.columns
    assert data.train.texts[0] == ONE
    assert data.train.pairs is None or data.train.pairs[0] == TWO
    if task.labels:
        assert data.labels == [*task.labels]


def test_cola_has_no_header_but_in_its_test_file(tmp_path: Path) -> None:
    rows = [["x1", 1, "", "Birds sing ."], ["x1", 0, "*", "Sing birds the ."], ["x2", 1, "", ONE], ["x2", 0, "*", ONE]]
    write_plain(tmp_path / "CoLA" / "train.tsv", rows)
    write_plain(tmp_path / "CoLA" / "dev.tsv", rows[1:])
    write_plain(tmp_path / "CoLA" / "test.tsv", [{"index": 0, "sentence": "Fish swim ."}])
    data = load_data(tmp_path / "CoLA")
    assert data.train.texts == [row[3] for row in rows]
    assert data.train.labels == [1, 0, 1, 0]
    assert data.labels == ["unacceptable", "acceptable"]
    assert load_data(tmp_path / "CoLA", only="test", labels=data.labels).test.texts == ["Fish swim ."]


def test_the_corpus_behind_mrpc_is_recognised_by_its_names_in_any_folder(tmp_path: Path) -> None:
    rows = [{**MRPC, "Quality": number % 2} for number in range(8)]
    for name in ("train", "test"):
        path = write_plain(tmp_path / f"msr_paraphrase_{name}.txt", rows)
        path.write_text("\ufeff" + path.read_text(encoding="utf-8"), encoding="utf-8")
    data = load_data(tmp_path)
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 6, "validation": 2, "test": 8}
    assert data.metrics == ("accuracy", "f1")
    assert load_data(tmp_path / "msr_paraphrase_test.txt", only="test").test.texts == [ONE] * 8


def test_glues_own_mrpc_goes_before_the_corpus_that_it_was_made_of(tmp_path: Path) -> None:
    for name, count in (("train.tsv", 4), ("dev.tsv", 2), ("msr_paraphrase_train.txt", 6)):
        write_plain(tmp_path / "MRPC" / name, [{**MRPC, "Quality": number % 2} for number in range(count)])
    write_plain(tmp_path / "MRPC" / "dev_ids.tsv", [{"11": "12"}])
    data = load_data(tmp_path / "MRPC")
    assert (len(data.train), len(data.validation)) == (4, 2)


def test_an_open_quotation_mark_swallows_no_rows(tmp_path: Path) -> None:
    marks = ['"So', 'it is"', '"', 'She said " no', "plain", "plain"]
    rows = [{**MRPC, "Quality": number % 2, "#1 String": mark} for number, mark in enumerate(marks)]
    write_plain(tmp_path / "MRPC" / "train.tsv", rows)
    write_plain(tmp_path / "MRPC" / "dev.tsv", rows)
    assert load_data(tmp_path / "MRPC").train.texts == marks


def test_mnlis_validation_is_the_matched_one_and_the_other_can_be_asked_for(tmp_path: Path) -> None:
    rows = [{**MNLI, "gold_label": name} for name in ("neutral", "entailment", "contradiction")] * 2
    write_plain(tmp_path / "MNLI" / "train.tsv", rows)
    write_plain(tmp_path / "MNLI" / "dev_matched.tsv", rows[:2])
    write_plain(tmp_path / "MNLI" / "dev_mismatched.tsv", rows[:3])
    write_plain(tmp_path / "MNLI" / "test_matched.tsv", [NLI])
    data = load_data(tmp_path / "MNLI")
    assert (len(data.validation), len(data.split("validation_mismatched"))) == (2, 3)
    other = load_data(tmp_path / "MNLI", only="validation_mismatched", labels=data.labels)
    assert other.split("validation_mismatched").labels == [1, 0, 2]


def test_the_hubs_mnli_has_its_splits_by_the_same_names(hub: dict[str, Any]) -> None:
    task = named_task("glue/mnli")
    assert task is not None
    rows = labelled(task, {"premise": ONE, "hypothesis": TWO})
    hub["splits"] = {name: HubRows(rows) for name in ("train", "validation_matched", "validation_mismatched")}
    assert set(load_data("glue/mnli").splits) == {"train", "validation", "validation_mismatched"}


def test_rows_of_qqp_that_lack_a_question_are_left_out_and_counted(tmp_path: Path, caplog) -> None:
    whole = [[1, 2, 3, ONE, TWO, 0], [2, 3, 4, ONE, TWO, 1]] * 2
    write_plain(
        tmp_path / "QQP" / "train.tsv",
        [
            ["id", "qid1", "qid2", "question1", "question2", "is_duplicate"],
            *whole,
            [9, 8, 7, "Cut"],
            [5, 6, 7, "", ONE, 1],
        ],
    )
    write_plain(tmp_path / "QQP" / "dev.tsv", [{"id": 1, "question1": ONE, "question2": TWO, "is_duplicate": 1}])
    assert len(load_data(tmp_path / "QQP").train) == 4
    assert "skipped 2 rows without a text or a label" in caplog.text


def test_a_short_row_of_another_task_is_an_error_with_its_place(tmp_path: Path) -> None:
    path = write_plain(tmp_path / "SST-2" / "train.tsv", [["sentence", "label"], [ONE, 1], [ONE], [ONE, 0]])
    assert f"{path}, row 2 (line 3)" in message(path.parent)


def test_the_diagnostic_set_is_for_evaluation(tmp_path: Path) -> None:
    rows = [{"Domain": "news", "Premise": ONE, "Hypothesis": TWO, "Label": name} for name in ("neutral", "entailment")]
    write_plain(tmp_path / "diagnostic" / "diagnostic-full.tsv", rows)
    data = load_data(tmp_path / "diagnostic", only="test")
    assert (data.test.labels, data.metrics) == ([1, 0], ("matthews",))
    assert "has no split 'train'; it has test" in message(tmp_path / "diagnostic")


BOOLQ = {"question": ONE, "passage": TWO, "idx": 0}
WSC = {
    "text": "The cup broke when it fell.",
    "target": {"span1_index": 1, "span1_text": "cup", "span2_index": 4, "span2_text": "it"},
}
QUESTION = {"question": "Who rows?", "answers": [{"text": "Ada", "label": 1}, {"text": "Tom", "label": 0}]}


@pytest.mark.parametrize(
    ("folder", "rows", "text", "labels"),
    [
        ("BoolQ", [{**BOOLQ, "label": truth} for truth in (True, False)], ONE, [1, 0]),
        (
            "CB",
            [{"premise": ONE, "hypothesis": TWO, "label": name} for name in ("neutral", "entailment")],
            ONE,
            [2, 0],
        ),
        (
            "COPA",
            [
                {"premise": "Rain fell.", "choice1": "A", "choice2": "B", "question": "effect", "label": n}
                for n in (1, 0)
            ],
            "Rain fell. What happened as a result?",
            [1, 0],
        ),
        ("MultiRC", [{"passage": {"text": TWO, "questions": [QUESTION]}}], "Who rows? Ada", [1, 0]),
        (
            "RTE",
            [{"premise": ONE, "hypothesis": TWO, "label": name} for name in ("not_entailment", "entailment")],
            ONE,
            [1, 0],
        ),
        (
            "WiC",
            [{"word": "row", "sentence1": "Row on.", "sentence2": TWO, "label": truth} for truth in (False, True)],
            "row: Row on.",
            [0, 1],
        ),
        ("WSC", [{**WSC, "label": truth} for truth in (True, False)], "The cup broke when *it* fell.", [1, 0]),
    ],
)
def test_superglues_own_files_are_recognised(
    folder: str, rows: list[Row], text: str, labels: list[int], tmp_path: Path
) -> None:
    write_json(tmp_path / folder / "train.jsonl", rows * 2)
    write_json(tmp_path / folder / "val.jsonl", rows)
    write_json(tmp_path / folder / "test.jsonl", [{k: v for k, v in row.items() if k != "label"} for row in rows])
    data, task = load_data(tmp_path / folder), named_task(f"super_glue/{folder}")
    assert task is not None
    assert (data.validation.texts[0], data.validation.labels, data.labels) == (text, labels, [*task.labels])
    assert data.metrics == task.metrics


def test_both_benchmarks_rte_are_told_apart_by_their_columns(tmp_path: Path) -> None:
    rows = [{"premise": ONE, "hypothesis": TWO, "label": number} for number in (0, 1)] * 2
    write_json(tmp_path / "rte" / "train.jsonl", rows)
    assert load_data(tmp_path / "rte").columns.text == "premise"


@pytest.mark.parametrize(
    ("row", "reason"),
    [({"premise": ONE}, "it has no 'question'"), ({"premise": ONE, "question": "why"}, "it has no 'why'")],
)
def test_a_damaged_row_is_named_with_what_it_lacks(row: Row, reason: str, tmp_path: Path) -> None:
    whole = {"premise": ONE, "choice1": "A", "choice2": "B", "question": "effect", "label": 1}
    path = write_json(tmp_path / "COPA" / "train.jsonl", [whole, row])
    said = message(path.parent)
    assert str(path) in said
    assert reason in said


def test_record_says_why_it_cannot_be_learned(tmp_path: Path) -> None:
    assert "there are no classes to learn" in message("super_glue/record")
    rows = [{"passage": {"text": ONE, "entities": []}, "qas": [{"query": "@placeholder fell."}]}]
    write_json(tmp_path / "ReCoRD" / "train.jsonl", rows)
    assert "there are no classes to learn" in message(tmp_path / "ReCoRD")


@pytest.mark.parametrize(
    ("source", "hint"),
    [
        ("glue/mrcp", "did you mean 'glue/mrpc'?"),
        ("glue/boolq", "did you mean 'super_glue/boolq'?"),
        ("super_glue/boolqs", "did you mean 'super_glue/boolq'?"),
        ("nyu-mll/glue/sts", "did you mean 'glue/stsb'?"),
        ("glue/no-such-thing", "it has cola, sst2"),
        ("glue", "name one, such as glue/rte: cola"),
    ],
)
def test_a_wrong_name_is_answered_with_the_nearest(source: str, hint: str) -> None:
    assert hint in message(source)


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("GLUE/MRPC", "glue/mrpc"),
        ("glue/STS-B", "glue/stsb"),
        ("nyu-mll/glue/sst-2", "glue/sst2"),
        ("superglue/BoolQ", "super_glue/boolq"),
        ("aps/super_glue/wsc.fixed", "super_glue/wsc"),
    ],
)
def test_a_name_may_be_spelt_as_the_benchmark_does(source: str, name: str) -> None:
    assert named_task(source) == named_task(name) is not None


def test_other_names_are_none_of_a_benchmark() -> None:
    assert named_task("owner/glue") is None
    assert named_task("imdb") is None


def test_a_folder_that_only_has_a_tasks_name_is_read_as_any_other(tmp_path: Path) -> None:
    rows = [{"sentence1": ONE, "sentence2": TWO, "label": name} for name in ("same", "other")] * 2
    write_json(tmp_path / "mrpc" / "train.jsonl", rows)
    data = load_data(tmp_path / "mrpc")
    assert (data.labels, data.metrics) == (["other", "same"], ())


def test_columns_that_are_named_win_over_the_tasks(tmp_path: Path) -> None:
    write_plain(tmp_path / "MRPC" / "train.tsv", [{**MRPC, "Quality": number % 2} for number in range(6)])
    one = load_data(tmp_path / "MRPC", text="#2 String")
    assert (one.train.texts[0], one.train.pairs, one.metrics) == (TWO, None, ("accuracy", "f1"))
    other = load_data(tmp_path / "MRPC", label="#1 ID", only="train", labels=["11"])
    assert other.metrics == ()


def test_a_folder_of_task_folders_is_answered_with_one_of_them(tmp_path: Path) -> None:
    write_plain(tmp_path / "MRPC" / "train.tsv", [MRPC])
    assert f"such as '{tmp_path / 'MRPC'}'" in message(tmp_path)


def test_the_tables_of_a_folder_begin_with_train(tmp_path: Path) -> None:
    for name in ("dev", "test", "train"):
        write_plain(tmp_path / f"{name}.tsv", [{"text": ONE, "label": 1}])
    found = sources.find_tables(str(tmp_path), None, None)
    assert (next(iter(found.tables)), found.task) == ("train", None)
