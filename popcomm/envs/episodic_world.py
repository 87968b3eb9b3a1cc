"""A World whose episodes begin and end for all of its seats: its clock, its autoreset, and what is said of both."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from popcomm.checks import whole
from popcomm.envs.drawing_world import DrawingWorld
from popcomm.envs.world import WorldStep
from popcomm.errors import UserError


class EpisodicWorld(DrawingWorld):
    """Base of worlds whose episodes last `max_steps` steps at most, or end earlier for all seats of a world at once.

    A subclass says what opens an episode (`_begin`), what a step does (`_play`), and what is seen (`_observe`); its
    `kept` begins with `EpisodicWorld.kept`. Before `_play` and `_begin`, `_age` [B] int64 is how many steps the episode
    has made; `_over` [B] bool, which worlds stand in the row after their last step. Both methods see all worlds, also
    those that are over: what `_play` does there is not looked at. Where nobody can act for a while, both may add the
    steps that pass unseen to `_age`.

    Seats begin and end with the episode, unless a subclass says who is `_present`: then a seat that is left is
    terminated, one that is taken opens a life, and somebody must be present until the episode ends.

    Attributes:
        max_steps: steps of the longest episode.
        ends_at_deadline: whether the last step ends the game itself, so that nothing would have followed (terminated),
            or only cuts it off (truncated). A deadline that agents can see is an end.
    """

    kept: ClassVar[tuple[str, ...]] = ("age", "over")
    ends_at_deadline: ClassVar[bool] = True
    max_steps: int
    _age: Tensor
    _over: Tensor

    def __init__(self, num_worlds: int, device: str | torch.device, max_steps: int) -> None:
        """Raises UserError: num_worlds or max_steps is not a whole number of at least 1."""
        self.num_worlds = whole(f"{self.name}: num_worlds", num_worlds, 1)
        self.max_steps = whole(f"{self.name}: max_steps", max_steps, 1)
        self.device = torch.device(device)
        self._generator = torch.Generator(self.device)
        self._generator.manual_seed(0)

    @abstractmethod
    def _begin(self, worlds: Tensor) -> None:
        """Open an episode in `worlds` [B] bool, and leave the others as they are (`_renewed` helps).

        It is called in every step, and must draw as many random numbers whatever `worlds` says.
        """

    @abstractmethod
    def _play(self, actions: dict[str, Tensor], spoken: Tensor | None) -> tuple[Tensor, Tensor]:
        """One step of all worlds: rewards [B, N] float32, and which episodes end by themselves, [B] bool."""

    @abstractmethod
    def _observe(self) -> dict[str, Tensor]:
        """{species: [B, N_s, O] float32}, new tensors."""

    def _present(self) -> Tensor:
        """[B, N] bool, the seats that are taken. A seat that was left in a step is not taken anew in the same one."""
        return torch.ones(self.num_worlds, self.num_agents, dtype=torch.bool, device=self.device)

    def _close(self, worlds: Tensor) -> None:
        """Count, for metrics, what the episodes of `worlds` [B] bool came to, whose last step was just made."""
        return None

    def _labels(self) -> Tensor | None:
        """[B, N] int64, what each seat privately perceives; -1 nothing. See `WorldStep.labels`."""
        return None

    def _speaks(self) -> Tensor | None:
        """[B, N] bool, new, who may send a message; None: all. See `WorldStep.speaks`."""
        return None

    def _latent_state(self) -> Tensor | None:
        """[B, S] float32, new; see `WorldStep.state`."""
        return None

    def _positions(self) -> Tensor | None:
        """[B, N, D] float32, new; see `WorldStep.positions`."""
        return None

    def reset(self, seed: int | None = None) -> WorldStep:
        if seed is not None:
            self._generator.manual_seed(seed)
        everywhere = torch.ones(self.num_worlds, dtype=torch.bool, device=self.device)
        self._age = torch.zeros(self.num_worlds, dtype=torch.int64, device=self.device)
        self._over = ~everywhere
        self._begin(everywhere)
        nobody = torch.zeros(self.num_worlds, self.num_agents, dtype=torch.bool, device=self.device)
        return self._look(nobody.float(), nobody, nobody.clone(), acted=nobody)

    def step(self, actions: dict[str, Tensor], spoken: Tensor | None = None) -> WorldStep:
        """See `World.step`.

        Raises:
            UserError: the world was not reset, or actions of another shape.
        """
        self._check(actions)
        assert self._last is not None
        opening, acted = self._over, self._last.alive
        rewards, ended = self._play(actions, spoken)
        rewards, ended = rewards.masked_fill(~acted, 0.0), ended & ~opening
        self._age = (self._age + 1).masked_fill(opening, 0)
        late = (self._age >= self.max_steps) & ~opening & ~ended
        # Also where none opens: how many random numbers are drawn must not depend on what other worlds do.
        self._begin(opening)
        self._over = ended | late
        self._close(self._over)
        ends, cut = (self._over, torch.zeros_like(late)) if self.ends_at_deadline else (ended, late)
        left = ~self._present()
        terminated = acted & (left | ends.unsqueeze(-1))
        return self._look(rewards, terminated, acted & ~left & cut.unsqueeze(-1), acted)

    def _check(self, actions: dict[str, Tensor]) -> None:
        if self._last is None:
            raise UserError(f"{self.name} was stepped before it was reset; call reset first")
        for name, species in self.species.items():
            expected = (self.num_worlds, species.num_seats, *(species.action_space.shape or ()))
            if actions[name].shape != expected:
                raise UserError(
                    f"actions of '{name}' have shape {tuple(actions[name].shape)}, and must have {expected}"
                )

    def _look(self, rewards: Tensor, terminated: Tensor, truncated: Tensor, acted: Tensor) -> WorldStep:
        """The WorldStep of the present; all arguments are [B, N], the last says who was alive in the row before."""
        alive = self._present() & ~self._over.unsqueeze(-1)
        self._last = WorldStep(
            observations=self._observe(),
            rewards=rewards,
            terminated=terminated,
            truncated=truncated,
            alive=alive,
            first=alive & ~acted,
            positions=self._positions(),
            state=self._latent_state(),
            labels=self._labels(),
            speaks=self._speaks(),
        )
        return self._last

    def _renewed(self, old: Tensor | None, new: Tensor, worlds: Tensor) -> Tensor:
        """[B, ...]: `new` in `worlds`, `old` elsewhere; all new before the first reset."""
        return new if old is None else torch.where(worlds.view(-1, *[1] * (new.dim() - 1)), new, old)
