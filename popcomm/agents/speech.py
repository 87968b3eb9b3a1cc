"""Message heads: all symbols at once, or one symbol after another, each conditioned on those before it."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from popcomm.agents.message_encoder import lookup
from popcomm.agents.population import PopulationEmbedding, PopulationGRUCell, PopulationLinear, uniform
from popcomm.agents.start import start_message_head_
from popcomm.channels.ending import sent
from popcomm.channels.messages import MessageKind, Symbols
from popcomm.channels.sampling import sample_categorical
from popcomm.channels.vocabulary import closed
from popcomm.errors import UserError, unknown


class ParallelSpeech(nn.Module):
    """One linear layer gives the distribution of the whole message; its symbols are independent given the hidden state.

    The kind itself samples from such a distribution (`kind.sample`), so nothing is sampled here.

    Args:
        members: P.
        in_features: width of the hidden state that is put into words.
        kind: of the messages.
        generator: source of the initial weights; torch's default one if None.
        scale: root mean square of the hidden state at the start.
    """

    def __init__(
        self,
        members: int,
        in_features: int,
        kind: MessageKind,
        generator: torch.Generator | None = None,
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.kind = kind
        self.out = PopulationLinear(members, in_features, math.prod(kind.params_shape), generator=generator)
        start_message_head_(self.out, scale, generator)

    def forward(
        self,
        hidden: Tensor,
        said: Tensor | None = None,
        generator: torch.Generator | None = None,
        greedy: bool = False,
        open_symbols: int | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """hidden [P, R, in_features] -> params [P, R, *params_shape], and None: nothing was sampled.

        The other arguments are those of AutoregressiveSpeech, and change nothing.
        """
        return self.out(hidden).unflatten(-1, self.kind.params_shape), None


class AutoregressiveSpeech(nn.Module):
    """A GRU that says one symbol after another: p(m | h) = product over l of p(m_l | m_1 ... m_{l-1}, h).

    The GRU starts from a linear map of the hidden state and a learned start embedding; afterwards it is fed the
    embedding of the symbol said last. Symbols enter it as they were said: no gradient flows through the prefix.

    Args:
        members: P.
        in_features: width of the hidden state that is put into words.
        kind: Symbols.
        hidden: width of the GRU.
        embedding: width of the symbols' embeddings.
        generator: source of the initial weights; torch's default one if None.
        scale: root mean square of the hidden state at the start.

    Raises:
        UserError: a kind of message that has no symbols, or a width below one.
    """

    def __init__(
        self,
        members: int,
        in_features: int,
        kind: MessageKind,
        hidden: int = 64,
        embedding: int = 32,
        generator: torch.Generator | None = None,
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        if not isinstance(kind, Symbols):
            raise UserError(f"message_head 'autoregressive' speaks in symbols, and messages are {kind.kind}")
        for name, width in (("hidden", hidden), ("embedding", embedding)):
            if width < 1:
                raise UserError(f"the autoregressive message head has {name} = {width}, and it must be at least 1")
        self.kind: Symbols = kind
        self.length, vocab_size = kind.params_shape
        self.first = PopulationLinear(members, in_features, hidden, generator=generator)
        self.start = uniform(1.0, members, embedding, generator=generator)
        self.symbols = PopulationEmbedding(members, vocab_size, embedding, generator=generator)
        self.cell = PopulationGRUCell(members, embedding, hidden, generator=generator)
        self.out = PopulationLinear(members, hidden, vocab_size, generator=generator)
        # A GRU's state is half of what it was and half of what it is fed, first `start` with its variance of 1/3; both
        # come through layers that start uniform, with the variance 1 / (3 width).
        state = 0.5 * math.sqrt(scale**2 / 3 + embedding / (9 * hidden))
        start_message_head_(self.out, state, generator)

    def forward(
        self,
        hidden: Tensor,
        said: Tensor | None = None,
        generator: torch.Generator | None = None,
        greedy: bool = False,
        open_symbols: int | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The distribution of every symbol given those before it, and the message.

        Args:
            hidden: [P, R, in_features].
            said: [P, R, L] int64, a message whose distribution is wanted; None to say one.
            generator: source of the samples; torch's default one if None.
            greedy: take the likeliest symbol each time instead of a sample.
            open_symbols: how many symbols may be said, the first ones; None: all.

        Returns:
            logits [P, R, L, V] and the message [P, R, L] int64 (`said` itself where it is given). Logits of what
            follows an end are of no account.
        """
        state = self.first(hidden)
        if said is None:
            return self._speak(state, generator, greedy, open_symbols)
        return self._recite(state, said), said

    def _recite(self, state: Tensor, said: Tensor) -> Tensor:
        """Teacher forcing: embeddings and logits of all L positions in one product each, only the GRU in turn."""
        fed = self._fed(state)
        state = self.cell(self.start.unsqueeze(1), state)
        states = [state]
        for symbol in said[..., :-1].unbind(-1):
            state = self.cell.step(fed(symbol), state)
            states.append(state)
        return self.out(torch.stack(states, -2))

    def _fed(self, state: Tensor) -> Callable[[Tensor], Tensor]:
        """What makes of symbols [P, R] what the cell takes of them, [P, R, 3H]; state: [P, R, H].

        Of fewer symbols than rows its product is made in the table, once for all rows and positions.
        """
        if self.symbols.weight.size(1) > state.size(1):
            return lambda symbol: self.cell.fed(self.symbols(symbol))
        table = self.cell.fed(self.symbols.weight)
        return lambda symbol: lookup(table, symbol.unsqueeze(-1))

    def _speak(
        self, state: Tensor, generator: torch.Generator | None, greedy: bool, open_symbols: int | None
    ) -> tuple[Tensor, Tensor]:
        logits: list[Tensor] = []
        message: list[Tensor] = []
        look, fed = self._fed(state), self.cell.fed(self.start.unsqueeze(1))
        for _ in range(self.length):
            state = self.cell.step(fed, state)
            logits.append(self.out(state))
            # What was said is a fact without a gradient; noise in bfloat16 would be too coarse to sample with.
            now = closed(logits[-1].detach().float(), open_symbols)
            symbol = now.argmax(-1) if greedy else sample_categorical(now, generator)
            if self.kind.ends and message:  # nothing is said after an end, and nothing fed, as when it is told again
                symbol = symbol * sent(torch.stack([*message, symbol], -1))[..., -1]
            message.append(symbol)
            fed = look(symbol)
        return torch.stack(logits, -2), torch.stack(message, -1)


MESSAGE_HEADS = ("parallel", "autoregressive")


def message_head(
    name: str, members: int, in_features: int, kind: MessageKind, generator: torch.Generator | None = None
) -> ParallelSpeech | AutoregressiveSpeech:
    """The head of that name; a GRU is as wide as the hidden state it puts into words, up to 256.

    Raises:
        UserError: an unknown name, or one that does not go with the kind of message.
    """
    if name == "parallel":
        return ParallelSpeech(members, in_features, kind, generator)
    if name == "autoregressive":
        hidden = min(in_features, 256)
        return AutoregressiveSpeech(members, in_features, kind, hidden, min(hidden, 64), generator)
    raise unknown("agent_config.message_head", name, MESSAGE_HEADS)
