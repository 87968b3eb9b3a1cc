"""PredatorPreyWorld against hunts worked out on paper, and scripted predators against what is expected of them."""

from __future__ import annotations

import copy
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

from popcomm import envs
from popcomm.envs import WORLDS, predator_prey_v0
from popcomm.envs.predator_prey_references import (
    _all_of,
    alone,
    played,
    randomly,
    references,
    spiral,
    to_the_prey,
    together,
)
from popcomm.envs.predator_prey_v0 import DOWN, LEFT, RIGHT, STAY, UP, PredatorPreyWorld, distinct
from popcomm.envs.testing import world_api_test
from popcomm.envs.world import WorldStep
from popcomm.errors import UserError


def act(world: PredatorPreyWorld, *actions: int) -> WorldStep:
    return world.step({"predator": torch.tensor([actions])})


def placed(prey: tuple[int, int], *predators: tuple[int, int], **options: Any) -> PredatorPreyWorld:
    """One field with everybody where the test wants them, as (row, column)."""
    world = PredatorPreyWorld(1, num_agents=len(predators), **options)
    world.reset(0)
    state = world.get_state()
    state["prey"] = torch.tensor([prey[0] * world.size + prey[1]])
    state["cells"] = torch.tensor([[row * world.size + column for row, column in predators]])
    world.set_state(state)
    return world


class TestContract:
    @pytest.mark.parametrize("level", ["easy", "medium", "hard"])
    @pytest.mark.parametrize("vision", [0, 1])
    def test_it_keeps_the_contract_of_worlds(self, level: str, vision: int) -> None:
        world_api_test(PredatorPreyWorld(3, level=level, vision=vision, max_steps=9), num_steps=25)

    @pytest.mark.parametrize("options", [{"mode": "mixed"}, {"mode": "competitive", "ends_together": False}])
    def test_it_keeps_it_where_episodes_end_early(self, options: dict[str, Any]) -> None:
        world_api_test(PredatorPreyWorld(3, num_agents=1, size=2, max_steps=6, **options), num_steps=40)

    def test_pettingzoo_accepts_it(self) -> None:
        parallel_api_test(predator_prey_v0.parallel_env(max_steps=8), num_cycles=40)
        api_test(predator_prey_v0.env(size=2, num_agents=2), num_cycles=40)

    def test_it_is_known_by_name(self) -> None:
        assert WORLDS["predator_prey_v0"] is PredatorPreyWorld
        assert envs.predator_prey_v0 is predator_prey_v0

    def test_a_pickled_world_has_the_same_future(self) -> None:
        world = PredatorPreyWorld(4, max_steps=5)
        world.reset(3)
        twins = [world, pickle.loads(pickle.dumps(world)), copy.deepcopy(world)]
        go = {"predator": torch.full((4, 3), RIGHT)}
        futures = [[twin.step(go).observations["predator"] for _ in range(20)] for twin in twins]
        for future in futures[1:]:
            assert all(torch.equal(a, b) for a, b in zip(futures[0], future, strict=True))

    @pytest.mark.parametrize(
        ("level", "sizes"), [("easy", (5, 3, 20, 0)), ("medium", (10, 5, 40, 1)), ("hard", (20, 10, 80, 1))]
    )
    def test_levels_are_those_of_ic3net_and_each_number_can_be_another(self, level: str, sizes: Any) -> None:
        world = PredatorPreyWorld(level=level)
        assert (world.size, world.num_agents, world.max_steps, world.vision) == sizes
        other = PredatorPreyWorld(level=level, size=7, num_agents=2, max_steps=3, vision=2)
        assert (other.size, other.num_agents, other.max_steps, other.vision) == (7, 2, 3, 2)


class TestHunts:
    def test_moves_lead_to_neighbours_and_not_over_the_border(self) -> None:
        world = placed((4, 4), (0, 0), (0, 0), (2, 2), (2, 2), (2, 2))
        assert act(world, UP, RIGHT, DOWN, LEFT, STAY).positions.tolist() == [[[0, 0], [0, 1], [3, 2], [2, 1], [2, 2]]]
        assert act(world, LEFT, UP, UP, STAY, RIGHT).positions.tolist() == [[[0, 0], [0, 1], [2, 2], [2, 1], [2, 3]]]

    def test_who_has_come_to_the_prey_stays_there(self) -> None:
        world = placed((1, 1), (1, 0), (3, 3))
        act(world, RIGHT, STAY)
        assert act(world, LEFT, STAY).positions.tolist() == [[[1, 1], [3, 3]]]

    @pytest.mark.parametrize(
        ("mode", "one", "both"), [("cooperative", 0.05, 0.1), ("mixed", 0.0, 0.0), ("competitive", 0.05, 0.025)]
    )
    def test_rewards_are_those_of_the_class(self, mode: str, one: float, both: float) -> None:
        world = placed((1, 1), (1, 0), (3, 1), mode=mode)
        assert act(world, RIGHT, UP).rewards[0].tolist() == pytest.approx([one, -0.05])
        assert act(world, RIGHT, UP).rewards[0].tolist() == pytest.approx([both, both])

    def test_the_episode_is_terminated_when_all_are_there(self) -> None:
        world = placed((1, 1), (1, 0), (2, 1))
        now = act(world, RIGHT, UP)
        assert now.terminated.all()
        assert not now.truncated.any()
        assert not now.alive.any()
        opened = act(world, UP, UP)
        assert opened.first.all()
        assert not opened.rewards.any()
        assert world.metrics() == {"steps": 1.0, "success": 1.0}
        assert world.metrics() == {}

    def test_it_is_cut_at_the_deadline(self) -> None:
        world = placed((1, 1), (1, 0), (4, 4), max_steps=2)
        assert act(world, RIGHT, STAY).alive.all()
        now = act(world, STAY, STAY)
        assert now.truncated.all()
        assert not now.terminated.any()
        assert world.metrics() == {"steps": 2.0, "success": 0.0}

    def test_without_ends_together_it_goes_on_and_the_steps_are_still_those_until_all_were_there(self) -> None:
        world = placed((1, 1), (1, 0), (3, 1), max_steps=5, ends_together=False)
        rows = [act(world, RIGHT, UP) for _ in range(5)]
        assert [row.alive.all().item() for row in rows] == [True] * 4 + [False]
        assert rows[4].rewards[0].tolist() == pytest.approx([0.1, 0.1])
        assert rows[4].truncated.all()
        assert world.metrics() == {"steps": 2.0, "success": 1.0}

    def test_openings_are_even_and_all_in_different_cells(self) -> None:
        step = PredatorPreyWorld(6000, size=2, num_agents=2).reset(1)
        prey = (step.state[:, :2] * torch.tensor([2.0, 1.0])).sum(1)
        predators = (step.positions * torch.tensor([2.0, 1.0])).sum(-1)
        drawn = torch.bincount((16 * prey + 4 * predators[:, 0] + predators[:, 1]).long(), minlength=64) / 6000
        expected = torch.zeros(64)
        for a, b, c in permutations(range(4), 3):
            expected[16 * a + 4 * b + c] = 1 / 24
        assert drawn.tolist() == pytest.approx(expected.tolist(), abs=4.5 * (1 / 24 * 23 / 24 / 6000) ** 0.5)

    def test_distinct_cells_fill_the_field(self) -> None:
        draws = torch.rand(50, 9, generator=torch.Generator().manual_seed(0))
        assert (distinct(draws, 9).sort(1).values == torch.arange(9)).all()
        assert distinct(torch.full((1, 9), 1 - 2**-24), 9).tolist() == [list(range(8, -1, -1))]


class TestObservations:
    def test_a_blind_one_sees_its_cell_and_who_is_there(self) -> None:
        world = placed((1, 1), (1, 2), (1, 2), (0, 1))
        observations = act(world, LEFT, LEFT, STAY).observations["predator"][0]
        assert observations.shape == (3, 25 + 2)
        assert observations[0].nonzero().flatten().tolist() == [6, 25, 26]
        assert observations[0, 25:].tolist() == [1, 1]
        assert observations[2].nonzero().flatten().tolist() == [1]

    def test_with_vision_the_window_shows_prey_and_predators_row_by_row(self) -> None:
        world = placed((3, 5), (4, 4), (4, 4), (5, 3), (0, 9), level="medium")
        look = act(world, STAY, STAY, STAY, STAY).observations["predator"][0]
        assert look.shape == (4, 10 + 10 + 9 + 9)
        assert look[0, :20].nonzero().flatten().tolist() == [4, 14]
        assert look[0, 20:29].tolist() == [0, 0, 1, 0, 0, 0, 0, 0, 0]
        assert look[0, 29:].tolist() == [0, 0, 0, 0, 1, 0, 1, 0, 0]
        assert look[2, 29:].tolist() == [0, 0, 2, 0, 0, 0, 0, 0, 0]
        # Columns 9 and 0 of neighbouring rows are not neighbours.
        assert not look[3, 20:].any()

    def test_labels_are_the_preys_region_for_those_who_see_it(self) -> None:
        near = placed((3, 5), (4, 4), (6, 6), level="medium")
        assert act(near, STAY, STAY).labels.tolist() == [[1 * 5 + 2, -1]]
        assert near.label_attributes[1 * 5 + 2].tolist() == [1, 2]
        easy = placed((3, 4), (3, 3), (0, 0))
        assert act(easy, RIGHT, STAY).labels.tolist() == [[3 * 5 + 4, -1]]

    def test_the_state_is_all_places(self) -> None:
        world = placed((4, 0), (2, 2), (0, 3))
        assert act(world, STAY, STAY).state.tolist() == [[1, 0, 0.5, 0.5, 0, 0.75]]


class TestReferences:
    @pytest.mark.parametrize("options", [{}, {"level": "medium"}, {"size": 4, "num_agents": 2, "vision": 1}])
    def test_silent_scripts_need_what_is_expected(self, options: dict[str, Any]) -> None:
        world = PredatorPreyWorld(800, **options)
        expected = references(world)
        for steps, script in (
            (expected.random, randomly()),
            (expected.silent, alone(world)),
            (expected.oracle, to_the_prey),
        ):
            found = played(world, script, seed=7)
            assert found.steps == pytest.approx(steps, abs=4 * found.error + 1e-2)

    def test_told_ones_lie_between_the_silent_and_the_oracle(self) -> None:
        world = PredatorPreyWorld(500)
        expected, found = references(world), played(world, together(world), seed=1)
        assert expected.oracle + 20 * found.error < found.steps < expected.silent - 20 * found.error
        assert found.steps == pytest.approx(9.13, abs=4 * found.error)

    def test_scripts_find_their_way_in_later_episodes_too(self) -> None:
        world = PredatorPreyWorld(100)
        script = together(world)
        played(world, script, seed=1)
        for _ in range(60):
            world.step({"predator": script(world)})
        assert world.metrics()["steps"] == pytest.approx(9.13, abs=0.6)

    def test_the_oracle_of_one_predator_is_the_mean_distance(self) -> None:
        # 2 x 2: distances 1, 1, 2 from any cell to the others.
        assert references(PredatorPreyWorld(size=2, num_agents=1)).oracle == pytest.approx(4 / 3)
        # All three other cells are taken: one of them is 2 away.
        assert references(PredatorPreyWorld(size=2, num_agents=3)).oracle == pytest.approx(2)

    def test_random_ones_on_the_smallest_field_by_hand(self) -> None:
        # From a neighbour 1/5 in each step, from the far corner 2/5 to a neighbour.
        expected = 1 + (2 / 3 * 4 / 5 + 1 / 3)
        assert references(PredatorPreyWorld(size=2, num_agents=1, max_steps=2)).random == pytest.approx(expected)

    def test_products_over_choices_are_the_mean_over_all_of_them(self) -> None:
        chances = np.array([[0.5, 0.25, 1.0]])
        assert _all_of(chances, 2) == pytest.approx([(0.125 + 0.5 + 0.25) / 3])

    @pytest.mark.parametrize(("size", "vision"), [(2, 1), (5, 0), (6, 2), (10, 1), (20, 1)])
    def test_the_spiral_shows_the_whole_field_in_steps_of_one(self, size: int, vision: int) -> None:
        rows, columns = np.divmod(np.array(spiral(size, vision)), size)
        assert (np.abs(np.diff(rows)) + np.abs(np.diff(columns)) == 1).all()
        cells = np.arange(size)
        seen = (np.abs(rows[:, None] - cells) <= vision)[:, :, None] & (np.abs(columns[:, None] - cells) <= vision)[
            :, None
        ]
        assert seen.any(0).all()


class TestMistakes:
    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"level": "meddium"}, "level 'meddium' does not exist; did you mean 'medium'"),
            ({"mode": "coop"}, "mode 'coop' does not exist; did you mean 'cooperative'"),
            ({"size": 1}, "size is 1, and must be a whole number of at least 2"),
            ({"num_agents": 0}, "num_agents is 0, and must be"),
            ({"max_steps": 2.5}, "max_steps is 2.5"),
            ({"vision": -1}, "vision is -1"),
            ({"vision": True}, "vision is True"),
            ({"vision": 5}, "vision is 5, and must be below size = 5"),
            ({"num_agents": 25}, "num_agents is 25, and must be below the 25 cells"),
            ({"ends_together": "yes"}, "ends_together is 'yes', and must be true or false"),
        ],
    )
    def test_values_out_of_range_are_told_in_the_users_words(self, options: dict[str, Any], words: str) -> None:
        with pytest.raises(UserError, match=f"predator_prey_v0: {words}"):
            PredatorPreyWorld(**options)

    def test_it_must_be_reset_first(self) -> None:
        for use in (
            lambda w: act(w, 0, 0, 0),
            PredatorPreyWorld.get_state,
            PredatorPreyWorld.render,
            PredatorPreyWorld.at_prey,
        ):
            with pytest.raises(UserError, match="reset"):
                use(PredatorPreyWorld())

    def test_actions_of_another_shape_are_refused(self) -> None:
        world = PredatorPreyWorld(2)
        world.reset(0)
        with pytest.raises(UserError, match=r"shape \(1, 2\), and must have \(2, 3\)"):
            act(world, 0, 0)


class TestPictures:
    def test_a_picture_shows_what_changes(self) -> None:
        world = placed((1, 1), (1, 0), (3, 3))
        before = world.render()
        assert before.shape == (480, 480, 3)
        assert before.dtype == np.uint8
        assert not np.array_equal(before, world.render(links=torch.tensor([[0, 1]])))
        act(world, RIGHT, STAY)
        assert not np.array_equal(before, world.render())

    def test_running_the_module_draws_a_hunt(
        self, tmp_path: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        file = tmp_path / "hunt.png"
        monkeypatch.setattr(sys, "argv", ["predator_prey_v0", str(file)])
        runpy.run_path(predator_prey_v0.__file__, run_name="__main__")
        assert Image.open(file).size == (480, 480)
        assert "sees the prey" in capsys.readouterr().out
