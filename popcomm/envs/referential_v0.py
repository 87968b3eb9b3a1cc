"""referential_v0: speakers see a meaning, listeners must name it. The signalling game of Lewis (1969), over time.

One message per step, none wasted: while listeners answer one round, speakers see the meaning of the next.
`python -m popcomm.envs.referential_v0 [FILE.png]` draws a round.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from pettingzoo import AECEnv
from torch import Tensor

from popcomm.channels import Symbols, Topology
from popcomm.envs.drawing_world import DrawingWorld
from popcomm.envs.messaging import MessagingEnv, with_messages
from popcomm.envs.referential_draws import Episode, draw_episode
from popcomm.envs.referential_meanings import Meanings
from popcomm.envs.referential_options import check_ranges, check_split, make_species
from popcomm.envs.referential_sight import Moment, Sight, Views, moment_of
from popcomm.envs.world import WorldStep
from popcomm.envs.world_parallel import WorldParallelEnv, turn_based, turn_based_raw
from popcomm.errors import UserError

NAME = "referential_v0"
MOST_LABELS = 1024  # metrics that count labels do not profit from more classes


class ReferentialWorld(DrawingWorld):
    """Speakers see a meaning (A attributes of V values), and listeners, who see none, answer with what they heard.

    Round j = 0 ... rounds - 1 is spoken of in steps j * turns ... (j + 1) * turns - 1, where speakers see its meaning.
    What is said in a step is heard in the next, so listeners are one step behind, and their answers to round j are due
    in step (j + 1) * turns, where speakers already see the next meaning. Actions in other steps are ignored. An episode
    has rounds * turns + 1 steps with actions, the last for answers only (speakers see zeros there), and is then cut.

    With `turns` above 1 a round is a conversation: listeners speak too. All speakers of a world see the same meaning,
    and all its listeners the same candidates.

    Species of roles "fixed": "speaker" and "listener". A speaker's observation is the meaning, [A * V] one-hot; its
    action Discrete(1) does nothing. A listener answers with MultiDiscrete([V] * A) where the task is to "reconstruct"
    the meaning, or with Discrete(D + 1) where it is to "pick" the target from itself and D distractors. Its observation
    is [1], 1.0 where an answer is due, or [1 + (D + 1) * A * V], followed by the candidates one-hot.

    Species of roles "swapping": "agent", with all N seats; who speaks is drawn evenly, anew for each round. Its
    observation: 1.0 if it speaks now, 1.0 if its answer is due, the meaning or zeros [A * V], and (pick) the candidates
    or zeros [(D + 1) * A * V]. An agent may answer a round and open the next as its speaker in the same step.

    Reward, of the step in which answers are given: a listener's own score, and for the speakers of that round the mean
    of its listeners' scores. The score is the share of attributes that are right, or 1 if all are (reward "all"), or
    1 for the target (pick). In every step, minus message_cost * spoken.

    State [A * V]: the meaning that is spoken of now, one-hot. Labels: a speaker's row of `meanings`, if there are at
    most 1024. Metrics: "accuracy" (all attributes right, or the target picked), and "attribute_accuracy" (reconstruct).
    A game that was never seeded starts from seed 0.

    Args:
        num_worlds: B.
        num_agents: N, with roles "swapping" in place of `listeners`.
        speakers: per round.
        listeners: per round; None: num_agents - speakers, or 1.
        roles: "fixed" or "swapping".
        task: "reconstruct" or "pick".
        attributes: A.
        values: V.
        num_meanings: size of a sample of the V**A meanings; None for all.
        power_law: exponent k; the meaning of rank r is drawn in proportion to r**-k. Ranks are random, and the same in
            all splits.
        distractors: D, drawn evenly (so with a power law the most frequent candidate is a better guess than others).
        held_out: share of the meanings kept out of training; see `Meanings`.
        split: which meanings are played: "train", "held_out" or "all".
        turns: steps in a round.
        rounds: in an episode.
        reward: "attributes" or "all".
        meaning_seed: of the sample, the held-out meanings and the ranks.
        message_cost: price of one spoken symbol, in units of reward.

    Attributes:
        meanings: [num_meanings, A] int64, those of the split.

    Raises:
        UserError: a value out of its range, or actions that do not fit (`step`).
    """

    name, kept = "referential_v0", ("episode", "age", "right", "given", "counts")

    def __init__(
        self,
        num_worlds: int = 1,
        device: str | torch.device = "cpu",
        num_agents: int | None = None,
        speakers: int = 1,
        listeners: int | None = None,
        roles: Literal["fixed", "swapping"] = "fixed",
        task: Literal["reconstruct", "pick"] = "reconstruct",
        attributes: int = 2,
        values: int = 10,
        num_meanings: int | None = None,
        power_law: float = 0.0,
        distractors: int = 4,
        held_out: float = 0.0,
        split: Literal["train", "held_out", "all"] = "train",
        turns: int = 1,
        rounds: int = 10,
        reward: Literal["attributes", "all"] = "attributes",
        meaning_seed: int = 0,
        message_cost: float = 0.0,
    ) -> None:
        check_ranges(locals())
        self.num_worlds, self.device = num_worlds, torch.device(device)
        self.swapping, self.picking, self.all_or_nothing = roles == "swapping", task == "pick", reward == "all"
        self.speakers = speakers
        self.listeners = listeners or (1 if num_agents is None else num_agents - speakers)
        self.values, self.distractors, self.message_cost = values, distractors, message_cost
        self.turns, self.rounds, self.last_step = turns, rounds, rounds * turns
        candidates = distractors if self.picking else 0
        told = Meanings(attributes, values, num_meanings, held_out, power_law, meaning_seed)
        self._tell_of(told, split, candidates)
        self.state_size = attributes * values
        self._parts = 1 if self.picking else attributes  # of an answer
        self.species = make_species(self.speakers, self.listeners, attributes, values, candidates, turns, self.swapping)
        self._sight = Sight(self.meanings, values, self.speakers, self.listeners, candidates, self.swapping)
        self._answerer = list(self.species.values())[-1]
        self._nothing = torch.tensor(-1, device=self.device)
        self._generator = torch.Generator(self.device)
        self._generator.manual_seed(0)
        self._right = torch.zeros(2, dtype=torch.int64, device=self.device)  # attributes, answers
        self._given = 0  # answers
        self._last: WorldStep | None = None
        self._counts: Tensor | None = None  # [B, N_s] int64, right parts of the latest answers
        self._age = 0  # steps since the episode opened, the same in all worlds
        self._episode: Episode

    def _tell_of(self, told: Meanings, split: str, distractors: int) -> None:
        """The meanings of a split are played: what they are called, and how often each comes."""
        self.meanings = told.split(split).to(self.device)
        check_split(len(self.meanings), split, distractors)
        self.num_labels = len(self.meanings) if len(self.meanings) <= MOST_LABELS else 0
        self.label_attributes = self.meanings if self.num_labels else None
        # Float64: rounded to float32, the rarest of many meanings would never be drawn.
        odds = told.probabilities(split).cumsum(0)
        self._odds = (odds / odds[-1]).to(self.device)

    def reset(self, seed: int | None = None) -> WorldStep:
        if seed is not None:
            self._generator.manual_seed(seed)
        return self._open()

    def step(self, actions: dict[str, Tensor], spoken: Tensor | None = None) -> WorldStep:
        """Raises UserError: the world was not reset, or actions of another shape."""
        if self._last is None:
            raise UserError("referential_v0 was stepped before it was reset; call reset first")
        self._check_actions(actions)
        if self._age > self.last_step:
            return self._open()
        rewards = self._judge(actions[self._answerer.name]) if self._now.due else self._zeros()
        if spoken is not None and self.message_cost:
            rewards = rewards.sub(spoken, alpha=self.message_cost)
        self._age += 1
        return self._look(rewards)

    def metrics(self) -> dict[str, float]:
        """ "accuracy", and "attribute_accuracy" where answers have parts; {} where none was due."""
        if not self._given:
            return {}
        parts, answers = self._right.tolist()
        counted = {"accuracy": answers / self._given}
        if not self.picking:
            counted["attribute_accuracy"] = parts / (self._given * self._parts)
        self._right, self._given = torch.zeros_like(self._right), 0
        return counted

    def views(self, rows: Tensor, generator: torch.Generator) -> Views:
        """What a round about each of these meanings looks like to who only speaks and to who only answers.

        Args:
            rows: [M] int64, rows of `meanings`.
            generator: of the candidates, where there are any.
        """
        return self._sight.alone(rows, generator)

    @property
    def _now(self) -> Moment:
        return moment_of(self._age, self.turns, self.last_step)

    def _open(self) -> WorldStep:
        self._episode = draw_episode(
            (self.rounds, self.num_worlds, self.num_agents),
            self.speakers,
            self.swapping,
            self.distractors if self.picking else 0,
            self._odds,
            self._generator,
        )
        self._age, self._counts = 0, None
        return self._look(self._zeros(), first=True)

    def _check_actions(self, actions: dict[str, Tensor]) -> None:
        for name, species in self.species.items():
            expected = (self.num_worlds, species.num_seats, *(species.action_space.shape or ()))
            if actions[name].shape != expected:
                found = tuple(actions[name].shape)
                raise UserError(f"actions of '{name}' have shape {found}, and must have {expected}")

    def _judge(self, answers: Tensor) -> Tensor:
        """Rewards [B, N] for answers [B, N_s] or [B, N_s, A] to the round heard of; counts them for the metrics."""
        heard = self._now.heard_of
        assert heard is not None
        speaking = self._episode.speaking[heard]
        parts = answers.reshape(self.num_worlds, -1, self._parts) == self._right_answer(heard).unsqueeze(1)
        counts = parts.sum(-1)
        if self.swapping:
            counts = counts.masked_fill_(speaking, 0)
        whole = counts == self._parts
        self._right = self._right + torch.stack((counts.sum(), whole.sum()))
        self._given += self.num_worlds * self.listeners
        self._counts = counts
        scores = whole.float() if self.all_or_nothing else counts / self._parts
        mean = scores.sum(-1, keepdim=True) / self.listeners
        if self.swapping:
            return torch.where(speaking, mean, scores)
        return torch.cat((mean.expand(-1, self.speakers), scores), -1)

    def _right_answer(self, played: int) -> Tensor:
        """[B, parts] int64: the attributes of a round's meaning, or its place among the candidates."""
        if self._episode.places is not None:
            return self._episode.places[played].unsqueeze(-1)
        return self.meanings.index_select(0, self._episode.targets[played])

    def _look(self, rewards: Tensor, first: bool = False) -> WorldStep:
        """The WorldStep of the present."""
        over = self._age > self.last_step
        now, episode, sight = self._now, self._episode, self._sight
        meaning = sight.meaning(episode, now)
        self._last = WorldStep(
            observations=sight.observations(episode, now, meaning),
            rewards=rewards,
            terminated=self._flags(False),
            truncated=self._flags(over),
            alive=self._flags(not over),
            first=self._flags(first),
            state=meaning,
            labels=sight.labels(episode, now) if self.num_labels else None,
            answers={self._answerer.name: self._answers(now)},
            # In turns all may talk; otherwise those who see no meaning have nothing to say.
            speaks=sight.speaks(episode, now).clone() if self.swapping and self.turns == 1 else None,
        )
        return self._last

    def _flags(self, value: bool) -> Tensor:
        return torch.full((self.num_worlds, self.num_agents), value, device=self.device)

    def _zeros(self) -> Tensor:
        return torch.zeros(self.num_worlds, self.num_agents, device=self.device)

    def _answers(self, now: Moment) -> Tensor:
        """[B, N_s] or [B, N_s, A] int64: what the answerers should say now; -1 where no answer is due."""
        shape = (self.num_worlds, self._answerer.num_seats, *(self._answerer.action_space.shape or ()))
        if now.heard_of is None or not now.due:
            return torch.full(shape, -1, device=self.device)
        right = self._right_answer(now.heard_of).unsqueeze(1)
        listens = self._sight.listens(self._episode, now)[:, self._answerer.seats].unsqueeze(-1)
        return torch.where(listens, right, self._nothing).view(shape)

    def render(self, world: int = 0, links: Tensor | None = None) -> np.ndarray:
        """One world as an RGB picture [480, 480, 3] uint8; links [M, 2] int64 are (sender, receiver) pairs to draw."""
        # matplotlib is slow to import, and training needs no pictures.
        from popcomm.envs.referential_picture import draw_world

        if self._last is None:
            raise UserError("referential_v0 has no picture before it was reset; call reset first")
        return draw_world(self, world, links)


def parallel_env(render_mode: str | None = None, **kwargs: Any) -> WorldParallelEnv:
    """One game as a PettingZoo ParallelEnv; keyword arguments are ReferentialWorld's. It has no channel of its own.

    >>> env = parallel_env(attributes=2, values=3)
    >>> observations, infos = env.reset(seed=1)
    >>> observations["speaker_0"].shape, observations["listener_0"]
    ((6,), array([0.], dtype=float32))
    """
    return WorldParallelEnv(ReferentialWorld(num_worlds=1, **kwargs), name=NAME, render_mode=render_mode)


def raw_env(render_mode: str | None = None, **kwargs: Any) -> AECEnv:
    """One game as a PettingZoo AECEnv, without the wrappers that check its use."""
    return turn_based_raw(parallel_env(render_mode, **kwargs))


def env(render_mode: str | None = None, **kwargs: Any) -> AECEnv:
    """One game as a PettingZoo AECEnv, in PettingZoo's usual wrappers."""
    return turn_based(parallel_env(render_mode, **kwargs))


def CommunicationEnv(
    num_agents: int = 2,
    vocab_size: int = 16,
    length: int = 4,
    topology: str | dict[str, Any] | Topology = "full",
    layout: str = "dict",
    render_mode: str | None = None,
    **kwargs: Any,
) -> MessagingEnv:
    """A game of agents that take turns as speakers, with its channel: a PettingZoo ParallelEnv to start with.

    Args:
        num_agents: N.
        vocab_size: symbols to choose from.
        length: symbols in a message.
        topology: who hears whom: a kind ("full"), a config mapping ({"kind": "ring", "k": 1}) or a Topology.
        layout: of actions and observations, "dict" or "flat"; see `with_messages`.
        render_mode: None or "rgb_array".
        kwargs: ReferentialWorld's other keyword arguments, without `roles`.

    Raises:
        UserError: a value out of its range.

    >>> env = CommunicationEnv(num_agents=4, length=3)
    >>> observations, infos = env.reset(seed=1)
    >>> observations["agent_0"]["inbox"].shape, env.action_space("agent_0")["message"]
    ((3, 3), MultiDiscrete([16 16 16]))
    """
    if "roles" in kwargs:
        raise UserError(f"CommunicationEnv: roles is {kwargs['roles']!r}, and they swap; use parallel_env for others")
    game = parallel_env(render_mode, roles="swapping", num_agents=num_agents, **kwargs)
    links = {"kind": topology} if isinstance(topology, str) else topology
    return with_messages(game, Symbols(vocab_size, length), links, layout)


if __name__ == "__main__":
    from popcomm.envs.demo import main

    main("referential_v0")
