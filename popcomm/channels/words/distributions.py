"""Two distributions of binary words: independent bits behind a gate, and a choice of a lexicon; both may be silent."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from popcomm.channels.sampling import sample_categorical
from popcomm.channels.words.codes import pack, passes, unpack
from popcomm.channels.words.gate_sums import GateSums, gate_sums

# Probabilities of silence below this count as this, so that its log stays finite; float64 ends at 2e-308.
RAREST = 1e-300


class BitsDistribution:
    """The sender decides to speak, draws every bit by itself, and the gate discards what is no word: that is silence.

    Its params are [..., bits], logits of the bits less `offset`, and with a speak gate one more, the logit of speaking.
    The offset makes zeros mean bits that are on with the gate's middle share, (min_on + max_on) / (2 bits).
    Probabilities are those of what is *transmitted*: a word's is P(speak) times its bits', silence's is
    1 - P(speak) P(pass). P(pass) is a sum over the distribution of the count of on bits, a Poisson binomial.
    """

    def __init__(self, bits: int, min_on: int, max_on: int, speak_gate: bool) -> None:
        self.bits, self.min_on, self.max_on, self.speak_gate = bits, min_on, max_on, speak_gate
        # A gate that only all bits together pass would have an infinite offset.
        share = min((min_on + max_on) / (2 * bits), 1 - 0.5 / bits)
        self.offset = math.log(share / (1 - share))
        self.params_shape = (bits + speak_gate,)

    def sample(self, params: Tensor, generator: torch.Generator | None) -> Tensor:
        drawn = torch.rand(params.shape, generator=generator, device=params.device) < self._shifted(params).sigmoid()
        words = pack(drawn[..., : self.bits])
        said = passes(words, self.min_on, self.max_on)
        return words * (said & drawn[..., -1] if self.speak_gate else said)

    def mode(self, params: Tensor) -> Tensor:
        """Silence, or the likeliest word where that is at least as likely; its w on bits have the w largest logits."""
        bits, speak = self._split(params)
        ordered, places = bits.sort(dim=-1, descending=True)
        gain, most = ordered.cumsum(-1)[..., self.min_on - 1 : self.max_on].max(-1)
        on = torch.arange(self.bits, device=bits.device) < (most + self.min_on).unsqueeze(-1)
        word = pack(torch.zeros_like(on).scatter(-1, places, on))
        likely = gain - F.softplus(bits).sum(-1)
        if speak is not None:
            likely = likely + F.logsigmoid(speak)
        return word * (likely >= self._log_silence(bits, speak))

    def log_prob(self, params: Tensor, messages: Tensor) -> Tensor:
        bits, speak = self._split(params)
        said = (unpack(messages, self.bits).to(bits.dtype) * bits - F.softplus(bits)).sum(-1)
        if speak is not None:
            said = said + F.logsigmoid(speak)
        return torch.where(messages != 0, said, self._log_silence(bits, speak))

    def entropy(self, params: Tensor) -> Tensor:
        """-P0 log P0 - the sum over words of p log p, exact."""
        bits, speak = self._split(params)
        sums = self._sums(bits, information=True)
        silence = self._silence(sums, speak)
        result = -silence * silence.clamp(min=RAREST).log()
        if speak is None:
            result = result - sums.information
        else:
            speak = speak.double()
            result = result - speak.sigmoid() * (F.logsigmoid(speak) * sums.passes + sums.information)
        return result.to(bits.dtype)

    def soft(self, params: Tensor) -> Tensor:
        """[..., bits + 1]: the bits' probabilities, and that of transmitting a word at all."""
        bits, speak = self._split(params)
        passes = self._sums(bits, information=False).passes.to(bits.dtype)
        transmits = passes if speak is None else passes * speak.sigmoid()
        return torch.cat([bits.sigmoid(), transmits.unsqueeze(-1)], -1)

    def _shifted(self, params: Tensor) -> Tensor:
        """Logits of all that is drawn."""
        shift = torch.full(self.params_shape, self.offset, device=params.device)
        shift[self.bits :] = 0.0
        return params + shift

    def _split(self, params: Tensor) -> tuple[Tensor, Tensor | None]:
        """The logits of the bits [..., bits] and of speaking [...], at least float32."""
        logits = self._shifted(params)
        return logits[..., : self.bits], logits[..., -1] if self.speak_gate else None

    def _sums(self, bits: Tensor, information: bool) -> GateSums:
        # Only the gate makes silence without a speak gate, and bits that are sure of a word make it next to impossible.
        return gate_sums(bits if self.speak_gate else bits.double(), self.min_on, self.max_on, information)

    def _silence(self, sums: GateSums, speak: Tensor | None) -> Tensor:
        """P(nothing is transmitted), float64, as a sum of what is positive, so that small ones are right."""
        if speak is None:
            return sums.fails
        speak = speak.double()
        return (-speak).sigmoid() + speak.sigmoid() * sums.fails

    def _log_silence(self, bits: Tensor, speak: Tensor | None) -> Tensor:
        sums = self._sums(bits, information=False)
        return self._silence(sums, speak).clamp(min=RAREST).log().to(bits.dtype)


class LexiconDistribution:
    """A categorical distribution over silence (class 0) and V words. Its params are [..., V + 1] logits.

    Args:
        words: [V], packed and ascending (as signed numbers): class i + 1 is words[i].
        bits: of a word.
    """

    def __init__(self, words: Tensor, bits: int) -> None:
        self.words, self.bits = words, bits
        self.params_shape = (len(words) + 1,)
        self.classes = F.pad(words, (1, 0))
        self.features = torch.cat([unpack(self.classes, bits), self.classes.ne(0).unsqueeze(-1)], -1).float()

    def to_index(self, words: Tensor) -> Tensor:
        """Words [...] -> their classes [...] int64; 0 for silence and for what is not in the lexicon."""
        known = self.words.to(words.device)
        place = torch.searchsorted(known, words.contiguous()).clamp(max=len(known) - 1)
        return torch.where(known[place] == words, place + 1, 0)

    def to_word(self, index: Tensor) -> Tensor:
        """Classes [...] -> words [...]."""
        return self.classes.to(index.device)[index]

    def sample(self, params: Tensor, generator: torch.Generator | None) -> Tensor:
        return self.to_word(sample_categorical(params, generator))

    def mode(self, params: Tensor) -> Tensor:
        return self.to_word(params.argmax(-1))

    def log_prob(self, params: Tensor, messages: Tensor) -> Tensor:
        return params.log_softmax(-1).gather(-1, self.to_index(messages).unsqueeze(-1)).squeeze(-1)

    def entropy(self, params: Tensor) -> Tensor:
        log_p = params.log_softmax(-1)
        return -(log_p.exp() * log_p).sum(-1)

    def soft(self, params: Tensor) -> Tensor:
        """[..., bits + 1], the expectation of the bits that are transmitted and of a word being transmitted."""
        probabilities = params.softmax(-1)
        return probabilities @ self.features.to(params.device, probabilities.dtype)
