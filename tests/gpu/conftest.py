"""Where the tests of GPUs run: `pytest tests/gpu --device cuda`. A CPU runs them too, as far as it can."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ptune.data.batch import Inputs
from ptune.model.backbone import Backbone
from ptune.model.classifier import PromptClassifier
from ptune.model.config import PromptConfig
from ptune.model.families import FAMILIES
from ptune.model.loading import load_backbone
from ptune.model.mixed import start_logits
from tests.conftest import once

IDS = torch.tensor([[2, 5, 6, 7, 8, 3], [2, 9, 10, 3, 0, 0], [2, 4, 3, 0, 0, 0]])
MASK = (IDS > 0).long()
LABELS = ["a", "b", "c", "d"]
# All families with each way in which a prompt enters them: by keys and values, and in front of the text.
CASES = [
    (name, method)
    for name, family in FAMILIES.items()
    for method in ("deep", "prompt-tuning")
    if method != "deep" or family.deep is not None
]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--device", default="auto", help="where the tests of GPUs run: auto, cpu, cuda")
    parser.addoption("--report", help="a file to which a line of JSON is added after each test")


def pytest_configure(config: pytest.Config) -> None:
    if path := config.getoption("--report", default=None):
        config.pluginmanager.register(Report(Path(path)))


class Report:
    """Writes how each test went as soon as it has, so that a run that is cut off has told so much."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when != "call" and report.passed:
            return
        crash = getattr(report.longrepr, "reprcrash", None)
        reason = crash.message if crash else report.longrepr[2] if isinstance(report.longrepr, tuple) else ""
        line = {
            "test": report.nodeid.removeprefix("tests/gpu/"),
            "outcome": report.outcome,
            "seconds": round(report.duration, 2),
            "reason": reason[:500],
        }
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


@pytest.fixture(scope="session")
def device(request: pytest.FixtureRequest) -> torch.device:
    """Give the device to test on; skip where a GPU is asked for and there is none."""
    name = request.config.getoption("--device", default="auto")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        pytest.skip("there is no GPU here that torch can use")
    return torch.device("cuda", torch.cuda.current_device()) if name == "cuda" else torch.device(name)


@pytest.fixture
def gpu(device: torch.device) -> torch.device:
    """Give the GPU; skip on a CPU."""
    if device.type != "cuda":
        pytest.skip("needs an NVIDIA GPU: the CPU has none of this")
    return device


@pytest.fixture(scope="session")
def load(backbone_folder: Callable[..., Path], device: torch.device) -> Callable[..., Backbone]:
    """Load, once a session, a tiny backbone onto the device, in float32 or the given number type."""

    def make(family: str, dtype: str = "float32", **extra: object) -> Backbone:
        return load_backbone(str(backbone_folder(family, **extra)), dtype=dtype, device=str(device))

    return once(make)


def classifier(backbone: Backbone, method: str = "deep", **settings: object) -> PromptClassifier:
    """Make a classifier with weights far from zero, the same on every device and in every number type."""
    options = {"virtual_tokens": 3, "encoder_hidden_size": 8, "token_dropout": 0, **settings}
    model = PromptClassifier(backbone, PromptConfig(method=method, **options), LABELS, seed=1)  # type: ignore[arg-type]
    draw = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for tensor in model.trainable_state().values():
            tensor.copy_(torch.randn(tensor.shape, generator=draw) * 0.3)
    return model.eval()


def answer(
    model: PromptClassifier, ids: torch.Tensor, mask: torch.Tensor | None, forward: Callable[..., object] | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return logits [B, C] of a batch and the gradient of all that is trained, end to end, both on the CPU."""
    model.zero_grad()
    device = model.backbone.device
    inputs = Inputs(ids, mask).to(device)
    logits = start_logits([model], [model.prompt()], [0] * len(ids), inputs, forward).result()[0]  # type: ignore[arg-type]
    logits.square().sum().backward()
    slopes = [parameter.grad.flatten() for parameter in model.parameters() if parameter.grad is not None]
    return logits.detach().cpu(), torch.cat(slopes).cpu()


# How far apart two answers of a tiny model may be for bfloat16's rounding, of up to 0.4 % a number: logits, gradients.
# On a CPU it comes to 0.06 and 0.14 at most. What is computed wrongly is off by about 1.
ROUNDING = (0.12, 0.3)


def distance(value: torch.Tensor, truth: torch.Tensor) -> float:
    """Return |value - truth| / |truth|."""
    return float((value - truth).norm() / truth.norm())
