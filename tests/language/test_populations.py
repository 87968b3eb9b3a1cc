"""Small populations whose understanding is known."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

import popcomm.language as language
from popcomm.errors import UserError
from popcomm.language.populations import similarity_of_groups

GRID = np.array(list(product(range(8), repeat=2)))


def test_similarity_is_one_less_edits_over_the_longer_message() -> None:
    assert language.inter_speaker_similarity(np.stack([GRID, GRID])) == 1.0
    one, other = np.array([[[1, 2, 3]], [[1, 2, -1]]])
    assert language.inter_speaker_similarity([one, other]) == pytest.approx(2 / 3)
    junk = np.array([[[1, 0, 5]], [[1, 0, 7]]])
    assert language.inter_speaker_similarity(junk, end_symbol=0) == 1.0
    assert language.inter_speaker_similarity(np.zeros((2, 3, 2), int) - 1) == 1.0  # who says nothing says the same
    third = np.stack([GRID, GRID, GRID + 8])  # two of three pairs have no symbol in common
    assert language.inter_speaker_similarity(third) == pytest.approx(1 / 3)
    with pytest.raises(UserError, match="two speakers or more"):
        language.inter_speaker_similarity(GRID[None])
    with pytest.raises(UserError, match="equally long"):
        language.inter_speaker_similarity([[[1, 2]], [[1]]])


def test_the_matrix_is_read_by_its_parts() -> None:
    told = language.mutual_intelligibility([[0.9, 0.5], [0.3, 0.7]], trained=[[1, 1], [0, 1]])
    assert (told.mean, told.least, told.diagonal) == pytest.approx((0.6, 0.3, 0.8))
    assert told.gap == pytest.approx(0.8 - 0.4)
    assert told.unseen == pytest.approx(0.3)
    assert told.note == ""


def test_messages_are_counted_by_who_spoke_to_whom() -> None:
    told = language.mutual_intelligibility([1, 0, 1, 1], speakers=[0, 0, 1, 1], listeners=[0, 0, 0, 1])
    assert told.matrix.tolist()[0][0] == 0.5
    assert told.matrix.tolist()[1] == [1.0, 1.0]


def test_pairs_that_never_met_are_left_out_and_said() -> None:
    """A reference makes nan of all for one of them."""
    told = language.mutual_intelligibility([[0.9, np.nan], [0.3, 0.7]])
    assert told.mean == pytest.approx(1.9 / 3)
    assert told.met.tolist() == [[True, False], [True, True]]
    assert "1 of 4 pairs never met" in told.note
    wide = language.mutual_intelligibility([[0.9, 0.5, 0.1]])
    assert np.isnan(wide.gap)
    assert "no diagonal" in wide.note


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (([[np.nan]],), "nobody met|no speaker met"),
        (([[1.5]],), "within 0 ... 1"),
        (([1.0, 0.0],), "accuracy must be"),
        (([1.0], [0]), "belong together"),
        (([1.0], [-1], [0]), "numbered from 0"),
        (([1.0, 1.0], [0], [0]), "must be"),
    ],
)
def test_what_is_no_accuracy_is_said(arguments: tuple[object, ...], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        language.mutual_intelligibility(*arguments)  # type: ignore[arg-type]


def test_a_language_of_parts_is_easier_to_teach_than_one_of_wholes_and_noise_is_not_learned() -> None:
    parts = language.ease_of_teaching(GRID, GRID)
    wholes = language.ease_of_teaching(GRID, np.random.default_rng(0).permutation(GRID))
    names = language.ease_of_teaching(GRID, np.arange(64))
    assert parts > 0.9
    assert wholes < 0.5 < names < parts - 0.02  # each name must be heard before it is known
    same = language.ease_of_teaching(GRID, GRID * 0)
    assert same == pytest.approx(1 / 64)
    assert parts.curve.shape == (101,)
    assert parts.curve[-1] == 1.0
    assert parts == language.ease_of_teaching(GRID, GRID)
    with pytest.raises(UserError, match="lessons is 0"):
        language.ease_of_teaching(GRID, GRID, lessons=0)


def test_the_gap_is_a_difference_of_accuracies() -> None:
    assert language.generalisation_gap(0.9, 0.4) == pytest.approx(0.5)
    told = language.generalisation_gap([1, 1, 1, 0] * 50, [0, 0, 1, 0] * 50)
    assert told == pytest.approx(0.5)
    assert told.interval.low == pytest.approx(0.5 - 1.966 * np.sqrt(2 * 0.1875 / 199), abs=1e-3)
    with pytest.raises(UserError, match="held_out must hold accuracies"):
        language.generalisation_gap([1.0], [])
    with pytest.raises(UserError, match="seen must hold accuracies"):
        language.generalisation_gap([float("nan")], [1.0])


def test_the_commonest_message_of_each_speaker_stands_for_it() -> None:
    speakers = np.array([0, 0, 0, 0, 1, 1, 1])
    inputs = np.array([0, 0, 0, 1, 0, 1, -1])
    words = np.array([[5], [6], [6], [7], [5], [7], [9]])
    assert similarity_of_groups(speakers, inputs, words).tolist() == [[[6], [7]], [[5], [7]]]
