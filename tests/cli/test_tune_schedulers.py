"""Schedulers that go on where they were: the journal, generations of runs, and what is inherited."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from popcomm.cli import runs_lineage
from popcomm.cli.runs_lineage import Life, RunsAlive
from popcomm.cli.search_space import Search, search
from popcomm.cli.tune_schedulers import (
    Generations,
    Remembering,
    WithoutMetric,
    make_scheduler,
    read_journal,
    stopped,
    value_at,
)
from popcomm.errors import UserError
from popcomm.evolution import Generation, Strategy, Traits
from popcomm.evolution.generation import Ints
from popcomm.identity import run_id
from popcomm.language import progress
from popcomm.manifest import MANIFEST, files_of, find, verify

LR = "training.lr"


def searched(scheduler: Any, **tune: Any) -> tuple[Search, dict[str, Any]]:
    space = {LR: {"uniform": [0.0, 1.0]}}
    given = {"param_space": space, "num_samples": 4, "metric": "m", "scheduler": scheduler, **tune}
    document = {
        "tune": {**given, "metric": "charts/reward"},
        "stop": {"training_iteration": 8},
        "debugging": {"seed": 1},
    }
    return search(document), document


class Fake:
    """One of Tune's trials, as far as schedulers look."""

    def __init__(self, folder: Path, name: str) -> None:
        self.storage = SimpleNamespace(experiment_fs_path=str(folder))
        self.custom_dirname, self.trial_id, self.status = name, f"t_{name}", "RUNNING"
        self.config = {LR: float(name[-1]) / 10}


def trial_in(folder: Path, name: str) -> Any:
    return Fake(folder, name)


class Controller:
    """As much of Tune's as schedulers ask for."""

    def __init__(self, trials: list[Any]) -> None:
        self.trials = trials

    def get_trials(self) -> list[Any]:
        return self.trials

    def get_live_trials(self) -> list[Any]:
        return self.trials

    def pause_trial(self, trial: Any, should_checkpoint: bool) -> None:
        assert not should_checkpoint
        trial.status = "PAUSED"


# ---- those that decide at once ----

# The best half goes on at iterations 1, 2, 4.
ASHA = {"kind": "asha", "reduction_factor": 2}
COURSES = [(0, 1, 1.0), (0, 2, 1.0), (1, 1, 0.5), (2, 1, 2.0), (2, 2, 0.9), (3, 1, 1.8), (3, 2, 0.95)]


def told(scheduler: Remembering, trials: list[Any], courses: list[tuple[int, int, float]]) -> list[str]:
    controller = Controller(trials)
    return [
        scheduler.on_trial_result(controller, trials[i], {"iteration": at, "value": value}) for i, at, value in courses
    ]


@pytest.mark.parametrize("scheduler", [ASHA, {"kind": "median_stopping", "min_samples_required": 1}])
@pytest.mark.parametrize("dies_after", range(len(COURSES)))
def test_a_scheduler_decides_after_the_drivers_death_as_it_would_have(
    tmp_path: Path, scheduler: dict[str, Any], dies_after: int
) -> None:
    whole, folder = tmp_path / "whole", tmp_path / "died"
    for path in (whole, folder):
        path.mkdir()
    found = []
    for path, parts in ((whole, [COURSES]), (folder, [COURSES[:dies_after], COURSES[dies_after:]])):
        decisions: list[str] = []
        for part in parts:
            made = make_scheduler(searched(scheduler)[0])
            assert isinstance(made, Remembering)
            trials = [trial_in(path, f"0000{i}") for i in range(4)]
            for trial in trials:
                made.on_trial_add(Controller(trials), trial)
            decisions += told(made, trials, part)
        found.append(decisions)
    assert found[0] == found[1]
    assert "STOP" in found[0]
    assert read_journal(whole) == read_journal(folder)
    assert stopped(folder) == {line["trial"] for line in read_journal(folder) if line["decision"] == "STOP"}


def test_a_trial_that_goes_on_after_a_failure_is_not_counted_twice(tmp_path: Path) -> None:
    made = make_scheduler(searched(ASHA)[0])
    assert isinstance(made, Remembering)
    trials = [trial_in(tmp_path, f"0000{i}") for i in range(4)]
    for trial in trials:
        made.on_trial_add(Controller(trials), trial)
    told(made, trials, COURSES[:1])
    made.on_trial_error(Controller(trials), trials[0])
    made.on_trial_add(Controller(trials), trials[0])
    told(made, trials, COURSES[:1])
    rungs = made.inner._brackets[0]._rungs
    assert [recorded for milestone, recorded in rungs if milestone == 1] == [{"t_00000": 1.0}]


def test_half_a_line_that_a_death_left_in_the_journal_is_none(tmp_path: Path) -> None:
    (tmp_path / "decisions.jsonl").write_text('{"trial": "a", "decision": "STOP"}\n{"trial": "b", "dec')
    assert stopped(tmp_path) == {"a"}


def test_a_report_without_the_metric_is_no_result(tmp_path: Path) -> None:
    made = make_scheduler(searched(ASHA)[0])
    assert isinstance(made, Remembering)
    trial = trial_in(tmp_path, "00000")
    assert made.on_trial_result(Controller([trial]), trial, {"iteration": 1}) == "CONTINUE"
    assert read_journal(tmp_path) == []


# ---- generations of runs ----

TOP = {"kind": "population_survival", "strategy": {"kind": "top_k", "k": 1}, "every": 2}


def run_folder(folder: Path, name: str, *values: float | None) -> None:
    """A run with so many iterations, and a checkpoint that holds its name at every second one."""
    (folder / name).mkdir(exist_ok=True)
    (folder / name / "config.yaml").write_text(yaml.safe_dump({"of": name}))
    for iteration, value in enumerate(values, start=1):
        progress.append(folder / name / "progress.jsonl", {"iteration": iteration, "charts/reward": value})
        checkpoint = folder / name / f"checkpoints/checkpoint_{iteration:06d}"
        if iteration % 2 == 0 and not checkpoint.exists():
            checkpoint.mkdir(parents=True)
            (checkpoint / "weights").write_text(f"{name} at {iteration}")
            (checkpoint / MANIFEST).write_text(json.dumps({"files": files_of(checkpoint), "iteration": iteration}))


def generations(folder: Path, mode: str = "max") -> tuple[Generations, Controller]:
    made = make_scheduler(searched(TOP, mode=mode)[0])
    assert isinstance(made, Generations)
    controller = Controller([trial_in(folder, f"0000{i}") for i in range(4)])
    for trial in controller.trials:
        made.on_trial_add(controller, trial)
    return made, controller


def report(made: Generations, controller: Controller, iteration: int, *places: int) -> list[str]:
    return [made.on_trial_result(controller, controller.trials[i], {"iteration": iteration}) for i in places]


def test_trials_wait_for_one_another_and_children_go_on_from_the_best(tmp_path: Path) -> None:
    made, controller = generations(tmp_path)
    for i in range(4):
        run_folder(tmp_path, f"0000{i}", 0.0, [1.0, 4.0, 3.0, 2.0][i])
    assert report(made, controller, 1, 0) == ["CONTINUE"]
    assert report(made, controller, 2, 0, 1, 2) == ["NOOP"] * 3
    assert made.choose_trial_to_run(controller) is None
    assert runs_lineage.read(tmp_path) is None
    report(made, controller, 2, 3)
    assert made.choose_trial_to_run(controller) is controller.trials[0]
    alive = runs_lineage.read(tmp_path)
    assert alive is not None
    assert [life.source for life in alive.lives.values()] == ["00001", None, "00001", "00001"]
    for name, life in alive.lives.items():
        if life.source:
            assert life.parameters[LR] in (0.1 * 1.2, 0.1 / 1.2)
            assert life.parameters["debugging.seed"] not in [
                other.parameters.get("debugging.seed") for key, other in alive.lives.items() if key != name
            ]
    table = pd.read_parquet(tmp_path / "lineage.parquet")
    assert table["fitness"].tolist()[:4] == [1, 4, 3, 2]
    assert table["death"].tolist()[:4] == pytest.approx([0, float("nan"), 0, 0], nan_ok=True)
    assert table["founder"].tolist()[4:] == [1, 1, 1, 1]
    assert table["trial"].tolist() == ["00000", "00001", "00002", "00003"] * 2


def test_the_smallest_is_the_best_where_the_mode_says_so(tmp_path: Path) -> None:
    made, _ = generations(tmp_path, "min")
    for i in range(4):
        run_folder(tmp_path, f"0000{i}", 0.0, float(i + 1))
    alive = RunsAlive.first({f"0000{i}": {LR: 0.1} for i in range(4)})
    found = made.selected(tmp_path, alive, 2)
    assert [life.source for life in found.lives.values()] == [None, "00000", "00000", "00000"]
    assert [row["fitness"] for row in found.ended] == [1, 2, 3, 4]


def test_a_trial_whose_parent_has_no_whole_checkpoint_keeps_its_population(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made, _ = generations(tmp_path)
    for i in range(4):
        run_folder(tmp_path, f"0000{i}", 0.0, float(i))
    (tmp_path / "00003/checkpoints/checkpoint_000002/weights").write_text("damaged")
    found = made.selected(tmp_path, RunsAlive.first({f"0000{i}": {} for i in range(4)}), 2)
    assert [life.source for life in found.lives.values()] == [None] * 4
    assert "00000 keeps its own population: in the checkpoint" in capsys.readouterr().out


def test_trials_that_ended_are_waited_for_no_more_and_are_not_replaced(tmp_path: Path) -> None:
    made, controller = generations(tmp_path)
    for i in range(4):
        run_folder(tmp_path, f"0000{i}", 0.0, float(i))
    made.on_trial_error(controller, controller.trials[0])
    made.on_trial_complete(controller, controller.trials[1], {})
    report(made, controller, 2, 2, 3)
    made.choose_trial_to_run(controller)
    alive = runs_lineage.read(tmp_path)
    assert alive is not None
    assert [life.source for life in alive.lives.values()] == [None, None, "00003", None]


def test_a_best_run_that_has_ended_is_no_parent_and_the_best_of_the_living_are(tmp_path: Path) -> None:
    """It has a last value for ever, and no population of this generation from which anybody could go on."""
    made, controller = generations(tmp_path)
    for i in range(4):
        run_folder(tmp_path, f"0000{i}", 0.0, [1.0, 9.0, 2.0, 3.0][i])
    report(made, controller, 2, 0, 1, 2, 3)
    made.choose_trial_to_run(controller)
    made.on_trial_error(controller, controller.trials[1])
    for i in (0, 2, 3):
        run_folder(tmp_path, f"0000{i}", 0.0, 9.0, 0.0, [1.0, None, 2.0, 3.0][i])
    report(made, controller, 4, 0, 2, 3)
    made.choose_trial_to_run(controller)
    alive = runs_lineage.read(tmp_path)
    assert alive is not None
    assert [(life.source, life.iteration) for life in alive.lives.values()] == [
        ("00003", 4), (None, 0), ("00003", 4), ("00001", 2),
    ]  # fmt: skip
    assert [row["fitness"] for row in alive.ended[4:]] == [1, None, 2, 3]


def test_an_heir_that_measured_nothing_since_it_took_over_is_not_known(tmp_path: Path) -> None:
    made, _ = generations(tmp_path)
    for i in range(4):
        run_folder(tmp_path, f"0000{i}", 0.0, [9.0, 1.0, 2.0, 3.0][i], *([None] * 2 if i == 0 else [1.0, float(i)]))
    alive = RunsAlive.first({f"0000{i}": {LR: 0.1} for i in range(4)})
    heir = replace(alive, lives={**alive.lives, "00000": Life({LR: 0.1}, "00001", 2, 1)})
    found = made.selected(tmp_path, heir, 4)
    assert [row["fitness"] for row in found.ended] == [None, 1, 2, 3]
    assert [life.source for life in found.lives.values()] == ["00001", "00003", "00003", None]


class Anew(Strategy):
    """Lets the first place be made anew, once somebody is above 5."""

    def select(self, generation: Generation, traits: Traits, rng: np.random.Generator) -> Ints:
        sources = np.arange(generation.members)
        sources[0] = -1 if generation.fitness.max() > 5 else 0
        return sources


def test_a_strategy_that_wants_a_run_made_anew_is_refused_in_a_sentence(tmp_path: Path) -> None:
    made, _ = generations(tmp_path)
    made.strategy = Anew()
    for i in range(4):
        run_folder(tmp_path, f"0000{i}", 0.0, float(i + 4))
    with pytest.raises(
        UserError,
        match=r"tune.scheduler.strategy Anew returned -1, one that is made anew, and must .* places of 0 to 3",
    ):
        made.selected(tmp_path, RunsAlive.first({f"0000{i}": {LR: 0.1} for i in range(4)}), 2)


def test_a_trial_that_is_tried_again_after_a_failure_is_waited_for(tmp_path: Path) -> None:
    made, controller = generations(tmp_path)
    made.on_trial_error(controller, controller.trials[0])
    made.on_trial_add(controller, controller.trials[0])
    report(made, controller, 2, 1, 2, 3)
    controller.trials[0].status = "RUNNING"
    assert made.choose_trial_to_run(controller) is None
    assert runs_lineage.read(tmp_path) is None


def test_generations_after_the_drivers_death_are_those_of_a_sweep_that_lived_on(tmp_path: Path) -> None:
    tables = []
    for dies in (False, True):
        folder = tmp_path / str(dies)
        folder.mkdir()
        made, controller = generations(folder)
        for end in (2, 4):
            for i in range(4):
                run_folder(folder, f"0000{i}", *(float((i * 7 + at) % 5) for at in range(end)))
            if dies:
                made, controller = generations(folder)
            report(made, controller, end, 0, 1, 2, 3)
            made.choose_trial_to_run(controller)
        tables.append(pd.read_parquet(folder / "lineage.parquet"))
    assert len(tables[0]) == 12
    pd.testing.assert_frame_equal(tables[0], tables[1])


def test_the_state_is_none_of_the_files_that_tune_puts_back_as_they_were(tmp_path: Path) -> None:
    """Tune copies *.json and *.pkl of the sweep's folder when a sweep goes on, and writes the copies over them."""
    alive = RunsAlive.first({"00000": {}, "00001": {}})
    runs_lineage.write(tmp_path, alive, [])
    assert not [path for path in tmp_path.iterdir() if path.suffix in (".json", ".pkl")]
    found = runs_lineage.read(tmp_path)
    assert found is not None
    assert found.lives == alive.lives


def test_an_heir_takes_over_once_and_leaves_its_parents_run_alone(tmp_path: Path) -> None:
    for i in range(2):
        run_folder(tmp_path, f"0000{i}", *[0.0] * 4)
    runs_lineage.bequeath(tmp_path, 1, 2, "00000", "00001")
    life = Life({LR: 0.5}, "00001", 2, 1)
    runs_lineage.take_over(tmp_path, "00000", life)
    own = tmp_path / "00000/checkpoints"
    assert [path.name for path in own.iterdir()] == ["checkpoint_000002"]
    assert (own / "checkpoint_000002/weights").read_text() == "00001 at 2"
    assert yaml.safe_load((tmp_path / "00000/config.yaml").read_text()) == {"of": "00001"}
    # It counts as one of the run that it is in.
    assert find(own, run=run_id(tmp_path / "00000")).path == own / "checkpoint_000002"
    assert verify(own / "checkpoint_000002")["inherited_from"] == "00001"
    # What it has learned since stays, when its process begins again.
    run_folder(tmp_path, "00000", *[0.0] * 4)
    runs_lineage.take_over(tmp_path, "00000", life)
    assert (own / "checkpoint_000004/weights").read_text() == "00000 at 4"
    assert (tmp_path / "00001/checkpoints/checkpoint_000004/weights").read_text() == "00001 at 4"


def test_a_parent_that_is_replaced_itself_leaves_its_heir_what_it_was(tmp_path: Path) -> None:
    for i in range(3):
        run_folder(tmp_path, f"0000{i}", 0.0, 0.0)
    runs_lineage.bequeath(tmp_path, 1, 2, "00000", "00001")
    runs_lineage.bequeath(tmp_path, 1, 2, "00001", "00002")
    runs_lineage.take_over(tmp_path, "00001", Life({}, "00002", 2, 1))
    runs_lineage.take_over(tmp_path, "00000", Life({}, "00001", 2, 1))
    assert (tmp_path / "00000/checkpoints/checkpoint_000002/weights").read_text() == "00001 at 2"
    assert (tmp_path / "00001/checkpoints/checkpoint_000002/weights").read_text() == "00002 at 2"


def test_fitness_is_the_last_number_up_to_the_end_of_the_generation(tmp_path: Path) -> None:
    for iteration, value in enumerate([1.0, None, 3.0], start=1):
        progress.append(tmp_path / "progress.jsonl", {"iteration": iteration, "m": value})
    assert [value_at(tmp_path, "m", at, 0) for at in (1, 2, 3)] == [1, 1, 3]
    assert math.isnan(value_at(tmp_path, "other", 3, 0))


def test_what_was_measured_of_the_population_before_is_no_fitness_of_an_heir(tmp_path: Path) -> None:
    for iteration, value in enumerate([1.0, 2.0, None, 4.0], start=1):
        progress.append(tmp_path / "progress.jsonl", {"iteration": iteration, "m": value})
    assert math.isnan(value_at(tmp_path, "m", 3, 2))
    assert value_at(tmp_path, "m", 4, 2) == 4


# ---- a metric that is none ----


def test_a_sweep_ends_at_once_where_no_trial_measures_the_metric() -> None:
    found = WithoutMetric()
    assert not found("a", {"iteration": 1})
    assert not found.stop_all()
    assert found("a", {"iteration": 2, "missing": "..."})
    assert found.stop_all()


def test_a_trial_without_the_metric_does_not_end_those_that_measure_it() -> None:
    found = WithoutMetric()
    assert not found("a", {"iteration": 1, "value": 0.5})
    assert not found("b", {"iteration": 1, "missing": "..."})
    assert not found.stop_all()
