"""Populations that are evaluated in noise, where what it costs is known."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from popcomm.agents import AgentSpec, MLPAgent, SymbolicAgent
from popcomm.agents.contract import AgentOutput
from popcomm.channels import Symbols, Vectors
from popcomm.envs import noise as sensors
from popcomm.errors import UserError
from popcomm.rollout.interference import in_turn, shuffled, silenced
from popcomm.rollout.noise import KINDS, Adversarial, Corrupted, by_strength, hindrance_of
from tests.envs.test_sight import LAST, Painter
from tests.rollout.test_population import population
from tests.rollout.test_rollout import Crier


def paint(config: Any) -> Painter:
    return Painter(LAST)


class Weigher(nn.Module):
    """Does 1 where the last number that it sees is above 1/2, else 0; says and hears nothing."""

    def __init__(self, spec: AgentSpec) -> None:
        super().__init__()
        self.spec = spec

    def initial_state(self, rows: int) -> dict[str, Tensor]:
        return {}

    def forward(self, obs: Tensor, inbox: Any, state: Any) -> AgentOutput:
        margin = 3.0 * (obs[..., -1] - 0.5)
        rest = [torch.full_like(margin, -9.0)] * (self.spec.action_params_size - 2)
        return AgentOutput(torch.stack([-margin, margin, *rest], -1), None, obs.new_zeros(obs.shape[:2]), {}, {})


def listeners(noise: Any, agent: Any = Weigher, **how: Any) -> Any:
    """The return of a listener; Weighers see a constant 1 last there, and earn 1 in each of 3 or 5 steps."""
    kind = None if agent is Weigher else Symbols(6, 1)
    return population(agent, members=1, kind=kind).evaluate(noise=noise, **how).per_species["listener"]


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("greedy", [True, False])
def test_at_strength_zero_no_bit_changes(kind: str, greedy: bool) -> None:
    found = population(MLPAgent, members=2, hidden=4)
    plain = found.evaluate(6, greedy=greedy)
    still = found.evaluate(6, greedy=greedy, noise={"kind": kind, "strength": 0})
    assert (plain.returns == still.returns).all()
    assert hindrance_of({"kind": kind, "strength": 0}) is None


@pytest.mark.parametrize(
    ("noise", "strength"), [("gaussian", 3.0), ("bias", 3.0), ("missing", 0.5), ("adversarial", 1)]
)
def test_noise_on_observations_reaches_the_population(noise: str, strength: float) -> None:
    assert listeners(None, greedy=True).mean == 4
    assert listeners({"kind": noise, "strength": strength}, greedy=True).mean < 3.5


def test_who_observes_nothing_earns_nothing_and_a_noise_object_will_do() -> None:
    assert listeners({"kind": "missing", "strength": 1}, greedy=True).mean == 0
    assert listeners(sensors.Missing(1.0), greedy=True).mean == 0


@pytest.mark.parametrize(("strength", "mean"), [(0.49, 4.0), (0.51, 0.0)])
def test_an_adversary_needs_as_much_as_the_margin_is(strength: float, mean: float) -> None:
    assert listeners({"kind": "adversarial", "strength": strength}, greedy=True).mean == mean


def test_an_adversary_moves_each_number_against_the_policy_and_nothing_else() -> None:
    rollout = population(Weigher, members=2, kind=None).rollout(seed=1)
    rollout.begin()
    seen = {name: values.clone() for name, values in rollout.players.now.observations.items()}  # type: ignore[union-attr]
    Adversarial(0.25).of_players(rollout.players)
    turn, _ = rollout.step()
    for name in seen:
        moved = turn.seen.observations[name] - seen[name]
        against = torch.where(seen[name][..., -1] > 0.5, -0.25, 0.25)
        assert torch.allclose(moved[..., -1], against)
        assert not moved[..., :-1].any()


@pytest.mark.parametrize("agent", [MLPAgent, SymbolicAgent])
def test_an_adversary_of_forces_and_of_networks_that_remember_and_talk(agent: Any) -> None:
    config = {"num_agents": 3, "continuous_actions": True, "max_steps": 5}
    found = population(agent, env="swarm_v0", env_config=config)
    rollout = found.rollout(seed=1)
    rollout.begin()
    seen = rollout.players.now.observations["swarm"].clone()  # type: ignore[union-attr]
    Adversarial(0.1).of_players(rollout.players)
    turn, _ = rollout.step()
    moved = (turn.seen.observations["swarm"] - seen).abs()
    assert torch.allclose(moved, torch.full_like(moved, 0.1), atol=1e-6)
    assert found.evaluate(2, noise={"kind": "adversarial", "strength": 0.1}).episodes == 2


def test_an_adversary_moves_pictures_by_whole_steps_of_brightness() -> None:
    found = population(MLPAgent, kind=None, env=paint, env_config={})
    rollout = found.rollout(seed=1)
    rollout.begin()
    seen = rollout.players.now.observations["a"].int()  # type: ignore[union-attr]
    Adversarial(3).of_players(rollout.players)
    moved = rollout.step()[0].seen.observations["a"]
    assert moved.dtype == torch.uint8
    inside = (seen >= 3) & (seen <= 252)
    assert ((moved.int() - seen).abs()[inside] == 3).all()
    assert found.evaluate(2, noise={"kind": "adversarial", "strength": 3}).episodes == 2


def test_lost_messages_are_missed_by_each_listener_for_itself() -> None:
    found = population(Crier, members=1)
    assert found.evaluate(20).per_species["speaker"].mean == 1
    # A speaker is paid in the one step in which it hears an age of 1, from any of the three others.
    told = found.evaluate(400, noise={"kind": "lost", "strength": 0.5}).per_species["speaker"]
    assert told.mean == pytest.approx(1 - 0.5**3, abs=4 * 0.33 / 800**0.5)
    assert found.evaluate(20, noise={"kind": "lost", "strength": 1}).return_mean == 0


def test_corrupted_messages_are_any() -> None:
    found = population(Crier, members=1)
    assert found.evaluate(20).per_species["listener"].mean == 2
    # Heard in 2 or 4 steps, and paid where one of three symbols of six is not 0.
    told = found.evaluate(400, noise={"kind": "corrupted", "strength": 1}).per_species["listener"]
    assert told.mean == pytest.approx(3 * (1 - 6**-3), abs=4 * 0.12 / 800**0.5)
    # Nobody is heard then, whatever would have become of it.
    assert found.evaluate(20, messages="off", noise={"kind": "corrupted", "strength": 1}).return_mean == 0


def test_vectors_are_corrupted_by_more_than_one() -> None:
    said, voice = torch.zeros(200, 10, 3), torch.ones(200, 10, dtype=torch.bool)
    players: Any = type("Players", (), {})()
    Corrupted(2.0).of_players(players)
    heard, _ = players.interference(Vectors(3), said, voice, torch.Generator().manual_seed(0))
    assert heard.std().item() == pytest.approx(2.0, rel=0.05)
    found = population(MLPAgent, kind=Vectors(3), hidden=4)
    assert found.evaluate(2, noise={"kind": "corrupted", "strength": 2.0}).episodes == 2


def test_one_interference_follows_another() -> None:
    assert in_turn(None, None) is None
    assert in_turn(silenced, None) is in_turn(None, silenced) is silenced
    both = in_turn(shuffled, silenced)
    assert both is not None
    said = torch.arange(4).view(4, 1, 1)
    messages, voice = both(Symbols(6, 1), said, torch.ones(4, 1, dtype=torch.bool), torch.Generator().manual_seed(0))
    assert not voice.any()
    assert sorted(messages.flatten().tolist()) == [0, 1, 2, 3]
    assert (messages != said).all()


def test_returns_by_strength_are_of_the_same_episodes() -> None:
    found = population(Weigher, members=1, kind=None)
    told = by_strength(found, "adversarial", [0, 0.4, 0.6], 20, greedy=True)
    assert [one.per_species["listener"].mean for one in told.values()] == [4, 4, 0]
    assert (told[0].returns[:, 2:] == told[0.4].returns[:, 2:]).all()


@pytest.mark.parametrize(
    ("noise", "words"),
    [
        ({"kind": "losst", "strength": 0.1}, "'losst'.*lost"),
        ({"kind": "lost", "strength": 2}, r"kind 'lost': strength is 2, and must lie in \[0, 1\]"),
        ({"kind": "corrupted", "strength": 2}, r"kind 'corrupted': strength is 2, and must lie in \[0, 1\]"),
        ({"kind": "adversarial", "strength": -1}, "kind 'adversarial': strength is -1"),
        ("lost", "noise is 'lost', and must be a mapping"),
    ],
)
def test_what_cannot_be_is_one_sentence(noise: Any, words: str) -> None:
    with pytest.raises(UserError, match=words):
        population().evaluate(2, noise=noise)


@pytest.mark.parametrize("kind", ["lost", "corrupted"])
def test_the_silent_have_no_messages_to_lose(kind: str) -> None:
    with pytest.raises(UserError, match=f"noise is of kind '{kind}', which is of messages"):
        population(kind=None).evaluate(2, noise={"kind": kind, "strength": 0.1})
