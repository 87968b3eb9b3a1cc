"""The learners together: how many there are, and what they sum up and agree on."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.distributed
from torch import Tensor, nn

from popcomm.rllib.ppo import Reduce, same


def learners_together() -> int:
    """How many there are."""
    return torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1


def rank() -> int:
    """Which of them this one is."""
    return torch.distributed.get_rank() if learners_together() > 1 else 0


def summed(values: Tensor) -> Tensor:
    """The sum over all of them, in place."""
    if learners_together() > 1:
        torch.distributed.all_reduce(values)
    return values


def reduction() -> Reduce:
    """The same as a function; of one learner alone `ppo.same`, by which losses know that there is one."""
    return summed if learners_together() > 1 else same


def fewest(count: int, device: torch.device | str) -> int:
    """The smallest of their counts."""
    if learners_together() == 1:
        return count
    smallest = torch.tensor(count, device=device)
    torch.distributed.all_reduce(smallest, torch.distributed.ReduceOp.MIN)
    return int(smallest)


def take_from_the_first(networks: Iterable[nn.Module]) -> None:
    """Weights and buffers of all become those of rank 0."""
    if learners_together() > 1:
        for network in networks:
            for tensor in network.state_dict().values():
                torch.distributed.broadcast(tensor, 0)
