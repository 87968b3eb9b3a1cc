"""The kinds of message by the names that a config gives them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from popcomm.channels.messages import MessageKind, Symbols, Vectors
from popcomm.channels.relaxed import Dru
from popcomm.channels.words import Words
from popcomm.references import made

MESSAGE_KINDS: dict[str, type] = {"dru": Dru, "symbols": Symbols, "vectors": Vectors, "words": Words}


def message_kind(value: MessageKind | dict[str, Any] | None) -> MessageKind | None:
    """A kind of message from its config mapping, e.g. {"kind": "symbols", "vocab_size": 64, "length": 5}.

    The kind may also be "module:Class", a class of the user's own with MessageKind's methods. Symbols with `relaxed`
    become RelaxedSymbols.

    Raises:
        UserError: no such kind, or arguments that do not fit it.
    """
    kind = None if value is None else made("communication.messages", value, MESSAGE_KINDS, "sample")
    return kind.on_simplex() if isinstance(kind, Symbols) and kind.relaxed else kind


def voiced(kind: MessageKind, messages: Tensor) -> Tensor:
    """Which messages count where symbols are counted: those that are transmitted, and silence where it is a symbol.

    Silence is one in a lexicon (0); that of words without a lexicon would pass for a word of zeros.

    Args:
        kind: with an alphabet.
        messages: [..., *message shape].

    Returns:
        [...] bool.
    """
    spoken = kind.spoken(messages)
    return torch.ones_like(spoken) if isinstance(kind, Words) and kind.vocab is not None else spoken


def can_be_balanced(kind: MessageKind | None) -> bool:
    """Whether how often every symbol is used can be told from a network's output, and changed by it.

    Not of vectors and bits of words, nor of bits without noise, which are all or nothing.
    """
    if isinstance(kind, Words):
        return kind.vocab is not None
    return hasattr(kind, "probabilities") and not (isinstance(kind, Dru) and not kind.noise)
