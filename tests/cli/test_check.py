"""`ptune check`, and its short form in `ptune train`."""

from __future__ import annotations

import json

import pytest

from ptune.cli import main
from ptune.places import as_place

ROWS = "text,label\na good film,pos\na bad film,neg\nA good  film,pos\na poor plot,neg\na bad film,pos\n"


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "my data.csv"
    path.write_text(ROWS, encoding="utf-8")
    return path


def test_findings_name_their_rows(data, capsys) -> None:
    main(["check", str(data), "--ignore", "rare_labels"])
    out = capsys.readouterr().out
    assert "repeats: 1 row repeats an earlier row of the same split, label included" in out
    assert f"  {data}, row 3\n" in out
    assert f"  {data}, rows 2 and 5\n" in out
    assert "keep one row of each text; --fix does this" in out
    assert out.endswith("2 findings, about 3 rows\n")


def test_json_has_all_rows_and_groups(data, capsys) -> None:
    main(["check", str(data), "--json"])
    answer = json.loads(capsys.readouterr().out)
    repeats = next(finding for finding in answer["findings"] if finding["kind"] == "repeats")
    assert repeats["groups"] == [[{"split": "train", "file": str(data), "row": row} for row in (1, 3)]]
    assert repeats["fixable"]


@pytest.mark.parametrize(("ignore", "code"), [("rare_labels", 1), ("rare_labels,repeats,conflicts", 0)])
def test_strict_ends_with_one_if_anything_is_found(ignore, code, data, capsys) -> None:
    arguments = ["check", str(data), "--strict", "--ignore", ignore]
    if code:
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == code
    else:
        main(arguments)
        assert "nothing found" in capsys.readouterr().out


@pytest.mark.parametrize("target", ["memory://check/a.csv", "memory://check/reviews"])
def test_fix_does_not_write_over_data_in_an_object_store(target, tmp_path, capsys) -> None:
    for name in ("a.csv", "reviews/train.csv"):
        (tmp_path / "rows.csv").write_text(ROWS, encoding="utf-8")
        as_place(f"memory://check/{name}").upload(tmp_path / "rows.csv")
    with pytest.raises(SystemExit) as caught:
        main(["check", target, "--fix", target])
    assert caught.value.code == 2
    assert "would write over the input" in capsys.readouterr().err
    assert as_place("memory://check/a.csv").read_text(encoding="utf-8") == ROWS


def test_fix_writes_a_file(data, tmp_path, capsys) -> None:
    main(["check", str(data), "--fix", str(tmp_path / "new" / "out.csv"), "--json"])
    assert json.loads(capsys.readouterr().out)["fixed"]["rows"]["repeats"] == 1
    written = (tmp_path / "new" / "out.csv").read_text(encoding="utf-8")
    assert written == ROWS.replace("A good  film,pos\n", "")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--ignore", "repeat"], "--ignore repeat is unknown; use one of missing, unreadable, repeats"),
        (["--fix", "out.pdf"], "the ending '.pdf' is unknown"),
        (["--text", "txt"], "--text names column 'txt'"),
        (["--adapter", "none"], "none"),
    ],
)
def test_wrong_input(options, message, data, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        main(["check", str(data), *options])
    assert caught.value.code == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert len(printed.err.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == [data.name]


def test_training_prints_a_short_form_and_the_command_for_more(backbone_folder, tmp_path, capsys) -> None:
    path = tmp_path / "my data.csv"
    path.write_text(ROWS.replace("text,label", "Message,Queue"), encoding="utf-8")
    options = ["--text", "Message", "--label", "Queue"]
    output = ["--output", str(tmp_path / "a"), "--epochs", "1", "--objective", "labels"]
    main(["train", "--backbone", str(backbone_folder("bert")), "--data", str(path), *options, *output])
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("check: ")]
    assert any("with different labels" in line for line in lines)
    command = lines[-1].removeprefix("check: for the rows, ")
    assert command == f"ptune check '{path}' --text Message --label Queue"
