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

from popcomm.channels import ending
from popcomm.checks import not_negative, positive, whole

# Least probability of a symbol of a relaxed message, so that its logarithm stays finite.
LEAST = 1e-20
NOISE = 0.5


def at_least_float32(params: Tensor) -> Tensor:
    """What networks put out in bfloat16 is too coarse to be said with noise."""
    return params.to(torch.promote_types(params.dtype, torch.float32))


def not_blank(params: Tensor) -> Tensor:
    """How likely every symbol is another than 0, of logits [..., L, V]: [..., L]."""
    return 1 - (params[..., 0] - params.logsumexp(-1)).exp()


@dataclass(frozen=True)
class RelaxedSymbols:
    """`length` symbols out of `vocab_size`, each a point of the simplex in training; `Symbols(..., relaxed=True)`.

    In training a symbol is softmax((logits / noise + g) / temperature) with Gumbel noise g: the concrete distribution
    (Jang 2017, eq. 2; Maddison 2017, section 3) of the logits over the noise. In play it is the likeliest symbol,
    one-hot. A message is V numbers for each symbol, and as many of noise are kept beside it.

    With `end_symbol` symbol 0 ends a message, as in Symbols: a symbol that is half an end leaves half of all that
    follow (`popcomm.channels.ending.faded`), and in play nothing is left after one.

    Args:
        vocab_size: V.
        length: L.
        temperature: how soft a symbol is; towards 0 it is one-hot.
        noise: how loud the noise is beside the logits. Below 1 more of what little senders tell apart at the start
            comes through, and receivers begin to listen sooner (docs/learning_to_talk.md).
        end_symbol: whether symbol 0 ends a message.

    Raises:
        UserError: fewer than two symbols, a length below one, or a temperature or a noise that is not above 0.
    """

    vocab_size: int
    length: int
    temperature: float = 1.0
    noise: float = NOISE
    end_symbol: bool = False
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

    @property
    def ends(self) -> bool:
        """Whether a message may end before its last position."""
        return self.end_symbol

    @property
    def count(self) -> int:
        """How many different messages there are in play."""
        return ending.count(self.vocab_size, self.length) if self.ends else self.vocab_size**self.length

    def rule(self) -> str:
        bits = math.log2(self.count) if self.ends else self.length * math.log2(self.vocab_size)
        zero = "the end, after which nothing is sent, and" if self.ends else "the blank,"
        return (
            f"a message is {'up to ' * self.ends}{self.length} symbols out of {self.vocab_size} ({bits:.1f} bits at "
            f"most in play); in training each is a point of the simplex, with {self.noise:g} times Gumbel noise at "
            f"temperature {self.temperature:g}; symbol 0 is {zero} the only one that costs nothing"
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
        return self._sent((raised if self.temperature == 1 else raised / self.temperature).softmax(-1))

    def _sent(self, points: Tensor) -> Tensor:
        return ending.faded(points) if self.ends else points

    def sample(self, params: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return self.sample_with(params, self.draw_noise(params, generator))

    def mode(self, params: Tensor) -> Tensor:
        """The likeliest symbols, one-hot: [..., L, V] float32."""
        return self._sent(F.one_hot(params.argmax(-1), self.vocab_size).float())

    def log_prob(self, params: Tensor, messages: Tensor) -> Tensor:
        """Log-density on the simplex (Maddison 2017, eq. 10), summed over the L symbols: [...].

        Of messages that end, that of the points before they fade, each counted by how much of it is sent.
        """
        n, tau = self.vocab_size, self.temperature
        share: Tensor | float = 1.0
        if self.ends:
            messages, share = ending.whole(messages)
        log_x = messages.clamp(min=LEAST).log()
        location = params / self.noise
        each = (location - (tau + 1) * log_x).sum(-1) - n * (location - tau * log_x).logsumexp(-1)
        return ((each + math.lgamma(n) + (n - 1) * math.log(tau)) * share).sum(-1)

    def probabilities(self, params: Tensor) -> Tensor:
        """Of symbols drawn by the logits alone, as Symbols are: [..., L, V]."""
        return params.softmax(-1)

    def log_drawn(self, params: Tensor) -> Tensor:
        """Log-probabilities (nats) with which each symbol is the largest in training: [..., L, V]."""
        return (at_least_float32(params) / self.noise).log_softmax(-1)

    def share(self, params: Tensor) -> Tensor:
        """How likely every position is sent, by the logits alone: [..., L]."""
        if not self.ends:
            return torch.ones_like(params[..., 0])
        return ending.reached(params.softmax(-1)[..., ending.END])

    def entropy(self, params: Tensor) -> Tensor:
        """Of symbols drawn by the logits alone, as far as they are sent: [...] nats."""
        log_p = params.log_softmax(-1)
        if self.ends:
            return ending.entropy(log_p, self.share(params))
        return -(log_p.exp() * log_p).sum((-1, -2))

    def soft(self, params: Tensor) -> Tensor:
        """What is said without noise: [..., L, V]."""
        return self._sent((params / (self.noise * self.temperature)).softmax(-1))

    def straight_through(self, messages: Tensor, soft: Tensor | None) -> Tensor:
        """The message itself; `soft` is what the present sender says with the noise that was kept."""
        return messages if soft is None else soft

    def load(self, messages: Tensor) -> Tensor:
        """How much of the message is sent, and is neither the blank nor the end: [...] float32."""
        return messages[..., 1:].sum((-1, -2)) if self.ends else (1.0 - messages[..., 0]).sum(-1)

    def expense(self, params: Tensor) -> Tensor:
        """The expected number of symbols that are charged for, drawn by the logits alone: [...]."""
        return (not_blank(params) * self.share(params)).sum(-1) if self.ends else not_blank(params).sum(-1)

    def spoken(self, messages: Tensor) -> Tensor:
        """All of them."""
        return torch.ones(messages.shape[:-2], dtype=torch.bool, device=messages.device)

    def as_symbols(self, messages: Tensor) -> Tensor:
        """The largest of each symbol's numbers, and 0 for what is not sent: [..., L] int64."""
        return ending.cut(messages.argmax(-1)) if self.ends else messages.argmax(-1)

    def from_symbols(self, symbols: Tensor) -> Tensor:
        """As in play: [..., L] int64 -> one-hot [..., L, V] float32."""
        return self._sent(F.one_hot(symbols.long(), self.vocab_size).float())

    def corrupt(self, messages: Tensor, noise: float, generator: torch.Generator | None = None) -> Tensor:
        """Each symbol is replaced by a uniform one, one-hot, with probability `noise`.

        Of messages that end, as much of it comes as was sent of what it replaces, and nothing after an end.
        """
        shape = messages.shape[:-1]
        uniform = torch.rand(shape, generator=generator, device=messages.device)
        other = torch.randint(self.vocab_size, shape, generator=generator, device=messages.device)
        replaced, new = (uniform < noise).unsqueeze(-1), F.one_hot(other, self.vocab_size).float()
        if not self.ends:
            return torch.where(replaced, new, messages)
        return self._replaced(messages, replaced, new)

    def _replaced(self, messages: Tensor, replaced: Tensor, new: Tensor) -> Tensor:
        """messages and new symbols [..., L, V], and where they are put in, [..., L, 1] bool."""
        ends = (replaced & (new[..., :1] > 0)).squeeze(-1).long()
        lost = (ends.cumsum(-1) - ends > 0).unsqueeze(-1)
        there = torch.where(replaced, new * messages.sum(-1, keepdim=True), messages)
        return torch.where(lost, 0.0, there)

    def transmitted_again(self, said: Tensor, sent: Tensor, heard: Tensor) -> Tensor:
        """What is heard of `said` where `heard` was heard of `sent`: a symbol that was replaced is so again."""
        replaced = (heard != sent).any(-1, keepdim=True)
        if self.ends:
            return self._replaced(said, replaced, (heard > 0).to(said.dtype))
        return torch.where(replaced, heard.to(said.dtype), said)


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
