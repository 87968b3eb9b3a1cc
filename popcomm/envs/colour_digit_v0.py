"""colour_digit_v0: two agents see a coloured digit each, and the right answer needs one bit of what the other one sees.

After the colour-digit game of Foerster et al. 2016, "Learning to Communicate with Deep Multi-Agent Reinforcement
Learning", section 6.2, with digits as one-hot vectors in the place of pictures.
`python -m popcomm.envs.colour_digit_v0 [FILE.png]` draws the end of an episode.
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

NAME = "player"
STEPS = 2


class ColourDigitWorld(EpisodicWorld):
    """B games of two agents, who each see a colour and a digit, tell one another one thing, and answer with a bit.

    In step 0 both look and speak, in step 1 they hear and answer. Colours c are 0 or 1, digits d are 0 ... digits - 1;
    all are drawn evenly for each episode. Actions u are Discrete(2); those of step 0 do not count.

    Observation [2 + digits + 2]: the own colour, the own digit, the step, each one-hot.

    Reward in step 1, for agent a beside agent b (section 6.2 of the paper):

        r_a = 2 (-1)^(u_a + c_a + d_b) + (-1)^(u_a + d_a + c_b)

    So one bit is all that is worth telling, and the parity of the digit is worth more than the colour. Expected returns
    per agent with an even number of digits: random answers and the best ones without messages 0; the other's colour
    known 1; its parity known 2; both known 2 as well, as the two terms agree (3) as often as not (1), and the first
    decides. An odd number, D, has one even digit more: (-1)^d is 1 / D in the mean, and without messages u_a = c_a
    earns 2 / D.

    The episode ends with step 1 (terminated). Labels: the parity of the own digit, in step 0; -1 in step 1, whose words
    nobody hears.

    Args:
        num_worlds: B.
        digits: how many there are.

    Raises:
        UserError: a value out of its range, or actions that do not fit (`step`).
    """

    name, kept = "colour_digit_v0", (*EpisodicWorld.kept, "colours", "digits", "answers")

    def __init__(self, num_worlds: int = 1, device: str | torch.device = "cpu", digits: int = 10) -> None:
        super().__init__(num_worlds, device, STEPS)
        self.digits, self.num_labels = whole(f"{self.name}: digits", digits, 2), 2
        obs_size, names = 2 + self.digits + STEPS, (f"{NAME}_0", f"{NAME}_1")
        self.species = {NAME: Species(NAME, 0, 2, obs_size, spaces.Discrete(2), names)}
        self._colours = torch.zeros(self.num_worlds, 2, dtype=torch.int64, device=self.device)
        self._digits = torch.zeros_like(self._colours)
        self._answers = torch.full_like(self._colours, -1)  # -1 before there are any

    def _begin(self, worlds: Tensor) -> None:
        shape, device = (self.num_worlds, 2), self.device
        colours = torch.randint(2, shape, generator=self._generator, device=device)
        digits = torch.randint(self.digits, shape, generator=self._generator, device=device)
        self._colours = self._renewed(self._colours, colours, worlds)
        self._digits = self._renewed(self._digits, digits, worlds)
        self._answers = self._renewed(self._answers, torch.full_like(colours, -1), worlds)

    def _play(self, actions: dict[str, Tensor], spoken: Tensor | None) -> tuple[Tensor, Tensor]:
        answering = self._age == STEPS - 1
        by_parity, by_colour = self._right_answers()
        earned = 2.0 * _sign(actions[NAME] + by_parity) + _sign(actions[NAME] + by_colour)
        self._answers = self._renewed(self._answers, actions[NAME], answering)
        return earned * answering.unsqueeze(-1), answering

    def _right_answers(self) -> tuple[Tensor, Tensor]:
        """[B, 2] each: what the term of 2 asks for, and what the term of 1 does."""
        parities = self._digits % 2
        return (self._colours + parities.flip(1)) % 2, (parities + self._colours.flip(1)) % 2

    def _observe(self) -> dict[str, Tensor]:
        # The final observation is still one of the last step.
        step = F.one_hot(self._age.clamp(max=STEPS - 1), STEPS).unsqueeze(1).expand(-1, 2, -1)
        seen = (F.one_hot(self._colours, 2), F.one_hot(self._digits, self.digits), step)
        return {NAME: torch.cat(seen, -1).float()}

    def _labels(self) -> Tensor:
        return torch.where(self._age.unsqueeze(-1) == 0, self._digits % 2, -1)

    def render(self, world: int = 0, links: Tensor | None = None) -> np.ndarray:
        """One game as an RGB picture [480, 480, 3] uint8; links [M, 2] int64 are (sender, receiver) pairs to draw."""
        # matplotlib is slow to import, and training needs no pictures.
        from popcomm.envs.seats_picture import Seat, draw_seats

        if self._last is None:
            raise UserError(f"{self.name} has no picture before it was reset; call reset first")
        seats, rewards = [], self._last.rewards[world].tolist()
        colours, digits, answers = (x[world].tolist() for x in (self._colours, self._digits, self._answers))
        for seat, (digit, answer) in enumerate(zip(digits, answers, strict=True)):
            note, good = f"player {seat}\ndigit {digit}, colour {colours[seat]}", None
            if answer >= 0:
                note, good = f"{note}\nanswered {answer}\nearned {rewards[seat]:+.0f}", rewards[seat] > 0
            seats.append(Seat(colours[seat], str(digit), note, good))
        age = int(self._age[world])
        phase = ("step 1 of 2: look and speak", "step 2 of 2: hear and answer", "step 2 of 2, over")[age]
        return draw_seats(
            seats,
            kinds=("sees a digit of colour 0", "of colour 1"),
            title=f"colour-digit, {phase}",
            story=[
                "+2 if answer + own colour + the other's digit is even, else -2.",
                "+1 if answer + own digit + the other's colour is even, else -1.",
            ],
            links=None if links is None else links.cpu().numpy(),
            row=True,
        )


def _sign(number: Tensor) -> Tensor:
    """(-1)^number."""
    return 1.0 - 2.0 * (number % 2)


def references(world: ColourDigitWorld) -> References:
    """The expected returns in such a world; the class has the equations.

    silent: answer the own colour; no other policy is better, as the second term is 0 in the mean whatever is answered.
    oracle: one bit of each agent, the parity of its digit, is enough for it.
    """
    return References(random=0.0, silent=2.0 / world.digits if world.digits % 2 else 0.0, oracle=2.0)


def oracle_actions(world: ColourDigitWorld) -> dict[str, Tensor]:
    """Answers that know the parity of the other's digit: {species: [B, 2] int64}."""
    return {NAME: world._right_answers()[0]}


def colour_actions(world: ColourDigitWorld) -> dict[str, Tensor]:
    """Answers that know the other's colour alone: {species: [B, 2] int64}."""
    return {NAME: world._right_answers()[1]}


def silent_actions(world: ColourDigitWorld) -> dict[str, Tensor]:
    """The best answers that know nothing of the other: {species: [B, 2] int64}."""
    return {NAME: world._colours.clone()}


def parallel_env(render_mode: str | None = None, **kwargs: Any) -> WorldParallelEnv:
    """One game as a PettingZoo ParallelEnv; keyword arguments are ColourDigitWorld's.

    >>> env = parallel_env()
    >>> observations, infos = env.reset(seed=1)
    >>> observations["player_0"].shape, env.action_space("player_0")
    ((14,), Discrete(2))
    """
    return WorldParallelEnv(ColourDigitWorld(num_worlds=1, **kwargs), name="colour_digit_v0", render_mode=render_mode)


def raw_env(render_mode: str | None = None, **kwargs: Any) -> AECEnv:
    """One game as a PettingZoo AECEnv, without the wrappers that check its use."""
    return turn_based_raw(parallel_env(render_mode, **kwargs))


def env(render_mode: str | None = None, **kwargs: Any) -> AECEnv:
    """One game as a PettingZoo AECEnv, in PettingZoo's usual wrappers."""
    return turn_based(parallel_env(render_mode, **kwargs))


def main(path: str | None = None, seed: int = 0) -> None:
    """Draw the end of an episode in which each knew the parity of the other's digit."""
    from popcomm.envs.seats_picture import save_picture

    world = ColourDigitWorld()
    step = world.reset(seed)
    while step.alive.any():
        step = world.step(oracle_actions(world))
    save_picture(world.name, lambda: world.render(links=torch.tensor([[0, 1], [1, 0]])), path)


if __name__ == "__main__":
    main()
