"""`popcomm export`: a population in a folder, as a whole and member by member."""

from __future__ import annotations

from pathlib import Path

from popcomm.errors import UserError
from popcomm.rollout.population import Population


def check_folder(folder: Path) -> None:
    """Raises UserError: the folder holds something, or is a file, or is to be made in one."""
    there = next((path for path in (folder, *folder.parents) if path.exists()), folder)
    if there.exists() and not there.is_dir():
        raise UserError(f"{there} is a file; name a new folder, or an empty one")
    if folder.is_dir() and any(folder.iterdir()):
        raise UserError(f"{folder} holds something already; name a new folder, or an empty one")


def write(population: Population, folder: Path) -> int:
    """Write the population into a folder, and every member into <species>/agent_<member>; returns how many there are.

    Members of networks that cannot be taken apart, such as those that grow, are in the whole alone.

    Raises:
        UserError: as `check_folder`.
    """
    check_folder(folder)
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
