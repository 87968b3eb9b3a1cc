"""SwitchRiddleWorld against days worked out on paper, and its references against chances counted one by one."""

from __future__ import annotations

import copy
import itertools
import pickle
import runpy
import sys
from typing import Any

import numpy as np
import pytest
import torch
from pettingzoo.test import api_test, parallel_api_test
from PIL import Image
from scipy.optimize import LinearConstraint, milp

from popcomm import envs
from popcomm.envs import WORLDS, switch_riddle_v0
from popcomm.envs.scripted import Randomly
from popcomm.envs.switch_riddle_v0 import (
    SwitchRiddleWorld,
    all_seen,
    oracle_actions,
    references,
    silent_actions,
)
from popcomm.envs.testing import world_api_test
from popcomm.envs.world import WorldStep
from popcomm.errors import UserError
from tests.envs.worlds_in_play import earned, future


def act(world: SwitchRiddleWorld, *actions: int) -> WorldStep:
    return world.step({"prisoner": torch.tensor([actions])})


def prison(inside: int, visits: list[int], day: int, **options: Any) -> SwitchRiddleWorld:
    """One world on the day (from 1 on) that the test wants."""
    world = SwitchRiddleWorld(1, num_agents=len(visits), **options)
    world.reset(0)
    state = world.get_state()
    state["inside"], state["visits"] = torch.tensor([inside]), torch.tensor([visits])
    state["age"] = torch.tensor([day - 1])
    world.set_state(state)
    return world


class TestContract:
    @pytest.mark.parametrize("options", [{}, {"talk": "room"}, {"num_agents": 2}, {"num_agents": 5, "days": 1}])
    def test_it_keeps_the_contract_of_worlds(self, options: dict[str, Any]) -> None:
        world_api_test(SwitchRiddleWorld(4, **options), num_steps=40)

    def test_pettingzoo_accepts_it(self) -> None:
        parallel_api_test(switch_riddle_v0.parallel_env(num_agents=4), num_cycles=60)
        api_test(switch_riddle_v0.env(), num_cycles=60)
        api_test(switch_riddle_v0.raw_env(), num_cycles=60)

    def test_it_is_known_by_name(self) -> None:
        assert WORLDS["switch_riddle_v0"] is SwitchRiddleWorld
        assert envs.switch_riddle_v0 is switch_riddle_v0
        assert "switch_riddle_v0" in dir(envs)

    def test_a_pickled_copied_or_restored_world_has_the_same_future(self) -> None:
        world = SwitchRiddleWorld(4)
        world.reset(3)
        future(world, 5)
        restored = SwitchRiddleWorld(4)
        restored.set_state(world.get_state())
        twins = [pickle.loads(pickle.dumps(world)), copy.deepcopy(world), restored]
        expected = torch.stack(future(world))
        assert all(torch.equal(torch.stack(future(twin)), expected) for twin in twins)

    def test_another_seed_leads_others_into_the_room(self) -> None:
        rows = [SwitchRiddleWorld(64).reset(seed).observations["prisoner"] for seed in (1, 1, 2)]
        assert torch.equal(rows[0], rows[1])
        assert not torch.equal(rows[0], rows[2])


class TestDays:
    def test_a_prisoner_sees_whether_it_is_in_the_room_who_it_is_and_the_day(self) -> None:
        seen = act(prison(inside=0, visits=[1, 0, 0], day=1), 0, 1, 1)
        inside = int(seen.observations["prisoner"][0, :, 0].argmax())
        for seat, row in enumerate(seen.observations["prisoner"][0].tolist()):
            assert row == [seat == inside, *(float(seat == i) for i in range(3)), 0, 1, 0, 0, 0, 0]

    def test_one_prisoner_a_day_is_drawn_evenly_whoever_was_there_before(self) -> None:
        world = SwitchRiddleWorld(4000, num_agents=4, days=3)
        rows = [world.reset(0)]
        rows += [world.step({"prisoner": torch.zeros(4000, 4, dtype=torch.int64)}) for _ in range(2)]
        inside = torch.stack([row.observations["prisoner"][..., 0] for row in rows])
        assert (inside.sum(-1) == 1).all()
        there = inside.argmax(-1)
        pairs = torch.bincount(there[0] * 4 + there[2], minlength=16) / 4000
        assert pairs.tolist() == pytest.approx([1 / 16] * 16, abs=4.5 * (1 / 16 * 15 / 16 / 4000) ** 0.5)

    def test_only_the_action_of_the_prisoner_in_the_room_counts(self) -> None:
        step = act(prison(inside=2, visits=[1, 1, 1], day=3), 1, 1, 0)
        assert step.alive.all()
        assert step.rewards.tolist() == [[0.0] * 3]

    @pytest.mark.parametrize(("visits", "reward"), [([1, 1, 1], 1.0), ([2, 0, 1], -1.0)])
    def test_to_tell_ends_the_episode_and_pays_all_or_costs_all(self, visits: list[int], reward: float) -> None:
        step = act(prison(inside=2, visits=visits, day=3), 0, 0, 1)
        assert step.rewards.tolist() == [[reward] * 3]
        assert step.terminated.all()
        assert not step.truncated.any()

    def test_the_last_day_ends_the_game_and_is_no_cut(self) -> None:
        world = prison(inside=1, visits=[2, 2, 2], day=6)
        step = act(world, 0, 0, 0)
        assert step.terminated.all()
        assert not step.truncated.any()
        assert step.rewards.tolist() == [[0.0] * 3]
        fresh = act(world, 1, 1, 1)
        assert fresh.first.all()
        assert fresh.rewards.tolist() == [[0.0] * 3]
        assert fresh.observations["prisoner"][0, :, 4].tolist() == [1, 1, 1]  # the first day

    def test_it_lasts_four_n_less_six_days_unless_told(self) -> None:
        days = [SwitchRiddleWorld(num_agents=n).max_steps for n in (2, 3, 4, 10)]
        assert days == [2, 6, 10, 34]
        assert SwitchRiddleWorld(days=9).max_steps == 9

    def test_visits_begin_anew_with_an_episode(self) -> None:
        world = SwitchRiddleWorld(50, num_agents=2, days=2)
        world.reset(0)
        idle = {"prisoner": torch.zeros(50, 2, dtype=torch.int64)}
        for _ in range(3):
            step = world.step(idle)
        assert step.first.all()
        assert (step.labels.sum(-1) == 1).all()

    def test_labels_say_who_was_there_while_it_can_still_be_said_in_time(self) -> None:
        step = act(prison(inside=0, visits=[1, 1, 0, 0], day=2, days=4), 0, 0, 0, 0)
        inside = int(step.observations["prisoner"][0, :, 0].argmax())
        assert step.labels[0].tolist() == [1, 1, int(inside == 2), int(inside == 3)]
        assert act(prison(inside=0, visits=[1, 1], day=1, days=2), 0, 0).labels.tolist() == [[-1, -1]]
        assert act(prison(inside=0, visits=[1, 1], day=1, days=5), 1, 0).labels.tolist() == [[-1, -1]]

    def test_all_speak_or_only_who_is_in_the_room(self) -> None:
        assert SwitchRiddleWorld(8).reset(0).speaks is None
        row = SwitchRiddleWorld(8, talk="room").reset(0)
        assert torch.equal(row.speaks, row.observations["prisoner"][..., 0].bool())


class TestReferences:
    @pytest.mark.parametrize(("others", "days"), [(1, 0), (1, 3), (2, 4), (3, 2), (3, 5), (4, 6)])
    def test_the_chance_of_all_is_that_of_counting(self, others: int, days: int) -> None:
        draws = list(itertools.product(range(others), repeat=days))
        assert all_seen(others, days) == pytest.approx(sum(len(set(d)) == others for d in draws) / len(draws))

    def test_three_prisoners_in_six_days_on_paper(self) -> None:
        # All three in six draws: 3^6 - 3 * 2^6 + 3 of 3^6.
        assert references(SwitchRiddleWorld()).oracle == pytest.approx((729 - 192 + 3) / 729)
        assert references(SwitchRiddleWorld()).silent == pytest.approx(130 / 243)
        assert references(SwitchRiddleWorld()).random == pytest.approx(-0.8115, abs=1e-4)

    def test_of_two_prisoners_the_second_one_knows_without_a_word(self) -> None:
        assert references(SwitchRiddleWorld(num_agents=2)) == pytest.approx((-0.5, 0.5, 0.5))

    @pytest.mark.parametrize("options", [{}, {"num_agents": 2, "days": 3}, {"num_agents": 4}, {"days": 9}])
    def test_scripted_prisoners_earn_what_is_expected(self, options: dict[str, Any]) -> None:
        told, world = references(SwitchRiddleWorld(**options)), SwitchRiddleWorld(20_000, **options)
        for name, policy in {"random": Randomly(), "silent": silent_actions, "oracle": oracle_actions}.items():
            mean, error = earned(world, policy)
            assert 0 < error < 0.01
            assert mean == pytest.approx(getattr(told, name), abs=4 * error)

    def test_the_silent_script_goes_by_own_visits_alone(self) -> None:
        quiet = [silent_actions(prison(0, [v, *others], 6)) for v in (1, 3, 4) for others in ([0, 2], [1, 1])]
        assert [int(actions["prisoner"][0, 0]) for actions in quiet] == [1, 1, 1, 1, 0, 0]
        assert [int(silent_actions(prison(0, [v, 1, 1], 5))["prisoner"][0, 0]) for v in (1, 2)] == [1, 0]
        assert not silent_actions(prison(0, [1, 1, 1], 4))["prisoner"].any()

    def test_no_common_silent_policy_earns_more_than_the_silent_script(self) -> None:
        assert best_common_silence(3, 6) == pytest.approx(references(SwitchRiddleWorld()).silent)

    def test_many_prisoners_do_not_overflow(self) -> None:
        told = references(SwitchRiddleWorld(num_agents=100))
        assert -1.0 <= told.random <= 0.0 <= told.silent < told.oracle < 1.0


def best_common_silence(n: int, days: int) -> float:
    """The best return of prisoners who follow one policy of their own days in the room, by an integer program.

    Variables: x, of each history of days in and out, tells or not; z, of each draw of days and each day, the episode
    ends by telling on it. z is at most x of that day, at most 1 - x of each day before, at least x less those before.
    """
    draws = [d for d in itertools.product(range(n), repeat=days)]
    histories: dict[tuple[bool, ...], int] = {}
    for draw, day in itertools.product(draws, range(days)):
        histories.setdefault(tuple(seat == draw[day] for seat in draw[: day + 1]), len(histories))
    # Draws that differ by the names of prisoners alone are one, of so many times the weight.
    weights: dict[tuple[int, ...], int] = {}
    for draw in draws:
        order = list(dict.fromkeys(draw))
        renamed = tuple(order.index(seat) for seat in draw)
        weights[renamed] = weights.get(renamed, 0) + 1
    count = len(histories)
    gain, rows, bounds = np.zeros(count + len(weights) * days), [], []
    for place, (draw, weight) in enumerate(weights.items()):
        xs = [histories[tuple(seat == draw[day] for seat in draw[: day + 1])] for day in range(days)]
        for day in range(days):
            z = count + place * days + day
            gain[z] = weight / n**days * (1 if len(set(draw[: day + 1])) == n else -1)
            signs = [({z: 1.0, xs[day]: -1.0}, 0.0), ({xs[day]: 1.0, z: -1.0} | {x: -1.0 for x in xs[:day]}, 0.0)]
            signs += [({z: 1.0, x: 1.0}, 1.0) for x in xs[:day]]
            for signed, bound in signs:
                row = np.zeros(len(gain))
                row[list(signed)] = list(signed.values())
                rows.append(row)
                bounds.append(bound)
    whole = np.arange(len(gain)) < count
    solved = milp(
        -gain, constraints=LinearConstraint(np.array(rows), -np.inf, bounds), integrality=whole, bounds=(0, 1)
    )
    assert solved.success
    return -solved.fun


class TestMistakes:
    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"num_agents": 1}, "num_agents is 1, and must be at least 2"),
            ({"num_agents": 2.5}, "num_agents is 2.5, and must be a whole number"),
            ({"days": 0}, "days is 0, and must be at least 1"),
            ({"num_worlds": 0}, "num_worlds is 0, and must be at least 1"),
            ({"talk": "rom"}, "talk.*rom.*room"),
        ],
    )
    def test_values_out_of_range_are_told_in_the_users_words(self, options: dict[str, Any], words: str) -> None:
        with pytest.raises(UserError, match=f"switch_riddle_v0: {words}"):
            SwitchRiddleWorld(**options)

    def test_it_must_be_reset_first(self) -> None:
        for use in (lambda w: act(w, 0, 0, 0), SwitchRiddleWorld.get_state, SwitchRiddleWorld.render):
            with pytest.raises(UserError, match=r"switch_riddle_v0 .* reset"):
                use(SwitchRiddleWorld())

    def test_actions_of_another_shape_are_refused(self) -> None:
        world = SwitchRiddleWorld(2)
        world.reset(0)
        with pytest.raises(UserError, match=r"shape \(1, 4\), and must have \(2, 3\)"):
            act(world, 0, 0, 0, 0)


class TestPictures:
    def test_a_picture_shows_who_is_where_and_what_was_told(self) -> None:
        world = prison(inside=0, visits=[1, 1, 0], day=2)
        before = world.render()
        assert before.shape == (480, 480, 3)
        assert before.dtype == np.uint8
        assert not np.array_equal(before, prison(inside=1, visits=[1, 1, 0], day=2).render())
        assert not np.array_equal(before, prison(inside=0, visits=[1, 1, 1], day=2).render())
        assert not np.array_equal(before, world.render(links=torch.tensor([[0, 1]])))
        act(world, 1, 0, 0)
        assert not np.array_equal(before, world.render())

    @pytest.mark.filterwarnings("ignore:.*found in sys.modules")
    def test_running_the_module_draws_the_end_of_an_episode(self, tmp_path: Any, monkeypatch: Any, capsys: Any) -> None:
        file = tmp_path / "riddle.png"
        monkeypatch.setattr(sys, "argv", ["switch_riddle_v0", str(file)])
        runpy.run_module("popcomm.envs.switch_riddle_v0", run_name="__main__")
        assert Image.open(file).size == (480, 480)
        assert "end of an episode of switch_riddle_v0" in capsys.readouterr().out
