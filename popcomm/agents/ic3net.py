"""IC3NetAgent: an LSTM that decides in every step whether it speaks (Singh, Jain & Sukhbaatar 2019)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from popcomm.agents.activations import tanh
from popcomm.agents.contract import AgentOutput, AgentSpec
from popcomm.agents.hidden_state import HiddenState
from popcomm.agents.population import PopulationLinear, PopulationLSTMCell
from popcomm.agents.pretrained import Pretrained
from popcomm.agents.start import start_memory_
from popcomm.channels.mailbox import Inbox

# Root mean square of the hidden state at the start.
START_SCALE = 0.4


class IC3NetAgent(HiddenState, Pretrained, nn.Module):
    """An LSTM that decides in every step whether it speaks: IC3Net (Singh, Jain & Sukhbaatar 2019, section 3).

    h, s <- LSTM(tanh(E o) + C mean(m), h, s), of the observation o and the messages m that were heard, each of which is
    its sender's hidden state h. Whether a message goes out is a decision of its sender, from h, learned by policy
    gradients (REINFORCE) as its actions are: the sender's gate of the channel (`popcomm.channels.gates`), which stands
    where `communication.gate` is left out; "none" takes it away. What is heard is then the mean over those who speak;
    the paper divides their sum by J - 1, all others, spoken or not, so that few are heard more faintly than many.

    For messages as in the paper say `messages: {kind: vectors, size: <hidden>}`; of other sizes and kinds they are
    linear in h.

    Args:
        spec: what the network must know of its place.
        hidden: width of the LSTM.
        encoder: "cnn", a small convolutional network for pictures; "flat", their numbers as they are; None: "cnn" where
            there are pictures (`popcomm.agents.convolution`).
        urgency: where the priority of its messages comes from, under a budget (`popcomm.agents.gates.Manner`).
        generator: source of the initial weights; torch's default one if None.

    Raises:
        UserError: a width below one, or an encoder that does not fit.
    """

    usual_gate = "sender"

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
        self.lstm = PopulationLSTMCell(p, hidden, hidden, generator=generator)
        start_memory_(self.lstm, generator)
        self._add_hearing(hidden, generator)
        self._add_heads(seen, START_SCALE, urgency, generator)
        self._add_message_head(START_SCALE, True, generator)
        self._add_pointing(START_SCALE, generator)

    def initial_state(self, rows: int) -> dict[str, Tensor]:
        """{"h", "c"}, [P, rows, hidden] zeros each."""
        shape = (self.spec.members, rows, self.hidden_size)
        return {name: self.lstm.weight_ih.new_zeros(shape) for name in ("h", "c")}

    def forward(
        self, obs: Tensor, inbox: Inbox | None, state: Mapping[str, Tensor], undecided: bool = False
    ) -> AgentOutput:
        """obs [P, R, O] float32, inbox [P, R, K, ...] or None -> AgentOutput; `undecided`: see `Agent`.

        `aux` has "features", the hidden state [P, R, hidden].
        """
        seen, before, aux = obs if self.eye is None else self.eye(obs), state["h"], dict[str, Tensor]()
        known = tanh(self.see(seen))
        if inbox is not None and self.spec.receives is not None:
            known = known + self._mean_heard(inbox, before, aux)
        hidden, cell = self.lstm(known, (before, state["c"]))
        return self._output(obs, seen, hidden, {"h": hidden, "c": cell}, aux, undecided)
