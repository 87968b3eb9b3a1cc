"""The page on environments of others: what is asked of whom, and how it is told."""

from __future__ import annotations

from popcomm.analysis.foreign_environments import ALL, HERE, page

from popcomm.envs.checking import EnvCheck
from popcomm.references import attribute


def test_a_row_has_what_was_found_and_a_list_what_is_wrong() -> None:
    facts = {
        "species": ["a (2: a_0, a_1) observes 3 numbers, acts in Discrete(4)"],
        "episodes": ["4 steps"],
        "lock step": ["32 steps in 8 episodes: equal"],
    }
    good = EnvCheck(facts, ["it waits"], [], {"a plain loop": 1234.4, "in training (4 worlds, mlp)": 99.0})
    bad = EnvCheck({"species": facts["species"]}, [], ["it lies"], {})
    text = page({"good_v1": good, "bad_v1": bad}, ["absent_v1"])
    assert "over 2 environments" in text
    assert "In 1 of them" in text
    assert "| good_v1 | a (2: a_0, a_1): 3, Discrete(4) | 4 steps | 32 steps in 8 episodes | 1,234 | - | 99 |" in text
    assert "| bad_v1 | a (2: a_0, a_1): 3, Discrete(4) | - | no | - | - | - |" in text
    assert "- good_v1: it waits." in text
    assert "- bad_v1: it lies." in text
    assert "not looked at: absent_v1." in text


def test_ten_and_more_are_asked_for_and_those_of_this_module_exist() -> None:
    names = {asked.name for asked in ALL}
    assert len(names) == len(ALL) >= 10
    assert {"vmas:navigation", "gymnasium:Foraging-5x5-3p-2f-v3", "gymnasium:rware-tiny-2ag-v2"} < names
    for asked in ALL:
        if asked.reference.startswith(HERE):
            assert callable(attribute("environment", asked.reference))
