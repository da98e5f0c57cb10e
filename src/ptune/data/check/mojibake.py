"""Repair text that is UTF-8 but was decoded as Windows-1252 or Latin-1: 'cafÃ©' for 'café'.

Only what cannot be anything else is changed. ftfy repairs more kinds of damage, with more guesses.
"""

from __future__ import annotations

import re

# The character of each byte. Windows-1252 leaves five bytes undefined; programs decode them as Latin-1 does.
_CHARACTERS = [bytes([byte]).decode("cp1252", "ignore") or chr(byte) for byte in range(256)]
_BYTES = {character: byte for byte, character in enumerate(_CHARACTERS)} | {chr(byte): byte for byte in range(128, 256)}


def _one_of(first: int, last: int) -> str:
    return "[" + re.escape("".join({_CHARACTERS[byte] + chr(byte) for byte in range(first, last + 1)})) + "]"


_FOLLOWING = _one_of(0x80, 0xBF)
# The characters as which a UTF-8 sequence of two, three or four bytes appears.
_SEQUENCE = re.compile(
    f"{_one_of(0xC2, 0xDF)}{_FOLLOWING}|{_one_of(0xE0, 0xEF)}{_FOLLOWING}{{2}}|{_one_of(0xF0, 0xF4)}{_FOLLOWING}{{3}}"
)
# Where the result of a single sequence is beyond doubt: Latin letters with accents, quotation marks and dashes, emoji.
# Everything else, such as Cyrillic, needs a second one in the text.
_BEYOND_DOUBT = re.compile("[\u00a0-\u00ff\u2010-\u203a\u20ac\u2122\U0001f300-\U0001faff]")
# No text contains these, but sequences of ordinary letters, blanks and quotation marks may decode to them.
_UNLIKELY = re.compile("[\u0080-\u009f\u0180-\u036f\u0700-\u08ff\ue000-\uf8ff]")


# Control characters, where Windows-1252 was decoded as Latin-1.
_CONTROLS = {byte: _CHARACTERS[byte] for byte in range(0x80, 0xA0) if ord(_CHARACTERS[byte]) != byte}


def repaired(text: str) -> str:
    """Return a text with its wrongly decoded characters as they should be, also if it happened twice."""
    if text.isascii():
        return text
    for _ in range(3):
        new = _once(text)
        if new == text:
            break
        text = new
    return text.translate(_CONTROLS)


def _once(text: str) -> str:
    matches = [match[0] for match in _SEQUENCE.finditer(text)]
    decoded = {match: _decode(match) for match in set(matches)}
    changed = [match for match in matches if decoded[match] != match]
    if not changed or (len(changed) == 1 and not _BEYOND_DOUBT.fullmatch(decoded[changed[0]])):
        return text
    return _SEQUENCE.sub(lambda match: decoded[match[0]], text)


def _decode(sequence: str) -> str:
    """Return the character that a sequence stands for, or the sequence if it stands for none."""
    try:
        character = bytes(_BYTES[part] for part in sequence).decode()
    except (UnicodeDecodeError, KeyError):
        return sequence
    return sequence if _UNLIKELY.fullmatch(character) else character
