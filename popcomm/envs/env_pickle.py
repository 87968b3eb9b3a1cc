"""All that foreign environments hold, as bytes: for checkpoints that go on where they stopped."""

from __future__ import annotations

import copyreg
import io
import pickle
import sys
import zlib
from importlib import import_module
from typing import Any

from gymnasium.utils import EzPickle


def dump_envs(envs: list[Any]) -> bytes:
    """The environments in one pickle, so that what they share stays shared; `loaded_envs` undoes it.

    Raises:
        Exception: whatever pickle raises for an object that cannot be pickled.
    """
    file = io.BytesIO()
    _StatePickler(file, protocol=pickle.HIGHEST_PROTOCOL).dump(envs)
    return file.getvalue()


def loaded_envs(dumped: bytes | list[bytes]) -> list[Any]:
    """The environments of `dump_envs`, or of one dump for each of them."""
    if isinstance(dumped, bytes):
        return pickle.loads(dumped)
    return [env for one in dumped for env in pickle.loads(one)]


class _StatePickler(pickle.Pickler):
    """Pickles EzPickle objects by what they hold; by themselves they keep only the arguments that made them."""

    def reducer_override(self, value: Any) -> Any:
        # A class with a __getstate__ of its own says itself what its state is.
        if isinstance(value, EzPickle) and type(value).__getstate__ is EzPickle.__getstate__:
            return copyreg.__newobj__, (type(value),), value.__dict__, None, None, _fill  # type: ignore[attr-defined]
        if type(value).__module__.startswith("pygame"):
            return _reduce_drawing(value)
        return NotImplemented


def _fill(value: Any, state: dict[str, Any]) -> None:
    value.__dict__.update(state)


def _reduce_drawing(value: Any) -> Any:
    """Pygame's objects do not pickle, and environments hold them even when nobody looks."""
    pygame = sys.modules["pygame"]
    kind = type(value).__name__
    if kind == "Surface":
        layout = "RGBA" if value.get_flags() & pygame.SRCALPHA else "RGB"
        # The pixels too: some environments draw only what changes, and let agents see the picture.
        return _surface, (zlib.compress(pygame.image.tobytes(value, layout), 1), value.get_size(), layout)
    if kind == "Font" and hasattr(value, "path"):
        return _font, (value.path, value.size)
    if kind == "Clock":
        return type(value), ()
    return NotImplemented


def _surface(pixels: bytes, size: tuple[int, int], layout: str) -> Any:
    return import_module("pygame").image.frombytes(zlib.decompress(pixels), size, layout)


def _font(path: str, size: float) -> Any:
    freetype = import_module("pygame.freetype")
    freetype.init()
    return freetype.Font(path, size)
