"""Messages that are real in training and discrete in play: relaxed symbols, and the bits of DIAL's noisy channel.

Both are reparameterised: a message is a function of the network's output and of noise that does not depend on it. The
noise is kept, so that every epoch of an update hears what the *present* sender would have said with it, and gradients
reach the sender through the message itself.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from gymnasium import spaces
from torch import Tensor

from popcomm.checks import not_negative, positive, whole

# Least probability of a symbol of a relaxed message, so that its logarithm stays finite.
LEAST = 1e-20
NOISE = 0.5


def at_least_float32(params: Tensor) -> Tensor:
    """What networks put out in bfloat16 is too coarse to be said with noise."""
    return params.to(torch.promote_types(params.dtype, torch.float32))


def not_blank(params: Tensor) -> Tensor:
    """The expected number of symbols that are not the blank, of logits [..., L, V]: [...]."""
    blank = (params[..., 0] - params.logsumexp(-1)).exp()
    return (1 - blank).sum(-1)


@dataclass(frozen=True)
class RelaxedSymbols:
    """`length` symbols out of `vocab_size`, each a point of the simplex in training; `Symbols(..., relaxed=True)`.

    In training a symbol is softmax((logits / noise + g) / temperature) with Gumbel noise g: the concrete distribution
    (Jang 2017, eq. 2; Maddison 2017, section 3) of the logits over the noise. In play it is the likeliest symbol,
    one-hot. A message is V numbers for each symbol, and as many of noise are kept beside it.

    Args:
        vocab_size: V.
        length: L.
        temperature: how soft a symbol is; towards 0 it is one-hot.
        noise: how loud the noise is beside the logits. Below 1 more of what little senders tell apart at the start
            comes through, and receivers begin to listen sooner (docs/learning_to_talk.md).

    Raises:
        UserError: fewer than two symbols, a length below one, or a temperature or a noise that is not above 0.
    """

    vocab_size: int
    length: int
    temperature: float = 1.0
    noise: float = NOISE
    kind: ClassVar[str] = "relaxed symbols"
    gradients: ClassVar[tuple[str, ...]] = ("relaxed", "through")

    def __post_init__(self) -> None:
        whole("messages.vocab_size", self.vocab_size, 2)
        whole("messages.length", self.length, 1)
        for key in ("temperature", "noise"):
            positive(f"messages.{key}", getattr(self, key))

    @property
    def shape(self) -> tuple[int, ...]:
        """[L, V], and not [L] as of Symbols: a point of the simplex for each."""
        return (self.length, self.vocab_size)

    params_shape = features_shape = noise_shape = shape

    @property
    def alphabet(self) -> int:
        return self.vocab_size

    @property
    def dtype(self) -> torch.dtype:
        """Real numbers, also in play, where they are 0 or 1."""
        return torch.float32

    def rule(self) -> str:
        bits = self.length * math.log2(self.vocab_size)
        return (
            f"a message is {self.length} symbols out of {self.vocab_size} ({bits:.1f} bits at most in play); in "
            f"training each is a point of the simplex, with {self.noise:g} times Gumbel noise at temperature "
            f"{self.temperature:g}; symbol 0 is the blank, the only one that costs nothing"
        )

    def space(self) -> spaces.Box:
        """Box, and not MultiDiscrete as of Symbols: points of the simplex."""
        return spaces.Box(0.0, 1.0, self.shape, np.float32)

    def draw_noise(self, params: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Standard Gumbel noise of the shape of params [..., L, V], float32."""
        # -log of an exponential; zero has probability 0 in torch's sampler, which draws from (0, inf).
        return -torch.empty(params.shape, device=params.device).exponential_(generator=generator).log()

    def sample_with(self, params: Tensor, noise: Tensor) -> Tensor:
        """params and noise [..., L, V] -> [..., L, V] on the simplex, float32 or wider; differentiable in params."""
        raised = at_least_float32(params) / self.noise + noise
        return (raised if self.temperature == 1 else raised / self.temperature).softmax(-1)

    def sample(self, params: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return self.sample_with(params, self.draw_noise(params, generator))

    def mode(self, params: Tensor) -> Tensor:
        """The likeliest symbols, one-hot: [..., L, V] float32."""
        return F.one_hot(params.argmax(-1), self.vocab_size).float()

    def log_prob(self, params: Tensor, messages: Tensor) -> Tensor:
        """Log-density on the simplex (Maddison 2017, eq. 10), summed over the L symbols: [...]."""
        n, tau = self.vocab_size, self.temperature
        log_x = messages.clamp(min=LEAST).log()
        location = params / self.noise
        each = (location - (tau + 1) * log_x).sum(-1) - n * (location - tau * log_x).logsumexp(-1)
        return (each + math.lgamma(n) + (n - 1) * math.log(tau)).sum(-1)

    def probabilities(self, params: Tensor) -> Tensor:
        """Of symbols drawn by the logits alone, as Symbols are: [..., L, V]."""
        return params.softmax(-1)

    def log_drawn(self, params: Tensor) -> Tensor:
        """Log-probabilities (nats) with which each symbol is the largest in training: [..., L, V]."""
        return (at_least_float32(params) / self.noise).log_softmax(-1)

    def entropy(self, params: Tensor) -> Tensor:
        """Of symbols drawn by the logits alone: [...] nats."""
        log_p = params.log_softmax(-1)
        return -(log_p.exp() * log_p).sum((-1, -2))

    def soft(self, params: Tensor) -> Tensor:
        """What is said without noise: [..., L, V]."""
        return (params / (self.noise * self.temperature)).softmax(-1)

    def straight_through(self, messages: Tensor, soft: Tensor | None) -> Tensor:
        """The message itself; `soft` is what the present sender says with the noise that was kept."""
        return messages if soft is None else soft

    def load(self, messages: Tensor) -> Tensor:
        """How much of the message is not the blank: [...] float32."""
        return (1.0 - messages[..., 0]).sum(-1)

    def expense(self, params: Tensor) -> Tensor:
        """The expected number of symbols that are not the blank, drawn by the logits alone: [...]."""
        return not_blank(params)

    def spoken(self, messages: Tensor) -> Tensor:
        """All of them."""
        return torch.ones(messages.shape[:-2], dtype=torch.bool, device=messages.device)

    def as_symbols(self, messages: Tensor) -> Tensor:
        """The largest of each symbol's numbers: [..., L] int64."""
        return messages.argmax(-1)

    def from_symbols(self, symbols: Tensor) -> Tensor:
        """As in play: [..., L] int64 -> one-hot [..., L, V] float32."""
        return F.one_hot(symbols.long(), self.vocab_size).float()

    def corrupt(self, messages: Tensor, noise: float, generator: torch.Generator | None = None) -> Tensor:
        """Each symbol is replaced by a uniform one, one-hot, with probability `noise`."""
        shape = messages.shape[:-1]
        uniform = torch.rand(shape, generator=generator, device=messages.device)
        other = torch.randint(self.vocab_size, shape, generator=generator, device=messages.device)
        return torch.where((uniform < noise).unsqueeze(-1), F.one_hot(other, self.vocab_size).float(), messages)

    def transmitted_again(self, said: Tensor, sent: Tensor, heard: Tensor) -> Tensor:
        """What is heard of `said` where `heard` was heard of `sent`: a symbol that was replaced is so again."""
        return torch.where((heard != sent).any(-1, keepdim=True), heard.to(said.dtype), said)


@dataclass(frozen=True)
class Dru:
    """DIAL's discretise / regularise unit (Foerster 2016, section 5.2): `size` numbers in training, bits in play.

    In training each number is the logistic function of the network's output plus normal noise of standard deviation
    `noise`, which the sender can only drown by pushing its outputs apart; in play a bit is 1 where the output is
    positive.

    Raises:
        UserError: a size below one, or a negative noise.
    """

    size: int
    noise: float = 2.0
    kind: ClassVar[str] = "dru"
    gradients: ClassVar[tuple[str, ...]] = ("through",)

    def __post_init__(self) -> None:
        whole("messages.size", self.size, 1)
        not_negative("messages.noise", self.noise)

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.size,)

    params_shape = features_shape = noise_shape = shape

    @property
    def alphabet(self) -> int:
        """2: in play a number is a bit."""
        return 2

    @property
    def dtype(self) -> torch.dtype:
        """Real numbers, also in play, where they are 0 or 1."""
        return torch.float32

    def rule(self) -> str:
        return (
            f"a message is {self.size} bits in play; in training each is a real number between 0 and 1, the logistic "
            f"function of the network's output plus normal noise of standard deviation {self.noise:g}"
        )

    def space(self) -> spaces.Box:
        return spaces.Box(0.0, 1.0, self.shape, np.float32)

    def draw_noise(self, params: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Standard normal noise of the shape of params [..., size], float32."""
        return torch.empty(params.shape, device=params.device).normal_(generator=generator)

    def sample_with(self, params: Tensor, noise: Tensor) -> Tensor:
        """params and noise [..., size] -> [..., size] in (0, 1), float32 or wider; differentiable in params."""
        return (at_least_float32(params) + self.noise * noise).sigmoid()

    def sample(self, params: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return self.sample_with(params, self.draw_noise(params, generator))

    def mode(self, params: Tensor) -> Tensor:
        """The bits: [..., size] float32, 0 or 1."""
        return (params > 0).float()

    def log_prob(self, params: Tensor, messages: Tensor) -> Tensor:
        """Log-density (nats) of the logistic-normal distribution, summed over the numbers; 0 without noise."""
        if self.noise == 0:
            return params.new_zeros(params.shape[:-1])
        x = messages.clamp(LEAST, 1 - 1e-7)
        z = (x.logit() - params) / self.noise
        each = -0.5 * z.square() - math.log(self.noise) - 0.5 * math.log(2 * math.pi) - (x * (1 - x)).log()
        return each.sum(-1)

    def probabilities(self, params: Tensor) -> Tensor:
        """That a number is below one half in training, or above: [..., size, 2]."""
        high = self._high(params)
        return torch.stack([1 - high, high], -1)

    def entropy(self, params: Tensor) -> Tensor:
        """Of the bits that training's noise would make of the output, [...] nats; 0 without noise."""
        if self.noise == 0:
            return params.new_zeros(params.shape[:-1])
        p = self.probabilities(params).clamp(min=LEAST)
        return -(p * p.log()).sum((-1, -2))

    def _high(self, params: Tensor) -> Tensor:
        """P(output + noise > 0)."""
        return torch.special.ndtr(params / self.noise) if self.noise else (params > 0).to(params.dtype)

    def soft(self, params: Tensor) -> Tensor:
        """What is said without noise: [..., size]."""
        return params.sigmoid()

    def straight_through(self, messages: Tensor, soft: Tensor | None) -> Tensor:
        """The message itself; `soft` is what the present sender says with the noise that was kept."""
        return messages if soft is None else soft

    def load(self, messages: Tensor) -> Tensor:
        """Every message counts as one symbol: [...] float32."""
        return torch.ones(messages.shape[:-1], device=messages.device)

    def expense(self, params: Tensor) -> Tensor:
        """The expected number of ones: [...]."""
        return self.probabilities(params)[..., 1].sum(-1)

    def spoken(self, messages: Tensor) -> Tensor:
        """All of them."""
        return torch.ones(messages.shape[:-1], dtype=torch.bool, device=messages.device)

    def as_symbols(self, messages: Tensor) -> Tensor:
        """The bits: [..., size] int64."""
        return (messages > 0.5).long()

    def from_symbols(self, symbols: Tensor) -> Tensor:
        """As in play: bits [..., size] -> [..., size] float32."""
        return symbols.float()

    def corrupt(self, messages: Tensor, noise: float, generator: torch.Generator | None = None) -> Tensor:
        """Each number x becomes 1 - x with probability `noise`: a bit flips."""
        flips = torch.rand(messages.shape, generator=generator, device=messages.device) < noise
        return torch.where(flips, 1.0 - messages, messages)

    def transmitted_again(self, said: Tensor, sent: Tensor, heard: Tensor) -> Tensor:
        """What is heard of `said` where `heard` was heard of `sent`: a bit that flipped does so again."""
        return torch.where(heard != sent, 1.0 - said, said)
