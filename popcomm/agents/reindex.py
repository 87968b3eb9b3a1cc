"""reindex: other rows on the first axis of a parameter and of its moments. Growth and selection both stand on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

# What Adam keeps of squared gradients, and divides by.
SECOND_MOMENTS = ("exp_avg_sq", "max_exp_avg_sq")


def reindex(optimizer: torch.optim.Optimizer | None, parameter: nn.Parameter, rows: Tensor | Sequence[int]) -> None:
    """Put other rows on axis 0 of a parameter [M, ...] and of its moments, which becomes [M', ...].

    The Parameter object stays and its `.data` is swapped, so whoever keeps it (RLlib's tables, the optimizer, a
    checkpoint) keeps the right one; its gradient, of the rows before, is dropped.

    A new row is zero, and so is its first moment. Its second moment is the mean over the rows that are kept: with zero
    it would move up to 6.5 times the learning rate in a step, for Adam's `step` is one number for all rows, and the
    correction of its bias is an old one's. Where no row is kept, or none has ever had a gradient, the optimizer
    forgets the parameter and begins anew with it.

    Args:
        optimizer: Adam, or another whose state of a parameter is tensors of its shape and scalars; None: there is none.
        parameter: with at least one axis.
        rows: [M'] int64, which row of before stands on each place, any of them any number of times; -1: a new one.

    Raises:
        IndexError: a row that there was not.
    """
    rows = torch.as_tensor(rows, dtype=torch.int64, device=parameter.device)
    before = parameter.shape
    _swap(parameter, take_rows(parameter.data, rows))
    state = {} if optimizer is None else optimizer.state.get(parameter, {})
    if optimizer is None or not state:
        return
    kept = rows[rows >= 0]
    of_rows = {key: value for key, value in state.items() if isinstance(value, Tensor) and value.shape == before}
    if not any(bool(value[kept].any()) for value in of_rows.values()):
        del optimizer.state[parameter]
        return
    for key, value in of_rows.items():
        new = float(value[kept].mean()) if key in SECOND_MOMENTS else 0.0
        state[key] = take_rows(value, rows, new)


def _swap(parameter: nn.Parameter, values: Tensor) -> None:
    """Other values for a parameter, of any size; its gradient goes.

    Of a change of size alone torch takes no notice: as long as a graph of before is alive, the gradient of the new
    values would be held against the old size. Of a change of the type it does, and looks anew.
    """
    parameter.grad = None
    other = torch.float32 if values.dtype == torch.float64 else torch.float64
    parameter.data = values.new_empty(0, dtype=other)
    parameter.data = values


def take_rows(values: Tensor, rows: Tensor, new: float = 0.0) -> Tensor:
    """Other rows on axis 0, in a copy. values [M, ...], rows [M'] int64 -> [M', ...]; where rows is -1: `new`.

    Raises:
        IndexError: a row that there is not.
    """
    count = values.shape[0]
    if rows.numel() and not (int(rows.min()) >= -1 and int(rows.max()) < count):
        raise IndexError(f"rows are {rows.tolist()}, and must be -1 (new) or 0 to {count - 1}")
    # The new row stands behind all others while they are chosen.
    row = values.new_full((1, *values.shape[1:]), new)
    return torch.cat([values, row]).index_select(0, torch.where(rows < 0, count, rows))


def take_sizes(module: nn.Module, names: Sequence[str], state_dict: Mapping[str, Any], prefix: str) -> None:
    """Give parameters and buffers of a module as many rows as a state has, so that it can be loaded.

    A module whose rows come and go calls it in its `_load_from_state_dict`, before torch's own: env runners then get
    its new rows with the weights, and a checkpoint is restored whatever has grown since.

    Args:
        names: of the module's own parameters and buffers; what the state lacks stays.
        state_dict, prefix: torch's arguments of `_load_from_state_dict`.
    """
    for name in names:
        given, own = state_dict.get(f"{prefix}{name}"), getattr(module, name)
        if given is None or len(given) == len(own):
            continue
        sized = own.data.new_zeros(len(given), *own.shape[1:])
        if isinstance(own, nn.Parameter):
            _swap(own, sized)
        else:
            setattr(module, name, sized)
