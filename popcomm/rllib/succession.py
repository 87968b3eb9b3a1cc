"""Succession: what a selection decided, carried out in a learner and in a runner."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from ray.rllib.core.rl_module.rl_module import RLModule
from torch import Tensor, nn

from popcomm.evolution import NOBODY, crossed, mutate
from popcomm.evolution.generation import Ints
from popcomm.rllib.growth import has_members, inherit, owners_of
from popcomm.rllib.module import PopulationRLModule, scale_name


class Succession(NamedTuple):
    """The next generation of one species, the same for all learners and runners."""

    sources: Ints  # [P], the place from which each place is filled; its own: lives on; NOBODY: made anew
    mates: Ints  # [P], places of second parents; NOBODY: none
    fresh: bool  # children begin with weights made anew, too
    lessons: int  # iterations in which their parents teach them; 0: none
    mutation_std: float
    crossover: float  # share of the tensors that are a mate's
    scales: Mapping[str, NDArray[np.float64]]  # {hyper-parameter: [P]}, multiples of the setting, afterwards
    seed: int  # of all that is random in carrying it out

    @property
    def newborn(self) -> np.ndarray:
        """[P] bool, places of those who begin their lives."""
        return self.sources != np.arange(len(self.sources))

    @property
    def rows(self) -> Ints:
        """[P], where weights come from; NOBODY: they are made anew."""
        return np.where(self.newborn & self.fresh, NOBODY, self.sources)


@torch.no_grad()
def carry_out(succession: Succession, module: PopulationRLModule, optimizers: Sequence[torch.optim.Optimizer]) -> None:
    """Weights, the optimizers' moments and the statistics of returns go from parents to children; then mutation.

    Nothing is shared between members afterwards. Who lives on keeps every bit, and so does a child without crossover
    and mutation.

    Args:
        module: of the species, whose parameters are [P, ...], or have rows of which its agent's `owners()` says whose
            they are; what is no member's stays as it is.
        optimizers: of its parameters.
    """
    parameters = [parameter for parameter in module.parameters() if id(parameter) not in module.everybodys]
    rng = np.random.default_rng(succession.seed)
    origin = crossed(succession.rows, succession.mates, len(parameters), succession.crossover, rng)
    of_whom = {p: torch.from_numpy(rows) for p, rows in zip(parameters, origin, strict=True)}
    inherit(module, optimizers, torch.from_numpy(succession.rows), of_whom)
    made = torch.from_numpy(succession.rows == NOBODY)
    if bool(made.any()):
        _make_anew(module, made, succession.seed)
    children = torch.from_numpy(np.flatnonzero(succession.newborn & (succession.rows != NOBODY)))
    _enrol(succession, module)
    for key, scales in succession.scales.items():
        buffer = module.get_buffer(scale_name(key))
        buffer.copy_(torch.from_numpy(scales))
    owners = owners_of(module.agent)  # as they are after the inheritance
    for parameter in parameters:
        generator = torch.Generator(parameter.device)  # learners are on devices of one kind
        generator.manual_seed(int(rng.integers(2**63)))
        _mutate(parameter, owners.get(parameter), children.to(parameter.device), succession, generator)


def _mutate(
    parameter: nn.Parameter, owner: Tensor | None, children: Tensor, succession: Succession, generator: torch.Generator
) -> None:
    """Mutation of what is the children's. owner: [axis 0] int64, whose each row is; None: the axis is the members."""
    std, values = succession.mutation_std, parameter.data
    if owner is None:
        if has_members(parameter, len(succession.sources)):
            mutate(values, children, std, generator)
        return
    for child in children:
        rows = (owner == child).nonzero()[:, 0]
        if len(rows):
            own = values[rows].unsqueeze(0)  # a member's numbers are moved by a share of their size, all together
            mutate(own, torch.zeros(1, dtype=torch.int64, device=own.device), std, generator)
            values[rows] = own[0]


def _enrol(succession: Succession, module: PopulationRLModule) -> None:
    """Newborns of whom somebody is a parent are taught by it; lessons whose teacher was replaced end."""
    left = module.lessons_left
    if left is None:
        return
    newborn, sources = (torch.from_numpy(a).to(left.device) for a in (succession.newborn, succession.sources))
    gone = newborn[module.teacher] & ~newborn
    module.teacher.copy_(torch.where(newborn, sources.clamp(min=0), module.teacher))
    begins = torch.where(newborn & (sources != NOBODY), succession.lessons, 0)
    left.copy_(torch.where(newborn | gone, begins, left))


def _make_anew(module: PopulationRLModule, made: Tensor, seed: int) -> None:
    """Parameters and buffers of some members as a module begins with them. made: [P] bool.

    Rows that come and go are then as many as at the beginning, or are left as they were inherited: new ones.
    """
    fresh: Any = type(module)(**_arguments(module, seed))
    owners, kept = owners_of(module.agent), set(module.everybodys)
    if hasattr(module.agent, "inherit"):  # which moves its own buffers itself
        kept |= {id(buffer) for buffer in module.agent.buffers()}
    own = dict(module.named_parameters()) | dict(module.named_buffers())
    for name, values in (*fresh.named_parameters(), *fresh.named_buffers()):
        mine = own[name]
        if id(mine) in kept or values.shape != mine.shape:
            continue
        if mine in owners:
            where = made.to(mine.device)[owners[mine]]
        elif mine.ndim and len(mine) == len(made):
            where = made.to(mine.device)
        else:
            continue
        mine.data[where] = values.data.to(mine.device)[where]
    module.returns.begin_anew(made.to(module.returns.weight.device))


def _arguments(module: RLModule, seed: int) -> dict[str, Any]:
    """What another module of the same kind is made with, whose weights are a function of the seed."""
    return {
        "observation_space": module.observation_space,
        "action_space": module.action_space,
        "inference_only": module.inference_only,
        "model_config": {**module.model_config, "seed": seed},
        "catalog_class": None,
    }
