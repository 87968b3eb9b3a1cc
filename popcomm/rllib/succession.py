"""Succession: what a selection decided, carried out in a learner and in a runner."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from ray.rllib.core.rl_module.rl_module import RLModule
from torch import Tensor

from popcomm.evolution import NOBODY, crossed, mutate
from popcomm.evolution.diversity import of_weights
from popcomm.evolution.generation import Ints
from popcomm.rllib.growth import has_members, inherit, own_buffers, owners_of, rows_of_members
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
        module: of the species; what is nobody's own stays.
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
    whose = rows_of_members(module, len(made))
    for parameter in parameters:
        generator = torch.Generator(parameter.device)  # learners are on devices of one kind
        generator.manual_seed(int(rng.integers(2**63)))
        if parameter in whose:
            mutate(parameter.data, children.to(parameter.device), succession.mutation_std, generator, whose[parameter])


def weight_diversity(module: PopulationRLModule) -> float:
    """How much the weights of the members' networks differ (`popcomm.evolution.diversity.of_weights`); of those alone
    of which each has as many."""
    members, owners, own = module.spec.members, owners_of(module.agent), []
    for parameter in module.agent.parameters():
        if parameter not in owners and has_members(parameter, members):
            own.append(parameter)
        elif parameter in owners and len(set(torch.bincount(owners[parameter], minlength=members).tolist())) == 1:
            own.append(parameter[owners[parameter].argsort(stable=True)].reshape(members, -1))
    return of_weights(own)


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
    """Parameters and buffers of some members as a module begins with them. made: [P] bool."""
    fresh: Any = type(module)(**_arguments(module, seed))
    mine, theirs, own = rows_of_members(module, len(made)), rows_of_members(fresh, len(made)), module.get_parameter
    for name, values in fresh.named_parameters():
        if own(name) in mine and values in theirs:
            new = values.data[_of(made, theirs[values], values.device)]
            own(name).data[_of(made, mine[own(name)], own(name).device)] = new.to(own(name).device)
    buffers = own_buffers(module, len(made))
    for name, values in own_buffers(fresh, len(made)).items():
        where = made.to(buffers[name].device)
        buffers[name][where] = values.to(where.device)[where]
    module.returns.begin_anew(made.to(module.returns.weight.device))


def _of(members: Tensor, whose: Tensor | None, device: torch.device) -> Tensor:
    """[axis 0] bool, the rows of some members. members: [P] bool; whose: as in `rows_of_members`."""
    members = members.to(device)
    return members if whose is None else members[whose]


def _arguments(module: RLModule, seed: int) -> dict[str, Any]:
    """What another module of the same kind is made with, whose weights are a function of the seed."""
    return {
        "observation_space": module.observation_space,
        "action_space": module.action_space,
        "inference_only": module.inference_only,
        "model_config": {**module.model_config, "seed": seed},
        "catalog_class": None,
    }
