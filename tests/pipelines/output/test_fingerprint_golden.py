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
        "ca3885272c376df2",
        "dada48728232b4de 65125f5fe910e938 94da1ac47813321f 891b3bc2084831e1",
        "b4cf221eaa8720b3 fc64aa21bfee391b 6a35496d19199249 0c78e5215aaaf657",
    ],
    "fake, its arguments beside the id": [
        "bf5cc2efc3aea392",
        "7be81a181b8df10e e68d7538c73b44fd 8d83f0238e877557 993956fb01efa07c",
        "cb10b6e9ce885db0 19099e285aa12327 1ff0a0001d0add46 1d5be50c361ed0b0",
    ],
    "fake, its arguments as a mapping": [
        "bf5cc2efc3aea392",
        "7be81a181b8df10e e68d7538c73b44fd 8d83f0238e877557 993956fb01efa07c",
        "cb10b6e9ce885db0 19099e285aa12327 1ff0a0001d0add46 1d5be50c361ed0b0",
    ],
    "fake, arguments that decide no answer": [
        "ca3885272c376df2",
        "dada48728232b4de 65125f5fe910e938 94da1ac47813321f 891b3bc2084831e1",
        "b4cf221eaa8720b3 fc64aa21bfee391b 6a35496d19199249 0c78e5215aaaf657",
    ],
    "a folder": [
        "ceeb7191afae0044",
        "e5231658f1f42b9c 1274cf287612af96 f16f5e63ab49a9e5 e64e84a5030c9286",
        "c975bd5ccf6b1d75 5c9873d2c256c4ab 4681a22ad76dd568 5037495eb018d60c",
    ],
    "a folder with arguments": [
        "09bdf85228ede6fa",
        "edcdbbf84cd0267c f678a770c33a2104 ce5271380e507f72 5b91b10ec9ef4ada",
        "6b4fa0840d856df2 cc5c315f0ee24538 d2f49a99dd8848b6 557abe1151538a07",
    ],
    "made-up weights": [
        "0670c2ffd536bb2e",
        "00b142b725a298a1 2e3d32135e0cbc91 c1ca00c0e0a6a91d ba18cf582bfc1cfd",
        "988028c0e1ad4328 55dbbb67dabc2383 93bfd2614643a610 12f7c7ae82c0c47f",
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
