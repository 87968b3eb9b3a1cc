"""Gradients that are made once for many steps are those that autograd makes in every one."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from torch import Tensor, nn

from popcomm.agents import PopulationGRUCell, PopulationLinear, PopulationLSTMCell
from popcomm.agents.deferred import KEPT_ROWS, MANY_ROWS, together
from popcomm.agents.message_encoder import lookup

P, R, H, L, V = 3, 5, 4, 2, 3
STEPS = 2 * KEPT_ROWS // R + 1  # sums are made in between, too


class Walker(nn.Module):
    """A network of all layers whose weights can be deferred; and one layer that no loss looks at."""

    def __init__(self, members: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.lstm = PopulationLSTMCell(members, 2 * H, H, generator=generator)
        self.gru = PopulationGRUCell(members, H, H, generator=generator)
        self.out = PopulationLinear(members, H, H, generator=generator)
        self.bare = PopulationLinear(members, H, H, bias=False, generator=generator)
        self.unseen = PopulationLinear(members, H, H, generator=generator)
        self.tables = nn.Parameter(torch.randn(members, L * V, H, generator=generator))
        self.double()

    def forward(self, seen: Tensor, said: Tensor) -> Tensor:
        """seen [T, P, R, H], said [T, P, R, L] -> [P, R, H], of the last step."""
        h = c = seen.new_zeros(seen.shape[1:])
        for x, message in zip(seen, said, strict=True):
            h, c = self.lstm((x, lookup(self.tables, message)), (h, c))
            h = h + self.bare(self.out(self.gru(h, c)))
            self.unseen(h)
        return h


def gradients(members: int, rows: int, steps: int, deferred: bool, times: int = 1) -> dict[str, Tensor | None]:
    walker, generator = Walker(members), torch.Generator().manual_seed(1)
    seen = torch.randn(steps, members, rows, H, generator=generator, dtype=torch.float64)
    said = torch.randint(V, (steps, members, rows, L), generator=generator)
    with together() if deferred else nullcontext():
        loss = walker(seen, said).square().sum()
    for time in range(times):
        loss.backward(retain_graph=time < times - 1)
    return {name: parameter.grad for name, parameter in walker.named_parameters()}


@pytest.mark.parametrize(("members", "rows", "steps"), [(P, R, STEPS), (P, R, 2), (P, MANY_ROWS, 2), (1, R, 3)])
def test_they_are_those_of_every_step(members: int, rows: int, steps: int) -> None:
    usual = gradients(members, rows, steps, deferred=False)
    for name, grad in gradients(members, rows, steps, deferred=True).items():
        assert (grad is None) == name.startswith("unseen"), name
        torch.testing.assert_close(grad, usual[name], rtol=1e-10, atol=1e-12, msg=name)


def test_a_second_backward_pass_adds_the_same_again() -> None:
    once, twice = gradients(P, R, STEPS, deferred=True), gradients(P, R, STEPS, deferred=True, times=2)
    for name, grad in twice.items():
        if grad is not None:
            torch.testing.assert_close(grad, 2 * once[name], rtol=1e-10, atol=1e-12, msg=name)


def test_outside_weights_go_their_usual_way() -> None:
    layer = PopulationLinear(P, H, H)
    with together():
        inside = layer(torch.zeros(P, R, H)).grad_fn
    outside = layer(torch.zeros(P, R, H)).grad_fn
    assert type(inside).__name__ == "_LinearBackward"
    assert type(outside).__name__ == "BaddbmmBackward0"
