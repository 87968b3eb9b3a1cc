"""The arrays of a fragment as rows of members, which losses average over."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from popcomm.channels.manner import Drawn
from popcomm.channels.vocabulary import narrowed, points
from popcomm.rllib.fragment import EARLIER, Fragment, open_symbols, plain, said_in


class Rows:
    """Arrays [B, T, N, ...] seen as member-major rows [P, T R, ...]; gathered once, when asked for."""

    def __init__(self, arrays: Fragment[Tensor], index: Tensor | None, members: int) -> None:
        self.arrays, self.index, self.members = arrays, index, members
        self.length = arrays["alive"].shape[1]
        self.open_symbols = open_symbols(arrays)
        self._known: dict[str, Tensor] = {}

    def optional(self, key: str) -> Tensor | None:
        return self[key] if key in self.arrays else None

    def __getitem__(self, key: str) -> Tensor:
        if key not in self._known:
            # Rows of T + 1 (observations, messages) are cut to the T steps.
            self._known[key] = self.gather(plain(self.arrays)[key][:, : self.length])
        return self._known[key]

    def gather(self, values: Tensor) -> Tensor:
        """values [B, T, N, ...] -> [P, T R, ...]."""
        flat = values.reshape(-1, *values.shape[3:])
        if self.index is not None:
            flat = flat.index_select(0, self.index)
        return flat.view(self.members, -1, *values.shape[3:])

    def sent(self) -> Tensor:
        """What was said at each step, before the channel's noise."""
        if "said" not in self._known:
            self._known["said"] = self.gather(said_in(self.arrays))
        return self._known["said"]

    def sent_as(self, kind: Any) -> Tensor:
        """The same as messages of the kind of `spoken`. kind: of the channel."""
        return points(kind, self.sent(), self.open_symbols)

    def sent_in_rounds(self, kind: Any) -> list[Tensor]:
        """The same of every round of a step, [P, T R, ...] each, first to last."""
        key = EARLIER + ("sent" if "sent" in self.arrays else "messages")
        earlier = self[key].unbind(2) if key in self.arrays else ()
        return [*(points(kind, said, self.open_symbols) for said in earlier), self.sent_as(kind)]

    def drawn_in_rounds(self) -> list[tuple[Drawn, Tensor]]:
        """How messages were said, and where that was decided at all, [P, T R] each; of every round, first to last."""
        earlier = []
        if EARLIER + "opens" in self.arrays:
            earlier = list(zip(*(self[EARLIER + key].unbind(2) for key in ("opens", "haste")), strict=True))
        every = [*earlier, (self["opens"], self["haste"])]
        return [(Drawn(opens > 0, haste), opens >= 0) for opens, haste in every]

    def spoken(self, kind: Any, params: Tensor) -> tuple[Any, Tensor]:
        """The kind of message and the parameters [P, T R, ...] in float32, of the symbols alone that may be said."""
        params = params if self.open_symbols is None else params[..., : self.open_symbols]
        return narrowed(kind, self.open_symbols), params.float()

    def message_advantages(self) -> Tensor:
        """[P, T R], what messages are credited with."""
        return self["message_advantages" if "message_advantages" in self.arrays else "advantages"]

    def where_known(self, errors: Tensor) -> Tensor:
        """errors [P, T R]; 0 on rows of which it is not known what they brought about."""
        return torch.where(self["known"], errors, 0.0) if "known" in self.arrays else errors

    def voiced_in_rounds(self) -> list[Tensor] | None:
        """[P, T R] bool, whose message goes out; of every round of a step, first to last. None: everybody's, always."""
        if "voiced" not in self.arrays:
            return None
        earlier, last = plain(self.arrays).get(EARLIER + "messages"), self["voiced"]
        if EARLIER + "opens" in self.arrays:
            return [*((opens > 0) for opens in self[EARLIER + "opens"].unbind(2)), last]
        return [last] * (1 if earlier is None else 1 + earlier.shape[3])  # the world's turns are those of a step

    def groups(self, places: Tensor | None, per_seat: bool) -> tuple[Tensor, int]:
        """Which member spoke in which step (and on which seat): the number of every row, [P, T R] int64, and how many.

        Members that are drawn to seats have few rows on each, too few to see what they leave unsaid there.
        """
        worlds, length, seats = self.arrays["alive"].shape
        if places is None:
            places = torch.arange(worlds * length * seats, device=self.arrays["alive"].device)
        each = length * seats
        member = torch.arange(self.members, device=places.device).unsqueeze(1)
        group = places.view(self.members, -1) % each + member * each
        return (group, self.members * each) if per_seat else (group // seats, self.members * length)

    def world_state(self) -> Tensor | None:
        """[P, T R, S], the latent state at each step."""
        if "world_state" not in self.arrays:
            return None
        if "world_state" not in self._known:
            state = self.arrays["world_state"]
            seats = self.arrays["alive"].shape[2]
            flat = state.reshape(-1, state.shape[-1])
            if self.index is None:
                rows = flat.repeat_interleave(seats, 0)
            else:
                rows = flat.index_select(0, self.index // seats)
            self._known["world_state"] = rows.view(self.members, -1, state.shape[-1])
        return self._known["world_state"]
