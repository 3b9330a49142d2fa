"""Templates of a job's pods: the head, the workers, and the submitter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from headrace.cluster.kube.engines import Group, worker_cpu, worker_memory
from headrace.cluster.kube.option_checks import env_of, model_cache, pairs, toleration_of
from headrace.cluster.kube.options import KubeOptions

MOUNT = "/etc/headrace"
"""Folder of the pipeline's files in the pods."""

SPOT = (
    ("cloud.google.com/gke-spot", "true"),
    ("cloud.google.com/gke-preemptible", "true"),
    ("eks.amazonaws.com/capacityType", "SPOT"),
    ("karpenter.sh/capacity-type", "spot"),
    ("kubernetes.azure.com/scalesetpriority", "spot"),
)
"""Labels of spot nodes: Google's, Amazon's, Karpenter's, Microsoft's. Some come with taints of the same key."""

GPU = "nvidia.com/gpu"

CACHE, SCRATCH = "/model-cache", "/scratch"


@dataclass(frozen=True, slots=True)
class Pods:
    """Templates of the pods of one job."""

    options: KubeOptions
    labels: Mapping[str, str]
    config_map: str
    keys: Mapping[str, str]
    """Keys of the ConfigMap, by the path in the pods."""

    def head(self) -> dict[str, Any]:
        """The head: on an on-demand node, with the driver."""
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

    def worker(self, group: Group) -> dict[str, Any]:
        """A worker with the GPUs of its group."""
        options = self.options
        tolerations = [toleration_of(text) for text in options.tolerations]
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
            **self._container(worker_cpu(group, options), worker_memory(group, options), group.gpus),
            # Leave the cluster in order when the node is taken away; what is in flight is rerun elsewhere.
            "lifecycle": {"preStop": {"exec": {"command": ["/bin/sh", "-c", "ray stop"]}}},
        }
        container["volumeMounts"] = [*container["volumeMounts"], {"name": "ray-logs", "mountPath": "/tmp/ray"}]
        selector = pairs(options.node_selectors, "--node-selector")
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
        """The pod that submits the job to the head; it needs neither files nor secrets."""
        spec = {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": _not_on_spot()}},
            "securityContext": pod_security(),
            **self._pull_secrets(),
            "containers": [
                {
                    "name": "ray-job-submitter",
                    "image": self.options.image,
                    "resources": amounts_of("500m", "1Gi"),
                    "securityContext": container_security(),
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
                "securityContext": pod_security(),
                **self._pull_secrets(),
                **spec,
            },
        }

    def _pull_secrets(self) -> dict[str, Any]:
        names = self.options.image_pull_secrets
        return {"imagePullSecrets": [{"name": name} for name in names]} if names else {}

    def _container(self, cpu: str, memory: str, gpus: int) -> dict[str, Any]:
        options = self.options
        cache = model_cache(options.model_cache)
        env = {
            "HOME": SCRATCH,
            "XDG_CACHE_HOME": f"{SCRATCH}/cache",
            "HF_HOME": f"{CACHE}/huggingface",
            **({"HF_HUB_OFFLINE": "1"} if cache.get("read_only") else {}),
            **env_of(options.env),
        }
        resources = amounts_of(cpu, memory)
        if gpus:
            resources = {kind: {**amounts, GPU: str(gpus)} for kind, amounts in resources.items()}
        return {
            "image": options.image,
            "imagePullPolicy": "IfNotPresent",
            "resources": resources,
            "securityContext": container_security(),
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
        cache = model_cache(self.options.model_cache)
        return [
            {"name": "model-cache", **cache["volume"]},
            {"name": "scratch", "emptyDir": {}},
            {"name": "pipeline", "configMap": {"name": self.config_map}},
        ]


def amounts_of(cpu: str, memory: str) -> dict[str, Any]:
    """Requests and limits of a container; they are equal, so that nothing is reclaimed later."""
    amounts = {"cpu": cpu, "memory": memory}
    return {"requests": dict(amounts), "limits": dict(amounts)}


def pod_security() -> dict[str, Any]:
    """What the restricted Pod Security Standard requires of a pod."""
    return {
        "runAsNonRoot": True,
        "runAsUser": 1000,
        "runAsGroup": 1000,
        "fsGroup": 1000,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def container_security() -> dict[str, Any]:
    """What the restricted Pod Security Standard requires of a container."""
    return {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


def _not_on_spot() -> dict[str, Any]:
    return {
        "nodeSelectorTerms": [
            {"matchExpressions": [{"key": key, "operator": "NotIn", "values": [value]} for key, value in SPOT]}
        ]
    }
