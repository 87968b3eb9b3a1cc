"""Listening: how much actions would change if agents heard what was said in another world."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from popcomm.agents.distributions import ActionDistribution
from popcomm.agents.inbox import inbox_of
from popcomm.agents.seating import Seating
from popcomm.agents.step import agent_step, reset_state
from popcomm.agents.variation import total_variation
from popcomm.channels import Channel, Learned
from popcomm.channels.mail import LogOf, Mail
from popcomm.envs.layout import WorldLayout
from popcomm.envs.world import Species
from popcomm.rllib.fragment import EARLIER, Fragment, plain
from popcomm.rllib.member_statistics import MemberStatistics
from popcomm.rllib.module import PopulationRLModule

Fragments = Mapping[str, Fragment[np.ndarray]]

# Worlds that are asked in a fragment, at most, and steps for which one asking is enough: together a small part of what
# the fragments themselves cost.
WORLDS, EVERY = 64, 32
# Vectors closer than this pass for the same message.
SAME = 1e-3


class Swap(NamedTuple):
    """What 2 W worlds hear: W as it was, and the same W with the messages of their partners."""

    mails: Sequence[Mail]  # [2 W, ...], of every time that networks think in a step: one, or R + 1 in R rounds
    changed: Tensor  # [W, N] bool, seats that hear something else
    # [W, N, K], whose messages of their own differ, and those seats; None where there are no inboxes.
    differing: Tensor | None = None
    senders: Tensor | None = None


class Moved(NamedTuple):
    """How far actions of W worlds, asked at a step each, moved with what was heard."""

    worlds: np.ndarray  # [W] int64, rows of the fragment
    times: np.ndarray  # [W] int64, steps of it
    each: dict[str, tuple[Tensor, Tensor]]  # {species that hears: (distance [W, N_s], who was asked [W, N_s] bool)}
    swap: Swap

    def measures(self) -> dict[str, float]:
        """What `Listening.measure` says."""
        means = {f"listening_{n}": float(far[asked].mean()) for n, (far, asked) in self.each.items() if asked.any()}
        most = {"listening": max(means.values())} if means else {}
        return {**most, **means} if len(means) > 1 else most

    def by_sender(self, species: Mapping[str, Species]) -> tuple[np.ndarray | None, np.ndarray | None]:
        """How many who were asked heard each seat say something else, and how far they moved in all: [W, N] each.

        A receiver that heard several counts for all of them. None where everybody hears all others.
        """
        swap = self.swap
        if swap.differing is None or swap.senders is None:
            return None, None
        asked = torch.zeros_like(swap.changed, device="cpu")
        distance = torch.zeros(asked.shape, dtype=torch.float32)
        for name, (far, who) in self.each.items():
            distance[:, species[name].seats], asked[:, species[name].seats] = far.cpu(), who.cpu()
        links = swap.differing.cpu() & asked.unsqueeze(-1)
        seats = swap.senders.cpu().clamp(max=asked.shape[1] - 1).flatten(1)
        count, total = torch.zeros_like(distance), torch.zeros_like(distance)
        count.scatter_add_(1, seats, links.flatten(1).to(count.dtype))
        total.scatter_add_(1, seats, (links * distance.unsqueeze(-1)).flatten(1))
        return count.numpy(), total.numpy()


class Listening:
    """Asks pairs of worlds once in a while: what would each do with the other's messages, all else being the same?

    Each pair is asked at a step of its own, the pairs spread over the fragment, so that the steps of an episode in
    which messages matter are among them. One forward for both answers, of what the fragment has written down; only
    recurrent states are taken along the way. The likeliest words are said where a network must say some, so that no
    random number is drawn.
    """

    def __init__(self, layout: WorldLayout, channel: Channel | None, num_worlds: int, length: int) -> None:
        self.layout, self.channel, self.length = layout, channel, length
        pairs = min(num_worlds, WORLDS) // 2
        self.worlds = np.linspace(0, num_worlds - 1, 2 * pairs).round().astype(int)  # [W], partners W / 2 apart
        self.fragments = 0  # begun so far
        self._times = np.zeros(0, int)  # [W], the step at which each is asked; empty: none is
        self._states: dict[str, dict[str, Tensor]] = {}

    def begin(self) -> None:
        """A fragment begins: whom to ask when."""
        pairs = len(self.worlds) // 2
        due = pairs and self.channel is not None and self.fragments % -(-EVERY // self.length) == 0
        times = (np.arange(pairs) * self.length // max(pairs, 1) + self.fragments) % self.length
        self._times = np.concatenate([times, times]) if due else times[:0]
        self._states = {}
        self.fragments += 1

    def remember(self, t: int, states: Mapping[str, Mapping[str, Tensor]], seatings: Mapping[str, Seating]) -> None:
        """Keep the memories, {species: {name: [P, R, ...]}}, with which those who are asked come to step t."""
        now = np.flatnonzero(self._times == t)
        if not len(now):
            return
        for name, state in states.items():
            for key, value in state.items():
                there = seatings[name].to_worlds(value)
                kept = self._states.setdefault(name, {})
                if key not in kept:
                    kept[key] = there.new_zeros(len(self.worlds), *there.shape[1:])
                kept[key][now] = there[self.worlds[now]]

    def measure(
        self,
        fragments: Fragments,
        modules: Mapping[str, PopulationRLModule],
        distributions: Mapping[str, ActionDistribution],
    ) -> dict[str, float]:
        """How far actions follow messages, of the species that is most attentive, and of each; nothing if nobody was
        asked in this fragment.

        It is the mean total variation distance (`total_variation`) over those who live and hear something else.

        Args:
            fragments: {species: arrays of `fragment.allocate`}, all T steps written.
            modules: {species: PopulationRLModule}.
            distributions: {species: distribution of its actions}.

        Returns:
            {"listening": 0 ... 1, "listening_<species>": 0 ... 1 where several hear}; nothing of those for whom the
            swap made no difference, so that a speaker who always says the same is not laid on its listeners.
        """
        moved = self.moved(fragments, modules, distributions)
        return {} if moved is None else moved.measures()

    def moved(
        self,
        fragments: Fragments,
        modules: Mapping[str, PopulationRLModule],
        distributions: Mapping[str, ActionDistribution],
    ) -> Moved | None:
        """The same seat by seat; None if nobody was asked. Arguments: as of `measure`."""
        if not len(self._times):
            return None
        swap = self._swapped(fragments, next(iter(next(iter(modules.values())).parameters())).device)
        each = {
            name: self._moved(name, arrays, swap, modules[name], distributions[name])
            for name, arrays in fragments.items()
            if modules[name].spec.hears
        }
        return Moved(self.worlds, self._times, each, swap)

    def _moved(
        self,
        name: str,
        arrays: Fragment[np.ndarray],
        swap: Swap,
        module: PopulationRLModule,
        distribution: ActionDistribution,
    ) -> tuple[Tensor, Tensor]:
        """(distance between the distributions of both answers [W, N_s], who was asked [W, N_s] bool)."""
        agent, spec, seats = module.agent, module.spec, self.layout.species[name].seats
        device = swap.changed.device
        seating = Seating(twice(self._get(arrays, "members", device)), spec.members)
        obs, first = (seating.to_members(twice(self._get(arrays, key, device))) for key in ("obs", "first"))
        state = {k: seating.to_members(twice(v)) for k, v in self._states.get(name, {}).items()}
        state = reset_state(agent, state, first)
        for mail in swap.mails:
            output = agent_step(agent, spec, obs, inbox_of(mail, seating, seats), state, greedy=True)
            state = output.state
        before, after = seating.to_worlds(output.action_logits).float().chunk(2)
        mask = self._get(arrays, "action_mask", device) if "action_mask" in arrays else None
        asked = swap.changed[:, seats] & self._get(arrays, "alive", device)
        return total_variation(distribution, before, after, mask), asked

    def _swapped(self, fragments: Fragments, device: torch.device) -> Swap:
        """Everybody's messages become those of a partner world; who hears whom stays."""
        assert self.channel is not None
        if not self.channel.rounds:
            return self._swapped_of(fragments, device, 0)
        swaps = [self._swapped_of(fragments, device, before) for before in reversed(range(self.channel.rounds))]
        silence = swaps[0].mails[0]
        mails = [silence._replace(mask=torch.zeros_like(silence.mask)), *(swap.mails[0] for swap in swaps)]
        return Swap(mails, torch.stack([swap.changed for swap in swaps]).any(0))

    def _swapped_of(self, fragments: Fragments, device: torch.device, before: int) -> Swap:
        """The same of one time, so many rounds before the last."""
        assert self.channel is not None
        every, in_rounds, of = list(fragments.values()), self.channel.rounds > 0, EARLIER if before else ""

        def get(key: str) -> Tensor:
            parts = [self._get(arrays, of + key, device, in_rounds and key == "messages") for arrays in every]
            joined = torch.cat(parts, 1)
            return joined[:, :, -before] if before else joined

        mask, log = get("inbox_mask"), None
        if "slots" in every[0]:
            chosen = get("slots").long()
            said, sources, direct = (self._get(every[0], "log_" + k, device) for k in ("words", "sources", "direct"))
            there, log = said != 0, LogOf(twice(sources), twice(direct))
        else:
            chosen, said = get("senders"), get("messages")
            # Who is heard by anybody was on the air.
            count = torch.zeros(said.shape[:2], device=device)
            there = count.scatter_add_(1, chosen.flatten(1), mask.flatten(1).to(count.dtype)) > 0
        other = swapped(said, there)
        differs = ((said - other).abs() > SAME).flatten(2).any(2) if said.dim() > 2 else said != other
        hears = differing = senders = None
        if self.channel.topology.latents:
            hears = torch.ones_like(mask[..., 0]) if in_rounds else ~get("first")
            # Everybody hears all others.
            changed = (differs.sum(1, keepdim=True) > differs.long()) & hears
        else:
            differing = differs.gather(1, chosen.flatten(1)).view_as(mask) & mask
            changed = differing.any(2)
        twofold = None if hears is None else twice(hears)
        topology = self.channel.topology
        gate = topology.gate(twice(chosen)) if isinstance(topology, Learned) else None
        mail = Mail(torch.cat([said, other]), twice(chosen), twice(mask), hears=twofold, log=log, gate=gate)
        if differing is not None:
            senders = mail.senders.chunk(2)[0]
            differing = differing & mail.said.chunk(2)[0]  # repetitions and published words are nobody's
        return Swap([mail], changed, differing, senders)

    def _get(self, arrays: Fragment[np.ndarray], key: str, device: torch.device, later: bool = False) -> Tensor:
        """Rows of those who are asked, [W, ...]. later: whether those that T + 1 rows have for what is said then."""
        values = plain(arrays)[key]
        times = self._times + (values.shape[1] - self.length if later else 0)
        return torch.from_numpy(values[self.worlds, times]).to(device)

    def get_state(self) -> dict[str, int]:
        """Between fragments: when to ask next."""
        return {"fragments": self.fragments}

    def set_state(self, state: Mapping[str, int]) -> None:
        self.fragments = state["fragments"]


def swapped(said: Tensor, there: Tensor) -> Tensor:
    """What seats would have said in the partner world, [W, M, ...]; partners are W / 2 apart.

    It is what the same seat says there. Where it is not on the air there, it is what those say who are, dealt in turn;
    and where nobody is, all stays.

    Args:
        said: [W, M, ...], messages.
        there: [W, M] bool, which of them were on the air.

    >>> said, there = torch.tensor([[1, 2], [3, 4]]), torch.tensor([[True, False], [False, True]])
    >>> swapped(said, there).tolist()
    [[4, 2], [3, 1]]
    """
    worlds, posts = there.shape
    partner = torch.arange(worlds, device=said.device).roll(worlds // 2)
    theirs = there[partner]
    turn = (there.long().cumsum(1) - 1) % theirs.sum(1, keepdim=True).clamp(min=1)
    dealt = (~theirs).byte().argsort(dim=1, stable=True).gather(1, turn)
    chosen = torch.where(theirs, torch.arange(posts, device=said.device), dealt)
    other = said[partner.unsqueeze(1), chosen]
    moves = there & theirs.any(1, keepdim=True)
    return torch.where(moves.view(*moves.shape, *[1] * (said.dim() - 2)), other, said)


def count_moves(
    members: Mapping[str, MemberStatistics],
    moved: Moved,
    fragments: Fragments,
    layout: WorldLayout,
    whole: np.ndarray | None,
) -> None:
    """Take in whose actions followed whose messages.

    Args:
        members: {species: statistics}, which they are added to.
        moved: what was found.
        fragments: in which.
        layout: of the worlds.
        whole: [B, T, N] bool, lives that were not begun by who sat there before; None: all.
    """
    if not members:
        return
    followers, followed = moved.by_sender(layout.species)
    counts = np.ones((len(moved.worlds), layout.num_agents), bool)
    counts = counts if whole is None else whole[moved.worlds, moved.times]
    for name, own in members.items():
        who, seats = fragments[name]["members"][moved.worlds, moved.times], layout.species[name].seats
        there = counts[:, seats]
        if name in moved.each:
            distance, asked = (values.cpu().numpy() for values in moved.each[name])
            own.listened(who[asked & there], distance[asked & there])
        if layout.species[name].speaks and followers is not None and followed is not None:
            own.influenced(who[there], followers[:, seats][there], followed[:, seats][there])


def twice(values: Tensor) -> Tensor:
    """[W, ...] -> [2 W, ...]."""
    return torch.cat([values, values])
