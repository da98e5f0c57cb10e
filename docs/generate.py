"""Write the pages that come from the code and from measurements. `make docs` runs it.

docs/cli.md, docs/families.md and docs/glue.md come from the code, the families outside of the table from
docs/families.json (`make families`); docs/quality.md and the table in both READMEs from
the newest results of benchmarks/quality.py, docs/speed.md from those of the other benchmarks. A test compares the
files with what this writes, so that they cannot fall behind.
"""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent
COMMANDS = ("train", "evaluate", "predict", "inspect", "push", "demo", "completion")
WIDTH = 100
RESULTS = DOCS.parent / "benchmarks" / "results"
BEGIN, END = "<!-- quality: written by docs/generate.py -->", "<!-- end of quality -->"
METHODS = {
    "full": "full fine-tuning",
    "guide": "PEFT, the guide's recipe",
    "prefix": "PEFT, prefix tuning",
    "p-tuning": "ptune, `p-tuning`",
    "default": "**ptune, defaults**",
    "ensemble": "ptune, `--seeds 5 --ensemble`",
}
METHODS_ZH = {
    "full": "全量微调",
    "guide": "PEFT，按指南的做法",
    "prefix": "PEFT，prefix tuning",
    "p-tuning": "ptune，`p-tuning`",
    "default": "**ptune，默认设置**",
    "ensemble": "ptune，`--seeds 5 --ensemble`",
}
READMES = {DOCS.parent / "README.md": (METHODS, "trained"), DOCS.parent / "README.zh-CN.md": (METHODS_ZH, "训练参数")}
TASKS = {
    "mrpc": "MRPC",
    "sst2": "SST-2",
    "trec6": "TREC-6",
    "clinc150": "CLINC150",
    "sms": "SMS spam",
    "qnli": "QNLI",
}
SAMPLED = ("sst2", "qnli")  # tasks of which a sample is trained on


def cli_page() -> str:
    """The help of every command, as it is printed."""
    from ptune.cli import make_app

    parts = ["# Command line", "", "Made from the code by `make docs`.", ""]
    for command in ((), *((name,) for name in COMMANDS)):
        parts += [f"## {' '.join(('ptune', *command))}", "", "```text", _help(make_app(), list(command)), "```", ""]
    return "\n".join(parts)


def families_page() -> str:
    """The table of families, with what each column says."""
    from ptune.model.families import FAMILIES

    rows = [
        "| family | `model_type` | kind | head of the `peft` layout | deep prompts | PEFT reads deep | positions | "
        "segments | norm first | language-model head | default pooling |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for family in FAMILIES.values():
        cells = (
            family.name,
            f"`{family.model_type}`",
            "decoder" if family.decoder else "encoder",
            family.head,
            "layers run by ptune" if family.layers else _ROUTES[family.deep],
            "yes" if family.peft_prefix else "no",
            family.positions.replace("_", " "),
            "yes" if family.token_types else "no",
            "yes" if family.norm_first else "no",
            ", ".join(f"`{name}`" for name in family.language_transform) or "linear",
            family.default_pooling,
        )
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join([_FAMILIES_TEXT, *rows, "", *_observed_families(set(FAMILIES)), ""])


_ROUTES = {"attention": "attention function", "hooks": "hooks", "cache": "past keys and values", None: "no"}


def _observed_families(listed: set[str]) -> list[str]:
    """What was seen of the families outside of the table, and which of all are refused."""
    verdicts = json.loads((DOCS / "families.json").read_text(encoding="utf-8"))
    counts = {works: sum(verdict["works"] == works for verdict in verdicts) for works in ("deep", "shallow", "refused")}
    rows = [
        "| `model_type` | kind | head of the `peft` layout | deep prompts | softmax | PEFT reads deep | positions | "
        "segments | norm first |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for verdict in verdicts:
        if verdict["works"] == "refused" or verdict["model_type"] in listed:
            continue
        cells = (
            f"`{verdict['model_type']}`",
            "decoder" if verdict["decoder"] else "encoder",
            verdict["head"] or "",
            _ROUTES[verdict["deep"]] if verdict["deep"] else f"no: {verdict['reason']}",
            ", ".join(verdict["softmax"]),
            "yes" if verdict["peft_deep"] else "no",
            verdict["positions"].replace("_", " "),
            "yes" if verdict["segments"] else "no",
            "yes" if verdict["norm_first"] else "no",
        )
        rows.append("| " + " | ".join(cells) + " |")
    refused = ["| `model_type` | why |", "|---|---|"]
    refused += [f"| `{v['model_type']}` | {v['reason']} |" for v in verdicts if v["works"] == "refused"]
    return [_OBSERVED_TEXT.format(total=len(verdicts), **counts), *rows, "", _REFUSED_TEXT, *refused]


def glue_page() -> str:
    """The table of GLUE's and SuperGLUE's tasks."""
    from ptune.data.glue import TASKS, TITLES

    rows = ["| `--data` | task | text | pair | labels, in index order | judged by |", "|---" * 6 + "|"]
    for task in TASKS:
        cells = (
            f"`{task.source}`",
            f"{TITLES[task.benchmark]} {task.title}",
            f"`{task.columns.text}`",
            f"`{task.columns.text_pair}`" if task.columns.text_pair else "",
            ", ".join(f"`{name}`" for name in task.labels) or "a number",
            ", ".join(f"`{name}`" for name in task.figures),
        )
        if not task.refusal:
            rows.append("| " + " | ".join(cells) + " |")
    return "\n".join([_GLUE_TEXT, *rows, "", *_refusals(TASKS)])


def _refusals(tasks) -> list[str]:
    return [f"`{task.source}` is refused: {task.title} {task.refusal}.\n" for task in tasks if task.refusal]


def quality_page() -> str:
    """What each method reaches on each task, with spread, size and time."""
    parts = [_QUALITY_TEXT]
    for results in newest_results():
        facts, backbone = results["facts"], results["backbone"]
        parts.append(f"## {backbone}, {_dtype(results)}\n")
        machines = {cell.get("processor", facts["processor"]): None for cell in results["cells"]}
        parts.append(
            f"{facts['date']}, {' and '.join(machines)}, torch {facts['versions']['torch']}, "
            f"peft {facts['versions']['peft']}.\n"
        )
        parts.append(_QUALITY_HEAD)
        for line in _ordered(results["summary"]):
            cells = [_task(line["task"], results), METHODS.get(line["method"], line["method"])]
            cells += [_spread(line, "validation"), _spread(line, "test"), f"{line['validation']['lowest']:.1f}"]
            cells += [f"{line['trained_percent']:.2f}", f"{line['seconds']}", ", ".join(map(str, line["seeds"]))]
            parts.append("| " + " | ".join(cells) + " |")
        parts.append("")
    return "\n".join(parts)


def quality_table(said: dict[str, str], trained: str) -> str:
    """The README's table: tasks by methods, mean accuracy over seeds on test where there is one, else validation.

    Of two number types that with more seeds, or the later one.

    said: what methods are called. trained: the head of the last column, the share of the parameters that is trained.
    """
    lines: dict[tuple[str, str], dict[str, Any]] = {}
    titles: dict[str, str] = {}
    for results in newest_results():
        for line in results["summary"] if "minilm" in results["backbone"] else []:
            titles[line["task"]] = _task(line["task"], results)
            place = line["task"], line["method"]
            if place not in lines or len(line["seeds"]) >= len(lines[place]["seeds"]):
                lines[place] = line
    tasks = [task for task in TASKS if (task, "default") in lines]
    methods = [method for method in METHODS if any((task, method) in lines for task in tasks)]
    rows = ["| | " + " | ".join(titles[task] for task in tasks) + f" | {trained} |", "|---" * (len(tasks) + 2) + "|"]
    for method in methods:
        cells = [_mean(lines.get((task, method))) for task in tasks]
        share = max(line["trained_percent"] for (_, other), line in lines.items() if other == method)
        rows.append(f"| {said[method]} | " + " | ".join(cells) + f" | {share:.2f} % |")
    return "\n".join(rows)


def _task(name: str, results: dict[str, Any]) -> str:
    """A task's name, with the rows that were trained on where they are a sample."""
    rows = next(cell["train_rows"] for cell in results["cells"] if cell["task"] == name)
    return TASKS.get(name, name) + (f", {rows:,} rows" if name in SAMPLED else "")


def with_quality_table(readme: Path) -> str:
    """A README with its table as measured."""
    text = readme.read_text(encoding="utf-8")
    return re.sub(f"{BEGIN}.*?{END}", f"{BEGIN}\n{quality_table(*READMES[readme])}\n{END}", text, flags=re.DOTALL)


def newest_results() -> list[dict[str, Any]]:
    """The newest results file of benchmarks/quality.py for each backbone and number type."""
    newest: dict[tuple[str, str], dict[str, Any]] = {}
    for path in sorted(RESULTS.glob("*quality-*.json"), key=_by_date):
        results = json.loads(path.read_text(encoding="utf-8"))
        key = results["backbone"], _dtype(results)
        newest.pop(key, None)  # so that the order is that of the dates
        newest[key] = results
    return list(newest.values())


def _dtype(results: dict[str, Any]) -> str:
    """Of the frozen backbone."""
    return str(results["cells"][0].get("dtype", "float32"))


def speed_page() -> str:
    """Speed beside PEFT in training and prediction, memory, and how long it takes to start."""
    parts = [_SPEED_TEXT]
    for kind, (title, head, columns) in _SPEED_TABLES.items():
        rule = "|" + "---|" * (len(columns) + 1)
        parts.append(f"## {title}\n")
        for (model, _), (facts, dtype, table) in newest_tables(kind).items():
            parts.append(f"{model}, {_conditions(facts, dtype)}:\n")
            parts.append(f"| {head} |\n{rule}")
            for line, figures in table.items():
                cells = [_figure(figures, key, format_) for key, format_ in columns.items()]
                parts.append("| " + " | ".join([line, *cells]) + " |")
            parts.append("")
    return "\n".join(parts)


def newest_tables(kind: str) -> dict[tuple[str, str], tuple[dict[str, Any], str, dict[str, Any]]]:
    """By model with number type and by machine, the newest table of a benchmark, with the facts of its run."""
    newest = {}
    for path in sorted(RESULTS.glob(f"*{kind}-[0-9]*.json"), key=_by_date):
        results = json.loads(path.read_text(encoding="utf-8"))
        facts, dtype = results["facts"], results["options"].get("dtype", "float32")
        for model, table in results.get("tables", {}).items():
            name = model if dtype == "float32" else f"{model} in {dtype}"
            newest[name, facts["gpu"] or facts["processor"]] = (facts, dtype, table)
    return dict(sorted(newest.items(), key=lambda item: item[0][0]))


def _by_date(path: Path) -> tuple[str, str]:
    """Results in the order of their dates, those of a day by name."""
    return path.stem[-10:], path.stem


def _conditions(facts: dict[str, Any], dtype: str) -> str:
    where = facts["gpu"] or f"{facts['processor']}, {facts['threads']} threads"
    versions = ", ".join(f"{name} {facts['versions'][name]}" for name in ("torch", "transformers", "peft"))
    return f"{dtype}, {where}, {versions}, {facts['date']}"


def _figure(figures: dict[str, Any], key: str, format_: str) -> str:
    return format_.format(figures[key]) if key in figures else ""


def _ordered(summary: list[dict[str, Any]]) -> list[dict[str, Any]]:
    tasks, methods = list(TASKS), list(METHODS)

    def place(line: dict[str, Any]) -> tuple[int, int]:
        task, method = line["task"], line["method"]
        return (
            tasks.index(task) if task in tasks else len(tasks),
            methods.index(method) if method in methods else len(methods),
        )

    return sorted(summary, key=place)


def _spread(line: dict[str, Any], split: str) -> str:
    if split not in line:
        return ""
    own = line[split]
    spread = f" ± {own['spread']:.1f}" if len(line["seeds"]) > 1 else ""
    return f"{own['accuracy']:.1f}{spread} / {own['f1']:.1f}"


def _mean(line: dict[str, Any] | None) -> str:
    """Accuracy where several seeds stand behind it; one seed alone is marked."""
    if line is None:
        return ""
    split = "validation" if line["task"] == "mrpc" or "test" not in line else "test"
    return f"{line[split]['accuracy']:.1f}" + ("" if len(line["seeds"]) > 2 else f" ({len(line['seeds'])})")


_QUALITY_TEXT = """# Quality

Made from the results of `benchmarks/quality.py` by `make docs`.

Every method sees the same rows and keeps its best epoch on validation. Accuracy and F1 (binary with two classes, else
macro) in percent, mean over seeds ± standard deviation; "lowest" is the lowest accuracy of any seed on validation.
Full fine-tuning has four epochs at the best of three learning rates. In bfloat16 ptune's frozen backbone is of that type and the peers
run under autocast to it; what is trained stays float32.
"""
_SPEED_TEXT = """# Speed

Made from the results of the benchmarks by `make docs`; each table is one run, in which the peer and ptune take turns and
the best round counts. Commands and every round are in [benchmarks/results](../benchmarks/results), what was tried in
the [log](log.md). Rows are as long as MRPC's. PEFT is its guide's method: `P_TUNING`, 20 virtual tokens, batches of 32 in
random order, padded to their longest row.

A floor is the time of the matrix products that a step cannot do without, and of nothing else: the share of it that is
reached cannot come to 1.
"""
# By benchmark: title, head of the table, and its columns with how they are printed.
_SPEED_TABLES = {
    "train_speed": (
        "Training",
        "| rows a second | times PEFT | share of the floor's speed",
        {"rows_per_second": "{:.1f}", "ratio": "{:.2f}", "floor": "{:.2f}"},
    ),
    "predict_speed": (
        "Prediction of a file",
        "| rows a second | times PEFT | accuracy, % | time beside no prompt",
        {"rows_per_second": "{:.1f}", "ratio": "{:.2f}", "accuracy": "{:.2f}", "over no prompt": "{:.3f}"},
    ),
    "memory": (
        "Memory in training",
        "| MB when loaded | MB at the peak",
        {"loaded": "{}", "peak": "{}"},
    ),
    "startup": ("Start", "| seconds", {"seconds": "{:.2f}"}),
}
_QUALITY_HEAD = """| task | method | validation | test | lowest | trained, % | seconds | seeds |
|---|---|---|---|---|---|---|---|"""


def _help(app, tokens: list[str]) -> str:
    from rich.console import Console

    console = Console(file=io.StringIO(), width=WIDTH, force_terminal=False, no_color=True)
    app.help_print(tokens, console=console)
    return "\n".join(line.rstrip() for line in console.file.getvalue().strip().splitlines())


_FAMILIES_TEXT = """# Families of backbones

Made by `make docs` from `ptune/model/families.py` and from `docs/families.json`, which a test of all families writes.

The families of the first table are known by their configuration's `model_type`. A backbone of any other type is looked at
when it is loaded, and checked for about a second ([below](#families-outside-of-the-table)).

- **head of the `peft` layout**: which of transformers' classification heads the family has. `pooler`: the pretrained
  pooler over position 0, then a linear layer. `first_token`: dense and output layer over position 0.
  `pre_classifier`, `context_pooler`, `prediction_head`: the family's own. `score`: one linear layer without bias over
  the last text token. The other poolings have one linear layer, whatever the family.
- **deep prompts**: how keys and values reach the layers. `attention function`: the one that transformers calls in every
  layer is ptune's. `layers run by ptune`: transformers' modules in a loop of ptune's own. `hooks`: on the projection to
  queries and on the output projection of each layer, for a prompt with a softmax of its own; a shared softmax, and with
  it `--pooling peft` and `--init text`, takes `past keys and values`, which BLOOM has and the first
  DeBERTa has not. Where it says
  no, use `--method p-tuning`; that is then the default.
- **PEFT reads deep**: whether PEFT's `PREFIX_TUNING` runs on the family (peft 0.21). `p-tuning` and `prompt-tuning`
  adapters in the `peft` layout it reads wherever the embeddings are as wide as the hidden states, so not for ALBERT
  and ELECTRA-small, and not for OPT-350m.
- **positions**: `zero`: text counts from 0. `after padding`: from one after the embedding's padding position.
  `none`: the model takes no positions; BLOOM's attention counts distances.
- **segments**: whether the two texts of a pair get segment ids.
- **norm first**: whether layers normalise what they read and not what they have added up. What a deep prompt adds then
  stays to the end, and by default it learns at a rate forty times smaller.
- **language-model head**: what a verbalizer reads words with. `linear`: a decoder's one layer. Else the modules of
  transformers' masked language model in front of the words' weights. Checkpoints of sentence encoders, classifiers and
  ELECTRA's discriminator lack it, and those of DeBERTa-v3 keep it in a form that is not read.

Rows are padded on the right in every family. A tokenizer without a padding token pads with its end token, which is
masked. Tokenizers that set the two texts of a pair side by side with nothing between them (GPT-2, Llama) get a line
break in between; the adapter records it.
"""

_OBSERVED_TEXT = """## Families outside of the table

Of a backbone of another type ptune sees for itself whether it is causal, where its embeddings are, which positions and
segments it takes, what its layers' attention works with and which head transformers has for it. Then it checks, on two
short rows and for each way in which a prompt can enter:

- a row's answer does not depend on the other rows in its batch: to 1e-5 of its size in float32, 5 % in float16 and 25 %
  in bfloat16, whose rounding depends on the shape of a batch
- another prompt gives another answer
- gradients reach the prompt
- a prompt with values of zero under a softmax of its own changes nothing

What works is used and said in one line; if prompts at the input fail, the backbone is refused with what failed. From
Python, `ptune.model.selfcheck.failure` makes the checks on any backbone.

transformers has a sequence classifier of text for {total} types. Tiny random models of all of them were tried: {deep} take
deep prompts, {shallow} prompts at the input alone, {refused} are refused. Those that the first table lacks:
"""
_REFUSED_TEXT = """Where the head's column is empty, `--pooling peft` is not possible, and `p-tuning` has another pooling by default.

Refused:
"""

_GLUE_TEXT = """# GLUE and SuperGLUE

Made from `ptune/data/glue.py` by `make docs`. The tasks of both benchmarks are known by name: what their columns and
labels are, and which figures they are judged by. These are what training and evaluation print, and the first of them
picks the best epoch (`--best` overrules it); `--json` has all figures.

```bash
ptune train --backbone roberta-large --data glue/mrpc --output mrpc
ptune evaluate mrpc --data glue/mrpc
```

`--data glue/mrpc` comes from the Hub: `nyu-mll/glue`, or `aps/super_glue`. Spelling is free: `GLUE/STS-B`,
`superglue/BoolQ`. Local copies are recognised, with the same columns and labels, so that adapters are the same:

- GLUE's tab-separated files, in which quotation marks are letters: `MRPC/train.tsv` and `dev.tsv`, `CoLA/train.tsv`
  without a header, `MNLI/dev_matched.tsv`. Rows of QQP's files that lack a question are left out, with a warning.
- the corpus behind MRPC, in a folder of any name: `msr_paraphrase_train.txt` and `msr_paraphrase_test.txt`. It has no
  validation file; a tenth of the training rows is held back.
- SuperGLUE's JSON Lines: `BoolQ/train.jsonl` and `val.jsonl`.
- Parquet files as on the Hub: `mrpc/train-00000-of-00001.parquet`.

The folder has the task's name, and its first row the task's columns and a label of it; else it is read as any other
folder. One file of such a folder is recognised too. Columns that are named (`--text`, `--text-pair`, `--label`) win;
with another label column the task's labels and figures are not used.

```bash
ptune train --backbone roberta-large --data path/to/MRPC --output mrpc-local
ptune evaluate mrpc-local --data path/to/MRPC/dev.tsv
```

- The test splits have no labels but on the benchmarks' servers, so they are neither read for training nor evaluated;
  `ptune predict --input` answers their rows. The test file of the corpus behind MRPC has labels: `--split test`.
- MNLI's validation split is the matched one. The other is `--split validation_mismatched`.
- AX, AX-b and AX-g are for evaluation alone, with `--split test` and an adapter of MNLI or RTE; AX from
  `diagnostic/diagnostic-full.tsv`, as the Hub's copy has no labels.
- What is neither a text nor a pair is written as one. COPA: the premise with the question in words, and `(1) first
  choice (2) second choice`. MultiRC: the question with an answer, and the paragraph; a row for each answer, so `f1` is
  the benchmark's F1a, and its exact match over a question's answers is not computed. WiC: `word: first sentence`, and
  the second sentence. WSC: the text with `*the pronoun*` marked, and the name that it may stand for. Texts for such an
  adapter are to be written the same way. The benchmarks' mean over two figures (MRPC, QQP, CB) is not computed.
"""


if __name__ == "__main__":
    (DOCS / "cli.md").write_text(cli_page(), encoding="utf-8")
    (DOCS / "families.md").write_text(families_page(), encoding="utf-8")
    (DOCS / "glue.md").write_text(glue_page(), encoding="utf-8")
    (DOCS / "quality.md").write_text(quality_page(), encoding="utf-8")
    (DOCS / "speed.md").write_text(speed_page(), encoding="utf-8")
    for readme in READMES:
        readme.write_text(with_quality_table(readme), encoding="utf-8")
