"""A run, from the driver's side: check, plan, start, work, finish."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from headrace.cluster.driver.chunks import count_done, do_chunks
from headrace.cluster.driver.clock import Clock
from headrace.cluster.driver.cluster_address import check_reachable, cluster_address
from headrace.cluster.driver.decisions import as_before, drifted, keep_decision
from headrace.cluster.driver.execution import Execution
from headrace.cluster.driver.hints import hints
from headrace.cluster.driver.history import read_history
from headrace.cluster.driver.lookahead import looking_ahead
from headrace.cluster.driver.measured_answers import standing_answers
from headrace.cluster.driver.measuring import Measurements, chosen_layouts, measure_models, stages_to_measure
from headrace.cluster.driver.observations import keep_history, keep_observed, keep_priors
from headrace.cluster.driver.places import begin_execution
from headrace.cluster.driver.preflight import Preflights
from headrace.cluster.driver.publisher import Publisher
from headrace.cluster.driver.reporting import report, report_before, report_complete
from headrace.cluster.observability.observing import Observers, observed
from headrace.cluster.state.checked import Checked, check
from headrace.cluster.state.events import Listener
from headrace.cluster.state.rerun import RerunOptions
from headrace.cluster.state.result import RunResult
from headrace.cluster.state.work import Work
from headrace.pipelines.forecast.ahead import Ahead
from headrace.pipelines.forecast.forecast import History
from headrace.pipelines.forecast.outlook import Outlook, Start
from headrace.pipelines.inference.layouts import LayoutChoice
from headrace.pipelines.output.checkpoint import Counts
from headrace.pipelines.output.completion import begin, finish, is_complete
from headrace.pipelines.output.error_rate import too_many
from headrace.pipelines.output.fixed_priors import fixed_priors, priors_of
from headrace.pipelines.output.folder import check_output_folder
from headrace.pipelines.output.plan import Plan
from headrace.pipelines.output.plan_file import load_plan, save_plan
from headrace.pipelines.output.poison_rows import settle, sweep_notes
from headrace.pipelines.output.stages import commits, entries
from headrace.pipelines.output.strangers import refuse_strangers
from headrace.pipelines.output.superseded import check_latest
from headrace.pipelines.spec.errors import ChunksFailed
from headrace.pipelines.spec.loading import load_pipeline
from headrace.pipelines.spec.pipeline import Pipeline
from headrace.pipelines.storage.opening import reached_store
from headrace.pipelines.storage.store import Store

RESUMES = "Interrupted. Committed chunks are kept. Run the same command again to resume."
NOTHING_WRITTEN = "Interrupted. Nothing was written yet."
"""What an interrupted run says, with a plan and without one."""


@dataclass(frozen=True, slots=True)
class Request:
    """The arguments of a run; see :func:`run`."""

    pipeline: Pipeline
    input: str
    output: str
    limit: int | None
    address: str | None
    rerun: RerunOptions


def run(  # noqa: PLR0913 - the options of a run, each with a name
    pipeline: Pipeline | str | Path,
    *,
    input: str | Path,
    output: str | Path,
    limit: int | None = None,
    address: str | None = None,
    listener: Listener | None = None,
    recompute: str | None = None,
    retry: str | None = None,
    prune: bool = False,
    reuse: str | None = None,
) -> RunResult:
    """Run ``pipeline`` over ``input`` into ``output``, or finish what an earlier run left undone.

    Args:
        pipeline: a :class:`Pipeline`, or the path of a file that holds one.
        input: a file, a folder of files, a glob, or a URI that a source recognizes.
        output: a folder; chunks already committed there are kept.
        limit: rows in total; None for all.
        address: a Ray cluster (``auto``, ``ray://host:port``); ``local`` starts Ray here and stops it again. None: the
            cluster that ``RAY_ADDRESS`` names, else this machine, without Ray if one engine is enough.
        listener: is told of the progress of the run.
        recompute: what to recompute of an existing output: ``changed`` (steps whose answers would change, and steps
            that read them) or ``all``. Without it a changed pipeline is refused.
        retry: ``errors`` retries the dead letters of the output.
        prune: remove the parts of files that are gone from the input.
        reuse: another output of headrace; unchanged rows take their answers from it.

    Raises:
        UserError: the caller must fix something.
        ChunksFailed: some chunks failed; the same call resumes.
    """
    listener = listener or Listener()
    rerun = RerunOptions.of(recompute, retry, prune=prune, reuse=reuse)
    with observed(listener) as observers:
        made = pipeline if isinstance(pipeline, Pipeline) else load_pipeline(pipeline)
        request = Request(made, str(input), str(output), limit, address, rerun)
        observers.result = Run(request, listener, observers).go()
    return observers.result


class Run:
    """One run. :meth:`go` shows its steps; each adds to the state that the next one reads."""

    checked: Checked
    store: Store
    rows: int
    histories: dict[int, History]
    default: LayoutChoice
    work: Work | None
    result: RunResult

    def __init__(self, request: Request, listener: Listener, observers: Observers) -> None:
        self._request = request
        self._listener = listener
        self._observers = observers
        self._clock = Clock(listener, observers)
        self._resumed_between = False
        self._has_plan = False
        self._outlooks: dict[int, Outlook] = {}
        self._measurements = Measurements()
        self._chose = False

    def go(self) -> RunResult:
        """Check, plan, start, work, finish.

        Raises:
            KeyboardInterrupt: with a sentence on what is left of the run.
        """
        try:
            return self._go()
        except KeyboardInterrupt:
            raise KeyboardInterrupt(RESUMES if self._has_plan else NOTHING_WRITTEN) from None

    def _go(self) -> RunResult:
        self._check()
        if self.work is not None and is_complete(self.store, self.work.plan, self.work.published):
            return self._nothing_to_do(self.work)
        self._reuse()
        with self._workers() as execution:
            work = self._settle_plan(execution)
            self._do(work, execution)
        self._judge(work)
        return self._finish(work)

    def _check(self) -> None:
        """Check pipeline, input and output against each other; plan what can be planned before layouts are known."""
        request, rerun = self._request, self._request.rerun
        with self._clock.phase("checking"):
            self.store = reached_store(request.output)
            check_output_folder(self.store, request.input)
            self.checked = check(request.pipeline, request.input)
            previous = load_plan(self.store)
            self._has_plan = previous is not None
            if previous is not None:
                refuse_strangers(self.store, previous)
            self.rows = min(self.checked.corpus.rows, request.limit or self.checked.corpus.rows)
            # Layouts are chosen once for an output, with its first rows.
            self.default = LayoutChoice({}, "")
            if previous is not None:
                self.default = LayoutChoice(
                    previous.layouts, "the existing output uses it", priors_of(self.store, previous)
                )
            at_once = previous or not self.rows or rerun.retry or rerun.reuse
            self.work = self._plan(previous, self.default) if at_once else None
            self.histories = {stage.number: read_history(self.checked, stage) for stage in self.checked.stages}
        self._observers.begun(self.checked, request.input, self.store.uri)
        self.result = RunResult(
            "complete",
            self.store.uri,
            plan=0,
            counts=Counts(),
            notes=list(self.checked.notes),
            stages=self.checked.stages_as_data(),
            started=datetime.now(UTC).isoformat(timespec="seconds"),
        )

    def _plan(self, previous: Plan | None, choice: LayoutChoice) -> Work:
        return Work.of(self.checked, self.store, previous, self._request.limit, choice, self._request.rerun)

    def _nothing_to_do(self, work: Work) -> RunResult:
        """The output is complete. Write its report if the run before did not."""
        result = self.result
        result.status = "already complete"
        result.plan = work.plan.number
        result.counts = count_done(self.store, work)
        if self._request.rerun.retry:
            result.notes.append("there are no dead letters to retry")
        report_complete(self.store, work.plan, self._request.pipeline.report, result, self._clock)
        return result

    def _reuse(self) -> None:
        """Take answers from another output if requested; announce what will happen."""
        if self.work is not None and self.work.lender:
            with self._clock.phase("reusing"):
                self.work = self.work.take_over(self.checked, self.store)
        for note in self.work.notes if self.work else ():
            self._listener.say(note)

    @contextmanager
    def _workers(self) -> Iterator[Execution | None]:
        """Where the workers are, once the prompts are checked; None if no rows are left."""
        if self.work is not None and not self.work.todo:
            yield None
            return
        if address := cluster_address(self._request.address):
            check_reachable(address)
        idle = self.work.idle if self.work else frozenset()
        execution = self._start(idle)
        try:
            self._measure(execution)
            yield execution
        finally:
            execution.end()
            # Notes are advice, and the storage may be what the run ended for.
            with suppress(OSError):
                settle(self.store, execution.run_id)

    def _start(self, idle: frozenset[int]) -> Execution:
        checked, execution = self.checked, None
        awake = [stage for stage in checked.stages if stage.number not in idle]
        ahead = self._ahead() if awake else {}
        try:
            # Workers and the check of the prompts take seconds each, and do not need one another.
            with (
                self._clock.phase("starting"),
                Preflights.begin(checked.pipeline, awake, checked.models, ahead) as preflight,
            ):
                execution = begin_execution(checked, self.store, self._request.address, idle, self._listener.say)
                self._outlooks = preflight.finish()
                self.result.place = execution.place
        except BaseException:
            if execution is not None:
                execution.end()
            raise
        return execution

    def _ahead(self) -> dict[int, Ahead]:
        """What to forecast, by stage. With several models, only for an output whose layouts are still open."""
        if self.checked.only_model is None and self.work is not None:
            return {}
        return {
            stage.number: looking_ahead(self.checked, self.histories[stage.number], self.rows, self.work, stage=stage)
            for stage in self.checked.stages
        }

    def _measure(self, execution: Execution) -> None:
        """Measure the layouts on a sample if they may save more than that costs."""
        checked, result = self.checked, self.result
        if self.work is not None or not self._outlooks:
            return
        start = Start(execution.measures_apart, execution.gpus)
        if wanted := stages_to_measure(checked, self._outlooks, self.histories, start):
            try:
                with self._clock.phase("measuring"):
                    found = measure_models(checked, self._outlooks, self.histories, wanted, execution.measure)
            except ChunksFailed as problem:
                # A row of the sample may be the reason, which the run finds. An engine that never starts fails there.
                result.notes.append(f"the layouts were not measured, and instruction_first is used: {problem}")
                return
            self._measurements = found
            self._outlooks |= found.outlooks
            self.histories |= found.histories
            result.measured = tuple(found.found)
            for stage in checked.stages:
                if stage.number in found.histories:
                    result.notes += keep_history(checked, found.histories[stage.number], stage)

    def _settle_plan(self, execution: Execution | None) -> Work:
        """Save the plan; what is not committed yet is the work."""
        result = self.result
        result.choice = chosen_layouts(self.checked, self._outlooks) if self._outlooks else None
        if self.checked.only_model is not None:
            result.outlook = self._outlooks.get(1)
        self._chose = self.work is None
        work = self.work or self._plan(None, result.choice or self.default)
        if execution is not None and self._measurements.tried:
            execution.known = standing_answers(self.checked, work.plan, self._measurements.tried)
            result.keep_measured(execution.known)
        result.plan, result.changes, result.command = work.plan.number, work.changes, work.plan.command
        if not self.store.exists(work.plan.name):
            begin(self.store, work.plan)
        save_plan(self.store, work.plan)
        self._has_plan = True
        begin(self.store, work.plan)
        self.store.sweep_temporary()
        result.counts = count_done(self.store, work)
        result.resumed = result.counts.rows
        self._observers.working(work, result)
        return work

    def _do(self, work: Work, execution: Execution | None) -> None:
        """Process the chunks that are left, and publish parts as their last chunks arrive."""
        checked, observers = self.checked, self._observers
        staged = len(checked.stages) > 1
        with Publisher(
            self.store, work.plan, work.done, work.published, staged=staged, made=observers.published
        ) as publisher:
            publisher.publish_ready()
            if execution is None:
                return
            with self._clock.phase("running"):
                entering = entries(self.store, commits(work.plan, checked.pipeline, checked.stages), work.todo)
                self._resumed_between = any(entering[1:])
                execution.traced = observers.traced
                rate = checked.pipeline.max_error_rate
                do_chunks(execution, entering, publisher, work, self.result, self._listener, observers, rate)

    def _judge(self, work: Work) -> None:
        """Decide whether too many rows failed, and keep observations for the next run."""
        result, rate = self.result, self.checked.pipeline.max_error_rate
        ended_early = result.status != "complete"
        if not ended_early and too_many(result.counts, rate):
            result.status = "too many dead letters"
        # Rows that were asked only some steps misstate what conditions let through. With several models, so do rows
        # that have not come through all of them, or came through one twice.
        staged = len(self.checked.stages) > 1
        uneven = staged and (self._resumed_between or ended_early or result.totals.restarts or self._measurements.tried)
        if result.totals.asked and not work.bases and not uneven:
            result.notes += keep_observed(self.checked, result.totals, work.plan)
        result.notes += keep_priors(self.checked, work.plan, fixed_priors(self.store, work.plan))

    def _finish(self, work: Work) -> RunResult:
        """Mark the output complete if it is, and write the report."""
        result, store = self.result, self.store
        result.seconds = self._clock.seconds
        check_latest(store, work.plan)
        before = report_before(store) or as_before(self.histories[1], work.plan)
        if result.status == "complete":
            with self._clock.phase("publishing"):
                sweep_notes(store)
                if removed := finish(store, work.plan, result.as_report()):
                    result.notes.append(_removed(removed))
        made = report(store, work.plan, result.as_report(), before, self._request.pipeline.report, result, self._clock)
        if made is not None:
            result.notes += drifted(made)
            if self._chose and result.status == "complete":
                result.notes += keep_decision(self.checked, work.plan, made)
                # Said once, not every night.
                if not any(history.runs or history.decided for history in self.histories.values()):
                    result.notes += hints(self.checked, made)
        return result


def _removed(paths: Sequence[str]) -> str:
    more = f" and {len(paths) - 3} more" if len(paths) > 3 else ""
    return (
        f"the parts of {', '.join(paths[:3])}{more} were removed: they held answers for earlier contents of the files "
        "or of another pipeline, and no row of the current contents is answered"
    )
