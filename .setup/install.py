"""Create the environment, and install headrace with what the demo and the tests need. Usage: install.py VENV

Runs on the bare interpreter that ``setup.sh`` found, so it uses the standard library only. uv does the installation,
because it supports overrides, which keep unwanted dependencies out; pip does not. But machines and companies' mirrors
are configured for pip, so uv gets pip's configuration.
"""

import ast
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

SETUP = Path(__file__).resolve().parent
ROOT = SETUP.parent
REQUIREMENT = ".[cpu,default-model,dev,docs]"
FIRST_IMPORTS = "import ray.data, transformers, llguidance, vllm.v1.engine.async_llm, vllm.v1.worker.cpu_worker"
TAIL_LINES = 25


class SetupFailed(Exception):
    """A phase failed; the message is for the user."""


def main(venv: Path) -> None:
    started = time.monotonic()
    python = venv / "bin" / "python"
    if not usable(python):
        say(f"setup: creating {venv.name} with Python {sys.version.split()[0]}")
        shutil.rmtree(venv, ignore_errors=True)
        run(None, [sys.executable, "-m", "venv", str(venv)])
    log = venv / "setup.log"
    log.write_text("")

    constraints = ["--constraint", str(SETUP / "constraints.txt")]
    say(f"setup: installing uv (log: {shown(log)})")
    run(log, [str(python), "-m", "pip", "install", *constraints, "uv"])

    flags, environment = as_uv_options(pip_configuration(python))
    install = [str(venv / "bin" / "uv"), "pip", "install", "--python", str(python), *constraints]
    install += ["--override", str(SETUP / "overrides.txt"), "--editable", REQUIREMENT]
    say("setup: installing packages (about 4 GB; takes some minutes the first time)")
    try:
        run(log, [*install, *flags], environment)
    except SetupFailed as first:
        # PyPI has no CPU build of torch. uv knows where PyTorch keeps it.
        say("setup: pip's sources lack some packages; trying PyTorch's own index for torch")
        try:
            run(log, [*install, *flags, "--torch-backend", "cpu"], environment)
        except SetupFailed as second:
            raise SetupFailed(
                f"{second}\n\nThe first attempt, with pip's own sources only:\n{first}\n\n"
                "The CPU build of torch is needed, from a folder or index in pip's configuration (find-links, "
                "extra-index-url) or from PyTorch's index. See both errors above."
            ) from None
    say("setup: importing the packages once, so that the first run is faster")
    run(log, [str(python), "-c", FIRST_IMPORTS])
    say(f"setup: done in {time.monotonic() - started:.0f} s")


def usable(python: Path) -> bool:
    """Whether an environment exists whose Python still runs and is new enough."""
    test = "import sys, pip; sys.exit(sys.version_info < (3, 11))"
    try:
        return subprocess.run([str(python), "-c", test], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def pip_configuration(python: Path) -> dict[str, str]:
    """pip's configuration, from its files and the environment: option to value, by pip's precedence."""
    listing = subprocess.run(
        [str(python), "-m", "pip", "config", "list"], capture_output=True, text=True, check=False
    ).stdout
    ranks = ("global", "install", ":env:")
    found: dict[str, tuple[int, str]] = {}
    for line in listing.splitlines():
        name, _, value = line.partition("=")
        section, _, option = name.rpartition(".")
        if section in ranks:
            rank = ranks.index(section)
            if rank >= found.get(option, (-1, ""))[0]:
                found[option] = (rank, str(ast.literal_eval(value)))
    return {option: value for option, (_, value) in found.items()}


def as_uv_options(pip: dict[str, str]) -> tuple[list[str], dict[str, str]]:
    """pip's configuration as flags and environment variables of uv."""
    # pip treats all sources alike; uv by default stops at the first that knows a package's name.
    flags = ["--index-strategy", "unsafe-best-match"]
    for source in pip.get("find-links", "").split():
        flags += ["--find-links", source]
    for index in pip.get("extra-index-url", "").split():
        flags += ["--index", index]
    if "index-url" in pip:
        flags += ["--default-index", pip["index-url"]]
    if pip.get("no-index", "").lower() in {"1", "true", "yes", "on"}:
        flags += ["--no-index"]
    for host in pip.get("trusted-host", "").split():
        flags += ["--allow-insecure-host", host]

    timeout = pip.get("default-timeout", pip.get("timeout", "180"))
    environment = {"UV_NO_PROGRESS": "1", "UV_HTTP_TIMEOUT": timeout}
    if "cert" in pip:
        environment["SSL_CERT_FILE"] = pip["cert"]
    if "proxy" in pip:
        environment["ALL_PROXY"] = pip["proxy"]
    # Variables that the user has set override pip's configuration.
    return flags, {name: value for name, value in environment.items() if name not in os.environ}


def run(log: Path | None, command: list[str], environment: dict[str, str] | None = None) -> None:
    """Run quietly. The output goes to the log; if the command fails, its end goes into the error."""
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, **(environment or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    if log is not None:
        with log.open("a") as file:
            file.write(f"$ {' '.join(command)}\n{done.stdout}\n")
    if done.returncode != 0:
        tail = "\n".join(done.stdout.splitlines()[-TAIL_LINES:])
        where = f"\nFull log: {shown(log)}" if log else ""
        raise SetupFailed(f"{' '.join(command[:4])} ... failed with exit code {done.returncode}:\n{tail}{where}")


def shown(path: Path) -> str:
    return os.path.relpath(path)


def say(message: str) -> None:
    print(message, flush=True)


if __name__ == "__main__":
    try:
        main((ROOT / sys.argv[1]).absolute())
    except SetupFailed as failure:
        sys.exit(f"setup failed: {failure}")
    except KeyboardInterrupt:
        sys.exit(130)
