"""Bottom Up Networks: independent at the start, unchanged by growth, counted exactly, whoever is a member."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from gymnasium import spaces
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from popcomm.agents import AgentSpec, BottomUpNetwork, bottom_up
from popcomm.agents.block_sparse import BlockSparseLinear, Captured
from popcomm.agents.contract import member_rows
from popcomm.agents.growing import look_every
from popcomm.agents.reindex import reindex
from popcomm.agents.testing import agent_api_test
from popcomm.channels import Inbox, Symbols
from popcomm.errors import UserError

SPEC = AgentSpec(6, spaces.Discrete(4), None, 0, num_seats=4)
TEAMS = replace(SPEC, members=8, seating="fixed")
WHOLES = replace(SPEC, members=2, seating="worlds")


def made(spec: AgentSpec = SPEC, seed: int = 0, **config: Any) -> BottomUpNetwork:
    torch.manual_seed(seed)
    return BottomUpNetwork(spec, **{"hidden": 8, **config})


def act(agent: BottomUpNetwork, obs: Tensor) -> list[Tensor]:
    output = agent(obs, None, agent.initial_state(obs.shape[1]))
    return [output.action_logits, output.value]


def observed(spec: AgentSpec, worlds: int = 5, seed: int = 1) -> Tensor:
    """[P, R, O]."""
    networks = spec.members // spec.num_seats if spec.seating == "fixed" and spec.members > 1 else spec.members
    generator = torch.Generator().manual_seed(seed)
    return member_rows(torch.randn(networks, worlds, spec.num_seats, spec.obs_size, generator=generator), spec)


def grow(agent: BottomUpNetwork, scores: Tensor | None = None) -> None:
    """An iteration's end, as the trainer makes it. scores: [L, G, N, N], of criterion raw."""
    sums = torch.zeros(1) if scores is None else scores.unsqueeze(0)
    for parameter, rows in agent.grow(sums, torch.Generator().manual_seed(0)).items():
        reindex(None, parameter, rows)


def grown(spec: AgentSpec = SPEC, **config: Any) -> BottomUpNetwork:
    """A network with six random edges in the actor and in the critic, with random weights."""
    agent = made(spec, growth={"criterion": "random", "edges": 6, "every": 1, "at_once": 6}, **config)
    grow(agent)
    with torch.no_grad():
        for layer in agent.layers.values():
            layer.edges.normal_(generator=torch.Generator().manual_seed(2))
    return agent


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"recurrent": True},
        {"blocks": "shared", "recurrent": True, "layers": 1},
        {"growth": {"criterion": "full"}},
        {"growth": {"criterion": "oracle", "edges": [[0, 1]]}},
    ],
)
def test_it_keeps_the_contract(config: dict[str, Any]) -> None:
    agent_api_test(BottomUpNetwork, {"hidden": 8, **config})


# ---- who depends on whom ----


@pytest.mark.parametrize("config", [{}, {"blocks": "shared"}, {"recurrent": True}])
@pytest.mark.parametrize("spec", [SPEC, TEAMS, WHOLES])
def test_agents_are_independent_at_the_start(spec: AgentSpec, config: dict[str, Any]) -> None:
    agent, obs = made(spec, **config), observed(spec)
    other, (world, seat) = observed(spec, seed=9), (2, 3)
    worlds = _worlds(obs, spec).clone()
    worlds[:, world, seat] = _worlds(other, spec)[:, world, seat]
    for before, after in zip(act(agent, obs), act(agent, member_rows(worlds, spec)), strict=True):
        moved = _worlds((before != after).float().view(*obs.shape[:2], -1), spec).any(-1)
        expected = torch.zeros_like(moved)
        expected[:, world, seat] = True
        assert torch.equal(moved, expected)


def _worlds(rows: Tensor, spec: AgentSpec) -> Tensor:
    """[P, R, ...] -> [G, W, N, ...], written otherwise than `whole_worlds`."""
    n = spec.num_seats
    if spec.seating == "fixed":
        return torch.stack([torch.stack(list(rows[g : g + n]), 1) for g in range(0, len(rows), n)])
    return torch.stack([torch.stack([member[w : w + n] for w in range(0, len(member), n)]) for member in rows])


def test_an_edge_lets_its_receiver_know_what_its_sender_sees() -> None:
    agent = made(growth={"criterion": "oracle", "edges": [[2, 0]]})
    obs = observed(SPEC)
    before = act(agent, obs)[0]
    assert agent.edges("actor.0").tolist() == [[2, 0]]
    with torch.no_grad():
        agent.layers["actor.0"].edges.normal_()
    changed = act(agent, obs)[0]
    other = obs.clone()
    other[0, 2::4] += 1
    moved = _worlds((act(agent, other)[0] != changed).float(), SPEC).any(-1)[0, 0]
    assert moved.tolist() == [True, False, True, False]
    assert not torch.equal(before, changed)


@pytest.mark.parametrize("recurrent", [False, True])
def test_a_team_in_fixed_seats_is_the_network_that_sits_on_all_seats(recurrent: bool) -> None:
    """Whether a seat or a whole network is a member is a matter of bookkeeping alone."""
    teams, wholes = grown(TEAMS, recurrent=recurrent), grown(WHOLES, recurrent=recurrent)
    wholes.load_state_dict(teams.state_dict())
    obs = observed(WHOLES)
    worlds = _worlds(obs, WHOLES)
    for one, other in zip(act(wholes, obs), act(teams, member_rows(worlds, TEAMS)), strict=True):
        shape = (*one.shape[:2], -1)
        assert torch.equal(_worlds(one.reshape(shape), WHOLES), _worlds(other.reshape(*other.shape[:2], -1), TEAMS))


def test_its_memory_goes_from_step_to_step() -> None:
    agent, obs = grown(recurrent=True), observed(SPEC)
    first = agent(obs, None, agent.initial_state(20))
    second = agent(obs, None, first.state)
    assert set(first.state) == {"actor", "critic"}
    assert first.state["actor"].shape == (1, 20, 8)
    assert not torch.equal(first.action_logits, second.action_logits)


# ---- growth ----


@pytest.mark.parametrize("spec", [SPEC, TEAMS, WHOLES])
def test_the_function_does_not_change_when_edges_grow(spec: AgentSpec) -> None:
    """Not in one bit, with edges that are there already."""
    agent, obs = grown(spec), observed(spec)
    before = act(agent, obs)
    agent.rule = made(spec, growth={"criterion": "random", "edges": 12, "every": 1, "at_once": 4}).rule
    for edges in (10, 12):
        grow(agent)
        counts = agent.measures()
        assert (counts["bottom_up/edges"], counts["bottom_up/critic_edges"]) == (edges, edges)
        assert all(map(torch.equal, act(agent, obs), before))


def test_the_edges_with_the_largest_gradients_grow() -> None:
    agent = made(growth={"criterion": "raw", "edges": {"actor": 3}, "every": 2, "at_once": 2})
    scores = torch.zeros(6, 1, 4, 4)
    scores[1, 0, 0, 3], scores[0, 0, 2, 1], scores[2, 0, 1, 2], scores[4] = 3.0, 2.0, 1.0, 9.0
    grow(agent, scores)
    assert agent.measures()["bottom_up/edges"] == 0  # one iteration more
    grow(agent, scores)
    assert agent.edges("actor.1").tolist() == [[0, 3]]
    assert agent.edges("actor.0").tolist() == [[2, 1]]
    assert agent.measures()["bottom_up/critic_edges"] == 0
    for _ in range(2):
        grow(agent, scores)
    assert agent.edges(2).tolist() == [[1, 2]]
    assert agent.layers["actor.2"].born.tolist() == [4]


def test_pruning_gives_the_place_of_the_weakest_to_the_best() -> None:
    growth = {"criterion": "raw", "edges": {"actor.0": 2}, "every": 1, "at_once": 2, "prune": 0.5}
    agent, scores = made(growth=growth), torch.zeros(6, 1, 4, 4)
    scores[0, 0, 0, 3], scores[0, 0, 2, 1] = 3.0, 2.0
    grow(agent, scores)
    with torch.no_grad():
        agent.layers["actor.0"].edges[:, 0, 0] = torch.tensor([0.5, 0.1])  # of 2 -> 1 and 0 -> 3
    scores[0, 0, 1, 2] = 1.0
    grow(agent, scores)
    assert agent.edges("actor.0").tolist() == [[2, 1], [1, 2]]
    assert agent.layers["actor.0"].edges.detach()[:, 0, 0].tolist() == [0.5, 0.0]


def test_statistics_are_of_the_calls_that_were_watched() -> None:
    """With raw they are squared norms of gradients, those of a seat's own block among them."""
    agent, obs = made(growth={"criterion": "raw", "every": 1}), observed(SPEC, worlds=16)
    for watched in (False, True):
        agent.zero_grad()
        agent.watch(watched)
        sum(part.square().sum() for part in act(agent, obs)).backward()
        found = agent.growth_statistics()
        assert found.shape == (1, 6, 1, 4, 4)
        assert bool(found.any()) == watched
    for layer, norms in zip(agent.layers.values(), found[0, :, 0], strict=True):
        assert layer.weight.grad is not None
        torch.testing.assert_close(norms.diagonal(), layer.weight.grad.square().sum((1, 2)))
    assert not agent.growth_statistics().any()  # they are told once


def test_where_a_look_takes_long_only_some_updates_of_an_iteration_are_looked_at(monkeypatch: Any) -> None:
    agent = made()
    monkeypatch.setattr(bottom_up, "look_every", lambda layers: 3)
    for _ in range(2):  # iterations
        agent.watch(True)
        told = []
        for _ in range(7):
            sum(part.square().sum() for part in act(agent, observed(SPEC))).backward()
            told.append(bool(agent.growth_statistics().any()))
        assert told == [True, False, False, True, False, False, True]
    agent.watch(False)
    sum(part.square().sum() for part in act(agent, observed(SPEC))).backward()
    assert not agent.growth_statistics().any()


def test_how_often_is_looked_follows_from_what_an_update_takes() -> None:
    """128 seats, blocks of 64 x 64, 64 rows: without edges 6 * 64^2 * 128 * 64 operations, and with all 128 times as
    many; a look takes 2 * 128 * 64^2 * 256."""

    def every(seats: int, edges: bool) -> int:
        layer = BlockSparseLinear(1, seats, 64, 64)
        if edges:
            pairs = (~torch.eye(seats, dtype=torch.bool)).nonzero()
            layer.connect(pairs[:, 1], pairs[:, 0])
        rows = torch.zeros(seats, 64, 64)
        layer.seen = [Captured(rows, rows)]
        return look_every({"actor.1": layer})

    assert every(128, edges=False) == math.ceil(2 * 128 * 64**2 * 256 / (0.08 * 6 * 64**2 * 128 * 64))
    assert every(128, edges=True) == 1
    assert every(32, edges=False) == 1


def test_a_network_that_will_not_grow_is_not_hooked() -> None:
    def watching(iteration: int, **growth: Any) -> bool:
        agent = made(growth={"every": 1, **growth})
        agent.iterations += iteration
        agent.watch(True)
        return agent.layers["actor.0"].watching

    assert watching(0)
    assert [watching(i, warm_up=2, stop=5) for i in range(7)] == [False, False, True, True, True, False, False]
    assert not any(watching(0, criterion=name) for name in ("random", "none", "full"))


@pytest.mark.parametrize(
    ("growth", "looks"),
    [
        ({"edges": 2}, False),
        ({"edges": 3}, True),
        ({"edges": {"actor": 2, "critic": 1}}, True),  # the critic has none yet
        ({"edges": {"actor": 2}}, False),
        ({"edges": 2, "prune": 0.5}, True),  # which makes room
        ({"flops": 0.32}, False),  # 92 operations are left, and the cheapest edge takes 192
        ({"flops": 0.35}, True),
    ],
)
def test_where_a_budget_is_spent_nothing_is_looked_at(growth: dict[str, Any], looks: bool) -> None:
    agent = made(growth={"criterion": "raw", "every": 1, **growth})
    agent.watch(True)
    assert agent.layers["actor.0"].watching
    for group in ("actor", "critic") if "critic" not in str(growth) else ("actor",):
        agent.layers[f"{group}.1"].connect(torch.tensor([0, 1]), torch.tensor([2, 3]))
    agent.watch(True)
    assert agent.layers["actor.0"].watching == looks


def test_rows_are_their_receivers() -> None:
    teams, wholes = grown(TEAMS), grown(WHOLES)
    for name, layer in teams.layers.items():
        assert torch.equal(teams.owners()[layer.edges], layer.receivers)
        other = wholes.layers[name]
        assert torch.equal(wholes.owners()[other.edges], other.receivers // 4)
        assert wholes.owners()[other.weight].tolist() == [0] * 4 + [1] * 4
        assert layer.weight not in teams.owners()


@pytest.mark.parametrize("config", [{}, {"recurrent": True}])
def test_a_network_inherits_what_another_is(config: dict[str, Any]) -> None:
    agent, obs = grown(WHOLES, **config), observed(replace(WHOLES, members=1)).expand(2, -1, -1)
    before, edges = act(agent, obs), agent.edges("actor.0", 1)
    parents = torch.tensor([1, 1])
    rows = agent.inherit(parents)
    for parameter in agent.parameters():
        reindex(None, parameter, rows.get(parameter, parents))
    for one, other in zip(before, act(agent, obs), strict=True):
        assert torch.equal(other, one[[1, 1]])
    assert torch.equal(agent.edges("actor.0", 0), edges)


# ---- accounting ----


@pytest.mark.parametrize("config", [{}, {"recurrent": True}, {"blocks": "shared", "layers": 1}])
@pytest.mark.parametrize("spec", [SPEC, TEAMS, WHOLES])
def test_operations_are_those_that_torch_counts(spec: AgentSpec, config: dict[str, Any]) -> None:
    agent, obs = grown(spec, **config), observed(spec)
    steps = obs.shape[0] * obs.shape[1]
    state = {name: value.requires_grad_() for name, value in agent.initial_state(obs.shape[1]).items()}
    state = {name: value + 0 for name, value in state.items()}  # as after a step before
    with FlopCounterMode(display=False) as forward:
        output = agent(obs, None, state)
    with FlopCounterMode(display=False) as backward:
        (output.action_logits.sum() + output.value.sum()).backward()
    assert agent.flops().forward * steps == pytest.approx(forward.get_total_flops(), rel=1e-12)
    assert agent.flops().backward * steps == pytest.approx(backward.get_total_flops(), rel=1e-12)


def test_shares_are_of_the_same_network_with_all_edges() -> None:
    assert made().measures()["bottom_up/flops_share"] == pytest.approx(1 / 4)
    dense = made(growth={"criterion": "full"})
    told = dense.measures()
    assert told["bottom_up/flops_share"] == 1
    assert told["bottom_up/edges"] == 3 * 12
    assert told["bottom_up/links"] == 12
    obs = observed(SPEC)
    with FlopCounterMode(display=False) as counted:
        act(dense, obs)
    assert counted.get_total_flops() == dense.flops().forward * 20 == dense.flops(dense=True).forward * 20


def test_a_budget_of_operations_is_kept() -> None:
    agent = made(growth={"criterion": "random", "flops": 0.5, "every": 1, "at_once": 3})
    for _ in range(12):
        grow(agent)
    assert 0.45 < agent.measures()["bottom_up/flops_share"] <= 0.5


def test_a_dense_network_starts_as_loud_as_one_of_single_agents() -> None:
    spec = replace(SPEC, num_seats=16, obs_size=32)
    obs = observed(spec, worlds=200)
    loud = [act(made(spec, hidden=32, growth={"criterion": name}), obs)[0].detach().std() for name in ("none", "full")]
    assert float(loud[1] / loud[0]) == pytest.approx(1, abs=0.15)


# ---- what is asked of it ----


def test_layers_are_asked_for_by_name_or_place() -> None:
    agent = grown(TEAMS)
    assert list(agent.layers) == ["actor.0", "actor.1", "actor.2", "critic.0", "critic.1", "critic.2"]
    assert torch.equal(agent.edges(1), agent.edges("actor.1"))
    assert sum(len(agent.edges(i, network)) for i in range(6) for network in (0, 1)) == 24
    assert agent.edges(0).dtype == torch.int64
    with pytest.raises(UserError, match=r"the layer 'actor.9' does not exist; did you mean 'actor"):
        agent.edges("actor.9")


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"blocks": "common"}, "agent_config.blocks is 'common'"),
        ({"recurrent": 1}, "agent_config.recurrent is 1, and must be true or false"),
        ({"layers": 0}, "agent_config.layers is 0"),
        ({"growth": 3}, "agent_config.growth is 3, and must be a mapping such as"),
    ],
)
def test_bad_arguments_are_told(config: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        made(**config)


def test_it_speaks_and_hears() -> None:
    spec = replace(TEAMS, messages=Symbols(5, 2), inbox_size=2, num_agents=4)
    agent = made(spec)
    output = agent(observed(spec), None, {})
    assert output.message is not None
    assert output.message.shape == (8, 5, 2, 5)
    agent_api_test(BottomUpNetwork, {"hidden": 8}, replace(spec, members=1, seating="worlds"))


@pytest.mark.parametrize("spec", [SPEC, TEAMS, WHOLES])
def test_with_a_grown_topology_only_those_are_heard_whom_an_edge_joins(spec: AgentSpec) -> None:
    """Edges 1 -> 0 and 2 -> 3; all seats hear all others, and one sender after the other says something else."""
    spec = replace(spec, messages=Symbols(5, 1), inbox_size=3, num_agents=4)
    agent = made(spec, hears="grown", growth={"criterion": "oracle", "edges": [[1, 0], [2, 3]]})
    networks = agent.networks
    others = torch.tensor([[s for s in range(4) if s != r] for r in range(4)])
    senders = member_rows(others.expand(networks, 5, 4, 3), spec)
    obs, told = observed(spec), torch.zeros(4, dtype=torch.int64)

    def acted(said: Tensor) -> Tensor:
        inbox = Inbox(said[senders].unsqueeze(-1), senders, torch.ones_like(senders, dtype=torch.bool))
        return _worlds(agent(obs, inbox, {}).action_logits, spec)

    before = acted(told)
    for sender, receivers in enumerate([[], [0], [3], []]):
        said = told.clone()
        said[sender] = 3
        assert (acted(said) != before).any(-1).flatten(0, 1).any(0).nonzero().flatten().tolist() == receivers


def test_a_grown_topology_needs_messages_of_one_species() -> None:
    with pytest.raises(UserError, match=r"agent_config.hears is 'grown', .* nothing is heard here; use 'all'"):
        made(hears="grown")
    mixed = replace(SPEC, messages=Symbols(5, 1), inbox_size=3, species="a", seat_species=("a",) * 4 + ("b",))
    with pytest.raises(UserError, match="others of another species are heard, too; use 'all'"):
        made(mixed, hears="grown")
