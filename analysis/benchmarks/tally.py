"""Tally: how much work a contender does, so that unequal work cannot pass for speed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from popcomm.analysis.benchmarks.common import Measurement, Work
from torch.optim.optimizer import register_optimizer_step_post_hook

ALIKE = 1.1  # optimizer steps of contenders that differ by more are not the same work


@dataclass
class Tally:
    """What was done while it counted.

    Attributes:
        rows: samples that gradients were taken of, each as often as it was.
        padded: rows besides that were computed, and did not count.
    """

    rows: float = 0
    padded: float = 0
    _stepped: float = 0
    _weights: dict[int, int] = field(default_factory=dict)

    @property
    def steps(self) -> float:
        """Optimizer steps of each weight: 32 networks with an optimizer each do not count as 32 times as many."""
        return self._stepped / max(1, sum(self._weights.values()))

    def _step(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        for group in optimizer.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._stepped += weight.numel()
                    self._weights[id(weight)] = weight.numel()


@dataclass(frozen=True)
class Contender:
    """Work that can be measured, and a way to count the rows that it learns from.

    Attributes:
        work: one iteration; returns how much was done, in agent-steps for instance.
        watch: has the rows of an iteration counted into a tally until the context ends.
    """

    work: Work
    watch: Callable[[Tally], Any]


def account(contender: Contender) -> tuple[Tally, int]:
    """One iteration, counted; and how much work it was."""
    tally = Tally()
    hook = register_optimizer_step_post_hook(tally._step)
    try:
        with contender.watch(tally):
            done = contender.work()
    finally:
        hook.remove()
    return tally, done


def accounts(benchmark: str, case: str, contenders: dict[str, Contender], per: str) -> list[Measurement]:
    """What each contender does in an iteration, and whether it is the same.

    Args:
        per: the unit of work, "agent-step" for instance; rows are given for one of them.
    """
    results, steps = [], []
    for name, contender in contenders.items():
        tally, done = account(contender)
        steps.append(tally.steps / done)
        results += [
            Measurement(benchmark, f"{case}: {name}: optimizer steps", tally.steps, "an iteration"),
            Measurement(benchmark, f"{case}: {name}: rows", tally.rows / done, f"/ {per}"),
            Measurement(benchmark, f"{case}: {name}: padded rows", tally.padded / done, f"/ {per}"),
        ]
    unequal = max(steps) / min(steps)
    name = f"{case}: optimizer steps / {per}, most / fewest"
    return [*results, Measurement(benchmark, name, unequal, "times", ALIKE, at_most=True)]


@contextmanager
def calls_of(target: Any, name: str, before: Callable[..., None]) -> Iterator[None]:
    """Within, `before` is called with the arguments of a method of `target` each time before the method is."""
    method = getattr(target, name)

    def watched(*args: Any, **kwargs: Any) -> Any:
        before(*args, **kwargs)
        return method(*args, **kwargs)

    setattr(target, name, watched)
    try:
        yield
    finally:
        delattr(target, name)
