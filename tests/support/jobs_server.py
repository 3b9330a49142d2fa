"""A Jobs API that runs nothing: jobs end as the input's name says, at once or never, for tests of who submits them."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ENDS: dict[str, list[tuple[str, int | None, dict[str, Any]]]] = {
    "good": [("SUCCEEDED", 0, {"exit_code": 0, "rows": 4, "dead": 1})],
    "dead": [("FAILED", 3, {"exit_code": 3, "rows": 4, "dead": 2, "output": "s3://o/dead"})],
    "crash": [("FAILED", 137, {}), ("SUCCEEDED", 0, {"exit_code": 0, "rows": 4, "resumed": 3})],
    "endless": [("RUNNING", None, {})],
    "stopped": [("RUNNING", None, {}), ("SUCCEEDED", 0, {"exit_code": 0, "rows": 4})],
}
"""State, exit code and summary of each attempt, by the last part of the input; the last one is for all further ones.

A running job of the kind ``stopped`` is, when it is looked at for the third time.
"""


class JobsServer:
    """The jobs that it was given, and what was stopped."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.jobs: dict[str, dict[str, Any]] = {}
        self.stopped: list[str] = []

    def of(self, kind: str) -> list[dict[str, Any]]:
        """The jobs whose input ends so, in the order in which they came."""
        return [job for job in self.jobs.values() if job["metadata"]["headrace_input"].endswith(f"/{kind}")]

    def look(self, job: str) -> dict[str, Any]:
        """What is known of a job."""
        found = self.jobs[job]
        found["looks"] += 1
        if found["looks"] == 3 and found in self.of("stopped") and found["status"] == "RUNNING":
            found["status"] = "STOPPED"
        return found

    def submit(self, body: dict[str, Any]) -> dict[str, Any]:
        """Take a job."""
        kind = body["metadata"]["headrace_input"].rpartition("/")[2]
        number = int(body["metadata"]["headrace_attempt"])
        state, code, summary = ENDS[kind][min(number, len(ENDS[kind])) - 1]
        self.jobs[body["submission_id"]] = {
            **body,
            "status": state,
            "looks": 0,
            "driver_exit_code": code,
            "logs": f"at work\nheadrace: summary {json.dumps(summary)}\n" if summary else "at work\n",
        }
        return {"submission_id": body["submission_id"]}

    def stop(self, job: str) -> dict[str, Any]:
        """Stop a job."""
        self.stopped.append(job)
        self.jobs[job]["status"] = "STOPPED"
        return {"stopped": True}


@contextmanager
def serve_jobs() -> Iterator[JobsServer]:
    """The server, on a free port."""

    class Handler(BaseHTTPRequestHandler):
        def _answer(self, data: Any, status: int = 200) -> None:
            body = json.dumps(data).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def _body(self) -> bytes:
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))

        def log_message(self, format: str, *args: Any) -> None:
            pass

        def do_PUT(self) -> None:
            self._body()
            self._answer({})

        def do_POST(self) -> None:
            body = self._body()
            parts = self.path.strip("/").split("/")
            self._answer(jobs.stop(parts[2]) if parts[-1] == "stop" else jobs.submit(json.loads(body)))

        def do_GET(self) -> None:
            parts = self.path.strip("/").split("/")
            if parts[1] == "packages":
                self._answer({}, 404)
            elif len(parts) == 2:
                self._answer(list(jobs.jobs.values()))
            else:
                self._answer({"logs": jobs.jobs[parts[2]]["logs"]} if parts[-1] == "logs" else jobs.look(parts[2]))

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    jobs = JobsServer(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield jobs
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
