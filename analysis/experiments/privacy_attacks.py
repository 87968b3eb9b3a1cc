"""Attacks on what is published: which observation was a message made of, and which observations was an update made of?

Both attackers know all that is public: the game, the networks, the common weights, the mechanism and its noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from popcomm.analysis.experiments.message_credit import auc
from torch import Tensor

from popcomm.channels import Vectors
from popcomm.rllib.federated import Federation, Published, Weights


@torch.no_grad()
def rebuilt(agent: Any, kind: Vectors, observations: Tensor, trials: int = 500, seed: int = 0) -> float:
    """How often an observation is named right from a message that was made of it: reconstruction.

    The attacker asks the network what it would have said of each, and names the nearest, the likeliest under normal
    noise of one size. Where several were said alike, it names the first.

    Args:
        agent: of one member, without memory, that has heard nothing yet.
        kind: of its messages.
        observations: [M, O], all that there are.
        trials: messages of each.
    """
    params = agent(observations.unsqueeze(0), None, {}).message[0]
    generator = torch.Generator().manual_seed(seed)
    heard = kind.sample(params.expand(trials, *params.shape), generator)  # [trials, M, size]
    named = torch.cdist(heard.flatten(0, 1), kind.center(params)).argmin(1).view(trials, -1)
    return float((named == torch.arange(len(observations))).double().mean())


class Overheard(Federation):
    """A federation with somebody who keeps what members publish of the first layer's weights.

    Args:
        federation: in whose place it is put, before its first round.
        weight: [P, O, hidden], of the first layer.

    Attributes:
        heard: [P, O, hidden] of every round.
    """

    def __init__(self, federation: Federation, weight: Tensor) -> None:
        super().__init__(federation.federated, federation.members, federation._parameters, federation.seed)
        self.heard: list[Tensor] = []
        self._weight = weight

    def publish(self, name: str, updates: Weights, generator: torch.Generator) -> Published:
        told = super().publish(name, updates, generator)
        place = next(i for i, p in enumerate(self._parameters(name)) if p is self._weight)
        self.heard.append(told.updates[place].clone())
        return told


def alikeness(update: Tensor, candidates: Tensor) -> Tensor:
    """How alike an update of a first layer is to the gradient of an observation, at best: [P, C].

    The gradient of any loss of an observation x is the outer product of x with something that the attacker does not
    know; of all such, the one most alike to the update U has the inner product |x U|. What all candidates have in
    common tells nothing, and is taken away.

    Args:
        update: [P, O, hidden].
        candidates: [C, O].
    """
    apart = candidates - candidates.mean(0)
    return torch.einsum("co,poh->pch", apart, update).norm(dim=-1)


def membership(update: Tensor, candidates: Tensor, lived: NDArray[np.bool_]) -> float:
    """AUC of the attack: how likely a candidate that a member learned from scores higher than one that it did not.

    Args:
        update: [P, O, hidden], of each member, or [1, O, hidden], their mean.
        candidates: [C, O] observations.
        lived: [P, C], which of them were in what a member learned from. Members who saw all or none do not count.

    Returns:
        the mean over members; nan where none counts.
    """
    scores = alikeness(update, candidates).expand(len(lived), -1).double().cpu().numpy()
    found = [auc(own, saw) for own, saw in zip(scores, lived, strict=True) if saw.any() and not saw.all()]
    return float(np.mean(found)) if found else float("nan")


def over_rounds(heard: Sequence[Tensor], candidates: Tensor, lived: Sequence[NDArray[np.bool_]]) -> dict[str, float]:
    """The attack's mean AUC over rounds: on every member's own update, and on their mean, which is all that is used."""
    own = [membership(update, candidates, saw) for update, saw in zip(heard, lived, strict=True)]
    mean = [membership(update.mean(0, keepdim=True), candidates, saw) for update, saw in zip(heard, lived, strict=True)]
    return {"auc": float(np.nanmean(own)), "auc_of_mean": float(np.nanmean(mean))}
