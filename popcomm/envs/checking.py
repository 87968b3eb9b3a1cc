"""Whether an environment of others can be trained in: what was found, and what is wrong, in a sentence each."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from gymnasium import spaces

from popcomm.envs.candidates import ENTRY, LIKE_ANY, unlike
from popcomm.envs.flat_spaces import MASK
from popcomm.envs.foreign import create_env
from popcomm.envs.lock_step import LockStep, differing, lock_step
from popcomm.envs.pettingzoo import ParallelEnvWorld
from popcomm.envs.plain_loop import PlainLoop, draw, mask_in
from popcomm.envs.sight import WHITE
from popcomm.envs.testing import world_api_test
from popcomm.envs.world import Species
from popcomm.errors import UserError

COPIES = 2  # so that one world can be told from another
# Numbers in an observation above which the first layer of a small network is a large one.
LARGE = 10_000
NOTES = {
    "stays": "agents that are done stay in `agents` while others go on: their next life begins at once",
    "no final observation": "agents are done without a final observation: the one before stands for it",
    "leaves without a word": "agents leave `agents` and no flag says so: they count as terminated",
    "rewards for the dead": "agents that did not act get rewards: these are not counted",
}


@dataclass
class EnvCheck:
    """The result of `check_env`."""

    facts: dict[str, list[str]] = field(default_factory=dict)  # {what: lines}
    notes: list[str] = field(default_factory=list)  # worth knowing
    wrong: list[str] = field(default_factory=list)  # to be mended
    rates: dict[str, float] = field(default_factory=dict)  # {where: agent steps a second}


def check_env(
    creator: Callable[..., Any], env_config: Mapping[str, Any] | None = None, num_steps: int = 200, seed: int = 0
) -> EnvCheck:
    """Look at an environment, and hold copies of it in a World against plain loops with equal seeds and actions.

    Args:
        creator: as for `ParallelEnvWorld`.
        env_config: for it.
        num_steps: of every trial; more than an episode has, or the end of an episode is not looked at.
        seed: of worlds and actions.

    >>> from popcomm.envs import swarm_v0
    >>> check = check_env(swarm_v0.parallel_env, {"num_agents": 3, "max_steps": 5}, num_steps=12)
    >>> check.wrong, check.facts["lock step"]
    ([], ['20 steps in 4 episodes: lives, rewards, flags, masks and observations are those of a plain loop'])
    """
    check, config, envs = EnvCheck(), dict(env_config or {}), []

    def made() -> Any:
        envs.append(create_env(creator, config))
        return envs[-1]

    try:
        with _told(check):
            world = ParallelEnvWorld(lambda _: made(), COPIES)
            _describe(check, world)
            _look_at_episodes(check, world, made, num_steps, seed)
    finally:
        for env in envs:
            env.close()
    return check


@contextmanager
def _told(check: EnvCheck) -> Iterator[None]:
    """Every error is a sentence among what is wrong: an environment of others may raise anything."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except UserError as error:
        check.wrong.append(str(error))
    except Exception as error:
        check.wrong.append(f"it raises {type(error).__name__}: {error}")


def _look_at_episodes(
    check: EnvCheck, world: ParallelEnvWorld, made: Callable[[], Any], num_steps: int, seed: int
) -> None:
    difference = _difference_of_twins(world, [PlainLoop(made()) for _ in range(2)], num_steps, seed)
    if difference:
        check.wrong.append(
            "with the same seed and actions two copies differ, so no run can be repeated and nothing else was looked "
            f"at: {difference}"
        )
        return
    loops = [PlainLoop(made()) for _ in range(COPIES)]
    loops[0].reset(0)  # as the first of the worlds was: an environment may remember
    step = lock_step(world, loops, num_steps, seed)
    _conclude(check, world, step, loops, num_steps)
    if world.get_state() is None:
        check.notes.append("it cannot be pickled: a training that is resumed starts new episodes")
    if step.difference:
        return
    try:
        world_api_test(ParallelEnvWorld(lambda _: made(), COPIES), num_steps)
    except AssertionError as error:
        again = "gave something else the second time" in str(error)
        what = "an episode is not a function of its seed and actions alone" if again else "as worlds"
        check.wrong.append(f"{what}: {error}")


def _difference_of_twins(world: ParallelEnvWorld, twins: Sequence[PlainLoop], num_steps: int, seed: int) -> str:
    """Where two copies differ that are given the same seed and random actions; "" if they do not."""
    one, other = twins
    rng = np.random.default_rng(seed)
    env = one.env
    rows = [loop.reset(seed) for loop in twins]
    for t in range(num_steps):
        different = differing(rows[0], rows[1], lambda agent: world.face_of(agent).observation.space)
        if different:
            return f"in step {t} {different}"
        row = rows[0]
        if not row.goes_on:
            rows = [loop.reset(seed + t + 1) for loop in twins]
            continue
        actions = {
            agent: draw(env.action_space(agent), mask_in(row, agent), rng)
            for agent in sorted(row.there, key=str)
            if agent in row.observations
        }
        rows = [one.step(actions), other.step(actions)]
    return ""


def _describe(check: EnvCheck, world: ParallelEnvWorld) -> None:
    facts = check.facts
    facts["species"] = [_of_species(world, name, species) for name, species in world.species.items()]
    masked = [name for name, species in world.species.items() if species.has_action_mask]
    facts["masks"] = [f"of {', '.join(masked)}" if masked else "none"]
    picking = {name: found for name, species in world.species.items() if (found := species.candidates)}
    if picking:
        facts[ENTRY] = [
            f"'{name}' is told of {found.actions} actions in {found.size} numbers each"
            for name, found in picking.items()
        ]
    size = world.position_size
    facts["positions"] = [f"{size} axes" if size else "none, so topology k_nearest cannot be used"]
    if world.position_failure:
        check.notes.append(f"`positions` are not taken for positions: {world.position_failure}")
    facts["state"] = [f"{world.state_size:,} numbers" if world.state_size else "none, so critic central cannot be used"]
    for name, species in world.species.items():
        face, size = world.face_of(world.agents[species.start]), species.obs_size
        if size > LARGE:
            check.notes.append(
                f"'{name}' observes {size:,} numbers: a layer of 64 has {size * 64:,} weights, and a step of an agent "
                f"is {size * 4 / 1e6:.1f} MB"
            )
        observed = face.observation.space
        if _nested_mask(observed):
            check.notes.append(
                f"'{name}' has an action_mask inside a part of its observation: it is observed, and not obeyed; put it "
                "beside the other entries of the outermost Dict"
            )
        if face.action.is_box and isinstance(observed, spaces.Dict) and MASK in observed.spaces:
            check.notes.append(f"'{name}' has an action_mask and Box actions: the mask is a part of what it observes")
        small = {picture.high for picture in species.sight.pictures} - {WHITE} if species.sight else ()
        check.notes.extend(
            f"'{name}' observes bytes from 0 to {high}, which count as a picture: networks get them divided by {high}"
            for high in sorted(small)
        )
        if (entry := unlike(species.structure, species.action_space)) is not None:
            check.notes.append(f"'{name}' {LIKE_ANY.format(entry)}")


def _nested_mask(space: spaces.Space, depth: int = 0) -> bool:
    """Whether a Dict further in than the first has an entry by the name of masks."""
    if isinstance(space, spaces.Dict):
        return (depth > 0 and MASK in space.spaces) or any(_nested_mask(s, depth + 1) for s in space.spaces.values())
    return isinstance(space, spaces.Tuple) and any(_nested_mask(part, depth + 1) for part in space.spaces)


def _of_species(world: ParallelEnvWorld, name: str, species: Species) -> str:
    agents = [str(agent) for agent in world.agents[species.seats]]
    named = ", ".join(agents if len(agents) < 4 else [agents[0], "...", agents[-1]])
    face = world.face_of(world.agents[species.start])
    space = face.action.env_space
    actions = str(space) if not face.action.is_box else f"Box{space.shape} in its bounds"
    return f"{name} ({len(agents)}: {named}) observes {species.obs_size:,} numbers, acts in {actions}"


def _conclude(
    check: EnvCheck, world: ParallelEnvWorld, step: LockStep, loops: Sequence[PlainLoop], num_steps: int
) -> None:
    """Facts, notes and rates of a lock step."""
    lengths = [length for loop in loops for length in loop.lengths]
    ends = sorted({min(lengths, default=0), max(lengths, default=0)})
    told = f"{' to '.join(map(str, ends))} steps"
    check.facts["episodes"] = [told if lengths else f"none ended in {num_steps} steps"]
    if not lengths:
        check.notes.append(f"no episode ended in {num_steps} steps, so none was looked at: raise --steps")
    if step.difference:
        check.wrong.append(f"unlike in a plain loop with the same seed and actions: {step.difference}")
    else:
        same = "lives, rewards, flags, masks and observations are those of a plain loop"
        check.facts["lock step"] = [f"{step.steps:,} steps in {len(lengths)} episodes: {same}"]
    seen = sum((loop.seen for loop in loops), start=Counter())
    check.notes += [sentence for key, sentence in NOTES.items() if seen[key]]
    if not seen["rewarded"]:
        check.notes.append("every reward was 0 with random actions: there may be nothing to learn from at first")
    if step.waiting:
        check.notes.append(
            f"in {step.waiting:.0%} of the agents' steps nothing is allowed (they are not on move): these count as "
            "decisions all the same"
        )
    if step.outside:
        check.notes.append(f"{step.outside}: bounds of real numbers are not held to")
    if world.state_failure:
        instead = "the one before stands for it" if world.state_size else "there is none"
        check.notes.append(f"state() fails, and {instead}: {world.state_failure}")
    check.rates["a plain loop"] = sum(loop.agent_steps for loop in loops) / sum(loop.seconds for loop in loops)
    check.rates["as worlds"] = step.agent_steps / step.seconds
