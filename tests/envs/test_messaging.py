"""A channel on any ParallelEnv: who hears what and when, worked out by hand, and the spaces that go with it."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from mpe2 import simple_reference_v3, simple_speaker_listener_v4, simple_spread_v3
from pettingzoo.test import parallel_api_test

from popcomm.channels import Custom, Full, KNearest, Ring, Symbols, Vectors
from popcomm.envs import swarm_v0
from popcomm.envs.messaging import MessagingEnv, with_messages
from popcomm.envs.pettingzoo import ParallelEnvWorld
from popcomm.envs.testing import world_api_test
from popcomm.errors import UserError
from tests.envs.scripted_env import ScriptedEnv, SpaceEnv

# a_2 is born in step 1; a_0 dies in step 2 and is born again in step 4, the script's end cuts the others in step 6.
LIVES = [{"a_2": "born"}, {"a_0": "terminated"}, {}, {"a_0": "born"}, {}, {}]
KIND = Symbols(10, 2)
VECTOR = spaces.Box(-1, 1, (2,), np.float32)


def talk(env: MessagingEnv) -> dict[str, Any]:
    """Seat i says (i + 1, step + 1)."""
    step = env.unwrapped.t
    return {a: {"action": 1, "message": np.array([int(a[-1]) + 1, step + 1])} for a in env.agents}


def heard(observation: dict[str, Any]) -> dict[int, list[int]]:
    """{sender: message} of what is real in an inbox; the rest must be zeros."""
    mask = observation["mask"].astype(bool)
    assert not observation["inbox"][~mask].any()
    assert not observation["senders"][~mask].any()
    pairs = zip(observation["senders"][mask].tolist(), observation["inbox"][mask].tolist(), strict=True)
    return dict(pairs)


def test_messages_arrive_one_step_later_at_those_who_act_then_and_acted_before() -> None:
    env = with_messages(ScriptedEnv(LIVES), KIND, Full())
    observations, _ = env.reset(seed=0)
    told = [{a: heard(o) for a, o in observations.items()}]
    while env.agents:
        observations, *_ = env.step(talk(env))
        told.append({a: heard(o) for a, o in observations.items()})
    assert told == [
        {"a_0": {}, "a_1": {}},
        # a_2 is just born: it neither spoke nor hears.
        {"a_0": {1: [2, 1]}, "a_1": {0: [1, 1]}, "a_2": {}},
        # a_0 has died: what it said is lost, and its final observation holds nothing.
        {"a_0": {}, "a_1": {2: [3, 2]}, "a_2": {1: [2, 2]}},
        {"a_1": {2: [3, 3]}, "a_2": {1: [2, 3]}},
        {"a_0": {}, "a_1": {2: [3, 4]}, "a_2": {1: [2, 4]}},
        {
            "a_0": {1: [2, 5], 2: [3, 5]},
            "a_1": {0: [1, 5], 2: [3, 5]},
            "a_2": {0: [1, 5], 1: [2, 5]},
        },
        {"a_0": {}, "a_1": {}, "a_2": {}},
    ]


def test_nothing_crosses_the_start_of_an_episode() -> None:
    env = with_messages(ScriptedEnv([{}] * 9), KIND, Full())
    env.reset(seed=0)
    observations, *_ = env.step(talk(env))
    assert heard(observations["a_0"])
    observations, _ = env.reset()
    assert all(not heard(o) for o in observations.values())
    assert env.last_links.shape == (0, 2)


def test_last_links_name_sender_and_receiver() -> None:
    graph = [[0, 1, 1, 0], [0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]]
    names = ("a_0", "a_1", "a_2", "a_3")
    env = with_messages(ScriptedEnv([{}, {"a_2": "terminated"}, {}], opening=names), KIND, Custom(graph))
    env.reset(seed=0)
    env.step(talk(env))
    assert env.last_links.dtype == torch.int64
    assert env.last_links.tolist() == [[0, 1], [2, 1], [0, 2]]
    env.step(talk(env))
    assert env.last_links.tolist() == [[0, 1]]


def test_k_nearest_follows_the_positions_after_the_step() -> None:
    # Agents sit at 0, 1, 4 and 9.
    names = ("a_0", "a_1", "a_2", "a_3")
    env = with_messages(ScriptedEnv([{}, {"a_1": "terminated"}, {}], opening=names, positions=True), KIND, KNearest(1))
    env.reset(seed=0)
    observations, *_ = env.step(talk(env))
    assert [list(heard(o)) for o in observations.values()] == [[1], [0], [1], [2]]
    observations, *_ = env.step(talk(env))
    assert [list(heard(o)) for o in observations.values()] == [[2], [], [0], [2]]


def test_the_environment_gets_its_own_actions_and_gives_its_own_rewards() -> None:
    env = with_messages(ScriptedEnv([{}] * 3), KIND, Full())
    env.reset(seed=0)
    actions = {"a_1": {"action": 3, "message": [9, 9]}, "a_0": {"action": 2, "message": [0, 1]}}
    observations, rewards, *_ = env.step(actions)
    assert env.unwrapped.taken == [{"a_0": 2, "a_1": 3}]
    assert rewards == {"a_0": 2.0, "a_1": 3.0}
    assert observations["a_1"]["observation"].tolist() == [0.0, 1.0, 1.0]


@pytest.mark.parametrize("where", ["observation", "info"])
def test_dict_layout_leaves_action_masks_where_they_are(where: str) -> None:
    env = with_messages(ScriptedEnv([{}] * 3, mask=where), KIND, Full())
    observations, infos = env.reset(seed=0)
    masks = infos if where == "info" else {a: o["observation"] for a, o in observations.items()}
    assert masks["a_1"]["action_mask"].tolist() == [0, 1, 1, 1]


@pytest.mark.parametrize("where", ["observation", "info"])
def test_flat_layout_tells_action_masks_of_all_choices_in_infos(where: str) -> None:
    env = with_messages(ScriptedEnv([{}] * 3, mask=where), Symbols(3, 2), Full(), layout="flat")
    observations, infos = env.reset(seed=0)
    assert infos["a_1"]["action_mask"].tolist() == [0, 1, 1, 1] + [1] * 6
    assert observations["a_1"].shape == (3 + 3 * 2 * 3 + 3,)
    world = ParallelEnvWorld(lambda _: env, 1)
    masks = world.reset(0).action_masks
    assert masks is not None
    assert masks["a"][0, 1].tolist() == [False] + [True] * 9


def test_flat_layout_of_symbols_is_observation_then_one_hot_inbox_then_mask() -> None:
    env = with_messages(ScriptedEnv([{}] * 3, possible=("a_0", "a_1", "a_2")), Symbols(3, 2), Full(), layout="flat")
    env.reset(seed=0)
    assert env.action_space("a_0") == spaces.MultiDiscrete([4, 3, 3])
    observations, rewards, *_ = env.step({"a_0": np.array([3, 2, 0]), "a_1": np.array([1, 1, 1])})
    assert rewards == {"a_0": 3.0, "a_1": 1.0}
    # a_1 hears seats 0 and 2, and there is no seat 2 alive.
    assert observations["a_1"].tolist() == [0, 1, 1] + [0, 0, 1, 1, 0, 0] + [0] * 6 + [1, 0]


def box_env(low: float = -1.0, high: float = 1.0) -> SpaceEnv:
    face = (VECTOR, np.array([0.25, 0.5], np.float32), spaces.Box(low, high, (2,), np.float64))
    return SpaceEnv({"x_0": face, "x_1": face})


def test_flat_layout_of_vectors_is_one_box() -> None:
    env = with_messages(box_env(), Vectors(3), Full(), layout="flat")
    assert env.action_space("x_0").shape == (5,)
    assert env.observation_space("x_0").shape == (2 + 3 + 1,)
    env.reset(seed=0)
    actions = {"x_0": np.array([0.5, -7.0, 1.0, 2.0, 30.0]), "x_1": np.zeros(5)}
    observations, *_ = env.step(actions)
    assert env.unwrapped.taken[0]["x_0"].tolist() == [0.5, -1.0]
    assert observations["x_1"].tolist() == [0.25, 0.5, 1.0, 2.0, 30.0, 1.0]
    assert observations["x_0"].tolist() == [0.25, 0.5, 0.0, 0.0, 0.0, 1.0]


def test_flat_layout_adds_the_start_of_discrete_actions() -> None:
    face = (VECTOR, np.zeros(2, np.float32), spaces.Discrete(3, start=4))
    env = with_messages(SpaceEnv({"x_0": face, "x_1": face}), Symbols(2, 1), Full(), layout="flat")
    env.reset(seed=0)
    env.step({"x_0": np.array([2, 1]), "x_1": np.array([0, 0])})
    assert env.unwrapped.taken == [{"x_0": 6, "x_1": 4}]


MPE = [simple_spread_v3, simple_speaker_listener_v4, simple_reference_v3]


@pytest.mark.parametrize("layout", ["dict", "flat"])
@pytest.mark.parametrize("continuous", [False, True])
@pytest.mark.parametrize("module", MPE)
@pytest.mark.filterwarnings("error::UserWarning")
def test_mpe_with_messages_passes_the_parallel_api_test(module: Any, continuous: bool, layout: str) -> None:
    kind = Vectors(3) if continuous else Symbols(4, 2)
    inner = module.parallel_env(max_cycles=8, continuous_actions=continuous)
    parallel_api_test(with_messages(inner, kind, Full(), layout=layout), 20)


@pytest.mark.parametrize("layout", ["dict", "flat"])
@pytest.mark.parametrize("mask", [None, "observation", "info"])
def test_lives_with_messages_pass_the_parallel_api_test(mask: str | None, layout: str) -> None:
    lives = [{"a_2": "born"}, {"a_0": "terminated"}, {"a_3": "born", "a_1": "truncated"}, {}]
    parallel_api_test(with_messages(ScriptedEnv(lives, mask=mask), KIND, Ring(2), layout=layout), 20)


@pytest.mark.parametrize("layout", ["dict", "flat"])
def test_swarm_with_messages_passes_the_parallel_api_test(layout: str) -> None:
    inner = swarm_v0.parallel_env(num_agents=4, max_steps=6)
    kind = Vectors(2) if isinstance(inner.action_space(inner.possible_agents[0]), spaces.Box) else Symbols(4, 2)
    env = with_messages(inner, kind, KNearest(2), layout=layout)
    assert env.channel.torus == inner.world.torus
    parallel_api_test(env, 20)


@pytest.mark.parametrize("layout", ["dict", "flat"])
@pytest.mark.parametrize("kind", [Symbols(4, 2), Vectors(3)])
def test_observations_lie_in_their_spaces(kind: Any, layout: str) -> None:
    inner = simple_spread_v3.parallel_env(max_cycles=5, continuous_actions=isinstance(kind, Vectors))
    env = with_messages(inner, kind, Ring(1), layout=layout)
    observations, _ = env.reset(seed=0)
    while env.agents:
        for agent, observation in observations.items():
            assert env.observation_space(agent).contains(observation)
        observations, *_ = env.step({a: env.action_space(a).sample() for a in env.agents})


def run(env: MessagingEnv, steps: int, seed: int, backwards: bool = False, through_pickle: bool = False) -> list[Any]:
    """Everything an environment tells in `steps` steps of random play over several episodes."""
    rng, told = np.random.default_rng(seed), []
    observations, _ = env.reset(seed=seed)
    for step in range(steps):
        if not env.agents:
            observations, _ = env.reset(seed=seed + step)
        acting = [a for a in env.possible_agents if a in env.agents]
        actions = {a: {"action": rng.integers(3), "message": rng.integers(0, 10, 2)} for a in acting}
        if backwards:
            actions = {a: actions[a] for a in reversed(actions)}
        if through_pickle and step % 100 == 50:
            env = pickle.loads(pickle.dumps(env))
        observations, rewards, *_ = env.step(actions)
        row = {a: [v.tolist() for v in o.values()] for a, o in sorted(observations.items())}
        told.append((row, dict(sorted(rewards.items())), env.last_links.tolist()))
    return told


def test_long_runs_with_the_same_seed_are_the_same_in_any_order_of_actions() -> None:
    def make() -> MessagingEnv:
        return with_messages(simple_spread_v3.parallel_env(max_cycles=30), KIND, Ring(2))

    first = run(make(), 400, 7)
    assert first == run(make(), 400, 7)
    assert first == run(make(), 400, 7, backwards=True)
    assert first != run(make(), 400, 8)


def test_a_pickled_copy_goes_on_where_the_environment_stopped() -> None:
    def make() -> MessagingEnv:
        return with_messages(ScriptedEnv(LIVES * 40, show_seed=True), KIND, Ring(2))

    assert run(make(), 500, 3) == run(make(), 500, 3, through_pickle=True)


class CostlyTalk(ScriptedEnv):
    """Keeps what is said to it about the costs of talk."""

    def __init__(self) -> None:
        super().__init__([{}] * 3)
        self.spoken: list[dict[str, float]] = []

    def speak(self, spoken: dict[str, float]) -> None:
        assert len(self.spoken) == len(self.taken), "speak must come before step"
        self.spoken.append(spoken)


def test_environments_where_talk_costs_are_told_the_load_before_the_step() -> None:
    env = with_messages(CostlyTalk(), KIND, Full())
    env.reset(seed=0)
    env.step({"a_1": {"action": 0, "message": [0, 7]}, "a_0": {"action": 0, "message": [0, 0]}})
    assert env.unwrapped.spoken == [{"a_0": 0.0, "a_1": 1.0}]


def test_flat_layout_becomes_a_world() -> None:
    def create(_: Any) -> MessagingEnv:
        return with_messages(simple_spread_v3.parallel_env(max_cycles=6), Symbols(4, 2), Full(), layout="flat")

    world = ParallelEnvWorld(create, 2)
    assert world.species["agent"].action_space == spaces.MultiDiscrete([5, 4, 4])
    world_api_test(world, num_steps=16)


def test_spaces_are_the_same_objects_at_every_call_and_agents_have_their_own() -> None:
    for layout in ("dict", "flat"):
        env = with_messages(ScriptedEnv(LIVES), KIND, Full(), layout=layout)
        assert env.observation_space("a_0") is env.observation_space("a_0")
        assert env.action_space("a_0") is env.action_space("a_0")
        assert env.action_space("a_0") is not env.action_space("a_1")


def test_pictures_pass_through() -> None:
    env = with_messages(simple_spread_v3.parallel_env(render_mode="rgb_array"), KIND, Full())
    env.reset(seed=0)
    assert np.array_equal(env.render(), env.env.render())


def test_pictures_of_a_world_show_the_last_links() -> None:
    inner = swarm_v0.parallel_env(num_agents=3, render_mode="rgb_array")
    env = with_messages(inner, Symbols(4, 2), Full())
    env.reset(seed=0)
    env.step({a: env.action_space(a).sample() for a in env.agents})
    assert env.last_links.shape == (6, 2)
    assert np.array_equal(env.render(), inner.world.render(0, env.last_links))
    assert not np.array_equal(env.render(), inner.render())


def test_config_mappings_serve_as_messages_and_topology() -> None:
    env = with_messages(ScriptedEnv(LIVES), {"kind": "symbols", "vocab_size": 10, "length": 2}, {"kind": "full"})
    assert env.channel.messages == KIND
    assert isinstance(env.channel.topology, Full)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"topology": KNearest(1)}, "KNearest needs positions, and this environment has none"),
        ({"topology": Ring(4)}, "an agent has only 3 others"),
        ({"topology": "fll"}, "topology.kind 'fll' does not exist; did you mean 'full'"),
        ({"topology": 7}, "communication.topology is 7, and must be a mapping with 'kind'"),
        ({"messages": 7}, "communication.messages is 7, and must be a mapping with 'kind'"),
        ({"topology": {"kind": "fll"}}, "did you mean 'full'"),
        ({"messages": None}, "messages is None, and must be Symbols, Words, Vectors"),
        ({"messages": {"kind": "symbols", "vocab_size": 1, "length": 1}}, "vocab_size is 1"),
        ({"layout": "flt"}, "layout 'flt' does not exist; did you mean 'flat'"),
        ({"layout": "flat", "messages": Vectors(2)}, "cannot join actions Discrete of agent 'a_0' with vectors"),
        ({"layout": "flat", "parallel_env": box_env()}, "cannot join actions Box of agent 'x_0' with symbols"),
        ({"reflexes": ["immediate_feedback"]}, "communication.reflexes act on words, and messages are symbols"),
        ({"parallel_env": ScriptedEnv([], ("a_0",), ("a_0",))}, "has 1 agents, and messages need at least 2"),
    ],
)
def test_what_does_not_fit_is_refused_at_construction(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        with_messages(**{"parallel_env": ScriptedEnv(LIVES), "messages": KIND, "topology": Full(), **arguments})


@pytest.mark.parametrize(
    ("action", "words"),
    [
        (1, "the action of 'a_0' is 1, and must be a mapping with 'action' and 'message'"),
        ({"action": 1}, "must be a mapping with 'action' and 'message'"),
        ({"action": 1, "message": [1, 10]}, "the message of 'a_0' is"),
        ({"action": 1, "message": [1, -1]}, "the message of 'a_0' is"),
        ({"action": 1, "message": [1]}, "the message of 'a_0' is"),
        ({"action": 1, "message": [1.0, 2.0]}, "the message of 'a_0' is"),
    ],
)
def test_actions_that_do_not_fit_are_refused_before_the_environment_moves(action: Any, words: str) -> None:
    env = with_messages(ScriptedEnv(LIVES), KIND, Full())
    env.reset(seed=0)
    with pytest.raises(UserError, match=words):
        env.step({"a_0": action, "a_1": {"action": 0, "message": [0, 0]}})
    assert env.unwrapped.taken == []


def test_vectors_that_are_not_finite_are_refused() -> None:
    env = with_messages(box_env(), Vectors(2), Full())
    env.reset(seed=0)
    for wrong in (np.nan, np.inf):
        with pytest.raises(UserError, match="the message of 'x_0' is"):
            env.step({"x_0": {"action": np.zeros(2), "message": [0.0, wrong]}})


def test_actions_of_unknown_agents_are_refused() -> None:
    env = with_messages(ScriptedEnv(LIVES), KIND, Full())
    env.reset(seed=0)
    with pytest.raises(UserError, match="agent 'a_7' does not exist"):
        env.step({"a_7": {"action": 0, "message": [0, 0]}})


def test_rewards_may_be_numbers_beside_arrays_of_one() -> None:
    class PaysBoth(ScriptedEnv):
        def step(self, actions: dict[str, Any]) -> Any:
            seen, paid, *rest = super().step(actions)
            return seen, {**paid, "a_1": np.array([3.0])}, *rest

    env = with_messages(PaysBoth([{}] * 3), Symbols(5, 1), {"kind": "full"}, "dict", reflexes=())
    env.reset(seed=0)
    rewards = env.step({a: env.action_space(a).sample() for a in env.agents})[1]
    assert rewards["a_1"].tolist() == [3.0]
    assert env._measures["reward"] == pytest.approx((rewards["a_0"] + 3.0) / 2)
