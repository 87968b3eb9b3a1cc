"""platoon_v0: trucks and cars on a ring of two lanes, and an emergency vehicle that comes from where nobody looks.

It alone knows that it is on a mission and how urgent that is; who hears of it can leave its lane in time.
`python -m popcomm.envs.platoon_v0 [FILE.png]` draws a moment in which the road is made free.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from pettingzoo import AECEnv
from torch import Tensor

from popcomm.checks import count, not_negative, number, positive, share, true_or_false
from popcomm.envs.episodic_world import EpisodicWorld
from popcomm.envs.platoon_dynamics import (
    BRAKE,
    FASTER,
    HEATING,
    KINDS,
    MARGIN,
    MERGE,
    SLOWER,
    SPRINT,
    Kind,
    Neighbours,
    ahead,
    behind,
    collided,
    moved,
    resistance,
    safe_speed,
)
from popcomm.envs.platoon_missions import Missions, called, gone_on, none_yet
from popcomm.envs.platoon_sight import CAR, EMERGENCY, SPEED_SCALE, TRUCK, observed, on_ring, species_of
from popcomm.envs.world_parallel import WorldParallelEnv, turn_based, turn_based_raw
from popcomm.errors import UserError

DT = 1.0  # s
START = 22.0  # m / s, of all as an episode opens
CLOSE = 0.5  # s, the headway below which one is too close
COUNTED = ("delay", "crashes", "fuel", "close")


class PlatoonWorld(EpisodicWorld):
    """B rings of two lanes with trucks, cars and emergency vehicles. All units are SI; a step is a second.

    Actions: 0 hold the speed, 1 faster, 2 slower, 3 brake, 4 merge; emergency vehicles have 5, sprint (twice as fast as
    faster). The accelerations are, in m / s^2, of a truck 0.5, -1 and -5, of a car 2, -2 and -8, of an emergency
    vehicle 2, -2 and -7, as far as the engine has the power; top speeds are 25, 36 and 45 m / s. Who merges is on the
    other lane in the same step, at the same speed, if 2 m are free there before and behind; else it stays. Who runs
    into another one goes on with it at the speed that their momentum has (30,000, 1,500 and 2,500 kg).
    `platoon_dynamics` has the equations and the other numbers.

    An emergency vehicle without a mission gets one with probability `mission_rate` in a step: `mission` metres to go on
    one of the lanes, drawn evenly (metres on the other one do not count), with an urgency drawn evenly from [0, 1], its
    criticality. Nobody else knows of it, or sees an ambulance come from further behind than the mirror shows: so those
    in its way must be told. An episode is cut after `max_steps` steps (truncated).

    Reward, in seconds lost: own = - (1 - speed / wish) where slower than the wish (22 m / s of trucks, 33 of others, 45
    on a mission, where it is multiplied by `weight` * criticality, and is 1 on the wrong lane) - `crash_penalty` if in
    a crash - (1 - headway / 0.5 s), where the headway (gap / speed) is less - `fuel_price` * g of fuel. The sum of the
    first part over a mission is its delay: the time that it takes, less that at 45 m / s. What a seat gets is
    (1 - reward_share) * own + reward_share * (mean of own over the seats).

    Observation. Of all: place on the ring, as cosine and sine; speed / 30 m / s; [here, of emergency vehicles, at the
    place CRITICALITY how critical the mission is, 0 without one; 1 if there is one; the share of it that is left; its
    lane]; the lane; then who is next ahead on the own lane, and on the other one, as far as the view (80 m, emergency
    vehicles 150): 1 if seen, gap / view, and how much faster it is / 30 m / s; then, but for trucks, the same of who is
    next behind on the other lane, up to 30 m; and a constant 1. Sizes: truck [11], car [14], emergency [18].

    State [5 N]: place (cosine, sine), speed / 30 m / s, lane and criticality of all seats. Positions [1]: m along the
    ring, which is a torus. Labels, of emergency vehicles: 0 no mission, else 1 + 2 * lane + (criticality >= 0.5); -1 of
    all others. Metrics, per vehicle and step: "delay" (s, without its weight), "crashes", "fuel" (g), "close" (s lost
    to headway); and "mission_time" and "mission_delay", s per finished mission. Missions that are cut at the end of an
    episode are in neither, and slow ones are cut more often: both are less than the means of all would be.

    A ring that was never seeded starts from seed 0.

    Args:
        num_worlds: B.
        trucks, cars, emergencies: how many; N is their sum.
        road: m around; vehicles start at even distances, in a drawn order and on drawn lanes.
        max_steps: steps of an episode, in s.
        mission: m of a mission.
        mission_rate: see above.
        weight: how many times as dear a second of delay is on a mission of criticality 1.
        crash_penalty: s.
        fuel_price: s for each g.
        assist: brake for all who come nearer than is safe, as emergency brake assistants do.
        reward_share: 0 = own reward only, 1 = the mean of all.

    Raises:
        UserError: a value out of its range, or actions that do not fit (`step`).
    """

    name = "platoon_v0"
    kept = (*EpisodicWorld.kept, "place", "speed", "lane", "missions", "crashed", "chosen", "counts")
    ends_at_deadline = False
    position_size, num_labels = 1, 5

    def __init__(
        self,
        num_worlds: int = 1,
        trucks: int = 4,
        device: str | torch.device = "cpu",
        cars: int = 4,
        emergencies: int = 1,
        road: float = 800.0,
        max_steps: int = 60,
        mission: float = 800.0,
        mission_rate: float = 0.1,
        weight: float = 30.0,
        crash_penalty: float = 20.0,
        fuel_price: float = 0.005,
        assist: bool = True,
        reward_share: float = 0.5,
    ) -> None:
        _check_ranges(locals())
        super().__init__(num_worlds, device, max_steps)
        self.road, self.mission, self.mission_rate = float(road), float(mission), mission_rate
        self.weight, self.crash_penalty = weight, crash_penalty
        self.fuel_price, self.reward_share, self.torus = fuel_price, reward_share, (float(road),)
        self.assist = true_or_false(f"{self.name}: assist", assist)
        self.species = species_of({TRUCK: trucks, CAR: cars, EMERGENCY: emergencies})
        self.state_size = 5 * self.num_agents
        kinds = [KINDS[name] for name, s in self.species.items() for _ in range(s.num_seats)]
        # [K, N], a row for each field.
        self.kinds: Kind[Tensor] = Kind._make(
            torch.tensor(list(zip(*kinds, strict=True)), dtype=torch.float32, device=self.device)
        )
        self._saves = torch.arange(self.num_agents, device=self.device) >= trucks + cars  # [N] bool
        table = torch.zeros(6, self.num_agents, device=self.device)
        table[FASTER], table[SPRINT] = self.kinds.faster, 2.0 * self.kinds.faster
        table[SLOWER], table[BRAKE] = -self.kinds.slower, -self.kinds.brake
        self._accelerations = table.T.contiguous()  # [N, 6]
        self._place: Tensor | None = None  # [B, N] float32, m, of the front
        self._speed: Tensor  # [B, N] float32, m / s
        self._lane: Tensor  # [B, N] int64, 0 right, 1 left
        self._missions: Missions
        self._crashed: Tensor  # [B, N] bool, in the last step
        self._chosen: Tensor  # [B, N] int64, the last actions, -1 before the first
        # Vehicle-steps, sums over them in the order of COUNTED; finished missions, their times, their delays.
        self._counts = torch.zeros(4 + len(COUNTED), dtype=torch.float64, device=self.device)

    def here(self) -> tuple[Tensor, Tensor, Tensor]:
        """Place (m), speed (m / s) and lane of all, [B, N] each, for scripts that know all. Raises UserError."""
        if self._place is None:
            raise UserError(f"{self.name} shows nothing before it was reset; call reset first")
        return self._place, self._speed, self._lane

    def missions(self) -> tuple[Tensor, Tensor]:
        """Who is on a mission, [B, N] bool, and on which lane it is, [B, N] int64. Raises UserError."""
        self.here()
        return self._missions.runs, self._missions.side

    def criticality(self) -> Tensor:
        """[B, N] float32 in [0, 1], how urgent the missions of emergency vehicles are; 0 without one, and of others.

        It is what an emergency vehicle observes at the place CRITICALITY of its observation. Raises UserError: the
        world was not reset.
        """
        self.here()
        return self._missions.urgency.clone()

    def neighbours(self) -> tuple[Neighbours, Neighbours, Neighbours]:
        """Who is ahead on the own lane, ahead on the other one, and behind on it; for scripts that know all."""
        place, _, lane = self.here()
        length = self.kinds.length
        own, other = (ahead(place, length, lane, self.road, side) for side in (False, True))
        return own, other, behind(place, length, lane, self.road)

    def safe_speeds(self, one: Neighbours) -> Tensor:
        """[B, N], m / s after a step behind a neighbour: one out of sight is taken to drive just there, as one does."""
        _, speed, _ = self.here()
        sees, brakes = one.gap < self.kinds.view, self.kinds.brake.expand_as(speed)
        theirs, their_brakes = (torch.where(sees, x.gather(1, one.seat), x) for x in (speed, brakes))
        gap = torch.where(one.gap.isinf() | sees, one.gap, self.kinds.view)
        return safe_speed(gap, speed, theirs, brakes, their_brakes, DT)

    def wishes(self) -> Tensor:
        """[B, N], m / s: the speeds at which nobody is late."""
        return torch.where(self._missions.runs, self.kinds.top, self.kinds.wish)

    def _begin(self, worlds: Tensor) -> None:
        shape = (self.num_worlds, self.num_agents)
        draws = torch.rand(4, *shape, generator=self._generator, device=self.device)
        # Slots along the ring, as many as vehicles, so that no two begin in one place.
        place = draws[0].argsort(-1) * (self.road / self.num_agents)
        missions = none_yet(shape, self.device)
        new = {
            "place": place,
            "speed": torch.full_like(place, START),
            "lane": (draws[1] < 0.5).long(),
            "crashed": torch.zeros_like(place, dtype=torch.bool),
            "chosen": torch.full(shape, -1, device=self.device),
        }
        old = {key: None if self._place is None else getattr(self, f"_{key}") for key in new}
        pairs = zip(missions if self._place is None else self._missions, missions, strict=True)
        begun = Missions(*(self._renewed(was, now, worlds) for was, now in pairs))
        for key, value in new.items():
            setattr(self, f"_{key}", self._renewed(old[key], value, worlds))
        able = self._saves & worlds.unsqueeze(-1)
        self._missions = called(begun, able, draws[2:], self.mission_rate, self.mission)

    def _play(self, actions: dict[str, Tensor], spoken: Tensor | None) -> tuple[Tensor, Tensor]:
        place, _, _ = self.here()
        chosen = torch.cat([actions[name] for name in self.species], 1)
        self._chosen = chosen
        _, other, rear = self.neighbours()
        merges = (chosen == MERGE) & (other.gap >= MARGIN) & (rear.gap >= MARGIN)
        self._lane = torch.where(merges, 1 - self._lane, self._lane)
        front = ahead(place, self.kinds.length, self._lane, self.road)
        end, way, force = self._driven(chosen, front)
        way, self._speed, hits = collided(way, end, front.gap, front.seat, self.kinds.mass)
        struck = torch.zeros_like(front.seat).scatter_add(1, front.seat, hits.long()) > 0
        self._crashed = hits | struck
        self._place = (place + way).remainder(self.road)
        grams = force.clamp(min=0.0) * way / (self.kinds.efficiency * HEATING) * 1000.0
        own = self._lost(grams)
        self._go_on(way)
        mean = own.mean(-1, keepdim=True)
        return own.mul(1 - self.reward_share).add(mean, alpha=self.reward_share), torch.zeros_like(self._over)

    def _driven(self, chosen: Tensor, front: Neighbours) -> tuple[Tensor, Tensor, Tensor]:
        """Speeds after the step, ways in it, and the forces of engines (N, negative: brakes), [B, N] each."""
        kinds, speed = self.kinds, self._speed
        wanted = self._accelerations.expand(*chosen.shape, -1).gather(2, chosen.unsqueeze(-1)).squeeze(-1)
        resists = resistance(speed, front.gap, kinds.mass, kinds.drag, kinds.rolling)
        # At a walking pace it is the wheels that are the limit, not the power.
        most = (kinds.power / speed.clamp(min=1.0) - resists) / kinds.mass
        if self.assist:
            safe = (self.safe_speeds(front) - speed) / DT
            most = torch.minimum(most, torch.maximum(safe, -kinds.brake))
        end, way = moved(speed, torch.minimum(wanted, most), kinds.top, DT)
        return end, way, (end - speed) / DT * kinds.mass + resists

    def _lost(self, grams: Tensor) -> Tensor:
        """Own rewards [B, N], and their count. grams [B, N], of fuel in the step."""
        own, *_ = self.neighbours()
        missions = self._missions
        counts = ~missions.runs | (self._lane == missions.side)
        late = (1.0 - self._speed * counts / self.wishes()).clamp(min=0.0) * DT
        headway = own.gap.clamp(min=0.0) / self._speed.clamp(min=1.0)
        close = (1.0 - headway / CLOSE).clamp(min=0.0) * DT
        acting = ~self._over.unsqueeze(-1)
        columns = (torch.ones_like(late), late, self._crashed, grams, close)
        sums = torch.stack([(column * acting).sum().double() for column in columns])
        self._counts = self._counts + torch.cat((sums, torch.zeros_like(sums[:3])))
        dear = torch.where(missions.runs, self.weight * missions.urgency, 1.0)
        return -(dear * late + self.crash_penalty * self._crashed + close + self.fuel_price * grams)

    def _go_on(self, way: Tensor) -> None:
        """Missions after a step: they end, and others begin."""
        draws = torch.rand(2, *way.shape, generator=self._generator, device=self.device)
        missions, done, took = gone_on(self._missions, way, self._lane, DT)
        done = done & ~self._over.unsqueeze(-1)
        sums = (done.sum(), (took * done).sum(), ((took - self.mission / self.kinds.top) * done).sum())
        zeros = torch.zeros_like(self._counts[:-3])
        self._counts = self._counts + torch.cat((zeros, torch.stack([value.double() for value in sums])))
        self._missions = called(missions, self._saves.expand_as(way), draws, self.mission_rate, self.mission)

    def metrics(self) -> dict[str, float]:
        """Means per vehicle and step; "mission_time" and "mission_delay" of missions that were finished, if any were:
        those that the end of an episode cut are missing."""
        steps, *sums = self._counts.tolist()
        self._counts = torch.zeros_like(self._counts)
        *sums, missions, time, delay = sums
        told = {name: total / steps for name, total in zip(COUNTED, sums, strict=True)} if steps else {}
        return told | ({"mission_time": time / missions, "mission_delay": delay / missions} if missions else {})

    def _observe(self) -> dict[str, Tensor]:
        place, speed, lane = self.here()
        first = torch.stack((*on_ring(place, self.road), speed / SPEED_SCALE), -1)
        urgency, side, left, _ = self._missions
        there = self._missions.runs.float()
        mission = torch.stack((urgency, there, left / self.mission, side * there), -1)
        seen = observed(first, mission, lane, speed, self.neighbours(), self.kinds)
        return {name: seen[name][:, s.seats].contiguous() for name, s in self.species.items()}

    def _positions(self) -> Tensor:
        return self.here()[0].unsqueeze(-1).clone()

    def _labels(self) -> Tensor:
        now = self._missions
        mission = torch.where(now.runs, 1 + 2 * now.side + (now.urgency >= 0.5), 0)
        return torch.where(self._saves, mission, -1)

    def _latent_state(self) -> Tensor:
        place, speed, lane = self.here()
        return torch.cat((*on_ring(place, self.road), speed / SPEED_SCALE, lane.float(), self._missions.urgency), 1)

    def render(self, world: int = 0, links: Tensor | None = None) -> np.ndarray:
        """One ring as an RGB picture [480, 480, 3] uint8; links [M, 2] int64 are (sender, receiver) pairs to draw."""
        # matplotlib is slow to import, and training needs no pictures.
        from popcomm.envs.platoon_picture import draw_platoon

        place, speed, lane = (part[world].cpu().numpy() for part in self.here())
        return draw_platoon(
            place,
            speed,
            lane,
            kinds=[name for name, s in self.species.items() for _ in range(s.num_seats)],
            criticality=self._missions.urgency[world].cpu().numpy(),
            sides=self._missions.side[world].cpu().numpy(),
            chosen=self._chosen[world].cpu().numpy(),
            crashed=self._crashed[world].cpu().numpy(),
            road=self.road,
            links=None if links is None else links.cpu().numpy(),
            title=f"second {int(self._age[world])} of {self.max_steps}",
        )


def _check_ranges(values: dict[str, Any]) -> None:
    for key in ("trucks", "cars", "emergencies"):
        count(f"platoon_v0: {key}", values[key], 0)
    vehicles = values["trucks"] + values["cars"] + values["emergencies"]
    if not vehicles:
        raise UserError("platoon_v0: trucks, cars and emergencies are all 0; there must be somebody on the road")
    # From slot to slot the longest vehicle and the room to merge.
    least = vehicles * (KINDS[TRUCK].length + 2 * MARGIN)
    must = f"be at least {least:g} m for {vehicles} vehicles"
    number("platoon_v0: road", values["road"], must, least=least, below=math.inf)
    positive("platoon_v0: mission", values["mission"])
    for key in ("mission_rate", "reward_share"):
        share(f"platoon_v0: {key}", values[key])
    for key in ("weight", "crash_penalty", "fuel_price"):
        not_negative(f"platoon_v0: {key}", values[key])


def parallel_env(render_mode: str | None = None, **kwargs: Any) -> WorldParallelEnv:
    """One ring as a PettingZoo ParallelEnv; keyword arguments are PlatoonWorld's.

    >>> env = parallel_env(trucks=1, cars=1)
    >>> observations, infos = env.reset(seed=1)
    >>> [(agent, seen.shape, env.action_space(agent)) for agent, seen in observations.items()]
    [('truck_0', (11,), Discrete(5)), ('car_0', (14,), Discrete(5)), ('emergency_0', (18,), Discrete(6))]
    """
    return WorldParallelEnv(PlatoonWorld(num_worlds=1, **kwargs), name="platoon_v0", render_mode=render_mode)


def raw_env(render_mode: str | None = None, **kwargs: Any) -> AECEnv:
    """One ring as a PettingZoo AECEnv, without the wrappers that check its use."""
    return turn_based_raw(parallel_env(render_mode, **kwargs))


def env(render_mode: str | None = None, **kwargs: Any) -> AECEnv:
    """One ring as a PettingZoo AECEnv, in PettingZoo's usual wrappers."""
    return turn_based(parallel_env(render_mode, **kwargs))


if __name__ == "__main__":
    from popcomm.envs.demo import main

    main("platoon_v0")
