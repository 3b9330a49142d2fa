"""Every night the reviews of the day before: copy this file and the pipeline beside it into Airflow's DAG folder.

Where things are comes from Airflow's environment: ``NIGHTLY_BUCKET`` (``s3://my-bucket``), the connection
``ray_default`` (the head's host, the dashboard's port, the token as the password).
"""

import os
from datetime import datetime, timedelta

from airflow.sdk import DAG, Asset, CronDataIntervalTimetable

from headrace.cluster.airflow import HeadraceOperator

BUCKET = os.environ.get("NIGHTLY_BUCKET", "s3://my-bucket")

# What reads the answers has this as its schedule, and runs when a day is done.
ANSWERS = Asset("reviews_answered", uri=f"{BUCKET}/answers/")

with DAG(
    "nightly_reviews",
    # A plain "0 2 * * *" would give runs without an interval in Airflow 3. This one: from 2:00 to 2:00, and the run
    # begins when its interval is over; so the day that an interval begins on is complete by then.
    schedule=CronDataIntervalTimetable("0 2 * * *", timezone="UTC"),
    start_date=datetime(2025, 1, 1),
    catchup=False,
    # How many days a backfill has on the cluster at once.
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
        # A try after a failure does only what is not committed yet.
        retries=3,
        retry_delay=timedelta(minutes=5),
        execution_timeout=timedelta(hours=6),
    )
