"""A communication codec: one encoder and one decoder for messages, which species may have in common."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from popcomm.agents.activations import tanh
from popcomm.agents.contract import AgentSpec
from popcomm.agents.message_encoder import MessageEncoder
from popcomm.agents.population import PopulationLinear
from popcomm.agents.start import start_message_head_
from popcomm.channels.mailbox import Inbox
from popcomm.channels.vectors import Vectors


class Codec(nn.Module):
    """Thoughts into messages, and messages into what listeners make of them.

    Vectors are tanh(W h + b), so that no number of a message is louder than 1; of other kinds W h + b are the
    parameters, and so are the phases and the scores of vectors that are put together of several. A message is heard as
    tanh(V m). The mute have no encoder, and the deaf no decoder.

    Args:
        spec: the place of its agent.
        width: numbers in a thought, and in what is heard.
        scale: root mean square of thoughts at the start.
        generator: source of the initial weights; torch's default one if None.
    """

    def __init__(self, spec: AgentSpec, width: int, scale: float, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.sends = spec.sends
        if spec.sends is not None:
            size = math.prod(spec.sends.params_shape)
            self.encoder = PopulationLinear(spec.members, width, size, generator=generator)
            start_message_head_(self.encoder, scale, generator)
        if spec.receives is not None:
            self.decoder = MessageEncoder(spec.members, spec.receives, width, generator)

    @property
    def parts(self) -> tuple[str, ...]:
        """The names of the parts that it has."""
        return tuple(name for name, _ in self.named_children())

    def encode(self, thoughts: Tensor) -> Tensor:
        """thoughts [P, R, width] -> parameters of messages [P, R, params]."""
        said, kind = self.encoder(thoughts), self.sends
        if type(kind) is not Vectors:
            return said
        if kind.parts is None:
            return tanh(said)
        # How parts are turned and measured is no number of the message.
        own, how = said.unflatten(-1, kind.params_shape).tensor_split([kind.size], -1)
        return torch.cat([tanh(own), how], -1).flatten(-2)

    def decode(self, inbox: Inbox) -> Tensor:
        """inbox [P, R, K, ...] -> [P, R, K, width]."""
        return inbox.read(self._decode)

    def _decode(self, messages: Tensor, soft: Tensor | None) -> Tensor:
        return tanh(self.decoder.encode(messages, soft))
