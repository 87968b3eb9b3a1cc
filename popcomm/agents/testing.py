"""The conformance test of agents: run `agent_api_test` on an agent of your own before you train it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from popcomm.agents.contract import AgentSpec, decides_later, sees_first
from popcomm.agents.testing_learning import check_gradients, check_losses
from popcomm.agents.trial import Seen, Trial, differ, in_slots, mixed, named, only, places, posted, rows_of, seen


def agent_api_test(
    agent_class: type,
    agent_config: Mapping[str, Any] | None = None,
    spec: AgentSpec | None = None,
    rows: int = 4,
    seed: int = 0,
) -> None:
    """Check that an agent keeps the contract of `popcomm.agents.contract`.

    It lives through a few random steps, with weights that were moved so that nothing is hidden behind small ones, and
    is looked at for: weights that follow from torch's seed alone, the axis of members, shapes and types of outputs and
    states, rows and members that do not touch one another, a member that acts alone as it does among others, slots of
    the inbox without a message, padding rows in its losses, messages that it is told it said, and a gradient on every
    parameter and on what it hears.

    Parameters that are to have no gradient (frozen ones, say) are named by the agent itself, in an attribute
    `without_gradient: tuple[str, ...]`; a name stands for all that begins with it and a dot. "inbox.soft" stands for
    what is heard: senders then learn nothing from this agent.

    A collective is tried with one member, and with rows that are worlds of `spec.num_seats` seats; rows of parameters
    belong to the members that `owners()` names.

    Args:
        agent_class: what `.population(agent=...)` is given.
        agent_config: its keyword arguments.
        spec: its place in the world; None: one with symbols to say and to hear, and one in silence. With `members` 1
            nothing is asked of the axis of members.
        rows: R of each member, or worlds of a collective; three at least.
        seed: of all that is random.

    Raises:
        AssertionError: with a sentence that says what is wrong, and where.

    >>> from popcomm.agents import MLPAgent
    >>> agent_api_test(MLPAgent, {"hidden": 8})
    """
    assert rows >= 3, f"rows is {rows}; it must be at least 3"
    for place in _places(agent_class) if spec is None else [spec]:
        assert not place.latents, "agent_api_test hands over single messages; give it a spec whose `latents` is 0"
        trial = Trial.of(agent_class, dict(agent_config or {}), place, rows, seed)
        check_parts(trial)
        check_states(trial)
        trial.live()
        for check in CHECKS:
            check(trial)


def _places(agent_class: type) -> list[AgentSpec]:
    if not getattr(agent_class, "collective", False):
        return places()
    return [replace(place, num_seats=2) for place in places(members=1)]


# ---- what it is made of ----


def check_parts(trial: Trial) -> None:
    """A torch module with the contract's methods, whose weights follow from the seed and have the members' axis."""
    agent, where, p = trial.agent, trial.where, trial.spec.members
    assert isinstance(agent, nn.Module), f"{where}: it is no torch.nn.Module"
    for name in ("initial_state", "auxiliary_losses"):
        assert callable(getattr(agent, name, None)), f"{where}: it has no method `{name}`"
    again = trial.make(trial.spec).state_dict()
    for name, value in agent.state_dict().items():
        alike = name in again and not differ(value, again[name])
        assert alike, f"{where}: '{name}' starts otherwise when it is made again with the same torch.manual_seed"
        if p == 1 or trial.collective or (hasattr(agent, "owners") and trial.owners.get(name, value) is not None):
            continue
        assert value.shape[:1] == (p,), (
            f"{where}: '{name}' has shape {tuple(value.shape)}; its first axis must be the {p} members"
        )


def check_states(trial: Trial) -> None:
    """States at the start: {name: [P, rows, ...]}, the same in every row, however many there are."""
    where, p = trial.where, trial.spec.members
    rows = trial.steps[0].obs.shape[1]
    one, many = trial.agent.initial_state(trial.together), trial.agent.initial_state(rows)
    assert isinstance(many, dict), f"{where}: initial_state gave {type(many).__name__}; it must give a dict of tensors"
    for name, value in many.items():
        assert isinstance(value, Tensor), f"{where}: initial_state['{name}'] is {value!r}; it must be a tensor"
        assert tuple(value.shape[:2]) == (p, rows), (
            f"{where}: initial_state({rows})['{name}'] has shape {tuple(value.shape)}; it must be {(p, rows)} + ..."
        )
        assert not differ(one[name][:, :1].expand_as(value), value), (
            f"{where}: initial_state['{name}'] differs between rows, or with their number; all lives begin alike"
        )


def check_outputs(trial: Trial) -> None:
    """Shapes, types and finite numbers; inputs that stay as they were; the same answer to the same question."""
    spec, before = trial.spec, [_copied(step) for step in trial.steps]
    p, rows = trial.steps[0].obs.shape[:2]
    shapes = {"action_logits": (p, rows, spec.action_params_size), "value": (p, rows)}
    if spec.sends is not None:
        shapes["message"] = (p, rows, *spec.sends.params_shape)
    if spec.manners and getattr(trial.agent, "gates_messages", False):
        shapes["manner"] = (p, rows, 3)
    start = trial.agent.initial_state(rows)
    with torch.no_grad():
        again = trial.run(trial.steps)
    for t, (was, now) in enumerate(zip(before, trial.steps, strict=True)):
        assert not _changed(was, now), f"{trial.where}, step {t}: forward changed its input in place"
    for t, (output, once_more) in enumerate(zip(trial.outputs, again, strict=True)):
        where = f"{trial.where}, step {t}"
        _check_output(where, named(output), shapes, {n: tuple(v.shape) for n, v in start.items()}, (p, rows))
        _same(named(output), named(once_more), f"{where}: the same input gave another %s (dropout? batch statistics?)")


def _check_output(
    where: str,
    found: Mapping[str, Tensor],
    shapes: Mapping[str, tuple[int, ...]],
    states: Mapping[str, tuple[int, ...]],
    lead: tuple[int, ...],
) -> None:
    wanted = {**shapes, **{f"state['{name}']": shape for name, shape in states.items()}}
    for name, shape in wanted.items():
        assert name in found, f"{where}: {name} is missing; it must have shape {shape}"
        assert tuple(found[name].shape) == shape, f"{where}: {name} has shape {tuple(found[name].shape)}, not {shape}"
    for name, value in found.items():
        assert name in wanted or not name.startswith("state"), f"{where}: {name} is not in initial_state"
        assert tuple(value.shape[:2]) == lead, f"{where}: {name} has shape {tuple(value.shape)}, not {lead} + ..."
        assert not value.dtype.is_floating_point or value.isfinite().all(), (
            f"{where}: {name} holds a number that is not finite (nothing is heard in row 0)"
        )


# ---- who depends on whom ----


def check_rows(trial: Trial) -> None:
    """What a row makes of a step depends on that row alone, however many there are: rows are lives of their own.

    Of a collective it is worlds that do not touch one another.
    """
    p, rows = trial.steps[0].obs.shape[:2]
    last = rows - trial.together
    where = torch.zeros(p, rows, dtype=torch.bool)
    where[:, last:] = True
    others = [mixed(where, step, seen(trial.spec, rows, trial.generator)) for step in trial.steps]
    few = [rows_of(step, slice(None), slice(last)) for step in trial.steps]
    with torch.no_grad():
        changed, fewer = trial.run(others), trial.run(few)
    for t, output in enumerate(trial.outputs):
        at, kept = f"{trial.where}, step {t}", only(named(output), slice(None), slice(last))
        _same(kept, only(named(changed[t]), slice(None), slice(last)), f"{at}: %s of a row depends on another row")
        _same(kept, named(fewer[t]), f"{at}: %s of a row depends on how many rows there are")


def check_members(trial: Trial) -> None:
    """What a member does depends on its own inputs and weights, and it does the same where it is alone."""
    p, rows = trial.steps[0].obs.shape[:2]
    if p == 1 or trial.collective:
        return
    first = torch.zeros(p, rows, dtype=torch.bool)
    first[0] = True
    others = [mixed(first, step, seen(trial.spec, rows, trial.generator)) for step in trial.steps]
    strange = trial.make(trial.spec)
    strange.load_state_dict(trial.agent.state_dict())
    with torch.no_grad():
        for owner, value in zip(trial.owners.values(), strange.parameters(), strict=True):
            own = torch.arange(len(value)) == 0 if owner is None else owner == 0
            value[own] += torch.randn(value[own].shape, generator=trial.generator)
        told, moved = trial.run(others), trial.run(trial.steps, strange)
    for t, output in enumerate(trial.outputs):
        at, kept = f"{trial.where}, step {t}", only(named(output), slice(1, None), slice(None))
        for what, found in (("inputs", told[t]), ("weights", moved[t])):
            rest = only(named(found), slice(1, None), slice(None))
            _same(kept, rest, f"{at}: %s of members 1 to {p - 1} depends on the {what} of member 0")
    if not hasattr(trial.agent, "owners"):
        _check_alone(trial)


def _check_alone(trial: Trial) -> None:
    """The first member with a network of its own, which hears through a PostedInbox as the trainer's do."""
    alone = trial.make(replace(trial.spec, members=1))
    weights, own = trial.agent.state_dict(), alone.state_dict()
    other = ", ".join(sorted(own.keys() ^ weights.keys()))
    assert not other, f"{trial.where}: with 1 member it has other weights, such as {other}"
    for name, value in own.items():
        assert value.shape == (1, *weights[name].shape[1:]), (
            f"{trial.where}: '{name}' has shape {tuple(weights[name].shape)}, and {tuple(value.shape)} with 1 member"
        )
    alone.load_state_dict({name: value[:1] for name, value in weights.items()})
    steps = [posted(rows_of(step, slice(1), slice(None))) for step in trial.steps]
    with torch.no_grad():
        found = trial.run(steps, alone)
    for t, output in enumerate(trial.outputs):
        kept = only(named(output), slice(1), slice(None))
        _same(kept, named(found[t]), f"{trial.where}, step {t}: %s of member 0 is another one where it is alone")


def check_slots(trial: Trial) -> None:
    """What lies in slots without a message changes nothing, and an inbox may be missing altogether."""
    if trial.steps[0].inbox is None:
        return
    rows, steps = trial.steps[0].obs.shape[1], []
    for step in trial.steps:
        other = seen(trial.spec, rows, trial.generator).inbox
        assert step.inbox is not None
        assert other is not None
        steps.append(step._replace(inbox=in_slots(~step.inbox.mask, step.inbox, other)))
    with torch.no_grad():
        found = trial.run(steps)
        trial.run([step._replace(inbox=None) for step in trial.steps])
    for t, output in enumerate(trial.outputs):
        _same(named(output), named(found[t]), f"{trial.where}, step {t}: %s depends on slots whose `mask` is False")


# ---- how it speaks and decides ----


def check_speech(trial: Trial) -> None:
    """A message that was said is said again: the same distribution, in steps that heard with gradients."""
    kind = trial.spec.sends
    if kind is None:
        return
    with torch.no_grad():
        bare = [s if s.inbox is None else s._replace(inbox=s.inbox._replace(soft=None)) for s in trial.steps]
        acted = trial.run(bare)
    p, rows = trial.steps[0].obs.shape[:2]
    for t, output in enumerate(trial.outputs):
        at = f"{trial.where}, step {t}"
        _same(named(output), named(acted[t]), f"{at}: %s is another one where `inbox.soft` is None, as in play")
        assert output.message is not None
        says_itself = bool(getattr(trial.agent, "autoregressive", False))
        assert says_itself == (output.said is not None), (
            f"{at}: `said` is {'missing' if says_itself else 'there'}, and `autoregressive` is {says_itself}"
        )
        message = kind.sample(output.message, trial.generator) if output.said is None else output.said
        form, wanted = (tuple(message.shape), message.dtype), ((p, rows, *kind.shape), kind.dtype)
        assert form == wanted, f"{at}: a message has shape and dtype {form}; they must be {wanted}"
        again = acted[t].said
        kept = again is None or torch.equal(again, message)
        assert kept, f"{at}: it was told what it said, and says something else"
        log_prob = kind.log_prob(output.message, message)
        assert log_prob.isfinite().all(), f"{at}: it said what is impossible by its own `message`"


def check_later(trial: Trial) -> None:
    """`decide` and `see` give what forward gives at once; "features" are where they were promised."""
    output, step = trial.outputs[0], trial.steps[0]
    rows = step.obs.shape[1]
    if sees_first(trial.agent):
        with torch.no_grad():
            seen_as = trial.spec.numbers(step.obs)
            how = {"seen": trial.agent.see(seen_as)}
            told = trial.agent(seen_as, step.inbox, trial.agent.initial_state(rows), **how)
        found = {"action_logits": told.action_logits, "value": told.value}
        wrong = f"{trial.where}: %s of forward is another one where `seen` is what `see` gives"
        _same(found, {k: named(output)[k] for k in found}, wrong)
    if decides_later(trial.agent):
        state = trial.agent.initial_state(rows)
        with torch.no_grad():
            seen_as = trial.spec.numbers(step.obs)
            undecided = trial.agent(seen_as, step.inbox, state, undecided=True)
            unseen = getattr(trial.agent, "decides_unseen", False)
            logits, value = trial.agent.decide(seen_as[..., :0] if unseen else seen_as, undecided.aux)
        found = {"action_logits": logits, "value": value}
        _same(found, {k: named(output)[k] for k in found}, f"{trial.where}: %s of `decide` is not that of forward")
    if getattr(trial.agent, "gives_features", False):
        wanted = (*step.obs.shape[:2], getattr(trial.agent, "features_size", None))
        told = output.aux.get("features")
        form = None if told is None else tuple(told.shape)
        assert form == wanted, (
            f"{trial.where}: gives_features is True, and aux['features'] has shape {form}; it must be {wanted}, the "
            "last of them `features_size`"
        )


CHECKS: tuple[Callable[[Trial], None], ...] = (
    check_outputs,
    check_rows,
    check_members,
    check_slots,
    check_speech,
    check_later,
    check_losses,
    check_gradients,
)


def _same(expected: Mapping[str, Tensor], found: Mapping[str, Tensor], sentence: str) -> None:
    for name, value in expected.items():
        alike = name in found and not differ(value, found[name])
        assert alike, sentence % name


def _copied(step: Seen) -> list[Tensor | None]:
    parts = [step.obs, *(step.inbox or ())]
    return [None if part is None else part.clone() for part in parts]


def _changed(was: list[Tensor | None], step: Seen) -> bool:
    now = [step.obs, *(step.inbox or ())]
    return any(a is not None and b is not None and not torch.equal(a, b) for a, b in zip(was, now, strict=True))
