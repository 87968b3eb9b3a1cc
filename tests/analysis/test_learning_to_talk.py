"""Learning to talk: every run is the one that is meant, none is made twice, and the page says what was measured."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from popcomm.analysis.experiments import learning_course, learning_to_talk
from popcomm.analysis.experiments.figures import mean_of
from popcomm.analysis.experiments.frame import markdown, write
from popcomm.analysis.experiments.learning_course import RESULTS, Course, Look, Trial
from popcomm.analysis.experiments.learning_tasks import CONDITIONS, TASKS, document, runs_in
from popcomm.analysis.experiments.learning_to_talk import EXPERIMENT, grouped
from popcomm.analysis.experiments.local_training import LocalTraining
from popcomm.analysis.experiments.runs import TrainingError

from popcomm.channels.messages import Symbols, Vectors
from popcomm.channels.relaxed import Dru, RelaxedSymbols
from popcomm.cli import schema
from popcomm.envs.traffic_junction_references import gas, played
from popcomm.envs.traffic_junction_v0 import GAS, TrafficJunctionWorld
from popcomm.errors import UserError
from popcomm.rllib import PopulationPPOConfig
from popcomm.rollout.seeds import WORLD_BRANCH, seed_of

PAPERS = ("commnet", "ic3net", "tarmac")
PAIRS = [(task, way) for task in TASKS for way in CONDITIONS if runs_in(way, task)]


def config_of(task: str, condition: str) -> PopulationPPOConfig:
    config = schema.apply(document(TASKS[task], condition, 1), PopulationPPOConfig())
    config.validate()
    return config


def result(
    seed: int,
    greedy: float,
    sampled: float | None = None,
    met: int | None = 5000,
    condition: str = "straight_through",
    task: str = "relay_3",
) -> dict[str, Any]:
    """A run of `task`, with its measure at the end, and the episodes until its bar."""
    end = {"greedy": greedy, "sampled": greedy if sampled is None else sampled}
    look = [1000, 3000, 2.0, 0.5, 0.4]
    curve = [[0, 0, 0.0, 0.25, 0.25], look, [60_000, 180_000, 40.0, greedy, end["sampled"]]]
    reached = None if met is None else Look(met, 3 * met, met / 1000, 1.0, 1.0)._asdict()
    return {
        "task": task,
        "condition": condition,
        "seed": seed,
        "seconds": 120.0,
        "bar": TASKS[task].threshold,
        "curve": curve,
        "met": reached,
        "end": end,
        "metrics": {"greedy": {}, "sampled": {}},
        "config": document(TASKS[task], condition, seed),
        "versions": {},
    }


def page_of(*results: dict[str, Any]) -> str:
    return markdown(EXPERIMENT, grouped(results), "the command")


@pytest.mark.parametrize(("task", "condition"), PAIRS)
def test_every_run_is_valid_and_has_the_messages_that_its_condition_is_named_for(task: str, condition: str) -> None:
    config, vocab = config_of(task, condition), config_of(task, "straight_through").messages["vocab_size"]
    kinds = {
        "straight_through": Symbols(vocab, 1),
        "reinforce": Symbols(vocab, 1),
        "dru": Dru(int(np.ceil(np.log2(vocab)))),
        "vectors": Vectors(2, 0.3),
        "commnet": Vectors(64),
        "ic3net": Vectors(64),
        "tarmac": Vectors(48),
        "silent": None,
    }
    assert config.message_kind == kinds.get(condition, RelaxedSymbols(vocab, 1))
    assert config.message_noise == (1.0 if condition == "noise" else 0.0)
    assert config.agent == (condition if condition in ("mlp", *PAPERS) else "symbolic")
    assert (config.plan.gradient == "reinforce") == (condition == "reinforce")
    assert config.plan.carries_gradients == (condition not in ("reinforce", "silent"))
    assert config.layout.num_agents == TASKS[task].seats
    members = {config.plan.species[species].members for species in config.layout.species}
    assert members == ({TASKS[task].seats} if condition == "members" else {1})


@pytest.mark.parametrize("task", TASKS)
def test_conditions_share_all_settings_of_training_and_of_the_world(task: str) -> None:
    documents = {way: document(TASKS[task], way, 3) for way in CONDITIONS if runs_in(way, task)}
    for key in ("message_balance_coeff", "message_sharpness"):
        for way in {"vectors", *PAPERS} & documents.keys():
            documents[way]["training"][key] = 0.1  # but they have no symbols to balance
    for way in ("straight_through", "members"):
        if way in documents:  # what rises there begins with what the others have
            training = documents[way]["training"]
            training["message_sharpness"] *= training.pop("loss_schedules")["message_sharpness"]["start"]
    for section in ("environment", "training", "env_runners", "debugging"):
        assert all(d[section] == documents["silent"][section] for d in documents.values())
    assert documents["silent"]["debugging"] == {"seed": 3}


def test_games_differ_in_nothing_but_worlds_messages_who_hears_whom_and_how_long_they_train() -> None:
    documents = [document(TASKS[task], "straight_through", 1) for task in TASKS]
    schedules = [(d["training"].pop("lr"), d["training"].pop("entropy_coeff")) for d in documents]
    rises = [d["training"].pop("loss_schedules")["message_sharpness"] for d in documents]
    for section in ("training", "population"):
        assert all(d[section] == documents[0][section] for d in documents)
    for rate, entropy in schedules:
        # What falls does so from a third of the run on, everywhere from the same value to the same.
        assert [value for _, value in rate] == [4e-3, 4e-3, 4e-4]
        assert [value for _, value in entropy] == [0.05, 0.05, 0.005]
        assert [step for step, _ in rate] == [step for step, _ in entropy]
        assert rate[1][0] == pytest.approx(rate[2][0] / 3, abs=1)
    for (rate, _), rise in zip(schedules, rises, strict=True):
        assert (rise["begin"], rise["end"]) == (rate[1][0], rate[2][0])


def test_bars_are_shares_of_the_oracle() -> None:
    thresholds = {name: TASKS[name].threshold for name in ("switch_riddle_3", "colour_digit", "relay_3", "relay_4")}
    # All three prisoners are in the room within six days in 20 of 27 cases.
    expected = {"switch_riddle_3": 0.95 * 20 / 27, "colour_digit": 1.9, "relay_3": 0.95, "relay_4": 0.9}
    assert thresholds == pytest.approx(expected)
    assert TASKS["predator_prey"].meets(9.4)
    assert not TASKS["predator_prey"].meets(9.6)


def test_sampling_may_cost_a_tenth_whatever_the_sign_and_the_direction() -> None:
    relay, prey, mpe = (TASKS[name] for name in ("relay_3", "predator_prey", "speaker_listener"))
    assert [relay.close(0.91, 1.0), relay.close(0.89, 1.0)] == [True, False]
    assert [prey.close(9.8, 9.0), prey.close(10.0, 9.0)] == [True, False]
    assert [mpe.close(-14.0, -13.0), mpe.close(-15.0, -13.0)] == [True, False]


def test_a_row_has_mean_interval_worst_seed_and_medians_of_those_that_met_the_bar() -> None:
    page = page_of(result(1, 1.0, met=4000), result(2, 0.98, met=8000), result(3, 0.3, met=None))
    # Mean .76, deviation .39850 (n - 1), t(.975, 2) = 4.30265: half width .98993.
    assert "| straight-through | 3 | 0.760 [-0.230, 1.750], worst 0.300 |" in page
    assert "| 2 of 3 (67%) | 6,000 (2) | 6.0 (2) | 2 of 2 |" in page


def test_a_bar_is_met_only_if_every_seed_meets_it() -> None:
    good = [result(seed, 1.0) for seed in (1, 2)]
    start = "- Relay of 3, straight-through: greedy >= 0.95 on"
    both = "still there 50,000 episodes later on 2 of 2"
    assert f"{start} 2 of 2 seeds; sampled within a tenth of greedy at the end on 2 of 2; {both}: met." in page_of(
        *good
    )
    assert f"{start} 1 of 2 seeds;" in page_of(good[0], result(2, 0.3, met=None))
    for bad in (result(2, 0.3, met=None), result(2, 0.9), result(2, 1.0, sampled=0.85)):
        page = page_of(good[0], bad)
        assert "**missed**." in page
        assert "all that is asked: 0 of 1 are." in page
    assert "still there 50,000 episodes later on 1 of 2: **missed**." in page_of(good[0], result(2, 0.9))


def test_a_control_that_does_not_meet_the_bar_is_no_failure() -> None:
    page = page_of(result(1, 1.0), result(1, 0.25, met=None, condition="silent"))
    assert "- Relay of 3, silent: greedy >= 0.95 on 0 of 1 seeds; a control, of which it is not asked." in page
    assert "all that is asked: 1 of 1 are." in page
    assert "| silent | 1 | 0.250, worst 0.250 | 0.250, worst 0.250 | 0 of 1 (0%) | - | - | - |" in page


def test_where_less_is_better_the_worst_seed_is_the_slowest() -> None:
    page = page_of(*(result(s, steps, met=None, task="predator_prey") for s, steps in ((1, 9.0), (2, 12.0))))
    assert "worst 12.000" in page
    assert "greedy <= 9.5 on 0 of 2 seeds" in page
    assert "random 19.8, silent 14, oracle 4.68" in page


def test_findings_stand_on_the_page_once_they_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = tmp_path / "findings.md"
    monkeypatch.setattr(learning_to_talk, "FINDINGS", written)
    written.write_text("")
    assert "## What was found" not in page_of(result(1, 1.0))
    written.write_text("Larger starts decided it.\n")
    assert "## What was found\n\nLarger starts decided it.\n\n## Bars" in page_of(result(1, 1.0))


def test_the_mean_curve_goes_as_far_as_all_seeds_and_references_on_one_another_share_a_label() -> None:
    short, long = (np.array([0.0, 10.0]), np.array([0.0, 1.0])), (np.array([0.0, 20.0]), np.array([1.0, 1.0]))
    episodes, greedy = mean_of([short, long])
    assert episodes[-1] == 10
    assert greedy == pytest.approx(0.5 + 0.05 * episodes)
    assert learning_to_talk.labelled({"random": 0.25, "silent": 0.25, "oracle": 1.0}) == [
        ("random, silent", 0.25),
        ("oracle", 1.0),
    ]


def test_the_page_is_written_with_figure_and_numbers(tmp_path: Path) -> None:
    results = [result(1, 1.0), result(1, 0.25, met=None, condition="noise"), result(1, 9.0, task="predator_prey")]
    files = write(EXPERIMENT, grouped(results), tmp_path, "the command")
    assert [file.name for file in files] == [f"learning_to_talk.{end}" for end in ("md", "png", "json")]
    assert files[1].read_bytes()[:4] == b"\x89PNG"
    kept = json.loads(files[2].read_text())
    assert [run["end"]["greedy"] for run in kept["runs"]] == [1.0, 0.25, 9.0]
    assert kept["configs"]["relay_3"]["noise"]["communication"]["noise"] == 1.0


def test_runs_of_different_budgets_are_not_pooled() -> None:
    with pytest.raises(UserError, match=r"relay_3 have different seconds: 5\.0, 120\.0"):
        page_of(result(1, 1.0), {**result(2, 1.0), "seconds": 5.0})


def test_what_is_there_is_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def train(trial: Trial) -> None:
        made.append((trial.condition, trial.seed))
        kept = result(trial.seed, 1.0, condition=trial.condition)
        trial.path.parent.mkdir(exist_ok=True)
        trial.path.write_text(json.dumps(kept))

    monkeypatch.setattr(Trial, "train", train)
    command = ["--out", str(tmp_path), "--tasks", "relay_3", "--conditions", "dru", "members", "silent", "--jobs", "1"]
    for seeds in ("1", "2"):
        assert learning_to_talk.main([*command, "--seeds", seeds, "--docs", str(tmp_path / "docs")]) == 0
    assert made == [("dru", 1), ("silent", 1), ("dru", 2), ("silent", 2)]  # members are not run in this game
    assert "| DRU | 2 |" in (tmp_path / "docs" / "learning_to_talk.md").read_text()


def test_a_run_of_another_configuration_or_budget_is_not_taken_for_this_one(tmp_path: Path) -> None:
    trial = Trial(tmp_path, TASKS["relay_3"], "dru", 1, 120.0)
    assert not trial.is_complete()
    trial.path.parent.mkdir()
    kept = result(1, 1.0, condition="dru")
    trial.path.write_text(json.dumps(kept))
    assert trial.is_complete()
    trial.path.write_text(json.dumps({**kept, "seconds": 5.0}))
    with pytest.raises(UserError, match="another seconds"):
        trial.is_complete()
    trial.path.write_text(json.dumps({**kept, "config": document(TASKS["relay_3"], "dru", 2)}))
    with pytest.raises(UserError, match="another config"):
        trial.is_complete()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--tasks", "relay_33"], "--tasks 'relay_33' does not exist; did you mean 'relay_3'?"),
        (["--conditions", "relaxd"], "--conditions 'relaxd' does not exist; did you mean 'relaxed'?"),
        (["--one", "relay_3", "members", "1"], "--conditions members is not run in relay_3"),
        (["--one", "relay_3", "dru", "x"], "the seed is 'x'"),
        (["--page"], "holds no results yet"),
    ],
)
def test_a_users_mistake_is_told(
    arguments: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert learning_to_talk.main(["--out", str(tmp_path), *arguments]) == 2
    assert told in capsys.readouterr().err


def test_a_run_that_fails_is_told_with_the_end_of_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learning_course.sys, "executable", "false")
    with pytest.raises(TrainingError, match="relay_3-dru-1 ended with exit code 1"):
        Trial(tmp_path, TASKS["relay_3"], "dru", 1, 1.0).train()


def test_an_episode_is_over_when_the_road_is_left_not_when_a_car_is() -> None:
    """Seats come back in this game. Who never brakes earns what a script earns that never does, in the same worlds."""
    training = LocalTraining(config_of("traffic_junction", "straight_through"), evaluation_worlds=40)
    for module in training.learner.networks.values():
        last = [layer for layer in module.agent.policy.modules() if hasattr(layer, "bias")][-1]
        torch.nn.init.zeros_(last.weight)
        torch.nn.init.zeros_(last.bias)
        with torch.no_grad():
            last.bias[..., GAS] = 1.0
    returns, metrics = training.evaluate(explore=False, seed=5)
    script = played(TrafficJunctionWorld(num_worlds=40), gas, seed_of(5, WORLD_BRANCH, 0))
    assert returns.sum(1).mean() == pytest.approx(script.reward, rel=1e-5)
    assert metrics["success"] == pytest.approx(script.success)
    assert 10 < metrics["length"] <= 20
    assert not np.array_equal(returns, training.evaluate(explore=False, seed=6)[0])


class Clocked:
    """A training whose CPU time is its own: an iteration takes .5 s and ten episodes, an evaluation .2 s."""

    def __init__(self, solved_after: int, lost_after: int = 10**9) -> None:
        self.episodes = self.env_steps = 0
        self.cpu_s = 0.0
        self.solved_after, self.lost_after = solved_after, lost_after

    def iterate(self) -> None:
        self.cpu_s += 0.5
        self.episodes += 10
        self.env_steps += 30

    def evaluate(self, explore: bool, seed: int | None = None) -> tuple[np.ndarray, dict[str, float]]:
        self.cpu_s += 0.1
        good = self.solved_after <= self.episodes < self.lost_after
        return np.full((4, 3), 1.0 if good else 0.25), {"length": 3.0}


def course(training: Clocked, stays: int) -> dict[str, Any]:
    task = replace(TASKS["relay_3"], stays=stays)
    return Course(Trial(Path(), task, "dru", 1, 20.0), cast(LocalTraining, training)).run()


def test_a_run_that_does_not_meet_its_bar_ends_within_its_budget() -> None:
    told = course(Clocked(solved_after=10**9), stays=1000)
    assert told["met"] is None
    assert 19 < told["curve"][-1][2] <= 20.0
    evaluations = 0.2 * len(told["curve"])
    assert evaluations / 20 <= 0.2


def test_after_the_bar_training_goes_on_beyond_the_budget_and_what_was_lost_is_told() -> None:
    told = course(Clocked(solved_after=100, lost_after=900), stays=1000)
    assert 100 <= told["met"]["episodes"] <= 140
    assert told["curve"][-1][0] >= told["met"]["episodes"] + 1000
    assert told["curve"][-1][2] > 20.0
    assert told["end"] == {"greedy": 0.25, "sampled": 0.25}


def test_a_real_run_of_seconds_leaves_its_file(tmp_path: Path) -> None:
    command = ["--one", "colour_digit", "relaxed", "2", "--out", str(tmp_path), "--seconds", "3"]
    assert learning_to_talk.main(command) == 0
    (file,) = (tmp_path / RESULTS).iterdir()
    kept = json.loads(file.read_text())
    assert file.name == "colour_digit-relaxed-2.json"
    assert kept["config"] == document(TASKS["colour_digit"], "relaxed", 2)
    episodes, env_steps, cpu_s, *returns = kept["curve"][-1]
    assert episodes > 0
    assert 0 <= env_steps - 2 * episodes <= 64  # games that are not over yet, a step in each
    assert cpu_s > 0
    assert all(-3 <= value <= 3 for value in [*returns, kept["end"]["greedy"], kept["end"]["sampled"]])
    before = file.read_bytes()
    assert learning_to_talk.main(command) == 0
    assert file.read_bytes() == before
