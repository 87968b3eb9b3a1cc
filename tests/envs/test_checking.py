"""What is said of an environment before training, and that the lock step would see an adapter that errs."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from magent2.environments import battle_v4
from mpe2 import simple_crypto_v3, simple_push_v3, simple_speaker_listener_v4, simple_spread_v3

from popcomm.envs import from_gymnasium
from popcomm.envs.checking import EnvCheck, check_env
from popcomm.envs.foreign_answers import Answer
from popcomm.envs.lock_step import LockStep, lock_step
from popcomm.envs.pettingzoo import ParallelEnvWorld
from popcomm.envs.plain_loop import PlainLoop, draw, split_mask
from popcomm.envs.world import WorldStep
from tests.envs.scripted_env import ScriptedEnv, SpaceEnv
from tests.envs.test_foreign_answers import Arena, Duo, FlagsInAList, KeepsItsDead, Stateful, StepOfFour
from tests.envs.test_pettingzoo_adapter import LIVES
from tests.envs.test_tuple_env import installed


def checked(env: Any, steps: int = 20, **config: Any) -> EnvCheck:
    return check_env(lambda _: env(**config), num_steps=steps)


@pytest.mark.parametrize("mask", [None, "observation", "info"])
def test_births_deaths_and_masks_are_in_lock_step_and_told(mask: str | None) -> None:
    check = checked(ScriptedEnv, script=LIVES, mask=mask, show_seed=True)
    assert check.wrong == []
    assert check.facts == {
        "species": ["a (4: a_0, ..., a_3) observes 3 numbers, acts in Discrete(4)"],
        "masks": ["of a" if mask else "none"],
        "positions": ["none, so topology k_nearest cannot be used"],
        "state": ["none, so critic central cannot be used"],
        "episodes": ["4 steps"],
        # Of the 20 steps of each world one in five opens an episode.
        "lock step": [
            "32 steps in 8 episodes: lives, rewards, flags, masks and observations are those of a plain loop"
        ],
    }
    assert check.notes == [
        "agents are done without a final observation: the one before stands for it",
        "agents leave `agents` and no flag says so: they count as terminated",
    ]
    assert set(check.rates) == {"a plain loop", "as worlds"}
    assert min(check.rates.values()) > 0


@pytest.mark.parametrize(
    ("creator", "config"),
    [
        (simple_spread_v3.parallel_env, {"max_cycles": 8, "continuous_actions": True}),
        (simple_speaker_listener_v4.parallel_env, {"max_cycles": 8}),
        (simple_crypto_v3.parallel_env, {"max_cycles": 8}),
        (simple_push_v3.parallel_env, {"max_cycles": 8}),
        (battle_v4.parallel_env, {"map_size": 12, "max_cycles": 8}),
        pytest.param(
            partial(from_gymnasium, "Foraging-8x8-2p-2f-v3"), {"max_episode_steps": 8}, marks=installed("lbforaging")
        ),
        pytest.param(partial(from_gymnasium, "rware-tiny-2ag-v2"), {"max_steps": 8}, marks=installed("rware")),
    ],
    ids=["spread", "speaker_listener", "crypto", "push", "battle", "foraging", "warehouse"],
)
def test_installed_environments_are_in_lock_step_with_a_plain_loop(creator: Any, config: dict[str, Any]) -> None:
    check = check_env(creator, config, num_steps=20)
    assert check.wrong == []
    assert check.facts["episodes"] == ["8 steps"]
    assert check.facts["lock step"][0].startswith("36 steps in 4 episodes")


class Errs(ParallelEnvWorld):
    """An adapter that spoils one field from the first step on."""

    field, spoil = "", staticmethod(lambda value: value)
    told = 0

    def _publish(self) -> WorldStep:
        step = super()._publish()
        Errs.told += 1
        value = getattr(step, self.field)
        spoilt = {k: self.spoil(v) for k, v in value.items()} if isinstance(value, dict) else self.spoil(value)
        return step._replace(**{self.field: spoilt}) if Errs.told > 1 else step


def stepped(world: ParallelEnvWorld, make: Any, steps: int = 15) -> LockStep:
    return lock_step(world, [PlainLoop(make()) for _ in range(world.num_worlds)], steps)


@pytest.mark.parametrize(
    ("field", "spoil", "said"),
    [
        ("rewards", lambda x: x + 1, "agent 'a_0': the reward is "),
        ("observations", lambda x: x + torch.tensor([0.0, 0.0, 1.0]), "number 2 of the observation differs"),
        ("terminated", torch.logical_not, r"terminated and truncated are \(True, False\) here"),
        ("truncated", torch.logical_not, r"terminated and truncated are \(False, True\) here"),
        ("alive", lambda x: torch.zeros_like(x), "it is not alive here"),
        ("alive", lambda x: torch.ones_like(x), "agent 'a_[23]': it is alive here"),
        ("action_masks", torch.logical_not, "the action masks differ"),
        ("action_masks", torch.ones_like, "the action masks differ"),
    ],
)
def test_an_adapter_that_errs_is_found_out(field: str, spoil: Any, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def make() -> ScriptedEnv:
        return ScriptedEnv(LIVES, mask="observation", show_seed=True)

    assert not stepped(ParallelEnvWorld(lambda _: make(), 2), make).difference
    monkeypatch.setattr(Errs, "told", 0)
    monkeypatch.setattr(Errs, "field", field)
    monkeypatch.setattr(Errs, "spoil", staticmethod(spoil))
    difference = stepped(Errs(lambda _: make(), 2), make).difference
    assert difference.startswith("world 0, episode of seed ")
    with pytest.raises(AssertionError, match=said):
        raise AssertionError(difference)


class Forgetful(Duo):
    """An episode is not that of its seed alone, but of how many there were before it."""

    resets = 0

    def reset(self, seed: int | None = None, options: dict | None = None) -> Any:
        self.resets += 1
        return super().reset(seed)

    def see(self, agent: str) -> Any:
        return np.array([self.t, self.resets % 7], np.float32)


class Unseeded(Duo):
    def see(self, agent: str) -> Any:
        return np.random.default_rng().random(2)


class Broken(Duo):
    def step(self, actions: dict[str, Any]) -> Any:
        return self.no_such_part


class Blank(Duo):
    def see(self, agent: str) -> Any:
        return np.array([np.nan if self.t == 2 else 0.0, 0.0])


@pytest.mark.parametrize(
    ("env", "said"),
    [
        (
            Unseeded,
            "with the same seed and actions two copies differ, .*: in step 0 the observations of agent 'bird_0'",
        ),
        (Forgetful, "an episode is not a function of its seed and actions alone: step 0: .*`observations` differs"),
        (Broken, "it raises AttributeError: 'Broken' object has no attribute 'no_such_part'"),
        (Blank, "step 2 of the episode .* number 0 of the observation of agent 'bird_0' is nan"),
        (StepOfFour, r"step\(\) of .* returned four values, .* `dones` are terminations"),
        (FlagsInAList, r"the terminations that step\(\) of .* are of type list"),
        (object, "the creator returned a object without 'possible_agents'"),
    ],
)
def test_what_is_wrong_is_one_sentence(env: type, said: str) -> None:
    [sentence] = checked(env).wrong
    with pytest.raises(AssertionError, match=said):
        raise AssertionError(sentence)


class PaysTheDead(KeepsItsDead):
    def __init__(self) -> None:
        super().__init__()
        self.possible_agents.append("ghost")

    def reset(self, seed: int | None = None, options: dict | None = None) -> Any:
        seen, told = super().reset(seed)
        self.agents.remove("ghost")
        return {a: seen[a] for a in self.agents}, {a: told[a] for a in self.agents}

    def step(self, actions: dict[str, Any]) -> Any:
        seen, paid, ended, over, told = super().step(actions)
        return seen, {**paid, "ghost": 1.0}, ended, over, told


def waits(agent: str, t: int) -> dict[str, Any]:
    return {"action_mask": np.full(3, agent == f"bird_{t % 2}")}


class Turns(Duo):
    def reset(self, seed: int | None = None, options: dict | None = None) -> Any:
        seen, told = super().reset(seed)
        return seen, {a: waits(a, self.t) for a in told}

    def step(self, actions: dict[str, Any]) -> Any:
        seen, paid, ended, over, told = super().step(actions)
        return seen, paid, ended, over, {a: waits(a, self.t) for a in told}


class Outside(Duo):
    def see(self, agent: str) -> Any:
        return np.array([0.0, 12.5])


class Poor(Duo):
    def pay(self, agent: str) -> float:
        return 0.0


class LosesItsState(Stateful):
    def state(self) -> Any:
        return np.zeros(2 + self.t % 2)


class Large(Duo):
    def observation_space(self, agent: str) -> spaces.Space:
        return spaces.Box(0, 255, (100, 101, 3), np.uint8)

    def see(self, agent: str) -> Any:
        return np.zeros((100, 101, 3), np.uint8)


class Steered(Duo):
    """A mask of what cannot be masked is an observation like others."""

    def observation_space(self, agent: str) -> spaces.Space:
        return spaces.Dict({"action_mask": spaces.MultiBinary(2), "seen": super().observation_space(agent)})

    def action_space(self, agent: str) -> spaces.Space:
        return spaces.Box(0, 1, (1,))

    def see(self, agent: str) -> Any:
        return {"action_mask": np.array([1, 0], np.int8), "seen": super().see(agent)}


class Cells(Duo):
    def observation_space(self, agent: str) -> spaces.Space:
        return spaces.Box(0, 1, (2, 2), np.uint8)

    def see(self, agent: str) -> Any:
        return np.ones((2, 2), np.uint8)


class Nested(Duo):
    def observation_space(self, agent: str) -> spaces.Space:
        return spaces.Dict({"observation": spaces.Dict({"action_mask": spaces.MultiBinary(3)})})

    def see(self, agent: str) -> Any:
        return {"observation": {"action_mask": np.ones(3, np.int8)}}


class Misplaced(Duo):
    positions = {"bird_0": 0, "bird_1": 1}  # noqa: RUF012


class Unpicklable(Duo):
    def __init__(self) -> None:
        super().__init__()
        self.hook = lambda: None


@pytest.mark.parametrize(
    ("env", "note"),
    [
        (Arena, "agents that are done stay in `agents` while others go on: their next life begins at once"),
        (PaysTheDead, "agents that did not act get rewards: these are not counted"),
        (Turns, "in 50% of the agents' steps nothing is allowed (they are not on move): these count as decisions"),
        (Outside, "number 1 of the observation of agent 'bird_0' was 12.5, outside its bounds [-9, 9]"),
        (Poor, "every reward was 0 with random actions: there may be nothing to learn from at first"),
        (LosesItsState, "state() fails, and the one before stands for it: ValueError: it had 2 numbers"),
        (
            Large,
            "'bird' observes 30,300 numbers: a layer of 64 has 1,939,200 weights, and a step of an agent is 0.1 MB",
        ),
        (Steered, "'bird' has an action_mask and Box actions: the mask is a part of what it observes"),
        (Cells, "'bird' observes bytes from 0 to 1, which count as a picture: networks get them divided by 1"),
        (Nested, "'bird' has an action_mask inside a part of its observation: it is observed, and not obeyed"),
        (Misplaced, "`positions` are not taken for positions: that of agent 'bird_0' is 0"),
        (Unpicklable, "it cannot be pickled: a training that is resumed starts new episodes"),
    ],
)
def test_what_is_worth_knowing_is_told_and_nothing_else(env: type, note: str) -> None:
    check = checked(env)
    assert check.wrong == []
    assert [line for line in check.notes if line.startswith(note)]
    quiet = checked(Duo)
    assert quiet.notes == []
    assert quiet.wrong == []


def test_a_mask_that_is_all_of_an_observation_is_in_lock_step() -> None:
    class MaskAlone(Duo):
        def observation_space(self, agent: str) -> spaces.Space:
            return spaces.Dict({"action_mask": spaces.MultiBinary(3)})

        def see(self, agent: str) -> Any:
            return {"action_mask": np.array([1, 0, 1], np.int8)}

    assert checked(MaskAlone).wrong == []


class Wandering(Duo):
    @property
    def positions(self) -> dict[str, Any]:
        return {a: (float(self.t), float(i)) for i, a in enumerate(self.possible_agents)}


def test_positions_that_differ_from_a_plain_loop_are_found_out() -> None:
    class Misplaces(ParallelEnvWorld):
        def step(self, actions: Any, spoken: Any = None) -> WorldStep:
            told = super().step(actions, spoken)
            return told._replace(positions=told.positions + 1)

    assert stepped(ParallelEnvWorld(lambda _: Wandering(), 2), Wandering).difference == ""
    assert "its position is" in stepped(Misplaces(lambda _: Wandering(), 2), Wandering).difference


def test_too_few_steps_for_an_episode_are_told() -> None:
    check = checked(Duo, steps=3)
    assert check.facts["episodes"] == ["none ended in 3 steps"]
    assert check.notes == ["no episode ended in 3 steps, so none was looked at: raise --steps"]


def test_all_kinds_of_actions_come_through_as_they_were_drawn() -> None:
    box = spaces.Box(np.array([[-1.0, 2.0]]), np.array([[np.inf, 5.0]]), dtype=np.float64)
    kinds = [
        spaces.Discrete(3, start=4),
        spaces.MultiDiscrete([[2, 3], [4, 5]], start=[[1, 0], [0, -2]]),
        spaces.MultiBinary((2, 2)),
        box,
        spaces.Box(-3, 9, (2,), np.int16),
    ]
    for space in kinds:
        seen = (spaces.Box(-1, 1, (1,)), np.zeros(1), space)

        def make(seen: Any = seen) -> SpaceEnv:
            return SpaceEnv({"x_0": seen, "x_1": seen})

        world, loop = ParallelEnvWorld(lambda _, make=make: make(), 1), PlainLoop(make())
        assert not lock_step(world, [loop], 5).difference
        for mine, plain in zip(world._envs[0].taken, loop.env.taken, strict=True):
            for agent in ("x_0", "x_1"):
                assert space.contains(plain[agent])
                assert np.array_equal(mine[agent], plain[agent])


def test_random_actions_are_those_that_a_mask_allows() -> None:
    rng = np.random.default_rng(0)
    space = spaces.MultiDiscrete([3, 2], start=[10, 0])
    mask = np.array([False, True, True, False, False])
    assert [part.tolist() for part in split_mask(space, mask)] == [[False, True, True], [False, False]]
    drawn = {tuple(draw(space, mask, rng).tolist()) for _ in range(50)}
    assert drawn == {(11, 0), (12, 0)}


def test_an_answer_has_the_fields_that_step_returns() -> None:
    assert Answer._fields == ("observations", "rewards", "terminated", "truncated", "infos")
