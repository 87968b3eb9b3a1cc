"""Words and reflexes in the trainer: what rollouts hold, what learners make of it, and how reflexes fade."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor, nn

from popcomm.agents.contract import AgentOutput, AgentSpec
from popcomm.channels import Words
from popcomm.channels.broadcast.air import Air
from popcomm.channels.broadcast.reflexes import (
    Bernoulli,
    ImmediateFeedback,
    LocalRule,
    Publishing,
    SensoryDeprivation,
    WordRepetition,
)
from popcomm.channels.mailbox import PostedInbox
from popcomm.envs.world import Species, WorldStep
from popcomm.rllib import PopulationPPOConfig
from popcomm.rllib.env_runner import PopulationEnvRunner
from popcomm.rllib.fragment import as_tensors
from popcomm.rllib.rows import Rows
from popcomm.rllib.unroll import Unroller
from popcomm.schedules import Clock, Linear
from tests.rllib.test_learner import learner_of, update, weights
from tests.rllib.test_rollout import air_of, clock_config, fragments, population_of, runner_of
from tests.rllib.worlds import ClockWorld

# Most of what networks draw at the start passes this gate.
WORDS = {"kind": "words", "bits": 8, "min_on": 1, "max_on": 5}
LEXICON = {**WORDS, "vocab": 6}
ALL: list[Any] = [
    {"kind": "immediate_feedback", "schedule": 0.5},
    {"kind": "word_repetition", "decision": {"kind": "count_min", "cap": 2, "decision": {"kind": "local_rule"}}},
    {"kind": "word_repetition", "decision": {"kind": "controlled", "target": 0.4}, "slot": "hijack"},
    {"kind": "sensory_deprivation", "mode": "noise", "when": 0.3},
    {"kind": "publishing", "rate": 0.7},
]
SMALL = {"mlp": {"hidden": 8}, "symbolic": {"hidden_dim": 8, "num_heads": 2}}
SMALL["tiny"] = {"hidden_dim": 8, "num_heads": 2, "latent_tokens": 2, "depth": 1}
N = 4


def air_config(*reflexes: Any, channel: dict[str, Any] | None = None, **population: Any) -> PopulationPPOConfig:
    config = clock_config(messages=population.pop("messages", WORDS), **{"agent": "mlp", **population})
    if isinstance(config.agent, str):
        config.population(agent_config=SMALL[config.agent])
    return config.communication(reflexes=list(reflexes), **(channel or {}))


class ToldWorld(ClockWorld):
    """The same, with labels, action masks and turns: seat 0 never has the turn to speak, and action 0 is forbidden."""

    num_labels = 3

    def __init__(self, num_worlds: int, device: Any = "cpu", **rest: Any) -> None:
        super().__init__(num_worlds, device, **rest)
        self.species = {
            name: Species(name, s.start, s.stop, s.obs_size, s.action_space, has_action_mask=True)
            for name, s in self.species.items()
        }

    def _say(self, *args: Any) -> WorldStep:
        step = super()._say(*args)
        masks = {}
        for name, s in self.species.items():
            assert isinstance(s.action_space, spaces.Discrete)
            masks[name] = torch.ones(self.num_worlds, s.num_seats, int(s.action_space.n), dtype=torch.bool)
            masks[name][..., 0] = False
        turn = torch.ones_like(step.alive)
        turn[:, 0] = False
        labels = (self.time % 3).unsqueeze(1).expand(-1, self.num_agents)
        self.last = step._replace(action_masks=masks, speaks=turn, labels=labels)
        return self.last


def told_config(*reflexes: Any, **population: Any) -> PopulationPPOConfig:
    env_config = population.pop("env_config", {})
    return air_config(*reflexes, **population).environment(ToldWorld, env_config=env_config)


def joined(fragment: dict[str, dict[str, np.ndarray]], key: str) -> np.ndarray:
    """An array of all species, along the seats."""
    return np.concatenate([a[key] for a in fragment.values()], 2)


def transmitted(fragment: dict[str, dict[str, np.ndarray]]) -> np.ndarray:
    """[B, T, N], the own words that went on the air in each step; 0 where none did."""
    said = joined(fragment, "messages")[:, 1:]
    voice = joined(fragment, "alive")
    if "voiced" in fragment["speaker"]:
        voice = voice & joined(fragment, "voiced")
    return said * voice


# ---- what a fragment holds ----


@pytest.mark.parametrize("topology", ["full", "ring"])
@pytest.mark.parametrize("config_of", [air_config, told_config])
def test_the_arrays_of_a_fragment_belong_together(config_of: Any, topology: str) -> None:
    config = config_of(*ALL, env_config={"death": 2}, channel={"topology": topology, "capacity": 40, "inbox": 12})
    runner = runner_of(config)
    repeated = published = deaths = finals = 0
    for fragment in fragments(runner, 4):
        speaker, listener = fragment["speaker"], fragment["listener"]
        for key in ("log_words", "log_sources", "log_direct"):
            np.testing.assert_array_equal(speaker[key], listener[key])
            assert speaker[key].shape == (12, 7, 40)
        words, sources, direct = (speaker[f"log_{k}"] for k in ("words", "sources", "direct"))
        slots, mask, alive = (joined(fragment, key) for key in ("slots", "inbox_mask", "alive"))
        first = np.concatenate([a["first"][:, :-1] for a in fragment.values()], 2)
        said = transmitted(fragment)
        assert slots.min() >= 0
        assert slots.max() < 40
        real = words != 0
        heard = np.take_along_axis(real[:, :, None, :].repeat(N, 2), slots, 3)
        assert heard[mask].all(), "nothing is heard where nobody said anything"
        assert not direct[~real].any()
        assert not direct[sources == N].any()
        assert ((sources >= 0) & (sources <= N)).all()
        # Nothing crosses the start of an episode, nor that of a life.
        assert not real[first.all(2)].any()
        assert not mask[first].any()
        for t in range(1, 7):
            final = ~alive[:, t].any(1)
            there = (alive[:, t] | final[:, None]) & ~first[:, t]
            for b in range(12):
                told = {(s, w) for s, w, d in zip(sources[b, t], words[b, t], direct[b, t], strict=True) if d}
                expected = {(n, said[b, t - 1, n]) for n in range(N) if there[b, n] and said[b, t - 1, n]}
                assert told == expected
                assert direct[b, t].sum() == len(expected)
                others = sources[b, t][real[b, t] & (sources[b, t] < N)]
                assert there[b, others].all(), "the words of the dead are lost"
                assert alive[b, t - 1, others].all()
            deaths += int((alive[:, t - 1] & ~alive[:, t] & ~final[:, None]).sum())
            finals += int(mask[:, t][final].any(1).sum())
        repeated += int((real & ~direct & (sources < N)).sum())
        published += int((sources == N)[real].sum())
    # A last row hears what was said before, for the value of its observations.
    assert min(repeated, published, deaths, finals) > 10


def test_an_entry_stands_in_an_inbox_once_and_only_where_the_topology_says() -> None:
    config = air_config(Publishing(0.5), ImmediateFeedback(0.5), channel={"topology": {"kind": "ring", "k": 1}})
    runner = runner_of(config)
    own = 0
    for fragment in fragments(runner, 2):
        slots, mask = joined(fragment, "slots"), joined(fragment, "inbox_mask")
        sources = fragment["speaker"]["log_sources"]
        for b, t, n in np.argwhere(mask.any(3)):
            here = slots[b, t, n][mask[b, t, n]]
            assert len(set(here.tolist())) == len(here)
            senders = sources[b, t][here]
            assert set(senders.tolist()) <= {(n - 1) % N, int(n), N}
            own += int((senders == n).sum())
    assert own > 10


@pytest.mark.parametrize("slot", ["parallel", "hijack"])
def test_the_trainers_channel_is_that_of_channel_open(slot: str) -> None:
    """The same words over a channel of one's own from the same seed: the same log and inboxes, bit for bit."""
    reflexes = [WordRepetition(LocalRule(0.7), slot=slot, schedule=Linear(0, 400)), ImmediateFeedback(0.4)]
    config = air_config(*reflexes, Publishing(0.8), env_config={"death": 2}).communication(dropout=0.1, noise=0.05)
    runner = runner_of(config)
    assert runner.channel is not None
    air, steps = runner.channel.open(12, runner.rollout.players.seeds.channel), 0
    assert isinstance(air, Air)
    before = np.ones((12, N), bool)
    for fragment in fragments(runner, 3):
        air.observe(Clock(steps, {}))
        alive = joined(fragment, "alive")
        first = np.concatenate([a["first"] for a in fragment.values()], 2)
        for t in range(7):
            if (steps, t) != (0, 0):
                air.forget(first[:, t].any(1))
            else:
                air.forget(np.ones(12, bool))
            over = ~alive[:, t].any(1, keepdims=True)  # those who lived until then still hear
            there = ~first[:, t] & (alive[:, t] | (over & before))
            before = alive[:, t]
            heard = air.deliver(there, there)
            np.testing.assert_array_equal(heard.messages.numpy(), fragment["speaker"]["log_words"][:, t])
            np.testing.assert_array_equal(heard.log.sources.numpy(), fragment["speaker"]["log_sources"][:, t])
            np.testing.assert_array_equal(heard.log.direct.numpy(), fragment["speaker"]["log_direct"][:, t])
            np.testing.assert_array_equal(heard.slots.numpy(), joined(fragment, "slots")[:, t])
            np.testing.assert_array_equal(heard.mask.numpy(), joined(fragment, "inbox_mask")[:, t])
            said = joined(fragment, "messages")[:, t + 1]
            voiced = air.transmit(said, alive[:, t], alive[:, t].any(1))
            if slot == "hijack":
                np.testing.assert_array_equal(voiced, joined(fragment, "voiced")[:, t])
        steps += int(alive.any(2).sum())
    assert air.strengths()["word_repetition"] < 1


def test_silence_is_in_no_inbox_without_reflexes_either() -> None:
    # A gate that about a third of what is drawn passes.
    config = clock_config(messages={"kind": "words", "bits": 8, "min_on": 4, "max_on": 4}, agent="mlp")
    silent = heard = 0
    for fragment in fragments(runner_of(config), 3):
        said, alive = joined(fragment, "messages"), joined(fragment, "alive")
        senders, mask = joined(fragment, "senders"), joined(fragment, "inbox_mask")
        first = np.concatenate([a["first"][:, :-1] for a in fragment.values()], 2)
        for t in range(1, 7):
            spoke = (said[:, t] != 0) & alive[:, t - 1] & (alive[:, t] | ~alive[:, t].any(1, keepdims=True))
            expected = np.take_along_axis(spoke[:, None, :].repeat(N, 1), senders[:, t], 2) & ~first[:, t, :, None]
            np.testing.assert_array_equal(mask[:, t], expected)
            silent += int((~mask[:, t]).sum())
            heard += int(mask[:, t].sum())
    assert min(silent, heard) > 100


# ---- the learner hears what was heard ----


@pytest.mark.parametrize("gradient", ["straight_through", "reinforce", "none"])
@pytest.mark.parametrize(
    ("agent", "members", "messages", "topology"),
    [
        ("mlp", 1, WORDS, "full"),
        ("mlp", 1, LEXICON, "ring"),
        ("mlp", 4, WORDS, "ring"),
        ("symbolic", 1, WORDS, "ring"),
        ("symbolic", 4, LEXICON, "full"),
        ("tiny", 1, LEXICON, "full"),
        ("tiny", 2, WORDS, "full"),
    ],
)
def test_the_unroll_repeats_what_the_runner_did(
    agent: str, members: int, messages: Any, topology: str, gradient: str
) -> None:
    """Ratios are 1 at the weights that acted: all decisions and values are found again."""
    channel = {"topology": topology, "inbox": 9, "capacity": 16}
    config = air_config(
        *ALL, agent=agent, members=members, messages=messages, gradient=gradient, dropout=0.1, noise=0.02,
        env_config={"death": 2}, channel=channel,
    )  # fmt: skip
    runner = runner_of(config)
    through, kind = gradient == "straight_through", config.message_kind
    for fragment in fragments(runner, 2):
        arrays = {name: as_tensors(a) for name, a in fragment.items()}
        for run, rows, name in unrolled(runner, config, arrays, through):
            mask = run.mask
            log_prob = runner.distributions[name].log_prob(run.outputs.action_logits, rows["actions"])
            torch.testing.assert_close(log_prob[mask], rows["action_logp"][mask], atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(run.outputs.value[mask], rows["values"][mask], atol=1e-5, rtol=1e-5)
            assert ("message_logp" in arrays[name]) == (gradient == "reinforce")
            if gradient == "reinforce":
                said = kind.log_prob(run.outputs.message, rows.sent())
                assert said[mask].isfinite().all()
                torch.testing.assert_close(said[mask], rows["message_logp"][mask], atol=1e-5, rtol=1e-5)
            assert int(mask.sum()) == int(arrays[name]["alive"].sum())


def unrolled(runner: PopulationEnvRunner, config: Any, arrays: Any, through: bool, method: str = "run") -> list[Any]:
    """[(SpeciesUnroll, its rows, name)] of the runner's own networks."""
    networks = {name: runner.module[name] for name in arrays}
    seats = {name: s.seats for name, s in runner.layout.species.items()}
    unroller = Unroller(networks, seats, config.message_kind, through)
    runs = getattr(unroller, method)(arrays)
    return [(run, Rows(arrays[name], run.places, networks[name].spec.members), name) for name, run in runs.items()]


class Ear(nn.Module):
    """Its value is a number that tells all it hears: words, senders, and which are direct. It says what it sees."""

    has_auxiliary_losses = False

    def __init__(self, spec: AgentSpec) -> None:
        super().__init__()
        self.spec = spec
        self.scale = nn.Parameter(torch.linspace(0.5, 1.5, spec.members).unsqueeze(1))

    def initial_state(self, rows: int) -> dict[str, Tensor]:
        return {}

    def forward(self, obs: Tensor, inbox: Any, state: Any) -> AgentOutput:
        worth = (inbox.messages % 101).float() / 101 + 10 * inbox.senders + 100 * inbox.direct
        value = self.scale * (worth * inbox.mask * torch.arange(1, worth.shape[-1] + 1)).sum(-1)
        assert self.spec.messages is not None
        params = obs.new_zeros(*obs.shape[:2], *self.spec.messages.params_shape)
        return AgentOutput(obs.new_zeros(*obs.shape[:2], self.spec.action_params_size), params, value, {}, {})


@pytest.mark.parametrize("method", ["_folded", "_step_by_step"])
@pytest.mark.parametrize("members", [1, 4])
@pytest.mark.parametrize("inbox", [2, 12])  # fewer than is posted, and more: with shared readers and without
def test_words_senders_and_directness_are_what_was_heard(members: int, method: str, inbox: int) -> None:
    channel = {"inbox": inbox, "capacity": 20}
    config = air_config(*ALL, agent=Ear, members=members, env_config={"death": 2}, channel=channel)
    runner = runner_of(config)
    for fragment in fragments(runner, 2):
        arrays = {name: as_tensors(a) for name, a in fragment.items()}
        for run, rows, name in unrolled(runner, config, arrays, through=False, method=method):
            torch.testing.assert_close(run.outputs.value[run.mask], rows["values"][run.mask])
            assert rows["values"].unique().numel() > 50
            assert isinstance(run.inbox, PostedInbox) == (members == 1 and inbox == 12)
            # Not a word of the runner's arrays is lost on the way.
            heard = fragment[name]["inbox_mask"][fragment[name]["alive"]].sum()
            assert int((run.inbox.mask & run.mask.unsqueeze(-1)).sum()) == heard


# ---- gradients ----


class Voice(nn.Module):
    """Seat n says bits whose logits are all a_n; its value is b times the sum of the bits that it hears."""

    has_auxiliary_losses = False

    def __init__(self, spec: AgentSpec) -> None:
        super().__init__()
        self.spec = spec
        self.a = nn.Parameter(torch.tensor([[0.3], [-0.2], [0.7]]).expand(spec.members, 3, 1).clone())

    def initial_state(self, rows: int) -> dict[str, Tensor]:
        return {}

    def forward(self, obs: Tensor, inbox: Any, state: Any) -> AgentOutput:
        assert isinstance(self.spec.messages, Words)
        bits = self.spec.messages.straight_through(inbox.messages, inbox.soft)[..., :-1].sum(-1)
        value = (bits * inbox.mask).sum(-1)
        params = (obs @ self.a).expand(*obs.shape[:2], *self.spec.messages.params_shape)
        return AgentOutput(obs.new_zeros(*obs.shape[:2], 2), params, value, {}, {})


KIND = Words(4, 1, 3, speak_gate=False)


def hand_made(members: int, direct: bool, source: int) -> tuple[dict[str, Tensor], Unroller]:
    """A world of three seats and three steps; at step 1 all hear the word 0b0011 of `source`, and 0b0100 of nobody."""
    spec = AgentSpec(3, spaces.Discrete(2), KIND, 2, members=members, num_agents=4)
    no = torch.zeros(1, 3, 3, dtype=torch.bool)
    slots, mask = torch.tensor([0, 1]).expand(1, 3, 3, 2), torch.zeros(1, 3, 3, 2, dtype=torch.bool)
    mask[:, 1] = True
    words, sources, directs = torch.zeros(1, 3, 2, dtype=torch.int32), torch.full((1, 3, 2), 3), no[..., :2].clone()
    words[0, 1], sources[0, 1, 0], directs[0, 1, 0] = torch.tensor([0b0011, 0b0100]), source, direct
    arrays = {
        "obs": torch.eye(3).expand(1, 4, 3, 3),
        "alive": ~no,
        "first": torch.zeros(1, 4, 3, dtype=torch.bool),
        "members": torch.arange(3).expand(1, 3, 3) if members == 3 else torch.zeros(1, 3, 3, dtype=torch.int64),
        "messages": torch.full((1, 4, 3), 0b0011, dtype=torch.int32),
        "slots": slots,
        "inbox_mask": mask,
        "log_words": words,
        "log_sources": sources,
        "log_direct": directs,
    }
    module = SimpleNamespace(agent=Voice(spec), spec=spec)
    return arrays, Unroller({"one": module}, {"one": slice(0, 3)}, KIND, through=True)


@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize("source", [0, 2])
def test_a_direct_word_carries_a_gradient_to_its_sender(members: int, source: int) -> None:
    arrays, unroller = hand_made(members, direct=True, source=source)
    run = unroller.run({"one": arrays})["one"]
    # Two bits of the direct word and one of the published, heard by all three.
    assert run.outputs.value[run.mask].sum().item() == pytest.approx(9.0)
    run.outputs.value.sum().backward()
    agent = unroller.modules["one"].agent
    # d sigma(a + offset) / da of four bits, heard by three; the gate's middle is two of four bits on: the offset is 0.
    a = agent.a[0, source, 0].item()
    sigma = 1 / (1 + math.exp(-a))
    expected = torch.zeros_like(agent.a)
    expected[source if members == 3 else 0, source] = 3 * 4 * sigma * (1 - sigma)
    torch.testing.assert_close(agent.a.grad, expected)


@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize("source", [1, 3])  # a repetition by seat 1, and a published word
def test_repeated_and_published_words_carry_none(members: int, source: int) -> None:
    arrays, unroller = hand_made(members, direct=False, source=source)
    run = unroller.run({"one": arrays})["one"]
    assert run.outputs.value[run.mask].sum().item() == pytest.approx(9.0)
    run.outputs.value.sum().backward()
    gradient = unroller.modules["one"].agent.a.grad
    assert gradient is None or not gradient.any()


@pytest.mark.parametrize("gradient", ["straight_through", "none"])
def test_receivers_losses_reach_senders_through_the_air_where_asked(gradient: str) -> None:
    config = air_config(*ALL, gradient=gradient)
    runner = runner_of(config)
    arrays = {name: as_tensors(a) for name, a in fragments(runner, 2)[-1].items()}
    runs = {name: run for run, _, name in unrolled(runner, config, arrays, gradient == "straight_through")}
    runs["listener"].outputs.value.square().sum().backward()
    moved = [p.grad is not None and bool(p.grad.any()) for p in runner.module["speaker"].parameters()]
    assert any(moved) == (gradient == "straight_through")


# ---- turns that a reflex takes ----

HIJACK = WordRepetition(Bernoulli(0.5), slot="hijack")


def test_a_seat_whose_turn_was_taken_is_not_voiced_and_its_own_word_is_lost() -> None:
    taken = 0
    for fragment in fragments(runner_of(air_config(HIJACK, ImmediateFeedback(), gradient="reinforce")), 3):
        voiced, alive = joined(fragment, "voiced"), joined(fragment, "alive")
        words, sources, direct = (fragment["speaker"][f"log_{k}"] for k in ("words", "sources", "direct"))
        assert not (voiced & ~alive).any()
        for b, t, n in np.argwhere(alive[:, :-1] & alive[:, 1:]):
            mine = (sources[b, t + 1] == n) & (words[b, t + 1] != 0)
            assert mine.sum() <= 1, "one transmission for each agent and step"
            # Who is not voiced repeats; who is says its own word, or nothing.
            assert (mine & ~direct[b, t + 1]).any() == (not voiced[b, t, n])
            taken += not voiced[b, t, n]
    assert taken > 50


def test_reinforce_does_not_credit_words_that_a_reflex_kept_from_being_said() -> None:
    """What the runner wrote of such words has no effect at all; what it wrote of the others has."""

    def after(where: str) -> dict[str, Tensor]:
        config = air_config(HIJACK, gradient="reinforce").training(num_epochs=1, message_entropy_coeff=0.1)
        runner, learner = runner_of(config), learner_of(config)
        runner.sample()
        batch = runner.sample()
        for arrays in batch.policy_batches.values():
            chosen = arrays["voiced"] if where == "said" else arrays["alive"] & ~arrays["voiced"]
            assert chosen.any()
            arrays["message_logp"][chosen] += 0.1 if where else 0.0
        learner.update_from_fragments([batch], [runner.num_worlds], 0, {})
        return weights(learner.networks["speaker"])

    as_it_was, kept, said = after(""), after("kept"), after("said")
    assert all(torch.equal(as_it_was[name], kept[name]) for name in as_it_was)
    assert not all(torch.equal(as_it_was[name], said[name]) for name in as_it_was)


def test_a_transcript_holds_no_word_that_a_reflex_kept_from_being_said() -> None:
    config = air_config(
        WordRepetition(Bernoulli(1.0), slot="hijack"), ImmediateFeedback(), env_config={"lengths": (6,)}
    )
    config.recording(run_dir="somewhere", conversation_worlds=2)
    runner = runner_of(config)
    fragment = fragments(runner, 1)[0]
    rows = runner.transcript.rows()
    said = transmitted(fragment)
    told = 0
    for world, step, sender, symbols, receivers in zip(
        *(rows[key] for key in ("world", "step", "sender", "symbols", "receivers")), strict=True
    ):
        word = said[world, step, sender]
        assert (symbols is None) == (word == 0)
        assert symbols is None or (word >> np.arange(8) & 1).tolist() == list(symbols)
        told += symbols is not None
        # All hear what was said, its sender included; repetitions are nobody's sayings.
        expected = {0, 1, 2, 3} if word and step < 5 else set()
        assert set(map(int, receivers)) == expected
    assert 0 < told < len(rows["world"])


# ---- senses ----


def test_withdrawn_observations_are_zeros_of_those_seats_alone() -> None:
    reflex = SensoryDeprivation(who=[1, 2], when=0.5)
    # With a central critic, so that the latent state is kept.
    runner = runner_of(told_config(reflex, critic="central", env_config={"death": 2}))
    zeros = total = 0
    for fragment in fragments(runner, 3):
        clock = fragment["speaker"]["obs"][:, :, 0, 0]
        for name, seats, touched in (("speaker", (0, 1), 1), ("listener", (2, 3), 2)):
            obs = fragment[name]["obs"]
            for place, seat in enumerate(seats):
                row = obs[:, :, place]
                # A seat's second number is never 0: its place, -1 or 1.
                gone = row[..., 1] == 0
                assert not row[gone].any()
                if seat == touched:
                    zeros, total = zeros + int(gone.sum()), total + gone.size
                else:
                    assert not gone.any()
                np.testing.assert_array_equal(row[..., 0][~gone], clock[~gone])
            assert not fragment[name]["action_mask"][..., 0].any()
            assert fragment[name]["action_mask"][..., 1:].all()
            # The latent state is that of the world.
            np.testing.assert_array_equal(fragment[name]["world_state"][..., 0], clock[:, :7])
    assert abs(zeros / total - 0.5) < 4 * (0.25 / total) ** 0.5


def test_noise_replaces_observations_within_one_and_is_seen_by_networks() -> None:
    config = air_config(SensoryDeprivation("noise", who=[0], when=1.0))
    runner = runner_of(config)
    clean = fragments(runner_of(air_config(Publishing(0.0))), 1)[0]
    fragment = fragments(runner, 1)[0]
    seen = fragment["speaker"]["obs"][:, :, 0]
    assert np.abs(seen).max() <= 1
    assert np.unique(seen).size > 200
    np.testing.assert_array_equal(fragment["speaker"]["obs"][:, :, 1], clean["speaker"]["obs"][:, :, 1])
    np.testing.assert_array_equal(fragment["listener"]["obs"], clean["listener"]["obs"])
    # What a network made of the noise is found again with it.
    arrays = {name: as_tensors(a) for name, a in fragment.items()}
    for run, rows, name in unrolled(runner, config, arrays, through=False):
        log_prob = runner.distributions[name].log_prob(run.outputs.action_logits, rows["actions"])
        torch.testing.assert_close(log_prob[run.mask], rows["action_logp"][run.mask], atol=1e-5, rtol=1e-5)


def test_a_fragment_begins_with_what_was_perceived_at_the_end_of_the_last() -> None:
    one, two = fragments(runner_of(air_config(SensoryDeprivation("noise", when=0.5))), 2)
    for name in one:
        np.testing.assert_array_equal(one[name]["obs"][:, -1], two[name]["obs"][:, 0])
        np.testing.assert_array_equal(one[name]["obs"][:, -2], two[name]["previous_obs"])


@pytest.mark.parametrize("when", [0.0, 1.0])
def test_labels_are_those_of_the_world_but_of_what_was_taken_away(when: float) -> None:
    runner = runner_of(told_config(SensoryDeprivation(when=when), critic="central"))
    seen: list[Tensor] = []
    whole = runner.statistics.step
    runner.statistics.step = lambda step, following: (seen.append(step.seen.labels), whole(step, following))  # type: ignore
    fragment = fragments(runner, 1)[0]
    assert fragment["speaker"]["obs"].any() == (when == 0)
    clock = fragment["speaker"]["world_state"][..., 0] * 5
    expected = np.where(when, -1, np.rint(clock).astype(int) % 3)
    np.testing.assert_array_equal(torch.stack(seen, 1)[..., 0].numpy(), expected)


# ---- the same again ----


def same(one: list[Any], two: list[Any]) -> None:
    for a, b in zip(one, two, strict=True):
        for name in a:
            assert a[name].keys() == b[name].keys()
            for key in a[name]:
                np.testing.assert_array_equal(a[name][key], b[name][key], err_msg=f"{name} {key}")


FADING: list[Any] = [
    *ALL,
    {"kind": "publishing", "rate": 1.0, "schedule": {"kind": "gated", "measure": "reward", "begin": 0.0, "end": 1.0}},
    {"kind": "sensory_deprivation", "when": [5, 2], "schedule": {"kind": "linear", "begin": 0, "end": 500}},
]


def test_a_run_state_continues_bit_for_bit_with_all_reflexes() -> None:
    def config() -> PopulationPPOConfig:
        return told_config(*FADING, members=4, dropout=0.1, noise=0.02, env_config={"death": 2})

    runner = runner_of(config())
    fragments(runner, 3)
    state = runner.run_state()
    expected = fragments(runner, 3)
    # Into a new runner, and into one that has gone elsewhere.
    for other, before in ((runner_of(config()), 0), (runner, 0), (runner_of(config()), 2)):
        fragments(other, before)
        other.set_run_state(state)
        same(expected, fragments(other, 3))


def test_a_run_state_from_before_the_first_step_starts_anew() -> None:
    runner, other = runner_of(air_config(*FADING)), runner_of(air_config(*FADING))
    state = runner.run_state()
    fragments(other, 2)
    other.set_run_state(state)
    # The worlds begin as from their seed, and nothing is left of the other's fades.
    assert other.fades() == []
    same(fragments(runner, 2), fragments(other, 2))


def test_the_same_seed_gives_the_same_weights_bit_for_bit() -> None:
    def trained(seed: int) -> dict[str, Tensor]:
        config = air_config(*FADING, members=2, gradient="straight_through").debugging(seed=seed)
        runner, learner = runner_of(config), learner_of(config)
        for iteration in range(3):
            update(learner, runner, iteration)
            runner.module.set_state(learner.module.get_state())
        return weights(learner.networks["speaker"])

    one, two, other = trained(3), trained(3), trained(4)
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)


# ---- fades ----


def test_the_clock_stands_still_within_a_fragment_and_counts_all_runners_steps() -> None:
    config = air_config(ImmediateFeedback(Linear(begin=0, end=1000)))
    config.validate()
    config.num_env_runners = 2  # without starting them
    runner = PopulationEnvRunner(config=config, worker_index=1)
    looked: list[int] = []
    runner.sample()
    observe = air_of(runner).observe
    air_of(runner).observe = lambda clock: (looked.append(clock.step), observe(clock))  # type: ignore
    sampled = [runner.num_env_steps_sampled_lifetime]
    for _ in range(2):
        runner.sample()
        sampled.append(runner.num_env_steps_sampled_lifetime)
    assert looked == [2 * sampled[0], 2 * sampled[1]]
    assert air_of(runner).strengths() == {"immediate_feedback": pytest.approx(1 - 2 * sampled[1] / 1000)}
    # What the driver counts goes before: other runners may be lost, or new.
    runner.sample(env_steps=750)
    assert air_of(runner).strengths() == {"immediate_feedback": 0.25}
    answer = runner.sample_or_say_why(by_reference=False, env_steps=2000)
    assert answer.metrics["channel"]["immediate_feedback_strength"].peek() == 0.0  # type: ignore[union-attr]
    # Nobody hears itself any more.
    fragment = {name: dict(a) for name, a in answer.batch.policy_batches.items()}  # type: ignore[union-attr]
    slots, mask = joined(fragment, "slots")[:, 1:], joined(fragment, "inbox_mask")[:, 1:]
    sources = fragment["speaker"]["log_sources"][:, 1:]
    senders = np.take_along_axis(sources[:, :, None, :].repeat(N, 2), slots, 3)
    assert mask.any()
    assert not (mask & (senders == np.arange(N)[None, None, :, None])).any()


@pytest.mark.parametrize("measure", ["agreement", "reward"])
def test_a_gated_reflex_follows_what_the_last_fragment_showed(measure: str) -> None:
    gate = {"kind": "gated", "measure": measure, "begin": 0.4, "end": 0.8, "smoothing": 0.0, "ratchet": False}
    runner = runner_of(told_config({"kind": "publishing", "rate": 1.0, "schedule": gate}))
    runner.sample()
    assert air_of(runner).strengths() == {"publishing": 1.0}, "nothing was measured yet"
    for _ in range(3):
        told = runner.statistics.performance[measure]
        assert 0 <= told <= 1
        runner.sample()
        expected = min(max((0.8 - told) / 0.4, 0.0), 1.0)
        assert air_of(runner).strengths() == {"publishing": pytest.approx(expected)}
    runner.statistics.performance = {measure: 0.9}
    fragment = fragments(runner, 1)[0]
    assert air_of(runner).strengths() == {"publishing": 0.0}
    # The first row holds what was published before.
    assert not (fragment["speaker"]["log_sources"][:, 1:] == N).any()


def test_worlds_that_are_made_anew_do_not_bring_faded_reflexes_back() -> None:
    gate = {"kind": "gated", "measure": "reward", "begin": 0.4, "end": 0.8, "smoothing": 0.0}
    config = air_config({"kind": "publishing", "schedule": gate})
    config.fault_tolerance(restart_failed_sub_environments=True)
    runner = runner_of(config)
    runner.sample()
    runner.statistics.performance = {"reward": 0.9}
    runner.sample()
    assert air_of(runner).strengths() == {"publishing": 0.0}
    runner.env.step = None  # type: ignore[assignment, method-assign]
    assert "traceback" in runner.sample_or_say_why(by_reference=False)._fields
    runner.sample_or_say_why(by_reference=False)
    assert air_of(runner).strengths() == {"publishing": 0.0}
    # Nor do worlds that a checkpoint could not hold.
    state = {**runner.run_state(), "world": None}
    other = runner_of(config)
    other.set_run_state(state)
    other.sample()
    assert air_of(other).strengths() == {"publishing": 0.0}


def test_what_is_played_back_is_as_faded_as_the_training() -> None:
    gate = {"kind": "gated", "measure": "reward", "begin": 0.4, "end": 0.8, "smoothing": 0.0}
    reflexes = [{"kind": "publishing", "schedule": gate}, ImmediateFeedback(Linear(0, 100))]
    config = air_config(*reflexes)
    runner = runner_of(config)
    runner.sample()
    runner.statistics.performance = {"reward": 0.9}
    runner.sample()
    learners = SimpleNamespace(get_weights=runner.module.get_state)
    shown = population_of(config, learners, env_steps=75, fades=runner.fades()).rollout()
    shown.begin()
    shown.step()
    session = shown.players.session
    assert session is not None
    assert session.measures()["publishing_strength"] == 0.0
    assert session.measures()["immediate_feedback_strength"] == 0.25


def test_a_runner_logs_the_channel() -> None:
    runner = runner_of(told_config(*ALL))
    for _ in range(2):
        runner.sample()
    told = {name: value.peek() for name, value in runner.get_metrics()["channel"].items()}
    assert set(told) == {
        *("load", "drops", "inbox_drops", "reflex_share", "distinct_words", "reproduction", "lifetime"),
        *("immediate_feedback_strength", "word_repetition_1_strength", "word_repetition_2_strength"),
        *("sensory_deprivation_strength", "publishing_strength"),
    }
    assert all(np.isfinite(value) for value in told.values())
    assert told["immediate_feedback_strength"] == 0.5
