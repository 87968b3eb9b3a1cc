"""What environments of others may answer, and what is said where they answer otherwise."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from mpe2 import simple_v3
from pettingzoo import ParallelEnv

from popcomm.channels import Full, Symbols
from popcomm.envs import with_messages
from popcomm.envs.pettingzoo import ParallelEnvWorld
from popcomm.envs.testing import world_api_test
from popcomm.envs.world import WorldStep
from popcomm.errors import UserError

SEES = spaces.Box(-9.0, 9.0, (2,), np.float32)


class Duo(ParallelEnv):
    """Two birds that count; an episode has four steps, or as many as are given. Tests change one answer each."""

    metadata = {"name": "duo"}  # noqa: RUF012

    def __init__(self, steps: int = 4, names: tuple[str, ...] = ("bird_0", "bird_1")) -> None:
        self.possible_agents, self.agents, self.steps, self.t = list(names), [], steps, 0

    def observation_space(self, agent: str) -> spaces.Space:
        return SEES

    def action_space(self, agent: str) -> spaces.Space:
        return spaces.Discrete(3)

    def see(self, agent: str) -> Any:
        return np.array([self.t, self.possible_agents.index(agent)], np.float32)

    def pay(self, agent: str) -> Any:
        return 1.0

    def reset(self, seed: int | None = None, options: dict | None = None) -> Any:
        self.agents, self.t = list(self.possible_agents), 0
        return {a: self.see(a) for a in self.agents}, {a: {} for a in self.agents}

    def step(self, actions: dict[str, Any]) -> Any:
        assert set(actions) == set(self.agents)
        self.t += 1
        who, over = list(self.agents), self.t >= self.steps
        seen, paid, told = {a: self.see(a) for a in who}, {a: self.pay(a) for a in who}, {a: {} for a in who}
        if over:
            self.agents = []
        return seen, paid, dict.fromkeys(who, False), dict.fromkeys(who, over), told


def world_of(env: type, worlds: int = 1) -> ParallelEnvWorld:
    return ParallelEnvWorld(lambda _: env(), worlds)


def play(world: ParallelEnvWorld, steps: int) -> list[WorldStep]:
    nothing = {name: torch.zeros(world.num_worlds, s.num_seats, dtype=torch.int64) for name, s in world.species.items()}
    return [world.reset(0), *(world.step(nothing) for _ in range(steps))]


def complaint(env: type, steps: int = 5) -> str:
    with pytest.raises(UserError) as caught:
        play(world_of(env), steps)
    return str(caught.value)


# ---- calls of another time or library ----


class ResetOfOneDict(Duo):
    def reset(self, seed: int | None = None, options: dict | None = None) -> Any:
        return super().reset(seed)[0]


class ResetWithoutSeed(Duo):
    def reset(self) -> Any:  # type: ignore[override]
        return super().reset()


class StepOfFour(Duo):
    def step(self, actions: dict[str, Any]) -> Any:
        seen, paid, _, over, told = super().step(actions)
        return seen, paid, over, told


class FlagsInAList(Duo):
    def step(self, actions: dict[str, Any]) -> Any:
        seen, paid, ended, over, told = super().step(actions)
        return seen, paid, list(ended), over, told


@pytest.mark.parametrize(
    ("env", "words"),
    [
        (ResetOfOneDict, r"reset\(\) .* returned one dict, .* must return \(observations, infos\)"),
        (ResetWithoutSeed, r"reset\(\) of 'duo' takes no seed"),
        (StepOfFour, r"step\(\) .* returned four values, .* `dones` are terminations"),
        (FlagsInAList, r"the terminations that step\(\) .* are of type list"),
    ],
)
def test_calls_of_an_older_api_are_named_by_the_world_and_by_with_messages(env: type, words: str) -> None:
    def converse() -> None:
        talk = with_messages(env(), messages=Symbols(4, 1), topology=Full())
        talk.reset(seed=1)
        talk.step({a: {"action": 0, "message": np.array([1])} for a in talk.agents})

    with pytest.raises(UserError, match=words):
        play(world_of(env), 2)
    with pytest.raises(UserError, match=words):
        converse()


def test_environments_of_other_kinds_are_named_for_what_they_are() -> None:
    import gymnasium

    rllibs = type("MultiAgentEnv", (), {"__module__": "ray.rllib.env.multi_agent_env", "possible_agents": ["a"]})
    mine = type("Mine", (rllibs,), {})
    for env, words in [
        (gymnasium.make("CartPole-v1"), "a Gymnasium Env of one agent"),
        (mine(), r"Mine, a MultiAgentEnv of RLlib, .* no '__all__'"),
        (simple_v3.env(), r"the AECEnv 'simple_v3'.*parallel_env\(\)"),
        (type("Half", (), {"possible_agents": ["a"], "reset": None})(), "a Half whose 'reset' is NoneType"),
    ]:
        with pytest.raises(UserError, match=words):
            ParallelEnvWorld(lambda _, env=env: env, 1)
        with pytest.raises(UserError, match=words):
            with_messages(env, messages=Symbols(4, 1), topology=Full())


# ---- keys ----


class AllAtOnce(Duo):
    def step(self, actions: dict[str, Any]) -> Any:
        seen, paid, ended, _, told = super().step(actions)
        return seen, paid, ended, {"__all__": self.t >= self.steps}, told


class Misspelt(Duo):
    def step(self, actions: dict[str, Any]) -> Any:
        seen, paid, ended, over, told = super().step(actions)
        return seen, {a.replace("_", " "): r for a, r in paid.items()}, ended, over, told


class PaysOne(Duo):
    def step(self, actions: dict[str, Any]) -> Any:
        seen, paid, ended, over, told = super().step(actions)
        return seen, {"bird_0": paid["bird_0"]}, ended, over, told


class TellsOne(Duo):
    def step(self, actions: dict[str, Any]) -> Any:
        seen, paid, _, _, told = super().step(actions)
        return seen, paid, {"bird_1": False}, {"bird_1": False}, told


def test_keys_that_no_agent_bears_are_refused_with_the_nearest_name() -> None:
    assert "the truncations hold '__all__', which is RLlib's way" in complaint(AllAtOnce)
    assert "the rewards hold 'bird 0', which no agent is called; did you mean 'bird_0'?" in complaint(Misspelt)


def test_rewards_and_flags_that_are_missing_are_told() -> None:
    assert "step 1 of the episode" in complaint(PaysOne)
    assert "agent 'bird_1' acted, and there is no reward for it" in complaint(PaysOne)
    assert "agent 'bird_0' acted and is in `agents`, and no flag says whether it is done" in complaint(TellsOne)


# ---- numbers ----


@pytest.mark.parametrize(
    ("reward", "said"),
    [
        (np.array([2.5]), None),
        (np.float32(2.5), None),
        (torch.tensor([[2.5]]), None),
        (True, None),
        (np.array([1.0, 2.0]), "the reward of agent 'bird_1' has 2 numbers, and must be one"),
        (None, "the reward of agent 'bird_1' is None, and must be a number"),
        ("much", "the reward of agent 'bird_1' is 'much'"),
        (float("nan"), "world 1 failed in step 3 .* the reward of agent 'bird_1' is nan, and must be finite"),
        (1e300, "the reward of agent 'bird_1' is inf, and must be finite"),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow")
def test_a_reward_is_one_finite_number(reward: Any, said: str | None) -> None:
    made: list[Duo] = []

    class Pays(Duo):
        def __init__(self) -> None:
            super().__init__()
            made.append(self)

        def pay(self, agent: str) -> Any:
            return reward if agent == "bird_1" and self.t == 3 and self is made[1] else 1.0

    if said is None:
        assert play(world_of(Pays, 2), 3)[3].rewards.tolist() == [[1.0, 1.0], [1.0, float(np.ravel(reward)[0])]]
        return
    with pytest.raises(UserError, match=said):
        play(world_of(Pays, 2), 3)


def seeing(space: spaces.Space, value: Any) -> type:
    class Sees(Duo):
        def observation_space(self, agent: str) -> spaces.Space:
            return space

        def see(self, agent: str) -> Any:
            return value

    return Sees


@pytest.mark.parametrize(
    ("space", "value", "said"),
    [
        (spaces.Discrete(4), -1, "its observation is -1, and must be of Discrete"),
        (spaces.Discrete(4, start=2), 6, "must be of Discrete"),
        (spaces.Discrete(4), 1.5, "its observation is 1.5"),
        (spaces.MultiDiscrete([2, 3]), [1, 3], r"its observation is \[1, 3\]"),
        (spaces.MultiBinary(2), [1, 2], "number 1 of .* is 2, and must be between 0 and 1"),
        (spaces.Box(0, 9, (2,), np.int64), [3, -1], "number 1 of .* is -1, and must be between 0 and 9"),
        (SEES, [3.0], r"is \[3.0\] of shape \(1,\), and must be of Box"),
        (SEES, 3.0, r"is 3.0 of shape \(\), and must be of Box"),
        (spaces.Box(0, 1, (2, 3)), np.zeros((3, 2)), r"of shape \(3, 2\), and must be of Box"),
        (SEES, [3.0, float("inf")], "number 1 of .* is inf, and must be finite"),
        (SEES, ["a", "b"], "must be of Box"),
        (spaces.Dict({"near": SEES, "far": SEES}), {"near": [0, 0]}, r"no entry \['far'\]"),
        (spaces.Tuple([SEES, spaces.Discrete(2)]), ([0, 0], 2), r"its observation\[1\] is 2"),
        (spaces.Text(2), "abcde", "its observation is 'abcde'"),
    ],
)
def test_observations_are_held_against_their_spaces(space: spaces.Space, value: Any, said: str) -> None:
    with pytest.raises(UserError, match=rf"step 0 .* agent 'bird_0'.*{said}|step 0 .*{said}") as caught:
        world_of(seeing(space, value))
    assert "bird_0" in str(caught.value)


def test_an_observation_that_breaks_later_names_world_step_and_agent() -> None:
    class Breaks(Duo):
        def see(self, agent: str) -> Any:
            return np.array([np.nan if agent == "bird_1" and self.t == 2 else 0, 0], np.float32)

    assert "world 0 failed in step 2 of the episode with seed" in complaint(Breaks)
    assert "number 0 of the observation of agent 'bird_1' is nan, and must be finite" in complaint(Breaks)


@pytest.mark.parametrize(
    ("space", "value"),
    [
        (SEES, [99.0, -99.0]),  # bounds of real numbers are often a guess
        (SEES, torch.tensor([1.0, 2.0])),
        (spaces.Box(0, 1, (1,)), 0.5),
        (spaces.Box(0, 1, ()), np.array([0.5])),
        (spaces.Discrete(3), np.array([2])),
        (spaces.Discrete(2), True),
        (
            spaces.Dict({"b": spaces.MultiDiscrete([[2, 3]], start=[[1, 1]]), "a": spaces.Tuple([spaces.Discrete(2)])}),
            {"b": [[2, 3]], "a": (1,)},
        ),
    ],
)
def test_what_fits_is_flattened_as_gymnasium_does(space: spaces.Space, value: Any) -> None:
    observed = world_of(seeing(space, value)).reset(0).observations["bird"][0, 1]
    if isinstance(space, spaces.Box):
        assert observed.tolist() == np.ravel(value).tolist()
        return
    given = {"b": np.array(value["b"]), "a": value["a"]} if isinstance(value, dict) else np.ravel(value)[0]
    assert observed.tolist() == spaces.flatten(space, given).tolist()


# ---- sizes of zero ----


def test_an_observation_of_no_numbers_is_one_zero() -> None:
    world = world_of(seeing(spaces.Box(-1, 1, (0,), np.float32), np.zeros(0)))
    assert world.species["bird"].obs_size == 1
    assert world.reset(0).observations["bird"].tolist() == [[[0.0], [0.0]]]
    talk = with_messages(seeing(spaces.Tuple([]), ())(), Symbols(3, 1), Full(), layout="flat")
    observations, _ = talk.reset(seed=1)
    assert talk.observation_space("bird_0").contains(observations["bird_0"])


@pytest.mark.parametrize("space", [spaces.Box(-1, 1, (0,)), spaces.MultiDiscrete([])])
def test_an_action_space_without_anything_to_choose_is_refused(space: spaces.Space) -> None:
    class Idle(Duo):
        def action_space(self, agent: str) -> spaces.Space:
            return space

    with pytest.raises(UserError, match="nothing to choose; an agent that only speaks has Discrete"):
        world_of(Idle)


def test_a_space_of_another_library_is_named() -> None:
    class Old(Duo):
        def action_space(self, agent: str) -> Any:
            return object()

    with pytest.raises(UserError, match=r"action space of agent 'bird_0' is of type builtins.object"):
        world_of(Old)


# ---- masks ----


@pytest.mark.parametrize("name", ["observation", "observations", "obs", "state", "real_obs"])
def test_a_mask_is_found_beside_an_entry_of_any_name(name: str) -> None:
    class Masked(Duo):
        def observation_space(self, agent: str) -> spaces.Space:
            return spaces.Dict({name: SEES, "action_mask": spaces.MultiBinary(3), "also": spaces.Discrete(2)})

        def see(self, agent: str) -> Any:
            return {name: super().see(agent), "action_mask": np.array([0, 1, self.t % 2]), "also": 1}

    world = world_of(Masked)
    assert world.species["bird"].has_action_mask
    assert world.species["bird"].obs_size == 2 + 2
    steps = play(world, 1)
    assert [step.action_masks["bird"][0, 1].tolist() for step in steps if step.action_masks] == [
        [False, True, False],
        [False, True, True],
    ]
    also, seen = [0.0, 1.0], [1.0, 1.0]  # entries in the order of their names
    assert steps[1].observations["bird"][0, 1].tolist() == ([*also, *seen] if name > "also" else [*seen, *also])


def test_a_dict_of_nothing_but_a_mask_is_an_observation_of_no_numbers() -> None:
    world = world_of(seeing(spaces.Dict({"action_mask": spaces.MultiBinary(3)}), {"action_mask": [1, 0, 1]}))
    step = world.reset(0)
    assert step.observations["bird"].shape == (1, 2, 1)
    assert step.action_masks is not None
    assert step.action_masks["bird"][0].tolist() == [[True, False, True]] * 2


def test_a_mask_that_is_missing_or_of_another_size_names_the_agent() -> None:
    space = spaces.Dict({"obs": SEES, "action_mask": spaces.MultiBinary(3)})
    for value, said in [
        ({"obs": [0, 0]}, "agent 'bird_0': its observation has no 'action_mask'"),
        ({"obs": [0, 0], "action_mask": [1, 1]}, "agent 'bird_0': an action mask has 2 entries"),
    ]:
        with pytest.raises(UserError, match=said):
            world_of(seeing(space, value))


# ---- lives ----


class Arena(Duo):
    """bird_0 is killed and put back in steps 2 and 5 of seven."""

    def __init__(self) -> None:
        super().__init__(steps=7)

    def step(self, actions: dict[str, Any]) -> Any:
        seen, paid, ended, over, told = super().step(actions)
        ended["bird_0"] = self.t in (2, 5)
        return seen, paid, ended, over, told


def test_who_is_killed_and_put_back_in_one_step_loses_none(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        steps = play(world_of(Arena), 8)
    assert "agent 'bird_0' is done and stays in `agents`" in caplog.text
    assert caplog.text.count("stays in") == 1
    assert [step.rewards[0].tolist() for step in steps[1:8]] == [[1.0, 1.0]] * 7
    assert [step.alive[0].tolist() for step in steps[:7]] == [[True, True]] * 7
    assert not steps[7].alive.any()
    assert [bool(step.terminated[0, 0]) for step in steps[:8]] == [t in (2, 5) for t in range(8)]
    assert [bool(step.first[0, 0]) for step in steps] == [t in (0, 2, 5, 8) for t in range(9)]
    world_api_test(world_of(Arena, 2), num_steps=20)


class KeepsItsDead(Duo):
    """bird_0 dies in step 2 of six, stays in `agents`, and is called dead until it is raised in step 5."""

    def __init__(self) -> None:
        super().__init__(steps=6)

    def step(self, actions: dict[str, Any]) -> Any:
        seen, paid, ended, over, told = super().step(actions)
        ended["bird_0"] = 2 <= self.t < 5
        return seen, paid, ended, over, told


def test_the_dead_that_stay_in_agents_are_asked_for_nothing_and_end_no_training() -> None:
    steps = play(world_of(KeepsItsDead), 7)
    # Its life of one step, in row 2, is the price of not knowing yet.
    assert [bool(step.alive[0, 0]) for step in steps] == [True, True, True, False, False, True, False, True]
    assert [bool(step.terminated[0, 0]) for step in steps] == [t in (2, 3) for t in range(8)]
    assert [bool(step.first[0, 0]) for step in steps] == [t in (0, 2, 5, 7) for t in range(8)]
    world_api_test(world_of(KeepsItsDead, 2), num_steps=20)


def test_an_environment_that_forgets_to_empty_agents_ends_when_all_are_done() -> None:
    class Forgets(Duo):
        def step(self, actions: dict[str, Any]) -> Any:
            told = super().step(actions)
            self.agents = list(self.possible_agents)
            return told

    steps = play(world_of(Forgets), 5)
    assert [bool(step.alive.any()) for step in steps] == [True, True, True, True, False, True]
    assert steps[4].truncated.all()


def test_lives_put_back_are_in_the_state_of_the_world() -> None:
    world, again = world_of(Duo), world_of(Duo)
    world.reset(0)
    world._rows.arrays["returned"][0, 1] = True
    state = world.get_state()
    assert state is not None
    again.reset(1)
    again.set_state(state)
    assert again._rows.arrays["returned"].tolist() == [[False, True]]


# ---- the latent state ----


class Stateful(Duo):
    """state() is the step, and its answers can be spoiled."""

    asked = 0
    spoil: Any = None

    def state(self) -> Any:
        type(self).asked += 1
        return np.array([self.t, 7]) if self.spoil is None or not self.agents else self.spoil(self)


def stateful(spoil: Any = None) -> type:
    return type("Spoilt", (Stateful,), {"spoil": staticmethod(spoil) if spoil else None, "asked": 0})


def test_the_state_is_not_asked_for_where_nobody_reads_it() -> None:
    env = stateful()
    world = world_of(env)
    assert world.state_size == 2
    looked = env.asked
    play(world, 3)
    assert env.asked == looked + 4
    world.tells_state = False
    steps = play(world, 3)
    assert env.asked == looked + 4
    assert all(step.state is None for step in steps)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda env: np.zeros(3), "it had 2 numbers at the start, and now has 3"),
        (lambda env: [0.0, np.nan], "its entry 1 is not finite"),
        (lambda env: env.no_such_body, "no attribute 'no_such_body'"),
        (lambda env: {"a": 1}, "its entries are of type object"),
    ],
)
def test_a_state_that_fails_leaves_the_one_before_and_is_told_once(
    answer: Any, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    env = stateful(lambda env: answer(env) if env.t >= 2 else np.array([env.t, 7]))
    with caplog.at_level(logging.WARNING):
        steps = play(world_of(env), 3)
    assert [step.state[0].tolist() for step in steps if step.state is not None] == [[0, 7], [1, 7], [1, 7], [1, 7]]
    assert caplog.text.count("the state before stands for it") == 1
    assert said in caplog.text


def test_a_state_that_is_gone_when_all_are_dead_is_not_worth_a_word(caplog: pytest.LogCaptureFixture) -> None:
    class TakenApart(Duo):
        def state(self) -> Any:
            return np.array([self.agents.index("bird_1"), self.t])

    with caplog.at_level(logging.INFO):
        steps = play(world_of(TakenApart), 5)
    assert [step.state[0, 1].item() for step in steps if step.state is not None] == [0, 1, 2, 3, 3, 0]
    assert not caplog.records
