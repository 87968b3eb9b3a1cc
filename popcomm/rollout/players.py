"""Players: members on the seats of B worlds, their memories, and the channel between them; whoever has them steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from popcomm.agents.seating import SHUFFLED, Seating, SeatingRule, draw, redraw
from popcomm.agents.step import reset_state
from popcomm.channels import Channel
from popcomm.channels.mail import Mail
from popcomm.channels.session import Session
from popcomm.envs.layout import WorldLayout
from popcomm.envs.world import WorldStep
from popcomm.rollout.actor import Act, Actor, Network, Thought
from popcomm.rollout.interference import Interference
from popcomm.rollout.perception import perceived
from popcomm.rollout.rounds import Round, exchange
from popcomm.rollout.seeds import Seeds
from popcomm.rollout.sending import send
from popcomm.schedules import Clock


class Turn(NamedTuple):
    """One step of B worlds as those on the seats lived it."""

    seen: WorldStep  # what they perceived
    mail: Mail | None  # what they heard; None in silence
    acts: dict[str, Act]  # {species: what it chose, member-major}
    actions: dict[str, Tensor]  # {species: [B, N_s, ...]}, as networks chose them
    bounded: dict[str, Tensor]  # {species: [B, N_s, ...]}, the same in the bounds of their spaces: what worlds get
    sent: Tensor | None  # [B, N, *message shape], what was said; None in silence
    transmitted: Tensor | None  # [B, N, *message shape], the same after the channel's noise
    voice: Tensor  # [B, N] bool, whose message went out, be it silence in words
    loads: Tensor | None  # [B, N] float32, symbols that were spent on it
    members: dict[str, np.ndarray]  # {species: [B, N_s] int64}, who sat where
    seatings: dict[str, Seating]
    memories: dict[str, dict[str, Tensor]]  # {species: {name: [P, R, ...]}}, with which they came to this step
    reopened: np.ndarray  # [B] bool, worlds whose episode began with this step; but for those of `begin`
    # What was said before anybody acted (`Channel.rounds`); the messages above are then those of the last round, the
    # mail is theirs, and the loads are of all rounds.
    rounds: tuple[Round, ...] = ()
    fees: Tensor | None = None  # [B, N] float32, what gates and budgets charge, in units of reward; None: nothing


class Players:
    """Who plays in B worlds; the worlds are whoever calls.

    `begin` with the first WorldStep; then `act`, step the worlds, and `arrive` with what they say, over and over.

    Args:
        layout: of the worlds.
        networks: {species: Network}; their weights may change between steps.
        channel: None in silence.
        num_worlds: B.
        seeds: of all that is random here; `world` is not looked at.
        seating: how members come to their seats.
        explore: whether actions and messages are sampled; else the likeliest ones are taken.
        device: where worlds and networks live.

    Attributes:
        now: what is perceived; None before `begin`.
        session: the channel in use; None in silence.
        members, seatings: {species: [B, N_s] int64}, who sits where, and the way between the orders.
        memories: {species: {name: [P, R, ...]}}.
        speaks, hears: [N] bool, seats of species that ever do.
        living: [B, N] bool, who lives; where an episode is over, who lived until then, for the value of its last row.
        in_play: whether messages that are real numbers in training are the symbols that they stand for.
        interference: what becomes of messages on their way, beside the channel's own noise; None: nothing.
        adversary: what becomes of observations, where somebody knows the networks; None: nothing.
    """

    in_play = False
    interference: Interference | None = None
    adversary: Callable[[Players], WorldStep] | None = None

    def __init__(
        self,
        layout: WorldLayout,
        networks: Mapping[str, Network],
        channel: Channel | None,
        num_worlds: int,
        seeds: Seeds,
        seating: SeatingRule = SHUFFLED,
        explore: bool = True,
        device: torch.device | str = "cpu",
    ) -> None:
        self.layout, self.channel, self.num_worlds = layout, channel, num_worlds
        self.seating, self.explore, self._device = seating, explore, device
        self.generator = torch.Generator(device)
        kind = None if channel is None else channel.messages
        self.actors = {
            name: Actor(species, networks[name], kind, self.generator, device)
            for name, species in layout.species.items()
        }
        every = layout.species.values()
        self.speaks = torch.cat([torch.full((s.num_seats,), s.speaks) for s in every]).to(device)  # [N]
        self.hears = torch.cat([torch.full((s.num_seats,), s.hears) for s in every]).to(device)  # [N]
        self.reseed(seeds)

    def reseed(self, seeds: Seeds) -> None:
        """Let all that is random be a function of the seeds, and forget what went on before."""
        self.seeds = seeds
        self.generator.manual_seed(seeds.sampling)
        self.seating_rng = np.random.default_rng(seeds.seating)
        self.forget()

    def forget(self) -> None:
        """Nobody plays any more: the next is `begin`, and random numbers go on."""
        self.now: WorldStep | None = None
        self.session: Session | None = None
        if self.channel is not None:
            self.session = Session(self.channel, self.num_worlds, self.seeds.channel, self.generator, self._device)

    def follow(self, clock: Clock, fades: Sequence[Mapping[str, Any]] = ()) -> None:
        """Let reflexes be as faded as after so much training; see `Rollout.follow`."""
        if self.session is not None:
            if fades:
                self.session.set_fades(fades)
            self.session.observe(clock)

    # ---- a step ----

    def begin(self, step: WorldStep) -> None:
        """New episodes everywhere, everything empty."""
        self.members = {
            name: draw(self.seating_rng, self.num_worlds, actor.species.num_seats, actor.members, self.seating)
            for name, actor in self.actors.items()
        }
        self.seatings = {name: self._seat(name) for name in self.members}
        self.memories: dict[str, dict[str, Tensor]] = {
            name: actor.network.agent.initial_state(self.seatings[name].rows) for name, actor in self.actors.items()
        }
        if self.session is not None:
            self.session.clear()
        self.reopened = np.zeros(self.num_worlds, bool)
        self.arrive(step)

    def arrive(self, step: WorldStep) -> None:
        """Take in what the worlds say: what is perceived and heard now."""
        if self.session is not None:
            self.session.notice(step.labels)  # also what those who are deprived do not see
        before = None if self.now is None else self.now.alive
        self.now = step = perceived(step, self.session, self.layout)
        alive, first = step.alive, step.first
        over = ~alive.any(1, keepdim=True)
        self.living = alive | (over if before is None else over & before)
        if self.session is None or self.in_rounds:  # which begin when somebody thinks about the step
            return
        # Who died alone is not heard any more; at the end of an episode all are, for the value of its last row.
        there = ~first & self.living
        self.session.forget((first | ~alive).all(1) & first.any(1))
        self.session.deliver(there & self.speaks, there & self.hears, step.positions)

    @property
    def in_rounds(self) -> bool:
        """Whether messages are exchanged within steps."""
        return self.channel is not None and self.channel.rounds > 0

    @torch.no_grad()
    def think(self, name: str) -> Thought:
        """What a species makes of the present step; no action is chosen, and its memories stay as they were."""
        return self.foresee([name])[name]

    @torch.no_grad()
    def foresee(self, names: Sequence[str]) -> dict[str, Thought]:
        """{species: what it makes of the present step}; see `think`. All that is random then comes again: what is said
        in rounds, or drawn while a network thinks, is what is said and drawn in this step if nothing else changes."""
        assert self.now is not None, "begin first"
        drawn = self.generator.get_state()
        if self.in_rounds and self.session is not None:
            with self.session.put_back():
                thoughts = exchange(self, self.now).thoughts if names else {}
            thoughts = {name: thoughts[name] for name in names}
        else:
            thoughts = {name: self._thought(name, self.now) for name in names}
        self.generator.set_state(drawn)
        return thoughts

    def _thought(self, name: str, step: WorldStep) -> Thought:
        seating, memory = self.seatings[name], self.memories[name]
        return self.actors[name].think(step, self.mail, seating, memory, self.explore, self.open_symbols)

    @torch.no_grad()
    def act(self) -> Turn:
        """Choose actions and messages in all worlds, and send the messages."""
        step = self.now
        assert step is not None, "begin first"
        if self.reopened.any():
            self._reseat(self.reopened)
        step = step if self.adversary is None else self.adversary(self)
        talk = exchange(self, step) if self.in_rounds else None
        mail, memories, acts, said = self.mail, dict(self.memories), {}, None
        for name, actor in self.actors.items():
            if talk is None:
                thought = self._thought(name, step)
            else:
                thought, said = talk.thoughts[name], talk.rounds[-1].said[name]
            self.memories[name] = thought.output.state
            acts[name] = actor.choose(thought, step, self.seatings[name], self.explore, said)
        actions = {name: self.seatings[name].to_worlds(act.actions) for name, act in acts.items()}
        # Networks learn from what they chose, worlds get it in their bounds.
        bounded = {name: self.actors[name].bounds.of(chosen) for name, chosen in actions.items()}
        voice = step.alive & self.speaks
        voice = voice if step.speaks is None else voice & step.speaks
        sent = transmitted = loads = fees = None
        if talk is not None:
            sent, transmitted, voice = talk.rounds[-1].sent, talk.rounds[-1].transmitted, talk.rounds[-1].voice
            loads, fees = talk.loads(), talk.fees
        elif self.session is not None:
            messages, drawn = {n: act.message for n, act in acts.items()}, {n: act.drawn for n, act in acts.items()}
            sent, transmitted, voice, loads, fees = send(self, messages, drawn, voice, step)
        turn = Turn(
            step, mail, acts, actions, bounded, sent, transmitted, voice, loads,
            dict(self.members), dict(self.seatings), memories, self.reopened, () if talk is None else talk.rounds,
            fees,
        )  # fmt: skip
        # After a row in which nobody lives comes the first of a new episode.
        self.reopened = ~step.alive.any(1).cpu().numpy()
        return turn

    @property
    def under_way(self) -> np.ndarray:
        """[B] bool, worlds in the middle of an episode: neither is it over, nor does one begin with the next step."""
        assert self.now is not None, "begin first"
        return self.now.alive.any(1).cpu().numpy() & ~self.reopened

    @property
    def open_symbols(self) -> int | None:
        """How many symbols of a growing vocabulary may be said now; None: all."""
        return None if self.session is None else self.session.open_symbols

    @property
    def mail(self) -> Mail | None:
        """What is heard now; None in silence."""
        return None if self.session is None else self.session.mail

    def succeed(self, newborn: Mapping[str, np.ndarray]) -> None:
        """Others sit where members were replaced. Their lives begin in the middle of an episode, with the memory of a
        first step and nothing heard; what their predecessors said last is still heard by others.

        Args:
            newborn: {species: [P] bool}.
        """
        if self.now is None:
            return
        seats = torch.zeros(self.num_worlds, self.layout.num_agents, dtype=torch.bool, device=self._device)
        for name, born in newborn.items():
            own = torch.from_numpy(born[self.members[name]]).to(self._device)
            seats[:, self.layout.species[name].seats] = own
            seating, agent = self.seatings[name], self.actors[name].network.agent
            fresh = reset_state(agent, self.memories[name], seating.to_members(own))
            self.memories[name] = fresh
        if self.session is not None:
            self.session.deafen(seats)

    # ---- seats ----

    def _seat(self, name: str) -> Seating:
        return Seating(torch.as_tensor(self.members[name], device=self._device), self.actors[name].members)

    def _reseat(self, worlds: np.ndarray) -> None:
        """Draw the seats of worlds whose episode starts. worlds: [B] bool."""
        for name, actor in self.actors.items():
            if actor.members == 1:
                continue
            drawn = redraw(self.seating_rng, self.members[name], actor.members, worlds, self.seating)
            if drawn is self.members[name]:
                continue
            old, self.members[name] = self.seatings[name], drawn
            new = self.seatings[name] = self._seat(name)
            self.memories[name] = {k: new.to_members(old.to_worlds(v)) for k, v in self.memories[name].items()}

    # ---- checkpoints ----

    def get_state(self) -> dict[str, Any]:
        """All that decides the future but the worlds and the weights."""
        state: dict[str, Any] = {
            "generator": self.generator.get_state(),
            "seating_rng": self.seating_rng.bit_generator.state,
        }
        if self.now is None:
            return state
        state |= {
            "members": self.members,
            "reopened": self.reopened,
            "living": self.living.cpu(),
            "state": {n: {k: v.cpu() for k, v in memory.items()} for n, memory in self.memories.items()},
        }
        if self.session is None:
            return state
        if self.session.air is not None:
            labels = None if self.now.labels is None else self.now.labels.cpu()
            state |= {"perceived": {k: v.cpu() for k, v in self.now.observations.items()}, "labels": labels}
        return state | self.session.get_state()

    def set_state(self, state: Mapping[str, Any], step: WorldStep | None) -> None:
        """Go on from a `get_state`.

        Args:
            step: what the worlds said last; None: they say nothing, and the next is `begin`, with random numbers and
                fades as they were.
        """
        self.forget()
        self.generator.set_state(state["generator"])
        self.seating_rng.bit_generator.state = state["seating_rng"]
        if "members" not in state:
            return
        if self.session is not None:
            heard = self.hears.expand(self.num_worlds, -1)
            self.session.set_state(state, heard if step is None else heard & ~step.first)
        if step is None:
            return
        # Checkpoints of before do not say who lived until their episode was over.
        self.living = state["living"].to(self._device) if "living" in state else step.alive | ~step.alive.any(1, True)
        self.members, self.reopened = dict(state["members"]), state["reopened"]
        self.seatings = {name: self._seat(name) for name in self.members}
        self.memories = {n: {k: v.to(self._device) for k, v in s.items()} for n, s in state["state"].items()}
        if "perceived" in state:
            labels = None if state["labels"] is None else state["labels"].to(self._device)
            seen = {k: v.to(self._device) for k, v in state["perceived"].items()}
            step = step._replace(observations=seen, labels=labels)
        self.now = step
