"""Weights whose gradient is made once for many steps, and not in every one.

Where many members have few rows each, an unroll reads and writes weights more than it computes. The gradient of a
weight costs most of that: every step writes one as large as the weight, and adds it to what there is. Inside of
`together()` a step only keeps what its gradient is made of, inputs and gradients of outputs, and the sum over the steps
is one batched product in the end.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

# Rows of a member in a step from which a product is more work than the weights that it writes.
MANY_ROWS = 64
# Rows of a member that are kept at most before a sum is made: what is kept stays a few times the weights.
KEPT_ROWS = 64


class Products:
    """The gradients of a weight [P, in, out], and of its bias [P, out], as sums over steps."""

    def __init__(self, biased: bool) -> None:
        self.biased, self.parts, self.rows = biased, list[tuple[Tensor, Tensor]](), 0
        self.weight: Tensor | None = None
        self.bias: Tensor | None = None

    def add(self, x: Tensor, grad: Tensor) -> None:
        """x [P, R, in], grad [P, R, out], of one step."""
        self.parts.append((x, grad))
        self.rows += grad.shape[1]
        if self.rows >= KEPT_ROWS:
            self._sum_up()

    def read(self) -> tuple[Tensor | None, Tensor | None]:
        """What came together; it begins anew. None where nothing did."""
        self._sum_up()
        weight, bias, self.weight, self.bias = self.weight, self.bias, None, None
        return weight, bias

    def _sum_up(self) -> None:
        if not self.parts:
            return
        x, grad = (parts[0] if len(parts) == 1 else torch.cat(parts, 1) for parts in zip(*self.parts, strict=True))
        self.parts, self.rows = [], 0
        self.weight = torch.bmm(x.mT, grad) if self.weight is None else self.weight.baddbmm_(x.mT, grad)
        if self.biased:
            bias = grad.sum(1)
            self.bias = bias if self.bias is None else self.bias.add_(bias)


class Lookups:
    """The gradient of tables [P, rows, H] whose rows are looked up, as a sum over steps."""

    biased = False

    def __init__(self, shape: torch.Size) -> None:
        self.shape = shape
        self.tables: Tensor | None = None

    def add(self, rows: Tensor, grad: Tensor, weights: Tensor | None) -> None:
        """rows [R, L] int64 in the tables of all members, grad [R, H], weights [R, L] or None, of one step."""
        if self.tables is None:
            self.tables = grad.new_zeros(self.shape)
        add_rows(self.tables.flatten(0, 1), rows, grad, weights)

    def read(self) -> tuple[Tensor | None, None]:
        """What came together; it begins anew. None where nothing did."""
        tables, self.tables = self.tables, None
        return tables, None


def add_rows(tables: Tensor, rows: Tensor, grad: Tensor, weights: Tensor | None) -> None:
    """Add grad [R, H] to the rows of tables [all, H] that it was looked up in: rows [R, L], weights [R, L] or None."""
    # One pass per position reads `grad` as it lies; a single pass would first copy it L times.
    for place, position in enumerate(rows.t()):
        tables.index_add_(0, position, grad if weights is None else grad * weights[:, place, None])


class _Together(torch.autograd.Function):
    """Weights as they are; their gradient is what was collected when all that was made of them has told its part."""

    @staticmethod
    def forward(ctx: Any, collected: Products | Lookups, *weights: Tensor) -> tuple[Tensor, ...]:
        ctx.collected, ctx.count = collected, len(weights)
        ctx.set_materialize_grads(False)
        return tuple(weight.detach() for weight in weights)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *nothing: None) -> tuple[Tensor | None, ...]:
        return (None, *ctx.collected.read()[: ctx.count])


class _Linear(torch.autograd.Function):
    """x [P, R, in] with weight [P, in, out], and bias [P, out] or None, which tell `products` their gradients."""

    @staticmethod
    def forward(ctx: Any, products: Products, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.products = products
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, weight)
        return torch.bmm(x, weight) if bias is None else torch.baddbmm(bias.unsqueeze(1), x, weight)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor | None) -> tuple[Tensor | None, ...]:
        if grad is None:
            return None, None, None, None
        x, weight = ctx.saved_tensors
        ctx.products.add(x, grad)
        return None, torch.bmm(grad, weight.mT) if ctx.needs_input_grad[1] else None, None, None


class Deferral:
    """The weights of an unroll, each once in its graph."""

    def __init__(self) -> None:
        # The weights themselves are kept, so that nothing else gets their numbers.
        self._known: dict[int, tuple[Any, tuple[Tensor, ...], Sequence[Tensor]]] = {}

    def products(self, weight: Tensor, bias: Tensor | None = None) -> tuple[Products, tuple[Tensor, ...]]:
        """Whom to tell of a weight's gradient, and what stands in the graph for the weight (and the bias)."""
        return self._of(weight, () if bias is None else (bias,), lambda: Products(bias is not None))

    def lookups(self, tables: Tensor) -> tuple[Lookups, tuple[Tensor, ...]]:
        """The same for tables."""
        return self._of(tables, (), lambda: Lookups(tables.shape))

    def _of(self, weight: Tensor, more: tuple[Tensor, ...], make: Any) -> tuple[Any, tuple[Tensor, ...]]:
        if id(weight) not in self._known:
            collected = make()
            self._known[id(weight)] = collected, _Together.apply(collected, weight, *more), (weight, *more)
        return self._known[id(weight)][:2]


_now: Deferral | None = None


@contextmanager
def together() -> Iterator[None]:
    """Weights that are used in here have their gradient made once, where members are many and their rows are few."""
    global _now
    before, _now = _now, Deferral()
    try:
        yield
    finally:
        _now = before


def deferral(weight: Tensor, rows: int = 0) -> Deferral | None:
    """Whom to ask for a weight [P, ...] that meets so many rows of each member; None: it goes its usual way."""
    if _now is None or rows >= MANY_ROWS or torch.compiler.is_compiling():
        return None
    wanted = torch.is_grad_enabled() and weight.requires_grad and weight.is_leaf
    # What products in bfloat16 are made of is autograd's to know.
    return _now if wanted and not torch.is_autocast_enabled(weight.device.type) else None


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor | None:
    """x [P, R, in] -> [P, R, out]; None where nothing is deferred."""
    now = None if weight.size(0) == 1 else deferral(weight, x.size(1))
    if now is None:
        return None
    products, proxies = now.products(weight, bias)
    return _Linear.apply(products, x, proxies[0], proxies[1] if bias is not None else None)
