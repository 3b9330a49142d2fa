"""The trigger: a small coroutine in Airflow's triggerer that waits for a job while the task sleeps.

It keeps no state, so another triggerer can take it over: it asks the cluster and continues to wait.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from headrace.cluster.airflow.connecting import async_client
from headrace.cluster.airflow.outcome import LOST, TIMED_OUT, UNREACHABLE
from headrace.cluster.jobs.jobs_api import JobsError, NoSuchJob
from headrace.cluster.jobs.jobs_client import AsyncJobsClient

FIRST_LOOK_S = 15.0
"""Seconds before the first check: a trigger that fires at once can overtake the deferral of its own task, which then
fails (apache/airflow#72716)."""

PATIENCE_S = 600.0
"""Seconds without an answer from the cluster after which the trigger fires."""


class HeadraceTrigger(BaseTrigger):
    """Fires when a job has ended.

    The event is ``{"job_id": ..., "state": ...}`` with a state of :mod:`headrace.cluster.airflow.outcome`.

    Args:
        job_id: the job's submission id.
        address, conn_id: as for the operator.
        poll_interval: seconds between checks.
        deadline: time at which to stop the job, in seconds since the epoch; None for never.
    """

    def __init__(
        self,
        job_id: str,
        address: str | None = None,
        conn_id: str | None = None,
        poll_interval: float = 30.0,
        deadline: float | None = None,
    ) -> None:
        super().__init__()
        self.job_id = job_id
        self.address = address
        self.conn_id = conn_id
        self.poll_interval = poll_interval
        self.deadline = deadline

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """The data from which a triggerer recreates the trigger; it does not contain the token."""
        return "headrace.cluster.airflow.trigger.HeadraceTrigger", {
            "job_id": self.job_id,
            "address": self.address,
            "conn_id": self.conn_id,
            "poll_interval": self.poll_interval,
            "deadline": self.deadline,
        }

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Check the job at intervals until there is an event."""
        async with await async_client(self.address, self.conn_id) as client:
            state = await self._wait(client)
        yield TriggerEvent({"job_id": self.job_id, "state": state})

    async def _wait(self, client: AsyncJobsClient) -> str:
        heard = time.monotonic()
        await asyncio.sleep(FIRST_LOOK_S)
        while True:
            try:
                job = await client.info(self.job_id)
                if job.finished:
                    return job.status
                heard = time.monotonic()
                if self.deadline is not None and time.time() > self.deadline:
                    await client.stop(self.job_id)
                    return TIMED_OUT
            except NoSuchJob:
                return LOST
            except JobsError as error:
                if time.monotonic() - heard > PATIENCE_S:
                    return UNREACHABLE
                self.log.warning("the state of %s is not available: %s", self.job_id, error)
            await asyncio.sleep(self.poll_interval)

    async def on_kill(self) -> None:
        """Stop the job: a user marked the task as failed or successful, or cleared it."""
        try:
            async with await async_client(self.address, self.conn_id) as client:
                stopped = await client.stop(self.job_id)
        except JobsError as error:
            self.log.warning("the job %s could not be stopped and is still running: %s", self.job_id, error)
        else:
            self.log.info("the job %s %s", self.job_id, "was asked to stop" if stopped else "had already ended")
