"""Faults at a file operation: a run that is killed, or whose disk is full, goes on as if nothing had been."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from popcomm.analysis.faults import __main__ as command
from popcomm.analysis.faults import local_run
from popcomm.analysis.faults.local_run import FAILED, Ended, Records

KILLED = -9
# Operations of a run that are tried here, of all; `python -m popcomm.analysis.faults` tries each.
TRIED = 3


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Ended, Records]:
    """How a run ends that nothing happens to, and what it leaves."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    ended = local_run.run(folder)
    assert ended.code == 0, ended.printed
    return ended, local_run.records(folder)


def test_moments_are_those_of_the_seed_and_all_of_them_where_no_number_is_said(whole: tuple[Ended, Records]) -> None:
    everything = local_run.moments(whole[0], None, 1)
    some = local_run.moments(whole[0], 20, 1)
    assert len(set(some)) == 20
    assert set(some) < set(everything)
    assert some == local_run.moments(whole[0], 20, 1) != local_run.moments(whole[0], 20, 2)
    assert local_run.moments(whole[0], 10_000, 1) == everything
    harmed = local_run.moments(whole[0], None, 1, local_run.disk_full)
    assert harmed == everything[: len(harmed)]
    assert not any(done.startswith(local_run.WRITING) for done in whole[0].operations[harmed[-1] : everything[-1]])


def test_a_run_that_is_killed_goes_on_as_if_it_had_not_been(whole: tuple[Ended, Records], tmp_path: Path) -> None:
    for at in local_run.moments(whole[0], TRIED, 1):
        run_dir = tmp_path / str(at)
        assert local_run.run(run_dir, fault=local_run.kill, at=at).code == KILLED
        ended = local_run.run(run_dir, resume=True)
        assert ended.code == 0, ended.printed
        assert local_run.records(run_dir) == whole[1], whole[0].operations[at - 1]


def test_a_run_whose_disk_is_full_says_so_and_goes_on_when_there_is_room(
    whole: tuple[Ended, Records], tmp_path: Path
) -> None:
    for at in local_run.moments(whole[0], TRIED, 2, local_run.disk_full):
        run_dir = tmp_path / str(at)
        ended = local_run.run(run_dir, fault=local_run.disk_full, at=at, lasting=True)
        assert ended.code == FAILED
        said = f"UserError: --run-dir {run_dir} cannot be written any more: No space left on device; what was saved"
        assert ended.printed.splitlines()[-1].startswith(said)
        ended = local_run.run(run_dir, resume=True)
        assert ended.code == 0, ended.printed
        assert local_run.records(run_dir) == whole[1], whole[0].operations[at - 1]


def test_a_run_that_is_killed_before_its_first_checkpoint_has_nothing_to_go_on_from(
    whole: tuple[Ended, Records], tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    assert local_run.run(run_dir, fault=local_run.kill, at=local_run.first_checkpoint(whole[0])).code == KILLED
    ended = local_run.run(run_dir, resume=True)
    assert ended.code == FAILED
    assert "UserError: " in ended.printed
    assert "holds no valid checkpoint" in ended.printed


def test_the_page_names_the_faults_of_the_command_and_no_others() -> None:
    page = (Path(__file__).parents[2] / "docs/operations.md").read_text(encoding="utf-8")
    rows = [line for line in page.split("## Faults on purpose")[1].splitlines() if line.startswith("| ")][1:]
    named = [name.strip('"') for row in rows for name in re.findall("`([^`]+)`", row.rsplit("|", 2)[1])]
    assert set(named) == {*command.ALL, "python -m popcomm.analysis.faults.nodes"}


def test_a_fault_that_harms_nobody_proves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_run, "run", lambda *args, **kwargs: Ended(0, "", ["open /a", "open /b"]))
    monkeypatch.setattr(local_run, "records", lambda run_dir: None)
    monkeypatch.setattr(local_run, "moments", lambda *args: [2])
    with pytest.raises(AssertionError, match="kill at 2, open /b: the run ended as if nothing had been"):
        command._try_file_operations(tmp_path, 1, 1, ["kill"])


@pytest.mark.parametrize("moments", ["0", "-3", "some"])
def test_a_number_of_moments_that_is_none_is_told(moments: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.main(["--only", "files", f"--moments={moments}"])
    assert f"it is '{moments}', and must be a whole number of at least 1" in capsys.readouterr().err
