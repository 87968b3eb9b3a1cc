"""A scenario of VMAS as a World beside VMAS itself: `check_env` for `vmas:NAME`."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from popcomm.envs.checking import EnvCheck
from popcomm.envs.testing import sample_actions, world_api_test
from popcomm.envs.vmas_world import VmasWorld, flat
from popcomm.envs.world import WorldStep
from popcomm.errors import UserError

COPIES = 4
PLAIN = "a plain loop"  # of VMAS itself


def check_vmas(
    maker: Callable[..., VmasWorld], env_config: Mapping[str, Any], num_steps: int = 200, seed: int = 0
) -> EnvCheck:
    """Look at a scenario, and hold its worlds against VMAS's own, stepped with the same seed and actions.

    Args:
        maker: makes the world.
        env_config: for it.
        num_steps: of every trial; more than an episode has.
        seed: of worlds and actions.
    """
    check = EnvCheck()
    try:
        world = maker(num_worlds=COPIES, **env_config)
        _describe(check, world)
        _conclude(check, VmasLockStep(world, num_steps, seed))
        world_api_test(world, num_steps)
    except UserError as error:
        check.wrong.append(str(error))
    except AssertionError as error:
        apart = "other actions in world 0 changed another" in str(error)
        said = "worlds are not quite apart, which is VMAS's way where bodies meet" if apart else "as worlds"
        (check.notes if apart else check.wrong).append(f"{said}: {error}")
    return check


class VmasLockStep:
    """Worlds and VMAS's own environment, stepped together.

    Compared are observations, rewards and ends, to the last bit: of episodes that all worlds opened together, until
    some open alone; of these, what they see at first. A scenario that draws while an episode runs draws other numbers
    from the second episode on, so that its first one is compared alone.

    Args:
        world: B worlds; they are reset.
        num_steps: of each world, at most.
        seed: of worlds and actions.

    Attributes:
        difference: the first, in words; "" where there is none.
        steps: environment steps that were compared, of all worlds.
        lengths: of the episodes that ended.
        seconds: {"a plain loop": ..., "as worlds": ...}, in their reset and step.
    """

    def __init__(self, world: VmasWorld, num_steps: int, seed: int = 0) -> None:
        self.world, self.difference, self.steps = world, "", 0
        self.lengths: list[int] = []
        self.seconds = {PLAIN: 0.0, "as worlds": 0.0}
        rng = np.random.default_rng(seed)
        now = self._timed("as worlds", lambda: world.reset(seed))
        everywhere = torch.ones(world.num_worlds, dtype=torch.bool, device=world.device)
        self._open(now, everywhere)
        draws, age = False, 0
        for t in range(1, num_steps + 1):
            over, actions = ~now.alive.any(1), sample_actions(world, now, rng)
            if over.any() and (draws or self.difference):
                break
            now = self._timed("as worlds", lambda actions=actions: world.step(actions))  # type: ignore[misc]
            if over.any():
                self._open(now, over)
                age = 0
                if not over.all():
                    break
                continue
            draws, age = self._step(now, actions, t) or draws, age + 1
            self.lengths += [age] * int((~now.alive.any(1)).sum())
            if self.difference:
                break

    def _timed(self, who: str, call: Callable[[], Any]) -> Any:
        started = time.perf_counter()
        told = call()
        self.seconds[who] += time.perf_counter() - started
        return told

    def _open(self, now: WorldStep, worlds: Tensor) -> None:
        """A new environment of VMAS, and what is seen first in it."""
        from vmas.simulator.environment import Environment

        scenario, arguments = self.world.made_of
        limits = {"max_steps": self.world.max_steps, "terminated_truncated": True, "clamp_actions": True}
        self.plain = Environment(scenario(), self.world.num_worlds, self.world.device, **arguments, **limits)
        seed = int(self.world.seeds[worlds][0])
        seen = self._timed(PLAIN, lambda: self.plain.reset(seed=seed))
        self._compare(now, worlds, self._observed(seen), f"after reset(seed={seed})")

    def _step(self, now: WorldStep, actions: Mapping[str, Tensor], t: int) -> bool:
        """One step of VMAS's; returns whether the scenario drew a number in it."""
        by_name: dict[str, Tensor] = {}
        for name, species in self.world.species.items():
            chosen = actions[name].flatten(2) if actions[name].dim() > 2 else actions[name].unsqueeze(-1)
            by_name |= dict(zip(species.agents, chosen.unbind(1), strict=True))
        before = self.plain.vmas_random_state[0]
        chosen_by_all = [by_name[agent.name] for agent in self.plain.agents]
        seen, paid, ended, late, _ = self._timed(PLAIN, lambda: self.plain.step(chosen_by_all))
        rewards = dict(zip((a.name for a in self.plain.agents), (p.reshape(-1) for p in paid), strict=True))
        names = [agent for species in self.world.species.values() for agent in species.agents]
        told = self._observed(seen) | {
            "rewards": torch.stack([rewards[agent] for agent in names], 1),
            "terminated": ended.reshape(-1, 1).expand_as(now.alive),
            "truncated": (late & ~ended).reshape(-1, 1).expand_as(now.alive),
        }
        self._compare(now, now.alive.any(1) | ~now.alive.any(1), told, f"in step {t}")
        self.steps += self.world.num_worlds
        return not torch.equal(before, self.plain.vmas_random_state[0])

    def _observed(self, seen: list[Any]) -> dict[str, Tensor]:
        """{"observations of <species>": [B, N_s, O]}."""
        by_name = {agent.name: flat(part) for agent, part in zip(self.plain.agents, seen, strict=True)}
        return {
            f"observations of {name}": torch.stack([by_name[agent] for agent in species.agents], 1)
            for name, species in self.world.species.items()
        }

    def _compare(self, now: WorldStep, worlds: Tensor, told: Mapping[str, Tensor], when: str) -> None:
        for what, value in told.items():
            name = what.removeprefix("observations of ")
            mine = now.observations[name] if name in now.observations and name != what else getattr(now, what)
            if not torch.equal(mine[worlds], value[worlds]) and not self.difference:
                apart = (mine[worlds].float() - value[worlds].float()).abs().max()
                self.difference = f"{when} the {what} are others, by {apart:g} at most"


def _describe(check: EnvCheck, world: VmasWorld) -> None:
    check.facts["species"] = [
        f"{name} ({species.num_seats}: {', '.join(species.agents)}) observes {species.obs_size:,} numbers, acts in "
        f"{species.action_space}"
        for name, species in world.species.items()
    ]
    check.facts["masks"] = ["none"]
    check.facts["positions"] = [f"{world.position_size} axes"]
    check.facts["state"] = [f"{world.state_size:,} numbers"]


def _conclude(check: EnvCheck, step: VmasLockStep) -> None:
    lengths = sorted({min(step.lengths, default=0), max(step.lengths, default=0)})
    check.facts["episodes"] = [f"{' to '.join(map(str, lengths))} steps" if step.lengths else "none ended"]
    if not step.lengths:
        check.notes.append("no episode ended, so none was looked at: raise --steps, or set max_steps")
    if step.difference:
        check.wrong.append(f"unlike VMAS itself with the same seed and actions: {step.difference}")
    else:
        same = "observations, rewards and ends are those of VMAS itself"
        check.facts["lock step"] = [f"{step.steps:,} steps in {len(step.lengths)} episodes: {same}"]
    agent_steps = step.steps * step.world.num_agents
    check.rates.update({who: agent_steps / seconds for who, seconds in step.seconds.items() if seconds})
