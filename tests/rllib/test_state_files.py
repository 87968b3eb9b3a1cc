"""State without pickles: what is written comes back to the bit, and nothing of a stranger's runs."""

from __future__ import annotations

import hashlib
import json
import pickle
import shutil
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from popcomm.analysis.faults.faulty_env import FaultyEnv
from popcomm.analysis.faults.local_run import without_ray

from popcomm.channels import Symbols
from popcomm.errors import UserError
from popcomm.manifest import MANIFEST, CheckpointError
from popcomm.rllib import PopulationPPO, PopulationPPOConfig, config_file, state_files
from popcomm.rllib.checkpoints import weight_digest
from popcomm.schedules import Clock


@pytest.fixture(autouse=True)
def _no_ray() -> Iterator[None]:
    with without_ray():
        yield


class Touch:
    """A pickle that makes a file when it is read."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.touch, (self.mark,)


def same(one: Any, other: Any) -> bool:
    if isinstance(one, np.ndarray | torch.Tensor):
        equal = torch.equal if isinstance(one, torch.Tensor) else np.array_equal
        return type(one) is type(other) and one.dtype == other.dtype and one.shape == other.shape and equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return type(one) is type(other) and len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and one == other


def test_all_that_a_state_is_made_of_comes_back_to_the_bit(tmp_path: Path) -> None:
    state = {
        "float": 0.1 + 0.2,
        "seed": 2**127 + 1,
        "none": None,
        "keys": {0: "a", (1, 2): "b"},
        "ordered": OrderedDict(step=np.float32(3.5), count=np.int64(2)),
        "arrays": [np.arange(6.0).reshape(2, 3).T, np.zeros((0, 4), bool), np.array(7, np.uint32)],
        "tensors": (torch.tensor([1.5], dtype=torch.bfloat16), torch.arange(8).view(2, 4)[:, ::2]),
        "texts": np.array(["who", "what"], dtype=object),
        "clock": Clock(3, {"reward": 0.5}),
    }
    state_files.write(tmp_path / "state", state)
    found, left_out = state_files.read(tmp_path / "state")
    assert left_out == []
    found["ordered"] = OrderedDict(found["ordered"])
    assert same(state, found)
    assert not list((tmp_path / "state").glob("*.pkl"))


def test_a_part_that_only_a_pickle_has_is_left_out_or_refused_unless_it_is_trusted(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    state_files.write(tmp_path / "spared", {"world": {"envs": [Touch(mark)], "seed": 3}, "steps": 4})
    state_files.write(tmp_path / "needed", {"weights": Touch(mark)})
    mark.unlink(missing_ok=True)
    assert state_files.read(tmp_path / "spared") == ({"world": None, "steps": 4}, ["world"])
    with pytest.raises(CheckpointError, match=r"'weights' cannot be restored without it; .* say trust=True"):
        state_files.read(tmp_path / "needed")
    assert not mark.exists()
    state_files.read(tmp_path / "needed", trust=True)
    assert mark.exists()


@pytest.mark.parametrize(
    "told",
    [{"named": ["os:system", {}]}, {"named": ["popcomm.envs.env_pickle:pickle", {}]}, {"call": 3}, {}, [{"tuple": 3}]],
)
def test_a_state_that_says_something_else_is_refused(told: Any, tmp_path: Path) -> None:
    state_files.write(tmp_path / "state", {})
    about = {"format": "popcomm-state", "format_version": 1, "state": told}
    (tmp_path / "state" / "state.json").write_text(json.dumps(about))
    with pytest.raises(CheckpointError, match=r"state\.json|is damaged"):
        state_files.read(tmp_path / "state")


def swarm() -> PopulationPPOConfig:
    return (
        PopulationPPOConfig()
        .environment("swarm_v0", env_config={"num_agents": 4, "max_steps": 6})
        .communication(messages=Symbols(8, 2), topology={"kind": "k_nearest", "k": 2})
        .population(agent="mlp", members=2)
        .env_runners(num_worlds_per_env_runner=4, rollout_fragment_length=5)
        .training(num_epochs=1)
        .debugging(seed=3)
    )


def faulty(**env_config: Any) -> PopulationPPOConfig:
    config = swarm()
    config.env_config = {}  # RLlib adds keys to those that are there
    return config.environment(FaultyEnv, env_config=env_config).communication(topology={"kind": "full"})


def trained(config: PopulationPPOConfig, iterations: int = 1) -> PopulationPPO:
    algorithm = config.build_algo()
    for _ in range(iterations):
        algorithm.train()
    return algorithm


def test_a_strangers_checkpoint_restores_without_running_code(tmp_path: Path) -> None:
    """All of RLlib's pickles are replaced, and the sums in the manifest with them."""
    before, mark = trained(swarm()), tmp_path / "mark"
    saved = Path(before.save_to_path(tmp_path / "saved"))
    poison(saved, sorted(saved.rglob("*.pkl")), mark)
    restored = PopulationPPO.from_checkpoint(saved)
    before.train()
    restored.train()
    assert weight_digest(restored) == weight_digest(before)
    assert not mark.exists()


@pytest.mark.parametrize("trust", [False, True])
def test_the_record_of_a_run_is_left_alone_by_who_takes_up_its_checkpoint(tmp_path: Path, trust: bool) -> None:
    before = trained(swarm().recording(run_dir=str(tmp_path / "run"), conversation_every=0, picture_every=0))
    saved = before.save_to_path(tmp_path / "saved")
    before.train()
    recorded = (tmp_path / "run/progress.jsonl").read_text()
    restored = PopulationPPO.from_checkpoint(saved, trust=trust)
    restored.train()
    assert (tmp_path / "run/progress.jsonl").read_text() == recorded
    assert restored.config.run_dir is None
    assert restored.config.conversation_every == before.config.conversation_every


def test_runners_add_no_weights_of_their_own_to_a_checkpoint_and_have_them_again(tmp_path: Path) -> None:
    before = trained(swarm())
    saved = Path(before.save_to_path(tmp_path / "saved"))
    weights = sum(p.numel() * p.element_size() for p in before.env_runner.module["swarm"].parameters())
    sizes = {
        part: sum(f.stat().st_size for f in (saved / part).rglob("*.pkl")) for part in ("env_runner", "learner_group")
    }
    assert sizes["env_runner"] < weights < sizes["learner_group"]
    restored = PopulationPPO.from_checkpoint(saved)
    assert same(restored.env_runner.module.get_state(), before.env_runner.module.get_state())


def poison(checkpoint: Path, files: list[Path], mark: Path) -> None:
    assert files
    about = json.loads((checkpoint / MANIFEST).read_text())
    for file in files:
        file.write_bytes(pickle.dumps(Touch(mark)))
        told = {"size": file.stat().st_size, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
        about["files"][file.relative_to(checkpoint).as_posix()] = told
    (checkpoint / MANIFEST).write_text(json.dumps(about))


def test_worlds_of_others_begin_anew_unless_their_pickle_is_trusted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = trained(faulty())
    saved = before.save_to_path(tmp_path / "saved")
    with caplog.at_level("WARNING"):
        careful = PopulationPPO.from_checkpoint(saved)
    assert any("are in pickles, which are read with trust=True (--trust) alone" in r.message for r in caplog.records)
    trusting = PopulationPPO.from_checkpoint(saved, trust=True)
    assert weight_digest(careful) == weight_digest(before)
    for algorithm in (before, careful, trusting):
        algorithm.train()
    assert weight_digest(trusting) == weight_digest(before)
    assert weight_digest(careful) != weight_digest(before)


def test_a_checkpoint_of_before_needs_a_word_of_trust(tmp_path: Path) -> None:
    before = trained(swarm())
    saved = Path(before.save_to_path(tmp_path / "saved"))
    shutil.rmtree(saved / state_files.FOLDER)
    about = json.loads((saved / MANIFEST).read_text())
    about["files"] = {name: told for name, told in about["files"].items() if not name.startswith("state/")}
    (saved / MANIFEST).write_text(json.dumps(about))
    with pytest.raises(CheckpointError, match=r"of an earlier popcomm or of RLlib, .* say trust=True"):
        PopulationPPO.from_checkpoint(saved)
    with pytest.raises(CheckpointError, match="say trust=True"):
        swarm().build_algo().restore_from_path(saved)
    restored = PopulationPPO.from_checkpoint(saved, trust=True)
    before.train()
    restored.train()
    assert weight_digest(restored) == weight_digest(before)


def test_a_config_comes_back_as_it_was(tmp_path: Path) -> None:
    before = faulty(at=9)
    before.population(members=2, agent={"default": "mlp"}).training(lr={"default": 1e-3}, vf_clip_param=float("inf"))
    before.multi_agent(policy_mapping_fn=one_species)
    before.validate()
    config_file.write(tmp_path, before)
    after = config_file.read(tmp_path)
    after.validate()
    # Objects come back as the mappings that they may be given as.
    assert isinstance(after.messages, dict)  # objects come back as the mappings that they may be given as
    kept = ("world", "env_config", "agent", "learning_by_species", "seed", "lr", "vf_clip_param", "policy_mapping_fn")
    for name in kept:
        assert getattr(after, name) == getattr(before, name), name
    assert after.message_kind == before.message_kind
    assert after.plan.layout.species.keys() == before.plan.layout.species.keys() == {"all"}


def one_species(agent: str, *args: Any, **kwargs: Any) -> str:
    return "all"


def test_a_config_with_code_that_has_no_name_must_be_given(tmp_path: Path) -> None:
    def config() -> PopulationPPOConfig:
        return faulty().environment(lambda env_config: FaultyEnv())

    before = trained(config())
    saved = before.save_to_path(tmp_path / "saved")
    with pytest.raises(UserError, match=r"world is <function .*no module:attribute names; give it: from_checkpoint"):
        PopulationPPO.from_checkpoint(saved)
    restored = PopulationPPO.from_checkpoint(saved, config=config())
    assert weight_digest(restored) == weight_digest(before)


def test_a_checkpoint_may_be_read_by_whom_other_folders_may(tmp_path: Path) -> None:
    saved, other = Path(trained(swarm()).save_to_path(tmp_path / "saved")), tmp_path / "other"
    other.mkdir()
    assert saved.stat().st_mode == other.stat().st_mode


def test_a_strangers_config_names_nothing_that_runs(tmp_path: Path) -> None:
    saved = Path(trained(swarm()).save_to_path(tmp_path / "saved"))
    file = saved / state_files.FOLDER / config_file.CONFIG
    about = json.loads(file.read_text())
    about["settings"] |= {"world": "shutil:rmtree", "env_config": {"dict": [["path", str(tmp_path)]]}}
    file.write_text(json.dumps(about))
    with pytest.raises(UserError, match="is a function of an installed package"):
        config_file.read(file.parent).validate()
    assert saved.is_dir()
