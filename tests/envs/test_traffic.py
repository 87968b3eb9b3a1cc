"""TrafficWorld beside sumo-rl, step by step, on a network written by hand, and in processes of its own."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from popcomm.envs import WORLDS, sumo_nets, traffic_v0
from popcomm.envs.making import make_world
from popcomm.envs.sumo_map import SumoMap, read_map
from popcomm.envs.sumo_nets import NEEDED, check_installed, draw_trips, resco_folder
from popcomm.envs.sumo_waits import Waits
from popcomm.envs.testing import check_step, world_api_test
from popcomm.envs.traffic_picture import draw_traffic
from popcomm.envs.traffic_references import FixedTime, MaxPressure, Randomly, hour
from popcomm.envs.traffic_v0 import Traffic, TrafficWorld
from popcomm.envs.world import WorldStep
from popcomm.errors import UserError

needs_sumo = pytest.mark.skipif(
    any(find_spec(package) is None for package in NEEDED),
    reason="SUMO is not installed: pip install 'popcomm[traffic]'",
)

# A street from w over a light at c to e, and one from n that ends there; at c there are two green phases.
HAND_MADE = """<net>
  <edge id=":c_0" function="internal"><lane id=":c_0_0" index="0" length="9" shape="0,0 1,0"/></edge>
  <edge id="wc" from="w" to="c"><lane id="wc_0" index="0" length="90" shape="0,0 90,0"/></edge>
  <edge id="nc" from="n" to="c"><lane id="nc_0" index="0" length="60" shape="100,70 100,10"/></edge>
  <edge id="ce" from="c" to="e"><lane id="ce_0" index="0" length="80" shape="110,0 150,0 190,0"/></edge>
  <edge id="cn" from="c" to="n"><lane id="cn_0" index="0" length="60" shape="103,10 103,70"/></edge>
  <tlLogic id="light" type="static" programID="0" offset="0">
    <phase duration="20" state="Gr"/><phase duration="3" state="yr"/><phase duration="2" state="rr"/>
    <phase duration="11" state="sG"/><phase duration="4" state="ry"/>
  </tlLogic>
  <junction id="w" type="dead_end" x="0" y="0"/><junction id="e" type="dead_end" x="200" y="0"/>
  <junction id="n" type="dead_end" x="100" y="80"/><junction id="c" type="traffic_light" x="100" y="0"/>
  <connection from="nc" to="ce" fromLane="0" toLane="0" via=":c_0_0" tl="light" linkIndex="1"/>
  <connection from="wc" to="ce" fromLane="0" toLane="0" via=":c_0_0" tl="light" linkIndex="0"/>
  <connection from=":c_0" to="ce" fromLane="0" toLane="0"/>
</net>"""


@pytest.fixture
def plan(tmp_path: Path) -> SumoMap:
    (tmp_path / "hand.net.xml").write_text(HAND_MADE)
    return read_map(tmp_path / "hand.net.xml")


@pytest.fixture(scope="module")
def town() -> Iterator[TrafficWorld]:
    """Two grids of four lights with heavy traffic, made once: a process takes seconds to start."""
    world = TrafficWorld(2, net="grid", size=2, demand=900, max_steps=24)
    yield world
    world.close()


def acted(world: TrafficWorld, steps: int, seed: int = 3) -> list[WorldStep]:
    """An episode's beginning under random actions."""
    script, rows = Randomly(), [world.reset(seed)]
    for _ in range(steps):
        rows.append(world.step(script(world)))
    return rows


class TestMap:
    def test_lights_lanes_and_phases_are_those_of_the_file(self, plan: SumoMap) -> None:
        assert (plan.signals, plan.lanes) == (("light",), ("wc_0", "nc_0", "ce_0", "cn_0"))
        assert plan.greens == (("Gr", "sG"),)
        assert plan.durations == ((25.0, 15.0),)  # with yellow and red after them
        assert plan.links == (((0, 2, 0), (1, 2, 1)),)
        assert (plan.incoming, plan.outgoing) == (((0, 1),), ((2,),))
        assert plan.lengths.tolist() == [90, 60, 80, 60]
        assert plan.positions.tolist() == [[100, 0]]
        assert plan.shapes[2].tolist() == [[110, 0], [150, 0], [190, 0]]

    def test_a_gate_is_a_dead_end_that_leads_in_and_out(self, plan: SumoMap) -> None:
        assert (plan.entrances, plan.exits) == ({"n": "nc"}, {"n": "cn"})

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("<net/>", "has no traffic lights"),
            ("<net", "is no network of SUMO's"),
            ('<net><tlLogic id="a"><phase duration="3" state="yr"/></tlLogic></net>', "'a' has no green phase"),
        ],
    )
    def test_files_that_are_no_networks_with_lights_are_told(self, tmp_path: Path, text: str, words: str) -> None:
        (tmp_path / "bad.net.xml").write_text(text)
        with pytest.raises(UserError, match=words):
            read_map(tmp_path / "bad.net.xml")


class TestWaits:
    def test_a_vehicle_leaves_on_a_lane_what_it_waited_there(self) -> None:
        waits, waited = Waits(), {"a": 30.0, "b": 5.0}
        assert waits.on(0, ("a", "b"), waited.__getitem__) == 35.0
        waited["a"] = 70.0
        assert waits.on(1, ("a",), waited.__getitem__) == 40.0
        waited["a"] = 75.0  # and back on the first lane
        assert waits.on(0, ("a",), waited.__getitem__) == 35.0

    def test_the_reward_is_by_how_much_less_is_waited(self) -> None:
        waits = Waits()
        assert waits.less(np.array([100.0, 0.0])).tolist() == [-1.0, 0.0]
        assert waits.less(np.array([40.0, 50.0])).tolist() == [0.6, -0.5]


@needs_sumo
class TestBesideSumoRL:
    def test_observations_and_rewards_are_those_of_sumo_rl_to_the_last_bit(self, tmp_path: Path) -> None:
        """All of RESCO's towns that differ in kind, and all rewards; both in one process after the other."""
        command = [sys.executable, "-m", "tests.envs.sumo_rl_reference", str(tmp_path / "both.npz")]
        subprocess.run(command, check=True, capture_output=True, timeout=300)
        both = np.load(tmp_path / "both.npz")
        cells = sorted({"/".join(key.split("/")[:2]) for key in both})
        assert len(cells) == 8
        for cell in cells:
            wanted, found = both[f"{cell}/sumo-rl/seen"], both[f"{cell}/ours/seen"]
            assert np.array_equal(wanted, found, equal_nan=True), cell
            assert np.array_equal(both[f"{cell}/sumo-rl/rewards"], both[f"{cell}/ours/rewards"]), cell
            assert both[f"{cell}/ours/rewards"].std() > 0, cell


@needs_sumo
class TestContract:
    @pytest.mark.filterwarnings("error")
    def test_it_keeps_the_contract_of_worlds(self, town: TrafficWorld) -> None:
        world_api_test(town, num_steps=30)

    def test_it_is_known_by_name_and_starts_no_process_to_be_looked_at(self) -> None:
        assert WORLDS["traffic_v0"] is TrafficWorld
        world = make_world("traffic_v0", {"net": "cologne8"}, 3)
        assert isinstance(world, TrafficWorld)
        assert world.processes == []
        assert (world.num_agents, world.species["signal"].action_space.n) == (8, 4)
        world.close()

    def test_neither_simulator_nor_another_arrow_is_where_the_other_is(self, town: TrafficWorld) -> None:
        town.reset(0)
        assert "libsumo" not in sys.modules
        for pid in town.processes:
            maps = Path(f"/proc/{pid}/maps").read_text()
            assert "_libsumo" in maps
            assert "/pyarrow/" not in maps

    def test_lights_without_a_phase_are_masked_and_may_not_choose_it(self) -> None:
        world = TrafficWorld(net="cologne8", max_steps=2)
        try:
            step = world.reset(0)
            assert step.action_masks is not None
            assert step.action_masks["signal"].sum(-1).tolist() == [world.plan.num_phases]
            seat = int(np.argmin(world.plan.num_phases))
            actions = torch.zeros(1, 8, dtype=torch.int64)
            actions[0, seat] = 3
            with pytest.raises(UserError, match=rf"'{world.agents[seat]}' in world 0 is 3, and must be one of its"):
                world.step({"signal": actions})
            check_step(world, world.step({"signal": actions * 0}), "step 1")
        finally:
            world.close()

    def test_a_pettingzoo_loop_plays_an_episode(self) -> None:
        env = traffic_v0.parallel_env(net="grid", size=2, max_steps=3)
        observations, _ = env.reset(seed=1)
        steps = 0
        while env.agents:
            observations, _, _, truncations, _ = env.step(dict.fromkeys(env.agents, 1))
            steps += 1
        assert (steps, len(observations), all(truncations.values())) == (3, 4, True)
        env.close()


@needs_sumo
class TestTown:
    def test_a_change_waits_for_green_and_passes_through_yellow(self, town: TrafficWorld) -> None:
        """Yellow and green take 7 seconds at least: a light that changed stays as it is in the step that follows."""
        town.reset(0)
        shown = []
        for phase in (1, 1, 2, 3, 3):
            step = town.step({"signal": torch.full((2, 4), phase)})
            shown.append(town.here().phases[0, 0])
            assert step.observations["signal"][0, 0, :4].argmax() == shown[-1]
        assert shown == [0, 0, 2, 2, 3]

    def test_vehicles_are_seen_as_shares_of_what_a_lane_holds(self, town: TrafficWorld) -> None:
        step = acted(town, 20)[-1]
        traffic, plan = town.here(), town.plan
        seen = step.observations["signal"][1, 2, 5:].view(2, -1)
        lanes = list(plan.incoming[2])
        room = plan.lengths[lanes] / (2.5 + 5.0)  # SUMO's vehicles are 5 m long
        for numbers, told in zip((traffic.vehicles[1, lanes], traffic.standing[1, lanes]), seen, strict=True):
            assert torch.allclose(told.double(), torch.from_numpy(np.minimum(1.0, numbers / room)), atol=1e-6)
        assert seen[0].sum() > 0

    def test_whoever_drives_has_arrived_or_is_on_the_way_when_an_episode_ends(
        self, town: TrafficWorld, tmp_path: Path
    ) -> None:
        town.reset(5)
        found, departures = hour(town, MaxPressure(town), 5), list[float]()
        for seed in town.seeds:
            draw_trips(town.plan, 900, 120, seed, tmp_path / "trips.xml")
            departures += map(float, re.findall(r'depart="([\d.]+)"', (tmp_path / "trips.xml").read_text()))
        arrived = found["throughput"] * 2 * 120 / 3600
        assert arrived > 10
        # SUMO hears of those who set out in the last two seconds when they are over.
        counted = arrived + 2 * found["backlog"]
        assert sum(second < 118 for second in departures) - 1e-6 < counted < len(departures) + 1e-6
        assert 10 < found["travel_time"] < 120
        assert 0 <= found["waiting_time"] < found["travel_time"]

    def test_metrics_count_each_step_once_also_when_it_is_restored(self, town: TrafficWorld) -> None:
        town.reset(2)
        town.metrics()
        queues = []
        for _ in range(12):
            town.step({"signal": torch.zeros(2, 4, dtype=torch.int64)})
            before = [lane for lanes in town.plan.incoming for lane in lanes]
            queues.append(town.here().standing[:, before].sum(-1).mean() / 4)
        state = town.get_state()
        assert town.metrics() == pytest.approx({"queue": np.mean(queues)})
        assert town.metrics() == {}
        town.set_state(state)
        assert town.metrics() == pytest.approx({"queue": np.mean(queues)})

    def test_shared_rewards_are_between_the_own_and_the_mean(self, town: TrafficWorld) -> None:
        own = torch.stack([row.rewards for row in acted(town, 12)])
        town.reward_share = 0.25
        try:
            shared = torch.stack([row.rewards for row in acted(town, 12)])
        finally:
            town.reward_share = 0.0
        assert own.std() > 0
        assert torch.allclose(shared, 0.75 * own + 0.25 * own.mean(-1, keepdim=True), atol=1e-6)

    def test_a_saved_episode_goes_on_in_other_processes(self, town: TrafficWorld) -> None:
        script = Randomly(1)
        acted(town, 10)
        state = town.get_state()
        actions = [script(town) for _ in range(5)]
        wanted = [town.step(chosen) for chosen in actions]
        other = TrafficWorld(2, net="grid", size=2, demand=900, max_steps=24)
        try:
            other.set_state(state)
            for chosen, row in zip(actions, wanted, strict=True):
                found = other.step(chosen)
                assert torch.equal(found.observations["signal"], row.observations["signal"])
                assert torch.equal(found.rewards, row.rewards)
        finally:
            other.close()


class TestTrips:
    def test_they_are_a_poisson_stream_at_every_gate_and_nobody_turns_back(self, tmp_path: Path) -> None:
        gates = [f"g{i}" for i in range(5)]
        plan = SumoMap((), (), (), (), (), (), (), np.zeros(0), (), np.zeros((0, 2)), *_streets(gates))
        draw_trips(plan, 360.0, 36_000, 7, tmp_path / "a.xml")
        found = re.findall(r'depart="([\d.]+)" from="in(g\d)" to="out(g\d)"', (tmp_path / "a.xml").read_text())
        counts = {gate: sum(start == gate for _, start, _ in found) for gate in gates}
        assert all(abs(number - 3600) < 5 * 60 for number in counts.values())  # five deviations
        pairs = {(start, goal): 0 for start in gates for goal in gates if start != goal}
        for _, start, goal in found:
            pairs[start, goal] += 1  # a KeyError where somebody turns back
        assert all(abs(number - 900) < 5 * 30 for number in pairs.values())
        departures = [float(second) for second, _, _ in found]
        assert departures == sorted(departures)
        assert departures[-1] < 36_000
        draw_trips(plan, 360.0, 36_000, 7, tmp_path / "b.xml")
        draw_trips(plan, 360.0, 36_000, 8, tmp_path / "c.xml")
        texts = [(tmp_path / f"{name}.xml").read_text() for name in "abc"]
        assert texts[0] == texts[1] != texts[2]


def _streets(gates: list[str]) -> tuple[dict[str, str], dict[str, str]]:
    return {gate: f"in{gate}" for gate in gates}, {gate: f"out{gate}" for gate in gates}


class Still:
    """A world in which traffic stands as the test wants it."""

    name, device, num_worlds, num_agents, delta_time = "still", torch.device("cpu"), 1, 1, 5

    def __init__(
        self, plan: SumoMap, vehicles: tuple[int, ...] = (0, 0, 0, 0), phase: int = 0, seconds: int = 0
    ) -> None:
        self.plan = plan
        lanes = np.array([vehicles])
        self._traffic = Traffic(lanes, lanes, np.array([[phase]]), np.array([seconds]), [["Gr"]])

    def here(self) -> Traffic:
        return self._traffic


class TestReferences:
    @pytest.mark.parametrize(
        ("vehicles", "phase", "chosen"),
        [((3, 2, 0, 9), 1, 0), ((2, 3, 0, 0), 0, 1), ((2, 3, 9, 0), 0, 1), ((2, 2, 0, 0), 1, 1), ((0, 0, 5, 0), 0, 0)],
    )
    def test_max_pressure_takes_the_phase_with_most_before_it_and_stays_where_both_are_alike(
        self, plan: SumoMap, vehicles: tuple[int, ...], phase: int, chosen: int
    ) -> None:
        world: Any = Still(plan, vehicles, phase)
        assert MaxPressure(world)(world)["signal"].tolist() == [[chosen]]

    def test_fixed_time_goes_through_the_programme_again_and_again(self, plan: SumoMap) -> None:
        """25 seconds of the first phase and 15 of the second are five and three steps."""
        worlds: list[Any] = [Still(plan, seconds=5 * age) for age in range(10)]
        shown = [int(FixedTime()(world)["signal"]) for world in worlds]
        assert shown == [0, 0, 0, 0, 0, 1, 1, 1, 0, 0]
        assert [int(FixedTime(green=10)(world)["signal"]) for world in worlds[:5]] == [0, 0, 1, 1, 0]


class TestPictures:
    def test_lights_queues_and_links_show(self, plan: SumoMap) -> None:
        nobody = np.zeros(4, dtype=np.int64)
        green = draw_traffic(plan, nobody, ["Gr"])
        assert (green.shape, green.dtype) == ((480, 480, 3), np.uint8)
        others = [
            draw_traffic(plan, nobody, ["rG"]), draw_traffic(plan, nobody, ["yr"]),
            draw_traffic(plan, np.array([4, 0, 0, 0]), ["Gr"]), draw_traffic(plan, nobody, ["Gr"], title="1:00"),
        ]  # fmt: skip
        pictures = [green.tobytes(), *(picture.tobytes() for picture in others)]
        assert len(set(pictures)) == 5
        assert np.array_equal(green, draw_traffic(plan, nobody, ["Gr"]))

    @needs_sumo
    def test_a_town_draws_itself(self, town: TrafficWorld) -> None:
        acted(town, 6)
        bare = town.render(1)
        assert (town.render(1, links=torch.tensor([[0, 3]])) != bare).any()


class TestMistakes:
    def test_without_sumo_one_sentence_names_the_extra(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sumo_nets, "find_spec", lambda package: None if "sumo" in package else find_spec(package))
        with pytest.raises(
            UserError, match=r"^traffic_v0 needs SUMO, of which libsumo, .*pip install 'popcomm\[traffic\]'$"
        ):
            TrafficWorld()
        with pytest.raises(UserError):
            check_installed()

    @needs_sumo
    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"net": "grid4x5"}, "net is 'grid4x5'; did you mean 'grid4x4'"),
            (
                {"net": "cologne8", "size": 3},
                "size is 3, and has no effect with net 'cologne8'; it is used where net is",
            ),
            ({"net": "grid", "routes": "a.rou.xml"}, "routes is 'a.rou.xml', and has no effect with net 'grid'"),
            ({"net": "grid", "size": 1}, "size is 1, and must be a whole number of at least 2"),
            ({"net": "grid", "size": 33}, "size is 33, and must be at most 32"),
            ({"net": "grid", "demand": 0}, "demand is 0, and must be above 0"),
            ({"net": "my.net.xml", "routes": "my.rou.xml"}, "net is 'my.net.xml', and there is no such file"),
            ({"reward": "queues"}, "reward is 'queues'; did you mean 'queue'"),
            ({"reward_share": 2}, r"reward_share is 2, and must lie in \[0, 1\]"),
            ({"delta_time": 2}, "delta_time is 2, and must be above yellow_time, 2"),
            ({"yellow_time": 0}, "yellow_time is 0, and must be at least 1"),
            ({"max_steps": 0}, "max_steps is 0, and must be at least 1"),
            ({"timeout": 0}, "timeout is 0, and must be above 0"),
        ],
    )
    def test_values_out_of_range_or_without_effect_are_told(self, options: dict[str, Any], words: str) -> None:
        with pytest.raises(UserError, match=words):
            TrafficWorld(**options)

    @needs_sumo
    def test_a_net_of_ones_own_needs_routes(self, tmp_path: Path) -> None:
        (tmp_path / "hand.net.xml").write_text(HAND_MADE)
        with pytest.raises(UserError, match="a net of your own needs routes"):
            TrafficWorld(net=tmp_path / "hand.net.xml")

    @needs_sumo
    def test_processes_are_there_as_it_is(self) -> None:
        with pytest.raises(UserError, match="traffic_v0 has a process for each world as it is"):
            make_world("traffic_v0", {}, 2, processes=2)

    @needs_sumo
    def test_it_must_be_reset_first_and_actions_must_fit(self, town: TrafficWorld) -> None:
        fresh = TrafficWorld()
        for use in (fresh.get_state, fresh.here, lambda: fresh.step({"signal": torch.zeros(1, 16)})):
            with pytest.raises(UserError, match="reset"):
                use()
        fresh.close()
        town.reset(0)
        with pytest.raises(UserError, match=r"actions of 'signal' have shape \(2, 3\), and must have \(2, 4\)"):
            town.step({"signal": torch.zeros(2, 3, dtype=torch.int64)})

    @needs_sumo
    def test_an_error_of_sumo_names_world_and_seed(self, tmp_path: Path) -> None:
        (tmp_path / "bad.rou.xml").write_text(
            '<routes><trip id="a" depart="0" from="nowhere" to="elsewhere"/></routes>'
        )
        net = resco_folder() / "cologne1" / "cologne1.net.xml"
        world = TrafficWorld(net=net, routes=tmp_path / "bad.rou.xml")
        try:
            with pytest.raises(
                RuntimeError, match=r"traffic_v0, world 0 failed in step 0 of the episode with seed \d+"
            ):
                world.reset(0)
        finally:
            world.close()
