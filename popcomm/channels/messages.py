"""What passes between agents: what every kind of message gives, and symbols, the usual one.

A message kind turns a network's output (`params`) into messages and back into gradients. Others are in vectors.py and
in words/; relaxed.py has those that are real in training and discrete in play.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from gymnasium import spaces
from torch import Tensor

from popcomm.channels import ending, priced
from popcomm.channels.relaxed import NOISE, RelaxedSymbols, not_blank
from popcomm.channels.sampling import sample_categorical
from popcomm.channels.vectors import Vectors
from popcomm.checks import positive, true_or_false, whole
from popcomm.errors import UserError

__all__ = ["MessageKind", "Symbols", "Vectors", "likeliest", "reparameterised", "told"]


class MessageKind(Protocol):
    """What a channel, an agent and a learner need to know of a kind of message.

    Leading axes `...` are free: [B, N] in worlds, [P, R] in networks, with T anywhere in front.

    One of your own is learned with as `gradients` says: names of `popcomm.channels.kinds.GRADIENTS`, where each says
    what it asks of a kind. The first is taken where a config leaves it open ("relaxed" only where there is no other).

    Optional, of kinds that are reparameterised: `noise_shape`, `draw_noise(params, generator) -> noise`,
    `sample_with(params, noise) -> messages`, differentiable in params, and `transmitted_again(said, sent, heard)`: what
    a noisy channel makes of `said` that made `heard` of `sent`. The trainer keeps the noise of such messages, and hands
    `sample_with` of the present parameters to `straight_through` as `soft`. Of kinds with an alphabet:
    `probabilities(params) -> [..., positions, alphabet]` of the symbols at every position. Of those whose `ends` is
    True, messages that may end early, `share(params) -> [..., positions]`, how likely each is sent. Of any:
    `expense(params) -> [...]`, differentiable, what agents that are to be brief make small (without it: the sum of the
    absolute values of params); beside it `soft_and_expense(params)`, both of which come cheaper together, or None where
    they do not. `always_drawn`, where True, says that messages are drawn even by those who explore nothing.
    """

    kind: ClassVar[str]
    gradients: ClassVar[tuple[str, ...]]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one message."""
        ...

    @property
    def params_shape(self) -> tuple[int, ...]:
        """Shape of what a network puts out for one message."""
        ...

    @property
    def features_shape(self) -> tuple[int, ...]:
        """Shape of the float form of one message, which listeners read."""
        ...

    @property
    def alphabet(self) -> int | None:
        """How many symbols `as_symbols` knows; None for a kind that has none."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """Of messages."""
        ...

    def rule(self) -> str:
        """One sentence that says what a message is; printed when training starts."""
        ...

    def space(self) -> spaces.Space:
        """What is chosen to say a message, where agents speak through an action space."""
        ...

    def sample(self, params: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """params [..., *params_shape] -> messages [..., *shape]."""
        ...

    def mode(self, params: Tensor) -> Tensor:
        """The likeliest messages, shaped as samples."""
        ...

    def log_prob(self, params: Tensor, messages: Tensor) -> Tensor:
        """Log-probability (nats) of whole messages: [...]."""
        ...

    def entropy(self, params: Tensor) -> Tensor:
        """Entropy (nats) of the distribution of whole messages: [...]."""
        ...

    def soft(self, params: Tensor) -> Tensor:
        """The differentiable expectation [..., *features_shape] that carries gradients to the sender."""
        ...

    def straight_through(self, messages: Tensor, soft: Tensor | None) -> Tensor:
        """Float form [..., *features_shape] of stored messages; its gradient, if `soft` is given, is that of `soft`."""
        ...

    def load(self, messages: Tensor) -> Tensor:
        """What is charged for by `message_cost`: [...] float32."""
        ...

    def spoken(self, messages: Tensor) -> Tensor:
        """Which of them are transmitted at all: [...] bool."""
        ...

    def as_symbols(self, messages: Tensor) -> Tensor:
        """The messages as strings of symbols 0 ... alphabet - 1, for statistics and pictures: [..., length] int64."""
        ...

    def corrupt(self, messages: Tensor, noise: float, generator: torch.Generator | None = None) -> Tensor:
        """The messages as transmitted by a channel with that much noise."""
        ...


def reparameterised(kind: object) -> bool:
    """Whether messages of that kind are made anew from kept noise when they are learned from."""
    return getattr(kind, "noise_shape", None) is not None


def likeliest(kind: Any, params: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """The messages of those who explore nothing: the mode, or a sample where no message may go out without its noise.

    Args:
        kind: a MessageKind.
        params: [..., *params_shape].
        generator: source of the noise; torch's default one if None.

    Returns:
        [..., *shape].
    """
    return kind.sample(params, generator) if getattr(kind, "always_drawn", False) else kind.mode(params)


def told(kind: object, said: Tensor | None) -> dict[str, Tensor]:
    """{"said": said} where `entropy`, `share` and `expense` of a kind want to know what was said.

    That is where messages end early and every symbol's distribution is that given those before it, as of networks that
    speak symbol by symbol (`AgentOutput.said`): then it is known, and no matter of chance, how far they went.
    """
    return {"said": said} if said is not None and getattr(kind, "ends", False) else {}


@dataclass(frozen=True)
class Symbols:
    """Exactly `length` symbols out of `vocab_size`; symbol 0 is the blank. With `end_symbol` up to `length`: 0 ends it.

    Without, every message has `length` symbols, all of which the listener sees. The blank is a symbol like the others
    to the networks; it only is the one that `message_cost` does not charge for.

    With `end_symbol` symbol 0 is the end and no blank: of V symbols V - 1 say something. What follows the first end is
    not sent: no listener hears it, and it costs, counts and is learned as little as if it were not there. In messages
    it stands as 0, in their float form as zeros. The end itself is heard, is part of what was said, and costs nothing.
    The gradient that symbols carry ("straight_through") tells the sender of an end what it was worth as a symbol, and
    not what would have followed; that of "relaxed" tells both, for half an end leaves half of what follows.

    Args:
        vocab_size: V, how many there are to choose from, the end among them.
        length: L, how many make a message; with an end symbol at most.
        temperature: of the softmax that carries gradients to the sender.
        relaxed: in the trainer they are points of the simplex (`popcomm.channels.relaxed`); `message_kind` sees to it.
        noise: how loud the noise of relaxed ones is beside the logits; None: `popcomm.channels.relaxed.NOISE`.
        end_symbol: whether symbol 0 ends a message.

    Raises:
        UserError: fewer than two symbols, a length below one, a temperature or a noise that is not above 0, or a noise
            of symbols that are not relaxed.
    """

    vocab_size: int
    length: int
    temperature: float = 1.0
    relaxed: bool = False
    noise: float | None = None
    end_symbol: bool = False
    kind: ClassVar[str] = "symbols"
    gradients: ClassVar[tuple[str, ...]] = ("relaxed", "straight_through", "reinforce")

    def __post_init__(self) -> None:
        whole("messages.vocab_size", self.vocab_size, 2)
        whole("messages.length", self.length, 1)
        positive("messages.temperature", self.temperature)
        true_or_false("messages.relaxed", self.relaxed)
        true_or_false("messages.end_symbol", self.end_symbol)
        if self.noise is not None and not self.relaxed:
            raise UserError(f"messages.noise is {self.noise}, and only relaxed symbols have some: set messages.relaxed")
        if self.noise is not None:
            self.on_simplex()  # which says what is wrong with it

    def on_simplex(self) -> RelaxedSymbols:
        """The same symbols as points of the simplex."""
        noise = NOISE if self.noise is None else self.noise
        return RelaxedSymbols(self.vocab_size, self.length, self.temperature, noise, self.end_symbol)

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.length,)

    @property
    def params_shape(self) -> tuple[int, ...]:
        return (self.length, self.vocab_size)

    @property
    def features_shape(self) -> tuple[int, ...]:
        return self.params_shape

    @property
    def alphabet(self) -> int:
        return self.vocab_size

    @property
    def dtype(self) -> torch.dtype:
        return torch.int64

    @property
    def ends(self) -> bool:
        """Whether a message may end before its last position."""
        return self.end_symbol

    @property
    def count(self) -> int:
        """How many different messages there are."""
        return ending.count(self.vocab_size, self.length) if self.ends else self.vocab_size**self.length

    def rule(self) -> str:
        if self.ends:
            return (
                f"a message is up to {self.length} symbols out of {self.vocab_size} ({math.log2(self.count):.1f} bits "
                "at most); symbol 0 is the end, which costs nothing, and what follows it is not sent"
            )
        bits = self.length * math.log2(self.vocab_size)
        return (
            f"a message is exactly {self.length} symbols out of {self.vocab_size} ({bits:.1f} bits at most); "
            "no end symbol; symbol 0 is the blank, the only one that costs nothing"
        )

    def space(self) -> spaces.MultiDiscrete:
        return spaces.MultiDiscrete(np.full(self.length, self.vocab_size, dtype=np.int64))

    def sample(self, params: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """params [..., L, V] logits -> [..., L] int64."""
        return self.cut(sample_categorical(params, generator))

    def mode(self, params: Tensor) -> Tensor:
        """The likeliest symbol at each position. params [..., L, V] -> [..., L] int64."""
        return self.cut(params.argmax(-1))

    def cut(self, messages: Tensor) -> Tensor:
        """Without what is not sent, which stands as 0: [..., L] int64 -> the same."""
        return ending.cut(messages) if self.ends else messages

    def log_prob(self, params: Tensor, messages: Tensor) -> Tensor:
        """Sum over the positions that are sent. params [..., L, V], messages [..., L] -> [...]."""
        each = params.log_softmax(-1).gather(-1, messages.unsqueeze(-1)).squeeze(-1)
        return (torch.where(ending.sent(messages), each, 0.0) if self.ends else each).sum(-1)

    def share(self, params: Tensor, said: Tensor | None = None) -> Tensor:
        """How likely every position is sent; of what was `said` [..., L] (see `told`) whether it was: [..., L]."""
        if not self.ends:
            return torch.ones_like(params[..., 0])
        if said is not None:
            return ending.sent(said).to(params.dtype)
        return ending.reached(params.softmax(-1)[..., ending.END])

    def entropy(self, params: Tensor, said: Tensor | None = None) -> Tensor:
        """Of whole messages, as far as they are sent: [...]. said: see `told`."""
        log_p = params.log_softmax(-1)
        if self.ends:
            return ending.entropy(log_p, self.share(params, said))
        return -(log_p.exp() * log_p).sum((-1, -2))

    def probabilities(self, params: Tensor) -> Tensor:
        """[..., L, V]."""
        return params.softmax(-1)

    def log_drawn(self, params: Tensor) -> Tensor:
        """Log-probabilities (nats) with which symbols are drawn in training: [..., L, V]."""
        return params.log_softmax(-1)

    def soft(self, params: Tensor) -> Tensor:
        """Softmax at the kind's temperature (Jang 2017, eq. 2 without the noise: the stored sample has it)."""
        return (params / self.temperature).softmax(-1)

    def straight_through(self, messages: Tensor, soft: Tensor | None) -> Tensor:
        """One-hot of the stored symbols [..., L, V]; gradient of `soft` (straight-through, Bengio 2013).

        Zeros where nothing was sent, and no gradient.
        """
        hard = F.one_hot(messages, self.vocab_size).to(torch.float32 if soft is None else soft.dtype)
        real = hard if soft is None else hard + soft - soft.detach()
        return real * ending.sent(messages).unsqueeze(-1) if self.ends else real

    def load(self, messages: Tensor) -> Tensor:
        """Symbols that are sent, and neither the blank nor the end."""
        return (self.cut(messages) != 0).sum(-1).float()

    def expense(self, params: Tensor, said: Tensor | None = None) -> Tensor:
        """The expected number of symbols that are charged for. params [..., L, V] -> [...]. said: see `told`."""
        return (not_blank(params) * self.share(params, said)).sum(-1) if self.ends else not_blank(params).sum(-1)

    def soft_and_expense(self, params: Tensor) -> tuple[Tensor, Tensor] | None:
        """`soft` [..., L, V] and `expense` [...] of one softmax; None where they are not made of the same."""
        return None if self.ends or self.temperature != 1 else priced.soft_and_expense(params)

    def spoken(self, messages: Tensor) -> Tensor:
        """All of them: a message of blanks is one, too."""
        return torch.ones(messages.shape[:-1], dtype=torch.bool, device=messages.device)

    def as_symbols(self, messages: Tensor) -> Tensor:
        """As they are, with 0 for what is not sent."""
        return self.cut(messages)

    def corrupt(self, messages: Tensor, noise: float, generator: torch.Generator | None = None) -> Tensor:
        """Each symbol is replaced by a uniform one with probability `noise`.

        Where that is the end, what followed is lost; where the end is lost, the message ends after it.
        """
        uniform = torch.rand(messages.shape, generator=generator, device=messages.device)
        other = torch.randint(self.vocab_size, messages.shape, generator=generator, device=messages.device)
        if not self.ends:
            return torch.where(uniform < noise, other, messages)
        garbled = (uniform < noise) & ending.sent(messages)
        return self.cut(torch.where(garbled, other, self.cut(messages)))
