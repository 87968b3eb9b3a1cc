"""HeterogeneousAgent: species with bodies of their own and a codec for messages that they have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from popcomm.agents.attention import attend
from popcomm.agents.codec import Codec
from popcomm.agents.contract import AgentOutput, AgentSpec
from popcomm.agents.hidden_state import HiddenState
from popcomm.agents.population import PopulationLinear, PopulationMLP
from popcomm.agents.pretrained import Pretrained
from popcomm.channels.mailbox import Inbox
from popcomm.checks import one_of, whole
from popcomm.errors import UserError, unknown

# Widths of the feature networks of the types.
FEATURES = {"sensor": (128, 128), "processor": (256, 128), "actuator": (64, 128)}
# Root mean square of a thought at the start.
START_SCALE = 0.5


class HeterogeneousAgent(HiddenState, Pretrained, nn.Module):
    """An agent of a team of different types, each with a network of its own, which speak through one codec.

    1. Features: a tanh network on the observation, whose sizes follow from the type.
    2. Hearing: every message through the codec's decoder; the mean of them, or attention with the features as query.
    3. Thought: a tanh layer on features and what is heard. Actions are linear in it.
    4. Speaking: the thought through the codec's encoder; vectors are tanh, within [-1, 1].

    It remembers nothing. Where several species are of this class, their encoders are one and their decoders are one:
    `shared_parts`, which the trainer shares between their modules (`popcomm.rllib.sharing`). Policies of different
    agents with a channel between them: Bettini, Shankar & Prorok 2023 (HetGPPO); theirs have no codec in common.

    Args:
        spec: what the network must know of its place.
        type: "sensor", "processor" or "actuator"; None: the species' name if it is one of them, else "sensor".
        features: widths of the feature network, in place of the type's; the last is the codec's.
        aggregation: "mean" or "attention".
        num_heads: of the attention; divides the last width.
        codec: "shared", by all species of this class; "own", by none.
        encoder: "cnn", a small convolutional network for pictures; "flat", their numbers as they are; None: "cnn" where
            there are pictures (`popcomm.agents.convolution`).
        urgency: where the priority of its messages comes from, under a budget (`popcomm.agents.gates.Manner`).
        generator: source of the initial weights; torch's default one if None.

    Raises:
        UserError: no such type, aggregation or codec, a width below one, heads that do not divide the last of them, or
            an encoder that does not fit.
    """

    shared_parts: tuple[str, ...] = ()

    def __init__(
        self,
        spec: AgentSpec,
        type: str | None = None,
        features: Sequence[int] | None = None,
        aggregation: str = "mean",
        num_heads: int = 4,
        codec: str = "shared",
        generator: torch.Generator | None = None,
        encoder: str | None = None,
        urgency: Any = None,
    ) -> None:
        super().__init__()
        widths = widths_of(spec, type, features)
        one_of("agent_config.aggregation", aggregation, ("mean", "attention"))
        one_of("agent_config.codec", codec, ("shared", "own"))
        width, p, self.aggregation, self.num_heads = widths[-1], spec.members, aggregation, num_heads
        seen = self._look(spec, width, encoder, generator)
        self.body = PopulationMLP(p, seen, *widths, gain=2**0.5, generator=generator)
        self.mind = PopulationMLP(p, 2 * width, width, gain=1.0, generator=generator)
        self.codec = Codec(spec, width, START_SCALE, generator)
        self.shared_parts = tuple(f"codec.{part}" for part in self.codec.parts) if codec == "shared" else ()
        if spec.receives is not None:
            self._add_gate(width, generator)
        if aggregation == "attention":
            _check_heads(num_heads, width)
            if spec.receives is not None:
                self.query = PopulationLinear(p, width, width, generator=generator)
        self._add_heads(seen, START_SCALE, urgency, generator)
        self._add_pointing(START_SCALE, generator)

    def initial_state(self, rows: int) -> dict[str, Tensor]:
        """Nothing is remembered."""
        return {}

    def forward(
        self, obs: Tensor, inbox: Inbox | None, state: Mapping[str, Tensor], undecided: bool = False
    ) -> AgentOutput:
        """obs [P, R, O] float32, inbox [P, R, K, ...] or None -> AgentOutput; `undecided`: see `Agent`.

        `aux` has "features", the thought [P, R, width], and with attention, of who hears, "attention" [P, R, K], the
        mean over heads.
        """
        seen, aux = obs if self.eye is None else self.eye(obs), dict[str, Tensor]()
        known = self.body(seen).tanh()
        heard = torch.zeros_like(known)
        if inbox is not None and self.spec.receives is not None:
            heard = self._hear(inbox, known, aux)
        thought = self.mind(torch.cat([known, heard], -1)).tanh()
        return self._output(obs, seen, thought, {}, aux, undecided)

    def _hear(self, inbox: Inbox, known: Tensor, aux: dict[str, Tensor]) -> Tensor:
        """known [P, R, width] -> [P, R, width]; zero where there is no message."""
        heard = self._gated(self.codec.decode(inbox), inbox, known, aux)
        if self.aggregation == "mean":
            weight = inbox.mask / inbox.mask.sum(-1, keepdim=True).clamp(min=1)
            return (heard * weight.unsqueeze(-1)).sum(-2)
        context, weights = attend(heard, self.query(known), inbox.mask, self.num_heads)
        aux["attention"] = weights.mean(-1)
        return context

    def _said(self, hidden: Tensor) -> Tensor:
        return self.codec.encode(hidden)


def widths_of(spec: AgentSpec, type: str | None, features: Sequence[int] | None) -> tuple[int, ...]:
    """Widths of a feature network; see `HeterogeneousAgent`.

    Raises:
        UserError: no such type, no widths, or one below one.
    """
    if type is not None and type not in FEATURES:
        raise unknown("agent_config.type", str(type), FEATURES)
    if features is None:
        return FEATURES[type or (spec.species if spec.species in FEATURES else "sensor")]
    if isinstance(features, str) or not isinstance(features, Sequence) or not features:
        raise UserError(f"agent_config.features is {features!r}, and must be a list of widths, such as [128, 128]")
    for width in features:
        whole("agent_config.features", width, 1)
    return tuple(features)


def _check_heads(num_heads: int, width: int) -> None:
    whole("agent_config.num_heads", num_heads, 1)
    if width % num_heads:
        raise UserError(
            f"agent_config.num_heads is {num_heads}, and must divide the last width of agent_config.features = {width}"
        )
