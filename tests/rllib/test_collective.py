"""One network of all seats of a species: its rows are whole worlds, in the rollout and in every update."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

from popcomm.agents.contract import AgentSpec, member_rows, whole_worlds
from popcomm.agents.seating import Seating, SeatingRule, draw, redraw
from popcomm.agents.testing import agent_api_test
from popcomm.envs.testing import world_api_test
from popcomm.errors import UserError
from popcomm.rllib import PopulationPPOConfig
from popcomm.rllib.growth import inherit
from popcomm.rllib.release import population_of
from popcomm.schedules import Clock
from tests.rllib.collective_agent import Cells, NeighbourWorld
from tests.rllib.growing_agent import Budding
from tests.rllib.test_learner import learner_of, update
from tests.rllib.test_rollout import runner_of

# (members, seating) under which three seats are one network
WHOLE = [(1, "shuffled"), (1, "worlds"), (2, "worlds"), (5, "worlds"), (3, "fixed"), (6, "fixed")]


def config_of(members: int, seating: str, worlds: int = 20, agent: Any = Cells, **env: Any) -> PopulationPPOConfig:
    return (
        PopulationPPOConfig()
        .environment(NeighbourWorld, env_config=env)
        .communication(messages=None)
        .population(agent=agent, members=members, seating=seating)
        .env_runners(num_worlds_per_env_runner=worlds, rollout_fragment_length=6)
        .training(num_epochs=2, minibatch_size=None, lr=0.05, gamma=0.0, entropy_coeff=0.0)
        .debugging(seed=1)
    )


def test_the_world_of_these_tests_keeps_the_contract() -> None:
    world_api_test(NeighbourWorld(4))


# ---- seating ----


RULE = SeatingRule("worlds")


def test_one_member_sits_on_all_seats_of_a_world_and_each_in_as_many_worlds() -> None:
    seats = draw(np.random.default_rng(0), 12, 3, 4, RULE)
    assert (seats == seats[:, :1]).all()
    assert np.bincount(seats[:, 0]).tolist() == [3, 3, 3, 3]
    assert np.bincount(seats[:4, 0]).tolist() == [1, 1, 1, 1]  # a block is balanced by itself
    assert RULE.block(4, 3) == 4
    assert RULE.block(1, 3) == 1


def test_worlds_that_start_anew_get_a_member_for_all_their_seats() -> None:
    rng = np.random.default_rng(1)
    seats = draw(rng, 8, 3, 4, RULE)
    starts = np.arange(8) % 2 == 0
    met = set()
    for _ in range(50):
        again = redraw(rng, seats, 4, starts, RULE)
        assert (again == again[:, :1]).all()
        assert (again[~starts] == seats[~starts]).all()
        assert np.bincount(again[:, 0], minlength=4).min() >= 1
        met.add(tuple(again[starts, 0].tolist()))
    assert len(met) > 10


def spec_of(members: int, seating: str, seats: int = 3) -> AgentSpec:
    config = config_of(members, seating, worlds=60, seats=seats)
    return config.plan.species["cell"].spec


@pytest.mark.parametrize(("members", "seating"), WHOLE)
def test_rows_are_whole_worlds(members: int, seating: str) -> None:
    """Every world stands once, its seats in order, with the network that sits in it; also where some have fewer."""
    spec, rng = spec_of(members, seating), np.random.default_rng(0)
    drawn = torch.as_tensor(draw(rng, 60, 3, members, SeatingRule(seating)))
    for chosen in (torch.arange(60), torch.arange(7), torch.tensor([5, 3, 8, 59])):
        seats = drawn[chosen]
        seating_of = Seating(seats, members)
        values = torch.arange(len(chosen) * 3).view(len(chosen), 3)
        rows = seating_of.to_members(values)
        worlds = whole_worlds(rows, spec)
        assert torch.equal(member_rows(worlds, spec), rows)
        assert torch.equal(seating_of.to_worlds(rows), values)
        real = whole_worlds(seating_of.row_mask(torch.ones_like(values, dtype=torch.bool)), spec)
        assert torch.equal(real.all(-1), real.any(-1))  # padding is whole worlds, too
        found = worlds[real.all(-1)]
        assert torch.equal(found.sort(0).values, values)
        network = real.all(-1).nonzero()[:, 0]
        owner = seats[:, 0] // 3 if seating == "fixed" else seats[:, 0]
        assert torch.equal(network, owner[found[:, 0] // 3])


# ---- learning ----


@pytest.mark.parametrize(("members", "seating"), WHOLE)
def test_a_collective_learns_what_no_seat_could_alone(members: int, seating: str) -> None:
    config = config_of(members, seating, worlds=60).training(lr=0.15)
    runner, learner = runner_of(config), learner_of(config)
    for iteration in range(12):
        runner.module.set_state(learner.module.get_state())
        update(learner, runner, iteration)
    bits = torch.randint(2, (40, 3), generator=torch.Generator().manual_seed(5))
    seen = torch.nn.functional.one_hot(bits, 2).float()
    agent = learner.networks["cell"].agent
    rows = member_rows(seen.expand(agent.networks, -1, -1, -1), agent.spec)
    logits = agent(rows, None, agent.initial_state(rows.shape[1])).action_logits
    named = whole_worlds(logits, agent.spec).argmax(-1)
    assert (named == bits.roll(-1, 1)).float().mean((1, 2)).min() > 0.95


@pytest.mark.parametrize("minibatch", [None, 5])
@pytest.mark.parametrize(("members", "seating"), WHOLE)
def test_an_update_begins_at_the_policy_that_acted(members: int, seating: str, minibatch: int | None) -> None:
    """What the learner unrolls, in whatever worlds of a minibatch, is what the networks did: the ratio is 1."""
    size = None if minibatch is None else minibatch * {5: 1, 2: 2, 6: 2}.get(members, 1)
    config = config_of(members, seating, length=3).training(lr=0.0, minibatch_size=size)
    runner, learner = runner_of(config), learner_of(config)
    for iteration in range(2):  # fragments that begin within episodes
        told = update(learner, runner, iteration)
        assert abs(told["cell"]["approx_kl"].peek()) < 1e-7


class Whole(torch.nn.Module):
    """A module of three members, whose agent is one network of all of them."""

    everybodys: frozenset[int] = frozenset()

    def __init__(self) -> None:
        super().__init__()
        self.agent = torch.nn.Linear(2, 7)
        self.agent.register_buffer("steps", torch.tensor(4))
        self.own = torch.nn.Parameter(torch.arange(3.0))


def test_what_is_no_members_stays_where_members_are_replaced() -> None:
    module = Whole()
    before = module.agent.weight.detach().clone()
    inherit(module, [], torch.tensor([1, 1, 2]))
    assert torch.equal(module.agent.weight, before)
    assert module.own.tolist() == [1.0, 1.0, 2.0]


def test_its_parameters_need_no_axis_of_members() -> None:
    network = learner_of(config_of(2, "worlds")).networks["cell"]
    assert network.agent.weight.shape == (6, 3, 2, 3)
    assert learner_of(config_of(6, "fixed")).networks["cell"].agent.weight.shape == (6, 3, 2, 3)


@pytest.mark.parametrize(
    ("members", "seating", "sentence"),
    [
        (
            3,
            "shuffled",
            "Cells is one network of all 3 seats of 'cell', and population.members is 3 with seating 'shuff",
        ),
        (4, "fixed", "population.members is 4 with seating 'fixed'; use seating 'worlds', or 'fixed' with 3 members"),
        (3, "worlds", "num_worlds_per_env_runner is 20: 20 worlds, each of one member, cannot seat 3 members evenly; "),
    ],
)
def test_a_seating_without_whole_worlds_is_refused(members: int, seating: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        config_of(members, seating).validate()


def test_networks_that_are_no_collective_can_be_seated_by_worlds_too() -> None:
    config = config_of(4, "worlds", agent="mlp")
    runner, learner = runner_of(config), learner_of(config)
    members = runner.sample().policy_batches["cell"]["members"]
    assert (members == members[..., :1]).all()
    update(learner, runner)


def test_collectives_and_networks_with_owners_can_be_tried_by_the_conformance_test() -> None:
    silent = AgentSpec(6, spaces.Discrete(4), None, 0, num_seats=3)
    agent_api_test(Cells, spec=silent)
    agent_api_test(Budding, spec=silent)

    class Crossed(Cells):
        def forward(self, obs: torch.Tensor, inbox: Any, state: Any) -> Any:
            return super().forward(obs.roll(3, 1), inbox, state)  # the world before

    with pytest.raises(AssertionError, match="action_logits of a row depends on another row"):
        agent_api_test(Crossed, spec=silent)


# ---- out of the trainer ----


def released(members: int, seating: str) -> Any:
    config = config_of(members, seating)
    return population_of(config, config.get_multi_rl_module_spec(inference_only=True).build(), Clock(0), [])


@pytest.mark.parametrize(("members", "seating"), [(1, "shuffled"), (2, "worlds"), (6, "fixed")])
def test_it_is_evaluated_and_refuses_another_number_of_seats(members: int, seating: str) -> None:
    population = released(members, seating)
    found = population.evaluate(episodes=30)
    assert 0.3 * 12 < found.return_mean < 0.7 * 12
    with pytest.raises(UserError, match="species 'cell' has 4 seats there, and its Cells is one network of 3 seats"):
        population.evaluate(episodes=4, env_config={"seats": 4})


def test_a_network_of_several_members_is_not_taken_apart() -> None:
    with pytest.raises(UserError, match="members of Cells cannot be taken apart"):
        released(6, "fixed")["cell"][0]
    assert released(1, "shuffled")["cell"][0].weight.shape == (3, 3, 2, 3)
