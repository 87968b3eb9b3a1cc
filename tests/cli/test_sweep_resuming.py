"""A sweep that goes on: what may be otherwise, and the exact sentence for what would have no effect."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from popcomm.cli import main as cli
from popcomm.cli.search_space import Search, search
from popcomm.cli.sweep import at_a_time
from popcomm.cli.sweep_resuming import check_resumed
from popcomm.errors import UserError

TUNE = {"param_space": {"training.lr": {"grid_search": [0.1, 0.2, 0.3]}}, "metric": "charts/reward"}
OTHER_STOP = {"stop.training_iteration": "is 40, and was 20"}


def searched(**tune: Any) -> Search:
    return search({"stop": {"training_iteration": 40}, "tune": {**TUNE, **tune}})


@pytest.fixture
def begun(tmp_path: Path) -> Path:
    """The folder of a sweep of three trials: one is done, one was ended by a scheduler, one goes on."""
    (tmp_path / "tuner.pkl").touch()
    for name in ("00000_a", "00001_b", "00002_c"):
        (tmp_path / name).mkdir()
    (tmp_path / "00000_a/report.html").touch()
    line = {"trial": "00002_c", "iteration": 1, "value": 0.5, "decision": "STOP"}
    (tmp_path / "decisions.jsonl").write_text(json.dumps(line) + "\n")
    return tmp_path


def refusal(folder: Path, wanted: Search, changed: dict[str, str], max_concurrent: int | None = None) -> str:
    with pytest.raises(UserError) as caught:
        check_resumed(folder, wanted, changed, max_concurrent)
    return str(caught.value)


def test_another_bound_is_of_the_trials_that_have_not_ended_and_the_others_are_listed(begun: Path) -> None:
    said = ("these trials have ended, and stay as they are: 00000_a, 00002_c",)
    assert check_resumed(begun, searched(), OTHER_STOP, None) == said
    assert check_resumed(begun, searched(), {}, None) == ()


def test_another_bound_is_refused_where_all_trials_have_ended(begun: Path) -> None:
    (begun / "00001_b/report.html").touch()
    assert refusal(begun, searched(), OTHER_STOP) == (
        "--resume: stop.training_iteration is 40, and was 20, and all 3 trials have ended, and stay as they are; "
        f"popcomm train --run-dir {begun}/00000_a --resume, with the same --set, goes on with one"
    )
    assert check_resumed(begun, searched(), {}, None) == ()


def test_another_bound_is_refused_where_each_trial_has_one_of_its_own(begun: Path) -> None:
    length = {"stop.training_iteration": {"grid_search": [10, 20, 30]}}
    said = "--resume: stop.training_iteration is 40, and was 20, and has no effect: trials have it of tune.param_space"
    assert refusal(begun, searched(param_space=length), OTHER_STOP) == said
    assert check_resumed(begun, searched(param_space=length), {"stop.time_total_s": "is 1, and was 2"}, None)


def test_a_bound_of_which_rungs_were_made_cannot_change(begun: Path) -> None:
    said = "of which the rungs of tune.scheduler asha were made, and cannot change"
    assert said in refusal(begun, searched(scheduler="asha"), OTHER_STOP)
    assert check_resumed(begun, searched(scheduler={"kind": "asha", "max_t": 9}), OTHER_STOP, None)
    assert check_resumed(begun, searched(scheduler="asha"), {"stop.time_total_s": "is 1, and was 2"}, None)


def test_trials_at_a_time_stay_as_a_sweep_began(begun: Path) -> None:
    began = search(at_a_time({"tune": TUNE}, 2))
    assert began.max_concurrent_trials == 2
    assert check_resumed(begun, began, {}, 2) == check_resumed(begun, began, {}, None) == ()
    assert refusal(begun, began, {}, 3) == "--max-concurrent is 3, and stays 2, as the sweep began; leave it out"
    assert "is 3, and stays as many as there were CPUs for, as the sweep began" in refusal(begun, searched(), {}, 3)
    assert at_a_time({"tune": TUNE}, None) == {"tune": TUNE}


def test_a_sweep_that_had_not_begun_does_as_it_is_told(begun: Path) -> None:
    (begun / "tuner.pkl").unlink()
    assert check_resumed(begun, searched(scheduler="asha"), OTHER_STOP, 3) == ()


@pytest.mark.parametrize(
    ("option", "said"),
    [
        (["--set", "tune.scheduler={kind: asha}"], "tune.scheduler.kind is 'asha', and was null"),
        (["--max-concurrent", "3"], "--max-concurrent is 3, and stays as many as there were CPUs for"),
    ],
)
def test_a_sweep_that_goes_on_is_refused_before_any_work(
    capsys: pytest.CaptureFixture[str], begun: Path, option: list[str], said: str
) -> None:
    document = {"environment": {"env": "swarm_v0"}, "stop": {"training_iteration": 20}, "tune": TUNE}
    (begun / "config.yaml").write_text(yaml.safe_dump(document))
    assert cli.main(["sweep", "--run-dir", str(begun), "--resume", *option]) == 2
    assert said in capsys.readouterr().err
