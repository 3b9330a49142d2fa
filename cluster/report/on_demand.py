"""Reports on demand, for ``headrace report``: of one output, or of the shifts between two."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from headrace.cluster.report.baseline import Baseline
from headrace.cluster.report.build import build_report
from headrace.cluster.report.page.content import ReportContent
from headrace.cluster.report.report_file import open_output, read_report
from headrace.cluster.report.writing import WrittenReport, write_report
from headrace.pipelines.output.completion import is_complete
from headrace.pipelines.output.dead_letters import read_dead_letters
from headrace.pipelines.output.plan import Plan
from headrace.pipelines.spec.errors import StorageUnavailable, UserError
from headrace.pipelines.spec.pipeline import Pipeline
from headrace.pipelines.spec.report_settings import ReportSettings
from headrace.pipelines.storage.store import Store


@dataclass(frozen=True, slots=True)
class ReportRequest:
    """The arguments of ``headrace report``.

    Attributes:
        output: the output to report on.
        previous: the output to compare with; None for the one that its run compared with.
        to: a local file for the page; if given, nothing is written into the output.
        redact: None keeps the setting of the last report.
        prices: the given prices, by their keys in :class:`ReportSettings`.
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
        """The request for the options of the command.

        Raises:
            UserError: options exclude each other, or a required one is missing.
        """
        if compare and (output or previous):
            raise UserError("--compare A B names both outputs. Remove OUTPUT and --previous.")
        if compare:
            previous, output = compare
        if not output:
            raise UserError("No output was given. Use headrace report OUTPUT, or headrace report --compare A B.")
        return cls(output, previous, to, redact, _prices(gpu_price, api_price))


def report_output(request: ReportRequest) -> WrittenReport:
    """Write the report of an output, finished or not, into the output or into a separate file.

    Raises:
        UserError: it is not an output, a part of it cannot be read, or the file cannot be written.
    """
    with _readable(request):
        return _report_output(request)


@contextmanager
def _readable(request: ReportRequest) -> Iterator[None]:
    """Turn the errors of a damaged file into a message for the user."""
    try:
        yield
    except (pa.ArrowException, OSError) as problem:
        # pyarrow raises an OSError without a number for a damaged page.
        if isinstance(problem, StorageUnavailable) or (isinstance(problem, OSError) and problem.errno is not None):
            raise
        outputs = " or of ".join(repr(output) for output in (request.output, request.previous) if output)
        raise UserError(f"A part of {outputs} is damaged: {problem}") from problem


def _report_output(request: ReportRequest) -> WrittenReport:
    store, plan = open_output(request.output)
    facts = _facts(store, plan, request.output)
    change = {**request.prices, **({"previous": request.previous} if request.previous else {})}
    if request.redact is not None:
        change["redact"] = request.redact
    settings = _settings(plan, facts).model_copy(update=change)
    if request.to is None:
        return write_report(store, plan, facts, settings, strict=request.previous is not None)
    return _into_file(build_report(store, plan, facts, settings, strict=request.previous is not None), request.to)


def compare_outputs(request: ReportRequest) -> ReportContent:
    """The shifts from one output to another. A page is written only if the request names a file for it.

    Raises:
        UserError: one of them is not an output, a part cannot be read, or the file cannot be written.
    """
    with _readable(request):
        return _compare_outputs(request)


def _compare_outputs(request: ReportRequest) -> ReportContent:
    store, plan = open_output(request.output)
    facts = _facts(store, plan, request.output)
    # Rows are read for the page only.
    redact = request.redact if request.redact is not None and request.to else request.to is None
    settings = _settings(plan, facts).model_copy(
        update={**request.prices, "previous": request.previous, "redact": redact}
    )
    content = build_report(store, plan, facts, settings, whole=True, strict=True)
    if request.to is not None:
        _into_file(content, request.to)
    return content


def _into_file(content: ReportContent, to: str) -> WrittenReport:
    from headrace.cluster.report.page.render import render

    try:
        Path(to).write_bytes(render(content).encode("utf-8", "replace"))
    except OSError as problem:
        raise UserError(f"{to!r} cannot be written: {problem.strerror or problem}.") from problem
    return WrittenReport(to, (*content.warnings, *content.flagged), content)


def with_prices(pipeline: Pipeline, gpu_price: str | None, api_price: str | None) -> Pipeline:
    """The pipeline with the prices of the command line, if any were given.

    Raises:
        UserError: a price has the wrong form.
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
    """The last run's report on this plan; for an unfinished output, what is known without a report."""
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
    """The settings of the pipeline, with the prices and the redaction of the last report."""
    given = plan.pipeline.get("report") or {}
    settings = ReportSettings.model_validate(given)
    paid = facts.get("cost") or {}
    change = {name: paid[name] for name in ("gpu_price", "api_price") if paid.get(name) is not None}
    if "api_price" in change:
        change["api_price"] = tuple(change["api_price"])
    if (facts.get("report") or {}).get("redacted"):
        change["redact"] = True
    return settings.model_copy(update=change)
