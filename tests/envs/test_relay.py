"""RelayWorld against rows worked out on paper, with and without a chain that passes on what the first one sees."""

from __future__ import annotations

import copy
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
from popcomm.channels import Chain
from popcomm.envs import WORLDS, relay_v0
from popcomm.envs.relay_v0 import RelayWorld, oracle_actions, references, silent_actions
from popcomm.envs.scripted import Randomly
from popcomm.envs.testing import world_api_test
from popcomm.envs.world import WorldStep
from popcomm.errors import UserError
from tests.envs.worlds_in_play import earned, future


def act(world: RelayWorld, *actions: int) -> WorldStep:
    return world.step({"messenger": torch.tensor([actions])})


def relay(kind: int, step: int = 1, **options: Any) -> RelayWorld:
    """One world in the step (from 1 on) that the test wants."""
    world = RelayWorld(1, **options)
    world.reset(0)
    state = world.get_state()
    state["kind"], state["age"] = torch.tensor([kind]), torch.tensor([step - 1])
    world.set_state(state)
    return world


class PassedOn:
    """Messengers who say at once what they saw or hear, over a chain, and do not remember it."""

    def __call__(self, world: RelayWorld) -> dict[str, torch.Tensor]:
        step = world._last
        inbox = torch.full_like(step.labels, -1)
        if not step.first.any():
            links = Chain().connect(step.alive)
            inbox = torch.where(links.mask, self.said.gather(1, links.senders.squeeze(-1)).unsqueeze(-1), -1).squeeze(
                -1
            )
        self.said = torch.maximum(step.labels, inbox)
        return {"messenger": self.said.clamp(min=0)}


class TestContract:
    @pytest.mark.parametrize("options", [{}, {"num_agents": 2, "kinds": 2}, {"num_agents": 5, "delay": 3, "kinds": 7}])
    def test_it_keeps_the_contract_of_worlds(self, options: dict[str, Any]) -> None:
        world_api_test(RelayWorld(4, **options), num_steps=30)

    def test_pettingzoo_accepts_it(self) -> None:
        parallel_api_test(relay_v0.parallel_env(num_agents=4), num_cycles=40)
        api_test(relay_v0.env(), num_cycles=40)
        api_test(relay_v0.raw_env(delay=1), num_cycles=40)

    def test_it_is_known_by_name(self) -> None:
        assert WORLDS["relay_v0"] is RelayWorld
        assert envs.relay_v0 is relay_v0
        assert "relay_v0" in dir(envs)

    def test_a_pickled_copied_or_restored_world_has_the_same_future(self) -> None:
        world = RelayWorld(4)
        world.reset(3)
        future(world, 5)
        restored = RelayWorld(4)
        restored.set_state(world.get_state())
        twins = [pickle.loads(pickle.dumps(world)), copy.deepcopy(world), restored]
        expected = torch.stack(future(world))
        assert all(torch.equal(torch.stack(future(twin)), expected) for twin in twins)


class TestSteps:
    def test_the_first_one_sees_the_kind_once_and_nobody_else_ever_does(self) -> None:
        world = RelayWorld(1, num_agents=3, kinds=4)
        opening = world.reset(0)
        kind = int(opening.labels[0, 0])
        assert opening.labels.tolist() == [[kind, -1, -1]]
        seen = opening.observations["messenger"][0]
        assert seen[0].tolist() == [*(float(k == kind) for k in range(4)), 1, 0, 0, 1, 0, 0, 0]
        assert seen[2].tolist() == [0, 0, 0, 0, 0, 0, 1, 1, 0, 0, 0]
        for t in (1, 2, 3):
            row = act(world, 0, 0, 0)
            assert not row.observations["messenger"][..., :4].any()
            assert row.observations["messenger"][0, 0, 7:].tolist() == [float(t == i) for i in range(4)]
            assert (row.labels == -1).all()

    def test_only_the_last_ones_last_action_counts_and_pays_all(self) -> None:
        world = relay(kind=2)
        rows = [act(world, 2, 2, 2), act(world, 2, 2, 2), act(world, 0, 0, 2)]
        assert [row.rewards.tolist() for row in rows] == [[[0.0] * 3], [[0.0] * 3], [[1.0] * 3]]
        assert rows[-1].terminated.all()
        assert not rows[-1].truncated.any()
        assert act(relay(kind=2, step=3), 2, 2, 1).rewards.tolist() == [[0.0] * 3]

    def test_a_delay_puts_the_answer_off(self) -> None:
        world = relay(kind=1, num_agents=2, delay=2)
        alive = [bool(act(world, 0, 1).alive.all()) for _ in range(4)]
        assert alive == [True, True, True, False]

    def test_kinds_are_even_and_drawn_anew(self) -> None:
        world = RelayWorld(3000, num_agents=2, kinds=3)
        first = world.reset(0).labels[:, 0]
        for _ in range(3):
            step = world.step(silent_actions(world))
        pairs = torch.bincount(first * 3 + step.labels[:, 0], minlength=9) / 3000
        assert pairs.tolist() == pytest.approx([1 / 9] * 9, abs=4.5 * (8 / 81 / 3000) ** 0.5)

    @pytest.mark.parametrize("num_agents", [2, 3, 6])
    def test_a_chain_that_passes_on_at_once_brings_the_kind_just_in_time(self, num_agents: int) -> None:
        assert earned(RelayWorld(200, num_agents=num_agents), PassedOn()) == (1.0, 0.0)

    def test_with_a_delay_those_who_forget_are_too_early(self) -> None:
        mean, error = earned(RelayWorld(4000, delay=1), PassedOn())
        assert mean == pytest.approx(1 / 4, abs=4 * error)


class TestReferences:
    @pytest.mark.parametrize("options", [{}, {"num_agents": 2, "kinds": 7}, {"num_agents": 4, "delay": 2}])
    def test_scripted_rows_earn_what_is_expected(self, options: dict[str, Any]) -> None:
        told, world = references(RelayWorld(**options)), RelayWorld(10_000, **options)
        share = 1 / world.kinds
        assert told == (share, share, 1.0)
        for policy in (Randomly(), silent_actions):
            mean, error = earned(world, policy)
            assert mean == pytest.approx(share, abs=4 * error)
        assert earned(world, oracle_actions) == (1.0, 0.0)


class TestMistakes:
    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"kinds": 1}, "kinds is 1, and must be at least 2"),
            ({"num_agents": 1}, "num_agents is 1, and must be at least 2"),
            ({"delay": -1}, "delay is -1, and must be at least 0"),
            ({"delay": True}, "delay is True, and must be a whole number"),
            ({"num_worlds": 0}, "num_worlds is 0, and must be at least 1"),
        ],
    )
    def test_values_out_of_range_are_told_in_the_users_words(self, options: dict[str, Any], words: str) -> None:
        with pytest.raises(UserError, match=f"relay_v0: {words}"):
            RelayWorld(**options)

    def test_it_must_be_reset_first(self) -> None:
        for use in (lambda w: act(w, 0, 0, 0), RelayWorld.get_state, RelayWorld.render):
            with pytest.raises(UserError, match=r"relay_v0 .* reset"):
                use(RelayWorld())

    def test_actions_of_another_shape_are_refused(self) -> None:
        world = RelayWorld(2)
        world.reset(0)
        with pytest.raises(UserError, match=r"shape \(1, 3\), and must have \(2, 3\)"):
            act(world, 0, 0, 0)


class TestPictures:
    def test_a_picture_shows_what_is_seen_and_answered(self) -> None:
        world = relay(kind=1, step=3)
        before = world.render()
        assert before.shape == (480, 480, 3)
        assert before.dtype == np.uint8
        assert not np.array_equal(before, relay(kind=2, step=3).render())
        assert not np.array_equal(before, relay(kind=1, step=1).render())
        assert not np.array_equal(before, world.render(links=torch.tensor([[0, 1]])))
        other = relay(kind=1, step=3)
        act(world, 0, 0, 1)
        act(other, 0, 0, 2)
        assert not np.array_equal(world.render(), other.render())

    @pytest.mark.filterwarnings("ignore:.*found in sys.modules")
    def test_running_the_module_draws_the_end_of_an_episode(self, tmp_path: Any, monkeypatch: Any, capsys: Any) -> None:
        file = tmp_path / "relay.png"
        monkeypatch.setattr(sys, "argv", ["relay_v0", str(file)])
        runpy.run_module("popcomm.envs.relay_v0", run_name="__main__")
        assert Image.open(file).size == (480, 480)
        assert "end of an episode of relay_v0" in capsys.readouterr().out
