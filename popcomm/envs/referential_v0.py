"""referential_v0: speakers see a meaning, listeners must name it. The signalling game of Lewis (1969), over time.

One message per step, none wasted: while listeners answer one round, speakers see the meaning of the next.
`python -m popcomm.envs.referential_v0 [FILE.png]` draws a round.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from pettingzoo import AECEnv
from torch import Tensor
from torch.nn import functional as F

from popcomm.channels import Symbols, Topology
from popcomm.envs.drawing_world import DrawingWorld
from popcomm.envs.messaging import MessagingEnv, with_messages
from popcomm.envs.referential_draws import Episode, draw_candidates, draw_episode
from popcomm.envs.referential_meanings import Meanings
from popcomm.envs.referential_options import check_ranges, check_split, make_species
from popcomm.envs.world import WorldStep
from popcomm.envs.world_parallel import WorldParallelEnv, turn_based, turn_based_raw
from popcomm.errors import UserError

NAME = "referential_v0"
MOST_LABELS = 1024  # metrics that count labels do not profit from more classes


class Views(NamedTuple):
    """What speakers and listeners see of M rounds, and what would be right."""

    speaker: Tensor  # [M, O_speaker] float32
    listener: Tensor  # [M, O_listener] float32
    answers: Tensor  # [M, parts] int64: attributes, or the target's place


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
        told = Meanings(attributes, values, num_meanings, held_out, power_law, meaning_seed)
        self.meanings = told.split(split).to(self.device)
        check_split(len(self.meanings), split, distractors if self.picking else 0)
        self.state_size = attributes * values
        self.num_labels = len(self.meanings) if len(self.meanings) <= MOST_LABELS else 0
        self.label_attributes = self.meanings if self.num_labels else None
        # Float64: rounded to float32, the rarest of many meanings would never be drawn.
        odds = told.probabilities(split).cumsum(0)
        self._odds = (odds / odds[-1]).to(self.device)
        self._ones = self.meanings + torch.arange(attributes, device=self.device) * values
        self._parts = 1 if self.picking else attributes  # of an answer
        self.species = make_species(
            self.speakers, self.listeners, attributes, values, distractors if self.picking else 0, turns, self.swapping
        )
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
        rewards = self._judge(actions[self._answerer.name]) if self._due else self._zeros()
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
        meaning = self._one_hot(rows)
        answers, shown = self.meanings[rows], meaning.new_zeros(len(rows), 0)
        if self.picking:
            candidates, places = draw_candidates(rows, self.distractors, len(self.meanings), generator)
            answers, shown = places.unsqueeze(-1), self._one_hot(candidates).flatten(1)
        if not self.swapping:
            return Views(meaning, F.pad(shown, (1, 0), value=1.0), answers)
        no = torch.zeros_like(meaning[:, :1])
        speaker = torch.cat((no + 1, no, meaning, torch.zeros_like(shown)), -1)
        return Views(speaker, torch.cat((no, no + 1, torch.zeros_like(meaning), shown), -1), answers)

    @property
    def _spoken_of(self) -> int | None:
        """The round whose meaning speakers see now."""
        return self._age // self.turns if self._age < self.last_step else None

    @property
    def _heard_of(self) -> int | None:
        """The round that the messages heard now belong to."""
        return (self._age - 1) // self.turns if 0 < self._age <= self.last_step else None

    @property
    def _due(self) -> bool:
        """Whether answers to the round heard of are due now."""
        return self._heard_of is not None and self._age % self.turns == 0

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
        heard = self._heard_of
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
        meaning = self._meaning()
        self._last = WorldStep(
            observations=self._swapping_views(meaning) if self.swapping else self._fixed_views(meaning),
            rewards=rewards,
            terminated=self._flags(False),
            truncated=self._flags(over),
            alive=self._flags(not over),
            first=self._flags(first),
            state=meaning,
            labels=self._labels() if self.num_labels else None,
            answers={self._answerer.name: self._answers()},
            # In turns all may talk; otherwise those who see no meaning have nothing to say.
            speaks=self._speaks().clone() if self.swapping and self.turns == 1 else None,
        )
        return self._last

    def _flags(self, value: bool) -> Tensor:
        return torch.full((self.num_worlds, self.num_agents), value, device=self.device)

    def _zeros(self) -> Tensor:
        return torch.zeros(self.num_worlds, self.num_agents, device=self.device)

    def _one_hot(self, rows: Tensor) -> Tensor:
        """Rows of `meanings` [...] -> [..., A * V]."""
        ones = self._ones.index_select(0, rows.flatten())  # several times faster than indexing
        return torch.zeros(len(ones), self.state_size, device=self.device).scatter_(-1, ones, 1.0).view(*rows.shape, -1)

    def _meaning(self) -> Tensor:
        """[B, A * V], zeros where none is spoken of."""
        if self._spoken_of is None:
            return torch.zeros(self.num_worlds, self.state_size, device=self.device)
        return self._one_hot(self._episode.targets[self._spoken_of])

    def _shown(self) -> Tensor:
        """[B, (D + 1) * A * V] candidates of the round heard of, zeros where there is none; [B, 0] if nobody picks."""
        if self._episode.candidates is None:
            return torch.zeros(self.num_worlds, 0, device=self.device)
        if self._heard_of is None:
            return torch.zeros(self.num_worlds, (self.distractors + 1) * self.state_size, device=self.device)
        return self._one_hot(self._episode.candidates[self._heard_of]).flatten(1)

    def _fixed_views(self, meaning: Tensor) -> dict[str, Tensor]:
        view = F.pad(self._shown(), (1, 0), value=float(self._due))
        return {"speaker": _for_each(meaning, self.speakers), "listener": _for_each(view, self.listeners)}

    def _swapping_views(self, meaning: Tensor) -> dict[str, Tensor]:
        speaks, listens = self._speaks().unsqueeze(-1), self._listens().unsqueeze(-1)
        parts = (speaks, listens & self._due, speaks * meaning.unsqueeze(1), listens * self._shown().unsqueeze(1))
        return {"agent": torch.cat(parts, -1)}

    def _speaks(self) -> Tensor:
        """[B, N] bool: who sees a meaning now."""
        return self._flags(False) if self._spoken_of is None else self._episode.speaking[self._spoken_of]

    def _listens(self) -> Tensor:
        """[B, N] bool: who is a listener of the round heard of."""
        return self._flags(False) if self._heard_of is None else ~self._episode.speaking[self._heard_of]

    def _labels(self) -> Tensor:
        if self._spoken_of is None:
            return torch.full((self.num_worlds, self.num_agents), -1, device=self.device)
        return torch.where(self._speaks(), self._episode.targets[self._spoken_of].unsqueeze(-1), self._nothing)

    def _answers(self) -> Tensor:
        """[B, N_s] or [B, N_s, A] int64: what the answerers should say now; -1 where no answer is due."""
        shape = (self.num_worlds, self._answerer.num_seats, *(self._answerer.action_space.shape or ()))
        heard = self._heard_of
        if heard is None or not self._due:
            return torch.full(shape, -1, device=self.device)
        right = self._right_answer(heard).unsqueeze(1)
        listens = self._listens()[:, self._answerer.seats].unsqueeze(-1)
        return torch.where(listens, right, self._nothing).view(shape)

    def render(self, world: int = 0, links: Tensor | None = None) -> np.ndarray:
        """One world as an RGB picture [480, 480, 3] uint8; links [M, 2] int64 are (sender, receiver) pairs to draw."""
        # matplotlib is slow to import, and training needs no pictures.
        from popcomm.envs.referential_picture import draw_world

        if self._last is None:
            raise UserError("referential_v0 has no picture before it was reset; call reset first")
        return draw_world(self, world, links)


def _for_each(view: Tensor, seats: int) -> Tensor:
    """[B, O] -> [B, seats, O], always a copy: one seat's `expand` would hand out the state's memory."""
    return view.unsqueeze(1).expand(-1, seats, -1).clone(memory_format=torch.contiguous_format)


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
