"""What KubeRay 1.7 takes as a RayJob, offline: the shape of the fields that we use, and the rules between fields.

The shape is told here in few words and is stricter than a cluster: a key that is not listed is an error. Pod templates
are held against Kubernetes' own schemas (package kubernetes-validate). The rules are those that the operator enforces
when it meets a RayJob. With HEADRACE_RAYJOB_CRD=FILE the tests also hold every manifest against that CRD (KubeRay's
ray.io_rayjobs.yaml), turned strict.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import yaml

KUBERNETES = "1.37"

Json = Mapping[str, Any]


def _object(required: str = "", **properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": required.split(),
        "additionalProperties": False,
    }


_COUNT = {"type": "integer", "minimum": -(2**31), "maximum": 2**31 - 1}
_TEXT = {"type": "string"}
_TEXTS = {"type": "object", "additionalProperties": {"type": "string"}}
_POD = {"type": "object"}  # held against Kubernetes' schema
_FLAG = {"type": "boolean"}

_METADATA = _object("name", name=_TEXT, namespace=_TEXT, labels=_TEXTS, annotations=_TEXTS)

RAY_JOB = _object(
    "apiVersion kind metadata spec",
    apiVersion={"const": "ray.io/v1"},
    kind={"const": "RayJob"},
    metadata=_METADATA,
    spec=_object(
        "entrypoint",
        activeDeadlineSeconds=_COUNT,
        backoffLimit=_COUNT,
        clusterSelector=_TEXTS,
        deletionStrategy={"type": "object"},
        entrypoint=_TEXT,
        preRunningDeadlineSeconds=_COUNT,
        rayClusterSpec=_object(
            "headGroupSpec",
            autoscalerOptions=_object(
                env={"type": "array"},
                idleTimeoutSeconds=_COUNT,
                resources={"type": "object"},
                securityContext={"type": "object"},
                upscalingMode={"enum": ["Default", "Aggressive", "Conservative"]},
                version={"enum": ["v1", "v2"]},
            ),
            enableInTreeAutoscaling=_FLAG,
            gcsFaultToleranceOptions={"type": "object"},
            headGroupSpec=_object("template", labels=_TEXTS, rayStartParams=_TEXTS, resources=_TEXTS, template=_POD),
            rayVersion=_TEXT,
            workerGroupSpecs={
                "type": "array",
                "items": _object(
                    "groupName maxReplicas minReplicas template",
                    groupName=_TEXT,
                    idleTimeoutSeconds=_COUNT,
                    labels=_TEXTS,
                    maxReplicas=_COUNT,
                    minReplicas=_COUNT,
                    priority=_COUNT,
                    rayStartParams=_TEXTS,
                    replicas=_COUNT,
                    resources=_TEXTS,
                    suspend=_FLAG,
                    template=_POD,
                ),
            },
        ),
        runtimeEnvYAML=_TEXT,
        shutdownAfterJobFinishes=_FLAG,
        submissionMode={"enum": ["K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"]},
        submitterPodTemplate=_POD,
        suspend=_FLAG,
        ttlSecondsAfterFinished=_COUNT,
    ),
)


def problems(documents: list[Json]) -> list[str]:
    """All that a cluster would say against a ConfigMap and a RayJob that are applied together."""
    found = []
    for document in documents:
        if document.get("kind") == "RayJob":
            shape = [*_shape(RAY_JOB, document), *_real_crd(document)]
            found += shape or [*_pods(document), *rules(document), *_references(document, documents)]
        else:
            found += _kubernetes(document)
    return found


def _shape(schema: Json, data: Json) -> list[str]:
    errors = jsonschema.Draft202012Validator(schema).iter_errors(data)
    return [f"{'.'.join(map(str, error.absolute_path))}: {error.message}" for error in errors]


def _kubernetes(document: Json) -> list[str]:
    try:
        kubernetes_validate.validate(document, KUBERNETES, strict=True)
    except kubernetes_validate.ValidationError as error:
        return [f"{document['kind']}: {'.'.join(map(str, error.path))}: {error.message}"]
    return []


def pod_problems(template: Json) -> list[str]:
    """What Kubernetes would say against a pod template."""
    return _kubernetes({"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "x"}, "template": template})


def _pods(job: Json) -> Iterator[str]:
    for _, template in templates(job):
        yield from pod_problems(template)
    options = job["spec"].get("rayClusterSpec", {}).get("autoscalerOptions", {})
    parts = {key: options[key] for key in ("env", "resources", "securityContext") if key in options}
    yield from pod_problems({"spec": {"containers": [{"name": "autoscaler", "image": "x", **parts}]}})


def templates(job: Json) -> Iterator[tuple[str, Json]]:
    """Each pod template of a RayJob, with ``submitter``, ``head`` or the group's name."""
    spec = job["spec"]
    if "submitterPodTemplate" in spec:
        yield "submitter", spec["submitterPodTemplate"]
    cluster = spec.get("rayClusterSpec", {})
    if cluster:
        yield "head", cluster["headGroupSpec"]["template"]
    for group in cluster.get("workerGroupSpecs", []):
        yield group["groupName"], group["template"]


def rules(job: Json) -> list[str]:
    """What the operator refuses beyond the CRD."""
    name, spec = job["metadata"]["name"], job["spec"]
    cluster, annotations = spec.get("rayClusterSpec"), job["metadata"].get("annotations", {})
    mode, shutdown = spec.get("submissionMode", "K8sJobMode"), spec.get("shutdownAfterJobFinishes", False)
    retries, selector = spec.get("backoffLimit", 0), spec.get("clusterSelector")
    autoscaling = bool(cluster and cluster.get("enableInTreeAutoscaling"))
    deletion = spec.get("deletionStrategy")
    checks = [
        (len(name) <= 47 and re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name), "name"),
        (not spec.get("suspend") or shutdown, "suspend needs shutdownAfterJobFinishes"),
        (not (spec.get("suspend") and selector), "suspend and clusterSelector"),
        (spec.get("ttlSecondsAfterFinished", 0) >= 0, "ttlSecondsAfterFinished is negative"),
        (shutdown or not spec.get("ttlSecondsAfterFinished"), "ttlSecondsAfterFinished needs shutdownAfterJobFinishes"),
        (bool(cluster) or bool(selector), "rayClusterSpec or clusterSelector"),
        (not (selector and retries > 0), "backoffLimit and clusterSelector"),
        (not (selector and mode == "SidecarMode"), "clusterSelector and SidecarMode"),
        (not (mode == "InteractiveMode" and retries > 0), "backoffLimit and InteractiveMode"),
        (not (mode == "SidecarMode" and "submitterPodTemplate" in spec), "submitterPodTemplate and SidecarMode"),
        (retries >= 0, "backoffLimit is negative"),
        (spec.get("activeDeadlineSeconds", 1) > 0, "activeDeadlineSeconds"),
        (spec.get("preRunningDeadlineSeconds", 1) > 0, "preRunningDeadlineSeconds"),
        (isinstance(yaml.safe_load(spec.get("runtimeEnvYAML", "{}")), dict), "runtimeEnvYAML"),
    ]
    if deletion is not None:
        old = {key: (deletion.get(key) or {}).get("policy") for key in ("onSuccess", "onFailure")}
        listed = deletion.get("deletionRules") or []
        checks += [
            (not (listed and shutdown), "deletionRules and shutdownAfterJobFinishes"),
            (not (listed and any(old.values())), "deletionRules and onSuccess or onFailure"),
            (bool(listed) or all(old.values()), "deletionStrategy needs both, or rules"),
            (not (shutdown and "DeleteNone" in old.values()), "DeleteNone and shutdownAfterJobFinishes"),
            (
                not (autoscaling and "DeleteWorkers" in [*old.values(), *(rule.get("policy") for rule in listed)]),
                "DeleteWorkers and autoscaling",
            ),
        ]
    found = [f"rule: {text}" for holds, text in checks if not holds]
    return [*found, *(f"rule: {text}" for text in _cluster_rules(cluster, annotations, mode))] if cluster else found


def _cluster_rules(cluster: Json, annotations: Json, mode: str) -> Iterator[str]:
    head, groups = cluster["headGroupSpec"], cluster.get("workerGroupSpecs", [])
    options = cluster.get("autoscalerOptions", {})
    autoscaling = bool(cluster.get("enableInTreeAutoscaling"))
    second = autoscaling and options.get("version") == "v2"
    pods = [("head", head), *((group["groupName"], group) for group in groups)]
    for name, group in pods:
        spec, start = group["template"].get("spec", {}), group.get("rayStartParams", {})
        if not spec.get("containers"):
            yield f"{name} has no container"
            continue
        if group.get("resources") and start.keys() & {"num-cpus", "num-gpus", "memory", "resources"}:
            yield f"{name}: resources and rayStartParams"
        if "labels" in start:
            yield f"{name}: labels in rayStartParams"
        restart = spec.get("restartPolicy", "Never")
        if restart != "Never" and (second or (mode == "SidecarMode" and name == "head")):
            yield f"{name}: restartPolicy"
    names = [group["groupName"] for group in groups]
    if len(set(names)) < len(names):
        yield "two groups have one name"
    for group in groups:
        least, most = group.get("minReplicas"), group.get("maxReplicas")
        if not autoscaling and (least is None or most is None):
            yield "minReplicas and maxReplicas are needed without autoscaling"
        if not 0 <= (least or 0) <= group.get("replicas", least or 0) <= (most if most is not None else 2**31):
            yield "minReplicas <= replicas <= maxReplicas"
        if group.get("suspend"):
            yield "suspend of a group"
        if "idleTimeoutSeconds" in group and (not second or group["idleTimeoutSeconds"] < 0):
            yield "idleTimeoutSeconds of a group"
        version = tuple(map(int, cluster.get("rayVersion", "0.0").split(".")[:2]))
        if group.get("priority") and (not second or version < (2, 56)):
            yield "priority of a group"
    if options.get("idleTimeoutSeconds", 0) < 0:
        yield "idleTimeoutSeconds is negative"
    if any(each["name"] == "KUBERAY_GEN_AUTOSCALER_START_CMD" for each in options.get("env", [])):
        yield "KUBERAY_GEN_AUTOSCALER_START_CMD"
    containers = head["template"].get("spec", {}).get("containers") or [{}]
    env = {each["name"]: each.get("value") for each in containers[0].get("env", [])}
    version_2 = env.get("RAY_enable_autoscaler_v2")
    if version_2 is not None and "version" in options:
        yield "RAY_enable_autoscaler_v2 and version"
    if version_2 in ("1", "true") and not autoscaling:
        yield "RAY_enable_autoscaler_v2 without autoscaling"
    tolerant, start = cluster.get("gcsFaultToleranceOptions"), head.get("rayStartParams", {})
    if tolerant is not None and annotations.get("ray.io/ft-enabled"):
        yield "ray.io/ft-enabled and gcsFaultToleranceOptions"
    if tolerant is None and annotations.get("ray.io/ft-enabled") != "true" and "RAY_REDIS_ADDRESS" in env:
        yield "RAY_REDIS_ADDRESS without gcsFaultToleranceOptions"
    if tolerant is not None and ("redis-password" in start or env.keys() & {"REDIS_PASSWORD", "RAY_REDIS_ADDRESS"}):
        yield "Redis beside gcsFaultToleranceOptions"
    if "redis-username" in start or "REDIS_USERNAME" in env:
        yield "REDIS_USERNAME"


def _references(job: Json, documents: list[Json]) -> Iterator[str]:
    """Mounts of volumes that are not there, and keys that a ConfigMap lacks."""
    maps = {document["metadata"]["name"]: document for document in documents if document["kind"] == "ConfigMap"}
    for name, template in templates(job):
        volumes = {volume["name"]: volume for volume in template["spec"].get("volumes", [])}
        for container in template["spec"]["containers"]:
            paths = [mount["mountPath"] for mount in container.get("volumeMounts", [])]
            if len(set(paths)) < len(paths):
                yield f"{name}: two mounts at one path"
            for mount in container.get("volumeMounts", []):
                volume = volumes.get(mount["name"])
                if volume is None:
                    yield f"{name}: no volume {mount['name']}"
                elif "configMap" in volume:
                    config = maps.get(volume["configMap"]["name"])
                    if config is None or mount.get("subPath") not in config["data"]:
                        yield f"{name}: no {mount.get('subPath')} in a ConfigMap"
                    elif config["metadata"].get("namespace") != job["metadata"].get("namespace"):
                        yield f"{name}: a ConfigMap of another namespace"


def _real_crd(job: Json) -> list[str]:
    schema = _crd()
    return [] if schema is None else [f"CRD: {text}" for text in _shape(schema, job)]


@cache
def _crd() -> Json | None:
    file = os.environ.get("HEADRACE_RAYJOB_CRD")
    if not file:
        return None
    crd = yaml.load(Path(file).read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    [version] = [each for each in crd["spec"]["versions"] if each["name"] == "v1"]
    schema: dict[str, Any] = _strict(version["schema"]["openAPIV3Schema"])
    schema["properties"]["metadata"] = _METADATA
    return schema


def _strict(schema: Any) -> Any:
    """A schema of Kubernetes as a JSON Schema to which a key that is not listed is an error."""
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    strict = {
        key: {name: _strict(each) for name, each in value.items()}
        if key == "properties"
        else [_strict(each) for each in value]
        if key in ("allOf", "anyOf", "oneOf")
        else _strict(value)
        if key in ("items", "additionalProperties", "not")
        else value
        for key, value in schema.items()
        if key != "format" and not key.startswith("x-")
    }
    if "properties" in strict and not schema.get("x-kubernetes-preserve-unknown-fields"):
        strict.setdefault("additionalProperties", False)
    return strict
