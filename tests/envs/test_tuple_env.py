"""Environments of Gymnasium for several players: a game by hand, and lbforaging and rware beside themselves."""

from __future__ import annotations

from functools import partial
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from popcomm.cli import schema
from popcomm.envs import from_gymnasium, tuple_env
from popcomm.envs.checking import check_env
from popcomm.envs.making import make_world
from popcomm.envs.pettingzoo import ParallelEnvWorld
from popcomm.envs.testing import world_api_test
from popcomm.errors import UserError
from popcomm.rllib import PopulationPPOConfig

FORAGING, WAREHOUSE = "Foraging-8x8-2p-2f-v3", "rware-tiny-2ag-v2"


def installed(package: str) -> Any:
    return pytest.mark.skipif(find_spec(package) is None, reason=f"popcomm[{package}] is not installed")


class Game(gymnasium.Env):
    """Two players; each sees how far the game is, and is paid for the other's action. Four steps."""

    observation_space = spaces.Tuple([spaces.Box(0, 9, (1,)), spaces.Box(0, 9, (1,))])
    action_space = spaces.Tuple([spaces.Discrete(3, start=1), spaces.Discrete(3, start=1)])

    def __init__(self, steps: int = 4, flags: Any = None, **spoilt: Any) -> None:
        self.steps, self.flags, self.spoilt = steps, flags, spoilt

    def see(self) -> Any:
        return np.array([self.t], np.float32), np.array([9 - self.t], np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.t, self.made = 0, []
        return self.see(), {"seed": seed, "options": options}

    def step(self, actions: Any) -> Any:
        self.t += 1
        self.made.append(tuple(map(int, actions)))
        told = {"seen": self.see(), "paid": [actions[1], actions[0]], "ended": False, "cut": self.t == self.steps}
        told |= {"ended": self.flags(self.t)} if self.flags else {}
        told |= self.spoilt
        return told["seen"], told["paid"], told["ended"], told["cut"], {"t": self.t}


class TestByHand:
    def test_tuples_over_players_become_dicts_by_agent(self) -> None:
        env = from_gymnasium(Game())
        observations, infos = env.reset(seed=1, options={"a": 1})
        assert env.agents == env.possible_agents == ["agent_0", "agent_1"]
        assert {agent: seen.tolist() for agent, seen in observations.items()} == {"agent_0": [0], "agent_1": [9]}
        assert infos["agent_1"] == {"seed": 1, "options": {"a": 1}}
        _, rewards, ended, cut, infos = env.step({"agent_1": 1, "agent_0": 3})
        assert env.game.made == [(3, 1)]
        assert rewards == {"agent_0": 1, "agent_1": 3}
        assert (ended, cut) == ({"agent_0": False, "agent_1": False},) * 2
        assert infos["agent_0"] == {"t": 1}

    def test_one_flag_and_one_reward_are_for_all(self) -> None:
        env = from_gymnasium(Game, steps=1, paid=2.5)
        env.reset()
        _, rewards, _, cut, _ = env.step({"agent_0": 1, "agent_1": 1})
        assert rewards == {"agent_0": 2.5, "agent_1": 2.5}
        assert cut == {"agent_0": True, "agent_1": True}
        assert env.agents == []

    def test_a_player_who_is_done_leaves_and_makes_its_first_action(self) -> None:
        env = from_gymnasium(Game(flags=lambda t: [t == 1, t == 2]))
        env.reset()
        env.step({"agent_0": 3, "agent_1": 3})
        assert env.agents == ["agent_1"]
        observations, rewards, ended, *_ = env.step({"agent_1": 2})
        assert env.game.made[-1] == (1, 2)
        assert (list(observations), rewards, ended, env.agents) == (["agent_1"], {"agent_1": 1}, {"agent_1": True}, [])

    def test_what_a_users_callable_returns_is_taken_as_it_is(self) -> None:
        world = ParallelEnvWorld(Game, 2, steps=3)
        assert world.species["agent"].agents == ("agent_0", "agent_1")
        world_api_test(world, num_steps=15)
        check = check_env(lambda env_config: Game(**env_config), {"flags": lambda t: [t == 2, False]}, num_steps=12)
        assert (check.wrong, check.facts["episodes"]) == ([], ["4 steps"])

    def test_spaces_may_be_plain_tuples_and_positions_are_told_where_there_are_any(self) -> None:
        class Placed(Game):
            observation_space, action_space = tuple(Game.observation_space), list(Game.action_space)
            players = [SimpleNamespace(position=(1, 2)), SimpleNamespace(position=None)]  # noqa: RUF012

        env = from_gymnasium(Placed())
        assert env.action_space("agent_1") == spaces.Discrete(3, start=1)
        assert {agent: place.tolist() for agent, place in env.agent_positions().items()} == {"agent_0": [1, 2]}
        assert from_gymnasium(Game()).agent_positions() == {}

    @pytest.mark.parametrize(
        ("spoilt", "words"),
        [
            ({"paid": [1, 2, 3]}, "has 2 players, and its rewards are 3 of them; there must be one for each"),
            ({"seen": np.zeros(1)}, "its observations are 1 of them"),
            ({"seen": None}, "its observations are a NoneType"),
            ({"ended": [True]}, "its flags are 1 of them"),
        ],
    )
    def test_an_answer_that_is_not_by_player_is_a_sentence(self, spoilt: dict[str, Any], words: str) -> None:
        env = from_gymnasium(Game(**spoilt))
        env.reset()
        with pytest.raises(UserError, match=words):
            env.step({"agent_0": 1, "agent_1": 1})


class TestInstalled:
    @pytest.mark.parametrize(
        ("name", "config"),
        [
            pytest.param(FORAGING, {"max_episode_steps": 20}, marks=installed("lbforaging")),
            pytest.param("Foraging-5x5-3p-1f-coop-v3", {"max_episode_steps": 20}, marks=installed("lbforaging")),
            pytest.param(WAREHOUSE, {"max_steps": 20}, marks=installed("rware")),
        ],
    )
    def test_step_by_step_it_is_the_bare_environment(self, name: str, config: dict[str, Any]) -> None:
        env = from_gymnasium(name, **config)
        bare = gymnasium.make(name, disable_env_checker=True, **config)
        rng = np.random.default_rng(0)
        for seed in (1, 2):
            seen, (expected, _) = env.reset(seed=seed)[0], bare.reset(seed=seed)
            for _ in range(25):
                assert all(np.array_equal(a, b) for a, b in zip(seen.values(), expected, strict=True))
                actions = {agent: rng.integers(env.action_space(agent).n) for agent in env.possible_agents}
                seen, rewards, ended, cut, _ = env.step(actions)
                expected, paid, done, truncated, _ = bare.step(tuple(actions.values()))
                assert list(rewards.values()) == list(paid)
                assert set(ended.values()) == {done}
                assert set(cut.values()) == {truncated}
                if done or truncated:
                    assert env.agents == []
                    break
            else:
                pytest.fail("no episode ended")

    @pytest.mark.parametrize(
        ("name", "config"),
        [
            pytest.param(FORAGING, {"max_episode_steps": 9}, marks=installed("lbforaging")),
            pytest.param(WAREHOUSE, {"max_steps": 9}, marks=installed("rware")),
        ],
    )
    def test_worlds_of_it_are_in_lock_step_with_a_plain_loop_and_have_positions(
        self, name: str, config: dict[str, Any]
    ) -> None:
        check = check_env(partial(from_gymnasium, name), config, num_steps=25)
        assert check.facts["lock step"][0].startswith("46 steps in 4 episodes")
        assert check.facts["positions"] == ["2 axes"]
        row = make_world(f"gymnasium:{name}", config, 2).reset(3)
        assert row.positions is not None
        assert row.positions.shape == (2, 2, 2)
        assert row.positions.any(-1).any(-1).all()

    @installed("rware")
    def test_worlds_of_rware_keep_the_contract(self) -> None:
        # Those of lbforaging do not: players are never put where others stood when the episode before ended.
        world_api_test(make_world(f"gymnasium:{WAREHOUSE}", {"max_steps": 9}, 2), num_steps=25)

    @installed("lbforaging")
    def test_a_configuration_names_it(self) -> None:
        document = {"environment": {"env": f"gymnasium:{FORAGING}", "env_config": {"max_episode_steps": 9}}}
        config = schema.apply(document, PopulationPPOConfig())
        assert config.layout.num_agents == 2


class TestMistakes:
    @pytest.mark.parametrize(
        ("name", "config", "words"),
        [
            pytest.param(
                "Foraging-8x8-2p-2f-v9", {}, "does not exist; did you mean '.*-v3'", marks=installed("lbforaging")
            ),
            pytest.param(FORAGING, {"sights": 3}, "sights does not exist .*'sight'", marks=installed("lbforaging")),
            ("CartPole-v1", {}, "the action space Discrete.2., and both must be tuples over the players"),
            (
                "no_such_module:X-v1",
                {},
                "'gymnasium:no_such_module:X-v1' does not exist: importing no_such_module says",
            ),
        ],
    )
    def test_a_mistake_is_a_sentence(self, name: str, config: dict[str, Any], words: str) -> None:
        with pytest.raises(UserError, match=words):
            make_world(f"gymnasium:{name}", config, 1)

    def test_without_the_package_the_extra_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(tuple_env, "find_spec", lambda name: None)
        with pytest.raises(UserError, match=r"needs rware, which is not installed: pip install 'popcomm\[rware\]'"):
            from_gymnasium(WAREHOUSE)
