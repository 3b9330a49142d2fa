"""The buttons of a task in Airflow's UI.

Airflow 3 shows a link from the XCom under its ``xcom_key``, and its web server needs no plugin for that. The operator
pushes the links when it submits, so they work while the job runs. Airflow writes them again when the task ends.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from airflow.sdk import BaseOperatorLink

REPORT = "_headrace/report.html"


class DashboardLink(BaseOperatorLink):
    """Link to the job in Ray's dashboard."""

    name = "Ray dashboard"

    @property
    def xcom_key(self) -> str:
        """The key under which the web server finds the link."""
        return "ray_dashboard"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """The URL, once there is a job."""
        return str(getattr(operator, "dashboard_link", ""))


class ReportLink(BaseOperatorLink):
    """Link to the report of the run, which exists once the run is done."""

    name = "headrace report"

    @property
    def xcom_key(self) -> str:
        """The key under which the web server finds the link."""
        return "headrace_report"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """The URL, once there is a job."""
        return str(getattr(operator, "report_link", ""))


def dashboard_link(address: str, job_id: str) -> str:
    """The job's page in Ray's dashboard at ``address``."""
    return f"{address.rstrip('/')}/#/jobs/{quote(job_id, safe='')}"


def report_link(output: str) -> str:
    """The URL of the report in ``output`` for a browser: in the store's console for ``s3://`` and ``gs://``."""
    scheme, _, path = output.rstrip("/").partition("://")
    bucket, _, folder = path.partition("/")
    key = quote(f"{folder}/{REPORT}".lstrip("/"))
    if scheme == "s3":
        return f"https://s3.console.aws.amazon.com/s3/object/{bucket}?prefix={key}"
    if scheme == "gs":
        return f"https://storage.cloud.google.com/{bucket}/{key}"
    return f"{output.rstrip('/')}/{REPORT}"
