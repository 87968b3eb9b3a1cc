"""Bottom Up Networks in training: planted edges are found, and everybody has the same graph."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from popcomm.analysis.experiments.planted_edges import PlantedWorld, planted_pairs, planted_sources
from torch import Tensor

from popcomm.agents import BottomUpNetwork, bottom_up
from popcomm.errors import UserError
from popcomm.rllib import PopulationPPOConfig
from popcomm.rllib.growth import inherit
from popcomm.rllib.recording import _losses
from popcomm.rllib.release import population_of
from popcomm.rllib.succession import Succession
from popcomm.schedules import Clock
from tests.rllib.growing_agent import TwoLearners
from tests.rllib.test_learner import changed, learner_of, update, weights
from tests.rllib.test_rollout import runner_of
from tests.rllib.worlds import ClockWorld

GROWTH = {"criterion": "csnr", "edges": 4, "every": 1, "at_once": 2}


def config_of(
    seats: int = 6, edges: int = 3, worlds: int = 16, growth: Any = None, population: Any = None, **agent: Any
) -> PopulationPPOConfig:
    arguments = {"hidden": 8, "growth": GROWTH if growth is None else growth, **agent}
    return (
        PopulationPPOConfig()
        .environment(PlantedWorld, env_config={"seats": seats, "edges": edges})
        .communication(messages=None)
        .population(agent="bottom_up", agent_config=arguments, **(population or {}))
        .env_runners(num_worlds_per_env_runner=worlds, rollout_fragment_length=4)
        .training(gamma=0.0, lr=4e-3, num_epochs=2, minibatch_size=8)
        .debugging(seed=1)
    )


def agent_of(learner: Any) -> Any:
    return learner.networks["cell"].agent


def trained(config: PopulationPPOConfig, iterations: int) -> tuple[Any, Any]:
    runner, learner = runner_of(config), learner_of(config)
    for iteration in range(iterations):
        runner.module.set_state(learner.module.get_state())
        update(learner, runner, iteration)
    return runner, learner


def found_by(agent: Any) -> set[tuple[int, int]]:
    """(sender, receiver) of all layers of the actor."""
    names = [name for name in agent.layers if name.startswith("actor.")]
    return {(s, r) for name in names for s, r in agent.edges(name).tolist()}


# ---- the answer is known ----


def test_planted_edges_are_found_under_a_team_reward() -> None:
    """Eight of sixteen seats are to name what one other sees, and are paid together: 8 of 240 pairs of seats."""
    growth = {"criterion": "csnr", "edges": 8, "every": 2, "at_once": 2}
    config = config_of(16, 8, 64, growth, hidden=32).env_runners(rollout_fragment_length=16)
    config.training(minibatch_size=None)
    _, learner = trained(config, 8)
    assert found_by(agent_of(learner)) == planted_pairs(planted_sources(16, 8))


def test_a_given_graph_is_not_changed() -> None:
    graph = [[0, 1], [2, 1]]
    _, learner = trained(config_of(growth={"criterion": "oracle", "edges": graph}), 2)
    assert all(agent_of(learner).edges(name).tolist() == graph for name in agent_of(learner).layers)
    assert agent_of(learner).layers["actor.0"].edges.any()  # and is learned


@pytest.mark.parametrize(("worlds", "minibatch"), [(1, None), (4, 1)])
@pytest.mark.parametrize("criterion", ["raw", "csnr"])
def test_networks_that_remember_grow_from_updates_of_one_world(
    worlds: int, minibatch: int | None, criterion: str
) -> None:
    config = config_of(worlds=worlds, growth={**GROWTH, "criterion": criterion}, recurrent=True)
    config.training(minibatch_size=minibatch)
    assert agent_of(trained(config, 1)[1]).measures()["bottom_up/edges"] == 2


# ---- seats and members follow ----


@pytest.mark.parametrize(
    ("population", "members", "seating", "networks"),
    [
        ({}, 6, "fixed", 1),
        ({"members": 12}, 12, "fixed", 2),
        ({"members": 1, "seating": "worlds"}, 1, "worlds", 1),
        ({"members": 4, "seating": "worlds"}, 4, "worlds", 4),
    ],
)
def test_seating_and_members_follow_from_the_agent(
    population: dict[str, Any], members: int, seating: str, networks: int
) -> None:
    config = config_of(population=population)
    config.validate()
    species = config.plan.species["cell"]
    assert (species.members, species.spec.seating, config.plan.seating_rule.how) == (members, seating, seating)
    _, learner = trained(config, 2)
    agent = agent_of(learner)
    assert agent.networks == networks
    assert [len(agent.edges("actor.0", g)) >= 0 for g in range(networks)] == [True] * networks
    assert agent.measures()["bottom_up/edges"] == 4


def test_seats_that_cannot_follow_are_told() -> None:
    with pytest.raises(
        UserError, match=r"one network of all 6 seats of 'cell', and population\.members is 5 with seating"
    ):
        config_of(population={"members": 5}).validate()
    with pytest.raises(UserError, match=r"population\.members is 6 with seating 'communities'"):
        config_of(population={"members": 6, "seating": "communities", "communities": 2}).validate()


def test_a_network_over_species_that_no_edge_could_join_is_refused() -> None:
    config = (
        PopulationPPOConfig()
        .environment(ClockWorld, env_config={"speakers": 2, "listeners": 2})
        .communication(messages=None)
        .population(agent="bottom_up")
        .env_runners(num_worlds_per_env_runner=12)
    )
    with pytest.raises(
        UserError, match=r"this world has the species 'speaker' and 'listener', which no edge would join"
    ):
        config.validate()
    config.population(agent={"speaker": "bottom_up", "listener": "mlp"}, agent_config={"hidden": 8}).validate()
    assert {name: s.members for name, s in config.plan.species.items()} == {"speaker": 2, "listener": 1}


# ---- the same graph everywhere ----


def test_runners_get_the_edges_with_the_weights_and_the_ratio_begins_at_one() -> None:
    config = config_of()
    runner, learner = trained(config, 2)
    runner.module.set_state(learner.module.get_state())
    theirs, own = runner.module["cell"].agent, agent_of(learner)
    assert len(theirs.edges(0)) + len(theirs.edges(1)) + len(theirs.edges(2)) == 4
    assert all(torch.equal(theirs.edges(name), own.edges(name)) for name in own.layers)
    config.training(lr=0.0, num_epochs=1, minibatch_size=None)
    still = learner_of(config)
    still.set_state(learner.get_state())
    still.get_optimizers_for_module("cell")[0][1].param_groups[0]["lr"] = 0.0
    told = update(still, runner, 3)
    assert abs(told["cell"]["approx_kl"].peek()) < 1e-7


@pytest.mark.parametrize(
    "population", [{}, {"members": 12}, {"members": 2, "seating": "worlds"}], ids=["seats", "teams", "worlds"]
)
@pytest.mark.parametrize("recurrent", [False, True])
def test_a_restored_learner_goes_on_bit_for_bit(population: dict[str, Any], recurrent: bool) -> None:
    """In the middle of what is summed up for the next growth."""
    growth = {**GROWTH, "every": 2, "edges": 8, "prune": 0.3}
    config = config_of(growth=growth, population=population, recurrent=recurrent)
    runner, learner = trained(config, 3)
    assert learner.growth.sums
    restored = learner_of(config)
    restored.set_state(copy.deepcopy(learner.get_state()))
    batch = runner.sample()
    for each in (learner, restored):
        each.update_from_fragments([copy.deepcopy(batch)], [16], 3, {})
    assert not changed(restored.networks["cell"], weights(learner.networks["cell"]))
    one, other = agent_of(learner), agent_of(restored)
    assert all(torch.equal(one.edges(name), other.edges(name)) for name in one.layers)
    assert agent_of(learner).measures()["bottom_up/edges"] >= 3


def test_two_learners_grow_the_same_edges(monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of()
    config.training(minibatch_size=None)
    batches, pair = [runner_of(config).sample() for _ in range(2)], [learner_of(config) for _ in range(2)]
    both = TwoLearners()
    both.patch(monkeypatch)
    both.run(lambda rank: pair[rank].update_from_fragments(copy.deepcopy(batches), [16, 16], 0, {}))
    one, other = (learner.networks["cell"].state_dict() for learner in pair)
    assert sum(len(value) for name, value in one.items() if name.endswith("senders")) == 4
    assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_the_same_seed_trains_the_same_bits() -> None:
    one, other = (trained(config_of(recurrent=True), 3)[1].networks["cell"].state_dict() for _ in range(2))
    assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_new_edges_move_no_further_than_others_do() -> None:
    """Adam's steps are of the size of its rate, whenever an edge was born."""
    config = config_of(growth={**GROWTH, "edges": 12})
    config.training(num_epochs=1, minibatch_size=None)
    _, learner = trained(config, 5)
    runner = runner_of(config)
    before = {name: layer.edges.detach().clone() for name, layer in agent_of(learner).layers.items()}
    agent_of(learner).rule = agent_of(learner).rule.__class__.of({"criterion": "none"}, list(before), 6)
    update(learner, runner, 5)
    moved = [(layer.edges.detach() - before[name]).abs() for name, layer in agent_of(learner).layers.items()]
    newest = [layer.born == 5 for layer in agent_of(learner).layers.values()]
    assert any(new.any() for new in newest)
    assert max(float(step.max()) for step in moved if step.numel()) < 1.5 * 4e-3


# ---- around it ----


def test_it_is_selected_with_its_edges() -> None:
    _, learner = trained(config_of(population={"members": 2, "seating": "worlds"}), 3)
    edges = agent_of(learner).edges("actor.2", 1), agent_of(learner).edges("actor.0", 1)
    inherit(learner.networks["cell"], learner._optimizers("cell"), torch.tensor([1, 1]))
    for network in (0, 1):
        assert torch.equal(agent_of(learner).edges("actor.2", network), edges[0])
        assert torch.equal(agent_of(learner).edges("actor.0", network), edges[1])
    update(learner, runner_of(config_of(population={"members": 2, "seating": "worlds"})), 3)


WHOLES, TEAMS = {"members": 2, "seating": "worlds"}, {"members": 12}


def selected(
    population: dict[str, Any], *sources: int, fresh: bool = False, std: float = 0.0, **config: Any
) -> tuple[dict[str, list[Tensor]], dict[str, list[Tensor]], Any]:
    """{parameter: what each member has of it} before and after a selection, and the agent. The edges are numbers."""
    _, learner = trained(config_of(population=population, **config), 3)
    agent = agent_of(learner)
    with torch.no_grad():
        for layer in agent.layers.values():
            layer.edges.normal_(generator=torch.Generator().manual_seed(2))
    before = parts_of(agent)
    values = {"lessons": 0, "crossover": 0.0, "scales": {}, "seed": 5, "mates": np.full(len(sources), -1)}
    learner.succeed({"cell": Succession(np.array(sources), fresh=fresh, mutation_std=std, **values)})
    return before, parts_of(agent), agent


def parts_of(agent: Any) -> dict[str, list[Tensor]]:
    owners, members = agent.owners(), range(agent.spec.members)
    found: dict[str, list[Tensor]] = {}
    for name, parameter in agent.named_parameters():
        whose = owners.get(parameter, torch.arange(len(parameter)))
        found[name] = [parameter.detach()[whose == member].clone() for member in members]
    return found


@pytest.mark.parametrize(
    ("population", "sources"), [(WHOLES, (1, 1)), (TEAMS, (0, 1, 2, 3, 10, 5, 6, 7, 8, 9, 10, 11))]
)
@pytest.mark.parametrize("recurrent", [False, True])
def test_mutation_moves_the_rows_of_children_and_of_nobody_else(
    population: dict[str, Any], sources: tuple[int, ...], recurrent: bool
) -> None:
    before, after, _ = selected(population, *sources, std=0.1, recurrent=recurrent)
    children = [place for place, source in enumerate(sources) if place != source]
    for name, parts in after.items():
        for place, own in enumerate(parts):
            parent = before[name][sources[place]]
            assert own.shape == parent.shape
            moved = place in children and bool(parent.any())
            assert torch.equal(own, parent) != moved, (name, place)
            if moved and own.numel() > 50:
                apart = (own - parent).square().mean().sqrt() / parent.square().mean().sqrt()
                assert float(apart) == pytest.approx(0.1, rel=0.3)


@pytest.mark.parametrize("criterion", ["csnr", "full"])
def test_who_is_made_anew_begins_as_a_network_of_the_start(criterion: str) -> None:
    growth = {**GROWTH, "criterion": criterion}
    before, after, agent = selected(WHOLES, 0, -1, fresh=True, growth=growth, recurrent=True)
    start = parts_of(agent_of(learner_of(config_of(population=WHOLES, growth=growth, recurrent=True))))
    for name, parts in after.items():
        assert torch.equal(parts[0], before[name][0])
        assert parts[1].shape == start[name][1].shape
        # The same distribution, another seed; biases and edges that grow begin at zero.
        assert bool(parts[1].any()) == bool(start[name][1].any())
    assert len(agent.edges("actor.0", 1)) == (30 if criterion == "full" else 0)


def test_a_selection_of_seats_that_share_their_blocks_leaves_those_alone() -> None:
    config = config_of(blocks="shared").survival(
        strategy={"kind": "top_k", "k": 3}, every=1, hyperparameters={"lr": [0.5, 2.0]}
    )
    _, learner = trained(config, 2)
    block = agent_of(learner).layers["actor.1"].weight
    before = block.detach().clone()
    values = {"lessons": 0, "crossover": 0.0, "scales": {}, "seed": 5, "mates": np.full(6, -1)}
    learner.succeed({"cell": Succession(np.array([0, 0, 2, 3, 4, 5]), fresh=False, mutation_std=0.1, **values)})
    assert torch.equal(block, before)
    assert not learner.growth.sums


def test_how_much_networks_differ_is_told_of_networks_and_not_of_seats() -> None:
    _, learner = trained(config_of(population=WHOLES), 1)
    alike = Succession(np.array([1, 1]), np.array([-1, -1]), False, 0, 0.0, 0.0, {}, 5)
    assert learner.succeed({"cell": alike})["cell"] == pytest.approx(0, abs=1e-6)


def test_what_was_seen_of_networks_that_are_replaced_decides_nothing() -> None:
    growth = {**GROWTH, "every": 2}
    _, learner = trained(config_of(population=WHOLES, growth=growth), 1)
    assert learner.growth.sums
    for sources in ([0, 1], [0, 0]):
        still = Succession(np.array(sources), np.array([-1, -1]), False, 0, 0.0, 0.0, {}, 5)
        learner.succeed({"cell": still})
        assert bool(learner.growth.sums) == (sources == [0, 1])


@pytest.mark.parametrize(
    ("survival", "words"),
    [
        (
            {"newborns": "imitate"},
            "survival.newborns is 'imitate', .*BottomUpNetwork of species 'cell' cannot be taught",
        ),
        (
            {"crossover": 0.3},
            "survival.crossover is 0.3, .*BottomUpNetwork of species 'cell' has all of its rows from one parent",
        ),
    ],
)
def test_what_selection_cannot_do_to_it_is_refused(survival: dict[str, Any], words: str) -> None:
    config = config_of(population={"members": 4, "seating": "worlds"})
    config.survival(strategy={"kind": "top_k", "k": 2}, every=1, **survival)
    with pytest.raises(UserError, match=words):
        config.validate()


def test_it_is_evaluated_out_of_the_trainer_with_its_edges(tmp_path: Any) -> None:
    config = config_of(growth={"criterion": "full"})
    module = config.get_multi_rl_module_spec(inference_only=True).build()
    population = population_of(config, module, Clock(0), [])
    assert len(population["cell"].agent.edges("actor.0")) == 30
    population["cell"].save(tmp_path / "cell")
    again = type(population["cell"]).load(tmp_path / "cell")
    assert torch.equal(again.agent.edges(0), population["cell"].agent.edges(0))


def test_its_graph_is_measured_in_every_iteration() -> None:
    runner, learner = runner_of(config_of()), learner_of(config_of())
    told = update(learner, runner)["cell"]
    measures = {name: stats.peek() for name, stats in told.items() if name.startswith("bottom_up/")}
    scalars = _losses({"cell": measures})
    assert scalars["bottom_up/edges"] == 2
    assert 1 / 6 < scalars["bottom_up/flops_share"] < 1
    assert scalars["bottom_up/flops_forward"] > 0
    assert set(_losses({"a": {"bottom_up/edges": 2.0}, "b": {"vf_loss": 1.0}})) == {
        "bottom_up/a/edges",
        "bottom_up/edges",
        "losses/b/value_loss",
        "losses/value_loss",
    }


def test_above_32_seats_an_iteration_is_looked_at_as_seldom_as_looks_are_dear(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight updates an epoch, the first and every third after it, and none of the second epoch."""
    monkeypatch.setattr(bottom_up, "look_every", lambda layers: 3)
    looked: list[bool] = []
    tell = BottomUpNetwork.growth_statistics

    def told(agent: BottomUpNetwork) -> Tensor:
        statistics = tell(agent)
        looked.append(bool(statistics.any()))
        return statistics

    monkeypatch.setattr(BottomUpNetwork, "growth_statistics", told)
    trained(config_of(worlds=64), 2)
    assert looked == 2 * [True, False, False, True, False, False, True, False]
