"""Python and the command line train the same adapter, to the byte, and say nothing that the other does not."""

from __future__ import annotations

import pytest

import ptune
from ptune.cli import main
from tests.conftest import review_rows, star_rows, topic_rows, write_jsonl


@pytest.mark.parametrize(
    ("rows", "label", "family"),
    [
        (review_rows(160), "label", "bert"),
        (review_rows(40), "label", "llama"),  # few rows: a start from words
        (topic_rows(60), "labels", "bert"),
        (star_rows(60), "stars", "roberta"),
    ],
    ids=["labels", "few rows", "several labels", "numbers"],
)
def test_both_ways_give_the_same_bytes(rows, label, family, language_model_folder, tmp_path, capsys) -> None:
    backbone = str(language_model_folder(family))
    source = write_jsonl(tmp_path / "data.jsonl", rows)
    arguments = ["--backbone", backbone, "--data", str(source), "--label", label, "--output", str(tmp_path / "b")]
    main(["train", *arguments, "--epochs", "2"])

    data = ptune.load_data(source, label=label)
    model = ptune.PromptClassifier.for_data(backbone, data)
    ptune.train(model, data, ptune.TrainConfig(epochs=2), output=tmp_path / "a")

    names = {path.name for path in (tmp_path / "a").iterdir()}
    by_command = {path.name for path in (tmp_path / "b").iterdir()}
    assert {"adapter_model.safetensors", "ptune.json"} <= names == by_command - {"options.json", "report.html"}
    for name in names - {"metrics.jsonl", "checkpoint.safetensors"}:  # which hold times
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name
