"""Budgets, schedules, and which edges grow and go."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from popcomm.agents.growing import chosen, weakest
from popcomm.agents.growth_rule import GrowthRule
from popcomm.errors import UserError

LAYERS = ["actor.0", "actor.1", "critic.0", "critic.1"]


def rule(seats: int = 4, **given: Any) -> GrowthRule:
    return GrowthRule.of(given, LAYERS, seats)


def test_it_grows_after_the_warm_up_every_so_many_iterations_until_it_stops() -> None:
    told = rule(warm_up=3, every=2, stop=8)
    assert [i for i in range(1, 15) if told.due(i)] == [5, 7]
    assert [i for i in range(1, 9) if rule(every=4).due(i)] == [4, 8]


@pytest.mark.parametrize(
    ("given", "looked_at"),
    [
        ({"warm_up": 3, "every": 2, "stop": 8}, [4, 5, 6, 7]),  # after the growth in 7 there is none before 8 is over
        ({"every": 3, "window": 1}, [3, 6, 9]),
        ({"every": 3, "window": 2, "warm_up": 1}, [3, 4, 6, 7, 9]),
        ({"every": 3, "window": 1, "stop": 6}, [3, 6]),
        ({"every": 1}, list(range(1, 10))),
        ({"criterion": "random", "every": 1}, []),
    ],
)
def test_gradients_are_looked_at_before_growths_and_where_none_follows_never(given: Any, looked_at: list[int]) -> None:
    told = rule(**given)
    assert [i for i in range(1, 10) if told.watches(i)] == looked_at


@pytest.mark.parametrize("criterion", ["none", "full", "oracle"])
def test_controls_never_grow(criterion: str) -> None:
    edges = [[0, 1]] if criterion == "oracle" else 3
    told = rule(criterion=criterion, edges=edges, every=1)
    assert not any(told.watches(i) for i in range(1, 9))
    assert not any(told.due(i) for i in range(1, 9))


def test_a_number_of_edges_is_the_actors_and_the_critics_each() -> None:
    assert [(pool.layers, pool.edges) for pool in rule(edges=7).pools] == [
        (("actor.0", "actor.1"), 7),
        (("critic.0", "critic.1"), 7),
    ]


def test_layers_have_budgets_of_their_own_and_those_without_one_do_not_grow() -> None:
    pools = rule(edges={"actor.0": 2, "actor": 5}).pools
    assert [(pool.layers, pool.edges) for pool in pools] == [(("actor.0",), 2), (("actor.1",), 5)]


def test_without_any_budget_a_quarter_of_all_edges_may_grow() -> None:
    """4 seats have 12 edges in each of two layers; a threshold of one's own is a budget, too."""
    assert [pool.edges for pool in rule().pools] == [6, 6]
    assert rule().threshold == 0.2
    assert [pool.edges for pool in rule(threshold=0.5).pools] == [24, 24]
    assert rule(edges=3).threshold == -math.inf  # a budget is filled by the best
    assert [(pool.edges, pool.flops) for pool in rule(flops=0.5).pools] == [(24, 0.5)] * 2


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"criterion": "csrn"}, "growth.criterion is 'csrn'; did you mean 'csnr'"),
        ({"edge": 3}, "growth: the key 'edge' does not exist; did you mean 'edges'"),
        ({"edges": -1}, "growth.edges is -1, and must be a whole number of at least 0"),
        ({"edges": 25}, "growth.edges is 25, and actor has 24 edges when it is dense: at most 24"),
        ({"edges": {"actor.0": 13}}, "growth.edges.actor.0 is 13, and actor.0 has 12 edges when it is dense"),
        ({"edges": {"actr": 1}}, "growth.edges: the layer 'actr' does not exist; did you mean 'actor'"),
        ({"edges": 2.5}, "growth.edges is 2.5, and must be a whole number"),
        ({"flops": 1.5}, "growth.flops is 1.5, and must lie in"),
        ({"flops": 0.2}, "growth.flops is 0.2, and the own blocks of 4 seats alone are 1 / 4"),
        ({"threshold": -1}, "growth.threshold is -1, and must be a number of at least 0"),
        ({"every": 0}, "growth.every is 0, and must be a whole number of at least 1"),
        ({"at_once": 0}, "growth.at_once is 0, and must be"),
        ({"warm_up": 10, "every": 5, "stop": 12}, "growth.stop is 12, and the first growth would be in iteration 15"),
        ({"criterion": "random", "window": 2}, "growth.window is 2, and has no effect: criterion 'random' looks at no"),
        (
            {"criterion": "oracle", "window": 2, "edges": []},
            "growth.window is 2, and has no effect: criterion 'oracle'",
        ),
        ({"window": 0}, "growth.window is 0, and must be a whole number of at least 1"),
        ({"window": 6}, r"growth.window is 6, and between growths there are 5 iterations \(every\): at most 5"),
        ({"prune": 2}, "growth.prune is 2, and must lie in"),
        ({"criterion": "oracle"}, r"growth.edges is None, and of criterion 'oracle' it must be \[\[sender, rec"),
        (
            {"criterion": "oracle", "edges": [[0, 4]]},
            r"has \[0, 4\], and must have pairs of two different seats, 0 to 3",
        ),
        ({"criterion": "oracle", "edges": [[2, 2]]}, r"has \[2, 2\], and must have pairs of two different seats"),
    ],
)
def test_what_cannot_be_is_told_in_one_sentence(given: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        rule(**given)


# ---- which ----


def picked(scores: torch.Tensor, there: set[tuple[int, int, int]] = frozenset(), **changed: Any) -> list[Any]:  # type: ignore[assignment]
    """(layer, sender, receiver) of what is chosen in one network. there: edges that are there already."""
    layers, seats = scores.shape[0], scores.shape[-1]
    could = ~torch.eye(seats, dtype=torch.bool).expand(layers, 1, seats, seats)
    for layer, sender, receiver in there:
        could = could.index_put(
            (torch.tensor(layer), torch.tensor(0), *torch.tensor([[sender], [receiver]])), torch.tensor(False)
        )
    usual = {
        "room": torch.tensor([9]),
        "costs": torch.ones(layers),
        "purse": torch.tensor([99.0]),
        "at_once": torch.tensor([9]),
        "threshold": 0.0,
    }
    layer, _, sender, receiver = chosen(scores.unsqueeze(1), could, **{**usual, **changed})
    return list(zip(layer.tolist(), sender.tolist(), receiver.tolist(), strict=True))


def test_the_best_edges_grow_within_room_pace_purse_and_threshold() -> None:
    scores = torch.zeros(1, 3, 3)
    scores[0, 0, 1], scores[0, 2, 0], scores[0, 1, 2], scores[0, 1, 1] = 0.9, 0.7, 0.5, 5.0
    best = [(0, 0, 1), (0, 2, 0), (0, 1, 2)]
    assert picked(scores) == best
    assert picked(scores, room=torch.tensor([2])) == best[:2]
    assert picked(scores, at_once=torch.tensor([1])) == best[:1]
    assert picked(scores, purse=torch.tensor([2.5])) == best[:2]
    assert picked(scores, threshold=0.6) == best[:2]
    assert picked(scores, {(0, 0, 1)}) == best[1:]
    assert picked(scores, room=torch.tensor([-3])) == []
    assert picked(scores * torch.nan) == []
    assert picked(scores - 1, threshold=-math.inf, at_once=torch.tensor([4]))[:3] == best


def test_an_edge_that_the_purse_cannot_pay_leaves_the_place_to_those_that_it_can() -> None:
    scores = torch.zeros(2, 3, 3)
    scores[0, 0, 1], scores[1, 1, 2], scores[1, 0, 1] = 0.9, 0.3, 0.1
    costs = torch.tensor([10.0, 1.0])
    assert picked(scores, costs=costs, purse=torch.tensor([3.0])) == [(1, 1, 2), (1, 0, 1)]
    assert picked(scores, costs=costs, purse=torch.tensor([10.0])) == [(0, 0, 1)]


def test_a_pair_of_seats_grows_in_its_best_layer_and_pairs_that_are_joined_come_last() -> None:
    scores = torch.zeros(2, 3, 3)
    scores[:, 0, 1] = torch.tensor([0.8, 0.9])
    scores[:, 2, 1] = torch.tensor([0.3, 0.2])
    assert picked(scores) == [(1, 0, 1), (0, 2, 1)]
    assert picked(scores, {(1, 0, 1)}) == [(0, 2, 1), (0, 0, 1)]


def test_every_network_grows_by_its_own_scores_and_room() -> None:
    scores = torch.zeros(1, 2, 2, 2)
    scores[0, 0, 0, 1], scores[0, 1, 1, 0], scores[0, 1, 0, 1] = 0.1, 0.3, 0.2
    could = ~torch.eye(2, dtype=torch.bool).expand(1, 2, 2, 2)
    two = torch.tensor([2, 1])
    _, network, sender, receiver = chosen(scores, could, two, torch.ones(1), torch.ones(2) * 9, two, 0.0)
    assert torch.stack([network, sender, receiver], 1).tolist() == [[0, 0, 1], [1, 1, 0]]


def test_the_weakest_share_of_each_network_goes_but_no_newborn() -> None:
    norms = torch.tensor([0.5, 0.1, 0.2, 0.0, 9.0, 8.0, 7.0])
    network, may_go = torch.tensor([0, 0, 0, 0, 1, 1, 1]), torch.tensor([1, 1, 1, 0, 1, 1, 1]).bool()
    assert weakest(norms, network, may_go, 0.5, 2).tolist() == [False, True, True, False, False, False, True]
    assert not weakest(norms, network, may_go, 0.1, 2).any()
