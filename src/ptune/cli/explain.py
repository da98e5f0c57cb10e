"""ptune explain"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, Literal

from ptune.cli.options import Adapter, Device, DeviceOptions, Json, Labels, Place, ProblemOfPeft, Target
from ptune.cli.peft_task import read_with_task
from ptune.cli.spelling import spell
from ptune.cli.terminal import Terminal, one_line
from ptune.data.targets import REGRESSION
from ptune.errors import ConfigError

if TYPE_CHECKING:
    from ptune.analysis.explain import ExplainedWord, Explanation

_LISTED = 8  # words with their scores


def explain(
    adapter: Adapter,
    /,
    *,
    text: str,
    text_pair: str | None = None,
    label: str | None = None,
    method: Literal["gradients", "leave-out"] = "gradients",
    html: Target | None = None,
    backbone: Place | None = None,
    labels: Labels = None,
    problem_type: ProblemOfPeft = None,
    json: Json = False,
    device: Device = None,
) -> None:
    """Show which words of a text moved the decision.

    Green words speak for the label, red ones against it. The scores are parts of the label's log-odds, or of the
    number of a regression.

    Two methods: gradients (integrated gradients at the word embeddings; the scores add up to the difference that the
    words make) and leave-out (the text is classified again without each of its words).

    Examples:
      ptune explain reviews --text "What a film."
      ptune explain reviews --text "What a film." --label negative --method leave-out
      ptune explain mrpc --text "He left." --text-pair "He went away." --html why.html
      ptune explain reviews --text "What a film." --json

    Parameters
    ----------
    text
        The text to classify.
    text_pair
        The second text, if the adapter was trained on pairs.
    label
        The label to explain. Default: the predicted one.
    method
        How the scores of words are computed.
    html
        File for the explanation as a page.
    backbone
        The backbone. Default: the one recorded in the adapter.
    """
    from ptune.analysis.explain import explain
    from ptune.inference.classifier import load

    terminal = Terminal(json)
    for option, value in (("--text", text), ("--text-pair", text_pair)):
        if value is not None and not value.strip():
            raise ConfigError(f"{option} is empty; give the text to classify")
    if html is not None:
        from ptune.pages.writing import check_page

        check_page(html)
    file = read_with_task(adapter, backbone, labels, problem_type)
    classifier = load(file, backbone, **(device or DeviceOptions()).model_dump())
    try:
        found = explain(classifier, text if text_pair is None else (text, text_pair), label=label, method=method)
    except ConfigError as err:
        raise ConfigError(spell(str(err), ("label", "method")), field=err.field, value=err.value) from err
    _print(terminal, found, classifier.model.problem_type == REGRESSION)
    answer: dict[str, Any] = found.to_dict()
    if html is not None:
        from ptune.pages.explain import explain_page
        from ptune.pages.writing import write_page

        write_page(html, explain_page(found))
        terminal.say(f"page: {html}")
        answer["html"] = str(html)
    terminal.answer(answer)


def _print(terminal: Terminal, found: Explanation, is_number: bool) -> None:
    if is_number:
        terminal.say(f"{found.label}  {found.prediction['value']:.6g}")
    else:
        terminal.say(f"{found.label}  {found.prediction['scores'][found.label]:.4f}")
    colours = not terminal.as_json and sys.stdout.isatty() and "NO_COLOR" not in os.environ
    if colours:
        for part, text in enumerate(found.texts):
            words = [word for word in found.words if word.part == part]
            print(f"  {_coloured(text, words, max(abs(word.score) for word in found.words or ()))}")
    ranked = sorted(found.words, key=lambda word: -abs(word.score))
    terminal.table([(word.text, f"{word.score:+.3f}") for word in ranked[:_LISTED]] or [("no words", "")])
    if len(ranked) > _LISTED:
        terminal.say(f"  and {len(ranked) - _LISTED} more words with smaller scores")
    if found.cut:
        terminal.say("the end of the text was not read: it is longer than the model reads")


def _coloured(text: str, words: list[ExplainedWord], most: float) -> str:
    """Return a text for a terminal, with words on green or red ground, the stronger the more they count."""
    parts, position = [], 0
    for word in words:
        strength = word.score / most if most else 0.0
        parts.append(one_line(text[position : word.start]))
        shown = one_line(text[word.start : word.end])
        level = round(4 * abs(strength))
        if level:
            ground = (22, 28, 34, 40)[level - 1] if strength > 0 else (52, 88, 124, 160)[level - 1]
            shown = f"\x1b[48;5;{ground};38;5;231m{shown}\x1b[0m"
        parts.append(shown)
        position = word.end
    return "".join([*parts, one_line(text[position:])])
