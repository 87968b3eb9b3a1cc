"""What independent bits make of the gate: how probably they pass it, and how much passing words tell."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

# Rows that are worked on at once on a CPU: what they need stays in the cache of most machines.
CHUNK = 512


class GateSums(NamedTuple):
    """Sums over bit strings w with probabilities p(w)."""

    fails: Tensor  # [...], of p(w) over those that the gate discards
    passes: Tensor  # [...], of p(w) over words
    information: Tensor  # [...], of p(w) log p(w) over words, nats; zeros if it was not asked for


def gate_sums(logits: Tensor, min_on: int, max_on: int, information: bool) -> GateSums:
    """Exact sums over all bit strings of n independent bits, differentiable once.

    The number of on bits follows the Poisson binomial distribution, which is added up bit by bit; sums of p log p are
    added up with it (the expectation semiring, Eisner 2002: (p, h) (q, g) = (p q, p g + h q)). With e_c the probability
    that the *other* bits have c on,

        d passes / d z_i = p_i (1 - p_i) (e_{min_on - 1} - e_{max_on}),

    and that of the information likewise, from sums forward and backward through the bits. All is a sum of terms of one
    sign, so that small results are as right as large ones, down to where the logits' dtype ends.

    Args:
        logits: [..., n], z, of the bits.
        min_on, max_on: the gate.
        information: whether the third sum is wanted.
    """
    rows = logits.reshape(-1, logits.shape[-1])
    sums = _Sums.apply(rows, min_on, max_on, information)
    return GateSums(*(x.view(logits.shape[:-1]) for x in sums))


class _Sums(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, min_on: int, max_on: int, information: bool) -> tuple[Tensor, Tensor, Tensor]:
        sums = rows.new_empty(3, len(rows))
        slopes = None
        if ctx.needs_input_grad[0]:
            slopes = rows.new_empty(1 + information, *rows.shape)
        size = CHUNK if rows.device.type == "cpu" else max(len(rows), 1)
        for start in range(0, len(rows), size):
            part = slice(start, start + size)
            forward = _Forward(rows[part].t().contiguous(), max_on, information)
            sums[:, part] = forward.sums(min_on)
            if slopes is not None:
                slopes[:, part] = forward.slopes(min_on).mT
        ctx.save_for_backward(slopes)
        return sums[0], sums[1], sums[2]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, fails: Tensor, passes: Tensor, information: Tensor) -> tuple[Tensor, None, None, None]:
        (slopes,) = ctx.saved_tensors
        # What does not pass fails: their slopes are opposite.
        grad = slopes[0] * (passes - fails).unsqueeze(-1)
        if len(slopes) > 1:
            grad = grad + slopes[1] * information.unsqueeze(-1)
        return grad, None, None, None


class _Forward:
    """Sums through the first i bits: `count[i, c]` of p over their strings with c on, `told[i, c]` of p log p.

    Rows are the last axis, so that every step works on whole stretches of memory. logits: [n, R].
    """

    def __init__(self, logits: Tensor, max_on: int, information: bool) -> None:
        n, rows = logits.shape
        self.logits, self.max_on = logits, max_on
        self.log_on, self.log_off = F.logsigmoid(logits), F.logsigmoid(-logits)
        self.on, self.off = self.log_on.exp(), self.log_off.exp()
        self.count = logits.new_zeros(n + 1, max_on + 1, rows)
        self.count[0, 0] = 1.0
        self.more = logits.new_zeros(rows)  # of strings with more than max_on bits on
        self.told: Tensor | None = None
        if information:
            self.told_on, self.told_off = self.on * self.log_on, self.off * self.log_off
            self.told = torch.zeros_like(self.count)
        for i in range(n):
            self._add(i)

    def _add(self, i: int) -> None:
        before, after, on, off = self.count[i], self.count[i + 1], self.on[i], self.off[i]
        torch.mul(before, off, out=after)
        after[1:].addcmul_(before[:-1], on)
        self.more.addcmul_(before[-1], on)
        if self.told is not None:
            said, told = self.told[i], self.told[i + 1]
            torch.mul(said, off, out=told)
            told[1:].addcmul_(said[:-1], on)
            told.addcmul_(before, self.told_off[i])
            told[1:].addcmul_(before[:-1], self.told_on[i])

    def sums(self, min_on: int) -> Tensor:
        """[3, R], what GateSums has."""
        last = self.count[-1]
        told = torch.zeros_like(self.more) if self.told is None else self.told[-1, min_on:].sum(0)
        return torch.stack([last[:min_on].sum(0) + self.more, last[min_on:].sum(0), told])

    def slopes(self, min_on: int) -> Tensor:
        """[1 or 2, n, R], derivatives of `passes` and `information` with respect to the logits.

        Backward through the bits, what the strings of the bits after i give for c bits on before them: `edge`, the
        probability that they make min_on - 1 less that they make max_on; `edge_told`, the same with p log p;
        `inside`, the probability that they make min_on - 1 to max_on - 1, where bit i being on makes a word.
        """
        result = self.logits.new_empty(1 if self.told is None else 2, *self.logits.shape)
        edge = torch.zeros_like(self.count[0])
        edge[min_on - 1] += 1.0
        edge[self.max_on] -= 1.0
        edge_told, inside = torch.zeros_like(edge), torch.zeros_like(edge)
        inside[min_on - 1 : self.max_on] = 1.0
        for i in reversed(range(len(self.logits))):
            rise = (self.count[i] * edge).sum(0)
            spread = self.on[i] * self.off[i]
            result[0, i] = spread * rise
            if self.told is not None:
                told = (self.told[i] * edge).addcmul_(self.count[i], edge_told).sum(0)
                on_is_word = (self.count[i] * inside).sum(0)
                told += (self.log_off[i] + 1) * rise + self.logits[i] * on_is_word
                result[1, i] = spread * told
                edge_told = self._back(i, edge_told).addcmul_(edge, self.told_off[i])
                edge_told[:-1].addcmul_(edge[1:], self.told_on[i])
                inside = self._back(i, inside)
            edge = self._back(i, edge)
        return result

    def _back(self, i: int, values: Tensor) -> Tensor:
        """values [c, R] for the bits after i -> those for the bits after i - 1."""
        result = values * self.off[i]
        result[:-1].addcmul_(values[1:], self.on[i])
        return result
