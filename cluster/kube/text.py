"""``headrace manifest``: a manifest as readable YAML."""

from __future__ import annotations

import sys
from typing import Any

import yaml

from headrace.cluster.kube.bundle import bundle
from headrace.cluster.kube.manifest import Manifest, manifest
from headrace.cluster.kube.options import KubeOptions
from headrace.pipelines.spec.loading import load_pipeline
from headrace.pipelines.spec.version import VERSION


def print_manifest(path: str, options: KubeOptions) -> None:
    """Print the manifest of a pipeline file, and on standard error the warnings to read before applying it.

    Raises:
        UserError: as :func:`headrace.cluster.kube.manifest.manifest`, or the pipeline has a mistake.
    """
    pipeline = load_pipeline(path, options.overrides, options.model)
    made = manifest(pipeline, None if options.pipeline_in_image else bundle(pipeline), options)
    print(as_yaml(made), end="")
    for warning in made.warnings:
        print(f"Warning: {warning}", file=sys.stderr)


class _Dumper(yaml.SafeDumper):
    """Writes texts of several lines as blocks, and no anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


def as_yaml(manifest: Manifest) -> str:
    """The documents of a manifest as YAML, in the order to apply them."""
    documents = [manifest.config_map, manifest.ray_job]
    text = yaml.dump_all(documents, Dumper=_Dumper, sort_keys=False, width=1000, allow_unicode=True)
    return f"# Made by headrace {VERSION} for KubeRay 1.7: kubectl apply -f THIS_FILE\n{text}"
