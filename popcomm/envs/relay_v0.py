"""relay_v0: the first of a row sees what the last must name; those between see nothing, and must pass it on.

`python -m popcomm.envs.relay_v0 [FILE.png]` draws the end of an episode.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from gymnasium import spaces
from pettingzoo import AECEnv
from torch import Tensor

from popcomm.checks import whole
from popcomm.envs.episodic_world import EpisodicWorld
from popcomm.envs.scripted import References
from popcomm.envs.world import Species
from popcomm.envs.world_parallel import WorldParallelEnv, turn_based, turn_based_raw
from popcomm.errors import UserError

NAME = "messenger"


class RelayWorld(EpisodicWorld):
    """B rows of N agents each. The first one sees one of K kinds, at once and never again; the last one must name it.

    Who hears whom is the channel's topology: with {kind: chain} each agent hears the one before it, and a message is
    heard one step after it was said. So agent i can know in step i, if all before it passed on at once what they heard,
    and the last one, N - 1, must answer in step N - 1 + delay, the last of the episode. With a delay someone must
    remember, or say it again. Under another topology, such as `full`, nobody need pass on anything.

    Actions are Discrete(K); only that of the last agent in the last step counts. All are rewarded alike: 1 in the last
    step if it names the kind, else 0. Expected returns per agent and episode: 1 / K at random and without messages, as
    the kinds are even; 1 where the kind is known. The episode ends there (terminated).

    Observation [K + N + N + delay + 1]: the kind (one-hot) for the first agent in step 0, else zeros; who I am
    (one-hot); the step (one-hot, the final observation has one of its own). Labels: the kind, for the first agent in
    step 0; all else is -1.

    Args:
        num_worlds: B.
        num_agents: N.
        kinds: K.
        delay: steps between the first one in which the last agent can know and the answer.

    Raises:
        UserError: a value out of its range, or actions that do not fit (`step`).
    """

    name, kept = "relay_v0", (*EpisodicWorld.kept, "kind", "answer")

    def __init__(
        self,
        num_worlds: int = 1,
        num_agents: int = 3,
        device: str | torch.device = "cpu",
        kinds: int = 4,
        delay: int = 0,
    ) -> None:
        n = whole(f"{self.name}: num_agents", num_agents, 2)
        steps = n + whole(f"{self.name}: delay", delay, 0)
        super().__init__(num_worlds, device, steps)
        self.kinds = self.num_labels = whole(f"{self.name}: kinds", kinds, 2)
        names = tuple(f"{NAME}_{i}" for i in range(n))
        self.species = {NAME: Species(NAME, 0, n, self.kinds + n + steps + 1, spaces.Discrete(self.kinds), names)}
        self._kind = torch.zeros(self.num_worlds, dtype=torch.int64, device=self.device)
        self._answer = torch.full_like(self._kind, -1)  # -1 before it was given

    def _begin(self, worlds: Tensor) -> None:
        kind = torch.randint(self.kinds, (self.num_worlds,), generator=self._generator, device=self.device)
        self._kind = self._renewed(self._kind, kind, worlds)
        self._answer = self._renewed(self._answer, torch.full_like(kind, -1), worlds)

    def _play(self, actions: dict[str, Tensor], spoken: Tensor | None) -> tuple[Tensor, Tensor]:
        answering, named = self._age == self.max_steps - 1, actions[NAME][:, -1]
        self._answer = self._renewed(self._answer, named, answering)
        earned = (answering & (named == self._kind)).float()
        return earned.unsqueeze(-1).repeat(1, self.num_agents), answering

    def _observe(self) -> dict[str, Tensor]:
        n, worlds = self.num_agents, self.num_worlds
        labels = self._labels()
        kind = F.one_hot(labels.clamp(min=0), self.kinds) * (labels >= 0).unsqueeze(-1)
        who = torch.eye(n, device=self.device).expand(worlds, n, n)
        step = F.one_hot(self._age, self.max_steps + 1).unsqueeze(1).expand(-1, n, -1)
        return {NAME: torch.cat((kind, who, step), -1).float()}

    def _labels(self) -> Tensor:
        labels = torch.full((self.num_worlds, self.num_agents), -1, device=self.device)
        labels[:, 0] = torch.where(self._age == 0, self._kind, -1)
        return labels

    def render(self, world: int = 0, links: Tensor | None = None) -> np.ndarray:
        """One row as an RGB picture [480, 480, 3] uint8; links [M, 2] int64 are (sender, receiver) pairs to draw."""
        # matplotlib is slow to import, and training needs no pictures.
        from popcomm.envs.seats_picture import Seat, draw_seats

        if self._last is None:
            raise UserError(f"{self.name} has no picture before it was reset; call reset first")
        age, kind, answer = (int(x[world]) for x in (self._age, self._kind, self._answer))
        n, over = self.num_agents, answer >= 0
        seats = [Seat(0, str(seat), "hears and\npasses on") for seat in range(n)]
        seats[0] = Seat(1, "0", f"{'sees' if age == 0 else 'saw'}\nkind {kind}")
        seats[-1] = Seat(0, str(n - 1), f"must name it\nin step {self.max_steps}")
        told = f"There are {self.kinds} kinds. If the last one names the right one, each earns 1."
        if over:
            right = answer == kind
            seats[-1] = Seat(0, str(n - 1), f"named {answer},\n{'right' if right else 'wrong'}", right)
            told = f"It named {answer}, and kind {kind} was right: each earns {int(right)}."
        return draw_seats(
            seats,
            kinds=("agent, sees nothing", "sees the kind, once"),
            title=f"relay, step {age if over else age + 1} of {self.max_steps}" + (", over" if over else ""),
            story=[told],
            links=None if links is None else links.cpu().numpy(),
            row=True,
        )


def references(world: RelayWorld) -> References:
    """The expected returns in such a world: 1 / K, 1 / K and 1."""
    return References(random=1.0 / world.kinds, silent=1.0 / world.kinds, oracle=1.0)


def oracle_actions(world: RelayWorld) -> dict[str, Tensor]:
    """All name the kind, always: {species: [B, N] int64}."""
    return {NAME: world._kind.unsqueeze(-1).repeat(1, world.num_agents)}


def silent_actions(world: RelayWorld) -> dict[str, Tensor]:
    """All name kind 0, always, which is as good as any other: {species: [B, N] int64}."""
    return {NAME: torch.zeros(world.num_worlds, world.num_agents, dtype=torch.int64, device=world.device)}


def parallel_env(render_mode: str | None = None, **kwargs: Any) -> WorldParallelEnv:
    """One row as a PettingZoo ParallelEnv; keyword arguments are RelayWorld's.

    >>> env = parallel_env(num_agents=3)
    >>> observations, infos = env.reset(seed=1)
    >>> observations["messenger_0"].shape, env.action_space("messenger_0")
    ((11,), Discrete(4))
    """
    return WorldParallelEnv(RelayWorld(num_worlds=1, **kwargs), name="relay_v0", render_mode=render_mode)


def raw_env(render_mode: str | None = None, **kwargs: Any) -> AECEnv:
    """One row as a PettingZoo AECEnv, without the wrappers that check its use."""
    return turn_based_raw(parallel_env(render_mode, **kwargs))


def env(render_mode: str | None = None, **kwargs: Any) -> AECEnv:
    """One row as a PettingZoo AECEnv, in PettingZoo's usual wrappers."""
    return turn_based(parallel_env(render_mode, **kwargs))


def main(path: str | None = None, seed: int = 3) -> None:
    """Draw the end of an episode in which the kind was passed on."""
    from popcomm.envs.seats_picture import save_picture

    world = RelayWorld()
    step = world.reset(seed)
    while step.alive.any():
        step = world.step(oracle_actions(world))
    chain = torch.tensor([[seat, seat + 1] for seat in range(world.num_agents - 1)])
    save_picture(world.name, lambda: world.render(links=chain), path)


if __name__ == "__main__":
    main()
