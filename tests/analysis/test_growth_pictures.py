"""Pictures of a graph that grew: what they show is what the network has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from PIL import Image
from popcomm.analysis.growth_pictures import animate, births, block_matrix, graph, network_of, places

from popcomm.agents import AgentSpec, BottomUpNetwork, MLPAgent
from popcomm.envs.layout import WorldLayout
from popcomm.envs.navigation_v0 import NavigationWorld
from popcomm.errors import UserError
from popcomm.rollout.members import Members
from popcomm.rollout.population import Population
from popcomm.rollout.recipes import EnvRecipe


def grown() -> BottomUpNetwork:
    agent = BottomUpNetwork(AgentSpec(3, spaces.Discrete(2), None, 0, num_seats=4, members=8, seating="fixed"))
    layers = agent.layers
    layers["actor.0"].connect(torch.tensor([1, 4]), torch.tensor([0, 7]))
    layers["actor.1"].connect(torch.tensor([1, 2]), torch.tensor([0, 3]))
    layers["critic.0"].connect(torch.tensor([3]), torch.tensor([0]))
    layers["actor.0"].born += 7
    layers["actor.1"].born += 5
    return agent


def test_a_pair_is_as_old_as_its_first_edge() -> None:
    born = births(grown())
    assert {tuple(pair): int(born[tuple(pair)]) for pair in np.argwhere(born >= 0)} == {(1, 0): 5, (2, 3): 5}
    assert np.argwhere(births(grown(), network=1) >= 0).tolist() == [[0, 3]]
    assert np.argwhere(births(grown(), "critic") >= 0).tolist() == [[3, 0]]


def test_the_matrix_shows_what_was_there_at_an_iteration() -> None:
    born = np.full((4, 4), -1)
    born[1, 0], born[2, 3] = 2, 6
    for iteration, pairs in [(0, 0), (2, 1), (6, 2)]:
        (axes,) = block_matrix(born, iteration, 6).axes
        assert f"{pairs} pairs" in axes.get_title(loc="left")
        shown = axes.images[0].get_array()
        assert np.isfinite(np.ma.filled(shown.astype(float), np.nan)).sum() == pairs


def test_the_animation_has_a_picture_for_each_growth(tmp_path: Path) -> None:
    born = np.full((3, 3), -1)
    born[1, 0], born[2, 0], born[0, 2] = 2, 2, 6
    animate(born, tmp_path / "m.gif")
    animate(born, tmp_path / "m.png")
    with Image.open(tmp_path / "m.gif") as image:
        assert image.n_frames == 3
    assert (tmp_path / "m.png").stat().st_size > 0


def test_the_graph_has_an_arrow_for_each_pair() -> None:
    figure = graph(births(grown()))
    assert len(figure.axes[0].patches) >= 2
    assert graph(np.full((3, 3), -1)) is not None  # and none where there is none


def test_only_bottom_up_networks_have_a_graph() -> None:
    def members(cls: Any) -> Members:
        spec = AgentSpec(3, spaces.Discrete(2), None, 0, num_seats=2)
        return Members(spec, cls(spec), {})

    population = {"a": members(BottomUpNetwork), "b": members(MLPAgent)}
    assert network_of(population, None) is population["a"].agent
    with pytest.raises(UserError, match="species is 'b', and those whose agent is bottom_up are: a"):
        network_of(population, "b")


def test_seats_are_drawn_where_they_stand_when_an_episode_begins() -> None:
    world = NavigationWorld(num_agents=4, view=0)
    layout = WorldLayout.of(world)
    spec = AgentSpec(6, spaces.Discrete(5), None, 0, num_seats=4, members=4, seating="fixed")
    members = {"agent": Members(spec, BottomUpNetwork(spec), {})}
    population = Population(members, layout, env=EnvRecipe("navigation_v0", {"num_agents": 4, "view": 0}))
    found = places(population)
    assert found.shape == (4, 2)
    assert np.abs(found).max() <= 1.0
    assert np.array_equal(found, places(population))
    assert len({tuple(place) for place in found.tolist()}) == 4
