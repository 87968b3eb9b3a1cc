"""QualityHead: what an action is worth, given all that the network knows; its gradient tells senders what helped."""

from __future__ import annotations

import torch
from gymnasium import spaces
from torch import Tensor, nn

from popcomm.agents.distributions import action_distribution
from popcomm.agents.pointing import Pointing, pointed
from popcomm.agents.population import PopulationMLP

HIDDEN = 64


class QualityHead(nn.Module):
    """Q(features, action), the return to be expected from an action, for P members.

    A policy gradient reaches a sender only through the logarithm of its receivers' probabilities, which says little
    while they guess. The regression of Q on the return says what the message changed, and its gradient goes through the
    features to the message: the signal by which DIAL's senders learn (Foerster 2016, section 5.1).

    Discrete actions have a number each; of MultiDiscrete ones the numbers of the components are added up; a Box action
    is an input of the network. Where the observation tells of every action, each is held against what is known, too.

    Args:
        members: P.
        features: how many numbers the policy acts on.
        action_space: Discrete, MultiDiscrete or Box.
        hidden: width of the hidden layer.
        pointing: of discrete actions with candidates (`popcomm.agents.pointing`).
        generator: source of the initial weights; torch's default one if None.
    """

    def __init__(
        self,
        members: int,
        features: int,
        action_space: spaces.Space,
        hidden: int = HIDDEN,
        generator: torch.Generator | None = None,
        pointing: Pointing | None = None,
    ) -> None:
        super().__init__()
        self.distribution = action_distribution(action_space)
        self.chooses = not isinstance(action_space, spaces.Box)
        actions = self.distribution.num_features
        sizes = (features, hidden, actions) if self.chooses else (features + actions, hidden, 1)
        self.net = PopulationMLP(members, *sizes, activation="relu", gain=1.0, generator=generator)
        self.pointing = pointing

    def forward(self, features: Tensor, actions: Tensor, obs: Tensor | None = None) -> Tensor:
        """features [P, R, F], actions [P, R, ...] -> [P, R], in the units of normalised returns.

        obs [P, R, O], with pictures scaled, is looked at where there are candidates alone.
        """
        chosen = self.distribution.features(actions).to(features.dtype)
        if self.chooses:
            return (pointed(self.pointing, self.net(features), features, obs) * chosen).sum(-1)
        return self.net(torch.cat([features, chosen], -1)).squeeze(-1)
