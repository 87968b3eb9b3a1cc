"""Rewind: what a run folder has of iterations that are trained again, after a crash for instance, is taken out."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

from popcomm.language import progress
from popcomm.language.recording import drop_conversations

logger = logging.getLogger(__name__)

PROGRESS, TENSORBOARD = "progress.jsonl", "tensorboard"


def rewind(run_dir: Path, iteration: int) -> None:
    """Leave only what was recorded before an iteration, which is about to be recorded (again).

    Progress, events of TensorBoard and conversations are then those of a training that was never interrupted. A file
    is replaced by its shorter self as a whole; one that has nothing to lose is not touched.
    """
    lines = progress.rewind(run_dir / PROGRESS, iteration)
    kept = progress.read(run_dir / PROGRESS)
    last = -1 if kept.empty or "env_steps" not in kept else int(kept["env_steps"].iloc[-1])
    events = sum(_rewind_events(file, last) for file in sorted((run_dir / TENSORBOARD).glob("events.out.tfevents.*")))
    parts = drop_conversations(run_dir, iteration)
    if lines or events or parts:
        logger.warning("%s: what was recorded from iteration %d on is recorded anew", run_dir, iteration)


def _rewind_events(file: Path, last: int) -> bool:
    """Drop the events after `last` env steps; whether there were any. Half an event at the end goes, too."""
    # TensorBoard's reader takes a second to import, and only resumed trainings need it.
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.summary.writer.record_writer import RecordWriter

    records = list(_records(file))
    kept = [record for record in records if Event.FromString(record).step <= max(last, 0)]
    if last < 0:  # not even the first iteration stays
        kept = [record for record in kept if Event.FromString(record).HasField("file_version")]
    if len(kept) == len(records):
        return False
    shorter = file.with_name(f".{file.name}.half")
    with open(shorter, "wb") as stream:
        writer = RecordWriter(stream)
        for record in kept:
            writer.write(record)
        writer.flush()
    os.replace(shorter, file)
    return True


def _records(file: Path) -> Iterator[bytes]:
    """The events of a file, still in bytes, up to its end or to where a process died while it wrote."""
    from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader

    yield from RawEventFileLoader(str(file)).Load()
