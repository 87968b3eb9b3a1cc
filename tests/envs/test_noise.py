"""Noise on what agents observe, against what each kind promises."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from popcomm.envs import ParallelEnvWorld, swarm_v0
from popcomm.envs.noise import KINDS, Bias, Delay, Gaussian, Missing, Noise, NoisyWorld, Stuck, make_noise, noisy
from popcomm.envs.species import with_species
from popcomm.envs.testing import _assert_same, world_api_test
from popcomm.errors import UserError
from tests.envs.test_sight import LAST, Painter
from tests.envs.tiny_world import TinyWorld

STRENGTHS = {"gaussian": 0.5, "bias": 0.5, "missing": 0.3, "stuck": 0.3, "delay": 2}


def clock(steps: int, shape: tuple[int, int, int] = (1, 1, 1), start: int = 1) -> Tensor:
    """[T, B, N, O]: every number counts the steps."""
    return torch.arange(start, start + steps).view(-1, 1, 1, 1).expand(steps, *shape).float()


def perceived(noise: Noise, seen: Tensor, firsts: tuple[int, ...] = (0,), seed: int = 0) -> Tensor:
    """[T, B, N, O], where lives begin in the steps `firsts`."""
    memory: dict[str, Tensor] = {}
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for t, row in enumerate(seen):
        first = torch.full(row.shape[:-1], t in firsts)
        rows.append(noise.perceive(row, first, memory, generator))
    return torch.stack(rows)


class TestKinds:
    def test_gaussian_noise_is_anew_in_every_number_and_step(self) -> None:
        off = perceived(Gaussian(0.3), clock(40, (10, 5, 5))) - clock(40, (10, 5, 5))
        assert off.mean().item() == pytest.approx(0, abs=4.5 * 0.3 / 100)
        assert off.std().item() == pytest.approx(0.3, rel=0.05)
        assert len(off.unique()) > 9000

    def test_a_bias_stays_for_a_life_and_is_another_in_the_next(self) -> None:
        off = perceived(Bias(0.3), clock(6, (50, 10, 4)), firsts=(0, 4)) - clock(6, (50, 10, 4))
        assert torch.allclose(off[0], off[3], atol=1e-5)
        assert torch.allclose(off[4], off[5], atol=1e-5)
        assert (off[3] - off[4]).std().item() == pytest.approx(0.3 * 2**0.5, rel=0.1)
        assert off[0].std().item() == pytest.approx(0.3, rel=0.1)

    def test_what_is_missing_is_all_of_an_agents_step(self) -> None:
        told = perceived(Missing(0.2), clock(50, (10, 20, 3)))
        gone = (told == 0).all(-1)
        assert torch.equal(gone, (told == 0).any(-1))
        assert gone.float().mean().item() == pytest.approx(0.2, abs=4.5 * 0.4 / 100)
        assert torch.equal(told[~gone], clock(50, (10, 20, 3))[~gone])

    def test_a_stuck_sensor_tells_what_it_told_first(self) -> None:
        seen = clock(6, (20, 10, 10))
        told = perceived(Stuck(0.25), seen, firsts=(0, 4))
        stuck = told[3] == 1
        assert stuck.float().mean().item() == pytest.approx(0.25, abs=4.5 * 0.43 / 2000**0.5)
        assert torch.equal(told[1:4], torch.where(stuck, 1.0, seen[1:4]))
        again = told[5] == 5
        assert torch.equal(told[5], torch.where(again, 5.0, 6.0))
        assert not torch.equal(stuck, again)

    def test_all_of_them_stuck_or_missing_tell_nothing_new(self) -> None:
        assert (perceived(Stuck(1.0), clock(5)) == 1).all()
        assert not perceived(Missing(1.0), clock(5)).any()

    @pytest.mark.parametrize("strength", [3, 3.0])
    def test_a_delay_is_of_steps_and_begins_anew_with_a_life(self, strength: Any) -> None:
        told = perceived(Delay(strength), clock(10), firsts=(0, 6))
        assert told.flatten().tolist() == [1, 1, 1, 1, 2, 3, 7, 7, 7, 7]


class TestWorlds:
    @pytest.mark.parametrize("kind", sorted(KINDS))
    @pytest.mark.parametrize("make", [TinyWorld, lambda: swarm_v0.SwarmWorld(3, num_agents=4, max_steps=6)])
    def test_a_noisy_world_is_a_world(self, kind: str, make: Any) -> None:
        world_api_test(NoisyWorld(make(), {"kind": kind, "strength": STRENGTHS[kind]}), num_steps=30)

    @pytest.mark.parametrize("kind", sorted(KINDS))
    def test_at_strength_zero_no_bit_changes(self, kind: str) -> None:
        plain, still = TinyWorld(), NoisyWorld(TinyWorld(), {"kind": kind, "strength": 0})
        actions = {"walker": torch.ones(3, 2, dtype=torch.int64), "caller": torch.full((3, 1, 2), 0.5)}
        _assert_same(plain.reset(4), still.reset(4), kind)
        for _ in range(20):
            _assert_same(plain.step(actions), still.step(actions), kind)
        assert noisy(plain, {"kind": kind, "strength": 0}) is plain

    @pytest.mark.parametrize("kind", sorted(KINDS))
    def test_only_observations_change_and_they_do(self, kind: str) -> None:
        plain, hard = TinyWorld(), noisy(TinyWorld(), {"kind": kind, "strength": STRENGTHS[kind]})
        actions = {"walker": torch.ones(3, 2, dtype=torch.int64), "caller": torch.full((3, 1, 2), 0.5)}
        rows = [(plain.reset(4), hard.reset(4)), *((plain.step(actions), hard.step(actions)) for _ in range(8))]
        for one, other in rows:
            _assert_same(one, other._replace(observations=one.observations), kind)
        for name in ("walker", "caller"):
            assert any(not torch.equal(one.observations[name], other.observations[name]) for one, other in rows)

    @pytest.mark.parametrize("agent_id", [False, True])
    @pytest.mark.parametrize("kind", sorted(KINDS))
    def test_pictures_stay_bytes_within_their_bounds(self, kind: str, agent_id: bool) -> None:
        """Of a normal deviation of 1/2 a number of 255 falls by one or more where it is off by more than -1/2: 16 %."""
        white = np.full(LAST.shape, 255, np.uint8)
        world = with_species(ParallelEnvWorld(lambda _: Painter(LAST, white), 40), agent_id=agent_id)
        world = NoisyWorld(world, {"kind": kind, "strength": 2 if kind == "delay" else 0.5})
        seen = world.reset(1).observations["a"]
        assert seen.dtype == world.species["a"].obs_dtype == torch.uint8
        if agent_id:
            assert torch.equal(seen[..., 90:], torch.eye(2, dtype=torch.uint8).expand(40, 2, 2))
        if kind in ("gaussian", "bias"):
            assert int(seen[..., :90].min()) >= 252
            assert (seen[..., :90] < 255).float().mean().item() == pytest.approx(0.159, abs=4.5 * 0.37 / 7200**0.5)

    def test_an_agent_knows_who_it_is(self) -> None:
        world = noisy(with_species(swarm_v0.SwarmWorld(2, num_agents=3), agent_id=True), Gaussian(1.0))
        seen = world.reset(0).observations["swarm"]
        assert torch.equal(seen[..., 10:], torch.eye(3).expand(2, 3, 3))
        assert seen[..., :10].abs().max() > 1

    def test_a_copy_and_what_the_world_has_beside_the_contract(self) -> None:
        world = noisy(swarm_v0.SwarmWorld(2, num_agents=3), Gaussian(0.1))
        assert world.sensing_radius == 1.5  # type: ignore[attr-defined]
        world.reset(1)
        assert world.render().dtype == np.uint8
        state = copy.deepcopy(world.get_state())
        actions = {"swarm": torch.zeros(2, 3, dtype=torch.int64)}
        future = world.step(actions)
        assert state is not None
        world.set_state(state)
        _assert_same(future, world.step(actions), "the step after set_state")


class TestMistakes:
    @pytest.mark.parametrize(
        ("noise", "words"),
        [
            ({"kind": "gausian", "strength": 1}, r"'gausian'.*gaussian"),
            ({"kind": "gaussian"}, "kind 'gaussian'.*strength"),
            ({"kind": "gaussian", "strength": -1}, "strength is -1, and must be a number that is not negative"),
            ({"kind": "missing", "strength": 1.1}, r"strength is 1.1, and must lie in \[0, 1\]"),
            ({"kind": "delay", "strength": 1.5}, "strength is 1.5, and must be a whole number"),
            ({"kind": "tests.envs.tiny_world:TinyWorld"}, "is no popcomm.envs.noise.Noise"),
            ("gaussian", "noise is 'gaussian', and must be a mapping such as"),
        ],
    )
    def test_what_cannot_be_is_one_sentence(self, noise: Any, words: str) -> None:
        with pytest.raises(UserError, match=words):
            make_noise(noise)
