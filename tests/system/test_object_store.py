"""Ray's object store with no memory for fragments, in a Ray of its own: the disk has room, or it is said."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

pytestmark = pytest.mark.system


def told(*options: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "popcomm.analysis.faults.store", *options]
    found = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert found.returncode == 0, found.stderr[-3000:]
    return dict(json.loads(found.stdout.splitlines()[-1]))


def test_fragments_that_do_not_fit_go_to_the_disk_and_training_goes_on() -> None:
    # Two runners of four worlds, eight steps each; in the second fragment one of them is the reset of all worlds.
    assert told() == {"steps": 120, "said": ""}


def test_where_the_disk_is_full_too_it_is_a_sentence_that_names_the_settings() -> None:
    found = told("--full-disk")
    assert found["steps"] == 0
    assert found["said"].startswith("a fragment of ")
    assert "env_runners.rollout_fragment_length (8) smaller" in found["said"]
