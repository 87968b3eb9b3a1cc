"""How many steps scripted predators need in predator_prey_v0: the lines that learned ones are held against.

A script is a function of the world that returns actions [B, N] int64; some remember, and are made anew for each world.
Without talk predators do not influence one another, so what is expected of them is exact (`references`); of those who
tell one another what they see it is measured (`played`). Steps at the three levels:

| level | random | silent | together | oracle |
| --- | --- | --- | --- | --- |
| easy | 19.8 | 14.0 | 9.1 | 4.7 |
| medium | 40.0 | 23.3 | 13.3 | 10.4 |
| hard | 80.0 | 64.2 | 29.7 | 23.1 |
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from popcomm.envs.predator_prey_v0 import DOWN, LEFT, MOVES, NAME, RIGHT, STAY, UP, PredatorPreyWorld, next_cells

Script = Callable[[PredatorPreyWorld], Tensor]


class References(NamedTuple):
    """Expected steps until all are at the prey, max_steps where they are not (the metric "steps")."""

    random: float  # even chances for the five moves
    silent: float  # all sweep the field on one and the same spiral from its middle, and go to the prey when they see it
    oracle: float  # all know from the start where the prey is: nothing better is possible


class Played(NamedTuple):
    """The world's metrics over one episode of each of its fields, and the standard error of `steps`."""

    steps: float
    success: float
    error: float


def references(world: PredatorPreyWorld) -> References:
    """The expected steps of silent scripts in such a world (exact; some seconds at the level "hard").

    With h(c, s, t) the probability that a predator from cell s is at prey in cell c after t steps, and M = S^2 - 1
    cells left to start from, all N are there after t steps with probability e_N(h(c, ., t)) / binomial(M, N), e_N the
    elementary symmetric polynomial, since their cells are drawn without replacement and they do not influence one
    another. The steps expected are the sum of 1 - that over t = 0 ... max_steps - 1, averaged over c.
    """
    distances = _distances(world.size)
    found = _found_on(spiral_paths(world), world.vision, world.size)
    return References(
        _expected(_random_chances(world.size), world),
        _expected((found <= t for t in range(world.max_steps)), world),
        _expected((distances <= t for t in range(world.max_steps)), world),
    )


def randomly(seed: int = 0) -> Script:
    """Even chances for the five moves."""
    generator = torch.Generator().manual_seed(seed)
    return lambda world: torch.randint(5, (world.num_worlds, world.num_agents), generator=generator).to(world.device)


def to_the_prey(world: PredatorPreyWorld) -> Tensor:
    """What those do who know where the prey is."""
    prey, cells = world.here()
    return toward(cells, prey.unsqueeze(-1).expand_as(cells), world.size)


def alone(world: PredatorPreyWorld) -> Script:
    """The script of `References.silent`: along `spiral_paths`, and to the prey when it is seen."""
    paths = torch.from_numpy(spiral_paths(world)).to(world.device)
    starts = torch.zeros(world.num_worlds, world.num_agents, dtype=torch.int64, device=world.device)
    ages = torch.zeros_like(starts)

    def script(world: PredatorPreyWorld) -> Tensor:
        prey, cells = world.here()
        opening, sees = _opening_and_sees(world)
        starts.copy_(torch.where(opening, cells, starts))
        ages.add_(1).masked_fill_(opening, 0).clamp_(max=world.max_steps - 1)
        goal = torch.where(sees, prey.unsqueeze(-1), paths[starts, ages + 1])
        return toward(cells, goal, world.size)

    return script


def together(world: PredatorPreyWorld) -> Script:
    """What talk by a symbol for each cell allows those who remember.

    All know which cells were in anybody's view. Each, in the order of seats, goes to the cell nearest to it that was
    not and that none before it goes to; from the step on that follows one in which prey is seen, all go there.
    """
    unseen = torch.ones(world.num_worlds, world.size**2, dtype=torch.bool, device=world.device)
    told = torch.zeros(world.num_worlds, 1, dtype=torch.bool, device=world.device)
    apart, far = torch.from_numpy(_distances(world.size)).to(world.device), 4 * world.size
    lines = torch.stack((torch.arange(world.size**2) // world.size, torch.arange(world.size**2) % world.size))
    views = ((lines[:, :, None] - lines[:, None]).abs().amax(0) <= world.vision).to(world.device)

    def script(world: PredatorPreyWorld) -> Tensor:
        prey, cells = world.here()
        opening, sees = _opening_and_sees(world)
        unseen.logical_or_(opening)
        told.logical_and_(~opening)
        unseen.logical_and_(~views[cells].any(1))
        claimed, goals = torch.zeros_like(unseen), []
        for own in cells.unbind(1):
            cost = apart[own] + far * ((~unseen).long() + claimed)
            goals.append(cost.argmin(1, keepdim=True))
            claimed |= apart[goals[-1].squeeze(1)] <= world.vision
        goal = torch.where(sees | told, prey.unsqueeze(-1), torch.cat(goals, 1))
        told.logical_or_(sees.any(1, keepdim=True))
        return toward(cells, goal, world.size)

    return script


def _opening_and_sees(world: PredatorPreyWorld) -> tuple[Tensor, Tensor]:
    """[B, 1] bool, fields whose episode opens; [B, N] bool, who sees the prey."""
    step = world._last
    assert step is not None
    assert step.labels is not None
    return step.first.any(-1, keepdim=True), step.labels >= 0


def played(world: PredatorPreyWorld, script: Script, seed: int = 0) -> Played:
    """One episode of every field under a script; the world is reset."""
    world.reset(seed)
    steps = torch.zeros(world.num_worlds, device=world.device)
    running = torch.ones_like(steps, dtype=torch.bool)
    reached = ~running
    for _ in range(world.max_steps):
        steps += running & ~reached
        step = world.step({NAME: script(world)})
        reached |= running & world.at_prey().all(1)
        running &= step.alive.any(1)
    return Played(steps.mean().item(), reached.float().mean().item(), steps.std().item() / world.num_worlds**0.5)


def toward(cells: Tensor, goals: Tensor, size: int) -> Tensor:
    """The move from each cell to its goal, rows first; both [...] int64."""
    down, right = goals // size - cells // size, goals % size - cells % size
    across = torch.where(right > 0, RIGHT, torch.where(right < 0, LEFT, STAY))
    return torch.where(down > 0, DOWN, torch.where(down < 0, UP, across))


def spiral(size: int, vision: int) -> list[int]:
    """Cells of a walk from the middle outwards, from which every cell of the field comes into view.

    It is a square spiral whose arms lie 2 vision + 1 cells apart, held within the cells from which the border is seen.

    >>> spiral(3, 0)
    [4, 5, 8, 7, 6, 3, 0, 1, 2]
    """
    pitch, low, high = 2 * vision + 1, min(vision, (size - 1) // 2), max(size - 1 - vision, size // 2)
    row = column = (size - 1) // 2
    walk, unseen = [row * size + column], np.ones((size, size), bool)
    unseen[max(row - vision, 0) : row + vision + 1, max(column - vision, 0) : column + vision + 1] = False
    arm = 0
    while unseen.any():
        down, right = MOVES[(RIGHT, DOWN, LEFT, UP)[arm % 4]]
        for _ in range((arm // 2 + 1) * pitch):
            row, column = min(max(row + down, low), high), min(max(column + right, low), high)
            if row * size + column != walk[-1]:
                walk.append(row * size + column)
            unseen[max(row - vision, 0) : row + vision + 1, max(column - vision, 0) : column + vision + 1] = False
            if not unseen.any():
                break
        arm += 1
    return walk


def spiral_paths(world: PredatorPreyWorld) -> np.ndarray:
    """[S * S, max_steps + 1] int64: where who starts in each cell, and sees no prey, is after each step."""
    tour = torch.tensor(spiral(world.size, world.vision))
    cells, entered = torch.arange(world.size**2), torch.zeros(world.size**2, dtype=torch.int64)
    path = [cells]
    for _ in range(world.max_steps):
        entered = (entered + (cells == tour[entered])) % len(tour)
        cells = next_cells(world.size)[cells, toward(cells, tour[entered], world.size)]
        path.append(cells)
    return torch.stack(path, 1).numpy()


def _distances(size: int) -> np.ndarray:
    """[S * S, S * S] int64, steps from each cell to each other."""
    rows, columns = np.divmod(np.arange(size**2), size)
    return np.abs(rows[:, None] - rows) + np.abs(columns[:, None] - columns)


def _found_on(paths: np.ndarray, vision: int, size: int) -> np.ndarray:
    """[prey's cell, first cell], the step that brings a predator to the prey; beyond all where it never sees it."""
    rows, columns = np.divmod(np.arange(size**2), size)
    found = np.full((size**2, size**2), paths.shape[1] + 2 * size)
    for t in reversed(range(paths.shape[1])):
        down, right = np.abs(rows[:, None] - rows[paths[:, t]]), np.abs(columns[:, None] - columns[paths[:, t]])
        found = np.where(np.maximum(down, right) <= vision, t + down + right, found)
    return found


def _random_chances(size: int) -> Iterator[np.ndarray]:
    """[prey's cell, first cell] after 0, 1, ... steps: the probability that a random walk has come to the prey."""
    chances, moves = np.eye(size**2), next_cells(size).numpy()
    while True:
        yield chances
        # The first step leads to a neighbour, and from there one step less is left.
        chances = np.mean([chances[:, moves[:, move]] for move in range(len(MOVES))], 0)
        np.fill_diagonal(chances, 1.0)


def _expected(chances: Iterable[np.ndarray], world: PredatorPreyWorld) -> float:
    """Expected steps; `chances` are [prey's cell, first cell] after t = 0, 1, ... steps: to be at the prey by then."""
    starts = ~np.eye(world.size**2, dtype=bool)
    late = 0.0
    for h in islice(chances, world.max_steps):
        late += 1.0 - _all_of(h[starts].reshape(world.size**2, -1).astype(float), world.num_agents).mean()
    return float(late)


def _all_of(chances: np.ndarray, drawn: int) -> np.ndarray:
    """[C, M] -> [C]: the mean over all choices of `drawn` of the M columns of the product of their chances."""
    # sums[k]: elementary symmetric polynomial of degree k of the columns so far.
    sums = np.zeros((drawn + 1, len(chances)))
    sums[0] = 1.0
    for column in chances.T:
        sums[1:] += sums[:-1] * column
    return sums[drawn] / math.comb(chances.shape[1], drawn)
