"""`popcomm check-env` over environments of others, as a page: python -m popcomm.analysis.foreign_environments PAGE.

Packages beyond popcomm[envs,vmas,lbforaging,rware]: pettingzoo[butterfly,sisl,classic]. What is not installed is named
on the page, and not looked at.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import ray
from pettingzoo import AECEnv, ParallelEnv
from pettingzoo.utils import turn_based_aec_to_parallel

from popcomm.cli.check_env import check
from popcomm.cli.ray_session import OBJECT_STORE_BYTES, prepare_environment
from popcomm.envs.checking import EnvCheck
from popcomm.sources import of_a_source

HERE = "popcomm.analysis.foreign_environments"
FOR_FILES = ("tictactoe", "connect_four")
ITERATIONS = 2
HEADING = "## Held against plain loops"  # what is above it on the page is written by hand, and stays


class Asked(NamedTuple):
    """An environment, and how it is looked at."""

    reference: str
    package: str
    env_config: dict[str, Any]
    steps: int = 100
    worlds: int = 16

    @property
    def name(self) -> str:
        if of_a_source(self.reference):
            return self.reference
        module, attribute = self.reference.split(":")
        return attribute if module == HERE else module.removeprefix("pettingzoo.").replace(".environments", "")


def mpe(name: str, **config: Any) -> Asked:
    """One of mpe2."""
    return Asked(f"mpe2.{name}:parallel_env", "mpe2", {"max_cycles": 25, **config})


def magent(name: str, **config: Any) -> Asked:
    """One of magent2."""
    return Asked(f"magent2.environments.{name}:parallel_env", "magent2", {"max_cycles": 40, **config}, worlds=4)


ALL = (
    mpe("simple_spread_v3", continuous_actions=True),
    mpe("simple_speaker_listener_v4"),
    mpe("simple_reference_v3"),
    mpe("simple_adversary_v3"),
    mpe("simple_crypto_v3"),
    mpe("simple_push_v3"),
    mpe("simple_tag_v3"),
    mpe("simple_world_comm_v3"),
    magent("battle_v4", map_size=16),
    magent("battlefield_v5"),
    magent("combined_arms_v6", map_size=16),
    magent("tiger_deer_v4"),
    Asked("pettingzoo.sisl.pursuit_v5:parallel_env", "pygame", {"max_cycles": 30}, 64, 4),
    Asked("pettingzoo.sisl.multiwalker_v9:parallel_env", "Box2D", {"max_cycles": 60}, 130, 4),
    Asked("pettingzoo.butterfly.knights_archers_zombies_v11:parallel_env", "pygame", {"max_cycles": 60}, 130, 4),
    Asked(f"{HERE}:tictactoe", "pygame", {}),
    Asked(f"{HERE}:connect_four", "pygame", {}),
    Asked("gymnasium:Foraging-5x5-3p-2f-v3", "lbforaging", {"max_episode_steps": 30}),
    Asked("gymnasium:rware-tiny-2ag-v2", "rware", {"max_steps": 40}),
    Asked("vmas:navigation", "vmas", {"max_steps": 30}),
)


def tictactoe() -> ParallelEnv:
    """Turn by turn, as a ParallelEnv in which those who are not on move may do nothing."""
    from pettingzoo.classic import tictactoe_v3

    return _parallel(tictactoe_v3.env())


def connect_four() -> ParallelEnv:
    """The same."""
    from pettingzoo.classic import connect_four_v3

    return _parallel(connect_four_v3.env())


def _parallel(env: AECEnv) -> ParallelEnv:
    return turn_based_aec_to_parallel(env)


def page(results: dict[str, EnvCheck], missing: list[str]) -> str:
    """The generated part of the page, in Markdown."""
    rows = [_row(name, found) for name, found in results.items()]
    notes = [f"- {name}: {line}." for name, found in results.items() for line in found.notes]
    wrong = [f"- {name}: {line}." for name, found in results.items() for line in found.wrong]
    equal = sum("lock step" in found.facts for found in results.values())
    return "\n".join(
        [
            HEADING,
            "",
            f"`popcomm check-env` over {len(results)} environments, made by `python -m {HERE} docs/environments.md` "
            "(README.md says what is looked at). "
            f"In {equal} of them lives, rewards, flags, masks and observations, final ones too, are to the last bit "
            "those of a plain loop with the same seeds and actions.",
            "",
            "Rates are agent steps a second on one core that other work shared: of one copy in a plain loop, of two "
            "copies as worlds (of VMAS four worlds in both), and in training (`mlp`, one symbol of eight heard by all, "
            "or by four neighbours above 32 agents; rollout and update).",
            "",
            "| environment | species: numbers seen, actions | episodes | lock step | "
            "plain loop | as worlds | in training |",
            "| --- | --- | --- | --- | ---: | ---: | ---: |",
            *rows,
            "",
            "### Worth knowing",
            "",
            *notes,
            "",
            "### Wrong",
            "",
            *(wrong or ["Nothing."]),
            *([f"\nNot installed, and not looked at: {', '.join(missing)}."] if missing else []),
            "",
        ]
    )


def _row(name: str, found: EnvCheck) -> str:
    species = "; ".join(
        line.replace(" observes", ":").replace(" numbers, acts in", ",") for line in found.facts["species"]
    )
    rates = {where.split(" (")[0]: f"{rate:,.0f}" for where, rate in found.rates.items()}
    lock = found.facts.get("lock step", ["no"])[0].partition(":")[0]
    columns = [species, ", ".join(found.facts.get("episodes", ["-"])), lock]
    return (
        " | ".join([f"| {name}", *columns, *(rates.get(w, "-") for w in ("a plain loop", "as worlds", "in training"))])
        + " |"
    )


def main() -> None:
    """Look at all that is installed."""
    installed = [asked for asked in ALL if find_spec(asked.package)]
    missing = [asked.name for asked in ALL if asked not in installed]
    ray.init(num_cpus=1, object_store_memory=OBJECT_STORE_BYTES, include_dashboard=False, log_to_driver=False)
    results = {}
    for asked in installed:
        print(asked.name, flush=True)
        results[asked.name] = check(asked.reference, asked.env_config, asked.steps, asked.worlds, ITERATIONS)
    ray.shutdown()
    file = Path(sys.argv[1])
    above = file.read_text(encoding="utf-8").partition(HEADING)[0] if file.exists() else ""
    file.write_text(above + page(results, missing), encoding="utf-8")


if __name__ == "__main__":
    prepare_environment()
    main()
