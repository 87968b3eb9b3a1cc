"""CommNetAgent: the hidden state is the message, and what is heard is the mean (Sukhbaatar, Szlam & Fergus 2016)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from popcomm.agents.activations import tanh
from popcomm.agents.contract import AgentOutput, AgentSpec
from popcomm.agents.hidden_state import HiddenState
from popcomm.agents.population import PopulationLinear, orthogonal_layer_
from popcomm.agents.pretrained import Pretrained
from popcomm.channels.mailbox import Inbox

# Root mean square of the hidden state at the start.
START_SCALE = 0.6


class CommNetAgent(HiddenState, Pretrained, nn.Module):
    """The hidden state is the message, and the mean is heard: CommNet (Sukhbaatar, Szlam & Fergus 2016).

    Equations 1 and 2, with the skip connection of section 2.3: h <- tanh(E o + H h + C mean(m)), of the observation o,
    the own hidden state h and the messages m that were heard, each of which is its sender's hidden state. In silence
    the last term does not exist.

    With `communication(rounds=K)` these are the K communication steps of the paper, one module for all of them; with
    rounds = 0 a communication step is a step of the world (section 2.3, temporal recurrence).
    For messages as in the paper say `messages: {kind: vectors, size: <hidden>}`; of other sizes and kinds they are
    linear in h.

    Args:
        spec: what the network must know of its place.
        hidden: width of the hidden state.
        encoder: "cnn", a small convolutional network for pictures; "flat", their numbers as they are; None: "cnn" where
            there are pictures (`popcomm.agents.convolution`).
        urgency: where the priority of its messages comes from, under a budget (`popcomm.agents.gates.Manner`).
        generator: source of the initial weights; torch's default one if None.

    Raises:
        UserError: a width below one, or an encoder that does not fit.
    """

    def __init__(
        self,
        spec: AgentSpec,
        hidden: int = 64,
        generator: torch.Generator | None = None,
        encoder: str | None = None,
        urgency: Any = None,
    ) -> None:
        super().__init__()
        seen, p = self._look(spec, hidden, encoder, generator), spec.members
        self.see = PopulationLinear(p, seen, hidden, generator=generator)
        self.keep = PopulationLinear(p, hidden, hidden, bias=False, generator=generator)
        for layer in (self.see, self.keep):
            orthogonal_layer_(layer, 1.0, generator)
        self._add_hearing(hidden, generator)
        self._add_heads(seen, START_SCALE, urgency, generator)
        self._add_message_head(START_SCALE, True, generator)
        self._add_pointing(START_SCALE, generator)

    def initial_state(self, rows: int) -> dict[str, Tensor]:
        """{"h"}, [P, rows, hidden] zeros."""
        return {"h": self.keep.weight.new_zeros(self.spec.members, rows, self.hidden_size)}

    def forward(
        self, obs: Tensor, inbox: Inbox | None, state: Mapping[str, Tensor], undecided: bool = False
    ) -> AgentOutput:
        """obs [P, R, O] float32, inbox [P, R, K, ...] or None -> AgentOutput; `undecided`: see `Agent`.

        `aux` has "features", the hidden state [P, R, hidden].
        """
        seen, before, aux = obs if self.eye is None else self.eye(obs), state["h"], dict[str, Tensor]()
        total = self.see(seen) + self.keep(before)
        if inbox is not None and self.spec.receives is not None:
            total = total + self._mean_heard(inbox, before, aux)
        hidden = tanh(total)
        return self._output(obs, seen, hidden, {"h": hidden}, aux, undecided)
