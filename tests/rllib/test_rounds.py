"""Rounds of messages within a step: what is said in a step is heard in it, in play and in learning."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from popcomm.analysis.experiments.local_training import LocalTraining
from torch import Tensor, nn

from popcomm.agents.contract import AgentOutput, AgentSpec, AuxiliaryBatch
from popcomm.agents.distributions import action_distribution
from popcomm.channels.mailbox import Inbox
from popcomm.envs import swarm_v0, with_messages
from popcomm.envs.world import Species, World, WorldStep
from popcomm.errors import UserError
from popcomm.rllib import PopulationPPOConfig
from popcomm.rllib.credit import credit_at_once, senders_of
from popcomm.rllib.decisions import Decisions
from popcomm.rllib.env_runner import PopulationEnvRunner
from popcomm.rllib.fragment import Fragment
from popcomm.rllib.rows import Rows
from popcomm.rllib.unroll import Unroller
from popcomm.rollout.noise import Adversarial
from tests.rllib.test_rollout import runner_of

DIGITS = 3
SYMBOLS = {"kind": "symbols", "vocab_size": 6, "length": 2}
RELAXED = {**SYMBOLS, "relaxed": True}
VECTORS = {"kind": "vectors", "size": 3, "std": 0.3}
WORDS = {"kind": "words", "bits": 8, "min_on": 2, "max_on": 4}
SWARM = ("swarm_v0", {"num_agents": 4, "max_steps": 5, "stagger": True})


class Whisper(World):
    """One step: the first seat sees one of three digits, the last is to name it, and all get 1 if it does.

    On a chain of N seats a digit needs N - 1 messages, one after the other, within the step: with fewer, and with
    messages that are heard one step later, nobody can do better than 1/3.
    """

    def __init__(self, num_worlds: int = 1, device: Any = "cpu", num_agents: int = 2) -> None:
        self.num_worlds, self.device, self.seats = num_worlds, torch.device(device), num_agents
        species = Species("player", 0, num_agents, DIGITS + num_agents, spaces.Discrete(DIGITS))
        self.species = {"player": species}
        self.generator = torch.Generator()
        self.over = True

    def _say(self, rewards: Tensor) -> WorldStep:
        who = torch.eye(self.seats).expand(self.num_worlds, -1, -1)
        shown = torch.zeros(self.num_worlds, self.seats, DIGITS)
        shown[:, 0] = torch.nn.functional.one_hot(self.digits, DIGITS).float()
        over = torch.full((self.num_worlds, self.seats), self.over)
        seen = {"player": torch.cat([shown, who], -1)}
        return WorldStep(seen, rewards, over, torch.zeros_like(over), ~over, ~over)

    def reset(self, seed: int | None = None) -> WorldStep:
        if seed is not None:
            self.generator.manual_seed(seed)
        self.digits, self.over = torch.randint(DIGITS, (self.num_worlds,), generator=self.generator), False
        return self._say(torch.zeros(self.num_worlds, self.seats))

    def step(self, actions: dict[str, Tensor], spoken: Tensor | None = None) -> WorldStep:
        if self.over:
            return self.reset()
        named, self.over = actions["player"][:, -1] == self.digits, True
        return self._say(named.float().unsqueeze(1).expand(-1, self.seats).clone())

    def get_state(self) -> dict[str, Any]:
        return {"generator": self.generator.get_state(), "digits": self.digits, "over": self.over}

    def set_state(self, state: dict[str, Any]) -> WorldStep:
        self.generator.set_state(state["generator"])
        self.digits, self.over = state["digits"], state["over"]
        return self._say(torch.zeros(self.num_worlds, self.seats))


class Parrot(nn.Module):
    """Says what it hears, or else the digit that it sees, and names the digit that it hears; counts its calls."""

    has_auxiliary_losses = False

    def __init__(self, spec: AgentSpec) -> None:
        super().__init__()
        self.spec, self.scale = spec, nn.Parameter(torch.full((spec.members,), 1.0))

    def initial_state(self, rows: int) -> dict[str, Tensor]:
        return {"calls": torch.zeros(self.spec.members, rows, 1)}

    def forward(self, obs: Tensor, inbox: Inbox | None, state: Mapping[str, Tensor]) -> AgentOutput:
        assert inbox is not None
        heard = (inbox.messages * inbox.mask.unsqueeze(-1)).sum(-2)
        known = torch.where(inbox.mask.any(-1, keepdim=True), heard, obs[..., :DIGITS])
        said = {"calls": state["calls"] + 1}
        return AgentOutput(50.0 * heard * self.scale.view(-1, 1, 1), known, obs[..., 0] * 0, said, {})

    def auxiliary_losses(self, batch: AuxiliaryBatch, outputs: AgentOutput) -> dict[str, Tensor]:
        return {}


def whisper(num_agents: int, rounds: int, messages: Any = None, agent: Any = Parrot, **agent_config: Any) -> Any:
    return (
        PopulationPPOConfig()
        .environment(Whisper, env_config={"num_agents": num_agents})
        .communication(
            messages=messages or {"kind": "vectors", "size": DIGITS}, topology={"kind": "chain"}, rounds=rounds
        )
        .population(agent=agent, agent_config=agent_config)
        .env_runners(num_worlds_per_env_runner=64, rollout_fragment_length=6)
        .debugging(seed=1)
    )


def swarm(rounds: int, messages: Any, topology: Any, agent: str, members: int, **more: Any) -> PopulationPPOConfig:
    size = {"hidden_dim": 16} if agent == "symbolic" else {"hidden": 16}
    if agent == "tiny":
        size = {"hidden_dim": 16, "num_heads": 2, "latent_tokens": 4, "message_head": "autoregressive"}
    return (
        PopulationPPOConfig()
        .environment(SWARM[0], env_config=SWARM[1])
        .communication(messages=messages, topology=topology, rounds=rounds, **more)
        .population(agent=agent, members=members, agent_config=size)
        .env_runners(num_worlds_per_env_runner=8, rollout_fragment_length=7)
        .debugging(seed=3)
    )


def tensors(fragment: Any) -> dict[str, Fragment[Tensor]]:
    return {n: {k: torch.from_numpy(np.array(v)) for k, v in a.items()} for n, a in fragment.policy_batches.items()}


def networks(runner: PopulationEnvRunner) -> dict[str, Any]:
    return {name: runner.module[name].unwrapped() for name in runner.plan.species}


def unrolled(runner: PopulationEnvRunner, arrays: dict[str, Fragment[Tensor]]) -> Any:
    plan = runner.plan
    seats = {name: species.seats for name, species in plan.layout.species.items()}
    return Unroller(networks(runner), seats, plan.message_kind, plan.carries_gradients).run(arrays)


def stirred(runner: PopulationEnvRunner) -> PopulationEnvRunner:
    """Heads start near zero; here decisions matter."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for network in networks(runner).values():
            for parameter in network.parameters():
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return runner


# ---- the one-step game ----


@pytest.mark.parametrize(("num_agents", "rounds", "right"), [(2, 0, False), (2, 1, True), (3, 1, False), (3, 2, True)])
def test_a_digit_is_told_along_a_chain_within_a_step_by_as_many_rounds_as_there_are_links(
    num_agents: int, rounds: int, right: bool
) -> None:
    runner = runner_of(whisper(num_agents, rounds))
    fragment = runner.sample().policy_batches["player"]
    lived = fragment["alive"][..., -1]
    named = fragment["actions"][..., -1][lived] == fragment["obs"][:, :-1, 0, :DIGITS].argmax(-1)[lived]
    if right:
        assert named.all()
    else:
        assert abs(named.mean() - 1 / DIGITS) < 0.17  # five standard deviations among 192


@pytest.mark.parametrize(
    ("messages", "rounds", "best"),
    [(None, 0, 1 / DIGITS), (RELAXED, 0, 1 / DIGITS), (RELAXED, 1, 1.0), (VECTORS, 1, 1.0)],
)
def test_only_talk_within_the_step_is_learned_to_be_of_use_where_the_episode_is_one_step(
    messages: Any, rounds: int, best: float
) -> None:
    config = whisper(2, rounds, messages, "mlp", hidden=32)
    config.communication(messages=messages).training(lr=3e-3)
    training = LocalTraining(config, evaluation_worlds=256)
    for _ in range(35 if best == 1 else 15):
        training.iterate()
    reached = training.point().greedy
    if best == 1:
        assert reached > 0.9
    else:
        assert abs(reached - best) < 0.15  # five standard deviations


def test_a_memory_goes_on_through_the_rounds_and_begins_anew_with_a_life() -> None:
    runner = runner_of(whisper(2, 3))
    runner.sample()
    step = runner.rollout.players.now
    assert step is not None
    calls = runner.rollout.players.memories["player"]["calls"]
    # Lives last one step, and the row in which nobody lives is thought about as well, for its value: twice 4 calls.
    assert calls.unique().tolist() == [8.0 if bool(step.first.any()) else 4.0]


# ---- unroll and gradients ----

COMBINATIONS = [
    (1, RELAXED, {"kind": "full"}, "symbolic", 4, {}),
    (2, SYMBOLS, {"kind": "k_nearest", "k": 2}, "symbolic", 2, {"gradient": "straight_through", "noise": 0.2}),
    (2, RELAXED, {"kind": "ring"}, "mlp", 1, {"noise": 0.2, "dropout": 0.2}),
    (2, SYMBOLS, {"kind": "full"}, "mlp", 8, {"gradient": "reinforce", "noise": 0.3}),
    (3, VECTORS, {"kind": "chain"}, "symbolic", 2, {}),
    (2, WORDS, {"kind": "full"}, "symbolic", 2, {"gradient": "reinforce"}),
    (2, SYMBOLS, {"kind": "full"}, "tiny", 2, {"gradient": "reinforce"}),
    (2, SYMBOLS, {"kind": "routed", "latents": 4}, "symbolic", 1, {"gradient": "reinforce"}),
    (2, {"kind": "dru", "size": 3}, {"kind": "full"}, "mlp", 2, {}),
]


@pytest.mark.parametrize(("rounds", "messages", "topology", "agent", "members", "more"), COMBINATIONS)
def test_the_unroll_does_what_the_rollout_did(
    rounds: int, messages: Any, topology: Any, agent: str, members: int, more: dict[str, Any]
) -> None:
    runner = stirred(runner_of(swarm(rounds, messages, topology, agent, members, **more)))
    runner.sample()  # so that seats and memories have changed once
    arrays = tensors(runner.sample())
    for name, run in unrolled(runner, arrays).items():
        network, species = networks(runner)[name], runner.plan.species[name]
        rows, mask = Rows(arrays[name], run.places, network.spec.members), run.mask
        law = action_distribution(species.species.action_space)
        torch.testing.assert_close(
            law.log_prob(run.outputs.action_logits, rows["actions"], None)[mask],
            rows["action_logp"][mask], rtol=1e-5, atol=1e-5,
        )  # fmt: skip
        values = network.returns.denormalise(run.outputs.value)
        torch.testing.assert_close(values[mask], rows["values"][mask], rtol=1e-5, atol=1e-5)
        if "message_logp" in arrays[name]:
            said = Decisions(species, law).said_log_prob(run, rows)
            torch.testing.assert_close(said[mask], rows["message_logp"][mask], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("agent", "size"), [("mlp", {"hidden": 8}), ("symbolic", {"hidden_dim": 8, "num_heads": 2})])
def test_gradients_go_through_all_rounds_as_finite_differences_say(agent: str, size: dict[str, int]) -> None:
    """The last of three seats acts by what the first said two rounds before."""
    config = whisper(3, 2, None, agent, **size)
    config.population(members=3, seating="fixed").env_runners(num_worlds_per_env_runner=6, rollout_fragment_length=2)

    def functional(shift: float) -> Tensor:
        runner = runner_of(config)
        for network in networks(runner).values():
            network.double()
        network = networks(runner)["player"]
        network.agent.register_forward_pre_hook(lambda _, seen: (seen[0].double(), *seen[1:]))
        torch.manual_seed(0)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(0.5 * torch.randn_like(parameter))
            network.agent.message_head.weight[0, 1, 2] += shift
        arrays = tensors(runner.sample())
        doubled = {k: v.double() if v.is_floating_point() else v for k, v in arrays["player"].items()}
        run = unrolled(runner, {"player": doubled})["player"]
        total = (run.outputs.action_logits[2] * run.mask[2].unsqueeze(-1))[..., 0].sum()
        if not shift:
            total.backward()
            found.append(float(network.agent.message_head.weight.grad[0, 1, 2]))
        return total.detach()

    found: list[float] = []
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        functional(0.0)
        difference = float(functional(1e-3) - functional(-1e-3)) / 2e-3
    finally:
        torch.set_default_dtype(before)
    assert abs(difference) > 1e-4
    assert found[0] == pytest.approx(difference, rel=2e-2)


# ---- what is counted, written down and kept ----


def test_talk_of_all_rounds_is_charged_for() -> None:
    """Vectors count as one symbol each."""
    runner = runner_of(swarm(3, VECTORS, {"kind": "full"}, "mlp", 1))
    runner.sample()
    turn, _ = runner.rollout.step()
    assert turn.loads is not None
    assert torch.equal(turn.loads, 3.0 * turn.seen.alive)


def test_a_transcript_has_a_row_for_every_round_with_who_heard_it() -> None:
    config = whisper(3, 2)
    config.recording(run_dir="somewhere", conversation_worlds=1, conversation_every=1)
    runner = runner_of(config)
    runner.sample()
    rows = runner.transcript.take()
    # Six rows of a world with episodes of one step, and three seats: three steps.
    moments = list(zip(*(map(int, rows[key]) for key in ("episode", "step", "round", "sender")), strict=True))
    assert moments == [(e, 0, r, s) for e in range(3) for r in range(2) for s in range(3)]
    said = np.array(rows["vector"])
    digit = np.array(rows["observation"])[:, :DIGITS]
    first, relayed = (np.flatnonzero((rows["round"] == r) & (rows["sender"] == s)) for r, s in ((0, 0), (1, 1)))
    assert np.array_equal(said[first], digit[first])  # a digit that is seen,
    assert np.array_equal(said[relayed], digit[first])  # and is passed on in the next round
    assert [list(heard) for heard in rows["receivers"]] == [[1], [2], []] * 6


def test_without_rounds_a_transcript_has_no_round() -> None:
    config = whisper(2, 0)
    config.recording(run_dir="somewhere", conversation_worlds=1, conversation_every=1)
    runner = runner_of(config)
    runner.sample()
    assert "round" not in runner.transcript.take()


def test_a_restored_runner_goes_on_bit_for_bit() -> None:
    config = swarm(2, RELAXED, {"kind": "ring"}, "symbolic", 2, noise=0.1, dropout=0.1)
    one, other = runner_of(config), runner_of(config)
    one.sample()
    state = one.run_state()
    expected = tensors(one.sample())["swarm"]
    other.sample(), other.sample()
    other.set_run_state(state)
    found = tensors(other.sample())["swarm"]
    assert expected.keys() == found.keys()
    for key, values in expected.items():
        assert torch.equal(values, found[key]), key


def test_a_digit_that_is_heard_is_listened_to() -> None:
    runner = runner_of(whisper(3, 2))
    runner.sample()
    # Of the three seats only the last two hear; what they hear in two of three other worlds is another digit, and the
    # second seat hears it in the first round and again in the last.
    assert runner.statistics.language == {} or "listening" in runner.statistics.language
    measured = [runner.sample() and runner.statistics.language.get("listening") for _ in range(12)]
    assert max(value for value in measured if value is not None) == pytest.approx(1.0)


def test_credit_of_receivers_is_that_of_the_step_itself() -> None:
    advantages = torch.tensor([[[1.0, 2.0, 6.0]]])
    lived = torch.tensor([[[True, True, False]]])
    # Two rounds with one slot each: seat 1 hears seat 0 twice, seat 2, who does not live, hears seat 1.
    senders = torch.tensor([[[[0, 0], [0, 0], [1, 1]]]])
    mask = torch.tensor([[[[False, False], [True, True], [True, True]]]])
    credit = credit_at_once(advantages, senders, mask, lived)
    assert credit.values.tolist() == [[[2.0, 0.0, 0.0]]]
    assert credit.heard.tolist() == [[[True, False, False]]]


def test_inboxes_of_all_rounds_are_counted_for_credit() -> None:
    config = whisper(3, 2, SYMBOLS, "mlp", hidden=8)
    config.communication(gradient="reinforce", credit="receivers")
    arrays = tensors(runner_of(config).sample())
    senders, mask = senders_of(arrays)
    assert senders.shape == mask.shape == (64, 6, 3, 2)
    assert torch.equal(mask.sum(-1)[arrays["player"]["alive"]].view(-1, 3), torch.tensor([0, 2, 2]).expand(192, 3))


def test_messages_of_all_rounds_are_learned_as_actions() -> None:
    config = whisper(3, 2, SYMBOLS, "mlp", hidden=8)
    config.communication(gradient="reinforce").training(message_entropy_coeff=0.01, message_kl_coeff=0.1)
    training = LocalTraining(config, evaluation_worlds=64)
    network = training.learner.networks["player"].agent
    before = {name: values.detach().clone() for name, values in network.named_parameters()}
    logged = training.iterate()["player"]
    # Two rounds of two symbols, which are hardly other than even at the start.
    assert float(logged["message_entropy"].peek()) == pytest.approx(2 * 2 * np.log(6), rel=0.05)
    moved = {name for name, values in network.named_parameters() if not torch.equal(values, before[name])}
    assert moved >= {"message_head.weight", "encoder.weight"}


# ---- bad input ----


def test_what_does_not_go_with_rounds_is_told() -> None:
    for settings, said in (
        ({"rounds": -1}, "communication.rounds is -1"),
        ({"rounds": 1.5}, "communication.rounds is 1.5"),
        (
            {"rounds": 1, "reflexes": [{"kind": "word_repetition"}], "messages": WORDS},
            "communication.reflexes asks for a",
        ),
        ({"rounds": 1, "capacity": 9, "messages": WORDS}, "communication.capacity asks for a log"),
        ({"rounds": 1, "gradient": "reinforce", "credit": "next"}, "communication.credit is 'next'"),
        (
            {"rounds": 1, "gradient": "reinforce", "credit": "counterfactual"},
            "communication.credit is 'counterfactual'",
        ),
    ):
        config = PopulationPPOConfig().environment("swarm_v0", env_config={"num_agents": 3})
        config.communication(**{"messages": SYMBOLS, **settings})
        with pytest.raises(UserError, match=said):
            config.validate()
    with pytest.raises(UserError, match="rounds is 2, and a ParallelEnv takes one action"):
        with_messages(swarm_v0.parallel_env(num_agents=3), SYMBOLS, {"kind": "full"}, rounds=2)
    runner = runner_of(swarm(1, RELAXED, {"kind": "full"}, "mlp", 1))
    with pytest.raises(UserError, match="noise is of kind 'adversarial'"):
        Adversarial(0.1).of_players(runner.rollout.players)
