"""The page on environments of others: what is asked of whom, and how it is told."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
from gymnasium import spaces
from popcomm.analysis.foreign_environments import ALL, HERE, Tuples, page

from popcomm.envs.checking import EnvCheck, check_env
from popcomm.references import attribute


class Game:
    """Two players whose everything is a tuple; the second is paid for the first one's action."""

    observation_space = (spaces.Box(0, 9, (1,)), spaces.Box(0, 9, (1,)))
    action_space = (spaces.Discrete(3), spaces.Discrete(3))
    unwrapped = SimpleNamespace(n_agents=2)

    def see(self) -> Any:
        return np.array([self.t]), np.array([9 - self.t])

    def reset(self, seed: int | None = None) -> Any:
        self.t = 0
        return self.see(), {}

    def step(self, actions: list[int]) -> Any:
        self.t += 1
        return self.see(), [0.0, float(actions[0])], False, self.t == 4, {}


def test_tuples_over_players_become_dicts_by_agent() -> None:
    env = Tuples(Game())
    observations, _ = env.reset(seed=1)
    assert {agent: seen.tolist() for agent, seen in observations.items()} == {"player_0": [0], "player_1": [9]}
    assert env.step({"player_1": 0, "player_0": 2})[1] == {"player_0": 0.0, "player_1": 2.0}
    check = check_env(lambda _: Tuples(Game()), num_steps=10)
    assert (check.wrong, check.facts["episodes"]) == ([], ["4 steps"])


def test_a_row_has_what_was_found_and_a_list_what_is_wrong() -> None:
    facts = {
        "species": ["a (2: a_0, a_1) observes 3 numbers, acts in Discrete(4)"],
        "episodes": ["4 steps"],
        "lock step": ["32 steps in 8 episodes: equal"],
    }
    good = EnvCheck(facts, ["it waits"], [], {"a plain loop": 1234.4, "in training (4 worlds, mlp)": 99.0})
    bad = EnvCheck({"species": facts["species"]}, [], ["it lies"], {})
    text = page({"good_v1": good, "bad_v1": bad}, ["absent_v1"])
    assert "over 2 environments" in text
    assert "In 1 of them" in text
    assert "| good_v1 | a (2: a_0, a_1): 3, Discrete(4) | 4 steps | 32 steps in 8 episodes | 1,234 | - | 99 |" in text
    assert "| bad_v1 | a (2: a_0, a_1): 3, Discrete(4) | - | no | - | - | - |" in text
    assert "- good_v1: it waits." in text
    assert "- bad_v1: it lies." in text
    assert "not looked at: absent_v1." in text


def test_ten_and_more_are_asked_for_and_those_of_this_module_exist() -> None:
    assert len({asked.name for asked in ALL}) == len(ALL) >= 10
    for asked in ALL:
        if asked.reference.startswith(HERE):
            assert callable(attribute("environment", asked.reference))
