"""SwarmWorld against numbers worked out on paper, and its mesh against sums over pairs."""

from __future__ import annotations

import copy
import math
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from popcomm import envs
from popcomm.envs import WORLDS, demo, swarm_v0
from popcomm.envs.swarm_dynamics import attraction, crowding, limit_speed, on_circle, shortest, wrap
from popcomm.envs.swarm_v0 import SwarmWorld
from popcomm.envs.testing import world_api_test
from popcomm.envs.world import WorldStep
from popcomm.errors import UserError

# Nothing moves by itself: what happens is what the test says.
STILL: dict[str, Any] = {
    "size": 8.0,
    "neighbour_range": 1.0,
    "glimpse_noise": 0.0,
    "cohesion": 0.0,
    "separation": 0.0,
    "drag": 0.0,
    "beacon_speed": 0.0,
    "beacon_turn": 0.0,
}
NONE, RIGHT, LEFT, UP, DOWN = range(5)


def placed(positions: list[list[float]], beacon: list[float], velocity: Any = None, **kwargs: Any) -> SwarmWorld:
    """One world with agents and beacon where we want them."""
    world = SwarmWorld(1, len(positions), **{**STILL, **kwargs})
    world.reset(0)
    state = world.get_state()
    state["planes"] = torch.tensor(positions).t().unsqueeze(1).contiguous()
    if velocity is not None:
        state["velocity"] = torch.tensor(velocity).t().unsqueeze(1).contiguous()
    state["beacon"] = torch.tensor(beacon).unsqueeze(1)
    world.set_state(state)
    return world


def act(world: SwarmWorld, *actions: int, spoken: list[float] | None = None) -> WorldStep:
    return world.step({"swarm": torch.tensor([actions])}, None if spoken is None else torch.tensor([spoken]))


def spline(distance: Tensor) -> Tensor:
    """The quadratic spline over cell widths, written piece by piece."""
    gap = distance.abs()
    return torch.where(gap < 0.5, 0.75 - gap**2, 0.5 * (1.5 - gap).clamp(min=0) ** 2)


def pair_density(planes: Tensor, size: float, cells: int) -> Tensor:
    """[N] densities of the agents at planes [2, N], as the sum over pairs that `crowding` promises, and its copies."""
    cell = planes.detach() * (cells / size)
    gap = (planes * (cells / size)).unsqueeze(-1) - cell.round().unsqueeze(-2)
    copies = cells * torch.arange(-1, 2)
    near = spline(gap.unsqueeze(-1) + copies).sum(-1)  # [2, N, N]
    return (near[0] * near[1] * (1 - torch.eye(planes.shape[1]))).sum(-1)


class TestLaws:
    def test_the_shortest_way_crosses_the_border(self) -> None:
        assert shortest(torch.tensor([9.0, -9.0, 5.5, 4.5, 0.0]), 10.0).tolist() == [-1.0, 1.0, -4.5, 4.5, 0.0]

    @given(st.floats(-1e4, 1e4, width=32), st.floats(0.5, 1e3, width=32))
    def test_wrapped_positions_lie_on_the_torus_whatever_the_rounding(self, x: float, size: float) -> None:
        wrapped = wrap(torch.tensor([x]), size)
        assert 0 <= wrapped.item() < torch.tensor(size).item()
        turns = (x - wrapped.item()) / size
        assert abs(turns - round(turns)) * size <= 1e-6 * max(abs(x), size) * 2

    def test_a_position_just_below_zero_does_not_become_the_size(self) -> None:
        assert wrap(torch.tensor([-1e-9, 10.0, 9.999999]), 10.0).lt(10.0).all()

    def test_speed_is_cut_and_the_heading_stays(self) -> None:
        velocity = limit_speed(torch.tensor([[3.0, 0.3, 0.0], [4.0, 0.4, 0.0]]), 1.0)
        torch.testing.assert_close(velocity, torch.tensor([[0.6, 0.3, 0.0], [0.8, 0.4, 0.0]]))

    @settings(max_examples=25, deadline=None)
    @given(st.integers(0, 10**6), st.integers(1, 12), st.integers(3, 9))
    def test_density_and_gradient_are_those_of_the_sum_over_pairs(self, seed: int, n: int, cells: int) -> None:
        size, worlds = 5.0, 3
        planes = torch.rand(2, worlds, n, generator=torch.Generator().manual_seed(seed)) * size
        density, gradient = crowding(planes, size, cells)
        for b in range(worlds):
            exact = planes[:, b].clone().requires_grad_()
            expected = pair_density(exact, size, cells)
            torch.testing.assert_close(density[b], expected.detach(), atol=1e-4, rtol=1e-4)
            slope = torch.autograd.grad(expected.sum(), exact)[0]
            torch.testing.assert_close(gradient[:, b], slope, atol=1e-3, rtol=1e-3)

    def test_a_lonely_agent_has_no_density_and_is_not_pushed(self) -> None:
        density, gradient = crowding(torch.rand(2, 50, 1) * 10, 10.0, 8)
        assert not density.any()
        assert not gradient.any()

    def test_agents_on_one_node_see_nine_sixteenths_of_each_other(self) -> None:
        density, gradient = crowding(torch.full((2, 1, 5), 3.0), 8.0, 8)
        assert density.tolist() == [[4 * 0.75**2] * 5]
        assert not gradient.any()

    def test_a_uniform_swarm_has_as_many_others_as_there_are_in_a_cell(self) -> None:
        nodes = torch.cartesian_prod(torch.arange(8.0), torch.arange(8.0)).t().repeat(1, 3).unsqueeze(1)
        density, _ = crowding(nodes, 8.0, 8)
        torch.testing.assert_close(density, torch.full((1, 192), 3 - 0.75**2))

    def test_attraction_is_the_mean_over_pairs_of_the_sine(self) -> None:
        planes = torch.rand(2, 3, 7) * 10
        circle = on_circle(planes, 10.0)
        angle = planes * (2 * math.pi / 10)
        pairs = (angle.unsqueeze(-2) - angle.unsqueeze(-1)).sin().mean(-1)
        torch.testing.assert_close(attraction(circle, circle.mean(-1)), pairs, atol=1e-5, rtol=1e-4)


class TestMotion:
    @pytest.mark.parametrize(
        ("action", "expected"),
        [(NONE, [4.0, 4.0]), (RIGHT, [4.1, 4.0]), (LEFT, [3.9, 4.0]), (UP, [4.0, 4.1]), (DOWN, [4.0, 3.9])],
    )
    def test_a_thrust_moves_where_it_says(self, action: int, expected: list[float]) -> None:
        step = act(placed([[4.0, 4.0]], [0.0, 0.0]), action)
        torch.testing.assert_close(step.positions, torch.tensor([[expected]]))

    def test_a_continuous_thrust_is_clipped_and_scaled(self) -> None:
        world = placed([[4.0, 4.0]], [0.0, 0.0], continuous_actions=True)
        step = world.step({"swarm": torch.tensor([[[0.5, -7.0]]])})
        torch.testing.assert_close(step.positions, torch.tensor([[[4.05, 3.9]]]))

    def test_drag_slows_down(self) -> None:
        step = act(placed([[4.0, 4.0]], [0.0, 0.0], velocity=[[0.2, 0.0]], drag=0.25), NONE)
        torch.testing.assert_close(step.positions, torch.tensor([[[4.15, 4.0]]]))

    def test_nobody_is_faster_than_the_limit(self) -> None:
        step = act(placed([[4.0, 4.0]], [0.0, 0.0], velocity=[[0.2, 0.0]], max_speed=0.25), RIGHT)
        torch.testing.assert_close(step.positions, torch.tensor([[[4.25, 4.0]]]))
        torch.testing.assert_close(step.observations["swarm"][0, 0, 4:6], torch.tensor([1.0, 0.0]))

    def test_those_who_leave_on_the_right_come_back_on_the_left(self) -> None:
        step = act(placed([[7.95, 4.0]], [0.0, 0.0]), RIGHT)
        torch.testing.assert_close(step.positions, torch.tensor([[[0.05, 4.0]]]), atol=1e-5, rtol=0)

    def test_cohesion_pulls_together_by_the_mean_sine(self) -> None:
        # A quarter of the torus apart: the mean over both of the sine is 1/2.
        step = act(placed([[2.0, 4.0], [4.0, 4.0]], [0.0, 0.0], cohesion=0.1), NONE, NONE)
        torch.testing.assert_close(step.positions, torch.tensor([[[2.05, 4.0], [3.95, 4.0]]]))

    def test_separation_pushes_apart_by_the_gradient_of_log_density(self) -> None:
        # One cell away the spline is 1/8 and rises by 1/2 per unit; across the other axis it is 3/4.
        step = act(placed([[1.0, 2.0], [2.0, 2.0]], [0.0, 0.0], separation=0.1), NONE, NONE)
        push = 0.1 * (0.5 * 0.75) / (1 + 0.125 * 0.75)
        torch.testing.assert_close(step.positions, torch.tensor([[[1.0 - push, 2.0], [2.0 + push, 2.0]]]))

    def test_the_beacon_drifts_at_its_speed(self) -> None:
        world = SwarmWorld(64, 2, beacon_speed=0.05)
        world.reset(0)
        before = world.get_state()["beacon"]
        world.step({"swarm": torch.zeros(64, 2, dtype=torch.int64)})
        moved = shortest(world.get_state()["beacon"] - before, world.size).norm(dim=0)
        torch.testing.assert_close(moved, torch.full((64,), 0.05), atol=1e-5, rtol=0)


class TestRewards:
    # Cells are 1 wide: the density of (1, 2) and (2, 2) for each other is w(1) w(0) = 1/8 * 3/4.
    CROWD = (0.125 * 0.75) / (1 + 0.125 * 0.75)
    OWN = (math.exp(-1.0 / 2.0) + 0.3 * CROWD, 1.0 + 0.3 * CROWD)

    def two(self, **kwargs: Any) -> SwarmWorld:
        return placed([[1.0, 2.0], [2.0, 2.0]], [2.0, 2.0], cluster_reward=0.3, reward_length=2.0, **kwargs)

    def test_own_reward_is_closeness_plus_crowd(self) -> None:
        step = act(self.two(reward_share=0.0), NONE, NONE)
        torch.testing.assert_close(step.rewards[0], torch.tensor(self.OWN))

    def test_spoken_symbols_cost_their_speaker(self) -> None:
        step = act(self.two(reward_share=0.0, message_cost=0.02), NONE, NONE, spoken=[3.0, 0.0])
        torch.testing.assert_close(step.rewards[0], torch.tensor([self.OWN[0] - 0.06, self.OWN[1]]))

    def test_talk_is_free_by_default(self) -> None:
        silent, loud = act(self.two(), NONE, NONE), act(self.two(), NONE, NONE, spoken=[5.0, 5.0])
        assert torch.equal(silent.rewards, loud.rewards)

    @pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
    def test_rewards_mix_own_and_mean(self, share: float) -> None:
        step = act(self.two(reward_share=share, message_cost=0.02), NONE, NONE, spoken=[3.0, 0.0])
        own = torch.tensor([self.OWN[0] - 0.06, self.OWN[1]])
        torch.testing.assert_close(step.rewards[0], (1 - share) * own + share * own.mean())

    def test_the_distance_to_the_beacon_is_measured_across_the_border(self) -> None:
        step = act(placed([[0.5, 4.0]], [7.5, 4.0], reward_length=1.0, reward_share=0.0), NONE)
        torch.testing.assert_close(step.rewards, torch.tensor([[math.exp(-1.0)]]))


class TestPerception:
    def test_the_observation_is_what_the_docstring_says(self) -> None:
        step = act(placed([[2.0, 0.0], [2.0, 4.0]], [2.5, 7.0], sensing_radius=1.2), NONE, NONE)
        # Angles 90 and 0 degrees; at rest; alone; the beacon is (0.5, -1) away, in units of half the torus; perceived.
        seen = torch.tensor([0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.125, -0.25, 1.0])
        blind = torch.tensor([0.0, -1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0])
        torch.testing.assert_close(step.observations["swarm"][0], torch.stack((seen, blind)), atol=1e-6, rtol=0)

    def test_the_crowd_is_density_over_one_plus_density(self) -> None:
        step = act(placed([[2.0, 2.0]] * 3, [0.0, 0.0]), NONE, NONE, NONE)
        density = 2 * 0.75**2
        torch.testing.assert_close(step.observations["swarm"][0, :, 6], torch.full((3,), density / (1 + density)))

    def test_only_those_within_the_radius_have_a_label_and_it_is_the_beacons_cell(self) -> None:
        # Cells are 2 wide: the beacon at (7, 3) is in column 3 of row 1.
        step = act(placed([[0.0, 3.0], [7.0, 4.5], [3.0, 3.0]], [7.0, 3.0], sensing_radius=1.1), NONE, NONE, NONE)
        assert step.labels.tolist() == [[7, -1, -1]]
        assert SwarmWorld.label_attributes[7].tolist() == [1, 3]

    def test_scouts_perceive_from_everywhere_and_others_never(self) -> None:
        world = placed([[3.0, 7.0], [7.0, 0.0], [7.0, 3.0], [7.0, 3.0]], [7.0, 3.0], scout_fraction=0.5)
        step = act(world, NONE, NONE, NONE, NONE)
        assert step.labels.tolist() == [[7, 7, -1, -1]]
        assert step.observations["swarm"][0, :, 9].tolist() == [1.0, 1.0, 0.0, 0.0]
        assert not step.observations["swarm"][0, 2:, 7:9].any()

    def test_glimpses_scatter_by_their_noise(self) -> None:
        world = SwarmWorld(200, 50, scout_fraction=1.0, glimpse_noise=0.4, beacon_speed=0.0)
        step = world.reset(0)
        exact = shortest(world.get_state()["beacon"].t().unsqueeze(1) - step.positions, world.size)
        error = step.observations["swarm"][..., 7:9] * (world.size / 2) - exact
        assert abs(error.mean().item()) < 0.02
        assert error.std().item() == pytest.approx(0.4, rel=0.02)

    def test_by_default_a_minority_perceives_the_beacon(self) -> None:
        share = (SwarmWorld(2000).reset(0).labels >= 0).float().mean().item()
        assert share == pytest.approx(math.pi * 1.5**2 / 100, rel=0.1)

    def test_the_state_is_centroid_velocity_dispersion_and_beacon(self) -> None:
        moving = [[0.1, 0.0], [0.1, 0.2]]
        step = act(placed([[7.9, 2.0], [1.9, 1.8]], [4.0, 0.0], velocity=moving, max_speed=0.5), NONE, NONE)
        # They come to x = 0 and 2 (angles 0 and 90 degrees) and y = 2 both: resultants 1 / sqrt(2) and 1.
        half = math.sqrt(0.5)
        expected = [half, 0.0, half, 1.0, 0.2, 0.2, 1 - (half + 1) / 2, -1.0, 1.0, 0.0, 0.0]
        torch.testing.assert_close(step.state[0], torch.tensor(expected), atol=1e-5, rtol=0)


class TestWorld:
    @pytest.mark.parametrize(
        "kwargs",
        [
            {},
            {"num_agents": 1, "glimpse_noise": 0.0},
            {"num_worlds": 3, "continuous_actions": True, "scout_fraction": 0.3, "message_cost": 0.1},
            {"num_worlds": 2, "num_agents": 40, "size": 3.0, "neighbour_range": 9.0, "reward_share": 1.0},
        ],
    )
    def test_it_keeps_the_contract(self, kwargs: dict[str, Any]) -> None:
        world_api_test(SwarmWorld(**{"num_worlds": 2, "max_steps": 15, **kwargs}), num_steps=40)

    def test_episodes_are_cut_at_max_steps_and_the_next_step_opens_new_ones(self) -> None:
        world = SwarmWorld(2, 3, max_steps=4)
        first = world.reset(0)
        noop = {"swarm": torch.zeros(2, 3, dtype=torch.int64)}
        rows = [first] + [world.step(noop) for _ in range(5)]
        assert [bool(r.truncated.all()) for r in rows] == [False, False, False, False, True, False]
        assert [bool(r.alive.all()) for r in rows] == [True, True, True, True, False, True]
        assert [bool(r.first.all()) for r in rows] == [True, False, False, False, False, True]
        assert not torch.equal(rows[5].positions, rows[0].positions)

    def test_a_copy_and_a_pickle_have_the_same_future(self) -> None:
        world = SwarmWorld(2, 3, max_steps=6)
        world.reset(3)
        noop = {"swarm": torch.ones(2, 3, dtype=torch.int64)}
        world.step(noop)
        twins = [copy.deepcopy(world), pickle.loads(pickle.dumps(world))]
        for _ in range(10):
            expected = world.step(noop)
            for twin in twins:
                assert torch.equal(twin.step(noop).observations["swarm"], expected.observations["swarm"])

    def test_those_who_are_told_where_the_beacon_is_do_clearly_better(self) -> None:
        """Steer to the beacon, known to all or once perceived; those who do not know it search straight ahead."""

        def mean_reward(told: bool) -> float:
            world = SwarmWorld(64, continuous_actions=True)
            step, rewards = world.reset(7), []
            headings = torch.rand(64, world.num_agents, generator=torch.Generator().manual_seed(7)) * 2 * math.pi
            search = torch.stack((headings.cos(), headings.sin()), -1)
            knows, goal = torch.zeros(64, world.num_agents, dtype=torch.bool), torch.zeros(64, world.num_agents, 2)
            while step.alive.any():
                seen = step.labels >= 0
                knows = knows | seen | told
                beacon = world.get_state()["beacon"].t().unsqueeze(1)
                goal = torch.where((seen | told).unsqueeze(-1), beacon, goal)
                steer = 0.5 * shortest(goal - step.positions, world.size) - 0.5 * step.observations["swarm"][..., 4:6]
                actions = torch.where(knows.unsqueeze(-1), steer / world.acceleration, search)
                step = world.step({"swarm": actions})
                rewards.append(step.rewards.mean().item())
            return sum(rewards) / len(rewards)

        assert mean_reward(told=True) > mean_reward(told=False) + 0.3

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("num_agents", 0),
            ("num_worlds", 0),
            ("max_steps", 0),
            ("size", 0.0),
            ("sensing_radius", -1.0),
            ("message_cost", -0.1),
            ("reward_share", 1.5),
            ("drag", -0.1),
            ("scout_fraction", 2.0),
            ("neighbour_range", 1e-4),
        ],
    )
    def test_a_value_out_of_range_is_named(self, key: str, value: float) -> None:
        with pytest.raises(UserError, match=f"{key} is {value}, and must"):
            SwarmWorld(**{key: value})

    def test_misuse_is_said_in_words(self) -> None:
        world = SwarmWorld(2, 3)
        with pytest.raises(UserError, match="call reset first"):
            world.step({"swarm": torch.zeros(2, 3, dtype=torch.int64)})
        with pytest.raises(UserError, match="call reset first"):
            world.render()
        world.reset(0)
        with pytest.raises(UserError, match=r"have shape \(2, 4\), and must have \(2, 3\)"):
            world.step({"swarm": torch.zeros(2, 4, dtype=torch.int64)})

    def test_it_is_known_by_name(self) -> None:
        assert WORLDS["swarm_v0"] is SwarmWorld is swarm_v0.SwarmWorld


class TestPictures:
    def test_a_picture_shows_agents_beacon_and_links(self) -> None:
        world = placed([[2.0, 2.0], [6.0, 2.0]], [4.0, 6.0])
        bare, linked = world.render(), world.render(links=torch.tensor([[0, 1]]))
        assert bare.shape == (480, 480, 3)
        assert bare.dtype == np.uint8
        # The frame reaches from 3 % to 97 % across; a link of the two crosses the line above x = 4, y = 2.
        changed = np.abs(bare.astype(int) - linked).sum(-1) > 60
        rows, columns = changed[:420].nonzero()
        assert columns.min() > 100
        assert columns.max() < 380
        assert 200 < rows.mean() < 420

    def test_the_demo_draws_an_episode(self, tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
        file = tmp_path / "swarm.gif"
        demo.main("swarm_v0", str(file), steps=3)
        assert "3 steps of 10 agents" in capsys.readouterr().out
        with Image.open(file) as film:
            assert film.n_frames == 4


def test_every_name_of_the_package_can_be_imported() -> None:
    for name in envs.__all__:
        assert getattr(envs, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'swarm_v9'"):
        _ = envs.swarm_v9


def test_staggered_worlds_end_at_different_times_and_keep_the_contract() -> None:
    world_api_test(SwarmWorld(num_worlds=6, num_agents=3, max_steps=7, stagger=True))
    world = SwarmWorld(num_worlds=50, num_agents=2, max_steps=10, stagger=True)
    step = world.reset(seed=0)
    ended = []
    for _ in range(11):
        step = world.step({"swarm": torch.zeros(50, 2, dtype=torch.int64)})
        ended.append(int(step.truncated.any(1).sum()))
    assert sum(ended) >= 50
    assert sum(count > 0 for count in ended) > 5


def test_a_world_that_opens_leaves_the_others_on_their_way() -> None:
    world = SwarmWorld(num_worlds=20, num_agents=2, max_steps=4, stagger=True)
    before = world.reset(seed=1)
    for _ in range(6):
        after = world.step({"swarm": torch.zeros(20, 2, dtype=torch.int64)})
        moved = (after.positions - before.positions).abs()
        moved = torch.minimum(moved, world.size - moved).amax((1, 2))
        opened = after.first.all(1)
        assert (moved[~opened] <= world.max_speed + 1e-5).all()
        assert (after.rewards[opened] == 0).all()
        before = after
