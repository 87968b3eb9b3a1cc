"""Gradients of a population: summed over learners, clipped, and left out for members whose are not finite; rates."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from ray.rllib.utils.schedules.scheduler import Scheduler
from torch import Tensor, nn

from popcomm.rllib.growth import Owners, Ownership, has_members
from popcomm.rllib.module import PopulationRLModule
from popcomm.rllib.ppo import Reduce, clip_owned, clip_values
from popcomm.rllib.settings import Settings

logger = logging.getLogger(__name__)


def sum_over_learners(parameters: Sequence[nn.Parameter], reduce: Reduce) -> None:
    """Sum the gradients over all learners, in place, in one reduction.

    A learner whose worlds did not use a parameter has no gradient for it; it counts as zeros if another learner has
    one, so that all reduce the same numbers and take the same step. What nobody used stays without a gradient.
    """
    if not parameters:
        return
    used = torch.tensor([p.grad is not None for p in parameters], device=parameters[0].device)
    parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    flat = reduce(torch.cat([*(part.reshape(-1) for part in parts), used.to(parts[0].dtype)]))
    sizes = [part.numel() for part in parts]
    *sums, users = flat.split([*sizes, len(parts)])
    for parameter, total, count in zip(parameters, sums, users.tolist(), strict=True):
        if count:
            parameter.grad = total.view_as(parameter).to(parameter.dtype)


class MemberGuard:
    """Steps a species' optimizers for the members that lived and whose gradients are finite; counts and names those
    whose are not.

    Args:
        name: the species.
        members: P.
        patience: updates in a row without a finite gradient, of every member, that end the training.

    Attributes:
        left_out: updates of single members that were left out since the last `read`.
    """

    def __init__(self, name: str, members: int, patience: int) -> None:
        self.name, self.patience = name, patience
        self.left_out = 0
        self._in_a_row = np.zeros(members, int)
        self._told: set[tuple[int, bool]] = set()

    def read(self) -> int:
        """Updates of single members that were left out since the last call."""
        count, self.left_out = self.left_out, 0
        return count

    def begin_anew(self, members: np.ndarray) -> None:
        """Others take the places of some: nothing is held against them. members: [P] bool."""
        self._in_a_row = np.where(members, 0, self._in_a_row)

    def step(
        self,
        optimizers: Sequence[torch.optim.Optimizer],
        norms: Tensor,
        owners: Owners | None = None,
        rows: Tensor | None = None,
    ) -> None:
        """One update.

        Args:
            norms: [P], of the members' gradients; where one is not finite, weights and moments stay as they are.
            owners: whose the rows of parameters are that have no axis of members.
            rows: [P], how many members have in this minibatch, with all learners; who has none and no gradient either
                stays as it is, as it would alone. None: all have some.

        Raises:
            FloatingPointError: no member has had a finite gradient for `patience` updates.
        """
        finite = norms.isfinite()
        absent = torch.zeros_like(finite) if rows is None else (rows == 0) & (norms == 0)
        kept, away = torch.stack([finite, absent]).cpu().numpy()
        self._in_a_row = np.where(away, self._in_a_row, np.where(kept, 0, self._in_a_row + 1))
        if not kept.all():
            self._count(kept)
        if away.any() or not kept.all():
            self._step_some(optimizers, finite & ~absent, owners or {})
            return
        for optimizer in optimizers:
            optimizer.step()

    def _count(self, kept: np.ndarray) -> None:
        """Who falls out. kept: [P] bool."""
        self.left_out += int((~kept).sum())
        self._tell()
        if self._in_a_row.min() >= self.patience:
            raise FloatingPointError(
                f"the loss of {self._named(~kept)} was not finite in {self._in_a_row.min()} updates in a row "
                "(fault_tolerance.max_nonfinite_updates); the weights are those of the last finite update. "
                "A lower training.lr or a smaller training.grad_clip may help"
            )

    def _step_some(self, optimizers: Sequence[torch.optim.Optimizer], moved: Tensor, owners: Owners) -> None:
        """A step of some members alone. moved: [P] bool."""
        if not bool(moved.any()):
            return
        for optimizer in optimizers:
            with left_alone(optimizer, ~moved, owners):
                optimizer.step()

    def _tell(self) -> None:
        """Warn once of members that fall out, and once more of those that do not come back."""
        for lasting in (False, True):
            chosen = self._in_a_row >= (self.patience if lasting else 1)
            new = chosen & [(m, lasting) not in self._told for m in range(len(chosen))]
            if not new.any():
                continue
            self._told |= {(int(m), lasting) for m in np.flatnonzero(new)}
            how_long = f" in {self.patience} updates in a row" if lasting else ""
            logger.warning(
                "the loss of %s was not finite%s: such updates are left out, of these alone, and counted in "
                "num_non_finite_updates",
                self._named(new),
                how_long,
            )

    def _named(self, chosen: np.ndarray) -> str:
        if len(chosen) == 1:
            return f"species '{self.name}'"
        which = ", ".join(map(str, np.flatnonzero(chosen)))
        return f"member{'s' if chosen.sum() > 1 else ''} {which} of species '{self.name}'"


@contextmanager
def at_own_rates(optimizers: Sequence[torch.optim.Optimizer], scale: Tensor | None, owners: Owners) -> Iterator[None]:
    """Within, a step goes `scale` [P] times as far for each member; None: as far for all.

    Adam's step is proportional to its rate, so that this is what each would do with a rate of its own.
    """
    if scale is None:
        yield
        return
    trained = [p for o in optimizers for group in o.param_groups for p in group["params"] if p.grad is not None]
    before = [p.detach().clone() for p in trained]
    yield
    with torch.no_grad():
        for p, start in zip(trained, before, strict=True):
            if p not in owners and not has_members(p, len(scale)):
                continue  # no member's
            own = scale[owners[p]] if p in owners else scale
            p.copy_(torch.lerp(start, p, own.to(p).view(-1, *[1] * (p.ndim - 1))))


@contextmanager
def left_alone(optimizer: torch.optim.Optimizer, members: Tensor, owners: Owners) -> Iterator[None]:
    """Within, a step moves neither the weights nor the optimizer's moments of some members. members: [P] bool.

    A gradient of zero is not enough: Adam would still move them by their momentum.
    """
    trained = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    rows = [members[owners[p]] if p in owners else members for p in trained]
    saved = [
        (p, r, p.detach()[r].clone(), {key: value[r].clone() for key, value in _moments(optimizer, p).items()})
        for p, r in zip(trained, rows, strict=True)
    ]
    for p, r, *_ in saved:
        assert p.grad is not None
        p.grad[r] = 0.0  # an optimizer may look at a tensor as a whole
    yield
    with torch.no_grad():
        for p, r, weights, before in saved:
            p[r] = weights
            for key, value in _moments(optimizer, p).items():
                value[r] = before.get(key, 0.0)


def _moments(optimizer: torch.optim.Optimizer, parameter: nn.Parameter) -> dict[str, Tensor]:
    """What the optimizer keeps of every weight, such as Adam's exp_avg: tensors of the parameter's shape."""
    state = optimizer.state.get(parameter, {})
    return {k: v for k, v in state.items() if isinstance(v, Tensor) and v.shape == parameter.shape}


def clipped(
    module: PopulationRLModule, parameters: Sequence[nn.Parameter], settings: Settings
) -> tuple[Tensor, Ownership] | None:
    """Clip a species' gradients as its settings say: the members' norms [P] from before, and whose rows are whose.

    None: no parameter has a gradient.
    """
    own = [p for p in parameters if p.grad is not None]
    if not own:
        return None
    ownership = Ownership.of(module.agent, parameters, module.spec.members)
    clip = clip_values if settings.grad_clip_by == "value" else clip_owned
    return ownership.clip(clip, own, settings.grad_clip or math.inf), ownership


def set_rates(optimizers: Iterable[torch.optim.Optimizer], lr: object, step: int) -> None:
    """The learning rate of an environment step: a number, or what RLlib's schedule says, [step, rate] pairs.

    A number, too: a restored optimizer has the rate that it was saved with.
    """
    rate = Scheduler(fixed_value_or_schedule=lr, framework="torch").update(timestep=step)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate
