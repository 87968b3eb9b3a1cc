"""Transcripts: every step of the recorded worlds is handed out once, with who heard it, also after a restore."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from popcomm.envs.world import WorldStep
from popcomm.rllib.transcript import STEPS_KEPT
from tests.rllib.test_reflexes import ToldWorld
from tests.rllib.test_rollout import clock_config, runner_of

EVENT = ("world", "episode", "step", "sender")


def recorded(conversation_every: int = 1, **settings: Any) -> Any:
    config = clock_config(**settings)
    config.recording(run_dir="somewhere", conversation_worlds=2, conversation_every=conversation_every)
    return runner_of(config)


def events(rows: dict[str, Any]) -> list[tuple[int, ...]]:
    return list(zip(*(map(int, rows[name]) for name in EVENT), strict=True)) if rows else []


def joined(parts: list[dict[str, Any]]) -> dict[str, list[Any]]:
    return {name: [value for part in parts for value in part[name]] for name in parts[0]}


def test_every_step_is_handed_out_once_in_whole_episodes() -> None:
    """World 0 has episodes of 3 steps, world 1 of 5, and a row between two; the last of four seats dies after two."""
    runner, found = recorded(agent="mlp", env_config={"death": 2}), []
    for _ in range(6):
        runner.sample()
        found += events(runner.transcript.take())
    assert len(set(found)) == len(found)
    for world, length in ((0, 3), (1, 5)):
        whole = 42 // (length + 1)
        for episode in range(whole):
            expected = [(step, seat) for step in range(length) for seat in range(4) if seat < 3 or step < 2]
            assert [event[2:] for event in found if event[:2] == (world, episode)] == expected
    assert runner.transcript.take() == {}


def test_looking_takes_nothing_away() -> None:
    runner = recorded(agent="mlp")
    runner.sample()
    looked, again = events(runner.transcript.rows()), events(runner.transcript.rows())
    assert looked == again == events(runner.transcript.take())


def test_steps_are_stamped_when_they_are_made() -> None:
    """Twelve worlds with episodes of three steps; in every fourth row nobody acts, so seven rows are 72 steps."""
    runner = recorded(agent="mlp", env_config={"lengths": (3,)})
    for iteration in (4, 5):
        runner.sample(env_steps=1000 * iteration, iteration=iteration)
    rows = runner.transcript.take()
    for iteration in (4, 5):
        here = rows["iteration"] == iteration
        # Rows 3 of the first fragment and 0 and 4 of the second only start the worlds over.
        acting = 6 if iteration == 4 else 5
        stamps = 1000 * iteration + 12 * np.arange(1, acting + 1)
        assert np.unique(rows["env_steps"][here]).tolist() == stamps.tolist()


def test_what_was_sampled_ahead_waits_for_its_own_iteration() -> None:
    ahead, in_turn = (recorded(agent="mlp", env_config={"lengths": (3,)}) for _ in range(2))
    for iteration in (1, 2):
        ahead.sample(env_steps=0, iteration=iteration)
    found = [ahead.transcript.take(iteration) for iteration in (1, 2)]
    assert [np.unique(rows["iteration"]).tolist() for rows in found] == [[1], [2]]
    for iteration in (1, 2):
        in_turn.sample(env_steps=0, iteration=iteration)
    assert events(found[0]) + events(found[1]) == events(in_turn.transcript.take())


def test_a_step_of_one_runner_stands_for_one_of_each() -> None:
    runner = recorded(agent="mlp", env_config={"lengths": (6,)})
    runner.transcript.runners = 3
    runner.sample(env_steps=0, iteration=1)
    assert np.unique(runner.transcript.take()["env_steps"]).tolist() == [36, 72, 108, 144, 180, 216]


def test_what_nobody_writes_is_not_kept_beyond_its_fragment() -> None:
    runner = recorded(conversation_every=0, agent="mlp", env_config={"lengths": (6,)})
    for iteration in range(1, 4):
        runner.sample(iteration=iteration)
    rows = runner.transcript.rows()
    assert set(rows["iteration"]) == {3}
    assert len(rows["step"]) == 2 * 4 * 6  # two worlds, four seats, six of seven rows


def test_of_long_intervals_the_latest_steps_are_kept() -> None:
    runner = recorded(agent="mlp", env_config={"lengths": (6,)})
    rounds = STEPS_KEPT // 7 + 2
    for iteration in range(rounds):
        runner.sample(iteration=iteration)
    rows = runner.transcript.take()
    # Every seventh row, from the sixth on, only starts the worlds over.
    first = 7 * rounds - STEPS_KEPT
    assert len({event[1:3] for event in events(rows)}) == sum(t % 7 != 6 for t in range(first, 7 * rounds))
    assert max(rows["iteration"]) == rounds - 1


def test_a_restored_runner_writes_what_an_uninterrupted_one_does() -> None:
    """Saved with two fragments that nobody has taken yet."""
    whole, parts = recorded(agent="symbolic", members=4), recorded(agent="symbolic", members=4)
    for iteration in (1, 2):
        whole.sample(iteration=iteration)
        parts.sample(iteration=iteration)
    other = recorded(agent="symbolic", members=4)
    other.module.set_state(parts.module.get_state())
    other.set_run_state(parts.run_state())
    for runner in (whole, other):
        runner.sample(iteration=3)
    one, two = whole.transcript.take(), other.transcript.take()
    assert set(one) == set(two)
    for name in one:
        for a, b in zip(one[name], two[name], strict=True):
            assert np.array_equal(a, b), name


def test_episodes_of_worlds_that_were_reset_have_numbers_of_their_own() -> None:
    """The worlds are made anew in the middle of their episodes."""
    runner = recorded(agent="mlp", env_config={"lengths": (20,)})
    runner.sample()
    runner.rollout.players.now = None
    runner.sample()
    found = events(runner.transcript.take())
    assert len(set(found)) == len(found) == 2 * 2 * 7 * 4
    assert {event[1] for event in found} == {0, 1}


def test_a_runner_in_place_of_a_lost_one_repeats_no_number() -> None:
    runner = recorded(agent="mlp", env_config={"lengths": (20,)})
    runner.sample(env_steps=500)
    assert {event[1] for event in events(runner.transcript.take())} == {500}


@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("gamma", [0.9, 0.0])
def test_receivers_are_those_who_lived_to_hear_it_one_step_later(every: int, gamma: float) -> None:
    """Whatever is taken when; without a look ahead (gamma 0) the attention to the last step is only known later."""
    config = clock_config(agent="symbolic", env_config={"lengths": (3,), "death": 2}).training(gamma=gamma)
    runner = runner_of(config.recording(run_dir="somewhere", conversation_worlds=2))
    parts = []
    for fragment in range(6):
        runner.sample()
        if fragment % every == every - 1:
            parts.append(runner.transcript.take())
    rows = joined(parts)
    # Two worlds with ten episodes of eleven agent-steps and two steps of one; the last waits where gamma is 0.
    assert len(rows["step"]) == 2 * (10 * 11 + (8 if gamma else 4))
    for step, sender, receivers, weights in zip(
        rows["step"], rows["sender"], rows["receivers"], rows["weights"], strict=True
    ):
        others = {0, 1, 2, 3} - {int(sender)}
        if step == 2:
            expected: set[int] = set()  # the episode ends: nobody hears it
        elif step == 1:
            expected = set() if sender == 3 else others - {3}  # seat 3 dies in this step
        else:
            expected = others
        assert set(map(int, receivers)) == expected
        assert len(weights) == len(receivers)
        assert all(0 <= w <= 1 for w in weights)


def test_members_and_rewards_in_a_transcript_are_those_of_the_fragment() -> None:
    runner = recorded(agent="mlp", members=4, env_config={"lengths": (6,)})
    speaker = runner.sample().policy_batches["speaker"]
    rows = runner.transcript.rows()
    for world, step, sender, member, reward, symbols in zip(
        *(rows[k] for k in ("world", "step", "sender", "member", "reward", "symbols")), strict=True
    ):
        if sender < 2:
            assert speaker["members"][world, step, sender] == member
            assert speaker["rewards"][world, step, sender] == reward
            assert speaker["messages"][world, step + 1, sender].tolist() == list(symbols)


class Parted(ToldWorld):
    """Its three labels are made of two attributes, and the last seat has none."""

    label_attributes = torch.tensor([[0, 0], [0, 1], [1, 0]])

    def _say(self, *args: Any) -> WorldStep:
        step = super()._say(*args)
        assert step.labels is not None
        labels = torch.where(torch.arange(self.num_agents) == 3, -1, step.labels)
        self.last = step._replace(labels=labels)
        return self.last


def test_what_labels_are_made_of_stands_beside_them_for_all_seats_that_have_one() -> None:
    config = clock_config(agent="mlp").environment(Parted)
    runner = runner_of(config.recording(run_dir="somewhere", conversation_worlds=2))
    runner.sample()
    rows = runner.transcript.rows()
    parts = Parted.label_attributes.tolist()
    assert set(rows["label"].tolist()) == {-1, 0, 1, 2}
    for label, sender, meaning in zip(rows["label"], rows["sender"], rows["meaning"], strict=True):
        assert (label < 0) == (sender == 3)
        assert meaning is None if label < 0 else meaning.tolist() == parts[label]
