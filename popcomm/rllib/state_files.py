"""Files of a training's state: numbers in safetensors, their order in JSON, and apart from them what only a pickle has.

JSON has scalars and lists as they are; all else is an object with one key, which says what it is:

| key | value |
| --- | --- |
| dict, pairs | {name: ...}; [[key, value], ...] where not all keys are texts |
| tuple, set | [...] |
| tensor, array | a name in state.safetensors |
| texts | [shape, [...]] of a numpy array of texts |
| scalar | [dtype, value] of numpy |
| named | ["module:Class", {field: ...}], a NamedTuple of popcomm |
| pickle | a file beside it, read only with a word of trust |
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from popcomm.manifest import CheckpointError

FOLDER, STATE, TENSORS = "state", "state.json", "state.safetensors"
FORMAT, FORMAT_VERSION = "popcomm-state", 1
# Of these a part that no JSON has takes the whole with it: worlds of others, and what a user keeps of an episode.
WHOLE = ("world", "custom_data")
# Without these a training goes on where they are pickles that are not read: worlds begin new episodes, callbacks are
# told of episodes as if those started here, and which species learn is told by the config in any case.
SPARED = (*WHOLE, "should_module_be_updated")
_LEFT_OUT = object()


class _NotPlain(TypeError):
    """Something that only a pickle can hold."""


def write(folder: Path, state: Mapping[str, Any]) -> None:
    """Write a nested state into a folder, which is made."""
    folder.mkdir(parents=True)
    writer = _Writer(folder)
    told = writer.tagged(state)
    save_file(writer.tensors, folder / TENSORS)
    about = {"format": FORMAT, "format_version": FORMAT_VERSION, "state": told}
    (folder / STATE).write_text(json.dumps(about) + "\n", encoding="utf-8")


def read(folder: Path, trust: bool = False) -> tuple[dict[str, Any], list[str]]:
    """What `write` was given, and the parts of it that are pickles, and are left out unless they are trusted.

    Raises:
        CheckpointError: damaged, of a later version, or not to be restored without one of its pickles.
    """
    try:
        about = json.loads((folder / STATE).read_text(encoding="utf-8"))
        if not isinstance(about, dict) or (about.get("format"), about.get("format_version")) != (
            FORMAT,
            FORMAT_VERSION,
        ):
            raise CheckpointError(f"{folder / STATE} is no state that this popcomm reads")
        reader = _Reader(folder, load_file(folder / TENSORS), trust)
        return reader.value(about["state"]), reader.left_out
    except CheckpointError:
        raise
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError, SafetensorError) as error:
        raise CheckpointError(f"{folder} is damaged: {type(error).__name__}: {error}") from error


class _Writer:
    """What is to be written: tensors by name, and pickles, which are files at once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tensors: dict[str, torch.Tensor] = {}
        self._places: set[int] = set()  # in memory, of those
        self._pickles = 0

    def tagged(self, value: Any, plain: bool = False) -> Any:
        """A value as JSON has it. plain: raise _NotPlain rather than write a pickle."""
        if value is None or type(value) in (bool, int, float, str):
            return value
        if isinstance(value, torch.Tensor) and type(value) is torch.Tensor:
            return {"tensor": self._tensor(value)}
        if type(value) is np.ndarray:
            return self._array(value, plain)
        if isinstance(value, np.generic) and value.dtype.kind in "biuf":
            return {"scalar": [value.dtype.name, value.item()]}
        if type(value) is list:
            return [self.tagged(part, plain) for part in value]
        if type(value) in (tuple, set, frozenset):
            ordered = value if isinstance(value, tuple) else sorted(value, key=repr)
            kind = "tuple" if isinstance(value, tuple) else "set"
            return {kind: [self.tagged(part, plain) for part in ordered]}
        if isinstance(value, dict) and type(value).__module__ in ("builtins", "collections"):
            return self._dict(value, plain)
        if isinstance(value, tuple) and hasattr(value, "_fields") and type(value).__module__.startswith("popcomm."):
            parts = {name: self.tagged(part, plain) for name, part in zip(value._fields, value, strict=True)}
            return {"named": [f"{type(value).__module__}:{type(value).__qualname__}", parts]}
        if plain:
            raise _NotPlain(type(value).__name__)
        return self._pickle(value)

    def _dict(self, value: Mapping[Any, Any], plain: bool) -> Any:
        if all(type(key) is str for key in value):
            return {"dict": {key: self._part(key, part, plain) for key, part in value.items()}}
        return {"pairs": [[self.tagged(key, plain), self.tagged(part, plain)] for key, part in value.items()]}

    def _part(self, key: str, value: Any, plain: bool) -> Any:
        if plain or key not in WHOLE:
            return self.tagged(value, plain)
        before = set(self.tensors)
        try:
            return self.tagged(value, plain=True)
        except _NotPlain:
            for name in self.tensors.keys() - before:
                del self.tensors[name]
            return self._pickle(value)

    def _array(self, value: np.ndarray, plain: bool) -> Any:
        if value.dtype.kind in "biuf":
            # Only what may be written is taken as it is: torch warns of the rest, such as what Ray hands out.
            own = np.asarray(value, order="C") if value.flags.writeable else np.array(value, order="C")
            return {"array": self._tensor(torch.from_numpy(own))}
        if value.dtype.kind in "OU" and all(type(part) in (str, np.str_) for part in value.flat):
            return {"texts": [list(value.shape), [str(part) for part in value.flat], value.dtype.kind]}
        if plain:
            raise _NotPlain(f"an array of {value.dtype}")
        return self._pickle(value)

    def _tensor(self, value: torch.Tensor) -> str:
        name = str(len(self.tensors))
        while name in self.tensors:  # some were taken out
            name += "_"
        value = value.detach().cpu().contiguous()
        place = value.untyped_storage().data_ptr()
        # Safetensors refuses tensors that share memory. The rest is not copied: weights and moments may be gigabytes.
        self.tensors[name] = value.clone() if place in self._places else value
        self._places.add(place)
        return name

    def _pickle(self, value: Any) -> dict[str, str]:
        name = f"{self._pickles}.pkl"
        self._pickles += 1
        (self.folder / name).write_bytes(cloudpickle.dumps(value))
        return {"pickle": name}


class _Reader:
    """Undoes it.

    Attributes:
        left_out: names of the parts that are pickles, and were not read.
    """

    def __init__(self, folder: Path, tensors: Mapping[str, torch.Tensor], trust: bool) -> None:
        # Copies: what is mapped from a file would be gone with it.
        self.folder, self.tensors, self.trust = folder, {name: value.clone() for name, value in tensors.items()}, trust
        self.left_out: list[str] = []

    def value(self, told: Any, key: str = "state") -> Any:
        """What was tagged. key: under which it stands."""
        if isinstance(told, list):
            return [self.value(part, key) for part in told]
        if not isinstance(told, dict):
            return told
        [(tag, content)] = told.items()
        return getattr(self, f"_{tag}")(content, key) if tag in TAGS else self._unknown(tag)

    def _unknown(self, tag: str) -> Any:
        raise CheckpointError(f"{self.folder / STATE} has a '{tag}', which this popcomm does not read")

    def _dict(self, content: dict[str, Any], key: str) -> dict[str, Any]:
        found = {name: self.value(part, name) for name, part in content.items()}
        return {name: part for name, part in found.items() if part is not _LEFT_OUT}

    def _pairs(self, content: list[Any], key: str) -> dict[Any, Any]:
        return {self.value(name, key): self.value(part, key) for name, part in content}

    def _tuple(self, content: list[Any], key: str) -> tuple[Any, ...]:
        return tuple(self.value(part, key) for part in content)

    def _set(self, content: list[Any], key: str) -> frozenset[Any]:
        return frozenset(self.value(part, key) for part in content)

    def _tensor(self, content: str, key: str) -> torch.Tensor:
        return self.tensors[content]

    def _array(self, content: str, key: str) -> np.ndarray:
        return self.tensors[content].numpy()

    def _texts(self, content: list[Any], key: str) -> np.ndarray:
        shape, texts, kind = content
        return np.array(texts, dtype=object if kind == "O" else np.str_).reshape(shape)

    def _scalar(self, content: list[Any], key: str) -> Any:
        name, value = content
        dtype = np.dtype(str(name))
        return dtype.type(value)

    def _named(self, content: list[Any], key: str) -> Any:
        reference, parts = content
        module, _, name = str(reference).partition(":")
        cls = getattr(import_module(module), name, None) if module.startswith("popcomm.") else None
        if not (isinstance(cls, type) and issubclass(cls, tuple) and hasattr(cls, "_fields")):
            raise CheckpointError(f"{self.folder / STATE} names {reference}, which is no part of a state")
        return cls(**{name: self.value(part, name) for name, part in parts.items()})

    def _pickle(self, content: str, key: str) -> Any:
        file = self.folder / Path(content).name
        if self.trust:
            return pickle.loads(file.read_bytes())
        if key not in SPARED:
            raise CheckpointError(
                f"{file} is a pickle, which can run code when it is read, and '{key}' cannot be restored without it; "
                "where you know who wrote it, say trust=True (on the command line --trust)"
            )
        self.left_out.append(key)
        return None if key == "world" else _LEFT_OUT


TAGS = ("dict", "pairs", "tuple", "set", "tensor", "array", "texts", "scalar", "named", "pickle")
