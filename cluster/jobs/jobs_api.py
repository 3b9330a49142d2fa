"""Results of Ray's Jobs API: jobs, their states, and the errors of its calls.

Imported in Airflow's environment, so this uses the standard library alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from headrace.pipelines.spec.errors import HeadraceError

UNFINISHED = frozenset({"PENDING", "RUNNING"})
"""The states of a job that has not ended; ``SUCCEEDED``, ``FAILED`` and ``STOPPED`` are final."""


class JobsError(HeadraceError):
    """A call of the Jobs API failed; the message says what to do."""


class Unreachable(JobsError):
    """Nothing answers at the address, after all retries. It may be temporary."""


class NotAuthorized(JobsError):
    """The cluster requires a token, or another one."""


class NoSuchJob(JobsError):
    """The cluster knows no job with this id: it never did, or it was restarted since."""


class JobExists(JobsError):
    """A job with this id exists already."""


class Refused(JobsError):
    """The cluster rejects the call, or what answers is not a Ray cluster."""


class ServerFailed(JobsError):
    """The cluster answers with a server error, after all retries. It may be temporary."""


@dataclass(frozen=True, slots=True)
class Job:
    """A job, as described by the cluster.

    Attributes:
        status: ``PENDING``, ``RUNNING``, ``SUCCEEDED``, ``FAILED`` or ``STOPPED``.
        exit_code: of the entrypoint; None while it runs, if it was stopped, or if it never began.
        message: Ray's message; for a failed job it ends with the last lines of the log.
        metadata: the metadata submitted with it.
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
        """Whether the state is final."""
        return self.status not in UNFINISHED

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Job:
        """The job from the API's JSON."""
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
