"""Influence of messages in policies that are known."""

from __future__ import annotations

import numpy as np
import pytest

import popcomm.language as language
from popcomm.errors import UserError


def test_influence_is_nothing_if_actions_are_independent_and_two_bits_of_four_obeyed_commands() -> None:
    """ln 4 in nats. With the mean over messages in place of the sum, the reference is off by their log."""
    assert language.causal_influence_of_communication(np.full((4, 4), 0.25)) == 0.0
    assert language.causal_influence_of_communication(np.eye(4)) == pytest.approx(2.0)
    assert language.causal_influence_of_communication(np.eye(4)) * np.log(2) == pytest.approx(np.log(4))


def test_messages_count_as_often_as_they_are_said_and_observations_equally() -> None:
    policy = np.stack([np.eye(2), np.full((2, 2), 0.5)])
    assert language.causal_influence_of_communication(policy) == pytest.approx(0.5)
    said = np.array([[1.0, 0.0], [0.5, 0.5]])  # the first speaker has one message only, so nothing to influence with
    assert language.causal_influence_of_communication(policy, said) == 0.0
    quarter = language.causal_influence_of_communication(np.eye(2), [0.25, 0.75])
    assert quarter == pytest.approx(-(0.25 * np.log2(0.25) + 0.75 * np.log2(0.75)))


def test_influence_is_the_sum_of_the_definition() -> None:
    rng = np.random.default_rng(0)
    policy, said = rng.dirichlet(np.ones(3), 5), rng.dirichlet(np.ones(5))
    joint = policy * said[:, None]
    by_hand = sum(
        joint[m, a] * np.log2(joint[m, a] / (joint[m].sum() * joint[:, a].sum())) for m in range(5) for a in range(3)
    )
    assert language.causal_influence_of_communication(policy, said) == pytest.approx(by_hand)


def test_listening_is_the_total_variation_of_the_policy() -> None:
    assert language.positive_listening([[1.0, 0.0]], [[0.0, 1.0]]) == 1.0
    assert language.positive_listening([[0.6, 0.4]], [[0.6, 0.4]]) == 0.0
    assert language.positive_listening([[0.6, 0.3, 0.1]], [[0.4, 0.3, 0.3]]) == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (([[0.5, 0.4]], None), "sum to one"),
        (([[1.5, -0.5]], None), "sum to one"),
        (([[float("nan"), 1.0]], None), "sum to one"),
        (([1.0], None), r"\[..., messages, actions\]"),
        ((np.eye(2), [0.2, 0.3, 0.5]), "2 messages and messages has 3"),
        ((np.zeros((0, 2)), None), "must hold probabilities"),
    ],
)
def test_what_is_no_policy_is_said(arguments: tuple[object, object], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        language.causal_influence_of_communication(*arguments)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="must be the same"):
        language.positive_listening([[0.5, 0.5]], [[1.0, 0.0], [1.0, 0.0]])
