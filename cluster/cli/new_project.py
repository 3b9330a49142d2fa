"""``headrace init``: a small project that runs at once, and that shows where things go."""

from __future__ import annotations

import io
import json
import shlex
from pathlib import Path

from headrace.pipelines.spec.errors import UserError

PIPELINE = """\
# Support tickets: what each is about, its facts, and a short version of the complaints.
name: tickets
model: default                     # or a hub id, a folder; a target of headrace.yaml says another
document: "{{ text }}"
steps:
  - classify:
      name: topic
      labels:
        delivery: something did not arrive, came late or came damaged
        billing: an invoice, a payment or a refund
        technical: a device or an account does not work
        praise: the customer is happy and asks for nothing
  - extract:
      name: facts
      schema: schemas/facts.json
  - summarize:
      name: summary
      max_words: 30
      when: topic <> 'praise'
keep: [id, received]
key: [id]
checkpoint_rows: 10                # rows in a chunk: small, so that there is something to resume; leave it out for more
max_error_rate: 0.05
"""

FACTS = {
    "type": "object",
    "properties": {
        "product": {"type": ["string", "null"], "maxLength": 60, "description": "what it is about, if it is said"},
        "order_number": {"type": ["string", "null"], "maxLength": 20, "description": "as it is written"},
        "urgent": {"type": "boolean", "description": "whether the customer is in a hurry or angry"},
    },
    "required": ["product", "order_number", "urgent"],
    "additionalProperties": False,
}

TARGETS = """\
# Where runs go. --target NAME takes these values where the command line says nothing else.
# ${VAR} and ${VAR:-default} come from the environment. Secrets stay there: write ${VAR} for them, never the value.
targets:
  laptop:
    input: data
    output: build/answers
    model: fake                    # made-up answers at once; default is a real, tiny model
    resources: {cpus: 1}

  staging:
    address: ${STAGING_JOBS:-http://localhost:8265}
    input: s3://${STAGING_BUCKET:-staging}/tickets
    output: s3://${STAGING_BUCKET:-staging}/answers
    model: Qwen/Qwen3-4B

  prod:
    address: ${PROD_JOBS:-http://ray-head:8265}
    # token: ${PROD_RAY_TOKEN}     # where the cluster wants one
    input: s3://${PROD_BUCKET:-production}/tickets
    output: s3://${PROD_BUCKET:-production}/answers
    model: {id: Qwen/Qwen3-8B, max_model_len: 8192}
    resources: {workers: [1, 8]}
    storage:
      region: ${AWS_REGION:-eu-central-1}
"""

DAG = '''\
"""Every night the tickets of the day before. Copy the project into Airflow's DAG folder, or point Airflow at this one.

The connection ray_default has the head's host, the port of its dashboard and, as the password, its token if it has one.
"""

import os
from datetime import datetime, timedelta

from airflow.sdk import DAG, CronDataIntervalTimetable

from headrace.cluster.airflow import HeadraceOperator

BUCKET = os.environ.get("TICKETS_BUCKET", "s3://production")

with DAG(
    "nightly_tickets",
    schedule=CronDataIntervalTimetable("0 2 * * *", timezone="UTC"),
    start_date=datetime(2026, 1, 1),
    catchup=False,
    tags=["headrace"],
):
    HeadraceOperator(
        task_id="answer",
        conn_id="ray_default",
        pipeline="../pipeline.yaml",
        input_uri=f"{BUCKET}/tickets/{{{{ data_interval_start | ds }}}}/",
        output_uri=f"{BUCKET}/answers/{{{{ data_interval_start | ds }}}}/",
        # A try after a failure does only what is not committed yet.
        retries=3,
        retry_delay=timedelta(minutes=5),
    )
'''

CI = """\
# Mistakes in the pipeline, its schemas and its conditions are found before they are merged. Needs no GPU and no engine.
name: check
on: [push, pull_request]
permissions:
  contents: read
jobs:
  check:
    runs-on: ubuntu-latest
    steps:
      - uses: actions/checkout@v4
      - uses: actions/setup-python@v5
        with:
          python-version: "3.11"
      # From the index, or the wheel, that your team has it in; the version that the cluster's image has.
      - run: pip install headrace
      - run: headrace check pipeline.yaml --target laptop
"""

IGNORED = """\
build/
__pycache__/
.venv/
.env
"""

README = """\
# Tickets

What 30 support tickets are about, with [headrace](pipeline.yaml).

```sh
headrace check pipeline.yaml --target laptop      # mistakes, without an engine
headrace sample pipeline.yaml --target laptop     # five rows, answered and printed
headrace run pipeline.yaml --target laptop        # all rows, into build/answers
headrace submit pipeline.yaml --target prod       # on a Ray cluster, as a job
```

| file | what it is |
| --- | --- |
| `pipeline.yaml` | what is asked |
| `schemas/facts.json` | what one of the answers looks like |
| `data/tickets.parquet` | 30 made-up tickets |
| `headrace.yaml` | where runs go: laptop, staging, prod |
| `dags/nightly_tickets.py` | the same every night, for Airflow |
| `.github/workflows/check.yml` | `headrace check` for every change |

The target `laptop` has the model `fake`, which makes its answers up. With `--model default` a small real one answers.
"""

TICKETS = (
    ("2026-03-02", "My order 48213 should have been here on Friday. The tracking page has not moved for six days."),
    ("2026-03-02", "The kettle leaks at the handle after two weeks. I would like a new one, not a repair."),
    ("2026-03-02", "You charged my card twice for invoice R-2291. Please send one of the payments back."),
    ("2026-03-03", "Just to say that the lamp is lovely and came a day early. Thank you!"),
    (
        "2026-03-03",
        "I cannot log in since the update. It says that my password has expired, and the link does nothing.",
    ),
    ("2026-03-03", "Parcel 50177 was left in the rain. The box is soaked and two of the books are ruined."),
    ("2026-03-04", "How do I change the address on an invoice? Our office has moved to Rotterdam."),
    ("2026-03-04", "The vacuum cleaner stops after ten minutes and blinks red. The filter is clean."),
    ("2026-03-04", "Order 50233: I ordered the grey chair, and a green one was in the box."),
    (
        "2026-03-05",
        "Third time I am asking about my refund for order 47710. It has been five weeks. This is not acceptable.",
    ),
    ("2026-03-05", "Your engineer was here this morning and mended the dishwasher in ten minutes. Great service."),
    ("2026-03-05", "The app does not find my thermostat any more, although both are in the same network."),
    ("2026-03-06", "Is there a receipt for my payment of 1 March? My bank shows it and your page does not."),
    ("2026-03-06", "The courier says that he was here. I was at home all day, and nobody rang. Order 50391."),
    ("2026-03-06", "The coffee grinder makes a noise like gravel. It worked well for a year, and I have the receipt."),
    ("2026-03-09", "Please cancel the subscription that I never ordered. You took 14.90 from my account on Sunday."),
    ("2026-03-09", "We have used your bicycle pump for three years, and it still works like new. Keep it up."),
    ("2026-03-09", "The keyboard types every letter twice. I have tried another computer, and it is the same there."),
    ("2026-03-10", "One of the four glasses in order 50518 was broken. Can you send just that one?"),
    ("2026-03-10", "The voucher SPRING10 is refused at the checkout, though it is valid until the end of the month."),
    (
        "2026-03-10",
        "After last night's update the router starts again every few minutes. I work from home: please hurry.",
    ),
    ("2026-03-11", "When will order 50604 be sent? The page has said tomorrow for a week."),
    ("2026-03-11", "The invoice has the wrong tax number on it. Our accountant needs a correct one before Monday."),
    ("2026-03-11", "The tent was up in five minutes and stayed dry through a stormy night. Best purchase this year."),
    (
        "2026-03-12",
        "The screen of the reader stays white after charging. Holding the button for a minute does not help.",
    ),
    ("2026-03-12", "You delivered to my neighbour without a note. I found the parcel by accident. Order 50688."),
    ("2026-03-12", "Why did the price of my plan go up by four euros? Nobody told me about it."),
    ("2026-03-13", "The remote control does not pair with the blind in the bedroom. The other two work."),
    (
        "2026-03-13",
        "Thanks to Priya on the phone, who found my lost parcel in ten minutes and stayed friendly throughout.",
    ),
    (
        "2026-03-13",
        "Wrong size again! I sent the boots of order 50702 back, and the same size came. I need them on Friday.",
    ),
)
"""Made up for this, by hand."""


def make_project(folder: str) -> str:
    """Write the project into ``folder``, and return what to say.

    Raises:
        UserError: a file of it is there already, or cannot be written. In the first case nothing was written.
    """
    root = Path(folder)
    files: dict[str, bytes] = {
        "pipeline.yaml": PIPELINE.encode(),
        "schemas/facts.json": (json.dumps(FACTS, indent=2) + "\n").encode(),
        "data/tickets.parquet": _tickets(),
        "headrace.yaml": TARGETS.encode(),
        "dags/nightly_tickets.py": DAG.encode(),
        ".github/workflows/check.yml": CI.encode(),
        ".gitignore": IGNORED.encode(),
        "README.md": README.encode(),
    }
    there = [name for name in files if (root / name).exists()]
    if there:
        raise UserError(f"{root} has {', '.join(there)} already, and nothing is overwritten. Take another folder.")
    try:
        for name, content in files.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("xb") as file:
                file.write(content)
    except OSError as error:
        raise UserError(f"{error.filename or root}: cannot be written: {error.strerror}") from error
    return (
        f"{root} has a pipeline, {len(TICKETS)} rows of data, targets, an Airflow DAG and a CI file. Next:\n\n"
        f"  cd {shlex.quote(str(root))} && headrace check pipeline.yaml --target laptop\n"
        f"  headrace run pipeline.yaml --target laptop"
    )


def _tickets() -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    packed = io.BytesIO()
    table = pa.table(
        {
            "id": [f"T-{1001 + i}" for i in range(len(TICKETS))],
            "received": [day for day, _ in TICKETS],
            "text": [text for _, text in TICKETS],
        }
    )
    pq.write_table(table, packed)
    return packed.getvalue()
