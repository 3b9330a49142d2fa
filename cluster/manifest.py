"""A KubeRay manifest of a pipeline: a ConfigMap with its files and the command, and a RayJob that runs it.

Pure: a pipeline, its files and options go in, plain data comes out. Nothing here knows a cluster.

The command stands in a script in the ConfigMap and the RayJob's entrypoint names only that: KubeRay puts an entrypoint
into a shell that hands it to another one, and no quoting survives that for sure. The files are mounted one by one
(``subPath``): a ConfigMap that is mounted as a folder shows links into a folder whose name differs from pod to pod,
and workers must find the pipeline's folder under the driver's name for it.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from headrace import __version__
from headrace.cluster.bundle import Bundle
from headrace.cluster.engine_config import FAKE
from headrace.cluster.models import DEFAULT
from headrace.cluster.secrets_seen import secret_in, secret_name
from headrace.pipelines.errors import UserError
from headrace.pipelines.locations import object_uri, without_userinfo
from headrace.pipelines.spec import NamedModel, Pipeline, loc_text, parse_time
from headrace.pipelines.stages import stages_of

MOUNT = "/etc/headrace"
"""Where the pods see the pipeline's files."""

SCRIPT = "run.sh"

MOST_BYTES = 1 << 20
"""What Kubernetes takes in a ConfigMap."""

MOST_APPLIED = 256 << 10
"""What ``kubectl apply`` keeps of a resource in an annotation; beyond that it needs ``--server-side``."""

MOST_FILES = 100
"""Each is a mount in every pod."""

_LABEL = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_QUALIFIED = re.compile(r"([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_QUANTITY = re.compile(r"[0-9]+(\.[0-9]+)?(m|k|Ki|M|Mi|G|Gi|T|Ti)?")

LONGEST_NAME = 47
"""Characters of a RayJob's name: KubeRay adds to it for the cluster's, which may have 53."""

SPOT = (
    ("cloud.google.com/gke-spot", "true"),
    ("cloud.google.com/gke-preemptible", "true"),
    ("eks.amazonaws.com/capacityType", "SPOT"),
    ("karpenter.sh/capacity-type", "spot"),
    ("kubernetes.azure.com/scalesetpriority", "spot"),
)
"""Labels that mark spot nodes: Google's, Amazon's, Karpenter's, Microsoft's. Taints of the same key go with some."""

GPU = "nvidia.com/gpu"

CACHE, SCRATCH = "/model-cache", "/scratch"


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says of the job; texts are as they are given there and are checked by :func:`manifest`.

    Attributes:
        ray_version: that of the image; KubeRay wants to know.
        name: of the RayJob; None makes one of the pipeline's.
        image: of all pods.
        gpus_per_worker: GPUs of one engine; None leaves it to the pipeline.
        gpus_per_pod: GPUs of one pod; None is one engine's.
        workers: ``MIN:MAX`` or a number; None leaves it to the pipeline.
        spot: whether workers may run on spot nodes.
        model_cache: ``pvc:NAME``, ``pvc:NAME:ro``, ``emptyDir:SIZE`` or ``hostPath:PATH``.
        retries: attempts after the first, each on a new cluster.
        deadline: how long one attempt may take; ``start_deadline`` how long until it runs; ``ttl`` how long the
            cluster stays when it is over.
        secrets: names of Secrets whose keys become variables.
        env: ``NAME=VALUE``, none of them secret.
        run: further arguments of ``headrace run``.
        overrides: the ``--set`` of the command line, and ``model`` its ``--model``: the run gets them, too.
        pipeline_in_image: the pipeline's path in the image, instead of files in the ConfigMap.
    """

    ray_version: str
    input: str
    output: str
    name: str | None = None
    namespace: str | None = None
    image: str = f"headrace:{__version__}"
    image_pull_secrets: Sequence[str] = ()
    gpus_per_worker: int | None = None
    gpus_per_pod: int | None = None
    workers: str | None = None
    worker_cpu: str | None = None
    worker_memory: str | None = None
    head_cpu: str = "4"
    head_memory: str = "16Gi"
    spot: bool = True
    tolerations: Sequence[str] = ()
    node_selectors: Sequence[str] = ()
    labels: Sequence[str] = ()
    model_cache: str = "emptyDir:200Gi"
    service_account: str | None = None
    secrets: Sequence[str] = ()
    env: Sequence[str] = ()
    retries: int = 2
    deadline: str = "24h"
    start_deadline: str = "30m"
    ttl: str = "1h"
    run: Sequence[str] = ()
    overrides: Sequence[str] = ()
    model: str | None = None
    pipeline_in_image: str | None = None


@dataclass(frozen=True, slots=True)
class Manifest:
    """What to apply, and what whoever applies it should look at first."""

    config_map: dict[str, Any]
    ray_job: dict[str, Any]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Engines:
    """The engines of one model: ``at`` is where its resources stand in the pipeline."""

    model: str
    at: str
    gpus: int
    cpus: int
    least: int
    most: int


@dataclass(slots=True)
class _Group:
    """Pods of one kind: ``gpus`` in each, at most so many of them."""

    gpus: int
    pods: int = 0
    cpus: int = 0
    models: list[str] = field(default_factory=list)


def manifest(pipeline: Pipeline, files: Bundle | None, options: Options) -> Manifest:
    """The ConfigMap and the RayJob for ``pipeline``.

    Args:
        files: the pipeline's files; None with ``pipeline_in_image``.

    Raises:
        UserError: an option that is not in order or does not fit another one, input or output on a local disk, files
            that do not fit a ConfigMap, or what looks like a secret.
    """
    warnings: list[str] = []
    name = _name(pipeline, options)
    engines, sets = _engines(pipeline, options)
    groups = _groups(engines, options)
    _check_places(options)
    _check_names(options)
    warnings += _model_warnings(pipeline, options)
    warnings += _job_warnings(pipeline, files, engines, groups, options)
    labels = {
        "app.kubernetes.io/name": "headrace",
        "app.kubernetes.io/instance": name,
        "app.kubernetes.io/version": _label_value(__version__),
        **_pairs(options.labels, "--label"),
    }
    texts = _texts(files, _script(files, options, sets))
    keys = {path: _key(path) for path in texts}
    if len(set(keys.values())) < len(keys):
        raise UserError("Two of the pipeline's files have names that differ in / and _ only: rename one.")
    data = {keys[path]: text for path, text in texts.items()}
    digest = sha256(repr(sorted(data.items())).encode()).hexdigest()[:8]
    metadata = {"namespace": options.namespace} if options.namespace else {}
    config_map = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": f"{name}-{digest}", **metadata, "labels": labels},
        # Another pipeline makes another name, so that an attempt that comes later runs what the first did.
        "immutable": True,
        "data": data,
    }
    size = sum(len(text.encode()) + len(key) for key, text in data.items())
    if size > MOST_APPLIED:
        warnings.append(
            f"The ConfigMap has {size:,} bytes, more than kubectl apply keeps in its annotation: apply it with "
            f"--server-side."
        )
    pods = _Pods(options, labels, f"{name}-{digest}", keys)
    ray_job = {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": {"name": name, **metadata, "labels": labels},
        "spec": {
            "submissionMode": "K8sJobMode",
            "entrypoint": f"sh {MOUNT}/{SCRIPT}",
            "shutdownAfterJobFinishes": True,
            "ttlSecondsAfterFinished": _seconds(options.ttl, "--ttl", least=0),
            "activeDeadlineSeconds": _seconds(options.deadline, "--deadline", least=1),
            "preRunningDeadlineSeconds": _seconds(options.start_deadline, "--start-deadline", least=1),
            "backoffLimit": options.retries,
            "submitterPodTemplate": pods.submitter(),
            "rayClusterSpec": {
                "rayVersion": options.ray_version,
                "enableInTreeAutoscaling": True,
                "autoscalerOptions": {
                    "version": "v2",
                    "upscalingMode": "Default",
                    "idleTimeoutSeconds": 300,
                    "securityContext": _container_security(),
                    "resources": _requests("500m", "1Gi"),
                },
                "headGroupSpec": {
                    # No cores: the driver runs here, and no engine may land beside it.
                    "rayStartParams": {"dashboard-host": "0.0.0.0", "num-cpus": "0"},
                    "template": pods.head(),
                },
                "workerGroupSpecs": [
                    {
                        "groupName": f"gpu-{group.gpus}" if group.gpus else "cpu",
                        # From none: a mistake that is found before an engine starts costs no GPU.
                        "replicas": 0,
                        "minReplicas": 0,
                        "maxReplicas": group.pods,
                        "rayStartParams": {},
                        "template": pods.worker(group),
                    }
                    for group in groups
                ],
            },
        },
    }
    return Manifest(config_map, ray_job, tuple(dict.fromkeys(warnings)))


# -- engines and pods ----------------------------------------------------------------------------------------


def _engines(pipeline: Pipeline, options: Options) -> tuple[list[_Engines], list[str]]:
    """The engines of each model, and the ``--set`` that say to the run what is planned for here.

    GPUs are always said: the cluster has none when the run starts, and would be taken for one without GPUs.
    """
    stages = [stage for stage in stages_of(pipeline)]
    workers = _worker_range(options.workers) if options.workers is not None else None
    if len(stages) > 1 and (workers or options.gpus_per_worker is not None):
        raise UserError(
            "--workers and --gpus-per-worker are for pipelines with one model, and this one has "
            f"{len(stages)}: write resources (workers, tensor_parallel) for each into the pipeline, under `models`."
        )
    found, sets = [], []
    for stage in stages:
        spec, resources = pipeline.spec_of(stage.model), pipeline.resources_of(stage.model)
        own = isinstance(spec, NamedModel) and spec.resources is not None
        at = f"{loc_text(pipeline.loc_of(stage.model))}.resources" if own else "resources"
        least, most = workers or resources.worker_range
        if options.gpus_per_worker is not None:
            gpus = options.gpus_per_worker
            if gpus:
                sets.append(f"{at}.tensor_parallel={gpus}")
            elif resources.tensor_parallel > 1:
                raise UserError(f"--gpus-per-worker 0: the pipeline splits its model over {resources.tensor_parallel}.")
        else:
            gpus = resources.tensor_parallel if resources.gpus is None else resources.gpus
            gpus = max(gpus, resources.tensor_parallel) if gpus else 0
        sets.append(f"{at}.gpus={gpus}")
        if workers:
            sets.append(f"{at}.workers=[{least}, {most}]")
        cpus = resources.cpus or (1 if gpus else _whole_cores(options.worker_cpu or DEFAULT_CPU))
        if not gpus and resources.cpus is None:
            sets.append(f"{at}.cpus={cpus}")
        found.append(_Engines(stage.model, at, gpus, cpus, least, most))
    return found, list(dict.fromkeys(sets))


def _worker_range(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)(?::(\d+))?", text.strip())
    least, most = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not 1 <= least <= most:
        raise UserError(f"--workers {text}: write MIN:MAX, as in 1:8, with at least 1 and MIN no more than MAX.")
    return least, most


def _groups(engines: Sequence[_Engines], options: Options) -> list[_Group]:
    """Kinds of pods: one for each number of GPUs, with room for all engines that need so many."""
    groups: dict[int, _Group] = {}
    for each in engines:
        per_pod = options.gpus_per_pod if options.gpus_per_pod is not None and each.gpus else each.gpus
        if per_pod < each.gpus:
            raise UserError(
                f"--gpus-per-pod {per_pod}: one engine takes {each.gpus} GPUs, and they must be in one pod."
            )
        at_once = per_pod // each.gpus if each.gpus else 1
        group = groups.setdefault(per_pod, _Group(per_pod))
        group.pods += -(-each.most // at_once)
        group.cpus = max(group.cpus, each.cpus * at_once)
        group.models.append(each.model)
    for group in groups.values():
        has = _whole_cores(_worker_cpu(group, options))
        if has < group.cpus:
            raise UserError(
                f"--worker-cpu {_worker_cpu(group, options)}: the engines of a pod take {group.cpus} whole cores."
            )
    return list(groups.values())


DEFAULT_CPU = "4"
DEFAULT_MEMORY = "24Gi"


def _worker_cpu(group: _Group, options: Options) -> str:
    return options.worker_cpu or f"{int(DEFAULT_CPU) * max(1, group.gpus)}"


def _worker_memory(group: _Group, options: Options) -> str:
    return options.worker_memory or f"{int(DEFAULT_MEMORY.removesuffix('Gi')) * max(1, group.gpus)}Gi"


def _whole_cores(text: str) -> int:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(m?)", text)
    if not match:
        raise UserError(f"--worker-cpu {text}: write a number of cores, as in 8.")
    return int(float(match[1]) / (1000 if match[2] else 1))


# -- the command ---------------------------------------------------------------------------------------------


def _script(files: Bundle | None, options: Options, sets: Sequence[str]) -> str:
    where = options.pipeline_in_image or f"{MOUNT}/pipeline/{files.pipeline if files else ''}"
    arguments = [["headrace", "run", where], ["--input", options.input], ["--output", options.output]]
    arguments += [["--model", options.model]] if options.model is not None else []
    arguments += [["--set", override] for override in [*options.overrides, *sets]]
    arguments += [list(options.run)] if options.run else []
    arguments.append(["--address", "auto"])
    lines = " \\\n  ".join(shlex.join(words) for words in arguments)
    return f"# Made by headrace {__version__}. The same again resumes: what is committed is not done twice.\nexec {lines}\n"


def _texts(files: Bundle | None, script: str) -> dict[str, str]:
    """The mounted files, by their paths below :data:`MOUNT`."""
    found = {SCRIPT: script}
    if files is not None:
        found |= {f"pipeline/{path}": text for path, text in files.files.items()}
    for path, text in found.items():
        seen = secret_in(text)
        if seen:
            what = "the command" if path == SCRIPT else f"{path.removeprefix('pipeline/')}:{seen[1]}"
            raise UserError(
                f"{what} has what looks like {seen[0]} in it, and a manifest is no place for that: put it into a "
                f"Secret and name that with --secret."
            )
    size = sum(len(text.encode()) + len(_key(path)) for path, text in found.items())
    if size > MOST_BYTES or len(found) > MOST_FILES:
        raise UserError(
            f"The pipeline's {len(found)} files have {size:,} bytes, and a ConfigMap takes {MOST_BYTES:,} (and we mount "
            f"{MOST_FILES} files at most). Put them into the image, and name the pipeline there with "
            f"--pipeline-in-image PATH."
        )
    return found


def _key(path: str) -> str:
    key = path.removeprefix("pipeline/").replace("/", "__")
    if not re.fullmatch(r"[-._A-Za-z0-9]{1,253}", key) or (key == SCRIPT and path != SCRIPT):
        raise UserError(
            f"The file {path.removeprefix('pipeline/')!r} cannot be in a ConfigMap under its name: use letters, digits, "
            f". - and _, and not {SCRIPT}."
        )
    return key


# -- pods ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Pods:
    """Templates of the pods of one job."""

    options: Options
    labels: Mapping[str, str]
    config_map: str
    keys: Mapping[str, str]
    """Keys of the ConfigMap, by the path that the pods see."""

    def head(self) -> dict[str, Any]:
        spec = {
            # Without it the whole attempt is lost, and another one begins on a new cluster.
            "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": _not_on_spot()}},
            "terminationGracePeriodSeconds": 60,
            "containers": [
                {
                    "name": "ray-head",
                    **self._container(self.options.head_cpu, self.options.head_memory, 0),
                    "ports": [
                        {"containerPort": 6379, "name": "gcs-server"},
                        {"containerPort": 8265, "name": "dashboard"},
                        {"containerPort": 10001, "name": "client"},
                    ],
                }
            ],
            "volumes": self._volumes(),
        }
        return self._template(spec)

    def worker(self, group: _Group) -> dict[str, Any]:
        options = self.options
        tolerations = [_toleration(text) for text in options.tolerations]
        if group.gpus:
            tolerations.append({"key": GPU, "operator": "Exists", "effect": "NoSchedule"})
        if options.spot:
            tolerations += [
                {"key": key, "operator": "Equal", "value": value, "effect": "NoSchedule"} for key, value in SPOT
            ]
            affinity: dict[str, Any] = {
                "preferredDuringSchedulingIgnoredDuringExecution": [
                    {
                        "weight": 100,
                        "preference": {"matchExpressions": [{"key": key, "operator": "In", "values": [value]}]},
                    }
                    for key, value in SPOT
                ]
            }
        else:
            affinity = {"requiredDuringSchedulingIgnoredDuringExecution": _not_on_spot()}
        container = {
            "name": "ray-worker",
            **self._container(_worker_cpu(group, options), _worker_memory(group, options), group.gpus),
            # Leave the cluster in order when the node is taken away; what is in flight is asked again elsewhere.
            "lifecycle": {"preStop": {"exec": {"command": ["/bin/sh", "-c", "ray stop"]}}},
        }
        container["volumeMounts"] = [*container["volumeMounts"], {"name": "ray-logs", "mountPath": "/tmp/ray"}]
        selector = _pairs(options.node_selectors, "--node-selector")
        spec = {
            **({"nodeSelector": selector} if selector else {}),
            "affinity": {"nodeAffinity": affinity},
            "tolerations": tolerations,
            # A spot node has 30 seconds on some clouds.
            "terminationGracePeriodSeconds": 30,
            "automountServiceAccountToken": False,
            "containers": [container],
            "volumes": [*self._volumes(), {"name": "ray-logs", "emptyDir": {}}],
        }
        return self._template(spec)

    def submitter(self) -> dict[str, Any]:
        spec = {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": _not_on_spot()}},
            "securityContext": _pod_security(),
            **self._pull_secrets(),
            "containers": [
                {
                    "name": "ray-job-submitter",
                    "image": self.options.image,
                    "resources": _requests("500m", "1Gi"),
                    "securityContext": _container_security(),
                    "env": [{"name": "HOME", "value": SCRATCH}],
                    "volumeMounts": [{"name": "scratch", "mountPath": SCRATCH}],
                }
            ],
            "volumes": [{"name": "scratch", "emptyDir": {}}],
        }
        return {"metadata": {"labels": dict(self.labels)}, "spec": spec}

    def _template(self, spec: dict[str, Any]) -> dict[str, Any]:
        account = self.options.service_account
        return {
            "metadata": {
                "labels": dict(self.labels),
                # A node that is well used is not to be emptied to save another one.
                "annotations": {
                    "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
                    "karpenter.sh/do-not-disrupt": "true",
                },
            },
            "spec": {
                **({"serviceAccountName": account} if account else {}),
                "securityContext": _pod_security(),
                **self._pull_secrets(),
                **spec,
            },
        }

    def _pull_secrets(self) -> dict[str, Any]:
        names = self.options.image_pull_secrets
        return {"imagePullSecrets": [{"name": name} for name in names]} if names else {}

    def _container(self, cpu: str, memory: str, gpus: int) -> dict[str, Any]:
        options = self.options
        cache = _model_cache(options.model_cache)
        env = {
            "HOME": SCRATCH,
            "XDG_CACHE_HOME": f"{SCRATCH}/cache",
            "HF_HOME": f"{CACHE}/huggingface",
            **({"HF_HUB_OFFLINE": "1"} if cache.get("read_only") else {}),
            **_env(options.env),
        }
        resources = _requests(cpu, memory)
        if gpus:
            resources = {kind: {**amounts, GPU: str(gpus)} for kind, amounts in resources.items()}
        return {
            "image": options.image,
            "imagePullPolicy": "IfNotPresent",
            "resources": resources,
            "securityContext": _container_security(),
            "env": [{"name": name, "value": value} for name, value in env.items()],
            **({"envFrom": [{"secretRef": {"name": name}} for name in options.secrets]} if options.secrets else {}),
            "volumeMounts": [
                {"name": "model-cache", "mountPath": CACHE, **({"readOnly": True} if cache.get("read_only") else {})},
                {"name": "scratch", "mountPath": SCRATCH},
                *(
                    {"name": "pipeline", "mountPath": f"{MOUNT}/{path}", "subPath": key, "readOnly": True}
                    for path, key in self.keys.items()
                ),
            ],
        }

    def _volumes(self) -> list[dict[str, Any]]:
        cache = _model_cache(self.options.model_cache)
        return [
            {"name": "model-cache", **cache["volume"]},
            {"name": "scratch", "emptyDir": {}},
            {"name": "pipeline", "configMap": {"name": self.config_map}},
        ]


def _requests(cpu: str, memory: str) -> dict[str, Any]:
    amounts = {"cpu": cpu, "memory": memory}
    return {"requests": dict(amounts), "limits": dict(amounts)}


def _pod_security() -> dict[str, Any]:
    return {
        "runAsNonRoot": True,
        "runAsUser": 1000,
        "runAsGroup": 1000,
        "fsGroup": 1000,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def _container_security() -> dict[str, Any]:
    return {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


def _not_on_spot() -> dict[str, Any]:
    return {
        "nodeSelectorTerms": [
            {"matchExpressions": [{"key": key, "operator": "NotIn", "values": [value]} for key, value in SPOT]}
        ]
    }


def _toleration(text: str) -> dict[str, Any]:
    match = re.fullmatch(r"([^=:]+)(?:=([^=:]*))?(?::(NoSchedule|PreferNoSchedule|NoExecute))?", text)
    if not match or not _QUALIFIED.fullmatch(match[1]) or not _VALUE.fullmatch(match[2] or ""):
        raise UserError(
            f"--toleration {text}: write KEY, KEY=VALUE or KEY=VALUE:EFFECT, with NoSchedule, PreferNoSchedule or "
            f"NoExecute for EFFECT."
        )
    key, value, effect = match.groups()
    how = {"operator": "Exists"} if value is None else {"operator": "Equal", "value": value}
    return {"key": key, **how, **({"effect": effect} if effect else {})}


def _model_cache(text: str) -> dict[str, Any]:
    kind, _, rest = text.partition(":")
    if kind == "pvc":
        claim, _, mode = rest.partition(":")
        if _SUBDOMAIN.fullmatch(claim) and mode in ("", "ro"):
            read_only = {"readOnly": True} if mode else {}
            volume = {"persistentVolumeClaim": {"claimName": claim, **read_only}}
            return {"volume": volume, "read_only": bool(mode)}
    elif kind == "emptyDir" and re.fullmatch(r"[1-9][0-9]*[MGT]i?", rest):
        return {"volume": {"emptyDir": {"sizeLimit": rest}}}
    elif kind == "hostPath" and rest.startswith("/") and ".." not in rest.split("/"):
        return {"volume": {"hostPath": {"path": rest, "type": "DirectoryOrCreate"}}}
    raise UserError(
        f"--model-cache {text}: write pvc:NAME (or pvc:NAME:ro), emptyDir:SIZE as in emptyDir:200Gi, or hostPath:/PATH."
    )


# -- what is checked -----------------------------------------------------------------------------------------


def _name(pipeline: Pipeline, options: Options) -> str:
    if options.name is None:
        made = re.sub(r"[^a-z0-9]+", "-", pipeline.name.lower()).strip("-")
        name = made if made[:1].isalpha() else f"headrace-{made}"
    else:
        name = options.name
    if not _LABEL.fullmatch(name) or len(name) > LONGEST_NAME:
        raise UserError(
            f"The name {name!r} is none that KubeRay takes: at most {LONGEST_NAME} lowercase letters, digits and -, "
            f"beginning with a letter. Give one with --name."
        )
    return name


def _check_places(options: Options) -> None:
    for option, uri in (("--input", options.input), ("--output", options.output)):
        if object_uri(uri) is None:
            raise UserError(
                f"{option} {without_userinfo(uri)!r}: pods do not see this machine's disks. Name a place in an object "
                f"store, as in s3://BUCKET/FOLDER."
            )
    place = object_uri(options.output)
    if place is not None and place.scheme == "hf":
        raise UserError(f"--output {options.output!r}: there are no outputs in hf://. Use s3://, gs:// or abfs://.")


def _check_names(options: Options) -> None:
    for option, names in (
        ("--secret", options.secrets),
        ("--image-pull-secret", options.image_pull_secrets),
        ("--service-account", [options.service_account] if options.service_account is not None else []),
        ("--namespace", [options.namespace] if options.namespace is not None else []),
    ):
        for name in names:
            if not _SUBDOMAIN.fullmatch(name) or len(name) > 253 or secret_in(name):
                # What was given may be the secret itself, so it is not repeated.
                raise UserError(
                    f"{option}: give the name that it has in the cluster: lowercase letters, digits, - and ."
                )
    for option, quantity in (
        ("--head-cpu", options.head_cpu),
        ("--head-memory", options.head_memory),
        ("--worker-cpu", options.worker_cpu),
        ("--worker-memory", options.worker_memory),
    ):
        if quantity is not None and not _QUANTITY.fullmatch(quantity):
            raise UserError(f"{option} {quantity}: must be an amount as Kubernetes writes it, such as 4 or 16Gi.")
    if options.retries < 0:
        raise UserError(f"--retries {options.retries}: must be 0 or more.")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._/:@-]*", options.image):
        raise UserError(f"--image {options.image!r} is no name of an image.")
    if options.pipeline_in_image is not None and not options.pipeline_in_image.startswith("/"):
        raise UserError(f"--pipeline-in-image {options.pipeline_in_image}: must be an absolute path, as the pods see it.")


def _pairs(texts: Sequence[str], option: str) -> dict[str, str]:
    found = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not _QUALIFIED.fullmatch(key) or not _VALUE.fullmatch(value):
            raise UserError(f"{option} {text}: write KEY=VALUE, as Kubernetes takes labels.")
        found[key] = value
    return found


def _env(texts: Sequence[str]) -> dict[str, str]:
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise UserError("--env: write NAME=VALUE.")
        if secret_name(name) or secret_in(value):
            raise UserError(
                f"--env {name}: looks like a secret, and a manifest is no place for one. Put it into a Secret of the "
                f"cluster (kubectl create secret generic NAME --from-env-file FILE) and name that with --secret NAME."
            )
        found[name] = value
    return found


def _seconds(text: str, option: str, least: int) -> int:
    try:
        seconds = 0 if text.strip() in ("0", "0s") else round(parse_time(text))
    except ValueError as error:
        raise UserError(f"{option} {text}: {error}") from error
    if seconds < least:
        raise UserError(f"{option} {text}: must be more.")
    return seconds


def _label_value(text: str) -> str:
    return re.sub(r"[^-A-Za-z0-9_.]", "_", text)


def _model_warnings(pipeline: Pipeline, options: Options) -> Iterator[str]:
    for stage in stages_of(pipeline):
        spec = pipeline.spec_of(stage.model)
        for key in spec.engine:
            if secret_name(key):
                raise UserError(
                    f"The model's {key} looks like a secret, and a manifest is no place for one: put it into a Secret "
                    f"of the cluster and name that with --secret (Hugging Face reads HF_TOKEN)."
                )
        if spec.id == FAKE:
            yield "The model is fake: its answers are made up."
        elif spec.id == DEFAULT:
            yield (
                "The model is default: each pod makes it on its first use, for which the image needs the extra "
                "default-model. It is for trying out."
            )
        elif spec.id.startswith("/"):
            yield f"The model {spec.id} is a folder: it must be in the image, under that path."
        elif spec.id.startswith((".", "~")) or spec.id.count("/") != 1:
            raise UserError(
                f"The model {spec.id!r} is a folder of this machine, and pods do not see it. Give a hub id, or put the "
                f"folder into the image and name it by its absolute path."
            )
        else:
            if Path(spec.id).is_dir() or (pipeline.folder is not None and (pipeline.folder / spec.id).is_dir()):
                yield f"The model {spec.id} is a folder here, and a hub id on the cluster."
            if spec.revision is None:
                yield (
                    f"The model {spec.id} has no revision. If its branch moves between two attempts, the second is "
                    f"refused because its answers would be another model's: set revision to a commit."
                )


def _job_warnings(
    pipeline: Pipeline,
    files: Bundle | None,
    engines: Sequence[_Engines],
    groups: Sequence[_Group],
    options: Options,
) -> Iterator[str]:
    for function in files.elsewhere if files else ():
        yield f"The function {function} is not beside the pipeline: its module must be in the image."
    if "@sha256:" not in options.image:
        tag = options.image.rpartition("/")[2].partition(":")[2]
        if tag in ("", "latest"):
            yield f"The image {options.image} has no fixed tag: nodes that cached it run another version."
        if "/" not in options.image:
            yield f"The image {options.image} has no registry: nodes look for it where they are configured to."
    for each in engines:
        if each.gpus and options.gpus_per_pod and options.gpus_per_pod % each.gpus:
            yield f"--gpus-per-pod {options.gpus_per_pod}: engines of {each.gpus} GPUs leave some of them unused."
    if sum(group.pods for group in groups) == 1 and not options.workers:
        yield "There is one worker at most: give more with --workers MIN:MAX."
    if any(not group.gpus for group in groups):
        yield "There are engines without a GPU: the image needs the extra cpu for them, not gpu."
    kind, _, _ = options.model_cache.partition(":")
    if kind == "hostPath":
        yield (
            "--model-cache hostPath: most clusters refuse that (the baseline Pod Security Standard does), and the folder "
            "must be writable for user 1000."
        )
    elif kind == "emptyDir" and any(
        pipeline.spec_of(each.model).id not in (FAKE, DEFAULT) and not pipeline.spec_of(each.model).id.startswith("/")
        for each in engines
    ):
        yield "--model-cache emptyDir: each pod downloads the model for itself. A volume (pvc:NAME) that all share is quicker."
    elif kind == "pvc" and sum(group.pods for group in groups) > 1:
        yield "--model-cache pvc: all pods mount the claim, so its access mode must be ReadWriteMany (or ReadOnlyMany)."
    if not options.secrets and options.service_account is None:
        yield "No --secret and no --service-account: the pods have the node's own rights to input and output, or none."
    if options.service_account is not None:
        yield (
            f"The service account {options.service_account} must be there before: KubeRay makes none of that name. It "
            f"binds the autoscaler's role to it."
        )
