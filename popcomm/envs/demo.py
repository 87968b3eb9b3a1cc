"""A picture of every world as a program: python -m popcomm.envs.alarm_v0 [FILE.png] draws a moment that shows the game.

Worlds name this file where they are run, and it names them; nothing here is part of a training.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from popcomm.envs import (
    alarm_v0,
    colour_digit_v0,
    factory_references,
    factory_v0,
    navigation_v0,
    platoon_references,
    platoon_v0,
    predator_prey_v0,
    referential_v0,
    relay_v0,
    swarm_v0,
    switch_riddle_v0,
    traffic_junction_v0,
    traffic_v0,
)
from popcomm.envs.episodic_world import EpisodicWorld
from popcomm.envs.factory_machines import ACTIONS, RUN
from popcomm.envs.navigation_references import assigned
from popcomm.envs.predator_prey_references import together
from popcomm.envs.traffic_junction_references import Planner
from popcomm.envs.traffic_references import MaxPressure

FRAMES_PER_SECOND = 15


class Moment(NamedTuple):
    """What is drawn, and what is said of it."""

    frames: list[np.ndarray]  # [480, 480, 3] uint8 each; several make a film
    told: str


def main(name: str, path: str | None = None, **settings: int) -> None:
    """Draw the moment of that world to `path` (default: the command line's, or NAME.png), and say what it shows.

    `settings` are those of the function below, such as its seed.
    """
    moment = MOMENTS[name](**settings)
    film = len(moment.frames) > 1
    file = Path(path or (sys.argv[1] if len(sys.argv) > 1 else f"{name}.{'gif' if film else 'png'}"))
    first, *others = (Image.fromarray(frame) for frame in moment.frames)
    if film:
        first.save(file, save_all=True, append_images=others, duration=1000 // FRAMES_PER_SECOND, loop=0)
    else:
        first.save(file)
    print(f"{file}: {moment.told}")


def alarm(seed: int = 0) -> Moment:
    """Those who see the predator flee and tell the others; drawn one step later, when all know."""
    world = alarm_v0.AlarmWorld()
    step = world.reset(seed)
    while step.labels is None or not bool((step.labels >= 0).any()):
        step = world.step({alarm_v0.NAME: torch.zeros(1, world.num_agents, dtype=torch.int64)})
    seen = step.labels
    step = world.step({alarm_v0.NAME: seen + 1})
    watchers = (seen[0] >= 0).nonzero().flatten().tolist()
    links = torch.tensor([[sender, seat] for sender in watchers for seat in range(world.num_agents) if seat != sender])
    return Moment(
        [world.render(links=links)],
        f"agents {', '.join(map(str, watchers))} saw a predator of kind {int(seen.max())}, fled, and told the others; "
        f"the mean reward of the step was {step.rewards.mean():.2f}.",
    )


def colour_digit(seed: int = 0) -> Moment:
    """The end of an episode in which each knew the parity of the other's digit."""
    world = colour_digit_v0.ColourDigitWorld()
    return _end(world, seed, lambda: colour_digit_v0.oracle_actions(world), [[0, 1], [1, 0]])


def factory(seed: int = 0) -> Moment:
    """Actuators do what was called for a step before, as they were told; the moment is one of many symptoms."""
    world = factory_v0.FactoryWorld()
    world.reset(seed)
    script, calls = factory_references.Told(), torch.full((1, world.machines), RUN)
    while len(calls.unique()) < world.machines or bool((calls == RUN).any()):
        calls = factory_references.cures(*world.here())
        world.step(script(world))
    m, p = world.machines, world.processors
    links = [[i, m] for i in range(m)] + [[seat, m + p + i] for i in range(m) for seat in (i, m)]
    wants = ", ".join(f"{i} for '{ACTIONS[action]}'" for i, action in enumerate(calls[0].tolist()))
    return Moment(
        [world.render(links=torch.tensor(links))],
        f"a factory of {m} machines after the step in which machine {wants} called; the actuators did what they had "
        "heard of the step before.",
    )


def navigation(seed: int = 0) -> Moment:
    """The end of an episode in which each has a landmark of its own; edges lead from those who start nearest."""
    world = navigation_v0.NavigationWorld(num_agents=7, extent=1.5, view=1.0)
    step = world.reset(seed)
    assert step.positions is not None
    apart = torch.cdist(step.positions[0], step.positions[0]).fill_diagonal_(torch.inf)
    links = torch.stack((apart.argmin(0), torch.arange(world.num_agents)), 1)
    while step.alive.any():
        step = world.step(assigned(world))
    found = world.metrics()
    return Moment(
        [world.render(links=links)],
        f"seven agents after {world.max_steps} steps, each at a landmark of its own; {found['occupied']:.0%} of them "
        "are occupied. Edges lead to each agent from the one that was nearest to it at the start.",
    )


def platoon(seed: int = 3) -> Moment:
    """An emergency vehicle tells those ahead of its mission; the moment is one in which somebody leaves its lane."""
    world = platoon_v0.PlatoonWorld()
    world.reset(seed)
    script, last = platoon_references.Told(), world.num_agents - 1
    leaves = warned = torch.zeros(last, dtype=torch.bool)
    while not leaves.any():
        place, _, before = world.here()
        warned = (place[0, :last] - place[0, last]).remainder(world.road) < platoon_references.WARNED
        critical, (_, side) = world.criticality()[0, last], world.missions()
        world.step(script(world))
        leaves = (critical > 0.5) & warned & (before == side[0, last])[0, :last] & (world.here()[2] != before)[0, :last]
    links = [[last, seat] for seat in warned.nonzero().flatten().tolist()]
    return Moment(
        [world.render(links=torch.tensor(links))],
        f"an emergency vehicle at {world.here()[1][0, last]:.0f} m/s, on a mission of criticality {critical:.2f}, "
        f"tells {len(links)} vehicles ahead of it; {int(leaves.sum())} of them just left its lane.",
    )


def predator_prey(seed: int = 0) -> Moment:
    """The prey is found: predators divide the field between them, and who sees the prey tells the others."""
    world = predator_prey_v0.PredatorPreyWorld(level="medium")
    script, step, steps = together(world), world.reset(seed), 0
    while step.labels is None or not bool((step.labels >= 0).any()):
        step, steps = world.step({predator_prey_v0.NAME: script(world)}), steps + 1
    finder = int((step.labels[0] >= 0).nonzero()[0])
    links = torch.tensor([[finder, seat] for seat in range(world.num_agents) if seat != finder])
    return Moment(
        [world.render(links=links)],
        f"after {steps} steps predator {finder} of {world.num_agents} sees the prey in a field of {world.size} x "
        f"{world.size} cells, and tells all; each earns {step.rewards[0, finder]:+.2f} a step until it is there.",
    )


def referential(seed: int = 0) -> Moment:
    """Four agents of which one speaks; the first listener knows the meaning, the others guess."""
    world = referential_v0.ReferentialWorld(roles="swapping", num_agents=4)
    guesses = torch.randint(10, (1, 4, 2), generator=torch.Generator().manual_seed(seed))
    world.reset(seed)
    step = world.step({"agent": guesses})
    assert step.answers is not None
    right = step.answers["agent"]
    listeners = (right[0, :, 0] >= 0).nonzero().flatten()
    guesses[0, listeners[0]] = right[0, listeners[0]]
    step = world.step({"agent": guesses})
    speaker = int(world._sight.listens(world._episode, world._now)[0].logical_not().nonzero())
    links = torch.tensor([[speaker, seat] for seat in range(4) if seat != speaker])
    meaning = " ".join(str(part) for part in right[0, listeners[0]].tolist())
    rewards = " ".join(f"{reward:g}" for reward in step.rewards[0].tolist())
    return Moment(
        [world.render(links=links)],
        f"a round of four agents; the meaning was {meaning}, and the rewards of agents 0 to 3 are {rewards}.",
    )


def relay(seed: int = 3) -> Moment:
    """The end of an episode in which the kind was passed on."""
    world = relay_v0.RelayWorld()
    chain = [[seat, seat + 1] for seat in range(world.num_agents - 1)]
    return _end(world, seed, lambda: relay_v0.oracle_actions(world), chain)


def swarm(seed: int = 0, steps: int = 60) -> Moment:
    """A film of a random episode."""
    world = swarm_v0.SwarmWorld(num_worlds=1)
    generator = torch.Generator().manual_seed(seed)
    world.reset(seed)
    frames, total = [world.render()], 0.0
    for _ in range(steps):
        actions = torch.randint(5, (1, world.num_agents), generator=generator)
        total += float(world.step({"swarm": actions}).rewards.mean())
        frames.append(world.render())
    return Moment(
        frames,
        f"{steps} steps of {world.num_agents} agents with random actions on a torus; mean reward {total / steps:.3f} "
        "per agent and step. Diamonds perceive the beacon (star), circles do not.",
    )


def switch_riddle(seed: int = 0) -> Moment:
    """The end of an episode in which prisoners know who has been in the room."""
    world = switch_riddle_v0.SwitchRiddleWorld()
    return _end(world, seed, lambda: switch_riddle_v0.oracle_actions(world), None)


def traffic_junction(seed: int = 0) -> Moment:
    """Cars drive as the oracle plans; the moment is one in which somebody brakes."""
    world = traffic_junction_v0.TrafficJunctionWorld(level="medium")
    step, planner = world.reset(seed), Planner(world)
    brakes = torch.zeros_like(step.alive)
    while not bool((brakes & step.alive).any()):
        actions = planner(world)
        brakes = step.alive & (actions == traffic_junction_v0.BRAKE)
        step = world.step({traffic_junction_v0.NAME: actions})
    return Moment(
        [world.render()],
        f"{int(step.alive.sum())} cars on a junction of two two-way roads; {int((brakes & step.alive).sum())} of them "
        "just braked so that nobody crashes.",
    )


def traffic(seed: int = 0) -> Moment:
    """A quarter of an hour on a grid under max-pressure; edges lead to each light from its neighbours."""
    world = traffic_v0.TrafficWorld(net="grid", size=3, demand=400, max_steps=180)
    step, script = world.reset(seed), MaxPressure(world)
    while step.alive.any():
        step = world.step(script(world))
    assert step.positions is not None
    apart = torch.cdist(step.positions[0], step.positions[0])
    links = ((apart > 0) & (apart <= apart[apart > 0].min() * 1.1)).nonzero()
    picture, found = world.render(links=links), world.metrics()
    world.close()
    return Moment(
        [picture],
        f"nine lights after a quarter of an hour of max-pressure; {found['throughput']:.0f} vehicles an hour arrived, "
        f"after a wait of {found['waiting_time']:.0f} s in the mean. Edges lead to each light from its neighbours.",
    )


def _end(
    world: EpisodicWorld, seed: int, oracle: Callable[[], dict[str, torch.Tensor]], links: list[list[int]] | None
) -> Moment:
    step = world.reset(seed)
    while step.alive.any():
        step = world.step(oracle())
    picture = world.render(links=None if links is None else torch.tensor(links))
    return Moment([picture], f"the end of an episode of {world.name} in which all know what others saw.")


MOMENTS: dict[str, Callable[..., Moment]] = {
    "alarm_v0": alarm,
    "colour_digit_v0": colour_digit,
    "factory_v0": factory,
    "navigation_v0": navigation,
    "platoon_v0": platoon,
    "predator_prey_v0": predator_prey,
    "referential_v0": referential,
    "relay_v0": relay,
    "swarm_v0": swarm,
    "switch_riddle_v0": switch_riddle,
    "traffic_junction_v0": traffic_junction,
    "traffic_v0": traffic,
}
