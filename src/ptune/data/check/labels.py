"""The labels: spelled in two ways, with few rows, unknown to training, or unequal in number."""

from __future__ import annotations

import difflib
from collections import Counter, defaultdict
from collections.abc import Iterator

from ptune.data.check.findings import Finding
from ptune.data.check.rows import Row, Rows
from ptune.data.label_names import fold_label
from ptune.data.targets import REGRESSION, SINGLE, same_label

FEW = 10  # training rows of a label below which it is hard to learn
UNEQUAL = 20  # the most frequent label has at least so many times the rows of the rarest one
_SHORTEST_TYPO = 4  # characters of a name in which one wrong character is taken for a typing error
_TYPO_SHARE = 0.1  # rows of the wrong spelling, compared with those of the right one
_LISTED = 10  # labels that a message names


def label_counts(rows: Rows) -> Counter[str]:
    """Return how many training rows have each label."""
    return Counter(label for row in rows.labelled if row.split == "train" for label in row.labels)


def spellings(rows: Rows) -> Iterator[Finding]:
    """Find labels that differ only in letter case, blanks, dashes or accents' encoding, or look like a typing error."""
    if rows.problem_type == REGRESSION or rows.named:
        return
    counts = Counter(label for row in rows.labelled for label in row.labels)
    same, typos = same_names(counts), typing_errors(counts)
    right = {**same, **typos}
    if right:
        pairs = ", ".join(
            f"'{wrong}' ({counts[wrong]:,}) and '{name}' ({counts[name]:,})"
            for wrong, name in list(right.items())[:_LISTED]
        )
        more = f" and {len(right) - _LISTED} more" if len(right) > _LISTED else ""
        yield Finding(
            "label_spellings",
            f"labels that look like the same label, with their rows: {pairs}{more}",
            "use one spelling",
            [row for row in rows.labelled if any(label in right for label in row.labels)],
            details={
                "same": same,
                "typing_errors": typos,
                "repairable": sum(any(label in same for label in row.labels) for row in rows.labelled),
            },
        )


def same_names(counts: Counter[str]) -> dict[str, str]:
    """Return for each label the most frequent label of which it is another spelling, without those that are."""
    alike: dict[str, list[str]] = defaultdict(list)
    for name in counts:
        alike[fold_label(name)].append(name)
    same: dict[str, str] = {}
    for names in alike.values():
        best = max(names, key=lambda name: (counts[name], name))
        same |= {name: best for name in names if same_label(name) != same_label(best)}
    return same


def typing_errors(counts: Counter[str]) -> dict[str, str]:
    """Return rare labels that differ in one or two characters from a frequent one, with that one."""
    errors = {}
    frequent = [name for name, count in counts.most_common() if count >= 1 / _TYPO_SHARE]
    for name, count in counts.items():
        if len(name) < _SHORTEST_TYPO or any(map(str.isdigit, name)):
            continue
        near = [other for other in frequent if other != name and count <= _TYPO_SHARE * counts[other]]
        near = [other for other in near if fold_label(other) != fold_label(name) and not any(map(str.isdigit, other))]
        match = difflib.get_close_matches(fold_label(name), [fold_label(other) for other in near], 1, cutoff=0.8)
        if match:
            other = next(other for other in near if fold_label(other) == match[0])
            if abs(len(other) - len(name)) <= 1 and _edits(fold_label(name), match[0]) <= 1 + (len(name) >= 10):
                errors[name] = other
    return errors


def one_label(rows: Rows) -> Iterator[Finding]:
    """Find that all training rows have the same label."""
    counts = label_counts(rows)
    if rows.problem_type == SINGLE and len(counts) == 1:
        (label,) = counts
        yield Finding(
            "one_label",
            f"all training rows have the label '{label}'; a classifier needs at least two",
            "add rows with other labels, or name another column with `label`",
            details={"label": label},
        )


def few_rows(rows: Rows) -> Iterator[Finding]:
    """Find labels with few training rows, and labels of other splits that no training row has."""
    if rows.problem_type == REGRESSION:
        return
    counts = label_counts(rows)
    unknown: dict[str, list[Row]] = defaultdict(list)
    for row in rows.labelled:
        for label in row.labels:
            if counts and label not in counts:
                unknown[label].append(row)
    if unknown:
        shown = _shown({label: len(having) for label, having in unknown.items()})
        yield Finding(
            "unknown_labels",
            f"labels that no training row has: {shown}",
            "correct them, or give training rows with these labels",
            [row for having in unknown.values() for row in having],
            details={"labels": {label: len(having) for label, having in unknown.items()}},
        )
    rare = {label: count for label, count in sorted(counts.items(), key=lambda item: item[1]) if count < FEW}
    if rare:
        yield Finding(
            "rare_labels",
            f"labels with fewer than {FEW} training rows: {_shown(rare)}",
            "label more rows, join labels, or leave them out in training with `drop_rare`",
            [row for row in rows.labelled if row.split == "train" and any(label in rare for label in row.labels)],
            details={"labels": rare},
        )


def imbalance(rows: Rows) -> Iterator[Finding]:
    """Find that some labels have many times as many training rows as others."""
    counts = label_counts(rows)
    if rows.problem_type == REGRESSION or len(counts) < 2:
        return
    ranked = counts.most_common()
    (most, rows_of_most), (least, rows_of_least) = ranked[0], ranked[-1]
    if rows_of_most >= UNEQUAL * rows_of_least:
        share = rows_of_most / sum(row.split == "train" for row in rows.labelled)
        yield Finding(
            "imbalance",
            f"label '{most}' has {rows_of_most:,} training rows ({share:.0%}) and '{least}' {rows_of_least:,}",
            "check the F1 of each label, not only the accuracy",
            details={"rows": dict(ranked)},
        )


def _shown(counts: dict[str, int]) -> str:
    listed = [f"{label} ({count:,})" for label, count in list(counts.items())[:_LISTED]]
    more = len(counts) - len(listed)
    return ", ".join(listed) + (f" and {more:,} more" if more else "")


def _edits(one: str, other: str) -> int:
    """Return how many characters have to be inserted, removed or replaced to make one text of another."""
    row = list(range(len(other) + 1))
    for i, first in enumerate(one, 1):
        before, row[0] = row[0], i
        for j, second in enumerate(other, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (first != second))
    return row[-1]
