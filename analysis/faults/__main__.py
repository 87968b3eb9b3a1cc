"""`python -m popcomm.analysis.faults`: bring faults about, look at what the user reads, and print what they cost.

Each file operation of a small run once with a kill and once with a full disk takes about ten minutes, the faults on Ray
half a minute each. `--only files --moments 20 --seed 1` takes 20 of those operations instead, drawn by that seed.
"""

from __future__ import annotations

import os

# Before torch and Ray are imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAY_AUTH_MODE", "disabled")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

from popcomm.analysis.faults import local_run, matrix, store

FILES = "files"
ALL = (FILES, *matrix.FAULTS, *store.FAULTS)
OF_FILES = {"kill": local_run.kill, "disk_full": local_run.disk_full}


def main(arguments: list[str] | None = None) -> None:
    """Try what was asked for; the first fault that ends otherwise than it should raises."""
    parser = argparse.ArgumentParser(prog="python -m popcomm.analysis.faults", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=ALL, default=ALL)
    parser.add_argument("--moments", type=_at_least_one, help="of file operations, only so many (default: all of them)")
    parser.add_argument("--seed", type=int, default=1, help="which ones")
    parser.add_argument("--faults", nargs="+", choices=OF_FILES, default=list(OF_FILES), help="at each of them")
    options = parser.parse_args(arguments)
    for name in options.only:
        with tempfile.TemporaryDirectory(prefix="faults_") as folder:
            if name == FILES:
                _try_file_operations(Path(folder), options.moments, options.seed, options.faults)
            else:
                told = store.try_out(name) if name in store.FAULTS else matrix.try_out(name, Path(folder))
                cost = ("-" if told.code == 0 else "it ended") if told.seconds is None else f"{told.seconds:.1f} s"
                print(f"{told.fault} | {told.said} | exit code {told.code} | {cost}", flush=True)


def _at_least_one(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"it is '{text}', and must be a whole number of at least 1")
    return int(text)


def _try_file_operations(folder: Path, moments: int | None, seed: int, faults: Sequence[str]) -> None:
    whole = local_run.run(folder / "whole")
    expected = local_run.records(folder / "whole")
    for fault in faults:
        for at in local_run.moments(whole, moments, seed, OF_FILES[fault]):
            run_dir = folder / f"{fault}_{at}"
            moment = f"{fault} at {at}, {whole.operations[at - 1]}"
            harmed = local_run.run(run_dir, fault=OF_FILES[fault], at=at, lasting=True)
            assert harmed.code != 0, f"{moment}: the run ended as if nothing had been"
            ended = local_run.run(run_dir, resume=True)
            same = ended.code == 0 and local_run.records(run_dir) == expected
            print(f"{moment}: {'goes on as if it had not been' if same else 'DIFFERS'}", flush=True)
            assert same, ended.printed


if __name__ == "__main__":
    main()
