"""Lexicons of languages that are made by hand."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import popcomm.language as language
from popcomm.errors import UserError

MEANINGS = np.array([0, 0, 0, 1, 1, 2])
MESSAGES = np.array([[5, 6], [5, 6], [7, -1], [7, -1], [7, -1], [8, 9]])


def test_each_message_has_its_meanings_and_each_meaning_its_messages() -> None:
    told = language.lexicon(MEANINGS, MESSAGES)
    assert told.messages.to_dict("list") == {
        "message": ["7", "7", "5 6", "8 9"],
        "meaning": ["1", "0", "0", "2"],
        "count": [2, 1, 2, 1],
        "p_meaning": pytest.approx([2 / 3, 1 / 3, 1.0, 1.0]),
        "p_message": pytest.approx([1.0, 1 / 3, 2 / 3, 1.0]),
    }
    assert told.meanings["meaning"].tolist() == ["0", "0", "1", "2"]
    assert told.meanings["message"].tolist() == ["5 6", "7", "7", "8 9"]


def test_it_is_written_as_csv(tmp_path: Path) -> None:
    told = language.lexicon(MEANINGS, MESSAGES)
    told.write(tmp_path / "lexicon.csv")
    assert pd.read_csv(tmp_path / "lexicon.csv")["count"].tolist() == [2, 1, 2, 1]


def test_attributes_are_named_as_they_are_and_rows_without_a_meaning_left_out() -> None:
    told = language.lexicon([["red", "big"], ["blue", "big"]], [[1], [2]])
    assert sorted(told.messages["meaning"]) == ["blue big", "red big"]
    assert language.lexicon([-1, 4], [[1], [2]]).messages["message"].tolist() == ["2"]
    with pytest.raises(UserError, match="no message has a meaning"):
        language.lexicon([-1, -1], [[1], [2]])
    with pytest.raises(UserError, match="2 meanings and 1 messages"):
        language.lexicon([0, 1], [[1]])


def test_synonyms_and_homonyms_are_counted_apart() -> None:
    synonyms = language.vocabulary([0, 0, 1, 1], [[1], [2], [3], [4]])
    assert (synonyms.messages_per_meaning, synonyms.ambiguity) == pytest.approx((2.0, 1.0))
    homonyms = language.vocabulary([0, 1, 2, 3], [[1], [1], [2], [2]])
    assert (homonyms.messages_per_meaning, homonyms.ambiguity) == pytest.approx((1.0, 2.0))
    assert (homonyms.messages, homonyms.symbols, homonyms.meanings, homonyms.perplexity) == (2, 2, 4, 2.0)


def test_every_name_of_the_package_is_found_and_importing_it_loads_nothing() -> None:
    for name in language.__all__:
        assert callable(getattr(language, name)), name
    with pytest.raises(AttributeError, match="no attribute 'topsim'"):
        language.topsim  # noqa: B018
    code = "import sys, popcomm.language; sys.exit(any(m in sys.modules for m in ('numpy', 'scipy', 'torch')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
