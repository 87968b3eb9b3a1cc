"""What a job takes along of the working directory."""

from __future__ import annotations

import subprocess
import zipfile
from pathlib import Path

import pytest

from popcomm.cli import working_dir
from popcomm.cli.working_dir import files, pack
from popcomm.errors import UserError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A user's folder, with what grows in such folders."""
    here = tmp_path / "mine"
    for name in (
        "my_world.py",
        "deep/data.npy",
        "notes.tmp",
        ".git/config",
        ".env",
        ".venv/pyvenv.cfg",
        "other_env/pyvenv.cfg",
        "__pycache__/my_world.pyc",
        "runs/first/config.yaml",
        "runs/first/run.json",
        "runs/first/tensorboard/events",
        "elsewhere/config.yaml",
        "elsewhere/checkpoints/a",
        "saved/manifest.json",
        "saved/weights",
        "settings/config.yaml",
    ):
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / name).write_text(name)
    (here / "saved/manifest.json").write_text('{"files": {}, "iteration": 3}')
    return here


def test_a_folder_whose_manifest_is_of_something_else_is_taken_along(folder: Path) -> None:
    (folder / "maps").mkdir()
    (folder / "maps/manifest.json").write_text('{"files": ["town.xml"]}')
    (folder / "maps/town.xml").touch()
    assert {Path("maps/manifest.json"), Path("maps/town.xml")} <= set(files(folder))


def test_runs_checkpoints_caches_and_hidden_files_stay_behind(folder: Path) -> None:
    taken = {file.as_posix() for file in files(folder)}
    assert taken == {"my_world.py", "deep/data.npy", "notes.tmp", "settings/config.yaml"}


def test_what_git_ignores_stays_behind(folder: Path) -> None:
    (folder / ".git/config").unlink()
    (folder / ".git").rmdir()
    subprocess.run(["git", "init", "-q", str(folder)], check=True)
    (folder / ".gitignore").write_text("*.tmp\ndeep/\n")
    assert {file.as_posix() for file in files(folder)} == {"my_world.py", "settings/config.yaml"}


def test_the_zip_holds_the_files_and_what_is_added_and_is_equal_for_equal_files(folder: Path, tmp_path: Path) -> None:
    one, other = tmp_path / "1.zip", tmp_path / "2.zip"
    size = pack(folder, one, {"job.json": "{}"})
    (folder / "my_world.py").touch()
    assert pack(folder, other, {"job.json": "{}"}) == size
    assert one.read_bytes() == other.read_bytes()
    with zipfile.ZipFile(one) as archive:
        assert archive.read("deep/data.npy") == b"deep/data.npy"
        assert archive.read("job.json") == b"{}"


def test_a_folder_that_is_too_large_is_told_with_its_largest_entries(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(working_dir, "MOST_BYTES", 2 * 2**20)
    (folder / "deep/data.npy").write_bytes(bytes(3 * 2**20))
    with pytest.raises(UserError, match=r"has 3\.0 MB to take along, of 2\.0 MB at most; .* deep \(3\.0 MB\)"):
        pack(folder, tmp_path / "1.zip", {})
    assert not (tmp_path / "1.zip").exists()


def test_popcomm_itself_stays_behind() -> None:
    checkout = Path(working_dir.__file__).parents[2]
    tops = {file.parts[0] for file in files(checkout)}
    assert "popcomm" not in tops
    assert {"rllib_configs", "pyproject.toml"} <= tops
