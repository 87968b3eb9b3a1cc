"""Sight: which numbers of a flat observation are pictures, how they are kept, scaled and shown in small."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from gymnasium import spaces
from torch import Tensor

from popcomm.envs.candidates import Candidates, candidates_of
from popcomm.envs.flat_parts import parts_of

WHITE = 255  # what a byte is at most
SMALL = 8  # means along each side of a picture in small
CHUNK = 256  # pictures that are made small at once: as floats they are four times as large


class Picture(NamedTuple):
    """A picture in a flat observation: a Box of bytes with two axes, or with three of which one is the channels.

    Channels are the last axis, as in PettingZoo, unless the first one is shorter.
    """

    start: int
    shape: tuple[int, ...]
    high: int = WHITE  # the largest that a number of it can be, which networks get as 1

    @property
    def stop(self) -> int:
        return self.start + int(np.prod(self.shape))

    @property
    def channels_first(self) -> bool:
        return len(self.shape) == 3 and self.shape[0] < self.shape[-1]

    @property
    def size(self) -> tuple[int, int, int]:
        """Channels, height, width."""
        if len(self.shape) == 2:
            return 1, self.shape[0], self.shape[1]
        if self.channels_first:
            channels, height, width = self.shape
        else:
            height, width, channels = self.shape
        return channels, height, width

    def planes(self, numbers: Tensor) -> Tensor:
        """The picture out of observations: [..., O] -> [..., channels, height, width], a view."""
        found = numbers[..., self.start : self.stop].unflatten(-1, self.shape)
        if len(self.shape) == 2:
            return found.unsqueeze(-3)
        return found if self.channels_first else found.movedim(-1, -3)


class Sight:
    """How observations with pictures are seen.

    Pictures are kept as bytes, together with all that is beside them, where that are one-hots and bits; else, beside
    real numbers, everything is kept as float32.

    Attributes:
        pictures: in the order of the vector.
        in_bytes: whether observations are uint8.
        glimpse_size: G, numbers in `glimpse`.
    """

    def __init__(self, space: spaces.Space) -> None:
        start, found, others, small = 0, [], [], True
        for part in parts_of(space):
            stop = start + part.size
            if is_picture(part.space):
                found.append(Picture(start, part.space.shape, max(int(part.space.high.max(initial=0)), 1)))
            else:
                others.append(slice(start, stop))
                small &= isinstance(part.space, spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary)
            start = stop
        self.pictures, self.others, self.size = tuple(found), tuple(others), start
        self.in_bytes = bool(found) and small
        self.others_size = sum(part.stop - part.start for part in others)
        self.glimpse_size = self.others_size + sum(
            c * min(h, SMALL) * min(w, SMALL) for c, h, w in (picture.size for picture in found)
        )

    @property
    def high(self) -> np.ndarray:
        """[O], the largest that each number of an observation in bytes can be; the least is 0."""
        high = np.ones(self.size)
        for picture in self.pictures:
            high[picture.start : picture.stop] = picture.high
        return high

    def numbers(self, obs: Tensor) -> Tensor:
        """Observations as networks get them: [..., O] uint8 or float -> the same as floats, pictures in [0, 1]."""
        numbers = obs.to(torch.get_default_dtype()) if obs.dtype == torch.uint8 else obs.clone()
        for picture in self.pictures:
            numbers[..., picture.start : picture.stop].div_(picture.high)
        return numbers

    def beside(self, numbers: Tensor) -> Tensor:
        """What is beside the pictures: [..., O] -> [..., O']."""
        parts = [numbers[..., part] for part in self.others]
        return torch.cat(parts, -1) if parts else numbers[..., :0]

    def glimpse(self, obs: Tensor) -> Tensor:
        """Observations in small, [..., O] -> [..., G] floats: means over 8 x 8 parts of each picture, in [0, 1].

        That is what networks predict and reconstruct of pictures, and what transcripts hold of them.
        """
        flat = obs.reshape(-1, obs.shape[-1])
        rows = [self._glimpse(self.numbers(part)) for part in flat.split(CHUNK)]
        small = torch.cat(rows) if rows else self._glimpse(self.numbers(flat))
        return small.view(*obs.shape[:-1], self.glimpse_size)

    def _glimpse(self, numbers: Tensor) -> Tensor:
        """[M, O] -> [M, G]."""
        parts = []
        for picture in self.pictures:
            _, height, width = picture.size
            small = F.adaptive_avg_pool2d(picture.planes(numbers), (min(height, SMALL), min(width, SMALL)))
            parts.append(small.flatten(1))
        return torch.cat([*parts, self.beside(numbers)], -1)


def is_picture(space: spaces.Space) -> bool:
    """Whether a space is one of pictures: a Box of bytes with two or three axes, and more than one number on a side."""
    return isinstance(space, spaces.Box) and space.dtype == np.uint8 and len(space.shape) in (2, 3)


def sight_of(space: spaces.Space | None) -> Sight | None:
    """How observations of a space are seen, where there is a picture in it."""
    if space is None or not space.is_np_flattenable or not any(is_picture(part.space) for part in parts_of(space)):
        return None
    return Sight(space)


class Sighted:
    """Part of what tells of observations: its `observation_form`, and what follows from it."""

    obs_size: int
    action_space: spaces.Space

    @property
    def observation_form(self) -> spaces.Space | None:
        """The space that observations are flattened from; None: a Box of `obs_size` numbers."""
        raise NotImplementedError

    @property
    def sight(self) -> Sight | None:
        """How its observations are seen; None where there is no picture in them."""
        known = self.__dict__.get("_sight", False)
        if known is False:
            # Worked out once; these are frozen dataclasses, which compare by their fields.
            known = sight_of(self.observation_form)
            self.__dict__["_sight"] = known
        return known

    @property
    def candidates(self) -> Candidates | None:
        """Where its observations tell of every action; None where they do not."""
        return candidates_of(self.observation_form, self.action_space)

    @property
    def obs_dtype(self) -> torch.dtype:
        """Of observations: uint8 of pictures, with one-hots or bits beside them, if any; else float32."""
        return torch.uint8 if self.sight is not None and self.sight.in_bytes else torch.float32

    def kept(self, obs: Tensor) -> Tensor:
        """Changed observations as they are kept: where that is in bytes, rounded and within their bounds; [..., O]."""
        if self.sight is None or self.obs_dtype != torch.uint8 or obs.dtype == torch.uint8:
            return obs
        high = torch.from_numpy(self.sight.high).to(obs)
        return obs.round().clamp(min=0.0).minimum(high).to(torch.uint8)

    @property
    def glimpse_size(self) -> int:
        """Numbers in a `glimpse`."""
        return self.obs_size if self.sight is None else self.sight.glimpse_size

    def numbers(self, obs: Tensor) -> Tensor:
        """Observations as networks get them: pictures scaled to [0, 1]; [..., O] float."""
        return obs if self.sight is None else self.sight.numbers(obs)

    def glimpse(self, obs: Tensor) -> Tensor:
        """Observations in small, where they are pictures: [..., O] -> [..., G]."""
        return obs if self.sight is None else self.sight.glimpse(obs)
