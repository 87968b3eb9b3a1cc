"""Worlds and who plays in them, step by step: messages, seats and memories where the answer is known."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from popcomm.agents import AgentSpec, MLPAgent, TinyAgent
from popcomm.agents.contract import AgentOutput
from popcomm.agents.seating import SeatingRule
from popcomm.channels import Channel, Full, MessageKind, Symbols, Words
from popcomm.envs.alarm_v0 import AlarmWorld
from popcomm.envs.world import WorldStep
from popcomm.errors import UserError
from popcomm.rollout import Rollout, Seeds, Turn, seed_of
from popcomm.rollout.seeds import WORLD_BRANCH
from popcomm.schedules import Clock
from tests.rllib.worlds import ClockWorld

SURE = 50.0  # a logit beside zeros
SYMBOLS = Symbols(6, 1)
# The episodes of worlds 0, 2, ... last 3 steps, those of the others 5; a row in which nobody lives lies between them.
LENGTHS = (3, 5)


class Crier(nn.Module):
    """Says how old it is (in steps of its life), and does what it hears: 0 for nothing, else an age, 2 at most.

    With `as_member` it does what its number in the population is.
    """

    def __init__(self, spec: AgentSpec, as_member: bool = False) -> None:
        super().__init__()
        self.spec, self.as_member = spec, as_member

    def initial_state(self, rows: int) -> dict[str, Tensor]:
        return {"age": torch.zeros(self.spec.members, rows, dtype=torch.int64)}

    def forward(self, obs: Tensor, inbox: Any, state: Any) -> AgentOutput:
        members, rows = obs.shape[:2]
        age, size = state["age"], self.spec.action_params_size
        message = None
        if self.spec.sends is not None:
            message = SURE * nn.functional.one_hot(age.clamp(max=5).unsqueeze(-1), 6).float()
        does = torch.zeros(members, rows, dtype=torch.int64)
        if self.as_member:
            does = torch.arange(members).view(-1, 1).expand(members, rows)
        elif inbox is not None:
            does = (inbox.messages[..., 0] * inbox.mask).amax(-1)
        logits = SURE * nn.functional.one_hot(does.clamp(max=size - 1), size).float()
        return AgentOutput(logits, message, obs.new_zeros(members, rows), {"age": age + 1}, {})


def spec_of(world: ClockWorld, name: str, channel: Channel | None, members: int) -> AgentSpec:
    messages = None if channel is None else channel.messages
    size = 0 if channel is None else channel.inbox_size
    # Who publishes words is nobody's seat.
    seats = world.num_agents + (channel is not None and channel.size is not None)
    return AgentSpec.of(world.species[name], messages=messages, inbox_size=size, members=members, num_agents=seats)


def rollout_of(
    agent: Any = Crier,
    members: int = 1,
    kind: MessageKind | None = SYMBOLS,
    worlds: int = 4,
    world: dict[str, Any] | None = None,
    explore: bool = True,
    seating: SeatingRule | None = None,
    channel: dict[str, Any] | None = None,
    seed: int = 3,
    **agent_config: Any,
) -> Rollout:
    made = ClockWorld(worlds, lengths=LENGTHS, **(world or {}))
    talk = None if kind is None else Channel(kind, Full(), made.num_agents, **(channel or {}))
    networks = {}
    for name in made.species:
        spec = spec_of(made, name, talk, members)
        networks[name] = SimpleNamespace(spec=spec, agent=agent(spec, **agent_config))
    return Rollout(made, networks, talk, seeds=Seeds.of(seed), seating=seating or SeatingRule(), explore=explore)


def played(rollout: Rollout, steps: int) -> list[tuple[Turn, WorldStep]]:
    if not rollout.started:
        rollout.begin()
    return [rollout.step() for _ in range(steps)]


def test_what_is_said_in_a_step_is_done_in_the_next_and_nothing_crosses_an_episode() -> None:
    turns = [turn for turn, _ in played(rollout_of(), 9)]
    done = torch.stack([turn.actions["speaker"] for turn in turns])[:, :2]
    # The oldest of the others was t - 1 a step ago; speakers know three actions. In the last row nobody lives.
    three, five = [0, 0, 1, 2], [0, 0, 1, 2, 2, 2]
    assert done[:, 0, 0].tolist() == (three + three + three)[:9]
    assert done[:, 1, 0].tolist() == (five + five)[:9]
    said = torch.stack([turn.sent[..., 0] for turn in turns if turn.sent is not None])
    assert said[:4, 0, 0].tolist() == [0, 1, 2, 3]
    assert said[4, 0].tolist() == [0, 0, 0, 0], "a new life begins with an empty memory"


def test_who_is_alone_dead_is_not_heard() -> None:
    turns = [turn for turn, _ in played(rollout_of(world={"death": 2}), 4)]
    for t, living in enumerate([4, 4, 3, 0]):
        assert turns[t].voice[0].sum() == living
    mail = turns[2].mail
    assert mail is not None
    assert not (mail.senders[0][mail.mask[0]] == 3).any()
    assert turns[2].loads is not None
    assert turns[2].loads[0, 3] == 0


def test_in_silence_nothing_is_sent_or_heard() -> None:
    turn, after = played(rollout_of(kind=None), 1)[0]
    assert turn.mail is turn.sent is turn.transmitted is turn.loads is None
    assert after.rewards.shape == (4, 4)


def test_every_member_acts_from_its_seat_and_moves_where_episodes_begin() -> None:
    rollout = rollout_of(members=2, as_member=True, kind=None)
    turns = [turn for turn, _ in played(rollout, 24)]
    for turn in turns:
        for name in ("speaker", "listener"):
            np.testing.assert_array_equal(turn.actions[name].numpy(), turn.members[name])
            np.testing.assert_array_equal(np.sort(turn.members[name], 1), [[0, 1]] * 4)
    moved = np.array([(a.members["speaker"] != b.members["speaker"]).any(1) for a, b in pairwise(turns)])
    begins = np.array([turn.reopened for turn in turns[1:]])
    assert not (moved & ~begins).any()
    assert moved[begins].any()
    assert begins[:, 0].nonzero()[0].tolist() == [3, 7, 11, 15, 19]


def test_a_fixed_seat_is_kept_for_good() -> None:
    rollout = rollout_of(members=2, as_member=True, seating=SeatingRule("fixed"))
    assert all((turn.actions["speaker"] == torch.tensor([0, 1])).all() for turn, _ in played(rollout, 12))


def test_thinking_changes_nothing() -> None:
    one, other = rollout_of(), rollout_of()
    played(one, 2)
    played(other, 2)
    before = {name: memory["age"].clone() for name, memory in one.players.memories.items()}
    thought = one.players.think("speaker")
    assert thought.output.state["age"].tolist() == (before["speaker"] + 1).tolist()
    assert all((one.players.memories[name]["age"] == age).all() for name, age in before.items())
    for (a, _), (b, _) in zip(played(one, 4), played(other, 4), strict=True):
        assert (a.actions["listener"] == b.actions["listener"]).all()


def test_a_turn_holds_the_memories_with_which_its_step_was_met() -> None:
    for t, (turn, _) in enumerate(played(rollout_of(), 3)):
        assert (turn.memories["speaker"]["age"] == t).all()
        assert (turn.acts["speaker"].thought.output.state["age"] == t + 1).all()


def test_the_likeliest_choices_take_no_random_number() -> None:
    rollout = rollout_of(MLPAgent, explore=False, hidden=8)
    rollout.begin()
    before = rollout.players.generator.get_state()
    played(rollout, 5)
    assert torch.equal(before, rollout.players.generator.get_state())


def test_no_gradient_is_kept() -> None:
    turn, _ = played(rollout_of(MLPAgent, hidden=8), 1)[0]
    assert not turn.acts["speaker"].thought.output.action_logits.requires_grad


# ---- seeds, checkpoints ----


def numbers(steps: list[tuple[Turn, WorldStep]]) -> list[np.ndarray]:
    """All that is random in some steps."""
    found: list[np.ndarray] = []
    for turn, after in steps:
        found += [x.numpy() for x in (*turn.actions.values(), *turn.seen.observations.values(), after.rewards)]
        found += [*turn.members.values(), *(act.thought.output.action_logits.numpy() for act in turn.acts.values())]
        if turn.mail is not None and turn.sent is not None:
            found += [turn.sent.numpy(), turn.mail.senders.numpy(), turn.mail.mask.numpy(), turn.voice.numpy()]
    return found


def same(one: list[np.ndarray], two: list[np.ndarray]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))


LOG: dict[str, Any] = {
    "kind": Words(8, 2, 4),
    "channel": {
        "dropout": 0.1,
        "noise": 0.02,
        "reflexes": [
            {"kind": "word_repetition", "decision": {"kind": "local_rule", "target": 0.5}, "slot": "hijack"},
            {"kind": "publishing", "rate": 0.5},
            {"kind": "sensory_deprivation", "when": 0.3, "mode": "noise"},
        ],
    },
}
TALKS: list[dict[str, Any]] = [
    {"kind": None},
    {"kind": SYMBOLS, "channel": {"dropout": 0.3, "noise": 0.2}, "world": {"death": 2}},
    LOG,
]


def tiny_rollout(talk: dict[str, Any], seed: int = 3) -> Rollout:
    torch.manual_seed(0)
    return rollout_of(
        TinyAgent, members=2, seed=seed, **talk, hidden_dim=8, num_heads=2, latent_tokens=2, depth=1, memory="flare"
    )


@pytest.mark.parametrize("talk", TALKS)
def test_a_restored_rollout_goes_on_bit_for_bit(talk: dict[str, Any]) -> None:
    rollout = tiny_rollout(talk)
    played(rollout, 7)
    state = rollout.get_state()
    expected = numbers(played(rollout, 7))
    fresh, elsewhere = tiny_rollout(talk, seed=4), tiny_rollout(talk)
    played(elsewhere, 2)
    for other in (fresh, elsewhere, rollout):
        other.set_state(state)
        assert same(numbers(played(other, 7)), expected)


def test_the_seeds_decide_all() -> None:
    one, two, other = (numbers(played(tiny_rollout(LOG, seed), 6)) for seed in (3, 3, 4))
    assert same(one, two)
    assert not same(one, other)


def test_a_state_from_before_the_beginning_begins_anew() -> None:
    rollout, other = tiny_rollout(LOG), tiny_rollout(LOG)
    state = rollout.get_state()
    played(other, 3)
    other.set_state(state)
    assert not other.started
    assert same(numbers(played(other, 4)), numbers(played(rollout, 4)))


def test_where_worlds_cannot_be_saved_new_episodes_begin_with_fades_as_they_were() -> None:
    talk = {**LOG, "channel": {"reflexes": [{"kind": "publishing", "schedule": GATE}]}}
    rollout, other = tiny_rollout(talk), tiny_rollout(talk)
    rollout.follow(Clock(10, {"reward": 0.9}))
    played(rollout, 2)
    other.set_state({**rollout.get_state(), "world": None})
    assert not other.started
    other.begin()
    other.follow(Clock(20, {"reward": 0.0}))
    session = other.players.session
    assert session is not None
    assert session.measures()["publishing_strength"] == 0.0


GATE = {"kind": "gated", "measure": "reward", "begin": 0.4, "end": 0.8, "smoothing": 0.0}


def test_worlds_made_anew_begin_in_silence_and_as_faded_as_before() -> None:
    rollout = tiny_rollout({**LOG, "channel": {"reflexes": [{"kind": "publishing", "schedule": GATE}]}})
    rollout.follow(Clock(10, {"reward": 0.9}))
    played(rollout, 3)
    rollout.renew(ClockWorld(4, lengths=LENGTHS))
    assert rollout.fades() == []
    turn, _ = played(rollout, 1)[0]
    assert turn.mail is not None
    assert not turn.mail.mask.any()
    assert rollout.fades()[0]["lowest"] == pytest.approx(0.0)


def test_a_seed_for_each_branch_and_fresh_ones_without_a_root() -> None:
    assert Seeds.of(5, 2).world == seed_of(5, WORLD_BRANCH, 2)
    assert len(set(Seeds.of(5, 2)) | set(Seeds.of(5, 3))) == 8
    assert Seeds.of(None) != Seeds.of(None)


def test_a_network_that_says_nothing_where_there_is_a_channel_is_named() -> None:
    class Mute(MLPAgent):
        def forward(self, *args: Any, **kwargs: Any) -> AgentOutput:
            return super().forward(*args, **kwargs)._replace(message=None)

    rollout = rollout_of(Mute, hidden=8)
    rollout.begin()
    with pytest.raises(UserError, match=r"agent Mute gave no message for species 'speaker', and there is a"):
        rollout.step()


def test_words_that_events_publish_are_heard_one_step_after_somebody_saw_one() -> None:
    """All are blind: the reflex knows of the event all the same."""
    world = AlarmWorld(num_worlds=40, num_agents=2, watchers=1)
    reflexes = [{"kind": "publishing", "rate": 20.0, "when": "events"}, {"kind": "sensory_deprivation", "when": 1.0}]
    channel = Channel(Words(8, 2, 4), Full(), 2, reflexes=reflexes, capacity=60)
    spec = AgentSpec.of(world.species["monkey"], messages=channel.messages, inbox_size=channel.inbox_size, num_agents=3)
    rollout = Rollout(world, {"monkey": SimpleNamespace(agent=MLPAgent(spec), spec=spec)}, channel, seeds=Seeds.of(1))
    rollout.begin()
    saw = torch.zeros(40, dtype=torch.bool)
    for _ in range(12):
        heard = rollout.players.session.mail
        assert torch.equal(((heard.senders == 2) & heard.mask).any(-1).any(-1), saw)
        saw = (world._last.labels >= 0).any(1)
        turn, _ = rollout.step()
        assert (turn.seen.labels < 0).all()
