"""`popcomm export`: a population in a folder, as a whole and member by member."""

from __future__ import annotations

from pathlib import Path

from popcomm.errors import UserError
from popcomm.rollout.population import Population


def write(population: Population, folder: Path) -> int:
    """Write the population into a folder, and every member into <species>/agent_<member>; returns how many there are.

    Members of networks that cannot be taken apart, such as those that grow, are in the whole alone.

    Raises:
        UserError: the folder holds something.
    """
    if folder.is_dir() and any(folder.iterdir()):
        raise UserError(f"{folder} holds something already; name a new folder, or an empty one")
    population.save_pretrained(folder)
    count = 0
    for name, members in population.items():
        if not members.apart:
            continue
        width = len(str(len(members) - 1))
        for member, agent in enumerate(members):
            agent.save_pretrained(folder / name / f"agent_{member:0{width}}")
            count += 1
    return count
