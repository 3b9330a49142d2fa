"""The work of a run: the plan, what of it is done, and what is known of the rest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from headrace.cluster.state.checked import Checked
from headrace.cluster.state.rerun import NO_RERUN, RerunOptions
from headrace.operators.base import ModelStep
from headrace.operators.questions import Layout
from headrace.pipelines.forecast.outlook import Portion
from headrace.pipelines.inference.layouts import LayoutChoice, Priors, with_default
from headrace.pipelines.output.carried_answers import Origin, base_chunk, idle_stages, load_bases, newest_bases, origins
from headrace.pipelines.output.checkpoint import Counts, chunk_records, committed, counts_of
from headrace.pipelines.output.completion import is_complete, was_complete
from headrace.pipelines.output.error_rate import too_many
from headrace.pipelines.output.fixed_priors import priors_of
from headrace.pipelines.output.ledger import Ledger
from headrace.pipelines.output.plan import Chunk, Plan
from headrace.pipelines.output.planning import Changes, PlanSpec, Redo, differences, next_plan
from headrace.pipelines.output.published import published
from headrace.pipelines.output.reuse import Previous, Taken, take, taken, with_seeds
from headrace.pipelines.spec.command_line import run_command
from headrace.pipelines.spec.errors import UserError
from headrace.pipelines.spec.graph import Graph
from headrace.pipelines.storage.locations import local_path, object_uri, shown, without_userinfo
from headrace.pipelines.storage.opening import reached_store
from headrace.pipelines.storage.store import Store


@dataclass(frozen=True, slots=True)
class Work:
    """The plan of a run, what of it is done, and what is left.

    Attributes:
        published: the counts of the shards whose part is made.
        bases: for each chunk left that already has answers, the plan that holds them.
        origins: which answers of each base are still valid.
        dead: dead letters to retry.
        idle: the numbers of the stages that need no engine.
        notes: notes for the user before the work starts.
        lender: the output whose answers are reused, until they are taken.
        taken: what was found there.
    """

    plan: Plan
    changes: Changes
    done: Ledger
    published: Mapping[int, Counts] = field(default_factory=dict)
    bases: Mapping[Chunk, int] = field(default_factory=dict)
    origins: Mapping[int, Origin] = field(default_factory=dict)
    dead: int = 0
    idle: frozenset[int] = frozenset()
    notes: tuple[str, ...] = ()
    lender: Previous | None = None
    taken: Taken | None = None

    @classmethod
    def of(
        cls,
        checked: Checked,
        store: Store,
        previous: Plan | None,
        limit: int | None,
        choice: LayoutChoice,
        options: RerunOptions = NO_RERUN,
    ) -> Work:
        """Plan ``checked`` with the chosen layouts, and find out what is done already.

        Raises:
            UserError: as :func:`next_plan`; or dead letters are to be retried, but there is no output.
        """
        pipeline = checked.pipeline
        if options.retry and previous is None:
            raise UserError(
                f"--retry errors: there are no dead letters, because {shown(store.uri)} is not an output yet. "
                "Run without --retry first."
            )
        reads = Graph.of(pipeline).input_columns
        other = _other(store, options) if options.reuse else None
        lender = Previous.open(other, pipeline, reads) if other is not None and previous is None else None
        base: Plan | None = None
        if lender is not None:
            base = _with_priors(lender.store, lender.plan)
            choice = LayoutChoice(base.layouts, "the reused output uses it", base.priors)
        elif previous is not None:
            base = _with_priors(store, previous)
        layouts, priors, fingerprints = settled(checked, base, choice)
        command = run_command(pipeline.source, without_userinfo(checked.input), shown(store.uri), limit)
        spec = replace(_spec(checked, fingerprints, layouts, priors), command=command)
        redo = _redo(store, previous, spec, checked.pipeline.max_error_rate, options)
        plan, changes = next_plan(previous, checked.corpus, spec, limit, redo)
        if other is not None and previous is not None and plan.number != previous.number:
            lender = Previous.open(other, pipeline, reads)  # else all was taken when the plan was made
        if lender is not None:
            plan = with_seeds(plan, lender, pipeline)
        there = published(store, plan)
        work = cls(plan, changes, committed(store, plan, there.keys()), there, lender=lender)
        if other is not None and not plan.seeds and work.rows_asked_afresh:
            raise UserError(
                f"--reuse: the {work.rows_asked_afresh:,} rows that are left in {shown(store.uri)} were planned "
                "without it, so no answers would be reused. Nothing was changed. Run without --reuse, or use --reuse "
                "with another output folder."
            )
        return work._with_bases(checked, store)

    @property
    def todo(self) -> Collection[Chunk]:
        """The chunks that are left."""
        return self.done.left

    @property
    def rows_left(self) -> int:
        """Rows that are left."""
        return sum(chunk.rows for chunk in self.todo)

    @property
    def rows_asked_afresh(self) -> int:
        """Rows that are left and have no answers to reuse."""
        return sum(chunk.rows for chunk in self.todo if not chunk.bases)

    def take_over(self, checked: Checked, store: Store) -> Work:
        """Take the answers to reuse from the lender; call this before the plan is saved."""
        if self.lender is None or not self.plan.seeds:
            return self
        found = take(store, self.plan, checked.pipeline, checked.columns, self.lender)
        steps = self.plan.seeds["steps"]
        new = [step.name for step in checked.pipeline.steps if step.name not in steps]
        note = (
            f"{found.found:,} of {found.wanted:,} rows are the same as in {self.plan.seeds['output']}: "
            f"their answers are reused{f', except for {chr(44).join(new)}' if new else ''}"
        )
        if afresh := self.rows_asked_afresh:
            note += f"; {afresh:,} rows that were planned without --reuse are processed as usual"
        return replace(self, taken=found, lender=None, notes=(*self.notes, note))

    def _with_bases(self, checked: Checked, store: Store) -> Work:
        """The same with the existing answers of the chunks to process, and notes on them."""
        pipeline, plan = checked.pipeline, self.plan
        if not any(span.bases for shard in plan.shards for span in shard.spans):
            return self
        plans = load_bases(store, plan)
        found = origins(plan, pipeline, plans)
        bases = newest_bases(store, self.todo)
        asking = [step.name for step in pipeline.steps if isinstance(step, ModelStep)]
        idle = idle_stages(store, checked.stages, asking, self.todo, bases, found)
        retried = [base_chunk(chunk, base) for chunk, base in bases.items() if chunk.retry and base > 0]
        dead = sum(counts_of(record).dead for record in chunk_records(store, retried))
        there = next((taken(store, each) for each in plans.values() if each.seeds), None)
        work = replace(self, bases=bases, origins=found, dead=dead, idle=idle, taken=there)
        return replace(work, notes=tuple(work._said(checked)))

    def portions(
        self, checked: Checked, *, whole: bool = False, staged: Mapping[Chunk, Collection[str]] | None = None
    ) -> tuple[Portion, ...]:
        """How many rows run which steps; empty if all rows run all steps, unless ``whole``.

        Rows that were filtered out count as answered; their number is in their chunks. ``staged`` has, for a chunk, the
        steps of stages that have committed their answers.
        """
        staged = staged or {}
        if not self.bases and not staged and not whole:
            return ()
        asking = [step.name for step in checked.pipeline.steps if isinstance(step, ModelStep)]
        rows: Counter[tuple[str, ...]] = Counter()
        share = self.taken.found / max(1, self.taken.wanted) if self.taken else 0.0
        for chunk in self.todo:
            base = self.bases.get(chunk)
            stands = self.origins[base].steps if base is not None else {}
            known = round(share * chunk.rows) if base is not None and base < 0 else chunk.rows
            left = [name for name in asking if name not in staged.get(chunk, ())]
            rows[tuple(name for name in left if name not in stands)] += known
            rows[tuple(left)] += chunk.rows - known
        if self.dead:
            rows[tuple(asking)] += self.dead
        return tuple((count, steps) for steps, count in rows.items() if steps and count) or ((0, ()),)

    def _said(self, checked: Checked) -> list[str]:
        said = []
        if self.dead:
            which = "1 dead letter is" if self.dead == 1 else f"{self.dead:,} dead letters are"
            said.append(f"{which} retried; other answers are kept")
        names = [step.name for step in checked.pipeline.steps]
        again = [chunk for chunk in self.todo if any(base > 0 for base in chunk.bases) and not chunk.retry]
        if again:
            rows = sum(chunk.rows for chunk in again)
            stand = set(names)
            for base in {self.bases[chunk] for chunk in again if chunk in self.bases}:
                stand &= self.origins[base].steps.keys()
            redone = [name for name in names if name not in stand]
            kept = [name for name in names if name in stand]
            said.append(
                f"{rows:,} rows are run again: "
                f"{', '.join(redone) or 'no step'} recomputed; {', '.join(kept) or 'none'} kept"
            )
            said += hoisted_note(self.plan, redone)
        if self.idle and len(self.idle) == len(checked.stages):
            said.append("no rows are left for a model, so no engine is started")
        return said


def _other(store: Store, options: RerunOptions) -> Store:
    if object_uri(options.reuse) is None and local_path(options.reuse).is_file():
        raise UserError(f"--reuse: {options.reuse} is a file. Name the output folder of a run.")
    other = reached_store(options.reuse)
    if other.uri == store.uri:
        raise UserError("--reuse names the output itself, whose answers are kept in any case. Name another output.")
    return other


def hoisted_note(plan: Plan, redone: Sequence[str]) -> list[str]:
    """Why unedited steps are recomputed: they share a header with an edited one."""
    hoisted = [name for name in redone if plan.layouts.get(name) == "hoisted"]
    if len(hoisted) < 2:
        return []
    return [
        f"{', '.join(hoisted)} share one header (layout hoisted): a change to one of them changes the prompts of all"
    ]


def _with_priors(store: Store, plan: Plan) -> Plan:
    """The plan with all priors that its answers were given with."""
    return replace(plan, priors=priors_of(store, plan))


def settled(
    checked: Checked, base: Plan | None, choice: LayoutChoice
) -> tuple[dict[str, Layout], dict[str, Mapping[str, float]], dict[str, str]]:
    """Layouts, priors and fingerprints of the pipeline, taken from ``base`` for every step that is unchanged.

    A step that was only renamed keeps its layout and priors. Priors fitted for a step whose prompt has changed are
    dropped.
    """
    pipeline = checked.pipeline
    chosen = dict(choice.layouts)
    taken = with_default(pipeline, chosen)
    priors = {step: prior for step, prior in choice.priors.items() if taken.get(step) == chosen.get(step)}
    if base is None:
        return taken, priors, checked.fingerprints(taken, priors)
    left = [name for name in base.layouts if name not in taken]
    for name in [name for name in taken if name not in base.layouts]:
        for old in left:
            layouts = with_default(pipeline, {**chosen, name: base.layouts[old]})
            fitted: Priors = {**priors, name: base.priors[old]} if old in base.priors else priors
            if checked.fingerprints(layouts, fitted)[name] == base.fingerprints[old]:
                chosen[name], taken, priors = base.layouts[old], layouts, dict(fitted)
                break
    fingerprints = checked.fingerprints(taken, priors)
    known = set(base.fingerprints.values())
    stale = {name for name in priors if fingerprints[name] not in known}
    if stale:
        priors = {name: prior for name, prior in priors.items() if name not in stale}
        fingerprints = checked.fingerprints(taken, priors)
    return taken, priors, fingerprints


def changes_of(checked: Checked, previous: Plan, choice: LayoutChoice) -> list[str]:
    """What has changed since ``previous``, one clause each."""
    layouts, priors, fingerprints = settled(checked, previous, choice)
    return differences(previous, _spec(checked, fingerprints, layouts, priors))


def _spec(checked: Checked, fingerprints: Mapping[str, str], layouts: Mapping[str, Layout], priors: Priors) -> PlanSpec:
    pipeline = checked.pipeline
    return PlanSpec(
        pipeline=pipeline.to_data(),
        fingerprints=fingerprints,
        schema=checked.schema,
        keep=checked.keep,
        checkpoint_rows=pipeline.checkpoint_rows,
        layouts=layouts,
        priors=priors,
        columns=columns_of(checked),
        key=pipeline.key or (),
        reads=Graph.of(pipeline).input_columns,
    )


def columns_of(checked: Checked) -> dict[str, list[str]]:
    """The output columns of each step."""
    found: dict[str, list[str]] = {step.name: [] for step in checked.pipeline.steps}
    for column, step in checked.pipeline.answers.items():
        found[step].append(column)
    return found


def _redo(store: Store, previous: Plan | None, spec: PlanSpec, max_error_rate: float, options: RerunOptions) -> Redo:
    """What to redo of the previous plan. A redo that it has begun is continued, not started again."""
    if previous is None:
        return Redo(prune=options.prune)
    redo = options.recompute or options.retry
    if not redo and not previous.redo:
        return Redo(prune=options.prune)
    out = published(store, previous)
    # Parts without dead letters have nothing to retry: their chunks are not looked at.
    done = committed(store, previous, [index for index, counts in out.items() if not (options.retry and counts.dead)])
    goes_on = "" if _ended(store, previous, out, max_error_rate) else previous.redo
    differs = differences(previous, spec)
    if redo == goes_on and not differs:
        return Redo(goes_on=goes_on, prune=options.prune)
    dead: Sequence[Chunk] = ()
    if options.retry:
        shards = [shard for shard in previous.shards if shard.index not in out or out[shard.index].dead]
        records = zip(done.chunks_of(shards), chunk_records(store, done.chunks_of(shards)), strict=True)
        dead = [chunk for chunk, record in records if counts_of(record).dead]
    return Redo(redo, goes_on, dead, done, options.prune)


def _ended(store: Store, plan: Plan, out: Mapping[int, Counts], rate: float) -> bool:
    """Whether the runs of a plan have ended: all parts are made, and there is `_SUCCESS` or too many dead letters.

    If the last run died between the two, it has to be continued. If a run died just before it saved the next plan, it
    does not.
    """
    if any(shard.has_part and not shard.gone and shard.index not in out for shard in plan.shards):
        return False
    if is_complete(store, plan, out) or was_complete(store, plan):
        return True
    return too_many(sum(out.values(), Counts()), rate)
