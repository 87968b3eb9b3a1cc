"""Torch's Adam, without what it loads."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch

# Torch guards these methods against its compiler, and loads it (1.4 CPU seconds of a process) for that. Nobody compiles
# an optimizer here, so that what is behind the guards will do.
_add_param_group = inspect.unwrap(torch.optim.Adam.add_param_group)
_zero_grad = inspect.unwrap(torch.optim.Adam.zero_grad)
_step = inspect.unwrap(torch.optim.Adam.step)


class Adam(torch.optim.Adam):
    """`torch.optim.Adam`, number for number and with its states; making one and its steps load no compiler."""

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        _add_param_group(self, param_group)

    def zero_grad(self, set_to_none: bool = True) -> None:
        _zero_grad(self, set_to_none)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        return _step(self, closure)
