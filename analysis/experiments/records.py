"""Runs whose result is a line of results.jsonl, each made in a process of its own and none twice; numbers as JSON."""

from __future__ import annotations

import itertools
import json
import math
import multiprocessing
import threading
from argparse import Namespace
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

from popcomm.cli.ray_session import quiet_ray
from popcomm.errors import UserError
from popcomm.language import progress

RESULTS = "results.jsonl"


@dataclass(frozen=True)
class Trial:
    """A run whose result is a line of a file.

    Args:
        store: that file; half a line that a process left when it died counts for nothing.
        key: what decides the run, and leads its result.
        make: called with the key's parts, in a process of its own, for the rest of the result; a function of a module.
    """

    store: Path
    key: Mapping[str, Any]
    make: Callable[..., Mapping[str, Any]]

    @property
    def name(self) -> str:
        return ", ".join(f"{name} {part}" for name, part in self.key.items() if not isinstance(part, list | tuple))

    @property
    def result(self) -> dict[str, Any] | None:
        """The key and what was made of it; None: nothing yet."""
        key = json.loads(json.dumps(self.key))
        return next((row for row in stored(self.store) if {k: row.get(k) for k in key} == key), None)

    def is_complete(self) -> bool:
        return self.result is not None

    def train(self) -> None:
        """Make it; one line more is in the file."""
        made = isolated(self.make, **self.key)
        with _WRITING:
            self.store.parent.mkdir(parents=True, exist_ok=True)
            # The key leads, and stays what was asked for: a run of 100 steps may end at 104, and is found all the same.
            progress.append(self.store, plain({**self.key, **made, **self.key}))


_WRITING = threading.Lock()


def stored(store: Path) -> list[dict[str, Any]]:
    """The lines of a file of results; empty without one."""
    lines = store.read_text().splitlines() if store.is_file() else []
    return [json.loads(line) for line in lines if line.endswith("}")]


def results_of(trials: Sequence[Trial]) -> list[dict[str, Any]]:
    """Of those that are made, in their order.

    Raises:
        UserError: there are none.
    """
    found = [result for trial in trials if (result := trial.result) is not None]
    if not found:
        raise UserError(f"{trials[0].store} has no results of these settings yet")
    return found


def trials_of(
    options: Namespace, make: Callable[..., Mapping[str, Any]], arms: Iterable[Any], **same: Any
) -> list[Trial]:
    """One for each arm and seed, seeds outermost: a stop leaves whole sets of arms.

    Args:
        arms: mappings, what tells each from the others.
        same: what all have besides.
    """
    seeds = range(1, options.seeds + 1)
    keys = ({**arm, "seed": seed, **same} for seed, arm in itertools.product(seeds, arms))
    return [Trial(options.out / RESULTS, key, make) for key in keys]


def whole_folder(options: Namespace, size_of: Callable[[Mapping[str, Any]], Mapping[str, Any]]) -> list[dict[str, Any]]:
    """All results in the folder of runs as long as those that are asked for, whatever their arms and seeds.

    Args:
        size_of: a result -> the keys, beside arm and seed, that it must have to stand beside the others: a shorter run
            is no other seed of a longer one.

    Raises:
        UserError: there are none.
    """
    rows = stored(options.out / RESULTS)
    if not rows:
        raise UserError(f"--out {options.out} has no results yet; leave out --page-only")
    found = [row for row in rows if all(row.get(key) == value for key, value in size_of(row).items())]
    if not found:
        wanted = ", ".join(f"{key} {value}" for key, value in size_of(rows[-1]).items())
        raise UserError(f"--out {options.out} has no results of {wanted}, only of runs of another length")
    return found


def arms_of(
    records: Sequence[Mapping[str, Any]], key: Callable[[Any], Any], order: Iterable[Any] | None = None
) -> dict[Any, list[Any]]:
    """{key of a record: its runs by seed}, in this order, or in the one in which the keys first appear."""
    found: dict[Any, list[Any]] = {}
    for record in records:
        found.setdefault(key(record), []).append(record)
    named = found if order is None else [name for name in order if name in found]
    return {name: sorted(found[name], key=lambda r: r["seed"]) for name in named}


def isolated(function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """What a function of a module returns in a new process on one thread; Ray and torch do not survive a fork."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_on_one_thread, function, arguments, named).result()


def _on_one_thread(function: Callable[..., Any], arguments: Sequence[Any], named: Mapping[str, Any]) -> Any:
    """In the new process, when the function's module, and Ray with it, has been imported."""
    import torch

    torch.set_num_threads(1)
    quiet_ray()
    return function(*arguments, **named)


def plain(value: Any) -> Any:
    """As JSON knows it: records as mappings, arrays as lists, eight digits of a number, null for what is no number."""
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, Mapping):
        return {key: plain(part) for key, part in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    if isinstance(value, float):
        return float(f"{value:.8g}") if math.isfinite(value) else None
    return value


def as_json(values: Mapping[str, Any]) -> str:
    """A line for each value, and for each part of it: a file whose changes can be read."""

    def lines(value: Any) -> str:
        parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        named = [
            f"{json.dumps(key)}: " * isinstance(value, dict) + json.dumps(part, allow_nan=False) for key, part in parts
        ]
        opening, closing = ("{", "}") if isinstance(value, dict) else ("[", "]")
        return f"{opening}\n" + ",\n".join(named) + f"\n{closing}" if named else json.dumps(value, allow_nan=False)

    return "{\n" + ",\n".join(f"{json.dumps(key)}: {lines(value)}" for key, value in plain(values).items()) + "\n}\n"
