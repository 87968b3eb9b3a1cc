"""Federated averaging: members that live apart publish clipped, noised updates, and all go on from their mean.

After McMahan et al. 2017, "Communication-Efficient Learning of Deep Networks from Decentralized Data", algorithm 1,
whose clients are here the members of a species, each with the weight 1 / P. Every `every` iterations each member's
update, its weights less those that the last round left all with, is clipped to an L2 norm and gets normal noise of its
own, before anybody sees it: local differential privacy (Kasiviswanathan et al. 2011), which trusts nobody, not even
who averages. What is clipped and noised is the whole update of a member, so that (epsilon, delta) is of all that the
member lived through. How much noise it takes, and what was spent, is worked out as for messages
(`popcomm.channels.privacy`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from ray.rllib.utils.metrics.metrics_logger import MetricsLogger
from torch import Tensor, nn

from popcomm.channels.privacy import ROUNDING
from popcomm.rllib.federated_plan import Federated
from popcomm.rllib.plan import Plan
from popcomm.rollout import seed_of

FEDERATED_BRANCH = 15
ROUNDS = "num_federated_rounds"  # as learners tell them

Weights = list[Tensor]  # of all parameters: [P, ...], or [1, ...] of what the members have in common


# ---- a round, on tensors ----


class Published(NamedTuple):
    """What members publish in a round."""

    updates: Weights  # clipped and noised
    norms: Tensor  # [P] float64, of the updates before; nobody is told


def published(updates: Weights, clip: float | None, sigma: float, generator: torch.Generator) -> Published:
    """Members' updates, each clipped as a whole, with noise of its own.

    Args:
        updates: [P, ...] of each parameter.
        clip: L2 norm; None: as they are.
        sigma: standard deviation of the noise; 0: there is none.
        generator: of the noise, on the weights' device.
    """
    squares = [u.flatten(1).square().sum(1, dtype=torch.float64) for u in updates]
    norms = torch.stack(squares).sum(0).sqrt()
    if clip is not None:
        radius = clip * (1 - ROUNDING)
        shares = radius / norms.clamp_min(radius)
        updates = [u * shares.to(u).view(-1, *[1] * (u.ndim - 1)) for u in updates]
    if sigma:
        updates = [
            u + sigma * torch.randn(u.shape, generator=generator, dtype=u.dtype, device=u.device) for u in updates
        ]
    return Published(updates, norms)


class Federation:
    """The rounds of a learner: the weights that all went on from, and how many rounds there were.

    Every learner has the same weights and the same noise, so that each finds the same mean, with nothing to exchange.

    Args:
        federated: of the config.
        members: {species: P} of those that are averaged.
        parameters: a species -> its parameters, all [P, ...].
        seed: of the noise, the same on every learner.

    Attributes:
        rounds: {species: how many its members have published in}.
        last: {species: {name: number}} of the round that ended the last iteration; empty where none did.
    """

    def __init__(
        self,
        federated: Federated,
        members: Mapping[str, int],
        parameters: Callable[[str], Sequence[nn.Parameter]],
        seed: int,
    ) -> None:
        self.federated, self.members, self.seed = federated, dict(members), seed
        self.rounds = dict.fromkeys(self.members, 0)
        self.last: dict[str, dict[str, float]] = {}
        self._parameters = parameters
        self._common: dict[str, Weights] = {}
        self.begin()

    @torch.no_grad()
    def begin(self) -> None:
        """Members that have no weights in common yet get those of the first: averages of unlike networks are none."""
        for name in self.members:
            if name in self._common:
                continue
            for parameter in self._parameters(name):
                parameter.copy_(parameter[:1].expand_as(parameter).clone())
            self._common[name] = [parameter[:1].clone() for parameter in self._parameters(name)]

    @torch.no_grad()
    def end(self, iteration: int, learning: Sequence[str]) -> None:
        """End an iteration, with a round where one is due.

        Args:
            iteration: the first one is 0.
            learning: species whose weights may change; the members of others publish nothing.
        """
        self.last = {}
        if not self.federated.due(iteration):
            return
        for order, name in enumerate(self.members):
            if name in learning:
                self._round(name, order)

    def _round(self, name: str, order: int) -> None:
        parameters, common = list(self._parameters(name)), self._common[name]
        generator = torch.Generator(parameters[0].device)  # learners are on devices of one kind
        generator.manual_seed(seed_of(self.seed, FEDERATED_BRANCH, self.rounds[name], order))
        updates = [p.detach() - start for p, start in zip(parameters, common, strict=True)]
        told = self.publish(name, updates, generator)
        for parameter, start, update in zip(parameters, common, told.updates, strict=True):
            start.add_(update.mean(0, keepdim=True))
            parameter.copy_(start.expand_as(parameter))
        self.rounds[name] += 1
        clip = np.inf if self.federated.clip is None else self.federated.clip
        self.last[name] = {
            "federated/update_norm": float(told.norms.mean()),
            "federated/clipped": float((told.norms > clip).double().mean()),
        }

    def log(self, metrics: MetricsLogger) -> None:
        """Log how many rounds there were, and of one that ended the iteration how long updates were."""
        for name, rounds in self.rounds.items():
            metrics.log_value((name, ROUNDS), rounds, window=1)
        for name, told in self.last.items():
            for key, value in told.items():
                metrics.log_value((name, key), value, window=1)

    def publish(self, name: str, updates: Weights, generator: torch.Generator) -> Published:
        """What the members of a species tell those who average. updates: [P, ...] of each parameter."""
        return published(updates, self.federated.clip, self.federated.sigma, generator)

    def get_state(self) -> dict[str, Any]:
        """The weights in common, and the number of rounds."""
        return {
            name: {"rounds": self.rounds[name], "common": [w.cpu().numpy().copy() for w in common]}
            for name, common in self._common.items()
        }

    def set_state(self, state: Mapping[str, Any], device: torch.device | str) -> None:
        """Go on from a `get_state`; without one, weights that were loaded are in common from the next update on."""
        self.rounds = {name: int(state[name]["rounds"]) if name in state else 0 for name in self.members}
        self._common = {
            name: [torch.tensor(np.asarray(w), device=device) for w in state[name]["common"]]
            for name in self.members
            if name in state
        }


# ---- what was spent ----

Statistics = Mapping[str, Mapping[str, Any]]  # {species: {name: number}}, of the learners


def scalars(federated: Federated | None, statistics: Statistics) -> dict[str, float]:
    """federated/<name>: rounds and epsilon of the members that published most often, delta, and sigma."""
    rounds = _rounds(statistics)
    if federated is None or not rounds:
        return {}
    most = max(rounds.values())
    if federated.delta is None:
        return {"federated/rounds": most}
    spent = float(federated.spent(np.array(most)))
    names = ("rounds", "epsilon", "delta", "sigma")
    return {f"federated/{k}": v for k, v in zip(names, (most, spent, federated.delta, federated.sigma), strict=True)}


def arrays(plan: Plan, statistics: Statistics) -> dict[str, NDArray[np.float64]]:
    """{federated/<species>/epsilon: [P]}, the same of all members, who publish together; nothing without a delta."""
    federated = plan.federated
    if federated is None or federated.delta is None:
        return {}
    return {
        f"federated/{name}/epsilon": np.full(plan.species[name].members, float(federated.spent(np.array(n))))
        for name, n in _rounds(statistics).items()
    }


def _rounds(statistics: Statistics) -> dict[str, int]:
    """{species: rounds that its members published in}."""
    return {name: int(told[ROUNDS]) for name, told in statistics.items() if ROUNDS in told}
