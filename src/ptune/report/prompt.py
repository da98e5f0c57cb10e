"""What a prompt says: the words that its virtual tokens are near to, and what each of them is worth."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ptune.data.encode import Encoded
from ptune.data.targets import MULTI, REGRESSION, SINGLE
from ptune.inference.classifier import TextClassifier
from ptune.inference.engine import compute_logits
from ptune.model.classifier import PromptClassifier
from ptune.model.decision import Decision
from ptune.model.ensemble import members_of
from ptune.model.left_out import WithoutToken
from ptune.model.objective import Objective
from ptune.report.contents import PromptContent, VirtualToken

NEAREST = 5  # words for each virtual token
# Tokens are left out on so many rows at a time, of so many tokens at a time, until time or rows run out.
ROWS_AT_ONCE, TOKENS_AT_ONCE, MOST_ROWS = 16, 8, 128
# Tokens of the vocabulary that stand for nothing.
_UNUSED = re.compile(r"[\[<](unused|extra_id|reserved|pad|mask|madeupword).*", re.I)


def prompt_content(
    classifier: TextClassifier, encoded: Sequence[Encoded], targets: Tensor, seconds: float
) -> PromptContent | None:
    """Return what the prompt of a classifier says. Of an ensemble, it is the first member's.

    Args:
        classifier: the classifier.
        encoded: rows to measure on. MOST_ROWS of them are enough.
        targets: of these rows.
        seconds: time that may be spent on leaving tokens out; 0: none are left out.
    """
    member = members_of(classifier.model)[0]
    member.eval()
    nearest = nearest_words(member, classifier.encoder.tokenizer) if member.config.shallow else []
    tokens = member.config.virtual_tokens
    notes = ["It is the prompt of the ensemble's first member."] if member is not classifier.model else []
    worth, changed, rows = token_worth(classifier, member, encoded, targets, seconds)
    missed = not rows and seconds > 0 and tokens > 1 and bool(encoded)
    if not rows and not nearest and not missed:
        return None
    if missed:
        notes.append(
            f"What each token is worth could not be measured in {seconds:.1f} s; ptune report with more "
            "--prompt-seconds can."
        )
    content = [
        VirtualToken(
            number + 1,
            nearest[number] if nearest else [],
            worth[number] if rows else None,
            changed[number] if rows else None,
        )
        for number in range(tokens)
    ]
    return PromptContent(content, rows, " ".join(notes))


@torch.no_grad()
def nearest_words(model: PromptClassifier, tokenizer: object) -> list[list[tuple[str, float]]]:
    """Return for each virtual token at the input the NEAREST tokens of the vocabulary, with their cosines.

    Args:
        model: a classifier with a shallow prompt [P, E].
        tokenizer: the backbone's.
    """
    words = normalize(model.backbone.word_embeddings.weight.float(), dim=1)  # [V, E]
    prompt = normalize(model.prompt_encoder().float(), dim=1)
    cosines, places = (prompt @ words.T).topk(min(8 * NEAREST, len(words)), dim=1)
    special = set(tokenizer.all_special_ids)  # type: ignore[attr-defined]
    size = len(tokenizer)  # type: ignore[arg-type]  # matrices may have rows that no token has
    found = []
    for row, cosine in zip(places.tolist(), cosines.tolist(), strict=True):
        known = [(place, value) for place, value in zip(row, cosine, strict=True) if place < size]
        names = tokenizer.convert_ids_to_tokens([place for place, _ in known])  # type: ignore[attr-defined]
        named = [
            (tokenizer.decode([place]).strip() or name, value)  # type: ignore[attr-defined]
            for (place, value), name in zip(known, names, strict=True)
            if place not in special and not _UNUSED.fullmatch(str(name))
        ]
        found.append(named[:NEAREST])
    return found


def token_worth(
    classifier: TextClassifier, model: PromptClassifier, encoded: Sequence[Encoded], targets: Tensor, seconds: float
) -> tuple[list[float], list[float], int]:
    """Leave out each virtual token in turn, and see how much worse the answers are.

    Args:
        classifier: knows the padding and the temperature.
        model: the classifier itself, or a member of it, with P virtual tokens.
        encoded, targets: rows to measure on.
        seconds: time that this may take.

    Returns:
        [P], how much the mean loss grows (of a regression, the mean squared error); [P], the share of answers that
        change (of a regression, 0); and the number of rows, 0 if there was no time for the first of them.
    """
    tokens = model.config.virtual_tokens
    rows, started = 0, time.monotonic()
    losses = torch.zeros(tokens, dtype=torch.double)
    changes = torch.zeros(tokens, dtype=torch.double)
    for start in range(0, min(len(encoded), MOST_ROWS) if tokens > 1 and seconds > 0 else 0, ROWS_AT_ONCE):
        part = slice(start, min(start + ROWS_AT_ONCE, MOST_ROWS))
        measured = _worth_on(classifier, model, encoded[part], targets[part], started + seconds)
        if measured is None:
            break
        losses, changes, rows = losses + measured[0], changes + measured[1], rows + len(encoded[part])
    rows_or_one = max(rows, 1)
    return (losses / rows_or_one).tolist(), (changes / rows_or_one).tolist(), rows


def _worth_on(
    classifier: TextClassifier, model: PromptClassifier, encoded: Sequence[Encoded], targets: Tensor, deadline: float
) -> tuple[Tensor, Tensor] | None:
    """Return the sums over some rows, [P] each; None if the time is over before all tokens were left out."""
    count = len(encoded)
    (whole,) = compute_logits([model], encoded, [(row, 0) for row in range(count)], classifier.pad_id).logits
    losses, changes = [], []
    for first in range(0, model.config.virtual_tokens, TOKENS_AT_ONCE):
        if time.monotonic() > deadline:
            return None
        numbers = range(first, min(first + TOKENS_AT_ONCE, model.config.virtual_tokens))
        parts = [WithoutToken(model, number) for number in numbers]
        wanted = [(row, part) for row in range(count) for part in range(len(parts))]
        for logits in compute_logits(parts, encoded, wanted, classifier.pad_id).logits:
            losses.append(float(_losses(classifier, logits, targets) - _losses(classifier, whole, targets)))
            changes.append(_changes(classifier, logits, whole))
    return torch.tensor(losses, dtype=torch.double), torch.tensor(changes, dtype=torch.double)


def _losses(classifier: TextClassifier, logits: Tensor, targets: Tensor) -> Tensor:
    """Return the sum of the rows' losses."""
    problem_type = classifier.model.problem_type
    logits = logits.double() / (classifier.temperature if problem_type == SINGLE else 1.0)
    wanted = targets if problem_type == SINGLE else targets.double()
    return Objective(problem_type).row_losses(logits, wanted).sum()


def _changes(classifier: TextClassifier, logits: Tensor, whole: Tensor) -> float:
    """Return the number of rows whose answer changes."""
    problem_type, decision = classifier.model.problem_type, classifier.task.decision
    if problem_type == REGRESSION:
        return 0.0
    if problem_type == MULTI:
        return float(_differ(logits, whole, decision).sum())
    return float((logits.argmax(dim=1) != whole.argmax(dim=1)).sum())


def _differ(logits: Tensor, whole: Tensor, decision: Decision) -> Tensor:
    return (decision.applies(logits) != decision.applies(whole)).any(dim=1)
