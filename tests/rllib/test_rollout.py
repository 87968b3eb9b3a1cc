"""What the env runner returns, and that the learner's unroll sees just what the env runner acted on."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from popcomm.channels.broadcast.air import Air
from popcomm.envs.testing import world_api_test
from popcomm.rllib import PopulationPPO, PopulationPPOConfig
from popcomm.rllib.env_runner import PopulationEnvRunner
from popcomm.rllib.fragment import WHOLE_NUMBERS, as_tensors, nbytes, packed, take_rows
from popcomm.rllib.fragment import parts_of as in_parts
from popcomm.rllib.fragment_writer import FragmentWriter
from popcomm.rllib.rows import Rows
from popcomm.rllib.shares import load_share
from popcomm.rllib.unroll import Unroller
from tests.rllib.worlds import BanditWorld, ClockWorld

SYMBOLS = {"kind": "symbols", "vocab_size": 5, "length": 2}
VECTORS = {"kind": "vectors", "size": 3, "std": 0.5}


def clock_config(**population: Any) -> PopulationPPOConfig:
    return (
        PopulationPPOConfig()
        .environment(ClockWorld, env_config=population.pop("env_config", {}))
        .communication(
            messages=population.pop("messages", SYMBOLS),
            topology={"kind": "full"},
            gradient=population.pop("gradient", "straight_through"),
            dropout=population.pop("dropout", 0.0),
            noise=population.pop("noise", 0.0),
            vocabulary=population.pop("vocabulary", None),
            credit=population.pop("credit", None),
            rounds=population.pop("rounds", 0),
        )
        .population(**population)
        .env_runners(num_worlds_per_env_runner=12, rollout_fragment_length=7)
        .debugging(seed=3)
    )


def runner_of(config: PopulationPPOConfig) -> PopulationEnvRunner:
    config.validate()
    return PopulationEnvRunner(config=config, worker_index=0)


def air_of(runner: PopulationEnvRunner) -> Air:
    """The log of the runner's worlds, and its reflexes."""
    session = runner.rollout.players.session
    assert session is not None
    assert session.air is not None
    return session.air


def population_of(config: PopulationPPOConfig, learners: Any, env_steps: int = 0, fades: Any = ()) -> Any:
    """What plays of a PopulationPPO (`Playable`), without Ray."""
    config.validate()
    algorithm = SimpleNamespace(config=config, learner_group=learners, env_steps=env_steps, fades=lambda: fades)
    algorithm.rollout = partial(PopulationPPO.rollout, algorithm)
    return algorithm


def fragments(runner: PopulationEnvRunner, times: int) -> list[dict[str, dict[str, np.ndarray]]]:
    return [{k: dict(v) for k, v in runner.sample().policy_batches.items()} for _ in range(times)]


def parts_of(batch: Any, key: str) -> np.ndarray:
    return next(iter(batch.policy_batches.values()))[key]


def test_the_worlds_of_these_tests_keep_the_contract() -> None:
    world_api_test(ClockWorld(6, death=2))
    world_api_test(ClockWorld(6, terminal=True))
    world_api_test(BanditWorld(4))


@pytest.mark.parametrize("agent", ["symbolic", "mlp"])
@pytest.mark.parametrize("members", [1, 3, 8])
@pytest.mark.parametrize("messages", [SYMBOLS, VECTORS, None])
def test_the_unroll_repeats_what_the_runner_did(agent: str, members: int, messages: Any) -> None:
    """At the weights that acted, the learner finds the log-probabilities that the runner wrote down, for seats that
    change hands in the middle of a fragment, deaths, two species, dropped messages and carried memories alike."""
    # Under reinforce the log-probabilities of messages are written down too; the unroll is the same.
    gradient = "through" if messages is VECTORS else "reinforce"
    config = clock_config(
        agent=agent, members=members, messages=messages, gradient=gradient, dropout=0.2, env_config={"death": 2}
    )
    runner = runner_of(config)
    for fragment in fragments(runner, 3):
        arrays = {name: as_tensors(a) for name, a in fragment.items()}
        networks = {name: runner.module[name] for name in arrays}
        seats = {name: s.seats for name, s in runner.layout.species.items()}
        unrolled = Unroller(networks, seats, config.message_kind, through=True).run(arrays)
        for name, run in unrolled.items():
            rows = Rows(arrays[name], run.places, members)
            mask = run.mask
            log_prob = runner.distributions[name].log_prob(run.outputs.action_logits, rows["actions"])
            torch.testing.assert_close(log_prob[mask], rows["action_logp"][mask], atol=1e-5, rtol=1e-5)
            value = networks[name].returns.denormalise(run.outputs.value)
            torch.testing.assert_close(value[mask], rows["values"][mask], atol=1e-5, rtol=1e-5)
            if messages is SYMBOLS:
                kind = config.message_kind
                said = kind.log_prob(run.outputs.message, rows.sent())
                torch.testing.assert_close(said[mask], rows["message_logp"][mask], atol=1e-5, rtol=1e-5)
            assert int(mask.sum()) == int(arrays[name]["alive"].sum())


@pytest.mark.parametrize("members", [1, 4])
def test_folding_time_into_rows_changes_nothing(members: int) -> None:
    config = clock_config(agent="mlp", members=members, gradient="reinforce")
    runner = runner_of(config)
    arrays = {name: as_tensors(a) for name, a in fragments(runner, 2)[-1].items()}
    networks = {name: runner.module[name] for name in arrays}
    seats = {name: s.seats for name, s in runner.layout.species.items()}
    unroller = Unroller(networks, seats, config.message_kind, through=False)
    for name in arrays:
        folded, stepped = unroller._folded(arrays)[name], unroller._step_by_step(arrays)[name]
        by_row = [_by_place(r, arrays[name], members) for r in (folded, stepped)]
        assert by_row[0].keys() == by_row[1].keys()
        for place, value in by_row[0].items():
            assert value.item() == pytest.approx(by_row[1][place].item(), abs=1e-6)


def _by_place(run: Any, arrays: dict[str, torch.Tensor], members: int) -> dict[int, torch.Tensor]:
    """{index into [B T N]: value} of the rows that were lived."""
    places = torch.arange(arrays["alive"].numel()).view_as(arrays["alive"])
    rows = Rows(arrays, run.places, members).gather(places)
    return {int(i): v for i, v in zip(rows[run.mask], run.outputs.value[run.mask], strict=True)}


def test_nothing_is_heard_across_the_start_of_an_episode_or_from_the_dead() -> None:
    runner = runner_of(clock_config(env_config={"death": 2}))
    for fragment in fragments(runner, 3):
        alive = np.concatenate([a["alive"] for a in fragment.values()], 2)
        for a in fragment.values():
            first = a["first"][:, :-1]
            assert not a["inbox_mask"][first].any()
            for t in range(1, a["alive"].shape[1]):
                spoke = np.take_along_axis(alive[:, t - 1, None, :], a["senders"][:, t], axis=2)
                assert not (a["inbox_mask"][:, t] & ~spoke).any()


def test_the_value_after_a_truncated_step_is_that_of_its_final_observation() -> None:
    """Episodes of three steps: row 3 is the final observation, at clock 3 of 5, and row 4 starts anew."""
    runner = runner_of(clock_config(env_config={"lengths": (3,)}))
    speaker = fragments(runner, 1)[0]["speaker"]
    np.testing.assert_allclose(speaker["obs"][:, :6, 0, 0], np.tile([0, 0.2, 0.4, 0.6, 0, 0.2], (12, 1)), atol=1e-6)
    assert speaker["truncated"][:, 2].all()
    assert not speaker["truncated"][:, [0, 1, 3, 4, 5]].any()
    assert not speaker["alive"][:, 3].any()
    assert speaker["first"][:, 4].all()


def test_a_population_meets_in_new_groups_when_episodes_start() -> None:
    runner = runner_of(clock_config(members=8, env_config={"lengths": (3,)}))
    members = fragments(runner, 1)[0]["speaker"]["members"]
    assert (members[:, 0] == members[:, 3]).all()
    assert (members[:, 0] != members[:, 4]).any()
    for t in range(members.shape[1]):
        assert (np.bincount(members[:, t].ravel(), minlength=8) == 12 * 2 / 8).all()


def test_fixed_seating_keeps_member_n_on_seat_n() -> None:
    runner = runner_of(clock_config(members=2, seating="fixed"))
    members = fragments(runner, 2)[-1]["listener"]["members"]
    assert (members == np.array([0, 1])).all()


def test_the_same_seed_samples_the_same_bits() -> None:
    one, two = (fragments(runner_of(clock_config(members=4)), 3) for _ in range(2))
    for a, b in zip(one, two, strict=True):
        for name in a:
            for key in a[name]:
                np.testing.assert_array_equal(a[name][key], b[name][key], err_msg=f"{name} {key}")


def test_steps_are_parted_into_as_many_as_are_worked_on_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("popcomm.rllib.fragment.AT_ONCE", 7)
    for rows, parts in ((1, 1), (3, 3), (100, 5)):
        slices = list(in_parts(5, rows))
        assert len(slices) == parts
        assert [step for part in slices for step in range(5)[part]] == list(range(5))


@pytest.mark.parametrize("messages", [None, {"kind": "symbols", "vocab_size": 8, "length": 2}])
def test_what_is_worked_on_in_parts_comes_out_as_the_whole(messages: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def played() -> tuple[list[Any], Any]:
        runner = runner_of(clock_config(agent="mlp", members=4, messages=messages))
        for _, module in runner.module.items():  # so that a unit of values is not one of returns
            module.returns.update(torch.tensor([[5.0] * 4, [1.0, -2.0, 0.0, 30.0], [4.0, 9.0, 0.25, 1.0]]).double())
        return fragments(runner, 2), runner.statistics.read_members()

    whole, counted = played()
    monkeypatch.setattr("popcomm.rllib.fragment.AT_ONCE", 50)
    parts, counted_in_parts = played()
    for a, b in zip(whole, parts, strict=True):
        for name in a:
            for key in a[name]:
                np.testing.assert_array_equal(a[name][key], b[name][key], err_msg=f"{name} {key}")
    assert counted
    np.testing.assert_equal(counted_in_parts, counted)


def test_a_run_state_continues_bit_for_bit() -> None:
    runner = runner_of(clock_config(members=4, env_config={"death": 2}))
    fragments(runner, 2)
    state = runner.run_state()
    expected = fragments(runner, 2)
    other = runner_of(clock_config(members=4, env_config={"death": 2}))
    other.set_run_state(state)
    for a, b in zip(expected, fragments(other, 2), strict=True):
        for name in a:
            for key in a[name]:
                np.testing.assert_array_equal(a[name][key], b[name][key], err_msg=f"{name} {key}")


def test_take_rows_joins_batches_along_the_worlds() -> None:
    runner = runner_of(clock_config())
    batches = [runner.sample(), runner.sample()]
    whole = take_rows(batches, 0, 24)["speaker"]["obs"]
    np.testing.assert_array_equal(take_rows(batches, 9, 15)["speaker"]["obs"], whole[9:15])
    np.testing.assert_array_equal(whole[12:], batches[1].policy_batches["speaker"]["obs"])
    parts = list(batches[0].policy_batches.values())
    # The worlds' state is in both species' batches, and there only once.
    assert parts[0]["world_state"] is parts[1]["world_state"]
    once = sum(a.nbytes for part in parts for a in part.values()) - parts[0]["world_state"].nbytes
    assert nbytes(batches[0]) == once
    shares = take_rows(batches, 9, 15)
    assert shares["speaker"]["world_state"] is shares["listener"]["world_state"]
    np.testing.assert_array_equal(shares["speaker"]["world_state"][3:], parts_of(batches[1], "world_state")[:3])


@pytest.mark.parametrize("messages", [SYMBOLS, {"kind": "vectors", "size": 3}, {"kind": "words", "bits": 12}])
def test_what_travels_in_few_bytes_arrives_as_it_was(messages: Any) -> None:
    runner = runner_of(clock_config(messages=messages))
    batch = runner.sample()
    small = packed(batch)
    for name, part in small.policy_batches.items():
        assert not {key for key in WHOLE_NUMBERS if key in part and part[key].dtype == np.int64}, name
    assert nbytes(small) < nbytes(batch)
    there, here = (load_share([b], [runner.num_worlds], 0, 1, 1, "cpu") for b in (small, batch))
    for name, arrays in here.items():
        assert arrays.keys() == there[name].keys()
        for key, values in arrays.items():
            torch.testing.assert_close(there[name][key], values, rtol=0, atol=0)  # their types, too


@pytest.mark.parametrize("settings", [{}, {"noise": 0.5}, {"rounds": 2}])
def test_what_is_filled_in_the_memory_of_another_device_arrives_in_the_arrays(
    settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy of all arrays stands for the GPU's memory; it is fetched once a fragment."""
    here = fragments(runner_of(clock_config(**settings)), 2)
    fetched: list[Any] = []
    fetch, to = FragmentWriter._fetch, torch.Tensor.to
    monkeypatch.setattr("popcomm.rllib.fragment_writer.same_memory", lambda device: False)
    monkeypatch.setattr(FragmentWriter, "_fetch", lambda writer: fetched.append(writer) or fetch(writer))

    def moved(values: Any, *where: Any, **kwargs: Any) -> Any:
        return values.clone() if isinstance(where[0], torch.device) else to(values, *where, **kwargs)

    monkeypatch.setattr(torch.Tensor, "to", moved)
    there = fragments(runner_of(clock_config(**settings)), 2)
    assert len(fetched) == 2
    for one, other in zip(here, there, strict=True):
        for name, arrays in one.items():
            assert arrays.keys() == other[name].keys()
            for key, values in arrays.items():
                np.testing.assert_array_equal(other[name][key], values, err_msg=key)


def test_numbers_that_need_more_than_two_bytes_keep_theirs() -> None:
    runner = runner_of(clock_config())
    batch = runner.sample()
    batch.policy_batches["speaker"]["members"][0, 0, 0] = 2**15
    assert packed(batch).policy_batches["speaker"]["members"].dtype == np.int64


def test_noise_keeps_what_was_sent_beside_what_was_heard() -> None:
    runner = runner_of(clock_config(noise=0.5))
    speaker = fragments(runner, 1)[0]["speaker"]
    changed = speaker["sent"] != speaker["messages"][:, 1:]
    # A symbol is replaced with probability 0.5, by itself with probability 1/5: 0.4 differ.
    assert 0.3 < changed.mean() < 0.5
