"""Block-sparse layers against a masked dense layer: same outputs, same gradients, whatever the executor."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from popcomm.agents.block_sparse import EXECUTORS, BlockSparseLinear
from popcomm.agents.growing import flops_of_block
from popcomm.agents.reindex import reindex

I, O, W = 3, 4, 7


def connected(networks: int, seats: int, share: float, shared: bool = False, seed: int = 0) -> BlockSparseLinear:
    """A layer with random edges of random weights."""
    generator = torch.Generator().manual_seed(seed)
    layer = BlockSparseLinear(networks, seats, I, O, shared=shared, generator=generator)
    there = torch.rand(networks, seats, seats, generator=generator) < share
    network, sender, receiver = (there & ~torch.eye(seats, dtype=torch.bool)).nonzero(as_tuple=True)
    layer.connect(network * seats + sender, network * seats + receiver)
    with torch.no_grad():
        layer.bias.normal_(generator=generator)
        layer.edges.normal_(generator=generator)
    return layer


def masked_dense(layer: BlockSparseLinear, x: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """What a dense layer gives whose other blocks are masked, and its gradients for sum(sin(k) y_k), block by block."""
    g, n = layer.networks, layer.seats
    dense, mask = torch.zeros(g, n, n, I, O), torch.zeros(g, n, n, 1, 1)
    bias = torch.zeros(g, n, O)
    for node in range(g * n):
        own = node // n if layer.shared else node
        dense[node // n, node % n, node % n] = layer.weight.detach()[own]
        bias[node // n, node % n] = layer.bias.detach()[own]
        mask[node // n, node % n, node % n] = 1
    for edge, (sender, receiver) in enumerate(zip(layer.senders.tolist(), layer.receivers.tolist(), strict=True)):
        dense[sender // n, sender % n, receiver % n] = layer.edges.detach()[edge]
        mask[sender // n, sender % n, receiver % n] = 1
    x, dense, bias = x.clone().requires_grad_(), dense.requires_grad_(), bias.requires_grad_()
    matrix = (dense * mask).transpose(2, 3).reshape(g, n * I, n * O)
    worlds = x.view(g, n, W, I).transpose(1, 2).reshape(g, W, n * I)
    y = (worlds @ matrix + bias.view(g, 1, n * O)).view(g, W, n, O).transpose(1, 2).reshape(g * n, W, O)
    weighed(y).backward()
    assert dense.grad is not None
    assert bias.grad is not None
    assert x.grad is not None
    own_slopes, bias_slopes = dense.grad[:, range(n), range(n)], bias.grad
    if layer.shared:
        own_slopes, bias_slopes = own_slopes.sum(1), bias_slopes.sum(1)
    slopes = {
        "weight": own_slopes.reshape(-1, I, O),
        "bias": bias_slopes.reshape(-1, O),
        "edges": dense.grad[layer.senders // n, layer.senders % n, layer.receivers % n],
    }
    return y.detach(), x.grad, slopes


def weighed(y: Tensor) -> Tensor:
    return (y * torch.arange(float(y.numel())).view_as(y).sin()).sum()


@pytest.mark.parametrize("executor", EXECUTORS)
@pytest.mark.parametrize(
    ("networks", "seats", "share", "shared"),
    [
        (1, 5, 0.4, False),
        (2, 4, 0.5, False),
        (3, 4, 0.5, True),
        (1, 6, 1.0, False),
        (2, 3, 0.0, True),
        (2, 1, 1, False),
    ],
)
def test_it_is_a_masked_dense_layer(networks: int, seats: int, share: float, shared: bool, executor: str) -> None:
    layer = connected(networks, seats, share, shared)
    x = torch.randn(networks * seats, W, I, generator=torch.Generator().manual_seed(1))
    expected, x_slopes, slopes = masked_dense(layer, x)
    layer.executor = executor
    y = layer(x.requires_grad_())
    weighed(y).backward()
    torch.testing.assert_close(y, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(x.grad, x_slopes, atol=1e-5, rtol=1e-5)
    for name, parameter in layer.named_parameters():
        if parameter.numel():
            torch.testing.assert_close(parameter.grad, slopes[name], atol=1e-5, rtol=1e-5, msg=name)


def test_the_executor_follows_from_density_batch_and_mode() -> None:
    def chosen(seats: int, share: float, worlds: int = 64, gradients: bool = True) -> str:
        return connected(1, seats, share).fastest(worlds, gradients)

    assert chosen(6, 1.0) == "dense"
    assert chosen(6, 0.5) == "list"  # few seats
    assert chosen(32, 0.05) == "list"
    assert chosen(32, 0.4) == "receivers"
    assert chosen(32, 0.2, gradients=False) == "list"  # rollouts
    assert chosen(32, 0.4, gradients=False) == "receivers"
    assert chosen(32, 0.4, worlds=1) == "list"


@pytest.mark.parametrize("executor", ["list", "receivers"])
def test_its_operations_are_those_of_its_blocks(executor: str) -> None:
    layer = connected(1, 9, 0.3)
    layer.executor = executor
    block, blocks = flops_of_block(layer, "actor.1"), 9 + len(layer.senders)
    x = torch.randn(9, W, I, requires_grad=True)
    with FlopCounterMode(display=False) as forward:
        y = layer(x)
    with FlopCounterMode(display=False) as backward:
        y.sum().backward()
    assert forward.get_total_flops() == blocks * block.forward * W
    assert backward.get_total_flops() == blocks * block.backward * W
    with FlopCounterMode(display=False) as first:
        layer(x.detach()).sum().backward()
    assert first.get_total_flops() == blocks * flops_of_block(layer, "actor.0").total * W


@pytest.mark.parametrize("executor", ["list", "receivers"])
def test_half_precision_by_autocast_is_near(executor: str) -> None:
    layer, x = connected(1, 9, 0.5), torch.randn(9, W, I, requires_grad=True)
    layer.executor = executor
    expected = layer(x)
    with torch.autocast("cpu", torch.bfloat16):
        found = layer(x)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), expected, atol=0.1, rtol=0.1)
    found.float().sum().backward()
    assert layer.edges.grad is not None
    assert layer.edges.grad.dtype == torch.float32


# ---- edges that come and go ----


def test_edges_stand_in_the_order_of_receivers_and_old_ones_keep_their_weights() -> None:
    layer = BlockSparseLinear(1, 4, I, O)
    for sender, receiver, iteration in [(0, 3, 1), (2, 0, 2), (1, 3, 3)]:
        kept = torch.ones_like(layer.senders, dtype=torch.bool)
        rows = layer.arrange(kept, torch.tensor([sender]), torch.tensor([receiver]), iteration)
        reindex(None, layer.edges, rows)
        layer.edges.data[rows < 0] = float(iteration)
    assert layer.receivers.tolist() == [0, 3, 3]
    assert layer.senders.tolist() == [2, 0, 1]
    assert layer.born.tolist() == [2, 1, 3]
    assert layer.edges.detach()[:, 0, 0].tolist() == [2, 1, 3]
    rows = layer.arrange(torch.tensor([True, False, True]), torch.tensor([3]), torch.tensor([2]), 4)
    assert rows.tolist() == [0, -1, 2]
    assert torch.stack([layer.senders, layer.receivers], 1).tolist() == [[2, 0], [3, 2], [1, 3]]


@pytest.mark.parametrize("executor", ["list", "receivers"])
def test_a_layer_takes_the_edges_of_a_state(executor: str) -> None:
    layer, other, x = connected(2, 9, 0.3), connected(2, 9, 0.6, seed=1), torch.randn(18, W, I)
    layer.executor = other.executor = executor
    layer(x)  # knows where its receivers' edges are
    layer.load_state_dict(other.state_dict())
    assert torch.equal(layer(x), other(x))


def test_a_node_inherits_edges_from_the_seats_that_its_parent_hears() -> None:
    layer = BlockSparseLinear(2, 3, 1, 1)
    layer.connect(torch.tensor([1, 2, 4]), torch.tensor([0, 1, 3]))  # in network 0: 1 -> 0, 2 -> 1; in 1: 1 -> 0
    layer.edges.data[:, 0, 0] = torch.tensor([1.0, 2.0, 3.0])
    rows = layer.inherit(torch.tensor([3, 1, 1, 3, -1, 0]))
    pairs = torch.stack([layer.senders, layer.receivers], 1).tolist()
    # Seat 2 of network 0 would hear itself, so it hears seat 1, where its parent sits.
    assert pairs == [[1, 0], [2, 1], [1, 2], [4, 3], [4, 5]]
    assert rows.tolist() == [2, 1, 1, 2, 0]
