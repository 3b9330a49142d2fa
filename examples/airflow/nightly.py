"""Answers the previous day's reviews every night. Copy this file and the pipeline next to it into Airflow's DAG folder.

Airflow's environment gives the locations: the variable ``NIGHTLY_BUCKET`` (``s3://my-bucket``), and the connection
``ray_default`` (the head's host, the dashboard's port, and the token as the password).
"""

import os
from datetime import datetime, timedelta

from airflow.sdk import DAG, Asset, CronDataIntervalTimetable

from headrace.cluster.airflow import HeadraceOperator

BUCKET = os.environ.get("NIGHTLY_BUCKET", "s3://my-bucket")

# DAGs that read the answers use this as their schedule, and run when a day is done.
ANSWERS = Asset("reviews_answered", uri=f"{BUCKET}/answers/")

with DAG(
    "nightly_reviews",
    # In Airflow 3, a plain "0 2 * * *" gives runs without an interval. With this timetable, intervals are from 2:00 to
    # 2:00, and a run begins when its interval is over. So the day on which an interval begins is complete by then.
    schedule=CronDataIntervalTimetable("0 2 * * *", timezone="UTC"),
    start_date=datetime(2025, 1, 1),
    catchup=False,
    # Days that a backfill runs on the cluster at once.
    max_active_runs=2,
    tags=["headrace"],
):
    HeadraceOperator(
        task_id="answer",
        conn_id="ray_default",
        pipeline="reviews.yaml",
        input_uri=f"{BUCKET}/reviews/{{{{ data_interval_start | ds }}}}/",
        output_uri=f"{BUCKET}/answers/{{{{ data_interval_start | ds }}}}/",
        outlets=[ANSWERS],
        # A retry does only what is not committed yet.
        retries=3,
        retry_delay=timedelta(minutes=5),
        execution_timeout=timedelta(hours=6),
    )
