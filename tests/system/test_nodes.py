"""Two simulated nodes, in a process of their own: Ray reads where it may listen when it is imported."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.system


def test_runners_and_a_learner_on_two_nodes_do_what_local_ones_do_and_a_lost_node_is_told_and_replaced() -> None:
    command = [sys.executable, "-m", "popcomm.analysis.faults.nodes"]
    found = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert found.returncode == 0, found.stderr[-3000:]
    told = json.loads(found.stdout.splitlines()[-1])
    assert told["nodes"] == 2
    assert told["restored"] == told["local"]
    assert any("is lost: its process ended, and it is begun anew" in line for line in told["said"])
    assert told["present"][-1] == 2
