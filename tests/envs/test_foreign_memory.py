"""Objects of others, taken and put back as a whole and by worlds, on a house of three rooms."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
import torch

from popcomm.envs.foreign_memory import ForeignMemory

TWO = torch.tensor([True, False, True])


class Thing:
    """An object with attributes."""

    def __init__(self, **attributes: Any) -> None:
        self.__dict__.update(attributes)


@pytest.fixture
def house() -> Thing:
    lamp, door = Thing(light=torch.tensor([1.0, 2.0, 3.0])), Thing(open=False)
    return Thing(
        rooms=[lamp, door],
        chosen=lamp,
        counts={"steps": 3, "size": (2, 2)},
        keys={lamp: 7},
        grid=np.array([1, 2]),
        late=None,
        speak=lambda: "hello",
    )


def test_everything_is_as_it_was_after_put(house: Thing) -> None:
    memory = ForeignMemory(house)
    taken = memory.take()
    lamp, rooms = house.chosen, house.rooms
    lamp.light += 1
    house.rooms[1].open, house.chosen = True, house.rooms[1]
    house.rooms.append(Thing())
    house.counts["steps"], house.counts["new"], house.keys[lamp] = 9, 1, 8
    house.grid[0], house.late = 5, torch.zeros(3)
    memory.put(taken)
    assert lamp.light.tolist() == [1, 2, 3]
    assert house.chosen is lamp
    assert house.rooms is rooms
    assert len(rooms) == 2
    assert not rooms[1].open
    assert house.counts == {"steps": 3, "size": (2, 2)}
    assert house.keys == {lamp: 7}
    assert house.grid.tolist() == [1, 2]
    assert house.late is None
    assert house.speak() == "hello"


def test_what_was_taken_pickles_is_no_part_of_the_house_and_serves_twice(house: Thing) -> None:
    memory = ForeignMemory(house)
    taken = pickle.loads(pickle.dumps(memory.take()))
    for _ in range(2):
        memory.put(taken)
        house.chosen.light += 1  # must not reach what was taken
    memory.put(taken)
    assert house.chosen.light.tolist() == [1, 2, 3]


def test_one_tensor_in_two_places_stays_one(house: Thing) -> None:
    house.rooms[1].light = house.chosen.light
    memory = ForeignMemory(house)
    memory.put(memory.take())
    house.chosen.light += 1
    assert house.rooms[1].light.tolist() == [2, 3, 4]
    memory.put_worlds(memory.take(), TWO)
    house.chosen.light += 1
    assert house.rooms[1].light.tolist() == [3, 4, 5]


def test_an_object_made_later_is_made_anew(house: Thing) -> None:
    memory = ForeignMemory(house)
    house.rooms[0] = Thing(light=torch.tensor([7.0, 8.0, 9.0]), by=house.chosen)
    taken = memory.take()
    house.rooms[0] = Thing(light=torch.zeros(3))
    memory.put(taken)
    assert house.rooms[0].light.tolist() == [7, 8, 9]
    assert house.rooms[0].by is house.chosen
    house.rooms[0] = Thing(light=torch.zeros(3), by=None)
    memory.put_worlds(taken, TWO)
    assert house.rooms[0].light.tolist() == [7, 0, 9]


def test_put_worlds_writes_the_rows_of_those_worlds(house: Thing) -> None:
    memory = ForeignMemory(house)
    taken = memory.take()
    house.chosen.light = torch.tensor([10.0, 20.0, 30.0])
    assert memory.put_worlds(taken, TWO) == []
    assert house.chosen.light.tolist() == [1, 20, 3]


def test_put_worlds_puts_what_is_not_by_world_as_a_whole_and_names_what_had_changed(house: Thing) -> None:
    memory = ForeignMemory(house)
    house.pair = torch.zeros(2)
    taken = memory.take()
    house.pair, house.counts["steps"], house.chosen = torch.ones(2), 4, house.rooms[1]
    assert sorted(memory.put_worlds(taken, TWO)) == ["root.chosen", "root.counts[...]", "root.pair"]
    assert house.pair.tolist() == [0, 0]
    assert house.counts["steps"] == 3
    assert house.chosen is house.rooms[0]
