"""What is measured, in which order: systems take turns within a round, so that all see the same machine."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.documents import (
    REVIEWS,
    make_documents,
    read_reviews,
    spread_lengths,
    write_documents,
)
from benchmarks.machine import machine_facts
from benchmarks.measure import ChildFailed, in_child
from benchmarks.settings import ONE_ENGINE, Settings
from headrace.cluster.engines.default_model import default_model
from headrace.cluster.engines.tokenizer import HubTokenizer

CHILD_SECONDS, HOURS_SECONDS = 3600.0, 8 * 3600.0
"""Longest that one child may take, and one of the bench that takes hours: only a hang takes so long."""

ANSWERS_KEPT = 3
"""Documents whose answers go into the results, for looking at."""

Say = Callable[[str], None]


class Suite:
    """Runs benches and keeps ``results``, which are written after every child, so that nothing measured is lost."""

    def __init__(self, settings: Settings, out: Path, say: Say) -> None:
        self._settings = settings
        self._out = out
        self._say = say
        self._model = str(default_model())
        self._tokenizer = HubTokenizer(self._model)
        self._reviews = read_reviews()["review"].to_list()
        self.results: dict[str, Any] = {
            "machine": machine_facts(),
            "settings": asdict(settings),
            "began": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "rounds": {},
            "failures": [],
        }

    def run(self, benches: Iterable[str]) -> dict[str, Any]:
        """Run ``benches`` (names of :data:`~benchmarks.settings.BENCHES`)."""
        wanted = tuple(benches)
        began = time.monotonic()
        try:
            if {"three-steps", "transformers"} & set(wanted):
                self._side_by_side(wanted)
            if "six-steps" in wanted:
                self._six_steps()
            if "defaults" in wanted:
                self._defaults()
            if set(wanted) & set(ONE_ENGINE):
                self._one_engine([name for name in wanted if name in ONE_ENGINE])
            if "window" in wanted:
                self._window()
            if "cpu" in wanted:
                self._cpu()
        finally:
            self.results["seconds"] = round(time.monotonic() - began, 1)
            self._save()
        return self.results

    def _side_by_side(self, wanted: Sequence[str]) -> None:
        """Three steps over the same documents, each system in turn."""
        sizes = self._settings
        all_of_them = self._documents(sizes.tokens, sizes.documents)
        systems: dict[str, tuple[str, dict[str, Any]]] = {
            name: (name, {"input": all_of_them, "layout": sizes.layout})
            for name in sizes.systems
            if "three-steps" in wanted
        }
        if "transformers" in wanted:
            systems.setdefault("headrace", ("headrace", {"input": all_of_them, "layout": sizes.layout}))
            few = self._documents(sizes.tokens, sizes.documents, first=sizes.few)
            batch = self._documents(sizes.tokens, sizes.documents, first=sizes.batch)
            systems["transformers, row by row"] = ("transformers", {"input": few, "batch": 1})
            systems[f"transformers, batches of {sizes.batch}"] = (
                "transformers",
                {"input": batch, "batch": sizes.batch},
            )
        self._turns("three steps", systems, steps=3)

    def _six_steps(self) -> None:
        """Six steps over longer documents; the rival's engine is started once for all six (see ``ray_llm``)."""
        sizes = self._settings
        source = self._documents(sizes.six_tokens, sizes.six_documents)
        systems = {name: (name, {"input": source, "layout": sizes.layout}) for name in ("headrace", "ray-one")}
        self._turns("six steps", systems, steps=6)

    def _defaults(self) -> None:
        """Three steps over many documents, with headrace as it comes: ``auto``, on a machine that never ran this."""
        sizes = self._settings
        source = self._documents(sizes.tokens, sizes.default_documents)
        systems: dict[str, tuple[str, dict[str, Any]]] = {
            "headrace": ("headrace", {"input": source, "layout": "auto", "first_time": True}),
            sizes.default_rival: (sizes.default_rival, {"input": source}),
        }
        self._turns("defaults", systems, timeout=HOURS_SECONDS, steps=3)

    def _turns(
        self, bench: str, systems: Mapping[str, tuple[str, dict[str, Any]]], timeout: float = CHILD_SECONDS, **job: Any
    ) -> None:
        rounds = self.results["rounds"].setdefault(bench, [])
        for turn in range(1, self._settings.rounds + 1):
            measured: dict[str, Any] = {}
            rounds.append(measured)
            for name, (system, more) in systems.items():
                result = self._child(system, f"{bench}, round {turn}: {name}", {**job, **more}, timeout)
                if result is not None:
                    measured[name] = {**result, "answers": result["answers"][:ANSWERS_KEPT]}
                    seconds = result["seconds"]
                    self._say(f"  warm {seconds['warm']:.1f} s, cold {seconds['cold']:.1f} s")
                self._save()

    def _one_engine(self, parts: Sequence[str]) -> None:
        """What is compared on one engine: loops, layouts, document lengths, steps, quality."""
        sizes = self._settings
        job = {
            "parts": parts,
            "rounds": sizes.rounds,
            "input": self._documents(sizes.tokens, sizes.documents),
            "lengths": {str(length): self._documents(length, sizes.length_documents) for length in sizes.lengths},
            "step_counts": sizes.step_counts,
            "step_documents": sizes.step_documents,
            "reviews": str(REVIEWS.resolve()),
            "quality_reviews": sizes.quality_reviews,
        }
        self.results["engine"] = self._child("engine", f"on one engine: {', '.join(parts)}", job)
        self._save()

    def _window(self) -> None:
        """Documents in flight, over sizes of the KV cache, with vLLM's own order of requests and with ours."""
        sizes = self._settings
        lengths = spread_lengths(*sizes.window_lengths, sizes.window_documents)
        documents = make_documents(self._reviews, lengths, self._tokenizer)
        source = str(write_documents(documents, self._out / "documents" / f"mixed-{len(documents)}").resolve())
        found = self.results.setdefault("window", {})
        for pool, policy in itertools.product(sizes.pools, ("fcfs", "priority")):
            job = {"input": source, "windows": sizes.windows, "rounds": sizes.window_rounds}
            job |= {"pool": pool, "policy": policy}
            what = f"documents in flight, a KV cache of {pool} tokens, {policy}"
            found[f"{pool}, {policy}"] = self._child("window", what, job)
            self._save()

    def _cpu(self) -> None:
        """Where the processor time of a row goes, without an engine."""
        sizes = self._settings
        job = {
            "input": self._documents(sizes.tokens, sizes.documents),
            "rows": sizes.cpu_rows,
            "rounds": sizes.rounds,
        }
        self.results["cpu"] = self._child("cpu", "processor time of a row", job)
        self._save()

    def _child(
        self, system: str, what: str, job: Mapping[str, Any], timeout: float = CHILD_SECONDS
    ) -> dict[str, Any] | None:
        """Measure; a system that fails is noted, and the others go on."""
        self._say(what)
        log = self._out / "logs" / f"{''.join(c if c.isalnum() else '-' for c in what)}.log"
        try:
            return in_child(system, {**job, "model": self._model}, log=log, timeout=timeout)
        except ChildFailed as failure:
            self._say(f"  failed: {failure}")
            self.results["failures"].append({"what": what, "why": str(failure)})
            return None

    def _documents(self, tokens: int, count: int, first: int | None = None) -> str:
        """The folder of ``count`` documents of ``tokens`` tokens, or of the ``first`` of them."""
        wanted = make_documents(self._reviews, [tokens] * count, self._tokenizer)[:first]
        return str(write_documents(wanted, self._out / "documents" / f"{tokens}-{len(wanted)}").resolve())

    def _save(self) -> None:
        self._out.mkdir(parents=True, exist_ok=True)
        (self._out / "results.json").write_text(json.dumps(self.results, indent=1) + "\n")
