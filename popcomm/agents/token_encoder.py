"""What is heard as tokens, one for every symbol: symbol + position in the message + sender."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from popcomm.agents.message_encoder import MessageEncoder, lookup
from popcomm.agents.population import PopulationEmbedding
from popcomm.channels.ending import sent
from popcomm.channels.mailbox import Inbox
from popcomm.channels.messages import MessageKind, Symbols


class TokenEncoder(nn.Module):
    """What is heard as tokens: inbox [P, R, K, ...] -> tokens [P, R, K T, C], and which are real [P, R, K T].

    T is one token per symbol, symbol + position + sender, or one per vector or word, a linear map + sender.

    Args:
        members: P.
        kind: of message.
        width: C.
        senders: seats that can be told apart.
        generator: source of the initial weights; torch's default one if None.
    """

    def __init__(
        self, members: int, kind: MessageKind, width: int, senders: int, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        self.symbolic = isinstance(kind, Symbols)
        self.ends = isinstance(kind, Symbols) and kind.ends
        self.senders = PopulationEmbedding(members, senders, width, generator)
        if self.symbolic:
            self.tokens_per_message, vocab_size = kind.params_shape
            self.symbols = PopulationEmbedding(members, vocab_size, width, generator)
            self.positions = PopulationEmbedding(members, self.tokens_per_message, width, generator)
        else:
            self.tokens_per_message = 1
            self.numbers = MessageEncoder(members, kind, width, generator)

    def forward(self, inbox: Inbox) -> tuple[Tensor, Tensor]:
        """inbox [P, R, K, ...] -> tokens [P, R, K T, C], mask [P, R, K T] bool."""
        count = self.tokens_per_message
        each = inbox.read(self._read).unflatten(-1, (count, -1)) + self.senders(inbox.senders).unsqueeze(-2)
        mask = inbox.mask.unsqueeze(-1).expand(*inbox.mask.shape, count)
        if self.ends:
            mask = mask & sent(inbox.messages)
        return each.flatten(2, 3), mask.flatten(2)

    @property
    def weight(self) -> Tensor:
        """[P, L V, C], every symbol at every position, as a MessageDecoder reads them."""
        return (self.symbols.weight.unsqueeze(1) + self.positions.weight.unsqueeze(2)).flatten(1, 2)

    def encode(self, messages: Tensor, soft: Tensor | None = None) -> Tensor:
        """Vectors [P, ..., D] or words [P, ...] as a MessageDecoder reads them: [P, ..., C]."""
        return self.numbers.encode(messages, soft)

    def _read(self, messages: Tensor, soft: Tensor | None) -> Tensor:
        """Messages without their senders: [P, ..., *message shape] -> [P, ..., T C]."""
        if not self.symbolic:
            return self.numbers.encode(messages, soft)
        if soft is None:
            symbols = self.symbols(messages)
        else:
            # Every symbol as a message of one: the gradient goes to `soft` without one-hots.
            symbols = lookup(self.symbols.weight, messages.unsqueeze(-1), soft.unsqueeze(-2))
        places = self.positions.weight
        return (symbols + places.view(len(places), *[1] * (symbols.dim() - 3), *places.shape[1:])).flatten(-2)
