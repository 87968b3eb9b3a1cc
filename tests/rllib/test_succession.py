"""Succession of networks whose rows are not one for each member: edges that come and go, blocks of a whole team."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from popcomm.analysis.experiments.local_training import LocalTraining
from torch import Tensor, nn

from popcomm.agents import SymbolicAgent
from popcomm.agents.contract import AgentSpec
from popcomm.errors import UserError
from popcomm.evolution.diversity import of_weights
from popcomm.rllib import PopulationPPOConfig
from popcomm.rllib.growth import owners_of
from popcomm.rllib.succession import carry_out, weight_diversity
from tests.rllib.test_survival import config_of, succession

SEATS = 4
GROWTH = {"criterion": "random", "edges": 7, "every": 1, "at_once": 7}


def collective(seating: str, members: int = SEATS, **agent: Any) -> PopulationPPOConfig:
    return (
        PopulationPPOConfig()
        .environment("swarm_v0", env_config={"num_agents": SEATS, "max_steps": 6})
        .communication(messages={"kind": "symbols", "vocab_size": 4, "length": 1})
        .population(
            agent="bottom_up",
            members=members,
            seating=seating,
            agent_config={"hidden": 8, "layers": 1, "growth": GROWTH, **agent},
        )
        .env_runners(num_worlds_per_env_runner=8, rollout_fragment_length=4)
        .debugging(seed=3)
    )


def grown(config: PopulationPPOConfig) -> LocalTraining:
    training = LocalTraining(config, 8)
    for _ in range(2):
        training.iterate()
    return training


def rows_of(module: Any, member: int) -> dict[str, Tensor]:
    """{parameter: the rows of a member}; whole networks' parameters are left out."""
    owners, members, found = owners_of(module.agent), module.spec.members, {}
    for name, parameter in module.named_parameters():
        if parameter in owners:
            found[name] = parameter.data[owners[parameter] == member].clone()
        elif len(parameter) == members:
            found[name] = parameter.data[member].clone()
    return found


def carried_out(training: LocalTraining, *sources: int, **changes: Any) -> tuple[Any, Any]:
    """(what members' rows were before, the module afterwards)."""
    module = training.learner.networks["swarm"]
    before = [rows_of(module, member) for member in range(module.spec.members)]
    carry_out(succession(*sources, **changes), module, [o for _, o in training.learner.get_optimizers_for_module()])
    return before, module


@pytest.mark.parametrize("seating", ["fixed", "worlds"])
def test_mutation_moves_what_is_the_childs_and_nothing_of_those_who_live_on(seating: str) -> None:
    before, module = carried_out(grown(collective(seating)), 0, 0, 2, 3, mutation_std=0.1)
    edges = [name for name in before[0] if name.endswith("edges")]
    assert sum(len(rows[name]) for rows in before for name in edges) > 0
    for member in (0, 2, 3):
        after = rows_of(module, member)
        assert all(torch.equal(after[name], values) for name, values in before[member].items())
    child = rows_of(module, 1)
    for name, values in before[0].items():
        assert child[name].shape == values.shape, name
        assert torch.equal(child[name], values) != bool(values.any()), name
        moved = (child[name] - values).square().mean().sqrt()
        if values.numel() > 100:
            assert moved == pytest.approx(0.1 * float(values.square().mean().sqrt()), rel=0.3), name


def test_blocks_of_a_whole_team_are_nobodys_to_leave_to_a_child_or_to_mutate() -> None:
    training = grown(collective("fixed", 2 * SEATS, blocks="shared"))
    module = training.learner.networks["swarm"]
    blocks = {name: p.data.clone() for name, p in module.named_parameters() if p.ndim and len(p) == 2}
    assert len(blocks) > 3
    carried_out(training, 0, 0, 2, 3, 4, 5, 6, 6, mutation_std=0.1)
    now = dict(module.named_parameters())
    assert all(torch.equal(now[name], values) for name, values in blocks.items())


@pytest.mark.parametrize("seating", ["fixed", "worlds"])
def test_one_made_anew_has_weights_in_all_its_blocks_and_no_edges(seating: str) -> None:
    _, module = carried_out(grown(collective(seating)), 0, -1, 2, 3)
    new = rows_of(module, 1)
    blocks = [name for name in new if name.startswith("agent.stacks") and name.endswith("weight")]
    assert len(blocks) == 4
    for name in blocks:
        assert new[name].reshape(-1, new[name].shape[-1]).any(0).all(), name
        assert new[name].reshape(SEATS if seating == "worlds" else 1, -1).any(1).all(), name
    assert not any(len(rows) for name, rows in new.items() if name.endswith("edges"))


@pytest.mark.parametrize("seating", ["fixed", "worlds"])
def test_collectives_go_through_generations(seating: str) -> None:
    config = collective(seating).survival(strategy={"kind": "top_k", "k": 2}, every=2)
    training = LocalTraining(config, 8)
    for _ in range(5):
        training.iterate()
    assert training.survival is not None
    assert training.survival.generations["swarm"].born > SEATS
    assert all(bool(p.isfinite().all()) for p in training.learner.networks["swarm"].parameters())


def test_weights_differ_by_what_all_members_have_as_many_of() -> None:
    module = grown(collective("worlds")).learner.networks["swarm"]
    owners = owners_of(module.agent)
    whole = [p for p in module.agent.parameters() if p not in owners]
    blocks = [p.reshape(SEATS, -1) for n, p in module.agent.named_parameters() if p in owners and "edges" not in n]
    edges = [p for n, p in module.agent.named_parameters() if "edges" in n]
    counts = [torch.bincount(owners[p], minlength=SEATS).tolist() for p in edges]
    as_many = [p.reshape(SEATS, -1) for p, count in zip(edges, counts, strict=True) if len(set(count)) == 1]
    assert weight_diversity(module) == pytest.approx(of_weights([*whole, *blocks, *as_many]))


class Counted(SymbolicAgent):
    """An agent that remembers something of the whole network."""

    def __init__(self, spec: AgentSpec, hidden_dim: int = 8) -> None:
        super().__init__(spec, hidden_dim)
        self.register_buffer("calls", torch.tensor(7))


def test_what_is_the_whole_networks_stays() -> None:
    training = LocalTraining(config_of(strategy=None, agent=Counted), 8)  # type: ignore[arg-type]
    carried_out(training, 0, 0, -1, 3)
    assert int(training.learner.networks["swarm"].agent.calls) == 7


class Owning(SymbolicAgent):
    """Rows with owners of which nothing says how they are inherited."""

    def owners(self) -> Mapping[nn.Parameter, Tensor]:
        return {}


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (config_of(agent=Owning), "Owning of species 'swarm' says in owners() whose its rows are, and survival.str"),  # type: ignore[arg-type]
    ],
    ids=["owners"],
)
def test_networks_that_cannot_be_selected_are_told_before_work_starts(config: PopulationPPOConfig, said: str) -> None:
    if config.survival_strategy is None:
        config.survival(strategy={"kind": "top_k", "k": 2})
    with pytest.raises(UserError) as caught:
        config.validate()
    assert said in str(caught.value)


def test_mutation_of_rows_with_owners_goes_by_the_childs_own_numbers() -> None:
    from popcomm.evolution import mutate

    tensor, whose = torch.cat([torch.full((3, 50), 1.0), torch.full((3, 50), 9.0)]), torch.tensor([2, 0, 2, 1, 1, 0])
    mutate(tensor, torch.tensor([2, 3]), 0.1, torch.Generator().manual_seed(0), whose)
    moved = np.flatnonzero((tensor != torch.tensor([[1.0], [1], [1], [9], [9], [9]])).any(1))
    assert moved.tolist() == [0, 2]
    assert float(tensor[[0, 2]].std()) == pytest.approx(0.1, rel=0.25)
