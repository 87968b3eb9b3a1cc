"""Sweeps before and after the training: what a search space is, the exact sentence for each mistake, the table."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from ray.exceptions import RayTaskError

from popcomm.cli import main as cli
from popcomm.cli import schema, sweep, sweep_table, sweep_trials
from popcomm.cli.search_space import Search, Space, search, with_parameters
from popcomm.cli.train import checked_config
from popcomm.errors import UserError
from popcomm.language import progress

DOCUMENT = {
    "environment": {"env": "swarm_v0", "env_config": {"num_agents": 4}},
    "communication": {"messages": {"kind": "symbols", "vocab_size": 8, "length": 2}},
    "population": {"agent": "symbolic"},
    "env_runners": {"num_worlds_per_env_runner": 4},
    "stop": {"training_iteration": 1},
}
WIDTH = "population.agent_config.hidden_dim"


def searched(**tune: Any) -> Search:
    return search({"tune": {"param_space": {"training.lr": {"uniform": [0.1, 0.2]}}, **tune}})


def mistake(**tune: Any) -> str:
    with pytest.raises(UserError) as caught:
        searched(**tune)
    return str(caught.value)


# ---- search spaces ----


def test_points_are_the_whole_grid_and_both_ends_of_every_range() -> None:
    found = searched(
        param_space={
            "a.x": {"grid_search": [1, 2]},
            "a.y": {"grid_search": ["p", "q"]},
            "a.z": {"uniform": [0, 1]},
            "a.n": {"randint": [3, 9]},
        }
    )
    points = [tuple(point[key] for key in ("a.x", "a.y", "a.z", "a.n")) for point in found.points()]
    assert points[:4] == [(1, "p", 0, 3), (1, "q", 0, 3), (2, "p", 0, 3), (2, "q", 0, 3)]
    # The upper end of randint is none of its values.
    assert set(points[4:]) == {(1, "p", 1, 3), (1, "p", 0, 8)}


def test_a_sweep_has_the_points_of_its_grid_times_its_samples() -> None:
    space = {"a.x": {"grid_search": [1, 2, 3]}, "a.y": {"choice": [1, 2]}, "a.z": {"grid_search": [1, 2]}}
    assert searched(param_space=space, num_samples=5).num_trials == 30


def test_spaces_become_tunes_of_the_same_name() -> None:
    assert Space("grid_search", (1, 2)).for_tune() == {"grid_search": [1, 2]}
    drawn = {kind: Space(kind, (2, 5)).for_tune() for kind in ("uniform", "loguniform", "randint")}
    assert {kind: (domain.lower, domain.upper) for kind, domain in drawn.items()} == dict.fromkeys(drawn, (2, 5))
    assert {drawn["randint"].sample() for _ in range(60)} == {2, 3, 4}
    assert Space("choice", ("a", "b")).for_tune().categories == ["a", "b"]


@pytest.mark.parametrize(
    ("space", "said"),
    [
        (None, "tune.param_space is null, and must map keys of this file to search spaces, for example {grid_search: "),
        ({"training.lr": 0.1}, "tune.param_space.training.lr is 0.1, and must be one search space, for example"),
        ({"training.lr": {"gridsearch": [1]}}, "the search space 'gridsearch' does not exist; did you mean 'grid_sea"),
        ({"training.lr": {"grid_search": []}}, "tune.param_space.training.lr is an empty list"),
        ({"training.lr": {"grid_search": [1, 2, 1]}}, "lr.grid_search has 1 twice; tune.num_samples repeats settings"),
        ({"training.lr": {"grid_search": 3}}, "tune.param_space.training.lr.grid_search is 3, and must be a list"),
        ({"training.lr": {"uniform": [1]}}, "tune.param_space.training.lr.uniform is [1], and must be [low, high]"),
        ({"training.lr": {"uniform": [2, 1]}}, "uniform is [2, 1], and low must be below high"),
        ({"training.lr": {"uniform": [0, "x"]}}, "uniform is 'x', and must be a number"),
        ({"training.lr": {"loguniform": [0, 1]}}, "loguniform is [0, 1], and must be above 0"),
        ({"training.lr": {"randint": [0.5, 1]}}, "randint is 0.5, and must be a whole number"),
        ({"lr": {"uniform": [0, 1]}}, "tune.param_space.lr is no key of this file, such as training.lr"),
        ({"tune.mode": {"choice": [0, 1]}}, "tune.param_space.tune.mode is no key of this file"),
    ],
)
def test_a_wrong_search_space_is_told(space: Any, said: str) -> None:
    assert said in mistake(param_space=space)


@pytest.mark.parametrize(
    ("tune", "said"),
    [
        ({"num_sample": 3}, "tune.num_sample does not exist; did you mean 'num_samples'?"),
        ({"num_samples": 0}, "tune.num_samples is 0, and must be at least 1"),
        ({"num_samples": "many"}, "tune.num_samples is 'many', and must be a whole number"),
        ({"max_concurrent_trials": 0}, "tune.max_concurrent_trials is 0, and must be at least 1"),
        ({"mode": "min"}, "tune.mode says which end of tune.metric is the better one, and tune.metric is missing"),
        ({"mode": "best"}, "tune.mode is 'best', and must be 'max' or 'min'"),
        ({"metric": "charts/rewards"}, "'charts/rewards', which is not in progress.jsonl; did you mean 'charts/rew"),
    ],
)
def test_a_wrong_setting_is_told(tune: dict[str, Any], said: str) -> None:
    assert said in mistake(**tune)


def test_ranges_with_steps_and_bells_are_those_of_tune() -> None:
    stepped = Space("quniform", (0.0, 1.0, 0.25)).for_tune()
    assert {stepped.sample() for _ in range(60)} <= {0, 0.25, 0.5, 0.75, 1}
    assert Space("qrandint", (2, 8, 2)).corners() == [2, 8]
    assert Space("lograndint", (1, 8)).corners() == [1, 7]
    assert Space("randn", (1.0, 2.0)).corners() == [-5, 7]
    found = searched(param_space={"a.x": {"qloguniform": [0.5, 8, 0.5]}, "a.y": {"randn": [0, 1]}})
    assert found.param_space["a.x"].arguments == (0.5, 8, 0.5)


KIND, SIZE = "survival.strategy.kind", "survival.strategy.size"
CONDITIONAL = {
    KIND: {"choice": ["top_k", "tournament"]},
    SIZE: {"choice": [2, 3], "when": {KIND: "tournament"}},
    "a.of_three": {"uniform": [0, 1], "when": {SIZE: [3]}},
}


def test_a_parameter_is_set_where_its_condition_holds_and_the_condition_itself_is_set() -> None:
    found = searched(param_space=CONDITIONAL)
    drawn = {KIND: "tournament", SIZE: 3, "a.of_three": 0.5}
    assert found.active(drawn) == drawn
    assert found.active({**drawn, SIZE: 2}) == {KIND: "tournament", SIZE: 2}
    assert found.active({**drawn, KIND: "top_k"}) == {KIND: "top_k"}


def test_points_have_every_value_of_a_conditional_key_with_what_it_needs() -> None:
    points = list(searched(param_space=CONDITIONAL).points())
    assert points[0] == {KIND: "top_k"}
    for value in (2, 3):
        assert {KIND: "tournament", SIZE: value} in [{key: p[key] for key in (KIND, SIZE) if key in p} for p in points]
    assert [p["a.of_three"] for p in points if "a.of_three" in p][-2:] == [0, 1]


@pytest.mark.parametrize(
    ("space", "said"),
    [
        ({"grid_search": [1], "when": {"a.x": 1}}, "a.y.when: a grid is gone through whole, and has no condition"),
        (
            {"choice": [1], "when": {"a.z": 1}},
            "a.y.when.a.z is none of the keys before it whose values are listed: a.x",
        ),
        ({"choice": [1], "when": {"a.x": 3}}, "a.y.when.a.x is 3, and a.x is one of [1, 2]"),
        ({"choice": [1], "when": []}, "a.y.when is [], and must map keys of tune.param_space to their values"),
        ({"quniform": [0, 1]}, "a.y.quniform is [0, 1], and must be [low, high, step]"),
        ({"quniform": [0.1, 1, 0.25]}, "0.1 must be a whole number of steps"),
        ({"qrandint": [1, 5, 0]}, "step must be above 0"),
        ({"randn": [0, -1]}, "deviation must be above 0"),
    ],
)
def test_a_wrong_condition_or_step_is_told(space: Any, said: str) -> None:
    assert said in mistake(param_space={"a.x": {"choice": [1, 2]}, "a.y": space})


def test_parameters_replace_add_and_leave_the_file_as_it_is() -> None:
    document = {"training": {"lr": 1.0}, "tune": {"num_samples": 2}, "population": None}
    found = with_parameters(document, {"training.lr": np.float64(0.5), WIDTH: np.int64(8)})
    assert found == {"training": {"lr": 0.5}, "population": {"agent_config": {"hidden_dim": 8}}}
    assert yaml.safe_load(yaml.safe_dump(found)) == found
    assert document == {"training": {"lr": 1.0}, "tune": {"num_samples": 2}, "population": None}
    with pytest.raises(UserError, match=r"tune.param_space.training.lr.x: training.lr is 1.0, and has no keys"):
        with_parameters(document, {"training.lr.x": 1})


# ---- the command, before any work ----


def complaint(capsys: pytest.CaptureFixture[str], folder: Path, document: dict[str, Any], *options: str) -> str:
    """The one sentence; nothing was made."""
    (folder / "s.yaml").write_text(yaml.safe_dump(document))
    assert cli.main(["sweep", str(folder / "s.yaml"), "--run-dir", str(folder / "s"), *options]) == 2
    streams = capsys.readouterr()
    assert streams.out == ""
    assert len(streams.err.splitlines()) == 1
    assert not (folder / "s").exists()
    return streams.err


@pytest.mark.parametrize(
    ("space", "said"),
    [
        (
            {WIDTH: {"grid_search": [8, 10]}},
            "hidden_dim=10: agent_config.num_heads is 4, and must divide hidden_dim = 10",
        ),
        ({WIDTH: {"grid_search": [8, "x"]}}, "hidden_dim=x: population.agent_config.hidden_dim is 'x', and must be a"),
        ({"training.gama": {"grid_search": [0.9]}}, "gama=0.9: training.gama does not exist; did you mean 'gamma'?"),
        ({"training.gamma": {"uniform": [0.9, 1.5]}}, "gamma=1.5: training.gamma is 1.5, and must be a number between"),
        (
            {"debugging.seed": {"choice": [1, -1]}},
            "seed=-1: debugging.seed is -1, and must be at least 0",
        ),
        ({"recording.run_dir": {"choice": ["x"]}}, "recording.run_dir belongs on the command line: --run-dir"),
    ],
)
def test_every_point_is_checked_before_any_is_trained(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, space: dict[str, Any], said: str
) -> None:
    assert said in complaint(capsys, tmp_path, {**DOCUMENT, "tune": {"param_space": space}})


def test_a_sweep_without_a_search_space_or_without_an_end_is_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert "s.yaml: tune is missing; name a search space" in complaint(capsys, tmp_path, DOCUMENT)
    endless = {key: value for key, value in DOCUMENT.items() if key != "stop"}
    tune = {"param_space": {"training.lr": {"choice": [0.1]}}}
    assert "lr=0.1: stop is missing" in complaint(capsys, tmp_path, {**endless, "tune": tune})


def test_resuming_without_a_folder_or_a_sweep_in_it_is_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert "s holds no run (no config.yaml)" in complaint(capsys, tmp_path, DOCUMENT, "--resume")
    assert cli.main(["sweep", "model_size_sweep", "--resume"]) == 2
    assert "--resume needs --run-dir, the folder of the run or sweep" in capsys.readouterr().err


def test_every_trial_of_the_shipped_sweep_is_valid_and_has_a_size_of_its_own() -> None:
    document = schema.load("model_size_sweep")
    points = list(search(document).points())
    sizes = [checked_config(with_parameters(document, point)).agent_config for point in points]
    assert len({(size["hidden_dim"], size["depth"]) for size in sizes}) == len(points) == 8


def test_every_trial_of_the_sweep_of_survival_is_valid() -> None:
    document = schema.load("survival_sweep")
    points = list(search(document).points())
    plans = [checked_config(with_parameters(document, point)).plan.survival for point in points]
    assert len(points) == 12
    assert {plan.mutation_std for plan in plans if plan} == {0.0, 0.02, 0.1}


# ---- afterwards ----


def trial_of(number: int, **parameters: Any) -> Any:
    return SimpleNamespace(trial_id=f"a1b2c_{number:05}", evaluated_params=parameters, config=parameters)


def test_a_trials_folder_tells_number_and_parameters() -> None:
    assert (
        sweep.trial_name(trial_of(3, **{WIDTH: 16, "training.lr": 0.000123456})) == "00003_hidden_dim=16,lr=0.0001235"
    )
    assert sweep.trial_name(trial_of(0, **{"a.kind": "x/y z", "b.kind": None})) == "00000_a.kind=x-y-z,b.kind=None"
    assert len(sweep.trial_name(trial_of(1, **{"a.b": "x" * 500}))) <= 120


def rows_of(*values: float | None) -> list[dict[str, Any]]:
    return [
        {"trial": f"{i}", "a.b": i, "m": value, "status": "done", "iteration": np.int64(2), "reason": ""}
        for i, value in enumerate(values)
    ]


def test_the_table_begins_with_the_best_and_ends_with_what_was_not_measured(tmp_path: Path) -> None:
    rows = rows_of(0.2, None, 0.5, -1.0)
    for mode, order in {"max": [2, 0, 3, 1], "min": [3, 0, 2, 1]}.items():
        sweep.write_results(tmp_path, rows, Search({}, metric="m", mode=mode))
        assert list(pd.read_csv(tmp_path / "results.csv")["a.b"]) == order
        written = json.loads((tmp_path / "results.json").read_text())
        assert [row["a.b"] for row in written["trials"]] == order
        assert [row["m"] for row in written["trials"]][-1] is None
    assert [row["a.b"] for row in sweep.ranked(rows, Search({}))] == [0, 1, 2, 3]


def test_the_table_has_nothing_that_was_measured_of_a_population_that_was_replaced(tmp_path: Path) -> None:
    columns = {"env_steps": 1, "time_s": 1.0}
    for iteration, value in enumerate([5.0, 7.0, None], start=1):
        progress.append(tmp_path / "progress.jsonl", {"iteration": iteration, "m": value, **columns})
    result = SimpleNamespace(path=str(tmp_path), error=None)
    assert sweep_table.row(result, {}, "m", False)["m"] == 7
    (tmp_path / "origin.json").write_text(json.dumps({"source": "00001", "iteration": 2, "generation": 1}))
    heir = sweep_table.row(result, {}, "m", False)
    assert heir["m"] is None
    # The metric is one that was recorded all the same.
    sweep_table.check_metric(tmp_path.parent, [{**heir, "trial": tmp_path.name}], "m")


def test_a_name_has_the_parameters_that_are_set_alone() -> None:
    trial = trial_of(4, **{KIND: "top_k", SIZE: 2, "a.of_three": 0.25})
    assert sweep.trial_name(trial, searched(param_space=CONDITIONAL)) == "00004_kind=top_k"
    of_optuna = SimpleNamespace(
        trial_id="1f2e3d4c", experiment_tag="2_x=1", evaluated_params={"a.x": 1}, config={"a.x": 1}
    )
    assert sweep.trial_name(of_optuna) == "00001_x=1"


def test_a_failures_reason_is_one_line_of_the_error_that_caused_it() -> None:
    def brought(cause: Exception) -> Exception:
        return RayTaskError("trial", "Traceback: ...", cause).as_instanceof_cause()

    assert sweep.reason(brought(UserError("the world is flat"))) == "the world is flat"
    long = ZeroDivisionError("sampling failed in env runner 1:\nTraceback\n  File x\nValueError: no beacon\n")
    said = "ZeroDivisionError: sampling failed in env runner 1: ... ValueError: no beacon"
    assert sweep.reason(brought(long)) == said
    assert len(sweep.reason(ValueError("x" * 999))) == 300


# ---- seeds of trials ----


def seeds_trained(monkeypatch: pytest.MonkeyPatch, folder: Path, names: list[str], **tune: Any) -> list[int]:
    """debugging.seed of the documents with which trials of these folders train."""
    given = {"param_space": {"training.lr": {"grid_search": [0.1, 0.2]}}, **tune}
    document = {**DOCUMENT, "debugging": {"seed": 7}, "tune": given}
    seeds = []

    def run(own: dict[str, Any], *args: Any, **kwargs: Any) -> None:
        seeds.append(own["debugging"]["seed"])

    monkeypatch.setattr("popcomm.cli.train.run", run)
    monkeypatch.setattr("popcomm.cli.sweep_trials.Reports.final", lambda self: None)
    for name in names:
        context = SimpleNamespace(get_trial_dir=lambda name=name: str(folder / "tune" / name))
        monkeypatch.setattr("ray.tune.get_context", lambda context=context: context)
        sweep_trials.trial({"training.lr": 0.1}, document, str(folder))
    return seeds


def test_trials_of_the_same_settings_have_seeds_of_their_own_and_keep_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    names = [f"{number:05d}_lr=0.1" for number in range(6)]
    seeds = seeds_trained(monkeypatch, tmp_path, names, num_samples=3)
    # The points of the grid are compared at the same seed; the first sample has the document's own.
    assert seeds[0] == seeds[1] == 7
    assert (seeds[2], seeds[4]) == (seeds[3], seeds[5])
    assert len(set(seeds)) == 3
    assert all(0 <= seed < 2**31 for seed in seeds)
    assert seeds_trained(monkeypatch, tmp_path, names, num_samples=3) == seeds


@pytest.mark.parametrize(
    "space", [{"training.lr": {"loguniform": [0.1, 0.2]}}, {"debugging.seed": {"choice": [7]}, "a.x": {"choice": [1]}}]
)
def test_trials_that_differ_by_themselves_or_by_seeds_in_the_search_space_keep_the_documents_seed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, space: dict[str, Any]
) -> None:
    assert seeds_trained(monkeypatch, tmp_path, ["00002_x"], param_space=space, num_samples=3) == [7]
