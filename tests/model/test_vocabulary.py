"""Tokenizers and word embeddings that do not belong together are refused before anything is trained on them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import ptune
from ptune.cli import main
from ptune.errors import BackboneError, DataError
from ptune.inference.classifier import TextClassifier
from ptune.model.loading import load_backbone
from ptune.model.tokenizer import tokenizer_of
from tests.conftest import VOCABULARY


@pytest.fixture
def folder(backbone_folder: Callable[..., Path], tmp_path: Path) -> Callable[..., Path]:
    """Copy a tiny backbone, to be damaged."""
    return lambda family="bert": shutil.copytree(backbone_folder(family), tmp_path / family)


def classifier(folder: Path) -> TextClassifier:
    model = ptune.PromptClassifier.from_backbone(str(folder), labels=["a", "b"], device="cpu")
    return TextClassifier.around(model)


def change_tokenizer(folder: Path, *, token: str, index: int, **names: object) -> None:
    """Add a token to the files of a tokenizer, and change which tokens have a role."""
    content = json.loads((folder / "tokenizer.json").read_text())
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    content["added_tokens"].append({"id": index, "content": token, "special": True, **flags})
    (folder / "tokenizer.json").write_text(json.dumps(content))
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | names))


@pytest.mark.parametrize("family", ["bert", "roberta", "deberta-v2", "distilbert", "gpt2", "llama", "qwen2"])
def test_a_folder_without_tokenizer_files_is_refused(family, folder) -> None:
    damaged = folder(family)
    for path in damaged.glob("tokenizer*"):
        path.unlink()
    with pytest.raises(BackboneError, match="tokenizer"):
        classifier(damaged)


def test_missing_tokenizer_files_are_named_on_the_command_line(folder, reviews, tmp_path, capsys) -> None:
    damaged = folder()
    for path in damaged.glob("tokenizer*"):
        path.unlink()
    with pytest.raises(SystemExit) as caught:
        main(["train", "--backbone", str(damaged), "--data", str(reviews), "--output", str(tmp_path / "out")])
    assert caught.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "knows 5 tokens" in line
    assert "copy the tokenizer's files (tokenizer.json, vocab.txt" in line


def test_a_token_without_an_embedding_is_named(folder) -> None:
    damaged = folder()
    change_tokenizer(damaged, token="<new>", index=VOCABULARY)
    with pytest.raises(
        BackboneError, match=rf"up to id {VOCABULARY}, but .* {VOCABULARY} tokens only.*'<new>'"
    ) as caught:
        classifier(damaged)
    assert "resize_token_embeddings" in str(caught.value)


def test_an_adapter_is_not_loaded_with_another_models_tokenizer(folder, backbone, tmp_path) -> None:
    damaged = folder()
    TextClassifier.around(ptune.PromptClassifier(backbone("bert"), ptune.PromptConfig(), ["a", "b"])).save(
        tmp_path / "x"
    )
    change_tokenizer(damaged, token="<new>", index=VOCABULARY + 3)
    with pytest.raises(BackboneError, match="'<new>'"):
        ptune.load(tmp_path / "x", str(damaged))


def test_a_tokenizer_that_knows_no_word_is_refused(folder) -> None:
    damaged = folder()
    content = json.loads((damaged / "tokenizer.json").read_text())
    words = content["model"]["vocab"]
    content["model"]["vocab"] = {(word if index < 4 else f"zz{index}"): index for word, index in words.items()}
    (damaged / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(BackboneError, match="knows none of"):
        classifier(damaged)


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_a_padding_token_without_an_embedding_is_replaced(family, folder) -> None:
    plain = folder(family)
    expected = classifier(plain)
    padded = shutil.copytree(plain, plain.with_name("padded"))
    change_tokenizer(padded, token="<padding>", index=VOCABULARY, pad_token="<padding>")
    given = classifier(padded)
    assert given.pad_id < VOCABULARY
    texts = ["a good film", "the plot was slow and it ends", "a <padding> film"]
    torch.testing.assert_close(given.logits(texts), expected.logits(texts))


def test_a_token_for_images_needs_no_embedding(folder) -> None:
    plain = folder("gpt2")
    expected = classifier(plain)
    change_tokenizer(
        plain, token="<image>", index=VOCABULARY, image_token="<image>", extra_special_tokens={"image_token": "<image>"}
    )
    texts = ["a good film", "a <image> film"]
    torch.testing.assert_close(classifier(plain).logits(texts), expected.logits(texts))


def test_a_tokenizer_without_any_special_token_gets_a_padding_token(folder) -> None:
    damaged = folder("gpt2")
    content = json.loads((damaged / "tokenizer.json").read_text())
    content["added_tokens"], content["model"]["unk_token"] = [], "a"
    (damaged / "tokenizer.json").write_text(json.dumps(content))
    settings = json.loads((damaged / "tokenizer_config.json").read_text())
    for name in ("unk_token", "bos_token", "eos_token"):
        settings.pop(name, None)
    (damaged / "tokenizer_config.json").write_text(json.dumps(settings))
    rows = classifier(damaged).logits(["a good film", "the plot was slow and it ends"])
    alone = classifier(damaged).logits(["a good film"])
    torch.testing.assert_close(rows[:1], alone)


def test_classifiers_of_one_backbone_share_one_checked_tokenizer(backbone_folder) -> None:
    first, second = (load_backbone(str(backbone_folder("bert")), device="cpu") for _ in range(2))
    assert tokenizer_of(first) is tokenizer_of(second)


@pytest.mark.parametrize("wrong", [VOCABULARY, -1])
def test_an_id_beyond_the_embeddings_is_named(wrong, backbone) -> None:
    model = ptune.PromptClassifier(backbone("bert"), ptune.PromptConfig(), ["a", "b"])
    with pytest.raises(DataError, match=f"a token id is {wrong}, but .* ids 0 to {VOCABULARY - 1}"):
        model(torch.tensor([[2, wrong, 3]]))
