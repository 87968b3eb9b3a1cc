"""Counterfactual importance of messages: what those who heard them would have done without them, or with others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
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
    without,
)
from popcomm.agents.step import reset_state
from popcomm.agents.variation import total_variation
from popcomm.channels.mail import LogOf, Mail
from popcomm.channels.mailbox import gather_seats
from popcomm.checks import true_or_false, whole
from popcomm.errors import UserError
from popcomm.rollout.interference import as_symbols
from popcomm.rollout.players import Players, Turn
from popcomm.rollout.rollout import Playable
from popcomm.rollout.seeds import seed_of

IMPORTANCE_BRANCH = 13
MEASURES = ("replaced", "removed", "value_replaced", "value_removed")


class Importance(NamedTuple):
    """Who matters to whom: means over messages, [N (sender), N (receiver)] float64; nan where nobody was heard.

    A sender that is sure of what it says would hardly have said anything else: what it says then matters little as
    "replaced", however much its listeners need it, and as much as ever as "removed", which tells pairs apart at the end
    of a training. A change of a policy is a total variation distance, 0 ... 1. One of a value is in deviations of the
    returns, as networks have them; where a central critic values states, networks' own values were never trained and
    mean nothing.
    """

    replaced: np.ndarray  # of the policy, in expectation over what the sender would have said otherwise
    removed: np.ndarray  # of the policy, without the message
    value_replaced: np.ndarray  # of the value, likewise
    value_removed: np.ndarray
    messages: np.ndarray  # [N, N] int64, of how many


class ImportanceSums:
    """Asks the first worlds of a rollout in every step that it is shown, and adds up what they answer.

    Args:
        players: who play.
        worlds: how many are asked, at most.
        seed: of what senders might have said; nothing that is played depends on it.
    """

    def __init__(self, players: Players, worlds: int, seed: int) -> None:
        assert players.channel is not None
        self.players, self.channel, self.worlds = players, players.channel, min(worlds, players.num_worlds)
        self._generator = torch.Generator(players.generator.device)
        self._generator.manual_seed(seed)
        self._seats = players.layout.num_agents
        self.sums = np.zeros((len(MEASURES), self._seats, self._seats))
        self.counts = np.zeros((self._seats, self._seats), np.int64)
        self._other: Alternatives | None = None  # what seats might have said one step before

    @torch.no_grad()
    def step(self, turn: Turn) -> None:
        """Take in a step: what its listeners would have done otherwise, and what its speakers might have said."""
        scenes = {name: self._scene(name, turn) for name in turn.acts}
        for name, scene in scenes.items():
            if self._other is not None and scene.network.spec.hears:
                self._ask(name, scene, turn)
        self._other = self._might_say(scenes, turn)

    def _scene(self, name: str, turn: Turn) -> Scene:
        actor, seats = self.players.actors[name], self.players.layout.species[name].seats
        agent, seating = actor.network.agent, turn.seatings[name]
        memory = reset_state(agent, turn.memories[name], seating.to_members(turn.seen.first[:, seats]))
        return Scene(
            actor.network,
            seats,
            turn.seen.observations[name][: self.worlds],
            {key: seating.to_worlds(values)[: self.worlds] for key, values in memory.items()},
            torch.as_tensor(turn.members[name][: self.worlds], device=turn.seen.alive.device),
            _first(turn.mail, self.worlds),
            self.players.open_symbols,
        )

    def _ask(self, name: str, scene: Scene, turn: Turn) -> None:
        assert scene.mail is not None
        assert self._other is not None
        real = scene.mail.said[:, scene.seats] & turn.seen.alive[: self.worlds, scene.seats].unsqueeze(-1)
        senders = torch.where(real, scene.mail.senders[:, scene.seats], 0)
        said = self._said(name, turn)
        before, _ = lived(scene, said)
        masks = turn.seen.action_masks
        mask = None if masks is None or name not in masks else masks[name][: self.worlds]
        found: dict[str, list[Tensor]] = {measure: [] for measure in MEASURES}
        for part, answer in instead(scene, self._other, self.channel.messages, said):
            weights = gather_seats(self._other.weights, senders[..., part])
            moved, worth = self._moved(name, before, answer, mask)
            found["replaced"].append((weights * moved).sum(-1))
            found["value_replaced"].append((weights * worth).sum(-1))
        for _, answer in without(scene, said):
            moved, worth = self._moved(name, before, answer, mask)
            found["removed"].append(moved)
            found["value_removed"].append(worth)
        receivers = torch.arange(scene.seats.start, scene.seats.stop, device=real.device)
        codes = (senders * self._seats + receivers.view(1, -1, 1))[real].cpu().numpy()
        size = self._seats**2
        self.counts += np.bincount(codes, minlength=size).reshape(self.counts.shape)
        for row, measure in zip(self.sums, MEASURES, strict=True):
            values = torch.cat(found[measure], -1)[real].double().cpu().numpy()
            row += np.bincount(codes, values, minlength=size).reshape(row.shape)

    def _moved(self, name: str, before: Answer, after: Answer, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """How far a policy and a value are from what they were: two of [B, N_s, ...], as `after` has copies."""

        def spread(values: Tensor) -> Tensor:
            return values.view(*values.shape[:2], *[1] * (after.value.ndim - 2), *values.shape[2:])

        logits, allowed = spread(before.logits.float()), None if mask is None else spread(mask)
        moved = total_variation(self.players.actors[name].distribution, logits, after.logits.float(), allowed)
        return moved, (after.value.float() - spread(before.value.float())).abs()

    def _said(self, name: str, turn: Turn) -> Tensor | None:
        """[B, N_s, ...], what networks that speak symbol by symbol are told that they said."""
        message = turn.acts[name].message
        return None if message is None else turn.seatings[name].to_worlds(message)[: self.worlds]

    def _might_say(self, scenes: Mapping[str, Scene], turn: Turn) -> Alternatives:
        kind = self.channel.messages
        parts: list[Alternatives | None] = []
        for name, act in turn.acts.items():
            params, said = act.thought.output.message, act.thought.output.said
            if params is None:
                parts.append(None)
            elif said is not None:
                parts.append(drawn(said_again(scenes[name], self._generator)))
            else:
                own = turn.seatings[name].to_worlds(params)[: self.worlds]
                parts.append(alternatives(kind, own, self._generator))
        found = together(parts, [species.num_seats for species in self.players.layout.species.values()])
        messages = found.messages
        if self.channel.noise:
            messages = self.channel.transmit(messages, self._generator, self.players.open_symbols)
        return found._replace(messages=as_symbols(kind, messages) if self.players.in_play else messages)

    @property
    def result(self) -> Importance:
        """What was found so far."""
        shape = self.counts.shape
        means = [np.divide(row, self.counts, out=np.full(shape, np.nan), where=self.counts > 0) for row in self.sums]
        return Importance._make([*means, self.counts.copy()])

    def scalars(self) -> dict[str, float]:
        """Numbers for the log: means over all messages; and of each pair of seats, or of species where seats are many,
        that of messages that are missing, which sure speakers have, too.

        {"importance", "importance_removed", "value_importance", "importance/<sender>/<receiver>"}; nothing where nobody
        was heard.
        """
        if not self.counts.any():
            return {}
        total = dict(zip(MEASURES, self.sums.sum((1, 2)) / self.counts.sum(), strict=True))
        told = {
            "importance": total["replaced"],
            "importance_removed": total["removed"],
            "value_importance": total["value_replaced"],
        }
        groups = self.players.layout.groups
        for (sender, rows), (receiver, columns) in ((a, b) for a in groups.items() for b in groups.items()):
            if count := self.counts[rows, columns].sum():
                told[f"importance/{sender}/{receiver}"] = self.sums[1, rows, columns].sum() / count
        return {name: float(value) for name, value in told.items()}


def _first(mail: Mail | None, worlds: int) -> Mail | None:
    """What is under way in the first worlds."""
    if mail is None:
        return None
    log = None if mail.log is None else LogOf(*(values[:worlds] for values in mail.log))
    gate = None if mail.gate is None else mail.gate[:worlds]
    return Mail(mail.messages[:worlds], mail.slots[:worlds], mail.mask[:worlds], log=log, hears=mail.hears, gate=gate)


def message_importance(
    population: Playable,
    num_steps: int = 100,
    seed: int = 0,
    greedy: bool = False,
    worlds: int | None = None,
    env_config: Mapping[str, Any] | None = None,
) -> Importance:
    """Who matters to whom while a population plays: every message that is heard is asked about.

    Args:
        population: who plays, such as `popcomm.load(...)` or a PopulationPPO.
        num_steps: how many steps of all worlds.
        seed: of all that is random.
        greedy: take the likeliest actions and messages instead of sampling them; what senders would have said otherwise
            is drawn from their distributions all the same.
        worlds: B; None: as many as it is trained in.
        env_config: keys that differ from those of training.

    Raises:
        UserError: nobody has an inbox: in silence, through a routed channel, or where all seats are one network.
    """
    whole("num_steps", num_steps, 1)
    true_or_false("greedy", greedy)
    rollout = population.rollout(seed, greedy, worlds, env_config)
    try:
        check_inboxes(rollout.players)
        rollout.begin()
        found = ImportanceSums(rollout.players, rollout.world.num_worlds, seed_of(seed, IMPORTANCE_BRANCH))
        for _ in range(num_steps):
            turn, _ = rollout.step()
            found.step(turn)
        return found.result
    finally:
        rollout.close()


def check_inboxes(players: Players) -> None:
    """Raises UserError: there are no single messages that listeners could be asked about."""
    for reason in _no_inboxes(players):
        raise UserError(f"the importance of a message cannot be measured: {reason}")


def _no_inboxes(players: Players) -> Iterator[str]:
    if players.channel is None:
        yield "this population is silent"
    elif players.in_rounds:
        yield "in rounds what is said in one depends on what was heard in those before"
    elif players.channel.topology.latents:
        yield "through topology routed nobody hears a message of its own"
    for name, actor in players.actors.items():
        if actor.network.spec.hears and getattr(actor.network.agent, "collective", False):
            agent = type(actor.network.agent).__name__
            yield f"the {agent} of species '{name}' is one network of all seats, which cannot be asked apart"
