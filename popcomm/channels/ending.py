"""Messages that end early: symbol 0 is the end, and what follows it is not sent. Pure functions on symbols and logits.

A message is sent up to its first end, and that included; one without an end is sent whole. What is not sent stands as 0
in symbols [..., L], and as a row of zeros in points of the simplex [..., L, V]. How much of a position is sent,
[..., L], is 0 or 1 of a message, and a probability of a distribution.
"""

from __future__ import annotations

import torch
from torch import Tensor

END = 0


def sent(symbols: Tensor) -> Tensor:
    """Which positions of messages are sent: [..., L] int64 -> [..., L] bool.

    >>> sent(torch.tensor([[2, 0, 1], [0, 0, 1], [1, 2, 1]])).int().tolist()
    [[1, 1, 0], [1, 0, 0], [1, 1, 1]]
    """
    ends = symbols == END
    return ends.cumsum(-1) - ends.long() == 0


def cut(symbols: Tensor) -> Tensor:
    """Messages without what follows their end: [..., L] int64 -> the same, 0 there."""
    return symbols * sent(symbols)


def reached(ends: Tensor) -> Tensor:
    """How likely every position is sent, where each ends a message with so much probability: [..., L] -> [..., L]."""
    goes_on = (1.0 - ends).cumprod(-1)
    return torch.cat([torch.ones_like(goes_on[..., :1]), goes_on[..., :-1]], -1)


def faded(points: Tensor) -> Tensor:
    """Points of the simplex [..., L, V], each as much as it is sent: times what those before it left of the message.

    Of one-hots it is what `cut` is of symbols; between, a symbol that is half an end halves all that follow.
    """
    return points * reached(points[..., END]).unsqueeze(-1)


def whole(points: Tensor) -> tuple[Tensor, Tensor]:
    """The inverse of `faded`: points of the simplex [..., L, V], and how much of each was sent [..., L]."""
    share = points.sum(-1)
    return points / share.clamp(min=torch.finfo(points.dtype).tiny).unsqueeze(-1), share


def entropy(log_p: Tensor, share: Tensor) -> Tensor:
    """Entropy (nats) of what is sent: log-probabilities [..., L, V] and how much is sent [..., L] -> [...].

    The chain rule: that of each position, given that it is reached.
    """
    return -((log_p.exp() * log_p).sum(-1) * share).sum(-1)


def counted(symbols: Tensor) -> Tensor:
    """For statistics: -1, which counts nowhere, in place of what is not sent; [..., L] int64."""
    return torch.where(sent(symbols), symbols, -1)


def count(vocab_size: int, length: int) -> int:
    """How many different messages there are: those of 0 to length - 1 other symbols and an end, and those without one.

    >>> count(3, 2)  # an end; one of two symbols and an end; two of them
    7
    """
    return sum((vocab_size - 1) ** said for said in range(length + 1))
