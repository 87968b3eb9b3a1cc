"""Who a run is: an id that its folder and all its checkpoints bear, so that those of another run are told apart."""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from pathlib import Path
from typing import Any

IDENTITY, CONFIG = "run.json", "config.yaml"


def run_id(run_dir: str | Path) -> str | None:
    """The id of the run in a folder; None where none is written there, as by earlier versions of popcomm."""
    try:
        told = json.loads((Path(run_dir) / IDENTITY).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    found = told.get("id") if isinstance(told, dict) else None
    return found if isinstance(found, str) else None


def identify(run_dir: str | Path) -> dict[str, Any]:
    """What a checkpoint says of its run: the id, made if there is none, and the digest of config.yaml, if it is there.

    Returns:
        {"id": hexadecimal, "config": the sha256 of the run's config.yaml, or None}.
    """
    folder = Path(run_dir)
    found = run_id(folder)
    if found is None:
        folder.mkdir(parents=True, exist_ok=True)
        found = uuid.uuid4().hex
        half = folder / f".{IDENTITY}.half"
        half.write_text(json.dumps({"id": found}) + "\n", encoding="utf-8")
        os.replace(half, folder / IDENTITY)
    config = folder / CONFIG
    return {"id": found, "config": hashlib.sha256(config.read_bytes()).hexdigest() if config.is_file() else None}
