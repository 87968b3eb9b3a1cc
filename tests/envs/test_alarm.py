"""AlarmWorld against events worked out on paper, and the expected rewards of troops that follow a script."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from pettingzoo.test import api_test, parallel_api_test
from PIL import Image
from torch import Tensor

from popcomm import envs
from popcomm.envs import WORLDS, alarm_v0
from popcomm.envs.alarm_references import phase_shares, references
from popcomm.envs.alarm_v0 import AlarmWorld
from popcomm.envs.testing import world_api_test
from popcomm.envs.world import WorldStep
from popcomm.errors import UserError


def act(world: AlarmWorld, *actions: int, spoken: list[float] | None = None) -> WorldStep:
    return world.step({"monkey": torch.tensor([actions])}, None if spoken is None else torch.tensor([spoken]))


def attacked(kind: int = 2, running: int = 1, watching: tuple[int, ...] = (0,), **kwargs: Any) -> AlarmWorld:
    """One world of four agents in an event that is where the test wants it."""
    world = AlarmWorld(1, **{"num_agents": 4, "watchers": len(watching), "reward_share": 0.0, **kwargs})
    world.reset(0)
    state = world.get_state()
    state["kind"], state["running"] = torch.tensor([kind]), torch.tensor([running])
    state["watching"] = torch.zeros(1, 4, dtype=torch.bool)
    state["watching"][0, list(watching)] = True
    world.set_state(state)
    return world


def trial(world: AlarmWorld, steps: int, seed: int = 3) -> list[WorldStep]:
    """Rows under foraging."""
    rows = [world.reset(seed)]
    idle = torch.zeros(world.num_worlds, world.num_agents, dtype=torch.int64)
    for _ in range(steps):
        rows.append(world.step({"monkey": idle}))
    return rows


class TestContract:
    @pytest.mark.parametrize(
        "options",
        [
            {},
            {"stagger": True, "message_cost": 0.1, "event_rate": 1.0},
            {"kinds": 2, "duration": 1, "watchers": 4, "episode_length": 1, "reward_share": 1.0},
            {"duration": 6, "glimpse": 6},
        ],
    )
    def test_it_keeps_the_contract_of_worlds(self, options: dict[str, Any]) -> None:
        world_api_test(AlarmWorld(3, **{"num_agents": 4, "episode_length": 9, **options}), num_steps=40)

    def test_pettingzoo_accepts_it(self) -> None:
        parallel_api_test(alarm_v0.parallel_env(num_agents=3, episode_length=20), num_cycles=60)
        api_test(alarm_v0.env(num_agents=3, episode_length=20), num_cycles=60)

    def test_it_is_known_by_name(self) -> None:
        assert WORLDS["alarm_v0"] is AlarmWorld
        assert envs.alarm_v0 is alarm_v0
        assert {"alarm_v0"} <= set(dir(envs))

    def test_a_pickled_world_has_the_same_future(self) -> None:
        world = AlarmWorld(4, num_agents=3)
        trial(world, 10)
        twins = [world, pickle.loads(pickle.dumps(world)), copy.deepcopy(world)]
        flee = {"monkey": torch.ones(4, 3, dtype=torch.int64)}
        futures = [[twin.step(flee).observations["monkey"] for _ in range(20)] for twin in twins]
        for future in futures[1:]:
            assert all(torch.equal(a, b) for a, b in zip(futures[0], future, strict=True))

    def test_another_seed_gives_other_events(self) -> None:
        states = [torch.stack([row.state for row in trial(AlarmWorld(4), 40, seed)]) for seed in (1, 1, 2)]
        assert torch.equal(states[0], states[1])
        assert not torch.equal(states[0], states[2])

    def test_asking_for_metrics_and_pictures_changes_nothing(self) -> None:
        quiet, asked = AlarmWorld(2), AlarmWorld(2)
        rows = trial(quiet, 30)
        asked.reset(3)
        for row in rows[1:]:
            asked.metrics()
            asked.render()
            assert torch.equal(
                asked.step({"monkey": torch.zeros(2, 10, dtype=torch.int64)}).observations["monkey"],
                row.observations["monkey"],
            )


class TestEvents:
    def test_an_event_is_seen_by_its_watchers_in_its_glimpse_alone(self) -> None:
        world = attacked(kind=2, watching=(1, 3), duration=3, glimpse=2, episode_length=64)
        rows = [act(world, 0, 0, 0, 0) for _ in range(3)]
        seen = [-1, 2, -1, 2]
        assert rows[0].labels.tolist() == [seen]  # its second step
        assert rows[1].labels.tolist() == [[-1] * 4]  # its third
        observation = rows[0].observations["monkey"][0]
        assert observation[1].tolist() == [0, 0, 1, 0, 0, 1, 1]
        assert observation[0].tolist() == [0, 0, 0, 0, 0, 0, 1]
        assert [row.state[0].tolist() for row in rows[:2]] == [
            [0, 0, 1, 0, 0, pytest.approx(2 / 3)],
            [0, 0, 1, 0, 0, pytest.approx(1 / 3)],
        ]
        assert rows[2].state.tolist() == [[0.0] * 6]  # calm follows an event, at any rate

    def test_events_last_as_long_as_they_should_and_calm_comes_between(self) -> None:
        rows = trial(AlarmWorld(1, duration=3, event_rate=1.0, episode_length=100), 20)
        running = [bool(row.state.any()) for row in rows]
        assert running == [t % 4 != 0 for t in range(21)]
        left = [row.state[0, -1].item() for row in rows[:5]]
        assert left == pytest.approx([0, 1, 2 / 3, 1 / 3, 0])

    def test_pauses_are_geometric(self) -> None:
        rate, worlds = 0.25, 400
        rows = trial(AlarmWorld(worlds, duration=1, event_rate=rate, episode_length=1000), 200)
        event = torch.stack([row.state.any(-1) for row in rows])
        # From calm an event begins with the rate, whatever was before.
        begins = event[1:][~event[:-1]]
        error = (rate * (1 - rate) / len(begins)) ** 0.5
        assert begins.float().mean().item() == pytest.approx(rate, abs=4 * error)
        assert not event[1:][event[:-1]].any()

    def test_kinds_and_watchers_are_even_and_drawn_anew(self) -> None:
        rows = trial(AlarmWorld(300, num_agents=5, kinds=3, watchers=2, duration=1, event_rate=1.0), 60)
        labels = torch.cat([row.labels for row in rows])
        seen = labels[(labels >= 0).any(-1)]
        assert ((seen >= 0).sum(-1) == 2).all()
        events = len(seen)
        assert events > 8000
        kinds = torch.bincount(seen.max(-1).values, minlength=3) / events
        assert kinds.tolist() == pytest.approx([1 / 3] * 3, abs=4 * (2 / 9 / events) ** 0.5)
        pairs = torch.bincount(((seen >= 0) * 2 ** torch.arange(5)).sum(-1), minlength=32) / events
        chosen = [p for p in pairs.tolist() if p]
        assert chosen == pytest.approx([1 / 10] * 10, abs=4.5 * (0.09 / events) ** 0.5)

    def test_both_watchers_see_the_same_kind(self) -> None:
        labels = torch.cat([row.labels for row in trial(AlarmWorld(50), 60)])
        seen = labels[(labels >= 0).any(-1)]
        assert torch.equal(seen.max(-1).values * 2, seen.clamp(min=0).sum(-1))

    def test_an_episode_is_cut_for_all_and_the_next_opens_in_calm(self) -> None:
        rows = trial(AlarmWorld(2, num_agents=3, event_rate=1.0, episode_length=6), 14)
        assert [bool(row.truncated.all()) for row in rows] == [t in (6, 13) for t in range(15)]
        assert [bool(row.first.all()) for row in rows] == [t in (0, 7, 14) for t in range(15)]
        assert not rows[7].state.any()
        assert not rows[7].rewards.any()

    def test_staggered_worlds_end_at_different_times(self) -> None:
        rows = trial(AlarmWorld(64, num_agents=2, episode_length=16, stagger=True), 16)
        ends = torch.stack([row.truncated[:, 0] for row in rows])
        assert (ends.sum(0) == 1).all()
        assert ends.any(1).sum() > 8


class TestRewards:
    def test_the_fitting_flight_pays_another_costs_and_foraging_is_nothing_in_an_event(self) -> None:
        step = act(attacked(kind=2, flight_reward=2.0, wrong_penalty=0.5), 3, 0, 1, 5)
        assert step.rewards.tolist() == [[2.0, 0.0, -0.5, -0.5]]

    def test_in_calm_foraging_pays_and_any_flight_costs(self) -> None:
        world = AlarmWorld(1, num_agents=4, reward_share=0.0, forage_reward=0.25, alarm_penalty=0.125)
        world.reset(0)
        assert act(world, 0, 1, 3, 5).rewards.tolist() == [[0.25, -0.125, -0.125, -0.125]]

    @pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
    def test_rewards_mix_own_and_mean_and_talk_costs_its_speaker(self, share: float) -> None:
        world = attacked(kind=0, reward_share=share, message_cost=0.5)
        step = act(world, 1, 1, 0, 0, spoken=[1.0, 0.0, 0.0, 2.0])
        own = torch.tensor([0.5, 1.0, 0.0, -1.0])
        torch.testing.assert_close(step.rewards[0], (1 - share) * own + share * own.mean())

    def test_talk_is_free_by_default(self) -> None:
        silent, loud = act(attacked(), 0, 0, 0, 0), act(attacked(), 0, 0, 0, 0, spoken=[9.0] * 4)
        assert torch.equal(silent.rewards, loud.rewards)

    def test_a_watcher_gains_by_telling_what_the_class_says(self) -> None:
        world = attacked(kind=0, num_agents=4, reward_share=0.5)
        told, untold = act(world, 1, 1, 1, 1).rewards[0, 0], act(attacked(kind=0, reward_share=0.5), 1, 0, 0, 0)
        assert (told - untold.rewards[0, 0]).item() == pytest.approx(0.5 * 3 / 4)

    def test_metrics_count_answers_in_events_and_flights_in_calm_once(self) -> None:
        world = attacked(kind=1, running=1, duration=2)
        act(world, 2, 2, 2, 0)
        act(world, 2, 1, 0, 0)
        act(world, 0, 0, 0, 4)
        assert world.metrics() == {"informed": 4 / 8, "false_alarms": 1 / 4}
        assert world.metrics() == {}

    def test_actions_in_a_row_that_only_starts_over_are_not_counted(self) -> None:
        world = AlarmWorld(1, num_agents=2, watchers=1, episode_length=1)
        world.reset(0)
        act(world, 0, 0)
        act(world, 1, 1)
        assert world.metrics() == {"false_alarms": 0.0}


def played(world: AlarmWorld, policy: Any, seed: int = 5) -> tuple[float, float]:
    """Mean reward per agent-step of one episode of every world, and its standard error."""
    last, rows = world.reset(seed), []
    heard = torch.full((world.num_worlds, world.num_agents), -1)
    for _ in range(world.episode_length):
        chosen, heard = policy(last, heard)
        last = world.step({"monkey": chosen})
        rows.append(last.rewards.mean(-1))
    means = torch.stack(rows).mean(0)
    return means.mean().item(), (means.std() / world.num_worlds**0.5).item()


def forage(row: WorldStep, heard: Tensor) -> tuple[Tensor, Tensor]:
    return torch.zeros_like(heard), heard


def flee(row: WorldStep, heard: Tensor) -> tuple[Tensor, Tensor]:
    return torch.full_like(heard, 2), heard


def watch(row: WorldStep, heard: Tensor) -> tuple[Tensor, Tensor]:
    return row.labels + 1, heard


def hear(row: WorldStep, heard: Tensor) -> tuple[Tensor, Tensor]:
    """What anyone saw a step before is known, and what one sees."""
    told = row.labels.max(-1, keepdim=True).values.expand_as(heard)
    return torch.maximum(row.labels, heard) + 1, told


def tell(row: WorldStep, heard: Tensor) -> tuple[Tensor, Tensor]:
    """As `hear`, and remembered until the event is over: the state says how long that is."""
    kept = torch.where(row.state[:, -1:] > 0, heard, -1)
    told = row.labels.max(-1, keepdim=True).values.expand_as(heard)
    return torch.maximum(row.labels, kept) + 1, torch.maximum(told, kept)


class TestReferences:
    @pytest.mark.parametrize(
        ("name", "policy"), [("forage", forage), ("flee", flee), ("watch", watch), ("hear", hear), ("told", tell)]
    )
    @pytest.mark.parametrize("options", [{}, {"duration": 5, "glimpse": 2, "event_rate": 0.3, "reward_share": 0.0}])
    def test_scripted_troops_earn_what_is_expected(self, name: str, policy: Any, options: dict[str, Any]) -> None:
        world = AlarmWorld(600, **options)
        mean, error = played(world, policy)
        assert 0 < error < 0.01
        assert mean == pytest.approx(getattr(references(world), name), abs=4 * error)

    def test_in_long_episodes_they_are_the_closed_forms_of_the_class(self) -> None:
        told = references(AlarmWorld(episode_length=30_000))
        # A third of the steps is calm, and each of an event's four steps has a sixth.
        exact = {
            "forage": 1 / 12,
            "flee": -1 / 12,
            "watch": 1 / 12 + 0.2 / 6,
            "hear": 1 / 12 + 1.2 / 6,
            "told": 1 / 12 + 3.2 / 6,
        }
        assert told._asdict() == pytest.approx(exact, abs=1e-4)

    def test_shares_of_phases_of_a_short_episode_by_hand(self) -> None:
        # Calm; calm or first, evenly; calm 1/4, first 1/4, second 1/2.
        assert phase_shares(2, 0.5, 3) == pytest.approx(np.array([1.75, 0.75, 0.5]) / 3)
        assert phase_shares(3, 0.2, 1).tolist() == [1, 0, 0, 0]

    def test_shares_of_phases_come_to_those_of_the_renewal_theorem(self) -> None:
        shares = phase_shares(4, 0.3, 20_000)
        assert shares == pytest.approx(np.array([1, 0.3, 0.3, 0.3, 0.3]) / 2.2, abs=1e-3)


class TestMistakes:
    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"kinds": 1}, "kinds is 1, and must be a whole number of at least 2"),
            ({"duration": 2.5}, "duration is 2.5, and must be a whole number"),
            ({"episode_length": True}, "episode_length is True"),
            ({"watchers": 11}, "watchers is 11, and must be at most num_agents = 10"),
            ({"glimpse": 5}, "glimpse is 5, and must be at most duration = 4"),
            ({"event_rate": 0.0}, "event_rate is 0.0, and must be above 0 and at most 1"),
            ({"reward_share": 1.5}, "reward_share is 1.5, and must lie in"),
            ({"alarm_penalty": -1.0}, "alarm_penalty is -1.0, and must be a number that is not negative"),
            ({"forage_reward": "much"}, "forage_reward is 'much'"),
        ],
    )
    def test_values_out_of_range_are_told_in_the_users_words(self, options: dict[str, Any], words: str) -> None:
        with pytest.raises(UserError, match=f"alarm_v0: {words}"):
            AlarmWorld(**options)

    def test_it_must_be_reset_first(self) -> None:
        for use in (lambda w: act(w, *[0] * 10), AlarmWorld.get_state, AlarmWorld.render):
            with pytest.raises(UserError, match="reset"):
                use(AlarmWorld())

    def test_actions_of_another_shape_are_refused(self) -> None:
        world = AlarmWorld(2)
        world.reset(0)
        with pytest.raises(UserError, match=r"shape \(1, 4\), and must have \(2, 10\)"):
            act(world, 0, 0, 0, 0)


class TestPictures:
    def test_a_picture_shows_what_changes(self) -> None:
        calm = AlarmWorld(1, num_agents=4)
        calm.reset(0)
        event = attacked(kind=2)
        before = event.render()
        assert before.shape == (480, 480, 3)
        assert before.dtype == np.uint8
        assert not np.array_equal(before, calm.render())
        assert not np.array_equal(before, event.render(links=torch.tensor([[0, 1]])))
        act(event, 3, 0, 0, 0)
        assert not np.array_equal(before, event.render())

    def test_running_the_module_draws_an_event(self, tmp_path: Any) -> None:
        file = tmp_path / "event.png"
        run = subprocess.run(
            [sys.executable, "-m", "popcomm.envs.alarm_v0", str(file)], capture_output=True, text=True, check=True
        )
        assert Image.open(file).size == (480, 480)
        assert "saw a predator of kind" in run.stdout
