"""NavigationWorld beside mpe2's simple_spread, step by step, and against motions worked out on paper."""

from __future__ import annotations

import copy
import math
import pickle
import runpy
import sys
from itertools import permutations
from typing import Any

import numpy as np
import pytest
import torch
from pettingzoo.test import api_test, parallel_api_test
from PIL import Image
from torch import Tensor

from popcomm import envs
from popcomm.envs import WORLDS, navigation_v0
from popcomm.envs.navigation_references import assigned, assignment, nearest, own, to_landmarks
from popcomm.envs.navigation_v0 import DOWN, LEFT, RIGHT, STAY, UP, NavigationWorld
from popcomm.envs.scripted import Randomly
from popcomm.envs.testing import world_api_test
from popcomm.envs.world import WorldStep
from popcomm.errors import UserError
from tests.envs.worlds_in_play import earned, future


def act(world: NavigationWorld, *actions: int) -> WorldStep:
    return world.step({"agent": torch.tensor([actions])})


def placed(places: Any, landmarks: Any, velocities: Any = None, **options: Any) -> NavigationWorld:
    """One plane with everything where the test wants it; the observations are those of the next step."""
    world = NavigationWorld(1, num_agents=len(places), **options)
    world.reset(0)
    state = world.get_state()
    state["place"] = torch.tensor([places], dtype=torch.float64)
    state["landmarks"] = torch.tensor([landmarks], dtype=torch.float64)
    if velocities is not None:
        state["velocity"] = torch.tensor([velocities], dtype=torch.float64)
    world.set_state(state)
    return world


def at(*places: float) -> list[list[float]]:
    """Points on the horizontal axis."""
    return [[x, 0.0] for x in places]


class TestContract:
    @pytest.mark.parametrize("options", [{}, {"view": 0.0}, {"view": 0.7, "num_agents": 5}, {"num_agents": 1}])
    def test_it_keeps_the_contract_of_worlds(self, options: dict[str, Any]) -> None:
        world_api_test(NavigationWorld(3, max_steps=6, **options), num_steps=20)

    def test_pettingzoo_accepts_it(self) -> None:
        parallel_api_test(navigation_v0.parallel_env(max_steps=5), num_cycles=20)
        api_test(navigation_v0.env(view=0.5, max_steps=5), num_cycles=20)
        api_test(navigation_v0.raw_env(num_agents=2, view=0), num_cycles=20)

    def test_it_is_known_by_name(self) -> None:
        assert WORLDS["navigation_v0"] is NavigationWorld
        assert envs.navigation_v0 is navigation_v0
        assert "navigation_v0" in dir(envs)

    def test_a_pickled_copied_or_restored_world_has_the_same_future(self) -> None:
        world = NavigationWorld(4, max_steps=5)
        world.reset(3)
        future(world, 3)
        restored = NavigationWorld(4, max_steps=5)
        restored.set_state(world.get_state())
        twins = [pickle.loads(pickle.dumps(world)), copy.deepcopy(world), restored]
        expected = torch.stack(future(world))
        assert all(torch.equal(torch.stack(future(twin)), expected) for twin in twins)


class TestBesideMPE:
    @pytest.mark.parametrize(
        ("agents", "extent", "ratio"), [(1, 1.0, 0.5), (3, 0.5, 0.5), (5, 1.0, 0.2), (7, 0.4, 1.0), (16, 1.0, 0.0)]
    )
    def test_whole_episodes_are_those_of_simple_spread(self, agents: int, extent: float, ratio: float) -> None:
        """Positions, observations and rewards to 1e-5 in all 25 steps; the small square is full of contacts."""
        spread = pytest.importorskip("mpe2.simple_spread_v3")
        theirs = spread.parallel_env(N=agents, local_ratio=ratio)
        ours = NavigationWorld(1, num_agents=agents, local_ratio=ratio, extent=extent)
        step, touched = ours.reset(agents), 0
        theirs.reset(seed=0)
        inner = theirs.unwrapped.world
        place, _, landmarks = ours.here()
        for body, where in zip([*inner.agents, *inner.landmarks], [*place[0], *landmarks[0]], strict=True):
            body.state.p_pos = where.numpy().copy()
        names, generator = theirs.possible_agents, torch.Generator().manual_seed(agents)
        for t in range(25):
            actions = torch.randint(5, (1, agents), generator=generator)
            step = ours.step({"agent": actions})
            seen, rewards, _, cut, _ = theirs.step(dict(zip(names, actions[0].tolist(), strict=True)))
            places = np.stack([body.state.p_pos for body in inner.agents])
            assert np.abs(ours.here()[0][0].numpy() - places).max() < 1e-9
            assert step.positions is not None
            assert np.abs(step.positions[0].numpy() - places).max() < 1e-5
            assert np.abs(step.observations["agent"][0].numpy() - np.stack(list(seen.values()))).max() < 1e-5
            assert step.rewards[0].tolist() == pytest.approx(list(rewards.values()), abs=1e-5)
            assert step.truncated[0].tolist() == list(cut.values()) == [t == 24] * agents
            touched += int((navigation_v0.touches(ours.here()[0]) > 0).sum())
        assert touched > 0 or agents == 1


class TestMotion:
    def test_an_action_shows_in_the_place_one_step_later_and_loses_a_quarter_each_step(self) -> None:
        world = placed(at(0.0), at(1.0))
        places = [act(world, action).positions[0, 0].tolist() for action in (RIGHT, UP, STAY, STAY)]
        expected = [[0, 0], [0.05, 0], [0.05 + 0.0375, 0.05], [0.0875 + 0.028125, 0.05 + 0.0375]]
        assert np.allclose(places, expected)

    def test_left_and_down_undo_right_and_up(self) -> None:
        world = placed(at(0.0), at(1.0))
        for action in (RIGHT, UP, LEFT, DOWN, *[STAY] * 15):
            act(world, action)
        # What is left is the quarter-per-step decay of all four pushes, 0.2 each in the end, which cancel.
        assert world.here()[0].abs().max().item() < 0.003

    def test_bodies_that_touch_push_each_other_apart_along_the_line_between_them(self) -> None:
        world = placed(at(0.0, 0.2), at(1.0, 1.0))
        act(world, STAY, STAY)
        # Force 100 times the depth 0.1, for 0.1 seconds.
        assert torch.allclose(world.here()[1], torch.tensor([[[-1.0, 0.0], [1.0, 0.0]]]).double())

    def test_bodies_in_one_place_stay_finite(self) -> None:
        world = placed(at(0.0, 0.0), at(1.0, 1.0))
        assert torch.isfinite(act(world, STAY, STAY).observations["agent"]).all()

    @pytest.mark.parametrize("ratio", [0.0, 0.25, 1.0])
    def test_rewards_are_those_of_the_class(self, ratio: float) -> None:
        # Agents 0 and 1 touch; the landmarks are 0.1, 0.5 and 0.7 away from the agents nearest to them.
        world = placed(at(0.0, 0.299, 5.0), at(-0.1, 0.799, 4.3), local_ratio=ratio)
        common = -(0.1 + 0.5 + 0.7) * (1 - ratio)
        assert act(world, *[STAY] * 3).rewards[0].tolist() == pytest.approx([common - ratio, common - ratio, common])

    def test_metrics_are_of_the_ends_of_episodes(self) -> None:
        world = placed(at(0.0, 5.0), at(0.05, 5.3), max_steps=2)
        act(world, STAY, STAY)
        assert world.metrics() == {}
        act(world, STAY, STAY)
        assert world.metrics() == pytest.approx({"occupied": 0.5, "distance": 0.175, "touches": 0.0})
        assert world.metrics() == {}

    def test_touches_are_counted_over_the_episode(self) -> None:
        world = placed(at(0.0, 0.299, 5.0), at(0, 1, 2), max_steps=1)
        act(world, *[STAY] * 3)
        assert world.metrics()["touches"] == pytest.approx(2 / 3)


class TestViews:
    def seen(self, view: float | None) -> Tensor:
        world = placed(at(0.0, 1.0, 3.0), at(0.5, 4.0, -2.0), view=view)
        return act(world, *[STAY] * 3).observations["agent"][0]

    def test_at_zero_only_the_own_landmark_is_seen(self) -> None:
        assert self.seen(0).tolist() == [[0, 0, 0, 0, 0.5, 0], [0, 0, 1, 0, 3, 0], [0, 0, 3, 0, -5, 0]]

    def test_between_what_is_within_the_view_is_seen_and_flagged(self) -> None:
        first = self.seen(1.0)[0].tolist()
        marks, others, flags = [0.5, 0, 0, 0, 0, 0], [1, 0, 0, 0], [1, 0, 0, 1, 0]
        assert first == [0, 0, 0, 0, 0.5, 0, *marks, *others, *flags]
        last = self.seen(1.0)[2].tolist()
        assert last == [0, 0, 3, 0, -5, 0, 0, 0, 1, 0, 0, 0, *[0] * 4, 0, 1, 0, 0, 0]

    def test_a_wide_view_holds_what_none_holds_without_the_silent_channel(self) -> None:
        wide, all_of_it = self.seen(100.0), self.seen(None)
        assert torch.equal(wide[:, 6:16], all_of_it[:, 4:14])
        assert not all_of_it[:, 14:].any()
        assert (wide[:, 16:] == 1).all()

    @pytest.mark.parametrize(("view", "size"), [(None, 768), (0, 6), (1.5, 771)])
    def test_128_agents_see_as_much_as_the_class_says(self, view: float | None, size: int) -> None:
        world = NavigationWorld(2, num_agents=128, extent=6.5, view=view)
        world.reset(0)
        step = world.step({"agent": torch.zeros(2, 128, dtype=torch.int64)})
        assert step.observations["agent"].shape == (2, 128, size)
        assert step.state is not None
        assert step.state.shape == (2, 768)

    def test_all_start_evenly_in_the_square(self) -> None:
        world = NavigationWorld(4000, extent=2.0)
        world.reset(0)
        for points in (world.here()[0], world.here()[2]):
            assert points.abs().max().item() < 2.0
            # Uniform on [-2, 2]: mean 0, variance 4 / 3.
            assert points.mean().item() == pytest.approx(0, abs=4.5 * (4 / 3 / 24_000) ** 0.5)
            assert points.var().item() == pytest.approx(4 / 3, rel=0.03)


class TestReferences:
    def test_a_script_comes_to_rest_within_a_tenth_of_its_goal_on_both_axes(self) -> None:
        world = placed([[0.0, 0.0]], [[0.93, -0.68]])
        actions = []
        for _ in range(25):
            chosen = own(world)
            actions.append(int(chosen["agent"]))
            world.step(chosen)
        # 0.93 is five strides of 0.2 to the nearest, 0.68 is three.
        assert [actions.count(action) for action in (STAY, LEFT, RIGHT, DOWN, UP)] == [17, 0, 5, 3, 0]
        assert world.here()[0][0, 0].tolist() == pytest.approx([1.0, -0.6], abs=0.01)

    def test_the_assignment_is_the_cheapest_of_all(self) -> None:
        world = NavigationWorld(6, num_agents=5)
        world.reset(2)
        place, _, landmarks = world.here()
        costs = torch.cdist(place, landmarks)
        for cost, chosen in zip(costs, assignment(world), strict=True):
            sums = {way: sum(float(cost[i, j]) for i, j in enumerate(way)) for way in permutations(range(5))}
            assert tuple(chosen.tolist()) == min(sums, key=sums.__getitem__)

    def test_the_nearest_landmark_may_be_that_of_two(self) -> None:
        world = placed(at(0.0, 0.5), at(0.2, 5.0))
        assert nearest(world)["agent"].tolist() == [[RIGHT, LEFT]]
        assert assigned(world)["agent"].tolist() == [[RIGHT, RIGHT]]
        assert to_landmarks(world, torch.tensor([[1, 0]]))["agent"].tolist() == [[RIGHT, LEFT]]

    def test_scripts_earn_what_the_table_says(self) -> None:
        table = {Randomly(): -26.67, nearest: -17.26, own: -11.78, assigned: -8.87}
        for script, told in table.items():
            mean, error = earned(NavigationWorld(300), script)
            assert mean == pytest.approx(told, abs=4 * error + 0.01)


class TestMistakes:
    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"num_agents": 0}, "num_agents is 0, and must be at least 1"),
            ({"view": -1}, "view is -1, and must not be negative"),
            ({"view": "all"}, "view is 'all', and must not be negative"),
            ({"local_ratio": 1.1}, "local_ratio is 1.1, and must lie in"),
            ({"extent": math.inf}, "extent is inf, and must be a finite number above 0"),
            ({"max_steps": 2.5}, "max_steps is 2.5, and must be a whole number"),
        ],
    )
    def test_values_out_of_range_are_told_in_the_users_words(self, options: dict[str, Any], words: str) -> None:
        with pytest.raises(UserError, match=f"navigation_v0: {words}"):
            NavigationWorld(**options)

    def test_it_must_be_reset_first(self) -> None:
        for use in (lambda w: act(w, 0, 0, 0), NavigationWorld.get_state, NavigationWorld.render, nearest):
            with pytest.raises(UserError, match=r"navigation_v0 .* reset"):
                use(NavigationWorld())


class TestPictures:
    def test_a_picture_shows_what_changes(self) -> None:
        world = placed(at(0.0, 0.5), at(0.3, -0.9))
        before = world.render()
        assert before.shape == (480, 480, 3)
        assert before.dtype == np.uint8
        assert not np.array_equal(before, world.render(links=torch.tensor([[0, 1]])))
        for view in (0, 0.4):
            assert not np.array_equal(before, placed(at(0.0, 0.5), at(0.3, -0.9), view=view).render())
        assert not np.array_equal(before, placed(at(0.0, 0.5), at(0.0, -0.9)).render())

    @pytest.mark.filterwarnings("ignore:.*found in sys.modules")
    def test_running_the_module_draws_the_end_of_an_episode(self, tmp_path: Any, monkeypatch: Any, capsys: Any) -> None:
        file = tmp_path / "navigation.png"
        monkeypatch.setattr(sys, "argv", ["navigation_v0", str(file)])
        runpy.run_module("popcomm.envs.navigation_v0", run_name="__main__")
        assert Image.open(file).size == (480, 480)
        assert "seven agents after 25 steps" in capsys.readouterr().out
