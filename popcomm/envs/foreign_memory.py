"""What the objects of a simulator of others hold: taken, put back, and put back for some worlds only.

For simulators that keep the state of B worlds in tensors [B, ...] spread over objects, and have no way to save it.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

Values = dict[str, dict[str, Any]]  # {object: {attribute: what it held}}
PLAIN = (int, float, bool, str, type(None), torch.Size, torch.dtype, torch.device)
KEYS = (*PLAIN, tuple, frozenset)
# What is no state: code, and what draws pictures.
CODE = (Tensor, type, FunctionType, MethodType, ModuleType)
DRAWN = ("pyglet", "vmas.simulator.rendering")


@dataclass(frozen=True)
class _Known:
    """One of the objects, by name; "" is what is neither state nor known, and stays where it is."""

    name: str


@dataclass
class _Made:
    """An object that was made later, by what it holds."""

    kind: Any  # its class
    attributes: dict[str, Any]


OTHER = _Known("")


class ForeignMemory:
    """Reads and writes the attributes of all objects that are reached from one: tensors, arrays, plain values, lists
    and dicts of them, and who refers to whom. An object that was made later is made anew when it is put back.

    Args:
        root: where to begin.
    """

    def __init__(self, root: Any) -> None:
        self._objects: dict[str, Any] = {}
        self._names: dict[int, str] = {}
        seen: set[int] = set()
        waiting: list[tuple[str, Any]] = [("root", root)]
        while waiting:
            path, found = waiting.pop()
            if id(found) in seen or isinstance(found, PLAIN):
                continue
            seen.add(id(found))
            if isinstance(found, list | tuple):
                waiting += [(f"{path}[{i}]", value) for i, value in enumerate(found)]
            elif isinstance(found, dict):
                waiting += [(f"{path}[{key!r}]", value) for key, value in found.items()]
            elif _is_state(found):
                self._names[id(found)] = path
                self._objects[path] = found
                waiting += [(f"{path}.{key}", value) for key, value in vars(found).items()]

    def take(self) -> Values:
        """Copies of all that they hold; what is one tensor stays one."""
        copies: dict[int, Any] = {}
        return {
            name: {key: self._taken(value, copies) for key, value in vars(known).items()}
            for name, known in self._objects.items()
        }

    def put(self, values: Values) -> None:
        """Make everything what it was when it was taken. An attribute that was not there then stays."""
        copies: dict[int, Any] = {}
        for name, attributes in values.items():
            held = vars(self._objects[name])
            for key, value in attributes.items():
                held[key] = self._put(value, held.get(key), copies)

    def put_worlds(self, values: Values, worlds: Tensor) -> list[str]:
        """`put` for some worlds only: the rows of tensors [B, ...]; what is not by world is put as a whole.

        Args:
            values: as they were taken.
            worlds: [B] bool.

        Returns:
            What was put as a whole and had changed: the state of all worlds together.
        """
        merging = _Merging(self, worlds)
        for name, attributes in values.items():
            held = vars(self._objects[name])
            for key, value in attributes.items():
                held[key] = merging.put(value, held.get(key), f"{name}.{key}")
        return merging.shared

    def name_of(self, found: Any) -> _Known:
        return _Known(self._names.get(id(found), ""))

    def key_of(self, taken: Any) -> Any:
        """What a key of a dict was, before it was taken."""
        return self._objects[taken.name] if isinstance(taken, _Known) else taken

    def _taken(self, value: Any, copies: dict[int, Any]) -> Any:
        if isinstance(value, PLAIN):
            return value
        if isinstance(value, (Tensor, np.ndarray)):
            return _copied(value, copies)
        if isinstance(value, dict):
            keys = [key if isinstance(key, KEYS) else self.name_of(key) for key in value]
            parts = [self._taken(part, copies) for part in value.values()]
            return OTHER if OTHER in keys else dict(zip(keys, parts, strict=True))
        if type(value) in (list, tuple):
            return type(value)(self._taken(part, copies) for part in value)
        if id(value) in self._names or not _is_state(value):
            return self.name_of(value)
        if id(value) not in copies:
            made = copies[id(value)] = _Made(type(value), {})
            made.attributes.update({key: self._taken(part, copies) for key, part in vars(value).items()})
        return copies[id(value)]

    def _put(self, value: Any, now: Any, copies: dict[int, Any]) -> Any:
        """The value to hold for what was taken; lists and dicts are written in place, for others may share them."""
        if isinstance(value, _Known):
            return now if value == OTHER else self._objects[value.name]
        if isinstance(value, (Tensor, np.ndarray)):
            return _copied(value, copies)
        if isinstance(value, _Made):
            return self._make(value, now, copies)
        if isinstance(value, dict):
            kept = now if isinstance(now, dict) else {}
            told = {self.key_of(key): part for key, part in value.items()}
            parts = {key: self._put(part, kept.get(key), copies) for key, part in told.items()}
            kept.clear()
            kept.update(parts)
            return kept
        if isinstance(value, list | tuple):
            before = list(now) if isinstance(now, list | tuple) else []
            before += [None] * (len(value) - len(before))
            return _listed([self._put(p, n, copies) for p, n in zip(value, before, strict=False)], value, now)
        return value

    def _make(self, made: _Made, now: Any, copies: dict[int, Any]) -> Any:
        if id(made) not in copies:
            copies[id(made)] = fresh = made.kind.__new__(made.kind)
            before = vars(now) if type(now) is made.kind else {}
            for key, value in made.attributes.items():
                vars(fresh)[key] = self._put(value, before.get(key), copies)
        return copies[id(made)]


class _Merging:
    """Puts the rows of some worlds."""

    def __init__(self, memory: ForeignMemory, worlds: Tensor) -> None:
        self._memory, self._worlds = memory, worlds
        self._copies: dict[int, Any] = {}
        self._merged: dict[tuple[int, int], Tensor] = {}
        self.shared: list[str] = []

    def put(self, old: Any, new: Any, path: str) -> Any:
        if isinstance(old, Tensor) and isinstance(new, Tensor) and self._by_world(old) and old.shape == new.shape:
            both = (id(old), id(new))
            if both not in self._merged:
                self._merged[both] = torch.where(self._worlds.view(-1, *[1] * (old.dim() - 1)), old, new)
            return self._merged[both]
        if isinstance(old, dict) and isinstance(new, dict):
            told = {self._memory.key_of(key): value for key, value in old.items()}
            if told.keys() <= new.keys():
                new.update({key: self.put(value, new[key], f"{path}[...]") for key, value in told.items()})
                return new
        if isinstance(old, list | tuple) and isinstance(new, list | tuple) and len(old) == len(new):
            parts = [self.put(o, n, f"{path}[{i}]") for i, (o, n) in enumerate(zip(old, new, strict=True))]
            return _listed(parts, old, new)
        if isinstance(old, _Made) and type(new) is old.kind:
            return self._made(old, new, path)
        nothing = new is None or (isinstance(new, dict | list) and not new)  # what is only made in a step
        if not nothing and not self._same(old, new):
            self.shared.append(path)
        return self._memory._put(old, new, self._copies)

    def _made(self, old: _Made, new: Any, path: str) -> Any:
        if id(old) not in self._copies:
            self._copies[id(old)] = fresh = old.kind.__new__(old.kind)
            for key, value in old.attributes.items():
                vars(fresh)[key] = self.put(value, vars(new).get(key), f"{path}.{key}")
        return self._copies[id(old)]

    def _by_world(self, value: Tensor) -> bool:
        return value.dim() > 0 and len(value) == len(self._worlds)

    def _same(self, old: Any, new: Any) -> bool:
        if isinstance(old, _Known):
            return old in (OTHER, self._memory.name_of(new))
        if type(old) is not type(new):
            return False
        if isinstance(old, Tensor):
            return old.shape == new.shape and torch.equal(old, new)
        return bool(np.array_equal(old, new)) if isinstance(old, np.ndarray) else old == new


def _is_state(value: Any) -> bool:
    """Whether it is an object that holds something."""
    return hasattr(value, "__dict__") and not isinstance(value, CODE) and not type(value).__module__.startswith(DRAWN)


def _copied(value: Any, copies: dict[int, Any]) -> Any:
    """A copy; the same one wherever the same tensor is met."""
    if id(value) not in copies:
        copies[id(value)] = value.detach().clone() if isinstance(value, Tensor) else value.copy()
    return copies[id(value)]


def _listed(parts: list[Any], like: Any, now: Any) -> Any:
    """The parts in the list that is there, or as a new list or tuple."""
    if isinstance(like, list) and isinstance(now, list):
        now[:] = parts
        return now
    return type(like)(parts)
