"""The conformance test of worlds: run `world_api_test` on a World of your own before you train in it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from popcomm.envs.testing_rows import (
    check_description,
    check_metrics,
    check_opening,
    check_step,
    check_transition,
    nobody_lives,
)
from popcomm.envs.world import Species, World, WorldStep

__all__ = [
    "check_description",
    "check_opening",
    "check_step",
    "check_transition",
    "sample_actions",
    "world_api_test",
]

Actions = dict[str, Tensor]
SEED = 1234


def world_api_test(world: World, num_steps: int = 200) -> None:
    """Check that a World keeps the contract of `popcomm.envs.world`.

    It acts at random for `num_steps` steps, several times over, and looks at shapes and types, spaces, finite numbers,
    answers and metrics, lives and autoreset, determinism, `get_state` / `set_state`, and (with two worlds or more)
    whether worlds are independent. Give it more steps than an episode has, or the end of an episode is not looked at
    (it warns). A world whose `get_state` returns None is not asked to replay.

    Args:
        world: any World; it is reset, and left somewhere in an episode.
        num_steps: length of a trial.

    Raises:
        AssertionError: with a sentence that says what is wrong, and in which step.

    >>> from popcomm.envs.swarm_v0 import SwarmWorld
    >>> world_api_test(SwarmWorld(num_worlds=2, num_agents=3, max_steps=10), num_steps=25)
    """
    check_description(world)
    rows, actions = _trial(world, num_steps)
    if not any(nobody_lives(row).any() for row in rows):
        warnings.warn(f"no episode ended in {num_steps} steps: autoreset was not tested; raise num_steps", stacklevel=2)
    _check_determinism(world, rows, actions)
    _check_idle_seats(world, rows, actions)
    _check_replay(world, rows, actions)
    if world.num_worlds > 1:
        _check_independence(world, rows, actions)


def sample_actions(world: World, step: WorldStep, rng: np.random.Generator) -> Actions:
    """Random actions {species: [B, N_s, ...]} that the masks of `step` allow."""
    return {name: _sample(world, species, step, rng) for name, species in world.species.items()}


def _trial(world: World, num_steps: int) -> tuple[list[WorldStep], list[Actions]]:
    """A random trial with every row checked; rows are copies, and the originals must not change behind our back."""
    rng = np.random.default_rng(SEED)
    last = world.reset(SEED)
    check_opening(world, last)
    rows, actions = [_clone(last)], []
    for t in range(num_steps):
        actions.append(sample_actions(world, rows[-1], rng))
        now = world.step(_clone_actions(actions[-1]), _spoken(world, t))
        where = f"step {t + 1}"
        _assert_same(
            rows[-1], last, f"{where}: the step wrote into the WorldStep that was returned before; return new tensors"
        )
        check_step(world, now, where)
        check_transition(rows[-1], now, where)
        rows.append(_clone(now))
        last = now
    return rows, actions


def _check_determinism(world: World, rows: list[WorldStep], actions: list[Actions]) -> None:
    for t, now in enumerate(_follow(world, world.reset(SEED), actions)):
        _assert_same(rows[t], now, f"step {t}: the same seed and actions gave something else the second time")
        check_metrics(world.metrics(), f"step {t}")  # to ask for them must not change the future


def _check_idle_seats(world: World, rows: list[WorldStep], actions: list[Actions]) -> None:
    """Actions of seats that are not alive (all of them, in a world that is over) must not matter."""
    rng = np.random.default_rng(SEED + 1)
    others = []
    for row, chosen in zip(rows, actions, strict=False):
        idle = _replace(world, chosen, sample_actions(world, row, rng), ~row.alive)
        others.append(idle)
    for t, now in enumerate(_follow(world, world.reset(SEED), others)):
        _assert_same(rows[t], now, f"step {t}: the action of a seat that was not alive changed what happened")


def _check_replay(world: World, rows: list[WorldStep], actions: list[Actions]) -> None:
    """`set_state` goes back to any row, as often as one likes, and the future from there is the same."""
    middle = len(actions) // 2
    step = world.reset(SEED)
    for t in range(middle):
        step = world.step(_clone_actions(actions[t]), _spoken(world, t))
    state = world.get_state()
    if state is None:
        return
    for _ in _follow(world, step, actions, middle):
        pass
    for attempt in ("at first", "the second time, from the same state"):
        world.reset(SEED + 2)
        back = world.set_state(state)
        assert isinstance(back, WorldStep), (
            f"set_state returned {type(back).__name__}; it must return the last WorldStep"
        )
        _assert_same(rows[middle], back, f"set_state did not return the last WorldStep again ({attempt})")
        for t, now in enumerate(_follow(world, back, actions, middle), start=middle):
            _assert_same(rows[t], now, f"step {t}: after set_state the same actions gave something else ({attempt})")


def _check_independence(world: World, rows: list[WorldStep], actions: list[Actions]) -> None:
    """Other actions in world 0 leave the other worlds alone."""
    rng = np.random.default_rng(SEED + 3)
    first_world = torch.zeros_like(rows[0].alive)
    first_world[0] = True
    now = world.reset(SEED)
    for t, chosen in enumerate(actions):
        changed = _replace(world, chosen, sample_actions(world, now, rng), first_world)
        now = world.step(changed, _spoken(world, t))
        what = f"step {t + 1}: other actions in world 0 changed another world (do they share random draws?)"
        _assert_same(_without_first_world(rows[t + 1]), _without_first_world(now), what)


def _follow(world: World, step: WorldStep, actions: list[Actions], start: int = 0) -> Iterator[WorldStep]:
    """`step` and the rows that follow it under actions[start:]."""
    yield step
    for t in range(start, len(actions)):
        yield world.step(_clone_actions(actions[t]), _spoken(world, t))


def _sample(world: World, species: Species, step: WorldStep, rng: np.random.Generator) -> Tensor:
    space, shape = species.action_space, (world.num_worlds, species.num_seats)
    if isinstance(space, spaces.Box):
        low, high = (
            np.where(np.isfinite(space.low), space.low, -1.0),
            np.where(np.isfinite(space.high), space.high, 1.0),
        )
        box = rng.uniform(low, high, (*shape, *space.shape)).astype(np.float32)
        return torch.from_numpy(box).to(world.device)
    sizes = [int(space.n)] if isinstance(space, spaces.Discrete) else [int(k) for k in space.nvec]
    scores = rng.random((*shape, sum(sizes)))
    if species.has_action_mask and step.action_masks is not None:
        scores = np.where(step.action_masks[species.name].cpu().numpy(), scores, -1.0)
    parts = [part.argmax(-1) for part in np.split(scores, np.cumsum(sizes)[:-1], axis=-1)]
    chosen = parts[0] + int(space.start) if isinstance(space, spaces.Discrete) else np.stack(parts, -1)
    return torch.from_numpy(chosen.astype(np.int64)).to(world.device)


def _spoken(world: World, t: int) -> Tensor | None:
    """Every other step is silent; in the rest seats spend 0, 1 or 2 symbols."""
    if t % 2 == 0:
        return None
    count = torch.arange(world.num_worlds * world.num_agents, device=world.device).add_(t) % 3
    return count.view(world.num_worlds, world.num_agents).float()


def _replace(world: World, actions: Actions, others: Actions, where: Tensor) -> Actions:
    """`actions`, with `others` at the seats `where` [B, N] bool."""
    changed = {}
    for name, species in world.species.items():
        seats = where[:, species.seats]
        seats = seats.view(*seats.shape, *(1,) * (actions[name].ndim - 2))
        changed[name] = torch.where(seats, others[name], actions[name])
    return changed


def _map(step: WorldStep, function: Callable[[Tensor], Tensor]) -> WorldStep:
    """The same function of every tensor in a WorldStep."""

    def apply(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: apply(part) for key, part in value.items()}
        return function(value) if isinstance(value, Tensor) else value

    return WorldStep(*(apply(value) for value in step))


def _clone(step: WorldStep) -> WorldStep:
    return _map(step, torch.Tensor.clone)


def _clone_actions(actions: Actions) -> Actions:
    return {name: chosen.clone() for name, chosen in actions.items()}


def _without_first_world(step: WorldStep) -> WorldStep:
    return _map(step, lambda tensor: tensor[1:])


def _assert_same(expected: WorldStep, found: WorldStep, what: str) -> None:
    """Equal to the last bit; otherwise an AssertionError that names the field."""
    for field, wanted, got in zip(WorldStep._fields, expected, found, strict=True):
        if isinstance(wanted, dict) and isinstance(got, dict):
            same = wanted.keys() == got.keys() and all(torch.equal(wanted[key], got[key]) for key in wanted)
        elif isinstance(wanted, Tensor) and isinstance(got, Tensor):
            same = torch.equal(wanted, got)
        else:
            same = wanted is got
        assert same, f"{what} (`{field}` differs)"
