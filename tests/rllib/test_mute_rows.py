"""What is recorded of a species that never speaks: its rows are there, its messages are not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from popcomm.analysis.run_folder import Conversations

from popcomm.language.recording import conversation_path, read_conversations, write_conversations
from popcomm.rllib import PopulationPPOConfig
from tests.rllib.test_rollout import runner_of


def test_listeners_that_never_speak_have_rows_without_symbols_and_count_for_no_language(tmp_path: Path) -> None:
    config = (
        PopulationPPOConfig()
        .environment("referential_v0", env_config={"rounds": 3, "values": 4})
        .communication(messages={"kind": "symbols", "vocab_size": 5, "length": 2}, gradient="reinforce")
        .population(agent="gru", agent_config={"hidden": 8})
        .env_runners(num_worlds_per_env_runner=4, rollout_fragment_length=6)
        .recording(run_dir=str(tmp_path), conversation_worlds=2)
        .debugging(seed=1)
    )
    runner = runner_of(config)
    runner.sample()
    rows = runner.transcript.rows()
    silent = [message is None for message in rows["symbols"]]
    assert silent == [species == "listener" for species in rows["species"]]
    size = len(silent)
    stamped = {"iteration": np.zeros(size, int), "env_steps": np.zeros(size, int), **rows}
    write_conversations(conversation_path(tmp_path, 0), stamped)
    talk = Conversations(read_conversations(tmp_path))
    assert talk.species == ["speaker"]
    assert talk.symbols is not None
    assert talk.symbols.shape == (size - sum(silent), 2)
