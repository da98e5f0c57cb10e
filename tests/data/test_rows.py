"""Rows that lack something or cannot be read: reported all at once, left out on request, and labels that are rare."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from ptune.data.load import load_data
from ptune.data.readers import read_columns, read_rows
from ptune.errors import ConfigError, DataError


@pytest.fixture
def tmp_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder without words of the test's name, which pytest's own has and messages are searched for."""
    return tmp_path_factory.mktemp("d")


def table(path: Path, *rows: str, header: str = "text,label") -> Path:
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


def message(source: Path, **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        load_data(source, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


GOOD = [f"text {n},{'ab'[n % 2]}" for n in range(10)]


class TestFlaws:
    """Rows that cannot be used."""

    def test_every_bad_row_of_a_file_is_named_with_its_flaw(self, tmp_path: Path) -> None:
        path = table(tmp_path / "a.csv", *GOOD, ",a", "good,very good,b", "fine,", " ,b", "so,a,b")
        said = message(path)
        assert f"{path}, rows 11 and 14: column 'text' is empty; fill it in or remove the row. Also" in said
        assert f"{path}, rows 12 (line 13) and 15 (line 16): 3 fields, but the header has 2 (text, label)" in said
        assert f"{path}, row 13: column 'label' has no label" in said
        assert "In all, 5 of 15 rows cannot be used" in said
        assert said.endswith("`on_empty='skip'` leaves out rows without text or label")

    def test_a_message_lists_twenty_rows_of_a_kind_and_counts_the_others(self, tmp_path: Path) -> None:
        said = message(table(tmp_path / "a.csv", *GOOD, *[",a"] * 50))
        assert re.search(r"rows 11, 12, [\d, ]+29, 30 and 30 more: column 'text' is empty", said)
        assert "In all, 50 of 60 rows" in said
        assert len(said) < 500

    def test_broken_lines_of_json_are_named_together(self, tmp_path: Path) -> None:
        lines = [json.dumps({"text": f"t {n}", "label": "ab"[n % 2]}) for n in range(4)]
        path = tmp_path / "a.jsonl"
        path.write_text("\n".join(["[1]", *lines, '{"text": ', "[2]"]) + "\n")
        said = message(path)
        assert "rows 1 and 7: expected an object" in said
        assert "row 6: not JSON" in said

    def test_unknown_labels_and_empty_texts_of_a_split_are_named_together(self, tmp_path: Path) -> None:
        table(tmp_path / "train.csv", *GOOD)
        table(tmp_path / "dev.csv", "fine,a", ",b", "good,c")
        said = message(tmp_path)
        assert "dev.csv, row 2: column 'text' is empty" in said
        assert "dev.csv, row 3: label 'c' is not among the known labels (a, b)" in said

    def test_rows_of_several_files_are_named_by_file(self, tmp_path: Path) -> None:
        for number in range(2):
            table(tmp_path / f"train-{number}.csv", *GOOD[:4], ",a")
        assert re.search(r"train-0\.csv, row 5; \S+train-1\.csv, row 5: column 'text' is empty", message(tmp_path))

    def test_rows_without_text_or_label_are_left_out_on_request_with_their_numbers(self, tmp_path: Path) -> None:
        rows = [GOOD[0], ",a", *GOOD[1:], "fine,", ",", "good,  "]
        data = load_data(table(tmp_path / "train.csv", *rows), on_empty="skip")
        assert len(data.train) + len(data.validation) == 10
        assert {*data.train.texts, *data.validation.texts} == {f"text {n}" for n in range(10)}
        note = "rows of train left out: 4 of 14; column 'text' is empty (2), column 'label' has no label (3)"
        assert note in data.notes

    def test_other_flaws_are_reported_even_so(self, tmp_path: Path) -> None:
        said = message(table(tmp_path / "a.csv", *GOOD, ",a", "a,b,c"), on_empty="skip")
        assert "row 12 (line 13): 3 fields" in said
        assert "is empty" not in said

    def test_an_unknown_way_is_named_with_those_there_are(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="use one of error, skip"):
            load_data(table(tmp_path / "a.csv", *GOOD), on_empty="drop")  # type: ignore[arg-type]

    def test_blank_labels_of_a_test_split_make_it_one_without_labels(self, tmp_path: Path) -> None:
        table(tmp_path / "train.csv", *GOOD)
        table(tmp_path / "test.csv", "good,", "bad,")
        data = load_data(tmp_path)
        assert set(data.splits) == {"train", "validation"}
        assert "split: the rows of test have no labels and are left out" in data.notes


RARE = [*GOOD, "so,c", "slow,d"]


class TestRare:
    """Labels that occur once, or seldom."""

    def test_labels_that_occur_once_are_named_together_with_what_helps(self, tmp_path: Path) -> None:
        said = message(table(tmp_path / "a.csv", *RARE))
        assert "rows 11 and 12: label 'c' occurs only once" in said
        assert "`drop_rare=2`" in said

    def test_one_row_of_a_label_is_enough_beside_a_validation_split(self, tmp_path: Path) -> None:
        table(tmp_path / "train.csv", "a good film,pos", "a bad film,neg")
        table(tmp_path / "dev.csv", "fine,pos", "awful,neg", "nice,pos")
        data = load_data(tmp_path)
        assert (len(data.train), len(data.validation)) == (2, 3)

    def test_rare_labels_are_left_out_of_every_split_with_their_numbers(self, tmp_path: Path) -> None:
        table(tmp_path / "train.csv", *RARE)
        table(tmp_path / "test.csv", "good,a", "slow,d")
        data = load_data(tmp_path, drop_rare=2)
        assert data.labels == ["a", "b"]
        assert (len(data.train) + len(data.validation), len(data.test)) == (10, 1)
        assert "labels left out because fewer than 2 rows have them: c (1), d (1)" in data.notes
        assert len(load_data(tmp_path, drop_rare=1, only="train").train) == 12

    def test_rows_with_several_labels_keep_the_others(self, tmp_path: Path) -> None:
        rows = ["x,a|b", "y,a", "z,b|c", "u,", "v,a|b", "w,c|d"]
        data = load_data(table(tmp_path / "a.csv", *rows), drop_rare=2, label_separator="|")
        assert data.labels == ["a", "b", "c"]
        assert len(data.train) + len(data.validation) == 6


class TestTables:
    """CSV and TSV files as people have them."""

    def test_columns_without_a_name_are_left_out(self, tmp_path: Path) -> None:
        path = table(tmp_path / "a.csv", 'ham,"good, very good",,,', "spam,bad,,,more", header="v1,v2,,,")
        assert list(read_rows(path)) == [{"v1": "ham", "v2": "good, very good"}, {"v1": "spam", "v2": "bad"}]

    def test_the_index_of_pandas_is_kept_but_never_taken_for_text_or_label(self, tmp_path: Path) -> None:
        frame = pd.DataFrame({"body": [f"text {n}" for n in range(6)], "label": ["a", "b"] * 3})
        frame.to_csv(tmp_path / "a.csv")
        assert read_columns(tmp_path / "a.csv") == ["", "body", "label"]
        assert str(load_data(tmp_path / "a.csv").columns) == "text 'body', label 'label'"
        assert "for the first among 'body', 'label'" in message(tmp_path / "a.csv", label="label", text_pair="body")

    def test_empty_fields_behind_the_last_column_are_no_fields(self, tmp_path: Path) -> None:
        path = table(tmp_path / "a.csv", "good,a,,", "bad,b")
        assert list(read_rows(path)) == [{"text": "good", "label": "a"}, {"text": "bad", "label": "b"}]

    @pytest.mark.parametrize(("separator", "name"), [("\t", "tabs"), (";", "semicolons"), ("|", "vertical bars")])
    def test_another_separator_is_found_and_said(
        self, separator: str, name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level("INFO")
        rows = [separator.join(["good, indeed", "a"]), separator.join(["bad, too", "b"])]
        path = table(tmp_path / "a.csv", *rows, header=separator.join(["text", "label"]))
        assert [row["text"] for row in read_rows(path)] == ["good, indeed", "bad, too"]
        assert f"a.csv': the fields are separated by {name}" in caplog.text

    def test_a_comma_in_a_column_name_is_no_separator_where_rows_disagree(self, tmp_path: Path) -> None:
        path = table(tmp_path / "a.csv", "good;1;a", "bad;2;b", header="text;price, net;label")
        assert list(next(read_rows(path))) == ["text", "price, net", "label"]

    def test_a_quotation_mark_that_would_swallow_a_tab_and_a_line_end_is_text(self, tmp_path: Path) -> None:
        rows = ['"Never said that.\tneg', 'It was him."\tpos', "a film\tpos"]
        path = table(tmp_path / "a.tsv", *rows, header="text\tlabel")
        assert [row["text"] for row in read_rows(path)] == ['"Never said that.', 'It was him."', "a film"]
        quoted = table(tmp_path / "b.tsv", '"one\ttwo\nthree\tfour\tfive"\tpos', "six\tneg", header="text\tlabel")
        assert [row["text"] for row in read_rows(quoted)] == ["one\ttwo\nthree\tfour\tfive", "six"]

    def test_a_missing_header_is_recognised_and_the_advice_works_as_typed(self, tmp_path: Path) -> None:
        rows = [f'"{n % 2}","title {n}","the text of article {n}, which is long"' for n in range(8)]
        path = table(tmp_path / "a.csv", *rows[1:], header=rows[0])
        said = message(path)
        assert "The first line looks like data; put a line with the names of the columns in front of it" in said
        subprocess.run(["bash", "-ec", said.split("as in ")[1]], check=True)
        data = load_data(tmp_path / "a-named.csv")
        assert (len(data.train) + len(data.validation), data.labels) == (8, ["0", "1"])
        assert data.train.texts[0].startswith("the text of article")

    def test_ordinary_column_names_are_not_taken_for_data(self, tmp_path: Path) -> None:
        assert "looks like data" not in message(table(tmp_path / "a.csv", "x,y,z", header="one,two,three"))

    @pytest.mark.parametrize("separator", [";", "\t"])
    def test_a_txt_file_with_labels_in_it_is_told_how_to_become_a_table(self, separator: str, tmp_path: Path) -> None:
        path = tmp_path / "train.txt"
        path.write_text("".join(f"text, number {n}{separator}{'ab'[n % 2]}\n" for n in range(8)))
        said = message(path)
        assert "A .txt file has a text in each line and no labels, so it serves for prediction" in said
        subprocess.run(["bash", "-ec", said.split("make a table of it: ")[1]], check=True, cwd=tmp_path)
        data = load_data(tmp_path / f"train.{'csv' if separator == ';' else 'tsv'}")
        assert len(data.train) + len(data.validation) == 8
