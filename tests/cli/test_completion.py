"""The completion scripts complete commands, options, values and files."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from ptune.cli import main


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_names_every_command_and_its_options(shell, capsys) -> None:
    main(["completion", shell])
    script, errors = capsys.readouterr()
    assert errors == ""
    for name in (
        "train",
        "evaluate",
        "predict",
        "inspect",
        "push",
        "demo",
        "completion",
        "virtual-tokens",
        "prompt-tuning",
    ):
        assert name in script


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["ev"], "evaluate"),
        (["train", "--virt"], "--virtual-tokens"),
        (["train", "--method", "d"], "deep"),
        (["completion", "z"], "zsh"),
        (["predict", "revi"], "reviews.csv"),
        (["train", "--data", "revi"], "reviews.csv"),
        (["train", "--backbone", "revi"], "reviews.csv"),
    ],
)
def test_bash_completes_what_is_begun(words, offered, tmp_path, capsys) -> None:
    main(["completion", "bash"])
    script, _ = capsys.readouterr()
    (tmp_path / "reviews.csv").touch()
    asked = f'{script}\nCOMP_WORDS=(ptune "$@"); COMP_CWORD=$#; _ptune; printf "%s\\n" "${{COMPREPLY[@]}}"'
    command = ["bash", "-c", asked, "bash", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.splitlines() == [offered]


@pytest.mark.parametrize("arguments", [[], ["tcsh"]])
def test_another_shell_or_none_is_refused(arguments, capsys) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["completion", *arguments])
    assert exit_.value.code == 2
    assert "SHELL" in capsys.readouterr().err
