"""The sections of a report's page: panels with pictures, tables and texts, as HTML."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ptune.data.targets import MULTI, REGRESSION
from ptune.errors import cut
from ptune.pages.document import grid, panel, plain, row_list, table
from ptune.report import charts, confusion
from ptune.report.contents import Covered, LabelScores, PromptContent, Report, ShownRow

MOST_LABELS = 300  # rows of the table of labels
LONGEST_LABEL = 80  # characters
SHARES = (0.5, 0.7, 0.8, 0.9, 1.0)  # of the rows, in the table of coverage


def training(report: Report) -> str:
    """Return the curves of the training; empty if they are not known."""
    if not report.history:
        return ""
    kept = " The dashed line is the epoch that was kept." if report.best_epoch is not None else ""
    return grid(
        panel(
            "Loss",
            "Both should fall. If the loss of validation rises while that of training falls, the model learns rows by "
            f"heart.{kept}",
            charts.loss_curves(report),
        ),
        panel(
            f"{charts.metric_title(report)} on the validation rows",
            "A curve that still rises at its end asks for more epochs.",
            charts.metric_curve(report),
        ),
    )


def errors(report: Report) -> str:
    """Return what is confused with what, or the errors of a regression."""
    panels = []
    if report.numbers is not None:
        panels = [
            panel("Predicted and true", "Every dot is a row. On the dashed line the prediction is exact.",
                   charts.scatter(report.numbers)),
            panel("Errors", "Errors should be spread evenly around 0.", charts.error_histogram(report.numbers)),
        ]  # fmt: skip
    if report.matrix is not None:
        count = len(report.labels)
        if count <= confusion.LARGEST_MATRIX:
            how = "Rows are the true labels, columns the predicted ones. Blue is right, red is wrong, and darker is a "
            how += "larger share of the row."
            how += (
                ""
                if count <= confusion.NAMED
                else " Point at a cell to see its labels; they are in the order of the data."
            )
            matrix = confusion.confusion_matrix(report.labels, report.matrix)
            kind = "matrix small" if count <= confusion.NUMBERED else "matrix"
            panels.append(panel("Confusion matrix", how, f'<div class="{kind}">{matrix}</div>'))
    if report.pairs:
        several = report.problem_type == MULTI
        how = "The label in the first column is missing, and the second was given." if several else ""
        how = how or "The rows that have the first label and were given the second, and their share of the first."
        rows = [
            [_label(pair.truth), _label(pair.predicted), str(pair.rows), f"{pair.share:.0%}"] for pair in report.pairs
        ]
        body = table(["true", "predicted", "rows", "share"], rows, left=(0, 1))
        panels.append(panel("Most confused", how, body))
    elif report.problem_type != REGRESSION:
        panels.append(panel("Most confused", "No label was taken for another one.", ""))
    return grid(*panels)


def labels(report: Report) -> str:
    """Return precision, recall and F1 of each label; empty for a regression."""
    if not report.by_label:
        return ""
    scores = report.by_label
    how = "Precision: the share of right answers among those with this label. Recall: the share of its rows that were "
    how += "found. Click a column to sort by it."
    by_score = len(scores) > confusion.NUMBERED  # with few labels the order of the data is easier to read
    if len(scores) > MOST_LABELS:
        how += f" These are the {MOST_LABELS} of {len(scores):,} labels with the lowest F1."
    if by_score:
        scores = sorted(scores, key=lambda one: (one.f1, -one.support))[:MOST_LABELS]
    several = scores[0].threshold is not None
    heads = ["label", "precision", "recall", "F1", "rows", *(["threshold"] if several else [])]
    rows = "".join(_scores(one) for one in scores)
    order = ' aria-sort="ascending"' if by_score else ""
    head = "".join(f'<th scope="col"{order if name == "F1" else ""}>{plain(name)}</th>' for name in heads)
    content = f'<table class="sorted"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'
    body = f'<div class="scroll long" tabindex="0">{content}</div>'
    return panel("Precision, recall and F1", how, body)


def _scores(one: LabelScores) -> str:
    bar = f'<span class="bar"><b style="width:{100 * one.f1:.0f}%"></b></span>'
    cells = [f"<td>{_label(one.label)}</td>", f"<td>{one.precision:.3f}</td>", f"<td>{one.recall:.3f}</td>"]
    cells += [f'<td data-value="{one.f1:.6f}">{bar}{one.f1:.3f}</td>']
    cells += [f'<td data-value="{one.support}">{one.support:,}</td>']
    if one.threshold is not None:
        cells.append(f"<td>{one.threshold:.3f}</td>")
    return f"<tr>{''.join(cells)}</tr>"


def trust(report: Report) -> str:
    """Return reliability and coverage; empty for a regression."""
    calibration = report.calibration
    if calibration is None or not report.coverage:
        return ""
    several = report.problem_type == MULTI
    how = (
        "On the dashed line, answers with 80% confidence are right in 80 of 100 cases. Below it the model is too sure, "
    )
    how += "above it not sure enough. Larger dots have more answers; the line leaves out dots of fewer than 5."
    if several:
        how = how.replace("answers with 80% confidence are right in", "labels with a probability of 80% are there in")
        how = how.replace("more answers", "more probabilities")
    elif calibration.temperature == 1:
        how += " No temperature was fitted."
    else:
        how += f" Dividing the logits by a temperature of {calibration.temperature:.3f} moved the error from "
        how += f"{calibration.error_before:.3f} to {calibration.error_after:.3f}."
    right = "rows with all labels right" if several else "accuracy"
    return grid(
        panel("Reliability", how, charts.reliability(calibration, several)),
        panel(
            "Coverage and accuracy",
            "If the model answers only the rows it is most certain of, and people the rest: what is gained. The dashed "
            "line is the accuracy on all rows.",
            charts.coverage(report.coverage, right) + _coverage_table(report.coverage),
        ),
    )


def _coverage_table(points: Sequence[Covered]) -> str:
    rows = []
    for share in SHARES:
        point = max((one for one in points if one.share <= share + 0.005), key=lambda one: one.share, default=None)
        if point is not None:
            row = [f"{point.share:.0%}", f"{point.certainty:.3f}", f"{point.accuracy:.1%}"]
            if row not in rows:
                rows.append(row)
    return table(["rows answered", "certainty from", "right"], rows)


def telling_rows(report: Report) -> str:
    """Return mistakes and uncertain rows with their texts."""
    number = report.problem_type == REGRESSION
    first = "Largest errors" if number else "Most confident mistakes"
    how = "Rows far from their number: look for wrong numbers first." if number else (
        "Wrong answers with the highest probability. Some may have a wrong label."
    )  # fmt: skip
    panels = [panel(first, how, _listed(report.mistakes, number)) if report.mistakes else panel(first, "None.", "")]
    if report.uncertain:
        how = "The closest calls, right or wrong. Rows like these are worth labelling next."
        panels.append(panel("Least certain rows", how, _listed(report.uncertain, False)))
    return grid(*panels)


def _listed(rows: Sequence[ShownRow], number: bool) -> str:
    return row_list([_row(row, number) for row in rows])


def _row(row: ShownRow, number: bool) -> tuple[str, str, tuple[str, ...]]:
    value = f"error {row.certainty:.4g}" if number else f"{row.certainty:.1%}"
    said = f'<span>true <b>{_label(row.truth)}</b></span><span class="wrong">said <b>{_label(row.answer)}</b></span>'
    if row.truth == row.answer:
        said = f'<span class="right">rightly <b>{_label(row.answer)}</b></span>'
    return said, f"row {row.row:,} · {value}", row.texts


def lengths(report: Report) -> list[str]:
    """Return the lengths of the texts, as panels."""
    found = report.lengths
    if found is None or not found.lengths:
        return []
    ordered = sorted(found.lengths)
    middle, high = ordered[len(ordered) // 2], ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))]
    how = f"Half of the texts have at most {middle:,} tokens, 95% at most {high:,}; the longest has {ordered[-1]:,}. "
    if found.cut:
        how += f"{found.cut / len(ordered):.1%} are cut to {found.most:,} tokens; what comes after is not read."
    else:
        how += f"None is cut: the model reads up to {found.most:,} tokens."
    if found.sampled:
        how += f" Measured on {len(ordered):,} of the rows."
    return [panel("Lengths of the texts", how, charts.length_histogram(found))]


def prompt_panels(prompt: PromptContent | None) -> list[str]:
    """Return what the prompt says, as panels."""
    if prompt is None:
        return []
    panels = []
    if prompt.rows:
        how = (
            f"By how much the mean loss on {prompt.rows:,} rows grows without each virtual token. Tokens near 0 could "
        )
        how += f"be spared; those below 0 do harm on these rows. {prompt.note}"
        panels.append(panel("What each virtual token is worth", how, charts.worth(prompt)))
    elif prompt.note:
        panels.append(panel("What each virtual token is worth", prompt.note, ""))
    if any(token.nearest for token in prompt.tokens):
        how = "The words of the vocabulary whose vectors are nearest to each virtual token, with the cosine. They need "
        how += "not make sense: a learned vector lies between words."
        rows = [
            [
                str(token.number),
                ", ".join(map(_near, token.nearest)),
            ]
            for token in prompt.tokens
        ]
        panels.append(panel("Nearest words", how, table(["token", "nearest words"], rows, left=(0, 1), scroll=True)))
    return panels


def _near(word: tuple[str, float]) -> str:
    return f"<code>{plain(cut(word[0], 40))}</code> {word[1]:.2f}"


def facts(report: Report) -> str:
    """Return settings, data, model, time and versions."""
    first, *others = [
        f'<div class="panel"><h3>{plain(title)}</h3><dl class="facts">'
        + "".join(f"<div><dt>{plain(name)}</dt><dd>{plain(cut(value, 300))}</dd></div>" for name, value in named)
        + "</dl></div>"
        for title, named in report.facts.items()
        if named
    ]
    return f'{first}<div class="grid four">{"".join(others)}</div>'


def _label(label: str) -> str:
    """Return a label that may be broken between its words, also where they are joined by signs."""
    return re.sub(r"(?<=\w)([_/.:-])(?=\w)", r"\1<wbr>", plain(cut(label, LONGEST_LABEL)))
