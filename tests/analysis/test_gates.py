"""The section on gates."""

from __future__ import annotations

from typing import Any

from popcomm.analysis.gates import gates
from popcomm.analysis.run_folder import RunFolder

from popcomm.language import progress
from tests.analysis.synthetic_run import make_run


def test_a_run_with_gates_has_a_picture_of_pairs_and_senders_and_says_who_was_refused(tmp_path: Any) -> None:
    make_run(tmp_path / "run", iterations=4, conversations=False)
    numbers = {"language/receiver_gate": 0.4, "language/receiver_gate/a/b": 0.4, "language/sender_gate": 0.25}
    numbers |= {"language/sender_gate/a": 0.25, "language/priority/a": 0.5}
    numbers |= {"channel/served": 2.0, "channel/refused": 3.5, "channel/longest_wait": 7.0}
    progress.append(tmp_path / "run" / "progress.jsonl", {"iteration": 5, "env_steps": 99_999, **numbers})
    section = gates(RunFolder.read(tmp_path / "run"))
    assert section.picture is not None
    assert section.findings[:2] == [
        "Listeners let in 0.40 of what they hear.",
        "Senders speak in 25% of the steps in which they may.",
    ]
    assert "2.00 messages are served and 3.50 are refused; at most 7 messages" in section.findings[2]


def test_a_run_without_gates_says_so(tmp_path: Any) -> None:
    section = gates(RunFolder.read(make_run(tmp_path / "run", iterations=1, conversations=False)))
    assert "communication.gate and budget" in section.missing
