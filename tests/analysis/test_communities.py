"""The communities experiment: its measures by hand, its page from runs made by hand."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from popcomm.analysis.experiments import communities, records
from popcomm.analysis.experiments.intervals import paired

from popcomm.agents.seating import SeatingRule, draw
from popcomm.errors import UserError
from popcomm.language import progress
from popcomm.rollout.crossplay import CrossPlay

# Four speakers in two communities; three meanings of one attribute, said with one symbol.
MESSAGES = np.array([[1, 2, 3], [1, 2, 4], [5, 6, 7], [5, 6, 3]])[..., None]
ACCURACY = np.array([[1, 1, 0, 0], [1, 0.5, 0, 0.25], [0, 0, 1, 1], [0.25, 0, 1, 0.5]])


def test_members_of_equal_groups_belong_together() -> None:
    same = communities.same_community(4, 2)
    assert same.tolist() == [[True, True, False, False]] * 2 + [[False, False, True, True]] * 2


def test_distance_is_the_share_of_meanings_with_other_messages() -> None:
    assert communities.distances(MESSAGES)[0].tolist() == pytest.approx([0, 1 / 3, 1, 2 / 3])


def test_pairs_are_averaged_within_and_between_communities() -> None:
    found = communities.measure(CrossPlay(ACCURACY, ACCURACY, MESSAGES, np.arange(3)[:, None]), 2)
    assert found["within"] == pytest.approx(7 / 8)
    assert found["between"] == pytest.approx(0.5 / 8)
    # A speaker's distance from itself does not count: two pairs that differ in one meaning of three.
    assert found["distance_within"] == pytest.approx(1 / 3)
    assert found["distance_between"] == pytest.approx((3 + 2 + 3 + 3) / 12)


@pytest.mark.parametrize(("groups", "mixing"), [(2, 0.3), (3, 0.5), (3, 1.0)])
def test_the_share_of_conversations_across_is_that_of_the_seating(groups: int, mixing: float) -> None:
    rng, rule = np.random.default_rng(0), SeatingRule("communities", groups, mixing)
    speaker, listener = (draw(rng, 30_000, 1, 6, rule) * groups // 6 for _ in range(2))
    expected = communities.exchange(groups, mixing)
    assert abs((speaker != listener).mean() - expected) < 4 * (expected * (1 - expected) / 30_000) ** 0.5
    assert communities.exchange(groups, 0.0) == 0


def test_the_configuration_seats_the_communities_and_is_valid() -> None:
    for groups, mixing in communities.ARMS:
        config = communities.settings(groups, mixing, 1)
        config.validate()
        assert config.minibatch_size % config.plan.balanced_block == 0


def record(groups: int, mixing: float, seed: int, between: float, distance: float) -> dict[str, Any]:
    numbers = {"within": 1.0, "between": between, "distance_within": 0.3, "distance_between": distance}
    shared = {"communities": groups, "mixing": mixing, "seed": seed, "asked": 1000, "exchange": 0.1}
    rest = {"messages": 1008, "sampled_accuracy": 0.5, "seconds": 1.0, "matrix": np.eye(6).tolist()}
    return {**shared, **numbers, **rest, "curve": [{"messages": m, **numbers} for m in (0, 1008)]}


def made(between: float = 0.9, chance: float = 0.01) -> list[dict[str, Any]]:
    """Two seeds of two communities, at three mixings."""
    rows = [(0.0, chance, 1.0), (0.05, between, 0.6), (1.0, 1.0, 0.3)]
    return [record(2, m, s, max(0, b - 0.002 * s), d + 0.01 * s) for s in (1, 2) for m, b, d in rows]


def verdicts(records: list[dict[str, Any]]) -> list[bool]:
    return [claim.holds for claim in communities.claims(communities.grouped(records))]


def test_claims_hold_or_not_by_what_was_measured() -> None:
    assert verdicts(made()) == [True] * 4
    assert verdicts(made(between=0.01)) == [True, False, True, True]
    assert verdicts(made(chance=0.2)) == [False, True, True, True]
    assert verdicts([r for r in made() if r["seed"] == 1]) == [True, False, False, True]  # no interval, no claim


def planned(out: Path, *arguments: str) -> list[records.Trial]:
    options = {"seeds": 1, "messages": 1000} | dict(zip(("seeds", "messages"), map(int, arguments), strict=False))
    return communities.planned(argparse.Namespace(out=out, **options))


def test_a_run_is_known_by_all_that_decides_it(tmp_path: Path) -> None:
    for made_already in made():
        progress.append(tmp_path / records.RESULTS, made_already)
    known = [trial.key for trial in planned(tmp_path, "3") if trial.is_complete()]
    assert {(key["communities"], key["mixing"], key["seed"]) for key in known} == {
        (2, mixing, seed) for mixing in (0.0, 0.05, 1.0) for seed in (1, 2)
    }
    assert not any(trial.is_complete() for trial in planned(tmp_path, "3", "2000"))


def test_what_is_made_already_is_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked_for: list[tuple[float, int]] = []

    def isolated(train: Any, communities: int, mixing: float, seed: int, asked: int) -> dict[str, Any]:
        asked_for.append((mixing, seed))
        return record(communities, mixing, seed, mixing, 1 - mixing)

    monkeypatch.setattr(records, "isolated", isolated)
    monkeypatch.setattr(communities, "ARMS", ((2, 0.0), (2, 0.05)))
    docs = tmp_path / "docs"
    for seeds in ("1", "2"):
        assert (
            communities.main(["--seeds", seeds, "--messages", "1000", "--out", str(tmp_path), "--docs", str(docs)]) == 0
        )
    assert asked_for == [(0.0, 1), (0.05, 1), (0.0, 2), (0.05, 2)]
    assert {file.name for file in docs.iterdir()} == {f"communities.{end}" for end in ("md", "png", "json")}
    page = (tmp_path / "communities.md").read_text()
    assert (
        "| 2 | 0.05 | 0.100 | 2 | 1.000 (1.000 to 1.000) | 0.050 (0.050 to 0.050) | +0.950 [+0.950, +0.950] |" in page
    )


def test_runs_of_another_length_are_no_seeds_of_the_page(tmp_path: Path) -> None:
    """As after a short try in the same folder: its rows stand there, and count for nothing."""
    for asked, between in ((1000, 0.5), (600_000, 0.9)):
        for seed in (1, 2):
            row = record(2, 0.05, seed, between, 0.4) | {"asked": asked}
            progress.append(tmp_path / records.RESULTS, row)
    options = argparse.Namespace(out=tmp_path, messages=600_000)
    assert [row["between"] for row in communities.results(options, [])] == [0.9, 0.9]
    with pytest.raises(UserError, match="no results of asked 7, only of runs of another length"):
        communities.results(argparse.Namespace(out=tmp_path, messages=7), [])


def test_a_seed_that_stands_twice_in_an_arm_is_refused() -> None:
    once, twice = [{"seed": 1, "x": 1.0}, {"seed": 2, "x": 2.0}], [{"seed": 2, "x": 0.0}, {"seed": 2, "x": 9.0}]
    for arms in ((once, twice), (twice, once)):
        with pytest.raises(UserError, match="seed 2 stands twice among the runs of one arm"):
            paired(*arms, lambda run: run["x"])
