"""Lessons: newborns with weights of their own imitate their parents, beside what they learn by themselves."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from popcomm.agents.contract import AgentOutput
from popcomm.agents.distributions import ActionDistribution
from popcomm.agents.reindex import take_rows
from popcomm.rllib.module import PopulationRLModule


@contextmanager
def teachers(modules: Iterable[PopulationRLModule]) -> Iterator[None]:
    """Within, parents act in place of those whom they teach: with their weights, and their pupils' memories.

    Args:
        modules: in which somebody `is_taught`.
    """
    kept = []
    with torch.no_grad():
        for module in modules:
            assert module.lessons_left is not None
            places = torch.arange(len(module.lessons_left), device=module.teacher.device)
            rows = torch.where(module.lessons_left > 0, module.teacher, places)
            for parameter in module.agent.parameters():
                kept.append((parameter, parameter.data))
                parameter.data = take_rows(parameter.data, rows)
    try:
        yield
    finally:
        for parameter, own in kept:
            parameter.data = own


def end_lessons(modules: Iterable[PopulationRLModule]) -> None:
    """An iteration of lessons is over, of those who are taught."""
    for module in modules:
        if module.lessons_left is not None:
            module.lessons_left.sub_(1).clamp_(min=0)


def lesson_loss(
    module: PopulationRLModule,
    distribution: ActionDistribution,
    pupil: AgentOutput,
    teacher: AgentOutput,
    allowed: Tensor | None,
    weight: Tensor,
    generator: torch.Generator,
    earlier: Sequence[tuple[Tensor, Tensor]] = (),
) -> Tensor:
    """Cross-entropy (nats) of what teachers do and say, on the rows that their pupils lived.

    Of actions, and of messages that are no symbols, teachers give samples (behavioural cloning: Pomerleau 1991); of
    symbols their whole distribution.

    Args:
        pupil, teacher: outputs on the same rows, [P, R, ...].
        allowed: [P, R, A] bool, or None.
        weight: [P, R], rows that were lived, one over their number each.
        generator: of the samples.
        earlier: parameters of what pupils and teachers say in the rounds before the last, [P, R, ...] each.

    Returns:
        The sum over the members that are taught.
    """
    assert module.lessons_left is not None
    logits = teacher.action_logits.float()
    actions = distribution.sample(logits, generator, allowed)
    loss = -distribution.log_prob(pupil.action_logits.float(), actions, allowed)
    if pupil.message is not None and teacher.message is not None:
        for own, shown in [*earlier, (pupil.message, teacher.message)]:
            loss = loss + _of_messages(module.spec.messages, own.float(), shown.float(), generator)
    taught = (module.lessons_left > 0).unsqueeze(1) & (weight > 0)
    return torch.where(taught, loss * weight, 0.0).sum()


def _of_messages(kind: Any, pupil: Tensor, teacher: Tensor, generator: torch.Generator) -> Tensor:
    """[P, R], of parameters [P, R, ...]."""
    if hasattr(kind, "log_drawn"):
        return -(kind.log_drawn(teacher).exp() * kind.log_drawn(pupil)).sum((-2, -1))
    return -kind.log_prob(pupil, kind.sample(teacher, generator))
