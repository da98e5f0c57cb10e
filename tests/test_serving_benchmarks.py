"""The benchmarks of the server: what counts as a wrong answer, and what is read off answers after an overload."""

from __future__ import annotations

import importlib
import json
import sys
import time
from argparse import Namespace
from pathlib import Path
from types import ModuleType

import pytest

import ptune
from ptune.serving.load import Question
from ptune.serving.loadtest import Answer

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
TEXTS = ["a good film", "a poor plot"]


@pytest.fixture
def benchmark(monkeypatch):
    """Import a script of benchmarks/ as a module."""

    def load(name: str) -> ModuleType:
        monkeypatch.syspath_prepend(BENCHMARKS)
        return importlib.import_module(name)

    before = set(sys.modules)
    yield load
    for name in set(sys.modules) - before:
        file = getattr(sys.modules[name], "__file__", None)
        if file is not None and Path(file).parent == BENCHMARKS:
            del sys.modules[name]


def answer(
    name: str, text: int, scores: dict[str, float], sent: float, status: int | str = 200, took: float = 0.01
) -> Answer:
    content = json.dumps([{"label": label, "score": score} for label, score in scores.items()]).encode()
    return Answer(Question("/", b"", (name,), (text,)), sent, sent, sent + took, status, content)


@pytest.fixture
def versions(benchmark, backbone, tmp_path):
    """Two adapters that are served, and a second version of one or both."""
    soak, servers = benchmark("soak"), benchmark("servers")
    servers.MAX_LENGTH = 40
    writer = servers.AdapterWriter(backbone("bert"), mixed=0.5)
    for number in range(4):
        writer.write(tmp_path / "served" / servers.name_of(number), number)
    options = Namespace(adapters=4, mixed=0.5, minutes=1 / 60, grace=5.0)
    return soak.Versions(backbone("bert"), tmp_path / "served", options, TEXTS)


def test_adapters_are_of_several_kinds_and_no_two_give_the_same_answers(versions) -> None:
    rows = [row for answers in versions.expected.values() for version in answers for row in version]
    assert len({tuple(sorted(row)) for row in rows}) >= 3
    assert len({json.dumps(row, sort_keys=True) for row in rows}) == len(rows)


def test_an_answer_is_right_if_it_is_that_of_the_version_that_is_served(versions, benchmark) -> None:
    check = benchmark("soak").Check(versions)
    name = benchmark("servers").name_of(versions.waiting[-1])
    old, new = (version[1] for version in versions.expected[name])
    now = time.perf_counter()
    check.add(answer(name, 1, old, now))
    assert (check.right, check.wrong) == (1, 0)
    check.add(answer(name, 1, new, now))  # nobody can know it yet
    check.add(answer(name, 0, old, now))  # of another text
    assert (check.right, check.wrong) == (1, 2)
    versions.replace()
    replaced = versions.replaced[name]
    check.add(answer(name, 1, old, replaced + 0.1))
    check.add(answer(name, 1, new, replaced + 0.2))
    assert (check.right, check.wrong, check.new) == (3, 2, 1)
    check.add(answer(name, 1, old, replaced + 6))  # too late for the old one
    check.add(answer(name, 1, new, replaced + 6))
    check.add(answer(name, 1, {}, replaced, status="timeout"))
    assert (check.right, check.wrong, check.new) == (4, 3, 2)
    assert check.statuses == {"200": 7, "timeout": 1}
    assert check.delays() == [pytest.approx(0.1)]
    assert check.examples[0]["is_version"] == [1]


def test_replacing_an_adapter_leaves_the_files_of_the_second_version(versions, backbone, benchmark) -> None:
    name = benchmark("servers").name_of(versions.waiting[-1])
    versions.replace()
    given = ptune.load(versions.folder / name, backbone("bert")).predict(TEXTS)
    expected = versions.expected[name][1]
    for prediction, scores in zip(given, expected, strict=True):
        values = prediction["scores"] if "scores" in prediction else {next(iter(scores)): prediction["value"]}
        assert values == pytest.approx(scores, abs=1e-5)
    versions.replace()  # there are no more, and that is no error
    assert len(versions.replaced) == 1


def test_recovery_ends_with_the_last_refusal_and_the_last_slow_window(benchmark) -> None:
    overload = benchmark("overload")
    answers = [answer("a", 0, {}, 0.0, 429), answer("a", 0, {}, 0.31, 429), answer("a", 0, {}, 0.35, took=0.5)]
    answers += [answer("a", 0, {}, 0.01 * number) for number in range(40, 100)]
    assert overload._recovery(answers, usual_p99=100.0) == {"refused_until_s": 0.31, "slow_until_s": 0.4}
    assert overload._recovery(answers[3:], usual_p99=100.0) == {"refused_until_s": 0.0, "slow_until_s": 0.0}


def test_growth_of_memory_is_that_of_the_second_half(benchmark) -> None:
    samples = [(second, 100.0 + min(second, 30)) for second in range(60)]
    assert benchmark("soak")._memory(samples)["growth_per_minute"] == 0.0
    samples = [(second, 100.0 + second / 60) for second in range(60)]
    memory = benchmark("soak")._memory(samples)
    assert memory["growth_per_minute"] == pytest.approx(1.0)
    assert memory["most"] == memory["end"]
