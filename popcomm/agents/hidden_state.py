"""What agents of the papers on learned communication have in common: heads on one hidden state."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from popcomm.agents.contract import AgentOutput, AgentSpec, AuxiliaryBatch, later
from popcomm.agents.convolution import make_eye
from popcomm.agents.gates import Manner, ReceiverGate, check_urgency
from popcomm.agents.message_encoder import MessageEncoder
from popcomm.agents.pointing import make_pointing, pointed
from popcomm.agents.population import PopulationLinear, PopulationMLP, orthogonal_layer_
from popcomm.agents.start import POLICY_GAIN, start_message_head_
from popcomm.channels.mailbox import Inbox
from popcomm.channels.vectors import Vectors
from popcomm.checks import whole

# Root mean square of the hidden state of a MLPAgent at the start, for which POLICY_GAIN is meant.
USUAL_SCALE = 0.5


class HiddenState:
    """Part of an agent whose hidden state h [P, R, H] is all that it acts on, and what it speaks from.

    Actions and messages are linear in h. The value is a tanh network's on what is seen and h, whose gradient stops
    there. Where messages are vectors as wide as h, and not put together of several, a message is h itself, and there is
    no message head.

    What is heard is linear in every message, and a receiver's gate stands before it (`popcomm.agents.gates`).
    """

    has_auxiliary_losses = False
    gives_features = takes_relaxed = gates_messages = True

    spec: AgentSpec
    encoder: MessageEncoder

    def _look(self, spec: AgentSpec, hidden: int, encoder: str | None, generator: torch.Generator | None) -> int:
        """Note the place, and make the eye; returns how many numbers are seen."""
        whole("agent_config.hidden", hidden, 1)
        self.spec, self.hidden_size, self.features_size = spec, hidden, hidden
        self.eye = make_eye(spec, encoder, hidden, generator)
        self.decides_unseen = self.eye is not None and spec.candidates is None
        return spec.obs_size if self.eye is None else self.eye.size

    def _add_hearing(self, width: int, generator: torch.Generator | None) -> None:
        """What reads messages into `width` numbers each, and the gate before it; nothing for the deaf."""
        spec = self.spec
        if spec.receives is not None:
            self.encoder = MessageEncoder(spec.members, spec.receives, width, generator)
            self._add_gate(width, generator)

    def _add_gate(self, width: int, generator: torch.Generator | None) -> None:
        if "receiver" in self.spec.gates:
            self.gate = ReceiverGate(self.spec.members, self.hidden_size, width, generator)

    def _add_heads(self, seen: int, scale: float, urgency: Any, generator: torch.Generator | None) -> None:
        """Policy, critic and manner. seen: numbers seen; scale: root mean square of h at the start."""
        spec, h = self.spec, self.hidden_size
        self.policy = PopulationLinear(spec.members, h, spec.action_params_size, generator=generator)
        orthogonal_layer_(self.policy, POLICY_GAIN * USUAL_SCALE / scale, generator)
        self.critic = PopulationMLP(spec.members, seen + h, h, 1, gain=1.0, generator=generator)
        check_urgency(spec, urgency)
        if spec.manners:
            self.manner = Manner(spec, h, urgency, generator)

    def _add_message_head(self, scale: float, itself: bool, generator: torch.Generator | None) -> None:
        """What is said, unless it is h itself. itself: whether it may be; scale: root mean square of h at the start."""
        kind, h = self.spec.sends, self.hidden_size
        if kind is None or (itself and type(kind) is Vectors and kind.params_shape == (h,)):
            return
        self.message_head = PopulationLinear(self.spec.members, h, math.prod(kind.params_shape), generator=generator)
        start_message_head_(self.message_head, scale, generator)

    def _add_pointing(self, scale: float, generator: torch.Generator | None) -> None:
        """What weighs candidates; the last part that is made, so that others start as they do without it."""
        self.pointing = make_pointing(self.spec, self.hidden_size, scale, generator)

    def _mean_heard(self, inbox: Inbox, hidden: Tensor, aux: dict[str, Tensor]) -> Tensor:
        """[P, R, width], the mean over the real messages, as far as they are let in; zero where there is none.

        hidden: [P, R, H], of the step before, by which the gate opens.
        """
        heard = self._gated(self.encoder(inbox), inbox, hidden, aux)
        weight = inbox.mask / inbox.mask.sum(-1, keepdim=True).clamp(min=1)
        return (heard * weight.unsqueeze(-1)).sum(-2)

    def _gated(self, heard: Tensor, inbox: Inbox, hidden: Tensor, aux: dict[str, Tensor]) -> Tensor:
        """heard [P, R, K, width], as far as it is let in."""
        if "receiver" in self.spec.gates:
            heard, openness = self.gate(hidden, heard)
            aux["openness"] = openness * inbox.mask
        return heard

    def _output(
        self,
        obs: Tensor,
        seen: Tensor,
        hidden: Tensor,
        state: dict[str, Tensor],
        aux: dict[str, Tensor],
        undecided: bool,
    ) -> AgentOutput:
        """All that follows from h. obs [P, R, O]; seen [P, R, seen]; hidden [P, R, H]."""
        aux["features"] = hidden
        if self.eye is not None:
            aux["seen"] = seen
        message, sends = None, self.spec.sends
        if sends is not None:
            message = self._said(hidden).unflatten(-1, sends.params_shape)
        logits, value = later(obs) if undecided else self.decide(obs, aux)
        manner = self.manner(hidden, obs) if self.spec.manners else None
        return AgentOutput(logits, message, value, state, aux, manner=manner)

    def _said(self, hidden: Tensor) -> Tensor:
        """hidden [P, R, H] -> [P, R, numbers in a message's parameters]."""
        return self.message_head(hidden) if hasattr(self, "message_head") else hidden

    def decide(self, obs: Tensor, aux: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """obs [P, R, O], unless what was seen is in `aux` of those rows -> action logits [P, R, A], values [P, R]."""
        known = torch.cat([aux.get("seen", obs), aux["features"]], -1).detach()
        logits = pointed(self.pointing, self.policy(aux["features"]), aux["features"], obs)
        return logits, self.critic(known).squeeze(-1)

    def auxiliary_losses(self, batch: AuxiliaryBatch, outputs: AgentOutput) -> dict[str, Tensor]:
        """It has none."""
        return {}
