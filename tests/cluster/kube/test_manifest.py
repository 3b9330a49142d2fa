"""``headrace manifest``: what it prints is a RayJob that KubeRay takes, runs what was meant, and holds no secret."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from headrace.cluster.kube.bundle import bundle
from headrace.cluster.kube.manifest import manifest
from headrace.cluster.kube.options import KubeOptions
from headrace.cluster.kube.pods import MOUNT
from headrace.cluster.kube.text import as_yaml
from headrace.pipelines.spec.errors import UserError
from headrace.pipelines.spec.loading import load_pipeline
from tests.support.kuberay import problems, templates

HEADRACE = [sys.executable, "-m", "headrace"]

PIPELINE = """\
name: Night_tickets
model: {id: Qwen/Qwen3-8B, revision: 0123abc, max_model_len: 16384}
document: "{{ text }}"
resources: {tensor_parallel: 2, workers: [1, 4]}
steps:
  - classify: {name: opinion, labels: {"yes": good, "no": bad}}
  - extract: {name: facts, schema: ../schemas/facts.json}
  - map: {name: length, function: "steps.texts:length"}
"""

TWO_MODELS = """\
name: two
model: Qwen/Qwen3-8B
models:
  large: {id: Qwen/Qwen3-32B, resources: {tensor_parallel: 4, workers: 2}}
document: "{{ text }}"
resources: {workers: [1, 3]}
steps:
  - classify: {name: opinion, labels: {good: a, bad: b}}
  - summarize: {name: summary, model: large, when: opinion = 'bad'}
"""

OPTIONS = KubeOptions(
    ray_version="2.60.0",
    input="s3://corpus/tickets",
    output="s3://corpus/answers",
    image="registry.example.com/data/headrace:0.1.0",
    secrets=("s3-keys",),
)

Make = Callable[..., list[Any]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A pipeline with a schema in the next folder and Python beside it."""
    for path, text in {
        "jobs/pipeline.yaml": PIPELINE,
        "jobs/two.yaml": TWO_MODELS,
        "jobs/steps/__init__.py": "",
        "jobs/steps/texts.py": "import os\nfrom .clean import tidy\n\ndef length(row) -> int:\n    return tidy(row)\n",
        "jobs/steps/clean.py": "from words import count\n\n\ndef tidy(row):\n    return count(row)\n",
        "jobs/words.py": "def count(row):\n    return len(str(row))\n",
        "jobs/not_imported.py": "raise SystemExit\n",
        "schemas/facts.json": json.dumps(
            {"type": "object", "properties": {"product": {"type": "string"}}, "required": ["product"]}
        ),
    }.items():
        (tmp_path / path).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / path).write_text(text)
    return tmp_path


@pytest.fixture
def make(folder: Path) -> Make:
    """The documents that a pipeline file and options come to, as a cluster reads them."""

    def made(pipeline: str = "pipeline.yaml", **changes: Any) -> list[Any]:
        options = replace(OPTIONS, **changes)
        loaded = load_pipeline(folder / "jobs" / pipeline, options.overrides, options.model)
        found = manifest(loaded, None if options.pipeline_in_image else bundle(loaded), options)
        return list(yaml.safe_load_all(as_yaml(found)))

    return made


def warnings(folder: Path, pipeline: str = "pipeline.yaml", **changes: Any) -> str:
    loaded = load_pipeline(folder / "jobs" / pipeline)
    return "\n".join(manifest(loaded, bundle(loaded), replace(OPTIONS, **changes)).warnings)


def container(documents: list[Any], name: str) -> Any:
    return dict(templates(documents[1]))[name]["spec"]["containers"][0]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"name": "a" * 47, "namespace": "data-jobs"},
        {"workers": "1:8", "gpus_per_worker": 1, "gpus_per_pod": 8, "worker_cpu": "32", "worker_memory": "200Gi"},
        {"gpus_per_worker": 1, "workers": "3"},
        {
            "spot": False,
            "node_selectors": ["nvidia.com/gpu.product=NVIDIA-H100"],
            "tolerations": ["team=data:NoExecute"],
        },
        {"tolerations": ["gpu-only", "team=data"], "labels": ["team=data", "example.com/cost-centre=7"]},
        {"model_cache": "pvc:models"},
        {"model_cache": "pvc:models:ro"},
        {"model_cache": "hostPath:/mnt/models"},
        {"service_account": "headrace", "secrets": ("s3-keys", "hub.token"), "image_pull_secrets": ["registry"]},
        {"retries": 0, "deadline": "90m", "ttl": "0", "start_deadline": "2h"},
        {"env": ["AWS_ENDPOINT_URL=https://s3.example.com", "TOKENIZERS_PARALLELISM=false", "X="]},
        {"pipeline": "two.yaml"},
        {"pipeline": "two.yaml", "gpus_per_pod": 8},
        {"pipeline_in_image": "/app/pipeline.yaml"},
        {"overrides": ["resources.gpus=0", "resources.tensor_parallel=1"], "model": "fake"},
    ],
    ids=str,
)
def test_a_cluster_takes_what_is_made(make: Make, changes: dict[str, Any]) -> None:
    assert problems(make(**changes)) == []


# What the operator or the API server refuses: each is one change of a manifest that is in order.
BROKEN: dict[str, tuple[str, Callable[[Any, Any], object]]] = {
    "an unknown key": ("retries", lambda job, spec: spec.update(retries=3)),
    "an unknown key of a group": ("minWorkers", lambda job, spec: group(spec).update(minWorkers=3)),
    "an unknown key of a pod": ("gpus", lambda job, spec: pod(spec).update(gpus=3)),
    "an unknown key of a container": ("cpu", lambda job, spec: pod(spec)["containers"][0].update(cpu="1")),
    "a number for a text": ("num-cpus", lambda job, spec: head(spec)["rayStartParams"].update({"num-cpus": 0})),
    "a value of a variable": (
        "env",
        lambda job, spec: pod(spec)["containers"][0]["env"].append({"name": "A", "value": 1}),
    ),
    "autoscaler": (
        "upscalingMode",
        lambda job, spec: spec["rayClusterSpec"]["autoscalerOptions"].update(upscalingMode="Fast"),
    ),
    "autoscaler's container": (
        "securityContext",
        lambda job, spec: spec["rayClusterSpec"]["autoscalerOptions"]["securityContext"].update(privilege=1),
    ),
    "a long name": ("name", lambda job, spec: job["metadata"].update(name="a" * 48)),
    "a name with _": ("name", lambda job, spec: job["metadata"].update(name="a_b")),
    "TTL without shutdown": ("ttlSeconds", lambda job, spec: spec.update(shutdownAfterJobFinishes=False)),
    "suspend without shutdown": (
        "suspend",
        lambda job, spec: spec.update(suspend=True, shutdownAfterJobFinishes=False, ttlSecondsAfterFinished=0),
    ),
    "a negative TTL": ("negative", lambda job, spec: spec.update(ttlSecondsAfterFinished=-1)),
    "no cluster": ("rayClusterSpec or", lambda job, spec: job.update(spec={"entrypoint": "x"})),
    "a selector and retries": ("backoffLimit", lambda job, spec: spec.update(clusterSelector={"ray.io/cluster": "x"})),
    "interactive retries": ("InteractiveMode", lambda job, spec: spec.update(submissionMode="InteractiveMode")),
    "a sidecar's template": ("SidecarMode", lambda job, spec: spec.update(submissionMode="SidecarMode")),
    "negative retries": ("backoffLimit", lambda job, spec: spec.update(backoffLimit=-1)),
    "no time": ("activeDeadline", lambda job, spec: spec.update(activeDeadlineSeconds=0)),
    "no time to start": ("preRunning", lambda job, spec: spec.update(preRunningDeadlineSeconds=0)),
    "deletion rules": (
        "deletionRules",
        lambda job, spec: spec.update(deletionStrategy={"deletionRules": [{"policy": "DeleteCluster"}]}),
    ),
    "half a deletion strategy": (
        "needs both",
        lambda job, spec: spec.update(deletionStrategy={"onSuccess": {"policy": "DeleteCluster"}}),
    ),
    "deleting nothing": (
        "DeleteNone",
        lambda job, spec: spec.update(
            deletionStrategy={"onSuccess": {"policy": "DeleteNone"}, "onFailure": {"policy": "DeleteNone"}}
        ),
    ),
    "more than most": ("maxReplicas", lambda job, spec: group(spec).update(replicas=9)),
    "least above most": ("minReplicas", lambda job, spec: group(spec).update(minReplicas=9, replicas=9)),
    "a group twice": (
        "one name",
        lambda job, spec: spec["rayClusterSpec"]["workerGroupSpecs"].append(copy.deepcopy(group(spec))),
    ),
    "no container": ("container", lambda job, spec: pod(spec).update(containers=[])),
    "restarts": ("restartPolicy", lambda job, spec: pod(spec).update(restartPolicy="Always")),
    "resources twice": ("rayStartParams", lambda job, spec: head(spec).update(resources={"CPU": "0"})),
    "labels of Ray": ("labels", lambda job, spec: group(spec)["rayStartParams"].update(labels="a=b")),
    "a suspended group": ("suspend", lambda job, spec: group(spec).update(suspend=True)),
    "the autoscaler twice": ("autoscaler_v2", lambda job, spec: set_env(spec, "RAY_enable_autoscaler_v2", "1")),
    "an idle group": (
        "idleTimeout",
        lambda job, spec: (
            spec["rayClusterSpec"]["autoscalerOptions"].update(version="v1"),
            group(spec).update(idleTimeoutSeconds=1),
        ),
    ),
    "an old Ray's priority": (
        "priority",
        lambda job, spec: (spec["rayClusterSpec"].update(rayVersion="2.55.1"), group(spec).update(priority=1)),
    ),
    "Redis": ("REDIS", lambda job, spec: set_env(spec, "RAY_REDIS_ADDRESS", "redis:6379")),
    "Redis twice": (
        "Redis",
        lambda job, spec: (
            spec["rayClusterSpec"].update(gcsFaultToleranceOptions={"redisAddress": "redis:6379"}),
            set_env(spec, "RAY_REDIS_ADDRESS", "redis:6379"),
        ),
    ),
    "a volume that is not there": ("model-cache", lambda job, spec: pod(spec)["volumes"].pop(0)),
    "a file that is not there": (
        "ConfigMap",
        lambda job, spec: pod(spec)["containers"][0]["volumeMounts"][2].update(subPath="another"),
    ),
    "another namespace": ("namespace", lambda job, spec: job["metadata"].update(namespace="x")),
}


def head(spec: Any) -> Any:
    return spec["rayClusterSpec"]["headGroupSpec"]


def group(spec: Any) -> Any:
    return spec["rayClusterSpec"]["workerGroupSpecs"][0]


def pod(spec: Any) -> Any:
    return group(spec)["template"]["spec"]


def set_env(spec: Any, name: str, value: str) -> None:
    head(spec)["template"]["spec"]["containers"][0]["env"].append({"name": name, "value": value})


@pytest.mark.parametrize("case", BROKEN)
def test_the_checks_see_what_a_cluster_refuses(make: Make, case: str) -> None:
    documents = make()
    wanted, change = BROKEN[case]
    change(documents[1], documents[1]["spec"])
    assert wanted in "\n".join(problems(documents))


def test_the_command_survives_the_shell(make: Make, tmp_path: Path) -> None:
    source, override = 's3://b/it\'s $(date) `x` "q" *?;&|\\n\n', "steps.opinion.labels.yes=don't $HOME"
    documents = make(input=source, overrides=[override], run=["--recompute", "changed", "--limit", "5"])
    assert documents[1]["spec"]["entrypoint"] == "sh /etc/headrace/run.sh"
    (tmp_path / "bin").mkdir()
    stand_in = tmp_path / "bin" / "headrace"
    stand_in.write_text(f"#!{sys.executable}\nimport json, sys\nprint(json.dumps(sys.argv[1:]))\n")
    stand_in.chmod(0o755)
    (tmp_path / "run.sh").write_text(documents[0]["data"]["run.sh"])
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    done = subprocess.run(
        ["sh", str(tmp_path / "run.sh")], env={"PATH": path}, capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == [
        *("run", "/etc/headrace/pipeline/jobs/pipeline.yaml", "--input", source, "--output", OPTIONS.output),
        *("--set", override, "--set", "resources.gpus=2", "--recompute", "changed", "--limit", "5"),
        *("--address", "auto"),
    ]


def test_the_pods_have_the_files_that_the_pipeline_needs(make: Make, folder: Path, tmp_path: Path) -> None:
    documents = make()
    mounts = {
        name: {
            mount["mountPath"]: mount["subPath"]
            for mount in container(documents, name)["volumeMounts"]
            if "subPath" in mount
        }
        for name in ("head", "gpu-2")
    }
    assert mounts["head"] == mounts["gpu-2"], "workers import what the driver imports, by the same path"
    for path, key in mounts["head"].items():
        file = tmp_path / "pod" / path.removeprefix(f"{MOUNT}/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(documents[0]["data"][key])
    there = load_pipeline(tmp_path / "pod/pipeline/jobs/pipeline.yaml")
    assert there == load_pipeline(folder / "jobs/pipeline.yaml")
    code = "import steps.texts; print(steps.texts.length('abc'))"
    where = tmp_path / "pod/pipeline/jobs"
    assert (
        subprocess.run([sys.executable, "-c", code], cwd=where, capture_output=True, text=True, check=True).stdout
        == "3\n"
    )
    assert "not_imported.py" not in documents[0]["data"]


def test_a_pipeline_in_python_takes_its_neighbours_along(make: Make, folder: Path) -> None:
    (folder / "jobs/job.py").write_text(
        "from headrace import Pipeline, Summarize\nimport words\n"
        "first = Pipeline(name='first', model='fake', document='{{ text }}', steps=[Summarize(name='short')])\n"
        "second = first.model_copy(update={'name': 'second'})\n"
    )
    documents = make("job.py:second")
    assert set(documents[0]["data"]) == {"run.sh", "job.py", "words.py"}
    assert "headrace run /etc/headrace/pipeline/job.py:second " in documents[0]["data"]["run.sh"]
    assert documents[1]["metadata"]["name"] == "second"


def test_another_pipeline_is_another_config_map(make: Make, folder: Path) -> None:
    first = make()
    assert make()[0] == first[0]
    (folder / "jobs/words.py").write_text("def count(row):\n    return 7\n")
    second = make()
    assert first[0]["metadata"]["name"] != second[0]["metadata"]["name"]
    assert first[1]["metadata"]["name"] == second[1]["metadata"]["name"]


def test_gpus_follow_the_pipeline(make: Make) -> None:
    documents = make()
    [group] = documents[1]["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    assert (group["minReplicas"], group["maxReplicas"]) == (0, 4)
    assert container(documents, "gpu-2")["resources"]["limits"]["nvidia.com/gpu"] == "2"
    assert "nvidia.com/gpu" not in container(documents, "head")["resources"]["limits"]
    # The cluster has no GPU when the run starts; without a number the engines would be CPU engines.
    assert "--set resources.gpus=2" in documents[0]["data"]["run.sh"]


def test_options_go_before_the_pipeline_and_reach_the_run(make: Make, folder: Path) -> None:
    documents = make(gpus_per_worker=1, workers="2:6", gpus_per_pod=4)
    [group] = documents[1]["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    assert (group["groupName"], group["maxReplicas"]) == ("gpu-4", 2)
    script = documents[0]["data"]["run.sh"]
    sets = ["resources.tensor_parallel=1", "resources.gpus=1", "resources.workers=[2, 6]"]
    assert all(text in script for text in sets)
    run = load_pipeline(folder / "jobs/pipeline.yaml", sets).resources
    assert (run.gpus, run.tensor_parallel, run.worker_range) == (1, 1, (2, 6))


def test_models_of_different_sizes_have_pods_of_their_own(make: Make, folder: Path) -> None:
    documents = make("two.yaml")
    groups = documents[1]["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    assert {group["groupName"]: group["maxReplicas"] for group in groups} == {"gpu-1": 3, "gpu-4": 2}
    script = documents[0]["data"]["run.sh"]
    sets = ["resources.gpus=1", "models.large.resources.gpus=4"]
    assert all(f"--set {text}" in script for text in sets)
    run = load_pipeline(folder / "jobs/two.yaml", sets)
    assert (run.resources_of("").gpus, run.resources_of("large").gpus) == (1, 4)
    [group] = make("two.yaml", gpus_per_pod=8)[1]["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    assert (group["groupName"], group["maxReplicas"]) == ("gpu-8", 2)


def test_rays_autoscaler_starts_the_group_that_is_asked_for(make: Make) -> None:
    from ray.autoscaler.v2.instance_manager.config import NodeTypeConfig
    from ray.autoscaler.v2.scheduler import ResourceDemandScheduler, SchedulingRequest
    from ray.autoscaler.v2.utils import ResourceRequestUtil

    documents = make("two.yaml")
    types = {"head": NodeTypeConfig("head", 0, 0, resources={"CPU": 0})}
    for group in documents[1]["spec"]["rayClusterSpec"]["workerGroupSpecs"]:
        name, limits = group["groupName"], container(documents, group["groupName"])["resources"]["limits"]
        has = {"CPU": float(limits["cpu"]), "GPU": float(limits["nvidia.com/gpu"])}
        types[name] = NodeTypeConfig(name, group["minReplicas"], group["maxReplicas"], resources=has)
    # First come small tasks of Ray Data, which nothing but a worker can do; then the engines of each model.
    for asked, wanted in (
        ([{"CPU": 1}] * 4, {"gpu-1": 1}),
        ([{"CPU": 1, "GPU": 1}] * 2, {"gpu-1": 2}),
        ([{"CPU": 1, "GPU": 4}] * 2, {"gpu-4": 2}),
    ):
        requests = ResourceRequestUtil.group_by_count([ResourceRequestUtil.make(each) for each in asked])
        said = ResourceDemandScheduler().schedule(
            SchedulingRequest(True, node_type_configs=types, max_num_nodes=10, resource_requests=requests)
        )
        assert {each.instance_type: each.count for each in said.to_launch} == wanted
        assert not said.infeasible_resource_requests


def test_spot_nodes_are_for_workers_alone(make: Make) -> None:
    for spot in (True, False):
        pods = {name: template["spec"] for name, template in templates(make(spot=spot)[1])}
        for name, spec in pods.items():
            affinity = spec["affinity"]["nodeAffinity"]
            tolerated = [t["key"] for t in spec.get("tolerations", []) if "spot" in t["key"]]
            if spot and name == "gpu-2":
                assert tolerated
                assert "requiredDuringSchedulingIgnoredDuringExecution" not in affinity
            else:
                assert not tolerated
                [term] = affinity["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
                assert {each["operator"] for each in term["matchExpressions"]} == {"NotIn"}


def test_pods_keep_the_restricted_security_standard(make: Make) -> None:
    documents = make(model_cache="pvc:models", service_account="headrace")
    pods = dict(templates(documents[1]))
    assert set(pods) == {"submitter", "head", "gpu-2"}
    for template in pods.values():
        assert template["spec"]["securityContext"]["runAsNonRoot"] is True
        assert template["spec"]["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for each in template["spec"]["containers"]:
            assert each["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
            assert each["resources"]["limits"].keys() >= {"cpu", "memory"}
        assert not any("hostPath" in volume for volume in template["spec"]["volumes"])
    assert documents[1]["spec"]["rayClusterSpec"]["autoscalerOptions"]["securityContext"]["capabilities"]
    assert "serviceAccountName" not in pods["submitter"]["spec"]


def test_no_engine_lands_on_the_head(make: Make) -> None:
    assert head(make()[1]["spec"])["rayStartParams"]["num-cpus"] == "0"


def test_secrets_are_names(make: Make) -> None:
    documents = make(secrets=("s3-keys", "hub"))
    wanted = [{"secretRef": {"name": "s3-keys"}}, {"secretRef": {"name": "hub"}}]
    assert [container(documents, name).get("envFrom") for name in ("head", "gpu-2", "submitter")] == [
        wanted,
        wanted,
        None,
    ]


TOKEN = "hf_" + "aB3" * 10
KEY_ID = "AKIA" + "Q7ZX" * 4


@pytest.mark.parametrize(
    "changes",
    [
        {"env": ["AWS_SECRET_ACCESS_KEY=abc"]},
        {"env": ["HF_TOKEN=abc"]},
        {"env": ["DB_PASSWORD="]},
        {"env": [f"NOTE={TOKEN}"]},
        {"env": ["PROXY=http://user:hunter2@proxy:3128"]},
        {"secrets": [TOKEN]},
        {"secrets": ["sk-" + "a1b2" * 8]},
        {"input": f"s3://{KEY_ID}:abc@corpus/x"},
        {"input": f"s3://corpus/{KEY_ID}"},
        {"overrides": [f"steps.opinion.labels.yes={TOKEN}"]},
        {"overrides": ["model.hf_token=abc"]},
        {"run": ["--reuse", f"s3://corpus/{KEY_ID}"]},
    ],
    ids=str,
)
def test_a_secret_is_refused_and_not_repeated(make: Make, changes: dict[str, Any]) -> None:
    with pytest.raises(UserError) as refused:
        make(**changes)
    assert not any(text in str(refused.value) for text in (TOKEN, KEY_ID, "hunter2", "sk-a1b2"))


def test_a_secret_in_a_file_is_refused_with_its_line(make: Make, folder: Path) -> None:
    (folder / "jobs/words.py").write_text(f"def count(row):\n    return '{TOKEN}'\n")
    with pytest.raises(UserError, match=r"jobs/words\.py:2 seems to contain a Hugging Face token"):
        make()
    make(pipeline_in_image="/app/pipeline.yaml")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"input": "/data/tickets"}, "cannot see the disks of this machine"),
        ({"output": "answers"}, "cannot see the disks of this machine"),
        ({"output": "hf://datasets/me/x"}, "outputs cannot be in hf://"),
        ({"name": "a" * 48}, "47"),
        ({"name": "1a"}, "begin with a letter"),
        ({"workers": "8:1"}, "MIN:MAX"),
        ({"workers": "0:1"}, "MIN:MAX"),
        ({"workers": "many"}, "MIN:MAX"),
        ({"pipeline": "two.yaml", "workers": "1:2"}, "one model"),
        ({"pipeline": "two.yaml", "gpus_per_worker": 1}, "one model"),
        ({"gpus_per_pod": 1}, "must be in one pod"),
        ({"gpus_per_worker": 0}, "splits its model"),
        ({"gpus_per_worker": 1, "gpus_per_pod": 8, "worker_cpu": "4"}, "8 whole cores"),
        ({"worker_memory": "lots"}, "16Gi"),
        ({"head_cpu": "-1"}, "16Gi"),
        ({"toleration": 1, "tolerations": ["a=b:Never"]}, "EFFECT"),
        ({"node_selectors": ["gpu"]}, "KEY=VALUE"),
        ({"labels": ["a=b c"]}, "KEY=VALUE"),
        ({"model_cache": "pvc:"}, "pvc:NAME"),
        ({"model_cache": "emptyDir:big"}, "emptyDir:SIZE"),
        ({"model_cache": "hostPath:models"}, "hostPath:/PATH"),
        ({"model_cache": "nfs:x"}, "pvc:NAME"),
        ({"deadline": "soon"}, "--deadline"),
        ({"ttl": "-1h"}, "--ttl"),
        ({"retries": -1}, "--retries"),
        ({"image": "head race"}, "is not a valid name of an image"),
        ({"pipeline_in_image": "pipeline.yaml"}, "absolute path"),
        ({"model": "./models/x"}, "folder of this machine"),
        ({"service_account": "Me"}, "--service-account"),
        ({"env": ["NAME"]}, "NAME=VALUE"),
    ],
    ids=str,
)
def test_what_is_wrong_is_said(make: Make, changes: dict[str, Any], message: str) -> None:
    changes.pop("toleration", None)
    with pytest.raises(UserError) as refused:
        make(**changes)
    assert message in str(refused.value)


def test_files_that_fit_no_config_map_are_refused(make: Make, folder: Path) -> None:
    (folder / "jobs/words.py").write_text(f"TABLE = '{'x' * (1 << 20)}'\n\ndef count(row):\n    return 1\n")
    with pytest.raises(UserError, match="--pipeline-in-image"):
        make()
    (folder / "jobs/words.py").write_text(f"TABLE = '{'x' * (300 << 10)}'\n\ndef count(row):\n    return 1\n")
    assert "--server-side" in warnings(folder)


def test_a_schema_by_an_absolute_path_is_refused(make: Make, folder: Path) -> None:
    pipeline = folder / "jobs/pipeline.yaml"
    pipeline.write_text(PIPELINE.replace("../schemas", str(folder / "schemas")))
    with pytest.raises(UserError, match="absolute path"):
        make()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image": "headrace"}, "no fixed tag"),
        ({"image": "registry.example.com:5000/headrace"}, "no fixed tag"),
        ({"image": "registry.example.com/headrace:latest"}, "no fixed tag"),
        ({"image": "headrace:1"}, "no registry"),
        ({"model_cache": "hostPath:/x"}, "Pod Security"),
        ({"model_cache": "pvc:x"}, "ReadWriteMany"),
        ({}, "each pod downloads the model"),
        ({"secrets": ()}, "No --secret"),
        ({"service_account": "x"}, "x must exist: KubeRay does not create it"),
        ({"pipeline": "two.yaml"}, "has no revision"),
        ({"gpus_per_pod": 3}, "unused"),
    ],
    ids=str,
)
def test_what_a_platform_team_should_look_at_is_said(folder: Path, changes: dict[str, Any], message: str) -> None:
    assert message in warnings(folder, **changes)


def test_a_job_in_good_order_has_no_warnings(folder: Path) -> None:
    found = warnings(folder, image=f"registry.example.com:5000/x@sha256:{'0' * 64}", model_cache="pvc:models")
    assert found.count("\n") == 0
    assert "ReadWriteMany" in found


@pytest.mark.slow
def test_the_command_prints_a_manifest_and_warns_beside_it(folder: Path) -> None:
    pipeline = str(folder / "jobs/pipeline.yaml")
    command = [*HEADRACE, "manifest", pipeline, "--input", OPTIONS.input, "--output", OPTIONS.output]
    done = subprocess.run(
        [*command, "--secret", "s3-keys", "--", "--prune"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    documents = list(yaml.safe_load_all(done.stdout))
    assert problems(documents) == []
    assert "--prune" in documents[0]["data"]["run.sh"]
    assert "Warning: The image headrace:" in done.stderr
    refused = subprocess.run([*command, "--", "--prun"], capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    assert "--prun" in refused.stderr
    assert not refused.stdout
