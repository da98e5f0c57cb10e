"""The server's answers are those of `predict`."""

from __future__ import annotations

import asyncio
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import ptune
from ptune.data.targets import REGRESSION
from ptune.serving.encoding import Encoding
from ptune.serving.routes.common import scores_reply
from tests.serving.conftest import TEXTS, running, settings_of


def offline(classifier, text) -> dict[str, float]:
    """The scores of a text by label, as `predict` gives them."""
    (prediction,) = classifier.predict([text])
    if classifier.model.problem_type == REGRESSION:
        return {classifier.labels[0]: prediction["value"]}
    return prediction["scores"]


def by_label(scored) -> dict[str, float]:
    assert [item["score"] for item in scored] == sorted((item["score"] for item in scored), reverse=True)
    return {item["label"]: item["score"] for item in scored}


@pytest.fixture(scope="module")
def classifiers(adapters: Path) -> dict[str, ptune.TextClassifier]:
    return {folder.name: ptune.load(folder, device="cpu") for folder in adapters.iterdir()}


def test_every_adapter_answers_as_predict_does(server, classifiers) -> None:
    for name, classifier in classifiers.items():
        if name == "pairs":
            continue
        answers = server.post(f"/adapters/{name}/predict", {"inputs": [[text] for text in TEXTS]})
        for text, answer in zip(TEXTS, answers, strict=True):
            assert by_label(answer) == pytest.approx(offline(classifier, text), abs=1e-5), name


def test_pairs_answer_as_predict_does(server, classifiers) -> None:
    answer = server.post("/adapters/pairs/predict", {"inputs": ["a good film", "bad"]})
    assert by_label(answer) == pytest.approx(offline(classifiers["pairs"], ("a good film", "bad")), abs=1e-5)


def test_rows_of_many_requests_and_adapters_share_batches(server, classifiers, monkeypatch) -> None:
    batches = []
    compute = server.service.batcher._compute
    monkeypatch.setattr(server.service.batcher, "_compute", lambda parts: batches.append(len(parts)) or compute(parts))
    names = [name for name in classifiers if name != "pairs"]
    asked = [(name, text) for name in names for text in TEXTS] * 2
    with ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(lambda one: server.post(f"/adapters/{one[0]}/predict", {"inputs": one[1]}), asked))
    assert max(batches) > 4
    for (name, text), answer in zip(asked, answers, strict=True):
        assert by_label(answer) == pytest.approx(offline(classifiers[name], text), abs=1e-5), name


def test_one_text_through_many_adapters_is_tokenized_once(server, classifiers, monkeypatch) -> None:
    calls = []
    encode = server.service.encoding.encode
    monkeypatch.setattr(server.service.encoding, "encode", lambda *args: calls.append(args) or encode(*args))
    answers = server.post("/predict-many", {"inputs": TEXTS[0], "adapters": "*"})
    assert answers.keys() == classifiers.keys() - {"pairs"}
    assert len(calls) == 3  # plain, with a template, and PEFT's adapter, which is not cut to 20 tokens
    for name, answer in answers.items():
        assert by_label(answer) == pytest.approx(offline(classifiers[name], TEXTS[0]), abs=1e-5), name
    several = server.post("/predict-many", {"inputs": TEXTS, "adapters": ["spam", "stars"], "top_k": 1})
    assert [len(rows) for rows in several.values()] == [len(TEXTS)] * 2
    assert {len(row) for row in several["spam"]} == {1}
    pair = {"text": "a good film", "text_pair": "bad"}
    assert server.post("/predict-many", {"inputs": pair, "adapters": "*"}).keys() >= {"pairs"}


def test_long_texts_are_cut_at_either_end_or_refused(server, classifiers) -> None:
    long = "bad " * 30 + "good " * 30
    path = "/adapters/reviews/predict"
    assert by_label(server.post(path, {"inputs": long})) == pytest.approx(
        offline(classifiers["reviews"], "bad " * 18), abs=1e-5
    )
    left = server.post(path, {"inputs": long, "truncation_direction": "Left"})
    assert by_label(left) == pytest.approx(offline(classifiers["reviews"], "good " * 18), abs=1e-5)
    left = server.post("/adapters/template/predict", {"inputs": long, "truncation_direction": "Left"})
    assert by_label(left) == pytest.approx(offline(classifiers["template"], "good " * 16), abs=1e-5)
    status, refused = server("POST", path, {"inputs": long, "truncate": False})
    assert status == 422
    assert "at most 20 tokens" in refused["error"]


def test_ten_thousand_rows_are_checked_fast_and_answered(server) -> None:
    answers = server.post("/adapters/reviews", {"inputs": ["a good film", "bad"] * 5000, "parameters": {"top_k": 1}})
    assert len(answers) == 10_000
    assert answers[:2] * 5000 == [[pytest.approx(item, abs=1e-5) for item in row] for row in answers]
    status, refused = server("POST", "/adapters/reviews", {"inputs": ["bad"] * 10_001})
    assert status == 413
    assert "at most 10000" in refused["error"]


@pytest.mark.long  # OpenVINO compiles two graphs
def test_long_requests_are_tokenized_in_turn_and_not_for_those_who_have_gone(classifiers) -> None:
    encoder, turns = classifiers["reviews"].encoder, []

    class Watched:
        def __getattr__(self, name: str) -> object:
            return getattr(encoder, name)

        def encode(self, texts, pairs, side):
            turns.append((texts[0], len(texts)))
            return encoder.encode(texts, pairs, side)

    async def ask() -> list:
        encoding, watched = Encoding(), Watched()
        jobs = [
            asyncio.create_task(encoding.encode(watched, [text] * rows, None, most=most))
            for text, rows, most in (("a", 600, None), ("bad", 600, None), ("good", 300, None), ("film", 600, 300))
        ]
        while len(turns) < 2:
            await asyncio.sleep(0.001)
        jobs[1].cancel()
        found = await asyncio.gather(*jobs, return_exceptions=True)
        encoding.close()
        return found

    a, bad, good, film = asyncio.run(ask())
    assert [row.ids for row in a] == [encoder.encode(["a"])[0].ids] * 600
    assert isinstance(bad, asyncio.CancelledError)
    assert len(good) == 300
    assert len(film) < 600
    assert turns.index(("good", 256)) < turns.index(("a", 88))
    assert ("bad", 88) not in turns


def test_a_compiled_backbone_answers_too(adapters, classifiers) -> None:
    pytest.importorskip("openvino")
    settings = settings_of(f"reviews={adapters / 'reviews'}", f"spam={adapters / 'spam'}", precision="fp32")
    with running(settings) as client:
        answers = client.post("/predict-many", {"inputs": TEXTS[0], "adapters": "*"})
    for name, answer in answers.items():
        assert by_label(answer) == pytest.approx(offline(classifiers[name], TEXTS[0]), abs=1e-4)


def test_answers_are_json_that_any_reader_takes(server) -> None:
    _, content = server("POST", "/adapters/stars/predict", {"inputs": "bad", "raw_scores": True})
    assert json.loads(json.dumps(content, allow_nan=False)) == content


def test_a_large_answer_is_written_while_others_are_answered() -> None:
    """What it holds waits for the event loop, so it has to be made beside it. A small one is made at once."""
    going_on = threading.Event()

    def content() -> bool:
        return going_on.wait(10)

    async def ask() -> tuple[bytes, bytes]:
        reply = asyncio.create_task(scores_reply([SimpleNamespace(logits=torch.zeros(1000, 100))], content))
        await asyncio.sleep(0)  # the reply is being made
        going_on.set()
        here = threading.get_ident()
        small = [SimpleNamespace(logits=torch.zeros(2, 3))]
        at_once = await scores_reply(small, lambda: threading.get_ident() == here)
        return (await reply).body, at_once.body

    assert asyncio.run(ask()) == (b"true", b"true")
