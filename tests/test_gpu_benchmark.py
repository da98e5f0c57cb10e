"""benchmarks/gpu: what it gathers, what becomes of parts that fail, and how its results are shown."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import re
import subprocess
import sys
import time
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
GPU = ROOT / "benchmarks" / "gpu"


def module(path: Path, name: str) -> ModuleType:
    """Import a script, which may have no ending and lies in no package."""
    loader = SourceFileLoader(name, str(path))
    spec = importlib.util.spec_from_loader(name, loader)
    assert spec is not None
    made = importlib.util.module_from_spec(spec)
    sys.modules[name] = made  # where dataclasses look for their types
    loader.exec_module(made)
    return made


@pytest.fixture
def parts(monkeypatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(GPU))
    return module(GPU / "parts.py", "parts")


@pytest.fixture
def report(parts, monkeypatch) -> ModuleType:
    return module(GPU / "report.py", "report")


# --- pack ----------------------------------------------------------------------------------------------------------


def test_what_is_gathered_needs_nothing_that_is_not_there() -> None:
    """Every dependency of a gathered package is gathered, or on the machine."""
    pack = module(GPU / "pack", "pack")
    lines = (GPU / "requirements.txt").read_text(encoding="utf-8").splitlines()
    gathered = [line for line in lines if line and not line.startswith("#")]
    there = {canonicalize_name(name) for name in (*gathered, *pack.MACHINE)}
    target = {"python_version": "3.12", "python_full_version": "3.12.3", "extra": ""}
    missing = {
        f"{name} needs {requirement.name}"
        for name in gathered
        for requirement in map(Requirement, importlib.metadata.requires(name) or [])
        if requirement.marker is None or requirement.marker.evaluate(target)
        if canonicalize_name(requirement.name) not in there
    }
    assert missing == set()


def test_all_that_ptune_needs_is_gathered_or_there() -> None:
    pack = module(GPU / "pack", "pack")
    there = {canonicalize_name(name) for name in (*(GPU / "requirements.txt").read_text().split(), *pack.MACHINE)}
    needed = {
        canonicalize_name(Requirement(line).name)
        for line in importlib.metadata.requires("ptune") or []
        if "extra" not in line
    }
    assert needed - there == {"datasets"}  # which only reads the Hub's data sets


def test_versions_of_what_is_gathered_are_those_tried_together() -> None:
    pinned = {
        canonicalize_name(line.split("==")[0])
        for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
        if "==" in line
    }
    lines = (GPU / "requirements.txt").read_text(encoding="utf-8").splitlines()
    assert {canonicalize_name(line) for line in lines if line and not line.startswith("#")} <= pinned


def test_wheels_that_are_too_large_to_travel_are_refused(monkeypatch, tmp_path) -> None:
    pack = module(GPU / "pack", "pack")

    def download(folder: Path, python_version: str) -> None:
        assert python_version == "3.12"
        with (folder / "large.whl").open("wb") as file:
            file.truncate(57 * 2**20)

    monkeypatch.setattr(pack, "download", download)
    monkeypatch.setattr(sys, "argv", ["pack", "--output", str(tmp_path / "wheels")])
    with pytest.raises(SystemExit, match=r"are 57\.0 MiB, but at most 56 MiB may travel; take packages out of"):
        pack.main()


def test_a_version_that_is_none_is_named(monkeypatch, tmp_path) -> None:
    pack = module(GPU / "pack", "pack")
    monkeypatch.setattr(sys, "argv", ["pack", "--python-version", "cp312", "--output", str(tmp_path / "wheels")])
    with pytest.raises(SystemExit, match=r"'cp312' is no version of Python; write it as 3\.12"):
        pack.main()


# --- run -----------------------------------------------------------------------------------------------------------


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_a_part_that_fails_or_hangs_costs_the_others_nothing(parts, report, tmp_path) -> None:
    made = [
        parts.Part("train-minilm", python("raise SystemExit('no such kernel')"), 20),
        parts.Part("predict", python("import time; print('still here', flush=True); time.sleep(60)"), 1),
        parts.Part("train-qwen2-1.5b", python("print('well')"), 20),
    ]
    (tmp_path / "gpu-train-qwen2-1.5b.json").write_text('{"facts": {"commit": ""}, "table": {"ptune deep": {}}}')
    parts.run_parts(made, {}, tmp_path, time.monotonic() + 30)
    content = report.save(tmp_path, made, {"seconds": 3}, "abc1234")
    (path,) = tmp_path.glob("gpu-2*.json")
    assert json.loads(path.read_text(encoding="utf-8")) == content
    assert content["facts"]["commit"] == "abc1234"
    failed, hung, done = (content["parts"][part.name] for part in made)
    assert failed["status"] == "failed with 1"
    assert failed["last_lines"] == "no such kernel"
    assert hung["status"].startswith("stopped after 1")
    assert hung["last_lines"] == "still here"
    assert done["status"] == "done"
    assert done["table"] == {"ptune deep": {}}
    assert "=== predict: stopped" in (tmp_path / "gpu.log").read_text(encoding="utf-8")


def test_a_part_is_ended_with_all_that_it_has_started(parts, tmp_path) -> None:
    child = f"import subprocess, sys; print(subprocess.Popen({python('import time; time.sleep(60)')}).pid, flush=True)"
    part = parts.Part("tests", python(f"{child}; import time; time.sleep(60)"), 2)
    parts.run_parts([part], {}, tmp_path, time.monotonic() + 30)
    number = int(part.log.read_text(encoding="utf-8"))
    status = Path(f"/proc/{number}/status")
    for _ in range(50):  # until the system has seen it off
        if not status.exists() or "State:\tZ" in status.read_text(encoding="utf-8"):
            return
        time.sleep(0.1)
    pytest.fail("the child of a stopped part still runs")


def test_nothing_starts_when_the_time_is_over(parts, tmp_path) -> None:
    part = parts.Part("predict", python("print(1)"), 20)
    parts.run_parts([part], {}, tmp_path, time.monotonic() - 1)
    assert part.status == "not run"


def test_tests_that_were_cut_off_have_told_so_much(report, tmp_path) -> None:
    lines = [
        {"test": "test_device.py::one", "outcome": "passed", "reason": ""},
        {"test": "test_device.py::two", "outcome": "failed", "reason": "assert 1 == 2"},
        {"test": "test_memory.py::three", "outcome": "skipped", "reason": "needs a GPU"},
    ]
    path = tmp_path / report.TESTS
    path.write_text("\n".join(map(json.dumps, lines)) + '\n{"test": "test_dev', encoding="utf-8")
    assert report.read_tests(path) == {
        "passed": 1,
        "failed": {"test_device.py::two": "assert 1 == 2"},
        "skipped": {"test_memory.py::three": "needs a GPU"},
    }


def test_the_tables_for_people_stay_short(report, capsys) -> None:
    """Whatever goes wrong: what is longer may be cut off where it is read."""
    figures = {
        "rows_per_second": 12345.6,
        "ratio": 12.34,
        "ratio_bfloat16": 12.34,
        "peak_share": 0.123,
        "peak_mb": 12345,
    }
    kernel = {"name": "k" * 90, "ms_per_step": 12.3456, "share": 0.123, "calls_per_step": 12.3}
    names = ["PEFT, guide", "PEFT, bfloat16", *(f"ptune {kind}" for kind in ("deep", "deep, masked", "deep, compiled"))]
    names += ["ptune p-tuning", "ptune p-tuning, compiled"]
    training = {
        "status": "done",
        "seconds": 100.0,
        "peak_tflops": 789.0,
        "copy_gb_per_second": 3000.0,
        "table": dict.fromkeys(names, figures),
        "profiles": {name: {"idle_share": 0.123, "kernels": [kernel] * 15} for name in names},
    }
    stopped = {"status": "stopped after 160 s", "seconds": 160.0, "last_lines": "\n".join(["x" * 200] * 15)}
    content = {
        "facts": {"gpu": "NVIDIA H100 80GB HBM3", "versions": {"torch": "2.11.0+cu130"}, "commit": ""},
        "seconds": 410,
        "tests": {"passed": 100, "failed": {f"test_{n}.py::{'t' * 90}": "e" * 500 for n in range(40)}, "skipped": {}},
        "parts": {f"train-{n}": training for n in range(3)} | {f"compile-{n}": stopped for n in range(6)},
    }
    report.print_report(content)
    out = capsys.readouterr().out
    assert 4000 < len(out) < 10_000
    assert "ptune deep, compiled" in out


def test_a_run_without_wheels_says_what_to_do_first(tmp_path) -> None:
    command = [
        sys.executable,
        str(GPU / "run"),
        "--device",
        "cpu",
        "--wheels",
        str(tmp_path),
        "--output",
        str(tmp_path),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "there are no wheels" in done.stderr
    assert "run benchmarks/gpu/pack first" in done.stderr


# --- profiles ------------------------------------------------------------------------------------------------------


def test_a_profile_counts_kernels_side_by_side_once_as_busy(parts) -> None:
    profiling = module(GPU / "profiling.py", "profiling")
    spans = [("gemm", 0.0, 400.0), ("copy", 300.0, 500.0), ("gemm", 800.0, 1000.0)]
    profile = profiling.summarise(spans, steps=2)
    assert profile["ms_per_step"] == 0.5
    assert profile["idle_share"] == 0.3
    assert profile["kernels_per_step"] == 2
    assert [kernel["name"] for kernel in profile["kernels"]] == ["gemm", "copy"]
    assert profile["kernels"][0] == {"name": "gemm", "ms_per_step": 0.3, "share": 0.75, "calls_per_step": 1.0}


# --- docs ----------------------------------------------------------------------------------------------------------


def made_up(gpu: str | None, day: str, short: bool = False) -> dict[str, object]:
    """A small result file."""
    figures = {"rows_per_second": 1234.5, "ratio": 5.25, "ratio_bfloat16": 2.5, "peak_share": 0.415, "peak_mb": 3210}
    versions = {"python": "3.12.3", "ptune": "0.1.0", "torch": "2.11.0", "transformers": "5.23.0", "peft": "0.21.2"}
    return {
        "facts": {"date": day, "versions": versions, "gpu": gpu},
        "options": {"device": "cuda", "short": short},
        "tests": {"passed": 201, "failed": {}, "skipped": {}},
        "parts": {
            "tests-device": {"status": "done", "seconds": 20.0},
            "train-roberta-large": {
                "status": "done",
                "model": "roberta-large",
                "peak_tflops": 787.6,
                "table": {"PEFT, guide": {"rows_per_second": 235.1, "ratio": 1.0}, "ptune deep, compiled": figures},
                "profiles": {"ptune deep, compiled": {"idle_share": 0.062}},
            },
            "train-minilm": {"status": "failed with 1", "last_lines": "CUDA error"},
            "predict": {
                "status": "done",
                "model": "roberta-large",
                "rows": 20_000,
                "table": {"ptune deep, 256 adapters": {"rows_per_second": 9000.4, "ratio": 8.1}},
            },
        },
    }


@pytest.fixture
def generate(tmp_path, monkeypatch) -> ModuleType:
    made = module(ROOT / "docs" / "generate.py", "generate")
    monkeypatch.setattr(made, "RESULTS", tmp_path)
    return made


def test_the_page_says_where_nothing_was_measured_on_a_gpu(generate, tmp_path) -> None:
    (tmp_path / "gpu-2026-11-25.json").write_text(json.dumps(made_up(None, "2026-11-25")), encoding="utf-8")
    (tmp_path / "gpu-2026-11-26.json").write_text(json.dumps(made_up("H100", "2026-11-26", short=True)), "utf-8")
    section = generate.gpu_section()
    assert section.startswith("## On a GPU\n")
    assert "Nothing has been measured yet." in section


def test_the_page_shows_the_newest_results_of_each_gpu(generate, tmp_path) -> None:
    for gpu, day in (("H200", "2026-11-24"), ("H100", "2026-11-25"), ("H100", "2026-12-01")):
        name = f"gpu-{gpu.lower()}-{day}.json" if gpu == "H200" else f"gpu-{day}.json"
        (tmp_path / name).write_text(json.dumps(made_up(gpu, day)), encoding="utf-8")
    section = generate.gpu_section()
    assert "Nothing has been measured" not in section
    assert re.findall(r"^### (.*)$", section, flags=re.M) == ["H100", "H200"]
    assert "torch 2.11.0, transformers 5.23.0, peft 0.21.2, 2026-12-01." in section
    assert "2026-11-25" not in section
    assert "201 pass and none fail" in section
    assert "Training, the shape of roberta-large; large bfloat16 products: 788 TFLOP/s:" in section
    assert "| ptune deep, compiled | 1,234 | 5.25 | 2.50 | 0.41 | 3,210 | 0.06 |" in section
    assert "| PEFT, guide | 235 | 1.00 |  |  |  |  |" in section
    assert "Prediction of 20,000 rows, the shape of roberta-large:" in section
    assert "| ptune deep, 256 adapters | 9,000 | 8.10 |" in section
