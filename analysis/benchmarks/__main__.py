"""`python -m popcomm.analysis.benchmarks` (`make bench`): run the benchmarks, print and write what was measured."""

from __future__ import annotations

import os

# Before torch and Ray are imported: one thread, no network beyond loopback.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAY_AUTH_MODE", "disabled")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("TQDM_DISABLE", "1")
os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")

import argparse
import importlib
import json
import warnings
from pathlib import Path

NAMES = ("worlds", "training", "peers", "scaling", "memory", "attention", "tiny", "routing", "channel", "survival")


def main(arguments: list[str] | None = None) -> None:
    """Run what was asked for, in the order of NAMES."""
    from popcomm.analysis.benchmarks import figure, routing
    from popcomm.analysis.benchmarks.common import Measurement, table

    parser = argparse.ArgumentParser(prog="python -m popcomm.analysis.benchmarks", description=__doc__)
    parser.add_argument("--only", choices=NAMES, nargs="+", default=NAMES, help="some benchmarks instead of all")
    parser.add_argument("--quick", action="store_true", help="small sizes, one repetition: does it run at all?")
    parser.add_argument("--out", type=Path, default=Path("benchmarks_out"), help="folder for tables and figure")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    warnings.filterwarnings("ignore", message=".*Overriding environment")
    for name in options.only:
        measured: list[Measurement] = importlib.import_module(f"{__package__}.{name}").run(options.quick)
        text = table(measured)
        print(f"\n{text}", flush=True)
        (options.out / f"{name}.json").write_text(json.dumps([m.as_dict() for m in measured], indent=1))
        (options.out / f"{name}.md").write_text(f"{text}\n")
        if name == "scaling":
            figure.draw(measured, options.out / "scaling.png")
        if name == "routing":
            routing.draw(measured, options.out / "routing.png")


if __name__ == "__main__":
    main()
