"""How far actions follow messages, and what speakers do with theirs: toy agents whose answers are known."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from popcomm.agents.contract import AgentOutput, AgentSpec
from popcomm.agents.distributions import Categorical, DiagonalGaussian, MultiCategorical
from popcomm.channels import Symbols, Vectors, Words
from popcomm.envs.world import Species
from popcomm.rllib import listening
from popcomm.rllib.listening import Listening, total_variation
from popcomm.rllib.speaking import most_entropy, speaking
from tests.rllib.test_reflexes import ALL, LEXICON, air_config
from tests.rllib.test_rollout import clock_config, fragments, runner_of
from tests.rllib.test_routed import SMALL, routed_config
from tests.rllib.test_turns import swapping_config

BIT = {"kind": "symbols", "vocab_size": 2, "length": 1}
PAIR = {"speakers": 1, "listeners": 1, "lengths": (20,)}


class Echo(nn.Module):
    """It says 0 or 1 at random, and its action is what it hears, all but surely; 0 if it hears nothing."""

    sharpness = 40.0

    def __init__(self, spec: AgentSpec) -> None:
        super().__init__()
        self.spec = spec
        self.value = nn.Parameter(torch.zeros(spec.members, 1))

    def initial_state(self, rows: int) -> dict[str, Tensor]:
        return {}

    def forward(self, obs: Tensor, inbox: Any, state: Mapping[str, Tensor]) -> AgentOutput:
        heard = 0.0 if inbox is None else (inbox.messages[..., 0] * inbox.mask).sum(-1)
        logits = torch.zeros(*obs.shape[:2], self.spec.action_params_size)
        logits[..., 1] = self.sharpness * (2 * torch.as_tensor(heard) - 1)
        message = torch.zeros(*obs.shape[:2], *self.spec.messages.params_shape) if self.spec.messages else None
        return AgentOutput(logits, message, self.value.expand(obs.shape[:2]), {}, {})

    def auxiliary_losses(self, batch: Any, outputs: AgentOutput) -> dict[str, Tensor]:
        return {}


class Deaf(Echo):
    sharpness = 0.0


class Mumbler(Echo):
    """It always says 0."""

    def forward(self, obs: Tensor, inbox: Any, state: Mapping[str, Tensor]) -> AgentOutput:
        output = super().forward(obs, inbox, state)
        assert output.message is not None
        output.message[..., 0] = 100.0
        return output


def language_of(agent: Any, **settings: Any) -> dict[str, float]:
    """Of the sixth fragment of 7 steps, in which listeners are asked for the second time."""
    runner = runner_of(clock_config(agent=agent, **{"messages": BIT, "env_config": PAIR, **settings}))
    fragments(runner, 6)
    return runner.statistics.language


@pytest.mark.parametrize("members", [1, 3])
def test_an_echo_follows_what_it_hears_and_the_deaf_do_not(members: int) -> None:
    """Seats hear one message; another one turns the echo's action around in two of the two or three that there are."""
    assert language_of(Echo, members=members)["listening_listener"] == pytest.approx(1.0, abs=1e-6)
    assert language_of(Deaf, members=members)["listening"] == 0.0


def test_the_most_attentive_species_counts() -> None:
    """The speaker's third action keeps weight: its odds are e^s : 1 : 1 or 1 : 1 : e^-s."""
    found = language_of(Echo)
    assert found["listening"] == max(found["listening_speaker"], found["listening_listener"])
    assert found["listening_speaker"] == pytest.approx(1.0, abs=1e-6)


def test_where_everybody_says_the_same_nothing_is_said_of_listeners() -> None:
    found = language_of(Mumbler)
    assert "listening" not in found
    assert found["messages_per_speaker"] == 1.0


def test_a_fragment_in_which_nobody_is_asked_shows_no_number() -> None:
    """Fragments of 7 steps are asked about every fifth time, for 32 steps."""
    runner, told = runner_of(clock_config(agent=Echo, messages=BIT, env_config=PAIR)), []
    for _ in range(11):
        fragments(runner, 1)
        told.append("listening" in runner.statistics.language)
    assert np.flatnonzero(told).tolist() == [0, 5, 10]


def test_a_world_alone_has_nobody_to_swap_with() -> None:
    config = clock_config(agent=Echo, messages=BIT, env_config=PAIR).env_runners(num_worlds_per_env_runner=1)
    runner = runner_of(config)
    fragments(runner, 8)
    assert "listening" not in runner.statistics.language


def test_silence_has_no_listeners() -> None:
    runner = runner_of(clock_config(agent="mlp", messages=None))
    fragments(runner, 2)
    assert not runner.statistics.language


KINDS = {
    "memory": lambda: clock_config(agent="gru", members=1, env_config={"death": 2}),
    "members": lambda: clock_config(agent="gru", members=8, dropout=0.2, env_config={"death": 2}),
    "spelled": lambda: swapping_config(),
    "vectors": lambda: clock_config(agent="mlp", messages={"kind": "vectors", "size": 3}, gradient="through"),
    "words": lambda: air_config(*ALL, agent="mlp", channel={"inbox": 3}),
    "routed": lambda: routed_config("tiny"),
    "symbolic": lambda: clock_config(agent="symbolic", agent_config=SMALL["symbolic"], members=3),
}


@pytest.mark.parametrize("kind", KINDS)
def test_asking_changes_nothing_in_what_is_sampled(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asking, mute = runner_of(KINDS[kind]()), runner_of(KINDS[kind]())
    monkeypatch.setattr(mute.sampler, "listening", _Nobody(mute.layout, mute.channel, mute.num_worlds, 7))
    told = []
    for _ in range(6):
        (ours,), (theirs,) = fragments(asking, 1), fragments(mute, 1)
        told += [asking.statistics.language["listening"]] if "listening" in asking.statistics.language else []
        for name, arrays in ours.items():
            for key, values in arrays.items():
                np.testing.assert_array_equal(values, theirs[name][key], err_msg=key)
    assert told
    assert all(0.0 <= value <= 1.0 for value in told)
    assert asking.listening.fragments == 6
    assert "listening" not in mute.statistics.language


class _Nobody(Listening):
    """Asks nobody."""

    def begin(self) -> None:
        pass


@pytest.mark.parametrize("kind", [k for k in KINDS if k != "spelled"])
def test_the_first_answer_is_what_was_done(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With memories, seats that change hands, deaths and dropped messages alike. (Who spells has drawn its symbols.)"""
    monkeypatch.setattr(listening, "EVERY", 1)
    answers: list[Tensor] = []

    def kept(distribution: Any, before: Tensor, after: Tensor, mask: Any = None) -> Tensor:
        answers.append(before)
        return total_variation(distribution, before, after, mask)

    monkeypatch.setattr(listening, "total_variation", kept)
    runner = runner_of(KINDS[kind]())
    for _ in range(3):
        fragment = fragments(runner, 1)[0]
        names = [n for n in fragment if runner.module[n].spec.hears]
        for name, before in zip(names, answers, strict=True):
            at = (runner.listening.worlds, runner.listening._times)
            actions, expected, lived = (
                torch.from_numpy(fragment[name][key][at]) for key in ("actions", "action_logp", "alive")
            )
            log_prob = runner.distributions[name].log_prob(before, actions)
            torch.testing.assert_close(log_prob[lived], expected[lived], atol=1e-5, rtol=1e-5)
        answers.clear()


def test_those_on_the_air_say_what_their_partners_say() -> None:
    """Worlds 0 and 2 are partners, and 1 and 3. Seat 0 speaks in both of the first two. Seat 1 of world 0 and seat 2 of
    world 2, each the second to speak there and silent in the other, change places."""
    said = torch.tensor([[1, 2, 3], [4, 5, 6], [7, 8, 9], [1, 2, 3]])
    there = torch.tensor([[True, True, False], [True] * 3, [True, False, True], [False] * 3])
    # World 3 is silent, so world 1 stays.
    assert listening.swapped(said, there).tolist() == [[7, 9, 3], [4, 5, 6], [1, 8, 2], [1, 2, 3]]
    vectors = said.unsqueeze(-1).float().expand(-1, -1, 2)
    assert torch.equal(listening.swapped(vectors, there)[..., 1].long(), listening.swapped(said, there))


def test_every_step_of_a_fragment_has_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "EVERY", 1)
    runner = runner_of(clock_config(agent=Echo, messages=BIT, env_config=PAIR))
    few = Listening(runner.layout, runner.channel, num_worlds=4, length=7)
    seen = set()
    for _ in range(7):
        few.begin()
        assert few._times[:2].tolist() == few._times[2:].tolist()  # partners are asked at the same step
        seen |= set(few._times.tolist())
    assert seen == set(range(7))
    assert len(set(few.worlds.tolist())) == 4


def test_a_restored_runner_asks_when_the_other_would_have() -> None:
    runner = runner_of(clock_config(agent=Echo, messages=BIT, env_config=PAIR))
    fragments(runner, 3)
    other = runner_of(clock_config(agent=Echo, messages=BIT, env_config=PAIR))
    other.set_run_state(runner.run_state())
    for _ in range(4):
        for each in (runner, other):
            each.sample()
        assert runner.statistics.language == other.statistics.language
        assert runner.listening.fragments == other.listening.fragments


def test_total_variation_of_known_distributions() -> None:
    p, q = torch.tensor([0.5, 0.3, 0.2]).log(), torch.tensor([0.2, 0.3, 0.5]).log()
    assert total_variation(Categorical(3), p, q).item() == pytest.approx(0.3)
    # Without the last one: 5/8, 3/8 and 2/5, 3/5.
    mask = torch.tensor([True, True, False])
    assert total_variation(Categorical(3), p, q, mask).item() == pytest.approx(5 / 8 - 2 / 5)
    both = MultiCategorical((3, 2))
    coin = torch.zeros(2)
    assert total_variation(both, torch.cat([p, coin]), torch.cat([q, coin])).item() == pytest.approx(0.15)


def test_total_variation_of_normal_distributions_is_that_of_their_densities() -> None:
    mean, log_std = torch.tensor([0.7]), torch.tensor([0.4])
    at = torch.linspace(-15, 15, 30001, dtype=torch.float64)
    densities = [torch.distributions.Normal(m, log_std.exp().double()).log_prob(at).exp() for m in (0.0, mean.double())]
    expected = (densities[0] - densities[1]).abs().sum() * (at[1] - at[0]) / 2
    found = total_variation(DiagonalGaussian(1), torch.cat([0 * mean, log_std]), torch.cat([mean, log_std]))
    assert found.item() == pytest.approx(expected.item(), abs=1e-4)


def test_who_has_nothing_to_tell_may_always_say_the_same() -> None:
    """Half of the steps have a label; there the two seats say 1 and 2 in turn, and 0 elsewhere."""
    alive = np.ones((20, 4, 2), bool)
    labels = torch.tensor([0, -1, 0, -1])
    said = np.zeros((20, 5, 2, 1), np.int64)
    said[::2, [1, 3]], said[1::2, [1, 3]] = 1, 2
    arrays = {"a": {"alive": alive, "messages": said, "members": np.zeros((20, 4, 2), np.int64)}}
    who = [Species("a", 0, 2, 1, Any)]
    kind = Symbols(3, 1)
    per_step = [label.expand(20, 2) for label in labels]
    assert speaking(arrays, who, per_step, kind) == {"messages_per_speaker": pytest.approx(2.0)}
    # Without labels silence is one of three messages: half of all, and the others a quarter each.
    assert speaking(arrays, who, [], kind)["messages_per_speaker"] == pytest.approx(2**1.5)


def test_members_are_speakers_of_their_own_where_there_are_several() -> None:
    """Member 0 always says 1 and member 1 always 2, on whatever seat."""
    members = np.random.default_rng(0).integers(0, 2, (20, 4, 2))
    said = np.concatenate([np.zeros((20, 1, 2), int), members + 1], 1)[..., None]
    arrays = {"a": {"alive": np.ones((20, 4, 2), bool), "messages": said, "members": members}}
    assert speaking(arrays, [Species("a", 0, 2, 1, Any)], [], Symbols(3, 1))["messages_per_speaker"] == 1.0


def test_only_those_who_may_speak_count() -> None:
    voiced = np.zeros((20, 4, 2), bool)
    voiced[..., 0] = True
    said = np.zeros((20, 5, 2, 1), int)
    said[::2, :, 1] = 1
    alive, members = np.ones((20, 4, 2), bool), np.zeros((20, 4, 2), int)
    arrays = {"a": {"alive": alive, "messages": said, "members": members, "voiced": voiced}}
    found = speaking(arrays, [Species("a", 0, 2, 1, Any)], [], Symbols(3, 1))
    assert found == {"messages_per_speaker": 1.0, "voiced": 0.5}


def test_the_most_entropy_of_a_message() -> None:
    assert most_entropy(Symbols(4, 3)) == pytest.approx(3 * math.log(4))
    assert most_entropy(Words(**{k: v for k, v in LEXICON.items() if k != "kind"})) == pytest.approx(math.log(7))
    # Two bits, one of them on, drawn with odds of one half: both words and silence (twice as likely).
    assert most_entropy(Words(2, 1, 1)) == pytest.approx(1.5 * math.log(2), abs=1e-5)
    assert math.isnan(most_entropy(Vectors(3)))
