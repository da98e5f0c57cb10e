"""Write the pages that come from the code and from measurements. `make docs` runs it.

docs/cli.md and docs/families.md come from the code; docs/quality.md and the table in README.md from the newest results
of benchmarks/quality.py. A test compares the files with what this writes, so they cannot fall behind.
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
README = DOCS.parent / "README.md"
BEGIN, END = "<!-- quality: written by docs/generate.py -->", "<!-- end of quality -->"
METHODS = {
    "full": "full fine-tuning",
    "guide": "PEFT, the guide's recipe",
    "prefix": "PEFT, prefix tuning",
    "p-tuning": "ptune, `p-tuning`",
    "default": "**ptune, defaults**",
    "ensemble": "ptune, `--seeds 5 --ensemble`",
}
TASKS = {
    "mrpc": "MRPC",
    "sst2": "SST-2, 10,000 rows",
    "trec6": "TREC-6",
    "clinc150": "CLINC150",
    "sms": "SMS spam",
    "qnli": "QNLI, 4,366 rows",
}


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
        "segments | language-model head | default pooling |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    routes = {"attention": "attention function", "cache": "past keys and values", None: "no"}
    for family in FAMILIES.values():
        cells = (
            family.name,
            f"`{family.model_type}`",
            "decoder" if family.decoder else "encoder",
            family.head,
            routes[family.deep],
            "yes" if family.peft_prefix else "no",
            family.positions.replace("_", " "),
            "yes" if family.token_types else "no",
            ", ".join(f"`{name}`" for name in family.language_transform) or "linear",
            family.default_pooling,
        )
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join([_FAMILIES_TEXT, *rows, ""])


def quality_page() -> str:
    """What each method reaches on each task, with spread, size and time."""
    parts = [_QUALITY_TEXT]
    for results in newest_results():
        facts, backbone = results["facts"], results["backbone"]
        parts.append(f"## {backbone}\n")
        parts.append(
            f"{facts['date']}, {facts['processor']}, torch {facts['versions']['torch']}, "
            f"peft {facts['versions']['peft']}.\n"
        )
        parts.append(_QUALITY_HEAD)
        for line in _ordered(results["summary"]):
            cells = [TASKS.get(line["task"], line["task"]), METHODS.get(line["method"], line["method"])]
            cells += [_spread(line, "validation"), _spread(line, "test"), f"{line['validation']['lowest']:.1f}"]
            cells += [f"{line['trained_percent']:.2f}", f"{line['seconds']}", ", ".join(map(str, line["seeds"]))]
            parts.append("| " + " | ".join(cells) + " |")
        parts.append("")
    return "\n".join(parts)


def quality_table() -> str:
    """The README's table: tasks by methods, mean accuracy over seeds on test where there is one, else validation."""
    results = next(results for results in newest_results() if "minilm" in results["backbone"])
    lines = {(line["task"], line["method"]): line for line in results["summary"]}
    tasks = [task for task in TASKS if (task, "default") in lines]
    methods = [method for method in METHODS if any((task, method) in lines for task in tasks)]
    rows = ["| | " + " | ".join(TASKS[task] for task in tasks) + " | trained |", "|---" * (len(tasks) + 2) + "|"]
    for method in methods:
        cells = [_mean(lines.get((task, method))) for task in tasks]
        share = max(line["trained_percent"] for (_, other), line in lines.items() if other == method)
        rows.append(f"| {METHODS[method]} | " + " | ".join(cells) + f" | {share:.2f} % |")
    return "\n".join(rows)


def readme() -> str:
    """README.md with its table as measured."""
    text = README.read_text(encoding="utf-8")
    return re.sub(f"{BEGIN}.*?{END}", f"{BEGIN}\n{quality_table()}\n{END}", text, flags=re.DOTALL)


def newest_results() -> list[dict[str, Any]]:
    """The newest results file of benchmarks/quality.py for each backbone."""
    newest: dict[str, dict[str, Any]] = {}
    for path in sorted(RESULTS.glob("quality-*.json"), key=lambda path: path.stem[-10:]):
        results = json.loads(path.read_text(encoding="utf-8"))
        newest[results["backbone"]] = results
    return list(newest.values())


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
    return f"{own['accuracy']:.1f} ± {own['spread']:.1f} / {own['f1']:.1f}"


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
Full fine-tuning has the best of three learning rates.
"""
_QUALITY_HEAD = """| task | method | validation | test | lowest | trained, % | seconds | seeds |
|---|---|---|---|---|---|---|---|"""


def _help(app, tokens: list[str]) -> str:
    from rich.console import Console

    console = Console(file=io.StringIO(), width=WIDTH, force_terminal=False, no_color=True)
    app.help_print(tokens, console=console)
    return "\n".join(line.rstrip() for line in console.file.getvalue().strip().splitlines())


_FAMILIES_TEXT = """# Families of backbones

Made from `ptune/model/families.py` by `make docs`. A backbone works if its configuration's `model_type` is here.

- **head of the `peft` layout**: which of transformers' classification heads the family has. `pooler`: the pretrained
  pooler over position 0, then a linear layer. `first_token`: dense and output layer over position 0.
  `pre_classifier`, `context_pooler`, `prediction_head`: the family's own. `score`: one linear layer without bias over
  the last text token. The other poolings have one linear layer, whatever the family.
- **deep prompts**: how keys and values reach the layers. Where it says no, use `--method p-tuning`; that is then the
  default.
- **PEFT reads deep**: whether PEFT's `PREFIX_TUNING` runs on the family (peft 0.21). `p-tuning` and `prompt-tuning`
  adapters in the `peft` layout it reads wherever the embeddings are as wide as the hidden states, so not for ALBERT
  and ELECTRA-small, and not for OPT-350m.
- **positions**: `zero`: text counts from 0. `after padding`: from one after the embedding's padding position.
  `none`: the model takes no positions; BLOOM's attention counts distances.
- **segments**: whether the two texts of a pair get segment ids.
- **language-model head**: what a verbalizer reads words with. `linear`: a decoder's one layer. Else the modules of
  transformers' masked language model in front of the words' weights. Checkpoints of sentence encoders, classifiers and
  ELECTRA's discriminator lack it, and those of DeBERTa-v3 keep it in a form that is not read.

Rows are padded on the right in every family. A tokenizer without a padding token pads with its end token, which is
masked. Tokenizers that set the two texts of a pair side by side with nothing between them (GPT-2, Llama) get a line
break in between; the adapter records it.
"""


if __name__ == "__main__":
    (DOCS / "cli.md").write_text(cli_page(), encoding="utf-8")
    (DOCS / "families.md").write_text(families_page(), encoding="utf-8")
    (DOCS / "quality.md").write_text(quality_page(), encoding="utf-8")
    README.write_text(readme(), encoding="utf-8")
