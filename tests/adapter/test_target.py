"""No adapter is written into a model's folder, and none is replaced unless asked."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import ptune
from ptune.adapter.folder import save_adapter
from ptune.adapter.layout import ADAPTER_FILES, Record
from ptune.adapter.target import check_target, keep_apart
from ptune.cli import main
from ptune.errors import ConfigError
from ptune.inference.classifier import TextClassifier
from ptune.model.loading import load_backbone
from ptune.model.locate import Location
from ptune.training.checkpoint import CHECKPOINT_FILE


def files(folder: Path) -> dict[str, bytes]:
    """Everything in a folder and its subfolders."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def refused(capsys, *tokens: object) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as caught:
        main([str(token) for token in tokens])
    assert caught.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line.removeprefix("ptune: error: ")


@pytest.fixture
def own(backbone_folder, tmp_path) -> Path:
    """A backbone of the test's own."""
    return Path(shutil.copytree(backbone_folder("bert"), tmp_path / "bert"))


@pytest.fixture(scope="module")
def trained(backbone_folder, reviews, tmp_path_factory) -> tuple[Path, list[str]]:
    """The folder of a finished run, and its command."""
    folder = tmp_path_factory.mktemp("trained") / "out"
    command = ["train", "--backbone", str(backbone_folder()), "--data", str(reviews), "--epochs", "1"]
    main([*command, "--output", str(folder)])
    return folder, command


@pytest.mark.parametrize(
    ("output", "said"),
    [
        ("bert", "holds a model, which an adapter in the same folder would break"),
        ("bert/.", "holds a model"),
        ("./bert/adapter", "is inside the folder of backbone 'bert', which an adapter there would break"),
        ("other/../bert/a/b", "is inside the folder of backbone 'bert'"),
    ],
)
def test_train_does_not_write_into_its_backbone(output, said, own, reviews, capsys, monkeypatch) -> None:
    monkeypatch.chdir(own.parent)
    before = files(own)
    message = refused(capsys, "train", "--backbone", "bert", "--data", reviews, "--output", output, "--overwrite")
    assert said in message
    assert files(own) == before


def test_a_link_to_the_backbone_is_the_backbone(own, reviews, capsys) -> None:
    link = own.with_name("link")
    link.symlink_to(own)
    message = refused(capsys, "train", "--backbone", own, "--data", reviews, "--output", link / "adapter")
    assert "is inside the folder of backbone" in message


def test_the_folder_is_checked_before_the_data(own, tmp_path, capsys) -> None:
    message = refused(capsys, "train", "--backbone", own, "--data", tmp_path / "none.csv", "--output", own)
    assert "holds a model" in message


def test_train_does_not_write_into_another_model(own, backbone_folder, reviews, capsys) -> None:
    message = refused(capsys, "train", "--backbone", backbone_folder(), "--data", reviews, "--output", own)
    assert "holds a model" in message


def test_nothing_else_writes_into_a_backbone_either(own, backbone_folder, trained, reviews, capsys) -> None:
    before = files(own)
    given = load_backbone(str(own), device="cpu")
    model = ptune.PromptClassifier(given, ptune.PromptConfig(), ["negative", "positive"])
    with pytest.raises(ConfigError, match="inside the folder of backbone"):
        ptune.train(model, ptune.load_data(reviews), output=own / "adapter")
    with pytest.raises(ConfigError, match="inside the folder of backbone"):
        TextClassifier.around(model).save(own / "adapter")
    with pytest.raises(ConfigError, match="is the folder of backbone"):
        save_adapter(own, model, Record.of(model))
    target = backbone_folder() / "adapter"
    assert "inside the folder of backbone" in refused(capsys, "export", trained[0], target)
    assert files(own) == before
    assert not target.exists()


def test_a_gguf_file_may_lie_beside_an_adapters_folder(tmp_path) -> None:
    location = Location("m.gguf", str(tmp_path), gguf_file="m.gguf")
    keep_apart(tmp_path / "adapter", location, inside=True)
    with pytest.raises(ConfigError, match="is the folder of backbone"):
        keep_apart(tmp_path, location, inside=True)


def test_a_backbone_that_is_not_found_is_not_checked(tmp_path) -> None:
    check_target(tmp_path, backbone="python:no-such-package")
    check_target(tmp_path, backbone="owner/name")


def test_train_replaces_an_adapter_only_if_asked(trained, tmp_path, capsys) -> None:
    folder, command = Path(shutil.copytree(trained[0], tmp_path / "out")), trained[1]
    before = files(folder)
    message = refused(capsys, *command, "--seed", "5", "--output", folder)
    assert f"folder '{folder}' holds an adapter already" in message
    assert "give another folder, --overwrite to replace it, or --resume to go on with its run" in message
    assert files(folder) == before
    main([*command, "--seed", "5", "--output", str(folder), "--overwrite"])
    assert files(folder)[ADAPTER_FILES[0]] != before[ADAPTER_FILES[0]]


def test_resume_needs_no_permission_where_there_is_a_run(trained, tmp_path, capsys) -> None:
    folder, command = Path(shutil.copytree(trained[0], tmp_path / "out")), trained[1]
    main([*command, "--output", str(folder), "--resume"])
    assert "already finished" in capsys.readouterr().err
    (folder / CHECKPOINT_FILE).unlink()  # such as an adapter that was copied: there is nothing to resume
    before = files(folder)
    message = refused(capsys, *command, "--output", folder, "--resume")
    assert f"holds an adapter, but no {CHECKPOINT_FILE}, so there is no run to resume" in message
    assert message.endswith("--overwrite without --resume to train anew")
    assert files(folder) == before


def test_a_configuration_file_may_ask_to_overwrite(trained, tmp_path, capsys) -> None:
    folder, command = Path(shutil.copytree(trained[0], tmp_path / "out")), trained[1]
    path = tmp_path / "run.yaml"
    path.write_text(f"output: {folder}\n")
    assert "holds an adapter already" in refused(capsys, *command, "--config", path)
    path.write_text(f"output: {folder}\noverwrite: true\n")
    main([*command, "--config", str(path)])


def test_python_replaces_adapters_unless_told_otherwise(backbone, reviews, trained) -> None:
    model = ptune.PromptClassifier(backbone("bert"), ptune.PromptConfig(), ["negative", "positive"])
    before = files(trained[0])
    with pytest.raises(ConfigError, match="`overwrite=True` to replace it, or `resume=True`"):
        ptune.train(model, ptune.load_data(reviews), output=trained[0], overwrite=False)
    assert files(trained[0]) == before


def test_the_demo_replaces_only_its_own_adapter(trained, capsys) -> None:
    assert "--overwrite" in refused(capsys, "demo", "--output", trained[0])
