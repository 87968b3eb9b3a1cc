"""Counterfactual importance as a function of arrays."""

from __future__ import annotations

import numpy as np
import pytest

from popcomm.errors import UserError
from popcomm.language import counterfactual_importance, importance_matrix

SURE, OTHER, HALF = [1.0, 0.0], [0.0, 1.0], [0.5, 0.5]


def test_importance_is_the_expected_change_of_the_policy() -> None:
    # Two slots of an inbox: the first turns the action round in one of four cases, the second never does anything.
    otherwise = [[SURE, OTHER], [SURE, SURE]]
    found = counterfactual_importance([SURE, SURE], otherwise, [[0.75, 0.25], [0.5, 0.5]])
    assert found.tolist() == [0.25, 0.0]
    assert counterfactual_importance([SURE, SURE], otherwise).tolist() == [0.5, 0.0]


def test_a_removed_message_is_one_alternative() -> None:
    assert counterfactual_importance([SURE, OTHER], [HALF, OTHER]).tolist() == [0.5, 0.0]
    worlds = counterfactual_importance(np.tile(SURE, (2, 3, 4, 1)), np.tile(HALF, (2, 3, 4, 1)))
    assert worlds.shape == (2, 3, 4)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (([2.0, 0.0], SURE), "policy must be probabilities"),
        ((SURE, [[1.0, 0.0, 0.0]]), "otherwise .*axis of alternatives"),
        (([SURE, SURE], [[SURE]] * 3), "first axes must be the same"),
        (([SURE], [[SURE], [OTHER]]), "first axes must be the same"),  # which numpy would take
        ((SURE, [SURE, OTHER], [1.0]), "otherwise has 2 messages and messages has 1"),
        (([SURE, SURE], [[SURE, OTHER]] * 2, [HALF] * 3), r"messages has the shape \(3, 2\), and must be \(2, 2\), or"),
        ((SURE, [SURE, OTHER], [HALF] * 3), r"messages has the shape \(3, 2\), and must be \(2,\)"),
    ],
)
def test_arrays_that_do_not_fit_are_told(arguments: tuple, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        counterfactual_importance(*arguments)


def test_the_matrix_is_the_mean_over_the_messages_of_each_pair() -> None:
    senders = np.array([[[1, 2], [0, 2], [0, 1]]] * 2)
    mask = np.array([[[True, True], [True, False], [True, False]], [[True, False], [True, False], [True, False]]])
    values = np.array([[[0.2, 0.9], [0.4, 7.0], [0.1, 7.0]], [[0.6, 7.0], [0.4, 7.0], [0.3, 7.0]]])
    found = importance_matrix(values, senders, mask, 3)
    np.testing.assert_allclose(found, [[np.nan, 0.4, 0.2], [0.4, np.nan, np.nan], [0.9, np.nan, np.nan]])


@pytest.mark.parametrize(
    ("values", "senders", "sentence"),
    [
        (np.zeros((2, 3, 2)), np.full((2, 3, 2), 7), "senders has seats 7 to 7 of 0 to 2"),
        (np.zeros((2, 3, 2)), np.full((2, 3, 2), -1), "senders has seats -1 to -1 of 0 to 2"),
        (np.zeros((2, 4, 2)), np.ones((2, 4, 2), int), r"must all be \[\.\.\., 3, slots\]"),
        (np.zeros((2, 3, 2)), np.ones((2, 3, 1), int), r"\(2, 3, 2\), \(2, 3, 1\) and \(2, 3, 2\), and must"),
    ],
)
def test_a_matrix_of_what_does_not_fit_is_told(values: np.ndarray, senders: np.ndarray, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        importance_matrix(values, senders, np.ones(values.shape, bool), 3)
