"""The page of an explanation, and a text with its words on green or red ground."""

from __future__ import annotations

from ptune.analysis.explain import Explanation
from ptune.pages.document import document, heading, paragraph, plain, table

_METHODS = {
    "gradients": "Scores are integrated gradients at the word embeddings. They add up to the difference that the words "
    "make.",
    "leave-out": "A score is how much smaller the output is without the word.",
}


def explain_page(explanation: Explanation) -> str:
    """Return an explanation as a page."""
    prediction = explanation.prediction
    answer = f"{prediction['value']:.6g}" if "value" in prediction else f"{prediction['scores'][explanation.label]:.1%}"
    body = [f'<p class="text">{marked_text(explanation, part)}</p>' for part in range(len(explanation.texts))]
    body.append(
        paragraph("Green words speak for the label, red ones against it. " + _METHODS[explanation.method], "note")
    )
    if explanation.cut:
        body.append(paragraph("The end of the text was not read: it is longer than the model reads.", "wrong"))
    ranked = sorted(explanation.words, key=lambda word: -abs(word.score))
    body += [heading("Words"), table([("word", "score"), *((word.text, f"{word.score:+.4f}") for word in ranked)])]
    if "scores" in prediction:
        scores = sorted(prediction["scores"].items(), key=lambda item: -item[1])[:20]
        body += [heading("Labels"), table([("label", "probability"), *((name, f"{p:.2%}") for name, p in scores)])]
    return document(f"{explanation.label}: {answer}", body)


def marked_text(explanation: Explanation, part: int = 0) -> str:
    """Return one of the texts as HTML, with each word on a ground that shows its score."""
    text, position, pieces = explanation.texts[part], 0, []
    most = max((abs(word.score) for word in explanation.words), default=0.0)
    for word in explanation.words:
        if word.part != part:
            continue
        strength = word.score / most if most else 0.0
        colour = "good" if strength > 0 else "bad"
        pieces += [
            plain(text[position : word.start]),
            f'<mark style="background: rgb(var(--{colour}) / {0.7 * abs(strength):.2f})" title="{word.score:+.4f}">'
            f"{plain(word.text)}</mark>",
        ]
        position = word.end
    return "".join([*pieces, plain(text[position:])])
