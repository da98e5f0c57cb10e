"""A mistyped folder is named at once, with the folder that is meant. The Hub is not asked for it."""

from __future__ import annotations

import pytest

from ptune.adapter import fetch
from ptune.adapter.fetch import locate_adapter
from ptune.data import sources
from ptune.data.load import load_data
from ptune.errors import AdapterError, BackboneError, DataError
from ptune.hub import near_place
from ptune.model.locate import locate
from tests.conftest import review_rows, write_jsonl


class AskedError(Exception):
    """The Hub was asked."""


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """A folder with a folder of adapters, a backbone and data. Whoever asks the Hub gets an error."""

    def ask(*_: object) -> None:
        raise AskedError

    for folder in ("runs/reviews", "my-bert", "films", "Large"):
        (tmp_path / folder).mkdir(parents=True)
    write_jsonl(tmp_path / "films" / "train.jsonl", review_rows(30))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(fetch, "_fetch", ask)
    monkeypatch.setattr(sources, "_load_from_hub", ask)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("runs/reveiws", "runs/reviews"),
        ("runs/review", "runs/reviews"),
        ("runs/Reviewss", "runs/reviews"),
        ("runs/rewiews", "runs/reviews"),
        ("rnus/reviews", "runs/reviews"),
        ("run/reviews", "runs/reviews"),
        ("flims", "films"),
        ("large", "Large"),
    ],
)
def test_one_typing_error_is_found(typed, meant) -> None:
    assert near_place(typed) == meant


@pytest.mark.parametrize("typed", ["runs/films", "owner/reviews", "bert-base-uncased", "mn", "rnus/reveiws", "gone/x"])
def test_other_names_are_no_typing_errors(typed) -> None:
    assert near_place(typed) is None


@pytest.mark.parametrize("name", ["runs/reveiws", "reveiws/", "rnus/reviews"])
def test_a_mistyped_adapter(name) -> None:
    with pytest.raises(AdapterError, match="there is no such folder"):
        locate_adapter(name)


def test_a_mistyped_adapter_is_named_with_the_way_to_the_hub() -> None:
    with pytest.raises(AdapterError, match=r"did you mean 'runs/reviews'\? A Hub id .* runs/reveiws@main"):
        locate_adapter("runs/reveiws")
    for name in ("runs/reveiws@main", "owner/reviews"):
        with pytest.raises(AskedError):
            locate_adapter(name)


def test_a_mistyped_backbone_is_named_with_the_way_to_the_hub() -> None:
    with pytest.raises(BackboneError, match=r"did you mean 'my-bert'\? .*`revision='main'`"):
        locate("my-brt")
    with pytest.raises(BackboneError, match=r"'my-brt/': there is no such folder; did you mean 'my-bert'\?"):
        locate("my-brt/")
    assert locate("my-brt", "main").path == "my-brt"
    assert locate("bert-base-uncased").path == "bert-base-uncased"


def test_mistyped_data_are_named_with_the_way_to_the_hub() -> None:
    with pytest.raises(DataError, match=r"did you mean 'films'\? .*`data_revision='main'`"):
        load_data("flims")
    with pytest.raises(DataError, match=r"'flims/': there is no such file or folder; did you mean 'films'\?"):
        load_data("flims/")
    with pytest.raises(DataError, match=r"no such file; did you mean 'films/train\.jsonl'\?"):
        load_data("films/trian.jsonl")
    for name, revision in (("flims", "main"), ("imdb", None), ("glue/mrpc", None)):
        with pytest.raises(AskedError):
            load_data(name, revision=revision)


def test_what_is_in_the_hubs_cache_is_not_mistyped(here) -> None:
    (here / "cache" / "models--runs--reveiws").mkdir(parents=True)
    (here / "cache" / "datasets--flims").mkdir()
    with pytest.raises(AskedError):
        locate_adapter("runs/reveiws")
    with pytest.raises(AskedError):
        load_data("flims")
    assert locate("runs/reveiws").path == "runs/reveiws"
