"""What makes children differ from their parents: mutation, crossover, and hyper-parameters that are inherited."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from popcomm.evolution.generation import NOBODY, Floats, Ints

# Numbers drawn at a time; noise for all newborns at once would be as large as their weights.
CHUNK = 1 << 20


@torch.no_grad()
def mutate(
    tensor: Tensor, newborn: Tensor, std: float, generator: torch.Generator, whose: Tensor | None = None
) -> None:
    """Gaussian mutation, in place: w <- w + std s e, where e ~ N(0, 1) and s is the root mean square of the member's
    own numbers in this tensor, so that tensors of any scale move by the same share. A tensor of zeros stays.

    Args:
        tensor: [R, ...] float.
        newborn: [M] int64, the children.
        std: 0 changes no bit.
        generator: of e, on the tensor's device.
        whose: [R] int64, the member whose each row is; None: row p is member p's.
    """
    if std == 0 or not len(newborn) or not len(tensor):
        return
    if whose is not None and not torch.equal(whose, torch.arange(len(tensor), device=whose.device)):
        for child in newborn:  # who has as many rows as it has
            own = whose == child
            tensor[own] = _mutated(tensor[own].unsqueeze(0), std, generator).squeeze(0)
        return
    size = max(1, tensor[0].numel())
    for places in newborn.split(max(1, CHUNK // size)):
        tensor[places] = _mutated(tensor[places], std, generator)


def _mutated(rows: Tensor, std: float, generator: torch.Generator) -> Tensor:
    """rows: [M, ...], of a child each."""
    if not rows.numel():
        return rows
    flat = rows.reshape(len(rows), -1)
    scale = flat.square().mean(1).sqrt().mul_(std)
    noise = torch.empty_like(flat).normal_(generator=generator)
    return noise.mul_(scale.unsqueeze(1)).add_(flat).view_as(rows)


def mates_of(sources: Ints, rng: np.random.Generator, groups: int = 1) -> Ints:
    """A second parent for every child of one, [P] int64 places: drawn evenly from the other parents of its generation.

    NOBODY for those who live on or are made anew, and where there is no other parent.

    Args:
        sources: [P] int64, as `Strategy.select` returns.
        groups: equal groups of consecutive places, within which children have their parents.

    >>> mates_of(np.array([0, 0, 3, 3]), np.random.default_rng(0))
    array([-1,  3,  0, -1])
    """
    mates = np.full(len(sources), NOBODY)
    for places in np.arange(len(sources)).reshape(groups, -1):
        children = places[(sources[places] != places) & (sources[places] != NOBODY)]
        parents = np.unique(sources[children])
        if len(parents) < 2:
            continue
        own = np.searchsorted(parents, sources[children])
        drawn = rng.integers(len(parents) - 1, size=len(children))
        mates[children] = parents[drawn + (drawn >= own)]
    return mates


def taught_by_the_living(sources: Ints, fitness: Floats, rng: np.random.Generator, groups: int = 1) -> Ints:
    """What a strategy said, with a parent that lives on for every child that has one, [P] int64: a teacher stays.

    A child whose parent is replaced itself gets another: drawn evenly from the parents of its group that live on; where
    none of them does, the fittest of those who do; and where nobody lives on, the fittest parent does after all.

    Args:
        sources: [P] int64, as `Strategy.select` returns.
        fitness: [P] float64; nan where nothing is known.
        groups: equal groups of consecutive places, within which children have their parents.

    >>> taught_by_the_living(np.array([1, 2, 2, 2]), np.array([0.0, 2.0, 3.0, 1.0]), np.random.default_rng(0))
    array([2, 2, 2, 2])
    """
    result = sources.copy()
    worth = np.where(np.isnan(fitness), -np.inf, fitness)
    for places in np.arange(len(sources)).reshape(groups, -1):
        children = places[(result[places] != places) & (result[places] != NOBODY)]
        if not len(children):
            continue
        parents = np.unique(result[children])
        staying = places[result[places] == places]
        if not len(staying):
            staying = parents[[worth[parents].argmax()]]
            result[staying] = staying
        orphans = np.setdiff1d(children[~np.isin(result[children], staying)], staying)
        left = np.intersect1d(parents, staying)
        if not len(left):
            left = staying[[worth[staying].argmax()]]
        if len(orphans):
            result[orphans] = rng.choice(left, len(orphans))
    return result


def crossed(sources: Ints, mates: Ints, tensors: int, share: float, rng: np.random.Generator) -> NDArray[np.int64]:
    """From which place each tensor of each member comes: [tensors, P] int64.

    Uniform crossover of whole tensors: each tensor of a child with a mate is the mate's with probability `share`.

    >>> crossed(np.array([0, 0]), np.array([-1, -1]), 2, 0.5, np.random.default_rng(0))
    array([[0, 0],
           [0, 0]])
    """
    from_mate = (rng.random((tensors, len(sources))) < share) & (mates != NOBODY)
    return np.where(from_mate, mates, sources)


def inherited(
    values: Floats,
    sources: Ints,
    factor: float,
    bounds: tuple[float, float],
    rng: np.random.Generator,
    groups: int = 1,
) -> Floats:
    """A hyper-parameter of each member of the next generation, [P] float64.

    A child's is its parent's times `factor` or divided by it, as likely, within bounds (explore by perturbation:
    Jaderberg et al. 2017, Population Based Training, appendix A). Who lives on keeps its own, and who is made anew
    takes that of a member of its group drawn at random, unperturbed.

    Args:
        values: [P] float64, above 0.
        sources: [P] int64, as `Strategy.select` returns.
        factor: 1 or more; 1 perturbs nothing.
        bounds: lowest and highest value.
        groups: equal groups of consecutive places.
    """
    places, size = np.arange(len(values)), len(values) // groups
    drawn = places // size * size + rng.integers(size, size=len(values))
    origin = np.where(sources == NOBODY, drawn, sources)
    up = rng.random(len(values)) < 0.5
    child = (sources != places) & (sources != NOBODY)
    moved = values[origin] * np.where(child, np.where(up, factor, 1 / factor), 1.0)
    return np.where(child, np.clip(moved, *bounds), moved)
