"""`ptune serve`: settings from three places, and one message for everything that is wrong."""

from __future__ import annotations

import builtins
import sys
from pathlib import Path

import pytest

from ptune.cli import main
from ptune.cli.serve_settings import merge
from ptune.errors import ConfigError
from ptune.serving.settings import ServeOptions, parse_size
from ptune.settings_file import parse_file
from tests.serving.conftest import adapters  # noqa: F401


@pytest.fixture(autouse=True)
def no_variables(monkeypatch) -> None:
    for name in ("PORT", "HOST"):
        monkeypatch.delenv(f"PTUNE_SERVE_{name}", raising=False)


def fails(capsys, *arguments: str) -> str:
    """The message of a command that is wrong."""
    with pytest.raises(SystemExit) as caught:
        main(["serve", *arguments])
    assert caught.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = [line for line in captured.err.splitlines() if line.startswith("ptune: error: ")]
    return line.removeprefix("ptune: error: ")


def test_the_command_line_goes_before_the_environment_and_that_before_the_file(tmp_path, monkeypatch) -> None:
    file = tmp_path / "serve.yaml"
    file.write_text("adapters: [a, b]\nport: 1\nmax-batch-rows: 2\nadapter_memory: 3MB\ntruncate: false\n")
    monkeypatch.setenv("PTUNE_SERVE_MAX_BATCH_ROWS", "20")
    monkeypatch.setenv("PTUNE_SERVE_ADAPTER_MEMORY", "30MB")
    monkeypatch.setenv("PTUNE_SERVE_API_KEYS", "a-key-of-16-characters,b-key-of-16-characters")
    settings = merge({"adapters": [], "backbone": []}, ServeOptions(adapter_memory=300), file)
    assert (settings.adapters, settings.port, settings.truncate) == (["a", "b"], 1, False)
    assert (settings.max_batch_rows, settings.adapter_memory) == (20, 300)
    assert [key.get_secret_value()[0] for key in settings.api_keys or ()] == ["a", "b"]
    assert "key-of" not in repr(settings)
    assert merge({"adapters": ["c"]}, None, file).adapters == ["c"]
    monkeypatch.setenv("PTUNE_SERVE_CONFIG", str(file))
    monkeypatch.setenv("PTUNE_SERVE_BACKBONE", "x,y")
    settings = merge({}, None, None)
    assert (settings.adapters, settings.backbone) == (["a", "b"], ["x", "y"])


def test_what_kubernetes_sets_is_no_setting(monkeypatch, caplog) -> None:
    monkeypatch.setenv("PTUNE_SERVE_PORT", "tcp://10.0.0.1:8080")
    monkeypatch.setenv("PTUNE_SERVE_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("PTUNE_SERVE_PORT_8080_TCP_ADDR", "10.0.0.1")
    assert merge({"adapters": ["a"]}, None, None).port == 8080
    assert caplog.records == []
    monkeypatch.setenv("PTUNE_SERVE_MAX_ROW", "3")
    merge({"adapters": ["a"]}, None, None)
    assert "unknown key 'PTUNE_SERVE_MAX_ROW', did you mean 'PTUNE_SERVE_MAX_ROWS'?" in caplog.text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("port: many", "key 'port': expected a whole number"),
        ("prot: 80", "unknown key 'prot', did you mean 'port'?"),
        ("max-rows: 8\nmax_rows: 9", "key 'max-rows' is there with underscores too; keep one"),
        ("max-batch-rows: 0\nprot: 1", "key 'max-batch-rows'"),
        ("[1]", "expected settings by name"),
        ("port: [", "is not valid YAML"),
        ("port: 80\nhost: a\nport: 81", "key 'port' is there twice"),
        ("adapter-memory: lots", "a size such as 500MB"),
    ],
)
def test_files_name_the_key_that_is_wrong(content, message, tmp_path) -> None:
    (tmp_path / "serve.yaml").write_text(content)
    with pytest.raises(ConfigError) as caught:
        merge({"adapters": ["a"]}, None, tmp_path / "serve.yaml")
    assert message in str(caught.value)
    assert str(tmp_path / "serve.yaml") in str(caught.value)


def test_a_wrong_variable_is_named(monkeypatch) -> None:
    monkeypatch.setenv("PTUNE_SERVE_TIMEOUT", "-1")
    with pytest.raises(ConfigError, match="PTUNE_SERVE_TIMEOUT: expected more than 0"):
        merge({"adapters": ["a"]}, None, None)


def test_sizes() -> None:
    assert [parse_size(size) for size in ("5", "2KB", "1.5 MB", "3g", 7)] == [5, 2048, 1_572_864, 3 * 2**30, 7]
    for wrong in ("", "MB", "5 parsecs", "-1MB"):
        with pytest.raises(ValueError, match="500MB"):
            parse_size(wrong)
    with pytest.raises(ValueError, match="that a machine can have"):
        parse_size("9" * 400)


def test_mistakes_are_told_in_one_line(capsys, adapters, tmp_path, monkeypatch) -> None:  # noqa: F811
    assert "give what to serve" in fails(capsys)
    assert "there is no such folder" in fails(capsys, str(tmp_path / "nowhere"))
    assert "--port" in fails(capsys, str(adapters), "--port", "many")
    assert "--max-rows" in fails(capsys, str(adapters), "--max-rows", "0")
    assert "--api-keys-file" in fails(capsys, str(adapters), "--host", "0.0.0.0")
    assert "--default-adapter nope" in fails(capsys, str(adapters), "--default-adapter", "nope")
    assert "16 or more" in fails(capsys, str(adapters), "--api-keys", "short")
    assert "--backbone" in fails(capsys, str(tmp_path))
    assert "there is no option --prot; did you mean --port?" in fails(capsys, str(adapters), "--prot", "80")


def test_a_port_that_is_taken_is_named_before_anything_is_loaded(capsys, adapters, monkeypatch) -> None:  # noqa: F811
    import socket

    import ptune.serving.app

    monkeypatch.setattr(ptune.serving.app, "create_app", lambda _: pytest.fail("the backbone is loaded"))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        message = fails(capsys, f"a={adapters / 'spam'}", "--port", str(port))
    assert f"--port {port}" in message
    assert "in use" in message


def test_without_the_extra_one_line_says_what_to_install(capsys, monkeypatch) -> None:
    true_import = builtins.__import__

    def import_(name: str, *rest):
        if name == "uvicorn":
            raise ImportError("no", name="uvicorn")
        return true_import(name, *rest)

    monkeypatch.setattr(builtins, "__import__", import_)
    monkeypatch.delitem(sys.modules, "uvicorn", raising=False)
    assert "pip install 'ptune[serve]'" in fails(capsys, str(Path.cwd()))


def test_yaml_may_merge_mappings(tmp_path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("common: &common\n  port: 1\nserved:\n  <<: *common\n  host: a\n")
    assert parse_file(file) == {"common": {"port": 1}, "served": {"port": 1, "host": "a"}}


def test_a_configuration_file_for_training_spells_a_key_once(tmp_path, capsys) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("batch-size: 8\nbatch_size: 16\n")
    with pytest.raises(SystemExit):
        main(["train", "--config", str(file)])
    assert "key 'batch-size' is there with underscores too; keep one" in capsys.readouterr().err


def test_workers_need_to_look_for_what_one_of_them_is_told(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("PTUNE_SERVE_ADMIN_KEYS", "a-key-of-16-characters")
    with pytest.raises(SystemExit):
        main(["serve", str(tmp_path), "--workers", "2", "--watch-seconds", "0"])
    assert "give --watch-seconds" in capsys.readouterr().err
