"""Backbones outside of the table of families, and those without the attention interface, from the command line."""

from __future__ import annotations

import json

import pytest

import ptune
from ptune.cli import main
from tests.model.test_all_families import TRIED

pytestmark = pytest.mark.filterwarnings("ignore")  # models warn of token ids outside of the tiny vocabulary

IN_SHORT = ("deberta", "gptj", "mobilebert")


def train_and_predict(family: str, method: str, backbone_folder, reviews, tmp_path, capsys) -> str:
    """Returns what stands on stderr of the training."""
    output = tmp_path / family
    arguments = ["--backbone", str(backbone_folder(family)), "--data", str(reviews), "--output", str(output)]
    main(["train", *arguments, "--method", method, "--epochs", "1", "--virtual-tokens", "3"])
    said = capsys.readouterr().err
    main(["evaluate", str(output), "--data", str(reviews), "--json"])
    assert 0 <= json.loads(capsys.readouterr().out)["accuracy"] <= 1
    main(["predict", str(output), "--text", "a good film", "--json"])
    alone = json.loads(capsys.readouterr().out)
    classifier = ptune.load(output, device="cpu")
    together = classifier.predict(["a good film", "it is a very slow and cold film"])[0]
    assert together["label"] == alone["label"]
    assert together["score"] == pytest.approx(alone["score"], abs=1e-5)
    return said


@pytest.mark.parametrize("family", IN_SHORT)
def test_a_family_trains_with_deep_prompts(family, backbone_folder, reviews, tmp_path, capsys) -> None:
    said = train_and_predict(family, "deep", backbone_folder, reviews, tmp_path, capsys)
    assert ("it was checked and works" in said) == (family != "deberta")


def test_a_family_without_deep_prompts_trains_at_the_input(backbone_folder, reviews, tmp_path, capsys) -> None:
    said = train_and_predict("squeezebert", "p-tuning", backbone_folder, reviews, tmp_path, capsys)
    assert "an encoder, with prompts at the input alone (its layers do not call transformers' attention" in said


@pytest.mark.long
@pytest.mark.parametrize("family", [name for name in TRIED if name not in IN_SHORT])
def test_every_family_that_was_tried_trains_with_deep_prompts(
    family, backbone_folder, reviews, tmp_path, capsys
) -> None:
    train_and_predict(family, "deep", backbone_folder, reviews, tmp_path, capsys)
