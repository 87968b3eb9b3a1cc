"""A vector that is put together of several: K linear encoders, a phase of each, and weights by which they are measured.

The message is m = sum over k of w_k cos(a_k) e_k, where the network's last layer gives encodings e_k [size] and phases
a_k (radians), and the weights w are positive and sum to one:

| measure | w |
| --- | --- |
| "random" | in training softmax(z) of normal noise z, drawn for every message; in play 1 / K |
| "learned" | softmax of K more outputs of the network |
| "top_1" | 1 for the largest of these outputs, 0 for the rest; the gradient is the softmax's (straight-through) |

The name promises quantum states that are measured. It is none: real numbers, no amplitudes that interfere but a cosine
that turns an encoder down, off or around, and a measurement that is a weighted mean. "learned" is a soft mixture of
experts (Jacobs et al. 1991), "top_1" a hard one (Shazeer et al. 2017), and "random" multiplicative noise on K parts of
one message, which dropout (Srivastava et al. 2014) is, too. What is more than one linear encoder is the product of
encodings, cosines and weights: a last layer that is not linear.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from popcomm.checks import count, mapping, one_of

KEY = "messages.superposition"
KEYS = ("encoders", "measure")
MEASURES = ("random", "learned", "top_1")


@dataclass(frozen=True)
class Superposition:
    """How many encoders, and how they are measured.

    Args:
        encoders: K, at least 2.
        measure: "random", "learned" or "top_1".

    Raises:
        UserError: fewer than two encoders, or an unknown measure.
    """

    encoders: int = 4
    measure: str = "random"

    def __post_init__(self) -> None:
        count(f"{KEY}.encoders", self.encoders, 2)
        one_of(f"{KEY}.measure", self.measure, MEASURES)

    @property
    def drawn(self) -> int:
        """How many random numbers a message takes."""
        return self.encoders if self.measure == "random" else 0

    def params_shape(self, size: int) -> tuple[int, int]:
        """What a network puts out: of each encoder a vector, a phase and, where it is judged by, a score."""
        return (self.encoders, size + 1 + (self.measure != "random"))

    def weights(self, params: Tensor, noise: Tensor | None) -> Tensor:
        """params [..., K, size + 1 or 2], noise [..., K] or None (in play) -> [..., K], which sum to one."""
        if self.measure == "random":
            return (torch.zeros_like(params[..., 0]) if noise is None else noise.to(params.dtype)).softmax(-1)
        soft = params[..., -1].softmax(-1)
        if self.measure == "learned":
            return soft
        hard = F.one_hot(soft.argmax(-1), self.encoders).to(soft.dtype)
        return hard + soft - soft.detach()

    def combined(self, params: Tensor, size: int, noise: Tensor | None = None) -> Tensor:
        """params [..., K, size + 1 or 2], noise [..., K] or None -> the message [..., size]; differentiable."""
        turned = self.weights(params, noise) * params[..., size].cos()
        return (turned.unsqueeze(-1) * params[..., :size]).sum(-2)


def superposition_of(value: Any) -> Superposition | None:
    """From its mapping in a config, such as {"encoders": 4, "measure": "learned"}.

    Raises:
        UserError: no mapping, a key that does not exist, or a value that Superposition refuses.
    """
    if value is None or isinstance(value, Superposition):
        return value
    mapping(KEY, value, KEYS)
    return Superposition(**value)
