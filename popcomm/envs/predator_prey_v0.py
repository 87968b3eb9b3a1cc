"""predator_prey_v0: predators that see next to nothing look for prey that does not move, and all must come to it.

The predator-prey task of IC3Net (Singh, Jain & Sukhbaatar 2019, section 4.2), at its three levels.
`python -m popcomm.envs.predator_prey_v0 [FILE.png]` draws a hunt.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from pettingzoo import AECEnv
from torch import Tensor

from popcomm.checks import count, true_or_false
from popcomm.envs.episodic_world import EpisodicWorld
from popcomm.envs.world import Species
from popcomm.envs.world_parallel import WorldParallelEnv, turn_based, turn_based_raw
from popcomm.errors import UserError, unknown

NAME = "predator"
UP, DOWN, LEFT, RIGHT, STAY = range(5)
MOVES = ((-1, 0), (1, 0), (0, -1), (0, 1), (0, 0))  # (rows, columns) of each action; row 0 is the upmost
STEP_REWARD, PREY_REWARD = -0.05, 0.05
MODES = ("cooperative", "mixed", "competitive")
WHOLE_CELLS = 9  # on larger grids a cell is told by its row and its column
LABEL_GRID = 5  # labels are cells of a 5 x 5 grid over the field


class Level(NamedTuple):
    """A row of IC3Net's table of levels."""

    size: int  # S, cells along a side
    num_agents: int  # N
    max_steps: int
    vision: int


LEVELS = {"easy": Level(5, 3, 20, 0), "medium": Level(10, 5, 40, 1), "hard": Level(20, 10, 80, 1)}


class PredatorPreyWorld(EpisodicWorld):
    """B square fields of S x S cells, each with N predators and one prey; several predators may share a cell.

    An episode opens with the prey and the predators in different cells, drawn evenly. In each step a predator moves to
    the cell above, below, left or right, or stays: Discrete(5), in this order. At the border it stays, and so it does
    for good when it has come to the prey. The episode is terminated when all are there, and cut (truncated) at
    `max_steps`; no predator sees the clock.

    Observation, in this order: the own cell, one-hot (S * S numbers; on fields of 10 and more cells a side its row and
    its column, one-hot: 2 S); then for the (2 vision + 1)^2 cells around and with the own one, row by row, whether the
    prey is there, and last how many other predators are. IC3Net tells the same with one of S * S + 1 places for each
    cell in sight; where these are follows from the own cell. Nobody observes which seat it has.

    Reward of a step, as it was made: -0.05 for those not at the prey; for each of the n predators that are there
    0.05 n (mode "cooperative"), 0 ("mixed") or 0.05 / n ("competitive").

    State [2 + 2 N]: row and column of the prey and then of each predator, in [0, 1]. Positions: row and column, in
    cells. Labels: where a predator sees the prey, as a cell of a 5 x 5 grid over the field (the cell itself at "easy").
    Metrics, over finished episodes: "steps", how many they took until all predators were at the prey, max_steps where
    they never were (IC3Net's measure); and "success", the share in which they were.

    IC3Net's published steps of trained talking predators, in the mode "mixed": 8.9 (easy), 13.0 (medium), 52.4 (hard).
    `predator_prey_references` has what scripts need. In the mode "cooperative" those who are there earn by every step
    that the last one is late; `ends_together=False` takes that away, as IC3Net does.

    A field that was never seeded starts from seed 0.

    Args:
        num_worlds: B.
        level: "easy", "medium" or "hard": size 5, 10, 20; num_agents 3, 5, 10; max_steps 20, 40, 80; vision 0, 1, 1.
        mode: see the reward above.
        ends_together: False: the episode goes on to max_steps also when all are at the prey.
        size, num_agents, max_steps, vision: in place of the level's; None leaves it.

    Raises:
        UserError: a value out of its range, or actions that do not fit (`step`).
    """

    name, kept = "predator_prey_v0", (*EpisodicWorld.kept, "prey", "cells", "taken", "counts")

    ends_at_deadline = False
    position_size = 2

    def __init__(
        self,
        num_worlds: int = 1,
        num_agents: int | None = None,
        device: str | torch.device = "cpu",
        level: str = "easy",
        mode: str = "cooperative",
        ends_together: bool = True,
        size: int | None = None,
        max_steps: int | None = None,
        vision: int | None = None,
    ) -> None:
        if level not in LEVELS:
            raise unknown("predator_prey_v0: level", level, LEVELS)
        if mode not in MODES:
            raise unknown("predator_prey_v0: mode", mode, MODES)
        given = {"size": size, "num_agents": num_agents, "max_steps": max_steps, "vision": vision}
        chosen = LEVELS[level]._replace(**{key: value for key, value in given.items() if value is not None})
        _check_ranges(num_worlds, ends_together, chosen)
        self.num_worlds, self.device = num_worlds, torch.device(device)
        self.level, self.mode, self.ends_together = level, mode, ends_together
        self.size, agents, self.max_steps, self.vision = chosen
        self.state_size, side = 2 + 2 * agents, torch.arange(min(self.size, LABEL_GRID))
        self.num_labels, self.label_attributes = len(side) ** 2, torch.cartesian_prod(side, side)  # row, column
        self._places = _places(self.size).to(self.device)  # [S * S, P], what is told of each cell
        self._next = next_cells(self.size).to(self.device)  # [S * S, 5], where each move leads
        self._in_view = (2 * self.vision + 1) ** 2
        names = tuple(f"{NAME}_{i}" for i in range(agents))
        obs_size = self._places.shape[1] + 2 * self._in_view
        self.species = {NAME: Species(NAME, 0, agents, obs_size, spaces.Discrete(5), names)}
        self._generator = torch.Generator(self.device)
        self._generator.manual_seed(0)
        # Finished episodes, steps that they took, those in which all came to the prey.
        self._counts = torch.zeros(3, dtype=torch.int64, device=self.device)
        self._prey: Tensor | None = None  # [B] int64, its cell: row * S + column
        self._cells: Tensor | None = None  # [B, N] int64
        self._taken: Tensor | None = None  # [B] int64, steps until all were at the prey

    def metrics(self) -> dict[str, float]:
        """ "steps" and "success" of the episodes that ended; {} where none did."""
        episodes, taken, reached = self._counts.tolist()
        self._counts = torch.zeros_like(self._counts)
        return {"steps": taken / episodes, "success": reached / episodes} if episodes else {}

    def at_prey(self) -> Tensor:
        """[B, N] bool, who is where the prey is."""
        prey, cells = self.here()
        return cells == prey.unsqueeze(-1)

    def here(self) -> tuple[Tensor, Tensor]:
        """The cells of the prey [B] and of the predators [B, N]."""
        if self._prey is None or self._cells is None:
            raise UserError("predator_prey_v0 has no predators before it was reset; call reset first")
        return self._prey, self._cells

    def _begin(self, worlds: Tensor) -> None:
        draws = torch.rand(self.num_worlds, self.num_agents + 1, generator=self._generator, device=self.device)
        if self._prey is None or self._cells is None or self._taken is None:
            self._prey, self._cells = draws[:, 0].long(), draws[:, 1:].long()
            self._taken = torch.zeros_like(self._prey)
        if not bool(worlds.any()):
            return
        cells = distinct(draws[worlds], self.size**2)
        self._prey, self._cells = self._prey.clone(), self._cells.clone()
        self._prey[worlds], self._cells[worlds] = cells[:, 0], cells[:, 1:]
        self._taken = self._taken.masked_fill(worlds, 0)

    def _play(self, actions: dict[str, Tensor], spoken: Tensor | None) -> tuple[Tensor, Tensor]:
        prey, cells = self.here()
        there = self.at_prey()
        assert self._taken is not None
        self._taken = self._taken + ~there.all(1)
        moved = self._next[cells, actions[NAME]]
        self._cells = torch.where(there, cells, moved)
        there = self._cells == prey.unsqueeze(-1)
        count = there.sum(1, keepdim=True)
        shares = {"cooperative": count, "mixed": torch.zeros_like(count), "competitive": 1 / count.clamp(min=1)}
        rewards = torch.where(there, PREY_REWARD * shares[self.mode].float(), STEP_REWARD)
        done = count.squeeze(-1) == self.num_agents
        return rewards, done if self.ends_together else torch.zeros_like(done)

    def _close(self, worlds: Tensor) -> None:
        assert self._taken is not None
        reached = self.at_prey().all(1) & worlds
        self._counts = self._counts + torch.stack((worlds.sum(), (self._taken * worlds).sum(), reached.sum()))

    def _codes(self, cells: Tensor) -> Tensor:
        """[B, N, K], in which cell of a predator's window each of `cells` [B, K] is; one past the last: in none."""
        _, own = self.here()
        rows = (cells // self.size).unsqueeze(1) - (own // self.size).unsqueeze(-1) + self.vision
        columns = (cells % self.size).unsqueeze(1) - (own % self.size).unsqueeze(-1) + self.vision
        side = 2 * self.vision + 1
        inside = (rows >= 0) & (rows < side) & (columns >= 0) & (columns < side)
        return torch.where(inside, rows * side + columns, self._in_view)

    def _observe(self) -> dict[str, Tensor]:
        prey, cells = self.here()
        b, n = cells.shape
        windows = torch.zeros(b, n, 2, self._in_view + 1, device=self.device)
        windows[:, :, 0].scatter_(-1, self._codes(prey.unsqueeze(-1)), 1.0)
        windows[:, :, 1].scatter_add_(-1, self._codes(cells), torch.ones(1, device=self.device).expand(b, n, n))
        windows[:, :, 1, self._in_view // 2] -= 1.0  # who looks
        return {NAME: torch.cat((self._places[cells], windows[..., : self._in_view].flatten(2)), -1)}

    def _labels(self) -> Tensor:
        prey, _ = self.here()
        side = min(self.size, LABEL_GRID)
        region = (prey // self.size) * side // self.size * side + (prey % self.size) * side // self.size
        seen = self._codes(prey.unsqueeze(-1)).squeeze(-1) < self._in_view
        return torch.where(seen, region.unsqueeze(-1), -1)

    def _positions(self) -> Tensor:
        _, cells = self.here()
        return torch.stack((cells // self.size, cells % self.size), -1).float()

    def _latent_state(self) -> Tensor:
        prey, cells = self.here()
        all_cells = torch.cat((prey.unsqueeze(-1), cells), -1)
        return torch.stack((all_cells // self.size, all_cells % self.size), -1).flatten(1).float() / (self.size - 1)

    def render(self, world: int = 0, links: Tensor | None = None) -> np.ndarray:
        """One world as an RGB picture [480, 480, 3] uint8; links [M, 2] int64 are (sender, receiver) pairs to draw."""
        # matplotlib is slow to import, and training needs no pictures.
        from popcomm.envs.predator_prey_picture import draw_hunt

        if self._last is None or self._prey is None or self._cells is None:
            raise UserError("predator_prey_v0 has no picture before it was reset; call reset first")
        return draw_hunt(
            size=self.size,
            prey=int(self._prey[world]),
            cells=self._cells[world].cpu().numpy(),
            vision=self.vision,
            links=None if links is None else links.cpu().numpy(),
            title=f"step {int(self._age[world])} of at most {self.max_steps}",
        )


def distinct(draws: Tensor, cells: int) -> Tensor:
    """[B, K] uniform numbers in [0, 1) -> [B, K] int64, K different ones of 0 ... cells - 1, all choices as likely.

    The k-th is drawn from the cells that the ones before it left, and counted past these in rising order.

    >>> distinct(torch.tensor([[0.5, 0.5, 0.0]]), 4)
    tensor([[2, 1, 0]])
    """
    chosen: list[Tensor] = []
    for k in range(draws.shape[1]):
        cell = (draws[:, k] * (cells - k)).long().clamp_(max=cells - k - 1)  # rounding may reach the bound
        if chosen:
            for taken in torch.stack(chosen, 1).sort(1).values.unbind(1):
                cell = cell + (cell >= taken)
        chosen.append(cell)
    return torch.stack(chosen, 1)


def _places(size: int) -> Tensor:
    """[S * S, P] float32, what is told of each cell."""
    if size <= WHOLE_CELLS:
        return torch.eye(size**2)
    cells, lines = torch.arange(size**2), torch.eye(size)
    return torch.cat((lines[cells // size], lines[cells % size]), -1)


def next_cells(size: int) -> Tensor:
    """[S * S, 5] int64, the cell that each move leads to."""
    cells, moves = torch.arange(size**2), torch.tensor(MOVES)
    at = torch.stack((cells // size, cells % size), -1).unsqueeze(1)
    rows, columns = (at + moves).clamp(0, size - 1).unbind(-1)
    return rows * size + columns


def _check_ranges(num_worlds: int, ends_together: bool, chosen: Level) -> None:
    least = {"num_worlds": 1, "size": 2, "num_agents": 1, "max_steps": 1, "vision": 0}
    values = {"num_worlds": num_worlds, **chosen._asdict()}
    for key, bound in least.items():
        count(f"predator_prey_v0: {key}", values[key], bound)
    true_or_false("predator_prey_v0: ends_together", ends_together)
    if chosen.num_agents >= chosen.size**2:
        raise UserError(
            f"predator_prey_v0: num_agents is {chosen.num_agents}, and must be below the {chosen.size**2} cells of "
            f"size {chosen.size}, one of which is the prey's"
        )
    if chosen.vision >= chosen.size:
        raise UserError(f"predator_prey_v0: vision is {chosen.vision}, and must be below size = {chosen.size}")


def parallel_env(render_mode: str | None = None, **kwargs: Any) -> WorldParallelEnv:
    """One field as a PettingZoo ParallelEnv; keyword arguments are PredatorPreyWorld's.

    >>> env = parallel_env(level="easy")
    >>> observations, infos = env.reset(seed=1)
    >>> observations["predator_0"].shape, env.action_space("predator_0")
    ((27,), Discrete(5))
    """
    return WorldParallelEnv(PredatorPreyWorld(num_worlds=1, **kwargs), name="predator_prey_v0", render_mode=render_mode)


def raw_env(render_mode: str | None = None, **kwargs: Any) -> AECEnv:
    """One field as a PettingZoo AECEnv, without the wrappers that check its use."""
    return turn_based_raw(parallel_env(render_mode, **kwargs))


def env(render_mode: str | None = None, **kwargs: Any) -> AECEnv:
    """One field as a PettingZoo AECEnv, in PettingZoo's usual wrappers."""
    return turn_based(parallel_env(render_mode, **kwargs))


if __name__ == "__main__":
    from popcomm.envs.demo import main

    main("predator_prey_v0")
