"""A process of `ProcessWorlds`: some of its worlds, stepped when it is told to. It ends with whoever started it.

Started as `python -m popcomm.envs.process_child SOCKET NOTES`, two open files: commands come and answers go by the
first; in the second it is noted which world is at work and, when the signal SIGUSR1 asks for it, where in the code.
"""

from __future__ import annotations

import faulthandler
import logging
import mmap
import os
import pickle
import select
import signal
import struct
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

import cloudpickle
import numpy as np
import torch
from torch import Tensor

from popcomm.envs.env_pickle import dump_envs, loaded_envs
from popcomm.envs.foreign_state import StateReader
from popcomm.envs.pettingzoo import ParallelEnvWorld
from popcomm.envs.world import WorldStep
from popcomm.errors import UserError

# The world at work (-1 none), the step, and the seed of its episode; the traceback that was asked for comes after it.
NOTE = struct.Struct("qqq")
GRACE = 3.0  # seconds in which environments may close when the parent is gone
UNANSWERED = 60.0  # seconds after which a command that the parent gave up ends this process, whatever it does


class PartOfWorlds(ParallelEnvWorld):
    """Some of B worlds: numbers, seeds and episodes are those that a ParallelEnvWorld of all B would have.

    Args:
        creator, env_config: as ParallelEnvWorld has them.
        first: the number of the first of these worlds.
        num_worlds: of these.
        total: B.
        note: called with (world, step, seed) before each is at work, and with world -1 after.
    """

    def __init__(
        self,
        creator: Callable[..., Any],
        env_config: dict[str, Any],
        first: int,
        num_worlds: int,
        total: int,
        note: Callable[[int, int, int], None] = lambda world, step, seed: None,
    ) -> None:
        self._first, self._total, self._note = first, total, note
        super().__init__(creator, num_worlds, env_config=env_config)

    def _look(self, groups: dict[str, list[Any]]) -> None:
        # An episode that is opened to be looked at may leave something in the environment: it is opened in world 0, as
        # where all worlds are in one process, and nowhere else.
        if self._first == 0:
            super()._look(groups)

    def adopt(self, about: dict[str, Any]) -> None:
        """Take from another part what was seen in world 0."""
        state = StateReader(self._envs[0], about["state_size"])
        self._settle(about["species"], about["position_size"], state)

    def about(self) -> dict[str, Any]:
        """What is known of the environment; of world 0 all that a World tells of itself."""
        env = self._envs[0]
        spaces = [(env.observation_space(agent), env.action_space(agent)) for agent in self._agents]
        found: dict[str, Any] = {"name": str(env), "agents": self._agents, "spaces": spaces}
        if self._first == 0:
            keys = ("species", "position_size", "state_size", "env_spaces")
            found |= {key: getattr(self, key) for key in keys}
        return found

    # ---- what the parent asks for ----

    def tell(self) -> dict[str, Any]:
        """What is told after each step: the arrays that are read, and the seeds of the episodes."""
        unread = {"returned"} | ({"state"} if not self.tells_state else set())
        return {"arrays": {k: v for k, v in self._rows.arrays.items() if k not in unread}, "seeds": self.seeds}

    def open_all(self, seed: int | None, tells_state: bool) -> dict[str, Any]:
        self.tells_state = tells_state
        self.reset(seed)
        return self.tell()

    def step_all(self, actions: dict[str, np.ndarray], spoken: np.ndarray | None, tells_state: bool) -> dict[str, Any]:
        self.tells_state = tells_state
        symbols: Tensor | None = None if spoken is None else torch.from_numpy(spoken)
        self.step({name: torch.from_numpy(chosen) for name, chosen in actions.items()}, symbols)
        return self.tell()

    def save(self) -> dict[str, Any]:
        """`get_state`; or why there is none."""
        self._warned = True  # the parent says it
        return self.get_state() or {"failure": self.pickle_failure}

    def _dumped(self) -> list[bytes]:
        """One by one, so that they can go on in other processes."""
        return [dump_envs([env]) for env in self._envs]

    def load(self, state: dict[str, Any]) -> dict[str, Any]:
        """Go on from the whole state of B worlds, of which these take their own."""
        own = slice(self._first, self._first + self.num_worlds)
        parts = {key: state[key][own] for key in ("streams", "episodes")}
        envs = state["envs"][own] if isinstance(state["envs"], list) else [dump_envs(loaded_envs(state["envs"])[own])]
        self.set_state({**parts, "envs": envs, "rows": {key: row[own] for key, row in state["rows"].items()}})
        return self.tell()

    # ---- of the whole ----

    def _publish(self) -> WorldStep:
        """Nothing here reads the step: the parent is told the arrays."""
        self._last = self._last or NOBODY_LOOKS
        return self._last

    def _new_streams(self, seed: int | None) -> list[np.random.Generator]:
        children = np.random.SeedSequence(seed).spawn(self._total)[self._first : self._first + self.num_worlds]
        return [np.random.default_rng(child) for child in children]

    def _number(self, world: int) -> int:
        return self._first + world

    @contextmanager
    def _blame(self, world: int) -> Iterator[None]:
        at = self._episode[world]
        self._note(self._first + world, at["step"], at["seed"])
        with super()._blame(world):
            yield
        self._note(-1, 0, 0)


NOTHING = torch.empty(0)
NOBODY_LOOKS = WorldStep({}, NOTHING, NOTHING, NOTHING, NOTHING, NOTHING)


def main(socket: int, notes: int) -> None:
    """Obey the commands that come by the socket until there are no more."""
    connection = Connection(socket)
    threading.Thread(target=_end_with_parent, args=(socket,), daemon=True).start()
    page = mmap.mmap(notes, NOTE.size)
    # In C, so that it answers also where Python's lock is held.
    faulthandler.register(signal.SIGUSR1, file=notes, all_threads=False)
    torch.set_num_threads(1)  # the processes share the cores
    part: Any = None

    def obey(command: str, arguments: dict[str, Any]) -> Any:
        nonlocal part
        if command == "make":
            part = _made(page, **arguments)
            return part.about()
        return getattr(part, command)(**arguments)

    try:
        while True:
            command, arguments, patience = pickle.loads(connection.recv_bytes())
            # The kernel's: it ends also what holds Python's lock, where nobody is left to do so.
            signal.alarm(int(patience + UNANSWERED) + 1)
            answer = _answer(obey, command, arguments)
            signal.alarm(0)
            connection.send_bytes(_packed(answer))
    except (EOFError, OSError):  # the parent closed its end, or is gone
        pass
    finally:
        if part is not None:
            signal.alarm(int(GRACE) + 1)
            part.close()


def _made(page: mmap.mmap, env: bytes, log_level: int, **which: Any) -> Any:
    make_part, arguments = pickle.loads(env)
    logging.getLogger("popcomm.envs").setLevel(log_level)

    def note(world: int, step: int, seed: int) -> None:
        NOTE.pack_into(page, 0, world, step, seed)

    note(-1, 0, 0)
    make: Callable[..., Any] = make_part or PartOfWorlds
    return make(*arguments, note=note, **which)


def _answer(obey: Callable[..., Any], command: str, arguments: dict[str, Any]) -> tuple[str, Any]:
    """("done", what came of it), or ("error", (kind, sentence, traceback))."""
    try:
        return "done", obey(command, arguments)
    except Exception as error:  # all of it is the parent's to tell
        kind = "user" if isinstance(error, UserError) else "value" if type(error) is ValueError else "other"
        plain = type(error) is RuntimeError or kind != "other"
        sentence = str(error) if plain else f"{type(error).__name__}: {error}"
        return "error", (kind, sentence, traceback.format_exc())


def _packed(answer: tuple[str, Any]) -> bytes:
    """An answer to be sent: by names where there are, else by value, as what makes the environment came here."""
    failure = ("other", "", "")
    for dumps in (pickle.dumps, cloudpickle.dumps):
        try:
            return dumps(answer, protocol=pickle.HIGHEST_PROTOCOL)
        except Exception as error:  # whatever the objects raise; the parent tells it
            sentence = f"what the environment tells of itself cannot be sent to the training: {error}"
            failure = ("other", sentence, traceback.format_exc())
    return pickle.dumps(("error", failure))


def _end_with_parent(socket: int) -> None:
    """Wait until the other end is closed, and end what does not end by itself then, and all that it started."""
    poll = select.poll()
    poll.register(socket, 0)  # asks for nothing but the hanging up
    while not any(event & (select.POLLHUP | select.POLLERR) for _, event in poll.poll()):
        pass
    time.sleep(GRACE)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
