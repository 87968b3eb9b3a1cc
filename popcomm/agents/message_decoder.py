"""What a listener makes of one message: attention over its symbols, then the sender's observation."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from popcomm.agents.activations import tanh
from popcomm.agents.message_encoder import MessageEncoder, lookup
from popcomm.agents.population import PopulationLinear
from popcomm.channels.ending import sent
from popcomm.channels.mailbox import Inbox
from popcomm.channels.messages import MessageKind, Symbols


def attend_symbols(
    tables: Tensor, scores: Tensor, messages: Tensor, soft: Tensor | None = None, there: Tensor | None = None
) -> Tensor:
    """Attention over the positions of each message: its symbols' values, averaged with softmax weights of their scores.

    sum_l exp(s_l) v_l / sum_l exp(s_l) is a ratio of two sums over positions, both of them lookups, so there is no
    [..., L, H] tensor, and the straight-through gradient is kept.

    Args:
        tables: [P, L * V, H], the value of each symbol at each position.
        scores: [P, L * V, heads], their scores; head j weighs the j-th of `heads` equal parts of H.
        messages: [P, ..., L] int64.
        soft: [P, ..., L, V] or None.
        there: [P, ..., L] bool, positions that count; None: all.

    Returns:
        [P, ..., H].
    """
    members, size, features = tables.shape
    heads = scores.shape[-1]
    weights = scores.clamp(-10, 10).exp()
    # Of weighted values one tensor is there at a time: with many members it is as large as all their tables.
    both = torch.cat([(tables.view(members, size, heads, -1) * weights.unsqueeze(-1)).view_as(tables), weights], -1)
    sums = lookup(both, messages, soft, there)
    values, total = sums.split([features, heads], -1)
    return (values.unflatten(-1, (heads, -1)) / total.unsqueeze(-1)).flatten(-2)


class MessageDecoder(nn.Module):
    """Every message of an inbox -> a guess of what its sender saw: [P, R, K, out_features].

    The values of the symbols are the listener's own encoder tables, so learning to reconstruct teaches it to listen;
    the scores are the decoder's own, and start at zero (all positions count the same). A vector or a word has no
    positions to attend over, and is read by the encoder as it is.
    """

    def __init__(
        self,
        members: int,
        kind: MessageKind,
        hidden_dim: int,
        num_heads: int,
        out_features: int,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.ends = isinstance(kind, Symbols) and kind.ends
        symbols = int(torch.Size(kind.params_shape).numel())
        self.scores = nn.Parameter(torch.zeros(members, symbols, num_heads)) if isinstance(kind, Symbols) else None
        self.head = PopulationLinear(members, hidden_dim, out_features, generator=generator)

    def forward(self, encoder: MessageEncoder, inbox: Inbox) -> Tensor:
        return inbox.read(lambda messages, soft: self.head(tanh(self.attend(encoder, messages, soft))))

    def attend(self, encoder: MessageEncoder, messages: Tensor, soft: Tensor | None) -> Tensor:
        """messages [P, ..., *message shape] -> [P, ..., hidden_dim]."""
        if self.scores is None:
            return encoder.encode(messages, soft)
        # Times the number of symbols, so that equal scores give the sum that the encoder gives.
        if self.ends:
            there = sent(messages)
            return there.sum(-1, keepdim=True) * attend_symbols(encoder.weight, self.scores, messages, soft, there)
        return messages.shape[-1] * attend_symbols(encoder.weight, self.scores, messages, soft)
