"""What players of a referential game see: meanings, candidates, and whether an answer is due."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from popcomm.envs.referential_draws import Episode, draw_candidates


class Moment(NamedTuple):
    """Where a step stands in an episode."""

    spoken_of: int | None  # the round whose meaning speakers see now
    heard_of: int | None  # the round that the messages heard now belong to
    due: bool  # whether answers to the round heard of are due now


class Views(NamedTuple):
    """What speakers and listeners see of M rounds, and what would be right."""

    speaker: Tensor  # [M, O_speaker] float32
    listener: Tensor  # [M, O_listener] float32
    answers: Tensor  # [M, parts] int64: attributes, or the target's place


def moment_of(age: int, turns: int, last_step: int) -> Moment:
    """The moment so many steps after an episode opened, whose rounds have `turns` steps.

    >>> moment_of(0, turns=1, last_step=2), moment_of(2, turns=1, last_step=2)
    (Moment(spoken_of=0, heard_of=None, due=False), Moment(spoken_of=None, heard_of=1, due=True))
    """
    spoken_of = age // turns if age < last_step else None
    heard_of = (age - 1) // turns if 0 < age <= last_step else None
    return Moment(spoken_of, heard_of, heard_of is not None and age % turns == 0)


class Sight:
    """Observations of a game, for all worlds at once.

    Args:
        meanings: [M, A] int64.
        values: V, of every attribute.
        speakers: per round.
        listeners: per round.
        distractors: D; 0 where nobody picks.
        swapping: whether seats take turns as speakers.
    """

    def __init__(
        self, meanings: Tensor, values: int, speakers: int, listeners: int, distractors: int, swapping: bool
    ) -> None:
        attributes, device = meanings.shape[1], meanings.device
        self.meanings, self.speakers, self.listeners = meanings, speakers, listeners
        self.distractors, self.swapping = distractors, swapping
        self.meaning_size = attributes * values
        self._ones = meanings + torch.arange(attributes, device=device) * values
        self._nothing = torch.tensor(-1, device=device)

    def one_hot(self, rows: Tensor) -> Tensor:
        """Rows of `meanings` [...] -> [..., A * V]."""
        ones = self._ones.index_select(0, rows.flatten())  # several times faster than indexing
        empty = torch.zeros(len(ones), self.meaning_size, device=ones.device)
        return empty.scatter_(-1, ones, 1.0).view(*rows.shape, -1)

    def meaning(self, episode: Episode, now: Moment) -> Tensor:
        """[B, A * V] that is spoken of; zeros where none is."""
        if now.spoken_of is None:
            return self._ones.new_zeros(episode.targets.shape[1], self.meaning_size, dtype=torch.float32)
        return self.one_hot(episode.targets[now.spoken_of])

    def observations(self, episode: Episode, now: Moment, meaning: Tensor) -> dict[str, Tensor]:
        """{species: [B, N_s, O]}; meaning [B, A * V]."""
        shown = self._shown(episode, now)
        if not self.swapping:
            view = F.pad(shown, (1, 0), value=float(now.due))
            return {"speaker": _for_each(meaning, self.speakers), "listener": _for_each(view, self.listeners)}
        speaks, listens = self.speaks(episode, now).unsqueeze(-1), self.listens(episode, now).unsqueeze(-1)
        parts = (speaks, listens & now.due, speaks * meaning.unsqueeze(1), listens * shown.unsqueeze(1))
        return {"agent": torch.cat(parts, -1)}

    def speaks(self, episode: Episode, now: Moment) -> Tensor:
        """[B, N] bool: who sees a meaning now."""
        speaking = episode.speaking
        return torch.zeros_like(speaking[0]) if now.spoken_of is None else speaking[now.spoken_of]

    def listens(self, episode: Episode, now: Moment) -> Tensor:
        """[B, N] bool: who is a listener of the round heard of."""
        speaking = episode.speaking
        return torch.zeros_like(speaking[0]) if now.heard_of is None else ~speaking[now.heard_of]

    def labels(self, episode: Episode, now: Moment) -> Tensor:
        """[B, N] int64: the row of `meanings` that a speaker sees; -1 nothing."""
        if now.spoken_of is None:
            return torch.full(episode.speaking.shape[1:], -1, device=self._ones.device)
        return torch.where(self.speaks(episode, now), episode.targets[now.spoken_of].unsqueeze(-1), self._nothing)

    def alone(self, rows: Tensor, generator: torch.Generator) -> Views:
        """What a round about each of these meanings looks like to who only speaks and to who only answers.

        Args:
            rows: [M] int64, rows of `meanings`.
            generator: of the candidates, where there are any.
        """
        meaning = self.one_hot(rows)
        answers, shown = self.meanings[rows], meaning.new_zeros(len(rows), 0)
        if self.distractors:
            candidates, places = draw_candidates(rows, self.distractors, len(self.meanings), generator)
            answers, shown = places.unsqueeze(-1), self.one_hot(candidates).flatten(1)
        if not self.swapping:
            return Views(meaning, F.pad(shown, (1, 0), value=1.0), answers)
        no = torch.zeros_like(meaning[:, :1])
        speaker = torch.cat((no + 1, no, meaning, torch.zeros_like(shown)), -1)
        return Views(speaker, torch.cat((no, no + 1, torch.zeros_like(meaning), shown), -1), answers)

    def _shown(self, episode: Episode, now: Moment) -> Tensor:
        """[B, (D + 1) * A * V] candidates of the round heard of, zeros where there is none; [B, 0] if nobody picks."""
        worlds = episode.targets.shape[1]
        if episode.candidates is None:
            return torch.zeros(worlds, 0, device=self._ones.device)
        if now.heard_of is None:
            return torch.zeros(worlds, (self.distractors + 1) * self.meaning_size, device=self._ones.device)
        return self.one_hot(episode.candidates[now.heard_of]).flatten(1)


def _for_each(view: Tensor, seats: int) -> Tensor:
    """[B, O] -> [B, seats, O], always a copy: one seat's `expand` would hand out the state's memory."""
    return view.unsqueeze(1).expand(-1, seats, -1).clone(memory_format=torch.contiguous_format)
