"""A user's callbacks: which hooks are called with what, which are refused, and that nobody else pays for them."""

from __future__ import annotations

import copy
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from ray.rllib.callbacks.callbacks import RLlibCallback

from popcomm.cli import schema
from popcomm.errors import UserError
from popcomm.language import progress
from popcomm.rllib import PopulationPPOConfig
from popcomm.rllib.callbacks import HOOKS, NEVER_CALLED
from popcomm.rllib.recording import logged_by_callbacks
from tests.rllib.test_rollout import SYMBOLS, clock_config, runner_of


class Diary(RLlibCallback):
    """Writes down what the hooks of episodes say, in the order of the calls."""

    lines: ClassVar[list[tuple[Any, ...]]] = []

    def on_environment_created(self, *, env: Any, env_context: Any, **kwargs: Any) -> None:
        Diary.lines.append(("environment", env.num_worlds, env_context["lengths"], env_context.worker_index))

    def on_episode_created(self, *, episode: Any, env_index: int, **kwargs: Any) -> None:
        episode.custom_data["rewards"] = 0.0
        Diary.lines.append(("created", env_index, len(episode)))

    def on_episode_start(self, *, episode: Any, env_index: int, **kwargs: Any) -> None:
        seen = episode.get_observations(-1)
        Diary.lines.append(("start", env_index, sorted(seen), episode.get_actions(), episode.is_done))

    def on_episode_step(self, *, episode: Any, env_index: int, **kwargs: Any) -> None:
        episode.custom_data["rewards"] += sum(episode.get_rewards(-1).values())

    def on_episode_end(self, *, episode: Any, env_index: int, metrics_logger: Any, **kwargs: Any) -> None:
        earned = episode.custom_data["rewards"]
        Diary.lines.append(("end", env_index, len(episode), episode.get_return() - earned, episode.is_truncated))
        metrics_logger.log_value("ends", 1, reduce="sum")

    def on_sample_end(self, *, samples: Any, env_runner: Any, **kwargs: Any) -> None:
        Diary.lines.append(("sample", samples.env_steps(), env_runner.worker_index))


@pytest.fixture
def lines() -> list[tuple[Any, ...]]:
    Diary.lines = []
    return Diary.lines


def diary_config(**changes: Any) -> Any:
    """Two worlds, of episodes of 3 and of 5 steps; 7 rows of a fragment."""
    config = clock_config(agent="mlp", members=2, env_config={"lengths": (3, 5), **changes})
    return config.env_runners(num_worlds_per_env_runner=2).callbacks(Diary)


def test_hooks_are_called_as_episodes_go_by(lines: list[tuple[Any, ...]]) -> None:
    """Row 3 of the first world and row 5 of the second only start them over."""
    runner = runner_of(diary_config())
    seats = sorted(runner.layout.agents)
    runner.sample()
    opened = [("created", 0, 0), ("start", 0, seats, {}, False)]
    other = [("created", 1, 0), ("start", 1, seats, {}, False)]
    assert lines == [
        ("environment", 2, (3, 5), 0),
        ("created", 0, 0),
        ("created", 1, 0),
        opened[1],
        other[1],
        ("end", 0, 3, 0.0, True),
        *opened,
        ("end", 1, 5, 0.0, True),
        *other,
        ("end", 0, 3, 0.0, True),
        ("sample", 12, 0),
    ]
    assert runner.get_metrics()["ends"].peek() == 3


def test_an_episode_has_the_last_step_of_its_world(lines: list[tuple[Any, ...]]) -> None:
    """Against the fragment; the last seat dies in step 2, when it still acts, and sees the end of its life."""
    told: list[tuple[Any, ...]] = []

    def look(episode: Any, env_index: int, **kwargs: Any) -> None:
        parts = (episode.get_observations(-1), episode.get_actions(-1), episode.get_rewards(-1))
        more = (episode.get_messages(), episode.get_members(), episode.get_returns())
        told.append((env_index, len(episode), *copy.deepcopy(parts), *more))

    runner = runner_of(diary_config(death=2).callbacks(RLlibCallback, on_episode_step=look))
    batch = runner.sample().policy_batches
    for b, t, seen, actions, rewards, said, members, returns in [line for line in told if line[1] <= 3][:6]:
        speaker, listener = batch["speaker"], batch["listener"]
        np.testing.assert_array_equal(seen["speaker_1"], speaker["obs"][b, t, 1])
        assert actions["speaker_0"] == speaker["actions"][b, t - 1, 0]
        assert rewards["listener_0"] == listener["rewards"][b, t - 1, 0]
        np.testing.assert_array_equal(said["speaker_1"], speaker["messages"][b, t, 1])
        assert members["listener_1"] == listener["members"][b, t - 1, 1]
        assert returns["speaker_1"] == speaker["rewards"][b, :t, 1].sum()
        assert ("listener_1" in actions) == ("listener_1" in seen) == (t <= 2)


def test_an_episode_says_what_it_has_where_it_is_asked_for_more(lines: list[tuple[Any, ...]]) -> None:
    runner = runner_of(diary_config())
    runner.sample()
    assert runner.sampler.episodes is not None
    episode = runner.sampler.episodes.running[0]
    assert episode.module_for("listener_1") == "listener"
    with pytest.raises(AttributeError, match=r"has no 'get_infos'; it has: .*custom_data.*get_messages"):
        episode.get_infos()
    with pytest.raises(ValueError, match="last step only: index -1, not -2"):
        episode.get_rewards(-2)


def test_nobody_follows_episodes_that_nobody_asks_for() -> None:
    class Results(RLlibCallback):
        def on_train_result(self, **kwargs: Any) -> None: ...

    for config in (clock_config(agent="mlp"), clock_config(agent="mlp").callbacks(Results)):
        runner = runner_of(config)
        assert runner.sampler.episodes is None
        assert not runner.callbacks.wanted


def test_hooks_leave_the_fragment_as_it_is(lines: list[tuple[Any, ...]]) -> None:
    with_hooks, without = runner_of(diary_config()), runner_of(diary_config().callbacks(RLlibCallback))
    for _ in range(2):
        one, other = with_hooks.sample().policy_batches, without.sample().policy_batches
        for name in one:
            for key in one[name]:
                np.testing.assert_array_equal(one[name][key], other[name][key])


def test_several_classes_and_functions_are_called_in_order() -> None:
    called: list[str] = []

    class One(RLlibCallback):
        def on_sample_end(self, **kwargs: Any) -> None:
            called.append("one")

    class Two(One):
        def on_sample_end(self, **kwargs: Any) -> None:
            called.append("two")

    def three(**kwargs: Any) -> None:
        called.append("three")

    config = clock_config(agent="mlp").callbacks([One, partial(Two)], on_sample_end=[three, three])
    runner_of(config).sample()
    assert called == ["one", "two", "three", "three"]


def test_an_episode_goes_on_after_a_restore(lines: list[tuple[Any, ...]]) -> None:
    """Seven rows end in the middle of episodes; what they earned and the user's data go with the checkpoint."""
    straight, restored = runner_of(diary_config()), runner_of(diary_config())
    straight.sample()
    state = straight.run_state()
    lines.clear()
    straight.sample()
    expected = lines.copy()
    assert any(line[0] == "end" for line in expected)
    lines.clear()
    restored.set_run_state(state)
    assert lines == []
    restored.sample()
    assert lines == expected


def test_what_no_checkpoint_can_hold_is_started_again(
    lines: list[tuple[Any, ...]], caplog: pytest.LogCaptureFixture
) -> None:
    def hold(episode: Any, **kwargs: Any) -> None:
        episode.custom_data["open"] = (number for number in range(3))

    straight = runner_of(diary_config().callbacks(Diary, on_episode_start=hold))
    straight.sample()
    state = straight.run_state()
    assert "custom_data of an episode is not in the checkpoint" in caplog.text
    restored = runner_of(diary_config())
    lines.clear()
    restored.set_run_state(state)
    # The first world is between two episodes: its third ended in the last row.
    assert [line[:2] for line in lines] == [("created", 1), ("start", 1)]


@pytest.mark.parametrize("hook", NEVER_CALLED)
def test_hooks_that_are_never_called_are_refused_by_name(hook: str) -> None:
    mine = type("Mine", (RLlibCallback,), {hook: lambda self, **kwargs: None})
    with pytest.raises(UserError, match=f"callbacks_class Mine has {hook}, which is never called here; "):
        clock_config(agent="mlp").callbacks([RLlibCallback, mine]).validate()
    if hasattr(clock_config(), f"callbacks_{hook}"):
        with pytest.raises(UserError, match=rf"callbacks\.{hook} is set, and is never called here; "):
            clock_config(agent="mlp").callbacks(**{hook: print}).validate()


def test_a_hook_that_does_not_exist_is_told_with_the_nearest_one() -> None:
    mine = type("Mine", (RLlibCallback,), {"on_episode_ends": lambda self, **kwargs: None})
    with pytest.raises(UserError, match=r"Mine has on_episode_ends, which is no hook of RLlib; .*'on_episode_end'"):
        clock_config(agent="mlp").callbacks(mine).validate()


def test_every_hook_of_rllib_is_either_called_or_refused() -> None:
    hooks = {name for name in vars(RLlibCallback) if name.startswith("on_")}
    assert hooks == {*HOOKS, *NEVER_CALLED}
    assert not {*HOOKS} & {*NEVER_CALLED}


def test_numbers_of_callbacks_are_told_by_their_path_in_the_result() -> None:
    result = {
        "env_runners": {"falls": np.float64(2.0), "by": {"seat": {"a": 1}}, "reward_mean": 0.5, "told": "a text"},
        "learners": {"swarm": {"vf_loss": 1.0}},
        "mine": 3,
        "training_iteration": 4,
    }
    assert logged_by_callbacks(result) == {"env_runners/falls": 2.0, "env_runners/by/seat/a": 1.0, "mine": 3.0}


class Logs(RLlibCallback):
    """Logs where it can."""

    def on_algorithm_init(self, *, metrics_logger: Any, **kwargs: Any) -> None:
        metrics_logger.log_value("began", 7.0)

    def on_episode_end(self, *, episode: Any, metrics_logger: Any, **kwargs: Any) -> None:
        metrics_logger.log_value(("episodes", "longest"), len(episode), reduce="max")

    def on_train_result(self, *, result: dict[str, Any], metrics_logger: Any, **kwargs: Any) -> None:
        assert result["popcomm"]["charts/reward"] is not None
        result["twice"] = {"iteration": 2 * result["training_iteration"]}
        metrics_logger.log_value("later", result["training_iteration"])

    def on_evaluate_start(self, *, algorithm: Any, **kwargs: Any) -> None:
        algorithm.evaluations = getattr(algorithm, "evaluations", 0) + 1

    def on_evaluate_end(self, *, evaluation_metrics: dict[str, Any], algorithm: Any, **kwargs: Any) -> None:
        evaluation_metrics["number"] = algorithm.evaluations
        evaluation_metrics["env_runners"]["half"] = evaluation_metrics["env_runners"]["num_episodes"] / 2

    def on_checkpoint_loaded(self, *, algorithm: Any, **kwargs: Any) -> None:
        algorithm.loaded = algorithm.iteration


@pytest.mark.system
@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize("runners", [0, 2])
def test_what_callbacks_log_arrives_in_results_progress_and_tensorboard(tmp_path: Path, runners: int) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = clock_config(agent="mlp", messages=SYMBOLS).callbacks(Logs).env_runners(num_env_runners=runners)
    config.recording(run_dir=str(tmp_path / "run"), picture_every=0)
    config.evaluation(evaluation_interval=1, evaluation_duration=2)
    algorithm = config.build_algo()
    try:
        results = [algorithm.train() for _ in range(2)]
        saved = algorithm.save_to_path(tmp_path / "saved")
        assert not hasattr(algorithm, "loaded")
        algorithm.restore_from_path(saved)
        assert algorithm.loaded == 2
        algorithm.load_checkpoint(saved)
    finally:
        algorithm.stop()
    assert results[0]["env_runners"]["episodes"]["longest"] == 5
    assert results[1]["twice"]["iteration"] == 4
    lines = progress.read(tmp_path / "run/progress.jsonl")
    assert lines["env_runners/episodes/longest"].tolist() == [5, 5]
    assert lines["twice/iteration"].tolist() == [2, 4]
    assert lines["began"][0] == 7.0
    assert lines["later"][1] == 1.0
    own = {"env_runners/episodes/longest", "twice/iteration", "began", "later"}
    own |= {"evaluation/number", "evaluation/env_runners/half"}
    assert {name for name in lines if name.partition("/")[0] not in GROUPS} - POPCOMMS == own
    assert lines["evaluation/number"].tolist() == [1, 2]
    assert lines["evaluation/env_runners/half"].tolist() == [1, 1]
    board = EventAccumulator(str(tmp_path / "run/tensorboard")).Reload()
    assert own <= set(board.Tags()["scalars"])
    assert [event.value for event in board.Scalars("twice/iteration")] == [2, 4]


POPCOMMS = {f"evaluation/episodic_{name}" for name in ("return", "return_low", "return_high", "length")}
GROUPS = (
    "charts",
    "losses",
    "schedules",
    "language",
    "world",
    "channel",
    "env_steps",
    "agent_steps",
    "time_s",
    "iteration",
)


def test_the_callback_of_the_page_counts_messages_and_a_yaml_can_name_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (Path(__file__).parents[2] / "docs/rllib.md").read_text()
    (tmp_path / "my_talk.py").write_text(page.split("```python\n")[1].split("```")[0])
    monkeypatch.syspath_prepend(tmp_path)
    document = {"environment": {"env": "swarm_v0"}, "callbacks": {"callbacks_class": "my_talk:Talk"}}
    named = schema.apply(document, PopulationPPOConfig()).callbacks_class
    assert named.__name__ == "Talk"
    runner = runner_of(clock_config(agent="mlp").callbacks(named))
    runner.sample()
    # Four seats, of which all speak in every step.
    assert runner.get_metrics()["messages_per_step"].peek() == runner.layout.num_agents
