"""Texts that look like options are texts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ptune.cli import main
from ptune.cli.tokens import join_texts
from ptune.inference.classifier import TextClassifier, load
from ptune.model.classifier import PromptClassifier
from ptune.model.config import PromptConfig


@pytest.fixture(scope="module")
def adapter(backbone, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("adapter")
    TextClassifier.around(PromptClassifier(backbone("bert"), PromptConfig(), ["a", "b"], seed=3)).save(folder)
    return folder


TEXTS = ["-5 degrees", "-", "--", "--help", "-h", "--version", "--json", "--config", "--text", "=5", "a = b", "--x=y"]


@pytest.mark.parametrize("text", TEXTS)
def test_every_text_is_a_text(text, adapter, capsys) -> None:
    main(["predict", str(adapter), "--text", text, "--json"])
    answer = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert answer["scores"] == pytest.approx(load(adapter).predict(text)[0]["scores"], abs=1e-6)


@pytest.mark.parametrize("pair", ["-5 degrees", "--help"])
def test_a_second_text_too(pair, adapter, capsys) -> None:
    main(["predict", str(adapter), "--text-pair", pair, "--text", "-1", "--json"])
    answer = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert answer["scores"] == pytest.approx(load(adapter).predict(("-1", pair))[0]["scores"], abs=1e-6)


def test_help_is_help_everywhere_else(capsys) -> None:
    for tokens in (["predict", "--help"], ["predict", "a", "--text", "x", "--help"], ["train", "--text", "--help"]):
        main(tokens)
        assert capsys.readouterr().out.startswith(f"Usage: ptune {tokens[0]}")


def test_a_missing_text_is_named(adapter, capsys) -> None:
    with pytest.raises(SystemExit):
        main(["predict", str(adapter), "--text"])
    assert "--text needs a value; `ptune predict --help`" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (["train"], "--backbone is missing; `ptune train --help` says what it is"),
        (["train", "--bakbone", "x"], "there is no option --bakbone; did you mean --backbone?"),
        (["predict"], "ADAPTER is missing; `ptune predict --help` says what it is"),
        (["predict", "a"], "there is nothing to predict: give --text, or a file by --input"),
        (
            ["predict", "a", "b", "c"],
            "ptune predict does not know what to do with: b, c; put a text with spaces in quotes",
        ),
    ],
)
def test_a_wrong_command_line_gets_one_plain_sentence(tokens, message, capsys) -> None:
    with pytest.raises(SystemExit) as found:
        main(tokens)
    assert found.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("tokens", "joined"),
    [
        (["train", "--template", "-{text}-"], ["train", "--template=-{text}-"]),
        (["evaluate", "a", "--label-separator", "-"], ["evaluate", "a", "--label-separator=-"]),
        (["push", "a", "b", "--message", "- fix"], ["push", "a", "b", "--message=- fix"]),
        (["predict", "--", "--text", "-5"], ["predict", "--", "--text", "-5"]),
        (["evaluate", "a", "--text", "body"], ["evaluate", "a", "--text", "body"]),  # a column
        ([], []),
    ],
)
def test_options_of_free_text_take_the_next_argument(tokens, joined) -> None:
    assert join_texts(tokens) == joined
