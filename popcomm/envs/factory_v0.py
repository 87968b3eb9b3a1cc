"""factory_v0: sensors see the machines, processors know tariff, product and orders, and actuators alone can act.

Heat, vibration, wear and queues each call for an action of their own, and who sees them cannot take it.
`python -m popcomm.envs.factory_v0 [FILE.png]` draws a moment in which every action but one is called for.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from gymnasium import spaces
from pettingzoo import AECEnv
from torch import Tensor

from popcomm.checks import between, count, not_negative, share
from popcomm.envs.episodic_world import EpisodicWorld
from popcomm.envs.factory_machines import (
    ACTIONS,
    EXCESS,
    LIMIT,
    REPAIR,
    ROOM,
    ROUTE,
    SPEEDS,
    Machines,
    heated,
    routed,
    share_of,
    switched,
    worn,
)
from popcomm.envs.world import Species
from popcomm.envs.world_parallel import WorldParallelEnv, turn_based, turn_based_raw
from popcomm.errors import UserError

SENSOR, PROCESSOR, ACTUATOR = "sensor", "processor", "actuator"
SCALE = 100.0  # K, in which temperatures are observed
PEAK = (0.1, 0.2)  # probability with which a peak of the tariff begins in a step, and with which it ends
PRODUCT = (0.1, 0.1)  # and a delicate product
RETURNS = 0.1  # probability with which a cooling that failed works again
CALMS = 0.125  # and with which a vibration is over
FINE, WORN, SHAKING, HEATING, CROWDED, DOWN = range(6)  # labels of sensors; those of processors follow
COUNTED = ("throughput", "damage", "breakdowns", "backlog", "energy", "lost")


class FactoryWorld(EpisodicWorld):
    """B factories of M machines, each with a sensor and an actuator of its own, and P processors for all.

    A step, in this order. Every actuator does one of Discrete(5): 0 run, 1 slow, 2 stop, 3 repair, 4 route. Run makes a
    job of those that wait, slow makes half a one, and route hands up to 3 to the next machine. A
    machine heats up with its speed, to 40 K above the surroundings at full speed, to 120 K while its cooling is out of
    order. Repair takes `repair_steps` in which nothing else is done, and ends a defect. A defect arises at work, and
    from then on 3 steps of full speed break the machine, which is down for `break_steps` (`factory_machines` has the
    equations). Then the orders come, `orders` * M jobs in the mean (binomial, of 2 M), and every processor sends its
    equal share to one machine, Discrete(M); 12 wait at a machine at most, and more are lost. Sensors do nothing,
    Discrete(1). An episode is cut after `max_steps` steps (truncated).

    Coolings fail and vibrations begin by chance, and last 10 and 8 steps in the mean; so do peaks of the tariff (5, a
    third of the time) and delicate products (10, half of the time), which are one for the factory.

    Reward: own, of a machine = jobs made - price * speed^2 (energy; `price` or, in a peak, `peak_price`)
    - damage - 0.04 * jobs that wait - 0.5 * jobs lost; damage = `shake_damage` * speed while it vibrates + 1 for each
    20 K by which it is hotter than 60 K with a delicate product + `break_damage` where it breaks. Its sensor and
    actuator get (1 - reward_share) * own + reward_share * (mean of own over the machines), processors get that mean.

    So each symptom has a cure: wear calls for repair, vibration for a stop, a failed cooling for slow, but with a
    delicate product alone, and a peak for slow too; long queues are shared. The sensor knows the first half of that,
    processors the second, and actuators nothing but what they are told. (Where messages are heard a step after they are
    sent, the actions are late by one step. `factory_references` has what that costs.)

    Observations. A sensor's [M + 8]: which machine, one-hot; temperature / 100 K, vibration (1 or 0), wear and
    queue / 12, each with noise of the standard deviation `noise`; whether it works, is under repair or broken; and a
    constant 1. A processor's [P + 4]: which one, one-hot; whether there is a peak; whether the product is delicate;
    jobs lost in the last step / M; and a constant 1. An actuator's [M + 6]: which machine, one-hot; the last action,
    one-hot, zeros at first; and a constant 1.

    State [5 M + 2]: temperature / 100, vibration, wear, queue / 12 and whether it works, of all machines; peak;
    delicate. Labels: 0 to 5, what a sensor's machine has (nothing, wear, vibration, a cooling that failed, a queue of 8
    or more, down; the first that applies after down, in this order); 6 to 9, 6 + 2 * peak + delicate, of processors; -1
    of actuators. Metrics, per machine and step: "throughput" (jobs), "damage", "breakdowns", "backlog" (jobs), "energy"
    (its price), "lost" (jobs).

    A factory that was never seeded starts from seed 0.

    Args:
        num_worlds: B.
        machines: M; N is 2 M + P.
        processors: P.
        max_steps: steps of an episode.
        orders: mean jobs that come in a step, for each machine; at most 2.
        defect_rate: probability with which a defect arises in a step of full speed.
        cooling_rate: probability with which a cooling that works fails in a step.
        shake_rate: probability with which a vibration begins in a step.
        repair_steps, break_steps: see the step above.
        price, peak_price: of a step's energy at full speed, in units of reward.
        shake_damage, break_damage: see the reward above.
        noise: standard deviation of what sensors measure.
        reward_share: 0 = own machine only, 1 = the mean of all.

    Raises:
        UserError: a value out of its range, or actions that do not fit (`step`).
    """

    name = "factory_v0"
    kept = (*EpisodicWorld.kept, "machines", "repairs", "peak", "delicate", "chosen", "sent", "lost", "counts")
    ends_at_deadline = False
    num_labels = 10

    def __init__(
        self,
        num_worlds: int = 1,
        machines: int = 3,
        device: str | torch.device = "cpu",
        processors: int = 1,
        max_steps: int = 48,
        orders: float = 0.5,
        defect_rate: float = 0.06,
        cooling_rate: float = 0.06,
        shake_rate: float = 0.04,
        repair_steps: int = 2,
        break_steps: int = 8,
        price: float = 0.2,
        peak_price: float = 1.2,
        shake_damage: float = 2.0,
        break_damage: float = 4.0,
        noise: float = 0.05,
        reward_share: float = 0.5,
    ) -> None:
        _check_ranges(locals())
        super().__init__(num_worlds, device, max_steps)
        self.machines, self.processors, self.orders = machines, processors, float(orders)
        self.defect_rate, self.cooling_rate, self.shake_rate = defect_rate, cooling_rate, shake_rate
        self.repair_steps, self.break_steps = repair_steps, break_steps
        self.price, self.peak_price = price, peak_price
        self.shake_damage, self.break_damage = shake_damage, break_damage
        self.noise, self.reward_share = noise, reward_share
        self.species = _species(machines, processors)
        self.state_size = 5 * machines + 2
        self._speeds = torch.tensor(SPEEDS, device=self.device)
        self._machines: Machines | None = None
        self._repairs: Tensor | None = None  # [B, M] bool, of those that are down: under repair, not broken
        self._peak: Tensor | None = None  # [B] bool
        self._delicate: Tensor | None = None  # [B] bool
        self._chosen: Tensor | None = None  # [B, M] int64, the actuators' last actions, -1 before the first
        self._sent: Tensor | None = None  # [B, P] int64, to where processors last sent orders, -1 before
        self._lost: Tensor | None = None  # [B] float32, jobs, in the last step
        # Machine-steps, and sums over them, in the order of COUNTED.
        self._counts = torch.zeros(1 + len(COUNTED), dtype=torch.float64, device=self.device)

    def here(self) -> tuple[Machines, Tensor, Tensor]:
        """The machines, whether there is a peak, and whether the product is delicate, [B] bool, for scripts that know
        all. Raises UserError: it was not reset."""
        if self._machines is None or self._peak is None or self._delicate is None:
            raise UserError(f"{self.name} shows nothing before it was reset; call reset first")
        return self._machines, self._peak, self._delicate

    def _begin(self, worlds: Tensor) -> None:
        b, m = self.num_worlds, self.machines
        draws = torch.rand(b, 2 * m + 2, generator=self._generator, device=self.device)
        cooling, shaking, peak, delicate = draws.split((m, m, 1, 1), 1)
        zeros = torch.zeros(b, m, device=self.device)
        new = Machines(
            temperature=zeros,
            cooled=cooling >= share_of(self.cooling_rate, RETURNS),
            shaking=shaking < share_of(self.shake_rate, CALMS),
            wear=zeros.clone(),
            down=zeros.long(),
            queue=torch.full_like(zeros, 2.0),
        )
        old = self._machines
        pairs = zip(new if old is None else old, new, strict=True)
        self._machines = Machines(*(self._renewed(None if old is None else was, now, worlds) for was, now in pairs))
        self._repairs = self._renewed(self._repairs, zeros.bool(), worlds)
        self._peak = self._renewed(self._peak, peak[:, 0] < share_of(*PEAK), worlds)
        self._delicate = self._renewed(self._delicate, delicate[:, 0] < share_of(*PRODUCT), worlds)
        self._chosen = self._renewed(self._chosen, torch.full_like(new.down, -1), worlds)
        sent = torch.full((b, self.processors), -1, device=self.device)
        self._sent = self._renewed(self._sent, sent, worlds)
        self._lost = self._renewed(self._lost, zeros[:, 0], worlds)

    def _play(self, actions: dict[str, Tensor], spoken: Tensor | None) -> tuple[Tensor, Tensor]:
        """The processors' and actuators' step; see the class."""
        now, peak, delicate = self.here()
        self._chosen, self._sent = actions[ACTUATOR].clone(), actions[PROCESSOR].clone()
        speed = self._speeds[self._chosen] * now.works
        queue = routed(now.queue, (self._chosen == ROUTE) & now.works)
        made = torch.minimum(queue, speed)
        draws = torch.rand(self.num_worlds, 5 * self.machines + 2, generator=self._generator, device=self.device)
        defect, cooling, shaking, orders, rest = draws.split([self.machines] * 3 + [2 * self.machines, 2], 1)
        temperature = heated(now.temperature, now.cooled, speed)
        wear = worn(now.wear, speed, defect < self.defect_rate * speed)
        repairs, breaks = (self._chosen == REPAIR) & now.works, (wear >= 1.0) & now.works
        excess = (temperature - LIMIT).clamp(min=0.0) * delicate.unsqueeze(-1) / EXCESS
        damage = self.shake_damage * speed * now.shaking + excess + self.break_damage * breaks
        queue, lost = self._take_orders(queue - made, orders)
        down = (now.down - 1).clamp(min=0)
        down = torch.where(repairs, self.repair_steps - 1, torch.where(breaks, self.break_steps, down))
        assert self._repairs is not None
        self._repairs = torch.where(now.works, repairs, self._repairs)
        self._machines = Machines(
            temperature=temperature,
            cooled=~switched(~now.cooled, self.cooling_rate, RETURNS, cooling),
            shaking=switched(now.shaking, self.shake_rate, CALMS, shaking),
            wear=wear.masked_fill(repairs | breaks, 0.0),
            down=down,
            queue=queue,
        )
        energy = torch.where(peak, self.peak_price, self.price).unsqueeze(-1) * speed.square()
        self._peak = switched(peak, *PEAK, rest[:, 0])
        self._delicate = switched(delicate, *PRODUCT, rest[:, 1])
        self._count(made, damage, breaks, queue, energy, lost)
        own = made - energy - damage - 0.04 * queue - 0.5 * lost
        return self._shared(own), torch.zeros_like(self._over)

    def _take_orders(self, queue: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
        """Jobs that wait [B, M] after the orders have come, and jobs lost [B, M]. draws: [B, 2 M], even."""
        assert self._sent is not None
        coming = (draws < self.orders / 2).sum(-1, keepdim=True) / self.processors
        queue = queue.scatter_add(1, self._sent, coming.expand(-1, self.processors))
        lost = (queue - ROOM).clamp(min=0.0)
        self._lost = lost.sum(-1)
        return queue - lost, lost

    def _count(self, *columns: Tensor) -> None:
        acting = ~self._over.unsqueeze(-1)
        sums = [acting.expand(-1, self.machines).sum(), *((column * acting).sum() for column in columns)]
        self._counts = self._counts + torch.stack([part.double() for part in sums])

    def _shared(self, own: Tensor) -> Tensor:
        """[B, N], what all seats get of what machines earned [B, M]."""
        mean = own.mean(-1, keepdim=True)
        mixed = own.mul(1.0 - self.reward_share).add(mean, alpha=self.reward_share)
        return torch.cat((mixed, mean.expand(-1, self.processors), mixed), 1)

    def metrics(self) -> dict[str, float]:
        """Means per machine and step, where any were made."""
        steps, *sums = self._counts.tolist()
        self._counts = torch.zeros_like(self._counts)
        return {name: total / steps for name, total in zip(COUNTED, sums, strict=True)} if steps else {}

    def _observe(self) -> dict[str, Tensor]:
        now, peak, delicate = self.here()
        assert self._repairs is not None
        assert self._chosen is not None
        assert self._lost is not None
        b, m, p = self.num_worlds, self.machines, self.processors
        measured = torch.stack((now.temperature / SCALE, now.shaking.float(), now.wear, now.queue / ROOM), -1)
        noise = torch.randn(measured.shape, generator=self._generator, device=self.device)
        state = torch.where(now.works, 0, torch.where(self._repairs, 1, 2))
        which, one = torch.eye(m, device=self.device).expand(b, m, m), torch.ones(b, m, 1, device=self.device)
        sensor = torch.cat((which, measured.add(noise, alpha=self.noise), F.one_hot(state, 3), one), -1)
        told = torch.stack((peak.float(), delicate.float(), self._lost / m, torch.ones_like(self._lost)), -1)
        processor = torch.cat(
            (torch.eye(p, device=self.device).expand(b, p, p), told.unsqueeze(1).expand(-1, p, -1)), -1
        )
        # The class after the last is that of no action yet, which is cut off.
        did = F.one_hot(self._chosen.remainder(len(ACTIONS) + 1), len(ACTIONS) + 1)[..., : len(ACTIONS)]
        return {SENSOR: sensor, PROCESSOR: processor, ACTUATOR: torch.cat((which, did, one), -1)}

    def _labels(self) -> Tensor:
        now, peak, delicate = self.here()
        crowded = torch.where(now.queue >= 8.0, CROWDED, FINE)
        seen = torch.where(now.cooled, crowded, HEATING).masked_fill(now.shaking, SHAKING)
        seen = seen.masked_fill(now.wear > 0, WORN).masked_fill(~now.works, DOWN)
        known = (6 + 2 * peak + delicate).unsqueeze(-1).expand(-1, self.processors)
        return torch.cat((seen, known, torch.full_like(seen, -1)), 1)

    def _latent_state(self) -> Tensor:
        now, peak, delicate = self.here()
        parts = (now.temperature / SCALE, now.shaking, now.wear, now.queue / ROOM, now.works)
        return torch.cat((*parts, peak.unsqueeze(-1), delicate.unsqueeze(-1)), 1).float()

    def render(self, world: int = 0, links: Tensor | None = None) -> np.ndarray:
        """One factory as an RGB picture [480, 480, 3] uint8; links [M, 2] int64 are (sender, receiver) pairs."""
        # matplotlib is slow to import, and training needs no pictures.
        from popcomm.envs.factory_picture import draw_factory

        now, peak, delicate = self.here()
        assert self._chosen is not None
        assert self._sent is not None
        assert self._repairs is not None
        return draw_factory(
            Machines(*(part[world].cpu() for part in now)),
            repairs=self._repairs[world].cpu().numpy(),
            chosen=self._chosen[world].cpu().numpy(),
            sent=self._sent[world].cpu().numpy(),
            peak=bool(peak[world]),
            delicate=bool(delicate[world]),
            links=None if links is None else links.cpu().numpy(),
            title=f"step {int(self._age[world])} of {self.max_steps}",
        )


def _species(machines: int, processors: int) -> dict[str, Species]:
    parts = (
        (SENSOR, machines, machines + 8, 1),
        (PROCESSOR, processors, processors + 4, machines),
        (ACTUATOR, machines, machines + 6, len(ACTIONS)),
    )
    species, start = {}, 0
    for name, seats, seen, choices in parts:
        agents = tuple(f"{name}_{i}" for i in range(seats))
        species[name] = Species(name, start, start + seats, seen, spaces.Discrete(choices), agents)
        start += seats
    return species


def _check_ranges(values: dict[str, Any]) -> None:
    for key, least in {"machines": 1, "processors": 1, "repair_steps": 1, "break_steps": 0}.items():
        count(f"factory_v0: {key}", values[key], least)
    for key in ("defect_rate", "cooling_rate", "shake_rate", "reward_share"):
        share(f"factory_v0: {key}", values[key])
    for key in ("price", "peak_price", "shake_damage", "break_damage", "noise"):
        not_negative(f"factory_v0: {key}", values[key])
    between("factory_v0: orders", values["orders"], 0, 2)


def parallel_env(render_mode: str | None = None, **kwargs: Any) -> WorldParallelEnv:
    """One factory as a PettingZoo ParallelEnv; keyword arguments are FactoryWorld's.

    >>> env = parallel_env(machines=2)
    >>> observations, infos = env.reset(seed=1)
    >>> [(agent, seen.shape, env.action_space(agent)) for agent, seen in list(observations.items())[1:4]]
    [('sensor_1', (10,), Discrete(1)), ('processor_0', (5,), Discrete(2)), ('actuator_0', (8,), Discrete(5))]
    """
    return WorldParallelEnv(FactoryWorld(num_worlds=1, **kwargs), name="factory_v0", render_mode=render_mode)


def raw_env(render_mode: str | None = None, **kwargs: Any) -> AECEnv:
    """One factory as a PettingZoo AECEnv, without the wrappers that check its use."""
    return turn_based_raw(parallel_env(render_mode, **kwargs))


def env(render_mode: str | None = None, **kwargs: Any) -> AECEnv:
    """One factory as a PettingZoo AECEnv, in PettingZoo's usual wrappers."""
    return turn_based(parallel_env(render_mode, **kwargs))


if __name__ == "__main__":
    from popcomm.envs.demo import main

    main("factory_v0")
