"""README.md of an exported model, with the lines of Python that run it.

The lines need neither transformers nor ptune, and torch only for `to='torch'`. They are made from what is known about
the task, so they hold nothing that the model does not need.
"""

from __future__ import annotations

from pathlib import Path

from ptune.data.targets import MULTI, REGRESSION, SINGLE
from ptune.export.check import Check
from ptune.export.packages import Format
from ptune.export.task import Task
from ptune.version import __version__

README = "README.md"
_PACKAGES: dict[Format, str] = {"onnx": "onnxruntime", "openvino": "openvino", "torch": "torch"}
_NAMES: dict[Format, str] = {"onnx": "ONNX", "openvino": "OpenVINO", "torch": "torch.export"}
_OPTIMUM: dict[Format, str] = {
    "onnx": "`ORTModelForSequenceClassification.from_pretrained` of Hugging Face's optimum reads this folder.",
    "openvino": "`OVModelForSequenceClassification.from_pretrained` of Hugging Face's optimum reads this folder; with "
    '`ov_config={"INFERENCE_PRECISION_HINT": "f32"}` its answers are those above.',
}


def write_readme(task: Task, check: Check, folder: Path) -> None:
    """Write README.md to a folder."""
    (folder / README).write_text(readme(task, check), encoding="utf-8")


def readme(task: Task, check: Check) -> str:
    """Return the text of README.md.

    Args:
        task: what is known about the task.
        check: how the model compares with the original.
    """
    kind = {SINGLE: "one label for each text", MULTI: "any number of labels for each text"}
    what = "a number for each text" if task.problem_type == REGRESSION else kind[task.problem_type]
    if task.paired:
        what = what.replace("each text", "each pair of texts")
    inside = ["the learned prompt", "the head"]
    if task.members > 1:
        inside = [f"{task.members} learned prompts with their heads", "the rule that combines them"]
    if task.problem_type == SINGLE and task.temperature != 1:
        inside.append("the temperature that calibrates its probabilities")
    contents = f"{', '.join(inside[:-1])} and {inside[-1]}"
    lines = [
        f"# A text classifier in {_NAMES[task.to]}",
        "",
        f"It gives {what}. The graph holds the backbone `{Path(task.backbone).name}`, {contents}.",
        "",
        f"- labels: {', '.join(f'`{label}`' for label in task.labels[:20])}{', …' if len(task.labels) > 20 else ''}",
        f"- inputs: {', '.join(f'`{name}`' for name in task.input_names)}; any number of rows, of any length up to "
        f"{task.max_length} tokens, padded on the right",
        f"- check: {check.sentence(task.int8)}",
        *_notes(task),
        "",
        f"To run it, `pip install {_PACKAGES[task.to]} tokenizers numpy`, and in this folder:",
        "",
        "```python",
        script(task),
        "```",
        *(["", _OPTIMUM[task.to] + _pipeline_note(task)] if task.to in _OPTIMUM else []),
        "",
        f"Written by ptune {__version__}. config.json has the labels, and everything else in its section `ptune`.",
    ]
    return "\n".join(lines) + "\n"


def _notes(task: Task) -> list[str]:
    """Return the lines about what is not inside the graph."""
    lines = []
    if task.int8:
        lines.append("- precision: the weights of the linear layers have 8 bits")
    if task.template is not None:
        lines.append(f"- template: texts are written into `{task.template!r}`, and only they are cut")
    if task.pair_separator:
        lines.append(f"- pairs: `{task.pair_separator!r}` comes in front of the second text")
    if task.thresholds:
        shown = ", ".join(f"`{label}` {value:.4g}" for label, value in zip(task.labels, task.thresholds, strict=True))
        rule = "; where none applies, the most probable label does" if task.at_least_one else ""
        lines.append(f"- thresholds: a label applies above this probability: {shown}{rule}")
    return lines


def _pipeline_note(task: Task) -> str:
    """Return what a pipeline does not do by itself."""
    missing = []
    if task.template is not None:
        missing.append("write texts into the template")
    if task.pair_separator:
        missing.append("put the separator between the texts")
    if task.thresholds:
        missing.append("apply the thresholds")
    if "pair_position" in task.input_names:
        missing.append("give `pair_position`")
    return f" A pipeline does not {' or '.join(missing)} by itself." if missing else ""


def script(task: Task) -> str:
    """Return the lines of Python that run a model, with example texts in the variable `texts`."""
    imports = ["import json", *["from bisect import bisect_right"] * (task.template is not None)]
    runtime = {"onnx": "import onnxruntime", "openvino": "import openvino", "torch": "import torch"}[task.to]
    texts = '[("a first text", "its pair"), ("another", "and its pair")]' if task.paired else '["a text", "another"]'
    lines = [
        *imports,
        "",
        "import numpy as np",
        runtime,
        "from tokenizers import Tokenizer",
        "",
        f"texts = {texts}",
        'config = json.load(open("config.json", encoding="utf-8"))',
        f'tokenizer = Tokenizer.from_file("tokenizer.json")  # pads{"" if task.template else " and cuts"} by itself',
        *_prepare(task),
        f"rows = tokenizer.encode_batch({'[fit(text) for text in texts]' if task.template is not None else 'texts'})",
        "inputs = {",
        *(f'    "{name}": np.array({_INPUTS[name]}, np.int64),' for name in task.input_names),
        "}",
        *_RUN[task.to],
        *_answer(task),
    ]
    return "\n".join(lines)


_INPUTS = {
    "input_ids": "[row.ids for row in rows]",
    "attention_mask": "[row.attention_mask for row in rows]",
    "token_type_ids": "[row.type_ids for row in rows]",
    "pair_position": "[(row.sequence_ids + [1]).index(1) for row in rows]",
}
_RUN: dict[Format, list[str]] = {
    "onnx": ['session = onnxruntime.InferenceSession("model.onnx")', "(logits,) = session.run(None, inputs)"],
    "openvino": [
        'model = openvino.compile_model("openvino_model.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})',
        "logits = model(inputs)[0]",
    ],
    "torch": [
        'model = torch.export.load("model.pt2").module()',
        "with torch.no_grad():",
        "    logits = model(*map(torch.from_numpy, inputs.values())).numpy()",
    ],
}


def _prepare(task: Task) -> list[str]:
    """Return the lines that bring texts into the form that the tokenizer is given."""
    if task.template is not None:
        values = ["text=text.strip()[:most]"]
        if task.paired:
            values = ["text=text[0].strip()[:most]", "text_pair=text[1].strip()[:most]"]
        mask = [f"mask={task.mask_token!r}"] * ("{mask}" in task.template)
        longest = "max(map(len, text))" if task.paired else "len(text)"
        return [
            "",
            "def write(text, most=None):",
            f"    return {task.template!r}.format({', '.join([*values, *mask])})",
            "",
            f"def fit(text):  # with as many characters as {task.max_length} tokens have room for",
            "    def tokens(most):",
            "        return len(tokenizer.encode(write(text, most)).ids)",
            f"    if tokens(None) <= {task.max_length}:",
            "        return write(text)",
            f"    return write(text, bisect_right(range({longest}), {task.max_length}, key=tokens) - 1)",
            "",
        ]
    if task.pair_separator:
        return [f"texts = [(first, {task.pair_separator!r} + second) for first, second in texts]"]
    if task.blank:
        return [f"texts = [text or {task.blank!r} for text in texts]"]
    return []


def _answer(task: Task) -> list[str]:
    """Return the lines that turn logits into answers and print them."""
    if task.problem_type == REGRESSION:
        return ["print(logits[:, 0])"]
    if task.problem_type == MULTI:
        chosen = "np.flatnonzero(row > thresholds)"
        if task.at_least_one:
            chosen += ".tolist() or [row.argmax()]"
        return [
            'thresholds = np.array([*config["ptune"]["thresholds"].values()])',
            "for row in 1 / (1 + np.exp(-logits)):",
            f'    print([config["id2label"][str(number)] for number in {chosen}])',
        ]
    return [
        "scores = np.exp(logits - logits.max(axis=1, keepdims=True))",
        "scores /= scores.sum(axis=1, keepdims=True)",
        "for row in scores:",
        '    print(config["id2label"][str(row.argmax())], row.max())',
    ]
