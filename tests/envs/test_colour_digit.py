"""ColourDigitWorld against games worked out on paper, and its references against the sum over all games."""

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

from popcomm import envs
from popcomm.envs import WORLDS, colour_digit_v0
from popcomm.envs.colour_digit_v0 import (
    ColourDigitWorld,
    colour_actions,
    oracle_actions,
    references,
    silent_actions,
)
from popcomm.envs.scripted import Randomly
from popcomm.envs.testing import world_api_test
from popcomm.envs.world import WorldStep
from popcomm.errors import UserError
from tests.envs.worlds_in_play import earned, future


def act(world: ColourDigitWorld, *actions: int) -> WorldStep:
    return world.step({"player": torch.tensor([actions])})


def game(colours: list[int], seen: list[int], answering: bool = True, **options: Any) -> ColourDigitWorld:
    world = ColourDigitWorld(1, **options)
    world.reset(0)
    state = world.get_state()
    state["colours"], state["digits"] = torch.tensor([colours]), torch.tensor([seen])
    state["age"] = torch.tensor([int(answering)])
    world.set_state(state)
    return world


def reward(answer: int, colour: int, digit: int, other_colour: int, other_digit: int) -> int:
    """Section 6.2 of the paper, word for word."""
    return 2 * (-1) ** (answer + colour + other_digit) + (-1) ** (answer + digit + other_colour)


class TestContract:
    @pytest.mark.parametrize("options", [{}, {"digits": 2}, {"digits": 5}])
    def test_it_keeps_the_contract_of_worlds(self, options: dict[str, Any]) -> None:
        world_api_test(ColourDigitWorld(4, **options), num_steps=20)

    def test_pettingzoo_accepts_it(self) -> None:
        parallel_api_test(colour_digit_v0.parallel_env(), num_cycles=40)
        api_test(colour_digit_v0.env(), num_cycles=40)
        api_test(colour_digit_v0.raw_env(digits=4), num_cycles=40)

    def test_it_is_known_by_name(self) -> None:
        assert WORLDS["colour_digit_v0"] is ColourDigitWorld
        assert envs.colour_digit_v0 is colour_digit_v0
        assert "colour_digit_v0" in dir(envs)

    def test_a_pickled_copied_or_restored_world_has_the_same_future(self) -> None:
        world = ColourDigitWorld(4)
        world.reset(3)
        future(world, 4)
        restored = ColourDigitWorld(4)
        restored.set_state(world.get_state())
        twins = [pickle.loads(pickle.dumps(world)), copy.deepcopy(world), restored]
        expected = torch.stack(future(world))
        assert all(torch.equal(torch.stack(future(twin)), expected) for twin in twins)


class TestGames:
    @pytest.mark.parametrize("own", itertools.product((0, 1), (4, 7)))
    @pytest.mark.parametrize("other", itertools.product((0, 1), (0, 9)))
    @pytest.mark.parametrize("answers", [(0, 0), (0, 1), (1, 0), (1, 1)])
    def test_rewards_are_those_of_the_paper(self, own: Any, other: Any, answers: Any) -> None:
        step = act(game([own[0], other[0]], [own[1], other[1]]), *answers)
        assert step.rewards.tolist() == [[reward(answers[0], *own, *other), reward(answers[1], *other, *own)]]

    def test_the_first_step_pays_nothing_and_the_second_one_ends_the_game(self) -> None:
        world = game([1, 0], [3, 4], answering=False)
        first = act(world, 1, 0)
        assert first.rewards.tolist() == [[0.0, 0.0]]
        assert first.alive.all()
        second = act(world, 0, 0)
        assert second.terminated.all()
        assert not second.truncated.any()
        assert act(world, 0, 0).first.all()

    def test_a_player_sees_its_own_colour_and_digit_and_the_step(self) -> None:
        world = game([1, 0], [3, 0], answering=False, digits=4)
        step = act(world, 0, 0)
        assert step.observations["player"][0].tolist() == [[0, 1, 0, 0, 0, 1, 0, 1], [1, 0, 1, 0, 0, 0, 0, 1]]

    def test_all_colours_and_digits_are_drawn_evenly(self) -> None:
        seen = ColourDigitWorld(6000, digits=3).reset(0).observations["player"]
        kinds = seen[..., :2].argmax(-1) * 3 + seen[..., 2:5].argmax(-1)
        both = torch.bincount(kinds[:, 0] * 6 + kinds[:, 1], minlength=36) / 6000
        assert both.tolist() == pytest.approx([1 / 36] * 36, abs=4.5 * (1 / 36 / 6000) ** 0.5)

    def test_labels_are_parities_as_long_as_words_about_them_are_heard(self) -> None:
        world = ColourDigitWorld(50, digits=7)
        step = world.reset(0)
        assert torch.equal(step.labels, step.observations["player"][..., 2:9].argmax(-1) % 2)
        assert (world.step(Randomly()(world)).labels == -1).all()
        assert (world.step(Randomly()(world)).labels == -1).all()


class TestReferences:
    @pytest.mark.parametrize("digits", [2, 3, 5, 10])
    def test_they_are_the_best_answers_to_what_is_known_over_all_games(self, digits: int) -> None:
        sights = list(itertools.product((0, 1), range(digits)))
        games = [(*own, *other) for own in sights for other in sights]

        def best(known: Any) -> float:
            """The mean reward of the answer that is best for what is known of a game."""
            totals: dict[Any, list[int]] = {}
            for dealt in games:
                sums = totals.setdefault(known(*dealt), [0, 0])
                for answer in (0, 1):
                    sums[answer] += reward(answer, *dealt)
            return sum(max(sums) for sums in totals.values()) / len(games)

        told = references(ColourDigitWorld(digits=digits))
        assert best(lambda c, d, oc, od: (c, d)) == pytest.approx(told.silent)
        assert best(lambda c, d, oc, od: (c, d, od % 2)) == pytest.approx(told.oracle)
        assert best(lambda c, d, oc, od: (c, d, oc, od)) == pytest.approx(told.oracle)
        assert best(lambda c, d, oc, od: (c, d, oc)) == pytest.approx(1.0)

    @pytest.mark.parametrize("digits", [3, 10])
    def test_scripted_players_earn_what_is_expected(self, digits: int) -> None:
        told, world = references(ColourDigitWorld(digits=digits)), ColourDigitWorld(20_000, digits=digits)
        expected = {**told._asdict(), "colour": 1.0}
        policies = {
            "random": Randomly(),
            "silent": silent_actions,
            "oracle": oracle_actions,
            "colour": colour_actions,
        }
        for name, policy in policies.items():
            mean, error = earned(world, policy)
            assert 0 < error < 0.03
            assert mean == pytest.approx(expected[name], abs=4 * error)

    def test_the_silent_script_does_not_look_at_the_other(self) -> None:
        answers = {
            tuple(silent_actions(game([1, c], [d, 3]))["player"][0, :1].tolist()) for c in (0, 1) for d in (2, 5)
        }
        assert answers == {(1,)}


class TestMistakes:
    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"digits": 1}, "digits is 1, and must be at least 2"),
            ({"digits": "ten"}, "digits is 'ten', and must be a whole number"),
            ({"num_worlds": 0}, "num_worlds is 0, and must be at least 1"),
        ],
    )
    def test_values_out_of_range_are_told_in_the_users_words(self, options: dict[str, Any], words: str) -> None:
        with pytest.raises(UserError, match=f"colour_digit_v0: {words}"):
            ColourDigitWorld(**options)

    def test_it_must_be_reset_first(self) -> None:
        for use in (lambda w: act(w, 0, 0), ColourDigitWorld.get_state, ColourDigitWorld.render):
            with pytest.raises(UserError, match=r"colour_digit_v0 .* reset"):
                use(ColourDigitWorld())

    def test_actions_of_another_shape_are_refused(self) -> None:
        world = ColourDigitWorld(2)
        world.reset(0)
        with pytest.raises(UserError, match=r"shape \(1, 2\), and must have \(2, 2\)"):
            act(world, 0, 0)


class TestPictures:
    def test_a_picture_shows_what_is_seen_and_answered(self) -> None:
        world = game([0, 1], [3, 4])
        before = world.render()
        assert before.shape == (480, 480, 3)
        assert before.dtype == np.uint8
        assert not np.array_equal(before, game([1, 1], [3, 4]).render())
        assert not np.array_equal(before, game([0, 1], [3, 5]).render())
        assert not np.array_equal(before, world.render(links=torch.tensor([[0, 1]])))
        act(world, 0, 0)
        assert not np.array_equal(before, world.render())

    @pytest.mark.filterwarnings("ignore:.*found in sys.modules")
    def test_running_the_module_draws_the_end_of_an_episode(self, tmp_path: Any, monkeypatch: Any, capsys: Any) -> None:
        file = tmp_path / "game.png"
        monkeypatch.setattr(sys, "argv", ["colour_digit_v0", str(file)])
        runpy.run_module("popcomm.envs.colour_digit_v0", run_name="__main__")
        assert Image.open(file).size == (480, 480)
        assert "end of an episode of colour_digit_v0" in capsys.readouterr().out
