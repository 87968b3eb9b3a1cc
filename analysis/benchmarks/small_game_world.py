"""SmallGameWorld: B copies of a small game; `popcomm.analysis.benchmarks.small_game` says what is played."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from gymnasium import spaces
from popcomm.analysis.benchmarks.small_game import Game
from torch import Tensor

from popcomm.envs.episodic_world import EpisodicWorld
from popcomm.envs.world import Species

NAME = "player"


class SmallGameWorld(EpisodicWorld):
    """B copies of a `Game`; arguments are its own. It gives no labels and no latent state: nothing helps but the game.

    All seats have the same spaces. Actions are Discrete(answers), and only those of the listeners in the last step
    count: then everyone gets the share of them that are right, and the episode ends (terminated).

    Observation [K + N + max_steps + 1]: the own part (one-hot) for speakers in step 0, else zeros; who I am (one-hot);
    the step (one-hot, the final observation has one of its own).

    Args:
        num_worlds: B.
        function, speakers, listeners, kinds, delay, forwarding: see `Game`.

    Raises:
        UserError: a value out of its range, or actions that do not fit (`step`).
    """

    name, kept = "small_game", (*EpisodicWorld.kept, "case")

    def __init__(
        self,
        num_worlds: int = 1,
        device: str | torch.device = "cpu",
        function: str = "sum",
        speakers: int = 2,
        listeners: int = 1,
        kinds: int = 4,
        delay: int = 1,
        forwarding: bool = False,
    ) -> None:
        self.game = game = Game(function, speakers, listeners, kinds, delay, forwarding)
        super().__init__(num_worlds, device, game.max_steps)
        n = game.num_agents
        roles = ["speaker"] * speakers + ["relay"] * forwarding + ["listener"] * listeners
        names = tuple(f"{role}_{seat}" for seat, role in enumerate(roles))
        size = kinds + n + self.max_steps + 1
        self.species = {NAME: Species(NAME, 0, n, size, spaces.Discrete(game.answers), names)}
        self._cases = torch.from_numpy(game.cases).to(self.device)  # [C, S]
        self._right = torch.from_numpy(game.right).to(self.device)  # [C]
        self._case = torch.zeros(self.num_worlds, dtype=torch.int64, device=self.device)  # [B]

    def _begin(self, worlds: Tensor) -> None:
        case = torch.randint(len(self._right), (self.num_worlds,), generator=self._generator, device=self.device)
        self._case = self._renewed(self._case, case, worlds)

    def _play(self, actions: dict[str, Tensor], spoken: Tensor | None) -> tuple[Tensor, Tensor]:
        named = actions[NAME][:, -self.game.listeners :]
        right = (named == self._right[self._case].unsqueeze(-1)).float().mean(-1)
        answering = self._age == self.max_steps - 1
        return (right * answering).unsqueeze(-1).repeat(1, self.num_agents), answering

    def _observe(self) -> dict[str, Tensor]:
        n, game = self.num_agents, self.game
        part = torch.zeros(self.num_worlds, n, game.kinds, device=self.device)
        seen = F.one_hot(self._cases[self._case], game.kinds) * (self._age == 0).view(-1, 1, 1)
        part[:, : game.speakers] = seen.float()
        who = torch.eye(n, device=self.device).expand(self.num_worlds, n, n)
        step = F.one_hot(self._age, self.max_steps + 1).unsqueeze(1).expand(-1, n, -1)
        return {NAME: torch.cat((part, who, step.float()), -1)}
