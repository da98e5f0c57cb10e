"""Adapters, backbones and data by Hub id: the Hub's own client against a server that speaks its protocol."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow
import pytest
import torch
from huggingface_hub import ModelCard, constants
from pyarrow import parquet

from ptune.adapter.folder import read_adapter
from ptune.adapter.layout import PEFT_FILE, RECORD_FILE, WEIGHTS_FILE
from ptune.adapter.push import push
from ptune.cli import main
from ptune.data.load import load_data
from ptune.data.readers import read_rows
from ptune.data.splits import Origin
from ptune.errors import AdapterError, BackboneError, ConfigError, HubError
from ptune.inference.classifier import TextClassifier, load
from ptune.model.classifier import PromptClassifier
from ptune.model.config import PromptConfig
from ptune.model.loading import load_backbone
from ptune.model.locate import locate
from ptune.training.config import TrainConfig
from ptune.training.train import train
from tests.hub_server import HubServer

# The client uploads large files through httpx2's old argument.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

WHOLE = {".gitattributes", "README.md", RECORD_FILE, WEIGHTS_FILE}


@pytest.fixture(scope="module")
def adapters(backbone, reviews, tmp_path_factory) -> dict[str, Path]:
    """Trained adapters by method. PEFT can load the one for p-tuning."""
    folders, data = {}, load_data(reviews)
    for method in ("deep", "p-tuning"):
        folders[method] = tmp_path_factory.mktemp(method)
        config = PromptConfig(method=method, virtual_tokens=3, encoder_hidden_size=8)
        model = PromptClassifier.from_backbone(backbone("bert"), config, labels=data.labels)
        train(model, data, TrainConfig(epochs=1), output=folders[method])
    return folders


def test_a_push_is_one_commit_with_only_the_adapters_files(hub, adapters) -> None:
    folder = adapters["deep"]
    assert push(folder, "owner/reviews", message="first try") == f"{hub.url}/owner/reviews"
    repository = hub.repositories["models/owner/reviews"]
    assert repository.history() == ["first try", "initial commit"]
    _, commit = repository.find("main")
    assert commit.files.keys() == WHOLE
    assert all(commit.files[name] == (folder / name).read_bytes() for name in (RECORD_FILE, WEIGHTS_FILE))
    assert not repository.private
    assert "hf_owner" not in str(commit.files)
    assert (folder / "checkpoint.safetensors").exists()


def files_of(hub: HubServer, name: str, revision: str = "main") -> dict[str, bytes]:
    _, commit = hub.repositories[f"models/{name}"].find(revision)
    return commit.files


def test_pushing_the_same_adapter_again_adds_no_commit(hub, adapters, capsys) -> None:
    for _ in range(2):
        main(["push", str(adapters["deep"]), "owner/reviews", "--json"])
        assert json.loads(capsys.readouterr().out.splitlines()[-1]) == {"url": f"{hub.url}/owner/reviews"}
    assert hub.repositories["models/owner/reviews"].history() == ["Upload adapter", "initial commit"]


def test_a_name_without_an_owner_belongs_to_the_tokens_user(hub, adapters) -> None:
    assert push(adapters["deep"], "reviews") == f"{hub.url}/owner/reviews"
    assert "owner/reviews" in files_of(hub, "owner/reviews")["README.md"].decode()


def test_files_of_an_older_adapter_are_deleted_in_the_same_commit(hub, adapters) -> None:
    push(adapters["p-tuning"], "owner/reviews")
    assert files_of(hub, "owner/reviews").keys() == WHOLE | {PEFT_FILE}
    push(adapters["deep"], "owner/reviews")
    assert files_of(hub, "owner/reviews").keys() == WHOLE  # PEFT would misread the new weights
    assert len(hub.repositories["models/owner/reviews"].history()) == 3


def test_a_private_repository_is_created_but_a_public_one_is_refused(hub, adapters) -> None:
    push(adapters["deep"], "owner/secret", private=True)
    assert hub.repositories["models/owner/secret"].private
    push(adapters["deep"], "owner/secret", private=True)
    push(adapters["p-tuning"], "owner/open")
    with pytest.raises(HubError, match="repository 'owner/open' already exists and is public"):
        push(adapters["deep"], "owner/open", private=True)
    assert PEFT_FILE in files_of(hub, "owner/open")


def test_a_branch_is_created_and_read_by_its_name(hub, adapters, backbone) -> None:
    push(adapters["deep"], "owner/reviews")
    assert push(adapters["p-tuning"], "owner/reviews", revision="v2") == f"{hub.url}/owner/reviews/tree/v2"
    assert read_adapter("owner/reviews").record.prompt.method == "deep"
    assert read_adapter("owner/reviews@v2").record.prompt.method == "p-tuning"
    sha, _ = hub.repositories["models/owner/reviews"].find("v2")
    assert read_adapter(f"owner/reviews@{sha}").record.prompt.method == "p-tuning"


def test_a_card_in_the_folder_is_uploaded_unchanged(hub, adapters, tmp_path) -> None:
    folder = Path(shutil.copytree(adapters["deep"], tmp_path / "own"))
    (folder / "README.md").write_text("---\nlicense: mit\n---\nmine\n")
    push(folder, "owner/mine")
    assert files_of(hub, "owner/mine")["README.md"] == b"---\nlicense: mit\n---\nmine\n"
    (folder / "README.md").write_text("---\nbase_model: /home/me/bert\n---\n")
    with pytest.raises(HubError, match=r'status 400 \("base_model" with value "/home/me/bert" is not valid'):
        push(folder, "owner/other")
    assert files_of(hub, "owner/other").keys() == {".gitattributes"}


def test_a_loaded_and_a_trained_classifier_push_themselves(hub, adapters, backbone, reviews, tmp_path) -> None:
    loaded = load(adapters["deep"], backbone("bert"))
    assert loaded.push_to_hub("owner/loaded") == f"{hub.url}/owner/loaded"
    model = PromptClassifier.from_backbone(backbone("bert"), PromptConfig(virtual_tokens=3), labels=["a", "b"])
    TextClassifier.around(model).push_to_hub("owner/made")
    assert files_of(hub, "owner/made").keys() == WHOLE
    data = load_data(reviews)
    model = PromptClassifier.from_backbone(backbone("bert"), PromptConfig(virtual_tokens=3), labels=data.labels)
    train(model, data, TrainConfig(epochs=1), output=tmp_path / "a").classifier.push_to_hub("owner/trained")
    assert files_of(hub, "owner/trained").keys() == WHOLE


@pytest.mark.parametrize(
    ("token", "repository", "reason"),
    [
        ("", "owner/new", "no token was given, or one that is not valid (Invalid username or password.); set HF_TOKEN"),
        ("hf_wrong", "owner/new", "no token was given, or one that is not valid (Invalid credentials"),
        ("hf_reader", "owner/new", "the token has no permission for it (You don't have the rights to create"),
        ("hf_other", "owner/new", "the token has no permission for it (You don't have the rights to create"),
        ("hf_other", "owner/taken", "the token has no permission for it (You do not have write access"),
        ("hf_reader", "owner/taken", "the token has no permission for it (You do not have write access"),
        ("hf_owner", "owner/a b", "this is not a name for a repository"),
        ("hf_owner", "owner/a/b", "this is not a name for a repository"),
        ("hf_owner", "", "this is not a name for a repository"),
    ],
)
def test_a_refused_push_is_explained_in_one_line(
    token, repository, reason, hub, adapters, tmp_path, monkeypatch, capsys
) -> None:
    hub.add("models", "owner/taken", tmp_path)
    monkeypatch.setenv("HF_TOKEN", token)
    error = failure(capsys, "push", adapters["deep"], repository)
    assert f"could not be pushed to '{repository}': " in error
    assert reason in error
    assert "hf_" not in error
    assert {name: repo.history() for name, repo in hub.repositories.items()} == {"models/owner/taken": ["first"]}


def failure(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Run a command that must fail, and return its only line of output."""
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    printed = capsys.readouterr()
    assert caught.value.code == 2
    assert printed.err.startswith("ptune: error: "), printed.err
    assert printed.err.count("\n") == 1, printed.err
    return printed.err


@pytest.mark.parametrize("token", ["hf_a b", "hf_\n", "hf_é", ""])
def test_an_impossible_token_is_refused_and_not_shown(token, hub, adapters, capsys) -> None:
    error = failure(capsys, "push", adapters["deep"], "owner/new", f"--token={token}")
    assert "the token is empty or holds characters that no token has" in error
    assert "hf_" not in error
    assert hub.requests == []


def test_a_token_given_takes_precedence_over_the_environments(hub, adapters, monkeypatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    push(adapters["deep"], "owner/reviews", token="hf_owner")
    assert files_of(hub, "owner/reviews").keys() == WHOLE


@pytest.mark.parametrize(
    "step", ["/api/repos/create", "/api/validate-yaml", "/preupload/", "/objects/batch", "PUT /lfs/", "/commit/main"]
)
def test_an_interrupted_upload_publishes_nothing(step, hub, adapters, monkeypatch, capsys) -> None:
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)  # the client retries for a long time
    hub.drop(step)
    error = failure(capsys, "push", adapters["deep"], "owner/reviews")
    assert "cannot be reached" in error
    assert "completely or not at all" in error
    if step != "/api/repos/create":
        assert files_of(hub, "owner/reviews").keys() == {".gitattributes"}
    hub.dropped = None
    push(adapters["deep"], "owner/reviews")
    assert files_of(hub, "owner/reviews").keys() == WHOLE


@pytest.mark.parametrize(
    ("status", "message"), [(412, "A commit has happened since."), (500, "Internal Error"), (413, "")]
)
def test_a_commit_that_the_hub_refuses_is_explained(status, message, hub, adapters, capsys) -> None:
    hub.refuse("/commit/main", status, message)
    error = failure(capsys, "push", adapters["deep"], "owner/reviews")
    assert f"the Hub answered with status {status}" in error
    assert message in error
    assert files_of(hub, "owner/reviews").keys() == {".gitattributes"}


def test_nothing_is_pushed_without_a_network_or_an_adapter(hub, adapters, tmp_path, monkeypatch, capsys) -> None:
    assert "there is no such folder" in failure(capsys, "push", tmp_path / "none", "owner/new")
    assert "the commit message is empty" in failure(capsys, "push", adapters["deep"], "owner/new", "--message", " ")
    assert hub.requests == []
    hub.stop()
    assert f"{hub.url} cannot be reached" in failure(capsys, "push", adapters["deep"], "owner/new")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE is set" in failure(capsys, "push", adapters["deep"], "owner/new")


def test_an_adapter_gives_the_same_answers_by_its_id_and_from_the_cache_without_the_hub(
    hub, adapters, backbone, monkeypatch
) -> None:
    push(adapters["deep"], "owner/reviews")
    texts = ["a good film", "a poor plot and a bad cast"]
    answers = load(adapters["deep"], backbone("bert")).predict(texts)
    assert load("owner/reviews", backbone("bert")).predict(texts) == answers
    cached = read_adapter("owner/reviews").folder
    assert {path.name for path in cached.iterdir()} == {RECORD_FILE, WEIGHTS_FILE}  # only the files that are needed
    hub.stop()
    assert load("owner/reviews", backbone("bert")).predict(texts) == answers
    with pytest.raises(
        AdapterError, match=rf"'owner/other' is not a local folder.*\({hub.url} cannot be reached.*cache"
    ):
        read_adapter("owner/other")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert load("owner/reviews", backbone("bert")).predict(texts) == answers
    with pytest.raises(
        AdapterError, match=r"'owner/other' is not a local folder.*\(HF_HUB_OFFLINE is set, .* not in the"
    ):
        read_adapter("owner/other")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("owner/none", "has none by this name, or it is private"),
        ("owner/reviews@v9", "it has no such revision"),
        ("owner/empty", "holds neither ptune.json nor adapter_config.json"),
        ("owner/half", "has no adapter_model.safetensors"),
        ("reviews", "there is no such folder"),
        ("owner/reviews/v9", "there is no such folder"),
        ("owner/reviews@", "there is no such folder"),
    ],
)
def test_an_id_that_leads_to_no_adapter_is_explained(name, reason, hub, adapters, tmp_path, capsys) -> None:
    push(adapters["deep"], "owner/reviews")
    hub.add("models", "owner/empty", tmp_path / "none")
    (tmp_path / "half").mkdir()
    shutil.copy(adapters["deep"] / RECORD_FILE, tmp_path / "half")
    hub.add("models", "owner/half", tmp_path / "half")
    error = failure(capsys, "inspect", name)
    assert reason in error


def test_reading_a_private_adapter_needs_a_token(hub, adapters, monkeypatch) -> None:
    push(adapters["deep"], "owner/secret", private=True)
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    with pytest.raises(AdapterError, match="it is private and no token with access"):
        read_adapter("owner/secret")
    monkeypatch.setenv("HF_TOKEN", "hf_reader")
    assert read_adapter("owner/secret").record.prompt.method == "deep"


def test_a_backbone_is_read_at_one_commit_which_adapters_record(
    hub, backbone_folder, reviews, tmp_path, monkeypatch
) -> None:
    repository = hub.add("models", "owner/bert", backbone_folder("bert"))
    first = repository.branches["main"]
    repository.branches["v1"] = first
    data = load_data(reviews)
    model = PromptClassifier.from_backbone("owner/bert", PromptConfig(virtual_tokens=3), labels=data.labels)
    train(model, data, TrainConfig(epochs=1), output=tmp_path / "a")
    assert read_adapter(tmp_path / "a").record.backbone.revision == first
    repository.commit("main", {"model.safetensors": None, "config.json": b"{}"}, "broken")
    answers = [load(tmp_path / "a").predict("a good film")]  # main has changed, but the adapter stays with its commit
    assert load_backbone("owner/bert", "v1").location.revision == first
    with pytest.raises(BackboneError, match=r"as a Hub id, revision 'v9', it could not be loaded \(it has no such rev"):
        load_backbone("owner/bert", "v9")
    hub.stop()
    answers.append(load(tmp_path / "a").predict("a good film"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    answers.append(load(tmp_path / "a").predict("a good film"))
    assert answers[0] == answers[1] == answers[2]
    assert load_backbone("owner/bert", "v1").location.revision == first


def test_the_revision_of_a_folder_is_ignored_with_a_warning(backbone_folder, caplog) -> None:
    location = locate(str(backbone_folder("bert")), "v1")
    assert "its revision 'v1' is ignored" in caplog.text
    assert location.revision is None


@pytest.mark.parametrize("step", ["GET /api/models/", "HEAD .*/resolve/", "GET .*/resolve/", "GET /lfs/"])
def test_an_interrupted_download_is_explained_and_can_be_repeated(
    step, hub, adapters, backbone_folder, tmp_path, monkeypatch
) -> None:
    for name in ("huggingface_hub.utils._http", "huggingface_hub.file_download"):
        monkeypatch.setattr(f"{name}.time.sleep", lambda _: None)
    hub.add("models", "owner/reviews", adapters["deep"])
    hub.add("models", "owner/bert", backbone_folder("bert"))
    hub.drop(step)
    with pytest.raises(AdapterError, match="'owner/reviews' is not a local folder, and as a Hub id it could not be"):
        read_adapter("owner/reviews")
    with pytest.raises(BackboneError, match="'owner/bert' is not a local folder, and as a Hub id"):
        TextClassifier.around(PromptClassifier(load_backbone("owner/bert"), PromptConfig(virtual_tokens=3), ["a"]))
    hub.dropped = None
    assert read_adapter("owner/reviews").record == read_adapter(adapters["deep"]).record
    TextClassifier.around(PromptClassifier(load_backbone("owner/bert"), PromptConfig(virtual_tokens=3), ["a", "b"]))


def commands(hub: HubServer, home: Path, *lines: list[str], **variables: str) -> subprocess.CompletedProcess[str]:
    """Run commands one after the other in a separate process, with this Hub, this cache and these variables."""
    environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"}
    program = "import json, sys; from ptune.cli import main\nfor line in json.loads(sys.argv[1]): main(line)"
    return subprocess.run(
        [sys.executable, "-c", program, json.dumps(lines)],
        env={**environment, "HF_HUB_OFFLINE": "0", "HF_TOKEN": "hf_owner", **variables},
        capture_output=True,
        text=True,
        check=False,
    )


def test_all_commands_work_with_hub_ids_alone_and_again_without_the_hub(
    hub, backbone_folder, reviews, tmp_path
) -> None:
    hub.add("models", "owner/bert", backbone_folder("bert"))
    (tmp_path / "set" / "data").mkdir(parents=True)
    for split in ("train", "validation"):  # the form of the Hub's data sets
        table = pyarrow.Table.from_pylist(list(read_rows(reviews / f"{split}.jsonl")))
        parquet.write_table(table, tmp_path / "set" / "data" / f"{split}-00000-of-00001.parquet")
    hub.add("datasets", "owner/films", tmp_path / "set")
    adapter, home = tmp_path / "films", tmp_path / "home"
    options = ["--backbone", "owner/bert", "--data", "owner/films", "--epochs", "1", "--virtual-tokens", "3"]
    learn = [["train", *options, "--output", str(adapter)], ["push", str(adapter), "owner/films"]]
    ask = ["predict", "owner/films", "--text", "a good film", "--json"]
    measure = ["evaluate", "owner/films", "--data", "owner/films", "--json"]
    answers = []
    runs = (
        ([*learn, ask, measure], {}, 0),
        ([ask], {}, 0),
        ([ask, measure, ["evaluate", "owner/films", "--data", "owner/other"]], {"HF_HUB_OFFLINE": "1"}, 2),
    )
    for lines, variables, code in runs:
        done = commands(hub, home, *lines, **variables)
        assert done.returncode == code, done.stderr
        answers.append([json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")])
        hub.stop()
    assert answers[0] == answers[2]
    assert answers[0][:1] == answers[1]
    assert "data 'owner/other' is not a file or folder here, and could not be loaded from the Hub (" in done.stderr
    record = read_adapter(adapter).record
    assert (record.backbone.name, record.data) == ("owner/bert", Origin("owner/films", hub=True))
    card = ModelCard(files_of(hub, "owner/films")["README.md"].decode())
    assert (card.data.base_model, card.data.datasets) == ("owner/bert", ["owner/films"])


def test_an_adapter_of_the_peft_interface_can_be_pushed_and_loaded_again(hub, backbone_folder) -> None:
    from transformers import AutoModelForSequenceClassification

    from ptune.compat.peft import PeftModel, PromptEncoderConfig, get_peft_model

    folder = backbone_folder("bert")
    config = PromptEncoderConfig(task_type="SEQ_CLS", num_virtual_tokens=3, encoder_hidden_size=8)
    model = get_peft_model(AutoModelForSequenceClassification.from_pretrained(folder), config)
    model.add_adapter("other", config)
    model.set_adapter("other")
    model.push_to_hub("owner/other", private=True, commit_message="Second try")
    assert files_of(hub, "owner/other").keys() == {*WHOLE, PEFT_FILE}
    again = PeftModel.from_pretrained(AutoModelForSequenceClassification.from_pretrained(folder), "owner/other")
    ids = torch.tensor([[2, 5, 6, 3]])
    with torch.no_grad():
        torch.testing.assert_close(again.eval()(ids).logits, model.eval()(ids).logits)
    with pytest.raises(ConfigError, match="push_to_hub does not know commit"):
        model.push_to_hub("owner/other", commit="x")
