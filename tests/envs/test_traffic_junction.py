"""TrafficJunctionWorld against crossings worked out on paper, exact rates of success, and an oracle without fail."""

from __future__ import annotations

import copy
import pickle
import runpy
import sys
from typing import Any

import numpy as np
import pytest
import torch
from pettingzoo.test import api_test, parallel_api_test, parallel_seed_test
from PIL import Image

from popcomm import envs
from popcomm.envs import WORLDS, traffic_junction_v0
from popcomm.envs.testing import world_api_test
from popcomm.envs.traffic_junction_references import (
    Planner,
    brake_success,
    gas,
    gas_success,
    played,
    randomly,
)
from popcomm.envs.traffic_junction_v0 import BRAKE, GAS, TrafficJunctionWorld
from popcomm.envs.traffic_roads import PLANS, Roads
from popcomm.envs.world import WorldStep
from popcomm.errors import UserError

SELDOM = 1e-9  # a rate at which no car comes while a test looks on


def act(world: TrafficJunctionWorld, *actions: int) -> WorldStep:
    return world.step({"car": torch.tensor([actions])})


def placed(*cars: tuple[int, int], level: str = "easy", age: int = 1, **options: Any) -> TrafficJunctionWorld:
    """One map with cars (route, place on it) on the first seats, and no other one to come."""
    world = TrafficJunctionWorld(1, level=level, **{"add_rate": SELDOM, **options})
    world.reset(0)
    state = world.get_state()
    seats = torch.arange(world.num_agents) < len(cars)
    filled = [*cars, *[(0, 0)] * (world.num_agents - len(cars))]
    state["route"], state["place"] = (torch.tensor([values]) for values in zip(*filled, strict=True))
    state["driving"], state["age"] = seats.unsqueeze(0), torch.tensor([age])
    state["last"] = state["last"]._replace(alive=seats.unsqueeze(0))
    world.set_state(state)
    return world


def always(action: int) -> Any:
    return lambda world: torch.full((world.num_worlds, world.num_agents), action)


class TestContract:
    @pytest.mark.parametrize("level", ["easy", "medium", "hard"])
    @pytest.mark.parametrize("vision", [0, 1])
    def test_it_keeps_the_contract_of_worlds(self, level: str, vision: int) -> None:
        world_api_test(TrafficJunctionWorld(3, level=level, vision=vision, max_steps=15), num_steps=35)

    @pytest.mark.parametrize(
        "options",
        [
            {"num_agents": 1},
            {"num_agents": 2, "add_rate": 1.0, "max_steps": 30},
            {"max_steps": 2, "add_rate": 1.0},
            {"add_rate": 0.01, "max_steps": 60},
        ],
    )
    def test_it_keeps_it_on_roads_that_are_full_or_empty(self, options: dict[str, Any]) -> None:
        world_api_test(TrafficJunctionWorld(3, **options), num_steps=70)

    def test_pettingzoo_accepts_it(self) -> None:
        parallel_api_test(traffic_junction_v0.parallel_env(max_steps=25), num_cycles=60)
        api_test(traffic_junction_v0.env(max_steps=9), num_cycles=40)
        parallel_seed_test(traffic_junction_v0.parallel_env, num_cycles=30)

    def test_it_is_known_by_name(self) -> None:
        assert WORLDS["traffic_junction_v0"] is TrafficJunctionWorld
        assert envs.traffic_junction_v0 is traffic_junction_v0

    def test_a_pickled_world_has_the_same_future(self) -> None:
        world = TrafficJunctionWorld(4)
        world.reset(3)
        twins = [world, pickle.loads(pickle.dumps(world)), copy.deepcopy(world)]
        go = {"car": torch.zeros(4, 5, dtype=torch.int64)}
        futures = [[twin.step(go).observations["car"] for _ in range(30)] for twin in twins]
        for future in futures[1:]:
            assert all(torch.equal(a, b) for a, b in zip(futures[0], future, strict=True))

    @pytest.mark.parametrize(
        ("level", "sizes"), [("easy", (5, 20, 0.3)), ("medium", (10, 40, 0.2)), ("hard", (20, 80, 0.05))]
    )
    def test_levels_are_those_of_ic3net_and_each_number_can_be_another(self, level: str, sizes: Any) -> None:
        world = TrafficJunctionWorld(level=level)
        assert (world.num_agents, world.max_steps, world.add_rate, world.vision) == (*sizes, 0)
        other = TrafficJunctionWorld(level=level, num_agents=3, max_steps=7, add_rate=0.5, vision=1)
        assert (other.num_agents, other.max_steps, other.add_rate, other.vision) == (3, 7, 0.5, 1)


class TestRoads:
    @pytest.mark.parametrize(("level", "cells", "entries", "routes"), [("easy", 13, 2, 1), ("medium", 52, 4, 3)])
    def test_levels_have_the_routes_of_the_papers(self, level: str, cells: int, entries: int, routes: int) -> None:
        roads = Roads.of(PLANS[level])
        assert len(roads.cells) == cells
        assert roads.lengths.shape == (entries, routes)

    def test_the_hard_one_leads_from_each_of_8_entries_to_7_exits(self) -> None:
        roads = Roads.of(PLANS["hard"])
        assert roads.lengths.shape == (8, 7)
        assert all(len(set(exits)) == 7 for exits in roads.routes[:, :, -1].tolist())
        assert len(np.unique(roads.routes[:, :, -1])) == 8

    @pytest.mark.parametrize("level", ["easy", "medium", "hard"])
    def test_routes_go_step_by_step_from_border_to_border(self, level: str) -> None:
        roads = Roads.of(PLANS[level])
        for way, length in zip(roads.routes.reshape(-1, roads.routes.shape[2]), roads.lengths.flat, strict=True):
            places = roads.cells[way[:length]]
            assert (np.abs(np.diff(places, axis=0)).sum(1) == 1).all()
            assert all(np.isin(places[end], (0, roads.size - 1)).any() for end in (0, -1))
            assert len(np.unique(way[:length])) == length

    def test_from_the_north_cars_go_on_turn_right_to_the_west_or_left_to_the_east(self) -> None:
        roads = Roads.of(PLANS["medium"])
        ways = [roads.cells[way[:n]].tolist() for way, n in zip(roads.routes[0], roads.lengths[0], strict=True)]
        down = [[row, 6] for row in range(14)]
        assert ways[0] == down
        assert ways[1] == down[:7] + [[6, column] for column in range(5, -1, -1)]
        assert ways[2] == down[:8] + [[7, column] for column in range(7, 14)]


class TestDriving:
    def test_gas_drives_on_brake_stays_and_time_costs(self) -> None:
        world = placed((0, 0), (1, 2))
        step = act(world, GAS, BRAKE, GAS, GAS, GAS)
        assert step.positions[0, :2].tolist() == [[1, 3], [3, 2]]
        assert step.rewards[0].tolist() == pytest.approx([-0.01, -0.01, 0, 0, 0])
        assert act(world, GAS, GAS, GAS, GAS, GAS).rewards[0, :2].tolist() == pytest.approx([-0.02, -0.02])

    def test_a_car_that_leaves_terminates_its_seat_alone(self) -> None:
        world = placed((0, 6), (1, 2))
        step = act(world, GAS, GAS, 0, 0, 0)
        assert step.terminated[0].tolist() == [True] + [False] * 4
        assert step.alive[0].tolist() == [False, True, False, False, False]
        assert not step.truncated.any()
        assert step.rewards[0, 0] == 0
        assert not step.observations["car"][0, 0].any()

    def test_cars_in_one_cell_pay_each_time_and_drive_on(self) -> None:
        world = placed((0, 2), (1, 2), age=16)
        step = act(world, GAS, GAS, 0, 0, 0)
        assert step.rewards[0, :2].tolist() == pytest.approx([-10.01, -10.01])
        assert world.crashed()[0].tolist() == [True, True, False, False, False]
        step = act(world, BRAKE, BRAKE, 0, 0, 0)
        assert step.rewards[0, :2].tolist() == pytest.approx([-10.02, -10.02])
        assert act(world, GAS, GAS, 0, 0, 0).rewards[0, :2].tolist() == pytest.approx([-0.03, -0.03])
        assert act(world, GAS, GAS, 0, 0, 0).truncated[0, :2].all()
        assert world.metrics() == {"success": 0.0, "collisions": 4.0}
        assert world.metrics() == {}

    def test_a_car_enters_where_another_one_stands_and_is_not_charged_for_it(self) -> None:
        world = placed((0, 0), (1, 0), add_rate=1.0)
        step = act(world, BRAKE, GAS, 0, 0, 0)
        assert step.first[0].sum() == 2
        assert step.rewards[0].tolist() == pytest.approx([-10.01, -0.01, 0, 0, 0])
        assert world.crashed()[0].sum() == 2

    def test_no_more_cars_than_seats_and_none_into_the_seat_that_was_just_left(self) -> None:
        world = placed((0, 6), (0, 4), (1, 4), (1, 5), (0, 5), add_rate=1.0)
        assert act(world, *[GAS] * 5).alive[0].tolist() == [False, True, True, True, True]
        step = act(world, *[GAS] * 5)
        assert step.first[0].tolist() == [True, False, False, False, False]
        assert step.terminated[0].tolist() == [False, False, False, True, True]

    def test_free_seats_and_routes_are_taken_evenly(self) -> None:
        world = TrafficJunctionWorld(4000, level="medium")
        step = world.reset(2)
        seats = step.first.sum(0)
        cars = int(seats.sum())
        assert seats.tolist() == pytest.approx([cars / 10] * 10, abs=4.5 * (cars * 0.09) ** 0.5)
        routes = step.observations["car"][step.first][:, 1:13].sum(0)
        assert routes.tolist() == pytest.approx([cars / 12] * 12, abs=4.5 * (cars / 12) ** 0.5)

    def test_cars_come_at_the_rate_that_is_told(self) -> None:
        world = TrafficJunctionWorld(300, level="hard", num_agents=60, add_rate=0.1)
        world.reset(1)
        came = torch.stack([world.step({"car": gas(world)}).first.sum(1) for _ in range(20)]).float()
        assert came.mean().item() == pytest.approx(0.8, abs=4 * (0.72 / came.numel()) ** 0.5)


class TestEmptyRoads:
    def test_time_passes_unseen_until_the_next_car_comes(self) -> None:
        world = placed((0, 6), add_rate=0.05, max_steps=1000)
        step = act(world, *[GAS] * 5)
        assert step.terminated[0].tolist() == [True] + [False] * 4
        assert step.alive[0].sum() >= 1
        assert torch.equal(step.first, step.alive)
        assert not step.alive[0, 0]
        assert world._age.item() > 2

    def test_waits_are_geometric(self) -> None:
        world = TrafficJunctionWorld(20_000, add_rate=0.2, max_steps=200)
        world.reset(4)
        rate = 1 - 0.8**2
        ages = world._age.float()
        assert ages.mean().item() == pytest.approx(1 / rate, abs=4 * ((1 - rate) ** 0.5 / rate) / 20_000**0.5)
        alone = (world._driving.sum(1) == 1).float().mean().item()
        assert alone == pytest.approx(2 * 0.2 * 0.8 / rate, abs=4 * 0.5 / 20_000**0.5)

    def test_an_episode_is_over_when_no_further_car_comes(self) -> None:
        world = placed((0, 6))
        step = act(world, *[GAS] * 5)
        assert not step.alive.any()
        assert step.terminated[0, 0]
        assert not step.truncated.any()
        assert world.metrics() == {"success": 1.0, "collisions": 0.0}
        assert act(world, *[GAS] * 5).first.any()

    def test_it_is_over_when_all_seats_are_left_at_once(self) -> None:
        world = placed((0, 6), (1, 6), add_rate=1.0, num_agents=2)
        step = act(world, GAS, GAS)
        assert step.terminated.all()
        assert not step.alive.any()

    def test_a_road_in_use_is_cut_at_the_deadline(self) -> None:
        world = placed((0, 6), (1, 2), age=19)
        step = act(world, *[GAS] * 5)
        assert step.terminated[0].tolist() == [True, False, False, False, False]
        assert step.truncated[0].tolist() == [False, True, False, False, False]
        assert not step.alive.any()


class TestObservations:
    def test_a_blind_car_knows_itself_and_who_is_in_its_cell(self) -> None:
        world = placed((0, 3), (1, 2))
        look = act(world, BRAKE, GAS, 0, 0, 0).observations["car"][0]
        assert look.shape == (5, 1 + 2 + 7 + 7 + 1)
        assert look[0].nonzero().flatten().tolist() == [0, 1, 3 + 3, 10 + 3, 17]
        assert look[1].nonzero().flatten().tolist() == [2, 3 + 3, 10 + 3, 17]
        assert not look[2:].any()

    def test_with_vision_the_window_counts_the_others_row_by_row(self) -> None:
        world = placed((0, 2), (1, 2), (1, 2), (1, 4), vision=1)
        look = act(world, *[BRAKE] * 5).observations["car"][0]
        assert look[0, 17:].tolist() == [0, 0, 0, 0, 0, 0, 2, 0, 1]
        assert look[1, 17:].tolist() == [0, 0, 1, 0, 1, 0, 0, 0, 0]

    def test_state_and_labels_are_road_cells(self) -> None:
        world = placed((0, 3), (1, 3), (1, 0))
        step = act(world, *[BRAKE] * 5)
        # Row 3 is the seven road cells after the three above it.
        assert step.labels[0].tolist() == [6, 6, 3, -1, -1]
        assert step.state[0].nonzero().flatten().tolist() == [3, 6]
        assert step.state[0, 6] == 2


class TestPettingZoo:
    def test_seats_without_a_car_wait_and_may_not_speak(self) -> None:
        env = traffic_junction_v0.parallel_env(add_rate=0.05)
        _, infos = env.reset(seed=1)
        assert env.agents == [f"car_{i}" for i in range(5)]
        alive = {agent: info["alive"] for agent, info in infos.items()}
        assert 1 <= sum(alive.values()) <= 2
        assert env.may_speak() == alive
        for _ in range(30):
            _, rewards, terminated, truncated, infos = env.step(dict.fromkeys(env.agents, GAS))
            if not env.agents:
                break
            assert set(rewards) == set(env.possible_agents)
            assert not any(terminated.values())
            assert not any(truncated.values())
        assert all(terminated[agent] != truncated[agent] for agent in env.possible_agents)


class TestReferences:
    @pytest.mark.parametrize(
        "options",
        [{}, {"add_rate": 0.1, "max_steps": 10}, {"add_rate": 0.05}, {"add_rate": 0.6, "max_steps": 6}],
    )
    def test_gas_succeeds_as_often_as_is_expected(self, options: dict[str, Any]) -> None:
        world = TrafficJunctionWorld(3000, num_agents=14, **options)
        expected = gas_success(world)
        error = (expected * (1 - expected) / 3000) ** 0.5
        assert played(world, gas, seed=1).success == pytest.approx(expected, abs=4 * error)

    @pytest.mark.parametrize("options", [{"add_rate": 0.05}, {"level": "medium", "add_rate": 0.02}])
    def test_braking_for_ever_is_no_way_out(self, options: dict[str, Any]) -> None:
        world = TrafficJunctionWorld(2000, num_agents=25, **options)
        expected = brake_success(world)
        error = (expected * (1 - expected) / 2000) ** 0.5
        assert played(world, always(BRAKE), seed=1).success == pytest.approx(expected, abs=4 * error)

    @pytest.mark.parametrize(("level", "worlds"), [("easy", 1000), ("medium", 60), ("hard", 16)])
    def test_the_planner_never_crashes_and_loses_little_time_by_it(self, level: str, worlds: int) -> None:
        world = TrafficJunctionWorld(worlds, level=level)
        planner = Planner(world)
        found = played(world, planner, seed=3)
        assert found.success == 1.0
        assert found.collisions == 0.0
        assert planner.stuck == 0
        quickest = played(world, gas, seed=3)
        time = quickest.reward + 10 * quickest.collisions
        assert 1.1 * time < found.reward < 0

    def test_random_drivers_crash_nearly_always(self) -> None:
        assert played(TrafficJunctionWorld(1000), randomly(), seed=1).success < 0.03


class TestMistakes:
    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"level": "hrad"}, "level 'hrad' does not exist; did you mean 'hard'"),
            ({"num_agents": 0}, "num_agents is 0, and must be a whole number of at least 1"),
            ({"max_steps": 1}, "max_steps is 1, and must be a whole number of at least 2"),
            ({"max_steps": 2.5}, "max_steps is 2.5"),
            ({"vision": True}, "vision is True"),
            ({"vision": 7}, "vision is 7, and must be below the 7 cells"),
            ({"add_rate": 0.0}, "add_rate is 0.0, and must be above 0 and at most 1"),
            ({"add_rate": 1.5}, "add_rate is 1.5"),
            ({"add_rate": "much"}, "add_rate is 'much'"),
        ],
    )
    def test_values_out_of_range_are_told_in_the_users_words(self, options: dict[str, Any], words: str) -> None:
        with pytest.raises(UserError, match=f"traffic_junction_v0: {words}"):
            TrafficJunctionWorld(**options)

    def test_it_must_be_reset_first(self) -> None:
        for use in (lambda w: act(w, *[0] * 5), TrafficJunctionWorld.get_state, TrafficJunctionWorld.render):
            with pytest.raises(UserError, match="reset"):
                use(TrafficJunctionWorld())

    def test_actions_of_another_shape_are_refused(self) -> None:
        world = TrafficJunctionWorld(2)
        world.reset(0)
        with pytest.raises(UserError, match=r"shape \(1, 2\), and must have \(2, 5\)"):
            act(world, 0, 0)


class TestPictures:
    def test_a_picture_shows_what_changes(self) -> None:
        world = placed((0, 2), (1, 2))
        before = world.render()
        assert before.shape == (480, 480, 3)
        assert before.dtype == np.uint8
        assert not np.array_equal(before, world.render(links=torch.tensor([[0, 1]])))
        act(world, BRAKE, BRAKE, 0, 0, 0)
        assert not np.array_equal(before, world.render())
        act(world, GAS, GAS, 0, 0, 0)
        vermilion = (world.render() == np.array([0xD5, 0x5E, 0x00])).all(-1).sum()
        assert vermilion > 2 * (before == np.array([0xD5, 0x5E, 0x00])).all(-1).sum() > 0

    def test_running_the_module_draws_a_junction(
        self, tmp_path: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        file = tmp_path / "junction.png"
        monkeypatch.setattr(sys, "argv", ["traffic_junction_v0", str(file)])
        runpy.run_path(traffic_junction_v0.__file__, run_name="__main__")
        assert Image.open(file).size == (480, 480)
        assert "braked" in capsys.readouterr().out
