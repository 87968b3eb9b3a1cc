"""What messages and meanings may be, and how far two messages are apart."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from popcomm.errors import UserError
from popcomm.language import arrays

WORDS = st.lists(st.lists(st.integers(0, 3), max_size=5), min_size=2, max_size=8)


def slow_edits(one: list[int], other: list[int]) -> int:
    """The textbook's recursion."""
    if not one or not other:
        return len(one) + len(other)
    keep = slow_edits(one[1:], other[1:]) + (one[0] != other[0])
    return min(keep, slow_edits(one[1:], other) + 1, slow_edits(one, other[1:]) + 1)


@settings(max_examples=40, deadline=None)
@given(WORDS)
def test_edit_distances_are_those_of_the_recursion(words: list[list[int]]) -> None:
    first, second = np.triu_indices(len(words), 1)
    found = arrays.edit_distances(arrays.as_messages(words), first, second)
    assert found.tolist() == [slow_edits(words[i], words[j]) for i, j in zip(first, second, strict=True)]


def test_more_pairs_than_a_block_holds_are_all_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    messages = np.random.default_rng(0).integers(0, 3, (20, 4))
    first, second = np.triu_indices(20, 1)
    whole = arrays.edit_distances(messages, first, second)
    monkeypatch.setattr(arrays, "PAIRS_AT_ONCE", 7)
    assert arrays.edit_distances(messages, first, second).tolist() == whole.tolist()


def test_what_stands_behind_the_end_symbol_was_not_said() -> None:
    messages = np.array([[3, 0, 5], [4, 4, 4], [0, 1, 2]])
    assert arrays.as_messages(messages, end_symbol=0).tolist() == [[3, -1, -1], [4, 4, 4], [-1, -1, -1]]
    assert arrays.as_messages(messages).tolist() == messages.tolist()
    assert messages[0].tolist() == [3, 0, 5]  # the caller's array is left as it was


def test_sequences_of_any_length_are_messages_and_so_are_single_symbols() -> None:
    assert arrays.as_messages([[1, 2], [3], []]).tolist() == [[1, 2], [3, -1], [-1, -1]]
    assert arrays.as_messages([4, 5]).tolist() == [[4], [5]]
    assert arrays.as_messages(np.array([[1.0, 2.0]])).tolist() == [[1, 2]]


@pytest.mark.parametrize(
    ("messages", "sentence"),
    [
        ([], "with M > 0"),
        (np.zeros((0, 3), int), "with M > 0"),
        ([[0.5]], "numbers with fractions"),
        ([[float("nan")]], "numbers with fractions"),
        ([["a"]], "must be integers"),
        ([[-2]], "one is -2"),
        ([[-1, 3]], "must not stand before"),
        (np.zeros((2, 2, 2), int), r"\(2, 2, 2\)"),
    ],
)
def test_what_are_no_messages_is_said_in_a_sentence(messages: object, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        arrays.as_messages(messages)  # type: ignore[arg-type]


def test_a_meaning_that_is_not_known_is_none() -> None:
    for made in (arrays.as_meanings, arrays.as_classes):
        with pytest.raises(UserError, match=r"1 of the meanings or labels are nan, .* leave out their rows"):
            made([1.0, float("nan"), 2.0])
        made([1.0, 2.0])


def test_meanings_are_numbered_and_must_be_as_many_as_the_messages() -> None:
    assert arrays.as_meanings([["red", 5], ["blue", 5]]).tolist() == [[1, 0], [0, 0]]
    with pytest.raises(UserError, match="3 meanings and 2 messages"):
        arrays.pairs([1, 2, 3], [[1], [2]])
    with pytest.raises(UserError, match="meanings must be"):
        arrays.as_meanings([])
    with pytest.raises(UserError, match="differ in length"):
        arrays.as_meanings([[1, 2], [3]])
