"""Communicative success of members, and whose messages others follow: tiny worlds with known answers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

from popcomm.channels.mail import LogOf, Mail
from popcomm.envs.world import Species
from popcomm.errors import UserError
from popcomm.rllib import PopulationPPOConfig
from popcomm.rllib.member_statistics import MemberStatistics
from popcomm.rllib.success import games
from popcomm.rllib.survival import Survival
from tests.rllib.test_listening import BIT, PAIR, Deaf, Echo
from tests.rllib.test_rollout import clock_config, fragments, runner_of
from tests.rllib.test_survival import config_of

TALKERS = {
    "speaker": Species("speaker", 0, 2, 1, spaces.Discrete(1)),
    "listener": Species("listener", 2, 4, 1, spaces.MultiDiscrete([3, 3]), has_answers=True),
}
YES, NO = True, False


def mail(senders: Any, mask: Any, **more: Any) -> Mail:
    return Mail(torch.zeros(1, 4, 1), torch.tensor([senders]), torch.tensor([mask]), **more)


def played(found: Any) -> tuple[list[float], list[float]]:
    assert found is not None
    return found.played[0].tolist(), found.won[0].tolist()


def test_a_game_is_won_by_who_answers_and_by_all_whom_it_heard() -> None:
    """Seat 2 heard both and is right; seat 3 heard seat 1 and gets one part of two wrong."""
    answers = {"listener": torch.tensor([[[1, 2], [0, 1]]])}
    actions = {"listener": torch.tensor([[[1, 2], [0, 2]]]), "speaker": torch.zeros(1, 2, dtype=torch.long)}
    heard = mail([[0, 0], [0, 0], [0, 1], [1, 0]], [[NO, NO], [NO, NO], [YES, YES], [YES, NO]])
    assert played(games(answers, actions, TALKERS, heard)) == ([1, 2, 1, 1], [1, 1, 1, 0])


def test_who_heard_nobody_and_who_is_not_asked_plays_no_game() -> None:
    answers = {"listener": torch.tensor([[[1, 2], [-1, -1]]])}
    actions = {"listener": torch.tensor([[[1, 2], [0, 0]]])}
    deaf = mail([[0], [0], [0], [1]], [[NO], [NO], [NO], [YES]])
    assert played(games(answers, actions, TALKERS, deaf)) == ([0, 0, 0, 0], [0, 0, 0, 0])
    answers["listener"][:] = -1
    assert games(answers, actions, TALKERS, deaf) is None


def test_words_that_are_repeated_or_published_are_nobodys_doing() -> None:
    """Of a log of three: what seat 0 says, a repetition of seat 1's, and a word of nobody's."""
    answers = {"listener": torch.tensor([[[1, 2], [0, 0]]])}
    actions = {"listener": torch.tensor([[[1, 2], [0, 0]]])}
    log = LogOf(torch.tensor([[0, 1, 4]]), torch.tensor([[True, False, False]]))
    slots = [[0, 1, 2]] * 4
    heard = mail(slots, [[NO] * 3, [NO] * 3, [YES, YES, YES], [NO, YES, YES]], log=log)
    assert played(games(answers, actions, TALKERS, heard)) == ([1, 0, 1, 0], [1, 0, 1, 0])


def test_through_summaries_all_others_are_heard() -> None:
    answers = {"listener": torch.tensor([[[1, 2], [0, 0]]])}
    actions = {"listener": torch.tensor([[[1, 2], [0, 1]]])}
    there = [[YES], [NO], [YES], [NO]]
    hears = torch.tensor([[NO, NO, YES, YES]])
    heard = mail([[0], [1], [2], [3]], there, hears=hears)
    assert played(games(answers, actions, TALKERS, heard)) == ([2, 0, 2, 1], [1, 0, 1, 0])


def test_members_have_their_share_of_games_that_add_up_over_runners() -> None:
    one, other = MemberStatistics(3), MemberStatistics(3)
    one.played(np.array([0, 0, 1]), np.array([1.0, 2.0, 1.0]), np.array([1.0, 1.0, 0.0]))
    other.played(np.array([0]), np.array([1.0]), np.array([1.0]))
    one.merge(other.get_state())
    np.testing.assert_allclose(one.measures()["success"], [3 / 4, 0.0, np.nan])


def members_of(agent: Any) -> dict[str, dict[str, np.ndarray]]:
    """What members of ClockWorld came to in the fragment in which they are asked."""
    runner = runner_of(clock_config(agent=agent, members=3, messages=BIT, env_config=PAIR))
    fragments(runner, 5)
    runner.statistics.read_members()
    fragments(runner, 1)
    return {name: own.measures() for name, own in runner.statistics.members.items()}


def test_whom_others_follow_has_influence_and_who_follows_listens() -> None:
    for agent, expected in ((Echo, 1.0), (Deaf, 0.0)):
        found = members_of(agent)
        listens, leads = found["listener"]["listening"], found["speaker"]["influence"]
        assert np.isfinite(listens).any()
        assert np.isfinite(leads).any()
        np.testing.assert_allclose(listens[np.isfinite(listens)], expected, atol=1e-6)
        np.testing.assert_allclose(leads[np.isfinite(leads)], expected, atol=1e-6)


def game(**survival: Any) -> PopulationPPOConfig:
    return (
        PopulationPPOConfig()
        .environment("referential_v0", env_config={"attributes": 1, "values": 4})
        .communication(messages={"kind": "symbols", "vocab_size": 4, "length": 1})
        .population(agent="mlp", members=4)
        .env_runners(num_worlds_per_env_runner=16, rollout_fragment_length=8)
        .survival(strategy={"kind": "top_k", "k": 2}, **survival)
        .debugging(seed=1)
    )


def test_success_in_a_referential_game_is_the_accuracy_that_its_world_tells() -> None:
    runner = runner_of(game(fitness="success"))
    runner.sample()
    runner.statistics.read_members()
    runner.rollout.world.metrics()
    fragments(runner, 1)
    own = runner.statistics.members
    total = {name: (own[name].sums["won"].sum(), own[name].sums["games"].sum()) for name in own}
    assert total["speaker"] == total["listener"]
    won, games_ = total["listener"]
    assert runner.statistics.world["accuracy"] == pytest.approx(won / games_)


@pytest.mark.parametrize(
    ("config", "told"),
    [
        (game(fitness="sucess"), "did you mean 'success'"),
        (game(fitness="listening"), r"survival\.fitness 'listening' is not measured here; allowed: .*success"),
        (game(fitness="influence"), r"survival\.fitness 'influence' is not measured here; allowed: .*success"),
        (
            clock_config(agent="mlp", members=4).survival(strategy={"kind": "top_k", "k": 2}, fitness="success"),
            r"survival\.fitness 'success' is not measured here; allowed: .*listening.*",
        ),
    ],
)
def test_a_measure_that_these_worlds_do_not_have_is_told_with_those_they_have(config: Any, told: str) -> None:
    with pytest.raises(UserError, match=told):
        config.validate()


@pytest.mark.parametrize(
    ("fitness", "messages", "changes", "why"),
    [
        ("message_entropy", {"kind": "vectors", "size": 4}, {}, "messages of the kind 'vectors' are no symbols"),
        ("agreement", {"kind": "vectors", "size": 4}, {}, "messages of the kind 'vectors' are no symbols"),
        ("agreement", {"kind": "symbols", "vocab_size": 64, "length": 11}, {}, r"more than 2\^62 different messages"),
        ("message_entropy", None, {}, "all are silent"),
        ("listening", BIT, {"num_worlds_per_env_runner": 1}, "num_worlds_per_env_runner is 1, and it needs another"),
        ("influence", BIT, {"num_worlds_per_env_runner": 1}, "num_worlds_per_env_runner is 1, and it needs another"),
        ("success", BIT, {}, "the world tells no right answers"),
    ],
)
def test_a_measure_by_which_nobody_would_be_selected_is_refused_with_the_reason(
    fitness: str, messages: Any, changes: dict[str, Any], why: str
) -> None:
    config = config_of(fitness=fitness).communication(messages=messages).env_runners(**changes)
    with pytest.raises(UserError, match=rf"'{fitness}' is not measured here; allowed: .*return.*; .*{why}"):
        config.validate()


@pytest.mark.parametrize(
    ("fitness", "why"),
    [
        ("message_entropy", "species 'listener' never speaks"),
        ("agreement", "species 'listener' never speaks"),
        ("influence", "species 'listener' never speaks"),
        ("listening", "species 'speaker' never hears anybody"),
    ],
)
def test_a_measure_that_one_of_the_species_never_has_is_refused(fitness: str, why: str) -> None:
    with pytest.raises(UserError, match=f"'{fitness}' is not measured here; allowed: .*success.*; {why}"):
        game(fitness=fitness).validate()
    alone = {"speaker": 4, "listener": 1} if "listener" in why else {"speaker": 1, "listener": 4}
    game(fitness=fitness).population(members=alone).validate()


def test_whose_message_moved_somebody_is_not_known_of_messages_of_several_rounds() -> None:
    config = config_of(fitness="influence")
    config.validate()
    config.communication(rounds=2)
    with pytest.raises(UserError, match=r"survival\.fitness 'influence' is not measured here; allowed: .*listening"):
        config.validate()


def test_members_are_selected_by_their_success() -> None:
    config = game(fitness="success", smoothing=0.0)
    runner = runner_of(config)
    survival = Survival(runner.plan, 1)
    runner.sample()
    survival.take([runner.statistics.read_members()])
    found = survival.fitness("speaker")
    assert np.isfinite(found).all()
    newborn = survival.select(1).successions["speaker"].newborn
    assert set(np.flatnonzero(~newborn)) == set(np.argsort(-found, kind="stable")[:2])
