"""Cluster files: those that ship are valid, and each mistake that would cost money, time or safety is told."""

from __future__ import annotations

import copy
import inspect
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from popcomm.cluster import dockerfile, kuberay, ray_up, validate
from popcomm.cluster.mistakes import ClusterMistake, walk

from popcomm.cli import job
from popcomm.cli.train import checked_config

FILES = ("Dockerfile", "aws.yaml", "gcp.yaml", "raycluster.yaml", "rayjob.yaml")


def documents(name: str) -> list[Any]:
    return list(yaml.safe_load_all((validate.HERE / name).read_text()))


def put(document: Any, path: str, value: Any) -> Any:
    """A copy with a value in the place of a path, "spec.workerGroupSpecs.0.replicas"; ... removes it."""
    document = place = copy.deepcopy(document)
    *parts, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    for part in parts:
        place = place[part]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return document


def told(check: Callable[[Any], None], document: Any) -> str:
    with pytest.raises(ClusterMistake) as caught:
        check(document)
    return str(caught.value)


# ---- the program ----


def test_all_files_that_ship_are_valid(capsys: pytest.CaptureFixture[str]) -> None:
    assert validate.main([]) == 0
    assert capsys.readouterr().out == "".join(f"{name}: valid\n" for name in FILES)


def test_a_mistake_is_one_line_and_an_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in FILES:
        shutil.copy(validate.HERE / name, tmp_path)
    config = put(documents("aws.yaml")[0], "available_node_types.rollout_spot.min_workers", 9)
    (tmp_path / "aws.yaml").write_text(yaml.safe_dump(config))
    (tmp_path / "other.yaml").write_text("a: [\n")
    (tmp_path / "swarm.yaml").write_text("environment: {env: swarm_v0}\n")
    assert validate.main([str(tmp_path)]) == 1
    lines = dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines())
    assert len(lines) == 7
    assert lines["aws.yaml"] == "available_node_types.rollout_spot.min_workers is 9, and max_workers only 8"
    assert lines["gcp.yaml"] == "valid"
    assert lines["other.yaml"].startswith("no valid YAML")
    assert lines["swarm.yaml"].startswith("the file is neither for `ray up`")


def test_a_folder_without_cluster_files_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert validate.main([str(tmp_path)]) == 2
    assert "holds no YAML file and no Dockerfile" in capsys.readouterr().err


# ---- ray up ----


def test_rays_own_check_is_what_it_was() -> None:
    """`ray_up.check_ray` stands on two private functions of Ray; where they are others, it is the place to mend."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    assert list(inspect.signature(prepare_config).parameters) == ["config"]
    assert list(inspect.signature(validate_config).parameters) == ["config"]
    ray_up.check_ray(documents("aws.yaml")[0])
    broken = put(documents("aws.yaml")[0], "max_workerz", 3)
    assert "max_workerz" in told(ray_up.check_ray, broken)


@pytest.mark.parametrize("name", ["aws.yaml", "gcp.yaml"])
@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("available_node_types.rollout_spot.min_workers", 9, "min_workers is 9, and max_workers only 8"),
        ("max_workers", -1, "max_workers: -1 is less than the minimum"),
        ("provider.type", "gpc", "provider.type is 'gpc'; did you mean 'gcp'?"),
        ("provider.regoin", "x", "provider.regoin does not exist; did you mean 'region'?"),
        ("provider.use_internal_ips", False, "use_internal_ips must be true"),
        ("head_node_type", "haed", "head"),
        ("available_node_types.head.resources.CPU", 2, "the head's resources.CPU must be 0"),
        ("available_node_types.learner_gpu", ..., "has a GPU for learners"),
        ("head_start_ray_commands.0", "ray start --head --dashboard-host=0.0.0.0", "--dashboard-host=127.0.0.1"),
        ("docker.run_options", [], "RAY_AUTH_MODE=token"),
        ("docker.image", "popcomm", "docker.image is 'popcomm', and must have a version"),
        ("docker.image", "popcomm:latest", "must have a version"),
        ("docker.run_options.0", "--env RAY_AUTH_TOKEN=abc", "holds a token"),
        ("file_mounts", {}, "auth_token"),
        ("available_node_types", ..., "available_node_types"),
        ("docker.run_options", ["--env RAY_AUTH_MODE=token", "-p 8265:8265"], "docker.run_options must not have -p"),
        ("docker.run_options", ["--env RAY_AUTH_MODE=token --publish=80:80"], "must not have --publish"),
        (
            "docker.run_options",
            ["--env RAY_AUTH_MODE=token", "--env RAY_AUTH_MODE=disabled"],
            "docker.run_options[1] sets RAY_AUTH_MODE to 'disabled'",
        ),
        (
            "head_start_ray_commands.0",
            "ray start --head --dashboard-host=127.0.0.1 --num-cpus=8",
            "head_start_ray_commands must not have --num-cpus=8: nothing trains on the head",
        ),
    ],
)
def test_a_mistake_in_a_file_for_ray_up_is_told(name: str, path: str, value: Any, said: str) -> None:
    assert said in told(ray_up.check, put(documents(name)[0], path, value))


def test_misspelt_fields_of_clouds_are_told() -> None:
    aws = put(documents("aws.yaml")[0], "available_node_types.head.node_config.InstanceTyp", "m6i.large")
    assert told(ray_up.check, aws).endswith("InstanceTyp does not exist; did you mean 'InstanceType'?")
    gcp = put(documents("gcp.yaml")[0], "available_node_types.head.node_config.machinetype", "e2-standard-2")
    assert told(ray_up.check, gcp).endswith("machinetype does not exist; did you mean 'machineType'?")
    anyone = [{"IpProtocol": "tcp", "FromPort": 8265, "ToPort": 8265, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}]
    assert "all of the internet" in told(
        ray_up.check, put(documents("aws.yaml")[0], "provider.security_group.IpPermissions", anyone)
    )


@pytest.mark.parametrize(
    ("name", "path", "value", "said"),
    [
        ("aws", "provider.security_group.IpPermissions", [{"Ipv6Ranges": [{"CidrIpv6": "::/0"}]}], "port to ::/0, all"),
        (
            "aws",
            "provider.security_group.IpPermissions",
            [{"IpRanges": [{"CidrIp": "10.0.0.0/8"}, {"CidrIp": "128.0.0.0/1"}]}],
            "IpPermissions[0].IpRanges[1].CidrIp opens a port to 128.0.0.0/1",
        ),
        ("aws", "provider.security_group.IpPermissions", ["x"], "has 'x', which is no mapping"),
        (
            "aws",
            "available_node_types.head.node_config.NetworkInterfaces",
            [{"DeviceIndex": 0, "AssociatePublicIpAddress": True}],
            "AssociatePublicIpAddress gives a node a public address",
        ),
        (
            "gcp",
            "available_node_types.head.node_config.networkInterfaces",
            [{"accessConfigs": [{"type": "ONE_TO_ONE_NAT"}]}],
            "accessConfigs gives a node a public address",
        ),
    ],
)
def test_what_opens_a_node_to_the_internet_is_told_however_deep_it_stands(
    name: str, path: str, value: Any, said: str
) -> None:
    assert said in told(ray_up.check, put(documents(f"{name}.yaml")[0], path, value))


def test_a_private_network_may_come_in() -> None:
    inside = [{"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": "10.0.0.0/8"}]}]
    ray_up.check(put(documents("aws.yaml")[0], "provider.security_group.IpPermissions", inside))


@pytest.mark.parametrize("name", ["aws.yaml", "gcp.yaml"])
def test_rollouts_are_spot_and_learners_are_not(name: str) -> None:
    nodes = documents(name)[0]["available_node_types"]
    spot = {
        kind: "spot" in yaml.safe_dump(node["node_config"].get("InstanceMarketOptions", node["node_config"])).lower()
        for kind, node in nodes.items()
    }
    assert spot == {"head": False, "rollout_spot": True, "learner_gpu": False}


# ---- KubeRay ----


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("spec.workerGroupSpecs.0.minReplicas", 9, "spec.workerGroupSpecs[0].minReplicas is 9, and maxReplicas only 8"),
        ("spec.workerGroupSpecs.0.replicas", 9, "replicas is 9, and not between"),
        ("spec.workerGroupSpecs.1.groupName", "rollout-spot", "stands twice"),
        ("spec.workerGroupSpecs.0.maxReplica", 3, "[0].maxReplica does not exist; did you mean 'maxReplicas'?"),
        ("spec.workerGroupSpecz", [], "spec.workerGroupSpecz does not exist; did you mean 'workerGroupSpecs'?"),
        ("spec.autoscalerOptions.version", "v3", "spec.autoscalerOptions.version is 'v3'"),
        ("spec.authOptions.mode", "disabled", "authOptions must be {mode: token}"),
        ("spec.authOptions", ..., "authOptions must be {mode: token}"),
        ("spec.networkPolicy", ..., "networkPolicy is missing"),
        ("spec.networkPolicy.mode", "DenyAllEgress", "lets everybody in"),
        ("spec.headGroupSpec.serviceType", "LoadBalancer", "is reached from outside"),
        ("spec.headGroupSpec.rayStartParams", {}, 'num-cpus: "0"'),
        ("spec.headGroupSpec.rayStartParams.num-cpus", 0, "is not of type 'string'"),
        ("spec.headGroupSpec.template.spec.containers.0.image", "popcomm:latest", "must have a version"),
        ("spec.headGroupSpec.template.spec.containers.0.imag", "x", "did you mean 'image'?"),
        ("spec.headGroupSpec.template.spec.securityContext", {}, "runAsNonRoot: true"),
        ("spec.headGroupSpec.template.spec.volumes", [], "mounts the volume 'runs', which does not exist"),
        ("spec.workerGroupSpecs.0.template.spec.containers.0.env", [{"name": "RAY_AUTH_TOKEN", "value": "x"}], "token"),
        (
            "spec.networkPolicy.head",
            {"ingressRules": [{}]},
            "head.ingressRules[0] lets everybody in; name in `from` whom",
        ),
        ("spec.networkPolicy.worker", {"ingressRules": [{"from": [{}]}]}, "worker.ingressRules[0] lets everybody in"),
        (
            "spec.networkPolicy.workerGroups",
            [{"groupName": "a", "ingressRules": [{"from": [{"ipBlock": {"cidr": "0.0.0.0/0"}}]}]}],
            "workerGroups[0].ingressRules[0] opens to 0.0.0.0/0",
        ),
        ("spec.headGroupSpec.headService", {"spec": {"type": "LoadBalancer"}}, "is reached from outside"),
        ("spec.headGroupSpec.rayStartParams.num-gpus", "1", "nothing trains there"),
        (
            "spec.workerGroupSpecs.0.template.spec.containers.0.env",
            [{"name": "RAY_AUTH_MODE", "value": "disabled"}],
            "env[0] sets RAY_AUTH_MODE to 'disabled'",
        ),
        ("kind", ["RayCluster"], "kind is ['RayCluster']"),
        ("kind", "RayClutser", "kind is 'RayClutser'; did you mean 'RayCluster'?"),
        ("kind", "Secret", "a Secret is written down"),
        ("apiVersion", "ray.io/v1alpha1", "apiVersion is 'ray.io/v1alpha1'"),
    ],
)
def test_a_mistake_in_a_cluster_of_kuberay_is_told(path: str, value: Any, said: str) -> None:
    assert said in told(kuberay.check, put(documents("raycluster.yaml")[1], path, value))


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("spec.submissionMode", "HttpMode", "spec.submissionMode is 'HttpMode'; did you mean 'HTTPMode'?"),
        ("spec.submissionMode", "InteractiveMode", "spec.jobId is missing"),
        ("spec.shutdownAfterJobFinishes", False, "does nothing without"),
        ("spec.rayClusterSpec", ..., "one of rayClusterSpec and clusterSelector"),
        ("spec.rayClusterSpec.workerGroupSpecs.0.minReplicas", 9, "maxReplicas only 8"),
        ("spec.entrypoint", ..., "spec.entrypoint is missing"),
    ],
)
def test_a_mistake_in_a_job_of_kuberay_is_told(path: str, value: Any, said: str) -> None:
    assert said in told(kuberay.check, put(documents("rayjob.yaml")[0], path, value))


def test_storage_that_one_node_alone_can_write_is_told() -> None:
    claim = put(documents("raycluster.yaml")[0], "spec.accessModes", ["ReadWriteOnce"])
    assert "ReadWriteMany" in told(kuberay.check, claim)


def test_the_job_of_kuberay_is_one_that_popcomm_runs() -> None:
    python, option, module, *args = shlex.split(documents("rayjob.yaml")[0]["spec"]["entrypoint"])
    assert (python, option, module) == ("python", "-m", "popcomm.cli.job")
    wanted = job._job(args)
    assert wanted.run_dir == "/shared/runs/swarm"
    config = checked_config(wanted.document, elsewhere=True)
    assert (config.num_learners, config.num_gpus_per_learner) == (1, 1)


@pytest.mark.parametrize("value", [None, [], {}, "text", 3])
@pytest.mark.parametrize("name", ["aws.yaml", "rayjob.yaml"])
def test_whatever_stands_where_it_should_not_is_told_in_a_sentence(name: str, value: Any, tmp_path: Path) -> None:
    """Every second place of a file has another value; the answer is a sentence, or that it is valid."""
    document = documents(name)[0]
    paths = [path for path, _ in walk(document) if path and "." not in path.replace("spec.", "").replace("[", ".")][::2]
    assert len(paths) > 5
    for path in paths:
        file = tmp_path / "x.yaml"
        file.write_text(yaml.safe_dump(put(document, path, value)))
        assert isinstance(validate.mistake(file), str)


# ---- Docker ----

GOOD = "FROM python:3.11.13-slim\nARG DEVICE=cpu\nRUN a \\\n  # why\n  && b\nUSER ray\n"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (":3.11.13-slim", "", "line 1: FROM python must have a version"),
        (":3.11.13-slim", ":latest", "must have a version"),
        ("ARG DEVICE=cpu", "ENV A=b", "ARG DEVICE is missing"),
        ("USER ray", "USER root", "must not be root"),
        ("USER ray\n", "", "must not be root"),
        ("USER ray", "EXPOSE 8265\nUSER ray", "line 6: EXPOSE 8265"),
        ("USER ray", "ENV RAY_AUTH_TOKEN=abc\nUSER ray", "line 6: ENV holds a secret"),
        ("USER ray", "USER", "must have a name"),
        ("FROM python:3.11.13-slim", "FROM", "line 1: FROM names no image"),
        (
            "python:3.11.13-slim",
            "--platform=linux/amd64 python:latest",
            "line 1: FROM python:latest must have a version",
        ),
        ("RUN a", "RUNN a", "line 3: RUNN does not exist; did you mean 'RUN'?"),
    ],
)
def test_a_mistake_in_a_dockerfile_is_told(old: str, new: str, said: str) -> None:
    dockerfile.check(GOOD)
    assert said in told(dockerfile.check, GOOD.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("USER ray", "FROM python:3.12-slim AS base\nFROM base\nUSER ray"),
        ("FROM python", "FROM --platform=linux/amd64 python"),
        ("USER ray", "RUN <<EOF\necho hello\nanything\nEOF\nUSER ray"),
    ],
    ids=["an earlier stage", "a platform", "a here-document"],
)
def test_what_docker_takes_is_no_mistake(old: str, new: str) -> None:
    dockerfile.check(GOOD.replace(old, new))


def test_the_image_has_what_popcomm_asks_for() -> None:
    from importlib.metadata import requires

    from packaging.requirements import Requirement

    pins = dict(
        line.split("==") for line in (validate.HERE / "constraints.txt").read_text().splitlines() if "==" in line
    )
    needed = [Requirement(line) for line in requires("popcomm") or []]
    for requirement in (one for one in needed if one.marker is None):
        assert requirement.specifier.contains(pins[requirement.name.lower()])
