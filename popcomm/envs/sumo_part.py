"""SumoPart: the world of a process of traffic_v0, which is one simulation of SUMO; libsumo is imported nowhere else.

libsumo holds one simulation per process, and brings an Arrow of its own, which does not go with another pyarrow in the
same process: so neither it nor what imports pyarrow may be imported where the other is.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch

from popcomm.envs.sumo_map import SumoMap
from popcomm.envs.sumo_nets import Roads, draw_trips
from popcomm.envs.sumo_waits import Waits

logger = logging.getLogger(__name__)

# sumo-rl's options: vehicles wait to be let in for as long as it takes, and are never taken out of a jam.
OPTIONS = ("--max-depart-delay", "-1", "--waiting-time-memory", "1000", "--time-to-teleport", "-1")
SILENT = ("--no-step-log", "--no-warnings", "--duration-log.disable", "--device.tripinfo.probability", "1")
MIN_GAP = 2.5  # meters between vehicles that stand, by which sumo-rl counts how many fit on a lane
REWARDS = ("diff-waiting-time", "queue", "pressure", "average-speed")
MEASURES = ("steps", "queue", "episodes", "arrived", "waiting_time", "travel_time", "backlog", "hours")


@dataclass(frozen=True)
class Rules:
    """What agents play by: see `popcomm.envs.traffic_v0.TrafficWorld`."""

    plan: SumoMap
    roads: Roads
    folder: Path
    max_steps: int
    delta_time: int
    yellow_time: int
    min_green: int
    reward: str


class SumoPart:
    """One world, number `first` of `total`, as `popcomm.envs.process_child` steps it.

    Args:
        rules: of the game, and where it is played.
        first: its number.
        num_worlds: 1.
        total: B.
        note: called with (world, step, seed) before it is at work, and with world -1 after.
    """

    def __init__(
        self, rules: Rules, first: int, num_worlds: int, total: int, note: Callable[[int, int, int], None]
    ) -> None:
        assert num_worlds == 1
        os.environ.setdefault("LIBSUMO_AS_TRACI", "quiet")  # else it prints a warning where pyarrow is installed
        self._sumo: Any = import_module("libsumo")
        self._rules, self._plan = rules, rules.plan
        self._first, self._total, self._note = first, total, note
        self._stream = self._new_stream(None)
        self._seed, self._age, self._over = 0, 0, False
        self._chosen: list[np.ndarray] = []  # [N] uint8 each, of the episode so far
        self._yellows: dict[tuple[str, str], str] = {}
        seats = len(self._plan.signals)
        self._phase = np.zeros(seats, dtype=np.int64)
        self._since = np.zeros(seats, dtype=np.int64)  # seconds since the phase was chosen
        self._waits = Waits()
        self._vehicles: dict[int, tuple[str, ...]] = {}  # on each lane before a light where there are any
        self._arrays = {
            "observations": np.zeros((seats, observation_size(self._plan)), dtype=np.float32),
            "rewards": np.zeros(seats, dtype=np.float32),
            **{key: np.zeros(seats, dtype=bool) for key in ("terminated", "truncated", "alive", "first")},
            "age": np.zeros((), dtype=np.float32),
            "measured": np.zeros(len(MEASURES)),
        }
        self._layout = _Layout(self._plan)

    def about(self) -> dict[str, Any]:
        return {"signals": tuple(self._plan.signals)}

    # ---- what the parent asks for ----

    def tell(self) -> dict[str, Any]:
        """What is told after each step, [1, ...] each."""
        return {"arrays": {key: array[None] for key, array in self._arrays.items()}, "seeds": [self._seed]}

    def open_all(self, seed: int | None, tells_state: bool) -> dict[str, Any]:
        if seed is not None:
            self._stream = self._new_stream(seed)
        self._open_next()
        return self.tell()

    def step_all(self, actions: dict[str, np.ndarray], spoken: np.ndarray | None, tells_state: bool) -> dict[str, Any]:
        if self._over:
            self._open_next()
        else:
            (chosen,) = actions.values()
            self._play(chosen[0].astype(np.uint8))
        return self.tell()

    def save(self) -> dict[str, Any]:
        """An episode is its seed and what was chosen in it: SUMO's own saveState loses digits and statistics."""
        chosen = np.array(self._chosen, dtype=np.uint8).reshape(-1, len(self._plan.signals))
        return {
            "envs": [torch.from_numpy(chosen)],
            "streams": [self._stream.bit_generator.state],
            "episodes": [{"seed": self._seed, "step": self._age}],
            "rows": {key: torch.from_numpy(array.copy())[None] for key, array in self._arrays.items()},
        }

    def load(self, state: dict[str, Any]) -> dict[str, Any]:
        """Play the episode again, up to where it was."""
        self._open(state["episodes"][self._first]["seed"])
        for chosen in state["envs"][self._first].numpy():
            self._play(chosen)
        self._stream.bit_generator.state = state["streams"][self._first]
        saved = state["rows"]["observations"][self._first].numpy()
        if not np.array_equal(saved, self._arrays["observations"]):
            logger.warning(
                "traffic_v0, world %d: the episode with seed %d, played again, came to something else than when it was "
                "saved; was that another version of SUMO?",
                self._first, self._seed,
            )  # fmt: skip
        return self.tell()

    def look(self) -> dict[str, Any]:
        """What those see who know all: vehicles and standing ones on each lane [L], phases [N], lights, seconds."""
        lane, lights = self._sumo.lane, self._sumo.trafficlight
        return {
            "vehicles": np.array([lane.getLastStepVehicleNumber(name) for name in self._plan.lanes]),
            "standing": np.array([lane.getLastStepHaltingNumber(name) for name in self._plan.lanes]),
            "phases": self._phase.copy(),
            "lights": [lights.getRedYellowGreenState(name) for name in self._plan.signals],
            "seconds": self._age * self._rules.delta_time,
        }

    def close(self) -> None:
        if self._sumo.isLoaded():
            self._sumo.close()

    # ---- an episode ----

    def _open_next(self) -> None:
        self._open(int(self._stream.integers(2**31 - 1)))

    def _open(self, seed: int) -> None:
        self._seed, self._age, self._over, self._chosen = seed, 0, False, []
        self._phase[:], self._since[:] = 0, 0
        self._waits = Waits()
        with self._blame():
            self.close()
            self._sumo.start(["sumo", *self._options(seed)])
            for seat, name in enumerate(self._plan.signals):
                self._sumo.trafficlight.setRedYellowGreenState(name, self._plan.greens[seat][0])
            self._observe()
        self._arrays["rewards"][:] = 0.0
        self._arrays["measured"][:] = 0.0
        self._say(opening=True)

    def _options(self, seed: int) -> list[str]:
        rules, roads = self._rules, self._rules.roads
        routes = roads.routes
        if routes is None:
            routes = rules.folder / f"world{self._first}.rou.xml"
            draw_trips(self._plan, roads.demand, rules.max_steps * rules.delta_time, seed, routes)
        files = ["-n", str(roads.net), "-r", str(routes), "--begin", str(roads.begin), "--seed", str(seed)]
        return [*files, *OPTIONS, *SILENT]

    def _play(self, chosen: np.ndarray) -> None:
        """One step: lights that change are yellow first, as the phase before and the next one have it."""
        self._age += 1
        self._chosen.append(chosen)
        rules, lights, simulation = self._rules, self._sumo.trafficlight, self._sumo.simulation
        with self._blame():
            begin = rules.roads.begin + (self._age - 1) * rules.delta_time
            changes = (chosen != self._phase) & (self._since >= rules.yellow_time + rules.min_green)
            seats = changes.nonzero()[0].tolist()
            for seat in seats:
                lights.setRedYellowGreenState(self._plan.signals[seat], self._yellow(seat, int(chosen[seat])))
            self._phase[changes], self._since[changes] = chosen[changes], 0
            if seats:
                simulation.step(begin + rules.yellow_time)
            for seat in seats:
                lights.setRedYellowGreenState(self._plan.signals[seat], self._plan.greens[seat][chosen[seat]])
            simulation.step(begin + rules.delta_time)
            self._since += rules.delta_time
            standing = self._observe()
            self._arrays["rewards"][:] = self._rewards(standing)
            self._over = self._age >= rules.max_steps
            self._measure(standing)
        self._say(opening=False)

    def _yellow(self, seat: int, phase: int) -> str:
        """The state between two green phases: yellow where green becomes red, and green where it stays."""
        pair = self._plan.greens[seat][self._phase[seat]], self._plan.greens[seat][phase]
        if pair not in self._yellows:
            letters = ("y" if a in "Gg" and b in "rs" else a for a, b in zip(*pair, strict=True))
            self._yellows[pair] = "".join(letters)
        return self._yellows[pair]

    def _observe(self) -> np.ndarray:
        """Write what agents see; the standing vehicles on each of the lanes before lights, [M]."""
        layout, vehicles = self._layout, self._vehicles
        number, standing, length = np.zeros((3, len(layout.names)))
        vehicles.clear()
        for i in self._occupied():
            name = layout.names[i]
            vehicles[i] = self._sumo.lane.getLastStepVehicleIDs(name)
            number[i] = len(vehicles[i])
            standing[i] = self._sumo.lane.getLastStepHaltingNumber(name)
            length[i] = self._sumo.lane.getLastStepLength(name)
        room = layout.lengths / (MIN_GAP + length)
        out = self._arrays["observations"]
        out[:] = 0.0
        out[layout.seats, self._phase] = 1.0
        out[:, layout.flag] = self._since >= self._rules.min_green + self._rules.yellow_time
        out[layout.seat, layout.density] = np.minimum(1.0, number / room)[layout.lane]
        out[layout.seat, layout.density + layout.most] = np.minimum(1.0, standing / room)[layout.lane]
        return standing

    def _occupied(self) -> list[int]:
        """The lanes before lights where vehicles are: to ask each vehicle is faster than to ask each lane."""
        vehicle, place = self._sumo.vehicle, self._layout.place
        found = {place.get(vehicle.getLaneID(name), -1) for name in vehicle.getIDList()}
        return sorted(found - {-1})

    def _rewards(self, standing: np.ndarray) -> np.ndarray:
        """[N], sumo-rl's of that name."""
        layout, kind = self._layout, self._rules.reward
        if kind == "queue":
            return -layout.by_seat(standing)
        if kind == "pressure":
            count = self._sumo.lane.getLastStepVehicleNumber
            after = [sum(count(name) for name in names) for names in layout.after]
            return np.array(after) - layout.by_seat(self._of_vehicles(len))
        vehicle = self._sumo.vehicle
        if kind == "average-speed":
            shares = self._of_vehicles(lambda ids: sum(vehicle.getSpeed(v) / vehicle.getAllowedSpeed(v) for v in ids))
            total, number = layout.by_seat(shares), layout.by_seat(self._of_vehicles(len))
            return np.where(number > 0, total / np.maximum(number, 1), 1.0)
        waited = np.zeros(len(layout.names))
        for i, ids in self._vehicles.items():
            waited[i] = self._waits.on(i, ids, vehicle.getAccumulatedWaitingTime)
        return self._waits.less(layout.by_seat(waited))

    def _of_vehicles(self, function: Callable[[tuple[str, ...]], float]) -> np.ndarray:
        """[M], of the vehicles on each lane before lights; 0 where there are none."""
        found = np.zeros(len(self._layout.names))
        for i, ids in self._vehicles.items():
            found[i] = function(ids)
        return found

    def _measure(self, standing: np.ndarray) -> None:
        """Numbers that add up to metrics, by `MEASURES`; those of trips at the end, by SUMO's tripinfo devices."""
        told = self._arrays["measured"]
        told[:] = 0.0
        told[:2] = 1.0, self._layout.by_seat(standing).mean()
        if not self._over:
            return

        def of(name: str) -> float:
            return float(self._sumo.simulation.getParameter("", name) or 0.0)

        arrived = of("device.tripinfo.count")
        waiting, travel = of("device.tripinfo.waitingTime"), of("device.tripinfo.duration")
        backlog = of("stats.vehicles.running") + of("stats.vehicles.waiting")
        hours = self._rules.max_steps * self._rules.delta_time / 3600
        told[2:] = 1.0, arrived, arrived * waiting, arrived * travel, backlog, hours

    def _say(self, opening: bool) -> None:
        arrays = self._arrays
        arrays["truncated"][:] = self._over
        arrays["alive"][:] = not self._over
        arrays["first"][:] = opening
        arrays["age"][...] = self._age / self._rules.max_steps

    # ---- of the whole ----

    def _new_stream(self, seed: int | None) -> np.random.Generator:
        return np.random.default_rng(np.random.SeedSequence(seed).spawn(self._total)[self._first])

    @contextmanager
    def _blame(self) -> Iterator[None]:
        self._note(self._first, self._age, self._seed)
        try:
            yield
        except Exception as error:
            where = f"world {self._first} failed in step {self._age} of the episode with seed {self._seed}"
            raise RuntimeError(f"traffic_v0, {where}: {type(error).__name__}: {error}") from error
        self._note(-1, 0, 0)


class _Layout:
    """Where the numbers of lanes stand in observations: one-hot of the phase, the flag, densities, queues."""

    def __init__(self, plan: SumoMap) -> None:
        before = list(dict.fromkeys(lane for lanes in plan.incoming for lane in lanes))
        place = {lane: i for i, lane in enumerate(before)}
        self.names = [plan.lanes[lane] for lane in before]
        self.place = {name: i for i, name in enumerate(self.names)}
        self.lengths = plan.lengths[before]
        self.after = [[plan.lanes[lane] for lane in lanes] for lanes in plan.outgoing]
        self.flag, self.most = max(plan.num_phases), plan.most_lanes
        pairs = [(seat, i, place[lane]) for seat, lanes in enumerate(plan.incoming) for i, lane in enumerate(lanes)]
        self.seat, slot, self.lane = np.array(pairs).T
        self.density = self.flag + 1 + slot
        self.seats = np.arange(len(plan.signals))

    def by_seat(self, of_lanes: np.ndarray) -> np.ndarray:
        """[M] -> [N], sums over the lanes before each light."""
        return np.bincount(self.seat, of_lanes[self.lane], len(self.seats))


def observation_size(plan: SumoMap) -> int:
    """O: one-hot of the phase, whether it may change, and two numbers for each lane, as the largest light has them."""
    return max(plan.num_phases) + 1 + 2 * plan.most_lanes
