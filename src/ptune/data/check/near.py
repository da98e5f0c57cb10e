"""Texts that are nearly the same, found in linear time by MinHash (Broder, 1997).

A text becomes the set of its character n-grams. 32 minima of hashed n-grams are its signature, and rows that agree in
one of eight bands of four are compared exactly, by the share of common n-grams (Jaccard).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ptune.data.check.copies import leaked_rows, same_text
from ptune.data.check.findings import Finding, count_rows, many
from ptune.data.check.rows import Row, Rows

SIMILAR = 0.8  # share of common n-grams from which two texts are nearly the same
BANDS, BAND = 8, 4
LONGEST = 1000  # characters of a text that are compared
_GRAMS_AT_ONCE = 4_000_000
_WIDE = re.compile("[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")  # scripts whose characters stand for syllables or words
_NOISE = re.compile(r"[\W_]+")


def near_copies(rows: Rows) -> Iterator[Finding]:
    """Find rows whose texts are nearly the same but not equal, within a split and between splits."""
    groups = near_groups(rows.usable)
    places = {id(row): index for index, row in enumerate(rows.all)}
    inside: list[list[Row]] = []
    for group in groups:
        by_split: dict[str, list[Row]] = defaultdict(list)
        for row in group:
            by_split[row.split].append(row)
        inside += [alike for alike in by_split.values() if len(alike) > 1 and _differ(alike)]
    if inside:
        later = sorted((row for group in inside for row in _new_texts(group)), key=lambda row: places[id(row)])
        yield Finding(
            "near_repeats",
            f"{count_rows(later)} {many(len(later), 'is', 'are')} nearly the same as an earlier row of the split",
            "check whether they add anything; labels that differ are likely errors",
            later,
            inside,
            {"different_labels": sum(len({row.label for row in group}) > 1 for group in inside)},
        )
    between = [group for group in groups if len({row.split for row in group}) > 1 and _differ(group)]
    if between:
        leaked = sorted((row for group in between for row in leaked_rows(group)), key=lambda row: places[id(row)])
        verb = many(len(leaked), "is", "are")
        yield Finding(
            "near_leaks",
            f"{count_rows(leaked)} {verb} nearly the same as a row that the model is measured on",
            "look at them; if they come from the same source, split by source and not by row",
            leaked,
            between,
        )


def near_groups(rows: Sequence[Row]) -> list[list[Row]]:
    """Return groups of rows whose texts are nearly the same or equal. Both texts of a pair have to be."""
    texts = [tuple(_bare(text) for text in row.texts) for row in rows]
    joined = ["\x1f".join(parts) for parts in texts]
    sample = "".join(joined[:: max(1, len(joined) // 200)])
    size = 2 if len(_WIDE.findall(sample)) > len(sample) / 4 else 5
    compared = [index for index, text in enumerate(joined) if len(text) >= 2 * size]
    signatures = _signatures([joined[index] for index in compared], size)
    parents = list(range(len(rows)))

    def root(index: int) -> int:
        while parents[index] != index:
            parents[index] = parents[parents[index]]
            index = parents[index]
        return index

    for band in range(BANDS):
        buckets: dict[bytes, list[int]] = defaultdict(list)
        keys = np.ascontiguousarray(signatures[:, band * BAND : (band + 1) * BAND])
        for index, key in zip(compared, keys, strict=True):
            buckets[key.tobytes()].append(index)
        for bucket in buckets.values():
            # With the first row and the one before it, so that the time is linear also for large buckets.
            for before, index in pairwise(bucket):
                for other in {bucket[0], before}:
                    if root(index) != root(other) and _similar(texts[index], texts[other], size):
                        parents[root(index)] = root(other)
    groups: dict[int, list[int]] = defaultdict(list)
    for index in compared:
        groups[root(index)].append(index)
    return [[rows[index] for index in sorted(group)] for group in groups.values() if len(group) > 1]


def _signatures(texts: Sequence[str], size: int) -> NDArray[np.uint64]:
    """Return the MinHash signatures [N, BANDS * BAND] of texts with at least `size` characters."""
    generator = np.random.default_rng(0)
    factors = generator.integers(1, 2**63, BANDS * BAND, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    signatures = np.empty((len(texts), BANDS * BAND), np.uint64)
    start = 0
    while start < len(texts):
        end, grams = start, 0
        while end < len(texts) and (grams == 0 or grams + len(texts[end]) <= _GRAMS_AT_ONCE):
            grams += len(texts[end])
            end += 1
        signatures[start:end] = _signatures_of_some(texts[start:end], size, factors)
        start = end
    return signatures


def _signatures_of_some(texts: Sequence[str], size: int, factors: NDArray[np.uint64]) -> NDArray[np.uint64]:
    codes = np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.uint64)
    lengths = np.array([len(text) for text in texts])
    ends = lengths.cumsum()
    hashes = np.zeros(len(codes) - size + 1, np.uint64)
    for offset in range(size):
        hashes = hashes * np.uint64(0x9E3779B97F4A7C15) + codes[offset : len(codes) - size + 1 + offset]
    hashes ^= hashes >> np.uint64(29)
    whole = np.ones(len(hashes), bool)  # n-grams that do not reach into the next text
    for offset in range(1, size):
        reaching = ends[:-1] - offset
        whole[reaching[reaching < len(whole)]] = False
    starts = np.concatenate([[0], (lengths - size + 1).cumsum()[:-1]])
    hashes = hashes[whole]
    signatures = np.empty((len(texts), len(factors)), np.uint64)
    for number, factor in enumerate(factors):
        mixed = hashes * factor
        mixed ^= mixed >> np.uint64(32)
        signatures[:, number] = np.minimum.reduceat(mixed, starts)
    return signatures


def _bare(text: str) -> str:
    """Return a text without what hardly matters: letter case, punctuation, all but its first characters."""
    return _NOISE.sub(" ", same_text(text[: 2 * LONGEST]))[:LONGEST].strip()


def _similar(one: tuple[str, ...], other: tuple[str, ...], size: int) -> bool:
    return all(_jaccard(*texts, size) >= SIMILAR for texts in zip(one, other, strict=True))


def _jaccard(one: str, other: str, size: int) -> float:
    """Return the share of common n-grams, from 0 to 1."""
    if one == other:
        return 1.0
    first, second = ({text[i : i + size] for i in range(len(text) - size + 1)} for text in (one, other))
    return len(first & second) / max(1, len(first | second))


def _new_texts(group: Sequence[Row]) -> list[Row]:
    """Return the rows of a group that are neither its first one nor copies of an earlier one."""
    first: dict[tuple[str, ...], Row] = {}
    for row in group:
        first.setdefault(tuple(map(same_text, row.texts)), row)
    return list(first.values())[1:]


def _differ(group: Sequence[Row]) -> bool:
    """Return whether a group has more than copies of one text, which are found as repeats, leaks or conflicts."""
    return len({tuple(map(same_text, row.texts)) for row in group}) > 1
