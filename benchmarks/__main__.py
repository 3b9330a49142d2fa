"""``python -m benchmarks``: measure, print, write JSON and a chart."""

from __future__ import annotations

import json
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from benchmarks.chart import draw
from benchmarks.pipelines import CHAIN
from benchmarks.ratios import ratios
from benchmarks.report import print_report
from benchmarks.settings import BENCHES, FULL, HOURS, QUICK, QUICK_BENCHES
from headrace.pipelines.spec.errors import UserError

app = typer.Typer(add_completion=False)


@app.command()
def main(
    quick: Annotated[bool, typer.Option("--quick", help="Few documents, one round, some minutes.")] = False,
    only: Annotated[list[str] | None, typer.Option(help=f"Just this bench: {', '.join(BENCHES)}.")] = None,
    rounds: Annotated[int | None, typer.Option(min=1, help="Rounds of what is compared.")] = None,
    documents: Annotated[int | None, typer.Option(min=1, help="Documents of three steps.")] = None,
    layout: Annotated[str, typer.Option(help="headrace's layout beside other systems: auto, or one of them.")] = CHAIN,
    out: Annotated[Path, typer.Option(help="Folder for results, chart and logs.")] = Path("build/bench"),
    report: Annotated[bool, typer.Option("--report", help="Measure nothing; show what OUT holds.")] = False,
) -> None:
    """Measure headrace beside Ray Data LLM, bare vLLM and Transformers on this machine."""
    # As Ctrl-C does: the child that runs now has to end, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    console = Console(width=max(Console().width, 150), highlight=False)
    unknown = set(only or ()) - set(BENCHES)
    if unknown:
        raise typer.BadParameter(f"no bench {sorted(unknown)[0]!r}; there are {', '.join(BENCHES)}")
    if report:
        if not (out / "results.json").exists():
            raise typer.BadParameter(f"there is no {out / 'results.json'} to show; measure first")
        results = json.loads((out / "results.json").read_text())
    else:
        settings = QUICK if quick else FULL
        settings = replace(
            settings,
            rounds=rounds or settings.rounds,
            documents=documents or settings.documents,
            default_documents=documents or settings.default_documents,
            layout=layout,
        )
        results = _measure(
            settings,
            only or (QUICK_BENCHES if quick else [name for name in BENCHES if name not in HOURS]),
            out,
            console,
        )
    found = ratios(results)
    results["ratios"] = [ratio.as_data() for ratio in found]
    (out / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    print_report(results, found, console)
    for file in [out / "results.json", *draw(results, out / "chart")]:
        console.print(f"written: {file}")
    if results["failures"]:
        raise typer.Exit(1)


def _measure(settings: Any, benches: Any, out: Path, console: Console) -> dict[str, Any]:
    from benchmarks.suite import Suite

    began = time.monotonic()

    def say(message: str) -> None:
        minutes, seconds = divmod(int(time.monotonic() - began), 60)
        console.print(f"{minutes:3d}:{seconds:02d}  {message}", markup=False)

    try:
        return Suite(settings, out, say).run(benches)
    except UserError as error:
        console.print(str(error), style="red", markup=False)
        raise typer.Exit(2) from error


if __name__ == "__main__":
    app()
