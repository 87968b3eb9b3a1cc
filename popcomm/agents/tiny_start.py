"""Where a TinyAgent's attention starts: at messages, and at positions in them, which FLARE's start averages."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from popcomm.agents.flare import FlareBlock
from popcomm.agents.message_decoder import MessageDecoder
from popcomm.channels.messages import MessageKind

CONTRAST = 3.0  # of scores: e**3, so that 19 of 20 parts of what a head reads are the position it starts at


@torch.no_grad()
def let_through_(block: FlareBlock, generator: torch.Generator | None) -> None:
    """Start a block's attention as wide as its input, weights N(0, 1 / C), in place of FLARE's N(0, 0.02).

    The published start is for long inputs that are read out everywhere. Here one token is read out, and of what it held
    at C = 64 and a depth of 2 only 0.5 % of the variance came from the messages; 15 % with this and `hear_in_order_`.
    """
    weight = block.attention.out.weight
    weight.normal_(0, weight.shape[-2] ** -0.5, generator=generator)


@torch.no_grad()
def hear_in_order_(block: FlareBlock, places: Tensor) -> None:
    """Let head j of a block start at position j modulo L of every message. places: [P, L, C], what marks positions.

    Heads that start alike average all tokens, and a sum of symbols does not tell what stood where: with the published
    start 1 to 4 % of what the messages changed depended on the order of their symbols.

    A normalised token is (symbol + position + sender) / sqrt(3), so queries along d = own position less the mean of
    all, sqrt(3) CONTRAST (L - 1) / (L s |d|^2) times as long for the scale s, score it CONTRAST above the others, on
    average. In narrow heads d may be next to nothing; there the queries stay short.
    """
    attention, (members, length, _) = block.attention, places.shape
    if length == 1:
        return
    heads = torch.arange(attention.num_heads)
    by_head = places.view(members, length, attention.num_heads, -1)
    own = by_head[:, heads % length, heads] - by_head.mean(1)  # [P, H, D]
    size = CONTRAST * math.sqrt(3) * (length - 1) / (length * attention.scale)
    queries = attention.latent_q.view(members, attention.num_heads, attention.num_latents, -1)
    power = own.square().sum(-1, keepdim=True)
    queries += (size * own / power.maximum(0.1 * power.mean())).unsqueeze(2)


def look_at_positions_(decoder: MessageDecoder, kind: MessageKind) -> None:
    """Let head j of a decoder start at position j modulo L.

    Its values are sums of a symbol and a position: averaged with equal weights, they would not tell what stood where.
    """
    if decoder.scores is None:
        return
    length, vocab_size = kind.params_shape
    members, _, heads = decoder.scores.shape
    own = torch.arange(heads) % length == torch.arange(length).unsqueeze(1)
    with torch.no_grad():
        decoder.scores.copy_(3.0 * own.repeat_interleave(vocab_size, 0).expand(members, -1, -1))
