"""Files for `ray up`, looked at without a cloud: Ray's own check, and what it lets pass.

`validate_config` and `prepare_config` are Ray's, and private: this is the only place that knows them, and a test fails
when they are others.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from popcomm.cluster.mistakes import (
    ClusterMistake,
    check_auth_mode,
    check_bounds,
    check_images,
    check_no_token,
    is_everywhere,
    walk,
)

from popcomm.cli.ray_session import quiet_ray
from popcomm.errors import nearest

# Keys of the clouds' own descriptions of instances, which Ray hands on unseen.
AWS_NODE = """
    BlockDeviceMappings CapacityReservationSpecification CpuOptions EbsOptimized IamInstanceProfile ImageId
    InstanceMarketOptions InstanceType KeyName LaunchTemplate MetadataOptions Monitoring NetworkInterfaces Placement
    SecurityGroupIds SubnetId SubnetIds TagSpecifications UserData
"""
GCP_NODE = """
    canIpForward deletionProtection disks guestAccelerators labels machineType metadata minCpuPlatform networkInterfaces
    networkTags reservationAffinity scheduling serviceAccounts shieldedInstanceConfig sourceMachineImage tags
"""
NODE_KEYS = {"aws": AWS_NODE.split(), "gcp": GCP_NODE.split()}
PROVIDER = "type region availability_zone use_internal_ips disable_node_updaters"
AWS_PROVIDER, GCP_PROVIDER = "cache_stopped_nodes security_group cloudwatch", "project_id gcp_credentials"
PROVIDER_KEYS = {"aws": f"{PROVIDER} {AWS_PROVIDER}".split(), "gcp": f"{PROVIDER} {GCP_PROVIDER}".split()}
TOKEN_FILE = re.compile(r"/\.ray/auth_token$")


def check(config: Any) -> None:
    """Look at a file for `ray up`.

    Raises:
        ClusterMistake: the first mistake.
    """
    provider = config.get("provider")
    if not isinstance(provider, dict) or provider.get("type") not in NODE_KEYS:
        cloud = provider.get("type") if isinstance(provider, dict) else provider
        raise ClusterMistake(f"provider.type is {cloud!r}; {nearest(str(cloud), NODE_KEYS)}")
    check_ray(config)
    check_images(config)
    check_no_token(config)
    check_auth_mode(config)
    _check_keys(config)
    _check_numbers(config)
    _check_safety(config)


def check_ray(config: Any) -> None:
    """Ray's own check, which needs no cloud.

    Raises:
        ClusterMistake: what Ray says, with the key.
    """
    import jsonschema
    from ray.autoscaler._private.util import prepare_config, validate_config

    quiet_ray()
    try:
        validate_config(prepare_config(copy.deepcopy(config)))
    except jsonschema.ValidationError as error:
        key = ".".join(map(str, error.path))
        raise ClusterMistake(f"{key or 'the file'}: {error.message.splitlines()[0]}") from error
    except (ValueError, KeyError, TypeError, AttributeError, NotImplementedError) as error:
        raise ClusterMistake(f"Ray says: {' '.join(str(error).split())}") from error


def _check_keys(config: Mapping[str, Any]) -> None:
    """Misspelt fields of clouds, of which Ray knows nothing."""
    provider = config["provider"]
    cloud = provider["type"]
    _check_known("provider", provider, PROVIDER_KEYS[cloud])
    for name, node in config["available_node_types"].items():
        _check_known(f"available_node_types.{name}.node_config", node["node_config"], NODE_KEYS[cloud])
    head = config["head_node_type"]
    if head not in config["available_node_types"]:
        raise ClusterMistake(f"head_node_type is '{head}'; {nearest(head, config['available_node_types'])}")


def _check_known(where: str, given: Mapping[str, Any], known: Collection[str]) -> None:
    for key in given:
        if key not in known:
            raise ClusterMistake(f"{where}.{key} does not exist; {nearest(str(key), known)}")


def _check_numbers(config: Mapping[str, Any]) -> None:
    total = 0
    for name, node in _workers(config):
        check_bounds(f"available_node_types.{name}", "min_workers", "max_workers", node)
        total += node.get("min_workers", 0)
    if total > config.get("max_workers", 0):
        raise ClusterMistake(f"max_workers is {config.get('max_workers', 0)}, and min_workers of all types are {total}")
    if any(node["resources"].get("GPU") for _, node in _workers(config)):
        return
    raise ClusterMistake("no type of available_node_types has a GPU for learners")


def _check_safety(config: Mapping[str, Any]) -> None:
    """A head without CPUs, no public port, a token on every node and in no file."""
    head = config["available_node_types"][config["head_node_type"]]
    if head["resources"].get("CPU") != 0:
        raise ClusterMistake("the head's resources.CPU must be 0: a head that trains loses its nodes")
    if config["provider"].get("use_internal_ips") is not True:
        raise ClusterMistake("provider.use_internal_ips must be true: no node of the cluster has a public address")
    start = " ".join(config.get("head_start_ray_commands") or [])
    if not re.search(r"--dashboard-host[= ](127\.0\.0\.1|localhost)", start):
        raise ClusterMistake("head_start_ray_commands must have --dashboard-host=127.0.0.1")
    options = " ".join((config.get("docker") or {}).get("run_options") or [])
    if "RAY_AUTH_MODE=token" not in options:
        raise ClusterMistake("docker.run_options must have --env RAY_AUTH_MODE=token")
    if not any(TOKEN_FILE.search(target) for target in config.get("file_mounts") or {}):
        raise ClusterMistake("file_mounts must bring ~/.ray/auth_token to the nodes")
    # Flags of `ray start` win over what the node type says.
    for flag, found in re.findall(r"--(num-[cg]pus)[= ](\S+)", start):
        if found != "0":
            raise ClusterMistake(f"head_start_ray_commands must not have --{flag}={found}: nothing trains on the head")
    published = re.search(r"(?:^|\s)(-p|-P|--publish|--publish-all)(?=[\s=\d])", options + " ")
    if published:
        raise ClusterMistake(f"docker.run_options must not have {published[1]}: no port of Ray is for others")
    for permission in config["provider"].get("security_group", {}).get("IpPermissions", []):
        if not isinstance(permission, Mapping):
            raise ClusterMistake(f"provider.security_group.IpPermissions has {permission!r}, which is no mapping")
    _check_addresses(config)


def _check_addresses(config: Mapping[str, Any]) -> None:
    """Ports that are open to all, and nodes with addresses of the internet's, however deep that stands."""
    for path, value in walk(config):
        key = path.rpartition(".")[2]
        if key in ("CidrIp", "CidrIpv6") and is_everywhere(value):
            raise ClusterMistake(f"{path} opens a port to {value}, all of the internet")
        if (key == "AssociatePublicIpAddress" and value) or key == "accessConfigs":
            raise ClusterMistake(f"{path} gives a node a public address; leave it out")


def _workers(config: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for name, node in config["available_node_types"].items():
        if name != config["head_node_type"]:
            yield name, node
