"""What a job takes along: the working directory in a zip, without run folders, checkpoints and caches."""

from __future__ import annotations

import os
import subprocess
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import popcomm
from popcomm import manifest
from popcomm.cli.run_folder import CHECKPOINTS, CONFIG, PROGRESS
from popcomm.errors import UserError
from popcomm.identity import IDENTITY

MOST_BYTES = 100 * 2**20  # Ray itself takes 512 MB, and sends it to every node
LEFT_OUT = frozenset({"__pycache__", "node_modules", "venv"})  # and all that begins with a dot
LONG_AGO = (1980, 1, 1, 0, 0, 0)  # equal files make an equal zip, which Ray uploads once


def pack(folder: Path, target: Path, more: Mapping[str, str]) -> int:
    """Write the files of a folder into a zip.

    Args:
        folder: the working directory.
        target: the zip to write.
        more: {name: text} of files that go in, too.

    Returns:
        How many bytes the files have.

    Raises:
        UserError: they are too large; the largest entries of the folder are named.
    """
    found = sorted(files(folder))
    sizes = {file: (folder / file).stat().st_size for file in found}
    total = sum(sizes.values())
    if total > MOST_BYTES:
        raise UserError(_too_large(folder, sizes, total))
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in found:
            _add(archive, file.as_posix(), (folder / file).read_bytes())
        for name, text in more.items():
            _add(archive, name, text.encode())
    return total


def files(folder: Path) -> Iterator[Path]:
    """The files that a job takes along, relative to the folder.

    Git's ignored files are left out in a checkout; and everywhere: names that begin with a dot, virtual environments,
    caches, run folders, checkpoints, and popcomm itself, of which the cluster has its own.
    """
    known = _of_git(folder)
    for here, folders, names in os.walk(folder, followlinks=False):
        place = Path(here)
        folders[:] = sorted(name for name in folders if not _left_out(place / name))
        for name in names:
            file = (place / name).relative_to(folder)
            if not name.startswith(".") and (place / name).is_file() and (known is None or file in known):
                yield file


def _left_out(folder: Path) -> bool:
    if folder.name.startswith(".") or folder.name in LEFT_OUT or folder.name.endswith(".egg-info"):
        return True
    if (folder / "pyvenv.cfg").is_file() or manifest.is_checkpoint(folder):
        return True
    if (folder / CONFIG).is_file() and any((folder / name).exists() for name in (IDENTITY, PROGRESS, CHECKPOINTS)):
        return True
    return folder.resolve() == Path(popcomm.__file__).resolve().parent


def _of_git(folder: Path) -> set[Path] | None:
    """What git knows or does not ignore; None where there is no checkout, or no git."""
    command = ["git", "-C", str(folder), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        told = subprocess.run(command, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    return {Path(os.fsdecode(name)) for name in told.split(b"\0") if name}


def _add(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    entry = zipfile.ZipInfo(name, LONG_AGO)
    entry.external_attr = 0o644 << 16
    archive.writestr(entry, content, zipfile.ZIP_DEFLATED)


def _too_large(folder: Path, sizes: Mapping[Path, int], total: int) -> str:
    entries: Counter[str] = Counter()
    for file, size in sizes.items():
        entries[file.parts[0]] += size
    largest = ", ".join(f"{name} ({_megabytes(size)})" for name, size in entries.most_common(3))
    return (
        f"the working directory {folder} has {_megabytes(total)} to take along, of {_megabytes(MOST_BYTES)} at most; "
        f"the largest are {largest}; submit from a folder with less, or name them in .gitignore of a git checkout"
    )


def _megabytes(size: int) -> str:
    return f"{size / 2**20:,.1f} MB"
