"""SumoMap: what a network file of SUMO's says of its lights, lanes and streets. It is read without SUMO."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from popcomm.errors import UserError


@dataclass(frozen=True)
class SumoMap:
    """A road network: N lights and L lanes; lanes inside of junctions are not counted.

    Attributes:
        signals: ids of the lights, in the order in which SUMO has them; each is an agent.
        greens: of each light the states of its green phases, a letter for each link, as sumo-rl numbers them: all
            phases of its programme without yellow that are not red everywhere.
        durations: of each light the seconds that the programme gives to each of them, and to the yellow after it.
        links: of each light (lane before it, lane after it, number of the letter) for each way across.
        incoming: of each light the lanes before it, in the order of its links, none twice.
        outgoing: of each light the lanes after it, none twice: of each letter the first way across.
        lanes: ids.
        lengths: [L] float64, meters.
        shapes: of each lane [K, 2] float64, meters, the line along its middle.
        positions: [N, 2] float32, meters: the mean of the junctions where the light stands.
        entrances, exits: {dead end: edge}, the streets in from there and out to there.
    """

    signals: tuple[str, ...]
    greens: tuple[tuple[str, ...], ...]
    durations: tuple[tuple[float, ...], ...]
    links: tuple[tuple[tuple[int, int, int], ...], ...]
    incoming: tuple[tuple[int, ...], ...]
    outgoing: tuple[tuple[int, ...], ...]
    lanes: tuple[str, ...]
    lengths: np.ndarray
    shapes: tuple[np.ndarray, ...]
    positions: np.ndarray
    entrances: dict[str, str]
    exits: dict[str, str]

    @property
    def num_phases(self) -> list[int]:
        """Green phases of each light."""
        return [len(states) for states in self.greens]

    @property
    def most_lanes(self) -> int:
        """Lanes before the light that has most of them."""
        return max(map(len, self.incoming))


def read_map(file: Path) -> SumoMap:
    """The map in a .net.xml. Raises UserError: it is none, or has no lights."""
    try:
        root = ET.parse(file).getroot()
    except (ET.ParseError, UnicodeDecodeError) as error:
        raise UserError(f"traffic_v0: {file} is no network of SUMO's: {error}") from error
    # std::map, by which SUMO orders them, goes by bytes.
    programmes = dict(sorted(_programmes(root).items()))
    if not programmes:
        raise UserError(f"traffic_v0: {file} has no traffic lights, and needs one at least")
    streets = [edge for edge in root.iter("edge") if edge.get("function", "normal") == "normal"]
    lanes = {str(lane.get("id")): lane for edge in streets for lane in edge.iter("lane")}
    number = {lane: i for i, lane in enumerate(lanes)}
    links = _links(root, programmes, number)
    ends = {str(edge.get("id")): str(edge.get("to")) for edge in streets}
    entrances, exits = _gates(root, streets)
    return SumoMap(
        signals=tuple(programmes),
        greens=tuple(tuple(state for state, _ in phases) for phases in programmes.values()),
        durations=tuple(tuple(seconds for _, seconds in phases) for phases in programmes.values()),
        links=links,
        incoming=tuple(tuple(dict.fromkeys(before for before, _, _ in ways)) for ways in links),
        outgoing=tuple(_first_ways(ways) for ways in links),
        lanes=tuple(lanes),
        lengths=np.array([float(lane.get("length", 0)) for lane in lanes.values()]),
        shapes=tuple(_points(str(lane.get("shape"))) for lane in lanes.values()),
        positions=_positions(root, programmes, ends),
        entrances=entrances,
        exits=exits,
    )


def _programmes(root: ET.Element) -> dict[str, list[tuple[str, float]]]:
    """{light: (state, seconds with the yellow after it) of its green phases}, of the first programme that it has."""
    found: dict[str, list[tuple[str, float]]] = {}
    for logic in root.iter("tlLogic"):
        signal, greens = str(logic.get("id")), list[tuple[str, float]]()
        if signal in found:
            continue
        for phase in logic.iter("phase"):
            state, seconds = str(phase.get("state")), float(phase.get("duration", 0))
            if "y" not in state and set(state) - {"r", "s"}:
                greens.append((state, seconds))
            elif greens:
                greens[-1] = (greens[-1][0], greens[-1][1] + seconds)
        if not greens:
            raise UserError(f"traffic_v0: the light '{signal}' has no green phase")
        found[signal] = greens
    return found


def _links(
    root: ET.Element, signals: Iterable[str], number: dict[str, int]
) -> tuple[tuple[tuple[int, int, int], ...], ...]:
    """Ways across, by light, sorted by their letters."""
    found: dict[str, list[tuple[int, int, int]]] = {signal: [] for signal in signals}
    for way in root.iter("connection"):
        signal = way.get("tl")
        ends = (f"{way.get('from')}_{way.get('fromLane')}", f"{way.get('to')}_{way.get('toLane')}")
        if signal in found and all(end in number for end in ends):
            found[signal].append((number[ends[0]], number[ends[1]], int(way.get("linkIndex", 0))))
    return tuple(tuple(sorted(ways, key=lambda way: way[2])) for ways in found.values())


def _first_ways(ways: tuple[tuple[int, int, int], ...]) -> tuple[int, ...]:
    """The lanes after a light, of each letter the first way across; none twice."""
    first = {letter: after for _, after, letter in reversed(ways)}
    return tuple(dict.fromkeys(first.values()))


def _positions(root: ET.Element, signals: Iterable[str], ends: dict[str, str]) -> np.ndarray:
    """[N, 2] float32, of lights: where the streets before them end."""
    junctions = {str(j.get("id")): (float(j.get("x", 0)), float(j.get("y", 0))) for j in root.iter("junction")}
    at: dict[str, dict[str, None]] = {signal: {} for signal in signals}
    for way in root.iter("connection"):
        signal, start = way.get("tl"), str(way.get("from"))
        if signal in at and start in ends:
            at[signal][ends[start]] = None
    return np.array([np.mean([junctions[j] for j in places], 0) for places in at.values()], dtype=np.float32)


def _gates(root: ET.Element, streets: list[ET.Element]) -> tuple[dict[str, str], dict[str, str]]:
    """{dead end: the street that leads in from there}, and out to there: of those that have both."""
    dead = {str(junction.get("id")) for junction in root.iter("junction") if junction.get("type") == "dead_end"}
    into = {str(edge.get("from")): str(edge.get("id")) for edge in streets if edge.get("from") in dead}
    out = {str(edge.get("to")): str(edge.get("id")) for edge in streets if edge.get("to") in dead}
    gates = [gate for gate in into if gate in out]
    return {gate: into[gate] for gate in gates}, {gate: out[gate] for gate in gates}


def _points(shape: str) -> np.ndarray:
    """[K, 2] from "x,y x,y,z ..."."""
    return np.array([[float(x) for x in point.split(",")[:2]] for point in shape.split()])
