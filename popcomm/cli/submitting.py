"""popcomm submit: a YAML file becomes a job, which trains on a cluster and leaves a run folder on its storage."""

from __future__ import annotations

import json
import tempfile
import uuid
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from popcomm.cli import documents, jobs
from popcomm.cli.run_folder import check_trust
from popcomm.cli.working_dir import missing, pack
from popcomm.errors import UserError

JOB_FILE, DOCUMENT_FILE = "popcomm_job.json", "popcomm_job.yaml"
ENTRYPOINT = "python -m popcomm.cli.job"


@dataclass(frozen=True)
class Job:
    """What a job is told, in two files in its working directory: the document as YAML, where keys may be numbers and
    values dates, and the rest as JSON.

    id: of the job on the cluster.
    document: {section: {key: value}}, the YAML file with its overrides.
    run_dir: the run folder, on storage that the cluster shares; None: in the cluster's POPCOMM_RUNS, or `fallback`.
    fallback: the run folder where neither is said.
    resume: go on in it.
    trust: read pickles of what is resumed, too (`PopulationPPO.from_checkpoint`).
    """

    id: str
    document: dict[str, Any]
    run_dir: str | None
    fallback: str
    resume: bool
    trust: bool = False

    @property
    def trusted(self) -> bool:
        """Whether its checkpoints are: those of a new run, it writes itself."""
        return self.trust or not self.resume


def submit(
    file: str,
    overrides: list[str],
    address: str,
    gpus: int,
    run_dir: Path | None,
    resume: bool,
    followed: bool,
    say: jobs.Say,
    trust: bool = False,
) -> int:
    """Check, pack and submit; then follow the job to its end, or say how to.

    Returns:
        The exit code: 0 after a submission that is not followed, else what `jobs.follow` says.

    Raises:
        UserError: a mistake in the document, a working directory that is too large, a cluster that cannot be reached or
            lacks GPUs; before anything is submitted.
    """
    if resume and run_dir is None:
        raise UserError("--resume needs --run-dir, the folder of the run to go on with, as the cluster names it")
    check_trust(trust, resume)
    if run_dir is not None and not run_dir.is_absolute():
        raise UserError(f"--run-dir {run_dir} is not absolute: a path on the cluster, on storage that its nodes share")
    # An option of this command, and of no file: those of the file are for any machine.
    with_gpus = [f"learners.num_learners={gpus}", "learners.num_gpus_per_learner=1"] if gpus else []
    document = documents.load(file, [*overrides, *with_gpus])
    client = jobs.connect(address)
    with documents.naming(file, overrides):
        jobs.check_gpus(client, address, _check(document))
    name = f"{Path(file).stem}-{datetime.now():%Y%m%d-%H%M%S}"
    job = Job(
        id=f"{name}-{uuid.uuid4().hex[:4]}",
        document=document,
        run_dir=None if run_dir is None else str(run_dir),
        fallback=str(Path("runs").resolve() / name),
        resume=resume,
        trust=trust,
    )
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder) / "working_dir.zip"
        taken = pack(Path.cwd(), package, _told(job))
        if taken.left_out:
            say(missing(taken.left_out))
        jobs.submit(client, address, job.id, ENTRYPOINT, package)
    say(f"job: {job.id} ({taken.total / 2**20:.1f} MB of {Path.cwd()} taken along)")
    if not followed:
        say(f"follow it: {jobs.how_to_come_back(job.id, address)}")
        return jobs.SUCCEEDED
    return jobs.follow(client, address, job.id, say)


def _told(job: Job) -> dict[str, str]:
    """{file: text}; see `told`."""
    about = asdict(job)
    return {DOCUMENT_FILE: documents.text_of(about.pop("document")), JOB_FILE: json.dumps(about)}


def told(folder: Path) -> Job:
    """The job that was submitted with a working directory."""
    about = json.loads((folder / JOB_FILE).read_text(encoding="utf-8"))
    return Job(document=documents.load(folder / DOCUMENT_FILE), **about)


def _check(document: dict[str, Any]) -> float:
    """Look at the document as the job will; returns the GPUs that its learners ask for.

    Raises:
        UserError: the first mistake.
    """
    from popcomm.cli.search_space import search
    from popcomm.cli.sweep import checked_trials
    from popcomm.cli.train import checked_config

    if "tune" not in document:
        return _gpus(checked_config(document, elsewhere=True))
    return max(map(_gpus, checked_trials(document, search(document), elsewhere=True)))


def _gpus(config: Any) -> float:
    learners = config.num_gpus_per_learner * max(1, config.num_learners)
    return float(learners + config.num_gpus_per_env_runner * config.num_env_runners)
