"""The benchmarks measure what they say, on sizes so small that nothing is learned from the numbers."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import pytest
import torch
from pettingzoo.test import parallel_api_test
from popcomm.analysis.benchmarks import __main__ as program
from popcomm.analysis.benchmarks import attention, figure, memory, overlap, peers, routing, scaling, training, worlds
from popcomm.analysis.benchmarks.bare_loop import BareLoop
from popcomm.analysis.benchmarks.common import Measurement, alternating, median_ratio, rate, table
from popcomm.analysis.benchmarks.free_world import OBS_SIZE, FreeMultiAgentEnv, FreeParallelEnv, FreeWorld
from popcomm.analysis.benchmarks.overlap import Spent
from popcomm.analysis.benchmarks.tally import Contender, account, accounts, calls_of


def sane(measurements: list[Measurement]) -> bool:
    return bool(measurements) and all(math.isfinite(m.value) and m.value > 0 for m in measurements)


def test_a_bar_is_passed_from_its_own_side() -> None:
    assert Measurement("b", "c", 2.0, "times", 1.5).passed
    assert not Measurement("b", "c", 2.0, "times", 1.5, at_most=True).passed
    assert Measurement("b", "c", 2.0, "times").passed is None


def test_a_rate_is_all_work_over_all_cpu_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that reads 0, 1, 2, ... and five units of work between two looks at it: 3 rounds fill 2.5 seconds."""
    ticks = iter(range(10))
    monkeypatch.setattr("time.process_time", lambda: next(ticks))
    done: list[int] = []

    def work() -> int:
        done.append(5)
        return 5

    assert rate(work, min_seconds=2.5) == 15 / 3
    assert len(done) == 3


def test_contenders_take_turns_after_a_warm_up() -> None:
    calls: list[str] = []

    def contender(name: str) -> int:
        calls.append(name)
        return sum(range(20_000)) and 1

    rates = alternating({"a": lambda: contender("a"), "b": lambda: contender("b")}, repetitions=2)
    assert calls == ["a", "b"] * 3
    assert [len(r) for r in rates.values()] == [2, 2]


def test_the_ratio_is_taken_between_neighbours() -> None:
    assert median_ratio([10.0, 1.0, 8.0], [5.0, 0.5, 1.0]) == 2.0


def test_the_table_shows_bar_and_verdict() -> None:
    lines = table([Measurement("b", "slow", 3.0, "times", 1.5, at_most=True)]).splitlines()
    assert [cell.strip() for cell in lines[2].strip("|").split("|")] == ["b", "slow", "3 times", "<= 1.5", "FAIL"]


def test_the_free_environments_are_one_and_the_same_size() -> None:
    world, env = FreeWorld(2, num_agents=3, max_steps=4), FreeMultiAgentEnv({"num_agents": 3, "max_steps": 4})
    step, (observations, _) = world.reset(), env.reset()
    assert step.observations["free"].shape == (2, len(observations), OBS_SIZE)
    for t in range(1, 5):
        step = world.step({"free": torch.zeros(2, 3, dtype=torch.int64)})
        _, rewards, _, truncated, _ = env.step({})
        assert len(rewards) == 3
        assert bool(step.truncated.all()) == truncated["__all__"] == (t == 4)
    assert world.step({}).first.all()


def test_the_free_environment_through_dicts_has_the_same_numbers() -> None:
    parallel_api_test(FreeParallelEnv(num_agents=3, max_steps=4), num_cycles=10)
    env, twin = FreeParallelEnv(3, 4), FreeMultiAgentEnv({"num_agents": 3, "max_steps": 4})
    assert env.reset()[0] is not None
    twin.reset()
    for _ in range(4):
        observations, rewards, *_ = env.step({})
        others, same, *_ = twin.step({})
        assert rewards == same
        assert all((observations[agent] == others[agent]).all() for agent in others)
    assert env.agents == []


class Loop:
    """Trains networks that are given, each with an optimizer of its own; two rows a step, one of them padding."""

    def __init__(self, networks: int, updates: int) -> None:
        self.networks = [torch.nn.Linear(2, 1) for _ in range(networks)]
        self.optimizers = [torch.optim.SGD(network.parameters()) for network in self.networks]
        self.updates = updates

    def learn(self, rows: int) -> None:
        for network, optimizer in zip(self.networks, self.optimizers, strict=True):
            network(torch.ones(rows, 2)).sum().backward()
            optimizer.step()

    def work(self) -> int:
        for _ in range(self.updates):
            self.learn(2)
        return 10

    def contender(self) -> Contender:
        def watch(tally):  # type: ignore
            def count(rows: int) -> None:
                tally.rows += 1
                tally.padded += rows - 1

            return calls_of(self, "learn", count)

        return Contender(self.work, watch)


def test_optimizer_steps_are_those_of_each_weight_however_many_optimizers_there_are() -> None:
    for networks in (1, 3):
        tally, done = account(Loop(networks, updates=4).contender())
        assert (tally.steps, tally.rows, tally.padded, done) == (4, 4, 4, 10)


def test_unequal_work_is_told() -> None:
    """One contender makes twice the updates of the other for as much work."""
    measured = accounts("b", "c", {"a": Loop(1, 2).contender(), "b": Loop(2, 4).contender()}, "row")
    values = {m.case: m.value for m in measured}
    assert values["c: a: rows"] == 0.2
    assert values["c: b: padded rows"] == 0.4
    assert measured[-1].value == 2.0
    assert measured[-1].passed is False
    assert accounts("b", "c", {"a": Loop(1, 2).contender(), "b": Loop(1, 2).contender()}, "row")[-1].passed


def test_what_is_watched_is_itself_again_afterwards() -> None:
    loop, seen = Loop(1, 1), []
    with calls_of(loop, "learn", seen.append):
        loop.work()
    loop.work()
    assert seen == [2]


def test_peers_that_are_not_there_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert not peers._there("json", "no_such_peer")
    assert "no_such_peer not installed" in capsys.readouterr().out
    assert peers._there("json")


@pytest.mark.parametrize("mode", peers.MODES)
def test_a_game_beside_egg_has_as_many_rows_in_an_update(mode: str) -> None:
    config = peers.game_config(mode, 128, 6)
    config.validate()
    assert config.minibatch_size * config.rollout_fragment_length == 128
    assert config.num_worlds_per_env_runner == 6 * config.minibatch_size
    assert config.num_epochs == 1
    assert peers.messages_of(config) == pytest.approx(6 * 128 * 31 / 33)


def test_the_bare_loop_trains_every_member_alike() -> None:
    torch.manual_seed(0)
    loop = BareLoop(worlds=4, agents=3, members=3, length=4, epochs=1, minibatches=2)
    before = [w.detach().clone() for w in loop.weights]
    assert loop.iterate() == 4 * 3 * 4
    assert all(((w - b).flatten(1).abs().amax(1) > 0).all() for w, b in zip(loop.weights, before, strict=True))


def test_the_worlds_step_as_often_as_they_say() -> None:
    work = worlds.RandomActions(2, 3)
    calls: list[int] = []
    step = work.world.step
    work.world.step = lambda actions: calls.append(actions["swarm"].numel()) or step(actions)  # type: ignore
    assert work.steps(5) == sum(calls) == 30


@pytest.mark.skipif(sys.platform != "linux", reason="reads the kernel's high-water mark")
def test_the_peak_of_a_rollout_is_at_least_its_arrays() -> None:
    case = {"messages": None, "agents": 50, "worlds": 16, "length": 32}
    # A kernel that is short of memory takes pages away meanwhile, and the growth is then not seen: not in three runs.
    for _ in range(3):
        arrays, ratio, above = memory.measure("small", case)
        if ratio.value > 0.9:
            break
    assert arrays.value > 1
    assert 0.9 < ratio.value < 10
    assert above.value == pytest.approx(arrays.value * 1024 * (ratio.value - 1) / (50 * 16))


def test_the_figure_has_a_curve_for_each_sweep(tmp_path: Path) -> None:
    points = [Measurement("scaling", f"ring: {n} agents", n, "us / agent-step", samples=(n, n + 1)) for n in (10, 20)]
    points += [Measurement("scaling", "P: 4 members", 1.0, "us / agent-step", samples=(1.0,))]
    assert {name: [x for x, _ in c] for name, c in figure.curves(points).items()} == {
        "ring, by agents": [10, 20],
        "P, by members": [4],
    }
    figure.draw(points, tmp_path / "f.png")
    assert (tmp_path / "f.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.system
@pytest.mark.usefixtures("ray_cluster")
def test_training_is_measured_beside_rllib_and_the_bare_loop() -> None:
    measured = training.measure(training.Case(4, 8, 4, distinct=True), repetitions=1, min_seconds=0.0)
    assert sane([m for m in measured if "padded" not in m.case])
    value = {m.case.split(": ", 1)[1]: m.value for m in measured if m.case.count(": ") == 1}
    names = {"popcomm", training.THROUGH_DICTS, "bare loop", "RLlib"}
    assert names | {f"popcomm / {name}" for name in names - {"popcomm"}} < set(value)
    assert value["popcomm / RLlib"] == pytest.approx(value["popcomm"] / value["RLlib"])
    # Four epochs of all rows, in sixteen updates; RLlib has a row of padding for each agent in a fragment, here of four
    # steps at least, and makes as many updates more.
    counted = {m.case.split(": ", 1)[1]: m.value for m in measured}
    for name in names:
        assert counted[f"{name}: rows"] == pytest.approx(4.0, rel=0.1)
        assert 16 <= counted[f"{name}: optimizer steps"] <= 20
        assert counted[f"{name}: padded rows"] <= 1.0
    assert counted["bare loop: optimizer steps"] == counted["popcomm: optimizer steps"] == 16


@pytest.mark.system
@pytest.mark.usefixtures("ray_cluster")
def test_scaling_is_measured_for_every_size() -> None:
    configs = {f"{n} agents": scaling.scaled_config(n, 1, 64, {"kind": "ring", "k": 2}) for n in (4, 8)}
    measured = scaling.measure("ring", configs, "4 agents", 1.5, repetitions=1)
    assert sane(measured)
    times = [m.value for m in measured[:2]]
    assert measured[2].value == pytest.approx(max(times) / min(times))


def test_the_program_writes_what_it_prints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    program.main(["--only", "worlds", "--quick", "--out", str(tmp_path)])
    written = json.loads((tmp_path / "worlds.json").read_text())
    assert {"benchmark", "case", "value", "unit", "bar", "passed", "samples"} <= set(written[0])
    assert (tmp_path / "worlds.md").read_text().strip() in capsys.readouterr().out


def test_the_slope_is_the_power_of_the_agents() -> None:
    made_up = [Measurement("routing", f"routed, {n} agents: time", 3.0 * n**1.5, "ms / pass") for n in (64, 256, 1024)]
    assert routing.slope(made_up, "routed", "ms / pass") == pytest.approx(1.5)


def test_a_pass_of_the_routing_counts_as_one() -> None:
    assert routing.one_pass("routed", 8)() == routing.one_pass("exact", 8)() == 1


def test_the_attention_benchmark_measures_every_contender() -> None:
    assert sane(attention.run(quick=True))


def test_overlap_on_free_cores_hides_the_shorter_of_sampling_and_learning_and_nothing_of_the_rest() -> None:
    """In turn 3 + 2 + 1 s; with overlap, whose rest takes half a second more, 3 + 1.5 s."""
    rates = {"in turn": [100.0, 110.0, 120.0], "overlap": [150.0, 165.0, 240.0]}
    spent = {"in turn": [Spent(3.0, 2.0, 1.0)] * 3, "overlap": [Spent(3.0, 2.0, 1.5), Spent(9.0, 2.0, 1.5)] * 1}
    spent["overlap"].append(Spent(3.0, 2.0, 1.5))
    found = {one.case: one for one in overlap.told(rates, spent, 10)}
    assert found["10 epochs, in turn"].value == 110.0
    assert found["overlap / in turn, median"].samples == (1.5, 1.5, 2.0)
    assert found["overlap / in turn, median"].passed
    free = found["on free cores, by CPU time: overlap / in turn"]
    assert free.value == pytest.approx(6.0 / 4.5)
    assert not free.passed
    assert found["an iteration overlap: sampling"].value == 3.0
