"""Run the checks of rows."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence

from ptune.data.check import giveaways, labels, texts
from ptune.data.check.copies import conflicts, leaks, repeats, text_groups
from ptune.data.check.findings import KINDS, Finding
from ptune.data.check.language import languages
from ptune.data.check.near import near_copies
from ptune.data.check.rows import Rows
from ptune.errors import unknown_choice

# Each check with the kinds that it may find.
_CHECKS: tuple[tuple[tuple[str, ...], Callable[[Rows], Iterator[Finding]]], ...] = (
    (("missing", "unreadable"), texts.unusable),
    (("near_repeats", "near_leaks"), near_copies),
    (("label_spellings",), labels.spellings),
    (("one_label",), labels.one_label),
    (("unknown_labels", "rare_labels"), labels.few_rows),
    (("imbalance",), labels.imbalance),
    (("giveaways",), giveaways.columns),
    (("giveaways",), giveaways.order),
    (("giveaways",), giveaways.words),
    (("no_words",), texts.without_words),
    (("long_texts",), texts.long_texts),
    (("encoding",), texts.damaged),
    (("markup",), texts.with_markup),
    (("language",), languages),
)
_COPIES = {"repeats": repeats, "leaks": leaks, "conflicts": conflicts}
# Left out of the short form: what takes long, what may well be meant, and what reading the data warns of anyway.
NOT_IN_SHORT = frozenset(
    {"label_spellings", "near_repeats", "near_leaks", "imbalance", "rare_labels", "markup", "language"}
)


def check_rows(rows: Rows, ignore: Collection[str] = ()) -> list[Finding]:
    """Return what is wrong with rows, in the order of `KINDS`.

    Args:
        rows: all rows of a source.
        ignore: kinds of findings that are not looked for.

    Raises:
        ConfigError: there is no such kind.
    """
    check_kinds(ignore)
    wanted = KINDS.keys() - set(ignore)
    found: list[Finding] = []
    for kinds, check in _CHECKS:
        if wanted & set(kinds):
            found += check(rows)
    if wanted & _COPIES.keys():
        groups = text_groups(rows)
        for look in _COPIES.values():
            found += look(rows, groups)
    return in_order(finding for finding in found if finding.kind in wanted)


def in_order(findings: Iterator[Finding] | Sequence[Finding]) -> list[Finding]:
    """Return findings in the order of `KINDS`."""
    places = {kind: place for place, kind in enumerate(KINDS)}
    return sorted(findings, key=lambda finding: places[finding.kind])


def check_kinds(kinds: Collection[str]) -> None:
    """Check the names of kinds of findings.

    Raises:
        ConfigError: there is no such kind.
    """
    for kind in kinds:
        if kind not in KINDS:
            raise unknown_choice("ignore", kind, tuple(KINDS))
