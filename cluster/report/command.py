"""``headrace report``: the report of an output anew, or what moved between two outputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from headrace.cluster.report.content import Content, in_words
from headrace.cluster.report.writing import Baseline, Made, make_page, open_output, read_report, write_report
from headrace.pipelines.output.dead_letters import read_dead_letters
from headrace.pipelines.output.plan import Plan
from headrace.pipelines.output.publish import is_complete
from headrace.pipelines.spec.errors import StorageUnavailable, UserError
from headrace.pipelines.spec.pipeline import Pipeline
from headrace.pipelines.spec.report_settings import ReportSettings
from headrace.pipelines.storage.store import Store


@dataclass(frozen=True, slots=True)
class ReportRequest:
    """What the command line asks for.

    Attributes:
        output: to report of.
        previous: the output to hold it against; None for what it was held against by its run.
        to: a local file for the page; then nothing is written into the output.
        redact: None for as it was.
        prices: settings with the prices that were given.
    """

    output: str
    previous: str | None = None
    to: str | None = None
    redact: bool | None = None
    prices: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        output: str | None,
        previous: str | None = None,
        compare: tuple[str, str] | None = None,
        to: str | None = None,
        redact: bool | None = None,
        gpu_price: str | None = None,
        api_price: str | None = None,
    ) -> ReportRequest:
        """From the options of the command.

        Raises:
            UserError: they do not go together.
        """
        if compare and (output or previous):
            raise UserError("--compare A B names both outputs: leave OUTPUT and --previous out.")
        if compare:
            previous, output = compare
        if not output:
            raise UserError("Name the output: headrace report OUTPUT, or headrace report --compare A B.")
        return cls(output, previous, to, redact, _prices(gpu_price, api_price))


def report_output(request: ReportRequest) -> Made:
    """Make the report of an output anew, finished or not, into the output or into a file of its own.

    Raises:
        UserError: it is no output, a part of it cannot be read, or the file cannot be written.
    """
    with _readable(request):
        return _report_output(request)


@contextmanager
def _readable(request: ReportRequest) -> Iterator[None]:
    """A damaged file is something that the user has to know of."""
    try:
        yield
    except (pa.ArrowException, OSError) as problem:
        # pyarrow says of a damaged page that it is an OSError without a number.
        if isinstance(problem, StorageUnavailable) or (isinstance(problem, OSError) and problem.errno is not None):
            raise
        outputs = " or of ".join(repr(output) for output in (request.output, request.previous) if output)
        raise UserError(f"A part of {outputs} is damaged: {problem}") from problem


def _report_output(request: ReportRequest) -> Made:
    store, plan = open_output(request.output)
    facts = _facts(store, plan, request.output)
    change = {**request.prices, **({"previous": request.previous} if request.previous else {})}
    if request.redact is not None:
        change["redact"] = request.redact
    settings = _settings(plan, facts).model_copy(update=change)
    if request.to is None:
        return write_report(store, plan, facts, settings, strict=request.previous is not None)
    return _into_file(make_page(store, plan, facts, settings, strict=request.previous is not None), request.to)


def compare_outputs(request: ReportRequest) -> Content:
    """What moved from one output to another; a page of it only where the request names a file for that.

    Raises:
        UserError: one of them is no output, a part cannot be read, or the file cannot be written.
    """
    with _readable(request):
        return _compare_outputs(request)


def _compare_outputs(request: ReportRequest) -> Content:
    store, plan = open_output(request.output)
    facts = _facts(store, plan, request.output)
    # Without a page nobody sees rows.
    redact = request.redact if request.redact is not None and request.to else request.to is None
    settings = _settings(plan, facts).model_copy(
        update={**request.prices, "previous": request.previous, "redact": redact}
    )
    page = make_page(store, plan, facts, settings, whole=True, strict=True)
    if request.to is not None:
        _into_file(page, request.to)
    return page


def _into_file(page: Content, to: str) -> Made:
    from headrace.cluster.report.page import render

    try:
        Path(to).write_bytes(render(page).encode("utf-8", "replace"))
    except OSError as problem:
        raise UserError(f"{to!r} cannot be written: {problem.strerror or problem}.") from problem
    return Made(to, (*page.warnings, *(in_words(each) for each in page.moved if each.flagged)), page)


def with_prices(pipeline: Pipeline, gpu_price: str | None, api_price: str | None) -> Pipeline:
    """The pipeline with the prices of the command line, where they were given.

    Raises:
        UserError: they do not look like prices.
    """
    change = _prices(gpu_price, api_price)
    return pipeline.model_copy(update={"report": pipeline.report.model_copy(update=change)}) if change else pipeline


def _prices(gpu_price: str | None, api_price: str | None) -> dict[str, Any]:
    from headrace.cluster.report.prices import prices

    asked = prices(gpu_price, api_price)
    change: dict[str, Any] = {} if asked.gpu is None else {"gpu_price": asked.gpu}
    if asked.api_in is not None:
        change["api_price"] = (asked.api_in, asked.api_out)
    return change


def _facts(store: Store, plan: Plan, output: str) -> dict[str, Any]:
    """What the last run has reported of this plan; of an output that is not finished what there is."""
    last = read_report(store) or {}
    complete = is_complete(store, plan)
    if complete and last.get("plan") == plan.number and "counts" in last:
        return {**last, "status": "complete"}
    found = read_dead_letters(output, examples=0)
    facts = last if last.get("plan") == plan.number else {"previous": None}
    if last.get("plan", plan.number) < plan.number and "seen" in last:
        facts = {"previous": Baseline.of_report(last, f"plan {last['plan']} of this output").to_data()}
    return {
        **facts,
        "status": "complete" if complete else facts.get("status", "not complete"),
        "plan": plan.number,
        "counts": asdict(found.counts),
        "layouts": dict(plan.layouts),
    }


def _settings(plan: Plan, facts: Mapping[str, Any]) -> ReportSettings:
    """As the last run had them, and its pipeline."""
    given = plan.pipeline.get("report") or {}
    settings = ReportSettings.model_validate(given)
    paid = facts.get("cost") or {}
    change = {name: paid[name] for name in ("gpu_price", "api_price") if paid.get(name) is not None}
    if "api_price" in change:
        change["api_price"] = tuple(change["api_price"])
    if (facts.get("report") or {}).get("redacted"):
        change["redact"] = True
    return settings.model_copy(update=change)
