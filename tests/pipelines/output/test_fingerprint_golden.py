"""Fingerprints and the keys of observations are what they were, from the file's text to the hash.

A fingerprint that changes between versions makes every finished output stale. If this fails and what is hashed was
meant to change, raise ``FINGERPRINT_VERSION``, and tell the changelog.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from headrace.cluster.driver.run import check
from headrace.operators.questions import Layout
from headrace.pipelines.spec.loading import load_pipeline

Write = Callable[..., Path]

STEPS: list[dict[str, Any]] = [
    {"classify": {"name": "opinion", "labels": {"good": "happy", "bad": "unhappy"}}},
    {"filter": {"name": "bad_ones", "where": "opinion = 'bad'"}},
    {"extract": {"name": "facts", "schema": {"type": "object", "properties": {"a": {"type": "string"}}}}},
    {"generate": {"name": "reply", "prompt": "About {{ facts.a }}", "model": "big"}},
]
MODELS: dict[str, Any] = {
    "fake": {"model": "fake"},
    "fake, its arguments beside the id": {"model": {"id": "fake", "max_model_len": 4096, "kv_tokens": 9000}},
    "fake, its arguments as a mapping": {"model": {"id": "fake", "engine": {"max_model_len": 4096, "kv_tokens": 9000}}},
    "fake, arguments that decide no answer": {"model": {"id": "fake", "max_num_seqs": 3, "block_size": 64}},
    "a folder": {"model": "weights"},
    "a folder with arguments": {
        "model": {"id": "weights", "engine": {"dtype": "half"}, "max_model_len": 2048, "gpu_memory_utilization": 0.5}
    },
    "made-up weights": {"model": {"id": "weights", "load_format": "dummy", "trust_remote_code": True}},
}
BIG: dict[str, Any] = {"id": "fake", "seed": 7, "enforce_eager": True}
FIXED: dict[str, Mapping[str, Layout]] = {"": {}, "hoisted": {"opinion": "hoisted", "facts": "document_first"}}

WANTED: dict[str, list[str]] = {
    "fake": [
        "6f9f42a916da72a6",
        "dada48728232b4de 65125f5fe910e938 8a2b6bc4b26c746a 92270f357ecd9db1",
        "b4cf221eaa8720b3 fc64aa21bfee391b b7042304e5daf5eb 6a836c3f7189b14b",
    ],
    "fake, its arguments beside the id": [
        "fd183e7399cabe49",
        "7be81a181b8df10e e68d7538c73b44fd da754d2a96d540ee 1a72ca1c4a009abd",
        "cb10b6e9ce885db0 19099e285aa12327 12892ad59b43c088 943c2d160906a8d8",
    ],
    "fake, its arguments as a mapping": [
        "fd183e7399cabe49",
        "7be81a181b8df10e e68d7538c73b44fd da754d2a96d540ee 1a72ca1c4a009abd",
        "cb10b6e9ce885db0 19099e285aa12327 12892ad59b43c088 943c2d160906a8d8",
    ],
    "fake, arguments that decide no answer": [
        "6f9f42a916da72a6",
        "dada48728232b4de 65125f5fe910e938 8a2b6bc4b26c746a 92270f357ecd9db1",
        "b4cf221eaa8720b3 fc64aa21bfee391b b7042304e5daf5eb 6a836c3f7189b14b",
    ],
    "a folder": [
        "d01346697511f810",
        "e5231658f1f42b9c 1274cf287612af96 8e62fea56cfa6218 76a201a0f0bcfb7c",
        "c975bd5ccf6b1d75 5c9873d2c256c4ab 315c5f1cb794bb98 b44d56eab97850fd",
    ],
    "a folder with arguments": [
        "4209584fb874bf27",
        "edcdbbf84cd0267c f678a770c33a2104 2f85fe5517afa330 01195bd43251db1d",
        "6b4fa0840d856df2 cc5c315f0ee24538 b7a3832385d2e98e d95491127be8dc7c",
    ],
    "made-up weights": [
        "bc213e60f2e362ec",
        "00b142b725a298a1 2e3d32135e0cbc91 891e3f97e8320b3b 7526e081a3fad8d0",
        "988028c0e1ad4328 55dbbb67dabc2383 fb01a76c281c919a 0bd5a313587d8e8c",
    ],
}


def found(folder: Path, source: Path, model: Mapping[str, Any]) -> list[str]:
    """A hash of the key of observations, and with each of :data:`FIXED` the fingerprints."""
    file = folder / "pipeline.yaml"
    data = {"name": "p", "document": "{{ text }}", "steps": STEPS, "models": {"big": BIG}, **model}
    file.write_text(yaml.safe_dump(data, sort_keys=False))
    checked = check(load_pipeline(file), str(source))
    prints = [" ".join(checked.fingerprints(layouts, {}).values()) for layouts in FIXED.values()]
    return [hashlib.sha256(checked.observation_key.encode()).hexdigest()[:16], *prints]


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A model's folder, the same bytes each time."""
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / "config.json").write_text('{"architectures": ["LlamaForCausalLM"], "max_position_embeddings": 2048}')
    (folder / "tokenizer.json").write_text('{"version": "1.0"}')
    header = json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"\0\0\0\1")
    return folder


@pytest.mark.parametrize("name", MODELS)
def test_they_are_what_they_were(
    name: str, tmp_path: Path, corpus: Write, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(weights.parent)
    assert found(tmp_path, corpus(["a text"]), MODELS[name]) == WANTED[name]
