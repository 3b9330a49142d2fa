"""A real Airflow 3 in an environment of its own: made once, kept under ``build/``, its parts started as processes."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from tests.support.s3_server import _free_port as free_port

ROOT = Path(__file__).resolve().parents[2]
CONSTRAINTS = ROOT / ".setup" / "airflow-constraints.txt"
PARTS = ("api-server", "scheduler", "dag-processor", "triggerer")


def _setup() -> ModuleType:
    """``.setup/install.py``, which knows how uv is told what pip is configured with."""
    spec = importlib.util.spec_from_file_location("headrace_setup", ROOT / ".setup" / "install.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def environment() -> Path:
    """The folder of an environment with Airflow and this headrace, installed as ``docs/airflow.md`` says."""
    setup = _setup()
    named = hashlib.sha256(CONSTRAINTS.read_bytes() + sys.version.encode()).hexdigest()[:12]
    venv = ROOT / "build" / f"airflow-{named}"
    uv = [str(Path(sys.executable).with_name("uv")), "pip", "install", "--python", str(venv / "bin" / "python")]
    flags, settings = setup.as_uv_options(setup.pip_configuration(Path(sys.executable)))
    log = venv.with_suffix(".log")
    log.parent.mkdir(exist_ok=True)
    if not (venv / "done").exists():
        setup.run(log, [uv[0], "venv", "--clear", "--python", sys.executable, str(venv)])
        wanted = ["apache-airflow==3.*", "httpx", "tenacity", "pyyaml"]
        setup.run(log, [*uv, *flags, "--constraint", str(CONSTRAINTS), "--compile-bytecode", *wanted], settings)
        (venv / "done").touch()
    setup.run(log, [*uv, *flags, "--no-deps", "--reinstall", "--refresh-package", "headrace", str(ROOT)], settings)
    return venv


@dataclass
class Airflow:
    """One Airflow with a folder of DAGs; nothing of it runs until :meth:`start`."""

    venv: Path
    home: Path
    variables: Mapping[str, str]
    port: int = field(default_factory=free_port)
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def dags(self) -> Path:
        return self.home / "dags"

    @property
    def env(self) -> dict[str, str]:
        """A whole environment, without what the tests' own Python and Ray go by."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "RAY_", "AIRFLOW"))}
        url = f"http://127.0.0.1:{self.port}"
        return {
            **kept,
            "PATH": f"{self.venv / 'bin'}:{kept['PATH']}",
            "AIRFLOW_HOME": str(self.home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(self.dags),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__PARALLELISM": "3",
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{url}/execution/",
            "AIRFLOW__CORE__FERNET_KEY": "aGVhZHJhY2UtdGVzdHMtb25seS0zMi1ieXRlcy1vayE=",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{self.home / 'airflow.db'}?timeout=60",
            "AIRFLOW__API__BASE_URL": url,
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": str(self.port),
            "AIRFLOW__API__WORKERS": "1",
            "AIRFLOW__API__SECRET_KEY": "headrace-tests",
            "AIRFLOW__API_AUTH__JWT_SECRET": "headrace-tests-only-a-secret-of-sixty-four-characters-or-so-long",
            "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "5",
            "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "1",
            "AIRFLOW__LOGGING__LOGGING_LEVEL": "INFO",
            **self.variables,
        }

    def run(self, *words: str, timeout: float = 300, check: bool = True) -> str:
        """An ``airflow`` command; what it printed."""
        command = [str(self.venv / "bin" / "airflow"), *words]
        done = subprocess.run(
            command, env=self.env, cwd=self.home, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            timeout=timeout, check=False,
        )  # fmt: skip
        assert done.returncode == 0 or not check, f"{' '.join(words)}\n{done.stdout[-6000:]}"
        return done.stdout

    def python(self, code: str) -> str:
        """What a piece of Python prints in Airflow's environment."""
        command = [str(self.venv / "bin" / "python"), "-c", code]
        done = subprocess.run(command, env=self.env, cwd=self.home, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-6000:]
        return done.stdout.strip()

    def start(self, *parts: str) -> None:
        """Start these parts, or all."""
        for part in parts or PARTS:
            flags = ["--skip-serve-logs"] if part in ("scheduler", "triggerer") else []
            with open(self.home / f"{part}.log", "ab") as log:
                self.processes[part] = subprocess.Popen(
                    [str(self.venv / "bin" / "airflow"), part, *flags],
                    env=self.env,
                    cwd=self.home,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )

    def kill(self, *parts: str) -> None:
        """End these parts at once, with all their processes."""
        for part in parts or tuple(self.processes):
            process = self.processes.pop(part)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """The REST API."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json", "Authorization": f"Bearer {self._token()}"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read() or b"null")

    def _token(self) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/auth/token", timeout=30) as answer:
            return str(json.loads(answer.read())["access_token"])

    def wait(self, what: str, happens: Callable[[], Any], seconds: float = 120) -> Any:
        """Wait until ``happens()`` is true, and return it."""
        deadline = time.monotonic() + seconds
        while True:
            with contextlib.suppress(urllib.error.URLError, ConnectionError, TimeoutError):
                if result := happens():
                    return result
            assert time.monotonic() < deadline, f"{what}: not in {seconds} s\n{self.tails()}"
            for part, process in self.processes.items():
                assert process.poll() is None, f"{part} has ended\n{self.tails()}"
            time.sleep(0.5)

    def tails(self) -> str:
        """The ends of the logs of all parts."""
        logs = sorted(self.home.glob("*.log"))
        return "\n".join(f"--- {log.name}\n{log.read_text(errors='replace')[-2500:]}" for log in logs)

    def runs(self, dag: str) -> list[dict[str, Any]]:
        """The DAG's runs, by the beginning of their interval."""
        found = self.call("GET", f"/api/v2/dags/{dag}/dagRuns?limit=100")["dag_runs"]
        return sorted(found, key=lambda run: run["data_interval_start"] or "")

    def task(self, dag: str, run: str, task: str) -> dict[str, Any]:
        """A task instance."""
        return dict(self.call("GET", f"/api/v2/dags/{dag}/dagRuns/{urllib.parse.quote(run)}/taskInstances/{task}"))

    def xcom(self, dag: str, run: str, task: str, key: str = "return_value") -> Any:
        """What a task returned, or left under another key."""
        path = f"/api/v2/dags/{dag}/dagRuns/{urllib.parse.quote(run)}/taskInstances/{task}/xcomEntries/{key}"
        return self.call("GET", f"{path}?deserialize=true")["value"]

    def links(self, dag: str, run: str, task: str) -> dict[str, str]:
        """The buttons that the UI shows."""
        path = f"/api/v2/dags/{dag}/dagRuns/{urllib.parse.quote(run)}/taskInstances/{task}/links"
        return dict(self.call("GET", path)["extra_links"])


def serve(home: Path, variables: Mapping[str, str]) -> Iterator[Airflow]:
    """An Airflow with an empty database; what was started of it ends at the end."""
    airflow = Airflow(environment(), home, variables)
    airflow.dags.mkdir(parents=True)
    airflow.run("db", "migrate")
    try:
        yield airflow
    finally:
        airflow.kill()
