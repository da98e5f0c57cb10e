"""What a check finds with the help of a backbone or an adapter."""

from __future__ import annotations

import json
import random
import sys

import numpy as np
import pytest

import ptune
from ptune.analysis.model_checks import _outliers, neighbours
from ptune.cli import main
from ptune.data.check.findings import KINDS
from ptune.data.check.rows import read_rows
from ptune.errors import ConfigError, DataError
from tests.analysis.conftest import word_rows
from tests.conftest import star_rows, topic_rows

pytest.importorskip("cleanlab")
ALONE = {*KINDS} - {"label_errors", "outliers"}  # what this module does not look for


@pytest.fixture(scope="module")
def classifier(trained):
    return ptune.load(trained("word", 6, "--method", "p-tuning"))


def found(check, kind):
    return next((finding for finding in check.findings if finding.kind == kind), None)


def test_wrong_labels_are_found_in_both_splits(classifier) -> None:
    data = {"train": word_rows(200, seed=21), "validation": word_rows(60, seed=22)}
    rand, wrong = random.Random(0), set()
    for split, count in (("train", 10), ("validation", 4)):
        for number in rand.sample(range(len(data[split])), count):
            row = data[split][number]
            row["label"] = {"yes": "no", "no": "yes"}[row["label"]]
            wrong.add((split, number + 1))
    finding = found(ptune.check_data(data, classifier=classifier, ignore=ALONE), "label_errors")
    places = {(row.split, row.number) for row in finding.rows}
    assert len(places & wrong) >= 12
    assert len(places - wrong) <= 3
    best = finding.details["suggestions"][0]
    assert {best["given"], best["suggested"]} == {"yes", "no"}
    assert finding.rows == sorted(finding.rows, key=lambda row: (row.split != "train", row.number))


def test_right_labels_are_left_alone(classifier) -> None:
    data = {"train": word_rows(200, seed=23), "validation": word_rows(60, seed=24)}
    finding = found(ptune.check_data(data, classifier=classifier, ignore=ALONE), "label_errors")
    assert finding is None or len(finding.rows) <= 3


def test_wrong_numbers_are_found(trained) -> None:
    classifier = ptune.load(trained("stars", 2))
    rows = star_rows(120, seed=5)
    rows[7]["stars"] = 300.5
    check = ptune.check_data({"train": rows, "validation": rows[:30]}, classifier=classifier, ignore=ALONE)
    finding = found(check, "label_errors")
    assert {(row.split, row.number) for row in finding.rows} >= {("train", 8), ("validation", 8)}
    assert finding.details["suggestions"][0]["given"] == 300.5


def test_wrong_sets_of_labels_are_found(trained) -> None:
    classifier = ptune.load(trained("topics", 2))
    check = ptune.check_data({"train": topic_rows(120, seed=6)}, classifier=classifier, ignore=ALONE)
    finding = found(check, "label_errors")
    assert finding.rows
    assert all(isinstance(row["suggested"], list) for row in finding.details["suggestions"])


def test_a_text_unlike_the_others_is_an_outlier() -> None:
    rows = read_rows(word_rows(60, seed=25))
    noise = np.random.default_rng(0).normal(size=(60, 8)).astype(np.float32)
    vectors = 0.02 * noise + np.eye(8, dtype=np.float32)[0]
    vectors[[7, 40]] = [-np.eye(8)[0], np.eye(8)[3]]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    (finding,) = _outliers(rows, vectors)
    assert [row.number for row in finding.rows][:1] == [8]
    assert [row["row"] for row in finding.details["ranked"]][:2] == [8, 41]


def test_neighbours_are_the_nearest_others() -> None:
    vectors = np.random.default_rng(0).normal(size=(30, 5)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    near = neighbours(vectors)
    cosines = vectors @ vectors.T
    np.fill_diagonal(cosines, -9)
    for row in range(30):
        assert set(near.indices[row]) == set(np.argsort(-cosines[row])[:10])
    assert near.average(np.ones((30, 2))) == pytest.approx(np.ones((30, 2)))


def test_texts_that_the_backbone_cuts_are_found(backbone, classifier) -> None:
    rows = [{"text": "good " * length, "label": str(length % 2)} for length in (3, 61, 62, 63, 90)]
    finding = found(ptune.check_data(rows, backbone=backbone("bert")), "lengths")
    assert [row.number for row in finding.rows] == [4, 5]
    assert finding.details == {"max_length": 64}
    rows = [{**row, "label": "yes" if row["label"] == "1" else "no"} for row in rows]
    finding = found(ptune.check_data(rows, classifier=classifier), "lengths")
    assert [row.number for row in finding.rows] == [2, 3, 4, 5]  # the prompt at the input takes 20 of 64 positions


def test_other_tasks_are_refused(classifier, trained) -> None:
    with pytest.raises(ConfigError, match="other labels"):
        ptune.check_data([{"text": "a", "label": "x"}, {"text": "b", "label": "y"}], classifier=classifier)
    rating = ptune.load(trained("stars", 1), device="cpu")
    with pytest.raises(ConfigError, match="are for single_label_classification, but the adapter is for regression"):
        ptune.check_data([{"text": "a", "label": "x"}, {"text": "b", "label": "y"}], classifier=rating)
    rows = [{"question": "a", "answer": "b", "label": label} for label in ("yes", "no")]
    with pytest.raises(DataError, match="single texts"):
        ptune.check_data(rows, classifier=classifier)


def test_without_cleanlab_the_message_says_what_to_install(classifier, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "cleanlab.filter", None)
    with pytest.raises(DataError, match=r"pip install 'ptune\[check\]'"):
        ptune.check_data(word_rows(60, seed=1), classifier=classifier, ignore=ALONE)


def test_the_command(trained, backbone_folder, tmp_path, capsys) -> None:
    run = trained("word", 6, "--method", "p-tuning")
    capsys.readouterr()
    main(["check", str(run.parent / "word"), "--adapter", str(run), "--json"])
    answer = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert answer["splits"] == {"train": 300, "validation": 60}
    main(["check", str(run.parent / "word"), "--backbone", str(backbone_folder("bert"))])
    assert "word: train 300, validation 60 rows" in capsys.readouterr().out
