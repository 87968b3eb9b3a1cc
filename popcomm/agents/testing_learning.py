"""What an agent learns from, held against its contract: its own losses, and a gradient on everything."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from popcomm.agents.contract import AgentOutput
from popcomm.agents.trial import (
    Seen,
    Trial,
    batch,
    batches_mixed,
    differ,
    in_slots,
    mixed,
    outputs_mixed,
    seen,
    sentence_of,
)

SOFT = "inbox.soft"  # in `without_gradient`: the agent is not to teach those whom it hears


def check_losses(trial: Trial) -> None:
    """Losses are one number per member; rows that are not real, such as padding, change none of them."""
    spec, (now, after, *_), output = trial.spec, trial.steps, trial.outputs[0]
    p, rows = now.obs.shape[:2]
    mask = torch.ones(p, rows, dtype=torch.bool)
    mask[:, -trial.together :] = False
    if p > 1:  # the last member has nothing but padding
        mask[-1] = False
    real = batch(spec, now, after, mask, trial.generator)
    one, other = (seen(spec, rows, trial.generator) for _ in range(2))
    padding = batch(spec, one, other, mask, trial.generator)
    with torch.no_grad():
        (strange, *_) = trial.run([mixed(~mask, now, one)])
        told = _losses(trial, real, outputs_mixed(mask, output, output))
        found = _losses(trial, batches_mixed(~mask, real, padding), outputs_mixed(~mask, output, strange))
    for name, loss in told.items():
        at = f"{trial.where}: the loss '{name}'"
        form = tuple(getattr(loss, "shape", ()))
        assert form == (p,), f"{at} has shape {form}; it must be {(p,)}, one number per member"
        assert loss.isfinite().all(), f"{at} is not finite (the last member has no row that is real)"
        assert not differ(loss, found[name]), f"{at} depends on rows whose `mask` is False"
    assert not told or getattr(trial.agent, "has_auxiliary_losses", True), (
        f"{trial.where}: has_auxiliary_losses is False, and auxiliary_losses gave {', '.join(told)}"
    )


def check_gradients(trial: Trial) -> None:
    """Every parameter learns from what is learned from, every member from its own rows, and senders from listeners."""
    agent, spec, p = trial.agent, trial.spec, trial.spec.members
    steps = [_with_gradient(step) for step in trial.steps]
    outputs = trial.run(steps)
    mask = torch.ones(steps[0].obs.shape[:2], dtype=torch.bool)
    losses = _losses(trial, batch(spec, steps[0], steps[1], mask, trial.generator), outputs[0])
    each = sum(_projected(trial, output) for output in outputs)
    weights = getattr(agent, "auxiliary_weights", {})
    each = each + sum((weights.get(name, 1.0) * loss for name, loss in losses.items()), torch.zeros(p))
    _check_learned(trial, each)
    if p > 1 and not trial.collective:
        agent.zero_grad()
        each[0].backward(retain_graph=True)
        owners = trial.owners
        for name, value in agent.named_parameters():
            owner = owners[name]
            theirs = torch.arange(len(value)) > 0 if owner is None else owner != 0
            assert value.grad is None or not value.grad[theirs].any(), (
                f"{trial.where}: what member 0 is to learn gives other members a gradient on '{name}'"
            )
    _check_heard(trial, steps, outputs)


def _check_learned(trial: Trial, each: Tensor) -> None:
    trial.agent.zero_grad()
    each.sum().backward(retain_graph=True)
    for name, value in trial.agent.named_parameters():
        if _excused(trial.agent, name) or not value.numel():
            continue
        at = f"{trial.where}: the parameter '{name}'"
        assert value.grad is not None, f"{at} gets no gradient; use it, or name it in `without_gradient`"
        assert value.grad.isfinite().all(), f"{at} gets a gradient that is not finite (nothing is heard in row 0)"
        apart = trial.spec.members > 1 and not trial.collective and trial.owners[name] is None
        parts = value.grad if apart else [value.grad]
        idle = [member for member, part in enumerate(parts) if not part.any()]
        assert not idle, f"{at} gets a gradient of zero for member {idle[0]}; use it, or name it in `without_gradient`"


def _check_heard(trial: Trial, steps: Sequence[Seen], outputs: Sequence[AgentOutput]) -> None:
    """If it acts on what it hears, who said it learns from that, and nobody else does."""
    inbox = steps[0].inbox
    if inbox is None or inbox.soft is None or _excused(trial.agent, SOFT):
        return
    other = seen(trial.spec, steps[0].obs.shape[1], trial.generator).inbox
    assert other is not None
    with torch.no_grad():
        (changed, *_) = trial.run([steps[0]._replace(inbox=in_slots(inbox.mask, inbox, other))])
    if not differ(outputs[0].action_logits, changed.action_logits):
        return  # it is deaf of its own accord
    (grad,) = torch.autograd.grad(_projected(trial, outputs[0]).sum(), inbox.soft, allow_unused=True)
    reached = torch.zeros_like(inbox.mask) if grad is None else grad.flatten(3).any(-1)
    assert not (inbox.mask & ~reached).any(), (
        f"{trial.where}: it acts on what it hears, and who said it gets no gradient; read messages by MessageEncoder "
        f"or the kind's `straight_through(messages, soft)`, or name '{SOFT}' in `without_gradient`"
    )
    assert not (reached & ~inbox.mask).any(), f"{trial.where}: a slot whose `mask` is False gets a gradient"


def _losses(trial: Trial, targets: Any, output: AgentOutput) -> dict[str, Tensor]:
    try:
        return trial.agent.auxiliary_losses(targets, output._replace(state={}, said=None))
    except Exception as error:
        raise AssertionError(f"{trial.where}: auxiliary_losses raised {sentence_of(error)}") from error


def _projected(trial: Trial, output: AgentOutput) -> Tensor:
    """[P], a random functional of what is learned from: actions, values, messages, and how they are said."""
    total = torch.zeros(trial.spec.members)
    generator = torch.Generator().manual_seed(trial.seed)
    for value in (output.action_logits, output.value, output.message, output.manner):
        if value is not None:
            total = total + (value * torch.randn(value.shape, generator=generator)).flatten(1).sum(1)
    return total


def _with_gradient(step: Seen) -> Seen:
    if step.inbox is None or step.inbox.soft is None:
        return step
    return step._replace(inbox=step.inbox._replace(soft=step.inbox.soft.clone().requires_grad_()))


def _excused(agent: Any, name: str) -> bool:
    return any(name == key or name.startswith(f"{key}.") for key in getattr(agent, "without_gradient", ()))
