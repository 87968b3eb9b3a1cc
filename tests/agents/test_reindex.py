"""Rows of a parameter that are chosen anew: moments go with them, new rows do not jump, whoever keeps it goes on."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from popcomm.agents.reindex import reindex, take_rows, take_sizes

SHAPE = (3, 2, 4)


def adam(parameter: nn.Parameter, **settings: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam([parameter], **({"lr": 0.1, "fused": True} | settings))


def weights(*shape: int, seed: int = 0) -> nn.Parameter:
    return nn.Parameter(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)))


def train(optimizer: torch.optim.Optimizer, parameter: nn.Parameter, gradients: torch.Tensor) -> None:
    """One step for every gradient [steps, *shape]."""
    for gradient in gradients:
        parameter.grad = gradient.clone()
        optimizer.step()


def random(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def moments(optimizer: torch.optim.Optimizer, parameter: nn.Parameter) -> dict[str, torch.Tensor]:
    return {key: value for key, value in optimizer.state[parameter].items() if value.ndim}


@pytest.mark.parametrize("amsgrad", [False, True])
def test_rows_and_their_moments_are_copied_bit_for_bit(amsgrad: bool) -> None:
    parameter = weights(*SHAPE)
    optimizer = adam(parameter, amsgrad=amsgrad)
    train(optimizer, parameter, random(5, *SHAPE))
    before, known = parameter.detach().clone(), {k: v.clone() for k, v in moments(optimizer, parameter).items()}
    reindex(optimizer, parameter, [2, 0, 2, 1, 0])
    assert torch.equal(parameter, before[[2, 0, 2, 1, 0]])
    assert len(known) == 2 + amsgrad
    for key, value in moments(optimizer, parameter).items():
        assert torch.equal(value, known[key][[2, 0, 2, 1, 0]])
    assert parameter.grad is None


def test_chosen_rows_learn_as_they_would_have_learned() -> None:
    """The optimizer keeps its one Parameter, and goes on with rows that were swapped, dropped and doubled."""
    chosen = [2, 0, 0]
    parameter, other = weights(*SHAPE), weights(*SHAPE)
    optimizer, reference = adam(parameter), adam(other)
    for p, o in ((parameter, optimizer), (other, reference)):
        train(o, p, random(3, *SHAPE))
    reindex(optimizer, parameter, chosen)
    assert optimizer.param_groups[0]["params"][0] is parameter
    assert list(optimizer.state) == [parameter]
    later = random(4, *SHAPE, seed=2)
    train(optimizer, parameter, later[:, chosen])
    train(reference, other, later)
    assert torch.equal(parameter, other[chosen])


def test_new_rows_are_zero_and_move_no_further_than_the_learning_rate_in_a_step() -> None:
    """With a second moment of zero Adam's old bias correction would let them move 6.5 times as far."""
    parameter = weights(*SHAPE)
    optimizer = adam(parameter)
    signs = torch.ones(300, *SHAPE)
    train(optimizer, parameter, signs)
    reindex(optimizer, parameter, [0, -1, 2, -1])
    assert not parameter[[1, 3]].any()
    largest, before = 0.0, parameter.detach().clone()
    for gradient in torch.ones(30, 4, 2, 4):
        train(optimizer, parameter, gradient[None])
        largest = max(largest, float((parameter.detach() - before)[[1, 3]].abs().max()))
        before = parameter.detach().clone()
    assert 0.05 < largest < 0.101


def test_the_second_moment_of_a_new_row_is_the_mean_of_the_rows_that_are_kept() -> None:
    parameter = nn.Parameter(torch.zeros(3, 2))
    optimizer = adam(parameter, betas=(0.0, 0.5))
    train(optimizer, parameter, torch.tensor([[[1.0, 3.0], [100.0, 100.0], [2.0, 0.0]]]))
    reindex(optimizer, parameter, [2, -1, 0])
    assert optimizer.state[parameter]["exp_avg_sq"].tolist() == [[2.0, 0.0], [1.75, 1.75], [0.5, 4.5]]
    assert optimizer.state[parameter]["exp_avg"].tolist() == [[2.0, 0.0], [0.0, 0.0], [1.0, 3.0]]


@pytest.mark.parametrize("start", [0, 2])
def test_a_parameter_of_which_no_row_is_kept_begins_anew(start: int) -> None:
    """Its first step is the learning rate: nothing of a parameter without rows could say how large others' are."""
    parameter = weights(start, 4)
    optimizer = adam(parameter)
    train(optimizer, parameter, random(50, start, 4))
    reindex(optimizer, parameter, [-1, -1, -1])
    train(optimizer, parameter, random(1, 3, 4))
    assert parameter.abs().flatten().tolist() == pytest.approx([0.1] * 12, rel=1e-4)


def test_rows_that_never_had_a_gradient_tell_nothing_of_new_ones() -> None:
    parameter = weights(2, 3)
    optimizer = adam(parameter)
    train(optimizer, parameter, torch.zeros(40, 2, 3))
    reindex(optimizer, parameter, [0, 1, -1])
    train(optimizer, parameter, torch.ones(1, 3, 3))
    assert parameter[2].tolist() == pytest.approx([-0.1] * 3, rel=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_graph_of_before_does_not_hold_new_rows_to_the_old_size(dtype: torch.dtype) -> None:
    parameter = nn.Parameter(torch.ones(2, 3, dtype=dtype))
    kept = (parameter * 2).sum()
    reindex(None, parameter, [0, 1, -1])
    (parameter * 3).sum().backward()
    assert parameter.grad is not None
    assert parameter.grad.tolist() == [[3.0] * 3] * 3
    assert kept.item() == 12


def test_all_rows_can_go() -> None:
    parameter = weights(2, 3)
    optimizer = adam(parameter)
    train(optimizer, parameter, random(2, 2, 3))
    reindex(optimizer, parameter, [])
    assert parameter.shape == (0, 3)
    train(optimizer, parameter, random(2, 0, 3))


def test_the_optimizers_state_goes_through_a_checkpoint() -> None:
    parameter = weights(*SHAPE)
    optimizer = adam(parameter)
    train(optimizer, parameter, random(3, *SHAPE))
    reindex(optimizer, parameter, [1, -1, 0, 2])
    restored = nn.Parameter(parameter.detach().clone())
    other = adam(restored)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for p, o in ((parameter, optimizer), (restored, other)):
        train(o, p, random(3, 4, 2, 4, seed=3))
    assert torch.equal(parameter, restored)


def test_without_an_optimizer_and_before_its_first_step_only_the_rows_change() -> None:
    parameter = weights(*SHAPE)
    before = parameter.detach().clone()
    reindex(None, parameter, torch.tensor([1, 1]))
    reindex(adam(parameter), parameter, [0])
    assert torch.equal(parameter, before[[1]])


@pytest.mark.parametrize("rows", [[0, 3], [-2]])
def test_a_row_that_there_is_not_is_refused_and_nothing_changes(rows: list[int]) -> None:
    parameter = weights(*SHAPE)
    before = parameter.detach().clone()
    with pytest.raises(IndexError, match=r"must be -1 \(new\) or 0 to 2"):
        reindex(None, parameter, rows)
    assert torch.equal(parameter, before)


def test_whole_numbers_and_flags_are_chosen_too() -> None:
    assert take_rows(torch.tensor([5, 6]), torch.tensor([1, -1])).tolist() == [6, 0]
    assert take_rows(torch.tensor([True, True]), torch.tensor([-1, 0])).tolist() == [False, True]


class Edges(nn.Module):
    """Weights [E, 2] from sources [E], as a layer that grows has them; `fixed` keeps its size."""

    def __init__(self, edges: int) -> None:
        super().__init__()
        self.weight, self.fixed = nn.Parameter(torch.zeros(edges, 2)), nn.Parameter(torch.zeros(3))
        self.register_buffer("sources", torch.zeros(edges, dtype=torch.int64))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        take_sizes(self, ("weight", "sources"), state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args)


@pytest.mark.parametrize("edges", [0, 1, 5])
def test_a_layer_takes_the_number_of_its_rows_from_the_weights_that_it_is_given(edges: int) -> None:
    grown, layer = nn.Sequential(Edges(edges)), nn.Sequential(Edges(2))
    with torch.no_grad():
        grown[0].weight.add_(random(edges, 2))
        grown[0].sources.add_(7)
    parameter = layer[0].weight
    layer.load_state_dict(grown.state_dict())
    assert layer[0].weight is parameter
    for name, value in grown.state_dict().items():
        assert torch.equal(layer.state_dict()[name], value)


def test_what_does_not_grow_must_fit_as_ever() -> None:
    state = Edges(2).state_dict() | {"fixed": torch.zeros(4)}
    with pytest.raises(RuntimeError, match="size mismatch for fixed"):
        Edges(1).load_state_dict(state)
