"""tune.scheduler and tune.search: what each rule needs, and the exact sentence for each mistake."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from popcomm.cli.between_runs import PBT, BetweenRuns
from popcomm.cli.search_space import search
from popcomm.cli.sweep import checked_trials
from popcomm.cli.sweep_rules import make_sampler
from popcomm.errors import UserError
from popcomm.evolution import Generation, Strategy, Traits, chosen, lived
from popcomm.evolution.generation import Ints

SPACE = {"training.lr": {"loguniform": [1e-4, 1e-2]}, "population.members": {"choice": [2, 4]}}
LR = {"training.lr": SPACE["training.lr"]}
WORLD = {
    "environment": {"env": "swarm_v0", "env_config": {"num_agents": 4}},
    "population": {"agent": "symbolic"},
    "env_runners": {"num_worlds_per_env_runner": 4},
    "stop": {"training_iteration": 20},
}
TOP = {"kind": "population_survival", "strategy": {"kind": "top_k", "k": 1}, "every": 6}


class Anew(Strategy):
    def select(self, generation: Generation, traits: Traits, rng: np.random.Generator) -> Ints:
        return np.full(generation.members, -1)


def searched(scheduler: Any, document: dict[str, Any] | None = None, **tune: Any) -> Any:
    given = {"param_space": SPACE, "num_samples": 4, "metric": "charts/reward", "scheduler": scheduler}
    return search({**(document or {}), "tune": {**given, **tune}})


def trials(scheduler: Any, document: dict[str, Any] | None = None, **tune: Any) -> list[Any]:
    """The configs of the trials that stand for all, checked."""
    whole = {**WORLD, **(document or {})}
    return checked_trials(whole, searched(scheduler, whole, **tune))


@pytest.mark.parametrize(
    ("scheduler", "tune", "said"),
    [
        ("ash", {}, "tune.scheduler.kind 'ash' does not exist; did you mean 'asha'?"),
        (3, {}, "tune.scheduler is 3, and must be one of asha, median_stopping, pbt, population_survival"),
        ({"kind": "asha", "grace": 2}, {}, "the argument 'grace' does not exist; did you mean 'grace_period'?"),
        (
            "asha",
            {},
            "tune.scheduler.max_t is missing: how many iterations a trial has, or name stop.training_iteration",
        ),
        ({"kind": "asha", "reduction_factor": 1}, {}, "tune.scheduler.reduction_factor is 1, and must be a finite"),
        (
            {"kind": "asha", "reduction_factor": float("inf")},
            {},
            "tune.scheduler.reduction_factor is inf, and must be a",
        ),
        ({**TOP, "perturbation": float("inf")}, {}, "tune.scheduler.perturbation is inf, and must be a finite number"),
        ({**TOP, "strategy": {"kind": f"{__name__}:Anew"}}, {}, "Anew returned -1, one that is made anew, and must"),
        ({"kind": "asha", "max_t": 2}, {"metric": None}, "tune.metric is missing: tune.scheduler goes by it"),
        (
            {"kind": "median_stopping", "min_samples_required": 4},
            {},
            "the sweep has 4 trials, so that it would end none",
        ),
        ({"kind": "pbt", "quantile_fraction": 0.6}, {}, "tune.scheduler.quantile_fraction is 0.6, and must be above 0"),
        ("pbt", {"num_samples": 1}, "selection needs 2 trials or more; raise tune.num_samples"),
        ("pbt", {"search": "optuna"}, "with tune.scheduler children's values come from their parents"),
        ({**TOP, "hyperparameters": ["training.gamma"]}, {}, "'training.gamma' is none of tune.param_space"),
        ({**TOP, "hyperparameters": ["population.members"]}, {}, "population.members stays for the life of a run"),
        (
            {**TOP, "hyperparameters": {"training.lr": {"uniform": [0, 1]}}},
            {},
            "tune.scheduler.hyperparameters is {'training.lr': {'uniform': [0, 1]}}, and must be a list of keys of "
            "tune.param_space, where their ranges are",
        ),
        (
            {"kind": "pbt", "hyperparam_mutations": {"training.lr": [0.1, 0.2]}},
            {},
            "tune.scheduler.hyperparam_mutations is {'training.lr': [0.1, 0.2]}, and must be a list of keys of",
        ),
        ({"kind": "pbt", "hyperparam_mutations": 3}, {}, "hyperparam_mutations is 3, and must be a list of keys of"),
        ({"kind": "pbt", "perturbation_factors": 2}, {}, "perturbation_factors is 2, and must be two factors"),
        ({**TOP, "strategy": {"kind": "novelty"}}, {}, "tune.scheduler.strategy Novelty cannot select runs"),
        (
            {**TOP, "strategy": {"kind": "age_limit", "age": 2}},
            {},
            "tune.scheduler.strategy AgeLimit cannot select runs",
        ),
        ({**TOP, "strategy": {"kind": "top_k", "k": 9}}, {}, "tune.scheduler.strategy: k is 9"),
        (None, {"search": "optunas"}, "tune.search is 'optunas'; did you mean 'optuna'?"),
        (None, {"search": "optuna", "metric": None}, "tune.metric is missing: tune.search goes by it"),
        (None, {"max_failures": -1}, "tune.max_failures is -1, and must be at least 0"),
    ],
)
def test_a_wrong_rule_is_told(scheduler: Any, tune: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as caught:
        searched(scheduler, **tune)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"stop": {"training_iteration": "ten"}}, "stop.training_iteration is 'ten', and must be a number"),
        ({"stop": {"training_iteration": [20]}}, "stop.training_iteration is [20], and must be a number"),
        (
            {"stop": {"training_iteration": 20}, "debugging": {"seed": "x"}},
            "debugging.seed is 'x', and must be a whole",
        ),
        ({"debugging": {"seed": -1}}, "debugging.seed is -1, and must be a whole number between 0 and 4294967295"),
        ({"debugging": {"seed": 2**32}}, "debugging.seed is 4294967296, and must be a whole number between 0 and 42"),
    ],
)
@pytest.mark.parametrize("scheduler", ["asha", TOP], ids=["asha", "population_survival"])
def test_a_wrong_value_in_another_section_is_told_as_in_a_training(
    scheduler: Any, sections: dict[str, Any], said: str
) -> None:
    with pytest.raises(UserError) as caught:
        searched(scheduler, {"stop": {"training_iteration": 20}, **sections})
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("scheduler", "key"),
    [
        ({"kind": "asha"}, "grace_period"),
        ({"kind": "asha", "max_t": 40}, "grace_period"),
        ({"kind": "median_stopping"}, "grace_period"),
        (TOP, "every"),
        ({"kind": "pbt"}, "perturbation_interval"),
    ],
)
def test_a_rule_that_would_first_act_when_trials_have_ended_is_refused(scheduler: dict[str, Any], key: str) -> None:
    assert trials({**scheduler, key: 19})
    for first in (20, 21):
        with pytest.raises(UserError) as caught:
            trials({**scheduler, key: first})
        said = f"tune.scheduler.{key} is {first}, and a trial has 20 iterations, so that tune.scheduler would never act"
        assert said in str(caught.value)


@pytest.mark.parametrize("scheduler", [{"kind": "asha", "grace_period": 10}, {**TOP, "every": 10}])
def test_a_rule_that_would_never_act_on_one_of_the_trials_is_refused_with_what_that_one_has(
    scheduler: dict[str, Any],
) -> None:
    length = "stop.training_iteration"
    with pytest.raises(UserError, match=r"^lr=0.0001,training_iteration=10: tune.scheduler.* a trial has 10 iter"):
        trials(scheduler, param_space={**LR, length: {"grid_search": [30, 10]}})
    with pytest.raises(UserError, match="a trial has 5 iterations"):
        trials(scheduler, param_space={**LR, length: {"randint": [5, 90]}})
    # What the file says of all is no matter where each trial has its own.
    assert trials(scheduler, {"stop": {"training_iteration": 2}}, param_space={**LR, length: {"choice": [30, 11]}})


def test_rungs_go_as_far_as_the_longest_trial() -> None:
    length = "stop.training_iteration"
    found = searched("asha", {"stop": {"time_total_s": 9}}, param_space={**LR, length: {"choice": [10, 30]}})
    assert found.rule.longest(found.iterations) == 30
    bounded = {length: {"choice": [10, 30], "when": {"training.gamma": 0.5}}}
    with pytest.raises(UserError, match=r"tune.scheduler.max_t is missing"):  # one of them may have no end
        searched("asha", param_space={**LR, "training.gamma": {"choice": [0.5, 0.9]}, **bounded})


def test_values_of_other_sections_count_as_a_training_takes_them() -> None:
    sections = {
        "stop": {"training_iteration": "20"},
        "debugging": {"seed": "3"},
    }
    found = searched(TOP, sections)
    assert (found.seed, found.iterations) == (3, 20)
    assert searched("asha", sections).rule.longest(found.iterations) == 20
    assert searched("asha", {**sections, "debugging": {"seed": 3.0}}).seed == 3


def test_optuna_draws_from_ranges_and_choices_alone() -> None:
    space = {"training.lr": {"grid_search": [0.1]}}
    with pytest.raises(
        UserError, match=r"tune.param_space.training.lr is a grid_search, which tune.search optuna cannot"
    ):
        searched(None, search="optuna", param_space=space)
    assert searched(None, search="optuna").sampler == "optuna"


def test_optuna_that_is_not_installed_is_told_with_the_extra_that_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'popcomm\[optuna\]'"):
        make_sampler("optuna")


@pytest.mark.parametrize(("saved", "fits"), [(None, True), (3, True), (6, True), (4, False), (0, False)])
def test_checkpoints_must_fall_on_the_ends_of_generations(saved: int | None, fits: bool) -> None:
    document = {} if saved is None else {"recording": {"checkpoint_every": str(saved)}}
    if fits:
        assert {config.checkpoint_every for config in trials(TOP, document)} == {saved or 6}
        return
    with pytest.raises(UserError, match=f"recording.checkpoint_every is {saved}, and must divide the 6 iterations"):
        trials(TOP, document)


def test_no_trial_of_a_selection_between_runs_has_checkpoints_of_its_own() -> None:
    saved = {"recording.checkpoint_every": {"choice": [6, 0]}}
    with pytest.raises(UserError, match=r"tune.param_space.recording.checkpoint_every: .* children begin with checkp"):
        searched(TOP, param_space={**LR, **saved})
    assert trials({"kind": "asha", "grace_period": 10}, param_space={**LR, **saved})


def test_what_is_learned_with_is_varied_unless_keys_are_named() -> None:
    rule = searched(TOP).rule
    assert isinstance(rule, BetweenRuns)
    assert rule.varied(["training.lr", "environment.env_config.num_agents", "survival.every"]) == (
        "training.lr",
        "survival.every",
    )


def test_what_networks_are_made_of_is_varied_where_it_is_named_alone() -> None:
    """A child whose network has other parts could not take over its parent's population."""
    keys = [
        "training.lr",
        "survival.newborns",
        "survival.hyperparameters.lr",
        "training.quality_coeff",
        "survival.every",
    ]
    assert searched(TOP).rule.varied(keys) == ("training.lr", "survival.every")
    space = {"training.quality_coeff": {"uniform": [0.1, 0.5]}}
    named = searched({**TOP, "hyperparameters": ["training.quality_coeff"]}, param_space=space).rule
    assert named.varied(space) == ("training.quality_coeff",)
    with pytest.raises(UserError, match="leaves networks the parts that they have, so that children would differ"):
        searched(TOP, param_space=space)


@pytest.mark.parametrize(
    ("scheduler", "key"),
    [(TOP, "hyperparameters"), ({"kind": "pbt", "perturbation_interval": 6}, "hyperparam_mutations")],
)
def test_a_selection_that_varies_nothing_says_so_unless_that_is_asked_for(scheduler: Any, key: str) -> None:
    space = {"environment.env_config.num_agents": {"choice": [2, 4]}}
    with pytest.raises(UserError, match=f"differ from their parents in nothing.*in tune.scheduler.{key}"):
        searched(scheduler, param_space=space)
    assert searched({**scheduler, key: []}, param_space=space).rule.varied(space) == ()


def test_pbt_replaces_the_worst_quarter_by_children_of_the_best() -> None:
    fitness = np.array([3.0, 1.0, 8.0, 2.0, 7.0, 4.0, 5.0, 6.0])
    generation = lived(Generation.first(8), fitness)
    strategy = PBT(quantile_fraction=0.25).strategy_of(8)
    for seed in range(10):
        sources = chosen(strategy, generation, {}, np.random.default_rng(seed))
        assert sorted(np.flatnonzero(sources != np.arange(8))) == [1, 3]
        assert set(sources[[1, 3]]) <= {2, 4}
    # Of two runs, one is replaced.
    pair = lived(Generation.first(2), np.array([0.0, 1.0]))
    assert chosen(PBT().strategy_of(2), pair, {}, np.random.default_rng(0)).tolist() == [1, 1]
