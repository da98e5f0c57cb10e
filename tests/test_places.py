"""Files behind URLs: data, adapters, predictions and configuration, read and written as on disk."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from ptune import places
from ptune.adapter import fetch, reading
from ptune.adapter.folder import read_adapter
from ptune.adapter.layout import ADAPTER_FILES, RECORD_FILE, WEIGHTS_FILE
from ptune.atomic import write_files, written_file
from ptune.cli import main
from ptune.data.load import load_data
from ptune.data.readers import read_rows
from ptune.errors import AdapterError, BackboneError, ConfigError, DataError, OutputError
from ptune.inference.classifier import load
from ptune.model.classifier import PromptClassifier
from ptune.model.config import PromptConfig
from ptune.model.locate import locate
from ptune.places import RemotePath, as_place
from ptune.training.config import TrainConfig
from ptune.training.train import train

# The Hub's client uploads large files through httpx2's old argument.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


@pytest.fixture
def memory(tmp_path, monkeypatch) -> Iterator[MemoryFileSystem]:
    """An empty object store, and an empty cache."""
    monkeypatch.setenv("PTUNE_CACHE", str(tmp_path / "cache"))
    system = fsspec.filesystem("memory")
    yield system
    for path in system.find("/"):
        system.rm_file(path)


@pytest.fixture(scope="module")
def adapter(backbone, backbone_folder, reviews, tmp_path_factory) -> Path:
    data, folder = load_data(reviews), tmp_path_factory.mktemp("adapter")
    model = PromptClassifier.from_backbone(backbone("bert"), PromptConfig(virtual_tokens=3), labels=data.labels)
    train(model, data, TrainConfig(epochs=1), output=folder)
    return folder


def put(memory: MemoryFileSystem, source: Path, target: str, names=ADAPTER_FILES) -> None:
    for name in names:
        if (source / name).exists():
            memory.pipe_file(f"{target}/{name}", (source / name).read_bytes())


def failure(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    with pytest.raises(SystemExit) as stopped:
        main([str(argument) for argument in arguments])
    assert stopped.value.code == 2
    return capsys.readouterr().err


def test_the_parts_of_a_url_are_those_of_a_path() -> None:
    place = RemotePath("s3://bucket/folder/train.csv.gz")
    assert (place.name, place.stem, place.suffix) == ("train.csv.gz", "train.csv", ".gz")
    assert place.parent == RemotePath("s3://bucket/folder")
    assert place.with_suffix(".zip") == RemotePath("s3://bucket/folder/train.csv.zip")
    assert str(RemotePath("s3://bucket/folder/") / "a") == "s3://bucket/folder/a"
    assert RemotePath("s3://bucket").parent == RemotePath("s3://bucket")


def test_a_file_url_is_a_path_and_everything_else_stays_one(tmp_path) -> None:
    assert as_place(f"file://{tmp_path}/a%20b") == tmp_path / "a b"
    assert as_place("~/a") == Path.home() / "a"


@pytest.mark.parametrize(
    ("url", "package", "install"),
    [
        ("s3://bucket/a.csv", "s3fs", "pip install 'ptune[s3]'"),
        ("gs://bucket/a.csv", "gcsfs", "pip install 'ptune[gcs]'"),
    ],
)
def test_a_missing_driver_is_named_with_the_command_that_installs_it(
    url, package, install, monkeypatch, capsys
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    error = failure(capsys, "check", url)
    assert f"'{url}' cannot be reached: {url[:2]}:// needs {package}: {install}" in error
    assert len(error.splitlines()) == 1


def test_a_file_appears_at_a_url_only_when_it_is_complete(memory) -> None:
    place = as_place("memory://out/a.csv")
    with written_file(place) as file:
        file.write("old")
    with pytest.raises(ZeroDivisionError), written_file(place) as file:
        file.write(f"half {1 / 0}")
    assert place.read_text() == "old"
    assert memory.find("/out") == ["/out/a.csv"]


def test_an_upload_that_fails_leaves_the_older_files(memory, monkeypatch) -> None:
    folder = as_place("memory://out")
    write_files(folder, {"a": b"old a", "b": b"old b"})
    upload = memory.pipe_file

    def fail(path, value, **options):
        if path.endswith(".b.part"):
            raise PermissionError("no access to this bucket")
        upload(path, value, **options)

    monkeypatch.setattr(memory, "pipe_file", fail)
    with pytest.raises(OutputError, match=r"cannot write 'memory://out': no access to this bucket"):
        write_files(folder, {"a": b"new a", "b": b"new b"})
    assert {path: memory.cat_file(path) for path in memory.find("/out")} == {"/out/a": b"old a", "/out/b": b"old b"}


def test_a_place_that_is_not_an_object_store_gets_its_file_by_renaming(memory, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(places, "_WHOLE", ())
    moved = []
    monkeypatch.setattr(memory, "mv", lambda path, target: moved.append((path, target)))
    (tmp_path / "a").write_bytes(b"content")
    RemotePath("memory://out/a").upload(tmp_path / "a")
    assert moved == [("/out/.a.part", "/out/a")]


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_predictions_go_from_a_url_to_a_url(adapter, memory, ending, tmp_path, capsys) -> None:
    memory.pipe_file("/in/texts.csv", b"text\na good film\na bad plot\n")
    put(memory, adapter, "/adapters/reviews")
    local = tmp_path / f"local.{ending}"
    (tmp_path / "texts.csv").write_bytes(memory.cat_file("/in/texts.csv"))
    main(["predict", str(adapter), "--input", str(tmp_path / "texts.csv"), "--output", str(local)])
    capsys.readouterr()
    arguments = ["memory://adapters/reviews", "--input", "memory://in/texts.csv", "--output", f"memory://o/a.{ending}"]
    main(["predict", *arguments, "--json"])
    assert json.loads(capsys.readouterr().out)["output"] == f"memory://o/a.{ending}"
    assert list(read_rows(f"memory://o/a.{ending}")) == list(read_rows(local))
    assert not any("part" in path or "trial" in path for path in memory.find("/"))


def test_an_adapter_is_copied_from_a_url_once_and_again_when_it_changes(adapter, memory, monkeypatch) -> None:
    put(memory, adapter, "/adapters/reviews")
    got = []
    download = memory.get_file
    monkeypatch.setattr(memory, "get_file", lambda path, lpath, **o: (got.append(path), download(path, lpath, **o)))
    first = read_adapter("memory://adapters/reviews")
    assert first.record == read_adapter(adapter).record
    assert read_adapter("memory://adapters/reviews").folder == first.folder
    assert len(got) == len(set(got)) == 2
    memory.pipe_file(f"/adapters/reviews/{RECORD_FILE}", (adapter / RECORD_FILE).read_bytes() + b"\n")
    assert read_adapter("memory://adapters/reviews").folder != first.folder
    assert len(got) == 4


def test_an_adapter_that_is_replaced_while_it_is_copied_is_copied_again(adapter, memory, monkeypatch) -> None:
    put(memory, adapter, "/adapters/reviews")
    download, changes = memory.get_file, [b"\n", b"\n\n"]

    def get(path, lpath, **options):
        download(path, lpath, **options)
        if changes:
            memory.pipe_file(f"/adapters/reviews/{RECORD_FILE}", (adapter / RECORD_FILE).read_bytes() + changes.pop())

    monkeypatch.setattr(memory, "get_file", get)
    file = read_adapter("memory://adapters/reviews")
    assert (file.folder / RECORD_FILE).read_bytes() == memory.cat_file(f"/adapters/reviews/{RECORD_FILE}")
    assert len(list(file.folder.parent.iterdir())) == 1


def test_files_of_strangers_that_are_too_large_are_not_copied(adapter, memory, monkeypatch) -> None:
    put(memory, adapter, "/adapters/reviews")
    monkeypatch.setattr(reading, "MAX_JSON_BYTES", 10)
    monkeypatch.setattr(memory, "get_file", lambda *_, **__: pytest.fail("a file was copied"))
    with pytest.raises(AdapterError, match=rf"memory://adapters/reviews/{RECORD_FILE} has \d+ bytes; at most 10 are"):
        read_adapter("memory://adapters/reviews")


def test_a_url_without_an_adapter_is_named(memory) -> None:
    with pytest.raises(AdapterError, match="adapter 'memory://none': there is no such folder, or it holds none of"):
        read_adapter("memory://none")


def test_a_network_that_fails_is_not_taken_for_a_missing_file(adapter, memory, monkeypatch) -> None:
    put(memory, adapter, "/adapters/reviews")

    def fail(*_, **__):
        raise ConnectionError("no route to host")

    monkeypatch.setattr(memory, "info", fail)
    with pytest.raises(AdapterError, match="adapter 'memory://adapters/reviews' cannot be read: no route to host"):
        read_adapter("memory://adapters/reviews")
    with pytest.raises(DataError, match=r"'memory://data/train\.csv' cannot be reached: no route to host"):
        load_data("memory://data/train.csv")


def test_a_cache_that_cannot_be_written_is_named(adapter, memory, monkeypatch, tmp_path) -> None:
    put(memory, adapter, "/adapters/reviews")
    (tmp_path / "file").touch()
    monkeypatch.setenv("PTUNE_CACHE", str(tmp_path / "file"))
    with pytest.raises(AdapterError, match=r"cannot be copied to '.*file'.*set PTUNE_CACHE"):
        read_adapter("memory://adapters/reviews")


def test_an_adapter_is_saved_to_a_url_as_to_a_folder(adapter, memory, capsys) -> None:
    load(adapter).save("memory://saved/reviews")
    main(["export", str(adapter), "memory://exported/reviews"])
    for folder in ("saved", "exported"):
        names = [path.rsplit("/", 1)[1] for path in memory.find(f"/{folder}/reviews")]
        assert sorted(names) == sorted(name for name in ADAPTER_FILES if (adapter / name).exists())
        assert memory.cat_file(f"/{folder}/reviews/{WEIGHTS_FILE}") == (adapter / WEIGHTS_FILE).read_bytes()
    assert "holds an adapter already" in failure(capsys, "export", adapter, "memory://exported/reviews")


def test_a_run_for_a_url_leaves_everything_there_but_its_checkpoint(
    backbone_folder, reviews, memory, tmp_path, capsys, monkeypatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    memory.pipe_file("/run.yaml", f"backbone: {backbone_folder('bert')}\ndata: {reviews}\nepochs: 1".encode())
    main(["train", "--config", "memory://run.yaml", "--output", "memory://runs/reviews", "--json"])
    out, err = capsys.readouterr()
    assert json.loads(out.splitlines()[-1])["adapter"] == "memory://runs/reviews"
    names = {path.removeprefix("/runs/reviews/") for path in memory.find("/runs/reviews") if path.count("/") == 3}
    assert {RECORD_FILE, WEIGHTS_FILE, "metrics.jsonl", "options.json", "report.html"} <= names
    assert not any("checkpoint" in name for name in names)
    assert not list(tmp_path.glob("ptune-run-*"))
    assert "copied to 'memory://runs/reviews'" in err
    main(["evaluate", "memory://runs/reviews", "--data", str(reviews), "--report", "memory://pages/evaluation.html"])
    main(["report", "memory://runs/reviews", "--prompt-seconds", "0"])
    assert b"<html" in memory.cat_file("/pages/evaluation.html")
    again = ["train", "--config", "memory://run.yaml", "--output", "memory://runs/reviews"]
    assert "holds an adapter already" in failure(capsys, *again)
    assert "which is kept on the machine that trained it" in failure(capsys, *again, "--resume")


def test_a_run_that_cannot_be_copied_stays_and_says_how_to_go_on(
    backbone_folder, reviews, memory, tmp_path, capsys, monkeypatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    options = ["--backbone", backbone_folder("bert"), "--data", reviews, "--epochs", "1", "--no-report"]
    monkeypatch.setattr(memory, "mv", lambda *_: (_ for _ in ()).throw(ConnectionError("the network is gone")))
    with pytest.raises(SystemExit):
        main(["train", *map(str, options), "--output", "memory://runs/reviews"])
    out, error = capsys.readouterr()
    (folder,) = tmp_path.glob("ptune-run-*")
    assert "cannot write 'memory://runs/reviews': the network is gone" in error
    assert f"ptune export {folder} memory://runs/reviews" in out
    monkeypatch.undo()
    main(["export", str(folder), "memory://runs/reviews"])
    main(["train", "--resume", "--output", str(folder)])


def test_a_folder_that_cannot_be_written_is_found_before_the_training(
    backbone_folder, reviews, memory, capsys, monkeypatch
) -> None:
    def fail(*_, **__):
        raise PermissionError("read-only bucket")

    monkeypatch.setattr(memory, "pipe_file", fail)
    monkeypatch.setattr("ptune.cli.train.load", lambda *_: pytest.fail("the data were read"))
    arguments = ["--backbone", backbone_folder("bert"), "--data", reviews, "--output", "memory://runs/reviews"]
    assert "cannot write 'memory://runs/reviews': read-only bucket" in failure(capsys, "train", *arguments)


def test_what_cannot_be_behind_a_url_says_so_early(backbone, reviews, tmp_path) -> None:
    data = load_data(reviews)
    model = PromptClassifier.from_backbone(backbone("bert"), PromptConfig(virtual_tokens=3), labels=data.labels)
    with pytest.raises(ConfigError, match=r"train into a folder on this machine .*classifier\.save\('s3://bucket/a'\)"):
        train(model, data, TrainConfig(epochs=1), output="s3://bucket/a")
    with pytest.raises(BackboneError, match="is loaded from this machine or the Hub, not from a URL"):
        locate("s3://bucket/roberta")


def test_rows_are_repaired_and_suggested_into_urls(adapter, memory, capsys) -> None:
    memory.pipe_file("/in/a.csv", b"text,label\na good film,pos\na good film,pos\na bad film,neg\n")
    main(["check", "memory://in/a.csv", "--fix", "memory://out/fixed.csv"])
    assert len(list(read_rows("memory://out/fixed.csv"))) == 2
    main(["suggest", str(adapter), "--input", "memory://in/a.csv", "-n", "1", "--output", "memory://out/next.csv"])
    assert len(list(read_rows("memory://out/next.csv"))) == 1


def test_a_configuration_file_behind_a_url_that_is_not_there_is_named(memory, capsys) -> None:
    error = failure(capsys, "train", "--config", "memory://none.yaml")
    assert "configuration file 'memory://none.yaml' cannot be read: there is no such file" in error


def test_a_place_that_cannot_be_written_to_is_refused(adapter, tmp_path, capsys) -> None:
    (tmp_path / "a.csv").write_text("text\na good film\n")
    error = failure(capsys, "predict", adapter, "--input", tmp_path / "a.csv", "--output", "https://localhost:1/a.csv")
    assert "https://localhost:1" in error


def test_data_adapters_and_predictions_of_the_hub_have_urls_too(hub, adapter, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("PTUNE_CACHE", str(tmp_path / "cache"))
    from huggingface_hub import HfApi

    HfApi().create_repo("owner/reviews")
    load(adapter).save("hf://owner/reviews/adapters/first")
    repository = hub.repositories["models/owner/reviews"]
    assert len(repository.history()) == 2  # the repository's first commit, and one with all files
    assert read_adapter("hf://owner/reviews/adapters/first").record == read_adapter(adapter).record
    (tmp_path / "a.csv").write_text("text\na good film\n")
    output = "hf://owner/reviews/predicted.jsonl"
    main(["predict", str(adapter), "--input", str(tmp_path / "a.csv"), "--output", output])
    assert len(list(read_rows(output))) == 1
    assert "has none by this name" in failure(
        capsys, "predict", adapter, "--input", tmp_path / "a.csv", "--output", "hf://owner/none/a.csv"
    )


def test_an_unknown_protocol_is_named() -> None:
    with pytest.raises(DataError, match="'nosuch://a' cannot be reached: Protocol not known: nosuch"):
        RemotePath("nosuch://a").exists()
    assert fetch.FOLDER == "adapters"
