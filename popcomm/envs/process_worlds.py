"""ProcessWorlds: any ParallelEnv as B worlds in processes of their own, for environments that are slow in Python."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import cloudpickle
import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from popcomm.checks import count
from popcomm.envs.pettingzoo import as_step, logger
from popcomm.envs.worker_process import WorkerProcess, answers, close_all, log_level, timeout_of
from popcomm.envs.world import Species, World, WorldStep
from popcomm.errors import UserError

TIMEOUT = 60.0
# Seconds for a process to import and to make its environments, at least.
STARTING = 300.0


class ProcessWorlds(World):
    """B copies of a ParallelEnv in P processes, which step at the same time; all else is a `ParallelEnvWorld`.

    Worlds are dealt out in order, as evenly as can be; a process steps its own ones one after the other. With the same
    seed the steps are to the last bit those of a ParallelEnvWorld, whatever P is, if an episode of the environment is a
    function of its seed and actions. So are saved states: each of both classes goes on from the other's.

    A process is a Python of its own, started for the purpose, with one thread for torch and BLAS. What the creator is
    goes there by name where it has one, else by value (cloudpickle). Processes end when the worlds are closed or
    forgotten, and when this process ends, however it does.

    Args:
        creator: as ParallelEnvWorld has it.
        num_worlds: B.
        device: where the tensors go.
        processes: P; more than B are B, and None is: one for each world.
        timeout: seconds after which a process that does not answer counts as hanging; for all its worlds together.
        env_config: for the creator; its keys may stand beside the arguments as well.

    Raises:
        UserError: as ParallelEnvWorld; a creator that cannot be pickled; processes or a timeout out of range.
        RuntimeError: as ParallelEnvWorld, with the traceback of the process as its cause; a process that is gone, or
            that hangs, with its world, step and seed, and where it hung as the cause. The others are closed then.
    """

    def __init__(
        self,
        creator: Callable[..., Any],
        num_worlds: int,
        device: str | torch.device = "cpu",
        processes: int | None = None,
        timeout: float = TIMEOUT,
        env_config: Mapping[str, Any] | None = None,
        **keys: Any,
    ) -> None:
        self.num_worlds, self.device = count("num_worlds", num_worlds, 1), torch.device(device)
        wanted = num_worlds if processes is None else count("processes", processes, 1)
        self.timeout = timeout_of("timeout", timeout)
        self._last: WorldStep | None = None
        self._warned = False
        self._workers: list[WorkerProcess] = []
        try:
            packed = cloudpickle.dumps((None, (creator, {**(env_config or {}), **keys})))
        except Exception as error:  # whatever the objects raise
            raise UserError(f"what makes the environment cannot be sent to other processes: {error}") from error
        bounds = np.linspace(0, num_worlds, min(wanted, num_worlds) + 1).round().astype(int).tolist()
        self._parts = [range(a, b) for a, b in pairwise(bounds)]
        self._start(packed)

    def _launch(self, packed: bytes, timeout_set_by: str = "environment.process_timeout") -> list[dict[str, Any]]:
        """Start the processes, and let them make their worlds; what they tell of these.

        Args:
            packed: a pickle of (class of the part of the worlds that is in a process, its own arguments); None for the
                class is `process_child.PartOfWorlds`.
            timeout_set_by: the setting, as users know it.
        """
        self._workers = [WorkerProcess(i, worlds, timeout_set_by) for i, worlds in enumerate(self._parts)]
        known = {"env": packed, "log_level": log_level(), "total": self.num_worlds}
        each = [{**known, "first": worlds[0], "num_worlds": len(worlds)} for worlds in self._parts]
        return self._ask("make", each, max(self.timeout, STARTING))

    def _start(self, packed: bytes) -> None:
        """Start the processes, and let all know what is seen in world 0."""
        first, *others = self._launch(packed)
        for worlds, other in zip(self._parts[1:], others, strict=True):
            if (other["agents"], other["spaces"]) != (first["agents"], first["spaces"]):
                self.close()
                raise UserError(
                    f"copy {worlds[0]} of '{first['name']}' differs from copy 0 in its agents or spaces; all must be "
                    "alike"
                )
        self.name: str = first["name"]
        self.agents: list[Any] = first["agents"]
        self.species: dict[str, Species] = first["species"]
        self.position_size, self.state_size = first["position_size"], first["state_size"]
        self._spaces = first["env_spaces"]
        kept = {key: first[key] for key in ("species", "position_size", "state_size")}
        patience = max(self.timeout, STARTING)
        self._ask("adopt", [{"about": kept}] * len(others), patience, self._workers[1:])
        self.seeds = [0] * self.num_worlds

    @property
    def processes(self) -> list[int]:
        """The ids of the processes."""
        return [worker.pid for worker in self._workers]

    @property
    def env_spaces(self) -> dict[str, tuple[spaces.Space, spaces.Space]]:
        """{species: what one agent observes and does, as the environment says it}."""
        return dict(self._spaces)

    def reset(self, seed: int | None = None) -> WorldStep:
        """Raises UserError, RuntimeError: see the class."""
        arguments = {"seed": seed, "tells_state": self.tells_state}
        return self._publish(self._ask("open_all", [arguments] * len(self._parts)))

    def step(self, actions: dict[str, Tensor], spoken: Tensor | None = None) -> WorldStep:
        """Raises UserError: never reset; UserError, ValueError, RuntimeError: see the class."""
        if self._last is None:
            raise UserError("the worlds were never reset; call reset before step")
        chosen = {name: actions[name].detach().cpu().numpy() for name in self.species}
        symbols = None if spoken is None else spoken.detach().cpu().numpy()
        each = []
        for worlds in self._parts:
            own = slice(worlds[0], worlds[-1] + 1)
            arguments: dict[str, Any] = {"actions": {name: values[own] for name, values in chosen.items()}}
            arguments["spoken"] = None if symbols is None else symbols[own]
            each.append({**arguments, "tells_state": self.tells_state})
        return self._publish(self._ask("step_all", each))

    def get_state(self) -> dict[str, Any] | None:
        """Pickles of the copies, their seed streams and the last row; None (told once in the log) without a pickle."""
        parts = self._ask("save", [{}] * len(self._parts))
        failure = next((part["failure"] for part in parts if "failure" in part), None)
        if failure is not None:
            if not self._warned:
                logger.warning("'%s' cannot be pickled, so its state is not in checkpoints: %s", self.name, failure)
            self._warned = True
            return None
        state: dict[str, Any] = {key: [one for part in parts for one in part[key]] for key in _OF_WORLDS}
        rows = {key: torch.cat([part["rows"][key] for part in parts]) for key in parts[0]["rows"]}
        return {**state, "rows": rows}

    def set_state(self, state: dict[str, Any]) -> WorldStep:
        """Raises UserError: the state is of another number of worlds."""
        if len(state["streams"]) != self.num_worlds:
            raise UserError(f"the state is of {len(state['streams'])} worlds, and there are {self.num_worlds}")
        return self._publish(self._ask("load", [{"state": state}] * len(self._parts)))

    def render(self, world: int = 0, links: Tensor | None = None) -> np.ndarray:
        """The copy's own picture; it knows nothing of links. Raises UserError: render_mode is not "rgb_array"."""
        place = next(i for i, worlds in enumerate(self._parts) if world in worlds)
        arguments = {"world": world - self._parts[place][0]}
        return self._ask("render", [arguments], workers=self._workers[place : place + 1])[0]

    def close(self) -> None:
        """End the processes; the worlds cannot be used any more."""
        close_all(self._workers)
        self._workers = []

    def _ask(
        self,
        command: str,
        each: list[dict[str, Any]],
        patience: float | None = None,
        workers: list[WorkerProcess] | None = None,
    ) -> list[Any]:
        """Send to each worker what is its own, and wait for all answers; see `answers` for what is raised."""
        workers = self._workers if workers is None else workers
        if not self._workers:
            raise UserError("these worlds were closed; make new ones")
        patience = self.timeout if patience is None else patience
        try:
            for worker, arguments in zip(workers, each, strict=True):
                worker.ask(command, arguments, patience)
            return answers(workers, command, patience)
        except BaseException as error:
            # Answers that nobody waited for would be taken for those of the next command.
            if command in ("make", "adopt") or type(error) not in (UserError, ValueError):
                self.close()
            raise

    def _publish(self, parts: list[dict[str, Any]]) -> WorldStep:
        arrays = {key: np.concatenate([part["arrays"][key] for part in parts]) for key in parts[0]["arrays"]}
        self.seeds = [seed for part in parts for seed in part["seeds"]]
        self._last = as_step(arrays, self)
        return self._last


_OF_WORLDS = ("envs", "streams", "episodes")
