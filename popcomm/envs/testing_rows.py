"""What every WorldStep must hold, by itself and after the one before: checks of the contract of worlds."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from popcomm.envs.world import World, WorldStep


def check_description(world: World) -> None:
    """Species follow one another from seat 0, their names fit, and the sizes agree with one another."""
    assert world.num_worlds >= 1, f"num_worlds is {world.num_worlds}; there must be at least one world"
    assert world.species, "`species` is empty; a world needs at least one"
    seat = 0
    for name, species in world.species.items():
        assert species.name == name, f"the species under the key '{name}' is called '{species.name}'; they must agree"
        assert species.start == seat, f"species '{name}' starts at seat {species.start}; the one before ends at {seat}"
        assert species.num_seats >= 1, f"species '{name}' has no seats"
        assert species.obs_size >= 1, f"species '{name}' has obs_size {species.obs_size}; it must be at least 1"
        count = len(species.agents)
        assert count in (0, species.num_seats), f"species '{name}' names {count} agents for {species.num_seats} seats"
        kinds = (spaces.Discrete, spaces.MultiDiscrete, spaces.Box)
        assert isinstance(species.action_space, kinds), (
            f"species '{name}' has an action space of type {type(species.action_space).__name__}; "
            "it must be Discrete, MultiDiscrete or Box"
        )
        seat = species.stop
    if (parts := world.label_attributes) is not None:
        form = (parts.ndim, len(parts), parts.dtype)
        assert form == (2, world.num_labels, torch.int64), (
            f"`label_attributes` is {list(parts.shape)} {parts.dtype}, and must be [{world.num_labels}, A] int64, one "
            "row for each of num_labels"
        )
    if world.torus is not None:
        assert len(world.torus) == world.position_size, (
            f"`torus` has {len(world.torus)} extents, and positions have {world.position_size} axes"
        )


def check_step(world: World, step: WorldStep, where: str) -> None:
    """One WorldStep alone: which tensors there are, their shapes, types and devices, and what they hold."""
    b, n = world.num_worlds, world.num_agents
    assert set(step.observations) == set(world.species), (
        f"{where}: observations are for {sorted(step.observations)}, and the species are {sorted(world.species)}"
    )
    for name, species in world.species.items():
        told = step.observations[name]
        what = f"{where}: observations['{name}']"
        _check_tensor(world, told, what, (b, species.num_seats, species.obs_size), species.obs_dtype)
    _check_tensor(world, step.rewards, f"{where}: rewards", (b, n), torch.float32)
    for field in ("terminated", "truncated", "alive", "first"):
        _check_tensor(world, getattr(step, field), f"{where}: {field}", (b, n), torch.bool)
    optional: list[tuple[str, int, tuple[int, ...], torch.dtype]] = [
        ("positions", world.position_size, (b, n, world.position_size), torch.float32),
        ("state", world.state_size, (b, world.state_size), torch.float32),
        ("labels", world.num_labels, (b, n), torch.int64),
    ]
    for field, size, shape, dtype in optional:
        tensor = getattr(step, field)
        promise = {"positions": "position_size", "state": "state_size", "labels": "num_labels"}[field]
        assert (tensor is not None) == (size > 0), (
            f"{where}: {field} is {'missing' if tensor is None else 'there'}, and the world says {promise} = {size}"
        )
        if tensor is not None:
            _check_tensor(world, tensor, f"{where}: {field}", shape, dtype)
    _check_values(world, step, where)
    _check_masks(world, step, where)
    _check_answers(world, step, where)
    if step.speaks is not None:
        _check_tensor(world, step.speaks, f"{where}: speaks", tuple(step.alive.shape), torch.bool)


def check_transition(before: WorldStep, now: WorldStep, where: str) -> None:
    """Two rows in sequence: who ended, who was born, and that a world that is over opens a new episode."""
    ended = now.terminated | now.truncated
    over = nobody_lives(before).unsqueeze(-1)
    assert not (now.first & ~now.alive).any(), f"{where}: `first` is True for a seat that is not alive"
    reborn = over & ~now.alive.any(-1, keepdim=True)
    assert not reborn.any(), (
        f"{where}: {_worlds(reborn)} was over in the row before; this row must open an episode, and nobody is alive"
    )
    assert not (over & now.alive & ~now.first).any(), (
        f"{where}: {_worlds(over & now.alive & ~now.first)} opens a new episode here, and `first` is not True in it"
    )
    assert not (over & (now.rewards != 0)).any(), (
        f"{where}: {_worlds(over & (now.rewards != 0))} opens a new episode here, and gives a reward; it must be 0"
    )
    ghosts = ended & ~before.alive
    assert not ghosts.any(), f"{where}: a seat of {_worlds(ghosts)} ended, and was not alive in the row before"
    lingers = ended & now.alive & ~(now.terminated & now.first)
    assert not lingers.any(), (
        f"{where}: a seat of {_worlds(lingers)} is terminated or truncated, and still alive; the row where a life ends "
        "holds its final observation, with alive False, or (terminated) the first one of the next life, with `first`"
    )
    vanished = before.alive & ~now.alive & ~ended
    assert not vanished.any(), (
        f"{where}: a seat of {_worlds(vanished)} is no longer alive, and neither terminated nor truncated says why"
    )
    assert not (before.alive & now.first & ~ended).any(), (
        f"{where}: `first` is True in {_worlds(before.alive & now.first & ~ended)} for a seat whose life goes on"
    )
    silent_birth = ~before.alive & now.alive & ~now.first
    assert not silent_birth.any(), f"{where}: a seat of {_worlds(silent_birth)} came to life without `first`"


def check_opening(world: World, step: WorldStep, where: str = "reset") -> None:
    """The row that `reset` returns: someone is alive everywhere, all lives are new, and nothing was earned or ended."""
    check_step(world, step, where)
    assert step.alive.any(-1).all(), f"{where}: nobody is alive in {_worlds(~step.alive.any(-1, keepdim=True))}"
    assert torch.equal(step.first, step.alive), f"{where}: `first` must be True for exactly the seats that are alive"
    assert not step.rewards.any(), f"{where}: rewards must be 0, since no step was made"
    assert not (step.terminated | step.truncated).any(), f"{where}: a seat ended before any step was made"


def check_metrics(metrics: Any, where: str) -> None:
    """What `metrics` returns: finite numbers by their names."""
    assert isinstance(metrics, dict), f"{where}: metrics() returned {type(metrics).__name__}; it must return a dict"
    for name, value in metrics.items():
        assert isinstance(name, str), f"{where}: metrics() has the key {name!r}; keys must be strings"
        assert isinstance(value, (int, float)), f"{where}: metrics()['{name}'] is {value!r}; it must be a number"
        assert np.isfinite(value), f"{where}: metrics()['{name}'] is {value}; leave out what was not counted"


def nobody_lives(step: WorldStep) -> Tensor:
    """[B] bool, worlds in which nobody is alive."""
    return ~step.alive.any(-1)


def _check_tensor(world: World, tensor: Any, what: str, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    assert isinstance(tensor, Tensor), f"{what} is of type {type(tensor).__name__}; it must be a torch.Tensor"
    assert tuple(tensor.shape) == shape, f"{what} has shape {tuple(tensor.shape)}; it must be {shape}"
    assert tensor.dtype == dtype, f"{what} has dtype {tensor.dtype}; it must be {dtype}"
    assert tensor.device.type == world.device.type, f"{what} is on {tensor.device}; the world lives on {world.device}"
    assert not dtype.is_floating_point or tensor.isfinite().all(), f"{what} holds a number that is not finite"


def _check_values(world: World, step: WorldStep, where: str) -> None:
    for name, species in world.species.items():
        rows = step.observations[name].flatten(0, 1).cpu().numpy()
        assert species.observation_space.contains(rows[0]), (
            f"{where}: an observation of '{name}' lies outside its observation_space {species.observation_space}"
        )
    if step.labels is not None:
        low, high = int(step.labels.min()), int(step.labels.max())
        assert -1 <= low <= high < world.num_labels, (
            f"{where}: labels range from {low} to {high}; they must lie in -1 ... {world.num_labels - 1}"
        )
    if step.positions is not None and world.torus is not None:
        flat = step.positions.flatten(0, 1)
        span = (flat.amax(0) - flat.amin(0)).tolist()
        assert all(s <= extent for s, extent in zip(span, world.torus, strict=True)), (
            f"{where}: positions span {span}, more than one turn of the torus {world.torus}; wrap them"
        )


def _check_masks(world: World, step: WorldStep, where: str) -> None:
    masked = {name: s for name, s in world.species.items() if s.has_action_mask}
    given = step.action_masks or {}
    assert set(masked) <= set(given), (
        f"{where}: species {sorted(set(masked) - set(given))} has has_action_mask = True, and there is no mask for it"
    )
    assert set(given) <= set(masked), (
        f"{where}: there is a mask for species {sorted(set(given) - set(masked))}, whose has_action_mask is False"
    )
    for name, species in masked.items():
        space = species.action_space
        assert not isinstance(space, spaces.Box), (
            f"species '{name}' has an action mask, and Box actions cannot be masked"
        )
        sizes = [int(space.n)] if isinstance(space, spaces.Discrete) else [int(k) for k in space.nvec]
        what = f"{where}: action_masks['{name}']"
        _check_tensor(world, given[name], what, (world.num_worlds, species.num_seats, sum(sizes)), torch.bool)
        alive = step.alive[:, species.seats]
        for part in given[name].split(sizes, -1):
            assert (part.any(-1) | ~alive).all(), f"{what} allows no action at all to a seat that is alive"


def _check_answers(world: World, step: WorldStep, where: str) -> None:
    """Answers are actions that the species may choose, or -1, and the dead owe none."""
    given, promised = step.answers or {}, sorted(name for name, s in world.species.items() if s.has_answers)
    assert sorted(given) == promised, (
        f"{where}: there are answers for {sorted(given)}, and has_answers is True for {promised}"
    )
    for name, answers in given.items():
        species, what = world.species[name], f"{where}: answers['{name}']"
        space = species.action_space
        assert not isinstance(space, spaces.Box), f"{what} are there, and Box actions cannot be taught"
        _check_tensor(world, answers, what, (world.num_worlds, species.num_seats, *space.shape), torch.int64)
        low = int(space.start) if isinstance(space, spaces.Discrete) else 0
        sizes = [int(space.n)] if isinstance(space, spaces.Discrete) else [int(k) for k in space.nvec]
        owed, parts = answers != -1, answers.view(world.num_worlds, species.num_seats, len(sizes)) - low
        fits = (parts >= 0) & (parts < torch.tensor(sizes, device=world.device))
        assert (fits | ~owed.view_as(fits)).all(), f"{what} holds what is neither an action of {space} nor -1"
        idle = ~step.alive[:, species.seats]
        assert not owed.view_as(fits)[idle].any(), f"{what} is not -1 for a seat that is not alive"
        if step.action_masks and name in step.action_masks:
            for part, allowed in zip(parts.unbind(-1), step.action_masks[name].split(sizes, -1), strict=True):
                may = allowed.gather(-1, part.clamp(min=0).unsqueeze(-1)).squeeze(-1)
                assert (may | (part + low == -1)).all(), f"{what} holds an action that the mask forbids"


def _worlds(where: Tensor) -> str:
    """The first world [B, ...] bool points at, in words."""
    return f"world {int(where.flatten(1).any(-1).nonzero()[0])}" if where.any() else "no world"
