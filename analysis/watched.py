"""A run that is watched: its page and its data, made anew in the background whenever the folder has changed."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from popcomm.analysis import closer
from popcomm.analysis.findings import all_sections
from popcomm.analysis.page import Section
from popcomm.analysis.report import run_page, standing
from popcomm.analysis.run_folder import RunFolder

from popcomm.errors import UserError

LOOK = 1.0  # seconds between two looks at the folder
SHARE = 0.2  # of a CPU at most for the pictures, which take seconds: training goes on beside
FIRST = "The pictures are being drawn."
PARTS = ("curves", "talk")  # of the data, each sent when it has changed


class Watched:
    """What is known of a run folder; safe to ask from any thread.

    Args:
        path: a run folder.

    Raises:
        UserError: it is none, or a sweep's, or a file in it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock, self._ended = threading.Lock(), threading.Event()
        self._page, self._version, self._names = "", 0, [""]
        self._pictures: Sequence[Section] = ()
        self._parts: dict[str, str] = {}  # JSON
        self._changed = dict.fromkeys(PARTS, 0)
        self._standing: dict[str, str] = {}
        self._status = self._trouble = ""
        self._looked = self._drawn = ""
        if RunFolder.read(path).setting("tune") is not None:
            raise UserError(f"{path} is the folder of a sweep; name that of one of its trials")
        self.look()

    def start(self) -> None:
        """Begin to follow the folder, in threads that end with the process."""
        for work, share in ((self.look, 1.0), (self.draw, SHARE)):
            threading.Thread(target=self._repeat, args=(work, share), daemon=True).start()

    def end(self) -> None:
        """Follow it no longer."""
        self._ended.set()

    @property
    def page(self) -> str:
        with self._lock:
            return self._page

    def news(self, seen: str) -> dict[str, Any]:
        """What has changed since an answer whose "seen" this is ("": everything), the parts of the data as JSON.

        Returns:
            seen, version (of the page), status, standing, and parts {name: JSON}.
        """
        known = dict(zip(PARTS, seen.split("-"), strict=False))
        with self._lock:
            return {
                "seen": "-".join(str(self._changed[name]) for name in PARTS),
                "version": self._version,
                "status": " ".join(filter(None, [self._status, FIRST if not self._drawn else "", self._trouble])),
                "standing": self._standing,
                "parts": {n: text for n, text in self._parts.items() if known.get(n) != str(self._changed[n])},
            }

    def look(self) -> None:
        """Read what is new: numbers and conversations, which takes less than a second."""
        stamp = stamp_of(self.path)
        if stamp == self._looked:
            return
        run = RunFolder.read(self.path)
        data = closer.data_of(run, over_training=False)
        sections = closer.sections(run, data)
        parts = {name: json.dumps(data[name], allow_nan=False, separators=(",", ":")) for name in PARTS}
        with self._lock:
            for name in PARTS:
                self._changed[name] += parts[name] != self._parts.get(name)
            self._parts, self._standing, self._looked = parts, standing(run), stamp
            self._status = _status(run)
            names = [section.name for section in sections]
            # A section that was not there: until its pictures are drawn the old ones stand around it.
            if names != self._names:
                self._names = names
                self._show(run, _around(sections, self._pictures), data)

    def draw(self) -> None:
        """Draw all pictures of what is new."""
        stamp = stamp_of(self.path)
        if stamp == self._drawn:
            return
        run = RunFolder.read(self.path)
        data = closer.data_of(run)
        sections = all_sections(run, data)
        with self._lock:
            self._pictures, self._drawn = sections, stamp
            self._names = [section.name for section in sections if section.name in closer.NAMES]
            self._show(run, sections, data)

    def _show(self, run: RunFolder, sections: Sequence[Section], data: dict[str, Any]) -> None:
        self._page, self._version = run_page(run, sections, data, live=True), self._version + 1

    def _repeat(self, work: Callable[[], None], share: float) -> None:
        rest = 0.0
        while not self._ended.wait(rest):
            begin = time.monotonic()
            try:
                work()
                trouble = ""
            except (UserError, OSError, ValueError, KeyError, IndexError, pa.ArrowException) as error:
                # A file that is written or taken away while it is read: it is told, and read again.
                trouble = f"(The last look failed, and comes again: {' '.join(str(error).split())})"
            with self._lock:
                self._trouble = trouble
            took = time.monotonic() - begin
            rest = max(LOOK, took * (1 - share) / share)


def stamp_of(path: Path) -> str:
    """What changes whenever the run has written something that a report tells of."""
    files = [path / name for name in ("config.yaml", "progress.jsonl", "lineage.parquet")]
    files += sorted((path / "conversations").glob("part-*.parquet"))
    found = []
    for file in files:
        try:
            told = os.stat(file)
        except FileNotFoundError:
            continue
        found.append(f"{file.name} {told.st_mtime_ns} {told.st_size}")
    return "\n".join([*found, *sorted(one.name for one in (path / "checkpoints").glob("checkpoint_*"))])


def _status(run: RunFolder) -> str:
    file = run.path / "progress.jsonl"
    if run.progress.empty or not file.is_file():
        return "Watching: no iteration is finished yet."
    written = time.strftime("%H:%M:%S", time.localtime(file.stat().st_mtime))
    return (
        f"Watching: iteration {run.now('iteration'):,.0f}, environment step {run.now('env_steps'):,.0f}, "
        f"written at {written}."
    )


def _around(sections: Sequence[Section], pictures: Sequence[Section]) -> list[Section]:
    """New sections to look into, with the others that were drawn before."""
    names = {section.name for section in sections}
    others = [section for section in pictures if section.name not in names]
    return [*others[:1], *sections, *others[1:]]
