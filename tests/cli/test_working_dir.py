"""What a job takes along of the working directory."""

from __future__ import annotations

import errno
import os
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest

from popcomm.cli import working_dir
from popcomm.cli.working_dir import gather, missing, pack
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


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A git checkout that ignores what ends with .tmp."""
    return checkout_at(tmp_path / "checkout")


def checkout_at(folder: Path) -> Path:
    git(folder, "init", "-q")
    write(folder, ".gitignore", text="*.tmp\n")
    return folder


def git(folder: Path, *command: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    me = ("-c", "user.name=me", "-c", "user.email=me@here", "-c", "advice.addEmbeddedRepo=false")
    subprocess.run(["git", "-C", str(folder), *me, *command], check=True)


def write(folder: Path, *files: str, text: str = "") -> None:
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text(text)


def names(folder: Path) -> set[str]:
    """Of the files that are taken along; all is there that should be."""
    taken = gather(folder)
    assert taken.left_out == []
    return {file.as_posix() for file in taken.sizes}


def test_a_folder_whose_manifest_is_of_something_else_is_taken_along(folder: Path) -> None:
    (folder / "maps").mkdir()
    (folder / "maps/manifest.json").write_text('{"files": ["town.xml"]}')
    (folder / "maps/town.xml").touch()
    assert {Path("maps/manifest.json"), Path("maps/town.xml")} <= set(gather(folder).sizes)


def test_runs_checkpoints_caches_and_hidden_files_stay_behind(folder: Path) -> None:
    taken = names(folder)
    assert taken == {"my_world.py", "deep/data.npy", "notes.tmp", "settings/config.yaml"}


def test_what_git_ignores_stays_behind(folder: Path) -> None:
    (folder / ".git/config").unlink()
    (folder / ".git").rmdir()
    subprocess.run(["git", "init", "-q", str(folder)], check=True)
    (folder / ".gitignore").write_text("*.tmp\ndeep/\n")
    assert names(folder) == {"my_world.py", "settings/config.yaml"}


def test_the_zip_holds_the_files_and_what_is_added_and_is_equal_for_equal_files(folder: Path, tmp_path: Path) -> None:
    one, other = tmp_path / "1.zip", tmp_path / "2.zip"
    taken = pack(folder, one, {"job.json": "{}"})
    (folder / "my_world.py").touch()
    assert pack(folder, other, {"job.json": "{}"}) == taken
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
    tops = {file.parts[0] for file in gather(checkout).sizes}
    assert "popcomm" not in tops
    assert {"rllib_configs", "pyproject.toml"} <= tops


def test_checkouts_in_a_checkout_are_taken_along_by_their_own_rules_and_ignored_ones_are_not(checkout: Path) -> None:
    tracked = checkout_at(checkout / "tracked")
    write(tracked, "envs/town.py", "notes.tmp")
    git(tracked, "add", ".")
    git(tracked, "commit", "-q", "-m", "a town")
    git(checkout, "add", "tracked")
    write(checkout_at(checkout / "beside"), "bridge.py")
    write(checkout_at(checkout / "beside/deeper"), "river.py")
    write(checkout_at(checkout / "ignored.tmp"), "secret.py")
    assert names(checkout) == {"tracked/envs/town.py", "beside/bridge.py", "beside/deeper/river.py"}


def test_checkouts_in_a_folder_without_git_are_taken_along_without_what_they_ignore(tmp_path: Path) -> None:
    write(checkout_at(tmp_path / "mine/theirs"), "town.py", "notes.tmp")
    write(tmp_path / "mine", "notes.tmp")
    assert names(tmp_path / "mine") == {"theirs/town.py", "notes.tmp"}


def test_a_folder_that_the_checkout_around_it_ignores_is_taken_along_where_it_is_submitted(checkout: Path) -> None:
    write(checkout, "mine.tmp/world.py", "mine.tmp/deep/data.npy")
    assert names(checkout / "mine.tmp") == {"world.py", "deep/data.npy"}


def test_what_links_lead_to_is_taken_along_unless_the_link_is_ignored(checkout: Path, tmp_path: Path) -> None:
    write(tmp_path, "elsewhere/town.py", "elsewhere/.hidden", "elsewhere/venv/lib.py", "one.py")
    write(checkout, "own/world.py")
    (checkout / "envs").symlink_to(tmp_path / "elsewhere")
    (checkout / "again").symlink_to("own")
    (checkout / "one.py").symlink_to(tmp_path / "one.py")
    (checkout / "link.tmp").symlink_to(tmp_path / "elsewhere")
    assert names(checkout) == {"own/world.py", "envs/town.py", "again/world.py", "one.py"}
    with_links = tmp_path / "1.zip"
    write(tmp_path, "elsewhere/town.py", text="a town")
    pack(checkout, with_links, {})
    with zipfile.ZipFile(with_links) as archive:
        assert archive.read("envs/town.py") == b"a town"


def test_links_and_submodules_that_lead_to_nothing_are_told(checkout: Path) -> None:
    write(checkout, "a/world.py", "b/world.py")
    (checkout / "a/to_b").symlink_to("../b")
    (checkout / "b/to_a").symlink_to("../a")
    (checkout / "self").symlink_to(".")
    (checkout / "gone.npy").symlink_to("nowhere.npy")
    (checkout / "empty").mkdir()
    git(checkout, "update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},empty")
    taken = gather(checkout)
    assert {file.as_posix() for file in taken.sizes} == {
        *("a/world.py", "a/to_b/world.py"),
        *("b/world.py", "b/to_a/world.py"),
    }
    assert taken.left_out == [
        "empty (a submodule that is not checked out)",
        "self (a link to a folder that it is in)",
        "gone.npy (a link to nothing)",
        "a/to_b/to_a (a link to a folder that it is in)",
        "b/to_a/to_b (a link to a folder that it is in)",
    ]


def test_links_and_checkouts_for_which_there_is_no_room_stay_behind_and_are_told(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(working_dir, "MOST_BYTES", 2 * 2**20)
    for place in (tmp_path / "large", checkout_at(checkout / "theirs")):
        write(place, "data.npy", "more.npy", text=" " * 2**20)
    write(checkout, "own.npy", text=" " * 2**19)
    write(tmp_path, "small/town.py")
    (checkout / "large").symlink_to(tmp_path / "large")
    (checkout / "small").symlink_to(tmp_path / "small")
    taken = pack(checkout, tmp_path / "1.zip", {})
    assert {file.as_posix() for file in taken.sizes} == {"own.npy", "small/town.py"}
    assert missing(taken.left_out) == (
        "left out of the working directory, and not there on the cluster: large (a linked folder of more than the "
        "1.5 MB that are left), theirs (a git checkout of its own of more than the 1.5 MB that are left)"
    )
    assert missing(list("abcdefg")).endswith("cluster: a, b, c, d, e, and 2 more")


def test_what_cannot_be_read_is_told(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = os.scandir

    def refuse(place: Path) -> Any:
        if Path(place).name == "deep":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(place))
        return listed(place)

    monkeypatch.setattr("os.scandir", refuse)
    taken = gather(folder)
    assert taken.left_out == ["deep (it cannot be read: Permission denied)"]
    assert {file.as_posix() for file in taken.sizes} == {"my_world.py", "notes.tmp", "settings/config.yaml"}

    def gone(file: Path) -> bytes:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "read_bytes", gone)
    with pytest.raises(UserError, match=r"my_world\.py cannot be taken along: Permission denied; move it away"):
        pack(folder, tmp_path / "1.zip", {})
