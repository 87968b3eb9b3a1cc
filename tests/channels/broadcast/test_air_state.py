"""The future of an air is a function of its seed, and a checkpoint has all of it."""

import pickle

import numpy as np
import pytest
import torch

from popcomm.channels import Full, Ring, Topology
from popcomm.channels.broadcast.decisions import Controlled, CountMin, LocalRule, PerAgent
from popcomm.channels.broadcast.reflexes import (
    ImmediateFeedback,
    Publishing,
    Reflex,
    SensoryDeprivation,
    WordRepetition,
)
from popcomm.channels.links import Links
from popcomm.schedules import Clock, Gated, Linear
from tests.channels.broadcast.airs import A, B, C, D, opened, step


class Crowd(Topology):
    """Who hears whom is drawn anew in each step from the number of steps: half of all pairs."""

    def __init__(self) -> None:
        self.steps = 0

    def inbox_size(self, num_agents: int) -> int:
        return num_agents

    def connect(self, present, positions=None, torus=None) -> Links:
        worlds, n = present.shape
        generator = torch.Generator().manual_seed(self.steps)
        self.steps += 1
        senders = torch.arange(n).expand(worlds, n, n).contiguous()
        heard = torch.rand(worlds, n, n, generator=generator) < 0.5
        return Links(senders, heard & present.unsqueeze(1) & ~torch.eye(n, dtype=torch.bool))


def everything() -> list[Reflex]:
    fading = Gated("agreement", 0.2, 0.8)
    return [
        ImmediateFeedback(0.7),
        WordRepetition(Controlled(0.6), schedule=fading),
        WordRepetition(CountMin(2, LocalRule(0.3), window=5), slot="hijack", dedup=True),
        WordRepetition(PerAgent([0.01] * 5)),
        Publishing(0.5, schedule=Linear(50, 150)),
        SensoryDeprivation("noise", when=[10, 3], schedule=fading),
    ]


def drive(air, first: int, last: int) -> list[bytes]:
    """Steps of agents that die, are born and go deaf by a script; all that comes out of each."""
    out = []
    for t in range(first, last):
        rng = np.random.default_rng([7, t])
        shape = (air.num_worlds, air.num_agents)
        lives, hears = rng.random(shape) < 0.95, rng.random(shape) < 0.9
        air.observe(Clock(t, {"agreement": t / 200}))
        if t % 40 == 39:
            air.forget(rng.random(air.num_worlds) < 0.5)
        deprived = [mask for _, mask in air.deprived()]
        heard = step(air, np.where(rng.random(shape) < 0.5, rng.choice([A, B, C, D], shape), 0), lives, hears, lives)
        columns = [*deprived, *(x.numpy() for x in (*heard[:3], *heard.log)), *air.log.columns]
        out.append(b"".join(np.ascontiguousarray(c).tobytes() for c in columns))
    return out


@pytest.mark.parametrize("topology", [Full, Ring, Crowd])
def test_the_same_seed_gives_the_same_bits_and_another_does_not(topology):
    options = {"worlds": 3, "dropout": 0.1, "noise": 0.01, "inbox": 12}
    one, same, other = (
        drive(opened(5, everything(), topology=topology(), seed=s, **options), 0, steps)
        for s, steps in ((1, 200), (1, 200), (2, 20))
    )
    assert one == same
    assert one[:20] != other


def test_a_new_seed_starts_all_over():
    """Whatever happened before: counts, scales, turns and periods are those of a new air."""
    reflexes = [r for r in everything() if not isinstance(r.schedule, Gated)]
    reflexes += [WordRepetition(Controlled(0.6)), SensoryDeprivation(when=[10, 3])]
    fresh = opened(5, reflexes, worlds=3, seed=8)
    used = opened(5, reflexes, worlds=3, seed=9)
    drive(used, 0, 57)
    used.seed(8)
    assert drive(used, 0, 50) == drive(fresh, 0, 50)


@pytest.mark.parametrize("half", ["after a step", "within a step"])
def test_a_restored_air_goes_on_bit_for_bit(half):
    options = {"worlds": 3, "dropout": 0.1, "noise": 0.01, "inbox": 12, "topology": Ring(2)}
    air, restored = opened(5, everything(), seed=1, **options), opened(5, everything(), seed=99, **options)
    drive(air, 0, 100)
    everybody = np.ones((3, 5), bool)
    if half == "within a step":
        air.deliver(everybody, everybody)
    state = pickle.loads(pickle.dumps(air.get_state()))
    if half == "within a step":
        air.transmit(np.full((3, 5), A, np.int32), everybody)
    expected = drive(air, 100, 150)
    restored.set_state(state)
    if half == "within a step":
        restored.transmit(np.full((3, 5), A, np.int32), everybody)
    assert drive(restored, 100, 150) == expected


def test_a_state_is_not_touched_by_going_on():
    air = opened(5, everything(), worlds=3, seed=1)
    drive(air, 0, 60)
    state = air.get_state()
    before = pickle.dumps(state)
    drive(air, 60, 80)
    assert pickle.dumps(state) == before
