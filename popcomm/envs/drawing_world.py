"""A World that draws its chances from a torch.Generator of its own: how it is saved, gone back to, and pickled."""

from __future__ import annotations

import copy
from typing import Any, ClassVar

import torch

from popcomm.envs.world import World, WorldStep
from popcomm.errors import UserError


class DrawingWorld(World):
    """Base of worlds with a `_generator`, whose whole state is in the attributes that `kept` names.

    Attributes:
        name: of the environment, as users know it.
        kept: attributes, without their underscore, that decide the future or are shown; `last`, the last WorldStep, is
            always one.
    """

    name: ClassVar[str]
    kept: ClassVar[tuple[str, ...]]
    _generator: torch.Generator
    _last: WorldStep | None = None

    def get_state(self) -> dict[str, Any]:
        """All that decides the future.

        Raises:
            UserError: it was not reset yet.
        """
        if self._last is None:
            raise UserError(f"{self.name} has no state before it was reset; call reset first")
        kept = {name: copy.deepcopy(getattr(self, f"_{name}")) for name in (*self.kept, "last")}
        return {**kept, "generator": self._generator.get_state()}

    def set_state(self, state: dict[str, Any]) -> WorldStep:
        """Go back to a `get_state`; returns the last WorldStep again."""
        for name in (*self.kept, "last"):
            setattr(self, f"_{name}", copy.deepcopy(state[name]))
        self._generator.set_state(state["generator"])
        self._restored()
        assert self._last is not None
        return self._last

    def _restored(self) -> None:
        """Compute anew what follows from the state that was just set."""

    def __getstate__(self) -> dict[str, Any]:
        """For pickle and copy, which cannot take a torch.Generator."""
        return {**self.__dict__, "_generator": self._generator.get_state()}

    def __setstate__(self, attributes: dict[str, Any]) -> None:
        self.__dict__.update(attributes)
        self._generator = torch.Generator(self.device)
        self._generator.set_state(attributes["_generator"])
