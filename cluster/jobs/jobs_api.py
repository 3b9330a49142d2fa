"""What Ray's Jobs API tells: jobs and their states, and the ways in which a call of it fails.

Airflow's environment imports this: the standard library alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from headrace.pipelines.spec.errors import HeadraceError

UNFINISHED = frozenset({"PENDING", "RUNNING"})
"""The states of a job that goes on; ``SUCCEEDED``, ``FAILED`` and ``STOPPED`` are final."""


class JobsError(HeadraceError):
    """A call of the Jobs API that came to nothing; the message says what to do."""


class Unreachable(JobsError):
    """Nothing answers at the address, for as long as it was asked. It may pass."""


class NotAuthorized(JobsError):
    """The cluster wants a token, or another one."""


class NoSuchJob(JobsError):
    """The cluster knows no job of this id: it never did, or it was started anew since."""


class JobExists(JobsError):
    """There is a job of this id already."""


class Refused(JobsError):
    """The cluster does not take what it was given, or what answers is no Ray cluster."""


class ServerFailed(JobsError):
    """The cluster answers that it failed, for as long as it was asked. It may pass."""


@dataclass(frozen=True, slots=True)
class Job:
    """What the cluster says of a job.

    Attributes:
        status: ``PENDING``, ``RUNNING``, ``SUCCEEDED``, ``FAILED`` or ``STOPPED``.
        exit_code: of the entrypoint; None while it runs, when it was stopped, or when it never began.
        message: Ray's own words; of a job that failed they end with the last lines of its log.
        metadata: what was submitted with it.
    """

    id: str
    status: str
    entrypoint: str = ""
    message: str = ""
    started: datetime | None = None
    ended: datetime | None = None
    exit_code: int | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def finished(self) -> bool:
        """Whether its state is final."""
        return self.status not in UNFINISHED

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Job:
        """A job of the API's JSON."""
        return cls(
            id=data["submission_id"],
            status=str(data["status"]),
            entrypoint=data.get("entrypoint") or "",
            message=data.get("message") or "",
            started=_moment(data.get("start_time")),
            ended=_moment(data.get("end_time")),
            exit_code=data.get("driver_exit_code"),
            metadata=data.get("metadata") or {},
        )


def _moment(milliseconds: float | None) -> datetime | None:
    return None if not milliseconds else datetime.fromtimestamp(milliseconds / 1000, UTC)
