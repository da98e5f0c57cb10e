"""Batches: every row occurs once, the order depends on (seed, epoch) alone, and padding is on the right."""

from __future__ import annotations

from itertools import pairwise

import torch
from hypothesis import given
from hypothesis import strategies as st

from ptune.data.batch import WINDOW, Packed, collate, filled_batches, ordered_batches, pack, training_batches
from ptune.data.encode import Encoded

LENGTHS = st.lists(st.integers(1, 60), min_size=1, max_size=90)
SIZES = st.integers(1, 17)


@given(LENGTHS, SIZES, st.integers(0, 2**31 - 1), st.integers(1, 10_000))
def test_an_epoch_has_every_row_once(lengths: list[int], size: int, seed: int, epoch: int) -> None:
    batches = training_batches(lengths, size, seed, epoch)
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    assert all(1 <= len(batch) <= size for batch in batches)


@given(LENGTHS, SIZES)
def test_an_epoch_has_no_more_batches_than_it_needs(lengths: list[int], size: int) -> None:
    assert len(training_batches(lengths, size, 0, 1)) == -(-len(lengths) // size)


def test_many_windows_make_no_more_batches_than_one() -> None:
    lengths = [1 + row % 7 for row in range(2 * WINDOW * 3 + 5)]
    batches = training_batches(lengths, 3, 0, 1)
    assert len(batches) == 2 * WINDOW + 2
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))


def test_the_order_follows_from_seed_and_epoch_alone() -> None:
    lengths = [5, 9, 2, 7, 7, 1, 8, 3, 6, 4, 11]
    torch.manual_seed(1)
    first = training_batches(lengths, 3, 4, 2)
    torch.manual_seed(2)
    training_batches(lengths, 3, 9, 9)
    assert training_batches(lengths, 3, 4, 2) == first


def test_another_epoch_or_seed_has_another_order() -> None:
    lengths = [1 + row % 9 for row in range(40)]
    orders = {str(training_batches(lengths, 4, seed, epoch)) for seed in range(3) for epoch in range(1, 4)}
    assert len(orders) == 9


def test_drawing_batches_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    training_batches([3, 1, 2], 2, 5, 1)
    assert torch.equal(before, torch.get_rng_state())


@given(LENGTHS, SIZES)
def test_evaluation_goes_from_short_to_long(lengths: list[int], size: int) -> None:
    rows = [row for batch in ordered_batches(lengths, size) for row in batch]
    assert sorted(rows) == list(range(len(lengths)))
    assert [lengths[row] for row in rows] == sorted(lengths)


@given(LENGTHS, st.integers(1, 300))
def test_batches_are_filled_up_to_so_many_tokens(lengths: list[int], tokens: int) -> None:
    batches = filled_batches(lengths, tokens)
    assert [row for batch in batches for row in batch] == sorted(range(len(lengths)), key=lambda row: lengths[row])
    sizes = [len(batch) * max(lengths[row] for row in batch) for batch in batches]
    assert all(size <= tokens or len(batch) == 1 for size, batch in zip(sizes, batches, strict=True))
    for batch, following in pairwise(batches):
        assert (len(batch) + 1) * lengths[following[0]] > tokens  # no batch has room for the next row


def packed(*sizes: int, segments: bool = False) -> Packed:
    """Return rows of the ids 10, 11 and so on. The second half of each row is in segment 1."""
    return pack(
        [
            Encoded(list(range(10, 10 + size)), [int(i >= size // 2) for i in range(size)] if segments else None)
            for size in sizes
        ]
    )


def test_padding_stands_on_the_right_and_is_masked() -> None:
    batch = collate(packed(2, 4, 3), [2, 1], pad_id=9)
    assert batch.input_ids.tolist() == [[10, 11, 12, 9], [10, 11, 12, 13]]
    assert batch.attention_mask is not None
    assert batch.attention_mask.tolist() == [[1, 1, 1, 0], [1, 1, 1, 1]]
    assert batch.token_type_ids is None


def test_rows_of_one_length_have_no_mask() -> None:
    assert collate(packed(3, 3), [0, 1], pad_id=9).attention_mask is None


def test_padding_is_of_segment_0() -> None:
    batch = collate(packed(2, 5, segments=True), [0, 1], pad_id=9)
    assert batch.token_type_ids is not None
    assert batch.token_type_ids.tolist() == [[0, 1, 0, 0, 0], [0, 0, 1, 1, 1]]


def test_a_batch_of_few_lengths_is_padded_to_a_multiple_but_not_beyond_the_longest_row() -> None:
    rows = packed(2, 4, 3, 7)
    assert collate(rows, [0, 2], pad_id=9, multiple=4).input_ids.shape == (2, 4)
    assert collate(rows, [0, 3], pad_id=9, multiple=4).input_ids.shape == (2, 7)
    batch = collate(rows, [1], pad_id=9, multiple=2)
    assert batch.attention_mask is not None
    assert batch.attention_mask.tolist() == [[1, 1, 1, 1]]


def test_a_batch_moves_whole() -> None:
    batch = collate(packed(2, 5), [0, 1], pad_id=9).to(torch.device("meta"))
    assert {tensor.device.type for tensor in (batch.input_ids, batch.attention_mask)} == {"meta"}
    assert batch.token_type_ids is None


def test_rows_are_selected_in_the_order_asked_for_and_keep_their_padding() -> None:
    batch = collate(packed(2, 4, 3, segments=True), [0, 1, 2], pad_id=9)
    chosen = batch.select([2, 0])
    assert chosen.input_ids.tolist() == [[10, 11, 12, 9], [10, 11, 9, 9]]
    assert chosen.attention_mask is not None
    assert chosen.attention_mask.tolist() == [[1, 1, 1, 0], [1, 1, 0, 0]]
    assert (len(chosen), chosen.length, chosen.mask_position) == (2, 4, None)
    torch.testing.assert_close(batch.slice(1, 3).input_ids, batch.input_ids[1:])
