"""The commands as other programs call them: names, exit codes, stdout and stderr, JSON."""

from __future__ import annotations

import csv
import json
import subprocess
import sys

import pytest

from ptune.cli import main
from ptune.data.files import read_rows


@pytest.fixture(scope="module")
def trained(backbone_folder, reviews, tmp_path_factory):
    """The folder of an adapter, trained by the command."""
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


def test_evaluate_gives_the_figures_of_training(trained, reviews, capsys) -> None:
    main(["evaluate", str(trained), "--data", str(reviews), "--json"])
    answer = last_json(capsys.readouterr().out)
    recorded = json.loads((trained / "ptune.json").read_text())["metrics"]
    assert {name: answer[name] for name in recorded} == recorded
    assert {"accuracy", "f1", "f1_macro", "matthews", "loss", "count"} <= answer.keys()
    assert sum(map(sum, answer["confusion_matrix"])) == answer["count"] == 16
    assert answer["labels"] == ["negative", "positive"]


def test_evaluate_prints_a_confusion_matrix(trained, reviews, capsys) -> None:
    main(["evaluate", str(trained), "--data", str(reviews), "--split", "train"])
    out, _ = capsys.readouterr()
    assert "confusion matrix" in out
    assert "matthews" in out


def test_evaluate_reads_one_file_whole_with_labels_as_numbers(trained, tmp_path, capsys) -> None:
    path = tmp_path / "some.csv"
    path.write_text("sentence,target\na good film,1\na bad film,0\nvery poor,0\n")
    main(["evaluate", str(trained), "--data", str(path), "--json"])
    answer = last_json(capsys.readouterr().out)
    assert answer["count"] == 3
    assert [sum(row) for row in answer["confusion_matrix"]] == [2, 1]


def test_predict_one_text(trained, capsys) -> None:
    main(["predict", str(trained), "--text", "a good film", "--json"])
    out, _ = capsys.readouterr()
    answer = last_json(out)
    assert len(out.splitlines()) == 1
    assert set(answer) == {"label", "score", "scores"}
    assert list(answer["scores"]) == ["negative", "positive"]
    main(["predict", str(trained), "--text", "a good film", "--text-pair", "fine"])
    assert "%" in capsys.readouterr().out


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


def test_predict_a_file_to_stdout_is_json_lines(trained, tmp_path, capsys) -> None:
    source = tmp_path / "in.txt"
    source.write_text("good film\nbad film\n")
    main(["predict", str(trained), "--input", str(source)])
    out, err = capsys.readouterr()
    assert [json.loads(line)["text"] for line in out.splitlines()] == ["good film", "bad film"]
    assert "2 rows in" in err


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
from ptune.cli import main
main(["train", "--backbone", {str(backbone_folder("bert"))!r}, "--data", {str(reviews)!r},
      "--output", {str(tmp_path / "a")!r}, "--epochs", "1"])
main(["evaluate", {str(tmp_path / "a")!r}, "--data", {str(reviews)!r}])
main(["predict", {str(trained)!r}, "--text", "a good film"])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


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
