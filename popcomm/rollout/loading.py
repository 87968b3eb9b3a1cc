"""Loading a population: from a run folder, a checkpoint or an exported folder, without Ray and without a pickle."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from popcomm import manifest
from popcomm.errors import UserError
from popcomm.identity import run_id
from popcomm.rollout.files import POPULATION, read
from popcomm.rollout.population import Population
from popcomm.rollout.recipes import EnvRecipe

EARLIER = "it was saved by an earlier popcomm; train on for an iteration, and it is saved anew"
CHECKPOINTS, UNDER = "checkpoints", "population"


def load(
    run_or_checkpoint: str | os.PathLike[str],
    env_config: Mapping[str, Any] | None = None,
    env: Any = None,
    agent: type | Mapping[str, type] | None = None,
) -> Population:
    """A population as it was when it was saved, on the CPU.

    Args:
        run_or_checkpoint: a run folder (its newest checkpoint that holds), a checkpoint, or what `popcomm export` or
            `save_pretrained` wrote.
        env_config: keys that differ from those of training, such as {"num_agents": 50}.
        env: what makes its worlds, where no module:attribute names that, as of a function in a notebook.
        agent: the class of its networks, likewise; or {species: class}.

    Raises:
        UserError: no such folder, a damaged one, or one from before populations were saved in checkpoints; an
            env_config that does not fit.
    """
    folder = population_folder(run_or_checkpoint)
    told = read(folder, lambda name: agent.get(name) if isinstance(agent, Mapping) else agent)
    seats = told.pop("seats")
    if env is not None:
        told["env"] = replace(told["env"], env=env) if told["env"] else EnvRecipe(env, **seats)
    population = Population(**told)
    return population if env_config is None else population.in_worlds_of(env_config)


def population_folder(run_or_checkpoint: str | os.PathLike[str]) -> Path:
    """The folder with the population.json, its files verified where there is a manifest.

    Raises:
        UserError: there is none, or it was changed.
    """
    # Tune's checkpoints have a path, and are none.
    path = Path(str(getattr(run_or_checkpoint, "path", run_or_checkpoint)).removeprefix("file://"))
    if (path / POPULATION).is_file():
        return path
    checkpoint = path
    if (path / CHECKPOINTS).is_dir():
        found = manifest.find(path / CHECKPOINTS, UNDER, run_id(path)).path
        if found is None:
            raise UserError(f"{path / CHECKPOINTS} holds no valid checkpoint")
        checkpoint = found
    elif not path.is_dir():
        raise UserError(f"there is no folder {path}; a population is loaded of a run, a checkpoint or an export")
    elif not (path / manifest.MANIFEST).is_file():
        raise UserError(f"{path} is no run, no checkpoint and no exported population")
    about = manifest.verify(checkpoint, UNDER)
    if not (checkpoint / UNDER / POPULATION).is_file():
        reason = about.get("no_population", EARLIER)
        raise UserError(f"the checkpoint {checkpoint} holds no population to load: {reason}")
    return checkpoint / UNDER
