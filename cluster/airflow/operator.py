"""The operator: submits a run to a Ray cluster, sleeps until it ends, and returns its result."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from airflow.sdk import Asset, BaseOperator
from airflow.sdk.exceptions import AirflowException, AirflowFailException

from headrace.cluster.airflow.connecting import client
from headrace.cluster.airflow.links import DashboardLink, ReportLink, dashboard_link, report_link
from headrace.cluster.airflow.outcome import LOST, STOPPED, SUCCEEDED, judge, last_words
from headrace.cluster.airflow.trigger import HeadraceTrigger
from headrace.cluster.jobs.jobs_api import Job, JobsError, NoSuchJob, Refused
from headrace.cluster.jobs.jobs_client import JobsClient
from headrace.cluster.jobs.submission import RunArguments, Submission, attempts, make_submission, submit
from headrace.cluster.jobs.summary_line import ASKED
from headrace.pipelines.spec.errors import UserError

TRY = "airflow_try"
"""Key of a job's metadata: the attempt of the task instance that submitted it."""

OPTIONS = frozenset({"model", "limit", "set", "recompute", "retry", "prune", "reuse"})
"""Keys of ``arguments``: options of ``headrace run``."""


class HeadraceOperator(BaseOperator):
    """Run a pipeline on a Ray cluster, as ``headrace run`` would there.

    The task submits a job, waits for it in the triggerer without taking a worker's slot, and returns the run's counts
    (``rows``, ``answered``, ``filtered``, ``dead``, ``resumed``, ``prompt_tokens``, ``cached_tokens``,
    ``output_tokens`` and more) as its XCom. The asset events of its outlets carry the same counts.

    The job's id is derived from the pipeline's files, the input, the output, the arguments and the data interval, and
    gets a number for each attempt. So after any restart the task finds its job again and waits for it. A retry after a
    failure is a new job that does what is not committed yet.

    Args:
        pipeline: path of the pipeline file on Airflow's machines, absolute or relative to the DAG file's folder. The
            modules and schemas that it names are sent with it.
        input_uri: a file, a folder or a glob, as seen by the cluster.
        output_uri: a folder. Use one for each data interval: ``s3://bucket/answers/{{ data_interval_start | ds }}``.
        arguments: options of ``headrace run`` by name, such as ``{"limit": 1000, "set": ["max_error_rate=0.05"]}``.
        address: of Ray's dashboard, such as ``http://head:8265``. Default, without ``conn_id``:
            ``RAY_API_SERVER_ADDRESS``.
        conn_id: a connection with the host, the port and, as its password, the token if the cluster requires one. The
            token may also be in ``RAY_AUTH_TOKEN`` or ``RAY_AUTH_TOKEN_PATH``, for workers and triggerer.
        report_url: URL of the report for a browser. Default: the page in the console of S3 or Google Cloud Storage.
        include: further files of the pipeline's folder to send.
        env: environment variables of the job. They must not contain secrets.
        python: the interpreter with headrace on the cluster.
        poll_interval: seconds between checks of the job.
        deferrable: False waits in a worker's slot, for an Airflow without a triggerer.

    The fields ``pipeline``, ``input_uri``, ``output_uri``, ``arguments``, ``address``, ``conn_id``, ``report_url`` and
    ``env`` are templates. An ``execution_timeout`` stops the job.

    Raises:
        AirflowFailException: a retry would end the same way: a mistake of the user, or too many dead letters.
        AirflowException: any other failure; with ``retries``, the next attempt resumes.
    """

    # Not "input" and "output": BaseOperator.output is the task's XCom.
    template_fields: Sequence[str] = (
        "pipeline",
        "input_uri",
        "output_uri",
        "arguments",
        "address",
        "conn_id",
        "report_url",
        "env",
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {"arguments": "json", "env": "json"}
    operator_extra_links = (DashboardLink(), ReportLink())
    ui_color = "#d5e8e4"

    def __init__(  # noqa: PLR0913 - Airflow reads an operator's options from its parameters
        self,
        *,
        pipeline: str,
        input_uri: str,
        output_uri: str,
        arguments: Mapping[str, Any] | None = None,
        address: str | None = None,
        conn_id: str | None = None,
        report_url: str | None = None,
        include: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        python: str = "python",
        poll_interval: float = 30.0,
        deferrable: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.pipeline = pipeline
        self.input_uri = input_uri
        self.output_uri = output_uri
        self.arguments = dict(arguments or {})
        self.address = address
        self.conn_id = conn_id
        self.report_url = report_url
        self.include = list(include)
        self.env = dict(env or {})
        self.python = python
        self.poll_interval = poll_interval
        self.deferrable = deferrable
        self.dashboard_link = ""
        self.report_link = ""
        self._job_id: str | None = None
        if unknown := sorted(set(self.arguments) - OPTIONS):
            raise ValueError(
                f"arguments: unknown option {unknown[0]!r} of headrace run (options: {', '.join(sorted(OPTIONS))})"
            )

    def execute(self, context: Any) -> dict[str, Any]:
        """Submit the job or find it, and wait for it in the triggerer; :meth:`resume` continues from there."""
        return self._attempt(context)

    def _attempt(self, context: Any) -> dict[str, Any]:
        with self._reaching() as jobs:
            job_id, over = self._begin(jobs, context)
            if over:
                return self._finish(jobs, context, job_id, SUCCEEDED)
            self._defer_or_not(job_id)
            return self._finish(jobs, context, job_id, self._wait(jobs, job_id))

    def resume(self, context: Any, event: Mapping[str, str]) -> dict[str, Any]:
        """Continue when the job has ended or is lost."""
        self._job_id = event["job_id"]
        with self._reaching() as jobs:
            return self._finish(jobs, context, event["job_id"], event["state"])

    def on_kill(self) -> None:
        """Stop the job, because the task is stopped in a worker. While it is deferred, the trigger does this."""
        if self._job_id is None:
            return
        try:
            with client(self.address, self.conn_id) as jobs:
                jobs.stop(self._job_id)
        except JobsError as error:
            self.log.warning("the job %s could not be stopped and is still running: %s", self._job_id, error)
        else:
            self.log.info("the job %s was asked to stop", self._job_id)

    def submission(self, context: Any) -> Submission:
        """The submission for the data interval of this context. The templates must be rendered.

        Raises:
            UserError: it cannot run on a cluster.
        """
        given = self.arguments
        limit = given.get("limit")
        run = RunArguments(
            input=self.input_uri,
            output=self.output_uri,
            model=given.get("model"),
            limit=int(limit) if limit not in (None, "") else None,
            overrides=[given["set"]] if isinstance(given.get("set"), str) else list(given.get("set") or ()),
            recompute=given.get("recompute") or None,
            retry=given.get("retry") or None,
            prune=str(given.get("prune", False)).lower() == "true",
            reuse=given.get("reuse") or None,
        )
        made = make_submission(
            self._pipeline_file(),
            run,
            interval=_interval(context),
            include=self.include,
            env={**self.env, ASKED: "1"},
            python=self.python,
        )
        ti = context["ti"]
        names = {"airflow_dag": ti.dag_id, "airflow_task": ti.task_id, "airflow_run": ti.run_id, TRY: _try(context)}
        return dataclasses.replace(made, metadata={**made.metadata, **names})

    def _pipeline_file(self) -> str:
        """``file.py:name`` is for Python files with several pipelines."""
        path = Path(self.pipeline)
        return self.pipeline if path.is_absolute() else str(Path(self.dag.fileloc).parent / path)

    def _begin(self, jobs: JobsClient, context: Any) -> tuple[str, bool]:
        """The id of the job, and whether it has already succeeded."""
        try:
            wanted = self.submission(context)
        except UserError as error:
            raise AirflowFailException(str(error)) from error
        earlier = attempts(jobs.list(), wanted.id)
        # A success of this very try is its result: the worker was gone before it could say so. One of another try
        # is none: whoever clears a task wants it run again.
        mine = bool(earlier) and earlier[-1].metadata.get(TRY) == _try(context)
        try:
            begun = submit(jobs, wanted, again=not mine)
        except UserError as error:
            raise AirflowException(str(error)) from error  # another job writes to this output, and will end
        self._job_id = begun.id
        said = {"submitted": "submitted", "attached": "found the running", "done": "found the finished"}[begun.how]
        self.log.info("%s job %s at %s", said, begun.id, jobs.url)
        self._show_links(jobs.url, context)
        return begun.id, begun.how == "done"

    def _show_links(self, url: str, context: Any) -> None:
        assert self._job_id is not None
        self.dashboard_link = dashboard_link(url, self._job_id)
        self.report_link = self.report_url or report_link(self.output_uri)
        # Airflow itself does this when the task is over, which is late for a job of hours.
        for link in self.operator_extra_links:
            context["ti"].xcom_push(key=link.xcom_key, value=link.get_link(self, ti_key=context["ti"]))

    def _defer_or_not(self, job_id: str) -> None:
        if not self.deferrable:
            return
        allowed = self.execution_timeout
        self.defer(
            trigger=HeadraceTrigger(
                job_id=job_id,
                address=self.address,
                conn_id=self.conn_id,
                poll_interval=self.poll_interval,
                deadline=time.time() + allowed.total_seconds() if allowed else None,
            ),
            method_name="resume",
        )

    def _wait(self, jobs: JobsClient, job_id: str) -> str:
        try:
            return jobs.wait(job_id, every=self.poll_interval).status
        except NoSuchJob:
            return LOST

    def _finish(self, jobs: JobsClient, context: Any, job_id: str, state: str) -> dict[str, Any]:
        """Return the counts, or raise if the job failed."""
        job, log = self._last_look(jobs, job_id)
        if state == STOPPED and job is not None and job.metadata.get(TRY) != _try(context):
            # It was an earlier try's, and on its way out when this one found it.
            self.log.info("the job %s of an earlier attempt was stopped: submitting again", job_id)
            return self._attempt(context)
        self._show_links(jobs.url, context)
        outcome = judge(job_id, state, job.message if job else "", job.exit_code if job else None, log)
        self.log.info("the end of the job's log:\n%s", last_words(log))
        counts = dict(outcome.counts)
        if counts:
            context["ti"].xcom_push(key="summary", value=counts)
        if outcome.problem:
            raise (AirflowException if outcome.retry else AirflowFailException)(outcome.problem)
        for outlet in self.outlets:
            if isinstance(outlet, Asset):
                context["outlet_events"][outlet].extra.update(counts)
        return counts

    def _last_look(self, jobs: JobsClient, job_id: str) -> tuple[Job | None, str]:
        try:
            return jobs.info(job_id), jobs.logs(job_id)
        except (NoSuchJob, Refused) as error:
            self.log.warning("the log of %s is not available: %s", job_id, error)
            return None, ""

    def _reaching(self) -> JobsClient:
        try:
            return client(self.address, self.conn_id)
        except Refused as error:
            raise AirflowFailException(str(error)) from error


def _try(context: Any) -> str:
    return f"{context['ti'].id}"


def _interval(context: Any) -> str:
    """The data interval; for a run without one (started by an asset or a user), the run's id."""
    start, end = context.get("data_interval_start"), context.get("data_interval_end")
    if start is None or end is None or start == end:
        return str(context["run_id"])
    return f"{start.isoformat()}/{end.isoformat()}"
