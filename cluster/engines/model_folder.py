"""A model's folder: which files it must contain, and whether they are complete."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from headrace.pipelines.spec.errors import UserError

TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model", "tekken.json")
BESIDE_TOKENIZERS = (
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
)
CONFIGS = ("config.json", "generation_config.json")
# In the order in which vLLM prefers them: of a folder that holds two formats it loads the first.
_WEIGHTS = ("*.safetensors", "*.bin", "*.pt")


def weight_files(folder: Path) -> list[Path]:
    """The files with the weights."""
    for pattern in _WEIGHTS:
        # training_args.bin and the like lie beside the weights of a fine-tuned model.
        others = ("training_", "optimizer", "scheduler")
        if found := sorted(file for file in folder.glob(pattern) if not file.name.startswith(others)):
            return found
    return []


def configuration(file: Path) -> bytes:
    """A configuration's content without the version of the library that wrote it, which does not affect answers."""
    content = json.loads(file.read_bytes())
    content.pop("transformers_version", None)
    return json.dumps(content, sort_keys=True).encode()


def check_folder(folder: Path, model: str) -> None:
    """Raise a UserError unless the folder has a configuration, a tokenizer and complete weights."""
    missing = []
    if not (folder / "config.json").is_file():
        missing.append("config.json")
    if not any((folder / name).is_file() for name in TOKENIZERS):
        missing.append(f"a tokenizer (one of {', '.join(TOKENIZERS)})")
    if not weight_files(folder):
        missing.append("weights (*.safetensors or *.bin)")
    if missing:
        hint = ""
        if (folder / "adapter_config.json").is_file():
            hint = ". It contains a LoRA adapter: merge it into its base model first"
        raise UserError(f"model {model!r}: the folder {folder} lacks {', '.join(missing)}{hint}")
    for name in CONFIGS:
        if (folder / name).is_file():
            _check_json_object(folder / name, model)
    for index in folder.glob("*.index.json"):
        listed = _check_json_object(index, model).get("weight_map", {})
        absent = sorted({name for name in listed.values() if not (folder / name).is_file()})
        # An index of the format that is not loaded may speak of files that were left out on purpose.
        if absent and Path(absent[0]).suffix == weight_files(folder)[0].suffix:
            raise UserError(f"model {model!r}: {index} lists missing files: {', '.join(absent)}. Copy the folder again")
    for file in weight_files(folder):
        if file.suffix == ".safetensors":
            _check_whole(file, model)


def _check_json_object(file: Path, model: str) -> dict[str, Any]:
    try:
        content = json.loads(file.read_bytes())
    except ValueError as error:
        raise UserError(f"model {model!r}: {file} is not valid JSON: {error}") from None
    if not isinstance(content, dict):
        raise UserError(f"model {model!r}: {file} does not contain a JSON object")
    return content


def _check_whole(file: Path, model: str) -> None:
    """Check a safetensors file's size against its header (8 bytes of length, then JSON with offsets)."""
    size = file.stat().st_size
    try:
        with file.open("rb") as weights:
            length = int.from_bytes(weights.read(8), "little")
            header = json.loads(weights.read(length if length <= size else 0))
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        expected = 8 + length + max(ends, default=0)
    except (ValueError, KeyError, TypeError, AttributeError):
        hint = "perhaps it is a Git LFS pointer, or an incomplete copy"
        raise UserError(f"model {model!r}: {file} ({size} bytes) is not a safetensors file: {hint}") from None
    if size != expected:
        raise UserError(f"model {model!r}: {file} has {size} bytes, but its header requires {expected}: copy it again")


def model_memory(path: Path) -> int:
    """Bytes of the weights in a model's folder: the memory that an engine needs besides the KV cache."""
    return sum(file.stat().st_size for file in weight_files(path))
