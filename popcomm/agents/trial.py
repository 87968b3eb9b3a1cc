"""Trials of an agent: random things to see and hear, what it makes of them, and the same with some of it changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from popcomm.agents.contract import AgentOutput, AgentSpec, AuxiliaryBatch
from popcomm.agents.distributions import action_distribution
from popcomm.agents.step import agent_step
from popcomm.channels.mailbox import Inbox, PostedInbox
from popcomm.channels.messages import Symbols, reparameterised

STEPS = 3


class Seen(NamedTuple):
    """What an agent gets in a step."""

    obs: Tensor  # [P, R, O]
    inbox: Inbox | None  # [P, R, K, ...]; None of a species that never hears


@dataclass
class Trial:
    """An agent that was made, the steps that it lived through, and what it made of them."""

    agent_class: type
    config: dict[str, Any]
    spec: AgentSpec
    agent: Any
    steps: list[Seen]
    outputs: list[AgentOutput]
    generator: torch.Generator
    seed: int

    @classmethod
    def of(cls, agent_class: type, config: dict[str, Any], spec: AgentSpec, rows: int, seed: int) -> Trial:
        generator = torch.Generator().manual_seed(seed)
        trial = cls(agent_class, config, spec, None, [], [], generator, seed)
        trial.agent = trial.make(spec)
        trial.steps = [seen(spec, rows * trial.together, generator) for _ in range(STEPS)]
        return trial

    def live(self) -> None:
        """Live through the steps, with weights that were moved; what is said is remembered."""
        shaken(self.agent, self.generator)
        with torch.no_grad():
            self.outputs = self.run(self.steps, choose=True)

    @property
    def where(self) -> str:
        """Which agent this is, for sentences."""
        talk = "in silence" if self.spec.messages is None else f"with {self.spec.messages.kind}"
        return f"{self.agent_class.__name__} of {self.spec.members} members {talk}"

    @property
    def collective(self) -> bool:
        """Whether it is one network of all seats of a species."""
        return bool(getattr(self.agent, "collective", False))

    @property
    def together(self) -> int:
        """Rows of a member that may depend on one another: the seats of a world of a collective.

        With fixed seating it is the rows of its members that are.
        """
        fixed = self.spec.seating == "fixed" and self.spec.members > 1
        return self.spec.num_seats if self.collective and not fixed else 1

    @property
    def owners(self) -> dict[str, Tensor | None]:
        """{parameter: [axis 0] int64, whose each row is; None: the members are its first axis}."""
        told = self.agent.owners() if hasattr(self.agent, "owners") else {}
        return {name: told.get(value) for name, value in self.agent.named_parameters()}

    @property
    def said(self) -> list[Tensor | None]:
        """What was said in each step, by agents that say it themselves; all else is told them again."""
        return [output.said for output in self.outputs]

    def make(self, spec: AgentSpec) -> Any:
        """The agent at a place."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            try:
                return self.agent_class(spec, **self.config)
            except Exception as error:
                raise AssertionError(f"{self.where}: it cannot be made: {sentence_of(error)}") from error

    def run(self, steps: Sequence[Seen], agent: Any = None, choose: bool = False) -> list[AgentOutput]:
        """What the agent, or another one, makes of some steps from the start of a life."""
        agent = self.agent if agent is None else agent
        said = None if choose else self.said
        if said is not None and said[0] is not None:  # fewer rows or members may be asked
            p, r = steps[0].obs.shape[:2]
            said = [None if m is None else m[:p, :r] for m in said]
        try:
            return walk(agent, self.spec, steps, said, self.generator)
        except Exception as error:
            raise AssertionError(f"{self.where}: forward raised {sentence_of(error)}") from error


def places(members: int = 3) -> list[AgentSpec]:
    """Where agents are tried if nobody says where: with symbols to say and to hear, and in silence."""
    about: dict[str, Any] = {"obs_size": 6, "action_space": spaces.Discrete(4), "members": members, "state_size": 2}
    return [
        AgentSpec(**about, messages=Symbols(5, 3), inbox_size=3, num_agents=5, sender_obs_size=6),
        AgentSpec(**about, messages=None, inbox_size=0),
    ]


def seen(spec: AgentSpec, rows: int, generator: torch.Generator) -> Seen:
    """Something random to see and hear; nothing is heard in row 0, and all slots are real in row 1."""
    p, k, kind = spec.members, spec.inbox_size, spec.receives
    obs = _observations(spec, rows, generator)
    if kind is None or not k:
        return Seen(obs, None)
    params = torch.randn(p, rows, k, *kind.params_shape, generator=generator)
    messages = kind.sample(params, generator)
    # Of a reparameterised kind the differentiable form is the message itself.
    soft = messages if reparameterised(kind) else kind.soft(params)
    mask = torch.rand(p, rows, k, generator=generator) < 0.6
    mask[:, 0], mask[:, 1:2] = False, True
    senders = torch.randint(spec.num_agents, mask.shape, generator=generator)
    return Seen(obs, Inbox(messages, senders, mask, soft.clone()))


def _observations(spec: AgentSpec, rows: int, generator: torch.Generator) -> Tensor:
    """[P, rows, O], as they are kept: random numbers, or bytes where there are pictures."""
    shape = (spec.members, rows, spec.obs_size)
    if spec.sight is None:
        return torch.randn(shape, generator=generator)
    most = torch.from_numpy(spec.sight.high)
    return (torch.rand(shape, generator=generator) * (most + 1)).to(spec.obs_dtype)


def walk(
    agent: Any,
    spec: AgentSpec,
    steps: Sequence[Seen],
    said: Sequence[Tensor | None] | None = None,
    generator: torch.Generator | None = None,
) -> list[AgentOutput]:
    """What an agent makes of a few steps of a life.

    Args:
        said: what it said in each of them; None: it chooses.
        generator: of what it chooses.
    """
    state: dict[str, Tensor] = agent.initial_state(steps[0].obs.shape[1])
    outputs = []
    for t, (obs, inbox) in enumerate(steps):
        told = None if said is None else said[t]
        outputs.append(agent_step(agent, spec, obs, inbox, state, told, generator))
        state = dict(outputs[-1].state)
    return outputs


def named(output: AgentOutput) -> dict[str, Tensor]:
    """{where a tensor is found: the tensor} of what an agent gave back, but for what it said."""
    found = {"action_logits": output.action_logits, "value": output.value}
    found |= {f"state['{name}']": value for name, value in output.state.items()}
    found |= {f"aux['{name}']": value for name, value in output.aux.items()}
    found |= {} if output.manner is None else {"manner": output.manner}
    return found if output.message is None else {**found, "message": output.message}


def mixed(where: Tensor, one: Seen, other: Seen) -> Seen:
    """`other` in rows where [P, R] bool is True, and `one` elsewhere."""
    obs = _chosen(where, one.obs, other.obs)
    if one.inbox is None or other.inbox is None:
        return Seen(obs, None)
    parts = (
        None if a is None or b is None else _chosen(where, a, b) for a, b in zip(one.inbox, other.inbox, strict=True)
    )
    return Seen(obs, Inbox(*parts))  # type: ignore[arg-type]


def in_slots(where: Tensor, one: Inbox, other: Inbox) -> Inbox:
    """What `other` holds in slots where [P, R, K] bool is True, and `one` elsewhere; who is real stays."""
    assert one.soft is not None
    assert other.soft is not None
    return one._replace(
        messages=_chosen(where, one.messages, other.messages),
        senders=_chosen(where, one.senders, other.senders),
        soft=_chosen(where, one.soft, other.soft),
    )


def rows_of(step: Seen, members: slice, rows: slice) -> Seen:
    """Some members and rows alone."""
    inbox = step.inbox
    parts = None if inbox is None else Inbox(*(None if part is None else part[members, rows] for part in inbox))  # type: ignore[arg-type]
    return Seen(step.obs[members, rows], parts)


def posted(step: Seen) -> Seen:
    """One member's step, [1, R, ...], with the inbox as the trainer hands it to networks that share their weights."""
    inbox = step.inbox
    if inbox is None:
        return step
    count = inbox.mask.numel()
    soft = None if inbox.soft is None else inbox.soft.flatten(0, 2)
    index = torch.arange(count).view_as(inbox.mask)
    made: Any = PostedInbox(inbox.messages.flatten(0, 2), index, inbox.senders, inbox.mask, soft)
    return Seen(step.obs, made)


def batch(spec: AgentSpec, now: Seen, after: Seen, mask: Tensor, generator: torch.Generator) -> AuxiliaryBatch:
    """Targets for the losses of one step. mask: [P, R] bool, rows that are real."""
    p, rows = mask.shape
    sender = sender_mask = None
    if now.inbox is not None and spec.sender_obs_size:
        sender = torch.randn(*now.inbox.mask.shape, spec.sender_obs_size, generator=generator)
        sender_mask = now.inbox.mask.unsqueeze(-1).expand(sender.shape)
    world = torch.randn(p, rows, spec.state_size, generator=generator) if spec.state_size else None
    params = torch.randn(p, rows, spec.action_params_size, generator=generator)
    actions = action_distribution(spec.action_space).sample(params, generator)
    return AuxiliaryBatch(now.obs, after.obs, mask.clone(), actions, now.inbox, sender, sender_mask, world, mask)


def batches_mixed(where: Tensor, one: AuxiliaryBatch, other: AuxiliaryBatch) -> AuxiliaryBatch:
    """`other` in rows where [P, R] bool is True, and `one` elsewhere; which rows are real stays."""
    parts: dict[str, Any] = {"inbox": mixed(where, Seen(one.obs, one.inbox), Seen(other.obs, other.inbox)).inbox}
    for name, a, b in zip(AuxiliaryBatch._fields, one, other, strict=True):
        if isinstance(a, Tensor) and isinstance(b, Tensor):
            parts[name] = _chosen(where, a, b)
    return one._replace(**{**parts, "mask": one.mask})


def outputs_mixed(where: Tensor, one: AgentOutput, other: AgentOutput) -> AgentOutput:
    """`other` in rows where [P, R] bool is True, and `one` elsewhere, without what an update does not keep."""
    message = None if one.message is None or other.message is None else _chosen(where, one.message, other.message)
    aux = {name: _chosen(where, value, other.aux[name]) for name, value in one.aux.items()}
    logits, value = _chosen(where, one.action_logits, other.action_logits), _chosen(where, one.value, other.value)
    return AgentOutput(logits, message, value, {}, aux)


def shaken(agent: torch.nn.Module, generator: torch.Generator) -> None:
    """Move the weights by half of their size: heads of small gain would hide a difference, zeros everything."""
    with torch.no_grad():
        for parameter in agent.parameters():
            size = float(parameter.square().mean().sqrt()) if parameter.numel() else 0.0
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.add_(noise.to(parameter), alpha=0.5 * size or 0.1)


def differ(expected: Tensor, found: Tensor) -> bool:
    """Whether two tensors differ by more than the order of summation explains."""
    if expected.shape != found.shape or expected.dtype != found.dtype:
        return True
    if not expected.numel() or not expected.dtype.is_floating_point:
        return not torch.equal(expected, found)
    expected, found = expected.detach(), found.detach()
    scale = float(expected.abs().max())
    return not np.allclose(expected, found, rtol=1e-3, atol=1e-4 * max(scale, 1e-3))


def only(tensors: Mapping[str, Tensor], members: slice, rows: slice) -> dict[str, Tensor]:
    """The same tensors of some members and rows."""
    return {name: value[members, rows] for name, value in tensors.items()}


def _chosen(where: Tensor, one: Tensor, other: Tensor) -> Tensor:
    return torch.where(where.view(*where.shape, *[1] * (one.ndim - where.ndim)), other, one)


def sentence_of(error: Exception) -> str:
    """An error's kind and words, in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
