"""The road networks of traffic_v0: RESCO's, which come with sumo-rl, square grids that SUMO makes, and one's own."""

from __future__ import annotations

import os
import subprocess
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from popcomm.checks import count, number
from popcomm.envs.sumo_map import SumoMap
from popcomm.errors import UserError, nearest

# RESCO's benchmark (Ault & Sharon 2021): {network: the second of the day at which its hour begins}.
RESCO = {
    "grid4x4": 0,
    "arterial4x4": 0,
    "cologne1": 25200,
    "cologne3": 25200,
    "cologne8": 25200,
    "ingolstadt1": 57600,
    "ingolstadt7": 57600,
    "ingolstadt21": 57600,
}
GRID = "grid"
SIZE, DEMAND = 4, 200.0
MOST = 32  # junctions on a side
NEEDED = ("libsumo", "sumo", "sumo_rl")
# Meters: of a street, and of its last part, which has a lane for those who turn left.
STREET, LEFT_LANE = 200, 150


class Roads(NamedTuple):
    """What is driven on, and by whom."""

    net: Path  # .net.xml
    routes: Path | None  # who drives when and where to; None: drawn anew in every episode
    begin: int  # the second at which an episode begins
    demand: float  # where they are drawn: vehicles an hour at every entrance


def check_installed() -> None:
    """Raises UserError: SUMO, or what its networks come with, is not installed."""
    missing = [package for package in NEEDED if find_spec(package) is None]
    if missing:
        raise UserError(
            f"traffic_v0 needs SUMO, of which {', '.join(missing)} is not installed: pip install 'popcomm[traffic]'"
        )


def roads_of(net: Any, size: Any, demand: Any, routes: Any, begin: Any, folder: Path) -> Roads:
    """What the arguments of traffic_v0 mean; a grid is made in `folder`.

    Raises:
        UserError: no such network, a value out of range, or one that has no effect with this network.
    """
    own = isinstance(net, (str, os.PathLike)) and str(net).endswith(".net.xml")
    if not own and net != GRID and net not in RESCO:
        raise UserError(f"traffic_v0: net is {net!r}; {nearest(str(net), [GRID, *RESCO])} A file ends in .net.xml")
    _check_effect(net, {"size": size, "demand": demand}, net == GRID, f"net is '{GRID}'")
    _check_effect(net, {"routes": routes, "begin": begin}, own, "net is a file of your own")
    if own:
        start = 0 if begin is None else count("traffic_v0: begin", begin, 0)
        return Roads(_file("net", net), _file("routes", routes), start, 0.0)
    if net in RESCO:
        place = resco_folder() / net
        found = sorted(place.glob("*.rou.xml"))
        if not found:
            raise UserError(f"traffic_v0: the sumo_rl that is installed has no network '{net}' in {place}")
        return Roads(place / f"{net}.net.xml", found[0], RESCO[net], 0.0)
    side = count("traffic_v0: size", SIZE if size is None else size, 2)
    if side > MOST:
        raise UserError(f"traffic_v0: size is {side}, and must be at most {MOST}")
    hourly = number(
        "traffic_v0: demand", DEMAND if demand is None else demand, "be above 0, and at most 1800", above=0.0, most=1800
    )
    return Roads(make_grid(side, folder), None, 0, hourly)


def _check_effect(net: Any, given: dict[str, Any], fits: bool, where: str) -> None:
    for key, value in given.items():
        if value is not None and not fits:
            raise UserError(
                f"traffic_v0: {key} is {value!r}, and has no effect with net '{net}'; it is used where {where}"
            )


def _file(key: str, path: Any) -> Path:
    if path is None:
        raise UserError("traffic_v0: a net of your own needs routes, a file of SUMO's with vehicles or flows")
    if not isinstance(path, (str, os.PathLike)) or not Path(path).is_file():
        raise UserError(f"traffic_v0: {key} is {str(path)!r}, and there is no such file")
    return Path(path).absolute()


def resco_folder() -> Path:
    """Where sumo_rl keeps RESCO's networks; it is not imported, which would need variables of the environment."""
    return _package("sumo_rl") / "nets" / "RESCO"


def _package(name: str) -> Path:
    check_installed()
    spec = find_spec(name)
    assert spec is not None
    assert spec.submodule_search_locations is not None
    return Path(next(iter(spec.submodule_search_locations)))


def make_grid(size: int, folder: Path) -> Path:
    """A grid of size x size crossings with lights, and streets out of it all around; by SUMO's netgenerate.

    Streets have one lane each way, and a second one for turning left before every crossing. Each light has four phases:
    ahead and right, then left, of one street, and of the other.
    """
    home, file = _package("sumo"), folder / f"grid{size}x{size}.net.xml"
    command: list[str | Path] = [
        home / "bin" / "netgenerate", "--grid", f"--grid.number={size}", f"--grid.length={STREET}",
        f"--grid.attach-length={STREET}", "--default.lanenumber=1", "--turn-lanes=1",
        f"--turn-lanes.length={LEFT_LANE}", "--tls.guess", "--tls.guess.threshold=0", "--no-turnarounds", "-o", file,
    ]  # fmt: skip
    made = subprocess.run(command, env={**os.environ, "SUMO_HOME": str(home)}, capture_output=True, text=True)
    if made.returncode or not file.exists():
        raise RuntimeError(f"SUMO's netgenerate made no grid of {size} x {size}: {made.stderr.strip()}")
    return file


def draw_trips(plan: SumoMap, demand: float, seconds: int, seed: int, file: Path) -> None:
    """Write who drives in an episode: a Poisson stream of `demand` vehicles an hour at each entrance, each to an exit
    drawn evenly from those elsewhere, by the shortest way. The same seed, the same trips.

    Args:
        plan: the network, with entrances and exits.
        demand: vehicles an hour at each entrance.
        seconds: in which they set out.
        seed: of the draws.
        file: of SUMO's, .rou.xml, to be written.
    """
    rng = np.random.default_rng(seed)
    gates = list(plan.entrances)
    numbers = rng.poisson(demand * seconds / 3600, len(gates))
    origins = np.repeat(np.arange(len(gates)), numbers)
    departures = rng.uniform(0, seconds, len(origins))
    # Of the exits without the own one, in order.
    drawn = rng.integers(len(gates) - 1, size=len(origins))
    goals = drawn + (drawn >= origins)
    lines = ["<routes>"]
    for i in np.argsort(departures, kind="stable"):
        start, goal = plan.entrances[gates[origins[i]]], plan.exits[gates[goals[i]]]
        lines.append(
            f'<trip id="{len(lines) - 1}" depart="{departures[i]:.2f}" from="{start}" to="{goal}" '
            'departLane="best" departSpeed="max"/>'
        )
    file.write_text("\n".join([*lines, "</routes>\n"]))
