"""Rounds whose input and output lie in an S3 server, behind a proxy that spoils requests."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import threading
import time
import uuid
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

from tests.chaos.rounds import (
    Broken,
    Case,
    Kind,
    Outcome,
    Stage,
    interrupt_driver,
    kill_driver_at_a_boundary,
    kill_driver_sometime,
    kill_worker_at_a_boundary,
    kill_worker_sometime,
    two_drivers,
    zombie,
)
from tests.support.fault_proxy import Fault, FaultProxy, Noise
from tests.support.s3_server import S3Server

MINUTE = 60.0


@dataclass
class ObjectCase(Case):
    """A case whose input and output are objects; what is looked at is a copy of them, made with s3fs as it comes."""

    server: S3Server | None = None
    proxy: FaultProxy | None = None
    prefix: str = ""

    @classmethod
    def of(cls, case: Case, server: S3Server, proxy: FaultProxy) -> ObjectCase:
        """``case`` moved to the server."""
        plain = {each.name: getattr(case, each.name) for each in fields(case)}
        prefix = f"{server.bucket}/chaos-{uuid.uuid4().hex[:12]}"
        server.client().put(case.source, f"{prefix}/input", recursive=True)
        moved = {"source": f"s3://{prefix}/input", "environment": server.environment(proxy.endpoint)}
        return cls(**{**plain, **moved}, server=server, proxy=proxy, prefix=prefix)

    @cached_property
    def client(self) -> Any:
        """s3fs, past the proxy."""
        assert self.server is not None
        return self.server.client()

    @property
    def target(self) -> str:
        return f"s3://{self.prefix}/output"

    def fetch(self) -> Path:
        shutil.rmtree(self.output, ignore_errors=True)
        client = self.client
        for name in client.find(f"{self.prefix}/output"):
            inside = name.removeprefix(f"{self.prefix}/output/")
            if inside == name:
                continue  # SeaweedFS names the folder itself, where nothing is left in it
            if not inside.startswith("_headrace/") or inside == "_headrace/report.json":
                to = self.output / inside
                to.parent.mkdir(parents=True, exist_ok=True)
                with contextlib.suppress(FileNotFoundError):  # it is gone since the listing
                    to.write_bytes(client.cat_file(name))
        return self.output

    def chunks(self) -> int:
        return len(self.client.find(f"{self.prefix}/output/_headrace/chunks"))


def noise(stage: Stage, dice: random.Random) -> Outcome:
    """One request in ten goes wrong, and the driver is killed in the middle."""
    proxy = _proxy(stage)
    proxy.noise = Noise(0.1, seed=dice.randrange(1000))
    process = stage.start()
    moment = stage.moment(dice, process)
    with contextlib.suppress(ProcessLookupError):
        os.kill(process.pid, signal.SIGKILL)
    outcome = Outcome(stage.number, "one request in ten fails, kill -9", "driver", moment, allowed=stage.in_flight())
    outcome.exits.append(stage.wait(process))
    stage.finish(outcome)
    outcome.fired = proxy.noise.hits > 0
    proxy.noise = None
    return outcome


def _away(stage: Stage, dice: random.Random, seconds: float) -> Outcome:
    """The store fails every request for a while. The run is to survive that, and to ask nothing twice."""
    proxy = _proxy(stage)
    kind = dice.choice(["slow_down", "reset", "lost"])
    wanted = dice.randint(1, 12)
    fault = Fault(kind, seconds=seconds)
    process = stage.start()
    stage.wait_until(lambda: stage.chunks() >= wanted, process)
    proxy.faults.append(fault)
    what = {"slow_down": "503", "reset": "resets", "lost": "lost answers"}[kind]
    outcome = Outcome(stage.number, f"{what} for {seconds:g} s", "storage", f"after {wanted} chunks", allowed=0)
    outcome.exits.append(stage.wait(process))
    proxy.faults.clear()
    outcome.fired = fault.hits > 0
    if outcome.exits[0] != 0:
        raise Broken(
            f"a store that was away for {seconds:g} s ended the run with {outcome.exits[0]}: {stage.case.log()}"
        )
    return stage.finish(outcome)


def seconds_away(stage: Stage, dice: random.Random) -> Outcome:
    """A few seconds."""
    return _away(stage, dice, dice.choice([2.0, 8.0]))


def minute_away(stage: Stage, dice: random.Random) -> Outcome:
    """A full minute."""
    return _away(stage, dice, MINUTE)


def lost_commit(stage: Stage, dice: random.Random) -> Outcome:
    """Puts of chunks take effect and their answers are lost, or are cut: they are ours all the same."""
    kind = dice.choice(["lost", "cut"])
    _proxy(stage).faults.append(Fault(kind, match="PUT /.*/chunks/", times=dice.randint(1, 6)))
    outcome = Outcome(stage.number, f"answers of commits are {kind}", "storage", "puts of chunks", allowed=0)
    outcome.exits.append(stage.wait(stage.start()))
    outcome.fired = _proxy(stage).faults.pop().hits > 0
    if outcome.exits[0] != 0:
        raise Broken(f"a run whose commits' answers were {kind} ended with {outcome.exits[0]}: {stage.case.log()}")
    return stage.finish(outcome)


def kill_server(stage: Stage, dice: random.Random) -> Outcome:
    """The server itself is killed within the put of a chunk, a part or the plan, and comes back. The run goes on."""
    assert isinstance(stage.case, ObjectCase)
    assert stage.case.server is not None
    server = stage.case.server.process
    assert server is not None
    what = dice.choice(["chunks", "chunks", "chunks", "chunks", "data", "_errors", "plan-0", "_SUCCESS"])
    skipped, away = (dice.randint(0, 12) if what == "chunks" else 0), dice.choice([0.0, 0.5, 2.0])
    endpoint = stage.case.server.endpoint
    came_back = threading.Event()

    def kill() -> None:
        server.kill()

        def start() -> None:
            time.sleep(away)
            server.start(endpoint)
            came_back.set()

        threading.Thread(target=start, daemon=True).start()

    fault = Fault("broken_off", match=f"PUT /.*/{what}", act=kill)
    proxy, process = _proxy(stage), stage.start()
    stage.wait_until(lambda: stage.chunks() >= skipped, process)
    proxy.faults.append(fault)
    outcome = Outcome(stage.number, "kill -9 within a put", "S3 server", f"of {what}, away for {away:g} s", allowed=0)
    outcome.exits.append(stage.wait(process))
    proxy.faults.clear()
    outcome.fired = fault.hits > 0
    if fault.hits and not came_back.wait(60):
        raise AssertionError("the server did not come back")
    if outcome.exits[0] != 0:
        raise Broken(f"a run whose server was killed ended with {outcome.exits[0]}: {stage.case.log()}")
    return stage.finish(outcome)


def _proxy(stage: Stage) -> FaultProxy:
    assert isinstance(stage.case, ObjectCase)
    assert stage.case.proxy is not None
    return stage.case.proxy


def maybe_uploads(case: Case, dice: random.Random) -> None:
    """In half of the cases objects go up as large ones do, so that a kill finds an upload half done."""
    if dice.random() < 0.5:
        (case.faults.path / "uploads").touch()


OBJECT_KINDS: dict[Kind, int] = {
    kill_driver_sometime: 1,
    kill_driver_at_a_boundary: 6,
    kill_worker_sometime: 1,
    kill_worker_at_a_boundary: 5,
    interrupt_driver: 1,
    zombie: 2,
    two_drivers: 2,
    noise: 2,
    seconds_away: 2,
    lost_commit: 2,
}
"""What a round on S3 may be; ``minute_away`` is played once."""
