"""Ray's object store with no memory for fragments, in a Ray of its own: the disk has room, or it is said."""

from __future__ import annotations

import pytest
from popcomm.analysis.faults import store

pytestmark = pytest.mark.system


def test_fragments_that_do_not_fit_go_to_the_disk_and_training_goes_on() -> None:
    told = store.try_out("the object store is full")
    assert (told.said.partition(";")[0], told.code) == ("nothing", 0)


def test_where_the_disk_is_full_too_it_is_a_sentence_that_names_the_settings() -> None:
    told = store.try_out("the object store is full, and so is the disk")
    assert (told.code, told.seconds) == (2, None)
    assert "RAY_TMPDIR" in told.said
