"""The commands as other programs use them: names, exit codes, stdout, stderr and JSON."""

from __future__ import annotations

import csv
import gc
import importlib.util
import io
import json
import re
import signal
import subprocess
import sys
import time

import pytest

from ptune.adapter.folder import read_adapter
from ptune.cli import main
from ptune.data.load import load_data
from ptune.data.readers import read_columns, read_rows
from ptune.training.checkpoint import CHECKPOINT_FILE
from tests.conftest import star_rows, topic_rows, write_jsonl

needs_openvino = pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="needs the extra 'openvino'")


@pytest.fixture(scope="module")
def trained(backbone_folder, reviews, tmp_path_factory):
    """The folder of an adapter that `ptune train` wrote."""
    folder = tmp_path_factory.mktemp("adapter")
    main([*train_arguments(backbone_folder("bert"), reviews, folder), "--epochs", "3"])
    return folder


def train_arguments(backbone, data, output) -> list[str]:
    return ["train", "--backbone", str(backbone), "--data", str(data), "--output", str(output)]


def last_json(text: str) -> dict:
    return json.loads(text.splitlines()[-1])


def test_train_prints_one_json_object_and_everything_else_on_stderr(backbone_folder, reviews, tmp_path, capsys) -> None:
    arguments = train_arguments(backbone_folder("bert"), reviews, tmp_path / "a")
    main([*arguments, "--epochs", "2", "--virtual-tokens", "4", "--json"])
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 1
    answer = last_json(out)
    keys = {"metrics", "best_epoch", "epochs", "trainable_params", "all_params", "seconds", "examples_per_second"}
    assert keys | {"adapter"} <= answer.keys()
    assert {"accuracy", "f1", "loss"} <= answer["metrics"].keys()
    assert answer["epochs"] == 2
    assert answer["adapter"] == str(tmp_path / "a")
    assert f"trainable params: {answer['trainable_params']} || all params: {answer['all_params']} ||" in err
    assert "columns: text 'text', label 'label'" in err


def test_a_task_of_glue_is_judged_by_the_metric_of_the_benchmark(backbone_folder, tmp_path, capsys) -> None:
    rows = [["x", str(number % 2), "", f"a {word} film"] for number, word in enumerate(["good", "bad"] * 6)]
    for name in ("train.tsv", "dev.tsv"):
        (tmp_path / "CoLA").mkdir(exist_ok=True)
        (tmp_path / "CoLA" / name).write_text("".join("\t".join(row) + "\n" for row in rows), encoding="utf-8")
    (tmp_path / "CoLA" / "test.tsv").write_text("index\tsentence\n0\ta fine film\n", encoding="utf-8")
    main([*train_arguments(backbone_folder("bert"), tmp_path / "CoLA", tmp_path / "cola"), "--epochs", "2"])
    out, _ = capsys.readouterr()
    assert "GLUE's CoLA, measured by matthews" in out
    assert "split: the rows of test have no labels and are left out" in out
    assert ": validation Matthews " in out
    assert read_adapter(tmp_path / "cola").record.training["best"] == "matthews"
    main(["evaluate", str(tmp_path / "cola"), "--data", str(tmp_path / "CoLA")])
    printed = [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:6]]
    assert printed == ["matthews", "ece", "ece_raw", "loss", "count"]
    with pytest.raises(SystemExit):
        main(["evaluate", str(tmp_path / "cola"), "--data", str(tmp_path / "CoLA"), "--split", "test"])
    assert "the rows of test have no labels" in capsys.readouterr().err


@pytest.mark.parametrize(("options", "kept"), [(["--seeds", "2"], 1), (["--seeds", "2", "--ensemble"], 2)])
def test_train_counts_the_parameters_of_all_prompts_that_it_keeps(
    options, kept, backbone_folder, reviews, tmp_path, capsys
) -> None:
    arguments = train_arguments(backbone_folder("bert"), reviews, tmp_path)
    main([*arguments, "--epochs", "1", "--virtual-tokens", "4", "--json", *options])
    out, err = capsys.readouterr()
    answer = last_json(out)
    assert answer["trainable_params"] == kept * (4 * 2 * 2 * 32 + 2 * 32 + 2)
    assert f"trainable params: {answer['trainable_params']} || all params: {answer['all_params']} ||" in err


def test_train_speaks_to_people_on_stdout(backbone_folder, reviews, tmp_path, capsys) -> None:
    main([*train_arguments(backbone_folder("bert"), reviews, tmp_path), "--epochs", "1"])
    out, _ = capsys.readouterr()
    assert "trainable params: " in out
    assert "epoch 1/1: train loss" in out
    assert "majority class 0.5000" in out


@pytest.mark.parametrize(
    "options",
    [
        ["--method", "p-tuning", "--encoder", "lstm", "--encoder-hidden-size", "8"],
        ["--method", "prompt-tuning", "--init", "text", "--init-text", "good or bad"],
        ["--method", "deep", "--encoder", "residual", "--pooling", "peft"],
        ["--method", "p-tuning", "--tie-first", "--lr", "0.01", "--head-lr", "0.002", "--batch-size", "7"],
        ["--max-train-rows", "20", "--max-validation-rows", "8"],
        ["--max-train-rows", "20", "--text", "text", "--label", "label", "--seed", "5", "--max-length", "9"],
        ["--accumulate", "2", "--schedule", "cosine", "--patience", "1", "--best", "loss"],
    ],
)
def test_train_takes_its_options(options, backbone_folder, reviews, tmp_path, capsys) -> None:
    main([*train_arguments(backbone_folder("bert"), reviews, tmp_path), "--epochs", "1", "--json", *options])
    assert last_json(capsys.readouterr().out)["epochs"] == 1


def test_train_resumes(backbone_folder, reviews, tmp_path, capsys) -> None:
    arguments = [*train_arguments(backbone_folder("bert"), reviews, tmp_path), "--epochs", "2", "--json"]
    main(arguments)
    first = last_json(capsys.readouterr().out)
    main([*arguments, "--resume"])
    assert last_json(capsys.readouterr().out) == first


@pytest.mark.parametrize("ending", ["yaml", "toml", "json"])
def test_options_come_from_a_file_and_the_command_line_wins(ending, backbone_folder, reviews, tmp_path, capsys) -> None:
    values = {"backbone": str(backbone_folder("bert")), "data": str(reviews), "epochs": 3, "virtual_tokens": 7}
    values |= {"method": "p-tuning", "output": str(tmp_path / "a"), "json": True}
    path = tmp_path / f"run.{ending}"
    if ending == "toml":
        path.write_text("\n".join(f"{key} = {json.dumps(value)}" for key, value in values.items()))
    else:
        path.write_text(json.dumps(values))
    main(["train", "--config", str(path), "--epochs", "1"])
    assert last_json(capsys.readouterr().out)["epochs"] == 1
    record = json.loads((tmp_path / "a" / "ptune.json").read_text())
    assert record["prompt"]["virtual_tokens"] == 7
    assert record["prompt"]["method"] == "p-tuning"


def test_evaluate_gives_the_metrics_of_training(trained, reviews, capsys) -> None:
    main(["evaluate", str(trained), "--data", str(reviews), "--json"])
    answer = last_json(capsys.readouterr().out)
    recorded = json.loads((trained / "ptune.json").read_text())["metrics"]
    assert {name: answer[name] for name in recorded} == pytest.approx(recorded, abs=1e-6)  # in batches of another size
    assert {"accuracy", "f1", "f1_macro", "matthews", "loss", "count"} <= answer.keys()
    assert sum(map(sum, answer["confusion_matrix"])) == answer["count"] == 16
    assert answer["labels"] == ["negative", "positive"]


def test_evaluate_prints_a_confusion_matrix(trained, reviews, capsys) -> None:
    main(["evaluate", str(trained), "--data", str(reviews), "--split", "train"])
    out, _ = capsys.readouterr()
    assert "confusion matrix" in out
    assert "matthews" in out


@needs_openvino
def test_evaluate_in_another_precision_also_prints_the_metrics_of_float32(trained, reviews, capsys) -> None:
    arguments = ["evaluate", str(trained), "--data", str(reviews), "--precision", "int8"]
    main([*arguments, "--json"])
    answer = last_json(capsys.readouterr().out)
    main(["evaluate", str(trained), "--data", str(reviews), "--json"])
    plain = last_json(capsys.readouterr().out)
    assert answer["precision"] == "int8"
    assert answer["fp32"] == pytest.approx({name: plain[name] for name in answer["fp32"]}, abs=1e-6)
    assert answer["loss"] == pytest.approx(plain["loss"], abs=0.2)
    assert answer["loss"] != pytest.approx(plain["loss"], abs=1e-6)
    main(arguments)
    out, _ = capsys.readouterr()
    assert re.search(r"int8 +PyTorch fp32 +difference", out)
    assert re.search(r"loss( +\d\.\d{4}){2} +[+-]\d\.\d{4}", out)


@needs_openvino
def test_predict_takes_a_precision_and_replaces_a_damaged_graph(
    trained, backbone_folder, tmp_path, capsys, nothing_kept
) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text('{"text": "a good film"}\n{"text": "a bad film , very bad"}\n')
    main(["predict", str(trained), "--input", str(path), "--precision", "fp32"])
    compiled = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    for graph in backbone_folder("bert").glob("ptune-graphs/*float32*/graph.xml"):
        graph.write_text("<net>")
    gc.collect()  # the first command's graph would be used again
    main(["predict", str(trained), "--input", str(path), "--precision", "fp32"])
    out, err = capsys.readouterr()
    assert [json.loads(line) for line in out.splitlines()] == compiled
    assert "graph.xml' cannot be read; it will be built again" in err
    main(["predict", str(trained), "--input", str(path)])
    plain = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["scores"] for row in compiled] == [pytest.approx(row["scores"], abs=1e-4) for row in plain]


def test_evaluate_reads_one_file_whole_with_labels_as_numbers(trained, tmp_path, capsys) -> None:
    path = tmp_path / "some.csv"
    path.write_text("sentence,target\na good film,1\na bad film,0\nvery poor,0\n")
    main(["evaluate", str(trained), "--data", str(path), "--json"])
    answer = last_json(capsys.readouterr().out)
    assert answer["count"] == 3
    assert [sum(row) for row in answer["confusion_matrix"]] == [2, 1]
    main(["evaluate", str(trained), "--data", str(path), "--split", "test", "--json"])
    assert last_json(capsys.readouterr().out)["count"] == 3


def test_evaluate_an_adapter_of_pefts_whose_labels_the_backbone_knows(
    backbone_folder, reviews, tmp_path, capsys
) -> None:
    adapter, path = tmp_path / "a", tmp_path / "some.csv"
    main([*train_arguments(backbone_folder("bert"), reviews, adapter), "--method", "p-tuning", "--epochs", "1"])
    (adapter / "ptune.json").unlink()
    path.write_text("sentence,target\na good film,1\nvery good,1\nvery poor,0\n")
    capsys.readouterr()
    main(["evaluate", str(adapter), "--data", str(path), "--json"])
    answer = last_json(capsys.readouterr().out)
    assert answer["labels"] == ["LABEL_0", "LABEL_1"]
    assert [sum(row) for row in answer["confusion_matrix"]] == [1, 2]


def test_predict_one_text(trained, capsys) -> None:
    main(["predict", str(trained), "--text", "a good film", "--json"])
    out, _ = capsys.readouterr()
    answer = last_json(out)
    assert len(out.splitlines()) == 1
    assert set(answer) == {"label", "score", "scores"}
    assert list(answer["scores"]) == ["negative", "positive"]
    main(["predict", str(trained), "--text", "a good film"])
    assert "%" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="2"):
        main(["predict", str(trained), "--text", "a good film", "--text-pair", "fine"])
    message = "pairs of texts, but the adapter was trained on single texts ('text'); give only --text"
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("ending", ["jsonl", "csv", "tsv", "parquet"])
def test_predict_files_in_their_order_with_columns_kept(ending, trained, tmp_path, capsys) -> None:
    source = tmp_path / "in.csv"
    with source.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["number", "text", "note"])
        writer.writerows([n, "good film " * (1 + n % 5), f'say "{n}",\tand'] for n in range(40))
    target = tmp_path / f"out.{ending}"
    main(["predict", str(trained), "--input", str(source), "--output", str(target), "--json"])
    summary = last_json(capsys.readouterr().out)
    assert summary["rows"] == 40
    rows = list(read_rows(target))
    assert [str(row["number"]) for row in rows] == [str(n) for n in range(40)]
    assert rows[7]["note"] == 'say "7",\tand'
    score = rows[7]["scores"]["positive"] if ending == "jsonl" else rows[7]["score_positive"]
    assert 0 <= float(score) <= 1
    assert rows[7]["label"] in ("negative", "positive")


@pytest.mark.parametrize("ending", ["csv", "tsv", "parquet"])
def test_predict_a_file_without_rows_gives_one_with_all_columns(
    ending, trained, topics, stars, tmp_path, capsys
) -> None:
    source = tmp_path / "in.csv"
    source.write_text("number,text,label\n")
    answers = {
        trained: ["input_label", "label", "score", "score_negative", "score_positive"],
        topics[0]: ["label", "labels", "score_color", "score_number", "score_praise"],
        stars[0]: ["label", "value"],
    }
    for adapter, columns in answers.items():
        target = tmp_path / f"out.{ending}"
        main(["predict", str(adapter), "--input", str(source), "--output", str(target), "--json"])
        assert last_json(capsys.readouterr().out)["rows"] == 0
        assert list(read_rows(target)) == []
        assert read_columns(target) == ["number", "text", *columns]


def test_predict_a_file_to_stdout_is_json_lines(trained, tmp_path, capsys) -> None:
    source = tmp_path / "in.txt"
    source.write_text("good film\nbad film\n")
    main(["predict", str(trained), "--input", str(source)])
    out, err = capsys.readouterr()
    assert [json.loads(line)["text"] for line in out.splitlines()] == ["good film", "bad film"]
    assert "2 rows in" in err


@pytest.mark.parametrize(
    ("content", "options"),
    [
        ("text,id\ngood film,1\nbad film,2\n", []),
        ("text;id\ngood film;1\nbad film;2\n", ["--input-format", "csv"]),
        ('{"text": "good film", "id": 1}\n{"text": "bad film", "id": 2}\n', []),
        ("good film\nbad film\n", ["--input-format", "txt"]),
    ],
)
def test_predict_reads_standard_input(content, options, trained, tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content.encode())))
    main(["predict", str(trained), "--input", "-", *options])
    out, err = capsys.readouterr()
    assert [json.loads(line)["text"] for line in out.splitlines()] == ["good film", "bad film"]
    assert ("standard input is read as" in err) == (not options)
    assert "judged by its first line" in err or options


def test_a_blank_cell_costs_no_other_answer(trained, tmp_path, capsys) -> None:
    source = tmp_path / "in.csv"
    source.write_text("id,text\n" + "".join(f"{n},{'' if n == 30 else 'good film'}\n" for n in range(40)))
    main(["predict", str(trained), "--input", str(source), "--output", str(tmp_path / "out.csv"), "--json"])
    out, err = capsys.readouterr()
    assert sum(last_json(out)["labels"].values()) == 39
    assert err.count("warning: ") == 1
    assert "1 of 40 rows have no text; their answers are null (row 31)" in err
    rows = list(read_rows(tmp_path / "out.csv"))
    assert [row["label"] == "" for row in rows] == [n == 30 for n in range(40)]
    main(["predict", str(trained), "--input", str(source), "--on-empty", "skip"])
    assert len(capsys.readouterr().out.splitlines()) == 39


def test_train_leaves_out_rows_and_rare_labels_on_request(backbone_folder, tmp_path, capsys) -> None:
    rows = "".join(f"good film {n},{'ab'[n % 2]}\n" for n in range(24))
    (tmp_path / "a.csv").write_text("text,label\n" + rows + ",a\nfine,\nslow,c\n")
    arguments = train_arguments(backbone_folder("bert"), tmp_path / "a.csv", tmp_path / "a")
    main([*arguments, "--epochs", "1", "--on-empty", "skip", "--drop-rare", "2"])
    out, _ = capsys.readouterr()
    assert "data: train 22, validation 2 rows; 2 labels: a 11, b 11\n" in out
    assert "labels left out because fewer than 2 rows have them: c (1)\n" in out
    assert "rows of train left out: 3 of 27; " in out
    with pytest.raises(SystemExit):
        main(["evaluate", str(tmp_path / "a"), "--data", str(tmp_path / "a.csv")])
    assert "--on-empty skip leaves out rows without text or label" in capsys.readouterr().err
    (tmp_path / "b.csv").write_text("text,label\n" + rows + ",a\n")
    main(["evaluate", str(tmp_path / "a"), "--data", str(tmp_path / "b.csv"), "--on-empty", "skip", "--json"])
    assert last_json(capsys.readouterr().out)["count"] == 24


@pytest.mark.parametrize("columns", [["--label", "loud,long"], ["--label", "loud", "--label", "long"]])
def test_train_takes_a_column_for_each_label(columns, backbone_folder, tmp_path, capsys) -> None:
    path = tmp_path / "a.csv"
    path.write_text("text,loud,long\n" + "".join(f"good film {n},{n % 2},{n // 2 % 2}\n" for n in range(16)))
    arguments = train_arguments(backbone_folder("bert"), path, tmp_path / "a")
    main([*arguments, "--epochs", "1", *columns])
    assert "2 labels: loud 7, long 7" in capsys.readouterr().out
    assert read_adapter(tmp_path / "a").record.labels == ["loud", "long"]
    main(["evaluate", str(tmp_path / "a"), "--data", str(path), "--json"])
    assert last_json(capsys.readouterr().out)["count"] == 16


@pytest.mark.parametrize("label", ["label: loud,long", "label: [loud, long]"])
def test_a_configuration_file_takes_a_column_for_each_label(label, backbone_folder, tmp_path, capsys) -> None:
    path = tmp_path / "a.csv"
    path.write_text("text,loud,long\n" + "".join(f"good film {n},{n % 2},{n // 2 % 2}\n" for n in range(16)))
    (tmp_path / "run.yaml").write_text(f"{label}\nepochs: 1\n")
    arguments = train_arguments(backbone_folder("bert"), path, tmp_path / "a")
    main([*arguments, "--config", str(tmp_path / "run.yaml")])
    assert "2 labels: loud 7, long 7" in capsys.readouterr().out


def test_inspect_says_what_an_adapter_is(trained, backbone_folder, capsys) -> None:
    main(["inspect", str(trained), "--json"])
    answer = last_json(capsys.readouterr().out)
    assert answer["method"] == "deep"
    assert answer["backbone"] == str(backbone_folder("bert"))
    assert answer["labels"] == ["negative", "positive"]
    assert answer["virtual_tokens"] == 20
    assert answer["parameters"] == 20 * 2 * 2 * 32 + 2 * 32 + 2
    assert answer["peft"] is False
    assert 0 <= answer["metrics"]["accuracy"] <= 1
    main(["inspect", str(trained)])
    assert "virtual_tokens  20" in capsys.readouterr().out


def test_an_adapter_whose_backbone_moved_takes_another_by_name(trained, backbone_folder, tmp_path, capsys) -> None:
    import shutil

    adapter = shutil.copytree(trained, tmp_path / "adapter")
    record = json.loads((adapter / "ptune.json").read_text())
    record["backbone"]["name"] = "/moved/away"
    (adapter / "ptune.json").write_text(json.dumps(record))
    with pytest.raises(SystemExit):
        main(["predict", str(adapter), "--text", "good"])
    assert "/moved/away" in capsys.readouterr().err
    main(["predict", str(adapter), "--text", "good", "--backbone", str(backbone_folder("bert"))])


@pytest.mark.parametrize("command", ["train", "evaluate", "predict", "inspect", "demo"])
def test_every_command_has_help_with_examples(command, capsys) -> None:
    main([command, "--help"])
    out, _ = capsys.readouterr()
    assert "Examples:" in out
    assert f"ptune {command}" in out


def test_the_installed_command_and_the_module_are_the_same() -> None:
    done = subprocess.run([sys.executable, "-m", "ptune", "--version"], capture_output=True, text=True, check=True)
    import ptune

    assert done.stdout.strip() == ptune.__version__


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_training_with_a_checkpoint_to_go_on_from(number, backbone_folder, reviews, tmp_path) -> None:
    arguments = train_arguments(backbone_folder("bert"), reviews, tmp_path / "a")
    arguments += ["--epochs", "1000", "--virtual-tokens", "4"]
    with subprocess.Popen([sys.executable, "-m", "ptune", *arguments], stderr=subprocess.PIPE, text=True) as training:
        assert training.stderr is not None
        while not (tmp_path / "a" / "metrics.jsonl").exists():
            assert training.poll() is None
            time.sleep(0.05)
        training.send_signal(number)
        _, err = training.communicate(timeout=60)
    assert training.returncode == 130
    assert "stopped; continue with --resume" in err
    assert "Traceback" not in err
    assert (tmp_path / "a" / CHECKPOINT_FILE).exists()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, -signal.SIGTERM)])
def test_a_signal_ends_prediction_and_leaves_no_part_of_a_file(number, code, trained, tmp_path) -> None:
    source, output = tmp_path / "in.txt", tmp_path / "out"
    source.write_text("a good film\n" * 200_000)
    output.mkdir()
    arguments = ["predict", str(trained), "--input", str(source), "--output", str(output / "out.jsonl")]
    with subprocess.Popen([sys.executable, "-m", "ptune", *arguments], stderr=subprocess.PIPE, text=True) as predicting:
        while not any(path.stat().st_size for path in output.iterdir()):
            assert predicting.poll() is None
            time.sleep(0.05)
        predicting.send_signal(number)
        _, err = predicting.communicate(timeout=60)
    assert predicting.returncode == code
    assert ("interrupted" in err) == (number == signal.SIGINT)
    assert "Traceback" not in err
    assert list(output.iterdir()) == []


def test_a_closed_pipe_is_no_traceback(trained, tmp_path) -> None:
    source = tmp_path / "in.txt"
    source.write_text("good film\n" * 3000)
    command = f"{sys.executable} -m ptune predict {trained} --input {source} | head -n 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert len(done.stdout.splitlines()) == 1
    assert "Traceback" not in done.stderr


def test_no_network_is_asked_where_no_hub_id_is_named(trained, backbone_folder, reviews, tmp_path) -> None:
    program = f"""
import os, socket
os.environ.pop("HF_HUB_OFFLINE", None)

def asked(*arguments, **options):
    os._exit(77)

socket.getaddrinfo = socket.socket.connect = asked
from ptune.adapter.folder import read_adapter
from ptune.cli import main
main(["train", "--backbone", {str(backbone_folder("bert"))!r}, "--data", {str(reviews)!r},
      "--output", {str(tmp_path / "a")!r}, "--epochs", "1"])
main(["evaluate", {str(tmp_path / "a")!r}, "--data", {str(reviews)!r}])
main(["predict", {str(trained)!r}, "--text", "a good film"])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def topics(backbone_folder, tmp_path_factory):
    """The folder of an adapter for several labels per row, and the CSV file that it was trained on."""
    folder = tmp_path_factory.mktemp("topics")
    path = folder / "topics.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "topic"])
        writer.writerows([row["text"], "|".join(row["labels"])] for row in topic_rows(64))
    arguments = train_arguments(backbone_folder("bert"), path, folder / "adapter")
    main([*arguments, "--label-separator", "|", "--epochs", "2", "--class-weights", "balanced", "--focal", "1"])
    return folder / "adapter", path


@pytest.fixture(scope="module")
def stars(backbone_folder, tmp_path_factory):
    """The folder of an adapter that predicts a number, and the file that it was trained on."""
    folder = tmp_path_factory.mktemp("stars")
    path = write_jsonl(folder / "stars.jsonl", star_rows(64))
    arguments = train_arguments(backbone_folder("bert"), path, folder / "adapter")
    main([*arguments, "--label", "stars", "--problem-type", "regression", "--epochs", "2"])
    return folder / "adapter", path


def test_train_says_what_it_took_the_labels_for(backbone_folder, tmp_path, capsys) -> None:
    cases = {
        "multi_label_classification (the labels are lists)": (topic_rows(40), "labels"),
        "regression (the labels are fractions)": (star_rows(40), "stars"),
    }
    for note, (rows, label) in cases.items():
        path = write_jsonl(tmp_path / "a.jsonl", rows)
        arguments = train_arguments(backbone_folder("bert"), path, tmp_path / label)
        main([*arguments, "--label", label, "--epochs", "1"])
        out, _ = capsys.readouterr()
        assert f"problem type: {note}" in out
        assert "best epoch 1: validation " in out
        assert bool(re.search(r"3 labels: color \d+, number \d+, praise \d+\n", out)) == (label == "labels")
        assert ("targets 'stars' from 100 to 110, mean " in out) == (label == "stars")
        assert ("Pearson" in out) == (label == "stars")


def test_evaluate_several_labels_with_a_table_of_them(topics, capsys) -> None:
    adapter, path = topics
    main(["evaluate", str(adapter), "--data", str(path)])
    out, _ = capsys.readouterr()
    assert "precision" in out
    assert "confusion" not in out
    main(["evaluate", str(adapter), "--data", str(path), "--json"])
    answer = last_json(capsys.readouterr().out)
    assert {
        "accuracy",
        "f1",
        "f1_macro",
        "loss",
        "count",
        "split",
        "labels",
        "problem_type",
        "by_label",
    } == answer.keys()
    assert answer["by_label"]["praise"].keys() == {"precision", "recall", "f1", "support"}
    assert answer["by_label"]["praise"]["support"] == 32
    assert answer["count"] == 64


def test_the_separator_of_labels_goes_with_the_adapter_and_the_command_line_wins(topics, tmp_path, capsys) -> None:
    adapter, path = topics
    assert read_adapter(adapter).record.label_separator == "|"
    answers = []
    for name, content in (("a.csv", path.read_text()), ("b.csv", path.read_text().replace("|", ";"))):
        (tmp_path / name).write_text(content)
        option = ["--label-separator", ";"] if name == "b.csv" else []
        main(["evaluate", str(adapter), "--data", str(tmp_path / name), "--json", *option])
        answers.append(last_json(capsys.readouterr().out))
    rows = write_jsonl(tmp_path / "c.jsonl", topic_rows(64))  # lists have no separator
    main(["evaluate", str(adapter), "--data", str(rows), "--json"])
    assert answers[0] == answers[1] == last_json(capsys.readouterr().out)


def test_evaluate_a_regression(stars, capsys) -> None:
    adapter, path = stars
    main(["evaluate", str(adapter), "--data", str(path), "--label", "stars", "--json"])
    answer = last_json(capsys.readouterr().out)
    assert {
        "mse",
        "mae",
        "pearson",
        "spearman",
        "r2",
        "loss",
        "count",
        "split",
        "labels",
        "problem_type",
    } == answer.keys()
    assert answer["labels"] == ["stars"]


def test_predict_one_text_with_several_labels_and_with_a_number(topics, stars, capsys) -> None:
    main(["predict", str(topics[0]), "--text", "a good film", "--json"])
    answer = last_json(capsys.readouterr().out)
    assert list(answer) == ["labels", "scores"]
    thresholds = read_adapter(topics[0]).record.thresholds
    above = [name for (name, score), limit in zip(answer["scores"].items(), thresholds, strict=True) if score > limit]
    assert answer["labels"] == above
    main(["predict", str(topics[0]), "--text", "a good film"])
    assert "praise" in capsys.readouterr().out
    main(["predict", str(stars[0]), "--text", "good good", "--json"])
    answer = last_json(capsys.readouterr().out)
    assert answer == {"value": pytest.approx(105, abs=15)}
    main(["predict", str(stars[0]), "--text", "good good"])
    assert capsys.readouterr().out == f"stars  {answer['value']:.6g}\n"


def test_a_threshold_is_fitted_or_named(topics, backbone_folder, tmp_path, capsys) -> None:
    adapter, path = topics
    for threshold, labels in (("0.999999", []), ("0.000001", ["color", "number", "praise"])):
        main(["predict", str(adapter), "--text", "a good film", "--threshold", threshold, "--json"])
        assert last_json(capsys.readouterr().out)["labels"] == labels
    main(["evaluate", str(adapter), "--data", str(path), "--threshold", "0.000001", "--json"])
    assert {scores["recall"] for scores in last_json(capsys.readouterr().out)["by_label"].values()} == {1.0}
    arguments = [*train_arguments(backbone_folder("bert"), path, tmp_path), "--label-separator", "|", "--epochs", "1"]
    main(arguments)
    assert re.search(r"labels apply above probabilities of 0\.\d{3} to 0\.\d{3}, by label", capsys.readouterr().out)
    main([*arguments, "--threshold", "0.25", "--overwrite"])
    assert "a label applies if its probability is above 0.25\n" in capsys.readouterr().out
    main(["inspect", str(tmp_path)])
    assert "thresholds      color 0.25, number 0.25, praise 0.25\n" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["train", "predict", "evaluate"])
def test_a_threshold_without_several_labels_is_refused(
    command, trained, reviews, backbone_folder, tmp_path, capsys
) -> None:
    arguments = {
        "train": train_arguments(backbone_folder("bert"), reviews, tmp_path),
        "predict": ["predict", str(trained), "--text", "a film"],
        "evaluate": ["evaluate", str(trained), "--data", str(reviews)],
    }[command]
    with pytest.raises(SystemExit) as caught:
        main([*arguments, "--threshold", "0.3"])
    assert caught.value.code == 2
    assert "--threshold is for several labels per row" in capsys.readouterr().err


@pytest.mark.parametrize("ending", ["jsonl", "csv", "tsv", "parquet"])
def test_predicted_files_of_several_labels_are_data_again(ending, topics, tmp_path, capsys) -> None:
    adapter, path = topics
    target = tmp_path / f"out.{ending}"
    main(["predict", str(adapter), "--input", str(path), "--output", str(target), "--json"])
    out, err = capsys.readouterr()
    answer = last_json(out)
    assert answer["rows"] == 64
    assert "64 rows in" in err
    data = load_data(target, label="labels", only="test", labels=["color", "number", "praise"], label_separator="|")
    assert sum(map(len, data.test.labels)) == sum(answer["labels"].values())
    assert next(read_rows(target))["topic"] == ""


@pytest.mark.parametrize("ending", ["jsonl", "csv", "tsv", "parquet"])
def test_predicted_files_of_numbers_hold_a_value(ending, stars, tmp_path, capsys) -> None:
    adapter, path = stars
    target = tmp_path / f"out.{ending}"
    main(["predict", str(adapter), "--input", str(path), "--output", str(target), "--json"])
    answer = last_json(capsys.readouterr().out)
    rows = list(read_rows(target))
    assert list(rows[0]) == ["text", "stars", "value"]
    values = [float(row["value"]) for row in rows]
    assert (answer["min"], answer["max"]) == (min(values), max(values))
    assert answer["mean"] == pytest.approx(sum(values) / 64)


def test_inspect_says_the_problem_type(stars, capsys) -> None:
    main(["inspect", str(stars[0]), "--json"])
    answer = last_json(capsys.readouterr().out)
    assert (answer["problem_type"], answer["labels"]) == ("regression", ["stars"])
    assert answer["training"]["best"] == "pearson"


def test_a_verbalizer_and_a_template_are_options_and_go_with_the_adapter(
    language_model_folder, reviews, tmp_path, capsys
) -> None:
    arguments = train_arguments(language_model_folder("bert"), reviews, tmp_path / "a")
    template = "{text}\nwas {mask}"
    words = "negative=bad,poor;positive=good"
    main([*arguments, "--epochs", "1", "--verbalizer", words, "--template", r"{text}\nwas {mask}"])
    capsys.readouterr()
    main(["inspect", str(tmp_path / "a"), "--json"])
    answer = last_json(capsys.readouterr().out)
    assert (answer["head"], answer["template"], answer["pooling"]) == ("verbalizer", template, "mask")
    main(["evaluate", str(tmp_path / "a"), "--data", str(reviews), "--json"])
    assert last_json(capsys.readouterr().out)["accuracy"] == answer["metrics"]["accuracy"]
    record = json.loads((tmp_path / "a" / "ptune.json").read_text())
    assert record["prompt"]["verbalizer"] == {"negative": ["bad", "poor"], "positive": ["good"]}


def test_words_in_a_configuration_file_are_a_mapping(language_model_folder, reviews, tmp_path, capsys) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("epochs: 1\nverbalizer:\n  negative: [bad, poor]\n  positive: good\n")
    arguments = train_arguments(language_model_folder("llama"), reviews, tmp_path / "a")
    main([*arguments, "--config", str(file), "--init", "text", "--init-text", "the plot was"])
    record = json.loads((tmp_path / "a" / "ptune.json").read_text())
    assert record["prompt"]["verbalizer"] == {"negative": ["bad", "poor"], "positive": ["good"]}
    assert record["prompt"]["virtual_tokens"] == 3


def test_labels_that_yaml_takes_for_truth_values_have_words_too(language_model_folder, tmp_path) -> None:
    rows = [{"text": f"a {'good' if n % 2 else 'bad'} film", "label": ["no", "yes"][n % 2]} for n in range(12)]
    write_jsonl(tmp_path / "a.jsonl", rows)
    file = tmp_path / "run.yaml"
    file.write_text("epochs: 1\nverbalizer:\n  no: bad\n  yes: good\n")
    arguments = train_arguments(language_model_folder("llama"), tmp_path / "a.jsonl", tmp_path / "a")
    main([*arguments, "--config", str(file), "--init", "text", "--init-text", "the plot was"])
    assert read_adapter(tmp_path / "a").record.prompt.verbalizer == {"no": ["bad"], "yes": ["good"]}


def test_evaluation_reads_the_columns_of_training(backbone_folder, tmp_path, capsys) -> None:
    rows = [
        {"text": "film", "body": f"a {'good' if n % 2 else 'bad'} film", "label": 0, "mood": "dn"[n % 2]}
        for n in range(40)
    ]
    write_jsonl(tmp_path / "a.jsonl", rows)
    arguments = train_arguments(backbone_folder("bert"), tmp_path / "a.jsonl", tmp_path / "a")
    main([*arguments, "--text", "body", "--label", "mood", "--epochs", "20"])
    capsys.readouterr()
    main(["evaluate", str(tmp_path / "a"), "--data", str(tmp_path / "a.jsonl"), "--json"])
    out, err = capsys.readouterr()
    assert "columns: text 'body', label 'mood'" in err
    assert last_json(out)["accuracy"] == 1


def test_predicting_a_file_says_which_columns_it_reads(trained, tmp_path, capsys) -> None:
    (tmp_path / "a.csv").write_text("id,review\n1,a good film\n")
    main(["predict", str(trained), "--input", str(tmp_path / "a.csv")])
    assert "ptune: columns: text 'review'" in capsys.readouterr().err


def test_check_and_train_read_standard_input(backbone_folder, tmp_path, capsys, monkeypatch) -> None:
    rows = "text,label\n" + "".join(f"film {number} good,pos\nfilm {number} bad,neg\n" for number in range(20))
    folder = str(backbone_folder())
    for command in (
        ["check", "-"],
        ["train", "--backbone", folder, "--data", "-", "--epochs", "1", "--output", str(tmp_path / "a")],
        ["evaluate", str(tmp_path / "a"), "--data", "-"],
    ):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(rows.encode())))
        main([*command])
        assert "standard input is read as csv" in capsys.readouterr().err


def test_evaluate_says_that_the_rows_were_trained_on(backbone_folder, tmp_path, capsys) -> None:
    rows = [{"text": f"a {word} film", "label": word} for word in ("good", "bad") * 30]
    data = write_jsonl(tmp_path / "rows.jsonl", rows)
    main([*train_arguments(backbone_folder("bert"), data, tmp_path / "a"), "--epochs", "1", "--no-report"])
    capsys.readouterr()
    main(["evaluate", str(tmp_path / "a"), "--data", str(data)])
    assert "the adapter was trained on 54 of these 60 rows" in capsys.readouterr().err
    write_jsonl(tmp_path / "rows.jsonl", rows[:20])
    main(["evaluate", str(tmp_path / "a"), "--data", str(data)])
    assert "was trained on" not in capsys.readouterr().err


def test_predict_says_which_column_has_another_name(trained, tmp_path, capsys) -> None:
    data = write_jsonl(tmp_path / "rows.jsonl", [{"text": "good", "label": "1"}] * 3)
    main(["predict", str(trained), "--input", str(data), "--output", str(tmp_path / "out.csv")])
    said = capsys.readouterr().err
    assert said.count("column 'label' of the input is column 'input_label' of the output") == 1


def test_an_adapter_with_other_names_of_labels_keeps_its_metrics(backbone_folder, tmp_path) -> None:
    rows = [{"text": f"a {word} film", "label": f"LABEL_{number}"} for number, word in enumerate(("good", "bad"))] * 20
    data = write_jsonl(tmp_path / "rows.jsonl", rows)
    main([*train_arguments(backbone_folder("bert"), data, tmp_path / "a"), "--epochs", "1", "--no-report"])
    main(["export", str(tmp_path / "a"), str(tmp_path / "b"), "--labels", "neg,pos"])
    before, named = (read_adapter(tmp_path / name).record for name in "ab")
    assert named.labels == ["neg", "pos"]
    assert (named.metrics, named.training) == (before.metrics, before.training)


def test_the_home_of_an_unknown_user_is_no_such_file(trained, capsys) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["predict", str(trained), "--input", "~no-such-user/x.csv"])
    assert stop.value.code == 2
    assert "'~no-such-user/x.csv': there is no such file" in capsys.readouterr().err
