"""Who plays a referential game, and which settings fit together."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces

from popcomm.checks import count, number
from popcomm.envs.candidates import ENTRY
from popcomm.envs.world import Species
from popcomm.errors import UserError, unknown

CHOICES = {"roles": ("fixed", "swapping"), "task": ("reconstruct", "pick"), "reward": ("attributes", "all")}


def make_species(
    speakers: int, listeners: int, attributes: int, values: int, distractors: int, turns: int, swapping: bool
) -> dict[str, Species]:
    """The species of a game, those who answer last; `distractors` is 0 where meanings are reconstructed."""
    meaning = attributes * values
    shown = (distractors + 1) * meaning if distractors else 0
    answer = spaces.Discrete(distractors + 1) if distractors else spaces.MultiDiscrete([values] * attributes)
    total = speakers + listeners
    if swapping:
        names = _names("agent", total)
        structure = _structure({"role": 2, "meaning": meaning}, distractors, meaning)
        size = 2 + meaning + shown
        return {"agent": Species("agent", 0, total, size, answer, names, has_answers=True, structure=structure)}
    talk = turns > 1
    first, second = _names("speaker", speakers), _names("listener", listeners)
    return {
        "speaker": Species("speaker", 0, speakers, meaning, spaces.Discrete(1), first, hears=talk),
        "listener": Species(
            "listener", speakers, total, 1 + shown, answer, second, speaks=talk, has_answers=True,
            structure=_structure({"due": 1}, distractors, meaning),
        ),
    }  # fmt: skip


def _structure(before: Mapping[str, int], distractors: int, meaning: int) -> spaces.Dict | None:
    """What an observation is flattened from: entries of so many numbers, then the candidates; None without them."""
    if not distractors:
        return None
    sizes = {**{name: (size,) for name, size in before.items()}, ENTRY: (distractors + 1, meaning)}
    return spaces.Dict(OrderedDict((name, spaces.Box(0, 1, shape, np.float32)) for name, shape in sizes.items()))


def _names(kind: str, count: int) -> tuple[str, ...]:
    return tuple(f"{kind}_{i}" for i in range(count))


def check_ranges(given: Mapping[str, Any]) -> None:
    """Refuse arguments of ReferentialWorld that are out of range by themselves; `Meanings` checks its own.

    Raises:
        UserError: which, and what is allowed.
    """
    for key, allowed in CHOICES.items():
        if given[key] not in allowed:
            raise unknown(f"referential_v0: {key}", given[key], allowed)
    for key in ("num_worlds", "speakers", "listeners", "distractors", "turns", "rounds"):
        if key != "listeners" or given[key] is not None:
            count(f"referential_v0: {key}", given[key], 1)
    number("referential_v0: message_cost", given["message_cost"], "not be negative", least=0)
    if given["num_agents"] is not None:
        _check_agents(given["num_agents"], given["speakers"], given["listeners"], given["roles"])


def _check_agents(agents: int, speakers: int, listeners: int | None, roles: str) -> None:
    told = f"referential_v0: num_agents is {agents}, and must be"
    if roles == "fixed":
        raise UserError(f"{told} left out with roles 'fixed', where speakers and listeners are set")
    if listeners is not None and agents != speakers + listeners:
        raise UserError(f"{told} speakers + listeners = {speakers + listeners}")
    if not (isinstance(agents, int) and agents > speakers):
        raise UserError(f"{told} a whole number above speakers = {speakers}")


def check_split(size: int, split: str, distractors: int) -> None:
    """Refuse a split of `size` meanings that is empty, or too small for its distractors.

    Raises:
        UserError: which, and what is allowed.
    """
    if not size:
        raise UserError("referential_v0: split is 'held_out', and must be 'train' or 'all' where held_out is 0")
    if distractors >= size:
        raise UserError(
            f"referential_v0: distractors is {distractors}, and must be below the {size} meanings of split '{split}'"
        )
