"""What scripts earn in factory_v0: the lines that learned agents are held against.

A script is a function of the world that returns actions {species: [B, N_s] int64}; `Told` remembers what it heard, and
is made anew for each world.
"""

from __future__ import annotations

import torch
from torch import Tensor

from popcomm.envs.factory_machines import REPAIR, ROUTE, RUN, SLOW, STOP, Machines
from popcomm.envs.factory_v0 import ACTUATOR, PROCESSOR, SENSOR, FactoryWorld
from popcomm.envs.scripted import Delayed

Actions = dict[str, Tensor]


class Alone:
    """Nobody is told anything: actuators repeat one action, and repair every `repair_every` steps; orders go round.

    The best of these that is known is `Alone(RUN)` or `Alone(SLOW)`, by the costs.
    """

    def __init__(self, action: int = RUN, repair_every: int | None = None) -> None:
        self.action, self.repair_every, self._step = action, repair_every, 0

    def __call__(self, world: FactoryWorld) -> Actions:
        shape = (world.num_worlds, world.machines)
        due = self.repair_every is not None and self._step % self.repair_every == self.repair_every - 1
        orders = torch.arange(world.processors, device=world.device).add(self._step) % world.machines
        self._step += 1
        return _all(world, orders.expand(world.num_worlds, -1), torch.full(shape, REPAIR if due else self.action))


class Told:
    """All know all that anyone saw, `delay` steps late: 1 where messages are heard a step after they are sent.

    In the first steps of every episode what was seen in its first is taken for what is heard. It looks no further than
    the present, so that a little more may be possible.

    Args:
        delay: steps.
        processors: whether these are heard; if not, tariff and product are taken to be low and delicate, which is
            better than the contrary.
    """

    def __init__(self, delay: int = 1, processors: bool = True) -> None:
        self.delay, self.processors = delay, processors
        self._delayed = Delayed(delay)

    def __call__(self, world: FactoryWorld) -> Actions:
        machines, peak, delicate = world.here()
        *parts, peak, delicate = self._delayed(world, (*machines, peak, delicate))
        machines = Machines(*parts)
        if not self.processors:
            peak, delicate = torch.zeros_like(peak), torch.ones_like(delicate)
        return _all(world, dealt(machines, world.processors), cures(machines, peak, delicate))


def cures(now: Machines, peak: Tensor, delicate: Tensor) -> Tensor:
    """[B, M], what the machines call for; peak and delicate are [B] bool."""
    ahead = now.queue - now.queue.roll(-1, -1)
    chosen = torch.full_like(now.down, RUN)
    for calls, action in (
        (peak.unsqueeze(-1) & (now.queue < 9.0), SLOW),
        (~now.cooled & delicate.unsqueeze(-1), SLOW),
        (now.queue < 1.0, SLOW),
        (now.shaking, STOP),
        (now.shaking & (ahead > 1.0), ROUTE),
        (now.wear > 0, REPAIR),
    ):
        chosen = chosen.masked_fill(calls, action)
    return chosen


def dealt(now: Machines, processors: int) -> Tensor:
    """[B, P], the machines with the least to do, each step of being down counted as a job."""
    return (now.queue + now.down).argsort(dim=-1, stable=True)[:, torch.arange(processors) % now.queue.shape[-1]]


def _all(world: FactoryWorld, orders: Tensor, chosen: Tensor) -> Actions:
    return {SENSOR: torch.zeros_like(chosen), PROCESSOR: orders, ACTUATOR: chosen.to(world.device)}
