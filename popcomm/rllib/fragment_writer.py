"""FragmentWriter: fills the arrays of a fragment while a rollout goes on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from popcomm.agents.seating import Seating
from popcomm.channels import Channel
from popcomm.channels.mail import Mail
from popcomm.channels.manner import log_prob
from popcomm.channels.trips import same_memory
from popcomm.channels.vocabulary import narrowed, points
from popcomm.envs.world import WorldStep
from popcomm.errors import UserError
from popcomm.rllib.fragment import (
    EARLIER,
    STATE_IN,
    Fragment,
    FragmentLayout,
    allocate,
    as_tensors,
    mapped,
    not_finite,
    parts_of,
    plain,
)
from popcomm.rllib.supervision import supervised_rewards
from popcomm.rollout import Players, Thought, Turn
from popcomm.rollout.rounds import Round


class FragmentWriter:
    """New arrays for one fragment, and the tensors that are filled: their own memory, or that of the worlds' GPU, from
    where all of it comes in the end.

    Args:
        players: of the rollout that is written down.
        modules: {species: PopulationRLModule}, which judge what was done.
        length: T.
        acts_by_message: see `FragmentLayout`; so are `takes_turns` and `supervised`.
        keeps_state: whether the worlds' latent state is kept.

    Attributes:
        arrays: {species: arrays of `fragment.allocate`}, and with `keeps_state` "world_state" [B, T, S], the same array
            for all.
        views: what is filled; but for "members", which are the arrays' own everywhere.
    """

    def __init__(
        self,
        players: Players,
        modules: Mapping[str, Any],
        length: int,
        acts_by_message: bool,
        takes_turns: bool = False,
        supervised: bool = False,
        keeps_state: bool = True,
    ) -> None:
        self.layout, self.channel, self.length = players.layout, players.channel, length
        self.actors, self.modules, self.supervised = players.actors, modules, supervised
        self.open_symbols = players.open_symbols
        shape = _shape(
            self.channel, players.num_worlds, length, acts_by_message, takes_turns, supervised, self.open_symbols
        )
        self.arrays = {name: allocate(species, shape) for name, species in self.layout.species.items()}
        self.views = {name: as_tensors(arrays) for name, arrays in self.arrays.items()}
        self._members = {name: view["members"] for name, view in self.views.items()}
        assert players.now is not None
        self._device = players.now.alive.device
        if not same_memory(self._device):
            self.views = {name: mapped(view, lambda t: t.to(self._device)) for name, view in self.views.items()}
        self.world_state: Tensor | None = None
        if self.layout.state_size and keeps_state:
            # One array in the hands of all species: it is the same for all, and may be large.
            state = np.empty((players.num_worlds, length, self.layout.state_size), np.float32)
            for arrays in self.arrays.values():
                arrays["world_state"] = state
            self.world_state = torch.from_numpy(state)
            if not same_memory(self._device):
                self.world_state = self.world_state.to(self._device)

    def carried(self, players: Players, previous_obs: Mapping[str, Tensor]) -> None:
        """What comes over from before the fragment: recurrent states, and what was seen and transmitted last.

        Args:
            previous_obs: {species: [B, N_s, O]}.
        """
        for name, view in self.views.items():
            seating = players.seatings[name]
            for key, value in players.memories[name].items():
                plain(self.arrays[name])[STATE_IN + key] = seating.to_worlds(value).cpu().numpy().copy()
            if players.session is not None:
                view["messages"][:, 0] = players.session.transmitted[:, self.layout.species[name].seats]
                view["previous_obs"][:] = previous_obs[name]

    def step(self, t: int, turn: Turn, after: WorldStep) -> None:
        """Row t: what was seen, heard, done and said, and what came of it (`after`)."""
        if self.world_state is not None:
            assert turn.seen.state is not None
            self.world_state[:, t] = turn.seen.state
        rewards = self._rewards(turn, after)
        for name, view in self.views.items():
            seats = self.layout.species[name].seats
            view["obs"][:, t] = turn.seen.observations[name]
            view["alive"][:, t] = turn.seen.alive[:, seats]
            view["first"][:, t] = turn.seen.first[:, seats]
            view["rewards"][:, t] = rewards[:, seats]
            view["terminated"][:, t] = after.terminated[:, seats]
            view["truncated"][:, t] = after.truncated[:, seats]
            self.arrays[name]["members"][:, t] = turn.members[name]
            if "answers" in view:
                assert turn.seen.answers is not None
                view["answers"][:, t] = turn.seen.answers[name]
            self._write_act(name, t, turn)
            if turn.mail is not None and turn.sent is not None and turn.transmitted is not None:
                _write_mail(view, t, turn.mail, seats)
                view["messages"][:, t + 1] = turn.transmitted[:, seats]
                if "voiced" in view:
                    view["voiced"][:, t] = turn.voice[:, seats]
                if "sent" in view:
                    view["sent"][:, t] = turn.sent[:, seats]
            for number, one in enumerate(turn.rounds[:-1]):
                _write_round(view, name, (t, number), one, seats, turn.seatings[name], _may_speak(turn, seats))

    def _write_act(self, name: str, t: int, turn: Turn) -> None:
        """What a species chose, and how likely and how good that was."""
        view, act, seating = self.views[name], turn.acts[name], turn.seatings[name]
        output = act.thought.output
        view["values"][:, t] = self._value(name, act.thought, turn.seen, seating)
        if act.mask is not None:
            assert turn.seen.action_masks is not None
            view["action_mask"][:, t] = turn.seen.action_masks[name]
        view["actions"][:, t] = turn.actions[name]
        acted = self.actors[name].distribution.log_prob(output.action_logits, act.actions, act.mask)
        view["action_logp"][:, t] = seating.to_worlds(acted)
        if "message_noise" in view:
            view["message_noise"][:, t] = 0.0 if act.noise is None else seating.to_worlds(act.noise)
        if "message_logp" in view:
            assert self.channel is not None
            assert output.message is not None
            assert act.message is not None
            kind, many = self.channel.messages, self.open_symbols
            said = [(one.outputs[name].message, one.said[name].message) for one in turn.rounds[:-1]]
            total = torch.zeros(turn.members[name].shape, device=output.value.device)
            for number, (params, message) in enumerate([*said, (output.message, act.message)]):
                assert params is not None
                assert message is not None
                narrow = params if many is None else params[..., :many]
                own = seating.to_worlds(narrowed(kind, many).log_prob(narrow, points(kind, message, many)))
                if said and "voiced" in view:  # of several rounds those count in which it went out
                    own = torch.where(turn.rounds[number].voice[:, self.layout.species[name].seats], own, 0.0)
                total = total + own
            view["message_logp"][:, t] = total
        if "opens" in view:
            self._write_manner(name, t, turn)

    def _write_manner(self, name: str, t: int, turn: Turn) -> None:
        """Whether messages went out, how urgent they were, and how likely that was."""
        view, act, seating = self.views[name], turn.acts[name], turn.seatings[name]
        gated, decides = "sender" in self.modules[name].spec.gates, _may_speak(turn, self.layout.species[name].seats)
        assert act.drawn is not None
        view["opens"][:, t] = torch.where(decides, seating.to_worlds(act.drawn.opens).to(torch.int8), -1)
        view["haste"][:, t] = seating.to_worlds(act.drawn.haste)
        said = [(one.outputs[name].manner, one.said[name].drawn) for one in turn.rounds[:-1]]
        total = torch.zeros(decides.shape, device=decides.device)
        for manner, drawn in [*said, (act.thought.output.manner, act.drawn)]:
            assert manner is not None
            assert drawn is not None
            total = total + seating.to_worlds(log_prob(manner, drawn, gated))
        view["manner_logp"][:, t] = torch.where(decides, total, 0.0)

    def _value(self, name: str, thought: Thought, step: WorldStep, seating: Seating) -> Tensor:
        """[B, N_s], normalised where returns are."""
        module, state = self.modules[name], None
        if step.state is not None and module.central_critic is not None:
            state = seating.to_members(step.state.unsqueeze(1).expand(-1, seating.num_seats, -1))
        return seating.to_worlds(module.value(thought.output.value, thought.obs, state))

    def _rewards(self, turn: Turn, after: WorldStep) -> Tensor:
        """[B, N], those that are learned from."""
        seen = turn.seen
        if not self.supervised or seen.answers is None:
            return after.rewards if turn.fees is None else after.rewards - turn.fees
        logits = {n: turn.seatings[n].to_worlds(act.thought.output.action_logits) for n, act in turn.acts.items()}
        distributions = {name: actor.distribution for name, actor in self.actors.items()}
        return supervised_rewards(
            after.rewards, seen.answers, logits, distributions, self.layout.species, seen.action_masks
        )

    def last(self, players: Players, thoughts: Mapping[str, Thought]) -> None:
        """The row after the fragment: its observations, and the values that bootstrap the returns.

        Args:
            thoughts: what species make of it; values of those that are missing are 0.
        """
        step = players.now
        assert step is not None
        for name, view in self.views.items():
            if name in thoughts:
                view["values"][:, -1] = self._value(name, thoughts[name], step, players.seatings[name])
            self._denormalise(name, torch.from_numpy(players.members[name]))
            if name not in thoughts:
                view["values"][:, -1] = 0.0
            view["obs"][:, self.length] = step.observations[name]
            view["first"][:, self.length] = step.first[:, self.layout.species[name].seats]
        self._fetch()

    def _denormalise(self, name: str, last: Tensor) -> None:
        """Give all values the units of returns, which raw ones have. last: [B, N_s] int64, who sits there after the
        fragment.

        The statistics stand still within a fragment, so that many steps at once are as good as each when it is made.
        """
        values, returns, known = self.views[name]["values"], self.modules[name].returns, self._members[name]
        for part in parts_of(self.length, last.numel()):  # in double precision on the way
            values[:, part] = returns.denormalise_of(values[:, part], known[:, part].to(self._device))
        values[:, -1] = returns.denormalise_of(values[:, -1], last.to(self._device))

    def _fetch(self) -> None:
        """Bring into the arrays what was filled elsewhere."""
        if same_memory(self._device):
            return
        for name, view in self.views.items():
            for key, values in plain(view).items():
                if key != "members":
                    torch.from_numpy(plain(self.arrays[name])[key]).copy_(values)
        if self.world_state is not None:
            torch.from_numpy(next(iter(self.arrays.values()))["world_state"]).copy_(self.world_state)

    def check_numbers(self) -> None:
        """What a world says must be finite: else learning would fail later, and say something else.

        Raises:
            UserError: the environment gave an observation or a reward that is not.
        """
        # Of answers the rewards are the networks' doing.
        broken = not_finite(self.arrays, ("obs",) if self.supervised else ("obs", "rewards"))
        if broken is None:
            return
        name, key, (world, step, seat) = broken
        agent = self.layout.agents[self.layout.species[name].start + seat]
        what = "an observation" if key == "obs" else "a reward"
        raise UserError(
            f"the environment gave agent '{agent}' in world {world} {what} that is not finite, in step {step} of the "
            f"{self.length} of this fragment"
        )


def _shape(
    channel: Channel | None,
    num_worlds: int,
    length: int,
    acts_by_message: bool,
    takes_turns: bool,
    supervised: bool,
    open_symbols: int | None,
) -> FragmentLayout:
    return FragmentLayout(
        num_worlds,
        length,
        channel.messages if channel else None,
        channel.inbox_size if channel else 0,
        bool(channel and channel.noise and channel.size is None),
        acts_by_message,
        takes_turns,
        supervised,
        channel.size.capacity if channel and channel.size else 0,
        channel.rounds if channel else 0,
        bool(channel and (channel.gates.sender or channel.budget.ranks)),
        open_symbols,
    )


def _may_speak(turn: Turn, seats: slice) -> Tensor:
    """[B, N_s] bool, who decides whether it speaks."""
    alive = turn.seen.alive[:, seats]
    return alive if turn.seen.speaks is None else alive & turn.seen.speaks[:, seats]


def _write_round(
    view: Fragment[Tensor],
    name: str,
    place: tuple[int, int],
    one: Round,
    seats: slice,
    seating: Seating,
    decides: Tensor,
) -> None:
    """What a species said in a round that was not the last, and what it then heard.

    Args:
        place: step and round.
        decides: [B, N_s] bool, who may speak.
    """
    t, number = place
    noise, drawn = one.said[name].noise, one.said[name].drawn
    rows = {
        "messages": one.transmitted[:, seats],
        "sent": one.sent[:, seats],
        "senders": one.mail.slots[:, seats],
        "inbox_mask": one.mail.mask[:, seats],
        "message_noise": 0.0 if noise is None else seating.to_worlds(noise),
    }
    if drawn is not None:
        opens = seating.to_worlds(drawn.opens).to(torch.int8)
        rows |= {"opens": torch.where(decides, opens, -1), "haste": seating.to_worlds(drawn.haste)}
    for key, values in rows.items():
        if EARLIER + key in view:
            plain(view)[EARLIER + key][:, t, :, number] = values


def _write_mail(view: Fragment[Tensor], t: int, mail: Mail, seats: slice) -> None:
    """What a species heard."""
    view["inbox_mask"][:, t] = mail.mask[:, seats]
    if mail.log is None:
        view["senders"][:, t] = mail.slots[:, seats]
        return
    view["slots"][:, t] = mail.slots[:, seats]
    for key, values in (("words", mail.messages), ("sources", mail.log.sources), ("direct", mail.log.direct)):
        plain(view)["log_" + key][:, t] = values
