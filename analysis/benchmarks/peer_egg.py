"""EGG's reconstruction game: its wrappers of a GRU speaker and listener, trained by a plain loop around its games."""

from __future__ import annotations

from typing import Any

import torch
from popcomm.analysis.benchmarks.tally import Contender, Tally, calls_of
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot

ATTRIBUTES, VALUES = 2, 10
VOCABULARY, LENGTH = 50, 2
HIDDEN, EMBEDDING = 128, 32
BATCHES = 8  # of an iteration


class _Speaker(nn.Module):
    """A meaning -> the first hidden state of EGG's GRU."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(ATTRIBUTES * VALUES, HIDDEN)

    def forward(self, meaning: Tensor, aux_input: Any = None) -> Tensor:
        return self.layer(meaning)


class _Listener(nn.Module):
    """The last hidden state -> a guess of every attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(HIDDEN, ATTRIBUTES * VALUES)

    def forward(self, heard: Tensor, receiver_input: Any = None, aux_input: Any = None) -> Tensor:
        return self.layer(heard)


def _loss(sender_input: Tensor, message: Any, receiver_input: Any, output: Tensor, labels: Tensor, aux_input: Any):  # type: ignore
    """EGG's signature: the cross-entropy of the attributes, [M], and what is right."""
    guesses = output.view(-1, ATTRIBUTES, VALUES)
    each = cross_entropy(guesses.transpose(1, 2), labels, reduction="none")
    return each.sum(1), {"acc": (guesses.argmax(-1) == labels).all(1).float()}


def game(mode: str) -> nn.Module:
    """mode: "straight-through" (Gumbel-Softmax) or "Reinforce" (listeners by gradient descent, a mean baseline)."""
    from egg import core

    sizes: dict[str, Any] = {"vocab_size": VOCABULARY, "embed_dim": EMBEDDING, "hidden_size": HIDDEN, "cell": "gru"}
    if mode == "straight-through":
        speaker = core.RnnSenderGS(_Speaker(), max_len=LENGTH, temperature=1.0, straight_through=True, **sizes)
        return core.SenderReceiverRnnGS(speaker, core.RnnReceiverGS(_Listener(), **sizes), _loss)
    speaker = core.RnnSenderReinforce(_Speaker(), max_len=LENGTH, **sizes)
    listener = core.RnnReceiverDeterministic(_Listener(), **sizes)
    return core.SenderReceiverRnnReinforce(speaker, listener, _loss, sender_entropy_coeff=0.1)


class Game:
    """The game and its optimizer. Batches of meanings are drawn at random; work is counted in messages.

    Attributes:
        accuracy: share of meanings understood in the last iteration: words as in training, the likeliest answers.
    """

    def __init__(self, mode: str, batch: int) -> None:
        torch.manual_seed(0)
        self.batch, self.played, self.accuracy = batch, game(mode), 0.0
        self.optimizer = torch.optim.Adam(self.played.parameters(), lr=1e-3)

    def iterate(self) -> int:
        """BATCHES updates; returns their messages."""
        right = []
        for _ in range(BATCHES):
            labels = torch.randint(VALUES, (self.batch, ATTRIBUTES))
            loss, told = self.played(one_hot(labels, VALUES).flatten(1).float(), labels)
            self.optimizer.zero_grad()
            loss.mean().backward()
            self.optimizer.step()
            right.append(told.aux["acc"].mean())
        self.accuracy = float(torch.stack(right).mean())
        return BATCHES * self.batch

    def contender(self) -> Contender:
        """The game as it is measured."""

        def watch(tally: Tally) -> Any:
            def count(meanings: Tensor, *_: Any) -> None:
                tally.rows += len(meanings)

            return calls_of(self.played, "forward", count)

        return Contender(self.iterate, watch)
