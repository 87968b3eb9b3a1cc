"""JointCritic: what every action of every seat is worth, to one who sees the whole world and has no part in it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from gymnasium import spaces
from torch import Tensor, nn

from popcomm.agents.distributions import action_distribution
from popcomm.agents.pointing import Pointing
from popcomm.envs.world import Species

FADING = (0.8, 0.97)  # how much of what was seen before is left after a step, in each trace
TRACES = 1 + len(FADING)  # the first is what is seen now


class JointCritic(nn.Module):
    """Q(what all saw, what the others do, a) for each action a of each seat: COMA's critic (Foerster et al. 2018,
    section 4 and Fig. 1c), one for all species of a world.

    It hears no message: what an action is worth in the state of the world is the same whatever is said of it. So it can
    be learned before anybody speaks, and tell listeners what they should have done, and through them the speakers.

    Where a judged seat's observation tells of its actions, each is held against all that is known, too.

    What is past it knows by `seen_so_far`, which has nothing to learn and nothing to keep between fragments.

    Args:
        species: all of the world, in the order of the seats.
        judged: those of them with a number of actions of which it says what they are worth.
        hidden: width of both hidden layers.
    """

    def __init__(self, species: Mapping[str, Species], judged: tuple[str, ...], hidden: int = 64) -> None:
        super().__init__()
        self.judged = judged
        self.distributions = {name: action_distribution(each.action_space) for name, each in species.items()}
        seats = {name: each.num_seats for name, each in species.items()}
        width = sum(seats[name] * (TRACES * each.glimpse_size + 2) for name, each in species.items())
        self.world = nn.Linear(width, hidden)
        # What a seat does, for others: a layer without bias over the actions of all seats, less the seat's own share.
        size = sum(seats[name] * self._numbers(name) for name in species) ** -0.5
        # Lists: a species may have a name that torch's mappings do not take.
        self.deeds = nn.ParameterList(_weight(size, seats[n], self._numbers(n), hidden) for n in species)
        # Seats differ from the start: by the same features nobody could tell whose actions count.
        self.seats = nn.ParameterList(_weight(1.0, seats[name], hidden) for name in judged)
        self.inner = nn.Linear(hidden, hidden)
        self.heads = nn.ModuleList(nn.Linear(hidden, _choices(species[name])) for name in judged)
        self.pointings = nn.ModuleList(_pointing(species[name], hidden) or nn.Identity() for name in judged)
        self.shapes = {name: (seats[name], TRACES * each.glimpse_size + 2) for name, each in species.items()}

    def _numbers(self, name: str) -> int:
        return self.distributions[name].num_features

    def forward(self, seen: Tensor, actions: Mapping[str, Tensor], alive: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What actions are worth, in the units that it was taught in.

        Args:
            seen: [..., W] float32, what `seen_so_far` makes of all seats, species after species (`joined`).
            actions: {species: [..., N] int64, or [..., N, d]}, what all do.
            alive: {species: [..., N] bool}; what others are said to do counts for nothing.

        Returns:
            {species: [..., N, A]} of those that are judged.
        """
        base = self.world(seen).unsqueeze(-2)  # [..., 1, H]
        own = {
            name: self._deed(name, weight, actions[name], alive[name])
            for name, weight in zip(self.distributions, self.deeds, strict=True)
        }  # {species: [..., N, H]}
        base = base + torch.stack([deed.sum(-2, keepdim=True) for deed in own.values()]).sum(0)
        worth = {}
        each = self._of_species(seen)
        for name, seat, head, points in zip(self.judged, self.seats, self.heads, self.pointings, strict=True):
            known = F.relu(self.inner(F.relu(base - own[name] + seat)))
            worth[name] = head(known)
            if isinstance(points, Pointing):
                rows = (values.flatten(0, -2).unsqueeze(0) for values in (known, each[name]))
                worth[name] = worth[name] + points(*rows).view_as(worth[name])
        return worth

    def _of_species(self, seen: Tensor) -> dict[str, Tensor]:
        """The inverse of `joined`: [..., W] -> {species: [..., N, F]}, views."""
        parts = seen.split([seats * width for seats, width in self.shapes.values()], -1)
        return {name: part.unflatten(-1, self.shapes[name]) for name, part in zip(self.shapes, parts, strict=True)}

    def _deed(self, name: str, weight: Tensor, actions: Tensor, alive: Tensor) -> Tensor:
        """[..., N, H], what a seat's action adds to what others' are worth."""
        acts = alive if actions.dim() == alive.dim() else alive.unsqueeze(-1)
        numbers = self.distributions[name].features(torch.where(acts, actions, 0)).to(self.world.weight.dtype)
        numbers = torch.where(alive.unsqueeze(-1), numbers, 0.0)
        return torch.einsum("...na,nah->...nh", numbers, weight)


def seen_so_far(obs: Tensor, first: Tensor, alive: Tensor) -> Tensor:
    """What each seat sees, and saw in its life so far, as far as the fragment goes back.

    Args:
        obs: [B, T, N, O].
        first: [B, T, N] bool, first steps of lives.
        alive: [B, T, N] bool; others have seen nothing.

    Returns:
        [B, T, N, 3 O + 2] float32: the observation, two averages of it, x <- f x + (1 - f) obs from the first
        observation on, so that how a life began stays in them for long; whether the seat is alive, and whether its life
        began within the fragment, so that nothing of it is missing.
    """
    now = torch.where(alive.unsqueeze(-1), obs.float(), 0.0)
    begins = first.clone()
    begins[:, 0] = True
    left = now.new_tensor(FADING).unsqueeze(-1)  # [2, 1]
    trace = now.new_zeros(*now[:, 0].shape[:2], *left.shape[:1], now.shape[-1])  # [B, N, 2, O]
    rows = []
    for step in range(now.shape[1]):
        x = now[:, step].unsqueeze(-2)
        trace = torch.where(begins[:, step, :, None, None], x, left * trace + (1 - left) * x)
        rows.append(trace.flatten(-2))
    whole = first.cumsum(1) > 0
    return torch.cat([now, torch.stack(rows, 1), torch.stack([alive, whole], -1).to(now.dtype)], -1)


def joined(seen: Mapping[str, Tensor]) -> Tensor:
    """{species: [..., N, F]} -> [..., W], all seats of a world in a row."""
    return torch.cat([each.flatten(-2) for each in seen.values()], -1)


def judges(space: spaces.Space) -> bool:
    """Whether the actions of a space have a number each."""
    return isinstance(space, spaces.Discrete)


def _pointing(species: Species, hidden: int) -> Pointing | None:
    """What weighs the actions that the species is told of; what is seen now comes first among what it looks at.

    None where there are none, or pictures beside them, which are seen in small: then rows stand elsewhere.
    """
    found = species.candidates
    return None if found is None or species.sight is not None else Pointing(found, 1, hidden)


def _choices(species: Species) -> int:
    assert isinstance(species.action_space, spaces.Discrete)
    return int(species.action_space.n)


def _weight(size: float, *shape: int) -> nn.Parameter:
    """Normal numbers with that standard deviation."""
    return nn.Parameter(size * torch.randn(*shape))
