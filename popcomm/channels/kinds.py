"""The kinds of message by the names that a config gives them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from popcomm.channels import ending
from popcomm.channels.messages import MessageKind, Symbols, Vectors, reparameterised
from popcomm.channels.relaxed import Dru
from popcomm.channels.words import Words
from popcomm.errors import UserError, unknown
from popcomm.references import made

MESSAGE_KINDS: dict[str, type] = {"dru": Dru, "symbols": Symbols, "vectors": Vectors, "words": Words}

# How senders can learn, and what a kind of message must have for it beside the methods of every MessageKind.
GRADIENTS: Mapping[str, tuple[str, ...]] = {
    # From their receivers' losses, through another kind that is said in training: `on_simplex()` gives it, or it is
    # that kind itself, which then is learned "through".
    "relaxed": ("on_simplex",),
    # From their receivers' losses, through what was drawn: `straight_through(messages, soft)` with `soft(params)`.
    "straight_through": (),
    # From their receivers' losses, through the message itself, made anew by the present sender with the noise of then.
    "through": ("noise_shape", "draw_noise", "sample_with"),
    # As actions: `log_prob(params, messages)`.
    "reinforce": (),
    # Not at all.
    "none": (),
}
# What a channel, an agent and a learner ask of every kind.
METHODS = (
    "kind", "shape", "params_shape", "features_shape", "alphabet", "dtype", "rule", "space", "sample", "mode",
    "log_prob", "entropy", "soft", "straight_through", "load", "spoken", "as_symbols", "corrupt",
)  # fmt: skip


def message_kind(value: MessageKind | dict[str, Any] | None) -> MessageKind | None:
    """A kind of message from its config mapping, e.g. {"kind": "symbols", "vocab_size": 64, "length": 5}.

    The kind may also be "module:Class", a class of the user's own with MessageKind's methods. Symbols with `relaxed`
    become RelaxedSymbols.

    Raises:
        UserError: no such kind, arguments that do not fit it, or one that lacks what every kind must have.
    """
    if value is None:
        return None
    kind = made("communication.messages", value, MESSAGE_KINDS, "sample")
    for method in METHODS:
        if not hasattr(kind, method):
            raise UserError(f"{_key(kind)} has no '{method}'; popcomm.channels.MessageKind says what it must give")
    return kind.on_simplex() if isinstance(kind, Symbols) and kind.relaxed else kind


def _key(kind: object) -> str:
    return f"communication.messages: the kind '{getattr(kind, 'kind', type(kind).__name__)}'"


def gradients_of(kind: object) -> tuple[str, ...]:
    """How a kind of message can be learned with, "none" among it, in its own order.

    Raises:
        UserError: it knows a gradient that does not exist, or lacks what one asks for.
    """
    known = tuple(getattr(kind, "gradients", ()))
    for gradient in known:
        if gradient not in GRADIENTS:
            raise unknown(f"{_key(kind)}: in gradients, the name", gradient, GRADIENTS)
        itself = gradient == "relaxed" and reparameterised(kind)
        for method in () if itself else GRADIENTS[gradient]:
            if not hasattr(kind, method):
                raise UserError(f"{_key(kind)} has no '{method}', which '{gradient}' in its gradients needs")
    return known if "none" in known else (*known, "none")


def usual_gradient(kind: object) -> str:
    """How a kind is learned with where nobody says: the first that it knows, and "relaxed" only for want of another."""
    known = getattr(kind, "gradients", ())
    return next((name for name in known if name != "relaxed"), known[0] if known else "none")


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


def counted(kind: MessageKind, messages: Tensor) -> Tensor:
    """Messages as symbols for statistics, [..., length] int64: -1, which counts nowhere, for what was not sent."""
    symbols = kind.as_symbols(messages)
    return ending.counted(symbols) if getattr(kind, "ends", False) else symbols


def told_apart(kind: MessageKind) -> int | None:
    """How many symbols a message has, 0 of a number; None: there are no symbols, or too many messages for an int64."""
    if kind.alphabet is None:
        return None
    length = kind.as_symbols(torch.zeros(1, *kind.shape, dtype=kind.dtype)).shape[-1] if kind.shape else 0
    return length if kind.alphabet**length <= 2**62 else None


def can_be_balanced(kind: MessageKind | None) -> bool:
    """Whether how often every symbol is used can be told from a network's output, and changed by it.

    Not of vectors and bits of words, nor of bits without noise, which are all or nothing.
    """
    if isinstance(kind, Words):
        return kind.vocab is not None
    return hasattr(kind, "probabilities") and not (isinstance(kind, Dru) and not kind.noise)
