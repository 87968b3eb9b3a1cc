"""Modules load without the garbage collector, and what they leave behind is collected later."""

from __future__ import annotations

import gc
import weakref
from importlib import import_module

import pytest

from popcomm.loading import uncollected


class Ring:
    """Something that only the collector can find."""

    def __init__(self) -> None:
        self.me = self


def test_the_collector_rests_while_modules_load_and_no_longer() -> None:
    with uncollected():
        assert not gc.isenabled()
    assert gc.isenabled()
    with pytest.raises(ModuleNotFoundError), uncollected():
        import_module("popcomm.nowhere")
    assert gc.isenabled()


def test_a_collector_that_was_off_stays_off() -> None:
    gc.disable()
    try:
        with uncollected():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_what_was_left_behind_meanwhile_is_collected_later() -> None:
    with uncollected():
        left = weakref.ref(Ring())
    assert left() is not None
    gc.collect()
    assert left() is None


def test_what_someone_froze_stays_frozen() -> None:
    kept = Ring()
    watched = weakref.ref(kept)
    gc.freeze()
    try:
        with uncollected():
            pass
        del kept
        gc.collect()
        assert watched() is not None
    finally:
        gc.unfreeze()
    gc.collect()
    assert watched() is None
