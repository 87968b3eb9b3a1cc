"""world_api_test accepts worlds that keep the contract, and names what is wrong with those that do not."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor

from popcomm.envs.testing import sample_actions, world_api_test
from popcomm.envs.world import Species, World, WorldStep
from tests.envs.tiny_world import TinyWorld

STEPS = 30


class Retold(TinyWorld):
    """A world that changes what it tells, in every row: `change(world, step, over)` with over = worlds reopened now."""

    def __init__(self, change: Callable[[TinyWorld, WorldStep], WorldStep]) -> None:
        super().__init__()
        self.change = change

    def told(self, *args: Tensor) -> WorldStep:
        return self.change(self, super().told(*args))


def set_seat(values: Tensor, where: Tensor, value: Any) -> Tensor:
    return torch.where(where, value, values)


def ages(world: TinyWorld) -> Tensor:
    return world.data["age"].unsqueeze(-1).expand(-1, 3)


def some_seat_in_row(world: TinyWorld, age: int, seat: int) -> Tensor:
    return (ages(world) == age) & (torch.arange(3) == seat)


TELLINGS: dict[str, tuple[Callable[[TinyWorld, WorldStep], WorldStep], str]] = {
    "observations in float64": (
        lambda w, s: s._replace(observations={k: v.double() for k, v in s.observations.items()}),
        r"observations\['walker'\] has dtype torch.float64",
    ),
    "observations too short": (
        lambda w, s: s._replace(observations={**s.observations, "walker": s.observations["walker"][..., :1]}),
        r"observations\['walker'\] has shape \(3, 2, 1\); it must be \(3, 2, 2\)",
    ),
    "an observation that is not finite": (
        lambda w, s: s._replace(observations={**s.observations, "caller": s.observations["caller"] / 0.0}),
        r"observations\['caller'\] holds a number that is not finite",
    ),
    "a species without observations": (
        lambda w, s: s._replace(observations={"walker": s.observations["walker"]}),
        "observations are for",
    ),
    "rewards per world": (lambda w, s: s._replace(rewards=s.rewards.sum(-1)), r"rewards has shape \(3,\)"),
    "a reward that is not finite": (
        lambda w, s: s._replace(rewards=set_seat(s.rewards, some_seat_in_row(w, 4, 1), torch.nan)),
        "rewards holds a number that is not finite",
    ),
    "alive as numbers": (lambda w, s: s._replace(alive=s.alive.float()), "alive has dtype torch.float32"),
    "a state that was promised": (lambda w, s: s._replace(state=None), "state is missing"),
    "a label out of range": (lambda w, s: s._replace(labels=s.labels + 1), "labels range from"),
    "positions beyond the torus": (
        lambda w, s: s._replace(positions=s.positions * torch.tensor([1.0, 5.0, 9.0]).view(1, 3, 1)),
        "more than one turn of the torus",
    ),
    "a mask that was promised": (lambda w, s: s._replace(action_masks=None), "there is no mask for it"),
    "a mask for Box actions": (
        lambda w, s: s._replace(action_masks={**s.action_masks, "caller": torch.ones(3, 1, 2, dtype=torch.bool)}),
        "whose has_action_mask is False",
    ),
    "a mask that allows nothing": (
        lambda w, s: s._replace(action_masks={"walker": torch.zeros(3, 2, 3, dtype=torch.bool)}),
        "allows no action at all",
    ),
    "first in the middle of a life": (
        lambda w, s: s._replace(first=s.first | (some_seat_in_row(w, 2, 1) & s.alive)),
        "for a seat whose life goes on",
    ),
    "first without life": (lambda w, s: s._replace(first=s.first | ~s.alive), "`first` is True for a seat that is not"),
    "an opening without first": (
        lambda w, s: s._replace(first=s.first & (w.openings <= w.num_worlds)),
        "opens a new episode here, and `first` is not True",
    ),
    "a reset without first": (lambda w, s: s._replace(first=torch.zeros_like(s.first)), "reset: `first` must be True"),
    "a reward for opening an episode": (
        lambda w, s: s._replace(rewards=s.rewards + (s.first & (w.openings > w.num_worlds))),
        "opens a new episode here, and gives a reward",
    ),
    "an end of who is still alive": (
        lambda w, s: s._replace(terminated=s.terminated | some_seat_in_row(w, 2, 1)),
        "and still alive",
    ),
    "an end without a word": (
        lambda w, s: s._replace(truncated=s.truncated & False),
        "is no longer alive, and neither",
    ),
    "an end of who was dead": (
        lambda w, s: s._replace(terminated=s.terminated | some_seat_in_row(w, 4, 0)),
        "ended, and was not alive in the row before",
    ),
}


class CountsOpenings(Retold):
    """Knows how many episodes were opened since `reset`, for defects that spare the first row."""

    openings = 0

    def reset(self, seed: int | None = None) -> WorldStep:
        self.openings = 0
        return super().reset(seed)

    def told(self, *args: Tensor) -> WorldStep:
        self.openings += int(args[-1].any(-1).sum())
        return super().told(*args)


class StaysDead(TinyWorld):
    def step(self, actions: dict[str, Tensor], spoken: Tensor | None = None) -> WorldStep:
        was_over = ~self.data["alive"].any(-1)
        step = super().step(actions, spoken)
        self.data["alive"] = step.alive & ~was_over.unsqueeze(-1)
        return step._replace(alive=self.data["alive"], first=step.first & False)


class SilentBirth(TinyWorld):
    """walker_0 comes back two steps after its death."""

    def told(self, *args: Tensor) -> WorldStep:
        self.data["alive"] = self.data["alive"] | (some_seat_in_row(self, 4, 0) & self.data["alive"].any(-1, True))
        return super().told(*args)


class IgnoresTheSeed(TinyWorld):
    def reset(self, seed: int | None = None) -> WorldStep:
        return super().reset(None)


class HearsTheDead(TinyWorld):
    def step(self, actions: dict[str, Tensor], spoken: Tensor | None = None) -> WorldStep:
        step = super().step(actions, spoken)
        rewards = step.rewards + actions["walker"].float().mean() * step.alive * ~step.first
        return step._replace(rewards=rewards)


class ForgetsItsGenerator(TinyWorld):
    def set_state(self, state: dict[str, Any]) -> WorldStep:
        return super().set_state({**state, "generator": self.generator.get_state()})


class ReturnsAnotherRow(TinyWorld):
    def set_state(self, state: dict[str, Any]) -> WorldStep:
        step = super().set_state(state)
        return step._replace(rewards=step.rewards + 1.0)


class StateIsNoSnapshot(TinyWorld):
    """get_state hands out what the next steps go on writing to."""

    def get_state(self) -> dict[str, Any] | None:
        self.held = {"data": self.data, "generator": self.generator.get_state(), "last": self.last}
        return self.held

    def advance(self, actions: dict[str, Tensor], spoken: Tensor | None) -> WorldStep:
        step = super().advance(actions, spoken)
        if hasattr(self, "held"):
            self.held["data"] = self.data
        return step


class SharesAPurse(TinyWorld):
    def told(self, rewards: Tensor, *rest: Tensor) -> WorldStep:
        shared = torch.where(rewards != 0, rewards.mean(), 0.0)
        return super().told(shared, *rest)


class WritesIntoOldRows(TinyWorld):
    buffer: Tensor | None = None

    def told(self, rewards: Tensor, *rest: Tensor) -> WorldStep:
        self.buffer = torch.zeros_like(rewards) if self.buffer is None else self.buffer
        return super().told(self.buffer.copy_(rewards), *rest)


BEHAVIOURS: list[tuple[type[TinyWorld], str]] = [
    (StaysDead, "this row must open an episode, and nobody is alive"),
    (SilentBirth, "came to life without `first`"),
    (IgnoresTheSeed, "the same seed and actions gave something else"),
    (HearsTheDead, "the action of a seat that was not alive changed what happened"),
    (ForgetsItsGenerator, "after set_state the same actions gave something else"),
    (ReturnsAnotherRow, "set_state did not return the last WorldStep again"),
    (StateIsNoSnapshot, "after set_state the same actions gave something else"),
    (SharesAPurse, "other actions in world 0 changed another world"),
    (WritesIntoOldRows, "wrote into the WorldStep that was returned before"),
]


@pytest.mark.parametrize("num_worlds", [1, 2, 5])
def test_a_world_that_keeps_the_contract_passes(num_worlds: int) -> None:
    world_api_test(TinyWorld(num_worlds), num_steps=STEPS)


@pytest.mark.parametrize("defect", TELLINGS)
def test_a_wrong_row_is_caught_and_named(defect: str) -> None:
    change, message = TELLINGS[defect]
    with pytest.raises(AssertionError, match=message):
        world_api_test(CountsOpenings(change), num_steps=STEPS)


@pytest.mark.parametrize(("kind", "message"), BEHAVIOURS, ids=lambda value: getattr(value, "__name__", ""))
def test_a_wrong_behaviour_is_caught_and_named(kind: type[TinyWorld], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        world_api_test(kind(), num_steps=STEPS)


def test_species_with_a_gap_between_their_seats_are_caught() -> None:
    world = TinyWorld()
    world.species["caller"] = dataclasses.replace(world.species["caller"], start=3, stop=4)
    with pytest.raises(AssertionError, match="'caller' starts at seat 3; the one before ends at 2"):
        world_api_test(world)


def test_too_few_names_of_agents_are_caught() -> None:
    world = TinyWorld()
    world.species["walker"] = dataclasses.replace(world.species["walker"], agents=("walker_0",))
    with pytest.raises(AssertionError, match="names 1 agents for 2 seats"):
        world_api_test(world)


def test_an_action_space_that_networks_cannot_act_in_is_caught() -> None:
    world = TinyWorld()
    world.species["caller"] = dataclasses.replace(world.species["caller"], action_space=spaces.MultiBinary(2))
    with pytest.raises(AssertionError, match="must be Discrete, MultiDiscrete or Box"):
        world_api_test(world)


def test_a_torus_with_too_few_axes_is_caught() -> None:
    world = TinyWorld()
    world.torus = (4.0, 4.0)
    with pytest.raises(AssertionError, match="`torus` has 2 extents, and positions have 1 axes"):
        world_api_test(world)


def test_it_warns_when_no_episode_was_long_enough_to_end() -> None:
    with pytest.warns(UserWarning, match="no episode ended in 3 steps"):
        world_api_test(TinyWorld(), num_steps=3)


def test_a_world_without_get_state_is_not_asked_to_replay() -> None:
    class Stateless(ReturnsAnotherRow):
        def get_state(self) -> None:
            return None

    world_api_test(Stateless(), num_steps=STEPS)


class ManyChoices(World):
    """MultiDiscrete actions with masks that only allow choice i in part i."""

    def __init__(self) -> None:
        self.num_worlds, self.device = 2, torch.device("cpu")
        self.species = {"s": Species("s", 0, 3, 1, spaces.MultiDiscrete([2, 3, 4]), has_action_mask=True)}

    def reset(self, seed: int | None = None) -> WorldStep:
        self.age = 0
        return self.told(torch.ones(2, 3, dtype=torch.bool))

    def step(self, actions: dict[str, Tensor], spoken: Tensor | None = None) -> WorldStep:
        assert self.age == 4 or actions["s"].eq(torch.arange(3)).all()
        self.age = (self.age + 1) % 5
        return self.told(torch.full((2, 3), self.age == 0))

    def told(self, first: Tensor) -> WorldStep:
        over = torch.full((2, 3), self.age == 4)
        mask = torch.tensor([1, 0, 0, 1, 0, 0, 0, 1, 0]).bool().expand(2, 3, 9)
        zeros = torch.zeros(2, 3)
        return WorldStep({"s": zeros.unsqueeze(-1)}, zeros, over & False, over, ~over, first, action_masks={"s": mask})

    def get_state(self) -> dict[str, Any]:
        return {"age": self.age, "first": self.age == 0}

    def set_state(self, state: dict[str, Any]) -> WorldStep:
        self.age = state["age"]
        return self.told(torch.full((2, 3), state["first"]))


def test_masked_multi_discrete_actions_are_sampled_where_they_are_allowed() -> None:
    world_api_test(ManyChoices(), num_steps=12)


def test_sampled_actions_lie_in_their_spaces_and_respect_masks() -> None:
    world, rng = TinyWorld(50), np.random.default_rng(0)
    step = world.reset(0)
    for _ in range(5):
        actions = sample_actions(world, step, rng)
        assert all(world.species["walker"].action_space.contains(a) for a in actions["walker"].flatten().numpy())
        assert all(world.species["caller"].action_space.contains(a) for a in actions["caller"].flatten(0, 1).numpy())
        masks = step.action_masks["walker"]
        assert masks.gather(-1, actions["walker"].unsqueeze(-1)).all()
        step = world.step(actions)
    assert not masks.all()


def test_attributes_of_labels_have_a_row_for_each() -> None:
    class Parted(TinyWorld):
        label_attributes = torch.tensor([[0, 0], [0, 1]])

    with pytest.raises(AssertionError, match=r"`label_attributes` is \[2, 2\] torch.int64, and must be \[3, A\]"):
        world_api_test(Parted())
