"""alarm_v0: predators come, two of the troop see which kind it is, and all must flee in the way that fits it.

After the alarm calls of vervet monkeys, one for each kind of predator (Seyfarth, Cheney & Marler 1980).
`python -m popcomm.envs.alarm_v0 [FILE.png]` draws an event.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from gymnasium import spaces
from pettingzoo import AECEnv
from torch import Tensor

from popcomm.checks import count, not_negative, number, share
from popcomm.envs.drawing_world import DrawingWorld
from popcomm.envs.world import Species, WorldStep
from popcomm.envs.world_parallel import WorldParallelEnv, turn_based, turn_based_raw
from popcomm.errors import UserError

NAME = "monkey"
FORAGE = 0


class AlarmWorld(DrawingWorld):
    """B territories with N agents each. Now and then an event (a predator) of one of E kinds appears in one of them.

    Every agent acts each step, with Discrete(E + 1): 0 forages, k + 1 flees in the way that fits kind k. An episode
    opens in calm. In each calm step, with probability `event_rate`, an event of an even kind begins with the next one,
    so there is a calm step at least between two events, and 1 / event_rate of them in the mean. An event lasts
    `duration` steps, whatever is done. In its first `glimpse` steps its `watchers`, drawn evenly for each event, see
    it; nobody else ever does, nor when it is over.

    Observation [E + 2]: the kind that is seen, one-hot (zeros if none is); 1 if one is seen; and a constant 1, the
    sense itself: without it, senses that are withdrawn could not be told from seeing nothing. Nothing is remembered: a
    word that is heard in time earns a step, and one that goes on being heard earns more of them, to agents without
    memory.

    Reward: own = flight_reward for the flight that fits a running event, 0 for foraging and -wrong_penalty for another
    flight; in calm forage_reward for foraging and -alarm_penalty for any flight; minus message_cost * spoken. What a
    seat gets is (1 - reward_share) * own + reward_share * (mean of own over the seats).

    With the defaults, in long episodes and per agent and step: always foraging earns 0.083, always the same flight
    -0.083, watchers who flee and tell nobody raise the first to 0.117, words heard once and heeded to 0.283, and 0.617
    is the most (`alarm_references` has the equations). To know that an event runs, but not its kind, is worth nothing:
    a guess earns 1 / 5 - 4 / 5 * 0.25 = 0, as foraging does, and costs no more, so that flight is not unlearned before
    anyone knows which. A word that is understood pays to be heeded where its event still runs with a probability above
    1/3. A watcher whose word makes nine others flee gains reward_share * 9 / 10: to tell pays up to that message_cost.

    State [E + 1]: the running event one-hot, and the share of its steps that are left, this one included. Labels: the
    kind that a seat sees. Metrics, over agent-steps: "informed", of those in events, the share answered with the
    fitting flight; "false_alarms", of those in calm, the share that fled.

    A territory that was never seeded starts from seed 0.

    Args:
        num_worlds: B.
        num_agents: N.
        kinds: E.
        duration: steps of an event.
        watchers: agents that see an event.
        glimpse: steps in which they do, from its first one on.
        event_rate: probability that a calm step is the last one before an event.
        episode_length: steps of an episode; it is cut there for all.
        flight_reward, wrong_penalty, forage_reward, alarm_penalty: see the reward above.
        reward_share: 0 = own reward only, 1 = the mean of all.
        message_cost: price of one spoken symbol, in units of reward.
        stagger: worlds start at different ages after `reset`, so that their episodes do not all end at once.

    Raises:
        UserError: a value out of its range, or actions that do not fit (`step`).
    """

    name, kept = "alarm_v0", ("kind", "running", "watching", "age", "counts", "chosen")

    def __init__(
        self,
        num_worlds: int = 1,
        num_agents: int = 10,
        device: str | torch.device = "cpu",
        kinds: int = 5,
        duration: int = 4,
        watchers: int = 2,
        glimpse: int = 1,
        event_rate: float = 0.5,
        episode_length: int = 64,
        flight_reward: float = 1.0,
        wrong_penalty: float = 0.25,
        forage_reward: float = 0.25,
        alarm_penalty: float = 0.25,
        reward_share: float = 0.5,
        message_cost: float = 0.0,
        stagger: bool = False,
    ) -> None:
        _check_ranges(locals())
        self.num_worlds, self.device = num_worlds, torch.device(device)
        self.num_labels, self.state_size = kinds, kinds + 1
        self.duration, self.watchers, self.glimpse = duration, watchers, glimpse
        self.event_rate, self.episode_length, self.stagger = event_rate, episode_length, stagger
        self.flight_reward, self.wrong_penalty = flight_reward, wrong_penalty
        self.forage_reward, self.alarm_penalty = forage_reward, alarm_penalty
        self.reward_share, self.message_cost = reward_share, message_cost
        names = tuple(f"{NAME}_{i}" for i in range(num_agents))
        self.species = {NAME: Species(NAME, 0, num_agents, kinds + 2, spaces.Discrete(kinds + 1), names)}
        self._generator = torch.Generator(self.device)
        self._generator.manual_seed(0)
        self._last: WorldStep | None = None
        # Agent-steps: in events, of these answered right, in calm, of these fled.
        self._counts = torch.zeros(4, dtype=torch.int64, device=self.device)
        self._chosen: Tensor | None = None  # [B, N], the latest actions
        self._kind: Tensor  # [B] int64, of the running event, -1 in calm
        self._running: Tensor  # [B] int64, which step of the event this is, from 1 on; 0 in calm
        self._watching: Tensor  # [B, N] bool, who sees or saw the running event
        self._age: Tensor  # [B] int64, steps since the episode opened

    def reset(self, seed: int | None = None) -> WorldStep:
        if seed is not None:
            self._generator.manual_seed(seed)
        self._kind = torch.full((self.num_worlds,), -1, device=self.device)
        self._running = torch.zeros_like(self._kind)
        self._watching = torch.zeros(self.num_worlds, self.num_agents, dtype=torch.bool, device=self.device)
        self._age = torch.zeros_like(self._kind)
        if self.stagger:
            self._age.random_(0, self.episode_length, generator=self._generator)
        self._chosen = None
        return self._look(torch.zeros(self._watching.shape, device=self.device), torch.ones_like(self._kind).bool())

    def step(self, actions: dict[str, Tensor], spoken: Tensor | None = None) -> WorldStep:
        """Raises UserError: the world was not reset, or actions are not [B, N]."""
        if self._last is None:
            raise UserError("alarm_v0 was stepped before it was reset; call reset first")
        chosen = actions[NAME]
        expected = (self.num_worlds, self.num_agents)
        if chosen.shape != expected:
            raise UserError(f"actions of '{NAME}' have shape {tuple(chosen.shape)}, and must have {expected}")
        opening = self._age == self.episode_length
        rewards = self._judge(chosen, spoken).masked_fill_(opening.unsqueeze(-1), 0.0)
        self._advance(opening)
        self._age = (self._age + 1).masked_fill_(opening, 0)
        self._chosen = chosen.clone()
        return self._look(rewards, opening)

    def metrics(self) -> dict[str, float]:
        """ "informed" and "false_alarms", each where there was an occasion."""
        event, right, calm, fled = self._counts.tolist()
        self._counts = torch.zeros_like(self._counts)
        counted = {"informed": (right, event), "false_alarms": (fled, calm)}
        return {name: part / whole for name, (part, whole) in counted.items() if whole}

    def _judge(self, chosen: Tensor, spoken: Tensor | None) -> Tensor:
        """Rewards [B, N] for actions on what runs now; counts them for the metrics."""
        event = (self._kind >= 0).unsqueeze(-1)
        fled, fits = chosen != FORAGE, event & (chosen == self._kind.unsqueeze(-1) + 1)
        acting = (self._age < self.episode_length).unsqueeze(-1).expand_as(chosen)
        seen = (acting & event, acting & fits, acting & ~event, acting & ~event & fled)
        self._counts = self._counts + torch.stack([part.sum() for part in seen])
        in_event = fits * self.flight_reward - (fled & ~fits) * self.wrong_penalty
        own = torch.where(event, in_event, self.forage_reward - fled * (self.forage_reward + self.alarm_penalty))
        if spoken is not None and self.message_cost:
            own = own.sub(spoken, alpha=self.message_cost)
        return own.mul(1.0 - self.reward_share).add(own.mean(-1, keepdim=True), alpha=self.reward_share)

    def _advance(self, opening: Tensor) -> None:
        """The next step's events; worlds that open, [B] bool, are calm."""
        shape = (self.num_worlds, self.num_agents)
        due = torch.rand(self.num_worlds, generator=self._generator, device=self.device) < self.event_rate
        kinds = torch.randint(self.num_labels, shape[:1], generator=self._generator, device=self.device)
        drawn = torch.rand(shape, generator=self._generator, device=self.device).topk(self.watchers).indices
        begins, goes_on = due & (self._kind < 0) & ~opening, (self._running > 0) & (self._running < self.duration)
        goes_on = goes_on & ~opening
        self._running = torch.where(begins | goes_on, self._running + 1, 0)
        self._kind = torch.where(begins, kinds, torch.where(goes_on, self._kind, -1))
        fresh = torch.zeros_like(self._watching).scatter_(-1, drawn, True)
        self._watching = torch.where(begins.unsqueeze(-1), fresh, self._watching & goes_on.unsqueeze(-1))

    def _look(self, rewards: Tensor, opening: Tensor) -> WorldStep:
        """The WorldStep of the present. opening: [B] bool."""
        shape = self._watching.shape
        over = (self._age == self.episode_length).unsqueeze(-1).expand(shape).contiguous()
        sees = self._watching & (self._running <= self.glimpse).unsqueeze(-1)
        labels = torch.where(sees, self._kind.unsqueeze(-1), -1)
        # Calm is class E + 1 of E + 1, which is cut off.
        event = F.one_hot(self._kind.remainder(self.num_labels + 1), self.num_labels + 1)[:, : self.num_labels].float()
        sense = torch.ones(*shape, 1, device=self.device)
        left = (self.duration + 1 - self._running) / self.duration * (self._kind >= 0)
        self._last = WorldStep(
            observations={NAME: torch.cat((event.unsqueeze(1) * sees.unsqueeze(-1), sees.unsqueeze(-1), sense), -1)},
            rewards=rewards,
            terminated=torch.zeros(shape, dtype=torch.bool, device=self.device),
            truncated=over,
            alive=~over,
            first=opening.unsqueeze(-1).expand(shape).contiguous(),
            state=torch.cat((event, left.unsqueeze(-1)), -1),
            labels=labels,
        )
        return self._last

    def render(self, world: int = 0, links: Tensor | None = None) -> np.ndarray:
        """One world as an RGB picture [480, 480, 3] uint8; links [M, 2] int64 are (sender, receiver) pairs to draw."""
        # matplotlib is slow to import, and training needs no pictures.
        from popcomm.envs.alarm_picture import draw_alarm

        if self._last is None or self._last.labels is None:
            raise UserError("alarm_v0 has no picture before it was reset; call reset first")
        return draw_alarm(
            kind=int(self._kind[world]),
            running=int(self._running[world]),
            duration=self.duration,
            sees=(self._last.labels[world] >= 0).cpu().numpy(),
            chosen=None if self._chosen is None else self._chosen[world].cpu().numpy(),
            rewards=self._last.rewards[world].cpu().numpy(),
            links=None if links is None else links.cpu().numpy(),
            title=f"step {int(self._age[world])} of {self.episode_length}",
        )


def _check_ranges(values: dict[str, Any]) -> None:
    for key in ("num_worlds", "num_agents", "kinds", "duration", "watchers", "glimpse", "episode_length"):
        count(f"alarm_v0: {key}", values[key], 2 if key == "kinds" else 1)
    for key, most in {"watchers": "num_agents", "glimpse": "duration"}.items():
        if values[key] > values[most]:
            raise UserError(f"alarm_v0: {key} is {values[key]}, and must be at most {most} = {values[most]}")
    for key in ("flight_reward", "wrong_penalty", "forage_reward", "alarm_penalty", "message_cost"):
        not_negative(f"alarm_v0: {key}", values[key])
    number("alarm_v0: event_rate", values["event_rate"], "be above 0 and at most 1", above=0, most=1)
    share("alarm_v0: reward_share", values["reward_share"])


def parallel_env(render_mode: str | None = None, **kwargs: Any) -> WorldParallelEnv:
    """One territory as a PettingZoo ParallelEnv; keyword arguments are AlarmWorld's.

    >>> env = parallel_env(num_agents=3)
    >>> observations, infos = env.reset(seed=1)
    >>> observations["monkey_0"].shape, env.action_space("monkey_0")
    ((7,), Discrete(6))
    """
    return WorldParallelEnv(AlarmWorld(num_worlds=1, **kwargs), name="alarm_v0", render_mode=render_mode)


def raw_env(render_mode: str | None = None, **kwargs: Any) -> AECEnv:
    """One territory as a PettingZoo AECEnv, without the wrappers that check its use."""
    return turn_based_raw(parallel_env(render_mode, **kwargs))


def env(render_mode: str | None = None, **kwargs: Any) -> AECEnv:
    """One territory as a PettingZoo AECEnv, in PettingZoo's usual wrappers."""
    return turn_based(parallel_env(render_mode, **kwargs))


if __name__ == "__main__":
    from popcomm.envs.demo import main

    main("alarm_v0")
