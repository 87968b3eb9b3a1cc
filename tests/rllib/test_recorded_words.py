"""What statistics, transcripts and run folders make of words: bits, or words of a lexicon, as symbols."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from popcomm.analysis.run_folder import RunFolder

from popcomm.channels import Channel, Full, Words
from popcomm.envs import swarm_v0
from popcomm.envs.layout import WorldLayout
from popcomm.language.recording import conversation_path, write_conversations
from popcomm.rllib.recording import _pictures
from popcomm.rllib.rollout_statistics import RolloutStatistics
from popcomm.rllib.transcript import Transcript
from popcomm.rollout import Turn

BITS, LEXICON = Words(4, 1, 2), Words(4, 1, 2, vocab=3)
N = 3


def layout() -> WorldLayout:
    return WorldLayout.of(swarm_v0.SwarmWorld(num_worlds=1, num_agents=N))


def language(kind: Words, messages: np.ndarray) -> dict[str, float]:
    """What is counted of messages [T, N] in one world."""
    length = len(messages)
    space = layout()
    statistics = RolloutStatistics(space, Channel(kind, Full(), N), {})
    after = np.concatenate([np.zeros((1, N)), messages]).astype(np.int32)[None]
    members = np.zeros((1, length, N), int)
    fragment = {"alive": np.ones((1, length, N), bool), "messages": after, "members": members}
    statistics.count(length, {name: fragment for name in space.species}, {})
    return statistics.language


def test_silence_does_not_count_as_a_word_of_zeros() -> None:
    # Bits 0 and 1 of half the words: each is on in one of two words, bits 2 and 3 never are.
    told = language(BITS, np.array([[1, 2, 0], [0, 1, 2]]))
    used = 0.25  # of all bits that were said
    assert told["symbol_entropy"] == pytest.approx(-(used * np.log2(used) + (1 - used) * np.log2(1 - used)))
    assert language(BITS, np.zeros((2, N))) == {}


def test_silence_is_a_symbol_of_a_lexicon() -> None:
    one, two = LEXICON.lexicon[:2].tolist()
    told = language(LEXICON, np.array([[0, one, 0], [two, 0, 0]]))
    assert told["symbol_entropy"] == pytest.approx(4 / 6 * np.log2(6 / 4) + 2 / 6 * np.log2(6))
    assert told["vocabulary_used"] == pytest.approx(3 / 4)


def transcript_of(kind: Words, sent: list[int]) -> dict[str, Any]:
    """Rows of one step in which the seats say `sent`."""
    world = swarm_v0.SwarmWorld(num_worlds=1, num_agents=N)
    transcript = Transcript(1, WorldLayout.of(world), Channel(kind, Full(), N))
    step, name = world.reset(0), next(iter(world.species))
    space = world.species[name].action_space
    chosen = np.stack([[space.sample() for _ in range(N)]])
    actions = {name: torch.from_numpy(chosen)}
    members = {name: np.zeros((1, N), int)}
    messages = torch.tensor([sent], dtype=torch.int32)
    transcript._entropy = lambda outputs, seatings: None  # type: ignore[method-assign]
    turn = Turn(
        seen=step, mail=None, acts={}, actions=actions, bounded=actions, sent=messages, transmitted=messages,
        voice=step.alive, loads=None, members=members, seatings={}, memories={}, reopened=np.ones(1, bool),
    )  # fmt: skip
    transcript.step(turn, world.step(actions, None))
    return transcript.rows()


def test_transcripts_hold_bits_and_nothing_for_silence() -> None:
    rows = transcript_of(BITS, [0b0101, 0, 0b0010])
    symbols = [None if message is None else message.tolist() for message in rows["symbols"]]
    assert symbols == [[1, 0, 1, 0], None, [0, 1, 0, 0]]
    assert "vector" not in rows
    assert transcript_of(BITS, [1, 2, 3])["symbols"].shape == (N, 4)


def test_transcripts_hold_indices_of_a_lexicon() -> None:
    said = LEXICON.to_word(torch.tensor([2, 0, 3])).tolist()
    assert transcript_of(LEXICON, said)["symbols"].tolist() == [[2], [0], [3]]


@pytest.mark.parametrize("kind", [BITS, LEXICON])
def test_the_picture_of_symbol_use_has_the_words_alphabet(kind: Words) -> None:
    rows = transcript_of(kind, LEXICON.lexicon.tolist())
    config = type("Config", (), {"message_kind": kind, "layout": layout()})
    figures = _pictures(config, {**rows, "receivers": None})
    assert f"of {kind.alphabet} symbols are used" in "".join(
        axes.get_title(loc=side) for axes in figures["symbol_use"].axes for side in ("left", "center")
    )


@pytest.mark.parametrize(("messages", "size"), [({"bits": 4}, 2), ({"bits": 4, "vocab": 3}, 4)])
def test_a_run_folder_of_words_knows_their_alphabet(tmp_path: Path, messages: dict[str, int], size: int) -> None:
    config = {"communication": {"messages": {"kind": "words", "min_on": 1, "max_on": 2, **messages}}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    rows = transcript_of(BITS, [0b0101, 0, 0b0010])
    stamped = {"iteration": np.zeros(N, int), "env_steps": np.zeros(N, int), **rows}
    write_conversations(conversation_path(tmp_path, 0), stamped)
    run = RunFolder.read(tmp_path)
    assert (run.message_kind, run.vocab_size) == ("words", size)
    assert run.talk.symbols is not None
    assert run.talk.symbols.tolist() == [[1, 0, 1, 0], [0, 1, 0, 0]]
