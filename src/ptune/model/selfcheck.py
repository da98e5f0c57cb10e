"""Checks that prompts work on a loaded backbone: about a second, on two short rows.

    rows      a row's hidden states do not depend on the other rows of its batch
    prompt    another prompt gives another answer, and gradients reach it
    zero      a prompt with values of zero under a softmax of its own changes nothing

They are made for each way in which a prompt can enter. A backbone whose family
is in the table has passed them in the tests; any other passes them when it is
loaded, or is refused with what failed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from ptune.data.batch import Inputs
from ptune.model.backbone import Backbone
from ptune.model.entry import Entry
from ptune.model.observed import SAME, TOLERANCE, distance, probe_ids, unsuited

logger = logging.getLogger(__name__)

# How a prompt enters: not at all, or at one of the places of `Entry`.
Way = Literal["none", "input", "shared", "separate"]
NAMES: dict[Way, str] = {
    "none": "without a prompt",
    "input": "under a prompt at the input",
    "shared": "under a deep prompt and one softmax",
    "separate": "under a deep prompt with a softmax of its own",
}
P, SHORT = 3, 3  # virtual tokens; tokens of the shorter row


def accept(backbone: Backbone) -> Backbone:
    """Check a backbone whose family is not in the table, and leave out the ways of entry that do not work on it.

    Raises:
        BackboneError: prompts do not even work at its input; says what failed.
    """
    assert backbone.observed is not None
    reason = _first_failure(backbone)
    if reason:
        backbone.observed = replace(backbone.observed, blanks_padding=True)
        if _first_failure(backbone):
            raise unsuited(backbone.name, backbone.family.model_type, reason)
    _leave_out_deep(backbone)
    if backbone.family.decoder and backbone.family.shares:
        alone = _reads_alone(backbone)
        backbone.observed = replace(backbone.observed, reads_prompt_alone=alone)
    logger.info(
        "backbone '%s' is of type '%s', which is not in ptune's table of families; it was checked and works: %s",
        backbone.name,
        backbone.family.model_type,
        describe(backbone),
    )
    return backbone


def _first_failure(backbone: Backbone) -> str:
    return failure(backbone, "none") or failure(backbone, "input")


def describe(backbone: Backbone) -> str:
    """Say in a few words what an accepted backbone takes."""
    kind = "a decoder" if backbone.family.decoder else "an encoder"
    if backbone.family.deep is not None:
        return f"{kind}, with prompts at the input and in {backbone.layers} layers"
    reason = backbone.observed.no_deep if backbone.observed else ""
    return f"{kind}, with prompts at the input alone ({reason})"


def _leave_out_deep(backbone: Backbone) -> None:
    """Narrow the family to the ways of deep entry that pass."""
    assert backbone.observed is not None
    family = backbone.family
    shared = failure(backbone, "shared") if family.shares else ""
    separate = failure(backbone, "separate") if family.separates else ""
    if family.deep == "attention" and (shared or separate):
        family = replace(family, deep=None)
    elif family.deep == "hooks" and separate:
        family = replace(family, deep=None if shared or not family.cached else "cache", cached=False)
    elif shared:
        family = replace(family, deep="hooks" if family.deep == "hooks" else None, cached=False)
    if family.deep is None and backbone.family.deep is not None:
        backbone.observed = replace(backbone.observed, no_deep=separate or shared)
    backbone.family = family


def failure(backbone: Backbone, way: Way) -> str:
    """Return what is wrong with a backbone under prompts that enter in one way; empty where nothing is."""
    checks: list[Callable[[Backbone, Way], str]] = [check_rows]
    if way != "none":
        checks.append(check_prompt)
    if way == "separate":
        checks.append(check_zero)
    for check in checks:
        try:
            reason = check(backbone, way)
        except torch.OutOfMemoryError:
            raise
        except Exception as err:  # whatever it is in a model's code that does not take such inputs
            reason = f"it does not run ({(str(err).splitlines() or [type(err).__name__])[0]})"
        if reason:
            return f"{NAMES[way]}, {reason}"
    return ""


@torch.no_grad()
def check_rows(backbone: Backbone, way: Way) -> str:
    """Compare a row in a padded batch with the same row alone, and beside another row with other tokens as padding."""
    ids, mask = _batch(backbone)
    prompts = None if way == "none" else drawn_prompt(backbone, way, rows=2)
    own = None if prompts is None else prompts.narrow(-3, 1, 1)
    other = ids.flip(1)
    other[1, :SHORT] = ids[1, :SHORT]
    together = _states(backbone, ids, mask, prompts, way)[1, :SHORT]
    alone = _states(backbone, ids[1:, :SHORT], None, own, way)[0]
    beside = _states(backbone, other, mask, prompts, way)[1, :SHORT]
    tolerance = TOLERANCE.get(backbone.dtype, SAME)
    for found, allowed in ((distance(alone, together), tolerance), (distance(beside, together), min(tolerance, 0.05))):
        if not found <= allowed:
            return f"a row's answer depends on the other rows in its batch (by {found:.1e} of its size)"
    return ""


def check_prompt(backbone: Backbone, way: Way) -> str:
    """See that another prompt gives another answer, and that a finite gradient reaches it."""
    ids, mask = _batch(backbone)
    prompt = drawn_prompt(backbone, way)
    with torch.no_grad():
        before = _states(backbone, ids, mask, -prompt, way)[mask.bool()].float()
    with torch.enable_grad():
        prompt.requires_grad_()
        states = _states(backbone, ids, mask, prompt, way)[mask.bool()].float()
        if not distance(states.detach(), before) > SAME:
            return "the prompt does not change the answer"
        if not states.requires_grad:
            return "no gradient reaches the prompt"
        weights = torch.linspace(-1, 1, states.numel(), device=states.device).view_as(states)
        (slope,) = torch.autograd.grad((states * weights).sum(), [prompt], allow_unused=True)
    if slope is None or not slope.any():
        return "no gradient reaches the prompt"
    return "" if slope.isfinite().all() else "the prompt's gradient is not a finite number"


@torch.no_grad()
def check_zero(backbone: Backbone, way: Way) -> str:
    """Compare the answer under a prompt whose values are zero with the answer without one."""
    ids, mask = _batch(backbone)
    prompt = drawn_prompt(backbone, way)
    prompt[:, 1] = 0
    plain, found = (_states(backbone, ids, mask, own, way)[mask.bool()] for own in (None, prompt))
    return "" if distance(found, plain) <= SAME else "a prompt with values of zero changes the answer"


@torch.no_grad()
def _reads_alone(backbone: Backbone) -> bool:
    """Whether a prompt's keys and values, computed without the text, do what it does in front of the text.

    Layers with a window that is shorter than a text may be are not looked into: some of it would not see the prompt.
    """
    config = backbone.config.get_text_config()
    windows = [getattr(config, name, None) for name in ("sliding_window", "window_size", "local_attention")]
    longest = backbone.max_positions
    if any(isinstance(window, int) and 0 < window < (longest or window + 1) for window in windows):
        return False
    ids, mask = _batch(backbone)
    prompt = drawn_prompt(backbone, "input")
    expected = _states(backbone, ids, mask, prompt, "input")
    try:
        read = backbone.read_prompt(prompt)
        found = backbone(Inputs(ids, mask), read, Entry("shared", shift_text=True)).states
    except (RuntimeError, ValueError, TypeError, AttributeError):
        return False
    return distance(found[mask.bool()], expected[mask.bool()]) <= 10 * TOLERANCE.get(backbone.dtype, SAME)


def drawn_prompt(backbone: Backbone, way: Way, rows: int | None = None) -> Tensor:
    """A prompt, for each row its own if their number is given: at the input tokens' embeddings, else random numbers."""
    each = [] if rows is None else [rows]
    if way == "input":
        tokens = probe_ids(backbone.base, rows or 1, P).view(*each, P)
        return backbone.word_embeddings.weight.detach()[tokens].float()
    shape = (backbone.layers, 2, *each, P, backbone.kv_width)
    prompt = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    prompt[:, 1] *= 0.1  # values that do not drown the text, layer after layer
    return prompt.to(backbone.device)


def _batch(backbone: Backbone) -> tuple[Tensor, Tensor]:
    """Ids and mask [2, T] of a longer and a shorter row."""
    ids = probe_ids(backbone.base, rows=2)
    mask = torch.ones_like(ids)
    mask[1, SHORT:] = 0
    padding = getattr(backbone.config.get_text_config(), "pad_token_id", None)
    ids[1, SHORT:] = 0 if padding is None else padding
    return ids, mask


def _states(backbone: Backbone, ids: Tensor, mask: Tensor | None, prompt: Tensor | None, way: Way) -> Tensor:
    """Hidden states [.., T, H] of the text."""
    entry = None if way == "none" else Entry(way, shift_text=way == "shared")
    hidden = backbone(Inputs(ids, mask), prompt, entry)
    return hidden.states[:, hidden.offset :]
