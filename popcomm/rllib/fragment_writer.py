"""FragmentWriter: fills the arrays of a fragment while the worlds go on."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from popcomm.channels import Channel, Links
from popcomm.channels.broadcast.air import Heard
from popcomm.envs.world import WorldStep
from popcomm.rllib.fragment import STATE_IN, FragmentLayout, allocate, as_tensors, plain
from popcomm.rllib.worlds import WorldLayout


class FragmentWriter:
    """New arrays for one fragment, and their tensor views.

    Attributes:
        arrays: {species: arrays of `fragment.allocate`}, and with `keeps_state` "world_state" [B, T, S], the same array
            for all.
        views: the same memory as tensors.
    """

    def __init__(
        self,
        layout: WorldLayout,
        channel: Channel | None,
        num_worlds: int,
        length: int,
        acts_by_message: bool,
        takes_turns: bool = False,
        taught: bool = False,
        keeps_state: bool = True,
    ) -> None:
        self.layout, self.length = layout, length
        shape = FragmentLayout(
            num_worlds,
            length,
            channel.messages if channel else None,
            channel.inbox_size if channel else 0,
            bool(channel and channel.noise and channel.size is None),
            acts_by_message,
            takes_turns,
            taught,
            channel.size.capacity if channel and channel.size else 0,
        )
        self.arrays = {name: allocate(species, shape) for name, species in layout.species.items()}
        self.world_state: Tensor | None = None
        if layout.state_size and keeps_state:
            # One array in the hands of all species: it is the same for all, and may be large.
            state = np.empty((num_worlds, length, layout.state_size), np.float32)
            for arrays in self.arrays.values():
                arrays["world_state"] = state
            self.world_state = torch.from_numpy(state)
        self.views = {name: as_tensors(arrays) for name, arrays in self.arrays.items()}

    def carried(
        self, state: dict[str, dict[str, Tensor]], previous_obs: dict[str, Tensor], transmitted: Tensor | None
    ) -> None:
        """What comes from before the fragment, in world order: recurrent state, messages under way, what was seen."""
        for name, view in self.views.items():
            for key, value in state[name].items():
                plain(self.arrays[name])[STATE_IN + key] = value.cpu().numpy().copy()
            if transmitted is not None:
                view["messages"][:, 0] = transmitted[:, self.layout.species[name].seats]
                view["previous_obs"][:] = previous_obs[name]

    def step(
        self,
        t: int,
        step: WorldStep,
        following: WorldStep,
        sent: Tensor | None,
        transmitted: Tensor | None,
        links: Links | None,
        heard: Heard | None,
        voice: Tensor,
        rewards: Tensor,
    ) -> None:
        """Row t: what was seen and heard (`step`, `links` or `heard`), what was said, what came of it (`following`).

        voice: [B, N] bool, whose message went out. rewards: [B, N], those that are learned from.
        """
        if self.world_state is not None:
            assert step.state is not None
            self.world_state[:, t] = step.state
        for name, view in self.views.items():
            seats = self.layout.species[name].seats
            view["obs"][:, t] = step.observations[name]
            view["alive"][:, t] = step.alive[:, seats]
            view["first"][:, t] = step.first[:, seats]
            view["rewards"][:, t] = rewards[:, seats]
            view["terminated"][:, t] = following.terminated[:, seats]
            view["truncated"][:, t] = following.truncated[:, seats]
            if "answers" in view:
                assert step.answers is not None
                view["answers"][:, t] = step.answers[name]
            if links is None or sent is None or transmitted is None:
                continue
            if heard is None:
                view["senders"][:, t] = links.senders[:, seats]
                view["inbox_mask"][:, t] = links.mask[:, seats]
            else:
                view["slots"][:, t] = heard.slots[:, seats]
                view["inbox_mask"][:, t] = heard.mask[:, seats]
                for key, values in (("words", heard.words), ("sources", heard.sources), ("direct", heard.direct)):
                    plain(view)["log_" + key][:, t] = values
            view["messages"][:, t + 1] = transmitted[:, seats]
            if "voiced" in view:
                view["voiced"][:, t] = voice[:, seats]
            if "sent" in view:
                view["sent"][:, t] = sent[:, seats]

    def last(self, step: WorldStep) -> None:
        """The row after the fragment: its observations."""
        for name, view in self.views.items():
            view["obs"][:, self.length] = step.observations[name]
            view["first"][:, self.length] = step.first[:, self.layout.species[name].seats]
