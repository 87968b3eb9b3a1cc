"""Reflexes on any ParallelEnv: who hears what and when, worked out by hand, and the same channel as elsewhere."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from magent2.environments import battle_v4
from mpe2 import simple_reference_v3, simple_speaker_listener_v4, simple_spread_v3, simple_tag_v3
from pettingzoo.test import parallel_api_test
from pettingzoo.test.example_envs import generated_agents_parallel_v0

from popcomm.channels import Channel, Custom, Full, KNearest, Ring, Symbols, Vectors, Words
from popcomm.channels.broadcast.reflexes import (
    Bernoulli,
    ImmediateFeedback,
    LocalRule,
    Publishing,
    SensoryDeprivation,
    WordRepetition,
)
from popcomm.envs import swarm_v0
from popcomm.envs.messaging import MessagingEnv, with_messages
from popcomm.errors import UserError
from popcomm.schedules import Clock, Gated, Linear
from tests.envs.scripted_env import ScriptedEnv, SpaceEnv

KIND = Words(6, 1, 3)
ALL: list[Any] = [
    {"kind": "immediate_feedback", "schedule": {"kind": "linear", "begin": 5, "end": 500}},
    {"kind": "word_repetition", "decision": {"kind": "count_min", "cap": 2, "decision": {"kind": "local_rule"}}},
    {"kind": "sensory_deprivation", "mode": "noise", "when": 0.3},
    {"kind": "sensory_deprivation", "mode": "withdraw", "when": [3, 1], "schedule": 0.5},
    {"kind": "publishing", "rate": 0.5},
]
PAIR = ("a_0", "a_1")
TRIO = ("a_0", "a_1", "a_2")
# a_2 is born in step 2; a_0 dies in step 3 and is born again in step 5.
LIVES = [{}, {"a_2": "born"}, {"a_0": "terminated"}, {}, {"a_0": "born"}, {}, {}, {}]
# PettingZoo's own test wants nobody to be born twice.
ONCE = [{}, {"a_2": "born"}, {"a_0": "terminated"}, {"a_3": "born", "a_1": "truncated"}, {}, {}]


def env_of(*reflexes: Any, names: tuple[str, ...] = PAIR, lives: Any = None, **more: Any) -> MessagingEnv:
    lives = [{}] * 12 if lives is None else lives
    inner = ScriptedEnv(lives, opening=more.pop("opening", names), possible=names, mask=more.pop("mask", None))
    env = with_messages(inner, KIND, more.pop("topology", Full()), reflexes=reflexes, **more)
    env.reset(seed=0)
    return env


def bits(word: int) -> np.ndarray:
    return word >> np.arange(KIND.bits) & 1


def say(env: MessagingEnv, **words: int) -> dict[str, list[tuple[int, int]]]:
    """One step in which agents say packed words, and are silent if they are not named; what all then hear."""
    actions = {a: {"action": 0, "message": bits(words.get(a, 0)), "speak": int(a in words)} for a in env.agents}
    return {agent: heard(observation) for agent, observation in env.step(actions)[0].items()}


def heard(observation: dict[str, Any]) -> list[tuple[int, int]]:
    """[(sender, packed word)] of what is real in an inbox, sorted; the rest must be zeros."""
    mask = observation["mask"].astype(bool)
    assert not observation["inbox"][~mask].any()
    assert not observation["senders"][~mask].any()
    words = observation["inbox"][mask] @ 2 ** np.arange(KIND.bits)
    return sorted(zip(observation["senders"][mask].tolist(), words.tolist(), strict=True))


# ---- by hand ----


def test_a_word_is_heard_one_step_later_by_all_others_and_once() -> None:
    env = env_of(capacity=4, names=TRIO)
    assert say(env, a_0=5) == {"a_0": [], "a_1": [(0, 5)], "a_2": [(0, 5)]}
    assert say(env) == {"a_0": [], "a_1": [], "a_2": []}


def test_immediate_feedback_reaches_the_sender_too() -> None:
    env = env_of(ImmediateFeedback(), names=TRIO, topology=Ring(1))
    # On this ring seat n hears seat n - 1.
    assert say(env, a_0=5, a_2=6) == {"a_0": [(0, 5), (2, 6)], "a_1": [(0, 5)], "a_2": [(2, 6)]}
    assert sorted(env.last_links.tolist()) == [[0, 0], [0, 1], [2, 0], [2, 2]]


def test_a_word_that_all_repeat_goes_to_and_fro_between_two() -> None:
    env = env_of(WordRepetition(Bernoulli(1.0)))
    assert say(env, a_0=5) == {"a_0": [], "a_1": [(0, 5)]}
    assert env.last_links.tolist() == [[0, 1]]
    for _ in range(3):
        assert say(env) == {"a_0": [(1, 5)], "a_1": []}
        # Nobody said it: the picture shows no link.
        assert env.last_links.tolist() == []
        assert say(env) == {"a_0": [], "a_1": [(0, 5)]}


def test_repetition_beside_an_own_word_or_instead_of_it() -> None:
    parallel, hijack = (env_of(WordRepetition(Bernoulli(1.0), slot=slot)) for slot in ("parallel", "hijack"))
    for env in (parallel, hijack):
        say(env, a_0=5)
    assert say(parallel, a_1=6) == {"a_0": [(1, 5), (1, 6)], "a_1": []}
    assert say(hijack, a_1=6) == {"a_0": [(1, 5)], "a_1": []}


def test_nobody_sends_published_words_and_all_hear_them() -> None:
    env = env_of(Publishing(rate=40.0, source=[5, 6]), names=TRIO, topology=Ring(1), capacity=30, inbox=30)
    told = say(env)
    assert {word for inbox in told.values() for word in inbox} == {(3, 5), (3, 6)}
    assert told["a_0"] == told["a_1"] == told["a_2"]
    assert len(told["a_0"]) == 30  # of about 40 what fits
    assert env.last_links.tolist() == []


def test_nothing_is_heard_at_the_start_of_an_episode() -> None:
    env = env_of(ImmediateFeedback(), WordRepetition(Bernoulli(1.0)), Publishing(rate=9.0))
    assert all(say(env, a_0=5, a_1=6).values())
    observations, _ = env.reset()
    assert not any(heard(observation) for observation in observations.values())
    # Nor repeated later.
    env = env_of(WordRepetition(Bernoulli(1.0)))
    say(env, a_0=5)
    env.reset()
    assert say(env) == {"a_0": [], "a_1": []}


def test_words_of_the_dead_are_lost_and_the_born_hear_nothing_from_before() -> None:
    env = env_of(ImmediateFeedback(), lives=LIVES, names=TRIO, opening=PAIR)
    assert say(env, a_0=1, a_1=2) == {"a_0": [(0, 1), (1, 2)], "a_1": [(0, 1), (1, 2)]}
    assert say(env, a_0=3, a_1=4) == {"a_0": [(0, 3), (1, 4)], "a_1": [(0, 3), (1, 4)], "a_2": []}
    # a_0 dies in this step: what it said is lost, its last observation holds nothing.
    assert say(env, a_0=5, a_1=6, a_2=9) == {"a_0": [], "a_1": [(1, 6), (2, 9)], "a_2": [(1, 6), (2, 9)]}
    assert say(env, a_1=1) == {"a_1": [(1, 1)], "a_2": [(1, 1)]}
    assert say(env, a_1=2) == {"a_0": [], "a_1": [(1, 2)], "a_2": [(1, 2)]}
    assert say(env, a_0=3)["a_0"] == [(0, 3)]


def test_what_the_dead_repeated_is_lost_and_what_they_said_before_lives_on() -> None:
    repeat = WordRepetition(Bernoulli(1.0))
    env = env_of(repeat, lives=[{}, {"a_0": "terminated"}, {}, {}], names=TRIO, topology=Ring(1))
    # Round the ring 0 -> 1 -> 2 -> 0: seat n hears seat n - 1.
    assert say(env, a_0=5, a_2=6) == {"a_0": [(2, 6)], "a_1": [(0, 5)], "a_2": []}
    # a_1 repeats 5; a_0 repeats 6, and dies: that is lost.
    assert say(env) == {"a_0": [], "a_1": [], "a_2": [(1, 5)]}
    # a_2 repeats it to a_0, who is not there.
    assert say(env) == {"a_1": [], "a_2": []}
    assert say(env) == {"a_1": [], "a_2": []}


def test_what_does_not_fit_in_an_inbox_is_not_heard() -> None:
    env = env_of(names=TRIO, inbox=1)
    told = say(env, a_0=1, a_1=2, a_2=4)
    assert [len(inbox) for inbox in told.values()] == [1, 1, 1]
    assert all(sender != seat for seat, inbox in enumerate(told.values()) for sender, _ in inbox)


def test_a_gated_reflex_fades_by_what_is_reported() -> None:
    gate = Gated("agreement", begin=0.5, end=0.9, smoothing=0.0)
    env = env_of(WordRepetition(Bernoulli(1.0), schedule=gate))
    env.report(agreement=0.4)
    say(env, a_0=5)
    assert say(env) == {"a_0": [(1, 5)], "a_1": []}
    env.report(agreement=0.95)
    assert say(env) == {"a_0": [], "a_1": []}
    # With the ratchet it stays away.
    env.report(agreement=0.1)
    say(env, a_0=5)
    assert say(env) == {"a_0": [], "a_1": []}


def test_a_reflex_may_fade_by_the_reward() -> None:
    # The reward of an agent is its action: 0 here.
    gate = Gated("reward", begin=-2.0, end=-1.0, smoothing=0.0)
    env = env_of(WordRepetition(Bernoulli(1.0), schedule=gate))
    say(env, a_0=5)  # no reward is known yet
    assert say(env) == {"a_0": [], "a_1": []}


def test_fades_count_steps_over_all_episodes() -> None:
    env = env_of(ImmediateFeedback(Linear(begin=7, end=7)), lives=[{}] * 5)
    told = []
    for step in range(10):
        if not env.agents:
            env.reset()
        told.append(say(env, a_0=1 + step % 4)["a_0"] != [])
    # The last step of an episode is not heard: its fifth.
    assert told == [True, True, True, True, False, True, True, False, False, False]


def test_deprivation_takes_the_observation_and_leaves_inbox_and_action_mask() -> None:
    reflexes = (SensoryDeprivation("withdraw", who=[1], when=1.0), ImmediateFeedback())
    env = env_of(*reflexes, mask="observation")
    actions = {a: {"action": 0, "message": bits(5), "speak": 1} for a in env.agents}
    observations, *_ = env.step(actions)
    inner = {a: o["observation"] for a, o in observations.items()}
    # Action 1 is forbidden in step 1.
    assert [inner[a]["action_mask"].tolist() for a in PAIR] == [[1, 0, 1, 1], [1, 0, 1, 1]]
    assert inner["a_0"]["observation"].tolist() == [0.0, 1.0, 0.0]
    assert inner["a_1"]["observation"].tolist() == [0.0, 0.0, 0.0]
    assert heard(observations["a_1"]) == [(0, 5), (1, 5)]


@pytest.mark.parametrize("mode", ["withdraw", "noise"])
@pytest.mark.parametrize("where", ["observation", "info"])
def test_the_flat_layout_takes_its_action_mask_from_what_was_there(where: str, mode: str) -> None:
    env = env_of(SensoryDeprivation(mode, when=1.0), mask=where, layout="flat")
    actions = {a: np.zeros(1 + KIND.bits + 1, np.int64) for a in env.agents}
    observations, *_, infos = env.step(actions)
    for agent in PAIR:
        assert infos[agent]["action_mask"].tolist() == [1, 0, 1, 1] + [1] * 2 * (KIND.bits + 1)
        assert env.observation_space(agent).contains(observations[agent])
        assert observations[agent][:3].tolist() != [0.0, 1.0, float(agent[-1])]


def test_spaces_without_numbers_are_refused_where_observations_are_taken_away() -> None:
    face = (spaces.Text(4), "abcd", spaces.Discrete(2))
    env = SpaceEnv({"x_0": face, "x_1": face})
    with_messages(env, KIND, Full(), reflexes=["immediate_feedback"])
    with pytest.raises(UserError, match="agent 'x_0' observes a Text space"):
        with_messages(env, KIND, Full(), reflexes=["sensory_deprivation"])


def test_neighbours_on_a_torus_hear_words_from_the_first_step_on() -> None:
    inner = swarm_v0.parallel_env(num_agents=4, max_steps=4)
    env = with_messages(inner, KIND, KNearest(1), reflexes=[ImmediateFeedback()])
    assert env.channel.torus is not None
    env.reset(seed=0)
    actions = {a: {"action": inner.action_space(a).sample(), "message": bits(5), "speak": 1} for a in env.agents}
    observations, *_ = env.step(actions)
    for seat, observation in enumerate(observations.values()):
        told = heard(observation)
        assert len(told) == 2
        assert (seat, 5) in told


# ---- one implementation ----


@pytest.mark.parametrize("topology", [Full(), Ring(1), Custom([[0, 1, 1], [0, 0, 1], [1, 0, 0]])])
@pytest.mark.parametrize("slot", ["parallel", "hijack"])
def test_the_same_words_are_heard_over_the_channel_itself(topology: Any, slot: str) -> None:
    def reflexes() -> list[Any]:
        fade = Linear(begin=10, end=60)
        return [ImmediateFeedback(0.5), WordRepetition(LocalRule(0.8), slot=slot, schedule=fade), Publishing(0.7)]

    channel = Channel(KIND, topology, 3, reflexes=reflexes(), inbox=3)
    air, everybody = channel.open(1, 11), np.ones((1, 3), bool)
    assert air is not None
    inner = ScriptedEnv([{}] * 80, opening=TRIO, possible=TRIO)
    env = with_messages(inner, KIND, topology, reflexes=reflexes(), inbox=3)
    env.reset(seed=11)
    rng, count = np.random.default_rng(0), 0
    for step in range(70):
        words = rng.choice([0, 0, 1, 2, 5, 9], 3)
        told = say(env, **{a: int(w) for a, w in zip(TRIO, words, strict=True) if w})
        air.observe(Clock(step, {}))
        air.transmit(words[None], everybody)
        broadcast = air.deliver(everybody, everybody)
        for seat, agent in enumerate(TRIO):
            mask = broadcast.mask[0, seat]
            said = broadcast.messages[0][broadcast.slots[0, seat]][mask].tolist()
            senders = broadcast.senders[0, seat][mask].tolist()
            assert told[agent] == sorted(zip(senders, said, strict=True))
            count += len(said)
    assert count > 100


# ---- foreign environments ----

FOREIGN: dict[str, Any] = {
    "spread": lambda: simple_spread_v3.parallel_env(max_cycles=8),
    "tag": lambda: simple_tag_v3.parallel_env(max_cycles=8),
    "speaker_listener": lambda: simple_speaker_listener_v4.parallel_env(max_cycles=8),
    "reference": lambda: simple_reference_v3.parallel_env(max_cycles=8),
    "battle": lambda: battle_v4.parallel_env(map_size=16, max_cycles=6),
    "masks in observations": lambda: ScriptedEnv(ONCE, mask="observation"),
    "masks in infos": lambda: ScriptedEnv(ONCE, mask="info"),
}


@pytest.mark.parametrize("layout", ["dict", "flat"])
@pytest.mark.parametrize("name", FOREIGN)
@pytest.mark.filterwarnings("error::UserWarning")
def test_foreign_environments_with_all_reflexes_pass_the_parallel_api_test(name: str, layout: str) -> None:
    env = with_messages(FOREIGN[name](), KIND, Full(), layout=layout, reflexes=ALL)
    parallel_api_test(env, 25)


@pytest.mark.parametrize("layout", ["dict", "flat"])
@pytest.mark.parametrize("kind", [Words(), Words(64, 20, 22, speak_gate=False), Words(6, 1, 3, vocab=4)])
def test_all_observations_lie_in_their_spaces(kind: Words, layout: str) -> None:
    env = with_messages(FOREIGN["masks in observations"](), kind, Ring(2), layout=layout, reflexes=ALL)
    for seed in range(3):
        observations, _ = env.reset(seed=seed)
        while env.agents:
            for agent, observation in observations.items():
                assert env.observation_space(agent).contains(observation)
            observations, *_ = env.step({a: env.action_space(a).sample() for a in env.agents})


def test_an_environment_that_does_not_tell_its_possible_agents_is_refused() -> None:
    with pytest.raises(UserError, match="without 'possible_agents'"):
        with_messages(generated_agents_parallel_v0.parallel_env(), KIND, Full(), reflexes=ALL)


# ---- the same seed ----


def run(env: MessagingEnv, steps: int, seed: int, backwards: bool = False, through_pickle: bool = False) -> list[Any]:
    """All that is heard and seen in `steps` steps of random talk over several episodes."""
    rng, told = np.random.default_rng(seed), []
    env.reset(seed=seed)
    for step in range(steps):
        if not env.agents:
            env.reset(seed=seed + step if step % 3 else None)
        acting = [a for a in env.possible_agents if a in env.agents]
        words = {a: int(rng.choice([1, 2, 5, 9])) for a in acting}
        actions = {a: {"action": rng.integers(3), "message": bits(words[a]), "speak": rng.integers(2)} for a in acting}
        if backwards:
            actions = {a: actions[a] for a in reversed(actions)}
        if through_pickle and step % 40 == 20:
            env = pickle.loads(pickle.dumps(env))
        if step % 40 == 0:
            env.report(agreement=step / steps)
        observations, rewards, *_ = env.step(actions)
        seen = {a: o["observation"].tolist() for a, o in sorted(observations.items())}
        told.append((seen, {a: heard(o) for a, o in sorted(observations.items())}, sorted(rewards.items())))
    return told


RUN: list[Any] = [
    *ALL,
    {"kind": "word_repetition", "decision": {"kind": "controlled", "target": 0.6}, "slot": "hijack"},
    {"kind": "publishing", "rate": 1.0, "schedule": {"kind": "gated", "begin": 0.2, "end": 0.7}},
]


def test_long_runs_with_the_same_seed_are_the_same_in_any_order_of_actions_and_through_pickles() -> None:
    def make() -> MessagingEnv:
        return with_messages(
            ScriptedEnv(LIVES, possible=TRIO, show_seed=True), KIND, Ring(2), reflexes=RUN, capacity=16
        )

    first = run(make(), 150, 7)
    assert first == run(make(), 150, 7)
    assert first == run(make(), 150, 7, backwards=True)
    assert first == run(make(), 150, 7, through_pickle=True)
    assert first != run(make(), 150, 8)
    assert any(sender == 3 for _, inboxes, _ in first for inbox in inboxes.values() for sender, _ in inbox)


# ---- what does not fit ----


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"messages": Symbols(4, 2)}, "communication.reflexes act on words, and messages are symbols; use kind words"),
        ({"messages": Vectors(2)}, "communication.reflexes act on words, and messages are vectors; use kind words"),
        ({"reflexes": "immediate_feedback"}, "communication.reflexes is 'immediate_feedback', and must be a list"),
        ({"reflexes": ["imediate_feedback"]}, "'imediate_feedback' does not exist; did you mean 'immediate_feedback'"),
        ({"topology": {"kind": "routed"}}, "topology routed has no inboxes"),
        ({"capacity": 0}, "communication.capacity is 0, and must be at least 1"),
        ({"inbox": 0}, "communication.inbox is 0, and must be at least 1"),
        ({"reflexes": [{"kind": "word_repetition", "decision": {"kind": "per_agent", "p": [0.1] * 5}}]}, "there are 3"),
        ({"reflexes": [{"kind": "sensory_deprivation", "who": [3]}]}, "who has 3, and seats are 0 to 2"),
        ({"reflexes": [{"kind": "publishing", "when": "events"}]}, "which a ParallelEnv does not tell; use when='al"),
    ],
)
def test_what_does_not_fit_is_refused_at_construction(arguments: dict[str, Any], words: str) -> None:
    inner = ScriptedEnv(LIVES, possible=TRIO)
    with pytest.raises(UserError, match=words):
        with_messages(inner, **{"messages": KIND, "topology": Full(), "reflexes": ALL, **arguments})


def test_a_measure_that_is_no_number_is_refused() -> None:
    env = env_of(ImmediateFeedback())
    env.report(agreement=np.float32(0.5), reward=1)
    with pytest.raises(UserError, match="the measure agreement is 'high', and must be a number"):
        env.report(agreement="high")  # type: ignore[arg-type]


def test_silence_is_not_heard_without_reflexes_either() -> None:
    env = with_messages(ScriptedEnv([{}] * 5, possible=PAIR), KIND, Full())
    env.reset(seed=0)
    assert say(env, a_0=5) == {"a_0": [], "a_1": [(0, 5)]}
    # What the gate discards is silence too.
    assert say(env, a_0=0b11111) == {"a_0": [], "a_1": []}
    assert isinstance(env.last_links, torch.Tensor)
    assert env.last_links.shape == (0, 2)
