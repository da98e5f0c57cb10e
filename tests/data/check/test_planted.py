"""Everything that is planted into sound data is found, and nothing else."""

from __future__ import annotations

import importlib.util
import random
from pathlib import Path

import pytest

import ptune
from ptune.data.check.findings import KINDS

ROOT = Path(__file__).parents[3]
# What needs a model, is about the whole data, or is planted elsewhere in the tests.
ELSEWHERE = {"unreadable", "one_label", "imbalance", "lengths", "label_errors", "outliers"}
NOUNS = (
    "train ticket price window garden letter engine doctor market bridge river kitchen teacher winter coffee".split()
)
VERBS = "opens leaves needs finds breaks sells carries paints watches repairs".split()
ADJECTIVES = "small green heavy quiet early empty broken famous cheap narrow".split()


@pytest.fixture(scope="module")
def planted():
    """benchmarks/planted.py as a module."""
    spec = importlib.util.spec_from_file_location("planted", ROOT / "benchmarks" / "planted.py")
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)  # type: ignore[union-attr]
    return module


@pytest.fixture(scope="module")
def sound():
    """200 training rows and 40 validation rows without a problem."""
    rand = random.Random(5)

    def sentence() -> str:
        parts = [f"the {rand.choice(ADJECTIVES)} {rand.choice(NOUNS)} {rand.choice(VERBS)}" for _ in range(4)]
        return " and ".join(parts)

    def rows(count: int) -> list[dict[str, str]]:
        labels = ["billing", "delivery", "complaint"]
        return [{"text": f"{number} {sentence()}", "label": rand.choice(labels)} for number in range(count)]

    return {"train": rows(200), "validation": rows(40)}


def test_nothing_is_found_in_sound_data(sound) -> None:
    assert ptune.check_data(sound).findings == []


def test_every_kind_is_planted_here_or_elsewhere(planted) -> None:
    assert set(planted.PLANTS) == set(KINDS) - ELSEWHERE


@pytest.mark.parametrize("kind", sorted(set(KINDS) - ELSEWHERE))
def test_what_is_planted_is_found_and_nothing_else(kind, planted, sound) -> None:
    counts = planted.measure(sound, kind, count=20)
    assert counts["planted"] >= 4
    assert counts["found"] == counts["planted"]
    assert counts["already there"] == counts["false alarms"] == 0
