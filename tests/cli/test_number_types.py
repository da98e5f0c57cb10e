"""Adapters that are measured in another number type than the one that they were trained in."""

from __future__ import annotations

import json

import pytest

from ptune.cli import main


@pytest.fixture(scope="module")
def trained(backbone_folder, reviews, tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapter")
    places = ["--backbone", str(backbone_folder("bert")), "--data", str(reviews), "--output", str(folder)]
    main(["train", *places, "--epochs", "1", "--dtype", "bfloat16", "--objective", "labels", "--device", "cpu"])
    return folder


def test_the_adapter_records_the_type(trained):
    assert json.loads((trained / "ptune.json").read_text())["training"]["dtype"] == "bfloat16"


def test_evaluate_says_what_training_measured_in_another_type(trained, reviews, capsys):
    path = trained / "ptune.json"
    record = json.loads(path.read_text())
    record["metrics"]["accuracy"] = 0.123
    path.write_text(json.dumps(record))
    command = ["evaluate", str(trained), "--data", str(reviews), "--device", "cpu", "--dtype"]
    main([*command, "float32"])
    assert "this is float32 on cpu; training measured accuracy 0.1230" in capsys.readouterr().out
    main([*command, "bfloat16"])
    assert "training measured" not in capsys.readouterr().out
