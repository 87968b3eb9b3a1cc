"""Lives: beside whom members of every species come to what they come to, and which lives are all their own."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from popcomm.rllib import PopulationPPOConfig
from popcomm.rllib.lives import Lives
from popcomm.rllib.rollout_statistics import RolloutStatistics


def game(**env_config: Any) -> PopulationPPOConfig:
    return PopulationPPOConfig().environment("referential_v0", env_config=env_config)


@pytest.mark.parametrize("own", ["speaker", "listener"])
def test_luck_with_partners_of_another_species_is_not_fitness(own: str) -> None:
    """Member 1 is better by 1 than member 0, who has the good partner nine times of ten."""
    lives = Lives(game().layout, None, {"speaker": 2, "listener": 2})
    mine = np.repeat([[0], [1]], 10, 0)
    theirs = np.array([[0]] * 9 + [[1]] + [[0]] + [[1]] * 9)
    returns = np.where(theirs == 0, 10.0, 0.0) + mine + np.zeros((1, 2))
    other = {"speaker": "listener", "listener": "speaker"}[own]
    lives.end({own: mine, other: theirs}, np.ones(20, bool), returns)
    measures = lives.members[own].measures()
    assert measures["return"].tolist() == measures["shared_return"].tolist() == [5.0, 6.0]


def test_partners_count_also_where_all_members_of_a_species_sit_in_every_world() -> None:
    """Two speakers on two seats; the listener changes, and the second speaker's lives are seldom whole."""
    lives = Lives(game(speakers=2).layout, None, {"speaker": 2, "listener": 2})
    listeners = np.array([[0], [0], [0], [1]])
    lives.whole = np.array([[True, True, True]] + [[True, False, True]] * 2 + [[True, True, True]])
    returns = np.where(listeners == 0, 10.0, 0.0) + np.zeros((1, 3))
    lives.end({"speaker": np.array([[0, 1]] * 4), "listener": listeners}, np.ones(4, bool), returns)
    assert lives.members["speaker"].measures()["return"].tolist() == [5.0, 5.0]


def test_one_who_is_always_there_is_nobody_to_be_told_from_others() -> None:
    lives = Lives(game().layout, None, {"speaker": 2, "listener": 1})
    speakers, returns = np.array([[0], [0], [1]]), np.array([[1.0, 1.0], [3.0, 3.0], [7.0, 7.0]])
    lives.end({"speaker": speakers, "listener": np.zeros((3, 1), int)}, np.ones(3, bool), returns)
    assert lives.members["speaker"].measures()["return"].tolist() == [2.0, 7.0]
    assert set(lives.members) == {"speaker"}


def test_a_seat_that_stays_empty_is_nobodys_life_and_nobody_is_met_there() -> None:
    """Member 0 lives in the first world alone and earns -1 a step; in the second its seat is empty. Member 1 lives in
    both, beside 0 and beside nobody."""
    layout = PopulationPPOConfig().environment("traffic_junction_v0").layout
    (name,), seats = layout.species, layout.num_agents
    members = np.arange(seats + 1)[:seats][None].repeat(2, 0)
    alive = np.zeros((2, seats), bool)
    alive[0, :2], alive[1, 1] = True, True
    lives = Lives(layout, None, {name: seats + 1})
    turn: Any = SimpleNamespace(members={name: members}, seen=SimpleNamespace(answers=None), mail=None)
    for died in (False, True):  # who has lived counts, be it dead by now
        lives.step(turn, np.where(alive, -1.0, 0.0), alive & ~np.array([[died], [False]]))
    returns = np.where(alive, -2.0, 0.0)
    returns[1, 1] = -6.0
    lives.end({name: members}, np.ones(2, bool), returns)
    measures = lives.members[name].measures()
    assert measures["lives"].tolist() == [1, 2, *[0] * (seats - 1)]
    assert measures["return"].tolist()[:2] == [-2.0, -4.0]  # the mean beside 0 and of being alone
    assert np.isnan(measures["return"][2:]).all()
    assert lives.lived is not None
    assert not lives.lived.any()  # of the episodes that follow


def test_who_has_lived_so_far_is_in_a_runners_state_and_of_older_ones_all_have() -> None:
    layout = PopulationPPOConfig().environment("traffic_junction_v0").layout
    members = {name: 8 for name in layout.species}
    first, second = (RolloutStatistics(layout, None, members) for _ in range(2))
    first.returns, first.lengths = torch.zeros(2, layout.num_agents), torch.zeros(2)
    first.lives.lived = np.arange(2 * layout.num_agents).reshape(2, -1) % 3 == 0
    state = first.get_state()
    second.set_state(state)
    assert np.array_equal(second.lives.lived, first.lives.lived)
    del state["lived"]
    second.set_state(state)
    assert second.lives.lived is not None
    assert second.lives.lived.all()
