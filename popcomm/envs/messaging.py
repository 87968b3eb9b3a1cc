"""A message channel on any PettingZoo ParallelEnv."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from pettingzoo import ParallelEnv
from pettingzoo.utils.wrappers import BaseParallelWrapper
from torch import Tensor

from popcomm.channels import Channel, Inbox, Learned, MessageKind, Symbols, Topology, make_topology, message_kind
from popcomm.channels.broadcast.reflexes import Reflex
from popcomm.channels.relaxed import Dru, RelaxedSymbols
from popcomm.channels.session import Session
from popcomm.checks import number, whole
from popcomm.envs.deprivation import check_spaces, perceived
from popcomm.envs.foreign import (
    allowed_to_speak,
    backing_world,
    can_be_called,
    check_parallel,
    position_size_of,
    position_source,
    positions_now,
)
from popcomm.envs.foreign_answers import reset_env, step_env
from popcomm.envs.messaging_layouts import LAYOUTS, Layout
from popcomm.errors import UserError, unknown
from popcomm.schedules import Clock


def with_messages(
    parallel_env: ParallelEnv,
    messages: MessageKind | dict[str, Any],
    topology: Topology | dict[str, Any],
    layout: str = "dict",
    reflexes: Sequence[Reflex | dict[str, Any]] = (),
    capacity: int | None = None,
    inbox: int | None = None,
    rounds: int = 0,
) -> MessagingEnv:
    """A message channel on a ParallelEnv: agents speak with their actions, and hear with the next observations.

    Seat i, in `senders` and `last_links`, is `possible_agents[i]`. A message is heard one step after it was sent, by
    those who act then and acted before; the words of an agent that has died meanwhile are lost with it. What is not
    real in an inbox (`mask` 0) is zeros, and so is what follows the end of a message of Symbols with an end symbol.
    That is `communication(rounds=0)`: a step has one action, and so one message. Agents that are to exchange messages
    within a step train on the environment itself, with `communication(rounds=R)`.
    With K messages of L symbols out of V, or of D numbers, the spaces are

    layout "dict": actions {"action": the environment's, "message": [L] int64 or [D] float32}; observations
    {"observation": the environment's, "inbox": [K, L] int64 or [K, D] float32, "senders": [K] int64, "mask": [K] int8}.
    Action masks stay where they are, in the environment's observation or in the infos.

    layout "flat", for libraries that refuse Dict: actions are MultiDiscrete (choices of the environment, from zero,
    then the L symbols) or a Box (its numbers, then the D); observations are one Box [O + K * L * V + K] or
    [O + K * D + K]: the flattened observation, the inbox (symbols one-hot), the mask. Action masks, which then cover
    the symbols too (all allowed), are in infos[agent]["action_mask"] only.

    Args:
        parallel_env: any ParallelEnv.
        messages: a kind of message, or its config mapping.
        topology: who hears whom, or its config mapping.
        layout: "dict" or "flat".
        reflexes: what happens on a channel of words by itself (`popcomm.channels.broadcast.reflexes`), or mappings as
            {"kind": "word_repetition", "decision": {"kind": "local_rule", "target": 0.5}}. Their schedules run on the
            wrapper's steps, over all episodes; those that fade by performance look at "reward", a moving average of
            the mean reward of an agent, and at whatever `report` is told.
        capacity: L, transmissions of words that the channel holds in a step; None: enough for almost all.
        inbox: K, of them, that an agent can hear; None: all that it may expect.
        rounds: 0; others are refused.

    With reflexes K is larger than the number of others: what is heard may be the agent's own words, repetitions (its
    sender is who repeated it), and words that nobody said, whose sender is N.

    Raises:
        UserError: no ParallelEnv, fewer than two agents, an unknown layout, reflexes with messages that are no words, a
            topology that does not fit the environment's agents or needs positions that it has not (see
            `popcomm.envs.foreign.position_source`), spaces that cannot be flat; in `step`, an action or message that
            does not fit its space; in `reset` and `step`, answers of an older API.
    """
    if whole("rounds", rounds, 0):
        raise UserError(
            f"rounds is {rounds}, and a ParallelEnv takes one action of an agent in a step, with one message in it, "
            "heard one step later; use rounds=0, or train on the environment itself with communication(rounds=...)"
        )
    if layout not in LAYOUTS:
        raise unknown("layout", layout, LAYOUTS)
    channel = _channel(parallel_env, messages, topology, reflexes=reflexes, capacity=capacity, inbox=inbox)
    return MessagingEnv(parallel_env, channel, LAYOUTS[layout](parallel_env, channel))


def _channel(env: ParallelEnv, messages: Any, links: Any, **air: Any) -> Channel:
    kind, graph = message_kind(messages), make_topology(links)
    if kind is None:
        raise UserError(f"messages is {messages!r}, and must be Symbols, Words, Vectors or a mapping with their 'kind'")
    if isinstance(kind, RelaxedSymbols | Dru):
        played = Symbols(kind.alphabet, kind.shape[0])
        end = ", end_symbol=True" if isinstance(kind, RelaxedSymbols) and kind.ends else ""
        raise UserError(
            f"messages are {kind.kind}, which are real numbers in the trainer alone; an environment has what they are "
            f"in play: Symbols(vocab_size={played.vocab_size}, length={played.length}{end})"
        )
    if getattr(kind, "privacy", None) is not None:
        raise UserError(
            "messages.privacy is a promise of who says them, and an environment delivers what it is given; leave it "
            "out, or train on the environment itself with communication(messages=...)"
        )
    if graph.latents:
        raise UserError(
            "topology routed has no inboxes, which with_messages fills; use full, ring, chain, k_nearest or custom"
        )
    if isinstance(graph, Learned):
        raise UserError(
            "topology learned is learned by popcomm's trainer, whose networks hear as much as links are strong; use "
            "full, ring, chain, k_nearest or custom"
        )
    check_parallel(env)
    seats = len(env.possible_agents)
    if seats < 2:
        raise UserError(f"'{env}' has {seats} agents, and messages need at least 2")
    world = backing_world(env)
    torus = None if world is None else world.torus
    if graph.needs_positions and position_source(env) is None:
        reset_env(env, 0)  # many environments place their agents in reset alone
    channel = Channel(kind, graph, seats, torus, has_positions=position_source(env) is not None, **air)
    for reflex in channel.reflexes:
        if reflex.needs_labels:
            raise UserError(
                f"reflex {reflex.name} acts in events, which a ParallelEnv does not tell; use when='always', or train "
                "on a World that has labels"
            )
    return channel


class MessagingEnv(BaseParallelWrapper):
    """A ParallelEnv with a channel; `with_messages` makes it.

    Attributes:
        channel: the Channel that delivers.
        last_links: [M, 2] int64, (sender, receiver) seats of the messages that the last observations hold.
    """

    def __init__(self, env: ParallelEnv, channel: Channel, layout: Layout) -> None:
        super().__init__(env)
        self.channel, self.layout = channel, layout
        self.observation_spaces, self.action_spaces = layout.observation_spaces, layout.action_spaces
        self._seats = {agent: seat for seat, agent in enumerate(env.possible_agents)}
        self._session = Session(channel, 1, 0)
        if self._session.deprives:
            check_spaces({agent: env.observation_space(agent) for agent in env.possible_agents})
        self._steps = 0  # of all episodes
        self._measures: dict[str, float] = {}
        self._deliver([])

    def observation_space(self, agent: Any) -> spaces.Space:
        return self.observation_spaces[agent]

    def action_space(self, agent: Any) -> spaces.Space:
        return self.action_spaces[agent]

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[Any, Any], dict[Any, Any]]:
        observations, *_, infos = reset_env(self.env, seed, options)
        if seed is not None:
            self._session.seed(seed)
        self._session.forget(torch.ones(1, dtype=torch.bool))
        self._deliver([])
        return self._join(observations, infos)

    def step(
        self, actions: Mapping[Any, Any]
    ) -> tuple[dict[Any, Any], dict[Any, float], dict[Any, bool], dict[Any, bool], dict[Any, Any]]:
        for agent in actions:
            if agent not in self._seats:
                raise unknown("agent", agent, self._seats)
        # In the order of seats: nothing may depend on the order in which actions are named.
        split = {agent: self.layout.split(agent, actions[agent]) for agent in self._seats if agent in actions}
        allowed = allowed_to_speak(self.env)
        sent = self._send({agent: message for agent, (_, message) in split.items() if allowed.get(agent, True)})
        if sent and can_be_called(getattr(self.env, "speak", None), {}):
            self.env.speak(self._loads(sent))
        told = step_env(self.env, {agent: action for agent, (action, _) in split.items()})
        observations, rewards, terminated, truncated, infos = told
        living = [a for a in self.env.agents if not (terminated.get(a, False) or truncated.get(a, False))]
        # Nobody hears what was said before it came to life.
        self._deliver([agent for agent in living if agent in split])
        self._steps += 1
        if rewards:
            # Of each a number, or an array of one.
            mean = float(np.mean([np.mean(reward) for reward in rewards.values()]))
            self._measures["reward"] = 0.99 * self._measures.get("reward", mean) + 0.01 * mean
        observations, infos = self._join(observations, infos)
        return observations, rewards, terminated, truncated, infos

    def report(self, **measures: float) -> None:
        """Tell the channel how well it goes, e.g. report(agreement=0.8), for reflexes that fade by performance.

        Raises:
            UserError: what is no number.
        """
        for name, value in measures.items():
            number(f"the measure {name}", value)
        self._measures |= measures

    def traffic(self) -> dict[str, float]:
        """What was measured of the channel since this was last called (`popcomm.channels.broadcast.traffic`), and
        the strength of every reflex; empty where messages are not words on the air."""
        return self._session.measures()

    def _send(self, said: dict[Any, np.ndarray]) -> dict[Any, np.ndarray]:
        """Agents say their messages; returns those that go out: no silence, and none that is lost to a reflex."""
        self._session.observe(Clock(self._steps, self._measures))
        kind, able = self.channel.messages, self._flags(said)
        messages = torch.zeros(*able.shape, *kind.shape, dtype=kind.dtype)
        for agent, message in said.items():
            messages[0, self._seats[agent]] = torch.from_numpy(np.asarray(message))
        goes = self._session.send(messages, able, torch.ones(1, dtype=torch.bool)) & kind.spoken(messages)
        return {agent: message for agent, message in said.items() if goes[0, self._seats[agent]]}

    def _flags(self, agents: Iterable[Any]) -> Tensor:
        """[1, N] bool, True on their seats."""
        flags = torch.zeros(1, len(self._seats), dtype=torch.bool)
        flags[0, [self._seats[agent] for agent in agents]] = True
        return flags

    def render(self) -> Any:
        """The environment's picture; one of a World shows the last links."""
        world = backing_world(self.env)
        if world is None or getattr(self.env, "render_mode", None) != "rgb_array":
            return self.env.render()
        return world.render(0, self.last_links)

    def _loads(self, sent: dict[Any, np.ndarray]) -> dict[Any, float]:
        """What the messages cost, in symbols."""
        loads = self.channel.messages.load(torch.from_numpy(np.stack(list(sent.values()))))
        return dict(zip(sent, loads.tolist(), strict=True))

    def _deliver(self, living: Sequence[Any]) -> None:
        """Fill the inboxes [N, K, ...] with what reaches those who acted and still live."""
        present = self._flags(living)
        mail = self._session.deliver(present, self._hearing(present), self._positions(present))
        messages, senders, mask = mail.messages[0][mail.slots[0]], mail.senders[0], mail.mask[0]
        receiver, slot = mail.said[0].nonzero(as_tuple=True)
        self.last_links: Tensor = torch.stack([senders[receiver, slot], receiver], 1)
        silent = ~mask.view(*mask.shape, *(1 for _ in self.channel.messages.shape))
        self._inboxes = Inbox(messages.masked_fill(silent, 0), senders.masked_fill(~mask, 0), mask)

    def _hearing(self, living: Tensor) -> Tensor:
        """[1, N] bool: those who live, but seats of a World's species that never hear."""
        world, hears = backing_world(self.env), living.clone()
        for species in () if world is None else world.species.values():
            hears[0, species.seats] &= species.hears
        return hears

    def _positions(self, present: Tensor) -> Tensor | None:
        """Positions [1, N, D] float32 of those present (zeros for others), where the topology asks for them."""
        if not self.channel.topology.needs_positions:
            return None
        if not present.any():  # nobody stands anywhere, and any place will do
            return torch.zeros(*present.shape, len(self.channel.torus or (0,)))
        source, agents = position_source(self.env), list(self._seats)
        size, why = position_size_of(source, agents)
        living = [agent for agent, seat in self._seats.items() if present[0, seat]]
        if why:
            raise UserError(f"the topology needs positions of '{self.env}', and {why}")
        positions = np.zeros((1, len(self._seats), size), np.float32)
        try:
            shown = positions_now(source, agents, living, size)
        except UserError as error:
            raise UserError(f"the topology needs positions of '{self.env}', and {error}") from error
        for agent, place in shown.items():
            positions[0, self._seats[agent]] = place
        return torch.from_numpy(positions)

    def _join(self, observations: dict[Any, Any], infos: dict[Any, Any]) -> tuple[dict[Any, Any], dict[Any, Any]]:
        """Add every agent's inbox; entries that belong to no agent pass as they are."""
        joined, told = dict(observations), dict(infos)
        if self._session.deprives:
            self._deprive(joined)
        for agent, seat in self._seats.items():
            if agent not in observations:
                continue
            inbox = Inbox(self._inboxes.messages[seat], self._inboxes.senders[seat], self._inboxes.mask[seat])
            joined[agent] = self.layout.join(agent, joined[agent], inbox)
            told[agent] = self.layout.info(agent, observations[agent], infos.get(agent, {}))
        return joined, told

    def _deprive(self, observations: dict[Any, Any]) -> None:
        """Take away what some agents see, in place."""
        for deprivation in self._session.deprived():
            for agent, seat in self._seats.items():
                if agent in observations and deprivation.mask[0, seat]:
                    space = self.env.observation_space(agent)
                    observations[agent] = perceived(observations[agent], space, deprivation.perceive)
