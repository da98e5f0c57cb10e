"""Adapters for the tests of this folder, trained once."""

from __future__ import annotations

import random

import pytest

from ptune.cli import main
from tests.conftest import WORDS, star_rows, topic_rows, write_jsonl

LOOKED_FOR = "film"  # the word that decides the label of the task `word`


def word_rows(count: int, seed: int) -> list[dict[str, str]]:
    """Texts of four to eleven words, every second of which has the word that is looked for."""
    rand, rows = random.Random(seed), []
    others = [word for word in WORDS if word != LOOKED_FOR]
    for number in range(count):
        words = rand.choices(others, k=rand.randint(4, 10))
        if number % 2:
            words.insert(rand.randint(0, len(words)), LOOKED_FOR)
        rows.append({"text": " ".join(words), "label": "yes" if number % 2 else "no"})
    return rows


@pytest.fixture(scope="package")
def trained(backbone_folder, tmp_path_factory):
    """Train an adapter for a task with some epochs, once for each; return its folder."""
    folder, made = tmp_path_factory.mktemp("trained"), {}
    tasks = {"word": (word_rows, "label"), "topics": (topic_rows, "labels"), "stars": (star_rows, "stars")}

    def train(task: str, epochs: int, *options: str):
        key = (task, epochs, options)
        if key not in made:
            rows, label = tasks[task]
            data = folder / task
            if not data.exists():
                data.mkdir()
                write_jsonl(data / "train.jsonl", rows(300, seed=1))
                write_jsonl(data / "validation.jsonl", rows(60, seed=2))
            made[key] = folder / f"{task}-{len(made)}"
            arguments = ["--backbone", backbone_folder("bert"), "--data", data, "--output", made[key], "--label", label]
            main([*map(str, ["train", *arguments, "--epochs", epochs]), *options])
        return made[key]

    return train
