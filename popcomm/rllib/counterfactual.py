"""Counterfactual credit: what a message is worth beside what its sender would have said otherwise."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from popcomm.agents.counterfactuals import (
    Alternatives,
    Answer,
    Scene,
    alternatives,
    drawn,
    instead,
    lived,
    said_again,
    together,
)
from popcomm.agents.distributions import action_distribution
from popcomm.agents.seating import Seating
from popcomm.agents.step import reset_state
from popcomm.channels.mail import LogOf, Mail
from popcomm.channels.mailbox import gather_seats
from popcomm.channels.manner import Drawn
from popcomm.channels.manner import log_prob as manner_log_prob
from popcomm.channels.messages import MessageKind
from popcomm.rllib.fragment import Fragment, Steps, carried, open_symbols
from popcomm.rllib.graph import graph_of, strengths_of
from popcomm.rllib.module import PopulationRLModule
from popcomm.rllib.plan import Plan, SpeciesPlan
from popcomm.rllib.ppo import Reduce, member_moments

MOST = 10.0  # likelier than so many times a response is not counted (truncated importance weights, Ionides 2008)


def add_counterfactual_credit(
    arrays: Mapping[str, Fragment[Tensor]],
    advantages: Sequence[Tensor],
    plan: Plan,
    modules: Mapping[str, PopulationRLModule],
    generator: torch.Generator,
    reduce: Reduce,
) -> None:
    """What messages are credited with: "message_advantages" [B, T, N_s] of those who speak, in their deviations.

    They are not centred: a message that nobody followed has 0, whatever others are worth.

    Args:
        arrays: {species: its fragment}.
        advantages: of each species [B, T, N_s].
        plan: whose seats, members and messages they are.
        modules: {species: its networks}, as they played.
        generator: of what senders might have said.
        reduce: sum over learners.
    """
    values, heard = counterfactual_credit(arrays, advantages, plan, modules, generator)
    for name, a in arrays.items():
        kind, members = plan.species[name].species, plan.species[name].members
        if not kind.speaks:
            continue
        counts = heard[:, :, kind.seats] & a["alive"] & a.get("voiced", a["alive"])
        own = values[:, :, kind.seats]
        deviation = member_moments(own, a["members"], counts, members, reduce)[2].sqrt().clamp(min=1e-4)
        scaled = (own / deviation[a["members"].long()]).to(own.dtype)
        a["message_advantages"] = torch.where(counts, scaled, 0.0)


@torch.no_grad()
def counterfactual_credit(
    arrays: Mapping[str, Fragment[Tensor]],
    advantages: Sequence[Tensor],
    plan: Plan,
    modules: Mapping[str, PopulationRLModule],
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """COMA's advantage of messages (Foerster et al. 2018, eq. 4), by what their listeners did.

    A = Q(m) - sum over m' of p(m') Q(m'), p being the sender's own distribution and all else as it was. What a message
    does it does through the response u of a listener (its action and, where these are decisions, its message, whether
    it goes out, and its priority), so
    Q(m) - Q(m') = sum over u of (pi(u given m) - pi(u given m')) Q(u): estimated by the response that was given, it is

        (1 - sum over m' of p(m') pi(u given m') / pi(u given m)) times the listener's advantage of the step in which it
        heard m,

    summed over those who heard it. So no critic need know of messages, and the listener's own baseline cancels: the
    factor has a mean of 0 over u. What listeners remember for later steps is not counted.

    Returns:
        (values [B, T, N], 0 where nobody heard; messages that somebody heard in the fragment [B, T, N] bool).
    """
    kind = plan.message_kind
    assert kind is not None
    graph = strengths_of(plan.channel, graph_of(plan.channel, plan.layout, modules))
    walks = {name: _Walk(modules[name], a, plan.species[name]) for name, a in arrays.items()}
    worlds, length = advantages[0].shape[:2]
    seats = plan.layout.num_agents
    # One more seat takes what is nobody's.
    values, counts = (advantages[0].new_zeros(worlds, length, seats + 1) for _ in range(2))
    other: Alternatives | None = None
    for t in range(length):
        mail = _mail([walk.steps for walk in walks.values()], t)
        if graph is not None:
            mail = mail._replace(gate=graph.gate(mail.slots))
        for walk in walks.values():
            walk.step(t, mail)
        for walk, gained in zip(walks.values(), advantages, strict=True):
            if other is None or not walk.module.spec.hears:
                continue
            real = mail.said[:, walk.seats] & walk.steps.at(t, "alive").unsqueeze(-1)
            if mail.gate is not None:  # through a link that is shut nobody hears anything
                real = real & (mail.gate[:, walk.seats] > 0)
            worth = torch.where(real, walk.share(other, kind) * gained[:, t].unsqueeze(-1), 0.0)
            whose = torch.where(real, mail.senders[:, walk.seats], seats).clamp(max=seats).flatten(1)
            values[:, t - 1].scatter_add_(1, whose, worth.flatten(1))
            counts[:, t - 1].scatter_add_(1, whose, real.flatten(1).to(counts.dtype))
        if t < length - 1:
            other = _alternatives(walks, kind, generator)
            if plan.channel is not None and plan.channel.noise:
                many = next(iter(walks.values())).open_symbols
                other = other._replace(messages=plan.channel.transmit(other.messages, generator, many))
    return values[..., :-1], counts[..., :-1] > 0


def _mail(steps: Sequence[Steps], t: int) -> Mail:
    """What is heard in step t."""

    def every(key: str) -> Tensor:
        return torch.cat([each.at(t, key) for each in steps], 1)

    if "slots" not in steps[0]:
        return Mail(every("messages"), every("senders"), every("inbox_mask"))
    words, sources, direct = (steps[0].at(t, f"log_{key}") for key in ("words", "sources", "direct"))
    return Mail(words, every("slots").long(), every("inbox_mask"), log=LogOf(sources, direct))


def _alternatives(walks: Mapping[str, _Walk], kind: MessageKind, generator: torch.Generator) -> Alternatives:
    """What all seats might have said in a step."""
    parts = [walk.alternatives(kind, generator) if walk.speaks else None for walk in walks.values()]
    return together(parts, [walk.seats.stop - walk.seats.start for walk in walks.values()])


class _Walk:
    """One species on its way through a fragment, as it was played."""

    scene: Scene
    given: Answer

    def __init__(self, module: PopulationRLModule, arrays: Fragment[Tensor], plan: SpeciesPlan) -> None:
        self.module, self.seats, self.steps = module, plan.species.seats, Steps(arrays)
        self.speaks = module.spec.sends is not None
        self.decides = plan.speaks_by_reinforce  # by its messages, too
        self.actions = action_distribution(plan.species.action_space)
        self.memory, self.open_symbols = carried(arrays), open_symbols(arrays)

    def step(self, t: int, mail: Mail) -> None:
        """Live through step t: what it met, and what it made of it."""
        self.t, members = t, self.steps.at(t, "members")
        memory = self.memory
        if memory:
            seating = Seating(members, self.module.spec.members)
            rows = {name: seating.to_members(values) for name, values in memory.items()}
            rows = reset_state(self.module.agent, rows, seating.to_members(self.steps.at(t, "first")))
            memory = {name: seating.to_worlds(values) for name, values in rows.items()}
        self.scene = Scene(self.module, self.seats, self.steps.at(t, "obs"), memory, members, mail, self.open_symbols)
        self.given, self.memory = lived(self.scene, self._said)

    @property
    def _said(self) -> Tensor | None:
        return self.steps.said_at(self.t) if self.speaks else None

    def alternatives(self, kind: MessageKind, generator: torch.Generator) -> Alternatives:
        """What it might have said in this step."""
        if self.given.said is not None:
            return drawn(said_again(self.scene, generator))
        assert self.given.message is not None
        return alternatives(kind, self.given.message, generator)

    def share(self, other: Alternatives, kind: MessageKind) -> Tensor:
        """[B, N_s, K], 1 - sum over m' of p(m') pi(u given m') / pi(u given m), of the message in every slot.

        other: what seats might have said one step before.
        """
        mail = self.scene.mail
        assert mail is not None
        senders = mail.senders[:, self.seats].clamp(max=other.weights.shape[1] - 1)
        before, found = self._log_prob(self.given), []
        for part, answers in instead(self.scene, other, kind, self._said):
            after = self._log_prob(answers)
            ratio = (after - before[..., None, None]).clamp(max=math.log(MOST)).exp()
            found.append(1 - (gather_seats(other.weights, senders[..., part]) * ratio).sum(-1))
        return torch.cat(found, -1)

    def _log_prob(self, answer: Answer) -> Tensor:
        """How likely the response of this step is (nats): of answers [B, N_s, ...] -> [B, N_s, ...]."""
        logits = answer.logits.float()
        copies = logits.shape[2:-1]

        def of_step(key: str) -> Tensor:
            return _spread(self.steps.at(self.t, key), copies)

        mask = of_step("action_mask") if "action_mask" in self.steps else None
        total = self.actions.log_prob(logits, of_step("actions"), mask)
        if answer.manner is not None:
            opens, gated = of_step("opens"), "sender" in self.module.spec.gates
            how = manner_log_prob(answer.manner, Drawn(opens > 0, of_step("haste")), gated)
            total = total + torch.where(opens >= 0, how, 0.0)
        said = self._said
        if not self.decides or said is None or answer.message is None:
            return total
        assert self.module.spec.sends is not None
        spoken = self.module.spec.sends.log_prob(answer.message.float(), _spread(said, copies))
        return total + (torch.where(of_step("voiced"), spoken, 0.0) if "voiced" in self.steps else spoken)


def _spread(values: Tensor, copies: Sequence[int]) -> Tensor:
    """[B, N, ...] -> [B, N, *copies, ...]."""
    worlds, seats, *rest = values.shape
    return values.view(worlds, seats, *[1] * len(copies), *rest).expand(worlds, seats, *copies, *rest)
