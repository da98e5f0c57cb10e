"""Settings in the library's messages are shown as options."""

from __future__ import annotations

import pytest

from ptune.cli.spelling import spell

KNOWN = {"max_length", "method", "resume", "compile", "text", "problem_type", "template"}


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("give a greater `max_length`", "give a greater --max-length"),
        ("use `method='p-tuning'` here", "use --method p-tuning here"),
        ("continue with `resume=True`", "continue with --resume"),
        ("train with `compile=False`", "train with --no-compile"),
        ("use `max_length=40`", "use --max-length 40"),
        ("use `template='a b'`", "use --template 'a b'"),
        ("`max_length` or `method`", "--max-length or --method"),
        ("column `other` and `hf auth login`", "column `other` and `hf auth login`"),
    ],
)
def test_a_setting_is_spelled_as_its_option(message, shown) -> None:
    assert spell(message, KNOWN) == shown


def test_a_setting_may_have_an_option_of_another_name() -> None:
    assert spell("name it with `text`", (), {"text": "text_column"}) == "name it with --text-column"
