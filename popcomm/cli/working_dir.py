"""What a job takes along: the working directory in a zip, without run folders, checkpoints and caches.

Git checkouts in it, and folders that links in it lead to, go along where there is room; what does not is told.
"""

from __future__ import annotations

import os
import subprocess
import zipfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import popcomm
from popcomm import manifest
from popcomm.cli.run_folder import CHECKPOINTS, CONFIG, PROGRESS
from popcomm.errors import UserError
from popcomm.identity import IDENTITY

MOST_BYTES = 100 * 2**20  # Ray itself takes 512 MB, and sends it to every node
LEFT_OUT = frozenset({"__pycache__", "node_modules", "venv"})  # and all that begins with a dot
LONG_AGO = (1980, 1, 1, 0, 0, 0)  # equal files make an equal zip, which Ray uploads once
MOST_NAMED = 5  # of what stays behind


class Taken(NamedTuple):
    """What is taken along of a folder.

    sizes: {file, relative to the folder: bytes}.
    left_out: what stays behind although no rule says so: where it is and why, in words.
    """

    sizes: dict[Path, int]
    left_out: list[str]

    @property
    def total(self) -> int:
        """Bytes."""
        return sum(self.sizes.values())


def pack(folder: Path, target: Path, more: Mapping[str, str]) -> Taken:
    """Write the files of a folder into a zip.

    Args:
        folder: the working directory.
        target: the zip to write.
        more: {name: text} of files that go in, too.

    Returns:
        Which files of the folder those are.

    Raises:
        UserError: they are too large, and the largest entries of the folder are named; or one cannot be read.
    """
    taken = gather(folder)
    if taken.total > MOST_BYTES:
        raise UserError(_too_large(folder, taken))
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(taken.sizes):
            _add(archive, file.as_posix(), _read(folder / file))
        for name, text in more.items():
            _add(archive, name, text.encode())
    return taken


def gather(folder: Path) -> Taken:
    """What a job takes along of a folder.

    Git's ignored files are left out in a checkout; and everywhere: names that begin with a dot, virtual environments,
    caches, run folders, checkpoints, and popcomm itself, of which the cluster has its own. Checkouts in the folder
    (submodules, too), and folders that links in it lead to, are taken along whole or not at all.
    """
    own = _Part(folder, Path())
    own.look()
    taken, waiting = own.taken, own.doors
    while waiting:
        part, room = waiting.pop(0), MOST_BYTES - taken.total
        part.look(room)
        if part.taken.total > room:
            what = "a linked folder" if (folder / part.place).is_symlink() else "a git checkout of its own"
            taken.left_out.append(f"{part.place} ({what} of more than the {_megabytes(max(room, 0))} that are left)")
            continue
        taken.sizes.update(part.taken.sizes)
        taken.left_out.extend(part.taken.left_out)
        waiting.extend(part.doors)
    return taken


def missing(left_out: Sequence[str]) -> str:
    """A sentence that names what stays behind."""
    more = len(left_out) - MOST_NAMED
    named = [*left_out[:MOST_NAMED], *([f"and {more} more"] if more > 0 else [])]
    return f"left out of the working directory, and not there on the cluster: {', '.join(named)}"


class _Part:
    """The working directory without the parts that begin in it; a git checkout in it; a folder that is linked.

    Args:
        folder: the working directory.
        place: of the part in it.
        passed: the real folders of the links that lead to it.

    Attributes:
        taken: what is taken along of it.
        doors: the parts that begin in it.
    """

    def __init__(self, folder: Path, place: Path, passed: tuple[Path, ...] = ()) -> None:
        self.folder, self.place, self.passed = folder, place, passed
        self.taken, self.doors = Taken({}, []), list[_Part]()
        self._known: set[Path] | None = None

    def look(self, room: float = float("inf")) -> None:
        """Find what is in it. room: bytes, after which the rest does not matter any more."""
        self._known = _of_git(self.folder, self.place)
        size = 0
        for here, folders, names in os.walk(self.folder / self.place, onerror=self._cannot_read):
            folders[:] = [name for name in sorted(folders) if self._enters(Path(here, name))]
            for name in sorted(names):
                size += self._take(Path(here, name))
            if size > room:
                return

    def _take(self, path: Path) -> int:
        """Take a file along, if it is to be; returns its bytes."""
        file = path.relative_to(self.folder)
        if file.name.startswith(".") or not self._knows(file):
            return 0
        if path.is_file():
            self.taken.sizes[file] = path.stat().st_size
            return self.taken.sizes[file]
        if path.is_symlink():
            self.taken.left_out.append(f"{file} (a link to nothing)")
        return 0

    def _enters(self, path: Path) -> bool:
        """Whether a folder belongs to this part: others stay behind, or are parts of their own."""
        if _left_out(path):
            return False
        place = path.relative_to(self.folder)
        if path.is_symlink():
            if self._knows(place):
                self._follow(path)
            return False
        # Of folders git lists none but checkouts; one that it ignores has no file that it lists either.
        if place not in self._known if self._known is not None else not (path / ".git").exists():
            return True
        if any(path.iterdir()):
            self.doors.append(_Part(self.folder, place, self.passed))
        else:
            self.taken.left_out.append(f"{place} (a submodule that is not checked out)")
        return False

    def _follow(self, link: Path) -> None:
        place, target, passed = link.relative_to(self.folder), link.resolve(), (*self.passed, link.parent.resolve())
        if any(folder.is_relative_to(target) for folder in passed):
            self.taken.left_out.append(f"{place} (a link to a folder that it is in)")
        else:
            self.doors.append(_Part(self.folder, place, passed))

    def _knows(self, place: Path) -> bool:
        return self._known is None or place in self._known

    def _cannot_read(self, error: OSError) -> None:
        place = Path(error.filename).relative_to(self.folder)
        if self._known is None or any(place in file.parents for file in self._known):
            self.taken.left_out.append(f"{place} (it cannot be read: {error.strerror})")


def _left_out(folder: Path) -> bool:
    if folder.name.startswith(".") or folder.name in LEFT_OUT or folder.name.endswith(".egg-info"):
        return True
    if (folder / "pyvenv.cfg").is_file() or manifest.is_checkpoint(folder):
        return True
    if (folder / CONFIG).is_file() and any((folder / name).exists() for name in (IDENTITY, PROGRESS, CHECKPOINTS)):
        return True
    return folder.resolve() == Path(popcomm.__file__).resolve().parent


def _of_git(folder: Path, place: Path) -> set[Path] | None:
    """What git knows or does not ignore in a part of a folder; None where there is no checkout, or no git.

    Paths are relative to the folder. A place of which git knows nothing is one that a checkout around it ignores, and
    that was asked for nevertheless: all of it counts.
    """
    command = ["git", "-C", str(folder / place), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    return {place / os.fsdecode(name) for name in listed.split(b"\0") if name} or None


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise UserError(
            f"{file} cannot be taken along: {error.strerror}; move it away, or let git ignore it"
        ) from error


def _add(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    entry = zipfile.ZipInfo(name, LONG_AGO)
    entry.external_attr = 0o644 << 16
    archive.writestr(entry, content, zipfile.ZIP_DEFLATED)


def _too_large(folder: Path, taken: Taken) -> str:
    entries: Counter[str] = Counter()
    for file, size in taken.sizes.items():
        entries[file.parts[0]] += size
    largest = ", ".join(f"{name} ({_megabytes(size)})" for name, size in entries.most_common(3))
    return (
        f"the working directory {folder} has {_megabytes(taken.total)} to take along, of {_megabytes(MOST_BYTES)} at "
        f"most; the largest are {largest}; submit from a folder with less, or name them in .gitignore of a git checkout"
    )


def _megabytes(size: float) -> str:
    return f"{size / 2**20:,.1f} MB"
