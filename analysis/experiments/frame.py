"""What the main programs of experiments end with: errors in one line, pages copied to where they are read."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from popcomm.analysis.experiments.runs import TrainingError

from popcomm.errors import UserError


def published(name: str, work: Callable[[], Sequence[Path]], docs: Path | None = None) -> int:
    """Do an experiment's work and copy the files that it returns, the page first, into a folder.

    Returns:
        the exit code: 0, 1 for a run that failed, 2 for a user's mistake.
    """
    try:
        files = work()
    except (UserError, TrainingError) as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 2 if isinstance(error, UserError) else 1
    if docs:
        docs.mkdir(parents=True, exist_ok=True)
        for file in files:
            shutil.copy(file, docs)
    print(f"page: {files[0]}")
    return 0
