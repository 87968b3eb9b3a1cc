"""The joint unroll of a fragment, all species together, with gradients between agents."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor

from popcomm.agents.contract import AgentSpec
from popcomm.agents.deferred import together
from popcomm.agents.graph import LearnedGraph
from popcomm.agents.inbox import inbox_of
from popcomm.agents.seating import Seating
from popcomm.agents.step import agent_step
from popcomm.channels import Learned
from popcomm.channels.mail import LogOf, Mail
from popcomm.channels.messages import MessageKind, reparameterised
from popcomm.rllib.fragment import Fragment, Steps, carried, open_symbols, plain, said_in
from popcomm.rllib.module import PopulationRLModule
from popcomm.rllib.round_walk import folded, side_by_side, walk_rounds
from popcomm.rllib.species_walk import SpeciesUnroll, Walk, pays_for_messages, single, soft_of

S = TypeVar("S", bound=Container[str])


def _all_steps(arrays: Fragment[Tensor], length: int, key: str, ahead: int) -> Tensor:
    """Rows of all steps, so many steps later: [B T, N_s, ...]."""
    return plain(arrays)[key][:, ahead : ahead + length].flatten(0, 1)


def _row(t: int, steps: Steps, key: str) -> Tensor:
    """Rows of step t: [B, N_s, ...]."""
    return steps.at(t, key)


def _heard_later(soft: Tensor, before: Tensor) -> Tensor:
    """What is said at step t [B, T, ...] is heard at t + 1; at step 0 `before` is, [B, ...], from another fragment."""
    return torch.cat([before.unsqueeze(1), soft[:, :-1]], 1)


@dataclass
class Unroller:
    """Runs the species of a MultiRLModule over a fragment.

    Args:
        modules: {species: PopulationRLModule}.
        seats: {species: slice of the world's seats}.
        messages: the kind of message, or None.
        through: whether gradients flow from receivers to senders.
        graph: by whose links they hear, where these have strengths.
        explores: whether messages were drawn by those who acted; else they said the likeliest ones.
    """

    modules: Mapping[str, PopulationRLModule]
    seats: Mapping[str, slice]
    messages: MessageKind | None
    through: bool
    graph: LearnedGraph | Learned | None = None
    explores: bool = True
    specs: dict[str, AgentSpec] = field(init=False)
    _seated: dict[str, Seating] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.specs = {name: module.spec for name, module in self.modules.items()}
        self.rounds = max(spec.rounds for spec in self.specs.values())

    def run(self, fragment: Mapping[str, Fragment[Tensor]]) -> dict[str, SpeciesUnroll]:
        """fragment {species: arrays of `fragment.allocate` as tensors} -> {species: SpeciesUnroll}."""
        recurrent = any(carried(arrays) for arrays in fragment.values())
        if self.rounds:  # within a step; nothing but memories links the steps
            return self._round_by_round(fragment if recurrent else {n: folded(a) for n, a in fragment.items()})
        # A gradient crosses one step at most where no species both hears and speaks.
        relayed = any(spec.hears and spec.speaks for spec in self.specs.values())
        if recurrent or (self.through and self.messages is not None and relayed):
            return self._step_by_step(fragment)
        return self._folded(fragment)

    def _folded(self, fragment: Mapping[str, Fragment[Tensor]]) -> dict[str, SpeciesUnroll]:
        """All steps at once, as if they were T times as many worlds: nothing but messages links them.

        Species that do not hear come first, so that the others hear what the graph says where gradients go through.
        """
        worlds, length = next(iter(fragment.values()))["alive"].shape[:2]

        def fold(values: Tensor) -> Tensor:
            return values.reshape(worlds * length, *values.shape[2:])

        mail = self._mail(list(fragment.values()), lambda arrays, key: fold(plain(arrays)[key][:, :length]))
        result: dict[str, SpeciesUnroll] = {}
        softs: dict[str, Tensor] = {}
        for name in sorted(fragment, key=lambda name: self.specs[name].hears):
            arrays, spec = fragment[name], self.specs[name]
            seating = self._seating(name, fold(arrays["members"]))
            if spec.hears and self.through and mail is not None and mail.soft is None:
                joined = self._joined_soft(softs, fragment, length)
                mail = mail._replace(soft=fold(_heard_later(joined, self._from_before(fragment, joined))))
            inbox = inbox_of(mail, seating, self.seats[name]) if mail is not None and spec.hears else None
            agent = self.modules[name].agent
            obs = seating.to_members(fold(arrays["obs"][:, :length]))
            said = None if spec.sends is None else seating.to_members(fold(said_in(arrays)))
            state = agent.initial_state(seating.rows)
            output = agent_step(agent, spec, obs, inbox, state, said, open_symbols=open_symbols(arrays))
            expense = None
            if self.through and spec.sends is not None and output.message is not None:
                noisy = "sent" in arrays
                look = partial(_all_steps, arrays, length)
                priced = pays_for_messages(agent)
                soft, expense = soft_of(spec.sends, output.message, seating, look, noisy, priced, self.explores)
                softs[name] = soft.unflatten(0, (worlds, length))
            index = None if seating.members == 1 else seating.index.reshape(-1)
            result[name] = SpeciesUnroll(
                output._replace(state={}), single(inbox), index, seating.row_mask(fold(arrays["alive"])), expense
            )
        return {name: result[name] for name in fragment}

    def _seating(self, name: str, members: Tensor) -> Seating:
        """Who sits where; the last one again where all sit as they did, as members on fixed seats do."""
        last = self._seated.get(name)
        if last is None or not torch.equal(last.seats, members):
            self._seated[name] = last = Seating(members, self.specs[name].members)
        return last

    def _from_before(self, fragment: Mapping[str, Fragment[Tensor]], like: Tensor) -> Tensor:
        """What is heard at step 0, [B, N, *features shape], in the form of `like`: no gradient flows to it."""
        if not reparameterised(self.messages):
            return torch.zeros_like(like[:, 0])
        return torch.cat([arrays["messages"][:, 0] for arrays in fragment.values()], 1).to(like.dtype)

    def _joined_soft(
        self, softs: Mapping[str, Tensor], fragment: Mapping[str, Fragment[Tensor]], length: int
    ) -> Tensor:
        """What was said in all steps, [B, T, N, *features shape]; zeros of species that say nothing."""
        assert self.messages is not None
        parts = []
        for name, arrays in fragment.items():
            shape = (*arrays["alive"].shape[:3], *self.messages.features_shape)
            parts.append(softs[name] if name in softs else arrays["values"].new_zeros(shape))
        return torch.cat(parts, 2)

    def _mail(self, fragment: Sequence[S], get: Callable[[S, str], Tensor], soft: Tensor | None = None) -> Mail | None:
        """What is under way where `get(arrays of a species, key)` says what is in a fragment, [B, N_s, ...]."""
        if self.messages is None:
            return None
        first = fragment[0]
        keys = ("slots", "inbox_mask") if "slots" in first else ("senders", "inbox_mask", "messages")
        senders, mask, *said = (side_by_side([get(arrays, key) for arrays in fragment]) for key in keys)
        if "slots" in first:  # the log is the same in the arrays of all species
            log = LogOf(get(first, "log_sources"), get(first, "log_direct"))
            return Mail(get(first, "log_words"), senders, mask, soft, log=log)
        hears = None
        if any(spec.latents for spec in self.specs.values()):
            begun, alive = (side_by_side([get(arrays, key) for arrays in fragment]) for key in ("first", "alive"))
            hears = ~begun & alive
        gate = None if self.graph is None else self.graph.gate(senders)
        return Mail(said[0], senders, mask, soft, hears, gate=gate)

    def _step_by_step(self, fragment: Mapping[str, Fragment[Tensor]]) -> dict[str, SpeciesUnroll]:
        """Step t hears what the graph said at step t - 1: stored samples forward, gradients back to the senders."""
        length = next(iter(fragment.values()))["alive"].shape[1]
        walks = {name: Walk(self.modules[name], arrays, self.explores) for name, arrays in fragment.items()}
        steps = [walk.steps for walk in walks.values()]
        soft: Tensor | None = None
        with together():
            for t in range(length):
                mail = self._mail(steps, partial(_row, t), soft)
                for name, walk in walks.items():
                    walk.step(t, mail, self.seats[name])
                if self.through and self.messages is not None:
                    soft = side_by_side([walk.soft(t, self.messages) for walk in walks.values()])
        return {name: walk.joined(self.through) for name, walk in walks.items()}

    def _round_by_round(self, fragment: Mapping[str, Fragment[Tensor]]) -> dict[str, SpeciesUnroll]:
        """What is said in a step is heard in it; see `popcomm.rllib.round_walk`."""
        assert self.messages is not None
        walks = {name: Walk(self.modules[name], arrays, self.explores) for name, arrays in fragment.items()}
        routed = any(spec.latents for spec in self.specs.values())
        with together():
            walk_rounds(walks, self.seats, self.rounds, self.messages, self.through, routed, self.graph)
        return {name: walk.joined(self.through) for name, walk in walks.items()}
