"""A population without a trainer: its files, its members, its evaluation in worlds where the answer is known."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import popcomm
from popcomm import manifest
from popcomm.agents import AgentSpec, GRUAgent, MLPAgent, SymbolicAgent, TinyAgent
from popcomm.channels import MessageKind, Symbols, Vectors, Words
from popcomm.envs.layout import WorldLayout
from popcomm.envs.swarm_v0 import SwarmWorld
from popcomm.errors import UserError
from popcomm.rollout.evaluation import Estimate, Evaluation, joined, worlds_for
from popcomm.rollout.interference import exchanged, replaced
from popcomm.rollout.members import Members
from popcomm.rollout.population import Population
from popcomm.rollout.recipes import ChannelRecipe, EnvRecipe
from popcomm.schedules import Clock
from tests.rllib.growing_agent import Budding
from tests.rllib.worlds import ClockWorld
from tests.rollout.test_rollout import LENGTHS, Crier

SYMBOLS = Symbols(6, 1)


class CountingWorld(ClockWorld):
    """ClockWorld that counts its own steps, and has as many speakers as one likes."""

    steps = 0

    def step(self, *args: Any) -> Any:
        self.steps += 1
        return super().step(*args)

    def metrics(self) -> dict[str, float]:
        steps, self.steps = self.steps, 0
        return {"steps": float(steps)}


def population(
    agent: Any = Crier,
    members: int = 2,
    kind: MessageKind | None = SYMBOLS,
    env_config: dict[str, Any] | None = None,
    env: Any = CountingWorld,
    **agent_config: Any,
) -> Population:
    recipe = EnvRecipe(env, {"lengths": LENGTHS, **(env_config or {})} if env is CountingWorld else env_config or {})
    layout = WorldLayout.of(recipe.make(1))
    channel = None if kind is None else ChannelRecipe(kind, {"kind": "full"})
    air = None if channel is None else channel.make(layout)
    found = {}
    for name, species in layout.species.items():
        spec = AgentSpec.of(
            species,
            messages=kind,
            inbox_size=0 if air is None else air.inbox_size,
            members=members,
            num_agents=layout.num_agents,
            state_size=layout.state_size,
        )
        found[name] = Members(spec, agent(spec, **agent_config), agent_config)
    return Population(found, layout, channel, recipe, num_worlds=2)


# ---- evaluation ----


def test_returns_of_worlds_seats_and_members_are_told_apart() -> None:
    # Member 1 of either kind earns 1 in every step, member 0 nothing; worlds last 3 or 5 steps in turn.
    found = population(as_member=True).evaluate(episodes=20)
    assert found.episodes == 20
    assert found.length_mean == 4.0
    assert found.return_mean == 8.0
    assert found.per_member["speaker"][0] == Estimate(0.0, 0.0, 0.0, 20)
    assert found.per_member["listener"][1].mean == 4.0
    assert sum(one.mean for one in found.per_agent.values()) == pytest.approx(8.0)
    assert found.per_species["speaker"].mean == 2.0


def test_seats_of_one_episode_are_one_value_of_a_members_interval() -> None:
    # Four seats of an episode earn the same: they tell no more of a member than one seat would.
    layout = WorldLayout.of(SwarmWorld(1, num_agents=4))
    earned = np.array([0.0, 2.0, 4.0])
    members = np.array([[0, 0, 0, 0], [0, 0, 0, 0], [0, 1, 1, 1]])
    returns = np.repeat(earned[:, None], 4, 1)
    found = Evaluation(returns, np.ones(3, int), {"swarm": members}, {}, {"swarm": 3}, layout).per_member["swarm"]
    assert found[0] == Estimate.of(earned)
    assert (found[1].mean, found[1].values) == (4.0, 1)
    assert math.isnan(found[2].mean)


def test_episodes_that_take_long_count_as_often_as_short_ones() -> None:
    found = population(as_member=True).evaluate(episodes=20)
    assert np.bincount(found.lengths).tolist() == [0, 0, 0, 10, 0, 10]


def test_episodes_are_whole_also_of_worlds_that_begin_at_different_ages_in_training() -> None:
    env_config = {"num_agents": 2, "max_steps": 9, "stagger": True}
    found = population(MLPAgent, env="swarm_v0", env_config=env_config, hidden=4)
    assert found.evaluate(episodes=6).lengths.tolist() == [9] * 6
    assert set(found.evaluate(episodes=6, env_config={"stagger": True}).lengths.tolist()) != {9}


def test_intervals_are_students() -> None:
    found = population(as_member=True).evaluate(episodes=20)
    totals = found.returns.sum(1)
    half = 2.093024 * totals.std(ddof=1) / math.sqrt(20)  # t of 19 degrees of freedom, from a table
    assert found.return_interval == pytest.approx((8.0 - half, 8.0 + half), abs=1e-5)


def test_the_worlds_own_scores_are_means_over_rounds() -> None:
    found = population(as_member=True).evaluate(episodes=20)
    # Two worlds of ten episodes each: the slower one ends an episode every six rows.
    assert found.scores_of_rounds["steps"].tolist() == [5.0] + [6.0] * 9
    assert found.scores["steps"].mean == pytest.approx(5.9)


@pytest.mark.parametrize(("messages", "earned"), [(None, 1.0), ("on", 1.0), ("off", 0.0)])
def test_with_messages_off_nobody_hears(messages: str | None, earned: float) -> None:
    # A seat does what it hears: action 1, worth 1, in the one step in which others were one step old.
    found = population(members=1).evaluate(episodes=10, messages=messages)
    assert found.per_agent["speaker_0"].mean == earned


def test_noise_takes_the_place_of_what_is_said() -> None:
    told = population(members=1, kind=Symbols(2, 1)).evaluate(episodes=400, messages="noise", seed=1)
    # The largest of three symbols, 0 or 1, is 1 in seven of eight; in an episode's first step nothing is heard.
    expected = np.mean([(length - 1) * 7 / 8 for length in LENGTHS])
    found = told.per_agent["speaker_0"]
    assert found.low < expected < found.high
    assert found.high - found.low < 0.5


def test_the_same_episodes_are_played_every_time_and_others_by_another_seed() -> None:
    one = population(MLPAgent, hidden=4)
    first, again, other = (one.evaluate(episodes=6, seed=seed) for seed in (None, 0, 1))
    np.testing.assert_array_equal(first.returns, again.returns)
    assert not np.array_equal(first.returns, other.returns)


def test_what_cannot_be_evaluated_is_refused() -> None:
    with pytest.raises(UserError, match="messages 'loud' does not exist"):
        population().evaluate(messages="loud")
    with pytest.raises(UserError, match="messages is 'off', and this population is silent"):
        population(kind=None).evaluate(messages="off")
    with pytest.raises(UserError, match="episodes is 0"):
        population().evaluate(episodes=0)


def test_worlds_seat_members_evenly() -> None:
    assert worlds_for(100, 1) == (10, 10)
    assert worlds_for(1, 1) == (1, 1)
    assert worlds_for(20, 100) == (100, 1)
    for episodes in range(1, 60):
        for block in (1, 2, 3, 7):
            worlds, each = worlds_for(episodes, block)
            assert worlds % block == 0
            assert worlds * each >= episodes


def test_evaluations_are_joined_and_told_as_json() -> None:
    parts = [population(as_member=True).evaluate(episodes=episodes) for episodes in (2, 1)]
    both = joined(parts)
    assert both.episodes == 3
    told = json.loads(json.dumps(both.to_json(), allow_nan=False))
    assert told["return_mean"] == both.return_mean
    assert told["per_member"]["speaker"][1]["values"] == 3
    alone = json.dumps(Evaluation.to_json(parts[1]), allow_nan=False)
    assert '"return_interval": [null, null]' in alone


# ---- interference ----


def test_messages_are_exchanged_among_the_worlds_in_which_a_seat_speaks() -> None:
    messages = torch.arange(12).view(6, 2)
    said = torch.tensor([[1, 0], [1, 0], [0, 1], [1, 0], [1, 1], [0, 0]]).bool()
    for seed in range(20):
        moved = exchanged(messages, said, torch.Generator().manual_seed(seed))
        for seat in range(2):
            spoken = said[:, seat]
            assert sorted(moved[spoken, seat].tolist()) == messages[spoken, seat].tolist()
            assert (moved[~spoken, seat] == messages[~spoken, seat]).all()
            assert (moved[spoken, seat] != messages[spoken, seat]).all()


def test_noise_has_the_size_of_what_is_said_and_the_silent_stay_silent() -> None:
    generator = torch.Generator().manual_seed(0)
    voice = torch.ones(500, 2, dtype=torch.bool)
    numbers = 3.0 + 2.0 * torch.randn(500, 2, 1, generator=generator)
    noise, _ = replaced(Vectors(1), numbers, voice, generator)
    assert noise.mean().item() == pytest.approx(3.0, abs=0.2)
    assert noise.std().item() == pytest.approx(2.0, abs=0.2)
    kind = Words(8, 2, 2)
    words = torch.zeros(500, 2, dtype=kind.dtype)
    words[:, 0] = 3
    noise, _ = replaced(kind, words, voice, generator)
    assert (noise[:, 1] == 0).all()
    counts = np.unique(noise[:, 0].numpy(), return_counts=True)[1]
    assert len(counts) == kind.count == 28
    assert counts.max() < 40  # 18 of each expected


# ---- members and other worlds ----


@pytest.mark.parametrize(
    ("agent", "config"),
    [(MLPAgent, {"hidden": 4}), (SymbolicAgent, {"hidden_dim": 8}), (GRUAgent, {"hidden": 4})],
)
def test_a_member_is_a_network_of_its_own(agent: Any, config: dict[str, Any], tmp_path: Path) -> None:
    found = population(agent, members=3, **config)
    member = found["listener"][2]
    folder = member.save_pretrained(tmp_path / "one")
    for again in (agent.from_pretrained(folder), type(member).from_pretrained(folder)):
        weights = found["listener"].agent.state_dict()
        for name, value in again.state_dict().items():
            assert torch.equal(value[0], weights[name][2])
        assert again.spec == member.spec
    assert len(found["listener"]) == len(list(found["listener"])) == 3
    with pytest.raises(UserError, match="member is 3, and there are members 0 to 2"):
        found["listener"][3]
    with pytest.raises(UserError, match="the species 'listner' does not exist; did you mean 'listener'"):
        found["listner"]


class Own(nn.Module):
    """A class without `save_pretrained`."""

    def __init__(self, spec: AgentSpec, hidden: int = 3) -> None:
        super().__init__()
        self.spec, self.net = spec, MLPAgent(spec, hidden)

    def initial_state(self, rows: int) -> dict[str, Any]:
        return {}

    def forward(self, obs: Any, inbox: Any, state: Any) -> Any:
        return self.net(obs, inbox, state)


def test_a_member_of_ones_own_class_is_saved_and_loaded_too(tmp_path: Path) -> None:
    found = population(Own, hidden=5)
    member = found["speaker"][1]
    assert isinstance(member, Own)
    again = type(member).from_pretrained(member.save_pretrained(tmp_path / "one"))
    assert all(torch.equal(value, member.state_dict()[name]) for name, value in again.state_dict().items())
    loaded = popcomm.load(found.save_pretrained(tmp_path / "all"))
    assert isinstance(loaded["speaker"].agent, Own)
    assert loaded["speaker"].config == {"hidden": 5}


@pytest.mark.parametrize(("agent", "config"), [(MLPAgent, {"hidden": 4}), (SymbolicAgent, {"hidden_dim": 8})])
def test_a_swarm_may_be_larger_or_smaller_than_in_training(agent: Any, config: dict[str, Any]) -> None:
    found = population(agent, members=1, env="swarm_v0", env_config={"num_agents": 4, "max_steps": 5}, **config)
    for seats in (2, 12):
        told = found.evaluate(episodes=2, env_config={"num_agents": seats})
        assert told.returns.shape == (2, seats)
        other = found.in_worlds_of({"num_agents": seats})
        env = popcomm.envs.swarm_v0.parallel_env(num_agents=seats)
        assert set(other.act(env.reset(seed=1)[0])) == set(env.possible_agents)


def test_a_network_that_tells_its_seats_apart_stays_among_as_many() -> None:
    config = {"hidden_dim": 8, "num_heads": 2, "latent_tokens": 2, "depth": 1}
    found = population(TinyAgent, members=1, env="swarm_v0", env_config={"num_agents": 4, "max_steps": 5}, **config)
    assert found.evaluate(episodes=1, env_config={"num_agents": 3}).returns.shape == (1, 3)
    with pytest.raises(UserError, match=r"cannot act among 6 seats: weight .* of their TinyAgent has shape"):
        found.evaluate(env_config={"num_agents": 6})


def test_an_agent_without_a_seat_is_told_what_to_do() -> None:
    found = population(MLPAgent, env="swarm_v0", env_config={"num_agents": 3}, hidden=4)
    env = popcomm.envs.swarm_v0.parallel_env(num_agents=4)
    with pytest.raises(UserError, match=r"agent 'swarm_3' is not among the 3 seats .*popcomm.load\(path, env_config="):
        found.act(env.reset()[0])


def test_a_network_that_has_grown_is_loaded_as_large_as_it_is(tmp_path: Path) -> None:
    found = population(Budding, kind=None, units=2)
    agent = found["speaker"].agent
    agent.unit_of = torch.cat([agent.unit_of, torch.tensor([1])])
    agent.enter, agent.leave = (nn.Parameter(torch.cat([p, 7 * p[:1]]).detach()) for p in (agent.enter, agent.leave))
    again = popcomm.load(found.save_pretrained(tmp_path / "saved"))
    assert torch.equal(again["speaker"].agent.leave, agent.leave)
    assert again["speaker"].agent.unit_of.tolist() == [0, 0, 1, 1, 1]
    with pytest.raises(UserError, match="members of Budding cannot be taken apart"):
        again["speaker"][0]


# ---- files ----


def test_a_population_is_loaded_and_acts_without_ray(tmp_path: Path) -> None:
    found = population(MLPAgent, env="swarm_v0", env_config={"num_agents": 3, "max_steps": 4}, hidden=4)
    found.save_pretrained(tmp_path / "saved")
    code = """
        import sys, popcomm
        from popcomm.envs import swarm_v0
        population = popcomm.load(sys.argv[1])
        env = swarm_v0.parallel_env(num_agents=3, max_steps=4)
        observations, _ = env.reset(seed=1)
        population.reset(env)
        while env.agents:
            observations, *_ = env.step(population.act(observations))
        assert population.evaluate(episodes=2).episodes == 2
        sys.exit(any(name.split(".")[0] == "ray" or name.startswith("popcomm.rllib") for name in sys.modules))
    """
    lines = "\n".join(
        line.strip() if "observations, *_" not in line else "    " + line.strip() for line in code.splitlines()
    )
    assert subprocess.run([sys.executable, "-c", lines, str(tmp_path / "saved")], check=False).returncode == 0


def checkpoint(folder: Path, iteration: int, found: Population | None) -> Path:
    """A folder as the trainer leaves it, without what the trainer itself needs."""
    folder.mkdir(parents=True)
    (folder / "rest").write_text("x")
    if found is not None:
        found.save_pretrained(folder / "population")
    about = {"files": manifest.files_of(folder), "iteration": iteration}
    (folder / manifest.MANIFEST).write_text(json.dumps(about))
    return folder


def test_of_a_run_the_newest_checkpoint_that_holds_is_loaded(tmp_path: Path) -> None:
    for iteration in (1, 3, 2):
        found = population()
        found.clock = Clock(iteration)
        checkpoint(tmp_path / "checkpoints" / f"c{iteration}", iteration, found)
    assert popcomm.load(tmp_path).clock.step == 3
    (tmp_path / "checkpoints" / "c3" / "rest").write_text("y")  # nobody looks at it here
    assert popcomm.load(tmp_path).clock.step == 3
    weights = tmp_path / "checkpoints" / "c3" / "population" / "population.json"
    weights.write_text(weights.read_text() + " ")
    assert popcomm.load(tmp_path).clock.step == 2
    with pytest.raises(UserError, match=r"the file population/population\.json is not the one that was saved"):
        popcomm.load(tmp_path / "checkpoints" / "c3")


def test_what_holds_no_population_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no folder"):
        popcomm.load(tmp_path / "nowhere")
    with pytest.raises(UserError, match="is no run, no checkpoint and no exported population"):
        popcomm.load(tmp_path)
    with pytest.raises(UserError, match="it was saved by an earlier popcomm"):
        popcomm.load(checkpoint(tmp_path / "old", 1, None))
    saved = population().save_pretrained(tmp_path / "saved")
    about = json.loads((saved / "population.json").read_text())
    for wrong, told in ((about | {"format_version": 9}, "format_version 9"), ({}, "does not describe a population")):
        (saved / "population.json").write_text(json.dumps(wrong))
        with pytest.raises(UserError, match=told):
            popcomm.load(saved)
    (saved / "population.json").write_text(json.dumps(about | {"layout": {}}))
    with pytest.raises(UserError, match=r"population\.json is damaged"):
        popcomm.load(saved)


def test_an_environment_without_a_name_is_named_when_it_is_loaded(tmp_path: Path) -> None:
    found = population(MLPAgent, hidden=4)
    found.env = EnvRecipe(lambda config: None, {"lengths": LENGTHS})
    saved = found.save_pretrained(tmp_path / "saved")
    told = json.loads((saved / "population.json").read_text())
    assert "no module:attribute names" in told["no_environment"]
    again = popcomm.load(saved)
    with pytest.raises(UserError, match=r"popcomm.load\(path, env=...\)"):
        again.evaluate()
    assert popcomm.load(saved, env=CountingWorld, env_config={"lengths": (3, 5)}).evaluate(episodes=2).episodes == 2


@pytest.mark.parametrize("make", [SwarmWorld, partial(SwarmWorld, num_agents=3)])
def test_worlds_that_are_staggered_in_training_begin_at_the_beginning_in_an_evaluation(make: Any) -> None:
    assert EnvRecipe(make, {"stagger": True}).whole_episodes() == {"stagger": False}
    assert EnvRecipe(make, {}).whole_episodes() == {}
