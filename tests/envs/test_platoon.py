"""PlatoonWorld: motion, fuel and collisions against closed forms, who sees what, and what scripts lose."""

from __future__ import annotations

import copy
import math
import pickle
import runpy
import sys
from typing import Any

import numpy as np
import pytest
import torch
from pettingzoo.test import api_test, parallel_api_test
from PIL import Image

from popcomm import envs
from popcomm.envs import WORLDS, platoon_v0
from popcomm.envs.platoon_dynamics import (
    BRAKE,
    FASTER,
    HEATING,
    HOLD,
    KINDS,
    MERGE,
    SPRINT,
    ahead,
    behind,
    collided,
    moved,
    resistance,
    safe_speed,
)
from popcomm.envs.platoon_references import Told, alone, driven, keep_right
from popcomm.envs.platoon_sight import CRITICALITY, PLACE, SPEED
from popcomm.envs.platoon_v0 import PlatoonWorld
from popcomm.envs.scripted import Randomly
from popcomm.envs.testing import world_api_test
from popcomm.envs.world import WorldStep
from popcomm.errors import UserError
from tests.envs.worlds_in_play import earned, future


def act(world: PlatoonWorld, *actions: int) -> WorldStep:
    told, start = {}, 0
    for name, species in world.species.items():
        told[name] = torch.tensor([actions[start : start + species.num_seats]])
        start += species.num_seats
    return world.step(told)


def placed(places: list[float], speeds: list[float], lanes: list[int], **options: Any) -> PlatoonWorld:
    """One ring with everybody where the test wants them, trucks first, then cars, then emergency vehicles.

    Missions are "missions" (urgency, lane and m left, of the last seat).
    """
    mission = options.pop("mission_now", None)
    world = PlatoonWorld(1, **{"mission_rate": 0.0, "reward_share": 0.0, **options})
    world.reset(0)
    state = world.get_state()
    state["place"], state["speed"] = torch.tensor([places]), torch.tensor([speeds])
    state["lane"] = torch.tensor([lanes])
    if mission is not None:
        for field, value in zip(state["missions"], mission, strict=False):
            field[0, -1] = value
    world.set_state(state)
    return world


CARS: dict[str, Any] = {"trucks": 0, "emergencies": 0}


class TestContract:
    @pytest.mark.parametrize(
        "options",
        [{}, {"emergencies": 2, "mission": 50.0}, {"trucks": 0, "emergencies": 0, "cars": 1}, {"road": 181.0}],
    )
    def test_it_keeps_the_contract_of_worlds(self, options: dict[str, Any]) -> None:
        world_api_test(PlatoonWorld(3, max_steps=9, **options), num_steps=30)

    def test_pettingzoo_accepts_it(self) -> None:
        parallel_api_test(platoon_v0.parallel_env(max_steps=5), num_cycles=20)
        api_test(platoon_v0.env(trucks=1, cars=1, max_steps=5), num_cycles=20)

    def test_it_is_known_by_name(self) -> None:
        assert WORLDS["platoon_v0"] is PlatoonWorld
        assert envs.platoon_v0 is platoon_v0
        assert "platoon_v0" in dir(envs)

    def test_a_pickled_copied_or_restored_world_has_the_same_future(self) -> None:
        world = PlatoonWorld(4, max_steps=5)
        world.reset(3)
        future(world, 3)
        restored = PlatoonWorld(4, max_steps=5)
        restored.set_state(world.get_state())
        twins = [pickle.loads(pickle.dumps(world)), copy.deepcopy(world), restored]
        expected = torch.stack(future(world))
        assert all(torch.equal(torch.stack(future(twin)), expected) for twin in twins)

    def test_species_see_and_do_different_things(self) -> None:
        species = PlatoonWorld().species
        told = {name: (s.num_seats, s.obs_size, int(s.action_space.n)) for name, s in species.items()}
        assert told == {"truck": (4, 11, 5), "car": (4, 14, 5), "emergency": (1, 18, 6)}

    def test_nobody_begins_in_the_place_of_another(self) -> None:
        world = PlatoonWorld(200)
        world.reset(0)
        place = world.here()[0]
        gaps = (place.unsqueeze(1) - place.unsqueeze(2)).remainder(world.road)
        gaps.diagonal(dim1=1, dim2=2).fill_(world.road)
        assert gaps.min().item() == pytest.approx(800 / 9, abs=1e-3)


class TestMotion:
    @pytest.mark.parametrize("kind", ["truck", "car", "emergency"])
    @pytest.mark.parametrize("speed", [3.0, 21.9])
    def test_the_braking_distance_is_v_squared_over_two_b(self, kind: str, speed: float) -> None:
        brake, now, way = KINDS[kind].brake, torch.tensor(speed), 0.0
        for _ in range(10):
            now, step = moved(now, torch.tensor(-brake), torch.tensor(50.0), 1.0)
            way += float(step)
        assert now.item() == 0.0
        assert way == pytest.approx(speed**2 / (2 * brake), rel=1e-5)

    def test_who_comes_to_the_top_speed_within_a_step_goes_on_at_it(self) -> None:
        speed, way = moved(torch.tensor(24.0), torch.tensor(2.0), torch.tensor(25.0), 1.0)
        assert speed.item() == 25.0
        assert way.item() == pytest.approx(0.5 * 24.5 + 0.5 * 25.0)

    def test_a_truck_at_speed_has_not_the_power_for_what_its_wheels_may_do(self) -> None:
        free: dict[str, Any] = {"trucks": 1, "cars": 0, "emergencies": 0}
        slow, fast = placed([0.0], [4.0], [0], **free), placed([0.0], [22.0], [0], **free)
        for world in (slow, fast):
            act(world, FASTER)
        assert slow.here()[1].item() == pytest.approx(4.5)
        resists = 0.006 * 30_000 * 9.81 + 0.5 * 1.2 * 6 * 22**2
        assert fast.here()[1].item() == pytest.approx(22 + (350e3 / 22 - resists) / 30_000)

    def test_fuel_at_an_even_speed_is_the_work_against_resistance_over_the_heat_used(self) -> None:
        world = placed([0.0], [30.0], [0], cars=1, **CARS)
        act(world, HOLD)
        force = 0.01 * 1500 * 9.81 + 0.5 * 1.2 * 0.7 * 30**2
        assert world.metrics()["fuel"] == pytest.approx(force * 30 / (0.3 * HEATING) * 1000)

    def test_the_slipstream_saves_four_tenths_of_the_drag_at_the_most(self) -> None:
        numbers = [torch.tensor(x) for x in (30.0, 0.0, 1000.0, 2.0, 0.0)]
        near, far = resistance(*numbers), resistance(numbers[0], torch.tensor(torch.inf), *numbers[2:])
        assert (near / far).item() == pytest.approx(0.6)

    def test_who_merges_changes_lanes_if_there_is_room(self) -> None:
        # The next one ahead begins 4.5 m before its front: at 6.6 m, 2.1 are free, and at 6.4, 1.9.
        for apart, lane in ((6.6, 1), (6.4, 0), (-6.6, 1), (-6.4, 0)):
            world = placed([100.0, 100.0 + apart], [20.0, 20.0], [0, 1], cars=2, **CARS)
            act(world, MERGE, HOLD)
            assert world.here()[2].tolist() == [[lane, 1]], apart


class TestNeighbours:
    def test_the_next_one_is_found_around_the_ring_on_both_lanes(self) -> None:
        place, lane = torch.tensor([[10.0, 90.0, 50.0, 95.0]]), torch.tensor([[0, 0, 1, 1]])
        length = torch.tensor([5.0, 5.0, 5.0, 5.0])
        own, other = (ahead(place, length, lane, 100.0, side) for side in (False, True))
        rear = behind(place, length, lane, 100.0)
        assert own.seat.tolist() == [[1, 0, 3, 2]]
        assert own.gap.tolist() == [[75.0, 15.0, 40.0, 50.0]]
        assert other.seat.tolist() == [[2, 3, 1, 0]]
        assert other.gap.tolist() == [[35.0, 0.0, 35.0, 10.0]]
        assert rear.seat.tolist() == [[3, 2, 0, 1]]
        assert rear.gap.tolist() == [[10.0, 35.0, 35.0, 0.0]]

    def test_who_is_alone_has_nobody_at_no_distance(self) -> None:
        place, lane = torch.tensor([[10.0, 20.0]]), torch.tensor([[0, 1]])
        assert ahead(place, torch.tensor([5.0, 5.0]), lane, 100.0).gap.tolist() == [[math.inf, math.inf]]


class TestCollisions:
    def test_momentum_is_kept_and_nobody_drives_through_another(self) -> None:
        mass = torch.tensor([30_000.0, 1_500.0])
        speed, gap = torch.tensor([[20.0, 5.0]]), torch.tensor([[3.0, 500.0]])
        way, after, hits = collided(speed.clone(), speed, gap, torch.tensor([[1, 0]]), mass)
        assert hits.tolist() == [[True, False]]
        assert way.tolist() == [[8.0, 5.0]]  # the gap, and the other's way
        assert after[0, 0].item() == after[0, 1].item()
        assert (mass * after).sum().item() == pytest.approx((mass * speed).sum().item())

    def test_a_truck_pushes_a_car_more_than_a_car_a_truck(self) -> None:
        after = {}
        for front, rear in (("truck", "car"), ("car", "truck")):
            # Both from 10 m behind, 20 m / s faster.
            order = [0, 1] if rear == "truck" else [1, 0]
            places, speeds = [[0.0, 10.0 + KINDS[front].length][i] for i in order], [[30.0, 10.0][i] for i in order]
            world = placed(places, speeds, [0, 0], trucks=1, cars=1, emergencies=0, assist=False)
            step = act(world, HOLD, HOLD)
            after[rear] = world.here()[1][0]
            assert world._crashed.tolist() == [[True, True]]
            assert (step.rewards < -20).all()
            assert world.metrics()["crashes"] == 1.0
        assert after["truck"].tolist() == pytest.approx([(30 * 30_000 + 10 * 1_500) / 31_500] * 2)
        assert after["car"].tolist() == pytest.approx([(10 * 30_000 + 30 * 1_500) / 31_500] * 2)

    def test_gipps_drivers_stop_behind_one_who_brakes_as_hard_as_it_can(self) -> None:
        world = placed([0.0, 60.0], [25.0, 25.0], [0, 0], cars=2, **CARS)
        for _ in range(12):
            nobody = torch.zeros(1, 2, dtype=torch.bool)
            act(world, int(driven(world, nobody)["car"][0, 0]), BRAKE)
        assert world.metrics()["crashes"] == 0.0
        place, speed, _ = world.here()
        assert speed[0, 1].item() == 0.0
        assert 0 < place[0, 1].item() - 4.5 - place[0, 0].item() < 40

    @pytest.mark.parametrize(("assist", "crashes"), [(True, False), (False, True)])
    def test_the_assistant_brakes_for_who_does_not(self, assist: bool, crashes: bool) -> None:
        world = placed([0.0, 70.0], [30.0, 5.0], [0, 0], cars=2, assist=assist, max_steps=100, **CARS)
        for _ in range(4):
            act(world, FASTER, HOLD)
        assert (world.metrics()["crashes"] > 0) == crashes

    def test_the_safe_speed_leaves_just_the_way_to_stop(self) -> None:
        # Behind a wall: a step at the mean of both speeds, and the braking distance, fill the gap but for 2 m.
        gap, speed, brake = torch.tensor(52.0), torch.tensor(20.0), torch.tensor(8.0)
        safe = safe_speed(gap, speed, torch.tensor(0.0), brake, brake, 1.0).item()
        assert (20.0 + safe) / 2 + safe / 2 + safe**2 / 16 == pytest.approx(50.0, abs=1e-3)


class TestMissions:
    def test_the_sum_of_what_is_lost_is_the_delay_of_the_mission(self) -> None:
        alone_here: dict[str, Any] = {"trucks": 0, "cars": 0, "weight": 2.0, "fuel_price": 0.0, "mission": 400.0}
        world = placed([0.0], [20.0], [0], mission_now=(0.5, 0, 400.0), **alone_here)
        lost, steps = 0.0, 0
        while world.missions()[0].any():
            lost, steps = lost + act(world, FASTER).rewards.item(), steps + 1
        told = world.metrics()
        # Speeds at the ends of steps, in place of their means, are 1 m / s higher for as long as it gets faster.
        assert told["mission_delay"] == pytest.approx(told["mission_time"] - 400 / 45)
        assert steps - 1 < told["mission_time"] <= steps
        assert -lost == pytest.approx(told["mission_delay"], abs=0.8)

    def test_metres_on_the_wrong_lane_do_not_count(self) -> None:
        alone_here: dict[str, Any] = {"trucks": 0, "cars": 0, "weight": 10.0, "fuel_price": 0.0}
        right = placed([0.0], [45.0], [1], mission_now=(0.5, 1, 200.0), **alone_here)
        wrong = placed([0.0], [45.0], [0], mission_now=(0.5, 1, 200.0), **alone_here)
        assert act(right, HOLD).rewards.item() == pytest.approx(0.0, abs=1e-5)
        assert act(wrong, HOLD).rewards.item() == pytest.approx(-0.5 * 10.0)
        assert right._missions.left.item() == pytest.approx(155.0)
        assert wrong._missions.left.item() == 200.0

    def test_missions_come_at_their_rate_and_are_even_in_lane_and_criticality(self) -> None:
        world = PlatoonWorld(3000, trucks=0, cars=0, mission_rate=0.2)
        world.reset(0)
        runs, side = world.missions()
        many = int(runs.sum())
        assert many / 3000 == pytest.approx(0.2, abs=4 * (0.16 / 3000) ** 0.5)
        assert side[runs].float().mean().item() == pytest.approx(0.5, abs=4 * 0.5 / many**0.5)
        told = world.criticality()[runs]
        assert told.mean().item() == pytest.approx(0.5, abs=4 * (1 / 12 / many) ** 0.5)
        assert told.var().item() == pytest.approx(1 / 12, rel=0.2)
        assert not world.criticality()[~runs].any()

    def test_criticality_is_where_it_is_said_to_be_in_the_observation_of_emergency_vehicles_alone(self) -> None:
        seen = []
        for urgency in (0.25, 0.75):
            world = placed([0, 100, 200], [20.0] * 3, [0, 0, 0], trucks=1, cars=1, mission_now=(urgency, 1, 300.0))
            step = act(world, HOLD, HOLD, HOLD)
            told = step.observations["emergency"][0, 0]
            assert told[CRITICALITY].item() == world.criticality()[0, 2].item() == urgency
            assert told[PLACE].tolist() == pytest.approx([math.cos(220 / 400 * math.pi), math.sin(220 / 400 * math.pi)])
            assert told[SPEED].item() == pytest.approx(20 / 30)
            seen.append(step.observations)
        assert all(torch.equal(seen[0][name], seen[1][name]) for name in ("truck", "car"))


class TestSight:
    def test_a_car_sees_ahead_on_both_lanes_and_behind_on_the_other_as_far_as_it_should(self) -> None:
        world = placed([0.0, 84.4, 60.0, 780.0], [20.0, 30.0, 20.0, 25.0], [0, 0, 1, 1], cars=4, **CARS)
        told = world._observe()["car"][0, 0].tolist()
        # Gaps: 84.4 - 4.5 of 80 m; 60 - 4.5; and 20 - 4.5 of 30 m behind.
        expected = [1, 0, 2 / 3, 0, 1, 79.9 / 80, 1 / 3, 1, 55.5 / 80, 0, 1, 15.5 / 30, 5 / 30, 1]
        assert told == pytest.approx(expected, abs=1e-5)
        far = placed([0.0, 85.0, 100.0, 760.0], [20.0] * 4, [0, 0, 1, 1], cars=4, **CARS)
        assert far._observe()["car"][0, 0, 4:].tolist() == [0] * 9 + [1]

    def test_labels_are_missions(self) -> None:
        labels = []
        for mission in ((0.0, 0, 0.0), (0.2, 0, 9.0), (0.6, 1, 9.0)):
            world = placed([0, 100], [20.0, 20.0], [0, 0], trucks=0, cars=1, mission_now=mission)
            labels.append(world._labels().tolist())
        assert labels == [[[-1, 0]], [[-1, 1]], [[-1, 4]]]


class TestRewards:
    def test_who_is_slower_than_it_wishes_or_too_close_loses_what_the_class_says(self) -> None:
        world = placed([0.0, 10.5], [20.0, 20.0], [0, 0], cars=2, fuel_price=0.0, assist=False, **CARS)
        rewards = act(world, HOLD, HOLD).rewards[0]
        late = 1 - 20 / 33
        # 6 m at 20 m / s are 0.3 s.
        assert rewards.tolist() == pytest.approx([-late - 0.4, -late], abs=1e-5)

    @pytest.mark.parametrize("share", [0.25, 1.0])
    def test_rewards_mix_own_and_mean(self, share: float) -> None:
        at: tuple[list[float], list[float], list[int]] = ([0.0, 300.0], [20.0, 30.0], [0, 0])
        own = act(placed(*at, cars=2, **CARS), HOLD, HOLD).rewards[0]
        mixed = act(placed(*at, cars=2, **CARS, **{"reward_share": share}), HOLD, HOLD).rewards[0]
        torch.testing.assert_close(mixed, (1 - share) * own + share * own.mean())


class TestReferences:
    def test_the_told_leave_the_lane_of_the_mission_and_others_stay(self) -> None:
        places, speeds = [100.0, 150.0, 400.0, 0.0], [20.0, 33.0, 33.0, 45.0]
        options: dict[str, Any] = {"trucks": 1, "cars": 2, "mission_now": (0.9, 1, 600.0)}
        world = placed(places, speeds, [1, 0, 1, 1], **options)
        told = Told(0)(world)
        assert told["truck"].tolist() == [[MERGE]]
        assert told["car"][0].tolist() == [HOLD, HOLD]  # on the other lane, and 400 m away
        assert alone(world)["truck"].tolist() == [[FASTER]]

    def test_a_mission_that_is_hardly_critical_moves_nobody(self) -> None:
        world = placed([100.0, 0.0], [22.4, 45.0], [1, 1], trucks=1, cars=0, mission_now=(0.05, 1, 600.0))
        assert Told(0)(world)["truck"].tolist() == [[HOLD]]

    def test_an_emergency_vehicle_sprints_to_its_lane_and_speed(self) -> None:
        world = placed([0.0], [20.0], [0], trucks=0, cars=0, mission_now=(0.9, 1, 600.0))
        assert alone(world)["emergency"].item() == MERGE
        act(world, MERGE)
        assert alone(world)["emergency"].item() == SPRINT

    def test_scripts_lose_what_the_page_says(self) -> None:
        table = {Randomly(): -130.4, alone: -28.5, keep_right: -31.6, Told(1): -10.7, Told(0): -10.1}
        for script, told in table.items():
            mean, error = earned(PlatoonWorld(150), script)
            assert mean == pytest.approx(told, abs=4 * error)


class TestMistakes:
    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"trucks": -1}, "trucks is -1, and must be a whole number of at least 0"),
            ({"trucks": 0, "cars": 0, "emergencies": 0}, "trucks, cars and emergencies are all 0"),
            ({"road": 100.0}, "road is 100.0, and must be at least 180 m for 9 vehicles"),
            ({"mission": 0}, "mission is 0, and must be above 0"),
            ({"mission_rate": 2}, "mission_rate is 2, and must lie in"),
            ({"assist": 1}, "assist is 1, and must be true or false"),
            ({"weight": -1}, "weight is -1, and must be a number that is not negative"),
            ({"max_steps": 1.5}, "max_steps is 1.5, and must be a whole number"),
        ],
    )
    def test_values_out_of_range_are_told_in_the_users_words(self, options: dict[str, Any], words: str) -> None:
        with pytest.raises(UserError, match=f"platoon_v0: {words}"):
            PlatoonWorld(**options)

    def test_it_must_be_reset_first(self) -> None:
        uses: Any = (lambda w: act(w, *[0] * 9), PlatoonWorld.get_state, PlatoonWorld.render, PlatoonWorld.criticality)
        for use in (*uses, alone, Told()):
            with pytest.raises(UserError, match=r"platoon_v0 .* reset"):
                use(PlatoonWorld())

    def test_actions_of_another_shape_are_refused(self) -> None:
        world = placed([0.0, 100.0], [20.0, 20.0], [0, 0], cars=2, **CARS)
        with pytest.raises(UserError, match=r"actions of 'car' have shape \(1, 1\), and must have \(1, 2\)"):
            world.step({"car": torch.zeros(1, 1, dtype=torch.int64)})


class TestPictures:
    def test_a_picture_shows_what_changes(self) -> None:
        def shown(lane: int = 0, **options: Any) -> np.ndarray:
            links = options.pop("links", None)
            return placed([0, 100], [20.0, 20.0], [lane, 0], trucks=1, cars=0, **options).render(links=links)

        before = shown()
        assert before.shape == (480, 480, 3)
        assert before.dtype == np.uint8
        others = [
            shown(lane=1),
            shown(mission_now=(0.5, 1, 9.0)),
            shown(links=torch.tensor([[1, 0]])),
            shown(road=500.0),
        ]
        assert not any(np.array_equal(before, other) for other in others)

    @pytest.mark.filterwarnings("ignore:.*found in sys.modules")
    def test_running_the_module_draws_a_moment(self, tmp_path: Any, monkeypatch: Any, capsys: Any) -> None:
        file = tmp_path / "platoon.png"
        monkeypatch.setattr(sys, "argv", ["platoon_v0", str(file)])
        runpy.run_module("popcomm.envs.platoon_v0", run_name="__main__")
        assert Image.open(file).size == (480, 480)
        assert "of them just left its lane" in capsys.readouterr().out
