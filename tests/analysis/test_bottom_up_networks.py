"""The experiment on networks that grow: budgets, given graphs, and claims told by known numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from popcomm.analysis.experiments import bottom_up_networks as networks
from popcomm.analysis.experiments.bottom_up_runs import ARMS, GAMES, Game, neighbours
from popcomm.analysis.experiments.frame import markdown

from popcomm.agents.growth_rule import GrowthRule
from popcomm.envs.sumo_map import SumoMap

LAYERS = [f"{group}.{i}" for group in ("actor", "critic") for i in range(3)]


@pytest.mark.parametrize("game", [name for name, game in GAMES.items() if game.is_navigation])
def test_the_budget_can_be_spent_by_the_middle_of_a_run(game: str) -> None:
    settings = GAMES[game]
    rule = GrowthRule.of(settings.growth("csnr"), LAYERS, settings.agents)
    iterations = settings.env_steps // (settings.worlds * 25)
    growths = sum(rule.due(now) for now in range(1, iterations // 2 + 2))
    assert growths * rule.at_once >= 0.8 * 3 * settings.agents * (settings.agents * settings.share - 1)


def test_a_given_graph_of_navigation_is_about_as_large_as_the_budget() -> None:
    for agents, share in ((3, 0.6), (5, 0.4), (7, 0.25), (16, 0.25)):
        pairs = Game(agents, share, 1, 1, 0.0).roads
        assert len({tuple(pair) for pair in pairs}) == len(pairs)
        assert all(0 <= s < agents and 0 <= r < agents and s != r for s, r in pairs)
        assert (agents + len(pairs)) / agents**2 == pytest.approx(share, abs=1 / agents / 2 + 1e-9)


def test_lights_are_neighbours_where_a_lane_leads_from_one_to_the_other() -> None:
    nothing: Any = ()
    # Lane 5 leads from light 0 to light 1, lane 6 back; nobody is joined with light 2.
    plan = SumoMap(
        ("a", "b", "c"), nothing, nothing, nothing, ((6,), (5,), (9,)), ((5, 8), (6,), (7,)), nothing, np.zeros(0),
        nothing, np.zeros((3, 2)), {}, {},
    )  # fmt: skip
    assert sorted(neighbours(plan)) == [[0, 1], [1, 0]]


def test_traffic_is_drawn_by_whole_episodes() -> None:
    assert GAMES["traffic grid4x4"].fragments == 8
    assert GAMES["3 agents, all"].fragments == 1
    ends, means = networks.by_episode(np.arange(1.0, 6.0), np.array([1.0, 3.0, 5.0, 9.0, 100.0]), 2)
    assert ends.tolist() == [2, 4]
    assert means.tolist() == [2, 7]


def record(arm: str, seed: int, score: float, lost: float, game: str = "7 agents, own landmark") -> dict[str, Any]:
    """A run that loses `lost` in any noise of any strength."""
    noise = {kind: {f"{s:g}": score - lost for s in each} for kind, each in GAMES[game].noise.items()}
    return {
        "game": game, "arm": arm, "seed": seed, "env_steps": 100, "score": score, "scores": {"occupied": 0.5},
        "curve": [{"env_steps": 50, "score": score - 5}, {"env_steps": 100, "score": score}], "noise": noise,
        "scripts": {"random": -60.0}, "flops_share": 0.25, "share_of_training": 0.2, "edges": 9.0, "critic_edges": 8.0,
        "links": 9.0, "seconds": 1.0,
    }  # fmt: skip


def records() -> list[dict[str, Any]]:
    """Dense comes to -40, what grows to half a unit less, random edges and independent agents to ten less."""
    scores = {"csnr": -40.5, "raw": -40.5, "random": -50.0, "given": -45.0, "none": -50.0, "full": -40.0}
    losses = {"csnr": 3.0, "full": 8.0}
    runs = [
        (arm, seed, scores[arm] + 0.3 * (seed % 2), losses.get(arm, 1.0) + 0.1 * seed)
        for arm in ARMS
        for seed in (1, 2, 3)
    ]
    return [record(*run) for run in runs]


def test_claims_hold_as_the_numbers_say() -> None:
    held = [claim.holds for claim in networks.claims(networks.grouped(records()))]
    assert held == [True, True, True, True]  # comparable, above independent, above random, more robust
    worse = [{**r, "score": r["score"] - 5 * (r["arm"] == "csnr")} for r in records()]
    assert not networks.claims(networks.grouped(worse))[0].holds


def test_nothing_is_comparable_to_a_dense_network_that_learned_nothing() -> None:
    flat = [{**r, "score": -61.0} for r in records()]
    assert not networks.claims(networks.grouped(flat))[0].holds


def test_pairs_on_streets_are_held_against_chance() -> None:
    game = "traffic grid4x4"
    runs = [
        {**record("csnr", seed, -5.0, 1.0, game), "scripts": {}, "road_share": 0.5 + 0.01 * seed, "road_chance": 0.2}
        for seed in (1, 2, 3)
    ]  # fmt: skip
    (claim,) = networks.claims(networks.grouped(runs))
    assert claim.holds
    assert "chance (0.20)" in claim.text


def test_the_page_has_a_row_for_every_arm_and_noise() -> None:
    game = "traffic grid4x4"
    every = records() + [
        {**record(arm, 1, -5.0, 1.0, game), "scripts": {}, "road_share": 0.5, "road_chance": 0.2} for arm in ARMS
    ]
    text = markdown(networks.EXPERIMENT, every, "a command", {"popcomm": "0"})
    assert all(text.count(f"| {title} |") == 2 for title in networks.TITLES.values())
    assert "| gaussian | 0.3 | -43.5 | -51.0 | -48.0 |" in text
    assert "| stuck | 0.6 |" in text
    assert len(networks.draw(every).axes) >= 2 + 6 + 1
