"""Words: binary messages of c11np. A bit string is a word if few enough and many enough of its bits are on."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

from popcomm.channels.words.codes import pack, passes, rank, uniform_words, unpack, unrank, words_dtype
from popcomm.channels.words.distributions import BitsDistribution, LexiconDistribution
from popcomm.checks import true_or_false, whole
from popcomm.errors import UserError
from popcomm.theory.gate import check_gate, word_count


@dataclass(frozen=True)
class Words:
    """Binary words of `bits` bits, `min_on` to `max_on` of them on, or silence.

    A message is one packed integer (see codes.py); 0 is silence, and never a word. What a sender draws that does
    not pass the gate is discarded: that is silence too. Bits are drawn independently, so how often a sender is heard
    depends on how many of its bits are on. Fair bits pass the gate of 32 bits with 7 to 9 on in 0.98 % of cases; bits
    that are on with probability 1/4, which is what a network that puts out zeros means here, in 45.9 %, the best that
    equal independent bits can do. The speak gate, one more number of the network, lets it be silent without unlearning
    its word. Log-probabilities and entropies are those of what is transmitted: of the bits that are drawn the entropy
    is greatest where next to nothing passes, and a bonus on it would push senders into silence; this one does not.

    With `vocab`, the sender chooses from a lexicon of so many words instead, or silence (class 0), and there is no
    speak gate beside. The lexicon is fixed by the gate and `vocab`: the words whose numbers (`codes.rank`) stand
    in the middle of `vocab` equal parts of all, in the order of their packed values.

    Raises:
        UserError: no gate (`popcomm.theory.gate.check_gate`), or a vocab that is not in 1 ... |W|.
    """

    bits: int = 32
    min_on: int = 7
    max_on: int = 9
    vocab: int | None = None
    speak_gate: bool = True
    kind: ClassVar[str] = "words"
    gradients: ClassVar[tuple[str, ...]] = ("straight_through", "reinforce")

    def __post_init__(self) -> None:
        check_gate(self.bits, self.min_on, self.max_on)
        true_or_false("messages.speak_gate", self.speak_gate)
        if self.vocab is not None and whole("messages.vocab", self.vocab, 1) > self.count:
            raise UserError(
                f"messages.vocab is {self.vocab}, and must be at most {self.count}, the number of words of {self.bits} "
                f"bits with {self.min_on} to {self.max_on} on"
            )

    @property
    def count(self) -> int:
        """|W|, how many words there are; the lexicon is a part of them."""
        return word_count(self.bits, self.min_on, self.max_on)

    @property
    def shape(self) -> tuple[int, ...]:
        """(): a word is one packed number."""
        return ()

    @property
    def dtype(self) -> torch.dtype:
        """int32 up to 32 bits, int64 above."""
        return words_dtype(self.bits)

    @property
    def params_shape(self) -> tuple[int, ...]:
        """Bits, then the speak gate if there is one; with a lexicon, silence and its words."""
        return self._distribution.params_shape

    @property
    def features_shape(self) -> tuple[int, ...]:
        """The bits, and 1 if anything was said."""
        return (self.bits + 1,)

    @property
    def alphabet(self) -> int:
        """2 without a lexicon: the symbols are bits; else its words and silence."""
        return 2 if self.vocab is None else self.vocab + 1

    @cached_property
    def _distribution(self) -> BitsDistribution | LexiconDistribution:
        if self.vocab is None:
            return BitsDistribution(self.bits, self.min_on, self.max_on, self.speak_gate)
        return LexiconDistribution(self.lexicon, self.bits)

    @cached_property
    def lexicon(self) -> Tensor:
        """[vocab] packed words, ascending as signed numbers; all words of the gate's size are too many to list here.

        Raises:
            UserError: there is no lexicon.
        """
        if self.vocab is None:
            raise UserError("messages.vocab is None: without it words have no lexicon")
        part, rest = divmod(self.count, self.vocab)
        place = np.arange(self.vocab, dtype=np.uint64)
        # floor(i count / vocab) without numbers above 64 bits, to the middle of the part.
        ranks = place * np.uint64(part) + place * np.uint64(rest) // np.uint64(self.vocab) + np.uint64(part // 2)
        return torch.from_numpy(np.sort(unrank(ranks, self.bits, self.min_on, self.max_on)))

    def rule(self) -> str:
        gate = f"{self.bits} bits with {self._gate} on"
        if self.vocab is not None:
            return (
                f"a message is silence or one of {self.vocab:,} words of {gate} "
                f"({math.log2(self.vocab + 1):.1f} bits at most); silence costs nothing, a word 1"
            )
        return (
            f"a message is silence or a word of {gate} ({self.count:,} words, {math.log2(self.count + 1):.1f} bits at "
            "most); the gate discards anything else; silence costs nothing, a word 1"
        )

    @property
    def _gate(self) -> str:
        return str(self.min_on) if self.min_on == self.max_on else f"{self.min_on} to {self.max_on}"

    def space(self) -> spaces.MultiDiscrete | spaces.Discrete:
        """What is chosen: [bits] twos, and one more for the speak gate if there is one; or the index in the lexicon."""
        if self.vocab is not None:
            return spaces.Discrete(self.vocab + 1)
        return spaces.MultiDiscrete(np.full(self.bits + self.speak_gate, 2, dtype=np.int64))

    def from_symbols(self, symbols: Tensor) -> Tensor:
        """The inverse of `as_symbols`: [..., bits] or [..., 1] -> packed words [...]."""
        return pack(symbols) if self.vocab is None else self.to_word(symbols.squeeze(-1))

    def chosen(self, choices: NDArray[Any]) -> NDArray[Any]:
        """Choices of `space` [..., bits (+ 1)] or [...] -> the messages [...]; what is no word becomes silence."""
        if self.vocab is not None:
            return self.to_word(torch.from_numpy(np.asarray(choices, np.int64))).numpy()
        words = pack(choices[..., : self.bits])
        heard = passes(words, self.min_on, self.max_on)
        return np.where(heard & choices[..., -1].astype(bool) if self.speak_gate else heard, words, words.dtype.type(0))

    def sample(self, params: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """params [..., *params_shape] -> packed words [...], 0 where nothing is transmitted."""
        return self._distribution.sample(params, generator)

    def mode(self, params: Tensor) -> Tensor:
        """What is transmitted likeliest, which for independent bits that are not sure yet is silence."""
        return self._distribution.mode(params)

    def log_prob(self, params: Tensor, messages: Tensor) -> Tensor:
        """Of what is transmitted, silence included: [...] nats."""
        return self._distribution.log_prob(params, messages)

    def entropy(self, params: Tensor) -> Tensor:
        """Of what is transmitted, silence included, exact: [...] nats."""
        return self._distribution.entropy(params)

    def probabilities(self, params: Tensor) -> Tensor:
        """Of silence and the words of the lexicon: [..., 1, vocab + 1].

        Raises:
            UserError: there is no lexicon.
        """
        self._check_lexicon()
        return params.softmax(-1).unsqueeze(-2)

    def log_drawn(self, params: Tensor) -> Tensor:
        """Log-probabilities (nats) of silence and the words of the lexicon: [..., 1, vocab + 1].

        Raises:
            UserError: there is no lexicon.
        """
        self._check_lexicon()
        return params.log_softmax(-1).unsqueeze(-2)

    def _check_lexicon(self) -> None:
        if self.vocab is None:
            raise UserError("messages.vocab is None: words without a lexicon are too many to list their probabilities")

    def soft(self, params: Tensor) -> Tensor:
        """[..., bits + 1]: probabilities of the bits, and that of transmitting a word."""
        return self._distribution.soft(params)

    def straight_through(self, messages: Tensor, soft: Tensor | None) -> Tensor:
        """The bits as 0 or 1, and 1 if anything was said: [..., bits + 1]; gradient of `soft`."""
        dtype = torch.float32 if soft is None else soft.dtype
        said = (messages != 0).unsqueeze(-1)
        hard = torch.cat([unpack(messages, self.bits).to(dtype), said.to(dtype)], -1)
        return hard if soft is None else hard + soft - soft.detach()

    def load(self, messages: Tensor) -> Tensor:
        """1 for a word, 0 for silence."""
        return self.spoken(messages).float()

    def expense(self, params: Tensor) -> Tensor:
        """The probability that a word is transmitted: [...]."""
        return self.soft(params)[..., -1]

    def spoken(self, messages: Tensor) -> Tensor:
        """All but silence."""
        return messages != 0

    def as_symbols(self, messages: Tensor) -> Tensor:
        """Without a lexicon the bits [..., bits]; with one the index in it, 0 for silence: [..., 1]."""
        if self.vocab is None:
            return unpack(messages, self.bits).long()
        return self.to_index(messages).unsqueeze(-1)

    def corrupt(self, messages: Tensor, noise: float, generator: torch.Generator | None = None) -> Tensor:
        """Each bit of a word flips with probability `noise`; what then is no word (of the lexicon) is lost: 0."""
        flips = torch.rand(*messages.shape, self.bits, generator=generator, device=messages.device) < noise
        return self.gated(torch.where(messages != 0, messages ^ pack(flips), 0))

    def gated(self, messages: Tensor) -> Tensor:
        """The messages that are words, of the lexicon if there is one; 0 for the others."""
        real = passes(messages, self.min_on, self.max_on) if self.vocab is None else self.to_index(messages) > 0
        return torch.where(real, messages, 0)

    def to_index(self, messages: Tensor) -> Tensor:
        """Where words [...] stand in the lexicon, from 1: [...] int64; 0 for silence and what is not in it."""
        return self._lexicon_distribution.to_index(messages)

    def to_word(self, index: Tensor) -> Tensor:
        """The inverse of `to_index`: [...] int64, 0 to vocab -> packed words [...]."""
        return self._lexicon_distribution.to_word(index)

    def rank(self, words: NDArray[Any]) -> NDArray[Any]:
        """The number of each word [...] among all words of the gate: [...] uint64, 0 ... count - 1."""
        return rank(words, self.bits, self.min_on, self.max_on)

    def unrank(self, ranks: NDArray[Any]) -> NDArray[Any]:
        """The inverse of `rank`: [...] -> packed words [...]."""
        return unrank(ranks, self.bits, self.min_on, self.max_on)

    def uniform(self, rng: np.random.Generator, count: int) -> NDArray[Any]:
        """[count] packed words, uniform over the lexicon if there is one and else over all words."""
        if self.vocab is None:
            return uniform_words(rng, count, self.bits, self.min_on, self.max_on)
        return self.lexicon.numpy()[rng.integers(0, self.vocab, count)]

    @property
    def _lexicon_distribution(self) -> LexiconDistribution:
        """Raises UserError where there is none."""
        distribution = self._distribution
        return (
            distribution
            if isinstance(distribution, LexiconDistribution)
            else LexiconDistribution(self.lexicon, self.bits)
        )
