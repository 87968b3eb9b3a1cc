"""Scenarios of VMAS as Worlds: beside VMAS itself, and a scenario whose answers are known."""

from __future__ import annotations

import pickle
import random
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor

from popcomm.envs import vmas_scenarios
from popcomm.envs.making import make_world, resolve
from popcomm.envs.testing import sample_actions, world_api_test
from popcomm.envs.vmas_checking import VmasLockStep, check_vmas
from popcomm.envs.vmas_picture import Body, body_of, draw_bodies
from popcomm.envs.vmas_world import VmasWorld
from popcomm.errors import UserError

vmas = pytest.importorskip("vmas", reason="popcomm[vmas] is not installed")
from vmas.simulator.environment import Environment  # noqa: E402

from tests.envs.vmas_counting import Counting  # noqa: E402

CASES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("navigation", {"n_agents": 2}),
    ("balance", {}),
    ("transport", {"continuous_actions": False, "multidiscrete_actions": True}),
    ("simple_spread", {"continuous_actions": False}),
    ("flocking", {"n_agents": 2, "n_obstacles": 2}),
    ("discovery", {"n_agents": 3, "n_targets": 3, "targets_respawn": False}),
    ("simple_tag", {}),
    ("simple_crypto", {}),
    ("wheel", {"n_agents": 2}),
    ("asym_joint", {"max_speed_1": 1.0}),  # what it observes has noise in it
)
NAMES = [name for name, _ in CASES]


def counting(worlds: int = 5, **options: Any) -> VmasWorld:
    return VmasWorld(worlds, Counting, **options)


def walk(world: VmasWorld, steps: int, seed: int = 3) -> list[Any]:
    rng, rows = np.random.default_rng(seed), [world.reset(seed)]
    for _ in range(steps):
        rows.append(world.step(sample_actions(world, rows[-1], rng)))
    return rows


def same(one: Any, other: Any) -> bool:
    parts = [(a, b) for a, b in zip(one, other, strict=True) if isinstance(a, Tensor)]
    parts += [(one.observations[name], other.observations[name]) for name in one.observations]
    return all(torch.equal(a, b) for a, b in parts)


class TestContract:
    @pytest.mark.parametrize(("name", "options"), CASES, ids=NAMES)
    def test_scenarios_keep_the_contract_of_worlds(self, name: str, options: dict[str, Any]) -> None:
        world_api_test(make_world(f"vmas:{name}", {"max_steps": 5, **options}, 3), num_steps=12)

    def test_worlds_that_end_at_different_times_keep_it_too(self) -> None:
        world_api_test(counting(), num_steps=40)

    def test_a_state_goes_through_a_pickle_to_another_world(self) -> None:
        world, other = counting(), counting()
        walk(world, 7)
        state = pickle.loads(pickle.dumps(world.get_state()))
        row, again = world.step(walk_actions(world)), other.set_state(state)
        assert same(again, state_row(state))
        assert same(other.step(walk_actions(world)), row)
        with pytest.raises(UserError, match="of 5 worlds, and there are 2"):
            counting(2).set_state(state)


def state_row(state: dict[str, Any]) -> Any:
    from popcomm.envs.world import WorldStep

    return WorldStep(**state["last"])


def walk_actions(world: VmasWorld) -> dict[str, Tensor]:
    return {name: torch.full((5, s.num_seats, 2), 0.5) for name, s in world.species.items()}


class TestBesideVmas:
    @pytest.mark.parametrize(("name", "options"), CASES, ids=NAMES)
    def test_observations_rewards_and_ends_are_those_of_plain_steps(self, name: str, options: dict[str, Any]) -> None:
        world = make_world(f"vmas:{name}", {"max_steps": 8, **options}, 4)
        plain = vmas.make_env(name, num_envs=4, max_steps=8, terminated_truncated=True, **options)
        names = [agent for s in world.species.values() for agent in s.agents]
        order = [names.index(agent.name) for agent in plain.agents]
        rng, row, seen = np.random.default_rng(1), world.reset(11), plain.reset(seed=11)
        for t in range(9):
            told = [part for s in world.species for part in row.observations[s].unbind(1)]
            assert all(torch.equal(told[seat], part) for seat, part in zip(order, seen, strict=True)), t
            if t == 8:
                break
            actions = sample_actions(world, row, rng)
            by_seat = [a for s in world.species for a in actions[s].unbind(1)]
            chosen = [
                by_seat[seat].clone() if by_seat[seat].dim() > 1 else by_seat[seat].clone()[:, None] for seat in order
            ]
            row = world.step(actions)
            seen, rewards, terminated, truncated, _ = plain.step(chosen)
            for seat, reward in zip(order, rewards, strict=True):
                assert torch.equal(row.rewards[:, seat], reward.reshape(4))
            assert torch.equal(row.terminated[:, 0], terminated)
            assert torch.equal(row.truncated[:, 0], truncated & ~terminated)
        assert row.truncated.any()

    def test_check_env_says_so_over_several_episodes(self) -> None:
        check = check_vmas(resolve("vmas:transport"), {"max_steps": 5}, num_steps=17)
        assert check.wrong == []
        assert check.facts["lock step"] == [
            "60 steps in 12 episodes: observations, rewards and ends are those of VMAS itself"
        ]
        assert check.facts["positions"] == ["2 axes"]
        assert set(check.rates) == {"a plain loop", "as worlds"}

    def test_a_lock_step_sees_a_world_that_errs(self) -> None:
        world = counting(most=1)
        honest = world.step
        world.step = lambda a, s=None: honest(a, s)._replace(rewards=torch.zeros(5, 3))  # type: ignore[method-assign]
        assert VmasLockStep(world, 5).difference == "in step 1 the rewards are others, by 2 at most"

    def test_a_world_that_opens_alone_is_row_by_row_a_new_environment_and_leaves_the_others_alone(self) -> None:
        world = counting(max_steps=None)
        row, alone = world.reset(4), 0
        push = {name: torch.ones(5, s.num_seats, 2) for name, s in world.species.items()}
        for _ in range(12):
            before, row = row, world.step(push)
            opened = row.first[:, 0]
            alone += bool(opened.any() and not opened.all())
            for w in opened.nonzero().flatten().tolist():
                fresh = Environment(Counting(), 5).reset(seed=int(world.seeds[w]))
                assert row.observations["watcher"][w, 0] == fresh[1][w]
                assert torch.equal(
                    row.observations["walker"][w, 0], torch.cat((fresh[2]["count"], fresh[2]["where"]), 1)[w]
                )
            goes_on = before.alive[:, 0]
            assert torch.equal(row.observations["watcher"][goes_on], before.observations["watcher"][goes_on] - 1)
        assert alone > 2

    def test_what_a_scenario_forgets_to_reset_is_as_new_all_the_same(self) -> None:
        class Wears(Counting):
            """Its worlds wear down, and are not mended at reset."""

            def make_world(self, batch_dim: int, device: Any, **kwargs: Any) -> Any:
                self.worn = torch.zeros(batch_dim)
                return super().make_world(batch_dim, device, **kwargs)

            def post_step(self) -> None:
                super().post_step()
                self.worn = self.worn + 1

            def reward(self, agent: Any) -> Tensor:
                return self.worn

        rows = walk(VmasWorld(5, Wears), 12)
        for before, row in pairwise(rows):
            begins, goes_on = before.first[:, 0], before.alive[:, 0] & ~before.first[:, 0]
            assert (row.rewards[begins] == 1).all()
            assert torch.equal(row.rewards[goes_on], before.rewards[goes_on] + 1)

    def test_whoever_shares_a_state_among_worlds_is_named_once(self, caplog: pytest.LogCaptureFixture) -> None:
        class Shared(Counting):
            def reset_world_at(self, env_index: int | None = None) -> None:
                super().reset_world_at(env_index)
                self.colour_of_all, self.goal = "red", int(torch.randint(10**6, ()))

        with caplog.at_level("INFO", logger="popcomm.envs.vmas_world"):
            walk(VmasWorld(5, Shared), 12)
        assert [record.getMessage() for record in caplog.records] == [
            "vmas:Shared keeps for all worlds together: root.goal"
        ]


class TestDraws:
    def test_the_same_seed_gives_the_same_bits_beside_other_worlds_and_another_seed_others(self) -> None:
        alone = walk(counting(), 12)
        world, other = counting(), counting()
        other.reset(9)
        beside = [world.reset(3)]
        rng = np.random.default_rng(3)
        for _ in range(12):
            other.step(walk_actions(other))
            beside.append(world.step(sample_actions(world, beside[-1], rng)))
        assert all(same(a, b) for a, b in zip(alone, beside, strict=True))
        assert not same(alone[0], counting().reset(4))

    def test_a_reset_without_a_seed_goes_on(self) -> None:
        twins = [counting(), counting()]
        rows = [(twin.reset(3), twin.reset(), twin.reset()) for twin in twins]
        assert all(same(a, b) for a, b in zip(*rows, strict=True))
        assert not same(rows[0][0], rows[0][1])
        assert not same(rows[0][1], rows[0][2])

    def test_seeds_beyond_those_of_numpy_are_taken(self) -> None:
        counting().reset(2**40 + 1)

    def test_neither_the_global_generators_nor_those_of_vmas_are_disturbed(self) -> None:
        def states() -> list[Any]:
            theirs = Environment.vmas_random_state
            return [torch.get_rng_state().tolist(), repr(np.random.get_state()), random.getstate(), repr(theirs)]  # noqa: NPY002

        before = states()
        world = VmasWorld(2, "navigation", max_steps=2)
        walk(world, 6)
        assert states() == before


class TestFaces:
    def test_agents_with_equal_spaces_are_a_species_in_natural_order(self) -> None:
        world = counting()
        kinds = {name: (s.agents, s.obs_size) for name, s in world.species.items()}
        assert kinds == {"walker": (("walker_0", "walker_1"), 3), "watcher": (("watcher",), 1)}
        seen = world.species["walker"].structure
        assert isinstance(seen, spaces.Dict)
        assert {key: part.shape for key, part in seen.items()} == {"count": (1,), "where": (2,)}
        assert world.species["watcher"].structure is None
        # VMAS knows them as walker_1, watcher, walker_0; they are paid 0, 1 and 2.
        world.reset(1)
        assert world.step(walk_actions(world)).rewards.tolist() == [[2.0, 0.0, 1.0]] * 5

    def test_choices_are_discrete_or_one_for_each_axis(self) -> None:
        options = {"continuous_actions": False, "n_agents": 2}
        assert str(make_world("vmas:wheel", options, 1).species["agent"].action_space) == "Discrete(9)"
        options["multidiscrete_actions"] = True
        assert str(make_world("vmas:wheel", options, 1).species["agent"].action_space) == "MultiDiscrete([3 3])"

    def test_numbers_beyond_the_bounds_are_clipped(self) -> None:
        worlds = [counting(), counting()]
        for world, size in zip(worlds, (1.0, 7.0), strict=True):
            world.reset(2)
            world.step({name: torch.full((5, s.num_seats, 2), size) for name, s in world.species.items()})
        positions = [world._last.positions for world in worlds if world._last is not None]
        assert torch.equal(positions[0], positions[1])

    def test_positions_are_the_agents_and_the_state_holds_all_entities(self) -> None:
        world = VmasWorld(2, "navigation", n_agents=3)
        row = world.reset(1)
        assert row.positions is not None
        assert row.state is not None
        assert torch.equal(row.positions, row.observations["agent"][:, :, :2])
        assert row.state.shape == (2, 6 * 6)  # three agents, three goals
        assert torch.equal(row.state[:, :18].view(2, 3, 6)[:, :, :2], row.positions)
        world.tells_state = False
        assert world.reset(1).state is None

    def test_infos_are_means_over_agents_and_over_worlds_that_acted(self) -> None:
        world = counting(most=1)  # every episode is one step
        world.reset(1)
        world.step({name: torch.full((5, s.num_seats, 2), 0.25) for name, s in world.species.items()})
        world.step({name: torch.full((5, s.num_seats, 2), 0.75) for name, s in world.species.items()})  # opens
        assert world.metrics() == {"left": 0.0, "pushed_xy": 0.25}
        assert world.metrics() == {}

    def test_episodes_are_cut_after_max_steps_alone(self) -> None:
        rows = walk(counting(most=3, max_steps=2), 20)
        cut = torch.stack([row.truncated[:, 0] for row in rows])
        ended = torch.stack([row.terminated[:, 0] for row in rows])
        left = torch.stack([row.observations["watcher"][:, 0, 0] for row in rows])
        assert cut.any()
        assert ended.any()
        assert torch.equal(ended, ended & (left == 0))
        assert (left[cut] == 1).all()  # of three, two were made


class TestPictures:
    def test_a_picture_shows_every_body_where_it_is_and_who_was_heard(self) -> None:
        def drawn(places: list[tuple[float, float]], links: Any = None) -> np.ndarray:
            bodies = [Body(place, 0.0, (0.1,), (1.0, 0.0, 0.0), acts=True) for place in places]
            bodies.append(Body((0.5, 0.5), 0.0, (1.0, 1.0), (1.0, 1.0, 1.0), acts=False))
            picture = draw_bodies(bodies, np.array(places), links, "")
            assert (picture.shape, picture.dtype) == ((480, 480, 3), np.uint8)
            return picture

        def reds(picture: np.ndarray) -> tuple[float, float]:
            red = np.argwhere((picture[..., 0] > 200) & (picture[..., 1] < 150))
            return tuple(red.mean(0))  # type: ignore[return-value]

        (low, left), (high, right) = reds(drawn([(0.2, 0.2)])), reds(drawn([(0.8, 0.9)]))
        assert low > 300 > 200 > high  # rows of pixels go down
        assert left < 200 < 300 < right
        two = [(0.2, 0.2), (0.8, 0.9)]
        assert not np.array_equal(drawn(two), drawn(two, np.array([[0, 1]])))

    def test_a_box_is_turned_and_a_line_is_thin(self) -> None:
        world = VmasWorld(2, "balance")
        world.reset(1)
        line = world._env.scenario.line
        line.set_rot(torch.full((1,), 0.5), batch_index=1)
        body = body_of(line, 1)
        assert (round(body.turn, 6), body.size, body.acts) == (0.5, (line.shape.length, 0.02), False)
        assert body_of(world._env.agents[0], 0).acts
        assert not np.array_equal(world.render(0), world.render(1))

    def test_it_must_be_reset_first(self) -> None:
        with pytest.raises(UserError, match="vmas:Counting has no picture before it was reset"):
            counting().render()


class TestMistakes:
    @pytest.mark.parametrize(
        ("env", "config", "words"),
        [
            ("vmas:navigatoin", {}, "the VMAS scenario 'navigatoin' does not exist; did you mean 'navigation'"),
            (
                "vmas:navigation",
                {"n_agent": 3},
                "vmas:navigation: the argument 'n_agent' does not exist; .* 'n_agents'",
            ),
            ("vmas:navigation", {"max_step": 3}, "'max_step' does not exist; did you mean 'max_steps'"),
            ("vmas:navigation", {"max_steps": 0}, "vmas:navigation: max_steps is 0, and must be at least 1"),
            ("vmas:navigation", {"continuous_actions": 1}, "continuous_actions is 1, and must be true or false"),
            ("vmas:navigation", {"multidiscrete_actions": True}, "needs continuous_actions: false"),
            ("vmas:navigation", {"num_worlds": 3}, "num_worlds is set by env_runners.num_worlds_per_env_runner"),
            ("vmas:navigation", {"scenario": "wheel"}, "scenario is set by environment.env"),
            (
                "vmas:navigation",
                {"agents_with_same_goal": 9},
                "does not fit vmas:navigation: AssertionError: assert 1 <=",
            ),
            ("vmas:tests.envs.vmas_counting:Counting", {"most": 0}, "ValueError: nothing to count"),
            ("vmas:tests.envs.vmas_counting:Any", {}, "must be a scenario of VMAS"),
        ],
    )
    def test_a_mistake_is_a_sentence(self, env: str, config: dict[str, Any], words: str) -> None:
        with pytest.raises(UserError, match=words):
            make_world(env, config, 2)

    def test_without_vmas_the_extra_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(vmas_scenarios, "find_spec", lambda name: None)
        with pytest.raises(UserError, match=r"needs VMAS, which is not installed: pip install 'popcomm\[vmas\]'"):
            resolve("vmas:navigation")

    def test_a_number_that_is_not_finite_names_world_step_and_agent(self) -> None:
        world = counting(broken=1, most=4)
        with pytest.raises(
            UserError, match=r"vmas:Counting, world \d, step \d of the episode with seed \d+: an obs.*walker_0"
        ):
            walk(world, 5)

    def test_it_must_be_reset_first_and_actions_must_fit(self) -> None:
        for use in (lambda w: w.step({}), VmasWorld.get_state):
            with pytest.raises(UserError, match="reset"):
                use(counting())
        world = counting()
        world.reset(0)
        with pytest.raises(UserError, match=r"'walker' have shape \(5, 2\), and must have \(5, 2, 2\)"):
            world.step({"walker": torch.zeros(5, 2), "watcher": torch.zeros(5, 1, 2)})


class TestArguments:
    def test_they_are_read_from_the_source_with_their_defaults(self) -> None:
        assert vmas_scenarios.arguments_of(Counting) == {"most": "6", "broken": "-1"}
        found = vmas_scenarios.arguments_of(vmas_scenarios.scenario_class("football"))  # in a method of its own
        assert found is not None
        assert found["n_blue_agents"] == "3"

    def test_those_of_a_parent_and_named_ones_count(self) -> None:
        class Child(Counting):
            def make_world(self, batch_dim: int, device: Any, colour: str = "red", **kwargs: Any) -> Any:
                return super().make_world(batch_dim, device, **kwargs)

        assert vmas_scenarios.arguments_of(Child) == {"colour": "'red'", "most": "6", "broken": "-1"}

    def test_where_the_source_does_not_tell_all_of_them_any_is_passed_on(self) -> None:
        class Open(Counting):
            def make_world(self, batch_dim: int, device: Any, **kwargs: Any) -> Any:
                self.options = dict(kwargs)
                return super().make_world(batch_dim, device)

        assert vmas_scenarios.arguments_of(Open) is None
        assert VmasWorld(2, Open, anything=3)._env.scenario.options == {"anything": 3}
