"""Adapters are found, loaded within a budget, and replaced whole while requests are answered."""

from __future__ import annotations

import asyncio
import errno
import gzip
import io
import json
import os
import shutil
import tarfile
import tempfile
import threading
import time
import zipfile
from pathlib import Path

import pytest
import torch

import ptune
import ptune.serving.bank
from ptune.adapter.layout import ADAPTER_FILES, PEFT_FILE, RECORD_FILE, WEIGHTS_FILE
from ptune.errors import AdapterError, ConfigError
from ptune.inference.mixed import mixed_logits
from ptune.serving.app import create_app
from ptune.serving.catalogue import Catalogue, stamp_of
from ptune.serving.compute import Compute
from ptune.serving.settings import ServeSettings
from tests.serving.conftest import ADMIN, TEXTS, USER, Client, put_adapter, running, settings_of, wait_for


def scores(scored) -> dict[str, float]:
    return {item["label"]: item["score"] for item in scored}


def offline(folder: Path, text: str) -> dict[str, float]:
    return pytest.approx(ptune.load(folder, device="cpu").predict(text)[0]["scores"], abs=1e-5)


def zipped(folder: Path, prefix: str = "") -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for path in folder.iterdir():
            archive.write(path, prefix + path.name)
    return stream.getvalue()


def tarred(folder: Path) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        archive.add(folder, ".")
    return stream.getvalue()


@pytest.fixture
def folder(tmp_path, backbone) -> Path:
    """A folder of two adapters that a test may change."""
    for number, name in enumerate(("one", "two")):
        put_adapter(tmp_path / "served" / name, backbone("bert"), ["no", "yes"], seed=number)
    return tmp_path / "served"


@pytest.fixture
def other(tmp_path, backbone) -> Path:
    """An adapter that is not served yet."""
    put_adapter(tmp_path / "other", backbone("bert"), ["no", "maybe", "yes"], seed=77, virtual_tokens=3)
    return tmp_path / "other"


@pytest.fixture
def client(folder):
    with running(settings_of(folder, admin_keys=[ADMIN], api_keys=[USER])) as client:
        yield client


def test_places_have_names(adapters, tmp_path) -> None:
    catalogue = Catalogue([f"a={adapters / 'spam'}", str(adapters / "topics")])
    assert {entry.name for entry in catalogue.look().new} == {"a", "topics"}
    with pytest.raises(ConfigError, match="two adapters are named 'a'"):
        Catalogue([f"a={adapters / 'spam'}", f"a={adapters / 'topics'}"])
    with pytest.raises(ConfigError, match=r"'\.a' cannot be the name"):
        Catalogue([f".a={adapters / 'spam'}"])
    with pytest.raises(AdapterError, match="there is no such folder"):
        Catalogue([str(tmp_path / "nowhere")])


def test_only_adapters_with_plain_names_are_in_a_folder(folder, other, caplog) -> None:
    shutil.copytree(other, folder / ".hidden")
    shutil.copytree(other, folder / "a b")
    (folder / "README.md").write_text("words")
    (folder / "empty").mkdir()
    catalogue = Catalogue([str(folder)])
    for _ in range(2):
        assert {entry.name for entry in catalogue.look().new} == {"one", "two"}
    assert [record.message for record in caplog.records] == [
        f"'{folder / 'a b'}' is not served: rename the folder; a name has letters, digits, '_', '-' and '.'"
    ]


def test_a_damaged_adapter_is_named_and_the_others_are_served(folder, caplog) -> None:
    (folder / "two" / WEIGHTS_FILE).write_bytes(b"not an adapter")
    with running(settings_of(folder)) as client:
        status, content = client("POST", "/adapters/two/predict", {"inputs": "bad"})
        assert status == 424
        assert WEIGHTS_FILE in content["error"]
        reason = client.get("/adapters")["broken"]["two"]
        assert f"two/{WEIGHTS_FILE}" in reason
        assert str(folder) not in reason + content["error"]  # where the files are is nobody's business
        assert client("GET", "/v2/models/two/ready")[0] == 503
        client.post("/adapters/one/predict", {"inputs": "bad"})


def test_adapters_of_another_backbone_are_refused_by_name_or_get_theirs(folder, backbone, backbone_folder) -> None:
    put_adapter(folder / "causal", backbone("gpt2"), ["no", "yes"], seed=5)
    with running(settings_of(folder)) as client:
        status, content = client("POST", "/adapters/causal/predict", {"inputs": "bad"})
        assert status == 424
        assert "'causal'" in content["error"]
        assert str(backbone_folder("bert")) in content["error"]
    names = [str(backbone_folder("bert")), str(backbone_folder("gpt2"))]
    with running(settings_of(folder, backbone=names)) as client:
        answers = client.post("/predict-many", {"inputs": "a good film", "adapters": "*"})
    for name in ("one", "causal"):
        assert scores(answers[name]) == offline(folder / name, "a good film")


def test_an_adapter_of_another_fine_tune_is_refused_by_name(folder, backbone, tmp_path) -> None:
    from transformers import AutoModel

    tuned = tmp_path / "fine-tuned"
    shutil.copytree(backbone("bert").location.path, tuned)
    model = AutoModel.from_pretrained(tuned)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "word_embeddings" not in name:
                weight += 0.01 * torch.randn_like(weight)
    model.save_pretrained(tuned)
    moved = tmp_path / "moved"
    shutil.copytree(backbone("bert").location.path, moved)
    with running(settings_of(folder, backbone=[str(moved)])) as client:
        assert scores(client.post("/adapters/one/predict", {"inputs": "bad"})) == offline(folder / "one", "bad")
    with pytest.raises(ConfigError, match=r"trained on backbone .*, but the server has .*fine-tuned"):
        create_app(settings_of(f"one={folder / 'one'}", backbone=[str(tuned)]))
    with running(settings_of(folder, backbone=[str(moved), str(tuned)])) as client:
        assert scores(client.post("/adapters/one/predict", {"inputs": "bad"})) == offline(folder / "one", "bad")


def test_new_files_with_the_size_and_time_of_the_old_ones_are_noticed(folder, other) -> None:
    with running(settings_of(folder)) as client:
        for name in ADAPTER_FILES:
            if not (other / name).exists():
                continue
            before, target = (folder / "one" / name).stat(), folder / "one" / name
            content = (other / name).read_bytes()
            if name == RECORD_FILE:
                content = content.ljust(before.st_size)
            target.write_bytes(content)
            os.utime(target, ns=(before.st_atime_ns, before.st_mtime_ns))
        asyncio.run(client.service.follow())
        assert scores(client.post("/adapters/one/predict", {"inputs": "bad"})) == offline(other, "bad")


def test_a_path_may_have_a_comma(folder, tmp_path) -> None:
    shutil.copytree(folder, tmp_path / "a,b")
    assert settings_of(tmp_path / "a,b").adapters == [str(tmp_path / "a,b")]
    assert ServeSettings(adapters="a,b=c").adapters == ["a", "b=c"]  # as in the environment
    assert "one" in Catalogue([str(tmp_path / "a,b")]).look().new[0].name


def test_a_folder_that_cannot_be_written_changes_nothing(folder, other, monkeypatch) -> None:
    def denied(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", "/where/it/is")

    with running(settings_of(folder, admin_keys=[ADMIN])) as client:
        monkeypatch.setattr(tempfile, "TemporaryDirectory", denied)
        for method, path, body in (("PUT", "/adapters/new", zipped(other)), ("DELETE", "/adapters/one", None)):
            status, content = client(method, path, body, Content_Type="application/zip")
            assert status == 409
            assert content["error"] == "the server cannot write to its folder of adapters; its log says why"
        assert client.post("/adapters/one/predict", {"inputs": "bad"})


def test_the_longest_unused_adapter_makes_room(adapters) -> None:
    size = 2 * (4 * 2 * 2 * 32 + 2 * 32 + 2) * 4  # of two adapters with two classes
    names = ["reviews", "spam", "last"]
    with running(settings_of(*(f"{name}={adapters / name}" for name in names), adapter_memory=size)) as client:
        bank = client.service.bank
        for name in ("reviews", "spam", "reviews", "last"):
            client.post(f"/adapters/{name}/predict", {"inputs": "bad"})
            assert bank.bytes <= size
        assert ["reviews" in bank, "spam" in bank, "last" in bank] == [True, False, True]
        answers = client.post("/predict-many", {"inputs": "bad", "adapters": names})  # more than there is room for
        for name in names:
            assert scores(answers[name]) == offline(adapters / name, "bad")
        assert bank.bytes <= size
        together = []
        submit = client.service.batcher.submit

        async def submitted(loaded, *rest):
            together.append([adapter.name for adapter in loaded])
            return await submit(loaded, *rest)

        client.service.batcher.submit = submitted
        assert client.post("/predict-many", {"inputs": "bad", "adapters": names}) == answers
        assert together == [["reviews", "spam"], ["last"]]
    with running(settings_of(f"a={adapters / 'spam'}", adapter_memory=100)) as client:
        status, content = client("POST", "/predict", {"inputs": "bad"})
        assert status == 424
        assert "adapter_memory" in content["error"]


def test_an_adapter_that_is_removed_while_it_loads_stays_removed(folder, client) -> None:
    service = client.service
    entry, read, gate = service.catalogue["two"], service.bank.read, threading.Event()
    entered = threading.Event()
    service.bank.drop("two")
    service.bank.read = lambda entry: (entered.set(), gate.wait(10), read(entry))[2]

    def ask(count: int) -> list[threading.Thread]:
        ask_two = Client(client.port, USER).post
        threads = [threading.Thread(target=ask_two, args=("/adapters/two", {"inputs": "bad"})) for _ in range(count)]
        for thread in threads:
            thread.start()
        return threads

    loads, waiting = service.bank.loads, ask(1)
    assert entered.wait(10)
    service.catalogue.drop("two")
    gate.set()
    for thread in waiting:
        thread.join()
    assert "two" not in service.bank
    service.catalogue.put(entry)
    gate.clear()
    waiting = ask(3)
    wait_for(lambda: len(service.bank._loading) == 1)
    gate.set()
    for thread in waiting:
        thread.join()
    assert "two" in service.bank
    assert service.bank.loads == loads + 1


def test_a_folder_is_watched_also_after_a_look_has_failed(folder, other, monkeypatch) -> None:
    with running(settings_of(folder, watch_seconds=0.05)) as client:
        look, failed = client.app.state.service.catalogue.look, threading.Event()

        def fail_once():
            if not failed.is_set():
                failed.set()
                raise RuntimeError("a mistake")
            return look()

        monkeypatch.setattr(client.app.state.service.catalogue, "look", fail_once)
        assert failed.wait(10)
        shutil.copytree(other, folder / "new")
        wait_for(lambda: client("POST", "/adapters/new/predict", {"inputs": TEXTS[0]})[0] == 200)


def test_an_adapter_that_is_being_overwritten_is_read_when_it_is_complete(folder, other, monkeypatch) -> None:
    whole = (folder / "one" / WEIGHTS_FILE).read_bytes()
    load = ptune.serving.bank.load

    def load_while_it_is_written(file, backbone):
        (file.folder / WEIGHTS_FILE).write_bytes(whole[:100])
        monkeypatch.setattr("ptune.serving.bank.load", load)
        try:
            return load(file, backbone)
        finally:
            (file.folder / WEIGHTS_FILE).write_bytes(whole)

    with running(settings_of(folder)) as client:
        monkeypatch.setattr("ptune.serving.bank.load", load_while_it_is_written)
        status, answer = client("POST", "/adapters/one/predict", {"inputs": TEXTS[0]})
        assert (status, scores(answer)) == (200, offline(folder / "one", TEXTS[0]))


def test_files_that_come_back_end_the_complaint(folder, client) -> None:
    (folder / "one").rename(folder / ".old")
    (folder / "one").mkdir()
    (folder / "one" / RECORD_FILE).write_text("{")
    asyncio.run(client.service.follow())
    assert "one" in client.get("/adapters")["broken"]
    shutil.rmtree(folder / "one")
    (folder / ".old").rename(folder / "one")
    asyncio.run(client.service.follow())
    assert client.get("/adapters")["broken"] == {}
    assert client.get("/v2/models/one/ready")["ready"] is True


def test_an_adapter_that_cannot_be_loaded_is_listed_and_no_trouble_for_others(folder, monkeypatch, caplog) -> None:
    load_entry, bad = ptune.serving.bank.load_entry, {"one"}

    def read(entry, backbones):
        if entry.name in bad:
            raise AdapterError("the disk does not answer")
        return load_entry(entry, backbones)

    monkeypatch.setattr("ptune.serving.bank.load_entry", read)
    with running(settings_of(folder)) as client:
        for _ in range(2):
            assert client("POST", "/adapters/one/predict", {"inputs": "bad"})[0] == 424
        asyncio.run(client.service.follow())
        assert client.get("/adapters")["broken"] == {"one": "the disk does not answer"}
        assert len([line for line in caplog.messages if "'one' is not served" in line]) == 1
        assert client("GET", "/v2/models/one/ready")[0] == 503
        assert client.post("/predict-many", {"inputs": "bad", "adapters": "*"}).keys() == {"two"}
        bad.clear()
        assert client("POST", "/adapters/one/predict", {"inputs": "bad"})[0] == 200
        assert client.get("/adapters")["broken"] == {}
        assert client.post("/predict-many", {"inputs": "bad", "adapters": "*"}).keys() == {"one", "two"}


def test_an_upload_replaces_a_link_and_not_the_folder_that_it_leads_to(folder, other, tmp_path) -> None:
    (folder / "two").rename(tmp_path / "release")
    for name in ("production", "canary"):
        (folder / name).symlink_to(tmp_path / "release")
    before = {path.name: path.read_bytes() for path in (tmp_path / "release").iterdir()}
    with running(settings_of(folder, admin_keys=[ADMIN])) as client:
        status, content = client("PUT", "/adapters/canary", zipped(other), Content_Type="application/zip")
        assert (status, content["labels"]) == (200, ["no", "maybe", "yes"])
        assert client.get("/adapters/production")["labels"] == ["no", "yes"]
        assert scores(client.post("/adapters/canary/predict", {"inputs": "bad"})) == offline(other, "bad")
    assert {path.name: path.read_bytes() for path in (tmp_path / "release").iterdir()} == before
    assert (folder / "production").is_symlink()
    assert not (folder / "canary").is_symlink()


def test_a_folder_is_watched(folder, other) -> None:
    with running(settings_of(folder, watch_seconds=0.05)) as client:
        shutil.copytree(other, folder / ".new")
        (folder / ".new").rename(folder / "new")
        wait_for(lambda: client("GET", "/adapters/new")[0] == 200)
        assert scores(client.post("/adapters/new/predict", {"inputs": "bad"})) == offline(other, "bad")
        shutil.rmtree(folder / "one")
        wait_for(lambda: client("GET", "/adapters/one")[0] == 404)
        for name in (WEIGHTS_FILE, RECORD_FILE):  # one after the other: in between, the two do not go together
            shutil.copy(other / name, folder / "two" / name)
        wait_for(lambda: len(client.get("/adapters/two")["labels"]) == 3)
        assert scores(client.post("/adapters/two/predict", {"inputs": "bad"})) == offline(other, "bad")


def test_an_adapter_is_replaced_whole_while_it_answers(folder, other, client) -> None:
    old, new = offline(folder / "one", "bad").expected, offline(other, "bad").expected
    archives = [zipped(folder / "one"), zipped(other)]
    wrong, stop = [], threading.Event()

    def ask() -> None:
        while not stop.is_set():
            found = scores(client.post("/adapters/one/predict", {"inputs": "bad"}))
            if found not in (pytest.approx(old, abs=1e-5), pytest.approx(new, abs=1e-5)):
                wrong.append(found)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for number in range(1, 11):
        status, content = client("PUT", "/adapters/one", archives[number % 2], Content_Type="application/zip")
        assert status == 200, content
    stop.set()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert scores(client.post("/adapters/one/predict", {"inputs": "bad"})) == offline(folder / "one", "bad")


def test_adapters_are_added_and_removed(folder, other, client) -> None:
    for number, (body, kind) in enumerate(
        [
            (zipped(other), "application/zip"),
            (zipped(other, "other/"), "application/zip"),
            (tarred(other), "application/x-tar"),
        ]
    ):
        status, content = client("PUT", f"/adapters/new-{number}", body, Content_Type=kind)
        assert (status, content["labels"]) == (201, ["no", "maybe", "yes"])
        assert scores(client.post(f"/adapters/new-{number}/predict", {"inputs": "bad"})) == offline(other, "bad")
        assert client("DELETE", f"/adapters/new-{number}")[0] == 204
        assert client("POST", f"/adapters/new-{number}/predict", {"inputs": "bad"})[0] == 404
    assert client("DELETE", "/adapters/new-0")[0] == 404
    assert {path.name for path in folder.iterdir()} == {"one", "two"}


@pytest.mark.filterwarnings("ignore:Use 'content")  # the Hub's client and httpx
def test_an_adapter_comes_from_the_hub(folder, other, client, hub) -> None:
    ptune.load(other, device="cpu").push_to_hub("owner/films")
    status, content = client(
        "PUT", "/adapters/films", json.dumps({"source": "owner/films"}).encode(), Content_Type="application/json"
    )
    assert (status, content["labels"]) == (201, ["no", "maybe", "yes"])
    for source in (str(other), "../served/one", 3, "owner/nothing"):
        body = json.dumps({"source": source}).encode()
        assert client("PUT", "/adapters/films", body, Content_Type="application/json")[0] in (400, 422, 424)
    assert scores(client.post("/adapters/films/predict", {"inputs": "bad"})) == offline(other, "bad")


def hostile_archives(other: Path) -> dict[str, bytes]:
    """Bodies that are no adapter, or try to leave the folder."""
    outside = io.BytesIO()
    with zipfile.ZipFile(outside, "w") as archive:
        for name in ADAPTER_FILES:
            archive.writestr(f"../../{name}", b"{}")
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(WEIGHTS_FILE, b"\0" * 2_000_000)
    lying = bytearray(bomb.getvalue())  # its directory says that the file has a hundred bytes
    entry = lying.rfind(b"PK\x01\x02")
    lying[entry + 24 : entry + 28] = (100).to_bytes(4, "little")
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_LZMA) as archive:
        archive.write(other / WEIGHTS_FILE, WEIGHTS_FILE)
    header = io.BytesIO()
    with gzip.open(header, "wb") as stream:
        long = tarfile.TarInfo("x")
        long.type, long.size = tarfile.XHDTYPE, 8_000_000
        stream.write(long.tobuf(tarfile.USTAR_FORMAT) + bytes(8_000_000))
    link = io.BytesIO()
    with tarfile.open(fileobj=link, mode="w") as tar:
        member = tarfile.TarInfo(WEIGHTS_FILE)
        member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(member)
    without_record = io.BytesIO()
    with zipfile.ZipFile(without_record, "w") as archive:
        archive.write(other / WEIGHTS_FILE, WEIGHTS_FILE)
    return {
        "outside": outside.getvalue(),
        "bomb": bomb.getvalue(),
        "lying": bytes(lying),
        "lzma": packed.getvalue(),
        "header of a tar": header.getvalue(),
        "link": link.getvalue(),
        "no record": without_record.getvalue(),
        "half": zipped(other)[:-30],
        "nothing": b"",
    }


def test_hostile_uploads_change_nothing(folder, other) -> None:
    before = offline(folder / "one", "bad")
    with running(settings_of(folder, admin_keys=[ADMIN], max_upload=1_000_000)) as client:
        for name, body in hostile_archives(other).items():
            kind = "application/x-tar" if name in ("link", "header of a tar") else "application/zip"
            status, content = client("PUT", "/adapters/one", body, Content_Type=kind)
            assert status == 422, (name, content)
            assert str(folder) not in content["error"]
        assert client("PUT", "/adapters/one", b"x", Content_Type="text/plain")[0] == 415
        assert client("PUT", "/adapters/%2e%2e%2fone", zipped(other), Content_Type="application/zip")[0] == 404
        assert client("PUT", "/adapters/..", zipped(other), Content_Type="application/zip")[0] in (404, 405)
        assert client("PUT", "/adapters/.one", zipped(other), Content_Type="application/zip")[0] == 404
        assert scores(client.post("/adapters/one/predict", {"inputs": "bad"})) == before
    assert {path.name for path in folder.iterdir()} == {"one", "two"}
    assert {path.name for path in folder.parent.iterdir()} == {"served", "other"}


def test_an_upload_goes_on_when_its_client_is_gone(folder, other, monkeypatch) -> None:
    service = create_app(settings_of(folder, admin_keys=[ADMIN])).state.service
    store, under_way, started = service.uploads._store, [], threading.Event()

    def slow(*arguments):
        under_way.append(len(under_way))
        started.set()
        time.sleep(0.2)
        try:
            return store(*arguments)
        finally:
            assert under_way.pop() == 0  # one at a time

    async def run() -> None:
        monkeypatch.setattr(service.uploads, "_store", slow)
        first = asyncio.create_task(service.uploads.put("new", zipped(folder / "one"), "application/zip"))
        await asyncio.to_thread(started.wait)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        assert service.changing.locked()
        entry, is_new = await service.uploads.put("new", zipped(other), "application/zip")
        assert (entry.name, is_new) == ("new", False)
        await service.close()

    asyncio.run(run())
    assert service.catalogue.entries["new"].file.record.labels == ["no", "maybe", "yes"]


def test_only_administrators_change_adapters(folder, other, client) -> None:
    user = Client(client.port, USER)
    assert user("PUT", "/adapters/new", zipped(other), Content_Type="application/zip")[0] == 403
    assert user("DELETE", "/adapters/one")[0] == 403
    assert Client(client.port)("DELETE", "/adapters/one")[0] == 401
    with running(settings_of(f"one={folder / 'one'}", admin_keys=[ADMIN])) as fixed:
        for method, body in (("PUT", zipped(other)), ("DELETE", None)):
            status, content = fixed(method, "/adapters/one", body, Content_Type="application/zip")
            assert status == 409, content


def test_an_upload_without_a_record_is_one_of_peft(client, backbone, tmp_path) -> None:
    put_adapter(tmp_path / "peft", backbone("bert"), ["no", "yes"], seed=3, method="p-tuning")
    (tmp_path / "peft" / RECORD_FILE).unlink()
    assert (tmp_path / "peft" / PEFT_FILE).is_file()
    status, content = client("PUT", "/adapters/one", zipped(tmp_path / "peft"), Content_Type="application/zip")
    assert (status, content["labels"]) == (200, ["LABEL_0", "LABEL_1"])  # the old record is gone, too


def test_weights_that_overflow_fail_alone(folder, client) -> None:
    one, two = (client.service.catalogue.entries[name] for name in ("one", "two"))
    client.post("/predict-many", {"inputs": "bad", "adapters": "*"})
    with torch.no_grad():
        client.service.bank._loaded["two"].members[0].head.linear.weight.fill_(float("inf"))
    parts = [(ticket_for(client, name), 0, 1) for name in (one.name, two.name)]
    good, bad = Compute()(parts)
    assert isinstance(good, list)
    assert isinstance(bad, AdapterError)
    assert "'two'" in str(bad)
    assert client("POST", "/adapters/two/predict", {"inputs": "bad"})[0] == 424


def test_a_row_without_finite_numbers_fails_alone(client, monkeypatch) -> None:
    client.post("/adapters/one/predict", {"inputs": "bad"})
    compute = mixed_logits

    def with_one_nan(*arguments, **options):
        (logits,), bound = compute(*arguments, **options)
        logits[1] = float("nan")
        return [logits], bound

    monkeypatch.setattr("ptune.serving.compute.mixed_logits", with_one_nan)
    first, second = Compute()([(ticket_for(client, "one", text), 0, 1) for text in TEXTS[:2]])
    assert isinstance(first, list)
    assert isinstance(second, AdapterError)
    assert "'one'" in str(second)


def ticket_for(client, name: str, text: str = TEXTS[0]):
    """A ticket as the batcher makes it, for one text."""
    from types import SimpleNamespace

    loaded = client.service.bank._loaded[name]
    return SimpleNamespace(loaded=[loaded], encoded=loaded.encoder.encode([text]), pairs=[(0, 0)])


def test_a_failing_adapter_fails_alone(folder, client, monkeypatch) -> None:
    client.post("/predict-many", {"inputs": "bad", "adapters": "*"})
    bad = client.service.bank._loaded["two"].members[0]
    monkeypatch.setattr(bad, "prompt", lambda: 1 / 0)
    good, failed = Compute()([(ticket_for(client, name), 0, 1) for name in ("one", "two")])
    assert isinstance(good, list)
    assert "ZeroDivisionError" in str(failed)


def test_nothing_to_serve_is_an_error(tmp_path, folder) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="`backbone`"):
        create_app(settings_of(tmp_path / "empty"))
    with pytest.raises(ConfigError, match="`default_adapter='three'`"):
        create_app(settings_of(folder, default_adapter="three"))


def test_an_adapter_that_could_not_be_read_for_a_while_is_ready_again(folder, monkeypatch) -> None:
    load_entry, out_of_files = ptune.serving.bank.load_entry, [True]

    def read(entry, backbones):
        if entry.name == "one" and out_of_files:
            raise AdapterError("one cannot be read") from OSError(errno.EMFILE, "Too many open files")
        return load_entry(entry, backbones)

    monkeypatch.setattr("ptune.serving.bank.load_entry", read)
    with running(settings_of(folder)) as client:
        assert client("POST", "/adapters/one/predict", {"inputs": "bad"})[0] == 424
        assert client("GET", "/v2/models/one/ready")[0] == 503
        out_of_files.clear()
        asyncio.run(client.service.follow())
        assert client.get("/v2/models/one/ready")["ready"] is True


def test_a_folder_that_cannot_be_read_is_no_trouble_for_the_others(folder, monkeypatch) -> None:
    def look(place):
        if place.name == "one":
            raise PermissionError(errno.EACCES, "Permission denied", str(place))
        return stamp_of(place)

    monkeypatch.setattr("ptune.serving.catalogue.stamp_of", look)
    catalogue = Catalogue([str(folder)])
    assert [entry.name for entry in catalogue.look().new] == ["two"]
    assert "Permission denied" in catalogue.broken["one"]
    monkeypatch.undo()
    assert {entry.name for entry in catalogue.look().new} == {"one", "two"}
