"""Pictures of what a Bottom Up Network grew: its block matrix, filling up over training, and the graph that emerged.

`python -m popcomm.analysis.growth_pictures RUN matrix.gif` animates the matrix (a name that ends with .png: as it is in
the end), and with `--graph graph.png` the seats are drawn with their edges, with `--positions` where they stand when an
episode begins: lights in their town. RUN is a run folder, a checkpoint or what
`popcomm export` wrote. Edges know when they were born, so that one checkpoint is enough; what pruning took is not seen.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from popcomm.errors import UserError
from popcomm.language.drawing import MUTED, card, dress, pixels
from popcomm.language.topology_picture import topology

MOST_FRAMES = 40
FRAME_MS, LAST_MS = 250, 3000


def births(agent: Any, group: str = "actor", network: int = 0) -> NDArray[np.int64]:
    """[N, N] int64, sender by receiver: the iteration in which a layer of the group first joined them; -1: none."""
    never = np.iinfo(np.int64).max
    born = np.full((agent.seats, agent.seats), never)
    for name, layer in agent.layers.items():
        if name.startswith(f"{group}."):
            of, senders, receivers = (part.numpy(force=True) for part in layer.pairs())
            mine = of == network
            np.minimum.at(born, (senders[mine], receivers[mine]), layer.born.numpy(force=True)[mine])
    return np.where(born == never, -1, born)


def block_matrix(born: NDArray[np.int64], iteration: int, last: int) -> Figure:
    """The blocks that there are at an iteration: own ones on the diagonal, edges the darker the older they are.

    Args:
        born: [N, N], as `births` gives it.
        last: iteration of the whole training, which sets the scale of ages.
    """
    seats = len(born)
    there = (born >= 0) & (born <= iteration)
    figure = card(6.4, 6.6, "Who knows what of whom")
    axes = dress(figure.add_subplot(), x="receiver", y="sender", grid=None)
    shade = np.where(there, 0.35 + 0.65 * (iteration - born) / max(last, 1), np.nan)
    axes.imshow(shade, cmap="Oranges", vmin=0, vmax=1, interpolation="nearest")
    own = np.where(np.eye(seats, dtype=bool), 1.0, np.nan)
    axes.imshow(own, cmap="gray", vmin=0, vmax=2.5, interpolation="nearest")
    pairs = int(there.sum())
    share = pairs / max(1, seats * (seats - 1))
    axes.set_title(
        f"iteration {iteration}: {pairs} pairs, {share:.1%} of all, the darker the older; grey: own blocks",
        fontsize=9,
        color=MUTED,
        loc="left",
    )
    return figure


def graph(born: NDArray[np.int64], positions: NDArray[Any] | None = None) -> Figure:
    """Seats, with an arrow for each pair that is joined, the thicker the older. positions: [N, 2]; None: a circle."""
    links = np.argwhere(born >= 0)
    ages = born.max(initial=0) - born[born >= 0] + 1
    title = "The graph that grew"
    return topology(links, len(born), ages, positions, title=title, weighs="age", unit="iterations")


def animate(born: NDArray[np.int64], file: Path) -> None:
    """Write the matrix as an endless animation, or as it is in the end."""
    last = max(int(born.max()), 0)
    if file.suffix != ".gif":
        block_matrix(born, last, last).savefig(file)
        return
    moments = np.unique(np.concatenate([[0], born[born >= 0]]))
    if len(moments) > MOST_FRAMES:
        moments = moments[np.linspace(0, len(moments) - 1, MOST_FRAMES).astype(int)]
    first, *others = (Image.fromarray(pixels(block_matrix(born, int(moment), last))) for moment in moments)
    times = [FRAME_MS] * len(others) + [LAST_MS]
    first.save(file, save_all=True, append_images=others, duration=times, loop=0)


def network_of(population: Any, species: str | None) -> Any:
    """The Bottom Up Network of a population.

    Raises:
        UserError: there is none, or several and none is named.
    """
    grown = {name: members.agent for name, members in population.items() if hasattr(members.agent, "layers")}
    grown = {name: agent for name, agent in grown.items() if hasattr(agent, "edges")}
    if species is None and len(grown) == 1:
        return next(iter(grown.values()))
    if species not in grown:
        known = ", ".join(grown) or "none"
        raise UserError(f"species is {species!r}, and those whose agent is bottom_up are: {known}")
    return grown[species]


def places(population: Any, species: str | None = None) -> NDArray[Any]:
    """[N_s, 2], where the seats of a species stand when an episode of seed 0 begins; a world is made for it.

    Raises:
        UserError: the world has no positions in a plane; or as `network_of` and `Population.rollout`.
    """
    network = network_of(population, species)
    (name,) = (name for name, members in population.items() if members.agent is network)
    rollout = population.rollout(worlds=1)
    try:
        rollout.begin()
        assert rollout.players.now is not None
        positions = rollout.players.now.positions
        if positions is None or positions.shape[-1] != 2:
            raise UserError("--positions is asked for, and the world of this run has no positions in a plane")
        return np.asarray(positions[0, rollout.world.species[name].seats].numpy(force=True))
    finally:
        rollout.close()


def main() -> None:
    import popcomm

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("matrix", type=Path, help="FILE.gif or FILE.png")
    parser.add_argument("--graph", type=Path, help="FILE.png")
    parser.add_argument("--positions", action="store_true", help="of the graph: seats where they stand in their world")
    parser.add_argument("--species", help="whose, where there are several")
    parser.add_argument("--group", default="actor", choices=("actor", "critic"))
    parser.add_argument("--team", type=int, default=0, help="whose, where there are several networks")
    args = parser.parse_args()
    if args.positions and args.graph is None:
        parser.error("--positions is of the graph; say where to draw it with --graph")
    try:
        population = popcomm.load(args.run)
        born = births(network_of(population, args.species), args.group, args.team)
        standing = places(population, args.species) if args.positions else None
    except UserError as error:
        parser.error(str(error))
    animate(born, args.matrix)
    if args.graph is not None:
        graph(born, standing).savefig(args.graph)


if __name__ == "__main__":
    main()
