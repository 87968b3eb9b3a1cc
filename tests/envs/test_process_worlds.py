"""Worlds in processes of their own beside the same worlds in this one, and what becomes of processes that fail."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from gymnasium import spaces

from popcomm import envs
from popcomm.envs import ParallelEnvWorld, ProcessWorlds
from popcomm.envs.making import make_world
from popcomm.envs.process_child import PartOfWorlds
from popcomm.envs.testing import _assert_same
from popcomm.envs.world import World, WorldStep
from popcomm.errors import UserError
from tests.envs.faulty_env import FaultyEnv, made

# Of the first episodes of four worlds with this seed, that of world 3 alone has an odd one.
ODD_IN_WORLD_3 = 2


@pytest.fixture(scope="module")
def pair() -> Iterator[ProcessWorlds]:
    """Five worlds in two processes, made once: a Python takes a second of CPU to start."""
    worlds = ProcessWorlds(made, 5, processes=2, render_mode="rgb_array")
    yield worlds
    worlds.close()


def played(world: World, seed: int | None, steps: int = 14, generator: int = 0) -> list[WorldStep]:
    """Steps with random actions and prices of talk, over several episodes."""
    draws = torch.Generator().manual_seed(generator)
    rows = [world.reset(seed)] if seed is not None else []
    for _ in range(steps):
        actions = torch.randint(2, (world.num_worlds, 2), generator=draws)
        rows.append(world.step({"a": actions}, torch.rand(world.num_worlds, 2, generator=draws)))
    return rows


def assert_alike(expected: list[WorldStep], found: list[WorldStep]) -> None:
    for step, (one, other) in enumerate(zip(expected, found, strict=True)):
        _assert_same(one, other, f"row {step}")


def gone(pid: int, seconds: float = 15.0) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        stat = Path(f"/proc/{pid}/stat")
        try:
            if stat.read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.05)
    return False


class TestBesideOneProcess:
    def test_steps_are_to_the_last_bit_those_of_worlds_in_one_process(self, pair: ProcessWorlds) -> None:
        alone = ParallelEnvWorld(made, 5)
        for seed in (3, 4):
            assert_alike(played(alone, seed), played(pair, seed))
            assert pair.seeds == alone.seeds
        assert_alike([alone.reset()], [pair.reset()])
        assert envs.ProcessWorlds is ProcessWorlds

    def test_it_tells_of_itself_what_one_process_tells(self, pair: ProcessWorlds) -> None:
        alone = ParallelEnvWorld(made, 5)
        for key in ("species", "num_agents", "position_size", "state_size", "agents", "env_spaces", "torus"):
            assert getattr(pair, key) == getattr(alone, key)
        assert pair.processes[0] != pair.processes[1]
        assert os.getpid() not in pair.processes

    def test_a_state_that_nobody_reads_is_not_told(self, pair: ProcessWorlds) -> None:
        pair.tells_state = False
        assert pair.reset(0).state is None
        pair.tells_state = True
        assert pair.reset(0).state is not None

    def test_a_saved_state_goes_on_in_as_many_processes_as_there_are(self, pair: ProcessWorlds) -> None:
        alone = ParallelEnvWorld(made, 5, render_mode="rgb_array")
        played(pair, 7, steps=3)
        played(alone, 7, steps=3)
        saved, saved_alone = pair.get_state(), alone.get_state()
        expected = played(alone, None, generator=1)
        assert saved is not None
        assert saved_alone is not None
        twin = ParallelEnvWorld(made, 5)
        twin.set_state(saved)
        assert_alike(expected, played(twin, None, generator=1))
        for state in (saved, saved_alone):
            pair.reset(0)
            pair.set_state(state)
            assert_alike(expected, played(pair, None, generator=1))

    def test_a_picture_is_that_of_the_world(self, pair: ProcessWorlds) -> None:
        pair.reset(0)
        pair.step({"a": torch.zeros(5, 2, dtype=torch.int64)})
        assert pair.render(4).tolist() == [[[1] * 3] * 4] * 4

    def test_a_state_of_other_worlds_is_refused(self, pair: ProcessWorlds) -> None:
        alone = ParallelEnvWorld(made, 2)
        alone.reset(0)
        with pytest.raises(UserError, match="the state is of 2 worlds, and there are 5"):
            pair.set_state(alone.get_state())  # type: ignore[arg-type]


class TestMaking:
    def test_lambdas_local_classes_and_keywords_reach_the_processes(self) -> None:
        class Local(FaultyEnv):
            def state(self) -> Any:
                return super().state() + 41

        world = ProcessWorlds(lambda config: Local(**config), 1, milliseconds=0.1)
        try:
            step = world.reset(0)
            assert step.state is not None
            assert step.state.tolist() == [[41.0]]
        finally:
            world.close()

    def test_what_the_environment_tells_of_itself_may_be_of_classes_without_a_name(self) -> None:
        class Named(spaces.Discrete):
            pass

        class Local(FaultyEnv):
            def action_space(self, agent: str) -> spaces.Space:
                return Named(2)

        world = ProcessWorlds(Local, 2)
        try:
            assert type(world.env_spaces["a"][1]).__name__ == "Named"
            assert_alike(played(ParallelEnvWorld(Local, 2), 3, 2), played(world, 3, 2))
        finally:
            world.close()

    @pytest.mark.parametrize("key", ["creator", "num_worlds", "device", "env_config", "total", "first", "timeout"])
    def test_every_key_of_an_env_config_reaches_the_environment(self, key: str) -> None:
        given: list[dict[str, Any]] = []

        def creator(config: dict[str, Any]) -> FaultyEnv:
            given.append(config)
            return FaultyEnv()

        make_world(creator, {key: 7}, 1)
        PartOfWorlds(creator, {key: 7}, first=0, num_worlds=1, total=1)
        assert given == [{key: 7}] * 2

    def test_species_can_be_named_and_there_are_no_more_processes_than_worlds(self) -> None:
        world = make_world(made, {}, 1, species={"one": ["a_1"], "other": ["a_0"]}, processes=3)
        assert list(world.species) == ["one", "other"]
        assert len(world.processes) == 1
        world.close()

    def test_a_mistake_in_the_environment_is_the_same_sentence(self) -> None:
        config = {"fault": "nan", "actions": 0}
        with pytest.raises(Exception, match="positive") as alone:
            ParallelEnvWorld(made, 1, **config)
        with pytest.raises(RuntimeError, match="positive") as apart:
            ProcessWorlds(made, 1, **config)
        assert str(alone.value) in str(apart.value)
        assert "in __init__" in str(apart.value.__cause__)

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"processes": 0}, "processes is 0, and must be a whole number of at least 1"),
            ({"timeout": 0}, "timeout is 0, and must be above 0, and at most 1000000 seconds"),
            ({"timeout": 1e10}, "timeout is 10000000000.0, and must be above 0, and at most 1000000 seconds"),
            ({"timeout": float("inf")}, "timeout is inf, and must be above 0, and at most 1000000 seconds"),
            ({"fault": threading.Lock()}, "cannot be sent to other processes: .*lock"),
        ],
    )
    def test_what_cannot_be_is_said_before_a_process_starts(self, options: dict[str, Any], words: str) -> None:
        with pytest.raises(UserError, match=words):
            ProcessWorlds(made, 2, **options)

    @pytest.mark.parametrize(
        ("worlds", "processes", "parts"), [(3, None, [1, 1, 1]), (5, 2, [2, 3]), (2, 9, [1, 1]), (7, 3, [2, 3, 2])]
    )
    def test_worlds_are_dealt_out_in_order_one_each_unless_it_is_said(
        self, worlds: int, processes: int | None, parts: list[int], monkeypatch: Any
    ) -> None:
        monkeypatch.setattr(ProcessWorlds, "_start", lambda self, packed: None)
        dealt = ProcessWorlds(made, worlds, processes=processes)._parts
        assert [len(part) for part in dealt] == parts
        assert [world for part in dealt for world in part] == list(range(worlds))

    def test_worlds_that_are_stepped_together_have_no_processes(self) -> None:
        with pytest.raises(UserError, match="processes is 2, and swarm_v0 steps all of its worlds together"):
            make_world("swarm_v0", {}, 2, processes=2)


@pytest.fixture(scope="module")
def faults() -> Callable[..., ProcessWorlds]:
    return lambda fault, processes=1, **rest: ProcessWorlds(made, 4, processes=processes, fault=fault, odd=True, **rest)


class TestFaults:
    def failed(self, world: ProcessWorlds, kind: type[Exception]) -> Exception:
        with pytest.raises(kind) as found:
            played(world, ODD_IN_WORLD_3)
        return found.value

    def test_an_error_is_that_of_one_process_with_the_traceback_of_the_environment(self, faults: Any) -> None:
        world = faults("raise")
        pids = world.processes
        error = self.failed(world, RuntimeError)
        alone = self.failed(ParallelEnvWorld(made, 4, fault="raise", odd=True), RuntimeError)  # type: ignore[arg-type]
        assert str(error) == str(alone)
        assert "world 3 failed in step 3" in str(error)
        assert "in _fail" in str(error.__cause__)
        assert "no such road" in str(error.__cause__)
        assert all(gone(pid) for pid in pids)
        with pytest.raises(UserError, match="were closed"):
            world.reset(0)

    def test_data_that_end_are_an_error_with_its_world_as_any_other(self) -> None:
        error = self.failed(ParallelEnvWorld(made, 4, fault="stop", odd=True), RuntimeError)  # type: ignore[arg-type]
        assert "'faulty', world 3 failed in step 3 of the episode with seed" in str(error)
        assert str(error).endswith("StopIteration: no more data")

    def test_a_number_that_cannot_be_is_a_users_mistake_and_worlds_can_be_reset(self, faults: Any) -> None:
        world = faults("nan")
        assert "world 3 failed in step 3" in str(self.failed(world, UserError))
        assert_alike(played(ParallelEnvWorld(made, 4), 5, 2), played(world, 5, 2))
        world.close()

    def test_a_hanging_process_is_found_named_and_ended(self, faults: Any) -> None:
        world = faults("spin", processes=2, timeout=1.0)
        pids = world.processes
        error = self.failed(world, RuntimeError)
        assert f"process 1 (pid {pids[1]}, worlds 2 to 3) did not make a step within 1 s" in str(error)
        assert "at work was world 3, in step 3 of the episode with seed" in str(error)
        assert "in _fail" in str(error.__cause__)
        assert all(gone(pid) for pid in pids)

    def test_a_process_that_is_gone_is_named(self, faults: Any) -> None:
        world = faults("exit")
        error = self.failed(world, RuntimeError)
        assert "worlds 0 to 3) ended with status 3 when it was to make a step; at work was world 3" in str(error)

    def test_environments_that_do_not_pickle_have_no_state(self, caplog: Any) -> None:
        world = ProcessWorlds(made, 1, pickles=False)
        world.reset(0)
        assert world.get_state() is None
        assert world.get_state() is None
        assert caplog.text.count("cannot be pickled") == 1
        world.close()


OWNER = """
import sys, torch
from popcomm.envs import ProcessWorlds
from tests.envs.faulty_env import made
world = ProcessWorlds(made, 2, processes=1, fault=sys.argv[1] or None, closed=sys.argv[2])
print(*world.processes, flush=True)
world.reset(0)
while True:
    world.step({"a": torch.zeros(2, 2, dtype=torch.int64)})
"""


@pytest.mark.slow
class TestEnds:
    def owner(self, fault: str, file: Path) -> tuple[subprocess.Popen[str], list[int]]:
        """A program with two worlds, and the ids of its processes."""
        variables = {**os.environ, "PYTHONPATH": os.pathsep.join(p or os.getcwd() for p in sys.path)}
        program = subprocess.Popen(
            [sys.executable, "-c", OWNER, fault, str(file)], stdout=subprocess.PIPE, text=True, env=variables
        )
        assert program.stdout is not None
        return program, [int(pid) for pid in program.stdout.readline().split()]

    def test_no_process_outlives_a_program_that_was_killed_and_environments_are_closed(self, tmp_path: Path) -> None:
        program, pids = self.owner("", tmp_path / "closed")
        program.send_signal(signal.SIGKILL)
        program.wait()
        assert all(gone(pid) for pid in pids)
        assert (tmp_path / "closed").read_text() == "closed\n" * 2

    def test_not_even_one_that_hangs(self, tmp_path: Path) -> None:
        program, pids = self.owner("spin", tmp_path / "closed")
        time.sleep(1.0)  # the third step comes at once
        program.send_signal(signal.SIGKILL)
        program.wait()
        assert all(gone(pid) for pid in pids)

    def test_worlds_that_are_forgotten_close(self, tmp_path: Path) -> None:
        world = ProcessWorlds(made, 1, closed=str(tmp_path / "closed"))
        (pid,) = world.processes
        del world
        assert gone(pid)
        assert (tmp_path / "closed").read_text() == "closed\n"
