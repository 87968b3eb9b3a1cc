"""A folder that not all nodes of a cluster see is refused before any work."""

from __future__ import annotations

from pathlib import Path

import pytest

from popcomm.cli.sweep_storage import check_storage
from popcomm.errors import UserError


def test_one_node_takes_any_folder() -> None:
    check_storage(Path("runs/mine"), ["a"])


def test_a_relative_folder_is_refused_with_several_nodes() -> None:
    with pytest.raises(UserError, match="--run-dir runs/mine is relative, and the cluster has 2 nodes; name the whole"):
        check_storage(Path("runs/mine"), ["a", "b"])


def test_a_folder_that_a_node_does_not_see_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    asked: list[Path] = []

    def blind(file: Path, nodes: object) -> list[str]:
        assert file.is_file()
        asked.append(file)
        return ["b"]

    with pytest.raises(UserError, match="is not seen by 1 of the cluster's 2 nodes; name a folder that all of them"):
        check_storage(tmp_path / "mine", ["a", "b"], blind)
    assert asked[0].parent == tmp_path / "mine"
    assert not (tmp_path / "mine").exists()


def test_a_folder_that_all_see_is_taken_and_left_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").touch()
    check_storage(tmp_path, ["a", "b"], lambda file, nodes: [node for node in nodes if not file.is_file()])
    assert [file.name for file in tmp_path.iterdir()] == ["config.yaml"]
