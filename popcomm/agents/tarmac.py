"""TarMACAgent: messages carry a signature, and listeners attend to those that they ask for (Das et al. 2019)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from popcomm.agents.contract import AgentOutput, AgentSpec
from popcomm.agents.hidden_state import HiddenState
from popcomm.agents.message_encoder import MessageEncoder
from popcomm.agents.population import PopulationGRUCell, PopulationLinear, orthogonal_
from popcomm.agents.pretrained import Pretrained
from popcomm.channels.mailbox import Inbox
from popcomm.channels.vectors import Vectors
from popcomm.checks import whole
from popcomm.errors import UserError

# Root mean square of the hidden state at the start.
START_SCALE = 0.4
# Numbers in a signature and in a value, as in the paper.
SIGNATURE, VALUE = 16, 32


class TarMACAgent(HiddenState, Pretrained, nn.Module):
    """Listeners attend to the messages whose signature answers their query: TarMAC (Das et al. 2019, section 4.2).

    Equations 3 to 5. A message is a signature k and a value v, both linear in the sender's hidden state. A listener
    asks with a query q, linear in its hidden state before the step, and hears sum_i a_i v_i with
    a = softmax(q . k_i / sqrt(|k|)) over the messages that reach it, of the inbox alone: it does not hear itself. A GRU
    takes in what is seen and heard. Several rounds are `communication(rounds=R)`, through which the GRU goes on.

    Where messages are vectors, their first `signature` numbers are the signature and the others the value. Of other
    kinds both are read from the message by one linear layer of the listener's.

    Args:
        spec: what the network must know of its place.
        hidden: width of the GRU.
        signature: numbers in a signature; None: 16, or half of a smaller vector.
        value: numbers in a value, where messages are no vectors; None: 32.
        encoder: "cnn", a small convolutional network for pictures; "flat", their numbers as they are; None: "cnn" where
            there are pictures (`popcomm.agents.convolution`).
        urgency: where the priority of its messages comes from, under a budget (`popcomm.agents.gates.Manner`).
        generator: source of the initial weights; torch's default one if None.

    Raises:
        UserError: a width below one, a vector without room for a value, a value that vectors decide, or an encoder that
            does not fit.
    """

    def __init__(
        self,
        spec: AgentSpec,
        hidden: int = 64,
        signature: int | None = None,
        value: int | None = None,
        generator: torch.Generator | None = None,
        encoder: str | None = None,
        urgency: Any = None,
    ) -> None:
        super().__init__()
        seen, p = self._look(spec, hidden, encoder, generator), spec.members
        self.signature, self.value = message_parts(spec, signature, value)
        # A silent network is as large as a talking one.
        self.cell = PopulationGRUCell(p, seen + self.value, hidden, generator=generator)
        with torch.no_grad():  # new content is louder than torch starts it
            new = self.cell.weight_ih[..., 2 * hidden :]
            new.copy_(orthogonal_(torch.empty_like(new), 1.0, generator))
        if spec.receives is not None:
            self.query = PopulationLinear(p, hidden, self.signature, generator=generator)
            if type(spec.receives) is not Vectors:
                self.encoder = MessageEncoder(p, spec.receives, self.signature + self.value, generator)
            self._add_gate(self.value, generator)  # signatures are asked for as they are
        self._add_heads(seen, START_SCALE, urgency, generator)
        self._add_message_head(START_SCALE, False, generator)
        self._add_pointing(START_SCALE, generator)

    def initial_state(self, rows: int) -> dict[str, Tensor]:
        """{"h"}, [P, rows, hidden] zeros."""
        return {"h": self.cell.weight_hh.new_zeros(self.spec.members, rows, self.hidden_size)}

    def forward(
        self, obs: Tensor, inbox: Inbox | None, state: Mapping[str, Tensor], undecided: bool = False
    ) -> AgentOutput:
        """obs [P, R, O] float32, inbox [P, R, K, ...] or None -> AgentOutput; `undecided`: see `Agent`.

        `aux` has "features", the hidden state [P, R, hidden], and of who hears "attention" [P, R, K], which sums to one
        over the real messages, and to zero where there is none.
        """
        seen, before, aux = obs if self.eye is None else self.eye(obs), state["h"], dict[str, Tensor]()
        if inbox is not None and self.spec.receives is not None:
            context = self._attend(inbox, before, aux)
        else:
            context = seen.new_zeros(*seen.shape[:-1], self.value)
        hidden = self.cell(torch.cat([seen, context], -1), before)
        return self._output(obs, seen, hidden, {"h": hidden}, aux, undecided)

    def _attend(self, inbox: Inbox, hidden: Tensor, aux: dict[str, Tensor]) -> Tensor:
        """hidden [P, R, H], of the step before -> what is heard [P, R, value]."""
        signatures, values = inbox.read(self._read).split([self.signature, self.value], -1)
        values = self._gated(values, inbox, hidden, aux)
        scores = (signatures * self.query(hidden).unsqueeze(-2)).sum(-1) * self.signature**-0.5
        # A row without messages has equal scores, hence no NaN.
        weights = scores.masked_fill(~inbox.mask, -1e9).softmax(-1) * inbox.mask
        aux["attention"] = weights
        return (weights.unsqueeze(-1) * values).sum(-2)

    def _read(self, messages: Tensor, soft: Tensor | None) -> Tensor:
        """[P, ..., signature + value]"""
        kind = self.spec.receives
        assert kind is not None
        return kind.straight_through(messages, soft) if type(kind) is Vectors else self.encoder.encode(messages, soft)


def message_parts(spec: AgentSpec, signature: int | None, value: int | None) -> tuple[int, int]:
    """Numbers in the signature and in the value of a message; see `TarMACAgent`.

    Raises:
        UserError: a width below one, a vector without room for both, or a value beside vectors.
    """
    for name, size in (("signature", signature), ("value", value)):
        if size is not None:
            whole(f"agent_config.{name}", size, 1)
    kind = spec.messages
    if type(kind) is not Vectors:
        return signature or SIGNATURE, value or VALUE
    if kind.size < 2:
        raise UserError("messages.size is 1, and population.agent 'tarmac' says a signature and a value; use 2 or more")
    own = signature or min(SIGNATURE, kind.size // 2)
    if own >= kind.size:
        raise UserError(
            f"agent_config.signature is {own}, and leaves nothing of messages.size = {kind.size} for the value"
        )
    if value is not None and value != kind.size - own:
        raise UserError(
            f"agent_config.value is {value}, and messages.size = {kind.size} less a signature of {own} leaves "
            f"{kind.size - own}; leave it out"
        )
    return own, kind.size - own
