"""The parts of a nested observation, each written into its place in a vector, or refused in words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from gymnasium import spaces

from popcomm.errors import UserError

Path = tuple[Any, ...]


def parts_of(space: spaces.Space, path: Path = ()) -> Iterator[Part]:
    """The parts within Dict and Tuple, in the order of `gymnasium.spaces.flatten`."""
    if isinstance(space, spaces.Dict):
        for key, inner in space.spaces.items():
            yield from parts_of(inner, (*path, key))
    elif isinstance(space, spaces.Tuple):
        for index, inner in enumerate(space.spaces):
            yield from parts_of(inner, (*path, index))
    else:
        kinds = ((spaces.Box, Numbers), (spaces.MultiBinary, Numbers), (spaces.Discrete, Choice))
        yield next((part for kind, part in kinds if isinstance(space, kind)), _other(space))(space, path)


def _other(space: spaces.Space) -> type[Part]:
    return Choices if isinstance(space, spaces.MultiDiscrete) else Part


class Part:
    """An entry of any space that Gymnasium can flatten, and what the others have in common.

    Attributes:
        size: numbers in the vector.
        limits: (low, high), each [size] or a number, between which whole numbers must lie; None: no limits, or
            `write` sees to it.
    """

    limits: tuple[Any, Any] | None = None

    def __init__(self, space: spaces.Space, path: Path) -> None:
        self.space, self.path = space, path
        self.size = int(spaces.flatdim(space))

    def find(self, observation: Any) -> Any:
        """The entry of a whole observation.

        Raises:
            UserError: it is not there.
        """
        value = observation
        for key in self.path:
            try:
                value = value[key]
            except (KeyError, IndexError, TypeError) as error:
                raise UserError(f"its observation has no entry {self._name}, and its space has one") from error
        return value

    def write(self, out: np.ndarray, value: Any) -> None:
        """Write a value into out [size] float32.

        Raises:
            UserError: it is not of this space.
        """
        try:
            out[:] = spaces.flatten(self.space, value)
        except Exception as error:  # whatever Gymnasium raises for a value that is not of its space
            raise self._misfit(value) from error

    @property
    def _name(self) -> str:
        return "".join(f"[{key!r}]" for key in self.path)

    def _misfit(self, value: Any, why: str = "") -> UserError:
        return UserError(f"its observation{self._name} is {_short(value)}{why}, and must be of {self.space}")

    def _array(self, value: Any) -> np.ndarray:
        """The value, which must have the space's shape (axes of length one do not count)."""
        try:
            array = value if isinstance(value, np.ndarray) else np.asarray(value)
        except ValueError as error:  # rows of unequal length
            raise self._misfit(value) from error
        if array.shape != self.space.shape and _long(array.shape) != _long(self.space.shape or ()):
            raise self._misfit(value, f" of shape {array.shape}")
        return array


class Numbers(Part):
    """A Box or MultiBinary: the numbers as they are. Bounds of whole numbers count, those of real ones do not."""

    def __init__(self, space: spaces.Space, path: Path) -> None:
        super().__init__(space, path)
        if isinstance(space, spaces.MultiBinary):
            self.limits = (0.0, 1.0)
        elif isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.integer):
            self.limits = (np.ravel(space.low).astype(np.float32), np.ravel(space.high).astype(np.float32))

    def write(self, out: np.ndarray, value: Any) -> None:
        try:
            array = self._array(value)
            if out.dtype == np.uint8 and array.dtype != np.uint8 and not (array == array.astype(np.uint8)).all():
                raise self._misfit(value, ", no byte")  # it would be cut to one
            out[:] = array.reshape(-1)
        except (TypeError, ValueError) as error:
            raise error if isinstance(error, UserError) else self._misfit(value) from error


class Choice(Part):
    """A Discrete: one-hot."""

    def write(self, out: np.ndarray, value: Any) -> None:
        array = self._array(value)
        if array.dtype.kind not in "iub":
            raise self._misfit(value)
        index = int(array.reshape(-1)[0]) - int(self.space.start)
        if not 0 <= index < self.size:
            raise self._misfit(value)
        out[:] = 0.0
        out[index] = 1.0


class Choices(Part):
    """A MultiDiscrete: one-hots, one after another."""

    def __init__(self, space: spaces.Space, path: Path) -> None:
        super().__init__(space, path)
        self._sizes, self._start = (np.ravel(x).astype(np.int64) for x in (space.nvec, space.start))
        self._first = np.cumsum(self._sizes) - self._sizes

    def write(self, out: np.ndarray, value: Any) -> None:
        array = self._array(value)
        if array.dtype.kind not in "iub":
            raise self._misfit(value)
        index = array.reshape(-1) - self._start
        if ((index < 0) | (index >= self._sizes)).any():
            raise self._misfit(value)
        out[:] = 0.0
        out[self._first + index] = 1.0


def _long(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The axes of a shape that are not of length one."""
    return tuple(length for length in shape if length != 1)


def _short(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else text[:57] + "..."
