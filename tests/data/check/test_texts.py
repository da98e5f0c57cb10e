"""Damaged characters, markup, missing texts, and other languages."""

from __future__ import annotations

import pytest

from ptune.data.check.language import languages, script_of
from ptune.data.check.mojibake import repaired
from ptune.data.check.rows import read_rows
from ptune.data.check.texts import damaged, long_texts, unusable, with_markup

SOUND = [
    "café déjà vu",
    "Zürich – “so” – it’s 50 €",
    "ESPAÑA, SÃO PAULO, PREÇO À VISTA: 10 £",
    "« à la carte », dit-il à\xa0«\xa0Paris\xa0»",
    "CAFÉ\xa0!",
    "поезд ушёл",
    "火车已经开走了",
    "Ålesund Ærø naïve façade",
    "¿Qué? ¡No! Ñandú",
    "5 µm ± 2 °C × 3²",
    "🙂 👍🏽",
]


@pytest.mark.parametrize("text", SOUND)
def test_sound_text_stays_as_it_is(text) -> None:
    assert repaired(text) == text


@pytest.mark.parametrize("text", [text for text in SOUND if "À" not in text and "ESP" not in text])
@pytest.mark.parametrize("encoding", ["cp1252", "latin-1"])
def test_text_that_was_decoded_wrongly_is_repaired(text, encoding) -> None:
    try:
        wrong = text.encode().decode(encoding)
    except UnicodeDecodeError:
        pytest.skip("the encoding has no character for a byte")
    assert repaired(wrong) == text


def test_damage_that_happened_twice_is_repaired() -> None:
    wrong = "café".encode().decode("latin-1").encode().decode("cp1252")
    assert repaired(wrong) == "café"


def test_the_repair_agrees_with_ftfy() -> None:
    ftfy = pytest.importorskip("ftfy")
    for text in ("cafÃ© au lait", "itâ€™s â€œsoâ€\x9d", "50 â‚¬", "ZÃ¼rich", "that\x92s"):
        assert repaired(text) == ftfy.fix_encoding(text)


def test_lost_characters_are_found_but_not_repaired() -> None:
    rows = read_rows(
        [{"text": "caf\ufffd", "label": "a"}, {"text": "cafÃ©", "label": "b"}, {"text": "café", "label": "b"}]
    )
    (finding,) = damaged(rows)
    assert [row.number for row in finding.rows] == [1, 2]
    assert finding.details == {"repairable": 1, "lost": 1}


def test_markup_is_found_and_comparisons_are_not() -> None:
    texts = ["a &amp; b", "<br/>now", "<p class='x'>y</p>", "&#39;", "a < b > c", "R&D; x", "x <3 y", "AT&T"]
    rows = read_rows([{"text": text, "label": str(i)} for i, text in enumerate(texts)])
    (finding,) = with_markup(rows)
    assert [row.number for row in finding.rows] == [1, 2, 3, 4]


def test_rows_without_text_or_label_and_rows_that_cannot_be_read(tmp_path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("text,label\na,x\n,x\nb,\nc,y,z\nd,y\n", encoding="utf-8")
    missing, unreadable = unusable(read_rows(path))
    assert [row.number for row in missing.rows] == [2, 3]
    assert [row.number for row in unreadable.rows] == [4]


def test_very_long_texts_are_judged_beside_the_others() -> None:
    rows = read_rows(
        [{"text": "a b " * 10, "label": str(i % 2)} for i in range(9)] + [{"text": "a " * 2000, "label": "0"}]
    )
    (finding,) = long_texts(rows)
    assert [row.number for row in finding.rows] == [10]


def test_rows_in_another_language_are_found() -> None:
    english = ["the train was late and there is no seat", "what is it that you want", "I did not do it for him"]
    others = [
        "der Zug ist weg und wir haben keinen Platz",
        "поезд уже ушёл",
        "le train est parti et nous ne sommes pas là",
    ]
    rows = read_rows([{"text": text, "label": str(i % 2)} for i, text in enumerate(english * 3 + others)])
    (finding,) = languages(rows)
    assert [row.number for row in finding.rows] == [10, 11, 12]
    assert finding.details == {"main": "English", "rows": {"German": 1, "Cyrillic": 1, "French": 1}}


def test_foreign_names_and_short_texts_are_left_alone() -> None:
    texts = [
        "the café de la Paix was full",
        "el nino is back",
        "ok",
        "die hard is on",
        "we saw Das Boot and it was good",
        "42",
    ]
    rows = read_rows([{"text": text, "label": str(i % 2)} for i, text in enumerate(texts)])
    assert list(languages(rows)) == []


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("abc def", "Latin"),
        ("ab", ""),
        ("поезд", "Cyrillic"),
        ("火车", "Chinese"),
        ("電車はもう出て", "Japanese"),
        ("기차", "Korean"),
    ],
)
def test_scripts(text, script) -> None:
    assert script_of(text) == script
