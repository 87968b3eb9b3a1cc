"""The population of a run, as the command line finds it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import popcomm
from popcomm import manifest
from popcomm.cli import documents, run_folder
from popcomm.errors import UserError
from popcomm.rollout.files import POPULATION
from popcomm.rollout.loading import UNDER

ENV_CONFIG = "environment.env_config"


@contextmanager
def released(run: Path) -> Iterator[Any]:
    """The population of a run folder, a checkpoint or an exported folder.

    Checkpoints from before populations were saved in them are restored as the trainer does, with Ray.

    Raises:
        UserError: none of these, a damaged one, or one without a checkpoint.
    """
    if not any((run / name).is_file() for name in (POPULATION, manifest.MANIFEST)):
        run_folder.existing_run(run)
        checkpoint, _ = run_folder.newest_checkpoint(run)
        if not (checkpoint / UNDER).is_dir():
            with _restored(run, checkpoint) as population:
                yield population
            return
    yield popcomm.load(run)


@contextmanager
def _restored(run: Path, checkpoint: Path) -> Iterator[Any]:
    from popcomm.cli import schema
    from popcomm.cli.ray_session import quiet_ray, ray_session
    from popcomm.rllib import PopulationPPOConfig

    document = documents.load(run / run_folder.CONFIG)
    quiet_ray()
    config = schema.apply(document, PopulationPPOConfig()).recording(run_dir=None)
    # One process plays; the batch is never learned from, so its minibatches do not matter.
    config.env_runners(num_env_runners=0).training(minibatch_size=None)
    config.learners(num_learners=0, num_gpus_per_learner=0)
    with ray_session(config):
        algo = config.build_algo()
        try:
            algo.restore_from_path(str(checkpoint.resolve()))
            yield algo.population()
        finally:
            algo.stop()


def env_config_of(overrides: list[str] | None) -> dict[str, Any]:
    """{key: value} of "environment.env_config.key=value" each.

    Raises:
        UserError: a key of anything else: what was trained stays as it was trained.
    """
    document: dict[str, Any] = {}
    for override in overrides or []:
        key = override.partition("=")[0].strip()
        if not key.startswith(f"{ENV_CONFIG}."):
            raise UserError(
                f"--set {override}: of a population that is trained only the worlds can be others; "
                f"allowed: {ENV_CONFIG}.KEY=VALUE"
            )
        documents.put(document, override)
    return document.get("environment", {}).get("env_config", {})
