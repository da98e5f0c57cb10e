"""The page of an explanation, and a text with its words on green or red ground."""

from __future__ import annotations

from ptune.analysis.explain import Explanation
from ptune.pages.document import document, grid, panel, plain, table

_STYLE = """
:root { --speaks-for: 34 150 84; --speaks-against: 210 60 60; }
.text { line-height: 2; margin: 0; overflow-wrap: anywhere; white-space: pre-line; }
mark { color: inherit; border-radius: .2rem; padding: .1rem .15rem; }
.bar.for b { background: var(--good); }
.bar.against b { background: var(--bad-fill); margin-left: auto; }
"""
_METHODS = {
    "gradients": "Scores are integrated gradients at the word embeddings. They add up to the difference that the words "
    "make.",
    "leave-out": "A score is how much smaller the output is without the word.",
}


def explain_page(explanation: Explanation) -> str:
    """Return an explanation as a page."""
    prediction = explanation.prediction
    answer = f"{prediction['value']:.6g}" if "value" in prediction else f"{prediction['scores'][explanation.label]:.1%}"
    pair = len(explanation.texts) > 1
    texts = [
        panel(title if pair else "", "", f'<p class="text" dir="auto">{marked_text(explanation, part)}</p>')
        for part, title in zip(range(len(explanation.texts)), ("first text", "second text"), strict=False)
    ]
    notice = "The end of the text was not read: it is longer than the model reads."
    about = f"Words highlighted in green speak for {explanation.label}, words in red against it."
    panels = [panel("Words", _METHODS[explanation.method], _word_table(explanation))]
    if "scores" in prediction:
        panels.append(panel("Labels", "", _label_table(explanation)))
    return document(
        "explain",
        f"{explanation.label}: {answer}",
        about,
        [("text", "Texts" if pair else "Text", grid(*texts)), ("scores", "Scores", grid(*panels))],
        top=f'<p class="notice">{notice}</p>' if explanation.cut else "",
        style=_STYLE,
    )


def _word_table(explanation: Explanation) -> str:
    ranked = sorted(explanation.words, key=lambda word: -abs(word.score))
    most = max((abs(word.score) for word in ranked), default=0.0) or 1.0
    rows = []
    for word in ranked:
        kind = "for" if word.score >= 0 else "against"
        bar = f'<span class="bar {kind}"><b style="width:{100 * abs(word.score) / most:.0f}%"></b></span>'
        score = f"{word.score:+.4f}".replace("-", "−")
        rows.append([plain(word.text), f"{bar}{score}"])
    return table(["word", "score"], rows, scroll=True)


def _label_table(explanation: Explanation) -> str:
    scores = sorted(explanation.prediction["scores"].items(), key=lambda item: -item[1])
    rows = [
        [plain(name), f'<span class="bar"><b style="width:{100 * score:.0f}%"></b></span>{score:.2%}']
        for name, score in scores
    ]
    return table(["label", "probability"], rows, scroll=True)


def marked_text(explanation: Explanation, part: int = 0) -> str:
    """Return one of the texts as HTML, with each word on a ground that shows its score."""
    text, position, pieces = explanation.texts[part], 0, []
    most = max((abs(word.score) for word in explanation.words), default=0.0)
    for word in explanation.words:
        if word.part != part:
            continue
        strength = word.score / most if most else 0.0
        kind = "speaks-for" if strength > 0 else "speaks-against"
        pieces += [
            plain(text[position : word.start]),
            f'<mark style="background: rgb(var(--{kind}) / {0.7 * abs(strength):.2f})" title="{word.score:+.4f}">'
            f"{plain(word.text)}</mark>",
        ]
        position = word.end
    return "".join([*pieces, plain(text[position:])])
