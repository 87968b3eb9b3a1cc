"""Any ParallelEnv as a World: lives, seeds, spaces, masks, state, worked out by hand on scripted environments."""

from __future__ import annotations

import functools
import itertools
import logging
import os
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from mpe2 import simple_reference_v3, simple_speaker_listener_v4, simple_spread_v3, simple_tag_v3

from popcomm.channels import Symbols
from popcomm.envs.messaging import with_messages
from popcomm.envs.pettingzoo import ParallelEnvWorld
from popcomm.envs.process_worlds import ProcessWorlds
from popcomm.envs.testing import world_api_test
from popcomm.envs.world import WorldStep
from popcomm.errors import UserError
from tests.envs.scripted_env import ScriptedEnv, SpaceEnv

LIVES = [
    {"a_2": "born"},
    {"a_0": "terminated", "a_1": "truncated"},
    {"a_0": "born", "a_2": "vanished"},
    {"a_0": "both"},
]


def scripted(worlds: int = 1, script: list | None = None, **rest: Any) -> ParallelEnvWorld:
    return ParallelEnvWorld(lambda _: ScriptedEnv(LIVES if script is None else script, **rest), worlds)


def play(world: ParallelEnvWorld, steps: int, actions: Any = None, seed: int = 0) -> list[WorldStep]:
    """The rows of `steps` steps; actions are 1, 2, 3, ... by seat unless given."""
    seats = torch.arange(1, world.num_agents + 1).repeat(world.num_worlds, 1)
    actions = actions or {name: seats[:, s.seats] % 4 for name, s in world.species.items()}
    return [world.reset(seed), *(world.step(actions) for _ in range(steps))]


def rows(steps: list[WorldStep], field: str, world: int = 0) -> list[list[Any]]:
    return [getattr(step, field)[world].tolist() for step in steps]


def random_actions(world: ParallelEnvWorld, generator: torch.Generator) -> dict[str, torch.Tensor]:
    shape = world.num_worlds
    return {
        name: torch.randint(int(s.action_space.n), (shape, s.num_seats), generator=generator)
        for name, s in world.species.items()
    }


def test_births_and_deaths_are_told_as_worked_out_by_hand() -> None:
    steps = play(scripted(), 5)
    yes, no = True, False
    assert rows(steps, "alive") == [
        [yes, yes, no, no],
        [yes, yes, yes, no],
        [no, no, yes, no],
        [yes, no, no, no],
        [no, no, no, no],
        [yes, yes, no, no],
    ]
    assert rows(steps, "first") == [
        [yes, yes, no, no],
        [no, no, yes, no],
        [no, no, no, no],
        [yes, no, no, no],
        [no, no, no, no],
        [yes, yes, no, no],
    ]
    # a_2 left without a word in step 3, a_0 was both terminated and truncated in step 4: both count as terminated.
    assert rows(steps, "terminated") == [
        [no] * 4,
        [no] * 4,
        [yes, no, no, no],
        [no, no, yes, no],
        [yes, no, no, no],
        [no] * 4,
    ]
    assert rows(steps, "truncated") == [[no] * 4, [no] * 4, [no, yes, no, no], [no] * 4, [no] * 4, [no] * 4]


def test_rewards_are_those_of_the_seats_that_acted() -> None:
    assert rows(play(scripted(), 5), "rewards") == [
        [0, 0, 0, 0],
        [1, 2, 0, 0],
        [1, 2, 3, 0],
        [0, 0, 3, 0],
        [1, 0, 0, 0],
        [0, 0, 0, 0],
    ]


def test_a_seat_shows_its_final_observation_where_it_first_is_not_alive_and_zeros_after() -> None:
    observations = [step.observations["a"][0] for step in play(scripted(), 5)]
    # (episode, step, number); the first episode after the probe of the constructor is number 1.
    assert [o[0].tolist() for o in observations] == [[1, 0, 0], [1, 1, 0], [1, 2, 0], [1, 3, 0], [1, 4, 0], [2, 0, 0]]
    assert [o[1].tolist() for o in observations] == [[1, 0, 1], [1, 1, 1], [1, 2, 1], [0] * 3, [0] * 3, [2, 0, 1]]
    # a_2 vanished without a final observation, so its last one stands for it.
    assert [o[2].tolist() for o in observations] == [[0] * 3, [1, 1, 2], [1, 2, 2], [1, 2, 2], [0] * 3, [0] * 3]


def test_worlds_end_and_open_independently() -> None:
    scripts = itertools.cycle([[{}] * 2, [{}] * 3])
    world = ParallelEnvWorld(lambda _: ScriptedEnv(next(scripts)), 2)
    steps = play(world, 8)
    assert [[bool(row.any()) for row in step.alive] for step in steps] == [
        [True, True],
        [True, True],
        [False, True],
        [True, False],
        [True, True],
        [False, True],
        [True, True],
        [True, False],
        [False, True],
    ]
    assert [step.observations["a"][0, 0, :2].tolist() for step in steps[2:5]] == [[1, 2], [2, 0], [2, 1]]


def test_the_step_that_opens_an_episode_ignores_actions_and_gives_no_reward() -> None:
    world = scripted(script=[{}])
    steps = play(world, 2)
    assert not steps[1].alive.any()
    assert steps[1].rewards[0, :2].tolist() == [1, 2]
    assert steps[2].first[0, :2].all()
    assert not steps[2].rewards.any()
    assert len(world._envs[0].taken) == 1


def test_rows_already_given_are_not_written_again() -> None:
    world = scripted()
    first = world.reset(0)
    copy = [x.clone() for x in (first.observations["a"], first.alive, first.first)]
    play(world, 3)
    assert all(
        torch.equal(x, y) for x, y in zip((first.observations["a"], first.alive, first.first), copy, strict=True)
    )


def test_every_copy_and_every_episode_has_a_seed_of_its_own_that_the_world_seed_decides() -> None:
    def seeds(seed: int) -> list[list[int]]:
        world = scripted(3, script=[{}])
        play(world, 6, seed=seed)
        return [env.seeds[1:] if world._envs.index(env) == 0 else env.seeds for env in world._envs]

    first, again, other = seeds(5), seeds(5), seeds(6)
    assert first == again
    assert first != other
    flat = [seed for copy in first for seed in copy]
    assert len(set(flat)) == len(flat) == 12


def test_reset_without_a_seed_goes_on_with_the_streams() -> None:
    world = scripted(script=[{}])
    world.reset(1)
    world.reset()
    world.reset(1)
    world.reset()
    a, b, c, d = world._envs[0].seeds[1:]
    assert (a, b) == (c, d)
    assert a != b


@pytest.mark.parametrize("where", ["observation", "info"])
def test_action_masks_are_honoured(where: str) -> None:
    world = scripted(script=[{"a_3": "born", "a_1": "terminated"}, {}, {}], mask=where)
    assert world.species["a"].has_action_mask
    assert world.species["a"].obs_size == 3
    steps = play(world, 2)
    masks = [step.action_masks["a"][0].tolist() for step in steps if step.action_masks is not None]
    first, second, third = ([i != t for i in range(4)] for t in range(3))
    everything = [True] * 4
    # Seats that do not act are open, and so is a_3: an environment that allows nothing ignores the choice.
    assert masks == [
        [first, first, everything, everything],
        [second, everything, everything, everything],
        [third, everything, everything, everything],
    ]
    assert [o[:3] for o in steps[1].observations["a"][0].tolist()] == [[1, 1, 0], [1, 1, 1], [0, 0, 0], [1, 1, 3]]


def test_masks_that_come_up_late_are_an_error_rather_than_overlooked() -> None:
    world = scripted(script=[{}, {}], mask="info", opening=("a_0",))
    env = world._envs[0]
    env.mask = None
    world = ParallelEnvWorld(lambda _: env, 1)
    world.reset(0)
    env.mask = "info"
    with pytest.raises(UserError, match=r"step 1 .* agent 'a_0' .* had none at reset"):
        world.step({"a": torch.zeros(1, 4, dtype=torch.int64)})


def test_positions_come_from_agent_positions() -> None:
    world = scripted(positions=True)
    steps = play(world, 2)
    assert world.position_size == 2
    # (number squared, step), of the agents that live; a_0 and a_1 stay where they died in step 2.
    assert rows(steps, "positions") == [
        [[0, 0], [1, 0], [0, 0], [0, 0]],
        [[0, 1], [1, 1], [4, 1], [0, 0]],
        [[0, 1], [1, 1], [4, 2], [0, 0]],
    ]
    assert scripted().position_size == 0
    assert play(scripted(), 1)[0].positions is None


@pytest.mark.parametrize(
    ("value", "size"),
    [
        (np.arange(8.0).reshape(4, 2), 2),
        ({f"a_{i}": np.array([2.0 * i, 2 * i + 1]) for i in range(4)}, 2),
        (np.zeros((7, 2)), 0),
        (3, 0),
    ],
)
def test_an_attribute_positions_serves_if_it_is_one_row_for_each_agent(value: Any, size: int) -> None:
    env = ScriptedEnv(LIVES)
    env.positions = value  # type: ignore[attr-defined]
    world = ParallelEnvWorld(lambda _: env, 1)
    assert world.position_size == size
    if size:
        assert rows([world.reset(0)], "positions")[0] == [[0, 1], [2, 3], [4, 5], [6, 7]]


class PlacedInReset(ScriptedEnv):
    """Where a_i stands is (seed of the episode, i), and there is no `positions` before the first reset."""

    def reset(self, seed: int | None = None, options: dict | None = None) -> tuple[dict, dict]:
        told = super().reset(seed)
        self.positions = {a: np.array([(seed or 0) % 1000, self._number(a)]) for a in self.agents}
        return told


@pytest.mark.parametrize("worlds", [ParallelEnvWorld, functools.partial(ProcessWorlds, processes=2)])
def test_positions_that_reset_creates_are_those_of_every_world(worlds: Any) -> None:
    world = worlds(PlacedInReset, 2, script=[{}] * 3)
    step = world.reset(0)
    for w, seed in enumerate(world.seeds):
        assert step.positions[w, :2].tolist() == [[seed % 1000, 0], [seed % 1000, 1]]
    world.close()


def test_messages_reach_the_nearest_where_reset_places_agents() -> None:
    env = with_messages(PlacedInReset([{}] * 3), Symbols(5, 1), {"kind": "k_nearest", "k": 1})
    assert env.channel.topology.needs_positions
    env.reset(seed=1)


class Where(ScriptedEnv):
    """`positions` is `told` from the reset on, and `later` from the second step on."""

    def __init__(self, told: Any, later: Any) -> None:
        super().__init__([{}] * 4)
        self.told, self.later = told, later

    def reset(self, seed: int | None = None, options: dict | None = None) -> tuple[dict, dict]:
        self.positions = self.told
        return super().reset(seed)

    def step(self, actions: dict[str, Any]) -> tuple[dict, dict, dict, dict, dict]:
        answer = super().step(actions)
        self.positions = self.told if self.t < 2 else self.later
        return answer


PLACED = {"a_0": (0.0, 1.0), "a_1": (2.0, 3.0)}


@pytest.mark.parametrize(
    ("later", "said"),
    [
        ({"a_0": (0.0, 1.0)}, "agent 'a_1' lives, and no position is told of it"),
        ({**PLACED, "a_1": None}, "the position of agent 'a_1' is None, and must be 2 finite numbers"),
        ({**PLACED, "a_1": (np.nan, 0.0)}, r"the position of agent 'a_1' is \(nan, 0.0\), and must be 2 finite"),
    ],
)
def test_one_who_lives_without_a_position_is_refused_with_the_step(later: Any, said: str) -> None:
    with pytest.raises(UserError, match=f"world 1 failed in step 2 .*{said}|world 0 failed in step 2 .*{said}"):
        play(ParallelEnvWorld(lambda _: Where(PLACED, later), 2), 3)


@pytest.mark.parametrize(
    "told",
    [
        {"a_0": 0, "a_1": 1},
        {"a_0": (0, 1, "north"), "a_1": (0, 1, "south")},
        {"a_0": (np.inf, 0.0), "a_1": (0.0, 0.0)},
        lambda agent: np.zeros(2),
    ],
)
def test_what_is_merely_called_positions_is_none(told: Any) -> None:
    world = ParallelEnvWorld(lambda _: Where(told, told), 2)
    assert world.position_size == 0
    assert play(world, 2)[-1].positions is None
    assert bool(world.position_failure) == (not callable(told))


def test_what_is_merely_called_speak_is_not_called() -> None:
    env = ScriptedEnv([{}] * 3)
    env.speak = 3  # type: ignore[attr-defined]
    world = ParallelEnvWorld(lambda _: env, 1)
    world.reset(0)
    world.step({"a": torch.zeros(1, 4, dtype=torch.long)}, torch.ones(1, 4))
    env.speak = lambda agent, words: 1 / 0  # type: ignore[attr-defined]
    world.step({"a": torch.zeros(1, 4, dtype=torch.long)}, torch.ones(1, 4))
    assert env.t == 2


def test_state_is_the_environments_and_absent_where_there_is_none() -> None:
    spread = ParallelEnvWorld(simple_spread_v3.parallel_env, 2)
    step = spread.reset(3)
    assert spread.state_size == 54
    assert step.state is not None
    assert step.state[1].tolist() == spread._envs[1].state().tolist()
    # In simple_spread the state is what all agents observe, one after the other.
    assert torch.equal(step.state, step.observations["agent"].flatten(1))
    assert scripted().state_size == 0
    assert play(scripted(), 1)[1].state is None


def act_with(space: spaces.Space, actions: Any) -> Any:
    """What the environment gets of the second agent's action."""
    observed = spaces.Box(-1, 1, (1,), np.float32)
    env = SpaceEnv({name: (observed, np.zeros(1, np.float32), space) for name in ("x_0", "x_1")})
    world = ParallelEnvWorld(lambda _: env, 1)
    world.reset(0)
    world.step({"x": torch.stack([torch.as_tensor(actions)] * 2).unsqueeze(0)})
    taken = env.taken[0]["x_1"]
    assert space.contains(taken)
    return taken


def test_discrete_actions_begin_at_the_spaces_start() -> None:
    assert act_with(spaces.Discrete(3, start=5), 2) == 7
    assert act_with(spaces.MultiDiscrete([3, 4], start=[10, -1]), [2, 0]).tolist() == [12, -1]
    assert act_with(spaces.MultiDiscrete(np.full((2, 2), 3)), [0, 1, 2, 0]).tolist() == [[0, 1], [2, 0]]
    assert act_with(spaces.MultiBinary(3), [1, 0, 1]).tolist() == [1, 0, 1]


def test_box_actions_are_clipped_to_their_bounds_and_have_the_spaces_type() -> None:
    box = spaces.Box(np.array([-1.0, 0.0]), np.array([1.0, np.inf]), dtype=np.float64)
    taken = act_with(box, [-5.0, 1e9])
    assert taken.tolist() == [-1.0, 1e9]
    assert taken.dtype == np.float64
    assert act_with(spaces.Box(0, 255, (1, 2), np.uint8), [300.0, 6.6]).tolist() == [[255, 7]]


def test_a_box_without_axes_is_acted_in() -> None:
    env = SpaceEnv({"x": (spaces.Discrete(2), 0, spaces.Box(-2, 2, (), np.float32))})
    world = ParallelEnvWorld(lambda _: env, 1)
    world.reset(0)
    world.step({"x": torch.tensor([[[3.0]]])})
    assert env.taken[0]["x"].shape == ()
    assert float(env.taken[0]["x"]) == 2.0


def test_actions_that_are_not_finite_are_refused_for_seats_that_act() -> None:
    observed = spaces.Box(-1, 1, (1,), np.float32)
    env = SpaceEnv({"x": (observed, np.zeros(1, np.float32), spaces.Box(-1, 1, (1,), np.float32))})
    world = ParallelEnvWorld(lambda _: env, 1)
    world.reset(0)
    with pytest.raises(ValueError, match="the action of 'x' in world 0 is not finite"):
        world.step({"x": torch.full((1, 1, 1), torch.nan)})


def test_observations_of_any_flattenable_space_become_vectors() -> None:
    space = spaces.Dict({"b": spaces.Discrete(3, start=1), "a": spaces.Box(0, 9, (2, 2), np.int64)})
    value = {"a": np.array([[1, 2], [3, 4]]), "b": 2}
    world = ParallelEnvWorld(lambda _: SpaceEnv({"x": (space, value, spaces.Discrete(2))}), 1)
    assert world.species["x"].obs_size == 7
    # Gymnasium's order of a Dict is that of its keys; a Discrete is one-hot.
    assert world.reset(0).observations["x"].flatten().tolist() == [1, 2, 3, 4, 0, 1, 0]


def groups_of(faces: dict[str, int]) -> dict[str, tuple[str, ...]]:
    """Species of agents whose observation sizes are given."""
    env = SpaceEnv(
        {
            name: (spaces.Box(-1, 1, (size,), np.float32), np.zeros(size, np.float32), spaces.Discrete(2))
            for name, size in faces.items()
        }
    )
    return {name: s.agents for name, s in ParallelEnvWorld(lambda _: env, 1).species.items()}


def test_species_are_agents_with_equal_spaces_in_natural_order() -> None:
    assert groups_of({"agent_10": 1, "agent_2": 1, "agent_0": 1}) == {"agent": ("agent_0", "agent_2", "agent_10")}
    assert groups_of({"walker_1": 2, "bird_0": 1, "walker_0": 2}) == {
        "bird": ("bird_0",),
        "walker": ("walker_0", "walker_1"),
    }
    assert groups_of({"good_red": 1, "good_blue": 1}) == {"good": ("good_blue", "good_red")}


def test_species_without_a_name_of_their_own_are_numbered() -> None:
    assert groups_of({"agent_0": 1, "agent_1": 2}) == {"species_0": ("agent_0",), "species_1": ("agent_1",)}
    assert groups_of({"red": 1, "blue": 1}) == {"species_0": ("blue", "red")}


def test_seats_of_species_follow_one_another() -> None:
    world = ParallelEnvWorld(simple_tag_v3.parallel_env, 1)
    assert [(s.name, s.start, s.stop, s.obs_size) for s in world.species.values()] == [
        ("adversary", 0, 3, 16),
        ("agent", 3, 4, 14),
    ]


def test_order_of_agents_does_not_depend_on_the_hash_seed() -> None:
    code = (
        "from tests.envs.scripted_env import ScriptedEnv; from popcomm.envs.pettingzoo import ParallelEnvWorld\n"
        "names = {f'a_{i}' for i in range(30)}\n"
        "world = ParallelEnvWorld(lambda _: ScriptedEnv([], tuple(names), tuple(names)), 1)\n"
        "print(list(names)); print(world.species['a'].agents)"
    )

    root = str(Path(__file__).parents[2])
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": root},
            stdout=subprocess.PIPE,
            text=True,
        )
        for seed in ("1", "2")
    ]
    (raw_1, ordered_1), (raw_2, ordered_2) = (process.communicate()[0].splitlines() for process in processes)
    assert raw_1 != raw_2
    assert ordered_1 == ordered_2 == str(tuple(f"a_{i}" for i in range(30)))


MPE = [simple_spread_v3, simple_speaker_listener_v4, simple_reference_v3]


@pytest.mark.parametrize("module", MPE)
def test_mpe_keeps_the_contract_of_worlds(module: Any) -> None:
    world_api_test(ParallelEnvWorld(module.parallel_env, 2, max_cycles=7), num_steps=20)


def test_mpe_with_box_actions_keeps_the_contract_of_worlds() -> None:
    world_api_test(ParallelEnvWorld(simple_spread_v3.parallel_env, 2, max_cycles=5, continuous_actions=True), 12)


@pytest.mark.parametrize("mask", [None, "observation", "info"])
def test_scripted_lives_keep_the_contract_of_worlds(mask: str | None) -> None:
    world_api_test(scripted(2, mask=mask, show_seed=True), num_steps=20)


@pytest.mark.parametrize("module", MPE)
def test_a_copy_gives_what_the_environment_alone_gives(module: Any) -> None:
    world, generator = ParallelEnvWorld(module.parallel_env, 2, max_cycles=6), torch.Generator().manual_seed(0)
    step = world.reset(4)
    alone = module.parallel_env(max_cycles=6)
    observations, _ = alone.reset(seed=world._episode[1]["seed"])
    for _ in range(6):
        for s in world.species.values():
            for i, agent in enumerate(s.agents):
                assert step.observations[s.name][1, i].tolist() == observations[agent].tolist()
        actions = random_actions(world, generator)
        step = world.step(actions)
        chosen = {a: int(actions[s.name][1, i]) for s in world.species.values() for i, a in enumerate(s.agents)}
        observations, rewards, *_ = alone.step(chosen)
        told = [a for s in world.species.values() for a in s.agents]
        assert step.rewards[1].tolist() == pytest.approx([rewards[a] for a in told])
    assert step.truncated.all()
    assert not step.terminated.any()


def test_state_of_mpe_is_taken_up_by_another_world() -> None:
    # Its environments are EzPickle objects, which by themselves forget all but their arguments.
    def run(world: ParallelEnvWorld, generator: torch.Generator, steps: int) -> list[WorldStep]:
        return [world.step(random_actions(world, generator)) for _ in range(steps)]

    world, generator = (
        ParallelEnvWorld(simple_spread_v3.parallel_env, 2, max_cycles=5),
        torch.Generator().manual_seed(0),
    )
    world.reset(1)
    run(world, generator, 3)
    state, drawn = world.get_state(), generator.get_state()
    assert state is not None
    future = run(world, generator, 12)
    other = ParallelEnvWorld(simple_spread_v3.parallel_env, 2, max_cycles=5)
    other.set_state(state)
    generator.set_state(drawn)
    for step, again in zip(future, run(other, generator, 12), strict=True):
        assert torch.equal(step.observations["agent"], again.observations["agent"])
        assert torch.equal(step.rewards, again.rewards)
        assert torch.equal(step.first, again.first)


def test_an_environment_that_does_not_pickle_has_no_state_and_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    world = scripted(positions=True)  # holds a lambda
    world.reset(0)
    with caplog.at_level(logging.WARNING):
        assert world.get_state() is None
        assert world.get_state() is None
    assert [record.message.split(":")[0] for record in caplog.records] == [
        "'scripted' cannot be pickled, so its state is not in checkpoints"
    ]


def test_an_error_inside_a_copy_says_where_and_keeps_its_traceback() -> None:
    class Faulty(ScriptedEnv):
        def step(self, actions: dict[str, Any]) -> Any:
            if self.t == 2 and self.opening == ("a_1",):
                raise ZeroDivisionError("inside")
            return super().step(actions)

    openings = iter([("a_0",), ("a_1",)])
    world = ParallelEnvWorld(lambda _: Faulty([{}] * 9, next(openings)), 2)
    with pytest.raises(RuntimeError, match=r"world 1 failed in step 3 .* ZeroDivisionError: inside") as caught:
        play(world, 3)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert traceback.extract_tb(caught.value.__cause__.__traceback__)[-1].line == 'raise ZeroDivisionError("inside")'


def keyword_creator(length: int = 1, width: int = 2) -> ScriptedEnv:
    return ScriptedEnv([{}] * length * width)


@pytest.mark.parametrize(
    ("creator", "length"),
    [
        (lambda config: ScriptedEnv([{}] * config.get("length", 1)), 3),
        (lambda config=None: ScriptedEnv([{}] * config["length"]), 3),
        (lambda anything: ScriptedEnv([{}] * anything["length"]), 3),
        (lambda **keys: ScriptedEnv([{}] * keys["length"]), 3),
        (keyword_creator, 6),
        (functools.partial(keyword_creator, width=5), 15),
    ],
)
def test_creators_take_the_mapping_or_its_keys(creator: Any, length: int) -> None:
    world = ParallelEnvWorld(creator, 1, length=3)
    assert len(world._envs[0].script) == length


def sized(render_mode: str | None = None, size: int = 5) -> ScriptedEnv:
    assert render_mode is None
    return ScriptedEnv([{}] * size)


@pytest.mark.parametrize(
    ("creator", "config", "said"),
    [
        (sized, {"sise": 7}, "env_config.sise is no parameter of sized; did you mean 'size'"),
        (sized, {"size": 7, "sise": 7}, "env_config.sise is no parameter of sized; did you mean 'size'"),
        (simple_spread_v3.parallel_env, {"max_cylces": 3}, "env_config.max_cylces is no parameter of"),
        (lambda: ScriptedEnv([{}]), {"size": 7}, "it takes no keys"),
    ],
)
def test_a_key_that_the_creator_does_not_take_is_refused_by_name(creator: Any, config: dict, said: str) -> None:
    with pytest.raises(UserError, match=said):
        ParallelEnvWorld(creator, 1, **config)


@pytest.mark.parametrize(
    ("creator", "worlds", "words"),
    [
        (lambda _: ScriptedEnv([]), 0, "num_worlds is 0, and must be at least 1"),
        (lambda _: object(), 1, "returned a object without 'possible_agents'"),
        (lambda _: simple_spread_v3.env(), 1, "and a ParallelEnv is needed"),
        (lambda _: ScriptedEnv([], possible=()), 1, "has no possible_agents"),
        (
            lambda _: SpaceEnv({"x": (spaces.Discrete(2), 0, spaces.Tuple([spaces.Discrete(2)]))}),
            1,
            "'x' has actions of type Tuple; allowed: Discrete",
        ),
        (
            lambda _: SpaceEnv({"x": (spaces.Sequence(spaces.Discrete(2)), (), spaces.Discrete(2))}),
            1,
            "'x' observes a Sequence space without a fixed size",
        ),
    ],
)
def test_what_cannot_be_a_world_is_refused_by_name(creator: Any, worlds: int, words: str) -> None:
    with pytest.raises(UserError, match=words):
        ParallelEnvWorld(creator, worlds)


def test_copies_that_differ_are_refused() -> None:
    names = itertools.cycle([("a_0",), ("a_0", "a_1")])
    with pytest.raises(UserError, match="copy 1 of 'scripted' differs from copy 0"):
        ParallelEnvWorld(lambda _: ScriptedEnv([], ("a_0",), next(names)), 2)


def test_environments_where_talk_costs_are_told_what_living_seats_spend() -> None:
    env = ScriptedEnv([{}] * 3)
    told: list[dict[str, float]] = []
    env.speak = told.append  # type: ignore[attr-defined]
    world = ParallelEnvWorld(lambda _: env, 1)
    world.reset(0)
    world.step({"a": torch.zeros(1, 4, dtype=torch.int64)}, spoken=torch.tensor([[3.0, 0.0, 7.0, 7.0]]))
    assert told == [{"a_0": 3.0, "a_1": 0.0}]


def test_step_before_reset_is_refused() -> None:
    with pytest.raises(UserError, match="call reset before step"):
        scripted().step({"a": torch.zeros(1, 4, dtype=torch.int64)})


def test_pictures_are_the_environments_and_need_its_render_mode() -> None:
    world = ParallelEnvWorld(simple_spread_v3.parallel_env, 2, render_mode="rgb_array")
    world.reset(0)
    picture = world.render(1)
    assert picture.dtype == np.uint8
    assert picture.ndim == 3
    assert np.array_equal(picture, world._envs[1].render())
    blind = ParallelEnvWorld(simple_spread_v3.parallel_env, 1)
    blind.reset(0)
    with pytest.raises(UserError, match="must be 'rgb_array' in env_config"):
        blind.render()
