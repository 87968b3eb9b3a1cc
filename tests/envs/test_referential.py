"""ReferentialWorld against rounds worked out on paper, and its draws against their probabilities."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import runpy
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pettingzoo.test import parallel_api_test
from PIL import Image
from scipy.stats import chisquare
from torch import Tensor

import popcomm
from popcomm import envs
from popcomm.envs import WORLDS, CommunicationEnv, referential_v0
from popcomm.envs.referential_draws import draw_candidates, draw_episode
from popcomm.envs.referential_meanings import Meanings, all_meanings
from popcomm.envs.referential_v0 import ReferentialWorld
from popcomm.envs.testing import world_api_test
from popcomm.envs.world import World, WorldStep
from popcomm.errors import UserError
from tests.envs.tiny_world import TinyWorld

GRID = [[0, 0], [0, 1], [1, 0], [1, 1]]  # 2 attributes x 2 values: the meanings 0 ... 3


def scripted(meanings: list[int], candidates: Any = None, speaking: Any = None, **kwargs: Any) -> ReferentialWorld:
    """One world of 2 x 2 meanings whose rounds are about `meanings`; the target is the first candidate."""
    world = ReferentialWorld(1, **{"attributes": 2, "values": 2, "rounds": len(meanings), **kwargs})
    world.reset(0)
    state = world.get_state()
    drawn = state["episode"]._replace(targets=torch.tensor(meanings).unsqueeze(1))
    if speaking is not None:
        drawn = drawn._replace(speaking=torch.tensor(speaking, dtype=torch.bool).unsqueeze(1))
    if candidates is not None:
        places = torch.tensor([row.index(target) for row, target in zip(candidates, meanings, strict=True)])
        drawn = drawn._replace(candidates=torch.tensor(candidates).unsqueeze(1), places=places.unsqueeze(1))
    world.set_state({**state, "episode": drawn})
    world._look(world._zeros(), first=True)
    return world


def idle(world: World) -> dict[str, Tensor]:
    shapes = {name: (world.num_worlds, s.num_seats, *s.action_space.shape) for name, s in world.species.items()}
    return {name: torch.zeros(shape, dtype=torch.int64) for name, shape in shapes.items()}


def say(world: ReferentialWorld, *answers: Any, spoken: list[float] | None = None) -> WorldStep:
    """A step of one world, in which those who may answer give `answers`."""
    name = list(world.species)[-1]
    actions = {**idle(world), name: torch.tensor([answers])}
    return world.step(actions, None if spoken is None else torch.tensor([spoken]))


def last(world: ReferentialWorld) -> WorldStep:
    assert world._last is not None
    return world._last


def one_hot(*values: int, size: int = 2) -> list[float]:
    return [float(v == value) for value in values for v in range(size)]


def episode(world: ReferentialWorld, policy: Any) -> list[WorldStep]:
    """All rows of an episode; policy(step) gives the answers."""
    rows = [world.reset(5)]
    while rows[-1].alive.any():
        rows.append(world.step({**idle(world), list(world.species)[-1]: policy(rows[-1])}))
    return rows


class TestTiming:
    def test_speakers_see_a_new_meaning_in_every_step_and_answers_follow_one_step_behind(self) -> None:
        world = scripted([2, 1])
        rows = [last(world)] + [say(world, [0, 0]) for _ in range(4)]
        sees = [row.observations["speaker"][0, 0].tolist() for row in rows]
        assert sees[:4] == [one_hot(1, 0), one_hot(0, 1), [0.0] * 4, [0.0] * 4]
        assert [row.observations["listener"].item() for row in rows[:4]] == [0.0, 1.0, 1.0, 0.0]
        assert [row.answers["listener"][0, 0].tolist() for row in rows[:4]] == [[-1, -1], [1, 0], [0, 1], [-1, -1]]
        assert [bool(row.alive.all()) for row in rows] == [True, True, True, False, True]
        assert [bool(row.truncated.all()) for row in rows] == [False, False, False, True, False]
        assert [bool(row.first.all()) for row in rows] == [True, False, False, False, True]
        assert [row.labels[0].tolist() for row in rows[:4]] == [[2, -1], [1, -1], [-1, -1], [-1, -1]]
        assert [row.state[0].tolist() for row in rows[:4]] == sees[:4]

    def test_a_round_of_three_turns_is_answered_in_the_first_step_of_the_next(self) -> None:
        world = scripted([2, 1], turns=3)
        rows = [last(world)]
        while rows[-1].alive.all():
            rows.append(say(world, [1, 1]))
        assert len(rows) == 2 * 3 + 2  # with the last one, where nobody acts any more
        sees = [row.observations["speaker"][0, 0].tolist() for row in rows]
        assert sees == [one_hot(1, 0)] * 3 + [one_hot(0, 1)] * 3 + [[0.0] * 4] * 2
        assert [row.observations["listener"].item() for row in rows] == [0, 0, 0, 1, 0, 0, 1, 0]
        assert [row.answers["listener"][0, 0].tolist() for row in rows] == (
            [[-1, -1]] * 3 + [[1, 0]] + [[-1, -1]] * 2 + [[0, 1]] + [[-1, -1]]
        )
        assert [row.rewards[0].tolist() for row in rows] == [[0, 0]] * 4 + [[0.5, 0.5]] + [[0, 0]] * 2 + [[0.5, 0.5]]

    def test_listeners_see_the_candidates_of_the_round_whose_messages_they_hear(self) -> None:
        world = scripted([2, 1], candidates=[[3, 2], [1, 0]], turns=2, task="pick", distractors=1)
        rows = [last(world)] + [say(world, 0) for _ in range(5)]
        first, second = one_hot(1, 1, 1, 0), one_hot(0, 1, 0, 0)
        views = [row.observations["listener"][0, 0].tolist() for row in rows]
        assert views == [
            [0.0] * 9,
            [0.0, *first],
            [1.0, *first],
            [0.0, *second],
            [1.0, *second],
            [0.0] * 9,
        ]
        assert [row.answers["listener"].item() for row in rows] == [-1, -1, 1, -1, 0, -1]

    @pytest.mark.parametrize(("turns", "talk"), [(1, False), (2, True)])
    def test_talk_goes_both_ways_only_in_conversations(self, turns: int, talk: bool) -> None:
        species = ReferentialWorld(turns=turns).species
        assert (species["speaker"].speaks, species["speaker"].hears) == (True, talk)
        assert (species["listener"].speaks, species["listener"].hears) == (talk, True)
        agent = ReferentialWorld(turns=turns, roles="swapping").species["agent"]
        assert agent.speaks
        assert agent.hears


class TestRewards:
    def test_a_listener_gets_its_share_of_attributes_and_speakers_the_mean(self) -> None:
        world = scripted([2], speakers=2, listeners=3)
        assert say(world, [1, 0], [1, 0], [1, 0]).rewards.tolist() == [[0.0] * 5]  # nothing was asked yet
        step = say(world, [1, 0], [1, 1], [0, 1])
        assert step.rewards[0].tolist() == [0.5, 0.5, 1.0, 0.5, 0.0]
        assert world.metrics() == {"accuracy": pytest.approx(1 / 3), "attribute_accuracy": 0.5}

    def test_reward_all_pays_for_whole_meanings_only(self) -> None:
        world = scripted([2], listeners=2, reward="all")
        say(world, [0, 0], [0, 0])
        assert say(world, [1, 0], [1, 1]).rewards[0].tolist() == [0.5, 1.0, 0.0]

    def test_picking_the_target_pays_one(self) -> None:
        world = scripted([2], candidates=[[3, 2, 0]], task="pick", distractors=2, listeners=2)
        say(world, 1, 1)
        assert say(world, 1, 0).rewards[0].tolist() == [0.5, 1.0, 0.0]
        assert world.metrics() == {"accuracy": 0.5}

    def test_spoken_symbols_cost_their_speaker_in_every_step(self) -> None:
        world = scripted([2], message_cost=0.125, turns=2)
        assert say(world, [0, 0], spoken=[2.0, 0.0]).rewards.tolist() == [[-0.25, 0.0]]
        assert say(world, [0, 0], spoken=[0.0, 4.0]).rewards.tolist() == [[0.0, -0.5]]
        assert say(world, [1, 0], spoken=[1.0, 0.0]).rewards.tolist() == [[0.875, 1.0]]
        assert say(world, [1, 0], spoken=[9.0, 9.0]).rewards.tolist() == [[0.0, 0.0]]  # opens the next episode

    def test_metrics_start_anew_when_they_were_asked_for(self) -> None:
        world = scripted([2, 1])
        assert world.metrics() == {}
        say(world, [0, 0])
        say(world, [1, 0])
        assert world.metrics() == {"accuracy": 1.0, "attribute_accuracy": 1.0}
        assert world.metrics() == {}
        say(world, [1, 1])
        assert world.metrics() == {"accuracy": 0.0, "attribute_accuracy": 0.5}

    @pytest.mark.parametrize(
        "kwargs",
        [
            {"speakers": 2, "listeners": 3},
            {"roles": "swapping", "num_agents": 5, "speakers": 2, "turns": 2},
            {"task": "pick", "roles": "swapping", "listeners": 2},
            {"task": "pick", "power_law": 1.0, "turns": 3},
            {"attributes": 7, "values": 3, "num_meanings": 50, "reward": "all"},
        ],
    )
    def test_who_follows_the_answers_is_always_right(self, kwargs: dict[str, Any]) -> None:
        world = ReferentialWorld(20, **kwargs)
        name = list(world.species)[-1]
        rows = episode(world, lambda step: step.answers[name])
        earned = torch.stack([row.rewards for row in rows]).sum(0)
        assert torch.equal(earned, torch.full_like(earned, 10.0))  # 1 for every round, to everyone
        assert set(world.metrics().values()) == {1.0}

    def test_a_guesser_is_right_by_chance(self) -> None:
        world, generator = ReferentialWorld(2000, attributes=2, values=3), torch.Generator().manual_seed(1)
        episode(world, lambda step: torch.randint(3, (2000, 1, 2), generator=generator))
        counted = world.metrics()  # of 20,000 answers
        assert counted["accuracy"] == pytest.approx(1 / 9, abs=4 * (1 / 9 * 8 / 9 / 20_000) ** 0.5)
        assert counted["attribute_accuracy"] == pytest.approx(1 / 3, abs=4 * (1 / 3 * 2 / 3 / 40_000) ** 0.5)

    def test_no_place_among_the_candidates_is_better_than_another(self) -> None:
        world = ReferentialWorld(4000, task="pick", attributes=1, values=4, distractors=2)
        episode(world, lambda step: torch.zeros(4000, 1, dtype=torch.int64))
        assert world.metrics()["accuracy"] == pytest.approx(1 / 3, abs=4 * (1 / 3 * 2 / 3 / 40_000) ** 0.5)


class TestSwapping:
    def test_an_agent_may_answer_one_round_and_open_the_next_in_the_same_step(self) -> None:
        # Agent 0 speaks first, then agent 1, who answers the first round in the step where it sees the second.
        world = scripted([2, 1], roles="swapping", num_agents=3, speaking=[[1, 0, 0], [0, 1, 0]])
        rows = [last(world), say(world, [0, 0], [0, 0], [0, 0]), say(world, [1, 0], [1, 0], [1, 1])]
        nothing = [0.0] * 4
        assert rows[0].observations["agent"][0].tolist() == [
            [1.0, 0.0, *one_hot(1, 0)],
            [0.0, 0.0, *nothing],
            [0.0, 0.0, *nothing],
        ]
        assert rows[1].observations["agent"][0].tolist() == [
            [0.0, 0.0, *nothing],
            [1.0, 1.0, *one_hot(0, 1)],
            [0.0, 1.0, *nothing],
        ]
        assert rows[1].answers["agent"][0].tolist() == [[-1, -1], [1, 0], [1, 0]]
        assert [row.labels[0].tolist() for row in rows] == [[2, -1, -1], [-1, 1, -1], [-1, -1, -1]]
        # Agent 0's own answer does not count: it was the speaker.
        assert rows[2].rewards[0].tolist() == [0.75, 1.0, 0.5]
        assert rows[2].observations["agent"][0].tolist() == [[0.0, 1.0, *nothing], [0.0] * 6, [0.0, 1.0, *nothing]]
        assert world.metrics() == {"accuracy": 0.5, "attribute_accuracy": 0.75}
        assert say(world, [0, 1], [0, 1], [1, 0]).rewards[0].tolist() == [1.0, 0.5, 0.0]

    def test_a_conversation_says_when_its_answer_is_due(self) -> None:
        world = scripted([2, 1], roles="swapping", num_agents=2, turns=2, speaking=[[1, 0], [0, 1]])
        rows = [last(world)] + [say(world, [0, 0], [0, 0]) for _ in range(5)]
        flags = [row.observations["agent"][0, :, :2].tolist() for row in rows]
        speaks, due, silent = [1.0, 0.0], [0.0, 1.0], [0.0, 0.0]
        assert flags == [
            [speaks, silent],
            [speaks, silent],
            [silent, [1.0, 1.0]],
            [silent, speaks],
            [due, silent],
            [silent, silent],
        ]

    def test_only_listeners_of_a_round_see_its_candidates(self) -> None:
        world = scripted(
            [2], candidates=[[3, 2]], roles="swapping", num_agents=2, task="pick", distractors=1, speaking=[[0, 1]]
        )
        assert last(world).observations["agent"][0].tolist() == [[0.0] * 14, [1.0, 0.0, *one_hot(1, 0), *[0.0] * 8]]
        step = say(world, 0, 0)
        assert step.observations["agent"][0].tolist() == [[0.0, 1.0, *[0.0] * 4, *one_hot(1, 1, 1, 0)], [0.0] * 14]
        assert step.answers["agent"].tolist() == [[1, -1]]

    def test_every_pair_of_seats_speaks_equally_often(self) -> None:
        drawn = draw_episode((50, 400, 4), 2, True, 0, torch.ones(1, dtype=torch.float64), torch.Generator())
        assert (drawn.speaking.sum(-1) == 2).all()
        counts = (drawn.speaking * torch.tensor([1, 2, 4, 8])).sum(-1).flatten().bincount()
        assert chisquare(counts[counts > 0]).pvalue > 1e-3
        assert (counts > 0).sum() == 6

    def test_num_agents_counts_speakers_and_listeners(self) -> None:
        world = ReferentialWorld(roles="swapping", num_agents=5, speakers=2)
        assert (world.num_agents, world.listeners) == (5, 3)
        assert ReferentialWorld(roles="swapping", speakers=2, listeners=2).num_agents == 4


class TestMeanings:
    def test_the_grid_is_complete_and_in_order(self) -> None:
        assert all_meanings(2, 2).tolist() == GRID
        assert ReferentialWorld(attributes=3, values=4).meanings.shape == (64, 3)

    @pytest.mark.parametrize(("attributes", "values", "count"), [(2, 10, 37), (3, 4, 63), (12, 10, 200), (70, 10, 50)])
    def test_a_sample_is_distinct_in_range_and_a_function_of_its_seed(
        self, attributes: int, values: int, count: int
    ) -> None:
        sample = all_meanings(attributes, values, count, seed=3)
        assert sample.shape == (count, attributes)
        assert len(sample.unique(dim=0)) == count
        assert torch.equal(sample, sample.unique(dim=0))  # lexicographic
        assert 0 <= int(sample.min()) <= int(sample.max()) < values
        assert torch.equal(sample, all_meanings(attributes, values, count, seed=3))
        assert not torch.equal(sample, all_meanings(attributes, values, count, seed=4))

    @settings(max_examples=40, deadline=None)
    @given(
        attributes=st.integers(1, 4), values=st.integers(2, 5), share=st.floats(0.01, 0.99), seed=st.integers(0, 1000)
    )
    def test_splits_divide_the_meanings_and_training_keeps_every_value_if_it_can(
        self, attributes: int, values: int, share: float, seed: int
    ) -> None:
        meanings = Meanings(attributes, values, held_out=share, seed=seed)
        size = values**attributes
        assert len(meanings.held_out) == min(max(1, round(share * size)), size - 1)
        assert torch.equal(torch.cat((meanings.train, meanings.held_out)).unique(dim=0), meanings.all)
        assert len(meanings.train) + len(meanings.held_out) == size
        # V meanings suffice, one for each value of all attributes at once.
        if len(meanings.train) >= values:
            assert [len(meanings.train[:, a].unique()) for a in range(attributes)] == [values] * attributes

    def test_a_sample_too_keeps_every_value_that_it_has(self) -> None:
        for seed in range(20):
            meanings = Meanings(2, 10, num_meanings=40, held_out=0.5, seed=seed)
            for a in range(2):
                assert torch.equal(meanings.train[:, a].unique(), meanings.all[:, a].unique())

    def test_meanings_are_held_out_evenly(self) -> None:
        counts = torch.zeros(9)
        for seed in range(900):
            held = Meanings(2, 3, held_out=0.3, seed=seed).held_out
            counts[(held * torch.tensor([3, 1])).sum(-1)] += 1
        assert counts.sum() == 2700
        # Three of nine at a time scatter less than independent draws: the test is on the safe side.
        assert chisquare(counts).pvalue > 1e-3

    @pytest.mark.parametrize("task", ["reconstruct", "pick"])
    def test_what_is_held_out_is_never_met_in_training(self, task: str) -> None:
        told = Meanings(2, 5, held_out=0.4, seed=1)
        for split, allowed, others in (("train", told.train, told.held_out), ("held_out", told.held_out, told.train)):
            world = ReferentialWorld(50, values=5, held_out=0.4, split=split, meaning_seed=1, task=task)
            assert torch.equal(world.meanings, allowed)
            rows = episode(world, lambda step, world=world: idle(world)["listener"])
            spoken = torch.stack([row.observations["speaker"] for row in rows]).view(-1, 2, 5)
            spoken = spoken[spoken.sum((1, 2)) > 0]
            if task == "pick":
                shown = torch.stack([row.observations["listener"] for row in rows])[..., 1:].reshape(-1, 2, 5)
                spoken = torch.cat((spoken, shown[shown.sum((1, 2)) > 0]))
            met = {tuple(row) for row in spoken.argmax(-1).tolist()}
            assert met == {tuple(row) for row in allowed.tolist()}
            assert met.isdisjoint({tuple(row) for row in others.tolist()})

    def test_split_all_plays_everything(self) -> None:
        assert torch.equal(ReferentialWorld(held_out=0.2, split="all").meanings, all_meanings(2, 10))

    @pytest.mark.parametrize(("exponent", "split"), [(0.0, "all"), (1.0, "all"), (2.0, "all"), (1.0, "train")])
    def test_meanings_are_drawn_by_their_power_law(self, exponent: float, split: str) -> None:
        world = ReferentialWorld(4000, values=3, power_law=exponent, held_out=0.3, split=split, meaning_seed=5)
        labels = [world.reset(2).labels[:, 0]] + [world.step(idle(world)).labels[:, 0] for _ in range(9)]
        found = torch.cat(labels).bincount(minlength=len(world.meanings))
        odds = Meanings(2, 3, held_out=0.3, power_law=exponent, seed=5).probabilities(split)
        assert chisquare(found, found.sum() * odds.numpy()).pvalue > 1e-3
        if split == "all":
            weights = np.arange(1, 10.0) ** -exponent
            np.testing.assert_allclose(odds.sort(descending=True).values, weights / weights.sum(), rtol=1e-12)

    def test_a_meaning_has_the_same_rank_in_every_split(self) -> None:
        meanings = Meanings(2, 4, held_out=0.25, power_law=1.5, seed=2)
        overall = dict(zip(map(tuple, meanings.all.tolist()), meanings.probabilities("all").tolist(), strict=True))
        for split in ("train", "held_out"):
            odds = torch.tensor([overall[tuple(row)] for row in meanings.split(split).tolist()], dtype=torch.float64)
            torch.testing.assert_close(meanings.probabilities(split), odds / odds.sum())

    def test_the_steepest_law_draws_one_meaning(self) -> None:
        world = ReferentialWorld(100, power_law=1e4, held_out=0.5, split="held_out")
        assert len(world.reset(0).labels[:, 0].unique()) == 1

    def test_labels_are_rows_of_meanings_and_left_out_where_they_are_too_many(self) -> None:
        world = ReferentialWorld(30, num_meanings=70)
        step = world.reset(0)
        spoken = step.observations["speaker"].view(30, 2, 10).argmax(-1)
        assert torch.equal(world.meanings[step.labels[:, 0]], spoken)
        assert world.num_labels == 70
        many = ReferentialWorld(1, attributes=4, values=6)
        assert (many.num_labels, many.reset(0).labels) == (0, None)


class TestCandidates:
    def test_they_differ_and_hold_the_target_at_its_place(self) -> None:
        targets = torch.randint(7, (40, 30), generator=torch.Generator().manual_seed(0))
        candidates, places = draw_candidates(targets, 5, 7, torch.Generator())
        assert candidates.shape == (40, 30, 6)
        assert torch.equal(candidates.gather(-1, places.unsqueeze(-1)).squeeze(-1), targets)
        assert (candidates.sort().values.diff() > 0).all()
        assert 0 <= int(candidates.min()) <= int(candidates.max()) < 7

    def test_all_orders_of_all_choices_are_equally_likely(self) -> None:
        # Target 1 and two of the others 0, 2, 3: 3 choices x 6 orders.
        candidates, _ = draw_candidates(torch.full((18_000,), 1), 2, 4, torch.Generator().manual_seed(4))
        counts = (candidates * torch.tensor([16, 4, 1])).sum(-1).bincount()
        counts = counts[counts > 0]
        assert len(counts) == 18
        assert chisquare(counts).pvalue > 1e-3

    def test_as_many_distractors_as_there_are_others_show_everything(self) -> None:
        candidates, _ = draw_candidates(torch.tensor([0, 3, 2]), 3, 4, torch.Generator())
        assert candidates.sort().values.tolist() == [[0, 1, 2, 3]] * 3


class TestWorld:
    @pytest.mark.parametrize(
        "kwargs",
        [
            {},
            {"speakers": 2, "listeners": 3, "turns": 2, "message_cost": 0.1, "num_worlds": 1},
            {"roles": "swapping", "num_agents": 4, "power_law": 1.0, "held_out": 0.2},
            {"task": "pick", "listeners": 2, "reward": "all"},
            {"task": "pick", "roles": "swapping", "speakers": 2, "turns": 3, "num_meanings": 30, "split": "all"},
        ],
    )
    def test_it_keeps_the_contract(self, kwargs: dict[str, Any]) -> None:
        world_api_test(ReferentialWorld(**{"num_worlds": 3, "rounds": 4, **kwargs}), num_steps=30)

    def test_a_copy_and_a_pickle_have_the_same_future(self) -> None:
        world = ReferentialWorld(3, task="pick", roles="swapping", rounds=3)
        world.reset(3)
        world.step(idle(world))
        twins = [copy.deepcopy(world), pickle.loads(pickle.dumps(world))]
        for _ in range(10):
            expected = world.step(idle(world))
            for twin in twins:
                assert torch.equal(twin.step(idle(twin)).observations["agent"], expected.observations["agent"])
        assert twins[0].metrics() == twins[1].metrics() == world.metrics()

    def test_counts_come_back_with_the_state(self) -> None:
        world = scripted([2, 1])
        say(world, [0, 0])
        say(world, [1, 0])
        state = world.get_state()
        fresh = ReferentialWorld(1, attributes=2, values=2, rounds=2)
        fresh.set_state(state)
        assert fresh.metrics() == world.metrics() == {"accuracy": 1.0, "attribute_accuracy": 1.0}

    def test_seeds_decide_and_differ(self) -> None:
        world = ReferentialWorld(50)
        first, again, other = (world.reset(seed).labels for seed in (1, 1, 2))
        assert torch.equal(first, again)
        assert not torch.equal(first, other)
        assert not torch.equal(world.reset().labels, other)  # without a seed it goes on
        assert torch.equal(ReferentialWorld(50).reset().labels, ReferentialWorld(50).reset(0).labels)

    @pytest.mark.parametrize(
        ("kwargs", "message"),
        [
            ({"num_worlds": 0}, "num_worlds is 0, and must be a whole number of at least 1"),
            ({"listeners": 0}, "listeners is 0, and must be a whole number of at least 1"),
            ({"rounds": 2.5}, "rounds is 2.5, and must be a whole number of at least 1"),
            ({"turns": 0}, "turns is 0, and must"),
            ({"values": 1}, "values is 1, and must be a whole number of at least 2"),
            ({"attributes": 0}, "attributes is 0, and must"),
            ({"roles": "swaping"}, "roles 'swaping' does not exist; did you mean 'swapping'"),
            ({"task": "choose"}, "task 'choose' does not exist; allowed: pick, reconstruct"),
            ({"reward": "al"}, "reward 'al' does not exist; did you mean 'all'"),
            ({"split": "heldout"}, "split 'heldout' does not exist; did you mean 'held_out'"),
            ({"split": "held_out"}, "split is 'held_out', and must be 'train' or 'all' where held_out is 0"),
            ({"held_out": 1.0}, r"held_out is 1.0, and must lie in \[0, 1\)"),
            ({"power_law": -1.0}, "power_law is -1.0, and must"),
            ({"message_cost": -0.1}, "message_cost is -0.1, and must not be negative"),
            ({"meaning_seed": -1}, "meaning_seed is -1, and must"),
            ({"num_meanings": 101}, "num_meanings is 101, and must be a whole number from 2 to 100"),
            ({"attributes": 9}, "9 attributes of 10 values have more than 1000000 meanings; set num_meanings"),
            ({"task": "pick", "distractors": 100}, "distractors is 100, and must be below the 100 meanings"),
            ({"num_agents": 2}, "num_agents is 2, and must be left out with roles 'fixed'"),
            ({"num_agents": 2, "roles": "swapping", "speakers": 2}, "must be a whole number above speakers = 2"),
            ({"num_agents": 4, "roles": "swapping", "listeners": 2}, r"must be speakers \+ listeners = 3"),
        ],
    )
    def test_a_value_out_of_range_is_named(self, kwargs: dict[str, Any], message: str) -> None:
        with pytest.raises(UserError, match=f"^referential_v0: .*{message}"):
            ReferentialWorld(**kwargs)

    def test_misuse_is_said_in_words(self) -> None:
        world = ReferentialWorld(2)
        for use in (lambda: world.step(idle(world)), world.render, world.get_state):
            with pytest.raises(UserError, match="reset first"):
                use()
        world.reset(0)
        with pytest.raises(UserError, match=r"'listener' have shape \(2, 1\), and must have \(2, 1, 2\)"):
            world.step({**idle(world), "listener": torch.zeros(2, 1, dtype=torch.int64)})

    def test_it_is_known_by_name(self) -> None:
        assert WORLDS["referential_v0"] is ReferentialWorld is referential_v0.ReferentialWorld


class Mistold(ReferentialWorld):
    """A game that tells its answers or metrics wrongly."""

    change: Any = staticmethod(lambda world, answers: answers)
    told: Any = None

    def _look(self, *args: Any, **kwargs: Any) -> WorldStep:
        step = super()._look(*args, **kwargs)
        self._last = step._replace(answers=self.change(self, step.answers))
        return self._last

    def metrics(self) -> dict[str, float]:
        return super().metrics() if self.told is None else self.told


class TestConformance:
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda w, a: {"listner": a["listener"]}, r"answers for \['listner'\], and has_answers is True for"),
            (lambda w, a: {"listener": a["listener"].float()}, "dtype torch.float32; it must be torch.int64"),
            (lambda w, a: {"listener": a["listener"][..., 0]}, r"shape \(2, 1\); it must be \(2, 1, 2\)"),
            (lambda w, a: {"listener": a["listener"] + (a["listener"] >= 0)}, "neither an action of MultiDiscrete"),
            (lambda w, a: {"listener": a["listener"] - 1}, "neither an action of MultiDiscrete"),
            (lambda w, a: {"listener": a["listener"].clamp(min=0 if w._age == 5 else -1)}, "seat that is not alive"),
            (lambda w, a: a if w._now.due else None, r"answers for \[\], and has_answers is True for \['listener'\]"),
        ],
    )
    def test_wrong_answers_are_found(self, change: Any, message: str) -> None:
        world = Mistold(2, values=2, rounds=4)
        world.change = change
        with pytest.raises(AssertionError, match=message):
            world_api_test(world, num_steps=12)

    @pytest.mark.parametrize(("offset", "fine"), [(1, True), (0, False)])
    def test_answers_must_be_allowed_by_the_mask(self, offset: int, fine: bool) -> None:
        class Supervised(TinyWorld):
            """A walker may not do the same twice in a row; the answer is `offset` from what it did last."""

            def told(self, *args: Tensor) -> WorldStep:
                self.species["walker"] = dataclasses.replace(self.species["walker"], has_answers=True)
                step = super().told(*args)
                right = ((self.data["previous"] + offset) % 3).masked_fill(~step.alive[:, :2], -1)
                return step._replace(answers={"walker": right})

        if fine:
            world_api_test(Supervised(), num_steps=30)
        else:
            with pytest.raises(AssertionError, match="an action that the mask forbids"):
                world_api_test(Supervised(), num_steps=30)

    @pytest.mark.parametrize(
        ("told", "message"),
        [
            ([1.0], "must return a dict"),
            ({1: 1.0}, "keys must be strings"),
            ({"accuracy": torch.ones(())}, "it must be a number"),
            ({"accuracy": float("nan")}, "leave out what was not counted"),
        ],
    )
    def test_wrong_metrics_are_found(self, told: Any, message: str) -> None:
        world = Mistold(2, rounds=4)
        world.told = told
        with pytest.raises(AssertionError, match=message):
            world_api_test(world, num_steps=12)


class TestPettingZoo:
    @pytest.mark.parametrize("kwargs", [{}, {"task": "pick", "roles": "swapping", "num_agents": 3}])
    def test_the_parallel_env_passes_pettingzoos_test(self, kwargs: dict[str, Any]) -> None:
        parallel_api_test(referential_v0.parallel_env(**kwargs), num_cycles=50)

    @pytest.mark.parametrize("kwargs", [{}, {"num_agents": 4, "topology": "ring", "layout": "flat", "turns": 2}])
    def test_the_communication_env_passes_pettingzoos_test(self, kwargs: dict[str, Any]) -> None:
        parallel_api_test(popcomm.CommunicationEnv(**kwargs), num_cycles=50)

    def test_the_turn_based_env_can_be_stepped(self) -> None:
        env = referential_v0.env(rounds=1)
        env.reset(seed=0)
        for agent in env.agent_iter():
            done = env.terminations[agent] or env.truncations[agent]
            env.step(None if done else env.action_space(agent).sample())
        assert not env.agents

    def test_agents_that_point_at_the_attributes_earn_everything(self) -> None:
        env = CommunicationEnv(num_agents=3, vocab_size=5, length=2, values=5, rounds=4)
        observations, _ = env.reset(seed=2)
        assert set(observations["agent_0"]) == {"observation", "inbox", "senders", "mask"}
        speaker, earned = None, dict.fromkeys(env.possible_agents, 0.0)
        while env.agents:
            actions = {}
            for agent in env.agents:
                seen = observations[agent]
                heard = seen["inbox"][seen["senders"].tolist().index(speaker)] if seen["observation"][1] else [0, 0]
                meaning = seen["observation"][2:].reshape(2, 5).argmax(-1)
                actions[agent] = {"action": np.array(heard), "message": meaning}
            speaks = [seat for seat, agent in enumerate(env.agents) if observations[agent]["observation"][0]]
            speaker = speaks[0] if speaks else None
            observations, rewards, *_ = env.step(actions)
            for agent, reward in rewards.items():
                earned[agent] += reward
        assert earned == dict.fromkeys(env.possible_agents, 4.0)

    def test_the_package_offers_it_and_nothing_that_is_not_there(self) -> None:
        assert popcomm.CommunicationEnv is envs.CommunicationEnv is referential_v0.CommunicationEnv
        assert "CommunicationEnv" in dir(popcomm)
        with pytest.raises(AttributeError, match="no attribute 'ComunicationEnv'"):
            _ = popcomm.ComunicationEnv

    def test_importing_the_package_alone_is_cheap(self) -> None:
        code = "import sys, popcomm; sys.exit('torch' in sys.modules)"
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


class TestPictures:
    def test_a_picture_shows_roles_answers_and_links(self) -> None:
        world = scripted([2, 1, 3], roles="swapping", num_agents=2, speaking=[[1, 0], [1, 0], [0, 1]])
        pictures = [world.render()]
        say(world, [0, 0], [0, 0])
        pictures.append(world.render())
        say(world, [0, 0], [1, 0])
        right = world.render()
        pictures += [right, world.render(links=torch.tensor([[0, 1]]))]
        for picture in pictures:
            assert picture.shape == (480, 480, 3)
            assert picture.dtype == np.uint8

        # Agents 0 and 1 sit left and right; the speaker is orange (#E69F00), the other blue (#56B4E9).
        def coloured(picture: np.ndarray, colour: tuple[int, int, int], columns: slice) -> int:
            return int((np.abs(picture[:340, columns].astype(int) - colour).sum(-1) < 12).sum())

        left, middle, edge = slice(0, 240), slice(150, 330), slice(380, 480)
        assert coloured(pictures[0], (230, 159, 0), left) > 100
        assert coloured(right, (230, 159, 0), left) == 0  # the third round's speaker is agent 1
        # Agent 1's answer was right: a green mark (#009E73) to its right, and none before it was given.
        assert coloured(pictures[1], (0, 158, 115), edge) == 0
        assert coloured(right, (0, 158, 115), edge) > 20
        assert (pictures[3][:340, middle] != right[:340, middle]).any()

    def test_every_row_of_an_episode_can_be_drawn(self) -> None:
        world = ReferentialWorld(2, task="pick", speakers=2, listeners=9, turns=2, rounds=1, attributes=4, values=6)
        step = world.reset(0)
        while step.alive.any():
            assert world.render(1).shape == (480, 480, 3)
            step = world.step(idle(world))
        assert world.render(1).shape == (480, 480, 3)

    def test_running_the_file_draws_a_round(self, tmp_path: Any, capsys: Any, monkeypatch: Any) -> None:
        file = tmp_path / "round.png"
        monkeypatch.setattr(sys, "argv", ["referential_v0", str(file)])
        monkeypatch.delitem(sys.modules, "popcomm.envs.referential_v0")  # as a program it is imported anew
        runpy.run_module("popcomm.envs.referential_v0", run_name="__main__")
        assert "a round of four agents; the meaning was" in capsys.readouterr().out
        with Image.open(file) as picture:
            assert picture.size == (480, 480)
