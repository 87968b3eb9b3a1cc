"""The section on whose messages matter."""

from __future__ import annotations

import numpy as np
from popcomm.analysis.importance import message_importance
from popcomm.analysis.run_folder import RunFolder

from popcomm.language import progress
from popcomm.language.importance_picture import pairs
from tests.analysis.synthetic_run import make_run


def test_a_run_whose_listeners_were_asked_has_a_matrix(tmp_path) -> None:
    make_run(tmp_path / "run", iterations=4, conversations=False)
    numbers = {"importance": 0.2, "importance_removed": 0.3, "value_importance": 0.05}
    numbers |= {"importance/a/b": 0.4, "importance/b/a": 0.0, "importance/a/c": 0.25}
    line = {"iteration": 5, "env_steps": 99_999, **{f"language/{name}": value for name, value in numbers.items()}}
    progress.append(tmp_path / "run" / "progress.jsonl", line)
    section = message_importance(RunFolder.read(tmp_path / "run"))
    assert section.picture is not None
    assert "a matters most, to b, whose policy moves by 0.40" in section.findings[0]
    assert "by 0.300 so, and by 0.200 with what the sender might have said" in section.findings[1]


def test_a_run_whose_listeners_were_not_asked_says_so(tmp_path) -> None:
    section = message_importance(RunFolder.read(make_run(tmp_path / "run", iterations=1, conversations=False)))
    assert "recording.importance_every" in section.missing
    silent = message_importance(RunFolder.read(make_run(tmp_path / "mute", kind=None, conversations=False)))
    assert "no message matters" in silent.missing


def test_names_of_pairs_become_a_matrix_of_senders_and_receivers() -> None:
    senders, receivers, matrix = pairs({"importance/a/b": 0.5, "importance/c/b": 0.1, "importance/a/c": 0.2})
    assert (senders, receivers) == (["a", "c"], ["b", "c"])
    np.testing.assert_array_equal(matrix, [[0.5, 0.2], [0.1, np.nan]])
