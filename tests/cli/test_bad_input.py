"""Wrong input on the command line: exit code 2 and one line on stderr that names the cause. Never a traceback."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from ptune.adapter.layout import PEFT_FILE, PROMPT_KEY, RECORD_FILE, WEIGHTS_FILE
from ptune.cli import main
from ptune.data.load import load_data
from ptune.inference.classifier import load
from ptune.model.backbone import Backbone
from ptune.model.classifier import PromptClassifier
from ptune.model.config import PromptConfig
from ptune.training.config import TrainConfig
from ptune.training.train import train

Fails = Callable[..., str]
# What a command may have printed on stdout before it failed.
NOTES = ("data: ", "check: ", "columns: ", "problem type: ", "split: ", "sample: ", "method ", "trainable params: ")
WORDS = ("--verbalizer", "neg=bad;pos=good")
START = ("--init", "text", "--init-text", "a film")
GOOD = "text,label\na good film,pos\na bad film,neg\na fine plot,pos\na poor plot,neg\n"


@pytest.fixture
def tmp_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a neutral name: pytest's contains the test's name, whose words could match in messages."""
    return tmp_path_factory.mktemp("d")


@pytest.fixture
def fails(capsys: pytest.CaptureFixture[str]) -> Fails:
    """Run a command that must fail; return its one line on stderr, without 'ptune: error: '."""

    def run(*arguments: object, notes: bool = False) -> str:
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        assert caught.value.code == 2
        *log, error = printed.err.splitlines()
        assert error.startswith("ptune: error: "), printed.err
        assert all(notes and "not in ptune's table of families" in line for line in log), printed.err
        lines = printed.out.splitlines()
        assert all(line.startswith(NOTES) for line in lines) if notes else not lines, printed.out
        return error.removeprefix("ptune: error: ")

    return run


@pytest.fixture
def bert(backbone_folder: Callable[..., Path]) -> Path:
    return backbone_folder("bert")


@pytest.fixture
def data(tmp_path: Path) -> Callable[..., Path]:
    """Write a data file with the given content; return its path."""

    def put(content: str | bytes = GOOD, name: str = "reviews.csv") -> Path:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return put


@pytest.fixture(scope="module")
def trained(
    backbone: Callable[..., Backbone], reviews: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """Adapters trained for one epoch on the tiny BERT: a deep one, and one that PEFT can read too."""
    folders = {}
    texts = load_data(reviews)
    for method in ("deep", "p-tuning"):
        folders[method] = tmp_path_factory.mktemp(method)
        config = PromptConfig(method=method, virtual_tokens=3)
        model = PromptClassifier.from_backbone(backbone("bert"), config, labels=texts.labels)
        train(model, texts, TrainConfig(epochs=1), output=folders[method])
    return folders


@pytest.fixture
def adapter(trained: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of the deep adapter that a test may damage."""
    return Path(shutil.copytree(trained["deep"], tmp_path / "adapter"))


@pytest.fixture
def peft_adapter(trained: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of the adapter that PEFT can read, without ptune's record, as PEFT would write it."""
    folder = Path(shutil.copytree(trained["p-tuning"], tmp_path / "peft-adapter"))
    (folder / RECORD_FILE).unlink()
    return folder


class TestOptions:
    """Options that are checked before anything is read."""

    @pytest.mark.parametrize(
        ("wrong", "near"), [("--virtual-token", "--virtual-tokens"), ("--epoch", "--epochs"), ("--ouput", "--output")]
    )
    def test_an_unknown_option_is_named_with_the_nearest_one(self, fails: Fails, wrong: str, near: str) -> None:
        message = fails("train", "--backbone", "b", "--data", "d", "--output", "o", wrong, "3")
        assert wrong in message
        assert re.search(rf"[Dd]id you mean {near}\?", message)

    @pytest.mark.parametrize(
        ("option", "value"),
        [
            ("--virtual-tokens", "0"),
            ("--epochs", "many"),
            ("--encoder-dropout", "1.5"),
            ("--method", "depe"),
            ("--lr", "-1"),
            ("--seed", "-7"),
            ("--max-train-rows", "1"),
            ("--max-length", "2"),
            ("--dtype", "int8"),
        ],
    )
    def test_a_wrong_value_is_named_with_its_option(self, fails: Fails, option: str, value: str) -> None:
        message = fails("train", "--backbone", "b", "--data", "d", "--output", "o", option, value)
        assert option in message
        assert value in message

    def test_options_that_contradict_each_other_are_named(self, fails: Fails) -> None:
        message = fails("train", "--backbone", "b", "--data", "d", "--output", "o", "--method", "deep", "--tie-first")
        assert "--tie-first is for prompts at the input, but --method deep" in message

    @pytest.mark.parametrize("missing", ["--backbone", "--data", "--output"])
    def test_a_missing_option_is_named(self, fails: Fails, missing: str) -> None:
        given = {"--backbone": "b", "--data": "d", "--output": "o"}
        del given[missing]
        assert missing in fails("train", *(part for pair in given.items() for part in pair))

    def test_an_unknown_command_is_named_with_the_nearest_one(self, fails: Fails) -> None:
        message = fails("trian")
        assert "trian" in message
        assert "train" in message.replace("trian", "")

    @pytest.mark.parametrize("command", ["predict", "evaluate"])
    @pytest.mark.parametrize("size", ["0", "-1"])
    def test_a_batch_of_no_rows_is_refused(
        self, fails: Fails, trained: dict[str, Path], reviews: Path, command: str, size: str
    ) -> None:
        what = ("--text", "good") if command == "predict" else ("--data", reviews)
        message = fails(command, trained["deep"], *what, "--batch-size", size)
        assert "--batch-size" in message
        assert size in message

    @pytest.mark.parametrize(("split", "near"), [("tset", " (did you mean 'test'?)"), ("42", "")])
    def test_a_split_of_one_file_is_none_of_the_known_names(
        self, fails: Fails, adapter: Path, data: Any, split: str, near: str
    ) -> None:
        message = fails("evaluate", adapter, "--data", data(), "--split", split)
        assert f"--split '{split}' is not the name of one{near}; leave --split out" in message.replace('"', "'")

    @pytest.mark.parametrize(
        "options",
        [("--device", "abacus"), ("--virtual-tokens", 57, "--method", "p-tuning"), ("--backbone", "/none/such")],
    )
    def test_a_run_that_fails_leaves_no_folder(
        self, fails: Fails, data: Any, tmp_path: Path, bert: Path, options: tuple[object, ...]
    ) -> None:
        given = {"--backbone": bert, "--data": data(), "--output": tmp_path / "new" / "o"}
        given |= dict(zip(options[::2], options[1::2], strict=True))
        fails("train", *(part for pair in given.items() for part in pair), notes=True)
        assert not (tmp_path / "new").exists()

    def test_a_prediction_that_fails_leaves_no_folder(self, fails: Fails, data: Any, tmp_path: Path) -> None:
        fails("predict", tmp_path / "none", "--input", data(), "--output", tmp_path / "new" / "o.csv")
        assert not (tmp_path / "new").exists()


class TestConfigFile:
    """--config FILE."""

    def test_every_problem_is_reported_at_once_with_the_nearest_name(self, fails: Fails, data: Any) -> None:
        path = data("epoch: 3\nvirtual_tokens: 0\nlr: fast\nlable: mood\nschedule: steps\nseed: 4\n", "run.yaml")
        message = fails("train", "--config", path)
        assert str(path) in message
        assert "unknown key 'epoch', did you mean 'epochs'?" in message
        assert "unknown key 'lable', did you mean 'label'?" in message
        for key, value in (("virtual-tokens", "0"), ("lr", "fast"), ("schedule", "steps")):
            assert re.search(rf"key '{key}': [^;]*given: '?{value}", message)
        assert "seed" not in message

    @pytest.mark.parametrize(
        ("name", "content", "kind"),
        [
            ("run.yaml", "epochs: [3\nseed: 4\n", "YAML"),
            ("run.yml", "a: b: c\n", "YML"),
            ("run.json", '{"epochs": 3', "JSON"),
            ("run.toml", "epochs = \n", "TOML"),
            ("run.yaml", b"text: caf\xe9\n", "YAML"),
        ],
    )
    def test_a_file_that_does_not_parse_is_named(
        self, fails: Fails, data: Any, name: str, content: str | bytes, kind: str
    ) -> None:
        message = fails("train", "--config", data(content, name))
        assert name in message
        assert f"not valid {kind}" in message

    @pytest.mark.parametrize("content", ["- epochs\n- 3\n", "epochs\n", "3\n"])
    def test_a_file_without_options_by_name_is_refused(self, fails: Fails, data: Any, content: str) -> None:
        assert "options by name" in fails("train", "--config", data(content, "run.yaml"))

    def test_an_option_without_its_file_is_named(self, fails: Fails) -> None:
        assert "--config needs a file" in fails("train", "--config")

    def test_an_empty_file_is_reported_as_empty(self, fails: Fails, data: Any) -> None:
        assert "empty" in fails("train", "--config", data("", "run.yaml"))

    def test_a_missing_file_is_named(self, fails: Fails, tmp_path: Path) -> None:
        assert "none.yaml" in fails("train", "--config", tmp_path / "none.yaml")

    def test_an_unknown_ending_is_named_with_the_known_ones(self, fails: Fails, data: Any) -> None:
        message = fails("train", "--config", data("", "run.ini"))
        assert "run.ini" in message
        assert ".yaml" in message

    @pytest.mark.parametrize(
        "line",
        [
            "backbone: [a, b]",
            "backbone: {a: b}",
            "output: {a: 1}",
            "resume: maybe",
            "json: [1, 2]",
            "epochs: true",
            "lr: off",
            "backbone: null",
            "report-to: off",
            "report: 3",
        ],
    )
    def test_a_wrong_kind_of_value_is_named_with_its_key(self, fails: Fails, data: Any, line: str) -> None:
        given = {"backbone": "b", "data": "d", "output": "o"}
        key = line.split(":")[0]
        rest = [f"{name}: {value}" for name, value in given.items() if name != key]
        assert key in fails("train", "--config", data("\n".join([line, *rest]), "run.yaml"))


class TestData:
    """`ptune train` on data that cannot be used. The backbone is never loaded."""

    @pytest.fixture
    def complains(self, fails: Fails, tmp_path: Path) -> Fails:
        def run(path: Path | str, *options: object) -> str:
            output = tmp_path / "out"
            message = fails("train", "--backbone", "none", "--data", path, "--output", output, *options)
            assert not output.exists()
            return message

        return run

    def test_an_unknown_column_is_named_with_the_nearest_one(self, complains: Fails, data: Any) -> None:
        message = complains(data(), "--label", "lable")
        assert "reviews.csv" in message
        assert "'lable'" in message
        assert "did you mean 'label'?" in message

    def test_an_empty_file_is_named(self, complains: Fails, data: Any) -> None:
        assert "reviews.csv' is empty" in complains(data(""))

    def test_an_empty_text_is_named_by_its_row(self, complains: Fails, data: Any) -> None:
        assert "reviews.csv, row 5: column 'text' is empty" in complains(data(GOOD + "  ,pos\n"))

    def test_an_unseen_label_in_validation_is_named_by_file_and_row(
        self, complains: Fails, data: Any, tmp_path: Path
    ) -> None:
        data(GOOD, "train.csv")
        data("text,label\ngood,pos\nbad,negative\n", "validation.csv")
        message = complains(tmp_path)
        assert "validation.csv, row 2: label 'negative'" in message
        assert "neg, pos" in message

    def test_a_single_class_is_refused(self, complains: Fails, data: Any) -> None:
        message = complains(data("text,label\ngood,pos\nfine,pos\nwarm,pos\n"))
        assert "reviews.csv" in message
        assert "every row has label 'pos'" in message

    def test_a_label_that_occurs_once_is_named_by_its_row(self, complains: Fails, data: Any) -> None:
        assert "reviews.csv, row 5: label 'so-so' occurs only once" in complains(data(GOOD + "slow,so-so\n"))

    def test_a_wrong_encoding_is_named_by_its_line(self, complains: Fails, data: Any) -> None:
        message = complains(data((GOOD + "naïve,pos\n").encode() + b"caf\xe9,pos\n"))
        assert "reviews.csv' is not UTF-8" in message
        assert "line 7" in message

    def test_a_ragged_row_is_named_by_its_number(self, complains: Fails, data: Any) -> None:
        assert "reviews.csv, row 5 (line 6): 3 fields" in complains(data(GOOD + "good, very good,pos\n"))

    @pytest.mark.parametrize("label", ["--5", "1" * 5000])
    def test_a_strange_label_is_a_label_like_any_other(self, complains: Fails, data: Any, label: str) -> None:
        assert "row 5: label" in complains(data(f"{GOOD}slow,{label}\n"))

    def test_an_endless_number_is_no_label(self, complains: Fails, data: Any) -> None:
        path = data('{"text": "good", "label": 1}\n{"text": "bad", "label": Infinity}\n', "reviews.jsonl")
        assert "row 2" in complains(path)

    def test_a_line_that_is_no_object_is_named(self, complains: Fails, data: Any) -> None:
        assert "row 2" in complains(data('{"text": "good", "label": 1}\n["bad", 0]\n', "reviews.jsonl"))

    def test_a_missing_file_is_named(self, complains: Fails, tmp_path: Path) -> None:
        assert "none.csv" in complains(tmp_path / "none.csv")

    def test_a_hub_id_that_cannot_be_had_is_named(self, complains: Fails) -> None:
        message = complains("no-such-owner/no-such-set")
        assert "'no-such-owner/no-such-set'" in message
        assert "Hub" in message

    def test_too_small_a_sample_is_refused(self, complains: Fails, data: Any) -> None:
        rows = "".join(f"text {n},{'abc'[n % 3]}\n" for n in range(18))
        for option in ("--max-train-rows", "--max-validation-rows"):
            message = complains(data("text,label\n" + rows), option, 2)
            assert f"3 classes; use {option} 3 or more" in message


class TestProblemTypes:
    """Labels and options that do not go together: reported before a backbone is loaded."""

    @pytest.mark.parametrize(
        ("content", "options", "expected"),
        [
            (
                GOOD,
                ["--problem-type", "regression"],
                ["rows 1, 2, 3 and 4", "'label'", "'pos'", "a number such as 3.5"],
            ),
            (
                GOOD,
                ["--problem-type", "multi_label_classification"],
                ["rows 1, 2, 3 and 4", "'pos'", "--label-separator"],
            ),
            (GOOD, ["--problem-type", "ranking"], ["--problem-type", "ranking"]),
            (GOOD, ["--label-separator", ""], ["--label-separator"]),
            (GOOD, ["--label-separator", "|", "--problem-type", "regression"], ["--label-separator", "regression"]),
            ("text,label\na,1.5\nb,\nc,2\n", [], ["row 2", "'label'", "no number"]),
            ("text,label\na,1.5\nb,1e99\nc,2\n", [], ["row 2", "1e99", "1e+15"]),
            ("text,label\na,1.5\nb,2\n", [], ["2 rows cannot be split", "give more rows"]),
            ("text,label\na,x|x\nb,y\n", ["--label-separator", "|"], ["row 1", "'x' twice"]),
        ],
    )
    def test_labels_of_another_kind_are_named_by_their_row(
        self, fails: Fails, data: Any, content: str, options: list[str], expected: list[str]
    ) -> None:
        message = fails("train", "--backbone", "/none/such", "--data", data(content), "--output", "o", *options)
        assert all(part in message for part in expected), message

    @pytest.mark.parametrize(
        ("options", "expected"),
        [
            (["--best", "accuracy"], "use one of pearson, spearman, r2, mse, mae, loss"),
            (["--class-weights", "balanced"], "--class-weights and --focal"),
            (["--focal", "2"], "--class-weights and --focal"),
            (["--label-smoothing", "0.1"], "--label-smoothing is for single_label_classification"),
            (["--best", "ranking"], "--best"),
            (["--focal", "-1"], "--focal"),
            (["--label-smoothing", "1"], "--label-smoothing"),
            (["--class-weights", "unbalanced"], "--class-weights"),
        ],
    )
    def test_settings_that_a_regression_has_no_use_for_are_named(
        self, fails: Fails, data: Any, tmp_path: Path, options: list[str], expected: str
    ) -> None:
        rows = "".join(f"text {n},{n / 2}\n" for n in range(20))
        arguments = ("--backbone", "/none/such", "--data", data("text,label\n" + rows), "--output", tmp_path / "o")
        assert expected in fails("train", *arguments, *options, notes=True)

    def test_data_of_another_kind_than_the_adapters_are_named_by_row(
        self, fails: Fails, trained: dict[str, Path], data: Any
    ) -> None:
        path = data('{"text": "a film", "labels": ["positive", "negative"]}\n', "a.jsonl")
        message = fails("evaluate", trained["deep"], "--data", path)
        assert "row 1: column 'labels' holds several labels at once" in message

    def test_single_texts_are_refused_by_an_adapter_of_pairs(
        self, fails: Fails, trained: dict[str, Path], data: Any
    ) -> None:
        path = data("premise,hypothesis,label\na film,a plot,positive\n")
        message = fails("evaluate", trained["deep"], "--data", path)
        assert "text 'premise', text pair 'hypothesis'" in message
        assert "trained on single texts ('text')" in message
        assert "--text" in message


class TestTraining:
    """`ptune train` with good data and something else wrong."""

    @pytest.mark.parametrize("name", ["no-such-owner/no-such-model", "no-such-model"])
    def test_a_hub_backbone_that_cannot_be_had_is_named(
        self, fails: Fails, data: Any, tmp_path: Path, name: str
    ) -> None:
        message = fails("train", "--backbone", name, "--data", data(), "--output", tmp_path / "o", notes=True)
        assert f"'{name}'" in message
        assert "Hub" in message
        assert "python:PACKAGE" in message

    def test_a_missing_backbone_folder_is_named(self, fails: Fails, data: Any, tmp_path: Path) -> None:
        folder = tmp_path / "no-model"
        message = fails("train", "--backbone", folder, "--data", data(), "--output", tmp_path / "o", notes=True)
        assert f"'{folder}': there is no such folder" in message

    def test_a_folder_without_a_model_is_named(self, fails: Fails, data: Any, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        message = fails(
            "train", "--backbone", tmp_path / "empty", "--data", data(), "--output", tmp_path / "o", notes=True
        )
        assert str(tmp_path / "empty") in message
        assert "config.json" in message

    def test_a_backbone_package_that_is_not_installed_is_named(self, fails: Fails, data: Any, tmp_path: Path) -> None:
        name = "python:no-such-package"
        message = fails("train", "--backbone", name, "--data", data(), "--output", tmp_path / "o", notes=True)
        assert "package 'no-such-package' is not installed" in message
        assert "package 'no-such-package' is not installed; check its name" in message

    @pytest.mark.parametrize("damage", ["truncated", "missing"])
    def test_a_backbone_with_damaged_weights_is_named(
        self, fails: Fails, data: Any, tmp_path: Path, bert: Path, damage: str
    ) -> None:
        folder = Path(shutil.copytree(bert, tmp_path / "damaged"))
        weights = folder / "model.safetensors"
        content = weights.read_bytes()
        weights.unlink()
        if damage == "truncated":
            weights.write_bytes(content[:-100])
        message = fails("train", "--backbone", folder, "--data", data(), "--output", tmp_path / "o", notes=True)
        assert str(folder) in message

    @pytest.mark.parametrize("below", ["", "out"])
    def test_an_output_in_the_place_of_a_file_cannot_be_written(
        self, fails: Fails, data: Any, tmp_path: Path, bert: Path, below: str
    ) -> None:
        (tmp_path / "notes").write_text("mine", encoding="utf-8")
        output = tmp_path / "notes" / below
        message = fails("train", "--backbone", bert, "--data", data(), "--output", output, notes=True)
        assert f"cannot write '{output}'" in message
        assert "File exists" not in message
        assert (tmp_path / "notes").read_text(encoding="utf-8") == "mine"

    def test_an_output_in_the_home_folder_is_not_looked_for_here(
        self, fails: Fails, data: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        monkeypatch.chdir(tmp_path)
        fails("train", "--backbone", "python:no-such-package", "--data", data(), "--output", "~/out", notes=True)
        assert not (tmp_path / "~").exists()

    def test_too_many_virtual_tokens_for_a_backbone_are_refused(
        self, fails: Fails, data: Any, tmp_path: Path, bert: Path
    ) -> None:
        options = ("--method", "p-tuning", "--virtual-tokens", 57)
        message = fails("train", "--backbone", bert, "--data", data(), "--output", tmp_path / "o", *options, notes=True)
        assert "57 virtual tokens" in message
        assert "64 positions" in message
        assert "at most 56" in message

    def test_a_longer_max_length_than_fits_is_refused(
        self, fails: Fails, data: Any, tmp_path: Path, bert: Path
    ) -> None:
        options = ("--max-length", 60, "--virtual-tokens", 5, "--method", "prompt-tuning")
        message = fails("train", "--backbone", bert, "--data", data(), "--output", tmp_path / "o", *options, notes=True)
        assert "max_length 60" in message.replace("--max-length", "max_length")
        assert "59" in message

    def test_a_deep_prompt_does_not_enter_squeezebert(
        self, fails: Fails, data: Any, tmp_path: Path, backbone_folder: Callable[..., Path]
    ) -> None:
        folder = backbone_folder("squeezebert")
        options = ("--method", "deep", "--output", tmp_path / "o")
        message = fails("train", "--backbone", folder, "--data", data(), *options, notes=True)
        assert "--method deep does not work" in message
        assert "squeezebert" in message
        assert "p-tuning" in message

    def test_patience_with_the_last_epoch_is_refused(self, fails: Fails, data: Any, tmp_path: Path, bert: Path) -> None:
        arguments = ("--backbone", bert, "--data", data(), "--output", tmp_path / "o")
        assert "--best last compares none" in fails("train", *arguments, "--best", "last", "--patience", "2")
        assert not (tmp_path / "o").exists()

    def test_an_unknown_device_is_named(self, fails: Fails, data: Any, tmp_path: Path, bert: Path) -> None:
        options = ("--device", "abacus", "--output", tmp_path / "o")
        assert "--device abacus cannot be used" in fails(
            "train", "--backbone", bert, "--data", data(), *options, notes=True
        )

    def test_a_disk_that_fills_up_leaves_the_older_adapter_loadable(
        self,
        fails: Fails,
        reviews: Path,
        adapter: Path,
        bert: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        before = load(adapter).predict("a good film")
        files = {path.name: path.read_bytes() for path in adapter.iterdir()}
        syncs = []
        real = os.fsync

        def fsync(number: int) -> None:
            syncs.append(number)
            if len(syncs) == 4:  # options.json, metrics.jsonl, then the new weights, then the new record
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            real(number)

        monkeypatch.setattr(os, "fsync", fsync)
        options = ("--epochs", 1, "--virtual-tokens", 4, "--seed", 9, "--head-lr", 0.1, "--overwrite")
        message = fails("train", "--backbone", bert, "--data", reviews, "--output", adapter, *options, notes=True)
        assert str(adapter) in message
        assert "No space left on device" in message
        after = {path.name: path.read_bytes() for path in adapter.iterdir()}
        del files["metrics.jsonl"], after["metrics.jsonl"], after["options.json"]
        files.pop("checkpoint.safetensors", None)  # of the older run, which cannot go on any more
        assert after == files
        assert load(adapter).predict("a good film") == before


class TestOutput:
    """Nothing that is read is written over, and every stream may be closed, full or of another encoding."""

    def test_the_input_is_never_the_output(
        self, fails: Fails, adapter: Path, data: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = Path(data())
        before = path.read_bytes()
        monkeypatch.chdir(path.parent)
        message = "would write over the input"
        assert message in fails("predict", adapter, "--input", path, "--output", f"./{path.name}")
        assert message in fails("suggest", adapter, "--input", path.name, "--output", path)
        assert message in fails("check", path, "--fix", path)
        assert message in fails("check", path.parent, "--fix", path.parent)
        assert message in fails("check", path.parent, "--fix", path.parent / "fixed.csv")
        assert path.read_bytes() == before

    def test_an_empty_name_is_refused(self, fails: Fails, adapter: Path, data: Any) -> None:
        message = "is empty; give the name of a file or folder"
        assert message in fails("train", "--backbone", "b", "--data", data(), "--output", "")
        assert message in fails("export", adapter, "", "--to", "torch")

    def test_a_file_that_is_no_archive_is_named(self, fails: Fails, tmp_path: Path) -> None:
        (tmp_path / "data.zip").write_bytes(b"no archive at all")
        assert "is not a zip archive, although its name says so" in fails("check", tmp_path / "data.zip")

    def test_a_file_in_the_place_of_an_adapter_is_called_a_file(self, fails: Fails, data: Any) -> None:
        path = data()
        assert f"there is no such folder; '{path}' is a file" in fails("inspect", path)

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
    @pytest.mark.parametrize(
        ("redirection", "code", "said"),
        [
            (">/dev/full", 2, "the output cannot be written: No space left on device"),
            (">&-", 0, ""),
            ("--input - <&-", 2, "standard input is closed; give a file"),
        ],
    )
    def test_closed_and_full_streams(self, adapter: Path, redirection: str, code: int, said: str) -> None:
        command = "predict" if "--input" in redirection else "inspect"
        line = f"exec {sys.executable} -m ptune {command} {adapter} {redirection}"
        variables = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        done = subprocess.run(["bash", "-c", line], stderr=subprocess.PIPE, text=True, env=variables, check=False)
        assert (done.returncode, said in done.stderr) == (code, True), done.stderr

    def test_a_terminal_that_is_not_utf_8_gets_escapes(self, adapter: Path) -> None:
        variables = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONIOENCODING": "ascii"}
        command = [sys.executable, "-m", "ptune", "inspect", "no-\U0001f44d"]
        done = subprocess.run(command, capture_output=True, env=variables, check=False)
        assert done.returncode == 2
        assert b"\\U0001f44d" in done.stderr


class TestPredict:
    """`ptune predict`."""

    def test_a_text_and_a_file_at_once_are_refused(self, fails: Fails, data: Any) -> None:
        message = fails("predict", "a", "--text", "good", "--input", data())
        assert "--text" in message
        assert "--input" in message

    def test_neither_a_text_nor_a_file_is_refused(self, fails: Fails) -> None:
        assert "give --text, or a file by --input" in fails("predict", "a")

    def test_a_text_pair_goes_with_a_text_alone(self, fails: Fails, data: Any) -> None:
        assert "--text-pair-column" in fails("predict", "a", "--input", data(), "--text-pair", "b")

    def test_an_output_goes_with_a_file_alone(self, fails: Fails) -> None:
        assert "--output" in fails("predict", "a", "--text", "good", "--output", "out.csv")

    def test_a_missing_adapter_is_named(self, fails: Fails, tmp_path: Path) -> None:
        assert f"'{tmp_path / 'none'}': there is no such folder" in fails(
            "predict", tmp_path / "none", "--text", "good"
        )

    def test_a_folder_that_is_no_adapter_is_named(self, fails: Fails, tmp_path: Path) -> None:
        message = fails("predict", tmp_path, "--text", "good")
        assert str(tmp_path) in message
        assert RECORD_FILE in message
        assert PEFT_FILE in message

    @pytest.mark.parametrize("text", ["", "  \n"])
    def test_an_empty_text_is_refused(self, fails: Fails, trained: dict[str, Path], text: str) -> None:
        assert fails("predict", trained["deep"], "--text", text) == "--text is empty; give the text to classify"

    def test_an_empty_second_text_is_refused(self, fails: Fails, adapter: Path) -> None:
        assert "--text-pair is empty" in fails("predict", adapter, "--text", "good", "--text-pair", " ")

    def test_an_empty_text_of_a_file_is_named_by_its_row(
        self, fails: Fails, trained: dict[str, Path], data: Any, tmp_path: Path
    ) -> None:
        output = tmp_path / "out.jsonl"
        path = data("text\ngood\nbad\n \nfine\n")
        message = fails("predict", trained["deep"], "--input", path, "--output", output, "--on-empty", "error")
        assert "reviews.csv', row 3: column 'text' is empty" in message
        assert not output.exists()

    def test_an_unknown_output_ending_is_named_with_the_known_ones(self, fails: Fails, data: Any) -> None:
        message = fails("predict", "a", "--input", data(), "--output", "out.xlsx")
        assert "'.xlsx'" in message
        assert ".parquet" in message

    def test_an_output_below_a_file_cannot_be_written(self, fails: Fails, data: Any, tmp_path: Path) -> None:
        path = data()
        assert "cannot write" in fails("predict", "a", "--input", path, "--output", path / "out" / "a.csv")

    def test_an_output_beside_nothing_but_a_file_is_not_reported_to_exist(
        self, fails: Fails, data: Any, tmp_path: Path
    ) -> None:
        path = data()
        message = fails("predict", "a", "--input", path, "--output", path / "a.csv")
        assert "cannot write" in message
        assert "File exists" not in message

    def test_a_missing_input_is_named(self, fails: Fails, trained: dict[str, Path], tmp_path: Path) -> None:
        message = fails("predict", trained["deep"], "--input", tmp_path / "none.csv")
        assert "none.csv': there is no such file" in message

    def test_an_unknown_text_column_is_named_with_its_option(
        self, fails: Fails, trained: dict[str, Path], data: Any
    ) -> None:
        message = fails("predict", trained["deep"], "--input", data(), "--text-column", "txet")
        assert "--text-column" in message
        assert "did you mean 'text'?" in message

    def test_columns_that_cannot_be_guessed_are_asked_for_by_predicts_own_option(
        self, fails: Fails, trained: dict[str, Path], data: Any
    ) -> None:
        assert "--text-column" in fails("predict", trained["deep"], "--input", data("a,b\ngood,bad\n"))

    def test_half_a_character_is_named_by_its_row(self, fails: Fails, trained: dict[str, Path], data: Any) -> None:
        path = data('{"text": "good"}\n{"text": "bad \\ud800"}\n', "reviews.jsonl")
        assert "reviews.jsonl', row 2: column 'text'" in fails("predict", trained["deep"], "--input", path)

    def test_a_text_in_another_encoding_is_refused(self, fails: Fails, trained: dict[str, Path]) -> None:
        """Bytes on the command line that are not UTF-8 reach Python as lone surrogates."""
        assert "text 1" in fails("predict", trained["deep"], "--text", "caf\udce9")

    @pytest.mark.parametrize("ending", ["csv", "parquet"])
    def test_rows_with_other_columns_than_the_first_are_no_crash(
        self, fails: Fails, trained: dict[str, Path], data: Any, tmp_path: Path, ending: str
    ) -> None:
        path = data('{"text": "good"}\n{"text": "bad", "note": "late"}\n', "a.jsonl")
        message = fails("predict", trained["deep"], "--input", path, "--output", tmp_path / f"out.{ending}")
        assert "'note'" in message
        assert ".jsonl" in message


class TestPrecision:
    def test_a_mistyped_precision_is_named(self, fails: Fails, adapter: Path) -> None:
        message = fails("predict", adapter, "--text", "a good film", "--precision", "int4")
        assert "int4" in message
        assert "int8" in message

    def test_a_missing_library_is_named_with_its_extra(
        self, fails: Fails, adapter: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "openvino", None)
        message = fails("predict", adapter, "--text", "a good film", "--precision", "int8")
        assert "pip install 'ptune[openvino]'" in message

    def test_another_number_type_beside_it_is_named(self, fails: Fails, adapter: Path) -> None:
        message = fails("predict", adapter, "--text", "a good film", "--precision", "int8", "--dtype", "bfloat16")
        assert "bfloat16" in message
        assert "--dtype" in message


class TestEvaluate:
    """`ptune evaluate`."""

    def test_rows_without_labels_are_refused(self, fails: Fails, trained: dict[str, Path], data: Any) -> None:
        message = fails("evaluate", trained["deep"], "--data", data("text,label\ngood,-1\nbad,-1\n"))
        assert "no labels" in message

    def test_a_label_that_the_adapter_does_not_know_is_named_by_its_row(
        self, fails: Fails, trained: dict[str, Path], data: Any
    ) -> None:
        message = fails("evaluate", trained["deep"], "--data", data("text,label\ngood,positive\nbad,so-so\n"))
        assert "row 2: label 'so-so'" in message
        assert "negative, positive" in message

    @pytest.mark.parametrize("folder", ["adapter", "peft_adapter"])
    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            ("text,label\ngood,1\n ,0\n", "row 2: column 'text' is empty"),
            ("text,mood\ngood,1\n", "no label column"),
            ("text,label\ngood,-1\nbad,-1\n", "label"),
        ],
    )
    def test_the_data_are_checked_before_the_backbone_is_looked_for(
        self, fails: Fails, request: pytest.FixtureRequest, data: Any, folder: str, content: str, reason: str
    ) -> None:
        arguments = ["--data", data(content), "--backbone", "/none/such"]
        if folder == "peft_adapter":  # otherwise the backbone's configuration is read first, which may name both
            arguments += ["--labels", "0,1", "--problem-type", "single_label_classification"]
        assert reason in fails("evaluate", request.getfixturevalue(folder), *arguments)

    def test_a_missing_split_is_named(self, fails: Fails, trained: dict[str, Path], reviews: Path) -> None:
        assert "no split 'tests'" in fails("evaluate", trained["deep"], "--data", reviews, "--split", "tests")


class TestAdapters:
    """Adapter folders that are damaged or belong to another backbone."""

    @pytest.fixture(params=["predict", "inspect"])
    def reading(self, request: pytest.FixtureRequest, fails: Fails) -> Fails:
        """Run each of the commands that open an adapter: both report a damaged one in the same way."""

        def run(folder: Path) -> str:
            message = fails(request.param, folder, *(("--text", "good") if request.param == "predict" else ()))
            assert str(folder) in message
            return message

        return run

    def test_an_adapter_of_another_width_is_refused(
        self, fails: Fails, trained: dict[str, Path], backbone_folder: Callable[..., Path]
    ) -> None:
        other = backbone_folder("bert", hidden_size=16)
        for folder in trained.values():
            message = fails("predict", folder, "--text", "good", "--backbone", other)
            assert "width 32" in message
            assert "width 16" in message
            assert str(other) in message

    def test_a_peft_adapter_of_another_width_is_refused(
        self, fails: Fails, peft_adapter: Path, backbone_folder: Callable[..., Path]
    ) -> None:
        message = fails(
            "predict", peft_adapter, "--text", "good", "--backbone", backbone_folder("bert", hidden_size=16)
        )
        assert f"'{PROMPT_KEY}' has shape [3, 32], expected [3, 16]" in message

    def test_an_adapter_of_another_depth_is_refused(
        self, fails: Fails, trained: dict[str, Path], backbone_folder: Callable[..., Path]
    ) -> None:
        other = backbone_folder("bert", num_hidden_layers=3)
        message = fails("predict", trained["deep"], "--text", "good", "--backbone", other)
        assert "needs a backbone with 2 layers" in message
        assert "has 3 layers" in message

    def test_an_adapter_of_another_family_is_refused(
        self, fails: Fails, trained: dict[str, Path], backbone_folder: Callable[..., Path]
    ) -> None:
        message = fails("predict", trained["deep"], "--text", "good", "--backbone", backbone_folder("roberta"))
        assert "type bert" in message
        assert "type roberta" in message

    def test_an_adapter_whose_backbone_is_gone_names_it(self, fails: Fails, adapter: Path, tmp_path: Path) -> None:
        record = json.loads((adapter / RECORD_FILE).read_text(encoding="utf-8"))
        record["backbone"]["name"] = str(tmp_path / "gone")
        (adapter / RECORD_FILE).write_text(json.dumps(record), encoding="utf-8")
        assert str(tmp_path / "gone") in fails("predict", adapter, "--text", "good")

    @pytest.mark.parametrize("kept", [0, 7, 300, -50])
    def test_truncated_weights_are_refused(self, reading: Fails, adapter: Path, kept: int) -> None:
        path = adapter / WEIGHTS_FILE
        path.write_bytes(path.read_bytes()[:kept])
        assert "not a complete safetensors file" in reading(adapter)

    def test_trailing_bytes_after_the_weights_are_refused(self, reading: Fails, adapter: Path) -> None:
        path = adapter / WEIGHTS_FILE
        path.write_bytes(path.read_bytes() + b"junk")
        assert "not a complete safetensors file" in reading(adapter)

    def test_weights_of_another_run_are_refused(self, reading: Fails, adapter: Path, trained: dict[str, Path]) -> None:
        shutil.copy(trained["p-tuning"] / WEIGHTS_FILE, adapter / WEIGHTS_FILE)
        assert RECORD_FILE in reading(adapter)

    def test_missing_weights_are_named(self, reading: Fails, adapter: Path) -> None:
        (adapter / WEIGHTS_FILE).unlink()
        assert f"has no {WEIGHTS_FILE}" in reading(adapter)

    def test_a_pickle_is_not_opened(self, reading: Fails, peft_adapter: Path) -> None:
        (peft_adapter / WEIGHTS_FILE).rename(peft_adapter / "adapter_model.bin")
        message = reading(peft_adapter)
        assert "adapter_model.bin is a pickle" in message
        assert "safetensors" in message

    @pytest.mark.parametrize("content", [b"{", b"", b"not json", b"\xff\xfe", b"[" * 100_000])
    @pytest.mark.parametrize("name", [PEFT_FILE, RECORD_FILE])
    def test_json_that_does_not_parse_is_named(
        self, reading: Fails, peft_adapter: Path, name: str, content: bytes
    ) -> None:
        (peft_adapter / name).write_bytes(content)
        message = reading(peft_adapter)
        assert f"{name} is not JSON" in message

    @pytest.mark.parametrize("name", [PEFT_FILE, RECORD_FILE])
    def test_json_that_is_no_object_is_named(self, reading: Fails, peft_adapter: Path, name: str) -> None:
        (peft_adapter / name).write_text("[1]", encoding="utf-8")
        assert f"{name} holds a list" in reading(peft_adapter)

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("peft_type", "LORA"),
            ("peft_type", None),
            ("peft_type", ["P_TUNING"]),
            ("task_type", "CAUSAL_LM"),
            ("num_virtual_tokens", 0),
            ("num_virtual_tokens", 5000),
            ("num_virtual_tokens", "3"),
            ("num_virtual_tokens", 4),
            ("token_dim", 48),
            ("token_dim", None),
            ("num_layers", True),
            ("base_model_name_or_path", 7),
            ("base_model_name_or_path", ["a"]),
            ("revision", 7),
        ],
    )
    def test_a_wrong_value_in_pefts_file_is_refused(
        self, reading: Fails, peft_adapter: Path, key: str, value: object
    ) -> None:
        path = peft_adapter / PEFT_FILE
        path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), key: value}), encoding="utf-8")
        reading(peft_adapter)

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("format_version", 2),
            ("format_version", None),
            ("prompt", {"virtual_tokens": 0}),
            ("prompt", None),
            ("labels", ["only one"]),
            ("classes", "two"),
            ("max_length", 0),
            ("backbone", "bert"),
            ("columns", [1]),
        ],
    )
    def test_a_wrong_value_in_the_record_is_refused(
        self, reading: Fails, adapter: Path, key: str, value: object
    ) -> None:
        path = adapter / RECORD_FILE
        path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), key: value}), encoding="utf-8")
        message = reading(adapter)
        assert RECORD_FILE in message
        assert key in message
        assert ": :" not in message

    def test_a_peft_folder_without_a_head_is_refused(self, reading: Fails, peft_adapter: Path) -> None:
        save_file({PROMPT_KEY: torch.zeros(3, 32)}, peft_adapter / WEIGHTS_FILE)
        message = reading(peft_adapter)
        assert "no classification head" in message
        assert "peft 0.17" in message

    def test_a_file_without_a_prompt_is_refused(self, reading: Fails, peft_adapter: Path) -> None:
        save_file({"base_model.classifier.weight": torch.zeros(2, 32)}, peft_adapter / WEIGHTS_FILE)
        assert PROMPT_KEY in reading(peft_adapter)

    def test_a_tensor_of_whole_numbers_is_refused(self, reading: Fails, peft_adapter: Path) -> None:
        tensors = {
            PROMPT_KEY: torch.zeros(3, 32, dtype=torch.int64),
            "base_model.classifier.weight": torch.zeros(2, 32),
        }
        save_file(tensors, peft_adapter / WEIGHTS_FILE)
        assert "I64" in reading(peft_adapter)

    def test_a_max_length_beyond_the_backbone_is_refused(self, fails: Fails, adapter: Path) -> None:
        path = adapter / RECORD_FILE
        record = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps({**record, "max_length": 5000}), encoding="utf-8")
        assert "--max-length 5000" in fails("predict", adapter, "--text", "good")

    def test_a_checkpoint_of_another_run_is_not_resumed(
        self, fails: Fails, adapter: Path, reviews: Path, bert: Path
    ) -> None:
        options = ("--resume", "--epochs", 1, "--virtual-tokens", 3, "--lr", 0.5)
        message = fails("train", "--backbone", bert, "--data", reviews, "--output", adapter, *options, notes=True)
        assert "checkpoint.safetensors" in message
        assert "without --resume" in message
        assert "lr" in message
        assert "0.5" in message
        assert "batch_size" not in message  # which is the same in both

    def test_a_damaged_checkpoint_is_not_resumed(self, fails: Fails, adapter: Path, reviews: Path, bert: Path) -> None:
        (adapter / "checkpoint.safetensors").write_bytes(b"junk")
        message = fails("train", "--backbone", bert, "--data", reviews, "--output", adapter, "--resume", notes=True)
        assert "damaged" in message
        assert "checkpoint.safetensors" in message


@pytest.mark.parametrize(
    ("family", "options", "reason"),
    [
        ("llama", ["--verbalizer", "good"], "--verbalizer: 'good' is not of the form label=word,word"),
        ("llama", ["--verbalizer", "neg=bad"], "--verbalizer has words for 'neg', but the labels are 'neg', 'pos'"),
        ("llama", ["--template", "Label:"], "--template: template 'Label:' has no {text}"),
        ("llama", ["--template", "{text} {mask}"], "a mask token is for masked language models"),
        ("llama", ["--verbalizer", "neg=very bad;pos=very good"], "begin with the same tokens, 'very'"),
        ("bert", [*WORDS, "--template", "{text} is"], "--template '{text} is' has no {mask}"),
        ("bert", [*WORDS, "--template", "the {text} {mask}", "--max-length", "4"], "leaves no room for text in 4"),
        ("bert", ["--tie-first"], "--tie-first is for prompts at the input"),
        ("bert", ["--encoder", "mlp", *START], "needs --encoder none or --encoder residual"),
    ],
)
def test_words_templates_and_starts_that_do_not_go_with_a_language_model(
    family: str,
    options: list[str],
    reason: str,
    fails: Fails,
    language_model_folder: Callable[..., Path],
    data: Callable[..., Path],
    tmp_path: Path,
) -> None:
    needed = ("--backbone", language_model_folder(family), "--data", data(), "--output", tmp_path / "o")
    assert reason in fails("train", *needed, *options, notes=True)
