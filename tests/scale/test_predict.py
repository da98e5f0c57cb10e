"""`ptune predict --scale ray`: the workers without a cluster, and the whole command on one."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow.dataset
import pyarrow.parquet as parquet
import pytest

import ptune
from ptune.atomic import write_files
from ptune.cli import main
from ptune.errors import ConfigError, DataError
from ptune.inference.classifier import load
from ptune.inference.tally import Tally
from ptune.places import as_place
from ptune.scale.predict import PredictJob, Predictor, _raise_error, _read
from ptune.scale.predict_files import Shards, list_files
from tests.conftest import review_rows, write_jsonl
from tests.scale.test_sweep import wait_for


@pytest.fixture(scope="module")
def adapter(tmp_path_factory, backbone, reviews) -> Path:
    """A trained adapter."""
    folder = tmp_path_factory.mktemp("adapter")
    data = ptune.load_data(reviews)
    model = ptune.PromptClassifier.for_data(backbone("bert"), data, ptune.PromptConfig(virtual_tokens=3))
    ptune.train(model, data, ptune.TrainConfig(epochs=1, objective="labels"), output=folder)
    return folder


def write_csv(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Rows with a number, a text, and a column that is also a key of the prediction."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["id", "text", "label"])
        writer.writeheader()
        writer.writerows({"id": number, **row} for number, row in enumerate(rows))
    return path


def job_of(adapter: Path, source: Path, output: Path, **settings: Any) -> PredictJob:
    return PredictJob(partial(load, adapter), list_files(str(source)), Shards(output), block_rows=8, **settings)


def run_blocks(job: PredictJob) -> list[Tally]:
    """What the cluster does, in this process."""
    worker, tallies = Predictor(job), []
    for number in range(len(job.files)):
        for batch in _read({"file": np.array([number])}, job):
            done = worker(batch)
            _raise_error(str(done["error"][0]))
            tallies.append(Tally.from_json(done["tally"][0]))
    return tallies


def rows_in(folder: Path) -> list[dict[str, Any]]:
    return pyarrow.dataset.dataset(sorted(folder.glob("*.parquet"))).to_table().to_pylist()


def locally(adapter: Path, source: Path, output: Path, *options: str) -> list[dict[str, Any]]:
    main(["predict", str(adapter), "--input", str(source), "--output", str(output), *options])
    return parquet.read_table(output).to_pylist()


def test_the_shards_hold_the_rows_of_the_local_command(adapter, tmp_path) -> None:
    source = write_csv(tmp_path / "new.csv", [*review_rows(19, seed=4), {"text": "", "label": "x"}])
    tallies = run_blocks(job_of(adapter, source, tmp_path / "out"))
    assert [path.name for path in sorted((tmp_path / "out").iterdir())] == [f"00000-00000{n}.parquet" for n in range(3)]
    assert [tally.rows for tally in tallies] == [8, 8, 4]
    expected, rows = locally(adapter, source, tmp_path / "one.parquet"), rows_in(tmp_path / "out")
    assert list(rows[0]) == ["id", "text", "input_label", "label", "score", "score_negative", "score_positive"]
    assert rows[19]["label"] is None
    assert [list(row.values())[:4] for row in rows] == [list(row.values())[:4] for row in expected]
    scores = [[row["score_positive"] for row in some[:19]] for some in (rows, expected)]
    np.testing.assert_allclose(*scores, atol=1e-5)


def test_input_and_output_may_be_in_an_object_store(adapter, tmp_path) -> None:
    store, text = as_place("memory://cluster"), "text\n" + "a fine film\n" * 10
    write_files(store / "in", {"new.csv": text.encode()})
    shards = Shards(store / "out")
    shards.begin({"adapter": "a"}, overwrite=False)
    run_blocks(PredictJob(partial(load, adapter), list_files("memory://cluster/in"), shards, block_rows=8))
    assert [place.name for place in shards.finished()] == ["00000-000000.parquet", "00000-000001.parquet"]
    tally = shards.tally()
    assert tally is not None
    assert tally.rows == 10
    with pytest.raises(ConfigError, match=r"other settings \(adapter\)"):
        shards.begin({"adapter": "b"}, overwrite=False)
    shards.begin({"adapter": "b"}, overwrite=True)
    assert shards.finished() == []


def test_columns_have_one_type_in_all_shards(adapter, tmp_path) -> None:
    """A column without values in a block has the type that it has at the beginning of the first file."""
    rows = [{"text": "a fine film", "stars": 3 if number < 8 else None} for number in range(20)]
    run_blocks(job_of(adapter, write_jsonl(tmp_path / "new.jsonl", rows), tmp_path / "out"))
    schemas = [parquet.read_schema(path).remove_metadata() for path in (tmp_path / "out").iterdir()]
    assert schemas[0].field("stars").type == pyarrow.int64()
    assert schemas[1:] == schemas[:1] * 2


def test_a_file_with_other_columns_is_an_error(adapter, tmp_path) -> None:
    (tmp_path / "in").mkdir()
    write_jsonl(tmp_path / "in" / "a.jsonl", [{"text": "a film"}])
    write_jsonl(tmp_path / "in" / "b.jsonl", [{"text": "a film", "more": "x"}])
    with pytest.raises(DataError, match="row 1 has column 'more'"):
        run_blocks(job_of(adapter, tmp_path / "in", tmp_path / "out"))


def test_an_error_names_the_row_in_its_file(adapter, tmp_path) -> None:
    rows = [{"text": "a film"}] * 10 + [{"text": ["no", "text"]}]
    job = job_of(adapter, write_jsonl(tmp_path / "new.jsonl", rows), tmp_path / "out")
    with pytest.raises(DataError, match=r"new\.jsonl', row 11"):
        run_blocks(job)


def test_a_file_without_rows_gives_a_shard_without_rows(adapter, tmp_path) -> None:
    run_blocks(job_of(adapter, write_csv(tmp_path / "new.csv", []), tmp_path / "out"))
    (shard,) = (tmp_path / "out").iterdir()
    table = parquet.read_table(shard)
    assert table.num_rows == 0
    assert "score_positive" in table.column_names


def test_finished_shards_are_left_alone_and_counted(adapter, tmp_path) -> None:
    source = write_csv(tmp_path / "new.csv", review_rows(20, seed=4))
    run_blocks(job_of(adapter, source, tmp_path / "out"))
    shards = Shards(tmp_path / "out")
    times = {path.name: path.stat().st_mtime_ns for path in shards.finished()}
    shards.path(0, 1).unlink()
    finished = frozenset(path.name for path in shards.finished())
    (again,) = run_blocks(job_of(adapter, source, tmp_path / "out", finished=finished))
    assert again.rows == 8
    assert {name: shards.folder.joinpath(name).stat().st_mtime_ns for name in finished} == {
        name: times[name] for name in finished
    }
    tally = shards.tally()
    assert tally is not None
    assert tally.rows == 20
    assert [row["id"] for row in rows_in(tmp_path / "out")] == [str(number) for number in range(20)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--text", "a film"), "--scale ray predicts files: give --input and --output"),
        (("--input", "-", "--output", "out"), "give --input a file or a folder"),
        (("--input", "{new}", "--output", "out.csv"), "a folder of Parquet files"),
        (("--input", "{full}", "--output", "{full}/out"), "is inside the input"),
        (("--input", "{new}", "--output", "{full}"), "should be a new or empty folder"),
    ],
)
def test_what_a_cluster_cannot_predict_is_refused_before_it_starts(adapter, tmp_path, capsys, options, message) -> None:
    new = write_csv(tmp_path / "new.csv", review_rows(2))
    options = [option.format(new=new, full=tmp_path) for option in options]
    with pytest.raises(SystemExit) as stopped:
        main(["predict", str(adapter), "--scale", "ray", *options])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_options_of_a_cluster_need_one(adapter, capsys) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["predict", str(adapter), "--text", "a film", "--workers", "2"])
    assert stopped.value.code == 2
    assert "are for --scale ray" in capsys.readouterr().err


def command(adapter: Path, source: Path, output: Path) -> list[str]:
    places = [str(adapter), "--input", str(source), "--output", str(output)]
    return [sys.executable, "-m", "ptune", "predict", *places, "--scale", "ray", "--workers", "2", "--json"]


@pytest.mark.long
def test_every_row_is_predicted_once_though_a_worker_and_then_the_driver_are_killed(adapter, tmp_path) -> None:
    (tmp_path / "in").mkdir()
    rows = review_rows(60_000, seed=4)
    for number in range(2):
        write_csv(tmp_path / "in" / f"{number}.csv", rows[30_000 * number : 30_000 * (number + 1)])
    shards, arguments = Shards(tmp_path / "out"), command(adapter, tmp_path / "in", tmp_path / "out")
    with subprocess.Popen(arguments, stdout=subprocess.DEVNULL) as first:
        wait_for(first, lambda: len(shards.finished()) >= 1)
        workers_of(first.pid)[0].kill()
        wait_for(first, lambda: len(shards.finished()) >= 3)
        first.kill()
    assert len(shards.finished()) < 8
    done = subprocess.run(arguments, check=True, capture_output=True, text=True)
    assert json.loads(done.stdout.splitlines()[-1])["rows"] == 60_000
    found = rows_in(tmp_path / "out")
    assert [row["id"] for row in found] == [str(number % 30_000) for number in range(60_000)]
    assert [row["text"] for row in found] == [row["text"] for row in rows]


@pytest.mark.long
def test_an_error_in_a_worker_is_one_line(adapter, tmp_path) -> None:
    source = write_jsonl(tmp_path / "new.jsonl", [{"text": "a film"}] * 3 + [{"text": ["no", "text"]}])
    done = subprocess.run(command(adapter, source, tmp_path / "out"), capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "new.jsonl', row 4" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def workers_of(driver: int) -> list[psutil.Process]:
    """The processes that predict."""
    return [
        process
        for process in psutil.Process(driver).children(recursive=True)
        if "Predictor" in " ".join([process.name(), *process.cmdline()])
    ]
