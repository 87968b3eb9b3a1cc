"""traffic_junction_v0: cars that see next to nothing drive over junctions, and brake in time or crash.

The traffic junction of CommNet (Sukhbaatar, Szlam & Fergus 2016, section 4.2) at the three levels of IC3Net (Singh,
Jain & Sukhbaatar 2019). `python -m popcomm.envs.traffic_junction_v0 [FILE.png]` draws a junction.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from pettingzoo import AECEnv
from torch import Tensor

from popcomm.checks import count, number
from popcomm.envs.episodic_world import EpisodicWorld
from popcomm.envs.traffic_roads import PLANS, Roads
from popcomm.envs.world import Species
from popcomm.envs.world_parallel import WorldParallelEnv, turn_based, turn_based_raw
from popcomm.errors import UserError, unknown

NAME = "car"
GAS, BRAKE = 0, 1
TIME_REWARD, CRASH_REWARD = -0.01, -10.0


class Level(NamedTuple):
    """A row of IC3Net's table of levels."""

    num_agents: int  # N, the most cars at a time
    max_steps: int
    add_rate: float


LEVELS = {"easy": Level(5, 20, 0.3), "medium": Level(10, 40, 0.2), "hard": Level(20, 80, 0.05)}


class _Draws(NamedTuple):
    """Uniform numbers of one step, in [0, 1)."""

    come: Tensor  # [B, E], at which entries a car comes
    again: Tensor  # [B, E], the same after time has passed on an empty road
    wait: Tensor  # [B], how long that is
    first: Tensor  # [B], the first entry at which a car comes then
    route: Tensor  # [B, E]
    seat: Tensor  # [B, N], in which order free seats are taken


class TrafficJunctionWorld(EpisodicWorld):
    """B road maps with at most N cars each, all on grids of cells, where a car drives a cell per step or none.

    "easy" is the crossing of two one-way roads on a 7 x 7 grid, "medium" that of two two-way roads on 14 x 14, "hard"
    has four of these on 18 x 18. In each step a car enters with probability `add_rate` at each entry (2, 4, 8) while
    there are fewer than N, and takes one of the routes from there (1, 3, 7; see `traffic_roads`), all as likely.
    Actions, Discrete(2): 0 gas, the next cell of the route, and off the road after the last; 1 brake, stay. Cars in one
    cell have crashed; they drive on, and nothing else comes of it. A car enters also where one stands in its way, so
    that it is no way out to brake at an entry for ever.

    Seats: a car has its seat from entry to exit; then the seat's life is terminated, and another car may take it, with
    a new life, from the next step on. New cars take free seats at random. A seat without a car is not alive, observes
    zeros and earns nothing. (PettingZoo's agents are the seats, and there they wait; see `WorldParallelEnv`.)

    The clock and the empty road: no step is made on an empty road, since nobody could act in it. Time passes there
    until the next car comes, and the clock tells it; so every step that is made is distributed as in the original, but
    an episode has fewer of them. An episode that would have no car before its last step is left out (1.5 % of them at
    "easy" with add_rate 0.1), and one is over when no further car comes before its last step. Only if all N seats are
    left in the same step, an empty road ends the episode early, as no seat can be taken there. At `max_steps` it is cut
    (truncated) for all.

    Observation, in this order: whether the last action was to brake; the route, one-hot (2, 12, 56); row and column,
    one-hot (7 + 7, 14 + 14, 18 + 18); and for the (2 vision + 1)^2 cells around and with the own one, row by row, how
    many other cars are there (CommNet's n, r, l and its view; where the road goes on follows from the cell).

    Reward of a car that drives: -0.01 for each step since it entered, and -10 if it then stands in a cell with another
    one. The step in which it leaves or enters earns nothing.

    State [C]: cars in each of the C road cells (13, 52, 128). Positions: row and column, in cells; those of seats
    without a car are where the last one was. Labels: the road cell of a car. Metrics, over finished episodes:
    "success", the share without any crash (the measure of both papers), and "collisions", how many times cars stood in
    a cell with another one after a step, per episode.

    The sources differ on numbers: add_rate is the last one of IC3Net's curricula (0.1 to 0.3, 0.05 to 0.2, 0.02 to
    0.05), and "hard" has the 80 steps of its published commands. Unlike here, IC3Net charges the car that enters where
    another one stands, and fills a seat in the step in which it is left. A map that was never seeded starts from 0.

    Args:
        num_worlds: B.
        level: "easy", "medium" or "hard": num_agents 5, 10, 20; max_steps 20, 40, 80; add_rate 0.3, 0.2, 0.05.
        vision: how many cells in each direction a car sees; 0: its own one.
        num_agents, max_steps, add_rate: in place of the level's; None leaves it.

    Raises:
        UserError: a value out of its range, or actions that do not fit (`step`).
    """

    name = "traffic_junction_v0"
    kept = (*EpisodicWorld.kept, "route", "place", "since", "braked", "driving", "crashes", "counts")

    ends_at_deadline = False
    position_size = 2
    reopens_seats = True

    def __init__(
        self,
        num_worlds: int = 1,
        num_agents: int | None = None,
        device: str | torch.device = "cpu",
        level: str = "easy",
        vision: int = 0,
        max_steps: int | None = None,
        add_rate: float | None = None,
    ) -> None:
        if level not in LEVELS:
            raise unknown("traffic_junction_v0: level", level, LEVELS)
        given: dict[str, Any] = {"num_agents": num_agents, "max_steps": max_steps, "add_rate": add_rate}
        chosen = LEVELS[level]._replace(**{key: value for key, value in given.items() if value is not None})
        self.roads = Roads.of(PLANS[level])
        _check_ranges(num_worlds, vision, self.roads.size, chosen)
        self.num_worlds, self.device, self.level, self.vision = num_worlds, torch.device(device), level, vision
        agents, self.max_steps, self.add_rate = chosen
        self._lay_out(vision)
        names = tuple(f"{NAME}_{i}" for i in range(agents))
        obs_size = 1 + len(self._ways) + 2 * self.roads.size + self._around.shape[1]
        self.species = {NAME: Species(NAME, 0, agents, obs_size, spaces.Discrete(2), names)}
        self._generator = torch.Generator(self.device)
        self._generator.manual_seed(0)
        # Finished episodes, those without a crash, crashes.
        self._counts = torch.zeros(3, dtype=torch.int64, device=self.device)
        seats = torch.zeros(num_worlds, agents, dtype=torch.int64, device=self.device)
        self._route, self._place = seats, seats  # [B, N] int64: its number, and which cell of it, from 0 on
        self._since = seats  # [B, N] int64, steps since the car entered
        self._braked = self._driving = seats.bool()  # [B, N] bool: last action, and whether there is a car at all
        self._crashes = seats[:, 0]  # [B] int64, in this episode

    def _lay_out(self, vision: int) -> None:
        """The roads as tensors; R = E * K routes."""
        roads, size, cells = self.roads, self.roads.size, len(self.roads.cells)
        self.num_labels = self.state_size = cells
        self._entries, self._choices = roads.lengths.shape  # E, K
        self._ways = torch.from_numpy(roads.routes).flatten(0, 1).to(self.device)  # [R, L]
        self._lengths = torch.from_numpy(roads.lengths).flatten().to(self.device)  # [R]
        self._around = torch.from_numpy(roads.around(vision)).to(self.device)  # [C, W]
        self._coordinates = torch.from_numpy(roads.cells).to(self.device)  # [C, 2]
        lines, rows, columns = torch.eye(size, device=self.device), *self._coordinates.unbind(1)
        self._lines = torch.cat((lines[rows], lines[columns]), -1)  # [C, 2 S], what is told of each cell
        self._signs = torch.eye(len(self._ways), device=self.device)  # [R, R], and of each route

    def metrics(self) -> dict[str, float]:
        """ "success" and "collisions" of the episodes that ended; {} where none did."""
        episodes, clean, crashes = self._counts.tolist()
        self._counts = torch.zeros_like(self._counts)
        return {"success": clean / episodes, "collisions": crashes / episodes} if episodes else {}

    def road_cells(self) -> Tensor:
        """[B, N] int64, the road cell of each car; of seats without one, where the last one was."""
        return self._ways[self._route, self._place]

    def _cars(self) -> Tensor:
        """[B, C + 1] int64, cars in each road cell; off the road, none."""
        off = len(self.roads.cells)
        cars = torch.zeros(self.num_worlds, off + 1, dtype=torch.int64, device=self.device)
        return cars.scatter_add_(1, torch.where(self._driving, self.road_cells(), off), self._driving.long())

    def crashed(self) -> Tensor:
        """[B, N] bool, cars in a cell with another one."""
        return self._driving & (self._cars().gather(1, self.road_cells()) > 1)

    def _play(self, actions: dict[str, Tensor], spoken: Tensor | None) -> tuple[Tensor, Tensor]:
        assert self._last is not None
        acting = self._last.alive
        gas = acting & (actions[NAME] == GAS)
        place = self._place + gas
        leaves = place == self._lengths[self._route]
        self._place = torch.where(leaves, self._place, place)
        self._since = self._since + acting
        self._braked = acting & ~gas
        self._driving = self._driving & ~leaves
        self._go_on(free=~self._driving & ~leaves)
        crashed = self.crashed()
        self._crashes = self._crashes + crashed.sum(1)
        rewards = TIME_REWARD * self._since + CRASH_REWARD * crashed
        return rewards.masked_fill(~self._driving, 0.0), ~self._driving.any(1)

    def _go_on(self, free: Tensor) -> None:
        """Let cars come, into seats that are free [B, N] bool; where the road stays empty, after some time."""
        draws = self._draw()
        come = draws.come < self.add_rate
        empty = ~self._driving.any(1) & free.any(1) & ~come.any(1)
        waited = 1 + self._waits(draws.wait)
        # The clock shows this step only after it.
        in_time = self._age + 1 + waited < self.max_steps
        passes = empty & in_time
        self._age = torch.where(passes, self._age + waited, self._age)
        self._enter(torch.where(passes.unsqueeze(-1), self._comes_at_last(draws), come), free, draws)

    def _begin(self, worlds: Tensor) -> None:
        draws = self._draw()
        # Of the steps 1 ... max_steps - 1, the first one in which a car comes.
        some = 1.0 - (1.0 - self._any_rate) ** (self.max_steps - 1)
        waited = 1 + self._waits(draws.wait * some).clamp(max=self.max_steps - 2)
        self._age = torch.where(worlds, waited, self._age)
        opened = worlds.unsqueeze(-1)
        self._route, self._place = self._route.masked_fill(opened, 0), self._place.masked_fill(opened, 0)
        self._since, self._braked = self._since.masked_fill(opened, 0), self._braked & ~opened
        self._driving = self._driving & ~opened
        self._crashes = self._crashes.masked_fill(worlds, 0)
        self._enter(self._comes_at_last(draws) & opened, (~self._driving) & opened, draws)

    @property
    def _any_rate(self) -> float:
        """The probability that a car comes in a step, at any entry."""
        return float(-np.expm1(self._entries * np.log1p(-self.add_rate))) if self.add_rate < 1 else 1.0

    def _waits(self, draws: Tensor) -> Tensor:
        """[B] int64, how many steps pass in which no car comes, before one does: geometric, by inversion."""
        log = float(np.log1p(-self._any_rate)) if self._any_rate < 1 else -np.inf
        return torch.log1p(-draws).div(log).clamp(0, self.max_steps).long()

    def _comes_at_last(self, draws: _Draws) -> Tensor:
        """[B, E] bool, where cars come in a step in which any does: first at one entry, by chance at later ones."""
        log = float(np.log1p(-self.add_rate)) if self.add_rate < 1 else -np.inf
        first = torch.log1p(-draws.first * self._any_rate).div(log).clamp(0, self._entries - 1).long().unsqueeze(-1)
        entries = torch.arange(self._entries, device=self.device)
        return (entries == first) | ((entries > first) & (draws.again < self.add_rate))

    def _enter(self, come: Tensor, free: Tensor, draws: _Draws) -> None:
        """Put cars that come [B, E] bool into free seats [B, N] bool, as far as there are any."""
        rank = come.cumsum(1)
        enters = come & (rank <= free.sum(1, keepdim=True))
        order = draws.seat.masked_fill(~free, 2.0).argsort(1)
        seats = order.gather(1, (rank - 1).clamp(0, self.num_agents - 1))
        entries = torch.arange(self._entries, device=self.device)
        chosen = (draws.route * self._choices).long().clamp_(max=self._choices - 1) + entries * self._choices
        # Who does not enter is written beside the seats.
        told = torch.full((self.num_worlds, self.num_agents + 1), -1, device=self.device)
        new = told.scatter_(1, torch.where(enters, seats, self.num_agents), chosen)[:, :-1]
        entered = new >= 0
        self._route = torch.where(entered, new, self._route)
        self._place, self._since = self._place.masked_fill(entered, 0), self._since.masked_fill(entered, 0)
        self._braked = self._braked & ~entered
        self._driving = self._driving | entered

    def _draw(self) -> _Draws:
        e, n = self._entries, self.num_agents
        draws = torch.rand(self.num_worlds, 3 * e + 2 + n, generator=self._generator, device=self.device)
        come, again, wait, first, route, seat = draws.split((e, e, 1, 1, e, n), 1)
        return _Draws(come, again, wait.squeeze(1), first.squeeze(1), route, seat)

    def _present(self) -> Tensor:
        return self._driving

    def _close(self, worlds: Tensor) -> None:
        clean, crashes = worlds & (self._crashes == 0), self._crashes * worlds
        self._counts = self._counts + torch.stack((worlds.sum(), clean.sum(), crashes.sum()))

    def _observe(self) -> dict[str, Tensor]:
        cells = self.road_cells()
        b, n = cells.shape
        others = self._cars().gather(1, self._around[cells].flatten(1)).view(b, n, -1)
        others[..., self._around.shape[1] // 2] -= 1
        told = (self._braked.unsqueeze(-1), self._signs[self._route], self._lines[cells], others)
        return {NAME: torch.cat(told, -1) * self._driving.unsqueeze(-1)}

    def _labels(self) -> Tensor:
        return torch.where(self._driving, self.road_cells(), -1)

    def _positions(self) -> Tensor:
        return self._coordinates[self.road_cells()].float()

    def _latent_state(self) -> Tensor:
        return self._cars()[:, :-1].float()

    def render(self, world: int = 0, links: Tensor | None = None) -> np.ndarray:
        """One world as an RGB picture [480, 480, 3] uint8; links [M, 2] int64 are (sender, receiver) pairs to draw."""
        # matplotlib is slow to import, and training needs no pictures.
        from popcomm.envs.traffic_junction_picture import draw_traffic

        if self._last is None:
            raise UserError("traffic_junction_v0 has no picture before it was reset; call reset first")
        ways, place = self._ways[self._route[world]], self._place[world]
        following = ways.gather(1, (place + 1).clamp(max=ways.shape[1] - 1).unsqueeze(-1)).squeeze(-1)
        return draw_traffic(
            roads=self.roads,
            cells=self.road_cells()[world].cpu().numpy(),
            following=following.cpu().numpy(),
            driving=self._driving[world].cpu().numpy(),
            braked=self._braked[world].cpu().numpy(),
            crashed=self.crashed()[world].cpu().numpy(),
            links=None if links is None else links.cpu().numpy(),
            title=f"step {int(self._age[world])} of {self.max_steps}",
        )


def _check_ranges(num_worlds: int, vision: int, size: int, chosen: Level) -> None:
    values = {"num_worlds": num_worlds, "vision": vision, **chosen._asdict()}
    for key, bound in {"num_worlds": 1, "num_agents": 1, "max_steps": 2, "vision": 0}.items():
        count(f"traffic_junction_v0: {key}", values[key], bound)
    if vision >= size:
        raise UserError(f"traffic_junction_v0: vision is {vision}, and must be below the {size} cells of a side")
    number("traffic_junction_v0: add_rate", chosen.add_rate, "be above 0 and at most 1", above=0, most=1)


def parallel_env(render_mode: str | None = None, **kwargs: Any) -> WorldParallelEnv:
    """One road map as a PettingZoo ParallelEnv; keyword arguments are TrafficJunctionWorld's.

    >>> env = parallel_env(level="medium")
    >>> observations, infos = env.reset(seed=1)
    >>> env.observation_space("car_0").shape, env.action_space("car_0")
    ((42,), Discrete(2))
    >>> sum(info["alive"] for info in infos.values()) < len(env.agents)
    True
    """
    world = TrafficJunctionWorld(num_worlds=1, **kwargs)
    return WorldParallelEnv(world, name="traffic_junction_v0", render_mode=render_mode)


def raw_env(render_mode: str | None = None, **kwargs: Any) -> AECEnv:
    """One road map as a PettingZoo AECEnv, without the wrappers that check its use."""
    return turn_based_raw(parallel_env(render_mode, **kwargs))


def env(render_mode: str | None = None, **kwargs: Any) -> AECEnv:
    """One road map as a PettingZoo AECEnv, in PettingZoo's usual wrappers."""
    return turn_based(parallel_env(render_mode, **kwargs))


if __name__ == "__main__":
    from popcomm.envs.demo import main

    main("traffic_junction_v0")
