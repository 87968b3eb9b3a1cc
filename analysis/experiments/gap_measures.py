"""What the communication gap is measured by: each number from progress.jsonl, per seed, with messages and without."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from popcomm.analysis.experiments.intervals import Difference, difference

RETURN, LENGTH = "charts/agent_episodic_return", "charts/episodic_length"
WORLD_R2, VOCABULARY = "losses/world_r2", "language/vocabulary_used"
EFFECTIVE = "language/vocabulary_effective"
RECONSTRUCTION, PREDICTION = "losses/reconstruction", "losses/prediction"
INFORMATION = "language/mutual_information"

# The start and the end of training, as shares of it.
FIRST, LAST = 0.05, 0.2
# What the project's design promises.
R2_AT_LEAST, R2_NEAR_NONE, VOCABULARY_BELOW = 0.5, 0.1, 0.7


class Claim(NamedTuple):
    """Something the experiment was to show."""

    text: str
    measured: str
    holds: bool


class Gap(NamedTuple):
    """All numbers of the experiment. Lists are [S], one number per seed, nan where it was not measured."""

    seeds: list[int]
    env_steps: int
    returns: dict[str, list[float]]  # {"talking", "silent"}, per agent and episode, at the end
    gap: Difference  # of `returns`
    gap_per_step: Difference  # the same per agent-step
    world_r2: dict[str, list[float]]
    reconstruction: dict[str, list[float]]  # {"first", "last"}, talking
    prediction: dict[str, list[float]]
    vocabulary: dict[str, list[float]]  # share of symbols said at least a tenth as often as by chance
    effective: dict[str, list[float]]  # 2 ** entropy / V
    information: list[float]  # bits, talking, at the end
    controls: dict[str, float]
    minutes: dict[str, float]  # mean training time of a run


def at_end(table: pd.DataFrame, key: str, share: float = LAST) -> float:
    """Mean over the last `share` of training (by environment steps); nan where it was not measured."""
    return _mean(table, key, table["env_steps"] > (1 - share) * table["env_steps"].max())


def at_start(table: pd.DataFrame, key: str, share: float = FIRST) -> float:
    """Mean over the first `share` of training, at least its first measurement; nan where there is none."""
    if key not in table:
        return float("nan")
    measured = table.dropna(subset=[key])
    begins = measured["env_steps"] <= max(share * table["env_steps"].max(), measured["env_steps"].min())
    return _mean(measured, key, begins)


def _mean(table: pd.DataFrame, key: str, rows: Any) -> float:
    return float(table.loc[rows, key].mean()) if key in table else float("nan")


def common_horizon(tables: Sequence[pd.DataFrame]) -> list[pd.DataFrame]:
    """The tables up to where the shortest ends: a run trained for longer must not win by that."""
    horizon = min(int(table["env_steps"].max()) for table in tables)
    return [table[table["env_steps"] <= horizon] for table in tables]


def measure(
    seeds: Sequence[int],
    talking: Sequence[pd.DataFrame],
    silent: Sequence[pd.DataFrame],
    controls: Mapping[str, float],
) -> Gap:
    """Everything from the runs' tables; run s of both lists has the seed seeds[s]."""
    tables = common_horizon([*talking, *silent])
    arms = {"talking": tables[: len(seeds)], "silent": tables[len(seeds) :]}
    returns = {name: [at_end(t, RETURN) for t in arm] for name, arm in arms.items()}
    per_step = {
        name: np.array(returns[name]) / np.array([at_end(t, LENGTH) for t in arm]) for name, arm in arms.items()
    }

    def both(key: str) -> dict[str, list[float]]:
        return {"first": [at_start(t, key) for t in arms["talking"]], "last": [at_end(t, key) for t in arms["talking"]]}

    return Gap(
        seeds=list(seeds),
        env_steps=int(tables[0]["env_steps"].max()),
        returns=returns,
        gap=difference(returns["talking"], returns["silent"]),
        gap_per_step=difference(per_step["talking"], per_step["silent"]),
        world_r2={name: [at_end(t, WORLD_R2) for t in arm] for name, arm in arms.items()},
        reconstruction=both(RECONSTRUCTION),
        prediction=both(PREDICTION),
        vocabulary=both(VOCABULARY),
        effective=both(EFFECTIVE),
        information=[at_end(t, INFORMATION) for t in arms["talking"]],
        controls=dict(controls),
        minutes={name: float(np.mean([t["time_s"].max() for t in arm])) / 60 for name, arm in arms.items()},
    )


def claims(gap: Gap) -> list[Claim]:
    """What was to be shown, what was found, and whether it holds. What was not measured does not hold."""
    r2 = {name: np.mean(values) for name, values in gap.world_r2.items()}
    interval = gap.gap.paired
    return [
        Claim(
            "Agents that talk get more than silent ones: the 95 % interval of the difference excludes 0",
            f"{gap.gap.mean:+.2f} {interval.shown(2)} per agent and episode",
            interval.low > 0 and gap.gap.unpaired.low > 0,
        ),
        Claim(
            f"Messages tell the state of the world: R² of the world estimator above {R2_AT_LEAST}",
            f"{r2['talking']:.2f}",
            bool(r2["talking"] > R2_AT_LEAST),
        ),
        Claim(
            f"Without messages it knows next to nothing: R² below {R2_NEAR_NONE}",
            f"{r2['silent']:.2f}",
            bool(r2["silent"] < R2_NEAR_NONE),
        ),
        _falls("The sender's observation is reconstructed from its message better and better", gap.reconstruction),
        _falls("The next observation is predicted better and better", gap.prediction),
        Claim(
            f"The language settles on a part of its symbols: vocabulary use below {VOCABULARY_BELOW:.0%} at the end",
            f"{np.mean(gap.vocabulary['first']):.0%} → {np.mean(gap.vocabulary['last']):.0%}",
            bool(np.mean(gap.vocabulary["last"]) < VOCABULARY_BELOW),
        ),
    ]


def _falls(text: str, losses: Mapping[str, Sequence[float]]) -> Claim:
    """Holds if the loss falls in every seed."""
    first, last = np.array(losses["first"]), np.array(losses["last"])
    return Claim(
        f"{text}: its loss falls in every seed", f"{first.mean():.3f} → {last.mean():.3f}", bool((last < first).all())
    )
