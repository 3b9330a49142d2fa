"""The KubeRay manifest of a pipeline: a ConfigMap with its files and the command, and a RayJob that runs it.

Pure functions: a pipeline, its files and options go in, plain data comes out. Nothing here contacts a cluster.

The command is in a script in the ConfigMap, and the RayJob's entrypoint only names the script: KubeRay passes an
entrypoint through two shells, and no quoting is sure to survive that. The files are mounted one by one (``subPath``): a
ConfigMap mounted as a folder shows links into a folder whose name differs from pod to pod, but workers must find the
pipeline's folder under the driver's name for it.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from importlib.metadata import version
from typing import Any

from headrace.cluster.engines.locate import check_models
from headrace.cluster.jobs.secrets_seen import secret_in
from headrace.cluster.kube.bundle import Bundle
from headrace.cluster.kube.engines import Group, engines_of, groups_of
from headrace.cluster.kube.option_checks import check_names, check_places, pairs, seconds
from headrace.cluster.kube.options import KubeOptions
from headrace.cluster.kube.pods import MOUNT, Pods, amounts_of, container_security
from headrace.cluster.kube.warnings import job_warnings, model_warnings
from headrace.pipelines.spec.errors import UserError
from headrace.pipelines.spec.pipeline import Pipeline
from headrace.pipelines.spec.version import VERSION

SCRIPT = "run.sh"

MOST_BYTES = 1 << 20
"""Most bytes of a ConfigMap."""

MOST_APPLIED = 256 << 10
"""Most bytes of a resource that ``kubectl apply`` keeps in an annotation; beyond that it needs ``--server-side``."""

MOST_FILES = 100
"""Most files; each is a mount in every pod."""

_LABEL = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")

LONGEST_NAME = 47
"""Most characters of a RayJob's name. KubeRay adds to it for the cluster's name, which may have 53."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """The documents to apply, and warnings to read first."""

    config_map: dict[str, Any]
    ray_job: dict[str, Any]
    warnings: tuple[str, ...] = ()


def manifest(pipeline: Pipeline, files: Bundle | None, options: KubeOptions) -> Manifest:
    """The ConfigMap and the RayJob for ``pipeline``.

    Args:
        files: the pipeline's files; None with ``pipeline_in_image``.

    Raises:
        UserError: an option is wrong or does not fit another, input or output is on a local disk, files do not fit into
            a ConfigMap, or something looks like a secret.
    """
    warnings: list[str] = []
    check_models(pipeline)
    name = _name(pipeline, options)
    pools, sets = engines_of(pipeline, options)
    groups = groups_of(pools, options)
    check_places(options)
    check_names(options)
    warnings += model_warnings(pipeline)
    warnings += job_warnings(pipeline, files, pools, groups, options)
    labels = {
        "app.kubernetes.io/name": "headrace",
        "app.kubernetes.io/instance": name,
        "app.kubernetes.io/version": _label_value(VERSION),
        **pairs(options.labels, "--label"),
    }
    texts = _texts(files, _script(files, options, sets))
    keys = {path: _key(path) for path in texts}
    if len(set(keys.values())) < len(keys):
        raise UserError("Two of the pipeline's files have names that differ only in / and _. Rename one.")
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
            f"The ConfigMap has {size:,} bytes, more than kubectl apply can keep in its annotation. Apply it with "
            f"--server-side."
        )
    pods = Pods(options, labels, f"{name}-{digest}", keys)
    ray_job = {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": {"name": name, **metadata, "labels": labels},
        "spec": _job_spec(options, pods, groups),
    }
    return Manifest(config_map, ray_job, tuple(dict.fromkeys(warnings)))


def _job_spec(options: KubeOptions, pods: Pods, groups: Sequence[Group]) -> dict[str, Any]:
    return {
        "submissionMode": "K8sJobMode",
        "entrypoint": f"sh {MOUNT}/{SCRIPT}",
        "shutdownAfterJobFinishes": True,
        "ttlSecondsAfterFinished": seconds(options.ttl, "--ttl", least=0),
        "activeDeadlineSeconds": seconds(options.deadline, "--deadline", least=1),
        "preRunningDeadlineSeconds": seconds(options.start_deadline, "--start-deadline", least=1),
        "backoffLimit": options.retries,
        "submitterPodTemplate": pods.submitter(),
        "rayClusterSpec": _cluster_spec(options, pods, groups),
    }


def _cluster_spec(options: KubeOptions, pods: Pods, groups: Sequence[Group]) -> dict[str, Any]:
    return {
        # The version of Ray here is that of an image built from here.
        "rayVersion": options.ray_version or version("ray"),
        "enableInTreeAutoscaling": True,
        "autoscalerOptions": {
            "version": "v2",
            "upscalingMode": "Default",
            "idleTimeoutSeconds": 300,
            "securityContext": container_security(),
            "resources": amounts_of("500m", "1Gi"),
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
    }


def _name(pipeline: Pipeline, options: KubeOptions) -> str:
    if options.name is None:
        made = re.sub(r"[^a-z0-9]+", "-", pipeline.name.lower()).strip("-")
        name = made if made[:1].isalpha() else f"headrace-{made}"
    else:
        name = options.name
    if not _LABEL.fullmatch(name) or len(name) > LONGEST_NAME:
        raise UserError(
            f"KubeRay does not accept the name {name!r}: it must have at most {LONGEST_NAME} lowercase letters, digits "
            f"and -, and begin with a letter. Give one with --name."
        )
    return name


def _script(files: Bundle | None, options: KubeOptions, sets: Sequence[str]) -> str:
    where = options.pipeline_in_image or f"{MOUNT}/pipeline/{files.pipeline if files else ''}"
    arguments = [["headrace", "run", where], ["--input", options.input], ["--output", options.output]]
    arguments += [["--model", options.model]] if options.model is not None else []
    arguments += [["--set", override] for override in [*options.overrides, *sets]]
    arguments += [list(options.run)] if options.run else []
    arguments.append(["--address", "auto"])
    lines = " \\\n  ".join(shlex.join(words) for words in arguments)
    said = f"# Made by headrace {VERSION}. Running this again resumes: committed chunks are kept."
    return f"{said}\nexec {lines}\n"


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
                f"{what} seems to contain {seen[0]}, which must not be in a manifest. Put it into a Secret, and name "
                f"that with --secret."
            )
    size = sum(len(text.encode()) + len(_key(path)) for path, text in found.items())
    if size > MOST_BYTES or len(found) > MOST_FILES:
        raise UserError(
            f"The pipeline's {len(found)} files have {size:,} bytes, but a ConfigMap holds at most {MOST_BYTES:,} "
            f"bytes, and at most {MOST_FILES} files are mounted. Put them into the image, and give the pipeline's path "
            f"there with --pipeline-in-image PATH."
        )
    return found


def _key(path: str) -> str:
    key = path.removeprefix("pipeline/").replace("/", "__")
    if not re.fullmatch(r"[-._A-Za-z0-9]{1,253}", key) or (key == SCRIPT and path != SCRIPT):
        raise UserError(
            f"The file {path.removeprefix('pipeline/')!r} cannot be in a ConfigMap under this name. Rename it: use "
            f"letters, digits, . - and _, and not {SCRIPT}."
        )
    return key


def _label_value(text: str) -> str:
    return re.sub(r"[^-A-Za-z0-9_.]", "_", text)
