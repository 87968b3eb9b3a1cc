"""Pointing: how well each candidate answers what a network looks for; the listener of games in which one is picked."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from popcomm.agents.activations import tanh
from popcomm.agents.contract import AgentSpec
from popcomm.agents.population import PopulationLinear, orthogonal_layer_
from popcomm.agents.start import POLICY_GAIN
from popcomm.envs.candidates import Candidates

WIDTH = 64
# The key of a one-hot is so long at the start.
KEY_LENGTH = 4.0


class Pointing(nn.Module):
    """Logits of n actions of which the observation tells: q(features) . k(candidate), for P members.

    A policy that is linear in its features has weights for the *place* of an action; which candidate stands there it
    can only learn by heart, one arrangement after another. Here every candidate is held against what is looked for, by
    the same weights wherever it stands: the receiver of Lazaridou et al. 2017 ("Multi-agent cooperation and the
    emergence of (natural) language", section 3), and the inner product of a state and an action of He et al. 2016
    (DRRN, section 2.3). Queries are linear in the features, keys tanh of a linear layer.

    Args:
        candidates: where the observation tells of actions.
        members: P.
        features: numbers that the policy acts on.
        scale: root mean square of the features at the start.
        generator: source of the initial weights; torch's default one if None.
    """

    def __init__(
        self,
        candidates: Candidates,
        members: int,
        features: int,
        scale: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.candidates = candidates
        self.query = PopulationLinear(members, features, WIDTH, bias=False, generator=generator)
        self.key = PopulationLinear(members, candidates.size, WIDTH, generator=generator)
        # Orthonormal columns of more inputs than outputs keep the size of a number; else it is the rows' length.
        orthogonal_layer_(self.query, POLICY_GAIN / scale * math.sqrt(max(1.0, WIDTH / features)), generator)
        orthogonal_layer_(self.key, KEY_LENGTH, generator)

    def forward(self, features: Tensor, obs: Tensor) -> Tensor:
        """features [P, R, F], obs [P, R, O], pictures scaled -> logits [P, R, n]."""
        rows = self.candidates.rows(obs)
        keys = tanh(self.key(rows.flatten(1, 2))).unflatten(1, rows.shape[1:3])
        return (keys * self.query(features).unsqueeze(2)).sum(-1) / math.sqrt(WIDTH)


def make_pointing(
    spec: AgentSpec, features: int, scale: float = 1.0, generator: torch.Generator | None = None
) -> Pointing | None:
    """What weighs candidates, see `Pointing`; None where the observation has none."""
    found = spec.candidates
    return None if found is None else Pointing(found, spec.members, features, scale, generator)


def pointed(pointing: Pointing | None, logits: Tensor, features: Tensor, obs: Tensor | None) -> Tensor:
    """Logits [P, R, A] of a policy and, where there are candidates, what speaks for each of them, added up."""
    if pointing is None:
        return logits
    assert obs is not None
    return logits + pointing(features, obs)
