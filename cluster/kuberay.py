"""Manifests of KubeRay, looked at without Kubernetes: the fields that the files here use, and what their CRDs let pass.

Fields as in KubeRay's API reference for ray.io/v1 (version 1.7), and of pods as in Kubernetes' own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from popcomm.cluster.mistakes import (
    ClusterMistake,
    Schema,
    check_auth_mode,
    check_bounds,
    check_images,
    check_no_token,
    hold,
    is_everywhere,
    mapping,
)

from popcomm.errors import nearest

TEXT, YES_NO, COUNT = {"type": "string", "minLength": 1}, {"type": "boolean"}, {"type": "integer", "minimum": 0}
QUANTITY = {"type": ["string", "integer", "number"]}
TEXTS = {"type": "object", "additionalProperties": {"type": "string"}}  # labels, and parameters of ray start
ANY = {"type": "object"}


def many(schema: Schema, least: int = 0) -> Schema:
    """The schema of a list."""
    return {"type": "array", "items": schema, "minItems": least}


METADATA = mapping(["name"], name=TEXT, namespace=TEXT, labels=TEXTS, annotations=TEXTS)
RESOURCES = mapping(
    limits={"type": "object", "additionalProperties": QUANTITY},
    requests={"type": "object", "additionalProperties": QUANTITY},
)
SECURITY = mapping(
    allowPrivilegeEscalation=YES_NO,
    capabilities=mapping(drop=many(TEXT), add=many(TEXT)),
    fsGroup=COUNT,
    privileged=YES_NO,
    readOnlyRootFilesystem=YES_NO,
    runAsGroup=COUNT,
    runAsNonRoot=YES_NO,
    runAsUser=COUNT,
    seccompProfile=mapping(
        ["type"], type={"enum": ["RuntimeDefault", "Localhost", "Unconfined"]}, localhostProfile=TEXT
    ),
    supplementalGroups=many(COUNT),
)
FROM = mapping(secretKeyRef=mapping(["name", "key"], name=TEXT, key=TEXT), fieldRef=ANY, configMapKeyRef=ANY)
ENV = mapping(["name"], name=TEXT, value={"type": "string"}, valueFrom=FROM)
CONTAINER = mapping(
    ["name", "image"],
    name=TEXT,
    image=TEXT,
    imagePullPolicy={"enum": ["Always", "IfNotPresent", "Never"]},
    args=many(TEXT),
    command=many(TEXT),
    env=many(ENV),
    envFrom=many(ANY),
    lifecycle=ANY,
    livenessProbe=ANY,
    ports=many(mapping(["containerPort"], containerPort=COUNT, name=TEXT, protocol=TEXT)),
    readinessProbe=ANY,
    resources=RESOURCES,
    securityContext=SECURITY,
    volumeMounts=many(mapping(["name", "mountPath"], name=TEXT, mountPath=TEXT, subPath=TEXT, readOnly=YES_NO)),
)
POD = mapping(
    ["containers"],
    affinity=ANY,
    automountServiceAccountToken=YES_NO,
    containers=many(CONTAINER, least=1),
    imagePullSecrets=many(mapping(["name"], name=TEXT)),
    initContainers=many(CONTAINER),
    nodeSelector=TEXTS,
    priorityClassName=TEXT,
    restartPolicy={"enum": ["Always", "OnFailure", "Never"]},
    securityContext=SECURITY,
    serviceAccountName=TEXT,
    terminationGracePeriodSeconds=COUNT,
    tolerations=many(mapping(key=TEXT, operator={"enum": ["Exists", "Equal"]}, value=TEXT, effect=TEXT)),
    volumes=many(
        mapping(["name"], name=TEXT, persistentVolumeClaim=ANY, emptyDir=ANY, secret=ANY, configMap=ANY, nfs=ANY)
    ),
)
TEMPLATE = mapping(["spec"], metadata=ANY, spec=POD)
PEER = mapping(ipBlock=mapping(["cidr"], cidr=TEXT, except_=many(TEXT)), namespaceSelector=ANY, podSelector=ANY)
PORT = mapping(port=QUANTITY, endPort=COUNT, protocol={"enum": ["TCP", "UDP", "SCTP"]})
RULES = {
    "ingressRules": many(mapping(from_=many(PEER), ports=many(PORT))),
    "egressRules": many(mapping(to=many(PEER), ports=many(PORT))),
}
NETWORK = mapping(
    ["mode"],
    mode={"enum": ["DenyAll", "DenyAllIngress", "DenyAllEgress"]},
    head=mapping(**RULES),
    worker=mapping(**RULES),
    workerGroups=many(mapping(["groupName"], groupName=TEXT, **RULES)),
)
GROUP = mapping(
    ["groupName", "template"],
    groupName=TEXT,
    replicas=COUNT,
    minReplicas=COUNT,
    maxReplicas=COUNT,
    numOfHosts=COUNT,
    idleTimeoutSeconds=COUNT,
    rayStartParams=TEXTS,
    scaleStrategy=ANY,
    suspend=YES_NO,
    template=TEMPLATE,
)
CLUSTER = mapping(
    ["headGroupSpec", "rayVersion"],
    authOptions=mapping(["mode"], mode={"enum": ["token", "disabled"]}, secretName=TEXT, enableK8sTokenAuth=YES_NO),
    autoscalerOptions=mapping(
        version={"enum": ["v1", "v2"]},
        idleTimeoutSeconds=COUNT,
        upscalingMode={"enum": ["Default", "Aggressive", "Conservative"]},
        resources=RESOURCES,
        image=TEXT,
        imagePullPolicy=TEXT,
        securityContext=SECURITY,
        env=many(ENV),
    ),
    enableInTreeAutoscaling=YES_NO,
    gcsFaultToleranceOptions=mapping(
        ["redisAddress"], redisAddress=TEXT, redisPassword=ANY, redisUsername=ANY, externalStorageNamespace=TEXT
    ),
    headGroupSpec=mapping(
        ["template"],
        enableIngress=YES_NO,
        headService={"type": "object", "properties": {"spec": ANY}},
        rayStartParams=TEXTS,
        serviceType={"enum": ["ClusterIP", "NodePort", "LoadBalancer"]},
        template=TEMPLATE,
    ),
    headServiceAnnotations=TEXTS,
    managedBy=TEXT,
    networkPolicy=NETWORK,
    rayVersion=TEXT,
    suspend=YES_NO,
    workerGroupSpecs=many(GROUP),
)
# The CRD takes any word for this, and the operator then does nothing.
SUBMISSION_MODES = ("K8sJobMode", "HTTPMode", "SidecarMode", "InteractiveMode")
JOB = mapping(
    ["entrypoint"],
    activeDeadlineSeconds=COUNT,
    backoffLimit=COUNT,
    clusterSelector=TEXTS,
    deletionStrategy=ANY,
    entrypoint=TEXT,
    entrypointNumCpus={"type": "number", "minimum": 0},
    entrypointNumGpus={"type": "number", "minimum": 0},
    entrypointResources=TEXT,
    jobId=TEXT,
    managedBy=TEXT,
    metadata=TEXTS,
    preRunningDeadlineSeconds=COUNT,
    rayClusterSpec=CLUSTER,
    runtimeEnvYAML=TEXT,
    shutdownAfterJobFinishes=YES_NO,
    submissionMode={"enum": list(SUBMISSION_MODES)},
    submitterConfig=ANY,
    submitterPodTemplate=TEMPLATE,
    suspend=YES_NO,
    ttlSecondsAfterFinished=COUNT,
)
CLAIM = mapping(
    ["accessModes", "resources"],
    accessModes=many({"enum": ["ReadWriteMany", "ReadWriteOnce", "ReadOnlyMany", "ReadWriteOncePod"]}, least=1),
    resources=RESOURCES,
    storageClassName={"type": "string"},
    volumeMode=TEXT,
    volumeName=TEXT,
)


def check(document: Any) -> None:
    """Look at one document of a manifest.

    Raises:
        ClusterMistake: the first mistake.
    """
    kinds: dict[str, tuple[str, Schema, Callable[[Mapping[str, Any]], None]]] = {
        "RayCluster": ("ray.io/v1", CLUSTER, lambda spec: _check_cluster("spec", spec)),
        "RayJob": ("ray.io/v1", JOB, _check_job),
        "PersistentVolumeClaim": ("v1", CLAIM, _check_claim),
    }
    kind = document.get("kind")
    if kind == "Secret":
        raise ClusterMistake("a Secret is written down in the file; let the operator make it, or kubectl create secret")
    if not isinstance(kind, str) or kind not in kinds:
        raise ClusterMistake(f"kind is {kind!r}; {nearest(str(kind), kinds)}")
    version, spec, more = kinds[kind]
    hold(document, mapping(["metadata", "spec"], apiVersion={"const": version}, kind={}, metadata=METADATA, spec=spec))
    check_images(document)
    check_no_token(document)
    check_auth_mode(document)
    more(document["spec"])


def _check_job(spec: Mapping[str, Any]) -> None:
    if ("rayClusterSpec" in spec) == ("clusterSelector" in spec):
        raise ClusterMistake("spec must have one of rayClusterSpec and clusterSelector")
    if spec.get("submissionMode") == "InteractiveMode" and "jobId" not in spec:
        raise ClusterMistake("spec.submissionMode is 'InteractiveMode', and spec.jobId is missing")
    if spec.get("ttlSecondsAfterFinished") and not spec.get("shutdownAfterJobFinishes"):
        raise ClusterMistake("spec.ttlSecondsAfterFinished does nothing without spec.shutdownAfterJobFinishes: true")
    if "rayClusterSpec" in spec:
        _check_cluster("spec.rayClusterSpec", spec["rayClusterSpec"])


def _check_claim(spec: Mapping[str, Any]) -> None:
    if "ReadWriteMany" not in spec["accessModes"]:
        raise ClusterMistake("spec.accessModes must have ReadWriteMany: all pods of a cluster write run folders")


def _check_cluster(where: str, spec: Mapping[str, Any]) -> None:
    head = spec["headGroupSpec"]
    given = head.get("rayStartParams", {})
    if given.get("num-cpus") != "0" or given.get("num-gpus", "0") != "0":
        raise ClusterMistake(f'{where}.headGroupSpec.rayStartParams must have num-cpus: "0": nothing trains there')
    if spec.get("authOptions", {}).get("mode") != "token":
        raise ClusterMistake(f"{where}.authOptions must be {{mode: token}}")
    if "networkPolicy" not in spec:
        raise ClusterMistake(f"{where}.networkPolicy is missing; {{mode: DenyAll}} shuts all out")
    if spec["networkPolicy"]["mode"] == "DenyAllEgress":
        raise ClusterMistake(f"{where}.networkPolicy.mode is 'DenyAllEgress', which lets everybody in")
    types = [head.get("serviceType", "ClusterIP"), head.get("headService", {}).get("spec", {}).get("type", "ClusterIP")]
    if types != ["ClusterIP"] * 2 or head.get("enableIngress"):
        raise ClusterMistake(
            f"{where}.headGroupSpec is reached from outside; the type of its service must be ClusterIP"
        )
    _check_ingress(f"{where}.networkPolicy", spec["networkPolicy"])
    _check_groups(where, spec)
    _check_pods(f"{where}.headGroupSpec", head["template"]["spec"])


def _check_ingress(where: str, policy: Mapping[str, Any]) -> None:
    """Rules that let in whoever comes: without peers a rule is for all."""
    groups = enumerate(policy.get("workerGroups", []))
    parts = {key: policy.get(key, {}) for key in ("head", "worker")} | {f"workerGroups[{i}]": g for i, g in groups}
    for name, part in parts.items():
        for index, rule in enumerate(part.get("ingressRules", [])):
            place = f"{where}.{name}.ingressRules[{index}]"
            if not rule.get("from"):
                raise ClusterMistake(f"{place} lets everybody in; name in `from` whom")
            for peer in rule["from"]:
                if not peer:
                    raise ClusterMistake(f"{place} lets everybody in; a peer of `from` is empty")
                if is_everywhere(peer.get("ipBlock", {}).get("cidr")):
                    raise ClusterMistake(f"{place} opens to {peer['ipBlock']['cidr']}, all of the internet")


def _check_groups(where: str, spec: Mapping[str, Any]) -> None:
    names = set()
    for index, group in enumerate(spec.get("workerGroupSpecs", [])):
        place = f"{where}.workerGroupSpecs[{index}]"
        check_bounds(place, "minReplicas", "maxReplicas", group)
        replicas = group.get("replicas")
        if replicas is not None and not group.get("minReplicas", 0) <= replicas <= group.get("maxReplicas", replicas):
            raise ClusterMistake(f"{place}.replicas is {replicas}, and not between minReplicas and maxReplicas")
        if group["groupName"] in names:
            raise ClusterMistake(f"{place}.groupName '{group['groupName']}' stands twice")
        names.add(group["groupName"])
        _check_pods(place, group["template"]["spec"])


def _check_pods(where: str, pod: Mapping[str, Any]) -> None:
    if pod.get("securityContext", {}).get("runAsNonRoot") is not True:
        raise ClusterMistake(f"{where}.template.spec.securityContext must have runAsNonRoot: true")
    volumes = {volume["name"] for volume in pod.get("volumes", [])}
    for container in pod["containers"]:
        if container.get("securityContext", {}).get("privileged"):
            raise ClusterMistake(f"{where}: the container {container['name']} must not be privileged")
        for mount in container.get("volumeMounts", []):
            if mount["name"] not in volumes:
                raise ClusterMistake(
                    f"{where}: the container {container['name']} mounts the volume '{mount['name']}', which does not "
                    f"exist; {nearest(mount['name'], volumes)}"
                )
