"""Who hears whom: graphs worked by hand, and k-nearest against brute force."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.overrides import TorchFunctionMode

from popcomm.channels import Chain, Custom, Full, KNearest, Ring, Topology, make_topology
from popcomm.channels.nearest import nearest_by_matrix, nearest_by_tree
from popcomm.errors import UserError

# The package's function `topology` hides the module of that name.
MODULE = import_module("popcomm.channels.nearest")


def everyone(worlds: int, n: int) -> torch.Tensor:
    return torch.ones(worlds, n, dtype=torch.bool)


def test_full_lets_everyone_hear_all_others_in_the_order_of_seats() -> None:
    links = Full().connect(everyone(2, 4))
    assert links.senders.tolist() == [[[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]]] * 2
    assert links.mask.all()
    assert Full().inbox_size(4) == 3


def test_ring_hears_the_nearest_along_the_circle_left_first() -> None:
    links = Ring(3).connect(everyone(1, 5))
    assert links.senders.tolist() == [[[4, 1, 3], [0, 2, 4], [1, 3, 0], [2, 4, 1], [3, 0, 2]]]
    assert links.mask.all()


def test_ring_of_all_others_hears_everyone_once() -> None:
    senders = Ring(5).connect(everyone(1, 6)).senders[0]
    for seat, row in enumerate(senders.tolist()):
        assert sorted([*row, seat]) == list(range(6))


def test_chain_hears_the_one_before_and_its_first_seat_nobody() -> None:
    links = Chain().connect(everyone(2, 4))
    assert Chain().inbox_size(4) == 1
    assert links.senders[:, 1:, 0].tolist() == [[0, 1, 2]] * 2
    assert links.mask.squeeze(-1).tolist() == [[False, True, True, True]] * 2


def test_chain_is_the_graph_that_its_rows_say() -> None:
    chain, graph = make_topology({"kind": "chain"}), Custom(np.eye(5, k=1))
    here = torch.tensor([[True, True, False, True, True]])
    assert as_lists(chain.connect(here)) == as_lists(graph.connect(here)) == [[[], [0], [1], [], [3]]]


def test_custom_graph_is_read_as_from_row_to_column() -> None:
    # 0 speaks to 1 and 2, 2 speaks to 1, nobody speaks to 0.
    graph = Custom([[0, 1, 1], [0, 0, 0], [0, 1, 0]])
    links = graph.connect(everyone(1, 3))
    assert graph.inbox_size(3) == 2
    assert links.mask.tolist() == [[[False, False], [True, True], [True, False]]]
    assert links.senders[0, 1].tolist() == [0, 2]
    assert links.senders[0, 2, 0].item() == 0


def test_custom_graph_may_differ_between_worlds() -> None:
    links = Custom([[[0, 1], [0, 0]], [[0, 0], [1, 0]]]).connect(everyone(2, 2))
    assert links.mask.tolist() == [[[False], [True]], [[True], [False]]]
    assert links.senders[0, 1].item() == 0
    assert links.senders[1, 0].item() == 1


@pytest.mark.parametrize("graph", [Full(), Ring(2), Custom(np.ones((4, 4)) - np.eye(4))])
def test_absent_senders_are_masked_and_others_stay(graph: Topology) -> None:
    present = torch.tensor([[True, False, True, True]])
    links = graph.connect(present)
    assert torch.equal(links.mask, links.senders != 1)


def brute_force(
    positions: np.ndarray, present: np.ndarray, k: int, torus: tuple[float, ...] | None
) -> list[list[list[int]]]:
    """The k nearest present others of every seat, nearest first, by the definition."""
    found = []
    for points, here in zip(positions, present, strict=True):
        rows = []
        for i, point in enumerate(points):
            gap = np.abs(points - point)
            if torus is not None:
                gap = np.minimum(gap, np.array(torus) - gap)
            distance = np.sqrt((gap**2).sum(1))
            others = [j for j in np.argsort(distance) if j != i and here[j]]
            rows.append([int(j) for j in others[:k]])
        found.append(rows)
    return found


def as_lists(links: Any) -> list[list[list[int]]]:
    return [
        [[s for s, real in zip(seats, mask, strict=True) if real] for seats, mask in zip(*world, strict=True)]
        for world in zip(links.senders.tolist(), links.mask.tolist(), strict=True)
    ]


EXTENT = (4.0, 7.0, 5.0)


@settings(max_examples=60, deadline=None)
@given(
    worlds=st.integers(1, 3),
    n=st.integers(2, 12),
    axes=st.integers(1, 3),
    k=st.integers(1, 5),
    wraps=st.booleans(),
    absent=st.sampled_from([0.0, 0.3, 0.9, 1.0]),
    seed=st.integers(0, 10_000),
)
@pytest.mark.parametrize("search", [nearest_by_matrix, nearest_by_tree])
def test_nearest_are_those_of_brute_force(
    search: Any, worlds: int, n: int, axes: int, k: int, wraps: bool, absent: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    k = min(k, n - 1)
    positions = rng.random((worlds, n, axes)) * np.array(EXTENT[:axes])
    present = rng.random((worlds, n)) >= absent
    torus = EXTENT[:axes] if wraps else None
    links = search(torch.as_tensor(positions), torch.as_tensor(present), k, torus)
    assert links.senders.shape == links.mask.shape == (worlds, n, k)
    assert int(links.senders.min()) >= 0
    assert int(links.senders.max()) < n
    assert as_lists(links) == brute_force(positions, present, k, torus)


def test_nearest_reach_across_the_border_of_a_torus_only() -> None:
    positions = torch.tensor([[[0.5, 5.0], [9.5, 5.0], [3.0, 5.0]]])
    for search in (nearest_by_matrix, nearest_by_tree):
        assert search(positions, everyone(1, 3), 1, (10.0, 10.0)).senders[0, 0].item() == 1
        assert search(positions, everyone(1, 3), 1, None).senders[0, 0].item() == 2


def test_tree_takes_positions_on_and_just_below_the_border() -> None:
    positions = torch.tensor([[[-1e-20, 0.0], [10.0, 1.0], [5.0, 5.0]]])
    links = nearest_by_tree(positions, everyone(1, 3), 1, (10.0, 10.0))
    assert links.senders[0, :2, 0].tolist() == [1, 0]


def test_tree_keeps_worlds_apart_that_lie_on_one_another() -> None:
    # In each world two agents sit on the same spot; a leak between worlds would find strangers first.
    positions = torch.zeros(50, 3, 2)
    positions[:, 2] = 100.0
    links = nearest_by_tree(positions, everyone(50, 3), 2)
    assert links.mask.all()
    assert links.senders[:, 2].sort(-1).values.tolist() == [[0, 1]] * 50


def test_k_nearest_gives_the_same_above_and_below_the_switch_to_the_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    positions = torch.as_tensor(rng.random((2, 30, 2)) * 9.0, dtype=torch.float32)
    present = torch.as_tensor(rng.random((2, 30)) < 0.8)
    below = KNearest(4).connect(present, positions, (9.0, 9.0))
    monkeypatch.setattr(MODULE, "TREE_FROM_AGENTS", 2)
    monkeypatch.setattr(MODULE, "nearest_by_matrix", None)
    assert as_lists(KNearest(4).connect(present, positions, (9.0, 9.0))) == as_lists(below)


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(2, 40),
    k=st.integers(1, 20),
    cells=st.sampled_from([1, 2, 3, 5]),
    wraps=st.booleans(),
    absent=st.sampled_from([0.0, 0.5]),
    seed=st.integers(0, 10_000),
)
def test_of_equally_far_ones_the_lower_seats_are_heard_by_matrix_and_tree_alike(
    n: int, k: int, cells: int, wraps: bool, absent: float, seed: int
) -> None:
    """On a grid many are equally far, the last that is heard and the first that is not among them."""
    rng = np.random.default_rng(seed)
    k = min(k, n - 1)
    positions = rng.integers(0, cells, (3, n, 2))
    present, torus = rng.random((3, n)) >= absent, (float(cells), float(cells)) if wraps else None
    gap = np.abs(positions[:, :, None] - positions[:, None])
    far = (np.minimum(gap, cells - gap) if wraps else gap).astype(float) ** 2
    order = np.argsort(far.sum(-1), axis=-1, kind="stable")
    expected = [[[s for s in order[w, i].tolist() if s != i and present[w, s]][:k] for i in range(n)] for w in range(3)]
    for search in (nearest_by_matrix, nearest_by_tree):
        links = search(torch.as_tensor(positions, dtype=torch.float32), torch.as_tensor(present), k, torus)
        assert as_lists(links) == expected


@pytest.mark.parametrize("torus", [None, (9.0, 9.0)])
def test_matrix_and_tree_are_the_same_to_the_bit_in_large_worlds(torus: tuple[float, float] | None) -> None:
    rng = np.random.default_rng(4)
    positions = torch.as_tensor(rng.random((4, 150, 2)) * 9.0, dtype=torch.float32)
    positions[0] = positions[0].round()
    present = torch.as_tensor(rng.random((4, 150)) < 0.9)
    by_matrix, by_tree = (search(positions, present, 6, torus) for search in (nearest_by_matrix, nearest_by_tree))
    assert torch.equal(by_matrix.senders, by_tree.senders)
    assert torch.equal(by_matrix.mask, by_tree.mask)


@pytest.mark.parametrize("topology", [Full(), Ring(4), Chain(), KNearest(3), KNearest(20)])
@pytest.mark.parametrize("torus", [None, (9.0, 9.0)])
def test_links_are_made_where_the_seats_are_and_nothing_is_brought_there_or_waited_for(
    topology: Any, torus: tuple[float, float] | None
) -> None:
    """Tensors without numbers stand for a GPU's: whatever would look at them raises, and what would come is noted."""
    brought: list[Any] = []

    class Watch(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            made = func(*args, **(kwargs or {}))
            devices = {x.device.type for x in (made, *args) if isinstance(x, torch.Tensor)}
            if "cpu" in devices:
                brought.append(func)
            return made

    present = torch.ones(2, 150, dtype=torch.bool, device="meta")
    positions = torch.empty(2, 150, 2, device="meta")
    with Watch():
        links = topology.connect(present, positions, torus)
    assert links.senders.device.type == links.mask.device.type == "meta"
    assert not brought


@pytest.mark.parametrize("elements", [1, 40, 200, 1000])
def test_chunks_of_the_distance_matrix_change_nothing(monkeypatch: pytest.MonkeyPatch, elements: int) -> None:
    rng = np.random.default_rng(0)
    positions, present = torch.as_tensor(rng.random((5, 13, 2))), torch.as_tensor(rng.random((5, 13)) < 0.7)
    whole = nearest_by_matrix(positions, present, 3)
    monkeypatch.setattr(MODULE, "CHUNK_ELEMENTS", elements)
    parts = nearest_by_matrix(positions, present, 3)
    assert torch.equal(whole.mask, parts.mask)
    assert torch.equal(whole.senders[whole.mask], parts.senders[parts.mask])


@pytest.mark.parametrize(
    ("config", "kind"), [({"kind": "full"}, Full), ({"kind": "ring", "k": 4}, Ring), ({"kind": "k_nearest"}, KNearest)]
)
def test_config_mappings_make_the_topologies_they_name(config: dict, kind: type) -> None:
    made = make_topology(config)
    assert type(made) is kind
    assert getattr(made, "k", None) == config.get("k", 4 if kind is KNearest else None)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"kind": "k_nearst"}, "did you mean 'k_nearest'"),
        ({"k": 3}, "has no 'kind'"),
        ({"kind": "ring", "k": 0}, "topology.k is 0, and must be at least 1"),
        ({"kind": "k_nearest", "k": "two"}, "topology.k is 'two', and must be a whole number"),
        ({"kind": "ring", "n": 2}, "the argument 'n' does not exist"),
        ({"kind": "full", "k": 2}, "the argument 'k' does not exist"),
        ({"kind": "custom", "adjacency": [[0, 1, 0], [1, 0, 0]]}, r"has shape \(2, 3\), and must be \[N, N\]"),
    ],
)
def test_mistakes_in_a_config_are_told_by_key_and_value(config: dict, words: str) -> None:
    with pytest.raises(UserError, match=words):
        make_topology(config)


@pytest.mark.parametrize("graph", [Ring(4), KNearest(4)])
def test_more_senders_than_others_is_refused(graph: Topology) -> None:
    assert graph.inbox_size(5) == 4
    with pytest.raises(UserError, match=r"topology\.k is 4, and an agent has only 3 others"):
        graph.inbox_size(4)


def test_custom_graph_of_another_size_is_refused() -> None:
    with pytest.raises(UserError, match="is for 2 agents, and the environment has 3"):
        Custom([[0, 1], [1, 0]]).inbox_size(3)
    with pytest.raises(UserError, match="is for 1 worlds, and there are 2"):
        Custom([[[0, 1], [1, 0]]]).connect(everyone(2, 2))


def test_k_nearest_without_positions_is_refused() -> None:
    with pytest.raises(UserError, match="needs positions"):
        KNearest(1).connect(everyone(1, 3))
