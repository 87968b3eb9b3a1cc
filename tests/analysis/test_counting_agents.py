"""Agents that count: beliefs, words and acts where the answer is known, and what they come to with nobody's help."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from popcomm.analysis.experiments.counting_agents import Counters, Life

from popcomm.channels import Words
from popcomm.envs.alarm_v0 import AlarmWorld

A, B = (0b1111111 << shift for shift in (0, 7))
KINDS = 3


def counters(agents: int = 2, **rewards: float) -> Counters:
    world = AlarmWorld(num_agents=agents, kinds=KINDS, reward_share=0.0, watchers=1, **rewards)
    return Counters(world, Words(), np.random.default_rng(0))


def heard(*words: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """What each agent of one world hears."""
    longest = max(1, *map(len, words))
    array, mask = np.zeros((1, len(words), longest), np.int64), np.zeros((1, len(words), longest), bool)
    for agent, told in enumerate(words):
        array[0, agent, : len(told)], mask[0, agent, : len(told)] = told, True
    return array, mask


def live(who: Counters, words: tuple[tuple[int, ...], ...], event: int, times: int = 1, sees: int = -1) -> None:
    """All hear these words while an event runs (KINDS: calm), and act; agent 0 may see it."""
    for _ in range(times):
        who.hear(*heard(*words))
        actions = who.act(np.array([[sees, *[-1] * (len(words) - 1)]]))
        who.learn(who.earns[actions, event], np.ones((1, len(words)), bool))


def test_the_rewards_that_they_know_are_those_of_the_world() -> None:
    who = counters(flight_reward=2.0, wrong_penalty=0.3, forage_reward=0.2, alarm_penalty=0.4)
    assert who.earns[0].tolist() == [0, 0, 0, 0.2]
    assert who.earns[2].tolist() == [-0.3, 2.0, -0.3, -0.4]


def test_beliefs_are_the_prior_and_the_counts_of_all_different_words() -> None:
    who = counters()
    told = heard((A,), (A, A, B))
    for _ in range(3):
        who.hear(*told)
        who.act(np.array([[-1, -1]]))
        who.chosen = np.array([2, 2])
        who.learn(np.ones((1, 2)), np.ones((1, 2), bool))
    assert who.counts[0, who.rows_of(np.array(A))].tolist() == [0, 3, 0, 0]
    who.hear(*heard((A, B), (B, A)))
    assert who.alpha[0].tolist() == [1, 4, 1, 1], "agent 0 heard A three times while kind 1 ran, and B never"
    assert who.alpha[1].tolist() == [1, 7, 1, 1], "agent 1 heard both, and A but once in each step"
    who.hear(*heard((), ()))
    assert who.alpha.tolist() == [[1] * 4] * 2, "silence, which they never heard"


def test_who_hears_a_word_only_while_it_sees_says_it_and_does_not_act_on_it() -> None:
    """Where all see all the time, words are heard blind in calm alone."""
    who = counters()
    live(who, ((A,), (A,)), event=1, times=50, sees=1)
    who.hear(*heard((A,), ()))
    assert who.alpha[0].tolist() == [1, 1, 1, 1]
    assert who.names()[0].tolist() == [0, A, 0]


def test_what_is_earned_says_which_events_can_have_run() -> None:
    """Fled from kind 0 in vain: by the prior the other two kinds and calm are equally likely then."""
    who = counters()
    who.hear(*heard((A,), ()))
    who.act(np.array([[-1, -1]]))
    who.chosen = np.array([1, 0])
    who.learn(np.array([[-0.25, 0.25]]), np.ones((1, 2), bool))
    assert who.counts[0, who.rows_of(np.array(A))] == pytest.approx([0, 1 / 3, 1 / 3, 1 / 3])
    assert who.counts[1, 0].tolist() == [0, 0, 0, 1], "who foraged for its reward knows that all was calm"


def test_nothing_is_counted_between_two_episodes() -> None:
    who = counters()
    who.hear(*heard((A,), (A,)))
    who.act(np.array([[-1, -1]]))
    who.chosen = np.zeros(2, int)
    who.learn(np.full((1, 2), 0.25), np.array([[True, False]]))
    assert who.counts[0].sum() == pytest.approx(1)
    assert who.counts[1].sum() == 0


def test_a_word_that_told_a_kind_is_said_of_it_and_a_new_one_where_none_did() -> None:
    who = counters()
    live(who, ((A,), (A,)), event=2, times=200, sees=2)
    assert who.names()[0].tolist() == [0, 0, A]
    who.hear(*heard((), ()))
    who.act(np.array([[2, 0]]))
    said = who.say()
    assert said[0] == A
    assert said[1] not in (0, A)
    assert Words().gated(torch.from_numpy(said)).bool().all()


def test_the_word_heard_more_often_wins() -> None:
    who = counters()
    live(who, ((A,), ()), event=0, times=3, sees=0)
    live(who, ((B,), ()), event=0, times=5, sees=0)
    assert who.names()[0, 0] == B
    assert who.names()[1].tolist() == [0, 0, 0], "who heard nothing has no word"


def test_more_words_than_there_is_room_for_are_remembered() -> None:
    who = counters()
    words = Words().uniform(np.random.default_rng(1), 300)
    rows = who.rows_of(words)
    assert np.array_equal(who.words[rows], words)
    assert who.counts.shape[1] >= len(who.words)


def life(reflexes: Any = (), seed: int = 3, worlds: int = 4, **env_config: Any) -> Life:
    return Life({"num_agents": 5, "kinds": KINDS, "watchers": 2, **env_config}, Words(), reflexes, worlds, seed)


def test_a_collective_comes_to_a_jargon_of_words_that_nobody_gave_it() -> None:
    one = life(seed=4)
    assert one.agreement().distinct == 0
    one.pass_steps(240)
    told = one.agreement()
    assert told.mean == 1
    assert told.distinct == KINDS
    judged = one.elsewhere({"num_agents": 5, "kinds": KINDS, "watchers": 2}, 16, 9).pass_steps(64, learning=False)
    # Heard once and heeded: watchers flee in the first of four steps, all in the second.
    assert judged.informed == pytest.approx((2 / 5 + 1) / 4, abs=0.03)
    assert judged.false_alarms < 0.02


def test_elsewhere_nothing_is_learned_and_nothing_here_moves() -> None:
    one = life([{"kind": "immediate_feedback"}])
    one.pass_steps(20)
    before = one.counters.counts.copy(), one.session, one.env_steps
    other = one.elsewhere({"num_agents": 5, "kinds": KINDS, "watchers": 2}, 8, 9)
    other.pass_steps(20, learning=False)
    assert np.array_equal(one.counters.counts[:, : before[0].shape[1]], before[0])
    assert one.session is before[1]
    assert one.env_steps == before[2]
    assert other.session.air is None


def test_the_seed_decides_all() -> None:
    def course(seed: int) -> Any:
        one = life([{"kind": "publishing", "rate": 2.0, "when": "events"}], seed)
        return one.pass_steps(40), one.counters.counts

    (first, counts), (second, again), (third, _) = course(3), course(3), course(4)
    assert first == second
    assert np.array_equal(counts, again)
    assert first != third


def test_reflexes_that_fade_by_the_jargon_are_told_of_it() -> None:
    gate = {"kind": "gated", "measure": "jargon", "begin": 0.5, "end": 0.9, "smoothing": 0.0}
    one = life([{"kind": "immediate_feedback", "schedule": gate}])
    assert one.session.air is not None
    one.observe(0.7)
    assert one.session.air.strengths()["immediate_feedback"] == pytest.approx(0.5)


def test_the_blind_neither_see_nor_speak() -> None:
    blind = life([{"kind": "sensory_deprivation", "when": 1.0}])
    looks = blind.pass_steps(60)
    assert looks.load == 0
    assert blind.agreement().distinct == 0
