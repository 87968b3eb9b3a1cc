"""Manifests: which checkpoint is taken, why others are not, which are removed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from popcomm.identity import IDENTITY, identify, run_id
from popcomm.manifest import (
    MANIFEST,
    CheckpointError,
    clear_leftovers,
    files_of,
    find,
    latest_valid,
    prune,
    put_in_place,
    verify,
)


def save(folder: Path, iteration: int, **more: Any) -> Path:
    """A checkpoint of one file."""
    checkpoint = folder / f"checkpoint_{iteration:06d}"
    checkpoint.mkdir(parents=True)
    (checkpoint / "weights").write_bytes(bytes([iteration]))
    about = {"files": files_of(checkpoint), "iteration": iteration, **more}
    (checkpoint / MANIFEST).write_text(json.dumps(about))
    return checkpoint


def damage(checkpoint: Path) -> None:
    (checkpoint / "weights").write_bytes(b"other")


def names(folder: Path) -> list[str]:
    return sorted(path.name[-1] for path in folder.iterdir())


def test_the_newest_that_holds_is_found_and_newer_ones_are_told(tmp_path: Path) -> None:
    held = save(tmp_path, 1)
    damage(save(tmp_path, 2))
    (save(tmp_path, 3) / MANIFEST).write_text("[]")
    found = find(tmp_path)
    assert found.path == held
    assert [reason.partition("checkpoint_")[2][:6] for reason in found.refused] == ["000003", "000002"]
    assert "the file weights is not the one that was saved" in found.refused[1]


def test_a_checkpoint_of_another_run_is_passed_over(tmp_path: Path) -> None:
    own, other = save(tmp_path, 1, run={"id": "own"}), save(tmp_path, 2, run={"id": "other"})
    assert find(tmp_path, run="own").path == own
    assert "is of another run" in find(tmp_path, run="own").refused[0]
    assert find(tmp_path).path == other  # who does not say which run gets any


def test_a_checkpoint_from_before_runs_had_ids_is_of_any_run(tmp_path: Path) -> None:
    assert find(tmp_path, run="own").path is None
    older = save(tmp_path, 1)
    assert find(tmp_path, run="own").path == older


@pytest.mark.parametrize(
    "change",
    [
        {"files": []},
        {"files": None},
        {"files": {"weights": 3}},
        {"files": {"weights": {"size": 1}}},
        {"files": {"weights": {"size": "1", "sha256": ""}}},
        {"files": {"../weights": {"size": 1, "sha256": ""}}},
        {"files": {"/weights": {"size": 1, "sha256": ""}}},
        {"iteration": None},
        {"iteration": "x"},
        {"iteration": True},
    ],
)
def test_a_manifest_of_another_shape_is_damaged(tmp_path: Path, change: dict[str, Any]) -> None:
    checkpoint = save(tmp_path, 1)
    about = json.loads((checkpoint / MANIFEST).read_text())
    (checkpoint / MANIFEST).write_text(json.dumps(about | change))
    with pytest.raises(CheckpointError, match="damaged manifest"):
        verify(checkpoint)
    assert latest_valid(tmp_path) is None


@pytest.mark.parametrize("text", ["[" * 100_000, "\udcff", "{", "null"])
def test_a_manifest_that_is_no_json_is_damaged(tmp_path: Path, text: str) -> None:
    checkpoint = save(tmp_path, 1)
    (checkpoint / MANIFEST).write_text(text, errors="surrogateescape")
    with pytest.raises(CheckpointError, match="damaged manifest"):
        verify(checkpoint)


def test_the_newest_are_kept(tmp_path: Path) -> None:
    for iteration in range(1, 6):
        save(tmp_path, iteration)
    prune(tmp_path, 2)
    assert names(tmp_path) == ["4", "5"]


def test_the_last_that_holds_is_kept_beside_damaged_ones(tmp_path: Path) -> None:
    for iteration in range(1, 6):
        save(tmp_path, iteration)
    damage(tmp_path / "checkpoint_000005")
    damage(tmp_path / "checkpoint_000004")
    prune(tmp_path, 2)
    assert names(tmp_path) == ["3", "4", "5"]
    assert latest_valid(tmp_path) == tmp_path / "checkpoint_000003"


def test_checkpoints_of_another_run_neither_count_nor_go(tmp_path: Path) -> None:
    save(tmp_path, 1, run={"id": "own"})
    save(tmp_path, 2, run={"id": "own"})
    save(tmp_path, 9, run={"id": "other"})
    prune(tmp_path, 1, "own")
    assert names(tmp_path) == ["2", "9"]


def test_what_is_half_written_is_no_checkpoint_and_can_be_cleared(tmp_path: Path) -> None:
    whole = save(tmp_path, 1)
    save(tmp_path, 2).rename(tmp_path / ".checkpoint_000002.x1")
    assert latest_valid(tmp_path) == whole
    clear_leftovers(tmp_path)
    assert names(tmp_path) == ["1"]


def test_a_run_keeps_its_id(tmp_path: Path) -> None:
    assert run_id(tmp_path) is None
    first = identify(tmp_path / "a")
    assert identify(tmp_path / "a") == first
    assert run_id(tmp_path / "a") == first["id"]
    assert identify(tmp_path / "b")["id"] != first["id"]
    (tmp_path / "a" / IDENTITY).write_text("[]")
    assert run_id(tmp_path / "a") is None


@pytest.mark.parametrize("dies_at", [1, 2])
def test_one_that_is_replaced_is_there_until_the_new_one_is(
    dies_at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    older, newer = save(tmp_path, 1), save(tmp_path / "made", 2)
    calls = iter(range(1, 9))

    def replace(source: Path, target: Path) -> None:
        if next(calls) == dies_at:
            raise KeyboardInterrupt
        source.rename(target)

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", replace)
        with pytest.raises(KeyboardInterrupt):
            put_in_place(newer, older)
    if dies_at == 2:
        with pytest.raises(CheckpointError, match=r"no checkpoint at .*to replace is .*\.checkpoint_000001\.replaced"):
            verify(older)
    clear_leftovers(tmp_path)
    assert verify(older)["iteration"] == 1
    put_in_place(newer, older)
    assert verify(older)["iteration"] == 2
    assert [path.name for path in tmp_path.glob(".*")] == []


def test_a_manifest_that_may_not_be_read_is_not_called_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = save(tmp_path, 1)

    def refuse(self: Path, *args: Any, **kwargs: Any) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_text", refuse)
    with pytest.raises(CheckpointError, match="checkpoint_000001 cannot be read: Permission denied"):
        verify(checkpoint)
